"""Files that are verified before use: where they are looked for, how they are downloaded; and Fashion-MNIST.

The images are those of Xiao, Rasul and Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
Learning Algorithms" (2017), arXiv:1708.07747.
"""

import gzip
import hashlib
import io
import os
import zlib
from pathlib import Path

import numpy as np
import pooch
import torch

from upconv.book.common import cache_folder, check_choice

__all__ = [
    "CLASSES",
    "DEBIAN_FOLDER",
    "FULL_SHA256",
    "MINI_SHA256",
    "DataError",
    "committed_file",
    "download",
    "fashion_mnist",
    "find_file",
    "read_idx",
]

CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

MINI_SHA256 = "8f0b3c76fcef8b6c63f177aca78cacacbd6c5ec68dfc3a875fec1a2b003141a4"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")

_MINI_NAME = "fashion_mnist_mini.npz"
_BASE_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_REMEDY = (
    "To get the files, connect to the network and run again, or install Debian's package dataset-fashion-mnist; "
    'tier="mini" needs neither (in a chapter: run `%env UPCONV_TIER=mini` before the first cell).'
)
# Of the four .gz files as published.
_MD5 = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
# Of their unpacked content, which Debian's recompressed files share.
FULL_SHA256 = {
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


class DataError(RuntimeError):
    """A data file that is missing, damaged or cannot be downloaded; the message names it and says what to do."""


def fashion_mnist(split: str, tier: str = "mini") -> tuple[torch.Tensor, torch.Tensor]:
    """Return the images and labels of one split of Fashion-MNIST, read from files verified by their SHA-256.

    The mini tier is read from `fashion_mnist_mini.npz` in the folder that the environment variable UPCONV_DATA names,
    if that has it, else in the repository's `data` folder, else in `data` in the working directory or any folder
    above it.

    The full tier is read from the original IDX files, each taken from the first place that holds it: UPCONV_DATA,
    Debian's package dataset-fashion-mnist, the cache (`upconv.book.common.cache_folder`); a file in none of them is
    downloaded into that cache from the project's published address. A download is moved into the cache only once it is
    complete and its MD5 agrees, and a damaged file in the cache is downloaded again; one elsewhere is an error.

    Parameters
    ----------
    split : str
        "train" or "test".
    tier : str
        "mini" (5,000 training and 1,000 test images, as many of each class) or "full" (60,000 and 10,000).

    Returns
    -------
    images : torch.Tensor
        Shape (N, 1, 28, 28), uint8, 0 (background) to 255.
    labels : torch.Tensor
        Shape (N,), int64, an index into `CLASSES`.

    Raises
    ------
    ValueError
        If `split` or `tier` is none of the accepted values.
    DataError
        If a file is missing, damaged or cannot be downloaded.

    Notes
    -----
    Data: Xiao, Rasul and Vollgraf (2017), arXiv:1708.07747.

    Examples
    --------
    >>> images, labels = fashion_mnist("test")
    >>> images.shape, images.dtype
    (torch.Size([1000, 1, 28, 28]), torch.uint8)
    >>> labels.bincount().tolist()
    [100, 100, 100, 100, 100, 100, 100, 100, 100, 100]
    """
    check_choice("split", split, ("train", "test"))
    check_choice("tier", tier, ("mini", "full"))
    if tier == "mini":
        with np.load(io.BytesIO(_read_mini(committed_file(_MINI_NAME))), allow_pickle=False) as arrays:
            images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
    else:
        prefix = {"train": "train", "test": "t10k"}[split]
        images, labels = (
            read_idx(_find_original(f"{prefix}-{kind}-ubyte.gz")) for kind in ("images-idx3", "labels-idx1")
        )
    return torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels).long()


def committed_file(name: str) -> Path:
    """Find a file of the repository's `data` folder, in the places where `fashion_mnist` looks for its mini tier.

    Parameters
    ----------
    name : str
        Relative to that folder, such as `results/schedules.csv`.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    DataError
        If none of the places has it.
    """
    here = Path.cwd()
    folders = Path(__file__).resolve().parents[3] / "data", *(folder / "data" for folder in (here, *here.parents))
    path = find_file(name, *folders)
    if path is None:
        raise DataError(
            f"{name}: not found in data/ of the repository, {here} or above, nor in a folder that the environment "
            "variable UPCONV_DATA names. Run from a checkout of the repository, which holds it in data/, or set "
            "UPCONV_DATA to the folder that holds it."
        )
    return path


def read_idx(path: str | os.PathLike) -> np.ndarray:
    """Read one of the four original gzip-compressed IDX files after verifying its unpacked content.

    Parameters
    ----------
    path : str or os.PathLike
        The file, under its original name, such as `t10k-labels-idx1-ubyte.gz`.

    Returns
    -------
    numpy.ndarray
        uint8: images of shape (N, 28, 28), or labels of shape (N,) in [0, 9].

    Raises
    ------
    ValueError
        If the name is none of the four original names.
    DataError
        If the file is missing, is no whole gzip file, or its content is not the original's.

    Notes
    -----
    The IDX layout (two zero bytes, a type, the number of dimensions, the sizes as big-endian int32, the values) is that
    of LeCun, Cortes and Burges's MNIST files, which Fashion-MNIST shares.

    Examples
    --------
    >>> read_idx("labels.gz")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: path: expected a file named train-images-idx3-ubyte.gz, ..., got 'labels.gz'
    """
    path = Path(path)
    if path.name not in FULL_SHA256:
        raise ValueError(f"path: expected a file named {', '.join(FULL_SHA256)}, got {path.name!r}")
    expected = FULL_SHA256[path.name]
    delete = f"Delete it and run again, or reinstall dataset-fashion-mnist if that package brought it. {_REMEDY}"
    try:
        with gzip.open(path) as stream:
            content = bytearray(stream.read())
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file. {_REMEDY}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: truncated, damaged or unreadable ({error}). {delete}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        other = next((f", the content of {name}" for name, sha256 in FULL_SHA256.items() if sha256 == found), "")
        raise DataError(f"{path}: its unpacked content has SHA-256 {found}{other}; expected {expected}. {delete}")
    dimensions = content[3]
    shape = np.frombuffer(content, ">i4", count=dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def _read_mini(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}). Make it readable and run again.") from error
    found = hashlib.sha256(content).hexdigest()
    if found != MINI_SHA256:
        raise DataError(
            f"{path}: {len(content):,} bytes with SHA-256 {found}; expected {MINI_SHA256}. The file is damaged, or not "
            "the committed one: delete it and restore it with `git checkout` from the repository."
        )
    return content


def _find_original(name: str) -> Path:
    return find_file(name, DEBIAN_FOLDER) or download(name, _BASE_URL + name, _MD5[name], _REMEDY)


def find_file(name, *folders):
    """Find a file in the folder that the environment variable UPCONV_DATA names, if it is set, or in others.

    Parameters
    ----------
    name : str
    *folders : pathlib.Path
        Looked through in order, after UPCONV_DATA.

    Returns
    -------
    pathlib.Path or None
        None if none of them has it.

    Raises
    ------
    DataError
        If UPCONV_DATA is set and names no folder.
    """
    if chosen := os.environ.get("UPCONV_DATA"):
        folders = Path(chosen).expanduser(), *folders
        if not folders[0].is_dir():
            raise DataError(f"{chosen}: the environment variable UPCONV_DATA names it, and it is no folder")
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    return None


def download(name: str, url: str, md5: str, remedy: str) -> Path:
    """Find a file in the cache, or download it there, complete and with its MD5 verified.

    Parameters
    ----------
    name : str
        Its name in `upconv.book.common.cache_folder`.
    url, md5 : str
    remedy : str
        What the reader can do if it fails: the end of the message.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    DataError
        If the download fails.
    """
    folder = cache_folder()
    held = (folder / name).exists()
    # pooch writes to a temporary file and renames it once the MD5 agrees, so nothing unfinished takes the file's name.
    try:
        return Path(pooch.retrieve(url, f"md5:{md5}", fname=name, path=folder, progressbar=True))
    except (OSError, ValueError) as error:  # requests' errors are OSErrors; a wrong MD5 is pooch's ValueError
        damaged = f"The copy in the cache, {folder / name}, is damaged or unreadable. " if held else ""
        raise DataError(f"{name}: the download from {url} failed ({error}). {damaged}{remedy}") from error
