"""How the chapters name the blocks and lay out differences between them, so that all of their tables read alike."""

import numpy as np
import pandas as pd

from upconv.book.blocks import BLOCKS
from upconv.book.common import check_choice
from upconv.book.comparison import REFERENCE
from upconv.book.results import summary
from upconv.book.verdicts import compare_with_reference

__all__ = ["SHORT", "TITLES", "comparison_table", "print_family", "signed"]


def _short(name):
    for long, short in (
        ("conv_transpose", "transposed"),
        ("_conv", " + conv"),
        ("_bilinear_init", ", bilinear init"),
        ("_equal_gains", ", equal gains"),
        ("_icnr", ", ICNR"),
        ("_", " "),
    ):
        name = name.replace(long, short)
    return name


SHORT = {name: _short(name) for name in BLOCKS}  # what readers see instead of the blocks' names
TITLES = {  # and instead of the comparisons'
    "channels": "equal channels",
    "parameters": "equal parameters",
    "time": "equal time",
    "folded": "equal time, pair folded",
    "macs": "equal MACs",
    "rates": "each at its best rate",
}


def signed(row, form=".2f"):
    """Write one difference: the mean ± half of its 95% interval, and its verdict.

    Parameters
    ----------
    row : pandas.Series or dict
        With `mean`, `low`, `high`, `detectable` and `verdict`, as a row of `upconv.book.verdicts.family`.
    form : str
        The number format; one with % writes hundredths, without the sign.

    Returns
    -------
    str
        Behind "undecided" in brackets what would have been found, as `upconv.book.verdicts.detectable` says it.

    Examples
    --------
    >>> row = {"mean": 0.29, "low": 0.23, "high": 0.35, "detectable": 0.08, "verdict": "more"}
    >>> signed(row)
    '+0.29 ± 0.06 more'
    >>> signed({**row, "low": -0.01, "high": 0.59, "detectable": 0.4, "verdict": "undecided"}, ".1%")
    '+29.0 ± 30.0 undecided (40.0)'
    """
    half = (row["high"] - row["low"]) / 2
    found = f" ({row['detectable']:{form}})" if row["verdict"] == "undecided" else ""
    return f"{row['mean']:+z{form}} ± {half:{form}} {row['verdict']}{found}".replace("%", "")


def print_family(title, rows, form=".2f"):
    """Print a family of differences below a title, a line each.

    Parameters
    ----------
    title : str
    rows : pandas.DataFrame
        As of `upconv.book.verdicts.family`; blocks are printed with their short names.
    form : str
        As of `signed`.

    Examples
    --------
    >>> from upconv.book.verdicts import compare_with_value
    >>> psnr = {"a": [20.0, 20.01], "pixel_shuffle": [30.0, 31.0]}
    >>> runs = [(name, seed, value) for name in psnr for seed, value in enumerate(psnr[name])]
    >>> table = pd.DataFrame(runs, columns=["upsampling", "seed", "psnr"])
    >>> print_family("against 20 dB:", compare_with_value(table, "psnr", 20, by="upsampling"))
    against 20 dB:
      a              +0.01 ± 0.06 equivalent
      pixel shuffle  +10.50 ± 6.35 undecided (8.17)
    """
    print(title)
    names = [str(SHORT.get(name, name)) for name in rows.index]
    for name, (_, row) in zip(names, rows.iterrows(), strict=True):
        print(f"  {name:{max(map(len, names))}}  {signed(row, form)}")


def comparison_table(tables, kind, measures, base_lines=None, *, primary, paired, floor=None):
    """Lay out one comparison for readers: what each decoder costs, its measures, which differences stand.

    Parameters
    ----------
    tables : dict of str to pandas.DataFrame
        By the names in `TITLES`: one run for every block and seed, as of `upconv.book.comparison.runs_of`.
    kind : str
        One of these names.
    measures : dict of str to (str, str)
        For every column that is shown, its title and its number format, such as ("PSNR, dB", ".2f"); one with %
        writes hundredths, without the sign.
    base_lines : dict of str to dict, optional
        Further rows, by their names: for some of the columns a value.
    primary : str
        The measure that is shown first, with its differences to the reference and their verdicts.
    paired : bool
        As of `upconv.book.verdicts.compare`.
    floor : (str, str), optional
        A measure and a base line. Blocks with a lower mean are shown, but take part in no verdict.

    Returns
    -------
    pandas.DataFrame
        Of str, a row for each block, by its short name. Columns `parameters`, `MACs` (in thousands, for one image),
        `steps` and `seeds` (their number) where they differ, then each measure's mean ± standard deviation over the
        seeds; behind the primary one what `signed` writes of `upconv.book.verdicts.compare_with_reference`, nothing if
        the block or the reference is below the floor. No text breaks within a cell. The columns' name is the
        comparison's title.

    Raises
    ------
    ValueError
        If `primary` is none of the measures, the table lacks the reference or has the name of a base line, if the floor
        is not a number, or as `upconv.book.verdicts.compare_with_reference`.

    Examples
    --------
    >>> values = {"nearest_conv_3x3": [20.0, 21.0, 22.0], "pixel_shuffle": [21.0, 22.1, 23.0]}
    >>> runs = [(name, seed, 9, 4000, 100, value) for name in values for seed, value in enumerate(values[name])]
    >>> table = pd.DataFrame(runs, columns=["upsampling", "seed", "parameters", "macs", "steps", "psnr_end"])
    >>> shown = {"psnr_end": ("PSNR, dB", ".1f")}
    >>> found = comparison_table({"channels": table}, "channels", shown, primary="psnr_end", paired=True)
    >>> found.columns.name, list(found.columns)
    ('equal channels', ['parameters', 'MACs', 'PSNR, dB', 'against nearest + conv 3x3'])
    >>> found.loc["pixel shuffle"].str.replace(chr(160), " ").to_list()
    ['9', '4k', '22.0 ± 1.0', '+1.0 ± 0.1 more']
    """
    runs, base_lines = tables[kind], base_lines or {}
    check_choice("primary", primary, measures)
    means = runs.groupby("upsampling", sort=False).mean(numeric_only=True)
    if REFERENCE not in means.index:
        raise ValueError(f"upsampling={REFERENCE!r} is not in the table; it has {', '.join(means.index)}")
    if set(base_lines) & set(means.index):
        raise ValueError(f"a base line has the name of a setting: {', '.join(set(base_lines) & set(means.index))}")
    judged = means.index
    if floor:
        measure, line = floor
        if not np.isfinite(base_lines[line][measure]):
            raise ValueError(f"the floor, {measure} of {line}, is {base_lines[line][measure]}")
        judged = judged[means[measure] >= base_lines[line][measure]]
    found = {
        "parameters": [f"{number:,.0f}" for number in means["parameters"]],
        "MACs": [f"{number / 1000:,.0f}k" for number in means["macs"]],
        "steps": [f"{number:,.0f}" for number in means["steps"]],
        "seeds": [str(number) for number in runs.groupby("upsampling", sort=False).size()],
    }
    found = {title: texts for title, texts in found.items() if title in ("parameters", "MACs") or len(set(texts)) > 1}
    spread = summary(runs, list(measures), "upsampling")
    for measure in sorted(measures, key=lambda measure: measure != primary):
        title, form = measures[measure]
        found[title] = [f"{mean:{form}} ± {std:{form}}" for mean, std in spread[measure].to_numpy()]
        found[title] += [format(line[measure], form) if measure in line else "" for line in base_lines.values()]
        if measure == primary:
            against = {}
            if REFERENCE in judged and len(judged) > 1:
                rows = compare_with_reference(runs[runs["upsampling"].isin(judged)], primary, paired=paired)
                against = {name: signed(row, form) for name, row in rows.iterrows()}
            found[f"against {SHORT[REFERENCE]}"] = [against.get(name, "") for name in means.index]
    index = [*means.index, *base_lines]
    cells = {title: texts + [""] * (len(index) - len(texts)) for title, texts in found.items()}
    return pd.DataFrame(cells, index).map(_unbroken).rename(index=SHORT).rename_axis(columns=TITLES[kind])


def _unbroken(text):
    return text.replace("%", "").replace(" ", "\N{NO-BREAK SPACE}").replace("-", "\N{MINUS SIGN}")
