"""The site is built strictly, and whole or not at all."""

import shutil
import subprocess
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output, writes

from tools.notebooks.format import normalise
from tools.site import build as build_site
from tools.site import formulas
from upconv.explorer import explore

ROOT = Path(__file__).parents[1]


@pytest.fixture
def book(tmp_path):
    """A book of one page, with this book's own configuration and extension."""
    for name in ("_config.yml", "code/tools/site/plain_math.py", "_static/custom.css", "_static/icon.svg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "_extra").mkdir()
    (tmp_path / "references.bib").touch()
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: chapters/index\n")
    (tmp_path / "chapters").mkdir()
    (tmp_path / "chapters" / "index.md").write_text("# One page\n\n$m = n$\n")
    return tmp_path


def test_a_site_is_built_with_what_it_needs(book, monkeypatch):
    """Formulas are set, icons are there; a page with an interactive figure has its script, which its source has not."""
    monkeypatch.setattr(build_site.standalone, "write", lambda root: [])
    figure = new_output("display_data", {"text/html": explore()._repr_html_()})
    notebook = normalise(
        new_notebook(cells=[new_markdown_cell("# A figure"), new_code_cell("explore()", outputs=[figure])])
    )
    text = "# One page\n\n$m < n$, [more](figure.ipynb), [$k$](#two)\n\n(two)=\n## Two\n\n$$a = b \\\\ c = d$$\n"
    (book / "chapters" / "index.md").write_text(text)
    (book / "chapters" / "figure.ipynb").write_text(writes(notebook))
    (book / "_toc.yml").write_text("format: jb-book\nroot: chapters/index\nchapters:\n  - file: chapters/figure\n")
    output = build_site.build(book)
    pages = {name: (output / "chapters" / f"{name}.html").read_text() for name in ("index", "figure")}
    assert [page.count('class="katex"') for page in pages.values()] == [3, 0]
    assert [page.count("katex.css") for page in pages.values()] == [1, 0]
    assert (
        'aria-label="k"' in pages["index"]
        and "a = b" not in pages["index"].replace("<annotation", "").partition("\\[")[2]
    )
    assert {path.suffix for path in (output / "_static/katex/fonts").iterdir()} == {".woff2"}
    assert (output / "_static/vendor/fontawesome/icons.woff").stat().st_size < 10_000

    assert [page.count("mount(true)") for page in pages.values()] == [0, 1]
    assert "data-settings=" in pages["figure"] and "makes 9 pixels of 4" in pages["figure"]
    assert "mount(" not in (output / "_sources" / "chapters" / "figure.ipynb").read_text()


def test_a_warning_is_a_failure_that_leaves_no_site_and_comes_back(book, capfd):
    faults = {
        "[nowhere](#no-such-place)": "target not found: 'no-such-place'",
        "### A skipped level": "Non-consecutive header level increase",
        "{cite}`nobody2000`": "could not find bibtex key",
    }
    (book / "chapters" / "index.md").write_text("# Page\n\n" + "\n\n".join(faults))
    for _ in range(2):
        with pytest.raises(subprocess.CalledProcessError):
            build_site.build(book)
        assert not (book / "_build" / "html").exists()
        warnings = [line for line in capfd.readouterr().err.splitlines() if "WARNING" in line]
        assert [fault for fault, words in faults.items() if not any(words in line for line in warnings)] == []


def test_what_katex_does_not_know_is_refused():
    with pytest.raises(ValueError, match=r"can't set \\nonsense: Undefined control sequence"):
        formulas.typeset([("n", False), (r"\nonsense", True)])
    with pytest.raises(ValueError, match=r"can't set n → m ü: LaTeX"):
        formulas.typeset([("n → m ü", False)])


def test_katex_is_fetched_once_and_again_when_another_is_pinned(monkeypatch, tmp_path):
    calls = []

    def npm(arguments, cwd, **settings):
        calls.append(arguments[0])
        (Path(cwd) / "node_modules" / "katex").mkdir(parents=True)

    pinned = tmp_path / "pinned"
    shutil.copytree(formulas.PINNED, pinned)
    monkeypatch.setattr(formulas, "PINNED", pinned)
    monkeypatch.setattr(formulas, "INSTALLED", tmp_path / "katex")
    monkeypatch.setattr(formulas, "npm", npm)
    assert all(formulas.katex().is_dir() for _ in range(2))
    assert calls == ["ci"]
    with (pinned / "package-lock.json").open("a") as lock:
        lock.write("\n")
    assert formulas.katex().is_dir()
    assert calls == ["ci", "ci"]


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
    monkeypatch.setattr(build_site.pages, "finish", lambda output: None)
    monkeypatch.setattr(build_site.standalone, "write", lambda root: int("no number"))
    with pytest.raises(error or ValueError):
        build_site.build(book)
    assert not output.exists()


def test_what_cannot_be_built_is_said(monkeypatch):
    monkeypatch.setattr(build_site, "build", lambda: int("no number"))
    with pytest.raises(SystemExit, match=r"The site was not built: .*no number"):
        build_site.main()
