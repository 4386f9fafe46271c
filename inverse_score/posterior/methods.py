"""The methods of `solve` by name: what runs, with which sampler, and what each needs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..prior import Prior
from ..randomness import Noise
from ..sampling import SAMPLERS, end_ratio, make_grid, start
from ..sampling.driver import Callback, Hook, integrate
from . import (
    baselines,
    consistency,
    daps,
    guidance,
    particles,
    red_diff,
    score_mri,
    spectral,
    split_gibbs,
)
from .conditional import ConditionalPrior, options_error
from .jacobian import COVARIANCES
from .measurement import Measurement


@dataclass(frozen=True)
class Plan:
    """How a method walks: sampler and its options, the grid of times, and who watches."""

    sampler: str
    times: Sequence[float]
    options: dict[str, Any] = field(default_factory=dict)
    callback: Callback | None = None

    def sample(self, prior: Prior, data: Measurement, noise: Noise, hook: Hook | None = None):
        """x0_hat in u from the SDE's start, one row a measurement."""
        xT = start_of(prior, data, noise)
        return SAMPLERS[self.sampler](
            prior, xT, self.times, noise, hook=hook, callback=self.callback, **self.options
        )


def start_of(prior: Prior, data: Measurement, noise: Noise) -> Tensor:
    """x_T for the rows of the data."""
    shape = (len(data), *data.operator.in_shape)
    return start(prior, shape, noise, dtype=data.y.real.dtype, device=data.y.device)


# run(prior, data, noise, plan, **options) -> samples u (B, *event), one a row of the data.
Run = Callable[..., Tensor]


@dataclass(frozen=True)
class Method:
    """A way to sample p(x | y).

    run(prior, data, noise, plan, **options) -> u (B, *event); prior counts its calls, data is a
    Measurement of B rows. conditional(prior, data, **options) -> Prior where the method is a
    conditional score. presets["paper"] holds the original's settings where they differ from the
    defaults: options, and "sampler", "steps", "kind" (of the grid), "sampler_options".
    walk_of(**options) -> {"sampler", "sampler_options"} where these depend on the options.
    """

    run: Run
    conditional: Callable[..., Prior] | None = None
    sampler: str = "dpm++2m-sde"
    sampler_options: dict[str, Any] = field(default_factory=dict)
    steps: int = 40
    needs_noise: bool = True
    differentiates: bool = False
    deterministic: bool = False
    samples: bool = True
    nonlinear: bool = False
    presets: dict[str, dict[str, Any]] = field(default_factory=dict)
    options_of: Callable[..., Any] | None = None
    walk_of: Callable[..., dict[str, Any]] | None = None

    def options(self) -> list[str]:
        """Names of the method's own options, the sampler's apart."""
        function = self.options_of or self.conditional or self.run
        return [
            p.name
            for p in inspect.signature(function).parameters.values()
            if p.kind is p.KEYWORD_ONLY
        ]

    def walk(self, options: dict[str, Any], sampler: str | None = None) -> tuple[str, dict]:
        """The sampler and its options for these options of the method.

        A sampler other than the method's own choice has that sampler's own defaults.
        """
        own = {"sampler": self.sampler, "sampler_options": self.sampler_options}
        if self.walk_of is not None:
            own = {**own, **self.walk_of(**options)}
        sampler = sampler or own["sampler"]
        return sampler, dict(own["sampler_options"]) if sampler == own["sampler"] else {}


def _by_score(conditional: Callable[..., ConditionalPrior], **settings: Any) -> Method:
    def run(prior: Prior, data: Measurement, noise: Noise, plan: Plan, **options: Any) -> Tensor:
        cond = conditional(prior, data, **options)
        u = plan.sample(cond, data, noise)
        return _onto_exact(data, u + cond.rest(u, plan.times[-1], noise))

    return Method(run, conditional, **settings)


def _onto_exact(data: Measurement, u: Tensor) -> Tensor:
    """u moved onto A u = y where the data are exact."""
    return u + data.pinv(data.residual(u)) if data.exact else u


def moment_matching(
    prior: Prior, data: Measurement, *, covariance: str = "jacobian", **options: Any
) -> ConditionalPrior:
    """The conditional prior of moment matching, with one of three covariances of x_0 given x_t.

    Exact data are taken to have noise |A| times five times the prior's smallest noise-to-signal:
    sampling ends at a fifth of the data's noise, and the prior knows nothing finer. `solve` then
    projects the samples onto A x = y.
    """
    if covariance not in COVARIANCES:
        raise ValueError(f"covariance must be one of {', '.join(COVARIANCES)}; got {covariance!r}")
    chosen = COVARIANCES[covariance]
    known = _keywords(chosen)
    if not set(options) <= set(known):
        raise options_error(f"moment-matching, {covariance}", set(options) - set(known), known)
    return chosen(prior, data.noisy(5 * prior.sde.ratio(prior.t_min)), **options)


def _walk_of_covariance(*, covariance: str = "jacobian", **_: Any) -> dict[str, Any]:
    return COVARIANCES[covariance].walk if covariance in COVARIANCES else {}


def _run_proximal(cls: type[consistency.Consistent]) -> tuple[Run, Any]:
    def run(
        prior: Prior,
        data: Measurement,
        noise: Noise,
        plan: Plan,
        *,
        zeta: float | None = None,
        **options: Any,
    ) -> Tensor:
        cond = cls(prior, data, **options)
        step = consistency.renoise(cond, noise, zeta=zeta)
        xT = start_of(prior, data, noise)
        return integrate(step, cond, xT, plan.times, callback=plan.callback)

    return run, cls


def _run_ddnm(
    prior: Prior, data: Measurement, noise: Noise, plan: Plan, *, eta: float | None = None
) -> Tensor:
    """DDNM / DDNM+ (Wang, Yu & Zhang 2023), alg. 1 and 4 without time travel.

    eta a number: theirs; None (default): the same projection with fresh noise tied to the step.
    """
    cond = consistency.NullSpaceStep(prior, data, paper=eta is not None)
    if eta is None:
        step = consistency.renoise(cond, noise, zeta=None)
    else:
        step = consistency.null_space_step(cond, noise, eta=eta)
    xT = start_of(prior, data, noise)
    return integrate(step, cond, xT, plan.times, callback=plan.callback)


def _run_replacement(prior: Prior, data: Measurement, noise: Noise, plan: Plan) -> Tensor:
    """Replace the measured part by y at the state's noise (Song et al. 2021, app. I.2, I.3)."""
    exact = getattr(getattr(data.operator, "transform", None), "exact", False)
    if not exact:
        raise ValueError(
            f"{type(data.operator).__name__} does not measure part of an invertible transform of "
            'x, which "replacement" needs; "song22" and "moment-matching" take any operator'
        )
    hook = consistency.replacement_hook(prior, data, noise, lambda r: 1.0)
    return plan.sample(prior, data, noise, hook)


def _run_song22(
    prior: Prior, data: Measurement, noise: Noise, plan: Plan, *, lam: float | None = None
) -> Tensor:
    """Song, Shen, Xing & Ermon 2022, eq. 9: replacement with weight lam.

    lam None: r^2 / (r^2 + level^2), level the data's noise in the best measured direction, which
    is 1 while the diffusion's noise dominates; a number (preset "paper": 1): itself, throughout.
    """
    hook = consistency.replacement_hook(prior, data, noise, _replacement_weight(data, lam))
    return _onto_exact(data, plan.sample(prior, data, noise, hook))


def _replacement_weight(data: Measurement, lam: float | None) -> Callable[[float], Any]:
    if lam is not None and not 0 <= lam <= 1:
        raise ValueError(f"lam must lie in [0, 1]; got {lam}")

    def weight(r: float) -> Any:
        return r**2 / (r**2 + data.level**2) if lam is None else lam

    return weight


def _run_mcg(
    prior: Prior,
    data: Measurement,
    noise: Noise,
    plan: Plan,
    *,
    weight: float | None = None,
    lam: float | None = None,
) -> Tensor:
    """MCG (Chung, Sim, Ryu & Ye 2022), alg. 1: the gradient of DPS, then replacement.

    weight, as of "dps": None the Gaussian likelihood's, a number the paper's. lam, as of "song22":
    None by the data's noise, preset "paper" 1, which puts y_t on the measured part after every
    step. The data thus enter twice, which no limit makes exact. One vjp a call.
    """
    cond = guidance.PosteriorSampling(prior, data, weight=weight)
    hook = consistency.replacement_hook(prior, data, noise, _replacement_weight(data, lam))
    return plan.sample(cond, data, noise, hook)


def _keywords(function: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]


def _proximal(cls: type[consistency.Consistent], **settings: Any) -> Method:
    run, options = _run_proximal(cls)

    def options_of(*, zeta: float | None = None, **rest: Any) -> None: ...

    options_of.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY)
            for name in ["zeta", *_keywords(options)]
        ]
    )
    return Method(run, options, options_of=options_of, **settings)


METHODS: dict[str, Method] = {
    "moment-matching": _by_score(moment_matching, needs_noise=False, walk_of=_walk_of_covariance),
    "pigdm": _by_score(
        guidance.PseudoinverseGuidance,
        differentiates=True,
        presets={"paper": {"variance": 1.0, "sampler": "ddim", "steps": 100, "kind": "uniform"}},
    ),
    "dps": _by_score(
        guidance.PosteriorSampling,
        differentiates=True,
        nonlinear=True,
        presets={
            "paper": {"weight": 1.0, "sampler": "ancestral", "steps": 1000, "kind": "uniform"}
        },
    ),
    "mcg": Method(
        _run_mcg, sampler="pc", steps=100, differentiates=True,
        presets={"paper": {"weight": 1.0, "lam": 1.0, "sampler": "ancestral", "steps": 1000,
                           "kind": "uniform"}},
    ),
    "song21": _by_score(
        guidance.NoisyLikelihood, presets={"paper": {"sampler": "pc", "steps": 1000}}
    ),
    "jalal": _by_score(
        guidance.AnnealedLikelihood,
        sampler="annealed-langevin",
        steps=100,
        presets={"paper": {"scale": 5.0, "steps": 1155}},
    ),
    "replacement": Method(
        _run_replacement, sampler="pc", steps=250, needs_noise=False,
        presets={"paper": {"steps": 1000, "kind": "uniform"}},
    ),
    "song22": Method(
        _run_song22, sampler="pc", steps=250, needs_noise=False,
        presets={"paper": {"lam": 1.0, "steps": 1000, "kind": "uniform"}},
    ),
    "score-mri": Method(
        score_mri.score_mri, sampler="pc", steps=250,
        presets={"paper": {"lam": 1.0, "steps": 2000, "kind": "uniform",
                           "sampler_options": {"corrector_options": {"snr": 0.16}}}},
    ),
    "red-diff": Method(
        red_diff.red_diff, steps=100, nonlinear=True,
        presets={"paper": {"lr": 0.1, "weight": 0.25, "steps": 1000, "kind": "uniform"}},
    ),
    "ddnm": Method(
        _run_ddnm, consistency.NullSpaceStep, steps=100, needs_noise=False, options_of=_run_ddnm,
        presets={"paper": {"eta": 0.85, "steps": 100, "kind": "uniform"}},
    ),
    "diffpir": _proximal(
        consistency.ProximalStep, steps=100,
        presets={"paper": {"lam": 7.0, "zeta": 0.3, "steps": 100, "kind": "uniform"}},
    ),
    "dds": _proximal(
        consistency.KrylovStep, steps=50, needs_noise=False,
        presets={"paper": {"gamma": 1.0, "zeta": 0.85**2, "iterations": 5, "steps": 50,
                           "kind": "uniform"}},
    ),
    "daps": Method(
        daps.daps, steps=200, nonlinear=True,
        presets={"paper": {"scale": 1.0, "ode_calls": 5, "langevin": 100, "kind": "karras"}},
    ),
    "split-gibbs": Method(
        split_gibbs.split_gibbs, steps=100, nonlinear=True,
        presets={"paper": {"rho_start": 10.0, "decay": 0.9, "rho_end": 0.3, "inner": 100}},
    ),
    "smc": Method(particles.smc, steps=50),
    "ddrm": Method(
        spectral.ddrm, steps=100, needs_noise=False,
        presets={"paper": {"eta": 0.85, "eta_b": 1.0, "steps": 20, "kind": "uniform"}},
    ),
    **{
        name: Method(run, needs_noise=False, deterministic=True)
        for name, run in {
            "zero-filled": baselines.zero_filled,
            "fbp": baselines.filtered_back_projection,
            "pinv": baselines.pseudo_inverse,
            "tikhonov": baselines.tikhonov,
            "tv": baselines.total_variation,
            "wavelet": baselines.wavelet,
        }.items()
    },
}  # fmt: skip


def grid_for(
    prior: Prior, level: float, typical: float, steps: int, kind: str = "log-snr"
) -> list[float]:
    """The grid of every method: from the SDE's start to a fifth of the data's noise level.

    level, typical: the data's noise in u in the best and in a typical measured direction; the grid
    ends for the first as far as the prior was trained, with a warning if not even the second.
    """
    floor = prior.sde.ratio(prior.t_min)
    end = end_ratio(prior, typical if typical > 0 else None)
    if level > 0:
        end = max(floor, min(end, level / 5))
    elif typical == 0:
        end = floor
    return make_grid(prior.sde, steps, end_ratio=end, kind=kind)
