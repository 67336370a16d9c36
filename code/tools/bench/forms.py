"""The forms that are compared: of a layer, of a model, of a training step; each is made when its turn comes."""

import copy
import io
import itertools
import logging
import types
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

import upconv
from tools.bench.timing import kept
from tools.bench.winograd import Winograd
from upconv.fastest import fused

__all__ = ["Form", "Ready", "first_of", "gradients_of", "layer_forms", "model_forms", "training_forms"]

INNER = "inductor"  # what compiles: the tests take what is sooner done
NUMBERS = itertools.count()


class Ready(NamedTuple):
    """A form that was made."""

    call: Callable  # what is timed
    result: Callable  # gives what is held against the result in float64
    macs: int | None = None
    kept: Callable | None = None  # gives what the forward pass keeps, in MB


class Form(NamedTuple):
    """A form: its name in the table, and what makes it, a `Ready`."""

    name: str
    make: Callable
    compiled: bool = False
    memory_format: str = "channels_last"
    plain: bool = False  # whether it is timed without a CUDA graph


def formatted(x, memory_format):
    """Give a copy of a module, or an image, in a memory format; other tensors as they are."""
    if isinstance(x, nn.Module):
        return copy.deepcopy(x).to(memory_format=getattr(torch, memory_format))
    return x.contiguous(memory_format=getattr(torch, memory_format)) if x.dim() == 4 else x


def first_of(result):
    """Give the tensor that a model puts out, or the first of several."""
    return result[0] if isinstance(result, (tuple, list)) else result


def without_gradients(model, x):
    with torch.no_grad():
        return first_of(model(x))


def _forward(self, x):
    return self.module(x)


def compiled(module, **options):
    """Compile a module in a frame of its own: what Dynamo keeps for one frame, each call of it looks through."""
    code = _forward.__code__.replace(co_name=f"forward{next(NUMBERS)}")
    frame = type("Frame", (nn.Module,), {"forward": types.FunctionType(code, globals())})()
    frame.module = module
    return torch.compile(frame.train(module.training), dynamic=False, **options)


def upconv_backend(**options):
    """Give the arguments with which torch.compile takes the book's backend."""
    options |= {} if INNER == "inductor" else {"inner": INNER}
    return dict(backend=upconv.backend, options=options or None)


def macs_of(module, x):
    """Count without computing; None if that cannot be."""
    try:
        return upconv.macs(copy.deepcopy(module).to("meta"), x.to("meta"))
    except Exception:  # whatever a model's own code raises, of tensors without values
        return None


# layers


def layer_forms(pair, x, max_autotune=False):
    """List the forms of an Upsample and a Conv2d for a device and dtype; "pair", channels_last, is the yardstick.

    Parameters
    ----------
    pair : torch.nn.Sequential
    x : torch.Tensor
        Both are left as they are.
    max_autotune : bool
        Whether to list that on a CPU, too, where it takes minutes.

    Returns
    -------
    list of Form
    """
    on_cpu, half = x.device.type == "cpu", x.dtype in (torch.bfloat16, torch.float16)

    def form(name, change, memory_format="channels_last", counted=True, **compiling):
        def make():
            y = formatted(x, memory_format)
            module = change(formatted(pair, memory_format), y)
            macs = macs_of(module, y) if counted else None
            call = partial(without_gradients, compiled(module, **compiling) if compiling else module, y)
            return Ready(call, call, macs)

        return Form(name, make, bool(compiling), memory_format)

    changes = {"pair": _same, "folded": _folded, "subpixel": _subpixel, "jump": _jump, "winograd": _winograd}
    inductor = dict(backend=INNER)
    forms = [form(name, change) for name, change in changes.items()]
    forms += [form(f"{name}, compiled", change, **inductor) for name, change in changes.items() if name != "subpixel"]
    if on_cpu:
        plain = [name for name in changes if name != "winograd"]
        forms += [form(f"{name}, contiguous", changes[name], "contiguous_format") for name in plain]
        forms += [form("pair, compiled, contiguous", _same, "contiguous_format", **inductor)]
        forms += [
            Form(f"{name}, onnxruntime", partial(_in_onnxruntime, changes[name], pair, x), False, "contiguous_format")
            for name in ("pair", "folded", "jump")
        ]
    else:
        forms += [form("pair, contiguous", _same, "contiguous_format")]
    if max_autotune or not on_cpu:
        # (with graphs of its own, it could not be part of the ones by which all are timed)
        forms += [form("pair, max-autotune", _same, mode="max-autotune-no-cudagraphs", **inductor)]
    if half and not on_cpu:
        forms += [form("fused", _fused), form("fused, compiled", _fused, **inductor)]
    forms += [form("fastest", _fastest)]
    forms += [form("fastest, compiled", _same, counted=False, **upconv_backend(to="fastest"))]
    return forms


def _same(pair, x):
    return pair


def _folded(pair, x):
    return upconv.upsample_conv_to_conv_transpose(*pair)


def _subpixel(pair, x):
    return upconv.upsample_conv_to_subpixel(*pair)


def _jump(pair, x):
    return upconv.upsample_conv_to_jump(*pair)


def _winograd(pair, x):
    return Winograd(*pair)


def _fused(pair, x):
    return fused(upconv.upsample_conv_to_conv_transpose(*pair))


def _fastest(pair, x):
    return upconv.rewrite(pair, "fastest", x).model


def _in_onnxruntime(change, pair, x):
    import onnxruntime  # noqa: PLC0415 - slow to import, and not everywhere

    y = formatted(x, "contiguous_format")
    module, file = change(formatted(pair, "contiguous_format"), y), io.BytesIO()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns that torchvision is not there
    torch.onnx.export(module, (y,), dynamo=True, input_names=["x"], verbose=False).save(file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    call = partial(session.run, None, {"x": y.numpy()})
    return Ready(call, lambda: torch.from_numpy(call()[0]), macs_of(module, y))


# models


FORMATS = {"": "channels_last", ", contiguous": "contiguous_format"}


def model_forms(model, x):
    """List the forms of a model in eval mode; the yardstick is the best of the first four.

    Returns
    -------
    list of Form
    list of str
        The yardsticks' names.
    """
    ways = {
        "eager": None,
        "inductor": dict(backend=INNER),
        "rewrite": None,
        "backend": upconv_backend(),
        "fastest": upconv_backend(to="fastest"),
    }

    def make(name, memory_format):
        own, y = formatted(model, memory_format), formatted(x, memory_format)
        if name == "rewrite":
            rewritten = upconv.rewrite(own, "conv_transpose", y)
            if not rewritten.counts["rewritten"]:
                raise ValueError("its upsampling is not made of modules")
            own = rewritten.model
        macs = None if name in ("backend", "fastest") else macs_of(own, y)
        call = partial(without_gradients, compiled(own, **ways[name]) if ways[name] else own, y)
        return Ready(call, call, macs)

    forms = [
        Form(name + suffix, partial(make, name, memory_format), ways[name] is not None, memory_format)
        for name in ways
        for suffix, memory_format in FORMATS.items()
    ]
    return forms, [form.name for form in forms[:4]]


# training


def gradients_of(model, x, own=None):
    """Compute the gradients of the mean square of what a model puts out: those of its parameters, as one tensor."""
    parameters = list((own or model).parameters())
    x.grad = None
    for parameter in parameters:
        parameter.grad = None
    first_of(model(x)).square().mean().backward()
    return torch.cat([parameter.grad.flatten() for parameter in parameters if parameter.grad is not None])


def training_forms(model, x):
    """List the forms of a training step: forward, backward, SGD; the yardstick is the best of the first three.

    Parameters
    ----------
    model : torch.nn.Module
    x : torch.Tensor
        Its gradient is computed, too, if it needs one.

    Returns
    -------
    list of Form
    list of str
        The yardsticks' names.
    """

    def make(memory_format, compiling):
        own = formatted(model, memory_format).train().requires_grad_(True)
        y = formatted(x.detach(), memory_format).requires_grad_(x.requires_grad)
        new = compiled(own, **compiling) if compiling else own
        optimizer = torch.optim.SGD(own.parameters(), 1e-4)

        def step():
            optimizer.zero_grad()
            y.grad = None
            first_of(new(y)).square().mean().backward()
            optimizer.step()

        return Ready(step, partial(gradients_of, new, y, own), kept=partial(kept, new, y))

    ways = {
        "eager": ("channels_last", None),
        "eager, contiguous": ("contiguous_format", None),
        "inductor": ("channels_last", dict(backend=INNER)),
        "backend": ("channels_last", upconv_backend()),
        "fastest": ("channels_last", upconv_backend(to="fastest")),
    }
    forms = [
        Form(name, partial(make, memory_format, compiling), compiling is not None, memory_format)
        for name, (memory_format, compiling) in ways.items()
    ]
    return forms, [form.name for form in forms[:3]]
