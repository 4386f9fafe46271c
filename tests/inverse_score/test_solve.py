import pytest
import torch

from inverse_score import Prior, condition, solve
from inverse_score.posterior import METHODS
from inverse_score.sde import VPSDE
from inverse_score.solver import Diverged
from inverse_score.testing.half_seen import NOISE, gaussian_prior, measurement, seen_half
from operators import CartesianMRI, Diagonal, Identity, Mask


@pytest.fixture(scope="module")
def problem():
    prior, A = gaussian_prior(), seen_half()
    x, y = measurement(prior, A, items=3)
    return prior, A, x, y


@pytest.mark.parametrize("covariance", ["spectrum", "jacobian"])
def test_a_change_of_units_changes_nothing_else(problem, covariance):
    """solve(s y + A(o 1), A, prior through x -> s x + o, noise s) = s solve(y) + o."""
    prior, A, _, y = problem
    y, s, o = y.double(), 7.0, -3.0
    pushed = gaussian_prior(range=(s, o))
    # The spectrum is of the prior's own units: measured on moved images it differs by rounding.
    pushed.card["error_spectrum"] = prior.card["error_spectrum"]
    options = {"method": "moment-matching", "covariance": covariance, "steps": 12}
    plain = solve(y, A, prior, noise_std=NOISE, num_samples=2, **options)
    moved = solve(
        s * y + A(torch.full_like(y, o)), A, pushed, noise_std=s * NOISE, num_samples=2, **options
    )
    torch.testing.assert_close(moved.samples, s * plain.samples + o, rtol=0, atol=1e-9)
    torch.testing.assert_close(moved.std, s * plain.std, rtol=0, atol=1e-9)
    torch.testing.assert_close(moved.misfit, plain.misfit, rtol=1e-9, atol=0)


@pytest.mark.parametrize("method", ["moment-matching", "pigdm", "dps", "ddnm", "diffpir", "dds"])
def test_results_do_not_depend_on_the_batch_or_its_order(problem, method):
    prior, A, _, y = problem
    options = {"noise_std": NOISE, "method": method, "steps": 10, "num_samples": 2}
    together = solve(y, A, prior, **options)
    apart = solve(y, A, prior, batch_size=1, **options)
    backwards = solve(y.flip(0), A, prior, items=[2, 1, 0], **options)
    torch.testing.assert_close(apart.samples, together.samples, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(backwards.samples.flip(1), together.samples, rtol=1e-5, atol=1e-5)


def test_each_item_has_its_own_operator_and_noise(problem):
    prior, _, x, _ = problem
    mask = torch.zeros(3, 1, 4, 4)
    for i in range(3):
        mask[i, 0, :, i] = 1
    A, noise_std = Mask(mask, image_shape=(1, 4, 4)), torch.tensor([0.02, 0.05, 0.2])
    y = A(x)
    together = solve(y, A, prior, noise_std=noise_std, steps=10)
    for i in range(3):
        alone = solve(y[[i]], A[[i]], prior, noise_std=float(noise_std[i]), steps=10, items=[i])
        torch.testing.assert_close(
            alone.samples[:, 0], together.samples[:, i], rtol=1e-5, atol=1e-5
        )


def test_noise_per_measurement_weighs_the_data(problem):
    """Pixels said to be noisy by 1e3 are as good as not measured."""
    prior, _, x, _ = problem
    full, half = Mask(torch.ones(1, 4, 4)), seen_half()
    std = torch.where(half.mask.bool(), NOISE, 1e3).reshape(1, 1, 4, 4)
    options = {"method": "moment-matching", "covariance": "jacobian", "steps": 30}
    weighted = solve(full(x), full, prior, noise_std=std, **options)
    masked = solve(half(x), half, prior, noise_std=NOISE, **options)
    torch.testing.assert_close(weighted.samples, masked.samples, rtol=0, atol=5e-3)


def test_streamed_mean_and_std_are_those_of_the_samples(problem):
    prior, A, _, y = problem
    options = {"noise_std": NOISE, "steps": 8, "num_samples": 5}
    kept, streamed = (
        solve(y, A, prior, **options),
        solve(y, A, prior, keep_samples=False, batch_size=2, **options),
    )
    assert streamed.samples is None
    torch.testing.assert_close(streamed.mean, kept.mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(streamed.std, kept.std, rtol=1e-4, atol=1e-5)


def test_the_prior_share_is_what_the_data_did_not_determine(problem):
    prior, A, _, y = problem
    rec = solve(y, A, prior, noise_std=1e-4, method="pinv")
    assert rec.prior_share.max() < 1e-3
    rec = solve(y, A, prior, noise_std=NOISE, num_samples=2, steps=20)
    missing = (1 - A.mask.float()) * rec.mean
    bound = missing.square().sum((1, 2, 3)) / rec.mean.square().sum((1, 2, 3))
    assert (rec.prior_share >= bound).all()


def test_without_a_spectrum_the_fast_budget_says_what_it_does(problem):
    _, A, _, y = problem
    rec = solve(y, A, gaussian_prior(spectrum=False), noise_std=NOISE, steps=5)
    assert "no error spectrum" in rec.method
    assert rec.vjps == 0


def test_auto_takes_what_is_scaled_for_the_operator_that_it_is(problem):
    """A mask has a row of its own in the table, 20 steps for 28; twice a mask is still a mask."""
    prior, A, _, y = problem
    plain = solve(y, A, prior, noise_std=NOISE)
    scaled = solve(2 * y, 2 * (1.0 * A), prior, noise_std=2 * NOISE)
    other = solve(y, A @ Identity((1, 4, 4)), prior, noise_std=NOISE)
    assert scaled.method == plain.method
    assert (plain.nfe, other.nfe) == (20, 28)


def test_the_walk_ends_at_a_fifth_of_the_noise_of_the_best_measured_direction():
    """There x0_hat has lost r^2 / (s^2 + r^2) of the variance s^2 that the data leave: 1 / 26.

    A third would lose a tenth. Directions measured at half the gain do not end it sooner.
    """
    prior = gaussian_prior(spectrum=False)
    gains = torch.tensor([[1.0], [0.5], [0.5], [0.5]]).expand(1, 4, 4)
    # Levels count in quarter octaves, downwards.
    A, level, seen = Diagonal(gains), 2.0**-6, []
    solve(A(torch.full((1, 1, 4, 4), 0.5)), A, prior, noise_std=1.1 * level, steps=5,
          callback=lambda k, t, x, x0: seen.append(prior.sde.ratio(float(t))))  # fmt: skip
    assert seen[-1] == pytest.approx(level / 5, rel=1e-4)


def test_what_a_caller_says_goes_before_what_auto_chose(problem):
    prior, A, _, y = problem
    rec = solve(y, A, prior, noise_std=NOISE, tol=0.02, steps=6, eta=0.5)
    assert (rec.settings["covariance"], rec.settings["tol"]) == ("spectrum", 0.02)
    assert rec.settings["steps"] == rec.nfe == 6
    assert "eta 0.5" in rec.method


def test_the_cost_of_chunks_is_their_mean_rounded_up(problem):
    """Rows of two noise levels run as two chunks of 9 calls each, which cost a row 9."""
    prior, A, _, y = problem
    std = torch.tensor([0.05, 0.05, 0.2])
    rec = solve(y, A, prior, noise_std=std, method="pigdm", steps=9, num_samples=2)
    assert (rec.nfe, rec.vjps) == (9, 9)


def test_rows_share_a_grid_where_their_noise_is_within_a_quarter_octave(problem):
    """2^(1/4) is 1.19: 0.05 and 0.0505 walk together, 0.05 and 0.06 apart."""
    prior, A, _, y = problem
    for second, chunks in ((0.0505, 1), (0.06, 2)):
        seen = []
        solve(y[:2], A, prior, noise_std=torch.tensor([0.05, second]), steps=4,
              callback=lambda k, t, x, x0, seen=seen: seen.append(k))  # fmt: skip
        assert seen == list(range(4)) * chunks


def test_cost_counts_calls_and_vjps(problem):
    prior, A, _, y = problem
    rec = solve(y, A, prior, noise_std=NOISE, method="pigdm", steps=9)
    assert (rec.nfe, rec.vjps, rec.forward_equivalents) == (9, 9, 27)


def test_callback_sees_every_step(problem):
    prior, A, _, y = problem
    seen = []
    solve(y, A, prior, noise_std=NOISE, steps=6, callback=lambda k, t, x, x0: seen.append(k))
    assert seen == list(range(6))


def test_divergence_stops_and_keeps_the_last_finite_state(problem):
    _, A, _, y = problem
    calls = []

    def network(x, t):
        calls.append(1)
        return x * (torch.nan if len(calls) > 6 else 0.5)

    prior = Prior(network, VPSDE(), output="x0", event_shape=(1, 4, 4))
    with pytest.raises(Diverged, match="not finite at step 6") as caught:
        solve(y[:1], A, prior, noise_std=NOISE, method="song21", steps=8)
    assert caught.value.step == 6
    assert torch.isfinite(caught.value.state).all()


def test_finite_samples_far_beyond_prior_and_data_are_divergence_too(problem):
    _, A, _, y = problem
    prior = Prior(lambda x, t: -3 * x, VPSDE(), output="x0", event_shape=(1, 4, 4))
    with pytest.raises(Diverged, match=r"\de\+\d+ in size at step \d+") as caught:
        solve(y[:1], A, prior, noise_std=NOISE, method="song21", steps=40)
    assert caught.value.step > 0
    assert caught.value.state.abs().amax() < 1e5


def test_data_of_any_size_are_not_divergence(problem):
    prior, A, _, y = problem
    rec = solve(1e8 * y[:1], A, prior, noise_std=0.0, method="ddnm", steps=5)
    assert rec.mean.abs().amax() > 1e6


def test_std_of_one_sample_is_an_error(problem):
    prior, A, _, y = problem
    with pytest.raises(ValueError, match="num_samples >= 2"):
        _ = solve(y, A, prior, noise_std=NOISE, steps=4).std


BAD = {
    "negative noise": ({"noise_std": -0.1}, ">= 0; got -0.1"),
    "infinite noise": ({"noise_std": torch.inf}, "finite"),
    "no noise given": ({"noise_std": None}, "estimate_noise"),
    "noise of a wrong shape": ({"noise_std": torch.ones(5)}, r"broadcast to y \(3, 1, 4, 4\)"),
    "exact data, guided method": ({"noise_std": 0.0, "method": "dps"}, "for exact data: .*ddnm"),
    "unknown method": ({"method": "magic"}, "unknown method 'magic'; known: auto"),
    "unknown option": ({"method": "dps", "zeta": 1.0}, "zeta"),
    "unknown preset": ({"method": "song21", "preset": "mine"}, "presets: default, paper"),
    "unknown sampler": ({"sampler": "magic"}, "unknown sampler"),
    "unknown budget": ({"budget": "cheap"}, "fast"),
    "no samples": ({"num_samples": 0}, "num_samples must be"),
    "items of a wrong count": ({"items": [1]}, "name the 3 rows"),
    "samples of a baseline": ({"method": "tv", "num_samples": 2}, "one answer"),
    "fbp of a mask": ({"method": "fbp"}, "has no fbp"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_named(problem, case):
    prior, A, _, y = problem
    options, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        solve(y, A, prior, **{"noise_std": NOISE, **options})


def test_data_that_do_not_fit_are_named(problem):
    prior, A, _, y = problem
    bad = y.clone()
    bad[1, 0, 2, 3] = torch.nan
    for data, operator, message in (
        (bad, A, r"1 non-finite values, the first at \(1, 0, 2, 3\)"),
        (y[:, :, :3], A, r"y must be \(B, 1, 4, 4\)"),
        (y.to(torch.complex64), A, "measures real data"),
        (y.int(), A, "floating-point"),
        (y, CartesianMRI(torch.ones(4), image_shape=(4, 4)), "1 channels and the operator's"),
        (y, lambda x: x, "LinearOperator"),
    ):
        with pytest.raises(ValueError, match=message):
            solve(data, operator, prior, noise_std=NOISE)


def test_condition_names_methods_that_are_no_scores(problem):
    prior, A, _, y = problem
    with pytest.raises(ValueError, match="not a conditional score"):
        condition(prior, y, A, noise_std=NOISE, method="replacement")
    cond = condition(prior, y, A, noise_std=NOISE, covariance="isotropic")
    with pytest.raises(ValueError, match="holds 3 measurements"):
        cond.denoise(torch.zeros(2, 1, 4, 4), 0.5)


def test_every_method_has_a_docstring_or_a_conditional_that_has():
    for name, method in METHODS.items():
        assert (method.conditional or method.run).__doc__, name
