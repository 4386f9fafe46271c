"""Folders of images as training data: every format, split by person, robust to bad files."""

import numpy as np
import pytest
import torch
from skimage.io import imsave

from inverse_score.data import ImageFolder, from_config, split
from inverse_score.errors import BadInput
from inverse_score.io.formats.fastmri import write_fastmri
from inverse_score.sources import Image, list_images
from inverse_score.testing.formats import centred_fft, dicom_slice, write_dicom_series
from inverse_score.training import train
from inverse_score.training.config import as_config
from inverse_score.training.items import Items
from inverse_score.training.log import read_log

RNG = np.random.default_rng(0)


def pictures(folder, count=6, size=(12, 14), dtype=np.uint8):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        pixels = RNG.integers(0, np.iinfo(dtype).max, size, dtype=dtype)
        imsave(folder / f"{number}.png", pixels, check_contrast=False)
    return folder


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_picture_is_its_integers_over_the_types_largest(tmp_path, dtype):
    folder = pictures(tmp_path, 1, dtype=dtype)
    from skimage.io import imread

    image = list_images(folder).images[0].read()
    assert image.shape == (1, 12, 14)
    np.testing.assert_allclose(image[0], imread(folder / "0.png") / np.iinfo(dtype).max, rtol=1e-6)


def test_colour_becomes_luma_and_grey_becomes_colour_when_asked(tmp_path):
    rgb = np.zeros((4, 5, 3), np.uint8)
    rgb[..., 1] = 255
    imsave(tmp_path / "green.png", rgb, check_contrast=False)
    imsave(tmp_path / "white.png", np.full((4, 5), 255, np.uint8), check_contrast=False)
    grey, white = (image.read() for image in list_images(tmp_path, channels=1).images)
    np.testing.assert_allclose(grey, 0.587, rtol=1e-5)
    np.testing.assert_allclose(white, 1.0)
    assert [image.read().shape for image in list_images(tmp_path, channels=3).images] == [
        (3, 4, 5), (3, 4, 5),
    ]  # fmt: skip


def test_one_damaged_picture_among_many_is_named_once_and_passed_over(tmp_path, capsys):
    folder = pictures(tmp_path / "data", 8)
    (folder / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n rubbish")
    settings = {
        "out": str(tmp_path / "run"), "data": {"path": str(folder), "held_out": 0.0},
        "network": {"name": "unet", "widths": [8], "blocks": 1, "embedding": 16},
        "train": {"steps": 6, "batch_size": 4, "log_every": 0, "measure": False},
    }  # fmt: skip
    train(settings)
    said = capsys.readouterr().err
    assert said.count("skipped: 3.png is no readable picture") == 1
    assert "1 files or images could not be read: 3.png" in said
    assert sum("skipped" in entry for entry in read_log(tmp_path / "run")) == 1


def test_a_folder_of_nothing_but_damaged_files_is_an_error(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.npz").write_bytes(b"rubbish")
    with pytest.raises(BadInput, match=r"no file of .* can be read; the first: 0\.npz"):
        list_images(tmp_path)
    items = Items(ImageFolder((Image("a", "a", "", _raise),) * 3), 0)
    with pytest.raises(BadInput, match="cannot be read; the first: broken"):
        items[0]


def _raise():
    raise BadInput("broken")


@pytest.mark.parametrize(
    ("name", "says"), [("empty", "is empty"), ("missing", "no such file"), ("text", "format must")]
)
def test_a_folder_without_images_says_so(tmp_path, name, says):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "readme.txt").write_text("no image")
    with pytest.raises(BadInput, match=says):
        list_images(tmp_path / name)


def test_rows_of_an_npz_are_images_and_complex_rows_have_two_channels(tmp_path):
    values = RNG.normal(size=(5, 4, 6)) + 1j * RNG.normal(size=(5, 4, 6))
    np.savez(tmp_path / "a.npz", images=values, labels=np.arange(5) % 2)
    found = list_images(tmp_path / "a.npz", key="images").images
    image = found[3].read()
    np.testing.assert_allclose(image[0] + 1j * image[1], values[3], rtol=1e-6)
    settings = as_config({"data": {"path": str(tmp_path / "a.npz"), "key": "images",
                                   "labels": "labels", "held_out": 0.4}})  # fmt: skip
    training, held_out, filled = from_config(settings)
    assert (len(training), len(held_out)) == (3, 2)
    assert filled.data.range == (1.0, 0.0)
    for part in (training, held_out):
        for number, image in enumerate(part.images):
            assert part[number][1] == int(image.name.split()[-1]) % 2


def test_points_of_an_npz_train_as_they_are(tmp_path):
    np.savez(tmp_path / "a.npz", RNG.normal(size=(50, 3)).astype(np.float32))
    prior = train(
        {
            "out": str(tmp_path / "run"), "data": {"path": str(tmp_path / "a.npz")},
            "train": {"steps": 2, "batch_size": 4, "evaluate_every": 1}, "output": "eps",
            "sde": {"name": "vp"},
        },
        network=Points(),
    )  # fmt: skip
    assert prior.event_shape == (3,)


class Points(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(3, 3)

    def forward(self, x, t):
        return self.net(x)


def test_a_ct_series_is_in_hounsfield_units_unclipped_with_its_fixed_range(tmp_path):
    volume = RNG.integers(0, 3000, (4, 6, 8)).astype(np.int16)
    volume[0, 0, 0] = 3100
    tags = {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -1024}
    write_dicom_series(tmp_path / "ct", volume, **tags)
    training, held_out, settings = from_config(as_config({"data": {"path": str(tmp_path / "ct")}}))
    assert held_out is None
    assert settings.data.range == (1000.0, -500.0)
    slices = torch.stack([training[k] for k in range(4)])
    np.testing.assert_allclose(
        np.sort(slices.numpy().ravel()), np.sort(volume.ravel()) - 1024.0, atol=1e-3
    )
    assert Items(training, 0, range=(1000.0, -500.0))[0][0].max() <= 2.576 + 1e-6


def test_an_mr_series_is_divided_by_one_scale_of_its_volume(tmp_path):
    volume = RNG.integers(1, 900, (4, 6, 8)).astype(np.uint16)
    write_dicom_series(tmp_path / "mr", volume)
    images = [image.read() for image in list_images(tmp_path / "mr").images]
    scale = np.percentile(volume, 99.5)
    np.testing.assert_allclose(
        np.sort(np.stack(images).ravel()), np.sort(volume.ravel()) / scale, rtol=1e-5
    )


def test_a_damaged_dicom_file_is_named_and_the_others_are_used(tmp_path, capsys):
    folder = write_dicom_series(tmp_path / "mr", RNG.integers(1, 900, (4, 6, 8)).astype(np.uint16))
    (folder / "bad.dcm").write_bytes(next(folder.iterdir()).read_bytes()[:300])
    found = list_images(folder)
    assert len(found.images) == 4
    assert len(found.complaints) == 1
    assert "bad.dcm" in found.complaints[0]
    train(
        {
            "out": str(tmp_path / "run"), "data": {"path": str(folder)},
            "network": {"name": "unet", "widths": [8], "blocks": 1, "embedding": 16},
            "train": {"steps": 1, "batch_size": 2, "measure": False},
        }
    )  # fmt: skip
    said = capsys.readouterr().err
    assert "skipped: bad.dcm" in said
    assert "1 files or images could not be read: bad.dcm" in said


def test_a_person_is_never_on_both_sides_of_a_split(tmp_path):
    for person in range(5):
        for series in range(2):
            pixels = RNG.integers(1, 900, (6, 8)).astype(np.uint16)
            made = dicom_slice(
                pixels, (0, 0, series), (1, 0, 0, 0, 1, 0), PatientID=f"P{person}",
                SeriesInstanceUID=f"1.2.{person}.{series}",
            )  # fmt: skip
            made.save_as(tmp_path / f"{person}{series}.dcm", enforce_file_format=True)
    found = list_images(tmp_path)
    assert not any("P0" in image.group for image in found.images)
    training, held_out = split(ImageFolder(tuple(found.images)), 0.4, seed=1)
    assert (len(training), len(held_out)) == (6, 4)
    assert not {i.group for i in training.images} & {i.group for i in held_out.images}
    whole, none = split(ImageFolder(tuple(found.images)), 0.0)
    assert (len(whole), len(none)) == (10, 0)


def test_a_split_does_not_change_when_other_files_come(tmp_path):
    def folder(names):
        return ImageFolder(tuple(Image(name, name, "", _raise) for name in names))

    few = [f"{k}.h5" for k in range(40)]
    held = {i.group for i in split(folder(few), 0.25, seed=0)[1].images}
    more = {i.group for i in split(folder([*few, "new.h5"]), 0.25, seed=0)[1].images}
    assert len(held - more) <= 1


def test_single_coil_k_space_becomes_the_complex_image_it_was_made_of(tmp_path):
    images = RNG.normal(size=(3, 8, 10)) + 1j * RNG.normal(size=(3, 8, 10))
    kspace = centred_fft(images, (-2, -1))
    write_fastmri(
        tmp_path / "a.h5", kspace, references={"reconstruction_esc": np.abs(images)},
        attributes={"patient_id": "someone"},
    )  # fmt: skip
    found = list_images(tmp_path).images
    assert "someone" not in found[0].group
    scale = np.percentile(np.abs(images), 99.5)
    read = np.stack([image.read() for image in found])
    np.testing.assert_allclose(read[:, 0] + 1j * read[:, 1], images / scale, atol=1e-5)


def test_multi_coil_k_space_needs_the_combination_that_the_recipe_gives(tmp_path):
    from recipes.training_images import MRITrainingImages

    y, x = np.mgrid[-1:1:32j, -1:1:32j]
    body = (1.0 + 0.5 * np.cos(6 * x)) * (x**2 + y**2 < 0.7)
    coils = np.stack([np.exp(-((x - a) ** 2 + (y - b) ** 2) + 1j * a * y)
                      for a, b in ((1, 0), (-1, 0), (0, 1), (0, -1))])  # fmt: skip
    coils /= np.sqrt((np.abs(coils) ** 2).sum(0))
    kspace = centred_fft((coils * body)[None], (-2, -1))
    write_fastmri(tmp_path / "a.h5", kspace, references={"reconstruction_rss": body[None]})
    with pytest.raises(BadInput, match="4 coils; pass kspace_images"):
        list_images(tmp_path)
    (found,) = list_images(tmp_path, kspace_images=MRITrainingImages).images
    read = found.read()
    magnitude = np.hypot(*read)
    inside = body > 0
    ratio = magnitude[inside] / body[inside]
    assert ratio.std() < 0.05 * ratio.mean()
    # The phase rule leaves an image that is nearly real and positive.
    assert np.abs(read[1]).mean() < 0.1 * np.abs(read[0]).mean()


def test_undersampled_k_space_is_no_training_data(tmp_path):
    kspace = centred_fft(RNG.normal(size=(2, 8, 10)) + 0j, (-2, -1))
    mask = np.arange(10) % 2 == 0
    write_fastmri(
        tmp_path / "a.h5", kspace * mask, mask=mask,
        references={"reconstruction_esc": np.ones((2, 8, 10))},
    )  # fmt: skip
    with pytest.raises(BadInput, match="undersampled"):
        list_images(tmp_path)


def test_resizing_keeps_the_mean_and_gives_the_size(tmp_path):
    folder = pictures(tmp_path / "data", 3, size=(40, 30))
    settings = as_config({"data": {"path": str(folder), "resize": [20, 15], "held_out": 0.0}})
    training, _, _ = from_config(settings)
    assert training[0].shape == (1, 20, 15)
    assert training[0].mean() == pytest.approx(float(training.images[0].read().mean()), abs=0.02)


def test_labels_come_from_the_names_of_folders(tmp_path):
    for name in ("cat", "ant"):
        pictures(tmp_path / name, 2)
    settings = as_config({"data": {"path": str(tmp_path), "labels": "folders", "held_out": 0.0}})
    training, _, _ = from_config(settings)
    assert [training[k][1] for k in range(4)] == [0, 0, 1, 1]
