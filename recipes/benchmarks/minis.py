"""Whole scans through the recipes: simulated on a finer grid, or a user's own."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inverse_score.errors import BadInput
from inverse_score.io.scan import center_crop
from inverse_score.metrics import psnr
from inverse_score.prior import Prior
from operators import as_complex, column_mask, ifft2c

from ..ct import ct
from ..mri import MRI
from ..problem import Problem
from ..simulate import simulate_ct, simulate_mri
from . import figures
from .definition import Case, Definition, Row
from .run import BenchmarkRun
from .scoring import body_mask, scores
from .sources import Item

# Decades of a baseline's strength that an oracle chooses from, on its own scale.
_STRENGTHS = (-2.5, 1.5)
# Air of a CT slice lies below this; fat is at -100.
_BODY_HU = -500.0


@dataclass(frozen=True)
class Scene:
    """A simulated scan and its truth (H, W): what every row of the table is given.

    picture: the image (1, H, W) to score of a solution (1, C, H, W). rss: for MRI the root sum of
    squares of the noisy, fully sampled data, which is what a scanner would call the truth.
    """

    problem: Problem
    truth: np.ndarray
    inside: np.ndarray
    picture: Callable[[Tensor], np.ndarray]
    rss: np.ndarray | None = None

    def score(self, definition: Definition, image: np.ndarray) -> dict[str, float]:
        found = scores(definition.metric, self.truth[None], image, self.inside)
        if self.rss is not None:
            found["psnr rss"] = psnr(self.rss[None], image, data_range=float(self.rss.max()))
        return found

    def covered(self, samples: Tensor) -> float:
        """Share of the body's pixels whose truth lies between the least and largest sample.

        (n - 1) / (n + 1) for n samples of the right posterior.
        """
        images = np.concatenate([self.picture(x) for x in samples])
        within = (images.min(0) < self.truth) & (self.truth < images.max(0))
        return float(within[self.inside[0]].mean())


def mini_mri(run: BenchmarkRun, row: Row, case: Case, item: Item) -> dict[str, Any]:
    """One slice: simulated k-space, the recipe's own noise, maps and scale, one method."""
    return _solved(run, row, case, item, mri_scene(run.definition, case, item, run.prior))


def mini_ct(run: BenchmarkRun, row: Row, case: Case, item: Item) -> dict[str, Any]:
    """One slice: simulated counts, weights from them, Hounsfield units out."""
    return _solved(run, row, case, item, _ct_scene(run.definition, case, item, run.prior))


_CACHED: dict[tuple[str, str, str], Any] = {}


def _cached(key: tuple[str, str, str], make: Callable[[], Any]) -> Any:
    """The last problem made: rows of one item and case follow each other."""
    if key not in _CACHED:
        _CACHED.clear()
        _CACHED[key] = make()
    return _CACHED[key]


def mri_scene(definition: Definition, case: Case, item: Item, prior: Prior) -> Scene:
    def make() -> Scene:
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
        truth = full.ground_truth[0].numpy()
        return Scene(
            recipe.prepare(full.kspace * mask.mask),
            truth,
            body_mask(truth[None], 0.05 * float(truth.max())),
            lambda x: as_complex(x).abs().numpy(),
            rss,
        )

    return _cached((definition.name, case.name, item.key), make)


def _ct_scene(definition: Definition, case: Case, item: Item, prior: Prior) -> Scene:
    def make() -> Scene:
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
        truth = hounsfield[0].numpy()
        problem = recipe.prepare(scan.sinogram[:, None].float())
        return Scene(problem, truth, body_mask(truth[None], _BODY_HU), lambda x: x[:, 0].numpy())

    return _cached((definition.name, case.name, item.key), make)


def _solved(run: BenchmarkRun, row: Row, case: Case, item: Item, scene: Scene) -> dict[str, Any]:
    """Scores of the mean of the row's method; a baseline with `tuned` at its best strength."""
    options = dict(row.options)
    tuned = options.pop("tuned", None)
    method = row.method or "auto"
    if method in ("zero-filled", "fbp"):
        image = scene.picture(scene.problem.first_look)
        record: dict[str, Any] = {"nfe": 0, "vjps": 0, "seconds": 0.0}
        record["scores"] = scene.score(run.definition, image)
    elif tuned is not None:
        image, record = _tuned(run, row, scene, options, int(tuned))
    else:
        image, record = _sampled(run, row, item, scene, method, options)
    figures.keep(run.results, case.name, item.key, "truth", scene.truth)
    figures.keep(run.results, case.name, item.key, row.name, image[0])
    return record


def _sampled(
    run: BenchmarkRun, row: Row, item: Item, scene: Scene, method: str, options: dict[str, Any]
) -> tuple[np.ndarray, dict[str, Any]]:
    began = time.perf_counter()
    rec = scene.problem.solve(
        run.prior,
        method=method,
        num_samples=row.num_samples,
        seed=run.definition.seed,
        items=[item.number],
        **options,
    )
    seconds = time.perf_counter() - began
    image = scene.picture(rec.mean)
    found = scene.score(run.definition, image)
    if row.num_samples > 1 and rec.samples is not None:
        found["misfit"] = float(rec.misfit.mean())
        found["coverage"] = scene.covered(rec.samples)
    return image, {"scores": found, "nfe": rec.nfe, "vjps": rec.vjps, "seconds": seconds}


def _tuned(
    run: BenchmarkRun, row: Row, scene: Scene, options: dict[str, Any], count: int
) -> tuple[np.ndarray, dict[str, Any]]:
    """The best of `count` strengths by PSNR against the truth: an oracle no user has.

    options' `screen`: so many iterations find the best strength; it and its neighbours then run
    all `iterations`.
    """
    began = time.perf_counter()
    screen = options.pop("screen", None)
    strengths = list(np.logspace(*_STRENGTHS, count))

    def attempt(strength: float, **others: Any) -> tuple[float, float, np.ndarray]:
        options_ = {**options, **others}
        rec = scene.problem.solve(
            run.prior, method=row.method, strength=float(strength), **options_
        )
        image = scene.picture(rec.mean)
        return scene.score(run.definition, image)["psnr"], float(strength), image

    runs = count
    if screen is not None:
        quick = [attempt(strength, iterations=screen)[0] for strength in strengths]
        best = int(np.argmax(quick))
        strengths = strengths[max(best - 1, 0) : best + 2]
        runs += len(strengths)
    _, strength, image = max(
        (attempt(strength) for strength in strengths), key=lambda found: found[0]
    )
    found = {**scene.score(run.definition, image), "strength": strength}
    seconds = (time.perf_counter() - began) / runs
    return image, {"scores": found, "nfe": 0, "vjps": 0, "seconds": seconds}


def scan_volume(run: BenchmarkRun, row: Row, case: Case, item: Item) -> dict[str, Any]:
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
