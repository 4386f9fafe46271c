"""`reconstruct` of what does not go through the prior slice by slice as it is.

--patch for large images, --couple-z for volumes, --metal for rays that no model explains.
"""

import json

import h5py
import numpy as np
import pytest
from command_line import command, tiny_prior

from inverse_score.io.config import load_yaml
from inverse_score.testing.formats import dicom_slice
from inverse_score.testing.scans import TINY, ellipse, fastmri_file

QUICK = ("--steps", 3, "--samples", 5, "--baseline", "none", "--no-pages", "--quiet", "--json")
MASK = np.isin(np.arange(32), [0, 4, 8, 12, 13, 14, 15, 16, 17, 18, 19, 20, 24, 28])


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """Three slices of an ellipse that differ in brightness, undersampled and noisy."""
    path = tmp_path_factory.mktemp("scan") / "scan.h5"
    return fastmri_file(path, mask=MASK, slices=3, noise=0.05)


@pytest.fixture
def reconstruct(capsys, tiny_priors, scan, tmp_path):
    def run(*arguments, prior=tiny_priors["mri"], out="out", source=scan):
        return command(capsys, "reconstruct", source, "--prior", prior, "-o", tmp_path / out,
                       *QUICK, *arguments)  # fmt: skip

    return run


def samples(folder, name="scan"):
    with h5py.File(folder / f"{name}.h5") as file:
        return file["samples"][:]


def flicker(x):
    return np.square(np.abs(np.diff(x, axis=1))).mean()


def test_coupled_slices_are_nearer_to_each_other_and_share_one_scale(reconstruct, tmp_path):
    assert reconstruct("--method", "dds", out="alone").code == 0
    done = reconstruct("--couple-z", 0.1)
    assert done.code == 0, done.err
    held, alone = samples(tmp_path / "out"), samples(tmp_path / "alone")
    assert held.shape == alone.shape == (5, 3, *TINY)
    assert flicker(held) < 0.5 * flicker(alone)
    found = json.loads(done.out)["scans"][0]
    assert found["attributes"]["method"].startswith("dds")
    assert len({entry["scale"] for entry in found["slices"]}) == 1
    assert all(0.3 < value < 3 for entry in found["slices"] for value in entry["misfit"])


def test_the_saved_recipe_of_a_volume_and_its_shards_give_the_same_bytes(reconstruct, tmp_path):
    assert reconstruct("--couple-z", 0.1).code == 0
    saved = load_yaml(tmp_path / "out/recipe.yaml")
    assert saved["volume"] == {"between_slices": 0.1}
    assert saved["method"]["method"] == "dds"
    expected = samples(tmp_path / "out")
    assert reconstruct("--recipe", tmp_path / "out/recipe.yaml", out="again").code == 0
    for part in ("1/2", "2/2"):
        assert reconstruct("--couple-z", 0.1, "--shard", part, out="parts").code == 0
    np.testing.assert_array_equal(samples(tmp_path / "again"), expected)
    np.testing.assert_array_equal(samples(tmp_path / "parts"), expected)


def test_a_volume_that_was_interrupted_goes_on_to_the_same_bytes(reconstruct, tmp_path):
    assert reconstruct("--couple-z", 0.1).code == 0
    assert reconstruct("--couple-z", 0.1, "--shard", "1/2", out="cut").code == 0
    (tmp_path / "cut/.units/0000-00001-000.npz").unlink()
    assert reconstruct("--couple-z", 0.1, "--resume", out="cut").code == 0
    np.testing.assert_array_equal(samples(tmp_path / "cut"), samples(tmp_path / "out"))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--method", "dps"), 2, "couples slices inside dds; got --method dps"),
        (("--withheld",), 2, "--withheld checks one slice alone"),
        (("--slices", 1), 3, "--couple-z needs two slices"),
    ],
)
def test_what_cannot_be_coupled_is_refused(reconstruct, tmp_path, arguments, code, message):
    done = reconstruct("--couple-z", 0.1, *arguments)
    assert done.code == code
    assert not (tmp_path / "out").exists()
    assert message in done.err


def test_a_prior_of_one_size_serves_larger_images_in_patches(reconstruct, tmp_path):
    fixed = tiny_prior(tmp_path / "fixed.safetensors", size=16)
    done = reconstruct("--slices", 0, prior=fixed)
    assert done.code == 4
    assert "takes images of (16, 16) only" in done.err
    done = reconstruct("--slices", 0, "--patch", 16, "--overlap", 4, prior=fixed)
    assert done.code == 0, done.err
    assert load_yaml(tmp_path / "out/recipe.yaml")["patches"] == {"size": 16, "overlap": 4}
    # This prior looks at pixels alone, so that the patches' seams can only come from the blend.
    free = tiny_prior(tmp_path / "free.safetensors")
    assert reconstruct("--slices", 0, prior=free, out="whole").code == 0
    np.testing.assert_allclose(
        samples(tmp_path / "out"), samples(tmp_path / "whole"), atol=1e-4 * np.abs(ellipse()).max()
    )


def test_the_sections_of_a_recipe_file_suggest_the_nearest_key(reconstruct, tmp_path):
    recipe = tmp_path / "r.yaml"
    for text, hint in (
        ("patches: {sise: 16}", "did you mean 'size'"),
        ("volume: {between_slice: 0.1}", "did you mean 'between_slices'"),
        ("volumes: {between_slices: 0.1}", "did you mean 'volume'"),
        ("patches: {size: 16.5}", "size must be an integer; got 16.5"),
    ):
        recipe.write_text(f"recipe: mri\n{text}\n")
        done = reconstruct("--recipe", recipe)
        assert done.code == 3
        assert hint in done.err
    assert "patches: give their size" in reconstruct("--overlap", 4).err


def test_a_photograph_is_inpainted_in_patches(capsys, tmp_path):
    from inverse_score.io.pictures import png

    prior = tiny_prior(tmp_path / "fixed.safetensors", 3, size=16)
    (tmp_path / "a.png").write_bytes(png(np.full((20, 24, 3), 128, np.uint8)))
    known = np.full((20, 24), 255, np.uint8)
    known[4:9, 4:9] = 0
    (tmp_path / "mask.png").write_bytes(png(known))
    arguments = ("reconstruct", tmp_path / "a.png", "--operator", "inpaint", "--mask",
                 tmp_path / "mask.png", "--prior", prior, "--steps", 2, "--samples", 1,
                 "-o", tmp_path / "out")  # fmt: skip
    assert command(capsys, *arguments).code != 0
    done = command(capsys, *arguments, "--patch", 16)
    assert done.code == 0, done.err
    done = command(capsys, "reconstruct", "--operator", "class", "--label", 1, "--patch", 16)
    assert "--patch does nothing for --operator class" in done.err


def test_rays_through_metal_are_left_out(reconstruct, tiny_priors, tmp_path):
    body = np.where(ellipse((20, 20)) > 0.5, 40, -1000).astype(np.int16)
    body[8:10, 8:10] = 8000
    tags = {"RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "HU", "Modality": "CT"}
    made = dicom_slice(body, (0, 0, 0), (1, 0, 0, 0, 1, 0), (8.0, 8.0), **tags)
    (tmp_path / "ct").mkdir()
    made.save_as(tmp_path / "ct/0.dcm", enforce_file_format=True)
    options = {"prior": tiny_priors["ct"], "source": tmp_path / "ct"}
    ct = ("--operator", "ct", "--acc", 3, "--noise-std", 0.05)
    done = reconstruct(*ct, "--metal", 3000, **options)
    assert done.code == 0, done.err
    facts = json.loads(done.out)["scans"][0]["slices"][0]
    assert 0.5 < facts["rays_kept"] < 0.9
    assert 4 <= facts["metal_pixels"] <= 25
    assert load_yaml(tmp_path / "out/recipe.yaml")["operator"]["metal"] == 3000
    done = reconstruct(*ct, "--metal", -900, **options, out="low")
    assert done.code == 3
    assert "give a threshold in HU between bone and metal" in done.err
    assert "--metal belongs to --operator ct" in reconstruct("--metal", 3000).err
