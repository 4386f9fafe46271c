"""(A^T A + rho)^-1 of MRI by whole columns, nearly: rows of the image do not meet there.

F^H M F acts along rows when M keeps whole columns, so that A^T A takes row y of the image to
N_y = sum_c diag(conj S_c) F^H M F diag(S_c) times it, S_c row y of coil c's map. Maps are smooth:
N_y is averaged over ROWS rows, and each average decomposed once, which then serves every rho.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from ..linear import as_channels, as_complex

ROWS = 16  # twice as many save little time, sixteen times fewer save no iteration
LARGEST = 1 << 27  # entries of all matrices, 1 GB in complex64


class RowResolvent:
    """rho -> (b -> (N + rho)^-1 b), N the averaged A^T A: b and the result (B, 2, H, W).

    mask (W,), centred; maps complex (coils, H, W), or (B, coils, H, W) for one set an item. Exact
    where maps do not vary within ROWS rows. Holds W^2 H / ROWS numbers a set of maps.
    """

    def __init__(self, mask: Tensor, maps: Tensor):
        sets = maps if maps.ndim == 4 else maps[None]
        # Samples of one item come with its maps repeated. owner[i]: whose matrices item i has.
        owner = [next(j for j in range(i + 1) if sets[j].equal(s)) for i, s in enumerate(sets)]
        self.owner = owner if maps.ndim == 4 else None
        self.decomposed = {j: _decomposed(mask, sets[j]) for j in sorted(set(owner))}

    @staticmethod
    def fits(maps: Tensor) -> bool:
        """Whether the matrices are no more than LARGEST, were every set of maps another."""
        H, W = maps.shape[-2:]
        return (len(maps) if maps.ndim == 4 else 1) * W * W * -(-H // ROWS) <= LARGEST

    def __getitem__(self, items: Iterable[int]) -> RowResolvent:
        """The same of some of the items, repeats allowed."""
        part = object.__new__(RowResolvent)
        part.owner = None if self.owner is None else [self.owner[i] for i in items]
        part.decomposed = self.decomposed
        return part

    def __call__(self, rho: float | Tensor) -> Callable[[Tensor], Tensor]:
        def solve(b: Tensor) -> Tensor:
            shift = torch.as_tensor(rho, dtype=b.dtype, device=b.device).expand(len(b))
            z = as_complex(b)
            owner = set(self.owner or [0])
            if len(owner) == 1:
                return as_channels(_solved(*self._like(owner.pop(), z), z, shift))
            out = torch.empty_like(z)
            for j in owner:
                items = [i for i, k in enumerate(self.owner or []) if k == j]
                out[items] = _solved(*self._like(j, z), z[items], shift[items])
            return as_channels(out)

        return solve

    @torch.inference_mode(False)  # what is kept may be needed by autograd later
    def _like(self, j: int, z: Tensor) -> tuple[Tensor, Tensor]:
        """L and V of a set in the precision and on the device of z, where they stay."""
        L, V = self.decomposed[j]
        if V.dtype != z.dtype or V.device != z.device:
            L, V = self.decomposed[j] = L.to(z.real), V.to(z)
        return L, V


@torch.inference_mode(False)
def _decomposed(mask: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
    """L (blocks, W) and V (blocks, W, W), N_y^T = V L V^H for N_y averaged over ROWS rows."""
    # Few devices decompose complex matrices, and this is done once.
    maps = maps.detach().cpu()
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
    return L.clamp_min(0.0), V


def _solved(L: Tensor, V: Tensor, z: Tensor, rho: Tensor) -> Tensor:
    """(N + rho)^-1 of the rows of z (B, H, W), rho (B,): z V (L + rho)^-1 V^H of a row vector z."""
    B, H, W = z.shape
    rows = torch.nn.functional.pad(z, (0, 0, 0, -H % ROWS)) if H % ROWS else z
    rows = rows.reshape(B, -1, ROWS, W).transpose(0, 1)  # (blocks, B, ROWS, W)
    u = (rows.reshape(len(V), -1, W) @ V).reshape(rows.shape)
    u = u / (L[:, None, None] + rho[:, None, None])
    # V^H from the right would copy V to conjugate it.
    out = (u.reshape(len(V), -1, W).conj_physical() @ V.mT).conj_physical().reshape(rows.shape)
    return out.transpose(0, 1).reshape(B, -1, W)[:, :H]
