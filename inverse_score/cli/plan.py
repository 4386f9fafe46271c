"""What a run will do, decided before any of it is done: scans, patterns, prior, units, cost."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadInput, BadPrior
from .request import CHANNELS, Request

if TYPE_CHECKING:
    import torch

    from recipes.scans import ScanRecipe

    from ..prior import Prior
    from .own_operator import Factory

# Samples of one work unit. Part of a run's identity, like the seed: never chosen by memory.
CHUNK = 4


@dataclass
class Task:
    """One scan of a run."""

    recipe: ScanRecipe
    name: str
    sha256: str
    slices: range


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
        import torch

        from .. import __version__
        from ..networks.precision import InBfloat16

        r = self.request
        keys = ("operator", "acc", "samples", "method", "steps", "baseline", "noise_std",
                "withheld", "maps", "metal", "patch", "overlap", "couple_z", "seed", "nan", "key",
                "axes", "keep_samples", "options")  # fmt: skip
        return {
            **{key: getattr(r, key) for key in keys},
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
    from ..device import choose_device
    from ..io.commits import sha256_file
    from ..io.priors import find_prior, load_prior
    from ..io.results import unique_names
    from ..patches import in_patches
    from .inputs import expand
    from .own_operator import own_factory

    device = choose_device(request.device)
    factory = None
    if request.custom:
        factory = own_factory(request.operator)
    recipes = [_recipe(path, request, factory) for path in expand(request.scans)]
    hashes = [recipe.scan.sha256() for recipe in recipes]
    stems = [f"scan-{h[:12]}" if request.hash_names else _stem(r.scan.name)
             for r, h in zip(recipes, hashes, strict=True)]  # fmt: skip
    tasks = [
        Task(recipe, name, sha, _slices(request.slices, recipe.scan))
        for recipe, name, sha in zip(recipes, unique_names(stems, hashes), hashes, strict=True)
    ]
    source = request.prior or default_prior(request.operator)
    quick = _quick(load_prior(source, device), device)
    prior = in_patches(quick, request.patch, request.overlap)
    path = find_prior(source)
    for task in tasks:
        check_fit(prior, task.recipe, path.stem)
        if request.withheld and task.recipe.lines is None:
            raise ValueError("--withheld needs lines or views to withhold: --operator mri or ct")
        if request.couple_z is not None and len(task.slices) < 2:
            raise BadInput(f"{task.recipe.scan.name}: --couple-z needs two slices; it has 1")
    # "accurate" costs some twenty times as much and gains little on images: on request.
    budget = request.budget or "fast"
    source_sha = None if factory is None else factory.sha256
    return Plan(request, tasks, prior, path.stem, sha256_file(path), device, budget, source_sha)


def _quick(prior: Prior, device: Any) -> Prior:
    """The prior with its U-Net in bfloat16 where this processor has it in hardware."""
    from ..networks.precision import InBfloat16, has_quick_bfloat16
    from ..networks.unet import UNet

    if isinstance(prior.network, UNet) and has_quick_bfloat16(device):
        prior.network = InBfloat16(prior.network)
    return prior


def default_prior(operator: str) -> str:
    """The shipped prior of this operator: by its card's domain, then by its channels."""
    from ..io.priors import read_header, shipped_priors

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
    import torch

    event = (plan.samples_of(0), plan.tasks[0].recipe.channels, *shape)
    x = torch.zeros(event, device=plan.device)
    t = 0.5 * plan.prior.sde.T
    with torch.inference_mode():
        for _ in range(2):
            began = time.perf_counter()
            plan.prior.denoise(x, t).sum().item()
    return time.perf_counter() - began


def _recipe(path: Path, request: Request, factory: Factory | None) -> ScanRecipe:
    from recipes.custom_scan import CustomScan, open_measurements
    from recipes.scans import CTScan, MRIScan

    from ..io.exports import check_exports
    from .inputs import open_scan, read_mask

    mask: Any = request.mask
    if mask is not None and Path(mask).exists():
        mask = read_mask(Path(mask))
    options = {key: getattr(request, key) for key in ("noise_std", "maps", "metal")}
    options = {key: value for key, value in options.items() if value is not None}
    options |= {"acc": request.acc, "mask": mask, "seed": request.seed}
    if factory is not None:
        operator = factory(path)
        scan = open_measurements(path, operator, request.key, request.nan)
        recipe: ScanRecipe = CustomScan(scan, operator=operator, **options)
    else:
        scan = open_scan(path, request)
        recipe = (MRIScan if request.operator == "mri" else CTScan)(scan, **options)
    check_exports(scan, request.format_out, request.allow_no_geometry)
    return recipe


def _stem(name: str) -> str:
    for suffix in (".nii.gz", ".h5", ".hdf5"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return Path(name).stem or name


def _slices(text: str | None, scan: Any) -> range:
    """range of "5" or "3:9" (first, stop), of all slices for None."""
    if text is None:
        return range(len(scan))
    first, colon, stop = text.partition(":")
    try:
        start = int(first or 0)
        end = int(stop) if stop else (len(scan) if colon else start + 1)
    except ValueError:
        raise ValueError(f"--slices must be N or FIRST:STOP; got {text!r}") from None
    if not 0 <= start < end <= len(scan):
        raise BadInput(f"{scan.name} has slices 0 to {len(scan) - 1}; got --slices {text}")
    return range(start, end)
