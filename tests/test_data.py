"""Files that are found, downloaded and verified; Fashion-MNIST: the committed subset, and the originals in small."""

import gzip
import hashlib
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from tools.data import fashion_mnist_mini
from upconv.book import data

ROOT = Path(__file__).resolve().parents[1]
MINI = ROOT / "data" / "fashion_mnist_mini.npz"
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = data.FULL_SHA256
SIZES = {TRAIN_IMAGES: (30, 28, 28), TRAIN_LABELS: (30,), TEST_IMAGES: (20, 28, 28), TEST_LABELS: (20,)}
INSTALLED = next(
    (
        folder
        for folder in (Path(os.environ.get("UPCONV_DATA") or data.DEBIAN_FOLDER), data.DEBIAN_FOLDER)
        if all((folder / name).is_file() for name in data.FULL_SHA256)
    ),
    None,
)
needs_originals = pytest.mark.skipif(
    INSTALLED is None,
    reason="the original files are neither installed (Debian's dataset-fashion-mnist) nor in UPCONV_DATA",
)


@pytest.fixture(autouse=True)
def alone(cache, monkeypatch, tmp_path):
    monkeypatch.setattr(data, "DEBIAN_FOLDER", tmp_path / "not-installed")
    monkeypatch.setattr(data, "_BASE_URL", "http://127.0.0.1:1/")


@pytest.fixture
def small(monkeypatch):
    """Four small IDX files in place of the originals, by name: (the array, the bytes of the .gz)."""
    generator = np.random.default_rng(0)
    files, md5, sha256 = {}, {}, {}
    for name, shape in SIZES.items():
        array = generator.integers(0, 256 if len(shape) == 3 else 10, shape, dtype=np.uint8)
        content = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}i", *shape) + array.tobytes()
        packed = gzip.compress(content)
        files[name] = array, packed
        md5[name], sha256[name] = hashlib.md5(packed).hexdigest(), hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(data, "_MD5", md5)
    monkeypatch.setattr(data, "FULL_SHA256", sha256)
    return files


@pytest.fixture
def served(server, small, monkeypatch):
    server.bodies = {name: packed for name, (_, packed) in small.items()}
    monkeypatch.setattr(data, "_BASE_URL", server.address)
    return server


def assert_split(split, small):
    images, labels = data.fashion_mnist(split, "full")
    names = (TRAIN_IMAGES, TRAIN_LABELS) if split == "train" else (TEST_IMAGES, TEST_LABELS)
    assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
    assert np.array_equal(images.numpy()[:, 0], small[names[0]][0])
    assert np.array_equal(labels.numpy(), small[names[1]][0])


def fails(*texts, tier="full"):
    with pytest.raises(data.DataError) as caught:
        data.fashion_mnist("train", tier)
    for text in texts:
        assert text in str(caught.value), f"{text!r} is not in: {caught.value}"


def put(folder, small, train_images=None):
    folder.mkdir(parents=True, exist_ok=True)
    for name, (_, packed) in small.items():
        (folder / name).write_bytes(train_images if name == TRAIN_IMAGES and train_images is not None else packed)
    return folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("valid",), "split='valid' must be one of 'train', 'test'"),
        (("train", "half"), "tier='half' must be one of 'mini', 'full'"),
    ],
)
def test_an_unknown_split_or_tier_is_named_with_the_accepted_ones(arguments, message):
    with pytest.raises(ValueError, match=message):
        data.fashion_mnist(*arguments)


# The mini tier


@pytest.mark.parametrize(("split", "each"), [("train", 500), ("test", 100)])
def test_mini_has_as_many_images_of_each_class_in_every_ten(split, each):
    images, labels = data.fashion_mnist(split)
    assert images.shape == (10 * each, 1, 28, 28) and images.dtype == torch.uint8 and images.max() == 255
    assert labels.shape == (10 * each,) and labels.dtype == torch.int64
    assert labels.view(-1, len(data.CLASSES)).sort(dim=1).values.equal(torch.arange(10).expand(each, 10))


def test_mini_is_the_same_on_every_call_and_free_to_change():
    first, _ = data.fashion_mnist("test")
    second, _ = data.fashion_mnist("test")
    assert first.equal(second)
    first.zero_()
    assert data.fashion_mnist("test")[0].equal(second)


def test_the_readme_states_the_pinned_sums():
    readme = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    assert f"    {data.MINI_SHA256}\n" in readme
    rows = [line.replace("  ", " ") for line in readme.splitlines()]
    for name, sha256 in data.FULL_SHA256.items():
        assert any(row.startswith(f"| `{name}` | `{data._MD5[name]}` |") for row in rows)
        assert f"| `{name}` | `{sha256}` |" in rows


def test_mini_is_found_from_a_folder_below_data_when_the_module_is_not_in_the_repository(monkeypatch, tmp_path):
    monkeypatch.setattr(data, "__file__", str(tmp_path / "a/b/c/d/data.py"))
    (tmp_path / "data").mkdir()
    (tmp_path / "below" / "it").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "below" / "it")
    fails("fashion_mnist_mini.npz", "UPCONV_DATA", tier="mini")
    shutil.copy(MINI, tmp_path / "data")
    assert len(data.fashion_mnist("test")[0]) == 1000


def test_a_folder_in_upconv_data_comes_first_and_need_not_have_everything(monkeypatch, tmp_path):
    """Whoever puts the archives of the full tier there finds the small files all the same."""
    monkeypatch.setenv("UPCONV_DATA", str(tmp_path))
    assert data.committed_file(MINI.name) == MINI
    assert len(data.fashion_mnist("test")[0]) == 1000
    shutil.copy(MINI, tmp_path)
    assert data.committed_file(MINI.name) == tmp_path / MINI.name
    with pytest.raises(data.DataError, match=r"no/such\.csv: not found .* UPCONV_DATA names\. Run from a checkout"):
        data.committed_file("no/such.csv")


def cut(content):
    return content[: len(content) // 2]


def flip(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [cut, flip, lambda content: b""], ids=["cut", "flip", "empty"])
def test_a_damaged_mini_is_refused_by_name(monkeypatch, tmp_path, damage):
    path = tmp_path / MINI.name
    path.write_bytes(damage(MINI.read_bytes()))
    monkeypatch.setenv("UPCONV_DATA", str(tmp_path))
    fails(str(path), data.MINI_SHA256, "git checkout", tier="mini")


# The full tier, from files on this machine


def test_files_in_upconv_data_are_used_before_the_installed_ones_without_a_download(monkeypatch, tmp_path, small):
    monkeypatch.setenv("UPCONV_DATA", str(put(tmp_path / "own", small)))
    monkeypatch.setattr(data, "DEBIAN_FOLDER", put(tmp_path / "installed", small, b"damaged"))
    assert_split("train", small)
    assert_split("test", small)


def test_an_empty_folder_in_upconv_data_leaves_the_installed_files_in_use(monkeypatch, tmp_path, small):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("UPCONV_DATA", str(tmp_path / "empty"))
    again = gzip.compress(gzip.decompress(small[TRAIN_IMAGES][1]), compresslevel=1, mtime=7)  # as Debian does
    assert again != small[TRAIN_IMAGES][1]
    monkeypatch.setattr(data, "DEBIAN_FOLDER", put(tmp_path / "installed", small, again))
    assert_split("train", small)


def test_upconv_data_may_begin_with_the_home_folder_and_must_be_a_folder(monkeypatch, tmp_path, small):
    monkeypatch.setenv("HOME", str(tmp_path))
    put(tmp_path / "own", small)
    monkeypatch.setenv("UPCONV_DATA", "~/own")
    assert_split("train", small)
    monkeypatch.setenv("UPCONV_DATA", "~/none")
    with pytest.raises(data.DataError, match="~/none: the environment variable UPCONV_DATA names it"):
        data.fashion_mnist("train")


def wrong(packed):
    content = bytearray(gzip.decompress(packed))
    content[-1] ^= 1
    return gzip.compress(bytes(content))


def longer(packed):
    return gzip.compress(gzip.decompress(packed) + b"\0")


def without_end(packed):
    return packed[:-8]


def garbled(packed):
    return packed[:10] + b"\xff" + packed[11:]  # no deflate block is of this type: zlib.error


@pytest.mark.parametrize("damage", [cut, flip, wrong, longer, without_end, garbled])
def test_a_damaged_installed_file_is_refused_by_name(monkeypatch, tmp_path, small, damage):
    folder = put(tmp_path / "installed", small, damage(small[TRAIN_IMAGES][1]))
    monkeypatch.setattr(data, "DEBIAN_FOLDER", folder)
    fails(str(folder / TRAIN_IMAGES), "Delete it", "reinstall dataset-fashion-mnist")


def test_a_file_that_holds_another_ones_content_is_refused_by_both_names(monkeypatch, tmp_path, small):
    folder = put(tmp_path / "installed", small, small[TEST_IMAGES][1])
    monkeypatch.setattr(data, "DEBIAN_FOLDER", folder)
    fails(str(folder / TRAIN_IMAGES), f"the content of {TEST_IMAGES}", "Delete it")


def test_reading_a_missing_original_is_an_error_that_names_it(tmp_path):
    with pytest.raises(data.DataError, match="there is no such file"):
        data.read_idx(tmp_path / TEST_LABELS)


# The full tier, downloaded


def test_a_download_gives_the_served_arrays_and_keeps_the_files(served, small, cache):
    assert_split("train", small)
    assert_split("test", small)
    assert sorted(served.requests) == sorted(path.name for path in cache.iterdir()) == sorted(small)
    assert_split("train", small)
    assert len(served.requests) == 4


def test_only_the_file_that_is_missing_is_downloaded(served, small, monkeypatch, tmp_path):
    monkeypatch.setattr(data, "DEBIAN_FOLDER", put(tmp_path / "installed", small))
    (tmp_path / "installed" / TRAIN_LABELS).unlink()
    assert_split("train", small)
    assert served.requests == [TRAIN_LABELS]


def test_a_damaged_cached_file_is_downloaded_again(served, small, cache):
    put(cache, small, cut(small[TRAIN_IMAGES][1]))
    assert_split("train", small)
    assert served.requests == [TRAIN_IMAGES]


def test_a_damaged_cached_file_is_named_when_there_is_no_network(small, cache):
    put(cache, small, cut(small[TRAIN_IMAGES][1]))
    fails(str(cache / TRAIN_IMAGES), "damaged", "connect to the network", "install Debian's package")


def test_no_network_is_an_error_with_both_ways_to_the_data(small, cache):
    fails(TRAIN_IMAGES, "connect to the network and run again", "dataset-fashion-mnist", 'tier="mini"')
    assert not any(cache.iterdir())


FAILURES = {
    "refused": lambda server: server.bodies.pop(TRAIN_IMAGES),
    "closed early": lambda server: setattr(server, "stop_after", 1000),
    "wrong": lambda server: server.bodies.update({TRAIN_IMAGES: wrong(server.bodies[TRAIN_IMAGES])}),
    "a page": lambda server: server.bodies.update({TRAIN_IMAGES: b"<html>Please sign in</html>"}),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failed_download_is_a_named_error_leaves_nothing_and_is_tried_again(served, small, cache, failure):
    whole = dict(served.bodies)
    FAILURES[failure](served)
    answer = ["404"] if failure == "refused" else []
    fails(TRAIN_IMAGES, "failed", "run again", "install Debian's package dataset-fashion-mnist", *answer)
    assert list(cache.iterdir()) == []
    served.bodies, served.stop_after = whole, None
    assert_split("train", small)


# The original files


@needs_originals
@pytest.mark.parametrize(("split", "count"), [("train", 60_000), ("test", 10_000)])
def test_full_has_the_published_sizes_and_balance(monkeypatch, split, count):
    monkeypatch.setattr(data, "DEBIAN_FOLDER", INSTALLED)
    images, labels = data.fashion_mnist(split, "full")
    assert images.shape == (count, 1, 28, 28) and images.dtype == torch.uint8
    assert labels.bincount().tolist() == [count // 10] * 10


@needs_originals
def test_mini_is_made_of_the_originals_and_a_changed_one_is_seen(tmp_path, capsys):
    """That the k-th images of the classes stand together is in a test above; here, that each is the k-th of its own."""
    assert fashion_mnist_mini.main(["--check", "--source", str(INSTALLED)]) == 0
    with np.load(MINI) as file:
        arrays = dict(file)
    said = capsys.readouterr().out.splitlines()
    assert {f"{name}: {line}" for name, line in fashion_mnist_mini.digests(arrays).items()} <= set(said)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = (
            data.read_idx(INSTALLED / f"{prefix}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1")
        )
        for label in range(10):
            mine = arrays[f"{split}_images"][arrays[f"{split}_labels"] == label]
            assert np.array_equal(mine, images[labels == label][: len(mine)])
    arrays["train_labels"][0] ^= 1
    np.savez_compressed(tmp_path / "changed.npz", **arrays)
    assert (
        "array train_labels is"
        in fashion_mnist_mini.check(fashion_mnist_mini.build(INSTALLED), tmp_path / "changed.npz")[0]
    )


def test_the_tool_says_what_is_missing(tmp_path, capsys):
    assert fashion_mnist_mini.main(["--check", "--source", str(tmp_path)]) == 1
    assert TRAIN_IMAGES in capsys.readouterr().err
    assert "cannot be read" in fashion_mnist_mini.check({}, tmp_path / "none.npz")[0]
