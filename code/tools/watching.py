"""Make the front page's picture: enlargers that differ in their blocks alone, from the first weights to the last.

`python -m tools.watching` trains them, in a minute, and writes `data/watching_flat.png` and `watching_photograph.jpg`.
"""

import contextlib
import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import data

from upconv.book.tasks import SUPER_RESOLUTION, variant_of
from upconv.book.training import train
from upconv.book.watching import BLOCKS, CONTRAST, FLAT, PHOTOGRAPH, SIDES, STEPS

__all__ = ["main", "tiles", "watch"]

FOLDER = Path(__file__).resolve().parents[2] / "data"
TASK = variant_of(SUPER_RESOLUTION, images="photographs")
MARGIN = 20  # of the flat picture: farther than a border reaches


def inputs():
    """Give a flat grey picture and a small photograph of a cat's eye, both (1, 3, H, W), from 0 to 1."""
    small = SIDES[FLAT] // 4 + 2 * MARGIN // 4
    eye = torch.from_numpy(data.chelsea()[92:156, 132:196].copy()).permute(2, 0, 1).unsqueeze(0) / 255
    return torch.full((1, 3, small, small), 0.5), torch.nn.functional.avg_pool2d(eye, 4)


def watch(block, until=STEPS[-1]):
    """Train an enlarger of photographs with a block, and look at what it makes, at each of `STEPS` up to `until`.

    Returns
    -------
    list of tuple of 2 torch.Tensor
        The flat picture's middle and the photograph, each (3, H, W).
    """
    torch.manual_seed(0)
    model = TASK.build(block, TASK.tiers["mini"]["channels"], "mini")
    seen = []

    def look(step):
        if step in STEPS and step <= until:
            with torch.no_grad():
                flat, photograph = (model(x)[0] for x in inputs())
            seen.append((flat[:, MARGIN:-MARGIN, MARGIN:-MARGIN], photograph))
        if step >= until:
            raise StopIteration

    common = dict(steps=STEPS[-1], batch_size=16, learning_rate=0.004, decay=True, seed=0, progress=False)
    with contextlib.suppress(StopIteration):
        train(model, *TASK.data("train", "mini"), **common, callback=look)
    return seen


def tiles(seen):
    """Give what `watch` saw as rows of pixels, uint8 (H, W, 3): of the flat pictures, of the photographs."""
    rows = [], []
    for flat, photograph in seen:
        mean = flat.mean(dim=(1, 2), keepdim=True)
        for row, image in zip(rows, (0.5 + CONTRAST * (flat - mean), photograph), strict=True):
            row.append((image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy())
    return tuple(np.concatenate(row, axis=1) for row in rows)


def main():
    """Train all, and write both pictures: a row for each block, a column for each of `STEPS`."""
    torch.set_num_threads(1)
    rows = zip(*(tiles(watch(block)) for block in BLOCKS), strict=True)
    for name, pictures in zip((FLAT, PHOTOGRAPH), rows, strict=True):
        options = dict(format="PNG", optimize=True) if name == FLAT else dict(format="JPEG", quality=90, subsampling=0)
        file = io.BytesIO()
        Image.fromarray(np.concatenate(pictures)).save(file, **options)
        (FOLDER / name).write_bytes(file.getvalue())
        print(f"{name}: {len(file.getvalue()):,} bytes")


if __name__ == "__main__":
    main()
