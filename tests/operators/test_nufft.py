import math

import pytest
import torch

from operators import CartesianMRI, check_adjoint

pytest.importorskip("pytorch_finufft")
from operators import NonCartesianMRI


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def trajectory(count=70):
    g = torch.Generator().manual_seed(1)
    return (2 * torch.rand(count, 2, generator=g, dtype=torch.float64) - 1) * math.pi


def maps(*shape):
    return torch.complex(draw(*shape, seed=2), draw(*shape, seed=3))


@pytest.mark.parametrize("size", [(8, 6), (9, 7)])
def test_samples_equal_the_direct_sum_over_pixels(size):
    """y_k = sum_p S_p x_p exp(-i k . (p - n // 2)) / sqrt(H W)."""
    H, W = size
    points, S = trajectory(), maps(3, H, W)
    x = draw(2, 2, H, W)
    rows, columns = (torch.arange(n, dtype=torch.float64) - n // 2 for n in size)
    phase = points[:, 0, None, None] * rows[:, None] + points[:, 1, None, None] * columns
    kernel = torch.polar(torch.ones_like(phase), -phase) / math.sqrt(H * W)
    expected = torch.einsum("khw,bchw->bck", kernel, S * torch.complex(x[:, 0], x[:, 1])[:, None])
    y = NonCartesianMRI(points, size, S)(x)
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
    single = NonCartesianMRI(points, size, S)(x.float())
    assert single.dtype == torch.complex64
    assert float((single - expected).norm() / expected.norm()) < 1e-5


@pytest.mark.parametrize("size", [(8, 6), (9, 7)])
@pytest.mark.parametrize("coils", [None, (3,), (2, 3)])
def test_adjoint_of_the_nonuniform_transform_is_exact(size, coils):
    S = None if coils is None else maps(*coils, *size)
    A = NonCartesianMRI(trajectory().float(), size, S)
    assert A.batch == (2 if coils == (2, 3) else None)
    assert check_adjoint(A) <= 1e-12


def test_on_the_grid_it_is_the_cartesian_transform():
    H, W = 8, 7
    k = [2 * math.pi / n * (torch.arange(n, dtype=torch.float64) - n // 2) for n in (H, W)]
    points = torch.stack(torch.meshgrid(*k, indexing="ij"), -1).reshape(-1, 2)
    x, S = draw(1, 2, H, W), maps(2, H, W)
    cartesian = CartesianMRI(torch.ones(H, W), S)(x)
    y = NonCartesianMRI(points, (H, W), S)(x)
    torch.testing.assert_close(y, cartesian.flatten(2), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (torch.zeros(5, 3), r"trajectory must be \(K, 2\); got \(5, 3\)"),
        (torch.full((5, 2), 4.0), "radians per pixel"),
        (torch.full((5, 2), math.nan), "radians per pixel"),
    ],
)
def test_impossible_trajectories_are_refused(points, message):
    with pytest.raises(ValueError, match=message):
        NonCartesianMRI(points, (8, 8))
