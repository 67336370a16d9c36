"""The book's photographs and curves: matplotlib figures with a transparent background, for light and dark pages."""

import textwrap

import matplotlib.pyplot as plt
import torch
from matplotlib.colors import to_rgb

from upconv.book.common import check_choice
from upconv.book.drawings import BLUE, GREEN, GREY, ORANGE, PINK, SKY
from upconv.book.tasks import boundary

__all__ = [
    "boundary_errors",
    "class_colours",
    "curves",
    "forest",
    "image_grid",
    "use_book_style",
]

CLASS_COLOURS = ("#4d4d4d", ORANGE, SKY, PINK, GREEN, BLUE)
VERDICTS = {  # a marker, its colour, and what fills it
    "more": (">", BLUE, BLUE),
    "less": ("<", ORANGE, ORANGE),
    "equivalent": ("s", GREEN, GREEN),
    "undecided": ("o", GREY, "none"),
}
LINES = ("-", "--", "-.", ":")
MARKERS = "os^vDPX<>*"


def class_colours(masks):
    """Colour every pixel by its class.

    Parameters
    ----------
    masks : torch.Tensor, shape (N, H, W)
        int64, from 0 (dark grey) to 5.

    Returns
    -------
    torch.Tensor, shape (N, 3, H, W)
        From 0 to 1, float32.
    """
    return _rgb(CLASS_COLOURS)[masks.cpu()].permute(0, 3, 1, 2)


def boundary_errors(images, found, masks):
    """Show where the foreground's boundary is wrong, on a pale copy of the images.

    Parameters
    ----------
    images : torch.Tensor, shape (N, 1, H, W)
        From 0 to 1.
    found, masks : torch.Tensor, shape (N, H, W)
        int64, the classes that were found and the true ones; the foreground is all but 0.

    Returns
    -------
    torch.Tensor, shape (N, 3, H, W)
        Green where the two boundaries agree, blue where one was missed, orange where one was found and is none.
    """
    edge, true_edge = (torch.from_numpy(boundary((some > 0).cpu().numpy())) for some in (found, masks))
    pale = (0.55 + 0.45 * images.detach().cpu().float()).expand(-1, 3, -1, -1).permute(0, 2, 3, 1).clone()
    green, blue, orange = _rgb((GREEN, BLUE, ORANGE))
    pale[edge & true_edge], pale[true_edge & ~edge], pale[edge & ~true_edge] = green, blue, orange
    return pale.permute(0, 3, 1, 2)


def _rgb(colours):
    return torch.tensor([to_rgb(colour) for colour in colours])


def use_book_style():
    """Set matplotlib up for the book: no background, mid-grey text that reads on light and dark, Okabe-Ito colours."""
    text = "#7a7a7a"
    plt.rcParams.update(
        {
            "figure.facecolor": "none",
            "axes.facecolor": "none",
            "savefig.facecolor": "none",
            "savefig.transparent": True,
            "figure.dpi": 110,
            "font.size": 11,
            "axes.prop_cycle": plt.cycler(color=[BLUE, ORANGE, GREEN, PINK, SKY, GREY]),
            "axes.spines.top": False,
            "axes.spines.right": False,
            **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), text),
        }
    )


def image_grid(rows, labels, titles=None, *, size=1.0):
    """Show rows of images, each row with a label on its left.

    Parameters
    ----------
    rows : list of torch.Tensor, each of shape (N, C, H, W)
        Values from 0 to 1, C of 1 or 3; every row has the same N.
    labels : list of str
        One a row.
    titles : list of str, optional
        One a column.
    size : float
        Inches an image.

    Returns
    -------
    matplotlib.figure.Figure
    """
    columns = len(rows[0])
    figure, axes = plt.subplots(
        len(rows), columns, figsize=(columns * size + 1.3, len(rows) * size + 0.1), squeeze=False, layout="constrained"
    )
    for row, images, label in zip(axes, rows, labels, strict=True):
        for axis, image in zip(row, images.detach().cpu().clamp(0, 1), strict=True):
            axis.imshow(image.permute(1, 2, 0).squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        row[0].set_ylabel(label, rotation=0, ha="right", va="center")
    for axis, title in zip(axes[0], titles or [], strict=False):
        axis.set_title(title, fontsize=11)
    return figure


def forest(families, *, labels, label, margin=None):
    """Show families of differences: a panel a family, a row a setting, the mean and its 95% interval, and the verdict.

    Verdicts differ in shape and colour: a full triangle that points to the right is "more", one to the left "less", a
    full square "equivalent", an open circle "undecided".

    Parameters
    ----------
    families : dict of str to pandas.DataFrame
        By the title of the panel, as of `upconv.book.verdicts.family`.
    labels : dict of str to str
        For every setting, from top to bottom, the label of its row; those in no family get none.
    label : str
        That of the axis.
    margin : float, optional
        Differences up to this are shaded: they do not matter.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If a setting has no label.
    """
    given = {name for rows in families.values() for name in rows.index}
    if not given <= set(labels):
        raise ValueError(f"there is no label for {', '.join(sorted(map(str, given - set(labels))))}")
    names = [name for name in labels if name in given]
    figure, (axes,) = plt.subplots(
        1,
        len(families),
        figsize=(7.5, 0.3 * len(names) + 1.5),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    shown = {}
    for axis, (title, rows) in zip(axes, families.items(), strict=True):
        axis.axvline(0, color=GREY, linewidth=1)
        if margin is not None:
            axis.axvspan(-margin, margin, color=GREY, alpha=0.2, linewidth=0)
        for verdict, (marker, colour, face) in VERDICTS.items():
            some = rows[rows["verdict"] == verdict]
            if len(some):
                ends = some[["low", "high"]].sub(some["mean"], axis=0).abs().to_numpy().T
                style = dict(fmt=marker, color=colour, markerfacecolor=face, markersize=6, linewidth=1.5)
                heights = [names.index(name) for name in some.index]
                shown[verdict] = axis.errorbar(some["mean"], heights, xerr=ends, **style)
        axis.set_title(textwrap.fill(title, 60 // len(families)), fontsize=9)
        axis.tick_params(labelsize=9)
        axis.grid(axis="y", alpha=0.25)
        axis.locator_params(axis="x", nbins=4)
    axes[0].set_yticks(range(len(names)), [labels[name] for name in names])
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    figure.supxlabel(label, fontsize=10)
    legend = {verdict: shown[verdict] for verdict in VERDICTS if verdict in shown}
    figure.legend(legend.values(), legend, loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    return figure


def curves(runs, columns, *, by, labels, label, band="std"):
    """Show how a measure changes in training: a line a setting, its mean over the seeds, and a band around it.

    Lines differ in colour, dashes and marker.

    Parameters
    ----------
    runs : pandas.DataFrame
        One run for every setting and seed.
    columns : dict of int to str
        For every step the column that has the measure then. The axis of the steps is logarithmic, with a place for 0.
    by : str
        The column that tells the settings apart.
    labels : dict of str to str
        For every setting that is shown, its label.
    label : str
        That of the axis.
    band : str
        "std", a standard deviation (with n - 1) to both sides of the mean, or "range", from the lowest seed to the
        highest.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If there is no such band, a setting has no run, or a run lacks a value.
    """
    check_choice("band", band, ("std", "range"))
    steps = sorted(columns)
    found = {name: _values(runs, by, name, [columns[step] for step in steps]) for name in labels}
    figure, axis = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
    for number, (name, values) in enumerate(found.items()):
        mean, std = values.mean(), values.std()
        low, high = (mean - std, mean + std) if band == "std" else (values.min(), values.max())
        style = dict(linestyle=LINES[number % len(LINES)], marker=MARKERS[number % len(MARKERS)], markersize=5)
        (line,) = axis.plot(steps, mean, label=labels[name], **style)
        axis.fill_between(steps, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axis.set_xscale("symlog", linthresh=min((step for step in steps if step > 0), default=1))
    axis.set_xticks(steps, [f"{step:,}" for step in steps])
    axis.minorticks_off()
    axis.set(xlabel="steps", ylabel=label)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9, handlelength=3)
    return figure


def _values(table, by, name, columns):
    values = table.loc[table[by] == name, columns]
    if values.empty or values.isna().any(axis=None):
        raise ValueError(f"the table has no run with {by}={name!r}, or one without a value")
    return values
