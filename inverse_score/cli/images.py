"""Pictures through `reconstruct`: inpaint, colorize, deblur, super-resolve, draw a class."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadInput, BadPrior

if TYPE_CHECKING:
    from torch import Tensor

    from ..prior import Prior
    from ..solver import Reconstruction

OPERATORS = ("inpaint", "colorize", "deblur", "super-resolution", "class")


@dataclass(frozen=True)
class ImageRequest:
    """The options of `reconstruct` that pictures use."""

    operator: str
    pictures: list[str]
    mask: str | None = None
    prior: str | None = None
    samples: int = 8
    method: str = "auto"
    steps: int | None = None
    budget: str | None = None
    noise_std: float | None = None
    out: Path = Path("reconstructions")
    seed: int = 0
    overwrite: bool = False
    label: int | None = None
    guidance: float = 1.0
    blur: float = 2.0
    factor: int = 2
    size: int = 28
    patch: int | None = None
    overlap: int | None = None

    def options(self) -> dict[str, Any]:
        """Those that go to `solve`."""
        given = {"method": self.method, "budget": self.budget, "steps": self.steps}
        return {key: value for key, value in given.items() if value is not None}


def reconstruct_images(request: ImageRequest) -> dict[str, Any]:
    """Pictures of mean, std and samples of every input, and summary.json; returns the summary."""
    from ..io.runs.commits import commit_json

    request.out.mkdir(parents=True, exist_ok=True)
    if request.operator == "class":
        if request.pictures:
            raise BadInput("--operator class draws from the prior and takes no picture")
        if request.patch is not None:
            raise BadInput("--operator class is of the whole image: leave out --patch")
        found = [_drawn(request)]
    else:
        if not request.pictures:
            raise BadInput(f"--operator {request.operator} needs a picture")
        found = [_solved(request, Path(picture)) for picture in request.pictures]
    summary = {"operator": request.operator, "seed": request.seed, "pictures": found}
    commit_json(request.out / "summary.json", summary)
    return summary


def text(summary: dict[str, Any]) -> str:
    """The summary as lines."""
    return "\n".join(
        f"{entry['name']}: {entry['method']}, {entry['nfe']} calls a sample, "
        f"{entry['seconds']:.1f} s -> {', '.join(entry['files'])}"
        for entry in summary["pictures"]
    )


def _solved(request: ImageRequest, path: Path) -> dict[str, Any]:
    make = {
        "inpaint": _inpaint,
        "colorize": _colorize,
        "deblur": _deblur,
        "super-resolution": _super_resolution,
    }[request.operator]
    recipe, y = make(request, path)
    rec = recipe(y, num_samples=request.samples, seed=request.seed, **request.options())
    return _written(request, path.stem, rec, y)


def _drawn(request: ImageRequest) -> dict[str, Any]:
    import recipes

    if request.label is None:
        raise BadInput("--operator class needs --label, the class to draw")
    prior = request.prior or "digits"
    recipe = recipes.class_conditional(
        prior,
        f"{prior}-classifier",
        request.label,
        scale=request.guidance,
        size=(request.size, request.size),
    )
    options = {} if request.steps is None else {"steps": request.steps}
    rec = recipe(request.samples, seed=request.seed, **options)
    return _written(request, f"class-{request.label}", rec, None)


def _inpaint(request: ImageRequest, path: Path) -> tuple[Any, Tensor]:
    import recipes
    from recipes.pictures import alpha_of, read_mask

    prior, image = _prior_and_picture(request, path, ignore_alpha=True)
    mask = read_mask(request.mask) if request.mask is not None else alpha_of(path)
    if mask is None:
        raise BadInput("inpaint needs --mask, a picture that is white where the image is known")
    return recipes.inpainting(prior, mask, noise_std=request.noise_std or 0.0), image


def _colorize(request: ImageRequest, path: Path) -> tuple[Any, Tensor]:
    import recipes
    from recipes.pictures import read_picture

    prior = _prior(request, 3)
    # Programs make grey by luma, and so does reading a colour picture as grey.
    recipe = recipes.colorization(prior, weights="rec601", noise_std=request.noise_std or 0.0)
    return recipe, read_picture(path, 1)


def _deblur(request: ImageRequest, path: Path) -> tuple[Any, Tensor]:
    import recipes

    prior, image = _prior_and_picture(request, path)
    noise_std = 0.01 if request.noise_std is None else request.noise_std
    return recipes.deblurring(prior, std=request.blur, noise_std=noise_std), image


def _super_resolution(request: ImageRequest, path: Path) -> tuple[Any, Tensor]:
    import recipes

    prior, image = _prior_and_picture(request, path)
    noise_std = request.noise_std or 0.0
    return recipes.super_resolution(prior, request.factor, noise_std=noise_std), image


def _prior_and_picture(
    request: ImageRequest, path: Path, ignore_alpha: bool = False
) -> tuple[Prior, Tensor]:
    """The picture in the channels of the prior; a prior chosen by the picture's where none is."""
    from recipes.pictures import read_colours, read_picture

    read: Callable[..., Tensor] = read_colours if ignore_alpha else read_picture
    if request.prior is not None:
        from ..io.priors import load_prior
        from ..patches import in_patches

        prior = in_patches(load_prior(request.prior), request.patch, request.overlap)
        return prior, read(path, prior.channels)
    image = read(path)
    # Grey pictures go through the colour prior too: the digits' prior knows nothing else.
    return _prior(request, 3), read(path, 3) if image.shape[0] == 1 else image


def _prior(request: ImageRequest, channels: int) -> Prior:
    from ..io.priors import load_prior, shipped_priors
    from ..patches import in_patches

    name = request.prior or "photo-patches"
    if request.prior is None and name not in shipped_priors():
        raise BadPrior(f"no prior of {channels} channels ships with this version; give --prior")
    return in_patches(load_prior(name), request.patch, request.overlap)


def _written(
    request: ImageRequest, name: str, rec: Reconstruction, y: Tensor | None
) -> dict[str, Any]:
    from recipes.pictures import grid, write_picture

    samples = rec.samples[:, 0]  # type: ignore[index]
    pictures = {"samples": grid(samples), "mean": rec.mean[0]}
    if rec.num_samples > 1:
        std = rec.std[0].mean(0, keepdim=True)
        pictures["std"] = std / std.max().clamp(min=1e-9)
    if y is not None:
        pictures["input"] = y.nan_to_num(0.0)
    files = {kind: request.out / f"{name}-{kind}.png" for kind in pictures}
    there = [path.name for path in files.values() if path.exists()]
    if there and not request.overwrite:
        raise BadInput(f"{request.out} already holds {there[0]}; --overwrite replaces it")
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


def print_summary(summary: dict[str, Any], as_json: bool) -> None:
    print(json.dumps(summary) if as_json else text(summary))
