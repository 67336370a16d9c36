"""What a model upsamples with: every step, what pattern it can draw, and what it could be instead."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

from upconv._layers import CONV_TRANSPOSES, new_layer, spread, working_copy
from upconv._recording import Inputs, Report, Watch, copied, follow
from upconv.arithmetic import for_each_axis
from upconv.graph import folded_copy
from upconv.models import BACKEND, rewrite
from upconv.phases import phase_gains
from upconv.projection import is_upsample_conv

__all__ = ["audit"]

COLUMNS = "name kind sizes even_overlap dc_spread off_dc_energy macs exact_targets verdict".split()
CONV_TRANSPOSE = "input weight bias stride padding output_padding groups dilation".split()


def audit(
    model: nn.Module,
    example_inputs: torch.Tensor | tuple[Any, ...] = (),
    *,
    example_kwargs: dict[str, Any] | None = None,
) -> Report:
    """Say of every upsampling in a model what it is, what pattern it can draw, and what it could be instead.

    Parameters
    ----------
    model : torch.nn.Module
        It is left as it is: a copy is run, in eval mode.
    example_inputs : torch.Tensor or tuple
        Its positional inputs. What they do not reach is not in the report.
    example_kwargs : dict, optional
        Its inputs by name.

    Returns
    -------
    Report
        A row for each upsampling step as a dict, functional ones included, in the order in which they run: `name`;
        `kind`; `sizes`, of input and output; `kernel_size` and `stride`, of a transposed convolution; `even_overlap`,
        whether all phases have equally many taps; `dc_spread`, the largest difference between the gains of two phases,
        relative to the largest gain; `off_dc_energy`, the share of a flat input's energy that its weights put into a
        pattern; `macs`; `exact_targets`, what it could be exactly, by `rewrite` if it is a layer and
        otherwise by the backend; `verdict`, in one line. It prints as a table. What makes an image larger in another
        way (by reshaping, say) is a row too, whose kind is what did it. In a model without upsampling it is empty.

    Raises
    ------
    TypeError
        If `model` is no module, or `example_inputs` neither a tensor nor a tuple.
    ValueError
        As in `rewrite`, if a module's forward is not its class's.

    See Also
    --------
    upconv.models.rewrite : Exchange the layers that it names.
    upconv.graph.backend : Fold the functions that it names.
    upconv.phases.phase_gains : The gains that `dc_spread` compares.

    Examples
    --------
    >>> model = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(4, 4, 3, padding=1))
    >>> audit(model, torch.zeros(1, 4, 8, 8))[0]["verdict"]
    'keeps flat inputs flat; the same as ConvTranspose2d 4x4, stride 2, with 0.44 of the MACs'
    """
    follow(model)
    inputs = Inputs(example_inputs, example_kwargs)
    watch = _Audit(copied(model), inputs)
    steps = [(step, row) for step, row in watch.rows if step.arguments or step.what == "PixelShuffle"]
    layers, sites = {}, None
    if any(step.module is not None for step, _ in steps):
        report = rewrite(model, "conv_transpose", example_inputs, example_kwargs=example_kwargs).report
        layers = {row["name"]: row for row in report if row["status"] == "rewritten"}
    for step, row in steps:
        layer = layers.get(step.name) if step.module is not None else None
        if layer:
            _add_layers(row, layer)
        elif step.arguments:
            sites = _captured(model, inputs) if sites is None else sites
            _add_sites(row, step, sites)
    rows = [row for _, row in watch.rows]
    return Report(rows, COLUMNS, "" if rows else "this model does no upsampling on these inputs")


class _Audit(Watch):
    """A watched run that measures every step as it is done."""

    def __init__(self, model, inputs):
        self.rows, self.weights = [], WeakIdKeyDictionary()  # by what a convolution gave
        super().__init__(model, inputs)

    def _add(self, step, args, kwargs):
        super()._add(step, args, kwargs)
        row = dict(name=step.name, kind=step.what, sizes=step.sizes, kernel_size=None, stride=None, even_overlap=None)
        row |= dict(dc_spread=None, off_dc_energy=None, macs=0, exact_targets=(), verdict="not understood")
        if step.arguments:
            row |= dict(even_overlap=True, dc_spread=0.0, off_dc_energy=0.0, verdict="keeps flat inputs flat")
        elif step.what.startswith("ConvTranspose"):
            row |= _conv_transpose(step, **dict(zip(CONV_TRANSPOSE, args, strict=False)) | kwargs)
            row["kind"] = step.what if step.module is not None else f"F.conv_transpose{step.dims}d"
        elif step.what == "PixelShuffle":
            row |= self._pixel_shuffle(**dict(zip(("input", "upscale_factor"), args, strict=False)) | kwargs)
        self.rows.append((step, row))

    def _trace(self, name, tensors, output, step):
        super()._trace(name, tensors, output, step)
        if name.startswith("conv") and not step and isinstance(output, torch.Tensor):
            self.weights[output] = tensors[1]

    def _pixel_shuffle(self, input, upscale_factor):
        factors = upscale_factor if isinstance(upscale_factor, tuple) else (upscale_factor,) * 2
        row = dict(stride=factors, even_overlap=True, verdict="no convolution right before it")
        weight = self.weights.get(input)
        if weight is not None:
            gains = working_copy(weight).flatten(2).sum(2).unflatten(0, (-1, *factors)).movedim(-1, 0)
            measures = _pattern(gains)
            row |= dict(**measures, macs=input[:, 0].numel() * weight.numel(), kernel_size=tuple(weight.shape[2:]))
            row["verdict"] = _verdict(measures)
        return row


def _conv_transpose(step, input, weight, stride=1, groups=1, dilation=1, **others):
    row = dict(kernel_size=tuple(weight.shape[2:]), stride=stride, macs=input[:, 0].numel() * weight.numel())
    axes = weight.dim() - 2
    stride, dilation = for_each_axis(stride, axes), for_each_axis(dilation, axes)
    row["stride"] = stride
    kernel = spread(working_copy(weight), dilation)
    taps = spread(torch.ones_like(weight[:1, :1], dtype=torch.float64), dilation)
    like = SimpleNamespace(in_channels=weight.shape[0], groups=groups, weight=weight)
    if weight.is_complex():
        return dict(**row, verdict="complex weights: not measured")
    kind = CONV_TRANSPOSES[axes - 1]
    is_pair = is_upsample_conv(new_layer(kind, weight, None, like, stride=stride, dilation=dilation))
    measures = _pattern(phase_gains(kernel, stride))
    verdict = _verdict(measures) + f"; it is Upsample + Conv{axes}d in disguise" * (is_pair and set(stride) != {1})
    functional = "" if step.module is not None else "; called as a function, which rewrite does not reach"
    return dict(
        **row,
        even_overlap=phase_gains(taps, stride).unique().numel() == 1,
        **measures,
        exact_targets=() if functional else ("subpixel", *["upsample_conv"] * is_pair),
        verdict=verdict + functional,
    )


def _add_layers(row, layer):
    row["macs"] = layer["macs_before"]
    ratio = layer["macs_after"] / layer["macs_before"] if layer["macs_before"] else 1
    row["exact_targets"] = (
        "conv_transpose",
        *["subpixel"] * ("Transpose" in layer["became"] and row["kind"] != "PixelShuffle"),
    )
    row["verdict"] += f"; the same as {layer['became']}, with {ratio:.2f} of the MACs"


def _captured(model, inputs):
    """Fold what PyTorch captures of a model; give the sites, or why there are none."""
    sites = []

    def look(gm, example_inputs):
        sites.extend(folded_copy(gm)[1])
        return gm.forward

    try:
        with torch._dynamo.config.patch(recompile_limit=2**20, accumulated_recompile_limit=2**20):
            inputs.run(torch.compile(copied(model), backend=look, dynamic=False))
    except Exception as error:  # whatever Dynamo and the model's own code raise
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return sites


def _add_sites(row, step, sites):
    if isinstance(sites, str):
        row["verdict"] += f"; torch.compile cannot capture the model ({sites})"
        return
    name = step.name.partition(": ")[0]  # after a graph break, a site's is relative to the frame
    own = [site for site in sites if site.sizes == step.sizes and f".{name}".endswith(f".{site.module}")]
    own = [site for site in own if step.module is not None or site.line == step.line]
    if not own:
        row["verdict"] += "; not found in the graphs that torch.compile captures"
        return
    became = dict.fromkeys(text for site in own for text in site.became)
    counts = next((site.macs for site in own if site.macs), ())  # what a convolution of several saves has one of them
    if became:
        row["exact_targets"] = ("conv_transpose",)
        row["verdict"] += f"; the same as {', '.join(became)}"
        if counts:
            row["macs"], after = (sum(numbers) for numbers in zip(*counts, strict=True))
            row["verdict"] += f", with {after / row['macs']:.2f} of the MACs"
        row["verdict"] += f": {BACKEND}"
    row["verdict"] = "; ".join([row["verdict"], *dict.fromkeys(text for site in own for text in site.reasons)])


def _pattern(gains):
    """Measure gains of shape (in, out, *stride)."""
    gains = gains.flatten(2)
    largest, energy = gains.abs().max().item(), gains.square().mean().item()
    spread_of_gains = (gains.amax(dim=2) - gains.amin(dim=2)).max().item()
    kept = gains.mean(dim=2).square().mean().item()
    share = max(0.0, 1 - kept / energy) if energy else 0.0
    return dict(dc_spread=spread_of_gains / (largest or 1), off_dc_energy=share)


def _verdict(measures):
    if measures["dc_spread"] < 1e-5:
        return "keeps flat inputs flat"
    return f"draws a pattern on flat inputs, {measures['off_dc_energy']:.2f} of their energy"
