"""The parts of the benchmark, each a generator of rows, thing by thing; and how the forms of one thing are compared."""

import contextlib
import copy
import gc
from functools import partial

import torch

import upconv
from tools.bench.forms import Form, Ready, first_of, gradients_of, layer_forms, model_forms, training_forms
from tools.bench.models import LAYERS, MODELS, pair_of
from tools.bench.table import about, show
from tools.bench.timing import interleaved, peak, replayed

__all__ = ["BATCHES", "DTYPES", "PARTS", "begins"]

DTYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,  # on a GPU: inputs and outputs in float32, products of TF32
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
BATCHES = {"cpu": (1, 8), "cuda": (1, 16)}
# Of the ceilings: of matrices, the best of which counts (on a CPU a small one is in its caches); and of what is copied.
SIZES = {"cpu": ((512, 2048), 2**26), "cuda": ((8192,), 2**29)}


def begins(name, wanted):
    """Say whether a name begins with one of those that are wanted; none means that all are."""
    return not wanted or name.startswith(tuple(wanted))


@contextlib.contextmanager
def precision(dtype):
    """Let float32 products use TF32 for a while, on a GPU, if the dtype's name is that; or keep them from it."""
    of_matrices, of_convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = of_matrices.allow_tf32, of_convolutions.allow_tf32
    of_matrices.allow_tf32 = of_convolutions.allow_tf32 = dtype == "tf32"
    try:
        yield
    finally:
        of_matrices.allow_tf32, of_convolutions.allow_tf32 = before


def compare(what, forms, yardsticks, expected, given):
    """Run the forms of one thing, time them by turns, and give the rows of those that were asked for.

    Parameters
    ----------
    what : dict
        The columns that all rows share.
    forms : list of Form
        One that raises is left out, with a printed line.
    yardsticks : list of str
        The forms of whose times the best is the one of the ratios. They are always run.
    expected : callable or None
        Computes the result in float64.
    given : argparse.Namespace
        `form`, `seconds`, `device`. In no seconds all is compiled and run once, and there are no rows.

    Returns
    -------
    list of dict
    """
    if not any(begins(form.name, given.form) for form in forms):
        return []
    print(f"{what['part']} {what['name']}, batch {what['batch']}, {what['dtype']}", flush=True)
    torch.compiler.reset()
    on_gpu, reference = given.device.type == "cuda", expected() if expected and given.seconds else None
    rows, ready = {}, {}
    for form in forms:
        if form.name not in yardsticks and not begins(form.name, given.form):
            continue
        try:
            made = form.make()
            errors = _errors(made.result(), reference)
        except Exception as error:  # whatever a compiler, another runtime or a form raises
            print(f"  left out: {form.name}: {type(error).__name__}: {str(error).strip().partition(chr(10))[0][:150]}")
            continue
        ready[form] = made
        rows[form.name] = what | dict(
            form=form.name, compiled=form.compiled, memory_format=form.memory_format, macs_of_form=made.macs, **errors
        )
    if given.seconds and ready:
        for name, measures in _measured(ready, yardsticks, given).items():
            rows[name] |= measures | about(given.device)
    rows = [row for name, row in rows.items() if given.seconds and begins(name, given.form)]
    if rows:
        show(rows)
    del ready
    gc.collect()
    if on_gpu:
        torch.cuda.empty_cache()
    return rows


def _measured(ready, yardsticks, given):
    """Give the times, the ratios and the memory of each form."""
    calls = {form.name: made.call for form, made in ready.items()}
    times, measures = {"": interleaved(calls, given.seconds, given.device)}, {name: {} for name in calls}
    for form, made in ready.items():
        measures[form.name]["kept_mb"] = made.kept() if made.kept else None
    if given.device.type == "cuda":
        for name, call in calls.items():
            measures[name]["peak_mb"] = peak(call)
        plain = {form.name for form in ready if form.plain}
        times["gpu_"] = replayed(calls, times[""], given.seconds / 2, plain)
    for kind, found in times.items():
        best = min((found[name] for name in yardsticks if name in found), default=None)
        for name, value in found.items():
            measures[name] |= {f"{kind}milliseconds": value, f"{kind}ratio": best and best / value}
    return measures


def _errors(result, expected):
    """Compare a result with the one in float64, piece by piece, which takes less memory."""
    if expected is None:
        return {}
    size = 1 if expected.dim() > 1 else 2**22  # images, or values of gradients
    pairs = zip(result.split(size), expected.split(size), strict=True)
    error = float(torch.stack([(a.double() - b).abs().max() for a, b in pairs]).max())
    return dict(max_error=error, relative_error=error / float(expected.abs().max()))


def _in_float64(model, x):
    """Compute a model's result in float64, image by image."""
    model = copy.deepcopy(model).double()
    with torch.no_grad():
        return torch.cat([first_of(model(image.double())) for image in x.split(1)])


def _gradients_in_float64(model, x):
    return gradients_of(copy.deepcopy(model).double().train(), x.detach().double())


def _sizes(x, y):
    sizes = x.shape[2:] if x.dim() == 4 else (None, None)
    return dict(in_channels=x.shape[1], out_channels=y, height=sizes[0], width=sizes[1], batch=len(x))


def ceilings(given):
    """Measure what this machine can do at most: products of matrices, and a large copy."""
    sizes, values = SIZES[given.device.type]
    for dtype in given.dtype or (("float32", "tf32", "bfloat16") if given.device.type == "cuda" else ("float32",)):
        bytes_each = DTYPES[dtype].itemsize
        source = torch.randn(1024, device=given.device).to(DTYPES[dtype]).repeat(values // 1024)
        target = torch.empty_like(source)
        kinds = []
        for size in sizes:
            a, b, c = torch.randn(3, size, size, device=given.device).to(DTYPES[dtype])
            kinds += [(f"matmul {size}", partial(torch.mm, a, b, out=c), size**3, 3 * size**2 * bytes_each)]
        for name, call, macs, moved in (*kinds, ("copy", partial(target.copy_, source), 0, 2 * values * bytes_each)):
            if begins(name, given.name) and (dtype != "tf32" or macs):
                what = dict(part="ceiling", name=name, batch=1, dtype=dtype, macs=macs, bytes=moved)
                form = Form(name, lambda call=call, macs=macs: Ready(call, call, macs), False, None, plain=True)
                with precision(dtype), torch.no_grad():
                    yield compare(what, [form], [form.name], None, given)


def layers(given, training=False):
    """Measure nearest upsampling and a convolution in all forms; or training steps of it."""
    kind = given.device.type
    usual = ("float32",) if kind == "cpu" else ("bfloat16",) if training else ("float32", "tf32", "bfloat16")
    for name, (in_channels, out_channels, size) in LAYERS.items():
        for batch in given.batch or BATCHES[kind]:
            for dtype in given.dtype or usual:
                if not begins(name, given.name):
                    continue
                torch.manual_seed(0)
                pair, x = pair_of(in_channels, out_channels), torch.randn(batch, in_channels, size, size)
                macs = upconv.macs(copy.deepcopy(pair).to("meta"), x.to("meta"))
                pair = pair.to(given.device, DTYPES[dtype]).eval().requires_grad_(training)
                x = x.to(given.device, DTYPES[dtype]).requires_grad_(training)
                values = sum(map(torch.numel, (x, *pair.parameters()))) + 4 * batch * size**2 * out_channels
                what = dict(name=name, **_sizes(x, out_channels), dtype=dtype)
                if training:
                    forms, yardsticks = training_forms(pair, x)
                    what, expected = dict(part="training") | what, partial(_gradients_in_float64, pair, x)
                else:
                    forms, yardsticks = layer_forms(pair, x, given.max_autotune), ["pair"]
                    what |= dict(macs=macs, bytes=values * x.element_size())
                    what, expected = dict(part="layer") | what, partial(_in_float64, pair, x)
                with precision(dtype):
                    yield compare(what, forms, yardsticks, expected, given)


def models(given, training=False):
    """Measure whole models, or training steps of them."""
    kind = given.device.type
    for name, model in MODELS.items():
        if not begins(name, given.name):
            continue
        torch.manual_seed(0)
        try:
            made, size = model.make(kind), model.cuda if kind == "cuda" else model.cpu
        except ImportError as error:
            print(f"left out: {name}: {error}")
            continue
        for dtype in given.dtype or ("bfloat16" if kind == "cuda" else "float32",):
            own = copy.deepcopy(made).to(given.device, DTYPES[dtype]).eval().requires_grad_(False)
            x = torch.randn(size).to(given.device, DTYPES[dtype])
            with torch.no_grad():
                channels = first_of(own(x)).shape[1]
            what = dict(part="training" if training else "model", name=name, **_sizes(x, channels), dtype=dtype)
            if training:
                own.requires_grad_(True)
                (forms, yardsticks), expected = training_forms(own, x), partial(_gradients_in_float64, own, x)
            else:
                (forms, yardsticks), expected = model_forms(own, x), partial(_in_float64, own, x)
                what |= dict(macs=upconv.macs(own, x))
            with precision(dtype):
                yield compare(what, forms, yardsticks, expected, given)


def steps(given):
    """Measure training steps of layers and of models."""
    yield from layers(given, training=True)
    yield from models(given, training=True)


PARTS = {"ceiling": ceilings, "layer": layers, "model": models, "training": steps}
