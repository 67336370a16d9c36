"""Which form of an upsampling is the fastest? A rule of a few lines, from what the book measures (chapter 08b)."""

from __future__ import annotations

import copy
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import nn

__all__ = ["FORMS", "FusedConvTranspose2d", "Work", "fastest"]

FORMS = ("as it is", "conv_transpose", "subpixel", "jump", "fused")
HALF = (torch.float16, torch.bfloat16)
HAS_TRITON = find_spec("triton") is not None


class Work(NamedTuple):
    """A call of an upsampling and its convolution, or of a transposed one, as far as the rule looks at it."""

    device: torch.device
    dtype: torch.dtype
    in_channels: int
    macs: int  # multiply-accumulates of the call as it is
    folded: int  # as one transposed convolution
    jump: int  # in the jump form; 0 if there is none
    fits: bool  # whether the kernel can do it
    compiled: bool  # by inductor, which makes one loop of sums; eager, each is a pass over memory
    kept: bool = True  # whether the kernel is composed once, and not at each call, as in training
    pixels: int = 2**31  # that a call reads, with those of the whole batch
    transposed: bool = False  # whether it is one transposed convolution as it is


def fastest(work: Work) -> tuple[str, str]:
    """Choose a form by the rule.

    The first that holds decides:

    1. On AMD's GPUs, whose transposed convolution is slow: "subpixel".
    2. On NVIDIA's, in float16 and bfloat16, compiled: "fused". (Called from Python it is the fastest on the GPU, but
       starts so late that it wins for the largest layers alone.)
    3. "as it is", if it is one transposed convolution; if folding saves no multiplications; or, where the kernel is
       composed at each call, if the call reads fewer than 256 pixels.
    4. "jump", if it needs at most 2/3 of the folded multiplications, in float32 on a CPU: compiled from 256 input
       channels on; eager from 512 on, and 0.1 GMAC.
    5. Otherwise "conv_transpose".

    Parameters
    ----------
    work : Work

    Returns
    -------
    str
        One of `FORMS`.
    str
        Why.
    """
    saved = work.folded / max(1, work.macs)
    least = 256 if work.compiled else 512
    few = work.kept and 0 < 3 * work.jump <= 2 * work.folded
    few = few and work.in_channels >= least and (work.compiled or work.macs >= 1e8)
    jumps = few and work.device.type == "cpu" and work.dtype == torch.float32
    dear = not work.kept and work.pixels < 256
    rule = (
        (work.device.type == "cuda" and torch.version.hip, "subpixel", "an AMD GPU's transposed convolution is slow"),
        (work.fits and work.compiled, "fused", "one kernel of its own, in half precision"),
        (work.transposed, "as it is", "it is one transposed convolution already"),
        (saved >= 1, "as it is", f"folded, it would need {saved:.2f} times the multiplications"),
        (dear, "as it is", f"of {work.pixels} pixels, composing the kernel at each call costs more than it saves"),
        (jumps, "jump", f"{work.jump / max(1, work.macs):.2f} of the multiplications, of {least} channels and more"),
        (True, "conv_transpose", f"{saved:.2f} of the multiplications"),
    )
    return next((form, why) for holds, form, why in rule if holds)


def fits(x: torch.Tensor, weight: torch.Tensor, groups: int = 1, dilation: int = 1) -> bool:
    """Say whether the kernel of `upconv.kernel` is for a transposed convolution, by what it reads.

    It is in float16 and bfloat16 on an NVIDIA GPU with triton, for images, one group and no dilation.
    """
    if not x.is_cuda or x.dtype not in HALF or x.dtype != weight.dtype or torch.version.hip or not HAS_TRITON:
        return False
    return x.dim() == 4 and groups == dilation == 1


class FusedConvTranspose2d(nn.ConvTranspose2d):
    """A ConvTranspose2d of one group and no dilation, which one kernel computes where it `fits`, and PyTorch elsewhere.

    Its state is a ConvTranspose2d's; exported and under autocast, it is one.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H_out, W_out)."""
        # (PyTorch 2.8 takes everything that Dynamo compiles for an export)
        exporting = torch.compiler.is_exporting() and not torch.compiler.is_dynamo_compiling()
        plain = exporting or torch.is_autocast_enabled("cuda")
        if plain or not fits(input, self.weight):
            return super().forward(input)
        from upconv.kernel import conv_transpose2d  # noqa: PLC0415 - it needs triton

        settings = list(self.stride), list(self.padding), list(self.output_padding)
        return conv_transpose2d(input, self.weight, self.bias, *settings, "none")


def fused(module: nn.Module) -> nn.Module:
    """Give a copy of a module with a `FusedConvTranspose2d` for each ConvTranspose2d in it."""
    module = copy.deepcopy(module)
    for layer in module.modules():
        if type(layer) is nn.ConvTranspose2d:
            layer.__class__ = FusedConvTranspose2d
            taps_first = layer.weight.data.permute(2, 3, 0, 1).contiguous()  # as the kernel reads them
            layer.weight.data = taps_first.permute(2, 3, 0, 1)
    return module
