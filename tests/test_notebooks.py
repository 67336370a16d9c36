"""The chapters' notebooks: the rules that nbval cannot see, and the tool that stores the outputs."""

import copy
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools.notebooks import run as notebooks
from tools.notebooks.format import dumps, loads, measurement_key, normalise, tags
from tools.notebooks.rules import book_problems, file_problems, problems

CHAPTERS = sorted((Path(__file__).parents[1] / "chapters").glob("*.ipynb"))
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
FIGURE = {"image": {"alt": "One dot."}, "figure": {"caption": "A dot.", "name": "fig-dot"}}
IGNORED = {"tags": ["nbval-ignore-output"]}
DOT_WITH_TEXT = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACnRFWHRTb2Z0d2FyZQB4So2/zgAAAApJREFUeJxj"
    "YAAAAAIAAUivpHEAAAAASUVORK5CYII="
)
DOT_WITHOUT_TEXT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
DOT = f"""from base64 import b64decode

from IPython.display import Image

Image(b64decode("{DOT_WITH_TEXT}"))
"""


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.name)
def test_chapter(path):
    assert not file_problems(path)


FOLDED = [path for path in CHAPTERS if ":::{dropdown} Hint" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", FOLDED, ids=lambda path: path.name)
def test_every_exercise_has_a_hint_a_solution_in_prose_and_one_in_code_and_the_last_is_a_bug(path):
    cells = loads(path.read_text(encoding="utf-8"), path.name).cells
    start = next(i for i, cell in enumerate(cells) if "## Exercises" in cell.source)
    parts, codes = [], []
    for cell in cells[start:]:
        if cell.cell_type == "markdown":
            parts += re.findall(r"^\*\*\d\.|Find the bug\.|:::\{dropdown\} .*", cell.source, re.MULTILINE)
        elif "hide-cell" in cell.metadata.get("tags", []):
            parts.append("code")
            codes.append(cell.metadata.mystnb.code_prompt_show)
    folds = [":::{dropdown} Hint", ":::{dropdown} Solution", "code"]
    last = len(codes)
    expected = [[f"**{n}.", *["Find the bug."] * (n == last), *folds] for n in range(1, last + 1)]
    assert parts == [part for exercise in expected for part in exercise]
    assert set(codes) == {"Show the solution's code"}
    assert re.search(r"^\*\*\d\. Find the bug\.\*\* ", "\n".join(cell.source for cell in cells), re.MULTILINE)


def test_chapters_together():
    assert not book_problems(CHAPTERS)


def save(path, cells):
    path.write_text(dumps(normalise(new_notebook(cells=cells))), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Keep every rule in as few cells as possible; run by the tool."""
    cells = [
        new_markdown_cell("# Tiny\n\n```python\n# no heading\n```\n\n## Part"),
        new_code_cell("total = sum(range(4))\nassert total == 6\nprint('total', total)"),
        new_code_cell("import time\n\nelapsed = time.perf_counter()\nelapsed", metadata=IGNORED),
        new_code_cell("assert elapsed > 0\ntotal / 4"),
        new_code_cell(DOT, metadata={"mystnb": FIGURE}),
    ]
    path = save(tmp_path_factory.mktemp("tiny") / "tiny.ipynb", cells)
    assert notebooks.main([str(path)]) == 0
    return path


@pytest.fixture
def tiny_copy(tiny, tmp_path):
    path = tmp_path / "tiny.ipynb"
    path.write_bytes(tiny.read_bytes())
    return path


@pytest.fixture
def good(tiny):
    return read(tiny)


def read(path):
    return loads(path.read_text(encoding="utf-8"), path.name)


def replace(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_good_notebook_has_no_problem(tiny):
    assert file_problems(tiny) == []


def stored_error(nb, **metadata):
    error = new_output("error", ename="ValueError", evalue="5 is odd", traceback=[])
    nb.cells[1].update(outputs=[error], metadata=metadata)


def result(text, kind="text/plain"):
    return [new_output("execute_result", {kind: text}, execution_count=1)]


UNCHECKED = "cell 3 ('import time'): output is ignored and the next code cell checks nothing"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda nb: nb.cells[1].update(execution_count=None), "cell 2 ('total = sum(range(4))'): was never run"),
        (lambda nb: nb.cells[1].update(execution_count=2), "has execution count 2 where 1 comes in order"),
        (lambda nb: nb.cells[3].outputs[0].update(execution_count=7), "result is numbered 7 where 3 comes in order"),
        (lambda nb: nb.cells[1].metadata.update(tags=["hide_input"]), "unknown tag 'hide_input'"),
        (lambda nb: nb.cells[1].metadata.update(tags=["nbval-skip"]), "unknown tag 'nbval-skip'"),
        (
            lambda nb: nb.cells[1].update(source='def f():\n    """Do it.\n\n    # NBVAL_IGNORE_OUTPUT\n    """'),
            "comment NBVAL_IGNORE_OUTPUT is shown to readers",
        ),
        (lambda nb: nb.cells[3].update(source="total / 4;  # quiet"), "ends with ';'"),
        (lambda nb: nb.cells[3].update(source="!echo (\ntotal;"), "ends with ';'"),
        (stored_error, "stored error ValueError: 5 is odd"),
        (lambda nb: nb.cells[1].outputs[0].update(name="stderr"), "stored stderr 'total 6"),
        (lambda nb: nb.cells[1].outputs[0].update(text="<Thing at 0xABC123>\n"), "memory address 'at 0xABC123'"),
        (lambda nb: nb.cells[1].update(outputs=result("0x7f00aa")), "memory address '0x7f00aa'"),
        (lambda nb: nb.cells[1].update(outputs=result("<b>/home/a</b>", "text/html")), "absolute path '/home/a"),
        (lambda nb: nb.cells[1].outputs[0].update(text="C:\\data\\x.npz\n"), "absolute path 'C:"),
        (lambda nb: nb.cells[1].outputs[0].update(text="\x1b[31mred\x1b[0m\n"), "terminal colour code"),
        (lambda nb: nb.cells[1].update(outputs=result("0/3 [00:00<?, ?it/s]")), "holds a progress bar"),
        (lambda nb: nb.cells[4].metadata.mystnb.image.update(alt=" "), "no mystnb.image.alt"),
        (lambda nb: nb.cells[4].metadata.mystnb.figure.pop("caption"), "no mystnb.figure.caption"),
        (lambda nb: nb.cells[4].metadata.clear(), "no mystnb.figure.name"),
        (lambda nb: nb.cells[4].metadata.mystnb.figure.update(name="dot"), "'dot' does not begin with 'fig-'"),
        (lambda nb: nb.cells[3].update(source="x = 1", outputs=[]), UNCHECKED),
        (lambda nb: nb.cells[3].update(metadata=IGNORED), UNCHECKED),
        (lambda nb: nb.update(cells=nb.cells[:3]), UNCHECKED),
        (lambda nb: nb.cells.extend([new_code_cell("1", metadata=IGNORED) for _ in "1234"]), "5 cells tagged nbval"),
        (lambda nb: nb.cells[1].update(source="print()"), "cell 3 ('import time'): the code changed since"),
        (lambda nb: nb.metadata.update(widgets={}), "holds what differs between runs"),
        (lambda nb: nb.cells[1].metadata.update(execution={}), "holds what differs between runs"),
        (lambda nb: [cell.update(source="x = 1") for cell in nb.cells[1:]], "no cell asserts anything"),
        (lambda nb: nb.cells.append(new_markdown_cell("# Another")), "2 first-level headings"),
        (lambda nb: nb.cells[0].update(source="# Tiny\n\n### Part"), "heading 'Part' skips a level"),
        (lambda nb: nb.cells.extend([new_code_cell("x = 1") for _ in range(30)]), "34 code cells, more than 30"),
    ],
)
def test_rule_rejects(good, spoil, message):
    spoil(good)
    assert any(problem.startswith("tiny.ipynb") and message in problem for problem in problems(good, "tiny.ipynb"))


@pytest.mark.parametrize(
    ("lines", "tag", "long"),
    [(25, "margin", False), (26, "hide-output", True), (26, "hide-input", False), (26, "hide-cell", False)],
)
def test_lines_of_a_cell_that_readers_see(good, lines, tag, long):
    good.cells[1].update(source="total = 6\n" * lines, metadata={"tags": [tag]})
    assert any("26 lines of code in sight, more than 25" in problem for problem in problems(good, "tiny.ipynb")) is long


def test_words_of_a_chapter(good):
    text = ":::{prf:proof}\n" + "word " * 994 + "\n:::\n"
    assert problems(good, "01_tiny.ipynb") == ["01_tiny.ipynb: 2 words of text; a chapter has 1000 to 2400"]
    good.cells.append(new_markdown_cell(text + "```python\n" + "code " * 5000 + "\n```\nfour of the words"))
    assert problems(good, "01_tiny.ipynb") == []
    good.cells.append(new_markdown_cell("word " * 1500))
    assert problems(good, "01_tiny.ipynb") == ["01_tiny.ipynb: 2500 words of text; a chapter has 1000 to 2400"]


def test_stored_error_may_be_tagged(good):
    stored_error(good, tags=["raises-exception"])
    assert problems(good, "tiny.ipynb") == []


def test_same_figure_name_in_two_notebooks(tiny, tiny_copy):
    assert book_problems([tiny]) == []
    (problem,) = book_problems([tiny, tiny_copy])
    assert "'fig-dot' is already that of tiny.ipynb: cell 5" in problem


def test_bytes_as_the_tool_writes_them(tiny_copy):
    replace(tiny_copy, ' "cells"', '  "cells"')
    assert "not as the tool writes it" in file_problems(tiny_copy)[0]


def nbval(*paths):
    folder = paths[0].parent
    options = ["-p", "no:cacheprovider", "-p", "nbval.plugin", "--nbval", "--nbval-current-env", "-c", os.devnull]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--rootdir", folder, *paths],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
    return run.returncode, run.stdout


def test_nbval_rejects_an_edited_output(tiny_copy):
    replace(tiny_copy, "total 6", "total 7")
    assert file_problems(tiny_copy) == []  # so only nbval sees it
    status, report = nbval(tiny_copy)
    assert status == 1
    assert "Cell outputs differ" in report
    assert "1 failed, 3 passed" in report


RICH = [
    "import time\nfor i in range(20):\n    print(i, end=' ', flush=True)\n    time.sleep(0.01)\nprint()",
    "import matplotlib.pyplot as plt\nprint('before')\nplt.plot([1, 2])\nplt.show()\nprint('after')",
    "import ipywidgets\nipywidgets.IntSlider(value=3, max=7)",
    "@ipywidgets.interact(k=(1, 5))\ndef show(k=2):\n    print('k is', k)",
    "from tqdm import tqdm\nfor i in tqdm(range(3)):\n    pass",
    "1 / 0",
]


@pytest.fixture(scope="module")
def three_runs(tmp_path_factory):
    cells = [new_code_cell(source) for source in RICH]
    cells[-1].metadata.tags = ["raises-exception"]
    path = save(tmp_path_factory.mktemp("rich") / "rich.ipynb", cells)
    runs = []
    for _ in range(3):
        assert notebooks.main([str(path)]) == 0
        runs.append(path.read_bytes())
    return path, runs


def test_three_runs_give_the_same_bytes(three_runs):
    _, runs = three_runs
    assert runs[0] == runs[1] == runs[2]
    assert runs[0].endswith(b"}\n")
    assert b"\r" not in runs[0]


def test_outputs_of_a_run(three_runs):
    notebook = read(three_runs[0])
    prints, figure, slider, interact, bar, error = (cell.outputs for cell in notebook.cells)
    assert [output.text for output in prints] == [" ".join(map(str, range(20))) + " \n"]
    assert [output.output_type for output in figure] == ["stream", "display_data", "stream"]
    assert slider[0].data[WIDGET_VIEW]["model_id"] == f"{1:032x}"
    assert [output.get("text", "widget") for output in interact] == ["k is 2\n", "widget"]
    assert bar == []
    assert error[0].traceback[-1] == "ZeroDivisionError: division by zero"  # without colours
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert notebook.metadata == {"kernelspec": kernel, "language_info": {"name": "python"}}


def test_nbval_accepts_what_the_tool_stored(tiny, three_runs):
    status, report = nbval(tiny, three_runs[0])
    assert (status, "10 passed" in report) == (0, True), report


def test_measurement_is_kept_until_the_code_changes(tiny_copy):
    before = tiny_copy.read_bytes()
    assert notebooks.regenerate(tiny_copy) is False
    assert tiny_copy.read_bytes() == before
    assert notebooks.regenerate(tiny_copy, remeasure=True) is True
    assert read(tiny_copy).cells[2].outputs != loads(before, "before").cells[2].outputs
    before = tiny_copy.read_bytes()
    replace(tiny_copy, "total == 6", "total == 6.0")
    notebooks.regenerate(tiny_copy)
    assert read(tiny_copy).cells[2].outputs != loads(before, "before").cells[2].outputs
    assert read(tiny_copy).cells[2].metadata.measured == measurement_key(read(tiny_copy), 2)


def test_check_tells_and_writes_nothing(tiny, tiny_copy, capsys):
    replace(tiny_copy, "total 6", "total 7")
    before = tiny_copy.read_bytes()
    assert notebooks.main(["--check", str(tiny), str(tiny_copy)]) == 1
    assert capsys.readouterr().out == f"{tiny}: unchanged\n{tiny_copy}: would change\n"
    assert tiny_copy.read_bytes() == before


@pytest.mark.parametrize(
    ("source", "options", "messages"),
    [
        ("y = 1\ny / 0", [], ["cell 2 ('y = 1') failed", "ZeroDivisionError: division by zero"]),
        ("import time\n\ntime.sleep(60)", ["--timeout", "1"], ["cell 2 ('import time') took more than 1 s"]),
        ("import os\n\nos._exit(1)", [], ["no kernel at cell 2 (Kernel died)"]),
    ],
)
def test_a_run_that_fails_says_where_and_leaves_the_file(tmp_path, capsys, source, options, messages):
    path = save(tmp_path / "fails.ipynb", [new_code_cell("x = 0"), new_code_cell(source)])
    before = path.read_bytes()
    assert notebooks.main([*options, str(path)]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith(f"{path}: ") and all(message in printed for message in messages)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


NAMES = "CUDA_VISIBLE_DEVICES UPCONV_TIER UPCONV_DEVICE TQDM_DISABLE MPLBACKEND"
ASK = f"import os\nprint([os.environ.get(name) for name in {NAMES.split()}])"
ANSWER = "['', None, None, '1', 'module://matplotlib_inline.backend_inline']\n"


@pytest.fixture
def other_settings(monkeypatch, tmp_path):
    """A machine with a GPU would take the full tier, whose outputs are others; and it has a kernel that fails."""
    for name, value in zip(NAMES.split(), ("0", "full", "meta", "0", "agg"), strict=True):
        monkeypatch.setenv(name, value)
    spec = tmp_path / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text('{"argv": ["false"], "display_name": "Python 3", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))


def test_the_tool_runs_chapters_with_this_python_in_their_folder_on_the_cpu(tmp_path, other_settings):
    path = save(tmp_path / "where.ipynb", [new_code_cell("import os, sys\nprint(sys.executable, os.getcwd())\n" + ASK)])
    replace(path, '"name": "python3"', '"name": "no-such-kernel"')
    assert notebooks.main([str(path)]) == 0
    assert read(path).cells[0].outputs[0].text == f"{sys.executable} {tmp_path}\n{ANSWER}"


def test_chapters_are_tested_on_the_cpu_whatever_the_machine_has(tmp_path, other_settings):
    output = new_output("stream", name="stdout", text=ANSWER)
    save(tmp_path / "ask.ipynb", [new_code_cell(ASK, outputs=[output], execution_count=1)])
    (tmp_path / "conftest.py").write_text((Path(__file__).parents[1] / "conftest.py").read_text())
    status, report = nbval(tmp_path / "ask.ipynb")
    assert (status, "1 passed" in report) == (0, True), report


@pytest.fixture
def chapters(tmp_path, monkeypatch):
    monkeypatch.setattr(notebooks, "CHAPTERS", tmp_path)
    for name in ("01_x", "06a_one", "06b_two", "10_y", "index"):
        save(tmp_path / f"{name}.ipynb", [])


@pytest.mark.parametrize(
    ("number", "found"),
    [
        ("06a", ["06a_one"]),
        ("6b", ["06b_two"]),
        ("06", ["06a_one", "06b_two"]),
        ("1", ["01_x"]),
        ("10", ["10_y"]),
        ("index", ["index"]),
    ],
)
def test_a_number_may_have_a_letter(chapters, tmp_path, capsys, number, found):
    assert notebooks.main(["--format-only", "--chapter", number]) == 0
    assert capsys.readouterr().out == "".join(f"{tmp_path / name}.ipynb: unchanged\n" for name in found)
    assert notebooks.main(["--list", "--chapter", number]) == 0
    assert capsys.readouterr().out.split() == [f"{tmp_path / name}.ipynb" for name in found]


def test_unknown_chapter_lists_the_chapters(chapters, tmp_path, capsys):
    assert notebooks.main(["--chapter", "99"]) == 2
    assert re.search(r"--chapter 99: .*01_x.ipynb, 06a_one.ipynb, .*index.ipynb", capsys.readouterr().err)
    for path in tmp_path.iterdir():
        path.unlink()
    assert notebooks.main([]) == 2
    assert f"no notebooks in {tmp_path}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"), [("{", "not a notebook"), ("[]", "not a notebook"), (None, "cannot be read")], ids=str
)
def test_unreadable_file(tmp_path, capsys, text, message):
    path = tmp_path / "odd.ipynb"
    if text is not None:
        path.write_text(text)
    assert notebooks.main(["--format-only", str(path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(str(path))
    assert message in error


def test_normalise_keeps_what_an_author_wrote():
    metadata = {"tags": ["hide-input"], "mystnb": FIGURE, "jupyter": {"source_hidden": True}, "cellView": "form"}
    transient = {"execution": {}, "collapsed": True, "scrolled": True, "ExecuteTime": {}}
    cell = new_code_cell("x", metadata={**metadata, **transient}, id="kept")
    notebook = normalise(new_notebook(cells=[cell], metadata={"colab": {"provenance": []}, "widgets": {}}))
    assert notebook.cells[0].metadata == metadata
    assert notebook.cells[0].id == "kept"
    assert set(notebook.metadata) == {"colab", "kernelspec", "language_info"}


def test_missing_and_repeated_ids_are_replaced():
    notebook = new_notebook(cells=[new_code_cell("x", id=name) for name in "abcd"])
    notebook.cells[2].id = "a"
    del notebook.cells[3]["id"]
    with pytest.warns(Warning, match="id"):  # of nbformat
        ids = [cell.id for cell in loads(json.dumps(notebook), "ids.ipynb").cells]
        older = loads(json.dumps({**notebook, "nbformat_minor": 0}), "as_colab_saves_it.ipynb")
    assert (ids[:2], len(set(ids))) == (["a", "b"], 4)
    assert len({cell.id for cell in older.cells}) == 4


def test_widgets_are_numbered_in_order():
    views = [new_output("display_data", {WIDGET_VIEW: {"model_id": name}}) for name in ("f00", "a11", "f00")]
    notebook = normalise(new_notebook(cells=[new_code_cell("x", outputs=views)]))
    numbers = [output.data[WIDGET_VIEW]["model_id"] for output in notebook.cells[0].outputs]
    assert numbers == [f"{n:032x}" for n in (1, 2, 1)]
    assert normalise(copy.deepcopy(notebook)) == notebook


def test_of_a_panel_the_picture_is_stored_without_its_widget():
    panel = new_output("execute_result", {WIDGET_VIEW: {"model_id": "f00"}, "text/html": "a picture"})
    notebook = normalise(new_notebook(cells=[new_code_cell("x", outputs=[panel])]))
    assert notebook.cells[0].outputs[0].data == {"text/html": "a picture"}


def test_png_loses_only_its_text(good):
    assert good.cells[4].outputs[0].data["image/png"] == DOT_WITHOUT_TEXT


# The first cell of a chapter


def test_every_chapter_begins_its_code_with_the_same_cell():
    sources = set()
    for path in CHAPTERS:
        code = [cell for cell in read(path).cells if cell.cell_type == "code"]
        assert [cell for cell in code if "bootstrap" in tags(cell)] == code[:1], path.name
        assert "hide-cell" in tags(code[0]) and code[0].outputs == []
        sources.add(code[0].source)
    assert len(sources) == 1


@pytest.mark.parametrize("installed", [True, False])
def test_that_cell_does_nothing_where_the_module_is_installed(installed, tmp_path):
    """And in a clone in which it isn't, the clone's own is found. `-S` leaves out what is installed."""
    chapters = tmp_path / "clone" / "chapters"
    chapters.mkdir(parents=True)
    for place in [tmp_path / "clone" / "code", *([tmp_path / "installed"] if installed else [])]:
        (place / "upconv").mkdir(parents=True)
        (place / "upconv" / "__init__.py").touch()
    source = next(cell for cell in read(CHAPTERS[0]).cells if cell.cell_type == "code").source
    program = (
        f"import sys\nbefore = list(sys.path)\n{source}\nimport upconv\nprint(sys.path == before, upconv.__file__)"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    command = [sys.executable, "-S", "-c", program]
    found = subprocess.run(command, cwd=chapters, env=environment, capture_output=True, text=True, check=True).stdout
    place = "installed" if installed else "clone/code"
    assert found == f"{installed} {tmp_path / place / 'upconv' / '__init__.py'}\n"
