"""`pytest --seed-shift N`: every seed is N more than written, where draws begin.

Shifted are `Noise`, torch's and NumPy's generators. Masks keep their seeds, which name published
patterns, and so do tests marked fixed_seeds, whose claim is about one draw.
"""

import contextlib
import sys

import numpy as np
import torch

from inverse_score import randomness

_now = 0
_manual_seed, _default_rng, _Philox = torch.manual_seed, np.random.default_rng, np.random.Philox
_MASK = (1 << 64) - 1


def install(shift: int) -> None:
    """Shift all seeds from here on; nothing is touched where the shift is 0."""
    global _now
    _now = shift
    if shift:
        torch.manual_seed = lambda seed: _manual_seed(seed + _now)
        torch.Generator = _Generator
        np.random.default_rng, np.random.Philox = _shifted_rng, _shifted_philox
        randomness._Twister = _Twister


@contextlib.contextmanager
def as_written():
    """Seeds as they are written, for a while."""
    global _now
    kept, _now = _now, 0
    try:
        yield
    finally:
        _now = kept


class _Generator(torch.Generator):
    def manual_seed(self, seed):
        # Noise keeps its words in a generator of seed 1, from which nothing is drawn.
        within = sys._getframe(1).f_globals["__name__"] == randomness.__name__
        return super().manual_seed(seed if within else seed + _now)


class _Twister(randomness._Twister):
    def at(self, key, counter):
        return super().at(((key[0] + _now) & _MASK, key[1]), counter)


def _shifted_rng(seed=None):
    if isinstance(seed, list | tuple):
        return _default_rng([seed[0] + _now, *seed[1:]])
    # SciPy hands generators on.
    return _default_rng(seed + _now if isinstance(seed, int) else seed)


def _shifted_philox(seed=None, counter=None, key=None):
    if key is not None:
        first, *rest = np.atleast_1d(key).tolist()
        key = np.array([(first + _now) & _MASK, *rest], dtype=np.uint64)
    return _Philox(seed + _now if isinstance(seed, int) else seed, counter=counter, key=key)
