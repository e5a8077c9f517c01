"""The processes that train one network together: who has which images, and what they add up."""

import logging
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Generator, Tensor, nn

from codingbench.backbone import Network
from codingbench.training.augment import Batch
from codingbench.training.evaluation import stream
from codingbench.training.sync_norm import join_norms


class SingleProcess:
    """A training in one process: its share is the whole, and its sums are complete."""

    rank, count = 0, 1

    def wrapped(self, network: Network) -> nn.Module:
        """What is called in a training step, with the network's own parameters."""
        return network

    def share(self, piece: Batch) -> Batch:
        """The part of the images that is this process's."""
        return piece

    def summing_gradients(self, is_last: bool) -> AbstractContextManager[None]:
        """Inside, a forward and a backward; after the last of a step, gradients are means over the
        processes."""
        return nullcontext()

    def total(self, number: Tensor) -> Tensor:
        """The sum over the processes."""
        return number

    def draw_apart(self, draws: Generator, seed: int, epoch: int, batch: int) -> None:
        """Before a step: let no process draw the numbers of another."""


SINGLE_PROCESS = SingleProcess()


class DataParallel(SingleProcess):
    """One of several processes, each with a device, through Lightning Fabric's DDP.

    Every process draws the order and augmentation of all images and then takes its share, so
    that the batches are those of a single process; and it evaluates all validation images. What
    a stochastic code draws is another in each process: its numbers agree with a single process's
    in distribution alone.

    Args:
        rank: of this process, from 0.
        devices: of all ranks, of one kind.
        port: on this machine, free, at which rank 0 is met.
        timeout_s: that a process waits for the others.
    """

    def __init__(
        self, rank: int, devices: Sequence[torch.device], port: int, timeout_s: float
    ) -> None:
        from lightning_fabric import Fabric
        from lightning_fabric.plugins.environments.lightning import LightningEnvironment
        from lightning_fabric.strategies.ddp import DDPStrategy

        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        os.environ |= {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "LOCAL_RANK": str(rank),
            "NODE_RANK": "0",
        }
        self.rank, self.count, kind = rank, len(devices), devices[0].type
        self._fabric = Fabric(
            accelerator=kind,
            devices=len(devices) if kind == "cpu" else [device.index for device in devices],
            strategy=DDPStrategy(
                process_group_backend="gloo" if kind == "cpu" else "cpu:gloo,cuda:nccl",
                timeout=timedelta(seconds=timeout_s),
                broadcast_buffers=False,  # they are the same everywhere
                find_unused_parameters=True,  # a plug-in may have some
            ),
            plugins=[LightningEnvironment()],
        )
        self._fabric.launch()
        self._wrapped: Any = None

    def wrapped(self, network: Network) -> nn.Module:
        """See :class:`SingleProcess`; its batch normalisations become joint ones.

        Raises:
            TrainingError: one of them cannot.
        """
        join_norms(network)
        self._wrapped = self._fabric.setup_module(network)
        module: nn.Module = self._wrapped
        return module

    def share(self, piece: Batch) -> Batch:
        """See :class:`SingleProcess`; without any image where there are fewer than processes."""
        return piece.part(self.rank, self.count)

    def summing_gradients(self, is_last: bool) -> AbstractContextManager[None]:
        """See :class:`SingleProcess`."""
        syncing: AbstractContextManager[None] = self._fabric.no_backward_sync(
            self._wrapped, enabled=not is_last
        )
        return syncing

    def total(self, number: Tensor) -> Tensor:
        """See :class:`SingleProcess`."""
        summed = number.clone()
        dist.all_reduce(summed)
        return summed

    def draw_apart(self, draws: Generator, seed: int, epoch: int, batch: int) -> None:
        """See :class:`SingleProcess`. Depends only on the rank and the place in the training, so
        that a run resumed from a checkpoint draws the same numbers."""
        place = f"{self.rank} of {self.count}/{epoch}/{batch}"
        draws.manual_seed(stream(seed, f"encoder/{place}").initial_seed())
        torch.manual_seed(stream(seed, f"torch/{place}").initial_seed())

    def any(self, is_so: bool) -> bool:
        """Whether it is so in any process; no device is waited for."""
        return bool(self.total(torch.tensor(int(is_so))))

    def from_first(self, thing: Any) -> Any:
        """What rank 0 has, in all processes."""
        return self._fabric.broadcast(thing)

    def leave(self) -> None:
        """End the group; a process that has left may end."""
        dist.destroy_process_group()
