"""What a call moves through memory, and what it keeps for the backward pass, in bytes."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["bytes_moved", "bytes_saved_for_backward"]


class _Moved(TorchDispatchMode):
    """Adds up what each operation reads and writes; a view moves nothing."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        given, made = (
            {tensor.untyped_storage().data_ptr(): tensor for tensor in tree_leaves(values) if torch.is_tensor(tensor)}
            for values in ((args, kwargs), result)
        )
        if not operation.is_view and not set(made) & set(given):
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in (*given.values(), *made.values()))
        return result


def bytes_moved(model, *inputs):
    """Count what the operations of a call in eager mode read and write.

    Each operation is taken to read its inputs once from memory and to write its result once, so it is the least that it
    can move; caches can hold some of it, and a compiler can make one operation of several.

    Parameters
    ----------
    model : torch.nn.Module
    *inputs : torch.Tensor

    Returns
    -------
    int
        Bytes. Views count nothing, and no operation that changes its input in place.
    """
    with torch.no_grad(), _Moved() as moved:
        model(*inputs)
    return moved.bytes


def bytes_saved_for_backward(model, *inputs):
    """Count what a call keeps in memory until its backward pass, beside parameters and buffers.

    Parameters
    ----------
    model : torch.nn.Module
    *inputs : torch.Tensor
        An input that is kept counts: in a network it is what the layer before has made.

    Returns
    -------
    int
        Bytes of the storages that autograd has saved, each once.
    """
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = model(*inputs)  # while it lives, no storage's address is given away again
        count = sum(size for address, size in kept.items() if address not in own)
    del result
    return count
