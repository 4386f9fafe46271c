"""The contract of a method: one precedence, names that exist, and cost told beforehand."""

from pathlib import Path

import pytest
import torch

from inverse_score import solve
from inverse_score.posterior import METHODS, measure, resolve
from inverse_score.posterior.auto import BUDGETS
from inverse_score.testing.half_seen import NOISE, gaussian_prior, measurement, seen_half
from operators import CartesianMRI, Grayscale, Mask, Radon
from operators.detection import Magnitude

TABLE = Path(__file__).with_name("precedence.txt")


@pytest.fixture(scope="module")
def problem():
    prior, A = gaussian_prior(), seen_half()
    return prior, A, measurement(prior, A, items=2)[1]


def row(*cells):
    return " | ".join(str(cell) for cell in cells)


def described(job):
    course = job.course
    options = ", ".join(f"{k}={v}" for k, v in sorted(course.sampler_options.items())) or "-"
    own = ", ".join(f"{k}={v}" for k, v in job.said.items()) or "-"
    return row(job.name, own, course.sampler, options, job.steps, course.kind, job.nfe)


def precedence():
    """What runs, for all that can be said: a line each."""
    prior, A = gaussian_prior(), seen_half()
    lines = [row("asked", "runs", "options", "sampler", "its options", "steps", "kind", "nfe")]
    for name, method in METHODS.items():
        for preset in ("default", *method.presets):
            job = resolve(prior, A, exact=False, method=name, preset=preset)
            lines.append(row(f"{name}, {preset}", described(job)))
    operators = {
        "mask": A,
        "mri": CartesianMRI(torch.ones(4), image_shape=(4, 4)),
        "ct": Radon((4, 4), torch.arange(4) * torch.pi / 4),
        "scaled mask": 2.0 * A,
        "grey": Grayscale((3, 4, 4)),
        "magnitude": Magnitude(A),
    }
    for budget in BUDGETS:
        for name, operator in operators.items():
            for exact in (False, True)[: 1 if name == "magnitude" else 2]:
                job = resolve(prior, operator, exact=exact, budget=budget)
                asked = f"auto, {budget}, {name}" + (", exact" if exact else "")
                lines.append(row(asked, described(job)))
    said = [
        {"covariance": "isotropic"},
        {"covariance": "jacobian"},
        {"covariance": "jacobian", "sampler": "dpm++2m-sde", "eta": 1.0},
        {"sampler": "dpm++2m"},
        {"eta": 1.0, "steps": 7, "kind": "karras"},
        {"method": "pigdm", "preset": "paper", "sampler": "heun", "steps": 5, "variance": 2.0},
        {"method": "score-mri", "preset": "paper", "sampler_options": {"corrector_steps": 2}},
        {"method": "daps", "preset": "paper", "ode_calls": 2},
        {"method": "ddnm", "times": (0.9, 0.5, 0.1)},
    ]
    for options in said:
        asked = ", ".join(f"{key}={value}" for key, value in options.items())
        lines.append(row(asked, described(resolve(prior, A, exact=False, **options))))
    return "\n".join(lines) + "\n"


def test_what_runs_is_the_committed_table():
    """python tests/inverse_score/test_contract.py writes it anew."""
    assert precedence() == TABLE.read_text()


MISSPELT = [
    *({"method": name, "zetta": 1.0} for name in METHODS),
    {"zetta": 1.0},
    {"method": "song22", "corrector_options": {"snrr": 0.1}},
    {"method": "song22", "predictor": "magic"},
    {"method": "ddnm", "preset": "paper", "lam": 1.0},
    {"method": "ddnm", "sampler": "heun"},
    {"covariance": "isotropic", "tol": 0.1},
    {"kind": "magic"},
]


@pytest.mark.parametrize("options", MISSPELT, ids=str)
def test_a_name_that_nobody_has_is_an_error_before_anything_runs(problem, options):
    prior, A, _ = problem
    named = "zetta|snrr|magic|lam|sampler|tol"
    with pytest.raises(ValueError, match=named):
        resolve(prior, A, exact=False, **options)


BAD = [
    {"steps": 0},
    {"steps": 1},
    {"steps": 2.5},
    {"steps": 5, "times": (0.5, 0.1)},
    {"times": (0.1, 0.5)},
    {"method": "dds", "iterations": 0},
    {"method": "ddrm", "eta": 1.5},
    {"method": "tv", "strength": -1.0},
    {"covariance": "full"},
]


@pytest.mark.parametrize("options", BAD, ids=str)
def test_a_value_that_cannot_be_is_an_error_before_anything_runs(problem, options):
    prior, A, _ = problem
    with pytest.raises(ValueError, match=r"must|times|one of"):
        resolve(prior, A, exact=False, **options)


COSTS = [
    *({"method": name} for name, method in METHODS.items() if name not in ("fbp", "smc")),
    {"method": "smc", "num_particles": 3},
    {"method": "daps", "preset": "paper", "langevin": 2, "ode_calls": 3},
    {"method": "red-diff", "preset": "paper"},
    {"method": "song22", "corrector_steps": 2},
    {"method": "song22", "corrector": "none"},
    {"method": "song22", "corrector": "unadjusted-hmc"},
    {"method": "song22", "predictor": "none"},
    {"sampler": "heun"},
    {"sampler": "stochastic-rk"},
    {"sampler": "langevin"},
    {"budget": "accurate"},
]


@pytest.mark.parametrize("options", COSTS, ids=str)
def test_the_calls_told_beforehand_are_those_made(problem, options):
    prior, A, y = problem
    steps = {} if options.get("method") in ("tv", "wavelet") else {"steps": 6}
    job = resolve(prior, A, exact=False, **options, **steps)
    assert solve(y, A, prior, noise_std=NOISE, **options, **steps).nfe == job.nfe


def test_every_method_says_whether_it_takes_a_nonlinear_operator(problem):
    prior, _, _ = problem
    A = Magnitude(Mask(torch.ones(1, 4, 4)))
    data = measure(prior, torch.ones(1, 1, 4, 4), A, NOISE)
    assert not data.linear
    assert type(data.louder(torch.ones(1))) is type(data)
    for name, method in METHODS.items():
        if method.nonlinear:
            assert resolve(prior, A, exact=False, method=name).name == name
            continue
        with pytest.raises(ValueError, match=f"'{name}' needs a linear operator"):
            resolve(prior, A, exact=False, method=name)
        with pytest.raises(ValueError, match=f"'{name}' needs a linear operator"):
            method.run(prior, data, None, None)


CONDITIONALS = [
    *({"method": name} for name, m in METHODS.items() if m.conditional is not None),
    {"method": "moment-matching", "covariance": "spectrum"},
    {"method": "moment-matching", "covariance": "isotropic"},
    {"method": "ddnm", "eta": 0.5},
    {"method": "dds", "gamma": 1.0},
]


@pytest.mark.parametrize("options", CONDITIONALS, ids=str)
@pytest.mark.parametrize("noise_std", [NOISE, 0.5 * NOISE])
def test_a_conditional_prior_is_a_function(problem, options, noise_std):
    """The same bits of (x, t) whatever was called before: the data, off every image, ask for no
    examination by a call."""
    prior, A, y = problem
    method = METHODS[options["method"]]
    own = {key: value for key, value in options.items() if key != "method"}
    data = measure(prior, 5.0 * y, A, noise_std)
    x = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    points = [(scale * x.to(data.y), t) for scale in (0.3, 1.0, 4.0) for t in (0.9, 0.5, 0.1)]

    def called(cond, order):
        return {k: (cond.denoise(*points[k]), cond.score(*points[k])) for k in order}

    fresh = called(method.condition(prior, data, **own), range(9))
    backwards = called(method.condition(prior, data, **own), reversed(range(9)))
    for k, (x0_hat, score) in fresh.items():
        alone = method.condition(prior, data, **own)
        assert torch.equal(alone.denoise(*points[k]), x0_hat)
        assert torch.equal(backwards[k][0], x0_hat)
        assert torch.equal(backwards[k][1], score)


if __name__ == "__main__":
    TABLE.write_text(precedence())
