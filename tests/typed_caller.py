"""A user's program: type checkers must pass it, but for the lines of `mistakes`, which they must not."""

from typing import Any, assert_type

import torch
from torch import nn

import upconv
from upconv.models import Rewrite

IMAGE = torch.zeros(2, 4, 17, 32)
UPSAMPLE, CONV = nn.Upsample(scale_factor=2), nn.Conv2d(4, 2, 3, padding=1)
TRANSPOSED = nn.ConvTranspose2d(4, 2, 4, 2, 1)


def sizes() -> None:
    assert_type(upconv.conv_output_size(28, 3, stride=2, padding=1), int)
    assert_type(upconv.conv_transpose_output_size(14, 4, 2, 1), int)
    assert_type(upconv.output_padding_for(14, 28, kernel_size=3, stride=2, padding=1), int)
    height, width = upconv.conv_output_size((17, 32), 5, stride=3, padding=2)
    assert_type((height, width), tuple[int, int])
    sizes = upconv.conv_transpose_output_size(IMAGE.shape[2:], 4, 2, padding=[1, 2])
    assert_type(sizes, tuple[int, ...])
    assert_type(upconv.conv_output_size(sizes, (3, 5)), tuple[int, ...])
    assert_type(upconv.conv_output_size(17, (3, 5, 3)), tuple[int, ...])
    nn.ConvTranspose2d(4, 2, 5, 3, 2, output_padding=upconv.output_padding_for((6, 6), (17, 16), 5, 3, 2))
    nn.Linear(8 * upconv.conv_output_size(28, 3) ** 2, 10)
    best = upconv.solve_conv_transpose(7, 14, max_kernel_size=4, limit=1)[0]
    assert_type(best, upconv.ConvTransposeSetting)
    nn.ConvTranspose2d(4, 2, best.kernel_size, best.stride, best.padding, best.output_padding)
    best = upconv.solve_conv_transpose((7, 7, 7), (14, 14, 15))[0]
    nn.ConvTranspose3d(4, 2, best.kernel_size, best.stride, best.padding, best.output_padding)
    *_, even_overlap, reaches_all, in_place = best
    assert even_overlap and reaches_all and in_place
    assert_type(upconv.overlap_counts((4, 5), kernel_size=3, stride=2).max(), torch.Tensor)
    assert_type(upconv.conv_matrix(torch.ones(1, 1, 2, 2, 2), (2, 3, 4), padding=1), torch.Tensor)


def layers() -> None:
    one = upconv.upsample_conv_to_conv_transpose(UPSAMPLE, CONV)
    assert_type(one, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d | nn.Sequential)
    assert_type(upconv.upsample_conv_to_subpixel(UPSAMPLE, nn.ConvTranspose3d(4, 2, 3)), nn.Sequential)
    assert_type(upconv.upsample_conv_to_subpixel(nn.Upsample(34), CONV, input_size=17), nn.Sequential)
    assert_type(upconv.conv_transpose_to_subpixel(TRANSPOSED), nn.Sequential)
    assert upconv.conv_transpose_to_subpixel(nn.ConvTranspose1d(4, 2, 16, 8, 4))(IMAGE[0, :, 0]).shape == (2, 256)
    shuffled = nn.Conv2d(4, 8, 3), nn.PixelShuffle(2)
    one = upconv.pixel_shuffle_to_conv_transpose(*shuffled)
    one = upconv.upsample_to_conv_transpose(nn.Upsample(size=8), 4, axes=1, input_size=(4,))
    upconv.icnr_(shuffled[0].weight, 2, nn.init.xavier_uniform_)
    assert_type(upconv.icnr_(nn.Conv3d(4, 8, 3).weight, (2, 2, 1)), torch.Tensor)
    assert_type(upconv.bilinear_(TRANSPOSED.weight, stride=2, initializer=nn.init.ones_), torch.Tensor)
    if not upconv.is_upsample_conv(TRANSPOSED, tolerance=1e-5):
        assert_type(upconv.conv_transpose_to_upsample_conv(TRANSPOSED), tuple[nn.Sequential, float])
    _, residual = upconv.conv_transpose_to_upsample_conv(TRANSPOSED, 3, mode="bilinear", inputs=IMAGE, targets=None)
    assert residual >= 0
    assert_type(upconv.phase_gains(TRANSPOSED.weight, stride=(2, 2)), torch.Tensor)
    assert upconv.checkerboard_energy(IMAGE, 2, double=True, relative=False).mean().item() == 0
    assert upconv.radial_spectrum(IMAGE).shape == (2, 9)


def models() -> None:
    model = nn.Sequential(UPSAMPLE, CONV, nn.ReLU())
    result = upconv.rewrite(model, "conv_transpose", IMAGE, example_kwargs={})
    torch.optim.SGD(result.model.parameters(), lr=0.1)
    assert_type(result.counts["rewritten"], int)
    assert_type(result.seconds, tuple[float, float] | None)
    for row in result.report:
        assert_type(row, dict[str, Any])
    assert [row["name"] for row in upconv.audit(model, (IMAGE,))] == ["0"]
    assert str(upconv.audit(model, IMAGE))
    torch.compile(model, backend=upconv.backend)  # pyright: ignore[reportUnknownMemberType]
    program = upconv.fold_exported(torch.export.export(model.eval(), (IMAGE,)))
    assert_type(program, torch.export.ExportedProgram)


def mistakes(best: upconv.ConvTransposeSetting, model: nn.Module, result: Rewrite) -> None:
    """A checker that passes one of these lines says that its comment is not needed, which is an error, too."""
    upconv.conv_output_size(28, 3, stride="2")  # type: ignore[call-overload]
    upconv.conv_output_size(28, 3, stride=0.5)  # type: ignore[call-overload]
    upconv.conv_transpose_output_size((28.0, 28), 3)  # type: ignore[arg-type]
    upconv.output_padding_for(14)  # type: ignore[call-overload]
    upconv.solve_conv_transpose(7, 14, 3)  # type: ignore[call-arg]
    best.strides  # type: ignore[attr-defined]
    upconv.overlap_counts(4, kernel_size=3, strides=2)  # type: ignore[call-arg]
    upconv.conv_matrix([[1.0]], 2)  # type: ignore[arg-type]
    upconv.upsample_conv_to_conv_transpose(CONV, UPSAMPLE)  # type: ignore[arg-type]
    upconv.upsample_conv_to_subpixel(UPSAMPLE, CONV, 17)  # type: ignore[call-arg]
    upconv.conv_transpose_to_subpixel(CONV)  # type: ignore[arg-type]
    upconv.upsample_to_conv_transpose(UPSAMPLE, CONV)  # type: ignore[arg-type]
    upconv.pixel_shuffle_to_conv_transpose(CONV, UPSAMPLE)  # type: ignore[arg-type]
    upconv.icnr_(CONV, 2)  # type: ignore[arg-type]
    upconv.bilinear_(TRANSPOSED.weight, 2.0)  # type: ignore[arg-type]
    upconv.is_upsample_conv(TRANSPOSED.weight)  # type: ignore[arg-type]
    upconv.conv_transpose_to_upsample_conv(TRANSPOSED)(IMAGE)  # type: ignore[operator]
    upconv.phase_gains(TRANSPOSED, 2)  # type: ignore[arg-type]
    upconv.checkerboard_energy(IMAGE, (2, 2))  # type: ignore[arg-type]
    upconv.radial_spectrum(IMAGE, 2)  # type: ignore[call-arg]
    upconv.rewrite(model, IMAGE, "conv_transpose")  # type: ignore[arg-type]
    result.report["name"]  # type: ignore[call-overload]
    upconv.audit(model, [IMAGE])  # type: ignore[arg-type]
    upconv.backend(model, [IMAGE])  # type: ignore[arg-type]
    upconv.fold_exported(model)  # type: ignore[arg-type]
