"""The training loop: losses, moving average, checkpoints, exact resume, log."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..device import choose_device
from ..errors import BadInput
from ..io.config import dump_yaml, to_mapping
from ..io.priors import read_header, save_classifier, save_prior
from ..io.runs.atomic import write_text
from ..networks.precision import has_quick_bfloat16
from ..prior import Prior
from ..randomness import Noise
from .config import TrainConfig, as_config, differences
from .evaluate import evaluate, item_losses
from .items import Augment, Items, batches, positions
from .log import Log, Progress, read_log
from .measure import measure, stack, suggest
from .plots import image_grid, level_chart, loss_chart, write_png
from .setup import TrainingPlan, initialised, make_plan
from .state import CHECKPOINT, EMA, load_checkpoint, read_progress, save_checkpoint
from .workers import Workers, join

PRIOR, CLASSIFIER, CONFIG = "prior.safetensors", "classifier.safetensors", "config.yaml"


def train(
    config: TrainConfig | Mapping[str, Any] | str | Path,
    *,
    dataset: Any = None,
    held_out: Any = None,
    network: nn.Module | None = None,
    augment: Augment | None = None,
    resume: bool | Literal["auto"] = False,
    callback: Callable[[int, float], None] | None = None,
    kspace_images: Callable[[Any], Any] | None = None,
) -> Prior:
    """Train a prior and return it; its file is `out`/prior.safetensors.

    config: a TrainConfig, the same as a mapping, or a YAML file's path. dataset: images (C, H, W)
    by [index] with a len(), or a callable (seed, position) -> image, each a pure function of its
    arguments; by default what config.data describes. held_out: a map-style dataset that the
    held-out loss is measured on. Images are in data units, u = (image - offset) / scale.
    network: any torch.nn.Module of (x, t), in place of config.network; config.output says what it
    returns. augment(image, rng) acts on images in the prior's units. resume: True continues
    `out`'s checkpoint, "auto" only where there is one. callback(step, loss) after each log entry.

    Resuming is exact: the images, their order, cuts and noise, and any dropout are functions of
    the seed and the step. SIGINT and SIGTERM finish the step, save, and leave by
    KeyboardInterrupt or exit code 143. kspace_images: as in sources.list_images.
    """
    config = _settled(as_config(config))
    if dataset is None:
        from ..data import from_config

        dataset, held_out, config = from_config(config, kspace_images=kspace_images)
    range_ = config.data.range or (1.0, 0.0)
    data = config.data
    items = Items(
        dataset, config.seed, range=range_, crop=data.crop, flip=data.flip, augment=augment
    )
    unseen = None
    if held_out is not None:
        unseen = Items(held_out, config.seed, range=range_, crop=data.crop, shuffle=False)
    with ExitStack() as stack:
        stack.enter_context(_process(config))
        loop = config.train
        workers = stack.enter_context(join(loop.device, loop.batch_size, loop.accumulate))
        run = Run(config, items, unseen, network, workers, resume)
        return run.go(stack.enter_context(_stopping()), callback)


class Run:
    """One run between two ends of the process; what survives is in the folder `out`."""

    def __init__(
        self,
        config: TrainConfig,
        items: Items,
        held_out: Items | None,
        network: nn.Module | None,
        workers: Workers,
        resume: bool | Literal["auto"],
    ):
        self.config, self.items, self.held_out, self.workers = config, items, held_out, workers
        self.folder = Path(config.out)
        self.skipped: dict[str, int] = {}
        self.last: dict[str, float] = {}
        going_on = _going_on(self.folder, resume)
        if going_on:
            progress = read_progress(self.folder)
            _check_same(progress["config"], to_mapping(config))
            self.plan, self.step = TrainingPlan(**progress["plan"]), int(progress["step"])
            self.losses: list[float] = list(progress["losses"])
            network = network or initialised(self.plan.architecture, config.seed)
        else:
            self.plan, network = make_plan(config, items, network)
            self.step, self.losses = 0, []
        self._place(network)
        if going_on:
            load_checkpoint(self.folder, self.network, self.ema, self.optimizer)

    def _place(self, network: nn.Module) -> None:
        loop, optimizer = self.config.train, self.config.optimizer
        self.network = network.to(self.workers.device).train()
        if loop.channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = EMA(self.network, optimizer.ema)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=optimizer.lr,
            betas=optimizer.betas,
            eps=optimizer.eps,
            weight_decay=optimizer.weight_decay,
            fused=self.workers.device.type != "mps",
        )
        trained = torch.compile(self.network) if loop.compile else self.network
        self.parallel = self.workers.wrap(trained)  # type: ignore[arg-type]
        self.classifies = self.config.loss.name == "classifier"
        self.loss = self.config.loss.build(self.config.loss.sigma_data or self.plan.sigma_data)
        self.trained, self.averaged = (
            self.plan.prior(self.parallel),
            self.plan.prior(self.ema.network),
        )

    def go(self, stopped: Callable[[], int], callback: Any) -> Prior:
        loop = self.config.train
        if self.workers.first:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(self.folder / CONFIG, dump_yaml(self.config))
            self.log = Log(self.folder, self.step)
            self.progress = Progress(loop.steps, self.step)
            self._skip(getattr(self.items.source, "complaints", ()))
        began = saved = time.monotonic()
        for images, labels, complaints in self._batches():
            loss = self.update(images, labels)
            self.step += 1
            self._report(loss, complaints, callback)
            now = time.monotonic()
            late = loop.minutes is not None and now - began > 60 * loop.minutes
            if self._agree(bool(stopped()) or late):
                self._save()
                return self._leave(stopped())
            if now - saved > 60 * loop.checkpoint_minutes:
                self._save()
                saved = now
        self._save()
        return self._finish()

    def _batches(self) -> Iterator[tuple[Tensor, Tensor, list[str]]]:
        loop, workers = self.config.train, self.workers
        loader = batches(
            self.items,
            self.step,
            loop.steps,
            loop.batch_size,
            rank=workers.rank,
            world=workers.world,
            workers=self.config.data.workers,
        )
        for images, labels, complaints in loader:
            images = images.to(workers.device, non_blocking=True)
            if loop.channels_last and images.ndim == 4:
                images = images.contiguous(memory_format=torch.channels_last)
            yield images, labels.to(workers.device, non_blocking=True), complaints

    def update(self, images: Tensor, labels: Tensor) -> Tensor:
        """One step of AdamW on the mean loss of the global batch, which is returned."""
        config, world = self.config, self.workers.world
        lr = config.optimizer.lr_at(self.step, config.train.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        # Dropout, the one user of torch's own generator, depends on the step and not on the past.
        torch.manual_seed((config.seed * 1_000_003 + self.step) * world + self.workers.rank)
        numbers = positions(self.step, config.train.batch_size, self.workers.rank, world)
        total = torch.zeros((), device=self.workers.device)
        parts = config.train.accumulate
        for part in range(parts):
            size = len(images) // parts
            rows = slice(part * size, (part + 1) * size)
            last = part == parts - 1
            with nullcontext() if last or world == 1 else self.parallel.no_sync():  # type: ignore[operator]
                noise = Noise(config.seed, numbers[rows])
                with self._precision():
                    each = item_losses(self.loss, self.trained, images[rows], labels[rows], noise)
                loss = each.mean() / parts
                loss.backward()
            total += loss.detach()
        return self._descend(total)

    def _descend(self, loss: Tensor) -> Tensor:
        clip = self.config.optimizer.clip
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), clip)
        # A sum, because one value is one wait for the device.
        if not math.isfinite((norm + loss).item()):
            raise BadInput(
                f"step {self.step + 1}: the loss or its gradient is not finite (loss "
                f"{loss.item()}, gradient {norm.item()}); the checkpoint before it is kept. Lower "
                "optimizer.lr, or look at the data's range"
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update(self.network, self.step)
        return loss

    def _precision(self) -> Any:
        if self.config.train.precision == "float32":
            return nullcontext()
        return torch.autocast(self.workers.device.type, dtype=torch.bfloat16)

    def _report(self, loss: Tensor, complaints: list[str], callback: Any) -> None:
        """Log, progress, evaluation and pictures, each when it is due."""
        loop, step = self.config.train, self.step
        due = loop.log_every and (step % loop.log_every == 0 or step == loop.steps)
        self.losses.append(loss.item())
        value = self._mean_loss() if due else None
        if not self.workers.first:
            return
        self._skip(complaints)
        self.progress.step(step, loss.item() if value is None else value, loop.batch_size)
        if value is not None:
            lr = self.optimizer.param_groups[0]["lr"]
            self.log.write(step=step, loss=value, lr=lr, time=round(time.time(), 1))
            if callback is not None:
                callback(step, value)
        if loop.evaluate_every and (step % loop.evaluate_every == 0 or step == loop.steps):
            self._evaluate()
        if loop.sample_every and step % loop.sample_every == 0 and step < loop.steps:
            self._draw_samples(self.folder / f"samples-{step:07d}.png")

    def _skip(self, complaints: Iterable[str]) -> None:
        """Name each image or file that cannot be read, once."""
        for complaint in complaints:
            if complaint not in self.skipped:
                self.skipped[complaint] = self.step
                self.progress.note(f"skipped: {complaint}")
                self.log.write(step=self.step, skipped=complaint)

    def _mean_loss(self) -> float:
        """The mean over the steps since the last log entry, and over all processes."""
        mean = torch.tensor(math.fsum(self.losses) / len(self.losses), dtype=torch.float64)
        self.losses.clear()
        return self.workers.mean(mean.float().to(self.workers.device)).item()

    def _evaluate(self) -> None:
        if self.held_out is None:
            return
        with self._precision():
            entry = evaluate(
                self.averaged,
                self.loss,
                self.held_out,
                self.config.train.evaluate_items,
                self.config.train.batch_size,
                self.workers.device,
            )
        self.log.write(step=self.step, **entry)
        self.last = {"held_out_loss": entry["held_out"]}
        self.progress.note(f"step {self.step}  held-out loss {entry['held_out']:.4g}")
        entries = read_log(self.folder)
        write_png(self.folder / "loss.png", loss_chart(entries))
        if not self.classifies:
            write_png(self.folder / "levels.png", level_chart(entries, self.plan.sigma_data))

    def _agree(self, stop: bool) -> bool:
        # All processes must stop at one step; asking at every step would cost time.
        if self.workers.world > 1 and self.step % 8:
            return False
        return self.workers.any(stop)

    def _save(self) -> None:
        if not self.workers.first:
            return
        header = {
            "step": self.step,
            "config": to_mapping(self.config),
            "plan": asdict(self.plan),
            "losses": self.losses,
        }
        save_checkpoint(self.folder, header, self.network, self.ema, self.optimizer)
        self.save_prior({})

    def save_prior(self, measured: Mapping[str, Any]) -> None:
        card = {**self.config.card, "training": self._history(), **measured}
        self.averaged.card = card
        if self.classifies:
            save_classifier(self.averaged, self.folder / CLASSIFIER, self.plan.architecture, card)
        else:
            save_prior(self.averaged, self.folder / PRIOR, self.plan.architecture, card)

    def _history(self) -> dict[str, Any]:
        return {
            "steps": self.step,
            "images_seen": self.step * self.config.train.batch_size,
            "images": self.items.count,
            "held_out_images": 0 if self.held_out is None else self.held_out.count,
            "image_shape": self.plan.image_shape,
            "sigma_data": self.plan.sigma_data,
            "seed": self.config.seed,
            **({"last": self.last} if self.last else {}),
        }

    def _leave(self, number: int) -> Prior:
        if self.workers.first:
            self.progress.note(f"stopped at step {self.step}; resume to go on ({self.folder})")
        self.workers.wait()
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        if number:
            sys.exit(128 + number)
        return self.averaged

    def _finish(self) -> Prior:
        """The trained prior, measured on held-out images; its file and pictures are written."""
        loop = self.config.train
        if self.workers.first and loop.measure and not self.classifies:
            self._draw_samples(self.folder / "samples.png")
            unseen = self.held_out
            kept_out = unseen is not None and unseen.count != 1
            source = self._unvaried() if unseen is None or not kept_out else unseen
            with self._precision():
                measured = measure(
                    self.averaged,
                    stack(source, loop.evaluate_items),
                    held_out=kept_out,
                    batch_size=loop.batch_size,
                )
            advice = suggest(stack(self.items, 512), self.averaged.sde, self.averaged.t_min)
            self.save_prior({**measured, "suggestions": advice})
        if self.workers.first and self.skipped:
            names = "; ".join(list(self.skipped)[:5])
            self.progress.note(f"{len(self.skipped)} files or images could not be read: {names}")
        self.workers.wait()
        return self.averaged

    def _unvaried(self) -> Items:
        """The training images in their own order, neither flipped nor cut at random."""
        items = self.items
        return Items(
            items.source, self.config.seed, range=items.range, crop=items.crop, shuffle=False
        )

    def _draw_samples(self, path: Path) -> None:
        """A grid of samples at the training images' size; nothing for points."""
        from ..sampling import sample

        loop, shape = self.config.train, self.plan.image_shape
        if loop.samples == 0 or len(shape) != 3:
            return
        with self._precision():
            images = sample(self.averaged, (loop.samples, *shape), steps=loop.sample_steps)
        first = self.averaged.to_data(stack(self.items, 16)).double()
        if shape[0] == 2:
            first = first.square().sum(1).sqrt()
        low, high = (torch.quantile(first.flatten()[:1_000_000], q).item() for q in (0.005, 0.995))
        write_png(path, image_grid(images, low, high))


def _settled(config: TrainConfig) -> TrainConfig:
    """config with what this machine and `init_from` decide filled in."""
    data, loop = config.data, config.train
    if config.init_from is not None and data.range is None:
        scale, offset = read_header(config.init_from)["range"]
        data = replace(data, range=(float(scale), float(offset)))
    if loop.precision == "auto":
        quick = has_quick_bfloat16(choose_device(loop.device))
        loop = replace(loop, precision="bfloat16" if quick else "float32")
    return replace(config, data=data, train=loop)


def _going_on(folder: Path, resume: bool | str) -> bool:
    exists = (folder / CHECKPOINT).exists()
    if resume is True and not exists:
        raise BadInput(f"nothing to resume: {folder / CHECKPOINT} does not exist")
    if exists and not resume:
        raise BadInput(
            f"{folder} holds a run already ({CHECKPOINT}); resume it, or choose another out"
        )
    return exists


def _check_same(before: dict[str, Any], now: dict[str, Any]) -> None:
    changed = differences(before, now)
    if changed:
        raise BadInput(f"a resumed run keeps its configuration; changed: {'; '.join(changed[:5])}")


@contextmanager
def _process(config: TrainConfig) -> Iterator[None]:
    """Threads, niceness and torch's generator for the time of the run."""
    threads = torch.get_num_threads()
    if config.train.nice:
        os.nice(config.train.nice)
    with torch.random.fork_rng(devices=[]):
        try:
            if config.train.threads is not None:
                torch.set_num_threads(config.train.threads)
            yield
        finally:
            torch.set_num_threads(threads)


@contextmanager
def _stopping() -> Iterator[Callable[[], int]]:
    """A function that gives the number of the signal that asked to stop, or 0.

    The first signal is noted and its handler removed, so that a second one stops at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    seen: list[int] = []
    old = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: Any) -> None:
        seen.append(number)
        signal.signal(number, old[signal.Signals(number)])

    for number in old:
        signal.signal(number, note)
    try:
        yield lambda: seen[0] if seen else 0
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
