"""`--recipe FILE`: the options of `reconstruct` from YAML, and the file saved beside each result.

recipe: mri or ct; prior: name or file; operator: acc, mask, maps, metal, noise_std, seed; method:
method (or name), samples, steps, budget, baseline, and options of `solve`'s method; patches: size
and overlap; volume: between_slices. What is typed on the command line wins over the file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .request import Request

OPERATOR_KEYS = ("acc", "mask", "maps", "metal", "noise_std", "seed", "nan")
METHOD_KEYS = ("method", "samples", "steps", "budget", "baseline")


def with_recipe(given: dict[str, Any], path: Path, typed: Collection[str]) -> dict[str, Any]:
    """Options of `reconstruct` with a recipe's in place of those that were not typed."""
    from ..errors import BadInput
    from ..io.config import check_keys, load_yaml

    mapping = load_yaml(path)
    check_keys(mapping, ("recipe", "prior", "operator", "method", "patches", "volume"), path.name)
    operator, method = (_section(mapping, key, path) for key in ("operator", "method"))
    check_keys(operator, OPERATOR_KEYS, f"{path.name}, operator")
    found = {**operator, **{key: method.pop(key) for key in METHOD_KEYS if key in method}}
    found |= _sections(mapping, path.name)
    if "recipe" not in mapping:
        raise BadInput(f"{path.name}: `recipe` is missing: mri or ct")
    if ":" in str(mapping["recipe"]) and "operator" not in typed:
        raise BadInput(f"{path.name}: a file cannot name code to run: type --operator yourself")
    found["operator"] = mapping["recipe"]
    if "prior" in mapping:
        found["prior"] = mapping["prior"]
    if "mask" in found and (path.parent / str(found["mask"])).exists():
        found["mask"] = str(path.parent / str(found["mask"]))
    kept = {key: value for key, value in found.items() if key not in typed}
    return {**given, **kept, "options": method}


def recipe_text(request: Request, prior: str) -> str:
    """YAML that `--recipe` reads back, with every choice that a result depends on."""
    from ..io.config import dump_yaml

    def chosen(keys: tuple[str, ...]) -> dict[str, Any]:
        values = {key: getattr(request, key) for key in keys}
        return {key: value for key, value in values.items() if value is not None}

    operator = chosen(OPERATOR_KEYS)
    if "mask" in operator:
        operator["mask"] = Path(operator["mask"]).name
    text = {
        "recipe": request.operator,
        "prior": prior,
        "operator": operator,
        "method": {**chosen(METHOD_KEYS), **request.options},
    }
    if request.patch is not None:
        text["patches"] = {"size": request.patch, "overlap": request.overlap}
    if request.couple_z is not None:
        text["volume"] = {"between_slices": request.couple_z}
    return dump_yaml(text)


def _sections(mapping: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The options that `patches` and `volume` stand for."""
    from recipes.load import Patches, Stack

    from ..io.config import build

    found: dict[str, Any] = {}
    if mapping.get("patches") is not None:
        patches = build(Patches, mapping["patches"], f"{name}, patches")
        found |= {"patch": patches.size, "overlap": patches.overlap}
    if mapping.get("volume") is not None:
        stack = build(Stack, mapping["volume"], f"{name}, volume")
        found["couple_z"] = stack.between_slices
    return found


def _section(mapping: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    from ..errors import BadInput

    section = mapping.get(key) or {}
    if not isinstance(section, dict):
        raise BadInput(f"{path.name}: {key} must be a mapping; got {section!r}")
    return dict(section)
