"""The fit of an image mixture by EM."""

import numpy as np
import pytest
import torch

from inverse_score.io.priors import load_classifier, load_prior
from recipes.priors.mixture import CLASSIFIER, FOLDER, START, fit_mixture, write

SIZES = {"classes": 2, "components": 2, "dims": 8, "rank": 2}


def images(count: int, seed: int = 0):
    """(u, labels, component): each class has two blobs, long along an axis of their own."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    blob = (torch.arange(count) // 2) % 2
    centres = torch.zeros(2, 2, 9)
    centres[0, 1, 0], centres[1, 0, 1], centres[1, 1, 2] = 6.0, 6.0, 6.0
    u = centres[labels, blob] + 0.3 * torch.randn(count, 9, generator=draw)
    long = torch.randn(count, generator=draw)
    u[torch.arange(count), 3 + 2 * labels + blob] += 1.5 * long
    return u.reshape(-1, 1, 3, 3), labels


def test_em_finds_the_blobs_of_each_class_their_spread_and_their_shares():
    u, labels = images(4000)
    m = fit_mixture(u, labels, strength=1.0, **SIZES)
    torch.testing.assert_close(m.log_weights.exp(), torch.full((4,), 0.25), atol=0.02, rtol=0)
    # Along its own axis a blob has variance 1.5^2 + 0.3^2, across it 0.3^2.
    longest = m.log_values.exp().max(1).values
    torch.testing.assert_close(longest, torch.full((4,), 2.34), atol=0.25, rtol=0)
    torch.testing.assert_close(m.log_rest.exp(), torch.full((4,), 0.09), atol=0.02, rtol=0)


def test_the_fitted_mixture_reads_new_images_and_improves_on_the_best_linear_denoiser():
    m = fit_mixture(*images(2000), **SIZES)
    u, labels = images(500, seed=1)
    s = torch.full((500,), 1.0)
    noisy = u + torch.randn(u.shape, generator=torch.Generator().manual_seed(2))
    assert (m.log_joint(u, 0 * s).argmax(1) == labels).float().mean() > 0.99
    error = (m.denoise(noisy, s) - u).square().mean()
    flat = u.flatten(1)
    C = torch.cov(flat.T)
    gain = torch.linalg.solve(C + torch.eye(9), C)
    linear = ((noisy.flatten(1) - flat.mean(0)) @ gain + flat.mean(0) - flat).square().mean()
    assert error < 0.9 * linear


def test_a_class_of_fewer_images_than_components_is_named():
    u, labels = images(40)
    labels[labels == 1] = 0
    labels[0] = 1
    with pytest.raises(ValueError, match="class 1 has 1 images for 2 components"):
        fit_mixture(u, labels, **SIZES)


def test_the_prior_that_training_starts_from_and_the_classifier_are_written(tmp_path):
    """The prior's denoiser is the mixture's where noise is heavy; the classifier reads digits."""
    (tmp_path / "train").mkdir()
    (tmp_path / "held_out").mkdir()
    draw = np.random.default_rng(0)
    for part in ("train", "held_out"):
        labels = np.arange(60, dtype=np.uint8) % 10
        image = draw.integers(0, 60, size=(60, 28, 28), dtype=np.uint8)
        # A digit of class c is bright in row c.
        image[np.arange(60), labels] += 180
        np.savez(tmp_path / part / "digits.npz", image=image, labels=labels)
    text = (FOLDER / "digits.yaml").read_text()
    text = text.replace("components: 60, dims: 80, rank: 16", "components: 2, dims: 12, rank: 2")
    (tmp_path / "small.yaml").write_text(text.replace("[96, 128]", "[8, 8]"))
    write(tmp_path, tmp_path, tmp_path / "small.yaml")
    prior, classifier = load_prior(tmp_path / START), load_classifier(tmp_path / CLASSIFIER)
    u = prior.from_data(torch.from_numpy(image[:, None]).float() / 255)
    t = torch.full((60,), 9.0)
    torch.testing.assert_close(prior.denoise(u, 9.0), prior.network.mixture.denoise(u, t))
    assert (classifier(u, t / 9).argmax(1) == torch.from_numpy(labels)).float().mean() > 0.95
