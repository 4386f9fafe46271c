import pytest
import torch

from operators import CartesianMRI


@pytest.mark.parametrize("kept", [3, 30])
def test_normal_by_rows_and_coils_is_adjoint_of_forward(kept, monkeypatch):
    """Few columns go through narrow matrices, many through FFTs; both in blocks of rows."""
    monkeypatch.setattr("operators.mri.normal._SHARE", 4000)
    g = torch.Generator().manual_seed(0)
    H, W = 1100, 33
    mask = torch.zeros(W)
    mask[torch.randperm(W, generator=g)[:kept]] = 1
    A = CartesianMRI(mask, torch.randn(2, H, W, generator=g, dtype=torch.complex128))
    assert (A._frequencies is not None) == (kept == 3)
    x = torch.randn(2, 2, H, W, generator=g, dtype=torch.float64)
    torch.testing.assert_close(A.normal(x), A.T(A(x)), rtol=1e-11, atol=1e-11)
    half = A.normal(x.float()).double()
    assert float((half - A.normal(x)).norm() / half.norm()) < 1e-6


def test_normal_of_items_with_their_own_masks_and_maps_is_that_of_each_alone():
    g = torch.Generator().manual_seed(0)
    mask = (torch.rand(3, 12, 10, generator=g) < 0.5).double()
    A = CartesianMRI(mask, torch.randn(3, 4, 12, 10, generator=g, dtype=torch.complex128))
    x = torch.randn(3, 2, 12, 10, generator=g, dtype=torch.float64)
    together = A.normal(x)
    torch.testing.assert_close(together, A.T(A(x)), rtol=1e-11, atol=1e-11)
    for item in range(3):
        torch.testing.assert_close(together[item : item + 1], A[item].normal(x[item : item + 1]))
    assert A[[]].normal(x[:0]).shape == (0, 2, 12, 10)


def test_normal_has_gradients_for_the_maps():
    g = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 6, 5, generator=g, dtype=torch.complex128, requires_grad=True)
    x = torch.randn(1, 2, 6, 5, generator=g, dtype=torch.float64)
    mask = torch.tensor([1.0, 0, 1, 1, 0])

    def energy(through):
        A = CartesianMRI(mask, maps)
        (gradient,) = torch.autograd.grad((x * through(A)).sum(), maps)
        return gradient

    found = energy(lambda A: A.normal(x))
    torch.testing.assert_close(found, energy(lambda A: A.T(A(x))), rtol=1e-10, atol=1e-10)
