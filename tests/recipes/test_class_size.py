import pytest
import torch

import recipes
from inverse_score import GaussianPrior, KarrasSDE
from inverse_score.errors import BadInput
from inverse_score.networks.classifier import NoiseClassifier


def open_prior(size):
    prior = GaussianPrior(torch.zeros(1, size, size), torch.eye(size**2), KarrasSDE(5.0))
    prior.event_shape = (1, None, None)
    return prior


def recipe(**options):
    classifier = NoiseClassifier(1, classes=3, widths=(4,), blocks=1, norm="none", embedding=8)
    return recipes.class_conditional(open_prior(6), classifier, 2, steps=2, **options)


def test_a_prior_of_any_size_samples_the_size_that_is_asked_for():
    assert recipe(size=(6, 6))(3).samples.shape == (3, 1, 1, 6, 6)


def test_a_prior_of_any_size_asks_for_the_size():
    with pytest.raises(BadInput, match=r"give size=\(H, W\)"):
        recipe()(1)


def test_a_size_other_than_the_priors_own_is_an_error():
    one = recipe(size=(6, 7))
    one.prior.event_shape = (1, 6, 6)
    with pytest.raises(BadInput, match="does not fit"):
        one(1)
