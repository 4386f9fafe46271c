"""The one number by which a scan is scaled: that of the images that its prior was trained on."""

import numpy as np
import pytest
import torch

from recipes.calibration import image_scale
from recipes.priors import heads
from recipes.priors.planes import VoxelStack


def test_the_scale_of_a_scan_is_that_of_the_training_images(monkeypatch):
    """A head whose brightest 2 % are fat: both take fat for 1, and a 90 % quantile would not."""
    voxels = torch.full((1, 40, 40, 40), 0.3)
    voxels[:, :20] = 0.5
    voxels[0, torch.rand(40, 40, 40, generator=torch.Generator().manual_seed(0)) < 0.02] = 5.0
    monkeypatch.setattr(heads, "random_contrast", lambda *_: lambda parts: parts[0])
    seen = []
    quantile = torch.quantile

    def recorded(x, q, *rest, **options):
        seen.append((x, q))
        return quantile(x, q, *rest, **options)

    monkeypatch.setattr(torch, "quantile", recorded)
    stack = VoxelStack("head", voxels, (1.0, 1.0, 1.0), False)
    heads.magnitude(stack, 64, np.random.default_rng(1))
    overview, _ = seen[0]
    assert overview.shape[-2:] == (56, 56)
    monkeypatch.undo()
    scale = image_scale(overview.reshape(1, 56, 56))
    assert float(scale[0]) == pytest.approx(float(quantile(overview, seen[0][1])))


def test_two_in_a_hundred_bright_pixels_set_the_scale_and_one_in_two_hundred_does_not():
    """99 % of the blocks lie below: fat and vessels count, single spikes do not."""
    image = torch.full((1, 56, 56), 0.5)
    spikes = image.clone()
    spikes.view(-1)[: 56 * 56 // 200] = 9.0
    fat = image.clone()
    fat.view(-1)[: 56 * 56 // 50] = 2.0
    assert image_scale(torch.cat([spikes, fat])).tolist() == pytest.approx([0.5, 2.0])
