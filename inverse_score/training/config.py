"""What a training run is: nested frozen dataclasses, one for each section of its YAML file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..errors import BadInput
from ..io.config import build, load_yaml, override
from ..losses import (
    ClassifierLoss,
    DenoisingLoss,
    DiscreteLoss,
    Levels,
    SlicedLoss,
    Times,
    Weighting,
)

Loss = DenoisingLoss | DiscreteLoss | SlicedLoss | ClassifierLoss


@dataclass(frozen=True)
class DataConfig:
    """Where images come from and what is done to each.

    path: a folder or file. held_out: share of files (or patients, where files name them) that is
    never trained on; held_out_path: a folder of its own instead. crop: random (height, width) in
    training, centred when held out. flip: mirror left-right at random. channels: of the images, 1
    or 3 for pictures. range: (scale, offset), data = scale * u + offset; the format's own rule by
    default. key: the array of an npz that holds the images. labels, for a classifier: the array
    that holds integers, or "folders" for the names of the pictures' folders in alphabetical order.
    workers: processes that read ahead. format "prepared": a folder that `inverse-score prepare`
    filled, whose images the command line cuts as the shipped prior's recipe does.
    """

    path: str | None = None
    format: Literal["auto", "pictures", "npz", "fastmri", "dicom", "nifti", "prepared"] = "auto"
    held_out: float = 0.1
    held_out_path: str | None = None
    crop: tuple[int, int] | None = None
    resize: tuple[int, int] | None = None
    flip: bool = False
    channels: int | None = None
    range: tuple[float, float] | None = None
    key: str | None = None
    labels: str | None = None
    workers: int = 0

    def __post_init__(self) -> None:
        _within("held_out", self.held_out, 0.0, 0.9)
        _at_least("workers", self.workers, 0)
        for name, value in (("crop", self.crop), ("resize", self.resize)):
            if value is not None and min(value) < 1:
                raise ValueError(f"{name} must be (height, width) of at least 1; got {value}")


@dataclass(frozen=True)
class LossConfig:
    """Which objective. times and weighting as in losses.Levels and losses.DenoisingLoss; the
    default is Karras et al. 2022, with sigma_data measured on the images where it is null.
    """

    name: Literal["denoising", "smld", "ddpm", "sliced", "classifier"] = "denoising"
    times: Times = "log-normal"
    weighting: Weighting = "karras"
    mean: float = -1.2
    std: float = 1.2
    sigma_data: float | None = None
    levels: int = 1000
    probes: int = 1

    def __post_init__(self) -> None:
        _positive("std", self.std)
        _at_least("probes", self.probes, 1)

    def build(self, sigma_data: float) -> Loss:
        """The loss itself; mean is relative to sigma_data, as ln(r / sigma_data) ~ N(mean, std^2).

        Karras et al.'s -1.2 is for sigma_data 0.5: -1.2 - ln 0.5 = -0.5 relative to the data.
        """
        levels = Levels(self.times, self.mean + math.log(sigma_data / 0.5), self.std)
        if self.name == "classifier":
            return ClassifierLoss(levels)
        if self.name == "sliced":
            return SlicedLoss(levels, self.probes)
        if self.name in ("smld", "ddpm"):
            return DiscreteLoss(self.name, self.levels)  # type: ignore[arg-type]
        return DenoisingLoss(levels, self.weighting, sigma_data)


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW. warmup: steps in which lr grows linearly to its value; decay: what it does after.

    "cosine" falls to final_lr * lr at the last step; "inverse-sqrt" as sqrt(warmup / step). clip:
    largest norm of the gradient. ema: decay of the weights' moving average, which starts as
    (1 + n) / (10 + n) and never exceeds it.
    """

    lr: float = 2e-4
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-8
    weight_decay: float = 0.0
    warmup: int = 200
    decay: Literal["constant", "cosine", "inverse-sqrt"] = "constant"
    final_lr: float = 0.0
    clip: float = 1.0
    ema: float = 0.999

    def __post_init__(self) -> None:
        _positive("lr", self.lr)
        _positive("eps", self.eps)
        _positive("clip", self.clip)
        _at_least("warmup", self.warmup, 0)
        _within("ema", self.ema, 0.0, 1.0)
        for beta in self.betas:
            _within("betas", beta, 0.0, 1.0)

    def lr_at(self, step: int, steps: int) -> float:
        """The learning rate of step (from 0) of a run of `steps`."""
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        if self.decay == "cosine":
            through = min(1.0, max(0.0, (step - self.warmup) / max(1, steps - self.warmup)))
            cosine = 0.5 * (1 + math.cos(math.pi * through))
            return self.lr * warm * (self.final_lr + (1 - self.final_lr) * cosine)
        if self.decay == "inverse-sqrt" and step >= self.warmup > 0:
            return self.lr * math.sqrt(self.warmup / (step + 1))
        return self.lr * warm


@dataclass(frozen=True)
class LoopConfig:
    """How long, how much at once, on what, and how often it reports.

    batch_size counts items a step over all processes; accumulate splits it into that many passes.
    minutes: stop after so long, with a checkpoint (resume goes on). checkpoint_minutes: between
    checkpoints. precision "bfloat16" is autocast of the network alone,
    and "auto" is that where the hardware computes it. log_every, evaluate_every
    and sample_every are in steps; 0 is never.
    """

    steps: int = 20000
    batch_size: int = 16
    accumulate: int = 1
    minutes: float | None = None
    checkpoint_minutes: float = 10.0
    log_every: int = 50
    evaluate_every: int = 1000
    evaluate_items: int = 64
    sample_every: int = 0
    samples: int = 16
    sample_steps: int = 35
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    channels_last: bool = False
    compile: bool = False
    device: str = "auto"
    threads: int | None = None
    nice: int = 0
    measure: bool = True

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "evaluate_items"):
            _at_least(name, getattr(self, name), 1)
        for name in ("log_every", "evaluate_every", "sample_every", "samples", "nice"):
            _at_least(name, getattr(self, name), 0)
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size must be a multiple of accumulate; got {self.batch_size} and "
                f"{self.accumulate}"
            )


# What a resumed run may set anew, because the weights after a given step do not depend on it.
FREE = {
    "out", "card", "data.workers", "train.minutes", "train.checkpoint_minutes", "train.log_every",
    "train.evaluate_every", "train.evaluate_items", "train.sample_every", "train.samples",
    "train.sample_steps", "train.device", "train.threads", "train.nice", "train.measure",
    "train.steps", "train.compile",
}  # fmt: skip


@dataclass(frozen=True)
class TrainConfig:
    """One training run. `network` and `sde` are {"name": ..., **constructor arguments}.

    Where they are left out, `sigma_max` of a "ve" or "karras" SDE is the largest distance between
    two training images per pixel times the root of the number of pixels (Song & Ermon 2020,
    technique 1), a network's `channels` and `sigma_data` are the images', and its `sde` this one.
    output: what the network returns; by default its class's attribute `output`, else "x0" for the
    U-Net and "score" for others. t_min: smallest time trained at.
    """

    out: str = "run"
    data: DataConfig = field(default_factory=DataConfig)
    network: dict[str, Any] = field(default_factory=lambda: {"name": "unet"})
    sde: dict[str, Any] = field(default_factory=lambda: {"name": "karras"})
    output: Literal["score", "eps", "x0", "v"] | None = None
    t_min: float | None = None
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: LoopConfig = field(default_factory=LoopConfig)
    seed: int = 0
    init_from: str | None = None
    card: dict[str, Any] = field(default_factory=dict)


def load_config(path: str | Path, assignments: tuple[str, ...] | list[str] = ()) -> TrainConfig:
    """The run that a YAML file describes, after `key.key=value` assignments."""
    return as_config(override(load_yaml(path), assignments))


def as_config(config: TrainConfig | Mapping[str, Any] | str | Path) -> TrainConfig:
    """A TrainConfig from itself, a mapping, or the path of a YAML file."""
    if isinstance(config, TrainConfig):
        return config
    if isinstance(config, (str, Path)):
        return load_config(config)
    return build(TrainConfig, config)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], where: str = "") -> list[str]:
    """Dotted keys at which two mappings differ, apart from those in FREE."""
    found: list[str] = []
    for key in sorted(old.keys() | new.keys()):
        path = f"{where}.{key}" if where else key
        a, b = old.get(key), new.get(key)
        if path in FREE:
            continue
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, path)
        elif a != b:
            found.append(f"{path} ({a!r} before, {b!r} now)")
    return found


def _positive(name: str, value: float) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise BadInput(f"{name} must be positive and finite; got {value}")


def _at_least(name: str, value: float, least: float) -> None:
    if value < least:
        raise BadInput(f"{name} must be at least {least}; got {value}")


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise BadInput(f"{name} must lie in [{low}, {high}]; got {value}")
