"""The benchmarks of a prior by itself: bits per dimension, and Frechet distance of samples."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inverse_score.errors import BadInput
from inverse_score.likelihood import bits_per_dim
from inverse_score.sampling import sample

from .definition import Case, Row
from .run import BenchmarkRun
from .sources import Item

_BATCH = 64


def likelihood(run: BenchmarkRun, row: Row, case: Case, item: Item) -> dict[str, Any]:
    """Bits per dimension of one image, dequantized by a draw of its own."""
    x = item.load()[None]
    bits, info = bits_per_dim(
        x,
        run.prior,
        seed=run.definition.seed,
        items=[item.number],
        return_info=True,
        **case.operator,
    )
    return {"scores": {"bits_per_dim": float(bits[0])}, "nfe": info["nfe"], "vjps": info["vjps"]}


def samples(run: BenchmarkRun, row: Row, case: Case, item: Item) -> dict[str, Any]:
    """FID and inception score of a prior's samples against all items' features.

    Recorded once, with the first item: the reference is the whole data set.
    """
    if item is not run.items[0]:
        return {"scores": {}, "nfe": None, "vjps": None}
    network = feature_network(run.features)
    real = [network(_bytes(batch)) for batch in _batches(run.items)]
    drawn, nfe = _draw(run, row, int(case.operator["samples"]), network)
    fid = frechet_distance(torch.cat([f for f, _ in real]), torch.cat([f for f, _ in drawn]))
    found = {"fid": fid}
    logits = [p for _, p in drawn if p is not None]
    if logits:
        found["inception_score"] = inception_score(torch.cat(logits))
    return {"scores": found, "nfe": nfe, "vjps": 0}


def _draw(run: BenchmarkRun, row: Row, count: int, network: Any) -> tuple[list, int]:
    shape = run.items[0].load().shape
    drawn, nfe = [], 0
    for first in range(0, count, _BATCH):
        numbers = list(range(first, min(first + _BATCH, count)))
        x, info = sample(
            run.prior,
            (len(numbers), *shape),
            method=row.method or "auto",
            seed=run.definition.seed,
            items=numbers,
            return_info=True,
            **row.options,
        )
        drawn.append(network(_bytes(x)))
        nfe = info["nfe"]
    return drawn, nfe


def _batches(items: list[Item]):
    for first in range(0, len(items), _BATCH):
        yield torch.stack([item.load() for item in items[first : first + _BATCH]])


def _bytes(x: Tensor) -> Tensor:
    """[0, 1] images as the bytes that a PNG would hold: FID is of 8-bit images."""
    return (x * 255).round().clamp(0, 255).to(torch.uint8)


@functools.lru_cache(maxsize=1)
def feature_network(path: Path | None):
    """x uint8 (B, 3, H, W) -> (features (B, d) float64, logits (B, classes) or None).

    A TorchScript file whose forward(x) gives features, or (features, logits).
    """
    if path is None:
        raise BadInput(
            "sample quality needs --features FILE: the Inception network as TorchScript, whose "
            "forward takes uint8 (B, 3, H, W) and gives features, or features and logits"
        )
    try:
        network = torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError) as error:
        raise BadInput(f"{path.name} is not TorchScript: {str(error).splitlines()[0]}") from None

    @torch.no_grad()
    def features(x: Tensor) -> tuple[Tensor, Tensor | None]:
        out = network(x)
        if isinstance(out, tuple):
            return out[0].double().flatten(1), out[1].double()
        return out.double().flatten(1), None

    return features


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) of features (N, d) (Heusel et al. 2017).

    The trace of the root is the sum of singular values of L_a^T L_b with C = L L^T, which needs
    no complex matrix root.
    """
    if min(len(a), len(b)) < 2 or a.shape[1] != b.shape[1]:
        raise BadInput(f"need two sets of features (N >= 2, d); got {a.shape}, {b.shape}")
    roots = [_root(features) for features in (a, b)]
    mean = (a.mean(0) - b.mean(0)).square().sum()
    traces = sum(root.square().sum() for root in roots)
    cross = torch.linalg.svdvals(roots[0].T @ roots[1]).sum()
    return float(mean + traces - 2 * cross)


def _root(features: Tensor) -> Tensor:
    covariance = torch.cov(features.T).reshape(features.shape[1], -1)
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0).sqrt()


def inception_score(logits: Tensor, splits: int = 10) -> float:
    """exp E KL(p(y|x) | p(y)), the mean over splits (Salimans et al. 2016)."""
    log_p = torch.log_softmax(logits, dim=1)
    parts = log_p.chunk(min(splits, len(log_p)))
    values = []
    for part in parts:
        marginal = torch.logsumexp(part, dim=0) - np.log(len(part))
        values.append((part.exp() * (part - marginal)).sum(1).mean().exp())
    return float(torch.stack(values).mean())
