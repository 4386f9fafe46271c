import runpy
import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return lambda name: runpy.run_path(str(EXAMPLES / f"{name}.py"))


def test_annealing_finds_the_weights_that_plain_langevin_misses(load):
    example = load("langevin_annealing")
    found = example["main"](300)
    share = {name: example["upper_share"](x) for name, x in found.items()}
    assert abs(share["exact"] - 0.8) < 0.1
    assert abs(share["annealed Langevin"] - 0.8) < 0.1
    assert abs(share["Langevin"] - 0.5) < 0.12


def test_sampling_that_ends_early_blurs_and_the_last_step_mends_part(load):
    example = load("smallest_noise_scale")
    found = example["main"](300, steps=25)
    for end in (0.5, 0.2):
        state, x0_hat = found[end]
        assert example["radial_error"](x0_hat) < 0.75 * example["radial_error"](state)
    state, x0_hat = found[0.005]
    assert abs(example["radial_error"](x0_hat) - 0.02) < 0.006


def test_training_brings_the_learnt_field_to_the_true_one(load):
    example = load("score_fields")
    untrained, trained = (example["main"](steps)[2] for steps in (1, 300))
    assert all(after < 0.7 * before for after, before in zip(trained, untrained, strict=True))


def test_paths_of_the_ode_are_smooth_and_those_of_the_sde_are_not(load):
    times, paths = load("trajectories")["main"](6, steps=100)
    rough = {
        name: path.diff(dim=0).diff(dim=0).square().mean().item() for name, path in paths.items()
    }
    assert len(times) == 100
    assert rough["probability-flow ODE"] < 0.05 * rough["reverse SDE"]
    ends = paths["probability-flow ODE"][-1]
    assert torch.equal(ends.argsort(), torch.arange(6))


def test_paths_of_both_end_in_the_modes_by_their_weights(load):
    """0.4 and 0.6: the ODE's starts are evenly spread, the SDE's ends scatter as binomials do."""
    num = 600
    _, paths = load("trajectories")["main"](num, steps=60)
    share = {name: (path[-1] > 0.1).double().mean().item() for name, path in paths.items()}
    assert abs(share["probability-flow ODE"] - 0.6) < 0.01
    assert abs(share["reverse SDE"] - 0.6) < 3 * (0.6 * 0.4 / num) ** 0.5


def test_every_example_draws_its_picture(load, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    for name, num in (("trajectories", 3), ("langevin_annealing", 20)):
        monkeypatch.setattr(sys, "argv", [name, "--num", str(num), "--out", str(tmp_path)])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
