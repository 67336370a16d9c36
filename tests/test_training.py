import itertools
import math
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio
from torch import nn

from upconv.book.training import as_target, learning_rate_at, psnr, reconstruct, train

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


@pytest.mark.parametrize("warmup, decay", [(0, False), (4, False), (0, True), (4, True)])
def test_every_step_is_one_of_adam_on_the_mean_squared_error(images, warmup, decay):
    """The learning rate rises and falls as it was told, and a loss is that before its update."""
    model, reference, expected = Spy(), Spy(), []
    reference.load_state_dict(model.state_dict())
    losses = train(model, images, decay=decay, warmup=warmup, **SETTINGS)
    optimizer = torch.optim.Adam(reference.parameters())
    for step, batch in enumerate(model.batches):
        rate = 0.01 * (min(1, (step + 1) / 4) if warmup else 1) * ((6 - step) / 6 if decay else 1)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        error = (reference(batch) - batch).square().mean()
        expected.append(error.item())
        error.backward()
        optimizer.step()
    assert losses == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(model.conv.weight, reference.conv.weight, rtol=1e-6, atol=0)


def test_the_learning_rate_rises_to_what_was_asked_for_and_falls_to_nothing():
    assert [learning_rate_at(step, 9, 0.5) for step in (0, 8)] == [0.5, 0.5]
    assert [learning_rate_at(step, 9, 0.5, warmup=4) for step in range(6)] == [0.125, 0.25, 0.375, 0.5, 0.5, 0.5]
    falling = [learning_rate_at(step, 5, 1.0, decay=True) for step in range(6)]
    assert falling == pytest.approx([1, 0.8, 0.6, 0.4, 0.2, 0])  # the last is after the end
    assert learning_rate_at(2, 10, 1.0, warmup=4, decay=True) == pytest.approx(0.75 * 0.8)


@pytest.mark.parametrize("clip", [None, 0.05, 1.2, 1e6])
def test_long_gradients_are_shortened_to_the_norm_and_short_ones_left(images, clip):
    """By hand: all gradients of a step are multiplied by one factor, at most 1."""
    model, reference, norms = Spy(), Spy(), []
    reference.load_state_dict(model.state_dict())
    train(model, images, clip=clip, **SETTINGS)
    optimizer = torch.optim.Adam(reference.parameters(), lr=0.01)
    for batch in model.batches:
        optimizer.zero_grad()
        (reference(batch) - batch).square().mean().backward()
        gradients = [parameter.grad for parameter in reference.conv.parameters()]
        norms.append(torch.cat([gradient.flatten() for gradient in gradients]).norm().item())
        for gradient in gradients:
            gradient.mul_(min(1, clip / norms[-1]) if clip else 1)
        optimizer.step()
    torch.testing.assert_close(model.conv.weight, reference.conv.weight, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(model.conv.bias, reference.conv.bias, rtol=1e-4, atol=1e-6)
    if clip == 1.2:
        assert min(norms) < 1.2 < max(norms)  # some steps are shortened, some are not
    same = trained(images, clip=clip)[0] == trained(images)[0]
    assert same == (clip in (None, 1e6))


def test_a_scaled_loss_is_clipped_by_the_norm_of_the_gradients_themselves(images):
    """float16's loss is 65,536 times as large; were it clipped as it is, every step would be shortened."""
    losses = {}
    for clip in (None, 1e3, 0.05):
        torch.manual_seed(0)
        losses[clip] = train(Kept(), images, autocast=torch.float16, clip=clip, **{**SETTINGS, "steps": 30})
    assert losses[1e3] == losses[None] != losses[0.05]


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


def test_masks_are_learned_by_cross_entropy_or_another_loss(images):
    masks, weight = (images[:, 0] % 3).long(), torch.tensor([1.0, 5.0, 0.1]).double()
    indices = torch.randperm(10, generator=torch.Generator().manual_seed(0))[:4]
    logits, found = classifier()(images[indices].double() / 255), []
    for loss, weights in ((None, torch.ones(3).double()), (nn.CrossEntropyLoss(weight=weight), weight)):
        model = classifier()
        losses = train(model, images, masks, loss=loss, **{**SETTINGS, "steps": 1})
        chosen = logits.log_softmax(dim=1).gather(1, masks[indices].unsqueeze(1)).squeeze(1)
        mine = weights[masks[indices]]
        assert losses == pytest.approx([-(mine * chosen).sum().item() / mine.sum().item()])
        found.append(model.weight)
    assert not torch.equal(*found)
    asked = []
    train(Spy(), images, loss=lambda *both: asked.append([x.shape for x in both]) or both[0].sum(), **SETTINGS)
    assert asked[0] == [(4, 1, 6, 4), (4, 1, 6, 4)]


def test_masks_go_to_the_models_device_as_they_are(images):
    mask = as_target(images.long(), nn.Linear(1, 1, device="meta"))
    assert mask.is_meta and mask.dtype == torch.int64


def test_targets_that_do_not_fit_are_refused(images):
    masks, mask = images.long(), r"where the mask \(int64\) is"
    for model, targets, error, message in (
        (classifier(), masks, ValueError, rf"makes \(4, 3, 6, 4\) {mask} \(4, 1, 6, 4\)"),
        (classifier(), masks[:, 0, :, :3], ValueError, rf"{mask} \(4, 6, 3\)"),
        (classifier(), masks[:, 0].int(), TypeError, "int32"),
        (Spy(), images[1:], ValueError, "there are 9 targets for 10 images"),
        (Spy(), images[..., :1, :1], ValueError, r"makes \(4, 1, 6, 4\) where the target is \(4, 1, 1, 1\)"),
        (Spy(), images.int(), TypeError, "floating point"),
    ):
        with pytest.raises(error, match=message):
            train(model, images, targets, **SETTINGS)


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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_sees_the_same_batches(images):
    on_cpu, on_cuda = Spy().double(), Spy().double()
    on_cuda.load_state_dict(on_cpu.state_dict())
    losses = train(on_cpu, images, **SETTINGS)
    assert train(on_cuda, images, **{**SETTINGS, "device": "cuda"}) == pytest.approx(losses)
    assert {batch.device.type for batch in on_cuda.batches} == {"cuda"}
    assert reconstruct(on_cuda, images).device.type == "cpu"
    torch.testing.assert_close(reconstruct(on_cuda, images), reconstruct(on_cpu, images))


@pytest.fixture
def shown(monkeypatch, capsys):
    """Give a function that says which bars were shown since the last call."""
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.delenv("PYTEST_VERSION")
    return lambda: capsys.readouterr().err


@pytest.mark.parametrize("progress, texts", [(True, ["0/6", "?step/s"]), ("a label", ["a label", "0/6"]), (False, [])])
def test_the_progress_bar(shown, images, progress, texts):
    train(Spy(), images, **{**SETTINGS, "progress": progress})
    found = shown()
    assert all(text in found for text in texts) and bool(found) is bool(texts)


def test_reconstructing_shows_a_bar_only_where_it_takes_long(monkeypatch, shown, images):
    reconstruct(Spy(), images, batch_size=4)
    assert shown() == ""
    now = itertools.count(step=1.0)
    monkeypatch.setattr("tqdm.std.time", lambda: next(now))
    reconstruct(Spy(), images, batch_size=1)
    found = shown()
    assert "images" in found and "/10 [" in found


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"steps": 0}, ValueError, "steps=0 must be an int of at least 1"),
        ({"steps": 2.0}, TypeError, "steps=2.0 must be an int"),
        ({"batch_size": True}, TypeError, "batch_size=True must be an int"),
        ({"batch_size": 0}, ValueError, "batch_size=0 must be an int of at least 1"),
        ({"batch_size": 11}, ValueError, "batch_size=11 must be from 1 to 10, the number of images"),
        ({"learning_rate": 0}, ValueError, "learning_rate=0 must be a finite number above 0"),
        ({"learning_rate": math.nan}, ValueError, "learning_rate=nan"),
        ({"warmup": -1}, ValueError, "warmup=-1 must be an int of at least 0"),
        ({"warmup": 1.5}, TypeError, "warmup=1.5 must be an int"),
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
    with pytest.raises(ValueError, match="batch_size=0 must be an int of at least 1"):
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


@pytest.mark.parametrize(
    "options",
    [*(dict(autocast=dtype) for dtype in (None, torch.bfloat16, torch.float16)), dict(clip=0.1)],
    ids=lambda options: str(*options.values()),
)
@pytest.mark.parametrize("at", [1, 2, 12, 22])
def test_a_lost_run_goes_on_as_if_it_had_not_been_lost(images, cache, at, options):
    expected, state, generator = run_of(images, **options)
    kept = dict(checkpoint="run", checkpoint_seconds=0, **options)
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
    assert re.fullmatch(r"run-[0-9a-f]{16}\.pt", path.name)


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


OTHER_RUN = dict(steps=24, batch_size=5, learning_rate=0.02, seed=3, warmup=4, decay=False, clip=0.1)


@pytest.mark.parametrize(
    "name, value",
    [
        *OTHER_RUN.items(),
        ("autocast", torch.bfloat16),
        ("loss", nn.functional.l1_loss),
        ("loss", nn.HuberLoss(delta=0.01)),
    ],
)
def test_another_run_does_not_continue_this_one(images, cache, name, value):
    change = {name: value}
    expected = run_of(images, **change)[0]
    run_of(images, checkpoint="run")
    assert run_of(images, checkpoint="run", **change)[0] == expected
    assert len(list((cache / "checkpoints").iterdir())) == 2


def test_other_images_or_targets_are_another_run(images, cache):
    other = images.clone()
    other[0, 0, 0, 0] += 1
    first = []
    for given in ((images,), (images,), (other,), (images, other), (images, images), (images,)):
        torch.manual_seed(0)
        seen = []
        train(Dropping(), *given, **LONG, checkpoint="run", callback=seen.append)
        first.append(seen[0])
    assert first == [0, 23, 0, 0, 0, 23]


def test_a_loss_that_cannot_be_told_from_others_has_no_checkpoint(images, cache):
    model, loss = Spy(), lambda made, wanted: (made - wanted).abs().mean()
    with pytest.raises(TypeError, match=r"a checkpoint cannot tell .* from others"):
        train(model, images, **SETTINGS, loss=loss, checkpoint="run")
    assert not model.batches and not cache.exists()
    assert len(train(model, images, **SETTINGS, loss=loss)) == 6


@pytest.mark.parametrize("autocast", [None, torch.bfloat16, torch.float16])
def test_the_loss_is_scaled_in_float16_alone(images, cache, autocast):
    run_of(images, checkpoint="run", autocast=autocast)
    (path,) = (cache / "checkpoints").iterdir()
    assert (torch.load(path, weights_only=True)["scaler"] == {}) is (autocast != torch.float16)


def test_the_bar_of_a_run_that_goes_on_begins_where_it_was(images, cache, shown):
    kept = dict(checkpoint="run", checkpoint_seconds=0)
    with pytest.raises(LostError):
        run_of(images, **kept, callback=lose_at(20))
    run_of(images, **kept, progress=True)
    found = shown()
    assert "19/23" in found and "0/23" not in found


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
    cache.parent.mkdir()
    cache.write_text("no folder")
    with pytest.warns(UserWarning, match=r"run-\w+\.pt: cannot be written \(.*\); the training goes on") as found:
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


def test_a_model_without_parameters_is_an_error(images):
    with pytest.raises(ValueError, match="empty parameter list"):
        train(nn.ReLU(), images, **SETTINGS)


PROGRAM = """
import sys, time, torch
from torch import nn
from upconv.book.training import train

def run(name, waits_at=-1):
    def callback(done):
        print(done, flush=True)
        time.sleep(600 if done == waits_at else 0)

    torch.set_num_threads(1)
    torch.manual_seed(0)
    images = torch.rand(40, 1, 16, 16)
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Dropout(0.2), nn.Conv2d(8, 1, 1))
    settings = dict(steps=60, batch_size=8, learning_rate=0.01, seed=0, decay=True, progress=False)
    losses = train(model, images, **settings, checkpoint=name, checkpoint_seconds=0, callback=callback)
    return repr([*losses, *(value.double().sum().item() for value in model.state_dict().values())])

if __name__ == "__main__":
    print(run("killed", int(sys.argv[1])))
"""


@pytest.mark.slow
def test_a_killed_process_goes_on_with_the_same_losses(tmp_path, cache):
    """The whole thing: a process that is killed while it works, and begun again, against a run that is left alone."""
    (tmp_path / "program.py").write_text(PROGRAM)
    here = {"__name__": "here"}
    exec(PROGRAM, here)
    unbroken = here["run"](None)
    command, piped = [sys.executable, str(tmp_path / "program.py")], dict(stdout=subprocess.PIPE, text=True)
    with subprocess.Popen([*command, "59"], **piped) as process:
        while int(process.stdout.readline()) < 25:
            pass
        process.kill()
    again = subprocess.run([*command, "-1"], **piped, check=True, timeout=100)
    begin, *_, found = again.stdout.splitlines()
    assert found == unbroken
    assert 24 <= int(begin) < 60  # the checkpoint of a step is written after its callback
