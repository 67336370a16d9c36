"""Read a notebook, take out what differs between two runs of the same code, write it as text."""

import base64
import hashlib
import re
from itertools import groupby

import nbformat

__all__ = ["IGNORED_TAG", "NotebookError", "dumps", "loads", "measurement_key", "normalise", "tags", "where"]

IGNORED_TAG = "nbval-ignore-output"
KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
TRANSIENT_METADATA = ("execution", "ExecuteTime", "executionInfo", "collapsed", "scrolled")
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
EXPLORER = re.compile("<!-- explorer -->.*?<!-- /explorer -->", re.DOTALL)
OVERWRITTEN = re.compile(r"^.*\r(?=[^\n])", re.MULTILINE)  # as nbval reads a carriage return


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
    """Read a notebook of any version, giving every cell that lacks an id of its own a new one.

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
        notebook = nbformat.v4.upgrade(nbformat.convert(nbformat.reader.reads(text), 4))
        _, notebook = nbformat.validator.normalize(notebook)
        nbformat.validate(notebook)
    except (AttributeError, TypeError, ValueError, nbformat.ValidationError) as error:
        reason = str(error).split("\n")[0]
        raise NotebookError(f"{name}: not a notebook ({reason}); restore it or save it again from Jupyter") from error
    return notebook


def dumps(notebook):
    """Write a notebook as text: one-space indent, sorted keys, Unicode as it is, one final line feed."""
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def _plain_png(data):
    """Drop a PNG's text and time chunks, which name the program and its version but draw nothing."""
    image = base64.b64decode(data)
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
    """Join neighbouring pieces of a stream and apply carriage returns."""
    merged = []
    for stream, pieces in groupby(outputs, key=lambda output: output.get("name")):
        if stream is None:
            merged += pieces
        else:
            text = OVERWRITTEN.sub("", "".join(piece.text for piece in pieces))
            merged.append(nbformat.v4.new_output("stream", name=stream, text=text))
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
            data = output.get("data", {})
            if "image/png" in data:
                data["image/png"] = _plain_png(data["image/png"])
            if "text/html" in data:  # its settings and its picture stay, so a change of the script changes no notebook
                data["text/html"] = EXPLORER.sub("", data["text/html"])
            if "text/html" in data:  # what stands there without a kernel
                data.pop(WIDGET_VIEW, None)
            if WIDGET_VIEW in data:
                view = data[WIDGET_VIEW]
                view["model_id"] = models.setdefault(view["model_id"], f"{len(models) + 1:032x}")
    return notebook
