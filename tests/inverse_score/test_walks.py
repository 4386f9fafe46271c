"""The walk that a method takes by default, and what its added noise is worth where C is wrong."""

from inverse_score.posterior import resolve
from inverse_score.testing.half_seen import gaussian_prior, seen_half
from inverse_score.testing.problems import ToyProblem
from inverse_score.testing.scores import sampled_scores

SPECTRUM = {"method": "moment-matching", "covariance": "spectrum", "steps": 20, "tol": 0.02}


def test_more_than_the_reverse_noise_is_nearer_the_posterior_where_the_prior_is_not_stationary():
    problem = ToyProblem("inpainting", "nonstationary", 0.1)
    own = sampled_scores(problem, 1024, **SPECTRUM)
    plain = sampled_scores(problem, 1024, **SPECTRUM, eta=1.0)
    assert "eta 1.5" in own["runs"]
    assert "eta 1.0" in plain["runs"]
    # 0.56 against 1.01 nats by 8192 samples; scatter of 1024 about 0.05.
    assert own["excess"] < 0.75 * plain["excess"]


def test_a_walk_follows_the_covariance_and_another_sampler_has_its_own_options():
    def walk(**said):
        prior, A = gaussian_prior(), seen_half()
        course = resolve(prior, A, exact=False, method="moment-matching", **said).course
        return course.sampler, course.sampler_options

    assert walk() == walk(covariance="jacobian")
    for covariance, eta in (("jacobian", 1.5), ("spectrum", 1.5), ("isotropic", 2.0)):
        expected = ("dpm++2m-sde", {"eta": eta, "balanced": True})
        assert walk(covariance=covariance) == expected
    assert walk(covariance="spectrum", sampler="heun") == ("heun", {})
    assert walk(covariance="jacobian", sampler="dpm++2m") == ("dpm++2m", {})
