"""Pre-whitening: coils made uncorrelated and of unit noise, from a noise scan."""

from __future__ import annotations

import numpy as np

from .mrd_grid import Readouts

MAX_READOUTS = 4096


def noise_whitening(
    noise: Readouts, chosen: np.ndarray, head: np.ndarray, bandwidth: float
) -> tuple[np.ndarray | None, str]:
    """(W, note): W n has variance 1 per real and imaginary part, coils uncorrelated.

    W = sqrt(2 b T / T_n) L^-1, where L L^H is the covariance of the chosen noise readouts, T and
    T_n the dwell times of the scan (head) and of the noise, and b the receiver's relative noise
    bandwidth (Kellman and McVeigh 2005). None, and the reason, where the noise does not serve.
    """
    coils = int(head["active_channels"])
    if coils < 1 or (noise.heads["active_channels"][chosen] != coils).any():
        return None, "not whitened: the noise scan has another number of coils"
    with noise.opened() as data:
        parts = [noise.samples(int(k), data) for k in chosen[:MAX_READOUTS]]
    samples = np.concatenate(parts, axis=1)
    if samples.shape[1] < 10 * coils:
        return None, f"not whitened: only {samples.shape[1]} noise samples for {coils} coils"
    covariance = samples @ samples.conj().T / samples.shape[1]
    dwell, noise_dwell = float(head["sample_time_us"]), noise.heads["sample_time_us"][chosen[0]]
    known = dwell > 0 and noise_dwell > 0 and bandwidth > 0
    scale = np.sqrt(2 * bandwidth * dwell / noise_dwell) if known else np.sqrt(2)
    # A relative floor: a dead coil would be amplified without end.
    variances = np.linalg.eigvalsh(covariance) if np.isfinite(covariance).all() else np.zeros(1)
    if variances[0] <= 1e-10 * variances[-1]:
        return None, "not whitened: the noise covariance is singular (a dead coil?)"
    factor = np.linalg.cholesky(covariance)
    return scale * np.linalg.inv(factor), f"whitened with {len(chosen)} noise readouts"
