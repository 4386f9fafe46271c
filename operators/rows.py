"""(A^T A + rho)^-1 of MRI by whole columns, nearly: rows of the image do not meet there.

F^H M F acts along rows when M keeps whole columns, so that A^T A takes row y of the image to
N_y = sum_c diag(conj S_c) F^H M F diag(S_c) times it, S_c row y of coil c's map. Maps are smooth:
N_y is averaged over ROWS rows, and each average decomposed once, which then serves every rho.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .linear import as_channels, as_complex

ROWS = 16  # twice as many save little time, sixteen times fewer save no iteration


class RowResolvent:
    """rho -> (b -> (N + rho)^-1 b), N the averaged A^T A: b and the result (B, 2, H, W).

    mask (W,), centred; maps complex (coils, H, W), or (B, coils, H, W) for one set an item. Exact
    where maps do not vary within ROWS rows. Memory: 8 W^2 H / ROWS bytes a set in complex64.
    """

    def __init__(self, mask: Tensor, maps: Tensor):
        sets = maps if maps.ndim == 4 else maps[None]
        # Samples of one item come with its maps repeated.
        first = [next(j for j in range(i + 1) if sets[j].equal(s)) for i, s in enumerate(sets)]
        self.shared = maps.ndim == 3 or len(set(first)) == 1
        self.members = {j: [i for i, k in enumerate(first) if k == j] for j in sorted(set(first))}
        self.decomposed = {j: _decomposed(mask, sets[j]) for j in self.members}

    def __call__(self, rho: float | Tensor) -> Callable[[Tensor], Tensor]:
        def solve(b: Tensor) -> Tensor:
            shift = torch.as_tensor(rho, dtype=b.dtype, device=b.device).expand(len(b))
            z = as_complex(b)
            if self.shared:
                return as_channels(_solved(*self.decomposed[0], z, shift))
            out = torch.empty_like(z)
            for j, items in self.members.items():
                out[items] = _solved(*self.decomposed[j], z[items], shift[items])
            return as_channels(out)

        return solve


def _decomposed(mask: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
    """L (blocks, W) and V (blocks, W, W), N_y^T = V L V^H for N_y averaged over ROWS rows."""
    # Few devices decompose complex matrices, and this is done once.
    device, maps = maps.device, maps.detach().cpu()
    coils, H, W = maps.shape
    filled = torch.nn.functional.pad(maps, (0, 0, 0, -H % ROWS))
    S = filled.reshape(coils, -1, ROWS, W).transpose(0, 1).flatten(1, 2)
    rows = torch.full((len(S), 1, 1), float(ROWS), dtype=S.real.dtype)
    rows[-1] -= -H % ROWS
    # F^H M F is the circulant matrix of the mask's transform.
    column = torch.fft.ifft(torch.fft.ifftshift(mask.detach().cpu().to(S.real.dtype)))
    at = torch.arange(W)
    N = (S.mH @ S) / rows * column[(at[:, None] - at) % W].to(S)
    L, V = torch.linalg.eigh(N.mT)
    return L.clamp_min(0.0).to(device), V.to(device)


def _solved(values: Tensor, V: Tensor, z: Tensor, rho: Tensor) -> Tensor:
    """(N + rho)^-1 of the rows of z (B, H, W), rho (B,): z V (L + rho)^-1 V^H of a row vector z."""
    B, H, W = z.shape
    rows = torch.nn.functional.pad(z, (0, 0, 0, -H % ROWS)) if H % ROWS else z
    rows = rows.reshape(B, -1, ROWS, W).transpose(0, 1)  # (blocks, B, ROWS, W)
    inverse = 1 / (values.to(rho)[:, None, None] + rho[:, None, None])
    V = V.to(z)
    u = (rows.reshape(len(V), -1, W) @ V).reshape(rows.shape) * inverse
    # V^H from the right would copy V to conjugate it.
    out = (u.reshape(len(V), -1, W).conj_physical_() @ V.mT).conj_physical_().reshape(rows.shape)
    return out.transpose(0, 1).reshape(B, -1, W)[:, :H]
