"""The examples on images and scans, tiny: each claim that its text makes."""

import runpy
from pathlib import Path

import pytest
import torch

from inverse_score import GaussianMixturePrior, GaussianPrior, KarrasSDE

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return lambda name: runpy.run_path(str(EXAMPLES / f"{name}.py"))


def smooth(channels, size, *, mean=0.0, variance=0.06, length=4.0, **options):
    """Gaussian images whose pixels correlate as exp(-distance / length), channels apart."""
    place = torch.cartesian_prod(*[torch.arange(float(size), dtype=torch.float64)] * 2)
    cov = variance * (-torch.cdist(place, place) / length).exp()
    cov = torch.block_diag(*[cov] * channels)
    event = torch.full((channels, size, size), mean, dtype=torch.float64)
    return GaussianPrior(event, cov, KarrasSDE(20.0), **options)


def test_filled_in_photographs_keep_their_known_pixels_and_differ_elsewhere(load):
    prior = smooth(3, 12, mean=0.5)
    found = load("inpaint_photo")["main"](size=12, samples=2, steps=8, prior=prior)
    for name, mask in found.masks.items():
        rec = found.recs[name]
        assert torch.allclose(mask * rec.samples[:, 0], (mask * found.photo), atol=1e-5)
        assert float((rec.std[0] * (1 - mask)).max()) > 0.01


def test_colours_average_to_the_grey_that_was_given(load):
    prior = smooth(3, 12, mean=0.5)
    example = load("colorize_photo")
    found = example["main"](size=12, samples=2, steps=8, prior=prior)
    greys = found.rec.samples[:, 0].mean(1, keepdim=True)
    assert torch.allclose(greys, found.grey.expand_as(greys), atol=1e-5)
    assert example["chroma"](found.rec.samples[0, 0]) > 0.05


def test_an_operator_of_ones_own_has_its_adjoint_and_recovers_the_photograph(load):
    prior = smooth(3, 12, mean=0.5)
    example = load("your_own_operator")
    found = example["main"](size=12, samples=2, steps=10, prior=prior)
    assert max(found.gaps.values()) < 1e-12
    A, again = example["Bayer"](12), example["from_function"](12)
    assert torch.allclose(A(found.photo[None]), again(found.photo[None]))
    assert torch.equal(example["mosaic"](4).sum(0), torch.ones(4, 4))
    assert (found.rec.mean[0] - found.photo).square().mean() < 0.5 * found.photo.var()


@pytest.mark.filterwarnings("ignore:the data lie")  # maps of so small a scan are poor
def test_samples_of_the_scan_beat_zero_filling(load):
    found = load("mri_scan")["main"](size=96, samples=2, steps=6)
    assert found.scores["mean of 2"] > found.scores["zero-filled"] + 1
    assert bool(found.rec.misfit.isfinite().all())
    assert float(found.scan.mask.float().mean()) < 0.5


def test_samples_of_the_ct_scan_beat_back_projection(load):
    prior = smooth(1, 24, variance=0.3, range=(1000.0, 0.0), mean=-0.3)
    found = load("ct_scan")["main"](size=24, views=8, samples=2, steps=8, prior=prior)
    assert found.scores["mean of 2"] > found.scores["FBP"] + 1.5


def test_a_module_trained_for_a_few_steps_serves_as_a_prior(load):
    example = load("your_own_prior")
    found = example["main"](train_steps=150, samples=2, steps=6)
    assert sum(found.losses[-10:]) < 0.8 * sum(found.losses[:10])
    assert (found.rec.mean[0] - found.truth).square().mean() < found.truth.square().mean()
    assert found.draws.shape == (2, 1, 16, 16)
    assert not torch.equal(example["rings"](1, 0), example["rings"](1, 1))


def test_ranks_are_uniform_for_the_right_sampler_and_not_for_a_narrow_one(load):
    known = load("uncertainty")["known"]
    right = known(150, 9, method="moment-matching", steps=20)
    assert right.p_value > 1e-3
    assert abs(right.covered - 0.9) < 0.03
    narrow = known(250, 9, method="dds", steps=8)
    assert narrow.p_value < 1e-3
    assert narrow.covered < 0.8


def test_errors_grow_with_the_std_of_the_samples(load):
    example = load("uncertainty")
    photo, rec = example["on_photo"](16, 8, 10, prior=smooth(3, 16, mean=0.5))
    low, high = example["by_std"](photo, rec, bins=2)
    assert low[0] < high[0]
    assert low[1] < high[1]


class TowardsZero(torch.nn.Module):
    """log p(0 | x) grows as the mean of x falls."""

    config = {"classes": 2}  # noqa: RUF012

    def forward(self, x, t):
        mean = 200 * x.flatten(1).mean(1)
        return torch.stack([-mean, mean], 1)

    def log_prob(self, label):
        return lambda x, t: torch.log_softmax(self(x, t), 1)[:, label]


def test_guidance_brings_samples_to_their_class(load):
    means = torch.tensor([-1.0, 1.0])[:, None, None, None].expand(2, 1, 4, 4)
    covs = (0.1 * torch.eye(16)).expand(2, 16, 16)
    prior = GaussianMixturePrior(torch.ones(2), means, covs, KarrasSDE(20.0))
    main = load("digits_by_class")["main"]
    found = main(classes=2, samples=20, steps=15, prior=prior, classifier=TowardsZero())
    assert 0.3 < found.agree[0] < 0.7
    assert found.agree[3] > 0.9


def test_the_sheet_of_panels_holds_every_panel(load, tmp_path):
    panels = load("panels")
    image = panels["grey"](torch.linspace(0, 1, 64).reshape(8, 8), 0, 1)
    panels["sheet"]([[("a", image), ("b", image)], [("c", image)]], tmp_path / "s.png", zoom=2)
    from PIL import Image

    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.size == (36, 2 * (16 + panels["TITLE"]) + 4)
