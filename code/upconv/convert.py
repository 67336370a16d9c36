"""Whole models: `rewrite` changes the form of every upsampling in one, `audit` says what each of them is.

Both run copies, in eval mode and without gradients, and leave the given model, its state and the random numbers alone.
"""

import contextlib
import copy
import html
import itertools
import sys
import threading
import time
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import FlopCounterMode

from upconv._layers import crop_layer, made, spread, working_copy
from upconv._lazy import LazyUpsampling, Upsampled
from upconv.phases import phase_gains
from upconv.projection import conv_transpose_to_upsample_conv, is_upsample_conv
from upconv.rewrites import conv_transpose_to_subpixel

__all__ = ["Report", "Rewrite", "audit", "rewrite"]

TARGETS = ("subpixel", "conv_transpose", "upsample_conv")
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class Report(list):
    """Rows as dicts, one for each upsampling; prints as a table, and shows as one in a notebook."""

    def __init__(self, rows, columns, note=""):
        super().__init__(rows)
        self.columns, self.note = columns, note

    def __str__(self):
        cells = [list(self.columns), *([_cell(row[name]) for name in self.columns] for row in self)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
        ]
        return "\n".join([*lines, self.note] if self.note else lines)

    __repr__ = __str__

    def _repr_html_(self):
        head = "".join(f"<th>{html.escape(name)}</th>" for name in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(_cell(row[name]))}</td>" for name in self.columns) + "</tr>"
            for row in self
        )
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f'<div style="overflow-x:auto">{table}<p>{html.escape(self.note)}</p></div>'


class Rewrite:
    """What `rewrite` returns.

    `model` is the new model. `report` has a row for each upsampling. `counts` says how many of them were rewritten,
    left as they are or refused. With `measure=True`, `seconds` are the median times of a call before and after.
    """

    def __init__(self, model, report, seconds=None):
        self.model, self.report, self.seconds = model, report, seconds
        self.counts = {
            status: sum(row["status"] == status for row in report) for status in ("rewritten", "left", "refused")
        }

    def __repr__(self):
        return str(self.report)

    def _repr_html_(self):
        return self.report._repr_html_()


def rewrite(model, to, *, example_inputs=None, measure=False):
    """Change the form of every upsampling in a model.

    Parameters
    ----------
    model : torch.nn.Module
        It is left as it is; everything is done to a copy.
    to : str
        "subpixel": every ConvTranspose2d becomes a Conv2d and a pixel shuffle, exactly.
        "upsample_conv": every ConvTranspose2d becomes an Upsample and a Conv2d; exactly if `is_upsample_conv`,
        otherwise fitted, layer after layer, to what the layer puts out in the given model, on the inputs that the part
        rewritten so far gives for `example_inputs`; without these, the kernel is projected. The residual is reported.
        "conv_transpose": every Upsample (or `F.interpolate`) by a whole-numbered scale that a Conv2d with stride 1
        reads, directly, through a pad or together with others through `torch.cat`, is computed with it as one
        transposed convolution, exactly; a 1x1 convolution runs before the upsampling instead. Linear and cubic
        upsampling only where that is exact at the border too. It acts under `torch.no_grad()` (export included); with
        gradients, in inference mode, under autocast, torch.compile and torch.func's transforms
        all is computed as before.
    example_inputs : tuple, optional
        Positional inputs for `model`. Needed for "conv_transpose". With them the report has differences and MACs.
    measure : bool
        Whether to time both models on `example_inputs`, in turns.

    Returns
    -------
    Rewrite
        `.model`: a module of the same class, with the same train/eval flags. `.report`: a row a layer as a dict with
        `name`, `was`, `became` (None if it is as it was), `exact`, `residual` (relative, see
        `conv_transpose_to_upsample_conv`), `max_difference` of the layer's outputs on the example inputs,
        `parameters_before`, `parameters_after`, `macs_before`, `macs_after`, `reason` and `status` ("rewritten", "left"
        or "refused").

    Raises
    ------
    ValueError
        If `to` is none of the three, or `example_inputs` are needed and missing; if a module's forward is set on the
        instance and not by its class, or compiled by torch.jit: what it calls cannot be exchanged.
    TypeError
        If `model` is no module, or `example_inputs` no tuple.

    Notes
    -----
    ConvTranspose2d layers are exchanged as modules. With `example_inputs`, the whole new model is held against the
    given one: an exact exchange that changes the outputs is taken back, as is one of a layer whose attributes the
    model reads, or that the inputs do not reach. Without them a model that does so fails with an AttributeError, and
    one that gives `output_size` with a TypeError, and so does one with such code on a path that the inputs do not take.
    Weights that a layer shares with others are shared no longer.

    "conv_transpose" exchanges nothing: the copy keeps its parameters and gets two hooks, and while it runs, upsampled
    tensors wait until an operation needs them, so its meaning is that of its code on every path; what a convolution
    cannot use is computed as before. They are a subclass of `torch.Tensor`, which code that asks for the exact type
    can see. An infinite pixel can give NaN at other places than before. Not seen are changes in place through a NumPy
    array, made before, that shares a tensor's memory; others that come unseen raise a RuntimeError. Not reached are
    upsamplings inside `torch.jit` functions, by `torch.ops`, by code that indexes pixels, and in calls of `.forward`
    or other methods from outside; `PixelShuffle`; and pointwise functions between upsampling and convolution, which
    make the upsampled tensor needed. 1-D and 3-D layers are listed and left. Only PyTorch's random numbers are
    restored. `torch.jit.script` cannot compile the hooks, and `torch.jit.trace` runs them.

    Examples
    --------
    >>> decoder = nn.Sequential(nn.ConvTranspose2d(4, 4, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(4, 1, 2, 2))
    >>> result = rewrite(decoder, "subpixel")
    >>> [type(layer).__name__ for layer in result.model], result.counts["rewritten"]
    (['Sequential', 'ReLU', 'Sequential'], 2)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, not {type(model).__name__}")
    if to not in TARGETS:
        raise ValueError(f"to={to!r} must be one of {', '.join(TARGETS)}")
    if example_inputs is None and (to == "conv_transpose" or measure):
        raise ValueError(
            f"{'measure=True' if measure else to} needs example_inputs, a tuple of inputs to run the model on"
        )
    if example_inputs is not None and not isinstance(example_inputs, tuple):
        raise TypeError(f"example_inputs must be a tuple of positional inputs, not {type(example_inputs).__name__}")
    _refuse_unreachable(model)
    if to == "conv_transpose":
        new, rows = _waiting(model, example_inputs)
    else:
        new, rows = _exchange(model, to, example_inputs)
    columns = (
        "name was became exact residual max_difference parameters_before parameters_after macs_before macs_after reason"
    )
    result = Rewrite(new, Report(rows, columns.split()))
    counts = ", ".join(f"{number} {status}" for status, number in result.counts.items())
    result.report.note = f"{counts}" if rows else "no upsampling found"
    if measure:
        result.seconds = _times(model, new, example_inputs)
        result.report.note += "; {:.2g} s a call before, {:.2g} s after".format(*result.seconds)
    return result


def _refuse_unreachable(model):
    for name, module in model.named_modules():
        if "forward" in vars(module) or isinstance(module, torch.jit.ScriptModule):
            how = "is compiled by torch.jit" if isinstance(module, torch.jit.ScriptModule) else "is set on the instance"
            raise ValueError(f"the forward of {name or 'the model'} {how}, so what it calls cannot be followed")


def _waiting(model, inputs):
    """Give a copy whose upsamplings wait for their convolutions, and the rows."""
    rows = _lazy_rows(model, inputs)
    new = _without_waiting(_copied(model))
    if not any(row["status"] == "rewritten" for row in rows):
        return new, rows
    new.register_forward_pre_hook(_start_waiting)
    new.register_forward_hook(_end_waiting, prepend=True, always_call=True)
    if trouble := _difference(model, new, inputs):
        _without_waiting(new)
        for row in rows:
            if row["status"] == "rewritten":
                row.update(status="left", reason=trouble, exact=None, residual=None, became=None)
    return new, rows


_waiting_modes = threading.local()  # a stack of (module, mode) for each thread


def _start_waiting(module, args):
    if not torch.compiler.is_dynamo_compiling():
        mode = LazyUpsampling()
        mode.__enter__()
        _waiting_modes.__dict__.setdefault("stack", []).append((module, mode))


def _end_waiting(module, args, outputs):
    if torch.compiler.is_dynamo_compiling():
        return None
    stack = _waiting_modes.__dict__.get("stack", [])
    if not stack or stack[-1][0] is not module:  # another hook failed before the start
        return None
    mode = stack.pop()[1]
    mode.__exit__(None, None, None)
    waiting = any(isinstance(value, Upsampled) for value in tree_leaves(outputs))
    failing = sys.exc_info()[0] is not None  # then its own error is the one to see
    try:
        mode.finish()
    except RuntimeError:
        if not failing:
            raise
    return tree_map(lambda v: v.values() if isinstance(v, Upsampled) else v, outputs) if waiting else None


def _without_waiting(model):
    """Take the two hooks away again, from the model and from what is in it."""
    for module in model.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key in [key for key, hook in hooks.items() if hook in (_start_waiting, _end_waiting)]:
                del hooks[key]
                module._forward_hooks_always_called.pop(key, None)
    return model


# Exchanging ConvTranspose2d layers


class _Sized(nn.Module):
    """A rewritten layer that takes `output_size`, as ConvTranspose2d does: it makes the largest size, and crops."""

    def __init__(self, largest, sizes):
        super().__init__()
        self.largest, self.sizes = largest, sizes  # sizes: (stride, extra, natural extra) of each axis

    def forward(self, input, output_size=None):
        output = self.largest(input)
        wanted = []
        for axis, (stride, extra, natural) in zip((-2, -1), self.sizes, strict=True):
            least = output.shape[axis] - extra
            size = least + natural if output_size is None else int(output_size[axis])
            if output_size is not None and not least <= size < least + stride:
                raise ValueError(
                    f"output_size={tuple(output_size)} is out of reach: axis {axis} can have {least} to "
                    f"{least + stride - 1} pixels"
                )
            wanted.append((0, output.shape[axis] - size))
        crop = crop_layer(*wanted)
        return output if crop is None else crop(output)


def _exchange(model, to, inputs):
    new = _copied(model)
    calls = _record_calls(model, inputs) if inputs is not None else {}
    names = {name: layer for name, layer in model.named_modules() if isinstance(layer, TRANSPOSED)}
    order = [name for name in calls if name in names] + [name for name in names if name not in calls]
    rows = []
    for name in order:
        layer, row = names[name], _row(name, _describe(names[name]))
        row["parameters_before"] = row["parameters_after"] = _parameters(layer)
        rows.append(row)
        if not isinstance(layer, nn.ConvTranspose2d):
            row.update(status="refused", reason="unsupported: only 2-D layers are rewritten")
            continue
        made = calls.get(name, [])
        if inputs is not None and not made:
            row["reason"] = "the example inputs do not call it"
            continue
        sized = any(len(args) > 1 or "output_size" in kwargs for args, kwargs, _ in made)
        try:
            plain = _without_norms(layer)
            source = _largest(plain) if sized else plain
            row["exact"] = to == "subpixel" or is_upsample_conv(plain)
            if to == "subpixel":
                replacement, row["residual"] = conv_transpose_to_subpixel(source), 0.0
            else:
                data = _fit_data(new, name, inputs, made, row, sized)
                if data:
                    made = [((data["inputs"],), {}, data["targets"])]
                replacement, row["residual"] = conv_transpose_to_upsample_conv(source, **data)
        except (TypeError, ValueError) as error:
            row.update(status="refused", reason=str(error), exact=None, residual=None)
            continue
        if sized:
            axes = zip(source.stride, source.output_padding, plain.output_padding, strict=True)
            replacement = _Sized(replacement, list(axes)).train(layer.training)
        candidate, before = _put(new, name, replacement)
        if inputs is not None and (trouble := _trouble(model, candidate, replacement, row["exact"], inputs)):
            _put(candidate, name, before)
            row.update(status="left", reason=trouble, exact=None, residual=None)
            continue
        new = candidate
        if shared := _shared(model, layer):
            row["reason"] = "; ".join([*filter(None, [row["reason"]]), f"no longer shares its weight with {shared}"])
        row.update(status="rewritten", became=_describe(replacement), parameters_after=_parameters(replacement))
        _compare(row, layer, replacement, made)
    return new, rows


def _record_calls(model, inputs):
    """Run a copy; give what each transposed layer got and gave, by name, in the order of the first calls."""
    probe, calls = _copied(model).eval(), {}

    def hook(name):
        def note(layer, args, kwargs, output):
            calls.setdefault(name, []).append((args, kwargs, output))

        return note

    for name, layer in probe.named_modules():
        if isinstance(layer, TRANSPOSED):
            layer.register_forward_hook(hook(name), with_kwargs=True)
    _run(probe, inputs)
    return calls


def _fit_data(new, name, inputs, made, row, sized):
    """Give the inputs that the part rewritten so far gives the layer, and what the given model puts out there."""
    if not made:
        return {}
    if sized or len({_input(args, kwargs).shape[1:] for args, kwargs, _ in made}) > 1:
        row["reason"] = "called with several sizes or with output_size, so its kernel was projected"
        return {}
    probe, seen = _copied(new).eval(), []
    probe.get_submodule(name).register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(_input(args, kwargs).clone()), with_kwargs=True
    )
    _run(probe, inputs)
    if len(seen) != len(made):
        row["reason"] = "called in a way that could not be recorded, so its kernel was projected"
        return {}
    inputs, targets = torch.cat(seen), torch.cat([output for _, _, output in made])
    return dict(inputs=inputs, targets=targets)


def _input(args, kwargs):
    return args[0] if args else kwargs["input"]


def _trouble(model, new, replacement, exact, inputs):
    """Say what goes wrong when the rewritten copy runs, if anything does."""
    probe, calls = _copied(new).eval(), []
    place = next(number for number, module in enumerate(new.modules()) if module is replacement)
    list(probe.modules())[place].register_forward_hook(lambda *_: calls.append(1))
    try:
        _run(probe, inputs)
    except Exception as error:  # whatever the model's own code raises
        return f"the model does more with it than calling it: {type(error).__name__}: {error}"
    if not calls:
        return "the model calls it by a reference of its own, which an exchange does not reach"
    return _difference(model, new, inputs) if exact else None


TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.2}


def _difference(model, new, inputs):
    """Say by how much the outputs of two models differ, if by more than rounding."""
    expected = _outputs(model, inputs)
    worst = _distance(expected, _outputs(new, inputs))
    if worst is None or _distance(expected, _outputs(model, inputs)) is not None:  # a model may be random by itself
        return None
    return f"taken back: the model's outputs changed by {worst}"


def _outputs(model, inputs):
    try:
        outputs = _run(_copied(model).eval(), inputs)
    except Exception as error:  # whatever the model's own code raises
        return error
    return [value for value in tree_leaves(outputs) if isinstance(value, torch.Tensor)]


def _distance(expected, found):
    """Give how far two lists of outputs are apart, None if that is rounding; a model that fails is far off."""
    if isinstance(expected, Exception) or isinstance(found, Exception):
        return None if type(expected) is type(found) else f"{found!r}"[:200]
    if [value.shape for value in expected] != [value.shape for value in found]:
        return "other shapes"
    for one, two in zip(expected, found, strict=True):
        size = one.abs().nan_to_num(0, 0, 0).amax().item() if one.numel() and one.is_floating_point() else 0
        allowed = TOLERANCES.get(one.dtype, 0) * size
        if not torch.allclose(one, two, rtol=0, atol=allowed, equal_nan=True):
            return f"{(one - two).abs().max().item():.2g}, where they have a size of {size:.2g}"
    return None


def _shared(model, layer):
    """Name the other parameter that is this layer's weight, if one is."""
    own = {id(value) for value in layer.parameters()}
    inside = {id(module) for module in layer.modules()}
    for name, module in model.named_modules():
        for key, value in module._parameters.items():
            if id(value) in own and id(module) not in inside:
                return f"{name}.{key}".lstrip(".")
    return None


def _compare(row, layer, replacement, made):
    layer, replacement = _copied(layer).eval(), _copied(replacement).eval()
    differences = []
    for args, kwargs, output in made:
        before, after = FlopCounterMode(display=False), FlopCounterMode(display=False)
        with torch.no_grad(), before:
            layer(*args, **kwargs)
        with torch.no_grad(), after:
            differences.append((replacement(*args, **kwargs) - output).abs().max().item())
        row["macs_before"] = (row["macs_before"] or 0) + before.get_total_flops() // 2
        row["macs_after"] = (row["macs_after"] or 0) + after.get_total_flops() // 2
    if differences:
        row["max_difference"] = max(differences)


def _put(model, name, replacement):
    """Put a module in every place where the one of that name stands; give the model then, and that one."""
    old = model.get_submodule(name)
    for parent in list(model.modules()):
        for attribute, child in parent._modules.items():
            if child is old:
                parent._modules[attribute] = replacement
    return (replacement if old is model else model), old


def _without_norms(layer):
    """Give a copy of the layer as in eval mode, without the hooks of weight_norm and spectral_norm."""
    removers = {"WeightNorm": nn.utils.remove_weight_norm, "SpectralNorm": nn.utils.remove_spectral_norm}
    hooks = [type(hook).__name__ for hook in layer._forward_pre_hooks.values()]
    if not any(name in removers for name in hooks):
        return layer
    layer = _copied(layer).eval()
    for name in hooks:
        if name in removers:
            removers[name](layer)
    return layer


def _largest(layer):
    """Give a copy with the largest output_padding that `output_size` can ask for."""
    layer = _copied(layer)
    layer.output_padding = tuple(
        max(own, stride - 1) for own, stride in zip(layer.output_padding, layer.stride, strict=True)
    )
    return layer


# Waiting upsamplings


class _Names:
    """Which module is running: the innermost one that is on, while a model runs inside this context."""

    def __init__(self, model):
        self.names = {module: name for name, module in model.named_modules()}
        self.running, self.order = [], itertools.count()

    def __enter__(self):
        self.handles = [
            register_module_forward_pre_hook(lambda module, _: self.running.append(module)),
            register_module_forward_hook(self._leave, always_call=True),
        ]
        return self

    def _leave(self, module, inputs, output):
        self.running.pop()  # what a hook returns would replace the output

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()

    def current(self, kind=None):
        """Give the name of the innermost running module, and whether it is of a kind."""
        known = [module for module in self.running if module in self.names]
        name = self.names[known[-1]] if known else ""
        return name or "(the model itself)", bool(known) and kind is not None and isinstance(known[-1], kind)


class _Site:
    """One upsampling in a recorded run: what became of it."""

    def __init__(self, name, arguments, x, order):
        self.name, self.arguments, self.x, self.order = name, arguments, x, order
        self.reasons, self.convs = [], []

    def note_reason(self, reason):
        self.reasons.append(reason)

    def note_conv(self, lazy, weight, bias, stride, padding, dilation, groups, steps, result):
        """Hold a fused convolution against what PyTorch computes."""
        values = Upsampled(lazy.parts, {}, lazy.padding, lazy.padding_mode).values()
        expected = F.conv2d(values, weight, bias, stride, padding, dilation, groups)
        found = result.values() if isinstance(result, Upsampled) else result
        if isinstance(result, Upsampled):
            result.made = None  # it may still wait
        pixels, first = expected[:, 0].numel(), next(filter(None, (part.site for part in lazy.parts))) is self
        split = [  # what belongs to no upsampling goes with the first
            (step, weight.numel() * part.channels // lazy.shape[1])
            for part, step in zip(lazy.parts, steps, strict=True)
            if part.site is self or (first and part.site is None)
        ]
        weights = sum(number for _, number in split)
        self.convs.append(
            dict(
                weight=(id(weight), [part.site is self for part in lazy.parts].index(True)),
                was="Conv2d " + "x".join(map(str, weight.shape[2:])),
                became=" + ".join(step.became for step, _ in split),
                difference=(found - expected).abs().max().item(),
                parameters=weights + (bias.numel() if first and bias is not None else 0),
                macs_before=pixels * weights,
                macs_after=sum(step.macs for step, _ in split),
            )
        )

    @property
    def what(self):
        """Say what the upsampling is."""
        size, factor = self.arguments["size"], self.arguments["scale_factor"]
        amount = (
            f"scale_factor={factor}" if size is None else f"size={tuple(size) if not isinstance(size, int) else size}"
        )
        return f"{self.arguments['mode']} upsampling, {amount}"


def _sites(model, inputs, *modes):
    """Run a copy with waiting upsamplings; give one site for every upsampling, in order."""
    try:
        return _watched(model, inputs, modes, waits=True)
    except Exception as error:  # by waiting, unless the model fails by itself, now
        for mode in modes:
            mode.rows.clear()
        sites = _watched(model, inputs, modes, waits=False)
        for site in sites:
            site.note_reason(f"the model fails if it waits: {type(error).__name__}: {error}")
        return sites


def _watched(model, inputs, modes, waits):
    probe, sites = _without_waiting(_copied(model)).eval(), []
    with _Names(probe) as names:

        def watch(x, arguments):
            name, is_upsample = names.current((nn.Upsample,))
            if not is_upsample:
                name += f": F.interpolate (line {_line()})"
            sites.append(_Site(name, arguments, x, next(names.order)))
            return sites[-1]

        with contextlib.ExitStack() as stack:
            for mode in modes:
                mode.names = names
                stack.enter_context(mode)
            lazy = stack.enter_context(LazyUpsampling(watch, waits))
            _run(probe, inputs)
        lazy.finish()
    return sites


def _line():
    """Give the number of the line in the model's code that called the upsampling."""
    frame = sys._getframe()
    while frame and frame.f_globals.get("__name__", "").partition(".")[0] in ("torch", "upconv"):
        frame = frame.f_back
    return frame.f_lineno if frame else "?"


def _lazy_rows(model, inputs):
    groups = {}
    for site in _sites(model, inputs):
        groups.setdefault((site.name, site.what), []).append(site)
    return [_lazy_row(name, what, sites) for (name, what), sites in groups.items()]


def _lazy_row(name, what, sites):
    """One row for all calls of an upsampling."""
    row, convs = _row(name, what), [conv for site in sites for conv in site.convs]
    reasons = [reason for site in sites for reason in site.reasons or ["no convolution reads it"][len(site.convs) :]]
    if convs:
        row["was"] = f"{what} + {', '.join(dict.fromkeys(conv['was'] for conv in convs))}"
        row["became"] = ", ".join(dict.fromkeys(conv["became"] for conv in convs))
        row.update(exact=True, residual=0.0, max_difference=max(conv["difference"] for conv in convs))
        weights = {conv["weight"]: conv["parameters"] for conv in convs}
        row["parameters_before"] = row["parameters_after"] = sum(weights.values())
        for key in ("macs_before", "macs_after"):
            row[key] = sum(conv[key] for conv in convs)
    row["reason"] = "; ".join(dict.fromkeys(reasons))
    unsupported = any(site.x.dim() != 4 for site in sites)
    row["status"] = "rewritten" if convs else "refused" if unsupported else "left"
    return row


# The audit


def audit(model, *example_inputs):
    """Say of every upsampling in a model what it is, what pattern it can draw, and what it could be instead.

    Parameters
    ----------
    model : torch.nn.Module
        It is left as it is: a copy is run once, in eval mode.
    *example_inputs
        Its inputs. What they do not reach is not in the report.

    Returns
    -------
    Report
        A row for each upsampling step as a dict, functional ones included, in the order in which they run: `name`;
        `kind`; `sizes`, of input and output; `kernel_size` and `stride`, of a transposed convolution; `even_overlap`,
        whether all phases have equally many taps; `dc_spread`, the largest difference between the gains of two phases,
        relative to the largest gain; `off_dc_energy`, the share of a flat input's energy that its weights put into a
        pattern; `macs`; `exact_targets`, what `rewrite` could make of it with no difference; `verdict`, in one line. It
        prints as a table. In a model without upsampling it is empty, and says so.

    Raises
    ------
    TypeError
        If `model` is no module.
    ValueError
        As in `rewrite`, if a module's forward is not its class's.

    Examples
    --------
    >>> model = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(4, 4, 3, padding=1))
    >>> audit(model, torch.zeros(1, 4, 8, 8))[0]["verdict"]
    'keeps flat inputs flat; the same as ConvTranspose2d 4x4, stride 2, with 0.44 of the MACs'
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, not {type(model).__name__}")
    _refuse_unreachable(model)
    seen = _Seen()
    sites = _sites(model, example_inputs, seen)
    rows = sorted([*seen.rows, *map(_audit_site, sites)], key=lambda row: row.pop("order"))
    columns = (
        "name",
        "kind",
        "sizes",
        "even_overlap",
        "dc_spread",
        "off_dc_energy",
        "macs",
        "exact_targets",
        "verdict",
    )
    return Report(rows, columns, "" if rows else "this model does no upsampling on these inputs")


class _Seen(TorchFunctionMode):
    """Notes every transposed convolution and pixel shuffle of a run."""

    def __init__(self):
        super().__init__()
        self.rows, self.convs = [], {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if func is torch.conv2d:
            self.convs[id(output)] = (
                output,
                _argument(args, kwargs, 1, "weight"),
            )  # keeps it alive, so the id is its own
        elif func in (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d):
            name, is_module = self.names.current(TRANSPOSED)
            kind = f"ConvTranspose{output.dim() - 2}d" if is_module else f"F.{func.__name__}"
            row = self._audit_conv_transpose(kind, is_module, *(_argument(args, kwargs, *a) for a in _CONV_TRANSPOSE))
            self._add(name if is_module else f"{name}: {kind}", args[0] if args else kwargs["input"], output, row)
        elif func is torch.pixel_shuffle:
            name, is_module = self.names.current(nn.PixelShuffle)
            x = _argument(args, kwargs, 0, "input")
            row = self._audit_shuffle(x, _argument(args, kwargs, 1, "upscale_factor"))
            self._add(name if is_module else f"{name}: F.pixel_shuffle", x, output, row)
        return output

    def _add(self, name, x, output, row):
        self.rows.append(dict(order=next(self.names.order), name=name, sizes=_sizes(x, output), **row))

    def _audit_conv_transpose(self, kind, is_module, x, weight, stride, groups, dilation):
        macs = x[:, 0].numel() * weight.numel()
        if weight.dim() != 4:
            row = dict(kernel_size=tuple(weight.shape[2:]), stride=stride, even_overlap=None, dc_spread=None)
            return dict(
                kind=kind, **row, off_dc_energy=None, macs=macs, exact_targets=(), verdict="not 2-D: unsupported"
            )
        stride, dilation = (tuple(v) if isinstance(v, (tuple, list)) else (v, v) for v in (stride, dilation))
        kernel = spread(working_copy(weight), dilation)
        counts = phase_gains(spread(torch.ones_like(kernel[:1, :1, :: dilation[0], :: dilation[1]]), dilation), stride)
        like = SimpleNamespace(in_channels=weight.shape[0], groups=groups, weight=weight)
        pair = is_upsample_conv(made(nn.ConvTranspose2d, weight, None, like, stride=stride, dilation=dilation))
        measures = _pattern(phase_gains(kernel, stride))
        verdict = _verdict(measures) + "; it is Upsample + Conv2d in disguise" * (pair and stride != (1, 1))
        return dict(
            kind=kind,
            kernel_size=tuple(weight.shape[2:]),
            stride=stride,
            even_overlap=counts.unique().numel() == 1,
            **measures,
            macs=macs,
            exact_targets=("subpixel", *["upsample_conv"] * pair) if is_module else (),
            verdict=verdict if is_module else f"{verdict}; called as a function, which rewrite does not reach",
        )

    def _audit_shuffle(self, x, factor):
        conv = self.convs.get(id(x))
        row = dict(kind="PixelShuffle", kernel_size=None, stride=(factor, factor), even_overlap=True, macs=0)
        row |= dict(dc_spread=None, off_dc_energy=None, exact_targets=(), verdict="no convolution right before it")
        if conv is not None:
            gains = working_copy(conv[1]).sum(dim=(2, 3)).unflatten(0, (-1, factor, factor)).movedim(3, 0)
            measures = _pattern(gains)
            macs = x[:, 0].numel() * conv[1].numel()
            row |= dict(**measures, macs=macs, kernel_size=tuple(conv[1].shape[2:]), verdict=_verdict(measures))
        return row


_CONV_TRANSPOSE = ((0, "input"), (1, "weight"), (3, "stride", 1), (6, "groups", 1), (7, "dilation", 1))


def _audit_site(site):
    row = dict(order=site.order, name=site.name, kind=site.what, kernel_size=None, stride=None, even_overlap=True)
    row |= dict(dc_spread=0.0, off_dc_energy=0.0, macs=0, exact_targets=(), verdict="keeps flat inputs flat")
    output = F.interpolate(site.x, **site.arguments)
    row["sizes"] = _sizes(site.x, output)
    if site.convs:
        became = ", ".join(dict.fromkeys(conv["became"] for conv in site.convs))
        row["macs"] = sum(conv["macs_before"] for conv in site.convs)
        ratio = sum(conv["macs_after"] for conv in site.convs) / row["macs"]
        row["exact_targets"] = ("conv_transpose",)
        row["verdict"] += f"; the same as {became}, with {ratio:.2f} of the MACs"
    if site.reasons:
        row["verdict"] += f"; {'; '.join(dict.fromkeys(site.reasons))}"
    return row


def _pattern(gains):
    """Measure gains of shape (in, out, sh, sw)."""
    largest, energy = gains.abs().max().item(), gains.square().mean().item()
    spread_of_gains = (gains.amax(dim=(2, 3)) - gains.amin(dim=(2, 3))).max().item()
    kept = gains.mean(dim=(2, 3)).square().mean().item()
    return dict(
        dc_spread=spread_of_gains / (largest or 1), off_dc_energy=max(0.0, 1 - kept / (energy or 1)) if energy else 0.0
    )


def _verdict(measures):
    if measures["dc_spread"] < 1e-5:
        return "keeps flat inputs flat"
    return f"draws a pattern on flat inputs, {measures['off_dc_energy']:.2f} of their energy"


def _sizes(x, output):
    return tuple(x.shape[2:]), tuple(output.shape[2:])


def _argument(args, kwargs, position, name, default=None):
    return args[position] if len(args) > position else kwargs.get(name, default)


# Rows


def _row(name, was):
    keys = "parameters_before parameters_after macs_before macs_after max_difference residual exact became".split()
    return dict(name=name, was=was, **dict.fromkeys(keys), reason="", status="left")


def _describe(layer):
    if isinstance(layer, _Sized):
        return _describe(layer.largest) + ", cropped to output_size"
    steps = [layer] if not isinstance(layer, nn.Sequential) else list(layer)
    return " + ".join(_name(step) for step in steps)


def _name(step):
    kind = type(step).__name__.lstrip("_").removeprefix("Parametrized")
    if isinstance(step, (*TRANSPOSED, nn.Conv2d)):
        kind += f" {'x'.join(map(str, step.kernel_size))}"
        if set(step.stride) != {1}:
            kind += f", stride {step.stride[0] if len(set(step.stride)) == 1 else step.stride}"
    elif isinstance(step, nn.Upsample):
        kind = f"{step.mode} Upsample"
    elif isinstance(step, nn.ZeroPad2d):
        kind = "crop" if max(step.padding) <= 0 else "pad"
    return kind


def _parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def _cell(value):
    if isinstance(value, float):
        return f"{value:.2g}"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


# Running


def _copied(model):
    """Copy a module, also where the old weight_norm keeps a computed weight, which deepcopy refuses."""
    computed = [
        value
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, torch.Tensor) and not value.is_leaf
    ]
    return copy.deepcopy(model, {id(value): value.detach().clone() for value in computed})


def _run(model, inputs):
    def own(value):
        return value.detach().clone() if isinstance(value, torch.Tensor) else value

    with torch.no_grad(), torch.random.fork_rng():
        return model(*copy.deepcopy(tree_map(own, inputs)))


def _times(before, after, inputs, rounds=7):
    models = [_copied(model).eval() for model in (before, after)]
    seconds = ([], [])
    for count in range(rounds + 1):
        for model, times in zip(models, seconds, strict=True):
            start = time.perf_counter()
            _run(model, inputs)
            if inputs and any(isinstance(value, torch.Tensor) and value.is_cuda for value in inputs):
                torch.cuda.synchronize()
            if count:  # the first round warms up
                times.append(time.perf_counter() - start)
    return tuple(sorted(times)[len(times) // 2] for times in seconds)
