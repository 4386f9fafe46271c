"""`reconstruct` on what is no raw data: DICOM, pictures, and measurements of a user's operator."""

import json

import h5py
import numpy as np
import pytest
from command_line import command

from inverse_score.io.pictures import png
from inverse_score.testing.formats import dicom_slice
from inverse_score.testing.scans import ellipse

QUICK = ("--steps", 2, "--samples", 2, "--baseline", "none", "--no-pages", "--quiet", "--json")


@pytest.fixture
def reconstruct(capsys, tiny_priors, tmp_path):
    def run(source, *arguments, prior="mri", out="out"):
        return command(capsys, "reconstruct", source, "--prior", tiny_priors[prior], "-o",
                       tmp_path / out, *QUICK, *arguments)  # fmt: skip

    return run


def bodies(folder, spacing=(8.0, 8.0)):
    """A DICOM series of two slices of soft tissue in air, 20 x 20."""
    folder.mkdir()
    for k in range(2):
        hu = np.where(ellipse((20, 20)) > 0.5, 40 + 10 * k, -1000).astype(np.int16)
        tags = {"RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "HU", "Modality": "CT"}
        made = dicom_slice(hu, (0, 0, 4 * k), (1, 0, 0, 0, 1, 0), spacing, **tags)
        made.save_as(folder / f"{k}.dcm", enforce_file_format=True)
    return folder


def test_a_picture_is_measured_by_simulation_and_the_result_says_so(reconstruct, tmp_path):
    grey = np.rint(255 * ellipse((24, 32))).astype(np.uint8)
    (tmp_path / "a.png").write_bytes(png(grey))
    done = reconstruct(tmp_path / "a.png", "--acc", 1, "--noise-std", 0.01)
    assert done.code == 0, done.err
    scan = json.loads(done.out)["scans"][0]
    assert scan["attributes"]["simulated"] == "simulated from images: 8 coils, noise 0.01, seed 0"
    assert "no scanner measured it" in scan["attributes"]["notes"]
    assert set(scan["scores"]) == {"zero_filled", "reconstruction"}
    with h5py.File(tmp_path / "out/a.h5") as file:
        assert "simulated" in file.attrs["simulated"]
        truth = file["reference"][0]
    inside = ellipse((24, 32)) == 1
    assert np.abs(truth[inside] - 1).mean() < 0.15
    plain = reconstruct(tmp_path / "a.png", "--acc", 4, "--dry-run", "--noise-std", 0.01, out="dry")
    assert plain.code == 0
    found = json.loads(plain.out)
    assert "no scanner measured it" in found["scans"][0]["notes"]
    assert found["refused"] == []


def test_a_dicom_series_is_projected_and_comes_back_as_one(reconstruct, tmp_path):
    done = reconstruct(bodies(tmp_path / "ct"), "--operator", "ct", "--acc", 6, "--format-out",
                       "dicom", "--noise-std", 0.05, prior="ct")  # fmt: skip
    assert done.code == 0, done.err
    scan = json.loads(done.out)["scans"][0]
    assert scan["attributes"]["simulated"].startswith("simulated from images: 180 views, 100000")
    assert "30 of 180 views are used" in scan["attributes"]["notes"]
    with h5py.File(tmp_path / "out/ct.h5") as file:
        body = ellipse((20, 20)) > 0.5
        for k in range(2):
            assert file["reference"][k][body].mean() == pytest.approx(40 + 10 * k)
            assert file["reconstruction"][k][body].mean() == pytest.approx(40 + 10 * k, abs=60)
    assert len(list((tmp_path / "out/ct-dicom").glob("*.dcm"))) == 2
    # The series names a patient; nothing that was written or said does.
    written = [path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    for text in (*written, done.out.encode(), done.err.encode()):
        assert b"JANE" not in text
        assert b"MRN00042" not in text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: bodies(folder, (8.0, 4.0)), "pixels must be square for CT; got 4 x 8 mm"),
        (lambda folder: folder.with_suffix(".png"), "does not say how large a pixel is"),
    ],
    ids=["oblong", "picture"],
)
def test_projections_need_square_pixels_of_known_size(reconstruct, tmp_path, make, message):
    (tmp_path / "ct.png").write_bytes(png(np.zeros((20, 20), np.uint8)))
    done = reconstruct(make(tmp_path / "ct"), "--operator", "ct", prior="ct")
    assert done.code == 3
    assert message in done.err


MODULE = """
import numpy as np
import torch
from operators import Mask

def half(path):
    known = np.load(path)["known"] if path.suffix == ".npz" else np.ones((8, 10))
    return Mask(torch.from_numpy(known), image_shape=(1, 8, 10))

def wrong(path):
    class Skewed(Mask):
        def adjoint(self, y):
            return 2 * super().adjoint(y)
    return Skewed(torch.ones(1, 8, 10))

def nothing(path):
    return lambda x: x
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's in the working folder, and a file of what its operator measured."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_physics.py").write_text(MODULE)
    known = np.arange(10) % 2 == np.zeros((8, 1))
    truth = np.stack([ellipse((8, 10)), 0.5 * ellipse((8, 10))]).astype(np.float32)
    np.savez(tmp_path / "m.npz", y=(known * truth)[:, None], known=known, ground_truth=truth)
    yield tmp_path / "m.npz"
    import sys

    sys.modules.pop("own_physics", None)


def test_an_operator_of_the_users_own_is_named_on_the_command_line(reconstruct, own, tmp_path):
    arguments = ("--operator", "own_physics:half", "--noise-std", 0.01)
    done = reconstruct(own, *arguments, prior="grey")
    assert done.code == 0, done.err
    scan = json.loads(done.out)["scans"][0]
    assert scan["attributes"]["operator"] == "own_physics:half"
    assert scan["scores"]["reconstruction"]["psnr"] > 5
    with np.load(own) as file, h5py.File(tmp_path / "out/m.h5") as result:
        y, known = file["y"][:, 0], file["known"]
        error = np.abs(result["reconstruction"][:] - y)[:, known]
        assert error.mean() < 0.02
    (tmp_path / "own_physics.py").write_text(MODULE + "\n# another operator\n")
    import sys

    sys.modules.pop("own_physics")
    again = reconstruct(own, *arguments, "--resume", prior="grey")
    assert again.code == 3
    assert "other operator_source" in again.err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_physics:wrong", "A.T is not the adjoint of A"),
        ("own_physics:nothing", "must return a LinearOperator; got function"),
        ("own_physics:missing", "has no function 'missing'"),
        ("nowhere.at.all:half", "no module 'nowhere'"),
    ],
)
def test_an_own_operator_that_is_none_is_refused(reconstruct, own, name, message):
    done = reconstruct(own, "--operator", name, "--noise-std", 0.01, prior="grey")
    assert done.code == 3
    assert message in done.err


def test_an_own_operator_needs_noise_a_prior_and_data_of_its_shape(
    reconstruct, capsys, own, tmp_path
):
    arguments = ("--operator", "own_physics:half")
    assert "has no estimate_noise(y): give noise_std" in reconstruct(own, *arguments,
                                                                    prior="grey").err  # fmt: skip
    done = command(capsys, "reconstruct", own, *arguments, "-o", tmp_path / "new")
    assert done.code == 4
    assert "name one with --prior" in done.err
    np.save(tmp_path / "y.npy", np.zeros((3, 4), np.float32))
    done = reconstruct(tmp_path / "y.npy", *arguments, prior="grey", out="third")
    assert done.code == 3
    assert "must be real (slices, 1, 8, 10)" in done.err
    done = reconstruct(own, *arguments, "--acc", 2, prior="grey", out="fourth")
    assert done.code == 2
    assert "--acc belongs to --operator mri, ct" in done.err


def test_a_file_cannot_name_code_to_run(reconstruct, own, tmp_path):
    (tmp_path / "recipe.yaml").write_text("recipe: own_physics:half\noperator: {noise_std: 0.01}\n")
    done = reconstruct(own, "--recipe", tmp_path / "recipe.yaml", prior="grey")
    assert done.code == 3
    assert "a file cannot name code to run" in done.err
    done = reconstruct(own, "--recipe", tmp_path / "recipe.yaml", "--operator",
                       "own_physics:half", prior="grey")  # fmt: skip
    assert done.code == 0, done.err
