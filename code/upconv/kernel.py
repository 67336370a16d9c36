"""One kernel for a GPU: a transposed convolution, and so a folded upsampling, with its bias and activation (Triton).

An output pixel m reads input pixel j through tap v if m + padding = stride * j + v. So the pixels of one phase, m
modulo the stride, read through the same taps. One program makes a block of one phase, all by a matrix product over taps
and input channels: no zero is multiplied, nothing is stored between, and each result goes to its own place.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

__all__ = ["ACTIVATIONS", "conv_transpose2d"]

ACTIVATIONS = ("none", "relu")  # whose derivative the result tells
TILES = (  # pixels, channels out, channels in at a time; warps and stages: the fastest on an H200, from large to small
    (128, 256, 64, 8, 3),
    (128, 128, 64, 8, 3),
    (128, 64, 64, 4, 3),
    (64, 64, 64, 4, 4),
    (64, 32, 64, 4, 5),
)


@triton.jit
def _kernel(
    x, w, b, y, N, H, W, HO, WO, CI: tl.constexpr, CO: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    KH: tl.constexpr, KW: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr, BIAS: tl.constexpr, ACT: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    # x (N, H, W, CI), w (KH, KW, CI, CO), y (N, HO, WO, CO): this program makes BM pixels of one phase, BN channels
    rows, columns = tl.cdiv(HO, SH), tl.cdiv(WO, SW)  # pixels of a phase
    blocks = tl.cdiv(CO, BN)
    pixel = tl.program_id(0) // blocks * BM + tl.arange(0, BM)
    channel = tl.program_id(0) % blocks * BN + tl.arange(0, BN)
    phase_h, phase_w = tl.program_id(1) // SW, tl.program_id(1) % SW
    image, i, j = pixel // (rows * columns), pixel // columns % rows, pixel % columns
    out_h, out_w = i * SH + phase_h, j * SW + phase_w
    inside = (image < N) & (out_h < HO) & (out_w < WO)
    first_h, first_w = (phase_h + PH) % SH, (phase_w + PW) % SW  # the phase's first tap
    in_h, in_w = i + (phase_h + PH) // SH, j + (phase_w + PW) // SW  # the pixel that it reads
    taps_h, taps_w = tl.cdiv(KH - first_h, SH), tl.cdiv(KW - first_w, SW)  # 0 if the phase has no tap
    steps: tl.constexpr = (CI + BK - 1) // BK
    nested: tl.constexpr = CI >= 512  # taps outside of channels; fewer channels are too short a loop to hide the loads
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for outer in range(0, taps_h * taps_w if nested else 1):
        for step in range(0, steps if nested else taps_h * taps_w * steps):
            place = outer if nested else step // steps
            a, c = place // taps_w, place % taps_w
            h, v = in_h - a, in_w - c
            k = (step if nested else step % steps) * BK + tl.arange(0, BK)
            reads = inside & (h >= 0) & (h < H) & (v >= 0) & (v < W)
            source = ((image * H + h) * W + v) * CI
            tap = ((first_h + a * SH) * KW + first_w + c * SW) * CI
            from_x, from_w = reads[:, None], (channel < CO)[None, :]
            if CI % BK != 0:
                from_x, from_w = from_x & (k < CI)[None, :], from_w & (k < CI)[:, None]
            left = tl.load(x + source[:, None] + k[None, :], mask=from_x, other=0.0)
            right = tl.load(w + (tap + k)[:, None] * CO + channel[None, :], mask=from_w, other=0.0)
            total = tl.dot(left, right, total, input_precision="ieee")
    if BIAS:
        total += tl.load(b + channel, mask=channel < CO, other=0.0).to(tl.float32)[None, :]
    if ACT == "relu":
        total = tl.maximum(total, 0.0)
    target = y + (((image * HO + out_h) * WO + out_w) * CO)[:, None] + channel[None, :]
    tl.store(target, total.to(y.dtype.element_ty), mask=inside[:, None] & (channel < CO)[None, :])


_KERNELS = {  # an autotuner of one choice each
    tile: triton.autotune([triton.Config(dict(zip(("BM", "BN", "BK"), tile, strict=False)), *tile[3:])], [])(_kernel)
    for tile in TILES
}


def tile_for(pixels, channels, phases, processors):
    """Choose the largest tile that is not far wider than the channels and keeps nine of ten multiprocessors busy."""
    for tile in TILES[:-1]:
        programs = triton.cdiv(pixels, tile[0]) * triton.cdiv(channels, tile[1]) * phases
        if tile[1] < 2 * channels and 10 * programs >= 9 * processors:
            return tile
    return TILES[-1]


@torch.library.triton_op("upconv::conv_transpose2d", mutates_args=())
def conv_transpose2d(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, stride: list[int], padding: list[int],
    output_padding: list[int], activation: str,
) -> torch.Tensor:  # fmt: skip
    """Compute `torch.nn.functional.conv_transpose2d`, of one group and dilation 1, and an activation of its result.

    Parameters
    ----------
    x : torch.Tensor, shape (N, in_channels, H, W)
    weight : torch.Tensor, shape (in_channels, out_channels, kernel height, kernel width)
        Not copied if it lies in memory with the kernel's axes first, as `upconv.fastest.FusedConvTranspose2d` keeps it.
    bias : torch.Tensor, shape (out_channels,), or None
    stride, padding, output_padding : list of int
        One for each axis.
    activation : str
        One of `ACTIVATIONS`.

    Returns
    -------
    torch.Tensor, shape (N, out_channels, H_out, W_out)
        In channels_last, of the dtype of `x`; sums are in float32. Gradients are PyTorch's own operations.
    """
    y = empty_result(x, weight, stride, padding, output_padding)
    (n, ci, height, width), (_, co, rows, columns), (kh, kw) = x.shape, y.shape, weight.shape[2:]
    if max(x.numel(), y.numel()) >= 2**31:  # the kernel counts in 32 bits
        y = torch.conv_transpose2d(x, weight, bias, stride, padding, output_padding)
        return y.relu_() if activation == "relu" else y
    x, w = x.contiguous(memory_format=torch.channels_last), weight.permute(2, 3, 0, 1).contiguous()
    pixels = n * triton.cdiv(rows, stride[0]) * triton.cdiv(columns, stride[1])
    phases = stride[0] * stride[1]
    processors = torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 1
    tile = tile_for(pixels, co, phases, processors)
    grid = triton.cdiv(pixels, tile[0]) * triton.cdiv(co, tile[1]), phases
    torch.library.wrap_triton(_KERNELS[tile])[grid](
        x, w, w if bias is None else bias, y, n, height, width, rows, columns, ci, co, *stride, kh, kw, *padding,
        bias is not None, activation,
    )  # fmt: skip
    return y


def empty_result(x, weight, stride, padding, output_padding):
    """Make the tensor that the result goes into."""
    settings = zip(x.shape[2:], weight.shape[2:], stride, padding, output_padding, strict=True)
    size = [(n - 1) * s - 2 * p + k + o for n, k, s, p, o in settings]
    # (memory_format=torch.channels_last would make inductor fill it first)
    return x.new_empty((len(x), *size, weight.shape[1])).permute(0, 3, 1, 2)


def _keep(ctx, inputs, output):
    *ctx.settings, ctx.activation = inputs[3:]
    ctx.bias = None if inputs[2] is None else [len(inputs[2])]
    ctx.save_for_backward(*inputs[:2], output)


def _backward(ctx, gradient):
    x, weight, y = ctx.saved_tensors
    gradient = gradient * (y > 0) if ctx.activation == "relu" else gradient
    stride, padding, output_padding = ctx.settings
    wanted = [*ctx.needs_input_grad[:2], ctx.bias is not None and ctx.needs_input_grad[2]]
    back, ones = torch.ops.aten.convolution_backward, [1, 1]
    found = back(gradient, x, weight, ctx.bias, stride, padding, ones, True, output_padding, 1, wanted)
    return *found, None, None, None, None


conv_transpose2d.register_autograd(_backward, setup_context=_keep)
