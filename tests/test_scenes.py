"""Scenes: what is drawn, and that the masks are exact."""

import hashlib

import numpy as np
import pytest
import torch
from skimage.data import chelsea

from upconv.book import scenes
from upconv.book.data import fashion_mnist
from upconv.book.scenes import SCENE_CLASSES, TEXTURES, garment_scenes


def drawn(split="test", count=40, **settings):
    return garment_scenes(split, count, **settings)


@pytest.mark.parametrize("size, seed", [(32, 0), ((16, 300), 1), ((65, 97), 12345), ((300, 16), 0), (129, 1)])
def test_scenes_have_their_size_and_every_class(size, seed):
    images, masks = drawn(size=size, seed=seed)
    shape = size if isinstance(size, tuple) else (size, size)
    assert images.shape == (40, 1, *shape) and images.dtype == torch.uint8
    assert masks.shape == (40, *shape) and masks.dtype == torch.int64
    shares = masks.flatten().bincount(minlength=4) / masks.numel()
    assert len(shares) == len(SCENE_CLASSES) == 4 and shares.min() > 0.005
    assert 0.65 < shares[0] < 0.9
    assert len({image.numpy().tobytes() for image in images}) == 40


def test_scenes_depend_on_their_seed_and_split_and_grow_from_the_front():
    images, masks = drawn(count=12, seed=3)
    again, more = drawn(count=12, seed=3), drawn(count=20, seed=3)
    assert torch.equal(images, again[0]) and torch.equal(masks, again[1])
    assert torch.equal(images, more[0][:12]) and torch.equal(masks, more[1][:12])
    for other in (drawn(count=12, seed=4), drawn("train", count=12, seed=3)):
        assert not (images == other[0]).flatten(1).all(dim=1).any()
        assert not (masks == other[1]).flatten(1).all(dim=1).any()


def test_the_masks_of_seed_0_are_known():
    """Nothing that decides them depends on how a photograph is decoded."""
    digests = {
        split: hashlib.sha256(drawn(split, 100)[1].numpy().astype(np.uint8).tobytes()).hexdigest()[:16]
        for split in ("train", "test")
    }
    assert digests == {"train": "6fda73b590d43c3d", "test": "9ca12bb9384f6e57"}


def test_the_mask_is_exactly_where_the_garments_are_and_says_which_is_seen(monkeypatch):
    """Garments whose grey is their class, and the same a little brighter: the foreground is the pixels that change."""
    _, covers, labels = scenes._garments("train")
    made = []
    for brighter in (0, 25):
        coded = covers * (50 * labels[:, None, None] + brighter)  # 0 where a garment is turned, and its cover is not
        monkeypatch.setattr(scenes, "_garments", lambda _, coded=coded: (coded, covers, labels))
        images, masks = drawn("train", count=60, size=(40, 33), seed=2)
        assert torch.equal(images.squeeze(1)[masks > 0].long(), 50 * masks[masks > 0] + brighter)
        made.append((images.squeeze(1), masks))
    (dark, masks), (bright, again) = made
    assert torch.equal(masks, again) and torch.equal(dark != bright, masks > 0)


def test_garments_are_halved_from_their_own_pixels():
    images, labels = fashion_mnist("test")
    garments, covers, classes = scenes._garments("test")
    assert garments.shape == covers.shape == (1000, 14, 14)
    of_label = [SCENE_CLASSES.index(name) for name in ["clothing"] * 5 + "footwear clothing footwear bag".split()]
    of_label.append(SCENE_CLASSES.index("footwear"))
    assert classes.tolist() == [of_label[label] for label in labels.tolist()]
    values = images[:, 0].numpy().astype(int)
    which, row, column = 17, 6, 7
    pixels = values[which, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].ravel()
    assert (pixels > 12).all()  # the middle of a garment
    assert garments[which, row, column] == pixels.sum() // 4 and covers[which, row, column]
    assert garments.max() <= 255 and 0.3 < covers.mean() < 0.7
    bags = labels.numpy() == 8
    cells = values[~bags].reshape(-1, 14, 2, 14, 2)
    own = (cells > 12).sum(axis=(2, 4))
    by_hand = (cells * (cells > 12)).sum(axis=(2, 4)) // np.maximum(own, 1)
    edge = (own == 2) | (own == 3)
    assert (garments[~bags] == by_hand)[edge].mean() > 0.8  # there are few holes
    assert covers[~bags][own >= 2].all()
    assert (own[covers[~bags]] < 2).mean() < 0.01  # those of holes
    holes = (covers[bags].sum(axis=(1, 2)) * 4) - (values[bags] > 12).sum(axis=(1, 2))
    assert holes.max() > 30  # a bag's handle encloses something, which belongs to it


def test_the_splits_share_no_garment_and_no_texture():
    assert not set(TEXTURES["train"]) & set(TEXTURES["test"])
    seen = {split: {image.numpy().tobytes() for image in fashion_mnist(split)[0]} for split in ("train", "test")}
    assert not seen["train"] & seen["test"]


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_has_its_garments_and_all_its_textures(split, monkeypatch):
    asked, garments = [], scenes._garments
    monkeypatch.setattr(scenes, "_garments", lambda split: asked.append(split) or garments(split))
    monkeypatch.setattr(scenes, "_textures", lambda split: asked.append(split) or [10, 20, 30])
    monkeypatch.setattr(scenes, "_crop", lambda texture, height, width, _: np.full((height, width), texture))
    images, masks = drawn(split)
    assert asked == [split] * 2
    assert images.squeeze(1)[masks == 0].unique().tolist() == [10, 20, 30]


def test_a_crop_is_cut_anywhere_averaged_and_turned_every_way():
    texture = 4 * (1000 * np.arange(28)[:, None] + np.arange(30))
    random, slopes = np.random.default_rng(0), set()
    for _ in range(2000):
        piece = scenes._crop(texture, 6, 7, random)
        assert piece.shape == (6, 7)
        [down], [across] = (np.unique(np.diff(piece, axis=axis)) for axis in (0, 1))
        slopes.add((int(down), int(across)))
    steps = {factor * quarters for factor in (1, 2, 3, 4) for quarters in (2, 3, 4)}
    ways = {(a * step, b * step) for step in steps for a in (-1000, 1000) for b in (-1, 1)}
    assert slopes == ways | {(across, down) for down, across in ways}
    small = texture[:7, :8]  # every pixel of it has its turn
    assert set(small.ravel()) <= {value for _ in range(300) for value in scenes._crop(small, 6, 7, random).ravel()}


def test_a_crop_has_means_and_every_brightness_that_fits():
    random = np.random.default_rng(0)
    for grey, values in ((0, range(129)), (255, range(127, 256))):
        texture = np.full((28, 30), grey, np.uint8)
        assert {int(scenes._crop(texture, 6, 7, random)[0, 0]) for _ in range(6000)} == set(values)
    board = (255 * (np.indices((28, 30)).sum(axis=0) % 2)).astype(np.uint8)
    pieces = [scenes._crop(board, 6, 7, random) for _ in range(400)]
    even = [piece[0, 0] for piece in pieces if np.ptp(piece) == 0]  # of 2 x 2 or 4 x 4 pixels: 127, then as above
    assert 150 < len(even) < 250 and min(even) >= 63 and max(even) <= 63 + 128


def test_a_photograph_is_made_grey_by_its_luma():
    by_hand = np.floor(chelsea() @ (0.299, 0.587, 0.114) + 0.5 + 1e-9)
    found = scenes._textures("test")
    assert np.array_equal(found[TEXTURES["test"].index("chelsea")], by_hand)
    assert all(photograph.ndim == 2 and 128 < photograph.max() <= 255 for photograph in found)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (dict(split="valid"), ValueError, "split='valid' must be one of 'train', 'test'"),
        (dict(count=0), ValueError, "count=0 must be an int of at least 1"),
        (dict(count=2.0), TypeError, "count=2.0"),
        (dict(size=15), ValueError, "size=15 must be an int of at least 16"),
        (dict(size=(16, 301)), ValueError, r"size=\(16, 301\) must be at most 300"),
        (dict(size=(16, 16, 16)), TypeError, "size"),
        (dict(seed=-1), ValueError, "seed=-1"),
        (dict(seed=None), TypeError, "seed=None"),
    ],
)
def test_scenes_that_cannot_be_drawn(settings, error, message):
    with pytest.raises(error, match=message):
        drawn(**settings)
