"""Processes that train together (torchrun), and the device each of them uses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..device import choose_device
from ..errors import BadInput


@dataclass(frozen=True)
class Workers:
    """rank of world processes; collectives are no-ops in a world of one."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network whose gradients are averaged over the processes."""
        if self.world == 1:
            return network
        ids = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(network, device_ids=ids)

    def mean(self, value: Tensor) -> Tensor:
        if self.world > 1:
            dist.all_reduce(value)
            value /= self.world
        return value

    def any(self, flag: bool) -> bool:
        if self.world == 1:
            return flag
        total = torch.tensor([float(flag)], device=self.device)
        dist.all_reduce(total)
        return total.item() > 0

    def wait(self) -> None:
        if self.world > 1:
            dist.barrier()


@contextmanager
def join(device: str, batch_size: int, accumulate: int) -> Iterator[Workers]:
    """This process's place among those that torchrun started (RANK, WORLD_SIZE, LOCAL_RANK)."""
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    place = choose_device(device, int(os.environ.get("LOCAL_RANK", "0")) if world > 1 else None)
    if batch_size % (world * accumulate):
        raise BadInput(
            "train.batch_size must be a multiple of processes * accumulate; got "
            f"{batch_size}, {world} and {accumulate}"
        )
    if place.type == "cuda":
        torch.cuda.set_device(place)
    owned = world > 1 and not dist.is_initialized()
    if owned:
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield Workers(rank, world, place)
    finally:
        if owned:
            dist.destroy_process_group()
