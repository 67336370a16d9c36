"""Upsampled tensors that wait for the operation that needs them, so that a convolution can use the small one instead.

Inside `LazyUpsampling` and without gradients, `F.interpolate` gives an `Upsampled`: a tensor with a shape but without
values. Padding and concatenating it keeps it so; a convolution with stride 1 is computed from the small tensor by one
transposed convolution; every other operation gets the values that PyTorch would have computed. So a model's meaning
stays what it is, whatever its Python code does. Where that could not be seen to (gradients, inference mode without its
version counters, autocast, torch.func's transforms), nothing waits. Not for users: `upconv.convert` is.
"""

import functools
import weakref
from types import SimpleNamespace

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from upconv.rewrites import check_nearest, composite

__all__ = ["LazyUpsampling", "Upsampled"]

_T = torch.Tensor
_ABOUT_SHAPE = {
    *(getattr(_T, name).__get__ for name in ("shape", "dtype", "device", "ndim", "layout", "is_cuda", "requires_grad")),
    *(_T.size, _T.dim, _T.ndimension, _T.numel, _T.nelement, _T.is_floating_point, _T.is_complex, _T.__len__),
    *(torch.numel, torch.is_floating_point, torch.is_complex),
}
_PURE = {F.interpolate, torch.conv2d, F.conv2d, F.conv_transpose2d, F.pad, torch.cat, torch.concat, torch.concatenate}


class _Part:
    """Some channels of an `Upsampled`: an upsampled tensor, or one that is there already."""

    def __init__(self, x, scale=None, arguments=None, site=None):
        self.x, self.scale, self.arguments, self.site = x, scale, arguments, site
        self.version = x._version

    @property
    def channels(self):
        return self.x.shape[1]

    def checked(self):
        if self.x._version != self.version:
            raise RuntimeError(
                "a tensor was changed in place after it had been upsampled or concatenated, in a way that the "
                "rewritten model did not see; use the original model"
            )
        return self.x

    def values(self):
        x = self.checked()
        return x if self.scale is None else F.interpolate(x, **self.arguments)


class Upsampled(torch.Tensor):
    """The concatenation of parts, padded."""

    @staticmethod
    def __new__(cls, parts, alive, padding=((0, 0), (0, 0)), padding_mode="zeros"):
        """Make one from parts of equal sizes; padding is ((top, bottom), (left, right)); `alive` lists all by id."""
        first = parts[0]
        size = [n * s for n, s in zip(first.x.shape[2:], first.scale or (1, 1), strict=True)]
        size = [n + sum(pad) for n, pad in zip(size, padding, strict=True)]
        shape = (first.x.shape[0], sum(part.channels for part in parts), *size)
        self = torch.Tensor._make_wrapper_subclass(cls, shape, dtype=first.x.dtype, device=first.x.device)
        self.parts, self.padding, self.padding_mode, self.made = parts, padding, padding_mode, None
        self.alive = alive
        alive[id(self)] = self
        return self

    @torch.no_grad()
    def values(self, why=None):
        """Compute it as PyTorch would; `why` is the operation that asks."""
        if self.made is None:
            for part in self.parts:
                if part.site is not None and why is not None:
                    part.site.note_reason(f"its values are needed by {why}")
            values = [part.values() for part in self.parts]
            made = values[0] if len(values) == 1 else torch.cat(values, dim=1)
            if any(map(any, self.padding)):
                mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
                made = F.pad(made, (*self.padding[1], *self.padding[0]), mode=mode)
            self.made = made
        return self.made

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        """Keep it lazy where that is possible; otherwise call the operation with the values."""
        kwargs = kwargs or {}
        if func in _ABOUT_SHAPE and all(value.made is None for value in args if isinstance(value, cls)):
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        if func in _HANDLERS and _may_wait():
            result = _HANDLERS[func](*args, **kwargs)
            if result is not None:
                return result
        name = getattr(func, "__name__", str(func))
        args, kwargs = tree_map(lambda value: value.values(name) if isinstance(value, cls) else value, (args, kwargs))
        return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        """Serve what reaches PyTorch's core unseen, such as a custom autograd function."""
        args, kwargs = tree_map(
            lambda value: value.values(str(func)) if isinstance(value, cls) else value, (args, kwargs or {})
        )
        return func(*args, **kwargs)


class LazyUpsampling(TorchFunctionMode):
    """Make `F.interpolate` lazy where a convolution could use the small tensor.

    Parameters
    ----------
    watch : callable, optional
        Called with every upsampling (see `upconv.convert`), for a report; gives the site to note things down at.
    waits : bool
        With False nothing waits, and upsamplings are only watched.
    """

    def __init__(self, watch=None, waits=True):
        super().__init__()
        self.watch, self.waits = watch, waits
        self.alive = weakref.WeakValueDictionary()  # by id: tensors are not compared

    def finish(self):
        """Compute what still waits, at the end of the run: what it was made of may change from now on."""
        for lazy in list(self.alive.values()):
            lazy.values()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """See every operation before PyTorch does."""
        kwargs = kwargs or {}
        if func is F.interpolate:
            lazy = self._interpolate(*args, **kwargs)
            if lazy is not None:
                return lazy
        elif self.alive and (func not in _PURE or "out" in kwargs) and func not in _ABOUT_SHAPE:
            self._save_from_changes(args, kwargs)
        return func(*args, **kwargs)

    def _interpolate(self, input, size=None, scale_factor=None, mode="nearest", align_corners=None, *others, **more):
        arguments = dict(size=size, scale_factor=scale_factor, mode=mode, align_corners=align_corners)
        names = ("recompute_scale_factor", "antialias")
        arguments |= dict(zip(names, others, strict=False)) | more
        site = self.watch(input, arguments) if self.watch else None
        if not self.waits or not _may_wait(input):
            return None
        try:
            scale = _whole_scale(input, arguments)
        except ValueError as error:
            if site is not None:
                site.note_reason(str(error))
            return None
        if isinstance(input, Upsampled):
            input = input.values("another upsampling")
        return Upsampled([_Part(input, scale, arguments, site)], self.alive)

    def _save_from_changes(self, args, kwargs):
        """Compute what waits for the values of a tensor, before an operation that might change it in place."""
        given = set()

        def note(value):
            value = value.made if isinstance(value, Upsampled) else value
            if isinstance(value, torch.Tensor):
                given.add(_storage(value))
            return value

        tree_map(note, (args, kwargs))
        for lazy in list(self.alive.values()):
            if lazy.made is None and (None in given or not given.isdisjoint(_storage(part.x) for part in lazy.parts)):
                lazy.values()


def _storage(tensor):
    """Name a tensor's memory; None if it is not of the kind that has one."""
    try:
        return tensor.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):
        return None


def _may_wait(x=None):
    """Whether nothing can happen to a tensor unseen, and no gradient is asked for."""
    device = "cpu" if x is None else x.device.type
    return not (
        torch.is_grad_enabled()
        or torch.is_inference_mode_enabled()
        or (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device))
        or (x is not None and (x.is_inference() or torch._C._functorch.is_functorch_wrapped_tensor(x)))
        or (x is not None and type(x) is not Upsampled and _storage(x) is None)
    )


def _whole_scale(input, arguments):
    """Give the (H, W) scale of an interpolation that is the same at every pixel; otherwise say why not (ValueError)."""
    mode = arguments["mode"]
    if input.dim() != 4:
        raise ValueError(f"{input.dim() - 2}-D upsampling is not supported: only images of shape (N, C, H, W) are")
    if mode not in ("nearest", "nearest-exact", "bilinear", "bicubic"):
        raise ValueError(f'mode="{mode}" is not supported')
    if arguments["align_corners"] or arguments.get("antialias"):
        option = "align_corners=True" if arguments["align_corners"] else "antialias=True"
        raise ValueError(f"with {option} the weights change from pixel to pixel, or are others")
    size, factor = arguments["size"], arguments["scale_factor"]
    if (size is None) == (factor is None):
        raise ValueError("size or scale_factor must be given, not both")
    given = size if factor is None else factor
    given = given if isinstance(given, (tuple, list, torch.Size)) else (given, given)
    if len(given) != 2 or 0 in input.shape:
        raise ValueError(f"size or scale_factor has {len(given)} values" if len(given) != 2 else "the input is empty")
    scale = [value / n for value, n in zip(given, input.shape[2:], strict=True)] if factor is None else given
    if not input.is_floating_point() or any(float(s) < 1 or not float(s).is_integer() for s in scale):
        raise ValueError(f"the scale {tuple(float(round(float(s), 3)) for s in scale)} is not whole")
    scale = tuple(int(s) for s in scale)
    if scale == (1, 1):
        raise ValueError("the scale is 1: there is nothing to upsample")
    _checked_nearest(mode, scale)
    return scale


@functools.lru_cache
def _checked_nearest(mode, scale):
    check_nearest(mode, scale)


# What keeps an Upsampled lazy. A handler that gives None leaves the operation to PyTorch.


def _pad(input, pad, mode="constant", value=None):
    waits = isinstance(input, Upsampled) and input.made is None and not any(map(any, input.padding))
    if not waits or len(pad) not in (2, 4):
        return None
    mode = "zeros" if mode == "constant" else mode
    if value not in (None, 0) or (mode != "zeros" and min(pad) < 0):
        return None
    pad = [*pad, *[0] * (4 - len(pad))]
    return Upsampled(input.parts, input.alive, ((pad[2], pad[3]), (pad[0], pad[1])), mode)


def _cat(tensors, dim=0, *, axis=None, out=None):
    dim = dim if axis is None else axis
    if out is not None or dim not in (1, -3):
        return None
    parts, alive = [], None
    for tensor in tensors:
        waits = isinstance(tensor, Upsampled) and tensor.made is None
        if not waits:
            there = tensor.made if isinstance(tensor, Upsampled) else tensor
            if there.dim() != 4 or there.is_inference() or _storage(there) is None:
                return None
            parts.append(_Part(there))
        elif any(map(any, tensor.padding)):
            return None
        else:
            parts += tensor.parts
            alive = tensor.alive
    alike = {(part.x.dtype, part.x.device, part.x.shape[0], *_size(part)) for part in parts}
    return Upsampled(parts, alive) if alive is not None and len(alike) == 1 else None


def _size(part):
    return [n * s for n, s in zip(part.x.shape[2:], part.scale or (1, 1), strict=True)]


def _dropout(input, p=0.5, training=True, inplace=False):
    return None if training or not 0 <= p <= 1 else input


def _conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Convolve the small tensors, part by part, and add up."""
    sites = [part.site for part in getattr(input, "parts", []) if part.site is not None]
    try:
        if not isinstance(input, Upsampled) or isinstance(weight, Upsampled):
            return None
        if _pair(stride) != (1, 1):
            raise ValueError(f"its convolution has stride={stride}")
        if groups > 1 and len(input.parts) > 1:
            raise ValueError("a convolution with groups reads it together with other channels")
        if input.made is not None or not _fits(input, weight, groups):
            return None
        for part in input.parts:
            part.checked()
        conv = _settings(input, weight, padding, dilation, groups)
        steps = [_step(part, conv, weights) for part, weights in zip(input.parts, _split(input, weight), strict=True)]
    except ValueError as error:
        for site in sites:
            site.note_reason(str(error))
        return None
    result = None
    for step in steps:
        output = step(bias if result is None else None)
        result = output if result is None else result + output
    for site in sites:
        site.note_conv(input, weight, bias, stride, padding, dilation, groups, steps, result)
    return result


def _fits(input, weight, groups):
    """Whether PyTorch would convolve the two; otherwise its own error is the best."""
    alike = weight.dim() == 4 and weight.dtype == input.dtype and weight.device == input.device
    return alike and weight.shape[1] * groups == input.shape[1]


def _settings(input, weight, padding, dilation, groups):
    kernel_size, dilation = tuple(weight.shape[2:]), _pair(dilation)
    if padding == "same":
        reach = [d * (k - 1) for d, k in zip(dilation, kernel_size, strict=True)]
        own = [(r // 2, r - r // 2) for r in reach]
    else:
        own = [(p, p) for p in ((0, 0) if padding == "valid" else _pair(padding))]
    zeros = input.padding_mode == "zeros"
    if not zeros and any(map(any, own)):
        raise ValueError(f"{input.padding_mode} padding is followed by a convolution with padding of zeros")
    for sides in zip(own, input.padding, strict=True):
        if any(p and crop < 0 for p, crop in zip(*sides, strict=True)):
            raise ValueError("it is cropped before a convolution that pads with zeros")
    padding = [(a + c, b + d) for (a, b), (c, d) in zip(own, input.padding, strict=True)]
    return SimpleNamespace(
        kernel_size=kernel_size,
        dilation=dilation,
        groups=groups,
        padding=padding,
        padding_mode=input.padding_mode,
        alive=input.alive,
    )


def _split(input, weight):
    return weight.split([part.channels for part in input.parts], dim=1) if len(input.parts) > 1 else [weight]


def _step(part, conv, weight):
    """Give the call that convolves one part, and say as `became` what it is."""
    if part.scale is None:
        return _plain_step(part, conv, weight)
    pointwise = conv.kernel_size == (1, 1) and not any(map(any, conv.padding))
    mode = part.arguments["mode"]
    if pointwise:

        def run(bias):
            small = F.conv2d(part.x, weight, bias, groups=conv.groups)
            return Upsampled([_Part(small, part.scale, part.arguments)], conv.alive)

        run.became, run.macs = "Conv2d 1x1 before the upsampling", part.x[:, 0].numel() * weight.numel()
        return run
    exact = torch.float64 if weight.dtype in (torch.float16, torch.bfloat16, torch.float32) else weight.dtype
    pads, kernel, settings, crop = composite(mode, part.scale, conv, weight.to(exact))
    kernel = kernel.to(weight.dtype)

    def run(bias):
        x = part.x
        for pad in pads:
            x = pad(x)
        output = F.conv_transpose2d(x, kernel, bias, groups=conv.groups, **settings)
        return output if crop is None else crop(output)

    size = "x".join(map(str, kernel.shape[2:]))
    run.became = f"ConvTranspose2d {size}, stride {part.scale[0] if len(set(part.scale)) == 1 else part.scale}"
    run.macs = part.x[:, 0].numel() * kernel.numel()
    return run


def _plain_step(part, conv, weight):
    def run(bias):
        x, mode = part.x, "constant" if conv.padding_mode == "zeros" else conv.padding_mode
        if any(map(any, conv.padding)):
            x = F.pad(x, (*conv.padding[1], *conv.padding[0]), mode=mode)
        return F.conv2d(x, weight, bias, dilation=conv.dilation, groups=conv.groups)

    height, width = (
        n + sum(pad) - d * (k - 1)
        for n, pad, d, k in zip(part.x.shape[2:], conv.padding, conv.dilation, conv.kernel_size, strict=True)
    )
    run.became, run.macs = "Conv2d of the other channels", part.x.shape[0] * height * width * weight.numel()
    return run


def _pair(value):
    value = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return value * 2 if len(value) == 1 else value


_HANDLERS = {
    F.pad: _pad,
    torch.cat: _cat,
    torch.concat: _cat,
    torch.concatenate: _cat,
    F.dropout: _dropout,
    F.dropout2d: _dropout,
    torch.conv2d: _conv2d,
}
