"""Write every chapter as one notebook that runs anywhere: the module and the data inside, nothing installed or fetched.

`make standalone` writes `_build/standalone/NN_topic.ipynb`. In each the cell that looks for `upconv` in
a clone gives way to one that unpacks it: a wheel, and the small data if the chapter reads them, as base64 with their
SHA-256. Text is plain Markdown, links lead to the site. The same sources give the same bytes.
"""

import ast
import base64
import hashlib
import io
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import nbformat
import yaml

from tools.notebooks.format import dumps, loads, tags
from tools.notebooks.plain_markdown import plain_markdown, read_references

__all__ = ["build_wheel", "data_files", "main", "repository", "set_up_source", "site_address", "standalone", "write"]

ROOT = Path(__file__).resolve().parents[3]
# Which of the package's modules read what of the folder data/.
READERS = {
    "fashion_mnist_mini.npz": {"data", "scenes", "tasks"},
    "results/*.csv": {"comparison", "results"},
    "watching_*": {"watching"},
}
SET_UP = '''\
# @title Set-up (run this cell first): unpacks the module upconv{and_data}; nothing is installed or fetched
import atexit
import base64
import contextlib
import hashlib
import io
import os
import shutil
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from platformdirs import user_cache_path


def unpack(archives):
    """Unpack the archives into a temporary folder, which goes when the kernel ends, and put the code on sys.path."""
    cache = Path(os.environ.get("UPCONV_CACHE") or user_cache_path("upconv")).expanduser().absolute()
    cache.mkdir(parents=True, exist_ok=True)
    for old in cache.glob("standalone-*"):  # of kernels that were killed
        with contextlib.suppress(OSError):  # another kernel may remove it at this moment
            if time.time() - old.stat().st_mtime > 7 * 24 * 3600:
                shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix="standalone-", dir=cache))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name, (sha256, text) in archives.items():
        try:
            content = base64.b64decode(text)
        except ValueError:  # a character is missing
            content = b""
        if hashlib.sha256(content).hexdigest() != sha256:
            raise RuntimeError("this notebook is damaged: get it again from {site}")
        zipfile.ZipFile(io.BytesIO(content)).extractall(folder / name)
    sys.path.insert(0, str(folder / "code"))


if "upconv" not in sys.modules:
    unpack(
        {{
{archives}
        }}
    )
'''


def repository(root=ROOT):
    """Give the address of the repository, the one line of `_config.yml` that a fork changes.

    Raises
    ------
    ValueError
        If it is not `https://github.com/OWNER/NAME`.
    """
    address = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]
    if not re.fullmatch("https://github.com/[^/]+/[^/]+", address):
        raise ValueError(f"_config.yml: repository: url: {address} must be https://github.com/OWNER/NAME")
    return address


def site_address(root=ROOT):
    """Give the address of the published site, that of the repository's GitHub Pages; it ends in a slash."""
    owner, name = repository(root).split("/")[-2:]
    host = f"{owner.lower()}.github.io"
    return f"https://{host}/" if name.lower() == host else f"https://{host}/{name}/"  # the first is an owner's own site


def build_wheel(root=ROOT):
    """Build the package `upconv`.

    Returns
    -------
    bytes
        A wheel, the same for the same sources wherever and whenever it is built (with the setuptools that
        requirements.txt pins, whose name is in it, and the zlib that Python comes with).

    Raises
    ------
    subprocess.CalledProcessError
        If pip fails; it has said why.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, wheels = Path(folder, "source"), Path(folder, "wheels")
        no_cache = shutil.ignore_patterns("__pycache__")
        shutil.copytree(root / "code" / "upconv", source / "code" / "upconv", ignore=no_cache)
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(root / name, source / name)
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
        command += ["--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", wheels, source]
        subprocess.run(command, check=True)
        (wheel,) = wheels.iterdir()
        with zipfile.ZipFile(wheel) as archive:
            return _archive({name: archive.read(name) for name in archive.namelist()})


def data_files(notebook, root=ROOT):
    """Find what a chapter's code reads of the folder `data`, by the modules of `upconv.book` that it imports.

    Returns
    -------
    dict of str to bytes
        By the names in that folder.
    """
    code = [ast.parse(cell.source) for cell in notebook.cells if cell.cell_type == "code"]
    imports = [node for tree in code for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    lines = [line for line in map(ast.unparse, imports) if "upconv.book" in line]
    names = set(re.findall(r"\w+", " ".join(lines)))
    patterns = [pattern for pattern, readers in READERS.items() if readers & names]
    paths = sorted(path for pattern in patterns for path in (root / "data").glob(pattern))
    return {path.relative_to(root / "data").as_posix(): path.read_bytes() for path in paths}


def set_up_source(wheel, data, site):
    """Write the cell that unpacks the package and the data.

    Parameters
    ----------
    wheel : bytes
        As of `build_wheel`.
    data : dict of str to bytes
        As of `data_files`.
    site : str
        Where the reader gets the notebook again if it is damaged.

    Returns
    -------
    str
    """
    archives = {"code": wheel, **({"data": _archive(data)} if data else {})}
    lines = [
        f'            "{name}": ("{hashlib.sha256(content).hexdigest()}", "{base64.b64encode(content).decode()}"),'
        for name, content in archives.items()
    ]
    and_data = " and the data" if data else ""
    return SET_UP.format(and_data=and_data, site=site, archives="\n".join(lines)).rstrip("\n")


def standalone(path, wheel, references, root=ROOT):
    """Make the copy of a chapter that runs by itself.

    Parameters
    ----------
    path : pathlib.Path
        The chapter's notebook.
    wheel : bytes
        As of `build_wheel`.
    references
        As of `plain_markdown.read_references`.
    root : pathlib.Path

    Returns
    -------
    nbformat.NotebookNode

    Raises
    ------
    ValueError
        If the text has a construct that plain Markdown lacks, or the notebook not one cell with the tag `bootstrap`.
    """
    notebook = loads(path.read_text(encoding="utf-8"), path.name)
    site, page = site_address(root), path.relative_to(root).with_suffix("").as_posix()
    first = [index for index, cell in enumerate(notebook.cells) if "bootstrap" in tags(cell)]
    if len(first) != 1:
        raise ValueError(f"{path.name}: {len(first)} cells with the tag bootstrap; a chapter has one")
    set_up, cells = notebook.cells[first[0]], []
    for cell in notebook.cells:
        cells.append(cell)
        if cell.cell_type == "markdown":
            cell.source = plain_markdown(cell.source, page=page, site=site, references=references)
            continue
        if {"hide-cell", "hide-input"} & set(tags(cell)):
            cell.metadata.update(cellView="form", jupyter={"source_hidden": True})
        if "hide-cell" in tags(cell) and cell.outputs:  # such as a solution
            cell.metadata.jupyter.outputs_hidden = cell.metadata.collapsed = True
        figure = cell.metadata.get("mystnb", {}).get("figure", {})
        if caption := figure.get("caption"):
            text = plain_markdown(caption, page=page, site=site, references=references)
            name = f"Fig. {references.figures[figure['name']][1]}"
            cells.append(nbformat.v4.new_markdown_cell(f"**{name}** {text}", id=f"{cell.id}-caption"[-64:]))
    notebook.cells = cells
    set_up.source = set_up_source(wheel, data_files(notebook, root), f"{site}{page}.html")
    notebook.metadata.colab = {"name": path.name, "provenance": [], "toc_visible": True}
    images = ""
    if any("this_machine" in cell.source for cell in notebook.cells if cell.cell_type == "code"):
        notebook.metadata.accelerator = "GPU"
        notebook.metadata.colab.gpuType = "T4"
        images = " but the images of the full tier, which a GPU gets and nobody has run on one"
    note = (
        f"*This copy of [a page of the book]({site}{page}.html) runs by itself: the next cell unpacks the module "
        f"`upconv`, and nothing is installed or fetched{images}. [More on running it]({site}chapters/running.html).*"
    )
    notebook.cells.insert(notebook.cells.index(set_up), nbformat.v4.new_markdown_cell(note, id="standalone"))
    return notebook


def write(root=ROOT, folder=None):
    """Write the copies of all chapters, into a clean folder.

    Parameters
    ----------
    root : pathlib.Path
        The book: the folder of `_config.yml`.
    folder : pathlib.Path, optional
        By default `_build/standalone` under root.

    Returns
    -------
    list of pathlib.Path
        The files; none, and no folder, if the book has no notebook.
    """
    folder = folder or root / "_build" / "standalone"
    shutil.rmtree(folder, ignore_errors=True)
    references = read_references(root)
    chapters = sorted(path for page in references.anchors if (path := root / f"{page}.ipynb").is_file())
    if not chapters:
        return []
    wheel = build_wheel(root)
    texts = {folder / path.name: dumps(standalone(path, wheel, references, root)) for path in chapters}
    folder.mkdir(parents=True)
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8", newline="\n")
    return list(texts)


def main():
    """Write the copies and say where they are."""
    try:
        paths = write()
    except (ValueError, subprocess.CalledProcessError) as error:
        sys.exit(str(error))
    for path in paths:
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1e6:.1f} MB")


def _archive(files):
    """Zip files so that the bytes depend on their names and contents alone."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in sorted(files.items()):
            entry = zipfile.ZipInfo(name)  # of 1980-01-01, the first day that a zip file knows
            entry.external_attr, entry.create_system = 0o100644 << 16, 3
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED, compresslevel=9)
    return content.getvalue()


if __name__ == "__main__":
    main()
