"""Pictures: inpaint, colorize, deblur, super-resolve, draw a class. PNGs and summary.json."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inverse_score.device import choose_device
from inverse_score.errors import BadInput, BadPrior
from inverse_score.io.priors import load_prior, shipped_priors
from inverse_score.io.runs.commits import commit_bytes, commit_json
from inverse_score.patches import in_patches

from ..class_conditional import class_conditional
from ..colorization import colorization
from ..deblurring import deblurring
from ..inpainting import inpainting
from ..pictures import alpha_of, grid, read_colours, read_mask, read_picture, write_picture
from ..super_resolution import super_resolution
from .options import CLASS
from .recipe_file import request_text

if TYPE_CHECKING:
    from torch import Tensor

    from inverse_score.prior import Prior
    from inverse_score.reconstruction import Reconstruction

    from .request import Request

KINDS = ("samples", "mean", "std", "input")


def run_pictures(request: Request, tell: Callable[[int, int], Any]) -> dict[str, Any]:
    """Pictures of mean, std and samples of every input, recipe.yaml and summary.json.

    tell(done, total) is called after each input.
    """
    _refuse_existing(request)
    work = list(request.scans) if request.family != CLASS else [""]
    found = []
    for k, picture in enumerate(work):
        found.append(_drawn(request) if request.family == CLASS else _solved(request, picture))
        tell(k + 1, len(work))
    summary = {"operator": request.operator, "seed": request.seed, "pictures": found}
    commit_json(request.out / "summary.json", summary)
    commit_bytes(request.out / "recipe.yaml", request_text(_beside(request)).encode())
    return summary


def _beside(request: Request) -> Request:
    """The request with its files named from its folder, and the prior that it came to."""
    prior, mask = request.prior or _default_prior(request), request.mask
    if Path(prior).is_file():
        prior = os.path.relpath(prior, request.out)
    if mask is not None:
        mask = os.path.relpath(mask, request.out)
    return dataclasses.replace(request, prior=prior, mask=mask)


def _refuse_existing(request: Request) -> None:
    """BadInput, before any work, where an output is there that was not to be replaced."""
    names = [Path(picture).stem for picture in request.scans] or [f"class-{request.label}"]
    files = [_file(request, name, kind) for name in names for kind in KINDS]
    there = [path.name for path in files if path.exists()]
    if there and not request.overwrite:
        raise BadInput(f"{request.out} already holds {there[0]}; --overwrite replaces it")


def _file(request: Request, name: str, kind: str) -> Path:
    return request.out / f"{name}-{kind}.png"


def _solved(request: Request, picture: str) -> dict[str, Any]:
    path = Path(picture)
    make = {
        "inpaint": _inpaint,
        "colorize": _colorize,
        "deblur": _deblur,
        "super-resolution": _super_resolution,
    }[request.operator]
    recipe, y = make(request, path)
    given = {"method": request.method, "budget": request.budget, "steps": request.steps}
    options = {key: value for key, value in given.items() if value is not None}
    rec = recipe(
        y.to(choose_device(request.device)),
        num_samples=request.samples,
        seed=request.seed,
        **options,
        **request.options,
    )
    return _written(request, path.stem, rec, y)


def _drawn(request: Request) -> dict[str, Any]:
    prior = request.prior or _default_prior(request)
    recipe = class_conditional(
        prior,
        f"{prior}-classifier",
        request.label,  # type: ignore[arg-type]
        scale=request.guidance,
        size=(request.size, request.size),
    )
    options = {} if request.steps is None else {"steps": request.steps}
    rec = recipe(request.samples, seed=request.seed, **options, **request.options)
    return _written(request, f"class-{request.label}", rec, None)


def _inpaint(request: Request, path: Path) -> tuple[Any, Tensor]:
    prior, image = _prior_and_picture(request, path, ignore_alpha=True)
    mask = read_mask(request.mask) if request.mask is not None else alpha_of(path)
    if mask is None:
        raise BadInput("inpaint needs --mask, a picture that is white where the image is known")
    return inpainting(prior, mask, noise_std=request.noise_std or 0.0), image


def _colorize(request: Request, path: Path) -> tuple[Any, Tensor]:
    # Programs make grey by luma, and so does reading a colour picture as grey.
    recipe = colorization(
        _prior(request), weights=request.weights, noise_std=request.noise_std or 0.0
    )
    return recipe, read_picture(path, 1)


def _deblur(request: Request, path: Path) -> tuple[Any, Tensor]:
    prior, image = _prior_and_picture(request, path)
    noise_std = 0.01 if request.noise_std is None else request.noise_std
    return deblurring(prior, std=request.blur, noise_std=noise_std), image


def _super_resolution(request: Request, path: Path) -> tuple[Any, Tensor]:
    prior, image = _prior_and_picture(request, path)
    noise_std = request.noise_std or 0.0
    return super_resolution(prior, request.factor, noise_std=noise_std), image


def _prior_and_picture(
    request: Request, path: Path, ignore_alpha: bool = False
) -> tuple[Prior, Tensor]:
    """The picture in the channels of the prior; a prior chosen by the picture's where none is."""
    read: Callable[..., Tensor] = read_colours if ignore_alpha else read_picture
    prior = _prior(request)
    if request.prior is not None:
        return prior, read(path, prior.channels)
    image = read(path)
    # Grey pictures go through the colour prior too: the digits' prior knows nothing else.
    return prior, read(path, 3) if image.shape[0] == 1 else image


def _default_prior(request: Request) -> str:
    return "digits" if request.family == CLASS else "photo-patches"


def _prior(request: Request) -> Prior:
    name = request.prior or _default_prior(request)
    if request.prior is None and name not in shipped_priors():
        raise BadPrior("no prior of 3 channels ships with this version; give --prior")
    loaded = load_prior(name, choose_device(request.device))
    return in_patches(loaded, request.patch, request.overlap)


def _written(request: Request, name: str, rec: Reconstruction, y: Tensor | None) -> dict[str, Any]:
    samples = rec.samples[:, 0]  # type: ignore[index]
    pictures = {"samples": grid(samples.cpu()), "mean": rec.mean[0]}
    if rec.num_samples > 1:
        std = rec.std[0].mean(0, keepdim=True)
        pictures["std"] = std / std.max().clamp(min=1e-9)
    if y is not None:
        pictures["input"] = y.nan_to_num(0.0)
    files = {kind: _file(request, name, kind) for kind in pictures}
    for kind, picture in pictures.items():
        write_picture(files[kind], picture)
    return {
        "name": name,
        "method": rec.method,
        "nfe": rec.nfe,
        "seconds": rec.seconds,
        "samples": rec.num_samples,
        "files": [path.name for path in files.values()],
    }
