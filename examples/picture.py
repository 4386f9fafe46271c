"""What the examples' pictures share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

PALE, STRONG, WARM = "#8a8f98", "#1f5fa8", "#c8501e"


def arguments(description: str | None, num: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--num", type=int, default=num, help="how many points")
    here = Path(__file__).parent / "pictures"
    parser.add_argument("--out", type=Path, default=here, help="folder of the picture")
    return parser.parse_args()


def canvas(rows: int, columns: int, title: str, height: float = 3.4) -> tuple[Any, Any]:
    """A figure and its axes (rows, columns)."""
    try:
        import matplotlib
    except ImportError as error:
        raise SystemExit(
            'pictures need matplotlib: pip install "inverse-score[examples]"'
        ) from error
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        rows, columns, figsize=(3.4 * columns, height * rows), squeeze=False, layout="constrained"
    )
    figure.suptitle(title)
    return figure, axes


def save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
    print(path)
