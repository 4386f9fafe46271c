"""(A^T W A + rho)^-1 kept for many right-hand sides."""

import pytest
import torch
from operator_zoo import NAMES, SIZES, draw, zoo

from inverse_score.fit import Kept
from inverse_score.testing.dense import dense
from operators import CartesianMRI, FromFunction, Mask
from operators.mri.rows import ROWS

H, W = ROWS + 5, 12


def mri(maps: torch.Tensor) -> CartesianMRI:
    mask = torch.zeros(W)
    mask[::4] = mask[W // 2 - 1 : W // 2 + 2] = 1
    return CartesianMRI(mask, maps)


def maps_of(sets: int, varying: float, seed: int = 0) -> torch.Tensor:
    """(sets, 4, H, W): random along a row, and from row to row as far as `varying`."""
    g = torch.Generator().manual_seed(seed)
    row = torch.randn(sets, 4, 1, W, generator=g, dtype=torch.complex128)
    slope = torch.randn(sets, 4, 1, W, generator=g, dtype=torch.complex128)
    return row + varying * torch.linspace(-1, 1, H)[:, None] * slope


@pytest.mark.parametrize("name", NAMES)
def test_it_is_the_formula_where_there_is_one(name):
    A = zoo(*SIZES[0])[name]
    if A.batch is None:
        rho: float | torch.Tensor = torch.tensor([0.3, 2.0]).double()
    else:
        rho = 0.7
    b = draw((A.batch or 2, *A.in_shape), 5, A.in_complex)
    x, info = A.solve_normal(b, rho, return_info=True)
    closed = not bool(info.iterations.any())
    solve = A.resolvent()
    if closed:
        torch.testing.assert_close(solve(rho)(b), x, rtol=1e-6, atol=1e-7)
    elif solve is not None:
        near = A.solve_normal(b, rho, resolvent=solve)
        torch.testing.assert_close(near, x, rtol=1e-7, atol=1e-8)


def test_by_rows_it_is_exact_where_maps_are_the_same_in_every_row():
    """Also in the last, partly filled block; each item with its own rho."""
    A = mri(maps_of(1, 0.0)[0].expand(4, H, W))
    x, rho = draw((3, 2, H, W), 1), torch.tensor([0.01, 0.5, 2.0]).double()
    b = A.normal(x) + rho[:, None, None, None] * x
    torch.testing.assert_close(A.resolvent()(rho)(b), x, rtol=1e-9, atol=1e-9)
    b = 9 * A.normal(x) + rho[:, None, None, None] * x
    torch.testing.assert_close((3 * A).resolvent()(rho)(b), x, rtol=1e-9, atol=1e-9)


def test_by_rows_it_is_symmetric_positive_and_near_the_inverse():
    """Rows that differ by a tenth within a block: eigenvalues of P (N + rho) within 1.5 of one."""
    A, rho = mri(maps_of(1, 0.1)[0]), 0.05
    near = A.resolvent()(rho)
    P, N = (dense(FromFunction(f, A.in_shape, dtype=torch.float64)) for f in (near, A.normal))
    torch.testing.assert_close(P, P.T, rtol=1e-9, atol=1e-9)
    L = torch.linalg.cholesky(P)
    values = torch.linalg.eigvalsh(L.T @ (N + rho * torch.eye(len(N))) @ L)
    assert float(values[0]) > 1 / 1.5
    assert float(values[-1]) < 1.5


def test_by_rows_items_have_their_own_maps_and_repeats_share_one_decomposition():
    stack = mri(maps_of(2, 0.0).expand(2, 4, H, W))
    rho = torch.tensor([0.5, 1.0, 2.0, 3.0]).double()
    before, after = stack[[0, 1, 0, 0]], stack
    assert after.resolvent().owner == [0, 1]
    for A in (before, after[[0, 1, 0, 0]]):
        x = draw((4, 2, H, W), 1)
        b = A.normal(x) + rho[:, None, None, None] * x
        solve = A.resolvent()
        assert len(solve.decomposed) == 2
        assert solve.owner == [0, 1, 0, 0]
        torch.testing.assert_close(solve(rho)(b), x, rtol=1e-9, atol=1e-9)
    assert stack[[1]].resolvent().decomposed is stack.resolvent().decomposed


def test_it_saves_iterations_and_keeps_the_solution():
    A, b = mri(maps_of(1, 0.3)[0]), draw((2, 2, H, W), 2)
    plain, without = A.solve_normal(b, 1e-3, return_info=True, max_iter=2000)
    near, info = A.solve_normal(b, 1e-3, resolvent=A.resolvent(), return_info=True)
    torch.testing.assert_close(near, plain, rtol=1e-7, atol=1e-7)
    assert bool((2 * info.iterations < without.iterations).all())


def test_there_is_none_for_masks_that_mix_rows_or_weights_that_differ(monkeypatch):
    A = mri(maps_of(1, 0.0)[0].expand(4, H, W))
    assert A.resolvent(torch.ones(1, *A.out_shape)) is None
    mixing = torch.ones(H, W)
    mixing[0, 0] = 0
    assert CartesianMRI(mixing, A.sens_maps).resolvent() is None
    monkeypatch.setattr("operators.mri.rows.LARGEST", W * W * 2 - 1)
    assert mri(A.sens_maps).resolvent() is None


def test_a_grid_mask_of_whole_columns_counts_as_columns():
    """What `reconstruct` makes of a file's mask."""
    A = mri(maps_of(1, 0.0)[0].expand(4, H, W))
    grid = CartesianMRI(A.mask.expand(H, W), A.sens_maps)
    assert grid.resolvent() is not None
    x = draw((1, 2, H, W), 3)
    torch.testing.assert_close(grid(x), A(x))
    assert grid.num_measured == A.num_measured


def test_what_inference_mode_decomposed_has_gradients_later():
    A = mri(maps_of(1, 0.0)[0].expand(4, H, W))
    x = draw((1, 2, H, W), 7)
    for dtype in (torch.float32, torch.float64):
        with torch.inference_mode():
            A.resolvent()(0.5)(x.to(dtype))
        b = x.to(dtype, copy=True).requires_grad_()
        (gradient,) = torch.autograd.grad((A.resolvent()(0.5)(b) * b.detach()).sum(), b)
        expected = A.resolvent()(0.5)(b.detach())
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-4)


def test_withheld_columns_leave_the_mask():
    """`fit_check` reconstructs without a tenth of the lines; keep (1, 1, 1, W)."""
    A = mri(maps_of(1, 0.0)[0].expand(4, H, W))
    keep = (torch.arange(W) != 4).double().reshape(1, 1, 1, W)
    kept = Kept(A, keep)
    x = draw((2, 2, H, W), 6)
    b = kept.normal(x) + 0.3 * x
    assert not torch.allclose(kept.normal(x), A.normal(x))
    torch.testing.assert_close(kept.resolvent()(0.3)(b), x, rtol=1e-9, atol=1e-9)


def test_weights_count_in_the_formula():
    g = torch.Generator().manual_seed(0)
    mask = Mask((torch.rand(1, 6, 5, generator=g) < 0.5).float())
    one_coil = CartesianMRI(torch.ones(3, 6, 5), image_shape=(6, 5))
    for A, shape in ((mask, (2, 1, 6, 5)), (one_coil, (1, 1, 6, 5)), (one_coil, (6, 5))):
        weights = torch.rand(shape, generator=g).double() + 0.1
        b = draw((A.batch or 2, *A.in_shape), 4)
        expected = A.solve_normal(b, 0.3, weights)
        torch.testing.assert_close(A.resolvent(weights)(0.3)(b), expected)
