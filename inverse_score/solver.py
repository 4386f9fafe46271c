"""solve: from a measurement to posterior samples, in data units, in chunks that fit in memory."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from operators.linalg import inner
from operators.linear import LinearOperator

from .posterior import Method, check_noise, method_named
from .posterior.auto import choose
from .posterior.covariance import pixel_variance
from .posterior.measurement import Measurement, measure
from .posterior.methods import Plan, grid_for
from .posterior.misfit import judged
from .prior import Prior
from .randomness import Noise
from .reconstruction import Reconstruction
from .sampling import SAMPLERS, Counter, check_grid, counted
from .sampling.driver import Callback

__all__ = ["Diverged", "Reconstruction", "solve"]

_PLAN_KEYS = ("sampler", "steps", "kind", "sampler_options")


class Diverged(ValueError):
    """Sampling left all bounds: step, time and the last bounded x0_hat (in data units)."""

    def __init__(self, message: str, step: int, time: float, state: Tensor | None):
        super().__init__(message)
        self.step, self.time, self.state = step, time, state


def solve(
    y: Tensor,
    operator: LinearOperator,
    prior: Prior | str | os.PathLike[str],
    *,
    method: str = "auto",
    budget: str = "fast",
    noise_std: Any = None,
    steps: int | None = None,
    num_samples: int = 1,
    seed: int = 0,
    items: Sequence[int] | None = None,
    batch_size: int | None = None,
    progress: bool = False,
    keep_samples: bool = True,
    callback: Callback | None = None,
    preset: str = "default",
    sampler: str | None = None,
    times: Sequence[float] | None = None,
    **method_options: Any,
) -> Reconstruction:
    """Samples of p(x | y) for y = A x + noise_std n, y (B, *operator.out_shape) in data units.

    method: "auto" (by `budget`: "fast" never differentiates the network) or one of METHODS; its
    own options follow by name, those of the sampler too. preset="paper": the original's settings
    where ours differ. noise_std: float, (B,) or broadcastable to y; 0 is exact data; None asks
    operator.estimate_noise(y). items name the rows for the noise (default 0..B-1), so results do
    not depend on batch_size (rows a chunk; default: by memory). keep_samples=False streams mean
    and std. callback(step, t, x, x0_hat) sees each chunk in u. Bad arguments raise ValueError
    before the network runs; samples that grow beyond all that prior and data allow raise Diverged.
    """
    prior = _loaded(prior)
    data = measure(prior, y, operator, noise_std)
    _check_counts(num_samples, batch_size, data, items)
    job = _plan(prior, data, method, budget, preset, sampler, steps, times, method_options)
    if job.method.deterministic and num_samples > 1:
        raise ValueError(f"{job.name!r} has one answer, not samples: num_samples must be 1")
    items = list(range(len(data))) if items is None else list(items)
    began = time.perf_counter()
    rows = [(i, s) for i in range(len(data)) for s in range(num_samples)]
    collector = _Collector(data, prior, num_samples, keep_samples)
    watch = _Progress(progress, len(rows), callback)
    for chunk in _chunks(rows, data, batch_size):
        collector.add(chunk, *_run_chunk(prior, data, job, chunk, items, seed, watch))
    seconds = time.perf_counter() - began
    return collector.finish(job, seconds=seconds, seed=seed)


@dataclass(frozen=True)
class _Job:
    """A method with everything chosen but the rows."""

    name: str
    method: Method
    options: dict[str, Any]
    sampler: str
    sampler_options: dict[str, Any]
    steps: int
    kind: str
    times: Sequence[float] | None
    note: str

    def describe(self) -> str:
        own = ", ".join(f"{key} {value}" for key, value in self.options.items())
        return f"{self.name}" + (f" ({own})" if own else "") + (f" [{self.note}]")


def _plan(
    prior: Prior,
    data: Measurement,
    name: str,
    budget: str,
    preset: str,
    sampler: str | None,
    steps: int | None,
    times: Sequence[float] | None,
    options: dict[str, Any],
) -> _Job:
    """Choose and check everything that can be checked without the network."""
    chosen: dict[str, Any] = {}
    note = "defaults"
    if name == "auto":
        # Decoupled annealing takes any differentiable operator, and no vjp of the network.
        known = choose(prior, data, budget) if data.linear else ("daps", {}, "auto, not linear")
        name, chosen, note = known
    method = method_named(name)
    check_noise(name, method, data)
    if preset != "default":
        chosen, note = _preset(name, method, preset), f"preset {preset}"
    settings = {**chosen, **options}
    plan = {key: settings.pop(key) for key in _PLAN_KEYS if key in settings}
    own, for_sampler = _split(name, method, settings)
    sampler, walk = method.walk(own, sampler or plan.get("sampler"))
    if sampler not in SAMPLERS:
        raise ValueError(f"unknown sampler {sampler!r}; known: {', '.join(SAMPLERS)}")
    steps = steps or plan.get("steps", method.steps)
    grid = None if times is None else check_grid(prior.sde, times)
    sampler_options = {**walk, **plan.get("sampler_options", {}), **for_sampler}
    if not method.deterministic:
        walked = [sampler, *(f"{key} {value}" for key, value in sampler_options.items())]
        note += f"; {', '.join(walked)}, {len(grid) if grid else steps} steps"
    kind = plan.get("kind", "log-snr")
    return _Job(name, method, own, sampler, sampler_options, steps, kind, grid, note)


def _preset(name: str, method: Method, preset: str) -> dict[str, Any]:
    if preset not in method.presets:
        offer = ", ".join(["default", *method.presets])
        raise ValueError(f"{name!r} has no preset {preset!r}; its presets: {offer}")
    return dict(method.presets[preset])


def _split(
    name: str, method: Method, settings: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of the method and of its sampler; the sampler checks its own by name."""
    known = set(method.options())
    if name == "moment-matching":
        known |= {"spectrum", "tol", "max_iter", "variance"}
    own = {key: value for key, value in settings.items() if key in known}
    rest = {key: value for key, value in settings.items() if key not in known}
    if rest and method.deterministic:
        raise ValueError(
            f"{name!r} has no option {', '.join(sorted(rest))}; its options: "
            f"{', '.join(sorted(known)) or 'none'}"
        )
    return own, rest


def _run_chunk(
    prior: Prior,
    data: Measurement,
    job: _Job,
    chunk: list[tuple[int, int]],
    items: list[int],
    seed: int,
    watch: _Progress,
) -> tuple[Tensor, Tensor, Counter]:
    """Samples u and misfits of some rows (item, sample), and what they cost."""
    rows = data.rows([i for i, _ in chunk])
    noise = Noise(seed, [items[i] for i, _ in chunk], [s for _, s in chunk])
    calls, counter = counted(prior)
    times: Sequence[float] = job.times or ()
    if not times and not job.method.deterministic:
        level, typical = _rounded(data.level[chunk[0][0]]), float(data.typical[chunk[0][0]])
        times = grid_for(prior, level, typical, job.steps, job.kind)
    guard = _Guard(prior, watch, len(chunk), _bound(prior, data))
    plan = Plan(job.sampler, times, job.sampler_options, guard)
    try:
        with torch.no_grad():
            u = job.method.run(calls, rows, noise, plan, **job.options)
    except Diverged:
        raise
    except ValueError as error:
        if "not finite" in str(error):
            raise Diverged(str(error), guard.step, guard.time, guard.state) from error
        raise
    watch.done(len(chunk))
    return u, rows.misfit(u), counter


def _rounded(level: Tensor) -> float:
    """Down to a quarter octave, so that rows of nearly one noise level share a grid."""
    value = float(level)
    return 2 ** (math.floor(4 * math.log2(value) + 1e-3) / 4) if value > 0 else 0.0


def _chunks(
    rows: list[tuple[int, int]], data: Measurement, batch_size: int | None
) -> Iterator[list[tuple[int, int]]]:
    """Rows in runs of at most batch_size that share a grid."""
    size = batch_size or _rows_that_fit(data)
    levels = [_rounded(level) for level in data.level]
    chunk: list[tuple[int, int]] = []
    for row in rows:
        if chunk and (len(chunk) == size or levels[row[0]] != levels[chunk[0][0]]):
            yield chunk
            chunk = []
        chunk.append(row)
    if chunk:
        yield chunk


def _rows_that_fit(data: Measurement) -> int:
    """A guess at the rows whose activations fit: 600 floats an element of x, of half the memory."""
    numel = math.prod(data.operator.in_shape)
    free = 2**31
    if data.y.device.type == "cuda":
        free = torch.cuda.mem_get_info(data.y.device)[0] // 2
    return max(1, free // (4 * 600 * numel))


class _Collector:
    """Samples or running sums, in order of (item, sample)."""

    def __init__(self, data: Measurement, prior: Prior, num_samples: int, keep: bool):
        self.data, self.prior, self.n = data, prior, num_samples
        shape = (len(data), *data.operator.in_shape)
        real = {"dtype": data.y.real.dtype, "device": data.y.device}
        self.samples = torch.empty(num_samples, *shape, **real) if keep else None
        self.misfit = torch.empty(num_samples, len(data), **real)
        self.peak = torch.empty(num_samples, len(data), **real)
        # Sums about each item's first sample do not cancel.
        self.first = torch.zeros(shape, **real)
        self.sums = torch.zeros(2, *shape, dtype=torch.float64)
        self.costs: list[tuple[int, int, int]] = []

    def add(self, chunk: list[tuple[int, int]], u: Tensor, misfit: Tensor, cost: Counter) -> None:
        x = self.prior.to_data(u)
        for row, (i, s) in enumerate(chunk):
            self.misfit[s, i], self.peak[s, i] = misfit[row], u[row].abs().amax()
            if self.samples is not None:
                self.samples[s, i] = x[row]
                continue
            if s == 0:
                self.first[i] = x[row]
            change = (x[row] - self.first[i]).cpu().double()
            self.sums[0, i] += change
            self.sums[1, i] += change**2
        self.costs.append((len(chunk), cost.nfe, cost.vjps))

    def finish(self, job: _Job, **facts: Any) -> Reconstruction:
        streamed = None
        if self.samples is None:
            shift = self.sums[0] / self.n
            variance = (self.sums[1] - self.n * shift**2).clamp_min(0) / max(self.n - 1, 1)
            streamed = (self.first + shift.to(self.first), variance.sqrt().to(self.first))
        rows = sum(cost[0] for cost in self.costs)
        nfe, vjps = (math.ceil(sum(c[0] * c[k] for c in self.costs) / rows) for k in (1, 2))
        rec = Reconstruction(
            self.samples,
            self.misfit,
            torch.empty(0),
            "relative" if self.data.exact else "chi-square",
            torch.empty(0),
            self.n,
            nfe,
            vjps,
            method=job.describe(),
            settings={
                "method": job.name,
                "sampler": job.sampler,
                "steps": job.steps,
                **job.options,
            },
            streamed=streamed,
            **facts,
        )
        u = self.prior.from_data(rec.mean)
        variance = pixel_variance(self.prior, u.shape[1:], u.dtype)
        share = _prior_share(self.data.at(u), rec.mean, variance)
        rec = replace(rec, misfit_mean=self.data.misfit(u), prior_share=share)
        return judged(rec, self.data, self.peak, variance, one_answer=job.method.deterministic)


def _prior_share(data: Measurement, x: Tensor, variance: float) -> Tensor:
    """|x - R x|^2 / |x|^2, R = (A^T W A + I / v)^-1 A^T W A; A^+ A for exact data."""
    if data.exact:
        rest = x - data.pinv(data.operator(x))
    else:
        rest = data.solve(x, 1 / variance, tol=1e-3, max_iter=50) / variance
    power = x.square().flatten(1).sum(1).clamp_min(torch.finfo(x.dtype).tiny)
    return rest.square().flatten(1).sum(1) / power


def _bound(prior: Prior, data: Measurement) -> float:
    """An |x| that no sample reaches: 1e4 times the terminal law's size or |W^1/2 y| / |A W^1/2|."""
    mean, std = prior.sde.terminal((1,))
    white = data.weights.sqrt() * data.y
    needed = float((inner(white, white) / data.gain).amax().sqrt())
    return 1e4 * max(1.0, float(mean.abs().amax() + std), needed if math.isfinite(needed) else 0.0)


class _Guard:
    """Stops at the first x0_hat that is not within `bound` and remembers the last that was."""

    def __init__(self, prior: Prior, watch: _Progress, rows: int, bound: float):
        self.prior, self.watch, self.rows, self.bound = prior, watch, rows, bound
        self.step, self.time, self.state = -1, math.nan, None

    def __call__(self, step: int, t: float, x: Tensor, x0_hat: Tensor | None) -> None:
        # Langevin samplers know the state alone.
        seen = x if x0_hat is None else x0_hat
        # Of numbers that are not finite the largest is not either.
        largest = float(seen.abs().amax())
        if not largest <= self.bound:
            what = f"{largest:.1e} in size" if math.isfinite(largest) else "not finite"
            raise Diverged(
                f"the state is {what} at step {step}, t = {t:.6g}; the last state within bounds is "
                "kept in this error as `state` (a larger `steps`, or another method, may help)",
                step,
                t,
                self.state,
            )
        self.step, self.time, self.state = step, t, self.prior.to_data(seen)
        self.watch.step(step, t, x, x0_hat)


class _Progress:
    """Hands steps to the user's callback and, on a terminal, shows a line on stderr."""

    def __init__(self, show: bool, rows: int, callback: Callback | None):
        self.show, self.rows, self.callback = show and sys.stderr.isatty(), rows, callback
        self.finished = 0

    def step(self, step: int, t: float, x: Tensor, x0_hat: Tensor | None) -> None:
        if self.show:
            print(
                f"\rsample {self.finished + 1}-{self.finished + len(x)} of {self.rows}, "
                f"step {step + 1}   ",
                end="",
                file=sys.stderr,
                flush=True,
            )
        if self.callback is not None:
            self.callback(step, t, x, x0_hat)

    def done(self, rows: int) -> None:
        self.finished += rows
        if self.show and self.finished == self.rows:
            print(file=sys.stderr)


def _loaded(prior: Any) -> Prior:
    if isinstance(prior, Prior):
        return prior
    if isinstance(prior, str | os.PathLike):
        from .io.priors import load_prior

        return load_prior(prior)
    raise ValueError(f"prior must be a Prior, a path or a name; got {type(prior).__name__}")


def _check_counts(
    num_samples: int, batch_size: int | None, data: Measurement, items: Sequence[int] | None
) -> None:
    for name, value in (("num_samples", num_samples), ("batch_size", batch_size)):
        if value is not None and (int(value) != value or value < 1):
            raise ValueError(f"{name} must be a positive integer; got {value}")
    if items is not None and len(items) != len(data):
        raise ValueError(f"items must name the {len(data)} rows of y; got {len(items)}")
