"""The photographs and curves show every value that they are given, in its place and colour."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch

from upconv.book.figures import boundary_errors, class_colours, image_grid, seed_points, use_book_style


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


def test_seed_points_shows_every_run_and_the_means():
    use_book_style()
    one = pd.DataFrame({"block": ["a", "b", "a", "b", "c", "a"], "psnr": [1.0, 5.0, 3.0, 6.0, 99.0, 8.0]})
    other = pd.DataFrame({"block": ["b", "a"], "psnr": [7.0, 4.0]})
    names = {"b": "block b", "a": "block a"}
    figure = seed_points({"one": one, "other": other}, "psnr", names, {"line": 2.5}, by="block", label="PSNR in dB")
    [axis] = figure.axes
    rows = dict(zip(axis.get_yticks(), (tick.get_text() for tick in axis.get_yticklabels()), strict=True))
    assert rows == {0: "block b", 1: "block a"} and axis.yaxis_inverted()
    assert axis.get_xlabel() == "PSNR in dB"
    shown = {"o": [], "|": []}
    for line in axis.lines:
        if line.get_marker() in shown:
            row = round(line.get_ydata()[0])
            assert abs(line.get_ydata()[0] - row) < 0.35
            shown[line.get_marker()].append((rows[row], line.get_color(), *line.get_xdata()))
    first, second = plt.rcParams["axes.prop_cycle"].by_key()["color"][:2]
    assert shown["o"] == [
        ("block b", first, 5, 6), ("block a", first, 1, 3, 8), ("block b", second, 7), ("block a", second, 4)
    ]  # fmt: skip
    assert shown["|"] == [
        ("block b", first, 5.5), ("block a", first, 4), ("block b", second, 7), ("block a", second, 4)
    ]  # fmt: skip
    [dashed] = [line for line in axis.lines if line.get_linestyle() == "--"]
    [text] = axis.texts
    assert list(dashed.get_xdata()) == [2.5, 2.5] and (text.get_text(), text.xy[0]) == ("line", 2.5)
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["one", "other"]


def test_seed_points_needs_a_value_for_every_run():
    table = pd.DataFrame({"upsampling": ["a", "a", "b"], "psnr": [1.0, 2.0, 5.0]})
    assert seed_points({"one": table}, "psnr", {"b": "b"}).axes[0].get_xlabel() == "psnr"
    for wrong in (table[:2], table.assign(psnr=[1.0, 2.0, float("nan")])):
        with pytest.raises(
            ValueError, match="the table 'other' has no run with upsampling='b', or one without a value"
        ):
            seed_points({"one": table, "other": wrong}, "psnr", {"a": "a", "b": "b"})


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
