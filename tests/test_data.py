import gzip
import hashlib
import importlib.util
import io
import os
import shutil
import socket
import socketserver
import struct
import tarfile
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pooch
import pytest
import torch
from PIL import Image
from skimage.data import chelsea

from upconv.book import data

ROOT = Path(__file__).resolve().parents[1]
MINI = ROOT / "data" / "fashion_mnist_mini.npz"
README = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
MD5, SHA256 = data._MD5, data._SHA256
INSTALLED = next(
    (
        folder
        for folder in (Path(os.environ.get("UPCONV_DATA") or data.DEBIAN_FOLDER), data.DEBIAN_FOLDER)
        if all((folder / name).is_file() for name in SHA256)
    ),
    None,
)
needs_originals = pytest.mark.skipif(
    INSTALLED is None,
    reason="the original files are neither installed (Debian's dataset-fashion-mnist) nor in UPCONV_DATA",
)
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = SHA256
SIZES = {TRAIN_IMAGES: (30, 28, 28), TRAIN_LABELS: (30,), TEST_IMAGES: (20, 28, 28), TEST_LABELS: (20,)}


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """Keep every test off the network, the user's cache and the installed files."""
    resolve = socket.getaddrinfo

    def resolve_loopback(host, *arguments, **options):
        assert host == "127.0.0.1", f"a test asked for the address of {host}"
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_loopback)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")] + ["UPCONV_DATA"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("UPCONV_CACHE", str(tmp_path / "cache" / "upconv"))
    monkeypatch.setattr(data, "DEBIAN_FOLDER", tmp_path / "not-installed")
    monkeypatch.setattr(data, "_BASE_URL", "http://127.0.0.1:1/")
    monkeypatch.setattr(data, "_PETS_URL", "http://127.0.0.1:1/")


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache" / "upconv"


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
    monkeypatch.setattr(data, "_SHA256", sha256)
    return files


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.lstrip("/")
        self.server.requests.append(name)
        body = self.server.bodies.get(name)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.stop_after])

    def log_message(self, *arguments):
        pass


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = False  # so that server_close waits for them


@pytest.fixture
def running():
    with Server(("127.0.0.1", 0), Handler) as running:
        running.bodies, running.requests, running.stop_after = {}, [], None
        running.address = f"http://127.0.0.1:{running.server_address[1]}/"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield running
        finally:
            running.shutdown()
            thread.join()


@pytest.fixture
def server(running, small, monkeypatch):
    running.bodies = {name: packed for name, (_, packed) in small.items()}
    monkeypatch.setattr(data, "_BASE_URL", running.address)
    return running


def assert_split(split, small):
    images, labels = data.fashion_mnist(split, "full")
    names = (TRAIN_IMAGES, TRAIN_LABELS) if split == "train" else (TEST_IMAGES, TEST_LABELS)
    assert images.dtype == torch.uint8
    assert labels.dtype == torch.int64
    assert np.array_equal(images.numpy()[:, 0], small[names[0]][0])
    assert np.array_equal(labels.numpy(), small[names[1]][0])


def fails(*texts, split="train", tier="full"):
    with pytest.raises(data.DataError) as caught:
        data.fashion_mnist(split, tier)
    for text in texts:
        assert text in str(caught.value), f"{text!r} is not in: {caught.value}"


def put(folder, small, **replaced):
    folder.mkdir(parents=True, exist_ok=True)
    for name, (_, packed) in small.items():
        (folder / name).write_bytes(replaced.get(name.split("-ubyte")[0].replace("-", "_"), packed))
    return folder


# The arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("valid",), 'split: expected "train" or "test", got \'valid\''),
        ((None,), 'split: expected "train" or "test", got None'),
        (("train", "half"), 'tier: expected "mini" or "full", got \'half\''),
    ],
)
def test_an_unknown_split_or_tier_is_named_with_the_accepted_ones(arguments, message):
    with pytest.raises(ValueError, match=message):
        data.fashion_mnist(*arguments)


# The mini tier


@pytest.mark.parametrize(("split", "each"), [("train", 500), ("test", 100)])
def test_mini_has_as_many_images_of_each_class_in_every_ten(split, each):
    images, labels = data.fashion_mnist(split)
    assert images.shape == (10 * each, 1, 28, 28)
    assert images.dtype == torch.uint8
    assert images.max() == 255
    assert labels.shape == (10 * each,)
    assert labels.dtype == torch.int64
    assert labels.view(-1, 10).sort(dim=1).values.equal(torch.arange(10).expand(each, 10))


def test_mini_is_the_same_on_every_call_and_free_to_change():
    first, _ = data.fashion_mnist("test")
    second, _ = data.fashion_mnist("test")
    assert first.equal(second)
    first.zero_()
    assert data.fashion_mnist("test")[0].equal(second)


def test_there_are_ten_distinct_class_names():
    assert isinstance(data.CLASSES, tuple)
    assert len(set(data.CLASSES)) == 10


def test_the_readme_states_the_pinned_sums_and_the_file_has_its_own():
    assert hashlib.sha256(MINI.read_bytes()).hexdigest() == data.MINI_SHA256
    assert f"    {data.MINI_SHA256}\n" in README
    assert MINI.stat().st_size < 3_000_000
    rows = [line.replace("  ", " ") for line in README.splitlines()]
    for name in SHA256:
        assert any(row.startswith(f"| `{name}` | `{MD5[name]}` |") for row in rows)
        assert f"| `{name}` | `{SHA256[name]}` |" in rows
    for name, md5 in data._PETS_MD5.items():
        assert any(f"`oxford_pets_{name}`" in row and f"`{md5}`" in row for row in rows)


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


@pytest.mark.parametrize("damage", [cut, flip, lambda content: b""], ids=["truncated", "one bit flipped", "empty"])
def test_a_damaged_mini_is_refused_by_name(monkeypatch, tmp_path, damage):
    path = tmp_path / MINI.name
    path.write_bytes(damage(MINI.read_bytes()))
    monkeypatch.setenv("UPCONV_DATA", str(tmp_path))
    fails(str(path), data.MINI_SHA256, "git checkout", tier="mini")


# The full tier, from files on this machine


def test_files_in_upconv_data_are_used_before_the_installed_ones_without_a_download(monkeypatch, tmp_path, small):
    monkeypatch.setenv("UPCONV_DATA", str(put(tmp_path / "own", small)))
    monkeypatch.setattr(data, "DEBIAN_FOLDER", put(tmp_path / "installed", small, train_images_idx3=b"damaged"))
    assert_split("train", small)
    assert_split("test", small)


def test_an_empty_folder_in_upconv_data_leaves_the_installed_files_in_use(monkeypatch, tmp_path, small):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("UPCONV_DATA", str(tmp_path / "empty"))
    monkeypatch.setattr(data, "DEBIAN_FOLDER", put(tmp_path / "installed", small))
    assert_split("train", small)


def test_a_recompressed_file_with_the_same_content_is_accepted(monkeypatch, tmp_path, small):
    again = gzip.compress(gzip.decompress(small[TRAIN_IMAGES][1]), compresslevel=1, mtime=7)
    assert again != small[TRAIN_IMAGES][1]
    monkeypatch.setattr(data, "DEBIAN_FOLDER", put(tmp_path / "installed", small, train_images_idx3=again))
    assert_split("train", small)


def wrong(packed):
    content = bytearray(gzip.decompress(packed))
    content[-1] ^= 1
    return gzip.compress(bytes(content))


def longer(packed):
    return gzip.compress(gzip.decompress(packed) + b"\0")


def shorter(packed):
    return gzip.compress(gzip.decompress(packed)[:-1])


def without_end(packed):
    return packed[:-8]


def garbled(packed):
    return packed[:10] + b"\xff" + packed[11:]  # no deflate block is of this type: zlib.error


@pytest.mark.parametrize("damage", [cut, flip, wrong, longer, shorter, without_end, garbled])
def test_a_damaged_installed_file_is_refused_by_name(monkeypatch, tmp_path, small, damage):
    damaged = damage(small[TRAIN_IMAGES][1])
    monkeypatch.setattr(data, "DEBIAN_FOLDER", put(tmp_path / "installed", small, train_images_idx3=damaged))
    fails(str(tmp_path / "installed" / TRAIN_IMAGES), "Delete it", "reinstall dataset-fashion-mnist")


@pytest.mark.parametrize("other", [TRAIN_LABELS, TEST_IMAGES])
def test_a_file_that_holds_another_ones_content_is_refused_by_both_names(monkeypatch, tmp_path, small, other):
    folder = put(tmp_path / "installed", small, train_images_idx3=small[other][1])
    monkeypatch.setattr(data, "DEBIAN_FOLDER", folder)
    fails(str(folder / TRAIN_IMAGES), f"the content of {other}", "Delete it")


def test_reading_a_missing_original_is_an_error_that_names_it(tmp_path):
    with pytest.raises(data.DataError, match="there is no such file"):
        data.read_idx(tmp_path / TEST_LABELS)


# The full tier, downloaded


def test_a_download_gives_the_served_arrays_and_keeps_the_files(server, small, cache):
    assert_split("train", small)
    assert_split("test", small)
    assert sorted(server.requests) == sorted(small)
    assert sorted(path.name for path in cache.iterdir()) == sorted(small)


def test_a_second_call_makes_no_request(server, small):
    assert_split("train", small)
    server.requests.clear()
    assert_split("train", small)
    assert server.requests == []


def test_only_the_file_that_is_missing_is_downloaded(server, small, monkeypatch, tmp_path):
    monkeypatch.setattr(data, "DEBIAN_FOLDER", put(tmp_path / "installed", small))
    (tmp_path / "installed" / TRAIN_LABELS).unlink()
    assert_split("train", small)
    assert server.requests == [TRAIN_LABELS]


def test_a_damaged_cached_file_is_downloaded_again(server, small, cache):
    put(cache, small, train_images_idx3=cut(small[TRAIN_IMAGES][1]))
    assert_split("train", small)
    assert server.requests == [TRAIN_IMAGES]


def test_a_damaged_cached_file_is_named_when_there_is_no_network(small, cache):
    put(cache, small, train_images_idx3=cut(small[TRAIN_IMAGES][1]))
    fails(str(cache / TRAIN_IMAGES), "damaged", "connect to the network", "install Debian's package")


def test_no_network_is_an_error_with_both_ways_to_the_data(small, cache):
    fails(TRAIN_IMAGES, "connect to the network and run again", "dataset-fashion-mnist", 'tier="mini"')
    assert not any(cache.iterdir())


def refuse(server):
    del server.bodies[TRAIN_IMAGES]


def close_early(server):
    server.stop_after = 1000


def serve_truncated(server):
    server.bodies[TRAIN_IMAGES] = cut(server.bodies[TRAIN_IMAGES])


def serve_wrong(server):
    server.bodies[TRAIN_IMAGES] = wrong(server.bodies[TRAIN_IMAGES])


def serve_a_page(server):
    server.bodies[TRAIN_IMAGES] = b"<html>Please sign in</html>"


def swap(server):
    bodies = server.bodies
    bodies[TRAIN_IMAGES], bodies[TRAIN_LABELS] = bodies[TRAIN_LABELS], bodies[TRAIN_IMAGES]


def serve_the_test_split(server):
    server.bodies[TRAIN_IMAGES] = server.bodies[TEST_IMAGES]


FAILURES = [refuse, close_early, serve_truncated, serve_wrong, serve_a_page, swap, serve_the_test_split]


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failed_download_is_a_named_error_leaves_nothing_and_is_tried_again(server, small, cache, failure):
    whole = dict(server.bodies)
    failure(server)
    fails(TRAIN_IMAGES, "failed", "run again", "install Debian's package dataset-fashion-mnist")
    assert list(cache.iterdir()) == []
    server.bodies, server.stop_after = whole, None
    assert_split("train", small)


def test_a_refused_download_says_the_servers_answer(server):
    server.bodies.clear()
    fails(TRAIN_IMAGES, "404")


def test_an_interrupted_download_leaves_nothing(server, small, cache, monkeypatch):
    def interrupt(downloader, url, output_file, pooch):
        Path(output_file).write_bytes(cut(small[TRAIN_IMAGES][1]))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pooch.HTTPDownloader, "__call__", interrupt)
        with pytest.raises(KeyboardInterrupt):
            data.fashion_mnist("train", "full")
    assert list(cache.iterdir()) == []
    assert_split("train", small)


# Oxford-IIIT Pet

IMAGES, ANNOTATIONS = data._PETS_MD5
CACHED = [f"oxford_pets_{ANNOTATIONS}", f"oxford_pets_{IMAGES}"]
COLOURS = np.array([[10, 120, 250], [200, 30, 40], [90, 220, 60]], np.uint8)  # background, pet, border
IN_TRIMAP = np.array([2, 1, 3], np.uint8)
SQUARE = 32
# Name: width, height, the format and mode of the picture, the mode of the trimap, how far off a colour may be.
PICTURES = {
    "Bengal_7": (45, 32, "PNG", "RGB", "L", 0),
    "Abyssinian_12": (32, 51, "GIF", "P", "L", 0),
    "american_bulldog_100": (32, 32, "PNG", "RGBA", "P", 0),
    "Egyptian_Mau_139": (71, 32, "PNG", "P", "L", 0),
    "boxer-2.b": (33, 32, "BMP", "RGB", "L", 0),
    "Sphynx_1": (32, 40, "JPEG", "RGB", "L", 6),
    "pug_3": (39, 32, "JPEG", "CMYK", "L", 6),
}
LISTS = {
    "train": ["Bengal_7", "Sphynx_1", "Abyssinian_12", "american_bulldog_100"],
    "test": ["pug_3", "boxer-2.b", "Egyptian_Mau_139"],
}


def encoded(picture, form):
    buffer = io.BytesIO()
    picture.save(buffer, form, **({"quality": 100, "subsampling": 0} if form == "JPEG" else {}))
    return buffer.getvalue()


def trimap_png(values, mode="L"):
    picture = Image.fromarray(values)
    if mode == "P":
        picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    return encoded(picture, "PNG")


def draw(labels, width, height, form, mode, trimap_mode):
    """Make a picture and its trimap; their central square shows the 8 by 8 labels, in squares of 4 by 4 pixels."""
    generator = np.random.default_rng(width)
    whole = generator.integers(0, 3, (height, width))
    top, left = (height - SQUARE) // 2, (width - SQUARE) // 2
    whole[top : top + SQUARE, left : left + SQUARE] = np.kron(labels, np.ones((4, 4), int))
    picture = Image.fromarray(COLOURS[whole])
    if mode == "RGBA":
        picture.putalpha(Image.fromarray(generator.integers(0, 256, (height, width), dtype=np.uint8)))
    elif mode == "P":
        picture = picture.quantize(4)
    else:
        picture = picture.convert(mode)
    return encoded(picture, form), trimap_png(IN_TRIMAP[whole], trimap_mode)


def tar(members):
    """Pack a dict from names to bytes, or to a TarInfo, whose own name counts and which has no content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


class Pets:
    """The set in small, on a server; publish() after a change of its members."""

    def __init__(self, running, monkeypatch):
        generator = np.random.default_rng(1)
        self.labels = {name: generator.integers(0, 3, (8, 8)) for name in PICTURES}
        drawn = {name: draw(self.labels[name], *picture[:5]) for name, picture in PICTURES.items()}
        self.images = {"images/notes.mat": b"other files are passed over"}
        self.images |= {f"images/{name}.jpg": drawn[name][0] for name in drawn}
        self.annotations = {"annotations/README": b"as published", "annotations/trimaps/._pug_3.png": b"\0Mac OS X"}
        self.annotations |= {f"annotations/trimaps/{name}.png": drawn[name][1] for name in reversed(drawn)}
        for split, member in (("train", "annotations/trainval.txt"), ("test", "annotations/test.txt")):
            self.annotations[member] = "".join(f"{name} 1 1 1\n" for name in LISTS[split]).encode()
        self.running, self.monkeypatch = running, monkeypatch
        self.publish()

    def publish(self, **instead):
        for published, members in ((IMAGES, self.images), (ANNOTATIONS, self.annotations)):
            kind = published.split(".")[0]
            self.running.bodies[published] = instead.get(kind) or gzip.compress(tar(members), compresslevel=1)
        sums = {name: hashlib.md5(self.running.bodies[name]).hexdigest() for name in (IMAGES, ANNOTATIONS)}
        self.monkeypatch.setattr(data, "_PETS_MD5", sums)

    def put(self, folder, **instead):
        folder.mkdir(parents=True, exist_ok=True)
        for name in (IMAGES, ANNOTATIONS):
            content = instead.get(name.split(".")[0], self.running.bodies[name])
            (folder / f"oxford_pets_{name}").write_bytes(content)
        return folder


@pytest.fixture
def pets(running, monkeypatch, tmp_path):
    monkeypatch.setattr(data, "_PETS_URL", running.address)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return Pets(running, monkeypatch)


def tree(folder, without=None):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if without is None or not path.is_relative_to(without)
    }


def assert_pets(pets, split, size=8):
    images, masks = data.oxford_pets(split, size)
    names = LISTS[split]
    assert images.dtype == masks.dtype == torch.uint8
    assert images.shape == (len(names), 3, size, size)
    assert masks.shape == (len(names), size, size)
    for name, image, mask in zip(names, images.numpy(), masks.numpy(), strict=True):
        labels = np.kron(pets.labels[name], np.ones((size // 8, size // 8), int))
        assert np.array_equal(mask, labels), name
        assert np.abs(image.transpose(1, 2, 0) - COLOURS[labels].astype(int)).max() <= PICTURES[name][5], name


def pets_fail(*texts, split="train"):
    with pytest.raises(data.DataError) as caught:
        data.oxford_pets(split, 8)
    for text in texts:
        assert text in str(caught.value), f"{text!r} is not in: {caught.value}"


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("size", [8, 16, 64])
def test_pets_are_the_central_squares_with_their_masks_in_the_lists_order(pets, split, size):
    assert_pets(pets, split, size)


def test_the_size_may_be_any_int_and_the_images_are_free_to_change(pets):
    images, masks = data.oxford_pets("test", np.int64(8))
    images.zero_()
    masks.zero_()
    assert_pets(pets, "test")


def test_a_picture_and_its_mask_stay_aligned_at_any_ratio(pets):
    columns = np.broadcast_to(np.arange(60, dtype=np.uint8), (60, 60))
    pets.images["images/pug_3.jpg"] = encoded(Image.fromarray(np.stack([columns, columns.T, columns], -1)), "PNG")
    pets.annotations["annotations/trimaps/pug_3.png"] = trimap_png(np.where(columns < 28, 2, 3).astype(np.uint8))
    pets.publish()
    for size in (1, 7, 13, 59, 61, 100):
        images, masks = data.oxford_pets("test", size)
        centres = (np.arange(size) + 0.5) * 60 / size
        for channel, axis in ((0, 0), (1, 1)):
            assert np.abs(images[0, channel].numpy().astype(float) - np.expand_dims(centres - 0.5, axis)).max() <= 1
        assert np.array_equal(masks[0].numpy(), np.broadcast_to(2 * (centres >= 28), (size, size)))


def test_a_pixel_of_an_image_is_the_mean_of_those_that_it_covers(pets):
    noise = np.random.default_rng(2).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    pets.images["images/american_bulldog_100.jpg"] = encoded(Image.fromarray(noise), "PNG")
    pets.publish()
    found = data.oxford_pets("train", 8)[0][3].permute(1, 2, 0).numpy()
    assert np.abs(found - noise.reshape(8, 4, 8, 4, 3).mean(axis=(1, 3))).max() <= 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("trainval",), ValueError, 'split: expected "train" or "test", got \'trainval\''),
        ((None, 8), ValueError, 'split: expected "train" or "test", got None'),
        (("train", 0), ValueError, "size=0 must be an int of at least 1"),
        (("train", -8), ValueError, "size=-8 must be"),
        (("train", 8.0), TypeError, "size=8.0 must be an int"),
        (("train", "8"), TypeError, "size='8' must be an int"),
        (("train", True), TypeError, "size=True must be an int"),
        (("train", None), TypeError, "size=None must be an int"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_downloaded(pets, arguments, error, message):
    with pytest.raises(error, match=message):
        data.oxford_pets(*arguments)
    assert pets.running.requests == []


@pytest.mark.parametrize("disabled", ["", "1"])
def test_decoding_shows_a_bar_unless_it_is_disabled(pets, monkeypatch, cache, disabled):
    pets.put(cache)
    monkeypatch.setenv("TQDM_DISABLE", disabled)
    monkeypatch.delenv("PYTEST_VERSION")
    output = io.StringIO()
    monkeypatch.setattr("sys.stderr", output)
    assert_pets(pets, "train")
    assert ("Oxford-IIIT Pet" in output.getvalue()) is (not disabled)
    assert ("0/8" in output.getvalue()) is (not disabled)


# Where the archives come from


def test_a_download_is_kept_and_a_second_call_makes_no_request_and_decodes_nothing(pets, cache, monkeypatch):
    assert_pets(pets, "train")
    assert sorted(pets.running.requests) == [ANNOTATIONS, IMAGES]
    assert sorted(path.name for path in cache.iterdir()) == [*CACHED, "oxford_pets_train_8.npz"]
    pets.running.requests.clear()
    assert_pets(pets, "test")
    monkeypatch.setattr(data, "_decode_pets", None)
    assert_pets(pets, "train")
    assert_pets(pets, "test")
    assert pets.running.requests == []


def test_archives_in_upconv_data_are_used_without_a_download(pets, monkeypatch, tmp_path, cache):
    own = pets.put(tmp_path / "own")
    monkeypatch.setenv("UPCONV_DATA", str(own))
    pets.put(cache, images=b"damaged", annotations=b"damaged")
    assert_pets(pets, "train")
    assert pets.running.requests == []
    (own / CACHED[0]).unlink()
    assert_pets(pets, "test")
    assert pets.running.requests == [ANNOTATIONS]


@pytest.mark.parametrize("damaged", ["images", "annotations"])
@pytest.mark.parametrize("damage", [cut, flip, lambda content: b""], ids=["truncated", "one bit flipped", "empty"])
def test_a_damaged_archive_in_upconv_data_is_refused_by_name(pets, monkeypatch, tmp_path, damaged, damage):
    whole = pets.running.bodies[f"{damaged}.tar.gz"]
    own = pets.put(tmp_path / "own", **{damaged: damage(whole)})
    monkeypatch.setenv("UPCONV_DATA", str(own))
    pets_fail(str(own / f"oxford_pets_{damaged}.tar.gz"), hashlib.md5(whole).hexdigest(), "Delete it", "run again")
    assert (own / f"oxford_pets_{damaged}.tar.gz").read_bytes() == damage(whole)


def test_a_damaged_archive_in_the_cache_is_downloaded_again(pets, cache):
    pets.put(cache, images=cut(pets.running.bodies[IMAGES]))
    assert_pets(pets, "train")
    assert pets.running.requests == [IMAGES]


def test_a_damaged_archive_in_the_cache_is_named_when_there_is_no_network(pets, cache, monkeypatch):
    monkeypatch.setattr(data, "_PETS_URL", "http://127.0.0.1:1/")
    pets.put(cache, images=cut(pets.running.bodies[IMAGES]))
    pets_fail(str(cache / CACHED[1]), "damaged", "connect to the network", "UPCONV_DATA")


def test_no_network_is_an_error_that_says_how_to_get_the_archives(cache):
    pets_fail(CACHED[0], "connect to the network and run again", "UPCONV_DATA", *CACHED)
    assert not any(cache.iterdir())


PETS_FAILURES = {
    "refused": lambda server: server.bodies.pop(IMAGES),
    "connection closed": lambda server: setattr(server, "stop_after", 500),
    "truncated": lambda server: server.bodies.update({IMAGES: cut(server.bodies[IMAGES])}),
    "one bit flipped": lambda server: server.bodies.update({IMAGES: flip(server.bodies[IMAGES])}),
    "a page": lambda server: server.bodies.update({IMAGES: b"<html>Please sign in</html>"}),
    "the other one": lambda server: server.bodies.update({IMAGES: server.bodies[ANNOTATIONS]}),
}


@pytest.mark.parametrize("failure", PETS_FAILURES)
def test_a_failed_download_of_an_archive_leaves_nothing_and_is_tried_again(pets, cache, failure):
    cache.mkdir(parents=True)
    (cache / CACHED[0]).write_bytes(pets.running.bodies[ANNOTATIONS])
    whole = dict(pets.running.bodies)
    PETS_FAILURES[failure](pets.running)
    pets_fail(CACHED[1], "failed", "run again", "UPCONV_DATA")
    assert [path.name for path in cache.iterdir()] == CACHED[:1]
    pets.running.bodies, pets.running.stop_after = whole, None
    assert_pets(pets, "train")


# What an archive holds


def outside(tmp_path):
    path = tmp_path / "outside.png"
    path.write_bytes(trimap_png(np.ones((32, 32), np.uint8)))
    return path


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, str(target)
    return info


def test_members_with_other_names_are_passed_over_and_nothing_is_written_outside_the_cache(pets, cache, tmp_path):
    path = outside(tmp_path)
    hostile = {
        "../escaped.jpg": b"?",
        "images/../../escaped.jpg": b"?",
        str(tmp_path / "absolute.jpg"): b"?",
        str(path): b"?",
        "C:\\escaped.jpg": b"?",
        "link": special("images/link.jpg", tarfile.SYMTYPE, path),
        "hard link": special("images/hard.jpg", tarfile.LNKTYPE, path),
        "device": special("images/device.jpg", tarfile.CHRTYPE),
        "folder": special("images/folder", tarfile.DIRTYPE),
        "same name": special("images/pug_3.jpg", tarfile.SYMTYPE, path),
        "images/._pug_3.jpg": b"?",
    }
    pets.images, pets.annotations = hostile | pets.images, hostile | pets.annotations
    pets.publish()
    before = tree(tmp_path, without=cache.parent)
    assert_pets(pets, "train")
    assert_pets(pets, "test")
    assert tree(tmp_path, without=cache.parent) == before
    assert sorted(tree(cache)) == [*CACHED, "oxford_pets_test_8.npz", "oxford_pets_train_8.npz"]


@pytest.mark.parametrize(
    "member", ["images/Bengal_7.jpg", "annotations/trimaps/Bengal_7.png", "annotations/trainval.txt"]
)
@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, None],
    ids=["symlink", "hard link", "character device", "block device", "pipe", "folder", "missing"],
)
def test_a_member_that_is_missing_or_no_regular_file_is_an_error_and_never_followed(
    pets, cache, tmp_path, member, kind
):
    path = outside(tmp_path)
    members = pets.images if member in pets.images else pets.annotations
    del members[member]
    if kind is not None:
        members["special"] = special(member, kind, path)
        members["its target"] = special(f"{member}.link", tarfile.SYMTYPE, "../../../outside.png")
    pets.publish()
    before = tree(tmp_path, without=cache.parent)
    pets_fail(member, "missing, or not a regular file", "oxford_pets_", "run again")
    assert tree(tmp_path, without=cache.parent) == before
    assert set(tree(cache)) == set(CACHED)


@pytest.mark.parametrize(
    "member", ["images/Bengal_7.jpg", "annotations/trimaps/Bengal_7.png", "annotations/trainval.txt", "images/huge.mat"]
)
def test_a_member_of_absurd_size_is_refused_by_its_header_before_it_is_read_or_passed_over(pets, member):
    info = tarfile.TarInfo(member)
    info.size = 2**40
    kind = member.split("/")[0]
    pets.publish(**{kind: gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + tar({}))})
    pets_fail(member, "1,099,511,627,776 bytes", "67,108,864")


def test_a_picture_with_too_many_pixels_is_refused(pets, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 32 * 51 - 1)  # Pillow itself only warns below twice as many
    pets_fail("annotations/trimaps/Abyssinian_12.png", "decompression bomb")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 32 * 51)
    assert_pets(pets, "train")


BROKEN = {
    "cut": lambda members: cut(gzip.compress(tar(members), compresslevel=1)),
    "cut after unpacking": lambda members: gzip.compress(tar(members)[:1500]),
    "cut between members": lambda members: gzip.compress(tar(members)[:1024]),
    "not a gzip file": lambda members: b"nothing of the kind",
    "a bare tar": tar,
    "not a tar": lambda members: gzip.compress(b"nothing of the kind" * 100),
    "garbled": lambda members: garbled(gzip.compress(tar(members))),
    "an empty tar": lambda members: gzip.compress(tar({})),
    "an empty gzip file": lambda members: gzip.compress(b""),
}


@pytest.mark.parametrize("kind", ["images", "annotations"])
@pytest.mark.parametrize("damage", BROKEN)
def test_an_archive_that_is_broken_but_has_the_md5_is_an_error_that_names_it(pets, cache, kind, damage):
    pets.publish(**{kind: BROKEN[damage](getattr(pets, kind))})
    pets_fail(str(cache / f"oxford_pets_{kind}.tar.gz"), "Delete", "run again")
    assert set(tree(cache)) == set(CACHED)
    pets.publish()
    assert_pets(pets, "train")


@pytest.mark.parametrize(
    "line",
    ["../../etc/passwd 1 1 1", "/etc/passwd 1 1 1", "images/pug_3 1 1 1", "._pug_3 1 1 1", ".. 1 1 1", "pug\\3 1 1 1",
     "pug_3", "pug_3 1 1", "pug_3 1 1 1 1", "pug_3 1 1 x", "pug 3 1 1 1", "Chat_Égyptien 1 1 1", "\0 1 1 1"],
)  # fmt: skip
def test_a_list_with_a_line_of_another_form_is_refused_with_the_line(pets, line):
    pets.annotations["annotations/trainval.txt"] += f"{line}\n".encode()
    pets.publish()
    pets_fail(CACHED[0], "annotations/trainval.txt", "name and three numbers")


@pytest.mark.parametrize(
    ("content", "problem"), [(b"", "empty"), (b"\n \n", "empty"), (b"a 1 1 1\na 2 1 1\n", "twice")]
)
def test_a_list_that_is_empty_or_has_a_name_twice_is_refused(pets, content, problem):
    pets.annotations["annotations/test.txt"] = content
    pets.publish()
    pets_fail("annotations/test.txt", problem, split="test")
    assert_pets(pets, "train")


def test_a_list_may_have_the_line_ends_of_another_system_and_an_empty_last_line(pets):
    pets.annotations["annotations/test.txt"] = pets.annotations["annotations/test.txt"].replace(b"\n", b" \r\n") + b"\n"
    pets.publish()
    assert_pets(pets, "test")


@pytest.mark.parametrize("value", [0, 4, 255])
def test_a_mask_with_another_value_is_refused_even_where_it_is_cut_off(pets, value):
    values = np.full((32, 45), 2, np.uint8)
    values[31, 44] = value
    pets.annotations["annotations/trimaps/Bengal_7.png"] = trimap_png(values)
    pets.publish()
    pets_fail(CACHED[0], "annotations/trimaps/Bengal_7.png", f"has the value {value}; expected 1, 2 and 3")


@pytest.mark.parametrize("mode", ["RGB", "1", "I;16", "LA"])
def test_a_mask_of_another_mode_is_refused(pets, mode):
    pets.annotations["annotations/trimaps/Bengal_7.png"] = encoded(Image.new(mode, (45, 32), 1), "PNG")
    pets.publish()
    pets_fail("annotations/trimaps/Bengal_7.png", "mode", "8 bits")


@pytest.mark.parametrize("size", [(32, 45), (45, 33), (90, 64)])
def test_a_mask_of_another_size_than_its_image_is_refused(pets, size):
    pets.annotations["annotations/trimaps/Bengal_7.png"] = trimap_png(np.ones(size[::-1], np.uint8))
    pets.publish()
    pets_fail(CACHED[1], "images/Bengal_7.jpg", "(45, 32)", str(size))


UNREADABLE = {
    "empty": lambda content: b"",
    "text": lambda content: b"nothing of the kind",
    "truncated": cut,
    "another format": lambda content: encoded(Image.new("L", (45, 32), 1), "PPM"),
    "PostScript": lambda content: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 45 32\n",
}


@pytest.mark.parametrize("member", ["images/Bengal_7.jpg", "annotations/trimaps/Bengal_7.png"])
@pytest.mark.parametrize("damage", UNREADABLE)
def test_a_picture_that_cannot_be_decoded_is_an_error_that_names_it(pets, cache, member, damage):
    members = pets.images if member in pets.images else pets.annotations
    members[member] = UNREADABLE[damage](members[member])
    pets.publish()
    pets_fail(member, "cannot be decoded", "oxford_pets_", "run again", "Pillow")
    assert set(tree(cache)) == set(CACHED)


# The arrays in the cache


@pytest.mark.parametrize(
    "damage", [cut, flip, lambda content: b"", lambda content: b"PK", lambda content: content[:-1]]
)
def test_a_damaged_file_of_arrays_is_made_anew(pets, cache, damage):
    assert_pets(pets, "train")
    kept = cache / "oxford_pets_train_8.npz"
    kept.write_bytes(damage(kept.read_bytes()))
    assert_pets(pets, "train")
    assert_pets(pets, "train")
    with np.load(kept) as arrays:
        assert set(arrays) == {"images", "made_from", "masks"}


def test_a_changed_pixel_in_the_file_of_arrays_is_seen(pets, cache):
    data.oxford_pets("train", 64)
    kept = cache / "oxford_pets_train_64.npz"
    for place in (5_000, 20_000, kept.stat().st_size - 3_000):  # in images, images, masks
        kept.write_bytes(kept.read_bytes()[:place] + b"\x07" + kept.read_bytes()[place + 1 :])
        assert_pets(pets, "train", 64)


@pytest.mark.parametrize("other", ["oxford_pets_test_8.npz", "oxford_pets_train_16.npz"])
def test_a_file_of_other_arrays_under_the_name_is_not_used(pets, cache, other):
    data.oxford_pets("test", 8)
    data.oxford_pets("train", 16)
    shutil.copy(cache / other, cache / "oxford_pets_train_8.npz")
    assert_pets(pets, "train")


def test_arrays_made_from_other_archives_are_not_used(pets):
    assert_pets(pets, "train")
    pets.labels["Bengal_7"] = 2 - pets.labels["Bengal_7"]
    picture, trimap = draw(pets.labels["Bengal_7"], *PICTURES["Bengal_7"][:5])
    pets.images["images/Bengal_7.jpg"], pets.annotations["annotations/trimaps/Bengal_7.png"] = picture, trimap
    pets.publish()
    assert_pets(pets, "train")


def test_arrays_that_cannot_be_kept_are_returned_with_a_warning(pets, cache, monkeypatch):
    def refuse(*arguments):
        raise OSError("no space left")

    pets.put(cache)
    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", lambda file, **arrays: file.write(b"half") and refuse())
        with pytest.warns(UserWarning, match=r"oxford_pets_train_8.npz: cannot be written \(no space left\)"):
            assert_pets(pets, "train")
    assert set(tree(cache)) == set(CACHED)
    assert_pets(pets, "train")


def test_an_interrupted_call_leaves_no_arrays(pets, cache, monkeypatch):
    def interrupt(file, **arrays):
        file.write(b"half")
        assert not (cache / "oxford_pets_train_8.npz").exists()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", interrupt)
        with pytest.raises(KeyboardInterrupt):
            data.oxford_pets("train", 8)
    assert set(tree(cache)) == set(CACHED)
    assert_pets(pets, "train")


# The original files


@needs_originals
@pytest.mark.parametrize(("split", "count"), [("train", 60_000), ("test", 10_000)])
def test_full_has_the_published_sizes_and_balance(monkeypatch, split, count):
    monkeypatch.setattr(data, "DEBIAN_FOLDER", INSTALLED)
    images, labels = data.fashion_mnist(split, "full")
    assert images.shape == (count, 1, 28, 28)
    assert images.dtype == torch.uint8
    assert labels.dtype == torch.int64
    assert labels.bincount().tolist() == [count // 10] * 10


@needs_originals
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_mini_image_is_in_the_full_split_with_its_label_and_in_no_two_places(monkeypatch, split):
    monkeypatch.setattr(data, "DEBIAN_FOLDER", INSTALLED)
    images, labels = data.fashion_mnist(split)
    full, full_labels = data.fashion_mnist(split, "full")
    place = {image.numpy().tobytes(): index for index, image in enumerate(full)}
    places = [place[image.numpy().tobytes()] for image in images]
    assert full_labels[places].equal(labels)
    assert len(set(places)) == len(images)


@pytest.fixture(scope="module")
def tool():
    path = ROOT / "code" / "tools" / "make_fashion_mnist_mini.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@needs_originals
def test_the_tool_agrees_with_the_committed_file_and_sees_a_changed_one(tool, tmp_path, capsys):
    assert tool.main(["--check", "--source", str(INSTALLED)]) == 0
    with np.load(MINI) as file:
        arrays = dict(file)
    assert {f"{name}: {line}" for name, line in tool.digests(arrays).items()} <= set(
        capsys.readouterr().out.splitlines()
    )
    arrays["train_labels"][0] ^= 1
    np.savez_compressed(tmp_path / "changed.npz", **arrays)
    assert "array train_labels is" in tool.check(tool.build(INSTALLED), tmp_path / "changed.npz")[0]


def test_the_tool_says_what_is_missing(tool, tmp_path, capsys):
    assert tool.main(["--check", "--source", str(tmp_path)]) == 1
    assert TRAIN_IMAGES in capsys.readouterr().err
    assert "cannot be read" in tool.check({}, tmp_path / "none.npz")[0]


def scenes(split="test", count=40, **settings):
    return data.garment_scenes(split, count, **settings)


@pytest.mark.parametrize("size", [32, (16, 300), (65, 97), (300, 16), (129, 129)])
@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_scenes_have_their_size_and_every_class(size, seed):
    images, masks = scenes(size=size, seed=seed)
    shape = size if isinstance(size, tuple) else (size, size)
    assert images.shape == (40, 1, *shape) and images.dtype == torch.uint8
    assert masks.shape == (40, *shape) and masks.dtype == torch.int64
    shares = masks.flatten().bincount(minlength=4) / masks.numel()
    assert len(shares) == len(data.SCENE_CLASSES) == 4 and shares.min() > 0.005
    assert 0.65 < shares[0] < 0.9
    assert len({image.numpy().tobytes() for image in images}) == 40


def test_scenes_depend_on_their_seed_and_split_and_grow_from_the_front():
    images, masks = scenes(count=12, seed=3)
    again, more = scenes(count=12, seed=3), scenes(count=20, seed=3)
    assert torch.equal(images, again[0]) and torch.equal(masks, again[1])
    assert torch.equal(images, more[0][:12]) and torch.equal(masks, more[1][:12])
    for other in (scenes(count=12, seed=4), scenes("train", count=12, seed=3)):
        assert not (images == other[0]).flatten(1).all(dim=1).any()
        assert not (masks == other[1]).flatten(1).all(dim=1).any()


def test_the_masks_of_seed_0_are_known():
    """Nothing that decides them depends on how a photograph is decoded."""
    digests = {
        split: hashlib.sha256(scenes(split, 100)[1].numpy().astype(np.uint8).tobytes()).hexdigest()[:16]
        for split in ("train", "test")
    }
    assert digests == {"train": "6fda73b590d43c3d", "test": "9ca12bb9384f6e57"}


def test_the_mask_is_exactly_where_the_garments_are(monkeypatch):
    """Garments of one grey, then of another: the pixels that change are the foreground."""
    garments, covers, labels = data._garments("test")
    made = []
    for grey in (0, 255):
        monkeypatch.setattr(data, "_garments", lambda _, grey=grey: (np.full_like(garments, grey), covers, labels))
        made.append(scenes(count=60, size=(40, 33), seed=7))
    (dark, masks), (bright, again) = made
    assert torch.equal(masks, again)
    assert torch.equal((dark != bright).squeeze(1), masks > 0)
    assert set(dark.squeeze(1)[masks > 0].tolist()) == {0} and set(bright.squeeze(1)[masks > 0].tolist()) == {255}


def test_each_pixel_has_the_class_of_the_garment_that_is_seen_there(monkeypatch):
    """Garments whose grey is their class: later ones hide earlier ones in the image and in the mask alike."""
    garments, covers, labels = data._garments("train")
    coded = np.ones_like(garments) * labels[:, None, None] * 50
    monkeypatch.setattr(data, "_garments", lambda _: (coded, covers, labels))
    images, masks = scenes("train", count=60, seed=2)
    assert torch.equal(images.squeeze(1)[masks > 0].long(), 50 * masks[masks > 0])
    lit = 200 * covers  # a garment and its cover are turned together
    monkeypatch.setattr(data, "_garments", lambda _: (lit, covers, labels))
    images, masks = scenes("train", count=60, seed=2)
    assert set(images.squeeze(1)[masks > 0].tolist()) == {200}


def test_garments_are_halved_from_their_own_pixels():
    images, labels = data.fashion_mnist("test")
    garments, covers, classes = data._garments("test")
    assert garments.shape == covers.shape == (1000, 14, 14)
    names = ["clothing", "clothing", "clothing", "clothing", "clothing", "footwear", "clothing", "footwear", "bag"]
    expected = [data.SCENE_CLASSES.index(name) for name in [*names, "footwear"]]
    assert classes.tolist() == [expected[label] for label in labels.tolist()]
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
    corner = values[:, :2, :2].reshape(1000, 4)
    few = ((corner > 12).sum(axis=1) < 2) & ~covers[:, 0, 0]
    assert few.sum() > 500 and not covers[few, 0, 0].any()
    holes = [k for k in range(1000) if labels[k] == 8]  # a bag's handle encloses something, which belongs to it
    assert any(covers[k].sum() * 4 > (values[k] > 12).sum() + 30 for k in holes)


def test_the_splits_share_no_garment_and_no_texture():
    assert not set(data.TEXTURES["train"]) & set(data.TEXTURES["test"])
    assert sorted(sum(data.TEXTURES.values(), ())) == sorted(
        ["brick", "grass", "gravel", "coffee", "chelsea", "china", "flower"]
    )
    seen = {split: {image.numpy().tobytes() for image in data.fashion_mnist(split)[0]} for split in ("train", "test")}
    assert not seen["train"] & seen["test"]
    for split in ("train", "test"):
        mine = data._garments(split)[0]
        assert len(mine) == {"train": 5000, "test": 1000}[split]


def test_a_background_is_a_piece_of_a_photograph(monkeypatch):
    """With garments that cover nothing, at full size, contrast and brightness the pixels are the photograph's."""
    garments, covers, labels = data._garments("test")
    monkeypatch.setattr(data, "_garments", lambda _: (garments, covers & False, labels))
    images, masks = scenes(count=60)
    assert masks.max() == 0
    means = images.double().flatten(1).mean(dim=1)
    assert means.std() > 20
    ramp = np.arange(300 * 300).reshape(300, 300) % 251
    monkeypatch.setattr(data, "_textures", lambda _: [ramp])
    kinds = set()
    for image in scenes(count=80, size=20)[0].squeeze(1).long():
        steps = image.diff(dim=1)
        kinds.add((int(steps.abs().median()), bool(steps.median() > 0)))
    assert len(kinds) > 4  # turned both ways, at several sizes and contrasts
    assert all(photograph.ndim == 2 and photograph.max() <= 255 for photograph in data._textures("test"))


def test_a_crop_is_cut_anywhere_averaged_and_turned_every_way():
    texture = 4 * (1000 * np.arange(28)[:, None] + np.arange(30))
    random, slopes = np.random.default_rng(0), set()
    for _ in range(6000):
        piece = data._crop(texture, 6, 7, random)
        assert piece.shape == (6, 7)
        [down], [across] = (np.unique(np.diff(piece, axis=axis)) for axis in (0, 1))
        slopes.add((int(down), int(across)))
    steps = {factor * quarters for factor in (1, 2, 3, 4) for quarters in (2, 3, 4)}
    ways = {(a * step, b * step) for step in steps for a in (-1000, 1000) for b in (-1, 1)}
    assert slopes == ways | {(across, down) for down, across in ways}
    small = texture[:7, :8]  # every pixel of it has its turn
    assert set(small.ravel()) <= {value for _ in range(300) for value in data._crop(small, 6, 7, random).ravel()}


def test_a_crop_has_means_and_every_brightness_that_fits():
    random = np.random.default_rng(0)
    for grey, values in ((0, range(129)), (255, range(127, 256))):
        texture = np.full((28, 30), grey, np.uint8)
        assert {int(data._crop(texture, 6, 7, random)[0, 0]) for _ in range(6000)} == set(values)
    board = (255 * (np.indices((28, 30)).sum(axis=0) % 2)).astype(np.uint8)
    pieces = [data._crop(board, 6, 7, random) for _ in range(400)]
    even = [piece[0, 0] for piece in pieces if np.ptp(piece) == 0]  # of 2 x 2 or 4 x 4 pixels: 127, then as above
    assert 150 < len(even) < 250 and min(even) >= 63 and max(even) <= 63 + 128


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_has_its_garments_and_all_its_textures(split, monkeypatch):
    asked, garments = [], data._garments
    monkeypatch.setattr(data, "_garments", lambda split: asked.append(split) or garments(split))
    monkeypatch.setattr(data, "_textures", lambda split: asked.append(split) or [10, 20, 30])
    monkeypatch.setattr(data, "_crop", lambda texture, height, width, _: np.full((height, width), texture))
    images, masks = scenes(split)
    assert set(asked) == {split} and len(asked) == 2
    assert images.squeeze(1)[masks == 0].unique().tolist() == [10, 20, 30]


def test_a_photograph_is_made_grey_by_its_luma():
    by_hand = np.floor(chelsea() @ (0.299, 0.587, 0.114) + 0.5 + 1e-9)
    assert np.array_equal(data._textures("test")[data.TEXTURES["test"].index("chelsea")], by_hand)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (dict(split="valid"), ValueError, "split"),
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
        scenes(**settings)
