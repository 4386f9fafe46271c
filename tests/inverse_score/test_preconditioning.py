"""The preconditioner of moment matching, against dense matrices."""

import pytest
import torch

from inverse_score import KarrasSDE, Prior
from inverse_score.posterior import ErrorSpectrum
from inverse_score.posterior.covariance import dct, idct
from inverse_score.posterior.measurement import LinearMeasurement
from inverse_score.posterior.moments import SpectrumMatching
from inverse_score.posterior.preconditioning import Preconditioner, normal_in_basis
from inverse_score.testing.dense import dense
from operators import (
    CartesianMRI,
    FromFunction,
    Identity,
    LinearOperator,
    Mask,
    conjugate_gradient,
)

SIZE, WINDOW = 12, 5


class Filter(LinearOperator):
    """A = F^T h F: exactly diagonal in the DCT."""

    def __init__(self, h: torch.Tensor):
        super().__init__(tuple(h.shape), tuple(h.shape))
        self.h = h

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return idct(self.h.to(x) * dct(x))

    adjoint = forward


def spectrum(channels: int, local: bool = True) -> ErrorSpectrum:
    """c = 100 / (1 + k^2), k the coefficient's distance from the constant, at every level."""
    k = torch.arange(SIZE).double()
    c = (100 / (1 + k[:, None] ** 2 + k**2)).flatten().tolist()
    scale = [[[1.0, 1.0], [1.0, 1.0]]] * 2
    found = {"window": WINDOW, "activity": [0.1, 1.0], "level": [0.0, 1.0], "scale": scale}
    card = {
        "sigma": [0.1, 10.0],
        "basis": "dct",
        "channels": torch.eye(channels).tolist(),
        "bins": "full",
        "shape": [SIZE, SIZE],
        "values": [[c] * channels] * 2,
    }
    return ErrorSpectrum({**card, **({"local": found} if local else {})})


def measured(operator: LinearOperator, noise_std: float = 0.1) -> LinearMeasurement:
    dtype = torch.complex128 if operator.out_complex else torch.float64
    return LinearMeasurement(operator, torch.zeros(1, *operator.out_shape, dtype=dtype), noise_std)


def matrices(operator: LinearOperator, S: torch.Tensor, local: bool = True, noise_std: float = 0.1):
    """P and M = I + R^T N R, dense, and the Preconditioner."""
    data, F = measured(operator, noise_std), spectrum(operator.in_shape[0], local)
    P = Preconditioner(data, F)
    c = F.at(1.0, torch.empty(1, *operator.in_shape).double())
    apply = P.at(c, S)

    def matrix(z: torch.Tensor) -> torch.Tensor:
        root = c.sqrt()
        return root * F.forward(S * data.normal(S * F.inverse(root * z))) + z

    maps = (FromFunction(f, operator.in_shape, dtype=torch.float64) for f in (apply, matrix))
    return *(dense(A) for A in maps), P


def quiet_half() -> torch.Tensor:
    """S (1, 1, SIZE, SIZE), 0.4 in one half and 1.4 in the other: mean square about 1."""
    return torch.where(torch.arange(SIZE) < SIZE // 2, 0.4, 1.36).repeat(1, 1, SIZE, 1).double()


def spread(P: torch.Tensor, M: torch.Tensor) -> float:
    """The largest over the smallest eigenvalue of P M, by which CG converges."""
    L = torch.linalg.cholesky(P)
    values = torch.linalg.eigvalsh(L.T @ M @ L)
    return float(values[-1] / values[0])


def mri(coils: int) -> CartesianMRI:
    columns = torch.arange(SIZE) % (2 if coils == 1 else 4) == 0
    if coils == 1:
        return CartesianMRI(columns, image_shape=(SIZE, SIZE))
    at = torch.linspace(-1, 1, SIZE).double()
    maps = torch.stack([torch.exp(-((at - centre) ** 2)) * torch.ones(SIZE, 1) for centre in at])
    maps = maps[:: SIZE // coils] * torch.exp(1j * at[:, None])
    return CartesianMRI(columns, maps / maps.abs().square().sum(0).sqrt())


def half_the_pixels() -> Mask:
    draw = torch.rand(1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    return Mask(draw < 0.5)


def test_it_is_the_inverse_where_the_basis_diagonalises_all():
    """P = (I + c d)^-1 with d = h^2 / noise^2, exactly, for S = 1."""
    h = torch.rand(1, SIZE, SIZE, generator=torch.Generator().manual_seed(1)).double() + 0.1
    P, M, _ = matrices(Filter(h), torch.ones(1, 1, SIZE, SIZE).double(), local=False)
    torch.testing.assert_close(P @ M, torch.eye(SIZE**2).double(), atol=1e-9, rtol=1e-9)


def test_where_the_data_decide_it_undoes_the_scale_exactly():
    """q = c s^2 d >> 1 everywhere: P M = I up to 1 / q, here 1e-3, whatever S."""
    P, M, _ = matrices(Identity((1, SIZE, SIZE)), quiet_half(), noise_std=1e-3)
    z = torch.randn(SIZE**2, generator=torch.Generator().manual_seed(2)).double()
    torch.testing.assert_close(P @ (M @ z), z, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize(
    ("operator", "closed"),
    [(half_the_pixels(), True), (mri(1), True), (mri(4), True), (Identity((1, SIZE, SIZE)), False)],
    ids=["mask", "mri, 1 coil", "mri, 4 coils", "identity"],
)
def test_it_is_symmetric_and_positive_and_needs_fewer_iterations_than_a_diagonal(operator, closed):
    """CG takes about the root of P M's spread; (I + c s^2 d)^-1 leaves more than three times it."""
    P, M, found = matrices(operator, quiet_half())
    torch.testing.assert_close(P, P.T, atol=1e-9, rtol=1e-9)
    assert float(torch.linalg.eigvalsh(P)[0]) > 0
    assert (found.resolvent is not None) == closed
    c = spectrum(operator.in_shape[0]).at(1.0, torch.empty(1, *operator.in_shape).double())
    square = float(quiet_half().square().mean())
    plain = torch.diag((1 / (1 + c * square * found.diagonal)).flatten())
    assert 3 * spread(P, M) < spread(plain, M)


def test_row_norms_are_those_of_the_matrix_up_to_the_smoothing():
    """A mask keeps half the pixels: rows of F N F^T have square 0.5 n^2, diagonal 0.5 n."""
    data = measured(half_the_pixels())
    diagonal, rows = normal_in_basis(data, spectrum(1), probes=64)
    kept, n = float(half_the_pixels().mask.double().mean()), 100.0
    assert float(diagonal.mean()) == pytest.approx(kept * n, rel=0.03)
    assert float(rows.square().mean()) == pytest.approx(kept * n**2, rel=0.03)


def test_it_is_the_identity_where_nothing_is_measured():
    """c the same at all coefficients: P z = z on pixels that a mask drops, whatever q."""
    flat = {**spectrum(1, local=False).card, "values": [[[3.0] * SIZE**2]] * 2}
    for noise_std in (0.01, 1.0):
        P = Preconditioner(measured(half_the_pixels(), noise_std), ErrorSpectrum(flat))
        c = P.spectrum.at(1.0, torch.empty(1, 1, SIZE, SIZE).double())
        z = dct(torch.where(half_the_pixels().mask, 0.0, 1.0).double()[None])
        found = P.at(c, torch.ones(1, 1, 1, 1).double())(z)
        torch.testing.assert_close(found, z, rtol=1e-5, atol=1e-5)


def scattered_mri() -> CartesianMRI:
    """Four coils and a mask that mixes rows."""
    mask = torch.rand(SIZE, SIZE, generator=torch.Generator().manual_seed(3)) < 0.25
    return CartesianMRI(mask, mri(4).sens_maps)


OPERATORS = {
    "mask": (half_the_pixels(), 1.5),
    "mri, 1 coil": (mri(1), 1.5),
    "mri, 4 coils": (mri(4), 1.5),
    "mri, 4 coils, a mask that mixes rows": (scattered_mri(), 3.5),
    "filter": (Filter(torch.linspace(0.1, 1, SIZE**2).reshape(1, SIZE, SIZE).double()), 1.5),
}


@pytest.mark.parametrize(("operator", "factor"), OPERATORS.values(), ids=OPERATORS)
def test_where_cg_stops_the_residual_tells_the_error(operator, factor):
    """(e^T M e / n)^1/2 is about `rms` times `hidden`, e = z - M^-1 b, and `hidden` 1 if known."""
    _, M, P = matrices(operator, quiet_half())
    c = spectrum(operator.in_shape[0]).at(1.0, torch.empty(1, *operator.in_shape).double())
    apply, n = P.at(c, quiet_half()), len(M)
    b = (
        torch.linalg.cholesky(M)
        @ torch.randn(n, generator=torch.Generator().manual_seed(4)).double()
    )

    def matrix(z: torch.Tensor) -> torch.Tensor:
        return (M @ z.flatten()).reshape(z.shape)

    assert (float(P.hidden) > 1.2) == (factor > 2)
    for rms in (0.1, 0.01, 0.001):
        z, _ = conjugate_gradient(
            matrix, b.reshape(1, *operator.in_shape), precondition=apply, rms=rms, max_iter=500
        )
        e = z.flatten() - torch.linalg.solve(M, b)
        assert float((e @ M @ e / n).sqrt()) < factor * rms * P.hidden


def test_rho_is_of_the_coefficients_that_measured_and_unmeasured_share():
    """rho = d / (2 + q), q its mean with the weights q / (1 + q)^2 of E."""
    P = Preconditioner(measured(half_the_pixels()), spectrum(1, local=False))
    d, seen = float(P.mean), []
    P.resolvent = lambda rho: seen.append(float(rho)) or (lambda b: b)
    q = torch.full((1, 1, SIZE, SIZE), 1e4).double()
    q[..., :, : SIZE // 2] = 1.0
    P.at(q / d, torch.ones(1, 1, 1, 1).double())
    few, many = 1 / 4, 1e4 / 1.0001e4**2
    assert seen[0] == pytest.approx(d / (2 + (few + many * 1e4) / (few + many)), rel=1e-3)


def test_an_item_has_the_same_preconditioner_whoever_is_beside_it():
    """Also beside one that is fully sampled, whose N the basis does diagonalise."""
    z = torch.randn(2, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(5)).double()
    S = quiet_half().expand(2, -1, -1, -1)
    masks = torch.stack([half_the_pixels().mask, torch.ones(1, SIZE, SIZE, dtype=torch.bool)])

    def applied(items: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        A = Mask(masks[items], (1, SIZE, SIZE))
        data = LinearMeasurement(A, torch.zeros(len(items), *A.out_shape).double(), 0.1)
        P = Preconditioner(data, spectrum(1))
        return P.at(spectrum(1).at(1.0, z[items]), S[items])(z[items]), P.scattered

    both, scattered = applied([0, 1])
    assert scattered.tolist() == [True, False]
    for i in (0, 1):
        alone, own = applied([i])
        torch.testing.assert_close(both[i : i + 1], alone, rtol=1e-9, atol=1e-9)
        assert own.tolist() == [scattered.tolist()[i]]


def test_moment_matching_goes_further_where_the_residual_hides(monkeypatch):
    """CG gets tol / hidden, an item's own."""
    seen = []

    def recorded(matrix, b, **options):
        seen.append(options["rms"])
        return b, None

    monkeypatch.setattr("inverse_score.posterior.moments.conjugate_gradient", recorded)
    prior = Prior(lambda x, t: 0 * x, KarrasSDE(80.0), output="x0", event_shape=(2, SIZE, SIZE))
    prior.card["error_spectrum"] = spectrum(2, local=False).card
    x = torch.ones(1, 2, SIZE, SIZE).double()
    for A in (mri(4), scattered_mri()):
        matching = SpectrumMatching(prior, measured(A), tol=0.01)
        matching.denoise(x, 1e-3)
        assert float(seen[-1]) == pytest.approx(0.01 / float(matching.precondition.hidden))
    assert float(seen[1]) < 0.8 * float(seen[0])


def test_a_measurement_solves_with_its_operators_resolvent():
    data, b = measured(mri(4), 0.05), torch.randn(1, 2, SIZE, SIZE).double()
    _, near = data.solve(b, 0.5, return_info=True)
    _, plain = data.operator.solve_normal(b, 0.5 * 0.05**2, return_info=True)
    assert bool((3 * near.iterations < plain.iterations).all())


def test_solutions_with_noise_that_differs_or_lines_left_out_know_their_weights():
    """data.solve and data.resolvent against dense matrices, before and after `masked`."""
    g = torch.Generator().manual_seed(6)
    for A, formula in ((half_the_pixels(), True), (mri(1), True), (mri(4), False)):
        y = torch.zeros(1, *A.out_shape, dtype=torch.complex128 if A.out_complex else torch.float64)
        keep = torch.ones(1, *A.out_shape)
        keep[..., : SIZE // 2] = 0
        noise = 0.1 + torch.rand(1, *A.out_shape, generator=g).double()
        for data in (LinearMeasurement(A, y, noise), LinearMeasurement(A, y, 0.2)):
            data.solve(torch.zeros(1, *A.in_shape).double(), 0.5)
            for part in (data, data.masked(keep)):
                N = dense(FromFunction(part.normal, A.in_shape, dtype=torch.float64))
                b = torch.randn(1, *A.in_shape, generator=g).double()
                x = torch.linalg.solve(N + 0.5 * torch.eye(len(N)), b.flatten()).reshape(b.shape)
                torch.testing.assert_close(part.solve(b, 0.5), x, rtol=1e-6, atol=1e-7)
                if formula:
                    torch.testing.assert_close(part.resolvent()(0.5)(b), x, rtol=1e-6, atol=1e-7)
