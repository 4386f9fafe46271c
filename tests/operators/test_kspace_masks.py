import json
from pathlib import Path

import numpy as np
import pytest

from operators import column_mask, grid_mask

FACTS = json.loads((Path(__file__).parent / "fastmri_masks.json").read_text())["masks"]


@pytest.mark.parametrize("kind", sorted({fact[1] for fact in FACTS}))
def test_masks_equal_those_of_the_fastmri_package_for_the_same_file_names(kind):
    facts = [fact for fact in FACTS if fact[1] == kind]
    assert len({fact[0] for fact in facts}) == 10
    for name, _, width, acceleration, fraction, low, bits in facts:
        found = column_mask(kind, width, acceleration, fraction, seed=name)
        packed = np.packbits(found.mask.numpy()).tobytes().hex()
        assert (packed, found.num_center) == (bits, low), (name, width)


def test_achieved_acceleration_is_reported_beside_the_nominal_one():
    plain = column_mask("equispaced", 320, 4, 0.08, seed=1)
    assert plain.nominal == 4.0
    assert 3.1 < plain.achieved < 3.3
    adjusted = column_mask("equispaced-fraction", 320, 4, 0.08, seed=1)
    assert 3.9 < adjusted.achieved < 4.05
    assert column_mask("gaussian", 320, 8, 0.04).achieved == 8.0


def test_columns_never_acquired_stay_zero():
    whole = column_mask("random", 100, 4, 0.08, seed="a.h5")
    part = column_mask("random", 100, 4, 0.08, seed="a.h5", acquired=(10, 90))
    assert not part.mask[:10].any()
    assert not part.mask[90:].any()
    assert (part.mask[10:90] == whole.mask[10:90]).all()


@pytest.mark.parametrize("kind", ["gaussian-2d", "poisson-disc", "radial", "spiral"])
def test_grid_masks_reach_their_acceleration_and_hold_their_centre(kind):
    found = grid_mask(kind, (65, 72), 5, 0.1, seed=2)
    assert found.mask.shape == (65, 72)
    assert abs(found.achieved - 5) < 0.35
    assert found.mask[30:35, 33:38].all()
    again = grid_mask(kind, (65, 72), 5, 0.1, seed=2)
    assert (found.mask == again.mask).all()
    other = grid_mask(kind, (65, 72), 5, 0.1, seed=3)
    assert (found.mask != other.mask).any()


def test_poisson_disc_samples_keep_their_distance():
    mask = grid_mask("poisson-disc", (96, 96), 8, 0.0, seed=0).mask.numpy()
    points = np.argwhere(mask)
    outer = points[np.hypot(*(points - 48).T) > 34]
    distance = np.hypot(*(outer[:, None] - outer[None]).transpose(2, 0, 1))
    np.fill_diagonal(distance, np.inf)
    # Random samples of this density would often touch.
    assert distance.min() >= 2.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: column_mask("uniform", 320, 4), "kind must be one of random, equispaced"),
        (lambda: column_mask("random", 320, [4, 8], [0.08]), "of one length"),
        (lambda: column_mask("random", 320, 0.5, 0.1), "acceleration must be >= 1"),
        (lambda: column_mask("equispaced", 320, 4.5, 0.1), "whole acceleration"),
        (lambda: column_mask("equispaced-fraction", 320, 4, 0.3), "central columns alone"),
        (lambda: column_mask("random", 320, 4, acquired=(5, 400)), "acquired columns"),
        (lambda: grid_mask("disc", (8, 8), 4), "kind must be one of gaussian-2d"),
    ],
)
def test_impossible_masks_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
