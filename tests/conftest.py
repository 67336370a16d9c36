"""Settings for the unit tests; those for the chapters too are in the conftest.py above."""

import pytest
import torch


@pytest.fixture(autouse=True)
def seeded():
    """Draw the same tensors in every test, on one thread, and leave PyTorch's random state as it was."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)
