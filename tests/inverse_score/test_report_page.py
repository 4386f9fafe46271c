"""What the page of a result shows, number by number."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from inverse_score.io.runs.report import render
from inverse_score.io.runs.volume import SliceResult, open_volume, score, write_volume

RAMP = np.linspace(0.0, 1.0, 256).reshape(16, 16)


def page_of(path, image=RAMP, **attributes):
    """(page, its content) of a volume of one slice with five samples."""
    images = {"reconstruction": image, "std": RAMP, "reference": image + 0.01 * np.ptp(image)}
    write_volume(path, [SliceResult(images)], 1, attributes={"num_samples": 5, **attributes})
    page = render(open_volume(path))
    content = re.search(r'application/json"[^>]*>(.*?)</script>', page, re.S)
    return page, json.loads(content.group(1))


def pixels(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_images_reach_the_page_in_twelve_bits(tmp_path):
    """A window of a tenth of the range still has 400 greys."""
    _, content = page_of(tmp_path / "v.h5")
    packed = pixels(content["slices"][0]["images"]["reconstruction"]).astype(int)
    shown = ((packed[..., 0] << 4) | (packed[..., 1] >> 4)) / 4095 * content["high"]
    np.testing.assert_allclose(shown, RAMP, atol=content["high"] / 4095)


def test_ct_is_shown_in_all_of_a_scanner_s_hounsfield_units(tmp_path):
    """DICOM's twelve bits, -1024 to 3071, under the window of soft tissue."""
    _, content = page_of(tmp_path / "v.h5", 2000 * RAMP - 1000, units="HU")
    assert (content["low"], content["high"]) == (-1024, 3071)
    assert (content["window"], content["level"]) == (400, 40)


def test_maps_end_just_above_all_but_two_in_a_thousand_pixels(tmp_path):
    """A spike does not darken the map, and no more is cut off than spikes."""
    _, content = page_of(tmp_path / "v.h5")
    assert content["slices"][0]["maps"]["std"]["high"] == pytest.approx(np.quantile(RAMP, 0.998))


def test_the_std_of_five_samples_is_uncertain_by_a_third(tmp_path):
    """1 / sqrt(2 (n - 1)), the relative std of a standard deviation of n normal draws."""
    assert "itself uncertain by about 35 %" in page_of(tmp_path / "v.h5")[0]


@pytest.mark.parametrize(("fits", "css"), [(True, "good"), (False, "warn")])
def test_an_alarm_looks_like_one(tmp_path, fits, css):
    page, _ = page_of(tmp_path / "v.h5", fit="prior looked at", fit_ok=fits)
    assert f"<span class={css}>prior looked at</span>" in page


def test_ct_is_scored_from_air(tmp_path):
    """In Hounsfield units the peak of water would be 0: the data range is HU + 1000."""
    page_of(tmp_path / "v.h5", 2000 * RAMP - 1000, units="HU")
    found = score(open_volume(tmp_path / "v.h5"), "reconstruction")
    assert found["data_range"] == pytest.approx(2020)


def test_a_volume_with_a_hole_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="reconstruction has non-finite"):
        page_of(tmp_path / "v.h5", np.where(RAMP > 0.5, np.nan, RAMP))
    assert not list(tmp_path.iterdir())
