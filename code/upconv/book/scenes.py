"""Scenes of garments in front of photographed textures, drawn here, so that the class of every pixel is known."""

from functools import lru_cache

import numpy as np
import torch

from upconv.book.common import check_choice, checked_int
from upconv.book.data import CLASSES, fashion_mnist

__all__ = ["SCENE_CLASSES", "TEXTURES", "garment_scenes"]

FOOTWEAR = ("Sandal", "Sneaker", "Ankle boot")
SCENE_CLASSES = ("background", "clothing", "footwear", "bag")
TEXTURES = {"train": ("brick", "grass", "coffee", "china"), "test": ("gravel", "chelsea", "flower")}


def garment_scenes(split: str, count: int, size: int | tuple[int, int] = 32, seed: int = 0):
    """Draw scenes of garments in front of photographed textures, with the class of every pixel.

    A scene of 32 x 32 pixels has one to four garments of Fashion-MNIST's mini tier, 14 x 14 pixels each, larger ones
    more in proportion to their area; some are cut by the border, and later ones hide earlier ones. The two splits share
    no garment and no texture.

    Parameters
    ----------
    split : str
        "train" or "test".
    count : int
        The number of scenes, at least 1. The first scenes of a longer set are those of a shorter one.
    size : int or (int, int)
        Height and width in pixels, each from 16 to 300.
    seed : int
        Of everything that is drawn; at least 0.

    Returns
    -------
    images : torch.Tensor
        Shape (count, 1, H, W), uint8.
    masks : torch.Tensor
        Shape (count, H, W), int64, an index into `SCENE_CLASSES`.

    Raises
    ------
    TypeError
        If `count`, `size` or `seed` is not made of ints.
    ValueError
        If a value is out of its range.
    DataError
        As `fashion_mnist`.

    Notes
    -----
    A garment is every pixel above 12 of 255 and the holes inside; it is halved by the mean of those of each 2 x 2
    pixels that belong to it, if they are two or more. A scene consists of such pixels and of a texture's, nothing is
    blended: so the class of every pixel is known. Textures are means of 1 x 1 to 4 x 4 pixels of grey photographs,
    turned, with less contrast and another brightness: brick, grass, gravel, coffee and chelsea come with scikit-image,
    china and flower with scikit-learn. A garment sticks out of its scene by up to four pixels above and on the left,
    and by up to three below and on the right.

    Examples
    --------
    >>> images, masks = garment_scenes("test", 5, size=(32, 48))
    >>> images.shape, masks.shape
    (torch.Size([5, 1, 32, 48]), torch.Size([5, 32, 48]))
    """
    check_choice("split", split, ("train", "test"))
    count, seed = checked_int("count", count, at_least=1), checked_int("seed", seed, at_least=0)
    height, width = size if isinstance(size, (tuple, list)) and len(size) == 2 else (size, size)
    height, width = (checked_int("size", length, at_least=16) for length in (height, width))
    if max(height, width) > 300:
        raise ValueError(f"size={size!r} must be at most 300, as large as the smallest photograph")
    textures = _textures(split)
    garments, covers, labels = _garments(split)
    side = garments.shape[-1]
    random = np.random.default_rng([seed, ("train", "test").index(split)])
    images = np.empty((count, height, width), np.uint8)
    masks = np.zeros((count, height, width), np.int64)
    for image, mask in zip(images, masks, strict=True):
        image[...] = _crop(textures[random.integers(len(textures))], height, width, random)
        number = max(1, round(random.integers(1, 5) * height * width / 32**2))
        for which in random.integers(len(garments), size=number):
            turn = -1 if random.integers(2) else 1
            top, left = (int(random.integers(-side // 4, length - side + side // 4 + 1)) for length in (height, width))
            rows, columns = (np.arange(max(0, a), min(a + side, n)) for a, n in ((top, height), (left, width)))
            here, there = np.ix_(rows, columns), np.ix_(rows - top, columns - left)
            cover = covers[which][:, ::turn][there]
            image[here] = np.where(cover, garments[which][:, ::turn][there], image[here])
            mask[here] = np.where(cover, labels[which], mask[here])
    return torch.from_numpy(images).unsqueeze(1), torch.from_numpy(masks)


def _crop(texture, height, width, random):
    """Cut a piece out of a texture, at 1/1 to 1/4 of its size, turned, with less contrast and another brightness."""
    if random.integers(2):
        texture = texture.T
    factor = int(random.integers(1, min(4, texture.shape[0] // height, texture.shape[1] // width) + 1))
    top, left = (random.integers(n - factor * m + 1) for n, m in zip(texture.shape, (height, width), strict=True))
    piece = texture[top : top + factor * height, left : left + factor * width].astype(int)
    piece = piece.reshape(height, factor, width, factor).sum(axis=(1, 3)) // factor**2
    flips = (slice(None, None, -1 if random.integers(2) else 1) for _ in range(2))
    quarters = int(random.integers(2, 5))
    return piece[tuple(flips)] * quarters // 4 + random.integers(255 - 255 * quarters // 4 + 1)


@lru_cache(maxsize=2)
def _textures(split):
    """Give the grey photographs of a split, each of shape (H, W), uint8."""
    from skimage import data  # noqa: PLC0415 - Fashion-MNIST alone needs neither
    from sklearn.datasets import load_sample_image  # noqa: PLC0415

    photographs = [
        load_sample_image(f"{name}.jpg") if name in ("china", "flower") else getattr(data, name)()
        for name in TEXTURES[split]
    ]
    # the luma of ITU-R BT.601, in integers, so that it is the same on every machine
    return [p if p.ndim == 2 else (p.astype(int) @ (299, 587, 114) + 500) // 1000 for p in photographs]


@lru_cache(maxsize=2)
def _garments(split):
    """Give a split's garments and their covers, (N, 14, 14), and what they are, an index into `SCENE_CLASSES`."""
    from scipy.ndimage import binary_fill_holes  # noqa: PLC0415

    images, labels = fashion_mnist(split)
    images = images.squeeze(1).numpy().astype(int)
    covers = np.stack([binary_fill_holes(image > 12) for image in images])

    def halved(values):
        return values.reshape(-1, 14, 2, 14, 2).sum(axis=(2, 4))

    counts = halved(covers)
    classes = np.array([{"Bag": 3}.get(name, 2 if name in FOOTWEAR else 1) for name in CLASSES])
    return halved(images * covers) // np.maximum(counts, 1), counts >= 2, classes[labels.numpy()]
