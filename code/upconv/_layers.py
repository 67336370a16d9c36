"""What the rewrites share: reading a layer, its kernel, building a layer. Not for users."""

from __future__ import annotations

import copy
from collections import OrderedDict
from types import SimpleNamespace
from typing import TypeAlias

import torch
from torch import nn
from torch.nn.utils import parametrize, skip_init

__all__ = [
    "CONVS",
    "CONV_TRANSPOSES",
    "LAST",
    "Conv",
    "ConvTranspose",
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


Conv: TypeAlias = "nn.Conv1d | nn.Conv2d | nn.Conv3d"
ConvTranspose: TypeAlias = "nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d"
CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)  # by the number of their axes, less 1
CONV_TRANSPOSES = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LAST = {4: torch.channels_last, 5: torch.channels_last_3d}  # the memory format, by the number of dimensions


class InputSize(nn.Module):
    """Gives its input, and refuses one of another size: what comes after it holds for one size alone."""

    def __init__(self, *size: int):
        super().__init__()
        self.size = list(size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Take and give (N, C, *size)."""
        for axis, pixels in enumerate(self.size):
            torch._assert(
                x.shape[2 + axis] == pixels,
                "the input has another size than the input_size that this module was made for, since its Upsample was "
                "given a size instead of a scale_factor",
            )
        return x

    def extra_repr(self):
        return ", ".join(map(str, self.size))


def expect(layer, kinds, name):
    """Refuse what is no such layer, or does more than the layer's settings and weights say."""
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    kind = next((kind for kind in kinds if isinstance(layer, kind)), None)
    if kind is None:
        names = list(dict.fromkeys(f"torch.nn.{kind.__name__}" for kind in kinds))
        wanted = " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
        raise TypeError(f"{name} must be a {wanted}, not {type(layer).__name__}")
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
    if set(dilation) == {1}:
        return kernel
    sizes = [(size - 1) * d + 1 for size, d in zip(kernel.shape[2:], dilation, strict=True)]
    result = kernel.new_zeros(*kernel.shape[:2], *sizes)
    result[(..., *(slice(None, None, d) for d in dilation))] = kernel
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
    """Turn a convolution's layout (out, in / groups, ...) into a transposed one's (in, out / groups, ...), or back."""
    return kernel.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)


def like_format(tensor, like):
    """Give the tensor in the memory format of another: channels_last if that is, otherwise contiguous."""
    if like.dim() not in LAST or like.is_contiguous() or not like.movedim(1, -1).is_contiguous():
        return tensor.contiguous()
    return tensor.movedim(1, -1).contiguous().movedim(-1, 1)  # torch.vmap knows no memory_format but the contiguous


def new_layer(kind, weight, bias, like, **settings):
    """Make a layer with these values and another's dtype, device, memory format and flags, drawing no random number."""
    layer = skip_init(
        kind,
        like.in_channels,
        like.groups * weight.shape[1] if kind in CONV_TRANSPOSES else weight.shape[0],
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


def pad_layer(kind, axes):
    """Make a padding layer, kind "Zero", "Replication", ...; None where there is nothing to pad."""
    sides = [side for axis in reversed(axes) for side in axis]
    return getattr(nn, f"{kind}Pad{len(axes)}d")(tuple(sides)) if any(sides) else None


def crop_layer(axes):
    """Make a layer that removes pixels from each side; None where there are none."""
    return pad_layer("Zero", [tuple(-side for side in axis) for axis in axes])


def assembled(steps, like):
    """Put the steps that are not None into one module with a layer's train/eval flag."""
    steps = OrderedDict((name, step) for name, step in steps.items() if step is not None)
    module = steps["conv_transpose"] if list(steps) == ["conv_transpose"] else nn.Sequential(steps)
    return module.train(like.training)
