"""Several networks of one kind trained at once, each as if alone: a GPU does so in little more than the time of one."""

import copy
from itertools import islice

import torch
from torch.func import functional_call, stack_module_state, vmap

from upconv.book.common import checked_int, progress_bar
from upconv.book.machine import seeded
from upconv.book.training import as_target, check_training, learning_rate_at, loss_of, shuffled

__all__ = ["train_together"]

WARM_UP = 3  # steps before a CUDA graph is captured, as PyTorch's notes on CUDA graphs ask


def train_together(
    models,
    images,
    targets=None,
    *,
    steps,
    batch_size,
    learning_rate,
    seeds,
    warmup=0,
    decay=False,
    clip=None,
    device=None,
    progress=False,
    callback=None,
    looks=(),
):
    """Train networks that differ in their weights alone, each by its own seed's order of the images.

    What each becomes is what `upconv.book.training.train` makes of it, but for rounding. Their weights are stacked, and
    what a network computes for its batch is computed for all in one call; on a GPU a step is captured once and
    replayed. A loss that is not finite stops none of the others: look at what is returned.

    Parameters
    ----------
    models : list of torch.nn.Module
        Of one architecture; trained in place, in train mode, in float32. They stay where they are.
    images, targets, steps, batch_size, learning_rate, warmup, decay, clip
        As of `upconv.book.training.train`.
    seeds : list of int
        One for each model.
    device : str, torch.device or None
        Where they are trained. None: where the first one is.
    progress : bool or str
        As of `upconv.book.training.train`.
    callback : callable, optional
        Called with the number of steps done, after those in `looks` and after all; the models then have the weights of
        that moment.
    looks : collection of int
        0 is before the first step.

    Returns
    -------
    torch.Tensor, shape (steps, len(models))
        The loss of every step, measured before its update, on the CPU.

    Raises
    ------
    TypeError, ValueError
        As of `upconv.book.training.train`, and if there is not one seed for each model.

    Notes
    -----
    Stacked weights and `torch.func.vmap` are PyTorch's own recipe for ensembles; a convolution of each network
    becomes a group of one grouped convolution.

    Examples
    --------
    >>> images = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> models = [torch.nn.Conv2d(1, 1, kernel_size=3, padding=1) for _ in range(3)]
    >>> losses = train_together(models, images, steps=40, batch_size=10, learning_rate=0.1, seeds=[0, 1, 2])
    >>> losses.shape, bool((losses[-1] < losses[0]).all())
    (torch.Size([40, 3]), True)
    """
    steps, batch_size = checked_int("steps", steps, at_least=1), checked_int("batch_size", batch_size, at_least=1)
    warmup = checked_int("warmup", warmup, at_least=0)
    check_training(images, targets, batch_size, learning_rate)
    if len(seeds) != len(models):
        raise ValueError(f"there are {len(seeds)} seeds for {len(models)} models")
    device = torch.device(device or next(models[0].parameters()).device)
    base = copy.deepcopy(models[0]).to(device).train()  # says how; its weights are not used
    parameters, buffers = (
        {name: tensor.detach().to(device).requires_grad_(tensor.requires_grad) for name, tensor in stacked.items()}
        for stacked in stack_module_state(models)
    )
    images = images.to(device)
    targets = None if targets is None else targets.to(device)
    orders = [islice(shuffled(len(images), batch_size, seeded(seed)), steps) for seed in seeds]
    order = torch.stack([torch.stack(list(one)) for one in orders], dim=1).to(device)  # (steps, models, batch_size)
    rates = [learning_rate_at(step, steps, learning_rate, warmup, decay) for step in range(steps)]
    rates = torch.tensor(rates, dtype=torch.float32, device=device)
    done, rate = torch.zeros(1, dtype=torch.int64, device=device), torch.zeros((), device=device)
    losses = torch.zeros(steps, len(models), device=device)
    moved = [tensor for tensor in parameters.values() if tensor.requires_grad]
    optimizer = torch.optim.Adam(moved, lr=rate, fused=True, capturable=device.type == "cuda")

    def loss_of_one(parameters, buffers, batch, wanted):
        return loss_of(functional_call(base, (parameters, buffers), (batch,)), wanted)

    def step():
        taken = order.index_select(0, done)[0]
        batch = as_target(images[taken], base)
        wanted = batch if targets is None else as_target(targets[taken], base)
        each = vmap(loss_of_one, randomness="error")(parameters, buffers, batch, wanted)
        each.sum().backward()
        if clip is not None:
            norms = torch.stack([tensor.grad.flatten(1).norm(dim=1) for tensor in moved]).norm(dim=0)
            factors = (clip / (norms + 1e-6)).clamp(max=1)  # as nn.utils.clip_grad_norm_ has it
            for tensor in moved:
                tensor.grad *= factors.reshape(-1, *[1] * (tensor.dim() - 1))
        losses.index_copy_(0, done, each.detach()[None])
        rate.copy_(rates.index_select(0, done)[0])
        optimizer.step()
        done.add_(1)

    run = step
    if device.type == "cuda":
        with torch.cuda.device(device):
            run = _captured(step, optimizer, [*parameters.values(), *buffers.values()], done)
    label = progress if isinstance(progress, str) else None
    with progress_bar(steps, label, shown=bool(progress)) as bar:
        for number in range(steps + 1):
            if callback and (number in looks or number == steps):
                _copy_back(models, parameters, buffers)
                callback(number)
            if number < steps:
                if run is step:
                    optimizer.zero_grad()
                run()
                bar.update()
    _copy_back(models, parameters, buffers)
    return losses.cpu()


def _captured(step, optimizer, state, done):
    """Capture a step as a CUDA graph; what warming up changed is put back."""
    before = [tensor.detach().clone() for tensor in state]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            optimizer.zero_grad()
            step()
            done.zero_()  # a run may have fewer steps
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    optimizer.zero_grad()  # the graph makes the gradients anew, in its own memory
    with torch.cuda.graph(graph):
        step()
    with torch.no_grad():
        for tensor, value in zip(state, before, strict=True):
            tensor.copy_(value)
    for kept in optimizer.state.values():
        for tensor in kept.values():
            tensor.zero_()
    done.zero_()
    return graph.replay


def _copy_back(models, parameters, buffers):
    with torch.no_grad():
        for number, model in enumerate(models):
            for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
                tensor.copy_((parameters if name in parameters else buffers)[name][number])
