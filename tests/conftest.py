import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Two threads beside a neighbour's load run 4 to 8 times slower than one."""
    torch.set_num_threads(1)
