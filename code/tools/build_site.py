"""Build the HTML site strictly, once for every state of its sources.

`python code/tools/build_site.py` builds `_build/html` with warnings as errors and every reference checked, into a clean
folder (Sphinx reports a warning once, so a second build over a failed one would pass), and does nothing if the site
is up to date: a sum over all its sources is kept beside it.
"""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["build", "main", "sources"]

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    "_config.yml",
    "_toc.yml",
    "references.bib",
    "requirements.txt",
    "chapters/*.*",
    "_static/**/*.*",
    "_extra/**/*.*",
    "code/upconv/**/*.py",
    "code/tools/build_site.py",
    "code/tools/offline_mathjax.py",
]


def sources(root=ROOT):
    """List the files that the site is made of."""
    return sorted({path for pattern in SOURCES for path in root.glob(pattern) if path.is_file()})


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
    subprocess.CalledProcessError
        If Jupyter Book fails or warns; then no site is left behind.
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
    except subprocess.CalledProcessError:
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
    print(f"\nThe book:  {output / 'index.html'}\nOpen it in a browser:  {(output / 'index.html').as_uri()}")
    print("Or serve it on this machine:  make serve")


if __name__ == "__main__":
    main()
