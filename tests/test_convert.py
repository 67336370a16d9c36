"""upconv.convert on models as they are really written: the same outputs, nothing touched, everything reported."""

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from upconv import audit, rewrite, upsample_conv_to_conv_transpose
from upconv.book.blocks import BLOCKS
from upconv.book.models import Autoencoder, SuperResolution, UNet

X = torch.randn(2, 8, 5, 7, generator=torch.Generator().manual_seed(0)).double()
KEYS = "name was became exact residual max_difference parameters_before parameters_after macs_before macs_after reason"


class Model(nn.Module):
    """A model whose forward is a function of itself and x."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.run = forward
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x, *others):
        return self.run(self, x, *others)


def conv(channels=8, outputs=4, size=3, **settings):
    return nn.Conv2d(channels, outputs, size, **{"padding": size // 2, **settings})


def up(scale=2, **settings):
    return nn.Upsample(scale_factor=scale, **settings)


class Pointwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 2


def in_place(model, x):
    large = F.interpolate(x, scale_factor=2)
    x.mul_(3)
    return model.c(large) + F.interpolate(x, scale_factor=2).sum()


def in_place_inside(model, x):
    x = x + 0
    large = F.interpolate(x, scale_factor=2)
    small = F.relu(x, inplace=True)
    return model.c(large), small


def kept_views(model, x):
    """What is padded or concatenated before x is changed keeps the values of that moment."""
    large = F.pad(F.interpolate(x, scale_factor=2), (1, 1))
    joined = torch.cat([F.interpolate(x, scale_factor=2), y := F.interpolate(x, scale_factor=2) + 0], dim=1)
    x.mul_(3)
    y.add_(1)
    return model.c(large), model.d(joined)


def values_first(model, x):
    """Values that are there already, and were changed, are what is padded and concatenated."""
    large = F.interpolate(x, scale_factor=2)
    large.mul_(2)
    x.zero_()
    return model.c(F.pad(large, (1, 0))), model.d(torch.cat([large, F.interpolate(x, scale_factor=2)], dim=1))


def alias(model, x):
    large = F.interpolate(x, scale_factor=2)
    large.contiguous().mul_(2)
    return model.c(large)


def other_shape(model, x):
    large = model.u(x)
    if len(x) == 1:
        large.squeeze_(0)
        return x * large.dim() * large.shape[0] * large.size(-1)
    return model.c(large)


def array_after_cat(model, x):
    large = model.u(x)
    if len(x) == 1:
        sums = large.mean()
        joined = torch.cat([large, model.u(x.clone())], 1)
        large.numpy()[:] = 0
        return model.c(joined[:, :8]) * sums
    return model.c(large)


def sum_after_cat(model, x):
    large, other = model.u(x), model.u(model.p(x))
    half = large.sigmoid()
    joined = torch.cat([large, other], 1)
    large += half
    return model.d(joined), large


def into(model, x):
    halves = x[:, :4] + 1, x[:, 4:] + 1
    large = F.interpolate(x, scale_factor=2)
    torch.cat(halves, dim=1, out=x)
    return model.c(large)


# name: (forward, layers, how many upsamplings are rewritten, a part of the reason where some are not)
FUSED = {
    "sequential": (None, dict(a=up(), b=conv()), 1),
    "functional": (lambda m, x: m.c(F.interpolate(x, scale_factor=2)), dict(c=conv()), 1),
    "size of a skip": (
        lambda m, x: m.c(F.interpolate(m.d(x), size=x.shape[2:])),
        dict(c=conv(), d=nn.AdaptiveMaxPool2d((None, 1))),
        1,
    ),
    "size": (lambda m, x: m.c(F.interpolate(x, size=(10, 21))), dict(c=conv()), 1),
    "unequal scales": (None, dict(a=up((3, 1)), b=conv(size=5)), 1),
    "even kernel": (None, dict(a=up(3), b=conv(size=4, padding=1)), 1),
    "large padding": (None, dict(a=up(), b=conv(size=3, padding=4)), 1),
    "same": (None, dict(a=up(), b=conv(padding="same", dilation=3)), 1),
    "groups": (None, dict(a=up(), b=conv(groups=4, outputs=8)), 1),
    "zero pad": (lambda m, x: m.c(F.pad(m.u(x), (0, 1, 2, 0))), dict(u=up(), c=conv(size=2, padding=0)), 1),
    "zero pad, then padding": (lambda m, x: m.c(F.pad(m.u(x), (0, 1))), dict(u=up(), c=conv()), 1),
    "crop": (lambda m, x: m.c(F.pad(m.u(x), (-1, 0, 0, -2))), dict(u=up(), c=conv(padding=0)), 1),
    "crop, then padding": (lambda m, x: m.c(F.pad(m.u(x), (-1, 0, 0, -2))), dict(u=up(), c=conv()), 0),
    "reflection": (None, dict(a=up(), p=nn.ReflectionPad2d(1), c=conv(padding=0)), 1),
    "replication": (None, dict(a=up(), p=nn.ReplicationPad2d(2), c=conv(size=5, padding=0)), 1),
    "padding mode": (None, dict(a=up(), c=conv(padding_mode="replicate")), 1),
    "circular": (None, dict(a=up(), c=conv(padding_mode="circular")), 1),
    "skip": (lambda m, x: m.c(torch.cat([m.u(x), m.s(x)], dim=1)), dict(u=up(), s=nn.ConvTranspose2d(8, 3, 2, 2), c=conv(11)), 1),
    "skip first": (lambda m, x: m.c(torch.cat((m.s(x), m.u(x)), 1)), dict(u=up(), s=nn.ConvTranspose2d(8, 3, 2, 2), c=conv(11)), 1),
    "two upsamplings": (lambda m, x: m.c(torch.cat([m.u(x), m.u(m.d(x))], dim=1)), dict(u=up(), d=conv(8, 2), c=conv(10)), 1),
    "several consumers": (lambda m, x: m.c(y := m.u(x)) + m.d(y), dict(u=up(), c=conv(), d=conv(size=5)), 1),
    "a conv and another": (lambda m, x: (m.c(y := m.u(x)), y.relu()), dict(u=up(), c=conv()), 1),
    "another and a conv": (lambda m, x: ((y := m.u(x)).sigmoid(), m.c(y)), dict(u=up(), c=conv()), 0),
    "a conv used twice": (lambda m, x: m.c(m.u(m.c(m.u(x)))), dict(u=up(), c=conv(8, 8)), 1),
    "an ordinary use too": (lambda m, x: (m.c(x), m.c(m.u(x))), dict(u=up(), c=conv()), 1),
    "1x1": (None, dict(a=up(), b=conv(size=1), n=nn.BatchNorm2d(4), r=nn.ReLU()), 1),
    "1x1, bicubic": (None, dict(a=up(mode="bicubic"), b=conv(size=1)), 1),
    "1x1, then 3x3": (None, dict(a=up(), b=conv(8, 6, size=1), c=conv(6)), 1),
    "bilinear, unpadded": (None, dict(a=up(mode="bilinear"), b=conv(padding=0)), 1),
    "bilinear, replicated": (None, dict(a=up(mode="bilinear"), b=conv(padding_mode="replicate")), 1),
    "bicubic, unpadded": (None, dict(a=up(3, mode="bicubic"), b=conv(padding=0)), 1),
    "nearest-exact": (None, dict(a=up(mode="nearest-exact"), b=conv()), 1),
    "dropout": (None, dict(a=up(), d=nn.Dropout2d(), b=conv()), 1),
    "batch norm after": (None, dict(a=up(), b=conv(), n=nn.BatchNorm2d(4), r=nn.ReLU(inplace=True)), 1),
    "spectral norm": (None, dict(a=up(), b=nn.utils.parametrizations.spectral_norm(conv())), 1),
    "weight norm": (None, dict(a=up(), b=nn.utils.parametrizations.weight_norm(conv())), 1),
    "bilinear, padded": (None, dict(a=up(mode="bilinear"), b=conv()), 0),
    "align_corners": (None, dict(a=up(mode="bilinear", align_corners=True), b=conv(padding=0)), 0),
    "antialias": (lambda m, x: m.c(F.interpolate(x, scale_factor=2, mode="bilinear", antialias=True)), dict(c=conv(padding=0)), 0),
    "fraction": (None, dict(a=up(1.5), b=conv()), 0),
    "down": (None, dict(a=up(0.5), b=conv()), 0),
    "stride 2": (None, dict(a=up(), b=conv(stride=2)), 0),
    "activation between": (None, dict(a=up(), r=nn.ReLU(), b=conv()), 0),
    "no conv": (None, dict(a=conv(), b=up()), 0),
    "grouped skip": (lambda m, x: m.c(torch.cat([m.u(x), m.u(x)], 1)), dict(u=up(), c=conv(16, groups=2)), 0),
    "reflected and padded": (None, dict(a=up(), p=nn.ReflectionPad2d(1), c=conv()), 0),
    "constant pad": (lambda m, x: m.c(F.pad(m.u(x), (1, 1), value=2.0)), dict(u=up(), c=conv()), 0),
    "rows joined": (lambda m, x: m.c(torch.cat([m.u(x), m.u(x)], dim=2)), dict(u=up(), c=conv()), 0),
    "indexed": (lambda m, x: m.c(m.u(x)[:, :, 1:]), dict(u=up(), c=conv()), 0),
    "python control flow": (lambda m, x: m.c(m.u(x)) if x.mean() > 0 else m.c(x), dict(u=up(), c=conv()), None),
    "changed in place": (in_place, dict(c=conv()), 0),
    "changed in place inside": (in_place_inside, dict(c=conv()), 0),
    "changed after a pad or a cat": (kept_views, dict(c=conv(), d=conv(16)), None),
    "values changed before a pad or a cat": (values_first, dict(c=conv(), d=conv(16)), None),
    "an alias changed": (alias, dict(c=conv()), 0),
    "another shape, in place": (other_shape, dict(u=up(), c=conv()), 1),
    "an array, after a cat": (array_after_cat, dict(u=up(), c=conv()), 1),
    "changed in place after a cat": (sum_after_cat, dict(u=up(), d=conv(16), p=conv(8, 8)), 0),
    "changed through out": (into, dict(c=conv()), 0),
    "cat with an empty vector": (lambda m, x: m.c(torch.cat([m.u(x), x.new_zeros(0)], 1)), dict(u=up(), c=conv()), None),
    "settings of length 1": (lambda m, x: F.conv2d(F.interpolate(x, scale_factor=2), m.c.weight, None, [1], [1], [1]), dict(c=conv()), 1),
    "custom function": (lambda m, x: m.c(Pointwise.apply(m.u(x))), dict(u=up(), c=conv()), 0),
}  # fmt: skip


def built(case):
    forward, layers, *_ = FUSED[case]
    layers = {name: copy.deepcopy(layer) for name, layer in layers.items()}
    model = nn.Sequential(*layers.values()) if forward is None else Model(forward, **layers)
    return randomised(model)


def randomised(model):
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.double().eval()


def outputs(value):
    return [value] if isinstance(value, torch.Tensor) else list(value)


def assert_same(model, other, *inputs):
    with torch.no_grad():
        expected = outputs(model(*copy.deepcopy(inputs)))
        found = outputs(other(*copy.deepcopy(inputs)))
    assert len(expected) == len(found)
    for one, two in zip(expected, found, strict=True):
        assert type(two) is torch.Tensor
        torch.testing.assert_close(two, one, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("case", FUSED)
def test_waiting_upsamplings_change_nothing_and_are_reported(case):
    model, expected = built(case), FUSED[case][2]
    result = rewrite(model, "conv_transpose", example_inputs=(X,))
    assert_same(model, result.model, X)
    assert_same(model, result.model, torch.randn(1, 8, 7, 7).double() if "skip" not in case else X)
    if "skip" not in case:
        assert_same(model, result.model, X[:1])
    if expected is not None:
        assert result.counts["rewritten"] == expected, result.report
    for row in result.report:
        assert set(KEYS.split()) <= set(row)
        if row["status"] == "rewritten":
            assert row["exact"] is True and row["residual"] == 0 and row["max_difference"] < 1e-10
            assert row["became"] and row["macs_before"] > 0 and row["macs_after"] > 0
        else:
            assert row["became"] is None and row["reason"]
        assert "fails if it waits" not in row["reason"]


def test_with_gradients_everything_is_computed_as_before():
    for case in ("sequential", "skip", "1x1, then 3x3", "a conv used twice"):
        model = built(case)
        new = rewrite(model, "conv_transpose", example_inputs=(X,)).model
        assert [name for name, _ in model.named_parameters()] == [name for name, _ in new.named_parameters()]
        gradients = []
        for one in (model, new):
            x = X.clone().requires_grad_()
            loss = sum(output.square().sum() for output in outputs(one(x)))
            gradients.append(torch.autograd.grad(loss, [x, *one.parameters()]))
        for one, two in zip(*gradients, strict=True):
            assert torch.equal(one, two)


def test_modes_that_could_not_be_seen_to_are_left_alone():
    model = nn.Sequential(up(), conv(), nn.ReLU(inplace=True))
    new = rewrite(model, "conv_transpose", example_inputs=(X.float(),)).model
    small = X.float()
    with torch.inference_mode():
        for x in (small, small + 0):
            assert torch.equal(model(x), new(x))
    with torch.no_grad():
        assert torch.equal(torch.vmap(model)(X.float()[:, None]), torch.vmap(new)(X.float()[:, None]))
        with torch.autocast("cpu"):
            assert torch.equal(model(X.float()), new(X.float()))
            assert new(X.float()).dtype == torch.bfloat16
    x, gradients = X.float().requires_grad_(), []
    for call in (model, lambda x: torch.utils.checkpoint.checkpoint(new, x, use_reentrant=True)):
        x.grad = None
        output = call(x)
        torch.testing.assert_close(output, model(x))  # its first pass, without gradients, may wait
        output.sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients)

    def partly(model, x):
        with torch.no_grad():
            large = F.interpolate(x, scale_factor=2)
            model.d(large)  # waited for this one
            other = F.interpolate(x, scale_factor=2)
        with torch.enable_grad():
            return model.c(other).sum()

    model = Model(partly, c=conv(), d=conv()).double()
    new = rewrite(model, "conv_transpose", example_inputs=(X,)).model
    with torch.no_grad():
        for one in (model, new):
            one.zero_grad()
            x = X.clone().requires_grad_()
            one(x).backward()
            assert x.grad is None  # it was upsampled without gradients
    assert torch.equal(model.c.weight.grad, new.c.weight.grad)


@pytest.mark.parametrize("direct", [True, False])
def test_a_change_that_was_not_seen_is_an_error_and_no_wrong_result(direct):
    def hidden(model, x):
        large = model.u(x)
        if len(x) == 1:
            with torch._C.DisableTorchFunction():
                x.mul_(3)
        return model.c(large) if direct else model.c(large.relu())

    model = Model(hidden, u=up(), c=conv()).double()
    seen = rewrite(model, "conv_transpose", example_inputs=(X[:1],))
    assert "the model fails if it waits: RuntimeError: a tensor was changed in place" in seen.report[0]["reason"]
    assert_same(model, seen.model, X[:1])
    if direct:
        new = rewrite(model, "conv_transpose", example_inputs=(X,)).model
        with torch.no_grad(), pytest.raises(RuntimeError, match=r"changed in place after .*use the original model"):
            new(X[:1].clone())


def test_the_reasons_are_the_real_ones():
    for case, reason in (
        ("crop, then padding", "it is cropped before a convolution that pads"),
        ("reflected and padded", "reflect padding is followed by a convolution with padding"),
        ("stride 2", "its convolution has stride"),
        ("grouped skip", "a convolution with groups"),
        ("fraction", "the scale (1.5, 1.5) is not whole"),
        ("align_corners", "with align_corners=True the weights change"),
        ("activation between", "its values are needed by relu"),
        ("no conv", "no convolution reads it"),
    ):
        assert reason in rewrite(built(case), "conv_transpose", example_inputs=(X,)).report[0]["reason"]


def test_wrong_calls_fail_as_before():
    for wrong in (
        Model(lambda m, x: m.c(F.interpolate(x, scale_factor=2).double()), c=conv()),
        Model(lambda m, x: m.c(F.interpolate(x, size=(10, 14), scale_factor=2)), c=conv()),
        Model(lambda m, x: m.c(F.interpolate(x, scale_factor=2)), c=conv(9)),
    ):
        good = nn.Sequential(up(), conv())
        wrong.float()
        new = rewrite(good, "conv_transpose", example_inputs=(X.float(),)).model
        new[0] = wrong
        for one in (new, wrong):
            with torch.no_grad(), pytest.raises((RuntimeError, ValueError)) as error:
                one(X.float())
            assert "changed in place" not in str(error.value)


def test_control_flow_is_followed_on_every_path():
    model = built("python control flow")
    for example in (X, -X.abs(), X.abs()):
        new = rewrite(model, "conv_transpose", example_inputs=(example,)).model
        for x in (X, -X.abs(), X.abs()):
            assert_same(model, new, x)


def test_the_macs_are_those_of_the_folded_form():
    model = nn.Sequential(up(), conv(8, 4, 3)).eval()
    [row] = rewrite(model, "conv_transpose", example_inputs=(torch.zeros(1, 8, 10, 10),)).report
    assert (row["macs_before"], row["macs_after"]) == (36 * 100 * 32, 16 * 100 * 32)
    assert row["was"] == "nearest upsampling, scale_factor=2.0 + Conv2d 3x3"
    assert row["became"] == "ConvTranspose2d 4x4, stride 2"
    [row] = rewrite(
        nn.Sequential(up(), conv(size=1)), "conv_transpose", example_inputs=(torch.zeros(1, 8, 10, 10),)
    ).report
    assert (row["macs_before"], row["macs_after"]) == (4 * 100 * 32, 100 * 32)


def test_half_precision_and_channels_last():
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 0.05)):
        model = nn.Sequential(up(), conv(), nn.BatchNorm2d(4), nn.ReLU()).to(dtype).eval()
        x = torch.randn(2, 8, 6, 6).to(dtype).contiguous(memory_format=torch.channels_last)
        new = rewrite(model.to(memory_format=torch.channels_last), "conv_transpose", example_inputs=(x,)).model
        with torch.no_grad():
            torch.testing.assert_close(new(x), model(x), rtol=tolerance, atol=tolerance)


def test_the_new_model_can_be_copied_pickled_trained_exported_and_rewritten_again():
    model = nn.Sequential(up(), conv()).double()
    new = rewrite(model, "conv_transpose", example_inputs=(X,)).model
    assert type(new) is nn.Sequential
    assert list(new.state_dict()) == list(model.state_dict()) and "forward" not in vars(new)
    twin = copy.deepcopy(new)
    with torch.no_grad():
        twin[1].weight.zero_()
    assert not torch.allclose(twin(X), new(X))
    for other in (pickle.loads(pickle.dumps(new)), new._replicate_for_data_parallel()):
        other._modules = other._modules or new._modules
        assert_same(model, other, X)
        assert waits(other)
    assert_same(model, rewrite(new, "subpixel", example_inputs=(X,)).model, X)
    outer = nn.Sequential(new)
    for again in (
        rewrite(new, "conv_transpose", example_inputs=(X,)),
        rewrite(outer, "conv_transpose", example_inputs=(X,)),
    ):
        assert again.counts["rewritten"] == 1 and waits(again.model)
        assert_same(model, again.model, X)
    assert "conv_transpose" in audit(outer, X)[0]["exact_targets"]
    with torch.no_grad():
        new[1].weight.mul_(2)
        model[1].weight.mul_(2)
        program = torch.export.export(new.eval(), (X,))
    assert_same(model, new, X)
    names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert any("conv_transpose" in name or "convolution" in name for name in names)
    assert not any("upsample" in name for name in names)
    torch.testing.assert_close(program.module()(X), model(X))


def waits(model):
    """Whether the model computes its upsampling by a transposed convolution."""
    with torch.no_grad(), torch.profiler.profile() as profile:
        model(X)
    names = {event.name for event in profile.events()}
    assert ("aten::conv_transpose2d" in names) != any("upsample" in name for name in names)
    return "aten::conv_transpose2d" in names


class Leaking(nn.Module):
    """Keeps what it upsampled, in itself, in a hook's list and in an object that it returns."""

    class Output(dict):
        pass

    def __init__(self):
        super().__init__()
        self.up, self.c, self.seen, self.kept = up(), conv(), [], None

    def forward(self, x):
        large, before = self.up(x), self.kept
        self.kept = large
        output = self.Output()
        output.large, output.result = large, self.c(large) if before is None else self.c(large) + self.c(before)
        self.seen.append(large)
        return output.result if x.shape[0] == 2 else output


def test_what_outlives_the_call_has_the_values_of_the_call():
    model = Leaking().double().eval()
    result = rewrite(model, "conv_transpose", example_inputs=(X,))
    assert result.counts["rewritten"] == 1
    new = result.model
    for one in (model, new):
        one.kept, one.seen = None, []
    x, frames = X.clone(), []
    with torch.no_grad():
        for factor in (1, 2, 3):
            x.data = X * factor
            frames.append([one(x) for one in (model, new)])
        x = X[:1].clone()
        one, two = (m(x) for m in (model, new))
        x.zero_()
        assert torch.equal(one.large, two.large) and one.large.abs().max() > 0
    for one, two in frames:
        torch.testing.assert_close(one, two)
    for one, two in zip(model.seen, new.seen, strict=True):
        assert torch.equal(one, two)


def test_the_callers_containers_and_the_models_class_stay():
    registry = []

    class Base(nn.Module):
        def __init_subclass__(cls, *, kind, **others):
            registry.append((kind, cls))

    class Own(Base, kind="decoder"):
        def __init__(self):
            super().__init__()
            self.c = conv()

        def forward(self, x, given):
            given.append(self.c(F.interpolate(x, scale_factor=2)))
            return given

    model, before = Own().double(), list(registry)
    new = rewrite(model, "conv_transpose", example_inputs=(X, [])).model
    assert type(new) is Own and registry == before
    given = []
    with torch.no_grad():
        assert new(X, given) is given and type(given[0]) is torch.Tensor


def test_hooks_that_fail_leave_no_mode_behind():
    new = rewrite(nn.Sequential(up(), conv()).double(), "conv_transpose", example_inputs=(X,)).model

    def fail(*_):
        raise KeyError

    for register in (new.register_forward_pre_hook, new.register_forward_hook, new[1].register_forward_hook):
        for settings in ({}, {"prepend": True}):
            handle = register(fail, **settings)
            with torch.no_grad(), warnings.catch_warnings(), pytest.raises(KeyError):
                warnings.simplefilter("error")
                new(X)
            handle.remove()
            assert torch.overrides._get_current_function_mode() is None
    assert waits(new)


def test_a_model_that_fails_if_it_waits_is_left():
    class Buffered(nn.Module):
        def __init__(self):
            super().__init__()
            self.c = conv()

        def forward(self, x):
            return self.c(nn.Parameter(F.interpolate(x, scale_factor=2), requires_grad=False))

    model = Buffered().double()
    result = rewrite(model, "conv_transpose", example_inputs=(X,))
    assert result.counts == {"rewritten": 0, "left": 1, "refused": 0}
    assert "the model fails if it waits: " in result.report[0]["reason"]
    assert not result.model._forward_hooks and not result.model._forward_pre_hooks
    assert_same(model, result.model, X)
    assert len(audit(nn.Sequential(nn.ConvTranspose2d(8, 8, 2, 2).double(), model), X)) == 2
    with pytest.raises(RuntimeError, match="to have 8 channels"):
        rewrite(nn.Sequential(up(), conv()).double(), "conv_transpose", example_inputs=(X[:, :3],))


def test_other_ways_to_run_it():
    model = Model(lambda m, x: m.c(F.interpolate(x, scale_factor=2)), c=conv())
    new = rewrite(model, "conv_transpose", example_inputs=(X.float(),)).model
    with torch.no_grad():
        assert copy.deepcopy(new).to("meta")(X.float().to("meta")).shape == (2, 4, 10, 14)
        compiled = torch.compile(new, backend="eager", fullgraph=True)
        assert torch.equal(compiled(X.float()), model(X.float()))


def test_graph_modules_are_rewritten_too():
    model = torch.fx.symbolic_trace(nn.Sequential(up(), conv()).double())
    new = rewrite(model, "conv_transpose", example_inputs=(X,)).model
    assert_same(model, new, X)
    assert_same(model, copy.deepcopy(new), X)


def test_forwards_that_cannot_be_followed_are_refused():
    model = nn.Sequential(up(), nn.Sequential(conv())).double()
    model[1].forward = lambda x: x
    for call in (lambda: rewrite(model, "conv_transpose", example_inputs=(X,)), lambda: audit(model, X)):
        with pytest.raises(ValueError, match="the forward of 1 is set on the instance"):
            call()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.trace(nn.Sequential(up(), conv()).double(), X)
    with pytest.raises(ValueError, match="the forward of the model is compiled"):
        rewrite(scripted, "subpixel")


def test_a_model_that_notices_is_left_as_it_is():
    class Curious(nn.Module):
        def __init__(self):
            super().__init__()
            self.u, self.c = up(), conv()

        def forward(self, x):
            large = self.u(x)
            return self.c(large) + (type(large) is not torch.Tensor)

    model = Curious().double()
    result = rewrite(model, "conv_transpose", example_inputs=(X,))
    assert_same(model, result.model, X)
    assert result.counts == {"rewritten": 0, "left": 1, "refused": 0}
    assert "taken back: the model's outputs changed by 1, where" in result.report[0]["reason"]


def test_macs_and_parameters_are_counted_once():
    model = built("two upsamplings")
    result = rewrite(model, "conv_transpose", example_inputs=(X[:1],))
    calls = audit(model, X[:1])
    model = built("a conv used twice")
    [row] = rewrite(model, "conv_transpose", example_inputs=(X[:1],)).report
    assert row["parameters_before"] == 8 * 8 * 9 + 8
    assert row["macs_before"] == (10 * 14 + 20 * 28) * 8 * 8 * 9
    rows = [row for row in result.report if row["became"]]
    assert sum(row["macs_before"] for row in rows) == 10 * 14 * 10 * 4 * 9
    assert sum(row["parameters_before"] for row in rows) == 10 * 4 * 9 + 4
    assert sum(row["macs"] for row in calls) == 10 * 14 * 10 * 4 * 9


# exchanging layers


def decoder():
    return randomised(
        nn.Sequential(
            nn.ConvTranspose2d(8, 6, 4, 2, 1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.ConvTranspose2d(6, 6, 3, 2, 1, 1, groups=3),
            nn.ReLU(),
            nn.ConvTranspose2d(6, 2, 5, (3, 2), (1, 2), dilation=(1, 2)),
        )
    )


def test_every_transposed_layer_becomes_a_subpixel_convolution():
    model = decoder()
    for inputs in (None, (X,)):
        result = rewrite(model, "subpixel", example_inputs=inputs)
        assert result.counts == {"rewritten": 3, "left": 0, "refused": 0}
        assert not any(isinstance(module, nn.ConvTranspose2d) for module in result.model.modules())
        for x in (X, torch.randn(1, 8, 1, 3).double()):
            assert_same(model, result.model, x)
        assert [row["name"] for row in result.report] == ["0", "3", "5"]
        assert all(row["exact"] and row["residual"] == 0 for row in result.report)
    assert [row["macs_before"] for row in result.report] == [
        2 * 35 * 8 * 6 * 16,
        2 * 140 * 6 * 2 * 9,
        2 * 560 * 6 * 2 * 25,
    ]


def test_layers_that_are_pairs_become_them_exactly():
    pair = rewrite(nn.Sequential(up(), conv(8, 8)), "conv_transpose", example_inputs=(X.float(),))
    assert pair.counts["rewritten"] == 1
    layer = upsample_conv_to_conv_transpose(up(), conv(8, 8).double())
    model = nn.Sequential(layer, nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, 2, 1).double())
    result = rewrite(model, "upsample_conv", example_inputs=(X,))
    assert [row["exact"] for row in result.report] == [True, False]
    assert result.report[0]["residual"] < 1e-12 and result.report[0]["max_difference"] < 1e-10
    assert 0.05 < result.report[1]["residual"] < 1
    assert [type(step) for step in result.model[0]] == [nn.Upsample, nn.Conv2d]


def test_fitting_layer_after_layer_beats_projecting():
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.ConvTranspose2d(8, 8, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(8, 8, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, 2, 1)
    ).double()  # fmt: skip
    x = torch.randn(4, 8, 9, 9).double()
    fitted, projected = (rewrite(model, "upsample_conv", example_inputs=inputs) for inputs in ((x,), None))
    errors = [(result.model(x) - model(x)).norm().item() for result in (fitted, projected)]
    assert errors[0] < errors[1]
    # the residual of the last layer is the error of the whole model on these inputs
    whole = (fitted.model(x) - model(x)).norm() / model(x).norm()
    assert fitted.report[-1]["residual"] == pytest.approx(whole.item(), rel=1e-9)
    assert fitted.report[-1]["max_difference"] == pytest.approx((fitted.model(x) - model(x)).abs().max().item())


def test_a_layer_in_several_places_is_exchanged_in_all():
    layer = nn.ConvTranspose2d(8, 8, 2, 2)
    model = Model(lambda m, x: m.a(m.b(x)), a=layer, b=layer).double()
    result = rewrite(model, "subpixel", example_inputs=(X,))
    assert result.counts["rewritten"] == 1 and result.model.a is result.model.b
    assert_same(model, result.model, X)


def test_output_size_is_kept():
    layer = nn.ConvTranspose2d(8, 4, 3, 2, 1)
    model = Model(lambda m, x, size: m.t(x, output_size=size), t=layer).double()
    for to in ("subpixel", "upsample_conv"):
        result = rewrite(model, to, example_inputs=(X, (10, 13)))
        for size in ((9, 13), (10, 14), (9, 14)):
            assert result.model(X, size).shape[2:] == size
            if to == "subpixel":
                assert_same(model, result.model, X, size)
        with pytest.raises(ValueError, match="axis -2 can have 9 to 10 pixels"):
            result.model(X, (11, 13))


def test_layers_are_found_however_they_are_called():
    layer = nn.ConvTranspose2d(8, 4, 4, 2, 1).double()
    for to in ("subpixel", "upsample_conv"):
        root = rewrite(layer, to, example_inputs=(X,))
        named = rewrite(Model(lambda m, x: m.t(input=x), t=layer), to, example_inputs=(X,))
        assert root.counts["rewritten"] == named.counts["rewritten"] == 1
        assert root.report[0]["residual"] == named.report[0]["residual"]
        assert type(root.model) is nn.Sequential
        if to == "subpixel":
            assert_same(layer, root.model, X)
            assert_same(layer, named.model, X)
    none = Model(lambda m, x: m.t(x, output_size=None), t=layer)
    result = rewrite(none, "subpixel", example_inputs=(X,))
    assert result.counts["rewritten"] == 1
    assert_same(none, result.model, X)


def test_what_the_inputs_do_not_reach_is_left():
    layers = dict(a=nn.ConvTranspose2d(8, 4, 2, 2), b=nn.ConvTranspose2d(8, 4, 2, 2))
    model = Model(lambda m, x: m.a(x) if len(x) > 1 else m.b(x), **layers).double()
    result = rewrite(model, "subpixel", example_inputs=(X,))
    assert [row["status"] for row in result.report] == ["rewritten", "left"]
    assert result.report[1]["reason"] == "the example inputs do not call it"
    hidden = Model(lambda m, x: m.list[0](x), a=layers["a"]).double()
    hidden.list = [hidden.a]
    result = rewrite(hidden, "subpixel", example_inputs=(X,))
    assert "a reference of its own" in result.report[0]["reason"] and result.counts["rewritten"] == 0
    assert_same(hidden, result.model, X)


def test_an_exchange_that_changes_the_outputs_is_taken_back():
    def forward(model, x):
        return model.a(x) * (2 if isinstance(model.a, nn.ConvTranspose2d) else 1) + model.b(x)

    layers = dict(a=nn.ConvTranspose2d(8, 4, 2, 2), b=nn.ConvTranspose2d(8, 4, 2, 2))
    model = Model(forward, **layers).double()
    result = rewrite(model, "subpixel", example_inputs=(X,))
    assert [row["status"] for row in result.report] == ["left", "rewritten"]
    assert "taken back" in result.report[0]["reason"] and result.report[0]["exact"] is None
    assert_same(model, result.model, X)


def test_shared_weights_are_named():
    model = nn.Sequential(nn.Conv2d(4, 8, 2, stride=2), nn.ConvTranspose2d(8, 4, 2, 2)).double()
    model[1].weight = model[0].weight
    [row] = rewrite(model, "subpixel").report
    assert row["reason"] == "no longer shares its weight with 0.weight"


def test_inputs_may_be_results_of_a_computation():
    x = X.clone().requires_grad_() * 1
    assert rewrite(nn.Sequential(up(), conv()).double(), "conv_transpose", example_inputs=(x,)).counts["rewritten"] == 1


@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm"])
def test_normalised_weights_are_taken_as_they_are_in_eval_mode(norm):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        old = getattr(nn.utils, norm)(nn.ConvTranspose2d(8, 4, 4, 2, 1))
    new = getattr(nn.utils.parametrizations, norm)(nn.ConvTranspose2d(8, 4, 4, 2, 1))
    model = nn.Sequential(old.double()).eval(), nn.Sequential(new.double()).eval()
    for one in model:
        one(X)
        result = rewrite(one, "subpixel", example_inputs=(X,))
        assert result.counts["rewritten"] == 1, result.report
        assert_same(one, result.model, X)


def test_what_cannot_be_exchanged_is_left_with_a_reason():
    class Own(nn.ConvTranspose2d):
        def forward(self, x):
            return super().forward(x) + 1

    hooked = nn.ConvTranspose2d(8, 8, 2, 2)
    hooked.register_forward_hook(lambda *_: None)
    read = nn.ConvTranspose2d(8, 8, 2, 2)
    model = Model(
        lambda m, x: F.conv_transpose2d(m.own(m.hooked(x)), m.read.weight, stride=2) + m.line(x.flatten(2)).mean() + m.good(x).mean(),
        own=Own(8, 8, 2, 2), hooked=hooked, read=read, line=nn.ConvTranspose1d(8, 2, 2, 2), good=nn.ConvTranspose2d(8, 8, 2, 2),
        volume=nn.ConvTranspose3d(1, 1, 2),
    ).double()  # fmt: skip
    result = rewrite(model, "subpixel", example_inputs=(X,))
    rows = {row["name"]: row for row in result.report}
    assert set(rows) == {"own", "hooked", "read", "line", "good", "volume"}
    assert rows["good"]["status"] == "rewritten"
    for name, reason in (
        ("own", "a forward of its own"),
        ("hooked", "forward hooks"),
        ("line", "only 2-D"),
        ("volume", "only 2-D"),
        ("read", "the example inputs do not call it"),
    ):
        assert rows[name]["status"] in ("left", "refused") and rows[name]["became"] is None
        assert reason in rows[name]["reason"]
    assert_same(model, result.model, X)
    assert result.counts == {"rewritten": 1, "left": 1, "refused": 4}
    assert "1 rewritten, 1 left, 4 refused" in str(result)
    model = Model(lambda m, x: m.a(x) + m.a.weight.mean(), a=nn.ConvTranspose2d(8, 8, 2, 2)).double()
    [row] = rewrite(model, "subpixel", example_inputs=(X,)).report
    assert "the model does more with it than calling it: AttributeError" in row["reason"]


def test_1d_and_3d_upsamplings_are_listed():
    def forward(model, x):
        line = F.interpolate(x.flatten(2), scale_factor=2)
        volume = F.interpolate(x[:, None], scale_factor=2)
        return model.a(line).mean() + volume.mean()

    result = rewrite(Model(forward, a=nn.Conv1d(8, 1, 3)).double(), "conv_transpose", example_inputs=(X,))
    assert result.counts == {"rewritten": 0, "left": 0, "refused": 2}
    assert all("not supported" in row["reason"] for row in result.report)


# nothing is touched


@pytest.mark.parametrize("to", ["subpixel", "conv_transpose", "upsample_conv"])
def test_the_given_model_is_untouched(to):
    model = nn.Sequential(
        nn.ConvTranspose2d(8, 8, 4, 2, 1), nn.BatchNorm2d(8), nn.Dropout(0.5), up(), conv(8, 8), nn.ReLU(inplace=True)
    ).double()  # fmt: skip
    model.train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    calls = []
    model[4].register_forward_hook(lambda *_: calls.append(1))
    model.register_buffer("counter", torch.zeros(1))
    state = copy.deepcopy(model.state_dict())
    before = {name: (module, module.training, len(module._forward_hooks)) for name, module in model.named_modules()}
    pointers = [parameter.data_ptr() for parameter in model.parameters()]
    x, random = X.clone(), torch.get_rng_state()
    result = rewrite(model, to, example_inputs=(x,), measure=True)
    audit(model, x)
    assert torch.equal(random, torch.get_rng_state())
    assert torch.equal(x, X)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert pointers == [parameter.data_ptr() for parameter in model.parameters()]
    assert model[0].weight.requires_grad is False
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, module in model.named_modules():
        assert (module, module.training, len(module._forward_hooks)) == before[name]
    assert "forward" not in vars(model)
    assert not {p.data_ptr() for p in result.model.parameters()} & set(pointers)
    assert result.model.training and not result.model[1].training
    assert all(value > 0 for value in result.seconds)
    assert not torch.nn.modules.module._global_forward_hooks


# audit


def test_the_audit_names_every_step_in_order():
    model = Model(
        lambda m, x: m.s(m.e(m.d(torch.cat([m.c(F.interpolate(m.a(x), scale_factor=2)), m.u(m.b(m.a(x)))], 1)))),
        a=nn.ConvTranspose2d(8, 4, 3, 2), c=conv(4, 4), b=nn.Identity(), u=up(mode="bilinear", align_corners=True), d=conv(8, 4),
        e=conv(4, 8), s=nn.PixelShuffle(2),
    ).double()  # fmt: skip
    report = audit(model, X)
    assert [row["kind"].split(",")[0] for row in report] == [
        "ConvTranspose2d", "nearest upsampling", "ConvTranspose2d", "bilinear upsampling", "PixelShuffle",
    ]  # fmt: skip
    assert report[0]["name"] == report[2]["name"] == "a"
    assert report[1]["name"].startswith("(the model itself): F.interpolate (line ")
    assert [row["even_overlap"] for row in report] == [False, True, False, True, True]
    assert report[0]["sizes"] == ((5, 7), (11, 15))
    assert report[0]["exact_targets"] == ("subpixel",) and report[1]["exact_targets"] == ("conv_transpose",)
    assert report[3]["exact_targets"] == ()
    assert "align_corners=True" in report[3]["verdict"]
    assert str(report).startswith("name ") and report._repr_html_().count("<tr>") == 6


def test_the_audit_measures_what_a_flat_input_shows():
    layer = nn.ConvTranspose2d(6, 5, 4, 2, 1, bias=False).double()
    [row] = audit(nn.Sequential(layer), torch.zeros(1, 6, 8, 8).double())
    flat = torch.eye(6).double()[:, :, None, None].expand(-1, -1, 9, 9)
    shown = layer(flat)[..., 4:-4, 4:-4]
    share = 1 - shown.mean(dim=(2, 3)).square().sum() / shown.square().mean(dim=(2, 3)).sum()
    assert row["off_dc_energy"] == pytest.approx(share.item())
    spread = (shown.amax((2, 3)) - shown.amin((2, 3))).max() / shown.abs().max()
    assert row["dc_spread"] == pytest.approx(spread.item())
    assert row["macs"] == 64 * 6 * 5 * 16
    assert row["verdict"] == f"draws a pattern on flat inputs, {share:.2f} of their energy"
    shuffle = nn.Sequential(nn.Conv2d(6, 20, 3, padding=1, bias=False), nn.PixelShuffle(2)).double()
    [row] = audit(shuffle, torch.zeros(1, 6, 8, 8).double())
    shown = shuffle(flat)[..., 4:-4, 4:-4]
    share = 1 - shown.mean(dim=(2, 3)).square().sum() / shown.square().mean(dim=(2, 3)).sum()
    assert row["off_dc_energy"] == pytest.approx(share.item())


def test_a_model_without_upsampling_says_so():
    report = audit(nn.Linear(2, 2), torch.zeros(1, 2))
    assert report == [] and str(report).endswith("this model does no upsampling on these inputs")
    result = rewrite(nn.Linear(2, 2), "subpixel")
    assert result.report == [] and "no upsampling found" in str(result)


def test_functional_transposed_convolutions_are_audited_and_out_of_reach():
    model = Model(lambda m, x: F.conv_transpose2d(x, m.w, stride=2), w=nn.Parameter(torch.ones(8, 2, 2, 2).double()))
    [row] = audit(model, X)
    assert row["kind"] == "F.conv_transpose2d" and row["exact_targets"] == ()
    assert row["verdict"].startswith(
        "keeps flat inputs flat; it is Upsample + Conv2d in disguise; called as a function"
    )


def test_a_report_shows_names_as_they_are_in_a_notebook():
    report = rewrite(nn.Sequential(nn.ConvTranspose2d(4, 4, 2, 2)), "subpixel").report
    report[0].update(name="<script>", was="a & b")
    page = report._repr_html_()
    assert "<td>&lt;script&gt;</td><td>a &amp; b</td>" in page and "<script>" not in page
    assert [name for name in KEYS.split() if f"<th>{name}</th>" not in page] == []
    assert report.note in page and report.note in str(report) and "<script>" in str(report)


def test_wrong_arguments_say_what_is_accepted():
    model = nn.Sequential(up(), conv())
    for error, message, call in (
        (TypeError, "model must be", lambda: rewrite("model", "subpixel")),
        (TypeError, "model must be", lambda: audit("model", X)),
        (
            ValueError,
            "to='resize' must be one of subpixel, conv_transpose, upsample_conv",
            lambda: rewrite(model, "resize"),
        ),
        (ValueError, "needs example_inputs", lambda: rewrite(model, "conv_transpose")),
        (ValueError, "measure=True needs example_inputs", lambda: rewrite(model, "subpixel", measure=True)),
        (TypeError, "must be a tuple", lambda: rewrite(model, "subpixel", example_inputs=X)),
    ):
        with pytest.raises(error, match=message):
            call()


# models that others wrote, and the book's own


def published(name):
    from monai.networks import nets  # noqa: PLC0415 - slow to import, and only needed here
    from unet import UNet2D  # noqa: PLC0415

    features = dict(spatial_dims=2, in_channels=1, out_channels=2, features=(8, 8, 16, 16, 32, 8))
    diffusion = dict(spatial_dims=2, in_channels=1, out_channels=1, channels=(8, 16, 16), num_res_blocks=1)
    diffusion |= dict(norm_num_groups=4, attention_levels=(False, False, False))
    kl = dict(latent_channels=2, with_encoder_nonlocal_attn=False, with_decoder_nonlocal_attn=False)
    simple = dict(in_channels=1, out_classes=2, padding=1, num_encoding_blocks=3, out_channels_first_layer=8)
    return {
        "monai.BasicUNet": lambda: nets.BasicUNet(**features),
        "monai.UNet": lambda: nets.UNet(2, 1, 2, (8, 16, 32), (2, 2), num_res_units=1),
        "monai.AttentionUnet": lambda: nets.AttentionUnet(2, 1, 2, (8, 16, 32), (2, 2)),
        "monai.DynUNet": lambda: nets.DynUNet(2, 1, 2, [3, 3, 3], [1, 2, 2], [2, 2], filters=[8, 16, 32]),
        "monai.VNet": lambda: nets.VNet(2),
        "monai.AutoEncoder": lambda: nets.AutoEncoder(2, 1, 1, (8, 16), (2, 2)),
        "unet.UNet2D, conv": lambda: UNet2D(**simple, upsampling_type="conv"),
        "monai.AutoencoderKL": lambda: Model(
            lambda m, x: m.kl.reconstruct(x), kl=nets.AutoencoderKL(**diffusion, **kl)
        ),
        "monai.DiffusionModelUNet": lambda: Model(
            lambda m, x: m.unet(x, torch.tensor([3.0])), unet=nets.DiffusionModelUNet(**diffusion, num_head_channels=4)
        ),
        "unet.UNet2D, linear": lambda: UNet2D(**simple, upsampling_type="linear"),
    }[name]()


@pytest.mark.parametrize(
    "name, transposed, fused",
    [
        ("monai.BasicUNet", 4, 0),
        ("monai.UNet", 2, 0),
        ("monai.AttentionUnet", 2, 0),
        ("monai.DynUNet", 2, 0),
        ("monai.VNet", 4, 0),
        ("monai.AutoEncoder", 2, 0),
        ("unet.UNet2D, conv", 2, 0),
        ("monai.AutoencoderKL", 0, 2),
        ("monai.DiffusionModelUNet", 0, 2),
        ("unet.UNet2D, linear", 0, 0),
    ],
)
def test_published_models(name, transposed, fused):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = randomised(published(name))
    x = torch.randn(1, 1, 32, 48).double()
    for to, expected in (("subpixel", transposed), ("conv_transpose", fused)):
        result = rewrite(model, to, example_inputs=(x,))
        assert result.counts["rewritten"] >= expected, result.report
        for inputs in (x, torch.randn(2, 1, 64, 32).double()):
            assert_same(model, result.model, inputs)
    fitted = rewrite(model, "upsample_conv", example_inputs=(x,))
    assert fitted.counts["rewritten"] >= transposed
    assert all(0 < row["residual"] < 1.5 for row in fitted.report)
    assert len(audit(model, x)) >= transposed + fused


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("network, size, blocks", [(Autoencoder, 28, 3), (SuperResolution, 8, 2), (UNet, 16, 2)])
def test_the_books_own_models(block, network, size, blocks):
    model = randomised(network(block))
    x = torch.rand(2, 1, size, size).double()
    transposed = blocks * block.startswith("conv_transpose")
    for to, expected in (("subpixel", transposed), ("conv_transpose", blocks * block.startswith("nearest"))):
        result = rewrite(model, to, example_inputs=(x,))
        assert result.counts["rewritten"] == expected, result.report
        assert_same(model, result.model, x)
    assert len(audit(model, x)) == blocks
