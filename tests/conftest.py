from contextlib import nullcontext

import pytest
import torch


def pytest_addoption(parser):
    parser.addoption(
        "--seed-shift", type=int, default=0, help="add N to the seeds of tests: other draws"
    )
    parser.addoption("--threads", type=int, default=1, help="torch's threads in a test process")


def pytest_configure(config):
    import seeds

    seeds.install(config.getoption("--seed-shift"))


@pytest.fixture(autouse=True, scope="session")
def _threads(request):
    """One unless asked: two beside a neighbour's load run 4 to 8 times slower."""
    torch.set_num_threads(request.config.getoption("--threads"))


@pytest.fixture(autouse=True)
def _seeds(request):
    """Draws of torch's own generator are the same whichever tests ran before."""
    import seeds

    with seeds.as_written() if request.node.get_closest_marker("fixed_seeds") else nullcontext():
        torch.manual_seed(0)
        yield


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
