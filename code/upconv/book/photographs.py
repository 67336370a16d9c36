"""Small pieces of colour photographs that come with scikit-image and scikit-learn."""

from functools import lru_cache

import numpy as np
import torch

from upconv.book.common import check_choice, checked_int

__all__ = ["PHOTOGRAPHS", "photograph_crops"]

PHOTOGRAPHS = {"train": ("astronaut", "china", "coffee", "motorcycle"), "test": ("chelsea", "flower", "rocket")}


def photograph_crops(split: str, count: int, size: int = 32, seed: int = 0):
    """Cut square pieces out of colour photographs, each halved first.

    The two splits share no photograph. A piece is of any of them with the same probability, at any place, and half of
    the pieces are mirrored.

    Parameters
    ----------
    split : str
        "train" or "test"; `PHOTOGRAPHS` names the photographs of each.
    count : int
        The number of pieces, at least 1. The first pieces of a longer set are those of a shorter one.
    size : int
        Height and width in pixels, from 1 to 150.
    seed : int
        Of all that is drawn; at least 0.

    Returns
    -------
    torch.Tensor
        Shape (count, 3, size, size), uint8.

    Raises
    ------
    TypeError
        If `count`, `size` or `seed` is not an int.
    ValueError
        If a value is out of its range.

    Notes
    -----
    Halving is the mean of each 2 x 2 pixels, rounded: it makes pieces that show more, with less of the camera's noise.
    The photographs astronaut, coffee, motorcycle (left of a stereo pair), chelsea and rocket come with scikit-image,
    china and flower with scikit-learn; their pages name the photographers.

    Examples
    --------
    >>> photograph_crops("test", 5).shape
    torch.Size([5, 3, 32, 32])
    """
    check_choice("split", split, ("train", "test"))
    count, seed = checked_int("count", count, at_least=1), checked_int("seed", seed, at_least=0)
    size = checked_int("size", size, at_least=1)
    if size > 150:
        raise ValueError(f"size={size} must be at most 150, as large as the smallest photograph, halved")
    photographs = _photographs(split)
    random = np.random.default_rng([seed, ("train", "test").index(split)])
    pieces = np.empty((count, size, size, 3), np.uint8)
    for piece in pieces:
        photograph = photographs[random.integers(len(photographs))]
        top, left = (random.integers(length - size + 1) for length in photograph.shape[:2])
        cut = photograph[top : top + size, left : left + size]
        piece[...] = cut[:, ::-1] if random.integers(2) else cut
    return torch.from_numpy(pieces).permute(0, 3, 1, 2).contiguous()


@lru_cache(maxsize=2)
def _photographs(split):
    """Read the photographs of a split, halved."""
    from skimage import data  # noqa: PLC0415 - slow to import
    from sklearn.datasets import load_sample_image  # noqa: PLC0415

    found = []
    for name in PHOTOGRAPHS[split]:
        if name in ("china", "flower"):
            whole = load_sample_image(f"{name}.jpg")
        else:
            whole = data.stereo_motorcycle()[0] if name == "motorcycle" else getattr(data, name)()
        height, width = (length // 2 for length in whole.shape[:2])
        means = whole[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3).mean(axis=(1, 3))
        found.append(means.round().astype(np.uint8))
    return found
