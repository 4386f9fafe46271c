"""What a volume holds, put together from units of four samples, against its own samples."""

import json

import h5py
import numpy as np
import pytest
import torch
from command_line import command, tiny_prior

import recipes
from inverse_score.io.priors import load_prior, update_card
from inverse_score.testing.scans import fastmri_file, kspace

MASK = np.isin(np.arange(32), [0, 4, 8, 12, 13, 14, 15, 16, 17, 18, 19, 20, 24, 28])
SLICE, SAMPLES = 1, 5
QUICK = ("--steps", 2, "--baseline", "none", "--maps", "low-resolution", "--quiet", "--json",
         "--no-pages")  # fmt: skip
ONE = ("--slices", SLICE)


@pytest.fixture(scope="module")
def scanned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("assembly")
    scan = fastmri_file(folder / "scan.h5", mask=MASK, slices=3)
    return folder, scan, tiny_prior(folder / "tiny.safetensors")


@pytest.fixture
def reconstruct(scanned, capsys):
    folder, scan, prior = scanned

    def run(out, *arguments):
        done = command(capsys, "reconstruct", scan, "--prior", prior, "-o", folder / out, *QUICK,
                       *arguments)  # fmt: skip
        assert done.code == 0, done.err
        with h5py.File(folder / out / "scan.h5") as file:
            arrays = {name: file[name][()] for name in file if name != "slices"}
        manifest = json.loads((folder / out / "manifest.json").read_text())
        return arrays, json.loads(done.out)["scans"][0], manifest

    return run


@pytest.fixture
def volume(reconstruct):
    return reconstruct("five", *ONE, "--samples", SAMPLES, "--keep-samples", "--overwrite")


def test_five_samples_are_a_unit_of_four_and_one_of_one_all_different(volume):
    """Four a unit, whatever the memory: it is part of a run's identity, as the seed is."""
    arrays, _, manifest = volume
    assert (manifest["chunks"], manifest["config"]["chunk"]) == (2, 4)
    # Vector-Jacobian products cost too much for a processor.
    assert manifest["config"]["budget"] == "fast"
    # --slices 1 is that slice and not those after it.
    assert arrays["samples"].shape == (SAMPLES, 1, 24, 32)
    samples = arrays["samples"][:, 0]
    gaps = [np.abs(a - b).max() for k, a in enumerate(samples) for b in samples[:k]]
    assert min(gaps) > 1e-3 * np.abs(samples).max()


def test_image_and_std_are_those_of_all_samples(volume):
    """|mean|, not the mean of magnitudes, which has a noise floor; and 1 / (n - 1)."""
    arrays, found, _ = volume
    samples = arrays["samples"][:, 0].astype(np.complex128)
    np.testing.assert_allclose(arrays["reconstruction"][0], np.abs(samples.mean(0)), rtol=1e-5)
    np.testing.assert_allclose(arrays["std"][0], np.abs(samples).std(0, ddof=1), rtol=1e-4)
    facts = found["slices"][0]
    assert (facts["slice"], len(facts["misfit"]), facts["nfe"]) == (SLICE, SAMPLES, 2)


def test_maps_are_those_of_the_mean_of_all_samples(volume, scanned):
    """Both are linear in the image, so units count by their samples: 4/5 and 1/5.

    The share's floor is a tenth of the brightest pixel: air, of noise alone, would be all prior,
    and tissue of a third of the brightness has its own share.
    """
    arrays, _, _ = volume
    prior = load_prior(scanned[2])
    measured = torch.from_numpy(kspace(slices=3)[0] * MASK)[SLICE]
    recipe = recipes.mri(prior, torch.from_numpy(MASK), maps="low-resolution")
    problem = recipe.prepare(measured)
    mean = torch.from_numpy(arrays["samples"][:, 0].mean(0)).to(torch.complex64)
    x = torch.view_as_real(mean).permute(2, 0, 1)[None]
    residual, part = (
        torch.complex(*v[0]).abs().numpy()
        for v in (problem.residual(x), problem.prior_part(x, prior))
    )
    np.testing.assert_allclose(arrays["residual"][0], residual, atol=2e-3 * residual.max())
    size = np.abs(mean.numpy())
    share = np.minimum(part / np.maximum(size, 0.1 * size.max()), 1)
    np.testing.assert_allclose(arrays["prior_share"][0], share, atol=5e-3)
    assert (size < 0.4 * size.max()).any()


def test_a_scan_four_deviations_off_its_prior_is_an_alarm(reconstruct, scanned):
    """Chance gives |z| > 4 to 6 of 100 000 scans: at 6 the prior may not fit, at 3 it does."""
    prior = scanned[2]
    before = prior.read_bytes()
    z = reconstruct("plain", *ONE, "--samples", 1, "--overwrite")[1]["slices"][0]["fit_z"]
    card = load_prior(prior).card["error_spectrum"]
    try:
        for wanted, fits in ((6.0, False), (3.0, True)):
            std = [s * abs(z) / wanted for s in card["error_std"]]
            update_card(prior, {"error_spectrum": {**card, "error_std": std}})
            _, found, _ = reconstruct("alarm", *ONE, "--samples", 1, "--overwrite")
            assert abs(found["slices"][0]["fit_z"]) == pytest.approx(wanted, rel=1e-3)
            assert found["attributes"]["fit_ok"] == fits
            assert ("may not fit" in found["attributes"]["fit"]) != fits
    finally:
        prior.write_bytes(before)


def test_the_prior_s_fit_is_checked_on_the_middle_slice_alone(reconstruct):
    """The ends of a stack are the images that a prior knows least."""
    _, found, _ = reconstruct("all", "--samples", 1)
    assert ["fit_z" in facts for facts in found["slices"]] == [False, True, False]


def test_another_seed_or_sample_count_is_another_run(reconstruct, scanned, capsys):
    folder, scan, prior = scanned
    reconstruct("one", *ONE, "--samples", 1, "--overwrite")
    for changed, seed, samples in (("seed", 5, 1), ("samples", 0, 2)):
        done = command(capsys, "reconstruct", scan, "--prior", prior, "-o", folder / "one", *QUICK,
                       *ONE, "--samples", samples, "--seed", seed, "--resume")  # fmt: skip
        assert done.code != 0
        assert changed in done.err
