"""The drawings show what they say, and carry their own alternative text."""

import re
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from torch import nn

from upconv import conv_matrix, overlap_counts
from upconv.book.figures import (
    Drawing,
    boundary_errors,
    class_colours,
    draw_conv,
    draw_conv_transpose,
    draw_families,
    draw_forms,
    draw_matrix,
    draw_network,
    draw_phases,
    draw_summed_weights,
    draw_unet,
    image_grid,
    seed_points,
    use_book_style,
)
from upconv.book.models import UNet

SVG = "{http://www.w3.org/2000/svg}"


def parse(drawing):
    """The root of the SVG, which this also proves to be well-formed."""
    return ElementTree.fromstring(drawing._repr_html_()).find(f"{SVG}svg")


def cells(drawing):
    """Column, row, text and style of every cell."""
    found = []
    for group in parse(drawing).iter(f"{SVG}g"):
        square, text = group.find(f"{SVG}rect"), group.find(f"{SVG}text")
        x, y = float(square.get("x")) - 1, float(square.get("y")) - 1
        found.append((x / 26, y, "" if text is None else text.text, square.attrib))
    return found


def rows(drawing):
    by_row = {}
    for column, y, text, attributes in cells(drawing):
        by_row.setdefault(y, []).append((column, text, attributes))
    return [by_row[y] for y in sorted(by_row)]


@pytest.mark.parametrize(
    "drawing",
    [
        draw_conv(7, 3, 2, 1),
        draw_conv_transpose(4, 3, 2, 1, 1),
        draw_matrix(torch.eye(2)),
        draw_phases(4, 2, 1),
        draw_forms(),
        draw_families(3, 2),
        draw_summed_weights(2, 2, (0, 1)),
        draw_summed_weights(3, 3),
    ],
)
def test_a_drawing_is_well_formed_inside_its_frame_and_described(drawing):
    svg = parse(drawing)
    assert svg.get("role") == "img"
    assert svg.get("aria-label") == repr(drawing) == drawing.alt
    assert len(drawing.alt) > 20
    width, height = float(svg.get("width")), float(svg.get("height"))
    for column, y, _, _ in cells(drawing):
        assert 0 <= column * 26 <= width - 26
        assert 0 <= y <= height - 26


def test_text_is_escaped():
    drawing = Drawing(10, 10, 'a < "b"')
    drawing.text(0, 0, "x < y & z")
    assert parse(drawing).find(f"{SVG}text").text == "x < y & z"


def test_draw_conv_shows_padding_and_one_window_for_every_output_pixel():
    top, *windows, bottom = rows(draw_conv(7, kernel_size=3, stride=2, padding=1))
    assert [text for _, text, _ in top] == ["", *"0123456", ""]
    assert [("stroke-dasharray" in style) for _, _, style in top] == [True] + [False] * 7 + [True]
    assert [[column for column, _, _ in window] for window in windows] == [[0, 1, 2], [2, 3, 4], [4, 5, 6], [6, 7, 8]]
    assert [text for _, text, _ in bottom] == list("0123")
    assert [style["fill"] for _, _, style in bottom] == [window[0][2]["fill"] for window in windows]


def words(drawing):
    return [text.text for text in parse(drawing).iter(f"{SVG}text")]


def test_draw_conv_says_what_it_shows():
    drawing = draw_conv(8, kernel_size=3, stride=2, padding=1)
    assert words(drawing)[-1] == "output 4"
    assert [word for word in words(drawing) if word.startswith("window")] == [f"window {j}" for j in range(4)]
    assert "input 8 + 2·1" in words(drawing)
    assert drawing.alt.endswith("on 8 pixels: windows begin at -1, 1, 3, 5, so 4 pixels come out.")
    faded = [group.get("opacity") is not None for group in parse(drawing).iter(f"{SVG}g")]
    assert faded[:10] == [False] * 9 + [True], "the last padded pixel is read by no window"


def test_draw_conv_transpose_and_draw_matrix_say_what_they_show():
    drawing = draw_conv_transpose(4, kernel_size=3, stride=2, padding=1)
    assert words(drawing)[-1] == "output 7"
    assert [word for word in words(drawing) if word.startswith("stamp")] == [f"stamp of x{i}" for i in range(4)]
    assert drawing.alt.endswith("on 4 pixels: 7 pixels come out, reached by 1, 2, 1, 2, 1, 2, 1 taps.")
    assert draw_matrix(torch.tensor([[1, 0], [2, 3]])).alt.endswith("row by row: 1 0; 2 3")


def test_draw_conv_spreads_the_taps_by_the_dilation():
    _, *windows, _ = rows(draw_conv(9, kernel_size=3, stride=3, dilation=2))
    assert [[column for column, _, _ in window] for window in windows] == [[0, 2, 4], [3, 5, 7]]


@pytest.mark.parametrize("setting", [(4, 3, 2, 0, 0), (4, 3, 2, 1, 1), (3, 2, 3, 0, 1), (3, 4, 2, 2, 0)])
def test_draw_conv_transpose_shows_the_stamps_the_crop_and_the_counts(setting):
    n, k, s, p, o = setting
    *stamps, bottom = rows(draw_conv_transpose(*setting))
    assert [[column for column, _, _ in stamp] for stamp in stamps] == [[i * s + a for a in range(k)] for i in range(n)]
    kept = [(int(text), style) for _, text, style in bottom if "stroke-dasharray" not in style]
    assert [count for count, _ in kept] == overlap_counts(*setting).tolist()
    assert len(bottom) == len(kept) + 2 * p
    green = [style["fill"] == "#009E73" for _, style in kept]
    assert green == [False] * (len(kept) - o) + [True] * o


def test_draw_matrix_writes_the_entries_and_leaves_zeros_empty():
    matrix = conv_matrix(torch.tensor([1.0, 2.0]).reshape(1, 1, 1, 2), (1, 3))
    texts = [[text for _, text, _ in row] for row in rows(draw_matrix(matrix, names={1: "a"}))]
    assert texts == [["a", "2", ""], ["", "a", "2"]]


@pytest.mark.parametrize("kernel_size, stride, padding", [(4, 2, 1), (3, 2, 0), (5, 3, 2), (2, 3, 0)])
def test_draw_phases_gives_a_pixel_the_colour_of_the_taps_that_reach_it(kernel_size, stride, padding):
    found = cells(draw_phases(kernel_size, stride, padding))
    taps, output = found[: kernel_size**2], found[kernel_size**2 :]
    size = round(len(output) ** 0.5)
    for index, (_, _, text, style) in enumerate(taps):
        image, weight = torch.ones(1, 1, 3, 3), torch.zeros(1, 1, kernel_size, kernel_size)
        weight.view(-1)[index] = 1
        reached = torch.nn.functional.conv_transpose2d(image, weight, stride=stride, padding=padding).flatten()
        assert len(reached) == size**2
        for hit, (_, _, other, look) in zip(reached.tolist(), output, strict=True):
            if hit:
                assert (text, style["fill"]) == (other, look["fill"])


def test_draw_forms_names_the_four_forms():
    words = [text.text for text in parse(draw_forms()).iter(f"{SVG}text")]
    for name in (
        "Upsample(s) + Conv2d(k)",
        "ConvTranspose2d, stride s",
        "zero-stuffing + Conv2d",
        "Conv2d + PixelShuffle(s)",
    ):
        assert name in words
    assert len(list(parse(draw_forms()).iter(f"{SVG}line"))) == 6


@pytest.mark.parametrize("kernel_size, scale, padding", [(2, 2, 0), (2, 2, 1), (3, 2, 1), (3, 3, 0), (4, 3, 2)])
def test_draw_summed_weights_gives_two_weights_one_colour_if_they_see_one_pixel(kernel_size, scale, padding):
    drawing = draw_summed_weights(kernel_size, scale, (padding,))
    found = cells(drawing)
    image = torch.arange(1.0, 50).reshape(1, 1, 7, 7)
    upsampled = torch.nn.functional.interpolate(image, scale_factor=scale)
    size = kernel_size**2
    assert len(found) == scale**2 * size
    sees = []
    for phase in range(scale**2):
        row, column = (3 * scale + step - padding for step in divmod(phase, scale))
        window = upsampled[0, 0, row : row + kernel_size, column : column + kernel_size].flatten().tolist()
        styles = [(style["fill"], text) for _, _, text, style in found[phase * size : (phase + 1) * size]]
        digits = "₀₁₂₃₄"
        names = [f"w{digits[y]}{digits[x]}" for y in range(kernel_size) for x in range(kernel_size)]
        assert [text for _, text in styles] == names
        pairs = {(pixel, colour) for pixel, (colour, _) in zip(window, styles, strict=True)}
        assert len(pairs) == len({pixel for pixel, _ in pairs}) == len({colour for _, colour in pairs})
        sees.append(len(set(window)))
    assert f"With padding {padding} the phases see {', '.join(map(str, sees))} pixels." in drawing.alt
    assert [word for word in words(drawing) if "pixel" in word] == [f"{n} pixel" + "s" * (n > 1) for n in sees]


def test_draw_summed_weights_shows_the_forums_phase():
    assert "With padding 0 the phases see 1, 2, 2, 4 pixels. With padding 1 the phases see 4, 2, 2, 1" in (
        draw_summed_weights(2, 2, (0, 1)).alt
    )


@pytest.mark.parametrize("kernel_size, scale, sizes", [(3, 2, (6, 5, 3)), (3, 3, (7, 5, 3)), (2, 4, (9, 6, 2))])
def test_draw_families_names_sizes_and_dimensions(kernel_size, scale, sizes):
    drawing = draw_families(kernel_size, scale)
    names = ["ConvTranspose2d", "nearest + Conv2d", "bilinear + Conv2d"]
    assert words(drawing) == [f"{n} {k}x{k}: {k * k} dimensions" for n, k in zip(names, sizes, strict=True)]


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
    plt.close(figure)


def small_network():
    return [
        ("conv", nn.Conv2d(1, 4, 3, stride=2, padding=1)),
        ("relu", nn.ReLU()),
        ("flatten", nn.Flatten()),
        ("linear", nn.Linear(4 * 4 * 4, 10)),
        ("prelu", nn.PReLU()),
        ("back", nn.Unflatten(1, (10, 1, 1))),
        ("up<1>", nn.Sequential(nn.ConvTranspose2d(10, 2, 4, 4))),
        ("elu", nn.ELU()),
        ("drop", nn.Dropout()),
    ]


def test_draw_network_shows_the_shapes_that_the_layers_make():
    drawing = draw_network(small_network(), torch.zeros(3, 1, 8, 8))
    said = words(drawing)
    names = ["input", "conv, relu", "flatten", "linear", "prelu", "back", "up<1>, elu, drop"]
    assert said[1::2] == names  # a layer with parameters has a bar of its own
    assert said[::2] == ["1 × 8 × 8", "4 × 4 × 4", "64", "10", "10", "10 × 1 × 1", "2 × 4 × 4"]
    assert drawing.alt.endswith("1 by 8 by 8, 4 by 4 by 4, 64, 10, 10, 10 by 1 by 1, 2 by 4 by 4")
    bars = list(parse(drawing).iter(f"{SVG}rect"))
    for number, text in enumerate(parse(drawing).iter(f"{SVG}text")):  # two on every bar
        assert 0 < float(text.get("y")) - float(bars[number // 2].get("y")) < 22
    widths = [float(bar.get("width")) for bar in bars]
    assert widths == pytest.approx([140, 70, 10, 10, 10, 17.5, 70])
    assert all(float(bar.get("x")) + width / 2 == pytest.approx(72) for bar, width in zip(bars, widths, strict=True))
    colours = [bar.get("fill") for bar in bars]
    assert colours[0] == colours[2] == colours[5] and len({colours[i] for i in (0, 1, 3, 6)}) == 4
    assert all(float(bar.get("y")) + 22 < drawing.height for bar in bars)


def test_draw_network_changes_nothing():
    layers = [*small_network(), ("norm", nn.BatchNorm2d(2)), ("frozen", nn.BatchNorm2d(2).eval())]
    before = [value.clone() for _, layer in layers for value in layer.state_dict().values()]
    modes, generator = [layer.training for _, layer in layers], torch.get_rng_state()
    seen = []
    layers[0][1].register_forward_hook(lambda layer, _, output: seen.append(output.requires_grad))
    draw_network(layers, torch.ones(2, 1, 8, 8))
    after = [value for _, layer in layers for value in layer.state_dict().values()]
    assert all(map(torch.equal, before, after)) and seen == [False]
    assert [layer.training for _, layer in layers] == modes and torch.equal(torch.get_rng_state(), generator)


def test_draw_network_draws_vectors_alone():
    assert words(draw_network([("linear", nn.Linear(3, 2))], torch.zeros(1, 3)))[::2] == ["3", "2"]


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
    plt.close(figure)


def test_seed_points_needs_a_value_for_every_run():
    table = pd.DataFrame({"upsampling": ["a", "a", "b"], "psnr": [1.0, 2.0, 5.0]})
    assert seed_points({"one": table}, "psnr", {"b": "b"}).axes[0].get_xlabel() == "psnr"
    for wrong in (table[:2], table.assign(psnr=[1.0, 2.0, float("nan")])):
        with pytest.raises(
            ValueError, match="the table 'other' has no run with upsampling='b', or one without a value"
        ):
            seed_points({"one": table, "other": wrong}, "psnr", {"a": "a", "b": "b"})
    plt.close("all")


def test_drawings_take_the_pages_text_colour():
    html = draw_conv_transpose(3, 2, 2)._repr_html_()
    assert set(re.findall(r'(?:stroke|<text[^>]* fill)="([^"]+)"', html)) == {"currentColor"}


def test_a_unet_is_drawn_as_it_is():
    model = UNet(channels=(2, 4, 6), decoder_channels=(3, 5), classes=7, skips=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    drawing = draw_unet(model, torch.rand(1, 1, 24, 16))
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert model.training and not any(part._forward_hooks for part in model.modules())
    assert repr(drawing) == (
        "A U-Net, down on the left and up on the right: images 1 by 24 by 16; encoder 2 by 24 by 16; encoder 4 by 12 "
        "by 8; encoder 6 by 6 by 4; decoder 4 handed over and 5 made, then 5 by 12 by 8; decoder 0 handed over and 3 "
        "made, then 3 by 24 by 16; classes 7 by 24 by 16"
    )
    svg = parse(drawing)
    bars = [(float(bar.get("width")), bar.get("fill")) for bar in svg.iter(f"{SVG}rect")]
    blue, orange = bars[0][1], bars[-2][1]
    widths = [(100, blue), (0, blue), (100, orange), (50, blue), (50 * 4 / 9, blue), (50 * 5 / 9, orange), (25, blue)]
    assert [(pytest.approx(width, rel=1e-4), colour) for width, colour in widths] == bars
    assert [width for width, _ in bars] == pytest.approx([width for width, _ in widths], rel=1e-4)
    left = [70 - 50, 280 - 50, 280 - 50, 70 - 25, 280 - 25, 280 - 25 + 50 * 4 / 9, 175 - 12.5]
    assert [float(bar.get("x")) for bar in svg.iter(f"{SVG}rect")] == pytest.approx(left, rel=1e-4)
    texts = [text.text for text in svg.iter(f"{SVG}text")]
    assert texts == [
        "2 × 24 × 16", "0 + 3 → 3", "4 × 12 × 8", "4 + 5 → 5", "6 × 6 × 4", "images 1 × 24 × 16, classes 7 × 24 × 16",
    ]  # fmt: skip
    dashed = [line for line in svg.iter(f"{SVG}line") if line.get("stroke-dasharray")]
    assert len(dashed) == 1 and len(list(svg.iter(f"{SVG}line"))) == 5
    solid = [line for line in svg.iter(f"{SVG}line") if line not in dashed]
    assert [float(line.get("y2")) > float(line.get("y1")) for line in solid] == [True, False] * 2  # down, up
    assert float(svg.get("width")) <= 350


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
