"""Tools for the decoders of PyTorch models: `nn.Upsample` + `nn.Conv2d`, or `nn.ConvTranspose2d`?

What a reader of the book takes home. It needs torch alone; what only the book's experiments need is in `upconv.book`.
"""

from upconv.arithmetic import (
    ConvTransposeSetting,
    conv_matrix,
    conv_output_size,
    conv_transpose_output_size,
    output_padding_for,
    overlap_counts,
    solve_conv_transpose,
)
from upconv.audit import audit, flat_response
from upconv.cost import macs, parameters
from upconv.equal_gains import equal_gains
from upconv.explorer import explore
from upconv.fold import upsample_conv_to_jump
from upconv.graph import backend, fold_exported
from upconv.init import bilinear_, icnr_
from upconv.layers import (
    conv_transpose_to_subpixel,
    pixel_shuffle_to_conv_transpose,
    upsample_conv_to_conv_transpose,
    upsample_conv_to_subpixel,
    upsample_to_conv_transpose,
)
from upconv.models import rewrite
from upconv.phases import checkerboard_energy, phase_gains, radial_spectrum
from upconv.projection import conv_transpose_to_upsample_conv, is_upsample_conv

__all__ = [
    "ConvTransposeSetting",
    "audit",
    "backend",
    "bilinear_",
    "checkerboard_energy",
    "conv_matrix",
    "conv_output_size",
    "conv_transpose_output_size",
    "conv_transpose_to_subpixel",
    "conv_transpose_to_upsample_conv",
    "equal_gains",
    "explore",
    "flat_response",
    "fold_exported",
    "icnr_",
    "is_upsample_conv",
    "macs",
    "output_padding_for",
    "overlap_counts",
    "parameters",
    "phase_gains",
    "pixel_shuffle_to_conv_transpose",
    "radial_spectrum",
    "rewrite",
    "solve_conv_transpose",
    "upsample_conv_to_conv_transpose",
    "upsample_conv_to_jump",
    "upsample_conv_to_subpixel",
    "upsample_to_conv_transpose",
]
