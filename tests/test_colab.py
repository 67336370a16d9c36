"""What `make test-colab` rests on: the network is cut, leftovers are found, a bar is seen. It runs on its own."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import nbformat
import pytest
from packaging.requirements import Requirement

from tools.notebooks import colab


@pytest.fixture
def settings(tmp_path):
    return colab.variables(tmp_path)


def python(source, settings, wrap=list):
    command = wrap([sys.executable, "-c", source])
    return subprocess.run(command, env=settings, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def port():
    """A server on the loopback interface that answers once."""
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(30)

    def answer():
        with contextlib.suppress(OSError), server.accept()[0] as connection:
            connection.sendall(b"hello")

    thread = threading.Thread(target=answer)
    thread.start()
    yield server.getsockname()[1]
    server.close()
    thread.join()


@pytest.mark.parametrize(
    "attempt",
    [
        "socket.create_connection(('192.0.2.1', 80), 5)",
        "socket.create_connection(('example.org', 80), 5)",
        "socket.getaddrinfo('example.org', 443)",
        "socket.gethostbyname('example.org')",
        "socket.gethostbyaddr('192.0.2.1')",
        "socket.getaddrinfo('0.0.0.0', 80)",
        "socket.socket().connect(('192.0.2.1', 80))",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendmsg([b'x'], [], 0, ('192.0.2.1', 53))",
        "urllib.request.urlopen('http://192.0.2.1/')",
        "subprocess.run([sys.executable, '-c', 'import socket; socket.gethostbyname(\"example.org\")'], check=True)",
    ],
)
def test_no_connection_leaves_the_machine(settings, attempt):
    found = python(f"import socket, subprocess, sys, urllib.request\n{attempt}", settings)
    assert found.returncode == 1 and "the network is cut" in found.stderr


def test_connections_to_the_machine_itself_work(settings, port):
    source = f"import socket; print(socket.create_connection(('127.0.0.1', {port}), 5).recv(5).decode())"
    found = python(source, settings)
    assert found.stdout == "hello\n", found.stderr
    hosts = ["localhost", b"localhost", "127.0.0.1", "::1", "", None]
    source = f"import socket\nfor host in {hosts}: socket.getaddrinfo(host, 80)"
    assert "the network is cut" not in python(source, settings).stderr  # whether it has IPv6 or not
    assert python("import socket; a, b = socket.socketpair(); a.send(b'x'); print(b.recv(1))", settings).returncode == 0


def test_a_namespace_has_the_loopback_interface_alone():
    if colab.cut_off(["true"]) == ["true"]:
        pytest.skip("network namespaces are not to be had here")
    plain = {"PATH": os.environ["PATH"]}  # without the guard in Python
    server = "s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname(), 5)"
    assert python(f"import socket; {server}; print('inside')", plain, colab.cut_off).stdout == "inside\n"
    found = python("import socket; socket.create_connection(('192.0.2.1', 80), 5)", plain, colab.cut_off)
    assert found.returncode == 1 and "unreachable" in found.stderr
    names = python("import socket; print([name for _, name in socket.if_nameindex()])", plain, colab.cut_off).stdout
    assert names == "['lo']\n"


def test_the_check_before_a_run_refuses_an_installed_package_and_an_open_network(settings, port, tmp_path):
    assert "upconv is installed" in python(colab.CHECK, settings).stderr  # this environment has it
    check = colab.CHECK.replace('"upconv"', '"no_such_package"')
    assert python(check, settings).stdout.startswith("no network: the network is cut")
    (tmp_path / "cut" / "sitecustomize.py").unlink()
    opened = check.replace('("192.0.2.1", 80)', f'("127.0.0.1", {port})')
    assert "the network is not cut" in python(opened, settings).stderr


def test_nothing_of_the_environment_outside_gets_in(tmp_path, monkeypatch):
    outside = "UPCONV_TIER UPCONV_DATA UPCONV_CACHE PYTHONPATH TQDM_DISABLE PYTEST_VERSION XDG_CACHE_HOME"
    for name in outside.split():
        monkeypatch.setenv(name, "outside")
    found = colab.variables(tmp_path)
    assert "outside" not in found.values()
    for name, place in (("HOME", "home"), ("TMPDIR", "tmp"), ("PYTHONPATH", "cut")):
        assert Path(found[name]) == tmp_path / place and (tmp_path / place).is_dir()


def test_files_outside_the_books_folder_are_found(settings, tmp_path):
    kept = ["home/.cache/matplotlib/fonts", "home/.cache/upconv/checkpoints/a", "home/.ipython/history"]
    others = ["home/.cache/other", "home/.cache/scikit-image/photo", "home/notes", "tmp/deep/file"]
    for name in kept + others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "tmp" / "link").symlink_to("nowhere")
    assert colab.leftovers(tmp_path) == [*others, "tmp/link"]


@pytest.mark.parametrize(
    "value, end, shown, seen",
    [(300, 300, 1, True), (299, 300, 1, False), (5, 5, 1, False), (300, 300, 0, False)],
)
def test_a_bar_is_seen_if_it_was_shown_and_reached_its_end(value, end, shown, seen):
    view = nbformat.v4.new_output("display_data", {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}})
    cells = [nbformat.v4.new_markdown_cell("x"), nbformat.v4.new_code_cell("x", outputs=[view] * shown)]
    state = {"1": {"model_name": "FloatProgressModel", "state": {"value": value, "max": end}}}
    widgets = {"application/vnd.jupyter.widget-state+json": {"state": state}}
    assert colab.bar_shown(nbformat.v4.new_notebook(cells=cells, metadata={"widgets": widgets})) is seen


@pytest.mark.parametrize("failed, left, shown", [(0, [], True), (1, [], True), (0, ["tmp/a"], True), (0, [], False)])
def test_a_failure_a_leftover_or_a_missing_bar_is_a_failure(monkeypatch, tmp_path, capsys, failed, left, shown):
    commands = []
    for name in ("01_a.ipynb", "02_b.ipynb"):
        (tmp_path / name).touch()

    def run(command, **settings):
        commands.append([str(word) for word in command])
        return subprocess.CompletedProcess(command, failed if "pytest" in commands[-1] else 0)

    monkeypatch.setattr(colab.subprocess, "run", run)
    monkeypatch.setattr(colab, "cut_off", lambda command: ["cut", *command])
    monkeypatch.setattr(colab, "bar_shown", lambda notebook: shown)
    monkeypatch.setattr(colab, "leftovers", lambda folder: left)
    monkeypatch.setattr(colab.standalone, "write", lambda: sorted(tmp_path.glob("*.ipynb")))
    monkeypatch.setattr(colab.standalone, "build_wheel", lambda: b"")
    assert colab.main(["02"]) == int(bool(failed or left or not shown))
    checked, tested, drawn = commands
    assert all(command[0] == "cut" for command in commands)
    assert checked[-1] == colab.CHECK and drawn[-1] == "bar.ipynb"
    assert "--nbval" in tested and tested[-1] == "02_b.ipynb" and "01_a.ipynb" not in tested
    printed = capsys.readouterr().out
    assert f"bar is {'shown' if shown else 'NOT shown'}" in printed and (left or ["none"])[0] in printed


def test_the_package_allows_colabs_versions_of_all_that_the_chapters_import():
    project = tomllib.loads((colab.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (colab.ROOT / "tests" / "colab-2026-08.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and line[0] != "#")
    for text in project["dependencies"] + project["optional-dependencies"]["book"]:
        needed = Requirement(text)
        assert needed.name in pins and needed.specifier.contains(pins[needed.name]), text
    assert "upconv" not in pins  # the chapters bring it
