"""What is measured once a prior is trained, and kept in its file."""

from __future__ import annotations

from typing import Any


def measure(run: Any) -> dict[str, Any]:
    return {}
