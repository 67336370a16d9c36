"""Long comparisons: a table of settings x seeds, run in parallel, one row a run in `data/results/<name>.csv`.

The modules beside this one describe a comparison each, as a `Sweep`; `main` is their command line. A sweep that was
stopped goes on where it stopped: a run whose row is in the file is not made again. Every row carries a hash of its
protocol, and rows of two protocols are not mixed.
"""

import argparse
import contextlib
import csv
import datetime
import hashlib
import io
import json
import platform
import sys
import time
from pathlib import Path
from typing import NamedTuple

import joblib
import torch
from filelock import FileLock, Timeout

from upconv.book.common import check_choice, checked_int, progress_bar, write_whole
from upconv.book.machine import TIERS, default_device

__all__ = [
    "Sweep",
    "SweepError",
    "by_protocol",
    "execute",
    "main",
    "open_runs",
    "processor",
    "protocol_hash",
    "read_rows",
]

RESULTS = Path(__file__).resolve().parents[3] / "data" / "results"
ABOUT = ("protocol", "torch", "python", "processor", "device", "date", "seconds")


class SweepError(Exception):
    """A sweep that cannot go on; the message says which file or run, and what to do."""


class Sweep(NamedTuple):
    """A comparison: its name, its table of settings, how one run is made, and what the settings don't say of that."""

    name: str
    settings: object  # of a tier ("mini" or "full"): a list of dicts of str, int or float, with the same keys, in order
    run: object  # run(**setting, seed=..., tier=..., device=...): a dict of numbers, with the same keys, in order
    protocol: object  # of a setting and a tier: what else decides a run (network, schedule, data), in JSON's terms
    seeds: object = 5  # that the table has: an int, or a function of a setting
    alone: bool = False  # whether it measures times, so that nothing may run beside a run
    run_together: object = None  # run_together(**setting, seeds=..., tier=..., device=...): a list of dicts, one a seed

    def seeds_of(self, setting):
        """Give the number of seeds that the table has of a setting."""
        return self.seeds(setting) if callable(self.seeds) else self.seeds


def read_rows(path):
    """Read the rows of a results file, as dicts of str; none if there is no file."""
    if not Path(path).exists():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def protocol_hash(sweep, setting, tier):
    """Give the hash of all that decides a run, but for its seed and the code.

    Which comparisons a run serves, a setting's `comparisons`, does not count.

    Returns
    -------
    str
        12 hexadecimal digits.
    """
    decides = {name: value for name, value in setting.items() if name != "comparisons"}
    text = json.dumps([sweep.name, tier, decides, sweep.protocol(setting, tier)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def by_protocol(sweep, tier):
    """Give a tier's settings by the hashes of their protocols; a SweepError if the file could not tell them apart."""
    settings = [(setting, protocol_hash(sweep, setting, tier)) for setting in sweep.settings(tier)]
    _check(settings)
    return {protocol: setting for setting, protocol in settings}


def open_runs(settings, tier, seeds, path):
    """List the runs of a tier that have no row yet, seed by seed, so that a stopped sweep is balanced.

    Parameters
    ----------
    settings : dict of str to dict
        As of `by_protocol`.
    tier : str
    seeds : callable
        Gives the number of seeds of a setting.
    path : pathlib.Path

    Returns
    -------
    list of (dict, int, str)
        Setting, seed and the hash of the protocol.

    Raises
    ------
    SweepError
        If the file has rows of that tier that are none of today's runs.
    """
    rows = [row for row in read_rows(path) if row["tier"] == tier]
    if foreign := {row.get("protocol") for row in rows} - set(settings):
        raise SweepError(
            f"{path} has rows of another protocol ({', '.join(map(str, sorted(foreign, key=str)))}): a setting, the "
            f"network, the schedule or the data were changed since; remove the file and run again"
        )
    done = {(row["protocol"], int(row["seed"])) for row in rows}
    counts = {key: seeds(setting) for key, setting in settings.items()}
    return [
        (settings[key], seed, key)
        for seed in range(max(counts.values(), default=0))
        for key in settings
        if seed < counts[key] and (key, seed) not in done
    ]


def execute(
    sweep,
    *,
    tier,
    seeds=None,
    jobs=1,
    together=False,
    backend="loky",
    scheduler=None,
    device=None,
    folder=RESULTS,
    progress=True,
):
    """Make the runs that are missing, and append the row of each as it ends.

    Parameters
    ----------
    sweep : Sweep
    tier : str
        "mini" or "full".
    seeds : int, optional
        The seeds are 0 to seeds - 1; by default as many as the table has of each setting.
    jobs : int
        Runs at a time; each uses one thread.
    together : bool
        Whether the seeds of a setting are trained in one call (`Sweep.run_together`), for which a GPU is made.
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
        If another process is writing the same file, the file has rows of another protocol or other columns than the
        runs, the settings or the measures cannot be told apart in it, there are several jobs where one has to be alone,
        the cluster's workers have several threads, a run on a cluster fails, or the sweep cannot train seeds together.
    ValueError
        If `tier` or `backend` is unknown.
    """
    check_choice("tier", tier, TIERS)
    check_choice("backend", backend, ("loky", "dask"))
    if scheduler is not None and backend != "dask":
        raise SweepError("a scheduler is Dask's: give the backend dask with it")
    settings = by_protocol(sweep, tier)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{sweep.name}.csv"
    try:
        lock = FileLock(folder / f".{sweep.name}.lock", timeout=0).acquire()
    except Timeout:
        raise SweepError(f"{path} is being written by another sweep; wait for it to end") from None
    with lock:
        runs = open_runs(settings, tier, sweep.seeds_of if seeds is None else lambda setting: seeds, path)
        _label(settings, tier, path)
        if runs and sweep.alone and (jobs > 1 or scheduler is not None):
            raise SweepError(f"{sweep.name} measures times: run it with one job, no cluster and nothing else beside it")
        if together:
            if sweep.run_together is None:
                raise SweepError(f"{sweep.name} cannot train the seeds of a setting together")
            runs = _of_each_setting(runs)
        run = sweep.run_together if together else sweep.run
        calls = [(run, setting, seed, tier, device, protocol) for setting, seed, protocol in runs]
        bar = progress_bar(len(runs), sweep.name, unit="run", shown=progress and bool(runs))
        rows = _on_dask(calls, jobs, scheduler) if backend == "dask" else _here(calls, jobs)
        with bar, contextlib.closing(rows):
            for made in rows:
                _append(path, made)
                bar.update()
    return sum(len(seed) if together else 1 for _, seed, _ in runs)


def _of_each_setting(runs):
    """Gather the seeds of each setting: those of a list of runs as lists."""
    seeds = {}
    for setting, seed, protocol in runs:
        seeds.setdefault(protocol, (setting, []))[1].append(seed)
    return [(setting, several, protocol) for protocol, (setting, several) in seeds.items()]


def main(sweeps, argv=None):
    """Run sweeps from the command line.

    Parameters
    ----------
    sweeps : list of Sweep
        In the order in which they have to run: each may read the tables of those before it.
    argv : list of str, optional
        Arguments; those of the process if omitted.

    Returns
    -------
    int
        0 if all runs are done, 1 if a sweep could not go on.
    """
    by_name = {sweep.name: sweep for sweep in sweeps}
    parser = argparse.ArgumentParser(
        description="Make the missing rows of data/results/<name>.csv, of all tables in order or of the named ones: "
        f"{', '.join(by_name)}."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--tier", choices=TIERS, default="mini", help="default: mini")
    count = dict(type=_at_least_1, metavar="N")
    parser.add_argument("--seeds", **count, help="seeds 0 to N - 1 (default: as many as the table has)")
    parser.add_argument("--jobs", **count, default=1, help="runs at a time, one thread each (default: 1)")
    parser.add_argument("--together", action="store_true", help="train the seeds of a setting in one call (for a GPU)")
    parser.add_argument("--backend", choices=("loky", "dask"), default="loky")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask cluster; without it a local one is started")
    parser.add_argument("--device", help="such as cuda:1; by default a GPU for the tier full, if there is one")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where the files are (default: data/results)")
    options = vars(parser.parse_args(argv))
    names, seeds = options.pop("names") or list(by_name), options.pop("seeds")
    if unknown := set(names) - set(by_name):
        parser.error(f"{', '.join(sorted(unknown))}: choose from {', '.join(by_name)}")
    for sweep in (by_name[name] for name in by_name if name in names):
        jobs = 1 if sweep.alone else options["jobs"]
        try:
            made = execute(sweep, **{**options, "jobs": jobs}, seeds=seeds)
        except SweepError as error:
            print(error, file=sys.stderr)
            return 1
        what = f"seeds 0 to {seeds - 1}" if seeds else "all runs"
        print(f"{made} runs made; {sweep.name}.csv has {what}", flush=True)
    return 0


def _check(settings):
    """Refuse settings that could not be found again in the file."""
    taken, keys = {"tier", "seed", *ABOUT}, set()
    for setting, protocol in settings:
        if list(setting) != list(settings[0][0]):
            raise SweepError(f"the settings have the keys {list(settings[0][0])}, and {list(setting)} in {setting}")
        for name, value in setting.items():
            if name in taken:
                raise SweepError(f"a setting cannot be called {name}: the file has that column for every sweep")
            if not isinstance(value, (str, int, float)) or "\r" in str(value):
                raise SweepError(f"the setting {name}={value!r} must be a str (with no carriage return), int or float")
        names = {protocol, tuple(map(str, setting.values()))}
        if names & keys:
            raise SweepError(f"two settings are the same in the file: {setting}")
        keys |= names


def _at_least_1(text):
    return checked_int("it", int(text), at_least=1)


def _here(calls, jobs):
    with joblib.parallel_config(backend="loky", n_jobs=jobs):
        yield from joblib.Parallel(return_as="generator_unordered", batch_size=1)(
            joblib.delayed(_make_run)(*call) for call in calls
        )


def _on_dask(calls, jobs, scheduler):
    """Make the runs on a cluster. (joblib's own Dask backend waits for ever if a worker dies or lacks a module.)"""
    import cloudpickle  # noqa: PLC0415 - slow to import, and only needed here
    from dask.distributed import Client, LocalCluster, as_completed  # noqa: PLC0415

    # The workers need not have this folder. (A partial's own module would be functools.)
    modules = {__name__, *(getattr(call[0], "func", call[0]).__module__ for call in calls)}
    for module in modules - {"__main__"}:
        if not module.startswith("upconv."):
            cloudpickle.register_pickle_by_value(sys.modules[module])
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


def _make_run(run, setting, seed, tier, device, protocol):
    """Make one run in a worker, or those of several seeds together; give the rows."""
    torch.set_num_threads(1)
    # a GPU's rows are to be like a CPU's; found by its name, since no cluster can be sent what stands there
    sys.modules["torch.backends.cudnn"].allow_tf32 = False
    device = device or (default_device() if tier == "full" else "cpu")
    start = time.perf_counter()
    together = isinstance(seed, list)
    try:
        found = run(**setting, **{"seeds" if together else "seed": seed}, tier=tier, device=device)
    except Exception as error:
        error.add_note(f"in the run {setting}, seed {seed}, tier {tier}")
        raise
    seeds, found = (seed, found) if together else ([seed], [found])
    for name, value in (pair for measures in found for pair in measures.items()):
        if name in {"tier", "seed", *setting, *ABOUT} or not isinstance(value, (str, int, float)):
            raise SweepError(f"the measure {name}={value!r} must be a number, with a name that no other column has")
    on_gpu = torch.device(device).type == "cuda"
    about = (
        protocol,
        torch.__version__,
        platform.python_version(),
        processor(),
        torch.cuda.get_device_name(device) if on_gpu else "cpu",
        datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        round((time.perf_counter() - start) / len(seeds), 1),
    )
    return [
        {"tier": tier, **setting, "seed": one, **measures, **dict(zip(ABOUT, about, strict=True))}
        for one, measures in zip(seeds, found, strict=True)
    ]


def processor():
    """Name this machine's processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _label(settings, tier, path):
    """Write anew which comparisons the rows serve: a run that is made may come to serve another one."""
    labels = {protocol: setting.get("comparisons") for protocol, setting in settings.items()}
    rows = read_rows(path)
    changed = [row for row in rows if row["tier"] == tier and row.get("comparisons") != labels[row["protocol"]]]
    for row in changed:
        row["comparisons"] = labels[row["protocol"]]
    if changed:
        _write(path, rows)


def _append(path, made):
    """Add rows."""
    rows = read_rows(path)
    if rows and list(rows[0]) != list(made[0]):
        raise SweepError(
            f"{path} has the columns {', '.join(rows[0])}, and this run has {', '.join(made[0])}: the program was "
            f"changed; remove the file and run again"
        )
    _write(path, [*rows, *made])


def _write(path, rows):
    """Write all rows; whenever the process ends, the file has either all of them or those it had."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, lambda file: file.write(text.getvalue().encode()))
