"""The figure of the census of trained weights: what layers threaten beside what pictures show."""

import matplotlib.pyplot as plt

from upconv.book.drawings import BLUE, GREEN, GREY, ORANGE

__all__ = ["census"]

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
