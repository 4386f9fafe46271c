"""Which tensors of a released checkpoint make which tensor of our network, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...errors import BadPrior

Build = Callable[[list[Tensor]], Tensor]


@dataclass(frozen=True)
class Part:
    """own = build([the tensors of these released names and shapes]).

    trained: whether it is a parameter that the released training moves (frozen Fourier
    frequencies are not, and are not in its moving average).
    """

    own: str
    released: tuple[tuple[str, tuple[int, ...]], ...]
    build: Build
    trained: bool = True


class Layout:
    """The parts of one network in one released format, in the order of the released module."""

    def __init__(self, network: nn.Module):
        self.shapes = {k: tuple(v.shape) for k, v in network.state_dict().items()}
        self.parts: list[Part] = []

    def tensor(self, own: str, released: str, trained: bool = True) -> None:
        """The same tensor under another name."""
        self.parts.append(Part(own, ((released, self.shapes[own]),), lambda ts: ts[0], trained))

    def module(self, own: str, released: str) -> None:
        """weight and, where there is one, bias of a layer."""
        for name in ("weight", "bias"):
            if f"{own}.{name}" in self.shapes:
                self.tensor(f"{own}.{name}", f"{released}.{name}")

    def reshaped(self, own: str, released: str, *trailing: int) -> None:
        """weight (O, I) or (O, I, 1, 1) kept with other trailing axes of length 1, and bias."""
        shape = self.shapes[f"{own}.weight"]
        want = (*shape[:2], *trailing)
        source = ((f"{released}.weight", want),)
        self.parts.append(Part(f"{own}.weight", source, lambda ts: ts[0].reshape(shape)))
        self.tensor(f"{own}.bias", f"{released}.bias")

    def transposed(self, own: str, released: str) -> None:
        """weight (O, I, ...) from "W" (I, O), and bias from "b": score_sde's NIN layers."""
        shape = self.shapes[f"{own}.weight"]
        source = ((f"{released}.W", (shape[1], shape[0])),)
        self.parts.append(Part(f"{own}.weight", source, lambda ts: ts[0].t().reshape(shape)))
        self.tensor(f"{own}.bias", f"{released}.b")

    def packed(self, own: str, released: str, order: Callable[[Tensor], Tensor], *trailing: int):
        """Query, key and value of one released layer, its rows put in our order by `order`."""
        shape = self.shapes[f"{own}.weight"]
        weight = ((f"{released}.weight", (*shape, *trailing)),)
        bias = ((f"{released}.bias", shape[:1]),)
        self.parts.append(Part(f"{own}.weight", weight, lambda ts: order(ts[0].reshape(shape))))
        self.parts.append(Part(f"{own}.bias", bias, lambda ts: order(ts[0])))

    def joined(self, own: str, released: Iterable[str], weight: str, bias: str, transpose: bool):
        """Query, key and value of three released layers (C, C) each."""
        names, size = list(released), self.shapes[f"{own}.weight"][1]

        def join(ts: list[Tensor]) -> Tensor:
            return torch.cat([t.t() if transpose else t for t in ts])

        weights = tuple((f"{name}.{weight}", (size, size)) for name in names)
        biases = tuple((f"{name}.{bias}", (size,)) for name in names)
        self.parts.append(Part(f"{own}.weight", weights, join))
        self.parts.append(Part(f"{own}.bias", biases, torch.cat))

    def finished(self) -> list[Part]:
        """The parts; every tensor of the network has one."""
        assert {part.own for part in self.parts} == self.shapes.keys()
        return self.parts


def rows_by_head(heads: int) -> Callable[[Tensor], Tensor]:
    """Rows (head, qkv, channel) in the order (qkv, head, channel): guided-diffusion's."""

    def order(tensor: Tensor) -> Tensor:
        return tensor.reshape(heads, 3, -1, *tensor.shape[1:]).transpose(0, 1).reshape(tensor.shape)

    return order


def rows_interleaved(tensor: Tensor) -> Tensor:
    """Rows (head, channel, qkv) in the order (qkv, head, channel): EDM's."""
    return tensor.reshape(-1, 3, *tensor.shape[1:]).transpose(0, 1).reshape(tensor.shape)


def released_shapes(parts: Iterable[Part]) -> dict[str, tuple[int, ...]]:
    """Every released name with its shape, in order."""
    return {key: shape for part in parts for key, shape in part.released}


def assemble(parts: list[Part], tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Our network's state from a checkpoint's tensors.

    BadPrior, with the first few names, if one is missing, unexpected, of another shape or not
    finite. Whatever the stored precision, float32 comes back.
    """
    want = released_shapes(parts)
    missing = [key for key in want if key not in tensors]
    extra = [key for key in tensors if key not in want]
    shapes = [
        f"{key} {tuple(tensors[key].shape)} for {shape}"
        for key, shape in want.items()
        if key in tensors and tuple(tensors[key].shape) != shape
    ]
    problems = [("missing", missing), ("unexpected", extra), ("of another shape", shapes)]
    if any(found for _, found in problems):
        listed = "; ".join(f"{what} {first(found)}" for what, found in problems if found)
        raise BadPrior(f"{name} does not fit the chosen network: {listed}")
    bad = [key for key in want if not torch.isfinite(tensors[key]).all()]
    if bad:
        raise BadPrior(f"{name}: weights must be finite; not so {first(bad)}")
    return {
        part.own: part.build([tensors[key].float() for key, _ in part.released]).contiguous()
        for part in parts
    }


def first(names: list[str], count: int = 4) -> str:
    """The first few of a list of names, and how many more there are."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
