"""upconv.book.comparison: what is compared beside channels, parameters and time, and many seeds in one call."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from upconv.book import comparison
from upconv.book.blocks import FOLDED
from upconv.book.comparison import (
    COMPARISONS,
    FOUR,
    LEARNING_RATES,
    MANY,
    RATES,
    REFERENCE,
    best_stable_rates,
    chosen_learning_rates,
    equal_time_steps,
    is_broken,
    matched_channels,
    run_seeds,
    run_setting,
    seeds_of,
    settings_of,
    train_by_protocol,
    train_seeds,
)
from upconv.book.tasks import AUTOENCODER, SUPER_RESOLUTION, TASKS, UNET

OF_IMAGES = {task.name: task for task in (AUTOENCODER, SUPER_RESOLUTION)}


# equal multiplications


def macs(task, upsampling, channels, tier="mini"):
    """Count what a decoder multiplies, the reference folded into the transposed convolution that it is."""
    with torch.device("meta"):
        model = task.build({REFERENCE: "conv_transpose_4x4"}.get(upsampling, upsampling), channels, tier)
    return task.parameters_and_macs(model)[1]


@pytest.mark.parametrize("tier", ["mini", "full"])
@pytest.mark.parametrize("task", OF_IMAGES.values(), ids=OF_IMAGES)
@pytest.mark.parametrize("upsampling", [*FOUR, "conv_transpose_2x2", "bilinear_conv_3x3"])
def test_decoders_matched_by_their_work_have_nearly_that_of_the_folded_reference(task, upsampling, tier):
    plain = task.tiers[tier]["channels"]
    channels, wanted = matched_channels(task, upsampling, tier, "macs"), macs(task, REFERENCE, plain, tier)

    def distance(widths):
        return abs(macs(task, upsampling, widths, tier) - wanted)

    if upsampling in (REFERENCE, "conv_transpose_4x4"):
        assert channels == plain and distance(plain) == 0
        return
    assert channels != plain and distance(channels) < 0.09 * wanted < distance(plain)  # few channels, few choices
    factor = max(channels) / max(plain)
    near = {  # by brute force, the decoders of this family around it
        tuple(int(width * factor * (0.94 + number / 1000) + 0.5) for width in plain) for number in range(120)
    }
    assert len(near) > 2 and channels in near
    assert distance(channels) == min(map(distance, near))
    fewer = upsampling in ("pixel_shuffle", "bilinear_conv_3x3")  # these multiply more than 16 numbers a pixel
    assert (factor < 1) is fewer


def test_the_reference_is_counted_folded_for_its_work_alone():
    channels = AUTOENCODER.tiers["mini"]["channels"]
    with torch.device("meta"):
        unfolded = AUTOENCODER.parameters_and_macs(AUTOENCODER.build(REFERENCE, channels, "mini"))
    assert macs(AUTOENCODER, REFERENCE, channels) < unfolded[1] / 1.5
    assert matched_channels(AUTOENCODER, "conv_transpose_3x3", cost="parameters") == channels
    assert matched_channels(AUTOENCODER, "pixel_shuffle") == matched_channels(
        AUTOENCODER, "pixel_shuffle", "mini", "parameters"
    )
    with pytest.raises(ValueError, match="cost='flops' must be one of"):
        matched_channels(AUTOENCODER, "pixel_shuffle", cost="flops")


# each with its own best learning rate


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_run_is_broken_far_below_the_best_of_its_block(task):
    below = pd.Series([0, 1, 1.001, 0.5], index=[7, 3, 5, 1])
    for best in (20.0, -3.0):
        found = is_broken(best - task.broken * below, task)
        assert found.to_dict() == {7: False, 3: False, 5: True, 1: False}


BEST = dict(zip(FOUR, (0.032, 0.011, 0.016, 0.004), strict=True))


def runs_at_rates(task, tier="mini"):
    """Runs of full length: for each block the best mean at its rate of BEST, and better single runs elsewhere."""
    rows = []
    for place, name in enumerate(FOUR):
        for rate in RATES:
            values = (20.0, 19.5, 20.25, 19.75) if rate == BEST[name] else (20.5, 19.0, 19.5, 19.75)
            rows += [
                (task.name, name, rate, 7, seed, 99 - seed, value + 10 * place) for seed, value in enumerate(values)
            ]
    columns = ["task", "upsampling", "learning_rate", "steps", "seed", "score_100", "score_end"]
    return pd.DataFrame(rows, columns=columns).sample(frac=1, random_state=1)


@pytest.fixture
def tables(monkeypatch):
    """Stand in for the tables: learning rates and times of all tasks, and rates of full length; they may be changed."""
    scores, times = [], []
    for name, task in TASKS.items():
        for place, block in enumerate(task.blocks):
            rates = [
                (name, block, rate, 1, 0, 20 + 0.1 * (rate == LEARNING_RATES[place % 3])) for rate in LEARNING_RATES
            ]
            scores += rates
            times += [(name, block, seed, (0.5 + place / 4) * slow) for seed, slow in enumerate((1, 1.1, 9))]
        times += [(name, FOLDED, seed, 0.8 * slow) for seed, slow in enumerate((1, 1.1, 9))]
    held = {
        "learning_rates": pd.DataFrame(
            scores, columns=["task", "upsampling", "learning_rate", "steps", "seed", "score"]
        ),
        "step_time": pd.DataFrame(times, columns=["task", "upsampling", "seed", "ratio"]),
        "rates": pd.concat([runs_at_rates(task) for task in OF_IMAGES.values()]),
    }
    monkeypatch.setattr(comparison, "read_results", lambda name, tier: held[name])
    return held


@pytest.mark.parametrize("task", OF_IMAGES.values(), ids=OF_IMAGES)
def test_the_best_rate_is_that_with_the_best_mean_at_the_end(task, tables):
    found = best_stable_rates(task)
    assert found == BEST and all(type(rate) is float for rate in found.values())


def test_a_rate_that_broke_one_run_of_a_block_is_not_offered_to_that_block(tables):
    table = tables["rates"].reset_index(drop=True)
    mine = (table["task"] == "autoencoder") & (table["upsampling"] == "pixel_shuffle")
    broken = mine & (table["learning_rate"] == BEST["pixel_shuffle"]) & (table["seed"] == 1)
    table.loc[mine & (table["learning_rate"] == BEST["pixel_shuffle"]) & (table["seed"] != 1), "score_end"] = 51.0
    limit = table.loc[mine, "score_end"].max() - AUTOENCODER.broken
    for value, chosen in ((limit, True), (limit - 0.001, False), (-100.0, False)):
        table.loc[broken, "score_end"] = value
        tables["rates"] = table
        found = best_stable_rates(AUTOENCODER)
        assert (found["pixel_shuffle"] == BEST["pixel_shuffle"]) is chosen
        assert {name: found[name] for name in FOUR[:-1]} == {name: BEST[name] for name in FOUR[:-1]}
        assert best_stable_rates(SUPER_RESOLUTION) == BEST
    table.loc[mine & (table["seed"] == 1), "score_end"] = -100.0
    with pytest.raises(
        ValueError, match="every learning rate broke pixel_shuffle in the task 'autoencoder'; add lower"
    ):
        best_stable_rates(AUTOENCODER)


def test_an_incomplete_table_of_rates_is_refused(tables):
    whole = tables["rates"].reset_index(drop=True)
    mine = whole.index[whole["task"] == "autoencoder"]
    for wrong in (
        whole.drop(mine[5]),
        whole.drop(mine),
        whole[whole["learning_rate"] != RATES[2]],
        whole.assign(steps=whole["steps"].where(whole.index != mine[3], 8)),
        whole.assign(score_end=whole["score_end"].where(whole.index != mine[3], np.nan)),
    ):
        tables["rates"] = wrong
        with pytest.raises(ValueError, match=r"rates.csv has not every block .* run `python -m tools.sweeps rates`"):
            best_stable_rates(AUTOENCODER)


# the settings


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_the_reference_trained_as_one_layer_makes_more_steps_in_the_same_time(task, tables):
    steps, number = equal_time_steps(task), task.tiers["mini"]["steps"]
    assert list(steps) == [*task.blocks, FOLDED] and steps[REFERENCE] == number
    assert steps[FOLDED] == 10 * round(number / 0.88 / 10)  # by the median of its times
    tables["step_time"] = tables["step_time"][tables["step_time"]["upsampling"] != FOLDED]
    with pytest.raises(ValueError, match=r"step_time.csv has not every block"):
        equal_time_steps(task)


def of_comparison(settings, name):
    return {row["upsampling"]: row for row in settings if name in row["comparisons"].split()}


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_the_further_comparisons_change_one_thing_each(task, tables):
    settings, plain = settings_of(task), task.tiers["mini"]
    every = {name: of_comparison(settings, name) for name in COMPARISONS}
    assert {name for name, rows in every.items() if rows} == set(task.comparisons)
    usual = {"channels": " ".join(map(str, plain["channels"])), "steps": plain["steps"], "batch_size": 16}
    rates = chosen_learning_rates(task)
    for name in ("channels", "parameters", "time"):
        assert list(every[name]) == list(task.blocks)
    if task is UNET:
        return
    assert list(every["folded"]) == [REFERENCE]
    assert list(every["macs"]) == list(every["rates"]) == [name for name in task.blocks if name in FOUR]
    changes = {
        "folded": lambda block: {"steps": equal_time_steps(task)[FOLDED]},
        "macs": lambda block: {"channels": " ".join(map(str, matched_channels(task, block, "mini", "macs")))},
        "rates": lambda block: {"learning_rate": BEST[block]},
    }
    for name, change in changes.items():
        for block, row in every[name].items():
            expected = {"upsampling": block, **usual, "learning_rate": rates[block], **change(block)}
            assert {key: row[key] for key in expected} == expected and row.keys() == {*expected, "comparisons"}
    rows = [tuple(value for name, value in row.items() if name != "comparisons") for row in settings]
    assert len(set(rows)) == len(rows)  # a run that serves several comparisons is made once


def test_one_run_serves_all_comparisons_that_it_fits(tables, monkeypatch):
    settings = settings_of(AUTOENCODER)
    assert of_comparison(settings, "rates")["conv_transpose_3x3"]["comparisons"] == "rates"
    monkeypatch.setattr(comparison, "best_stable_rates", chosen_learning_rates)
    settings = settings_of(AUTOENCODER)
    assert all("rates" in of_comparison(settings, "channels")[name]["comparisons"].split() for name in FOUR)
    assert of_comparison(settings, "channels")[REFERENCE]["comparisons"] == "channels parameters time macs rates"
    assert of_comparison(settings, "folded")[REFERENCE]["comparisons"] == "folded"


def test_the_table_of_rates_is_read_where_it_is_needed_alone(tables):
    del tables["rates"]
    assert settings_of(UNET) and settings_of(AUTOENCODER, "mini", ("channels", "folded", "macs"))
    with pytest.raises(KeyError):
        settings_of(AUTOENCODER)
    for wrong in (("chanels",), ("channels", "flops"), "channels"):
        with pytest.raises(ValueError, match="must be a tuple of channels, parameters, time, folded, macs, rates"):
            settings_of(UNET, "mini", wrong)


@pytest.mark.parametrize(
    ("comparisons", "block", "expected"),
    [
        ("channels", "bicubic_conv_3x3", 10),
        ("parameters time", "conv_transpose_2x2", 10),
        ("time", "pixel_shuffle", 20),
        ("channels", "bilinear_conv_3x3", 20),
        ("folded", REFERENCE, 20),
        ("macs", REFERENCE, 10),
        ("rates", "pixel_shuffle", 15),
        ("macs rates", "conv_transpose_3x3", 15),
        ("rates parameters", "conv_transpose_3x3", 20),
    ],
)
def test_more_seeds_for_what_is_asked_about_most(comparisons, block, expected):
    assert seeds_of({"comparisons": comparisons, "upsampling": block, "steps": 1}) == expected


def test_the_blocks_with_most_seeds_are_blocks_of_both_tasks_and_among_them_the_four():
    assert set(FOUR) < set(MANY) and REFERENCE in FOUR
    assert all(set(MANY) <= set(task.blocks) for task in OF_IMAGES.values())
    assert set(LEARNING_RATES) < set(RATES) and list(RATES) == sorted(RATES)


# several seeds in one call


@pytest.fixture
def task():
    """Give a small task: from images of 28 x 28 to themselves, by a block between two convolutions."""

    class Network(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.conv, self.decoder = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, 1, 3, padding=1)

        def forward(self, images):
            return self.decoder(F.elu(self.conv(images)))

    def data(split, tier):
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(12, 1, 28, 28, generator=generator)
        return (images, images / 2) if split == "train" else (images[:5], images[:5] / 3)

    return AUTOENCODER._replace(
        build=lambda upsampling, channels, tier: Network(*channels),
        data=data,
        decoder=lambda model: (model.decoder, torch.zeros(1, 3, 28, 28)),
    )


SETTING = dict(comparisons="channels", upsampling="x", channels="3", batch_size=5, learning_rate=0.01)


def test_the_rows_of_several_seeds_are_those_of_single_runs(task):
    seeds = [4, 1, 2]
    for steps in (25, 20):
        together = run_seeds(task, seeds=seeds, steps=steps, **SETTING)
        for seed, found in zip(seeds, together, strict=True):
            alone = run_setting(task, seed=seed, steps=steps, **SETTING)
            assert list(found) == list(alone) and found == pytest.approx(alone, rel=1e-3, abs=1e-5)
            assert all(type(value) is type(alone[name]) for name, value in found.items())
    assert len({found["psnr_end"] for found in together}) == 3
    assert together[0]["psnr_20"] == together[0]["psnr_end"]


def test_one_seed_is_trained_by_the_protocol_to_the_last_bit(task):
    [found] = run_seeds(task, seeds=[4], steps=5, **SETTING)
    torch.manual_seed(4)
    model = task.build("x", (3,), "mini")
    common = dict(steps=5, batch_size=5, learning_rate=0.01, seed=4, progress=False)
    train_by_protocol(model, *task.data("train", "mini"), **common)
    assert found["psnr_end"] == task.measure(model)["psnr"] and found == run_setting(task, seed=4, steps=5, **SETTING)


@pytest.mark.parametrize("seeds", [[3], [3, 0]])
def test_every_network_is_looked_at_with_the_weights_of_its_seed_and_of_the_moment(task, seeds):
    seen, images = [], task.data("train", "mini")

    def look(model, place, step):
        seen.append((step, place, model.decoder.weight.detach().clone()))

    options = dict(steps=4, batch_size=5, learning_rate=0.01)
    build = lambda: task.build("x", (3,), "mini")  # noqa: E731
    models = train_seeds(build, seeds, *images, look=look, looks=(0, 2, 9), **options)
    assert [(step, place) for step, place, _ in seen] == [(step, n) for step in (0, 2, 4) for n in range(len(seeds))]
    for place, seed in enumerate(seeds):
        torch.manual_seed(seed)
        first, _, last = (weight for _, number, weight in seen if number == place)
        assert torch.equal(first, build().decoder.weight) and torch.equal(last, models[place].decoder.weight)
        assert not torch.equal(first, last)


def test_the_options_of_a_training_reach_one_seed_and_several(task, monkeypatch):
    asked = {}
    monkeypatch.setattr(comparison, "train", lambda *given, **options: asked.update(one=(given, options)))
    monkeypatch.setattr(comparison, "train_together", lambda *given, **options: asked.update(several=(given, options)))
    images, targets = task.data("train", "mini")
    build = lambda: task.build("x", (3,), "mini")  # noqa: E731
    for seeds in ([3], [3, 0]):
        common = dict(steps=7, batch_size=5, learning_rate=0.02, clip=0.5, device="meta")
        train_seeds(build, seeds, images, targets, look=None, looks=(2,), **common)
    for kind, extra in (("one", {"seed": 3}), ("several", {"seeds": [3, 0], "looks": (2,)})):
        (models, *data), options = asked[kind]
        assert data[0] is images and data[1] is targets and callable(options.pop("callback"))
        assert options == {**common, **extra, "warmup": comparison.WARMUP, "decay": True, "progress": False}
        if kind == "several":
            assert {model.decoder.weight.device.type for model in models} == {"meta"}


def test_a_training_that_breaks_off_is_an_error_alone_and_together(task):
    common = {**SETTING, "learning_rate": 1e30, "steps": 5}
    with pytest.raises(FloatingPointError):
        run_seeds(task, seeds=[1], **common)
    with pytest.raises(ValueError, match="finite"):
        run_seeds(task, seeds=[1, 2], **common)
