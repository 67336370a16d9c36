"""The front page's picture: what enlargers draw, on flat grey and of a photograph, while they are trained."""

import base64
import io

import numpy as np
from PIL import Image

from upconv.book.data import committed_file

__all__ = ["BLOCKS", "CONTRAST", "FLAT", "PHOTOGRAPH", "SIDES", "STEPS", "flat_levels", "watching"]

STEPS = (0, 10, 30, 100, 300, 1000)  # after which they are looked at
BLOCKS = {
    "conv_transpose_3x3": "transposed 3/2/1, output_padding 1",
    "conv_transpose_4x4": "transposed 4/2/1",
    "pixel_shuffle": "3x3, pixel shuffle",
    "pixel_shuffle_icnr": "3x3, pixel shuffle, ICNR",
    "nearest_conv_3x3": "nearest, 3x3",
}
CONTRAST = 4  # of the flat pictures, around their mean
FLAT, PHOTOGRAPH = "watching_flat.png", "watching_photograph.jpg"  # a row for each block, a column for each of STEPS
SIDES = {FLAT: 24, PHOTOGRAPH: 64}  # of a block's picture, in pixels


def watching(step=10):
    """Show the pictures beside one another, for as many steps as a slider says.

    Parameters
    ----------
    step : int
        One of `STEPS`, that of the slider at first; where scripts are off it stays, and all others are shown below.

    Returns
    -------
    str
        HTML that brings its pictures and its style along.
    """
    first, steps = STEPS.index(step), " ".join(map(str, STEPS))
    uris = {name: base64.b64encode(committed_file(name).read_bytes()).decode() for name in SIDES}
    blocks = "".join(
        f'<div class="block" style="--row: {row}"><p>{title}</p>'
        f'<div class="flat" role="img" aria-label="Flat grey, by {title}"></div>'
        f'<div class="photograph" role="img" aria-label="A cat\'s eye, by {title}"></div></div>'
        for row, title in enumerate(BLOCKS.values())
    )
    change = (
        "const n = this.dataset.steps.split(' ')[this.value]; this.ariaValueText = n + ' steps'; "
        "this.nextElementSibling.value = n; this.closest('.upconv-watching').style.setProperty('--step', this.value)"
    )
    pictures = "; ".join(
        f"--{kind}: url(data:image/{form};base64,{uris[name]})"
        for kind, form, name in (("flat", "png", FLAT), ("photograph", "jpeg", PHOTOGRAPH))
    )
    numbers = f"--step: {first}; --rows: {len(BLOCKS)}; --steps: {len(STEPS)}"
    return (
        f"<style>{STYLE}</style>"
        f'<div class="upconv-watching" style="{numbers}; {pictures}">'
        f'<div class="blocks">{blocks}</div>'
        f'<label>Steps of training <input type="range" min="0" max="{len(STEPS) - 1}" value="{first}" '
        f'aria-valuetext="{step} steps" data-steps="{steps}" oninput="{change}"><output>{step}</output></label>'
        f"<noscript><p>All, after {', '.join(map(str, STEPS))} steps, in rows as above from left to right:</p>"
        f'<div class="all flat"></div><div class="all photograph"></div></noscript></div>'
    )


def flat_levels(step):
    """Give the spread of the flat pictures, in grey levels of 255.

    Parameters
    ----------
    step : int
        After so many steps of training, one of `STEPS`.

    Returns
    -------
    dict of str to float
        By the blocks' names: the standard deviation over the pixels, the three colours' mean. Where the contrast has
        driven pixels to black or white, it is too small.
    """
    side = SIDES[FLAT]
    picture = np.asarray(Image.open(io.BytesIO(committed_file(FLAT).read_bytes())), dtype=float)
    column = slice(side * STEPS.index(step), side * (STEPS.index(step) + 1))
    rows = (picture[side * row : side * (row + 1), column] for row in range(len(BLOCKS)))
    return {name: tile.std(axis=(0, 1)).mean() / CONTRAST for name, tile in zip(BLOCKS, rows, strict=True)}


STYLE = """
.upconv-watching .blocks { display: grid; grid-template-columns: repeat(auto-fit, minmax(7rem, 1fr)); gap: 0.5rem; }
.upconv-watching p { font-size: 0.8rem; line-height: 1.2; margin: 0; min-height: 2.4em; }
.upconv-watching .block { display: flex; flex-direction: column; justify-content: end; gap: 0.25rem; }
.upconv-watching .flat { background-image: var(--flat); image-rendering: pixelated; }
.upconv-watching .photograph { background-image: var(--photograph); }
.upconv-watching .block > div {
  aspect-ratio: 1; background-size: calc(100% * var(--steps)) calc(100% * var(--rows));
  background-position: calc(100% * var(--step) / (var(--steps) - 1)) calc(100% * var(--row) / (var(--rows) - 1));
}
.upconv-watching .all { aspect-ratio: var(--steps) / var(--rows); background-size: 100% 100%; margin: 0.25rem 0; }
.upconv-watching label { display: flex; align-items: center; gap: 0.75rem; margin-top: 0.75rem; }
.upconv-watching input { flex: 1; min-height: 2.75rem; }
.upconv-watching output { min-width: 3.5ch; text-align: right; font-variant-numeric: tabular-nums; }
"""
