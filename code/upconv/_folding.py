"""Folding a captured graph: from operation to operation a tensor is known as a sum of parts. Not for users.

The parts are small tensors, upsampled, and others. A stride-1 convolution is taken of each: conv(x + y) is conv(x) +
conv(y), conv(cat) a sum over slices of the weight, conv(pad(x)) a convolution with more padding, conv(nearest(x)) one
transposed convolution; f(nearest(x)) is nearest(f(x)) for a pointwise f, and a 1x1 convolution goes before any
interpolation.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import fx, nn
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols, guard_or_false, statically_known_true
from torch.fx.node import map_arg
from torch.multiprocessing.reductions import StorageWeakRef

from upconv import _interpolation, _layers
from upconv import _reading as read
from upconv._reading import arguments_of, base_name, changed_by, is_image, name_of, value_of
from upconv.arithmetic import both_axes

__all__ = ["Folding", "Kernel", "Site"]

aten = torch.ops.aten
NO_PADDING = ((0, 0), (0, 0))


def _composed(weight, span, form):
    """Compose the kernel of some channels of a weight by `form`; without one it is these channels."""
    part = weight[:, slice(*span)]
    if form is None:
        return _layers.like_format(part, weight)
    training = torch.is_grad_enabled() and weight.requires_grad
    wide = part.to(torch.promote_types(part.dtype, torch.float32)) if training else _layers.working_copy(part)
    return _layers.like_format(form.kernel(wide).to(weight.dtype), weight)


class _Composed(nn.Module):
    """Composes a kernel in the graph."""

    def __init__(self, *settings):
        super().__init__()
        self.settings = settings

    def forward(self, weight):
        return _composed(weight, *self.settings)


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
        self.what, self.sizes = what, sizes  # (H, W) of its input and of its output
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
    padding: tuple = NO_PADDING
    padding_mode: str = "zeros"
    dtype: torch.dtype | None = None  # that a cat or a sum makes of it
    form: object = None  # with `up`, in a convolution: its fold, or None for a 1x1 convolution before it


def _sites(parts):
    return dict.fromkeys(site for part in parts if part.up for site in part.up.sites)


class Folding:
    """The pass over one graph, from operation to operation."""

    def __init__(self, gm, inputs=None, constants=None):
        """Give the example inputs of a graph that Dynamo captured, or the constants of an exported one by name."""
        self.gm, self.graph, self.inputs, self.constants = gm, gm.graph, inputs, constants
        self.kernels = [] if constants is None else {}  # by name: of which weight, and the values
        self.parts, self.sites, self.made, self.emitted = {}, {}, {}, {}
        self.alias, self.removable, self.autocast = {}, set(), []

    def run(self):
        if any("functorch" in str(getattr(node.target, "__module__", "")) for node in self.graph.nodes):
            return []  # inside torch.func's transforms values are not what the graph says
        self._share()
        for node in list(self.graph.nodes):
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
            if parts:
                self.parts[node] = parts
                self.removable.add(node)
        self._clean()
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
        elif base == "conv2d" and is_image(node) and known[:1] == given[:1]:
            return self._convolution(node)
        elif base == "_assert_tensor_metadata" and known:
            self.removable.add(node)
            return None
        elif known and is_image(node):
            parts = self._passed(node, base) or self._hoisted(node, base) or self._joined(node, base)
            if parts or base == "conv2d":
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
            mode = next(name for name in ("nearest_exact", "nearest", "bilinear", "bicubic") if name in base)
            x, _, *rest = node.args
            align, antialias = mode[0] == "b" and rest.pop(0), base.endswith("_aa")
            factors = rest if rest and isinstance(rest[0], float) else (rest or [None])[0]  # two, or a list of two
        if not is_image(x) or ("_" in base and node.kwargs):
            return None
        sides = list(zip(value_of(node).shape[2:], value_of(x).shape[2:], strict=True))
        if factors is None:
            factors, given = [self._ratio(*side) for side in sides], f"size=({', '.join(str(a) for a, _ in sides)})"
        else:
            factors = [float(value_of(factor)) for factor in both_axes(factors)]
            given = f"scale_factor={factors[0] if len(set(factors)) == 1 else tuple(factors)}"
        mode, scale, reason = mode.replace("_", "-"), None, ""
        try:
            if antialias or free_unbacked_symbols(value_of(node)):
                raise ValueError("antialias=True is another kernel" if antialias else "its size depends on data")
            scale = _interpolation.whole_scale(mode, align, factors, given, "the upsampling")
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
            images = [o for o in tensors if not all(isinstance(n, int) and n == 1 for n in value_of(o).shape[-2:])]
        found = [self.parts.get(image, ()) for image in images]
        ups = [p[0].up for p in found if len(p) == 1 and p[0].up and p[0].padding == NO_PADDING]
        if not ups or len(ups) < len(images) or not all(up.is_like(ups[0]) for up in ups):
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
        return dim in (1, -3) and all(is_image(other) for other in node.all_input_nodes)

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
                if not all(
                    self._sure(a == b) for a, b in zip(value_of(image).shape, value_of(node).shape, strict=True)
                ):
                    return None
                parts += self.parts.get(image) or [_Part(image, (0, value_of(image).shape[1]))]
        elif base == "pad":
            image, pad, mode, value = arguments_of(node, input=None, pad=None, mode="constant", value=None)
            mode, known = "zeros" if mode == "constant" else mode, all(isinstance(side, int) for side in pad)
            if not known or len(pad) not in (2, 4) or (value or 0) != 0 or (mode != "zeros" and min(pad) < 0):
                return None
            left, right, top, bottom = (*pad, 0, 0)[:4]
            return self._padded(self.parts[image], ((top, bottom), (left, right)), mode)
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

    def _convolution(self, node):
        """Fold a convolution into the parts that it reads, where one of them is upsampled."""
        names = dict(input=None, weight=None, bias=None, stride=1, padding=0, dilation=1, groups=1)
        x, weight, bias, stride, padding, dilation, groups = arguments_of(node, **names)
        (stride, dilation), shape = map(both_axes, (stride, dilation)), tuple(value_of(weight).shape)
        padding = padding if isinstance(padding, str) else both_axes(padding)
        parts, reason = self.parts[x], None
        numbers = (*shape, groups, *stride, *dilation, *(() if isinstance(padding, str) else padding))
        if not all(isinstance(n, int) for n in numbers) or any(free_unbacked_symbols(value_of(p.node)) for p in parts):
            reason = "its convolution's settings or sizes are not fixed"
        elif stride != (1, 1):
            reason = f"its convolution has stride={stride}"
        elif groups > 1 and len(parts) > 1 and len({str(part.span) for part in parts}) > 1:
            reason = "a convolution with groups reads it together with other channels"
        elif self.constants is not None and self._constant(weight) is None:
            reason = "the weight of its convolution is no constant"
        if reason:
            return self._refuse(parts, reason)
        conv = SimpleNamespace(kernel_size=shape[2:], dilation=dilation, groups=groups, weight=weight)
        parts = self._padded(parts, _interpolation.padding_sides(padding, shape[2:], dilation), "zeros") or []
        parts = [part._replace(span=tuple(map(int, part.span)) if groups == 1 else (None,)) for part in parts]
        parts = [self._formed(part, conv) for part in parts]
        return self._replace(node, parts, conv, bias) if any(part.up for part in parts) else None

    def _replace(self, node, parts, conv, bias):
        """Emit the convolutions of the parts in the place of the one of their sum."""
        self.conv, self.count, total = node, 0, None
        with self.graph.inserting_before(node):
            for part in parts:
                made = self._made(part, conv, bias if total is None else None)
                total = made if total is None else self._emit(aten.add.Tensor, total, made)
            total = self._in_format(total, value_of(node))
        self._report(parts, conv, (value_of(node).numel() * value_of(conv.weight)[0].numel(), self.count))
        total.meta = dict(node.meta)
        node.replace_all_uses_with(total)
        self.alias[total] = self._root(node)
        self.graph.erase_node(node)
        if len(parts) == 1 and not parts[0].form:  # the same upsampling, later
            self.sites[made] = parts[0].up.sites
            self.parts[total] = [part._replace(node=total) for part in self._interpolated(made, base_name(made))]
            self.removable |= {made, total}

    def _formed(self, part, conv):
        """Choose the form of a part, or make it an ordinary one, with a reason."""
        up = part.up
        if up is None or (up.enlarges and conv.kernel_size == (1, 1) and part.padding == NO_PADDING):
            return part
        try:
            if up.scale in (None, (1, 1)):
                raise ValueError(up.reason or "the scale is 1: there is nothing to upsample")
            settings = SimpleNamespace(**vars(conv), padding=part.padding, padding_mode=part.padding_mode)
            return part._replace(form=_interpolation.fold(up.mode, up.scale, settings))
        except ValueError as error:
            self._refuse([part], str(error))
        return part._replace(up=None)

    def _made(self, part, conv, bias):
        """Emit the convolution of a part."""
        kernel, x = self._kernel(conv.weight, part.span, part.form), part.up.emit() if part.up else part.node
        x = self._emit(aten.to.dtype, x, part.dtype) if part.dtype not in (None, value_of(x).dtype) else x
        if part.form:
            for pad in part.form.pads:
                x = self._pad(x, pad.padding, _interpolation.PADS[type(pad)])
            stride, padding, output_padding = map(list, part.form.settings.values())
            args = x, kernel, bias, stride, padding, output_padding, conv.groups, [1, 1]
            self.count += value_of(x).numel() * value_of(kernel)[0].numel()
            crop = [-side for axis in reversed(part.form.crop) for side in axis]
            return self._pad(self._emit(aten.conv_transpose2d.input, *args), crop)
        padding = [before for before, _ in part.padding]
        if part.padding_mode != "zeros" or any(before != after or before < 0 for before, after in part.padding):
            x, padding = self._pad(x, [*part.padding[1], *part.padding[0]], part.padding_mode), [0, 0]
        y = self._emit(aten.conv2d.default, x, kernel, bias, [1, 1], padding, list(conv.dilation), conv.groups)
        self.count += value_of(y).numel() * value_of(kernel)[0].numel()
        if part.up:
            node = part.up.node
            args, kwargs = (
                map_arg(v, lambda other: y if other is part.up.x else other) for v in (node.args, node.kwargs)
            )
            return self._emit(node.target, *args, **kwargs, value=_layers.like_format(value_of(self.conv), value_of(y)))
        return y

    def _emit(self, target, *args, value=None, **kwargs):
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
        formats = torch.contiguous_format, torch.channels_last
        wanted = next((own for own in formats if like.is_contiguous(memory_format=own)), None)
        if wanted is None or value_of(node).is_contiguous(memory_format=wanted):
            return node
        return self._emit(aten.contiguous.default, node, memory_format=wanted)

    def _pad(self, x, sides, mode="zeros"):
        """Emit a pad, (left, right, top, bottom); negative sides crop."""
        axes = [(3, *sides[:2]), (2, *sides[2:])]
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

    def _kernel(self, weight, span, form):
        """Give the node of a kernel: of one that is kept where that can be, otherwise composed in the graph."""
        if form is None and span in ((None,), (0, value_of(weight).shape[1])):
            return weight
        composed, exported = _Composed(span, form), self.constants is not None
        if (weight, span, form) in self.made:
            return self.made[weight, span, form]
        inputs = self.graph.find_nodes(op="placeholder")
        if exported:
            with self.graph.inserting_before(inputs[0]), torch.no_grad():
                node = self.graph.placeholder(f"kernel_{len(self.kernels)}")
                self.kernels[node.name] = weight.name, composed(self._constant(weight))
        elif self._is_kept(weight, inputs):
            position = inputs.index(weight)
            self.kernels.append(Kernel(position, (span, form), self.inputs[position]))
            name = f"upconv_kernel_{len(self.kernels)}"
            self.gm.register_buffer(name, self.kernels[-1].kernel, persistent=False)
            node = self.graph.get_attr(name)
        else:
            name = f"upconv_composed_{len(self.graph.nodes)}"
            self.gm.add_module(name, composed)
            node = self.graph.call_module(name, (weight,))
        node.meta["val" if exported else "example_value"] = composed(value_of(weight))
        if exported or node.op == "get_attr":
            self.made[weight, span, form] = node
        return node

    def _is_kept(self, weight, inputs):
        """Whether a kernel can be composed outside of the graph: of an input that needs no gradient, and stays."""
        if self.inputs is None or weight not in inputs or self._root(weight) in self.changed:
            return False
        given = self.inputs[inputs.index(weight)]
        return type(given) in (torch.Tensor, nn.Parameter) and not (torch.is_grad_enabled() and given.requires_grad)

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
        rest = f" + Conv2d of the other {other}" * any(part.up is None for part in parts)
        for part in (part for part in parts if part.up):
            text = "Conv2d 1x1 before the upsampling"
            if part.form:
                axes, scale = zip(conv.dilation, conv.kernel_size, part.form.axes, strict=True), part.form.scale
                size = "x".join(str(d * (k - 1) + len(axis.taps)) for d, k, axis in axes)
                text = f"ConvTranspose2d {size}, stride {scale[0] if len(set(scale)) == 1 else scale}"
            for site in part.up.sites:
                site.became.append(text + rest)
            part.up.sites[0].macs += [counts] if counts and all(isinstance(count, int) for count in counts) else []
            rest, counts = "", None
