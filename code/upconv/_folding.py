"""Folding a captured graph: from operation to operation a tensor is known as a sum of parts. Not for users.

The parts are small tensors, upsampled, and others. A stride-1 convolution is taken of each: conv(x + y) is conv(x) +
conv(y), conv(cat) a sum over slices of the weight, conv(pad(x)) a convolution with more padding, conv(nearest(x)) one
transposed convolution; f(nearest(x)) is nearest(f(x)) for a pointwise f, and a 1x1 convolution goes before any
interpolation.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import re
import sys
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import fx, nn
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols, guard_or_false, statically_known_true
from torch.fx.node import map_arg
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F

from upconv import _interpolation, _layers
from upconv import _reading as read
from upconv._reading import arguments_of, axes_of, base_name, changed_by, is_image, name_of, value_of
from upconv.arithmetic import AXES, for_each_axis
from upconv.fastest import Work, fastest, fits
from upconv.fold import Jump, jump, jumped

__all__ = ["Folding", "Kernel", "Site"]

aten = torch.ops.aten
CONVOLUTIONS = {f"conv{kind}{n}d": (n, bool(kind)) for kind in ("", "_transpose") for n in AXES}
UNKNOWN = "its convolution's settings or sizes are not fixed"


def _composed(weight, span, form, transposed):
    """Compose the kernel of some channels of a weight by `form`; without one it is these channels."""
    part = weight
    if transposed is not None:  # the weight is a transposed convolution's, of so many groups
        part = _layers.swapped_channels(weight, transposed).flip(tuple(range(2, weight.dim())))
    part = part[:, slice(*span)]
    if form is None:
        return _layers.like_format(part, weight)
    training = torch.is_grad_enabled() and weight.requires_grad
    wide = part.to(torch.promote_types(part.dtype, torch.float32)) if training else _layers.working_copy(part)
    kernel = form.kernel(wide).to(weight.dtype)
    if isinstance(form, _Fused):  # reads tap by tap, so taps are to be the outer axes in memory
        return kernel.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1)
    return _layers.like_format(kernel, weight)


class _Composed(nn.Module):
    """Composes a kernel in the graph."""

    def __init__(self, *settings):
        super().__init__()
        self.settings = settings

    def forward(self, weight):
        return _composed(weight, *self.settings)


class _Fused(_interpolation.Fold):
    """A fold that the kernel of `upconv.kernel` computes."""


class _Jumps(nn.Module):
    """Computes a jump form in the graph."""

    def __init__(self, form):
        super().__init__()
        self.form = form

    def forward(self, x, kernel, bias):
        convolution, groups = getattr(F, f"conv{len(self.form.axes)}d"), self.form.groups
        products = {
            which: partial(convolution, weight=part, bias=None if "1" in which else bias, groups=groups)
            for which, part in self.form.products(kernel).items()
        }
        return jumped(self.form.axes, groups, x, products)


class Kernel:
    """A kernel that a folded graph reads, composed from one of the graph's inputs, anew only if that has changed."""

    def __init__(self, position, settings, weight):
        self.position, self.settings, self.kept = position, settings, (None, None)
        self.kernel = None
        self.refresh([None] * position + [weight])

    def refresh(self, inputs):
        """Look whether the weight has changed."""
        weight, (known, values) = inputs[self.position], self.kept
        version = object() if weight.is_inference() else weight._version  # inference tensors have none
        state = None if weight.is_cpu else (weight.data_ptr(), version)
        if values is None or state != known or (weight.is_cpu and not torch.equal(values, weight)):
            with torch.inference_mode(False), torch.no_grad():
                weight = weight.detach()  # it keeps the storage, whose address could become another's
                self.kept = state, weight.clone() if weight.is_cpu else weight
                kernel = _composed(weight, *self.settings)
                self.kernel = kernel.clone() if self.kernel is None else self.kernel.copy_(kernel)


# What tensors are made of


class Site:
    """What became of one upsampling in a graph."""

    def __init__(self, node, what, sizes):
        self.module, self.line = read.origin_of(node)
        self.what, self.sizes = what, sizes  # of its input and of its output, without batch and channels
        self.became, self.reasons, self.readers = [], [], []  # of convolutions; why others are as they were
        self.macs = []  # multiply-accumulates of each before and after, where sizes are numbers

    def __str__(self):
        became = f"-> {', '.join(dict.fromkeys(self.became))}" if self.became else "is left"
        reasons = f": {'; '.join(dict.fromkeys(self.reasons))}" if self.reasons else ""
        return f"{self.module} ({self.line}): {self.what} {became}{reasons}"


class _Up(NamedTuple):
    """An upsampled tensor."""

    node: fx.Node  # the interpolation
    x: fx.Node
    mode: str
    scale: tuple | None  # if it is the same at every pixel
    reason: str  # otherwise
    enlarges: bool
    sites: tuple  # of this and, where several were one, of all
    reads: tuple  # nodes that `emit` reads
    emit: Callable  # gives the node of the small tensor that this is the upsampling of

    def is_like(self, other):
        return self.mode[:7] == other.mode[:7] == "nearest" and self.scale == other.scale is not None


class _Part(NamedTuple):
    """Some channels of a tensor."""

    node: fx.Node  # a tensor of just these
    span: tuple  # (first, last + 1)
    up: _Up | None = None
    padding: tuple = ()  # (before, after) for each axis, or nothing
    padding_mode: str = "zeros"
    dtype: torch.dtype | None = None  # that a cat or a sum makes of it
    form: object = None  # with `up`, in a convolution: its fold, or None for a 1x1 convolution before it


def _is_padded(part):
    return any(map(any, part.padding))


def _sites(parts):
    return dict.fromkeys(site for part in parts if part.up for site in part.up.sites)


class Folding:
    """The pass over one graph, from operation to operation."""

    def __init__(self, gm, inputs=None, constants=None, everything=False, compiled=None):
        """Give the example inputs of a graph that Dynamo captured, or the constants of an exported one by name.

        With `everything`, upsampling that no convolution reads, and pixel shuffles, become transposed convolutions too.
        `compiled` is None, or for the fastest of all forms whether inductor compiles the graph.
        """
        self.gm, self.graph, self.inputs, self.constants, self.everything = gm, gm.graph, inputs, constants, everything
        self.compiled = compiled
        self.kernels = [] if constants is None else {}  # by name: of which weight, and the values
        self.parts, self.sites, self.made, self.emitted = {}, {}, {}, {}
        self.alias, self.removable, self.autocast, self.casts = {}, set(), [], {}  # casts: autocast at an upsampling

    def run(self):
        if any("functorch" in str(getattr(node.target, "__module__", "")) for node in self.graph.nodes):
            return []  # inside torch.func's transforms values are not what the graph says
        self._share()
        for node in list(self.graph.nodes):
            if node._erased:  # as part of an operation before it
                continue
            switch = re.match("_*(set|enter|exit)_", base_name(node))  # of gradients, or autocast
            if switch:
                self.parts.clear()
                self.autocast += [node.args] * base_name(node).endswith("enter_autocast")
                self.autocast = self.autocast[: -1 if base_name(node).endswith("exit_autocast") else None]
            changed, parts = set(map(self._root, changed_by(node))), self._parts_of(node)
            if parts and not changed.isdisjoint(self._reads(part for part in parts if part.node is not node)):
                parts = self._refuse(parts, "what it is joined with is changed in place")
            for other in [
                other for other, own in self.parts.items() if changed & {self._root(other), *self._reads(own)}
            ]:
                for site in _sites(self.parts.pop(other)):
                    site.readers.append(f"{name_of(node) or node.target}, in place")
            if node in self.sites:
                self.casts[node] = list(self.autocast)
            if parts:
                self.parts[node] = parts
                self.removable.add(node)
        self._clean()
        if self.everything:
            self._alone()
        self.graph.lint()
        self.gm.recompile()
        sites = list(dict.fromkeys(site for sites in self.sites.values() for site in sites))
        for site in sites:
            if not site.became and not site.reasons:
                site.reasons.append(f"read by {', '.join(dict.fromkeys(site.readers)) or 'nothing'}")
        return sites

    def _share(self):
        """Find which tensors may share memory, and which of that is changed in place."""
        storages = {}
        for node in self.graph.nodes:
            if node.op == "placeholder" and read.is_tensor(node):
                with contextlib.suppress(NotImplementedError, RuntimeError):  # of tensors that have none
                    self.alias[node] = storages.setdefault(StorageWeakRef(value_of(node).untyped_storage()), node)
            shared = (
                changed_by(node)
                if read.NEW_MEMORY.match(base_name(node))
                else filter(read.has_memory, node.all_input_nodes)
            )
            for other in list(shared)[: 1 if base_name(node) in read.CASTS else None]:
                self.alias[self._root(node)] = self._root(other)
        self.changed = {self._root(other) for node in self.graph.nodes for other in changed_by(node)}

    def _root(self, node):
        while self.alias.get(node, node) is not node:
            node = self.alias[node]
        return node

    def _reads(self, parts):
        """Give the memory that convolutions of these parts would read."""
        return {self._root(read) for part in parts for read in (part.node, *(part.up.reads if part.up else ()))}

    def _sure(self, condition):
        """Whether it holds; a graph of Dynamo is guarded by it, that of an exported program cannot be."""
        return guard_or_false(condition) if self.constants is None else statically_known_true(condition)

    def _parts_of(self, node):
        """Give the parts of a tensor if one of them is upsampled."""
        base, given = base_name(node), node.all_input_nodes
        known = [other for other in given if other in self.parts]
        parts = None
        if read.INTERPOLATIONS.match(base) and is_image(node):
            parts = self._interpolated(node, base)
        elif base in CONVOLUTIONS and is_image(node) and known[:1] == given[:1]:
            return self._convolution(node, base)
        elif base == "pixel_shuffle" and self.everything and is_image(node):
            return self._shuffle(node)
        elif base == "_assert_tensor_metadata" and known:
            self.removable.add(node)
            return None
        elif known and is_image(node):
            parts = self._passed(node, base) or self._hoisted(node, base) or self._joined(node, base)
            if parts:
                return parts
        for site in (site for other in known for site in _sites(self.parts[other])):
            site.readers.append("the output" if node.op == "output" else name_of(node) or str(node.target))
        return parts

    def _interpolated(self, node, base):
        """Read an interpolation."""
        if "_" not in base:
            x, _, factors, mode, align, _, antialias = arguments_of(node, **dict.fromkeys(read.INTERPOLATE))
            mode = mode or "nearest"
        else:
            mode = read.INTERPOLATIONS.match(base)[2]
            x, _, *rest = node.args
            align, antialias = mode[0] != "n" and rest.pop(0), base.endswith("_aa")
            factors = rest if rest and isinstance(rest[0], float) else (rest or [None])[0]  # some, or a list of them
        if not is_image(x) or ("_" in base and node.kwargs):
            return None
        sides = list(zip(value_of(node).shape[2:], value_of(x).shape[2:], strict=True))
        if factors is None:
            factors, given = [self._ratio(*side) for side in sides], f"size=({', '.join(str(a) for a, _ in sides)})"
        else:
            factors = [float(value_of(factor)) for factor in for_each_axis(factors, axes_of(node))]
            given = f"scale_factor={factors[0] if len(set(factors)) == 1 else tuple(factors)}"
        mode, scale, reason = mode.replace("_", "-"), None, ""
        try:
            if antialias or free_unbacked_symbols(value_of(node)):
                raise ValueError("antialias=True is another kernel" if antialias else "its size depends on data")
            scale = _interpolation.whole_scale(mode, align, factors, given, axes_of(node), "the upsampling")
        except ValueError as error:
            reason = str(error)
        enlarges = all(self._sure(a >= b) for a, b in sides) and any(self._sure(a > b) for a, b in sides)
        if enlarges and node not in self.sites:
            sizes = tuple(value_of(x).shape[2:]), tuple(value_of(node).shape[2:])
            self.sites[node] = (Site(node, f"{mode} upsampling, {given}", sizes),)
        up = _Up(node, x, mode, scale, reason, enlarges, self.sites.get(node, ()), (x,), lambda: x)
        return [_Part(node, (0, value_of(node).shape[1]), up)]

    def _ratio(self, large, small):
        if isinstance(large, int) and isinstance(small, int):
            return large / small
        likely = (2, 4, 3, 8, 1, 6, 5, 7, 16)
        return next((scale for scale in likely if self._sure(large == scale * small)), 0.0)

    def _passed(self, node, base):
        """Give the parts of what only hands its input on."""
        x, same = node.all_input_nodes[0], False
        if base in read.DROPOUTS:
            _, p, training = arguments_of(node, input=None, p=0.5, training=node.kwargs.get("train", True))
            same = training is False or value_of(p) == 0
        elif base == "detach":
            same = not value_of(x).requires_grad
        elif base in ("contiguous", "clone") or base in read.CASTS:
            same = value_of(x).dtype == value_of(node).dtype and value_of(x).device == value_of(node).device
        return self.parts.get(x) if same else None

    def _hoisted(self, node, base):
        """Do a pointwise function, normalisation or cat of nearest upsampled tensors on the small ones."""
        tensors, images = [other for other in node.all_input_nodes if read.is_tensor(other)], []
        if base in read.CATS and self._along_channels(node):
            images = tensors
        elif base in read.CHANNELWISE and (base != "batch_norm" or read.is_fixed_norm(node)):
            images = tensors[:1]
        elif base in read.POINTWISE:
            tensors = tensors[:1] if base in read.CASTS else tensors
            sizes = {o: value_of(o).shape[-axes_of(node) :] for o in tensors}
            images = [o for o in tensors if not all(isinstance(n, int) and n == 1 for n in sizes[o])]
        found = [self.parts.get(image, ()) for image in images]
        ups = [p[0].up for p in found if len(p) == 1 and p[0].up and not _is_padded(p[0])]
        alike = all(up.is_like(ups[0]) for up in ups) and {axes_of(image) for image in images} == {axes_of(node)}
        if not ups or len(ups) < len(images) or not alike:
            return None

        def emit():
            if node not in self.emitted:
                small = dict(zip(images, [up.emit() for up in ups], strict=True))
                target, args, kwargs = read.out_of_place(node, base)
                args, kwargs = (map_arg(value, lambda other: small.get(other, other)) for value in (args, kwargs))
                self.emitted[node] = self._emit(target, *args, **kwargs)
            return self.emitted[node]

        reads = [other for other in tensors if other not in images] + [read for up in ups for read in up.reads]
        sites = tuple(dict.fromkeys(site for up in ups for site in up.sites))
        up = ups[0]._replace(sites=sites, reads=tuple(reads), emit=emit)
        return [_Part(node, (0, value_of(node).shape[1]), up)]

    def _along_channels(self, node):
        _, dim = arguments_of(node, tensors=None, dim=node.kwargs.get("axis", 0))
        images = all(is_image(other) and axes_of(other) == axes_of(node) for other in node.all_input_nodes)
        return images and dim in (1, -axes_of(node) - 1)

    def _joined(self, node, base):
        """Give the parts of a cat, a sum or a pad."""
        parts, start, images = [], 0, [other for other in node.all_input_nodes if is_image(other)]
        if base in read.CATS and self._along_channels(node):
            for image in arguments_of(node, tensors=())[0]:
                size = value_of(image).shape[1]
                own = self.parts.get(image) or [_Part(image, (0, size))] * (not isinstance(size, int) or size > 0)
                parts += [part._replace(span=(start + part.span[0], start + part.span[1])) for part in own]
                start += size
        elif base == "add" and len(images) == len(node.args) == 2 and node.kwargs.get("alpha", 1) == 1:
            for image in images:
                sizes = list(zip(value_of(image).shape, value_of(node).shape, strict=False))
                if axes_of(image) != axes_of(node) or not all(self._sure(a == b) for a, b in sizes):
                    return None
                parts += self.parts.get(image) or [_Part(image, (0, value_of(image).shape[1]))]
        elif base == "pad":
            image, pad, mode, value = arguments_of(node, input=None, pad=None, mode="constant", value=None)
            mode, known = "zeros" if mode == "constant" else mode, all(isinstance(side, int) for side in pad)
            missing = 2 * axes_of(node) - len(pad)
            if not known or missing < 0 or missing % 2 or (value or 0) != 0 or (mode != "zeros" and min(pad) < 0):
                return None
            pad = (*pad, *(0,) * missing)
            return self._padded(self.parts[image], tuple(zip(pad[::2], pad[1::2], strict=True))[::-1], mode)
        return [part._replace(dtype=part.dtype or value_of(node).dtype) for part in parts]

    def _padded(self, parts, padding, mode):
        """Add padding to each part; None, with a reason, where it does not add up."""
        try:
            added = [_interpolation.padding_sum(padding, mode, part.padding, part.padding_mode) for part in parts]
        except ValueError as error:
            return self._refuse(parts, error)
        return [part._replace(padding=p, padding_mode=m) for part, (p, m) in zip(parts, added, strict=True)]

    def _refuse(self, parts, reason):
        """Note why convolutions of these parts are as they were."""
        for site in _sites(parts):
            site.reasons.append(str(reason))

    # What convolutions become

    def _convolution(self, node, base):
        """Fold a convolution into the parts that it reads, where one of them is upsampled."""
        x, bias, padding, conv = self._settings(node, base)
        parts = self.parts[x]
        reason = conv if isinstance(conv, str) else None
        if any(free_unbacked_symbols(value_of(part.node)) for part in parts):
            reason = UNKNOWN
        elif not reason and conv.groups > 1 and len(parts) > 1 and len({str(part.span) for part in parts}) > 1:
            reason = "a convolution with groups reads it together with other channels"
        elif self.everything and any(
            base_name(user) == "pixel_shuffle" and self._shuffled(user) for user in node.users
        ):
            reason = "a pixel shuffle reads its convolution"
        if reason:
            return self._refuse(parts, reason)
        parts = self._padded(parts, padding, "zeros") or []
        parts = [part._replace(span=tuple(map(int, part.span)) if conv.groups == 1 else (None,)) for part in parts]
        parts = [self._formed(part, conv) for part in parts]
        if self.compiled is not None and any(part.form for part in parts):
            parts = self._fastest(node, parts, conv)
        return self._replace(node, parts, conv, bias) if any(part.up for part in parts) else None

    def _fastest(self, node, parts, conv):
        """Choose the parts' forms by the rule."""
        shape, weight = value_of(node).shape, value_of(conv.weight)
        own, before = weight.numel() // math.prod(conv.kernel_size), math.prod((shape[0], *shape[2:]))
        formed = [part for part in parts if part.form]
        x, jumps, folded, least, pixels = value_of(formed[0].up.x), {}, 0, 0, 0
        for part in parts:
            share = own if part.span == (None,) else own * (part.span[1] - part.span[0]) // weight.shape[1]
            if part.form:
                sides = zip(conv.dilation, conv.kernel_size, part.form.axes, strict=True)
                image = value_of(part.up.x)
                image = image.shape[0] * math.prod(image.shape[2:])
                pixels += image
                folded += image * share * math.prod(d * (k - 1) + len(axis.taps) for d, k, axis in sides)
                least += image * share * math.prod(conv.kernel_size)
                with contextlib.suppress(ValueError):
                    settings = SimpleNamespace(**vars(conv), padding=part.padding, padding_mode=part.padding_mode)
                    jumps[part] = jump(part.up.mode, part.up.scale, settings)
            elif part.up is None:
                folded += before * share * math.prod(conv.kernel_size)
                least += before * share * math.prod(conv.kernel_size)
        kept = self._is_kept(conv.weight, self.graph.find_nodes(op="placeholder")) or self._is_frozen(conv.weight)
        rounds = torch.is_autocast_enabled(x.device.type) or any(given[2] for given in self.autocast)
        dtype = torch.get_autocast_dtype(x.device.type) if rounds else x.dtype
        inside = all(fits(value_of(part.up.x), weight, conv.groups, max(conv.dilation)) for part in formed)
        numbers = before * weight.numel(), folded, least if len(jumps) == len(formed) else 0, pixels
        # dynamic sizes are as this example has them
        macs, folded, least, pixels = (n if isinstance(n, int) else n.node.hint for n in numbers)
        fit = inside and not rounds
        work = Work(x.device, dtype, weight.shape[1], macs, folded, least, fit, self.compiled, kept, pixels)
        form, why = fastest(work)
        if form == "jump":
            return [part._replace(form=jumps.get(part)) for part in parts]
        if form == "fused":
            return [part._replace(form=part.form and _Fused(*part.form)) for part in parts]
        if form == "conv_transpose":
            return parts
        self._refuse(formed, why if form == "as it is" else f"{why}: use upconv.rewrite(model, 'subpixel')")
        return [part._replace(up=None, form=None) for part in parts]

    def _settings(self, node, base):
        """Read a convolution with stride 1, or a transposed one as such: input, bias, padding, settings or a reason."""
        axes, transposed = CONVOLUTIONS[base]
        names = dict(input=None, weight=None, bias=None, stride=1, padding=0)
        names |= dict(output_padding=0, groups=1, dilation=1) if transposed else dict(dilation=1, groups=1)
        given = dict(zip(names, arguments_of(node, **names), strict=True))
        x, weight, bias, padding, groups = (given[name] for name in "input weight bias padding groups".split())
        shape = tuple(value_of(weight).shape)
        stride, dilation, more = (
            for_each_axis(given.get(n, 0), axes) for n in ("stride", "dilation", "output_padding")
        )
        padding = padding if isinstance(padding, str) else for_each_axis(padding, axes)
        numbers = (*shape, groups, *stride, *dilation, *more, *(() if isinstance(padding, str) else padding))
        if not all(isinstance(number, int) for number in numbers) or axes_of(node) != axes:
            return x, bias, padding, UNKNOWN
        if set(stride) != {1}:
            return x, bias, padding, f"its convolution has stride={stride}"
        if self.constants is not None and self._constant(weight) is None:
            return x, bias, padding, "the weight of its convolution is no constant"
        conv = SimpleNamespace(kernel_size=shape[2:], dilation=dilation, groups=groups, weight=weight)
        conv.transposed = groups if transposed else None
        reach = [d * (k - 1) for d, k in zip(dilation, shape[2:], strict=True)]
        sides = _interpolation.padding_sides(padding, shape[2:], dilation)
        if transposed:
            sides = tuple((r - p, r - p + o) for r, p, o in zip(reach, padding, more, strict=True))
        return x, bias, sides, conv

    def _replace(self, node, parts, conv, bias):
        """Emit the convolutions of the parts in the place of the one of their sum."""
        self.conv, self.count, total = node, 0, None
        with self.graph.inserting_before(node):
            for part in parts:
                made = self._made(part, conv, bias if total is None else None, len(parts) == 1)
                total = made if total is None else self._emit(aten.add.Tensor, total, made)
            total = self._in_format(total, value_of(node))
        shape = value_of(node).shape
        before = math.prod((shape[0], *shape[2:])) * value_of(conv.weight).numel()
        self._report(parts, conv, (before, self.count))
        total.meta = dict(node.meta)
        node.replace_all_uses_with(total)
        self.alias[total] = self._root(node)
        self.graph.erase_node(node)
        if len(parts) == 1 and not parts[0].form:  # the same upsampling, later
            self.sites[made] = parts[0].up.sites
            self.parts[total] = [part._replace(node=total) for part in self._interpolated(made, base_name(made))]
            self.removable |= {made, total}

    def _shuffled(self, node):
        """Read a convolution and its pixel shuffle: input, bias, settings, form; None if they are not one layer."""
        conv, factor = arguments_of(node, input=None, upscale_factor=None)
        if CONVOLUTIONS.get(base_name(conv)) != (2, False) or len(conv.users) > 1:
            return None
        x, bias, padding, settings = self._settings(conv, base_name(conv))
        if isinstance(settings, str) or not self.changed.isdisjoint(map(self._root, conv.all_input_nodes)):
            return None
        own = dict(out_channels=value_of(conv).shape[1], padding_mode="zeros", padding=padding)
        try:
            form = _interpolation.shuffled((factor,) * 2, SimpleNamespace(**vars(settings), **own))
        except ValueError:
            return None
        return x, bias, settings, form

    def _shuffle(self, node):
        """Write a convolution and a pixel shuffle as one."""
        if (found := self._shuffled(node)) is None:
            return
        (x, bias, settings, form), [conv] = found, node.all_input_nodes
        sizes, factor = tuple(tuple(value_of(image).shape[2:]) for image in (conv, node)), form.scale[0]
        site = Site(node, f"pixel shuffle, upscale_factor={factor}", sizes)
        self.sites[node] = (site,)
        with self.graph.inserting_before(node):
            self.conv, self.count = node, 0
            made = self._made(_Part(x, (None,), form=form), settings, None)
            if bias is not None:  # each phase has its own: of one, in the middle of each block, it makes that pattern
                ones = made
                for dim, *ends in ((1, 0, 1, 1), (2, 0, sys.maxsize, factor), (3, 0, sys.maxsize, factor)):
                    ones = self._emit(aten.slice.Tensor, ones, dim, *ends)
                ones = self._emit(aten.full_like.default, ones, 1)
                bias = self._emit(aten.reshape.default, bias, [1, -1, factor, factor])
                bias = self._emit(aten.conv_transpose2d.input, ones, bias, None, [factor] * 2)
                made = self._emit(aten.add.Tensor, made, bias)
            made = self._in_format(made, value_of(node))
        site.became.append(f"ConvTranspose2d {'x'.join(str(factor * k) for k in form.extents)}, stride {factor}")
        made.meta = dict(node.meta)
        node.replace_all_uses_with(made)
        self.alias[made] = self._root(node)
        self.graph.erase_node(node)
        self.removable.add(conv)

    def _alone(self):
        """Write each upsampling that is left as a transposed convolution with a group for each channel."""
        for node in [node for node in self.graph.nodes if read.INTERPOLATIONS.match(base_name(node))]:
            [part] = (is_image(node) and self._interpolated(node, base_name(node))) or [_Part(node, ())]
            up, value = part.up, value_of(node)
            if up is None or not up.enlarges:
                continue
            channels, self.autocast = value.shape[1], self.casts.get(node, [])
            rounds = torch.is_autocast_enabled(value.device.type) or any(given[2] for given in self.autocast)
            reason = "its channels are not fixed" if not isinstance(channels, int) else up.reason
            if rounds or not value.is_floating_point():
                reason = "a convolution would round it, under autocast or of whole numbers"
            if reason:
                for site in up.sites:
                    site.reasons.append(reason)
                continue
            ones, none = (1,) * axes_of(node), ((0, 0),) * axes_of(node)
            conv = SimpleNamespace(kernel_size=ones, dilation=ones, groups=channels, padding=none, padding_mode="zeros")
            weight = torch.ones(channels, 1, *ones, dtype=torch.float64, device=value.device)
            conv.weight, conv.transposed, self.conv, self.count = weight, None, node, 0
            part = _Part(up.x, (None,), up, form=_interpolation.fold(up.mode, up.scale, conv))
            with self.graph.inserting_before(node):
                made = self._in_format(self._made(part, conv, None), value)
            self._report([part], conv, None)
            made.meta = dict(node.meta)
            node.replace_all_uses_with(made)
            self.graph.erase_node(node)

    def _formed(self, part, conv):
        """Choose the form of a part, or make it an ordinary one, with a reason."""
        up = part.up
        if up is None or (up.enlarges and set(conv.kernel_size) == {1} and not _is_padded(part)):
            return part
        try:
            if set(up.scale or (1,)) == {1}:
                raise ValueError(up.reason or "the scale is 1: there is nothing to upsample")
            settings = SimpleNamespace(**vars(conv), padding=part.padding, padding_mode=part.padding_mode)
            return part._replace(form=_interpolation.fold(up.mode, up.scale, settings))
        except ValueError as error:
            self._refuse([part], str(error))
        return part._replace(up=None)

    def _made(self, part, conv, bias, single=False):
        """Emit the convolution of a part; `single` if it is the whole."""
        kernel = self._kernel(conv.weight, part.span, part.form, conv.transposed)
        x, ones = part.up.emit() if part.up else part.node, [1] * len(conv.kernel_size)
        x = self._emit(aten.to.dtype, x, part.dtype) if part.dtype not in (None, value_of(x).dtype) else x
        if part.form:
            for pad in part.form.pads:
                x = self._pad(x, pad.padding, _interpolation.PADS[type(pad)])
            self.count += value_of(x)[:, 0].numel() * value_of(kernel).numel()
            if isinstance(part.form, Jump):
                return self._emit(_Jumps(part.form), x, kernel, bias)
            stride, padding, output_padding = map(list, part.form.settings.values())
            args = x, kernel, bias, stride, padding, output_padding, conv.groups, ones
            crop = [-side for axis in reversed(part.form.crop) for side in axis]
            if isinstance(part.form, _Fused):
                return self._pad(self._fused(x, *args[1:6], single and not any(crop)), crop)
            operation = getattr(aten, f"conv_transpose{len(ones)}d")
            operation = getattr(operation, operation.overloads()[0])
            return self._pad(self._emit(operation, *args), crop)
        padding = [before for before, _ in part.padding]
        if part.padding_mode != "zeros" or any(before != after or before < 0 for before, after in part.padding):
            x = self._pad(x, [side for axis in reversed(part.padding) for side in axis], part.padding_mode)
            padding = [0] * len(ones)
        operation = getattr(aten, f"conv{len(ones)}d").default
        y = self._emit(operation, x, kernel, bias, ones, padding, list(conv.dilation), conv.groups)
        self.count += value_of(y).numel() * value_of(kernel)[0].numel()
        if part.up:
            node = part.up.node
            args, kwargs = (
                map_arg(v, lambda other: y if other is part.up.x else other) for v in (node.args, node.kwargs)
            )
            return self._emit(node.target, *args, **kwargs, value=_layers.like_format(value_of(self.conv), value_of(y)))
        return y

    def _fused(self, x, kernel, bias, stride, padding, output_padding, single):
        """Emit the kernel of `upconv.kernel`, and with it a ReLU that alone reads the convolution."""
        from upconv.kernel import empty_result  # noqa: PLC0415 - it needs triton

        [relu, *others] = self.conv.users or [None]
        joined = single and not others and relu is not None and base_name(relu) in ("relu", "relu_")
        if joined:
            relu.replace_all_uses_with(self.conv)
            self.graph.erase_node(relu)
        value = empty_result(value_of(x), value_of(kernel), stride, padding, output_padding)
        operation, activation = torch.ops.upconv.conv_transpose2d.default, "relu" if joined else "none"
        return self._emit(operation, x, kernel, bias, stride, padding, output_padding, activation, value=value)

    def _emit(self, target, *args, value=None, **kwargs):
        if isinstance(target, nn.Module):
            name = f"upconv_step_{len(self.graph.nodes)}"
            self.gm.add_module(name, target)
            node = self.graph.call_module(name, args, kwargs)
        else:
            node = self.graph.call_function(target, args, kwargs)
        node.meta = {key: value for key, value in self.conv.meta.items() if key not in ("example_value", "val")}
        if value is None:
            with contextlib.ExitStack() as stack:
                for given in self.autocast:
                    stack.enter_context(torch.autocast(*given))
                value = target(*map_arg(args, value_of), **map_arg(kwargs, value_of))
        node.meta["example_value" if self.constants is None else "val"] = value
        return node

    def _in_format(self, node, like):
        """Emit what gives a result the memory format of another."""
        formats = torch.contiguous_format, _layers.LAST.get(like.dim(), torch.contiguous_format)
        wanted = next((own for own in formats if like.is_contiguous(memory_format=own)), None)
        if wanted is None or value_of(node).is_contiguous(memory_format=wanted):
            return node
        return self._emit(aten.contiguous.default, node, memory_format=wanted)

    def _pad(self, x, sides, mode="zeros"):
        """Emit a pad, (before, after) for each axis from the last on; negative sides crop."""
        last = value_of(x).dim() - 1
        axes = [(last - i, *both) for i, both in enumerate(zip(sides[::2], sides[1::2], strict=True))]
        for dim, before, after in axes:
            if min(before, after) < 0:
                x = self._emit(aten.slice.Tensor, x, dim, max(0, -before), after if after < 0 else sys.maxsize)
        sides = [max(0, side) for side in sides]
        if mode != "replicate" or self.constants is not None or not torch.is_grad_enabled():
            mode = "constant" if mode == "zeros" else mode
            return self._emit(aten.pad.default, x, sides, mode) if any(sides) else x
        for dim, before, after in axes:  # inductor 2.13 fails in the backward pass of that pad
            first, last = (self._emit(aten.slice.Tensor, x, dim, *ends) for ends in ((0, 1), (-1, sys.maxsize)))
            x = self._emit(aten.cat.default, [first] * before + [x] + [last] * after, dim)
        return x

    def _kernel(self, weight, span, form, transposed):
        """Give the node of a kernel: of one that is kept where that can be, otherwise composed in the graph."""
        if form is None and transposed is None and span in ((None,), (0, value_of(weight).shape[1])):
            return weight
        if isinstance(weight, torch.Tensor):
            return self._fixed(form.kernel(weight).to(value_of(self.conv).dtype))
        settings = span, form, transposed
        composed, exported = _Composed(*settings), self.constants is not None
        if (weight, *settings) in self.made:
            return self.made[weight, *settings]
        inputs = self.graph.find_nodes(op="placeholder")
        if exported:
            with self.graph.inserting_before(inputs[0]), torch.no_grad():
                node = self.graph.placeholder(f"kernel_{len(self.kernels)}")
                self.kernels[node.name] = weight.name, composed(self._constant(weight))
        elif self._is_kept(weight, inputs):
            position = inputs.index(weight)
            self.kernels.append(Kernel(position, settings, self.inputs[position]))
            name = f"upconv_kernel_{len(self.kernels)}"
            self.gm.register_buffer(name, self.kernels[-1].kernel, persistent=False)
            node = self.graph.get_attr(name)
        else:
            name = f"upconv_composed_{len(self.graph.nodes)}"
            self.gm.add_module(name, composed)
            node = self.graph.call_module(name, (weight,))
        node.meta["val" if exported else "example_value"] = composed(value_of(weight))
        if exported or node.op == "get_attr":
            self.made[weight, *settings] = node
        return node

    def _fixed(self, kernel):
        """Give the node of a kernel that nothing changes."""
        if self.constants is None:
            name = f"upconv_fixed_{len(self.graph.nodes)}"
            self.gm.register_buffer(name, kernel, persistent=False)
            node = self.graph.get_attr(name)
        else:
            with self.graph.inserting_before(self.graph.find_nodes(op="placeholder")[0]):
                node = self.graph.placeholder(f"kernel_{len(self.kernels)}")
            self.kernels[node.name] = None, kernel
        mode = getattr(value_of(self.conv), "fake_mode", None)
        node.meta["example_value" if self.constants is None else "val"] = (
            mode.from_tensor(kernel, static_shapes=True) if mode else kernel
        )
        return node

    def _is_kept(self, weight, inputs):
        """Whether a kernel can be composed outside of the graph: of an input that needs no gradient, and stays."""
        if self.inputs is None or weight not in inputs or self._root(weight) in self.changed:
            return False
        given = self.inputs[inputs.index(weight)]
        return type(given) in (torch.Tensor, nn.Parameter) and not (torch.is_grad_enabled() and given.requires_grad)

    def _is_frozen(self, weight):
        """Whether inductor will compute what the graph composes of a weight, and keep that."""
        if weight.op != "get_attr" or not self.compiled or torch.is_grad_enabled():
            return False
        return importlib.import_module("torch._inductor.config").freezing

    def _constant(self, node):
        """Compute what depends on an exported program's weights alone, always alike; None for what does not."""
        if self._root(node) in self.changed or torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            return None
        if node.op == "placeholder":
            return self.constants.get(node.name)
        parts = {other: self._constant(other) for other in node.all_input_nodes}
        if node.op != "call_function" or any(value is None for value in parts.values()):
            return None
        with torch.no_grad():
            return node.target(*map_arg(node.args, parts.get), **map_arg(node.kwargs, parts.get))

    def _clean(self):
        """Take away what nothing reads any more; what changes a tensor in place, only with all that see the change."""
        gone, before = set(self.removable), None
        while gone != before:
            before, shared = gone, {}
            for node in self.graph.nodes:
                shared.setdefault(self._root(node), set()).add(node)
            gone = {
                node
                for node in gone
                if gone.issuperset(node.users) and (not changed_by(node) or gone.issuperset(shared[self._root(node)]))
            }
        for node in reversed(list(self.graph.nodes)):
            if node in gone:
                self.graph.erase_node(node)

    def _report(self, parts, conv, counts):
        """Tell the sites what became of a convolution; what belongs to no upsampling goes with the first."""
        other = "channels" if len({part.span for part in parts}) > 1 else "summand"
        axes = len(conv.kernel_size)
        rest = f" + Conv{axes}d of the other {other}" * any(part.up is None for part in parts)
        for part in (part for part in parts if part.up):
            text = f"Conv{axes}d {'x'.join('1' * axes)} before the upsampling"
            if isinstance(part.form, Jump):
                text = f"jump form of Conv{axes}d {'x'.join(map(str, conv.kernel_size))}"
            elif part.form:
                sides, scale = zip(conv.dilation, conv.kernel_size, part.form.axes, strict=True), part.form.scale
                size = "x".join(str(d * (k - 1) + len(axis.taps)) for d, k, axis in sides)
                text = f"ConvTranspose{axes}d {size}, stride {scale[0] if len(set(scale)) == 1 else scale}"
                text += ", in one kernel" * isinstance(part.form, _Fused)
            for site in part.up.sites:
                site.became.append(text + rest)
            part.up.sites[0].macs += [counts] if counts and all(isinstance(count, int) for count in counts) else []
            rest, counts = "", None
