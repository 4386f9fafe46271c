"""The recipes measured: photographs, digits of a class, volumes, coil maps, large images.

`python tests/studies/image_recipes.py [--data DIR] [--only PART ...] [--save]`, some eight
minutes of one core. DIR holds what `inverse-score prepare digits` and `prepare body-ct` wrote, in
folders of these names; without it digits and volumes are left out. Priors run in bfloat16 where
the processor has it, as `reconstruct` runs them.
"""

from __future__ import annotations

import argparse
import platform
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

import classes
import coil_maps
import large_images
import photos
import volumes
from inverse_score import load_prior
from inverse_score.networks.precision import InBfloat16, has_quick_bfloat16
from inverse_score.prior import Prior
from recipes.benchmarks.tables import markdown

RESULTS = Path(__file__).parent / "results" / "image_recipes.md"


def quick_prior(name: str) -> Prior:
    """The shipped prior as the command line runs it."""
    prior = load_prior(name)
    if has_quick_bfloat16("cpu"):
        prior.network = InBfloat16(prior.network)
    return prior


def photographs(data: Path | None) -> list[str]:
    size, count, samples, budget = 48, 4, 3, 90
    lines = photos.table(
        quick_prior("photo-patches"), size=size, count=count, samples=samples, budget=budget
    )
    return [
        "## Photographs",
        "",
        f"{count} held-out photographs of {size} x {size} (scikit-image), {samples} samples, "
        f"{budget} forward-equivalents (nfe + 2 vjps) each, data exact; DPS is told half "
        "a step of 8 bits of noise. Mean over photographs; spread: RMS std of the samples where "
        "the data leave the pixel open; chroma: of the samples, over the truth's; off the data: "
        "RMS of A x - y.",
        "",
        markdown(lines),
    ]


def digits(data: Path | None) -> list[str]:
    if data is None:
        return []
    samples, steps = 10, 35
    lines, accuracy = classes.table(
        quick_prior("digits"), data / "digits", samples=samples, steps=steps, training=1500
    )
    return [
        "## Digits of a class",
        "",
        f"{samples} samples of each of ten classes, {steps} steps, read by a classifier that was "
        f"trained apart on clean digits and is right for {accuracy:.1%} of 2000 held-out ones. "
        "Distance: RMS per pixel between two samples of a class.",
        "",
        markdown(lines),
    ]


def coupling(data: Path | None) -> list[str]:
    if data is None:
        return []
    views, steps = 16, 20
    lines = volumes.table(quick_prior("body-ct"), data / "body-ct", views=views, steps=steps)
    return [
        "## Volumes",
        "",
        f"Fan-beam CT, {views} views, 10^5 photons a ray, simulated on a finer grid; one sample by "
        f"dds in {steps} steps. PSNR (range {volumes.HU_RANGE:.0f} HU) is the mean over the cuts "
        "of each direction. The strength along z is the mean difference of neighbouring slices of "
        "another patient.",
        "",
        markdown(lines),
    ]


def maps(data: Path | None) -> list[str]:
    size, coils = 192, 8
    return [
        "## Coil maps",
        "",
        f"A head of {size} x {size} simulated with {coils} coils at 4 times the speed, noise 0.5 % "
        "of the largest magnitude. Error: sine of the angle between estimated and true maps, as "
        "vectors over coils, in the body (blind to phase and size, which no estimate can know). "
        "Nothing is cropped.",
        "",
        markdown(coil_maps.table(size=size, coils=coils, repeats=3)),
    ]


def memory(data: Path | None) -> list[str]:
    return [
        "## Memory",
        "",
        "Inpainting one photograph with the photograph prior in float32 on the CPU, each row a "
        "process of its own; memory before is the interpreter, torch and the prior.",
        "",
        markdown(large_images.table(1024)),
    ]


PARTS: dict[str, Callable[[Path | None], list[str]]] = {
    "photos": photographs,
    "digits": digits,
    "volumes": coupling,
    "maps": maps,
    "memory": memory,
}


HEADER = """# Recipes

Printed by `python tests/studies/image_recipes.py --data DIR [--only PART ...] --save`; each
part says where it ran.
"""


def report(names: list[str], data: Path | None) -> dict[str, str]:
    """Heading -> text of these parts, each with the machine and the minutes that it took."""
    warnings.filterwarnings("ignore", message="sampling should end")
    parts: dict[str, str] = {}
    for name in names:
        began = time.perf_counter()
        lines = PARTS[name](data)
        if lines:
            minutes = (time.perf_counter() - began) / 60
            ran = f"{torch.get_num_threads()} thread, torch {torch.__version__}, "
            ran += f"{platform.machine()}, {minutes:.0f} minutes."
            parts |= sections("\n".join([*lines, "", ran]))
    return parts


def sections(page: str) -> dict[str, str]:
    """Heading -> text below it, of every `## ` section of a page."""
    parts = ("\n" + page).split("\n## ")[1:]
    return {head: text.strip() for head, _, text in (part.partition("\n") for part in parts)}


def page_of(parts: dict[str, str]) -> str:
    return "\n".join([HEADER, *(f"## {head}\n\n{text}\n" for head, text in parts.items())])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the folders digits and body-ct")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--save", action="store_true", help=f"into results/{RESULTS.name}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = report(arguments.only, arguments.data)
    print(page_of(found))
    if arguments.save:
        # Parts that did not run stay as they were.
        kept = sections(RESULTS.read_text()) if RESULTS.exists() else {}
        RESULTS.write_text(page_of({**kept, **found}))


if __name__ == "__main__":
    main()
