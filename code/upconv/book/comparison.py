"""How the book compares decoders: three comparisons, always all three, by one protocol.

With equal channels and steps, with equal parameters, in equal computing time: each gives somebody the advantage, so
what holds in one of them only is a result about that comparison.
"""

import math
from bisect import bisect_left

import numpy as np
import pandas as pd
import torch
from scipy.stats import false_discovery_control, ttest_1samp

from upconv.book.common import check_choice
from upconv.book.results import by_seed, read_results
from upconv.book.training import train

__all__ = [
    "COMPARISONS",
    "LEARNING_RATES",
    "REFERENCE",
    "SIGNS",
    "WARMUP",
    "as_table",
    "chosen_learning_rates",
    "compare_with_reference",
    "equal_time_steps",
    "matched_channels",
    "protocol_of",
    "run_setting",
    "runs_of",
    "settings_of",
    "train_by_protocol",
]

COMPARISONS = ("channels", "parameters", "time")
REFERENCE = "nearest_conv_3x3"  # the block that the others are matched to and compared with
LEARNING_RATES = (0.004, 0.008, 0.016, 0.032)
WARMUP = 100  # steps
SIGNS = {"more": "+", "less": "−", "no difference": "="}  # of a verdict
EARLY = (0, 20, 200)  # steps after which a run is measured, beside the last


def train_by_protocol(model, images, targets, **options):
    """Train a model as every comparison does.

    The learning rate rises over `WARMUP` steps and falls to 0 at the end, and the weights are laid out in memory as
    `torch.channels_last`.

    Parameters
    ----------
    model : torch.nn.Module
        Trained in place.
    images, targets : torch.Tensor
        What the model is given, and what it should make of it.
    **options
        Those of `upconv.book.training.train`.

    Returns
    -------
    list of float
        The loss of every step.
    """
    model.to(memory_format=torch.channels_last)
    return train(model, images, targets, warmup=WARMUP, decay=True, **options)


def matched_channels(task, upsampling, tier="mini"):
    """Multiply a decoder's channels so that it has as many parameters as the reference.

    Parameters
    ----------
    task : upconv.book.tasks.Task
    upsampling : str
        The decoder's block.
    tier : str
        "mini" or "full".

    Returns
    -------
    tuple of int
        The task's channels times one factor between 1/4 and 4, rounded: of all such, those with the parameters nearest
        to the number that the reference block has with the task's own channels. Those channels themselves, if the
        number is the same.
    """
    channels = task.tiers[tier]["channels"]

    def parameters(upsampling, channels):
        with torch.device("meta"):
            decoder, _ = task.decoder(task.build(upsampling, channels, tier))
        return sum(parameter.numel() for parameter in decoder.parameters())

    wanted = parameters(REFERENCE, channels)
    if parameters(upsampling, channels) == wanted:
        return channels
    # the factors at which one of the rounded numbers changes, in order, and the channels from each of them on
    factors = sorted({(n + 0.5) / width for width in channels for n in range(width // 4, 4 * width)})
    candidates = [tuple(max(1, math.floor(width * factor + 0.5)) for width in channels) for factor in factors]
    place = bisect_left(candidates, wanted, key=lambda widths: parameters(upsampling, widths))
    return min(
        candidates[max(0, place - 1) : place + 1], key=lambda widths: abs(parameters(upsampling, widths) - wanted)
    )


def chosen_learning_rates(task, tier="mini"):
    """Give each block's learning rate: of `LEARNING_RATES` the one with the highest mean score in validation.

    A learning rate that breaks the training of any block, in any run, is offered to none, and neither is one that the
    task has withdrawn: validation runs are shorter than those of the comparison, and what a block just survives there
    breaks it later.

    Parameters
    ----------
    task : upconv.book.tasks.Task
    tier : str
        "mini" or "full".

    Returns
    -------
    dict of str to float
        By the name of the block, read from `data/results/learning_rates.csv`. The score is the measure that the task
        names (the PSNR in dB, or the mean intersection over union), and the task says when a run is broken.

    Raises
    ------
    ValueError
        If the table has other runs than every block with every learning rate and every seed, or no rate is left.
    """
    table = _of_task("learning_rates", task, tier, "score", {"learning_rate": LEARNING_RATES})
    best = table.groupby("upsampling")["score"].transform("max")
    broken = {
        *table.loc[table["score"] < best - task.broken, "learning_rate"],
        *(rate for other, rate in task.withdrawn if other == tier),
    }
    if broken >= set(LEARNING_RATES):
        raise ValueError(f"every learning rate broke a block of the task {task.name!r}; add lower ones")
    means = table[~table["learning_rate"].isin(broken)].groupby(["upsampling", "learning_rate"])["score"].mean()
    return {name: float(means[name].idxmax()) for name in task.blocks}


def equal_time_steps(task, tier="mini"):
    """Give the steps that each block makes in the time in which the reference makes the task's number of steps.

    Parameters
    ----------
    task : upconv.book.tasks.Task
    tier : str
        "mini" or "full".

    Returns
    -------
    dict of str to int
        By the name of the block, in tens, from the measured times of `data/results/step_time.csv`: of a whole training
        step (forward, backward, Adam), the median over the repetitions.

    Raises
    ------
    ValueError
        If the table has other runs than every block in every repetition.
    """
    ratios = _of_task("step_time", task, tier, "ratio", {}).groupby("upsampling")["ratio"].median()
    steps = task.tiers[tier]["steps"]
    return {name: steps if name == REFERENCE else 10 * round(steps / float(ratios[name]) / 10) for name in task.blocks}


def _of_task(name, task, tier, measure, others):
    """Read a task's rows of a table; they must be complete, each run once and its measure finite."""
    table = read_results(name, tier)
    table = table[table["task"] == task.name]
    expected = pd.MultiIndex.from_product([list(task.blocks), *others.values(), sorted(set(table["seed"]))])
    found = pd.MultiIndex.from_frame(table[["upsampling", *others, "seed"]])
    steps = table["steps"].nunique() if "steps" in table else 1
    if not np.isfinite(table[measure]).all() or steps > 1 or sorted(found) != sorted(expected) or table.empty:
        raise ValueError(
            f"{name}.csv has not every block of the task {task.name!r} once for each seed, or a value that is not "
            f"finite; run `python -m tools.sweeps {name}`, or remove the table and run it"
        )
    return table


def settings_of(task, tier="mini", comparisons=COMPARISONS):
    """List the runs of a task: every block in every comparison; one run serves all comparisons that it fits.

    Parameters
    ----------
    task : upconv.book.tasks.Task
    tier : str
        "mini" or "full".
    comparisons : tuple of str
        Of `COMPARISONS`, those that are wanted; another name is a ValueError.

    Returns
    -------
    list of dict
        `comparisons` (names from `COMPARISONS`, with spaces between), `upsampling`, `channels` (ints with spaces
        between), `steps`, `batch_size` and `learning_rate`. The learning rate is the block's in all of them.
    """
    if not set(comparisons) <= set(COMPARISONS):
        raise ValueError(f"comparisons={comparisons!r} must be a tuple of {', '.join(COMPARISONS)}")
    plain = task.tiers[tier]
    rates, steps = chosen_learning_rates(task, tier), equal_time_steps(task, tier)
    runs = {}
    for name in task.blocks:
        for comparison, channels, number in (
            ("channels", plain["channels"], plain["steps"]),
            ("parameters", matched_channels(task, name, tier), plain["steps"]),
            ("time", plain["channels"], steps[name]),
        ):
            if comparison in comparisons:
                runs.setdefault((name, channels, number), []).append(comparison)
    return [
        dict(
            comparisons=" ".join(comparisons),
            upsampling=name,
            channels=" ".join(map(str, channels)),
            steps=number,
            batch_size=plain["batch_size"],
            learning_rate=rates[name],
        )
        for (name, channels, number), comparisons in runs.items()
    ]


def protocol_of(task, setting, tier):
    """List what decides a run of `run_setting` beside its settings.

    Parameters
    ----------
    task : upconv.book.tasks.Task
    setting : dict
        As of `settings_of`.
    tier : str

    Returns
    -------
    dict
        Of what JSON has: as of `upconv.book.tasks.Task.protocol`, and the schedule of `train_by_protocol`.
    """
    decides = task.protocol(setting["upsampling"], _widths(setting["channels"]), tier)
    return {**decides, "optimizer": "Adam", "warmup": WARMUP, "decay": "to 0", "measured": EARLY}


def _widths(channels):
    return tuple(int(number) for number in channels.split())


def run_setting(
    task, comparisons, upsampling, channels, steps, batch_size, learning_rate, *, seed, tier="mini", device="cpu"
):
    """Make one run of a comparison: train a network, measure it on the test images.

    Parameters
    ----------
    task : upconv.book.tasks.Task
    comparisons, upsampling, channels, steps, batch_size, learning_rate
        As of `settings_of`.
    seed : int
        Of the weights and of the order of the images.
    tier : str
        "mini" or "full".
    device : str
        Where the network is trained.

    Returns
    -------
    dict of str to float
        `parameters` and `macs` (for one image) of the decoder; then what the task's `measures` gives, after 0, 20, 200
        and all steps (`psnr_0`, `psnr_20`, `psnr_200`, `psnr_end` and so on), the early ones if there are so many
        steps; and its score (`psnr_training`) at the end on as many training images as there are test images.

    Raises
    ------
    FloatingPointError
        If the training breaks off.
    """
    torch.manual_seed(seed)
    model = task.build(upsampling, _widths(channels), tier)
    parameters, macs = task.parameters_and_macs(model)
    measures = {"parameters": parameters, "macs": macs}

    def look(step):
        for name in [step] * (step in EARLY) + ["end"] * (step == steps):
            measures.update({f"{measure}_{name}": value for measure, value in task.measure(model, tier=tier).items()})

    train_by_protocol(
        model,
        *task.data("train", tier),
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        device=device,
        progress=False,
        callback=look,
    )
    test = len(task.data("test", tier)[0])
    measures[f"{task.score}_training"] = task.measure(model, "train", tier, slice(test))[task.score]
    return measures


def runs_of(table, comparison):
    """Select the runs of one comparison: one for every block and seed.

    Parameters
    ----------
    table : pandas.DataFrame
        Of a task, as of `upconv.book.results.read_results`.
    comparison : str
        One of `COMPARISONS`.

    Returns
    -------
    pandas.DataFrame

    Raises
    ------
    ValueError
        If there is no such comparison.
    """
    check_choice("comparison", comparison, COMPARISONS)
    return table[[comparison in names.split() for names in table["comparisons"]]]


def compare_with_reference(table, measure, reference=REFERENCE, *, by="upsampling"):
    """Compare every setting with one of them, seed by seed, and say which differences stand.

    Parameters
    ----------
    table : pandas.DataFrame
        One run for every setting and seed, as of `runs_of`.
    measure : str
        A column of numbers.
    reference : str
        A value of the column `by`.
    by : str
        The column that tells the settings apart.

    Returns
    -------
    pandas.DataFrame
        A row for every setting but the reference, in the order of the table, and the columns `mean` and `std` of the
        differences (setting minus reference), `low` and `high`, the ends of the 95% interval of their mean, `p`, and
        `verdict`: "more" or "less" if `p` is below 0.05, otherwise "no difference".

    Raises
    ------
    ValueError
        As `upconv.book.results.paired_bootstrap`, and if there is nothing to compare the reference with.

    Notes
    -----
    Intervals and tests are Student's for pairs: with five seeds the bootstrap's intervals are too narrow. Of many tests
    some succeed by chance, so `p` is adjusted for the settings of this call by Benjamini and Hochberg's (1995) false
    discovery rate, doi 10.1111/j.2517-6161.1995.tb02031.x: over many such calls, the share of named differences that
    are none is on average at most one in twenty. Neither the intervals nor several calls are adjusted. Differences
    below a billionth of the values are rounding, and count as 0.

    Examples
    --------
    >>> psnr = {"nearest_conv_3x3": [1.0, 2.0, 3.0], "pixel_shuffle": [2.0, 3.1, 4.0], "bilinear_conv_3x3": [0, 3, 3]}
    >>> runs = [(name, seed, value) for name in psnr for seed, value in enumerate(psnr[name])]
    >>> table = pd.DataFrame(runs, columns=["upsampling", "seed", "psnr"])
    >>> compare_with_reference(table, "psnr")["verdict"].to_dict()
    {'pixel_shuffle': 'more', 'bilinear_conv_3x3': 'no difference'}
    """
    rows = {}
    for name in table[by].unique():
        if name != reference:
            one, other = by_seed(table, measure, name, reference, by=by)
            difference = np.where(np.isclose(one, other, rtol=1e-9, atol=0), 0.0, one - other)
            if difference.any():
                found = ttest_1samp(difference, 0)
                low, high = found.confidence_interval(0.95)
                p = found.pvalue
            else:  # a test of nothing but zeros has no value
                low, high, p = 0.0, 0.0, 1.0
            rows[name] = difference.mean(), difference.std(ddof=1), low, high, p
    if not rows:
        raise ValueError(f"the table has no other {by} than {reference!r}")
    result = pd.DataFrame.from_dict(rows, orient="index", columns=["mean", "std", "low", "high", "p"])
    result["p"] = false_discovery_control(result["p"])
    result["verdict"] = [
        "no difference" if p >= 0.05 else "more" if mean > 0 else "less"
        for mean, p in zip(result["mean"], result["p"], strict=True)
    ]
    return result


def as_table(table, measures, base_lines=None, *, floor=None, reference=REFERENCE, by="upsampling"):
    """Lay out one comparison for readers: what each decoder costs, its measures, which differences stand.

    Parameters
    ----------
    table : pandas.DataFrame
        One run for every setting and seed, as of `runs_of`.
    measures : dict of str to (str, str)
        For every column that is shown, its title and its number format, such as ("PSNR, dB", ".2f").
    base_lines : dict of str to dict, optional
        Further rows, by their names: for some of the columns a value.
    floor : (str, str), optional
        A measure and a base line. Settings with a lower mean are shown, but take part in no verdict.
    reference : str
        A value of the column `by`.
    by : str
        The column that tells the settings apart.

    Returns
    -------
    pandas.DataFrame
        Of str. Columns `parameters`, `MACs` (in thousands, for one image), `steps` where they differ, then each
        measure's mean ± standard deviation over the seeds and a sign against the reference by `compare_with_reference`:
        + more, − less, = no difference, nothing if the setting or the reference is below the floor. No text breaks
        between its parts.

    Raises
    ------
    ValueError
        If the table lacks the reference or has the name of a base line, if the floor is not a number, or as
        `compare_with_reference`.
    """
    base_lines = base_lines or {}
    means = table.groupby(by, sort=False).mean(numeric_only=True)
    if reference not in means.index:
        raise ValueError(f"{by}={reference!r} is not in the table; it has {', '.join(map(str, means.index))}")
    if set(base_lines) & set(means.index):
        raise ValueError(f"a base line has the name of a setting: {', '.join(set(base_lines) & set(means.index))}")
    judged = list(means.index)
    if floor:
        measure, line = floor
        if not np.isfinite(base_lines[line][measure]):
            raise ValueError(f"the floor, {measure} of {line}, is {base_lines[line][measure]}")
        judged = [name for name in judged if means.loc[name, measure] >= base_lines[line][measure]]
    rows = {
        name: {
            "parameters": f"{row['parameters']:,.0f}",
            "MACs": f"{row['macs'] / 1000:,.0f}k",
            **({"steps": f"{row['steps']:,.0f}"} if means["steps"].nunique() > 1 else {}),
        }
        for name, row in means.iterrows()
    }
    for measure, (title, form) in measures.items():
        signs = {}
        if reference in judged and len(judged) > 1:
            verdicts = compare_with_reference(table[table[by].isin(judged)], measure, reference, by=by)["verdict"]
            signs = verdicts.map(SIGNS).to_dict()
        for name, values in table.groupby(by, sort=False)[measure]:
            text = f"{values.mean():{form}} ± {values.std():{form}} {signs.get(name, '')}".rstrip()
            rows[name][title] = text.replace(" ", "\N{NO-BREAK SPACE}").replace("-", "\N{MINUS SIGN}")
        for line, values in base_lines.items():
            shown = format(values[measure], form).replace("-", "\N{MINUS SIGN}") if measure in values else ""
            rows.setdefault(line, dict.fromkeys(rows[reference].keys() - {title}, ""))[title] = shown
    return pd.DataFrame.from_dict(rows, orient="index")
