"""The site is built strictly, and whole or not at all."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tools.site import build as build_site

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
