"""Products with stored weights of rays, each weight read once for all turned copies of an image.

A stored ray r gives, for each element e of the symmetries used, y(r, e) = sum_p w(r, p) x(e p).
These elements hold a group M; pixel p is a member m of M applied to the first pixel o of its
orbit. Hence

    y(r, e) = sum_m z(r, m, e m),    z(r, m, k) = sum_o w(r, m o) x(k o):

products with one table of x, orbits by elements k, which is as large as x. The pairs (r, m) that
meet are the segments. Orbits are cut into tiles whose part of the table stays in the cache, and
segments with them. Weights are stored by segments, and also by orbits where memory allows;
without the second order A^T scatters through the first.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from .rays import Rays, sparse_rows
from .symmetry import Orbits, after, orbits, turned_pixels

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_NUMPY = {torch.float32: np.float32, torch.float64: np.float64}
# Entries of a tile's part of the table, for products and for scattering, where threads share tiles.
_TILE, _SCATTERED_TILE = 1 << 18, 1 << 16
# Rays whose weights are made at once: what set-up needs beside the weights that stay.
_RAYS = 512


@dataclass(frozen=True)
class Tile:
    """Weights of segments S on orbits N: by_segments (S, N), by_orbits (N, S) sparse or None."""

    by_segments: Tensor
    by_orbits: Tensor | None

    @property
    def nbytes(self) -> int:
        return sum(
            part.numel() * part.element_size()
            for M in (self.by_segments, self.by_orbits)
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
        self.copies, self.count, self.both = len(elements), len(rays), both
        self.pixels = rays.size[0] * rays.size[1]
        grid = orbits(rays.size, elements)
        share = _TILE if both else _SCATTERED_TILE
        tiles = 1 if device.type == "cuda" else round(len(grid.first) * self.copies / share)
        edges = np.linspace(0, len(grid.first), max(1, tiles) + 1).astype(np.int64)
        self.tiles, found = [], []
        for *segments, weights in _segments(rays, grid, edges, _NUMPY[dtype]):
            self.tiles.append(_tile(weights, device, both))
            found.append(segments)
        rows, members = (np.concatenate(parts) for parts in zip(*found, strict=True))
        tables = _places(turned_pixels(rays.size, elements)[grid.first].ravel())
        tables |= _turns(rows, members, elements, grid.members)
        tables["ends"] = np.append(0, np.cumsum(np.bincount(rows, minlength=len(rays))))
        self.tables = {
            name: torch.from_numpy(table.astype(np.int32)).to(device)
            for name, table in tables.items()
        }

    def __len__(self) -> int:
        return self.count

    @property
    def nbytes(self) -> int:
        total = sum(table.numel() * table.element_size() for table in self.tables.values())
        return total + sum(tile.nbytes for tile in self.tiles)

    def forward(self, x: Tensor) -> Tensor:
        """(H W, B) -> (R, copies B)."""
        batch, columns, t = x.shape[1], self.copies * x.shape[1], self.tables
        table = _chosen(x, t["source"]).view(-1, columns)
        parts = table.split([tile.by_segments.shape[1] for tile in self.tiles])
        z = [_product(tile.by_segments, u) for tile, u in zip(self.tiles, parts, strict=True)]
        z = _chosen(_joined(z).view(-1, batch), t["turned"]).view(-1, columns)
        return embedding_bag(t["segments"], z, t["ends"], mode="sum", include_last_offset=True)

    def adjoint(self, rows: Tensor) -> Tensor:
        """(R, copies B) -> (H W, B)."""
        batch, t = rows.shape[1] // self.copies, self.tables
        z = _chosen(rows.view(-1, batch), t["returned"]).view(-1, rows.shape[1])
        parts = z.split([tile.by_segments.shape[0] for tile in self.tiles])
        table = _joined(self._by_orbits(parts)).view(-1, batch)
        images = _chosen(table, t["place"])
        if len(images) > self.pixels:
            images = images.unflatten(0, (self.pixels, -1)).sum(1)
        # Number by number: rows are added one call each.
        again = t["again"][:, None] * batch + torch.arange(batch, device=rows.device)
        more = _chosen(table, t["more"])
        return images.view(-1).index_add_(0, again.view(-1), more.view(-1)).view(-1, batch)

    def _by_orbits(self, parts: tuple[Tensor, ...]) -> list[Tensor]:
        if self.both:
            products = zip(self.tiles, parts, strict=True)
            return [_product(tile.by_orbits, part) for tile, part in products]
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            return list(pool.map(_scattered, self.tiles, parts))


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _chosen(table: Tensor, index: Tensor) -> Tensor:
    """table[index], (N, B) and (P,) -> (P, B)."""
    if table.shape[1] == 1:
        return table[:, 0].index_select(0, index)[:, None]
    return table.index_select(0, index)


def _product(matrix: Tensor, dense: Tensor) -> Tensor:
    """matrix @ dense, for many columns in float32 on a CPU by the kernel of embedding bags."""
    if dense.device.type != "cpu" or dense.dtype != torch.float32 or dense.shape[1] < 12:
        return torch.mm(matrix, dense)
    return embedding_bag(
        matrix.col_indices(),
        dense,
        matrix.crow_indices(),
        mode="sum",
        per_sample_weights=matrix.values(),
        include_last_offset=True,
    )


def _scattered(tile: Tile, segments: Tensor) -> Tensor:
    """by_segments^T segments: (S, columns) -> (N, columns)."""
    # scipy costs a tenth of a second to import.
    from scipy.sparse import csc_matrix

    M = tile.by_segments
    parts = (M.values().numpy(), M.col_indices().numpy(), M.crow_indices().numpy())
    transposed = csc_matrix(parts, shape=(M.shape[1], M.shape[0]), copy=False)
    if segments.shape[1] > 2:
        return torch.from_numpy(transposed @ segments.numpy())
    # Two vectors are faster than a matrix of two columns.
    columns = [torch.from_numpy(transposed @ column.numpy()) for column in segments.T.contiguous()]
    return torch.stack(columns, 1)


def _places(source: np.ndarray) -> dict[str, np.ndarray]:
    """source: the raster pixel of each entry of the table; place: as many entries of each pixel.

    An orbit under fewer than all members shows its pixels more than once: more (L,) are these
    entries, again (L,) their pixels.
    """
    order = np.argsort(source, kind="stable")
    shown, counts = source[order], np.bincount(source)
    nth = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    regular = nth < counts.min()
    return {
        "source": source,
        "place": order[regular],
        "again": shown[~regular],
        "more": order[~regular],
    }


def _turns(
    rows: np.ndarray,
    members: np.ndarray,
    elements: list[tuple[int, int]],
    group: list[tuple[int, int]],
) -> dict[str, np.ndarray]:
    """Where z(r, m, e m) is found for each segment and e (turned), and y(r, k m^-1) for each k.

    segments: those of each ray, ray by ray.
    """
    turn = np.array([[elements.index(after(e, m)) for e in elements] for m in group])
    back, copies = np.argsort(turn, 1), len(elements)
    return {
        "turned": (np.arange(len(rows))[:, None] * copies + turn[members]).ravel(),
        "returned": (rows[:, None] * copies + back[members]).ravel(),
        "segments": np.argsort(rows, kind="stable"),
    }


def _segments(
    rays: Rays, grid: Orbits, edges: np.ndarray, dtype: type
) -> Iterator[tuple[np.ndarray, np.ndarray, csr_matrix]]:
    """Of each tile: rays (S,) and members (S,) of its segments, their weights (S, N) sparse."""
    # scipy costs a tenth of a second to import.
    from scipy.sparse import csr_matrix

    column, blocks = _columns(grid, edges)
    # Of each tile: the ray, member and number of weights of each segment, the orbits and weights.
    # Untouched room costs no memory: half as much again as tiles need that share evenly.
    room = int(3 * rays.lines().sum() / len(blocks)) + 1
    sizes = ((np.int32, 0), (np.int8, 0), (np.int32, 0), (np.int32, room), (dtype, room))
    found = [[_Growing(kind, size) for kind, size in sizes] for _ in blocks]
    for start in range(0, len(rays), _RAYS):
        chunk = np.arange(start, min(start + _RAYS, len(rays)))
        indptr, pixel, weight = sparse_rows(rays[chunk], dtype)
        arrays = (weight, column[pixel], indptr.astype(np.int32))
        by_column = csr_matrix(arrays, shape=(len(chunk), blocks[-1][-1].stop)).tocsc()
        for spans, grown in zip(blocks, found, strict=True):
            for member, span in enumerate(spans):
                part = by_column[:, span].tocsr()
                counts = np.diff(part.indptr)
                met = np.flatnonzero(counts)
                more = (chunk[met], np.full(len(met), member), counts[met], part.indices, part.data)
                for numbers, new in zip(grown, more, strict=True):
                    numbers.append(new)
    for count, grown in zip(np.diff(edges), found, strict=True):
        rows, members, counts, orbit, weights = (numbers.all() for numbers in grown)
        ends = np.append(0, np.cumsum(counts)).astype(np.int32)
        yield rows, members, csr_matrix((weights, orbit, ends), shape=(len(rows), count))


def _columns(grid: Orbits, edges: np.ndarray) -> tuple[np.ndarray, list[list[slice]]]:
    """Pixels as columns, tile by tile, in it member by member, then orbit by orbit.

    (H W,) the column of each pixel, and of each tile the columns of each member.
    """
    count, width = len(grid.members), np.diff(edges)
    tile = np.searchsorted(edges, grid.orbit, "right") - 1
    column = count * edges[tile] + grid.member * width[tile] + grid.orbit - edges[tile]
    starts = (count * edges[:-1])[:, None] + np.arange(count) * width[:, None]
    blocks = [
        [slice(int(a), int(a + n)) for a in row] for row, n in zip(starts, width, strict=True)
    ]
    return column.astype(np.int32), blocks


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


def _tile(weights: csr_matrix, device: torch.device, both: bool) -> Tile:
    by_orbits, (rows, columns) = None, cast(tuple[int, int], weights.shape)
    if both:
        wide = weights.tocsc()
        by_orbits = _csr((wide.data, wide.indices, wide.indptr), (columns, rows), device)
    arrays = (weights.data, weights.indices, weights.indptr)
    return Tile(_csr(arrays, (rows, columns), device), by_orbits)


def _csr(arrays: tuple[np.ndarray, ...], shape: tuple[int, int], device: torch.device) -> Tensor:
    values, columns, indptr = (torch.from_numpy(a).to(device) for a in arrays)
    with warnings.catch_warnings():
        # The two notices of torch's sparse CSR tensors: beta state, unchecked invariants.
        warnings.filterwarnings("ignore", "Sparse (CSR|invariant)")
        return torch.sparse_csr_tensor(indptr, columns, values, size=shape)
