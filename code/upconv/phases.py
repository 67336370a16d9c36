"""What happens phase by phase: the gains of a transposed convolution, and the pattern that images carry.

The output pixels of a layer with stride s fall into s phases along each axis, by their position modulo s; each phase
has taps of its own, and on a constant image its output is their sum. Where phases differ in their mean, an image has a
checkerboard; how much of its energy that is, `checkerboard_energy` measures. Both count in signals (N, C, L), images
(N, C, H, W) and volumes (N, C, D, H, W) alike.
"""

from __future__ import annotations

import math

import torch

from upconv.arithmetic import AXES, Int, Ints, checked_setting

__all__ = ["checkerboard_energy", "phase_gains", "radial_spectrum"]

PERIODS = 16  # of the pattern across a window


def phase_gains(weight: torch.Tensor, stride: Ints) -> torch.Tensor:
    """Sum the taps of each phase: the gain of a transposed convolution on a constant input, for each of its phases.

    Parameters
    ----------
    weight : torch.Tensor, shape (in_channels, out_channels / groups, ...)
        In the layout of ConvTranspose1d, 2d or 3d. With dilation > 1, the kernel with its gaps filled by zeros.
    stride : int or tuple of int
        At least 1; a tuple has an entry for each axis, as (height, width).

    Returns
    -------
    torch.Tensor, shape (in_channels, out_channels / groups, ...)
        In 2-D entry [i, o, r, q] is `weight[i, o, r::stride_h, q::stride_w].sum()`: what the output pixels at rows r
        and columns q modulo the stride (before the crop by padding) show of a constant 1 in channel i, away from the
        border. A phase that no tap reaches has gain 0. Same dtype and device as the weight, and differentiable.

    Raises
    ------
    TypeError
        If `weight` is not a tensor, or `stride` not an int or a tuple of ints.
    ValueError
        If `weight` does not have 3 to 5 dimensions, or `stride` not an entry for each axis, each at least 1.

    See Also
    --------
    upconv.arithmetic.overlap_counts : How many taps reach each output pixel.
    upconv.projection.is_upsample_conv : Whether the kernel has equal sums line by line, too.
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
    shape = "(in, out / groups, *kernel_size), with 1 to 3 kernel sizes"
    if not isinstance(weight, torch.Tensor):
        raise TypeError(f"weight must be a torch.Tensor of shape {shape}, not {type(weight).__name__}")
    if weight.dim() - 2 not in AXES:
        raise ValueError(f"weight must have the shape {shape}, not {tuple(weight.shape)}")
    for dim, step in enumerate(checked_setting("stride", stride, weight.dim() - 2), 2):
        weight = phase_sums(weight, dim, step)
    return weight


def phase_sums(values, dim, stride):
    """Sum each phase along one axis, which then has `stride` entries."""
    lines = values.movedim(dim, 0)
    return torch.stack([lines[phase::stride].sum(0, dtype=values.dtype) for phase in range(stride)], dim)


def checkerboard_energy(
    images: torch.Tensor, stride: Int, *, double: bool = False, relative: bool = True
) -> torch.Tensor:
    """Measure what share of an image's energy is a pattern with the period of the stride: a checkerboard.

    In a signal (N, C, L) it is a pattern that repeats every `stride` samples, such as the tonal artifacts of vocoders;
    in a volume one that repeats along any of three axes.

    Parameters
    ----------
    images : torch.Tensor, shape (N, C, L), (N, C, H, W) or (N, C, D, H, W)
        Real, in any units; each axis of at least 2 * stride (4 * stride if `double`), odd or even. One image needs its
        batch axis: without it, rows count as signals.
    stride : int
        The period to look for, in pixels, at least 2. After one upsampling layer that is its stride; after several it
        is the *product* of their strides, since each enlarges the patterns of those before it. The later layers' own
        periods divide the product, so they are counted with it.
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
        If `images` does not have 3 to 5 dimensions, is too small or not finite, or `stride` is below 2.

    See Also
    --------
    phase_gains : The pattern that a layer's weights draw on a flat input.
    radial_spectrum : The power at all frequencies.

    Notes
    -----
    The image is looked at through overlapping windows of 16 periods along each axis (at most the whole image), with
    weights w that fall off towards the window's edge (Hann) and sum to 1. In each window the pixels fall into stride**n
    phases, by their places modulo the stride on each of n axes. With W_f the sum of the weights of phase f, m_f its
    weighted mean, m the weighted mean of the window and M the mean of these over the channel's windows,

        energy = sum of W_f (m_f - m)**2 / sum of w (x - M)**2,

    the upper sum over phases, the lower over pixels, and both over all windows and channels: an analysis of variance
    with the phase as its factor. So the share lies in [0, 1] and does not change with brightness or contrast (but for
    the images' own rounding: what varies by less than the rounding of a channel's level counts as constant). It is
    the energy at the frequencies (a, b) / stride other than 0 (in 2-D), each as wide as a window resolves, so a pattern
    whose strength or sign changes slowly across the image counts too. Windows have the same size in images of any size,
    so their values can be compared (in images smaller than a window the bands are wider). With `double`, the phases
    modulo 2 * stride are held against the phase modulo stride that they are part of, instead of against m.

    What images score that no decoder has drawn, at stride 2 (the median, and what 99 of 100 stay below): patches of
    64 x 64 pixels of four photographs 0.0001 and 0.006, of textures (brick, grass, gravel) 0.0002 and 0.0013, white
    noise of that size 0.006 and 0.011; Fashion-MNIST with its 28 x 28 pixels 0.0009 and 0.03, since finely striped
    shirts are checkerboards to it. With `double`: 0.0004 and 0.02, 0.0012 and 0.007, 0.006 and 0.014; 0.014 and 0.11.

    The fewer the axes, the more of any energy lies in the bands: white noise larger than a window scores about
    (stride**n - 1) * (3 / (32 * stride))**n on n axes, at stride 2 0.047 in signals, 0.0066 in images and 0.00072
    in volumes, at stride 256 0.093 in signals. Compare with other signals of the kind.

    Adding a pattern raises the value, unless the image has the same pattern in antiphase; then only once it is more
    than twice as strong as that.

    On tonal artifacts: Pons, Pascual, Cengarle and Serrà 2021, "Upsampling artifacts in neural audio synthesis"
    (ICASSP).

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

    Two layers with stride 2 make a pattern with the period 4, of which the period 2 is a part:

    >>> kernel = torch.ones(1, 1, 3)
    >>> once = torch.nn.functional.conv_transpose1d(torch.ones(1, 1, 32), kernel, stride=2)
    >>> twice = torch.nn.functional.conv_transpose1d(once, kernel, stride=2)[..., 4:-4]
    >>> twice[0, 0, :8]
    tensor([3., 2., 3., 1., 3., 2., 3., 1.])
    >>> [round(checkerboard_energy(twice, stride).item(), 3) for stride in (2, 4)]
    [0.818, 1.0]
    """
    stride = _period(stride)
    period, coarser = (2 * stride, stride) if double else (stride, 1)
    images = _checked(images, 2 * period, "(N, C, *size)", AXES)
    axes = tuple(range(2, images.dim()))
    level = images.double().square().mean(dim=axes)  # (N, C)
    x = images.double() - images.double().mean(dim=axes, keepdim=True)  # the result is the same, the rounding less
    sums, squares, weights = (_phases(v, period) for v in (x, x.square(), torch.ones_like(x[:1, :1])))
    means = _merged(sums, period, 1)  # (N, C, windows on each axis), as the weights of a window sum to 1
    total = squares.sum(dim=axes) / means[0, 0].numel() - means.mean(dim=axes).square()
    fine, coarse = (
        (_merged(sums, period, phases).square() / _merged(weights, period, phases)).sum(dim=axes)
        for phases in (period, coarser)
    )
    between = (fine - coarse).clamp(min=0) / means[0, 0].numel()  # the mean over the windows, as `total` is
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
    images = _checked(images, 2, "(N, C, H, W)", (2,)).double()
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


def _checked(images, smallest, shape, axes):
    if not isinstance(images, torch.Tensor) or images.is_complex():
        kind = images.dtype if isinstance(images, torch.Tensor) else type(images).__name__
        raise TypeError(f"images must be a real torch.Tensor of shape {shape}, not {kind}")
    if images.dim() - 2 not in axes or 0 in images.shape or min(images.shape[2:]) < smallest:
        raise ValueError(
            f"images must have the shape {shape} with at least {smallest} pixels on each axis, not "
            f"{tuple(images.shape)}"
        )
    if not images.isfinite().all():
        raise ValueError("images has entries that are infinite or not a number")
    return images


def _phases(x, period):
    """Sum w * x over each phase of each window: (N, C, windows * phases on each axis)."""
    for size in reversed(x.shape[2:]):  # the last axis is replaced and comes first, so in the end they are in order
        extent = min(size, PERIODS * period)
        count = 1 + math.ceil((size - extent) / (extent / 2))  # windows evenly spread and half overlapping
        number, place = (torch.arange(n, dtype=torch.float64, device=x.device) for n in (count, extent))
        starts = (number * (size - extent) / max(1, count - 1)).round()
        hann = torch.sin(math.pi * (place + 0.5) / extent) ** 2
        windows = x[..., (starts[:, None] + place).long()]  # (..., windows, extent)
        # a phase is counted from its window's edge, and so has another number than from the image's
        weights = torch.where(place[:, None] % period == place[:period], hann[:, None] / hann.sum(), 0)
        x = (windows @ weights).flatten(-2).movedim(-1, 2)
    return x


def _merged(sums, period, phases):
    """Add up the sums of those of the `period` phases that are one modulo `phases`, a divisor of it."""
    for dim in range(2, sums.dim()):
        sums = sums.unflatten(dim, (-1, period // phases, phases)).sum(dim + 1).flatten(dim, dim + 1)
    return sums
