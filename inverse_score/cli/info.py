"""`inverse-score info`: what a prior or a scan is, from its header, weights and pixels unread."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .application import app

if TYPE_CHECKING:
    from ..io.scan import Scan


@app.command()
def info(
    what: str = typer.Argument(..., metavar="SCAN_OR_PRIOR"),
    key: str = typer.Option(None, "--key", help="Which array, series or volume of a file."),
    axes: str = typer.Option(None, "--axes", help="Axes of a plain array: slice,coil,y,x."),
    json_: bool = typer.Option(False, "--json", help="One JSON object."),
) -> None:
    """Describe a prior (file or shipped name), a checkpoint of `train`, or a scan.

    Says nothing of patients. Exits 3 for a file that cannot be read, 4 for a damaged prior.
    """
    if is_weights(what):
        facts = describe_weights(what)
    else:
        from ..io.reading import read_scan

        facts = describe_scan(read_scan(Path(what), key=key, axes=axes))
    if json_:
        print(json.dumps(facts, indent=1))
    else:
        show(facts)


def is_weights(what: str) -> bool:
    """A safetensors file by its name or its first bytes, or the name of a shipped prior."""
    path = Path(what)
    if path.suffix == ".safetensors" or not path.exists():
        return path.suffix == ".safetensors" or path.name == what
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(10)[8:] == b'{"'


def describe_weights(what: str) -> dict[str, Any]:
    """The header, numbers and sizes of its tensors; the long spectrum as its extent."""
    from safetensors import safe_open

    from ..io.priors import find_prior, read_any_header

    path = find_prior(what)
    header = read_any_header(path)
    with safe_open(path, framework="pt") as file:
        slices = [file.get_slice(name) for name in file.keys()]  # noqa: SIM118
        numbers = sum(_product(part.get_shape()) for part in slices)
        kinds = sorted({part.get_dtype() for part in slices})
    facts: dict[str, Any] = {
        "file": path.name,
        "kind": header.get("kind", "prior"),
        "bytes": path.stat().st_size,
        "parameters": numbers,
        "stored as": kinds,
        **{k: v for k, v in header.items() if k not in ("kind", "format", "card", "losses")},
    }
    card = dict(header.get("card", {}))
    if "error_spectrum" in card:
        spectrum = card["error_spectrum"]
        card["error_spectrum"] = {
            "levels": len(spectrum["sigma"]),
            "from": spectrum["sigma"][0],
            "to": spectrum["sigma"][-1],
            **{k: spectrum[k] for k in ("basis", "bins", "images", "held_out") if k in spectrum},
            "local": "local" in spectrum,
        }
    return {**facts, "card": card} if card else facts


def _product(shape: list[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def describe_scan(scan: Scan) -> dict[str, Any]:
    """What a reader found, without patient data."""
    from ..io.scan import AXES

    facts: dict[str, Any] = {
        "name": scan.name,
        "format": scan.format,
        "kind": scan.kind,
        "shape": dict(zip(AXES[scan.kind], scan.shape, strict=True)),
        "units": scan.units or "none",
    }
    if scan.mask is not None:
        measured = float(scan.mask.mean())
        facts["measured"] = f"{measured:.3f} of k-space (acceleration {1 / measured:.2f})"
    elif scan.kind == "kspace":
        facts["measured"] = "all of k-space"
    if scan.angles is not None:
        facts["angles"] = {"from": float(scan.angles[0]), "to": float(scan.angles[-1])}
    for name, value in (
        ("geometry", dict(scan.geometry)),
        ("noise_std", scan.noise_std),
        ("crop", scan.crop),
        ("references", sorted(scan.references)),
        ("header", dict(scan.facts)),
        ("notes", list(scan.notes)),
    ):
        if value:
            facts[name] = value
    facts["oriented"] = scan.affine is not None
    return facts


def show(facts: Any, indent: int = 0) -> None:
    """Nested facts as indented lines, made safe for a terminal."""
    from ..io.names import printable

    pad = "  " * indent
    for key, value in facts.items():
        if isinstance(value, dict) and value:
            print(f"{pad}{printable(key)}")
            show(value, indent + 1)
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list) else value
            print(f"{pad}{printable(key):{max(2, 22 - 2 * indent)}} {printable(text, 1000)}")
