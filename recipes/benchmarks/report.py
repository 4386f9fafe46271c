"""The files of a finished or unfinished benchmark: its table in three formats, and pictures."""

from __future__ import annotations

from inverse_score.io.runs.commits import commit_bytes

from . import figures, tables
from .definition import Definition
from .results import Results


def write(definition: Definition, results: Results) -> str:
    """table.md, table.csv, table.tex and figures/ beside the results; returns the Markdown.

    Every process of a run writes them from what all have finished; the last one has all.
    """
    results.reload()
    lines = tables.rows_of(definition, results.records)
    note = _note(definition)
    texts = {suffix: make(lines) for suffix, make in tables.FORMATS.items()}
    texts["md"] = f"{definition.title}\n\n{texts['md']}\n\n{note}"
    for suffix, text in texts.items():
        commit_bytes(results.folder / f"table.{suffix}", (text + "\n").encode())
    figures.write(definition, results)
    return texts["md"]


def _note(definition: Definition) -> str:
    metric = definition.metric
    return (
        f"Target: {definition.target}. Data range {metric.data_range}, "
        f"{'clipped' if metric.clip else 'not clipped'}, region {metric.region}. "
        "In brackets: published by others, * recalled and not verified. "
        f"Mean ± standard deviation over items; definition {definition.fingerprint[:12]}."
    )
