"""What a layer or a model costs: parameters, and multiply-accumulates on given inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from upconv._recording import Inputs, copied

__all__ = ["macs", "parameters"]


def parameters(model: nn.Module) -> int:
    """Count the parameters of a layer or a model, each number once, also where layers share it.

    Parameters
    ----------
    model : torch.nn.Module

    Returns
    -------
    int

    See Also
    --------
    macs : What they are used for, counted.

    Examples
    --------
    >>> parameters(nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1))  # 64 * 32 * 4 * 4 + 32
    32800
    """
    return sum(parameter.numel() for parameter in model.parameters())


def macs(
    model: nn.Module,
    example_inputs: torch.Tensor | tuple[Any, ...] = (),
    *,
    example_kwargs: dict[str, Any] | None = None,
) -> int:
    """Count the multiply-accumulates of a call: one is a multiplication and the addition of its product.

    Parameters
    ----------
    model : torch.nn.Module
        It is left as it is: a copy is run, in eval mode.
    example_inputs : torch.Tensor or tuple
        Its positional inputs; the count is that of the whole batch.
    example_kwargs : dict, optional
        Its inputs by name.

    Returns
    -------
    int
        Of convolutions, transposed ones and matrix products, biases left out; element-wise operations and upsampling
        count nothing. So the count says what arithmetic there is, not how long a call takes.

    Raises
    ------
    TypeError
        If `example_inputs` is neither a tensor nor a tuple.

    See Also
    --------
    parameters : The numbers that are kept.

    Notes
    -----
    Half the operations that `FlopCounterMode` of `torch.utils.flop_counter` counts. A Conv2d does k * k * in_channels /
    groups of them for each output pixel and output channel, a ConvTranspose2d k * k * out_channels / groups for each
    input pixel and input channel, where parts of the kernel may fall outside the output and count all the same.

    Examples
    --------
    >>> x = torch.zeros(1, 64, 32, 32)
    >>> macs(nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(64, 64, 3, padding=1)), x)
    150994944
    >>> macs(nn.ConvTranspose2d(64, 64, 4, stride=2, padding=1), x)
    67108864
    """
    with FlopCounterMode(display=False) as counter:
        Inputs(example_inputs, example_kwargs).run(copied(model))
    return counter.get_total_flops() // 2
