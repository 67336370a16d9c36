"""Read a notebook, take out what differs between two runs of the same code, write it as text."""

import base64
import binascii
import hashlib
import json
import re
from itertools import groupby

import nbformat

__all__ = [
    "ANSI",
    "IGNORED_TAG",
    "WIDGET_VIEW",
    "NotebookError",
    "dumps",
    "loads",
    "measurement_key",
    "normalise",
    "tags",
    "where",
]

IGNORED_TAG = "nbval-ignore-output"
KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
TRANSIENT_METADATA = ("execution", "ExecuteTime", "executionInfo", "collapsed", "scrolled")
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
OVERWRITTEN = re.compile(r"^.*\r(?=[^\n])", re.MULTILINE)  # as nbval reads a carriage return
CELL_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class NotebookError(Exception):
    """A notebook that cannot be found, read or run; the message names the file, the cell and the value."""


def tags(cell):
    """List a cell's tags."""
    return cell.metadata.get("tags", [])


def where(notebook, index, name):
    """Say where a cell is: file, 1-based position and first line."""
    first = notebook.cells[index].source.strip().split("\n")[0]
    return f"{name}: cell {index + 1} ({first[:40]!r})"


def loads(text, name):
    """Read a notebook, giving every cell that lacks a valid unique id a fixed one.

    Parameters
    ----------
    text : str
        The file's text.
    name : str
        What to call the file in an error.

    Returns
    -------
    nbformat.NotebookNode
    """
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise NotebookError(f"{name}: not JSON ({error}); restore the file or save it again from Jupyter") from error
    if not isinstance(raw, dict) or raw.get("nbformat") != 4 or not isinstance(raw.get("cells"), list):
        raise NotebookError(f"{name}: not a version 4 notebook; convert it with `jupyter nbconvert --to notebook`")
    taken = set()
    for cell in raw["cells"]:
        if not CELL_ID.fullmatch(str(cell.get("id", ""))) or cell["id"] in taken:
            content = f"{cell.get('cell_type')}\n{''.join(cell.get('source', ''))}"
            cell["id"] = stem = hashlib.sha256(content.encode()).hexdigest()[:8]
            copies = 1
            while cell["id"] in taken or any(
                other is not cell and other.get("id") == cell["id"] for other in raw["cells"]
            ):
                copies += 1
                cell["id"] = f"{stem}-{copies}"
        taken.add(cell["id"])
        for output in cell.get("outputs", []):
            output.pop("transient", None)
    raw["nbformat_minor"] = 5
    try:
        nbformat.validate(raw)
    except nbformat.ValidationError as error:
        raise NotebookError(f"{name}: not a valid notebook: {error.message}; save it again from Jupyter") from error
    return nbformat.reads(json.dumps(raw), as_version=4)


def dumps(notebook):
    """Write a notebook as text: one-space indent, sorted keys, Unicode as it is, one final line feed."""
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def _plain_png(data):
    """Drop a PNG's text and time chunks, which name the program and its version but draw nothing."""
    try:
        image = base64.b64decode(data)
    except binascii.Error:
        return data
    if not image.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    kept, start = image[:8], 8
    while start < len(image):
        end = start + 12 + int.from_bytes(image[start : start + 4], "big")
        if image[start + 4 : start + 8] not in (b"tEXt", b"zTXt", b"iTXt", b"tIME"):
            kept += image[start:end]
        start = end
    return base64.b64encode(kept).decode()


def _merge_streams(outputs):
    """Join neighbouring pieces of stdout (then stderr) and apply carriage returns."""
    merged = []
    for is_stream, run in groupby(outputs, key=lambda output: output.output_type == "stream"):
        if not is_stream:
            merged += run
            continue
        pieces = list(run)
        for name in ("stdout", "stderr"):
            text = "".join(piece.text for piece in pieces if piece.name == name)
            if text:
                merged.append(nbformat.v4.new_output("stream", name=name, text=OVERWRITTEN.sub("", text)))
    return merged


def measurement_key(notebook, index):
    """Fingerprint the code up to and including a cell, by which a stored measurement is known to be current."""
    sources = [cell.source for cell in notebook.cells[: index + 1] if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()[:16]


def normalise(notebook):
    """Remove from a notebook, in place, what differs between two runs of the same code.

    Parameters
    ----------
    notebook : nbformat.NotebookNode

    Returns
    -------
    nbformat.NotebookNode
        The same notebook.
    """
    notebook.metadata.pop("widgets", None)
    notebook.metadata.kernelspec = dict(KERNELSPEC)
    notebook.metadata.language_info = {"name": "python"}
    models = {}
    for cell in notebook.cells:
        for key in TRANSIENT_METADATA:
            cell.metadata.pop(key, None)
        if IGNORED_TAG not in tags(cell):
            cell.metadata.pop("measured", None)
        if cell.cell_type != "code":
            continue
        cell.outputs = _merge_streams(cell.outputs)
        for output in cell.outputs:
            if output.output_type == "error":
                output.traceback = [ANSI.sub("", line) for line in output.traceback]
            data = output.get("data", {})
            if "image/png" in data:
                data["image/png"] = _plain_png(data["image/png"])
            if WIDGET_VIEW in data:
                view = data[WIDGET_VIEW]
                view["model_id"] = models.setdefault(view["model_id"], f"{len(models) + 1:032x}")
    return notebook
