"""What the tables of samplers share: SDEs, budgets, grids, fast noise, fast priors, and cells."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from inverse_score.prior import Prior
from inverse_score.sampling import end_ratio, make_grid
from inverse_score.sde import SDE, VESDE, VPSDE, SubVPSDE

BUDGETS = (8, 12, 20, 35, 50, 100, 1000)
SDES: dict[str, SDE] = {"VP": VPSDE(), "sub-VP": SubVPSDE(), "VE(50)": VESDE()}
TWO_CALLS = ("heun", "stochastic-rk")
AFFINE = (
    "dpm++2m",
    "dpm++2m-sde",
    "heun",
    "stochastic-rk",
    "ddim",
    "euler-maruyama",
    "ancestral",
    "reverse-diffusion",
)


def grid_for(prior: Prior, nfe: int, calls: int = 1) -> list[float]:
    """The default grid of at most `nfe` calls: `calls` of them a step, and the last x0_hat."""
    return make_grid(prior.sde, (nfe - 1) // calls + 1, end_ratio=end_ratio(prior))


def markdown(title: str, note: str, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [f"### {title}", "", note, "", "| " + " | ".join(head) + " |"]
    lines.append("|" + "---|" * len(head))
    lines += ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    if math.isnan(value):
        return "-"
    return f"{value:.4f}" if 1e-3 <= abs(value) < 100 or value == 0 else f"{value:.3g}"
