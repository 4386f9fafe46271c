"""Products with a matrix of rays and with its transpose, stored or computed on the fly.

Rows are split: as many as the memory limit holds are stored twice, by rays and by pixels, as
sparse matrices; the others are recomputed at every product. Both halves hold the same weights in
either direction, so the adjoint is exact to rounding wherever the split falls.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .rays import Rays, joseph_rays, sparse_rows
from .symmetry import Folding, fold, turned_pixels

_NUMPY = {torch.float32: np.float32, torch.float64: np.float64}
# Wider products lose the cache: their columns are taken in pieces.
_COLUMNS = 16
_SAMPLES = 1 << 18


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
        stored = _split(rays, dtype, memory_limit, device)
        order = np.concatenate([np.flatnonzero(stored), np.flatnonzero(~stored)])
        self.num_stored = int(stored.sum())
        self._index(self.folding, order)
        self.matrix = self.transposed = None
        if self.num_stored:
            arrays = sparse_rows(rays[order[: self.num_stored]], _NUMPY[dtype])
            self.matrix, self.transposed = _csr_pair(arrays, pixels, device)
        self.free = FreeRays(rays[order[self.num_stored :]], dtype, device)
        self.num_rows = len(order)

    def _index(self, folding: Folding, order: np.ndarray) -> None:
        """Where each ray is found in the product, and each pixel in the turned copies."""
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        slot = rank[folding.row] * self.copies + folding.copy
        slots = len(order) * self.copies
        turned = turned_pixels(self.size, folding.elements)
        place = np.empty_like(turned)
        for g in range(self.copies):
            # Copy g reads each pixel once: this is its inverse, as a position in (pixel, copy).
            place[turned[:, g], g] = np.arange(len(turned)) * self.copies + g
        inverse = np.full(slots, len(slot), np.int64)
        inverse[slot] = np.arange(len(slot))
        self.repeated = len(np.unique(slot)) < len(slot)
        to = {"device": self.device}
        self.slot = torch.from_numpy(slot.astype(np.int32)).to(**to)
        self.source = torch.from_numpy(inverse.astype(np.int32)).to(**to)
        self.turned = torch.from_numpy(turned.reshape(-1)).to(**to)
        self.place = torch.from_numpy(place).to(**to)

    @property
    def nbytes(self) -> int:
        """Bytes of stored weights and tables."""
        tables = (self.slot, self.source, self.turned, self.place)
        total = sum(t.numel() * t.element_size() for t in tables)
        for M in (self.matrix, self.transposed):
            if M is not None:
                parts = (M.values(), M.col_indices(), M.crow_indices())
                total += sum(t.numel() * t.element_size() for t in parts)
        return total

    def forward(self, x: Tensor) -> Tensor:
        """(B, H W) -> (B, R)."""
        rows = self._rows(self._turn(x))
        batch = x.shape[0]
        flat = rows.reshape(self.num_rows * self.copies, batch)
        if batch == 1:
            return flat.flatten().index_select(0, self.slot)[None]
        return flat.index_select(0, self.slot).T.contiguous()

    def adjoint(self, y: Tensor) -> Tensor:
        """(B, R) -> (B, H W)."""
        batch = y.shape[0]
        if self.repeated:
            flat = y.new_zeros(self.num_rows * self.copies, batch)
            flat.index_add_(0, self.slot, y.T.contiguous())
        else:
            padded = torch.cat([y, y.new_zeros(batch, 1)], 1)
            if batch == 1:
                flat = padded.flatten().index_select(0, self.source)
            else:
                flat = padded.T.contiguous().index_select(0, self.source)
        images = self._pixels(flat.reshape(self.num_rows, self.copies * batch))
        return self._unturn(images, batch)

    def _turn(self, x: Tensor) -> Tensor:
        """The turned copies (H W, copies * B), pixels column-major."""
        batch, pixels = x.shape
        if batch == 1:
            return x.flatten().index_select(0, self.turned).reshape(pixels, self.copies)
        turned = x.T.contiguous().index_select(0, self.turned)
        return turned.reshape(pixels, self.copies * batch)

    def _unturn(self, images: Tensor, batch: int) -> Tensor:
        table = images.reshape(-1, batch)
        summed = torch.nn.functional.embedding_bag(self.place, table, mode="sum")
        return summed.T.contiguous()

    def _rows(self, images: Tensor) -> Tensor:
        """M X: (H W, columns) -> (rows, columns)."""
        columns = images.shape[1]
        out = images.new_empty(self.num_rows, columns)
        if self.matrix is not None:
            _product(self.matrix, images, out[: self.num_stored])
        if len(self.free):
            out[self.num_stored :] = self.free.forward(images)
        return out

    def _pixels(self, rows: Tensor) -> Tensor:
        """M^T Z: (rows, columns) -> (H W, columns)."""
        out = None
        if self.transposed is not None:
            out = rows.new_empty(self.size[0] * self.size[1], rows.shape[1])
            _product(self.transposed, rows[: self.num_stored], out)
        if len(self.free):
            rest = self.free.adjoint(rows[self.num_stored :])
            out = rest if out is None else out.add_(rest)
        return out


def _product(matrix: Tensor, dense: Tensor, out: Tensor) -> None:
    columns = dense.shape[1]
    if columns <= 2:
        for c in range(columns):
            out[:, c] = matrix @ dense[:, c].contiguous()
        return
    if columns <= _COLUMNS:
        out.copy_(matrix @ dense)
        return
    for start in range(0, columns, _COLUMNS):
        piece = slice(start, start + _COLUMNS)
        out[:, piece] = matrix @ dense[:, piece].contiguous()


def _split(rays: Rays, dtype: torch.dtype, memory_limit: float, device: torch.device) -> np.ndarray:
    """Which rays to store: those that cross the fewest lines first.

    On the fly a ray costs all its lines, inside the image or not; stored, only those inside.
    """
    if device.type not in ("cpu", "cuda"):
        return np.zeros(len(rays), bool)
    lines = rays.lines()
    per_weight = 2 * (4 + (8 if dtype == torch.float64 else 4))
    order = np.argsort(lines, kind="stable")
    # Rays stay in their order among the stored: neighbours then share pixels in the cache.
    cost = np.cumsum(lines[order]) * 2 * per_weight
    stored = np.zeros(len(rays), bool)
    stored[order[cost <= memory_limit]] = True
    return stored


def _csr_pair(
    arrays: tuple[np.ndarray, ...], pixels: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The matrix and its transpose, both by rows."""
    from scipy.sparse import csr_matrix

    indptr, indices, weights = arrays
    shape = (len(indptr) - 1, pixels)
    by_rays = csr_matrix((weights, indices, indptr.astype(np.int32)), shape=shape, copy=False)
    by_pixels = by_rays.tocsc()
    pair = []
    for M, size in ((by_rays, shape), (by_pixels, shape[::-1])):
        parts = [torch.from_numpy(a).to(device) for a in (M.indptr, M.indices, M.data)]
        with warnings.catch_warnings():
            # The two notices of torch's sparse CSR tensors: beta state, unchecked invariants.
            warnings.filterwarnings("ignore", "Sparse (CSR|invariant)")
            pair.append(torch.sparse_csr_tensor(*parts, size=size))
    return pair[0], pair[1]


class FreeRays:
    """Products with rays whose weights are computed when needed, in pieces that fit the cache."""

    def __init__(self, rays: Rays, dtype: torch.dtype, device: torch.device):
        self.size, self.count = rays.size, len(rays)
        self.parts = []
        for steep in (True, False):
            rows = np.flatnonzero(rays.steep == steep)
            if len(rows):
                numbers = (rays.a[rows], rays.b[rows], rays.step[rows])
                a, b, step = (torch.from_numpy(v).to(device=device, dtype=dtype) for v in numbers)
                self.parts.append((steep, torch.from_numpy(rows).to(device), a, b, step))

    def __len__(self) -> int:
        return self.count

    def forward(self, images: Tensor) -> Tensor:
        """(H W, columns) -> (R, columns)."""
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
        """(R, columns) -> (H W, columns)."""
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
        return out

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


class Project(torch.autograd.Function):
    """P v (or P^T v) with the transposed product as gradient, any number of times."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, projector: Projector, transposed: bool) -> Tensor:
        ctx.projector, ctx.transposed = projector, transposed
        v = v.contiguous()
        return projector.adjoint(v) if transposed else projector.forward(v)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return Project.apply(grad, ctx.projector, not ctx.transposed), None, None
