"""What the cheat sheet says holds, and its lines run."""

import re
from fractions import Fraction
from pathlib import Path

import torch
from torch import nn
from torch.optim.lr_scheduler import LinearLR

from tools.site import cheatsheet
from upconv import (
    audit,
    conv_transpose_output_size,
    flat_response,
    overlap_counts,
    pixel_shuffle_to_conv_transpose,
    rewrite,
    upsample_conv_to_conv_transpose,
    upsample_to_conv_transpose,
)

SHEET = (Path(__file__).parents[1] / "chapters" / "cheatsheet.md").read_text(encoding="utf-8")


def section(title):
    return SHEET.partition(f"## {title}\n")[2].partition("\n## ")[0]


def settings_of(layer):
    return f"{layer.kernel_size[0]}/{layer.stride[0]}/{layer.padding[0]}"


def test_nine_settings_double_as_they_say():
    rows = re.findall(r"\| (\d+)/(\d)/(\d)/(\d) \| (\d), (\d) \| (\S+) \|", section("Nine settings that double"))
    assert len(rows) == 9
    for *numbers, few, many, place in rows:
        kernel_size, stride, padding, output_padding = setting = [int(number) for number in numbers]
        assert kernel_size + output_padding == stride + 2 * padding and output_padding <= padding
        assert all(conv_transpose_output_size(n, *setting) == 2 * n for n in range(2, 40))
        counts = overlap_counts(30, *setting)[20:22].tolist()
        assert sorted(counts) == [int(few), int(many)], setting
        shift = Fraction(kernel_size - stride, 2) - padding
        assert place == ("yes" if shift == 0 else f"−{-shift}"), setting


def test_other_scales_are_exact_and_in_place():
    for stride in (2, 4, 8):
        for kernel_size, padding in ((stride, 0), (2 * stride, stride // 2), (3 * stride, stride)):
            assert conv_transpose_output_size(7, kernel_size, stride, padding) == 7 * stride
            assert kernel_size == stride + 2 * padding


def test_forms_have_the_settings_that_the_sheet_says():
    text = section("Forms, and their translations")
    nearest, bilinear = nn.Upsample(scale_factor=2), nn.Upsample(scale_factor=2, mode="bilinear")
    folded = upsample_conv_to_conv_transpose(nearest, nn.Conv2d(4, 4, 3, padding=1))
    shuffled = pixel_shuffle_to_conv_transpose(nn.Conv2d(4, 16, 3, padding=1, bias=False), nn.PixelShuffle(2))
    pad, smooth = upsample_to_conv_transpose(bilinear, channels=4)
    for layer, words in ((folded, "3x3, padding 1 |"), (shuffled, "`PixelShuffle(2)` |"), (smooth, "bilinear")):
        [row] = [line for line in text.splitlines() if words in line]
        assert settings_of(layer) in row.split("|")[2]
    assert pad.padding == (1, 1, 1, 1)
    torch.testing.assert_close(smooth.weight[0, 0, 1] * 4, smooth.weight.new_tensor([1, 3, 3, 1]) * 3 / 4)


def test_the_lines_run():
    conv, transposed = nn.Conv2d(4, 16, 3, padding=1), nn.ConvTranspose2d(4, 4, 4, stride=2, padding=1)
    model = nn.Sequential(transposed, nn.ReLU(), nn.Conv2d(4, 1, 1))
    x, skip, steps = torch.rand(1, 4, 8, 8), torch.rand(1, 4, 17, 16), 5
    optimizer = torch.optim.Adam(model.parameters())
    model(x).sum().backward()
    names = dict(locals(), nn=nn, audit=audit, rewrite=rewrite, LinearLR=LinearLR)
    for title in ("Clean starts", "Training, sizes, tools"):
        for code in re.findall(r"```python\n(.*?)```", section(title), re.DOTALL):
            exec(code, names)
    assert names["y"].shape == skip.shape
    assert flat_response(names["model"], x)["relative"] < 1e-5
    phases = conv.weight.unflatten(0, (4, 4))
    assert torch.equal(phases, phases[:, :1].expand_as(phases))


def test_pages_of_a_pdf_are_counted():
    assert cheatsheet.count_pages(b"<</Type /Pages>> <</Type /Page>> <</Type/Page\n>>") == 2
