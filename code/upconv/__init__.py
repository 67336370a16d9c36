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

__all__ = [
    "ConvTransposeSetting",
    "conv_matrix",
    "conv_output_size",
    "conv_transpose_output_size",
    "output_padding_for",
    "overlap_counts",
    "solve_conv_transpose",
]
