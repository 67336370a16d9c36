"""The chapters' notebooks: the rules that nbval cannot see, and the tool that stores the outputs."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import notebooks
from notebook_format import dumps, loads, measurement_key, normalise, tags
from notebook_rules import book_problems, file_problems, problems

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


def never_run(nb):
    nb.cells[1].execution_count = None


def out_of_order(nb):
    nb.cells[1].execution_count, nb.cells[2].execution_count = 2, 1


def result_of_another_run(nb):
    nb.cells[3].outputs[0].execution_count = 7


def unknown_tag(nb):
    nb.cells[1].metadata.tags = ["hide_input"]


def skipped_cell(nb):
    nb.cells[1].metadata.tags = ["nbval-skip"]


def nbval_comment(nb):
    nb.cells[1].source = 'def f():\n    """Do it.\n\n    # NBVAL_IGNORE_OUTPUT\n    """'


def semicolon(nb):
    nb.cells[3].source += ";  # quiet"


def semicolon_after_shell_command(nb):
    nb.cells[3].source += "\n!ls 'x;"
    nb.cells[3].source += ";"


def stored_error(nb):
    nb.cells[1].outputs = [new_output("error", ename="ValueError", evalue="5 is odd", traceback=[])]


def stderr(nb):
    nb.cells[1].outputs = [new_output("stream", name="stderr", text="a warning\n")]


def address(nb):
    nb.cells[1].outputs[0].text = "<Thing at 0xABC123>\n"


def address_in_result(nb):
    nb.cells[3].outputs[0].data["text/plain"] = "0x7f00aa"


def path_in_result(nb):
    nb.cells[3].outputs[0].data["text/html"] = "<b>/home/name/file.py</b>"


def path_on_windows(nb):
    nb.cells[1].outputs[0].text = "C:\\data\\x.npz\n"


def colour(nb):
    nb.cells[1].outputs[0].text = "\x1b[31mred\x1b[0m\n"


def progress_bar(nb):
    view = {"model_id": f"{1:032x}", "version_major": 2, "version_minor": 0}
    nb.cells[1].outputs = [new_output("display_data", {WIDGET_VIEW: view, "text/plain": "0/3 [00:00<?, ?it/s]"})]


def no_alt(nb):
    nb.cells[4].metadata.mystnb.image.alt = " "


def no_caption(nb):
    del nb.cells[4].metadata.mystnb.figure["caption"]


def no_figure_name(nb):
    del nb.cells[4].metadata["mystnb"]


def wrong_figure_name(nb):
    nb.cells[4].metadata.mystnb.figure.name = "dot"


def ignored_unchecked(nb):
    nb.cells[3].source, nb.cells[3].outputs = "x = 1", []


def ignored_twice(nb):
    nb.cells[3].metadata = IGNORED


def ignored_last(nb):
    del nb.cells[3:]


def ignored_too_often(nb):
    nb.cells += [new_code_cell("1", metadata=IGNORED) for _ in range(4)]


def measured_with_other_code(nb):
    nb.cells[1].source += "\nprint()"


def widget_state(nb):
    nb.metadata.widgets = {}


def timing(nb):
    nb.cells[1].metadata.execution = {"iopub.status.busy": "2020-01-01T00:00:00Z"}


def no_assertion(nb):
    for cell in nb.cells:
        cell.source = cell.source.replace("assert ", "# assert ")


def two_titles(nb):
    nb.cells[0].source += "\n\n# Another"


def skipped_level(nb):
    nb.cells[0].source = "# Tiny\n\n### Part"


def many_cells(nb):
    nb.cells += [new_code_cell("x = 1") for _ in range(30)]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (never_run, "cell 2 ('total = sum(range(4))'): was never run"),
        (out_of_order, "cell 2 ('total = sum(range(4))'): has execution count 2 where 1 comes in order"),
        (result_of_another_run, "cell 4 ('assert elapsed > 0'): result is numbered 7 where 3 comes in order"),
        (unknown_tag, "unknown tag 'hide_input'"),
        (skipped_cell, "'nbval-skip' leaves the cell out"),
        (nbval_comment, "comment NBVAL_IGNORE_OUTPUT is shown to readers"),
        (semicolon, "ends with ';'"),
        (semicolon_after_shell_command, "ends with ';'"),
        (stored_error, "stored error ValueError: 5 is odd"),
        (stderr, "stored stderr 'a warning"),
        (address, "memory address 'at 0xABC123'"),
        (address_in_result, "memory address '0x7f00aa'"),
        (path_in_result, "absolute path '/home/name/file.py"),
        (path_on_windows, "absolute path 'C:"),
        (colour, "terminal colour code"),
        (progress_bar, "holds a progress bar"),
        (no_alt, "no mystnb.image.alt"),
        (no_caption, "no mystnb.figure.caption"),
        (no_figure_name, "no mystnb.figure.name"),
        (wrong_figure_name, "figure name 'dot' does not begin with 'fig-'"),
        (ignored_unchecked, "cell 3 ('import time'): output is ignored and the next code cell checks nothing"),
        (ignored_twice, "cell 3 ('import time'): output is ignored and the next code cell checks nothing"),
        (ignored_last, "cell 3 ('import time'): output is ignored and the next code cell checks nothing"),
        (ignored_too_often, "5 cells tagged nbval-ignore-output, more than 4"),
        (measured_with_other_code, "cell 3 ('import time'): the code changed since this output was measured"),
        (widget_state, "metadata.widgets"),
        (timing, "holds what differs between runs"),
        (no_assertion, "no cell asserts anything"),
        (two_titles, "2 first-level headings"),
        (skipped_level, "heading '### Part' skips a level"),
        (many_cells, "34 code cells, more than 30"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_rule_rejects(good, spoil, message):
    spoil(good)
    assert any(problem.startswith("tiny.ipynb") and message in problem for problem in problems(good, "tiny.ipynb"))


def test_words_of_a_chapter(good):
    text = "```{note}\n" + "word " * 994 + "\n```\n"
    assert problems(good, "01_tiny.ipynb") == ["01_tiny.ipynb: 2 words of text; a chapter has 1000 to 2400"]
    good.cells.append(new_markdown_cell(text + "```python\n" + "code " * 5000 + "\n```\nfour of the words"))
    assert problems(good, "01_tiny.ipynb") == []
    good.cells.append(new_markdown_cell("word " * 1500))
    assert problems(good, "01_tiny.ipynb") == ["01_tiny.ipynb: 2500 words of text; a chapter has 1000 to 2400"]


def test_stored_error_may_be_tagged(good):
    stored_error(good)
    good.cells[1].metadata.tags = ["raises-exception"]
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
]


@pytest.fixture(scope="module")
def three_runs(tmp_path_factory):
    path = save(tmp_path_factory.mktemp("rich") / "rich.ipynb", [new_code_cell(source) for source in RICH])
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
    prints, figure, slider, interact, bar = (cell.outputs for cell in notebook.cells)
    assert [output.text for output in prints] == [" ".join(map(str, range(20))) + " \n"]
    assert [output.output_type for output in figure] == ["stream", "display_data", "stream"]
    assert slider[0].data[WIDGET_VIEW]["model_id"] == f"{1:032x}"
    assert [output.get("text", "widget") for output in interact] == ["k is 2\n", "widget"]
    assert bar == []
    assert "widgets" not in notebook.metadata
    assert notebook.metadata.kernelspec == {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert notebook.metadata.language_info == {"name": "python"}


def test_nbval_accepts_what_the_tool_stored(tiny, three_runs):
    status, report = nbval(tiny, three_runs[0])
    assert (status, "9 passed" in report) == (0, True), report


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


def test_failing_cell_leaves_the_file(tmp_path, capsys):
    path = save(tmp_path / "fails.ipynb", [new_code_cell("x = 0"), new_code_cell("y = 1\ny / x")])
    before = path.read_bytes()
    assert notebooks.main([str(path)]) == 1
    message = capsys.readouterr().err
    assert f"{path}: cell 2 ('y = 1') failed" in message
    assert "ZeroDivisionError: division by zero" in message
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_slow_cell(tmp_path, capsys):
    path = save(tmp_path / "slow.ipynb", [new_code_cell("import time\n\ntime.sleep(60)")])
    assert notebooks.main(["--timeout", "1", str(path)]) == 1
    assert "cell 1 ('import time') took more than 1 s" in capsys.readouterr().err


def test_dying_kernel(tmp_path, capsys):
    path = save(tmp_path / "dies.ipynb", [new_code_cell("import os\n\nos._exit(1)")])
    assert notebooks.main([str(path)]) == 1
    assert f"{path}: no kernel at cell 1 (Kernel died)" in capsys.readouterr().err


def test_kernel_is_this_python_in_the_notebook_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    source = "import os, sys\nprint(sys.executable, os.getcwd(), os.environ['MPLBACKEND'], os.environ['TQDM_DISABLE'])"
    path = save(tmp_path / "where.ipynb", [new_code_cell(source)])
    replace(path, '"name": "python3"', '"name": "no-such-kernel"')
    assert notebooks.main([str(path)]) == 0
    words = read(path).cells[0].outputs[0].text.split()
    assert words == [sys.executable, str(tmp_path), "module://matplotlib_inline.backend_inline", "1"]


def test_unknown_chapter_lists_the_chapters(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(notebooks, "CHAPTERS", tmp_path)
    assert notebooks.main([]) == 2
    assert f"no notebooks in {tmp_path}" in capsys.readouterr().err
    for name in ("01_sizes.ipynb", "02_rewrites.ipynb"):
        save(tmp_path / name, [])
    assert notebooks.main(["--chapter", "99"]) == 2
    message = capsys.readouterr().err
    assert "--chapter 99" in message
    assert "01_sizes.ipynb, 02_rewrites.ipynb" in message
    assert notebooks.main(["--format-only", "--chapter", "02"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / '02_rewrites.ipynb'}: unchanged\n"


@pytest.mark.parametrize(
    ("text", "message"), [("{", "not JSON"), ("{}", "not a version 4"), (None, "cannot be read")], ids=str
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


def test_missing_and_repeated_ids_are_fixed():
    raw = new_notebook(cells=[new_code_cell(source) for source in "xyyy"])
    for cell, name in zip(raw.cells, ("a", "a", "b", None), strict=True):
        cell["id"] = name
    del raw.cells[3]["id"]
    text = json.dumps(raw)
    once, twice = (loads(text, "ids.ipynb") for _ in range(2))
    assert once == twice
    ids = [cell.id for cell in once.cells]
    assert ids[0] == "a"
    assert ids[2] == "b"
    assert len(set(ids)) == 4
    assert loads(dumps(once), "ids.ipynb") == once


def test_widgets_are_numbered_in_order():
    views = [
        new_output("display_data", {WIDGET_VIEW: {"model_id": name, "version_major": 2, "version_minor": 0}})
        for name in ("f00", "a11", "f00")
    ]
    notebook = normalise(new_notebook(cells=[new_code_cell("x", outputs=views)]))
    numbers = [output.data[WIDGET_VIEW]["model_id"] for output in notebook.cells[0].outputs]
    assert numbers == [f"{n:032x}" for n in (1, 2, 1)]
    assert normalise(copy.deepcopy(notebook)) == notebook


def test_png_loses_only_its_text(good):
    assert good.cells[4].outputs[0].data["image/png"] == DOT_WITHOUT_TEXT


# The first cell of a chapter


def bootstrap_cells():
    for path in CHAPTERS:
        cells = [cell for cell in loads(path.read_text(), path.name).cells if "bootstrap" in tags(cell)]
        yield path, cells


def test_every_chapter_begins_its_code_with_the_same_cell():
    sources = set()
    for path, cells in bootstrap_cells():
        code = [cell for cell in loads(path.read_text(), path.name).cells if cell.cell_type == "code"]
        assert [cell.source for cell in cells] == [code[0].source], path.name
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
    source = next(bootstrap_cells())[1][0].source
    program = (
        f"import sys\nbefore = list(sys.path)\n{source}\nimport upconv\nprint(sys.path == before, upconv.__file__)"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    command = [sys.executable, "-S", "-c", program]
    found = subprocess.run(command, cwd=chapters, env=environment, capture_output=True, text=True, check=True).stdout
    place = "installed" if installed else "clone/code"
    assert found == f"{installed} {tmp_path / place / 'upconv' / '__init__.py'}\n"


ASK = """import os

print([os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "UPCONV_TIER", "UPCONV_DEVICE", "TQDM_DISABLE")])
"""
ANSWER = "['', None, None, '1']\n"


def test_chapters_are_stored_and_tested_on_the_cpu_whatever_the_machine_has(tmp_path):
    """A machine with a GPU would take the full tier, whose outputs are others."""
    output = new_output("stream", name="stdout", text=ANSWER)
    path = tmp_path / "ask.ipynb"
    path.write_text(dumps(normalise(new_notebook(cells=[new_code_cell(ASK, outputs=[output], execution_count=1)]))))
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "0", "UPCONV_TIER": "full", "UPCONV_DEVICE": "meta"}
    conftest = Path(__file__).parents[1] / "conftest.py"
    (tmp_path / "conftest.py").write_text(conftest.read_text())
    pytest_here = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-q", "-p", "no:cacheprovider"]
    found = subprocess.run(
        [*pytest_here, "ask.ipynb"], cwd=tmp_path, env=environment, check=False, capture_output=True, text=True
    )
    assert "1 passed" in found.stdout, found.stdout


def test_the_tool_runs_chapters_on_the_cpu(tmp_path, monkeypatch):
    for name, value in (("CUDA_VISIBLE_DEVICES", "0"), ("UPCONV_TIER", "full"), ("UPCONV_DEVICE", "meta")):
        monkeypatch.setenv(name, value)
    notebook = new_notebook(cells=[new_code_cell(ASK)])
    notebooks.execute(notebook, tmp_path / "ask.ipynb")
    assert notebook.cells[0].outputs[0].text == ANSWER
