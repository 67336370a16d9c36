"""A model's run, watched: which upsampling steps it does, and who reads what they give. Not for users.

Models are copied and run in eval mode, without gradients; the given model and the random numbers stay as they are.
"""

from __future__ import annotations

import copy
import html
import math
import os
import re
import sys
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary

from upconv._interpolation import PADS
from upconv._layers import CONV_TRANSPOSES, CONVS
from upconv.layers import PixelShuffle

__all__ = ["SHUFFLES", "Inputs", "Report", "Watch", "copied", "follow", "is_convolution"]

SHUFFLES = (nn.PixelShuffle, PixelShuffle)

DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
BETWEEN = (*PADS, *DROPOUTS)  # modules that an exchange may look through
_IMAGE = re.compile("conv|.*pool|(batch|group|instance)_norm|(pad|cat|concat|concatenate|interpolate|pixel_shuffle)$")
_JOINS = re.compile("pad|cat|conc|conv")


class Report(list[dict[str, Any]]):
    """Rows as dicts, one for each upsampling; prints as a table, and shows as one in a notebook."""

    def __init__(self, rows: list[dict[str, Any]], columns: list[str], note: str = "") -> None:
        super().__init__(rows)
        self.columns, self.note = columns, note

    def __str__(self) -> str:
        cells = [list(self.columns), *([_cell(row[name]) for name in self.columns] for row in self)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
        ]
        return "\n".join([*lines, self.note] if self.note else lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(name)}</th>" for name in self.columns)
        rows = ("".join(f"<td>{html.escape(_cell(row[name]))}</td>" for name in self.columns) for row in self)
        table = f"<table><thead><tr>{head}</tr></thead><tbody><tr>{'</tr><tr>'.join(rows)}</tr></tbody></table>"
        return f'<div style="overflow-x:auto">{table}<p>{html.escape(self.note)}</p></div>'


def _cell(value):
    if isinstance(value, float):
        return f"{value:.2g}"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else "" if value is None else str(value)


class Inputs:
    """A model's example inputs."""

    def __init__(self, args, kwargs):
        args = (args,) if isinstance(args, torch.Tensor) else args
        if not isinstance(args, tuple) or not isinstance(kwargs or {}, dict):
            raise TypeError(
                f"example_inputs must be a tensor or a tuple of positional inputs, not {type(args).__name__}, and "
                f"example_kwargs a dict"
            )
        self.all = args, kwargs or {}

    def copies(self, change=lambda tensor: tensor):
        """Give positional and named inputs anew, changed if they are of floating point."""

        def own(value):
            if not isinstance(value, torch.Tensor):
                return value
            return change(value.detach().clone()) if value.is_floating_point() else value.detach().clone()

        return copy.deepcopy(tree_map(own, self.all))

    def run(self, model, *change):
        """Run a model in eval mode on copies of the inputs."""
        args, kwargs = self.copies(*change)
        with torch.no_grad(), torch.random.fork_rng():
            return model.eval()(*args, **kwargs)

    def tensors(self):
        return [value for value in tree_leaves(self.all) if isinstance(value, torch.Tensor)]


def copied(model):
    """Copy a module, also where the old weight_norm keeps a computed weight, which deepcopy refuses."""
    computed = [
        value
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, torch.Tensor) and not value.is_leaf
    ]
    new = copy.deepcopy(model, {id(value): value.detach().clone() for value in computed})
    for one, two in zip(model.modules(), new.modules(), strict=False):
        two.training = one.training  # which a __deepcopy__ that calls __init__ forgets
    return new


def follow(model):
    """Refuse what is no module, or calls what nobody can see."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, not {type(model).__name__}")
    compiled = getattr(torch._dynamo, "OptimizedModule", ()) if "torch._dynamo" in sys.modules else ()
    if isinstance(model, compiled):
        raise ValueError(
            "model is compiled: give the module that it was made of (its `_orig_mod`), and compile the result; "
            'torch.compile(model, backend="upconv") folds while it compiles'
        )
    for path, module in model.named_modules():
        if "forward" in vars(module) or isinstance(module, (torch.jit.ScriptModule, compiled)):
            how = "is set on the instance" if "forward" in vars(module) else "is compiled"
            raise ValueError(
                f"the forward of {path or 'the model'} {how}, so what it calls cannot be followed; give the model as "
                f"it was before that"
            )


class Step:
    """One call of an upsampling."""

    def __init__(self, name, module, what, x, output, arguments=None):
        self.name, self.module, self.what, self.arguments, self.line = name, module, what, arguments, caller()
        self.sizes = tuple(x.shape[2:]), tuple(output.shape[2:])
        self.dims, self.x = x.dim() - 2, None  # what it read, where that is kept
        self.autocast = torch.is_autocast_enabled(x.device.type)
        self.readers = []  # (a module or a text, the padding layers between)


class _Trace:
    """What a tensor that no layer made was made of: the shape of the largest image among it, and by what operations."""

    def __init__(self, shape, operations=(), place=None):
        self.shape, self.operations, self.place = shape, operations, place  # place: where it became larger, if it did


class Watch(TorchFunctionMode):
    """Runs a model, and notes in `steps` what enlarges, in order, and who reads it."""

    def __init__(self, model, inputs, training=False):
        """`model` is a copy already."""
        super().__init__()
        self.model, self.steps, self.convolutions, self.running = model, [], [], []
        self.names = {module: name for name, module in self.model.named_modules()}
        self.calls = {}  # by convolution, shuffle or pad: (step, modules between) of each call, or None
        self.made, self.traces = WeakIdKeyDictionary(), WeakIdKeyDictionary()
        args, kwargs = inputs.copies()
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, torch.Tensor):
                self.traces[tensor] = _Trace(tensor.shape)
        handles = [
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._leave, always_call=True),
        ]
        try:
            with torch.no_grad(), torch.random.fork_rng(), self:
                outputs = self.model.train(training)(*args, **kwargs)
        finally:
            for handle in handles:
                handle.remove()
        for value in tree_leaves(outputs):
            if isinstance(value, torch.Tensor):
                self._read(value, "the model's output")
                self._judge(value)

    def _enter(self, module, inputs):
        self.running.append((module, inputs[0] if inputs else None))
        if module in self.names and _is_leaf(module):
            known = bool(inputs) and isinstance(inputs[0], torch.Tensor)
            self.calls.setdefault(module, []).append(self.made.get(inputs[0]) if known else None)

    def _leave(self, module, inputs, output):
        self.running.pop()
        ours = type(module) is PixelShuffle and module in self.names  # which is no single operation
        if ours and inputs and isinstance(output, torch.Tensor):
            with torch._C.DisableTorchFunction():  # nothing here is the model's
                step = Step(self.names[module], module, "PixelShuffle", inputs[0], output)
                if grows(*step.sizes):
                    self._add(step, (inputs[0], tuple(module.factors)), {})
                    self.traces[output] = _Trace(output.shape)
        # what a hook returns would replace the output

    def place(self, kind):
        """Name the innermost module that runs, and give it if it is of a kind."""
        known = [module for module, _ in self.running if module in self.names]
        module = known[-1] if known else None
        return self.names.get(module) or "(the model itself)", module if isinstance(module, kind) else None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        leaf = next((m for m, _ in self.running[-1:] if m in self.names and _is_leaf(m)), None)
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
        name = getattr(func, "__name__", str(func))
        name = f".{func.__self__.__name__}" if name == "__get__" else name  # an attribute, such as shape
        for tensor in tensors:
            self._read(tensor, leaf or at(name))
        output = func(*args, **kwargs)
        self._note(func, name, args, kwargs, output, tensors)
        source = self.made.get(tensors[0]) if type(leaf) in BETWEEN and isinstance(output, torch.Tensor) else None
        if source and source[0].arguments:
            self.made[output] = source[0], source[1] + (leaf,) * (type(leaf) not in DROPOUTS)
        return output

    def _read(self, tensor, reader):
        source = self.made.get(tensor)
        if source and (type(reader) not in BETWEEN or not source[0].arguments or getattr(reader, "inplace", False)):
            source[0].readers.append((reader, source[1]))
            if not source[0].arguments and not isinstance(reader, SHUFFLES):
                source[0].x = None

    def _note(self, func, name, args, kwargs, output, tensors):
        """Note what enlarges; of all else, what it makes images of."""
        step = None
        if func is F.interpolate:
            arguments = (
                dict(zip(("input", "size", "scale_factor", "mode", "align_corners"), args, strict=False)) | kwargs
            )
            x = arguments.pop("input")
            if grows(x.shape[2:], output.shape[2:]):
                path, module = self.place(nn.Upsample)
                module = module if module is not None and _is_leaf(module) else None
                step = Step(_named(path, module, "F.interpolate"), module, _what(arguments), x, output, arguments)
                step.x = x
                self.made[output] = step, ()
        elif name.startswith("conv_transpose"):
            x = args[0] if args else kwargs["input"]
            path, module = self.place(CONV_TRANSPOSES)
            step = Step(_named(path, module, f"F.{name}"), module, f"ConvTranspose{x.dim() - 2}d", x, output)
        elif func is torch.pixel_shuffle:
            x = args[0] if args else kwargs["input"]
            path, module = self.place(nn.PixelShuffle)
            module = module if module is not None and _is_leaf(module) else None
            step = Step(_named(path, module, "F.pixel_shuffle"), module, "PixelShuffle", x, output)
        elif name.startswith("conv") and _is_leaf(leaf := self.place(CONVS)[1]):
            source = Step(self.names[leaf], leaf, name, output, output)
            source.x = self.running[-1][1]
            self.convolutions.append(source)
            self.made[output] = source, ()
        if step and grows(*step.sizes):
            self._add(step, args, kwargs)
        self._trace(name, tensors, output, step)

    def _add(self, step, args, kwargs):
        self.steps.append(step)

    def _trace(self, name, tensors, output, step):
        """Follow sizes through what is no layer, and note what has grown by then when a layer reads it."""
        made = [value for value in tree_leaves(output) if isinstance(value, torch.Tensor)]
        known = [self.traces[tensor] for tensor in tensors if tensor in self.traces]
        if _IMAGE.match(name) and "unpool" not in name and all(value.dim() <= 5 for value in made):
            for tensor in tensors:
                self._judge(tensor)
            for value in made:
                if known and not step and not _JOINS.match(name) and _grew(tensors[0].shape, value.shape):
                    self._unknown(name, at(self.place(())[0]), tensors[0].shape, value)
                self.traces[value] = _Trace(value.shape)
            return
        for value in made or (tensors[:1] if output is None else []):
            if known:
                largest = max(known, key=lambda trace: (trace.place is None, _area(trace.shape)))
                place = largest.place
                if place is None and _grew(largest.shape, value.shape):
                    place = at(self.place(())[0])
                self.traces[value] = _Trace(largest.shape, (*largest.operations, name)[-4:], place)

    def _judge(self, tensor):
        """Note an upsampling of some kind if a tensor that a layer reads has grown on its way."""
        trace = self.traces.get(tensor)
        if trace and trace.place and _grew(trace.shape, tensor.shape):
            self._unknown(", ".join(trace.operations), trace.place, trace.shape, tensor)
            self.traces[tensor] = _Trace(tensor.shape)

    def _unknown(self, operations, place, shape, tensor):
        step = Step(place, None, f"enlarged by {operations}", tensor, tensor)
        step.sizes = tuple(shape[2:]), tuple(tensor.shape[2:])
        self._add(step, None, None)


def _is_leaf(module):
    """Whether a module is one of those that an exchange understands, with PyTorch's own forward."""
    kinds = [kind for kind in (nn.Upsample, *SHUFFLES, *CONVS, *CONV_TRANSPOSES) if isinstance(module, kind)]
    return all(type(module).forward is kind.forward for kind in kinds) if kinds else type(module) in BETWEEN


def is_convolution(module):
    """Whether a module convolves: a transposed convolution with stride 1 does, too."""
    return isinstance(module, CONVS) or (isinstance(module, CONV_TRANSPOSES) and set(module.stride) == {1})


def grows(small, large):
    """Whether a size is larger than another, and smaller on no axis."""
    sides = list(zip(small, large, strict=True))
    return all(b >= a for a, b in sides) and any(b > a for a, b in sides)


def _grew(before, after):
    """Whether an image of this shape has become one of that shape, and larger by more than a pad makes it."""
    alike = len(before) == len(after) > 2 and before[0] == after[0] and grows(before[2:], after[2:])
    return alike and _area(after) >= 1.5 * _area(before) > 0


def _area(shape):
    return math.prod(shape[2:])


def _named(path, module, function):
    return path if module is not None else at(f"{path}: {function}")


def _what(arguments):
    size, factor = arguments.get("size"), arguments.get("scale_factor")
    amount = f"scale_factor={factor}" if size is None else f"size={size if isinstance(size, int) else tuple(size)}"
    return f"{arguments.get('mode', 'nearest')} upsampling, {amount}"


def caller():
    """Give "file:line" of the model's code that made the call which is being watched; "" if PyTorch's own did."""
    frame = sys._getframe()
    while re.match(r"(torch|upconv(?!\.book))\b", frame.f_globals.get("__name__", "")):
        if frame.f_code is Watch.__init__.__code__:
            return ""
        frame = frame.f_back
    return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"


def at(name):
    """Add the number of that line to a name."""
    line = caller().rpartition(":")[2]
    return f"{name} (line {line})" if line else name
