"""upconv.book.together: several trainings at once are those of `train`, one by one."""

import copy
import math

import pytest
import torch
from torch import nn

from upconv.book.blocks import FOLDED
from upconv.book.models import Autoencoder, SuperResolution, UNet
from upconv.book.together import train_together
from upconv.book.training import reconstruct, train

SEEDS = [5, 0, 3]
SETTINGS = dict(steps=7, batch_size=4, learning_rate=0.01)


def networks(build, seeds=SEEDS):
    models = []
    for seed in seeds:
        torch.manual_seed(seed)
        models.append(build())
    return models


def pictures(*shape, count=11):
    return torch.randint(256, (count, *shape), dtype=torch.uint8)


def one_by_one(models, images, targets=None, **settings):
    """Train copies by `train`; give them and their losses as `train_together` gives its own."""
    models = copy.deepcopy(models)
    losses = [
        train(model, images, targets, seed=seed, progress=False, **settings)
        for model, seed in zip(models, SEEDS, strict=True)
    ]
    return models, torch.tensor(losses).T


def assert_equal_states(models, others, **tolerance):
    for one, other in zip(models, others, strict=True):
        state = other.state_dict()
        assert list(one.state_dict()) == list(state)
        for name, value in one.state_dict().items():
            torch.testing.assert_close(value, state[name], **tolerance, msg=lambda text, name=name: f"{name}: {text}")


TIGHT = dict(rtol=1e-4, atol=1e-5)  # of weights that moved by 0.07; Adam magnifies what a sum rounds

CASES = {
    **{
        f"autoencoder {name}": (lambda name=name: Autoencoder(name, code_size=5, channels=(2, 3, 4)), (1, 28, 28))
        for name in ("conv_transpose_4x4", "nearest_conv_3x3", "bilinear_conv_3x3", "pixel_shuffle_icnr", FOLDED)
    },
    "two convolutions in colour": (
        lambda: Autoencoder("nearest_conv_2x2", 5, (2, 3, 4), image_channels=3, image_size=32, convolutions=2),
        (3, 32, 32),
    ),
    "masks": (lambda: nn.Conv2d(1, 3, 3, padding=1), (1, 6, 5)),
}
SCHEDULES = {
    "plain": {},
    "warmed": dict(warmup=4, decay=True),
    "clipped": dict(clip=0.02),
    "hardly clipped": dict(clip=0.5),
}


@pytest.mark.parametrize("options", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("name", CASES)
def test_each_becomes_what_it_becomes_alone(name, options):
    build, shape = CASES[name]
    models, images = networks(build), pictures(*shape)
    targets = (images[:, 0] % 3).long() if name == "masks" else None
    alone, expected = one_by_one(models, images, targets, **SETTINGS, **options)
    start = copy.deepcopy(models)
    losses = train_together(models, images, targets, seeds=SEEDS, **SETTINGS, **options)
    assert losses.shape == (7, 3) and losses.device.type == "cpu" and not losses.requires_grad
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-6)
    assert_equal_states(models, alone, **TIGHT)
    for model, before in zip(models, start, strict=True):  # so that the comparison says something
        assert all((a - b).abs().max() > 1e-3 for a, b in zip(model.parameters(), before.parameters(), strict=True))


def test_a_unets_running_averages_are_its_own():
    """Batch normalization divides by what it measures, so rounding grows faster: 1% of a step of 0.01 is let pass."""
    models, images = networks(lambda: UNet("conv_transpose_4x4", channels=(2, 3, 4))), pictures(1, 16, 16)
    masks = (images[:, 0] > 128).long()
    alone, expected = one_by_one(models, images, masks, **SETTINGS)
    losses = train_together(models, images, masks, seeds=SEEDS, **SETTINGS)
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)
    assert_equal_states(models, alone, rtol=1e-3, atol=1e-4)
    counts = [value for model in models for name, value in model.state_dict().items() if name.endswith("tracked")]
    assert counts and all(value == 7 for value in counts)
    assert not torch.equal(models[0].encoder.level0.norm1.running_mean, models[1].encoder.level0.norm1.running_mean)


def test_images_and_their_targets_may_differ_in_size():
    models, images = networks(lambda: SuperResolution("pixel_shuffle", (2, 2, 3))), pictures(1, 4, 5)
    targets = pictures(1, 16, 20) / 255
    alone, expected = one_by_one(models, images, targets, **SETTINGS)
    losses = train_together(models, images, targets, seeds=SEEDS, **SETTINGS)
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-6)
    assert_equal_states(models, alone, **TIGHT)


def test_gradients_are_shortened_for_each_by_itself():
    """One network is far off, so its gradients are long; the others' are as short as they were."""
    models, images = networks(lambda: nn.Conv2d(1, 1, 3, padding=1)), pictures(1, 6, 5)
    with torch.no_grad():
        models[1].bias.fill_(1000)
    alone, expected = one_by_one(models, images, clip=0.1, **SETTINGS)
    losses = train_together(models, images, clip=0.1, seeds=SEEDS, **SETTINGS)
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-6)
    assert_equal_states(models, alone, **TIGHT)


@pytest.mark.parametrize("options", [{}, {"clip": 0.02}], ids=str)
@pytest.mark.parametrize("wrong", [math.nan, math.inf, 1e30])
def test_one_that_diverges_leaves_the_others_alone(wrong, options):
    def trained(value):
        models = networks(CASES["autoencoder nearest_conv_3x3"][0])
        with torch.no_grad():
            models[1].decoder.up2[1].weight[0, 0, 1, 1] = value
        return models, train_together(models, images, seeds=SEEDS, **SETTINGS, **options)

    images = pictures(1, 28, 28)
    (models, losses), (others, expected) = trained(0.1), trained(wrong)
    assert not expected[-1, 1].isfinite() or expected[-1, 1] > 1e10
    assert torch.equal(losses[:, [0, 2]], expected[:, [0, 2]])
    assert_equal_states([models[0], models[2]], [others[0], others[2]], rtol=0, atol=0)


def test_the_callback_sees_the_weights_of_the_moment_it_was_asked_for():
    images, seen = pictures(1, 28, 28), {}
    models = networks(CASES["autoencoder conv_transpose_4x4"][0])
    start = copy.deepcopy(models)

    def look(step):
        seen[step] = copy.deepcopy(models)
        reconstruct(models[1], images)  # a measurement changes nothing

    losses = train_together(models, images, seeds=SEEDS, callback=look, looks=(5, 0, 2, 99), **SETTINGS)
    assert list(seen) == [0, 2, 5, 7]
    assert_equal_states(seen[0], start, rtol=0, atol=0)
    assert_equal_states(seen[7], models, rtol=0, atol=0)
    for step in (2, 5):
        alone, _ = one_by_one(start, images, **{**SETTINGS, "steps": step})
        assert_equal_states(seen[step], alone, **TIGHT)
    again = networks(CASES["autoencoder conv_transpose_4x4"][0])
    assert torch.equal(train_together(again, images, seeds=SEEDS, **SETTINGS), losses)
    assert_equal_states(again, models, rtol=0, atol=0)


def test_without_looks_the_callback_comes_once_at_the_end():
    seen = []
    models = networks(CASES["masks"][0])
    masks = (pictures(6, 5) % 3).long()
    train_together(models, pictures(1, 6, 5), masks, seeds=SEEDS, callback=seen.append, **SETTINGS)
    assert seen == [7]


@pytest.mark.parametrize("training, options", [(True, {}), (False, {}), (True, {"clip": 0.1})])
def test_the_models_are_trained_in_place_in_train_mode_and_stay_as_they_came(training, options):
    def build():
        return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 1)).train(training)

    models, images = networks(build), pictures(1, 6, 5)
    for model in models:
        model[2].bias.requires_grad_(False)
    held = [[*model.parameters(), *model.buffers()] for model in models]
    before, moved = [[tensor.clone() for tensor in mine] for mine in held], torch.get_rng_state()
    train_together(models, images, seeds=SEEDS, **SETTINGS, **options)
    assert torch.equal(torch.get_rng_state(), moved)
    for model, tensors, old in zip(models, held, before, strict=True):
        assert model.training is model[1].training is training
        now = [*model.parameters(), *model.buffers()]
        assert all(tensor is one for tensor, one in zip(tensors, now, strict=True))
        same = {name for (name, one), was in zip(model.named_parameters(), old, strict=False) if torch.equal(one, was)}
        assert same == {"2.bias"}  # which is not trained
        assert model[1].num_batches_tracked == 7 and not torch.equal(model[1].running_mean, torch.zeros(2))
        assert all(one.is_leaf and one.requires_grad for name, one in model.named_parameters() if name != "2.bias")
        assert all(one.grad is None for one in model.parameters())


@pytest.mark.parametrize("steps", [1, 2])
def test_a_single_network_and_a_single_step_are_no_exception(steps):
    images = pictures(1, 6, 5)
    [model] = networks(lambda: nn.Conv2d(1, 1, 3, padding=1), [4])
    other = copy.deepcopy(model)
    losses = train_together([model], images, seeds=[4], **{**SETTINGS, "steps": steps})
    expected = train(other, images, seed=4, progress=False, **{**SETTINGS, "steps": steps})
    assert losses.flatten().tolist() == pytest.approx(expected)
    assert_equal_states([model], [other], **TIGHT)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"seeds": [1, 2]}, ValueError, "there are 2 seeds for 3 models"),
        ({"batch_size": 12}, ValueError, "batch_size=12 must be from 1 to 11, the number of images"),
        ({"batch_size": 0}, ValueError, "batch_size=0 must be an int of at least 1"),
        ({"batch_size": 2.0}, TypeError, "batch_size=2.0 must be an int"),
        ({"steps": 0}, ValueError, "steps=0 must be an int of at least 1"),
        ({"warmup": -1}, ValueError, "warmup=-1 must be an int of at least 0"),
        ({"learning_rate": 0}, ValueError, "learning_rate=0 must be a finite number above 0"),
        ({"learning_rate": math.inf}, ValueError, "learning_rate=inf"),
        ({"targets": torch.zeros(10, 1, 6, 5)}, ValueError, "there are 10 targets for 11 images"),
        ({"targets": torch.zeros(11, 1, 6, 4)}, ValueError, r"makes \(4, 1, 6, 5\) where the target is \(4, 1, 6, 4\)"),
        ({"images": torch.zeros(11, 1, 6, 5).int()}, TypeError, "images must be uint8"),
    ],
)
def test_errors_are_those_of_a_single_training_and_change_nothing(settings, error, message):
    models = networks(lambda: nn.Conv2d(1, 1, 3, padding=1))
    before = copy.deepcopy(models)
    with pytest.raises(error, match=message):
        train_together(models, **{**SETTINGS, "images": pictures(1, 6, 5), "seeds": SEEDS, **settings})
    assert_equal_states(models, before, rtol=0, atol=0)


def test_the_progress_bar(monkeypatch, capsys):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.delenv("PYTEST_VERSION")
    for progress, texts in ((False, []), (True, ["0/7", "?step/s"]), ("a label", ["a label", "0/7"])):
        models = networks(lambda: nn.Conv2d(1, 1, 3, padding=1))
        train_together(models, pictures(1, 6, 5), seeds=SEEDS, progress=progress, **SETTINGS)
        found = capsys.readouterr().err
        assert all(text in found for text in texts) and bool(found) is bool(texts)
