import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Two threads beside a neighbour's load run 4 to 8 times slower than one."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_priors(tmp_path_factory):
    """Prior files by what they are of: "mri" (complex), "ct" (HU) and "grey" images."""
    from command_line import tiny_prior

    folder = tmp_path_factory.mktemp("priors")
    return {
        "mri": tiny_prior(folder / "mri.safetensors"),
        "ct": tiny_prior(folder / "ct.safetensors", 1, scale=1000.0),
        "grey": tiny_prior(folder / "grey.safetensors", 1),
    }
