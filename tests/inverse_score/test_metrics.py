import json
from pathlib import Path

import numpy as np
import pytest
import torch

from inverse_score import metrics


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    target = rng.random((3, 16, 18)) * np.array([1.0, 2.0, 4.0])[:, None, None]
    return target, target + 0.1 * rng.standard_normal(target.shape)


def test_volume_scores_use_the_maximum_of_the_volume(pair):
    target, prediction = pair
    mse = ((target - prediction) ** 2).mean()
    scores = metrics.volume_scores(target, prediction)
    assert scores["psnr"] == pytest.approx(10 * np.log10(target.max() ** 2 / mse), rel=1e-12)
    power = (target**2).sum()
    assert scores["nmse"] == pytest.approx(((target - prediction) ** 2).sum() / power, rel=1e-12)


def test_ssim_is_that_of_a_7x7_uniform_window_with_sample_covariance(pair):
    """Wang et al. 2004 written out over all windows that fit."""
    a, b = pair[0][0], pair[1][0]
    peak = 3.0
    patches = [np.lib.stride_tricks.sliding_window_view(v, (7, 7)).reshape(-1, 49) for v in (a, b)]
    m = [p.mean(1) for p in patches]
    v = [p.var(1, ddof=1) for p in patches]
    c = ((patches[0] - m[0][:, None]) * (patches[1] - m[1][:, None])).sum(1) / 48
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    top = (2 * m[0] * m[1] + c1) * (2 * c + c2)
    bottom = (m[0] ** 2 + m[1] ** 2 + c1) * (v[0] + v[1] + c2)
    assert metrics.ssim(a, b, data_range=peak) == pytest.approx((top / bottom).mean(), rel=1e-9)


def test_the_mean_over_slices_differs_from_the_slice_wise_protocol(pair):
    by_volume = metrics.slice_scores(*pair, data_range="volume")
    by_slice = metrics.slice_scores(*pair, data_range="slice")
    assert by_volume[0]["psnr"] - by_slice[0]["psnr"] == pytest.approx(
        20 * np.log10(pair[0].max() / pair[0][0].max()), rel=1e-9
    )
    assert by_volume[2] == by_slice[2]


def test_tensors_and_arrays_score_alike(pair):
    tensors = [torch.from_numpy(v) for v in pair]
    assert metrics.volume_scores(*tensors) == metrics.volume_scores(*pair)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a, b: metrics.psnr(a, b, data_range=0.0), "data_range must be positive"),
        (lambda a, b: metrics.nmse(a, b[:2]), "must both be"),
        (lambda a, b: metrics.nmse(a + 1j, b), "target is complex"),
        (lambda a, b: metrics.ssim(a[:, :5], b[:, :5], data_range=1.0), "7x7"),
        (lambda a, b: metrics.nmse(0 * a, b), "zero everywhere"),
        (lambda a, b: metrics.nmse(a / 0.0, b), "non-finite"),
        (lambda a, b: metrics.slice_scores(a, b, data_range="auto"), '"volume" or "slice"'),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_what_cannot_be_scored_is_an_error(pair, call, message):
    with pytest.raises(ValueError, match=message):
        call(*pair)


FASTMRI = json.loads((Path(__file__).parent / "fastmri_scores.json").read_text())["rows"]


@pytest.mark.parametrize("row", FASTMRI, ids=lambda row: "x".join(map(str, row["shape"])))
def test_volume_scores_equal_the_fastmri_packages_own(row):
    """Stored results of fastmri.evaluate on arrays that a seed makes."""
    rng = np.random.default_rng(row["seed"])
    level = np.linspace(1, 3, row["shape"][0])[:, None, None] * 1e-4
    target = (rng.random(row["shape"]) * level).astype(row["dtype"])
    prediction = (target + 1e-5 * rng.standard_normal(row["shape"])).astype(row["dtype"])
    scores = metrics.volume_scores(target, prediction)
    for name in ("nmse", "psnr", "ssim"):
        assert scores[name] == pytest.approx(row[name], rel=1e-6), name
