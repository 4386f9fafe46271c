import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from inverse_score.testing.dense import dense
from operators import Radon, check_adjoint, from_hounsfield, to_hounsfield

ELLIPSES = [
    (1.0, 0.0, 0.0, 0.39, 0.31, 0.3),
    (-0.5, 0.08, -0.1, 0.1, 0.16, 1.0),
    (0.8, -0.16, 0.12, 0.05, 0.04, 0.0),
]
FAN = {"source_distance": 1.6, "detector_distance": 1.2}


def phantom(n, finer=8):
    """Ellipses in the unit square, mean value of each of n x n pixels."""
    c = (np.arange(n * finer) + 0.5) / (n * finer) - 0.5
    X, Y = np.meshgrid(c, -c)
    image = np.zeros_like(X)
    for value, x0, y0, a, b, phi in ELLIPSES:
        u = (X - x0) * np.cos(phi) + (Y - y0) * np.sin(phi)
        v = -(X - x0) * np.sin(phi) + (Y - y0) * np.cos(phi)
        image += value * ((u / a) ** 2 + (v / b) ** 2 <= 1)
    return torch.from_numpy(image.reshape(n, finer, n, finer).mean((1, 3)))[None, None]


def line_integrals(theta, s):
    """Closed form: chord lengths of the ellipses times their values."""
    total = 0
    for value, x0, y0, a, b, phi in ELLIPSES:
        r2 = (a * np.cos(theta - phi)) ** 2 + (b * np.sin(theta - phi)) ** 2
        t = s - x0 * np.cos(theta) - y0 * np.sin(theta)
        total = total + value * 2 * a * b * np.sqrt(np.maximum(r2 - t**2, 0)) / r2
    return torch.from_numpy(total)[None, None]


def scan(n, geometry="parallel", views=90, **options):
    angles = np.arange(views) * (np.pi if geometry == "parallel" else 2 * np.pi) / views
    fan = {} if geometry == "parallel" else FAN
    return Radon(n, angles, geometry=geometry, pixel_size=1 / n, **fan, **options)


@pytest.mark.parametrize("geometry", ["parallel", "fan-flat", "fan-arc"])
def test_radon_converges_to_the_integrals_of_ellipses_at_first_order(geometry):
    """Their edges jump, so the first order is the best a pixel grid allows."""
    errors = []
    for n in (24, 48, 96, 192):
        A = scan(n, geometry, views=24)
        exact = line_integrals(*A.geometry.rays())
        errors.append(float((A(phantom(n)) - exact).norm() / exact.norm()))
    assert errors[-1] < 0.007
    assert 0.8 < math.log2(errors[0] / errors[-1]) / 3 < 1.3


@pytest.mark.parametrize("geometry", ["parallel", "fan-flat", "fan-arc"])
def test_radon_converges_to_the_integrals_of_a_gaussian_at_second_order(geometry):
    errors, width = [], 0.1
    for n in (32, 64, 128):
        A = scan(n, geometry, views=24)
        c = (torch.arange(n, dtype=torch.float64) + 0.5) / n - 0.5
        x = torch.exp(-((c - 0.05) ** 2 + (-c[:, None] - 0.02) ** 2) / (2 * width**2))[None, None]
        theta, s = A.geometry.rays()
        t = torch.from_numpy(s - 0.05 * np.cos(theta) - 0.02 * np.sin(theta))[None, None]
        exact = width * math.sqrt(2 * math.pi) * torch.exp(-(t**2) / (2 * width**2))
        errors.append(float((A(x) - exact).norm() / exact.norm()))
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert 1.7 < min(orders) <= max(orders) < 2.3


def test_radon_is_exact_along_the_axes_of_a_constant_image():
    A = Radon((6, 5), [0.0, math.pi / 2], 5, pixel_size=0.5)
    y = A(torch.ones(1, 1, 6, 5))
    torch.testing.assert_close(y[0, 0, 0], torch.full((5,), 3.0))
    torch.testing.assert_close(y[0, 0, 1], torch.full((5,), 2.5))


def test_angle_turns_counter_clockwise_from_the_right():
    x = torch.zeros(1, 1, 9, 9)
    x[0, 0, 4, 7] = 1.0  # 3 to the right
    x[0, 0, 2, 4] = 10.0  # 2 upwards
    y = Radon(9, [0.0, math.pi / 2, math.pi], 9)(x)
    assert y[0, 0, 0].tolist() == [0, 0, 0, 0, 10, 0, 0, 1, 0]
    torch.testing.assert_close(y[0, 0, 1], torch.tensor([0.0, 0, 0, 0, 1, 0, 10, 0, 0]))
    torch.testing.assert_close(y[0, 0, 2], y[0, 0, 0].flip(0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [64, 65, (64, 70)])
@pytest.mark.parametrize(
    ("options", "copies"),
    [
        ({"views": 48}, 8),
        ({"views": 45}, 4),
        ({"views": 48, "geometry": "fan-flat"}, 8),
        ({"views": 48, "part": 2 / 3}, 6),
        ({"views": 48, "detector_offset": 0.003}, 2),
        ({"views": 48, "geometry": "fan-arc", "detector_offset": 0.003}, 4),
    ],
)
def test_stored_symmetric_and_recomputed_rays_give_one_operator(size, options, copies):
    n = size if isinstance(size, int) else size[1]
    views, geometry = options["views"], options.get("geometry", "parallel")
    angles = np.arange(views) * (np.pi if geometry == "parallel" else 2 * np.pi) / views
    angles = angles[: round(views * options.get("part", 1))]
    more = {"pixel_size": 1 / n, "detector_offset": options.get("detector_offset", 0.0)}
    more |= {} if geometry == "parallel" else FAN
    stored = Radon(size, angles, geometry=geometry, **more)
    if isinstance(size, int):
        assert stored.memory(torch.float64)["copies"] == copies
    whole = stored.memory(torch.float64)["bytes"]
    assert stored.memory(torch.float64)["both"]
    x = torch.rand(2, 1, *stored.in_shape[1:], dtype=torch.float64)
    y = stored(x)
    # One view at a time has no symmetry to use.
    plain = torch.cat([Radon(size, [a], y.shape[-1], geometry, **more)(x) for a in angles], 2)
    torch.testing.assert_close(y, plain, rtol=1e-8, atol=1e-10)
    for limit, share in ((0.7 * whole, 1), (0.3 * whole, 0.9), (0, 0.2)):
        split = Radon(size, angles, geometry=geometry, memory_limit=limit, **more)
        assert split.memory(torch.float64)["stored"] <= share
        assert not split.memory(torch.float64)["both"]
        torch.testing.assert_close(split(x), y, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(split.T(y), stored.T(y), rtol=1e-9, atol=1e-10)
        assert check_adjoint(split) <= 1e-12


@pytest.mark.parametrize("share", [1.0, 0.7])
def test_tiles_give_the_operator_that_one_tile_gives(share, monkeypatch):
    """With both orders of the weights, and with one."""
    whole = scan(65, views=48)
    limit = share * whole.memory(torch.float64)["bytes"] * 1.1
    x = torch.rand(2, 1, 65, 65, dtype=torch.float64)
    y = whole(x)
    monkeypatch.setattr("operators.ct.stored._TILE", 1000)
    monkeypatch.setattr("operators.ct.stored._SCATTERED_TILE", 1000)
    A = scan(65, views=48, memory_limit=limit)
    stored = A.projector(x).stored
    assert len(stored.tiles) == 4
    assert stored.both == (share == 1.0)
    torch.testing.assert_close(A(x), y, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(A.T(y), whole.T(y), rtol=1e-12, atol=1e-12)


def test_memory_stays_within_the_limit_and_falls_by_the_symmetries():
    equispaced = scan(128).memory()
    random = Radon(128, np.random.default_rng(0).uniform(0, np.pi, 90)).memory()
    assert equispaced["copies"] == 8
    assert random["copies"] == 2
    assert equispaced["bytes"] < random["bytes"] / 2
    limited = Radon(128, np.random.default_rng(0).uniform(0, np.pi, 90), memory_limit=5e6)
    assert limited.memory()["bytes"] < 5e6 + 2e6
    assert 0 < limited.memory()["stored"] < 1


def test_equispaced_angles_in_float32_keep_their_symmetries():
    double = scan(64, views=60)
    single = Radon(64, torch.arange(60) * math.pi / 60, pixel_size=1 / 64)
    assert single.memory()["copies"] == 8
    torch.testing.assert_close(single.angles, double.angles, rtol=0, atol=1e-12)
    uneven = torch.rand(20)
    assert torch.equal(Radon(64, uneven).angles, uneven.double())


def test_float32_agrees_with_float64():
    A, x = Radon(64, np.linspace(0, 3, 37)), torch.rand(3, 1, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(A(x.float()).double(), A(x), rtol=1e-5, atol=1e-5)
    free = Radon(64, np.linspace(0, 3, 37), memory_limit=0)
    torch.testing.assert_close(free(x.float()).double(), A(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("limit", [400e6, 0])
def test_no_items_give_no_sinograms_and_no_images(limit):
    A = Radon(64, np.arange(60) * np.pi / 60, memory_limit=limit)
    assert A(torch.ones(0, 1, 64, 64)).shape == (0, *A.out_shape)
    assert A.T(torch.ones(0, *A.out_shape)).shape == (0, 1, 64, 64)


@pytest.mark.parametrize("items", [1, 2, 8, 11])
def test_items_of_a_batch_are_projected_as_each_alone(items):
    A = Radon(64, np.arange(60) * np.pi / 60)
    x = torch.rand(items, 1, 64, 64)
    y = A(x)
    alone = torch.cat([A(item[None]) for item in x])
    torch.testing.assert_close(y, alone, rtol=1e-5, atol=1e-4)
    back = torch.cat([A.T(item[None]) for item in y])
    torch.testing.assert_close(A.T(y), back, rtol=1e-5, atol=1e-2)


def test_gradients_of_gradients_exist():
    A = Radon(8, [0.1, 1.0])
    x = torch.rand(1, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(A(x).square().sum() / 2, x, create_graph=True)
    (second,) = torch.autograd.grad(grad.sum(), x)
    torch.testing.assert_close(second, A.normal(torch.ones_like(x)))


@pytest.mark.parametrize(
    ("geometry", "views", "span"),
    [
        ("parallel", 180, math.pi),
        ("parallel", 360, 2 * math.pi),
        ("fan-flat", 360, 2 * math.pi),
        ("fan-arc", 360, 2 * math.pi),
        ("fan-flat", 250, 250 * math.pi / 180),
        ("fan-arc", 250, 250 * math.pi / 180),
    ],
)
def test_fbp_recovers_ellipses_in_their_own_units(geometry, views, span):
    n = 96
    fan = {} if geometry == "parallel" else FAN
    A = Radon(n, 0.4 + np.arange(views) * span / views, geometry=geometry, pixel_size=1 / n, **fan)
    x, y = phantom(n), line_integrals(*A.geometry.rays())
    found = A.fbp(y)
    assert abs(float(found.sum() / x.sum()) - 1) < 0.003
    assert float((found - x).norm() / x.norm()) < 0.06
    inside = found[0, 0, 46:50, 28:32].mean()
    assert abs(float(inside) - 1) < 0.02


def test_fbp_filters_smooth_in_their_order():
    A, x = scan(64), phantom(64)
    y = A(x) + 0.02 * torch.randn(A(x).shape, generator=torch.Generator().manual_seed(0))
    roughness = [
        float(A.fbp(y, name).diff(dim=-1).norm())
        for name in ("ramp", "shepp-logan", "cosine", "hamming", "hann")
    ]
    assert roughness == sorted(roughness, reverse=True)
    with pytest.raises(ValueError, match="filter must be one of ramp"):
        A.fbp(y, "butterworth")


def test_sparse_views_are_a_part_of_the_full_scan():
    A = scan(32, views=12)
    transform, x = A.forms.transform, phantom(32)
    assert not transform.exact
    z = transform.T(x)
    assert int(transform.mask.sum()) == 12
    torch.testing.assert_close(transform.embed(A(x)), transform.mask * z, rtol=1e-6, atol=1e-8)
    assert float((transform.T_inv(z) - x).norm() / x.norm()) < 0.3
    assert Radon(32, [0.0, 0.1234, 1.777]).forms.transform is None


@pytest.mark.parametrize("geometry", ["parallel", "fan-flat", "fan-arc"])
def test_a_bin_of_several_rays_is_their_mean(geometry):
    A = scan(24, geometry, 7, detectors=9, detector_spacing=4 / 24, rays_per_bin=3)
    thin = scan(24, geometry, 7, detectors=27, detector_spacing=4 / 72)
    x = torch.rand(2, 1, 24, 24, dtype=torch.float64)
    torch.testing.assert_close(A(x), thin(x).unflatten(-1, (9, 3)).mean(-1))
    assert check_adjoint(A) <= 1e-12


def test_several_rays_halve_the_error_of_bins_wider_than_pixels():
    n, wide = 128, 3
    errors = []
    for rays in (1, 3):
        A = scan(n, views=40, detectors=61, detector_spacing=wide / n, rays_per_bin=rays)
        exact = line_integrals(*A.geometry.split(64).rays()).unflatten(-1, (-1, 64)).mean(-1)
        errors.append(float((A(phantom(n)) - exact).norm() / exact.norm()))
    assert errors[1] < 0.5 * errors[0]


def test_matrix_rows_are_joseph_weights():
    """A ray at tan(theta) = 1/2 crosses rows 1/2 pixel apart, each with length 1 / cos."""
    theta = math.atan(0.5)
    D = dense(Radon((3, 5), [theta], 1))
    step = 1 / math.cos(theta)
    expected = torch.zeros(3, 5, dtype=torch.float64)
    expected[1, 2] = step
    # Upwards (row 0, Y = 1) the ray X cos + Y sin = 0 lies at X = -1/2.
    expected[0, 1] = expected[0, 2] = step / 2
    expected[2, 2] = expected[2, 3] = step / 2
    torch.testing.assert_close(D.reshape(3, 5), expected)


def test_hounsfield_units_are_minus_1000_in_air_and_0_in_water():
    mu = torch.tensor([0.0, 0.0193, 0.0386])
    torch.testing.assert_close(to_hounsfield(mu), torch.tensor([-1000.0, 0.0, 1000.0]))
    torch.testing.assert_close(from_hounsfield(to_hounsfield(mu)), mu)


def test_radon_equals_astras_linear_projector():
    astra = pytest.importorskip("astra")
    n, angles = 96, np.arange(40) * np.pi / 40
    A, x = Radon(n, angles), phantom(n).float()
    volume = astra.create_vol_geom(n, n)
    beam = astra.create_proj_geom("parallel", 1.0, A.out_shape[-1], angles)
    W = astra.OpTomo(astra.create_projector("linear", beam, volume))
    theirs = torch.from_numpy((W * x.numpy().ravel()).reshape(1, *A.out_shape))
    assert float((A(x) - theirs).norm() / theirs.norm()) < 2e-5


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Radon(8, [0.0, math.nan]), r"angles must be \(A,\) finite"),
        (lambda: Radon(8, []), r"angles must be \(A,\)"),
        (lambda: Radon(8, [0.0], 0), "detectors must be at least 1"),
        (lambda: Radon(8, [0.0], rays_per_bin=0), "rays_per_bin must be a whole number"),
        (lambda: Radon(8, [0.0], pixel_size=-1.0), "pixel_size must be positive"),
        (lambda: Radon(8, [0.0], geometry="cone"), "geometry must be one of parallel"),
        (lambda: Radon(8, [0.0], source_distance=9.0), "a parallel beam has no source"),
        (lambda: Radon(8, [0.0], geometry="fan-arc"), "needs source_distance"),
        (
            lambda: Radon(8, [0.0], geometry="fan-flat", source_distance=5.0),
            "beyond the image's corner at 5.65685 mm; got 5.0",
        ),
        (lambda: Radon(8, [0.0])(torch.ones(1, 1, 8, 9)), r"must be \(B, 1, 8, 8\)"),
    ],
)
def test_impossible_scans_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("n", [16, 17])
def test_at_0_and_90_degrees_each_bin_of_the_default_detector_sees_one_column_or_row(n):
    """A uniform square: every ray inside meets n pixels, and none lies on the border."""
    y = Radon(n, [0.0, math.pi / 2])(torch.ones(1, 1, n, n, dtype=torch.float64))[0, 0]
    inside = y > 1e-9
    assert inside.sum(-1).tolist() == [n, n]
    torch.testing.assert_close(y[inside], torch.full((2 * n,), float(n), dtype=torch.float64))
