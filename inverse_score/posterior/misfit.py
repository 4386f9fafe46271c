"""Does a result explain its data? The rule by which `solve` warns, any method, any budget.

A posterior sample and the truth are exchangeable, so |y - A x|_W^2 of a sample is a chi-square
variable of the m numbers measured. It leaves m + 2 sqrt(m t) + 2 t with a probability below
exp(-t), and likewise m - 2 sqrt(m t) (Laurent & Massart 2000, lemma 1); t = 12.5 is four in a
million: a misfit beyond 1 + 5 sqrt(2 / m) + 25 / m or below 1 - 5 sqrt(2 / m). Priors and methods
are approximate, and a scan's many numbers would show every percent of it, so what lies within half
and one and a half passes: samples of trained priors have .9 to 1.4 when all is well, and failed
walks 3 to 1e4. A method that gives one answer fits the noise, rightly: only the upper end holds.
Exact data are to be met within 2 % of |y|.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import torch
from torch import Tensor

from ..reconstruction import Reconstruction
from .measurement import Measurement

_UNLIKELY = 12.5
_NEAR = (0.5, 1.5)
_EXACT = 0.02
_GARBAGE = 3.0
# In units of the largest of 1, the prior's standard deviation and the data's own values.
_HUGE = 100.0


def misfit_bounds(data: Measurement) -> tuple[Tensor, Tensor]:
    """The least and the largest misfit of each item's samples, (B,), that need no explanation."""
    count = torch.as_tensor(data.operator.num_measured, dtype=torch.float64)
    count = count.cpu().expand(len(data)).clamp_min(1.0)
    if data.exact:
        return torch.zeros_like(count), torch.full_like(count, _EXACT)
    spread = 2 * (_UNLIKELY / count).sqrt()
    least = (1 - spread).clamp(0.0, _NEAR[0])
    return least, (1 + spread + 2 * _UNLIKELY / count).clamp_min(_NEAR[1])


def judged(
    rec: Reconstruction, data: Measurement, peak: Tensor, variance: float, *, one_answer: bool
) -> Reconstruction:
    """rec with its verdict, after a warning for items whose misfit or values nobody expects.

    peak: (num_samples, B), the largest |u| of each sample; variance: the prior's, of a pixel. A
    classical answer weighs its data in its own way and is nobody's sample: a verdict, no warning.
    """
    ok = explained(data, rec.misfit, one_answer=one_answer)
    told = complaints(data, rec.misfit, ok, peak, largest_value(data, variance))
    for text in () if one_answer else told:
        warnings.warn(text, stacklevel=4)
    return replace(rec, misfit_ok=ok, warnings=told)


def explained(data: Measurement, misfit: Tensor, *, one_answer: bool = False) -> Tensor:
    """(B,) bool: whether the mean of an item's misfits, (num_samples, B), lies within the bounds.

    And none of them beyond three times the upper: one sample of many may be garbage. What is not a
    number lies without.
    """
    least, most = misfit_bounds(data)
    misfit = misfit.detach().cpu().double()
    mean = misfit.mean(0)
    return (mean <= most) & ((mean >= least) | one_answer) & (misfit <= _GARBAGE * most).all(0)


def largest_value(data: Measurement, variance: float) -> Tensor:
    """(B,) an |u| that no image has: 100 times the largest of 1, v^1/2 and |A^T W y| / |A|_W^2."""
    least = max(1.0, math.sqrt(variance))
    if not data.linear:
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
        least, most = misfit_bounds(data)
        bad, values = (~ok).nonzero().flatten().tolist(), misfit[:, ~ok].detach().cpu()
        found.append(
            f"{_items(bad)}: misfit {float(values.min()):.3g} to {float(values.max()):.3g} where "
            f"{float(least[bad[0]]):.2g} to {float(most[bad[0]]):.3g} is expected: "
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
