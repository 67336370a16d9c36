"""The chapters' copies: the same bytes from the same sources, complete, and running with nothing but themselves."""

import ast
import io
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest

from tools.notebooks import standalone
from upconv.book.common import cache_folder

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted(path.name for path in (ROOT / "chapters").glob("*.ipynb"))
BOOK = sorted(path.stem for path in (ROOT / "code" / "upconv" / "book").glob("[a-z]*.py"))
SITE = standalone.site_address()


@pytest.fixture(scope="module")
def wheel():
    return standalone.build_wheel()


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    paths = standalone.write(folder=tmp_path_factory.mktemp("copies") / "new")
    return {path.name: path for path in paths}


def read(path):
    return nbformat.read(path, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def set_up_cell(notebook):
    (cell,) = (cell for cell in notebook.cells if "bootstrap" in cell.metadata.get("tags", []))
    return cell


@pytest.fixture(scope="module")
def set_up(copies):
    """The set-up cell of a chapter that reads data."""
    return set_up_cell(read(copies["10_unet.ipynb"])).source


@pytest.fixture
def run(tmp_path):
    """Run a program in a new Python in an empty folder."""
    (tmp_path / "work").mkdir()

    def run(*pieces, cache=tmp_path / "cache", **environment):
        (tmp_path / "program.py").write_text("\n".join(pieces))
        settings = dict(cwd=tmp_path / "work", env={**os.environ, "UPCONV_CACHE": str(cache), **environment})
        command = [sys.executable, tmp_path / "program.py"]
        found = subprocess.run(command, **settings, capture_output=True, text=True, check=False)
        assert list((tmp_path / "work").iterdir()) == []
        return found

    return run


def copy_book(folder):
    for name in ("code/upconv", "chapters", "data"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "_config.yml", "_toc.yml", "references.bib"):
        shutil.copy(ROOT / name, folder / name)


def test_every_chapter_has_a_copy_that_is_a_valid_notebook(copies):
    assert sorted(copies) == CHAPTERS and len(CHAPTERS) >= 10
    for path in copies.values():
        nbformat.validate(read(path))
        assert path.stat().st_size < 10e6  # Colab's limit for a notebook from GitHub is larger


def test_the_same_sources_give_the_same_bytes_anywhere_at_any_time(copies, tmp_path):
    elsewhere = tmp_path / "elsewhere, deeper"
    copy_book(elsewhere)
    for number, path in enumerate(sorted(elsewhere.rglob("*"))):
        path.chmod(0o777 if path.is_dir() or number % 2 else 0o600)
        os.utime(path, (1e9 + 1e7 * number,) * 2)
    mask = os.umask(0o077)
    try:
        paths = standalone.write(elsewhere)
    finally:
        os.umask(mask)
    assert {path.parent for path in paths} == {elsewhere / "_build" / "standalone"}
    for path in paths:
        assert path.read_bytes() == copies[path.name].read_bytes(), path.name


def test_the_cells_are_the_chapters_and_their_outputs_too(copies):
    for name, path in copies.items():
        copy, chapter = code(read(path)), code(read(ROOT / "chapters" / name))
        assert len(copy) == len(chapter)
        for ours, theirs in zip(copy, chapter, strict=True):
            assert (ours.id, ours.outputs, ours.execution_count) == (theirs.id, theirs.outputs, theirs.execution_count)
            if "bootstrap" not in theirs.metadata.get("tags", []):
                assert ours.source == theirs.source


def test_nothing_is_installed_cloned_or_fetched(copies):
    """Nothing in the cells could; so torch is not installed anew either."""
    forbidden = set("subprocess urllib requests http socket system popen get_ipython pip ensurepip pooch".split())
    for name in CHAPTERS:
        for path in (copies[name], ROOT / "chapters" / name):
            for cell in code(read(path)):
                nodes = ast.walk(ast.parse(cell.source))  # a line that begins with ! or % is no Python
                names = [str(getattr(node, kind, "")) for node in nodes for kind in ("attr", "id", "name", "module")]
                used = {part for name in names for part in name.split(".")}
                assert not used & forbidden, name


def test_the_set_up_cell_is_collapsed_and_comes_before_all_code(copies):
    for path in copies.values():
        notebook = read(path)
        cell = set_up_cell(notebook)
        assert cell is code(notebook)[0]
        assert cell.metadata.cellView == "form" and cell.metadata.jupyter.source_hidden
        assert cell.source.startswith("# @title Set-up")
        note = notebook.cells[notebook.cells.index(cell) - 1]
        assert note.cell_type == "markdown" and f"({SITE}chapters/{path.stem}.html)" in note.source


def test_cells_that_the_site_folds_are_folded(copies):
    folded = solutions = 0
    for cell in (cell for path in copies.values() for cell in code(read(path))):
        own_tags, jupyter = set(cell.metadata.get("tags", [])), cell.metadata.get("jupyter", {})
        hidden = bool({"hide-cell", "hide-input"} & own_tags)
        solution = "hide-cell" in own_tags and bool(cell.outputs)
        assert (cell.metadata.get("cellView") == "form", jupyter.get("source_hidden", False)) == (hidden, hidden)
        assert (cell.metadata.get("collapsed", False), jupyter.get("outputs_hidden", False)) == (solution, solution)
        folded += hidden
        solutions += solution
    assert folded > len(copies) and solutions >= 3


def test_captions_stand_below_their_figures(copies):
    """On the site they come from the cells' metadata, which Colab does not show."""
    captions = 0
    for cell, after in (pair for path in copies.values() for pair in pairwise(read(path).cells)):
        if caption := cell.metadata.get("mystnb", {}).get("figure", {}).get("caption"):
            assert after.cell_type == "markdown"
            name, _, text = after.source.partition("** ")
            assert re.fullmatch(r"\*\*Fig\. (\d+\.)?\d+", name)
            assert "{" in caption or text == caption
            captions += 1
    assert captions > 30


def test_a_gpu_is_asked_for_where_it_changes_something(copies):
    with_gpu = {name for name, path in copies.items() if read(path).metadata.get("accelerator") == "GPU"}
    assert with_gpu == {"09_autoencoder.ipynb", "10_unet.ipynb"}
    for name, path in copies.items():
        gpu = {"gpuType": "T4"} if name in with_gpu else {}
        assert read(path).metadata.colab == {"name": name, "provenance": [], "toc_visible": True, **gpu}
        fetched = "nothing is installed or fetched but the images of the full tier" in path.read_text()
        assert fetched is (name in with_gpu)


def test_the_committed_data_are_carried():
    data = standalone.data_files(read(ROOT / "chapters" / "10_unet.ipynb"))
    tables = {f"results/{path.name}" for path in (ROOT / "data" / "results").glob("*.csv")}
    assert data.keys() == {"fashion_mnist_mini.npz"} | tables
    assert standalone.data_files(read(ROOT / "chapters" / "02_transpose.ipynb")) == {}  # its `data` is scikit-image's
    assert all(content == (ROOT / "data" / name).read_bytes() for name, content in data.items())


IMPORTS = ["from upconv.book.{} import x", "from upconv.book import y, {}", "import upconv.book.{} as z"]


@pytest.mark.parametrize("line", IMPORTS)
@pytest.mark.parametrize(
    "module, images, tables", [(f, f in ("data", "scenes", "tasks"), f in ("comparison", "results")) for f in BOOK]
)
def test_data_are_carried_however_their_reader_is_imported(line, module, images, tables):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(line.format(module))])
    data = standalone.data_files(notebook)
    assert ("fashion_mnist_mini.npz" in data) is images and ("results/unet.csv" in data) is tables


def test_the_module_and_the_data_come_from_the_cell_and_go_with_the_process(set_up, run, tmp_path):
    program = """
import upconv, upconv.book.data as data
from upconv.book.results import read_results
print(upconv.__file__)
print(data.committed_file("fashion_mnist_mini.npz"))
print(len(data.fashion_mnist("test")[0]), len(read_results("unet")) > 100)
print(sorted(path.name for path in Path(os.environ["UPCONV_CACHE"]).iterdir()))
"""
    found = run(set_up, program)
    assert found.returncode == 0, found.stderr
    module, data, counts, names = found.stdout.splitlines()
    assert re.fullmatch(rf"{tmp_path}/cache/standalone-\w+/code/upconv/__init__.py", module)
    assert Path(data).is_relative_to(tmp_path / "cache")
    assert counts == "1000 True" and re.fullmatch(r"\['standalone-\w+'\]", names)
    assert list((tmp_path / "cache").iterdir()) == []


def test_running_the_cell_again_changes_nothing(set_up, run):
    twice = run(set_up, "import upconv\nbefore = list(sys.path)", set_up, "print(before == sys.path)")
    assert twice.stdout == "True\n"
    installed = run("import upconv", set_up, "print(upconv.__file__)")
    assert Path(installed.stdout.strip()).is_relative_to(ROOT)


@pytest.mark.parametrize("other", ["other", ""], ids=["changed", "lost"])
@pytest.mark.parametrize("archive", [0, 1], ids=["code", "data"])
def test_a_notebook_with_a_damaged_character_is_refused(set_up, run, tmp_path, archive, other):
    place = [match.end() for match in re.finditer(r'\("[0-9a-f]{64}", "', set_up)][archive] + 500
    character = other and ("A" if set_up[place] != "A" else "B")
    found = run(set_up[:place] + character + set_up[place + 1 :], "import upconv")
    assert f"RuntimeError: this notebook is damaged: get it again from {SITE}chapters/10_unet.html" in found.stderr
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_a_killed_kernel_left_goes_after_a_week(set_up, run, tmp_path):
    cache = tmp_path / "cache"
    for name, days in (("standalone-old", 8), ("standalone-new", 6), ("checkpoints", 30)):
        (cache / name).mkdir(parents=True)
        (cache / name / "file").touch()
        os.utime(cache / name, (time.time() - days * 24 * 3600,) * 2)
    (cache / "standalone-gone").symlink_to("nowhere")  # as if another kernel had removed it in between
    assert run(set_up).returncode == 0
    assert sorted(path.name for path in cache.iterdir()) == ["checkpoints", "standalone-gone", "standalone-new"]


@pytest.mark.parametrize("cache, xdg", [("", ""), ("", "xdg"), ("chosen", "xdg"), ("~/chosen", ""), ("../x", "")])
def test_the_cell_uses_the_folder_that_the_book_uses_wherever_it_goes(set_up, run, tmp_path, monkeypatch, cache, xdg):
    chosen = {"HOME": str(tmp_path), "XDG_CACHE_HOME": xdg and str(tmp_path / xdg)}
    cache = str(tmp_path / cache) if cache == "chosen" else cache
    found = run(set_up, "os.chdir('/')\nprint(Path(sys.path[0]).parents[1].resolve())", cache=cache, **chosen)
    for name, value in {**chosen, "UPCONV_CACHE": cache}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path / "work")
    assert found.stdout == f"{cache_folder().resolve()}\n"
    assert list(cache_folder().iterdir()) == []


def test_the_wheel_holds_the_package_as_it_is(wheel):
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        names = set(archive.namelist())
        for path in (ROOT / "code" / "upconv").rglob("*.py"):
            name = path.relative_to(ROOT / "code").as_posix()
            assert archive.read(name) == path.read_bytes()
            names.remove(name)
        [entry_points] = [name for name in names if name.endswith("entry_points.txt")]
        assert b"upconv = upconv.graph:backend" in archive.read(entry_points)  # torch.compile(..., backend="upconv")
    names -= {f"upconv/{name}" for name in ("explorer.css", "explorer.js", "py.typed")}
    assert len(names) == 6 and all(name.startswith("upconv-0.1.0.dist-info/") for name in names)


# The one line that a fork changes


def test_a_fork_changes_one_line_and_old_copies_are_removed(tmp_path):
    book, folder = tmp_path / "book", tmp_path / "out"
    copy_book(book)
    config = (book / "_config.yml").read_text()
    line = f"  url: {standalone.repository()}\n"
    assert config.count(line) == 1
    (book / "_config.yml").write_text(config.replace(line, "  url: https://github.com/Some-One/a.book\n"))
    folder.mkdir()
    (folder / "08_gone.ipynb").touch()
    written = standalone.write(book, folder)
    assert sorted(path.name for path in folder.iterdir()) == [path.name for path in written] == CHAPTERS
    texts, owner = [path.read_text() for path in written], standalone.repository().split("/")[3]
    assert not any(owner in text for text in texts)
    assert all("https://some-one.github.io/a.book/chapters/" in text for text in texts)
    (book / "chapters" / "99_draft.ipynb").touch()  # in no table of contents
    assert len(standalone.write(book, folder)) == len(written)


@pytest.mark.parametrize("name, folder", [("a.b", "a.b/"), ("some-one.github.io", ""), ("Some-One.github.io", "")])
def test_an_owners_own_site_has_no_folder(tmp_path, name, folder):
    (tmp_path / "_config.yml").write_text(f"repository: {{url: https://github.com/Some-One/{name}}}")
    assert standalone.site_address(tmp_path) == f"https://some-one.github.io/{folder}"


def test_the_address_stands_nowhere_else():
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    if not tracked:
        pytest.skip("not a git checkout")
    owner = standalone.repository().split("/")[3].encode()
    install = f"\n    pip install git+{standalone.repository()}\n"
    files = [name for name in tracked.split("\0") if name and (ROOT / name).is_file()]
    assert [name for name in files if owner in (ROOT / name).read_bytes()] == ["README.md", "_config.yml"]
    assert (ROOT / "README.md").read_text().replace(install, "").encode().count(owner) == 0


WRONG = (
    "https://github.com/owner http://github.com/a/b https://gitlab.com/a/b https://github.com/a/ https://github.com//b"
)


@pytest.mark.parametrize("address", [*WRONG.split(), "https://github.com/a/b/"])
def test_an_address_that_colab_could_not_open_is_refused(tmp_path, address):
    (tmp_path / "_config.yml").write_text(f"repository: {{url: {address}}}")
    with pytest.raises(ValueError, match=r"_config.yml: repository: url: .* must be https://github.com/OWNER/NAME"):
        standalone.repository(tmp_path)


@pytest.mark.parametrize("number", [0, 2])
def test_a_chapter_without_the_cell_or_with_two_is_refused(tmp_path, number):
    shutil.copy(ROOT / "_config.yml", tmp_path)
    cells = [nbformat.v4.new_code_cell(metadata={"tags": ["bootstrap"]}) for _ in range(number)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "01.ipynb")
    with pytest.raises(ValueError, match=f"01.ipynb: {number} cells with the tag bootstrap"):
        standalone.standalone(tmp_path / "01.ipynb", b"", None, tmp_path)
