"""A recipe from YAML: which one, its prior, its operator's numbers, its method's options.

Two more sections where they are wanted: `patches: {size: 256, overlap: 64}` for images too large
for memory, and `volume: {between_slices: 30.0}` for slices held together. `method: {samples: 4}`
and `operator: {seed: 1}` are what the recipe takes where its caller says nothing.

The recipe.yaml that `inverse-score reconstruct` saves is read too. For mri and ct it is a recipe of
whole files, of whose patterns, scales and outputs arrays know nothing: a `FileRecipe`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

import operators
from inverse_score.errors import BadInput
from inverse_score.io.config import build, check_keys, dump_yaml, load_yaml
from inverse_score.io.priors import load_prior
from inverse_score.patches import in_patches
from inverse_score.prior import Prior

from .class_conditional import class_conditional
from .colorization import colorization
from .compressed_sensing import compressed_sensing
from .ct import ct
from .deblurring import deblurring
from .inpainting import inpainting
from .mri import mri
from .pictures import read_mask
from .run.driver import Listener, run
from .run.options import table
from .run.recipe_file import read_recipe
from .run.request import Request
from .super_resolution import super_resolution
from .volume import volume

Name = Literal[
    "mri",
    "ct",
    "inpainting",
    "colorization",
    "class-conditional",
    "deblurring",
    "super-resolution",
    "compressed-sensing",
]


@dataclass(frozen=True)
class Patches:
    """Denoise patch by patch (`PatchWise`): pixels a side, and of overlap (default a quarter)."""

    size: int
    overlap: int | None = None


@dataclass(frozen=True)
class Coupling:
    """Slices as one volume (`volume`): the mean |difference| of neighbours, in data units."""

    between_slices: float


@dataclass(frozen=True)
class Recipe:
    """The YAML's sections. operator: numbers and file names; method: options of `solve`.

    volume goes with mri and ct, whose recipes take a scan's slices as a batch.
    A file can name no code: names resolve through tables, and an unknown key is an error.
    """

    recipe: Name
    prior: str
    operator: dict = field(default_factory=dict)
    method: dict = field(default_factory=dict)
    patches: Patches | None = None
    volume: Coupling | None = None

    def text(self) -> str:
        """YAML that `load` reads back."""
        return dump_yaml(self)


def load(source: str | Path | dict[str, Any]) -> Any:
    """The recipe of a YAML file or mapping, ready to call; BadInput suggests the nearest key."""
    mapping = source if isinstance(source, dict) else load_yaml(source)
    folder = Path() if isinstance(source, dict) else Path(source).parent
    if _of_files(mapping):
        return FileRecipe(read_recipe(source))
    recipe = _beside(build(Recipe, mapping), folder)
    make, keys = _MAKERS[recipe.recipe]
    defaults = _defaults(recipe, keys)
    check_keys(recipe.operator, keys, "operator")
    if recipe.volume is not None and recipe.recipe not in ("mri", "ct"):
        raise BadInput(f"volume: slices belong to mri and ct; got recipe {recipe.recipe}")
    made = make(_prior(recipe), dict(recipe.operator), dict(recipe.method), folder)
    if recipe.volume is not None:
        made = volume(made, recipe.volume.between_slices)
    return WithDefaults(made, defaults) if defaults else made


@dataclass(frozen=True)
class WithDefaults:
    """A recipe, and the num_samples and seed of its calls where these say nothing."""

    recipe: Any
    defaults: dict[str, int]

    def __call__(self, *measured: Any, **options: Any) -> Any:
        return self.recipe(*measured, **{**self.defaults, **options})


@dataclass(frozen=True)
class FileRecipe:
    """recipe(scans, out=...) reconstructs files as a YAML says; more options change what it says.

    recipe.request(scans) is what that asks for.
    """

    settings: dict[str, Any]

    def request(self, scans: Any, **changes: Any) -> Request:
        return Request(**{**self.settings, "scans": scans, **changes})

    def __call__(
        self, scans: Any, progress: Listener | None = None, **changes: Any
    ) -> dict[str, Any] | None:
        return run(self.request(scans, **changes), progress)


def _of_files(mapping: dict[str, Any]) -> bool:
    """Whether a scan's recipe asks for what only files have: a pattern to make, a baseline."""
    if mapping.get("recipe") not in ("mri", "ct"):
        return False
    of_arrays = {
        "operator": {*_MAKERS[mapping["recipe"]][1], "seed"},
        "method": {"method", "samples", "steps", "budget"},
    }
    beyond = [
        row.key
        for row in table().values()
        for keys in [mapping.get(row.section)]
        if row.section in of_arrays and isinstance(keys, dict) and row.key in keys
        and row.key not in of_arrays[row.section]
    ]  # fmt: skip
    return "output" in mapping or bool(beyond)


def _defaults(recipe: Recipe, keys: tuple[str, ...]) -> dict[str, int]:
    """num_samples and seed, taken out of the sections that hold them."""
    found = {}
    if "samples" in recipe.method:
        found["num_samples"] = recipe.method.pop("samples")
    if "seed" in recipe.operator and "seed" not in keys:
        found["seed"] = recipe.operator.pop("seed")
    for name, value in found.items():
        if type(value) is not int or value < (name == "num_samples"):
            raise BadInput(f"{name.removeprefix('num_')} must be a whole number; got {value!r}")
    return found


def _beside(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe whose prior, where it is a file beside the YAML, is that file."""
    near = folder / recipe.prior
    return replace(recipe, prior=str(near)) if near.is_file() else recipe


def _prior(recipe: Recipe) -> str | Prior:
    """The prior's name, or the prior applied in patches."""
    if recipe.patches is None:
        return recipe.prior
    if recipe.recipe == "class-conditional":
        raise BadInput("patches: a class is of the whole image")
    return in_patches(load_prior(recipe.prior), recipe.patches.size, recipe.patches.overlap)


def _mri(prior: str | Prior, operator: dict, method: dict, folder: Path) -> Any:
    mask = operator.pop("mask", None)
    if mask is not None:
        mask = read_mask(folder / mask)
    return mri(prior, mask, **operator, **method)


def _ct(prior: str | Prior, operator: dict, method: dict, folder: Path) -> Any:
    for key in ("size", "views"):
        if key not in operator:
            raise BadInput(f"operator.{key} is missing")
    span = math.radians(operator.pop("range_degrees", 180.0))
    views = operator.pop("views")
    angles = torch.arange(views, dtype=torch.float64) * span / views
    scanner = {key: operator.pop(key) for key in _SCANNER if key in operator}
    radon = operators.Radon(operator.pop("size"), angles, **scanner)
    return ct(prior, radon, **operator, **method)


def _inpainting(prior: str | Prior, operator: dict, method: dict, folder: Path) -> Any:
    if "mask" not in operator:
        raise BadInput("operator.mask is missing: a picture, white where the image is known")
    return inpainting(prior, read_mask(folder / operator.pop("mask")), **operator, **method)


def _compressed_sensing(prior: str | Prior, operator: dict, method: dict, folder: Path) -> Any:
    missing = [key for key in ("shape", "measurements", "noise_std") if key not in operator]
    if missing:
        raise BadInput(f"operator.{missing[0]} is missing")
    noise_std = operator.pop("noise_std")
    shape, count = operator.pop("shape"), operator.pop("measurements")
    A = operators.CompressedSensing(tuple(shape), count, **operator)
    return compressed_sensing(prior, A, noise_std=noise_std, **method)


def _class(prior: str | Prior, operator: dict, method: dict, folder: Path) -> Any:
    if "label" not in operator:
        raise BadInput("operator.label is missing: the class to draw")
    classifier = operator.pop("classifier", f"{prior}-classifier")
    size = operator.pop("size", None)
    if size is not None:
        operator["size"] = _sides(size)
    return class_conditional(prior, classifier, operator.pop("label"), **operator, **method)


def _sides(size: Any) -> tuple[int, int]:
    """(H, W) of a YAML list of two positive whole numbers."""
    whole = isinstance(size, list) and all(type(n) is int and n > 0 for n in size)
    if not (whole and len(size) == 2):
        raise BadInput(f"operator.size must be [height, width] in pixels; got {size!r}")
    return size[0], size[1]


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    def make(prior: str | Prior, operator: dict, method: dict, folder: Path) -> Any:
        return function(prior, **operator, **method)

    return make


_SCANNER = (
    "detectors", "geometry", "pixel_size", "detector_spacing", "detector_offset",
    "source_distance", "detector_distance",
)  # fmt: skip
_SINOGRAM = ("value", "I0", "mu_water", "noise_std", "metal")
_MAKERS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "mri": (_mri, ("mask", "noise_std", "maps", "scale")),
    "ct": (
        _ct,
        ("size", "views", "range_degrees", *_SCANNER, *_SINOGRAM),
    ),
    "inpainting": (_inpainting, ("mask", "noise_std", "paper")),
    "colorization": (_plain(colorization), ("weights", "noise_std", "paper")),
    "class-conditional": (_class, ("classifier", "label", "scale", "size")),
    "deblurring": (_plain(deblurring), ("std", "noise_std", "paper")),
    "super-resolution": (_plain(super_resolution), ("factor", "noise_std", "paper")),
    "compressed-sensing": (
        _compressed_sensing,
        ("shape", "measurements", "transform", "seed", "noise_std", "paper"),
    ),
}
