"""`inverse-score convert` from a released file to a prior file."""

import json

import pytest
import torch
from typer.testing import CliRunner

from inverse_score.cli import app
from inverse_score.io.checkpoints.layouts import LAYOUTS
from inverse_score.io.checkpoints.parts import released_shapes
from inverse_score.io.priors import load_prior
from inverse_score.networks import build_network
from inverse_score.testing.released import CASES, formula

CASE = CASES["DDPM of score_sde"]


@pytest.fixture
def checkpoint(tmp_path):
    network = build_network("ddpm", **CASE.config)
    shapes = released_shapes(LAYOUTS["score_sde"](network))
    model = {f"module.{k}": torch.from_numpy(formula(k, s)) for k, s in shapes.items()}
    shadow = {"decay": 0.9999, "num_updates": 1, "shadow_params": list(model.values())}
    path = tmp_path / "checkpoint_8.pth"
    torch.save({"model": model, "ema": shadow, "step": 3}, path)
    return path


ARGUMENTS = [
    "--preset", "vp/ddpm/cifar10_continuous", "--set", "widths=[32, 64]", "--set", "channels=1",
    "--set", "image_size=12", "--set", "attn_resolutions=[6]",
]  # fmt: skip


def run(*arguments):
    return CliRunner().invoke(app, ["convert", *map(str, arguments)])


def test_convert_writes_a_prior_that_gives_the_released_outputs(checkpoint, tmp_path):
    out = tmp_path / "prior.safetensors"
    result = run(checkpoint, "-o", out, "--trust", "--json", *ARGUMENTS)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["preset"] == "vp/ddpm/cifar10_continuous"
    assert told["range"] == [0.5, 0.5]
    assert told["image_shape"] == [1, 12, 12]
    prior = load_prior(out)
    with torch.no_grad():
        assert torch.equal(prior.network(*CASE.inputs()), CASE.ours())


def test_convert_refuses_a_pickle_without_trust_and_an_existing_output(checkpoint, tmp_path):
    out = tmp_path / "prior.safetensors"
    refused = run(checkpoint, "-o", out, *ARGUMENTS)
    assert getattr(refused.exception, "exit_code", None) == 4
    assert not out.exists()
    out.write_bytes(b"mine")
    kept = run(checkpoint, "-o", out, "--trust", *ARGUMENTS)
    assert getattr(kept.exception, "exit_code", None) == 3
    assert out.read_bytes() == b"mine"


def test_convert_lists_its_presets():
    result = run("--list")
    assert "ve/cifar10_ncsnpp_deep_continuous" in result.stdout
    assert "score-mri/fastmri_knee_320" in result.stdout
