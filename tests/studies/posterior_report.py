"""The posterior benchmark's rows as Markdown tables, and the choice behind method="auto"."""

from __future__ import annotations

import math
from typing import Any

from posterior_cost import completed

Row = dict[str, Any]
# x floor: the KL of 2048 samples of the method over that of 2048 exact ones.
BOUNDS = {"fast": 1.5, "accurate": 1.2}
CLASSES = {"inpainting": "Mask", "blur": "GaussianBlur", "mri": "CartesianMRI", "radon": "Radon"}


def report(rows: Any, noises: tuple[float, ...], covariances: tuple[str, ...]) -> str:
    """All tables whose rows have been measured."""
    parts = ["# Posterior samplers against exact posteriors\n"]
    if rows.of("targets"):
        parts.append(_targets(rows.of("targets"), noises, covariances))
    for section, title in (
        ("methods", "Every method at its defaults"),
        ("peers", "deepinv 0.5.0 and azula 0.11.1 on the same problems"),
    ):
        if rows.of(section):
            parts.append(_grid(rows.of(section), title))
    for section, (title, note, columns) in _LISTS.items():
        if rows.of(section):
            found = rows.of(section)
            found = completed(found, rows.of("peak")) if section == "cost" else found
            parts.append(_list(found, title, note, columns))
    return "\n".join(parts)


_LISTS: dict[str, tuple[str, str, dict[str, str]]] = {
    "mixtures": (
        "Posteriors with several modes",
        "Sliced Wasserstein-1 distance to exact samples (exact against exact beside it), total "
        "variation of the mode weights, share of samples away from every mode (2-D).",
        {
            "wasserstein": "distance",
            "wasserstein_floor": "exact",
            "mode_error": "weights",
            "stray": "stray",
            "forward_equivalents": "cost",
        },
    ),
    "ranks": (
        "Calibration: 160 problems, 9 samples each",
        "p-values of uniform ranks of one pixel and of TARP on the whole image; coverage of a "
        "nominal 90 % interval (Student's t), a right sampler lies in the band 95 times of 100.",
        {
            "rank_p": "rank p",
            "coverage_90": "coverage",
            "band_low": "band from",
            "band_high": "to",
            "tarp_deviation": "TARP deviation",
            "tarp_p": "TARP p",
        },
    ),
    "cost": (
        "Time outside the network, 256 x 256, one image, one thread",
        "With the shipped priors, small networks for an image of this size, and 20 steps (auto: "
        "its own): milliseconds of a call of the network, of a step, and until the first step is "
        "done; share of the whole solve outside the network, and what it would be with the network "
        "that Song et al. 2021 trained for this size, timed alone in the same run; resident memory "
        "at most, the network's activations included, beyond what is there before (two steps in a "
        "process of its own).",
        {
            "network_ms": "network ms",
            "step_ms": "step ms",
            "setup_ms": "to first step ms",
            "outside": "share outside",
            "outside_published": "with NCSN++",
            "peak_mib": "peak MiB",
        },
    ),
}


def _targets(rows: list[Row], noises: tuple[float, ...], covariances: tuple[str, ...]) -> str:
    """Excess KL by operator, covariance and noise; methods are columns."""
    names = list(dict.fromkeys(row["method"] for row in rows))
    lines = [
        "## Moment matching on Gaussian problems\n",
        "Excess KL in nats (x floor: KL over that of 2048 exact samples), forward-equivalents.\n",
        "| problem | " + " | ".join(names) + " |",
        "|---|" + "---|" * len(names),
    ]
    for problem in dict.fromkeys(row["problem"] for row in rows):
        cells = []
        for name in names:
            row = _find(rows, problem, name)
            cells.append("" if row is None else _excess(row))
        lines.append(f"| {problem} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _grid(rows: list[Row], title: str) -> str:
    """Excess KL with methods as rows and problems as columns."""
    problems = list(dict.fromkeys(row["problem"] for row in rows))
    lines = [
        f"## {title}\n",
        'Excess KL in nats: exact where the method is affine in its draws (samples "exact"), else '
        "of so many samples, whose scatter is 0.06 at 512. For the first problem: calls, vjps, "
        "error of the mean in posterior standard deviations (unit a dimension), trace of the "
        "covariance over the true one.\n",
        "| method | " + " | ".join(problems) + " | nfe | vjps | mean | trace | samples |",
        "|---|" + "---|" * (len(problems) + 5),
    ]
    for name in dict.fromkeys(row["method"] for row in rows):
        found = [_find(rows, problem, name) for problem in problems]
        cells = ["" if row is None else _number(row) for row in found]
        first = next((row for row in found if row and "nfe" in row), {})
        tail = [str(first.get("nfe", "")), str(first.get("vjps", ""))]
        tail += [_plain(first.get(key)) for key in ("mean_error", "trace", "samples")]
        lines.append(f"| {name} | " + " | ".join(cells + tail) + " |")
    return "\n".join(lines) + "\n"


def _list(rows: list[Row], title: str, note: str, columns: dict[str, str]) -> str:
    head = "| problem | method | " + " | ".join(columns.values()) + " |"
    lines = [f"## {title}\n", note + "\n", head, "|---|---|" + "---|" * len(columns)]
    for row in rows:
        if "failed" in row:
            lines.append(f"| {row['problem']} | {row['method']} | not run: {row['failed']} |")
            continue
        cells = [_plain(row.get(name)) for name in columns]
        lines.append(f"| {row['problem']} | {row['method']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _find(rows: list[Row], problem: str, method: str) -> Row | None:
    return next((r for r in rows if (r["problem"], r["method"]) == (problem, method)), None)


def _excess(row: Row) -> str:
    if "failed" in row:
        return "failed"
    if not math.isfinite(row["excess"]):
        return "diverged"
    ratio = 1 + row["excess"] / row["floor"]
    return f"{row['excess']:.3f} ({ratio:.2f}x), {row['forward_equivalents']}"


def _number(row: Row) -> str:
    if "failed" in row:
        return "-"
    value = row["excess"]
    return "diverged" if not math.isfinite(value) else f"{value:.3g}"


def _plain(value: Any) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def auto_table(rows: list[Row], options: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """budget -> "default" and the operators that differ from it -> options of the best method.

    The cheapest method within the budget's bound on every problem, else the most exact. "fast"
    takes methods without vjps and stationary problems; only what holds on the others too is
    "accurate". "measured" says the figures.
    """
    table: dict[str, Any] = {}
    for budget in BOUNDS:
        kept = [row for row in rows if budget == "accurate" or ", stationary" in row["problem"]]
        table[budget] = {"default": _best(kept, budget, options)}
        for operator, class_name in CLASSES.items():
            own = [row for row in kept if row["problem"].startswith(operator)]
            if budget == "accurate" and not any("nonstationary" in r["problem"] for r in own):
                continue
            entry = _best(own, budget, options)
            if _settings(entry) != _settings(table[budget]["default"]):
                table[budget][class_name] = entry
    return table


def _settings(entry: Row) -> Row:
    return {key: value for key, value in entry.items() if key != "measured"}


def _best(rows: list[Row], budget: str, options: dict[str, dict[str, Any]]) -> Row:
    """The best of the methods that were measured wherever "jacobian" was."""
    problems = {row["problem"] for row in rows if row["method"] == "jacobian"}
    rows = [row for row in rows if row["problem"] in problems]
    found = {name: [row for row in rows if row["method"] == name] for name in options}
    ranked = [
        (*_badness(own, BOUNDS[budget]), name)
        for name, own in found.items()
        if len(own) == len(problems) > 0
        and not (budget == "fast" and any(row["vjps"] for row in own))
    ]
    name = min(ranked)[-1]
    worst = max(1 + row["excess"] / row["floor"] for row in found[name])
    cost = max(row["forward_equivalents"] for row in found[name])
    measured = f"{worst:.2f}x the floor or less on {len(problems)} problems, {cost} "
    return {**options[name], "measured": measured + "forward-equivalents"}


def _badness(found: list[Row], bound: float) -> tuple[bool, float]:
    """(outside the bound, cost or else the worst ratio)."""
    worst = max(1 + row["excess"] / row["floor"] for row in found)
    cost = max(row["forward_equivalents"] for row in found)
    return (worst > bound, worst if worst > bound else cost)
