"""The rows of the benchmark: their columns, how they are shown, and the file that they are saved in."""

import csv
import datetime
import io

import torch
from filelock import FileLock

from tools.sweeps.engine import processor, read_rows
from upconv.book.common import write_whole

__all__ = ["COLUMNS", "KEY", "about", "save", "show"]

KEY = ("part", "name", "batch", "dtype", "form")
# Sizes are those of the input. A count is of multiply-accumulates, `macs` of the call as written and `macs_of_form` of
# this form; `bytes` is what has to be read and written at least. A ratio is how many times as fast as the yardstick.
COLUMNS = (
    *("part", "name", "in_channels", "out_channels", "height", "width", "batch", "dtype", "form"),
    *("compiled", "memory_format", "macs", "macs_of_form", "bytes"),
    *("milliseconds", "gpu_milliseconds", "ratio", "gpu_ratio"),
    *("max_error", "relative_error", "peak_mb", "kept_mb"),
    *("chip", "torch", "triton", "date"),
)


def about(device):
    """Give the columns that say what measured a row."""
    try:
        import triton  # noqa: PLC0415 - not everywhere
    except ImportError:
        triton = None
    return dict(
        chip=torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        torch=torch.__version__,
        triton=triton and triton.__version__,
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
    )


def _text(value):
    return "" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)


def save(rows, path):
    """Write rows into a file: in the place of a row of the same key, or at the end; all others stay as they are.

    Parameters
    ----------
    rows : list of dict
        With any of `COLUMNS`; what is None or missing is empty in the file.
    path : pathlib.Path
        Several processes may save into it.
    """
    new = [{column: _text(row.get(column)) for column in COLUMNS} for row in rows]
    new = {tuple(row[column] for column in KEY): row for row in new}
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.stem}.lock")):
        old = [{column: row.get(column) or "" for column in COLUMNS} for row in read_rows(path)]
        every = [new.pop(tuple(row[column] for column in KEY), row) for row in old] + list(new.values())
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(every)
        write_whole(path, lambda file: file.write(text.getvalue().encode()))


SHOWN = {
    "milliseconds": ("ms", "{:.3f}"),
    "ratio": ("ratio", "{:.2f}"),
    "gpu_milliseconds": ("ms on GPU", "{:.4f}"),
    "gpu_ratio": ("ratio", "{:.2f}"),
    "relative_error": ("error", "{:.1e}"),
    "peak_mb": ("peak MB", "{:.1f}"),
    "kept_mb": ("kept MB", "{:.1f}"),
}


def show(rows):
    """Print what was measured of one thing; columns that are empty in all rows are left out."""
    shown = {key: how for key, how in SHOWN.items() if any(row.get(key) is not None for row in rows)}
    print("  ".join([f"  {'':26}", *(f"{title:>9}" for title, _ in shown.values())]))
    for row in rows:
        values = ["" if row.get(key) is None else how.format(row[key]) for key, (_, how) in shown.items()]
        print("  ".join([f"  {row['form']:26}", *(f"{value:>9}" for value in values)]), flush=True)
