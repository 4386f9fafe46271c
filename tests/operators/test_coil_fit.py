"""Smooth fields on a grid larger than the field of view, and their fit to one coil's data."""

import pytest
import torch

from operators import CartesianMRI, as_channels, as_complex
from operators.coil_fit import SmoothFields, fit_maps

REAL = torch.zeros((), dtype=torch.complex128)


@pytest.mark.parametrize("shape", [(24, 32), (23, 31)])
def test_the_adjoint_of_the_fields_is_their_transpose(shape):
    torch.manual_seed(0)
    fields = SmoothFields.of(shape, REAL)
    s = torch.randn(2, *fields.w.shape, dtype=torch.complex128)
    S = torch.randn(2, *shape, dtype=torch.complex128)
    gap = (fields(s).conj() * S).sum() - (s.conj() * fields.adjoint(S)).sum()
    assert float(gap.abs()) < 1e-11


def test_fields_of_unit_coefficients_have_a_mean_power_of_one():
    fields = SmoothFields.of((24, 32), REAL)
    power = torch.einsum("hm,mn,wn->hw", fields.Y.abs() ** 2, fields.w**2, fields.X.abs() ** 2)
    torch.testing.assert_close(power, torch.ones_like(power))


def test_fields_need_not_agree_at_opposite_edges():
    """A ramp across the field of view is within reach of the larger grid alone."""
    ramp = torch.linspace(-1, 1, 48, dtype=torch.float64).expand(1, 40, 48) + 0j
    image, sampling = ramp[0] * 0 + 1, CartesianMRI(torch.ones(48), image_shape=(40, 48))
    errors = []
    for over in (1.0, 1.5):
        fields = SmoothFields.of((40, 48), ramp, over=over)
        found = fit_maps(image, ramp, sampling, fields, 1e-3, iterations=60)
        errors.append(float((found - ramp).abs().square().mean().sqrt()))
    assert errors[1] < 0.02
    assert errors[0] > 5 * errors[1]


def test_the_fit_is_the_ridge_regression_of_the_coefficients():
    torch.manual_seed(0)
    mask = torch.arange(12) % 2 == 0
    sampling = CartesianMRI(mask, image_shape=(8, 12))
    fields = SmoothFields.of((8, 12), REAL)
    image, y = (torch.randn(8, 12, dtype=torch.complex128) for _ in range(2))
    coil = as_complex(sampling.T(sampling(as_channels(y[None]))))
    found = fit_maps(image, coil, sampling, fields, 0.5, iterations=300)[0]
    count = fields.w.numel()
    basis = fields(torch.eye(count, dtype=torch.complex128).reshape(count, *fields.w.shape))
    E = sampling(as_channels(image * basis))[:, 0].flatten(1).T
    target = sampling(as_channels(y[None])).flatten()
    s = torch.linalg.solve(E.mH @ E / 0.5 + torch.eye(count), E.mH @ target / 0.5)
    torch.testing.assert_close(found, fields(s.reshape(fields.w.shape)), rtol=1e-3, atol=1e-3)
