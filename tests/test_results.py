"""upconv.book.results: tables are read whole, and settings are paired by their seeds."""

import numpy as np
import pandas as pd
import pytest

from upconv.book.blocks import FOLDED
from upconv.book.data import DataError
from upconv.book.results import by_seed, read_results, summary, values_of


def runs(**values):
    """A table with a column `upsampling` and, for each, the values of its seeds."""
    rows = [(name, seed, value) for name, column in values.items() for seed, value in enumerate(column)]
    return pd.DataFrame(rows, columns=["upsampling", "seed", "psnr"])


def test_whole_numbers_become_fractions():
    table = runs(a=np.array([1, 2], dtype=np.uint8), b=np.array([3, 5], dtype=np.uint8))
    one, other = by_seed(table, "psnr", "a", "b", by="upsampling")
    assert (one - other).tolist() == [-2, -3]


def test_pairs_come_in_the_order_of_the_seeds():
    table = runs(a=[1.0, 2.0, 3.0], b=[4.0, 5.0, 6.0]).sample(frac=1, random_state=3)
    one, other = by_seed(table, "psnr", "a", "b", by="upsampling")
    assert one.tolist() == [1, 2, 3] and other.tolist() == [4, 5, 6]
    assert values_of(table, "psnr", "b", by="upsampling").to_dict() == {0: 4, 1: 5, 2: 6}


def test_further_seeds_of_one_setting_are_left_out():
    table = runs(a=[1.0, 2.0, 3.0], b=[4.0, 5.0])
    for names in ("ab", "ba"):
        found = dict(zip(names, by_seed(table, "psnr", *names, by="upsampling"), strict=True))
        assert found["a"].tolist() == [1, 2] and found["b"].tolist() == [4, 5]
    for gone in (0, 1):  # then the seeds of neither come first
        with pytest.raises(ValueError, match="a comparison needs the same seeds"):
            by_seed(table[(table["upsampling"] != "b") | (table["seed"] != gone)], "psnr", "a", "b", by="upsampling")


def test_other_columns_can_pair_the_runs_and_tell_the_settings_apart():
    table = pd.DataFrame({"look": ["old", "new"] * 2, "draw": [7, 7, 3, 3], "seed": 0, "psnr": [1.0, 2.0, 3.0, 5.0]})
    one, other = by_seed(table, "psnr", "new", "old", by="look", seed="draw")
    assert one.tolist() == [5, 2] and other.tolist() == [3, 1]


def test_what_cannot_be_compared_is_refused():
    table = runs(a=[1.0, 2.0], b=[1.0, 2.0], c=[1.0, 2.0, 3.0], d=[1.0], e=[1.0, np.nan], f=[1.0, np.inf])
    table = table[(table["upsampling"] != "c") | (table["seed"] != 1)]
    for other, message in (
        ("z", "upsampling='z' is not in the table; it has a, b, c, d, e, f"),
        ("c", "'a' has the seeds 0, 1 and 'c' 0, 2"),
        ("d", "needs the same seeds, at least 2"),
        ("e", "psnr has values that are missing"),
        ("f", "psnr has values that are missing or not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            by_seed(table, "psnr", "a", other, by="upsampling")
    with pytest.raises(ValueError, match="at least 2"):
        by_seed(runs(a=[1.0], b=[1.0]), "psnr", "a", "b", by="upsampling")
    with pytest.raises(ValueError, match="upsampling='a' has a seed twice"):
        by_seed(pd.concat([table, table]), "psnr", "a", "b", by="upsampling")


def test_a_summary_keeps_the_order_of_the_table():
    found = summary(runs(z=[1.0, 2.0], a=[3.0, 7.0]), ["psnr"], by="upsampling")
    assert list(found.index) == ["z", "a"]
    assert found["psnr", "mean"].tolist() == [1.5, 5.0]
    assert found["psnr", "std"].tolist() == pytest.approx([0.5**0.5, 8**0.5])


def test_of_a_seed_the_blocks_come_in_their_order_and_others_after_them(tmp_path, monkeypatch):
    monkeypatch.setenv("UPCONV_DATA", str(tmp_path))
    (tmp_path / "results").mkdir()
    names = [FOLDED, "pixel_shuffle", "nearest_conv_3x3", "conv_transpose_4x4"]
    rows = [f"mini,{kind},{name},{seed},1" for kind in "ba" for name in names for seed in (1, 0)]
    (tmp_path / "results" / "toy.csv").write_text("\n".join(["tier,kind,upsampling,seed,psnr", *rows]) + "\n")
    table = read_results("toy")
    assert table["seed"].tolist() == [0] * 8 + [1] * 8
    assert table["upsampling"].tolist() == [name for name in reversed(names) for _ in "ba"] * 2
    assert table["kind"].tolist() == ["b", "a"] * 8  # else as they stand in the file


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
