"""Every closed form of every operator and of what is made of it, against dense matrices."""

import pytest
import torch
from operator_zoo import NAMES, draw, zoo

from operators import CartesianMRI, Diagonal, EachSlice, Grayscale, Mask, Radon, vstack
from operators.form_checks import forms_gaps
from operators.observed import Observed

SIZES = [(6, 5), (5, 8)]
FORMS = ("svd", "row_gram", "transform", "solve", "pinv", "near", "fbp", "sense")


def kept(A, items):
    keep = draw((items, *A.out_shape), 3) > -0.4
    return torch.cat([torch.ones_like(keep[:1, :1]), keep[:1, 1:]], 1) if items == 1 else keep


WRAPPERS = {
    "itself": lambda A: A,
    "one item": lambda A: A[[1]],
    "items turned round": lambda A: A[[1, 0]],
    "in single precision": lambda A: A.to(torch.float32),
    "times a number": lambda A: -0.3 * A,
    "times a number an item": lambda A: A * torch.tensor([2.0, -3.0], dtype=torch.float64),
    "observed": lambda A: Observed(A, kept(A, 1)),
    "observed an item": lambda A: Observed(A, kept(A, 2)),
    "observed and scaled": lambda A: 2.5 * Observed(A, kept(A, 2)),
    "scaled and observed": lambda A: Observed(A * torch.tensor([0.5, -2.0]), kept(A, 1)),
    "its adjoint": lambda A: A.T,
    "composed": lambda A: Diagonal(draw(A.out_shape, 4), complex=A.out_complex) @ A,
    "stacked": lambda A: vstack([A, 0.5 * A]),
    "every slice": lambda A: EachSlice(A, 2) if len(A.in_shape) == 3 else A,
    "every slice, scaled": lambda A: -0.7 * EachSlice(A, 2) if len(A.in_shape) == 3 else A,
}


def present(A):
    return {name for name in FORMS if getattr(A.forms, name) is not None}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("size", SIZES)
def test_every_form_is_what_the_dense_matrix_says(size, wrapper):
    for name, A in zoo(*size).items():
        wrapped = WRAPPERS[wrapper](A)
        for item in range(wrapped.batch or 1):
            try:
                forms_gaps(wrapped, item)
            except ValueError as error:
                raise AssertionError(f"{name}, {wrapper}, item {item}: {error}") from error


@pytest.mark.parametrize("name", NAMES)
def test_a_factor_keeps_every_form_and_the_family(name):
    A = zoo(*SIZES[0])[name]
    assert present(-0.3 * A) == present(A)
    assert (2.0 * (3.0 * A)).forms.family == A.forms.family


@pytest.mark.parametrize("name", NAMES)
def test_a_factor_of_zero_keeps_no_form_that_divides(name):
    A = 0.0 * zoo(*SIZES[0])[name]
    assert present(A) <= {"svd", "row_gram"}
    forms_gaps(A)


def test_which_forms_there_are():
    """A form that is lost is not wrong, and no comparison with a matrix would see it."""
    A, closed = zoo(8, 6), {"svd", "transform", "solve", "pinv"}
    assert present(A["mask per item"]) == closed | {"row_gram", "near"}
    assert present(A["observed mask"]) == closed | {"row_gram", "near"}
    for name in ("identity", "grayscale", "block means", "hartley sensing", "hadamard sensing"):
        assert present(A[name]) == closed | {"row_gram"}, name
    for name in ("motion blur", "bicubic", "single coil, grid", "observed k-space"):
        assert present(A[name]) == closed, name
    assert present(A["coil by coil"]) == closed | {"sense"}
    assert present(A["diagonal"]) == {"row_gram", "solve", "pinv"}
    assert present(A["multi-coil, columns"]) == {"near"}
    assert present(A["parallel beam"]) == {"fbp"}
    assert present(Radon(8, torch.arange(6) * torch.pi / 6)) == {"fbp", "transform"}
    assert present(EachSlice(Radon(8, torch.arange(6) * torch.pi / 6), 2)) == {"fbp"}
    for name in ("composition", "stack of one shape", "function", "operators per item"):
        assert present(A[name]) == set(), name
    blurred = Observed(A["gaussian blur"], kept(A["gaussian blur"], 1))
    assert present(blurred) == {"solve"}
    assert blurred.resolvent() is None


@pytest.mark.parametrize("views", [6, 7])
def test_measured_views_of_ct_are_a_part_of_a_transform_also_through_a_mask(views):
    radon = Radon((6, 5), torch.arange(views) * torch.pi / views, pixel_size=0.7)
    for A in (radon, -2.0 * radon, Observed(2.0 * radon, kept(radon, 2))):
        transform, x = A.forms.transform, draw((2, *A.in_shape), 5)
        assert not transform.exact
        z = transform.T(x)
        assert 0 < float(transform.mask.sum()) < z.numel()
        torch.testing.assert_close(transform.embed(A(x)), transform.mask * z)
    assert Radon(8, [0.0, 0.1234, 1.777]).forms.transform is None


def test_coil_images_of_one_image_that_agrees_with_the_data_are_left_as_they_are():
    """S A_S^T (y - A_S S^T x) vanishes there, and moves towards it elsewhere, also scaled."""
    A = zoo(8, 6)["coil by coil"]
    image = torch.complex(draw((2, 1, 8, 6), 6), draw((2, 1, 8, 6), 7))
    x = torch.view_as_real(A.sens_maps * image).movedim(-1, 2).flatten(1, 2)
    for B in (A, -3.0 * A):
        torch.testing.assert_close(B.forms.sense(x, B(x)), torch.zeros_like(x))
        step = B.forms.sense(0 * x, B(x))
        assert float((step * x).sum()) > 0.2 * float((x * x).sum())


def test_what_is_made_of_an_operator_names_its_family():
    """Tables go by it: a mask and a factor leave it, other wrappers are families of their own."""
    A = CartesianMRI(torch.ones(5), image_shape=(6, 5))
    assert (2.0 * A).forms.family == "CartesianMRI"
    assert Observed(A, kept(A, 1)).forms.family == "CartesianMRI"
    assert EachSlice(A, 2).forms.family == "EachSlice"
    assert (Diagonal(torch.ones(1, 6, 5), complex=True) @ A).forms.family == "Composition"


def test_a_mask_on_colours_is_inpainting_of_the_known_coordinate():
    """One number of y is one coefficient: masked singular values, not masked pixels."""
    gray = Grayscale((3, 4, 5))
    keep = Mask(draw((1, 4, 5), 8) > 0).mask
    svd = Observed(gray, keep).forms.svd
    s = svd.s.expand(1, 3, 4, 5)[0]
    torch.testing.assert_close(s[0], gray.weights.norm() * keep[0])
    assert not bool(s[1:].any())
