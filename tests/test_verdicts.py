"""upconv.book.verdicts: each test against SciPy's own or another formula, and its promises against simulation."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from upconv.book.comparison import REFERENCE
from upconv.book.tasks import TASKS
from upconv.book.verdicts import (
    MARGINS,
    Difference,
    compare,
    compare_with_reference,
    compare_with_value,
    detectable,
    family,
)

COLUMNS = ["mean", "std", "low", "high", "n", "p", "q", "equivalence_p", "detectable", "verdict"]


def runs(measure="psnr", **values):
    """A table with a column `upsampling` and, for each, the values of its seeds."""
    rows = [(name, seed, value) for name, column in values.items() for seed, value in enumerate(column)]
    return pd.DataFrame(rows, columns=["upsampling", "seed", measure])


def of_differences(differences, measure="psnr", **options):
    """Compare two settings that differ by this much, seed by seed; beside the differences the rest is small."""
    differences = np.asarray(differences, float)
    return compare(runs(measure, a=differences, b=0 * differences), measure, "a", "b", by="upsampling", **options)


def with_t(t, n=5):
    """Give differences whose Student's t is this."""
    base = np.arange(n) - (n - 1) / 2
    return base + t * base.std(ddof=1) / n**0.5


def test_pairs_are_judged_by_students_t():
    generator = np.random.default_rng(0)
    one, other = generator.normal(20, 2, 6), generator.normal(21, 2, 6)
    table = runs(a=one, b=other).sample(frac=1, random_state=1)
    found = compare(table, "psnr", "a", "b", by="upsampling", margin=0.7)
    expected = stats.ttest_rel(one, other)
    low, high = expected.confidence_interval(0.95)
    assert found[:4] == pytest.approx(((one - other).mean(), (one - other).std(ddof=1), low, high))
    assert (found.n, found.p) == (6, pytest.approx(expected.pvalue))
    both = (
        stats.ttest_1samp(one - other, -0.7, alternative="greater").pvalue,
        stats.ttest_1samp(one - other, 0.7, alternative="less").pvalue,
    )
    assert found.equivalence_p == pytest.approx(max(both)) and max(both) != pytest.approx(min(both))
    backwards = compare(table, "psnr", "b", "a", by="upsampling", margin=0.7)
    assert backwards.mean == -found.mean and (backwards.low, backwards.high) == (-found.high, -found.low)
    assert backwards[5:8] == pytest.approx(found[5:8])


def test_what_is_no_pair_is_judged_by_welchs_t():
    generator = np.random.default_rng(1)
    one, other = generator.normal(20, 3, 7), generator.normal(21, 0.5, 4)
    table = runs(a=one, b=other)
    found = compare(table, "psnr", "a", "b", by="upsampling", paired=False, margin=2.0)
    expected = stats.ttest_ind(one, other, equal_var=False)
    low, high = expected.confidence_interval(0.95)
    assert (found.mean, found.low, found.high) == pytest.approx((one.mean() - other.mean(), low, high))
    assert (found.n, found.p) == (4, pytest.approx(expected.pvalue))
    both = (
        stats.ttest_ind(one + 2, other, equal_var=False, alternative="greater").pvalue,
        stats.ttest_ind(one - 2, other, equal_var=False, alternative="less").pvalue,
    )
    assert found.equivalence_p == pytest.approx(max(both))
    assert found.detectable == pytest.approx(detectable(found.mean / expected.statistic, expected.df))
    assert found.std == pytest.approx(math.hypot(one.std(ddof=1), other.std(ddof=1)))
    pairs = runs(a=one[:4] + 5 * np.arange(4), b=other + 5 * np.arange(4))  # whose pairing would tell
    paired, unpaired = (compare(pairs, "psnr", "a", "b", by="upsampling", paired=some) for some in (True, False))
    assert unpaired.std > 2 * paired.std and unpaired.mean == pytest.approx(paired.mean)


def test_pairs_are_of_the_seeds_that_both_settings_have():
    table = runs(a=[1.0, 2.0, 3.0, 9.0], b=[0.5, 1.0, 2.9], c=[0.0, 0.0, 0.0, 0.0, 0.0])
    found = compare_with_reference(table, "psnr", "a")
    assert found["n"].to_dict() == {"b": 3, "c": 4}
    assert found["mean"].tolist() == pytest.approx([-1.6 / 3, -3.75])
    assert compare(table, "psnr", "b", "a", by="upsampling", paired=False).mean == pytest.approx(4.4 / 3 - 3.75)


def test_other_seeds_are_no_pairs():
    table = runs(a=[1.0, 2.0, 3.0], b=[1.0, 2.0, 4.0])
    table.loc[table["upsampling"] == "b", "seed"] += 10
    with pytest.raises(ValueError, match="'a' has the seeds 0, 1, 2 and 'b' 10, 11, 12: a comparison needs the same"):
        compare(table, "psnr", "a", "b", by="upsampling")
    assert compare(table, "psnr", "a", "b", by="upsampling", paired=False).mean == pytest.approx(-1 / 3)


@pytest.mark.parametrize("paired", [True, False])
def test_the_verdict_follows_the_sign_and_the_five_percent(paired):
    options = dict(margin=math.nan, paired=paired)
    assert of_differences([1.0, 2.0, 1.5], **options).verdict == "more"
    assert of_differences([-1.0, -2.0, -1.5], **options).verdict == "less"
    assert of_differences([-1.0, 2.0, 0.5], **options).verdict == "undecided"
    for p, verdict in ((0.049, "more"), (0.051, "undecided"), (0.09, "undecided")):
        found = of_differences(with_t(stats.t.isf(p / 2, 4)), **options)
        if paired:
            assert (found.p, found.verdict) == (pytest.approx(p), verdict)


def test_equivalent_is_what_two_one_sided_tests_show_and_wins():
    spread = np.array([-0.02, -0.01, 0.0, 0.01, 0.02])
    critical = stats.t.isf(0.05, 4) * spread.std(ddof=1) / 5**0.5
    for mean, verdict in (
        (0.0, "equivalent"),
        (0.1 - 1.01 * critical, "equivalent"),  # though surely not 0
        (0.1 - 0.99 * critical, "more"),
        (-0.1 + 1.01 * critical, "equivalent"),
        (-0.1 + 0.99 * critical, "less"),
    ):
        found = of_differences(mean + spread)
        assert found.verdict == verdict
        assert (found.p < 0.05) == (mean != 0) and (found.equivalence_p < 0.05) == (verdict == "equivalent")
        low, high = stats.ttest_1samp(mean + spread, 0).confidence_interval(0.9)  # the same, by an interval
        assert (low > -0.1 and high < 0.1) == (verdict == "equivalent")
    assert of_differences(100 * spread).verdict == "undecided"


def test_the_margin_is_the_measures_own_whatever_the_look():
    assert MARGINS["psnr"] == 0.1 and MARGINS["ssim"] == 0.005
    assert {MARGINS[name] for name in MARGINS.keys() - {"psnr", "ssim"}} == {0.01}
    for task in TASKS.values():
        assert task.primary in MARGINS
    for measure, margin in MARGINS.items():
        spread = np.array([-0.1, 0.0, 0.1]) * margin
        for look in ("", "_end", "_200", "_training"):
            assert of_differences(0.8 * margin + spread, measure + look).verdict == "equivalent"
            assert of_differences(1.2 * margin + spread, measure + look).verdict == "more"
    for measure in ("share_end", "mse", "psnr_of_mean_end", "value", "notpsnr"):
        found = of_differences([-1e-9, 0.0, 1e-9], measure)
        assert found.verdict == "undecided" and math.isnan(found.equivalence_p)
    assert of_differences([-0.1, 0.0, 0.1], "share", margin=1.0).verdict == "equivalent"
    assert of_differences([-1e-3, 0.0, 1e-3], "psnr", margin=math.nan).verdict == "undecided"
    for wrong in (0, -0.1):
        with pytest.raises(ValueError, match=f"margin={wrong} must be above 0"):
            of_differences([1.0, 2.0], margin=wrong)


@pytest.mark.parametrize("task, primary, paired", [
    ("autoencoder", "psnr", True), ("super_resolution", "psnr", True), ("unet", "foreground_boundary_iou", False)
])  # fmt: skip
def test_a_task_says_what_is_judged_and_how(task, primary, paired):
    assert (TASKS[task].primary, TASKS[task].paired) == (primary, paired)


@pytest.mark.parametrize("paired", [True, False])
def test_equal_runs_and_rounding_are_no_difference(paired):
    for start in (1.0, 1e-3):
        values = start * np.array([1.0, 1.0, 1.0] if not paired else [1.0, 2.0, 3.0])
        for other in (values, values * (1 + np.array([2e-15, 3e-12, 5e-10]))):
            table = runs(a=values, b=other)
            found = compare(table, "psnr", "b", "a", by="upsampling", paired=paired)
            assert found == (0, 0, 0, 0, 3, 1, 0, 0, "equivalent")
            found = compare(table, "psnr", "b", "a", by="upsampling", paired=paired, margin=math.nan)
            assert (found[:6], found.verdict) == ((0, 0, 0, 0, 3, 1), "undecided")
    assert compare(runs(a=values, b=values * (1 + 1e-8)), "psnr", "b", "a", by="upsampling", paired=paired).mean > 0


@pytest.mark.parametrize("paired", [True, False])
def test_a_constant_difference_is_certain(paired):
    values = np.array([2.0, 2.0, 2.0])
    for difference, verdict in ((0.25, "more"), (-0.25, "less"), (0.0625, "equivalent")):
        found = compare(
            runs(a=values, b=values + difference), "psnr", "b", "a", by="upsampling", paired=paired, margin=0.1
        )
        assert (found.mean, found.low, found.high) == (difference,) * 3
        assert (found.p, found.detectable, found.verdict) == (0, 0, verdict)


def test_what_is_detectable_is_known_for_some_numbers_of_seeds():
    for n, expected in ((5, 1.68), (10, 1.00), (20, 0.66)):
        differences = np.random.default_rng(n).normal(0, 3, n)
        found = of_differences(differences)
        assert found.detectable / found.std == pytest.approx(expected, abs=0.005)
        assert found.detectable == pytest.approx(detectable(found.std / n**0.5, n - 1))


@pytest.mark.parametrize("n", [2, 5, 10])
def test_a_detectable_difference_is_found_four_times_in_five(n):
    generator = np.random.default_rng(0)
    differences = generator.normal(detectable(n**-0.5, n - 1), 1, (40_000, n))
    found = stats.ttest_1samp(differences, 0, axis=1)
    assert np.mean((found.pvalue < 0.05) & (found.statistic > 0)) == pytest.approx(0.8, abs=0.01)


def test_a_detectable_difference_of_samples_is_found_four_times_in_five():
    generator = np.random.default_rng(0)
    variances, sizes = np.array([1.0, 9.0]), np.array([8, 12])
    squares = variances / sizes
    df = squares.sum() ** 2 / (squares**2 / (sizes - 1)).sum()
    shift = detectable(squares.sum() ** 0.5, df)
    one, other = generator.normal(shift, 1, (20_000, 8)), generator.normal(0, 3, (20_000, 12))
    found = stats.ttest_ind(one, other, axis=1, equal_var=False)
    assert np.mean((found.pvalue < 0.05) & (found.statistic > 0)) == pytest.approx(0.8, abs=0.015)


@pytest.mark.parametrize("paired", [True, False])
def test_one_true_null_in_twenty_is_named(paired):
    generator = np.random.default_rng(0)
    named = [
        of_differences(generator.standard_normal(5), "share").verdict != "undecided"
        if paired
        else compare(
            runs("share", a=generator.standard_normal(5), b=generator.standard_normal(5)),
            "share", "a", "b", by="upsampling", paired=False,
        ).verdict != "undecided"
        for _ in range(1000)
    ]  # fmt: skip
    assert np.mean(named) == pytest.approx(0.05, abs=0.021)  # three standard errors


def test_one_difference_as_large_as_the_margin_in_twenty_is_called_equivalent():
    generator = np.random.default_rng(0)
    called = [of_differences(generator.normal(0.1, 0.02, 5)).verdict == "equivalent" for _ in range(1000)]
    assert np.mean(called) == pytest.approx(0.05, abs=0.021)


def test_a_family_with_no_difference_names_one_in_twenty_times():
    generator = np.random.default_rng(0)
    named = []
    for _ in range(200):
        values = {name: generator.standard_normal(5) for name in "abcdefg"}
        found = compare_with_reference(runs("share", **values), "share", "a")
        named.append((found["verdict"] != "undecided").any())
    assert np.mean(named) < 0.05 + 3 * (0.05 * 0.95 / 200) ** 0.5


def test_a_family_is_adjusted_by_benjamini_and_hochberg():
    generator = np.random.default_rng(0)
    values = {REFERENCE: generator.normal(20, 1, 6)}
    for number in range(5):
        values[f"b{number}"] = values[REFERENCE] + generator.normal(0.3 * number, 0.4, 6)
    table = runs(**values).sample(frac=1, random_state=1).sort_values("upsampling", kind="stable")
    found = compare_with_reference(table, "psnr")
    assert list(found.index) == [f"b{number}" for number in range(5)] and list(found.columns) == COLUMNS
    p = {name: stats.ttest_rel(values[name], values[REFERENCE]).pvalue for name in found.index}
    assert found["p"].to_dict() == pytest.approx(p)
    adjusted, smallest = {}, 1.0
    for rank, name in reversed(list(enumerate(sorted(p, key=p.get), start=1))):  # by hand
        smallest = min(smallest, p[name] * 5 / rank)
        adjusted[name] = smallest
    assert found["q"].to_dict() == pytest.approx(adjusted)
    assert found["verdict"].to_dict() == {
        name: "more" if adjusted[name] < 0.05 else "undecided" for name in found.index
    }
    assert set(found["verdict"]) == {"undecided", "more"}
    for name in found.index:
        alone = compare(table, "psnr", name, REFERENCE, by="upsampling")
        assert tuple(found.loc[name].drop(["q", "verdict"])) == alone[:-1]


def test_the_adjusted_p_decides_and_equivalence_is_not_adjusted():
    def difference(p, equivalence_p=math.nan):
        return Difference(0.1, 0.1, 0.0, 0.2, 5, p, equivalence_p, 0.2, "any")

    found = family({"a": difference(0.04), "b": difference(0.9), "c": difference(0.9, 0.04), "d": difference(0.5)})
    assert found["q"].tolist() == pytest.approx([0.16, 0.9, 0.9, 0.9])
    assert found["verdict"].tolist() == ["undecided", "undecided", "equivalent", "undecided"]
    assert family({"a": difference(0.04)})["verdict"].tolist() == ["more"]
    assert family({"a": difference(0.04), "b": difference(0.049)})["verdict"].tolist() == ["more", "more"]
    assert family({"a": difference(0.04)._replace(mean=-0.1)})["verdict"].tolist() == ["less"]
    assert family({("a", 1): difference(0.04), ("b", 2): difference(0.5)}).index.tolist() == [("a", 1), ("b", 2)]
    with pytest.raises(ValueError, match="there is no difference to judge"):
        family({})


def test_settings_are_compared_with_the_reference_in_the_order_of_the_table():
    table = runs(a=[1.0, 2.1, 3.0], b=[0.0, 1.0, 2.0], c=[2.0, 3.0, 4.1])
    found = compare_with_reference(table, "psnr", "a")
    assert found["verdict"].to_dict() == {"b": "less", "c": "more"}
    assert found["mean"].tolist() == pytest.approx([-31 / 30, 1.0])
    table = table.rename(columns={"upsampling": "network"}).assign(upsampling=["x", "y", "z"] * 3)
    found = compare_with_reference(table, "psnr", "b", by="network")
    assert found["verdict"].to_dict() == {"a": "more", "c": "more"}
    welch = compare_with_reference(table, "psnr", "b", by="network", paired=False, margin=9.0)
    alone = compare(table, "psnr", "c", "b", by="network", paired=False, margin=9.0)
    assert tuple(welch.loc["c"].drop("q")) == alone and alone.verdict == "equivalent"


def test_settings_are_compared_with_a_value():
    table = runs(a=[1.0, 2.0, 3.5, 2.0], b=[7.0, 7.1, 7.2, 7.4], c=[2.0, 2.01, 1.99, 2.0]).iloc[::-1]
    found = compare_with_value(table, "psnr", 2.0, by="upsampling")
    assert list(found.index) == ["c", "b", "a"] and list(found.columns) == COLUMNS
    for name, values in table.groupby("upsampling")["psnr"]:
        expected = stats.ttest_1samp(values, 2.0)
        assert found.loc[name, "mean"] == pytest.approx(values.mean() - 2.0)
        assert found.loc[name, "p"] == pytest.approx(expected.pvalue)
        interval = np.array(expected.confidence_interval(0.95)) - 2.0
        assert found.loc[name, ["low", "high"]].tolist() == pytest.approx(interval.tolist())
    assert found["q"].tolist() == pytest.approx(stats.false_discovery_control(found["p"]).tolist())
    assert found["verdict"].to_dict() == {"c": "equivalent", "b": "more", "a": "undecided"}
    assert compare_with_value(table, "psnr", 2.0, by="upsampling", margin=9.0)["verdict"].unique() == ["equivalent"]
    same = compare_with_value(runs("share", a=[3.0, 3.0]), "share", 3.0, by="upsampling").loc["a"]
    assert same[["mean", "low", "high", "p", "verdict"]].tolist() == [0, 0, 0, 1, "undecided"]
    with pytest.raises(ValueError, match="value=nan must be finite"):
        compare_with_value(table, "psnr", math.nan, by="upsampling")
    with pytest.raises(ValueError, match="upsampling='a' has one seed: a comparison needs at least 2"):
        compare_with_value(runs(a=[1.0]), "psnr", 2.0, by="upsampling")


@pytest.mark.parametrize("paired", [True, False])
def test_what_cannot_be_compared_is_refused(paired):
    table = runs(a=[1.0, 2.0], b=[1.0, 2.0], d=[1.0], e=[1.0, np.nan], f=[1.0, np.inf])
    for other, message in (
        ("z", "upsampling='z' is not in the table; it has a, b, d, e, f"),
        ("d", "at least 2"),
        ("e", "psnr has values that are missing or not finite"),
        ("f", "psnr has values that are missing or not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            compare(table, "psnr", "a", other, by="upsampling", paired=paired)
    with pytest.raises(ValueError, match="has a seed twice"):
        compare(pd.concat([table, table]), "psnr", "a", "b", by="upsampling", paired=paired)
    with pytest.raises(ValueError, match="the table has no other upsampling than 'a'"):
        compare_with_reference(runs(a=[1.0, 2.0]), "psnr", "a", paired=paired)
    with pytest.raises(ValueError, match="upsampling='z' is not in the table"):
        compare_with_reference(table[:4], "psnr", "z", paired=paired)


def test_other_columns_can_pair_the_runs():
    table = runs(a=[1.0, 2.0, 3.0], b=[2.0, 3.1, 4.0]).rename(columns={"seed": "draw"})
    assert compare(table, "psnr", "b", "a", by="upsampling", seed="draw").mean == pytest.approx(31 / 30)
    assert compare(table, "psnr", "b", "a", by="upsampling", seed="draw", paired=False).n == 3


def test_a_difference_reads_as_a_sentence():
    def text(mean, half, verdict, found=0.26):
        return str(Difference(mean, 0.1, mean - half, mean + half, 20, 0.5, math.nan, found, verdict))

    assert text(0.031, 0.052, "equivalent") == "+0.03 ± 0.05 (20 seeds): equivalent"
    assert text(-0.07, 0.19, "undecided") == "-0.07 ± 0.19 (20 seeds): undecided, 0.26 would have been found"
    assert text(-0.001, 0.012, "equivalent") == "+0.00 ± 0.01 (20 seeds): equivalent"
    assert text(-0.0012, 0.0048, "undecided", 0.0061) == (
        "-0.001 ± 0.005 (20 seeds): undecided, 0.006 would have been found"
    )
    assert text(-12.0, 0.0, "less") == "-12.00 ± 0.00 (20 seeds): less"
