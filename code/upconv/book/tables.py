"""How the chapters name the blocks and lay out differences between them, so that all of their tables read alike."""

from upconv.book.blocks import BLOCKS
from upconv.book.comparison import REFERENCE, SIGNS, as_table, compare_with_reference
from upconv.book.results import paired_bootstrap

__all__ = ["SHORT", "comparison_table", "print_against", "print_difference", "signed"]


def _short(name):
    for long, short in (
        ("conv_transpose", "transposed"),
        ("_conv", " + conv"),
        ("_bilinear_init", ", bilinear init"),
        ("_icnr", ", ICNR"),
        ("_", " "),
    ):
        name = name.replace(long, short)
    return name


SHORT = {name: _short(name) for name in BLOCKS}  # what readers see instead of the blocks' names


def signed(row, form=".2f"):
    """Write one difference as a table has it: the mean ± half of its interval, and the verdict's sign.

    Parameters
    ----------
    row : pandas.Series or dict
        With `mean`, `high` and `verdict`, as a row of `upconv.book.comparison.compare_with_reference`.
    form : str
        The number format.

    Returns
    -------
    str

    Examples
    --------
    >>> signed({"mean": 0.29, "high": 0.35, "verdict": "more"})
    '+0.29 ± 0.06 +'
    >>> signed({"mean": -1.96, "high": -0.76, "verdict": "less"}, ".1f")
    '-2.0 ± 1.2 −'
    """
    return f"{row['mean']:+{form}} ± {row['high'] - row['mean']:{form}} {SIGNS[row['verdict']]}"


def print_against(title, runs, measures, setting, *, reference=REFERENCE, by="upsampling", width=21):
    """Print a line with the differences of a setting to the reference, measure by measure, and give them.

    Parameters
    ----------
    title : str
        The line's.
    runs : pandas.DataFrame
        One run for every setting and seed, as of `upconv.book.comparison.runs_of`.
    measures : list of str
        Columns of it.
    setting, reference : object
        Two values of the column `by`. The verdicts are adjusted for all the settings that `runs` has.
    by : str
        The column that tells the settings apart.
    width : int
        Places for the title.

    Returns
    -------
    dict of str to pandas.Series
        For every measure the setting's row of `upconv.book.comparison.compare_with_reference`.

    Raises
    ------
    ValueError
        As `upconv.book.comparison.compare_with_reference`.

    Examples
    --------
    >>> import pandas as pd
    >>> values = {"nearest_conv_3x3": [50.0, 52.0, 53.0], "pixel_shuffle": [52.0, 54.5, 55.0]}
    >>> runs = [(name, seed, value) for name in values for seed, value in enumerate(values[name])]
    >>> table = pd.DataFrame(runs, columns=["upsampling", "seed", "iou_end"])
    >>> print_against("equal time", table, ["iou_end"], "pixel_shuffle")["iou_end"]["verdict"]
      equal time           +2.2 ± 0.7 +
    'more'
    """
    found = {m: compare_with_reference(runs, m, reference, by=by).loc[setting] for m in measures}
    cells = "".join(f"{signed(row, '.1f'):14}" for row in found.values())
    print(f"  {title:{width}}{cells.rstrip()}")
    return found


def print_difference(title, runs, measure, one, other, *, by="upsampling"):
    """Print how two settings differ in a measure, over the seeds and below a title, and give it.

    Parameters
    ----------
    title : str
        What is printed above the difference.
    runs, measure, one, other, by
        As of `upconv.book.results.paired_bootstrap`.

    Returns
    -------
    upconv.book.results.Difference

    Raises
    ------
    ValueError
        As `upconv.book.results.paired_bootstrap`.

    Examples
    --------
    >>> import pandas as pd
    >>> runs = pd.DataFrame({"upsampling": ["a", "b", "a", "b"], "seed": [0, 0, 1, 1], "psnr": [1.0, 4.0, 3.0, 4.0]})
    >>> print_difference("PSNR, a - b", runs, "psnr", "a", "b").verdict
    PSNR, a - b
        -2 ± 1.4 (95%: -3 to -1, 2 seeds): less
    'less'
    """
    found = paired_bootstrap(runs, measure, one, other, by=by)
    print(f"{title}\n    {found}")
    return found


def comparison_table(tables, kind, measures, base_lines=None, *, floor=None):
    """Lay out one of the three comparisons, with the blocks' short names.

    Parameters
    ----------
    tables : dict of str to pandas.DataFrame
        By the names in `upconv.book.comparison.COMPARISONS`, as of `upconv.book.comparison.runs_of`.
    kind : str
        One of these names.
    measures, base_lines, floor
        As of `upconv.book.comparison.as_table`.

    Returns
    -------
    pandas.DataFrame
        As of `upconv.book.comparison.as_table`: text, with signs against nearest + conv 3x3.

    Raises
    ------
    ValueError
        As `upconv.book.comparison.as_table`.

    Examples
    --------
    >>> import pandas as pd
    >>> values = {"nearest_conv_3x3": [20.0, 21.0, 22.0], "pixel_shuffle": [21.0, 22.1, 23.0]}
    >>> runs = [(name, seed, 9, 4000, 100, value) for name in values for seed, value in enumerate(values[name])]
    >>> table = pd.DataFrame(runs, columns=["upsampling", "seed", "parameters", "macs", "steps", "psnr_end"])
    >>> shown = comparison_table({"channels": table}, "channels", {"psnr_end": ("PSNR, dB", ".1f")})
    >>> shown.columns.name, list(shown.index)
    ('equal channels', ['nearest + conv 3x3', 'pixel shuffle'])
    """
    found = as_table(tables[kind], measures, base_lines, floor=floor)
    return found.rename(index=SHORT).rename_axis(columns=f"equal {kind}")
