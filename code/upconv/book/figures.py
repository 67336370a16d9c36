"""Every shared picture of the book, drawn by code.

Schemes are SVG drawings that take the text colour of the page they stand on, so they read on light and dark pages, and
carry their own alternative text. Photographs and curves are matplotlib figures with a transparent background. Colours
are those of Okabe and Ito, which stay apart for colour-blind readers.
"""

from html import escape

import matplotlib.pyplot as plt
import torch
from matplotlib.colors import to_rgb
from torch import nn

from upconv.arithmetic import conv_output_size, conv_transpose_output_size, overlap_counts
from upconv.book.tasks import boundary
from upconv.book.training import _mode

__all__ = [
    "Drawing",
    "boundary_errors",
    "class_colours",
    "draw_conv",
    "draw_conv_transpose",
    "draw_families",
    "draw_forms",
    "draw_matrix",
    "draw_network",
    "draw_phases",
    "draw_summed_weights",
    "draw_unet",
    "image_grid",
    "seed_points",
    "use_book_style",
]

BLUE, ORANGE, GREEN, PINK, SKY, GREY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#808080"
STAMPS = (BLUE, ORANGE, GREEN, PINK)
CELL = 26  # pixels a square
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


class Drawing:
    """An SVG drawing with an alternative text; a notebook shows the one, a terminal the other.

    Parameters
    ----------
    width, height : float
        In pixels.
    alt : str
        What the drawing shows, for readers who don't see it.
    """

    def __init__(self, width, height, alt):
        self.width, self.height, self.alt = width, height, alt
        self.parts = []

    def square(self, x, y, text="", *, fill="none", opacity=0.35, dashed=False, faded=False):
        """Draw one cell with its upper left corner at (x, y), in pixels, and a short text in it."""
        dash = ' stroke-dasharray="3 3"' if dashed else ""
        fade = ' opacity="0.55"' if faded else ""
        self.parts.append(
            f'<g{fade}><rect x="{x + 1:g}" y="{y + 1:g}" width="{CELL - 2}" height="{CELL - 2}" rx="3" fill="{fill}" '
            f'fill-opacity="{opacity:g}" stroke="currentColor" stroke-opacity="0.6"{dash}/>'
        )
        if text != "":
            self.text(x + CELL / 2, y + CELL / 2 + 4.5, text)
        self.parts.append("</g>")

    def text(self, x, y, text, *, anchor="middle"):
        """Write a text whose baseline is at y."""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="13" text-anchor="{anchor}" fill="currentColor">'
            f"{escape(str(text))}</text>"
        )

    def row(self, x, y, texts, label="", **style):
        """Draw cells side by side, and a label to the right of them."""
        for column, text in enumerate(texts):
            self.square(x + column * CELL, y, text, **style)
        if label:
            self.text(x + len(texts) * CELL + 8, y + CELL / 2 + 4.5, label, anchor="start")

    def _repr_html_(self):
        return (
            f'<div style="overflow-x:auto"><svg xmlns="http://www.w3.org/2000/svg" role="img" '
            f'aria-label="{escape(self.alt)}" width="{self.width:g}" height="{self.height:g}" '
            f'viewBox="0 0 {self.width:g} {self.height:g}" style="font-family:sans-serif">'
            f"{''.join(self.parts)}</svg></div>"
        )

    def __repr__(self):
        return self.alt


def draw_conv(input_size, kernel_size, stride=1, padding=0, dilation=1):
    """Draw one axis of a convolution: the padded input, the window of every output pixel, the output.

    Parameters
    ----------
    input_size, kernel_size, stride, padding, dilation : int
        As in `upconv.conv_output_size`.

    Returns
    -------
    Drawing
    """
    output_size = conv_output_size(input_size, kernel_size, stride, padding, dilation)
    columns = input_size + 2 * padding
    settings = f"kernel_size={kernel_size}, stride={stride}, padding={padding}, dilation={dilation}"
    windows = ", ".join(str(j * stride - padding) for j in range(output_size))
    drawing = Drawing(
        columns * CELL + 150,
        (output_size + 2) * (CELL + 4),
        f"A convolution with {settings} on {input_size} pixels: windows begin at {windows}, "
        f"so {output_size} pixels come out.",
    )
    read = {j * stride + a * dilation for j in range(output_size) for a in range(kernel_size)}
    for column in range(columns):
        inside = padding <= column < padding + input_size
        drawing.square(
            column * CELL, 0, column - padding if inside else "", dashed=not inside, faded=column not in read
        )  # fmt: skip
    drawing.text(
        columns * CELL + 8, CELL / 2 + 4.5, f"input {input_size}" + f" + 2·{padding}" * (padding > 0), anchor="start"
    )
    for j in range(output_size):
        y = (j + 1) * (CELL + 4)
        colour = STAMPS[j % len(STAMPS)]
        for a in range(kernel_size):
            drawing.square((j * stride + a * dilation) * CELL, y, f"w{a}", fill=colour)
        drawing.text(columns * CELL + 8, y + CELL / 2 + 4.5, f"window {j}", anchor="start")
        drawing.square(j * CELL, (output_size + 1) * (CELL + 4), j, fill=colour)
    drawing.text(columns * CELL + 8, (output_size + 1.5) * (CELL + 4) + 2.5, f"output {output_size}", anchor="start")
    return drawing


def draw_conv_transpose(input_size, kernel_size, stride=1, padding=0, output_padding=0, dilation=1):
    """Draw one axis of a transposed convolution: the stamp of every input pixel, and what is kept of their sum.

    The last row counts the taps that reach each pixel; dashed cells are cropped by `padding`, and green ones come
    back with `output_padding`.

    Parameters
    ----------
    input_size, kernel_size, stride, padding, output_padding, dilation : int
        As in `upconv.conv_transpose_output_size`.

    Returns
    -------
    Drawing
    """
    output_size = conv_transpose_output_size(input_size, kernel_size, stride, padding, output_padding, dilation)
    columns = (input_size - 1) * stride + dilation * (kernel_size - 1) + 1 + output_padding
    counts = overlap_counts(input_size, kernel_size, stride, 0, output_padding, dilation).tolist()
    kept = range(padding, padding + output_size)
    settings = f"kernel_size={kernel_size}, stride={stride}, padding={padding}, output_padding={output_padding}"
    drawing = Drawing(
        columns * CELL + 130,
        (input_size + 1) * (CELL + 4),
        f"A transposed convolution with {settings}, dilation={dilation} on {input_size} pixels: "
        f"{output_size} pixels come out, reached by {', '.join(str(counts[column]) for column in kept)} taps.",
    )
    for i in range(input_size):
        y = i * (CELL + 4)
        for a in range(kernel_size):
            drawing.square((i * stride + a * dilation) * CELL, y, f"w{a}", fill=STAMPS[i % len(STAMPS)])
        drawing.text(columns * CELL + 8, y + CELL / 2 + 4.5, f"stamp of x{i}", anchor="start")
    y = input_size * (CELL + 4)
    for column in range(columns):
        regained = column in kept and column >= columns - output_padding - padding
        drawing.square(
            column * CELL,
            y,
            counts[column],
            fill=GREEN if regained else GREY if column in kept else "none",
            opacity=0.5 if regained else 0.15,
            dashed=column not in kept,
            faded=column not in kept,
        )
    drawing.text(columns * CELL + 8, y + CELL / 2 + 4.5, f"output {output_size}", anchor="start")
    return drawing


def draw_matrix(matrix, names=None):
    """Draw a small matrix of integers with its zeros left empty; cells of equal value share a colour.

    Parameters
    ----------
    matrix : torch.Tensor, shape (rows, columns)
        Integer-valued.
    names : dict of int to str, optional
        What to write for a value; by default the value itself.

    Returns
    -------
    Drawing
    """
    rows, columns = matrix.shape
    values = sorted(set(matrix.flatten().int().tolist()) - {0})
    colour = {value: (*STAMPS, SKY, GREY)[i % 6] for i, value in enumerate(values)}
    drawing = Drawing(
        columns * CELL,
        rows * CELL,
        f"A matrix of {rows} rows and {columns} columns; row by row: "
        + "; ".join(" ".join(str(value) for value in row) for row in matrix.int().tolist()),
    )
    for y, row in enumerate(matrix.int().tolist()):
        for x, value in enumerate(row):
            text = "" if value == 0 else (names or {}).get(value, value)
            drawing.square(x * CELL, y * CELL, text, fill=colour.get(value, "none"))
    return drawing


def draw_phases(kernel_size, stride, padding=0):
    """Draw a kernel and the output it makes, both coloured by phase: a pixel is reached by the taps of its colour.

    Parameters
    ----------
    kernel_size, stride, padding : int
        Of a transposed convolution. Cells carry the phase's row and column, since there are only six colours.

    Returns
    -------
    Drawing
    """
    size = conv_transpose_output_size(3, kernel_size, stride, padding)
    colours = [(*STAMPS, SKY, GREY)[phase % 6] for phase in range(stride * stride)]
    side = max(kernel_size, size)
    taps = [len(range(phase, kernel_size, stride)) for phase in range(stride)]
    drawing = Drawing(
        (kernel_size + size + 2) * CELL,
        side * CELL + 26,
        f"A kernel of {kernel_size} by {kernel_size} taps and an output of {size} by {size} pixels, coloured alike by "
        f"phase modulo {stride}; along an axis the phases have {', '.join(map(str, taps))} taps.",
    )
    for left, count, shift, label in ((0, kernel_size, 0, "taps"), (kernel_size + 2, size, padding, "output")):
        drawing.text((left + count / 2) * CELL, 16, label)
        for y in range(count):
            for x in range(count):
                row, column = (y + shift) % stride, (x + shift) % stride
                colour = colours[row * stride + column]
                drawing.square((left + x) * CELL, 22 + y * CELL, f"{row}{column}", fill=colour, opacity=0.45)
    return drawing


def draw_summed_weights(kernel_size, scale, paddings=(0,)):
    """Draw which weights of a convolution fall on the same pixel of the image before nearest upsampling.

    A row for every padding, a window for every phase of the output. Weights of one colour see one pixel and add up.

    Parameters
    ----------
    kernel_size, scale : int
        Of the convolution and the upsampling.
    paddings : tuple of int
        Of the convolution.

    Returns
    -------
    Drawing
    """
    taps = [(y, x) for y in range(kernel_size) for x in range(kernel_size)]
    phases = [(row, column) for row in range(scale) for column in range(scale)]
    pixels = {
        (padding, row, column): [((row - padding + y) // scale, (column - padding + x) // scale) for y, x in taps]
        for padding in paddings
        for row, column in phases
    }
    counts = {window: len(set(seen)) for window, seen in pixels.items()}
    sentences = [
        f"With padding {padding} the phases see {', '.join(str(counts[padding, *phase]) for phase in phases)} pixels."
        for padding in paddings
    ]
    step, height = max(kernel_size * CELL, 60) + 22, kernel_size * CELL + 84
    drawing = Drawing(
        len(phases) * step,
        len(paddings) * height,
        f"The {kernel_size} by {kernel_size} weights in each phase of the output, phases in reading order, coloured by "
        f"the pixel that they fall on. {' '.join(sentences)}",
    )
    for index, padding in enumerate(paddings):
        top = index * height
        drawing.text(0, top + 16, f"padding {padding}", anchor="start")
        for position, phase in enumerate(phases):
            window, middle = (padding, *phase), (position + 0.5) * step
            left, count = middle - kernel_size * CELL / 2, counts[window]
            drawing.text(middle, top + 40, f"phase {phase[0]}{phase[1]}")
            drawing.text(middle, top + height - 16, f"{count} pixel" + "s" * (count > 1))
            order = list(dict.fromkeys(pixels[window]))
            for (y, x), pixel in zip(taps, pixels[window], strict=True):
                colour = (*STAMPS, SKY, GREY)[order.index(pixel) % 6]
                drawing.square(
                    left + x * CELL,
                    top + 48 + y * CELL,
                    "w" + f"{y}{x}".translate(SUBSCRIPTS),
                    fill=colour,
                    opacity=0.45,
                )
    return drawing


def draw_families(kernel_size, scale):
    """Draw how the kernels of bilinear pairs, nearest pairs and transposed convolutions lie inside each other.

    Parameters
    ----------
    kernel_size, scale : int
        Of the convolution after bilinear upsampling, and of the upsampling.

    Returns
    -------
    Drawing
    """
    nearest = kernel_size + scale - scale % 2
    families = [
        ("ConvTranspose2d", nearest + scale - 1, ORANGE),
        ("nearest + Conv2d", nearest, BLUE),
        ("bilinear + Conv2d", kernel_size, GREEN),
    ]
    names = [f"{name} {size}x{size}: {size * size} dimensions" for name, size, _ in families]
    drawing = Drawing(322, 190, f"Three nested boxes, at scale {scale}. Outer to inner: " + "; ".join(names) + ".")
    for level, (name, (_, _, colour)) in enumerate(zip(names, families, strict=True)):
        x, y = 3 + level * 14, 4 + level * 46
        drawing.parts.append(
            f'<rect x="{x}" y="{y}" width="{316 - level * 28}" height="{182 - level * 62}" rx="10" fill="{colour}" '
            f'fill-opacity="0.3" stroke="currentColor" stroke-opacity="0.6"/>'
        )
        drawing.text(161, y + 28, name)
    return drawing


def draw_forms():
    """Draw the four forms of an upsampling layer, with arrows from each to those that it can be written as.

    Returns
    -------
    Drawing
    """
    drawing = Drawing(
        560,
        330,
        "Four boxes. Nearest Upsample and Conv2d leads to ConvTranspose2d, always; back only if all sums agree. "
        "ConvTranspose2d leads to zero-stuffing and Conv2d, always, and back. ConvTranspose2d leads to Conv2d and "
        "PixelShuffle, always; back if the bias is the same in all phases.",
    )
    boxes = {
        "pair": (150, 10, "Upsample(s) + Conv2d(k)", BLUE),
        "transposed": (150, 140, "ConvTranspose2d, stride s", ORANGE),
        "zeros": (5, 270, "zero-stuffing + Conv2d", GREEN),
        "shuffle": (315, 270, "Conv2d + PixelShuffle(s)", PINK),
    }
    for x, y, name, colour in boxes.values():
        drawing.parts.append(
            f'<rect x="{x}" y="{y}" width="240" height="44" rx="6" fill="{colour}" fill-opacity="0.35" '
            f'stroke="currentColor" stroke-opacity="0.6"/>'
        )
        drawing.text(x + 120, y + 27, name)
    drawing.parts.append(
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="currentColor"/></marker></defs>'
    )
    for (x1, y1, x2, y2), dashed, words, x, y, anchor in (
        ((250, 56, 250, 138), False, ("always: kernel K + s - 1", "(nearest)"), 240, 92, "end"),
        ((290, 138, 290, 56), True, ("only if, in every row and", "column, all phases sum alike"), 300, 92, "start"),
        ((215, 186, 125, 268), False, (), 0, 0, "end"),
        ((155, 268, 245, 186), False, ("always, both ways",), 130, 226, "end"),
        ((315, 186, 405, 268), False, ("always",), 348, 240, "end"),
        ((435, 268, 345, 186), True, ("if the bias is equal", "in all phases"), 425, 222, "start"),
    ):
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        drawing.parts.append(
            f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="currentColor" stroke-width="1.5" '
            f'marker-end="url(#tip)"{dash}/>'
        )
        for line, text in enumerate(words):
            drawing.text(x, y + 17 * line, text, anchor=anchor)
    return drawing


def draw_network(layers, example):
    """Draw a network that is one chain of layers: a bar for every map, as wide as the map, and its shape.

    Layers that change neither the shape nor have parameters (activations) are named on the bar of the layer before.

    Parameters
    ----------
    layers : iterable of (str, torch.nn.Module)
        The layers and their names, in order.
    example : torch.Tensor, shape (N, ...)
        What the first is given; the shapes are those that the layers really make of it.

    Returns
    -------
    Drawing
    """
    bars = [("input", GREY, tuple(example.shape[1:]))]
    with torch.no_grad():
        for name, layer in layers:
            with _mode(layer, training=False):
                example = layer(example)
            shape = tuple(example.shape[1:])
            if shape == bars[-1][2] and not any(True for _ in layer.parameters()):
                bars[-1] = (f"{bars[-1][0]}, {name}", *bars[-1][1:])
                continue
            kinds = {nn.Conv2d: BLUE, nn.Linear: GREEN, nn.Sequential: ORANGE}
            bars.append((name, kinds.get(type(layer), GREY), shape))
    widest = max((shape[-1] for _, _, shape in bars if len(shape) == 3), default=1)
    texts = [" × ".join(map(str, shape)) for _, _, shape in bars]
    drawing = Drawing(
        340, 30 * len(bars) + 8, "Bars from top to bottom, as wide as the maps: " + ", ".join(texts).replace("×", "by")
    )
    for place, ((name, colour, shape), text) in enumerate(zip(bars, texts, strict=True)):
        width = 140 * shape[-1] / widest if len(shape) == 3 else 10
        drawing.parts.append(
            f'<rect x="{72 - width / 2:g}" y="{30 * place + 6}" width="{width:g}" height="22" rx="3" fill="{colour}" '
            f'fill-opacity="0.5" stroke="currentColor" stroke-opacity="0.6"/>'
        )
        drawing.text(152, 30 * place + 22, text, anchor="start")
        drawing.text(252, 30 * place + 22, name, anchor="start")
    return drawing


def draw_unet(model, example):
    """Draw a U-Net: the encoder's maps on the left, the decoder's on the right, each bar as wide as its map.

    A bar on the right is what is concatenated there, in two colours with lengths by their channels: blue is handed over
    by the skip connection, orange made by the block.

    Parameters
    ----------
    model : upconv.book.models.UNet
    example : torch.Tensor, shape (N, C, H, W)
        Images; the shapes are those that the network really makes of them.

    Returns
    -------
    Drawing
    """
    shapes = {}
    parts = dict(model.named_modules())
    names = [name for name in parts if name.rpartition(".")[0] in ("encoder", "decoder")]
    handles = [
        parts[name].register_forward_hook(lambda _, __, made, name=name: shapes.update({name: tuple(made.shape[1:])}))
        for name in names
    ]
    try:
        with torch.no_grad(), _mode(model, training=False):
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    depth = len(model.channels) - 1
    encoder = [shapes[f"encoder.level{level}"] for level in range(depth + 1)]
    made = [shapes[f"decoder.up{level}"][0] for level in range(depth)]
    after = [shapes[f"decoder.level{level}"] for level in range(depth)]
    handed = [parts[f"decoder.level{level}"].conv1.in_channels - made[level] for level in range(depth)]

    def text(shape):
        return " × ".join(map(str, shape))

    sentences = [f"images {text(example.shape[1:])}", *(f"encoder {text(shape)}" for shape in encoder)]
    sentences += [
        f"decoder {handed[level]} handed over and {made[level]} made, then {text(after[level])}"
        for level in reversed(range(depth))
    ]
    sentences.append(f"classes {text(shapes['decoder.head'])}")
    drawing = Drawing(
        350,
        74 * depth + 66,
        "A U-Net, down on the left and up on the right: " + "; ".join(sentences).replace("×", "by"),
    )
    drawing.parts.append(
        '<defs><marker id="unet-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="currentColor"/></marker></defs>'
    )

    def bar(x, y, width, colour):
        drawing.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="20" fill="{colour}" fill-opacity="0.5" '
            f'stroke="currentColor" stroke-opacity="0.6"/>'
        )

    def arrow(x1, y1, x2, y2, dash=""):
        drawing.parts.append(
            f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="currentColor" stroke-width="1.5" '
            f'marker-end="url(#unet-tip)"{dash}/>'
        )

    widest = encoder[0][-1]
    for level, shape in enumerate(encoder):
        width, y = 100 * shape[-1] / widest, 6 + 74 * level
        x = 175 if level == depth else 70
        bar(x - width / 2, y, width, BLUE)
        drawing.text(x, y + 36, text(shape))
        if level < depth:
            share = width * handed[level] / (handed[level] + made[level])
            bar(280 - width / 2, y, share, BLUE)
            bar(280 - width / 2 + share, y, width - share, ORANGE)
            drawing.text(280, y + 36, f"{handed[level]} + {made[level]} → {after[level][0]}")
            if handed[level]:
                arrow(70 + width / 2 + 4, y + 10, 280 - width / 2 - 4, y + 10, ' stroke-dasharray="5 4"')
            down, up = (170, 180) if level + 1 == depth else (70, 280)
            arrow(70, y + 42, down, y + 70)
            arrow(up, y + 70, 280, y + 42)
    drawing.text(175, 74 * depth + 62, f"images {text(example.shape[1:])}, classes {text(shapes['decoder.head'])}")
    return drawing


CLASS_COLOURS = ("#4d4d4d", ORANGE, SKY, PINK, GREEN, BLUE)


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


def seed_points(tables, measure, names, lines=None, *, by="upsampling", label=None):
    """Show a measure's value in every run, a row for every setting, a colour for every table; a tick at each mean.

    Parameters
    ----------
    tables : dict of str to pandas.DataFrame
        By the name in the legend; at most 6.
    measure : str
        The column that is shown.
    names : dict of str to str
        For every value of the column `by`, from top to bottom, the label of its row.
    lines : dict of str to float, optional
        Values to compare with, drawn as dashed lines, by their label.
    by : str
        The column that tells the rows apart.
    label : str, optional
        The axis's; by default the name of the measure.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If a table has no run for one of the names, or a run lacks its value.
    """
    for title, table in tables.items():
        for name in names:
            values = table.loc[table[by] == name, measure]
            if values.empty or values.isna().any():
                raise ValueError(f"the table {title!r} has no run with {by}={name!r}, or one without a value")
    figure, axis = plt.subplots(figsize=(6.8, 0.5 * len(names) + 1.4), layout="constrained")
    colours = plt.rcParams["axes.prop_cycle"].by_key()["color"]
    step = 0.7 / len(tables)
    for number, (title, table) in enumerate(tables.items()):
        for row, name in enumerate(names):
            values = table.loc[table[by] == name, measure]
            height = row + (number - (len(tables) - 1) / 2) * step
            style = dict(color=colours[number], markeredgecolor="none")
            label_once = None if row else title
            axis.plot(values, [height] * len(values), "o", markersize=4, alpha=0.6, label=label_once, **style)
            axis.plot(values.mean(), height, "|", color=colours[number], markersize=9, markeredgewidth=1.8)
    for text, value in (lines or {}).items():
        axis.axvline(value, linestyle="--", color=GREY, linewidth=1)
        axis.annotate(text, (value, 1), (3, -2), ("data", "axes fraction"), "offset points", fontsize=9, va="top")
    axis.set_yticks(range(len(names)), names.values())
    axis.set(xlabel=label or measure, ylim=(len(names) - 0.4, -0.9))
    axis.grid(axis="y", alpha=0.25)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure
