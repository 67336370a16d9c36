"""How much faster are the rewritten forms? Medians of interleaved runs, as ratios: above 1 is faster than before.

    python -m tools.bench                         # everything, on this machine's default device
    python -m tools.bench --only generator unet   # some of it
    python -m tools.bench --csv bench.csv         # the rows as a table, too

One thread on a CPU. Each model is timed as it is, rewritten by `upconv.rewrite` (where its upsampling is made of
modules) and compiled with the backend; with inductor as the inner compiler the yardstick is the best of eager and
inductor in either memory format, with and without freezing. A training step is forward, backward and SGD; "kept" is
what the forward pass keeps for the backward one, on a GPU the peak of its memory.
"""

import argparse
import gc
import statistics
import sys
import time
import warnings
from functools import partial

import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

import upconv
from upconv.book.machine import default_device
from upconv.book.models import UNet

PAIRS = ((64, 64), (128, 32), (256, 16), (1024, 16))  # channels, height and width
GEOMETRIC = "geometric mean of the pairs"


class Functional(nn.Module):
    """A resize-convolution block as most code has it: F.interpolate in forward."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.BatchNorm2d(out_channels)

    def forward(self, x):
        return F.relu(self.norm(self.conv(F.interpolate(x, scale_factor=2))))


def generator(functional):
    """Upsample + Conv2d, batch norm, ReLU: 256, 128, 64, 32 channels from 8x8 pixels, then a picture."""
    steps = []
    for i, o in ((256, 128), (128, 64), (64, 32)):
        own = [nn.Upsample(scale_factor=2), nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU()]
        steps += [Functional(i, o)] if functional else own
    return nn.Sequential(*steps, nn.Conv2d(32, 3, 3, padding=1))


class Part(nn.Module):
    """A method of a published model as a model: of an autoencoder, the half that diffusion models end with."""

    def __init__(self, model, call):
        super().__init__()
        self.model, self.call = model, call

    def forward(self, x):
        return self.call(self.model, x)


def models():
    """Yield (name, model, inputs); what is published comes from diffusers and MONAI, with weights drawn anew."""
    for channels, size in PAIRS:
        pair = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(channels, channels, 3, padding=1))
        yield f"pair {channels} at {size}x{size}", pair, torch.randn(1, channels, size, size)
    yield "generator", generator(False), torch.randn(4, 256, 8, 8)
    yield "generator, functional", generator(True), torch.randn(4, 256, 8, 8)
    yield "book's UNet", UNet("nearest_conv_3x3"), torch.rand(8, 1, 64, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import diffusers  # noqa: PLC0415 - slow to import, and only needed here
        from monai.networks import nets  # noqa: PLC0415

        autoencoder = diffusers.AutoencoderKL(
            block_out_channels=(64, 128, 256), layers_per_block=2, latent_channels=4, mid_block_add_attention=False,
            down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        )  # fmt: skip
        decode = Part(autoencoder, lambda model, z: model.decode(z).sample)
        yield "diffusers' AutoencoderKL, decode", decode, torch.randn(1, 4, 32, 32)
        unet = diffusers.UNet2DModel(
            sample_size=32, block_out_channels=(64, 128, 256), layers_per_block=1, attention_head_dim=None,
            down_block_types=("DownBlock2D",) * 3, up_block_types=("UpBlock2D",) * 3,
        )  # fmt: skip
        yield "diffusers' UNet2DModel", Part(unet, lambda model, x: model(x, 3).sample), torch.randn(1, 3, 32, 32)
        flexible = nets.FlexibleUNet(3, 2, "resnet18", pretrained=False)
        yield "MONAI's FlexibleUNet", flexible, torch.randn(1, 3, 128, 128)


def interleaved(calls, seconds=4.0, least=7):
    """Time calls in turns until this many seconds have passed; give the median of each, in milliseconds."""
    times = {name: [] for name in calls}
    for call in calls.values():
        call()
        call()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < least:
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if default_device().type == "cuda":
                torch.cuda.synchronize()
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def formatted(module, memory_format):
    return module.to(memory_format=getattr(torch, memory_format))


def compiled(model, backend, mode, x, **options):
    """Compile on the example in the mode it is timed in."""
    torch.compiler.reset()
    new = torch.compile(model, backend=backend, options=options or None, dynamic=False)
    with mode():
        new(x)
    return new


def inference(name, model, x, memory_format, mode, seconds):
    """Time a model's doors in one memory format and mode; give a row."""
    model, x = formatted(model, memory_format).eval(), x.contiguous(memory_format=getattr(torch, memory_format))
    rewritten = upconv.rewrite(model, "conv_transpose", x)
    doors = {"eager": model}
    if rewritten.counts["rewritten"]:
        doors["rewrite"] = rewritten.model
    doors["backend, eager"] = compiled(model, upconv.backend, mode, x, inner="eager")

    def call(door):
        with mode():
            return door(x)

    times = interleaved({key: partial(call, door) for key, door in doors.items()}, seconds)
    row = dict(model=name, format=memory_format, mode=mode.__name__, eager_ms=times["eager"])
    return row | {key: times["eager"] / value for key, value in times.items() if key != "eager"}


def with_inductor(name, model, x, freezing, seconds):
    """Time the backend over inductor against the best of eager and inductor in either memory format."""
    calls = {}
    with torch._inductor.config.patch(freezing=freezing):
        for memory_format in ("contiguous_format", "channels_last"):
            own = formatted(model, memory_format).eval().requires_grad_(False)
            y = x.contiguous(memory_format=getattr(torch, memory_format))
            state = {key: value.clone(memory_format=torch.preserve_format) for key, value in own.state_dict().items()}
            for door, backend in (("eager", None), ("inductor", "inductor"), ("backend", upconv.backend)):
                twin = copied(own, state)
                new = twin if backend is None else torch.compile(twin, backend=backend, dynamic=False)
                calls[f"{door}, {memory_format}"] = partial(run_without_gradients, new, y)
        torch.compiler.reset()
        times = interleaved(calls, seconds)
    best = {}
    for key, value in times.items():
        door = "backend" if key.startswith("backend") else "before"
        best[door] = min(value, best.get(door, value))
    return (
        dict(model=name, freezing=freezing, best_before_ms=best["before"], backend=best["before"] / best["backend"])
        | times
    )


def copied(model, state):
    import copy  # noqa: PLC0415

    twin = copy.deepcopy(model)
    twin.load_state_dict(state)
    return twin


def run_without_gradients(model, x):
    with torch.no_grad():
        return model(x)


def training(name, model, x, seconds):
    """Time a training step and count what the forward pass keeps; give a row."""
    doors = {"eager": model.train()}
    rewritten = upconv.rewrite(model, "conv_transpose", x)
    if rewritten.counts["rewritten"]:
        doors["rewrite"] = rewritten.model.train()
    torch.compiler.reset()
    doors["backend, eager"] = torch.compile(model, backend=upconv.backend, options={"inner": "eager"}, dynamic=False)
    optimizers = {key: torch.optim.SGD(door.parameters(), 1e-4) for key, door in doors.items()}

    def step(key):
        optimizers[key].zero_grad()
        output = doors[key](x)
        output = output[0] if isinstance(output, (tuple, list)) else output
        output.square().mean().backward()
        optimizers[key].step()

    times = interleaved({key: partial(step, key) for key in doors}, seconds)
    row = dict(model=name, eager_ms=times["eager"], eager_kept_MB=kept(partial(step, "eager")))
    for key in doors:
        if key != "eager":
            row |= {key: times["eager"] / times[key], f"{key}, kept": kept(partial(step, key)) / row["eager_kept_MB"]}
    return row


def kept(step):
    """Count what a step keeps for its backward pass, in MB: on a GPU the peak of its memory, else the saved tensors."""
    if default_device().type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() / 1e6
    storages = {}

    def pack(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    return sum(storages.values()) / 1e6


def show(title, rows):
    print(f"\n{title}")
    with pd.option_context("display.width", 200, "display.max_columns", 20, "display.float_format", "{:.2f}".format):
        print(pd.DataFrame(rows).to_string(index=False), flush=True)


def mean_of_pairs(rows, key):
    values = [row[key] for row in rows if row["model"].startswith("pair") and key in row]
    return statistics.geometric_mean(values) if values else float("nan")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", help="models whose names begin so", default=[""])
    parser.add_argument("--parts", nargs="*", default=["inference", "inductor", "training"])
    parser.add_argument("--seconds", type=float, default=4.0, help="for each comparison")
    parser.add_argument("--csv", help="where to write the rows")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    device, rows = default_device(), []
    what = torch.cuda.get_device_name() if device.type == "cuda" else "one thread"
    print(f"torch {torch.__version__}, {device}, {what}")
    chosen = [
        (name, model.to(device), x.to(device)) for name, model, x in models() if name.startswith(tuple(given.only))
    ]
    if "inference" in given.parts:
        for memory_format in ("contiguous_format", "channels_last"):
            for mode in (torch.no_grad, torch.inference_mode):
                part = [inference(*one, memory_format, mode, given.seconds) for one in chosen]
                show(f"{memory_format}, {mode.__name__}: times as fast as eager", part)
                print(f"{GEOMETRIC}, rewritten: {mean_of_pairs(part, 'rewrite'):.2f}")
                rows += part
    if "inductor" in given.parts:
        for freezing in (True, False):
            part = [with_inductor(*one, freezing, given.seconds) for one in chosen if "generator" in one[0]]
            if part:
                show(f"backend over inductor, freezing={freezing}: times as fast as the best before", part)
                rows += part
    if "training" in given.parts:
        for _, model, _ in chosen:
            formatted(model, "contiguous_format").requires_grad_(True)
        part = [training(*one, given.seconds) for one in chosen]
        show("a training step: times as fast as eager; memory kept, of eager's", part)
        rows += part
    if given.csv:
        pd.DataFrame(rows).to_csv(given.csv, index=False)
    gc.collect()


if __name__ == "__main__":
    sys.exit(main())
