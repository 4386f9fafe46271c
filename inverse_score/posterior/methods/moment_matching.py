"""Moment matching, the default: p(x_0 | x_t) taken for a Gaussian of one of three covariances."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ...prior import Prior
from ..conditional import ConditionalPrior
from ..covariance import ErrorSpectrum
from ..examination import Examination, examine
from ..jacobian import COVARIANCES
from ..measurement import LinearMeasurement
from ..method import Course, Method, by_score
from ..moments import SpectrumMatching


@dataclass(frozen=True)
class MomentMatchingOptions:
    """covariance: "jacobian", "spectrum" or "isotropic"; the rest: that covariance's own options,
    None its own default."""

    covariance: str = "jacobian"
    spectrum: ErrorSpectrum | None = None
    tol: float | None = None
    max_iter: int | None = None
    variance: float | None = None

    def __post_init__(self) -> None:
        if self.covariance not in COVARIANCES:
            raise ValueError(
                f"covariance must be one of {', '.join(COVARIANCES)}; got {self.covariance!r}"
            )
        known, given = names({"covariance": self.covariance})[1:], self.given
        if not set(given) <= set(known):
            raise ValueError(
                f"'moment-matching, {self.covariance}' has no option "
                f"{', '.join(sorted(set(given) - set(known)))}; its options: {', '.join(known)}"
            )

    @property
    def given(self) -> dict[str, Any]:
        """What was said of the covariance."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: v for k, v in values.items() if k != "covariance" and v is not None}


def names(said: Mapping[str, Any]) -> list[str]:
    """The options that go with the covariance said: itself, and those of its own."""
    cls = COVARIANCES.get(
        said.get("covariance", MomentMatchingOptions.covariance), SpectrumMatching
    )
    parameters = inspect.signature(cls).parameters.values()
    return ["covariance", *sorted(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)]


def moment_matching(
    prior: Prior, data: LinearMeasurement, options: MomentMatchingOptions
) -> ConditionalPrior:
    """The conditional prior of moment matching, with one of three covariances of x_0 given x_t.

    Exact data are taken to have the least noise that the prior knows (`Method.seen`); `solve` then
    projects the samples onto A x = y.
    """
    return COVARIANCES[options.covariance](prior, data, **options.given)


def examined(
    prior: Prior,
    data: LinearMeasurement,
    options: MomentMatchingOptions,
    seed: int,
    items: Sequence[int],
) -> Examination | None:
    """`examine` for a spectrum, which alone says what an image can be."""
    if options.covariance != "spectrum":
        return None
    known = {k: v for k, v in options.given.items() if k != "tol"}
    return examine(prior, data, seed=seed, items=items, **known)


METHOD = Method(
    "moment-matching",
    MomentMatchingOptions,
    by_score(moment_matching),
    lambda options: Course(**COVARIANCES[options.covariance].walk),
    conditional=moment_matching,
    names=names,
    examine=examined,
    needs_noise=False,
    exact_as_noise=True,
    projects=True,
)
