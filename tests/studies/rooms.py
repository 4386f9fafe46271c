"""Which files of the project one request enters: `python tests/studies/rooms.py`.

A file is entered when one of its functions runs; what runs while modules are imported does not
count, so that the request is made twice and the second is watched. For one `reconstruct` of a small
simulated scan and for `solve`: files on the way to the first step of conjugate gradients within
`solve` (the call stack there), files entered in all, and climbs, calls from a layer to one above.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("inverse_score", "operators", "recipes")


def room(code: types.CodeType) -> str | None:
    """The project file that a function is written in, None for other code and module bodies."""
    path = Path(code.co_filename)
    if code.co_name == "<module>" or not path.is_relative_to(ROOT):
        return None
    name = path.relative_to(ROOT)
    return str(name) if name.parts[0] in PACKAGES else None


def layer(name: str) -> int:
    """0 operators, 1 inverse_score, 2 recipes, 3 the command line."""
    return (
        3
        if "/cli/" in name
        else ("operators", "inverse_score", "recipes").index(name.split("/")[0])
    )


class Watch:
    """Files as they are entered, those on the way to the first CG step within `solve`, and climbs:
    pairs of files of which one calls another of a layer above its own."""

    def __init__(self) -> None:
        self.entered: dict[str, None] = {}
        self.way: list[str] | None = None
        self.way_from_solve: list[str] = []
        self.before_cg: list[str] = []
        self.climbs: dict[tuple[str, str], None] = {}

    def __call__(self, frame: types.FrameType, event: str, _: object) -> None:
        if event != "call" or (name := room(frame.f_code)) is None:
            return
        self.entered.setdefault(name)
        caller = next((r for f in stacked(frame.f_back) if (r := room(f.f_code))), name)
        if layer(caller) < layer(name):
            self.climbs.setdefault((caller, name))
        if self.way is None and frame.f_code.co_name == "conjugate_gradient":
            self.arrive(frame)

    def arrive(self, frame: types.FrameType) -> None:
        """Keep the way here, if it leads through `solve`."""
        stack = list(stacked(frame))
        solves = [
            i
            for i, f in enumerate(stack)
            if (f.f_code.co_name, room(f.f_code)) == ("solve", "inverse_score/solver.py")
        ]
        if solves:
            self.way, self.before_cg = files_of(stack), list(self.entered)
            self.way_from_solve = files_of(stack[: max(solves) + 1])


def files_of(stack: list[types.FrameType]) -> list[str]:
    """Project files of a stack, the outermost first."""
    return list(dict.fromkeys(r for f in reversed(stack) if (r := room(f.f_code))))


def stacked(frame: types.FrameType | None) -> Iterator[types.FrameType]:
    """A frame and those that called it, innermost first."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def watched(action: Callable[[], object]) -> Watch:
    """What the second of two calls enters."""
    action()
    watch = Watch()
    sys.setprofile(watch)
    try:
        action()
    finally:
        sys.setprofile(None)
    return watch


def command(*arguments: object) -> None:
    """`inverse-score ARGUMENTS`, in this process and in silence."""
    from inverse_score.cli import main

    sys.argv = ["inverse-score", *map(str, arguments)]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main()


def reconstruct(folder: Path) -> Watch:
    """The rooms of `inverse-score reconstruct` on a simulated scan of one slice."""
    images = ROOT / "examples/data/head-t1.npz"
    scan = folder / "scan.h5"
    command("simulate", "--operator", "mri", images, "--size", 64, "-o", scan)
    arguments = ("reconstruct", "--operator", "mri", "--acc", 4, scan, "--samples", 2, "--steps", 2,
                 "--slices", 0, "--quiet", "--overwrite", "-o", folder / "out")  # fmt: skip
    watch = watched(lambda: command(*arguments))
    if not (folder / "out/scan.h5").exists():
        raise RuntimeError("the command wrote no volume")
    return watch


def solve() -> Watch:
    """The rooms of `solve` on k-space of one coil."""
    import torch

    from inverse_score import solve as solve_
    from inverse_score.io.priors import load_prior
    from operators import CartesianMRI

    prior, mask = load_prior("brain-mri"), torch.arange(32) % 2 == 0
    A = CartesianMRI(mask, image_shape=(32, 32))
    y = A(torch.randn(1, *A.in_shape))
    return watched(lambda: solve_(y, A, prior, noise_std=0.05, steps=2))


def printed(title: str, files: list[str]) -> None:
    print(f"{title}: {len(files)}")
    print("".join(f"  {name}\n" for name in files))


def main() -> None:
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        whole = reconstruct(Path(folder))
    printed("reconstruct, on the way to a CG step", whole.way or [])
    printed("reconstruct, entered in all", list(whole.entered))
    printed("reconstruct, climbs", [" -> ".join(pair) for pair in whole.climbs])
    alone = solve()
    printed("solve, on the way to a CG step", alone.way_from_solve)
    printed("solve, entered until then", alone.before_cg)
    printed("solve, entered in all", list(alone.entered))


if __name__ == "__main__":
    main()
