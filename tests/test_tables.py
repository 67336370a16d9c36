"""upconv.book.tables: the blocks' short names, and how differences are printed."""

import pandas as pd
import pytest

from upconv.book.blocks import BLOCKS
from upconv.book.comparison import COMPARISONS, REFERENCE, SIGNS, compare_with_reference
from upconv.book.results import paired_bootstrap
from upconv.book.tables import SHORT, comparison_table, print_against, print_difference, signed


def runs(by="upsampling", **columns):
    """A table with a row for each setting and seed; `psnr_end` and `ssim_end` are as given, and half of that."""
    rows = [(name, seed, value, value / 2) for name, values in columns.items() for seed, value in enumerate(values)]
    table = pd.DataFrame(rows, columns=[by, "seed", "psnr_end", "ssim_end"])
    return table.assign(parameters=1234, macs=56_000, steps=100)


TABLE = runs(
    nearest_conv_3x3=[20.0, 21.0, 22.0], pixel_shuffle=[21.0, 22.1, 23.0], bilinear_conv_3x3=[19.0, 21.5, 22.0]
)


def test_every_block_has_a_short_name_of_its_own():
    assert list(SHORT) == list(BLOCKS)
    assert len(set(SHORT.values())) == len(BLOCKS) and not any("_" in text for text in SHORT.values())
    assert SHORT["conv_transpose_4x4_bilinear_init"] == "transposed 4x4, bilinear init"
    assert SHORT["pixel_shuffle_icnr"] == "pixel shuffle, ICNR"
    assert SHORT[REFERENCE] == "nearest + conv 3x3"


def test_a_difference_has_the_sign_of_its_verdict():
    rows = compare_with_reference(TABLE, "psnr_end")
    assert set(rows["verdict"]) <= set(SIGNS)
    for _, row in rows.iterrows():
        mean, sign, half, verdict = signed(row).split()
        assert sign == "±" and float(mean) == pytest.approx(row["mean"], abs=0.005)
        assert float(half) == pytest.approx((row["high"] - row["low"]) / 2, abs=0.005)
        assert SIGNS[row["verdict"]] == verdict


def test_against_prints_a_line_and_gives_what_is_in_it(capsys):
    found = print_against("one skip", TABLE, ["psnr_end", "ssim_end"], "pixel_shuffle")
    for measure, row in found.items():
        pd.testing.assert_series_equal(row, compare_with_reference(TABLE, measure).loc["pixel_shuffle"])
    texts = [f"{signed(row, '.1f'):14}" for row in found.values()]
    assert list(found) == ["psnr_end", "ssim_end"]
    assert capsys.readouterr().out == f"  {'one skip':21}{texts[0]}{texts[1].rstrip()}\n"


def test_against_another_reference_and_column(capsys):
    of_skips = runs(by="skips", two=[20.0, 21.0, 22.0], one=[10.0, 11.5, 12.0])
    (row,) = print_against(
        "one, not two", of_skips, ["psnr_end"], "one", reference="two", by="skips", width=15
    ).values()
    assert row["verdict"] == "less"
    assert capsys.readouterr().out.startswith("  one, not two   -9.8 ± ")


def test_print_difference_is_compare_with_a_title(capsys):
    found = print_difference("a title", TABLE, "psnr_end", "pixel_shuffle", REFERENCE)
    assert found == paired_bootstrap(TABLE, "psnr_end", "pixel_shuffle", REFERENCE, by="upsampling")
    assert capsys.readouterr().out == f"a title\n    {found}\n"
    with pytest.raises(ValueError, match="'pixel' is not in the table"):
        print_difference("a title", TABLE, "psnr_end", "pixel", REFERENCE)


@pytest.mark.parametrize("kind", COMPARISONS)
def test_show_names_the_comparison_the_blocks_and_the_base_lines(kind):
    measures = {"psnr_end": ("PSNR, dB", ".2f")}
    shown = comparison_table(dict.fromkeys(COMPARISONS, TABLE), kind, measures, {"PCA": {"psnr_end": 20.5}})
    assert shown.columns.name == f"equal {kind}"
    assert list(shown.index) == ["nearest + conv 3x3", "pixel shuffle", "bilinear + conv 3x3", "PCA"]
    cells = shown["PSNR, dB"].str.replace("\N{NO-BREAK SPACE}", " ")
    assert list(cells[["pixel shuffle", "PCA"]]) == ["22.03 ± 1.00 +", "20.50"]


def test_show_judges_nothing_below_the_floor():
    measures = {"psnr_end": ("PSNR, dB", ".2f")}
    lines = {"PCA": {"psnr_end": 20.9}}
    shown = comparison_table({"time": TABLE}, "time", measures, lines, floor=("psnr_end", "PCA"))["PSNR, dB"]
    assert shown["pixel shuffle"].endswith("+") and shown["bilinear + conv 3x3"][-1] not in SIGNS.values()
