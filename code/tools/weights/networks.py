"""Trained networks from files of ncnn, as PyTorch modules, and layers from files of ONNX: only what the census needs.

In an ncnn file's `.bin` the weights stand one after the other, without names: what is read as one layer's is that
layer's only if everything before it was read right. So all layers are read, and nothing may be left at the end.
"""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["Layer", "NcnnNetwork", "onnx_transposed", "read_param"]

HALF = 0x01306B47  # says in an ncnn file that weights of 16 bits follow; 0 says 32 bits


# A line of a `.param` file; its `settings` by their numbers, arrays as lists.
Layer = namedtuple("Layer", "kind name inputs outputs settings")


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

    def transposed(self):
        """Give the transposed convolutions, by their names."""
        return {name: layer for name, layer in self.modules_of.items() if isinstance(layer, nn.ConvTranspose2d)}


def _module(layer, weights):
    """Make the PyTorch layer of an ncnn layer, with its weights."""
    settings = layer.settings
    if unknown := set(settings) - {0, 1, 2, 3, 4, 5, 6, 9, 10}:
        raise ValueError(f"{layer.kind} {layer.name} has the settings {sorted(unknown)}, which are not read here")
    if layer.kind == "InnerProduct":  # here of an image of one pixel
        settings = {0: settings[0], 1: 1, 5: settings.get(1), 6: settings[2]}
    out_channels, size = settings[0], settings[1]
    options = dict(stride=settings.get(3, 1), padding=settings.get(4, 0), dilation=settings.get(2, 1))
    kind = nn.ConvTranspose2d if layer.kind == "Deconvolution" else nn.Conv2d
    module = kind(settings[6] // (out_channels * size**2), out_channels, size, bias=bool(settings.get(5)), **options)
    weight = weights.take(out_channels, module.in_channels, size, size)  # in this order for all kinds
    module.weight = nn.Parameter(weight.transpose(0, 1).contiguous() if kind is nn.ConvTranspose2d else weight)
    if module.bias is not None:
        module.bias = nn.Parameter(weights.take(out_channels, flagged=False))
    return module.requires_grad_(False)


def _activated(settings, x):
    known = {0: lambda: x, 1: x.relu, 2: lambda: F.leaky_relu(x, settings[10][0]), 4: x.sigmoid}
    return known[settings.get(9, 0)]()


def _crop(settings, x, like=None):
    """Crop as an ncnn layer does: to the size of another image, or by the numbers of pixels at the ends."""
    if like is not None:
        top, left = settings.get(1, 0), settings.get(0, 0)
        return x[..., top : top + like.shape[2], left : left + like.shape[3]]
    for start, end, axis in zip(settings[9], settings[10], settings[11], strict=True):
        x = x.narrow(axis, start, x.shape[axis] + end - start)
    return x


_OF_NCNN = {
    "Convolution": _activated,
    "Deconvolution": _activated,
    "InnerProduct": _activated,
    "Split": lambda settings, x: x,
    "Pooling": lambda settings, x: {(1, 1): x.mean((2, 3), keepdim=True)}[settings[0], settings[4]],
    "Scale": lambda settings, x, factors: x * factors,
    "BinaryOp": lambda settings, x, y: {0: x + y, 2: x * y}[settings.get(0, 0)],
    "Eltwise": lambda settings, x, y: {1: x + y}[settings[0]],
    "Crop": _crop,
    "PixelShuffle": lambda settings, x: F.pixel_shuffle(x, settings[0]),
}


def onnx_transposed(path):
    """Read the transposed convolutions of an ONNX file, by the names of their weights."""
    import onnx  # noqa: PLC0415 - in the census's environment alone

    graph, layers = onnx.load(path).graph, {}
    values = {one.name: one for one in graph.initializer}
    values |= {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    for node in graph.node:
        if node.op_type == "ConvTranspose":
            settings = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
            if settings.get("group", 1) != 1 or {*settings.get("pads", ()), 0} != {0}:
                raise ValueError(f"{path}: a transposed convolution with {settings} is not read here")
            weight = torch.from_numpy(onnx.numpy_helper.to_array(values[node.input[1]]).copy())
            layer = nn.ConvTranspose2d(*weight.shape[:2], weight.shape[2:], settings["strides"], bias=False)
            layer.weight = nn.Parameter(weight, requires_grad=False)
            layers[node.input[1]] = layer
    return layers
