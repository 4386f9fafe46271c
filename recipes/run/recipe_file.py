"""A request as YAML: the file saved beside each result, and read by --recipe and `recipes.load`.

recipe: the operator; prior: name or file; operator, method, patches, volume and output: sections
whose keys are the places of `recipes.run.options`; method holds options of `solve`'s method too.
Command line and caller win over the file. File names are relative to the file.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inverse_score.errors import BadInput
from inverse_score.io.config import build, check_keys, dump_yaml, load_yaml

from .options import CLASS, Option, table

if TYPE_CHECKING:
    from .plan import Plan
    from .request import Request

# Operators whose recipe has a longer name in Python, and so in YAML.
LONG_NAMES = {
    "inpaint": "inpainting",
    "colorize": "colorization",
    "deblur": "deblurring",
    CLASS: "class-conditional",
}
SHORT_NAMES = {long: short for short, long in LONG_NAMES.items()}


def read_recipe(
    source: str | Path | Mapping[str, Any], typed: Collection[str] = ()
) -> dict[str, Any]:
    """Arguments of `Request` from YAML or its mapping, but for those that were typed."""
    path = Path("recipe") if isinstance(source, Mapping) else Path(source)
    mapping = source if isinstance(source, Mapping) else load_yaml(path)
    sections = dict.fromkeys(row.section for row in table().values() if row.section)
    check_keys(mapping, ("recipe", "prior", *sections), path.name)
    if "recipe" not in mapping:
        raise BadInput(f"{path.name}: `recipe` is missing: mri or ct")
    operator = str(mapping["recipe"])
    if ":" in operator and "operator" not in typed:
        raise BadInput(f"{path.name}: a file cannot name code to run: type --operator yourself")
    found: dict[str, Any] = {"operator": SHORT_NAMES.get(operator, operator)}
    if mapping.get("prior") is not None:
        found["prior"] = str(mapping["prior"])
    for section in sections:
        found |= _section(mapping, section, path.name)
    for name in ("mask", "prior"):
        if name in found and (path.parent / found[name]).exists():
            found[name] = str(path.parent / found[name])
    return {name: value for name, value in found.items() if name not in typed}


def _section(mapping: Mapping[str, Any], section: str, file: str) -> dict[str, Any]:
    """Options of one section, each of its own type; the rest of `method` goes to `solve`."""
    where = f"{file}, {section}"
    keys = mapping.get(section)
    keys = {} if keys is None else keys
    if not isinstance(keys, Mapping):
        raise BadInput(f"{where} must be a section of keys; got {keys!r}")
    known = {row.key: row for row in table().values() if row.section == section}
    if section == "operator" and isinstance(keys.get("size"), list):
        keys = {**keys, "size": _side(keys["size"], where)}
    own = {key: value for key, value in keys.items() if key in known or section != "method"}
    rows = [(key, row.type, dataclasses.field(default=row.default)) for key, row in known.items()]
    built = build(dataclasses.make_dataclass(section, rows, frozen=True), own, where)
    found = {known[key].name: getattr(built, key) for key in own}
    if section == "method":
        found["options"] = {key: value for key, value in keys.items() if key not in known}
    return found


def _side(size: list[Any], where: str) -> Any:
    if len(size) != 2 or size[0] != size[1]:
        raise BadInput(f"{where}.size must be [side, side] of a square in pixels; got {size!r}")
    return size[0]


def recipe_text(plan: Plan) -> str:
    """YAML of a plan, with every choice that its results depend on."""
    request, beside = plan.request, plan.request.out
    mask = request.mask
    if mask is not None and Path(mask).exists():
        # The volume holds the pattern as it was used.
        mask = f"{plan.tasks[0].name}.h5"
    prior = request.prior or plan.prior_name
    chosen = {"mask": mask, "prior": _beside(prior, beside), "budget": plan.budget}
    return request_text(dataclasses.replace(request, **chosen))


def request_text(request: Request) -> str:
    """YAML that `read_recipe` reads back to this request: what is chosen and does something."""
    text: dict[str, Any] = {"recipe": LONG_NAMES.get(request.operator, request.operator)}
    if request.prior is not None:
        text["prior"] = request.prior
    for row in table().values():
        if not row.section or request.family not in row.only:
            continue
        value = _plain(row, getattr(request, row.name))
        if value is not None:
            text.setdefault(row.section, {})[row.key] = value
    text.setdefault("method", {}).update(request.options)
    return dump_yaml(text)


def _plain(row: Option, value: Any) -> Any:
    """The value as a YAML has it; None where nothing is to be said."""
    if row.name == "size":
        return [value, value]
    return None if value == () else value


def _beside(name: str, folder: Path) -> str:
    """A file's name relative to this folder; other names as they are."""
    return os.path.relpath(name, folder) if Path(name).is_file() else name
