"""What a reconstruction says of itself: withheld lines, and the std that `verify` has checked."""

import json
import math

import h5py
import numpy as np
import pytest
from command_line import command, tiny_prior

from inverse_score.io.priors import load_prior, update_card
from inverse_score.testing.scans import fastmri_file
from inverse_score.uncertainty import student_quantile

MASK = np.isin(np.arange(32), [0, 4, 8, 12, 13, 14, 15, 16, 17, 18, 19, 20, 24, 28])
QUICK = ("--steps", 2, "--samples", 4, "--baseline", "none", "--maps", "low-resolution", "--quiet",
         "--json", "--slices", 0)  # fmt: skip


@pytest.fixture
def reconstruct(capsys, tmp_path):
    scan = fastmri_file(tmp_path / "scan.h5", mask=MASK)
    prior = tiny_prior(tmp_path / "tiny.safetensors")

    def run(*arguments, out="out"):
        done = command(capsys, "reconstruct", scan, "--prior", prior, "-o", tmp_path / out, *QUICK,
                       *arguments)  # fmt: skip
        assert done.code == 0, done.err
        return json.loads(done.out)["scans"][0]

    return run


def stored(prior, **study):
    """Put the factor that `verify --store` writes into a prior: twice an exact sampler's."""
    exact = student_quantile(0.9, 15) * math.sqrt(1 + 1 / 16)
    entry = {"factor": 2 * exact, "level": 0.9, "people": 4, "images": 12, "confidence": 0.8}
    study = {"num_samples": 16, "acc": 2.0, "noise_std": 0.02, **study}
    update_card(prior, {"calibration": {"mri": {**entry, "study": study}}})


def test_withheld_lines_are_predicted_and_the_page_says_how_well(reconstruct, tmp_path):
    found = reconstruct("--withheld")
    facts = found["slices"][0]
    # A tenth of 14 measured columns, and never one of the calibration lines.
    assert facts["withheld_lines"] == 1
    assert facts["withheld_p"] in [pytest.approx(k / 20) for k in range(1, 21)]
    # 19 predictions: an alarm, farther off than all of them, is chance once in twenty scans.
    assert facts["withheld_draws"] == 19
    assert facts["withheld_ratio"] > 0
    words = found["attributes"]["withheld"]
    assert words.startswith("1 withheld lines are")
    assert words in (tmp_path / "out/scan.html").read_text()
    assert found["attributes"]["withheld_ok"] == (facts["withheld_p"] > 0.051)


def test_the_check_of_withheld_lines_is_asked_for(reconstruct):
    assert "withheld" not in reconstruct("--no-pages")["attributes"]


def test_the_stored_factor_scales_the_std_and_is_named(reconstruct, tmp_path):
    plain = reconstruct(out="plain")
    assert plain["attributes"]["calibrated"] is False
    assert "not checked for this prior" in plain["attributes"]["calibration"]
    stored(tmp_path / "tiny.safetensors")
    scaled = reconstruct(out="scaled")
    assert scaled["attributes"]["calibrated"] is True
    assert scaled["attributes"]["std_factor"] == pytest.approx(2.0)
    # Student's quantile for 4 samples: 2.353, times sqrt(1 + 1/4).
    assert "mean +- 2.63 std covers 90%" in scaled["attributes"]["calibration"]
    assert "uncertainty calibrated" in (tmp_path / "scaled/scan.html").read_text()
    with (
        h5py.File(tmp_path / "plain/scan.h5") as one,
        h5py.File(tmp_path / "scaled/scan.h5") as two,
    ):
        np.testing.assert_allclose(two["std"][:], 2 * one["std"][:], rtol=1e-5)
        np.testing.assert_array_equal(two["reconstruction"][:], one["reconstruction"][:])


@pytest.mark.parametrize(
    ("study", "words"),
    [
        ({"acc": 8.0}, "was at 8 times acceleration, this is at 2.29"),
        ({"budget": "accurate"}, "was of budget accurate, this is of fast"),
    ],
)
def test_a_factor_of_another_setting_is_not_applied(reconstruct, tmp_path, study, words):
    stored(tmp_path / "tiny.safetensors", **study)
    found = reconstruct("--no-pages")["attributes"]
    assert found["calibrated"] is False
    assert found["std_factor"] == 1.0
    assert words in found["calibration"]


def test_verify_stores_the_study_beside_the_factor(tmp_path):
    import torch

    from recipes.spread_study import Outcome, Study

    path = tiny_prior(tmp_path / "p.safetensors")
    conformal = {"factor": 2.0, "level": 0.9, "people": 2, "images": 8, "confidence": 2 / 3}
    study = Study("mri", acc=6.0)
    Outcome(study, None, torch.zeros(1), torch.zeros(1), "", conformal).store(str(path))
    entry = load_prior(path).card["calibration"]["mri"]
    assert entry["factor"] == 2.0
    assert entry["study"]["acc"] == 6.0
    assert entry["study"]["num_samples"] == 16
