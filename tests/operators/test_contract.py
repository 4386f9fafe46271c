import math

import pytest
import torch
from operator_zoo import NAMES, SIZES, draw, zoo

from inverse_score.testing.dense import dense, real
from operators import (
    Identity,
    LinearOperator,
    Mask,
    as_channels,
    as_complex,
    check_adjoint,
    conjugate_gradient,
    fft2c,
    ifft2c,
    vstack,
)

CASES = [(size, name) for size in SIZES for name in NAMES]


@pytest.fixture(scope="module")
def operators():
    return {size: zoo(*size) for size in SIZES}


@pytest.mark.parametrize(("size", "name"), CASES)
def test_adjoint_is_exact_at_even_and_odd_sizes(operators, size, name):
    A = operators[size][name]
    assert check_adjoint(A) <= 1e-12
    assert check_adjoint(A.T) <= 1e-12
    assert A.T.T is A


@pytest.mark.parametrize(("size", "name"), CASES[: len(NAMES)])
def test_gradient_is_the_adjoint(operators, size, name):
    A = operators[size][name]
    batch = A.batch or 2
    x = draw((batch, *A.in_shape), 1).requires_grad_()
    y = draw((batch, *A.out_shape), 2, A.out_complex)
    (grad,) = torch.autograd.grad(A(x), x, y)
    torch.testing.assert_close(grad, A.T(y), rtol=1e-10, atol=1e-12)
    yy = y.clone().requires_grad_()
    (grad,) = torch.autograd.grad(A.T(yy), yy, x.detach())
    torch.testing.assert_close(grad, A(x.detach()), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("size", "name"), CASES[: 2 * len(NAMES)])
def test_normal_is_adjoint_of_forward(operators, size, name):
    A = operators[size][name]
    x = draw((A.batch or 2, *A.in_shape), 3)
    torch.testing.assert_close(A.normal(x), A.T(A(x)), rtol=1e-10, atol=1e-10)
    weights = draw((1, *A.out_shape), 4).abs()
    torch.testing.assert_close(A.normal(x, weights), A.T(weights * A(x)))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("size", "name"), CASES[: 2 * len(NAMES)])
def test_solve_normal_equals_the_dense_solve(operators, size, name, weighted):
    A = operators[size][name]
    batch = A.batch or 2
    b, rho = draw((batch, *A.in_shape), 5), torch.tensor([0.3, 1.1], dtype=torch.float64)
    weights = draw((batch, *A.out_shape), 6).abs() if weighted else None
    x = A.solve_normal(b, rho, weights, max_iter=2000)
    for item in range(batch):
        D = dense(A, item)
        W = torch.ones(len(D), dtype=torch.float64)
        if weighted:
            W = real((weights * torch.ones_like(A(b)).abs())[[item]] * (1 + 0j)).reshape(-1, 2)
            W = W[:, 0].repeat_interleave(2) if A.out_complex else W[:, 0]
        M = D.T @ (W[:, None] * D) + rho[item] * torch.eye(D.shape[1], dtype=torch.float64)
        expected = torch.linalg.solve(M, b[item].flatten())
        torch.testing.assert_close(x[item].flatten(), expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(("size", "name"), CASES[: 2 * len(NAMES)])
def test_pinv_equals_the_dense_pseudoinverse(operators, size, name):
    A = operators[size][name]
    y = draw((A.batch or 2, *A.out_shape), 7, A.out_complex)
    x = A.pinv(y, max_iter=5000)
    expected = torch.linalg.pinv(dense(A)) @ real(y)[0]
    torch.testing.assert_close(x[0].flatten(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_norm_is_the_largest_singular_value(operators, name):
    A = operators[SIZES[1]][name]
    found = A.norm(tol=1e-9, max_iter=5000)
    assert found.shape == (() if A.batch is None else (A.batch,))
    expected = torch.linalg.matrix_norm(dense(A), 2)
    torch.testing.assert_close(found.reshape(-1)[0].double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_some_items_of_an_operator_act_as_they_do_among_all(operators, name):
    A = operators[SIZES[1]][name]
    x = draw((2, *A.in_shape), 12)
    y = A(x)
    for index in (1, slice(1, 2), [1], torch.tensor([1])):
        torch.testing.assert_close(A[index](x[1:]), y[1:])
    torch.testing.assert_close(A[[1, 0, 1]](x[[1, 0, 1]]), y[[1, 0, 1]])
    torch.testing.assert_close(A[1].T(y[1:]), A.T(y)[1:])


def test_num_measured_counts_real_numbers_per_item(operators):
    A = operators[(8, 6)]
    assert A["grayscale"].num_measured == 48
    assert A["single coil, columns"].num_measured == 2 * 8 * 4
    assert A["multi-coil, columns"].num_measured == 3 * 2 * 8 * 4
    per_item = A["single coil per item"]
    expected = 2 * per_item.mask.flatten(1).sum(1)
    assert torch.equal(per_item.num_measured, expected)
    assert A["mask of all channels"].num_measured == 3 * int(A["mask"].mask[0].sum())


def test_conjugate_gradient_treats_items_apart_and_reports_each():
    spectrum = torch.stack([torch.ones(6), torch.linspace(1, 50, 6)]).double()
    b = draw((2, 6), 13)
    x, info = conjugate_gradient(lambda v: spectrum[: len(v)] * v, b)
    torch.testing.assert_close(x, b / spectrum)
    assert info.iterations.tolist() == [1, 6]
    assert bool(info.converged.all())
    alone, _ = conjugate_gradient(lambda v: spectrum[1:] * v, b[1:])
    assert torch.equal(alone[0], x[1])
    _, short = conjugate_gradient(lambda v: spectrum * v, b, max_iter=2)
    assert short.converged.tolist() == [True, False]
    assert short.residual[1] > 1e-3


def test_a_preconditioner_changes_the_iterations_and_not_the_solution():
    """With P = M^-1 one iteration; with half of it (a diagonal) fewer than without."""
    d = torch.linspace(1, 1e4, 40).double()
    Q, _ = torch.linalg.qr(torch.eye(40).double() + 0.002 * draw((40, 40), 31))
    M = Q @ torch.diag(d) @ Q.T
    b = draw((2, 40), 32)
    exact = torch.linalg.solve(M, b.T).T
    settings = {"tol": 1e-10, "max_iter": 300}
    plain, without = conjugate_gradient(lambda v: v @ M, b, **settings)
    inverse = torch.linalg.inv(M)
    x, once = conjugate_gradient(lambda v: v @ M, b, precondition=lambda r: r @ inverse, **settings)
    y, few = conjugate_gradient(lambda v: v @ M, b, precondition=lambda r: r / d, **settings)
    for found in (plain, x, y):
        torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-9)
    assert once.iterations.tolist() == [1, 1]
    assert bool((few.iterations < without.iterations / 2).all())


def test_conjugate_gradient_stops_at_the_root_mean_square_it_is_given():
    """|r|_P / sqrt(n) <= rms, an item by its own; zero iterations where b is below it."""
    d = torch.linspace(1, 100, 30).double()
    b = draw((3, 30), 33) * torch.tensor([1.0, 10.0, 0.01]).double()[:, None]
    bound = torch.tensor([0.05, 0.5, 0.05]).double()
    options = {"precondition": lambda r: r / d.sqrt(), "tol": 0.0}
    x, info = conjugate_gradient(lambda v: v * d, b, rms=bound, **options)
    r = b - d * x
    rms = (r.square() / d.sqrt()).mean(1).sqrt()
    assert bool((rms <= bound * (1 + 1e-9)).all())
    assert info.iterations.tolist()[2] == 0
    assert info.iterations[0] == info.iterations[1] > 0
    assert bool(info.converged.all())
    fewer = int(info.iterations[0]) - 1
    x, before = conjugate_gradient(lambda v: v * d, b, rms=bound, max_iter=fewer, **options)
    assert before.converged.tolist() == [False, False, True]
    rms = ((b - d * x).square() / d.sqrt()).mean(1).sqrt()
    assert bool((rms[:2] > bound[:2]).all())


@pytest.mark.parametrize("shape", [(6, 8), (6, 7), (5, 9), (2, 4), (1, 6)])
@pytest.mark.parametrize("complex_input", [True, False])
def test_the_centred_transform_is_its_sum(shape, complex_input):
    """F[k, n] = exp(-2 pi i (k - K // 2) (n - N // 2) / N) / sqrt(N) along each axis."""
    x = torch.complex(draw((2, *shape), 34), draw((2, *shape), 35) * complex_input)
    F = []
    for N in shape:
        at = torch.arange(N) - N // 2
        turns = -2 * math.pi / N * torch.outer(at, at).double()
        F.append(torch.polar(torch.full_like(turns, N**-0.5), turns))
    expected = F[0] @ x @ F[1].T
    given = x if complex_input else x.real
    torch.testing.assert_close(fft2c(given), expected)
    torch.testing.assert_close(ifft2c(expected), x)
    torch.testing.assert_close(fft2c(given, dim=(-1,)), (given + 0j) @ F[1].T)
    y = given.clone().requires_grad_()
    fft2c(y).abs().square().sum().backward()
    torch.testing.assert_close(y.grad, 2 * given)


def test_a_transform_used_for_inference_can_be_differentiated_later():
    """Whatever it keeps between calls."""
    x = torch.complex(draw((1, 14, 22), 36), draw((1, 14, 22), 37))
    with torch.inference_mode():
        fft2c(x)
    y = x.clone().requires_grad_()
    fft2c(y).abs().square().sum().backward()
    torch.testing.assert_close(y.grad, 2 * x)


def test_the_gradient_of_a_masks_solution_is_zero_where_nothing_is_measured():
    """rho = 0: the solution of least norm, whose derivative is the mask."""
    mask = torch.tensor([[[1.0, 0.0], [1.0, 1.0]]])
    b = torch.ones(1, 1, 2, 2, requires_grad=True)
    Mask(mask).solve_normal(b, 0.0).sum().backward()
    assert torch.equal(b.grad[0], mask)


def test_solve_reports_no_iteration_for_a_closed_form_and_some_for_cg(operators):
    A = operators[(8, 6)]
    b = draw((2, 2, 8, 6), 14)
    _, info = A["single coil, grid"].solve_normal(b, 0.5, return_info=True)
    assert info.iterations.tolist() == [0, 0]
    _, info = A["multi-coil, grid"].solve_normal(b, 0.5, return_info=True)
    assert bool((info.iterations > 2).all())
    assert bool((info.residual <= 1e-12).all())


def test_solve_normal_is_differentiable_in_b(operators):
    A = operators[(8, 6)]["multi-coil, grid"]
    b = draw((1, 2, 8, 6), 15).requires_grad_()
    v = draw((1, 2, 8, 6), 16)
    (grad,) = torch.autograd.grad(A.solve_normal(b, 0.4), b, v)
    torch.testing.assert_close(grad, A.solve_normal(v, 0.4))


def test_channels_and_complex_numbers_undo_each_other():
    x = draw((2, 2, 3, 5), 17)
    assert torch.equal(as_channels(as_complex(x)), x)
    assert as_complex(x)[0, 1, 2] == torch.complex(x[0, 0, 1, 2], x[0, 1, 1, 2])


def test_a_call_changes_nothing_and_dtype_follows_the_input(operators):
    for name, A in operators[(9, 7)].items():
        if name in ("scipy", "function"):
            continue
        before = set(vars(A))
        x = draw((A.batch or 1, *A.in_shape), 18).float()
        y = A(x)
        assert y.real.dtype == torch.float32, name
        assert A.T(y).dtype == torch.float32, name
        assert A.solve_normal(x, 0.5).dtype == torch.float32, name
        assert A.pinv(y).dtype == torch.float32, name
        assert set(vars(A)) == before, name


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Identity((1, 4, 4))(torch.ones(1, 1, 4, 5)), r"must be \(B, 1, 4, 4\); got"),
        (
            lambda: Identity((2, 4, 4))(torch.ones(1, 4, 4, dtype=torch.complex64)),
            "as_channels",
        ),
        (lambda: Identity((1, 2)) @ Identity((1, 3)), r"A takes real \(1, 2\), B gives real"),
        (lambda: vstack([Identity((1, 2)), Identity((1, 3))]), "all operators take one x"),
        (lambda: Identity((1, 2)) * torch.ones(2, 2), "a factor is"),
        (lambda: Identity((2,)).solve_normal(torch.ones(1, 2), -1.0), "rho must be finite"),
        (
            lambda: Identity((2,)).solve_normal(torch.ones(1, 2), 1.0, -torch.ones(2)),
            "weights must be real, finite and >= 0",
        ),
        (
            lambda: Identity((2,)).solve_normal(torch.ones(1, 2), 1.0, torch.ones(3)),
            r"weights must broadcast to y \(1, 2\); got \(3,\)",
        ),
        (
            lambda: Mask(torch.ones(3, 1, 2, 2), (1, 2, 2))(torch.ones(2, 1, 2, 2)),
            "parameters of 3 items",
        ),
        (
            lambda: LinearOperator.from_function(lambda x: x + 1, (3,)),
            r"f must be linear; f\(0\) is not 0",
        ),
        (lambda: as_complex(torch.ones(1, 3, 4)), "as_complex takes"),
    ],
)
def test_misuse_is_one_clear_error(build, message):
    with pytest.raises(ValueError, match=message):
        build()
