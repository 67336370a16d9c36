"""What a transposed convolution does phase by phase: its gain on flat input.

The output pixels of a layer with stride s fall into s phases along each axis, by their position modulo s; each phase
has taps of its own, and on a constant image its output is their sum.
"""

import torch

from upconv.arithmetic import checked_setting

__all__ = ["phase_gains"]


def phase_gains(weight, stride):
    """Sum the taps of each phase: the gain of a transposed convolution on a constant input, for each of its phases.

    Parameters
    ----------
    weight : torch.Tensor, shape (in_channels, out_channels / groups, kernel height, kernel width)
        In ConvTranspose2d's layout. With dilation > 1, the kernel with its gaps filled by zeros.
    stride : int or (int, int)
        At least 1; a pair is (height, width).

    Returns
    -------
    torch.Tensor, shape (in_channels, out_channels / groups, stride height, stride width)
        Entry [i, o, r, q] is `weight[i, o, r::stride_h, q::stride_w].sum()`: what the output pixels at rows r and
        columns q modulo the stride (before the crop by padding) show of a constant 1 in channel i, away from the
        border. A phase that no tap reaches has gain 0. Same dtype and device as the weight, and differentiable.

    Raises
    ------
    TypeError
        If `weight` is not a tensor, or `stride` not an int or a pair of ints.
    ValueError
        If `weight` does not have 4 dimensions, or a stride is below 1.

    Notes
    -----
    The condition that all gains are equal is that of Sugawara, Shiota and Kiya 2019, "Checkerboard artifacts free
    convolutional neural networks" (APSIPA Transactions on Signal and Information Processing).

    Examples
    --------
    >>> phase_gains(torch.ones(1, 1, 3, 3), stride=2)
    tensor([[[[4., 2.],
              [2., 1.]]]])
    """
    if not isinstance(weight, torch.Tensor):
        raise TypeError(
            f"weight must be a torch.Tensor of shape (in, out / groups, kh, kw), not {type(weight).__name__}"
        )
    if weight.dim() != 4:
        raise ValueError(f"weight must have the shape (in, out / groups, kh, kw), not {tuple(weight.shape)}")
    stride = checked_setting("stride", stride)
    sh, sw = stride if isinstance(stride, tuple) else (stride, stride)
    rows = [weight[:, :, r::sh].sum(dim=2, dtype=weight.dtype) for r in range(sh)]  # each (in, out / groups, kw)
    return torch.stack(
        [torch.stack([row[..., q::sw].sum(dim=-1, dtype=weight.dtype) for q in range(sw)], dim=-1) for row in rows],
        dim=2,
    )
