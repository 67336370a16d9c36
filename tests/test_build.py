"""The site is built strictly, and whole or not at all."""

import shutil
import subprocess
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, writes

from tools.notebooks.format import normalise
from tools.site import build as build_site
from upconv.explorer import explore

ROOT = Path(__file__).parents[1]


@pytest.fixture
def book(tmp_path):
    """A book of one page, with this book's own configuration and extension."""
    for name in ("_config.yml", "code/tools/site/offline_mathjax.py", "_static/custom.css"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "_extra").mkdir()
    (tmp_path / "references.bib").touch()
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: chapters/index\n")
    (tmp_path / "chapters").mkdir()
    (tmp_path / "chapters" / "index.md").write_text("# One page\n\n$m = n$\n")
    return tmp_path


def test_a_site_is_built_with_what_it_needs(book):
    output = build_site.build(book)
    assert "One page" in (output / "chapters" / "index.html").read_text()
    assert (output / "_static" / "mathjax" / "tex-chtml-full.js").is_file()


def test_a_page_with_an_interactive_figure_gets_its_script_and_its_source_does_not(book, monkeypatch):
    monkeypatch.setattr(build_site.standalone, "write", lambda root: [])
    figure = new_output("display_data", {"text/html": explore()._repr_html_()})
    notebook = normalise(
        new_notebook(cells=[new_markdown_cell("# A figure"), new_code_cell("explore()", outputs=[figure])])
    )
    (book / "chapters" / "index.md").write_text("# One page\n\n[more](figure.ipynb)\n")
    (book / "chapters" / "figure.ipynb").write_text(writes(notebook))
    (book / "_toc.yml").write_text("format: jb-book\nroot: chapters/index\nchapters:\n  - file: chapters/figure\n")
    output = build_site.build(book)
    pages = {name: (output / "chapters" / f"{name}.html").read_text() for name in ("index", "figure")}
    assert [page.count("mount(true)") for page in pages.values()] == [0, 1]
    assert "data-settings=" in pages["figure"] and "makes 9 pixels of 4" in pages["figure"]
    assert "mount(" not in (output / "_sources" / "chapters" / "figure.ipynb").read_text()


@pytest.mark.parametrize(
    "page",
    ["# Page\n\n[nowhere](#no-such-place)\n", "# Page\n\n### A skipped level\n", "# Page\n\n{cite}`nobody2000`\n"],
    ids=["broken link", "skipped heading", "unknown citation"],
)
def test_a_warning_is_a_failure_that_leaves_no_site_and_comes_back(book, page):
    (book / "chapters" / "index.md").write_text(page)
    for _ in range(2):
        with pytest.raises(subprocess.CalledProcessError):
            build_site.build(book)
        assert not (book / "_build" / "html").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, None])
def test_what_breaks_off_leaves_no_site(book, monkeypatch, error):
    """A build that was interrupted, or a copy of a chapter that can't be made: neither passes for a site."""
    output = book / "_build" / "html"

    def breaks_off(*arguments, **settings):
        output.mkdir(parents=True)
        (output / "index.html").write_text("half")
        if error:
            raise error

    monkeypatch.setattr(subprocess, "run", breaks_off)
    monkeypatch.setattr(build_site.standalone, "write", lambda root: int("no number"))
    with pytest.raises(error or ValueError):
        build_site.build(book)
    assert not output.exists()


def test_what_cannot_be_built_is_said(monkeypatch):
    monkeypatch.setattr(build_site, "build", lambda: int("no number"))
    with pytest.raises(SystemExit, match=r"The site was not built: .*no number"):
        build_site.main()
