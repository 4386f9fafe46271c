"""Products with a matrix of rays and with its transpose, stored or computed on the fly.

Rows are split: as many as the memory limit holds are stored as sparse matrices, the others are
recomputed at every product. Both use the same weights in either direction, so the adjoint is
exact to rounding wherever the split falls.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .rays import Rays, joseph_rays
from .stored import StoredRays
from .symmetry import Folding, fold, turned_pixels

_SAMPLES = 1 << 18
# Items of a batch taken together: more would lose the cache.
_ITEMS = 8


class Projector:
    """Sums along rays (theta, s), each (R,), s in pixels, of images (B, H W): -> (B, R).

    memory_limit: bytes for stored weights and index tables; 0 stores none. Stored matrices serve
    the CPU and CUDA; other devices compute on the fly.
    """

    def __init__(
        self,
        theta: np.ndarray,
        s: np.ndarray,
        size: tuple[int, int],
        dtype: torch.dtype,
        device: torch.device,
        memory_limit: float,
    ):
        self.size, self.dtype, self.device = size, dtype, device
        pixels = size[0] * size[1]
        self.folding = fold(theta, s, size[0] == size[1], pixels)
        self.copies = len(self.folding.elements)
        rays = joseph_rays(self.folding.theta, self.folding.s, size)
        stored, both = _split(rays, dtype, memory_limit, device)
        order = np.concatenate([np.flatnonzero(stored), np.flatnonzero(~stored)])
        self.num_rows, self.num_stored = len(order), int(stored.sum())
        self._index(self.folding, order)
        elements = self.folding.elements
        self.stored, self.both = None, both
        if self.num_stored:
            kept = rays[order[: self.num_stored]]
            self.stored = StoredRays(kept, elements, dtype, device, both)
        self.free = FreeRays(rays[order[self.num_stored :]], elements, dtype, device)

    def _index(self, folding: Folding, order: np.ndarray) -> None:
        """Where each ray is found in the product."""
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        slot = rank[folding.row] * self.copies + folding.copy
        inverse = np.full(len(order) * self.copies, len(slot), np.int64)
        inverse[slot] = np.arange(len(slot))
        self.repeated = len(np.unique(slot)) < len(slot)
        self.slot = torch.from_numpy(slot.astype(np.int32)).to(self.device)
        self.source = torch.from_numpy(inverse.astype(np.int32)).to(self.device)

    @property
    def nbytes(self) -> int:
        """Bytes of stored weights and tables."""
        tables = (self.slot, self.source, *self.free.tables)
        total = sum(t.numel() * t.element_size() for t in tables)
        return total + (self.stored.nbytes if self.stored else 0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H W) -> (B, R)."""
        empty = x.new_empty(0, len(self.slot))
        return _joined([self._forward(items) for items in x.split(_ITEMS) if len(items)], empty)

    def _forward(self, x: Tensor) -> Tensor:
        batch, pixels = x.shape[0], _transposed(x)
        rows = x.new_empty(self.num_rows, self.copies * batch)
        if self.stored:
            rows[: self.num_stored] = self.stored.forward(pixels)
        if len(self.free):
            rows[self.num_stored :] = self.free.forward(pixels)
        if batch == 1:
            return rows.flatten().index_select(0, self.slot)[None]
        return _transposed(rows.view(-1, batch).index_select(0, self.slot))

    def adjoint(self, y: Tensor) -> Tensor:
        """(B, R) -> (B, H W)."""
        empty = y.new_empty(0, self.size[0] * self.size[1])
        return _joined([self._adjoint(items) for items in y.split(_ITEMS) if len(items)], empty)

    def _adjoint(self, y: Tensor) -> Tensor:
        batch = y.shape[0]
        if self.repeated:
            flat = y.new_zeros(self.num_rows * self.copies, batch)
            flat.index_add_(0, self.slot, _transposed(y))
        else:
            padded = torch.cat([y, y.new_zeros(batch, 1)], 1)
            padded = padded.flatten() if batch == 1 else _transposed(padded)
            flat = padded.index_select(0, self.source)
        rows = flat.reshape(self.num_rows, self.copies * batch)
        stored, free = rows[: self.num_stored], rows[self.num_stored :]
        if not self.stored:
            return _transposed(self.free.adjoint(free))
        images = self.stored.adjoint(stored)
        return _transposed(images + self.free.adjoint(free) if len(self.free) else images)


def _joined(parts: list[Tensor], empty: Tensor) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat([empty, *parts])


def _transposed(matrix: Tensor) -> Tensor:
    """matrix.T, contiguous; copied by the threads that `contiguous` leaves idle."""
    if 1 in matrix.shape:
        return matrix.reshape(matrix.shape[::-1])
    long = matrix.shape[1] > matrix.shape[0]
    return torch.stack(matrix.unbind(), 1) if long else torch.stack(matrix.unbind(1))


def _split(
    rays: Rays, dtype: torch.dtype, memory_limit: float, device: torch.device
) -> tuple[np.ndarray, bool]:
    """Which rays to store, those that cross the fewest lines first, and whether in both orders.

    On the fly a ray costs all its lines, inside the image or not; stored, only those inside.
    """
    if device.type not in ("cpu", "cuda"):
        return np.zeros(len(rays), bool), False
    lines = rays.lines()
    per_weight = 4 + (8 if dtype == torch.float64 else 4)
    order = np.argsort(lines, kind="stable")
    # Rays stay in their order among the stored: neighbours then share pixels in the cache.
    cost = np.cumsum(lines[order]) * 2 * per_weight
    both = device.type != "cpu" or 2 * cost[-1] <= memory_limit
    stored = np.zeros(len(rays), bool)
    stored[order[(1 + both) * cost <= memory_limit]] = True
    return stored, bool(both)


class FreeRays:
    """Products with rays whose weights are computed when needed, in pieces that fit the cache."""

    def __init__(
        self,
        rays: Rays,
        elements: list[tuple[int, int]],
        dtype: torch.dtype,
        device: torch.device,
    ):
        self.size, self.count, self.copies = rays.size, len(rays), len(elements)
        self.tables: tuple[Tensor, ...] = ()
        if len(rays):
            self.tables = _turning(rays.size, elements, device)
        self.parts = []
        for steep in (True, False):
            rows = np.flatnonzero(rays.steep == steep)
            if len(rows):
                numbers = (rays.a[rows], rays.b[rows], rays.step[rows])
                a, b, step = (torch.from_numpy(v).to(device=device, dtype=dtype) for v in numbers)
                self.parts.append((steep, torch.from_numpy(rows).to(device), a, b, step))

    def __len__(self) -> int:
        return self.count

    def forward(self, x: Tensor) -> Tensor:
        """(H W, B) -> (R, copies B)."""
        columns = self.copies * x.shape[1]
        images = x.index_select(0, self.tables[0]).reshape(-1, columns)
        out = images.new_empty(self.count, images.shape[1])
        for steep, rows, a, b, step in self.parts:
            tables = [self._pairs(images[:, c], steep) for c in range(images.shape[1])]
            for piece in self._pieces(len(rows), steep):
                index, part = self._crossings(a[piece], b[piece], steep)
                for c, table in enumerate(tables):
                    pair = torch.view_as_real(table.index_select(0, index.flatten()))
                    pair = pair.reshape(*part.shape, 2)
                    value = torch.addcmul(pair[..., 0], part, pair[..., 1]).sum(0)
                    out[rows[piece], c] = value * step[piece]
        return out

    def adjoint(self, values: Tensor) -> Tensor:
        """(R, copies B) -> (H W, B)."""
        out = values.new_zeros(self.size[0] * self.size[1], values.shape[1])
        for steep, rows, a, b, step in self.parts:
            tables = [self._pairs(out[:, c], steep) * 0 for c in range(values.shape[1])]
            for piece in self._pieces(len(rows), steep):
                index, part = self._crossings(a[piece], b[piece], steep)
                for c, table in enumerate(tables):
                    value = (values[rows[piece], c] * step[piece]).expand_as(part)
                    pair = torch.complex(value, part * value)
                    table.index_add_(0, index.flatten(), pair.flatten())
            for c, table in enumerate(tables):
                out[:, c] += self._unpaired(table, steep)
        table = out.reshape(-1, values.shape[1] // self.copies)
        return torch.nn.functional.embedding_bag(self.tables[1], table, mode="sum")

    def _pieces(self, count: int, steep: bool) -> list[slice]:
        size = max(1, _SAMPLES // self.size[0 if steep else 1])
        return [slice(start, start + size) for start in range(0, count, size)]

    def _crossings(self, a: Tensor, b: Tensor, steep: bool) -> tuple[Tensor, Tensor]:
        """Index into the table of pairs and fraction between them, (lines, rays)."""
        H, W = self.size
        lines, length = (H, W) if steep else (W, H)
        r = torch.arange(lines, device=a.device, dtype=a.dtype)[:, None]
        position = torch.addcmul(a[None], r, b[None])
        below = position.floor()
        part = position.sub_(below)
        # Pair -2 and pair `length` are zero: whatever lies outside reads them.
        index = below.clamp_(-2, length).int()
        offset = torch.arange(lines, device=a.device, dtype=torch.int32) * (length + 3) + 2
        return index.add_(offset[:, None]), part

    def _lines(self, image: Tensor, steep: bool) -> Tensor:
        """(lines, length) of an image given column-major."""
        by_column = image.reshape(self.size[1], self.size[0])
        return by_column.T if steep else by_column

    def _pairs(self, image: Tensor, steep: bool) -> Tensor:
        """Complex entries x_j + i (x_{j+1} - x_j), j = -2 .. length, zero beyond the edges."""
        padded = torch.nn.functional.pad(self._lines(image, steep), (2, 2))
        return torch.complex(padded[:, :-1], padded[:, 1:] - padded[:, :-1]).flatten()

    def _unpaired(self, table: Tensor, steep: bool) -> Tensor:
        """The transpose of _pairs."""
        H, W = self.size
        lines, length = (H, W) if steep else (W, H)
        pair = table.reshape(lines, length + 3)
        # x_j has weight 1 - part in pair j and part in pair j - 1.
        image = (pair.real - pair.imag)[:, 2:-1] + pair.imag[:, 1:-2]
        return (image.T if steep else image).reshape(-1)


def _turning(
    size: tuple[int, int], elements: list[tuple[int, int]], device: torch.device
) -> tuple[Tensor, Tensor]:
    """What raster pixel each pixel of each copy shows, and where each raster pixel is shown."""
    turned = turned_pixels(size, elements)
    place = np.empty_like(turned)
    for g in range(len(elements)):
        place[turned[:, g], g] = np.arange(len(turned)) * len(elements) + g
    return torch.from_numpy(turned.reshape(-1)).to(device), torch.from_numpy(place).to(device)


class Project(torch.autograd.Function):
    """P v (or P^T v) with the transposed product as gradient, any number of times."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, projector: Projector, transposed: bool) -> Tensor:
        ctx.projector, ctx.transposed = projector, transposed
        v = v.contiguous()
        return projector.adjoint(v) if transposed else projector.forward(v)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor, None, None]:
        return Project.apply(grad, ctx.projector, not ctx.transposed), None, None
