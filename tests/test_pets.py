"""Oxford-IIIT Pet in small: archives made here, on a server of this machine."""

import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from upconv.book import pets
from upconv.book.data import DataError
from upconv.book.pets import oxford_pets

README = (Path(__file__).resolve().parents[1] / "data" / "README.md").read_text(encoding="utf-8")
IMAGES, ANNOTATIONS = PUBLISHED = tuple(pets.MD5)
CACHED = [f"oxford_pets_{ANNOTATIONS}", f"oxford_pets_{IMAGES}"]
COLOURS = np.array([[10, 120, 250], [200, 30, 40], [90, 220, 60]], np.uint8)  # background, pet, border
IN_TRIMAP = np.array([2, 1, 3], np.uint8)
# Width, height, the format and mode that some of the published .jpg have, how far off a colour may be.
PICTURES = {
    "Bengal_7": (45, 32, "PNG", "RGBA", 0),
    "Sphynx_1": (32, 40, "JPEG", "RGB", 6),
    "Abyssinian_12": (32, 51, "GIF", "P", 0),
    "pug_3": (39, 32, "JPEG", "CMYK", 6),
}
LISTS = {"train": ["Bengal_7", "Sphynx_1", "Abyssinian_12"], "test": ["pug_3"]}


def encoded(picture, form="PNG"):
    buffer = io.BytesIO()
    picture.save(buffer, form, **({"quality": 100, "subsampling": 0} if form == "JPEG" else {}))
    return buffer.getvalue()


def draw(labels, width, height, form, mode):
    """Make a picture and its trimap; their central square shows the 8 by 8 labels, in squares of 4 by 4 pixels."""
    whole = np.random.default_rng(width).integers(0, 3, (height, width))
    top, left = (height - 32) // 2, (width - 32) // 2
    whole[top : top + 32, left : left + 32] = np.kron(labels, np.ones((4, 4), int))
    picture = Image.fromarray(COLOURS[whole])
    picture = picture.quantize(4) if mode == "P" else picture.convert(mode)
    return encoded(picture, form), encoded(Image.fromarray(IN_TRIMAP[whole]))


class Small:
    """The set in small, on a server; publish() after a change of its members."""

    def __init__(self, server, monkeypatch):
        self.server, self.monkeypatch = server, monkeypatch
        generator = np.random.default_rng(1)
        self.labels = {name: generator.integers(0, 3, (8, 8)) for name in PICTURES}
        self.members = {IMAGES: {}, ANNOTATIONS: {"annotations/README": b"as published"}}
        for name, picture in PICTURES.items():
            self.put(name, *draw(self.labels[name], *picture[:4]))
        for member, names in zip(pets.LISTS.values(), LISTS.values(), strict=True):
            self.members[ANNOTATIONS][member] = "".join(f"{name} 1 1 1\n" for name in names).encode()
        monkeypatch.setattr(pets, "URL", server.address)
        self.publish()

    def put(self, name, picture, trimap):
        self.members[IMAGES][f"images/{name}.jpg"] = picture
        self.members[ANNOTATIONS][f"annotations/trimaps/{name}.png"] = trimap

    def publish(self):
        for published, members in self.members.items():
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
                for name, content in members.items():
                    info = tarfile.TarInfo(name)
                    if isinstance(content, Path):
                        info.type, info.linkname = tarfile.SYMTYPE, str(content)
                        archive.addfile(info)
                    else:
                        info.size = len(content)
                        archive.addfile(info, io.BytesIO(content))
            self.server.bodies[published] = buffer.getvalue()
        sums = {name: hashlib.md5(self.server.bodies[name]).hexdigest() for name in PUBLISHED}
        self.monkeypatch.setattr(pets, "MD5", sums)

    def check(self, split, size=8):
        images, masks = oxford_pets(split, size)
        names = LISTS[split]
        assert images.dtype == masks.dtype == torch.uint8
        assert images.shape == (len(names), 3, size, size) and masks.shape == (len(names), size, size)
        for name, image, mask in zip(names, images.numpy(), masks.numpy(), strict=True):
            labels = np.kron(self.labels[name], np.ones((size // 8, size // 8), int))
            assert np.array_equal(mask, labels), name
            assert np.abs(image.transpose(1, 2, 0) - COLOURS[labels].astype(int)).max() <= PICTURES[name][4], name


@pytest.fixture
def small(server, monkeypatch):
    return Small(server, monkeypatch)


def fails(*texts):
    with pytest.raises(DataError) as caught:
        oxford_pets("train", 8)
    for text in texts:
        assert text in str(caught.value), f"{text!r} is not in: {caught.value}"


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("size", [8, 16, 64])
def test_pets_are_the_central_squares_with_their_masks_in_the_lists_order(small, size):
    small.check("train", size)
    small.check("test", size)


def test_a_picture_and_its_mask_stay_aligned_at_any_ratio_and_pixels_are_means(small):
    columns = np.broadcast_to(np.arange(60, dtype=np.uint8), (60, 60))
    noise = np.random.default_rng(2).integers(0, 256, (60, 60), dtype=np.uint8)
    trimap = np.where(columns < 28, 2, 3).astype(np.uint8)
    picture = Image.fromarray(np.stack([columns, columns.T, noise], -1))
    small.put("pug_3", encoded(picture), encoded(Image.fromarray(trimap)))
    small.publish()
    for size in (1, 7, 59, 100):
        images, masks = oxford_pets("test", np.int64(size))
        centres = (np.arange(size) + 0.5) * 60 / size
        for channel, axis in ((0, 0), (1, 1)):
            assert np.abs(images[0, channel].numpy().astype(float) - np.expand_dims(centres - 0.5, axis)).max() <= 1
        assert np.array_equal(masks[0].numpy(), np.broadcast_to(2 * (centres >= 28), (size, size)))
    found = oxford_pets("test", 15)[0][0, 2].numpy()
    assert np.abs(found - noise.reshape(15, 4, 15, 4).mean(axis=(1, 3))).max() <= 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("trainval",), ValueError, "split='trainval' must be one of 'train', 'test'"),
        (("train", 0), ValueError, "size=0 must be an int of at least 1"),
        (("train", 8.0), TypeError, "size=8.0 must be an int"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_downloaded(small, arguments, error, message):
    with pytest.raises(error, match=message):
        oxford_pets(*arguments)
    assert small.server.requests == []


def test_the_readme_states_the_sums():
    for name, md5 in pets.MD5.items():
        assert any(f"`oxford_pets_{name}`" in line and f"`{md5}`" in line for line in README.splitlines())


# Where the archives come from


def test_archives_and_arrays_are_kept_and_nothing_else(small, cache):
    small.check("train")
    assert sorted(small.server.requests) == sorted(PUBLISHED)
    assert files(cache) == [*CACHED, "oxford_pets_train_8.npz"]
    for name in CACHED:
        (cache / name).unlink()
    small.check("train")
    assert len(small.server.requests) == 2


def test_archives_in_upconv_data_come_first_and_must_be_whole(small, cache, monkeypatch, tmp_path):
    monkeypatch.setenv("UPCONV_DATA", str(tmp_path))
    for name in PUBLISHED:
        (tmp_path / f"oxford_pets_{name}").write_bytes(small.server.bodies[name])
    small.check("train")
    assert small.server.requests == []
    damaged = tmp_path / CACHED[1]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    (cache / "oxford_pets_train_8.npz").unlink()
    fails(str(damaged), pets.MD5[IMAGES], "Delete it and run again", "UPCONV_DATA")
    assert damaged.exists() and small.server.requests == [] and files(cache) == []


def test_a_damaged_archive_in_the_cache_is_downloaded_again(small, cache, monkeypatch):
    small.check("train")
    (cache / CACHED[1]).write_bytes(b"damaged")
    small.check("test")
    assert small.server.requests[2:] == [IMAGES]
    (cache / CACHED[1]).write_bytes(b"damaged")
    (cache / "oxford_pets_test_8.npz").unlink()
    monkeypatch.setattr(pets, "URL", "http://127.0.0.1:1/")
    with pytest.raises(DataError, match=rf"{CACHED[1]}, is damaged .*connect to the network .* UPCONV_DATA"):
        oxford_pets("test", 8)


@pytest.mark.parametrize("body", [None, b"<html>Please sign in</html>"])
def test_a_failed_download_says_what_to_do_leaves_nothing_and_is_tried_again(small, cache, body):
    whole = small.server.bodies.pop(IMAGES)
    if body is not None:
        small.server.bodies[IMAGES] = body
    fails(CACHED[1], "failed", "connect to the network and run again", "UPCONV_DATA", *CACHED)
    assert files(cache) == []
    small.server.bodies[IMAGES] = whole
    small.check("train")


@pytest.mark.parametrize("name, content", [("../../evil", b"?"), ("images/link", Path("../../../evil"))])
def test_nothing_is_written_under_a_name_that_an_archive_holds(small, tmp_path, name, content):
    small.members[IMAGES][name] = content
    small.publish()
    small.check("train")
    kept = [*CACHED, "oxford_pets_train_8.npz"]
    assert files(tmp_path) == ["cache", "cache/upconv", *(f"cache/upconv/{name}" for name in kept)]


def test_a_cache_that_cannot_be_written_is_said_and_no_obstacle(small, monkeypatch, tmp_path):
    monkeypatch.setenv("UPCONV_DATA", str(tmp_path))
    for name in PUBLISHED:
        (tmp_path / f"oxford_pets_{name}").write_bytes(small.server.bodies[name])
    (tmp_path / "no folder").touch()
    monkeypatch.setenv("UPCONV_CACHE", str(tmp_path / "no folder" / "in it"))
    with pytest.warns(UserWarning, match="cannot be written"):
        small.check("train")


# The arrays in the cache


def test_damaged_arrays_are_made_anew(small, cache):
    small.check("train", 64)
    kept = cache / "oxford_pets_train_64.npz"
    whole = kept.read_bytes()
    places = 5_000, 20_000, len(whole) - 3_000  # in the images, there too, in the masks
    flipped = [whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] for place in places]
    for damaged in (*flipped, b"", b"PK", whole[:-1], whole[: len(whole) // 2]):
        kept.write_bytes(damaged)
        small.check("train", 64)
        with np.load(kept) as arrays:
            assert set(arrays) == {"images", "made_from", "masks"}


def test_arrays_of_another_split_size_or_archive_are_not_used(small, cache):
    for split, size in (("test", 8), ("train", 16)):
        oxford_pets(split, size)
        (cache / f"oxford_pets_{split}_{size}.npz").rename(cache / "oxford_pets_train_8.npz")
        small.check("train")
    small.labels["Bengal_7"] = 2 - small.labels["Bengal_7"]
    small.put("Bengal_7", *draw(small.labels["Bengal_7"], *PICTURES["Bengal_7"][:4]))
    small.publish()
    small.check("train")


def test_arrays_that_cannot_be_kept_are_returned_with_a_warning_and_nothing_half_done_stays(small, cache, monkeypatch):
    def refuse(error):
        def savez(file, **arrays):
            file.write(b"half")
            raise error

        monkeypatch.setattr(np, "savez", savez)

    refuse(OSError("no space left"))
    with pytest.warns(UserWarning, match=r"oxford_pets_train_8.npz: cannot be written \(no space left\)") as found:
        small.check("train")
    assert found[0].filename == __file__ and files(cache) == CACHED
    refuse(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        oxford_pets("train", 8)
    assert files(cache) == CACHED
