import json
import math

import pytest
import torch

from inverse_score import VESDE, VPSDE, GaussianPrior, Prior, condition, solve
from inverse_score.posterior import (
    METHODS,
    ErrorSpectrum,
    error_spectrum,
    examine,
    pixel_variance,
    resolve,
)
from inverse_score.posterior.covariance import dct, dct_matrix, idct
from inverse_score.posterior.units import measure
from inverse_score.randomness import Noise
from inverse_score.testing.half_seen import gaussian_prior, seen_half
from operators import Grayscale, Identity, Mask, vstack

moment_matching = METHODS["moment-matching"].condition


@pytest.mark.parametrize("shape", [(4, 4), (7, 10)])
def test_the_dct_is_orthonormal_and_inverted_by_its_transpose(shape):
    D = dct_matrix(shape[0], torch.empty(0, dtype=torch.float64))
    torch.testing.assert_close(D @ D.T, torch.eye(shape[0], dtype=torch.float64))
    x = torch.rand(2, 3, *shape, dtype=torch.float64)
    torch.testing.assert_close(idct(dct(x)), x)


def test_a_gaussian_priors_spectrum_is_the_diagonal_of_its_conditional_covariance():
    """diag(F C_t F^T), C_t = (C^-1 + r^-2)^-1, within 5 standard errors of 4000 images."""
    prior = gaussian_prior(spectrum=False)
    images = prior.sample(4000, seed=3)
    card = error_spectrum(prior, images, sigma=[0.05, 0.3], batch_size=4000)
    F = torch.kron(*[dct_matrix(4, images)] * 2)
    for level, r in enumerate(card["sigma"]):
        C = torch.linalg.inv(torch.linalg.inv(prior.cov) + torch.eye(16) / r**2)
        expected = (F @ C @ F.T).diagonal()
        measured = torch.tensor(card["values"][level][0], dtype=torch.float64)
        assert ((measured / expected - 1).abs() < 5 * (2 / 4000) ** 0.5).all()
    assert card["error_mean"][0] == pytest.approx(
        float(torch.tensor(card["values"][0]).mean()), rel=1e-4
    )


def test_between_levels_the_spectrum_follows_the_closed_form_and_below_them_the_noise():
    prior = gaussian_prior()
    spectrum = ErrorSpectrum(prior.card["error_spectrum"])
    like = torch.empty(1, 1, 4, 4, dtype=torch.float64)
    F = torch.kron(*[dct_matrix(4, like)] * 2)
    for r in (0.02, 0.11, 1.3):
        C = torch.linalg.inv(torch.linalg.inv(prior.cov) + torch.eye(16) / r**2)
        expected = (F @ C @ F.T).diagonal().reshape(4, 4)
        assert (spectrum.at(r, like)[0, 0] / expected - 1).abs().max() < 0.25
    lowest = spectrum.card["sigma"][0]
    torch.testing.assert_close(spectrum.at(lowest / 2, like), spectrum.at(lowest, like) / 4)


def test_a_batch_of_levels_equals_the_levels_one_by_one():
    spectrum = ErrorSpectrum(gaussian_prior().card["error_spectrum"])
    like, r = torch.empty(2, 1, 4, 4), torch.tensor([0.03, 0.7])
    torch.testing.assert_close(
        spectrum.at(r, like), torch.cat([spectrum.at(float(v), like) for v in r])
    )


def test_a_radial_spectrum_serves_another_image_size():
    """A denoiser that leaves white noise of a known size: flat at every frequency and size."""
    prior = Prior(lambda x, t: 0 * x, VESDE(), output="x0", event_shape=(1, None, None))
    images = torch.randn(64, 1, 24, 20, generator=torch.Generator().manual_seed(0))
    card = json.loads(json.dumps(error_spectrum(prior, images, sigma=[0.1, 1.0], bins="radial")))
    at = ErrorSpectrum(card).at(0.3, torch.empty(1, 1, 31, 17))
    assert at.shape == (1, 1, 31, 17)
    assert (at[0, 0].flatten()[1:] - 1).abs().mean() < 0.1


def test_three_channels_are_measured_along_their_own_directions():
    """Grey images with small colour: the first direction is grey and holds nearly all error."""
    prior = Prior(lambda x, t: 0 * x, VESDE(), output="x0", event_shape=(3, 8, 8))
    generator = torch.Generator().manual_seed(0)
    grey = torch.randn(200, 1, 8, 8, generator=generator)
    images = grey + 0.1 * torch.randn(200, 3, 8, 8, generator=generator)
    spectrum = ErrorSpectrum(error_spectrum(prior, images, sigma=[0.1, 1.0]))
    assert spectrum.directions[0].abs().min() > 0.55
    c = spectrum.at(0.5, images[:1])[0].mean((1, 2))
    assert c[0] > 100 * c[1]
    torch.testing.assert_close(spectrum.inverse(spectrum.forward(images)), images)


def test_the_pixel_variance_needs_no_spectrum():
    plain, stored = gaussian_prior(spectrum=False), gaussian_prior()
    assert pixel_variance(plain, (1, 4, 4)) == pytest.approx(0.15**2, rel=0.15)
    assert pixel_variance(stored, (1, 4, 4)) == pytest.approx(0.15**2, rel=0.15)


def test_a_wrong_card_or_image_is_an_error():
    card = gaussian_prior().card["error_spectrum"]
    with pytest.raises(ValueError, match="missing"):
        ErrorSpectrum({"sigma": [1.0], "basis": "dct", "bins": "full"})
    with pytest.raises(ValueError, match="levels x channels x bins"):
        ErrorSpectrum({**card, "sigma": card["sigma"][:-1]})
    with pytest.raises(ValueError, match="1 channels"):
        ErrorSpectrum(card).at(0.1, torch.empty(1, 2, 4, 4))
    with pytest.raises(ValueError, match="N >= 2"):
        error_spectrum(gaussian_prior(), torch.zeros(1, 1, 4, 4))


@pytest.mark.parametrize("weights", [(1 / 3, 1 / 3, 1 / 3), (0.1, 0.3, 0.9)])
@pytest.mark.parametrize("noise_std", [0.1, 1e-4])
def test_grey_data_reach_the_closed_form_mean_in_four_iterations(weights, noise_std):
    """A that mixes channels: E[x_0 | x_t, y] of a prior diagonal in the DCT and colour axes."""
    c = 1 / (1 + torch.arange(48, dtype=torch.float64)) ** 3
    Q = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)).double())[0]
    F = torch.kron(Q.contiguous(), torch.kron(*[dct_matrix(4, c)] * 2))
    prior = GaussianPrior(torch.zeros(3, 4, 4), F.T @ torch.diag(c) @ F, VESDE())
    r = 0.05
    card = {"sigma": [r, 2 * r], "basis": "dct", "bins": "full", "shape": [4, 4]}
    values = [(c * s**2 / (c + s**2)).reshape(3, 16).tolist() for s in card["sigma"]]
    prior.card["error_spectrum"] = {**card, "channels": Q.tolist(), "values": values}
    A, noise = Grayscale((3, 4, 4), weights=weights), Noise(0, [0])
    x = prior.sample(1, seed=2)
    xt, y = x + r * noise(x, 0), A(x) + noise_std * noise(x[:, :1], 1)
    t = float(prior.sde.time(torch.tensor(r, dtype=torch.float64)))
    options = {"covariance": "spectrum", "tol": 1e-9, "max_iter": 4}
    cond = moment_matching(prior, measure(prior, y, A, noise_std), **options)
    N = A.T(A(torch.eye(48, dtype=torch.float64).reshape(48, 3, 4, 4))).flatten(1) / noise_std**2
    b = A.T(y).flatten() / noise_std**2 + xt.flatten() / r**2
    precision = N + torch.linalg.inv(prior.cov) + torch.eye(48, dtype=torch.float64) / r**2
    expected = torch.linalg.solve(precision, b).reshape(1, 3, 4, 4)
    scale = float(torch.linalg.inv(precision).diagonal().mean().sqrt())
    assert (cond.denoise(xt, t) - expected).abs().max() < 0.02 * scale


def white_prior(stated, shape=(64, 64)):
    """x_0 ~ N(0, 0.3^2 I), r = 0.2; the card holds the true error variance times `stated`."""
    v = 0.3**2
    prior = Prior(lambda x, t: x * v / (v + 0.04), VESDE(), output="x0", event_shape=(1, *shape))
    c, sigma = v * 0.04 / (v + 0.04), [0.2, 0.4]
    card = {"sigma": sigma, "basis": "dct", "bins": "radial", "frequency": [0.0, 0.4, 0.8]}
    prior.card["error_spectrum"] = {**card, "channels": [[1.0]], "values": [[[stated * c] * 3]] * 2}
    return prior


@pytest.mark.parametrize(("stated", "factor"), [(1.0, 1.0), (2.0, 1.0), (0.2, 5.0), (0.01, 10.0)])
def test_data_inflate_a_spectrum_that_is_too_small_for_them_and_no_other(stated, factor):
    """|y - A x0_hat|^2 of the joint law of x_t and y: noise^2 + A C A^T on 2048 pixels."""
    prior, noise = white_prior(stated), Noise(3, range(4))
    mask = torch.zeros(1, 64, 64)
    mask[..., ::2] = 1
    A, x = Mask(mask), 0.3 * noise(torch.empty(4, 1, 64, 64), 0)
    xt, y = x + 0.2 * noise(x, 1), A(x + 0.01 * noise(x, 2))
    data = measure(prior, y, A, 0.01)
    cond = moment_matching(prior, data, covariance="spectrum")
    x0_hat = prior.network(xt, None)
    c = cond.spectrum.at(0.2, xt)
    found = cond.inflation(data, data.residual(x0_hat), c, torch.ones(len(c)))
    torch.testing.assert_close(found, torch.full((4,), factor), rtol=0.08, atol=0)


def test_chance_never_inflates_a_right_spectrum():
    """|e|_W^2 of 600 items of 128 pixels, whose C is right: of these some 15 lie beyond two
    standard deviations, none beyond five (chance 1e-5 each)."""
    prior, noise = white_prior(1.0, (8, 16)), Noise(3, range(600))
    A, x = Mask(torch.ones(1, 8, 16)), 0.3 * noise(torch.empty(600, 1, 8, 16), 0)
    xt, y = x + 0.2 * noise(x, 1), x + 0.1 * noise(x, 2)
    data = measure(prior, y, A, 0.1)
    cond = moment_matching(prior, data, covariance="spectrum")
    c = cond.spectrum.at(0.2, xt)
    factor = cond.inflation(data, data.residual(prior.network(xt, None)), c, torch.ones(600))
    assert bool((factor == 1).all())


def test_a_flat_estimate_may_be_inflated_as_far_as_the_spectrum_itself():
    """Where s^2 is 0.1, tenfold c is hundredfold s^2 c; where it is 4, tenfold is the most."""
    prior = gaussian_prior()
    A, y = Mask(torch.ones(1, 4, 4)), torch.full((2, 1, 4, 4), 1e6)
    data = measure(prior, y, A, 0.1)
    cond = moment_matching(prior, data, covariance="spectrum")
    c = cond.spectrum.at(0.2, data.y)
    factor = cond.inflation(data, data.y, c, torch.tensor([0.1, 4.0], dtype=c.dtype))
    torch.testing.assert_close(factor, torch.tensor([100.0, 10.0], dtype=c.dtype))


def gaussian_at_every_level(stated):
    """x_0 ~ N(0, 0.3^2 I); the card holds the true error variances times `stated`."""
    v, sde, levels = 0.3**2, VESDE(sigma_min=1e-3), [0.1, 0.2, 0.4, 1.0, 10.0]
    prior = Prior(
        lambda x, t: x * (v / (v + sde.sigma(t) ** 2)).reshape(-1, 1, 1, 1).to(x),
        sde,
        output="x0",
        event_shape=(1, 64, 64),
    )
    card = {"sigma": levels, "basis": "dct", "bins": "radial", "frequency": [0.0, 0.4, 0.8]}
    values = [[[stated * v * r**2 / (v + r**2)] * 3] for r in levels]
    prior.card["error_spectrum"] = {**card, "channels": [[1.0]], "values": values}
    return prior


def twice_measured(loud, stated=1.0):
    """y = (x, x) + n of two items, n's std 0.01 times `loud` of each, said to be 0.01."""
    prior, noise = gaussian_at_every_level(stated), Noise(3, range(2))
    x = 0.3 * noise(torch.empty(2, 1, 64, 64), 0)
    A = vstack([Identity((1, 64, 64))] * 2)
    clean = A(x)
    y = clean + 0.01 * torch.tensor(loud).reshape(2, *[1] * (clean.ndim - 1)) * noise(clean, 2)
    return prior, A, y, x + 0.2 * noise(x, 1)


@pytest.mark.parametrize("stated", [1.0, 0.2])
@pytest.mark.parametrize("loud", [(1.0, 1.0), (0.5, 1.0), (3.0, 1.0)])
def test_data_off_every_image_are_taken_as_noisier_and_no_others(loud, stated):
    """What no x explains is the half of y that differs between the copies: its power is exact."""
    prior, A, y, _ = twice_measured(loud, stated)
    data = measure(prior, y, A, 0.01)
    found = examine(prior, data)
    expected = torch.tensor(loud).clamp_min(1.0)
    torch.testing.assert_close(found.factor, expected, rtol=0.05, atol=0)
    assert found.factor[1] == 1
    assert found.calls == 1
    assert ("the data lie 3 times noise_std off every image" in found.words) == (max(loud) > 1)
    assert (found.applied(data) is data) == (max(loud) <= 1)
    torch.testing.assert_close(found.applied(data).noise_std.flatten(), 0.01 * found.factor)
    alone = examine(prior, measure(prior, y[1:], A, 0.01), items=[1])
    assert torch.equal(alone.factor, found.factor[1:])


def test_solve_and_condition_take_data_off_every_image_as_noisier_and_say_so_once():
    prior, A, y, xt = twice_measured((3.0, 1.0))
    options = {"noise_std": 0.01, "covariance": "spectrum"}
    with pytest.warns(UserWarning, match="the data lie 3 times noise_std off") as said:
        rec = solve(y, A, prior, method="moment-matching", steps=3, num_samples=2, **options)
    assert sum(warning.category is UserWarning for warning in said) == 1
    assert (rec.nfe, rec.examination.calls) == (3, 1)
    with pytest.warns(UserWarning, match="the data lie 3 times noise_std off"):
        cond = condition(prior, y, A, examine=True, **options)
    t = prior.sde.time(0.2)
    louder = 0.01 * rec.examination.factor
    as_loud = condition(prior, y, A, **{**options, "noise_std": louder}).denoise(xt, t)
    torch.testing.assert_close(cond.denoise(xt, t), as_loud)
    # Chunks of any size see one examination.
    with pytest.warns(UserWarning, match="the data lie 3 times noise_std off"):
        apart = solve(
            y, A, prior, method="moment-matching", steps=3, num_samples=2, batch_size=1, **options
        )
    assert torch.equal(apart.examination.factor, rec.examination.factor)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("values", [[[math.nan]], [[1.0]]], "finite and not negative"),
        ("values", [[[1.0]], [[-1.0]]], "finite and not negative"),
        ("sigma", [1.0, 0.1], "positive and increasing"),
        ("sigma", [0.0, 1.0], "positive and increasing"),
        ("unseen", 0.0, "unseen of an error spectrum must be positive"),
        ("unseen", float("nan"), "unseen of an error spectrum must be positive"),
    ],
)
def test_a_damaged_spectrum_is_refused(key, value, message):
    card = {
        "sigma": [0.1, 1.0],
        "basis": "dct",
        "channels": [[1.0]],
        "bins": "full",
        "shape": [1, 1],
        "values": [[[0.5]], [[1.0]]],
    }
    ErrorSpectrum(card)
    with pytest.raises(ValueError, match=message):
        ErrorSpectrum({**card, key: value})


def test_the_step_takes_strangers_for_more_variable_than_those_measured():
    """c times 4 in closed form: white c on white data moves x0_hat by 4 c / (4 c + noise^2)."""
    c, like = 0.25, torch.zeros(1, 1, 4, 4)
    card = {
        "sigma": [0.5, 1.0], "basis": "dct", "channels": [[1.0]], "bins": "full", "shape": [4, 4],
        "values": [[[c] * 16]] * 2,
    }  # fmt: skip
    plain, wide = ErrorSpectrum(card), ErrorSpectrum({**card, "unseen": 4.0})
    torch.testing.assert_close(wide.of_strangers(0.5, like), 4 * plain.of_strangers(0.5, like))
    assert float(wide.mean_square(0.5, like)) == float(plain.mean_square(0.5, like))
    prior = GaussianPrior(torch.zeros(1, 4, 4), torch.eye(16), VPSDE())
    y, xt, t = torch.ones(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), prior.sde.time(0.5)
    found = condition(
        prior, y, Identity((1, 4, 4)), noise_std=0.5, covariance="spectrum", spectrum=wide, tol=1e-6
    ).denoise(xt, t)
    torch.testing.assert_close(found, torch.full_like(found, 1 / (1 + 0.25)), atol=1e-4, rtol=0)


def test_the_card_s_eta_goes_before_the_table_s_and_what_is_asked_for_before_both():
    prior, A = gaussian_prior(), seen_half()

    def eta(**said):
        return resolve(prior, A, exact=False, method="auto", **said).course.sampler_options["eta"]

    table = eta()
    prior.card["error_spectrum"] = {**prior.card["error_spectrum"], "eta": 1.25}
    assert table != 1.25
    assert eta() == 1.25
    assert eta(eta=0.5) == 0.5
