"""The photographs and curves show every value that they are given, in its place and colour."""

import math

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_rgb

from upconv.book.figures import (
    boundary_errors,
    class_colours,
    curves,
    forest,
    image_grid,
    use_book_style,
)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_image_grid_shows_every_image_and_is_transparent():
    use_book_style()
    images = torch.rand(3, 1, 4, 5), torch.rand(3, 3, 4, 5)
    figure = image_grid(list(images), ["grey", "colour"], ["a", "b", "c"])
    shown = [axis.get_images()[0].get_array() for axis in figure.axes]
    assert [tuple(array.shape) for array in shown] == [(4, 5)] * 3 + [(4, 5, 3)] * 3
    torch.testing.assert_close(torch.from_numpy(shown[1].data), images[0][1, 0])
    torch.testing.assert_close(torch.from_numpy(shown[5].data), images[1][2].permute(1, 2, 0))
    assert all(axis.get_images()[0].get_clim() == (0, 1) for axis in figure.axes[:3])
    assert [axis.get_title() for axis in figure.axes] == ["a", "b", "c", "", "", ""]
    assert [axis.get_ylabel() for axis in figure.axes] == ["grey", "", "", "colour", "", ""]
    assert figure.get_facecolor()[3] == 0


ROWS = pd.DataFrame(
    [
        (0.5, 0.2, 0.9, "more"),
        (-0.4, -0.5, -0.3, "less"),
        (0.01, -0.02, 0.05, "equivalent"),
        (0.1, -0.3, 0.4, "undecided"),
    ],
    index=["a", "b", "c", "d"],
    columns=["mean", "low", "high", "verdict"],
)


def drawn(axis):
    """What an axis of a forest shows by row: the verdict's marker and fill, its colour, the mean and the interval."""
    found = {}
    for container in axis.containers:
        points, _, (intervals,) = container.lines
        style = points.get_marker(), points.get_markerfacecolor(), points.get_color()
        for x, y, ends in zip(*points.get_data(), intervals.get_segments(), strict=True):
            assert ends[:, 1].tolist() == [y, y]
            found[round(y)] = (*style, x, *ends[:, 0])
    return found


def test_a_forest_shows_every_difference_in_its_row_and_panel():
    use_book_style()
    other = ROWS.iloc[1:3].rename(index={"b": "e", "c": "a"})
    labels = {"d": "block d", "a": "block a", "none": "in no family", "b": "block b", "c": "block c", "e": "block e"}
    figure = forest({"one": ROWS, "other": other}, labels=labels, label="PSNR, dB", margin=0.1)
    assert figure.get_facecolor()[3] == 0 and figure.get_supxlabel() == "PSNR, dB"
    first, second = figure.axes
    assert [axis.get_title() for axis in figure.axes] == ["one", "other"]
    texts = [tick.get_text() for tick in first.get_yticklabels()]
    assert texts == ["block d", "block a", "block b", "block c", "block e"]
    assert first.get_yticks().tolist() == [0, 1, 2, 3, 4]
    assert first.yaxis_inverted() and first.get_ylim() == second.get_ylim() and first.get_xlim() == second.get_xlim()
    for axis, rows in ((first, ROWS), (second, other)):
        found = drawn(axis)
        assert len(found) == len(rows)
        for name, row in rows.iterrows():
            *_, mean, low, high = found[texts.index(labels[name])]
            assert (mean, low, high) == pytest.approx((row["mean"], row["low"], row["high"]))
        [band] = axis.patches
        ends = axis.transData.inverted().transform(band.get_window_extent())[:, 0]
        assert ends.tolist() == pytest.approx([-0.1, 0.1])
        assert any(list(line.get_xdata()) == [0, 0] for line in axis.lines)


def test_a_forests_verdicts_differ_in_shape_and_colour():
    use_book_style()
    labels = dict(zip("abcd", "abcd", strict=True))
    figure = forest({"one": ROWS, "other": ROWS.iloc[:2]}, labels=labels, label="x")
    found = drawn(figure.axes[0])
    markers, faces, colours = zip(*(found[row][:3] for row in range(4)), strict=True)
    assert markers == (">", "<", "s", "o") and len(set(colours)) == 4
    assert faces == (*colours[:3], "none")
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["more", "less", "equivalent", "undecided"]
    assert not figure.axes[0].patches
    [legend] = forest({"one": ROWS.iloc[1:2]}, labels=labels, label="x").legends
    assert [text.get_text() for text in legend.get_texts()] == ["less"]


def test_a_forest_takes_five_panels_and_breaks_their_titles():
    families = {title: ROWS for title in ("equal channels", "equal parameters", "c", "d", "each at its best rate")}
    figure = forest(families, labels=dict.fromkeys("abcd", "x"), label="x")
    assert [axis.get_title() for axis in figure.axes[1::3]] == ["equal\nparameters", "each at its\nbest rate"]
    with pytest.raises(ValueError, match="there is no label for b, d"):
        forest({"one": ROWS}, labels={"a": "a", "c": "c"}, label="x")


RUNS = pd.DataFrame(
    {"block": ["a", "b", "a", "b", "c"], "p_0": [1.0, 5.0, 3.0, 5.0, 0], "p_end": [2.0, 7.0, 8.0, 9.0, 0], "p_20": 4.0}
)


@pytest.mark.parametrize("band", ["std", "range"])
def test_curves_show_the_mean_and_the_band_of_every_setting(band):
    use_book_style()
    columns = {300: "p_end", 0: "p_0", 20: "p_20"}
    labels = {"b": "block b", "a": "block a"}
    figure = curves(RUNS, columns, by="block", labels=labels, label="PSNR, dB", band=band)
    [axis] = figure.axes
    assert (axis.get_xlabel(), axis.get_ylabel(), axis.get_xscale()) == ("steps", "PSNR, dB", "symlog")
    assert axis.get_xticks().tolist() == [0, 20, 300]
    places = axis.transData.transform([(step, 0) for step in (0, 20, 300)])[:, 0]
    assert (places[2] - places[1]) / (places[1] - places[0]) == pytest.approx(0.9 * math.log10(300 / 20))
    spread = {"std": (2**0.5, 18**0.5), "range": (1, 3)}[band]
    expected = {"b": ([5, 4, 8], [0, 0, 2**0.5 if band == "std" else 1]), "a": ([2, 4, 5], [spread[0], 0, spread[1]])}
    for line, shade, (name, (means, around)) in zip(axis.lines, axis.collections, expected.items(), strict=True):
        assert line.get_label() == labels[name] and line.get_xdata().tolist() == [0, 20, 300]
        assert line.get_ydata().tolist() == pytest.approx(means)
        corners = shade.get_paths()[0].vertices
        for step, mean, half in zip((0, 20, 300), means, around, strict=True):
            heights = corners[corners[:, 0] == step, 1]
            assert (heights.min(), heights.max()) == pytest.approx((mean - half, mean + half))
        assert shade.get_facecolor()[0, :3].tolist() == pytest.approx(list(to_rgb(line.get_color())))
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["block b", "block a"]


def test_ten_curves_differ_without_their_colours():
    use_book_style()
    names = "abcdefghij"
    table = pd.DataFrame({"block": list(names), "p": 1.0, "q": 2.0})
    figure = curves(table, {1: "p", 9: "q"}, by="block", labels=dict(zip(names, names, strict=True)), label="x")
    lines = figure.axes[0].lines
    assert len({(line.get_linestyle(), line.get_marker()) for line in lines}) == 10
    assert len({line.get_linestyle() for line in lines}) == 4


def test_curves_need_a_value_for_every_run():
    for block, table in (("z", RUNS), ("a", RUNS.assign(p_0=[1.0, 5.0, float("nan"), 5.0, 0]))):
        with pytest.raises(ValueError, match=f"the table has no run with block='{block}', or one without a value"):
            curves(table, {0: "p_0", 20: "p_20"}, by="block", labels={block: "x"}, label="x")
    with pytest.raises(ValueError, match="band='sem' must be one of 'std', 'range'"):
        curves(RUNS, {0: "p_0"}, by="block", labels={"a": "x"}, label="x", band="sem")


def test_classes_and_boundary_errors_have_their_colours():
    masks = torch.zeros(1, 5, 5, dtype=torch.int64)
    masks[0, 1:4, 1:4] = 2
    colours = class_colours(torch.arange(6).reshape(1, 1, 6))
    assert colours.shape == (1, 3, 1, 6) and len({tuple(c.tolist()) for c in colours[0, :, 0].T}) == 6
    assert torch.equal(class_colours(masks)[0, :, 2, 2], colours[0, :, 0, 2])
    assert torch.equal(class_colours(masks)[0, :, 0, 0], colours[0, :, 0, 0])
    assert colours[0, :, 0, 0].tolist() == pytest.approx([77 / 255] * 3)  # dark grey
    images = torch.zeros(1, 1, 5, 5)
    images[0, 0, 0, 0] = 1
    found = masks.roll(1, dims=2)
    marked = boundary_errors(images, found, masks)[0]
    green, blue, orange = (torch.tensor(c) / 255 for c in ((0, 158, 115), (0, 114, 178), (230, 159, 0)))
    expected = {(1, 1): blue, (2, 1): blue, (1, 4): orange, (3, 2): green, (1, 3): green, (2, 2): orange, (2, 3): blue}
    for (row, column), colour in expected.items():
        torch.testing.assert_close(marked[:, row, column], colour, rtol=0, atol=1e-6)
    assert marked[:, 0, 0].tolist() == pytest.approx([1, 1, 1]) and marked[:, 4, 0].tolist() == pytest.approx(
        [0.55] * 3
    )
    other = torch.where(masks > 0, 1, 0)  # another class is the same foreground
    assert torch.equal(boundary_errors(images, other, masks), boundary_errors(images, masks, masks))
