"""Long comparisons: a table of settings x seeds, run in parallel, one row a run in `data/results/<name>.csv`.

A program in this folder describes its comparison as a `Sweep` and hands it to `main`, which gives it a command line. A
sweep that was stopped goes on where it stopped: a run whose row is in the file is not made again.
"""

import argparse
import contextlib
import csv
import datetime
import io
import os
import platform
import sys
import time
from pathlib import Path
from typing import NamedTuple

import joblib
import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

from upconv.book.training import default_tier

__all__ = ["Sweep", "SweepError", "execute", "main", "open_runs", "read_rows"]

RESULTS = Path(__file__).resolve().parents[2] / "data" / "results"
ABOUT = ("torch", "python", "processor", "device", "date", "seconds")


class SweepError(Exception):
    """A sweep that cannot go on; the message says which file or run, and what to do."""


class Sweep(NamedTuple):
    """A comparison: its name, its table of settings and how one run is made."""

    name: str
    settings: object  # of a tier ("mini" or "full"): a list of dicts of str, int or float, with the same keys
    run: object  # run(**setting, seed=..., tier=..., device=...): a dict of measures, with the same keys


def read_rows(path):
    """Read the rows of a results file, as dicts of str; none if there is no file."""
    if not Path(path).exists():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def open_runs(sweep, tier, seeds, path):
    """List the (setting, seed) of a tier that have no row yet, seed by seed, so that a stopped sweep is balanced."""
    settings = sweep.settings(tier)
    done = {_key({**row, "tier": row["tier"]}, settings[0]) for row in read_rows(path)}
    runs = [(setting, seed) for seed in range(seeds) for setting in settings]
    return [run for run in runs if _key({**run[0], "seed": run[1], "tier": tier}, settings[0]) not in done]


def execute(sweep, *, tier, seeds, jobs=1, backend="loky", scheduler=None, device=None, folder=RESULTS, progress=True):
    """Make the runs that are missing, and append the row of each as it ends.

    Parameters
    ----------
    sweep : Sweep
    tier : str
        "mini" or "full".
    seeds : int
        The seeds are 0 to seeds - 1.
    jobs : int
        Runs at a time; each uses one thread.
    backend : str
        "loky" for processes on this machine; "dask" for a Dask cluster: the one whose scheduler's address is given, or
        a local one of `jobs` workers.
    scheduler : str, optional
        Such as "tcp://10.0.0.1:8786".
    device : str, optional
        Where the runs compute; by default a GPU in the tier "full", if there is one, otherwise the CPU.
    folder : pathlib.Path
        Where the file is; by default data/results.
    progress : bool
        Whether to show a bar with the time that is left.

    Returns
    -------
    int
        The number of runs made.

    Raises
    ------
    SweepError
        If another process is writing the same file, or the file has other columns than the runs.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{sweep.name}.csv"
    device = device or ("cuda" if tier == "full" and torch.cuda.is_available() else "cpu")
    try:
        with FileLock(folder / f".{sweep.name}.lock", timeout=0), _workers(backend, jobs, scheduler):
            runs = open_runs(sweep, tier, seeds, path)
            calls = (joblib.delayed(_make_run)(sweep.run, setting, seed, tier, device) for setting, seed in runs)
            results = joblib.Parallel(return_as="generator_unordered", batch_size=1)(calls)
            for row in tqdm(results, total=len(runs), desc=sweep.name, unit="run", disable=not progress):
                _append(path, row)
    except Timeout:
        raise SweepError(f"{path} is being written by another sweep; wait for it to end") from None
    return len(runs)


def main(sweep, argv=None):
    """Run a sweep from the command line.

    Parameters
    ----------
    sweep : Sweep
    argv : list of str, optional
        Arguments; those of the process if omitted.

    Returns
    -------
    int
        0 if all runs are done, 1 if the sweep could not go on.
    """
    parser = argparse.ArgumentParser(description=f"Make the missing rows of data/results/{sweep.name}.csv.")
    parser.add_argument("--tier", choices=("mini", "full"), default=default_tier(), help="default here: %(default)s")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="seeds 0 to N - 1 (default: 5)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time, one thread each (default: 1)")
    parser.add_argument("--backend", choices=("loky", "dask"), default="loky")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask cluster; without it a local one is started")
    parser.add_argument("--device", help="such as cuda:1; by default a GPU for the tier full, if there is one")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where the file is (default: data/results)")
    try:
        made = execute(sweep, **vars(parser.parse_args(argv)))
    except SweepError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{made} runs made; {sweep.name}.csv is complete")
    return 0


def _key(row, setting):
    return (str(row["tier"]), str(row["seed"]), *(str(row.get(name)) for name in sorted(setting)))


@contextlib.contextmanager
def _workers(backend, jobs, scheduler):
    if backend == "loky":
        with joblib.parallel_config(backend="loky", n_jobs=jobs):
            yield
        return
    from dask.distributed import Client, LocalCluster  # noqa: PLC0415 - slow to import, and only needed here

    with contextlib.ExitStack() as stack:
        if scheduler is None:
            local = dict(n_workers=jobs, threads_per_worker=1, host="127.0.0.1", dashboard_address=None)
            scheduler = stack.enter_context(LocalCluster(**local))
        client = stack.enter_context(Client(scheduler))
        stack.enter_context(joblib.parallel_config(backend="dask", client=client, n_jobs=-1))
        yield


def _make_run(run, setting, seed, tier, device):
    """Make one run in a worker; give its row."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    try:
        measures = run(**setting, seed=seed, tier=tier, device=device)
    except Exception as error:
        error.add_note(f"in the run {setting}, seed {seed}, tier {tier}")
        raise
    on_gpu = torch.device(device).type == "cuda"
    about = (
        torch.__version__,
        platform.python_version(),
        _processor(),
        torch.cuda.get_device_name(device) if on_gpu else "cpu",
        datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        round(time.perf_counter() - start, 1),
    )
    return {"tier": tier, **setting, "seed": seed, **measures, **dict(zip(ABOUT, about, strict=True))}


def _processor():
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _append(path, row):
    """Add a row; whenever the process ends, the file has either all of it or nothing of it."""
    rows = read_rows(path)
    if rows and list(rows[0]) != list(row):
        raise SweepError(
            f"{path} has the columns {', '.join(rows[0])}, and this run has {', '.join(row)}: the program was changed; "
            f"rename the file and start anew"
        )
    text = io.StringIO()
    writer = csv.DictWriter(text, list(row), lineterminator="\n")
    writer.writeheader()
    writer.writerows([*rows, row])
    temporary = path.with_name(f".{path.name}.new")
    with open(temporary, "w", encoding="utf-8", newline="") as file:
        file.write(text.getvalue())
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
