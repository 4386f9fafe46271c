import dataclasses
import math

import pytest
import torch

from inverse_score.sde import (
    SDES,
    VESDE,
    VPSDE,
    CosineVPSDE,
    DiscreteVPSDE,
    KarrasSDE,
    SubVPSDE,
    _of_time,
)

ALL = [VESDE(), VPSDE(), SubVPSDE(), CosineVPSDE(), DiscreteVPSDE(), KarrasSDE()]
sdes = pytest.mark.parametrize("sde", ALL, ids=lambda sde: sde.name)


def inner_times(sde):
    # 0.0137 is no multiple of a discrete chain's 1 / 1000, where beta jumps.
    return torch.linspace(0.0137, 0.9871, 50, dtype=torch.float64) * sde.T


@sdes
def test_marginals_solve_the_moment_equations(sde):
    """alpha' = f alpha and (sigma^2)' = 2 f sigma^2 + g^2: f, g, alpha and sigma agree."""
    t = inner_times(sde).requires_grad_()
    # VE's alpha is constant: 0 * t keeps it in the graph.
    alpha, variance = sde.alpha(t) + 0 * t, sde.sigma(t) ** 2
    (alpha_dot,) = torch.autograd.grad(alpha.sum(), t)
    (variance_dot,) = torch.autograd.grad(variance.sum(), t)
    torch.testing.assert_close(alpha_dot, sde.f(t) * alpha)
    torch.testing.assert_close(variance_dot, 2 * sde.f(t) * variance + sde.g(t) ** 2)


@sdes
def test_transition_kernels_compose_and_carry_one_marginal_to_the_next(sde):
    r, s, t = (fraction * sde.T for fraction in (0.21, 0.43, 0.78))
    a, std = sde.transition(s, t)
    assert math.isclose(a * sde.alpha(s), sde.alpha(t), rel_tol=1e-12)
    assert math.isclose(a**2 * sde.sigma(s) ** 2 + std**2, sde.sigma(t) ** 2, rel_tol=1e-12)
    b, before = sde.transition(r, s)
    c, both = sde.transition(r, t)
    assert math.isclose(a * b, c, rel_tol=1e-12)
    assert math.isclose((a * before) ** 2 + std**2, both**2, rel_tol=1e-12)


@sdes
def test_transition_variance_is_the_integral_of_the_diffusion(sde):
    """std^2 = alpha(t)^2 int_s^t (g / alpha)^2, by a fine midpoint rule."""
    s, t = 0.31 * sde.T, 0.62 * sde.T
    edges = torch.linspace(s, t, 200001, dtype=torch.float64)
    u = 0.5 * (edges[1:] + edges[:-1])
    integral = ((sde.g(u) / sde.alpha(u)) ** 2).mean().item() * (t - s)
    _, std = sde.transition(s, t)
    assert math.isclose(std**2, sde.alpha(t) ** 2 * integral, rel_tol=1e-6)


@sdes
def test_time_inverts_the_noise_to_signal_ratio(sde):
    t = inner_times(sde)
    torch.testing.assert_close(sde.time(sde.ratio(t)), t, rtol=1e-9, atol=1e-12)
    assert math.isclose(sde.time(sde.ratio(0.3 * sde.T)), 0.3 * sde.T, rel_tol=1e-9)
    assert sde.time(1e9) == sde.T


@sdes
def test_floats_and_tensors_give_the_same_in_their_own_types(sde):
    t = 0.37 * sde.T
    for function in (sde.f, sde.g, sde.alpha, sde.sigma, sde.ratio):
        assert isinstance(function(t), float)
        single = function(torch.tensor([t]))
        assert single.dtype == torch.float32
        assert math.isclose(single.item(), function(t), rel_tol=1e-5, abs_tol=1e-6)


def test_constants_are_those_of_the_papers():
    assert math.isclose(VPSDE().alpha(1.0), math.exp(-0.25 * 19.9 - 0.05), rel_tol=1e-12)
    assert math.isclose(VPSDE().g(0.5), math.sqrt(0.1 + 0.5 * 19.9), rel_tol=1e-12)
    B = 0.1 * 0.5 + 0.5 * 19.9 * 0.25
    assert math.isclose(SubVPSDE().sigma(0.5), 1 - math.exp(-B), rel_tol=1e-12)
    assert math.isclose(VESDE().sigma(0.5), math.sqrt(0.01 * 50), rel_tol=1e-12)
    assert math.isclose(VESDE().g(1.0), 50 * math.sqrt(2 * math.log(5000)), rel_tol=1e-12)
    assert math.isclose(KarrasSDE().g(3.0), math.sqrt(6.0), rel_tol=1e-12)
    # Nichol & Dhariwal 2021, eq. 17, at t = 0.5 of their schedule.
    mine = CosineVPSDE().alpha(0.5 / 0.995) ** 2
    theirs = (math.cos(0.508 / 1.008 * math.pi / 2) / math.cos(0.008 / 1.008 * math.pi / 2)) ** 2
    assert math.isclose(mine, theirs, rel_tol=1e-12)


def test_the_discrete_chain_is_ddpms():
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    alphas_bar = torch.cumprod(1 - betas, 0)
    sde = DiscreteVPSDE()
    for i in (1, 17, 500, 1000):
        assert math.isclose(sde.alpha(i / 1000) ** 2, alphas_bar[i - 1], rel_tol=1e-10)
        a, std = sde.transition((i - 1) / 1000, i / 1000)
        assert math.isclose(a, math.sqrt(1 - betas[i - 1]), rel_tol=1e-10)
        assert math.isclose(std, math.sqrt(betas[i - 1]), rel_tol=1e-7)


def test_every_sde_is_known_by_its_name_and_its_fields():
    for name, kind in SDES.items():
        sde = kind()
        assert sde.name == name
        assert kind(**dataclasses.asdict(sde)) == sde


def test_bad_parameters_and_times_say_what_was_expected():
    with pytest.raises(ValueError, match=r"0 <= sigma_min < sigma_max < inf; got 2.0 and 1.0"):
        VESDE(2.0, 1.0)
    with pytest.raises(ValueError, match="beta_min < beta_max"):
        VPSDE(3.0, 3.0)
    with pytest.raises(ValueError, match=r"t must lie in \(0, 1.0\]; got values from 0.0 to 0.0"):
        VPSDE().check_time(0.0)
    with pytest.raises(ValueError, match=r"t must lie in \(0, 80.0\]"):
        KarrasSDE().check_time(torch.tensor([1.0, 81.0]))


def test_a_float_time_is_worked_out_once_for_each_sde():
    """Kept answers are a tensor's own bits, and never another SDE's."""
    asked = []

    class Watched(VPSDE):
        @_of_time
        def alpha(self, t):
            asked.append(t)
            return torch.exp(-0.5 * self.integral(t))

    steep, flat = Watched(), Watched(beta_max=5.0)
    answers = [sde.alpha(0.3) for sde in (steep, flat, steep, flat)]
    assert len(asked) == 2
    assert answers[:2] == answers[2:]
    assert answers[0] < answers[1]
    assert answers[0] == VPSDE().alpha(torch.tensor(0.3, dtype=torch.float64)).item()
