"""Image recipes: exact data kept, right posteriors, every kind of picture read as expected."""

import numpy as np
import pytest
import torch

import recipes
from inverse_score import VPSDE, GaussianPrior, PatchWise
from inverse_score.errors import BadInput, BadPrior
from inverse_score.randomness import Noise
from operators import REC601, CompressedSensing, Downsample, GaussianBlur
from recipes.pictures import grid, read_mask, read_picture, write_picture


def gaussian(channels: int, size: int = 8) -> GaussianPrior:
    """Smooth images: covariance 0.15^2 exp(-distance / 4) in space, 0.7 between channels."""
    i = torch.arange(size, dtype=torch.float64)
    distance = torch.cdist(torch.cartesian_prod(i, i), torch.cartesian_prod(i, i))
    colours = torch.full((channels, channels), 0.7, dtype=torch.float64)
    colours.fill_diagonal_(1.0)
    cov = torch.kron(colours, 0.15**2 * torch.exp(-distance / 4))
    mean = torch.full((channels, size, size), 0.5, dtype=torch.float64)
    return GaussianPrior(mean, cov, VPSDE())


def image(prior: GaussianPrior) -> torch.Tensor:
    draw = Noise(5, [0])(torch.empty(1, prior.cov.shape[0], dtype=torch.float64), 0)[0]
    return (prior.mean.flatten() + torch.linalg.cholesky(prior.cov) @ draw).reshape(
        prior.mean.shape
    )


def posterior_error(rec, exact_mean, exact_cov) -> float:
    """Largest error of the samples' mean, in posterior standard errors."""
    error = (rec.mean[0].double() - exact_mean).flatten()
    std = exact_cov.diagonal().clamp(min=1e-8).sqrt()
    known = exact_cov.diagonal() < 1e-8
    assert float(error[known].abs().max() if known.any() else 0.0) < 1e-4
    return float((error[~known].abs() / std[~known]).max()) * rec.num_samples**0.5


def test_inpainting_keeps_known_pixels_and_ignores_what_is_in_the_holes():
    prior = gaussian(1)
    x = image(prior).float()
    mask = torch.ones(8, 8)
    mask[2:6, 3:7] = 0
    holes = torch.where(mask.bool(), x, torch.full_like(x, torch.nan))
    rec = recipes.inpainting(prior, mask)(holes, num_samples=4)
    known = mask.bool().expand_as(rec.samples)
    torch.testing.assert_close(rec.samples[known], x.expand_as(rec.samples)[known])
    assert float(rec.misfit.max()) < 1e-6
    assert float(rec.std[0][~mask.bool()[None]].min()) > 0.01


def test_noisy_inpainting_has_the_mean_of_the_exact_posterior():
    prior = gaussian(1)
    x = image(prior)
    mask = (torch.arange(64).reshape(8, 8) % 2).double()
    y = mask * (x + 0.1 * Noise(1, [0])(x[None], 0)[0])
    rec = recipes.inpainting(prior, mask, noise_std=0.1, budget="accurate")(y, num_samples=256)
    from operators import Mask

    exact = prior.posterior(y[None], Mask(mask, image_shape=(1, 8, 8)), 0.1)
    assert posterior_error(rec, exact.mean[0], exact.cov[0]) < 4.5


@pytest.mark.parametrize(("weights", "w"), [("mean", (1 / 3,) * 3), ("rec601", REC601)])
def test_colorization_gives_colours_with_exactly_the_grey_that_was_seen(weights, w):
    prior = gaussian(3)
    x = image(prior).float()
    grey = (torch.tensor(w)[:, None, None] * x).sum(0, keepdim=True)
    rec = recipes.colorization(prior, weights=weights)(grey, num_samples=2)
    seen = (torch.tensor(w)[:, None, None] * rec.samples).sum(2)
    torch.testing.assert_close(seen, grey.expand_as(seen), atol=1e-5, rtol=0)


def test_colours_of_the_shipped_prior_s_samples_are_no_stronger_than_a_photograph_s():
    from skimage import data

    photo = torch.from_numpy(data.astronaut()[:128:4, 150:278:4].copy()).movedim(-1, 0) / 255
    rec = recipes.colorization("photo-patches")(photo.mean(0, keepdim=True), 1, steps=12)

    def chroma(x):
        return float((x - x.mean(0)).square().mean().sqrt())

    assert 0.02 < chroma(rec.samples[0, 0]) < 2 * chroma(photo)


def test_super_resolution_and_compressed_sensing_explain_their_data():
    prior = gaussian(1)
    x = image(prior).float()[None]
    rec = recipes.super_resolution(prior, 2)(Downsample((1, 8, 8), 2)(x), num_samples=2)
    assert float(rec.misfit.max()) < 1e-5
    A = CompressedSensing((1, 8, 8), 24, seed=1)
    y = A(x) + 0.02 * Noise(2, [0])(A(x), 0)
    rec = recipes.compressed_sensing(prior, A, noise_std=0.02)(y, num_samples=8)
    assert 0.3 < float(rec.misfit.mean()) < 3.0


def test_deblurring_takes_either_a_std_or_a_kernel():
    prior = gaussian(1)
    y = GaussianBlur((1, 8, 8), 1.0)(image(prior).float()[None])
    rec = recipes.deblurring(prior, std=1.0, noise_std=0.02)(y, num_samples=2)
    assert rec.samples.shape == (2, 1, 1, 8, 8)
    with pytest.raises(ValueError, match="one of the two"):
        recipes.deblurring(prior)


def test_interpolation_starts_and_ends_at_its_images():
    prior = gaussian(1)
    first, last = image(prior).float(), (1 - image(prior)).float()
    path = recipes.interpolation(prior, first, last, count=3)
    torch.testing.assert_close(path[0], first, atol=0.01, rtol=0)
    torch.testing.assert_close(path[-1], last, atol=0.01, rtol=0)


class LinearClassifier(torch.nn.Module):
    """log p(c | x) for two classes by the sign of the mean; the same at every noise level."""

    def __init__(self):
        super().__init__()
        self.config = {"classes": 2}

    def log_prob(self, label):
        sign = 1.0 if label == 1 else -1.0
        return lambda x, t: torch.nn.functional.logsigmoid(
            sign * 40.0 * (x.flatten(1).mean(1) - 0.5)
        )


def test_class_guidance_moves_samples_to_the_class():
    prior = gaussian(1)
    means = [
        recipes.class_conditional(prior, LinearClassifier(), label)(16, dtype=torch.float64)
        .samples.mean()
        .item()
        for label in (0, 1)
    ]
    assert means[0] < 0.49 < 0.51 < means[1]
    with pytest.raises(BadInput, match="from 0 to 1; got 2"):
        recipes.class_conditional(prior, LinearClassifier(), 2)


def test_a_prior_of_other_channels_or_a_mask_of_another_size_is_refused():
    with pytest.raises(BadPrior, match="prior of 3 channels; it has 1"):
        recipes.colorization(gaussian(1))
    with pytest.raises(BadInput, match=r"image's size \(8, 8\); got \(4, 4\)"):
        recipes.inpainting(gaussian(1), torch.ones(4, 4))(torch.zeros(1, 8, 8))


def test_a_yaml_recipe_names_no_code_and_suggests_the_nearest_key(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("recipe: deblurring\nprior: nowhere\noperator: {stdd: 1.0}\n")
    with pytest.raises(BadInput, match=r"unknown key 'operator.stdd'; did you mean 'std'"):
        recipes.load(path)
    path.write_text("recipe: os.system\nprior: x\n")
    with pytest.raises(BadInput, match="recipe must be one of mri, ct"):
        recipes.load(path)


def test_a_yaml_recipe_of_a_class_draws_images_of_the_size_that_it_or_its_prior_names(
    tmp_path, tiny_priors
):
    path, text = tmp_path / "r.yaml", "recipe: class-conditional\nprior: digits\n"
    for size in ("", ", size: [28, 28]"):
        path.write_text(text + f"operator: {{label: 3, scale: 1.5{size}}}\nmethod: {{steps: 2}}\n")
        recipe = recipes.load(path)
        assert (recipe.label, recipe.scale) == (3, 1.5)
        rec = recipe(2)
        assert rec.samples.shape == (2, 1, 1, 28, 28)
        assert bool(rec.misfit.isnan().all())
    for size in ("28", "[28]", "[28, -1]", "[28.5, 28]"):
        path.write_text(text + f"operator: {{label: 3, size: {size}}}\n")
        with pytest.raises(BadInput, match=r"operator.size must be \[height, width\]"):
            recipes.load(path)
    path.write_text(text + "operator: {label: 3, size: [28, 20]}\n")
    with pytest.raises(BadInput, match=r"size \(28, 20\) does not fit the prior's event_shape"):
        recipes.load(path)(1)
    with pytest.raises(BadInput, match=r"give size=\(H, W\)"):
        recipes.class_conditional(tiny_priors["ct"], "digits-classifier", 3)(1)


def test_a_yaml_recipe_couples_slices_and_denoises_in_patches(tmp_path, tiny_priors):
    path = tmp_path / "r.yaml"
    text = f"recipe: ct\nprior: {tiny_priors['ct']}\noperator: {{size: 20, views: 12}}\n"
    path.write_text(
        text + "method: {steps: 2}\nvolume: {between_slices: 30}\npatches: {size: 16}\n"
    )
    recipe = recipes.load(path)
    assert recipe.between_slices == 30.0
    patches = recipe.recipe.prior
    assert (type(patches), patches.size, patches.overlap) == (PatchWise, 16, 4)
    sinograms = recipe.recipe.radon(torch.zeros(3, 1, 20, 20)) + 0.1 * torch.rand(3, 1, 12, 1)
    rec = recipe(sinograms + 0.01 * torch.randn(sinograms.shape), num_samples=2)
    assert rec.samples.shape == (2, 1, 1, 3, 20, 20)
    assert rec.method.startswith("dds")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recipe: deblurring\nvolume: {between_slices: 1.0}", "slices belong to mri and ct"),
        ("recipe: mri\nvolume: {between_slice: 1.0}", "did you mean 'between_slices'"),
        ("recipe: mri\nvolume: {}", "volume.between_slices is missing"),
        ("recipe: mri\npatchs: {size: 16}", "did you mean 'patches'"),
        ("recipe: mri\npatches: {sizes: 16}", "did you mean 'size'"),
        ("recipe: class-conditional\npatches: {size: 16}", "a class is of the whole image"),
    ],
)
def test_patches_and_volumes_that_make_no_sense_are_refused(tmp_path, tiny_priors, text, message):
    path = tmp_path / "r.yaml"
    path.write_text(f"{text}\nprior: {tiny_priors['mri']}\n")
    with pytest.raises(BadInput, match=message):
        recipes.load(path)


@pytest.mark.parametrize("bits", [8, 16])
def test_pictures_of_any_depth_are_read_into_the_unit_interval(tmp_path, bits):
    from skimage.io import imsave

    top = 2**bits - 1
    values = np.linspace(0, top, 64).reshape(8, 8).astype(np.uint8 if bits == 8 else np.uint16)
    imsave(tmp_path / "a.png", values, check_contrast=False)
    found = read_picture(tmp_path / "a.png")
    assert (found.shape, float(found.min()), float(found.max())) == ((1, 8, 8), 0.0, 1.0)
    assert read_picture(tmp_path / "a.png", 3).shape == (3, 8, 8)


def test_a_turned_photo_is_read_upright(tmp_path):
    from PIL import Image

    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    found = read_picture(tmp_path / "a.png")
    assert found.shape == (3, 8, 4)
    assert float(found[:, 0].min()) == 1.0


def test_transparency_text_files_and_grey_masks_are_refused_by_name(tmp_path):
    from PIL import Image

    Image.fromarray(np.full((4, 4, 4), 100, np.uint8)).save(tmp_path / "alpha.png")
    with pytest.raises(BadInput, match=r"alpha.png has transparent pixels"):
        read_picture(tmp_path / "alpha.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(BadInput, match=r"text.png cannot be read as a picture"):
        read_picture(tmp_path / "text.png")
    Image.fromarray(np.full((4, 4), 100, np.uint8)).save(tmp_path / "grey.png")
    with pytest.raises(BadInput, match="neither black nor white"):
        read_mask(tmp_path / "grey.png")


def test_a_written_picture_reads_back(tmp_path):
    x = torch.arange(48).reshape(3, 4, 4) / 47
    write_picture(tmp_path / "a.png", x)
    torch.testing.assert_close(read_picture(tmp_path / "a.png"), x, atol=0.5 / 255, rtol=0)
    assert grid(torch.zeros(5, 3, 4, 4), columns=3).shape == (3, 10, 16)
