"""A run from request to summary: plan, units, volumes; alone, as a shard, or under torchrun."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inverse_score.device import peak_memory, use_cores
from inverse_score.errors import BadInput, BadRequest, Interrupted, PartialFailure
from inverse_score.io.names import printable
from inverse_score.io.runs.commits import locked
from inverse_score.io.runs.results import RunFolder

from .plan import Plan, make_plan
from .publish import publish
from .units import UnitResult, batches, compute

if TYPE_CHECKING:
    from inverse_score.io.runs.results import Unit

    from .request import Request

PARTS = ("opening", "reading", "maps", "network", "rest", "writing")


@dataclass(frozen=True)
class Event:
    """What happened: `done` of this process's `total` units are there; text says more, if any.

    kind: "unit" (one more is done), "note" (something to read) or "left" (the process ends and
    units are left).
    """

    kind: str
    done: int
    total: int
    text: str = ""

    def __str__(self) -> str:
        return self.text or f"{self.done}/{self.total} units"


# progress(event) is called after every unit and note; `print` will do.
Listener = Callable[[Event], Any]


def run(request: Request, progress: Listener | None = None) -> dict[str, Any] | None:
    """Do this process's part of what is asked for: volumes, pages, pictures and summary.json.

    Returns what summary.json holds, or None where other shards have units left to do. A request
    that is refused leaves nothing behind; an interrupted one is continued with resume.
    """
    progress = progress or _silent
    if request.pictures:
        from .pictures import run_pictures

        return run_pictures(request, lambda done, total: progress(Event("unit", done, total)))
    peers, began = Peers(request), time.perf_counter()
    use_cores(peers.local_size)
    plan, there = make_plan(request), request.out.exists()
    try:
        share = Share(plan, peers.first(lambda: _prepared(plan, peers)), peers, progress)
        return share.run(began)
    except ValueError:
        # Only where nothing is in it.
        with contextlib.suppress(OSError):
            if not there:
                request.out.rmdir()
        raise


def _silent(event: Event) -> None:
    """Nobody listens."""


def _prepared(plan: Plan, peers: Peers) -> RunFolder:
    return RunFolder.prepare(
        plan.request.out,
        plan.config(),
        plan.inputs(),
        plan.chunks,
        sources=plan.sources(),
        resume=plan.request.resume or peers.joined,
        overwrite=plan.request.overwrite,
        shared=peers.count > 1,
    )


class Share:
    """One process's part of a run: which units, what became of them, and what that took."""

    def __init__(self, plan: Plan, folder: RunFolder, peers: Peers, progress: Listener):
        self.plan, self.folder, self.peers, self.progress = plan, folder, peers, progress
        self.seconds: dict[str, float] = dict.fromkeys(PARTS, 0.0)
        coupled = plan.request.couple_z is not None
        self.units = folder.share(peers.index, peers.count, whole=coupled)
        self.done = 0

    def run(self, began: float) -> dict[str, Any] | None:
        """Compute, commit and, if nothing is left, conclude; the folder is locked meanwhile."""
        folder, peers = self.folder, self.peers
        try:
            with folder.lock(peers.index, peers.count):
                if self.plan.request.resume and peers.index == 1:
                    folder.sweep()
                self.start(time.perf_counter() - began)
                self.work()
                return peers.last(self.conclude)
        except (Interrupted, KeyboardInterrupt):
            left = f"{len(folder.missing())} of {len(folder.units)} units are left"
            self.tell("left", f"interrupted: {left}; the same command with --resume goes on")
            raise

    def start(self, opening: float) -> None:
        """Count what an earlier run left, and say what is to do."""
        self.seconds["opening"] = opening
        self.done = len(self.units) - len(self.folder.missing(self.units))
        plan, (i, n) = self.plan, (self.peers.index, self.peers.count)
        part = f", part {i} of {n}" if n > 1 else ""
        self.tell(
            "note",
            f"{len(plan.tasks)} scan(s), {len(self.folder.units)} units{part}; prior "
            f"{plan.prior_name}, {plan.request.samples} samples, on {plan.device}",
        )

    def tell(self, kind: str, text: str = "") -> None:
        self.progress(Event(kind, self.done, len(self.units), text))

    def work(self) -> None:
        """Compute and commit what is missing; what is refused at once leaves no run."""
        for batch in batches(self.plan, self.folder.missing(self.units)):
            try:
                for result in compute(self.plan, batch):
                    self.commit(result)
            except (BadInput, PartialFailure) as error:
                self.failed(batch, error)
            except ValueError:
                self.withdraw()
                raise
            for _ in batch:
                self.done += 1
                self.tell("unit")

    def commit(self, result: UnitResult) -> None:
        for note in result.notes:
            self.tell("note", note)
        began = time.perf_counter()
        self.folder.save(result.unit, result.arrays, result.facts)
        for part, seconds in result.seconds.items():
            self.seconds[part] += seconds
        self.seconds["writing"] += time.perf_counter() - began

    def failed(self, batch: list[Unit], error: Exception) -> None:
        """Record the failure and go on, where that is asked for; else raise it."""
        if not self.plan.request.keep_going:
            if isinstance(error, BadInput):
                self.withdraw()
            raise error
        for unit in self.folder.missing(batch):
            self.folder.fail(unit, printable(error))
        self.tell("note", f"failed: {printable(error)}")

    def withdraw(self) -> None:
        """Take back a run that came to nothing, unless it is shared or an earlier one's."""
        if self.peers.count == 1 and not self.plan.request.resume:
            self.folder.withdraw()

    def conclude(self) -> dict[str, Any] | None:
        """Put the volumes together if every unit is there, or has failed in some process."""
        failed = self.folder.failures()
        left = [unit for unit in self.folder.missing() if unit not in failed]
        if left and failed:
            others = f"{len(left)} are left to other shards"
            raise PartialFailure(f"{len(failed)} units failed, {others}")
        if left:
            others = f"{len(left)} units are left to other shards"
            self.tell("left", f"{others}; the last one writes the volumes")
            return None
        with locked(self.plan.request.out, "volumes"):
            began = time.perf_counter()
            summary = publish(self.plan, self.folder, failed)
            self.seconds["writing"] += time.perf_counter() - began
        summary["seconds"] = {part: round(value, 3) for part, value in self.seconds.items()}
        summary["peak_memory_bytes"] = peak_memory()
        return summary


class Peers:
    """The processes that share a run: --shard i/n, or the ranks that torchrun started.

    first(f): f() in one process before the others; last(f): f() in one process once all units of
    the others are committed.
    """

    def __init__(self, request: Request):
        self.index, self.count = request.part
        self.local_size, self.joined = 1, False
        self.torchrun = "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ["WORLD_SIZE"]) > 1
        if self.torchrun:
            if self.count > 1:
                raise BadRequest("--shard and torchrun both share out the work; use one of them")
            self._join()

    def _join(self) -> None:
        from datetime import timedelta

        import torch.distributed as dist

        # Waiting for a slow neighbour is no error; a dead one is torchrun's to notice.
        dist.init_process_group("gloo", timeout=timedelta(days=30))
        self.index, self.count = dist.get_rank() + 1, dist.get_world_size()
        self.local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        self.joined = dist.get_rank() > 0

    def first(self, work: Callable[[], Any]) -> Any:
        if not self.torchrun:
            return work()
        import torch.distributed as dist

        if self.index == 1:
            done = work()
            dist.barrier()
            return done
        dist.barrier()
        return work()

    def last(self, work: Callable[[], Any]) -> Any:
        if not self.torchrun:
            return work()
        import torch.distributed as dist

        dist.barrier()
        return work() if self.index == 1 else None
