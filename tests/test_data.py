import gzip
import hashlib
import importlib.util
import os
import shutil
import socket
import socketserver
import struct
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pooch
import pytest
import torch

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
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.setattr(data, "DEBIAN_FOLDER", tmp_path / "not-installed")
    monkeypatch.setattr(data, "_BASE_URL", "http://127.0.0.1:1/")


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
def server(small, monkeypatch):
    with Server(("127.0.0.1", 0), Handler) as running:
        running.bodies = {name: packed for name, (_, packed) in small.items()}
        running.requests, running.stop_after = [], None
        monkeypatch.setattr(data, "_BASE_URL", f"http://127.0.0.1:{running.server_address[1]}/")
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield running
        finally:
            running.shutdown()
            thread.join()


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


def test_mini_is_found_from_a_folder_below_data_when_the_module_is_not_in_the_repository(monkeypatch, tmp_path):
    monkeypatch.setattr(data, "__file__", str(tmp_path / "a/b/c/d/data.py"))
    (tmp_path / "data").mkdir()
    (tmp_path / "below" / "it").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "below" / "it")
    fails("fashion_mnist_mini.npz", "UPCONV_DATA", tier="mini")
    shutil.copy(MINI, tmp_path / "data")
    assert len(data.fashion_mnist("test")[0]) == 1000


def test_a_folder_in_upconv_data_is_the_only_one_searched_for_mini(monkeypatch, tmp_path):
    monkeypatch.setenv("UPCONV_DATA", str(tmp_path))
    fails("fashion_mnist_mini.npz", str(tmp_path), "checkout", tier="mini")
    shutil.copy(MINI, tmp_path)
    assert len(data.fashion_mnist("test")[0]) == 1000


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
