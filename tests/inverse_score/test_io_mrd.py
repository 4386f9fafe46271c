"""ISMRMRD raw data: every readout is accounted for and lands where its counters say."""

import h5py
import numpy as np
import pytest

from inverse_score.errors import BadInput
from inverse_score.io.reading import read_scan
from inverse_score.testing.formats import (
    NAVIGATOR,
    NOISE,
    REVERSE,
    centred_fft,
    centred_image,
    marker_volume,
    mrd_header,
    mrd_lines,
    readout,
    write_mrd,
)

RNG = np.random.default_rng(1)
SLICES, COILS, H, W = 3, 4, 12, 9
MAPS = RNG.standard_normal((COILS, H, W)) + 1j * RNG.standard_normal((COILS, H, W))
IMAGES = marker_volume(SLICES, H, W)[:, None] * MAPS
HEADER = mrd_header((2 * H, W, 1), (H, W, 1), (240, 90, 5), (120, 90, 5), SLICES)
LINES = mrd_lines(IMAGES, 2 * H)


def noise(scale=1.0, count=400, coils=COILS, **fields):
    samples = RNG.standard_normal((coils, count)) + 1j * RNG.standard_normal((coils, count))
    mixing = np.eye(coils) + 0.5 * np.triu(np.ones((coils, coils)), 1)
    return readout(scale * mixing @ samples, NOISE, **fields)


def close(scan, images, tolerance=1e-5):
    for k, image in enumerate(images):
        error = np.abs(centred_image(scan[k]) - image).max()
        assert error < tolerance * np.abs(images).max()


def changed(lines, **fields):
    """The same readouts with header fields replaced."""
    made = []
    for head, samples in lines:
        head = head.copy()
        for name, value in fields.items():
            head[name] = value
        made.append((head, samples))
    return made


def test_a_fully_sampled_scan_is_its_images(tmp_path):
    order = RNG.permutation(len(LINES))
    scan = read_scan(write_mrd(tmp_path / "a.h5", [LINES[k] for k in order], HEADER))
    assert scan.kind == "kspace"
    assert scan.shape == (SLICES, COILS, H, W)
    assert scan.crop == (H, W)
    assert scan.mask is None
    close(scan, IMAGES)


def test_the_ismrmrd_package_writes_what_we_read(tmp_path):
    ismrmrd = pytest.importorskip("ismrmrd")
    # The package opens for appending unless told otherwise: here it is meant to write.
    file = ismrmrd.Dataset(str(tmp_path / "a.h5"), "dataset")
    file.write_xml_header(HEADER.encode())
    for head, samples in LINES:
        pairs = samples.view(np.complex64).reshape(COILS, -1)
        made = ismrmrd.Acquisition.from_array(pairs, center_sample=pairs.shape[1] // 2)
        made.idx.kspace_encode_step_1 = int(head["idx"]["kspace_encode_step_1"])
        made.idx.slice = int(head["idx"]["slice"])
        made.position[:] = head["position"]
        file.append_acquisition(made)
    file.close()
    close(read_scan(tmp_path / "a.h5"), IMAGES)


def test_every_readout_is_kept_or_dropped_for_a_counted_reason(tmp_path):
    dropped = [readout(np.ones((COILS, 2 * H)), NAVIGATOR)] * 2 + [noise(count=20)] * 3
    dropped += changed(LINES[:1], encoding_space_ref=1)
    scan = read_scan(write_mrd(tmp_path / "a.h5", dropped + LINES, HEADER))
    assert scan.notes[0] == (
        "33 readouts: 27 kept; dropped: 2 navigator, 3 noise, 1 other encoding space"
    )
    close(scan, IMAGES, 10)


@pytest.mark.parametrize("flag", [6, 7, 8, 9, 17, 18, 25])
def test_flags_that_mark_first_or_last_lines_drop_nothing(tmp_path, flag):
    lines = changed(LINES, flags=1 << (flag - 1))
    assert (
        "27 kept; dropped: none" in read_scan(write_mrd(tmp_path / "a.h5", lines, HEADER)).notes[0]
    )


def test_lost_readouts_are_an_error_with_numbers(tmp_path):
    with pytest.raises(BadInput, match=r"up to 9 phase encodings, but slice 1: 8"):
        read_scan(write_mrd(tmp_path / "a.h5", LINES[:12] + LINES[13:], HEADER))
    with pytest.raises(BadInput, match="promises 3 slices, readouts fill 2"):
        read_scan(write_mrd(tmp_path / "b.h5", LINES[:18], HEADER))


def test_unmeasured_lines_are_the_mask(tmp_path):
    lines = [line for line in LINES if line[0]["idx"]["kspace_encode_step_1"] not in (1, 7)]
    scan = read_scan(write_mrd(tmp_path / "a.h5", lines, HEADER))
    np.testing.assert_array_equal(np.flatnonzero(~scan.mask), (1, 7))
    assert not scan[2][..., [1, 7]].any()
    assert "2 of 9 phase encodings not measured" in scan.notes


def test_the_centre_of_the_limits_is_the_centre_of_the_grid(tmp_path):
    """Partial Fourier: the first lines are missing and counters start at 0 all the same."""
    lines = [
        changed([line], idx=shifted(line[0]["idx"], -3))[0]
        for line in LINES
        if line[0]["idx"]["kspace_encode_step_1"] >= 3
    ]
    header = HEADER.replace(
        f"<maximum>{W - 1}</maximum><center>{W // 2}</center></kspace_encoding_step_1>",
        f"<maximum>{W - 4}</maximum><center>{W // 2 - 3}</center></kspace_encoding_step_1>",
    )
    assert header != HEADER
    scan = read_scan(write_mrd(tmp_path / "a.h5", lines, header))
    np.testing.assert_array_equal(scan.mask, np.arange(W) >= 3)
    full = read_scan(write_mrd(tmp_path / "b.h5", LINES, HEADER))
    np.testing.assert_allclose(scan[1][..., 3:], full[1][..., 3:])


def shifted(idx, by):
    idx = idx.copy()
    idx["kspace_encode_step_1"] = int(idx["kspace_encode_step_1"]) + by
    return idx


def test_a_partial_echo_lands_by_its_centre_sample(tmp_path):
    """Without oversampling, cut echoes are the full ones with the first rows zero."""
    header = mrd_header((H, W, 1), (H, W, 1), (120, 90, 5), (120, 90, 5), SLICES)
    full = mrd_lines(IMAGES, H)
    cut = [
        (
            changed([line], number_of_samples=H - 3, center_sample=H // 2 - 3)[0][0],
            line[1].view(np.complex64).reshape(COILS, H)[:, 3:].copy().view(np.float32).ravel(),
        )
        for line in full
    ]
    scan = read_scan(write_mrd(tmp_path / "a.h5", cut, header))
    np.testing.assert_array_equal(scan.mask.all(axis=1), np.arange(H) >= 3)
    expected = read_scan(write_mrd(tmp_path / "b.h5", full, header))[0]
    expected[:, :3] = 0
    np.testing.assert_allclose(scan[0], expected)


def test_reversed_and_padded_readouts_are_turned_and_cut(tmp_path):
    made = []
    for head, samples in LINES:
        values = samples.view(np.complex64).reshape(COILS, 2 * H)
        values = np.concatenate([np.full((COILS, 2), 77), values, np.full((COILS, 1), 88)], axis=1)
        head = head.copy()
        head["number_of_samples"], head["center_sample"] = 2 * H + 3, H + 2
        head["discard_pre"], head["discard_post"], head["flags"] = 2, 1, REVERSE
        made.append((head, np.ascontiguousarray(values[:, ::-1], np.complex64).view("f4").ravel()))
    close(read_scan(write_mrd(tmp_path / "a.h5", made, HEADER)), IMAGES)


def test_white_noise_stays_white_and_of_unit_std(tmp_path):
    """The scan's noise, whitened with the noise scan at half its dwell time, has std 1."""
    scans = [
        noise(
            scale=0.02 / np.sqrt(2),
            count=2 * H,
            kspace_encode_step_1=line,
            slice=s,
            position=(0, 0, 5 * s),
        )
        for s in range(SLICES)
        for line in range(W)
    ]
    scans = changed(scans, flags=0)
    prescan = [noise(scale=0.02, count=40_000, sample_time_us=2.5)]
    scan = read_scan(write_mrd(tmp_path / "a.h5", prescan + scans, HEADER))
    assert scan.noise_std == 1.0
    values = np.stack([scan[k] for k in range(SLICES)])
    covariance = np.einsum("sahw,sbhw->ab", values, values.conj()) / (SLICES * H * W)
    # 324 values: 4 standard errors of a variance of 2.
    np.testing.assert_allclose(covariance, 2 * np.eye(COILS), atol=8 / np.sqrt(SLICES * H * W))


def test_averages_are_averaged_and_lower_the_noise(tmp_path):
    again = changed(LINES)
    for head, _ in again:
        head["idx"]["average"] = 1
    again = [(head, 3 * samples) for head, samples in again]
    lines = [noise(scale=1e-6, count=4000), *LINES, *again]
    scan = read_scan(write_mrd(tmp_path / "a.h5", lines, HEADER))
    assert scan.noise_std == pytest.approx(np.sqrt(0.5))
    assert "2 to 2 readouts averaged at each place" in scan.notes
    plain = read_scan(write_mrd(tmp_path / "b.h5", LINES + again, HEADER))
    close(plain, 2 * IMAGES)


def test_a_dead_coil_is_not_amplified(tmp_path):
    samples = RNG.standard_normal((COILS, 400)).astype(complex)
    samples[2] = 0
    scan = read_scan(write_mrd(tmp_path / "a.h5", [readout(samples, NOISE), *LINES], HEADER))
    assert scan.noise_std is None
    assert any("dead coil" in note for note in scan.notes)


def test_siemens_kspace_is_conjugated(tmp_path):
    header = HEADER.replace("GE<", "SIEMENS<")
    lines = [(head, samples.view(np.complex64).conj().view(np.float32)) for head, samples in LINES]
    close(read_scan(write_mrd(tmp_path / "a.h5", lines, header)), IMAGES)


def test_a_marker_keeps_its_place_in_the_patient(tmp_path):
    """Voxel (row 1, column 2) of slice 0, whose centre pixel lies at (10, 20, 30) mm in LPS."""
    scan = read_scan(write_mrd(tmp_path / "a.h5", mrd_lines(IMAGES[:, :1] / MAPS[:1], 2 * H),
                               HEADER))  # fmt: skip
    shown = [centred_image(scan[k])[0] for k in range(SLICES)]
    k, i, j = np.unravel_index(np.argmax(np.abs(shown)), (SLICES, H, W))
    # Rows run along read_dir (+y), columns along phase_dir (+x); pixels are 10 mm.
    lps = np.array([10 + 10 * (2 - W // 2), 20 + 10 * (1 - H // 2), 30])
    np.testing.assert_allclose((scan.affine @ (j, i, k, 1))[:3], lps * (-1, -1, 1), atol=1e-5)
    assert (k, i, j) == (0, 1, 2)


def test_slices_are_ordered_by_place_not_by_number(tmp_path):
    lines = changed(LINES)
    for head, _ in lines:
        head["position"][2] = 30 - 5 * head["idx"]["slice"]
    scan = read_scan(write_mrd(tmp_path / "a.h5", lines, HEADER))
    close(scan, IMAGES[::-1])
    assert scan.affine[2, 2] == pytest.approx(5)
    assert scan.affine[2, 3] == pytest.approx(20)


@pytest.mark.parametrize("undersampled", [False, True])
def test_a_3d_scan_is_cut_along_an_axis_that_is_fully_sampled(tmp_path, undersampled):
    volume = RNG.standard_normal((4, 2, H, W)) + 1j * RNG.standard_normal((4, 2, H, W))
    kspace = centred_fft(volume, (0, 2, 3))
    header = mrd_header((H, W, 4), (H, W, 4), (120, 90, 20), (120, 90, 20), 1)
    lines = [
        readout(kspace[p, :, :, line], kspace_encode_step_1=line, kspace_encode_step_2=p)
        for p in range(4)
        for line in range(W)
        if not (undersampled and (p + line) % 3 == 0)
    ]
    scan = read_scan(write_mrd(tmp_path / "a.h5", lines, header))
    if not undersampled:
        assert scan.shape == (4, 2, H, W)
        close(scan, volume)
        return
    assert scan.shape == (H, 2, 4, W)
    p, line = np.ogrid[:4, :W]
    np.testing.assert_array_equal(scan.mask, (p + line) % 3 != 0)
    expected = centred_fft(volume.transpose(2, 1, 0, 3), (-2, -1)) * scan.mask
    np.testing.assert_allclose(scan[5], expected[5], atol=1e-5)
    # Slices run along the readout, rows along the partitions.
    np.testing.assert_allclose(scan.affine[:3, :3], [[-10, 0, 0], [0, 0, -10], [0, 5, 0]])


def test_counters_with_several_values_must_be_chosen(tmp_path):
    late = changed(LINES)
    for head, _ in late:
        head["idx"]["contrast"] = 4
    path = write_mrd(tmp_path / "a.h5", LINES + [(h, 2 * s) for h, s in late], HEADER)
    with pytest.raises(BadInput, match=r"2 values of contrast \(0 to 4\).*--key contrast=0"):
        read_scan(path)
    close(read_scan(path, key="contrast=4"), 2 * IMAGES)
    with pytest.raises(BadInput, match=r"has contrast \[0, 4\], not 3"):
        read_scan(path, key="contrast=3")
    with pytest.raises(BadInput, match="--key reads"):
        read_scan(path, key="colour=1")


def test_a_noise_scan_in_another_group_is_used(tmp_path):
    path = write_mrd(tmp_path / "a.h5", [noise(count=1000)], HEADER, "dataset_1")
    write_mrd(path, LINES, HEADER, "dataset_2")
    scan = read_scan(path)
    assert scan.noise_std == 1.0
    assert read_scan(path, key="group=dataset_2").shape == scan.shape
    with pytest.raises(BadInput, match="no readout of 1 is image data"):
        read_scan(path, key="dataset_1")


def test_mixed_coils_are_refused(tmp_path):
    odd = readout(np.ones((2, 2 * H)), kspace_encode_step_1=0)
    with pytest.raises(BadInput, match=r"readouts have \[2, 4\] coils"):
        read_scan(write_mrd(tmp_path / "a.h5", [*LINES, odd], HEADER))


def bomb():
    inner = "".join(f'<!ENTITY l{k} "{f"&l{k - 1};" * 10}">' for k in range(1, 10))
    return f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY l0 "ha">{inner}]><ismrmrdHeader>&l9;' \
           "</ismrmrdHeader>"  # fmt: skip


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (bomb(), "DOCTYPE"),
        ('<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><ismrmrdHeader>&e;</ismrmrdHeader>',
         "DOCTYPE"),
        ("<ismrmrdHeader>", "not XML"),
        ("<html/>", "must be an ismrmrdHeader"),
        (HEADER.replace("encodedSpace", "elsewhere"), "no number at encoding/encodedSpace"),
        (HEADER.replace("<x>24</x>", "<x>0</x>"), "must be positive"),
        (HEADER.replace("<x>24</x>", "<x>65536</x>").replace("<y>9</y>", "<y>65536</y>"), "GiB"),
        (HEADER.replace("cartesian", "spiral"), "only Cartesian"),
        (HEADER + " " * (9 << 20), "limit"),
    ],
)  # fmt: skip
def test_a_hostile_header_is_refused(tmp_path, header, message):
    with pytest.raises(BadInput, match=message):
        read_scan(write_mrd(tmp_path / "a.h5", LINES[:1], header))


def test_a_readout_shorter_than_its_header_says_is_named(tmp_path):
    head, samples = LINES[5]
    lines = [*LINES[:5], (head, samples[:-4]), *LINES[6:]]
    scan = read_scan(write_mrd(tmp_path / "a.h5", lines, HEADER))
    with pytest.raises(BadInput, match="readout 5 must hold 4 x 24 complex samples"):
        scan[0]


def test_counters_outside_the_grid_are_refused(tmp_path):
    lines = changed(LINES)
    lines[3][0]["idx"]["kspace_encode_step_1"] = 999
    with pytest.raises(BadInput, match="of a grid of 9"):
        read_scan(write_mrd(tmp_path / "a.h5", lines, HEADER))


def test_another_compound_is_no_raw_data(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["dataset/xml"] = np.array([HEADER.encode()], dtype=object)
        file["dataset/data"] = np.zeros(3, [("a", "i4"), ("b", "f4")])
    with pytest.raises(BadInput, match="must hold ISMRMRD acquisitions"):
        read_scan(tmp_path / "a.h5")
