"""What everything in the book may need: checked arguments, a mode for a while, a progress bar, files."""

import os
import shutil
import uuid
from contextlib import contextmanager
from operator import index
from pathlib import Path

import numpy as np
import pooch
import torch
from tqdm.auto import tqdm

__all__ = ["cache_folder", "check_choice", "checked_int", "mode", "progress_bar", "write_whole"]

DELAY = 2  # seconds until a bar is shown of what is mostly over sooner


def checked_int(name, value, *, at_least):
    """Return an integer argument as an int, or say what is wrong with it.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    value : int
        NumPy's integers count, bools and tensors do not.
    at_least : int

    Returns
    -------
    int

    Raises
    ------
    TypeError
        If it is not an integer.
    ValueError
        If it is too small.

    Examples
    --------
    >>> checked_int("steps", np.int64(5), at_least=1)
    5
    >>> checked_int("steps", 0, at_least=1)
    Traceback (most recent call last):
    ...
    ValueError: steps=0 must be an int of at least 1
    """
    message = f"{name}={value!r} must be an int of at least {at_least}"
    try:
        number = None if isinstance(value, (bool, np.bool_, torch.Tensor)) else index(value)
    except TypeError:
        number = None
    if number is None:
        raise TypeError(message)
    if number < at_least:
        raise ValueError(message)
    return number


def check_choice(name, value, accepted):
    """Refuse an argument that is none of the accepted values, of which there are two or more, by a ValueError.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    value : object
    accepted : sequence of str
    """
    if value not in accepted:
        raise ValueError(f"{name}={value!r} must be one of {', '.join(map(repr, accepted))}")


@contextmanager
def mode(model, *, training):
    """Put a model into train or eval mode for a while; afterwards every module has the mode it came with.

    Parameters
    ----------
    model : torch.nn.Module
    training : bool
    """
    before = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, was_training in before:
            module.training = was_training


def progress_bar(over, label=None, *, unit="step", done=0, delay=0, shown=True):
    """Make a progress bar, which no stored output shows.

    Parameters
    ----------
    over : int or iterable
        How many there are, or what to go through.
    label, unit : str, optional
    done : int
        How many are done at the start.
    delay : float
        Seconds until it appears.
    shown : bool
        TQDM_DISABLE=1 in the environment hides it all the same, and so does pytest, which compares outputs.

    Returns
    -------
    tqdm.tqdm
        An iterator, or a context manager with `update`.
    """
    # In a notebook tqdm.auto doesn't look at TQDM_DISABLE by itself; nbval's kernels inherit pytest's PYTEST_VERSION.
    hidden = not shown or os.environ.get("TQDM_DISABLE", "0") not in ("", "0") or "PYTEST_VERSION" in os.environ
    settings = dict(initial=done, desc=label, unit=unit, delay=delay, mininterval=0.5, leave=False, disable=hidden)
    return tqdm(total=over, **settings) if isinstance(over, int) else tqdm(over, **settings)


def cache_folder():
    """Name the folder for everything that the book keeps: downloads, what is decoded of them, checkpoints.

    Returns
    -------
    pathlib.Path
        What the environment variable UPCONV_CACHE names, if it is set and not empty; else the system's folder for such
        files: on Linux `upconv` in XDG_CACHE_HOME, or `.cache/upconv` in the home folder. It may not exist yet.

    Examples
    --------
    >>> cache_folder().name == "upconv" or "UPCONV_CACHE" in os.environ
    True
    """
    chosen = os.environ.get("UPCONV_CACHE")
    return Path(chosen).expanduser() if chosen else pooch.os_cache("upconv")


def write_whole(path, write):
    """Write a file; whenever the process ends, the path has either all of the new content or what it had before.

    Parameters
    ----------
    path : pathlib.Path
        Its folder is made if it is missing.
    write : callable
        Called with a binary file that is open for writing.

    Raises
    ------
    OSError
        If the folder or the file cannot be written; what `write` raises goes through. The path is then as before.

    Notes
    -----
    A file that is there keeps its permissions; of a link the file it leads to is written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "new" / "numbers"
    ...     write_whole(path, lambda file: file.write(b"1 2 3"))
    ...     path.read_bytes(), len(list(path.parent.iterdir()))
    (b'1 2 3', 1)
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with open(temporary, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
