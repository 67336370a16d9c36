"""Make models of their descriptions, in a process that downloads nothing and lacks packages that only they import."""

import importlib
import importlib.machinery
import importlib.metadata
import os
import socket
import sys
import types
import warnings

import torch

from tools.census.models import New

__all__ = ["build", "inputs_of", "made", "offline", "stand_in"]


def build(value):
    """Make what a `New` says, and all such inside of lists, tuples and dicts."""
    if isinstance(value, New):
        module, name = value.path.rsplit(".", 1)
        return getattr(importlib.import_module(module), name)(*build(list(value.arguments)), **build(value.settings))
    if isinstance(value, dict):
        return {key: build(one) for key, one in value.items()}
    return type(value)(map(build, value)) if type(value) in (list, tuple) else value


def made(make, part):
    """Build a model, and give the part that is looked at, without gradients."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return build(make).get_submodule(part).eval().requires_grad_(False)


def inputs_of(inputs, device="cpu"):
    """Make inputs: random images of the sizes that are tuples. Give positional ones, and those by name."""
    generator = torch.Generator().manual_seed(0)

    def value(one):
        if type(one) is tuple:
            return torch.rand(one, generator=generator).to(device)
        one = list(map(value, one)) if type(one) is list else build(one)
        return one.to(device) if isinstance(one, torch.Tensor) else one

    if isinstance(inputs, dict):
        return (), {name: value(one) for name, one in inputs.items()}
    return tuple(map(value, inputs)), {}


def offline():
    """Let this process reach no other host, and ask for none."""

    def refuse(*_, **__):
        raise OSError("the census downloads nothing")

    socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
    os.environ |= dict(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", YOLO_OFFLINE="1", YOLO_AUTOINSTALL="0")
    os.environ["YOLO_CONFIG_DIR"] = sys.prefix  # or it writes into the user's folder


def stand_in(names):
    """Let packages be imported that are not installed, for those that need them for other things than building."""
    sys.meta_path.append(_StandIns(names))


class _StandIns(importlib.metadata.Distribution):
    """Finds the packages, gives modules in which every name is a class that does nothing, and says a version."""

    def __init__(self, names):
        self.names = names

    def find_spec(self, name, path=None, target=None):
        known = name.partition(".")[0] in self.names
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if known else None

    def create_module(self, spec):
        module = types.ModuleType(spec.name)
        module.__getattr__, module.__version__ = _nothing, "0.0.0"
        return module

    def exec_module(self, module):
        pass

    def find_distributions(self, context):
        return [self] if context.name in self.names else []

    def read_text(self, filename):
        return "Version: 0.0.0"

    def locate_file(self, path):
        return path


def _nothing(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return _Nothing(name, (), dict(__init__=lambda self, *_, **__: None))


class _Nothing(type):
    def __getattr__(cls, name):
        return _nothing(name)
