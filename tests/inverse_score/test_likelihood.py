import math

import pytest
import torch
from torch.distributions import Normal

from inverse_score import bits_per_dim, encode, log_likelihood, sample
from inverse_score.gaussian import GaussianPrior
from inverse_score.likelihood import decode, interpolate
from inverse_score.randomness import MEASUREMENT, Noise
from inverse_score.sde import VESDE, VPSDE, CosineVPSDE, KarrasSDE, SubVPSDE
from inverse_score.testing.toys import grid_of_modes, stationary

sdes = pytest.mark.parametrize(
    "sde", [VPSDE(), SubVPSDE(), VESDE(), CosineVPSDE(), KarrasSDE()], ids=lambda sde: sde.name
)
BIT = math.log(2)


@sdes
def test_exact_trace_gives_the_closed_form_density(sde):
    """Apart from the start's law, N(0, sigma_T^2) in place of p_T, which shifts an item's
    log-density by what the two differ by at its x_T."""
    prior = stationary(sde, 2)
    x = prior.sample(8, t=prior.t_min)
    found, info = log_likelihood(x, prior, return_info=True)
    error = (found - prior.log_prob(x, prior.t_min)) / (4 * BIT)
    xT = sde.sigma(sde.T) * encode(x, prior)
    terminal = Normal(0.0, sde.sigma(sde.T)).log_prob(xT).flatten(1).sum(1)
    gap = (terminal - prior.log_prob(xT, sde.T)) / (4 * BIT)
    assert (error - gap).abs().max() < 0.001
    corrected = log_likelihood(x, prior, terminal="tweedie") - prior.log_prob(x, prior.t_min)
    assert corrected.abs().max() / (4 * BIT) < 0.005
    assert info["trace"] == "exact"
    assert info["t_end"] == prior.t_min
    assert info["vjps"] == 4 * info["nfe"]


@pytest.mark.parametrize("sde", [VPSDE(), VESDE()], ids=lambda sde: sde.name)
def test_the_corrected_terminal_law_brings_modes_far_from_zero_within_the_target(sde):
    """With N(0, sigma_T^2) itself the start's law is the whole error: up to 0.05 bits / dim."""
    prior = grid_of_modes(sde)
    x = prior.sample(32, t=prior.t_min)
    errors = {}
    for terminal in ("sde", "tweedie"):
        found, info = log_likelihood(x, prior, terminal=terminal, return_info=True)
        errors[terminal] = (found - prior.log_prob(x, prior.t_min)).abs() / (2 * BIT)
        errors[terminal + " nfe"] = info["nfe"]
    assert errors["sde"].max() > 0.01
    assert errors["tweedie"].max() < 0.003
    assert errors["tweedie nfe"] == errors["sde nfe"] + 1


def test_the_density_is_that_of_the_time_where_it_stops():
    prior, t = stationary(SubVPSDE(), 2), 0.2
    x = prior.sample(8, t=t)
    error = log_likelihood(x, prior, t_end=t, terminal="tweedie") - prior.log_prob(x, t)
    assert error.abs().max() / (4 * BIT) < 0.005
    assert (prior.log_prob(x, t) - prior.log_prob(x)).abs().min() / (4 * BIT) > 0.1


@pytest.mark.parametrize("probe", ["rademacher", "gaussian"])
def test_hutchinson_is_within_its_own_standard_error(probe):
    prior = stationary(VPSDE(), 3)
    x = prior.sample(100, t=prior.t_min)
    options = {"trace": "hutchinson", "probe": probe, "probes": 8, "return_info": True}
    found, info = log_likelihood(x, prior, **options)
    z = (found - prior.log_prob(x, prior.t_min)) / info["standard_error"]
    # An error estimated from 8 probes makes z Student's with 7 degrees: E z^2 = 1.4 +- 0.28 of 100.
    assert z.square().mean().sqrt() < 1.6
    assert z.square().mean().sqrt() > 0.4


def test_an_items_likelihood_and_probes_do_not_depend_on_its_batch():
    prior = stationary(VPSDE(), 3)
    x = prior.sample(3, t=prior.t_min)
    options = {"trace": "hutchinson", "probes": 2}
    both = log_likelihood(x, prior, items=[4, 5, 6], **options)
    alone = log_likelihood(x[1:2], prior, items=[5], **options)
    torch.testing.assert_close(both[1:2], alone, rtol=1e-3, atol=1e-3)


def test_density_in_data_units_carries_the_scale():
    unit = stationary(VPSDE(), 3)
    scaled = GaussianPrior(unit.mean, unit.cov, unit.sde, range=(255.0, 3.0))
    u = unit.sample(4)
    expected = log_likelihood(u, unit) - 9 * math.log(255.0)
    torch.testing.assert_close(log_likelihood(255 * u + 3, scaled), expected)


def test_the_auto_trace_is_exact_up_to_256_dimensions():
    cov = torch.eye(257, dtype=torch.float64)
    prior = GaussianPrior(torch.zeros(257), cov, VPSDE())
    x = torch.zeros(1, 257)
    _, info = log_likelihood(x, prior, probes=1, rtol=1e-2, atol=1e-2, return_info=True)
    assert info["trace"] == "hutchinson"
    assert math.isnan(info["standard_error"].item())


def test_bits_per_dim_of_uint8_is_the_entropy_of_the_quantized_gaussian():
    """-log2 of the density at bin width 1 / 255, on average h(N) + log2 255 bits."""
    prior = stationary(VPSDE(), 3)
    x = prior.sample(64).clamp(0, 1)
    levels = (x * 255).round().to(torch.uint8)
    bits = bits_per_dim(levels, prior)
    h = 0.5 * torch.logdet(2 * math.pi * math.e * prior.cov) / (9 * BIT)
    # The spread of -log p over 64 draws of 9 dimensions is sqrt(9 / 2) nats an item.
    assert abs(bits.mean() - (h + math.log2(255))) < 4 * math.sqrt(4.5) / (9 * BIT) / 8
    torch.testing.assert_close(bits, bits_per_dim(levels.float() / 255, prior), atol=1e-4, rtol=0)
    assert (bits > 0).all()


@pytest.mark.parametrize(
    ("kind", "delta", "shift"), [("centred", 1 / 3, 0.5), ("rescaled", 0.25, 0)]
)
def test_bins_are_as_wide_as_their_levels_lie_apart(kind, delta, shift):
    """4 levels over [0, 1]: -log2 p(delta (k + u - shift)) - log2 delta, u uniform."""
    prior, k = stationary(VPSDE(), 2), torch.tensor([0.0, 1.0, 3.0, 2.0]).reshape(1, 1, 2, 2)
    u = Noise(0, [0]).uniform(k, 0, MEASUREMENT)
    options = {"rtol": 1e-3, "atol": 1e-3}
    logp = log_likelihood(delta * (k + u - shift), prior, **options)
    expected = -logp / (4 * BIT) - math.log2(delta)
    found = bits_per_dim(k / 3, prior, levels=4, dequantize=kind, **options)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_rescaled_dequantization_is_the_reference_codes():
    prior = stationary(VPSDE(), 3)
    levels = (prior.sample(16).clamp(0, 1) * 255).round().to(torch.uint8)
    a, b = (bits_per_dim(levels, prior, dequantize=kind) for kind in ("centred", "rescaled"))
    assert 0 < (a - b).abs().max() < 0.1


def test_encode_and_decode_invert_each_other():
    prior = stationary(SubVPSDE(), 3)
    x = prior.sample(16, t=prior.t_min)
    z = encode(x, prior)
    torch.testing.assert_close(decode(z, prior), x, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(
        sample(prior, x.shape, method="ode", latents=z), x, rtol=2e-2, atol=5e-3
    )
    assert abs(z.var().item() - 1) < 4 * (2 / z.numel()) ** 0.5


def test_interpolation_keeps_the_norm_and_meets_its_ends():
    draw = torch.Generator().manual_seed(0)
    z, w = (torch.randn(3, 500, generator=draw) for _ in range(2))
    torch.testing.assert_close(interpolate(z, w, 0.0), z)
    torch.testing.assert_close(interpolate(z, w, 1.0), w)
    torch.testing.assert_close(interpolate(z, z, 0.5), z, rtol=1e-3, atol=1e-3)
    middle = interpolate(z, w, 0.5).norm(dim=1)
    assert (middle / (0.5 * (z.norm(dim=1) + w.norm(dim=1))) - 1).abs().max() < 0.05


def test_bad_arguments_say_what_was_expected():
    prior = stationary(VPSDE(), 3)
    x = torch.zeros(1, 1, 3, 3)
    with pytest.raises(ValueError, match="trace must be 'auto', 'exact' or 'hutchinson'"):
        log_likelihood(x, prior, trace="full")
    with pytest.raises(ValueError, match="unknown terminal law 'vp'; known: sde, tweedie"):
        log_likelihood(x, prior, terminal="vp")
    with pytest.raises(ValueError, match="probes must be an integer >= 1; got 0"):
        log_likelihood(x, prior, trace="hutchinson", probes=0)
    with pytest.raises(ValueError, match="x must hold 256 levels equally spaced over"):
        bits_per_dim(x + 0.3, prior)
    with pytest.raises(ValueError, match=r"must be floating point in data units; got torch\.uint8"):
        log_likelihood(x.to(torch.uint8), prior)
    with pytest.raises(ValueError, match=r"the prior's x is \(B, \*\(1, 3, 3\)\)"):
        encode(torch.zeros(1, 9), prior)
