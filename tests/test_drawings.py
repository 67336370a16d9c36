"""The drawings show what they say, and carry their own alternative text."""

import re
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

from upconv import conv_matrix, overlap_counts, upsample_conv_to_conv_transpose
from upconv.book.drawings import (
    Drawing,
    draw_conv,
    draw_conv_transpose,
    draw_families,
    draw_forms,
    draw_haar,
    draw_matrix,
    draw_network,
    draw_phases,
    draw_rulers,
    draw_stamped_copies,
    draw_summed_weights,
    draw_unet,
    draw_zero_stuffing,
)
from upconv.book.models import UNet

PLAIN = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
LOW = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
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
        draw_stamped_copies(3, 2),
        draw_stamped_copies(2, 3),
        draw_zero_stuffing(3, 3, 2, 1),
        draw_zero_stuffing(2, 2, 3),
        draw_haar({"a layer": ["x", "D", "", "x"], "another": ["x"] * 4}),
        draw_rulers(2, {"in place": [-0.25, 0.25, 0.75, 1.25], "moved": [-1, 0, 1, 2]}),
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


def test_draw_rulers_puts_each_pixel_where_it_lies_and_marks_what_tiles_the_input():
    rulers = {
        "in place": [-0.25, 0.25, 0.75, 1.25],
        "moved": [0, 0.5, 1, 1.5],
        "stretched": [0, 1 / 3, 2 / 3, 1],
        "before": [-1, 0, 1, 2],
    }
    drawing = draw_rulers(2, rulers)
    svg = parse(drawing)
    boxes = [{key: float(box.get(key)) for key in ("x", "y", "width", "height")} for box in svg.iter(f"{SVG}rect")]
    assert len(boxes) == 2 + 4 * 4
    zero = boxes[0]["x"] + 26  # the centre of the first input pixel, which is 52 pixels wide
    for box, centre in zip(boxes, [0, 1, *(c for centres in rulers.values() for c in centres)], strict=True):
        assert box["x"] + box["width"] / 2 == pytest.approx(zero + 52 * centre, abs=0.01)
        assert box["x"] >= 0 and box["x"] + box["width"] < float(svg.get("width"))
        assert box["y"] >= 0 and box["y"] + box["height"] <= float(svg.get("height"))
    colours = [box.get("fill") for box in svg.iter(f"{SVG}rect")]
    assert len(set(colours[2:6])) == len(set(colours[6:])) == 1 and colours[2] != colours[6]
    assert "in place: -0.25, 0.25, 0.75, 1.25; moved: 0, 0.5, 1, 1.5; stretched: 0, 0.333, 0.667, 1;" in drawing.alt
    assert [word for word in words(drawing) if not word.isdigit()] == ["input 2", *rulers]


@pytest.mark.parametrize("setting", [(3, 3, 2, 1), (4, 4, 2, 0), (3, 2, 3, 0), (5, 5, 1, 4)])
def test_draw_zero_stuffing_shows_the_convolution_that_the_layer_is(setting):
    n, k, s, p = setting
    top, *windows = rows(draw_zero_stuffing(*setting))
    pixels = torch.arange(1.0, n + 1)
    values = [0.0 if text == "0" else pixels[int(text[1:].translate(PLAIN))].item() for _, text, _ in top]
    weight = torch.tensor([2.0, 7, 1, 8, 3])[:k]
    expected = torch.nn.functional.conv_transpose1d(pixels.view(1, 1, n), weight.view(1, 1, k), stride=s, padding=p)
    made, labels = [], [word for word in words(draw_zero_stuffing(*setting)) if "=" in word]
    for window, label in zip(windows, labels, strict=True):
        taps = [(round(column), int(text[1:].translate(PLAIN)), style["fill"]) for column, text, style in window]
        made.append(sum(weight[a] * values[column] for column, a, _ in taps))
        met = [(a, top[column]) for column, a, _ in taps if values[column]]
        assert label.partition(" = ")[2] == (" + ".join(f"w{a}{text}" for a, (_, text, _) in met).translate(LOW) or "0")
        assert [fill for column, _, fill in taps if values[column]] == [style["fill"] for _, (_, _, style) in met]
        assert {fill for column, _, fill in taps if not values[column]} <= {"none"}
    assert torch.tensor(made).tolist() == expected.flatten().tolist()


def test_draw_haar_draws_an_orthogonal_basis_and_says_what_layers_put_there():
    drawing = draw_haar({"a layer": ["x", "D", "E", "F"], "another": ["1", "2", "3", "4"]})
    found = [(text, style["fill"]) for _, _, text, style in cells(drawing)]
    blocks = torch.tensor([[1.0 if text == "+" else -1.0 for text, _ in found[i : i + 4]] for i in range(0, 16, 4)])
    assert torch.equal(blocks @ blocks.T, 4 * torch.eye(4))
    assert blocks.tolist() == [[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]
    assert len({(text == "+", fill) for text, fill in found}) == 2, "a sign, a colour"
    said = [word for word in words(drawing) if len(word) > 1]
    assert said[3:6] == ["left to right (LH)", "a layer: D", "another: 2"]
    assert "left to right (LH), signs plus minus / plus minus: a layer: D; another: 2." in drawing.alt


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
    assert len(list(parse(draw_forms()).iter(f"{SVG}marker"))) == 1


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


@pytest.mark.parametrize("kernel_size, scale", [(3, 2), (2, 3), (1, 2), (4, 3)])
def test_draw_stamped_copies_adds_up_the_stamps_that_make_the_composite(kernel_size, scale):
    found = [(text, style["fill"]) for _, _, text, style in cells(draw_stamped_copies(kernel_size, scale))]
    size, digits = kernel_size + scale - 1, "₀₁₂₃"
    *stamps, total = (found[i * size**2 : (i + 1) * size**2] for i in range(scale**2 + 1))
    assert all(sum(text != "" for text, _ in stamp) == kernel_size**2 for stamp in stamps)
    for y in range(kernel_size):
        for x in range(kernel_size):
            conv = nn.Conv2d(1, 1, kernel_size, bias=False)
            conv.weight.data.zero_()[0, 0, y, x] = 1
            taps = upsample_conv_to_conv_transpose(nn.Upsample(scale_factor=scale), conv).weight.flatten().tolist()
            name = f"w{digits[y]}{digits[x]}"
            assert taps == [sum(stamp[i][0] == name for stamp in stamps) for i in range(size**2)]
    colours = {}
    for i, (count, colour) in enumerate(total):
        drawn = [stamp[i] for stamp in stamps if stamp[i][0]]
        assert int(count) == len(drawn) and {fill for _, fill in drawn} == {colour}
        assert colours.setdefault(count, colour) == colour
    assert len(set(colours.values())) == len(colours) <= 6
    legend = [f"{n} weight" + "s" * (n > 1) for n in sorted(map(int, colours))]
    assert [word for word in words(draw_stamped_copies(kernel_size, scale)) if "weight" in word] == legend


def test_draw_stamped_copies_says_the_counts():
    assert draw_stamped_copies(3, 2).alt.endswith("row by row: 1 2 2 1; 2 4 4 2; 2 4 4 2; 1 2 2 1.")


def test_draw_summed_weights_shows_the_forums_phase():
    assert "With padding 0 the phases see 1, 2, 2, 4 pixels. With padding 1 the phases see 4, 2, 2, 1" in (
        draw_summed_weights(2, 2, (0, 1)).alt
    )


@pytest.mark.parametrize("kernel_size, scale, sizes", [(3, 2, (6, 5, 3)), (3, 3, (7, 5, 3)), (2, 4, (9, 6, 2))])
def test_draw_families_names_sizes_and_dimensions(kernel_size, scale, sizes):
    drawing = draw_families(kernel_size, scale)
    names = ["ConvTranspose2d", "nearest + Conv2d", "bilinear + Conv2d"]
    assert words(drawing) == [f"{n} {k}x{k}: {k * k} dimensions" for n, k in zip(names, sizes, strict=True)]


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
        assert 0 < float(text.get("y")) - float(bars[number // 2].get("y")) < float(bars[0].get("height"))
    widths = [float(bar.get("width")) for bar in bars]
    maps = {index: widths[index] for index in (0, 1, 5, 6)}  # 8, 4, 1 and 4 pixels wide; the others are vectors
    assert [width / widths[0] for width in maps.values()] == pytest.approx([1, 1 / 2, 1 / 8, 1 / 2])
    assert len({widths[index] for index in {*range(7)} - {*maps}}) == 1
    middles = {float(bar.get("x")) + width / 2 for bar, width in zip(bars, widths, strict=True)}
    assert max(middles) == pytest.approx(min(middles))
    colours = [bar.get("fill") for bar in bars]
    assert colours[0] == colours[2] == colours[5] and len({colours[i] for i in (0, 1, 3, 6)}) == 4
    assert all(float(bar.get("y")) + float(bar.get("height")) < drawing.height for bar in bars)


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
    rows = {}
    for bar in svg.iter(f"{SVG}rect"):
        rows.setdefault(float(bar.get("y")), []).append((float(bar.get("x")), float(bar.get("width")), bar.get("fill")))
    (left, *right), (left2, *right2), (bottom,) = (rows[y] for y in sorted(rows))  # of the levels, from top to bottom
    assert [bar[1] / left[1] for bar in (left, left2, bottom)] == pytest.approx([1, 1 / 2, 1 / 4])  # as their maps
    for (x, width, blue), ((x1, handed, colour), (x2, made, orange)), share in (
        (left, right, 0 / 3), (left2, right2, 4 / 9)
    ):  # fmt: skip
        assert handed + made == pytest.approx(width) and handed / width == pytest.approx(share)
        assert x + width < x1 and x1 + handed == pytest.approx(x2)
        assert blue == colour == bottom[2] != orange
    lines = [
        (line.get("stroke-dasharray"), *(float(line.get(name)) for name in ("x1", "y1", "x2", "y2")))
        for line in svg.iter(f"{SVG}line")
    ]
    [(_, *dashed)] = [line for line in lines if line[0]]  # the one skip connection, between the bars of its level
    assert left2[0] + left2[1] < dashed[0] < dashed[2] < right2[0][0]
    assert dashed[1] == dashed[3] and 0 < dashed[1] - sorted(rows)[1] < 20
    solid = [line[1:] for line in lines if not line[0]]
    assert [(x1 <= x2, y1 < y2) for x1, y1, x2, y2 in solid] == [(True, True), (True, False)] * 2  # down, up
    texts = [text.text for text in svg.iter(f"{SVG}text")]
    assert texts == [
        "2 × 24 × 16", "0 + 3 → 3", "4 × 12 × 8", "4 + 5 → 5", "6 × 6 × 4", "images 1 × 24 × 16, classes 7 × 24 × 16",
    ]  # fmt: skip
    assert all(x + width < float(svg.get("width")) for bars in rows.values() for x, width, _ in bars)
