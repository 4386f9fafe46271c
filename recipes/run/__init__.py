"""Reconstruction of files: what `inverse-score reconstruct` does, as a library.

    from recipes.run import Request, run

    request = Request(scans=["scan.h5"], operator="mri", acc=4, out="reconstructions")
    summary = run(request, progress=print)
    print(summary["scans"][0]["scores"]["reconstruction"]["psnr"])

options (the table) -> request -> plan (what will be done; computes nothing) -> units (the work:
each a function of plan and unit) -> assemble (slices from units) -> publish (volumes, pages,
pictures, summary.json). driver goes that way; forecast says what it would do and cost; verdict
how far a result can be trusted.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .request import Request

if TYPE_CHECKING:
    from .driver import Event, run
    from .forecast import dry_run
    from .plan import Plan, make_plan

# Loaded on first use, so that the command line answers --help without importing torch.
_HOME = {
    "Event": "driver",
    "run": "driver",
    "dry_run": "forecast",
    "Plan": "plan",
    "make_plan": "plan",
}
__all__ = ["Event", "Plan", "Request", "dry_run", "make_plan", "run"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'recipes.run' has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
