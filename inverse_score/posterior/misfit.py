"""Does a result explain its data? The rule by which `solve` warns, any method, any budget.

A posterior sample and the truth are exchangeable, so |y - A x|_W^2 of a sample is a chi-square
variable of the m numbers measured. It exceeds m + 2 sqrt(m t) + 2 t with a probability below
exp(-t) (Laurent & Massart 2000, lemma 1); t = 12.5 is four in a million: a misfit beyond
1 + 5 sqrt(2 / m) + 25 / m. Priors and methods are approximate, and a scan's many numbers would show
every percent of it, so one and a half passes: samples of trained priors have .9 to 1.4 when all is
well, and failed walks 3 to 1e4. A small misfit is no alarm: it is data cleaner than noise_std says.
Exact data are to be met within 2 % of |y|.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import MisfitWarning
from ..reconstruction import Reconstruction
from .measurement import LinearMeasurement, Measurement

_UNLIKELY = 12.5
_NEAR = 1.5
_EXACT = 0.02
_GARBAGE = 3.0
# In units of the largest of 1, the prior's standard deviation and the data's own values.
_HUGE = 100.0


def largest_misfit(data: Measurement) -> Tensor:
    """The largest misfit of each item's samples, (B,), that needs no explanation."""
    count = torch.as_tensor(data.operator.num_measured, dtype=torch.float64)
    count = count.cpu().expand(len(data)).clamp_min(1.0)
    if data.exact:
        return torch.full_like(count, _EXACT)
    return (1 + 2 * (_UNLIKELY / count).sqrt() + 2 * _UNLIKELY / count).clamp_min(_NEAR)


def judged(
    rec: Reconstruction, data: Measurement, peak: Tensor, variance: float, *, one_answer: bool
) -> Reconstruction:
    """rec with its verdict, after a warning for items whose misfit or values nobody expects.

    peak: (num_samples, B), the largest |u| of each sample; variance: the prior's, of a pixel. A
    classical answer weighs its data in its own way and is nobody's sample: a verdict, no warning.
    """
    ok = explained(data, rec.misfit)
    told = complaints(data, rec.misfit, ok, peak, largest_value(data, variance))
    for text in () if one_answer else told:
        warnings.warn(text, MisfitWarning, stacklevel=3)
    return replace(rec, misfit_ok=ok, warnings=told)


def explained(data: Measurement, misfit: Tensor) -> Tensor:
    """(B,) bool: whether the mean of an item's misfits, (num_samples, B), is small enough.

    And none of them three times too large: one sample of many may be garbage. What is not a number
    is too large.
    """
    most, misfit = largest_misfit(data), misfit.detach().cpu().double()
    return (misfit.mean(0) <= most) & (misfit <= _GARBAGE * most).all(0)


def largest_value(data: Measurement, variance: float) -> Tensor:
    """(B,) an |u| that no image has: 100 times the largest of 1, v^1/2 and |A^T W y| / |A|_W^2."""
    least = max(1.0, math.sqrt(variance))
    if not isinstance(data, LinearMeasurement):
        return torch.full((len(data),), _HUGE * least, dtype=torch.float64)
    shown = data.backproject(data.y).abs().flatten(1).amax(1) / data.gain
    return _HUGE * shown.detach().cpu().double().clamp_min(least)


def complaints(
    data: Measurement, misfit: Tensor, ok: Tensor, peak: Tensor, limit: Tensor
) -> tuple[str, ...]:
    """What to say about the items that do not explain their data, and of values beyond the limit.

    misfit, peak (largest |u|): (num_samples, B); ok, limit: (B,).
    """
    found = []
    if not bool(ok.all()):
        most = largest_misfit(data)
        bad, values = (~ok).nonzero().flatten().tolist(), misfit[:, ~ok].detach().cpu()
        found.append(
            f"{_items(bad)}: misfit {float(values.min()):.3g} to {float(values.max()):.3g} where "
            f"{float(most[bad[0]]):.3g} is the most that noise and chance give: "
            "no posterior samples; use more steps or another method, or check noise_std, the "
            "operator and the prior"
        )
    huge = ~(peak.detach().cpu().double() <= limit).all(0)
    if bool(huge.any()):
        found.append(
            f"{_items(huge.nonzero().flatten().tolist())}: values up to "
            f"{float(peak[:, huge].max()):.3g} in the prior's units, over "
            f"{_HUGE:g} times what prior and data know: do not use them"
        )
    return tuple(found)


def _items(index: list[int]) -> str:
    shown = ", ".join(map(str, index[:8])) + (", ..." if len(index) > 8 else "")
    return f"item{'s' if len(index) > 1 else ''} {shown}"
