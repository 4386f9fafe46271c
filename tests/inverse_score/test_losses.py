"""Losses against closed forms: what each one adds for a score that is wrong by a known amount."""

import math

import pytest
import torch
from torch import nn

from inverse_score import VESDE, VPSDE, CosineVPSDE, GaussianMixturePrior, KarrasSDE, Prior
from inverse_score.losses import (
    ClassifierLoss,
    DenoisingLoss,
    DiscreteLoss,
    Levels,
    SlicedLoss,
    draw_times,
    noise_error,
)
from inverse_score.randomness import Noise

SDES = [VESDE(0.05, 5.0), VPSDE(), KarrasSDE(5.0)]


def mixture(sde) -> GaussianMixturePrior:
    means = torch.tensor([[1.0, 0.5], [-1.0, 0.0]], dtype=torch.float64)
    covs = torch.stack([0.2 * torch.eye(2), torch.tensor([[0.3, 0.1], [0.1, 0.2]])]).double()
    return GaussianMixturePrior(torch.tensor([0.3, 0.7]).double(), means, covs, sde)


def samples(count: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(3)
    first = torch.rand(count, 1, generator=rng) < 0.3
    z = torch.randn(count, 2, generator=rng, dtype=torch.float64)
    chol = torch.linalg.cholesky(torch.tensor([[0.3, 0.1], [0.1, 0.2]], dtype=torch.float64))
    one = torch.tensor([1.0, 0.5]) + math.sqrt(0.2) * z
    return torch.where(first, one, torch.tensor([-1.0, 0.0]) + z @ chol.T)


def off_by(truth: Prior, size: float, t_min: float = 0.01) -> Prior:
    """The prior whose score is the truth plus size / sigma(t) times a field of x."""

    def network(x, t):
        sigma = truth.sde.sigma(t)[:, None]
        return truth.score(x, t) + size / sigma * torch.cos(x / (1 + sigma))

    return Prior(network, truth.sde, output="score", t_min=t_min)


def paired(loss, sde, size, x0):
    """(mean, standard error) of loss(off) - loss(truth) - size^2 cos^2 terms, with one noise."""
    truth = mixture(sde)
    noise = Noise(0, range(len(x0)))
    extra = loss(off_by(truth, size), x0, noise) - loss(off_by(truth, 0.0), x0, noise)
    return extra.double()


def expected(loss, sde, size, x0, factor):
    """factor * lambda / sigma^2 * |field|^2 / d item by item, the minimiser's excess."""
    truth = off_by(mixture(sde), 0.0)
    noise = Noise(0, range(len(x0)))
    t = draw_times(truth, loss.levels, x0, noise)
    sigma = sde.sigma(t)[:, None]
    xt = sde.alpha(t)[:, None] * x0 + sigma * noise(x0, 0)
    weight = loss.weight(truth, t) if isinstance(loss, DenoisingLoss) else 1.0
    return factor * weight * size**2 * torch.cos(xt / (1 + sigma)).square().mean(1)


@pytest.mark.parametrize("sde", SDES, ids=lambda sde: sde.name)
@pytest.mark.parametrize(
    ("loss", "factor"),
    [
        (DenoisingLoss(), 1.0),
        (DenoisingLoss(Levels("log-uniform"), "g2"), 1.0),
        (DenoisingLoss(Levels("log-normal"), "karras", 0.7), 1.0),
        (SlicedLoss(Levels("log-uniform"), probes=2), 0.5),
    ],
    ids=["sigma2", "g2", "karras", "sliced"],
)
def test_a_wrong_score_costs_exactly_its_weighted_squared_error(sde, loss, factor):
    """E loss(s) - E loss(grad log p_t) = E lambda |s - grad log p_t|^2 (Vincent 2011; Hyvarinen
    2005 with half of it for sliced matching): the truth is the minimiser and the excess is known.
    """
    x0 = samples(2000)
    difference = paired(loss, sde, 0.8, x0) - expected(loss, sde, 0.8, x0, factor)
    error = difference.std() / math.sqrt(len(x0))
    size = expected(loss, sde, 0.8, x0, factor).mean()
    # Four standard errors, small against the size.
    assert difference.mean().abs() < 4 * error
    assert error < 0.15 * size


@pytest.mark.parametrize("sde", SDES, ids=lambda sde: sde.name)
def test_the_likelihood_weighting_gives_the_same_integral_for_any_law_of_t(sde):
    """int g^2 |s - target|^2 dt does not depend on the law of t, and log-uniform varies least."""
    x0 = samples(4000)
    prior = off_by(mixture(sde), 0.5)
    means, scatter = [], []
    for times in ("uniform", "log-uniform", "log-normal"):
        loss = DenoisingLoss(Levels(times, mean=0.0, std=2.5), "g2")
        each = loss(prior, x0, Noise(1, range(len(x0)))).double()
        means.append(each.mean().item())
        scatter.append(each.std().item() / math.sqrt(len(x0)))
    for mean, error in zip(means[::2], scatter[::2], strict=True):
        assert abs(mean - means[1]) < 4 * math.hypot(error, scatter[1])
    # The scatter's own scatter is some percent.
    assert scatter[1] <= min(scatter) * 1.1


@pytest.mark.parametrize("sde", [*SDES, CosineVPSDE()], ids=lambda sde: sde.name)
@pytest.mark.parametrize("times", ["uniform", "log-uniform", "log-normal"])
def test_the_density_of_drawn_times_is_that_of_their_histogram(sde, times):
    levels = Levels(times, mean=-0.5, std=1.5)
    prior = Prior(lambda x, t: x, sde, t_min=0.02)
    u = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    t = levels.draw(prior, u)
    edges = torch.quantile(t[:: len(t) // 1000], torch.linspace(0.02, 0.98, 9).double())
    share = torch.histogram(t, edges).hist / len(t)
    for low, high, got in zip(edges[:-1], edges[1:], share, strict=True):
        grid = torch.linspace(low, high, 101, dtype=torch.float64)
        want = torch.trapezoid(levels.density(prior, grid), grid)
        torch.testing.assert_close(got, want, rtol=0.02, atol=2e-4)


@pytest.mark.parametrize("sde", SDES, ids=lambda sde: sde.name)
def test_every_parametrisation_has_the_same_error(sde):
    """A network of the score, of eps, of x_0 or of v that says the same has the same loss."""
    truth = mixture(sde)
    x0 = samples(64)
    eps = Noise(5, range(64))(x0, 0)
    t = torch.linspace(0.1, 0.9, 64, dtype=torch.float64) * sde.T

    def eps_hat(x, t):
        return -sde.sigma(t)[:, None] * truth.score(x, t) + 0.1 * x.sin()

    def x0_hat(x, t):
        return (x - sde.sigma(t)[:, None] * eps_hat(x, t)) / sde.alpha(t)[:, None]

    def v_hat(x, t):
        alpha, sigma = sde.alpha(t)[:, None], sde.sigma(t)[:, None]
        return alpha * eps_hat(x, t) - sigma * x0_hat(x, t)

    networks = {
        "eps": eps_hat,
        "score": lambda x, t: -eps_hat(x, t) / sde.sigma(t)[:, None],
        "x0": x0_hat,
        "v": lambda x, t: (
            sde.alpha(t)[:, None] * eps_hat(x, t) - sde.sigma(t)[:, None] * x0_hat(x, t)
        ),
    }
    errors = [
        noise_error(Prior(network, sde, output=output), x0, eps, t)
        for output, network in networks.items()
    ]
    for error in errors[1:]:
        torch.testing.assert_close(error, errors[0], rtol=1e-4, atol=1e-6)


def test_smld_and_ddpm_have_their_papers_levels():
    t, alpha, sigma = DiscreteLoss("smld", 10).table(VESDE(0.01, 1.0))
    torch.testing.assert_close(sigma, torch.logspace(-2, 0, 10, dtype=torch.float64))
    assert alpha.eq(1).all()
    assert t[[0, -1]].tolist() == [0.0, 1.0]
    t, alpha, sigma = DiscreteLoss("ddpm", 1000).table(VPSDE())
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    # Ho et al. 2020, sec. 4: betas from 1e-4 to 0.02.
    torch.testing.assert_close(alpha**2, torch.cumprod(1 - betas, 0))
    # Their limit is the SDE, and t its time.
    torch.testing.assert_close(alpha, VPSDE().alpha(t), rtol=0, atol=2e-3)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(1000, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"needs an SDE with beta"):
        DiscreteLoss("ddpm").table(VESDE())


@pytest.mark.parametrize(("kind", "sde"), [("smld", VESDE(0.05, 5.0)), ("ddpm", VPSDE())])
def test_a_discrete_loss_is_the_denoising_loss_at_its_own_levels(kind, sde):
    x0 = samples(4000)
    prior = off_by(mixture(sde), 0.0, t_min=1e-3)
    discrete = DiscreteLoss(kind, 400)(prior, x0, Noise(0, range(4000))).mean()
    continuous = DenoisingLoss()(prior, x0, Noise(0, range(4000))).mean()
    assert abs(discrete - continuous) < 0.02 * continuous


def test_a_loss_depends_on_the_item_and_not_on_its_batch():
    prior, x0 = off_by(mixture(VPSDE()), 0.3), samples(32)
    for loss in (DenoisingLoss(), SlicedLoss(), DiscreteLoss("ddpm")):
        whole = loss(prior, x0, Noise(2, range(32)))
        part = loss(prior, x0[[20, 5]], Noise(2, [20, 5]))
        torch.testing.assert_close(part, whole[[20, 5]])


def test_a_sliced_probe_is_unbiased_for_the_divergence():
    """With many probes the sliced loss is Hyvarinen's: trace of the Jacobian plus half |s|^2."""
    A = torch.tensor([[-1.0, 0.4], [0.1, -2.0]], dtype=torch.float64)
    prior = Prior(lambda x, t: x @ A.T, VPSDE(), output="score")
    x0 = samples(4)
    loss = SlicedLoss(probes=1000)
    noise = Noise(0, range(4))
    t = draw_times(prior, loss.levels, x0, noise)
    sde = prior.sde
    sigma = sde.sigma(t)
    xt = sde.alpha(t)[:, None] * x0 + sigma[:, None] * noise(x0, 0)
    want = sigma**2 * (A.trace() + 0.5 * (xt @ A.T).square().sum(1)) / 2
    torch.testing.assert_close(loss(prior, x0, noise).double(), want, rtol=0.03, atol=0.02)


def test_the_classifier_loss_is_minus_the_log_of_the_true_posterior_class():
    """For two Gaussians the Bayes classifier is known; any temperature other than 1 costs more."""
    sde = VPSDE()
    means = torch.tensor([[1.5, 0.0], [-1.5, 0.0]], dtype=torch.float64)
    rng = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (4000,), generator=rng)
    x0 = means[labels] + 0.5 * torch.randn(4000, 2, generator=rng, dtype=torch.float64)

    def bayes(temperature):
        def network(x, t):
            alpha, sigma = sde.alpha(t)[:, None, None], sde.sigma(t)[:, None, None]
            variance = alpha**2 * 0.25 + sigma**2
            return (
                -(x[:, None] - alpha * means).square().sum(2) / (2 * variance[..., 0]) / temperature
            )

        return Prior(network, sde)

    noise = Noise(0, range(4000))
    right, cold, hot = (
        ClassifierLoss()(bayes(temperature), x0, labels, noise).mean()
        for temperature in (1, 0.5, 2)
    )
    assert right < cold
    assert right < hot


def test_denoising_score_matching_learns_the_score_of_a_mixture():
    """A small network trained on samples alone comes within a few per cent of the true score."""
    torch.manual_seed(0)
    sde = KarrasSDE(5.0)
    net = nn.Sequential(nn.Linear(4, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2))

    def network(x, t):
        r = t[:, None]
        c_in, skip = (r**2 + 1).rsqrt(), 1 / (r**2 + 1)
        features = torch.cat([c_in * x, r.log() / 2, (r.log() / 4).sin()], 1)
        return skip * x + r * c_in * net(features)

    prior = Prior(network, sde, output="x0")
    loss = DenoisingLoss(Levels("log-normal", mean=-0.7, std=1.2), "karras", 1.0)
    optimizer = torch.optim.Adam(net.parameters(), lr=8e-3)
    x0 = samples(256 * 250).float()
    for step in range(250):
        for group in optimizer.param_groups:
            group["lr"] = 8e-3 * (1 - step / 250)
        rows = range(step * 256, step * 256 + 256)
        loss(prior, x0[rows.start : rows.stop], Noise(0, rows)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    truth = mixture(sde)
    for level in (0.2, 0.5, 1.0, 3.0):
        x = samples(4000) + level * Noise(9, range(4000))(samples(4000), 0)
        t = torch.full((4000,), level)
        with torch.no_grad():
            wrong = (prior.score(x.float(), t) - truth.score(x, t)).square().sum()
        assert wrong / truth.score(x, t).square().sum() < 0.15
