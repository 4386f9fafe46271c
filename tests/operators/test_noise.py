import math

import pytest
import torch

from inverse_score.randomness import Noise
from operators import add_gaussian, poisson_transmission


def test_noise_of_an_item_does_not_depend_on_the_batch():
    y = torch.zeros(3, 1, 4, 5)
    noisy = add_gaussian(y, 0.1, seed=7, items=[4, 9, 2])
    assert torch.equal(add_gaussian(y[:1], 0.1, seed=7, items=[9])[0], noisy[1])
    assert not torch.equal(noisy[0], noisy[1])
    assert not torch.equal(add_gaussian(y, 0.1, seed=8, items=[4, 9, 2]), noisy)
    assert not torch.equal(add_gaussian(y, 0.1, seed=7, items=[4, 9, 2], draw=1), noisy)


def test_measurement_noise_is_none_of_the_samplers_draws_of_the_same_seed_and_item():
    """Else a sampler would draw the noise that it is to explain."""
    y = torch.zeros(1, 1, 40, 50)
    noise = add_gaussian(y, 1.0, seed=3)
    for stream in range(7):
        drawn = Noise(3, [0])(y, 0, stream)
        # 2000 independent pairs: the mean product's standard error is 0.022.
        assert abs(float((noise * drawn).mean())) < 0.1, stream


def test_complex_noise_has_the_std_in_each_part_and_only_where_measured():
    y = torch.zeros(1, 2, 100, 100, dtype=torch.complex64)
    where = torch.arange(100) % 2 == 0
    noisy = add_gaussian(y, 2.0, seed=0, where=where)
    assert not noisy[..., 1::2].abs().any()
    for part in (noisy.real[..., ::2], noisy.imag[..., ::2]):
        # 10^4 draws: the std's standard error is 0.7 %.
        assert abs(float(part.std()) / 2 - 1) < 0.03
    assert abs(float((noisy.real * noisy.imag)[..., ::2].mean())) < 4 * 4 / 100


def test_std_may_differ_by_item_or_entry():
    y = torch.zeros(2, 1, 60, 60)
    noisy = add_gaussian(y, torch.tensor([1.0, 3.0]), seed=1)
    ratio = float(noisy[1].std() / noisy[0].std())
    assert abs(ratio / 3 - 1) < 0.1
    entries = add_gaussian(y, torch.linspace(0, 1, 60).expand(1, 1, 60, 60), seed=1)
    assert not entries[..., 0].any()


def test_transmission_weights_are_the_inverse_variance_of_the_log_counts():
    p = torch.full((1, 1, 200, 200), 2.0)
    scan = poisson_transmission(p, 1e4, seed=5)
    error = scan.line_integrals - p
    predicted = 1 / math.sqrt(1e4 * math.exp(-2.0))
    assert abs(float(error.std()) / predicted - 1) < 0.02
    assert abs(float((error / scan.noise_std).std()) - 1) < 0.02
    assert scan.starved == 0


def test_starved_readings_are_counted_and_stay_finite():
    scan = poisson_transmission(torch.full((1, 1, 50, 50), 9.0), 1e3, seed=0)
    expected = math.exp(-1e3 * math.exp(-9.0))
    assert abs(scan.starved - expected) < 4 * math.sqrt(expected * (1 - expected) / 2500)
    assert bool(scan.line_integrals.isfinite().all())
    assert float(scan.weights.min()) == 1.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda y: add_gaussian(y, -1.0, seed=0), "noise_std must be finite and >= 0"),
        (lambda y: add_gaussian(y, math.nan, seed=0), "noise_std must be finite"),
        (lambda y: add_gaussian(y, torch.ones(3), seed=0), r"noise_std must be \(B,\) with B = 2"),
        (lambda y: add_gaussian(y, 1.0, seed=0, items=[1]), "1 items name the rows"),
        (lambda y: poisson_transmission(y, 0.0, seed=0), "I0 must be a positive number"),
        (lambda y: poisson_transmission(y / 0, 1.0, seed=0), "real and finite"),
    ],
)
def test_noise_without_meaning_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(2, 1, 3, 3))
