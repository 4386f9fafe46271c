"""`simulate`, `report` and `doctor`: real formats, pages that load nothing, facts to paste."""

import base64
import hashlib
import json
import re
import zlib

import h5py
import numpy as np
import pytest
from command_line import command

from inverse_score.io.pictures import png, to_bytes
from inverse_score.io.reading import read_scan
from inverse_score.io.runs.volume import SliceResult, open_volume, score, write_volume
from inverse_score.metrics import volume_scores


@pytest.fixture
def image(tmp_path):
    y, x = np.mgrid[:24, :24] - 11.5
    np.savez(tmp_path / "image.npz", image=np.where(np.hypot(x, y) < 8, 500, 0), pixel_mm=4.0)
    return tmp_path / "image.npz"


def test_a_simulated_mri_scan_is_a_fastmri_file_that_says_so(capsys, image, tmp_path):
    done = command(capsys, "simulate", "--operator", "mri", image, "--coils", 3, "-o",
                   tmp_path / "s.h5", "--json")  # fmt: skip
    assert done.code == 0, done.err
    scan = read_scan(tmp_path / "s.h5")
    assert scan.shape == (1, 3, 24, 24)
    assert scan.facts["simulated"].startswith("simulated from images: 3 coils")
    assert set(scan.references) == {"ground_truth", "reconstruction_rss"}
    truth = scan.references["ground_truth"](0)
    assert truth[12, 12] == pytest.approx(1.0, rel=0.1)
    assert truth[1, 1] < 0.05


def test_a_simulated_ct_scan_is_a_sinogram_file_in_counts(capsys, image, tmp_path):
    done = command(capsys, "simulate", "--operator", "ct", image, "--views", 6, "-o",
                   tmp_path / "s.h5")  # fmt: skip
    assert done.code == 0, done.err
    scan = read_scan(tmp_path / "s.h5")
    assert scan.shape[:2] == (1, 6)
    assert scan.geometry["value"] == "counts"
    assert scan.geometry["pixel_mm"] == 4.0
    assert scan[0].max() < 1.05e5
    assert scan.references["ground_truth"](0)[12, 12] == pytest.approx(500, abs=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--operator", "pet"), "must be mri or ct"),
        (("--operator", "mri", "--acc", 0.5), "at least 1"),
        (("--operator", "ct", "--views", 0), "must be positive"),
    ],
)
def test_bad_arguments_write_nothing(capsys, image, tmp_path, arguments, message):
    done = command(capsys, "simulate", image, "-o", tmp_path / "s.h5", *arguments)
    assert done.code == 3
    assert message in done.err
    assert not (tmp_path / "s.h5").exists()


def test_simulate_overwrites_neither_outputs_nor_its_image(capsys, image):
    before = image.read_bytes()
    assert command(capsys, "simulate", image, "-o", image).code == 3
    done = command(capsys, "simulate", image, "-o", image, "--overwrite")
    assert done.code == 3
    assert "is one of the images" in done.err
    assert image.read_bytes() == before


NAME = "<script>alert(1)</script>\x1b[2J"


@pytest.fixture
def volume(tmp_path):
    rng = np.random.default_rng(0)

    def results():
        for k in range(3):
            truth = rng.random((20, 16)) * (k + 1)
            samples = truth + 0.1 * rng.standard_normal((4, 20, 16))
            images = {"reference": truth, "reconstruction": samples.mean(0),
                      "zero_filled": 0.5 * truth, "std": samples.std(0)}  # fmt: skip
            yield SliceResult(images, samples.astype(np.complex64), {"slice": k, "scale": 0.5})

    attributes = {"name": NAME, "num_samples": 4, "operator": "mri", "notes": NAME}
    write_volume(tmp_path / "v.h5", results(), 3, attributes=attributes)
    return tmp_path / "v.h5"


def test_scores_of_a_file_are_those_of_the_whole_volume(volume):
    opened = open_volume(volume)
    stacks = [
        np.stack([opened[name, k] for k in range(3)]) for name in ("reference", "zero_filled")
    ]
    expected = volume_scores(*stacks)
    found = score(opened, "zero_filled")
    for key in expected:
        assert found[key] == pytest.approx(expected[key], rel=1e-9)


def test_the_page_runs_its_own_script_and_loads_nothing(capsys, volume):
    assert command(capsys, "report", volume).code == 0
    page = volume.with_suffix(".html").read_text()
    assert "<script>alert" not in page
    assert "\x1b" not in page
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page).group(1)
    assert policy.startswith("default-src 'none'; img-src data:")
    for tag in ("style", "script"):
        content = re.search(f"<{tag}>(.*?)</{tag}>", page, re.S).group(1)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not re.search(r'(?:src|href)\s*=\s*"(?!data:)', page)
    assert "http" not in re.sub(r"http-equiv", "", page)
    assert "Not for diagnostic use" in page
    assert "4 posterior samples" in page
    assert "not calibrated" in page


def test_a_page_is_not_overwritten_and_other_files_have_none(capsys, volume, tmp_path):
    assert command(capsys, "report", volume).code == 0
    done = command(capsys, "report", volume)
    assert done.code == 3
    assert "--overwrite" in done.err
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1.0
    assert "not a reconstruction" in command(capsys, "report", tmp_path / "other.h5").err


def test_a_png_holds_its_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7), dtype=np.uint8)
    content = png(pixels, {"Title": "x"})
    (data,) = re.findall(rb"IDAT(.*)....\x00\x00\x00\x00IEND", content, re.S)
    lines = np.frombuffer(zlib.decompress(data), np.uint8).reshape(5, 8)
    assert (lines[:, 0] == 2).all()
    np.testing.assert_array_equal(np.cumsum(lines[:, 1:], axis=0, dtype=np.uint8), pixels)


def test_a_picture_of_nan_is_refused_and_not_black():
    with pytest.raises(ValueError, match="1 non-finite pixels"):
        to_bytes(np.array([[0.0, np.nan]]), 0, 1)


def test_doctor_names_no_host_user_or_path(capsys, tmp_path, monkeypatch):
    import getpass
    import socket

    monkeypatch.chdir(tmp_path)
    done = command(capsys, "doctor", "--json")
    facts = json.loads(done.out)
    assert facts["software"]["torch"]
    assert facts["processor"]["usable cores"] >= 1
    assert facts["problems"] == {}
    for private in (socket.gethostname(), str(tmp_path), f"/{getpass.getuser()}"):
        assert private not in done.out
