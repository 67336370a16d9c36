"""What do the forms of an upsampling cost? Times by turns in one run, as ratios: above 1 is faster than the yardstick.

    python -m tools.bench                              # everything, on this machine's default device; nothing is saved
    python -m tools.bench --part layer --name 512 --batch 1 --form pair folded jump
    python -m tools.bench --save                       # and write the rows into data/results/cost_<cpu or cuda>.csv
    python -m tools.bench --seconds 0 --name 64-64     # only compile, for the caches of a later run

One thread on a CPU. The parts are "ceiling", products of matrices and a large copy; "layer", nearest upsampling and a
3x3 convolution in all forms, against the two layers as they are in channels_last; "model", whole models with the
backend, against the best of eager and inductor in either memory format; and "training", a step of forward, backward and
SGD of both, against the best of eager in either format and inductor. An error is that against the same weights and
inputs in float64: of the result, or in training of the parameters' gradients.

Names and forms are chosen by what they begin with. With `--save` a row takes the place of the one with the same part,
name, batch, dtype and form, and all others stay: a run can be made in pieces.
"""

import argparse
import contextlib
import statistics
import sys
import warnings
from pathlib import Path

import torch
import torch._inductor.config

from tools.bench.parts import DTYPES, PARTS
from tools.bench.table import save
from tools.sweeps.engine import RESULTS
from upconv.book.machine import default_device


def main(arguments=None):
    """Measure what the arguments choose, those of the process if omitted; 1 if that is nothing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--name", "--layer", nargs="+", help="layers and models whose names begin so", metavar="NAME")
    parser.add_argument("--batch", nargs="+", type=int, help="of layers (default: 1 and 8; on a GPU 1 and 16)")
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, help="default: float32; on a GPU what it is good for")
    parser.add_argument("--form", nargs="+", help="forms whose names begin so; the yardstick runs always")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each comparison; 0: compile, and time nothing")
    parser.add_argument("--max-autotune", action="store_true", help="that mode of inductor on a CPU, too: minutes")
    parser.add_argument("--save", action="store_true", help="write the rows into the table")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where the table is (default: data/results)")
    given = parser.parse_args(arguments)
    if given.save and not given.seconds:
        parser.error("--seconds 0 measures nothing that could be saved")
    given.device = default_device()
    on_cpu = given.device.type == "cpu"
    if on_cpu and set(given.dtype or ()) & {"tf32"}:
        parser.error("tf32 is a GPU's")
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {given.device}, {'one thread' if on_cpu else torch.cuda.get_device_name()}")
    measured, ratios = False, {}
    with contextlib.ExitStack() as settings:
        settings.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        settings.enter_context(torch._inductor.config.patch({"freezing": on_cpu, "cpp.threads": 1}))
        # what is no longer compiled would be timed as if it were
        settings.enter_context(torch._dynamo.config.patch(recompile_limit=64, fail_on_recompile_limit_hit=True))
        for part in given.part:
            for rows in PARTS[part](given):
                measured |= bool(rows) or not given.seconds
                if given.save and rows:
                    save(rows, given.folder / f"cost_{given.device.type}.csv")
                for row in rows:
                    ratios.setdefault((part, row["form"]), []).append(row.get("ratio"))
    for (part, form), values in ratios.items():
        found = [value for value in values if value]
        if part != "ceiling" and len(found) > 1:
            print(f"{part}, {form}: {statistics.geometric_mean(found):.2f}, geometric mean of {len(found)}")
    if not measured:
        print("nothing was measured: no part has a name and a form like that")
    return 0 if measured else 1


if __name__ == "__main__":
    sys.exit(main())
