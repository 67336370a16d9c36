"""What a model upsamples with: every step, what pattern it can draw, and what it could be instead."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

from upconv._layers import CONV_TRANSPOSES, new_layer, spread, working_copy
from upconv._recording import Inputs, Report, Watch, copied, follow
from upconv.arithmetic import AXES, for_each_axis
from upconv.graph import folded_copy
from upconv.models import BACKEND, rewrite
from upconv.phases import phase_gains
from upconv.projection import is_upsample_conv

__all__ = ["audit", "flat_response"]

COLUMNS = "name kind sizes even_overlap dc_spread off_dc_energy macs exact_targets verdict".split()
PICTURES = "off_dc_energy is about the weights alone; upconv.flat_response measures what the picture shows"
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
        relative to the largest gain; `off_dc_energy`, the share of its output's energy that is a pattern, on random
        flat inputs, by its weights alone (what the picture shows, `flat_response` says); `macs`; `exact_targets`, what
        it could be exactly, by `rewrite` if it is a layer and otherwise by the backend; `verdict`, in one line. It
        prints as a table. What makes an image larger in another way (by reshaping, say) is a row too, whose kind is
        what did it. In a model without upsampling it is empty.

    Raises
    ------
    TypeError
        If `model` is no module, or `example_inputs` neither a tensor nor a tuple.
    ValueError
        As in `rewrite`, if a module's forward is not its class's, or if the model is on the device meta.

    See Also
    --------
    flat_response : The pattern that the model's picture shows, which can be far less.
    upconv.models.rewrite : Exchange the layers that it names.
    upconv.graph.backend : Fold the functions that it names.
    upconv.phases.phase_gains : The gains that `dc_spread` compares.

    Examples
    --------
    >>> model = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(4, 4, 3, padding=1))
    >>> audit(model, torch.zeros(1, 4, 8, 8))[0]["verdict"]
    'keeps flat inputs flat; the same as ConvTranspose2d 4x4, stride 2, with 0.44 of the MACs'
    """
    _follow(model)
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
    note = PICTURES if any(row["off_dc_energy"] for row in rows) else ""
    return Report(rows, COLUMNS, note if rows else "this model does no upsampling on these inputs")


def _follow(model):
    follow(model)
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        raise ValueError("model is on the device meta, where weights have no values to measure: give it on another")


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
    graphs = []

    def look(gm, example_inputs):
        graphs.append(folded_copy(gm)[1])
        return gm.forward

    try:
        with torch._dynamo.config.patch(recompile_limit=2**20, accumulated_recompile_limit=2**20):
            inputs.run(torch.compile(copied(model), backend=look, dynamic=False))
    except Exception as error:  # whatever Dynamo and the model's own code raise
        return f"{type(error).__name__}: {error}".splitlines()[0]
    sites = [site for own in graphs for site in own]
    if len(graphs) > 1:  # what leaves the one may be read in the next
        end = f"the output of one of the {len(graphs)} graphs that torch.compile makes of the model"
        for site in sites:
            site.reasons = [reason.replace("the output", end) for reason in site.reasons]
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
    return f"its weights alone draw a pattern on flat inputs, {measures['off_dc_energy']:.2f} of their energy"


LEVELS = 8  # flat inputs


def flat_response(
    model: nn.Module,
    example_inputs: torch.Tensor | tuple[Any, ...] = (),
    *,
    example_kwargs: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Measure the pattern that a model's output shows on flat inputs: not what weights could draw, but what is drawn.

    Parameters
    ----------
    model : torch.nn.Module
        It is left as it is: a copy is run, in eval mode.
    example_inputs : torch.Tensor or tuple
        Its positional inputs. Those of floating point that are images, (N, C, ...), are made flat, each channel
        constant at a level drawn between its least and its largest value here. Of inputs with 3 to 5 axes those with
        most are images; all others stay as they are.
    example_kwargs : dict, optional
        Its inputs by name.

    Returns
    -------
    dict
        Of the first output with as many axes, away from the border, on the worst of eight flat inputs (times N):
        `pattern`, the root mean square over channels and phases of what repeats with the model's scales, in the
        output's units; `relative`, that over the output's range on the example inputs, infinite if the range alone is
        0; `per_phase`, for each period from 2 to the whole scale a tensor (C, periods...), by how much a phase, counted
        from the picture's first pixel, lies above the mean of all; `level`, (C,), the color of that input; `patterns`,
        those of all the flat inputs; `border`, for each axis the pixels left out before
        and behind; `border_found`, whether that is how deep the border reaches. If not, it is a quarter of the picture:
        the model takes no input of twice the size, or all of its output depends on the border.

    Raises
    ------
    TypeError
        If `model` is no module, or `example_inputs` neither a tensor nor a tuple.
    ValueError
        If no input or no output is an image, or an output is not finite; or, as in `audit`, if a module's forward is
        not its class's, or the model is on the device meta.

    See Also
    --------
    audit : What the weights of each layer would draw on random flat inputs.
    upconv.phases.checkerboard_energy : The pattern in pictures that are not flat.

    Notes
    -----
    Scales are the ratios of the output's size to the sizes that the model upsamples, by how much both grow with the
    input where it can be enlarged. The whole scale is their least common multiple; a scale that does not fit into what
    is measured is left out, and so is one that `audit` does not see: a model that it says does no upsampling has none.
    The border reaches as far as the outputs on a flat input and on one of twice the size differ by more than a
    hundred-thousandth of the output's range, and rounding. The levels are drawn alike in every call, and each channel
    by itself: colors may be among them that no photograph has.

    Examples
    --------
    >>> layer = nn.ConvTranspose2d(1, 1, kernel_size=2, stride=2, bias=False)
    >>> _ = layer.weight.data.copy_(torch.tensor([[1.0, 1.0], [1.0, 2.0]]))
    >>> response = flat_response(layer, torch.full((1, 1, 8, 8), 4.0))
    >>> response["per_phase"][2]
    tensor([[[-1., -1.],
             [-1.,  3.]]])
    >>> round(response["pattern"], 4), response["border"]
    (1.7321, ((0, 0), (0, 0)))
    """
    _follow(model)
    inputs, network = Inputs(example_inputs, example_kwargs), copied(model)
    dims = max((x.dim() for x in inputs.tensors() if x.is_floating_point() and x.dim() - 2 in AXES), default=None)
    if dims is None:
        raise ValueError("no input is an image, (N, C, ...) of floating point: give the part of the model that has one")

    levels = []

    def flat(seed, times):
        """Make images flat, at levels that the seed decides."""
        random = torch.Generator().manual_seed(seed)

        def change(x):
            if x.dim() != dims:
                return x
            low, high = (limit(x, (0, *range(2, dims)), keepdim=True) for limit in (torch.amin, torch.amax))
            share = torch.rand(*x.shape[:2], *[1] * (dims - 2), generator=random).to(x)
            level = low + share * (high - low)
            levels.append(level.flatten(1))  # (N, C)
            return level.expand(-1, -1, *(times * n for n in x.shape[2:])).contiguous()

        return Inputs(*inputs.copies(change))

    def run(given):
        for image in _tensors(given.run(network)):
            if image.dim() == dims and image.is_floating_point():
                if not image.isfinite().all():
                    raise ValueError("an output has values that are infinite or not a number")
                return image
        raise ValueError(f"no output is an image of floating point with {dims} axes, as the inputs have")

    example, small, times = run(inputs), run(flat(0, 1)), 1
    example_range = (example.amax() - example.amin()).item()
    rounding = 4 * torch.finfo(small.dtype).eps * small.abs().max()
    try:
        large = run(flat(0, 2))
    except Exception:  # whatever the model's own code raises
        large = border = None
    else:
        border = _border(small, large, 1e-5 * example_range + rounding)
    if border and any(2 * sum(ends) > n for ends, n in zip(border, small.shape[2:], strict=True)):
        times = 2
    found, border = bool(border), border or [(n // 4, n // 4) for n in small.shape[2:]]
    sizes = [_sizes(copied(model), flat(0, 1), small)]
    if large is not None:
        sizes.append(_sizes(copied(model), flat(0, 2), large))
    ratios = _ratios(*sizes)
    phases, numbers = [], []
    for seed in range(LEVELS):
        levels.clear()
        phases += _phases(run(flat(seed, times)), border, ratios)  # each (C, *periods)
        numbers += levels[0]
    patterns = torch.stack([phase.square().mean().sqrt() for phase in phases])
    place = patterns.argmax().item()
    worst, pattern, whole = phases[place], patterns[place].item(), phases[place].shape[1:]
    periods = [period for period in range(2, math.lcm(*whole) + 1) if math.lcm(*whole) % period == 0]
    return dict(
        pattern=pattern,
        relative=pattern / example_range if example_range else math.inf if pattern else 0.0,
        per_phase={p: _means(worst, [math.gcd(p, n) for n in whole]).to(small.dtype) for p in periods},
        level=numbers[place],
        patterns=patterns.tolist(),
        border=tuple(border),
        border_found=found,
    )


def _sizes(model, inputs, image):
    """List the sizes that a model upsamples, and at last that of its output."""
    steps = Watch(model, inputs).steps
    return [*(step.sizes[0] for step in steps if step.dims == image.dim() - 2), tuple(image.shape[2:])]


def _ratios(small, large=None):
    """Give the scale of the output by each size that is upsampled, for each axis."""
    if large and len(large) == len(small):  # what is padded or cropped is the same in both, and drops out
        small = [tuple(b - a for a, b in zip(*both, strict=True)) for both in zip(small, large, strict=True)]
    *sizes, output = small
    return [tuple(max(1, round(n / max(1, m))) for n, m in zip(output, size, strict=True)) for size in sizes]


def _tensors(value):
    """List the tensors in what a model gives."""
    if isinstance(value, torch.Tensor):
        return [value]
    if dataclasses.is_dataclass(value) and not isinstance(value, Mapping):
        value = vars(value)
    inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple | list) else ()
    return [tensor for one in inside for tensor in _tensors(one)]


def _border(small, large, tolerance):
    """Give how far each border reaches into the smaller of two flat images; None if nothing is out of its reach."""
    axes, border = range(small.dim() - 2), []
    for axis in axes:
        reach = []
        for last in (True, False):  # where the ends meet, what differs is the reach of the beginning, and vice versa
            part = large
            for dim, n in enumerate(small.shape[2:], 2):
                part = part.narrow(dim, part.shape[dim] - n if last else 0, n)
            differs = ((part - small).abs() > tolerance).amax((0, 1))
            for other in set(axes) - {axis}:  # away from the reach of the other axes' borders
                some = -(-differs.shape[other] // 4)
                differs = differs.narrow(other, differs.shape[other] - some if last else 0, some)
            places = differs.movedim(axis, 0).reshape(small.shape[2 + axis], -1).any(1).nonzero().flatten().tolist()
            reach.append(0 if not places else places[-1] + 1 if last else small.shape[2 + axis] - places[0])
        if max(reach) >= small.shape[2 + axis]:
            return None
        border.append(tuple(reach))
    return border


def _phases(image, border, ratios):
    """Give the deviations of the means of the phases from the mean of all, (N, C, *periods), in float64."""
    image, whole = image.double(), []
    for axis, (before, behind) in enumerate(border):
        dim, period, place = axis + 2, 1, (before, image.shape[axis + 2] - behind)
        for ratio in sorted(ratio[axis] for ratio in ratios):
            longer = math.lcm(period, ratio)
            start = -(-before // longer) * longer
            if (count := (image.shape[dim] - behind - start) // longer) > 0:
                period, place = longer, (start, start + count * longer)
        image = image.narrow(dim, place[0], place[1] - place[0])
        whole.append(period)
    means = _means(image, whole)
    return means - means.mean(list(range(2, means.dim())), keepdim=True)


def _means(image, periods):
    """Average over whole periods along the last axes."""
    for axis, period in enumerate(periods, image.dim() - len(periods)):
        image = image.unflatten(axis, (-1, period)).mean(axis)
    return image
