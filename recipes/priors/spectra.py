"""`python -m recipes.priors.spectra NAME DATA`: measure a shipped prior's error spectrum again.

On random training crops (`recipes.priors.datasets`), varied anew, and not on the held-out people,
so that no table of theirs is tuned on them; the card compares the two. The result goes to
inverse_score/assets/error_spectra.json, or into the card where NAME is a prior's file; the weights
stay as they are.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inverse_score.io.priors import ASSETS, SPECTRA, load_prior, update_card
from inverse_score.io.runs.commits import commit_bytes
from inverse_score.networks.precision import InBfloat16, has_quick_bfloat16
from inverse_score.posterior import error_spectrum
from inverse_score.prior import Prior

from . import datasets

SIZE, SEED = 160, 991


def measured(prior: Prior, folder: Path, count: int) -> dict[str, Any]:
    """The error spectrum on `count` training crops, and the held-out slices' error beside it."""
    crops, held = datasets(folder, size=SIZE, seed=SEED)
    spectrum = error_spectrum(prior, torch.stack([crops[i] for i in range(count)]), batch_size=4)
    sigma = spectrum["sigma"][::3]
    strangers = error_spectrum(prior, _spread(held, 6), sigma=sigma, local=False, batch_size=3)
    ratio = [
        float(f"{(a / b) ** 0.5:.3g}")
        for a, b in zip(spectrum["error_mean"][::3], strangers["error_mean"], strict=True)
    ]
    return {**spectrum, "held_out": False, "rms_over_held_out": {"sigma": sigma, "ratio": ratio}}


def _spread(images: Any, count: int) -> Tensor:
    step = max(1, len(images) // count)
    return torch.stack([images[i] for i in range(0, step * count, step)])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("prior", help="a shipped prior's name, or a prior's file")
    parser.add_argument("data", type=Path, help="the folder that `inverse-score prepare` filled")
    parser.add_argument("--images", type=int, default=32)
    chosen = parser.parse_args()
    prior = load_prior(chosen.prior)
    if isinstance(prior.network, nn.Module) and has_quick_bfloat16(prior.device):
        prior.network = InBfloat16(prior.network)
    spectrum = measured(prior, chosen.data, chosen.images)
    if Path(chosen.prior).is_file():
        update_card(chosen.prior, {"error_spectrum": spectrum})
    else:
        _ship(chosen.prior, spectrum)
    ratio = spectrum["rms_over_held_out"]["ratio"]
    print(f"{chosen.prior}, {chosen.images} crops; rms error over the held-out's: {ratio}")


def _ship(name: str, spectrum: dict[str, Any]) -> None:
    path = ASSETS / SPECTRA
    known = json.loads(path.read_text(encoding="utf-8"))
    # Chosen by tests/studies/walk_calibration.py, not measured here.
    chosen = {key: known[name][key] for key in ("unseen", "eta") if key in known.get(name, {})}
    known[name] = {**spectrum, **chosen}
    lines = [f"{json.dumps(key)}: {json.dumps(known[key])}" for key in sorted(known)]
    commit_bytes(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())


if __name__ == "__main__":
    main()
