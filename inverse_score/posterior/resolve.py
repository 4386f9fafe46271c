"""What runs: one precedence for method, options, sampler, steps and times, decided in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from operators.nonlinear import NonlinearOperator

from ..prior import Prior
from ..sampling import calls_of, check_grid, check_pair, sampler_options
from ..sampling.grid import KINDS
from .auto import choose
from .examination import Examination
from .method import Course, Method, Walk, grid_for
from .methods import METHODS

# What a preset, the table of "auto" and a user may say besides options of method and sampler.
COURSE = ("sampler", "sampler_options", "steps", "kind")


@dataclass(frozen=True)
class Job:
    """A method with everything chosen but the rows; str() says it in words.

    options: the method's own, complete; said: those that somebody named. times: the user's grid,
    or None for the method's, by the course's steps and kind and the data's noise.
    """

    name: str
    method: Method
    options: Any
    said: Mapping[str, Any]
    course: Course
    times: Sequence[float] | None
    note: str

    def __str__(self) -> str:
        own = _words(self.said)
        return f"{self.name}" + (f" ({own})" if own else "") + f" [{self.note}{self._walked}]"

    @property
    def _walked(self) -> str:
        if self.method.deterministic:
            return ""
        sampler = [] if self.course.sampler is None else [self.course.sampler]
        options = [_words(self.course.sampler_options)] if self.course.sampler_options else []
        return "; " + ", ".join([*sampler, *options, f"{self.steps} steps"])

    @property
    def steps(self) -> int:
        """Times of the grid; 0 for a method with one answer."""
        if self.method.deterministic:
            return 0
        return self.course.steps if self.times is None else len(self.times)

    @property
    def nfe(self) -> int | None:
        """Network calls of a sample; None where the sampler chooses its own steps.

        Without those that tell the pixel variance of a prior whose card has no error spectrum.
        """
        if self.method.calls is not None:
            return self.method.calls(self.options, self.steps)
        return calls_of(str(self.course.sampler), self.course.sampler_options, self.steps)

    @property
    def settings(self) -> dict[str, Any]:
        """What is recorded of it, by name."""
        chosen = {"method": self.name, "sampler": self.course.sampler, "steps": self.steps}
        return {**chosen, **self.said}

    @property
    def needs_grid(self) -> bool:
        """Whether the data's noise is still to decide the times."""
        return self.times is None and not self.method.deterministic

    def walk(self, prior: Prior, level: float, typical: float, callback: Any = None) -> Walk:
        """The course on a grid of times for data of these noise levels in u (see `grid_for`)."""
        times: Sequence[float] = self.times or ()
        if self.needs_grid:
            times = grid_for(prior, level, typical, self.steps, self.course.kind)
        return Walk(self.course.sampler, times, self.course.sampler_options, callback)

    def examine(
        self, prior: Prior, data: Any, seed: int, items: Sequence[int]
    ) -> Examination | None:
        """The operator's Examination, None where the method asks for none."""
        if self.method.examine is None:
            return None
        return self.method.examine(prior, data, self.options, seed, items)


def resolve(
    prior: Prior,
    operator: Any,
    *,
    exact: bool,
    method: str = "auto",
    budget: str = "fast",
    preset: str = "default",
    times: Sequence[float] | None = None,
    **said: Any,
) -> Job:
    """Everything that can be chosen and checked without data and network.

    Each of these is overruled by the next: the method's own defaults, the table of "auto" for
    operator and budget, the preset, the user's `said` (sampler, steps, kind, and options of the
    method and of the sampler by name). A sampler's options belong to it: who names another drops
    those said before, and so do options of a covariance. Names that nobody has are errors.
    """
    chosen: dict[str, Any] = {}
    note = "defaults"
    if method == "auto":
        method, chosen, note = choose(prior, operator, budget, exact=exact)
    found = method_named(method)
    linear = not isinstance(operator, NonlinearOperator)
    found.check(linear=linear, exact=exact, others=tuple(METHODS.values()))
    layers = _Layers(found).add(chosen)
    if preset != "default":
        layers, note = layers.add(_preset(found, preset)), f"preset {preset}"
    layers = layers.add({k: v for k, v in said.items() if k not in COURSE or v is not None})
    if times is not None:
        if said.get("steps") is not None:
            raise ValueError("give steps or times, not both")
        times = check_grid(prior.sde, times)
    return Job(method, found, layers.options, layers.own, layers.checked_course(), times, note)


def method_named(name: str) -> Method:
    """METHODS[name], or a ValueError that lists the names."""
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}; known: auto, {', '.join(METHODS)}")
    return METHODS[name]


def _preset(method: Method, preset: str) -> Mapping[str, Any]:
    if preset not in method.presets:
        offer = ", ".join(["default", *method.presets])
        raise ValueError(f"{method.name!r} has no preset {preset!r}; its presets: {offer}")
    return method.presets[preset]


@dataclass(frozen=True)
class _Layers:
    """What was said so far of a method: own options, and its course."""

    method: Method
    own: dict[str, Any] = field(default_factory=dict)
    named: dict[str, Any] = field(default_factory=dict)
    sampling: dict[str, Any] = field(default_factory=dict)

    @property
    def options(self) -> Any:
        """The method's own options; ValueError for what they cannot be."""
        return self.method.options(**self.own)

    @property
    def course(self) -> Course:
        """The method's course for these options, with what was said of it."""
        own = self.method.course_of(self.options)
        course = replace(own, **self.named)
        if course.sampler != own.sampler:
            # A sampler other than the method's own choice has that sampler's own defaults.
            return replace(course, sampler_options=self.sampling)
        return replace(course, sampler_options={**own.sampler_options, **self.sampling})

    def add(self, layer: Mapping[str, Any]) -> _Layers:
        """With what `layer` says, which overrules."""
        rest = {key: value for key, value in layer.items() if key not in COURSE}
        known = self.method.option_names({**self.own, **rest})
        kept = {key: value for key, value in self.own.items() if key in known}
        own = {**kept, **{key: value for key, value in rest.items() if key in known}}
        named = {k: layer[k] for k in COURSE if k in layer and k != "sampler_options"}
        after = replace(self, own=own, named={**self.named, **named})
        same = after.course.sampler == self.course.sampler
        sampling = {
            **(self.sampling if same else {}),
            **layer.get("sampler_options", {}),
            **{key: value for key, value in rest.items() if key not in known},
        }
        return replace(after, sampling=sampling)

    def checked_course(self) -> Course:
        """The course; ValueError, by name, for options and samplers that do not exist."""
        course, method = self.course, self.method
        if int(course.steps) != course.steps or course.steps < 2:
            raise ValueError(f"steps must be an integer >= 2; got {course.steps}")
        if course.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {course.kind!r}")
        if course.sampler is not None and method.course_of(self.options).sampler is None:
            raise ValueError(f"{method.name!r} has a rule of its own for its steps, and no sampler")
        known = {} if course.sampler is None else sampler_options(course.sampler)
        unknown = sorted(set(course.sampler_options) - set(known))
        if unknown:
            own = ", ".join(method.option_names(self.own)) or "none"
            of_sampler = f"; of {course.sampler!r}: {', '.join(known) or 'none'}"
            raise ValueError(
                f"{method.name!r} has no option {', '.join(unknown)}; its options: {own}"
                + ("" if course.sampler is None else of_sampler)
            )
        if course.sampler == "pc":
            check_pair(course.sampler_options)
        return course


def _words(said: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in said.items())
