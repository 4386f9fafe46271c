"""The published CIFAR-10 configurations train the published networks."""

from pathlib import Path

import pytest
import torch

import recipes.priors
from inverse_score.io.checkpoints import PRESETS
from inverse_score.networks import build_network
from inverse_score.training.config import load_config
from inverse_score.training.setup import fill_network

FOLDER = Path(recipes.priors.__file__).parent
PUBLISHED = {
    "cifar10-ve-ncsnpp": "ve/cifar10_ncsnpp_continuous",
    "cifar10-ve-ncsnpp-deep": "ve/cifar10_ncsnpp_deep_continuous",
    "cifar10-ve-ncsnpp-discrete": "ve/cifar10_ncsnpp",
    "cifar10-vp-ddpmpp": "vp/cifar10_ddpmpp_continuous",
    "cifar10-vp-ddpmpp-deep": "vp/cifar10_ddpmpp_deep_continuous",
    "cifar10-vp-ddpmpp-likelihood": "vp/cifar10_ddpmpp_continuous",
    "cifar10-subvp-ddpmpp": "subvp/cifar10_ddpmpp_continuous",
    "cifar10-subvp-ddpmpp-deep": "subvp/cifar10_ddpmpp_deep_continuous",
    "cifar10-vp-ddpm": "vp/ddpm/cifar10",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_yaml_builds_the_network_of_the_released_checkpoint(name):
    """Every argument equal to the preset's, so that a trained run and an import are one prior."""
    config, preset = load_config(FOLDER / f"{name}.yaml"), PRESETS[PUBLISHED[name]]
    architecture = fill_network(config.network, config.sde, 0.5, 3)
    with torch.device("meta"):
        ours, released = build_network(**architecture), build_network(preset.network,
                                                                      **preset.config)  # fmt: skip
    assert ours.config == released.config
    assert ours.output == released.output
    assert tuple(config.data.range) == preset.range


@pytest.mark.parametrize("name", PUBLISHED)
def test_yaml_has_the_published_optimizer(name):
    config = load_config(FOLDER / f"{name}.yaml")
    o = config.optimizer
    assert (o.lr, tuple(o.betas), o.eps, o.warmup, o.clip) == (2e-4, (0.9, 0.999), 1e-8, 5000, 1.0)
    assert o.ema == (0.999 if config.sde["name"] == "ve" else 0.9999)
    assert config.train.batch_size == 128
    assert config.train.steps == (950_000 if "deep" in name else 1_300_000)
