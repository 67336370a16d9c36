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

from upconv.book.machine import default_device, default_tier

__all__ = ["Sweep", "SweepError", "execute", "main", "open_runs", "read_rows"]

RESULTS = Path(__file__).resolve().parents[2] / "data" / "results"
ABOUT = ("torch", "python", "processor", "device", "date", "seconds")


class SweepError(Exception):
    """A sweep that cannot go on; the message says which file or run, and what to do."""


class Sweep(NamedTuple):
    """A comparison: its name, its table of settings and how one run is made."""

    name: str
    settings: object  # of a tier ("mini" or "full"): a list of dicts of str, int or float, with the same keys, in order
    run: object  # run(**setting, seed=..., tier=..., device=...): a dict of numbers, with the same keys, in order
    seeds: int = 5  # the fewest that the table has


def read_rows(path):
    """Read the rows of a results file, as dicts of str; none if there is no file."""
    if not Path(path).exists():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def open_runs(sweep, tier, seeds, path):
    """List the (setting, seed) of a tier that have no row yet, seed by seed, so that a stopped sweep is balanced."""
    settings = sweep.settings(tier)
    done = {_key(row, settings[0]) for row in read_rows(path)}
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
        a local one of `jobs` workers. Its workers must have one thread each, and the package `upconv` installed.
    scheduler : str, optional
        Such as "tcp://10.0.0.1:8786".
    device : str, optional
        Where the runs compute; by default a GPU in the tier "full", if the worker has one, otherwise the CPU.
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
        If another process is writing the same file, the file has other columns than the runs, the settings or the
        measures cannot be told apart in it, the cluster's workers have several threads, or a run on a cluster fails.
    ValueError
        If `tier` or `backend` is unknown.
    """
    if tier not in ("mini", "full") or backend not in ("loky", "dask"):
        raise ValueError(f'tier={tier!r} must be "mini" or "full", and backend={backend!r} "loky" or "dask"')
    if scheduler is not None and backend != "dask":
        raise SweepError("a scheduler is Dask's: give the backend dask with it")
    _check(sweep.settings(tier))
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{sweep.name}.csv"
    try:
        lock = FileLock(folder / f".{sweep.name}.lock", timeout=0).acquire()
    except Timeout:
        raise SweepError(f"{path} is being written by another sweep; wait for it to end") from None
    with lock:
        runs = open_runs(sweep, tier, seeds, path)
        calls = [(sweep.run, setting, seed, tier, device) for setting, seed in runs]
        with contextlib.closing(_on_dask(calls, jobs, scheduler) if backend == "dask" else _here(calls, jobs)) as rows:
            for row in tqdm(rows, total=len(runs), desc=sweep.name, unit="run", disable=not progress):
                _append(path, row)
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
    parser.add_argument(
        "--seeds", type=int, default=sweep.seeds, metavar="N", help="seeds 0 to N - 1 (default: %(default)s)"
    )
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


def _check(settings):
    """Refuse settings that could not be found again in the file."""
    taken, keys = {"tier", "seed", *ABOUT}, set()
    for setting in settings:
        if list(setting) != list(settings[0]):
            raise SweepError(f"the settings have the keys {list(settings[0])}, and {list(setting)} in {setting}")
        for name, value in setting.items():
            if name in taken:
                raise SweepError(f"a setting cannot be called {name}: the file has that column for every sweep")
            if not isinstance(value, (str, int, float)) or "\r" in str(value):
                raise SweepError(f"the setting {name}={value!r} must be a str (with no carriage return), int or float")
        key = _key({**setting, "tier": "", "seed": ""}, setting)
        if key in keys:
            raise SweepError(f"two settings are the same in the file: {setting}")
        keys.add(key)


def _here(calls, jobs):
    with joblib.parallel_config(backend="loky", n_jobs=jobs):
        yield from joblib.Parallel(return_as="generator_unordered", batch_size=1)(
            joblib.delayed(_make_run)(*call) for call in calls
        )


def _on_dask(calls, jobs, scheduler):
    """Make the runs on a cluster. (joblib's own Dask backend waits for ever if a worker dies or lacks a module.)"""
    import cloudpickle  # noqa: PLC0415 - slow to import, and only needed here
    from dask.distributed import Client, LocalCluster, as_completed  # noqa: PLC0415

    for module in {__name__, *(call[0].__module__ for call in calls)} - {"__main__"}:
        cloudpickle.register_pickle_by_value(sys.modules[module])  # the workers need not have this folder
    with contextlib.ExitStack() as stack:
        if scheduler is None:
            local = dict(n_workers=jobs, threads_per_worker=1, host="127.0.0.1", dashboard_address=None)
            scheduler = stack.enter_context(LocalCluster(**local))
        client = stack.enter_context(Client(scheduler))
        threads = [worker["nthreads"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()]
        if max(threads, default=1) > 1:
            raise SweepError("a worker has several threads, which would share one seed; start it with --nthreads 1")
        futures = {client.submit(_make_run, *call, pure=False): call for call in calls}
        for future in as_completed(futures):
            try:
                yield future.result()
            except Exception as error:
                _, setting, seed, *_ = futures[future]
                raise SweepError(f"the run {setting}, seed {seed}, failed: {type(error).__name__}: {error}") from error


def _make_run(run, setting, seed, tier, device):
    """Make one run in a worker; give its row."""
    torch.set_num_threads(1)
    device = device or (default_device() if tier == "full" else "cpu")
    start = time.perf_counter()
    try:
        measures = run(**setting, seed=seed, tier=tier, device=device)
    except Exception as error:
        error.add_note(f"in the run {setting}, seed {seed}, tier {tier}")
        raise
    for name, value in measures.items():
        if name in {"tier", "seed", *setting, *ABOUT} or not isinstance(value, (str, int, float)):
            raise SweepError(f"the measure {name}={value!r} must be a number, with a name that no other column has")
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
