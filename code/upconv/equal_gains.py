"""Between the two layers: a transposed convolution that keeps flat inputs flat, whatever its weights become.

Nearest `Upsample` + `Conv2d` keeps every image that is constant along one axis constant along it, and so has kernels
that a training might want and cannot have. Here only what a checkerboard is made of is taken from the transposed
convolution: the differences between the gains of its phases. Its cost and its form are the plain layer's.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter

import torch
from torch import nn
from torch.nn.utils import parametrize

from upconv._layers import CONV_TRANSPOSES, ConvTranspose, expect, like_format

__all__ = ["equal_gains"]


def equal_gains(layer: ConvTranspose) -> ConvTranspose:
    """Give all phases of a transposed convolution the same gain, now and while it is trained.

    The weight becomes a parametrization, as in `torch.nn.utils.parametrizations`: what is trained, stored and loaded is
    `parametrizations.weight.original`, and `weight` is its orthogonal projection, computed in every forward pass.

    Parameters
    ----------
    layer : torch.nn.ConvTranspose1d, ConvTranspose2d or ConvTranspose3d
        With any stride, dilation, padding and groups, new or trained. It is changed in place; the bias stays as it is.

    Returns
    -------
    torch.nn.ConvTranspose1d, ConvTranspose2d or ConvTranspose3d
        The layer itself. Until it is trained on, its weight is the nearest one, in the sum of squares, of all whose
        `phase_gains` are equal for each pair of channels, and what is assigned to `weight` is projected likewise.
        `remove_parametrizations(layer, "weight")`, of `torch.nn.utils.parametrize`, leaves a layer like any other.

    Raises
    ------
    TypeError
        If `layer` is no ConvTranspose1d, 2d or 3d, or one with a forward of its own.
    ValueError
        If a phase has no tap, as where the kernel is smaller than the stride or stride and dilation have a common
        factor: its gain is 0 whatever the weights, and all gains would have to be. Or if the layer has hooks or no
        weights yet.

    See Also
    --------
    upconv.phases.phase_gains : What becomes equal.
    upconv.projection.is_upsample_conv : Whether a kernel is that of nearest Upsample and a convolution, which is less.

    Notes
    -----
    With kernel sizes k and strides s these kernels have prod(k) - (prod(s) - 1) dimensions for each pair of channels:
    13 of 16 for 4 x 4 taps with stride 2, where Upsample + Conv2d has 9. On one axis they are its kernels. That a
    constant stays constant if, and only if, the gains are equal is known of filter banks: Harada, Muramatsu and Kiya
    1998; of these layers: Sugawara, Shiota and Kiya 2019. The projection, and training inside it, are the book's.

    Under plain SGD the training is projected gradient descent. The zeros that a frame of padding adds stay visible at
    the border, as after any convolution.

    Examples
    --------
    >>> layer = equal_gains(nn.ConvTranspose2d(8, 4, kernel_size=4, stride=2, padding=1))
    >>> from upconv import phase_gains
    >>> gains = phase_gains(layer.weight, layer.stride)
    >>> torch.allclose(gains, gains[..., :1, :1].expand_as(gains), atol=1e-6)
    True
    >>> parametrize.remove_parametrizations(layer, "weight")
    ConvTranspose2d(8, 4, kernel_size=(4, 4), stride=(2, 2), padding=(1, 1))
    """
    expect(layer, CONV_TRANSPOSES, "layer")
    for size, stride, dilation in zip(layer.kernel_size, layer.stride, layer.dilation, strict=True):
        reached = min(size, stride // math.gcd(stride, dilation))
        if reached < stride:
            raise ValueError(
                f"kernel_size={size}, stride={stride}, dilation={dilation}: taps reach {reached} of {stride} phases, "
                f"and a phase without a tap has gain 0 whatever the weights; take a kernel_size of at least the stride "
                f"and a dilation that has no common factor with it"
            )
    # Tap a lies in phase (a * dilation) % stride. With no common factor that names the classes a % stride anew.
    projection = _EqualGains(layer.kernel_size, layer.stride, layer.weight.device)
    parametrize.register_parametrization(layer, "weight", projection)
    return layer


class _EqualGains(nn.Module):
    """The orthogonal projection of a kernel (in, out / groups, *kernel_size) onto those with equal gains.

    It is linear, so it is a matrix of taps x taps. Its entries are whole numbers over one denominator and are kept as
    such, since what is of floating point a cast of the model to half precision would round for good.
    """

    def __init__(self, kernel_size, stride, device=None):
        super().__init__()
        self.kernel_size, self.stride = tuple(kernel_size), tuple(stride)
        taps = itertools.product(*map(range, kernel_size))
        phases = [tuple(a % s for a, s in zip(tap, stride, strict=True)) for tap in taps]
        counts = Counter(phases)  # n_r
        least = math.lcm(*counts.values())
        total = sum(least // n for n in counts.values())
        # Tap a gets (c - g_r) / n_r, where c is the mean of the gains with the weights 1 / n_r.
        self.denominator, shares = least * total, [least // counts[r] for r in phases]
        rows = [
            [share * other - (r == q) * share * total for other, q in zip(shares, phases, strict=True)]
            for share, r in zip(shares, phases, strict=True)
        ]
        for tap, row in enumerate(rows):
            row[tap] += self.denominator
        self.register_buffer("projection", torch.tensor(rows, device=device))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Add to the taps of each phase what brings its gain to the common one, the same to each."""
        matrix = (self.projection.double() / self.denominator).to(weight.dtype)
        return like_format((weight.flatten(2) @ matrix).view(weight.shape), weight)

    def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
        """Give what is stored of an assigned weight: its projection, which is its own."""
        return self(weight)

    def extra_repr(self):
        return f"kernel_size={self.kernel_size}, stride={self.stride}"
