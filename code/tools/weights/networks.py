"""Trained networks from files of ncnn and ONNX, as PyTorch modules: only what the networks of the census are made of.

In an ncnn file's `.bin` the weights stand one after the other, without names: what is read as one layer's is that
layer's only if everything before it was read right. So all layers are read, and nothing may be left at the end.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["Layer", "NcnnNetwork", "OnnxNetwork", "read_param"]

HALF = 0x01306B47  # says in an ncnn file that weights of 16 bits follow; 0 says 32 bits


class Layer(NamedTuple):
    """A line of a `.param` file; `settings` by their numbers, arrays as lists."""

    kind: str
    name: str
    inputs: list
    outputs: list
    settings: dict


def read_param(path):
    """Read the layers of an ncnn `.param` file, in their order."""
    magic, _, *lines = Path(path).read_text(encoding="utf-8").splitlines()
    if magic.strip() != "7767517":
        raise ValueError(f"{path} is no .param file of ncnn")
    return [_layer(*line.split()) for line in lines if line.strip()]


def _layer(kind, name, inputs, outputs, *others):
    inputs, outputs = int(inputs), int(outputs)
    blobs, settings = others[: inputs + outputs], {}
    for text in others[inputs + outputs :]:
        key, _, value = text.partition("=")
        numbers = [int(number) if number.lstrip("-").isdigit() else float(number) for number in value.split(",")]
        if int(key) <= -23300:  # an array, which begins with its length
            settings[-23300 - int(key)] = numbers[1:]
        else:
            [settings[int(key)]] = numbers
    return Layer(kind, name, list(blobs[:inputs]), list(blobs[inputs:]), settings)


class _Weights:
    """The weights of a `.bin` file, taken from its beginning to its end."""

    def __init__(self, content):
        self.content, self.place = content, 0

    def take(self, *shape, flagged=True):
        """Give the next weights, in float32; `flagged` if a number before them says how they are stored."""
        kind = np.dtype("<f4")
        if flagged:
            flag = int.from_bytes(self.content[self.place : self.place + 4], "little")
            if flag not in (0, HALF):
                raise ValueError(f"weights are stored in the way {flag:#x}, which is not read here")
            self.place, kind = self.place + 4, np.dtype("<f2") if flag else kind
        count = int(np.prod(shape))
        values = np.frombuffer(self.content, kind, count, self.place).astype(np.float32)
        self.place += -(-count * kind.itemsize // 4) * 4
        return torch.from_numpy(values).reshape(shape)


class NcnnNetwork(nn.Module):
    """An ncnn network; its layers with weights are modules with the names that they have in the file.

    Parameters
    ----------
    param, bin : pathlib.Path
        The two files.
    """

    def __init__(self, param, bin):
        super().__init__()
        self.layers, self.modules_of = read_param(param), nn.ModuleDict()
        weights = _Weights(Path(bin).read_bytes())
        for layer in self.layers:
            if layer.kind in ("Convolution", "Deconvolution", "InnerProduct"):
                self.modules_of[layer.name] = _module(layer, weights)
        if weights.place != len(weights.content):
            raise ValueError(f"{bin}: {len(weights.content) - weights.place} bytes were not read")

    def forward(self, x):
        """Give the last output of an image (N, C, H, W)."""
        blobs = {}
        for layer in self.layers:
            inputs = [blobs[name] for name in layer.inputs]
            if layer.name in self.modules_of:
                inputs = [self.modules_of[layer.name](inputs[0])]
            output = x if layer.kind == "Input" else _OF_NCNN[layer.kind](layer.settings, *inputs)
            blobs |= dict.fromkeys(layer.outputs, output)
        return output


def _module(layer, weights):
    """Make the PyTorch layer of an ncnn layer, with its weights."""
    settings, out_channels = layer.settings, layer.settings[0]
    if unknown := set(settings) - {0, 1, 2, 3, 4, 5, 6, 9, 10}:
        raise ValueError(f"{layer.kind} {layer.name} has the settings {sorted(unknown)}, which are not read here")
    if layer.kind == "InnerProduct":
        module = nn.Linear(settings[2] // out_channels, out_channels, bias=bool(settings.get(1)))
        weight = weights.take(*module.weight.shape)
    else:
        size, options = settings[1], dict(stride=settings.get(3, 1), padding=settings.get(4, 0))
        kind = nn.Conv2d if layer.kind == "Convolution" else nn.ConvTranspose2d
        in_channels = settings[6] // (out_channels * size**2)
        options |= dict(dilation=settings.get(2, 1), bias=bool(settings.get(5)))
        module = kind(in_channels, out_channels, size, **options)
        weight = weights.take(out_channels, in_channels, size, size)  # in this order for both kinds
        weight = weight.transpose(0, 1).contiguous() if kind is nn.ConvTranspose2d else weight
    module.weight = nn.Parameter(weight)
    if module.bias is not None:
        module.bias = nn.Parameter(weights.take(out_channels, flagged=False))
    return module.requires_grad_(False)


def _activated(settings, x):
    kind = settings.get(9, 0)
    known = {0: lambda: x, 1: x.relu, 2: lambda: F.leaky_relu(x, settings[10][0]), 4: x.sigmoid}
    return known[kind]()


def _crop(settings, x, like=None):
    """Crop as an ncnn layer does: to the size of another image, or by the numbers of pixels at the ends."""
    if like is not None:
        top, left = settings.get(1, 0), settings.get(0, 0)
        return x[..., top : top + like.shape[2], left : left + like.shape[3]]
    for start, end, axis in zip(settings[9], settings[10], settings[11], strict=True):
        x = x.narrow(axis, start, x.shape[axis] + end - start)
    return x


def _mean(settings, x):
    if (settings[0], settings.get(4)) != (1, 1):
        raise ValueError(f"a pooling with {settings} is not read here, only the mean of the whole image")
    return x.mean((2, 3))


def _each_channel(values):
    return values[..., None, None] if values.dim() == 2 else values


_OF_NCNN = {
    "Convolution": _activated,
    "Deconvolution": _activated,
    "InnerProduct": _activated,
    "Split": lambda settings, x: x,
    "Pooling": _mean,
    "Scale": lambda settings, x, factors: x * _each_channel(factors),
    "BinaryOp": lambda settings, x, y: (torch.add, None, torch.mul)[settings.get(0, 0)](x, _each_channel(y)),
    "Eltwise": lambda settings, x, y: {1: x + y}[settings[0]],
    "Crop": _crop,
    "PixelShuffle": lambda settings, x: F.pixel_shuffle(x, settings[0]),
}


class OnnxNetwork(nn.Module):
    """An ONNX network; its transposed convolutions are modules, in `transposed`, by the names of their weights.

    Parameters
    ----------
    path : pathlib.Path
    """

    def __init__(self, path):
        import onnx  # noqa: PLC0415 - in the census's environment alone

        super().__init__()
        graph = onnx.load(path).graph
        self.input, self.nodes, self.transposed = graph.input[0].name, [], nn.ModuleDict()
        self.values = {"": None} | {one.name: _tensor(onnx, one) for one in graph.initializer}
        for node in graph.node:
            settings = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
            if node.op_type == "Constant":
                self.values[node.output[0]] = _tensor(onnx, settings["value"])
                continue
            if node.op_type == "ConvTranspose":
                self._transposed(node.input[1], settings, *(self.values[name] for name in node.input[1:]))
            self.nodes.append((node.op_type, settings, list(node.input), node.output[0]))

    def _transposed(self, name, settings, weight, bias=None):
        if any(settings["pads"]) or settings["group"] != 1 or set(settings["dilations"]) != {1}:
            raise ValueError(f"a transposed convolution with {settings} is not read here")
        module = nn.ConvTranspose2d(*weight.shape[:2], weight.shape[2:], settings["strides"], bias=bias is not None)
        module.weight = nn.Parameter(weight)
        if bias is not None:
            module.bias = nn.Parameter(bias)
        self.transposed[name.replace(".", "_")] = module.requires_grad_(False)

    def forward(self, x):
        """Give the last output of an image (N, C, H, W)."""
        values = self.values | {self.input: x}
        for kind, settings, inputs, output in self.nodes:
            given = [values[name] for name in inputs]
            if kind == "ConvTranspose":
                values[output] = self.transposed[inputs[1].replace(".", "_")](given[0])
            else:
                values[output] = _OF_ONNX[kind](settings, *given)
        return values[output]


def _tensor(onnx, value):
    return torch.from_numpy(onnx.numpy_helper.to_array(value).copy())


def _conv(settings, x, weight, bias=None):
    top, left, bottom, right = settings["pads"]
    if (top, left) != (bottom, right):
        raise ValueError(f"a convolution with pads={settings['pads']} is not read here")
    return F.conv2d(x, weight, bias, settings["strides"], (top, left), settings["dilations"], settings["group"])


_OF_ONNX = {
    "Add": lambda settings, x, y: x + y,
    "Mul": lambda settings, x, y: x * y,
    "Div": lambda settings, x, y: x / y,
    "Relu": lambda settings, x: x.relu(),
    "Sigmoid": lambda settings, x: x.sigmoid(),
    "HardSigmoid": lambda settings, x: (settings["alpha"] * x + settings["beta"]).clamp(0, 1),
    "Clip": lambda settings, x, low, high: x.clamp(low, high),
    "Concat": lambda settings, *all: torch.cat(all, settings["axis"]),
    "GlobalAveragePool": lambda settings, x: x.mean((2, 3), keepdim=True),
    "BatchNormalization": lambda settings, x, weight, bias, mean, var: F.batch_norm(
        x, mean, var, weight, bias, eps=settings["epsilon"]
    ),
    "Resize": lambda settings, x, roi, scales: F.interpolate(x, scale_factor=scales[2:].tolist()),
    "Conv": _conv,
}
