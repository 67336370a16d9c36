"""Oxford-IIIT Pet: photographs, and masks for segmentation, of Parkhi et al., "Cats and Dogs" (CVPR 2012)."""

import io
import tarfile
import warnings

import numpy as np
import pooch
import torch
from PIL import Image

from upconv.book.common import cache_folder, check_choice, checked_int, progress_bar, write_whole
from upconv.book.data import DataError, download, find_file

__all__ = ["oxford_pets"]

URL = "https://www.robots.ox.ac.uk/~vgg/data/pets/data/"
# Of the two archives as published.
MD5 = {
    "images.tar.gz": "5c4f3ee8e5d25df40f4fd59a7f44e54c",
    "annotations.tar.gz": "95a8c909bbe2e81eed6a22bccdf3f68f",
}
LISTS = {"train": "annotations/trainval.txt", "test": "annotations/test.txt"}
LABELS = np.array([255, 1, 0, 2], np.uint8)  # of the archive's 1 (pet), 2 (background) and 3 (not classified)
DECODING = "1: central square, BOX and NEAREST"  # a change of what is made of the archives changes this too
REMEDY = (
    "To get the two archives, connect to the network and run again, or put them, as oxford_pets_images.tar.gz and "
    "oxford_pets_annotations.tar.gz, into the folder that the environment variable UPCONV_DATA names; the mini tier "
    "needs neither (in a chapter: run `%env UPCONV_TIER=mini` before the first cell)."
)


def oxford_pets(split: str, size: int = 128) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the images and masks of one split of Oxford-IIIT Pet, from two archives verified by their MD5.

    Each photograph is cropped to its central square and resized to `size`: a pixel of the image is the mean of those
    with their centre in it (the nearest, if `size` is the larger one), and a pixel of the mask is the one at its
    centre. What the crop cuts off is lost.

    The two archives, 0.8 GB together, are each taken from the first place that holds it: the folder that the
    environment variable UPCONV_DATA names, the cache (`upconv.book.common.cache_folder`); one in neither is downloaded
    into that cache from the set's published address. In both places their names are `oxford_pets_images.tar.gz` and
    `oxford_pets_annotations.tar.gz`. A damaged archive in the cache is downloaded again; one in UPCONV_DATA is an
    error. The archives are read and not unpacked: nothing is written under a name that one of them holds.

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
        If `size` is not an int (a bool is not an int here).
    ValueError
        If `split` is none of the accepted values, or `size` is below 1.
    DataError
        If an archive is damaged or cannot be downloaded.

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
    check_choice("split", split, ("train", "test"))
    size = checked_int("size", size, at_least=1)
    kept = cache_folder() / f"oxford_pets_{split}_{size}.npz"
    made_from = ", ".join((split, str(size), *MD5.values(), DECODING))
    arrays = _read_kept(kept, made_from)
    if arrays is None:
        arrays = _decoded(split, size)
        try:
            write_whole(kept, lambda file: np.savez(file, made_from=made_from, images=arrays[0], masks=arrays[1]))
        except OSError as error:
            warnings.warn(f"{kept}: cannot be written ({error}); the next call decodes again", stacklevel=2)
    images, masks = arrays
    return torch.from_numpy(images), torch.from_numpy(masks)


def _archive(published):
    """Find one of the two archives; what is found has the MD5 that was published with it."""
    name, md5 = f"oxford_pets_{published}", MD5[published]
    path = find_file(name)
    if path is None:
        return download(name, URL + published, md5, REMEDY)
    found = pooch.file_hash(str(path), alg="md5")
    if found != md5:
        raise DataError(f"{path}: its MD5 is {found}; expected {md5}. Delete it and run again. {REMEDY}")
    return path


def _decoded(split, size):
    """Read a split's images and masks out of the archives; nothing is unpacked."""
    photographs, annotations = map(_archive, MD5)
    [(_, content)] = _members(annotations, {LISTS[split]: 0})
    names = [line.split()[0] for line in content.decode("ascii").splitlines() if line.strip()]
    images = np.empty((len(names), 3, size, size), np.uint8)
    masks = np.empty((len(names), size, size), np.uint8)
    with progress_bar(2 * len(names), "Oxford-IIIT Pet", unit="file") as bar, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of palettes and metadata, which make no difference here
        trimaps = {f"annotations/trimaps/{name}.png": index for index, name in enumerate(names)}
        for index, content in _members(annotations, trimaps):
            masks[index] = LABELS[_central_square(Image.open(io.BytesIO(content)), size, Image.Resampling.NEAREST)]
            bar.update()
        pictures = {f"images/{name}.jpg": index for index, name in enumerate(names)}
        for index, content in _members(photographs, pictures):
            picture = Image.open(io.BytesIO(content)).convert("RGB")  # some .jpg are PNG or GIF
            images[index] = _central_square(picture, size, Image.Resampling.BOX).transpose(2, 0, 1)
            bar.update()
    return images, masks


def _members(path, wanted):
    """Yield the value and the content of every wanted member, in one pass."""
    with tarfile.open(path) as archive:
        for member in archive:
            if member.name in wanted:
                yield wanted[member.name], archive.extractfile(member).read()


def _central_square(picture, size, resampling):
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return np.asarray(picture.crop((left, top, left + side, top + side)).resize((size, size), resampling))


def _read_kept(path, made_from):
    try:
        with np.load(path, allow_pickle=False) as arrays:  # zipfile compares the CRC of each array
            if arrays["made_from"] == made_from:
                return arrays["images"], arrays["masks"]
    except Exception:  # whatever is wrong with the file, it is made anew
        pass
    return None
