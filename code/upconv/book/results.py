"""The tables of the sweeps in `data/results`, and how two settings of one are compared.

Runs of one seed see the same data in the same order and, where their shapes agree, start alike outside what is
compared; so they are compared seed by seed. For many settings at once see `upconv.book.comparison`.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import bootstrap

from upconv.book.data import committed_file

__all__ = ["Difference", "by_seed", "paired_bootstrap", "read_results", "summary"]


class Difference(NamedTuple):
    """How two settings differ in a measure, seed by seed.

    `mean` and `std` (with n - 1) are those of the `n` differences, `low` and `high` the ends of the 95% bootstrap
    interval of their mean. `verdict` is "no difference" if the interval contains 0, otherwise "more" or "less".
    """

    mean: float
    std: float
    low: float
    high: float
    n: int
    verdict: str

    def __str__(self):
        interval = f"{self.low:+.3g} to {self.high:+.3g}"
        return f"{self.mean:+.3g} ± {self.std:.2g} (95%: {interval}, {self.n} seeds): {self.verdict}"


def read_results(name, tier="mini"):
    """Read the results of a sweep.

    Parameters
    ----------
    name : str
        That of the sweep; the file is `data/results/<name>.csv`.
    tier : str
        "mini" or "full".

    Returns
    -------
    pandas.DataFrame
        A row for each run of that tier, in order of the seeds.

    Raises
    ------
    upconv.book.data.DataError
        If there is no such file.
    ValueError
        If it has no row of that tier, or a run twice.
    """
    path = committed_file(f"results/{name}.csv")
    every = pd.read_csv(path)
    table = every[every["tier"] == tier].sort_values("seed", kind="stable", ignore_index=True)
    if table.empty:
        raise ValueError(f"{path.name} has no runs of tier={tier!r}, only of {', '.join(sorted(set(every['tier'])))}")
    settings = list(table.columns[: table.columns.get_loc("seed") + 1])
    if table.duplicated(settings).any():
        raise ValueError(
            f"{path.name} has a run twice: {table[table.duplicated(settings)][settings].iloc[0].to_dict()}"
        )
    return table


def summary(table, measures, by):
    """Give the mean and the standard deviation of measures over the seeds.

    Parameters
    ----------
    table : pandas.DataFrame
        As of `read_results`.
    measures : list of str
        Names of columns.
    by : str or list of str
        The columns that tell the settings apart.

    Returns
    -------
    pandas.DataFrame
        A row for each setting, in the order of the table; for each measure the columns (measure, "mean") and
        (measure, "std"), the latter with n - 1.

    Examples
    --------
    >>> runs = pd.DataFrame({"upsampling": ["a", "b", "a", "b"], "seed": [0, 0, 1, 1], "psnr": [1.0, 4.0, 3.0, 4.0]})
    >>> summary(runs, ["psnr"], by="upsampling")["psnr"].to_dict("index")
    {'a': {'mean': 2.0, 'std': 1.4142135623730951}, 'b': {'mean': 4.0, 'std': 0.0}}
    """
    return table.groupby(by, sort=False)[list(measures)].agg(["mean", "std"])


def by_seed(table, measure, one, other, *, by, seed="seed"):
    """Give the values of two settings in a measure, seed by seed.

    Parameters
    ----------
    table, measure, one, other, by, seed
        As of `paired_bootstrap`.

    Returns
    -------
    two numpy.ndarray of float64, shape (number of seeds,)

    Raises
    ------
    ValueError
        As of `paired_bootstrap`.
    """
    columns = []
    for value in (one, other):
        rows = table[table[by] == value]
        if rows.empty:
            raise ValueError(f"{by}={value!r} is not in the table; it has {', '.join(map(str, table[by].unique()))}")
        if rows[seed].duplicated().any():
            raise ValueError(f"{by}={value!r} has a {seed} twice; select the rows to compare first")
        columns.append(rows.set_index(seed)[measure].sort_index())
    first, second = columns
    if len(first) < 2 or list(first.index) != list(second.index):
        seeds = (", ".join(map(str, column.index)) for column in columns)
        raise ValueError(
            f"{one!r} has the seeds {next(seeds)} and {other!r} {next(seeds)}: a comparison needs the same seeds, at "
            f"least 2"
        )
    values = first.to_numpy(float), second.to_numpy(float)
    if not np.isfinite(values).all():
        raise ValueError(f"{measure} has values that are missing or not finite")
    return values


def paired_bootstrap(table, measure, one, other, *, by, seed="seed"):
    """Compare two settings in a measure, seed by seed: `one` minus `other`.

    Parameters
    ----------
    table : pandas.DataFrame
        As of `read_results`.
    measure : str
        A column of numbers.
    one, other : str
        Two values of the column `by`.
    by : str
        The column that tells the settings apart; nothing else may differ between two runs of a seed.
    seed : str
        The column that pairs the runs.

    Returns
    -------
    Difference

    Raises
    ------
    ValueError
        If a setting is not in the table, has a seed twice, fewer than 2 or other ones than the other setting, or if a
        value is missing or not finite.

    Notes
    -----
    The interval is `scipy.stats.bootstrap`'s percentile interval of the mean, with 9,999 resamples drawn from a fixed
    seed (Efron 1979, "Bootstrap methods", doi 10.1214/aos/1176344552). With few seeds it is too narrow: of two
    normal differences it contains the true mean in half of the cases, of five in about 84 of 100, of ten in about 91,
    instead of 95.

    Examples
    --------
    >>> runs = pd.DataFrame({"upsampling": ["a", "b", "a", "b"], "seed": [0, 0, 1, 1], "psnr": [1.0, 4.0, 3.0, 4.0]})
    >>> print(paired_bootstrap(runs, "psnr", "a", "b", by="upsampling"))
    -2 ± 1.4 (95%: -3 to -1, 2 seeds): less
    """
    first, second = by_seed(table, measure, one, other, by=by, seed=seed)
    differences = first - second
    interval = bootstrap(
        (differences,), np.mean, method="percentile", n_resamples=9999, rng=np.random.default_rng(0)
    ).confidence_interval
    low, high = float(interval.low), float(interval.high)
    verdict = "no difference" if low <= 0 <= high else "more" if low > 0 else "less"
    return Difference(float(differences.mean()), float(differences.std(ddof=1)), low, high, len(differences), verdict)
