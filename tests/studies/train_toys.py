"""Trains the small networks of this folder on laws whose posteriors are known in closed form.

    python tests/studies/train_toys.py [NAME ...]

A U-Net of 40 thousand weights on endless draws of an 8x8 toy of `recipes.benchmarks`: about three
minutes each on one core. Their denoising error is within a few per cent of Bayes' (printed), their
Jacobians are neither symmetric nor positive.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from inverse_score import Prior
from inverse_score.gaussian import GaussianMixturePrior
from inverse_score.io.priors import save_prior
from inverse_score.losses import DenoisingLoss, Levels
from inverse_score.networks.unet import UNet
from inverse_score.posterior import error_spectrum
from inverse_score.randomness import Noise
from inverse_score.sde import KarrasSDE
from inverse_score.testing.problems import make_prior
from inverse_score.training.state import EMA

HERE = Path(__file__).parent
TOYS = ("stationary", "nonstationary", "modes-64d")
STEPS, BATCH, POOL = 5000, 128, 65536


def exact_prior(name: str) -> GaussianMixturePrior:
    """The law that network `name` was trained on."""
    return make_prior(name, sde=KarrasSDE())


def network() -> UNet:
    """The architecture of all three."""
    torch.manual_seed(0)
    return UNet(1, sigma_data=0.5, widths=(32,), blocks=2, patch=2, embedding=24)


def train(name: str, steps: int = STEPS, batch: int = BATCH) -> Prior:
    """A network trained by denoising score matching on draws of `name`, with its error spectrum."""
    exact, net = exact_prior(name), network()
    average = EMA(net, 0.999)
    loss = DenoisingLoss(Levels("log-normal", -2.2, 1.6), "karras", 0.5)
    prior = Prior(net, exact.sde, output="x0", event_shape=(1, 8, 8))
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.0)
    for k in range(steps):
        if k % (POOL // batch) == 0:
            pool = exact.sample(POOL, seed=1 + k, dtype=torch.float32)
        rows = range(k * batch, (k + 1) * batch)
        x0 = pool[[i % POOL for i in rows]]
        optimizer.param_groups[0]["lr"] = 2e-3 * min(1.0, (k + 1) / 200) * (1 - k / steps)
        optimizer.zero_grad()
        loss(prior, x0, Noise(0, rows)).mean().backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        average.update(net, k)
    prior = Prior(average.network, exact.sde, output="x0", event_shape=(1, 8, 8))
    held_out = exact.sample(2048, seed=0, dtype=torch.float32)
    prior.card["error_spectrum"] = error_spectrum(prior, held_out, batch_size=512)
    return prior


@torch.no_grad()
def excess_error(prior: Prior, exact: GaussianMixturePrior) -> dict[float, float]:
    """The denoising error over Bayes' less 1, at five noise levels."""
    x0, found = exact.sample(4096, seed=-1, dtype=torch.float32), {}
    for r in (0.02, 0.1, 0.3, 1.0, 5.0):
        t = prior.sde.time(r)
        xt = x0 + r * Noise(1, range(len(x0)))(x0, 0)
        own, best = ((p.denoise(xt, t) - x0).square().mean().item() for p in (prior, exact))
        found[r] = round(own / best - 1, 4)
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    for toy in sys.argv[1:] or TOYS:
        trained = train(toy)
        print(toy, excess_error(trained, exact_prior(toy)), flush=True)
        save_prior(trained, HERE / f"{toy}.safetensors")
