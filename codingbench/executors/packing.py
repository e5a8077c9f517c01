"""The number of cells that run side by side, and of threads for each."""

from collections.abc import Sequence

import torch

from codingbench.cells.footprint import footprint, memory_mb
from codingbench.cells.grid import Job
from codingbench.cells.network import by_kind, network_of
from codingbench.runtime.devices import available_memory_mb, total_memory_mb

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
    follow from the grid and the machine, neither from the number of workers nor from what else
    runs: cores / cells, at least 1. If neither number is given, cells run one after another on all
    cores where the grid takes only seconds, or where the machine is too small for them together.
    Memory that is taken at the moment only reduces the number of workers.

    On a GPU there is one worker. A cell on several devices has at least one core for each.
    """
    cores = torch.get_num_threads()
    if device.type != "cpu":
        workers = workers or 1
        return workers, threads or max(1, cores // workers)
    side_by_side = max(1, min(cores // devices, len(jobs)))
    if workers is None and threads is None:
        return _fastest(jobs, cores, side_by_side, devices)
    threads = threads or max(devices, cores // side_by_side)
    return workers or max(1, min(len(jobs), cores // threads)), threads


def _fastest(jobs: Sequence[Job], cores: int, side_by_side: int, devices: int) -> tuple[int, int]:
    """Return the workers and threads with which the grid is finished first on a CPU."""
    updates, memory = _size_of_grid(jobs) if side_by_side > 1 else (0.0, 0.0)
    memory *= devices
    if updates < _LEAST_UPDATES or side_by_side * memory > total_memory_mb():
        return 1, max(cores, devices)
    threads = max(devices, cores // side_by_side)
    fitting = min(len(jobs), cores // threads, available_memory_mb() / memory)
    return max(1, int(fitting)), threads


def _size_of_grid(jobs: Sequence[Job]) -> tuple[float, float]:
    """Return the membrane updates of all cells, and the memory of the largest in 2^20 bytes."""
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
    return updates, memory
