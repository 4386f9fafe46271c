"""`inverse-score reconstruct`: from scan files to volumes with their uncertainty."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import BadInput
from . import Interrupted, app

if TYPE_CHECKING:
    from ..io.results import RunFolder, Unit
    from .plan import Plan
    from .request import Request
    from .work import Worker


@app.command()
def reconstruct(
    context: typer.Context,
    scans: list[str] = typer.Argument(None, help="Files, folders or patterns; fastMRI HDF5, "
                                      "ISMRMRD, BART, npz or sinogram HDF5; DICOM, NIfTI and "
                                      "pictures are measured by simulation."),
    operator: str = typer.Option("mri", help="mri, ct; for pictures inpaint, colorize, deblur, "
                                 "super-resolution or class; or package.module:factory, whose "
                                 "factory(path) returns a LinearOperator (this runs its code)."),
    acc: float | None = typer.Option(None, help="Acceleration of complete data, made here."),
    mask: str | None = typer.Option(None, help="Kind of sampling pattern, or a file with one "
                                    "(inpaint: a picture, white where the image is known)."),
    prior: str | None = typer.Option(None, help="Shipped name or file; default: the one that "
                                     "ships for the operator."),
    samples: int = typer.Option(8, help="Posterior samples a slice."),
    method: str = typer.Option("auto", help="Method of `solve`."),
    steps: int | None = typer.Option(None, help="Steps of the sampler."),
    budget: str | None = typer.Option(None, help="fast (default) or accurate."),
    baseline: str = typer.Option("tikhonov", help="Compared with: tikhonov, tv, wavelet, none."),
    noise_std: float | None = typer.Option(None, help="Noise per real and imaginary part."),
    withheld: bool = typer.Option(False, help="Check the prior on a tenth of the measured lines, "
                                  "withheld: costs 19 more samples of the middle slice."),
    maps: str | None = typer.Option(None, help="Coil maps: espirit or low-resolution."),
    metal: float | None = typer.Option(None, help="ct: leave out rays through what is above so "
                                       "many HU in the filtered back-projection, as 3000."),
    patch: int | None = typer.Option(None, help="Show the prior patches of so many pixels a "
                                     "side: for images too large for memory, or for the prior."),
    overlap: int | None = typer.Option(None, help="Pixels that patches share; default a quarter."),
    couple_z: float | None = typer.Option(None, help="Hold slices together (by dds): the mean "
                                          "|difference| of neighbours, in HU (mri: shares of the "
                                          "image's scale)."),
    recipe: Path | None = typer.Option(None, help="YAML with any of these options."),
    out: Path = typer.Option(Path("reconstructions"), "--out", "-o", help="Folder of the outputs."),
    device: str = typer.Option("auto", help="auto, cpu, cuda, cuda:N or mps."),
    seed: int = typer.Option(0, help="Seed of pattern and samples."),
    slices: str | None = typer.Option(None, help="N or FIRST:STOP."),
    nan: str = typer.Option("refuse", help="Bad values in the scan: refuse or zero."),
    key: str | None = typer.Option(None, help="Array or series within the file."),
    axes: str | None = typer.Option(None, help="Axes of a plain array, as slice,coil,y,x."),
    format_out: list[str] = typer.Option([], help="Also write dicom, nifti or bart; may be "
                                         "repeated."),
    keep_phi: bool = typer.Option(False, help="DICOM: copy patient and study of a DICOM scan."),
    allow_no_geometry: bool = typer.Option(False, help="DICOM even where no position is known."),
    shard: str = typer.Option("1/1", help="Do part I of N of the work, as in array jobs."),
    dry_run: bool = typer.Option(False, help="Say what would be done, and why not, and stop."),
    resume: bool = typer.Option(False, help="Go on with an interrupted run."),
    overwrite: bool = typer.Option(False, help="Replace earlier outputs."),
    keep_going: bool = typer.Option(False, help="Do not stop at a bad slice; exit 5 at the end."),
    hash_names: bool = typer.Option(False, help="Name outputs by content, not by input name."),
    keep_samples: bool = typer.Option(True, help="Store every sample in the volume."),
    pages: bool = typer.Option(True, help="Write the HTML report and PNG previews."),
    json_: bool = typer.Option(False, "--json", help="Print summary.json."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="No progress."),
    label: int | None = typer.Option(None, help="class: which one to draw."),
    guidance: float = typer.Option(1.0, help="class: strength of the classifier."),
    blur: float = typer.Option(2.0, help="deblur: std of the Gaussian kernel, in pixels."),
    factor: int = typer.Option(2, help="super-resolution: how much finer."),
    size: int = typer.Option(28, help="class: side of the images to draw."),
) -> None:  # fmt: skip
    """Reconstruct scans: posterior samples, their mean, std, residual and the prior's share.

    A complete scan is undersampled by --acc and scored against itself; an undersampled one is
    reconstructed as it is. Research use only, not for diagnosis.
    """
    from . import images

    if operator in images.OPERATORS:
        chosen = locals() | {"pictures": scans or []}
        wanted = {key: chosen[key] for key in images.ImageRequest.__annotations__}
        images.print_summary(images.reconstruct_images(images.ImageRequest(**wanted)), json_)
        return
    from .request import Request

    scans = scans or []
    given = {key: value for key, value in locals().items() if key in Request.__annotations__}
    if recipe is not None:
        from .recipe_file import with_recipe

        typed = {
            name
            for name in context.params
            if context.get_parameter_source(name).name != "DEFAULT"  # type: ignore[union-attr]
        }
        given = with_recipe(given, recipe, typed)
    request = Request(**{**given, "shard": _shard(shard)})
    if dry_run:
        from .dry_run import dry_run as say

        found = say(request)
        print(json.dumps(found, indent=1) if json_ else "\n".join(_lines(found)))
        if found["refused"]:
            raise typer.Exit(3)
        return
    summary = run(request)
    if json_:
        print(json.dumps(summary))
    elif summary is not None:
        print("\n".join(_lines_of(summary, request.out)))
    if summary is not None and summary["status"] == "partial":
        raise typer.Exit(5)


def run(request: Request) -> dict[str, Any] | None:
    """Do the work of this process; the summary, or None if others have units left to do."""
    from ..io.results import RunFolder
    from .plan import make_plan
    from .progress import Progress
    from .resources import use_cores
    from .work import worker_of

    group = Group(request)
    use_cores(group.local_size)
    began = time.perf_counter()
    plan = make_plan(request)
    index, count = group.index, group.count
    folder = group.first(
        lambda: RunFolder.prepare(
            request.out,
            plan.config(),
            plan.inputs(),
            plan.chunks,
            sources=plan.sources(),
            resume=request.resume or group.joined,
            overwrite=request.overwrite,
            shared=count > 1,
        )
    )
    try:
        with folder.lock(index, count):
            if request.resume and index == 1:
                folder.sweep()
            mine = folder.share(index, count, whole=request.couple_z is not None)
            there = len(mine) - len(folder.missing(mine))
            progress = Progress(len(mine), there, quiet=request.quiet)
            progress.note(_opening(plan, folder, index, count))
            worker = worker_of(plan, folder, progress)
            worker.seconds["opening"] = time.perf_counter() - began
            _run(worker, mine, folder, alone=count == 1 and not request.resume)
            return group.last(lambda: _conclude(plan, folder, worker))
    except Interrupted as stop:
        left = len(folder.missing())
        print(f"\ninterrupted: {left} of {len(folder.units)} units are left; the same command "
              "with --resume goes on", file=sys.stderr)  # fmt: skip
        raise stop


def _run(worker: Worker, units: list[Unit], folder: RunFolder, *, alone: bool) -> None:
    """The worker's units; input that is refused at once leaves no run behind."""
    try:
        worker.run(units)
    except BadInput:
        if alone:
            folder.withdraw()
        raise


class Group:
    """The processes that share a run: --shard i/n, or the ranks that torchrun started.

    first(f): f() in one process before the others; last(f): f() in one process once all units of
    the others are committed.
    """

    def __init__(self, request: Request):
        self.index, self.count = request.shard
        self.local_size, self.joined = 1, False
        self.torchrun = "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ["WORLD_SIZE"]) > 1
        if self.torchrun:
            if self.count > 1:
                raise ValueError("--shard and torchrun both share out the work; use one of them")
            self._join()

    def _join(self) -> None:
        from datetime import timedelta

        import torch.distributed as dist

        # Waiting for a slow neighbour is no error; a dead one is torchrun's to notice.
        dist.init_process_group("gloo", timeout=timedelta(days=30))
        self.index, self.count = dist.get_rank() + 1, dist.get_world_size()
        self.local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        self.joined = dist.get_rank() > 0

    def first(self, work: Any) -> Any:
        if not self.torchrun:
            return work()
        import torch.distributed as dist

        if self.index == 1:
            done = work()
            dist.barrier()
            return done
        dist.barrier()
        return work()

    def last(self, work: Any) -> Any:
        if not self.torchrun:
            return work()
        import torch.distributed as dist

        dist.barrier()
        return work() if self.index == 1 else None


def _conclude(plan: Plan, folder: Any, worker: Any) -> dict[str, Any] | None:
    """Put the volumes together if every unit is there, or has failed in some process."""
    from ..errors import PartialFailure
    from ..io.commits import locked
    from .finish import finish

    failed = folder.failures()
    left = [unit for unit in folder.missing() if unit not in failed]
    if left and failed:
        raise PartialFailure(f"{len(failed)} units failed, {len(left)} are left to other shards")
    if left:
        print(f"{len(left)} units are left to other shards; the last one writes the volumes",
              file=sys.stderr)  # fmt: skip
        return None
    with locked(plan.request.out, "volumes"):
        began = time.perf_counter()
        summary = finish(plan, folder, failed)
        worker.seconds["writing"] += time.perf_counter() - began
    from .resources import peak_memory

    summary["seconds"] = {key: round(value, 3) for key, value in worker.seconds.items()}
    summary["peak_memory_bytes"] = peak_memory()
    return summary


def _opening(plan: Plan, folder: Any, index: int, count: int) -> str:
    part = f", part {index} of {count}" if count > 1 else ""
    return (
        f"{len(plan.tasks)} scan(s), {len(folder.units)} units{part}; prior {plan.prior_name}, "
        f"{plan.request.samples} samples, on {plan.device}"
    )


def _shard(text: str) -> tuple[int, int]:
    first, _, second = text.partition("/")
    if not (first.isdigit() and second.isdigit() and 1 <= int(first) <= int(second)):
        raise typer.BadParameter(f"--shard must be I/N with 1 <= I <= N; got {text!r}")
    return int(first), int(second)


def _lines_of(summary: dict[str, Any], out: Path) -> list[str]:
    """Results in words: where they are, how they score, and what to know about them."""
    from .trust import misfit_lines

    lines = []
    for scan in summary["scans"]:
        lines += [f"{scan['name']}: {out / path}" for path in scan["outputs"].values()]
        for name, s in scan.get("scores", {}).items():
            lines.append(
                f"  {name:15} PSNR {s['psnr']:6.2f} dB  SSIM {s['ssim']:.4f}  NMSE {s['nmse']:.5f}"
            )
        told = ("simulated", "fit", "withheld", "calibration")
        lines += [f"  {scan['attributes'][key]}" for key in told if key in scan["attributes"]]
        lines += misfit_lines(scan["slices"])
    return lines


def _lines(found: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for key, value in found.items():
        if isinstance(value, dict):
            lines += [f"{indent}{key}:", *_lines(value, indent + "  ")]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for entry in value:
                lines += [f"{indent}{key}:", *_lines(entry, indent + "  ")]
        else:
            lines.append(f"{indent}{key}: {value}")
    return lines
