"""`inverse-score reconstruct`: the table of `recipes.run.options` typed, results printed."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from recipes.run.options import SCANS, Option, option, rows, table

from .application import app


@dataclass(frozen=True, kw_only=True)
class CommandOptions:
    """What is the command line's own: it is no part of a request."""

    recipe: Path | None = option(  # noqa: RUF009
        None, "YAML with any of these options.", first=True
    )
    dry_run: bool = option(
        False, "Say what would be done, and why not, and stop.", only=SCANS, first=True
    )
    json_: bool = option(False, "Print summary.json.", flags=("--json",))
    quiet: bool = option(False, "No progress.", flags=("--quiet", "-q"))


OWN_ROWS = {row.name: row for row in rows(CommandOptions, "Run")}
SCANS_HELP = (
    "Files, folders or patterns; fastMRI HDF5, ISMRMRD, BART, npz or sinogram HDF5; DICOM, NIfTI "
    "and pictures are measured by simulation."
)


def typed(body: Callable[..., None]) -> Callable[..., None]:
    """`body(context, given)` as a function of every row of the table, which is what typer reads."""

    def command(context: typer.Context, **given: Any) -> None:
        body(context, given)

    shown = [row for row in (*table().values(), *OWN_ROWS.values())]
    everyone = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter("context", everyone, annotation=typer.Context),
        inspect.Parameter("scans", everyone, default=typer.Argument(None, help=SCANS_HELP),
                          annotation=list[str]),
        *(_parameter(row) for row in sorted(shown, key=lambda row: not row.first)),
    ]  # fmt: skip
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__doc__, command.__name__ = body.__doc__, body.__name__
    return command


def _parameter(row: Option) -> inspect.Parameter:
    """What everybody needs is in the first panel of --help, the rest in that of its group."""
    several = row.type == tuple[str, ...]
    default = typer.Option(
        [] if several else row.default,
        *row.flags,
        help=_help(row),
        rich_help_panel=None if row.first else row.group,
    )
    kind = list[str] if several else row.type
    return inspect.Parameter(
        row.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind
    )


def _help(row: Option) -> str:
    """An option of one or two operators says so first."""
    return row.help if len(row.only) > 2 else f"{' and '.join(row.only)}: {row.help}"


@app.command()
@typed
def reconstruct(context: typer.Context, given: dict[str, Any]) -> None:
    """Reconstruct scans: posterior samples, their mean, std, residual and the prior's share.

    A complete scan is undersampled by --acc and scored against itself; an undersampled one is
    reconstructed as it is. Research use only, not for diagnosis.
    """
    from recipes.run.request import Request, refuse_idle

    names = [name for name in given if _typed(context, name)]
    own = {name: given.pop(name) for name in OWN_ROWS}
    given["scans"] = given["scans"] or []
    if own["recipe"] is not None:
        from recipes.run.recipe_file import read_recipe

        given |= read_recipe(own["recipe"], names)
    refuse_idle(given["operator"], names, OWN_ROWS.values())
    request = Request(**given)
    if own["dry_run"]:
        _dry_run(request, own["json_"])
    else:
        _run(request, as_json=own["json_"], quiet=own["quiet"])


def _typed(context: typer.Context, name: str) -> bool:
    return context.get_parameter_source(name).name != "DEFAULT"  # type: ignore[union-attr]


def _dry_run(request: Any, as_json: bool) -> None:
    from recipes.run.forecast import dry_run

    found = dry_run(request)
    print(json.dumps(found, indent=1) if as_json else "\n".join(_nested(found)))
    if found["refused"]:
        raise typer.Exit(3)


def _run(request: Any, *, as_json: bool, quiet: bool) -> None:
    from recipes.run.driver import run

    from .progress import ProgressLine

    summary = run(request, ProgressLine(quiet=quiet or request.pictures))
    # A rank of torchrun that is not the last to work shares its stdout with the one that is.
    if as_json and (summary is not None or request.part[1] > 1):
        print(json.dumps(summary))
    elif summary is not None:
        lines = _of_pictures(summary) if request.pictures else _of_scans(summary, request.out)
        print("\n".join(lines))
    if summary is not None and summary.get("status") == "partial":
        raise typer.Exit(5)


def _of_pictures(summary: dict[str, Any]) -> list[str]:
    return [
        f"{entry['name']}: {entry['method']}, {entry['nfe']} calls a sample, "
        f"{entry['seconds']:.1f} s -> {', '.join(entry['files'])}"
        for entry in summary["pictures"]
    ]


def _of_scans(summary: dict[str, Any], out: Path) -> list[str]:
    """Results in words: where they are, how they score, and what to know about them."""
    from recipes.run.verdict import misfit_lines

    lines = []
    for scan in summary["scans"]:
        lines += [f"{scan['name']}: {out / path}" for path in scan["outputs"].values()]
        for name, s in scan.get("scores", {}).items():
            lines.append(
                f"  {name:15} PSNR {s['psnr']:6.2f} dB  SSIM {s['ssim']:.4f}  NMSE {s['nmse']:.5f}"
            )
        told = ("simulated", "fit", "withheld", "calibration")
        lines += [f"  {scan['attributes'][key]}" for key in told if key in scan["attributes"]]
        lines += misfit_lines(scan["slices"])
    return lines


def _nested(found: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for key, value in found.items():
        if isinstance(value, dict):
            lines += [f"{indent}{key}:", *_nested(value, indent + "  ")]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for entry in value:
                lines += [f"{indent}{key}:", *_nested(entry, indent + "  ")]
        else:
            lines.append(f"{indent}{key}: {value}")
    return lines
