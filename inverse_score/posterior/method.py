"""What a method of `solve` is: options, course and draw; and the walk that it is given."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..prior import Prior
from ..randomness import Noise
from ..sampling import SAMPLERS, end_ratio, make_grid, start
from ..sampling.driver import Callback, Hook
from .conditional import ConditionalPrior
from .examination import Examination
from .measurement import Measurement


@dataclass(frozen=True)
class Course:
    """How a method goes unless told otherwise: sampler and its options, how many times and which.

    sampler None: the method steps from time to time by a rule of its own, and takes no sampler.
    """

    sampler: str | None = "dpm++2m-sde"
    sampler_options: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 40
    kind: str = "log-snr"


@dataclass(frozen=True)
class Walk:
    """A course on one grid of times, and who watches."""

    sampler: str | None
    times: Sequence[float]
    options: Mapping[str, Any] = field(default_factory=dict)
    callback: Callback | None = None

    def sample(
        self, prior: Prior, data: Measurement, noise: Noise, hook: Hook | None = None
    ) -> Tensor:
        """x0_hat in u from the SDE's start, one row a measurement."""
        sampler = SAMPLERS[str(self.sampler)]
        xT = start_of(prior, data, noise)
        return sampler(
            prior, xT, self.times, noise, hook=hook, callback=self.callback, **self.options
        )


@dataclass(frozen=True)
class NoOptions:
    """A method without options of its own."""


@dataclass(frozen=True)
class Method:
    """A way to sample p(x | y).

    options: the frozen dataclass of its own options, whose defaults are the method's and which
    refuses what it cannot be. draw(prior, data, noise, walk, options) -> u (B, *event), prior
    counting its calls, data a Measurement of B rows. conditional(prior, data, options) -> Prior
    where the method is a conditional score. course: a Course, or a function of the options.
    presets["paper"]: the original's settings where they differ, as `solve` would be given them.
    names(said): the options that go with those said, where these depend on each other.
    calls(options, steps): network calls of one sample, where no sampler counts them.
    examine(prior, data, options, seed, items): the operator's examination, if these options ask
    for one. exact_as_noise: exact data are walked with the least noise that the prior knows.
    projects: `solve` moves the samples of exact data onto A x = y.
    """

    name: str
    options: type[Any]
    draw: Callable[[Prior, Any, Noise, Walk, Any], Tensor]
    course: Course | Callable[[Any], Course] = Course()
    conditional: Callable[[Prior, Any, Any], ConditionalPrior] | None = None
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    names: Callable[[Mapping[str, Any]], list[str]] | None = None
    calls: Callable[[Any, int], int] | None = None
    examine: Callable[..., Examination | None] | None = None
    needs_noise: bool = True
    exact_as_noise: bool = False
    projects: bool = False
    nonlinear: bool = False
    differentiates: bool = False
    deterministic: bool = False

    def option_names(self, said: Mapping[str, Any] | None = None) -> list[str]:
        """Names of the method's own options, the sampler's apart; of those that go with `said`."""
        if self.names is not None:
            return self.names(said or {})
        return [field.name for field in dataclasses.fields(self.options)]

    def made(self, said: Mapping[str, Any]) -> Any:
        """Options of what was said; ValueError, by name, for those that do not exist."""
        known = self.option_names(said)
        if unknown := sorted(set(said) - set(known)):
            raise ValueError(
                f"{self.name!r} has no option {', '.join(unknown)}; its options: "
                f"{', '.join(known) or 'none'}"
            )
        return self.options(**said)

    def course_of(self, options: Any) -> Course:
        """The course for these options."""
        return self.course if isinstance(self.course, Course) else self.course(options)

    def seen(self, prior: Prior, data: Any) -> Any:
        """The data as the method takes them: exact ones with a little noise where it needs some.

        That is |A| times five times the prior's smallest noise-to-signal: sampling ends at a fifth
        of the data's noise, and the prior knows nothing finer.
        """
        return data.noisy(5 * prior.sde.ratio(prior.t_min)) if self.exact_as_noise else data

    def run(
        self, prior: Prior, data: Measurement, noise: Noise, walk: Walk, **options: Any
    ) -> Tensor:
        """`draw` with options by name; ValueError for data that the method does not take."""
        return self.draw(prior, self._taken(prior, data), noise, walk, self.made(options))

    def condition(self, prior: Prior, data: Measurement, **options: Any) -> ConditionalPrior:
        """`conditional` with options by name."""
        if self.conditional is None:
            raise ValueError(
                f"{self.name!r} is not a conditional score: it runs under solve() only"
            )
        return self.conditional(prior, self._taken(prior, data), self.made(options))

    def _taken(self, prior: Prior, data: Measurement) -> Any:
        self.check(linear=data.linear, exact=data.exact)
        return self.seen(prior, data)

    def check(self, *, linear: bool, exact: bool, others: Sequence[Method] = ()) -> None:
        """ValueError for exact data and a method that divides by the noise, or for an operator
        that is not linear and a method that needs one; `others` are named for what they take."""
        if not (linear or self.nonlinear):
            able = ", ".join(m.name for m in others if m.nonlinear)
            raise ValueError(
                f"{self.name!r} needs a linear operator (its adjoint, solves or pseudo-inverse)"
                + (f"; methods for nonlinear ones: {able}" if able else "")
            )
        if self.needs_noise and exact:
            able = ", ".join(m.name for m in others if not m.needs_noise)
            raise ValueError(
                f"noise_std is 0 and {self.name!r} needs noise"
                + (f"; methods for exact data: {able}" if able else "")
            )


def start_of(prior: Prior, data: Measurement, noise: Noise) -> Tensor:
    """x_T for the rows of the data."""
    like = data.like()
    return start(prior, like.shape, noise, dtype=like.dtype, device=like.device)


def by_score(
    conditional: Callable[[Prior, Any, Any], ConditionalPrior],
) -> Callable[[Prior, Any, Noise, Walk, Any], Tensor]:
    """The draw of a conditional score: the sampler's x0_hat, and what it leaves out of x_0."""

    def draw(prior: Prior, data: Measurement, noise: Noise, walk: Walk, options: Any) -> Tensor:
        cond = conditional(prior, data, options)
        u = walk.sample(cond, data, noise)
        return u + cond.rest(u, walk.times[-1], noise)

    return draw


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


def check_positive(name: str, value: float | None) -> None:
    """ValueError unless value is None, or positive and finite."""
    if value is not None and not 0 < value < float("inf"):
        raise ValueError(f"{name} must be positive and finite; got {value}")


def check_share(name: str, value: float | None) -> None:
    """ValueError unless value is None, or lies in [0, 1]."""
    if value is not None and not 0 <= value <= 1:
        raise ValueError(f"{name} must lie in [0, 1]; got {value}")


def check_count(name: str, value: int | None) -> None:
    """ValueError unless value is None, or a positive integer."""
    if value is not None and (int(value) != value or value < 1):
        raise ValueError(f"{name} must be an integer >= 1; got {value}")
