"""Sample files hold the ellipses that they are said to hold."""

import numpy as np
import pytest
import torch

from inverse_score.io.reading import read_scan
from inverse_score.testing import scans
from operators import Radon


@pytest.mark.parametrize("make", [scans.fastmri_file, scans.bart_file, scans.mrd_file])
def test_the_root_sum_of_squares_of_a_sample_scan_is_the_ellipse(make, tmp_path):
    scan = read_scan(make(tmp_path / "scan.h5"))
    for k in range(2):
        # 5 standard deviations of the noise of an image, where its file has noise.
        image = scans.rss(np.asarray(scan[k])[None])[0]
        np.testing.assert_allclose(image, scans.ellipse() * (1 + 0.1 * k), atol=0.06)


def test_a_sample_sinogram_is_the_projection_of_its_truth(tmp_path):
    scan = read_scan(scans.sinogram_file(tmp_path / "scan.h5"))
    truth = torch.as_tensor(np.asarray(scan.references["ground_truth"](1)))[None, None].double()
    lines = Radon(24, torch.arange(30, dtype=torch.float64) * torch.pi / 30)(truth)[0, 0]
    np.testing.assert_allclose(np.asarray(scan[1]), lines.numpy(), rtol=1e-4, atol=1e-4)
