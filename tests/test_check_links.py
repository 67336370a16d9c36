"""The addresses in the pages are asked for, and what is broken is listed."""

import http.server
import re
import shutil
import threading
import time
from pathlib import Path

import pytest

from tools.site import check_links

ROOT = Path(__file__).parents[1]


@pytest.fixture
def book(tmp_path):
    """A book without its one page, with this book's own configuration and extensions."""
    shutil.copy(ROOT / "_config.yml", tmp_path)
    shutil.copytree(ROOT / "code" / "tools", tmp_path / "code" / "tools")
    (tmp_path / "references.bib").touch()
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: chapters/index\n")
    (tmp_path / "chapters").mkdir()
    (tmp_path / "_extra").mkdir()
    (tmp_path / "_static").mkdir()
    return tmp_path


@pytest.fixture
def server():
    class Statuses(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            status = int(self.path[1:])
            time.sleep(2 * (status == 408))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.send_header("Location", "/200")
            self.end_headers()

        def do_GET(self):
            self.do_HEAD()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Statuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def write(book, *addresses):
    (book / "chapters" / "index.md").write_text("# Page\n\n" + "\n".join(f"- <{address}>" for address in addresses))


def test_a_link_works_or_is_broken_or_is_refused(book, server):
    config = (book / "_config.yml").read_text()
    for name, value in dict(ignore=[], retries=1, timeout=1, rate_limit_timeout=0).items():  # asks this machine too
        config, count = re.subn(rf"(linkcheck_{name}:).*", rf"\1 {value}", config)
        assert count == 1
    (book / "_config.yml").write_text(config)
    write(book, *(f"{server}/{status}" for status in (200, 302, 403, 404, 408, 429)), "http://no-such-host.invalid/")
    working, broken, refused = check_links.check(book)
    assert sorted(working) == [f"{server}/200", f"{server}/302"]
    listed = [line.split(": ")[:2] for line in sorted(broken) + sorted(refused)]
    expected = [f"{server}/404", f"{server}/408", "http://no-such-host.invalid/", f"{server}/403", f"{server}/429"]
    assert listed == [["chapters/index.md", address] for address in expected]
    assert len(refused) == 2
    assert "404 Client Error: Not Found" in "".join(broken)


def test_this_machines_own_addresses_are_not_asked_for(book):
    write(book, "http://127.0.0.1:8000/", "http://localhost/")
    assert check_links.check(book) == ([], [], [])


def test_a_book_that_cannot_be_read_is_no_book_without_broken_links(book, monkeypatch):
    (book / "_toc.yml").write_text("root: [")
    check = check_links.check
    monkeypatch.setattr(check_links, "check", lambda: check(book))
    with pytest.raises(SystemExit, match="could not be read"):
        check_links.main()


@pytest.mark.parametrize("broken, status", [([], 0), (["page: address: reason"], 1)])
def test_only_a_broken_link_is_a_failure(broken, status, monkeypatch, capsys):
    monkeypatch.setattr(check_links, "check", lambda: (["a"], broken, ["page: address: 403"]))
    with pytest.raises(SystemExit) as stop:
        check_links.main()
    assert int(stop.value.code) == status
    printed = capsys.readouterr().out
    assert all(f"\n  {line}\n" in printed for line in [*broken, "page: address: 403"])
    assert f"1 links work, {len(broken)} are broken, 1 were refused" in printed
