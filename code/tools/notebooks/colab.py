"""Run the chapters' copies in an environment like Google Colab's: no package `upconv`, another folder, no network.

`make test-colab` makes the environment `_build/colab`, and with it this program puts the copies into an empty folder,
cuts the network, and there runs `pytest --nbval`. Then it looks at what the chapters left on the disk, and whether the
progress bar shows in that old ipywidgets.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat

from tools.notebooks import standalone

__all__ = ["CUT", "cut_off", "leftovers", "main", "variables"]

ROOT = Path(__file__).resolve().parents[3]
# Other packages' own files, by where they lie in the home folder.
OTHERS = ".cache/matplotlib .config/matplotlib .ipython .jupyter .local/share/jupyter".split()
CUT = '''\
"""Python imports this by itself: no connection but those to this machine, no address but its own."""

import sys


def refuse(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[1]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        address = arguments
    else:
        return
    host = address[0] if isinstance(address, tuple) else None  # a path is a socket of this machine
    if host not in (None, "", "localhost", "127.0.0.1", "::1", b"localhost", b"127.0.0.1"):
        raise OSError(f"the network is cut: {event} {host}")


sys.addaudithook(refuse)
'''
# Brings up the loopback interface (SIOCSIFFLAGS, IFF_UP) of a network namespace, then becomes the command.
ALONE = """
import fcntl, os, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH14s", b"lo", 1, b""))
os.execvp(sys.argv[1], sys.argv[1:])
"""
CHECK = """
import importlib.util, socket, sys
assert importlib.util.find_spec("upconv") is None, "upconv is installed"
try:
    socket.create_connection(("192.0.2.1", 80), timeout=5)  # an address for documentation, RFC 5737
except TimeoutError:
    raise
except OSError as error:
    print("no network:", error)
else:
    sys.exit("the network is not cut")
"""
EXECUTE = "from nbclient.cli import main; main()"
BAR = """
import torch
from upconv.book.training import train

images = torch.rand(64, 1, 28, 28)
settings = dict(steps=300, batch_size=16, learning_rate=0.01, seed=0)
losses = train(torch.nn.Conv2d(1, 1, 3, padding=1), images, progress="a bar", **settings)
"""


def variables(folder):
    """Give environment variables for a run in a folder of its own: a new home, nothing of this book's, no network."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
    paths = {"HOME": folder / "home", "TMPDIR": folder / "tmp", "PYTHONPATH": folder / "cut"}
    for path in paths.values():
        path.mkdir()
    (folder / "cut" / "sitecustomize.py").write_text(CUT, encoding="utf-8")
    return {**kept, **{name: str(path) for name, path in paths.items()}, "PYDEVD_DISABLE_FILE_VALIDATION": "1"}


def cut_off(command):
    """Put a command into a network namespace that has the loopback interface alone; as it is where that can't be."""
    for options in (["--net"], ["--net", "--map-root-user"]) if shutil.which("unshare") else ():
        prefix = ["unshare", *options, sys.executable, "-c", ALONE]
        if subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode == 0:
            return [*prefix, *map(str, command)]
    return [str(word) for word in command]


def leftovers(folder):
    """List what lies in the home and temporary folders, but for the book's one folder and other packages' own.

    Returns
    -------
    list of str
    """
    home = folder / "home"
    known = [home / ".cache" / "upconv", *(home / name for name in OTHERS)]
    files = [path for place in (home, folder / "tmp") for path in sorted(place.rglob("*")) if not path.is_dir()]
    return [str(path.relative_to(folder)) for path in files if not any(path.is_relative_to(other) for other in known)]


def bar_shown(notebook):
    """Say whether a notebook's output has a progress bar that reached its end."""
    views = [output for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    stored = notebook.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {})
    widgets = stored.get("state", {}).values()
    bars = [widget["state"] for widget in widgets if widget["model_name"] == "FloatProgressModel"]
    shown = any("application/vnd.jupyter.widget-view+json" in output["data"] for output in views)
    return shown and any(bar.get("value") == bar.get("max") == 300 for bar in bars)


def main(argv=None):
    """Run all; `argv` chooses chapters by the beginnings of their names."""
    wanted = tuple(sys.argv[1:] if argv is None else argv) or ("",)
    python = ROOT / "_build" / "colab" / "bin" / "python"
    copies = [path for path in standalone.write() if path.name.startswith(wanted)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        work = folder / "work"
        work.mkdir()
        settings = dict(cwd=work, env=variables(folder))
        subprocess.run(cut_off([python, "-c", CHECK]), check=True, **settings)
        for path in copies:
            shutil.copy(path, work)
        options = ["--nbval", "--numprocesses", "2", "--dist", "loadfile", "--quiet", "-p", "no:cacheprovider"]
        tests = [python, "-m", "pytest", *options, *(path.name for path in copies)]
        failed = subprocess.run(cut_off(tests), check=False, **settings).returncode
        bar = nbformat.v4.new_notebook()
        set_up = standalone.set_up_source(standalone.build_wheel(), {}, standalone.site_address())
        bar.cells = [nbformat.v4.new_code_cell(source) for source in (set_up, BAR)]
        nbformat.write(bar, work / "bar.ipynb")
        subprocess.run(cut_off([python, "-c", EXECUTE, "--inplace", "bar.ipynb"]), check=True, **settings)
        shown = bar_shown(nbformat.read(work / "bar.ipynb", 4))
        print("The progress bar is", "shown" if shown else "NOT shown")
        left = leftovers(folder) + sorted(
            path.name for path in work.iterdir() if path.name not in {"bar.ipynb", *(path.name for path in copies)}
        )
        print("Files left outside the book's folder:", ", ".join(left) or "none")
    return int(bool(failed or left or not shown))


if __name__ == "__main__":
    sys.exit(main())
