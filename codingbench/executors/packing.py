"""The number of cells that run side by side, and of threads for each."""

from collections.abc import Sequence

import torch

from codingbench.cells.footprint import footprint, memory_mb
from codingbench.cells.grid import Job
from codingbench.cells.network import by_kind, network_of
from codingbench.runtime.devices import available_memory_mb

_LEAST_UPDATES = 1e9
"""Membrane updates of a grid above which a second process saves more time than its start takes."""


def pack(
    jobs: Sequence[Job],
    device: torch.device,
    workers: int | None,
    threads: int | None,
    devices: int = 1,
) -> tuple[int, int]:
    """Return the number of workers and of threads per cell; what is None is chosen for speed.

    On a CPU, small cells side by side with one thread each are faster than one after another on
    all cores. The last bits of a cell's numbers depend on its threads. Therefore the threads
    follow from the grid and the machine, not from the number of workers: cores / cells, at least
    1. Cells run one after another if the grid takes only seconds, or if they do not fit into the
    memory together.

    On a GPU there is one worker. A cell on several devices has at least one core for each.
    """
    cores = torch.get_num_threads()
    if device.type != "cpu":
        workers = workers or 1
        return workers, threads or max(1, cores // workers)
    side_by_side = max(1, min(cores // devices, len(jobs)))
    is_automatic = workers is None and threads is None
    if is_automatic and not _gains_from_processes(jobs, side_by_side, devices):
        return 1, max(cores, devices)
    threads = threads or max(devices, cores // side_by_side)
    return workers or max(1, min(len(jobs), cores // threads)), threads


def _gains_from_processes(jobs: Sequence[Job], side_by_side: int, devices: int) -> bool:
    if side_by_side == 1:
        return False
    updates = memory = 0.0
    for alike in by_kind(jobs):
        try:
            network = network_of(alike[0], seed=0)
            size = footprint(network, alike[0])
        except Exception:
            continue  # an error of the plug-in: its cells will fail
        images = sum(job.cell.epochs * job.cell.train_samples for job in alike)
        updates += size.neuron_updates * images
        memory = max(memory, memory_mb(alike[0], network, size))
    return updates >= _LEAST_UPDATES and side_by_side * devices * memory <= available_memory_mb()
