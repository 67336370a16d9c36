"""upconv.book.tables: the names that readers see, and how differences are laid out and printed."""

import numpy as np
import pandas as pd
import pytest

from upconv.book.blocks import BLOCKS
from upconv.book.comparison import COMPARISONS, REFERENCE
from upconv.book.tables import SHORT, TITLES, comparison_table, print_family, signed
from upconv.book.verdicts import compare_with_reference


def runs(**columns):
    """A table with a row for each setting and seed; `psnr_end` and `ssim_end` are as given, and half of that."""
    rows = [(name, seed, value, value / 2) for name, values in columns.items() for seed, value in enumerate(values)]
    table = pd.DataFrame(rows, columns=["upsampling", "seed", "psnr_end", "ssim_end"])
    return table.assign(parameters=12345, macs=6_789_000, steps=4000)


TABLE = runs(
    conv_transpose_2x2=[19.0, 20.0, 21.1],
    nearest_conv_3x3=[20.0, 21.0, 22.0],
    pixel_shuffle=[21.0, 22.0, 23.1],
    bilinear_conv_3x3=[20.01, 21.02, 22.0],
    bicubic_conv_3x3=[20.0, 21.5, 21.9],
)
MEASURES = {"ssim_end": ("SSIM", ".1f"), "psnr_end": ("PSNR, dB", ".2f")}
AGAINST = "against nearest + conv 3x3"


def shown(table=TABLE, measures=MEASURES, base_lines=None, kind="channels", **options):
    options = dict(primary="psnr_end", paired=True) | options
    return comparison_table({kind: table}, kind, measures, base_lines, **options)


def breakable(text):
    assert " " not in text and "-" not in text
    return text.replace("\N{NO-BREAK SPACE}", " ").replace("\N{MINUS SIGN}", "-")


def test_every_block_has_a_short_name_of_its_own():
    assert list(SHORT) == list(BLOCKS)
    assert len(set(SHORT.values())) == len(BLOCKS) and not any("_" in text for text in SHORT.values())
    assert SHORT["conv_transpose_4x4_bilinear_init"] == "transposed 4x4, bilinear init"
    assert SHORT["pixel_shuffle_icnr"] == "pixel shuffle, ICNR"
    assert SHORT[REFERENCE] == "nearest + conv 3x3"


def test_every_comparison_has_a_title_of_its_own():
    assert set(COMPARISONS) <= set(TITLES) and len(set(TITLES.values())) == len(TITLES)
    assert {key: TITLES[key] for key in ("channels", "time", "rates")} == {
        "channels": "equal channels", "time": "equal time", "rates": "each at its best rate"
    }  # fmt: skip


def test_a_difference_is_written_with_its_verdict_in_words():
    for name, row in compare_with_reference(TABLE, "psnr_end").iterrows():
        mean, sign, half, *verdict = signed(row).split()
        assert sign == "±" and float(mean) == pytest.approx(row["mean"], abs=0.005)
        assert float(half) == pytest.approx((row["high"] - row["low"]) / 2, abs=0.005)
        expected = {
            "conv_transpose_2x2": ["less"],
            "pixel_shuffle": ["more"],
            "bilinear_conv_3x3": ["equivalent"],
            "bicubic_conv_3x3": ["undecided", f"({row['detectable']:.2f})"],
        }
        assert verdict == expected[name]
    row = {"mean": -0.0004, "low": -0.0104, "high": 0.0096, "detectable": 0.0149, "verdict": "undecided"}
    assert signed(row, ".3f") == "+0.000 ± 0.010 undecided (0.015)"
    assert signed(row, ".1%") == "+0.0 ± 1.0 undecided (1.5)"


def test_a_family_is_printed_a_line_a_difference(capsys):
    rows = compare_with_reference(TABLE, "psnr_end").rename(index={"bicubic_conv_3x3": 7})
    print_family("equal channels, PSNR in dB", rows, ".1f")
    assert capsys.readouterr().out == (
        "equal channels, PSNR in dB\n"
        f"  transposed 2x2       {signed(rows.loc['conv_transpose_2x2'], '.1f')}\n"
        f"  pixel shuffle        {signed(rows.loc['pixel_shuffle'], '.1f')}\n"
        f"  bilinear + conv 3x3  {signed(rows.loc['bilinear_conv_3x3'], '.1f')}\n"
        f"  7                    {signed(rows.loc[7], '.1f')}\n"
    )


def test_the_table_shows_costs_means_spreads_and_verdicts():
    table = TABLE.copy()
    table.loc[table["upsampling"] == "pixel_shuffle", "steps"] = 50
    found = shown(table, base_lines={"PCA": {"psnr_end": 19.0}}).map(breakable)
    assert found.columns.name == "equal channels"
    assert list(found.index) == [*(SHORT[name] for name in TABLE["upsampling"].unique()), "PCA"]
    assert list(found.columns) == ["parameters", "MACs", "steps", "PSNR, dB", AGAINST, "SSIM"]
    assert found.loc["pixel shuffle"].tolist() == [
        "12,345", "6,789k", "50", "22.03 ± 1.05", "+1.03 ± 0.14 more", "11.0 ± 0.5"
    ]  # fmt: skip
    assert found.loc["transposed 2x2", "steps"] == "4,000"
    assert found.loc["PCA"].tolist() == ["", "", "", "19.00", "", ""]
    rows = compare_with_reference(table, "psnr_end")
    for name, row in rows.iterrows():
        assert found.loc[SHORT[name], AGAINST] == signed(row)
    assert set(rows["verdict"]) == {"less", "more", "equivalent", "undecided"}
    assert found.loc[SHORT[REFERENCE], [AGAINST, "PSNR, dB"]].tolist() == ["", "21.00 ± 1.00"]
    assert not {"steps", "seeds"} & {*shown().columns} and not shown().isna().any(axis=None)


def test_the_number_of_seeds_is_said_where_it_differs():
    few = TABLE[TABLE["upsampling"].ne("pixel_shuffle") | TABLE["seed"].ne(2)]
    found = shown(few, base_lines={"PCA": {}}).map(breakable)
    assert list(found.columns)[:4] == ["parameters", "MACs", "seeds", "PSNR, dB"]
    assert found["seeds"].tolist() == ["3", "3", "2", "3", "3", ""]
    assert found.loc["pixel shuffle", AGAINST] == signed(compare_with_reference(few, "psnr_end").loc["pixel_shuffle"])


def test_only_the_primary_measure_is_judged_and_it_comes_first():
    for primary, title in (("psnr_end", "PSNR, dB"), ("ssim_end", "SSIM")):
        found = shown(primary=primary)
        assert list(found.columns)[2:4] == [title, AGAINST]
        rows, form = compare_with_reference(TABLE, primary), MEASURES[primary][1]
        assert found[AGAINST].map(breakable).to_dict() == {
            SHORT[REFERENCE]: "", **{SHORT[name]: signed(row, form) for name, row in rows.iterrows()}
        }  # fmt: skip
    with pytest.raises(ValueError, match="primary='psnr' must be one of 'ssim_end', 'psnr_end'"):
        shown(primary="psnr")


def test_runs_that_are_no_pairs_are_judged_as_such():
    rows = compare_with_reference(TABLE, "psnr_end", paired=False)
    found = shown(paired=False)[AGAINST].map(breakable)
    assert found["pixel shuffle"] == signed(rows.loc["pixel_shuffle"])
    assert found["pixel shuffle"] != breakable(shown()[AGAINST]["pixel shuffle"])


@pytest.mark.parametrize("kind", TITLES)
def test_the_columns_are_named_after_the_comparison(kind):
    assert shown(kind=kind).columns.name == TITLES[kind]


def test_a_share_can_be_shown_in_hundredths():
    table = TABLE.assign(ssim_end=TABLE["ssim_end"] / 100)
    measures = {"ssim_end": ("SSIM, %", ".1%")}
    found = shown(table, measures, {"line": {"ssim_end": 0.123}}, primary="ssim_end").map(breakable)
    assert found.loc["pixel shuffle"].tolist()[2:] == ["11.0 ± 0.5", "+0.5 ± 0.1 more"]
    assert found.loc["line", "SSIM, %"] == "12.3"


def test_the_table_writes_negative_numbers_with_a_minus():
    table = TABLE.assign(psnr_end=-TABLE["psnr_end"])
    found = shown(table, base_lines={"line": {"psnr_end": -9.0}})
    assert found.loc["pixel shuffle", "PSNR, dB"] == "−22.03\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}1.05"
    assert found.loc["line", "PSNR, dB"] == "−9.00" and found.loc["pixel shuffle", AGAINST].startswith("−1.03")


def test_nothing_below_the_floor_is_judged():
    few = runs(nearest_conv_3x3=[20.0, 21.0, 22.0], pixel_shuffle=[21.0, 22.0, 23.1], bilinear_conv_3x3=[1.0, 2.0, 3.1])
    # the reference's mean is 21; exactly on the floor is not below it
    for line, expected in (
        (10.0, ["", "more", ""]), (21.5, ["", "", ""]), (0.0, ["", "more", "less"]), (21.0, ["", "more", ""])
    ):  # fmt: skip
        found = shown(few, base_lines={"PCA": {"psnr_end": line}}, floor=("psnr_end", "PCA"))[AGAINST][:3]
        assert [breakable(text).rpartition(" ")[2] for text in found] == expected, line


def test_nothing_is_judged_against_a_reference_below_the_floor():
    found = shown(TABLE, base_lines={"PCA": {"psnr_end": 21.005}}, floor=("psnr_end", "PCA"))
    assert set(found[AGAINST]) == {""}


def test_the_family_is_what_is_above_the_floor():
    lines = {"PCA": {"psnr_end": 20.5}}
    found = shown(base_lines=lines, floor=("psnr_end", "PCA"))[AGAINST].map(breakable)
    rows = compare_with_reference(TABLE[TABLE["upsampling"] != "conv_transpose_2x2"], "psnr_end")
    assert found["transposed 2x2"] == ""
    for name, row in rows.iterrows():
        assert found[SHORT[name]] == signed(row)


def test_a_table_that_cannot_be_judged_is_refused():
    with pytest.raises(ValueError, match="upsampling='nearest_conv_3x3' is not in the table; it has pixel_shuffle"):
        shown(TABLE[TABLE["upsampling"] == "pixel_shuffle"])
    with pytest.raises(ValueError, match="a base line has the name of a setting: pixel_shuffle"):
        shown(base_lines={"pixel_shuffle": {"psnr_end": 1.0}})
    with pytest.raises(ValueError, match="the floor, psnr_end of PCA, is nan"):
        shown(base_lines={"PCA": {"psnr_end": np.nan}}, floor=("psnr_end", "PCA"))
    with pytest.raises(ValueError, match="needs the same seeds"):
        shown(TABLE[TABLE["upsampling"].ne("pixel_shuffle") | TABLE["seed"].ne(0)])
