"""The addresses in the pages are asked for, and what is broken is listed."""

import http.server
import json
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import check_links

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
            self.send_response(int(self.path[1:]))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self):
            self.do_HEAD()

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Statuses) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def write(book, *addresses):
    (book / "chapters" / "index.md").write_text("# Page\n\n" + "\n".join(f"- <{address}>" for address in addresses))


def test_a_link_works_or_is_broken_or_is_refused(book, server):
    config = (book / "_config.yml").read_text()
    asks_this_machine_too = re.sub(r"(linkcheck_ignore:).*", r"\1 []", config)
    assert asks_this_machine_too != config
    (book / "_config.yml").write_text(asks_this_machine_too)
    write(book, *(f"{server}/{status}" for status in (200, 403, 404)), "http://no-such-host.invalid/")
    working, broken, refused = check_links.check(book)
    assert working == [f"{server}/200"]
    assert [line.split(": ")[:2] for line in refused] == [["chapters/index.md", f"{server}/403"]]
    assert sorted(line.split(": ")[1] for line in broken) == [f"{server}/404", "http://no-such-host.invalid/"]
    assert all(line.startswith("chapters/index.md: http") and line.count(": ") > 1 for line in broken)


def test_what_a_status_means(monkeypatch, tmp_path):
    rows = {
        "working": "",
        "redirected": "to https://a.org/b",
        "unchecked": "",
        "ignored": "",
        "broken": "404 Client Error: Not Found",
        "timeout": "read timed out",
    }
    found = [
        *rows.items(),
        ("broken", "403 Client Error: Forbidden"),
        ("broken", "429 Client Error: Too Many Requests"),
    ]

    def run(command, check):
        output = tmp_path / "_build" / "links" / "_build" / "linkcheck" / "output.json"
        output.parent.mkdir(parents=True)
        lines = [dict(filename="a.md", uri=f"u{n}", status=status, info=info) for n, (status, info) in enumerate(found)]
        output.write_text("\n".join(map(json.dumps, lines)))
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(check_links.subprocess, "run", run)
    working, broken, refused = check_links.check(tmp_path)
    assert working == ["u0", "u1"]
    assert [line.split(": ")[1] for line in broken] == ["u4", "u5"]
    assert [line.split(": ")[1] for line in refused] == ["u6", "u7"]


def test_this_machines_own_addresses_are_not_asked_for(book):
    write(book, "http://127.0.0.1:8000/", "http://localhost/")
    assert check_links.check(book) == ([], [], [])


def test_a_book_that_cannot_be_read_is_no_book_without_broken_links(book):
    (book / "_toc.yml").write_text("root: [")
    with pytest.raises(subprocess.CalledProcessError):
        check_links.check(book)


@pytest.mark.parametrize("broken, status", [([], 0), (["page: address: reason"], 1)])
def test_only_a_broken_link_is_a_failure(broken, status, monkeypatch, capsys):
    monkeypatch.setattr(check_links, "check", lambda: (["a"], broken, ["page: address: 403"]))
    with pytest.raises(SystemExit) as stop:
        check_links.main()
    assert int(stop.value.code) == status
    printed = capsys.readouterr().out
    assert all(f"\n  {line}\n" in printed for line in [*broken, "page: address: 403"])
    assert f"1 links work, {len(broken)} are broken, 1 were refused" in printed


def test_nothing_can_be_said_of_pages_that_cannot_be_read(monkeypatch):
    def fail():
        raise subprocess.CalledProcessError(2, [sys.executable])

    monkeypatch.setattr(check_links, "check", fail)
    with pytest.raises(SystemExit, match="could not be read"):
        check_links.main()
