"""The sweeps: complete, resumable, the same through every backend; and their committed tables."""

import math
import os
import runpy
import statistics
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import dask
import pandas as pd
import pytest
import torch
from dask.distributed import LocalCluster

from tools.sweeps import checkerboard, engine, learning_rates, replacing, schedules, step_time, unet, unet_sizes
from tools.sweeps.__main__ import SWEEPS
from tools.sweeps.engine import Sweep, SweepError, by_protocol, execute, main, open_runs, protocol_hash, read_rows
from upconv.book import comparison, pets, scenes, tasks
from upconv.book.comparison import EARLY, matched_channels
from upconv.book.scenes import garment_scenes
from upconv.book.tasks import TASKS, Task, segmentation_measures, unet_with_skips

BY_NAME = {sweep.name: sweep for sweep in SWEEPS}


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
    runs = open_runs(by_protocol(toy(settings=settings), "mini"), "mini", 2, tmp_path / "toy.csv")
    assert [(setting["name"], seed) for setting, seed, _ in runs] == [(n, s) for s in (0, 1) for n in "abc"]


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
    assert {path.stem for path in engine.RESULTS.glob("*.csv")} == set(BY_NAME)


def test_times_are_measured_by_one_job_and_every_table_has_its_own_number_of_seeds(executed):
    main(SWEEPS, ["--jobs", "3"])
    found = {name: (options["jobs"], options["seeds"]) for name, options in executed}
    assert found == {sweep.name: (1 if sweep.name == "step_time" else 3, sweep.seeds) for sweep in SWEEPS}
    executed.clear()
    main(SWEEPS, ["step_time", "--seeds", "7", "--device", "cuda:1"])
    [(_, options)] = executed
    assert (options["seeds"], options["device"], options["backend"]) == (7, "cuda:1", "loky")


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
        setting = sweep.settings("mini")[0]
        found = protocol_hash(sweep, setting, "mini")
        for name, value in setting.items():
            if name not in ("task", "upsampling", "channels", "skips"):  # a name that there is not is an error there
                other = {**setting, name: f"{value} more" if isinstance(value, str) else value + 1}
                assert (protocol_hash(sweep, other, "mini") == found) is (name == "comparisons"), (sweep.name, name)
        with monkeypatch.context() as patch:
            patch.setattr(torch, "__version__", "99.0")
            assert protocol_hash(sweep, setting, "mini") == found


def one_of_each():
    """Give the sweeps' hashes: of a setting of each task and number of skip connections."""
    for sweep in SWEEPS:
        chosen = {(setting.get("task"), setting.get("skips")): setting for setting in SETTINGS[sweep.name]}
        yield sweep.name, [protocol_hash(sweep, setting, "mini") for setting in chosen.values()]


SETTINGS = {sweep.name: sweep.settings("mini") for sweep in SWEEPS}
OF_TASKS = {"learning_rates", "step_time"}  # of all three
FITTED = {"learning_rates", "autoencoder", "super_resolution", "unet", "unet_sizes"}
OF_UNETS = {*OF_TASKS, "unet", "unet_sizes"}
PLAIN = {"checkerboard", "replacing", "schedules"}


@pytest.mark.parametrize(
    "owner, name, value, changes",
    [
        (TASKS["autoencoder"].tiers["mini"], "channels", (8, 16, 65), {*OF_TASKS, "autoencoder"}),
        (TASKS["super_resolution"].tiers["mini"], "channels", (32, 16, 9), OF_TASKS),  # in the settings of the others
        (TASKS["unet"].tiers["mini"], "encoder", (8, 16, 33), OF_UNETS),
        (TASKS["autoencoder"].tiers["mini"], "batch_size", 17, OF_TASKS),  # likewise
        (tasks.FASHION_MNIST, "mini", "another sum", {*OF_TASKS, *PLAIN, "autoencoder", "super_resolution"}),
        (tasks.SCENES, "train", 3999, OF_UNETS),
        (scenes.TEXTURES, "test", ("gravel",), OF_UNETS),
        (comparison, "WARMUP", 99, FITTED),
        (comparison, "EARLY", (0, 20), FITTED - {"learning_rates"}),
        (checkerboard, "EARLY", (0, 20), {"checkerboard"}),
        (schedules, "EARLY", (0, 20), {"schedules"}),
        (schedules, "DECAY", 0.9, {"schedules"}),
        (replacing, "LOOKS", (0, 30), {"replacing"}),
        (learning_rates, "SEED", 2000, {"learning_rates"}),
        (step_time, "ROUNDS", 11, {"step_time"}),
        (unet_sizes, "SCENES", 100, {"unet_sizes"}),
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
    for tier in {row["tier"] for row in rows}:
        settings, here = sweep.settings(tier), [row for row in rows if row["tier"] == tier]
        seeds = len({row["seed"] for row in here})
        assert seeds >= sweep.seeds
        assert open_runs(by_protocol(sweep, tier), tier, seeds, engine.RESULTS / f"{sweep.name}.csv") == []
        assert len(here) == seeds * len(settings)  # none twice, none of a setting that is no more
        measures = rows[0].keys() - {"tier", "seed", *settings[0], *engine.ABOUT}
        assert measures and all(math.isfinite(float(row[name])) for row in here for name in measures)


def test_a_committed_decoder_has_its_parameters_and_its_work():
    for name, rows in ((name, read_rows(engine.RESULTS / f"{name}.csv")) for name in TASKS):
        for row in {(row["upsampling"], row["channels"], row.get("skips")): row for row in rows}.values():
            task = unet_with_skips(int(row["skips"])) if name == "unet" else TASKS[name]
            model = task.build(row["upsampling"], tuple(map(int, row["channels"].split())), "mini")
            assert task.parameters_and_macs(model) == (int(row["parameters"]), int(row["macs"]))


LONG = "autoencoder", "unet"


class EnoughError(Exception):
    pass


def remade(sweep, setting, seed, monkeypatch):
    """Make a run again; a long one only until it has been measured for the last time before its end."""
    if sweep.name not in LONG:
        return sweep.run(**setting, seed=seed, tier="mini", device="cpu")
    found, steps, measure = {}, iter(EARLY), Task.measure

    def until_the_last(task, *arguments, **options):
        step = next(steps)
        found.update({f"{name}_{step}": value for name, value in measure(task, *arguments, **options).items()})
        if step == EARLY[-1]:
            raise EnoughError
        return {}

    monkeypatch.setattr(Task, "measure", until_the_last)
    with pytest.raises(EnoughError):
        sweep.run(**setting, seed=seed, tier="mini", device="cpu")
    return found


def made_here(row):
    """Whether a row comes from a machine like this one: its digits depend on PyTorch and on the processor.

    The rows say "AMD EPYC", which hides the model; they were made on one of family 25, model 17, with AVX-512.
    """
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text(encoding="utf-8").splitlines() if cpu.exists() else []
    about = {part.strip(): value.strip() for part, _, value in (line.partition(":") for line in lines)}
    model = [about.get(part) for part in ("model name", "cpu family", "model")]
    here = [torch.__version__, *model, torch.backends.cpu.get_cpu_capability()]
    return here == [row["torch"], row["processor"], "25", "17", "AVX512"]


@pytest.mark.parametrize("name", [name for name in BY_NAME if name != "unet_sizes"])
def test_a_row_comes_out_again(name, monkeypatch):
    """The quickest one, made anew: on a machine like the row's to the last digit, on another within what seeds differ.

    Training magnifies what processors round differently, up to another run of the same kind. So there a measure may be
    as far off as three standard deviations between the seeds of one setting (the median over the settings of its task),
    and nothing is magnified before the first step. The times of `step_time` are those of a machine and its load. A long
    run, of a minute, is made until step 200, and none of `unet_sizes` (its training is one of `unet`, its measures have
    a test below): what comes later is made by the same code, of the same weights.
    """
    sweep, rows = BY_NAME[name], read_rows(engine.RESULTS / f"{name}.csv")
    row = min((row for row in rows if row["tier"] == "mini"), key=lambda row: (float(row["seconds"]), row["seed"]))
    [setting] = [one for one in sweep.settings("mini") if all(str(one[name]) == row[name] for name in one)]
    again = remade(sweep, setting, int(row["seed"]), monkeypatch)
    table = pd.DataFrame(rows)
    table = table[(table["tier"] == "mini") & (table.get("task") == row.get("task"))]
    for measure, value in again.items():
        known = float(row[measure])
        if sweep.alone:
            assert value > 0 and known > 0
        elif made_here(row):
            assert value == known, measure
        elif measure.endswith("_0"):
            assert value == pytest.approx(known, rel=1e-3, abs=1e-7), measure
        else:
            spread = table[measure].astype(float).groupby([table[one] for one in setting]).std().median()
            assert value == pytest.approx(known, rel=1e-6, abs=max(3 * spread, 1e-6)), measure


# what the sweeps do


def test_the_constant_schedule_is_the_checkerboards_and_the_average_follows_the_weights(monkeypatch):
    monkeypatch.setattr(checkerboard, "EARLY", (0, 3))
    monkeypatch.setattr(schedules, "EARLY", (0, 3))
    setting = dict(upsampling="pixel_shuffle", steps=5, batch_size=16, learning_rate=0.004)
    common = dict(seed=1, tier="mini", device="cpu")
    plain = checkerboard.run(**setting, **common)
    constant, falling = (schedules.run(schedule, **setting, **common) for schedule in ("constant", "to 0"))
    assert {name: constant[name] for name in plain} == plain
    assert falling["psnr_3"] != constant["psnr_3"] and falling["psnr_0"] == constant["psnr_0"]
    assert constant["averaged_psnr_0"] == constant["psnr_0"] < constant["averaged_psnr_end"] < constant["psnr_end"]
    monkeypatch.setattr(schedules, "DECAY", 0.0)  # the average is the last weights
    followed = schedules.run("constant", **setting, **common)
    assert followed["averaged_psnr_end"] == pytest.approx(constant["psnr_end"])


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
        if "bicubic_conv_3x3" in TASKS[task].blocks:
            assert statistics.median(ratios[task, "bicubic_conv_3x3"]) > 1.5


def test_masks_are_timed_too(monkeypatch):
    monkeypatch.setattr(step_time, "ROUNDS", 1)
    monkeypatch.setattr(step_time, "STEPS", 1)
    found = step_time.run("unet", "conv_transpose_2x2", seed=0, tier="mini", device="cpu")
    assert all(0 < value < 1000 for value in found.values())
    rows = [(row["task"], row["upsampling"]) for row in step_time.settings("mini")]
    assert rows == [(name, block) for name, task in TASKS.items() for block in task.blocks]


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
            channels = matched_channels(unet_with_skips(skips), row["upsampling"])
            assert row["channels"] == " ".join(map(str, channels))
    asked = []
    monkeypatch.setattr(unet, "run_setting", lambda task, **setting: asked.append((task, setting)))
    unet.run(skips=1, upsampling="x", seed=3)
    [(task, setting)] = asked
    assert setting == {"upsampling": "x", "seed": 3}
    assert task.build("pixel_shuffle", (3, 4), "mini").decoder.skips == 1
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
