import math

import pytest
import torch

from inverse_score.gaussian import GaussianPrior
from inverse_score.randomness import CORRECTOR, PREDICTOR, Noise
from inverse_score.sampling import (
    CORRECTORS,
    PREDICTORS,
    SAMPLERS,
    counted,
    end_ratio,
    make_grid,
    sample,
    start,
)
from inverse_score.sampling.correctors import annealing_step
from inverse_score.sde import (
    VESDE,
    VPSDE,
    CosineVPSDE,
    DiscreteVPSDE,
    KarrasSDE,
    SubVPSDE,
)
from inverse_score.testing.draws import sampler_draws
from inverse_score.testing.moments import exact_kl, exact_moments
from inverse_score.testing.toys import excess_kl, grid_of_modes, mode_report, stationary

SDES = [VPSDE(), SubVPSDE(), VESDE(), CosineVPSDE(), DiscreteVPSDE(), KarrasSDE()]
sdes = pytest.mark.parametrize("sde", SDES, ids=lambda sde: sde.name)
AFFINE = [
    "euler-maruyama",
    "reverse-diffusion",
    "ancestral",
    "stochastic-rk",
    "ddim",
    "dpm++2m",
    "dpm++2m-sde",
    "heun",
]


def small(sde, size=3):
    return stationary(sde, size)


def default_grid(prior, steps):
    return make_grid(prior.sde, steps, end_ratio=end_ratio(prior))


@sdes
@pytest.mark.parametrize("name", AFFINE)
def test_samplers_converge_to_the_prior_under_every_sde(name, sde):
    """With many steps what remains is the start's zero mean and the end's noise-to-signal."""
    prior = small(sde)
    coarse = exact_kl(prior, name, default_grid(prior, 25))
    fine = exact_kl(prior, name, default_grid(prior, 300))
    assert fine < 0.03
    assert fine < coarse + 1e-3


ORDERS = {
    "euler-maruyama": 1,
    "reverse-diffusion": 1,
    "ancestral": 1,
    "ddim": 1,
    "stochastic-rk": 2,
    "dpm++2m": 2,
    "dpm++2m-sde": 2,
    "heun": 2,
}


@pytest.mark.parametrize(("name", "order"), ORDERS.items())
def test_weak_order_on_a_gaussian_is_the_theoretical_one(name, order):
    """The error of the variance, against the same sampler at 1000 steps, falls as h^order."""
    prior = GaussianPrior(torch.tensor([0.5, -0.2]), torch.diag(torch.tensor([0.04, 0.5])), VPSDE())

    def variance(steps):
        grid = make_grid(prior.sde, steps + 1, end_ratio=0.05, start_ratio=5.0)
        return exact_moments(prior, name, grid)[1]

    truth = variance(1000)
    errors = [(variance(steps) - truth).abs().max().item() for steps in (50, 100)]
    assert abs(math.log2(errors[0] / errors[1]) - order) < 0.35


@pytest.mark.parametrize("eta", [1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("steps", [20, 40])
def test_balanced_long_steps_keep_the_variance_of_any_gaussian(eta, steps):
    """Within 1 % on a geometric grid, 5 % on Karras's, where Lu's weight leaves up to 33 % more."""
    variance = torch.tensor([0.05, 0.3, 1.0, 4.0])
    prior = GaussianPrior(torch.zeros(4), torch.diag(variance), KarrasSDE(80.0))

    def off(kind, **options):
        grid = make_grid(prior.sde, steps, end_ratio=0.005, kind=kind)
        _, found, truth = exact_moments(prior, "dpm++2m-sde", grid, eta=eta, **options)
        return (found / truth - 1).abs()

    assert off("geometric", balanced=True).max() < 0.011
    assert off("karras", balanced=True).max() < 0.052
    for kind, share in (("geometric", 0.15), ("karras", 0.35)):
        assert off(kind, balanced=True).max() < share * off(kind).max()


@pytest.mark.parametrize("sde", [VPSDE(), SubVPSDE(), VESDE()], ids=lambda sde: sde.name)
def test_twenty_calls_come_within_a_twentieth_of_a_nat(sde):
    prior = stationary(sde)
    assert exact_kl(prior, "dpm++2m", default_grid(prior, 20)) < 0.026
    assert exact_kl(prior, "dpm++2m", default_grid(prior, 35)) < 0.015


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_item_is_independent_of_its_batch(name):
    prior = grid_of_modes(VPSDE())
    options = {"steps": 12} if name not in ("ode", "adaptive-sde") else {}
    both = sample(prior, (3, 2), method=name, items=[7, 8, 9], **options)
    alone = sample(prior, (1, 2), method=name, items=[8], **options)
    # The ODE's steps are the batch's: equal within its tolerance of 1e-5.
    torch.testing.assert_close(
        both[1:2], alone, rtol=1e-3 if name == "ode" else 1e-5, atol=1e-3 if name == "ode" else 1e-5
    )


# Excess KL of 2000 samples of 9 numbers: std sqrt(2 * 54) / 4000, four of them.
SCATTER = 4 * math.sqrt(2 * 54) / 4000


def scatter_of(mean, variance, truth):
    """The same of 2000 samples of a law that is off: its KL moves with the moments in first order.

    KL = sum c - 1 - log c + m^2 / v over 2, c = variance / v: (c - 1)^2 / 2 + c m^2 / v over n.
    """
    c = variance / truth
    first = ((c - 1).square() / 2 + c * mean.square() / truth).sum() / 2000
    return 4 * math.sqrt(float(first)) + float(c.max()) * SCATTER


@sdes
def test_the_adaptive_ode_has_the_law_of_a_very_fine_heun(sde):
    """What both miss is the start's zero mean and the end's noise-to-signal."""
    prior = small(sde)
    x, _ = sampler_draws(prior, 2000, "ode", default_grid(prior, 2))
    fine = exact_kl(prior, "heun", default_grid(prior, 300))
    assert abs(excess_kl(x, prior.mean, prior.cov) - fine) < SCATTER


@sdes
def test_the_adaptive_sde_errs_no_more_than_its_tolerance(sde):
    """Means and stds all wrong by rtol stds would be d rtol^2 (1 + 1 / 2) nats."""
    prior, rtol = small(sde), 0.1
    x, _ = sampler_draws(prior, 2000, "adaptive-sde", default_grid(prior, 2), rtol=rtol)
    assert excess_kl(x, prior.mean, prior.cov) < 9 * rtol**2 * 1.5 + SCATTER


@sdes
def test_annealed_langevin_has_its_exact_law_and_nears_the_prior_with_its_moves(sde):
    prior = small(sde)
    grid = default_grid(prior, 20)
    x, _ = sampler_draws(prior, 2000, "annealed-langevin", grid, inner=10)
    exact = [
        exact_kl(prior, "annealed-langevin", grid, draws=inner, inner=inner) for inner in (10, 40)
    ]
    scatter = scatter_of(*exact_moments(prior, "annealed-langevin", grid, draws=10, inner=10))
    assert abs(excess_kl(x, prior.mean, prior.cov) - exact[0]) < scatter
    assert exact[1] < 0.6 * exact[0]


@sdes
def test_correction_by_hmc_brings_a_multistep_predictor_nearer_the_prior(sde):
    """Its own steps are first-order then: extrapolation from a state that the corrector has left
    costs more than the whole error of the steps."""
    prior, grid = small(sde), default_grid(small(sde), 15)
    options = {"predictor": "dpm++2m-sde", "corrector": "hmc"}
    found = []
    for order in (1, 2):
        mine = {} if order == 1 else {"predictor_options": {"order": 2}}
        x, _ = sampler_draws(prior, 2000, "pc", grid, **options, **mine)
        found.append(excess_kl(x, prior.mean, prior.cov))
    alone = exact_kl(prior, "dpm++2m-sde", grid, draws=1, order=1)
    assert found[0] < 0.5 * alone
    assert found[0] + SCATTER < found[1]


@pytest.mark.parametrize("predictor", PREDICTORS)
@pytest.mark.parametrize("corrector", [*CORRECTORS, "none"])
def test_any_predictor_goes_with_any_corrector(predictor, corrector):
    prior = small(SubVPSDE())
    options = {"predictor": predictor, "corrector": corrector, "corrector_steps": 2}
    x, info = sample(prior, 2, method="pc", steps=6, return_info=True, **options)
    assert torch.isfinite(x).all()
    stages = {"none": 0, "heun": 2, "stochastic-rk": 2}.get(predictor, 1)
    moves = {"none": 0, "hmc": 8, "unadjusted-hmc": 8}.get(corrector, 2)
    assert info["nfe"] == 5 * (stages + moves) + 1


@pytest.mark.parametrize("sde", [VPSDE(), VESDE()], ids=lambda sde: sde.name)
@pytest.mark.parametrize(
    ("corrector", "options", "bias"),
    [
        ("hmc", {"step": 0.8}, 0.0),
        ("unadjusted-hmc", {"step": 0.2}, 0.01),
        ("annealed-langevin", {"snr": 0.05}, 0.01),
    ],
)
def test_correctors_leave_the_marginal_unchanged(sde, corrector, options, bias):
    prior, t, n = small(sde), 0.4 * sde.T, 4000
    noise, x = Noise(0, range(n)), small(sde).sample(n, t=t)
    correct = CORRECTORS[corrector](prior, noise, **options)
    for j in range(8):
        x, _ = correct(j, x, t, t)
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    cov = alpha**2 * prior.cov + sigma**2 * torch.eye(9)
    assert excess_kl(x, alpha * prior.mean, cov) < bias + 0.004


def test_hmc_with_a_metropolis_test_forgives_steps_that_bias_the_unadjusted_one():
    prior, t, n = small(VESDE()), 0.4, 4000
    cov = prior.cov + VESDE().sigma(t) ** 2 * torch.eye(9)
    found = {}
    for name in ("hmc", "unadjusted-hmc"):
        x = prior.sample(n, t=t)
        correct = CORRECTORS[name](prior, Noise(0, range(n)), step=1.6)
        for j in range(6):
            x, _ = correct(j, x, t, t)
        found[name] = excess_kl(x, prior.mean, cov)
    assert found["hmc"] < 0.005 < 0.1 < found["unadjusted-hmc"]


def test_the_langevin_step_uses_each_items_own_norms():
    """eps = 2 (r |z| / |s|)^2, written out for one item of a batch whose scores differ."""
    prior, t = small(VESDE()), 0.5
    noise = Noise(0, [0, 1])
    x = torch.stack([prior.sample(1)[0], 30 + prior.sample(1)[0]])
    moved, _ = CORRECTORS["langevin"](prior, noise, snr=0.16)(0, x, t, t)
    z, s = noise(x, 0, CORRECTOR)[1], prior.score(x, t)[1]
    eps = 2 * (0.16 * z.norm() / s.norm()) ** 2
    torch.testing.assert_close(moved[1], x[1] + eps * s + (2 * eps).sqrt() * z)


@pytest.mark.parametrize(("alpha", "offset"), [("paper", 0), ("released", 1)])
def test_langevin_alphas_for_reproduction_are_those_of_paper_and_code(alpha, offset):
    """The paper's alpha-bar_i of the state, and the released 1 - beta_i of the level before."""
    sde, i = DiscreteVPSDE(), 400
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    weight = 1 - betas[i] if offset else torch.cumprod(1 - betas, 0)[i - 1]
    prior, noise, s, t = small(sde), Noise(0, [0]), i / 1000, (i + 1) / 1000
    x = prior.sample(1, t=s)
    z, score = noise(x, 0, CORRECTOR), prior.score(x, s)
    eps = 2 * weight * (0.16 * z.norm() / score.norm()) ** 2
    moved, _ = CORRECTORS["langevin"](prior, noise, snr=0.16, alpha=alpha)(0, x, s, t)
    torch.testing.assert_close(moved, x + eps * score + (2 * eps).sqrt() * z, rtol=1e-6, atol=1e-6)


def test_annealed_langevin_takes_ncsns_step():
    """x + (a / 2) score + sqrt(a) z with a = epsilon sigma_i^2 / sigma_L^2, 2e-5 and 0.01."""
    prior, noise, t = small(VESDE()), Noise(0, [0]), 0.6
    x = prior.sample(1, t=t)
    a = 2e-5 * VESDE().sigma(t) ** 2 / 0.01**2
    snr = math.sqrt(2e-5 / 4) / 0.01
    moved, _ = CORRECTORS["annealed-langevin"](prior, noise, snr=snr)(0, x, t, t)
    z = noise(x, 0, CORRECTOR)
    torch.testing.assert_close(moved, x + 0.5 * a * prior.score(x, t) + math.sqrt(a) * z)


@pytest.mark.parametrize(("gamma", "moves"), [(1.05, 5), (1.2, 5), (1.2, 40)])
def test_the_annealing_step_solves_technique_4(gamma, moves):
    """(1 - e)^(2 T) (gamma^2 - v) + v is as near 1 as it can be, with v = 2 e / (1 - (1 - e)^2)
    (Song & Ermon 2020, prop. 3)."""

    def miss(e):
        v = 2 * e / (1 - (1 - e) ** 2)
        return abs((1 - e) ** (2 * moves) * (gamma**2 - v) + v - 1)

    e = annealing_step(gamma, moves)
    assert all(miss(e) < miss(e * c) for c in (0.9, 1.1))


def test_reverse_diffusion_and_ancestral_steps_are_ddpms():
    """Song et al. 2021 and Ho et al. 2020, written with beta_i and alpha-bar_i."""
    sde, i = DiscreteVPSDE(), 400
    prior, noise = small(sde), Noise(0, [0])
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    beta, bar = betas[i - 1], torch.cumprod(1 - betas, 0)
    x = prior.sample(1, t=i / 1000)
    s, z = prior.score(x, i / 1000), noise(x, 0, PREDICTOR)
    reverse = (2 - (1 - beta).sqrt()) * x + beta * s + beta.sqrt() * z
    small_var = (1 - bar[i - 2]) / (1 - bar[i - 1]) * beta
    mean = (x + beta * s) / (1 - beta).sqrt()
    for name, options, expected in (
        ("reverse-diffusion", {}, reverse),
        ("ancestral", {}, mean + small_var.sqrt() * z),
        ("ancestral", {"variance": "transition"}, mean + beta.sqrt() * z),
        ("ddim", {"eta": 1.0}, mean + small_var.sqrt() * z),
    ):
        found, _ = PREDICTORS[name](prior, noise, **options)(0, x, i / 1000, (i - 1) / 1000)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_the_uniform_ve_grid_is_smld():
    """sigma_i geometric, x + (sigma_i^2 - sigma_{i-1}^2) s + sqrt(sigma_i^2 - sigma_{i-1}^2) z."""
    sde = VESDE()
    grid = make_grid(sde, 100, end_ratio=0.01 * (1 + 1e-9), kind="uniform")
    sigmas = torch.tensor([sde.sigma(t) for t in grid], dtype=torch.float64)
    expected = torch.logspace(math.log10(50), -2, 100, dtype=torch.float64)
    torch.testing.assert_close(sigmas, expected, rtol=1e-6, atol=0)
    prior, noise = small(sde), Noise(0, [0])
    x = prior.sample(1, t=grid[10])
    gap = sigmas[10] ** 2 - sigmas[11] ** 2
    z = noise(x, 0, PREDICTOR)
    found, _ = PREDICTORS["reverse-diffusion"](prior, noise)(0, x, grid[10], grid[11])
    torch.testing.assert_close(found, x + gap * prior.score(x, grid[10]) + gap.sqrt() * z)


def test_dpm_solver_without_noise_is_2m_and_its_first_step_is_ddim():
    prior = small(VPSDE())
    grid, noise = default_grid(prior, 9), Noise(0, [0, 1])
    xT = start(prior, (2, 1, 3, 3), noise, dtype=torch.float64)
    a = SAMPLERS["dpm++2m"](prior, xT, grid, noise)
    b = SAMPLERS["dpm++2m-sde"](prior, xT, grid, noise, eta=0.0)
    torch.testing.assert_close(a, b)
    one = [SAMPLERS[name](prior, xT, grid[:2], noise) for name in ("dpm++2m", "ddim")]
    torch.testing.assert_close(*one)


def test_langevin_without_annealing_keeps_its_modes_and_annealing_finds_them():
    prior, latents = grid_of_modes(VESDE()), torch.zeros(400, 2)
    grid = make_grid(prior.sde, 60, end_ratio=0.02)
    stuck = sample(prior, (400, 2), method="langevin", times=grid, latents=latents)
    annealed = sample(prior, (400, 2), method="annealed-langevin", times=grid)
    assert mode_report(stuck, prior).error > 0.9
    assert mode_report(annealed, prior).error < 0.2


def test_hook_sees_the_start_and_every_new_state_at_its_time():
    prior, seen = small(VPSDE()), []
    grid = default_grid(prior, 5)

    def hook(x, t):
        seen.append(t)
        return torch.zeros_like(x)

    noise = Noise(0, [0])
    xT = start(prior, (1, 1, 3, 3), noise)
    x = SAMPLERS["euler-maruyama"](prior, xT, grid, noise, hook=hook)
    assert seen == grid
    torch.testing.assert_close(x, prior.denoise(torch.zeros_like(x), grid[-1]))


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_last_step_is_the_denoiser_and_nothing_overwrites_it(name):
    prior, calls = small(SubVPSDE()), []
    options = {} if name in ("ode", "adaptive-sde") else {"steps": 5}

    def callback(k, t, x, x0_hat):
        calls.append((t, x, x0_hat))

    x = sample(prior, 2, method=name, callback=callback, **options)
    t, state, x0_hat = calls[-1]
    assert torch.equal(x, x0_hat)
    torch.testing.assert_close(x, prior.denoise(state, t))


def test_nfe_is_counted_call_by_call_and_backward_passes_too():
    prior = small(VPSDE())
    for name, nfe in (("dpm++2m", 7), ("heun", 13), ("stochastic-rk", 13)):
        assert sample(prior, 1, method=name, steps=7, return_info=True)[1]["nfe"] == nfe
    watched, counter = counted(prior)
    x = torch.zeros(2, 1, 3, 3, requires_grad=True)
    watched.denoise(x, 0.5).sum().backward()
    assert (counter.nfe, counter.vjps) == (1, 1)


def test_samples_are_in_data_units_and_latents_start_them():
    unit = small(VPSDE())
    shifted = GaussianPrior(unit.mean, unit.cov, unit.sde, range=(100.0, -7.0))
    torch.testing.assert_close(sample(shifted, 2), 100 * sample(unit, 2) - 7)
    z = torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    x = sample(unit, (2, 1, 3, 3), method="ddim", latents=z)
    grid = default_grid(unit, 35)
    expected = SAMPLERS["ddim"](unit, unit.sde.sigma(1.0) * z, grid, Noise(0, [0, 1]))
    torch.testing.assert_close(x, expected)
    assert sample(unit, 50, temperature=0.0).std(0).max() < 1e-6


def test_bad_arguments_say_what_was_expected():
    prior = small(VPSDE())
    with pytest.raises(ValueError, match="unknown sampler 'euler'; known: euler-maruyama, reverse"):
        sample(prior, 1, method="euler")
    with pytest.raises(ValueError, match="'ddim' has no option snr; its options: eta"):
        sample(prior, 1, method="ddim", snr=0.1)
    with pytest.raises(ValueError, match="'pc' has no option eta; its options: predictor,"):
        sample(prior, 1, method="pc", eta=0.1)
    with pytest.raises(ValueError, match="unknown corrector 'ald'; known: langevin, annealed"):
        sample(prior, 1, method="pc", corrector="ald")
    with pytest.raises(ValueError, match=r"the prior's x is \(B, \*\(1, 3, 3\)\); got \(1, 3, 3\)"):
        sample(prior, (1, 3, 3))
    with pytest.raises(ValueError, match=r"decrease strictly; got times\[1\] = 0.2, times"):
        sample(prior, 1, times=[0.5, 0.2, 0.3])
    with pytest.raises(ValueError, match=r"times must lie in \(0, 1.0\]; got 0.5 to 0.0"):
        sample(prior, 1, times=[0.5, 0.0])
    with pytest.raises(ValueError, match="steps must be an integer >= 2; got 1"):
        sample(prior, 1, steps=1)
    with pytest.raises(ValueError, match="'ode' chooses its own steps"):
        sample(prior, 1, method="ode", steps=10)
    with pytest.raises(ValueError, match=r"latents must be of shape \(1, 1, 3, 3\)"):
        sample(prior, 1, latents=torch.zeros(2, 1, 3, 3))


def test_a_score_that_turns_non_finite_names_step_and_time():
    prior = small(VPSDE())
    exact = prior.denoise
    prior.denoise = lambda x, t: exact(x, t) / (0.0 if t < 0.5 else 1.0)
    with pytest.raises(ValueError, match=r"not finite after step \d+, at t = 0\.\d+, in items \[0"):
        sample(prior, 2)


def test_adaptive_methods_say_when_they_cannot_finish():
    prior = small(VPSDE())
    with pytest.raises(ValueError, match="3 steps did not reach t = "):
        sample(prior, 1, method="adaptive-sde", max_iterations=3)
