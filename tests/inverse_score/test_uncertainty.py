import math

import pytest
import torch

from inverse_score import uncertainty as u
from inverse_score.randomness import Noise


def draws(n, batch, shape=(6,), scale=1.0, seed=0):
    """Samples and truths of one law, but for the samples' spread."""
    noise = Noise(seed, range(batch))
    like = torch.empty(batch, *shape, dtype=torch.float64)
    samples = torch.stack([scale * noise(like, k) for k in range(n)])
    return samples, noise(like, n)


def test_ranks_of_a_right_sampler_are_uniform_and_of_a_narrow_one_are_not():
    right = u.rank_uniformity(u.ranks(*draws(9, 2000))[:, 0], 9)
    narrow = u.rank_uniformity(u.ranks(*draws(9, 2000, scale=0.8))[:, 0], 9)
    assert right.p_value > 1e-4
    assert narrow.p_value < 1e-4
    assert narrow.counts[0] > narrow.expected < narrow.counts[-1]


def test_ties_are_broken_evenly():
    rank = u.ranks(torch.zeros(3, 4000, 1), torch.zeros(4000, 1))
    assert u.rank_uniformity(rank, 3).p_value > 1e-4


def test_eight_samples_cover_at_the_nominal_level_only_with_students_t():
    samples, truth = draws(8, 4000)
    covered = u.coverage(samples, truth, 0.95).mean().item()
    low, high = u.binomial_band(6 * 4000, 0.95, 0.9999)
    assert low < covered < high
    assert u.student_quantile(0.95, 7) * math.sqrt(1 + 1 / 8) > 1.2 * 1.96


def test_tarp_sees_spread_that_single_pixels_hide():
    """Samples with the right marginals and no correlation: rank tests pass, TARP does not."""
    samples, truth = draws(19, 800, (8,))
    common = draws(19, 800, (1,), seed=5)
    mixed = [(v + 2 * w) / math.sqrt(5) for v, w in zip((samples, truth), common, strict=True)]
    assert u.tarp(*mixed).p_value > 1e-4
    assert u.tarp(samples, mixed[1]).p_value < 1e-3
    assert u.rank_uniformity(u.ranks(samples, mixed[1])[:, 0], 19).p_value > 1e-4


def test_tarp_detects_too_little_spread_and_names_its_size():
    found = u.tarp(*draws(19, 800, scale=0.7))
    assert found.p_value < 1e-4
    assert found.coverage[-1] == 1.0


def test_conformal_factor_covers_new_images_at_the_confidence():
    """Images whose std is understated by 2: the factor is near 2 z, and 90 % of new ones lie in."""
    _, truth = draws(1, 600, (200,))
    mean, std = torch.zeros_like(truth), torch.full_like(truth, 0.5)
    k = u.conformal_factor(mean[:200], std[:200], truth[:200], level=0.9, confidence=0.9)
    assert 2 * 1.645 < k < 2 * 2.0
    inside = (truth[200:].abs() <= k * 0.5).double().mean(1) >= 0.9
    # The share of 400 scatters, and so does what the factor's own 200 images say of 90 %.
    assert inside.double().mean() >= 0.9 - 4 * math.sqrt(0.9 * 0.1 * (1 / 400 + 1 / 200))


def test_kolmogorov_p_of_one_draw_is_its_own_probability():
    assert u.kolmogorov_p(0.75, 1) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, t: u.ranks(s, t[:2]), "samples must be"),
        (lambda s, t: u.coverage(s[:1], t, 0.9), "two samples"),
        (lambda s, t: u.coverage(s, t, 1.5), "level must lie"),
        (lambda s, t: u.conformal_factor(t[:3], t[:3] + 9, t[:3]), "at least 9 images"),
        (lambda s, t: u.rank_uniformity(torch.zeros(9).long(), 9, bins=3), "must divide|divide"),
        (lambda s, t: u.binomial_band(0, 0.5), "count >= 1"),
    ],
)
def test_misuse_is_an_error(call, message):
    with pytest.raises(ValueError, match=message):
        call(*draws(4, 20))
