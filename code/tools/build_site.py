"""Build the HTML site strictly, once for every state of its sources.

`python code/tools/build_site.py` builds `_build/html` with warnings as errors and every reference checked, into a clean
folder (Sphinx reports a warning once, so a second build over a failed one would pass), and does nothing if the site
is up to date: a sum over all its sources is kept beside it. The buttons of a chapter lead to its copy that runs by
itself, of `standalone.py`, which takes the place of the chapter's source in the site.
"""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import standalone

__all__ = ["build", "main", "sources"]

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    "_config.yml",
    "_toc.yml",
    "references.bib",
    "requirements.txt",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "data/*.npz",
    "data/results/*.csv",
    "chapters/*.*",
    "_static/**/*.*",
    "_extra/**/*.*",
    "code/upconv/**/*.*",
    "code/tools/*.py",
]


def sources(root=ROOT):
    """List the files that the site is made of."""
    paths = {path for pattern in SOURCES for path in root.glob(pattern) if path.is_file()}
    return sorted(path for path in paths if path.suffix != ".pyc")


def fingerprint(root=ROOT):
    """Give one SHA-256 over the names and contents of all sources."""
    total = hashlib.sha256(sys.version.encode())
    for path in sources(root):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    return total.hexdigest()


def build(root=ROOT):
    """Build the site if it isn't up to date.

    Parameters
    ----------
    root : pathlib.Path
        The book: the folder of `_config.yml`.

    Returns
    -------
    pathlib.Path
        `_build/html` under root, complete.

    Raises
    ------
    subprocess.CalledProcessError, ValueError
        If Jupyter Book fails or warns, or a chapter's copy can't be made; then no site is left behind.
    """
    output, stamp, sum_now = root / "_build" / "html", root / "_build" / "html.sha256", fingerprint(root)
    if (output / "index.html").is_file() and stamp.is_file() and stamp.read_text() == sum_now:
        print("The site is up to date.")
        return output
    stamp.unlink(missing_ok=True)
    for leftover in ("html", ".doctrees", "jupyter_execute", ".jupyter_cache"):
        shutil.rmtree(root / "_build" / leftover, ignore_errors=True)
    jupyter_book = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", jupyter_book, "build", str(root), "-W", "-n", "--keep-going"]
    try:
        subprocess.run(command, check=True)
        for path in standalone.write(root):
            shutil.copy(path, output / "_sources" / "chapters" / path.name)
    except (subprocess.CalledProcessError, ValueError):
        shutil.rmtree(output, ignore_errors=True)
        raise
    stamp.write_text(sum_now)
    return output


def main():
    """Build, then say where the site is and how to open it."""
    try:
        output = build()
    except subprocess.CalledProcessError as error:
        sys.exit(f"The site was not built (exit status {error.returncode}): the lines marked WARNING or ERROR say why.")
    except ValueError as error:
        sys.exit(f"The site was not built: {error}")
    print(f"\nThe book:  {output / 'index.html'}\nOpen it in a browser:  {(output / 'index.html').as_uri()}")
    print("Or serve it on this machine:  make serve")


if __name__ == "__main__":
    main()
