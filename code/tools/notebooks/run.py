"""Run the chapters and store their outputs, so that every run writes the same bytes.

`python -m tools.notebooks.run` re-executes all chapters; `--chapter 06a` or a path selects some,
`--check` only says which would change, `--format-only` tidies without executing. Outputs of cells
tagged `nbval-ignore-output` (measurements) are kept while the code up to them is unchanged;
`--remeasure` takes them anew.
"""

import argparse
import os
import re
import sys
from pathlib import Path

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError

from tools.notebooks.format import IGNORED_TAG, NotebookError, dumps, loads, measurement_key, normalise, tags, where
from upconv.book.common import write_whole

__all__ = ["execute", "find_chapters", "main", "regenerate"]

CHAPTERS = Path(__file__).resolve().parents[3] / "chapters"


class _Client(NotebookClient):
    """Record what nbval records, so that nbval can compare the two."""

    def create_kernel_manager(self):
        current_python = KernelSpecManager(kernel_dirs=[])  # whatever kernelspecs are installed, as in nbval
        self.km = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=current_python)
        self.widget_registry = {}  # an Output widget's content stays an output of the cell
        return self.km

    def clear_output(self, outs, msg, cell_index):
        """Keep the outputs: nbval does not clear either."""


def find_chapters(numbers=None):
    """List the chapters' paths in order.

    Parameters
    ----------
    numbers : list of str, optional
        Chapters' numbers, as in their file names, such as `"01"` or `"06a"`; `"6"` is all whose number is 06, whatever
        their letter. All notebooks in `chapters/` if omitted.

    Returns
    -------
    list of pathlib.Path

    Raises
    ------
    NotebookError
        If there are none, or for a number that none has; that message lists the chapters.
    """
    every = sorted(CHAPTERS.glob("*.ipynb"))
    if not every:
        raise NotebookError(f"no notebooks in {CHAPTERS}; give the path of one")
    if not numbers:
        return every
    found = []
    for number in numbers:
        matches = [path for path in every if re.match(rf"0*{re.escape(number)}[a-z]?[_.]", path.name)]
        if not matches:
            names = ", ".join(path.name for path in every)
            raise NotebookError(f"--chapter {number}: none of chapters/*.ipynb has this number; choose from: {names}")
        found += matches
    return found


def execute(notebook, path, *, timeout=600, remeasure=False):
    """Run a notebook's cells, in place, in a fresh kernel of this Python.

    Parameters
    ----------
    notebook : nbformat.NotebookNode
    path : pathlib.Path
        The notebook's file; the kernel's working directory is its folder.
    timeout : int, optional
        Seconds that one cell may take.
    remeasure : bool, optional
        Replace the outputs of cells tagged `nbval-ignore-output` even if the code is unchanged.

    Returns
    -------
    nbformat.NotebookNode
        The same notebook.

    Raises
    ------
    NotebookError
        If a cell fails or takes too long, or the kernel dies.
    """
    kept, current = {}, 0
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        if IGNORED_TAG in tags(cell):
            key = measurement_key(notebook, index)
            failed = any(output.output_type == "error" for output in cell.outputs)
            if cell.metadata.get("measured") == key and not failed and not remeasure:
                kept[index] = cell.outputs
            cell.metadata["measured"] = key
        cell.outputs, cell.execution_count = [], None

    def note(cell, cell_index):
        nonlocal current
        current = cell_index

    unwanted = ("MPLBACKEND", "UPCONV_TIER", "UPCONV_DEVICE")  # draw into the notebook; store the CPU's tier
    environment = {key: value for key, value in os.environ.items() if key not in unwanted}
    environment |= {"CUDA_VISIBLE_DEVICES": "", "TQDM_DISABLE": "1"}
    client = _Client(
        notebook,
        timeout=timeout,
        record_timing=False,
        shutdown_kernel="immediate",
        # ipykernel 7 warns of its unencrypted local sockets at every start.
        extra_arguments=["--log-level=40", "--InteractiveShell.colors=NoColor"],
        on_cell_start=note,
        resources={"metadata": {"path": str(path.resolve().parent)}},
    )
    try:
        client.execute(env=environment)
    except CellExecutionError as error:
        advice = f"correct it and run again:\n{error.traceback}"
        raise NotebookError(f"{where(notebook, current, path)} failed; {advice}") from error
    except CellTimeoutError as error:
        advice = "make the cell cheaper or raise --timeout"
        raise NotebookError(f"{where(notebook, current, path)} took more than {timeout} s; {advice}") from error
    except RuntimeError as error:
        raise NotebookError(f"{path}: no kernel at cell {current + 1} ({error}); is there enough memory?") from error
    for index, outputs in kept.items():
        notebook.cells[index].outputs = outputs
        for output in outputs:
            if output.output_type == "execute_result":
                output.execution_count = notebook.cells[index].execution_count
    return notebook


def regenerate(path, *, run=True, write=True, timeout=600, remeasure=False):
    """Bring one notebook file up to date.

    Parameters
    ----------
    path : pathlib.Path
    run : bool, optional
        Execute the cells; otherwise only normalise.
    write : bool, optional
        Replace the file if its bytes change; otherwise leave it.
    timeout, remeasure
        As for :func:`execute`.

    Returns
    -------
    bool
        Whether the bytes change.
    """
    path = Path(path)
    try:
        before = path.read_bytes()
        notebook = loads(before.decode("utf-8"), path)
    except (OSError, UnicodeDecodeError) as error:
        raise NotebookError(f"{path}: cannot be read ({error}); give the path of a notebook") from error
    if run:
        execute(notebook, path, timeout=timeout, remeasure=remeasure)
    after = dumps(normalise(notebook)).encode("utf-8")
    if write and after != before:
        write_whole(path, lambda file: file.write(after))
    return after != before


def main(argv=None):
    """Run the command line.

    Parameters
    ----------
    argv : list of str, optional
        Arguments; those of the process if omitted.

    Returns
    -------
    int
        0 if all is well, 1 if a notebook failed or, with `--check`, would change; 2 for a wrong argument.
    """
    parser = argparse.ArgumentParser(description="Run the chapters and store their outputs.")
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="notebooks (default: all chapters)")
    parser.add_argument("--chapter", action="append", metavar="NN", help="a number such as 01 or 06a; repeatable")
    parser.add_argument("--list", action="store_true", help="only name the files")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a notebook would change")
    parser.add_argument("--format-only", action="store_true", help="normalise without executing")
    parser.add_argument("--remeasure", action="store_true", help=f"also replace the outputs of {IGNORED_TAG} cells")
    parser.add_argument("--timeout", type=int, default=600, metavar="S", help="seconds a cell may take (default: 600)")
    options = parser.parse_args(argv)
    try:
        paths = options.paths + (find_chapters(options.chapter) if options.chapter or not options.paths else [])
    except NotebookError as error:
        print(error, file=sys.stderr)
        return 2
    if options.list:
        print(*paths)
        return 0
    settings = dict(run=not options.format_only, write=not options.check)
    settings |= dict(timeout=options.timeout, remeasure=options.remeasure)
    status = 0
    for path in paths:
        try:
            changed = regenerate(path, **settings)
        except NotebookError as error:
            print(error, file=sys.stderr)
            status = 1
            continue
        status |= changed and options.check
        verdict = ("would change" if options.check else "rewritten") if changed else "unchanged"
        print(f"{path}: {verdict}", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
