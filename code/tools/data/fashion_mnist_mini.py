"""Make data/fashion_mnist_mini.npz from Fashion-MNIST's original files, or check it against them.

The subset is the first 500 images of each class in the training file and the first 100 of each in the test file. The
k-th images of the ten classes stand together, each such ten in its order in the original file, so that any run of
images that starts and ends at a multiple of ten holds each class equally often. No random numbers are drawn.

The same arrays give the same bytes on every run: numpy.savez_compressed dates every member 1980-01-01. Another version
of zlib or NumPy may compress or frame them differently, so --check compares the arrays, and apart from them the
file's own SHA-256, which upconv.book.data pins and data/README.md states.

Usage: python -m tools.data.fashion_mnist_mini [--source DIR] [--output FILE] [--check]
"""

import argparse
import hashlib
import io
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np

from upconv.book.data import (
    CLASSES,
    DEBIAN_FOLDER,
    MINI_SHA256,
    DataError,
    read_idx,
)

__all__ = ["build", "check", "digests", "main", "select"]

OUTPUT = Path(__file__).resolve().parents[3] / "data" / "fashion_mnist_mini.npz"


def select(labels: np.ndarray, count: int) -> np.ndarray:
    """Return the indices of the first ``count`` images of each class, one of each class in every run of ten.

    Parameters
    ----------
    labels : numpy.ndarray
        Shape (N,), the class of each image, 0 to 9.
    count : int
        How many images of each class to take.

    Returns
    -------
    numpy.ndarray
        Shape (10 * count,), int64, indices into ``labels``.

    Raises
    ------
    ValueError
        If a class has fewer than ``count`` images.

    Examples
    --------
    >>> select(np.array([3, 1, 1, 0, 2, 4, 9, 8, 7, 6, 5, 0]), 1).tolist()
    [0, 1, 3, 4, 5, 6, 7, 8, 9, 10]
    """
    fewest = np.bincount(labels, minlength=len(CLASSES)).min()
    if fewest < count:
        raise ValueError(f"count: expected at most {fewest}, the images of the rarest class, got {count}")
    firsts = np.stack([np.flatnonzero(labels == label)[:count] for label in range(len(CLASSES))])
    return np.sort(firsts, axis=0).T.reshape(-1)


def build(source: Path) -> dict[str, np.ndarray]:
    """Read the original files in the folder ``source`` and return the subset's four arrays by name."""
    arrays = {}
    for split, prefix, count in (("train", "train", 500), ("test", "t10k", 100)):
        images, labels = (read_idx(source / f"{prefix}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
        index = select(labels, count)
        arrays |= {f"{split}_images": images[index], f"{split}_labels": labels[index]}
    return arrays


def digests(arrays: dict[str, np.ndarray]) -> dict[str, str]:
    """Return for each array its dtype, shape and the SHA-256 of its values in C order, as one line of text."""
    return {
        name: f"{array.dtype} {array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"
        for name, array in arrays.items()
    }


def check(expected: dict[str, np.ndarray], path: Path) -> list[str]:
    """Return what is wrong with the file at ``path``, one line each; an empty list if nothing is."""
    try:
        content = path.read_bytes()
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            found = digests(dict(file))
    except (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        return [f"{path}: cannot be read as an .npz file ({error}); make it again without --check"]
    wanted = digests(expected)
    faults = [
        f"{path}: array {name} is {found.get(name, 'missing')}; expected {wanted.get(name, 'no such array')}"
        for name in sorted(wanted.keys() | found.keys())
        if found.get(name) != wanted.get(name)
    ]
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != MINI_SHA256:
        faults.append(f"{path}: SHA-256 is {sha256}; upconv.book.data pins {MINI_SHA256}, so change one of the two")
    return faults


def main(arguments: list[str] | None = None) -> int:
    """Make or check the file as the command line says and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=DEBIAN_FOLDER, help="folder of the four .gz files (%(default)s)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the .npz file (data/fashion_mnist_mini.npz)")
    parser.add_argument("--check", action="store_true", help="write nothing; say whether the file agrees")
    options = parser.parse_args(arguments)
    try:
        arrays = build(options.source)
    except DataError as error:
        print(error, file=sys.stderr)
        return 1
    if not options.check:
        np.savez_compressed(options.output, **arrays)
    for name, line in digests(arrays).items():
        print(f"{name}: {line}")
    faults = check(arrays, options.output)
    print("\n".join(faults) or f"{options.output}: agrees with the original files; SHA-256 {MINI_SHA256} as pinned")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
