"""Time calls by turns, as they are called and on a GPU without their launches; and count the memory that they take."""

import statistics
import time
from functools import partial

import torch

__all__ = ["interleaved", "kept", "peak", "replayed"]

LEAST = 5  # rounds, however long they take
CALLS = 20  # in a CUDA graph, fewer if they take over half a millisecond each


def interleaved(calls, seconds, device):
    """Time calls by turns until this many seconds have passed; give the median of each, in milliseconds."""

    def timed(call):
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return 1000 * (time.perf_counter() - start)

    return _medians({name: partial(timed, call) for name, call in calls.items()}, seconds)


def replayed(calls, milliseconds, seconds, plain=()):
    """Time calls on a GPU without their launches: a CUDA graph of several is replayed, between two events.

    Parameters
    ----------
    calls : dict of str to callable
    milliseconds : dict of str to float
        What a call of each takes, as `interleaved` found it.
    seconds : float
    plain : collection of str
        Those of which no graph is made: calls so long that their launches are hidden when several follow each other.

    Returns
    -------
    dict of str to float
        The medians for one call, in milliseconds. What no graph can be made of is missing, and named in a printed line.
    """
    timers = {}
    for name, call in calls.items():
        count = max(2, min(CALLS, int(10 / milliseconds[name])))
        try:
            replay = partial(_repeat, call, count) if name in plain else _captured(call, count)
        except RuntimeError as error:
            print(f"  no CUDA graph of {name}: {str(error).partition(chr(10))[0]}")
            continue
        timers[name] = partial(_between_events, replay, count)
    return _medians(timers, seconds)


def _captured(call, count):
    """Make a CUDA graph of several calls; give what replays it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # a call there before, as PyTorch's notes on graphs ask for
        _repeat(call, 2)
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        _repeat(call, count)
    return graph.replay


def _repeat(call, count):
    for _ in range(count):
        call()


def _between_events(replay, count):
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    replay()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / count


def _medians(timers, seconds):
    for timer in timers.values():
        timer()
    times, end = {name: [] for name in timers}, time.perf_counter() + seconds
    for turn in range(10**6 if timers else 0):
        if turn >= LEAST and time.perf_counter() > end:
            break
        for name, timer in timers.items():
            times[name].append(timer())
    return {name: statistics.median(values) for name, values in times.items()}


def peak(call):
    """Give the memory that a call takes at most on a GPU beside what is there, its result included, in MB."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def kept(model, x):
    """Give what a forward pass keeps for the backward one beside the model and its input, in MB.

    On a GPU by its memory, the result included; elsewhere by the tensors that autograd saves.
    """
    if x.is_cuda:
        before = torch.cuda.memory_allocated()
        result = model(x)
        after = torch.cuda.memory_allocated()
        del result
        return (after - before) / 1e6
    known = {value.untyped_storage().data_ptr() for value in (x, *model.parameters(), *model.buffers())}
    storages = {}

    def pack(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = model(x)
    del result
    return sum(size for pointer, size in storages.items() if pointer not in known) / 1e6
