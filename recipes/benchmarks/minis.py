"""Whole scans through the recipes: simulated on a finer grid, or a user's own."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from inverse_score.errors import BadInput
from inverse_score.metrics import center_crop, psnr
from inverse_score.prior import Prior
from operators import as_complex, column_mask, ifft2c

from ..ct import ct
from ..mri import MRI
from ..problem import Problem
from ..simulate import simulate_ct, simulate_mri
from .definition import Case, Definition, Row
from .scoring import body_mask, scores
from .sources import Item

if TYPE_CHECKING:
    from .runner import Run

# Air of a CT slice lies below this; fat is at -100.
_BODY_HU = -500.0


def mini_mri(run: Run, row: Row, case: Case, item: Item) -> dict[str, Any]:
    """One slice: simulated k-space, the recipe's own noise, maps and scale, one method."""
    definition = run.definition
    problem, truth, rss = _mri_problem(definition, case, item, run.prior)
    peak = float(truth.max())
    inside = body_mask(truth[None], 0.05 * peak)

    def picture(x: Tensor) -> np.ndarray:
        return as_complex(x).abs().numpy()

    def score(image: np.ndarray) -> dict[str, float]:
        found = scores(definition.metric, truth[None], image, inside)
        found["psnr rss"] = psnr(rss[None], image, data_range=float(rss.max()))
        return found

    return _solved(run, row, item, problem, picture, score)


def mini_ct(run: Run, row: Row, case: Case, item: Item) -> dict[str, Any]:
    """One slice: simulated counts, weights from them, Hounsfield units out."""
    definition = run.definition
    problem, truth = _ct_problem(definition, case, item, run.prior)
    inside = body_mask(truth[None], _BODY_HU)

    def picture(x: Tensor) -> np.ndarray:
        return x[:, 0].numpy()

    def score(image: np.ndarray) -> dict[str, float]:
        return scores(definition.metric, truth[None], image, inside)

    return _solved(run, row, item, problem, picture, score)


_CACHED: dict[tuple[str, str, str], Any] = {}


def _cached(key: tuple[str, str, str], make: Callable[[], Any]) -> Any:
    """The last problem made: rows of one item and case follow each other."""
    if key not in _CACHED:
        _CACHED.clear()
        _CACHED[key] = make()
    return _CACHED[key]


def _mri_problem(definition: Definition, case: Case, item: Item, prior: Prior):
    def make() -> tuple[Problem, np.ndarray, np.ndarray]:
        options = dict(case.operator)
        image = item.load()[0]
        mask = column_mask(
            "equispaced-fraction",
            image.shape[-1],
            options["acc"],
            options.get("center"),
            seed=item.key,
        )
        # Fully sampled, for the RSS of its noisy data; what the mask keeps is the scan.
        full = simulate_mri(
            image,
            coils=options["coils"],
            noise_level=definition.noise_std,
            seed=item.number & 0x7FFFFFFF,
            items=[item.number],
        )
        rss = ifft2c(full.kspace[0]).abs().square().sum(0).sqrt().numpy()
        maps = options["maps"]
        given = full.sens_maps if maps == "true" else None
        kind = "espirit" if given is not None else maps
        recipe = MRI(prior, mask.mask, given, maps=kind)
        return recipe.prepare(full.kspace * mask.mask), full.ground_truth[0].numpy(), rss

    return _cached((definition.name, case.name, item.key), make)


def _ct_problem(definition: Definition, case: Case, item: Item, prior: Prior):
    def make() -> tuple[Problem, np.ndarray]:
        options = case.operator
        hounsfield = item.load()
        angles = torch.arange(options["views"], dtype=torch.float64) * math.pi / options["views"]
        scan = simulate_ct(
            hounsfield,
            angles,
            pixel_size=options["pixel_mm"],
            unit="hu",
            I0=options["I0"],
            seed=item.number & 0x7FFFFFFF,
            items=[item.number],
        )
        noise_std = scan.noise_std[:, None].float()
        recipe = ct(prior, scan.operator, noise_std=noise_std)
        return recipe.prepare(scan.sinogram[:, None].float()), hounsfield[0].numpy()

    return _cached((definition.name, case.name, item.key), make)


def _solved(
    run: Run,
    row: Row,
    item: Item,
    problem: Problem,
    picture: Callable[[Tensor], np.ndarray],
    score: Callable[[np.ndarray], dict[str, float]],
) -> dict[str, Any]:
    """Scores of the mean of the row's method; a baseline with `tuned` at its best strength."""
    options = dict(row.options)
    tuned = options.pop("tuned", None)
    method = row.method or "auto"
    began = time.perf_counter()
    if method in ("zero-filled", "fbp"):
        image = picture(problem.first_look)
        return {"scores": score(image), "nfe": 0, "vjps": 0, "seconds": 0.0}
    if tuned is not None:
        return _tuned(run, row, item, problem, picture, score, options, int(tuned))
    rec = problem.solve(
        run.prior,
        method=method,
        num_samples=row.num_samples,
        seed=run.definition.seed,
        items=[item.number],
        **options,
    )
    found = score(picture(rec.mean))
    if row.num_samples > 1:
        found["misfit"] = float(rec.misfit.mean())
    seconds = time.perf_counter() - began
    return {"scores": found, "nfe": rec.nfe, "vjps": rec.vjps, "seconds": seconds}


def _tuned(
    run: Run,
    row: Row,
    item: Item,
    problem: Problem,
    picture: Callable[[Tensor], np.ndarray],
    score: Callable[[np.ndarray], dict[str, float]],
    options: dict[str, Any],
    count: int,
) -> dict[str, Any]:
    """The best of `count` strengths by PSNR against the truth: an oracle no user has."""
    best: dict[str, float] = {}
    began = time.perf_counter()
    for strength in _strengths(count):
        rec = problem.solve(run.prior, method=row.method, strength=float(strength), **options)
        found = score(picture(rec.mean))
        if not best or found["psnr"] > best["psnr"]:
            best = {**found, "strength": float(strength)}
    seconds = (time.perf_counter() - began) / count
    return {"scores": best, "nfe": 0, "vjps": 0, "seconds": seconds}


def _strengths(count: int) -> Sequence[float]:
    return np.logspace(-2.5, 1.5, count)


def scan_volume(run: Run, row: Row, case: Case, item: Item) -> dict[str, Any]:
    """A user's volume, undersampled by the case's mask, against the file's own reference."""
    scan = item.scan
    definition = run.definition
    if scan is None or definition.target not in scan.references:
        raise BadInput(f"{item.key} has no {definition.target} to score against")
    reference = scan.references[definition.target]
    options = case.operator
    mask = column_mask(
        options["mask"], scan.shape[-1], options["acc"], options["center"], seed=item.key
    )
    targets, images, nfe, vjps, seconds = [], [], 0, 0, 0.0
    for k in range(len(scan)):
        kspace = torch.from_numpy(scan[k])[None] * mask.mask
        problem = MRI(run.prior, mask.mask).prepare(kspace)
        target = reference(k)
        if row.method == "zero-filled":
            x = problem.first_look
        else:
            rec = problem.solve(
                run.prior,
                method=row.method or "auto",
                num_samples=row.num_samples,
                seed=definition.seed,
                items=[item.number + k],
                **row.options,
            )
            x, nfe, vjps, seconds = rec.mean, rec.nfe, rec.vjps, seconds + rec.seconds
        images.append(_cropped(as_complex(x)[0].abs().numpy(), target.shape))
        targets.append(target)
    found = scores(definition.metric, np.stack(targets), np.stack(images))
    return {"scores": found, "nfe": nfe, "vjps": vjps, "seconds": seconds / len(scan)}


def _cropped(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(center_crop(image, (shape[-2], shape[-1])))
