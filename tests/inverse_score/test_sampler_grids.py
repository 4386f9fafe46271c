import math
from itertools import pairwise

import pytest
import torch

from inverse_score.prior import Prior
from inverse_score.sampling import end_ratio, make_grid
from inverse_score.sde import VESDE, VPSDE, CosineVPSDE, KarrasSDE, SubVPSDE

sdes = pytest.mark.parametrize("sde", [VPSDE(), SubVPSDE(), VESDE(), CosineVPSDE(), KarrasSDE()])


@sdes
@pytest.mark.parametrize("kind", ["log-snr", "karras", "uniform", "geometric"])
def test_grids_decrease_from_t_to_the_end_ratio(kind, sde):
    grid = make_grid(sde, 12, end_ratio=0.02, kind=kind)
    assert len(grid) == 12
    assert grid[0] == sde.T
    assert math.isclose(sde.ratio(grid[-1]), 0.02, rel_tol=1e-6)
    assert all(t > s for t, s in pairwise(grid))


def test_spacings_are_what_their_names_say():
    sde = KarrasSDE()  # its time is sigma / alpha itself
    karras = torch.tensor(make_grid(sde, 18, end_ratio=0.002, kind="karras", rho=7.0))
    step = (0.002 ** (1 / 7) - 80 ** (1 / 7)) / 17
    expected = (80 ** (1 / 7) + torch.arange(18) * step) ** 7
    torch.testing.assert_close(karras, expected, rtol=1e-5, atol=1e-7)
    # Karras et al. 2022, sec. 3: rho = 7, where nobody says another.
    assert karras.tolist() == pytest.approx(make_grid(sde, 18, end_ratio=0.002, kind="karras"))
    log_snr = torch.tensor(make_grid(sde, 9, end_ratio=0.01)).log().diff()
    torch.testing.assert_close(log_snr, log_snr.mean().expand(8))
    uniform = torch.tensor(make_grid(VPSDE(), 9, end_ratio=0.01, kind="uniform")).diff()
    torch.testing.assert_close(uniform, uniform.mean().expand(8))


def test_a_start_below_the_largest_ratio_is_kept():
    grid = make_grid(VPSDE(), 5, end_ratio=0.01, start_ratio=3.0)
    assert math.isclose(VPSDE().ratio(grid[0]), 3.0, rel_tol=1e-9)


def trained_to(ratio):
    sde = VPSDE()
    return Prior(lambda x, t: x, sde, t_min=sde.time(ratio))


def test_the_end_is_a_fifth_of_the_least_noise_or_the_priors_scale():
    prior = trained_to(0.002)
    assert math.isclose(end_ratio(prior), 0.002, rel_tol=1e-6)
    assert math.isclose(end_ratio(prior, 0.5), 0.002, rel_tol=1e-6)
    assert math.isclose(end_ratio(prior, 0.0), 0.002, rel_tol=1e-6)
    # A prior whose own scale is coarser ends where the noise asks.
    coarse = type("Coarse", (Prior,), {"smallest_scale": 0.05})(
        prior.network, prior.sde, t_min=prior.t_min
    )
    assert math.isclose(end_ratio(coarse, torch.tensor([0.3, 0.1])), 0.02, rel_tol=1e-6)
    assert math.isclose(end_ratio(coarse, 1.0), 0.05, rel_tol=1e-6)


def test_an_end_below_the_training_range_is_clipped_with_a_warning():
    with pytest.warns(UserWarning, match=r"end at noise-to-signal 0.001, but .* down to 0.002"):
        assert math.isclose(end_ratio(trained_to(0.002), 0.005), 0.002, rel_tol=1e-6)


def test_bad_grids_say_what_was_expected():
    with pytest.raises(ValueError, match="kind must be one of log-snr, karras"):
        make_grid(VPSDE(), 5, end_ratio=0.01, kind="cosine")
    with pytest.raises(ValueError, match="0 < end_ratio < start_ratio"):
        make_grid(VESDE(), 5, end_ratio=60.0)
    with pytest.raises(ValueError, match="rho must be positive; got 0"):
        make_grid(VESDE(), 5, end_ratio=0.1, kind="karras", rho=0)
    with pytest.raises(ValueError, match=r"noise_std must be finite and >= 0; got -0\.1"):
        end_ratio(trained_to(0.002), -0.1)
