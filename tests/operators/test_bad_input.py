import pytest
import torch

from operators import (
    Blur,
    CartesianMRI,
    CompressedSensing,
    Downsample,
    GaussianBlur,
    Grayscale,
    Mask,
    MotionBlur,
    box_mask,
    half_mask,
)

MAPS = torch.ones(4, 6, 8, dtype=torch.complex64)
COLUMNS = torch.ones(8)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Mask(torch.zeros(1, 4, 4)), "mask is empty"),
        (lambda: Mask(torch.full((1, 4, 4), 0.5)), "only 0 and 1"),
        (lambda: Mask(torch.full((1, 4, 4), float("nan"))), "only 0 and 1"),
        (lambda: Mask(torch.ones(1, 4, 5), (3, 4, 4)), r"must broadcast to \(3, 4, 4\)"),
        (lambda: Mask(torch.eye(2)[:, :, None] * 0 + 1, (5,)), "must broadcast"),
        (lambda: box_mask(4, 4, (2, 2, 4, 4)), "does not lie in 4 x 4"),
        (lambda: half_mask(4, 4, "up"), "side must be one of left"),
        (lambda: Grayscale((2, 4, 4)), "weights must be one a channel"),
        (lambda: Grayscale((3, 4, 4), (0.0, 0.0, 0.0)), "not all 0"),
        (lambda: Blur(torch.ones(5, 5), (1, 4, 8)), r"within \(4, 8\); got \(5, 5\)"),
        (lambda: GaussianBlur((1, 8, 8), 0.0), "std must be a positive"),
        (lambda: MotionBlur((1, 8, 8), 20, 0.0), "exceeds the image"),
        (lambda: Downsample((1, 9, 8), 2), "divides H and W"),
        (lambda: Downsample((1, 8, 8), 2, kernel="lanczos"), "box or bicubic"),
        (lambda: CompressedSensing((1, 6, 6), 5), 'transform="hartley" takes any size'),
        (lambda: CompressedSensing((1, 4, 4), 17), r"1 .. H W = 16"),
        (lambda: CartesianMRI(COLUMNS), r"needs image_shape=\(H, W\)"),
        (lambda: CartesianMRI(0 * COLUMNS, MAPS), "mask is empty"),
        (lambda: CartesianMRI(COLUMNS[:7], MAPS), r"with \(6, 8\); got \(7,\)"),
        (lambda: CartesianMRI(torch.ones(6, 8), MAPS[:, :5]), r"with \(5, 8\); got \(6, 8\)"),
        (lambda: CartesianMRI(COLUMNS, MAPS.real), "sens_maps must be complex"),
        (lambda: CartesianMRI(COLUMNS, MAPS * float("nan")), "sens_maps hold NaN"),
        (
            lambda: CartesianMRI(torch.ones(2, 6, 8), MAPS.expand(3, 4, 6, 8)),
            "2 masks, 3 sets of maps",
        ),
        (
            lambda: CartesianMRI(COLUMNS, MAPS)(torch.ones(1, 6, 8, dtype=torch.complex64)),
            "as_channels",
        ),
        (
            lambda: CartesianMRI(COLUMNS, MAPS).T(torch.ones(1, 5, 6, 8, dtype=torch.complex64)),
            r"must be \(B, 4, 6, 8\); got \(1, 5, 6, 8\)",
        ),
    ],
)
def test_bad_parameters_are_one_clear_error(build, message):
    with pytest.raises(ValueError, match=message):
        build()
