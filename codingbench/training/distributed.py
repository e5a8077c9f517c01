"""Training one network in several processes: division of the images, and sums over processes."""

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
    """A training in one process, which keeps all images and whose sums are complete."""

    rank, count = 0, 1

    def wrapped(self, network: Network) -> nn.Module:
        """Return the module to call in a training step; it has the network's own parameters."""
        return network

    def share(self, piece: Batch) -> Batch:
        """Return the part of the images that this process trains on."""
        return piece

    def summing_gradients(self, is_last: bool) -> AbstractContextManager[None]:
        """Return a context for one forward and one backward pass.

        After the last pass of a step, the gradients are means over the processes.
        """
        return nullcontext()

    def total(self, number: Tensor) -> Tensor:
        """Return the sum over the processes."""
        return number

    def separate_draws(self, draws: Generator, seed: int, epoch: int, batch: int) -> None:
        """Give each process random numbers of its own; called before every step."""


SINGLE_PROCESS = SingleProcess()


class DataParallel(SingleProcess):
    """One of several processes, each with a device, through Lightning Fabric's DDP.

    Every process draws the order and the augmentation of all images and then takes its share, so
    the batches equal those of a single process. Every process evaluates all validation images.
    Each process draws different random numbers for a stochastic code, so the results equal those
    of a single process only in distribution.

    Args:
        rank: the rank of this process, counted from 0.
        devices: the devices of all ranks, all of one kind.
        port: a free port of this machine on which rank 0 accepts the other ranks.
        timeout_s: longest time to wait for the other processes, in seconds.
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
                broadcast_buffers=False,  # they are equal in all processes
                find_unused_parameters=True,  # a plug-in may have unused parameters
            ),
            plugins=[LightningEnvironment()],
        )
        self._fabric.launch()
        self._wrapped: Any = None

    def wrapped(self, network: Network) -> nn.Module:
        """See :class:`SingleProcess`; batch normalisation then spans all processes.

        Raises:
            TrainingError: a batch normalisation layer does not support this.
        """
        join_norms(network)
        self._wrapped = self._fabric.setup_module(network)
        module: nn.Module = self._wrapped
        return module

    def share(self, piece: Batch) -> Batch:
        """See :class:`SingleProcess`; the part is empty if there are too few images."""
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

    def separate_draws(self, draws: Generator, seed: int, epoch: int, batch: int) -> None:
        """See :class:`SingleProcess`.

        The numbers depend only on the rank and the position in the training, so that a training
        resumed from a checkpoint draws the same ones.
        """
        place = f"{self.rank} of {self.count}/{epoch}/{batch}"
        draws.manual_seed(stream(seed, f"encoder/{place}").initial_seed())
        torch.manual_seed(stream(seed, f"torch/{place}").initial_seed())

    def any(self, is_so: bool) -> bool:
        """Return True if ``is_so`` is True in any process, without waiting for a device."""
        return bool(self.total(torch.tensor(int(is_so))))

    def from_first(self, thing: Any) -> Any:
        """Return the object of rank 0 in all processes."""
        return self._fabric.broadcast(thing)

    def leave(self) -> None:
        """Leave the process group, after which this process may exit."""
        dist.destroy_process_group()
