"""Gaussian mixtures of images as networks, against the closed forms of `GaussianMixturePrior`."""

import pytest
import torch

from inverse_score import GaussianMixturePrior, KarrasSDE, Prior
from inverse_score.io.priors import load_classifier, load_prior, save_classifier, save_prior
from inverse_score.networks.mixture import ImageMixture, MixtureClassifier, MixtureUNet
from inverse_score.posterior import guide

SHAPE, SIZES = (1, 3, 2), {"classes": 2, "components": 2, "dims": 4, "rank": 2}
SDE = {"name": "karras", "sigma_max": 80.0}
UNET = {"widths": [4], "blocks": 1, "patch": 1, "embedding": 8}


def drawn(*shape, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=draw, dtype=torch.float64)


def mixture() -> ImageMixture:
    """One of random parameters in float64, of classes that overlap."""
    found = ImageMixture(SHAPE, **SIZES).double()
    parts = found.state_dict()
    for seed, (name, value) in enumerate(parts.items()):
        parts[name] = 0.5 * drawn(*value.shape, seed=seed)
    parts["basis"] = torch.linalg.qr(drawn(6, 4, seed=50))[0]
    parts["axes"] = torch.linalg.qr(drawn(4, 4, 2, seed=51))[0]
    parts["log_weights"] = parts["log_weights"].log_softmax(0)
    found.load_state_dict(parts)
    return found


def in_full(m: ImageMixture, only: slice = slice(None)) -> GaussianMixturePrior:
    """The same law with its covariances written out."""
    V, rest = m.basis, torch.eye(6, dtype=torch.float64) - m.basis @ m.basis.T
    covs = []
    for U, values, p in zip(m.axes, m.log_values.exp(), m.log_rest.exp(), strict=True):
        C = U * values @ U.T + p * (torch.eye(4, dtype=torch.float64) - U @ U.T)
        covs.append(V @ C @ V.T + m.log_outside.exp() * rest)
    means = (m.mean + m.means @ V.T).reshape(-1, *SHAPE)
    weights = m.log_weights.exp()
    return GaussianMixturePrior(
        weights[only], means[only], torch.stack(covs)[only], KarrasSDE(80.0)
    )


def classifier() -> MixtureClassifier:
    found = MixtureClassifier(SHAPE, sde=SDE, **SIZES).double()
    found.mixture = mixture()
    return found


@pytest.mark.parametrize("s", [0.05, 0.8, 6.0])
def test_the_mixture_denoises_as_its_covariances_written_out_do(s):
    m, x = mixture(), drawn(5, *SHAPE, seed=9)
    torch.testing.assert_close(
        m.denoise(x, torch.full((5,), s, dtype=torch.float64)), in_full(m).denoise(x, s)
    )


@pytest.mark.parametrize("s", [0.05, 0.8, 6.0])
def test_guidance_one_by_the_exact_classifier_gives_exactly_the_law_of_the_class(s):
    """score + grad log p(c | x_t) of a mixture is the score of the class's own components."""
    m, x = mixture(), drawn(5, *SHAPE, seed=9)
    guided = guide(in_full(m), classifier().log_prob(1), scale=1.0)
    torch.testing.assert_close(guided.score(x, s), in_full(m, slice(2, 4)).score(x, s))
    half = guide(in_full(m), classifier().log_prob(1), scale=0.5)
    assert (half.score(x, s) - in_full(m, slice(2, 4)).score(x, s)).abs().max() > 1e-3


def test_the_handover_gives_light_noise_to_the_unet_heavy_to_the_mixture_and_mixes_between():
    net = MixtureUNet(SHAPE, mixture=SIZES, unet=UNET, handover=(0.5, 2.0), sde=SDE).double()
    net.mixture = mixture()
    torch.nn.init.normal_(net.unet.last.weight, generator=torch.Generator().manual_seed(1))
    x, t = drawn(4, *SHAPE, seed=3), torch.tensor([0.1, 0.5, 1.0, 2.0], dtype=torch.float64)
    coarse = net.mixture.denoise(x, t)
    fine = net.unet(x, t, coarse)
    out = net(x, t)
    torch.testing.assert_close(out[:2], fine[:2])
    torch.testing.assert_close(out[3], coarse[3])
    # ln 1 is midway between ln 0.5 and ln 2.
    torch.testing.assert_close(out[2], 0.5 * (fine[2] + coarse[2]))
    for i in range(4):
        torch.testing.assert_close(net(x[i : i + 1], t[i : i + 1])[0], out[i])


def test_the_mixture_divides_by_alpha_as_every_network_of_another_sde_does():
    vp, karras = {"name": "vp"}, {"name": "karras", "sigma_max": 80.0}
    first, second = (MixtureClassifier(SHAPE, sde=sde, **SIZES).double() for sde in (vp, karras))
    first.mixture = second.mixture = mixture()
    x, t = drawn(3, *SHAPE, seed=4), torch.full((3,), 0.4, dtype=torch.float64)
    alpha, s = first.sde.alpha(t), first.sde.ratio(t)
    torch.testing.assert_close(first(alpha[0] * x, t), second(x, s))


def test_both_networks_come_back_from_their_files(tmp_path):
    net = MixtureUNet(SHAPE, mixture=SIZES, unet=UNET, sde=SDE)
    net.mixture.load_state_dict({k: v.float() for k, v in mixture().state_dict().items()})
    prior = Prior(net, KarrasSDE(80.0), output="x0", event_shape=SHAPE)
    save_prior(prior, tmp_path / "p.safetensors")
    x = drawn(2, *SHAPE, seed=5).float()
    again = load_prior(tmp_path / "p.safetensors")
    torch.testing.assert_close(again.denoise(x, 1.5), prior.denoise(x, 1.5))
    guiding = MixtureClassifier(SHAPE, sde=SDE, **SIZES)
    guiding.mixture = net.mixture
    carrier = Prior(guiding, KarrasSDE(80.0))
    save_classifier(carrier, tmp_path / "c.safetensors", storage="float16")
    t = torch.full((2,), 1.5)
    found = load_classifier(tmp_path / "c.safetensors")(x, t)
    torch.testing.assert_close(found, guiding(x, t), atol=0.05, rtol=0)


def test_the_unet_is_told_what_the_mixture_sees():
    net = MixtureUNet(SHAPE, mixture=SIZES, unet=UNET, sde=SDE).double()
    torch.nn.init.normal_(net.unet.last.weight, generator=torch.Generator().manual_seed(1))
    x, t = drawn(2, *SHAPE, seed=3), torch.full((2,), 0.1, dtype=torch.float64)
    before = net(x, t)
    net.mixture = mixture()
    assert (net(x, t) - before).abs().max() > 1e-4


def test_images_of_another_shape_and_sizes_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"of images \(1, 3, 2\); got \(1, 4, 2\)"):
        mixture().denoise(torch.zeros(1, 1, 4, 2), torch.ones(1))
    with pytest.raises(ValueError, match="0 < rank < dims <= pixels"):
        ImageMixture(SHAPE, **{**SIZES, "dims": 7})
    with pytest.raises(ValueError, match="0 < low < high"):
        MixtureUNet(SHAPE, mixture=SIZES, unet=UNET, handover=(2.0, 2.0))
