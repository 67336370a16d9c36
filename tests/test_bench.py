"""The benchmark: its forms compute the same, its rows say what was measured, and a run replaces its own rows alone."""

import builtins

import pytest
import torch
from torch import nn

import upconv
from tools.bench import forms, parts
from tools.bench.__main__ import main
from tools.bench.models import LAYERS, MODELS, Model, generator, pair_of
from tools.bench.table import COLUMNS, save
from tools.bench.winograd import Winograd
from tools.sweeps.engine import read_rows
from upconv.fastest import FusedConvTranspose2d

EAGER = {"pair", "folded", "subpixel", "jump"}
ON_A_CPU = {
    *EAGER,
    *(f"{name}, contiguous" for name in EAGER),
    *("winograd", "pair, compiled", "pair, compiled, contiguous", "folded, compiled", "jump, compiled"),
    *("winograd, compiled", "fastest", "fastest, compiled"),
    *(f"{name}, onnxruntime" for name in ("pair", "folded", "jump")),
}


@pytest.fixture
def bench(monkeypatch, tmp_path, capsys):
    """Run the benchmark of two small layers and a model on the CPU, without inductor; give the rows and the text."""
    monkeypatch.setenv("UPCONV_DEVICE", "cpu")
    monkeypatch.setattr(forms, "INNER", "eager")
    monkeypatch.setattr(parts, "LAYERS", {"4-3@5": (4, 3, 5), "6-2@4": (6, 2, 4)})
    monkeypatch.setattr(parts, "SIZES", {"cpu": ((32, 64), 2**12)})
    small = Model(lambda kind: generator((4, 3)), (2, 4, 4, 4), ())
    monkeypatch.setattr(parts, "MODELS", {"small": small, "missing": Model(missing, (1, 1, 1, 1), ())})

    def run(*arguments, expected=0):
        assert main([*arguments, "--seconds", "0.001", "--folder", str(tmp_path), "--save"]) == expected
        return read_rows(tmp_path / "cost_cpu.csv"), capsys.readouterr().out

    return run


def missing(kind):
    raise ImportError("No module named 'models'")


@pytest.mark.parametrize("size", [(6, 6), (5, 8), (1, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_winograd_is_the_pair(size, bias):
    pair = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(3, 5, 3, padding=1, bias=bias)).double()
    winograd, x = Winograd(*pair), torch.randn(2, 3, *size).double()
    torch.testing.assert_close(winograd(x), pair(x))
    tiles = [-(-length // 2) for length in size]
    assert upconv.macs(winograd, x) == 2 * 4 * 9 * tiles[0] * tiles[1] * 3 * 5  # 9 for 4 pixels of each of 4 phases


def test_every_form_of_a_layer_gives_a_row_with_a_small_error(bench):
    rows, text = bench("--part", "layer", "--name", "4-3", "--batch", "2")
    assert "left out" not in text
    assert {row["form"] for row in rows} == ON_A_CPU and len(rows) == len(ON_A_CPU)
    of = {row["form"]: row for row in rows}
    for row in rows:
        assert float(row["relative_error"]) < 2e-6 and float(row["milliseconds"]) > 0
        ratio = float(of["pair"]["milliseconds"]) / float(row["milliseconds"])
        assert float(row["ratio"]) == pytest.approx(ratio, rel=1e-3)
        assert (row["compiled"] == "True") is ("compiled" in row["form"])
        assert row["macs"] == str(2 * 4 * 3 * 9 * 100) and row["bytes"] == str(4 * (200 + 108 + 3 + 600))
        assert (row["batch"], row["dtype"], row["chip"] != "", row["gpu_ratio"]) == ("2", "float32", True, "")
    assert of["pair"]["ratio"] == "1"
    assert of["folded"]["macs_of_form"] == str(2 * 4 * 3 * 16 * 25)
    assert (of["pair"]["memory_format"], of["jump, contiguous"]["memory_format"]) == (
        "channels_last", "contiguous_format"
    )  # fmt: skip


def test_models_and_training_are_held_against_the_best_without_the_book(bench):
    rows, text = bench("--part", "model", "training", "--name", "small", "miss", "6-2", "--batch", "1")
    assert text.count("left out: missing: No module named 'models'") == 2
    groups = {}
    for row in rows:
        groups.setdefault((row["part"], row["name"]), {})[row["form"]] = row
    names = [f"{way}{suffix}" for way in "eager inductor rewrite backend fastest".split() for suffix in forms.FORMATS]
    steps = ["eager", "eager, contiguous", "inductor", "backend", "fastest"]
    assert {key: list(group) for key, group in groups.items()} == {
        ("model", "small"): names, ("training", "6-2@4"): steps, ("training", "small"): steps
    }  # fmt: skip
    for (part, _), group in groups.items():
        best = max(float(group[name]["ratio"]) for name in list(group)[: 3 + (part == "model")])
        assert best == 1
        for row in group.values():
            assert float(row["relative_error"]) < 2e-5
            assert (row["kept_mb"] != "") is (part == "training")
    pairs = groups["training", "6-2@4"]
    assert float(pairs["fastest"]["kept_mb"]) <= float(pairs["eager"]["kept_mb"])


def test_filters_choose_and_the_yardstick_alone_is_run_besides(bench):
    rows, _ = bench("--part", "ceiling", "--name", "matmul")
    assert [(row["name"], row["macs"]) for row in rows] == [("matmul 32", str(32**3)), ("matmul 64", str(64**3))]
    rows, _ = bench("--part", "layer", "--name", "6", "--batch", "3", "1", "--form", "folded, c", "jump, co")
    wanted = ["folded, compiled", "jump, compiled", "folded, contiguous", "jump, contiguous"]
    assert [(row["name"], row["batch"], row["form"]) for row in rows[2:]] == [
        ("6-2@4", batch, form) for batch in "31" for form in wanted
    ]
    rows, text = bench("--part", "layer", "--name", "7", expected=1)
    assert len(rows) == 10 and "nothing was measured" in text
    for wrong in (["--seconds", "0", "--save"], ["--dtype", "tf32"]):
        with pytest.raises(SystemExit):
            main(wrong)


def test_nothing_is_saved_without_being_asked_for_and_no_seconds_only_compile(bench, tmp_path, monkeypatch):
    some = ["--part", "layer", "--name", "4", "--batch", "1", "--form", "folded", "--folder", str(tmp_path)]
    monkeypatch.setattr(parts, "interleaved", lambda *_: pytest.fail("it is not to be timed"))
    assert main([*some, "--seconds", "0"]) == 0
    assert not list(tmp_path.iterdir())


def test_what_is_not_there_or_fails_is_left_out(bench, monkeypatch):
    found = builtins.__import__

    def importing(name, *arguments):
        if name == "onnxruntime":
            raise ImportError("No module named 'onnxruntime'")
        return found(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", importing)
    monkeypatch.setattr(forms, "Winograd", lambda *_: 1 / 0)
    rows, text = bench("--part", "layer", "--name", "4", "--batch", "1", "--form", "pair, onnx", "winograd", "subpixel")
    assert [row["form"] for row in rows] == ["subpixel", "subpixel, contiguous"]
    assert "left out: pair, onnxruntime: ImportError: No module named 'onnxruntime'" in text
    assert "left out: winograd: ZeroDivisionError" in text


def test_an_error_is_the_largest_of_all_images_and_a_nan_is_one():
    expected = torch.tensor([[1.0, 2.0], [4.0, -8.0]]).double()
    found = parts._errors(expected.float() + torch.tensor([[0.5, 0.0], [0.0, -1.0]]), expected)
    assert found == dict(max_error=1.0, relative_error=0.125)
    assert parts._errors(expected[0] + 1, expected[0])["max_error"] == 1
    broken = parts._errors(torch.tensor([[torch.nan, 0.0], [4.0, -8.0]]), expected)
    assert broken["max_error"] != broken["max_error"]


def test_saving_replaces_rows_of_the_same_key_in_place_and_keeps_others(tmp_path):
    path = tmp_path / "new" / "cost_cpu.csv"
    key = dict(part="layer", name="a", batch=1, dtype="float32")
    save([key | dict(form=form, milliseconds=2.0, triton=None) for form in "pq"], path)
    save([key | dict(form=form, milliseconds=1 / 3) for form in "rp"], path)
    save([key | dict(form="p", milliseconds=5.0, batch=2)], path)
    rows = read_rows(path)
    assert list(rows[0]) == list(COLUMNS)
    assert [(row["form"], row["batch"], row["milliseconds"]) for row in rows] == [
        ("p", "1", "0.33333"), ("q", "1", "2"), ("r", "1", "0.33333"), ("p", "2", "5")
    ]  # fmt: skip
    assert {row["triton"] for row in rows} == {""}


def test_a_table_of_other_columns_is_brought_to_todays(tmp_path):
    path = tmp_path / "cost_cpu.csv"
    path.write_text("part,name,batch,dtype,form,was\nlayer,a,1,float32,p,x\n")
    save([dict(part="layer", name="b", batch=1, dtype="float32", form="p")], path)
    assert [(row["name"], len(row)) for row in read_rows(path)] == [("a", len(COLUMNS)), ("b", len(COLUMNS))]


def test_the_fused_form_keeps_its_kernel_as_it_is_read_and_computes_the_pair():
    pair = pair_of(4, 6).requires_grad_(False).to(memory_format=torch.channels_last)
    x = torch.randn(2, 4, 5, 5)
    fused = forms._fused(pair, x)
    assert isinstance(fused, FusedConvTranspose2d) and fused.weight.permute(2, 3, 0, 1).is_contiguous()
    torch.testing.assert_close(fused(x), pair(x))


def test_half_precision_on_a_gpu_has_its_forms_and_max_autotune_is_asked_for():
    pair = pair_of(4, 6)
    x = torch.empty(1, 4, 5, 5, device="meta")
    on_gpu = [form.name for form in forms.layer_forms(pair, x.bfloat16())]
    assert {"fused", "fused, compiled", "pair, max-autotune", "pair, contiguous"} < set(on_gpu)
    assert not any("onnxruntime" in name for name in on_gpu)
    assert not any("fused" in form.name for form in forms.layer_forms(pair, x))
    on_cpu = [[form.name for form in forms.layer_forms(pair, torch.zeros(1, 4, 5, 5), wanted)] for wanted in (0, 1)]
    assert set(on_cpu[1]) - set(on_cpu[0]) == {"pair, max-autotune"}


def test_each_form_is_compiled_in_a_frame_of_its_own():
    """Dynamo would look through what it keeps of all forms, in each call of one."""
    counts = []

    def backend(gm, example_inputs):
        counts.append(1)
        return gm.forward

    models = [forms.compiled(nn.Conv2d(2, 2, 1).eval(), backend=backend) for _ in range(12)]
    with torch._dynamo.config.patch(recompile_limit=1, fail_on_recompile_limit_hit=True), torch.no_grad():
        for model in models * 2:
            model(torch.zeros(1, 2, 3, 3))
    assert len(counts) == 12
    torch.compiler.reset()


def test_the_lists_have_what_the_book_measures():
    assert LAYERS["512-256@16"] == (512, 256, 16) and len(LAYERS) == 5
    for name in ("generator", "generator, functional", "UNet", "Autoencoder"):
        model = MODELS[name].make("cpu").eval()
        assert model(torch.rand(MODELS[name].cpu)).dim() == 4
        assert MODELS[name].make("cuda") is not None
