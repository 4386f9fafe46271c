"""Results of a benchmark as a table: mean +- std over items, ours beside the published."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from .definition import Definition, Row

_DIGITS = {"ssim": 3, "nmse": 4, "seconds": 1}
_COST = ("nfe", "vjps", "seconds")


def rows_of(definition: Definition, records: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Header and lines: case, method, samples, each metric as "ours [published]", cost, items.

    A published value marked * is recalled, not verified.
    """
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        grouped[record["row"], record["case"]].append(record)
    metrics = sorted({name for record in records for name in record["scores"]}, key=_order)
    metrics = metrics or list(definition.metric.names)
    lines = [
        ["case", "method", "samples", *map(_title, metrics), "calls", "vjps", "s / item", "items"]
    ]
    for case in definition.cases:
        for row in definition.rows:
            found = grouped[row.name, case.name]
            published = any(p.case in (case.name, None) for p in row.published)
            if not found and not published:
                continue
            cells = [case.name, row.name, str(row.num_samples) if row.method else "-"]
            cells += [_cell(row, case.name, metric, found) for metric in metrics]
            cells += [_mean([run.get(key) for run in found], key) for key in _COST]
            lines.append([*cells, str(len(found)) if found else "-"])
    return lines


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """One table a case, under the case's name, without the columns that are empty in all."""
    head, *body = lines
    keep = [k for k in range(1, len(head)) if k < 3 or any(line[k] != "-" for line in body)]
    texts = []
    for case in dict.fromkeys(line[0] for line in body):
        rows = [[line[k] for k in keep] for line in body if line[0] == case]
        table = [[head[k] for k in keep], ["---"] * len(keep), *rows]
        text = ["| " + " | ".join(row) + " |" for row in table]
        texts.append("\n".join([f"**{case}**", "", *text]))
    return "\n\n".join(texts)


def csv(lines: Sequence[Sequence[str]]) -> str:
    quoted = [",".join('"' + cell.replace('"', '""') + '"' for cell in line) for line in lines]
    return "\n".join(quoted)


def latex(lines: Sequence[Sequence[str]]) -> str:
    escape = str.maketrans({"%": r"\%", "&": r"\&", "_": r"\_", "#": r"\#", "|": "/"})
    body = [" & ".join(cell.translate(escape) for cell in line) + r" \\" for line in lines]
    columns = "ll" + "r" * (len(lines[0]) - 2)
    middle = "\n".join([body[0], r"\midrule", *body[1:]])
    return "\n".join(
        [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", middle, r"\bottomrule", r"\end{tabular}"]
    )


FORMATS = {"md": markdown, "csv": csv, "tex": latex}


def _cell(row: Row, case: str, metric: str, found: list[dict[str, Any]]) -> str:
    values = [record["scores"][metric] for record in found if metric in record["scores"]]
    text = _spread(values, metric) if values else ""
    for p in row.published:
        if p.metric == metric and p.case in (case, None):
            star = "" if p.verified else "*"
            spread = "" if p.spread is None else f" ± {p.spread:g}"
            text += f"{' ' if text else ''}[{p.value:g}{spread}{star}]"
    return text or "-"


def _spread(values: list[float], metric: str) -> str:
    digits = _DIGITS.get(metric.split()[0], 2)
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return f"{mean:.{digits}f}"
    std = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))
    return f"{mean:.{digits}f} ± {std:.{digits}f}"


def _mean(values: list[Any], key: str) -> str:
    numbers = [v for v in values if v is not None]
    return f"{math.fsum(numbers) / len(numbers):.{_DIGITS.get(key, 0)}f}" if numbers else "-"


def _title(metric: str) -> str:
    return {"bits_per_dim": "bits/dim", "fid": "FID", "inception_score": "IS"}.get(
        metric, metric.upper() if metric in ("psnr", "ssim", "nmse") else metric
    )


def _order(metric: str) -> tuple[int, str]:
    known = ("psnr", "ssim", "nmse")
    first = metric.split()[0]
    return (known.index(first) if first in known else len(known), metric)
