"""The book's schemes: SVG drawings that take the text colour of the page they stand on, so they read on light and dark.

They carry their own alternative text. Colours are those of Okabe and Ito, which stay apart for colour-blind readers.
"""

from html import escape

import torch
from torch import nn

from upconv.arithmetic import conv_output_size, conv_transpose_output_size, overlap_counts
from upconv.book.common import mode

__all__ = [
    "Drawing",
    "draw_conv",
    "draw_conv_transpose",
    "draw_families",
    "draw_forms",
    "draw_haar",
    "draw_matrix",
    "draw_network",
    "draw_phases",
    "draw_rulers",
    "draw_stamped_copies",
    "draw_summed_weights",
    "draw_unet",
    "draw_zero_stuffing",
]

BLUE, ORANGE, GREEN, PINK, SKY, GREY = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#808080"
STAMPS = (BLUE, ORANGE, GREEN, PINK)
CELL = 26  # pixels a square
TIP = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0 L8 4 L0 8 z" fill="currentColor"/></marker></defs>'
)
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
        self.parts.append('<g opacity="0.55">' if faded else "<g>")
        self.box(x + 1, y + 1, CELL - 2, CELL - 2, fill, opacity=opacity, radius=3, dash="3 3" if dashed else "")
        if text != "":
            self.text(x + CELL / 2, y + CELL / 2 + 4.5, text)
        self.parts.append("</g>")

    def box(self, x, y, width, height, fill, *, opacity=0.5, radius=0, dash=""):
        """Draw a rectangle with its upper left corner at (x, y), in pixels; `dash` is SVG's stroke-dasharray."""
        rounded = f' rx="{radius}"' if radius else ""
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"{rounded} fill="{fill}" '
            f'fill-opacity="{opacity:g}" stroke="currentColor" stroke-opacity="0.6"{dashed}/>'
        )

    def arrow(self, x1, y1, x2, y2, *, dashed=False):
        """Draw an arrow that ends at (x2, y2)."""
        if TIP not in self.parts:
            self.parts.append(TIP)
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.parts.append(
            f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="currentColor" stroke-width="1.5" '
            f'marker-end="url(#tip)"{dash}/>'
        )

    def text(self, x, y, text, *, anchor="middle"):
        """Write a text whose baseline is at y."""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="13" text-anchor="{anchor}" fill="currentColor">'
            f"{escape(str(text))}</text>"
        )

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
        columns * CELL + 106,
        (output_size + 2) * (CELL + 4),
        f"A convolution with {settings} on {input_size} pixels: windows begin at {windows}, "
        f"so {output_size} pixels come out.",
    )
    read = {j * stride + a * dilation for j in range(output_size) for a in range(kernel_size)}
    for column in range(columns):
        inside = padding <= column < padding + input_size
        text = column - padding if inside else ""
        drawing.square(column * CELL, 0, text, dashed=not inside, faded=column not in read)
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
        columns * CELL + 108,
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


def draw_zero_stuffing(input_size, kernel_size, stride, padding=0):
    """Draw one axis of a transposed convolution as a convolution of the input with zeros between its pixels.

    A window's taps that lie on a pixel have the pixel's colour; those on zeros are faded.

    Parameters
    ----------
    input_size, kernel_size, stride, padding : int
        As in `upconv.conv_transpose_output_size`; padding at most kernel_size - 1.

    Returns
    -------
    Drawing
    """
    before = kernel_size - 1 - padding
    pixels = {before + i * stride: i for i in range(input_size)}
    columns = (input_size - 1) * stride + 1 + 2 * before
    output_size = conv_transpose_output_size(input_size, kernel_size, stride, padding)
    terms = [
        [(kernel_size - 1 - b, pixels[j + b]) for b in range(kernel_size) if j + b in pixels]
        for j in range(output_size)
    ]
    sums = [" + ".join(f"w{a}x{i}".translate(SUBSCRIPTS) for a, i in term) or "0" for term in terms]
    drawing = Drawing(
        columns * CELL + 54 + 7 * max(map(len, sums)),
        (output_size + 1) * (CELL + 4),
        f"{input_size} pixels with {stride - 1} zero{'s' * (stride != 2)} between neighbours and {before} at either "
        f"end. A flipped kernel of {kernel_size} taps moves over them place by place. Of the {output_size} outputs, "
        f"{', '.join(str(len(term)) for term in terms)} taps meet a pixel.",
    )
    for column in range(columns):
        inside = before <= column < columns - before
        text = f"x{pixels[column]}".translate(SUBSCRIPTS) if column in pixels else 0
        fill = STAMPS[pixels[column] % len(STAMPS)] if column in pixels else "none"
        drawing.square(column * CELL, 0, text, fill=fill, dashed=not inside, faded=column not in pixels)
    for j in range(output_size):
        y = (j + 1) * (CELL + 4)
        for b in range(kernel_size):
            column, tap = j + b, f"w{kernel_size - 1 - b}".translate(SUBSCRIPTS)
            hit = column in pixels
            fill = STAMPS[pixels[column] % len(STAMPS)] if hit else "none"
            drawing.square(column * CELL, y, tap, fill=fill, faded=not hit)
        label = f"y{j}".translate(SUBSCRIPTS) + f" = {sums[j]}"
        drawing.text(columns * CELL + 8, y + CELL / 2 + 4.5, label, anchor="start")
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


def draw_rulers(input_size, rulers):
    """Draw where output pixels lie over the input's, a row for each layer; what tiles the input exactly is green.

    Parameters
    ----------
    input_size : int
        In pixels.
    rulers : dict of str to list of float
        For each layer's name the centres of its output pixels, at least two and equally far from each other, in input
        pixels from the centre of the first one.

    Returns
    -------
    Drawing
    """
    unit, top = 2 * CELL, CELL + 10
    rows = {name: (centres, centres[1] - centres[0]) for name, centres in rulers.items()}
    left = max(0, *(step / 2 - centres[0] - 0.5 for centres, step in rows.values())) * unit + 1
    right = max(input_size - 0.5, *(centres[-1] + step / 2 for centres, step in rows.values()))
    labels = left + (right + 0.5) * unit + 12
    listed = "; ".join(f"{name}: {', '.join(f'{centre:.3g}' for centre in rulers[name])}" for name in rulers)
    drawing = Drawing(
        labels + 8 * max(map(len, rows)),
        top + len(rows) * (CELL + 8),
        f"{input_size} input pixels, and where output pixels lie over them, counted from the first one's centre. "
        f"{listed}.",
    )

    def row(y, centres, step, fill, name):
        for number, centre in enumerate(centres):
            drawing.box(left + (centre - step / 2 + 0.5) * unit, y, step * unit, CELL, fill, opacity=0.35)
            drawing.text(left + (centre + 0.5) * unit, y + CELL / 2 + 4.5, number)
        drawing.text(labels, y + CELL / 2 + 4.5, name, anchor="start")

    row(1, range(input_size), 1, GREY, f"input {input_size}")
    for edge in range(input_size + 1):
        drawing.parts.append(
            f'<line x1="{left + edge * unit:g}" y1="{CELL + 1:g}" x2="{left + edge * unit:g}" y2="{drawing.height:g}" '
            f'stroke="currentColor" stroke-opacity="0.6" stroke-dasharray="2 4"/>'
        )
    for index, (name, (centres, step)) in enumerate(rows.items()):
        exact = abs(centres[0] - step / 2 + 0.5) + abs(centres[-1] + step / 2 + 0.5 - input_size) < 1e-9
        row(top + index * (CELL + 8), centres, step, GREEN if exact else ORANGE, name)
    return drawing


def draw_stamped_copies(kernel_size, scale):
    """Draw a convolution's stamp on each copy that nearest upsampling makes of one pixel, and the stamp they add up to.

    A cell's colour says how many weights make that tap of the sum.

    Parameters
    ----------
    kernel_size, scale : int
        Of the convolution and the upsampling.

    Returns
    -------
    Drawing
    """
    size = kernel_size + scale - 1
    step, height = size * CELL + 28, size * CELL + 34
    copies = [(row, column) for row in range(scale) for column in range(scale)]
    stamp = range(kernel_size)
    weights = {
        copy: {(copy[0] + y, copy[1] + x): (kernel_size - 1 - y, kernel_size - 1 - x) for y in stamp for x in stamp}
        for copy in copies
    }
    counts = {(y, x): sum((y, x) in taps for taps in weights.values()) for y in range(size) for x in range(size)}
    order = sorted(set(counts.values()))
    listed = "; ".join(" ".join(str(counts[y, x]) for x in range(size)) for y in range(size))
    drawing = Drawing(
        max(scale * step, step + 110),
        scale * height + max(height, 22 + len(order) * (CELL + 6)),
        f"A kernel of {kernel_size} by {kernel_size} weights, mirrored, stamped on each of the {scale} by {scale} "
        f"copies of a pixel, and the kernel of {size} by {size} taps that the stamps add up to. So many weights make "
        f"each of its taps, row by row: {listed}.",
    )
    for copy in [*copies, None]:
        row, column = copy or (scale, 0)
        left, top = column * step + 22, row * height
        drawing.text(left + size * CELL / 2, top + 16, f"copy {row}{column}" if copy else "sum: how many")
        if copy != (0, 0):
            drawing.text(left - 13, top + 22 + size * CELL / 2 + 4.5, "+" if copy else "=")
        for (y, x), count in counts.items():
            colour = (*STAMPS, SKY, GREY)[order.index(count) % 6]
            x0, y0, tap = left + x * CELL, top + 22 + y * CELL, weights[copy].get((y, x)) if copy else None
            if copy and tap is None:
                drawing.square(x0, y0, dashed=True, faded=True)
            else:
                name = "w" + "".join(map(str, tap)).translate(SUBSCRIPTS) if copy else count
                drawing.square(x0, y0, name, fill=colour, opacity=0.45)
    for index, count in enumerate(order):
        x, y = step + 18, scale * height + 22 + index * (CELL + 6)
        drawing.square(x, y, fill=(*STAMPS, SKY, GREY)[index % 6], opacity=0.45)
        drawing.text(x + CELL + 6, y + CELL / 2 + 4.5, f"{count} weight" + "s" * (count > 1), anchor="start")
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


def draw_haar(layers):
    """Draw the four Haar blocks, the signs of the four pixels in each, and what layers put there.

    Parameters
    ----------
    layers : dict of str to list of str
        For each layer's name four short texts: what it puts into the mean, the detail from left to right, the one from
        top to bottom, and the one along the diagonals.

    Returns
    -------
    Drawing
    """
    names = ("mean (LL)", "left to right (LH)", "top to bottom (HL)", "diagonal (HH)")
    height = max(2 * CELL, 20 * (1 + len(layers))) + 16
    lines = [[f"{layer}: {texts[index]}" for layer, texts in layers.items()] for index in range(4)]
    blocks = []
    for index, name in enumerate(names):
        signs = [["+-"[(index % 2 and x) ^ (index // 2 and y)] for x in range(2)] for y in range(2)]
        said = " / ".join(" ".join(row).replace("-", "minus").replace("+", "plus") for row in signs)
        blocks.append((name, signs, f"{name}, signs {said}: {'; '.join(lines[index])}"))
    drawing = Drawing(
        2 * CELL + 20 + 7 * max(len(line) for texts in lines for line in (*texts, names[1])),
        4 * height - 10,
        "Four blocks of 2 by 2 pixels, and what each layer puts there. "
        + ". ".join(text for _, _, text in blocks)
        + ".",
    )
    for index, (name, signs, _) in enumerate(blocks):
        top = index * height
        for y, row in enumerate(signs):
            for x, sign in enumerate(row):
                colour = BLUE if sign == "+" else ORANGE
                drawing.square(x * CELL, top + y * CELL, sign.replace("-", "\N{MINUS SIGN}"), fill=colour, opacity=0.45)
        for at, text in enumerate((name, *lines[index])):
            drawing.text(2 * CELL + 12, top + 15 + 20 * at, text, anchor="start")
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
        drawing.box(x, y, 316 - level * 28, 182 - level * 62, colour, opacity=0.3, radius=10)
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
        drawing.box(x, y, 240, 44, colour, opacity=0.35, radius=6)
        drawing.text(x + 120, y + 27, name)
    for (x1, y1, x2, y2), dashed, words, x, y, anchor in (
        ((250, 56, 250, 138), False, ("always: kernel K + s - 1", "(nearest)"), 240, 92, "end"),
        ((290, 138, 290, 56), True, ("only if, in every row and", "column, all phases sum alike"), 300, 92, "start"),
        ((215, 186, 125, 268), False, (), 0, 0, "end"),
        ((155, 268, 245, 186), False, ("always, both ways",), 130, 226, "end"),
        ((315, 186, 405, 268), False, ("always",), 348, 240, "end"),
        ((435, 268, 345, 186), True, ("if the bias is equal", "in all phases"), 425, 222, "start"),
    ):
        drawing.arrow(x1, y1, x2, y2, dashed=dashed)
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
            with mode(layer, training=False):
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
        drawing.box(72 - width / 2, 30 * place + 6, width, 22, colour, radius=3)
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
        with torch.no_grad(), mode(model, training=False):
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
    widest = encoder[0][-1]
    for level, shape in enumerate(encoder):
        width, y = 100 * shape[-1] / widest, 6 + 74 * level
        x = 175 if level == depth else 70
        drawing.box(x - width / 2, y, width, 20, BLUE)
        drawing.text(x, y + 36, text(shape))
        if level < depth:
            share = width * handed[level] / (handed[level] + made[level])
            drawing.box(280 - width / 2, y, share, 20, BLUE)
            drawing.box(280 - width / 2 + share, y, width - share, 20, ORANGE)
            drawing.text(280, y + 36, f"{handed[level]} + {made[level]} → {after[level][0]}")
            if handed[level]:
                drawing.arrow(70 + width / 2 + 4, y + 10, 280 - width / 2 - 4, y + 10, dashed=True)
            down, up = (170, 180) if level + 1 == depth else (70, 280)
            drawing.arrow(70, y + 42, down, y + 70)
            drawing.arrow(up, y + 70, 280, y + 42)
    drawing.text(175, 74 * depth + 62, f"images {text(example.shape[1:])}, classes {text(shapes['decoder.head'])}")
    return drawing
