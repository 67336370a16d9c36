"""Build the book's site: into a clean folder, with warnings as errors and every reference checked.

A clean folder, since Sphinx reports a warning once: a second build over a failed one would pass. Nothing is run, so it
takes seconds. `tools.site.pages` then finishes the pages. The buttons of a chapter lead to its copy that runs by
itself, of `tools.notebooks.standalone`, which takes the place of the chapter's source in the site. Pages with an
interactive figure get its script, without which notebooks are stored.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from tools.notebooks import standalone
from tools.site import pages

__all__ = ["build", "main", "with_explorer"]

ROOT = Path(__file__).resolve().parents[3]
EXPLORER = ROOT / "code" / "upconv" / "explorer.js"


def build(root=ROOT):
    """Build the site.

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
        If Jupyter Book fails or warns, or a formula or a chapter's copy can't be made. Whatever is raised, no site is
        left behind.
    """
    output = root / "_build" / "html"
    for leftover in ("html", ".doctrees", "jupyter_execute", ".jupyter_cache"):
        shutil.rmtree(root / "_build" / leftover, ignore_errors=True)
    jupyter_book = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", jupyter_book, "build", str(root), "-W", "-n", "--keep-going"]
    try:
        subprocess.run(command, check=True)
        pages.finish(output)
        for path in standalone.write(root):
            shutil.copy(path, output / "_sources" / "chapters" / path.name)
        for path in output.glob("chapters/*.html"):
            page = path.read_text(encoding="utf-8")
            if (live := with_explorer(page)) != page:
                path.write_text(live, encoding="utf-8", newline="\n")
    except BaseException:
        shutil.rmtree(output, ignore_errors=True)
        raise
    return output


def with_explorer(page):
    """Put the interactive figure's script at the end of a page that has such a figure.

    Inside the page, since browsers load no module from a file of its own where the page is opened from the disk. The
    package has the two files; it cannot be imported here, where torch need not be.

    Parameters
    ----------
    page : str
        HTML.

    Returns
    -------
    str
    """
    if 'class="upconv-explorer"' not in page:
        return page
    body, end, rest = page.rpartition("</body>")
    style, script = (EXPLORER.with_suffix(suffix).read_text(encoding="utf-8") for suffix in (".css", ".js"))
    live = f'<style>\n{style}</style>\n<script type="module">\n{script}\nmount(true);\n</script>\n'
    return f"{body}{live}{end}{rest}"


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
