"""The one folder in which the book leaves files, and files that are written whole or not at all."""

import os
import tempfile
from pathlib import Path

__all__ = ["cache_folder", "write_whole"]


def cache_folder():
    """Name the folder for everything that the book keeps: downloads, what is decoded of them, checkpoints.

    Returns
    -------
    pathlib.Path
        What the environment variable UPCONV_CACHE names, if it is set and not empty; else `upconv` in the folder that
        XDG_CACHE_HOME names; else `.cache/upconv` in the home folder. It may not exist yet.

    Examples
    --------
    >>> cache_folder().name == "upconv" or "UPCONV_CACHE" in os.environ
    True
    """
    chosen = os.environ.get("UPCONV_CACHE")
    parent = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(chosen or Path(parent) / "upconv").expanduser()


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

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "new" / "numbers"
    ...     write_whole(path, lambda file: file.write(b"1 2 3"))
    ...     path.read_bytes(), len(list(path.parent.iterdir()))
    (b'1 2 3', 1)
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
