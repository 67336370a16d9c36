"""upconv.models on models as they are really written: the same outputs, nothing touched, everything reported."""

import copy
import io
import sys
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from written import Model, X, assert_same, conv, randomised, up

from upconv import audit, flat_response, rewrite, upsample_conv_to_conv_transpose
from upconv.book.models import Autoencoder, SuperResolution, UNet

KEYS = "name was became exact residual max_difference parameters_before parameters_after macs_before macs_after reason"


# layers in a row: how many pairs are exchanged, and a part of the reason where one is not
PAIRS = {
    "nearest": ([up(), conv()], 1, ""),
    "zero pad": ([up(), nn.ZeroPad2d((0, 1, 2, 0)), conv(size=2, padding=0)], 1, ""),
    "zero pad, then padding": ([up(), nn.ZeroPad2d((0, 1, 0, 0)), conv()], 1, ""),
    "two pads": ([up(), nn.ZeroPad2d(1), nn.ZeroPad2d((0, 1, 0, 1)), conv(padding=0)], 1, ""),
    "crop": ([up(), nn.ZeroPad2d((-1, 0, 0, -2)), conv(padding=0)], 1, ""),
    "crop, then padding": ([up(), nn.ZeroPad2d((-1, 0, 0, -2)), conv()], 0, "cropped before a convolution that pads"),
    "reflection": ([up(), nn.ReflectionPad2d(1), conv(padding=0)], 1, ""),
    "replication": ([up(), nn.ReplicationPad2d(2), conv(size=5, padding=0)], 1, ""),
    "reflected and padded": ([up(), nn.ReflectionPad2d(1), conv()], 0, "reflect padding is followed by"),
    "constant pad": ([up(), nn.ConstantPad2d(1, 2.0), conv()], 0, "read by pad"),
    "padding mode": ([up(), conv(padding_mode="replicate")], 1, ""),
    "1x1": ([up(), conv(size=1), nn.BatchNorm2d(4), nn.ReLU()], 1, ""),
    "1x1, align_corners": ([up(mode="bilinear", align_corners=True), conv(size=1)], 1, ""),
    "1x1, bicubic by 2.5": ([up(2.5, mode="bicubic"), conv(size=1)], 1, ""),
    "1x1, to a size": ([nn.Upsample(size=(11, 9)), conv(size=1)], 1, ""),
    "bilinear, unpadded": ([up(mode="bilinear"), conv(padding=0)], 1, ""),
    "bilinear, replicated": ([up(mode="bilinear"), conv(padding_mode="replicate")], 1, ""),
    "UpsamplingNearest2d": ([nn.UpsamplingNearest2d(scale_factor=2), conv()], 1, ""),
    "dropout": ([up(), nn.Dropout2d(), nn.Dropout(), conv()], 1, ""),
    "identity": ([up(), nn.Identity(), conv()], 1, ""),
    "spectral norm": ([up(), nn.utils.parametrizations.spectral_norm(conv())], 1, ""),
    "weight norm": ([up(), nn.utils.parametrizations.weight_norm(conv())], 1, ""),
    "bilinear, padded": ([up(mode="bilinear"), conv()], 0, 'padding after mode="bilinear"'),
    "align_corners": ([up(mode="bilinear", align_corners=True), conv(padding=0)], 0, "align_corners=True: its weights"),
    "fraction": ([up(1.5), conv()], 0, "only with a whole-numbered scale"),
    "to a size": ([nn.Upsample(size=(10, 14)), conv()], 0, "no scale of its own: give it a scale_factor"),
    "stride 2": ([up(), conv(stride=2)], 0, "stride=(2, 2)"),
    "activation between": ([up(), nn.ReLU(), conv()], 0, "read by relu"),
    "no conv": ([conv(), up()], 0, "read by the model's output"),
    "transposed by 1": ([up(), nn.ConvTranspose2d(8, 4, 3, padding=1)], 1, ""),
    "transposed by 1, groups": ([up(3), nn.ConvTranspose2d(8, 4, (3, 2), padding=(3, 0), dilation=2, output_padding=1, groups=2)], 1, ""),
}  # fmt: skip


def built(case):
    return randomised(nn.Sequential(*copy.deepcopy(PAIRS[case][0])))


def kinds(model):
    return [type(module) for module in model.modules()]


@pytest.mark.parametrize("to", ["conv_transpose", "subpixel"])
@pytest.mark.parametrize("case", PAIRS)
def test_pairs_of_layers_are_exchanged_where_that_is_exact(case, to):
    model, (_, expected, reason) = built(case), PAIRS[case]
    result = rewrite(model, to, X)
    if to == "subpixel" and case in ("1x1, align_corners", "1x1, bicubic by 2.5", "1x1, to a size"):
        expected = 0  # a 1x1 convolution before an Upsample is no subpixel convolution
    assert result.counts["rewritten"] == expected, result.report
    for x in (X, torch.randn(1, 8, 7, 7).double()):
        assert_same(model, result.model, x)
    [row] = result.report
    assert set(KEYS.split()) <= set(row)
    if expected:
        assert row["exact"] is True and row["residual"] == 0 and row["max_difference"] < 1e-10
        assert row["became"] and row["macs_before"] > 0 and row["macs_after"] > 0 and row["parameters_before"] > 0
        assert (nn.Upsample in kinds(result.model)) == ("Upsample" in row["became"])
    else:
        assert row["became"] is row["exact"] is row["residual"] is row["max_difference"] is None
        assert reason in row["reason"]
        assert not any(name != other for name, other in zip(kinds(model), kinds(result.model), strict=True))


class Auto(nn.Module):
    """A model with another method that pipelines call, a skip as a keyword and a shared Upsample."""

    def __init__(self):
        super().__init__()
        self.up, self.pad = up(), nn.ZeroPad2d(1)
        self.down, self.a, self.b = nn.Conv2d(8, 6, 3, 2, 1), conv(6, 8, padding=0), conv(8, 4, 5)

    def decode(self, z):
        return self.b(self.up(F.relu(self.a(self.pad(self.up(z))))))

    def forward(self, x, *, factor):
        return self.decode(self.down(x)) * factor


@pytest.mark.parametrize("to", ["conv_transpose", "subpixel"])
def test_the_new_model_acts_in_every_mode(to):
    model = Auto()
    result = rewrite(model, to, X.float(), example_kwargs=dict(factor=2.0))
    assert [row["status"] for row in result.report] == ["rewritten"] and result.report[0]["name"] == "up"
    assert result.report[0]["was"] == "nearest upsampling, scale_factor=2.0 + Conv2d 3x3, Conv2d 5x5"
    new, x = result.model, torch.randn(2, 6, 4, 5)
    gradients = []
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with mode():
            torch.testing.assert_close(new.decode(x), model.decode(x), rtol=1e-4, atol=1e-5)
            assert not upsamples(lambda: new.decode(x)) and upsamples(lambda: model.decode(x))
    for one in (model, new):
        y = x.clone().requires_grad_()
        one.decode(y).square().sum().backward()
        gradients.append(y.grad)
        assert all(parameter.grad is not None for name, parameter in one.named_parameters() if "down" not in name)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)
    with torch.autocast("cpu"), torch.no_grad():
        found, expected = new.decode(x), model.decode(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=0.1, atol=0.05)


def upsamples(call):
    with torch.profiler.profile() as profile:
        call()
    return any("upsample" in event.name for event in profile.events())


@pytest.mark.parametrize("to", ["conv_transpose", "subpixel", "upsample_conv"])
def test_the_new_model_is_copied_saved_traced_scripted_exported_and_compiled(to):
    layers = dict(subpixel=[conv(8, 8), up()], conv_transpose=[conv(8, 8), up()], upsample_conv=[conv(8, 8)])[to]
    model = nn.Sequential(*layers, nn.ConvTranspose2d(8, 8, 4, 2, 1) if to != "conv_transpose" else conv(8, 8))
    x, file = X.float(), io.BytesIO()
    new = rewrite(model.eval(), to, x).model
    expected = new(x)
    torch.save(new.state_dict(), file)
    file.seek(0)
    other = rewrite(copy.deepcopy(model), to, x).model
    for parameter in other.parameters():
        nn.init.zeros_(parameter)
    other.load_state_dict(torch.load(file))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, and in use
        others = [copy.deepcopy(new), other, torch.fx.symbolic_trace(new), torch.jit.script(new)]
        others += [
            torch.jit.trace(new, x),
            torch.export.export(new, (x,)).module(),
            torch.compile(new, backend="aot_eager"),
        ]
        for one in others:
            torch.testing.assert_close(one(x), expected)


def test_an_upsample_that_training_reads_otherwise_is_left():
    def forward(m, x):
        large = m.u(x)
        return (m.c(large), large.mean()) if m.training else m.c(large)

    model = Model(forward, u=up(), c=conv()).double()
    result = rewrite(model, "conv_transpose", X)
    assert result.counts["rewritten"] == 0 and "in training it is read otherwise" in result.report[0]["reason"]


def test_a_convolution_that_reads_other_tensors_too_is_left():
    for forward, reason in (
        (lambda m, x: m.c(m.u(x)).sum() + m.c(x), "its convolution c reads other tensors"),
        (lambda m, x: m.c(m.u(x)).sum() + m.c(m.v(x)), "reads another Upsample, with other settings"),
        (lambda m, x: m.c(m.p(m.u(x))) + m.p(x).sum(), "its padding layers are used in other places"),
        (lambda m, x: m.c(torch.cat([m.u(x[:, :4]), m.u(x[:, 4:])], 1)), "read by cat (line"),
        (lambda m, x: m.c(m.u(x))[..., : m.u(x).shape[-1]], "read by .shape (line"),
        (lambda m, x: (m.u(x), m.c(x))[1], "nothing reads it"),
    ):
        model = Model(forward, u=up(), v=up(3), p=nn.ZeroPad2d(1), c=conv(8, 8)).double()
        result = rewrite(model, "conv_transpose", X)
        assert result.counts["rewritten"] == 0 and reason in result.report[0]["reason"], result.report
        assert_same(model, result.model, X)


def test_what_is_functional_is_named_with_its_line_and_left():
    model = Model(lambda m, x: m.c(F.interpolate(x, scale_factor=2)), c=conv()).double()
    line = test_what_is_functional_is_named_with_its_line_and_left.__code__.co_firstlineno + 1
    for to in ("conv_transpose", "subpixel", "upsample_conv"):
        [row] = rewrite(model, to, X).report
        assert row["name"] == f"(the model itself): F.interpolate (line {line})" and row["status"] == "left"
        assert 'torch.compile(model, backend="upconv") folds' in row["reason"]


class Float32(nn.Module):
    """A model that runs in float32 alone, and whose convolutions round to fewer digits, as TF32 does."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        if x.dtype != torch.float32:
            raise TypeError("this model is float32")
        for step in self.model:
            x = step(x)
            if not isinstance(step, nn.Upsample):
                x = (x * 2**12 + x) - x * 2**12  # half of the bits of the mantissa stay
        return x


def test_rounding_decides_nothing_where_float64_does_not_run():
    layers = [step for _ in range(4) for step in (up(), conv(8, 8), nn.ReLU())]
    model = Float32(nn.Sequential(*layers))
    result = rewrite(model, "conv_transpose", X.float())
    assert result.counts["rewritten"] == 4, result.report
    wrong = Float32(nn.Sequential(nn.ConvTranspose2d(8, 8, 2, 2)))
    wrong.model.register_forward_hook(lambda *_: None)
    wrong = Model(lambda m, x: m.f(x) * (2 if isinstance(m.f.model[0], nn.ConvTranspose2d) else 1), f=wrong)
    result = rewrite(wrong, "subpixel", X.float())
    assert result.counts["rewritten"] == 0 and "taken back" in result.report[0]["reason"]


def test_bfloat16_models_are_judged_by_their_algebra():
    model = nn.Sequential(up(), conv(8, 8), nn.ReLU(), up(), conv(8, 8), nn.ReLU(), up(), conv(8, 4)).bfloat16()
    result = rewrite(model, "conv_transpose", X.bfloat16())
    assert result.counts["rewritten"] == 3 and result.model[1].weight.dtype == torch.bfloat16


def test_the_runs_do_not_grow_with_the_layers():
    def runs(layers, to, wrong=0):
        model = nn.Sequential(*(nn.ConvTranspose2d(8, 8, 3, padding=1) for _ in range(layers))).double()
        counter = []

        def forward(m, x):
            counter.append(1)
            for place, layer in enumerate(m.layers):
                x = layer(x) * (2 if place < wrong and isinstance(layer, nn.ConvTranspose2d) else 1)
            return x

        result = rewrite(Model(forward, layers=model), to, X)
        assert result.counts == {"rewritten": layers - wrong, "left": wrong, "refused": 0}, result.report
        return len(counter)

    for to in ("subpixel", "upsample_conv"):
        assert runs(16, to) == runs(2, to) <= 6
    assert runs(16, "subpixel", wrong=1) < 20


def test_kernel_size_and_mode_are_those_of_the_pairs():
    torch.manual_seed(0)
    model = nn.Sequential(nn.ConvTranspose2d(8, 4, 2, 2)).double()
    residuals = []
    for inputs in (None, X):
        result = rewrite(model, "upsample_conv", inputs, kernel_size=3, mode="bilinear")
        [row] = result.report
        pair = list(result.model.modules())
        assert any(isinstance(m, nn.Upsample) and m.mode == "bilinear" for m in pair)
        assert any(isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3) for m in pair)
        residuals.append(row["residual"])
    assert 0 < residuals[1] != residuals[0]


@pytest.mark.parametrize("examples", [None, (X, (10, 13))])
@pytest.mark.parametrize("to", ["subpixel", "upsample_conv"])
def test_the_new_layers_take_output_size(to, examples):
    model = Model(
        lambda m, x, size=None: m.t(x, output_size=size), t=nn.ConvTranspose2d(8, 4, 3, 2, 1, (0, 1))
    ).double()
    new = rewrite(model, to, examples).model
    for size in (None, (9, 13), (9, 14), (10, 14), [2, 4, 9, 14]):
        expected, found = model(X, size), new(X, size)
        assert found.shape == expected.shape and found.is_contiguous()
        if to == "subpixel":
            torch.testing.assert_close(found, expected)
    for wrong, reach in (((11, 13), "axis -2 can have 9 to 10 pixels"), ((10, 15), "axis -1 can have 13 to 14 pixels")):
        with pytest.raises(ValueError, match=reach):
            new(X, wrong)
    fixed = Model(None, t=new.t)
    fixed.__class__ = type("Fixed", (Model,), dict(forward=lambda m, x: m.t(x, output_size=[9, 14])))
    torch.testing.assert_close(torch.fx.symbolic_trace(fixed)(X), new(X, (9, 14)))


def test_measuring_says_where_a_layer_is_slower(monkeypatch):
    monkeypatch.setattr("upconv.models._times", lambda calls: (1.0, 2.0))
    result = rewrite(nn.Sequential(up(), conv()).double(), "conv_transpose", X, measure=True)
    [row] = result.report
    assert (row["seconds_before"], row["seconds_after"]) == (1.0, 2.0) == result.seconds
    assert row["reason"] == "slower here: 2.00 of the time before"
    assert "1 s a call before, 2 s after" in str(result) and "seconds_before" in str(result)


def test_models_whose_calls_nobody_can_see_are_refused():
    plain, hidden = nn.Sequential(up(), conv()), nn.Sequential(up(), conv())
    hidden[1].forward = hidden[1].forward
    for model, message in (
        (torch.compile(plain), r'model is compiled: give the module that it was made of .* backend="upconv"'),
        (hidden, "the forward of 1 is set on the instance, .* give the model as it was before that"),
        (nn.Sequential(torch.compile(plain)), "the forward of 0 is .* give the model as it was before that"),
    ):
        with pytest.raises(ValueError, match=message):
            rewrite(model, "conv_transpose", X.float())


# exchanging layers


def test_every_transposed_layer_becomes_a_subpixel_convolution():
    model = randomised(nn.Sequential(
        nn.ConvTranspose2d(8, 6, 4, 2, 1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.ConvTranspose2d(6, 6, 3, 2, 1, 1, groups=3), nn.ReLU(),
        nn.ConvTranspose2d(6, 2, 5, (3, 2), (1, 2), dilation=(1, 2)),
    ))  # fmt: skip
    for inputs in (None, (X,)):
        result = rewrite(model, "subpixel", example_inputs=inputs)
        assert result.counts == {"rewritten": 3, "left": 0, "refused": 0}
        assert not any(isinstance(module, nn.ConvTranspose2d) for module in result.model.modules())
        for x in (X, torch.randn(1, 8, 1, 3).double()):
            assert_same(model, result.model, x)
        assert [row["name"] for row in result.report] == ["0", "3", "5"]
        assert all(row["exact"] and row["residual"] == 0 for row in result.report)
    multiplications = [2 * 35 * 8 * 6 * 16, 2 * 140 * 6 * 2 * 9, 2 * 560 * 6 * 2 * 25]
    assert [row["macs_before"] for row in result.report] == multiplications


def test_layers_that_are_pairs_become_them_exactly():
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


def test_layers_are_found_however_they_are_called():
    layer = nn.ConvTranspose2d(8, 4, 4, 2, 1).double()
    calls = (lambda m, x: m.t(input=x)), (lambda m, x: m.t(x, output_size=None))
    models = [layer, *(Model(call, t=layer) for call in calls)]
    for to in ("subpixel", "upsample_conv"):
        results = [rewrite(model, to, example_inputs=(X,)) for model in models]
        assert [result.counts["rewritten"] for result in results] == [1, 1, 1]
        assert len({result.report[0]["residual"] for result in results}) == 1
        assert type(results[0].model) is nn.Sequential
        for model, result in zip(models, results, strict=True):
            if to == "subpixel":
                assert_same(model, result.model, X)


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
    line = next(name for name in rows if name.startswith("(the model itself): F.conv_transpose2d (line "))
    assert set(rows) == {"own", "hooked", "read", "line", "good", "volume", line}
    assert "write it as a layer" in rows[line]["reason"]
    assert rows["good"]["status"] == rows["line"]["status"] == "rewritten"
    reasons = dict(own="a forward of its own", hooked="forward hooks", volume="the example inputs do not call it")
    for name, reason in {**reasons, "read": "the example inputs do not call it"}.items():
        assert rows[name]["status"] in ("left", "refused") and rows[name]["became"] is None
        assert reason in rows[name]["reason"]
    assert_same(model, result.model, X)
    assert result.counts == {"rewritten": 2, "left": 3, "refused": 2}
    assert "2 rewritten, 3 left, 2 refused" in str(result)
    model = Model(lambda m, x: m.a(x) + m.a.weight.mean(), a=nn.ConvTranspose2d(8, 8, 2, 2)).double()
    [row] = rewrite(model, "subpixel", example_inputs=(X,)).report
    assert "the model does more with it than calling it: AttributeError" in row["reason"]


# pixel shuffles, and an Upsample alone


@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_and_its_pixel_shuffle_become_one_layer(bias):
    layers = dict(c=conv(outputs=16, bias=bias), s=nn.PixelShuffle(2), d=conv(4, 16), t=nn.PixelShuffle(4))
    model = randomised(Model(lambda m, x: m.t(m.d(F.relu(m.s(m.c(x))))), **layers))
    result = rewrite(model, "conv_transpose", X)
    assert [row["name"] for row in result.report] == ["s", "t"] and result.counts["rewritten"] == 2
    assert result.report[0]["became"].startswith("ConvTranspose2d 6x6, stride 2")
    for row in result.report:
        assert row["exact"] and row["macs_before"] == row["macs_after"] > 0 and row["max_difference"] < 1e-10
        assert row["parameters_before"] == row["parameters_after"]
    for x in (X, torch.randn(1, 8, 9, 4).double()):
        assert_same(model, result.model, x)
    assert not any(isinstance(module, nn.PixelShuffle) for module in result.model.modules())
    for to, reason in (("subpixel", "a pixel shuffle already"), ("upsample_conv", "no transposed convolution")):
        assert all(reason in row["reason"] for row in rewrite(model, to, X).report)
    assert all(row["exact_targets"] == ("conv_transpose",) for row in audit(model, X))


def shared_shuffle(model, x):
    return model.s(model.c(x)) + model.s(model.d(x))


# forward, and a part of the reason, or None where it is exchanged
SHUFFLES = {
    "one for two": (shared_shuffle, None),
    "read elsewhere": (lambda m, x: (y := m.c(x), m.s(y)), "is read elsewhere"),
    "read by a relu": (lambda m, x: m.s(m.c(x)) + m.c(x).relu().mean(), "is read elsewhere"),
    "another reader in training": (lambda m, x: m.s(y := m.c(x)) * (1 if not m.training else y.mean()), "elsewhere"),
    "an activation between": (lambda m, x: m.s(m.c(x).relu()), "more than convolutions"),
    "a dropout between": (lambda m, x: m.s(m.p(m.c(x))), "more than convolutions"),
    "an input too": (lambda m, x: m.s(m.c(x)).mean() + m.s(x), "more than convolutions"),
    "a function": (lambda m, x: F.pixel_shuffle(m.c(x), 2), "write it as a layer"),
    "of an upsampling": (lambda m, x: m.s(m.c(m.u(x))), "became part of an Upsample"),
}


@pytest.mark.parametrize("case", SHUFFLES)
def test_a_pixel_shuffle_is_exchanged_where_only_convolutions_and_it_know_each_other(case):
    forward, reason = SHUFFLES[case]
    layers = dict(c=conv(outputs=16), d=conv(outputs=16, padding_mode="reflect"), s=nn.PixelShuffle(2), u=up())
    model = randomised(Model(forward, **layers, p=nn.Dropout(0.5)))
    result = rewrite(model, "conv_transpose", X)
    [row] = [row for row in result.report if "huffle" in row["was"]]
    assert (row["became"] is not None) == (reason is None) and (reason or "") in row["reason"]
    assert_same(model, result.model, X)


ALONE = {
    "nearest, added": (lambda m, x: m.u(x) + m.t(x), up(), "ConvTranspose2d 2x2, stride 2"),
    "bilinear, padded": (lambda m, x: m.c(m.u(x)), up(3, mode="bilinear"), "Replication"),
    "bicubic, a view": (lambda m, x: m.u(x[:, :3]).mean(), up(mode="bicubic"), "Replication"),
    "aligned": (lambda m, x: m.u(x), up(mode="bilinear", align_corners=True), None),
    "two numbers of channels": (lambda m, x: m.u(x).mean() + m.u(x[:, :3]).mean(), up(), None),
}


@pytest.mark.parametrize("case", ALONE)
def test_an_upsample_alone_becomes_a_layer_on_request(case):
    forward, upsample, became = ALONE[case]
    model = randomised(Model(forward, u=upsample, t=nn.ConvTranspose2d(8, 8, 2, 2), c=conv()))
    left, result = (rewrite(model, "conv_transpose", X, everything=everything) for everything in (False, True))
    [row] = [row for row in result.report if row["name"] == "u"]
    assert (row["became"] is None) == (became is None) and (became or "") in (row["became"] or "")
    if became is None:
        assert ("align_corners=True" if case == "aligned" else "other numbers of channels") in row["reason"]
    assert next(row for row in left.report if row["name"] == "u")["became"] is None
    assert any(isinstance(module, nn.Upsample) for module in result.model.modules()) == (became is None)
    assert not any(p.requires_grad for p in result.model.u.parameters())
    for x in (X, torch.randn(1, 8, 9, 4).double()):
        assert_same(model, result.model, x)
    [kernel] = [
        p for p in rewrite(model.float(), "conv_transpose", X.float(), everything=True).model.u.parameters()
    ] or [X.float()]
    assert kernel.dtype == torch.float32
    with pytest.raises(ValueError, match="everything is an option"):
        rewrite(model, "subpixel", X, everything=True)


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
    assert row["verdict"] == f"its weights alone draw a pattern on flat inputs, {share:.2f} of their energy"
    shuffle = nn.Sequential(nn.Conv2d(6, 20, 3, padding=1, bias=False), nn.PixelShuffle(2)).double()
    [row] = audit(shuffle, torch.zeros(1, 6, 8, 8).double())
    shown = shuffle(flat)[..., 4:-4, 4:-4]
    share = 1 - shown.mean(dim=(2, 3)).square().sum() / shown.square().mean(dim=(2, 3)).sum()
    assert row["off_dc_energy"] == pytest.approx(share.item())


def test_the_audit_says_that_it_judges_weights_and_what_judges_pictures():
    note = "off_dc_energy is about the weights alone; upconv.flat_response measures what the picture shows"
    assert str(audit(nn.ConvTranspose2d(8, 4, 4, 2), X.float())).endswith(f"\n{note}")
    assert audit(nn.Sequential(up(), conv()).double(), X).note == ""


def test_no_graph_that_torch_compile_cuts_is_taken_for_the_model():
    def forward(m, x):
        y = F.interpolate(x, scale_factor=2)
        torch._dynamo.graph_break()
        return m.c(y)

    class Broken(Model):
        pass

    Broken.forward = forward
    [row] = audit(Broken(None, c=conv()).double(), X)
    cut = "; read by the output of one of the 2 graphs that torch.compile makes of the model"
    assert row["exact_targets"] == () and row["verdict"] == "keeps flat inputs flat" + cut
    Broken.forward = lambda m, x: F.interpolate(x, scale_factor=2)
    [row] = audit(Broken(None).double(), X)
    assert row["verdict"] == "keeps flat inputs flat; read by the output"


@pytest.mark.parametrize("look", [audit, flat_response])
def test_weights_without_values_are_refused(look):
    model = nn.Sequential(up(), conv()).to("meta")
    with pytest.raises(ValueError, match="the device meta, where weights have no values to measure: give it on anoth"):
        look(model, X.float().to("meta"))


def test_a_model_without_upsampling_says_so():
    report = audit(nn.Linear(2, 2), torch.zeros(1, 2))
    assert report == [] and str(report).endswith("this model does no upsampling on these inputs")
    result = rewrite(nn.Linear(2, 2), "subpixel")
    assert result.report == [] and "no upsampling found" in str(result)


def test_functional_transposed_convolutions_are_audited_and_out_of_reach():
    model = Model(lambda m, x: F.conv_transpose2d(x, m.w, stride=2), w=nn.Parameter(torch.ones(8, 2, 2, 2).double()))
    [row] = audit(model, X)
    assert row["kind"] == "F.conv_transpose2d" and row["exact_targets"] == ()
    disguised = "keeps flat inputs flat; it is Upsample + Conv2d in disguise; called as a function"
    assert row["verdict"].startswith(disguised)


def test_a_report_shows_names_as_they_are_in_a_notebook():
    result = rewrite(nn.Sequential(nn.ConvTranspose2d(4, 4, 2, 2)), "subpixel")
    report = result.report
    report[0].update(name="<script>", was="a & b")
    page = result._repr_html_()
    assert "<td>&lt;script&gt;</td><td>a &amp; b</td>" in page and "<script>" not in page
    assert [name for name in KEYS.split() if f"<th>{name}</th>" not in page] == []
    assert report.note in page and report.note in str(report) and "<script>" in str(report)


def test_wrong_arguments_say_what_is_accepted():
    model = nn.Sequential(up(), conv())
    for error, message, call in (
        (TypeError, "model must be", lambda: rewrite("model", "subpixel")),
        (TypeError, "model must be", lambda: audit("model", X)),
        (ValueError, "to='resize' must be one of subpixel, conv_tran", lambda: rewrite(model, "resize")),
        (ValueError, "needs example_inputs", lambda: rewrite(model, "conv_transpose")),
        (ValueError, "measure=True needs example_inputs", lambda: rewrite(model, "subpixel", measure=True)),
        (TypeError, "a tensor or a tuple of positional inputs, not list", lambda: rewrite(model, "subpixel", [X])),
        (TypeError, "a tensor or a tuple of positional inputs, not list", lambda: audit(model, [X])),
        (TypeError, "example_kwargs a dict", lambda: rewrite(model, "subpixel", X, example_kwargs=[X])),
        (ValueError, 'those of the new pairs of to="upsample_conv"', lambda: rewrite(model, "subpixel", kernel_size=3)),
    ):
        with pytest.raises(error, match=message):
            call()


# models that others wrote, and the book's own


SIMPLE = dict(in_channels=1, out_classes=2, padding=1, num_encoding_blocks=3, out_channels_first_layer=8)
FEATURES = dict(spatial_dims=2, in_channels=1, out_channels=2, features=(8, 8, 16, 16, 32, 8))
DIFFUSION = dict(
    spatial_dims=2, in_channels=1, out_channels=1, channels=(8, 16, 16), num_res_blocks=1, norm_num_groups=4, attention_levels=(False, False, False)
)  # fmt: skip
KL = dict(DIFFUSION, latent_channels=2, with_encoder_nonlocal_attn=False, with_decoder_nonlocal_attn=False)

PUBLISHED = {  # how many transposed convolutions, how many pairs, and the model: of monai, or of the package unet
    "BasicUNet": (4, 0, lambda nets, unet: nets.BasicUNet(**FEATURES)),
    "UNet": (2, 0, lambda nets, unet: nets.UNet(2, 1, 2, (8, 16, 32), (2, 2), num_res_units=1)),
    "AttentionUnet": (2, 0, lambda nets, unet: nets.AttentionUnet(2, 1, 2, (8, 16, 32), (2, 2))),
    "DynUNet": (2, 0, lambda nets, unet: nets.DynUNet(2, 1, 2, [3, 3, 3], [1, 2, 2], [2, 2], filters=[8, 16, 32])),
    "VNet": (4, 0, lambda nets, unet: nets.VNet(2)),
    "AutoEncoder": (2, 0, lambda nets, unet: nets.AutoEncoder(2, 1, 1, (8, 16), (2, 2))),
    "UNet2D, conv": (2, 0, lambda nets, unet: unet.UNet2D(**SIMPLE, upsampling_type="conv")),
    "UNet2D, linear": (0, 0, lambda nets, unet: unet.UNet2D(**SIMPLE, upsampling_type="linear")),
    "AutoencoderKL": (0, 2, lambda nets, unet: Model(lambda m, x: m.kl.reconstruct(x), kl=nets.AutoencoderKL(**KL))),
    "DiffusionModelUNet": (0, 2, lambda nets, unet: Model(lambda m, x: m.unet(x, torch.tensor([3.0])), unet=nets.DiffusionModelUNet(**DIFFUSION, num_head_channels=4))),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models(name):
    import unet  # noqa: PLC0415 - slow to import, and only needed here
    from monai.networks import nets  # noqa: PLC0415

    transposed, fused, make = PUBLISHED[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = randomised(make(nets, unet))
    x = torch.randn(1, 1, 32, 48).double()
    for to, expected in (("subpixel", transposed), ("conv_transpose", fused)):
        result = rewrite(model, to, example_inputs=(x,))
        assert result.counts["rewritten"] >= expected, result.report
        for inputs in (x, torch.randn(2, 1, 64, 32).double()):
            assert_same(model, result.model, inputs)
    fitted = rewrite(model, "upsample_conv", example_inputs=(x,))
    assert fitted.counts["rewritten"] >= transposed
    assert all(0 < row["residual"] < 1.5 for row in fitted.report if row["became"])
    assert len(audit(model, x)) >= transposed + fused


FORMS = ["conv_transpose_3x3", "nearest_conv_2x2", "nearest_conv_3x3", "bilinear_conv_3x3", "pixel_shuffle"]


@pytest.mark.parametrize("block", FORMS)
@pytest.mark.parametrize("network, size, blocks", [(Autoencoder, 28, 3), (SuperResolution, 8, 2), (UNet, 16, 2)])
def test_the_books_own_models(block, network, size, blocks):
    model = randomised(network(block))
    x = torch.rand(2, 1, size, size).double()
    transposed = blocks * block.startswith("conv_transpose")
    pairs, shuffles = blocks * block.startswith("nearest"), blocks * block.startswith("pixel")
    for to, expected in (("subpixel", transposed + pairs), ("conv_transpose", pairs + shuffles)):
        result = rewrite(model, to, example_inputs=(x,))
        assert result.counts["rewritten"] == expected, result.report
        assert_same(model, result.model, x)
    assert len(audit(model, x)) == blocks


# what enlarges and is no layer


def zeros_between(x):
    large = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    large[..., ::2, ::2] = x
    return large


ENLARGING = {
    "repeat_interleave": lambda x: x.repeat_interleave(2, 2).repeat_interleave(2, 3),
    "expand": lambda x: x[:, :, :, None, :, None].expand(-1, -1, -1, 2, -1, 2).reshape(*x.shape[:2], 10, 14),
    "pixel shuffle by hand": lambda x: x.unflatten(1, (2, 2, 2)).permute(0, 1, 4, 2, 5, 3).reshape(2, 2, 10, 14).repeat(1, 4, 1, 1),
    "zeros between": zeros_between,
    "zeros between, by a pad": lambda x: F.pad(x.reshape(*x.shape[:3], 1, x.shape[3], 1), (0, 1, 0, 0, 0, 1)).reshape(*x.shape[:2], 10, 14),
    "unpool": lambda x: F.max_unpool2d(*F.max_pool2d(x[..., :6], 1, 2, return_indices=True), 2, 2, 0),
    "grid_sample": lambda x: F.grid_sample(x, F.affine_grid(torch.eye(2, 3)[None].double().repeat(2, 1, 1), (2, 8, 10, 14), align_corners=False), align_corners=False),
    "adaptive pool": lambda x: F.adaptive_avg_pool2d(x, (10, 14)),
    "area": lambda x: F.interpolate(x, size=(10, 14), mode="area"),
    "torch.ops": lambda x: torch.ops.aten.upsample_nearest2d(x, [10, 14], None, None),
    "a custom operator": lambda x: torch.ops.test_models.enlarge(x),
    "stack": lambda x: torch.stack([x, x], -1).flatten(-2).repeat_interleave(2, 2),
}  # fmt: skip

NOT_ENLARGING = {
    "attention": lambda x: (lambda t: (t @ t.mT).softmax(-1) @ t)(x.flatten(2).mT.unflatten(2, (2, 4)).transpose(1, 2)).transpose(1, 2).flatten(2).mT.unflatten(2, x.shape[2:]),
    "pad": lambda x: F.pad(x, (3, 3, 3, 3)),
    "a gate": lambda x: x * F.adaptive_avg_pool2d(x, 1).sigmoid(),
    "an expanded gate": lambda x: x + F.adaptive_avg_pool2d(x, 1).expand_as(x),
    "channels last": lambda x: F.linear(x.permute(0, 2, 3, 1), torch.ones(32, 8).double()).permute(0, 3, 1, 2)[:, :8],
    "down and no more": lambda x: F.interpolate(x, scale_factor=0.5),
    "the same size": lambda x: F.interpolate(x, size=x.shape[2:], mode="bilinear"),
    "windows": lambda x: F.conv2d(x[..., :4, :4].unflatten(2, (2, 2)).unflatten(4, (2, 2)).permute(0, 2, 4, 1, 3, 5).reshape(8, 8, 2, 2), torch.ones(8, 8, 1, 1).double()).unflatten(0, (2, 2, 2)).permute(0, 3, 1, 4, 2, 5).reshape(2, 8, 4, 4),
    "joined": lambda x: torch.cat([x, x], 2),
    "stride 1": lambda x: F.conv_transpose2d(x, torch.ones(8, 8, 3, 3).double(), padding=1),
}  # fmt: skip


@torch.library.custom_op("test_models::enlarge", mutates_args=())
def enlarge(x: torch.Tensor) -> torch.Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


@pytest.mark.parametrize("way", ENLARGING)
def test_what_enlarges_in_another_way_is_listed_and_not_denied(way):
    model = Model(lambda m, x: m.c(ENLARGING[way](x)), c=conv()).double()
    report = audit(model, X)
    assert len(report) == 1 and "does no upsampling" not in report.note, report
    assert "understood" in report[0]["verdict"] or report[0]["kind"].startswith("area upsampling")
    [row] = rewrite(model, "conv_transpose", X).report
    assert row["status"] == "left" and row["reason"]


@pytest.mark.parametrize("way", NOT_ENLARGING)
def test_what_does_not_enlarge_is_no_row(way):
    model = Model(lambda m, x: m.c(NOT_ENLARGING[way](x)), c=conv()).double()
    report = audit(model, X)
    assert report == [] and "does no upsampling" in report.note, report


def test_the_audit_says_what_the_backend_could_do():
    def forward(m, x, *, skip):
        y = m.c(torch.cat([F.interpolate(x, size=skip.shape[2:]), skip], 1))
        return m.d(F.interpolate(y, scale_factor=2, mode="bilinear")), F.interpolate(x, scale_factor=2).softmax(1)

    class Net(Model):
        pass

    Net.forward = forward
    model = Net(None, c=conv(12, 8), d=conv(8, 4)).double()
    report = audit(model, (X,), example_kwargs=dict(skip=torch.randn(2, 4, 10, 14).double()))
    assert [row["exact_targets"] for row in report] == [("conv_transpose",), (), ()]
    assert report[0]["verdict"].endswith(
        "the same as ConvTranspose2d 4x4, stride 2 + Conv2d of the other channels, "
        'with 0.63 of the MACs: torch.compile(model, backend="upconv")'
    )
    assert report[0]["macs"] == 2 * 140 * 12 * 8 * 9
    [row] = audit(nn.Sequential(up(), conv()).double(), X)
    assert row["exact_targets"] == ("conv_transpose", "subpixel") and "torch.compile" not in row["verdict"]
    assert 'padding after mode="bilinear"' in report[1]["verdict"] and "read by softmax" in report[2]["verdict"]


def test_one_line_that_enlarges_several_pictures_of_which_one_folds():
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.convs, self.last = nn.ModuleList(nn.Conv2d(2, 2, 1) for _ in range(2)), nn.Conv2d(4, 2, 1)

        def forward(self, x):
            ups = [nn.functional.interpolate(conv(x), scale_factor=2.0) for conv in self.convs]
            return ups[0], self.last(torch.cat([ups[1], ups[1]], 1))

    rows = audit(Heads(), torch.rand(1, 2, 4, 4))
    assert len(rows) == 2 and all("the same as Conv2d 1x1" in row["verdict"] for row in rows)


def test_several_upsamplings_that_one_convolution_reads():
    class Pyramid(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Conv2d(8, 2, 1)

        def forward(self, *maps):
            size = maps[-1].shape[2:]
            ups = [nn.functional.interpolate(x, size=size, mode="bilinear") for x in maps[:-1]]
            return self.last(torch.cat([*ups, maps[-1]], 1))

    rows = audit(Pyramid(), (torch.rand(1, 2, 2, 2), torch.rand(1, 2, 4, 4), torch.rand(1, 4, 8, 8)))
    assert [row["exact_targets"] for row in rows] == [("conv_transpose",)] * 2
    first, second = (
        rows  # what is saved stands with one of them: 2, 2 and 4 channels at three sizes, for 8 at the largest
    )
    after = 2 * (2 * 4 + 2 * 16 + 4 * 64)
    assert first["macs"] == 2 * 8 * 64 and f"with {after / first['macs']:.2f} of the MACs" in first["verdict"]
    assert second["macs"] == 0 and "same as Conv2d 1x1" in second["verdict"] and "of the MACs" not in second["verdict"]


def test_a_model_that_cannot_be_captured_is_audited_all_the_same(monkeypatch):
    def forward(m, x):
        if x.numpy().sum() > 1e9:
            raise KeyError
        return m.c(F.interpolate(x, scale_factor=2))

    class Eager(nn.Module):
        def forward(self, x):
            if torch.compiler.is_compiling():
                raise NotImplementedError("not in a graph")
            return F.interpolate(x, scale_factor=2)

    model = Model(forward, c=conv()).double()
    assert audit(model, X)[0]["exact_targets"] == ("conv_transpose",)
    [row] = audit(nn.Sequential(Eager(), conv()).double(), X)
    assert "not found in the graphs" in row["verdict"]
    monkeypatch.setattr(sys.modules["upconv.audit"], "folded_copy", lambda gm: 1 / 0)
    [row] = audit(model, X)
    assert "torch.compile cannot capture the model (BackendCompilerFailed: " in row["verdict"]
