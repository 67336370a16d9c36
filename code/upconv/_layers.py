"""What the rewrites share: reading a layer, its kernel, building a layer. Not for users."""

from __future__ import annotations

import copy
from collections import OrderedDict
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn.utils import parametrize, skip_init

__all__ = [
    "InputSize",
    "assembled",
    "convolved",
    "crop_layer",
    "eval_settings",
    "expect",
    "like_format",
    "new_layer",
    "pad_layer",
    "spread",
    "swapped_channels",
    "working_copy",
]


class InputSize(nn.Module):
    """Gives its input, and refuses one of another size: what comes after it holds for one size alone."""

    def __init__(self, *size: int):
        super().__init__()
        self.size = list(size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Take and give (N, C, H, W)."""
        for axis, pixels in enumerate(self.size):
            torch._assert(
                x.shape[2 + axis] == pixels,
                "the input has another size than the input_size that this module was made for, since its Upsample was "
                "given a size instead of a scale_factor",
            )
        return x

    def extra_repr(self):
        return ", ".join(map(str, self.size))


def expect(layer, kind, name):
    """Refuse what is not such a layer, or does more than the layer's settings and weights say."""
    if not isinstance(layer, kind):
        raise TypeError(f"{name} must be a torch.nn.{kind.__name__}, not {type(layer).__name__}")
    methods = ("forward", "_conv_forward", "_output_padding")
    if "forward" in vars(layer) or any(getattr(type(layer), m, None) is not getattr(kind, m, None) for m in methods):
        raise TypeError(f"{name} is a {type(layer).__name__} with a forward of its own, which a rewrite would lose")
    if isinstance(layer._parameters.get("weight"), nn.parameter.UninitializedParameter):
        raise ValueError(f"{name} is a {type(layer).__name__} without weights yet: run it on an input first")
    kept = (layer._forward_pre_hooks, layer._forward_hooks, layer._backward_pre_hooks, layer._backward_hooks)
    hooks = [hook for hooks in kept for hook in hooks.values()]
    if hooks:
        raise ValueError(
            f"{name} has forward hooks ({type(hooks[0]).__name__}), which a rewrite would lose; remove them first "
            f"(torch.nn.utils has remove_weight_norm and remove_spectral_norm; parametrizations need no removing)"
        )


def eval_settings(layer):
    """Give a layer's settings and its weights as in eval mode; a parametrization runs once, on a copy."""
    source = copy.deepcopy(layer).eval() if parametrize.is_parametrized(layer) else layer
    with torch.enable_grad():  # a parametrized weight says only then whether it is trained
        return SimpleNamespace(**{**vars(layer), "weight": source.weight, "bias": source.bias})


def working_copy(weight):
    """Give the values in float64 (complex128), without their gradient."""
    return weight.detach().to(torch.promote_types(weight.dtype, torch.float64))


def spread(kernel, dilation):
    """Insert dilation - 1 zeros between the taps."""
    if tuple(dilation) == (1, 1):
        return kernel
    kh, kw = ((size - 1) * d + 1 for size, d in zip(kernel.shape[2:], dilation, strict=True))
    result = kernel.new_zeros(*kernel.shape[:2], kh, kw)
    result[:, :, :: dilation[0], :: dilation[1]] = kernel
    return result


def convolved(kernel, dim, taps):
    """Convolve a kernel with taps along one of its axes, as polynomials are multiplied."""
    last = len(taps) - 1
    zeros = kernel.new_zeros([last if axis == dim else size for axis, size in enumerate(kernel.shape)])
    moved = []
    for place, tap in enumerate(taps):  # torch.cat is faster than a pad, backwards above all
        sides = zeros.narrow(dim, 0, place), zeros.narrow(dim, 0, last - place)
        moved.append(torch.cat([sides[0], kernel * tap if tap != 1 else kernel, sides[1]], dim))
    return sum(moved[1:], start=moved[0])


def swapped_channels(kernel, groups):
    """Turn Conv2d's layout (out, in / groups, kh, kw) into ConvTranspose2d's (in, out / groups, kh, kw), or back."""
    return kernel.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)


def like_format(tensor, like):
    """Give the tensor in the memory format of another: channels_last if that is, otherwise contiguous."""
    last = torch.channels_last
    is_last = like.dim() == 4 and like.is_contiguous(memory_format=last) and not like.is_contiguous()
    return tensor.contiguous(memory_format=last if is_last else torch.contiguous_format)


def new_layer(kind, weight, bias, like, **settings):
    """Make a layer with these values and another's dtype, device, memory format and flags, drawing no random number."""
    layer = skip_init(
        kind,
        like.in_channels,
        like.groups * weight.shape[1] if kind is nn.ConvTranspose2d else weight.shape[0],
        tuple(weight.shape[2:]),
        groups=like.groups,
        bias=bias is not None,
        device=like.weight.device,
        dtype=like.weight.dtype,
        **settings,
    )
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.weight.data = like_format(layer.weight, like.weight)
        layer.weight.requires_grad_(like.weight.requires_grad)
        if bias is not None:
            layer.bias.copy_(bias)
            layer.bias.requires_grad_(like.bias.requires_grad)
    return layer


def pad_layer(kind, height, width):
    """Make a padding layer of a kind; None where there is nothing to pad."""
    return kind((*width, *height)) if any((*width, *height)) else None


def crop_layer(height, width):
    """Make a layer that removes pixels from each side; None where there are none."""
    return pad_layer(nn.ZeroPad2d, *(tuple(-side for side in axis) for axis in (height, width)))


def assembled(steps, like):
    """Put the steps that are not None into one module with a layer's train/eval flag."""
    steps = OrderedDict((name, step) for name, step in steps.items() if step is not None)
    module = steps["conv_transpose"] if list(steps) == ["conv_transpose"] else nn.Sequential(steps)
    return module.train(like.training)
