"""Whether two settings differ: the one method by which the book judges differences, fixed beforehand.

Student's paired t test over the seeds, two-sided at 5%; Welch's, where a seed is no unit that can be had again
(`paired=False`, as for the U-Net). Its p values are adjusted by Benjamini and Hochberg within a family: one task, one
comparison, all blocks, in the task's primary measure. Other measures describe: a mean and a spread, no verdict.

There are four verdicts:

- "equivalent": the difference is shown to be smaller than a margin fixed beforehand, see `MARGINS`, by two one-sided
  tests, each at 5%; so is a difference that is significant but that small;
- "more" and "less": not so, and the adjusted p value is below 0.05;
- "undecided": neither. Beside it stands the smallest difference that would have been found, see `detectable`.
"""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import false_discovery_control, nct, t

from upconv.book.comparison import REFERENCE
from upconv.book.results import by_seed, values_of

__all__ = [
    "MARGINS",
    "Difference",
    "compare",
    "compare_with_reference",
    "compare_with_value",
    "detectable",
    "family",
]

MARGINS = {  # what is too small to matter: in dB, of structural similarity, and a point of a share of 1
    "psnr": 0.1,
    "ssim": 0.005,
    "accuracy": 0.01,
    "iou": 0.01,
    "boundary_iou": 0.01,
    "foreground_iou": 0.01,
    "foreground_boundary_iou": 0.01,
}
TINY = float(np.finfo(float).tiny)


class Difference(NamedTuple):
    """How two settings differ in a measure.

    `mean` is the mean difference and `low` to `high` its 95% interval. `std` is the standard deviation of the `n`
    differences (with n - 1); where seeds are no pairs, that of the difference of two runs, and `n` is the smaller of
    the two numbers of seeds. `p` tests that there is no difference, `equivalence_p` that there is one as large as the
    margin; it is nan without a margin. `detectable` is what the function gives, and `verdict` that of a family of one:
    it takes `p` as it is.
    """

    mean: float
    std: float
    low: float
    high: float
    n: int
    p: float
    equivalence_p: float
    detectable: float
    verdict: str

    def __str__(self):
        half = (self.high - self.low) / 2
        form = f".{max(2, math.ceil(-math.log10(half))) if half else 2}f"
        text = f"{self.mean:+z{form}} ± {half:{form}} ({self.n} seeds): {self.verdict}"
        return text + (f", {self.detectable:{form}} would have been found" if self.verdict == "undecided" else "")


def compare(table, measure, one, other, *, by, seed="seed", paired=True, margin=None):
    """Compare two settings in a measure: `one` minus `other`.

    Parameters
    ----------
    table : pandas.DataFrame
        As of `upconv.book.results.read_results`.
    measure : str
        A column of numbers.
    one, other : object
        Two values of the column `by`.
    by : str
        The column that tells the settings apart; nothing else may differ between two runs of a seed.
    seed : str
        The column that pairs the runs.
    paired : bool
        Whether two runs of one seed are a pair; further seeds of one setting, behind those of the other, are left out.
        If not, the settings may have different seeds.
    margin : float, optional
        In the unit of the measure; by default that of `MARGINS` for the measure, whose column may have a look behind
        it, as in `psnr_end`. A measure without a margin, or with nan, is never "equivalent".

    Returns
    -------
    Difference

    Raises
    ------
    ValueError
        If a setting is not in the table, has a seed twice or fewer than 2, if the other of a pair is missing, a value
        is missing or not finite, or the margin is not above 0.

    Notes
    -----
    Pairs: Student (1908), doi 10.1093/biomet/6.1.1. No pairs: Welch (1947), doi 10.1093/biomet/34.1-2.28. Two one-sided
    tests: Schuirmann (1987), doi 10.1007/BF01068419. Differences below a billionth of the values are rounding, and
    count as 0.

    Examples
    --------
    >>> psnr = {"a": [20.0, 21.0, 22.0], "b": [20.01, 21.02, 22.0], "c": [20.3, 21.0, 22.2]}
    >>> runs = [(name, seed, value) for name in psnr for seed, value in enumerate(psnr[name])]
    >>> table = pd.DataFrame(runs, columns=["upsampling", "seed", "psnr"])
    >>> print(compare(table, "psnr", "b", "a", by="upsampling"))
    +0.01 ± 0.02 (3 seeds): equivalent
    >>> print(compare(table, "psnr", "c", "a", by="upsampling"))
    +0.17 ± 0.38 (3 seeds): undecided, 0.50 would have been found
    """
    margin = _margin(measure, margin)
    if paired:
        return _judge_pairs(*by_seed(table, measure, one, other, by=by, seed=seed), margin)
    return _judge_samples(*(_sample(table, measure, name, by, seed) for name in (one, other)), margin)


def compare_with_reference(table, measure, reference=REFERENCE, *, by="upsampling", paired=True, margin=None):
    """Compare every setting with one of them, and say which differences stand.

    Parameters
    ----------
    table : pandas.DataFrame
        One run for every setting and seed, as of `upconv.book.comparison.runs_of`.
    measure : str
        A column of numbers.
    reference : object
        A value of the column `by`.
    by : str
        The column that tells the settings apart.
    paired, margin
        As of `compare`.

    Returns
    -------
    pandas.DataFrame
        As of `family`: a row for every setting but the reference, in the order of the table, setting minus reference.

    Raises
    ------
    ValueError
        As `compare`, and if there is nothing to compare the reference with.

    Examples
    --------
    >>> psnr = {"nearest_conv_3x3": [1.0, 2.0, 3.0], "pixel_shuffle": [2.0, 3.1, 4.0], "bilinear_conv_3x3": [0, 3, 3]}
    >>> runs = [(name, seed, value) for name in psnr for seed, value in enumerate(psnr[name])]
    >>> table = pd.DataFrame(runs, columns=["upsampling", "seed", "psnr"])
    >>> compare_with_reference(table, "psnr")["verdict"].to_dict()
    {'pixel_shuffle': 'more', 'bilinear_conv_3x3': 'undecided'}
    """
    names = [name for name in table[by].unique() if name != reference]
    if not names:
        raise ValueError(f"the table has no other {by} than {reference!r}")
    options = dict(by=by, paired=paired, margin=margin)
    return family({name: compare(table, measure, name, reference, **options) for name in names})


def compare_with_value(table, measure, value, *, by, margin=None):
    """Compare the mean of every setting with a fixed number, and say which differences stand.

    Parameters
    ----------
    table : pandas.DataFrame
        One run for every setting and seed.
    measure : str
        A column of numbers.
    value : float
        What every mean is compared with.
    by : str
        The column that tells the settings apart.
    margin : float, optional
        As of `compare`.

    Returns
    -------
    pandas.DataFrame
        As of `family`: a row for every setting, in the order of the table, setting minus `value`.

    Raises
    ------
    ValueError
        If a setting has a seed twice or fewer than 2, a value is missing or not finite, or the margin is not above 0.

    Examples
    --------
    >>> runs = pd.DataFrame({"upsampling": ["a", "a", "b", "b"], "seed": [0, 1, 0, 1], "psnr": [20.0, 20.1, 30, 31]})
    >>> compare_with_value(runs, "psnr", 20.0, by="upsampling")["verdict"].to_dict()
    {'a': 'undecided', 'b': 'undecided'}
    >>> compare_with_value(runs, "psnr", 1.0, by="upsampling")["verdict"].to_dict()
    {'a': 'more', 'b': 'more'}
    """
    if not math.isfinite(value):
        raise ValueError(f"value={value!r} must be finite")
    margin = _margin(measure, margin)
    return family({name: _judge_pairs(_sample(table, measure, name, by), value, margin) for name in table[by].unique()})


def family(differences):
    """Judge differences together: adjust their p values for their number, and give each its verdict.

    Parameters
    ----------
    differences : dict of object to Difference
        By their names.

    Returns
    -------
    pandas.DataFrame
        A row for each, in their order, and the columns `mean`, `std`, `low`, `high`, `n`, `p`, `q` (`p`, adjusted),
        `equivalence_p`, `detectable` and `verdict`, the latter by `q`.

    Raises
    ------
    ValueError
        If there are none.

    Notes
    -----
    Of many tests some succeed by chance. `q` is Benjamini and Hochberg's (1995), doi
    10.1111/j.2517-6161.1995.tb02031.x: over many families, the share of named differences that are none is on average
    at most one in twenty. Not adjusted are the intervals, `detectable` and the tests of equivalence: of differences as
    large as the margin, one in twenty is called "equivalent". These tests are one-sided, so what they call that has its
    90% interval within the margin; the 95% interval may reach beyond it.

    Examples
    --------
    >>> one = Difference(1.0, 0.5, 0.38, 1.62, 5, 0.03, float("nan"), 0.84, "more")
    >>> other = Difference(0.1, 0.5, -0.52, 0.72, 5, 0.68, float("nan"), 0.84, "undecided")
    >>> family({"one": one, "other": other})[["p", "q", "verdict"]].to_dict("list")
    {'p': [0.03, 0.68], 'q': [0.06, 0.68], 'verdict': ['undecided', 'undecided']}
    """
    if not differences:
        raise ValueError("there is no difference to judge")
    rows = pd.DataFrame(list(differences.values()), index=list(differences))
    rows.insert(rows.columns.get_loc("p") + 1, "q", false_discovery_control(rows["p"]))
    rows["verdict"] = list(map(_verdict, rows["mean"], rows["q"], rows["equivalence_p"]))
    return rows


def detectable(error, df):
    """Give the smallest true difference that a test at 5% finds with a power of 80%.

    Parameters
    ----------
    error : float
        The standard error of the mean difference.
    df : float
        Its degrees of freedom, at least 1.

    Returns
    -------
    float
        In the unit of `error`.

    Notes
    -----
    Found is a difference that is named with its sign, without adjustment. If the spread is the observed one, the test
    statistic has the noncentral distribution of t (Johnson and Welch 1940, doi 10.1093/biomet/31.3-4.362).

    Examples
    --------
    Of pairs whose differences have the standard deviation 1:

    >>> [round(detectable(n**-0.5, n - 1), 2) for n in (5, 10, 20)]
    [1.68, 1.0, 0.66]
    """
    critical = t.ppf(0.975, df)
    return error * brentq(lambda shift: nct.sf(critical, df, shift) - 0.8, 0, 2 * critical)


def _margin(measure, margin):
    if margin is None:
        margin = MARGINS.get(measure, MARGINS.get(measure.rpartition("_")[0], math.nan))
    if margin <= 0:
        raise ValueError(f"margin={margin!r} must be above 0")
    return margin


def _sample(table, measure, setting, by, seed="seed"):
    values = values_of(table, measure, setting, by=by, seed=seed).to_numpy()
    if len(values) < 2:
        raise ValueError(f"{by}={setting!r} has one {seed}: a comparison needs at least 2")
    return values


def _judge_pairs(values, others, margin):
    differences = np.where(np.isclose(values, others, rtol=1e-9, atol=0), 0.0, values - others)
    n, std = len(differences), differences.std(ddof=1)
    return _judge(differences.mean(), std, std / math.sqrt(n), n - 1, n, margin)


def _judge_samples(one, other, margin):
    if np.allclose([*one, *other], one[0], rtol=1e-9, atol=0):
        one, other = np.zeros_like(one), np.zeros_like(other)
    variances, sizes = np.array([sample.var(ddof=1) for sample in (one, other)]), np.array([len(one), len(other)])
    squares = variances / sizes
    error = math.sqrt(squares.sum())
    df = squares.sum() ** 2 / (squares**2 / (sizes - 1)).sum() if error else sizes.sum() - 2
    return _judge(one.mean() - other.mean(), math.sqrt(variances.sum()), error, df, min(sizes), margin)


def _judge(mean, std, error, df, n, margin):
    mean, error, df = float(mean), float(error), float(df)
    half, divisor = float(t.ppf(0.975, df)) * error, max(error, TINY)
    p = float(2 * t.sf(abs(mean) / divisor, df))
    equivalence_p = float(t.sf((margin - abs(mean)) / divisor, df))  # of the two one-sided tests the larger
    found = detectable(error, df)
    return Difference(
        mean, float(std), mean - half, mean + half, int(n), p, equivalence_p, found, _verdict(mean, p, equivalence_p)
    )


def _verdict(mean, p, equivalence_p):
    if equivalence_p < 0.05:
        return "equivalent"
    return "undecided" if p >= 0.05 else "more" if mean > 0 else "less"
