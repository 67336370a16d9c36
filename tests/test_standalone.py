"""The chapters' copies: the same bytes from the same sources, complete, and running with nothing but themselves."""

import ast
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import nbformat
import pytest

import standalone
from plain_markdown import read_references
from upconv.book.data import MINI_SHA256
from upconv.book.files import cache_folder

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


def run(source, *, cache, folder, before="", after="", **environment):
    """Run a set-up cell in a new Python in an empty folder; give what is printed."""
    work = folder / "work"
    work.mkdir(exist_ok=True)
    program = folder / "program.py"
    program.write_text(f"{before}\n{source}\n{after}\n")
    variables = {**os.environ, "UPCONV_CACHE": str(cache), **environment}
    found = subprocess.run(
        [sys.executable, program], cwd=work, env=variables, capture_output=True, text=True, check=False
    )
    assert list(work.iterdir()) == []
    return found


def test_every_chapter_has_a_copy_that_is_a_valid_notebook(copies):
    assert sorted(copies) == CHAPTERS and len(CHAPTERS) >= 10
    for path in copies.values():
        nbformat.validate(read(path))
        assert path.stat().st_size < 10e6  # Colab's limit for a notebook from GitHub is larger


def test_the_same_sources_give_the_same_bytes_anywhere_at_any_time(copies, tmp_path):
    elsewhere = tmp_path / "elsewhere, deeper"
    for name in ("code", "chapters", "data"):
        shutil.copytree(ROOT / name, elsewhere / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "_config.yml", "_toc.yml", "references.bib"):
        shutil.copy(ROOT / name, elsewhere / name)
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
                tree = ast.parse(cell.source)  # a line that begins with ! or % is no Python
                used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
                used |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
                for node in ast.walk(tree):
                    if isinstance(node, (ast.Import, ast.ImportFrom)):
                        used |= {alias.name.split(".")[0] for alias in node.names}
                        used.add((getattr(node, "module", "") or "").split(".")[0])
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
    for path in copies.values():
        for cell in code(read(path)):
            own_tags = set(cell.metadata.get("tags", []))
            hidden = bool({"hide-cell", "hide-input"} & own_tags)
            assert (cell.metadata.get("cellView") == "form") is hidden
            folded += hidden
            solution = "hide-cell" in own_tags and bool(cell.outputs)
            assert cell.metadata.get("collapsed", False) is solution
            assert cell.metadata.get("jupyter", {}).get("outputs_hidden", False) is solution
            solutions += solution
    assert folded > len(copies) and solutions >= 3


def test_captions_stand_below_their_figures(copies):
    """On the site they come from the cells' metadata, which Colab does not show."""
    captions = 0
    for path in copies.values():
        cells = read(path).cells
        for cell, after in zip(cells, [*cells[1:], None], strict=True):
            if caption := cell.metadata.get("mystnb", {}).get("figure", {}).get("caption"):
                assert after.cell_type == "markdown" and after.source.startswith("**Figure.** ")
                assert "{" in caption or after.source == f"**Figure.** {caption}"
                captions += 1
    assert captions > 30


def test_a_gpu_is_asked_for_where_it_changes_something(copies):
    with_gpu = {name for name, path in copies.items() if read(path).metadata.get("accelerator") == "GPU"}
    assert with_gpu == {"09_unet.ipynb", "10_autoencoder.ipynb"}
    for name, path in copies.items():
        gpu = {"gpuType": "T4"} if name in with_gpu else {}
        assert read(path).metadata.colab == {"name": name, "provenance": [], "toc_visible": True, **gpu}
        fetched = "nothing is installed or fetched but the images of the full tier" in path.read_text()
        assert fetched is (name in with_gpu)


def test_data_are_carried_where_they_are_read():
    for name, expected in (
        ("index.ipynb", set()),
        ("01_arithmetic.ipynb", set()),
        ("05_which_kernels.ipynb", {"fashion_mnist_mini.npz"}),
        ("09_unet.ipynb", {"fashion_mnist_mini.npz", "results/unet.csv", "results/unet_sizes.csv"}),
    ):
        data = standalone.data_files(read(ROOT / "chapters" / name))
        assert expected <= set(data) and bool(expected) == bool(data)
        assert not any(Path(path).name.startswith(".") for path in data)
    assert not any(
        "results" in path for path in standalone.data_files(read(ROOT / "chapters" / "05_which_kernels.ipynb"))
    )


IMPORTS = ["from upconv.book.{} import x", "from upconv.book import y, {}", "import upconv.book.{} as z"]


@pytest.mark.parametrize("line", IMPORTS)
@pytest.mark.parametrize(
    "module, images, tables", [(f, f in ("data", "tasks"), f in ("comparison", "results")) for f in BOOK]
)
def test_data_are_carried_however_their_reader_is_imported(line, module, images, tables):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(line.format(module))])
    data = standalone.data_files(notebook)
    assert ("fashion_mnist_mini.npz" in data) is images and ("results/unet.csv" in data) is tables


def test_the_module_and_the_data_come_from_the_cell_and_go_with_the_process(copies, tmp_path):
    source = set_up_cell(read(copies["09_unet.ipynb"])).source
    cache = tmp_path / "cache"
    found = run(
        source,
        cache=cache,
        folder=tmp_path,
        after="""
import upconv, upconv.book.data as data
from upconv.book.results import read_results
print(upconv.__file__)
print(data.committed_file("fashion_mnist_mini.npz"))
print(len(data.fashion_mnist("test")[0]), len(read_results("unet")) > 100)
print(sorted(path.name for path in Path(os.environ["UPCONV_CACHE"]).iterdir()))
""",
    )
    assert found.returncode == 0, found.stderr
    module, data, counts, names = found.stdout.splitlines()
    assert Path(module).is_relative_to(cache) and Path(data).is_relative_to(cache)
    assert Path(module).relative_to(cache).parts[1:] == ("code", "upconv", "__init__.py")
    assert counts == "1000 True" and re.fullmatch(r"\['standalone-\w+'\]", names)
    assert list(cache.iterdir()) == []


def test_running_the_cell_again_changes_nothing(copies, tmp_path):
    source = set_up_cell(read(copies["index.ipynb"])).source
    twice = f"{source}\nimport upconv\nbefore = list(sys.path)\n{source}\nprint(before == sys.path)"
    assert run(twice, cache=tmp_path / "cache", folder=tmp_path).stdout == "True\n"
    found = run(
        source, cache=tmp_path / "cache", folder=tmp_path, before="import upconv", after="print(upconv.__file__)"
    )
    assert Path(found.stdout.strip()).is_relative_to(ROOT)


def test_a_damaged_notebook_is_refused(copies, tmp_path):
    source = set_up_cell(read(copies["09_unet.ipynb"])).source
    for sha256 in re.findall(r'\("([0-9a-f]{64})", "', source):
        begin = source.index(sha256) + len(sha256) + 500
        other = "A" if source[begin] != "A" else "B"
        damaged = source[:begin] + other + source[begin + 1 :]
        found = run(damaged, cache=tmp_path / "cache", folder=tmp_path, after="import upconv")
        assert found.returncode == 1
        assert f"RuntimeError: this notebook is damaged: get it again from {SITE}chapters/09_unet.html" in found.stderr
        assert list((tmp_path / "cache").iterdir()) == []


def test_a_notebook_that_lost_a_character_is_refused_by_the_same_words(copies, tmp_path):
    source = set_up_cell(read(copies["index.ipynb"])).source
    place = source.index('", "') + 1000
    found = run(source[:place] + source[place + 1 :], cache=tmp_path / "cache", folder=tmp_path)
    assert "RuntimeError: this notebook is damaged" in found.stderr


def test_what_a_killed_kernel_left_goes_after_a_week(copies, tmp_path):
    cache = tmp_path / "cache"
    for name, days in (("standalone-old", 8), ("standalone-new", 6), ("checkpoints", 30)):
        (cache / name).mkdir(parents=True)
        (cache / name / "file").touch()
        os.utime(cache / name, (time.time() - days * 24 * 3600,) * 2)
    assert run(set_up_cell(read(copies["index.ipynb"])).source, cache=cache, folder=tmp_path).returncode == 0
    assert sorted(path.name for path in cache.iterdir()) == ["checkpoints", "standalone-new"]


def test_kernels_that_begin_at_once_do_not_trip_over_each_other(copies, tmp_path):
    """Whatever two of them find, only one can remove."""
    (tmp_path / "cache" / "standalone-old").mkdir(parents=True)
    os.utime(tmp_path / "cache" / "standalone-old", (0, 0))
    other_was_faster = """
from pathlib import Path
found = Path.glob
def glob(self, pattern):
    paths = list(found(self, pattern))
    for path in paths:
        path.rmdir()
    return paths
Path.glob = glob
"""
    source = set_up_cell(read(copies["index.ipynb"])).source
    result = run(source, cache=tmp_path / "cache", folder=tmp_path, before=other_was_faster, after="import upconv")
    assert result.returncode == 0, result.stderr
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_relative_folder_is_found_again_from_another_one(copies, tmp_path):
    source = set_up_cell(read(copies["index.ipynb"])).source
    after = f"""
os.chdir({str(ROOT)!r})
import upconv
print(upconv.__file__)
"""
    found = run(source, cache="../relative", folder=tmp_path, after=after)
    assert found.returncode == 0, found.stderr
    assert Path(found.stdout.strip()).resolve().is_relative_to(tmp_path / "relative")
    assert list((tmp_path / "relative").iterdir()) == []


@pytest.mark.parametrize("cache, xdg", [("", ""), ("", "xdg"), ("chosen", "xdg"), ("~/chosen", "")])
def test_the_cell_uses_the_folder_that_the_book_uses(copies, tmp_path, monkeypatch, cache, xdg):
    chosen = {"HOME": str(tmp_path), "XDG_CACHE_HOME": xdg and str(tmp_path / xdg)}
    cache = cache if cache.startswith("~") else cache and str(tmp_path / cache)
    source = set_up_cell(read(copies["index.ipynb"])).source
    found = run(source, cache=cache, folder=tmp_path, after="print(Path(sys.path[0]).parents[1])", **chosen)
    for name, value in {**chosen, "UPCONV_CACHE": cache}.items():
        monkeypatch.setenv(name, value)
    assert found.stdout == f"{cache_folder()}\n"


def test_the_wheel_holds_the_package_as_it_is_and_pip_takes_it(wheel, tmp_path):
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        names = set(archive.namelist())
        for path in (ROOT / "code" / "upconv").rglob("*.py"):
            name = path.relative_to(ROOT / "code").as_posix()
            assert archive.read(name) == path.read_bytes()
            names.remove(name)
        [entry_points] = [name for name in names if name.endswith("entry_points.txt")]
        assert b"upconv = upconv.graph:backend" in archive.read(entry_points)  # torch.compile(..., backend="upconv")
    assert len(names) == 6 and all(name.startswith("upconv-0.1.0.dist-info/") for name in names)
    path = tmp_path / "upconv-0.1.0-py3-none-any.whl"
    path.write_bytes(wheel)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        tmp_path / "new",
        path,
    ]
    subprocess.run(pip, check=True)
    assert (tmp_path / "new" / "upconv" / "book" / "training.py").is_file()


def test_the_data_are_the_committed_ones():
    data = standalone.data_files(read(ROOT / "chapters" / "09_unet.ipynb"))
    assert hashlib.sha256(data["fashion_mnist_mini.npz"]).hexdigest() == MINI_SHA256
    assert set(data) >= {f"results/{path.name}" for path in (ROOT / "data" / "results").glob("*.csv")}


def test_an_archive_depends_on_names_and_contents_alone(tmp_path):
    content = standalone._archive({"b/c": b"2", "a": b"1"})
    assert content == standalone._archive({"a": b"1", "b/c": b"2"})
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = archive.infolist()
    assert [entry.filename for entry in entries] == ["a", "b/c"]
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert {(entry.external_attr >> 16, entry.create_system) for entry in entries} == {(0o100644, 3)}


# The one line that a fork changes


@pytest.fixture
def fork(tmp_path):
    """A book with two chapters, published elsewhere."""
    for name in ("code/upconv", "data"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "_config.yml", "_toc.yml", "references.bib"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "chapters", tmp_path / "chapters", ignore=shutil.ignore_patterns(".*"))
    return tmp_path


def change_address(root, address):
    config = root / "_config.yml"
    text = config.read_text()
    line = f"  url: {standalone.repository(root)}\n"
    assert text.count(line) == 1
    config.write_text(text.replace(line, f"  url: {address}\n"))


def test_a_fork_changes_one_line(fork, tmp_path):
    change_address(fork, "https://github.com/Some-One/a.book")
    assert standalone.site_address(fork) == "https://some-one.github.io/a.book/"
    texts = [path.read_text() for path in standalone.write(fork, tmp_path / "out")]
    assert len(texts) == len(CHAPTERS)
    owner = standalone.repository().split("/")[3]
    assert not any(owner in text for text in texts)
    assert all("https://some-one.github.io/a.book/chapters/" in text for text in texts)


def test_an_owners_own_site_has_no_folder(fork):
    for name in ("some-one", "Some-One"):
        change_address(fork, f"https://github.com/Some-One/{name}.github.io")
        assert standalone.site_address(fork) == "https://some-one.github.io/"


def test_the_address_stands_nowhere_else():
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    if not tracked:
        pytest.skip("not a git checkout")
    owner = standalone.repository().split("/")[3].encode()
    files = [name for name in tracked.split("\0") if name and (ROOT / name).is_file()]
    assert [name for name in files if owner in (ROOT / name).read_bytes()] == ["_config.yml"]


@pytest.mark.parametrize(
    "address",
    [
        "https://github.com/owner",
        "http://github.com/a/b",
        "https://gitlab.com/a/b",
        "https://github.com/a/b/",
        "https://github.com//b",
    ],
)
def test_an_address_that_colab_could_not_open_is_refused(fork, address):
    change_address(fork, address)
    with pytest.raises(ValueError, match=r"_config.yml: repository: url: .* must be https://github.com/OWNER/NAME"):
        standalone.write(fork)
    assert not (fork / "_build").exists()


def test_a_chapter_without_the_cell_or_with_two_is_refused(fork, wheel):
    path = fork / "chapters" / "01_arithmetic.ipynb"
    notebook = read(path)
    cell = set_up_cell(notebook)
    for chosen in ([c for c in notebook.cells if c is not cell], [cell, *notebook.cells]):
        cells = [dict(cell, id=f"cell-{number}") for number, cell in enumerate(chosen)]
        changed = nbformat.from_dict({**notebook, "cells": cells})
        path.write_text(nbformat.writes(changed))
        with pytest.raises(ValueError, match=r"01_arithmetic.ipynb: [02] cells with the tag bootstrap"):
            standalone.standalone(path, wheel, read_references(fork), fork)


def test_old_copies_are_removed(fork, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "08_gone.ipynb").touch()
    assert {path.name for path in standalone.write(fork, folder)} == {path.name for path in folder.iterdir()}
    for path in (fork / "chapters").glob("*.ipynb"):
        path.unlink()
    assert standalone.write(fork, folder) == [] and not folder.exists()
