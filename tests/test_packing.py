"""The number of cells side by side, of threads for each, and the choice of compiled neurons."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from codingbench.cells.footprint import Footprint, chosen_backend, footprint, memory_mb
from codingbench.cells.grid import Grid, Job
from codingbench.cells.network import by_kind, network_of
from codingbench.executors import packing
from codingbench.executors.packing import pack
from codingbench.runtime import devices
from codingbench.runtime.devices import available_memory_mb, total_memory_mb

CPU = torch.device("cpu")
LONG: dict[str, Any] = {"encoders": ("direct",), "datasets": ("cifar100",), "epochs": 50}


@pytest.fixture(autouse=True)
def cores() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def jobs(**settings: Any) -> list[Job]:
    return Grid(**settings).expand()


@pytest.mark.parametrize(
    ("cells", "expected"), [(1, (1, 4)), (2, (2, 2)), (3, (3, 1)), (4, (4, 1)), (9, (4, 1))]
)
def test_a_long_grid_fills_the_cores_and_never_more(
    cells: int, expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "total_memory_mb", lambda: 1e6)
    monkeypatch.setattr(packing, "available_memory_mb", lambda: 1e6)
    assert pack(jobs(seeds=tuple(range(cells)), **LONG), CPU, None, None) == expected


def test_threads_follow_from_the_grid_and_not_from_the_workers_asked_for() -> None:
    grid = jobs(seeds=tuple(range(8)), **LONG)
    assert {pack(grid, CPU, workers, None) for workers in (1, 2, 8)} == {(1, 1), (2, 1), (8, 1)}


def test_what_is_asked_for_is_done() -> None:
    assert pack(jobs(), CPU, 3, 2) == (3, 2)
    assert pack(jobs(seeds=(0, 1, 2), **LONG), CPU, None, 2) == (2, 2)


def test_a_grid_of_seconds_runs_in_one_process_on_all_cores() -> None:
    assert pack(jobs(epochs=1, train_samples=100), CPU, None, None) == (1, 4)


def test_cells_for_which_the_machine_is_too_small_run_one_after_another_on_all_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(packing, "total_memory_mb", lambda: 3000.0)
    assert pack(jobs(seeds=(0, 1, 2), **LONG), CPU, None, None) == (1, 4)


@pytest.mark.parametrize(("free_mb", "workers"), [(100.0, 1), (3000.0, 2), (math.inf, 4)])
def test_memory_in_use_costs_workers_and_never_changes_the_threads(
    free_mb: float, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "total_memory_mb", lambda: 1e6)
    monkeypatch.setattr(packing, "available_memory_mb", lambda: free_mb)
    assert pack(jobs(seeds=(0, 1, 2, 3), **LONG), CPU, None, None) == (workers, 1)


def test_the_memory_of_the_machine_is_known_and_more_than_what_is_free() -> None:
    assert 0 < available_memory_mb() <= total_memory_mb()


@pytest.mark.parametrize(
    ("limit", "used", "free", "total"),
    [("max", "5", 2.0, 4.0), (str(3 << 20), str(2 << 20), 1.0, 3.0), (None, None, 2.0, 4.0)],
    ids=["no limit", "a container's limit", "no container"],
)
def test_the_smaller_of_machine_and_container_counts(
    limit: str | None,
    used: str | None,
    free: float,
    total: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = str(tmp_path / "most"), str(tmp_path / "used")
    for file, text in zip(files, (limit, used), strict=True):
        if text is not None:
            Path(file).write_text(text + "\n")
    machine = {"MemAvailable": 2.0, "MemTotal": 4.0}
    monkeypatch.setattr(devices, "_CGROUPS", [files])
    monkeypatch.setattr(devices, "_machine_memory_mb", machine.__getitem__)
    assert (available_memory_mb(), total_memory_mb()) == (free, total)


def test_a_gpu_has_one_worker_unless_more_are_asked_for() -> None:
    cuda = torch.device("cuda")
    assert pack(jobs(encoders=("rate",)), cuda, None, None) == (1, 4)
    assert pack(jobs(encoders=("rate",)), cuda, 2, None) == (2, 2)


def test_the_footprint_is_that_of_the_layers_by_hand() -> None:
    (job,) = jobs(encoders=("direct",), num_steps=(3,), backbones=("csnn[width=4]",))
    network = network_of(job)
    # 28x28 images: a coding neuron and one per block before its stride, then the head's
    per_step = 4 * 28 * 28 + 4 * 28 * 28 + 8 * 14 * 14 + 16 * 7 * 7 + 32 * 4 * 4
    size = footprint(network, job)
    assert size.neuron_updates == 3 * per_step
    assert size.values > 2 * size.neuron_updates


def test_memory_grows_with_the_images_of_one_pass() -> None:
    whole, pieces = jobs(batch_size=64), jobs(batch_size=64, micro_batch=8)
    need = [memory_mb(job[0], network_of(job[0]), Footprint(1, 10**6)) for job in (whole, pieces)]
    assert need[0] - need[1] == pytest.approx(56 * 1.5 * 4e6 / 2**20)


def test_networks_of_one_size_are_one_kind_whatever_their_seed() -> None:
    groups = by_kind(jobs(encoders=("direct", "gac"), seeds=(0, 1, 2), num_steps=(2, 4)))
    assert [len(group) for group in groups] == [3, 3, 3, 3]


@pytest.mark.parametrize(("epochs", "expected"), [(1, "eager"), (250, "compiled")])
def test_neurons_are_compiled_where_the_training_is_long(epochs: int, expected: str) -> None:
    (job,) = jobs(encoders=("direct",), datasets=("cifar100",), epochs=epochs)
    assert chosen_backend(network_of(job), job) == expected
