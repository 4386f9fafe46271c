"""Products with stored weights of rays, tile by tile.

A tile is a set of pixels that the symmetries map to itself, so small that its turned copies stay
in the cache: a product that strode through the whole image would wait for memory at every
weight. A ray is cut into one segment a tile. Weights are stored by rays, and also by pixels where
memory allows; without the second order A^T scatters through the first.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from .rays import Rays, sparse_rows
from .symmetry import orbits, turned_pixels

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_NUMPY = {torch.float32: np.float32, torch.float64: np.float64}
# Entries of a tile's turned copies: 1.5 MB in float32 for a batch of 8.
_TILE = 3 << 14
# Rays whose weights are made at once: what set-up needs beside the weights that stay.
_RAYS = 2048


@dataclass(frozen=True)
class Tile:
    """The weights on pixels P of the segments S, and how the P pixels are turned.

    source (P copies,): the raster pixel that copy g shows at pixel p, g fastest; place (P,
    copies): the entries among these that show pixel p; rows (S,): the ray of each segment;
    by_rays: (S, P) sparse; by_pixels: (P, rays) sparse, or None.
    """

    source: Tensor
    place: Tensor
    rows: Tensor
    by_rays: Tensor
    by_pixels: Tensor | None

    @property
    def nbytes(self) -> int:
        total = sum(t.numel() * t.element_size() for t in (self.source, self.place, self.rows))
        return total + sum(
            part.numel() * part.element_size()
            for M in (self.by_rays, self.by_pixels)
            if M is not None
            for part in (M.values(), M.col_indices(), M.crow_indices())
        )


class StoredRays:
    """Sums along rays (R,) of images turned by `elements`; both: whether stored in both orders."""

    def __init__(
        self,
        rays: Rays,
        elements: list[tuple[int, int]],
        dtype: torch.dtype,
        device: torch.device,
        both: bool,
    ):
        self.copies, self.count = len(elements), len(rays)
        source = turned_pixels(rays.size, elements)
        order, bounds = _tiles(source, rays.size, 1 if device.type == "cuda" else None)
        source = source[order]
        parts = _segments(rays, order, bounds, _NUMPY[dtype])
        self.tiles = [
            _tile(source, slice(a, b), part, len(rays), device, both)
            for (a, b), part in zip(bounds, parts, strict=True)
        ]
        raster = np.argsort(np.concatenate([np.sort(source[a:b, 0]) for a, b in bounds]))
        rows = np.concatenate([tile.rows.cpu().numpy() for tile in self.tiles])
        ends = np.cumsum(np.bincount(rows, minlength=len(rays)))
        tables = (raster, np.argsort(rows, kind="stable"), np.append(0, ends))
        self.raster, self.segments, self.ends = (
            torch.from_numpy(table.astype(np.int32)).to(device) for table in tables
        )

    def __len__(self) -> int:
        return self.count

    @property
    def nbytes(self) -> int:
        tables = (self.raster, self.segments, self.ends)
        total = sum(t.numel() * t.element_size() for t in tables)
        return total + sum(tile.nbytes for tile in self.tiles)

    def forward(self, x: Tensor) -> Tensor:
        """(H W, B) -> (R, copies B)."""
        columns = self.copies * x.shape[1]
        x = x[:, 0] if x.shape[1] == 1 else x
        parts = x.new_empty(len(self.segments), columns)
        # One buffer for all tiles: the system hands out fresh memory slower than it is filled.
        buffer = x.new_empty(max(len(tile.source) for tile in self.tiles), *x.shape[1:])
        start = 0
        for tile in self.tiles:
            turned, stop = buffer[: len(tile.source)], start + len(tile.rows)
            torch.index_select(x, 0, tile.source, out=turned)
            _product(tile.by_rays, turned.view(-1, columns), parts[start:stop])
            start = stop
        return embedding_bag(self.segments, parts, self.ends, mode="sum", include_last_offset=True)

    def adjoint(self, rows: Tensor) -> Tensor:
        """(R, copies B) -> (H W, B)."""
        batch = rows.shape[1] // self.copies
        images, start = rows.new_empty(len(self.raster), batch), 0
        for tile, turned in zip(self.tiles, self._turned(rows), strict=True):
            stop = start + len(tile.place)
            images[start:stop] = _gathered(turned.view(-1, batch), tile.place)
            start = stop
        if batch == 1:
            return images[:, 0].index_select(0, self.raster)[:, None]
        return images.index_select(0, self.raster)

    def _turned(self, rows: Tensor) -> Iterator[Tensor]:
        """Each tile's images turned, (P, copies B), valid until the next is asked for."""
        if self.tiles[0].by_pixels is None:
            with ThreadPoolExecutor(torch.get_num_threads()) as pool:
                yield from pool.map(lambda tile: _scattered(tile, rows), self.tiles)
        else:
            for tile in self.tiles:
                yield _product(tile.by_pixels, rows)


def _gathered(table: Tensor, place: Tensor) -> Tensor:
    """table[place].sum(1): (N, B) and (P, copies) -> (P, B)."""
    if table.shape[1] > 1:
        return embedding_bag(place, table, mode="sum")
    shown = table[:, 0].index_select(0, place.view(-1)).view(place.shape)
    return shown @ table.new_ones(place.shape[1], 1)


def _product(matrix: Tensor, dense: Tensor, out: Tensor | None = None) -> Tensor:
    """matrix @ dense, for many columns in float32 on a CPU by the kernel of embedding bags."""
    if dense.device.type != "cpu" or dense.dtype != torch.float32 or dense.shape[1] < 12:
        return torch.mm(matrix, dense, out=out)
    product = embedding_bag(
        matrix.col_indices(),
        dense,
        matrix.crow_indices(),
        mode="sum",
        per_sample_weights=matrix.values(),
        include_last_offset=True,
    )
    return product if out is None else out.copy_(product)


def _scattered(tile: Tile, rows: Tensor) -> Tensor:
    """by_rays^T rows: (R, columns) -> (P, columns)."""
    # scipy costs a tenth of a second to import.
    from scipy.sparse import csc_matrix

    M = tile.by_rays
    parts = (M.values().numpy(), M.col_indices().numpy(), M.crow_indices().numpy())
    transposed = csc_matrix(parts, shape=(M.shape[1], M.shape[0]), copy=False)
    chosen = rows.index_select(0, tile.rows)
    if chosen.shape[1] > 2:
        return torch.from_numpy(transposed @ chosen.numpy())
    # Two vectors are faster than a matrix of two columns.
    columns = [torch.from_numpy(transposed @ column.numpy()) for column in chosen.T.contiguous()]
    return torch.stack(columns, 1)


def _tiles(
    source: np.ndarray, size: tuple[int, int], count: int | None
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Column-major pixels in the order of their tiles, and where each tile begins and ends."""
    pixels, copies = source.shape
    count = max(1, round(pixels * copies / _TILE)) if count is None else count
    orbit = orbits(size)
    tile = orbit * count // (orbit.max() + 1)
    order = np.argsort(tile, kind="stable")
    edges = np.searchsorted(tile[order], np.arange(count + 1))
    return order, [(int(a), int(b)) for a, b in pairwise(edges)]


def _segments(
    rays: Rays, order: np.ndarray, bounds: list[tuple[int, int]], dtype: type
) -> Iterator[tuple[np.ndarray, csr_matrix]]:
    """Of each tile: the rays (S,) that meet it and their weights, (S, P) sparse by rays."""
    # scipy costs a tenth of a second to import.
    from scipy.sparse import csr_matrix

    position = np.empty(len(order), np.int32)
    position[order] = np.arange(len(order))
    # Of each tile: the ray of each segment, its number of weights, their pixels, the weights.
    # Untouched room costs no memory: half as much again as tiles need that share evenly.
    room = int(3 * rays.lines().sum() / len(bounds)) + 1
    sizes = ((np.int32, 0), (np.int32, 0), (np.int32, room), (dtype, room))
    found = [[_Growing(kind, size) for kind, size in sizes] for _ in bounds]
    for start in range(0, len(rays), _RAYS):
        chunk = np.arange(start, min(start + _RAYS, len(rays)))
        indptr, pixel, weight = sparse_rows(rays[chunk], dtype)
        arrays = (weight, position[pixel], indptr.astype(np.int32))
        by_pixel = csr_matrix(arrays, shape=(len(chunk), len(order))).tocsc()
        for (a, b), grown in zip(bounds, found, strict=True):
            part = by_pixel[:, a:b].tocsr()
            counts = np.diff(part.indptr)
            met = np.flatnonzero(counts)
            for numbers, more in zip(
                grown, (chunk[met], counts[met], part.indices, part.data), strict=True
            ):
                numbers.append(more)
    for (a, b), grown in zip(bounds, found, strict=True):
        rows, counts, pixels, weights = (numbers.all() for numbers in grown)
        ends = np.append(0, np.cumsum(counts)).astype(np.int32)
        yield rows, csr_matrix((weights, pixels, ends), shape=(len(rows), b - a))


class _Growing:
    """An array appended to in place: lists of parts, joined at the end, would need it twice."""

    def __init__(self, dtype: type, room: int):
        self.numbers, self.count = np.empty(room, dtype), 0

    def append(self, more: np.ndarray) -> None:
        stop = self.count + len(more)
        if stop > len(self.numbers):
            self.numbers.resize(stop + stop // 8, refcheck=False)
        self.numbers[self.count : stop] = more
        self.count = stop

    def all(self) -> np.ndarray:
        self.numbers.resize(self.count, refcheck=False)
        return self.numbers


def _tile(
    source: np.ndarray,
    span: slice,
    segments: tuple[np.ndarray, csr_matrix],
    rays: int,
    device: torch.device,
    both: bool,
) -> Tile:
    rows, by_rays = segments
    shown = source[span].reshape(-1)
    # Each of the tile's pixels, in raster order, is shown once by each copy.
    place = np.argsort(shown, kind="stable").reshape(len(source[span]), -1)
    by_pixels = None
    if both:
        wide = by_rays.tocsc()
        arrays = (wide.data, rows[wide.indices].astype(np.int32), wide.indptr)
        by_pixels = _csr(arrays, (by_rays.shape[1], rays), device)
    tables = (torch.from_numpy(a.astype(np.int32)).to(device) for a in (shown, place, rows))
    arrays = (by_rays.data, by_rays.indices, by_rays.indptr)
    return Tile(*tables, _csr(arrays, by_rays.shape, device), by_pixels)


def _csr(arrays: tuple[np.ndarray, ...], shape: tuple[int, int], device: torch.device) -> Tensor:
    values, columns, indptr = (torch.from_numpy(a).to(device) for a in arrays)
    with warnings.catch_warnings():
        # The two notices of torch's sparse CSR tensors: beta state, unchecked invariants.
        warnings.filterwarnings("ignore", "Sparse (CSR|invariant)")
        return torch.sparse_csr_tensor(indptr, columns, values, size=shape)
