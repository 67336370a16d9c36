"""What a chapter's notebook must satisfy that nbval cannot see.

``problems`` judges one notebook, ``file_problems`` its file, ``book_problems`` all files together.
Each returns sentences that name the file, the cell and the value and say what to do.
"""

import copy
import io
import json
import re
import tokenize
from pathlib import Path

from notebook_format import (
    ANSI,
    IGNORED_TAG,
    WIDGET_VIEW,
    NotebookError,
    dumps,
    loads,
    measurement_key,
    normalise,
    tags,
    where,
)

__all__ = ["book_problems", "file_problems", "problems"]

KNOWN_TAGS = set(
    """nbval-ignore-output nbval-check-output nbval-skip raises-exception nbval-raises-exception bootstrap
    hide-input hide-output hide-cell remove-input remove-output remove-cell remove-stdout remove-stderr
    scroll-output output_scroll full-width margin""".split()
)
MOST_IGNORED = 4
MOST_CODE_CELLS = 30
FEWEST_WORDS, MOST_WORDS = 1000, 2400
RUN = "run `python code/tools/notebooks.py`"
IMAGES = ("image/png", "image/svg+xml")
NBVAL_COMMENT = re.compile(r"#.*\b(NBVAL_[A-Z_]+|PYTEST_VALIDATE_IGNORE_OUTPUT)\b")
ASSERTION = re.compile(r"^\s*(assert\b|torch\.testing\.assert_close\()", re.MULTILINE)
ADDRESS = re.compile(r"\b0x7f[0-9a-f]+|\bat 0x[0-9a-f]+", re.IGNORECASE)
ABSOLUTE_PATH = re.compile(r"(?<![\w.])/(?:home|tmp|work|root|usr|opt|var|mnt|content|Users)/[^\s'\"]*|\b[C-E]:\\\S*")
FENCE = re.compile(r"\s{0,3}(`{3,}|~{3,}|:{3,})\s*(\S*)")
CODE_DIRECTIVE = re.compile(r"\{(code|code-block|code-cell|literalinclude|math|mermaid)\}")


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
    if "widgets" in notebook.metadata:
        yield f"{name}: metadata.widgets stores widget state; {RUN} --format-only"
    if dumps(normalise(copy.deepcopy(notebook))) != dumps(notebook):
        yield f"{name}: holds what differs between runs (ids, timing, streams in pieces); {RUN} --format-only"
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    if len(code) > MOST_CODE_CELLS:
        yield f"{name}: {len(code)} code cells, more than {MOST_CODE_CELLS}; merge or move some"
    if not any(ASSERTION.search(source) for source in code):
        yield f"{name}: no cell asserts anything; add an `assert` or `torch.testing.assert_close`"
    if re.match(r"\d\d_", name):
        words = sum(bool(re.search(r"\w", word)) for line, _ in _prose(notebook) for word in line.split())
        if not FEWEST_WORDS <= words <= MOST_WORDS:
            yield f"{name}: {words} words of text; a chapter has {FEWEST_WORDS} to {MOST_WORDS}"


def _prose(notebook):
    """Yield the Markdown lines outside code blocks, and how many directives each is inside."""
    for cell in notebook.cells:
        fences = []  # (marker, whether its content is code)
        for line in cell.source.splitlines() if cell.cell_type == "markdown" else []:
            fence = FENCE.match(line)
            if fence is None:
                if not (fences and fences[-1][1]):
                    yield line, len(fences)
            elif fences and not fence[2] and fence[1].startswith(fences[-1][0]):
                fences.pop()
            elif not (fences and fences[-1][1]):
                code = not fence[2].startswith("{") or bool(CODE_DIRECTIVE.match(fence[2]))
                fences.append((fence[1], code and fence[1][0] != ":"))


def _headings(notebook, name):
    headings = [line for line, depth in _prose(notebook) if depth == 0 and re.match(r"#{1,6}\s", line)]
    levels = [len(line.split()[0]) for line in headings]
    if levels.count(1) != 1:
        yield f"{name}: {levels.count(1)} first-level headings (#); a notebook has exactly one"
    for line, level, above in zip(headings, levels, [0, *levels], strict=False):
        if level > above + 1:
            yield f"{name}: heading {line!r} skips a level; use {'#' * (above + 1)!r}"


def _ignored_cells(notebook, name):
    code = [(i, cell) for i, cell in enumerate(notebook.cells) if cell.cell_type == "code" and cell.source.strip()]
    ignored = [i for i, cell in code if IGNORED_TAG in tags(cell)]
    if len(ignored) > MOST_IGNORED:
        yield f"{name}: {len(ignored)} cells tagged {IGNORED_TAG}, more than {MOST_IGNORED}; check some outputs"
    for (index, cell), (_, after) in zip(code, [*code[1:], (None, None)], strict=True):
        if IGNORED_TAG not in tags(cell):
            continue
        at = where(notebook, index, name)
        unchecked = after is None or {IGNORED_TAG, "nbval-skip"} & set(tags(after))
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
        elif tag == "nbval-skip":
            yield f"tag 'nbval-skip' leaves the cell out of the tests; use {IGNORED_TAG!r} at most"


def _source(cell):
    for marker in NBVAL_COMMENT.findall(cell.source):
        yield f"comment {marker} is shown to readers; use the tag {marker.lower().replace('_', '-')!r}"
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.DEDENT, tokenize.ENDMARKER)
    try:
        tokens = [
            token.string
            for token in tokenize.generate_tokens(io.StringIO(cell.source).readline)
            if token.type not in skipped
        ]
    except (tokenize.TokenError, SyntaxError):  # an IPython command such as `!ls`
        tokens = [cell.source.rstrip()[-1:]]
    if tokens and tokens[-1] == ";":
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
        if WIDGET_VIEW in data and "it/s]" in data.get("text/plain", ""):
            yield "output holds a progress bar; import `tqdm` from tqdm, as TQDM_DISABLE does not silence tqdm.auto"


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
