import pytest
import torch

from operators import CartesianMRI


@pytest.mark.parametrize("kept", [3, 30])
def test_normal_by_rows_and_coils_is_adjoint_of_forward(kept):
    """Few columns go through narrow matrices, many through FFTs; both in blocks of rows."""
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
