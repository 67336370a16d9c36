"""What a chapter's notebook must satisfy that nbval cannot see.

``problems`` judges one notebook, ``file_problems`` its file, ``book_problems`` all files together.
Each returns sentences that name the file, the cell and the value and say what to do.
"""

import copy
import json
import re
from itertools import pairwise
from pathlib import Path

from IPython.core.displayhook import DisplayHook
from IPython.core.inputtransformer2 import TransformerManager

from tools.notebooks.book_references import PARSER, TITLE, directive
from tools.notebooks.format import IGNORED_TAG, NotebookError, dumps, loads, measurement_key, normalise, tags, where

__all__ = ["book_problems", "file_problems", "problems"]

KNOWN_TAGS = set(
    """nbval-ignore-output nbval-check-output raises-exception nbval-raises-exception bootstrap
    hide-input hide-output hide-cell remove-input remove-output remove-cell remove-stdout remove-stderr
    scroll-output output_scroll full-width margin""".split()
)
MOST_IGNORED = 4
MOST_CODE_CELLS = 30
MOST_LINES = 25  # of a code cell that readers see
FOLDED = {"hide-input", "hide-cell", "remove-input", "remove-cell"}
FEWEST_WORDS, MOST_WORDS = 1000, 2400
RUN = "run `make notebooks`"
IMAGES = ("image/png", "image/svg+xml")
NBVAL_COMMENT = re.compile(r"#.*\b(NBVAL_[A-Z_]+|PYTEST_VALIDATE_IGNORE_OUTPUT)\b")
ASSERTION = re.compile(r"^\s*(assert\b|torch\.testing\.assert_close\()", re.MULTILINE)
ADDRESS = re.compile(r"\b0x7f[0-9a-f]+|\bat 0x[0-9a-f]+", re.IGNORECASE)
ABSOLUTE_PATH = re.compile(r"(?<![\w.])/(?:home|tmp|work|root|usr|opt|var|mnt|content|Users)/[^\s'\"]*|\b[C-E]:\\\S*")
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def problems(notebook, name):
    """Judge a notebook.

    Parameters
    ----------
    notebook : nbformat.NotebookNode
    name : str
        Its file's name; the length of the text is judged for names such as ``01_sizes.ipynb`` only.

    Returns
    -------
    list of str
        One sentence for each problem; empty if there is none.
    """
    found = [*_whole(notebook, name), *_headings(notebook, name), *_ignored_cells(notebook, name)]
    count = 0
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        at = where(notebook, index, name)
        if cell.source.strip():
            count += 1
            found += [f"{at}: {problem}" for problem in _count(cell, count)]
        for check in (_tags, _source, _outputs, _figure):
            found += [f"{at}: {problem}" for problem in check(cell)]
    return found


def file_problems(path):
    """Judge a notebook's file: its notebook, and that its bytes are those that the tool writes.

    Parameters
    ----------
    path : pathlib.Path

    Returns
    -------
    list of str
    """
    text = Path(path).read_bytes().decode("utf-8")
    try:
        notebook = loads(text, Path(path).name)
    except NotebookError as error:
        return [str(error)]
    found = problems(notebook, Path(path).name)
    if not found and dumps(notebook) != text:
        found.append(f"{Path(path).name}: the file is not as the tool writes it; {RUN} --format-only")
    return found


def book_problems(paths):
    """Judge what concerns several notebooks: that no two figures share a name.

    Parameters
    ----------
    paths : iterable of pathlib.Path

    Returns
    -------
    list of str
    """
    found, first = [], {}
    for path in paths:
        notebook = loads(Path(path).read_text(encoding="utf-8"), Path(path).name)
        for index, cell in enumerate(notebook.cells):
            figure = cell.metadata.get("mystnb", {}).get("figure", {}).get("name")
            at = where(notebook, index, Path(path).name)
            if figure and figure in first:
                found.append(f"{at}: figure name {figure!r} is already that of {first[figure]}; choose another")
            first.setdefault(figure, at)
    return found


def _whole(notebook, name):
    if dumps(normalise(copy.deepcopy(notebook))) != dumps(notebook):
        yield f"{name}: holds what differs between runs (ids, timing, widgets, streams in pieces); {RUN} --format-only"
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    if len(code) > MOST_CODE_CELLS:
        yield f"{name}: {len(code)} code cells, more than {MOST_CODE_CELLS}; merge or move some"
    if not any(ASSERTION.search(source) for source in code):
        yield f"{name}: no cell asserts anything; add an `assert` or `torch.testing.assert_close`"
    if re.match(r"\d\d[a-z]?_", name):
        text = (token.content for token in _prose(notebook) if token.type == "inline")
        words = sum(bool(re.search(r"\w", word)) for piece in text for word in piece.split())
        if not FEWEST_WORDS <= words <= MOST_WORDS:
            yield f"{name}: {words} words of text; a chapter has {FEWEST_WORDS} to {MOST_WORDS}"


def _prose(notebook):
    """Yield the Markdown's tokens, those inside theorems and proofs too."""
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    for text in texts:
        for token in PARSER.parse(text):
            yield token
            name, _, _, body = directive(token)
            if name.startswith("prf:"):
                texts.append(body)


def _headings(notebook, name):
    tokens = list(_prose(notebook))
    headings = [(int(token.tag[1]), after.content) for token, after in pairwise(tokens) if token.type == TITLE[0]]
    titles = sum(level == 1 for level, _ in headings)
    if titles != 1:
        yield f"{name}: {titles} first-level headings (#); a notebook has exactly one"
    for (above, _), (level, text) in pairwise([(0, ""), *headings]):
        if level > above + 1:
            yield f"{name}: heading {text!r} skips a level; use {'#' * (above + 1)!r}"


def _ignored_cells(notebook, name):
    code = [(i, cell) for i, cell in enumerate(notebook.cells) if cell.cell_type == "code" and cell.source.strip()]
    ignored = [i for i, cell in code if IGNORED_TAG in tags(cell)]
    if len(ignored) > MOST_IGNORED:
        yield f"{name}: {len(ignored)} cells tagged {IGNORED_TAG}, more than {MOST_IGNORED}; check some outputs"
    for (index, cell), (_, after) in zip(code, [*code[1:], (None, None)], strict=True):
        if IGNORED_TAG not in tags(cell):
            continue
        at = where(notebook, index, name)
        unchecked = after is None or IGNORED_TAG in tags(after)
        if unchecked or not (after.outputs or ASSERTION.search(after.source)):
            yield f"{at}: output is ignored and the next code cell checks nothing; assert there what must hold"
        if cell.metadata.get("measured") != measurement_key(notebook, index):
            yield f"{at}: the code changed since this output was measured; {RUN}"


def _count(cell, expected):
    if cell.execution_count is None:
        yield f"was never run; {RUN}"
    elif cell.execution_count != expected:
        yield f"has execution count {cell.execution_count} where {expected} comes in order; {RUN}"
    for output in cell.outputs:
        if output.output_type == "execute_result" and output.execution_count != expected:
            yield f"result is numbered {output.execution_count} where {expected} comes in order; {RUN}"


def _tags(cell):
    for tag in tags(cell):
        if tag not in KNOWN_TAGS:
            yield f"unknown tag {tag!r}; use one of {', '.join(sorted(KNOWN_TAGS))}"


def _source(cell):
    lines = len(cell.source.splitlines())
    if lines > MOST_LINES and not FOLDED & set(tags(cell)):
        yield f"{lines} lines of code in sight, more than {MOST_LINES}; cut it where a step ends or tag it 'hide-input'"
    for marker in NBVAL_COMMENT.findall(cell.source):
        yield f"comment {marker} is shown to readers; use the tag {marker.lower().replace('_', '-')!r}"
    if DisplayHook.semicolon_at_end_of_expression(TransformerManager().transform_cell(cell.source)):
        yield "ends with ';', which nbval does not heed; assign the value to `_` instead"


def _outputs(cell):
    for output in cell.outputs:
        if output.get("name") == "stderr":
            yield f"stored stderr {output.text[:60]!r}; remove its cause"
        if output.output_type == "error" and "raises-exception" not in tags(cell):
            yield f"stored error {output.ename}: {output.evalue}; correct the cell or tag it 'raises-exception'"
        data = {kind: value for kind, value in output.get("data", {}).items() if kind != "image/png"}
        texts = [output.get("text", ""), *output.get("traceback", []), output.get("evalue", "")]
        texts += [value if isinstance(value, str) else json.dumps(value) for value in data.values()]
        for text in texts:
            for pattern, what, advice in (
                (ADDRESS, "memory address", "print something that every run repeats"),
                (ABSOLUTE_PATH, "absolute path", "print a path relative to the book, or catch the error and print it"),
                (ANSI, "terminal colour code", "print plain text"),
            ):
                if match := pattern.search(text):
                    yield f"output holds the {what} {match[0]!r}; {advice}"
        if "it/s]" in data.get("text/plain", ""):
            yield "output holds a progress bar; use `upconv.book.common.progress_bar`, which TQDM_DISABLE silences"


def _figure(cell):
    if not any(kind in output.get("data", {}) for output in cell.outputs for kind in IMAGES):
        return
    mystnb = cell.metadata.get("mystnb", {})
    for group, key in (("image", "alt"), ("figure", "caption"), ("figure", "name")):
        if not str(mystnb.get(group, {}).get(key, "")).strip():
            yield f"draws an image but the cell's metadata has no mystnb.{group}.{key}; add it"
    figure = str(mystnb.get("figure", {}).get("name", ""))
    if figure and not figure.startswith("fig-"):
        yield f"figure name {figure!r} does not begin with 'fig-'; rename it"
