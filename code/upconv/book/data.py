"""Fashion-MNIST and Oxford-IIIT Pet as uint8 tensors, from files that are verified before use.

The images of :func:`fashion_mnist` are those of Xiao, Rasul and Vollgraf, "Fashion-MNIST: a Novel Image Dataset for
Benchmarking Machine Learning Algorithms" (2017), arXiv:1708.07747; those of :func:`oxford_pets`, with masks for
segmentation, of Parkhi, Vedaldi, Zisserman and Jawahar, "Cats and Dogs" (CVPR 2012), doi:10.1109/CVPR.2012.6248092.
Each function says where it looks for its files.
"""

import gzip
import hashlib
import io
import os
import re
import tarfile
import warnings
import zlib
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from upconv.book.blocks import _int_of_at_least
from upconv.book.files import cache_folder, write_whole
from upconv.book.training import _bar

__all__ = [
    "CLASSES",
    "DEBIAN_FOLDER",
    "MINI_SHA256",
    "SCENE_CLASSES",
    "TEXTURES",
    "DataError",
    "committed_file",
    "fashion_mnist",
    "garment_scenes",
    "oxford_pets",
    "read_idx",
]

CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

_FOOTWEAR = ("Sandal", "Sneaker", "Ankle boot")
SCENE_CLASSES = ("background", "clothing", "footwear", "bag")
TEXTURES = {"train": ("brick", "grass", "coffee", "china"), "test": ("gravel", "chelsea", "flower")}

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
_SHA256 = {
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}

_PETS_URL = "https://www.robots.ox.ac.uk/~vgg/data/pets/data/"
# Of the two archives as published.
_PETS_MD5 = {
    "images.tar.gz": "5c4f3ee8e5d25df40f4fd59a7f44e54c",
    "annotations.tar.gz": "95a8c909bbe2e81eed6a22bccdf3f68f",
}
_PETS_LISTS = {"train": "annotations/trainval.txt", "test": "annotations/test.txt"}
_PETS_ROW = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9_.-]*)(\s+[0-9]+){3}\s*")  # a name, class, species and breed
_PETS_REMEDY = (
    "To get the two archives, connect to the network and run again, or put them, as oxford_pets_images.tar.gz and "
    "oxford_pets_annotations.tar.gz, into the folder that the environment variable UPCONV_DATA names; the mini tier "
    "needs neither (in a chapter: run `%env UPCONV_TIER=mini` before the first cell)."
)
_FORMATS = ("JPEG", "PNG", "GIF", "BMP")  # some of the set's .jpg files are not JPEG
_LARGEST_MEMBER = 64 * 2**20  # bytes
# What 1 (pet), 2 (background) and 3 (not classified) in the archive's masks become; 255 is no value of theirs.
_LABELS = np.full(256, 255, np.uint8)
_LABELS[[1, 2, 3]] = 1, 0, 2
_DECODING = "1: central square, BOX and NEAREST"  # a change of what is made of the archives changes this too


class DataError(RuntimeError):
    """A data file that is missing, damaged or cannot be downloaded; the message names it and says what to do."""


def fashion_mnist(split: str, tier: str = "mini") -> tuple[torch.Tensor, torch.Tensor]:
    """Return the images and labels of one split of Fashion-MNIST, read from files verified by their SHA-256.

    The mini tier is read from ``fashion_mnist_mini.npz`` in the folder that the environment variable UPCONV_DATA names,
    if that has it, else in the repository's ``data`` folder, else in ``data`` in the working directory or any folder
    above it.

    The full tier is read from the original IDX files, each taken from the first place that holds it: UPCONV_DATA,
    Debian's package dataset-fashion-mnist, the cache (``upconv.book.files.cache_folder``); a file in none of them is
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
        Shape (N,), int64, an index into ``CLASSES``.

    Raises
    ------
    ValueError
        If ``split`` or ``tier`` is none of the accepted values.
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
    _check_choice("split", split, ("train", "test"))
    _check_choice("tier", tier, ("mini", "full"))
    if tier == "mini":
        with np.load(io.BytesIO(_read_mini(committed_file(_MINI_NAME))), allow_pickle=False) as arrays:
            images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
    else:
        prefix = {"train": "train", "test": "t10k"}[split]
        images, labels = (
            read_idx(_find_original(f"{prefix}-{kind}-ubyte.gz")) for kind in ("images-idx3", "labels-idx1")
        )
    return torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels).long()


def oxford_pets(split: str, size: int = 128) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the images and masks of one split of Oxford-IIIT Pet, from two archives verified by their MD5.

    Each photograph is cropped to its central square and resized to ``size``: a pixel of the image is the mean of those
    with their centre in it (the nearest, if ``size`` is the larger one), and a pixel of the mask is the one at its
    centre. What the crop cuts off is lost.

    The two archives, 0.8 GB together, are each taken from the first place that holds it: the folder that the
    environment variable UPCONV_DATA names, the cache (``upconv.book.files.cache_folder``); one in neither is downloaded
    into that cache from the set's published address. In both places their names are ``oxford_pets_images.tar.gz`` and
    ``oxford_pets_annotations.tar.gz``. A damaged archive in the cache is downloaded again; one in UPCONV_DATA is an
    error. The archives are read, not unpacked: nothing is written under a name that one of them holds.

    Decoding a split takes about a minute. The cache keeps the arrays, in a file for each split and size (241 MB for
    128), so that the next call needs neither that minute nor the archives; a damaged one is made anew.

    Parameters
    ----------
    split : str
        "train" (3,680 images, the set's trainval.txt) or "test" (3,669).
    size : int
        Height and width of what is returned, in pixels.

    Returns
    -------
    images : torch.Tensor
        Shape (N, 3, size, size), uint8, RGB from 0 to 255, in the order of the set's own list; shuffle them before
        training.
    masks : torch.Tensor
        Shape (N, size, size), uint8: 0 background, 1 pet, 2 border, the rim that the set calls "not classified".

    Raises
    ------
    TypeError
        If ``size`` is not an int (a bool is not an int here).
    ValueError
        If ``split`` is none of the accepted values, or ``size`` is below 1.
    DataError
        If an archive is damaged or cannot be downloaded, or does not hold what it should.

    Warns
    -----
    UserWarning
        If the arrays cannot be kept in the cache; they are returned all the same.

    Notes
    -----
    Data: Parkhi, Vedaldi, Zisserman and Jawahar, "Cats and Dogs" (CVPR 2012), doi:10.1109/CVPR.2012.6248092,
    https://www.robots.ox.ac.uk/~vgg/data/pets/, reported to be under CC BY-SA 4.0.

    Examples
    --------
    >>> images, masks = oxford_pets("train")  # doctest: +SKIP
    >>> images.shape, masks.shape  # doctest: +SKIP
    (torch.Size([3680, 3, 128, 128]), torch.Size([3680, 128, 128]))
    >>> oxford_pets("train", size=0)
    Traceback (most recent call last):
    ...
    ValueError: size=0 must be an int of at least 1
    """
    _check_choice("split", split, ("train", "test"))
    size = _int_of_at_least(1, size=size)
    kept = cache_folder() / f"oxford_pets_{split}_{size}.npz"
    made_from = ", ".join((split, str(size), *_PETS_MD5.values(), _DECODING))
    arrays = _read_kept(kept, made_from)
    if arrays is None:
        arrays = _decode_pets(split, size)
        try:
            write_whole(kept, lambda file: np.savez(file, made_from=made_from, images=arrays[0], masks=arrays[1]))
        except OSError as error:
            warnings.warn(f"{kept}: cannot be written ({error}); the next call decodes again", stacklevel=2)
    images, masks = arrays
    return torch.from_numpy(images), torch.from_numpy(masks)


def committed_file(name: str) -> Path:
    """Find a file of the repository's ``data`` folder, in the places where ``fashion_mnist`` looks for its mini tier.

    Parameters
    ----------
    name : str
        Relative to that folder, such as ``results/checkerboard.csv``.

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
    path = _held(name, *folders)
    if path is None:
        raise DataError(
            f"{name}: not found in data/ of the repository, {here} or above, nor in a folder that the environment "
            "variable UPCONV_DATA names. Run from a checkout of the repository, which holds it in data/, or set "
            "UPCONV_DATA to the folder that holds it."
        )
    return path


def garment_scenes(split: str, count: int, size: int | tuple[int, int] = 32, seed: int = 0):
    """Draw scenes of garments in front of photographed textures, with the class of every pixel, which is exact.

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
        Shape (count, H, W), int64, an index into ``SCENE_CLASSES``.

    Raises
    ------
    TypeError
        If ``count``, ``size`` or ``seed`` is not made of ints.
    ValueError
        If a value is out of its range.
    DataError
        As ``fashion_mnist``.

    Notes
    -----
    A garment is every pixel above 12 of 255 and the holes inside; it is halved by the mean of those of each 2 x 2
    pixels that belong to it, if they are two or more. A scene consists of such pixels and of a texture's, nothing is
    blended: that makes the masks exact. Textures are means of 1 x 1 to 4 x 4 pixels of grey photographs, turned, with
    less contrast and another brightness: brick, grass, gravel, coffee and chelsea come with scikit-image, china and
    flower with scikit-learn. A garment sticks out of its scene by up to four pixels above and on the left, and by up to
    three below and on the right.

    Examples
    --------
    >>> images, masks = garment_scenes("test", 5, size=(32, 48))
    >>> images.shape, masks.shape
    (torch.Size([5, 1, 32, 48]), torch.Size([5, 32, 48]))
    """
    _check_choice("split", split, ("train", "test"))
    count, seed = _int_of_at_least(1, count=count), _int_of_at_least(0, seed=seed)
    height, width = size if isinstance(size, (tuple, list)) and len(size) == 2 else (size, size)
    height, width = (_int_of_at_least(16, size=length) for length in (height, width))
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
    classes = np.array([{"Bag": 3}.get(name, 2 if name in _FOOTWEAR else 1) for name in CLASSES])
    return halved(images * covers) // np.maximum(counts, 1), counts >= 2, classes[labels.numpy()]


def read_idx(path: str | os.PathLike) -> np.ndarray:
    """Read one of the four original gzip-compressed IDX files after verifying its unpacked content.

    Parameters
    ----------
    path : str or os.PathLike
        The file, under its original name, such as ``t10k-labels-idx1-ubyte.gz``.

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
    if path.name not in _SHA256:
        raise ValueError(f"path: expected a file named {', '.join(_SHA256)}, got {path.name!r}")
    expected = _SHA256[path.name]
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
        other = next((f", the content of {name}" for name, sha256 in _SHA256.items() if sha256 == found), "")
        raise DataError(f"{path}: its unpacked content has SHA-256 {found}{other}; expected {expected}. {delete}")
    dimensions = content[3]
    shape = np.frombuffer(content, ">i4", count=dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def _check_choice(argument, value, accepted):
    if value not in accepted:
        raise ValueError(f'{argument}: expected "{accepted[0]}" or "{accepted[1]}", got {value!r}')


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
    return _held(name, DEBIAN_FOLDER) or _download(name, _BASE_URL + name, _MD5[name], _REMEDY)


def _held(name, *folders):
    chosen = os.environ.get("UPCONV_DATA")
    for folder in ([Path(chosen)] if chosen else []) + list(folders):
        if (folder / name).is_file():
            return folder / name
    return None


def _download(name: str, url: str, md5: str, remedy: str) -> Path:
    import pooch  # noqa: PLC0415 - the mini tier needs no download

    folder = cache_folder()
    held = (folder / name).exists()
    # pooch writes to a temporary file and renames it once the MD5 agrees, so nothing unfinished takes the file's name.
    try:
        return Path(pooch.retrieve(url, f"md5:{md5}", fname=name, path=folder, progressbar=True))
    except (OSError, ValueError) as error:  # requests' errors are OSErrors; a wrong MD5 is pooch's ValueError
        damaged = f"The copy in the cache, {folder / name}, is damaged or unreadable. " if held else ""
        raise DataError(f"{name}: the download from {url} failed ({error}). {damaged}{remedy}") from error


def _find_archive(published):
    name, md5 = f"oxford_pets_{published}", _PETS_MD5[published]
    path = _held(name)
    if path is None:
        return _download(name, _PETS_URL + published, md5, _PETS_REMEDY)
    try:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}). Make it readable and run again.") from error
    if found != md5:
        raise DataError(f"{path}: its MD5 is {found}; expected {md5}. Delete it and run again. {_PETS_REMEDY}")
    return path


def _decode_pets(split, size):
    annotations, photographs = _find_archive("annotations.tar.gz"), _find_archive("images.tar.gz")
    names = _pet_names(annotations, _PETS_LISTS[split])
    images = np.empty((len(names), 3, size, size), np.uint8)
    masks = np.empty((len(names), size, size), np.uint8)
    sizes = [None] * len(names)
    with _bar(2 * len(names), "Oxford-IIIT Pet", unit="file") as bar:
        trimaps = {f"annotations/trimaps/{name}.png": index for index, name in enumerate(names)}
        for member, content in _members(annotations, trimaps):
            index = trimaps[member]
            mask = _decode_mask(annotations, member, content)
            sizes[index] = mask.size
            masks[index] = _central_square(mask, size, Image.Resampling.NEAREST)
            bar.update()
        pictures = {f"images/{name}.jpg": index for index, name in enumerate(names)}
        for member, content in _members(photographs, pictures):
            index = pictures[member]
            with _decoding(photographs, member):
                image = Image.open(io.BytesIO(content), formats=_FORMATS).convert("RGB")
            if image.size != sizes[index]:
                raise _bad_member(photographs, member, f"is of size {image.size}, and its mask {sizes[index]}")
            images[index] = _central_square(image, size, Image.Resampling.BOX).transpose(2, 0, 1)
            bar.update()
    return images, masks


def _pet_names(path, member):
    [(_, content)] = _members(path, [member])
    lines = [line for line in content.decode("ascii", "replace").splitlines() if line.strip()]
    rows = [_PETS_ROW.fullmatch(line) for line in lines]
    if None in rows:
        raise _bad_member(path, member, f"has a line that is not a name and three numbers: {lines[rows.index(None)]!r}")
    names = [row[1] for row in rows]
    if not names or len(set(names)) < len(names):
        raise _bad_member(path, member, "has a name twice" if names else "is empty")
    return names


def _members(path, wanted):
    """Yield the name and content of each wanted file, in one pass; links, folders and other names are passed over."""
    missing = set(wanted)
    try:
        with gzip.open(path) as unpacked, tarfile.open(fileobj=unpacked, mode="r|") as archive:
            for member in archive:
                if not missing:
                    return
                if member.size > _LARGEST_MEMBER:  # also of the others: tarfile reads what it passes over
                    problem = f"has {member.size:,} bytes, more than the {_LARGEST_MEMBER:,} that are read"
                    raise _bad_member(path, member.name, problem)
                if not member.isreg() or member.name not in missing:
                    continue
                missing.remove(member.name)
                yield member.name, archive.extractfile(member).read()
    except (OSError, EOFError, ValueError, zlib.error, tarfile.TarError) as error:
        raise DataError(f"{path}: truncated, damaged or unreadable ({error}). {_again(path)}") from error
    if missing:
        first = next(name for name in wanted if name in missing)
        raise _bad_member(path, first, f"is missing, or not a regular file ({len(missing):,} of {len(wanted):,} are)")


def _decode_mask(path, member, content):
    with _decoding(path, member):
        mask = Image.open(io.BytesIO(content), formats=_FORMATS)
        mask.load()
    if mask.mode not in ("L", "P"):
        raise _bad_member(path, member, f"is of mode {mask.mode}; expected a single channel of 8 bits")
    values = np.asarray(mask)
    labels = _LABELS[values]
    if labels.max() > 2:
        raise _bad_member(path, member, f"has the value {values[labels > 2][0]}; expected 1, 2 and 3")
    return Image.fromarray(labels)


@contextmanager
def _decoding(path, member):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of palettes and metadata, which make no difference here
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except Exception as error:  # Pillow's decoders raise errors of many kinds
        raise _bad_member(path, member, f"cannot be decoded ({error})") from error


def _central_square(picture, size, resampling):
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return np.asarray(picture.crop((left, top, left + side, top + side)).resize((size, size), resampling))


def _bad_member(path, member, problem):
    return DataError(f"{path}: {member} in it {problem}. {_again(path)}")


def _again(path):
    return f"Delete {path} and run again; if that does not help, install the Pillow that requirements.txt pins."


def _read_kept(path, made_from):
    try:
        with np.load(path, allow_pickle=False) as arrays:  # zipfile compares the CRC of each array
            if arrays["made_from"] == made_from:
                return arrays["images"], arrays["masks"]
    except Exception:  # whatever is wrong with the file, it is made anew
        pass
    return None
