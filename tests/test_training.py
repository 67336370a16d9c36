import errno
import functools
import io
import itertools
import math
import os
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from safetensors import safe_open
from skimage.metrics import peak_signal_noise_ratio
from torch import nn

from upconv.book.checkpoints import run_key
from upconv.book.models import UNet
from upconv.book.training import _as_target, psnr, reconstruct, train

SETTINGS = dict(steps=6, batch_size=4, learning_rate=0.01, seed=0, progress=False)


class Spy(nn.Module):
    """One convolution that keeps what it was given, in which mode; from call `broken_from` on it answers NaN."""

    def __init__(self, broken_from=math.inf):
        super().__init__()
        self.conv, self.frozen = nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1).eval()
        self.batches, self.modes, self.weights, self.broken_from = [], [], [], broken_from

    def forward(self, images):
        self.batches.append(images)
        self.modes.append((self.training, self.frozen.training, torch.is_grad_enabled()))
        self.weights.append(self.conv.weight.detach().clone())
        return self.conv(images) * (math.nan if len(self.batches) > self.broken_from else 1)


@pytest.fixture
def images():
    return torch.randint(256, (10, 1, 6, 4), dtype=torch.uint8)


def small_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.ConvTranspose2d(4, 1, 4, 2, 1)).double()


def trained(images, **settings):
    model = small_model()
    return train(model, images, **{**SETTINGS, **settings}), list(model.state_dict().values())


def test_the_same_seed_gives_the_same_bits(images):
    (losses, weights), (again, weights_again) = trained(images), trained(images)
    assert len(losses) == 6 and all(type(loss) is float for loss in losses)
    assert losses == again
    assert all(map(torch.equal, weights, weights_again))


def test_another_seed_gives_another_order(images):
    assert trained(images)[0] != trained(images, seed=1)[0]


def test_the_global_generators_are_left_alone(images):
    model = Spy()
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1]
    train(model, images, **SETTINGS)
    reconstruct(model, images)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)


def test_an_epoch_takes_an_image_at_most_once_and_the_next_has_another_order():
    images = torch.arange(11, dtype=torch.uint8).reshape(11, 1, 1, 1)
    model = Spy()
    train(model, images, **{**SETTINGS, "steps": 8, "batch_size": 5, "seed": 3})
    seen = (torch.cat(model.batches).flatten() * 255).round().long()
    generator = torch.Generator().manual_seed(3)
    expected = torch.cat([torch.randperm(11, generator=generator)[:10] for _ in range(4)])
    assert seen.tolist() == expected.tolist()
    epochs = [tuple(epoch) for epoch in seen.reshape(4, 10).tolist()]
    assert all(len(set(epoch)) == 10 for epoch in epochs) and len(set(epochs)) == 4


def test_the_loss_falls_on_a_small_problem():
    images = torch.rand(40, 1, 8, 8, dtype=torch.float64)
    model = Spy().double()
    losses = train(model, images, steps=150, batch_size=8, learning_rate=0.03, seed=0, progress=False)
    assert losses[0] > 0.05 and losses[-1] < 0.01
    assert psnr(reconstruct(model, images), images).mean() > 20


def test_a_loss_is_the_mean_squared_error_before_the_update(images):
    model = Spy()
    start = model.conv.weight.detach().clone(), model.conv.bias.detach().clone()
    [loss] = train(model, images, **{**SETTINGS, "steps": 1})
    [batch] = model.batches
    error = nn.functional.conv2d(batch, *start, padding=1) - batch
    assert loss == pytest.approx(error.square().mean().item())


def test_every_step_is_one_of_adam(images):
    model, reference = Spy(), Spy()
    reference.load_state_dict(model.state_dict())
    optimizer = torch.optim.Adam(reference.parameters(), lr=0.01)
    train(model, images, **SETTINGS)
    for batch in model.batches:
        optimizer.zero_grad()
        nn.functional.mse_loss(reference(batch), batch).backward()
        optimizer.step()
    assert torch.equal(model.conv.weight, reference.conv.weight)


def test_the_callback_sees_the_model_before_the_first_step_and_after_each(images):
    model, seen = Spy(), []

    def look(step):
        seen.append((step, model.conv.weight.detach().clone()))
        reconstruct(model, images)  # a measurement changes nothing

    train(model, images, callback=look, **SETTINGS)
    assert [step for step, _ in seen] == list(range(7))
    assert not torch.equal(seen[0][1], seen[1][1])
    assert torch.equal(seen[6][1], model.conv.weight)
    without, weights = trained(images)
    other = small_model()
    assert train(other, images, callback=lambda step: reconstruct(other, images), **SETTINGS) == without
    assert all(map(torch.equal, other.state_dict().values(), weights))


def test_a_warmup_raises_the_learning_rate_step_by_step(images):
    sizes = {}
    for warmup in (0, 1, 4):
        torch.manual_seed(0)
        model, weights = Spy(), []

        def look(step, model=model, weights=weights):
            weights.append(model.conv.bias.detach().clone())

        train(model, images, callback=look, warmup=warmup, **SETTINGS)
        sizes[warmup] = [(b - a).abs().item() for a, b in itertools.pairwise(weights)]
    assert sizes[0] == sizes[1]
    assert sizes[0][0] == pytest.approx(0.01, rel=1e-3)  # Adam's first step has the size of the learning rate
    assert sizes[4][0] == pytest.approx(0.01 / 4, rel=1e-3)
    assert sizes[4][1] == pytest.approx(0.01 / 2, rel=0.2)


@pytest.mark.parametrize("warmup", [0, 4])
def test_the_learning_rate_can_fall_to_the_end(images, warmup):
    model, reference = Spy(), Spy()
    reference.load_state_dict(model.state_dict())
    train(model, images, decay=True, warmup=warmup, **SETTINGS)
    optimizer = torch.optim.Adam(reference.parameters())
    for step, batch in enumerate(model.batches):
        optimizer.param_groups[0]["lr"] = 0.01 * (min(1, (step + 1) / 4) if warmup else 1) * (6 - step) / 6
        optimizer.zero_grad()
        nn.functional.mse_loss(reference(batch), batch).backward()
        optimizer.step()
    torch.testing.assert_close(model.conv.weight, reference.conv.weight, rtol=1e-6, atol=0)


def test_targets_follow_their_images(images):
    class Enlarge(Spy):
        def forward(self, images):
            return super().forward(images).repeat_interleave(2, -1)

    targets = (images.float() / 255).repeat_interleave(2, -1) * torch.arange(1, 11).reshape(10, 1, 1, 1) / 10
    model = Enlarge()
    start = model.conv.weight.detach().clone(), model.conv.bias.detach().clone()
    [loss] = train(model, images, targets, **{**SETTINGS, "steps": 1})
    [batch] = model.batches
    indices = [int((images.float() / 255 - one).abs().flatten(1).sum(1).argmin()) for one in batch]
    made = nn.functional.conv2d(batch, *start, padding=1).repeat_interleave(2, -1)
    assert loss == pytest.approx((made - targets[indices]).square().mean().item())
    itself, other = (train(small_model(), images, given, **SETTINGS) for given in (images, None))
    assert itself == other


def classifier():
    torch.manual_seed(0)
    return nn.Conv2d(1, 3, 3, padding=1).double()


def test_masks_are_learned_by_cross_entropy(images):
    masks, model = (images[:, 0] % 3).long(), classifier()
    indices = torch.randperm(10, generator=torch.Generator().manual_seed(0))[:4]
    logits = model(images[indices].double() / 255)
    probabilities = logits.softmax(dim=1).gather(1, masks[indices].unsqueeze(1))
    [loss] = train(model, images, masks, **{**SETTINGS, "steps": 1})
    assert loss == pytest.approx(-probabilities.log().mean().item())
    easy = (images[:, 0] > 127).long()
    losses = train(model, images, easy, **{**SETTINGS, "steps": 300, "learning_rate": 0.1})
    assert losses[-1] < 0.3 * losses[0]


def test_another_loss_is_given_what_was_made_and_what_was_wanted(images):
    masks, weight = (images[:, 0] % 3).long(), torch.tensor([1.0, 5.0, 0.1]).double()
    found = {}
    for name in ("plain", "weighted"):
        loss = nn.CrossEntropyLoss(weight=weight) if name == "weighted" else None
        model = classifier()
        found[name] = train(model, images, masks, loss=loss, **{**SETTINGS, "steps": 1}), model.weight.detach().clone()
    indices = torch.randperm(10, generator=torch.Generator().manual_seed(0))[:4]
    model = classifier()
    logits = model(images[indices].double() / 255)
    assert found["weighted"][0] == pytest.approx([nn.functional.cross_entropy(logits, masks[indices], weight).item()])
    assert found["plain"][0] != pytest.approx(found["weighted"][0])
    assert not torch.equal(found["plain"][1], found["weighted"][1])
    asked = []
    train(
        Spy(), images, loss=lambda *both: asked.append([x.shape for x in both]) or (both[0] - both[1]).sum(), **SETTINGS
    )
    assert asked[0] == [(4, 1, 6, 4), (4, 1, 6, 4)]


def test_masks_go_to_the_models_device_as_they_are(images):
    mask = _as_target(images.long(), nn.Linear(1, 1, device="meta"))
    assert mask.is_meta and mask.dtype == torch.int64


def test_masks_of_another_shape_or_kind_are_refused(images):
    with pytest.raises(ValueError, match=r"makes \(4, 3, 6, 4\) where the mask \(int64\) is \(4, 1, 6, 4\)"):
        train(classifier(), images, images.long(), **SETTINGS)
    with pytest.raises(ValueError, match=r"where the mask \(int64\) is \(4, 6, 3\)"):
        train(classifier(), images, images[:, 0, :, :3].long(), **SETTINGS)
    with pytest.raises(TypeError, match="int32"):
        train(classifier(), images, images[:, 0].int(), **SETTINGS)


def test_targets_that_do_not_fit_are_refused(images):
    with pytest.raises(ValueError, match="there are 9 targets for 10 images"):
        train(Spy(), images, images[1:], **SETTINGS)
    with pytest.raises(ValueError, match=r"makes \(4, 1, 6, 4\) where the target is \(4, 1, 1, 1\)"):
        train(Spy(), images, images[..., :1, :1], **SETTINGS)
    with pytest.raises(TypeError, match="floating point"):
        train(Spy(), images, images.int(), **SETTINGS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uint8_and_float_images_in_either_precision(images, dtype):
    def run(given):
        torch.manual_seed(0)
        model = Spy().to(dtype)
        losses = train(model, given, **SETTINGS)
        assert {batch.dtype for batch in model.batches} == {dtype}
        assert reconstruct(model, given).dtype == dtype
        return losses

    assert run(images) == run(images.to(dtype) / 255)
    assert run(images) == pytest.approx(run(images.double() / 255))


def test_train_mode_while_training_and_the_old_modes_afterwards(images):
    for training in (True, False):
        model = Spy().train(training)
        model.frozen.eval()
        train(model, images, **SETTINGS)
        assert set(model.modes) == {(True, True, True)}
        assert (model.training, model.conv.training, model.frozen.training) == (training, training, False)


def test_eval_mode_while_reconstructing_and_the_old_modes_afterwards(images):
    model = Spy()
    model.frozen.eval()
    output = reconstruct(model, images, batch_size=4)
    assert [len(batch) for batch in model.batches] == [4, 4, 2]
    assert set(model.modes) == {(False, False, False)}
    assert (model.training, model.frozen.training) == (True, False)
    assert output.shape == images.shape and not output.requires_grad
    torch.testing.assert_close(output, model.conv(images / 255))
    torch.testing.assert_close(reconstruct(model, images), output)


def test_a_loss_that_is_not_a_number_stops_at_its_step(images):
    model = Spy(broken_from=2).eval()
    with pytest.raises(FloatingPointError, match=r"the loss is nan in step 2 of 6; .*learning_rate=0.01"):
        train(model, images, **SETTINGS)
    assert len(model.batches) == 3
    assert torch.equal(model.conv.weight, model.weights[-1])
    assert not torch.equal(model.weights[0], model.weights[1])
    assert not model.training


def test_nothing_falls_back_to_the_cpu(images):
    """On "meta", which computes no values, the first loss can't be read: everything before it has to be there."""
    model = Spy()
    with pytest.raises(RuntimeError, match="meta"):
        train(model, images, **{**SETTINGS, "device": torch.device("meta")})
    assert {tensor.device.type for tensor in [*model.parameters(), *model.batches]} == {"meta"}
    assert images.device.type == "cpu"
    assert reconstruct(model, images.to("meta")).device.type == "meta"
    with pytest.raises(NotImplementedError, match="meta"):
        reconstruct(model, images)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_is_an_error(images):
    with pytest.raises((AssertionError, RuntimeError)):
        train(Spy(), images, **{**SETTINGS, "device": "cuda"})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_sees_the_same_batches(images):
    on_cpu, on_cuda = Spy().double(), Spy().double()
    on_cuda.load_state_dict(on_cpu.state_dict())
    losses = train(on_cpu, images, **SETTINGS)
    assert train(on_cuda, images, **{**SETTINGS, "device": "cuda"}) == pytest.approx(losses)
    assert {batch.device.type for batch in on_cuda.batches} == {"cuda"}
    assert reconstruct(on_cuda, images).device.type == "cpu"
    torch.testing.assert_close(reconstruct(on_cuda, images), reconstruct(on_cpu, images))


@pytest.mark.parametrize(
    ("progress", "disabled", "shown"),
    [(True, None, "?step/s"), ("a label", "0", "a label"), (True, "1", None), (False, None, None), (True, "", "0/6")],
)
def test_the_progress_bar(monkeypatch, images, progress, disabled, shown):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.delenv("PYTEST_VERSION")
    if disabled:
        monkeypatch.setenv("TQDM_DISABLE", disabled)
    output = io.StringIO()
    monkeypatch.setattr("sys.stderr", output)
    train(Spy(), images, **{**SETTINGS, "progress": progress})
    text = output.getvalue()
    assert (shown in text and "0/6" in text) if shown else text == ""
    monkeypatch.setenv("PYTEST_VERSION", "9")  # as in a kernel of nbval, which would find the bar in the output
    train(Spy(), images, **{**SETTINGS, "progress": progress})
    assert output.getvalue() == text


def test_reconstructing_shows_a_bar_only_where_it_takes_long(monkeypatch, images):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.delenv("PYTEST_VERSION")
    output = io.StringIO()
    monkeypatch.setattr("sys.stderr", output)
    reconstruct(Spy(), images, batch_size=4)
    assert output.getvalue() == ""
    now = itertools.count(step=1.0)
    monkeypatch.setattr("tqdm.std.time", lambda: next(now))
    reconstruct(Spy(), images, batch_size=1)
    assert "images" in output.getvalue() and "/10 [" in output.getvalue()


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"steps": 0}, ValueError, "steps=0 must be at least 1"),
        ({"steps": 2.0}, TypeError, "steps=2.0 must be an int"),
        ({"batch_size": True}, TypeError, "batch_size=True must be an int"),
        ({"batch_size": 0}, ValueError, "batch_size=0 must be from 1 to 10"),
        ({"batch_size": 11}, ValueError, "batch_size=11 must be from 1 to 10, the number of images"),
        ({"learning_rate": 0}, ValueError, "learning_rate=0 must be a finite number above 0"),
        ({"learning_rate": math.nan}, ValueError, "learning_rate=nan"),
        ({"warmup": -1}, ValueError, "warmup=-1 must be an int of at least 0"),
        ({"warmup": 1.5}, ValueError, "warmup=1.5 must be an int"),
    ],
)
def test_errors_of_the_settings(images, settings, error, message):
    model = Spy()
    with pytest.raises(error, match=message):
        train(model, images, **{**SETTINGS, **settings})
    assert not model.batches


def test_integer_images_other_than_uint8_are_an_error(images):
    for call in (lambda x: train(Spy(), x, **SETTINGS), lambda x: reconstruct(Spy(), x), lambda x: psnr(x, x)):
        with pytest.raises(TypeError, match=r"images must be uint8 \(0 to 255\) or floating point .*not torch.int64"):
            call(images.long())
    with pytest.raises(ValueError, match="batch_size=0 must be at least 1"):
        reconstruct(Spy(), images, batch_size=0)


def test_psnr_agrees_with_scikit_image():
    reference, images = torch.rand(2, 7, 1, 6, 5)
    values = psnr(images, reference)
    assert values.dtype == torch.float64
    pairs = zip(reference.double().numpy(), images.double().numpy(), strict=True)
    expected = [peak_signal_noise_ratio(true, image, data_range=1) for true, image in pairs]
    np.testing.assert_allclose(values.numpy(), expected, rtol=1e-12)
    pooled = peak_signal_noise_ratio(reference.double().numpy(), images.double().numpy(), data_range=1)
    assert psnr(images.reshape(1, -1), reference.reshape(1, -1)).item() == pytest.approx(pooled)
    assert pooled <= values.mean().item()


def test_psnr_of_bytes_and_of_equal_images(images):
    assert psnr(images, images / 255.0).min() > 100
    assert psnr(images, images).tolist() == [math.inf] * 10
    with pytest.raises(ValueError, match=r"the same shape, not \(10, 1, 6, 4\) and \(5, 1, 6, 4\)"):
        psnr(images, images[:5])


# mixed precision


class Kept(nn.Module):
    """A convolution in float32, then one that keeps the dtype in which it was computed, and the loss's."""

    def __init__(self):
        super().__init__()
        self.conv, self.kept = nn.Conv2d(1, 1, 3, padding=1), []

    def forward(self, images):
        made = self.conv(images)
        self.kept.append((images.dtype, made.dtype))
        return made

    def loss(self, made, wanted):
        self.kept.append((made.dtype, wanted.dtype))
        return (made - wanted).square().mean()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_computes_layers_in_the_lower_dtype_and_the_loss_in_the_models(images, dtype):
    torch.manual_seed(0)
    model, plain = Kept(), Kept()
    plain.load_state_dict(model.state_dict())
    losses = train(model, images, **{**SETTINGS, "steps": 30}, loss=model.loss, autocast=dtype)
    assert set(model.kept) == {(torch.float32, dtype), (torch.float32, torch.float32)}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    expected = train(plain, images, **{**SETTINGS, "steps": 30})
    assert losses != expected and losses == pytest.approx(expected, rel=0.02)


def test_float16_scales_the_loss_so_that_small_gradients_survive(images):
    """A weight whose gradient is below float16's smallest number, 6e-8, moves all the same."""

    class Tiny(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 1, bias=False)

        def forward(self, images):
            return self.conv(images)

    def loss(made, wanted):
        return 1e-9 * made.mean()

    for autocast in (torch.float16, None):
        model = Tiny()
        before = model.conv.weight.item()
        train(model, images, **{**SETTINGS, "steps": 1}, loss=loss, autocast=autocast)
        assert abs(model.conv.weight.item() - before) > 1e-4


# checkpoints


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("UPCONV_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("UPCONV_CHECKPOINTS", raising=False)
    return tmp_path / "cache"


class Dropping(nn.Module):
    """Layers of every kind of state: weights, running averages, and random numbers drawn in training."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5))
        self.last = nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, images):
        return self.last(self.layers(images))


LONG = dict(steps=23, batch_size=4, learning_rate=0.01, seed=2, warmup=5, decay=True, progress=False)


class LostError(Exception):
    pass


def lose_at(step):
    def callback(done):
        if done == step:
            raise LostError

    return callback


def run_of(images, **settings):
    torch.manual_seed(0)
    model = Dropping()
    losses = train(model, images, **{**LONG, **settings})
    return losses, model.state_dict(), torch.get_rng_state()


@pytest.mark.parametrize("autocast", [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("at", [1, 2, 3, 12, 22])
def test_a_lost_run_goes_on_as_if_it_had_not_been_lost(images, cache, at, autocast):
    expected, state, generator = run_of(images, autocast=autocast)
    kept = dict(checkpoint="run", checkpoint_seconds=0, autocast=autocast)
    with pytest.raises(LostError):
        run_of(images, **kept, callback=lose_at(at))
    torch.rand(7)  # a new process begins anywhere
    seen = []
    losses, state_again, generator_again = run_of(images, **kept, callback=seen.append)
    assert losses == expected
    assert all(torch.equal(state[name], state_again[name]) for name in state)
    assert torch.equal(generator, generator_again)
    assert seen == list(range(at - 1, 24))  # the checkpoint of a step is written after its callback
    (path,) = (cache / "checkpoints").iterdir()
    assert re.fullmatch(r"run-[0-9a-f]{16}\.safetensors", path.name)


def test_a_finished_run_is_read_back_until_its_file_is_deleted(images, cache, capsys):
    first = run_of(images, checkpoint="run")
    seen = []
    run_of(images, checkpoint="run")
    assert capsys.readouterr().out == ""
    again = run_of(images, checkpoint="run", callback=seen.append, progress=True)
    assert again[0] == first[0] and seen == [23]
    assert all(torch.equal(first[1][name], again[1][name]) for name in first[1])
    (path,) = (cache / "checkpoints").iterdir()
    assert f"23 of 23 steps were done before; {path.name} has them" in capsys.readouterr().out
    path.unlink()
    assert run_of(images, checkpoint="run", callback=seen.append)[0] == first[0]
    assert seen == [23, *range(24)]


@pytest.mark.parametrize(
    "change",
    [
        dict(steps=24),
        dict(batch_size=5),
        dict(learning_rate=0.02),
        dict(seed=3),
        dict(warmup=4),
        dict(decay=False),
        dict(autocast=torch.bfloat16),
        dict(loss=nn.functional.l1_loss),
        dict(loss=nn.HuberLoss(delta=0.01)),
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_run_does_not_continue_this_one(images, cache, change):
    expected = run_of(images, **change)[0]
    run_of(images, checkpoint="run")
    assert run_of(images, checkpoint="run", **change)[0] == expected
    assert len(list((cache / "checkpoints").iterdir())) == 2


def test_other_images_targets_weights_or_layers_are_another_run(images, cache):
    def start(images, model=None, targets=None):
        torch.manual_seed(0)
        seen = []
        model = model or Dropping()
        train(model, images, targets, **LONG, checkpoint="run", callback=seen.append)
        return seen[0]

    assert [start(images), start(images)] == [0, 23]
    other = images.clone()
    other[0, 0, 0, 0] += 1
    assert start(other) == 0
    assert start(images, targets=other) == 0 and start(images, targets=images) == 0
    changed = Dropping()
    changed.layers[1].running_mean[0] = 1e-3
    assert start(images, changed) == 0
    torch.manual_seed(0)
    changed = Dropping()
    changed.layers[2].p = 0.4
    assert start(images, changed) == 0
    torch.manual_seed(0)
    changed = Dropping()
    changed.layers[0].weight.requires_grad_(False)
    assert start(images, changed) == 0
    torch.manual_seed(0)
    changed = Dropping()
    changed.layers[2] = nn.FeatureAlphaDropout(0.5)
    assert start(images, changed) == 0
    torch.manual_seed(0)
    assert start(images, Dropping().eval()) == 23  # train mode in any case
    assert start(images) == 23


def l1_loss(made, wanted):
    return (made - wanted).abs().mean()


def test_functions_of_one_name_are_told_apart():
    model = Spy()
    one, other, again = (run_key(model, [], dict(loss=loss)) for loss in (l1_loss, nn.functional.l1_loss, l1_loss))
    assert one == again != other


@pytest.mark.parametrize("autocast", [None, torch.bfloat16, torch.float16])
def test_the_loss_is_scaled_in_float16_alone(images, cache, autocast):
    run_of(images, checkpoint="run", autocast=autocast)
    (path,) = (cache / "checkpoints").iterdir()
    with safe_open(path, framework="pt") as file:
        assert (file.metadata()["scaler"] == "{}") is (autocast != torch.float16)


def test_the_bar_of_a_run_that_goes_on_begins_where_it_was(images, cache, monkeypatch):
    kept = dict(checkpoint="run", checkpoint_seconds=0)
    with pytest.raises(LostError):
        run_of(images, **kept, callback=lose_at(20))
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.delenv("PYTEST_VERSION")
    output = io.StringIO()
    monkeypatch.setattr("sys.stderr", output)
    run_of(images, **kept, progress=True)
    assert "19/23" in output.getvalue() and "0/23" not in output.getvalue()


def test_other_memory_formats_come_back(images, cache):
    def run(**settings):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 3, 3, padding=1))
        model.to(memory_format=torch.channels_last)
        losses = train(model, images.repeat(1, 3, 1, 1), **SETTINGS, **settings)
        assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
        return losses, model[0].weight.tolist()

    expected = run()
    kept = dict(checkpoint="run", checkpoint_seconds=0)
    with pytest.raises(LostError):
        run(**kept, callback=lose_at(4))
    assert run(**kept) == expected


def test_losses_of_one_kind_with_other_settings_are_other_runs(images, cache):
    masks, found = (images[:, 0] % 3).long(), []
    for settings in (dict(), dict(label_smoothing=0.1), dict(ignore_index=2), dict(weight=torch.arange(3.0).double())):
        seen = []
        for _ in range(2):
            loss = nn.CrossEntropyLoss(**settings)
            losses = train(classifier(), images, masks, **LONG, loss=loss, checkpoint="run", callback=seen.append)
        assert seen == [*range(24), 23]
        found.append(losses)
    assert len({tuple(losses) for losses in found}) == 4


@pytest.mark.parametrize(
    "loss",
    [
        lambda made, wanted: (made - wanted).abs().mean(),
        functools.partial(nn.functional.huber_loss, delta=0.1),
        nn.L1Loss().forward,
    ],
    ids="lambda partial method".split(),
)
def test_a_loss_that_cannot_be_told_from_others_has_no_checkpoint(images, cache, loss):
    model = Spy()
    with pytest.raises(TypeError, match=r"a checkpoint cannot tell .* from others"):
        train(model, images, **SETTINGS, loss=loss, checkpoint="run")
    assert not model.batches and not cache.exists()
    assert len(train(model, images, **SETTINGS, loss=loss)) == 6


def test_sizes_that_a_network_treats_otherwise_are_another_run(images, cache):
    """A network does not print this setting."""
    images, seen = images[..., :5, :3], []
    for odd_sizes in ("interpolate", "pad"):
        torch.manual_seed(0)
        model = UNet(classes=1, channels=(2, 3), odd_sizes=odd_sizes)
        train(model, images, **SETTINGS, checkpoint="run", callback=seen.append)
    assert seen == [*range(7), *range(7)]


def test_buffers_that_a_state_leaves_out_come_back_too(images, cache):
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3, padding=1)
            self.register_buffer("count", torch.zeros(()), persistent=False)

        def forward(self, images):
            self.count += 1
            return self.conv(images) * (1 + self.count)

    def run(model=None, **settings):
        torch.manual_seed(0)
        model = model or Counting()
        return train(model, images, **SETTINGS, **settings), model.count.item()

    expected = run()
    kept = dict(checkpoint="run", checkpoint_seconds=0)
    with pytest.raises(LostError):
        run(**kept, callback=lose_at(4))
    assert run(**kept) == expected
    torch.manual_seed(0)
    other = Counting()
    other.count += 1
    assert run(other, **kept)[0] != expected[0]


def test_the_file_is_written_in_time_and_at_the_end(images, cache, monkeypatch):
    now, written = [0.0], []
    monkeypatch.setattr("upconv.book.training.time.monotonic", lambda: now[0])
    monkeypatch.setattr("upconv.book.training.save_checkpoint", lambda path, key, *_: written.append(len(_[-1])))

    def tick(done):
        now[0] += 10

    run_of(images, checkpoint="run", checkpoint_seconds=60, callback=tick)
    assert written == [5, 11, 17, 23]  # the clock has ticked before the first step too
    written.clear()
    run_of(images, checkpoint="run", callback=tick)
    assert written == [5, 11, 17, 23]
    written.clear()
    run_of(images)
    assert written == [] and not cache.exists()


def test_a_training_outlives_a_checkpoint_that_cannot_be_written(images, cache):
    expected = run_of(images)[0]
    cache.write_text("no folder")
    with pytest.warns(
        UserWarning, match=r"run-\w+\.safetensors: cannot be written \(.*\); the training goes on"
    ) as found:
        assert run_of(images, checkpoint="run", checkpoint_seconds=0)[0] == expected
    assert len(found) == 23 and found[0].filename == __file__
    assert cache.read_text() == "no folder"


def test_a_damaged_checkpoint_warns_whoever_called(images, cache):
    expected = run_of(images, checkpoint="run")[0]
    (path,) = (cache / "checkpoints").iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(UserWarning, match=f"{path.name}: .*begins anew") as found:
        assert run_of(images, checkpoint="run")[0] == expected
    assert [warning.filename for warning in found] == [__file__]


def test_a_full_disk_leaves_the_checkpoint_before(images, cache, monkeypatch):
    expected = run_of(images)[0]
    with pytest.raises(LostError):
        run_of(images, checkpoint="run", checkpoint_seconds=0, callback=lose_at(9))

    def full(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.warns(UserWarning, match="No space left"):
            assert run_of(images, checkpoint="run")[0] == expected
    seen = []
    assert run_of(images, checkpoint="run", callback=seen.append)[0] == expected
    assert seen[0] == 8 and len(list((cache / "checkpoints").iterdir())) == 1


def test_a_model_without_parameters_is_an_error(images):
    with pytest.raises(ValueError, match="empty parameter list"):
        train(nn.ReLU(), images, **SETTINGS)


def test_a_killed_process_goes_on_with_the_same_losses(tmp_path):
    """The whole thing: a process that is killed again and again against one that is left alone."""
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent("""
        import sys, time, torch
        from torch import nn
        from upconv.book.training import train
        torch.set_num_threads(1)
        torch.manual_seed(0)
        images = torch.rand(40, 1, 16, 16)
        model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Dropout(0.2), nn.Conv2d(8, 1, 1))
        settings = dict(steps=60, batch_size=8, learning_rate=0.01, seed=0, decay=True, progress=False)
        def callback(done):
            print(done, flush=True)
            time.sleep(600 if done == int(sys.argv[2]) else 0)
        losses = train(model, images, **settings, checkpoint=sys.argv[1], checkpoint_seconds=0, callback=callback)
        print("losses", *losses, *(p.double().sum().item() for p in model.state_dict().values()))
        """)
    )

    def start(name, waits_at=-1):
        environment = {**os.environ, "UPCONV_CACHE": str(tmp_path / "cache")}
        environment.pop("UPCONV_CHECKPOINTS", None)
        command = [sys.executable, str(program), name, str(waits_at)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)

    def finish(process):
        lines = process.communicate(timeout=100)[0].splitlines()
        assert process.returncode == 0
        return int(lines[0]), lines[-1]

    begin, unbroken = finish(start("unbroken"))
    assert begin == 0 and unbroken.startswith("losses") and len(unbroken.split()) > 60
    begins = []
    for waits_at, last in ((3, 3), (20, 20), (-1, 25)):  # the last one is killed while it works, whatever it does then
        process = start("killed", waits_at)
        begins.append(int(process.stdout.readline()))
        while int(process.stdout.readline()) < last:
            pass
        process.kill()
        process.wait(timeout=100)
        process.stdout.close()
    begin, losses = finish(start("killed"))
    assert losses == unbroken
    assert begins == [0, 2, 19] and begin >= 24  # the checkpoint of a step is written after its callback
