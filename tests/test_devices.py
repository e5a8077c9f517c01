"""A cell on several devices: two processes on the CPU train like one, up to rounding."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing import Pipe, active_children, get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from codingbench.backbone import Network, build_network
from codingbench.cells.grid import Grid
from codingbench.cells.network import task_of
from codingbench.datasets import find, get_info, load
from codingbench.errors import SpecError
from codingbench.executors import devices, packing
from codingbench.executors.base import Outcome, run_grid
from codingbench.executors.config import ExecutorConfig
from codingbench.executors.devices import _free_port, _listen, _Rank, _RankInfo, _SharedCheckpoints
from codingbench.executors.local import InProcess
from codingbench.executors.slurm import OnSlurm
from codingbench.recipes.recipe import Loss, Recipe, WeightAverage, load_recipe
from codingbench.registry import BACKBONES, ENCODERS
from codingbench.runtime import devices as hardware
from codingbench.runtime.devices import conditions, devices_from
from codingbench.runtime.interrupts import StopRequest
from codingbench.store.folder import Store
from codingbench.training.augment import Batch
from codingbench.training.checkpoint import Checkpoints
from codingbench.training.distributed import SINGLE_PROCESS, DataParallel, SingleProcess
from codingbench.training.loop import Interrupted, Training, train
from codingbench.training.meter import TrainingError
from codingbench.training.splits import Data, hold_out
from codingbench.training.sync_norm import JointBatchNorm, join_norms
from tests.grids import Recorder, config_of

pytestmark = pytest.mark.thorough

CPU = torch.device("cpu")
SPLITS = {"halves": [3, 3], "uneven": [2, 4], "one has none": [0, 6]}


class Unheard:
    def pulse(self, pulse: Any) -> None: ...
    def epoch_done(self, row: dict[str, Any]) -> None: ...


def network(encoder: str) -> Network:
    plugins = ENCODERS.resolve(encoder), BACKBONES.resolve("csnn[width=4]")
    return build_network(*plugins, task_of(get_info("fashion_mini"), 2), 0)


def data() -> Data:
    """Return 151 training images: the last of three batches has one, so one process has none."""
    source = find("fashion_mini", None)
    assert source is not None
    return Data(*hold_out(load(source, "train", 191), 40 / 191), load(source, "test", 100))


def quick() -> Recipe:
    return replace(load_recipe("quick"), epochs=1, batch_size=75)


def mixed() -> Recipe:
    """Return a recipe with crops, flips, and CutMix on about half of the batches."""
    return replace(load_recipe("gac"), epochs=1, batch_size=75)


def averaged() -> Recipe:
    """Return a recipe with the loss of every step, and with a mean of the weights.

    The first step of AdamW would enlarge the rounding of gradients that are almost 0.
    """
    return replace(
        quick(),
        optimizer=replace(load_recipe("gac").optimizer, lr=0.2),
        loss=Loss(name="tet", mse_weight=0.05),
        weight_average=WeightAverage(decay=0.5, every_steps=1),
    )


CASES: dict[str, tuple[str, Recipe, int | None]] = {
    "direct": ("direct", quick(), None),
    "gac": ("gac", quick(), None),
    "in pieces": ("direct", mixed(), 40),
    "tet and a mean of the weights": ("direct", averaged(), None),
}


def trained(
    case: str, ranks: SingleProcess, batches: int = 0, checkpoints: Checkpoints | None = None
) -> tuple[dict[str, Tensor], Training | None]:
    """Train for all batches, or until the last rank alone requests a stop after ``batches``."""
    encoder, recipe, micro_batch = CASES[case]
    left = batches

    def should_stop() -> bool:
        nonlocal left
        left -= 1
        asked = left == 0 and ranks.rank == ranks.count - 1
        return ranks.any(asked) if isinstance(ranks, DataParallel) else asked

    net, result = network(encoder), None
    options: dict[str, Any] = {"micro_batch": micro_batch, "checkpoints": checkpoints}
    try:
        result = train(
            net,
            data(),
            recipe,
            0,
            "fp32",
            Unheard(),
            should_stop=should_stop,
            ranks=ranks,
            **options,
        )
    except Interrupted:
        assert batches
    return net.state_dict(), result


def normalised(x: Tensor, weight: Tensor) -> dict[str, Any]:
    """Return outputs, gradients and state of batch normalisation under a weighted loss."""
    own = x.clone().requires_grad_()
    norm = a_norm()
    out = norm(own)
    (out * weight).sum().backward()
    of_images = {"out": out.detach(), "grad": own.grad}
    parameters = {"weight": norm.weight.grad, "bias": norm.bias.grad}
    return {"images": of_images, "parameters": parameters, "state": norm.state_dict()}


def norm_inputs() -> tuple[Tensor, Tensor]:
    """Return images with means far from zero, and weights of the loss."""
    images = torch.randn(6, 3, 4, 5, generator=torch.Generator().manual_seed(0)) + 10
    return images, torch.linspace(-1, 1, images.numel()).reshape(images.shape)


def a_norm() -> Any:
    norm: Any = nn.BatchNorm2d(3)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 1.0, -2.0]))
        norm.bias.copy_(torch.tensor([0.0, 3.0, 1.0]))
    if torch.distributed.is_initialized():
        norm.__class__ = JointBatchNorm
    return norm


def experiments(rank: int, port: int, folder: Path) -> None:
    """Run all experiments in one of two processes, and save the results to a file."""
    ranks = DataParallel(rank, [CPU, CPU], port, 60)
    found: dict[str, Any] = {}
    with conditions(1, is_deterministic=True):
        for name, sizes in SPLITS.items():
            x, weight = (tensor.split(sizes)[rank] for tensor in norm_inputs())
            found[f"norm {name}"] = normalised(x, weight)
            found[f"norm {name} bf16"] = normalised(x.bfloat16(), weight)
        for case in CASES:
            found[f"first step of {case}"] = trained(case, ranks, batches=1)
            found[case] = trained(case, ranks)
        checkpoints = _SharedCheckpoints(Checkpoints(folder, "cell"), ranks)
        trained("direct", ranks, batches=2, checkpoints=checkpoints)
    torch.save(found, folder / f"{rank}.pt")
    ranks.leave()


@dataclass(frozen=True)
class Pair:
    """The results of two processes, and the folder of their checkpoints."""

    found: list[dict[str, Any]]
    folder: Path

    def __getitem__(self, name: str) -> list[Any]:
        return [found[name] for found in self.found]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder, port = tmp_path_factory.mktemp("pair"), _free_port()
    spawn = get_context("spawn")
    pair = [spawn.Process(target=experiments, args=(rank, port, folder)) for rank in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[1])  # spawned processes must find this module
        for process in pair:
            process.start()
    for process in pair:
        process.join()
    assert [process.exitcode for process in pair] == [0, 0]
    files = [folder / f"{rank}.pt" for rank in range(2)]
    return Pair([torch.load(file, weights_only=False) for file in files], folder)


# --- batch normalisation -------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
def test_two_processes_normalise_as_one_that_has_all_images(pair: Pair, split: str) -> None:
    whole, parts = normalised(*norm_inputs()), pair[f"norm {split}"]
    for name, expected in whole["images"].items():
        joined = torch.cat([part["images"][name] for part in parts])
        torch.testing.assert_close(joined, expected, rtol=1e-5, atol=2e-5)
    for name, expected in whole["parameters"].items():
        summed = sum(part["parameters"][name] for part in parts)
        torch.testing.assert_close(summed, expected, rtol=1e-5, atol=1e-4)
    for part in parts:
        torch.testing.assert_close(part["state"], whole["state"], rtol=1e-6, atol=1e-6)


def test_numbers_of_two_bytes_are_normalised_in_four(pair: Pair) -> None:
    images, weight = norm_inputs()
    whole = normalised(images.bfloat16(), weight)
    parts = pair["norm uneven bf16"]
    out = torch.cat([part["images"]["out"] for part in parts])
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, whole["images"]["out"], rtol=1e-2, atol=1e-2)
    for part in parts:
        torch.testing.assert_close(part["state"], whole["state"], rtol=1e-5, atol=1e-5)


def test_a_joint_norm_has_the_names_and_the_evaluation_of_what_it_was() -> None:
    plain, joint = network("gac"), network("gac")
    join_norms(joint)
    assert sum(isinstance(layer, JointBatchNorm) for layer in joint.modules()) == 7
    assert list(joint.state_dict()) == list(plain.state_dict())
    images = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    outs = [net.eval()(images, torch.Generator()) for net in (plain, joint)]
    assert torch.equal(*outs)


def test_a_normalisation_of_ones_own_is_refused_by_name() -> None:
    class Own(nn.BatchNorm2d):
        def forward(self, input: Tensor) -> Tensor:
            return input

    with pytest.raises(TrainingError, match=r"^1 is a Own, which cannot be trained on several"):
        join_norms(nn.Sequential(nn.Conv2d(1, 2, 3), Own(2)))


# --- training ------------------------------------------------------------------------------------


def assert_near(one: dict[str, Tensor], other: dict[str, Tensor], atol: float) -> None:
    torch.testing.assert_close(one, other, rtol=1e-6, atol=atol)


@pytest.mark.parametrize("case", CASES)
def test_the_first_step_is_that_of_one_process(pair: Pair, case: str) -> None:
    with conditions(1, is_deterministic=True):
        start, (alone, _) = (
            network(CASES[case][0]).state_dict(),
            trained(case, SINGLE_PROCESS, batches=1),
        )
    (first, _), (second, _) = pair[f"first step of {case}"]
    assert_near(first, second, 0)
    assert_near(first, alone, 1e-6)
    for name in ("encoder.stem.0.weight", "backbone.head.linear.weight"):
        assert (alone[name] - start[name]).abs().max() > 1e-3


# Rounding may lift a membrane over its threshold. The extra spike changes everything after it by
# more than rounding does; 1e-6 added to the initial weights has the same effect.
@pytest.mark.parametrize(
    ("case", "atol"),
    [
        ("direct", 1e-5),
        ("gac", 1e-5),
        ("in pieces", 1e-3),
        ("tet and a mean of the weights", 1e-5),
    ],
)
def test_an_epoch_is_that_of_one_process(pair: Pair, case: str, atol: float) -> None:
    with conditions(1, is_deterministic=True):
        alone, result = trained(case, SINGLE_PROCESS)
    (first, training), (second, _) = pair[case]
    assert result is not None
    assert_near(first, second, 0)
    assert_near(first, alone, atol)
    assert_near(training.selected_weights, result.selected_weights, atol)
    (row,), (expected,) = training.epoch_rows, result.epoch_rows
    assert row["test_accuracy"] is expected["test_accuracy"] is None
    timeless = expected.keys() - {"wall_s", "images_per_s", "test_accuracy"}
    assert {name: row[name] for name in timeless} == pytest.approx(
        {name: expected[name] for name in timeless}, rel=1e-5
    )


def test_a_stop_heard_by_one_process_stops_both_and_one_alone_can_go_on(pair: Pair) -> None:
    checkpoints = Checkpoints(pair.folder, "cell")
    state = checkpoints.load()
    assert state is not None and (state["epoch"], state["batch"]) == (0, 2)
    with conditions(1, is_deterministic=True):
        whole, _ = trained("direct", SINGLE_PROCESS)
        resumed, _ = trained("direct", SINGLE_PROCESS, checkpoints=checkpoints)
    assert_near(resumed, whole, 1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_shares_of_a_batch_are_all_of_it_in_order(count: int) -> None:
    images, labels = torch.rand(4, 1, 2, 2), torch.arange(4)
    batch = Batch(images, labels, labels.flip(0), 0.3)
    parts = [batch.part(index, count) for index in range(count)]
    assert torch.equal(torch.cat([part.images for part in parts]), images)
    assert torch.equal(torch.cat([part.labels for part in parts]), labels)
    others = [part.other_labels for part in parts if part.other_labels is not None]
    assert torch.equal(torch.cat(others), labels.flip(0))
    sizes = [len(part.labels) for part in parts]
    assert max(sizes) - min(sizes) <= 1 and {part.share for part in parts} == {0.3}


# --- a cell --------------------------------------------------------------------------------------

BOUNDS: dict[str, Any] = {
    "encoders": ("direct",),
    "num_steps": (2,),
    "backbones": ("csnn[width=4]",),
    "epochs": 2,
    "train_samples": 300,
    "test_samples": 200,
    "batch_size": 50,
}


def cells(folder: Path, count: int, **changes: Any) -> tuple[Outcome, Recorder, pd.DataFrame]:
    """Run a small grid; return its outcome, its events and its rows of table ``cells``."""
    recorder = Recorder()
    config = replace(config_of(Grid(**{**BOUNDS, **changes}), folder), devices=count)
    outcome = run_grid(config, InProcess(), recorder)
    return outcome, recorder, Store(folder).read("cells").set_index("encoder")


def test_a_cell_on_two_devices_has_the_key_and_the_numbers_of_one(tmp_path: Path) -> None:
    alone = cells(tmp_path / "one", 1)[2].loc["direct"]
    outcome, recorder, both = cells(tmp_path / "two", 2)
    together = both.loc["direct"]
    assert outcome == Outcome(done=1, skipped=0, failed=0)
    assert recorder.pulses >= 2  # events of the processes arrive
    assert (alone["devices"], together["devices"]) == (1, 2)
    assert alone["key"] == together["key"] and together["val_samples"] == alone["val_samples"]
    assert together["accuracy"] == pytest.approx(alone["accuracy"], abs=0.02)
    assert together["firing_rate"] == pytest.approx(alone["firing_rate"], rel=0.02)
    assert together["dense_real"] == alone["dense_real"]
    assert together["wall_s"] > together["train_wall_s"] > 0
    epochs = Store(tmp_path / "two").read("epochs")
    assert epochs["epoch"].tolist() == [1, 2]
    assert not list((tmp_path / "two" / "checkpoints").glob("*"))


def test_what_two_devices_need_is_asked_for_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refusal(device: str, count: int) -> str:
        with pytest.raises(SpecError) as caught:
            devices_from(torch.device(device), count)
        return str(caught.value)

    monkeypatch.setattr(hardware, "_cores", lambda: 4)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert devices_from(CPU, 4) == [CPU] * 4
    assert devices_from(torch.device("cuda:1"), 3) == [torch.device("cuda", i) for i in (1, 2, 3)]
    assert devices_from(torch.device("mps"), 1) == [torch.device("mps")]
    assert refusal("cpu", 5) == "5 devices were requested, but the CPU has 4 cores"
    expected = "4 devices were requested, but torch sees 3 GPUs from 'cuda:1' on"
    assert refusal("cuda:1", 4) == expected
    assert refusal("mps", 2) == "2 devices were requested, but there is only one device 'mps'"
    monkeypatch.setattr(hardware, "find_spec", lambda name: None)
    assert devices_from(CPU, 1) == [CPU]
    assert refusal("cpu", 2).endswith("pip install 'codingbench[devices]'")


def test_each_lane_and_job_has_the_devices_of_its_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_cores", lambda: 8)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(packing, "total_memory_mb", lambda: 1e6)
    monkeypatch.setattr(packing, "available_memory_mb", lambda: 1e6)
    long = Grid(seeds=(0, 1, 2, 3), datasets=("cifar100",), epochs=50).expand()
    few = Grid(encoders=("direct",), epochs=1, train_samples=100).expand()
    local, slurm = ExecutorConfig(), ExecutorConfig("slurm")
    assert local.pack(long, CPU, None, None, 3) == (2, 4)
    assert local.pack(long, CPU, None, None, 8) == (1, 8)
    assert local.pack(few, CPU, None, None, 2) == (1, 8)
    assert slurm.pack(few, torch.device("cuda"), None, None, 4) == (256, 4)
    with pytest.raises(SpecError, match="9 devices were requested, but the CPU has 8 cores"):
        local.pack(long, CPU, 3, None, 3)
    with pytest.raises(SpecError, match="a cell on Ray has one device"):
        ExecutorConfig("ray").pack(few, CPU, None, None, 2)
    config = replace(config_of(Grid(), Path("results")), device="cuda", threads=8, devices=4)
    parameters = OnSlurm(1, None, {})._parameters(config)
    assert (parameters["gpus_per_node"], parameters["cpus_per_task"]) == (4, 8)


class Silent(_Rank):
    """A replacement of a process, with the messages that it sent and how it ended."""

    def __init__(self, rank: int, exitcode: int | None, *said: tuple[str, Any]) -> None:
        self.info, self.has_ended = _RankInfo(rank, ("cpu", "cpu"), 0, 0), False
        self.connection, theirs = Pipe()
        self.process: Any = SimpleNamespace(
            exitcode=exitcode, is_alive=lambda: False, join=lambda timeout: None, kill=lambda: None
        )
        for message in said:
            theirs.send(message)
        theirs.close()


@pytest.mark.parametrize(
    ("exitcode", "reason"),
    [
        (-9, "rank 1 of 2: its process was ended by SIGKILL (out of memory?)"),
        (3, "rank 1 of 2: its process ended with status 3"),
        (None, "rank 0 of 2: Connection closed by peer"),
    ],
)
def test_the_process_that_died_is_named_whichever_is_heard_first(
    exitcode: int | None, reason: str
) -> None:
    failed = "failed", ("rank 0 of 2: Connection closed by peer", "its traceback")
    ranks, stop = [Silent(0, None, failed), Silent(1, exitcode)], get_context("spawn").Event()
    with pytest.raises(TrainingError) as caught:
        _listen(ranks, Recorder(), lambda: False, stop)
    assert str(caught.value) == reason and not stop.is_set()
    ranks = [Silent(0, None, failed), Silent(1, exitcode)]
    with pytest.raises(Interrupted):
        _listen(ranks, Recorder(), lambda: True, stop)
    assert stop.is_set()


# --- errors: each test starts two processes ---------------------------------------------

FAULTY = """
import os, signal, time
from pathlib import Path
from codingbench.encoders.direct import DirectEncoder

class Faulty(DirectEncoder):
    def encode(self, features):
        if self.training and os.environ.get("LOCAL_RANK") == "1":
            self.fail()
        return super().encode(features)

class Dies(Faulty):
    def fail(self):
        os.kill(os.getpid(), signal.SIGKILL)

class Raises(Faulty):
    def fail(self):
        raise RuntimeError("first line\\nsecond line")

class Hangs(Faulty):
    def fail(self):
        Path(__file__).with_name("pid").write_text(str(os.getpid()))
        time.sleep(3600)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Dies", "rank 1 of 2: its process was ended by SIGKILL (out of memory?)"),
        ("Raises", "rank 1 of 2: RuntimeError: first line second line"),
        ("Hangs", "rank 0 of 2: "),
    ],
)
def test_a_process_that_fails_fails_the_cell_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, reason: str
) -> None:
    monkeypatch.setattr(devices, "WAIT_S", 5.0)
    (tmp_path / "faulty.py").write_text(FAULTY)
    started = time.monotonic()
    outcome, recorder, _ = cells(tmp_path / "store", 2, encoders=(f"{tmp_path}/faulty.py:{name}",))
    assert outcome == Outcome(done=0, skipped=0, failed=1)
    assert time.monotonic() - started < 90
    (said,) = recorder.failed.values()
    assert said.startswith(f"TrainingError: {reason}") and "\n" not in said
    (trace,) = Store(tmp_path / "store").failures()["traceback"]
    assert name != "Raises" or "in fail" in trace
    assert not active_children()


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_a_cell_that_is_stopped_goes_on_with_any_number_of_devices(
    tmp_path: Path, count: int
) -> None:
    stop, recorder = StopRequest(), Recorder()
    recorder.after_pulse = lambda: setattr(stop, "signal", 15)
    config = replace(config_of(Grid(**BOUNDS), tmp_path), devices=2)
    with pytest.raises(Interrupted):
        run_grid(config, InProcess(), recorder, stop)
    (key,) = config.jobs()
    kept = Checkpoints(tmp_path / "checkpoints", key)
    state = kept.load()
    assert state is not None and 0 < 6 * state["epoch"] + state["batch"] < 12
    kept.save(state | {"wall_s": state["wall_s"] + 1000})
    resumed = cells(tmp_path, count)[2].loc["direct"]
    alone = cells(tmp_path / "alone", 1)[2].loc["direct"]
    assert resumed["devices"] == count
    assert resumed["accuracy"] == pytest.approx(alone["accuracy"], abs=0.02)
    assert 2000 > resumed["wall_s"] > resumed["train_wall_s"] > 1000  # each session once


@pytest.mark.slow
def test_two_devices_compile_their_neurons_and_compute_in_bfloat16(tmp_path: Path) -> None:
    grid = Grid(**{**BOUNDS, "encoders": ("gac",), "precision": "bf16", "epochs": 1})
    config = replace(config_of(grid, tmp_path), devices=2, neurons="compiled")
    assert run_grid(config, InProcess(), Recorder()) == Outcome(done=1, skipped=0, failed=0)
    row = Store(tmp_path).read("cells").iloc[0]
    assert (row["neuron_backend"], row["precision"], row["devices"]) == ("compiled", "bf16", 2)


@pytest.mark.slow
def test_the_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    (tmp_path / "faulty.py").write_text(FAULTY)
    encoders = (f"{tmp_path}/faulty.py:Hangs",)
    parent = get_context("spawn").Process(
        target=cells, args=(tmp_path / "store", 2), kwargs={"encoders": encoders}
    )
    parent.start()
    path = tmp_path / "pid"
    until(lambda: path.exists() and path.read_text().isdigit(), 240)
    parent.kill()
    parent.join()
    rank = int(path.read_text())
    until(lambda: not is_running(rank), 20)


def until(is_so: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
