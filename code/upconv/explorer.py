"""An interactive figure of one upsampling layer, for notebooks and pages: it needs neither kernel nor network.

`explore` gives the settings, `explorer.js` beside this file draws and computes. Where scripts do not run there is a
picture with text.
"""

from __future__ import annotations

import base64
import json
import math
import os
from html import escape
from pathlib import Path
from typing import Any

import torch

from upconv._interpolation import interpolation
from upconv.arithmetic import Int, checked_setting, conv_output_size, conv_transpose_output_size

__all__ = ["Explorer", "explore"]

SHUFFLE = "pixel_shuffle"
SCALES = {"conv_transpose": "stride", "upsample_conv": "scale_factor", "pixel_shuffle": "upscale_factor"}
MODES = ("nearest", "bilinear")
TAPS = ("ones", "tent", "random", "icnr")
OPEN = ("taps", "pictures", "frequencies", "forms", "sizes", "")
LARGEST = {"input_size": 256, "kernel_size": 32, "stride": 16, "padding": 32, "output_padding": 15, "dilation": 8}
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#808080")


def explore(
    *,
    operator: str = "conv_transpose",
    mode: str = "nearest",
    axes: Int = 1,
    input_size: Int = 4,
    kernel_size: Int = 3,
    stride: Int | None = None,
    scale_factor: Int | None = None,
    upscale_factor: Int | None = None,
    padding: Int = 0,
    output_padding: Int = 0,
    dilation: Int = 1,
    taps: str | list[Any] | tuple[Any, ...] | torch.Tensor = "ones",
    view: str = "stamps",
    colour: str = "phase",
    open: str = "taps",
    output_size: Int | None = None,
    name: str = "explorer",
) -> Explorer:
    """Show a layer in an interactive figure; the last line of a cell shows it.

    Parameters
    ----------
    operator : str
        "conv_transpose", a ConvTranspose2d; "upsample_conv", an Upsample and a Conv2d; or "pixel_shuffle", a Conv2d and
        a PixelShuffle.
    mode : str
        Of the Upsample: "nearest" or "bilinear".
    axes : int
        1 to draw one axis, 2 to draw images. The settings are the same on both axes.
    input_size, kernel_size, padding, output_padding, dilation : int
        As in PyTorch's layers, up to 256, 32, 32, 15 and 8. Only a transposed convolution has `output_padding`.
    stride, scale_factor, upscale_factor : int, optional
        The scale, up to 16, by 2 if omitted, under the name that it has in the operator: `stride` in the first,
        `scale_factor` in the second, `upscale_factor` in the third.
    taps : str or sequence of float or torch.Tensor
        The kernel that the figure begins with: "ones"; "tent", falling off linearly from the middle; "random" or
        "random:7" with a seed; for "pixel_shuffle" also "icnr" or "icnr:7", the same random filter in all phases; or
        its numbers, in the order of the layer's weight, `kernel_size ** axes` of them. Before a pixel shuffle there
        are `upscale_factor ** axes` such filters.
    view, colour : str
        "stamps" that input pixels put down, or "windows" through which output pixels are gathered; output pixels
        coloured by "phase" or by "overlap", the number of their products.
    open : str
        Which part below the picture is unfolded: "taps", "pictures", "frequencies", "forms", "sizes", or "" for none.
    output_size : int, optional
        The wanted size in the part "sizes", from 1 to 512, if that part is unfolded; else the layer's own.
    name : str
        In a page of the book, where the state is part of the address: `#name?kernel_size=4&padding=1`.

    Returns
    -------
    Explorer

    Raises
    ------
    TypeError
        If a size is not an int, or the scale has the name of another operator.
    ValueError
        If an argument is out of its range, or PyTorch refuses the setting.

    See Also
    --------
    upconv.arithmetic.solve_conv_transpose : The list in the part "sizes".

    Notes
    -----
    The figure follows Odena, Dumoulin and Olah 2016, "Deconvolution and checkerboard artifacts" (Distill).

    Examples
    --------
    >>> explore(input_size=5, kernel_size=3, stride=2, padding=1)
    Interactive figure: ConvTranspose2d with kernel_size=3, stride=2, padding=1 makes 9 pixels of 5 on an axis.
    >>> explore(operator="upsample_conv", stride=2)
    Traceback (most recent call last):
        ...
    TypeError: operator="upsample_conv" has no stride: call it scale_factor
    """
    choices = dict(operator=(operator, SCALES), mode=(mode, MODES), view=(view, ("stamps", "windows")))
    choices |= dict(colour=(colour, ("phase", "overlap")), open=(open, OPEN))
    for key, (value, accepted) in choices.items():
        if value not in tuple(accepted):
            raise ValueError(f"{key}={value!r} must be one of {', '.join(map(repr, accepted))}")
    given = dict(stride=stride, scale_factor=scale_factor, upscale_factor=upscale_factor)
    for key, value in given.items():
        if value is not None and key != SCALES[operator]:
            raise TypeError(f'operator="{operator}" has no {key}: call it {SCALES[operator]}')
    scale = given[SCALES[operator]]
    sizes = dict(input_size=input_size, kernel_size=kernel_size, stride=2 if scale is None else scale)
    sizes |= dict(padding=padding, output_padding=output_padding, dilation=dilation, axes=axes)
    sizes |= dict(output_size=8 if output_size is None else output_size)
    for key, value in sizes.items():
        sizes[key] = _whole(key, value, {**LARGEST, "axes": 2, "output_size": 512}[key], SCALES[operator])
    if output_padding and operator != "conv_transpose":
        raise ValueError(f'output_padding={output_padding} must be 0: operator="{operator}" has none')
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"name={name!r} must be a name, of letters, digits and underscores")
    settings = dict(operator=operator, mode=mode, view=view, colour=colour, open=open, name=name, **sizes)
    settings["taps"] = _taps(taps, operator, sizes)
    made = _output_size(settings)
    if output_size is None and open == "sizes":
        settings["output_size"] = min(made, 512)
    return Explorer(settings)


class Explorer:
    """What `explore` returns: a notebook shows the figure, a terminal a sentence.

    Parameters
    ----------
    settings : dict
        As `explore` checks them.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings

    def __repr__(self) -> str:
        return f"Interactive figure: {_words(self.settings)}"

    def _repr_html_(self) -> str:
        """Give the settings, the picture for where no script runs, and the script, which takes its place.

        Notebooks are stored and compared without the script.
        """
        picture = base64.b64encode(_picture(self.settings).encode()).decode()
        words = escape(_words(self.settings))
        stored = "PYTEST_VERSION" in os.environ  # nbval compares
        return (
            f'<div class="upconv-explorer" data-settings="{escape(json.dumps(self.settings))}"><figure>'
            f'<img src="data:image/svg+xml;base64,{picture}" alt="{words}" style="max-width: 100%">'
            f"<figcaption>{words} {ABOUT}</figcaption></figure></div>"
        ) + ("" if stored else LIVE.format(style=_read("css"), script=_read("js")))


def _read(suffix):
    return Path(__file__).with_suffix(f".{suffix}").read_text(encoding="utf-8")


LIVE = """\
<!-- explorer -->
<style>
{style}</style>
<script type="module">
{script}
mount();
for (const figure of document.querySelectorAll(".upconv-explorer")) // JupyterLab would take the arrow keys
  figure.addEventListener("focusin", ({{ target }}) => {{ target.dataset.lmSuppressShortcuts = true; }});
</script>
<!-- /explorer -->"""
ABOUT = (
    "Each row is the stamp of one input pixel, coloured by phase; the last row is the output, where its pixels lie "
    "over the input. This is a picture of an interactive figure, which needs JavaScript and a trusted notebook."
)


def _whole(name, value, largest, scale):
    shown = scale if name == "stride" else name
    number = checked_setting(name, value)
    if isinstance(number, tuple):
        raise TypeError(f"{shown}={value!r} must be one int: the figure has the same settings on both axes")
    if number > largest:
        raise ValueError(f"{shown}={number} must be at most {largest}")
    return number


def _taps(taps, operator, sizes):
    if isinstance(taps, str):
        kind, _, seed = taps.partition(":")
        seeded = kind in ("random", "icnr")
        if kind not in TAPS or (seed and not (seeded and seed.isdecimal())) or (kind == "icnr" and operator != SHUFFLE):
            raise ValueError(f"taps={taps!r} must be numbers or one of {', '.join(map(repr, TAPS))}")
        return _named_taps(kind, int(seed or 0), operator, sizes)
    try:
        numbers = torch.as_tensor(taps, dtype=torch.float64).flatten().tolist()
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"taps must be a str or numbers, not {taps!r}") from None
    filters = sizes["stride"] ** sizes["axes"] if operator == SHUFFLE else 1
    wanted = filters * sizes["kernel_size"] ** sizes["axes"]
    if len(numbers) != wanted or not all(map(math.isfinite, numbers)):
        raise ValueError(f"taps has {len(numbers)} numbers and must have {wanted} finite ones")
    return [round(number, 6) for number in numbers]


def _named_taps(kind, seed, operator, sizes):
    k, axes = sizes["kernel_size"], sizes["axes"]
    if kind == "ones":
        return kind
    filters = sizes["stride"] ** axes if operator == SHUFFLE else 1
    size = (k,) * axes
    if kind == "tent":
        line = 1 - (torch.arange(k, dtype=torch.float64) - (k - 1) / 2).abs() / ((k + 1) // 2)
        drawn = line if axes == 1 else line[:, None] * line
    else:
        generator = torch.Generator().manual_seed(seed)
        size = size if kind == "icnr" else (filters, *size)
        drawn = torch.randint(-99, 100, size, generator=generator).double() / 100
    return [round(number, 6) for number in drawn.expand(filters, *(k,) * axes).flatten().tolist()]


def _output_size(settings):
    n, k, s, p, d = (settings[key] for key in ("input_size", "kernel_size", "stride", "padding", "dilation"))
    if settings["operator"] == "conv_transpose":
        return conv_transpose_output_size(n, k, s, p, settings["output_padding"], d)
    return (
        conv_output_size(n, k, 1, p, d) * s if settings["operator"] == SHUFFLE else conv_output_size(n * s, k, 1, p, d)
    )


def _words(settings):
    operator, scale = settings["operator"], settings["stride"]
    shown = {key: settings[key] for key in ("kernel_size", "stride", "padding", "output_padding", "dilation")}
    if operator != "conv_transpose":
        del shown["stride"]
    defaults = {"output_padding": 0, "dilation": 1}
    numbers = ", ".join(f"{key}={value}" for key, value in shown.items() if value != defaults.get(key))
    mode = '"bilinear"' if settings["mode"] == "bilinear" else '"nearest"'
    layer = {
        "conv_transpose": f"ConvTranspose2d with {numbers}",
        "upsample_conv": f"Upsample with scale_factor={scale}, mode={mode} and Conv2d with {numbers}",
        SHUFFLE: f"Conv2d with {numbers} and PixelShuffle with upscale_factor={scale}",
    }[operator]
    made = "makes" if operator == "conv_transpose" else "make"
    return f"{layer} {made} {_output_size(settings)} pixels of {settings['input_size']} on an axis."


def _picture(settings):
    """Draw one axis as SVG, on a white ground: in an `img` it does not know the page's colours."""
    n, k, s, p, d = (settings[key] for key in ("input_size", "kernel_size", "stride", "padding", "dilation"))
    span, crop, m = d * (k - 1) + 1, p, _output_size(settings)
    used = range(0, span, d)
    if settings["operator"] == SHUFFLE:
        used = [t for t in range(s * span) if t // s % d == 0]
        span, crop = s * span, s * (span - 1 - p)
    elif settings["operator"] == "upsample_conv":
        taps, offset, _ = interpolation(settings["mode"], s)
        used = sorted({d * a + t for a in range(k) for t in range(len(taps))})
        span, crop = span + len(taps) - 1, span - 1 - p + offset
    centre = [(j + crop - (span - 1) / 2) / s + 0.5 for j in (min(0, -crop), max(m, (n - 1) * s - crop + span))]
    first, last = min(0, centre[0] - 0.5 / s), max(n, centre[1])
    unit = min(90, 660 / (last - first))
    row = min(18, 640 / n)
    small, height = unit / s, 66 + row * n

    def x(place):
        return 8 + (place - first) * unit

    def left(j):
        return x((j + crop - (span - 1) / 2) / s + 0.5) - small / 2

    def box(x, y, width, height, fill, more=""):
        return (
            f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{height}" fill="{fill}" stroke="#444" '
            f'stroke-width="0.7"{more}/>'
        )

    parts = [box(x(i), 8, unit, 24, "#ddd") for i in range(n)]
    for i in range(n):
        for t in used:
            j = i * s - crop + t
            kept = 0 <= j < m
            fill = COLOURS[(j + crop) % s % 8] if kept else "none"
            more = ' fill-opacity="0.6"' if kept else ' stroke-dasharray="2 2"'
            parts.append(box(left(j), 38 + row * i, small, max(row - 2, 1), fill, more))
    y = height - 30
    parts += [box(left(j), y, small, 24, COLOURS[(j + crop) % s % 8], ' fill-opacity="0.6"') for j in range(m)]
    for label, at in ((f"{n} pixels", 24), (f"{m} pixels", y + 16)):
        parts.append(f'<text x="{x(last) + 8:.1f}" y="{at}" font-family="sans-serif" font-size="12">{label}</text>')
    width = x(last) + 84
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" '
        f'viewBox="0 0 {width:.0f} {height}"><rect width="100%" height="100%" rx="6" fill="#fff"/>'
        f"{''.join(parts)}</svg>"
    )
