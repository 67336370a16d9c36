"""The site is built once for every state of its sources, and strictly."""

import shutil
import subprocess
from pathlib import Path

import pytest

import build_site

ROOT = Path(__file__).parents[1]


@pytest.fixture
def book(tmp_path):
    """A book of one page, with this book's own configuration and extension."""
    for name in ("_config.yml", "code/tools/offline_mathjax.py", "_static/custom.css"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "_extra").mkdir()
    (tmp_path / "references.bib").touch()
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: chapters/index\n")
    (tmp_path / "chapters").mkdir()
    (tmp_path / "chapters" / "index.md").write_text("# One page\n\n$m = n$\n")
    return tmp_path


def test_a_site_is_built_once_and_again_only_after_a_change(book, monkeypatch, capfd):
    output = build_site.build(book)
    assert "One page" in (output / "chapters" / "index.html").read_text()
    assert (output / "_static" / "mathjax" / "tex-chtml-full.js").is_file()

    def fail(*arguments, **settings):
        raise AssertionError("built again")

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", fail)
        assert build_site.build(book) == output
        assert "up to date" in capfd.readouterr().out
        (book / "chapters" / "index.md").write_text("# Another page\n")
        with pytest.raises(AssertionError, match="built again"):
            build_site.build(book)
    assert "Another page" in (build_site.build(book) / "chapters" / "index.html").read_text()


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


def test_what_breaks_off_is_not_up_to_date(book, monkeypatch):
    """A build that was killed, or a copy of a chapter that can't be made: neither passes for a site."""

    def breaks_off(error):
        def run(*arguments, **settings):
            (book / "_build" / "html").mkdir(parents=True, exist_ok=True)
            (book / "_build" / "html" / "index.html").write_text("half")
            if error:
                raise error

        return run

    stamp = book / "_build" / "html.sha256"
    stamp.parent.mkdir()
    stamp.write_text(build_site.fingerprint(book))
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", breaks_off(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            build_site.build(book)
        assert not stamp.exists()
        patch.setattr(subprocess, "run", breaks_off(None))
        patch.setattr(build_site.standalone, "write", lambda root: int("no number"))
        with pytest.raises(ValueError, match="no number"):
            build_site.build(book)
        assert not (book / "_build" / "html").exists() and not stamp.exists()
        patch.setattr(build_site, "build", lambda: int("no number"))
        with pytest.raises(SystemExit, match=r"The site was not built: .*no number"):
            build_site.main()


def test_every_source_of_the_book_counts(tmp_path):
    names = [path.relative_to(ROOT).as_posix() for path in build_site.sources()]
    for name in ("_config.yml", "_toc.yml", "chapters/index.ipynb", "chapters/claims.md", "code/upconv/arithmetic.py"):
        assert name in names
    copied = ("pyproject.toml", "README.md", "LICENSE", "data/fashion_mnist_mini.npz", "data/results/unet.csv")
    assert set(copied) <= set(names)  # what goes into the chapters' copies
    assert not any(name.startswith(("_build", ".venv")) for name in names)
