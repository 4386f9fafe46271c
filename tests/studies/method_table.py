"""Write each method's measured row into METHODS.md: python tests/studies/method_table.py

The rows are those of `python tests/studies/posteriors.py --only methods`; nothing is run here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from inverse_score.posterior import METHODS

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "inverse_score" / "posterior" / "METHODS.md"
TITLE = "## The table\n"
PROBLEM = "inpainting, stationary, noise 0.1"


def rows() -> dict[tuple[str, str], dict[str, Any]]:
    """(problem, method) -> the last row measured."""
    lines = (HERE / "results" / "posteriors.jsonl").read_text().splitlines()
    measured = [row for row in map(json.loads, lines) if row["section"] == "methods"]
    return {(row["problem"], row["method"]): row for row in measured}


def table(found: dict[tuple[str, str], dict[str, Any]]) -> str:
    """Excess KL by problem; calls, vjps, error of the mean and trace on the first problem."""
    problems = list(dict.fromkeys(problem for problem, _ in found))
    problems.sort(key=lambda name: name != PROBLEM)
    names = [name for name, method in METHODS.items() if not method.deterministic]
    papers = dict.fromkeys(name for _, name in found if name not in names)
    lines = [
        TITLE,
        "8x8 Gaussian problems whose posterior is known; excess KL in nats at the defaults (2048 "
        "exact samples score 0.52), then calls and vjps, error of the mean in posterior standard "
        f'deviations, and trace of the covariance over the true one, on "{PROBLEM}". Below 0: '
        "within the scatter of the samples (0.1). `python tests/studies/posteriors.py "
        "--only methods` measures, `python tests/studies/method_table.py` writes this.\n",
        *_lines(found, names, problems),
        "\nThe papers' constants, meant for other noise and scales, on the first problem:\n",
        *_lines(found, papers, [PROBLEM]),
    ]
    return "\n".join(lines) + "\n"


def _lines(found: dict, names: Iterable[str], problems: list[str]) -> list[str]:
    lines = [
        "| method | " + " | ".join(problems) + " | calls | vjps | mean | trace |",
        "|---|" + "---|" * (len(problems) + 4),
    ]
    for name in names:
        cells = [_excess(found.get((problem, name))) for problem in problems]
        first = found.get((PROBLEM, name), {})
        cells += [str(first.get(key, "")) for key in ("nfe", "vjps")]
        cells += [_plain(first.get(key)) for key in ("mean_error", "trace")]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _excess(row: dict[str, Any] | None) -> str:
    if row is None:
        return "not measured"
    if "failed" in row:
        return "not possible"
    return f"{row['excess']:.3g}" if math.isfinite(row["excess"]) else "diverged"


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def main() -> None:
    text = PAGE.read_text()
    PAGE.write_text(text[: text.index(TITLE)] + table(rows()))


if __name__ == "__main__":
    main()
