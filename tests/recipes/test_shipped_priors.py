"""The priors that ship: size, card, what they do to noise on held-out slices, installed wheel."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from inverse_score import load_prior
from inverse_score.io.priors import find_prior, read_header, shipped_priors
from recipes.priors.prepare import load_sources, names

ROOT = Path(__file__).parents[2]
SHIPPED = [name for name in names() if name in shipped_priors()]
EXAMPLES = {"brain-mri": ("head-t1", "head-pd"), "body-ct": ("chest-ct",)}


def example(name: str) -> torch.Tensor:
    """A held-out slice (1, C, 96, 96) in the prior's units."""
    with np.load(ROOT / "examples" / "data" / f"{name}.npz") as file:
        image = torch.from_numpy(file["image"].astype(np.float32))
    if name == "chest-ct":
        middle = torch.nn.functional.avg_pool2d(image[None, None], 2)[..., 80:176, 80:176]
        return (middle + 500) / 1000
    real = (image / image.quantile(0.99))[80:176, 80:176]
    return torch.stack([real, torch.zeros_like(real)])[None]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_prior_is_small_and_says_what_it_was_made_of(name):
    assert find_prior(name).stat().st_size <= 8e6
    card = read_header(name)["card"]
    packages, files = load_sources(name)
    assert {item["name"] for item in card["sources"]} <= {file.name for file in files}
    assert set(card["licences"]) == {package.pinned for package in packages.values()}
    for key in ("title", "domain", "not_for", "augmentation", "training", "held_out_loss"):
        assert card[key], key
    assert card["error_spectrum"]["images"] >= 2


@pytest.mark.parametrize("name", SHIPPED)
def test_no_held_out_file_is_among_what_a_shipped_prior_was_trained_on(name):
    sources = read_header(name)["card"]["sources"]
    trained = {item["name"] for item in sources if item["use"] == "train"}
    _, files = load_sources(name)
    assert trained
    assert trained == {f.name for f in files if f.use == "train"} & {s["name"] for s in sources}
    assert not trained & {file.name for file in files if file.use == "held_out"}


@pytest.mark.parametrize(
    ("prior", "picture"), [(p, e) for p in SHIPPED for e in EXAMPLES.get(p, ())]
)
@pytest.mark.parametrize("s", [0.05, 0.2])
def test_it_removes_most_noise_from_a_slice_of_a_person_it_never_saw(prior, picture, s):
    """Error power at most half of the noise's, on the real part: the imaginary one is zero.

    Below 0.05 the scans' own noise, which counts as truth here, would hide the gain.
    """
    clean, network = example(picture), load_prior(prior)
    noise = s * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        error = (network.denoise(clean + noise, s) - clean)[:, :1]
    assert error.square().mean() < 0.5 * s**2


@pytest.mark.parametrize("name", SHIPPED)
def test_bfloat16_gives_the_estimate_of_float32_within_a_tenth_of_its_error(name):
    prior, s = load_prior(name), 0.05
    shape = [size or 40 for size in prior.event_shape]
    x = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact = prior.denoise(0.3 + s * x, s)
        with torch.autocast("cpu", torch.bfloat16):
            rough = prior.denoise(0.3 + s * x, s)
    assert (rough - exact).square().mean().sqrt() < 0.1 * s


@pytest.mark.slow
def test_priors_load_from_an_installed_wheel(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "-w", str(tmp_path), str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    target = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target)]
    subprocess.run([*install, str(wheel)], check=True)
    code = (
        "import inverse_score, recipes.priors.prepare as p; from inverse_score.io.priors import *;"
        f"assert inverse_score.__file__.startswith({str(target)!r});"
        "print(*shipped_priors()); [load_prior(n) for n in shipped_priors() if n in p.names()]"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env={"PYTHONPATH": str(target)}, cwd=tmp_path,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert set(SHIPPED) <= set(done.stdout.split())


@pytest.mark.parametrize("name", ["body-ct", "brain-mri", "photo-patches"])
def test_a_shipped_spectrum_was_measured_on_training_crops_and_knows_where_errors_lie(name):
    spectrum = read_header(name)["card"]["error_spectrum"]
    assert spectrum == load_prior(name).card["error_spectrum"]
    assert spectrum["held_out"] is False
    # The held-out people's error is within a quarter of the crops' at every level.
    assert all(0.75 < ratio < 1.25 for ratio in spectrum["rms_over_held_out"]["ratio"])
    quiet, busy = (torch.tensor(spectrum["local"]["scale"])[:, j].mean(1) for j in (0, -1))
    assert (busy[4:20] > 2.5 * quiet[4:20]).all()


def test_a_prior_file_of_ones_own_keeps_the_spectrum_in_its_card(tmp_path):
    own = tmp_path / "brain-mri.safetensors"
    own.write_bytes(find_prior("brain-mri").read_bytes())
    assert "local" not in read_header(own)["card"]["error_spectrum"]


@pytest.mark.parametrize("name", ["brain-mri", "body-ct"])
def test_a_prior_of_scans_knows_strangers_as_training_people_showed(name):
    """tests/studies/walk_calibration.py: whose ranges hold most truth at no loss of PSNR."""
    card = load_prior(name).card["error_spectrum"]
    assert (card["unseen"], card["eta"]) == (2.5, 1.0)
