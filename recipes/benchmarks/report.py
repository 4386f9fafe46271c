"""The files of a finished or unfinished benchmark: its table in three formats."""

from __future__ import annotations

from inverse_score.io.commits import commit_bytes

from . import tables
from .definition import Definition
from .results import Results


def write(definition: Definition, results: Results) -> str:
    """table.md, table.csv and table.tex beside the results; returns the Markdown.

    Every process of a run writes them from what all have finished; the last one has all.
    """
    results.reload()
    lines = tables.rows_of(definition, results.records)
    note = _note(definition)
    texts = {suffix: make(lines) for suffix, make in tables.FORMATS.items()}
    texts["md"] = f"{definition.title}\n\n{texts['md']}\n\n{note}"
    for suffix, text in texts.items():
        commit_bytes(results.folder / f"table.{suffix}", (text + "\n").encode())
    return texts["md"]


def _note(definition: Definition) -> str:
    metric = definition.metric
    return (
        f"Target: {definition.target}. Data range {metric.data_range}, "
        f"{'clipped' if metric.clip else 'not clipped'}, region {metric.region}. "
        "In brackets: published by others, * recalled and not verified. "
        f"Mean ± standard deviation over items; definition {definition.fingerprint[:12]}."
    )
