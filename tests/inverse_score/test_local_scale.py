import json

import pytest
import torch

from inverse_score import KarrasSDE, Prior, solve
from inverse_score.posterior import METHODS, ErrorSpectrum, error_spectrum
from inverse_score.posterior.local import LocalScale, box
from inverse_score.posterior.units import measure
from operators import LinearOperator, Mask

SIZE, QUIET = 24, 0.02

moment_matching = METHODS["moment-matching"].condition


def stds() -> torch.Tensor:
    """(SIZE, SIZE): 1 right of the middle, QUIET left of it."""
    return torch.where(torch.arange(SIZE) < SIZE // 2, QUIET, 1.0).repeat(SIZE, 1)


class Wiener(torch.nn.Module):
    """E[x_0 | x_t] for independent pixels of these stds."""

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        variance = stds().to(x).square()
        return x * variance / (variance + t[:, None, None, None] ** 2)


def two_halves(local: bool = True) -> Prior:
    prior = Prior(Wiener(), KarrasSDE(80.0), output="x0", event_shape=(1, SIZE, SIZE), t_min=0.002)
    images = stds() * torch.randn(64, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    card = error_spectrum(prior, images, local=local)
    prior.card["error_spectrum"] = json.loads(json.dumps(card))
    return prior


@pytest.mark.parametrize("ratio", [0.1, 0.7])
def test_the_scale_is_the_denoisers_std_in_each_half_over_that_of_the_whole(ratio):
    """Far from the border between halves, within 10 %: C = v r^2 / (v + r^2) pixel by pixel."""
    prior = two_halves()
    spectrum = ErrorSpectrum(prior.card["error_spectrum"])
    x0 = stds() * torch.randn(8, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    x = x0 + ratio * torch.randn(x0.shape, generator=torch.Generator().manual_seed(3))
    t = torch.full((8,), ratio)
    s = spectrum.scale(prior.denoise(x, t), ratio).mean((0, 1, 2))
    variance = stds()[0].square() * ratio**2 / (stds()[0].square() + ratio**2)
    expected = (variance / variance.mean()).sqrt()
    for column in (2, SIZE - 3):
        assert s[column] == pytest.approx(float(expected[column]), rel=0.1)


def test_errors_divided_by_the_scale_have_a_spectrum_of_the_same_mean():
    card, plain = (two_halves(local).card["error_spectrum"] for local in (True, False))
    spectra = [ErrorSpectrum(c) for c in (card, plain)]
    for r in (0.05, 0.5, 2.0):
        like = torch.empty(1, 1, SIZE, SIZE)
        means = [float(s.mean_square(r, like)) for s in spectra]
        assert means[0] == pytest.approx(means[1], rel=0.1)
    assert card["error_mean"] == plain["error_mean"]
    assert ErrorSpectrum(plain).scale(torch.zeros(1, 1, 24, 24), 0.5).eq(1).all()


def test_what_one_number_says_of_both_halves_goes_to_the_half_that_is_unknown():
    """y = left + right pixel of each row pair: the exact posterior mean, three times nearer."""

    def fold(x: torch.Tensor) -> torch.Tensor:
        return x[..., : SIZE // 2] + x[..., SIZE // 2 :]

    A = LinearOperator.from_function(fold, (1, SIZE, SIZE))
    x0 = stds() * torch.randn(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(4))
    y, noise, ratio = A(x0), 0.05, 0.5
    xt = x0 + ratio * torch.randn(x0.shape, generator=torch.Generator().manual_seed(5))
    v = stds().square() * ratio**2 / (stds().square() + ratio**2)
    errors = []
    for local in (True, False):
        prior = two_halves(local)
        data = measure(prior, y, A, noise)
        cond = moment_matching(prior, data, covariance="spectrum", tol=1e-5)
        found = cond.denoise(xt, ratio)
        x0_hat = prior.denoise(xt, torch.full((1,), ratio))
        # One number of a left and a right pixel: a 1 x 1 Kalman gain for each pair.
        gain = v / (fold(v).repeat(1, 2) + noise**2)
        exact = x0_hat + gain * (y - A(x0_hat)).repeat(1, 1, 1, 2)
        errors.append(float((found - exact).square().mean().sqrt()))
    assert errors[0] < errors[1] / 3


def test_what_the_spectrum_does_not_explain_is_believed_in_the_quiet_half_too():
    """There c = 0.02^2 and noise 0.2, so that a step would be 0.01 of the residual.

    |e|_W^2 is over 7200 where m + tr C N = 4176: at least 3000 / 576 * noise^2 = 0.2 of variance is
    missing, and 0.2 / (0.2 + noise^2) = 0.8 of the residual is the step where it is added.
    """
    prior, noise, ratio = two_halves(), 0.2, 1.0
    y = torch.randn(1, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(7)) * stds()
    y[..., : SIZE // 2] = 1.0
    data = measure(prior, y, Mask(torch.ones(1, SIZE, SIZE)), noise)
    cond = moment_matching(prior, data, covariance="spectrum", tol=1e-5)
    found = cond.denoise(stds() * torch.sign(y), ratio)
    assert found[..., 3 : SIZE // 2 - 3].mean() > 0.65


def test_the_scale_is_continuous_and_an_items_own():
    spectrum = ErrorSpectrum(two_halves().card["error_spectrum"])
    x = stds() * torch.randn(3, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(6))
    r = torch.tensor([0.05, 0.5, 3.0])
    s = spectrum.scale(x, r)
    for i in range(3):
        torch.testing.assert_close(s[i : i + 1], spectrum.scale(x[i : i + 1], float(r[i])))
    moved = spectrum.scale(x + 1e-6 * torch.randn_like(x), r)
    assert (moved / s - 1).abs().max() < 1e-3


@pytest.mark.parametrize("colour", [[1.0], [0.6, 0.8], [0.5, 1.0, 1.5]])
def test_a_flat_image_is_read_off_at_its_mean_or_magnitude(colour):
    """Nodes 0, 1, 2, 3 of the level: between them ln s is linear, beyond them s stays."""
    table = [[0.2, 0.5, 1.0, 4.0]] * 2
    card = {"window": 5, "activity": [1e-3, 1.0], "level": [0.0, 1.0, 2.0, 3.0]}
    log_sigma = torch.tensor([0.1, 1.0], dtype=torch.float64).log()
    scale = LocalScale({**card, "scale": [table, table]}, log_sigma)
    levels = torch.tensor([0.0, 1.0, 2.5, 9.0])
    x = (levels[:, None] * torch.tensor(colour))[..., None, None].expand(-1, -1, 8, 8)
    s = scale(x, 0.3)
    torch.testing.assert_close(s, torch.tensor([0.2, 0.5, 2.0, 4.0])[:, None, None, None] + 0 * s)


def test_a_window_is_the_mean_of_its_pixels():
    x = torch.arange(49.0).reshape(1, 1, 7, 7)
    assert box(x, 5)[0, 0, 3, 3] == x[0, 0, 1:6, 1:6].mean()
    assert box(x, 5)[0, 0, 0, 0] == pytest.approx(
        float((3 * (3 * 0 + 1 + 2) + 3 * 7 + 8 + 9 + 3 * 14 + 15 + 16) / 25)
    )


def test_small_images_have_no_local_scale_and_a_damaged_one_is_refused():
    prior = two_halves()
    card = prior.card["error_spectrum"]
    assert "local" not in error_spectrum(
        Prior(lambda x, t: 0.5 * x, KarrasSDE(80.0), output="x0"), torch.rand(2, 1, 16, 16)
    )
    broken = {**card["local"], "scale": card["local"]["scale"][:-1]}
    with pytest.raises(ValueError, match="levels x activity x level"):
        ErrorSpectrum({**card, "local": broken})
    with pytest.raises(ValueError, match=r"missing \['window'\]"):
        ErrorSpectrum({**card, "local": {k: v for k, v in broken.items() if k != "window"}})


def test_samples_do_not_depend_on_the_batch():
    """Within 1e-5: the scale is an image's own and continuous in it."""
    prior = two_halves()
    mask = Mask((torch.rand(1, SIZE, SIZE, generator=torch.Generator().manual_seed(8)) < 0.5) * 1.0)
    y = mask(stds() * torch.randn(2, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(9)))
    together, apart = (
        solve(y, mask, prior, noise_std=0.1, num_samples=2, steps=6, batch_size=size).samples
        for size in (4, 1)
    )
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-5)
