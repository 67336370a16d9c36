"""Checkpoints of a training: everything that its next step depends on, in one file of `torch.save`, written whole."""

import hashlib
import io
import os
import pickle
import warnings
from pathlib import Path
from types import MethodType

import torch

from upconv.book.common import cache_folder, write_whole

__all__ = ["checkpoint_path", "load_checkpoint", "run_key", "save_checkpoint"]


def checkpoint_path(name, key):
    """Name the file of a run's checkpoint.

    Parameters
    ----------
    name : str or os.PathLike
        A path without a suffix; if it is relative, in the folder that the environment variable UPCONV_CHECKPOINTS
        names, or, if it is not set, in `checkpoints` of :func:`~upconv.book.common.cache_folder`.
    key : str
        Of the run, as of `run_key`.

    Returns
    -------
    pathlib.Path

    Examples
    --------
    >>> checkpoint_path("unet", "0123456789abcdef" * 4).name
    'unet-0123456789abcdef.pt'
    """
    chosen = os.environ.get("UPCONV_CHECKPOINTS")
    path = (Path(chosen).expanduser() if chosen else cache_folder() / "checkpoints") / name
    return path.with_name(f"{path.name}-{key[:16]}.pt")


def run_key(model, tensors, settings):
    """Give one SHA-256 over what a training begins with: two runs share it if they are the same run.

    Parameters
    ----------
    model : torch.nn.Module
        Before its first step: its layers and their settings, which of its parameters are trained, and its state.
    tensors : iterable of torch.Tensor or None
        What it is trained on.
    settings : dict
        How it is trained: of a module the same as of the model, of a function its name, of all else the text.

    Returns
    -------
    str

    Raises
    ------
    TypeError
        If a state has something else than tensors, or a setting is callable and has no name of its own, such as a
        lambda: another run could have the same text, or the same run another one in its next process.

    Notes
    -----
    Code does not count, neither a layer's nor a function's.

    Examples
    --------
    >>> layer = torch.nn.Linear(1, 1)
    >>> run_key(layer, [torch.zeros(2)], {"steps": 1}) == run_key(layer, [torch.zeros(2)], {"steps": 2})
    False
    """
    held = {str(place): tensor for place, tensor in enumerate(tensors) if tensor is not None} | _whole_state(model)
    for name, value in settings.items():
        if isinstance(value, torch.nn.Module):
            held |= {f"{name} {key}": tensor for key, tensor in _whole_state(value).items()}
    texts = {name: _text(value) for name, value in settings.items()}
    return _digest(f"{_text(model)}\n{texts}", held)


def save_checkpoint(path, key, model, optimizer, scaler, losses):
    """Write a checkpoint; whenever the process ends, the file is the new one or the one before.

    Parameters
    ----------
    path : pathlib.Path
    key : str
        Of the run, as of `run_key`.
    model : torch.nn.Module
    optimizer : torch.optim.Optimizer
    scaler : torch.amp.GradScaler
    losses : list of float
        Of all steps so far.

    Notes
    -----
    The states of PyTorch's global generators belong to it, for layers that draw random numbers, such as dropout. The
    last 32 bytes of the file are the SHA-256 of those before: a zip file has check sums of what is in it, and none of
    its directory, and `torch.load` looks at neither.
    """
    held = {
        "run": key,
        "model": model.state_dict(),
        "buffers": _other_buffers(model),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "losses": losses,
        "generators": [torch.get_rng_state(), *torch.cuda.get_rng_state_all()],
    }
    buffer = io.BytesIO()
    torch.save(held, buffer)
    content = buffer.getvalue()
    write_whole(Path(path), lambda file: file.write(content + hashlib.sha256(content).digest()))


def load_checkpoint(path, key, model, optimizer, scaler):
    """Put a training back to where its checkpoint was written.

    Parameters
    ----------
    path : pathlib.Path
    key : str
        Of the run, as of `run_key`.
    model, optimizer, scaler
        As they were before the first step; changed in place, on their devices. PyTorch's global generators get the
        states they had.

    Returns
    -------
    list of float
        The losses of the steps that were done; none if there is no checkpoint.

    Warns
    -----
    UserWarning
        If the file is damaged or another run's. Nothing is changed then, and the training begins anew.
    """
    if not Path(path).is_file():
        return []
    try:
        whole = Path(path).read_bytes()
        content, digest = whole[:-32], whole[-32:]
        if hashlib.sha256(content).digest() != digest:
            raise ValueError("it is not what was written")
        held = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        if held["run"] != key:
            raise ValueError("it is another run's")
    except (OSError, LookupError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
        warnings.warn(f"{path}: not a checkpoint of this run ({error}); it begins anew", stacklevel=3)
        return []
    model.load_state_dict(held["model"])
    for name, buffer in _other_buffers(model).items():
        buffer.copy_(held["buffers"][name])
    optimizer.load_state_dict(held["optimizer"])
    scaler.load_state_dict(held["scaler"])
    here, *of_gpus = held["generators"]
    torch.set_rng_state(here)
    for index, state in enumerate(of_gpus[: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state, index)
    return held["losses"]


def _state(model):
    """Give a model's state_dict, which must hold tensors alone: their values are the same in every process."""
    state = model.state_dict()
    other = [name for name, value in state.items() if not isinstance(value, torch.Tensor)]
    if other:
        raise TypeError(f"a run is told by tensors, and the state of this model has others: {', '.join(other)}")
    return state


def _other_buffers(model):
    """Give the buffers that a model's state_dict leaves out (`persistent=False`); a training may change them too."""
    kept = model.state_dict()
    return {name: buffer for name, buffer in model.named_buffers() if name not in kept}


def _whole_state(model):
    return _state(model) | _other_buffers(model)


def _text(value):
    """Tell a setting from others by a text that is the same in every process."""
    if isinstance(value, torch.nn.Module):  # not all settings of a layer are in what it prints
        parts = [
            f"{name} { ({key: held for key, held in sorted(vars(part).items()) if _is_setting(key, held)}) }"
            for name, part in value.named_modules()
        ]
        trained = {name: parameter.requires_grad for name, parameter in value.named_parameters()}  # a shared one once
        return "\n".join([str(value), *parts, str(trained)])
    if callable(value) and not isinstance(value, type):
        name = getattr(value, "__qualname__", "<")
        if "<" in name or isinstance(value, MethodType):
            raise TypeError(f"a checkpoint cannot tell {value!r} from others; give a module's function or an nn.Module")
        return f"{value.__module__}.{name}"
    return str(value)


def _is_setting(name, value):
    """Whether an attribute of a layer is a number, a text or a sequence of them."""
    if isinstance(value, (tuple, list)):
        return all(_is_setting(name, one) for one in value)
    return name != "training" and isinstance(value, (int, float, str, type(None), torch.dtype))


def _digest(text, tensors):
    total = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        total.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()
