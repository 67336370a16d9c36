"""upconv.graph on models as they are really written: the same outputs in every mode, and what was folded is told."""

import contextlib
import copy
import io
import logging
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from written import Model, X, assert_same, conv, randomised, up

import upconv._folding as folding
from upconv import backend, fold_exported
from upconv.book.models import UNet
from upconv.graph import folded_copy


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
    "two upsamplings": (lambda m, x: m.c(torch.cat([m.u(x), m.u(m.d(x))], dim=1)), dict(u=up(), d=conv(8, 2), c=conv(10)), 2),
    "several consumers": (lambda m, x: m.c(y := m.u(x)) + m.d(y), dict(u=up(), c=conv(), d=conv(size=5)), 1),
    "a conv and another": (lambda m, x: (m.c(y := m.u(x)), y.relu()), dict(u=up(), c=conv()), 1),
    "another and a conv": (lambda m, x: ((y := m.u(x)).sigmoid(), m.c(y)), dict(u=up(), c=conv()), 1),
    "a conv used twice": (lambda m, x: m.c(m.u(m.c(m.u(x)))), dict(u=up(), c=conv(8, 8)), 2),
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
    "activation between": (None, dict(a=up(), r=nn.ReLU(), b=conv()), 1),
    "no conv": (None, dict(a=conv(), b=up()), 0),
    "grouped skip": (lambda m, x: m.c(torch.cat([m.u(x), m.u(x)], 1)), dict(u=up(), c=conv(16, groups=2)), 2),
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
    "an array, after a cat": (array_after_cat, dict(u=up(), c=conv()), 1),
    "changed in place after a cat": (sum_after_cat, dict(u=up(), d=conv(16), p=conv(8, 8)), 2),
    "changed through out": (into, dict(c=conv()), 0),
    "cat with an empty vector": (lambda m, x: m.c(torch.cat([m.u(x), x.new_zeros(0)], 1)), dict(u=up(), c=conv()), None),
    "settings of length 1": (lambda m, x: F.conv2d(F.interpolate(x, scale_factor=2), m.c.weight, None, [1], [1], [1]), dict(c=conv()), 1),
    "detached": (lambda m, x: m.c(m.u(x).detach()), dict(u=up(), c=conv()), 1),
    "methods": (lambda m, x: m.c(m.u(x).relu_().sigmoid()) + x.sum(), dict(u=up(), c=conv()), 1),
    "inplace=True": (lambda m, x: m.c(F.leaky_relu(m.u(x), inplace=True)) + x.sum(), dict(u=up(), c=conv()), 1),
    "casts": (lambda m, x: m.c((m.u(x) / 3).float().double()), dict(u=up(), c=conv()), 1),
    "batch norm that trains": (lambda m, x: m.c(F.batch_norm(m.u(x), m.n.running_mean, m.n.running_var, training=True)), dict(u=up(), n=nn.BatchNorm2d(8), c=conv()), 0),
    "sum with another shape": (lambda m, x: m.c((y := m.u(x)) + 2 * y[:1]), dict(u=up(), c=conv()), 0),
    "groups over a cat": (lambda m, x: m.c(torch.cat([m.u(x), m.s(x)], 1)), dict(u=up(), s=nn.ConvTranspose2d(8, 8, 2, 2), c=conv(16, groups=2)), 0),
    "custom function": (lambda m, x: m.c(Pointwise.apply(m.u(x))), dict(u=up(), c=conv()), 1),
}  # fmt: skip


def built(case):
    forward, layers, *_ = FUSED[case]
    layers = {name: copy.deepcopy(layer) for name, layer in layers.items()}
    model = nn.Sequential(*layers.values()) if forward is None else Model(forward, **layers)
    return randomised(model)


def folded(model, *inputs, dynamic=False, **options):
    """Give the model compiled with the backend, and a list that gets the sites of each graph."""
    sites = []

    def keep(gm, example_inputs):
        sites.extend(folded_copy(gm)[1])
        return backend(gm, example_inputs, options={"inner": "eager", **options})

    torch.compiler.reset()
    return torch.compile(model, backend=keep, dynamic=dynamic), sites


@pytest.mark.parametrize("dynamic", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", FUSED)
def test_folding_changes_nothing_and_is_told(case, dynamic):
    model, expected = built(case), FUSED[case][2]
    new, sites = folded(model, dynamic=dynamic)
    assert_same(model, new, X)
    if expected is not None:
        assert sum(bool(site.became) for site in sites) == expected, sites
    for site in sites:
        assert site.became or site.reasons
    assert_same(model, new, torch.randn(3, 8, 9, 6).double() if dynamic and case != "size of a skip" else X[:1])


# changes in place, aliases, regions: what is folded must be what the model computes


def changing(forward):
    """Two convolutions, a buffer that is a weight, an image that is a buffer, and a flat view of that."""
    buffers = dict(w=nn.Buffer(torch.randn(8, 8, 3, 3)), image=nn.Buffer(torch.randn(1, 8, 5, 7)))
    model = Model(forward, c=conv(8, 8), d=conv(8, 8), **buffers).double()
    model.flat = model.image.view(-1)
    return model


def enlarged(x, **settings):
    return F.interpolate(x, **{"scale_factor": 2, **settings})


def sum_in_place(m, x):
    left = m.d(enlarged(x) * 1)
    left += enlarged(x)
    return m.c(left)


def sum_out(m, x):
    left = x.repeat(1, 1, 2, 2)
    return m.c(torch.add(left, enlarged(x), out=left))


def rest(m, x):
    large = enlarged(x)
    large %= 0.7
    return m.c(large)


def weight_changed(m, x):
    large = enlarged(x)
    before = F.conv2d(large, m.w)
    m.w.mul_(2)
    after = F.conv2d(large, m.w)
    m.w.mul_(0.5)
    return before, after


def seen_through_another_input(m, x):
    large = enlarged(m.image)
    m.flat.mul_(2)
    result = m.c(large) + x.sum()
    m.flat.mul_(0.5)
    return result


def in_a_checkpoint(m, x):
    large = enlarged(x)
    torch.utils.checkpoint.checkpoint(lambda t: t.mul_(2), large, use_reentrant=False)
    return m.c(large)


def folded_in_a_checkpoint(m, x):
    return torch.utils.checkpoint.checkpoint(lambda t: m.c(enlarged(t)), x, use_reentrant=False)


def relu_in_place(m, x):
    large = F.relu_(enlarged(x))
    return m.c(large), large


def added_to_what_cannot_be_folded(m, x):
    return m.c(enlarged(x, mode="bicubic").add_(enlarged(x)))


def slice_assigned(m, x):
    large = enlarged(x)
    large[:, :, 1:] = 0
    return m.c(large)


def through_a_chunk(m, x):
    large = enlarged(x)
    large.chunk(2, 1)[0].zero_()
    return m.c(large)


def regions(m, x):
    with torch.no_grad():
        large = enlarged(x)
    return m.c(large)


def cropped_and_viewed(m, x):
    return m.c(F.pad(enlarged(x), (3, 0, 0, 1))).view(len(x), -1)


def made_contiguous(m, x):
    return m.c(enlarged(x.contiguous(memory_format=torch.channels_last)).contiguous()).view(len(x), -1)


def scale_that_is_not_the_ratio(m, x):
    return m.c(F.interpolate(x[..., :5, :5], scale_factor=2.1, mode="bilinear"))


def settings_from_sizes(m, x):
    return F.conv2d(enlarged(x), m.w, padding=x.shape[2] // 2)


def no_channels(m, x):
    return m.c(torch.cat([enlarged(x), x.new_zeros(len(x), 0, 10, 14)], 1))


def changed_after_a_1x1(m, x):
    y = F.conv2d(enlarged(x), m.w[:, :, :1, :1])
    y.mul_(2)
    return m.c(y)


def other_format_after_a_1x1(m, x):
    y = F.conv2d(enlarged(x, mode="bilinear").contiguous(memory_format=torch.channels_last), m.w[:, :, :1, :1])
    return m.c(y).permute(0, 2, 3, 1).contiguous().view(-1, 8)


def nested(m, x):
    return m.c(enlarged(m.d(enlarged(enlarged(x)))))


CHANGING = {  # how many of the upsamplings are folded
    sum_in_place: 1,
    sum_out: 0,
    rest: 0,
    weight_changed: 1,
    seen_through_another_input: 0,
    in_a_checkpoint: 0,
    folded_in_a_checkpoint: 1,
    relu_in_place: 1,
    added_to_what_cannot_be_folded: 0,
    slice_assigned: 0,
    through_a_chunk: 0,
    regions: 1,
    cropped_and_viewed: 1,
    made_contiguous: 1,
    scale_that_is_not_the_ratio: 0,
    settings_from_sizes: 1,
    no_channels: 1,
    nested: 2,
    changed_after_a_1x1: 1,
    other_format_after_a_1x1: 1,
}


@pytest.mark.parametrize("inner", ["eager", "aot_eager"])
@pytest.mark.parametrize("forward", CHANGING, ids=lambda forward: forward.__name__)
def test_what_changes_in_place_is_seen(forward, inner):
    model = changing(forward)
    new, sites = folded(model, inner=inner)
    assert_same(model, new, X)
    assert sum(bool(site.became) for site in sites) == CHANGING[forward], list(map(str, sites))


def test_gradients_do_not_pass_where_they_did_not():
    model, x = changing(regions), X.clone().requires_grad_()
    new, sites = folded(model)
    new(x).sum().backward()
    assert x.grad is None and not any(site.became for site in sites)


def test_autocast_may_be_switched_on_inside():
    def forward(m, x):
        with torch.autocast("cpu"):
            return m.c(enlarged(m.d(x)))

    model = changing(forward).float()
    new, sites = folded(model)
    with torch.no_grad():
        torch.testing.assert_close(new(X.float()), model(X.float()), rtol=0.1, atol=0.05)
    assert new(X.float()).dtype == torch.bfloat16 and all(site.became for site in sites)


def test_nothing_is_folded_inside_a_transform_of_torch_func():
    model = Model(lambda m, x: torch.func.grad(lambda t: m.c(enlarged(t)).square().sum())(x), c=conv()).double()
    new, sites = folded(model)
    assert_same(model, new, X)
    assert sites == []


def test_symbolic_settings_are_left():
    model = changing(settings_from_sizes)
    new, sites = folded(model, dynamic=True)
    assert_same(model, new, X)
    assert "are not fixed" in sites[0].reasons[0]


# modes


def upsampler():
    """Each way to fold at once: a padded cat with a skip, a sum, a 1x1 convolution, a pointwise function."""

    def forward(m, x):
        y = torch.cat([F.interpolate(x, scale_factor=2), m.skip(x)], 1)
        y = m.a(F.pad(y, (0, 2, 1, 1), mode="replicate"))
        y = m.b(F.silu(F.interpolate(y, scale_factor=2)) + m.e(y.repeat(1, 1, 2, 2)))
        return m.d(F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=True))

    layers = dict(
        skip=nn.ConvTranspose2d(8, 8, 2, 2), a=conv(16, 8, padding=0), b=conv(8, 8), e=conv(8, 8), d=conv(8, 4, 1)
    )
    return Model(forward, **layers)


def gradients(model, x):
    x = x.clone().requires_grad_()
    model.zero_grad()
    model(x).square().mean().backward()
    return [x.grad, *(parameter.grad.clone() for parameter in model.parameters() if parameter.requires_grad)]


@pytest.mark.parametrize("inner", ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_it_acts_in_every_mode(inner):
    torch.manual_seed(0)
    model, x = upsampler(), X.float()
    new, sites = folded(model, inner=inner)
    for mode in (contextlib.nullcontext, torch.no_grad, torch.inference_mode):
        with mode():
            torch.testing.assert_close(new(x), model(x), rtol=1e-4, atol=1e-5)
    for one, two in zip(gradients(new, x), gradients(model, x), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5)
    with torch.autocast("cpu"), torch.no_grad():
        found, expected = new(x), model(x)
    assert found.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=0.1, atol=0.05)
    assert sites and all(site.became for site in sites), list(map(str, sites))


def test_one_compilation_serves_other_sizes():
    model, calls = upsampler().double(), []

    def count(gm, example_inputs):
        calls.append(1)
        return backend(gm, example_inputs, options={"inner": "eager"})

    torch.compiler.reset()
    new = torch.compile(model, backend=count, dynamic=True)
    with torch.no_grad():
        for size in ((5, 7), (6, 9), (11, 4)):
            x = torch.randn(2, 8, *size).double()
            torch.testing.assert_close(new(x), model(x))
    assert len(calls) == 1


def test_a_size_that_is_given_is_guarded():
    model = Model(lambda m, x, y: m.c(F.interpolate(x, size=y.shape[2:])) + m.d(y), c=conv(), d=conv()).double()
    new, sites = folded(model, dynamic=True)
    for small, large in (((5, 7), (10, 14)), ((4, 6), (8, 12)), ((5, 7), (11, 15)), ((3, 3), (9, 9))):
        assert_same(model, new, torch.randn(1, 8, *small).double(), torch.randn(1, 8, *large).double())
    assert [bool(site.became) for site in sites] == [True, False, True]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_kernels_have_the_weights_memory_format(memory_format):
    model = nn.Sequential(up(), conv(8, 8)).to(memory_format=memory_format)
    kernels = []

    def keep(gm, example_inputs):
        gm, _, own = folded_copy(gm, example_inputs)
        kernels.extend(own)
        return gm.forward

    torch.compiler.reset()
    with torch.no_grad():
        torch.compile(model, backend=keep)(X.float().contiguous(memory_format=memory_format))
    [kernel] = kernels
    assert kernel.kernel.is_contiguous(memory_format=memory_format)


# kernels that are composed once


def test_a_kernel_is_composed_once_and_never_stale(monkeypatch):
    model = nn.Sequential(up(), conv(8, 8), nn.ReLU(), up(), conv(8, 4)).double()
    model[1].weight.requires_grad_(False)
    new, _ = folded(model)
    composed, compose = [], folding._composed
    monkeypatch.setattr(folding, "_composed", lambda *args: composed.append(1) or compose(*args))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    state = {name: value + 1 for name, value in copy.deepcopy(model.state_dict()).items()}

    def replaced():
        model[4].weight = nn.Parameter(torch.randn_like(model[4].weight))

    def storage():
        for _ in range(5):  # an address may come back
            model[1].weight.data = torch.randn_like(model[1].weight)

    def step():
        gradients(model, X)
        optimizer.step()

    def in_inference_mode():
        with torch.inference_mode():
            model[4].weight.mul_(1.5)

    with torch.no_grad():
        new(X)
        composed.clear()
        new(X)
        assert not composed
        for change in (
            step,
            lambda: model.load_state_dict(state),
            lambda: model[4].weight.copy_(torch.randn(4, 8, 3, 3)),
            lambda: model[1].weight.data.mul_(2),
            lambda: model[4].weight.data[0, 0].zero_(),
            replaced,
            storage,
            in_inference_mode,
        ):
            with torch.enable_grad():
                change() if change is step else None
            if change is not step:
                change()
            torch.testing.assert_close(new(X), model(X))
            assert composed
            composed.clear()
            new(X)
            assert not composed
    gradients(new, X)
    composed.clear()
    gradients(new, X)
    assert len(composed) == 1  # the frozen weight's is kept


def test_computed_weights_are_followed():
    for norm in (nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm):
        model = nn.Sequential(up(), norm(conv(8, 4))).double().eval()
        new, sites = folded(model)
        assert_same(model, new, X)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.5)
        assert_same(model, new, X)
        assert sites[0].became


# exported programs


@pytest.mark.parametrize("case", FUSED)
def test_exported_programs_are_folded_with_constants(case):
    model, expected = built(case), FUSED[case][2]
    if case == "python control flow":
        with pytest.raises(Exception, match="data-dependent"):
            torch.export.export(model, (X,))
        return
    program = torch.export.export(model, (X,))
    before = copy.deepcopy(program.state_dict)
    new = fold_exported(program)
    assert all(torch.equal(value, before[name]) for name, value in program.state_dict.items())
    assert_same(model, new.module(), X)
    names = [str(node.target) for node in new.graph.nodes if node.op == "call_function"]
    if expected and case not in ("custom function",):
        assert any("conv_transpose2d" in name or "1x1" in case for name in names)
    if expected and (len(names) <= 2 or case == "casts"):
        assert not any("upsample" in name for name in names) or "1x1" in case


def test_a_folded_program_is_saved_decomposed_and_takes_other_sizes():
    model, x = upsampler().eval(), X.float()
    sizes = {2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    program = torch.export.export(model, (x,), dynamic_shapes=(sizes,))
    new, file = fold_exported(program), io.BytesIO()
    torch.export.save(new, file)
    file.seek(0)
    for one in (new, torch.export.load(file), new.run_decompositions()):
        for inputs in (x, torch.randn(2, 8, 4, 9)):
            torch.testing.assert_close(one.module()(inputs), model(inputs), rtol=1e-4, atol=1e-5)
    assert set(new.state_dict) == {
        *(name for name in program.state_dict if name not in ("a.weight", "b.weight")),
        *("a.weight_folded", "a.weight_folded1", "b.weight_folded"),
    } | ({"b.weight"} & set(new.state_dict))


@pytest.mark.parametrize("decomposed", [False, True])
@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: F.conv2d(enlarged(x), m.w.mul_(0.5)),
        lambda m, x: F.conv2d(enlarged(x), m.w.detach().clone().mul_(0.5)),
        lambda m, x: F.conv2d(enlarged(x), m.w + torch.rand_like(m.w)),
        lambda m, x: F.conv2d(enlarged(x), m.w * x.mean()),
    ],
)
def test_a_weight_that_is_no_constant_of_the_program_is_left(forward, decomposed):
    program = torch.export.export(Model(forward, w=nn.Buffer(torch.randn(4, 8, 3, 3).double())), (X,))
    program = program.run_decompositions({}) if decomposed else program
    before = program.state_dict["w"].clone()
    new = fold_exported(program)
    assert torch.equal(program.state_dict["w"], before)
    one, two = copy.deepcopy(program).module(), copy.deepcopy(new).module()
    for _ in range(2):
        torch.manual_seed(0)
        expected = one(X)
        torch.manual_seed(0)
        torch.testing.assert_close(two(X), expected)


@pytest.mark.slow
def test_a_folded_program_runs_in_onnxruntime():
    onnxruntime = pytest.importorskip("onnxruntime")
    model, x = upsampler().eval(), X.float()
    quiet, file = io.StringIO(), io.BytesIO()
    with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.onnx.export(fold_exported(torch.export.export(model, (x,))), dynamo=True)
        exported.save(file)
    kinds = [node.op_type for node in exported.model.graph]
    assert kinds.count("ConvTranspose") == 3 and kinds.count("Resize") == 1  # align_corners=True stays, after its conv
    for node in exported.model.graph:
        if node.op_type == "ConvTranspose":
            assert node.inputs[1].const_value is not None
    session = onnxruntime.InferenceSession(file.getvalue())
    [found] = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), model(x).detach(), rtol=1e-3, atol=1e-4)


def test_only_exported_programs_are_taken():
    with pytest.raises(TypeError, match=r"must be a torch\.export\.ExportedProgram, not Sequential"):
        fold_exported(nn.Sequential())


# the backend's own


def test_the_backend_is_found_by_its_name():
    assert "upconv" in torch.compiler.list_backends()
    model = nn.Sequential(up(), conv()).double()
    torch.compiler.reset()
    assert_same(model, torch.compile(model, backend="upconv", options={"inner": "eager"}), X)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(inner="nvfuser"), "inner='nvfuser' must be one of inductor, aot_eager, eager"),
        (dict(to="fast"), "to='fast' must be one of conv_transpose"),
        (dict(inner="eager", freezing=True), "freezing is not known with inner='eager'"),
    ],
)
def test_options_that_are_not_known_say_what_is(options, message):
    gm = torch.fx.symbolic_trace(nn.ReLU())
    with pytest.raises(ValueError, match=message):
        backend(gm, [X], options=options)


@pytest.mark.slow
def test_inductors_options_are_handed_on():
    model = nn.Sequential(up(), conv()).double()
    torch.compiler.reset()
    assert_same(model, torch.compile(model, backend=backend, options={"max_autotune": False}), X)


def test_the_log_says_what_was_folded_and_what_was_not(caplog):
    model = Model(lambda m, x: (m.c(m.u(x)), enlarged(x).softmax(1)), u=up(), c=conv()).double()
    torch.compiler.reset()
    with caplog.at_level(logging.INFO, logger="upconv"):
        torch.compile(model, backend=backend, options={"inner": "eager"})(X)
    line = test_the_log_says_what_was_folded_and_what_was_not.__code__.co_firstlineno + 1
    assert [record.getMessage() for record in caplog.records if record.name == "upconv"] == [
        f"u (test_graph.py:{line}): nearest upsampling, scale_factor=2.0 -> ConvTranspose2d 4x4, stride 2",
        f"(the model itself) (test_graph.py:{enlarged.__code__.co_firstlineno + 1}): nearest upsampling, "
        "scale_factor=2.0 is left: read by softmax",
    ]


def test_the_books_unet_is_folded_at_three_sizes():
    model = UNet("nearest_conv_3x3").double().eval()
    new, sites = folded(model, dynamic=True)
    for size in (16, 24, 40):
        assert_same(model, new, torch.rand(1, 1, size, size).double())
    assert all(site.became for site in sites)


@pytest.mark.slow
def test_published_functional_code():
    diffusers = pytest.importorskip("diffusers")  # not in the environment of the oldest versions
    torch.manual_seed(0)
    blocks = dict(block_out_channels=(8, 16, 16), layers_per_block=1, norm_num_groups=4)
    kinds = dict(down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3)
    model = diffusers.AutoencoderKL(**blocks, **kinds, latent_channels=4).double().eval()
    new, sites = folded(lambda z: model.decode(z).sample, dynamic=True)
    for size in ((4, 6), (5, 3)):
        z = torch.randn(1, 4, *size).double()
        with torch.no_grad():
            torch.testing.assert_close(new(z), model.decode(z).sample, rtol=1e-9, atol=1e-9)
    assert all(site.became for site in sites), list(map(str, sites))
    assert {site.module for site in sites} == {f"decoder.up_blocks.{block}.upsamplers.0" for block in (0, 1)}
