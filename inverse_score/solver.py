"""solve: from a measurement to posterior samples, in data units, in chunks that fit in memory."""

from __future__ import annotations

import math
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from operators.linalg import inner
from operators.linear import LinearOperator

from .errors import Diverged, NotFinite
from .posterior.examination import Examination
from .posterior.measurement import LinearMeasurement, Measurement
from .posterior.misfit import judged
from .posterior.resolve import Job, resolve
from .posterior.units import measure
from .prior import Prior
from .randomness import Noise
from .reconstruction import Collector, Reconstruction
from .sampling import Counter, as_prior, counted
from .sampling.driver import Callback

__all__ = ["Diverged", "Reconstruction", "solve"]


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
    Data that no image of the prior explains are taken as noisier, with a warning and the reason in
    `examination`.
    """
    prior = as_prior(prior)
    data = measure(prior, y, operator, noise_std)
    _check_counts(num_samples, batch_size, data, items)
    job = resolve(
        prior,
        operator,
        exact=data.exact,
        method=method,
        budget=budget,
        preset=preset,
        sampler=sampler,
        steps=steps,
        times=times,
        **method_options,
    )
    if job.method.deterministic and num_samples > 1:
        raise ValueError(f"{job.name!r} has one answer, not samples: num_samples must be 1")
    names = list(range(len(data))) if items is None else list(items)
    began = time.perf_counter()
    seen, examination = _examined(prior, data, job, seed, names)
    rows = [(i, s) for i in range(len(data)) for s in range(num_samples)]
    collector = Collector(data, prior, num_samples, keep_samples)
    ticker = _Ticker(progress, len(rows), callback)
    for chunk in _chunks(rows, data, batch_size):
        index = [i for i, _ in chunk]
        noise = Noise(seed, [names[i] for i in index], [s for _, s in chunk])
        part = data.rows(index)
        u, cost = _run_chunk(prior, part, seen.rows(index), job, noise, ticker)
        collector.add(chunk, u, part.misfit(u), cost)
    rec = collector.finish(
        seconds=time.perf_counter() - began,
        method=str(job),
        seed=seed,
        settings=job.settings,
        examination=examination,
    )
    return judged(
        rec, data, collector.peak, collector.variance, one_answer=job.method.deterministic
    )


def _examined(
    prior: Prior, data: Measurement, job: Job, seed: int, items: list[int]
) -> tuple[Measurement, Examination | None]:
    """The data as the method sees them, and what the examination that it asks for has found."""
    seen = job.method.seen(prior, data)
    found = job.examine(prior, seen, seed, items)
    if found is None or not found.words:
        return seen, found
    warnings.warn(found.words, stacklevel=3)
    return found.applied(seen), found


def _run_chunk(
    prior: Prior, data: Measurement, seen: Measurement, job: Job, noise: Noise, ticker: _Ticker
) -> tuple[Tensor, Counter]:
    """Samples u of the rows of `data`, which the method sees as `seen`, and what they cost."""
    calls, counter = counted(prior)
    guard = _Guard(prior, ticker, len(data), _bound(prior, data))
    levels = (0.0, 0.0)
    if job.needs_grid:
        levels = _rounded(data.level[0]), float(data.typical[0])
    walk = job.walk(prior, *levels, guard)
    try:
        with torch.no_grad():
            u = job.method.draw(calls, seen, noise, walk, job.options)
    except NotFinite as error:
        raise Diverged(str(error), guard.step, guard.time, guard.state) from error
    if isinstance(data, LinearMeasurement) and data.exact and job.method.projects:
        u = data.project(u)
    ticker.done(len(data))
    return u, counter


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


def _bound(prior: Prior, data: Measurement) -> float:
    """An |x| that no sample reaches: 1e4 times the terminal law's size or |W^1/2 y| / |A W^1/2|."""
    mean, std = prior.sde.terminal((1,))
    white = data.weights.sqrt() * data.y
    needed = float((inner(white, white) / data.gain).amax().sqrt())
    return 1e4 * max(1.0, float(mean.abs().amax() + std), needed if math.isfinite(needed) else 0.0)


class _Guard:
    """Stops at the first x0_hat that is not within `bound` and remembers the last that was."""

    def __init__(self, prior: Prior, ticker: _Ticker, rows: int, bound: float):
        self.prior, self.ticker, self.rows, self.bound = prior, ticker, rows, bound
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
        self.ticker.step(step, t, x, x0_hat)


class _Ticker:
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


def _check_counts(
    num_samples: int, batch_size: int | None, data: Measurement, items: Sequence[int] | None
) -> None:
    for name, value in (("num_samples", num_samples), ("batch_size", batch_size)):
        if value is not None and (int(value) != value or value < 1):
            raise ValueError(f"{name} must be a positive integer; got {value}")
    if items is not None and len(items) != len(data):
        raise ValueError(f"items must name the {len(data)} rows of y; got {len(items)}")
