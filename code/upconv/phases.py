"""What happens phase by phase: the gains of a transposed convolution, and the pattern that images carry.

The output pixels of a layer with stride s fall into s phases along each axis, by their position modulo s; each phase
has taps of its own, and on a constant image its output is their sum. Where phases differ in their mean, an image has a
checkerboard; how much of its energy that is, `checkerboard_energy` measures.
"""

from __future__ import annotations

import math

import torch

from upconv.arithmetic import Int, Ints, both_axes, checked_setting

__all__ = ["checkerboard_energy", "phase_gains", "radial_spectrum"]

PERIODS = 16  # of the pattern across a window


def phase_gains(weight: torch.Tensor, stride: Ints) -> torch.Tensor:
    """Sum the taps of each phase: the gain of a transposed convolution on a constant input, for each of its phases.

    Parameters
    ----------
    weight : torch.Tensor, shape (in_channels, out_channels / groups, kernel height, kernel width)
        In ConvTranspose2d's layout. With dilation > 1, the kernel with its gaps filled by zeros.
    stride : int or (int, int)
        At least 1; two are (height, width).

    Returns
    -------
    torch.Tensor, shape (in_channels, out_channels / groups, stride height, stride width)
        Entry [i, o, r, q] is `weight[i, o, r::stride_h, q::stride_w].sum()`: what the output pixels at rows r and
        columns q modulo the stride (before the crop by padding) show of a constant 1 in channel i, away from the
        border. A phase that no tap reaches has gain 0. Same dtype and device as the weight, and differentiable.

    Raises
    ------
    TypeError
        If `weight` is not a tensor, or `stride` not an int or two ints.
    ValueError
        If `weight` does not have 4 dimensions, or a stride is below 1.

    See Also
    --------
    upconv.arithmetic.overlap_counts : How many taps reach each output pixel.
    upconv.projection.is_upsample_conv : Whether the kernel has equal sums row by row and column by column, too.
    checkerboard_energy : The pattern that images show.

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
    sh, sw = both_axes(checked_setting("stride", stride))
    rows = [weight[:, :, r::sh].sum(dim=2, dtype=weight.dtype) for r in range(sh)]  # each (in, out / groups, kw)
    return torch.stack(
        [torch.stack([row[..., q::sw].sum(dim=-1, dtype=weight.dtype) for q in range(sw)], dim=-1) for row in rows],
        dim=2,
    )


def checkerboard_energy(
    images: torch.Tensor, stride: Int, *, double: bool = False, relative: bool = True
) -> torch.Tensor:
    """Measure what share of an image's energy is a pattern with the period of the stride: a checkerboard.

    Parameters
    ----------
    images : torch.Tensor, shape (N, C, H, W)
        Real, in any units; H and W of at least 2 * stride (4 * stride if `double`), odd or even.
    stride : int
        The period to look for, in pixels, at least 2.
    double : bool
        Measure instead the patterns with the period 2 * stride that do not have the period `stride`. Nearest upsampling
        by `stride` and a convolution leave nothing at the stride's own period on flat maps *by construction*, so a
        comparison with other layers should look here too.
    relative : bool
        Whether to give the share of the image's energy; otherwise the mean square of the pattern itself, in the square
        of the images' units, summed over channels. A share can fall because the image around the pattern grows.

    Returns
    -------
    torch.Tensor of float64, shape (N,)
        From 0 (no such pattern, or a constant image) to 1 (nothing else), if `relative`. Differentiable.

    Raises
    ------
    TypeError
        If `images` is not a real tensor, or `stride` not an int.
    ValueError
        If `images` does not have 4 dimensions, is too small or not finite, or `stride` is below 2.

    See Also
    --------
    phase_gains : The pattern that a layer's weights draw on a flat input.
    radial_spectrum : The power at all frequencies.

    Notes
    -----
    The image is looked at through overlapping square windows of 16 periods (at most the whole image), with weights w
    that fall off towards the window's edge (Hann) and sum to 1. In each window the pixels fall into stride * stride
    phases, by row and column modulo the stride. With W_f the sum of the weights of phase f, m_f its weighted mean, m
    the weighted mean of the window and M the mean of these over the channel's windows,

        energy = sum of W_f (m_f - m)**2 / sum of w (x - M)**2,

    the upper sum over phases, the lower over pixels, and both over all windows and channels: an analysis of variance
    with the phase as its factor. So the share lies in [0, 1] and does not change with brightness or contrast (but for
    the images' own rounding: what varies by less than the rounding of a channel's level counts as constant). It is
    the energy at the frequencies (a, b) / stride other than 0, each as wide as a window resolves, so a pattern whose
    strength or sign changes slowly across the image counts too. Windows have the same size in images of any size, so
    their values can be compared (in images smaller than a window the bands are wider). With `double`, the phases
    modulo 2 * stride are held against the phase modulo stride that they are part of, instead of against m.

    What images score that no decoder has drawn, at stride 2 (the median, and what 99 of 100 stay below): patches of
    64 x 64 pixels of four photographs 0.0001 and 0.006, of textures (brick, grass, gravel) 0.0002 and 0.0013, white
    noise of that size 0.006 and 0.011; Fashion-MNIST with its 28 x 28 pixels 0.0009 and 0.03, since finely striped
    shirts are checkerboards to it. With `double`: 0.0004 and 0.02, 0.0012 and 0.007, 0.006 and 0.014; 0.014 and 0.11.

    Adding a pattern raises the value, unless the image has the same pattern in antiphase; then only once it is more
    than twice as strong as that.

    Examples
    --------
    >>> flat = torch.full((1, 1, 32, 32), 0.5)
    >>> board = flat.clone()
    >>> board[..., ::2, ::2] += 0.1
    >>> wide = board.repeat_interleave(2, dim=3)[..., :32]
    >>> checkerboard_energy(torch.cat([flat, board, wide]), stride=2).round(decimals=3)
    tensor([0.0000, 1.0000, 0.3330], dtype=torch.float64)
    >>> checkerboard_energy(wide, stride=2, double=True).round(decimals=3)
    tensor([0.6670], dtype=torch.float64)
    """
    stride = _period(stride)
    images = _checked(images, (4 if double else 2) * stride)
    period = 2 * stride if double else stride
    level = images.double().square().mean(dim=(2, 3))  # (N, C)
    x = images.double() - images.double().mean(dim=(2, 3), keepdim=True)  # the result is the same, the rounding less
    height, width = (_hann_windows(size, period).to(x.device) for size in x.shape[2:])
    middle = height @ x @ width.T  # (N, C, windows down, windows across)
    total = (height @ x.square() @ width.T).mean(dim=(2, 3)) - middle.mean(dim=(2, 3)).square()
    coarse = _by_phase(x, height, width, stride) if double else middle.square()
    between = _by_phase(x, height, width, period).sum(dim=(2, 3)) - coarse.sum(dim=(2, 3))
    between = between.clamp(min=0) / middle[0, 0].numel()  # the mean over the windows, as `total` is
    rounding = torch.finfo(images.dtype if images.is_floating_point() else torch.float64).eps
    varies = total > rounding**2 * level
    total, between = (torch.where(varies, value, 0).sum(dim=1) for value in (total, between))
    if not relative:
        return between
    return torch.where(total > 0, between / torch.where(total > 0, total, 1), 0).clamp(max=1)


def radial_spectrum(images: torch.Tensor) -> torch.Tensor:
    """Return the power of an image at each spatial frequency, averaged over all directions and channels.

    Parameters
    ----------
    images : torch.Tensor, shape (N, C, H, W)
        Real, at least 2 pixels high and wide.

    Returns
    -------
    torch.Tensor of float64, shape (N, min(H, W) // 2 + 1)
        Entry k holds the frequencies nearest to k / min(H, W) in cycles per pixel, up to 1/2, the highest along an axis
        (the corners of the spectrum beyond it are left out). The mean is removed; apart from entry 0, white noise has
        its variance everywhere. Differentiable.

    Raises
    ------
    TypeError
        If `images` is not a real tensor.
    ValueError
        If `images` does not have 4 dimensions, is too small or not finite.

    See Also
    --------
    checkerboard_energy : The share at the frequencies of a stride.

    Notes
    -----
    The azimuthal average of Durall, Keuper and Keuper 2020, "Watch your up-convolution" (arXiv:2003.01826), of
    `|fft2(x - mean)|**2 / (H * W)`, each coefficient put down to the nearest entry. No window is applied, so the edges
    of an image that does not continue periodically add power at all frequencies.

    Examples
    --------
    >>> stripes = torch.tensor([1.0, -1.0]).repeat(4).expand(1, 1, 8, 8)
    >>> radial_spectrum(stripes).argmax(dim=1) / 8  # cycles per pixel
    tensor([0.5000])
    """
    images = _checked(images, 2).double()
    height, width = images.shape[2:]
    power = torch.fft.fft2(images - images.mean(dim=(2, 3), keepdim=True)).abs().square() / (height * width)
    rows, columns = (torch.fft.fftfreq(size, dtype=torch.float64, device=images.device) for size in (height, width))
    shorter = min(height, width)
    radius = torch.hypot(rows[:, None], columns).flatten()
    entry = (radius * shorter).round().long().clamp(max=shorter // 2)
    counted = radius <= 0.5
    sums = power.new_zeros(len(images), shorter // 2 + 1)
    sums = sums.index_add(1, entry[counted], power.mean(dim=1).flatten(1)[:, counted])
    return sums / entry[counted].bincount(minlength=shorter // 2 + 1)


def _period(stride):
    stride = checked_setting("stride", stride)
    if isinstance(stride, tuple):
        raise TypeError(f"stride={stride!r} must be an int of at least 2")
    if stride < 2:
        raise ValueError(f"stride={stride} must be at least 2: every image has the period 1")
    return stride


def _checked(images, smallest):
    if not isinstance(images, torch.Tensor) or images.is_complex():
        kind = images.dtype if isinstance(images, torch.Tensor) else type(images).__name__
        raise TypeError(f"images must be a real torch.Tensor of shape (N, C, H, W), not {kind}")
    if images.dim() != 4 or 0 in images.shape or min(images.shape[2:]) < smallest:
        raise ValueError(
            f"images must have the shape (N, C, H, W) with at least {smallest} x {smallest} pixels, not "
            f"{tuple(images.shape)}"
        )
    if not images.isfinite().all():
        raise ValueError("images has entries that are infinite or not a number")
    return images


def _hann_windows(size, period):
    """Give the weights of the windows along an axis, evenly spread and half overlapping: (windows, size)."""
    extent = min(size, PERIODS * period)
    count = 1 + math.ceil((size - extent) / (extent / 2))
    hann = torch.sin(math.pi * (torch.arange(extent, dtype=torch.float64) + 0.5) / extent) ** 2
    weights = torch.zeros(count, size, dtype=torch.float64)
    for window in range(count):
        start = round(window * (size - extent) / max(1, count - 1))
        weights[window, start : start + extent] = hann / hann.sum()
    return weights


def _by_phase(x, height, width, period):
    """Give W_f m_f**2 for every window and phase: (N, C, windows down * period, windows across * period)."""
    rows, columns = (
        torch.cat(
            [weights * (torch.arange(weights.shape[1], device=x.device) % period == phase) for phase in range(period)]
        )
        for weights in (height, width)
    )
    return (rows @ x @ columns.T).square() / torch.outer(rows.sum(dim=1), columns.sum(dim=1))
