"""upconv.book.comparison: the protocol, on tables made by hand."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn

from upconv.book import comparison
from upconv.book.blocks import BLOCKS
from upconv.book.comparison import (
    COMPARISONS,
    LEARNING_RATES,
    REFERENCE,
    chosen_learning_rates,
    compare_with_reference,
    comparison_settings,
    comparison_table,
    equal_time_steps,
    fit,
    matched_channels,
    of_comparison,
    run_comparison,
)
from upconv.book.tasks import AUTOENCODER, TASKS
from upconv.book.training import train


def parameters(task, upsampling, channels, tier="mini"):
    with torch.device("meta"):
        decoder, _ = task.decoder(task.build(upsampling, channels, tier))
    return sum(parameter.numel() for parameter in decoder.parameters())


@pytest.mark.parametrize("tier", ["mini", "full"])
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize(
    "upsampling", ["conv_transpose_2x2", "conv_transpose_4x4", "nearest_conv_2x2", "pixel_shuffle"]
)
def test_matched_decoders_have_nearly_the_parameters_of_the_reference(task, upsampling, tier):
    plain = task.tiers[tier]["channels"]

    def distance(channels):
        return abs(parameters(task, upsampling, channels, tier) - parameters(task, REFERENCE, plain, tier))

    channels = matched_channels(task, upsampling, tier)
    assert distance(channels) < 0.016 * parameters(task, REFERENCE, plain, tier)
    factor = max(channels) / max(plain)
    assert channels != plain
    near = {  # by brute force, the decoders of this family around it
        tuple(int(width * factor * (0.94 + number / 2000) + 0.5) for width in plain) for number in range(240)
    }
    assert len(near) > 2 and channels in near
    assert distance(channels) == min(map(distance, near))


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_decoder_with_the_parameters_of_the_reference_keeps_its_channels(task):
    for upsampling in (REFERENCE, "conv_transpose_3x3", "bilinear_conv_3x3", "bicubic_conv_3x3"):
        assert matched_channels(task, upsampling) == task.tiers["mini"]["channels"]


def test_matching_draws_no_weights():
    before = torch.get_rng_state()
    matched_channels(AUTOENCODER, "pixel_shuffle_icnr")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """Give tables of learning rates and times in which everything is known."""
    (tmp_path / "results").mkdir()
    monkeypatch.setenv("UPCONV_DATA", str(tmp_path))
    best = {name: LEARNING_RATES[number % 4] for number, name in enumerate(BLOCKS)}
    rows = []
    for task in TASKS:
        for name in BLOCKS:
            for rate in LEARNING_RATES:
                good = 20.0 if (rate == best[name]) == (task == "autoencoder") else 19.0
                # one seed alone, or the best or the worst, would choose otherwise
                for seed, psnr in enumerate((good, good - 2, good + 1) if good == 20 else (good + 2.1, good - 1, good)):
                    rows.append(("mini", task, name, rate, 1, seed, psnr))
            rows.append(("full", task, name, 0.016, 1, 0, 1.0))
    columns = ["tier", "task", "upsampling", "learning_rate", "steps", "seed", "psnr"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "results" / "learning_rates.csv", index=False)
    ratio = {name: 0.5 + 0.25 * number for number, name in enumerate(BLOCKS)}
    rows = [
        (tier, task, name, seed, ratio[name] * scale * spread, 1.0)
        for tier in ("mini", "full")
        for task, scale in (("autoencoder", 1), ("super_resolution", 2))
        for name in BLOCKS
        for seed, spread in enumerate((1, 1.02, 50))
    ]
    columns = ["tier", "task", "upsampling", "seed", "ratio", "ms"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "results" / "step_time.csv", index=False)
    return best, ratio


def test_the_learning_rate_with_the_best_mean_is_chosen_for_each_block_task_and_tier(tables):
    best, _ = tables
    assert chosen_learning_rates(AUTOENCODER) == best
    other = chosen_learning_rates(TASKS["super_resolution"]._replace(withdrawn={}))
    assert all(other[name] != best[name] for name in BLOCKS)
    assert set(chosen_learning_rates(AUTOENCODER, "full").values()) == {0.016}
    assert not set(TASKS["super_resolution"].withdrawn["mini"]) & set(
        chosen_learning_rates(TASKS["super_resolution"]).values()
    )


def test_a_learning_rate_that_breaks_one_block_is_offered_to_none(tables, tmp_path):
    best, _ = tables
    path = tmp_path / "results" / "learning_rates.csv"
    table = pd.read_csv(path)
    one = (table["task"] == "autoencoder") & (table["upsampling"] == "pixel_shuffle") & (table["seed"] == 2)
    broken = one & (table["learning_rate"] == LEARNING_RATES[0])
    for psnr, chosen in ((16.2, True), (15.9, False)):  # the best run of the block has 21
        table.loc[broken, "psnr"] = psnr
        table.to_csv(path, index=False)
        found = chosen_learning_rates(AUTOENCODER)
        assert (LEARNING_RATES[0] in found.values()) == chosen
        assert all(found[name] == best[name] for name in BLOCKS if best[name] != LEARNING_RATES[0])
    super_resolution = TASKS["super_resolution"]._replace(withdrawn={})
    assert LEARNING_RATES[0] in chosen_learning_rates(super_resolution).values()
    without = chosen_learning_rates(super_resolution._replace(withdrawn={"mini": LEARNING_RATES[:1]}))
    assert LEARNING_RATES[0] not in without.values()


def test_the_slower_block_gets_fewer_steps(tables):
    _, ratio = tables
    steps = equal_time_steps(AUTOENCODER)
    number = AUTOENCODER.tiers["mini"]["steps"]
    for name in BLOCKS:
        if name == REFERENCE:
            assert steps[name] == number
        else:  # the median of the times, whatever the worst of them is
            assert steps[name] == pytest.approx(number / (1.02 * ratio[name]), abs=5.1)
            assert steps[name] % 10 == 0 and type(steps[name]) is int


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_every_block_is_in_every_comparison_once(task, tables):
    settings = comparison_settings(task)
    for comparison_name in COMPARISONS:
        mine = [setting for setting in settings if comparison_name in setting["comparisons"].split()]
        assert [setting["upsampling"] for setting in mine] == list(BLOCKS)
    steps, rates = equal_time_steps(task), chosen_learning_rates(task)
    plain = task.tiers["mini"]
    for setting in settings:
        names, block = setting["comparisons"].split(), setting["upsampling"]
        channels = tuple(map(int, setting["channels"].split()))
        assert setting["learning_rate"] == rates[block] and setting["batch_size"] == plain["batch_size"]
        if "time" in names:
            assert (channels, setting["steps"]) == (plain["channels"], steps[block])
        if "channels" in names:
            assert (channels, setting["steps"]) == (plain["channels"], plain["steps"])
        if "parameters" in names:
            assert (channels, setting["steps"]) == (matched_channels(task, block), plain["steps"])
    [reference] = [setting for setting in settings if setting["upsampling"] == REFERENCE]
    assert reference["comparisons"] == "channels parameters time"


def test_of_comparison_takes_the_runs_that_serve_it():
    table = pd.DataFrame({"comparisons": ["channels parameters", "time", "channels"], "seed": [0, 1, 2]})
    assert of_comparison(table, "channels")["seed"].tolist() == [0, 2]
    assert of_comparison(table, "parameters")["seed"].tolist() == [0]
    assert of_comparison(table, "time")["seed"].tolist() == [1]
    with pytest.raises(ValueError, match="comparison='chan' must be one of channels, parameters, time"):
        of_comparison(table, "chan")


def test_fit_warms_up_cools_down_and_lays_the_weights_out(monkeypatch):
    images, found = torch.rand(20, 1, 6, 6), {}
    for name in ("fit", "train"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1))
        common = dict(steps=150, batch_size=4, learning_rate=0.01, seed=3, progress=False)
        if name == "fit":
            losses = fit(model, images, images, **common)
            assert model[1].weight.is_contiguous(memory_format=torch.channels_last)
        else:
            losses = train(model, images, images, warmup=100, decay=True, **common)
        found[name] = losses
    assert found["fit"] == pytest.approx(found["train"], rel=1e-3)


class Recorded(nn.Module):
    def __init__(self):
        super().__init__()
        self.decoder = nn.Conv2d(1, 1, 1)
        self.code_size = 64

    def forward(self, images):
        return self.decoder(images)


def test_a_run_is_measured_at_the_start_early_and_late():
    images = torch.rand(30, 1, 28, 28)
    task = AUTOENCODER._replace(
        build=lambda upsampling, channels, tier: Recorded(),
        data=lambda split, tier: (images[: 30 if split == "train" else 10],) * 2,
        decoder=lambda model: (model.decoder, torch.zeros(1, 1, 28, 28)),
    )
    setting = dict(comparisons="time", upsampling="x", channels="1 2", batch_size=4, learning_rate=0.01)
    found = run_comparison(task, **setting, steps=30, seed=2)
    looks = {name.rpartition("_")[2] for name in found} - {"parameters", "macs", "training"}
    assert looks == {"0", "20", "end"}
    assert (found["parameters"], found["macs"]) == (2, 784)
    assert found["mse_end"] < found["mse_20"] < found["mse_0"]
    again = run_comparison(task, **setting, steps=30, seed=2)
    other = run_comparison(task, **setting, steps=30, seed=3)
    assert found == again and other["psnr_0"] != found["psnr_0"]
    longer = run_comparison(task, **setting, steps=201, seed=2)
    assert "psnr_200" in longer and longer["psnr_20"] != found["psnr_20"]  # the learning rate falls more slowly
    assert found["psnr_training"] == pytest.approx(found["psnr_end"])  # the same ten images


def runs(**values):
    rows = [(name, seed, value) for name, column in values.items() for seed, value in enumerate(column)]
    return pd.DataFrame(rows, columns=["upsampling", "seed", "psnr"])


def test_differences_are_students_for_pairs_adjusted_for_their_number():
    generator = np.random.default_rng(0)
    values = {REFERENCE: generator.normal(20, 1, 6)}
    for number in range(5):
        values[f"b{number}"] = values[REFERENCE] + generator.normal(0.3 * number, 0.4, 6)
    table = runs(**values).sample(frac=1, random_state=1).sort_values("upsampling", kind="stable")
    found = compare_with_reference(table, "psnr")
    assert list(found.index) == [f"b{number}" for number in range(5)]
    p = {}
    for name in found.index:
        difference = values[name] - values[REFERENCE]
        row, error = found.loc[name], difference.std(ddof=1) / 6**0.5
        assert (row["mean"], row["std"]) == pytest.approx((difference.mean(), difference.std(ddof=1)))
        half = stats.t.ppf(0.975, 5) * error
        assert (row["low"], row["high"]) == pytest.approx((difference.mean() - half, difference.mean() + half))
        p[name] = 2 * stats.t.sf(abs(difference.mean()) / error, 5)
    order = sorted(p, key=p.get)
    adjusted, smallest = {}, 1.0
    for rank in range(5, 0, -1):  # Benjamini and Hochberg, by hand
        smallest = min(smallest, p[order[rank - 1]] * 5 / rank)
        adjusted[order[rank - 1]] = smallest
    assert found["p"].to_dict() == pytest.approx(adjusted)
    assert found["verdict"].to_dict() == {
        name: "no difference" if adjusted[name] >= 0.05 else "more" for name in found.index
    }
    assert set(found["verdict"]) == {"no difference", "more"}


def test_signs_follow_the_setting():
    table = runs(a=[1.0, 2.1, 3.0], b=[0.0, 1.0, 2.0], c=[2.0, 3.0, 4.1])
    found = compare_with_reference(table, "psnr", "a")
    assert found["verdict"].to_dict() == {"b": "less", "c": "more"}
    assert found.loc["b", "mean"] < 0 < found.loc["c", "mean"]


def test_equal_runs_are_no_difference():
    found = compare_with_reference(runs(a=[1.0, 2.0, 3.0], b=[1.0, 2.0, 3.0], c=[5.0, 6.1, 7.0]), "psnr", "a")
    assert found["verdict"].to_dict() == {"b": "no difference", "c": "more"}
    assert found.loc["b", ["mean", "low", "high", "p"]].tolist() == [0, 0, 0, 1]


def test_unpaired_runs_are_refused():
    with pytest.raises(ValueError, match="a comparison needs the same seeds"):
        compare_with_reference(runs(a=[1.0, 2.0], b=[1.0, 2.0, 3.0]), "psnr", "a")
    with pytest.raises(ValueError, match="upsampling='z' is not in the table"):
        compare_with_reference(runs(a=[1.0, 2.0], b=[1.0, 2.0]), "psnr", "z")


def test_the_names_of_the_comparisons_hold_no_other():
    assert not any(a in b for a in COMPARISONS for b in COMPARISONS if a != b)
    assert comparison.EARLY[0] == 0


def test_the_table_shows_costs_means_spreads_and_signs():
    values = {REFERENCE: [20.0, 21.0, 22.0], "a": [21.0, 22.0, 23.1], "b": [19.0, 20.0, 21.1], "c": [20.0, 21.1, 21.9]}
    table = runs(**values).assign(parameters=12345, macs=6789000, steps=4000, ssim=0.5)
    table.loc[table["upsampling"] == "b", "ssim"] = [0.1, 0.2, 0.3]
    measures = {"psnr": ("PSNR", ".2f"), "ssim": ("SSIM", ".1f")}
    found = comparison_table(table, measures, {"PCA": {"psnr": 19.0}})
    assert list(found.index) == [REFERENCE, "a", "b", "c", "PCA"]
    assert list(found.columns) == ["parameters", "MACs", "steps", "PSNR", "SSIM"]
    assert found.loc["a"].tolist() == ["12,345", "6,789k", "4,000", "22.03 ± 1.05 +", "0.5 ± 0.0 ="]
    assert found.loc[REFERENCE, "PSNR"] == "21.00 ± 1.00"
    assert found.loc["b", "PSNR"] == "20.03 ± 1.05 −" and found.loc["c", "PSNR"] == "21.00 ± 0.95 ="
    assert found.loc["PCA"].tolist() == ["", "", "", "19.00", ""]


def test_nothing_below_the_floor_is_judged():
    values = {REFERENCE: [20.0, 21.0, 22.0], "a": [21.0, 22.0, 23.1], "b": [1.0, 2.0, 3.1]}
    table = runs(**values).assign(parameters=1, macs=1000, steps=1)
    shown = {"psnr": ("PSNR", ".1f")}
    for line, expected in ((10.0, ["", " +", ""]), (21.5, ["", "", ""]), (0.0, ["", " +", " −"])):
        found = comparison_table(table, shown, {"PCA": {"psnr": line}}, floor=("psnr", "PCA"))
        texts = found["PSNR"].tolist()[:3]
        assert [text.partition(" ± ")[2][3:] for text in texts] == expected, line
