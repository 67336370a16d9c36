"""A Sphinx extension: serve MathJax from the site itself, so that formulas need no network.

The files come from the package `sphinx-mathjax-offline`, whose own extension would copy all of its 11 MB and choose a
build that fetches parts at run time; two things are enough: the full script and its fonts.
"""

import shutil
from importlib.metadata import distribution
from pathlib import Path

SCRIPT = "tex-chtml-full.js"
FONTS = "output/chtml/fonts/woff-v2"


def copy_mathjax(app, exception):
    """Copy the script and its fonts into `_static/mathjax` when the pages are written."""
    if exception is not None or app.builder.format != "html":
        return
    source = Path(distribution("sphinx-mathjax-offline").locate_file("sphinx-mathjax-offline/static/mathjax"))
    target = Path(app.outdir, "_static", "mathjax")
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(source / SCRIPT, target / SCRIPT)
    shutil.copytree(source / FONTS, target / FONTS, dirs_exist_ok=True)


def setup(app):
    """Register with Sphinx; a relative mathjax_path is looked up in `_static`."""
    app.config.mathjax_path = f"mathjax/{SCRIPT}"
    app.connect("build-finished", copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
