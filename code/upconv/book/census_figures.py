"""The figures of the two censuses: what trained layers threaten beside what pictures show, and who upsamples how."""

import matplotlib.pyplot as plt

from upconv.book.drawings import BLUE, GREEN, GREY, ORANGE, PINK, SKY

__all__ = ["by_task", "census"]

FILLS = (BLUE, GREEN, SKY, ORANGE, PINK, GREY)
LEGIBLE = 0.095  # of a bar: the narrowest part that has room for its number

STRIDES = {2: ("o", BLUE), 3: ("^", ORANGE)}  # a marker and its colour
LEAST = 0.01  # grey levels: where the axis of the patterns begins


def census(layers, responses, *, labels):
    """Show what the weights of trained layers could draw, beside the patterns that the networks' pictures show.

    A row a family of networks. On the left a dot for each transposed convolution, a triangle where its stride is 3, and
    a line for what is expected of a fresh layer with that stride; on the right, on a logarithmic axis, a diamond for
    each network, and a line at one grey level of 255. A pattern of less than 0.01 grey levels is an arrow at the axis's
    left end.

    Parameters
    ----------
    layers : pandas.DataFrame
        A row for each layer: `network`, `stride`, `off_dc_energy` and `fresh`, as in data/results/weights.csv.
    responses : pandas.DataFrame
        A row for each network: `network` and `pattern`, as in data/results/flat_responses.csv. Networks without a
        pattern are not shown.
    labels : dict of str to str
        For what the names of a family's networks begin with, from top to bottom, the label of its row.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If a network is of no family, or a layer has another stride than 2 or 3.
    """
    if other := set(layers["stride"]) - set(STRIDES):
        raise ValueError(f"a layer's stride must be one of {', '.join(map(str, STRIDES))}, not {other.pop()}")
    shown = responses.dropna(subset="pattern")
    shown, less = shown[shown["pattern"] >= LEAST], shown[shown["pattern"] < LEAST]
    size = (7.5, 0.55 * len(labels) + 1.9)
    figure, (left, right) = plt.subplots(1, 2, figsize=size, sharey=True, layout="constrained")
    legend = {}
    for stride, (marker, colour) in STRIDES.items():
        some = layers[layers["stride"] == stride]
        if len(some):
            heights = _heights(some, labels, "off_dc_energy")
            style = dict(marker=marker, color=colour, s=26, alpha=0.8, linewidth=0)
            legend[f"a layer, stride {stride}"] = left.scatter(some["off_dc_energy"], heights, **style)
            style = dict(color=colour, linestyle="--", linewidth=1.2)
            legend[f"a fresh layer, stride {stride}"] = left.axvline(some["fresh"].iloc[0], **style)
    style = dict(color=GREEN, s=26, linewidth=0)
    heights = _heights(shown, labels, "pattern")
    legend["a network"] = right.scatter(shown["pattern"], heights, marker="D", alpha=0.8, **style)
    if len(less):
        places = [LEAST] * len(less), _heights(less, labels, "pattern")
        legend[f"a network, less than {LEAST}"] = right.scatter(*places, marker="<", clip_on=False, **style)
    legend["one grey level"] = right.axvline(1, color=GREY, linestyle=":", linewidth=1.5)
    left.set(xlim=(0, 1), xlabel="share of flat inputs' energy")
    left.set_title("what the weights threaten", fontsize=11)
    right.set(xscale="log", xlabel="pattern of flat pictures, of 255 levels")
    right.xaxis.set_major_formatter("{x:g}")
    right.set_xlim(LEAST, 1.5 * max(1, shown["pattern"].max()))
    right.set_title("what the picture shows", fontsize=11)
    left.set_yticks(range(len(labels)), list(labels.values()))
    left.set_ylim(len(labels) - 0.5, -0.5)
    for axis in (left, right):
        axis.tick_params(labelsize=9)
        axis.xaxis.label.set_fontsize(9)
        axis.grid(axis="y", alpha=0.25)
    figure.legend(legend.values(), legend, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def by_task(models, groups):
    """Show which forms of upsampling the models of each task use: a bar a task, a part of it for each form.

    Every model has the same weight: if half of its steps are of one form, it counts there as half a model. So one with
    a hundred steps does not hide the others.

    Parameters
    ----------
    models : pandas.DataFrame
        A row for each model: `task`, `steps`, and the number of steps of each form, as in data/results/census.csv.
    groups : dict of str to list of str
        Up to six labels, in the order of the parts, and the columns that each of them adds up.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If there are more than six groups, or a model's steps are not those of the groups.
    """
    if len(groups) > len(FILLS):
        raise ValueError(f"there are colours for {len(FILLS)} groups, not for {len(groups)}")
    steps = models["steps"]
    shares = {label: models[columns].sum(axis=1) / steps for label, columns in groups.items()}
    if ((sum(shares.values()) - 1).abs() > 1e-9).any() or (steps == 0).any():
        raise ValueError("the groups must hold every step of a model once, and each model must have one")
    tasks = list(dict.fromkeys(models["task"]))
    counts = models["task"].value_counts()
    figure, axis = plt.subplots(figsize=(7.5, 0.36 * len(tasks) + 1.3), layout="constrained")
    left = [0.0] * len(tasks)
    for (label, share), fill in zip(shares.items(), FILLS, strict=False):
        widths = share.groupby(models["task"]).mean()[tasks].tolist()
        bars = axis.barh(tasks, widths, left=left, color=fill, height=0.72, label=label)
        texts = [f"{width:.0%}" if width >= LEGIBLE else "" for width in widths]
        axis.bar_label(bars, texts, label_type="center", fontsize=8.5, color="white" if fill == BLUE else "#1a1a1a")
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axis.set_yticks(range(len(tasks)), [f"{task} ({counts[task]})" for task in tasks])
    axis.set(xlim=(0, 1), ylim=(len(tasks) - 0.5, -0.5))
    axis.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
    axis.set_xlabel("of a task's models", fontsize=9)
    axis.tick_params(labelsize=9)
    axis.tick_params(axis="y", length=0)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def _heights(rows, labels, column):
    """Give the height of each dot: its family's row, and a little above or below, by its rank in the family."""
    family = rows["network"].map(lambda name: _family(name, labels))
    rank = rows[column].groupby(family).rank(method="first").astype(int)
    return family + 0.09 * ((rank % 5) - 2)


def _family(network, labels):
    found = [number for number, prefix in enumerate(labels) if network.startswith(prefix)]
    if not found:
        raise ValueError(f"there is no label for {network}")
    return found[0]
