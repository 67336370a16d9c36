"""How the book compares decoders: several comparisons, always all of a task's, by one protocol.

With equal channels and steps, with equal parameters, in equal computing time, with equal multiplications: each gives
somebody the advantage, so what holds in one of them only is a result about that comparison. In these a block has one
learning rate that breaks no block; in a further one, each has its own best.
"""

import math
from bisect import bisect_left

import numpy as np
import pandas as pd
import torch

from upconv.book.blocks import FOLDED
from upconv.book.common import check_choice
from upconv.book.results import read_results
from upconv.book.together import train_together
from upconv.book.training import train
from upconv.cost import parameters

__all__ = [
    "COMPARISONS",
    "FOUR",
    "LEARNING_RATES",
    "MANY",
    "RATES",
    "REFERENCE",
    "WARMUP",
    "best_stable_rates",
    "chosen_learning_rates",
    "equal_time_steps",
    "is_broken",
    "matched_channels",
    "protocol_of",
    "run_seeds",
    "run_setting",
    "runs_of",
    "seeds_of",
    "settings_of",
    "train_by_protocol",
    "train_seeds",
]

COMPARISONS = ("channels", "parameters", "time", "folded", "macs", "rates")
REFERENCE = "nearest_conv_3x3"  # the block that the others are matched to and compared with
FOLDS_TO = "conv_transpose_4x4"  # the layer that, with other weights, the reference is
LEARNING_RATES = (0.004, 0.008, 0.016, 0.032)
RATES = (0.004, 0.008, 0.011, 0.016, 0.023, 0.032)  # those of the full-length runs
FOUR = ("conv_transpose_3x3", "conv_transpose_4x4", REFERENCE, "pixel_shuffle")  # blocks with such runs
MANY = (
    *FOUR,
    "conv_transpose_4x4_bilinear_init",
    "conv_transpose_4x4_equal_gains",
    "bilinear_conv_3x3",
    "bilinear_additive",
)  # blocks with most seeds
WARMUP = 100  # steps
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


def train_seeds(build, seeds, images, targets, *, look, looks=(), steps, device="cpu", **options):
    """Train a network for each seed as every comparison does: one by `train_by_protocol`, several together.

    Parameters
    ----------
    build : callable
        Makes a network, its weights drawn from PyTorch's global generator, which is seeded before.
    seeds : list of int
    images, targets : torch.Tensor
        As of `train_by_protocol`.
    look : callable
        Called with a network, its place in `seeds` and the number of steps done, after those in `looks` and at the end.
    looks : collection of int
    steps, device, **options
        As of `upconv.book.training.train`.

    Returns
    -------
    list of torch.nn.Module

    Raises
    ------
    FloatingPointError
        If the training of a single one breaks off. Several go on with values that are not finite.
    """
    models = []
    for seed in seeds:
        torch.manual_seed(seed)
        models.append(build())

    def callback(step):
        if step in looks or step == steps:
            for place, model in enumerate(models):
                look(model, place, step)

    options |= dict(steps=steps, device=device, progress=False, callback=callback)
    if len(seeds) == 1:
        train_by_protocol(models[0], images, targets, seed=seeds[0], **options)
    else:
        models = [model.to(device) for model in models]
        train_together(models, images, targets, seeds=seeds, looks=looks, warmup=WARMUP, decay=True, **options)
    return models


def matched_channels(task, upsampling, tier="mini", cost="parameters"):
    """Multiply a decoder's channels so that it costs as much as the reference.

    Parameters
    ----------
    task : upconv.book.tasks.Task
    upsampling : str
        The decoder's block.
    tier : str
        "mini" or "full".
    cost : str
        "parameters"; or "macs", multiply-accumulates, those of the reference being counted folded into one layer, as it
        may run once it is trained (and so are its own if it is the block).

    Returns
    -------
    tuple of int
        The task's channels times one factor between 1/4 and 4, rounded: of all such, those with the cost nearest to the
        one that the reference has with the task's own channels. Those channels themselves, if it is the same.
    """
    check_choice("cost", cost, ("parameters", "macs"))
    channels = task.tiers[tier]["channels"]

    def count(upsampling, channels):
        with torch.device("meta"):
            model = task.build(FOLDS_TO if cost == "macs" and upsampling == REFERENCE else upsampling, channels, tier)
        if cost == "parameters":  # which need no forward pass
            return parameters(task.decoder(model)[0])
        return task.parameters_and_macs(model)[1]

    wanted = count(REFERENCE, channels)
    if count(upsampling, channels) == wanted:
        return channels
    # the factors at which one of the rounded numbers changes, in order, and the channels from each of them on
    factors = sorted({(n + 0.5) / width for width in channels for n in range(width // 4, 4 * width)})
    candidates = [tuple(max(1, math.floor(width * factor + 0.5)) for width in channels) for factor in factors]
    place = bisect_left(candidates, wanted, key=lambda widths: count(upsampling, widths))
    return min(candidates[max(0, place - 1) : place + 1], key=lambda widths: abs(count(upsampling, widths) - wanted))


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
    fell = table.groupby("upsampling")["score"].transform(is_broken, task).astype(bool)
    broken = {
        *table.loc[fell, "learning_rate"],
        *(rate for other, rate in task.withdrawn if other == tier),
    }
    if broken >= set(LEARNING_RATES):
        raise ValueError(f"every learning rate broke a block of the task {task.name!r}; add lower ones")
    means = table[~table["learning_rate"].isin(broken)].groupby(["upsampling", "learning_rate"])["score"].mean()
    return {name: float(means[name].idxmax()) for name in task.blocks}


def is_broken(scores, task):
    """Say which runs of one block broke: those that end more than `task.broken` below the best of them.

    Parameters
    ----------
    scores : pandas.Series
        Of the measure that the task names, all of one block.
    task : upconv.book.tasks.Task

    Returns
    -------
    pandas.Series of bool
    """
    return scores < scores.max() - task.broken


def best_stable_rates(task, tier="mini"):
    """Give the learning rate that is best for each of the `FOUR`, of those of `RATES` at which no run of it broke.

    Parameters
    ----------
    task : upconv.book.tasks.Task
    tier : str
        "mini" or "full".

    Returns
    -------
    dict of str to float
        By the name of the block: the rate with the highest mean score on validation images, from the runs of full
        length in `data/results/rates.csv`.

    Raises
    ------
    ValueError
        If the table has other runs than every such block with every rate and every seed, or no rate is left.
    """
    table = _of_task("rates", task, tier, "score_end", {"learning_rate": RATES}, FOUR)
    rates = {}
    for name, runs in table.groupby("upsampling", sort=False):
        broken = is_broken(runs["score_end"], task).groupby(runs["learning_rate"]).transform("any")
        stable = runs[~broken]
        if stable.empty:
            raise ValueError(f"every learning rate broke {name} in the task {task.name!r}; add lower ones")
        rates[name] = float(stable.groupby("learning_rate")["score_end"].mean().idxmax())
    return rates


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
        By the name of the block, and for the reference trained folded by `upconv.book.blocks.FOLDED`; in tens, from the
        measured times of `data/results/step_time.csv`: of a whole training step (forward, backward, Adam), the median
        over the repetitions.

    Raises
    ------
    ValueError
        If the table has other runs than every block in every repetition.
    """
    blocks = *task.blocks, FOLDED
    ratios = _of_task("step_time", task, tier, "ratio", {}, blocks).groupby("upsampling")["ratio"].median()
    steps = task.tiers[tier]["steps"]
    return {name: steps if name == REFERENCE else 10 * round(steps / float(ratios[name]) / 10) for name in blocks}


def _of_task(name, task, tier, measure, others, blocks=None):
    """Read a task's rows of a table; they must be complete, each run once and its measure finite."""
    table = read_results(name, tier)
    table = table[table["task"] == task.name]
    expected = pd.MultiIndex.from_product([list(blocks or task.blocks), *others.values(), sorted(set(table["seed"]))])
    found = pd.MultiIndex.from_frame(table[["upsampling", *others, "seed"]])
    steps = table["steps"].nunique() if "steps" in table else 1
    if not np.isfinite(table[measure]).all() or steps > 1 or sorted(found) != sorted(expected) or table.empty:
        raise ValueError(
            f"{name}.csv has not every block of the task {task.name!r} once for each seed, or a value that is not "
            f"finite; run `python -m tools.sweeps {name}`, or remove the table and run it"
        )
    return table


def settings_of(task, tier="mini", comparisons=None):
    """List the runs of a task: every block in every comparison; one run serves all comparisons that it fits.

    Parameters
    ----------
    task : upconv.book.tasks.Task
    tier : str
        "mini" or "full".
    comparisons : tuple of str, optional
        Of `COMPARISONS`, those that are wanted; another name is a ValueError. By default the task's.

    Returns
    -------
    list of dict
        `comparisons` (names from `COMPARISONS`, with spaces between), `upsampling`, `channels` (ints with spaces
        between), `steps`, `batch_size` and `learning_rate`. The learning rate is the block's in all but "rates"; in
        that and in "macs" are the `FOUR` alone. "folded" is the reference, with the steps that it makes in the time of
        "time" if it is trained as one layer.
    """
    comparisons = task.comparisons if comparisons is None else comparisons
    if not set(comparisons) <= set(COMPARISONS):
        raise ValueError(f"comparisons={comparisons!r} must be a tuple of {', '.join(COMPARISONS)}")
    plain = task.tiers[tier]
    rates, steps = chosen_learning_rates(task, tier), equal_time_steps(task, tier)
    tuned = best_stable_rates(task, tier) if "rates" in comparisons else {}
    runs = {}

    def add(comparison, name, channels=plain["channels"], steps=plain["steps"], rate=None):
        if comparison in comparisons:
            runs.setdefault((name, channels, steps, rate or rates[name]), []).append(comparison)

    for name in task.blocks:
        add("channels", name)
        add("parameters", name, matched_channels(task, name, tier))
        add("time", name, steps=steps[name])
        if name == REFERENCE:
            add("folded", name, steps=steps[FOLDED])
        if name in FOUR:
            add("macs", name, matched_channels(task, name, tier, "macs"))
        if name in tuned:
            add("rates", name, rate=tuned[name])
    return [
        dict(
            comparisons=" ".join(comparisons),
            upsampling=name,
            channels=" ".join(map(str, channels)),
            steps=number,
            batch_size=plain["batch_size"],
            learning_rate=rate,
        )
        for (name, channels, number, rate), comparisons in runs.items()
    ]


def seeds_of(setting):
    """Give the number of seeds of one of the runs of `settings_of`: more for the blocks that are asked about most.

    Parameters
    ----------
    setting : dict
        As of `settings_of`.

    Returns
    -------
    int
    """
    seeds = {"macs": 10, "rates": 15}
    each = 20 if setting["upsampling"] in MANY else 10
    return max(seeds.get(comparison, each) for comparison in setting["comparisons"].split())


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


def run_setting(task, *, seed, **setting):
    """Make one run of a comparison, as `run_seeds` does of one seed.

    Parameters
    ----------
    task : upconv.book.tasks.Task
    seed : int
        Of the weights and of the order of the images.
    **setting
        The other arguments of `run_seeds`.

    Returns
    -------
    dict of str to float
        What `run_seeds` gives for the seed.
    """
    [measures] = run_seeds(task, seeds=[seed], **setting)
    return measures


def run_seeds(
    task, comparisons, upsampling, channels, steps, batch_size, learning_rate, *, seeds, tier="mini", device="cpu"
):
    """Make runs of a comparison: train a network for each seed, measure them on the test images.

    Parameters
    ----------
    task : upconv.book.tasks.Task
    comparisons, upsampling, channels, steps, batch_size, learning_rate
        As of `settings_of`.
    seeds : list of int
        Of the weights and of the order of the images.
    tier : str
        "mini" or "full".
    device : str
        Where the networks are trained.

    Returns
    -------
    list of dict of str to float
        For each seed, `parameters` and `macs` (for one image) of the decoder; then what the task's `measures` gives,
        after 0, 20, 200 and all steps (`psnr_0`, `psnr_20`, `psnr_200`, `psnr_end` and so on), the early ones if there
        are so many steps; and its score (`psnr_training`) at the end on as many training images as there are test
        images.

    Raises
    ------
    FloatingPointError
        If the training of a single one breaks off.
    ValueError
        If that of one of several did.
    """

    def build():
        return task.build(upsampling, _widths(channels), tier)

    parameters, macs = task.parameters_and_macs(build())
    found = [{"parameters": parameters, "macs": macs} for _ in seeds]

    def look(model, place, step):
        for name in [step] * (step in EARLY) + ["end"] * (step == steps):
            measures = task.measure(model, tier=tier)
            found[place].update({f"{measure}_{name}": value for measure, value in measures.items()})

    options = dict(steps=steps, batch_size=batch_size, learning_rate=learning_rate, device=device)
    models = train_seeds(build, seeds, *task.data("train", tier), look=look, looks=EARLY, **options)
    test = len(task.data("test", tier)[0])
    for model, measures in zip(models, found, strict=True):
        measures[f"{task.score}_training"] = task.measure(model, "train", tier, slice(test))[task.score]
    return found


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
