"""Settings for the unit tests, and a server for some; what holds for the chapters too is in the conftest.py above."""

import os
import shutil
import socket
import socketserver
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():  # the GPU's kernel runs in Triton's interpreter, which has to be known at its import
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True)
def seeded():
    """Draw the same tensors in every test, on one thread, and leave PyTorch's random state as it was."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def browser():
    """Give one to all tests of a process: Playwright starts but once. Where it has to be there, no test is skipped."""
    chromium = shutil.which("chromium")
    if not os.environ.get("UPCONV_REQUIRE_BROWSER"):
        pytest.importorskip("playwright")
        if chromium is None:
            pytest.skip("chromium is not on the path: on Debian, apt-get install chromium")
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - only where there is a browser

    from tools.site.cheatsheet import FLAGS  # noqa: PLC0415

    alone = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"  # no other host has an address
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--headless", alone, *(f"--{flag}" for flag in FLAGS.split())]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def axe():
    """Give axe-core, to be added to a page: `axe.run()` finds what keeps people from using it."""
    if not os.environ.get("UPCONV_REQUIRE_BROWSER"):
        pytest.importorskip("axe_playwright_python", reason="no axe_playwright_python: `make venv` installs it")
    import axe_playwright_python  # noqa: PLC0415 - the tests without a browser do without

    return (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """Keep a test off the network, the user's cache and the user's data; give the folder of its own cache."""
    resolve = socket.getaddrinfo

    def resolve_loopback(host, *arguments, **options):
        assert host == "127.0.0.1", f"a test asked for the address of {host}"
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_loopback)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name in ("UPCONV_DATA", "UPCONV_CHECKPOINTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("UPCONV_CACHE", str(tmp_path / "cache" / "upconv"))
    return tmp_path / "cache" / "upconv"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.lstrip("/")
        self.server.requests.append(name)
        body = self.server.bodies.get(name)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.stop_after])

    def log_message(self, *arguments):
        pass


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = False  # so that server_close waits for them


@pytest.fixture
def server(cache):
    """A server at `address`: it gives `bodies`, by name, or only the first `stop_after` bytes, and keeps `requests`."""
    with Server(("127.0.0.1", 0), Handler) as server:
        server.bodies, server.requests, server.stop_after = {}, [], None
        server.address = f"http://127.0.0.1:{server.server_address[1]}/"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
