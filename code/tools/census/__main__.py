"""What do published models upsample with? One row a model in data/results/census.csv, in the order of the table.

    python -m tools.census                         # the rows that are missing, package by package
    python -m tools.census monai timm              # of some packages
    python -m tools.census monai --name UNet VNet  # of some models, anew

Models are built with random weights, at a small size; nothing is downloaded. Each package has a process of its own. A
model that fails gives a line on stderr and no row, and then the status is 1. `make census` brings the packages along.
"""

import argparse
import csv
import io
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import torch

from tools.census.look import COLUMNS, row
from tools.census.make import offline, stand_in
from tools.census.models import MODELS, STAND_INS

PATH = Path(__file__).resolve().parents[3] / "data" / "results" / "census.csv"


def read(path):
    """Read the rows that are there, by package and model."""
    if not path.exists():
        return {}
    with open(path, encoding="utf-8", newline="") as file:
        return {(found["package"], found["model"]): found for found in csv.DictReader(file)}


def write(path, rows):
    """Write rows in the order of the table, without those that it does not have."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows[model.package, model.name] for model in MODELS if (model.package, model.name) in rows)
    whole = path.with_suffix(".part")
    whole.write_text(text.getvalue(), encoding="utf-8", newline="")
    os.replace(whole, path)


def look_at(package, names, path):
    """Make the rows of a package that are missing, or that are named; give the number of models that failed."""
    failed = 0
    for model in MODELS:
        done = (model.package, model.name) in read(path)
        if model.package == package and (model.name in names if names else not done):
            try:
                found = row(model)
            except Exception as error:  # whatever the model's own code raises
                failed += 1
                print(f"{package}, {model.name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            else:
                write(path, read(path) | {(package, model.name): found})
                print(f"{package}, {model.name}: {found['steps']} steps", flush=True)
    return failed


def main(arguments=None):
    """Make what the arguments choose, those of the process if omitted; 1 if a model failed."""
    packages = list(dict.fromkeys(model.package for model in MODELS))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", nargs="*", help=f"default: all of {', '.join(packages)}")
    parser.add_argument("--name", nargs="+", default=[], help="models of it that are looked at again")
    parser.add_argument("--path", type=Path, default=PATH, help="the table (default: data/results/census.csv)")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # in this process
    given = parser.parse_args(arguments)
    if unknown := set(given.package) - set(packages):
        parser.error(f"{', '.join(sorted(unknown))}: choose from {', '.join(packages)}")
    if given.here:
        torch.set_num_threads(1)
        logging.disable(logging.WARNING)
        warnings.simplefilter("ignore")
        offline()
        stand_in(STAND_INS.get(given.package[0], ()))
        return min(1, look_at(given.package[0], given.name, given.path))
    command = [sys.executable, "-m", "tools.census", "--here", "--path", str(given.path)]
    status = 0
    for package in given.package or packages:
        wanted = [package, "--name", *given.name] if given.name else [package]
        status |= subprocess.run([*command, *wanted], check=False).returncode != 0
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
