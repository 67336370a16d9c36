"""Run the chapters and store their outputs, so that every run writes the same bytes.

``python code/tools/notebooks.py`` re-executes all chapters; ``--chapter 01`` or a path selects some,
``--check`` only says which would change, ``--format-only`` tidies without executing. Outputs of cells
tagged ``nbval-ignore-output`` (measurements) are kept while the code up to them is unchanged;
``--remeasure`` takes them anew.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from ipykernel.kernelspec import RESOURCES, get_kernel_dict
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError

from notebook_format import ANSI, IGNORED_TAG, NotebookError, dumps, loads, measurement_key, normalise, tags, where

__all__ = ["execute", "find_chapters", "main", "regenerate"]

CHAPTERS = Path(__file__).resolve().parents[2] / "chapters"


class _CurrentPython(KernelSpecManager):
    """Start kernels with this interpreter, whatever kernelspecs are installed (nbval does the same)."""

    def get_kernel_spec(self, kernel_name):
        return KernelSpec(resource_dir=RESOURCES, **get_kernel_dict())


class _Client(NotebookClient):
    """Record what nbval records, so that nbval can compare the two."""

    def create_kernel_manager(self):
        self.km = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=_CurrentPython())
        self.widget_registry = {}  # an Output widget's content stays an output of the cell
        return self.km

    def clear_output(self, outs, msg, cell_index):
        """Keep the outputs: nbval does not clear either."""


def find_chapters(numbers=None):
    """List the chapters' paths in order.

    Parameters
    ----------
    numbers : list of str, optional
        Chapter numbers such as ``"01"``; all notebooks in ``chapters/`` if omitted.

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
        matches = [path for path in every if path.name.startswith(f"{number.zfill(2)}_")]
        if not matches:
            names = ", ".join(path.name for path in every)
            raise NotebookError(f"--chapter {number}: no chapters/{number.zfill(2)}_*.ipynb; choose from: {names}")
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
        Replace the outputs of cells tagged ``nbval-ignore-output`` even if the code is unchanged.

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
        extra_arguments=["--log-level=40"],  # ipykernel 7 warns of its unencrypted local sockets at every start
        on_cell_start=note,
        resources={"metadata": {"path": str(path.resolve().parent)}},
    )
    try:
        client.execute(env=environment)
    except CellExecutionError as error:
        trace = ANSI.sub("", error.traceback)
        raise NotebookError(f"{where(notebook, current, path)} failed; correct it and run again:\n{trace}") from error
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
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(after)
            os.chmod(temporary, path.stat().st_mode)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
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
        0 if all is well, 1 if a notebook failed or, with ``--check``, would change; 2 for a wrong argument.
    """
    parser = argparse.ArgumentParser(prog="notebooks.py", description="Run the chapters and store their outputs.")
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="notebooks (default: all chapters)")
    parser.add_argument("--chapter", action="append", metavar="NN", help="a chapter's number, such as 01; repeatable")
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
    status = 0
    for path in paths:
        try:
            changed = regenerate(
                path,
                run=not options.format_only,
                write=not options.check,
                timeout=options.timeout,
                remeasure=options.remeasure,
            )
        except NotebookError as error:
            print(error, file=sys.stderr)
            status = 1
            continue
        if options.check:
            status = max(status, int(changed))
        verdict = ("would change" if options.check else "rewritten") if changed else "unchanged"
        print(f"{path}: {verdict}", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
