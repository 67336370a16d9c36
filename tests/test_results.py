"""upconv.book.results: paired statistics, against numbers worked out by hand and against simulation."""

import numpy as np
import pandas as pd
import pytest

from upconv.book.data import DataError
from upconv.book.results import by_seed, paired_bootstrap, read_results, summary


def runs(**values):
    """A table with a column `upsampling` and, for each, the values of its seeds."""
    rows = [(name, seed, value) for name, column in values.items() for seed, value in enumerate(column)]
    return pd.DataFrame(rows, columns=["upsampling", "seed", "psnr"])


def test_runs_are_compared_within_their_seed():
    table = runs(a=[10.0, 20.0, 30.0, 40.0], b=[9.0, 19.5, 28.0, 39.0]).sample(frac=1, random_state=0)
    found = paired_bootstrap(table, "psnr", "a", "b", by="upsampling")
    differences = np.array([1.0, 0.5, 2.0, 1.0])
    assert found.mean == pytest.approx(differences.mean())
    assert found.std == pytest.approx(differences.std(ddof=1))
    assert differences.min() <= found.low < found.mean < found.high <= differences.max()
    assert (found.n, found.verdict) == (4, "more")
    backwards = paired_bootstrap(table, "psnr", "b", "a", by="upsampling")
    assert (backwards.mean, backwards.verdict) == (-found.mean, "less")
    assert str(found).startswith("+1.12 ± 0.63 (95%: ") and str(found).endswith(", 4 seeds): more")


def test_an_interval_with_0_in_it_is_no_difference():
    assert (
        paired_bootstrap(runs(a=[1, 2, 3], b=[2, 1, 3]), "psnr", "a", "b", by="upsampling").verdict == "no difference"
    )
    same = paired_bootstrap(runs(a=[1, 2, 3], b=[1, 2, 3]), "psnr", "a", "b", by="upsampling")
    assert (same.low, same.high, same.verdict) == (0, 0, "no difference")
    constant = paired_bootstrap(runs(a=[2, 3, 4], b=[1, 2, 3]), "psnr", "a", "b", by="upsampling")
    assert (constant.low, constant.high, constant.verdict) == (1, 1, "more")


def test_the_same_table_gives_the_same_interval():
    values = np.random.default_rng(1).exponential(size=10)  # many different resampled means
    table = runs(a=values, b=np.zeros(10))
    found = paired_bootstrap(table, "psnr", "a", "b", by="upsampling")
    assert found == paired_bootstrap(table, "psnr", "a", "b", by="upsampling")
    means = np.random.default_rng(2).choice(values, (20_000, 10)).mean(1)  # the percentiles, by hand
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(means, (2.5, 97.5))), rel=0.02)
    assert str(found).index(f"{found.low:+.3g}") < str(found).index(f"{found.high:+.3g}")


def test_whole_numbers_are_subtracted_without_wrapping():
    table = runs(a=np.array([1, 2], dtype=np.uint8), b=np.array([3, 5], dtype=np.uint8))
    assert paired_bootstrap(table, "psnr", "a", "b", by="upsampling").mean == -2.5


def test_the_interval_covers_what_the_docstring_says():
    generator = np.random.default_rng(0)
    for n, said in ((2, 0.5), (5, 0.84), (10, 0.91)):
        covered = []
        for _ in range(300):
            table = runs(a=generator.standard_normal(n) + 3, b=np.zeros(n))
            found = paired_bootstrap(table, "psnr", "a", "b", by="upsampling")
            covered.append(found.low <= 3 <= found.high)
        assert np.mean(covered) == pytest.approx(said, abs=0.06)
        assert ("half of the cases" if n == 2 else f"{100 * said:.0f}") in paired_bootstrap.__doc__


def test_pairs_come_in_the_order_of_the_seeds():
    table = runs(a=[1.0, 2.0, 3.0], b=[4.0, 5.0, 6.0]).sample(frac=1, random_state=3)
    one, other = by_seed(table, "psnr", "a", "b", by="upsampling")
    assert one.tolist() == [1, 2, 3] and other.tolist() == [4, 5, 6]


def test_what_cannot_be_compared_is_refused():
    table = runs(a=[1.0, 2.0], b=[1.0, 2.0], c=[1.0, 2.0, 3.0], d=[1.0], e=[1.0, np.nan], f=[1.0, np.inf])
    for other, message in (
        ("z", "upsampling='z' is not in the table; it has a, b, c, d, e, f"),
        ("c", "'a' has the seeds 0, 1 and 'c' 0, 1, 2"),
        ("d", "needs the same seeds, at least 2"),
        ("e", "psnr has values that are missing"),
        ("f", "psnr has values that are missing or not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            paired_bootstrap(table, "psnr", "a", other, by="upsampling")
    with pytest.raises(ValueError, match="at least 2"):
        paired_bootstrap(runs(a=[1.0], b=[1.0]), "psnr", "a", "b", by="upsampling")
    with pytest.raises(ValueError, match="has a seed twice"):
        paired_bootstrap(pd.concat([table, table]), "psnr", "a", "b", by="upsampling")


def test_a_summary_keeps_the_order_of_the_table():
    found = summary(runs(z=[1.0, 2.0], a=[3.0, 7.0]), ["psnr"], by="upsampling")
    assert list(found.index) == ["z", "a"]
    assert found["psnr", "mean"].tolist() == [1.5, 5.0]
    assert found["psnr", "std"].tolist() == pytest.approx([0.5**0.5, 8**0.5])


def test_results_are_read_by_tier_and_checked(tmp_path, monkeypatch):
    monkeypatch.setenv("UPCONV_DATA", str(tmp_path))
    (tmp_path / "results").mkdir()
    path = tmp_path / "results" / "toy.csv"
    path.write_text("tier,name,seed,psnr,date\nmini,a,1,2.5,d\nfull,a,0,9,d\nmini,a,0,1.5,d\n")
    table = read_results("toy")
    assert table[["name", "seed", "psnr"]].to_numpy().tolist() == [["a", 0, 1.5], ["a", 1, 2.5]]
    assert read_results("toy", tier="full")["psnr"].tolist() == [9]
    path.write_text("tier,name,seed,psnr,date\nmini,a,1,2.5,d\nmini,a,1,2.5,d\n")
    with pytest.raises(ValueError, match=r"toy\.csv has a run twice: .*'seed': 1"):
        read_results("toy")
    with pytest.raises(ValueError, match="no runs of tier='full', only of mini"):
        read_results("toy", tier="full")
    with pytest.raises(DataError, match=r"results/nothing\.csv: not found"):
        read_results("nothing")
