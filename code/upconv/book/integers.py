"""Random tensors and layers of whole numbers: sums of their products are exact, so `torch.equal` can compare them."""

import torch

__all__ = ["integers", "with_integers"]


def integers(*shape):
    """Draw whole numbers from -9 to 9 from PyTorch's global generator.

    Parameters
    ----------
    *shape : int
        The sizes of the axes.

    Returns
    -------
    torch.Tensor
        Of float64: sums of products of such numbers are exact below 2**53.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> integers(2, 3)
    tensor([[ 6., -5., -9.],
            [-9.,  2., -2.]], dtype=torch.float64)
    """
    return torch.randint(-9, 10, shape).double()


def with_integers(module):
    """Give a module whole-numbered weights and biases in float64.

    Parameters
    ----------
    module : torch.nn.Module
        Changed in place; its parameters are drawn by `integers`, in their order.

    Returns
    -------
    torch.nn.Module
        The same module.

    Examples
    --------
    >>> layer = with_integers(torch.nn.Conv2d(2, 2, kernel_size=1))
    >>> torch.equal(layer.weight, layer.weight.round()), layer.bias.dtype
    (True, torch.float64)
    """
    for parameter in module.double().parameters():
        parameter.data = integers(*parameter.shape)
    return module
