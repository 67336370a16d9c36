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
    as_table,
    chosen_learning_rates,
    compare_with_reference,
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
RATIO = {name: 0.5 + 0.25 * number for number, name in enumerate(BLOCKS)}


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
                one = {"psnr": 1, "iou": 0.03}[TASKS[task].score]  # so that what breaks the one breaks the other
                for rate in LEARNING_RATES:  # the best or the worst run, the median or one seed would choose otherwise
                    values = (20, 18.4, 20.1, 18.5) if rate == best else (20.2, 15.8, 19.8, 19.9)
                    rates += [(tier, task, name, rate, 1, s, one * (v + 10 * place)) for s, v in enumerate(values)]
                scale = (1 + number) * (3 if tier == "full" else 1)
                spread = 1, 1.02, 50
                times += [(tier, task, name, s, RATIO[name] * scale * x, 1.0) for s, x in enumerate(spread)]
    save(tmp_path, "learning_rates", rates, ["tier", "task", "upsampling", "learning_rate", "steps", "seed", "score"])
    save(tmp_path, "step_time", times, ["tier", "task", "upsampling", "seed", "ratio", "ms"])
    return tmp_path / "results"


def free(name):
    return TASKS[name]._replace(withdrawn=())


def test_the_learning_rate_with_the_best_mean_is_chosen_for_each_block_task_and_tier(tables):
    following = dict(zip(BLOCKS, [*list(BEST.values())[1:], LEARNING_RATES[2]], strict=True))
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
    for below, chosen in ((4.9, True), (5, True), (5.1, False)):
        table.loc[broken, "score"] = best - below
        table.to_csv(path, index=False)
        found = chosen_learning_rates(free("autoencoder"))
        assert (first in found.values()) == chosen
        assert all(found[name] == BEST[name] for name in BLOCKS if BEST[name] != first)
    assert first in chosen_learning_rates(free("super_resolution")).values()


def test_a_task_has_its_own_blocks_score_and_idea_of_a_broken_run(tables):
    task = TASKS["unet"]
    assert list(chosen_learning_rates(task)) == list(equal_time_steps(task)) == list(task.blocks)
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
    for name in BLOCKS:
        if name == REFERENCE:
            assert steps[name] == number
        else:  # the median of the times, whatever the worst of them is
            assert steps[name] == pytest.approx(number / (1.02 * scale * RATIO[name]), abs=5.1)
            assert steps[name] % 10 == 0 and type(steps[name]) is int


@pytest.mark.parametrize("tier", ["mini", "full"])
@pytest.mark.parametrize("task", [free(name) for name in TASKS], ids=TASKS)
def test_every_block_is_in_every_comparison_once(task, tier, tables):
    settings = settings_of(task, tier)
    for comparison_name in COMPARISONS:
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
            assert (channels, setting["steps"]) == (matched_channels(task, block, tier), plain["steps"])
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
        assert asked["build"] == [(setting["upsampling"], channels, "full")]
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


def test_equal_runs_and_rounding_are_no_difference():
    for other in ([1.0, 2.0, 3.0], [1.0 + 2e-15, 2.0 + 4e-15, 3.0 + 6e-15]):
        found = compare_with_reference(runs(a=[1.0, 2.0, 3.0], b=other, c=[5.0, 6.1, 7.0]), "psnr", "a")
        assert found["verdict"].to_dict() == {"b": "no difference", "c": "more"}
        assert found.loc["b", ["mean", "low", "high", "p"]].tolist() == [0, 0, 0, 1]


def test_a_difference_is_named_below_five_percent_after_the_adjustment():
    def table(t):  # five differences with this Student's t
        base = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
        differences = base + t * base.std(ddof=1) / 5**0.5
        return runs(a=np.arange(5.0), b=np.arange(5.0) + differences)

    for p, verdict in ((0.049, "more"), (0.051, "no difference"), (0.09, "no difference")):
        found = compare_with_reference(table(stats.t.isf(p / 2, 4)), "psnr", "a").loc["b"]
        assert (found["p"], found["verdict"]) == (pytest.approx(p), verdict)
    both = pd.concat([table(stats.t.isf(0.04 / 2, 4)), runs(c=[0, 0.5, 2.5, 3, 4])])  # c is no different
    assert compare_with_reference(both, "psnr", "a").loc["b", "verdict"] == "no difference"


def test_other_columns_can_tell_the_settings_apart():
    table = runs(a=[1.0, 2.0, 3.0], b=[5.0, 6.1, 7.0]).rename(columns={"upsampling": "network"})
    table = table.assign(upsampling=["x", "y", "z"] * 2, parameters=1, macs=1, steps=1)
    assert compare_with_reference(table, "psnr", "b", by="network")["verdict"].to_dict() == {"a": "less"}
    found = as_table(table, {"psnr": ("PSNR", ".1f")}, reference="b", by="network").map(breakable)
    assert found["PSNR"].tolist() == ["2.0 ± 1.0 -", "6.0 ± 1.0"]


def test_nothing_to_compare_is_refused():
    with pytest.raises(ValueError, match="the table has no other upsampling than 'a'"):
        compare_with_reference(runs(a=[1.0, 2.0]), "psnr", "a")
    table = runs(a=[1.0, 2.0], b=[1.0, 2.0]).assign(parameters=1, macs=1, steps=1)
    shown = {"psnr": ("PSNR", ".1f")}
    with pytest.raises(ValueError, match="upsampling='z' is not in the table; it has a, b"):
        as_table(table, shown, reference="z")
    with pytest.raises(ValueError, match="a base line has the name of a setting: b"):
        as_table(table, shown, {"b": {"psnr": 1.0}}, reference="a")
    with pytest.raises(ValueError, match="the floor, psnr of PCA, is nan"):
        as_table(table, shown, {"PCA": {"psnr": np.nan}}, floor=("psnr", "PCA"), reference="a")


def test_unpaired_runs_are_refused():
    with pytest.raises(ValueError, match="a comparison needs the same seeds"):
        compare_with_reference(runs(a=[1.0, 2.0], b=[1.0, 2.0, 3.0]), "psnr", "a")
    with pytest.raises(ValueError, match="upsampling='z' is not in the table"):
        compare_with_reference(runs(a=[1.0, 2.0], b=[1.0, 2.0]), "psnr", "z")


def breakable(text):
    assert " " not in text and "-" not in text
    return text.replace("\N{NO-BREAK SPACE}", " ").replace("\N{MINUS SIGN}", "-")


def test_the_table_writes_negative_numbers_with_a_minus():
    table = runs(a=[-1.0, -2.0], b=[-3.0, -4.1]).assign(parameters=1, macs=1000, steps=1)
    found = as_table(table, {"psnr": ("dB", ".1f")}, {"line": {"psnr": -9.0}}, reference="a")["dB"]
    assert found["a"] == "−1.5\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}0.7" and found["line"] == "−9.0"


def test_the_table_shows_costs_means_spreads_and_signs():
    values = {REFERENCE: [20.0, 21.0, 22.0], "a": [21.0, 22.0, 23.1], "b": [19.0, 20.0, 21.1], "c": [20.0, 21.1, 21.9]}
    table = runs(**values).assign(parameters=12345, macs=6789000, steps=4000, ssim=0.5)
    table.loc[table["upsampling"] == "c", "steps"] = 50
    table.loc[table["upsampling"] == "b", "ssim"] = [0.1, 0.2, 0.3]
    measures = {"psnr": ("PSNR", ".2f"), "ssim": ("SSIM", ".1f")}
    found = as_table(table, measures, {"PCA": {"psnr": 19.0}}).map(breakable)
    assert list(found.index) == [REFERENCE, "a", "b", "c", "PCA"]
    assert list(found.columns) == ["parameters", "MACs", "steps", "PSNR", "SSIM"]
    assert found.loc["a"].tolist() == ["12,345", "6,789k", "4,000", "22.03 ± 1.05 +", "0.5 ± 0.0 ="]
    assert found.loc[REFERENCE, "PSNR"] == "21.00 ± 1.00"
    assert found.loc["b", "PSNR"] == "20.03 ± 1.05 -" and found.loc["c", "PSNR"] == "21.00 ± 0.95 ="
    assert found.loc["PCA"].tolist() == ["", "", "", "19.00", ""]
    assert found.loc["c", "steps"] == "50"
    same = as_table(table.assign(steps=7), measures, {"PCA": {"psnr": 19.0}})
    assert list(same.columns) == ["parameters", "MACs", "PSNR", "SSIM"] and not same.isna().any(axis=None)


def test_nothing_below_the_floor_is_judged():
    values = {REFERENCE: [20.0, 21.0, 22.0], "a": [21.0, 22.0, 23.1], "b": [1.0, 2.0, 3.1]}
    table = runs(**values).assign(parameters=1, macs=1000, steps=1)
    shown = {"psnr": ("PSNR", ".1f")}
    # the reference's mean is 21; exactly on the floor is not below it
    for line, expected in (
        (10.0, ["", " +", ""]),
        (21.5, ["", "", ""]),
        (0.0, ["", " +", " -"]),
        (21.0, ["", " +", ""]),
    ):
        lines = {"PCA": {"psnr": line, "steps": 1}}
        found = as_table(table, {"steps": ("n", ".0f"), **shown}, lines, floor=("psnr", "PCA"))
        texts = found["PSNR"].map(breakable).tolist()[:3]
        assert [text.partition(" ± ")[2][3:] for text in texts] == expected, line
