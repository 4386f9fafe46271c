"""`check_operator` passes what is right and names what is wrong."""

from dataclasses import replace

import pytest
import torch
from operator_zoo import NAMES, zoo

from operators import Identity, LinearOperator, Mask, Radon, check_adjoint, check_operator
from operators.forms import Forms


class Altered(LinearOperator):
    """Mask with one form or method replaced."""

    def __init__(self, **changes):
        super().__init__((1, 3, 4), (1, 3, 4))
        self.inner = Mask(torch.arange(12).reshape(1, 3, 4) % 3 > 0)
        self.changes = changes

    def forward(self, x):
        return self.changes.get("forward", self.inner.forward)(x)

    def adjoint(self, y):
        return self.changes.get("adjoint", self.inner.adjoint)(y)

    @property
    def forms(self):
        make = self.changes.get("forms", lambda forms: forms)
        return make(self.inner.forms)


@pytest.mark.parametrize("name", NAMES)
def test_every_operator_passes(name):
    A = zoo(6, 5)[name]
    if name == "scipy":
        return  # one matrix entry type for both precisions
    gaps = check_operator(A)
    assert gaps["adjoint"] <= 1e-12
    assert {"linear", "dtype", "index"} <= set(gaps)


def scaled_svd(forms):
    return replace(forms, make_svd=lambda: forms.svd.scaled(1.001))


def turned(forms):
    svd = forms.svd
    return replace(forms, make_svd=lambda: replace(svd, V=lambda z: -svd.V(z)))


def other_embed(forms):
    T = forms.transform
    return replace(forms, make_transform=lambda: replace(T, embed=lambda y: 1.01 * T.embed(y)))


def mixed(forms):
    """A decomposition that is right, but not entrywise as it says."""
    svd = forms.svd
    Q = torch.linalg.qr(torch.arange(64.0).reshape(8, 8).double().cos())[0]
    kept = svd.s.flatten() > 0

    def by(matrix):
        def apply(v):
            out = v.flatten(1).clone()
            out[:, kept] = out[:, kept] @ matrix
            return out.reshape(v.shape)

        return apply

    there, back = by(Q), by(Q.T)
    found = replace(
        svd,
        V=lambda z: back(svd.V(z)),
        Vt=lambda x: there(svd.Vt(x)),
        U=lambda z: svd.U(back(z)),
        Ut=lambda y: there(svd.Ut(y)),
    )
    return replace(forms, make_svd=lambda: found)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adjoint": lambda y: 1.001 * y}, "A.T is not the adjoint of A"),
        ({"forward": lambda x: x.abs(), "adjoint": lambda y: y}, "adjoint|linear"),
        ({"forward": lambda x: x.double(), "adjoint": lambda y: y.double()}, "dtype"),
        ({"forms": scaled_svd}, "forms.svd"),
        ({"forms": turned}, "forms.svd"),
        ({"forms": mixed}, "entrywise"),
        ({"forms": other_embed}, "forms.transform"),
        ({"forms": lambda f: replace(f, row_gram=1.001 * f.row_gram)}, "forms.row_gram"),
        ({"forms": lambda f: replace(f, row_gram=f.row_gram[0])}, "row_gram must have y's axes"),
        ({"forms": lambda f: replace(f, solve=lambda b, rho, w: b / (1.01 + rho))}, "forms.solve"),
        ({"forms": lambda f: replace(f, pinv=lambda y: 1.001 * y)}, "forms.pinv"),
        ({"forms": lambda f: replace(f, fbp=lambda y: 3.0 * y)}, "forms.fbp"),
        (
            {"forms": lambda f: replace(f, near=lambda w: lambda rho: lambda b: b.cumsum(-1))},
            "not symmetric and positive",
        ),
        (
            {"forms": lambda f: replace(f, near=lambda w: lambda rho: lambda b: 90 * b)},
            "off by a factor",
        ),
    ],
)
def test_what_is_wrong_is_named(changes, message):
    check_operator(Altered())
    with pytest.raises(ValueError, match=message):
        check_operator(Altered(**changes))


def test_a_wrong_adjoint_and_a_coupled_batch_are_found():
    class Wrong(Identity):
        def adjoint(self, y):
            return 1.001 * y

    class Coupled(Identity):
        def forward(self, x):
            return len(x) * x

        adjoint = forward

    with pytest.raises(ValueError, match="not the adjoint of A: relative gap"):
        check_adjoint(Wrong((3, 4)))
    with pytest.raises(ValueError, match="depends on the batch"):
        check_adjoint(Coupled((3, 4)))


def test_items_that_do_not_follow_their_index_are_found():
    class Stuck(Mask):
        def __getitem__(self, index):
            item = Mask.__getitem__(self, index)
            item.mask = self.mask[: item.batch]
            return item

    masks = torch.arange(24).reshape(2, 1, 3, 4) % 5 > 0
    with pytest.raises(ValueError, match="index: relative gap"):
        check_operator(Stuck(masks, (1, 3, 4)))


def test_large_operators_are_checked_without_their_forms():
    """No matrix of 4096 numbers a side and more."""
    gaps = check_operator(Radon(72, torch.arange(4) * 0.7))
    assert "fbp" not in gaps
    assert gaps["adjoint"] <= 1e-12


def test_an_operator_of_ones_own_has_a_family_and_no_forms():
    A = LinearOperator.from_function(lambda x: x.cumsum(-1), (1, 3, 4), dtype=torch.float64)
    assert isinstance(A.forms, Forms)
    assert A.forms.family == "FromFunction"
    assert A.forms.svd is None
