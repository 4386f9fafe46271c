"""`inverse-score benchmark list | describe NAME | run NAME`: tables of the field, run again."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import typer

from .application import app

group = typer.Typer(no_args_is_help=True, help="Run the field's benchmark protocols.")
app.add_typer(group, name="benchmark")


@group.command("list")
def list_() -> None:
    """Names and titles of the benchmarks."""
    from recipes.benchmarks.definition import definition_names, load_definition

    for name in definition_names():
        print(f"{name:32}{load_definition(name).title}")


@group.command()
def describe(name: str = typer.Argument(..., help="A benchmark's name, or a YAML file.")) -> None:
    """Everything that a benchmark fixes, and the published numbers with their sources."""
    from recipes.benchmarks.definition import describe as text
    from recipes.benchmarks.definition import load_definition

    print(text(load_definition(name)))


@group.command()
def run(
    name: str = typer.Argument(..., help="A benchmark's name, or a YAML file."),
    data: Path = typer.Option(None, "--data", metavar="DIR", help="Your copy of the data set."),
    prior: str = typer.Option(None, "--prior", metavar="P", help="A prior's file or name."),
    out: Path = typer.Option(None, "--out", metavar="DIR", help="Default: runs/NAME."),
    limit: int = typer.Option(None, "--limit", min=1, help="Only the first so many items."),
    method: list[str] = typer.Option([], "--method", metavar="M", help="Only these; may repeat."),
    shard: str = typer.Option("0/1", "--shard", metavar="i/n", help="Do every n-th piece of work."),
    features: Path = typer.Option(
        None, "--features", metavar="FILE", help="TorchScript features for sample quality."
    ),
    json_: bool = typer.Option(False, "--json", help="Print one JSON object at the end."),
) -> None:
    """Run a benchmark; finished items are kept, and a second call goes on from them.

    Writes results.jsonl, table.md, table.csv, table.tex and environment.json to --out. Several
    processes share the work by --shard or under torchrun.
    """
    from recipes.benchmarks import report
    from recipes.benchmarks.definition import load_definition
    from recipes.benchmarks.results import described_prior
    from recipes.benchmarks.runner import run as run_all
    from recipes.benchmarks.runner import start

    definition = load_definition(name)
    chosen, prior_hash = described_prior(prior or definition.prior.default, definition)
    folder = out or Path("runs") / definition.name
    job = start(
        definition,
        chosen,
        folder,
        prior_hash=prior_hash,
        data=data,
        limit=limit,
        methods=method,
        shard=_shard(shard),
        features=features,
    )
    job.results.describe_environment(benchmark=definition.name, items=len(job.items))
    run_all(job, lambda line: print(line, file=sys.stderr, flush=True))
    table = report.write(definition, job.results)
    if json_:
        print(json.dumps({"benchmark": definition.name, "records": job.results.records}))
    else:
        print(table)


def _shard(text: str) -> tuple[int, int]:
    """(index, count) from i/n, or from torchrun's environment."""
    import os

    from ..errors import BadInput

    if text == "0/1" and "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise BadInput(f"--shard is i/n with 0 <= i < n; got {text!r}")
    return int(index), int(count)
