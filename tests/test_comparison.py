"""upconv.book.comparison: the protocol, on tables made by hand."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from upconv.book import comparison
from upconv.book.blocks import BLOCKS, FOLDED
from upconv.book.comparison import (
    COMPARISONS,
    LEARNING_RATES,
    REFERENCE,
    chosen_learning_rates,
    equal_time_steps,
    matched_channels,
    run_setting,
    runs_of,
    settings_of,
    train_by_protocol,
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
    closeness = 0.04 if len(plain) == 2 else 0.016  # few channels leave few choices
    assert distance(channels) < closeness * parameters(task, REFERENCE, plain, tier)
    factor = max(channels) / max(plain)
    assert channels != plain
    near = {  # by brute force, the decoders of this family around it
        tuple(int(width * factor * (0.94 + number / 2000) + 0.5) for width in plain) for number in range(240)
    }
    assert len(near) > 2 and channels in near
    assert distance(channels) == min(map(distance, near))


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_decoder_with_the_parameters_of_the_reference_keeps_its_channels(task):
    same = {REFERENCE, "conv_transpose_3x3", "bilinear_conv_3x3", "bicubic_conv_3x3"}
    for upsampling in same & set(task.blocks):
        assert matched_channels(task, upsampling) == task.tiers["mini"]["channels"]


def test_matching_draws_no_weights():
    before = torch.get_rng_state()
    matched_channels(AUTOENCODER, "pixel_shuffle_icnr")
    assert torch.equal(torch.get_rng_state(), before)


def save(folder, name, rows, columns):
    pd.DataFrame(rows, columns=columns).to_csv(folder / "results" / f"{name}.csv", index=False)


BEST = {name: LEARNING_RATES[number % 4] for number, name in enumerate(BLOCKS)}
RATIO = {name: 0.5 + 0.25 * number for number, name in enumerate([*BLOCKS, FOLDED])}


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """Write tables of learning rates and times; the second task has the times x 2, the tier full those x 3.

    In the tier full, and in the second task, the best learning rate is the one after BEST's.
    """
    (tmp_path / "results").mkdir()
    monkeypatch.setenv("UPCONV_DATA", str(tmp_path))
    rates, times = [], []
    for tier in ("mini", "full"):
        for number, task in enumerate(TASKS):
            for place, name in enumerate(TASKS[task].blocks):
                shift = number + (tier == "full")
                best = LEARNING_RATES[(place + shift) % 4]
                one = {"psnr": 1, "iou": 0.075}[TASKS[task].score]  # so that what breaks the one breaks the other
                for rate in LEARNING_RATES:  # the best run, the median or one seed would choose otherwise
                    values = (20, 18.6, 20.1, 18.7) if rate == best else (20.2, 18.3, 19.4, 19.4)
                    rates += [(tier, task, name, rate, 1, s, one * (v + 10 * place)) for s, v in enumerate(values)]
            for name in (*TASKS[task].blocks, FOLDED):
                scale = (1 + number) * (3 if tier == "full" else 1)
                spread = 1, 1.02, 50
                times += [(tier, task, name, s, RATIO[name] * scale * x, 1.0) for s, x in enumerate(spread)]
    save(tmp_path, "learning_rates", rates, ["tier", "task", "upsampling", "learning_rate", "steps", "seed", "score"])
    save(tmp_path, "step_time", times, ["tier", "task", "upsampling", "seed", "ratio", "ms"])
    return tmp_path / "results"


def free(name):
    return TASKS[name]._replace(withdrawn=())


def test_the_learning_rate_with_the_best_mean_is_chosen_for_each_block_task_and_tier(tables):
    following = {name: LEARNING_RATES[(number + 1) % 4] for number, name in enumerate(BLOCKS)}
    assert chosen_learning_rates(free("autoencoder")) == BEST
    assert chosen_learning_rates(free("super_resolution")) == following
    assert chosen_learning_rates(free("autoencoder"), "full") == following


def test_a_learning_rate_that_breaks_one_block_is_offered_to_none(tables):
    path = tables / "learning_rates.csv"
    table = pd.read_csv(path)
    first = LEARNING_RATES[0]
    broken = (table["task"] == "autoencoder") & (table["upsampling"] == "pixel_shuffle") & (table["seed"] == 2)
    broken &= (table["learning_rate"] == first) & (table["tier"] == "mini")
    best = table.loc[(table["upsampling"] == "pixel_shuffle"), "score"].max()
    for below, chosen in ((1.9, True), (2, True), (2.1, False)):
        table.loc[broken, "score"] = best - below
        table.to_csv(path, index=False)
        found = chosen_learning_rates(free("autoencoder"))
        assert (first in found.values()) == chosen
        assert all(found[name] == BEST[name] for name in BLOCKS if BEST[name] != first)
    assert first in chosen_learning_rates(free("super_resolution")).values()


def test_a_task_has_its_own_blocks_score_and_idea_of_a_broken_run(tables):
    task = TASKS["unet"]
    assert list(chosen_learning_rates(task)) == list(task.blocks)
    assert list(equal_time_steps(task)) == [*task.blocks, FOLDED]
    path = tables / "learning_rates.csv"
    table = pd.read_csv(path)
    mine = (table["task"] == "unet") & (table["upsampling"] == "pixel_shuffle") & (table["tier"] == "mini")
    before = chosen_learning_rates(task)
    gone = before["pixel_shuffle"]
    run = mine & (table["learning_rate"] == gone) & (table["seed"] == 0)
    best = table.loc[mine, "score"].max()
    for below, chosen in ((task.broken - 0.001, True), (task.broken + 0.001, False)):
        table.loc[run, "score"] = best - below
        table.to_csv(path, index=False)
        assert (gone in set(chosen_learning_rates(task._replace(blocks=task.blocks)).values())) == chosen
    with pytest.raises(ValueError, match="not every block"):
        chosen_learning_rates(task._replace(blocks=task.blocks[:-1]))


def test_a_learning_rate_that_was_withdrawn_is_offered_to_none_in_its_tier(tables):
    task = free("super_resolution")._replace(withdrawn=(("mini", LEARNING_RATES[0]), ("full", LEARNING_RATES[1])))
    for tier, gone in (("mini", LEARNING_RATES[0]), ("full", LEARNING_RATES[1])):
        found = set(chosen_learning_rates(task, tier).values())
        assert found == set(LEARNING_RATES) - {gone}
    with pytest.raises(ValueError, match="every learning rate broke a block of the task 'super_resolution'"):
        chosen_learning_rates(task._replace(withdrawn=tuple(("mini", rate) for rate in LEARNING_RATES)))


@pytest.mark.parametrize("name, call", [("learning_rates", chosen_learning_rates), ("step_time", equal_time_steps)])
def test_an_incomplete_table_is_refused(tables, name, call):
    path = tables / f"{name}.csv"
    table = pd.read_csv(path)
    mine = table.index[(table["task"] == "autoencoder") & (table["tier"] == "mini")]
    measure = "score" if name == "learning_rates" else "ratio"
    wrong = [
        table.drop(mine[5]),
        table.drop(mine[table.loc[mine, "upsampling"] == "pixel_shuffle"]),
        table.drop(mine),
        table.assign(**{measure: table[measure].where(table.index != mine[7])}),
        table.assign(**{measure: table[measure].where(table.index != mine[7], np.inf)}),
    ]
    if name == "learning_rates":
        wrong.append(table.assign(steps=table["steps"].where(table.index != mine[7], 2)))
    call(AUTOENCODER)
    for other in wrong:
        other.to_csv(path, index=False)
        with pytest.raises(ValueError, match=rf"{name}.csv has not every block .* run `python -m tools.sweeps {name}`"):
            call(AUTOENCODER)


@pytest.mark.parametrize("tier, scale", [("mini", 1), ("full", 3)])
def test_the_slower_block_gets_fewer_steps(tables, tier, scale):
    steps = equal_time_steps(AUTOENCODER, tier)
    number = AUTOENCODER.tiers[tier]["steps"]
    for name in (*BLOCKS, FOLDED):
        if name == REFERENCE:
            assert steps[name] == number
        else:  # the median of the times, whatever the worst of them is
            assert steps[name] == pytest.approx(number / (1.02 * scale * RATIO[name]), abs=5.1)
            assert steps[name] % 10 == 0 and type(steps[name]) is int


@pytest.mark.parametrize("tier", ["mini", "full"])
@pytest.mark.parametrize("task", [free(name) for name in TASKS], ids=TASKS)
def test_every_block_is_in_each_of_the_first_three_comparisons_once(task, tier, tables, monkeypatch):
    matched = cache(lambda *given: matched_channels(task, *given))  # slow, and asked for again and again
    monkeypatch.setattr(comparison, "matched_channels", lambda task, *given: matched(*given))
    settings = settings_of(task, tier, COMPARISONS[:3])
    for comparison_name in COMPARISONS[:3]:
        mine = [setting for setting in settings if comparison_name in setting["comparisons"].split()]
        assert [setting["upsampling"] for setting in mine] == list(task.blocks)
        assert settings_of(task, tier, (comparison_name,)) == [
            setting | {"comparisons": comparison_name} for setting in mine
        ]
    steps, rates = equal_time_steps(task, tier), chosen_learning_rates(task, tier)
    plain = task.tiers[tier]
    for setting in settings:
        names, block = setting["comparisons"].split(), setting["upsampling"]
        channels = tuple(map(int, setting["channels"].split()))
        assert setting["learning_rate"] == rates[block] and setting["batch_size"] == plain["batch_size"]
        if "time" in names:
            assert (channels, setting["steps"]) == (plain["channels"], steps[block])
        if "channels" in names:
            assert (channels, setting["steps"]) == (plain["channels"], plain["steps"])
        if "parameters" in names:
            assert (channels, setting["steps"]) == (matched(block, tier), plain["steps"])
    [reference] = [setting for setting in settings if setting["upsampling"] == REFERENCE]
    assert reference["comparisons"] == "channels parameters time"


def test_another_name_of_a_comparison_is_refused(tables):
    for wrong in (("chanels",), "channels"):
        with pytest.raises(ValueError, match="must be a tuple of channels, parameters, time"):
            settings_of(AUTOENCODER, "mini", wrong)


def test_of_comparison_takes_the_runs_that_serve_it():
    table = pd.DataFrame({"comparisons": ["channels parameters", "time", "channels", "timeless"], "seed": [0, 1, 2, 3]})
    assert runs_of(table, "channels")["seed"].tolist() == [0, 2]
    assert runs_of(table, "parameters")["seed"].tolist() == [0]
    assert runs_of(table, "time")["seed"].tolist() == [1]
    with pytest.raises(ValueError, match=r"comparison='chan' must be one of .*channels.*parameters.*time"):
        runs_of(table, "chan")


def test_fit_warms_up_cools_down_and_lays_the_weights_out(monkeypatch):
    images, found = torch.rand(20, 1, 6, 6), {}
    for name in ("train_by_protocol", "train"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 1, 3, padding=1))
        common = dict(steps=150, batch_size=4, learning_rate=0.01, seed=3, progress=False)
        if name == "train_by_protocol":
            losses = train_by_protocol(model, images, images, **common)
            assert model[1].weight.is_contiguous(memory_format=torch.channels_last)
        else:
            losses = train(model, images, images, warmup=100, decay=True, **common)
        found[name] = losses
    assert found["train_by_protocol"] == pytest.approx(found["train"], rel=1e-3)


@pytest.fixture
def recorded():
    """Give a small task that keeps what it was asked for."""
    asked = {"build": [], "data": []}

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.decoder = nn.Conv2d(1, 1, 1)

        def forward(self, images):
            return self.decoder(images)

    def build(*arguments):
        asked["build"].append(arguments)
        return Network()

    def data(split, tier):
        asked["data"].append((split, tier))
        images = torch.rand(30 if split == "train" else 10, 1, 28, 28, generator=torch.Generator().manual_seed(1))
        return images, images / 2 if split == "train" else images / 3

    small = torch.zeros(1, 1, 28, 28)
    task = AUTOENCODER._replace(build=build, data=data, decoder=lambda model: (model.decoder, small))
    return task, asked


SETTING = dict(comparisons="time", upsampling="x", channels="1 2", batch_size=5, learning_rate=0.01)


def test_a_run_is_measured_at_the_start_early_and_late(recorded):
    task, _ = recorded
    found = run_setting(task, **SETTING, steps=30, seed=2)
    assert {name.rpartition("_")[2] for name in found} == {"parameters", "macs", "0", "20", "end", "training"}
    assert (found["parameters"], found["macs"]) == (2, 784)
    assert found["mse_end"] < found["mse_20"] < found["mse_0"]
    again = run_setting(task, **SETTING, steps=30, seed=2)
    other = run_setting(task, **SETTING, steps=30, seed=3)
    assert found == again and other["psnr_0"] != found["psnr_0"]
    longer = run_setting(task, **SETTING, steps=201, seed=2)
    assert "psnr_200" in longer and longer["psnr_20"] != found["psnr_20"]  # the learning rate falls more slowly
    exactly = run_setting(task, **SETTING, steps=200, seed=2)
    assert exactly["psnr_200"] == exactly["psnr_end"] and set(exactly) == set(longer)


def test_a_run_trains_what_its_setting_says(recorded, monkeypatch):
    task, asked = recorded
    used, train_images = {}, task.data("train", "full")

    def train_by_protocol(model, images, targets, *, callback, **options):
        used.update(options, images=images, targets=targets)
        callback(0)
        callback(options["steps"])
        model.decoder.weight.data.fill_(0.5)
        model.decoder.bias.data.zero_()

    monkeypatch.setattr(comparison, "train_by_protocol", train_by_protocol)
    for setting in (SETTING, dict(SETTING, upsampling="y", channels="3 4", batch_size=7, learning_rate=0.02)):
        asked["build"].clear(), asked["data"].clear()
        found = run_setting(task, **setting, steps=7, seed=5, tier="full", device="meta")
        channels = tuple(int(number) for number in setting["channels"].split())
        assert set(asked["build"]) == {(setting["upsampling"], channels, "full")}
        assert {tier for _, tier in asked["data"]} == {"full"}
        assert torch.equal(used.pop("images"), train_images[0]) and torch.equal(used.pop("targets"), train_images[1])
        asked_of_fit = {name: setting[name] for name in ("batch_size", "learning_rate")}
        assert used == dict(asked_of_fit, steps=7, seed=5, device="meta", progress=False)
        assert found["psnr_training"] == np.inf  # x / 2 is what the training images should become


def test_the_last_number_is_the_tasks_score_on_as_many_training_images(recorded):
    seen, measures = [], {"psnr": 0.5, "iou": 0.25, "accuracy": 0.75}
    task = recorded[0]._replace(score="iou", measures=lambda made, wanted: seen.append(wanted) or measures)
    found = run_setting(task, **SETTING, steps=1, seed=2)
    assert {name: value for name, value in found.items() if name.endswith("_training")} == {"iou_training": 0.25}
    assert torch.equal(seen[-1], task.data("train", "mini")[1][:10])
