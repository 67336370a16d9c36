"""upconv.book.photographs: pieces of known photographs, the same every time."""

import numpy as np
import pytest
import torch
from skimage import data
from skimage.transform import downscale_local_mean
from sklearn.datasets import load_sample_image

from upconv.book.photographs import PHOTOGRAPHS, photograph_crops


def halved(name):
    """Halve a photograph by another library."""
    if name in ("china", "flower"):
        whole = load_sample_image(f"{name}.jpg")
    else:
        whole = data.stereo_motorcycle()[0] if name == "motorcycle" else getattr(data, name)()
    height, width = (length - length % 2 for length in whole.shape[:2])
    return downscale_local_mean(whole[:height, :width], (2, 2, 1)).round().astype(np.uint8)


@pytest.fixture(scope="module")
def photographs():
    return {name: packed(halved(name)) for names in PHOTOGRAPHS.values() for name in names}


def packed(pixels):
    """Give pixels one number for their three colours."""
    return pixels.astype(np.int64) @ [1, 256, 65536]


def places(piece, photograph):
    """Where a piece lies in a photograph; both are packed."""
    size = len(piece)
    height, width = (length - size + 1 for length in photograph.shape)
    found = photograph[:height, :width] == piece[0, 0]
    found &= photograph[size - 1 :, size - 1 :] == piece[-1, -1]
    return [
        (top, left)
        for top, left in np.argwhere(found).tolist()
        if np.array_equal(photograph[top : top + size, left : left + size], piece)
    ]


@pytest.mark.parametrize("split", PHOTOGRAPHS)
def test_every_piece_is_one_of_a_photograph_of_its_split_or_its_mirror_image(split, photographs):
    pieces = photograph_crops(split, 120, size=24, seed=3)
    assert pieces.shape == (120, 3, 24, 24) and pieces.dtype == torch.uint8 and pieces.is_contiguous()
    seen, mirrored, spots = set(), 0, {}
    for piece in packed(pieces.permute(0, 2, 3, 1).numpy()):
        found = [
            (name, flipped, place)
            for name in PHOTOGRAPHS[split]
            for flipped in (False, True)
            for place in places(piece[:, ::-1] if flipped else piece, photographs[name])
        ]
        assert found
        name, flipped, place = found[0]
        seen.add(name)
        mirrored += flipped
        spots.setdefault(name, []).append(place)
    assert seen == set(PHOTOGRAPHS[split])
    assert 40 < mirrored < 80  # half of them, of 120
    for name, mine in spots.items():  # from anywhere, to the last pixels
        room = np.array(photographs[name].shape) - 24
        assert (np.min(mine, axis=0) < 0.15 * room).all() and (np.max(mine, axis=0) > 0.85 * room).all()
        assert 120 / len(PHOTOGRAPHS[split]) / 2 < len(mine) < 120 / len(PHOTOGRAPHS[split]) * 1.6


def test_the_splits_share_no_photograph():
    assert not set(PHOTOGRAPHS["train"]) & set(PHOTOGRAPHS["test"])
    assert all(len(set(names)) == len(names) for names in PHOTOGRAPHS.values())


def test_the_first_pieces_of_a_longer_set_are_those_of_a_shorter_one():
    before = np.random.get_state()[1].tolist(), torch.get_rng_state()
    longer = photograph_crops("test", 30, seed=1)
    for count in (1, 17, 30):
        assert torch.equal(photograph_crops("test", count, seed=1), longer[:count])
    assert before[0] == np.random.get_state()[1].tolist() and torch.equal(before[1], torch.get_rng_state())
    assert torch.equal(photograph_crops("test", 3), photograph_crops("test", 3, size=32, seed=0))
    assert not torch.equal(photograph_crops("test", 3, seed=2), longer[:3])


def test_what_is_returned_belongs_to_the_caller():
    first = photograph_crops("test", 2)
    expected = first.clone()
    first.zero_()
    assert torch.equal(photograph_crops("test", 2), expected)


@pytest.mark.parametrize("split", PHOTOGRAPHS)
def test_pieces_are_at_most_as_large_as_the_smallest_photograph(split, photographs):
    assert min(min(photograph.shape) for photograph in photographs.values()) == 150
    assert photograph_crops(split, 20, size=150).shape == (20, 3, 150, 150)
    assert photograph_crops(split, 2, size=1).shape == (2, 3, 1, 1)
    with pytest.raises(ValueError, match="size=151 must be at most 150, as large as the smallest photograph, halved"):
        photograph_crops(split, 1, size=151)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("both", 1), ValueError, "split='both' must be one of"),
        (("train", 0), ValueError, "count=0 must be an int of at least 1"),
        (("train", 2.0), TypeError, "count=2.0 must be an int"),
        (("train", 1, 0), ValueError, "size=0 must be an int of at least 1"),
        (("train", 1, (8, 8)), TypeError, r"size=\(8, 8\) must be an int"),
        (("train", 1, 8, -1), ValueError, "seed=-1 must be an int of at least 0"),
        (("train", 1, 8, None), TypeError, "seed=None must be an int"),
    ],
)
def test_errors_name_the_argument(arguments, error, message):
    with pytest.raises(error, match=message):
        photograph_crops(*arguments)
