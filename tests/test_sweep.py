"""The sweeps: complete, resumable, the same through every backend; and their committed tables."""

import math
import os
import runpy
import statistics
import subprocess
import sys
import time
from collections import Counter
from functools import cache, partial
from pathlib import Path

import dask
import pandas as pd
import pytest
import torch
from dask.distributed import LocalCluster

from tools.sweeps import (
    collapse,
    engine,
    learning_rates,
    rates,
    replacing,
    schedules,
    step_time,
    unet,
    unet_odd,
    unet_relu,
    unet_sizes,
    variants,
)
from tools.sweeps.__main__ import SWEEPS
from tools.sweeps.engine import Sweep, SweepError, by_protocol, execute, main, open_runs, protocol_hash, read_rows
from upconv.book import comparison, pets, scenes, tasks
from upconv.book.blocks import FOLDED, FoldedPair
from upconv.book.comparison import EARLY, FOUR, RATES, REFERENCE, matched_channels
from upconv.book.data import fashion_mnist
from upconv.book.scenes import garment_scenes
from upconv.book.tasks import TASKS, Task, segmentation_measures, unet_with, variant_of
from upconv.book.training import reconstruct

BY_NAME = {sweep.name: sweep for sweep in SWEEPS}


@cache
def settings_of(name):
    return BY_NAME[name].settings("mini")


def no_protocol(setting, tier):
    return {}


def products(pause=0.0):
    """Give a sweep of three settings whose runs take a while; workers get the run without this module."""

    def run(name, factor, *, seed, tier, device):
        time.sleep(pause)
        return {"product": factor * seed, "pid": os.getpid()}

    settings = [dict(name=name, factor=factor) for name, factor in (("a", 0.1), ("b", 2), ('c, "d"', 1e-9))]
    return Sweep("products", lambda tier: settings, run, no_protocol)


def toy(run=lambda seed, tier, device, **_: {"value": seed}, settings=({"name": "a"},), **others):
    return Sweep("toy", lambda tier: list(settings), run, **{"protocol": no_protocol, **others})


@pytest.fixture
def quiet(tmp_path):
    return dict(tier="mini", seeds=1, folder=tmp_path, progress=False)


def keys(path):
    return Counter((row["name"], row["factor"], row["seed"]) for row in read_rows(path))


def every_key(seeds):
    table = ("a", "0.1"), ("b", "2"), ('c, "d"', "1e-09")
    return Counter({(*setting, str(seed)): 1 for setting in table for seed in range(seeds)})


@pytest.mark.parametrize("options", [[], ["--jobs", "2"], ["--jobs", "2", "--backend", "dask"]])
def test_every_backend_makes_every_run_once(tmp_path, capsys, options):
    path, common = tmp_path / "products.csv", ["--folder", str(tmp_path), "--tier", "mini"]
    pause = 0.2 if options else 0  # so that both workers have a run
    assert main([products(pause)], [*common, *options, "--seeds", "2"]) == 0
    pids = {row["pid"] for row in read_rows(path)}
    assert len(pids) == 2 and str(os.getpid()) not in pids if options else pids == {str(os.getpid())}
    for seeds in (2, 3):
        assert main([products()], [*common, "--seeds", str(seeds)]) == 0
        assert keys(path) == every_key(seeds)
    made = capsys.readouterr().out.splitlines()
    assert made == [f"{n} runs made; products.csv has seeds 0 to {last}" for n, last in ((6, 1), (0, 1), (3, 2))]
    for row in read_rows(path):
        assert float(row["product"]) == float(row["factor"]) * int(row["seed"])
        assert list(row) == ["tier", "name", "factor", "seed", "product", "pid", *engine.ABOUT]
        assert row["torch"] == torch.__version__ and row["processor"] and row["device"] == "cpu"
        assert time.strptime(row["date"], "%Y-%m-%d")


def test_a_killed_sweep_goes_on_where_it_stopped(tmp_path, capsys):
    path, options = tmp_path / "products.csv", ["--folder", str(tmp_path), "--tier", "mini", "--seeds", "4"]
    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_sweep as it; "
    command = [sys.executable, "-c", program + f"it.main([it.products(0.2)], {options})"]
    with subprocess.Popen(command) as process:
        deadline = time.monotonic() + 60
        while len(read_rows(path)) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
    before = read_rows(path)
    assert 3 <= len(before) < 12
    assert main([products()], options) == 0
    assert capsys.readouterr().out == f"{12 - len(before)} runs made; products.csv has seeds 0 to 3\n"
    assert read_rows(path)[: len(before)] == before
    assert keys(path) == every_key(4)


def test_an_interrupted_write_leaves_the_rows_as_they_were(quiet, tmp_path, monkeypatch):
    execute(toy(), **quiet)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            execute(toy(), **{**quiet, "seeds": 2})
    assert [row["seed"] for row in read_rows(tmp_path / "toy.csv")] == ["0"]
    assert execute(toy(), **{**quiet, "seeds": 2}) == 1


def test_tiers_and_settings_are_told_apart(quiet, tmp_path):
    two = {**quiet, "seeds": 2}
    assert execute(toy(), **two) == 2
    assert execute(toy(), **{**two, "tier": "full"}) == 2
    assert execute(toy(settings=({"name": "a"}, {"name": "b"})), **two) == 2
    rows = read_rows(tmp_path / "toy.csv")
    assert Counter((row["tier"], row["name"]) for row in rows) == {("mini", "a"): 2, ("full", "a"): 2, ("mini", "b"): 2}


def test_the_runs_of_one_seed_come_before_those_of_the_next(tmp_path):
    settings = [{"name": name} for name in "abc"]
    by_hash, path = by_protocol(toy(settings=settings), "mini"), tmp_path / "toy.csv"
    runs = open_runs(by_hash, "mini", lambda setting: 2, path)
    assert [(setting["name"], seed) for setting, seed, _ in runs] == [(n, s) for s in (0, 1) for n in "abc"]
    runs = open_runs(by_hash, "mini", lambda setting: {"a": 1, "b": 3, "c": 2}[setting["name"]], path)
    assert [f"{setting['name']}{seed}" for setting, seed, _ in runs] == ["a0", "b0", "c0", "b1", "c1", "b2"]


def test_every_setting_has_its_own_number_of_seeds(quiet, tmp_path, capsys):
    settings = {"name": "a", "number": 1}, {"name": "b", "number": 3}
    sweep, path = toy(settings=settings, seeds=lambda setting: setting["number"]), tmp_path / "toy.csv"
    assert execute(sweep, **{**quiet, "seeds": None}) == 4

    def found():
        return sorted(row["name"] + row["seed"] for row in read_rows(path))

    assert found() == ["a0", "b0", "b1", "b2"]
    options = ["--folder", str(tmp_path), "--tier", "mini"]
    assert main([sweep], options) == 0
    assert capsys.readouterr().out == "0 runs made; toy.csv has all runs\n"
    assert main([sweep], [*options, "--seeds", "2"]) == 0  # of every setting
    assert capsys.readouterr().out == "1 runs made; toy.csv has seeds 0 to 1\n"
    assert found() == ["a0", "a1", "b0", "b1", "b2"]
    assert execute(sweep._replace(seeds=4), **{**quiet, "seeds": None}) == 3 and len(found()) == 8
    assert toy().seeds_of({}) == 5 and sweep.seeds_of(settings[1]) == 3


def many(calls):
    """Give a toy whose runs know the calls in which they were made, one by one or together."""

    def run(name, *, seed, tier, device):
        calls.append((name, seed))
        return {"value": f"{name}{seed}", "was": f"{tier} {device}"}

    def run_together(name, *, seeds, tier, device):
        calls.append((name, seeds))
        return [{"value": f"{name}{seed}", "was": f"{tier} {device}"} for seed in seeds]

    settings = {"name": "a"}, {"name": "b"}
    counts = {"a": 4, "b": 2}
    seeds = lambda setting: counts[setting["name"]]  # noqa: E731
    return toy(run, settings, seeds=seeds, run_together=run_together)


def test_the_seeds_of_a_setting_are_trained_in_one_call(quiet, tmp_path, capsys):
    quiet |= dict(seeds=None, tier="full", device="meta")
    calls, path = [], tmp_path / "toy.csv"
    sweep = many(calls)
    assert execute(sweep, together=True, **quiet) == 6
    assert calls == [("a", [0, 1, 2, 3]), ("b", [0, 1])]
    together = read_rows(path)
    assert execute(sweep, **quiet) == 0
    path.unlink()
    calls.clear()
    assert execute(sweep, **quiet) == 6
    assert calls == [(name, seed) for seed in range(4) for name in "ab"[: 2 if seed < 2 else 1]]

    def without_times(rows):
        return sorted(tuple((name, row[name]) for name in row if name not in ("seconds", "date")) for row in rows)

    assert without_times(read_rows(path)) == without_times(together) and len(together) == 6
    assert {row["was"] for row in together} == {"full meta"}


def test_what_is_open_of_a_setting_is_trained_together(quiet, tmp_path, capsys):
    calls, path, options = [], tmp_path / "toy.csv", ["--folder", str(tmp_path), "--tier", "mini"]
    sweep = many(calls)
    execute(sweep, **quiet)  # the seed 0 of both
    rows = read_rows(path)
    engine._write(path, [rows[1], {**rows[0], "seed": "2"}])  # of a, the seed 2 alone
    before = read_rows(path)
    calls.clear()
    assert main([sweep], [*options, "--together"]) == 0
    assert sorted(calls) == [("a", [0, 1, 3]), ("b", [1])]
    assert capsys.readouterr().out == "4 runs made; toy.csv has all runs\n"
    assert read_rows(path)[:2] == before and len(read_rows(path)) == 6
    assert main([sweep], [*options, "--together"]) == 0
    assert capsys.readouterr().out == "0 runs made; toy.csv has all runs\n"


def test_settings_are_trained_together_in_other_processes_too(quiet, tmp_path):
    def run_together(name, *, seeds, tier, device):
        return [{"value": seed, "pid": os.getpid()} for seed in seeds]

    sweep = toy(settings=({"name": "a"}, {"name": "b"}), run_together=run_together)
    assert execute(sweep, together=True, **{**quiet, "jobs": 2, "seeds": 3}) == 6
    rows = read_rows(tmp_path / "toy.csv")
    assert Counter((row["name"], row["seed"]) for row in rows) == {(n, s): 1 for n in "ab" for s in "012"}
    assert str(os.getpid()) not in {row["pid"] for row in rows} and all(row["value"] == row["seed"] for row in rows)


def test_a_row_has_the_seconds_of_its_own_seed(quiet, tmp_path, monkeypatch):
    now = iter(range(100, 1000, 8))  # every call takes eight seconds
    monkeypatch.setattr(engine.time, "perf_counter", lambda: next(now))
    for together, seconds in ((True, {"2.0"}), (False, {"8.0"})):
        execute(many([]), together=together, **{**quiet, "seeds": 4})
        assert {row["seconds"] for row in read_rows(tmp_path / "toy.csv")} == seconds
        (tmp_path / "toy.csv").unlink()


def test_together_is_refused_where_it_cannot_be(quiet, tmp_path, capsys):
    with pytest.raises(SweepError, match="toy cannot train the seeds of a setting together"):
        execute(toy(), together=True, **quiet)
    assert main([toy()], ["--folder", str(tmp_path), "--together"]) == 1
    assert "cannot train the seeds" in capsys.readouterr().err
    too_few = toy(run_together=lambda *, seeds, **_: [{"value": 1}])
    with pytest.raises(ValueError, match="zip"):
        execute(too_few, together=True, **{**quiet, "seeds": 2})
    taken = toy(run_together=lambda *, seeds, **_: [{"value": 1}, {"seed": 9}])
    with pytest.raises(SweepError, match="the measure seed=9 must be a number"):
        execute(taken, together=True, **{**quiet, "seeds": 2})
    assert not read_rows(tmp_path / "toy.csv")


def test_a_call_that_fails_says_which_seeds_it_had(quiet):
    def run_together(**_):
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken") as caught:
        execute(toy(run_together=run_together), together=True, **{**quiet, "seeds": 2})
    assert "in the run {'name': 'a'}, seed [0, 1], tier mini" in caught.value.__notes__


def test_a_run_that_fails_says_which_and_keeps_the_others(quiet, tmp_path):
    def run(name, *, seed, tier, device):
        if seed == 1:
            raise ValueError("broken")
        return {"value": seed}

    with pytest.raises(ValueError, match="broken") as caught:
        execute(toy(run), **{**quiet, "seeds": 2})
    assert "in the run {'name': 'a'}, seed 1, tier mini" in caught.value.__notes__
    assert [row["seed"] for row in read_rows(tmp_path / "toy.csv")] == ["0"]


def test_other_columns_are_refused(quiet):
    execute(toy(), **quiet)
    changed = toy(run=lambda seed, tier, device, **_: {"something_else": seed})
    with pytest.raises(SweepError, match=r"toy\.csv has the columns .* remove the file and run again"):
        execute(changed, **{**quiet, "seeds": 2})


def setting_errors():
    yield "cannot be called torch", toy(settings=({"torch": 1},))
    yield "cannot be called protocol", toy(settings=({"protocol": "a"},))
    yield "must be a str", toy(settings=({"name": None},))
    yield "carriage return", toy(settings=({"name": "a\rb"},))
    yield "two settings are the same", toy(settings=({"name": 1}, {"name": "1"}))
    yield "have the keys", toy(settings=({"a": 1, "b": 2}, {"b": 1, "a": 2}))
    yield "the measure seed=99", toy(run=lambda **_: {"seed": 99})
    yield "the measure name=1", toy(run=lambda **_: {"name": 1})
    yield "must be a number", toy(run=lambda **_: {"value": torch.ones(1)})


@pytest.mark.parametrize("message, wrong", list(setting_errors()))
def test_columns_that_could_be_mistaken_are_refused(message, wrong, quiet, tmp_path):
    with pytest.raises(SweepError, match=message):
        execute(wrong, **quiet)
    assert not read_rows(tmp_path / "toy.csv")


def test_wrong_arguments_are_refused(quiet):
    with pytest.raises(ValueError, match="tier='rubbish' must be"):
        execute(toy(), **{**quiet, "tier": "rubbish"})
    with pytest.raises(ValueError, match="backend='threading' must be one of"):
        execute(toy(), backend="threading", **quiet)
    with pytest.raises(SweepError, match="give the backend dask"):
        execute(toy(), scheduler="tcp://127.0.0.1:1", **quiet)
    for beside in (dict(jobs=2), dict(backend="dask", scheduler="tcp://127.0.0.1:1")):
        with pytest.raises(SweepError, match="toy measures times: run it with one job, no cluster"):
            execute(toy(alone=True), **beside, **quiet)


def whereabouts(name, *, seed, tier, device, task=None):
    if name == "dies":
        os._exit(1)
    if name == "fails":
        raise ValueError("broken")
    return {"pid": os.getpid(), "threads": torch.get_num_threads(), "was": f"{tier} {device}"}


def test_a_cluster_makes_the_runs_and_says_which_failed(quiet, tmp_path):
    quiet |= dict(tier="full", device="meta", backend="dask")
    once = dask.config.set({"distributed.scheduler.allowed-failures": 0})  # a run that kills its worker is not repeated
    local = dict(n_workers=1, dashboard_address=None)
    with once, LocalCluster(threads_per_worker=1, host="127.0.0.1", **local) as cluster:
        common = dict(scheduler=cluster.scheduler_address, **quiet)
        assert execute(toy(partial(whereabouts, task=lambda: None)), **common) == 1  # as decoders' are, of a task
        [row] = read_rows(tmp_path / "toy.csv")
        assert int(row["pid"]) != os.getpid() and row["threads"] == "1" and row["was"] == "full meta"
        failing = toy(whereabouts, settings=({"name": "a"}, {"name": "fails"}))
        with pytest.raises(SweepError, match="'name': 'fails'}, seed 0, failed: ValueError: broken"):
            execute(failing, **common)
        with pytest.raises(SweepError, match="'name': 'dies'}, seed 0, failed: KilledWorker"):
            execute(toy(whereabouts, settings=({"name": "a"}, {"name": "dies"})), **common)
    of_threads = LocalCluster(threads_per_worker=2, processes=False, **local)
    with of_threads, pytest.raises(SweepError, match="start it with --nthreads 1"):
        execute(
            toy(whereabouts, settings=({"name": "a"}, {"name": "b"})),
            **{**common, "scheduler": of_threads.scheduler_address},
        )
    assert len(read_rows(tmp_path / "toy.csv")) == 1


def test_two_sweeps_do_not_write_one_file(quiet, tmp_path, capsys):
    with engine.FileLock(tmp_path / ".toy.lock"):
        with pytest.raises(SweepError, match="is being written by another sweep"):
            execute(toy(), **quiet)
        assert main([toy()], ["--folder", str(tmp_path), "--tier", "mini"]) == 1
    assert "wait for it to end" in capsys.readouterr().err


# the command line


@pytest.fixture
def executed(monkeypatch):
    """Run no sweep; give what would have been run."""
    calls = []
    monkeypatch.setattr(engine, "execute", lambda sweep, **options: calls.append((sweep.name, options)) or 0)
    return calls


def test_the_named_sweeps_are_run_in_the_order_in_which_they_read_each_other(executed):
    assert main(SWEEPS, ["unet", "learning_rates", "step_time", "--tier", "mini"]) == 0
    assert [name for name, _ in executed] == ["step_time", "learning_rates", "unet"]
    executed.clear()
    assert main(SWEEPS, []) == 0
    assert [name for name, _ in executed] == [sweep.name for sweep in SWEEPS]
    others = {"cost_cpu", "cost_cuda", "census", "weights", "flat_responses"}  # of the benchmark and the censuses
    assert {path.stem for path in engine.RESULTS.glob("*.csv")} == {*BY_NAME, *others}


def test_times_are_measured_by_one_job_and_every_table_has_its_own_number_of_seeds(executed):
    main(SWEEPS, ["--jobs", "3"])
    found = {name: (options["jobs"], options["seeds"], options["together"]) for name, options in executed}
    assert found == {sweep.name: (1 if sweep.name == "step_time" else 3, None, False) for sweep in SWEEPS}
    executed.clear()
    main(SWEEPS, ["step_time", "--seeds", "7", "--device", "cuda:1", "--together"])
    [(_, options)] = executed
    assert (options["seeds"], options["device"], options["backend"]) == (7, "cuda:1", "loky") and options["together"]


def test_the_sweeps_that_can_train_seeds_together():
    able = {sweep.name for sweep in SWEEPS if sweep.run_together}
    assert able == {"rates", "collapse", "autoencoder", "super_resolution", "variants", "unet", "unet_relu", "unet_odd"}
    assert not any(sweep.alone for sweep in SWEEPS if sweep.run_together)
    assert {sweep.name for sweep in SWEEPS if callable(sweep.seeds)} == {
        "autoencoder",
        "super_resolution",
        "unet",
        "variants",
    }
    assert BY_NAME["autoencoder"].seeds is comparison.seeds_of is BY_NAME["super_resolution"].seeds
    counts = {sweep.name: sweep.seeds for sweep in SWEEPS if not callable(sweep.seeds)}
    assert counts.pop("learning_rates") == 2 and counts.pop("replacing") == 20
    five = {"step_time", "unet_sizes", "unet_odd"}
    assert counts == {name: 5 if name in five else 10 for name in counts}


def test_an_unknown_name_is_refused_and_the_known_ones_are_named(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sweeps", "unets"])
    monkeypatch.delitem(sys.modules, "tools.sweeps.__main__")
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("tools.sweeps", run_name="__main__")
    assert stop.value.code == 2
    assert f"unets: choose from {', '.join(BY_NAME)}" in capsys.readouterr().err


# the protocol


def test_rows_carry_their_protocol_and_another_one_is_refused(quiet, tmp_path):
    one, other = (toy(protocol=lambda setting, tier, size=size: {"size": size, "tier": tier}) for size in (1, 2))
    execute(one, **quiet)
    execute(one, **{**quiet, "tier": "full"})
    found = [row["protocol"] for row in read_rows(tmp_path / "toy.csv")]
    assert found == [protocol_hash(one, {"name": "a"}, tier) for tier in ("mini", "full")]
    assert execute(one, **quiet) == 0
    with pytest.raises(SweepError, match=rf"toy.csv has rows of another protocol \({found[0]}\)"):
        execute(other, **{**quiet, "seeds": 2})
    assert main([other], ["--folder", str(tmp_path), "--tier", "mini"]) == 1
    pd.DataFrame(read_rows(tmp_path / "toy.csv")).drop(columns="protocol").to_csv(tmp_path / "toy.csv", index=False)
    with pytest.raises(SweepError, match="another protocol"):
        execute(one, **quiet)


def test_a_changed_setting_is_another_protocol(quiet, tmp_path):
    execute(toy(settings=({"name": "a", "steps": 1},)), **quiet)
    with pytest.raises(SweepError, match="a setting, the network, the schedule or the data were changed"):
        execute(toy(settings=({"name": "a", "steps": 2},)), **quiet)
    assert len(read_rows(tmp_path / "toy.csv")) == 1


def test_a_run_that_comes_to_serve_another_comparison_is_not_made_again(quiet, tmp_path):
    for served in ("channels time", "channels"):
        made = execute(toy(settings=({"comparisons": served, "name": "a"},)), **quiet)
        assert made == (served == "channels time")
        assert [row["comparisons"] for row in read_rows(tmp_path / "toy.csv")] == [served]


def test_every_setting_decides_but_the_comparisons_do_not_and_no_version_does(monkeypatch):
    for sweep in SWEEPS:
        setting = settings_of(sweep.name)[0]
        found = protocol_hash(sweep, setting, "mini")
        for name, value in setting.items():
            if name not in (
                "task",
                "images",
                "upsampling",
                "channels",
                "skips",
            ):  # a name that there is not is an error there
                other = {**setting, name: f"{value} more" if isinstance(value, str) else value + 1}
                assert (protocol_hash(sweep, other, "mini") == found) is (name == "comparisons"), (sweep.name, name)
        with monkeypatch.context() as patch:
            patch.setattr(torch, "__version__", "99.0")
            assert protocol_hash(sweep, setting, "mini") == found


def one_of_each():
    """Give the sweeps' hashes: of a setting of each task, kind of images and number of skip connections."""
    for sweep in SWEEPS:
        chosen = {tuple(map(setting.get, ("task", "images", "skips"))): setting for setting in settings_of(sweep.name)}
        yield sweep.name, [protocol_hash(sweep, setting, "mini") for setting in chosen.values()]


OF_TASKS = {"learning_rates", "step_time"}  # of all three
OF_IMAGES = {*OF_TASKS, "rates"}
OF_UNETS = {*OF_TASKS, "unet", "unet_sizes", "unet_relu", "unet_odd"}
LOOKED_AT = {"learning_rates", "rates", "collapse"}  # after steps of their own
FITTED = {*LOOKED_AT, "autoencoder", "super_resolution", "variants", "unet", "unet_sizes", "unet_relu", "unet_odd"}
REPLACING = {"replacing", "replacing_annealed"}
PLAIN = {"schedules", *REPLACING}


@pytest.mark.parametrize(
    "owner, name, value, changes",
    [
        (TASKS["autoencoder"].tiers["mini"], "channels", (8, 16, 65), {*OF_IMAGES, "autoencoder", "variants"}),
        # in the settings of the others
        (TASKS["super_resolution"].tiers["mini"], "channels", (32, 16, 9), {*OF_IMAGES, "collapse"}),
        (TASKS["unet"].tiers["mini"], "encoder", (8, 16, 33), OF_UNETS),
        (TASKS["autoencoder"].tiers["mini"], "batch_size", 17, OF_IMAGES),  # likewise
        (
            tasks.FASHION_MNIST,
            "mini",
            "another sum",
            {*OF_IMAGES, *PLAIN, "autoencoder", "super_resolution", "collapse", "variants"},
        ),
        (tasks.SCENES, "train", 3999, OF_UNETS),
        (scenes.TEXTURES, "test", ("gravel",), OF_UNETS),
        (tasks.CROPS, "test", 999, {"variants"}),
        (tasks.PHOTOGRAPHS, "test", ("rocket",), {"variants"}),
        (comparison, "WARMUP", 99, FITTED),
        (comparison, "EARLY", (0, 20), FITTED - LOOKED_AT),
        (schedules, "EARLY", (0, 20), {"schedules"}),
        (schedules, "DECAY", 0.9, {"schedules"}),
        (replacing, "LOOKS", (0, 30), REPLACING),
        (learning_rates, "SEED", 2000, {"learning_rates"}),
        (rates, "SEED", 2000, {"rates"}),
        (rates, "LOOKS", (100,), {"rates"}),
        (collapse, "LOOKS", (100,), {"collapse"}),
        (collapse, "CLIP", 0.2, {"collapse"}),
        (step_time, "ROUNDS", 11, {"step_time"}),
        (unet_sizes, "SCENES", 100, {"unet_sizes"}),
        (unet_odd, "TRAINED", (33, 35), {"unet_odd"}),
        (unet_odd, "SIZES", ((33, 35),), {"unet_odd"}),
        (unet_odd, "TRAIN_SCENES", 3999, {"unet_odd"}),
        (unet_odd, "TEST_SCENES", 199, {"unet_odd"}),
    ],
)
def test_whatever_decides_a_run_changes_the_hash_of_its_sweeps_alone(monkeypatch, owner, name, value, changes):
    before = dict(one_of_each())
    (monkeypatch.setitem if isinstance(owner, dict) else monkeypatch.setattr)(owner, name, value)
    after = dict(one_of_each())
    assert {sweep for sweep in after if after[sweep] != before[sweep]} == changes


def test_the_full_tier_is_made_of_its_own_files(monkeypatch):
    setting = dict(task="unet", upsampling="pixel_shuffle", learning_rate=0.004, steps=1)
    before = protocol_hash(learning_rates.SWEEP, setting, "full")
    monkeypatch.setitem(pets.MD5, "images.tar.gz", "another sum")
    assert protocol_hash(learning_rates.SWEEP, setting, "full") != before


# the committed tables


@pytest.fixture(params=SWEEPS, ids=lambda sweep: sweep.name)
def table(request):
    """Give a sweep, and the rows of its committed table."""
    return request.param, read_rows(engine.RESULTS / f"{request.param.name}.csv")


def test_a_committed_table_is_complete_and_of_todays_protocol(table):
    sweep, rows = table
    assert rows, f"there is no {sweep.name}.csv"
    for tier in {row["tier"] for row in rows}:
        settings, here = by_protocol(sweep, tier), [row for row in rows if row["tier"] == tier]
        keys = ["tier", *next(iter(settings.values())), "seed"]
        assert list(rows[0])[: len(keys)] == keys, "another order of columns: the sweep could not go on"
        missing = open_runs(settings, tier, sweep.seeds_of, engine.RESULTS / f"{sweep.name}.csv")
        assert not missing, f"{sweep.name}.csv lacks {len(missing)} runs"
        seeds = {
            protocol: sorted(int(row["seed"]) for row in here if row["protocol"] == protocol) for protocol in settings
        }
        for mine in seeds.values():
            assert mine == list(range(len(mine)))  # none twice
        assert len(here) == sum(map(len, seeds.values()))  # none of a setting that is no more
        measures = rows[0].keys() - {"tier", "seed", *next(iter(settings.values())), *engine.ABOUT}
        assert measures and all(math.isfinite(float(row[name])) for row in here for name in measures)


def test_a_committed_decoder_has_its_parameters_and_its_work():
    keys = "upsampling", "channels", "skips", "task", "images", "convolutions"
    of_row = {
        "unet": lambda row: unet_with(skips=int(row["skips"])),
        "unet_relu": lambda row: unet_with(activation=True),
        "variants": lambda row: variant_of(TASKS[row["task"]], row["images"], int(row["convolutions"])),
    }
    for name in {*TASKS, *of_row}:
        rows = read_rows(engine.RESULTS / f"{name}.csv")
        for row in {tuple(map(row.get, keys)): row for row in rows}.values():
            task = of_row[name](row) if name in of_row else TASKS[name]
            model = task.build(row["upsampling"], tuple(map(int, row["channels"].split())), "mini")
            assert task.parameters_and_macs(model) == (int(row["parameters"]), int(row["macs"]))


LOOKING = {"rates": (rates, 1), "collapse": (collapse, 2)}  # with the calls of a look; they stop as if broken off
MEASURED = {  # what the others measure by, and as which columns, call by call; they stop at the last
    **dict.fromkeys([*TASKS, "variants"], (Task, "measure", [f"{{}}_{step}" for step in EARLY])),
    "schedules": (schedules, "look", [f"{of}{{}}_{step}" for step in schedules.EARLY[:3] for of in ("", "averaged_")]),
}


class EnoughError(FloatingPointError):
    pass


def remade(sweep, setting, seed, monkeypatch):
    """Make a run again, but not to its end; a short one whole."""

    def run():
        return sweep.run(**setting, seed=seed, tier="mini", device="cpu")

    if sweep.name == "replacing":  # the training after the exchange ends with the last look
        monkeypatch.setattr(replacing, "LOOKS", replacing.LOOKS[:2])
    if sweep.name in LOOKING:
        module, calls = LOOKING[sweep.name]
        left = iter(range(calls * sum(step <= EARLY[-1] for step in module.LOOKS)))

        def reconstruct_or_stop(*given):
            if next(left, None) is None:
                raise EnoughError
            return reconstruct(*given)

        monkeypatch.setattr(module, "reconstruct", reconstruct_or_stop)
        return {name: value for name, value in run().items() if value != rates.BROKEN}
    if sweep.name not in MEASURED:
        return run()
    owner, name, columns = MEASURED[sweep.name]
    found, left, measure = {}, iter(columns), getattr(owner, name)

    def until_the_last(*arguments, **options):
        column = next(left)
        found.update({column.format(key): value for key, value in measure(*arguments, **options).items()})
        if column == columns[-1]:
            raise EnoughError
        return {}

    monkeypatch.setattr(owner, name, until_the_last)
    with pytest.raises(EnoughError):
        run()
    return found


def made_here(row):
    """Whether a row comes from a machine like this one: its digits depend on PyTorch and on the processor.

    The rows say "AMD EPYC", which hides the model; they were made on one of family 25, model 17, with AVX-512.
    """
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text(encoding="utf-8").splitlines() if cpu.exists() else []
    about = {part.strip(): value.strip() for part, _, value in (line.partition(":") for line in lines)}
    model = [about.get(part) for part in ("model name", "cpu family", "model")]
    here = ["cpu", torch.__version__, *model, torch.backends.cpu.get_cpu_capability()]
    return here == [row["device"], row["torch"], row["processor"], "25", "17", "AVX512"]


LIKE_OTHERS = {"unet_sizes", "unet_odd", "unet_relu", "replacing_annealed"}  # they train as others do


@pytest.mark.parametrize("name", [name for name in BY_NAME if name not in LIKE_OTHERS])
def test_a_row_comes_out_again(name, monkeypatch):
    """The quickest one, made anew: on a machine like the row's to 12 digits, on another within what seeds differ.

    Training magnifies what processors round differently, up to another run of the same kind. So there a measure may be
    as far off as three standard deviations between the seeds of one setting (the median over the settings of its task),
    and nothing is magnified before the first step. The times of `step_time` are those of a machine and its load. A run
    is made until step 200 (of `schedules`, 100; of `replacing`, 30 after an exchange of layers; of `learning_rates`,
    the last), and none of `LIKE_OTHERS` (what `unet_sizes` and `unet_odd` measure has tests below): what comes later is
    made by the same code, of the same weights. A row of the CPU is taken if there is one.
    """
    sweep, rows = BY_NAME[name], read_rows(engine.RESULTS / f"{name}.csv")
    here = [row for row in rows if row["tier"] == "mini" and float(row.get("residual", 1)) > 1e-6]
    row = min(here, key=lambda row: (row["device"] != "cpu", float(row["seconds"]), int(row["seed"])))
    [setting] = [one for one in settings_of(name) if all(str(one[name]) == row[name] for name in one)]
    again = remade(sweep, setting, int(row["seed"]), monkeypatch)
    table = pd.DataFrame(rows)
    table = table[(table["tier"] == "mini") & (table.get("task") == row.get("task"))]
    for measure, value in again.items():
        known = float(row[measure])
        if sweep.alone:
            assert value > 0 and known > 0
        elif made_here(row):
            assert value == pytest.approx(known, rel=1e-12), measure  # a sum may be added up in another order
        elif measure.endswith("_0") and name != "replacing":  # whose step 0 comes after a training
            assert value == pytest.approx(known, rel=1e-3, abs=1e-7), measure
        else:
            spread = table[measure].astype(float).groupby([table[one] for one in setting]).std().median()
            assert value == pytest.approx(known, rel=1e-6, abs=max(3 * spread, 1e-6)), measure


# what the sweeps do


def short(sweep, **chosen):
    """Give a setting of a sweep, the first with what was chosen, cut to five steps."""
    return next({**row, "steps": 5} for row in settings_of(sweep.name) if chosen.items() <= row.items())


def test_one_schedule_lowers_the_rate_and_the_average_follows_the_weights(monkeypatch):
    few = {split: [some[:40] for some in fashion_mnist(split)] for split in ("train", "test")}
    monkeypatch.setattr(schedules, "fashion_mnist", lambda split, tier: few[split])
    monkeypatch.setattr(schedules, "EARLY", (0, 3))
    setting = dict(upsampling="pixel_shuffle", steps=5, batch_size=16, learning_rate=0.004)
    common = dict(seed=1, tier="mini", device="cpu")
    constant, falling = (schedules.run(schedule, **setting, **common) for schedule in ("constant", "to 0"))
    assert falling["psnr_3"] != constant["psnr_3"] and falling["psnr_0"] == constant["psnr_0"]
    assert constant["averaged_psnr_0"] == constant["psnr_0"] < constant["averaged_psnr_end"] < constant["psnr_end"]
    monkeypatch.setattr(schedules, "DECAY", 0.0)  # the average is the last weights
    followed = schedules.run("constant", **setting, **common)
    assert followed["averaged_psnr_end"] == pytest.approx(constant["psnr_end"])


def test_annealing_lowers_the_rate_in_both_trainings_of_what_is_warmed_up(monkeypatch):
    plain, annealed = replacing.SWEEPS
    for tier in ("mini", "full"):
        rows = [row for row in plain.settings(tier) if row["warmup"] == 100]
        assert annealed.settings(tier) == rows and len(rows) == len(plain.settings(tier)) / 2 == 5
        decays = [sweep.protocol(rows[0], tier).pop("decay") for sweep in replacing.SWEEPS]
        assert decays == ["none", "to 0"]
    asked = []
    monkeypatch.setattr(replacing, "train", lambda *_, **given: asked.append((given["decay"], given.get("warmup", 0))))
    for sweep in replacing.SWEEPS:
        sweep.run(**short(annealed, swap="original"), seed=0, tier="mini", device="cpu")
    assert asked == [(False, 0), (False, 100), (True, 0), (True, 100)]


def test_learning_rates_are_chosen_with_images_and_seeds_of_their_own(monkeypatch):
    used = {}

    def train_by_protocol(model, images, targets, **options):
        used.update(options, images=images, targets=targets, weight=next(model.parameters()).clone())

    def measure(task, model, split, tier, part):
        used.update(split=split, tier=tier, part=part)
        return {"psnr": 12.5, "iou": 0.5}

    monkeypatch.setattr(learning_rates, "train_by_protocol", train_by_protocol)
    monkeypatch.setattr(Task, "measure", measure)
    setting = dict(task="super_resolution", upsampling="pixel_shuffle", learning_rate=0.5, steps=7)
    assert learning_rates.run(**setting, seed=1, tier="mini", device="meta") == {"score": 12.5}
    small, large = TASKS["super_resolution"].data("train", "mini")
    assert torch.equal(used["images"], small[:4500]) and torch.equal(used["targets"], large[:4500])
    assert (used["batch_size"], used["device"]) == (16, "meta")
    assert (used["split"], used["part"]) == ("train", slice(4500, None))
    assert (used["learning_rate"], used["steps"], used["seed"]) == (0.5, 7, 1001)
    torch.manual_seed(1001)
    expected = TASKS["super_resolution"].build("pixel_shuffle", (32, 16, 8), "mini")
    assert torch.equal(used["weight"], next(expected.parameters()))

    def diverge(*_, **__):
        raise FloatingPointError

    monkeypatch.setattr(learning_rates, "train_by_protocol", diverge)
    assert learning_rates.run(**setting, seed=1, tier="mini", device="cpu") == {"score": -100.0}
    of_masks = dict(task="unet", upsampling="pixel_shuffle", learning_rate=0.5, steps=7)
    monkeypatch.setattr(learning_rates, "train_by_protocol", train_by_protocol)
    assert learning_rates.run(**of_masks, seed=1, tier="mini", device="meta") == {"score": 0.5}
    assert len(used["images"]) == len(used["targets"]) == 3600 and used["part"] == slice(3600, None)
    for name, task in TASKS.items():  # the same budget and the same grid for every block
        rows = [row for row in learning_rates.settings("mini") if row["task"] == name]
        assert {row["steps"] for row in rows} == {task.tiers["mini"]["steps"] // 3}
        assert Counter(row["upsampling"] for row in rows) == dict.fromkeys(task.blocks, 4)


def test_a_step_is_timed_against_the_reference_and_the_other_format(monkeypatch):
    """With a clock that the models move: a block costs what it is called, without channels_last ten times as much."""
    now, batches = [0.0], set()

    class Network(torch.nn.Conv2d):
        def __init__(self, cost):
            super().__init__(2, 2, 3, padding=1)
            self.cost = cost

        def forward(self, images):
            batches.add(len(images))
            last = self.weight.is_contiguous(memory_format=torch.channels_last)
            now[0] += self.cost * (1 if last else 10)
            made = super().forward(images)
            made.register_hook(lambda _: now.__setitem__(0, now[0] + 0.5 * self.cost * (1 if last else 10)))
            return made

    def build(name, channels, tier):
        return Network({comparison.REFERENCE: 2.0}.get(name, 3.0))

    images = torch.rand(20, 2, 4, 4)
    task = TASKS["autoencoder"]._replace(build=build, data=lambda split, tier: (images, images))
    monkeypatch.setitem(TASKS, "autoencoder", task)
    monkeypatch.setattr(step_time.time, "perf_counter", lambda: now[0])
    found = step_time.run("autoencoder", "pixel_shuffle", seed=0, tier="mini", device="cpu")
    assert found == pytest.approx({"ms": 4500.0, "ratio": 1.5, "format_ratio": 0.1})
    assert batches == {16}


def test_the_measured_times_are_plausible():
    ratios = {}
    for row in read_rows(engine.RESULTS / "step_time.csv"):
        ratios.setdefault((row["task"], row["upsampling"]), []).append(float(row["ratio"]))
    for task in TASKS:  # in the U-Net most of the time is spent outside the blocks
        assert statistics.median(ratios[task, "nearest_conv_3x3"]) == pytest.approx(1, abs=0.05)
        assert statistics.median(ratios[task, "conv_transpose_2x2"]) < (0.95 if task == "unet" else 0.9)
        assert statistics.median(ratios[task, FOLDED]) < 1
        if "bicubic_conv_3x3" in TASKS[task].blocks:
            assert statistics.median(ratios[task, "bicubic_conv_3x3"]) > 1.5


def test_masks_are_timed_too(monkeypatch):
    monkeypatch.setattr(step_time, "ROUNDS", 1)
    monkeypatch.setattr(step_time, "STEPS", 1)
    found = step_time.run("unet", "conv_transpose_2x2", seed=0, tier="mini", device="cpu")
    assert all(0 < value < 1000 for value in found.values())
    rows = [(row["task"], row["upsampling"]) for row in step_time.settings("mini")]
    assert rows == [(name, block) for name, task in TASKS.items() for block in (*task.blocks, FOLDED)]


def test_the_unets_runs_are_three_comparisons_fewer_skips_and_twice_the_steps(monkeypatch):
    task, rows = TASKS["unet"], unet.settings("mini")
    steps, two = task.tiers["mini"]["steps"], ("conv_transpose_2x2", "nearest_conv_3x3")
    assert len(rows) == len({tuple(row.items()) for row in rows})
    others = {kind: [row for row in rows if row["comparisons"] == kind] for kind in ("longer", "rate")}
    plain = [row for row in rows if row["skips"] == 2 and row not in others["longer"] + others["rate"]]
    assert plain == [{"skips": 2, **row} for row in comparison.settings_of(task, "mini")]
    for kind, number in (("longer", 2 * steps), ("rate", steps)):
        found = [(row["upsampling"], row["steps"], row["channels"], row["skips"]) for row in others[kind]]
        assert found == [(name, number, "8 16", 2) for name in two]
    assert {row["learning_rate"] for row in others["rate"]} == {0.016}
    for skips in (1, 0):
        fewer = [row for row in rows if row["skips"] == skips]
        for kind in ("channels", "parameters"):
            mine = [row for row in fewer if kind in row["comparisons"].split()]
            assert {row["upsampling"] for row in mine} == {*two, "conv_transpose_4x4"}
        assert all(row["steps"] == steps and "time" not in row["comparisons"] for row in fewer)
        for row in mine:  # the same parameters as the reference with so many skips
            channels = matched_channels(unet_with(skips=skips), row["upsampling"])
            assert row["channels"] == " ".join(map(str, channels))
    many = {  # seeds: of full skip connections, compared with equal channels or in equal time
        (row["skips"], row["comparisons"], row["upsampling"]) for row in rows if unet.SWEEP.seeds_of(row) == 10
    }
    assert {unet.SWEEP.seeds_of(row) for row in rows} == {5, 10}
    assert {row[:2] for row in many} >= {(2, "channels"), (2, "time")} and {row[2] for row in many} == set(task.blocks)
    assert all(skips == 2 and {"channels", "time"} & set(served.split()) for skips, served, _ in many)
    full = {"comparisons": "channels", "channels": "32 64 128"}
    assert [unet.SWEEP.seeds_of({"skips": skips, **full}) for skips in (3, 2)] == [10, 5]
    asked = []
    for name in ("run_setting", "run_seeds"):
        monkeypatch.setattr(unet, name, lambda task, **setting: asked.append((task, setting)))
    unet.run(skips=1, upsampling="x", seed=3)
    unet.run_together(skips=0, upsampling="y", seeds=[3])
    assert [setting for _, setting in asked] == [{"upsampling": "x", "seed": 3}, {"upsampling": "y", "seeds": [3]}]
    assert [task.build("pixel_shuffle", (3, 4), "mini").decoder.skips for task, _ in asked] == [1, 0]
    row, tiers = dict(upsampling=two[1], steps=1), set()
    monkeypatch.setattr(unet, "settings_of", lambda task, tier, *_: tiers.add(tier) or [row])
    assert [row["skips"] for row in unet.settings("full")] == [3, 3, 3, 2, 1, 0] and tiers == {"full"}


def test_every_remedy_is_measured_at_every_size(monkeypatch, quiet):
    assert unet_sizes.settings("full") == [] and execute(unet_sizes.SWEEP, **{**quiet, "tier": "full"}) == 0
    rates, asked = {"conv_transpose_2x2": 0.25, "nearest_conv_3x3": 0.5}, {}
    monkeypatch.setattr(unet_sizes, "chosen_learning_rates", lambda task, tier: rates)
    assert {row["upsampling"]: row["learning_rate"] for row in unet_sizes.settings("mini")} == rates

    def train_by_protocol(model, images, masks, **options):
        asked.update(options, images=images)
        model.requires_grad_(False).decoder.head.bias.zero_()  # several classes are found

    monkeypatch.setattr(unet_sizes, "train_by_protocol", train_by_protocol)
    monkeypatch.setattr(unet_sizes, "SCENES", 3)
    setting = dict(upsampling="conv_transpose_2x2", steps=7, batch_size=8, learning_rate=0.5)
    found = unet_sizes.run(**setting, seed=4, tier="mini", device="cpu")
    assert torch.equal(asked.pop("images"), TASKS["unet"].data("train", "mini")[0])
    assert asked == dict(steps=7, batch_size=8, learning_rate=0.5, seed=4, device="cpu", progress=False)
    assert len(found) == 4 * 5 * 4
    torch.manual_seed(4)
    model = TASKS["unet"].build("conv_transpose_2x2", (8, 16), "mini").requires_grad_(False).eval()
    model.decoder.head.bias.zero_()
    images, masks = garment_scenes("test", 3, (97, 61), seed=1)
    for remedy in unet_sizes.REMEDIES:
        model.odd_sizes = remedy
        logits = model(images / 255)
        for name, value in segmentation_measures(logits, masks).items():
            assert value == pytest.approx(found.get(f"{name}_{remedy}_97x61", value)), name
        wrong = logits.argmax(dim=1) != masks
        assert found[f"accuracy_{remedy}_97x61"] == pytest.approx(1 - wrong.double().mean().item())
        rim = torch.cat([wrong[:, -4:].flatten(), wrong[:, :-4, -4:].flatten()])
        assert found[f"edge_{remedy}_97x61"] == pytest.approx(1 - rim.double().mean().item())
    for name in ("accuracy", "edge", "foreground_boundary_iou"):
        assert len({found[f"{name}_{remedy}_97x61"] for remedy in unet_sizes.REMEDIES}) > 3
    for name in ("accuracy", "edge", "foreground_iou"):  # nothing is odd at 64 x 64
        assert len({found[f"{name}_{remedy}_64x64"] for remedy in unet_sizes.REMEDIES}) == 1


# the sweeps that can train several seeds in one call


@pytest.fixture
def small(monkeypatch):
    """Give every task few images, and the looks of every sweep early steps."""
    monkeypatch.setattr(tasks, "fashion_mnist", lambda split, tier: [some[:40] for some in fashion_mnist(split, tier)])
    monkeypatch.setattr(tasks, "CROPS", {"train": 20, "test": 6})
    monkeypatch.setattr(tasks, "SCENES", {"train": 20, "test": 6})
    monkeypatch.setattr(unet_odd, "TRAIN_SCENES", 20)
    monkeypatch.setattr(unet_odd, "TEST_SCENES", 3)
    monkeypatch.setattr(comparison, "WARMUP", 2)  # so that few steps move the weights
    for module in (rates, collapse):
        monkeypatch.setattr(module, "LOOKS", (2, 3))
    tasks._segmentation.cache_clear()
    yield
    tasks._segmentation.cache_clear()


OF_EACH = [
    (rates.SWEEP, dict(task="autoencoder", upsampling="pixel_shuffle")),
    (rates.SWEEP, dict(task="super_resolution", upsampling=REFERENCE)),
    *((collapse.SWEEP, dict(remedy=remedy)) for remedy in collapse.REMEDIES),
    (variants.SWEEP, dict(images="photographs", task="autoencoder", upsampling="bilinear_conv_3x3", convolutions=1)),
    (variants.SWEEP, dict(images="photographs", task="super_resolution", upsampling=REFERENCE, convolutions=2)),
    (variants.SWEEP, dict(images="garments", task="super_resolution", convolutions=2)),
    (unet.SWEEP, dict(skips=1, upsampling="conv_transpose_4x4")),
    (unet_relu.SWEEP, dict(upsampling="pixel_shuffle")),
    *((unet_odd.SWEEP, dict(remedy=remedy, upsampling=REFERENCE)) for remedy in unet_odd.REMEDIES),
    (unet_odd.SWEEP, dict(remedy="output_size", upsampling="conv_transpose_2x2")),
    (BY_NAME["super_resolution"], dict(upsampling="conv_transpose_4x4_bilinear_init")),
]


@pytest.mark.parametrize("sweep, chosen", OF_EACH, ids=lambda value: getattr(value, "name", str(value)))
def test_a_run_is_the_same_alone_and_together(small, sweep, chosen):
    setting = short(sweep, **chosen)
    common = dict(tier="mini", device="cpu")
    seeds, scale = [3, 1], 0.02 if "unet" in sweep.name else 1e-3
    together = sweep.run_together(**setting, seeds=seeds, **common)
    for seed, found in zip(seeds, together, strict=True):
        alone = sweep.run(**setting, seed=seed, **common)
        assert list(found) == list(alone)
        assert all(type(value) in (int, float) for value in [*found.values(), *alone.values()])
        assert found == pytest.approx(alone, rel=scale, abs=scale)
        assert rates.BROKEN not in found.values()
    assert together[0] != together[1]


def test_the_rates_are_those_of_four_blocks_at_full_length_on_images_of_their_own(monkeypatch):
    for tier in ("mini", "full"):
        rows = rates.settings(tier)
        assert [tuple(row.values()) for row in rows] == [
            (name, block, rate, TASKS[name].tiers[tier]["steps"])
            for name in ("autoencoder", "super_resolution")
            for block in FOUR
            for rate in RATES
        ]
    asked = []
    monkeypatch.setattr(rates, "train_seeds", lambda *given, **options: asked.append((given, options)))
    found = rates.run_together("autoencoder", "pixel_shuffle", 0.5, 200, seeds=[0, 4], tier="mini", device="meta")
    assert found == [{f"score_{step}": -100.0 for step in (*rates.LOOKS, "end")}] * 2
    [((build, seeds, images, targets), options)] = asked
    train = TASKS["autoencoder"].data("train", "mini")[0]
    assert torch.equal(images, train[:4500]) and torch.equal(targets, train[:4500]) and seeds == [1000, 1004]
    look = options.pop("look")
    assert options == dict(looks=rates.LOOKS, steps=200, batch_size=16, learning_rate=0.5, device="meta")
    model = build()
    assert [type(model.decoder.get_submodule(f"up{n}")[-1]) for n in (1, 2, 3)] == [torch.nn.PixelShuffle] * 3
    monkeypatch.setattr(rates, "reconstruct", lambda model, images: asked.append(images) or images / 255 + 0.1)
    for step in (100, 200):
        look(model, 1, step)
    assert all(torch.equal(images, train[4500:]) for images in asked[1:])
    assert set(found[0].values()) == {-100.0}
    measured = {name: value for name, value in found[1].items() if value != -100}
    assert measured == dict.fromkeys(("score_100", "score_200", "score_end"), pytest.approx(20, abs=0.01))


@pytest.mark.parametrize("sweep", [rates.SWEEP, collapse.SWEEP], ids=lambda sweep: sweep.name)
def test_a_training_that_breaks_off_has_minus_100_from_then_on(small, monkeypatch, sweep):
    setting = {**short(sweep), "learning_rate": 1e30}
    common = dict(tier="mini", device="cpu")
    together = sweep.run_together(**setting, seeds=[3, 1], **common)
    assert together == [sweep.run(**setting, seed=seed, **common) for seed in (3, 1)]
    assert all(set(found.values()) == {rates.BROKEN} for found in together)
    monkeypatch.setattr(LOOKING[sweep.name][0], "LOOKS", (0, 3))
    [found] = sweep.run_together(**setting, seeds=[3], **common)
    broken = {name for name, value in found.items() if value == rates.BROKEN}
    assert broken == {name for name in found if not name.endswith("_0")} and len(broken) < len(found)


def test_a_collapse_is_met_with_three_remedies(small, monkeypatch):
    rows, plain = collapse.settings("mini"), TASKS["super_resolution"].tiers["mini"]
    assert [row.pop("remedy") for row in rows] == ["none", "folded", "clipped", "normalized"]
    assert all(row == dict(steps=plain["steps"], batch_size=16, learning_rate=0.016) for row in rows)
    models = {}
    for remedy in collapse.REMEDIES:
        torch.manual_seed(0)
        models[remedy] = collapse.build(remedy, "mini")
    states = {remedy: model.state_dict() for remedy, model in models.items()}
    assert all(torch.equal(value, states["clipped"][name]) for name, value in states["none"].items())
    assert isinstance(models["folded"].layers.up1, FoldedPair) and isinstance(models["folded"].layers.up2, FoldedPair)
    assert list(map(torch.equal, states["none"].values(), states["folded"].values())) == [True] * 10
    kept = {name: value for name, value in states["normalized"].items() if "elu" not in name}
    assert all(torch.equal(value, states["none"][name]) for name, value in kept.items()) and len(kept) == 10
    groups = [part for part in models["normalized"].modules() if isinstance(part, torch.nn.GroupNorm)]
    assert [(part.num_groups, part.num_channels) for part in groups] == [(1, 32), (1, 32), (1, 16), (1, 8)]
    asked = []
    monkeypatch.setattr(collapse, "train_seeds", lambda *given, **options: asked.append((given, options)))
    for remedy in collapse.REMEDIES:
        collapse.run_together(remedy, 5, 16, 0.5, seeds=[1], tier="mini", device="meta")
    assert [options["clip"] for _, options in asked] == [None, None, 0.1, None]
    ((build, *_), options) = asked[0]
    assert type(build()) is type(models["none"]) and options["looks"] is collapse.LOOKS
    assert {name: options[name] for name in ("steps", "batch_size", "learning_rate", "device")} == dict(
        steps=5, batch_size=16, learning_rate=0.5, device="meta"
    )


@pytest.mark.parametrize("remedy", collapse.REMEDIES)
def test_what_is_saturated_is_the_input_of_the_last_elu(small, monkeypatch, remedy):
    seen = []

    def train_seeds(build, seeds, *images, look, **options):
        model = build()
        for shift in (0, -100, -4):
            with torch.no_grad():  # of half of the channels
                last = model.layers.elu4[0] if remedy == "normalized" else model.layers.up2
                for layer in last.modules():
                    if getattr(layer, "bias", None) is not None:
                        layer.bias[:4] += shift
                look(model, 0, {0: 2, -100: 3, -4: 5}[shift])
                for layer in last.modules():
                    if getattr(layer, "bias", None) is not None:
                        layer.bias[:4] -= shift
        seen.append(model)

    monkeypatch.setattr(collapse, "train_seeds", train_seeds)
    [found] = collapse.run_together(remedy, 5, 16, 0.5, seeds=[0], tier="mini", device="cpu")
    assert (found["saturated_2"], found["saturated_3"]) == (0, 0.5) and found["saturated_end"] < 0.5
    assert not any(part._forward_pre_hooks for part in seen[0].modules())


def test_the_variants_are_photographs_and_twice_the_convolutions():
    assert variants.settings("full") == []
    rows, three = variants.settings("mini"), ("conv_transpose_4x4", REFERENCE, "bilinear_conv_3x3")
    blocks = {}
    for row in rows:
        kind = row["images"], row["convolutions"], row["task"]
        blocks.setdefault(kind, []).append((row["upsampling"], row["learning_rate"]))
    expected = {("photographs", 1): (*FOUR, "bilinear_conv_3x3"), ("photographs", 2): three, ("garments", 2): three}
    assert blocks == {
        (*kind, task): [(block, rate) for block in names for rate in (0.004, 0.008)]
        for kind, names in expected.items()
        for task in ("autoencoder", "super_resolution")
    }
    assert {row["steps"] for row in rows} == {3000} and {row["batch_size"] for row in rows} == {16}
    assert {(row["images"], row["task"]): row["channels"] for row in rows} == {
        ("photographs", "autoencoder"): "16 32 64",
        ("garments", "autoencoder"): "8 16 64",
        **{(images, "super_resolution"): "32 16 8" for images in ("photographs", "garments")},
    }


def test_a_variants_runs_are_of_its_task_with_equal_channels(monkeypatch):
    asked = []
    monkeypatch.setattr(variants, "run_seeds", lambda task, **setting: asked.append((task, setting)) or [{"psnr": 1}])
    setting = variants.settings("mini")[-1]
    assert variants.run(**setting, seed=3, tier="mini", device="cpu") == {"psnr": 1}
    [(task, given)] = asked
    model = task.build(setting["upsampling"], (32, 16, 8), "mini")
    assert model.image_channels == 1 and "more1_1" in dict(model.layers.named_children())
    rest = {name: value for name, value in setting.items() if name not in ("images", "task", "convolutions")}
    assert given == {**rest, "comparisons": "channels", "seeds": [3], "tier": "mini", "device": "cpu"}


def test_a_unet_with_relus_is_compared_with_equal_channels(monkeypatch):
    for tier in ("mini", "full"):
        monkeypatch.setattr(comparison, "chosen_learning_rates", lambda task, tier: dict.fromkeys(task.blocks, 0.5))
        monkeypatch.setattr(comparison, "equal_time_steps", lambda task, tier: dict.fromkeys((*task.blocks, FOLDED), 7))
        plain, rows = TASKS["unet"].tiers[tier], unet_relu.settings(tier)
        assert [row.pop("upsampling") for row in rows] == [
            name for name in TASKS["unet"].blocks if name in unet_relu.BLOCKS
        ]
        assert len(rows) == 4 and all(row["comparisons"] == "channels" for row in rows)
        assert {row["channels"] for row in rows} == {" ".join(map(str, plain["channels"]))}
        assert {(row["steps"], row["batch_size"]) for row in rows} == {(plain["steps"], plain["batch_size"])}
    assert unet_relu.TASK.build(REFERENCE, (3, 4), "mini").decoder.activation is True
    asked = []
    for name in ("run_setting", "run_seeds"):
        monkeypatch.setattr(unet_relu, name, lambda task, **setting: asked.append((task, setting)))
    unet_relu.run(upsampling="x", seed=3)
    unet_relu.run_together(upsampling="x", seeds=[3])
    assert asked == [
        (unet_relu.TASK, {"upsampling": "x", "seed": 3}),
        (unet_relu.TASK, {"upsampling": "x", "seeds": [3]}),
    ]
    row = dict(upsampling=REFERENCE, channels="8 16")
    assert unet_relu.protocol(row, "mini") != unet.protocol({**row, "skips": 2}, "mini")


def test_every_remedy_has_its_own_unets_trained_on_odd_sizes(monkeypatch, small):
    assert unet_odd.settings("full") == []
    chosen = {"conv_transpose_2x2": 0.25, REFERENCE: 0.5}
    monkeypatch.setattr(unet_odd, "chosen_learning_rates", lambda task, tier: chosen)
    plain, rows = TASKS["unet"].tiers["mini"], unet_odd.settings("mini")
    assert [(row["upsampling"], row["remedy"], row["learning_rate"]) for row in rows] == [
        (name, remedy, rate) for name, rate in chosen.items() for remedy in unet_odd.REMEDIES
    ]
    assert {(row["steps"], row["batch_size"]) for row in rows} == {(plain["steps"], plain["batch_size"])}
    height, width = unet_odd.TRAINED
    assert height % 2 == width % 2 == 1 and (height // 2) % 2 == 1 and (width // 2) % 2 == 0
    assert unet_odd.TRAINED in unet_odd.SIZES and any(h % 4 == w % 4 == 0 for h, w in unet_odd.SIZES)
    asked = []

    def train_seeds(build, seeds, images, masks, *, look, **options):
        asked.append((seeds, images, masks, options))
        models = [build() for _ in seeds]
        for place, model in enumerate(models):
            model.decoder.head.bias.data = torch.tensor([0.0, 0, 0, 9 * place])
            asked.append((model, look(model, place, 7)))

    monkeypatch.setattr(unet_odd, "train_seeds", train_seeds)
    found = unet_odd.run_together(
        "interpolate", "conv_transpose_2x2", 7, 8, 0.5, seeds=[4, 6], tier="mini", device="meta"
    )
    (seeds, images, masks, options), (first, _), _ = asked
    assert seeds == [4, 6] and options == dict(steps=7, batch_size=8, learning_rate=0.5, device="meta")
    assert images.shape == (20, 1, 35, 33) and torch.equal(masks, garment_scenes("train", 20, (35, 33))[1])
    assert first.odd_sizes == "interpolate" and isinstance(first.decoder.up0[0], torch.nn.ConvTranspose2d)
    assert len(found[0]) == 5 * 3 and found[0] != found[1]
    for height, width in ((35, 33), (65, 65), (64, 64)):
        images, masks = garment_scenes("test", 3, (height, width), seed=1)
        with torch.no_grad():
            expected = segmentation_measures(first.eval()(images / 255), masks)
        assert {name: found[0][f"{name}_{height}x{width}"] for name in expected} == pytest.approx(expected)
