"""What a run will do, decided before any of it is done: scans, patterns, prior, units, cost."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from inverse_score import __version__
from inverse_score.device import choose_device
from inverse_score.errors import BadInput, BadPrior
from inverse_score.io.formats.exports import check_exports
from inverse_score.io.priors import find_prior, load_prior, read_header, shipped_priors
from inverse_score.io.runs.commits import sha256_file
from inverse_score.io.runs.results import unique_names
from inverse_score.networks.precision import InBfloat16, has_quick_bfloat16
from inverse_score.networks.unet import UNet
from inverse_score.patches import in_patches

from ..custom_scan import CustomScan, open_measurements
from ..scans import CTScan, MRIScan, ScanRecipe
from .inputs import Factory, expand, open_scan, own_factory, read_pattern
from .options import CT, MRI, OWN, table
from .request import Request

if TYPE_CHECKING:
    from inverse_score.prior import Prior

    from ..problem import Problem

CHANNELS = {MRI: 2, CT: 1}
# Samples of one work unit. Part of a run's identity, like the seed: never chosen by memory.
CHUNK = 4


@dataclass
class Timed:
    """A scan's reader of slices that adds up its seconds."""

    read: Callable[[int], np.ndarray]
    seconds: float = 0.0

    def __call__(self, k: int) -> np.ndarray:
        began = time.perf_counter()
        try:
            return self.read(k)
        finally:
            self.seconds += time.perf_counter() - began


@dataclass
class Task:
    """One scan of a run."""

    recipe: ScanRecipe
    name: str
    sha256: str
    slices: range

    @property
    def middle(self) -> int:
        """The slice on which the prior's fit is checked."""
        return self.slices[len(self.slices) // 2]


@dataclass
class Plan:
    """Everything that is decided, in the order of the scans."""

    request: Request
    tasks: list[Task]
    prior: Prior
    prior_name: str
    prior_sha256: str
    device: torch.device
    budget: str
    operator_sha256: str | None = None
    # The last slice's problem, whose chunks of samples follow each other.
    _last: tuple[tuple[int, int], Problem] | None = None

    def problem(self, scan: int, k: int) -> Problem:
        """Slice k of a scan, in the prior's units."""
        if self._last is None or self._last[0] != (scan, k):
            self._last = None
            problem = self.tasks[scan].recipe.problem(k, self.prior, self.device)
            self._last = ((scan, k), problem)
        return self._last[1]

    @property
    def chunks(self) -> int:
        return -(-self.request.samples // CHUNK)

    def samples_of(self, chunk: int) -> int:
        return min(CHUNK, self.request.samples - chunk * CHUNK)

    def solving(self) -> dict[str, Any]:
        """Options of `solve` that every unit has in common."""
        r = self.request
        steps = {} if r.steps is None else {"steps": r.steps}
        held = {}
        if r.couple_z is not None:
            held = {"between_slices": r.couple_z / self.prior.range[0]}
        fixed = {"method": r.method, "budget": self.budget, "seed": r.seed}
        return {**fixed, **steps, **held, **r.options}

    def config(self) -> dict[str, Any]:
        """What the result depends on; two runs of one config and input give the same bytes."""
        r = self.request
        as_given = [row.name for row in table().values() if row.result]
        return {
            **{name: getattr(r, name) for name in as_given},
            "options": r.options,
            "mask": hashlib.sha256(b"".join(
                t.recipe.mask.tobytes() for t in self.tasks if t.recipe.mask is not None
            )).hexdigest(),
            "prior": self.prior_sha256,
            "operator_source": self.operator_sha256,
            "budget": self.budget,
            "chunk": CHUNK,
            "device": self.device.type,
            "bfloat16": isinstance(self.prior.network, InBfloat16),
            "threads": torch.get_num_threads(),
            "version": __version__,
            "torch": torch.__version__,
        }  # fmt: skip

    def inputs(self) -> list[dict[str, Any]]:
        return [
            {"name": t.name, "sha256": t.sha256, "slices": [t.slices.start, t.slices.stop]}
            for t in self.tasks
        ]

    def sources(self) -> list[Path]:
        return [path for task in self.tasks for path in task.recipe.scan.files]

    def item(self, scan: int, k: int, chunk: int) -> int:
        """The number that names the noise of a unit: from the scan's content, not its name."""
        text = f"{self.tasks[scan].sha256}/{k}/{chunk}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def make_plan(request: Request) -> Plan:
    """Open the scans, choose pattern and prior, and check that they fit; computes nothing."""
    device = choose_device(request.device)
    factory = own_factory(request.operator) if request.family == OWN else None
    recipes = [_recipe(path, request, factory) for path in expand(request.scans)]
    hashes = [recipe.scan.sha256() for recipe in recipes]
    stems = [f"scan-{h[:12]}" if request.hash_names else _stem(r.scan.name)
             for r, h in zip(recipes, hashes, strict=True)]  # fmt: skip
    tasks = [
        Task(recipe, name, sha, _slices(request, recipe.scan))
        for recipe, name, sha in zip(recipes, unique_names(stems, hashes), hashes, strict=True)
    ]
    source = request.prior or default_prior(request.operator)
    quick = _quick(load_prior(source, device), device)
    prior = quick if request.patch is None else in_patches(quick, request.patch, request.overlap)
    path = find_prior(source)
    for task in tasks:
        check_fit(prior, task.recipe, path.stem)
        if request.couple_z is not None and len(task.slices) < 2:
            raise BadInput(f"{task.recipe.scan.name}: --couple-z needs two slices; it has 1")
    # "accurate" costs some twenty times as much and gains little on images: on request.
    budget = request.budget or "fast"
    source_sha = None if factory is None else factory.sha256
    return Plan(request, tasks, prior, path.stem, sha256_file(path), device, budget, source_sha)


def _quick(prior: Prior, device: Any) -> Prior:
    """The prior with its U-Net in bfloat16 where this processor has it in hardware."""
    if isinstance(prior.network, UNet) and has_quick_bfloat16(device):
        prior.network = InBfloat16(prior.network)
    return prior


def default_prior(operator: str) -> str:
    """The shipped prior of this operator: by its card's domain, then by its channels."""
    if operator not in CHANNELS:
        raise BadPrior(f"no prior ships for --operator {operator}: name one with --prior")
    headers = {name: read_header(name) for name in shipped_priors()}
    fitting = [
        name
        for name, header in headers.items()
        if (header["event_shape"] or [None])[0] == CHANNELS[operator]
        and operator in str(header["card"].get("domain", name)).lower()
    ]
    if not fitting:
        raise BadPrior(
            f"no shipped prior fits --operator {operator} ({', '.join(headers) or 'none ship'}); "
            "name one with --prior"
        )
    return fitting[0]


def check_fit(prior: Prior, recipe: ScanRecipe, name: str) -> None:
    """BadPrior, with the remedy, unless the prior takes this image."""
    event = (recipe.channels, *recipe.shape)
    want = prior.event_shape
    if want is None:
        return
    if want[0] not in (None, recipe.channels):
        what = {1: "real images", 2: "complex images (real and imaginary part)", 3: "colour"}
        raise BadPrior(
            f"prior {name} is of {want[0]} channels, and {recipe.scan.name} needs "
            f"{recipe.channels}: {what.get(recipe.channels, 'others')}"
        )
    if len(want) != len(event) or any(w not in (None, g) for w, g in zip(want, event, strict=True)):
        raise BadPrior(
            f"prior {name} takes images of {tuple(want[1:])} only, and {recipe.scan.name} is "
            f"{recipe.shape}: use a prior of that size, or one of any size (event_shape null)"
        )


def seconds_per_call(plan: Plan, shape: tuple[int, int]) -> float:
    """Seconds of one denoising of a unit's samples, measured."""
    event = (plan.samples_of(0), plan.tasks[0].recipe.channels, *shape)
    x = torch.zeros(event, device=plan.device)
    t = 0.5 * plan.prior.sde.T
    with torch.inference_mode():
        for _ in range(2):
            began = time.perf_counter()
            plan.prior.denoise(x, t).sum().item()
    return time.perf_counter() - began


def _recipe(path: Path, request: Request, factory: Factory | None) -> ScanRecipe:
    mask: Any = request.mask
    if mask is not None and Path(mask).exists():
        mask = read_pattern(Path(mask))
    options = {key: getattr(request, key) for key in ("noise_std", "maps", "metal")}
    options = {key: value for key, value in options.items() if value is not None}
    options |= {"acc": request.acc, "mask": mask, "seed": request.seed}
    if factory is not None:
        operator = factory(path)
        scan = open_measurements(path, operator, request.key, request.nan)
        recipe: ScanRecipe = CustomScan(scan, operator=operator, **options)
    else:
        scan = open_scan(path, request)
        recipe = (MRIScan if request.operator == MRI else CTScan)(scan, **options)
    if request.format_out:
        check_exports(scan, request.format_out, request.allow_no_geometry)
    recipe.scan = replace(scan, read=Timed(scan.read))
    return recipe


def _stem(name: str) -> str:
    for suffix in (".nii.gz", ".h5", ".hdf5"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return Path(name).stem or name


def _slices(request: Request, scan: Any) -> range:
    """The wanted slices; BadInput where the scan has none such."""
    wanted = request.slice_range(len(scan))
    if not (wanted.start < wanted.stop <= len(scan)):
        raise BadInput(
            f"{scan.name} has slices 0 to {len(scan) - 1}; got --slices {request.slices}"
        )
    return wanted
