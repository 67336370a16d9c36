"""What the rewrites share: reading a layer, the kernel of an interpolation, building a layer. Not for users."""

import copy
from collections import OrderedDict
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn.utils import parametrize, skip_init

__all__ = [
    "Guard",
    "assembled",
    "convolved",
    "crop_layer",
    "expect",
    "interpolation",
    "made",
    "nearest_repeats_evenly",
    "pad_layer",
    "plain",
    "spread",
    "swapped_channels",
    "working_copy",
]


class Guard:
    """A forward pre-hook: refuses inputs that the original pair would treat otherwise."""

    def __init__(self, size):
        self.size = size

    def __call__(self, module, inputs, named):
        shape = (*inputs, *named.values())[0].shape
        if len(shape) != 4:
            why = ""
            if len(shape) == 3:
                why = (
                    ": without a batch axis Upsample reads it as (N, C, L) and scales the width alone; use unsqueeze(0)"
                )
            raise ValueError(f"the input has the shape {tuple(shape)} and must have (N, C, H, W){why}")
        if self.size and tuple(shape[2:]) != self.size:
            raise ValueError(
                f"the input has {tuple(shape[2:])} pixels, and this module was made for input_size={self.size}, since "
                f"its Upsample was given a size instead of a scale_factor"
            )


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
    foreign = [hook for hook in hooks if not isinstance(hook, Guard)]
    if foreign:
        raise ValueError(
            f"{name} has forward hooks ({type(foreign[0]).__name__}), which a rewrite would lose; remove them first "
            f"(torch.nn.utils has remove_weight_norm and remove_spectral_norm; parametrizations need no removing)"
        )


def plain(layer):
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
    moved = []
    for position, tap in enumerate(taps):
        sides = [0, 0] * (kernel.dim() - 1 - dim) + [position, len(taps) - 1 - position]
        moved.append(nn.functional.pad(kernel * tap if tap != 1 else kernel, sides))
    return sum(moved[1:], start=moved[0])


def swapped_channels(kernel, groups):
    """Turn Conv2d's layout (out, in / groups, kh, kw) into ConvTranspose2d's (in, out / groups, kh, kw), or back."""
    return kernel.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)


def made(kind, weight, bias, like, **settings):
    """Make a layer with these values and the dtype, device and flags of another, drawing no random numbers."""
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


def assembled(steps, like, guard=None):
    """Put the steps that are not None into one module with a layer's train/eval flag."""
    steps = OrderedDict((name, step) for name, step in steps.items() if step is not None)
    module = steps["conv_transpose"] if list(steps) == ["conv_transpose"] else nn.Sequential(steps)
    module.train(like.training)
    for hook in [guard] if guard else like._forward_pre_hooks.values():
        module.register_forward_pre_hook(hook, with_kwargs=True)
    return module


# Interpolations


def nearest_repeats_evenly(mode, scale):
    """PyTorch's own index computation, in float32, for the first 64 input pixels."""
    position = torch.arange(64 * scale, device="cpu")
    shift = 0.5 if mode == "nearest-exact" else 0.0
    index = ((position.float() + shift) * torch.tensor(1 / scale, dtype=torch.float32, device="cpu")).floor()
    return torch.equal(index.long(), position // scale)


def interpolation(mode, scale):
    """Taps of the interpolation, the position of pixel 0's first copy in them, and how far it looks beyond a pixel."""
    if mode.startswith("nearest") or scale == 1:
        return [1.0] * scale, 0, 0
    if mode == "bilinear":
        length, offset, radius = 2 * scale - scale % 2, scale // 2, 1
    else:
        length, offset, radius = 4 * scale - scale % 2, scale + scale // 2, 2
    distances = [abs((position - offset + 0.5) / scale - 0.5) for position in range(length)]
    return [1 - distance if mode == "bilinear" else _cubic(distance) for distance in distances], offset, radius


def _cubic(distance):
    """Cubic convolution with a = -0.75, as in PyTorch."""
    if distance <= 1:
        return (1.25 * distance - 2.25) * distance**2 + 1
    return -0.75 * (((distance - 5) * distance + 8) * distance - 4)
