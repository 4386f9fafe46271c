"""Benchmarks run on miniatures of their data sets, resume, and prepare a user's copy."""

import math

import numpy as np
import pytest
import torch

from inverse_score import VPSDE, GaussianPrior
from inverse_score.errors import BadInput, BadPrior
from recipes.benchmarks import preparation, report
from recipes.benchmarks.definition import Case, Definition, build
from recipes.benchmarks.runner import run, start

SIZE = 16


def definition(task: str = "simulated", **changes) -> Definition:
    """A small definition of one's own; keys as in the YAML files."""
    return build(
        Definition,
        {
            "name": "tiny",
            "title": "t",
            "paper": "p",
            "task": task,
            "data": {
                "layout": "slices",
                "obtain": "nowhere",
                "split": "s",
                "preprocessing": "n",
                "size": [SIZE, SIZE],
                "count": 2,
            },
            "target": "the image",
            "noise": "Gaussian",
            "noise_std": 0.02,
            "seed": 0,
            "metric": {
                "names": ["psnr", "ssim"],
                "data_range": "one",
                "clip": True,
                "region": "all",
            },
            "prior": {"channels": 1, "default": None, "published": "none"},
            "cases": [
                {"name": "mri", "operator": {"name": "mri", "mask": "random", "acc": 2}},
                {"name": "ct", "operator": {"name": "radon", "views": 8, "range": 180}},
                {"name": "inpaint", "operator": {"name": "inpaint", "mask": "half"}},
            ],
            "rows": [
                {"name": "ours", "method": "moment-matching", "options": {"steps": 5}},
                {"name": "theirs", "published": [
                    {"metric": "psnr", "value": 30.0, "source": "s", "verified": True}]},
            ],
            **changes,
        },
    )  # fmt: skip


@pytest.fixture(scope="module")
def prior() -> GaussianPrior:
    i = torch.arange(SIZE, dtype=torch.float64)
    at = torch.cartesian_prod(i, i)
    cov = 0.15**2 * torch.exp(-torch.cdist(at, at) / 4)
    return GaussianPrior(torch.full((1, SIZE, SIZE), 0.5, dtype=torch.float64), cov, VPSDE())


@pytest.fixture
def data(tmp_path, prior):
    folder = tmp_path / "data"
    folder.mkdir()
    images = prior.sample(2, seed=3)[:, 0].clamp(0, 1).numpy().astype(np.float32)
    np.savez(folder / "a.npz", images=images)
    return folder


def test_a_miniature_runs_through_every_operator_and_resumes(tmp_path, prior, data):
    job = start(definition(), prior, tmp_path / "out", prior_hash="h", data=data)
    lines: list[str] = []
    run(job, lines.append)
    assert len(job.results.records) == len(lines) == 6
    # A posterior sample errs by at most twice the prior's variance, in expectation.
    assert min(r["scores"]["psnr"] for r in job.results.records) > -10 * math.log10(2 * 0.15**2)
    again = start(definition(), prior, tmp_path / "out", prior_hash="h", data=data)
    run(again, lines.append)
    assert len(lines) == 6
    table = report.write(definition(), again.results)
    assert "[30]" in table
    assert (tmp_path / "out" / "table.tex").exists()


def test_two_shards_do_all_of_the_work_once(tmp_path, prior, data):
    for index in (0, 1):
        job = start(
            definition(), prior, tmp_path / "out", prior_hash="h", data=data, shard=(index, 2)
        )
        run(job)
    job.results.reload()
    keys = [(r["row"], r["case"], r["item"]) for r in job.results.records]
    assert len(keys) == len(set(keys)) == 6


def test_a_run_under_another_definition_or_prior_is_refused(tmp_path, prior, data):
    run(start(definition(), prior, tmp_path / "out", prior_hash="h", data=data, limit=1))
    with pytest.raises(BadInput, match="another definition"):
        start(definition(seed=1), prior, tmp_path / "out", prior_hash="h", data=data)
    other = definition(prior={"channels": 3, "default": None, "published": "none"})
    with pytest.raises(BadPrior, match="a prior of 3 channels; this one has 1"):
        start(other, prior, tmp_path / "new", prior_hash="h", data=data)


def test_the_likelihood_benchmark_gives_bits_per_dimension(tmp_path, prior):
    folder = tmp_path / "data"
    folder.mkdir()
    images = (prior.sample(2, seed=3)[:, 0].clamp(0, 1) * 255).round().numpy().astype(np.uint8)
    np.savez(folder / "a.npz", images=images)
    options = {"t_end": 1e-3, "trace": "hutchinson", "probes": 1, "dequantize": "rescaled"}
    case = [{"name": "c", "operator": options}]
    tiny = definition("likelihood", cases=case, rows=[{"name": "r", "method": "likelihood"}])
    job = start(tiny, prior, tmp_path / "out", prior_hash="h", data=folder)
    run(job)
    bits = [r["scores"]["bits_per_dim"] for r in job.results.records]
    # The entropy of the law itself, in bits of its 8-bit bins.
    entropy = 0.5 * torch.logdet(2 * torch.pi * torch.e * prior.cov).item() / SIZE**2
    expected = entropy / np.log(2) + 8
    assert np.mean(bits) == pytest.approx(expected, abs=0.4)


def test_brats_slices_lie_between_40_above_the_first_and_25_below_the_last():
    volume = np.zeros((100, 12, 12))
    volume[5:95, 2:10, 2:10] = np.arange(90)[:, None, None] + 1.0
    slices = preparation.brats_slices(volume)
    assert slices.shape == (90 - 65, 12, 12)
    assert slices.min() >= 0
    assert slices.max() < 1
    with pytest.raises(BadInput, match="zero everywhere"):
        preparation.brats_slices(np.zeros((4, 4, 4)))


def test_single_coil_volumes_become_magnitudes_with_maximum_one(tmp_path):
    from inverse_score.io.formats.fastmri import write_fastmri
    from operators import fft2c

    image = torch.rand(2, 1, 24, 20) + 0.1
    write_fastmri(
        tmp_path / "v.h5",
        fft2c(image.to(torch.complex64)).numpy(),
        references={"reconstruction_esc": image[:, 0].numpy()},
    )
    preparation.fastmri_magnitude(tmp_path, tmp_path / "out", lambda line: None, size=16)
    made = np.load(tmp_path / "out" / "v.npz")["images"]
    expected = image[:, 0, 4:20, 2:18]
    expected = expected / expected.amax(dim=(1, 2), keepdim=True)
    np.testing.assert_allclose(made, expected, atol=1e-5)


def test_the_mvue_of_a_scan_is_its_image_over_its_99_percent_quantile():
    from operators import birdcage_maps, fft2c

    yy, xx = np.mgrid[:48, :48] - 24.0
    image = torch.from_numpy(((xx / 16) ** 2 + (yy / 20) ** 2 < 1).astype(np.float32)) + 0.0
    maps = birdcage_maps(4, (48, 48)).to(torch.complex64)
    found, given = preparation.mvue(fft2c(maps * image), 48)
    inside = ((xx / 12) ** 2 + (yy / 15) ** 2) < 1
    assert given.shape == (4, 48, 48)
    spread = np.abs(found[inside])
    assert spread.std() / spread.mean() < 0.1


def test_a_missing_data_folder_is_said_before_any_work(tmp_path):
    with pytest.raises(BadInput, match=r"holds no \.h5 file"):
        preparation.fastmri_magnitude(tmp_path, tmp_path / "out")
    with pytest.raises(BadInput, match=r"holds no \.dcm file"):
        preparation.lidc(tmp_path, tmp_path / "out")


def test_a_case_name_must_exist_for_its_published_number():
    with pytest.raises(BadInput, match="no case"):
        definition(
            rows=[{"name": "r", "published": [{"metric": "psnr", "value": 1.0, "source": "s",
                                               "verified": True, "case": "9x"}]}]
        )  # fmt: skip
    assert Case("a", {}).name == "a"
