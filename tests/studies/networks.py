"""Released networks: parity with their released implementations, and speed against score_sde's.

    python tests/studies/networks.py CLONES [--only parity|speed] [--save]

CLONES as in reference_networks. Both tables run both implementations on the same weights and
inputs in one process on one CPU thread; speed takes turns between the two and keeps the best of
--repeats (forward: three times as many), in processor seconds, after one that is not counted. A
training step is the whole of it: loss, gradient, clipping, Adam and the weights' moving average, by
score_sde's losses.get_step_fn and by what `train` runs. bfloat16 is as `reconstruct` and `train`
run it on CPUs with AMX.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib
import platform
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inverse_score.io.checkpoints import PRESETS
from inverse_score.io.checkpoints.layouts import song
from inverse_score.io.checkpoints.parts import assemble
from inverse_score.networks import build_network
from inverse_score.networks.precision import InBfloat16, has_quick_bfloat16
from inverse_score.testing.released import CASES, ReleasedCase
from inverse_score.training.config import as_config
from inverse_score.training.items import Items
from inverse_score.training.loop import Run
from inverse_score.training.workers import join
from reference_networks import Missing, clone, run, score_sde_network

RESULTS = Path(__file__).parent / "results" / "networks.md"
# name: (preset, batch, H = W)
SPEED = {
    "CIFAR-10 (62.8 M), batch 4": ("ve/cifar10_ncsnpp_continuous", 4, 32),
    "256 x 256 (65.6 M), batch 1": ("ve/ffhq_256_ncsnpp_continuous", 1, 256),
}


def parity(clones: Path) -> list[str]:
    """Largest and root-mean-square deviation, relative to the reference's."""
    rows = ["| network | released code | largest deviation / largest output | rms / rms |",
            "|---|---|---|---|"]  # fmt: skip
    for name, case in CASES.items():
        try:
            theirs, _ = run(case, clones)
        except Missing as missing:
            rows.append(f"| {name} | {case.layout} | not run: {missing} | |")
            continue
        gap = case.ours().numpy() - theirs
        largest = np.abs(gap).max() / np.abs(theirs).max()
        rms = np.linalg.norm(gap) / np.linalg.norm(theirs)
        rows.append(f"| {name} | {case.layout} | {largest:.1e} | {rms:.1e} |")
        print(rows[-1], flush=True)
    return rows


def both(preset: str, size: int) -> tuple[nn.Module, nn.Module]:
    """(theirs, ours) with the same weights; theirs as it initialises itself."""
    config = {"channels": 3, "image_size": size, "nf": 128, "ch_mult": (1, 2, 2, 2),
              "num_res_blocks": 4, "attn_resolutions": (16,), **PRESETS[preset].config}  # fmt: skip
    torch.manual_seed(0)
    theirs = score_sde_network(ReleasedCase("score_sde", "ncsnpp", config, (size, size)))
    with torch.no_grad():
        # It starts with last convolutions of 1e-10: outputs of rounding errors.
        for parameter in theirs.parameters():
            if parameter.ndim > 1 and parameter.abs().max() < 1e-6:
                parameter.copy_(torch.randn_like(parameter) / parameter[0].numel() ** 0.5)
    state = {k: v for k, v in theirs.state_dict().items() if k != "sigmas"}
    ours = build_network("ncsnpp", **PRESETS[preset].config)
    ours.load_state_dict(assemble(song(ours), state, "score_sde"))  # type: ignore[arg-type]
    return theirs, ours


def steps(theirs: nn.Module, ours: nn.Module, preset: str, images: Tensor, folder: Path) -> dict:
    """Who: one whole training step as their code takes it and as `train` does.

    Denoising score matching in continuous time, dropout, gradient clipping, Adam with warm-up and
    the weights' moving average, with the numbers of configs/ve/cifar10_ncsnpp_continuous.py.
    """
    found = {"theirs": _their_step(theirs, PRESETS[preset].config["sde"], images)}
    precisions = {"ours": "float32"}
    if has_quick_bfloat16("cpu"):
        precisions["bfloat16"] = "bfloat16"
    for who, precision in precisions.items():
        config = as_config({
            "out": str(folder / who), "sde": PRESETS[preset].config["sde"], "t_min": 1e-5,
            "loss": {"name": "denoising", "times": "uniform", "weighting": "sigma2"},
            "optimizer": {"lr": 2e-4, "warmup": 5000, "clip": 1.0, "ema": 0.999},
            "train": {"batch_size": len(images), "precision": precision, "device": "cpu",
                      "channels_last": precision == "bfloat16"},
        })  # fmt: skip
        with join("cpu", len(images), 1) as workers:
            run = Run(config, Items(images, 0), None, copy.deepcopy(ours), workers, False)
        found[who] = lambda run=run: run.update(images, torch.full((len(images),), -1))
    return found


def _their_step(network: nn.Module, sde: dict[str, Any], images: Tensor) -> Callable[[], Any]:
    losses = importlib.import_module("losses")
    optim = SimpleNamespace(optimizer="Adam", lr=2e-4, beta1=0.9, eps=1e-8, weight_decay=0,
                            warmup=5000, grad_clip=1.0)  # fmt: skip
    config = SimpleNamespace(optim=optim)
    average = importlib.import_module("models.ema").ExponentialMovingAverage
    state = {
        "model": network, "optimizer": losses.get_optimizer(config, network.parameters()),
        "ema": average(network.parameters(), decay=0.999), "step": 0,
    }  # fmt: skip
    step = losses.get_step_fn(
        importlib.import_module("sde_lib").VESDE(sde["sigma_min"], sde["sigma_max"]),
        train=True, optimize_fn=losses.optimization_manager(config), reduce_mean=True,
        continuous=True, likelihood_weighting=False,
    )  # fmt: skip
    return lambda: step(state, images)


def speed(clones: Path, repeats: int, only: str | None = None) -> list[str]:
    """Seconds of a forward pass and of a training step, and the outputs' deviation."""
    rows = ["| NCSN++ | | score_sde_pytorch, s | here, s | times as fast | rms deviation |"
            " bfloat16 here, s | times as fast | rms deviation |",
            "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for name, (preset, batch, size) in SPEED.items():
        if only and only not in name:
            continue
        with clone(clones, "score_sde_pytorch"):
            theirs, ours = both(preset, size)
            x, t = torch.rand(batch, 3, size, size), torch.linspace(0.3, 0.9, batch)
            calls = {"theirs": (theirs, lambda x, t, f=theirs, s=ours: f(x, s.sde.sigma(t))),
                     "ours": (ours, ours)}  # fmt: skip
            if has_quick_bfloat16("cpu"):
                quick = copy.deepcopy(ours).to(memory_format=torch.channels_last)
                calls["bfloat16"] = (quick, InBfloat16(quick))
            rows.append(_row(name, "forward", *_forward(calls, x, t, 3 * repeats)))
            print(rows[-1], flush=True)
            with TemporaryDirectory() as folder:
                turns = steps(theirs, ours, preset, x, Path(folder))
                rows.append(_row(name, "training step", _training(turns, repeats), {}))
            print(rows[-1], flush=True)
    return rows


def _forward(
    calls: dict, x: Tensor, t: Tensor, repeats: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds, and outputs' deviations from theirs."""
    times: dict[str, list[float]] = {who: [] for who in calls}
    outputs: dict[str, Tensor] = {}
    with torch.no_grad():
        for _ in range(repeats + 1):
            for who, (network, call) in calls.items():
                network.eval()
                start = time.process_time()
                outputs[who] = call(x, t)
                times[who].append(time.process_time() - start)
    theirs = outputs["theirs"]
    gaps = {who: float((x - theirs).norm() / theirs.norm()) for who, x in outputs.items()}
    return {who: min(found[1:]) for who, found in times.items()}, gaps


def _training(turns: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    times: dict[str, list[float]] = {who: [] for who in turns}
    for _ in range(repeats + 1):
        for who, step in turns.items():
            start = time.process_time()
            step()
            times[who].append(time.process_time() - start)
    return {who: min(found[1:]) for who, found in times.items()}


def _row(name: str, what: str, seconds: dict[str, float], gaps: dict[str, float]) -> str:
    theirs = seconds["theirs"]
    cells = [name, what, f"{theirs:.2f}"]
    for who in ("ours", "bfloat16"):
        found = seconds.get(who)
        cells += [f"{found:.2f}", f"{theirs / found:.2f}"] if found else ["-", "-"]
        cells.append(f"{gaps[who]:.1e}" if who in gaps else "")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("clones", type=Path)
    parser.add_argument("--only", choices=("parity", "speed"))
    parser.add_argument("--size", help="speed: only the rows whose name holds this")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.name}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sections = {}
    if arguments.only != "speed":
        sections["Parity"] = parity(arguments.clones)
    if arguments.only != "parity":
        title = f"Speed on one thread ({platform.machine()} CPU)"
        sections[title] = speed(arguments.clones, arguments.repeats, arguments.size)
    for title, rows in sections.items():
        print("\n".join([f"## {title}", "", *rows]))
    if arguments.save:
        save(sections)


def save(sections: dict[str, list[str]]) -> None:
    """Put the measured rows into results/networks.md, in the place of their earlier values."""
    RESULTS.parent.mkdir(exist_ok=True)
    tables: dict[str, dict[str, str]] = {}
    with contextlib.suppress(FileNotFoundError):
        for part in RESULTS.read_text().split("\n## ")[1:]:
            title, *lines = part.splitlines()
            tables[title] = {_key(line): line for line in lines if line.startswith("|")}
    for title, rows in sections.items():
        tables.setdefault(title, {}).update({_key(row): row for row in rows})
    parts = ["# Released networks\n\nBy `python tests/studies/networks.py CLONES --save`."]
    parts += ["\n".join([f"## {title}", "", *rows.values()]) for title, rows in tables.items()]
    RESULTS.write_text("\n\n".join(parts) + "\n")


def _key(row: str) -> str:
    """The first two cells, which say what a row is about; of the head, whatever they are."""
    return "|".join(row.split("|")[:3])


if __name__ == "__main__":
    main()
