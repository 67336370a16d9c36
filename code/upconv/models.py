"""Whole models: `rewrite` changes the form of every upsampling in one.

The given model, its state and the random numbers are left alone; all is done to copies.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from upconv._interpolation import PADS
from upconv._layers import CONV_TRANSPOSES, CONVS, assembled, expect
from upconv._recording import SHUFFLES, Inputs, Report, Watch, copied, follow, is_convolution
from upconv.arithmetic import Ints
from upconv.cost import macs, parameters
from upconv.fastest import Work, fastest, fits, fused
from upconv.fold import jump_module
from upconv.layers import conv_transpose_to_subpixel, pair_steps, shuffle_steps, upsample_to_conv_transpose
from upconv.projection import conv_transpose_to_upsample_conv, is_upsample_conv

__all__ = ["Rewrite", "rewrite"]

TARGETS = ("subpixel", "conv_transpose", "upsample_conv", "fastest")
MEASURES = "became exact residual max_difference parameters_before parameters_after macs_before macs_after".split()
BACKEND = 'torch.compile(model, backend="upconv")'
SECONDS = ["seconds_before", "seconds_after"]


class Rewrite:
    """What `rewrite` returns.

    `model` is the new model. `report` has a row for each upsampling. `counts` says how many of them were rewritten,
    left as they are or refused. With `measure=True`, `seconds` are the median times of a call before and after.
    """

    def __init__(self, model: nn.Module, report: Report, seconds: tuple[float, float] | None = None) -> None:
        self.model, self.report, self.seconds = model, report, seconds
        self.counts: dict[str, int] = {
            status: sum(row["status"] == status for row in report) for status in ("rewritten", "left", "refused")
        }

    def __repr__(self) -> str:
        return str(self.report)

    def _repr_html_(self) -> str:
        return self.report._repr_html_()


def rewrite(
    model: nn.Module,
    to: str,
    example_inputs: torch.Tensor | tuple[Any, ...] | None = None,
    *,
    example_kwargs: dict[str, Any] | None = None,
    kernel_size: Ints | None = None,
    mode: str = "nearest",
    everything: bool = False,
    measure: bool = False,
) -> Rewrite:
    """Change the form of every upsampling layer in a model.

    Parameters
    ----------
    model : torch.nn.Module
        It is left as it is; everything is done to a copy.
    to : str
        "conv_transpose": every Upsample read by Conv2d layers with stride 1 becomes part of them, as ConvTranspose2d,
        exactly; a 1x1 convolution runs before its Upsample instead. A Conv2d and the PixelShuffle that reads it become
        one, too.
        "subpixel": the same pairs, and every ConvTranspose2d, become a Conv2d and a pixel shuffle, exactly.
        "upsample_conv": every ConvTranspose2d becomes an Upsample and a Conv2d; exactly if `is_upsample_conv`,
        otherwise fitted, layer after layer, to what the layer puts out in the given model, on the inputs that the part
        rewritten so far gives for `example_inputs`; without these, the kernel is projected. The residual is reported.
        "fastest": each pair and each ConvTranspose2d takes the form, exact, that the rule of `upconv.fastest` gives for
        the example inputs' sizes, dtype and device, in eager mode; with `measure=True`, the one that takes the least
        time here. A ConvTranspose2d, a jump form, a Conv2d and a pixel shuffle, or a `FusedConvTranspose2d`, which is a
        ConvTranspose2d where it is exported.
    example_inputs : torch.Tensor or tuple, optional
        Positional inputs for `model`. Needed for pairs: a run shows who reads whom. With them the new model is held
        against the given one, and the report has differences and multiply-accumulates.
    example_kwargs : dict, optional
        Inputs by name.
    kernel_size : int or tuple of int, optional
    mode : str
        Both of the new pairs, for "upsample_conv" only, as in `conv_transpose_to_upsample_conv`.
    everything : bool
        For "conv_transpose" only: whether an Upsample that cannot become part of convolutions becomes a ConvTranspose2d
        of its own, where that is exact, with a group for each channel. That is slower, and for runtimes that have no
        other upsampling.
    measure : bool
        Whether to time both models, and each layer, on the example inputs, in turns; for "fastest", its forms too.

    Returns
    -------
    Rewrite
        `.model`: a module of the same class, with the same train/eval flags, made of ordinary layers: it trains, is
        copied, saved, exported, traced and compiled like any other. `.report`: a row a layer as a dict with
        `name`, `was`, `became` (None if it is as it was), `exact`, `residual` (as of
        `conv_transpose_to_upsample_conv`), `max_difference` of the layer's outputs on the example inputs,
        `parameters_before`, `parameters_after`, `macs_before`, `macs_after`, `reason` and `status` ("rewritten", "left"
        or "refused"); with `measure=True`, `seconds_before` and `seconds_after`.

    Raises
    ------
    ValueError
        If `to` is none of the four, or `example_inputs` are needed and missing; if a module's forward is set on the
        instance and not by its class, or compiled: what it calls cannot be exchanged.
    TypeError
        If `model` is no module, or `example_inputs` neither a tensor nor a tuple.

    See Also
    --------
    upconv.audit.audit : What could be rewritten, and what a model's layers draw, without a change.
    upconv.graph.backend : Functional code too, while `torch.compile` compiles it.

    Notes
    -----
    All layers may be 1-D and 3-D, too. An Upsample is exchanged with its convolutions if these alone read it, directly
    or through padding layers and dropout, in a run of the example in eval mode and one in training mode; on paths that
    the example does not take, another reader is not seen. (Element-wise dropout between the two then acts, in training,
    on the small image.) What is functional is listed with its line, and left: `torch.compile(model, backend="upconv")`
    folds that, and `upconv.fold_exported` does for export.

    An exact exchange that changes the new model's outputs is taken back, with a reason, as is one of a layer whose
    attributes the model reads, or that the inputs do not reach. The outputs are compared on float64 copies; if the
    model does not run in float64, a difference has to exceed half of its dtype's digits (of TF32's, where convolutions
    may use it), and what a change of the inputs in their last bit makes. Without example inputs a model that reads a
    layer's attributes fails with an AttributeError. Weights that a layer shares with others are shared no longer. An
    infinite pixel can give NaN at other places than before.

    Examples
    --------
    >>> decoder = nn.Sequential(nn.ConvTranspose2d(4, 4, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(4, 1, 2, 2))
    >>> result = rewrite(decoder, "subpixel", torch.zeros(1, 4, 8, 8))
    >>> [type(layer).__name__ for layer in result.model], result.counts["rewritten"]
    (['Sequential', 'ReLU', 'Sequential'], 2)
    """
    follow(model)
    if to not in TARGETS:
        raise ValueError(f"to={to!r} must be one of {', '.join(TARGETS)}")
    if to != "upsample_conv" and (kernel_size is not None or mode != "nearest"):
        raise ValueError(f'kernel_size and mode are those of the new pairs of to="upsample_conv", not of to={to!r}')
    if everything and to != "conv_transpose":
        raise ValueError(f'everything is an option of to="conv_transpose", not of to={to!r}')
    if example_inputs is None and example_kwargs is None and (to in ("conv_transpose", "fastest") or measure):
        what = "measure=True" if measure else f"to={to!r}"
        raise ValueError(f"{what} needs example_inputs (a tensor or a tuple) or example_kwargs to run the model on")
    given = example_inputs is not None or example_kwargs is not None
    inputs = Inputs(() if example_inputs is None else example_inputs, example_kwargs) if given else None
    work = _Rewriting(model, to, inputs, dict(kernel_size=kernel_size, mode=mode), everything, SECONDS * measure)
    result = Rewrite(
        exchanged(copied(model), work.changes),
        Report(work.rows, ["name", "was", *MEASURES, *SECONDS * measure, "reason"]),
    )
    counts = ", ".join(f"{number} {status}" for status, number in result.counts.items())
    result.report.note = counts if work.rows else "no upsampling found"
    if measure:
        models = [copied(one).eval() for one in (model, result.model)]
        result.seconds = _times([lambda one=one: inputs.run(one) for one in models])
        result.report.note += "; {:.2g} s a call before, {:.2g} s after".format(*result.seconds)
    return result


class _Change(NamedTuple):
    """An exchange that one row stands for."""

    row: dict
    build: Callable  # from a model's modules by name, and a dtype: the new module of each that is exchanged
    exact: bool
    calls: list  # of two functions each, which compute what was and what is, for the report
    names: tuple = ()  # of convolutions that are part of it


class _Rewriting:
    """One call of `rewrite`: its rows, and the changes that are made."""

    def __init__(self, model, to, inputs, options, everything, seconds):
        self.given, self.to, self.inputs, self.options, self.seconds = model, to, inputs, options, seconds
        self.everything = everything
        self.rows, self.changes, self.modules = [], [], dict(model.named_modules())
        self.watch = _Calls(copied(model), inputs) if inputs else None
        self.calls = self.watch.transposed if inputs else {}
        fits = self._fitted() if inputs and to == "upsample_conv" else {}
        if inputs:
            self.training = self._trained()
            for exchange in (self._shuffles, self._pairs) if everything else (self._pairs, self._shuffles):
                exchange()
        others = [name for name, module in self.modules.items() if isinstance(module, CONV_TRANSPOSES)]
        for name in dict.fromkeys([*self.calls, *others]):
            if name not in self._taken():
                self._transposed(name, fits.get(name, {}))
        if inputs:
            self._functional()
            order = {step.name: place for place, step in reversed(list(enumerate(self.watch.steps)))}
            self.rows.sort(key=lambda row: order.get(row["name"], len(order)))
            self.changes = _Judge(model, inputs).kept(self.changes)
        for change in self.changes:
            self._report(change)
        for row in self.rows:
            if row["status"] != "rewritten":
                row.update(dict.fromkeys(("became", "exact", "residual", "max_difference", "macs_after")))
                row["parameters_after"] = row["parameters_before"]

    def _trained(self):
        """Watch a run in training mode, if anything can depend on it."""
        if not any(isinstance(step.module, (nn.Upsample, *SHUFFLES)) for step in self.watch.steps):
            return None
        try:
            return Watch(copied(self.given), self.inputs, training=True)
        except Exception as error:  # whatever the model's own code raises: a batch norm of one value, for instance
            return f"the model does not run in training mode on these inputs ({type(error).__name__}: {error})"

    def _taken(self):
        """Name the convolutions that are part of an exchange."""
        return {name for change in self.changes for name in change.names}

    def _row(self, name, was, **values):
        row = dict(name=name, was=was, **dict.fromkeys([*MEASURES, *self.seconds]), reason="", status="left")
        self.rows.append(row | values)
        return self.rows[-1]

    def _report(self, change):
        row, reasons = change.row, [change.row["reason"]]
        row.update(status="rewritten", exact=change.exact)
        if change.calls:
            found = _compared(change.calls, bool(self.seconds))
            row.update({key: value for key, value in found.items() if row[key] is None})
        if shared := self._shared(change.build(self.modules)):
            reasons.append(f"no longer shares its weight with {shared}")
        if self.seconds and row["seconds_after"] > 1.03 * row["seconds_before"]:
            reasons.append(f"slower here: {row['seconds_after'] / row['seconds_before']:.2f} of the time before")
        row["reason"] = "; ".join(filter(None, reasons))

    def _shared(self, modules):
        """Name the other parameter that is one of theirs, if one is."""
        own = {id(value) for module in modules for value in module.parameters()}
        inside = {id(part) for module in modules for part in module.modules()}
        for name, module in self.modules.items():
            for key, value in module._parameters.items():
                if id(value) in own and id(module) not in inside:
                    return f"{name}.{key}".lstrip(".")
        return None

    def _functional(self):
        """List what else enlarges."""
        listed = {row["name"] for row in self.rows} | self._taken()
        for step in self.watch.steps:
            if step.name not in listed:
                reason = "it is called as a function: write it as a layer"
                if step.arguments:
                    reason = f"it is called as a function: {BACKEND} folds what can be folded"
                elif step.what.startswith("enlarged"):
                    reason = "it was not understood: write it as a layer"
                elif step.what == "PixelShuffle":
                    reason += ", or fold it with everything=True when it is compiled or exported"
                self._row(step.name, step.what, reason=reason)
                listed.add(step.name)

    # Transposed convolutions

    def _transposed(self, name, fit):
        layer, calls = self.modules[name], self.calls.get(name, [])
        row = self._row(name or "(the model itself)", _describe(layer), parameters_before=parameters(layer))
        if self.to == "conv_transpose":
            row["reason"] = "it is a transposed convolution already"
        elif self.inputs and not calls:
            row["reason"] = "the example inputs do not call it"
        else:
            try:
                self._exchange_transposed(name, fit, layer, calls, row)
            except (TypeError, ValueError) as error:
                row.update(status="refused", reason=str(error))

    def _exchange_transposed(self, name, fit, layer, calls, row):
        sized, plain = not calls or any(passed for _, _, passed in calls), _without_norms(layer)
        exact, form = self.to != "upsample_conv" or is_upsample_conv(plain), self.to
        if self.to == "fastest":
            made = dict(subpixel=partial(conv_transpose_to_subpixel, plain))
            if not sized and fits(calls[0][0], plain.weight, plain.groups, max(plain.dilation)):
                made["fused"] = partial(fused, plain)
            form, row["reason"] = self._fastest([x for x, *_ in calls], plain, made)
            if form not in ("subpixel", "fused"):
                return

        def build(modules, dtype=None):
            old = modules[name]
            plain = _without_norms(old)
            if form in ("subpixel", "fused"):
                new = conv_transpose_to_subpixel(plain) if form == "subpixel" else fused(plain)
            elif "module" in fit and not exact:
                new = copied(fit["module"]).to(plain.weight.dtype)
            else:
                new = conv_transpose_to_upsample_conv(plain, **self.options)[0]
            return {old: _like(_Sized(new, plain) if sized else new, plain).train(old.training)}

        if "error" in fit:
            raise fit["error"]
        if self.to == "upsample_conv" and "residual" not in fit:
            fit = dict(residual=conv_transpose_to_upsample_conv(plain, **self.options)[1])
        [new] = build(self.modules).values()
        row.update(became=_describe(new), parameters_after=parameters(new), residual=0.0)
        row.update({key: fit[key] for key in ("residual", "reason", "max_difference") if key in fit})
        row["max_difference"] = None if exact else row["max_difference"]
        both = copied(layer).eval(), copied(new).eval()
        self.changes.append(
            _Change(row, build, exact, [[partial(_called, one, *call) for one in both] for call in calls])
        )

    def _fitted(self):
        """Fit all transposed layers in one run of a copy, each on what those before it, fitted already, give it."""
        fits, probe, originals = {}, copied(self.given), dict(copied(self.given).eval().named_modules())

        def fit(plain, calls, x):
            found, data = dict(max_difference=0.0, targets=[_called(plain, *call) for call in calls]), {}
            if any(size is not None for _, size, _ in calls) or len({x.shape[1:] for x, *_ in calls}) > 1:
                found["reason"] = "called with several sizes or with output_size, so its kernel was projected"
            else:
                data = dict(inputs=torch.cat([x, *(x for x, *_ in calls[1:])]), targets=torch.cat(found["targets"]))
            try:
                found["module"], found["residual"] = conv_transpose_to_upsample_conv(plain, **self.options, **data)
            except (TypeError, ValueError) as error:
                found["error"] = error
            return found

        def exchange(name, layer, args, kwargs, output):
            x, size, _ = _called_with(args, kwargs)
            plain = _without_norms(originals[name])
            found = fits[name] if name in fits else fits.setdefault(name, fit(plain, self.calls[name], x))
            if "error" in found or not found["targets"]:
                return None
            new = _called(_Sized(found["module"], plain), x, size)
            found["max_difference"] = max(found["max_difference"], _largest(new - found["targets"].pop(0)))
            return new

        for name, layer in probe.named_modules():
            if name in self.calls and isinstance(layer, CONV_TRANSPOSES):
                layer.register_forward_hook(partial(exchange, name), with_kwargs=True)
        self.inputs.run(probe)
        return fits

    # Pairs

    def _pairs(self):
        """Group each Upsample with the convolutions that read it, and with what else these read."""
        steps = {}
        for step in self.watch.steps:
            if isinstance(step.module, nn.Upsample):
                steps.setdefault(step.module, []).append(step)
        rest = list(steps)
        while rest:
            ups, convs = [rest.pop(0)], []
            for up in ups:
                for reader in [reader for step in steps[up] for reader, _ in step.readers]:
                    if is_convolution(reader) and reader not in convs:
                        convs.append(reader)
                        others = {source[0].module for source in self.watch.calls[reader] if source}
                        ups += [other for other in rest if other in others]
                        rest = [other for other in rest if other not in others]
            self._group({up: steps[up] for up in ups}, convs)

    def _group(self, ups, convs):
        names = self.watch.names
        rows = [self._row(names[up] or "(the model itself)", steps[0].what) for up, steps in ups.items()]
        try:
            reasons = self._reasons(ups, convs)
            if reason := "it is an Upsample already" if self.to == "upsample_conv" else next(reasons, None):
                raise ValueError(reason)
            up, pads = next(iter(ups)), {conv: self.watch.calls[conv][0][1] for conv in convs}
            forms = dict.fromkeys(convs, (self.to, ""))
            if self.to == "fastest":
                forms = {conv: self._pair_form(up, conv, pads[conv], ups) for conv in convs}
                if {form for form, _ in forms.values()} == {"as it is"}:
                    raise ValueError("; ".join(dict.fromkeys(why for _, why in forms.values())))

            def build(modules, dtype=None):
                new = {
                    modules[names[one]]: nn.Identity() for one in [*ups, *(pad for own in pads.values() for pad in own)]
                }
                for conv, own in pads.items():
                    old = modules[names[conv]]
                    made = self._made(modules[names[up]], old, [modules[names[pad]] for pad in own], forms[conv][0])
                    new[old] = made.train(old.training)
                return new

            made = build(self.modules)
        except (TypeError, ValueError) as error:
            for row, (up, steps) in zip(rows, ups.items(), strict=True):
                row["reason"] = str(error)
                if self.everything:
                    self._alone(row, names[up], up, steps)
            return
        new, counted = {conv: made[self.modules[names[conv]]] for conv in convs}, set()
        for row, steps in zip(rows, ups.values(), strict=True):
            read = dict.fromkeys(reader for step in steps for reader, _ in step.readers)
            own = [conv for conv in read if conv not in counted]
            counted |= set(read)
            row["was"] += f" + {', '.join(dict.fromkeys(map(_describe, read)))}"
            row["reason"] = "; ".join(dict.fromkeys(forms[conv][1] for conv in read if forms[conv][1]))
            row.update(residual=0.0, became=", ".join(dict.fromkeys(_describe(new[conv]) for conv in read)))
            row["parameters_before"] = sum(map(parameters, own))
            row["parameters_after"] = sum(parameters(new[conv]) for conv in own)
            calls = [
                (partial(nn.Sequential(step.module, *pads, conv), step.x), partial(copied(new[conv]).eval(), step.x))
                for step in steps
                for conv, pads in step.readers
            ]
            self.changes.append(_Change(row, build, True, calls, tuple(names[conv] for conv in convs)))

    def _alone(self, row, name, upsample, steps):
        """Exchange an Upsample without the convolutions that read it; say so beside the reason."""
        (channels, axes), *others = {(step.x.shape[1], step.dims) for step in steps}
        x = steps[0].x

        def build(modules, dtype=None):
            old, settings = modules[name], dict(axes=axes, device=x.device, dtype=dtype or x.dtype)
            return {old: upsample_to_conv_transpose(old, channels, **settings).train(old.training)}

        try:
            if others:
                raise ValueError("it is called with other numbers of channels, too")
            if any(step.autocast for step in steps):
                raise ValueError("it runs under autocast, which a convolution would round by")
            if not x.is_floating_point():
                raise ValueError(f"it enlarges {x.dtype}, of which there is no convolution")
            [new] = build(self.modules).values()
        except (TypeError, ValueError) as error:
            row["reason"] = "; ".join(dict.fromkeys([row["reason"], str(error)]))
            return
        row.update(residual=0.0, became=_describe(new), parameters_before=0, parameters_after=parameters(new))
        calls = [[partial(one, step.x) for one in (upsample, copied(new).eval())] for step in steps]
        self.changes.append(_Change(row, build, True, calls))

    def _reasons(self, ups, convs):
        """Yield why a group is left."""
        names, now = self.watch.names, _readers(self.watch, self.watch.steps)
        if isinstance(self.training, str):
            yield self.training
        training = _readers(self.training, self.training.steps)
        for step in (step for steps in ups.values() for step in steps):
            others = [reader for reader, _ in step.readers if not is_convolution(reader)]
            if not step.readers:
                yield "nothing reads it"
            if others:
                others = [other if isinstance(other, str) else type(other).__name__ for other in others]
                yield f"read by {', '.join(dict.fromkeys(others))}; if a convolution reads that, {BACKEND} may fold it"
        for conv in convs:
            sources = self.watch.calls[conv]
            if any(source is None or source[0].module not in ups for source in sources):
                yield f"its convolution {names[conv]} reads other tensors, too"
            inside = [source and source[0].module in ups for pad in sources[0][1] for source in self.watch.calls[pad]]
            if not all(inside) or any(source[1] != sources[0][1] for source in sources):
                yield "its padding layers are used in other places, too"
            if names[conv] in self._taken():
                yield f"its convolution {names[conv]} became part of a pixel shuffle"
        if any(now[names[up]] != training.get(names[up]) for up in ups):
            yield "in training it is read otherwise"
        if len({(up.mode, up.align_corners, str(up.scale_factor), str(up.size)) for up in ups}) > 1:
            yield "one of its convolutions reads another Upsample, with other settings"

    def _pair_form(self, up, conv, pads, ups):
        """Choose the form of a pair."""
        steps = [step for steps in ups.values() for step in steps if conv in dict(step.readers)]
        if set(conv.kernel_size) == {1} or any(step.autocast for step in steps):
            return "conv_transpose", ""
        made = {form: partial(self._made, up, conv, pads, form) for form in ("conv_transpose", "subpixel", "jump")}
        if fits(steps[0].x, conv.weight, conv.groups, max(conv.dilation)):
            made["fused"] = partial(self._made, up, conv, pads, "fused")
        return self._fastest([step.x for step in steps], nn.Sequential(up, *pads, conv), made)

    def _fastest(self, inputs, given, made):
        """Choose among a module as it is and the forms that can be made of it, by the rule or by the clock."""
        forms = {"as it is": given}
        for form, make in made.items():
            with contextlib.suppress(TypeError, ValueError):  # what has no such form
                forms[form] = make()
        forms = {form: copied(module).eval() for form, module in forms.items()}
        if len(forms) == 1:
            return "conv_transpose", ""  # whose making says why not
        if self.seconds:
            with torch.no_grad():
                calls = [[partial(module, x) for module in forms.values()] for x in inputs]
            times = [sum(one) for one in zip(*(_times(own) for own in calls), strict=True)]
            found = dict(zip(forms, times, strict=True))
            best = min(found, key=found.get)
            return best, "timed: " + ", ".join(f"{form} {1000 * time:.3g} ms" for form, time in found.items())
        x = inputs[0]
        count = {form: macs(module, x) for form, module in forms.items() if form != "fused"}
        folded = count.get("conv_transpose", 0)
        work = Work(
            x.device, x.dtype, x.shape[1], count["as it is"], folded, count.get("jump", 0), "fused" in forms, False
        )
        return fastest(work._replace(transposed="conv_transpose" not in forms))

    def _made(self, upsample, conv, pads, form):
        """Make the new module of a convolution."""
        conv = _without_norms(conv)
        plain = isinstance(conv, CONVS) and (conv.padding in ("valid", "same") or set(conv.padding) == {0})
        if plain and set(conv.kernel_size) == set(conv.stride) == {1} and not pads and form != "subpixel":
            expect(upsample, nn.Upsample, "upsample")
            expect(conv, CONVS, "conv")
            return nn.Sequential(OrderedDict(conv=copied(conv), upsample=copied(upsample)))
        if upsample.scale_factor is None:
            raise ValueError(
                f"upsample has size={upsample.size} and so no scale of its own: give it a scale_factor (or call "
                "upsample_conv_to_conv_transpose with input_size)"
            )
        if form == "jump":
            return _like(jump_module(upsample, conv, None, pads), conv)
        new = assembled(pair_steps(upsample, conv, None, pads, form == "subpixel"), conv)
        return _like(fused(new) if form == "fused" else new, conv)

    # Pixel shuffles

    def _shuffles(self):
        """Exchange each pixel shuffle with the convolutions that it reads."""
        steps = [step for step in self.watch.steps if isinstance(step.module, SHUFFLES)]
        for shuffle in dict.fromkeys(step.module for step in steps):
            row = self._row(self.watch.names[shuffle] or "(the model itself)", _describe(shuffle))
            try:
                self._exchange_shuffle(shuffle, row)
            except (TypeError, ValueError) as error:
                row["reason"] = str(error)

    def _exchange_shuffle(self, shuffle, row):
        if self.to != "conv_transpose":
            wanted = self.to in ("subpixel", "fastest")
            raise ValueError("it is a pixel shuffle already" if wanted else "it is no transposed convolution")
        names, name = self.watch.names, self.watch.names[shuffle]
        sources = [source and source[0] for source in self.watch.calls[shuffle]]
        convs = list(dict.fromkeys(source.module for source in sources if source))
        if isinstance(self.training, str):
            raise ValueError(self.training)
        for watch in (self.watch, self.training):
            own = {conv: read for conv, read in _readers(watch, watch.convolutions).items() if name in read}
            if own != {names[conv]: {name} for conv in convs} or None in watch.calls[watch.model.get_submodule(name)]:
                raise ValueError("it reads more than convolutions, or what these give is read elsewhere, too")
        if taken := self._taken() & {names[conv] for conv in convs}:
            raise ValueError(f"its convolution {', '.join(taken)} became part of an Upsample")

        def build(modules, dtype=None):
            old = [modules[names[conv]] for conv in convs]
            new = {
                conv: _like(assembled(shuffle_steps(_without_norms(conv), modules[name]), conv), conv) for conv in old
            }
            return {modules[name]: nn.Identity(), **new}

        new, reads = build(self.modules), [self.modules[names[conv]] for conv in convs]
        row["was"] = f"{', '.join(dict.fromkeys(map(_describe, reads)))} + {row['was']}"
        row.update(residual=0.0, became=", ".join(dict.fromkeys(_describe(new[conv]) for conv in reads)))
        row.update(parameters_before=sum(map(parameters, reads)))
        row.update(parameters_after=sum(parameters(new[conv]) for conv in reads))
        calls = [
            (
                partial(nn.Sequential(source.module, shuffle), source.x),
                partial(copied(new[self.modules[names[source.module]]]).eval(), source.x),
            )
            for source in sources
            if source.x is not None
        ]
        self.changes.append(_Change(row, build, True, calls, tuple(names[conv] for conv in convs)))


class _Calls(Watch):
    """A watched run that keeps what transposed layers are called with, by name in the order of the first calls."""

    def __init__(self, model, inputs):
        self.transposed = {}
        for name, layer in model.named_modules():
            if isinstance(layer, CONV_TRANSPOSES):
                layer.register_forward_hook(partial(self._keep, name), with_kwargs=True)
        super().__init__(model, inputs)

    def _keep(self, name, layer, args, kwargs, output):
        x, size, passed = _called_with(args, kwargs)
        with torch._C.DisableTorchFunction():  # this is no reader
            self.transposed.setdefault(name, []).append((x.clone(), size, passed))


def _readers(watch, steps):
    """Say by the names of modules who reads what the module of each step gives."""
    readers = {}
    for step in steps:
        own = readers.setdefault(watch.names.get(step.module), set())
        own.update(watch.names.get(reader, reader) for reader, _ in step.readers)
    return readers


class _Judge:
    """Holds changes against the given model, on float64 copies where these run."""

    def __init__(self, model, inputs):
        self.inputs, self.model, self.dtype = inputs, copied(model), torch.float64
        self.before, self.noise, self.tolerance, self.bits = [], None, 1e-9, 2.0**-23
        values = [value for value in [*model.parameters(), *inputs.tensors()] if not _is_whole(value)]
        try:
            if any(value.is_complex() for value in values):
                raise TypeError("double() leaves complex numbers as they are")
            self.model.double()
            self.expected = self._outputs([])
        except Exception:  # whatever the model's own code raises
            self.model, self.dtype = model, None
            self.expected = self._outputs([])
            self.bits = max([torch.finfo(value.dtype).eps for value in values], default=self.bits)
            if any(value.is_cuda and value.dtype == torch.float32 for value in values):
                self.bits = max(self.bits, 2.0**-10)  # convolutions may use TF32
            self.tolerance = self.bits**0.5  # half of the digits: what is wrong differs in the first

    def kept(self, changes):
        """Give those that can stay, in their order, and note in the others' rows why they cannot."""
        self.before = self._search([], [change for change in changes if not change.exact], False)
        self.expected = self._outputs(self.before) if self.before else self.expected
        kept = self._search(self.before, [change for change in changes if change.exact], True)
        return [change for change in changes if any(change is one for one in kept)]

    def _search(self, kept, new, compare):
        """Add to the kept changes what can be added: all, or of each half what can be."""
        trouble = self._trouble([*kept, *new], compare) if new else None
        if not trouble:
            return [*kept, *new]
        if len(new) == 1:
            new[0].row["reason"] = trouble
            return kept
        middle = len(new) // 2
        return self._search(self._search(kept, new[:middle], compare), new[middle:], compare)

    def _outputs(self, changes, called=None, factor=1.0):
        model = exchanged(copied(self.model), changes, called, self.dtype)
        outputs = self.inputs.run(model, lambda x: x.to(self.dtype or x.dtype) * factor)
        return [value for value in tree_leaves(outputs) if isinstance(value, torch.Tensor)]

    def _trouble(self, changes, compare):
        called = {}
        try:
            found = self._outputs(changes, called)
        except Exception as error:  # whatever the model's own code raises
            return f"the model does more with it than calling it: {type(error).__name__}: {error}"
        if not all(called.values()):
            return "the model calls it by a reference of its own, which an exchange does not reach"
        residuals = [change.row["residual"] or 0.0 for change in changes if change.exact]
        distances = compare and self._distances(found, max(self.tolerance, 10 * max(residuals, default=0.0)))
        return f"taken back: the model's outputs changed by {distances}" if distances else None

    def _distances(self, found, allowed):
        """Say how far outputs are apart, if by more than rounding."""
        if [value.shape for value in self.expected] != [value.shape for value in found]:
            return "other shapes"
        for place, (one, two) in enumerate(zip(self.expected, found, strict=True)):
            size, distance = _largest(one), _distance(one, two)
            if distance > allowed * size and distance > 16 * self._noise()[place]:
                return f"{distance:.2g}, where they have a size of {size:.2g}"
        return None

    def _noise(self):
        """How far each output moves where the inputs change in their last bit, or from run to run."""
        if self.noise is None:
            moved = self._outputs(self.before, factor=1 + self.bits)
            self.noise = [_distance(one, two) for one, two in zip(self.expected, moved, strict=True)]
        return self.noise


def exchanged(model, changes, called=None, dtype=None):
    """Make changes in a copy of the model; `called` gets the new modules, and whether each is called.

    `dtype` is the model's, where it was converted.
    """
    modules, made = dict(model.named_modules()), {}
    for change in changes:
        made |= change.build(modules, dtype)
    for new in made.values() if called is not None else ():
        if not isinstance(new, nn.Identity):
            called[new] = False
            new.register_forward_hook(lambda new, *_: called.update({new: True}))
    for parent in list(model.modules()):
        for attribute, child in parent._modules.items():
            if child in made:  # in every place where it stands
                parent._modules[attribute] = made[child]
    return made.get(model, model)


def _is_whole(value):
    return not value.is_floating_point() and not value.is_complex()


def _largest(value):
    return 0.0 if not value.numel() or _is_whole(value) else value.abs().nan_to_num(0, 0, 0).amax().item()


def _distance(one, two):
    """Give the largest difference; infinite where not the same pixels are finite, or whole numbers are others."""
    if _is_whole(one):
        return 0.0 if torch.equal(one, two) else math.inf
    if not torch.equal(one.isfinite(), two.isfinite()):
        return math.inf
    return _largest((one - two).where(one.isfinite(), 0))


class _Sized(nn.Sequential):
    """A rewritten layer that takes `output_size`, as ConvTranspose2d does."""

    def __init__(self, steps, layer):
        super().__init__(OrderedDict(steps.named_children()))
        self.stride, self.output_padding = list(layer.stride), list(layer.output_padding)

    def forward(self, input: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
        """Give the layer's own size, or that one, as far as the layer could."""
        axes = len(self.stride)
        x = (
            input if output_size is None else F.pad(input, [0, 1] * axes)
        )  # a line of zeros uncovers `stride` lines more
        for step in self:
            x = step(x)
        if output_size is not None:
            for axis in range(-axes, 0):
                x = x.narrow(axis, 0, self._side(x.shape[axis], output_size[axis], axis))
            x = x.contiguous()
        return x

    def _side(self, size: int, wanted: int, axis: int) -> int:
        least = size - self.stride[axis] - self.output_padding[axis]
        fixed = isinstance(wanted, int) and isinstance(least, int)  # not where torch.fx traces
        if fixed and (wanted < least or wanted >= least + self.stride[axis]):
            raise ValueError(
                f"output_size is out of reach: axis {axis} can have {least} to {least + self.stride[axis] - 1} pixels"
            )
        return wanted


def _called_with(args, kwargs):
    """Give the image and the output_size of a call of a transposed layer."""
    named = dict(zip(("input", "output_size"), args, strict=False)) | kwargs
    return named["input"], named.get("output_size"), "output_size" in named


def _called(layer, x, size, passed=False):
    with torch.no_grad():
        return layer(x) if size is None else layer(x, size)


def _compared(calls, measure):
    """Measure a row's calls before and after."""
    row = dict(max_difference=0.0, macs_before=0, macs_after=0)
    for before, after in calls:
        outputs = []
        for call, key in ((before, "macs_before"), (after, "macs_after")):
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                outputs.append(call())
            row[key] += counter.get_total_flops() // 2
        row["max_difference"] = max(row["max_difference"], _largest(outputs[0] - outputs[1]))
    if measure:
        seconds = [_times(both) for both in calls]
        row.update(zip(SECONDS, map(sum, zip(*seconds, strict=True)), strict=True))
    return row


def _without_norms(layer):
    """Give a copy of the layer as in eval mode, without the hooks of the old weight_norm and spectral_norm."""
    removers = {"WeightNorm": nn.utils.remove_weight_norm, "SpectralNorm": nn.utils.remove_spectral_norm}
    hooks = [type(hook).__name__ for hook in layer._forward_pre_hooks.values()]
    if any(name in removers for name in hooks):
        layer = copied(layer).eval()
        for name in hooks:
            if name in removers:
                removers[name](layer)
    return layer


def _like(new, old):
    """Give a new module the settings of the layer that it stands for, which a model may read."""
    for name in "in_channels out_channels kernel_size stride padding output_padding dilation groups".split():
        if hasattr(old, name) and not hasattr(new, name):
            setattr(new, name, getattr(old, name))
    return new


def _describe(layer):
    steps = [layer] if not isinstance(layer, nn.Sequential) else list(layer)
    return " + ".join(_name(step) for step in steps)


def _name(step):
    kind = type(step).__name__.lstrip("_").removeprefix("Parametrized")
    if isinstance(step, (*CONV_TRANSPOSES, *CONVS)):
        kind += f" {'x'.join(map(str, step.kernel_size))}"
        if set(step.stride) != {1}:
            kind += f", stride {step.stride[0] if len(set(step.stride)) == 1 else step.stride}"
    elif isinstance(step, nn.Upsample):
        kind = f"{step.mode} Upsample"
    elif PADS.get(type(step)) == "zeros":
        kind = "crop" if max(step.padding) <= 0 else "pad"
    return kind


def _times(calls, rounds=7):
    """Time calls in turns; give the medians, in seconds."""
    seconds = [[] for _ in calls]
    for count in range(rounds + 1):
        for call, times in zip(calls, seconds, strict=True):
            start = time.perf_counter()
            with torch.no_grad():
                output = call()
            if any(isinstance(value, torch.Tensor) and value.is_cuda for value in tree_leaves(output)):
                torch.cuda.synchronize()
            if count:  # the first round warms up
                times.append(time.perf_counter() - start)
    return tuple(sorted(times)[rounds // 2] for times in seconds)
