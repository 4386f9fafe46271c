"""A result that does not explain its data says so, whatever the method."""

import math
import warnings

import pytest
import torch

from inverse_score import solve
from inverse_score.errors import MisfitWarning
from inverse_score.posterior.measurement import LinearMeasurement
from inverse_score.posterior.misfit import complaints, explained, largest_misfit, largest_value
from inverse_score.testing.half_seen import NOISE, gaussian_prior, measurement, seen_half
from operators import Mask
from recipes.run.verdict import misfit_lines


def _data(pixels, items=1, noise_std=0.1):
    mask = Mask(torch.ones(1, 1, pixels))
    return LinearMeasurement(mask, torch.zeros(items, 1, 1, pixels), noise_std)


@pytest.mark.parametrize("pixels", [1, 6, 100, 10000])
def test_a_chi_square_variable_is_small_enough_but_for_four_in_a_million(pixels):
    most = largest_misfit(_data(pixels))
    draws = torch.distributions.Chi2(torch.tensor(float(pixels))).sample((100000,)) / pixels
    assert (draws > most).sum() <= 3
    # And they are not idle: a residual twice the noise is found among a hundred numbers.
    assert (4 * draws.mean() > most) == (pixels >= 100)


def test_samples_of_the_exact_posterior_pass_and_wrong_noise_is_told_with_its_items():
    prior, A = gaussian_prior(), seen_half()
    _, y = measurement(prior, A, items=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rec = solve(y, A, prior, noise_std=NOISE, num_samples=4)
    assert rec.misfit_ok.tolist() == [True] * 3
    assert rec.warnings == ()
    # Pixels that no image of this prior has.
    y[1] *= 40
    with pytest.warns(MisfitWarning, match="item 1: misfit"):
        rec = solve(y, A, prior, noise_std=NOISE, num_samples=2, method="dps", steps=10)
    assert rec.misfit_ok.tolist()[1] is False
    assert len(rec.warnings) >= 1


def test_one_garbage_sample_of_many_is_told():
    data, misfit = _data(10000, items=2), torch.ones(200, 2)
    assert explained(data, misfit).tolist() == [True, True]
    misfit[7, 1] = 30.0
    assert explained(data, misfit).tolist() == [True, False]
    misfit[7, 1] = math.nan
    assert explained(data, misfit).tolist() == [True, False]


def test_values_no_image_has_are_told_where_no_datum_sees_them():
    data = _data(100, items=2)
    limit, ok = largest_value(data, 0.25), torch.tensor([True, True])
    assert limit.tolist() == [100.0, 100.0]
    peak = torch.tensor([[1.0, 457.0]])
    (text,) = complaints(data, torch.ones(1, 2), ok, peak, limit)
    assert text.startswith("item 1: values up to 457")


def test_the_summary_has_a_line_a_slice_that_does_not_explain_its_data():
    text = "item 0: misfit 29 to 30 where 0.5 to 1.5 is expected"
    slices = [{"slice": 3, "warnings": [text, text]}, {"slice": 4, "warnings": []}, {"slice": 5}]
    assert misfit_lines(slices) == [
        "  slice 3: misfit 29 to 30 where 0.5 to 1.5 is expected",
    ]
