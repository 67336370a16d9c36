"""Training a network to make images or to classify their pixels, and measuring how well it does.

Images are (N, C, H, W), uint8 from 0 to 255 or floating point from 0 to 1; masks are (N, H, W), int64, the class of
every pixel. A model computes in its own dtype.
"""

import math
import time
import warnings
from contextlib import nullcontext
from itertools import islice

import torch
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_

from upconv.book.checkpoints import checkpoint_path, load_checkpoint, run_key, save_checkpoint
from upconv.book.common import DELAY, checked_int, mode, progress_bar
from upconv.book.machine import seeded

__all__ = ["as_target", "check_training", "learning_rate_at", "loss_of", "psnr", "reconstruct", "shuffled", "train"]


def train(
    model,
    images,
    targets=None,
    *,
    steps,
    batch_size,
    learning_rate,
    seed,
    warmup=0,
    decay=False,
    clip=None,
    loss=None,
    device=None,
    autocast=None,
    progress=True,
    callback=None,
    checkpoint=None,
    checkpoint_seconds=60,
):
    """Train a model by Adam: to make images of images (mean squared error), or masks (cross entropy).

    The seed decides the order of the images, which is drawn on the CPU and so the same on every device; PyTorch's
    global generator is left alone. An epoch takes every image at most once and drops the last batch if it is not full.

    Parameters
    ----------
    model : torch.nn.Module
        Trained in place, in train mode; afterwards every module has the mode it came with.
    images : torch.Tensor, shape (N, C, H, W)
        uint8 from 0 to 255, or floating point from 0 to 1. They stay where they are; a batch at a time goes to
        `device`.
    targets : torch.Tensor, shape (N, ...), optional
        What the model should make of each image: an image, of the same kinds, by default the image itself; or a mask,
        int64, for which the model gives a number for each class, (N, classes, H, W).
    steps : int
        The number of batches, at least 1.
    batch_size : int
        From 1 to N.
    learning_rate : float
        Adam's; above 0.
    seed : int
        Of the order of the images.
    warmup : int
        In step i, counted from 1, the learning rate is `learning_rate * min(1, i / warmup)`; with 0 it is the same in
        every step.
    decay : bool
        Whether the learning rate also falls in equal steps to 0 at the end, by the factor `1 - (i - 1) / steps`.
    clip : float, optional
        The largest norm of all gradients together; a longer one is shortened to it (`nn.utils.clip_grad_norm_`).
    loss : callable, optional
        Given what the model makes and what it should make, returns a scalar; by default `F.mse_loss` for images and
        `F.cross_entropy` for masks.
    device : str, torch.device or None
        Where the model is moved and trained, and then stays. None: where it is.
    autocast : torch.dtype, optional
        Mixed precision: the dtype of what PyTorch computes in a lower one (`torch.autocast`), such as
        `upconv.book.machine.autocast_dtype` gives for a device. The loss is taken in the model's own, and with float16
        it is scaled (`torch.amp.GradScaler`). None: everything in the model's own.
    progress : bool or str
        Whether to show a progress bar; a str is its label. TQDM_DISABLE=1 in the environment hides it, and so does
        pytest, which compares outputs.
    callback : callable, optional
        Called with the number of steps done, before the first step and after each. The model is in train mode. A run
        that goes on from a checkpoint does not call it for the steps that were done before.
    checkpoint : str or os.PathLike, optional
        Where the run is kept so that it goes on where it was if it is lost: a name, for a file in the folder of
        `upconv.book.checkpoints.checkpoint_path`, or a path. The file's name also has a key of the run (the model, its
        weights, the images, the settings), so that another run never continues this one; what only the code of a layer
        or a loss says is not in it. A run that was finished is read back and not made again, until its file is deleted;
        PyTorch's global generators then go on as after the run. None: nothing is kept.
    checkpoint_seconds : float
        The file is written when so many seconds went by since the last time, and at the end.

    Returns
    -------
    list of float
        The loss of every step, measured before its update; also of the steps before a checkpoint.

    Raises
    ------
    TypeError
        If `images` is not uint8 or floating point, `targets` not that or int64, or `steps` or `batch_size` not an int;
        with a checkpoint, if a state has something else than tensors, or `loss` is neither a function that a module
        names nor an `nn.Module`.
    ValueError
        If `steps`, `batch_size`, `learning_rate` or `warmup` is out of its range, there are more or fewer targets than
        images, or the model's output does not have the shape of its target.
    FloatingPointError
        If a loss is infinite or not a number; the weights are then those before that step.

    Warns
    -----
    UserWarning
        If the checkpoint is damaged, and the training begins anew; or if it cannot be written.

    Notes
    -----
    Adam: Kingma and Ba (2015), arXiv:1412.6980.

    Examples
    --------
    >>> images = torch.rand(100, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> with torch.random.fork_rng():
    ...     _ = torch.manual_seed(0)
    ...     model = torch.nn.Conv2d(1, 1, kernel_size=3, padding=1)
    >>> losses = train(model, images, steps=50, batch_size=10, learning_rate=0.1, seed=0, progress=False)
    >>> len(losses), losses[-1] < losses[0] / 2
    (50, True)
    """
    steps, batch_size = checked_int("steps", steps, at_least=1), checked_int("batch_size", batch_size, at_least=1)
    warmup = checked_int("warmup", warmup, at_least=0)
    check_training(images, targets, batch_size, learning_rate)
    model.to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)  # refuses a model without parameters
    place = next(model.parameters()).device.type
    scaler = torch.amp.GradScaler(place, enabled=autocast == torch.float16)
    losses, path = [], None
    if checkpoint is not None:
        settings = dict(steps=steps, batch_size=batch_size, learning_rate=learning_rate, seed=seed, warmup=warmup)
        key = run_key(model, (images, targets), settings | dict(decay=decay, clip=clip, loss=loss, autocast=autocast))
        path = checkpoint_path(checkpoint, key)
        losses = load_checkpoint(path, key, model, optimizer, scaler)
        if losses and progress:
            print(f"{len(losses):,} of {steps:,} steps were done before; {path.name} has them")
    done = len(losses)
    batches = islice(shuffled(len(images), batch_size, seeded(seed)), done, None)
    label = progress if isinstance(progress, str) else None
    with mode(model, training=True), progress_bar(steps, label, done=done, shown=bool(progress)) as bar:
        saved = time.monotonic()
        if callback:
            callback(done)
        for step, indices in zip(range(done, steps), batches, strict=False):
            batch = _as_input(images[indices], model)
            wanted = batch if targets is None else as_target(targets[indices], model)
            with nullcontext() if autocast is None else torch.autocast(place, autocast):
                made = model(batch)
            error = loss_of(made if autocast is None else made.to(batch.dtype), wanted, loss)
            losses.append(error.item())
            if not math.isfinite(losses[-1]):
                raise FloatingPointError(
                    f"the loss is {losses[-1]} in step {step} of {steps}; check that the images are finite, or lower "
                    f"learning_rate={learning_rate!r}"
                )
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(step, steps, learning_rate, warmup, decay)
            optimizer.zero_grad()
            scaler.scale(error).backward()
            if clip is not None:
                scaler.unscale_(optimizer)
                clip_grad_norm_(model.parameters(), clip)
            scaler.step(optimizer)
            scaler.update()
            if step % 50 == 0:
                bar.set_postfix(loss=f"{losses[-1]:.4f}", refresh=False)
            bar.update()
            if callback:
                callback(step + 1)
            if path and (step + 1 == steps or time.monotonic() - saved >= checkpoint_seconds):
                try:
                    save_checkpoint(path, key, model, optimizer, scaler, losses)
                except OSError as error:
                    warnings.warn(f"{path}: cannot be written ({error}); the training goes on without", stacklevel=2)
                saved = time.monotonic()
    return losses


def reconstruct(model, images, *, batch_size=250):
    """Run a model over images in eval mode and without gradients.

    Parameters
    ----------
    model : torch.nn.Module
        It stays where it is, and every module of it has the mode it came with afterwards.
    images : torch.Tensor, shape (N, C, H, W)
        uint8 from 0 to 255, or floating point from 0 to 1.
    batch_size : int
        The number of images that go to the model's device at a time, at least 1.

    Returns
    -------
    torch.Tensor, shape (N, C, H, W)
        In the model's dtype and on the images' device, so that the two can be compared.

    Raises
    ------
    TypeError
        If `images` is not uint8 or floating point, or `batch_size` not an int.
    ValueError
        If `batch_size` is below 1.

    Examples
    --------
    >>> images = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(3, 1, 1, 1)
    >>> reconstruct(torch.nn.PReLU(), images).flatten()
    tensor([0.0000, 0.2000, 1.0000])
    """
    batch_size = checked_int("batch_size", batch_size, at_least=1)
    made = []
    bar = progress_bar(len(images), "images", unit="image", delay=DELAY)
    with mode(model, training=False), torch.no_grad(), bar:
        for batch in images.split(batch_size):
            made.append(model(_as_input(batch, model)).to(images.device))
            bar.update(len(batch))
    return torch.cat(made)


def psnr(images, reference):
    """Give the peak signal-to-noise ratio of each image in dB, 10 log10(1 / MSE) for a peak of 1.

    Parameters
    ----------
    images, reference : torch.Tensor, shape (N, ...)
        uint8 from 0 to 255, or floating point in units of the peak (values outside 0 to 1 count as they are).

    Returns
    -------
    torch.Tensor of float64, shape (N,)
        Infinite where an image equals its reference.

    Raises
    ------
    TypeError
        If `images` or `reference` is not uint8 or floating point.
    ValueError
        If the shapes differ.

    Notes
    -----
    What `skimage.metrics.peak_signal_noise_ratio(reference, image, data_range=1)` computes for one image. The PSNR of
    the mean squared error over all images is that of the one image `images.reshape(1, -1)`; it is at most the mean of
    the images' values.

    Examples
    --------
    >>> reference = torch.zeros(2, 1, 2, 2)
    >>> images = torch.tensor([0.1, 0.01]).reshape(2, 1, 1, 1).expand(2, 1, 2, 2)
    >>> psnr(images, reference).round(decimals=3)
    tensor([20., 40.], dtype=torch.float64)
    """
    if images.shape != reference.shape:
        raise ValueError(
            f"images and reference must have the same shape, not {tuple(images.shape)} and {tuple(reference.shape)}"
        )
    error = _as_floats(images, torch.float64) - _as_floats(reference, torch.float64)
    return -10 * error.square().flatten(1).mean(dim=1).log10()


def check_training(images, targets, batch_size, learning_rate):
    """Refuse a training whose numbers are out of their ranges or do not fit.

    Parameters
    ----------
    images, targets, batch_size, learning_rate
        As of `train`.

    Raises
    ------
    ValueError
        As `train` says.
    """
    if batch_size > len(images):
        raise ValueError(f"batch_size={batch_size} must be from 1 to {len(images)}, the number of images")
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate={learning_rate!r} must be a finite number above 0")
    if targets is not None and len(targets) != len(images):
        raise ValueError(f"there are {len(targets)} targets for {len(images)} images")


def learning_rate_at(step, steps, learning_rate, warmup=0, decay=False):
    """Give the learning rate of a step, counted from 0: rising over `warmup` steps, with `decay` falling to 0.

    Parameters
    ----------
    step : int
    steps, learning_rate, warmup, decay
        As of `train`.

    Returns
    -------
    float

    Examples
    --------
    >>> [round(learning_rate_at(step, 4, 0.1, warmup=2, decay=True), 4) for step in range(4)]
    [0.05, 0.075, 0.05, 0.025]
    """
    return learning_rate * min(1, (step + 1) / max(1, warmup)) * (1 - step / steps if decay else 1)


def shuffled(count, batch_size, generator):
    """Yield the indices of batches for ever, each epoch of a new permutation, without a last batch that is not full.

    Parameters
    ----------
    count : int
        Of the images.
    batch_size : int
        From 1 to `count`.
    generator : torch.Generator
        Of the permutations.

    Yields
    ------
    torch.Tensor of int64, shape (batch_size,)
    """
    while True:
        order = torch.randperm(count, generator=generator)
        yield from order[: count - count % batch_size].split(batch_size)


def _as_floats(images, dtype):
    if images.dtype == torch.uint8:
        return images.to(dtype) / 255
    if not images.is_floating_point():
        raise TypeError(f"images must be uint8 (0 to 255) or floating point (0 to 1), not {images.dtype}")
    return images.to(dtype)


def as_target(targets, model):
    """Bring images to a model as it takes them, and masks, int64, as they are.

    Parameters
    ----------
    targets : torch.Tensor
        As of `train`.
    model : torch.nn.Module

    Returns
    -------
    torch.Tensor
        On the model's device; images in its dtype, from 0 to 1.
    """
    if targets.dtype == torch.int64:
        return targets.to(next(model.parameters()).device)
    return _as_input(targets, model)


def loss_of(made, wanted, loss=None):
    """Return the loss of what a model made; it must have the shape of an image, or of a mask with a number a class.

    Parameters
    ----------
    made : torch.Tensor
    wanted : torch.Tensor
        As of `as_target`.
    loss : callable, optional
        As of `train`.

    Returns
    -------
    torch.Tensor
        A scalar.

    Raises
    ------
    ValueError
        If the shapes do not fit.
    """
    mask = wanted.dtype == torch.int64
    shape = (*made.shape[:1], *made.shape[2:]) if mask else made.shape
    if shape != wanted.shape:  # mse_loss would broadcast, with a warning
        kind = "mask (int64) is" if mask else "target is"
        raise ValueError(f"the model makes {tuple(made.shape)} where the {kind} {tuple(wanted.shape)}")
    return (loss or (F.cross_entropy if mask else F.mse_loss))(made, wanted)


def _as_input(images, model):
    parameter = next(model.parameters())
    return _as_floats(images.to(parameter.device), parameter.dtype)
