"""What the book's experiments run on: the tier, the device, the precision, and random numbers for the device."""

import os
from typing import NamedTuple

import torch

from upconv.book.common import check_choice

__all__ = ["Machine", "autocast_dtype", "default_device", "default_tier", "seeded", "this_machine"]

TIERS = ("mini", "full")


class Machine(NamedTuple):
    """What a chapter runs on. Its text says which tier and why, and how to force one.

    Examples
    --------
    >>> print(Machine("mini", torch.device("cpu"), "PyTorch sees no CUDA device"))
    The mini tier, on cpu: PyTorch sees no CUDA device.
    To force a tier, run `%env UPCONV_TIER=full` (or mini) before this cell.
    """

    tier: str
    device: torch.device
    reason: str

    def __str__(self):
        other = next(tier for tier in TIERS[::-1] if tier != self.tier)
        return (
            f"The {self.tier} tier, on {self.device}: {self.reason}.\n"
            f"To force a tier, run `%env UPCONV_TIER={other}` (or {self.tier}) before this cell."
        )


def this_machine():
    """Choose the tier and the device that this machine is good for, and say why.

    Returns
    -------
    Machine

    Raises
    ------
    ValueError
        As `default_tier` and `default_device`.

    Examples
    --------
    >>> this_machine().tier == default_tier()
    True
    """
    tier, device = default_tier(), default_device()
    if os.environ.get("UPCONV_TIER"):
        reason = "the environment variable UPCONV_TIER says so"
    elif os.environ.get("UPCONV_DEVICE"):
        reason = "the environment variable UPCONV_DEVICE chooses the device"
    elif device.type == "cuda":
        reason = f"PyTorch sees a CUDA device, {torch.cuda.get_device_name(device)}"
    else:
        reason = "PyTorch sees no CUDA device"
    return Machine(tier, device, reason)


def default_tier():
    """Choose the tier of an experiment: "full" where `default_device` is not the CPU, "mini" elsewhere.

    Returns
    -------
    str
        The value of the environment variable UPCONV_TIER, if it is set and not empty.

    Raises
    ------
    ValueError
        If UPCONV_TIER is neither "mini" nor "full", or as `default_device`.

    Examples
    --------
    >>> default_tier() in ("mini", "full")
    True
    """
    forced = os.environ.get("UPCONV_TIER")
    if forced:
        check_choice("UPCONV_TIER", forced, TIERS)
    return forced or ("mini" if default_device().type == "cpu" else "full")


def default_device():
    """Choose the device: the first CUDA device, or the CPU where there is none.

    Returns
    -------
    torch.device
        What the environment variable UPCONV_DEVICE names, if it is set and not empty, such as "cpu" or "cuda:1".

    Raises
    ------
    ValueError
        If UPCONV_DEVICE names no device of this machine.

    Examples
    --------
    >>> default_device().type in ("cpu", "cuda") or "UPCONV_DEVICE" in os.environ
    True
    """
    forced = os.environ.get("UPCONV_DEVICE")
    if not forced:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=forced)
    except (RuntimeError, AssertionError, ImportError) as error:  # PyTorch's own words differ from device to device
        raise ValueError(f"UPCONV_DEVICE={forced!r} is no device of this machine: {error}") from error
    return torch.device(forced)


def autocast_dtype(device):
    """Choose the dtype for training in mixed precision: what the device's matrix units are made for.

    Parameters
    ----------
    device : str or torch.device

    Returns
    -------
    torch.dtype or None
        bfloat16 on CUDA devices of compute capability 8.0 or more; float16, whose loss has to be scaled, on older ones,
        such as Colab's T4; None, no mixed precision, on every other device.

    Notes
    -----
    Micikevicius et al., "Mixed Precision Training" (2018), arXiv:1710.03740; Kalamkar et al., "A Study of BFLOAT16 for
    Deep Learning Training" (2019), arXiv:1905.12322.

    Examples
    --------
    >>> autocast_dtype("cpu") is None
    True
    """
    device = torch.device(device)
    if device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16


def seeded(seed, device="cpu"):
    """Make a random generator for tensors of a device.

    Parameters
    ----------
    seed : int
    device : str or torch.device
        The same seed gives other numbers on a GPU than on the CPU. What has to be the same everywhere, such as the
        order of a training set, is drawn on the CPU.

    Returns
    -------
    torch.Generator

    Examples
    --------
    >>> torch.equal(torch.rand(3, generator=seeded(1)), torch.rand(3, generator=seeded(1)))
    True
    """
    return torch.Generator(device).manual_seed(seed)
