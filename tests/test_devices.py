"""Everything computes where its inputs are, and nothing moves to the CPU by accident.

Two devices show it. On "meta", which has shapes and no values, copying to the CPU is an error, and so is computing with
a tensor that was made there. And a CUDA device, where the machine has one; there the copies are counted.
"""

import ast
import copy
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from upconv import (
    backend,
    bilinear_,
    checkerboard_energy,
    conv_matrix,
    conv_transpose_to_subpixel,
    icnr_,
    phase_gains,
    radial_spectrum,
    rewrite,
    upsample_conv_to_conv_transpose,
    upsample_conv_to_subpixel,
)
from upconv.book.blocks import BLOCKS, FOLDED, upsampling_block
from upconv.book.models import Autoencoder, SuperResolution, UNet
from upconv.book.together import train_together
from upconv.book.training import reconstruct, train

ROOT = Path(__file__).parents[1]


class Transfers(TorchDispatchMode):
    """The operators that copied a tensor from another device to the CPU."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        inputs = [value for value in args if isinstance(value, torch.Tensor)]
        results = result if isinstance(result, (tuple, list)) else [result]
        made = [value for value in results if isinstance(value, torch.Tensor)]
        if any(value.device.type != "cpu" for value in inputs) and any(value.device.type == "cpu" for value in made):
            self.found.append(str(func))
        return result


def pair(mode="nearest"):
    return nn.Upsample(scale_factor=2, mode=mode), nn.Conv2d(2, 3, 3, padding=1, padding_mode="replicate")


def spatial(model, *shape):
    return lambda place: model.to(place)(torch.zeros(2, *shape, device=place))


def of_layer(call, *layers):
    """Rewrite layers on the device, and run what comes out."""

    def run(place):
        return call(*(layer.to(place) for layer in layers))(torch.zeros(1, 2, 6, 6, device=place))

    return run


def cases():
    """Give calls of everything that takes tensors, by name; a call is given the device."""
    yield from ((f"block {name}", spatial(upsampling_block(name, 2, 4), 2, 5, 6)) for name in (*BLOCKS, FOLDED))
    yield from ((f"autoencoder {name}", spatial(Autoencoder(name), 1, 28, 28)) for name in BLOCKS)
    yield from ((f"super-resolution {name}", spatial(SuperResolution(name), 1, 8, 8)) for name in BLOCKS)
    yield from ((f"unet {name}", spatial(UNet(name, classes=3), 1, 17, 30)) for name in BLOCKS)
    for mode in ("nearest", "bilinear"):
        yield f"to conv_transpose, {mode}", of_layer(upsample_conv_to_conv_transpose, *pair(mode))
        yield f"to subpixel, {mode}", of_layer(upsample_conv_to_subpixel, *pair(mode))
    yield "transposed to subpixel", of_layer(conv_transpose_to_subpixel, nn.ConvTranspose2d(2, 3, 4, 2, 1))
    yield "phase_gains", lambda place: phase_gains(torch.zeros(2, 3, 4, 4, device=place), 2)
    yield "conv_matrix", lambda place: conv_matrix(torch.zeros(2, 3, 2, 2, device=place), 5)
    yield "icnr_", lambda place: icnr_(torch.zeros(4, 2, 3, 3, device=place), 2)
    yield "bilinear_", lambda place: bilinear_(torch.zeros(4, 4, 4, 4, device=place), 2)


CASES = dict(cases())


@pytest.mark.parametrize("name", CASES)
def test_on_meta_the_result_is_on_meta(name):
    assert CASES[name]("meta").device.type == "meta"


@pytest.mark.parametrize(
    "wrong", [lambda x: x.cpu().to(x.device), lambda x: x + torch.arange(4.0), lambda x: x.sum().item()]
)
def test_meta_finds_what_it_should(wrong):
    class Careless(nn.Module):
        def forward(self, images):
            return wrong(images)

    with pytest.raises((RuntimeError, NotImplementedError), match=r"meta|device"):
        spatial(Careless(), 1, 4)("meta")


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@needs_cuda
@pytest.mark.parametrize("name", CASES)
def test_on_a_gpu(name):
    with Transfers() as transfers:
        assert dict(cases())[name]("cuda").device.type == "cuda"
    assert transfers.found == []


@needs_cuda
def test_a_gpu_gives_what_the_cpu_gives():
    images = torch.rand(4, 1, 32, 32)
    assert radial_spectrum(images.to("cuda"))[0].device.type == "cuda"
    torch.testing.assert_close(checkerboard_energy(images.to("cuda"), 2).cpu(), checkerboard_energy(images, 2))
    torch.manual_seed(0)
    model = UNet("pixel_shuffle")
    expected = reconstruct(model, images)
    torch.testing.assert_close(reconstruct(model.to("cuda"), images), expected, rtol=1e-3, atol=1e-4)
    found = rewrite(UNet("conv_transpose_2x2").to("cuda"), "subpixel", example_inputs=(images.to("cuda"),))
    assert {parameter.device.type for parameter in found.model.parameters()} == {"cuda"}


@needs_cuda
@pytest.mark.parametrize("inner", ["eager", "inductor"])
def test_on_a_gpu_the_rewritten_forms_are_kept_whatever_tf32_rounds(inner):
    torch.manual_seed(0)
    steps = [
        step for _ in range(3) for step in (nn.Upsample(scale_factor=2), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU())
    ]
    model, x = nn.Sequential(*steps).to("cuda"), torch.randn(2, 64, 8, 8, device="cuda")
    assert rewrite(model, "conv_transpose", x).counts["rewritten"] == 3
    torch.compiler.reset()
    new = torch.compile(model, backend=backend, options={"inner": inner})
    with torch.no_grad():
        for change in (
            lambda: None,
            lambda: model[1].weight.mul_(2),
            lambda: model[4].load_state_dict(model[7].state_dict()),
        ):
            change()
            torch.testing.assert_close(new(x), model(x), rtol=0.02, atol=0.02)
    new(x).square().mean().backward()
    assert all(parameter.grad.is_cuda for parameter in model.parameters())


@needs_cuda
@pytest.mark.parametrize("autocast", [None, torch.float16])
def test_a_run_on_a_gpu_that_was_lost_goes_on(tmp_path, autocast):
    def run(**settings):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Dropout(0.3), nn.Conv2d(4, 1, 1))
        images = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        common = dict(steps=20, batch_size=5, learning_rate=0.01, seed=0, device="cuda", progress=False)
        return train(model, images, **common, autocast=autocast, **settings)

    def stop(done):
        if done == 12:
            raise KeyboardInterrupt

    expected = run()
    kept = dict(checkpoint=tmp_path / "run", checkpoint_seconds=0)
    with pytest.raises(KeyboardInterrupt):
        run(**kept, callback=stop)
    assert run(**kept) == pytest.approx(expected, rel=1e-3)


@needs_cuda
@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("steps", [1, 2, 12])
@pytest.mark.parametrize("name", ["conv_transpose_4x4", FOLDED, "a U-Net"])
def test_on_a_gpu_a_replayed_step_is_the_step(name, steps, clip, monkeypatch):
    """With a captured step, without one, and one by one; what warming up did is forgotten, however few the steps."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    of_masks, seeds, seen = name == "a U-Net", [4, 0], []
    images = torch.randint(256, (11, 1, 28, 28), dtype=torch.uint8)
    masks = (images[:, 0] > 128).long() if of_masks else None
    start = [UNet(channels=(2, 3, 4)) if of_masks else Autoencoder(name, 5, (2, 3, 4)) for _ in seeds]
    models, replayed, plain, alone = (copy.deepcopy(start) for _ in range(4))
    common = dict(steps=steps, batch_size=4, learning_rate=0.01, warmup=4, decay=True, clip=clip)

    def together(models, device, **options):
        return train_together(models, images, masks, seeds=seeds, device=device, **common, **options)

    losses = {"graph": together(models, "cuda", looks=(0, 1), callback=lambda step: seen.append(copy.deepcopy(models)))}
    placed = [model.to("cuda") for model in replayed]
    losses["again"] = together(placed, None)
    with monkeypatch.context() as patch:
        patch.setattr("upconv.book.together._captured", lambda step, optimizer, state, done: eager(step, optimizer))
        losses["eager"] = together(plain, "cuda")
    of_each = [
        train(model, images, masks, seed=seed, device="cuda", progress=False, **common)
        for model, seed in zip(alone, seeds, strict=True)
    ]
    losses["one by one"] = torch.tensor(of_each).T
    assert {tensor.device.type for model in models for tensor in model.state_dict().values()} == {"cpu"}
    assert {tensor.device.type for model in replayed for tensor in model.state_dict().values()} == {"cuda"}
    assert len(seen) == len({0, 1, steps})
    same(seen[0], start, rtol=0, atol=0)
    same(seen[-1], models, rtol=0, atol=0)
    for found in losses.values():
        torch.testing.assert_close(found, losses["one by one"], rtol=1e-3, atol=1e-5)
    for others in (replayed, plain, alone):
        same(models, others, rtol=1e-2, atol=5e-3)  # the weights move by 0.06


def eager(step, optimizer):
    def run():
        optimizer.zero_grad()
        step()

    return run


def same(models, others, **tolerance):
    for one, other in zip(models, others, strict=True):
        for name, value in other.state_dict().items():
            torch.testing.assert_close(one.state_dict()[name], value, check_device=False, **tolerance)


def sources():
    """Give the module's and the tools' code and that of the chapters, by a name."""
    import nbformat  # noqa: PLC0415

    yield from ((path.name, path.read_text()) for path in (ROOT / "code").rglob("*.py"))
    for path in (ROOT / "chapters").glob("*.ipynb"):
        code = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
        yield path.name, "\n".join(line for source in code for line in source.splitlines() if line[:1] not in "%!")


def test_the_device_is_chosen_in_one_place():
    """No `.cuda()`, and nobody but `machine.default_device` asks whether there is a GPU in order to choose one."""
    seen = 0
    for name, source in sources():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                seen += 1
                assert node.func.attr != "cuda", f"{name}: line {node.lineno}"
                if node.func.attr == "is_available":
                    assert name == "machine.py", f"{name}: line {node.lineno}"
    assert seen > 2000


def test_where_tensors_go_to_the_cpu_is_known():
    """A transfer is right where NumPy, a plot or a file takes over; each place is listed here."""
    places = Counter()
    for name, source in sources():
        for node in ast.walk(ast.parse(source)):
            if name.endswith(".py") and isinstance(node, ast.Call):
                words = [ast.unparse(value) for value in [*node.args[:1], *(word.value for word in node.keywords)]]
                places[name] += ast.unparse(node.func).endswith(".cpu") or "'cpu'" in words
    places = {name: count for name, count in places.items() if count}
    assert places == {
        "_interpolation.py": 2,  # index arithmetic in float32 as PyTorch's CPU does it
        "checkpoints.py": 2,  # files; the other one is a name
        "figures.py": 4,  # plots
        "projection.py": 2,  # lstsq, which on a GPU wants full rank
        "tasks.py": 3,  # measures by NumPy and scikit-image
        "together.py": 1,  # what is returned
    }
