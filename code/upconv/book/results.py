"""The tables of the sweeps in `data/results`, and the values of their settings, seed by seed.

Runs of one seed see the same data in the same order and, where their shapes agree, start alike outside what is
compared; so they are compared seed by seed. How, see `upconv.book.verdicts`.
"""

import numpy as np
import pandas as pd

from upconv.book.blocks import BLOCKS
from upconv.book.data import committed_file

__all__ = ["by_seed", "read_results", "summary", "values_of"]


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
        A row for each run of that tier, in order of the seeds and, of one seed, of the blocks in `upsampling`.

    Raises
    ------
    upconv.book.data.DataError
        If there is no such file.
    ValueError
        If it has no row of that tier, or a run twice.
    """
    path = committed_file(f"results/{name}.csv")
    every = pd.read_csv(path)
    table = every[every["tier"] == tier]
    if "upsampling" in table:  # in the order of `BLOCKS`: rows of a later block come later
        order = {block: place for place, block in enumerate(BLOCKS)}
        place = table["upsampling"].map(lambda block: order.get(block, len(order)))
        table = table.loc[place.sort_values(kind="stable").index]
    table = table.sort_values("seed", kind="stable", ignore_index=True)
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


def values_of(table, measure, setting, *, by, seed="seed"):
    """Give the values of a setting in a measure.

    Parameters
    ----------
    table : pandas.DataFrame
        As of `read_results`.
    measure : str
        A column of numbers.
    setting : object
        A value of the column `by`.
    by : str
        The column that tells the settings apart.
    seed : str
        The column of the seeds.

    Returns
    -------
    pandas.Series of float64
        By seed, in their order.

    Raises
    ------
    ValueError
        If the setting is not in the table or has a seed twice, or if a value is missing or not finite.

    Examples
    --------
    >>> runs = pd.DataFrame({"upsampling": ["a", "b", "a"], "seed": [1, 0, 0], "psnr": [3.0, 4.0, 1.0]})
    >>> values_of(runs, "psnr", "a", by="upsampling").to_dict()
    {0: 1.0, 1: 3.0}
    """
    rows = table[table[by] == setting]
    if rows.empty:
        raise ValueError(f"{by}={setting!r} is not in the table; it has {', '.join(map(str, table[by].unique()))}")
    if rows[seed].duplicated().any():
        raise ValueError(f"{by}={setting!r} has a {seed} twice; select the rows to compare first")
    values = rows.set_index(seed)[measure].sort_index().astype(float)
    if not np.isfinite(values).all():
        raise ValueError(f"{measure} has values that are missing or not finite")
    return values


def by_seed(table, measure, one, other, *, by, seed="seed"):
    """Give the values of two settings in a measure, seed by seed.

    Parameters
    ----------
    table, measure, by
        As of `values_of`.
    one, other : object
        Two values of the column `by`.
    seed : str
        The column that pairs the runs.

    Returns
    -------
    two numpy.ndarray of float64, shape (number of seeds,)
        If one has further seeds behind those of the other, without these.

    Raises
    ------
    ValueError
        As `values_of`, and if the two have otherwise different seeds or fewer than 2.

    Examples
    --------
    >>> runs = pd.DataFrame({"upsampling": ["a", "b", "b", "a"], "seed": [0, 1, 0, 1], "psnr": [1.0, 4.0, 3.0, 2.0]})
    >>> [values.tolist() for values in by_seed(runs, "psnr", "a", "b", by="upsampling")]
    [[1.0, 2.0], [3.0, 4.0]]
    """
    first, second = (values_of(table, measure, name, by=by, seed=seed) for name in (one, other))
    n = min(len(first), len(second))
    if n < 2 or list(first.index[:n]) != list(second.index[:n]):
        seeds = (", ".join(map(str, values.index)) for values in (first, second))
        raise ValueError(
            f"{one!r} has the seeds {next(seeds)} and {other!r} {next(seeds)}: a comparison needs the same seeds, at "
            f"least 2"
        )
    return first.to_numpy()[:n], second.to_numpy()[:n]
