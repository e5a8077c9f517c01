"""Replaying from CUDA graphs, with a fake recorder on CPUs and the real one on GPUs."""

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import graph_checks
import numpy as np
import pytest
import torch
from graph_checks import Case
from torch import Tensor, nn

from codingbench.backbone import Network, build_network
from codingbench.cells.network import task_of
from codingbench.datasets import find, get_info, load
from codingbench.datasets.images import Split
from codingbench.recipes.recipe import Recipe, load_recipe
from codingbench.registry import BACKBONES, ENCODERS
from codingbench.training import cuda_graphs, loop
from codingbench.training import graphs as graphs_module
from codingbench.training.checkpoint import Checkpoints
from codingbench.training.evaluation import Evaluator, stream
from codingbench.training.graphs import EAGER_CALLS, Function, Replaying, Tensors
from codingbench.training.host_state import HostState
from codingbench.training.loop import Interrupted, train
from codingbench.training.schedule import (
    load_optimizer_state,
    make_optimizer,
    optimizer_state,
    set_rate,
)
from codingbench.training.splits import Data, hold_out


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs_module, "_told", set())


class FakeRecorder:
    """Stands in for a GPU: a replay runs the function again on the tensors it was captured with.

    As on a GPU, a capture runs nothing, and a replay may overwrite the outputs of an earlier one.
    """

    def __init__(self) -> None:
        self.recorded = self.replayed = self.rehearsed = self.released = 0
        self.reason: str | None = None
        self.error: Exception | None = None
        self._outputs: Tensors = ()

    @contextmanager
    def aside(self) -> Iterator[None]:
        yield

    def rehearse(self, function: Function, inputs: Tensors) -> tuple[Tensors, str | None]:
        self.rehearsed += 1
        return function(*inputs), self.reason

    def record(self, function: Function, inputs: Tensors) -> Callable[[], Tensors]:
        if self.error:
            raise self.error
        self.recorded += 1

        def replay() -> Tensors:
            self.replayed += 1
            for overwritten in self._outputs:
                overwritten.fill_(77)
            self._outputs = function(*inputs)
            return self._outputs

        return replay

    def release(self) -> None:
        self.released += 1


def replaying(
    network: nn.Module | None = None,
) -> tuple[Replaying, FakeRecorder]:
    recorder = FakeRecorder()
    return Replaying(recorder, network or nn.Linear(1, 1), "a network"), recorder


def double(x: Tensor) -> Tensors:
    return (2 * x,)


def test_a_function_is_captured_after_some_calls_and_replayed_from_then_on() -> None:
    runner, recorder = replaying()
    kept = [runner(double, torch.full((2,), float(i)))[0] for i in range(EAGER_CALLS + 3)]
    assert [x.tolist() for x in kept] == [[2.0 * i] * 2 for i in range(EAGER_CALLS + 3)]
    assert (recorder.rehearsed, recorder.recorded, recorder.replayed) == (1, 1, 3)


def test_every_shape_has_its_own_graph() -> None:
    runner, recorder = replaying()
    transposed = torch.arange(6.0).reshape(2, 3).T
    for _ in range(EAGER_CALLS + 1):
        for x in (torch.ones(3, 2), torch.ones(2, 2), transposed, torch.ones(3, 2).half()):
            assert torch.equal(runner(double, x)[0], 2 * x)
    assert (recorder.recorded, runner.captured) == (4, 4)


def test_a_function_that_cannot_be_captured_stays_eager_and_is_reported_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for _ in range(2):
        runner, recorder = replaying()
        recorder.reason = "it waits for the GPU (x.py, line 3)"
        for i in range(EAGER_CALLS + 3):
            assert runner(double, torch.tensor(i))[0] == 2 * i
        assert recorder.recorded == 0
    said = capsys.readouterr().err
    assert said == "CUDA graphs are off for a network: it waits for the GPU (x.py, line 3)\n"


def test_a_failed_capture_is_explained_by_its_first_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    runner, recorder = replaying()
    recorder.error = RuntimeError("capture ended early")
    recorder.error.__context__ = ValueError("no such kernel\nFor debugging, ...")
    for i in range(EAGER_CALLS + 3):
        assert runner(double, torch.tensor(i))[0] == 2 * i
    expected = (
        "CUDA graphs are off for a network: it cannot be captured (ValueError: no such kernel)\n"
    )
    assert capsys.readouterr().err == expected


class Stateful(nn.Module):
    """Changes something on the host in every call."""

    mean: Tensor

    def __init__(self, change: str) -> None:
        super().__init__()
        self.change, self.calls, self.seen = change, 0, [0]
        self.mem = torch.zeros(2)
        self.register_buffer("mean", torch.zeros(2))

    def forward(self, x: Tensor) -> Tensors:
        if self.change == "calls":
            self.calls += 1
        elif self.change == "seen":
            self.seen.append(1)
        elif self.change == "mem":
            self.mem = 0.5 * self.mem + x
        elif self.change == "mean":
            self.mean = self.mean + x
        elif self.change == "torch":
            torch.rand(())
        elif self.change == "random":
            random.random()
        elif self.change == "numpy":
            np.random.rand()
        elif self.change == "in place":
            self.mem.add_(x)
            self.mean.mul_(2)
        return (x + 1,)


REASONS = {
    "calls": "a call changes its attribute 'inner.calls'",
    "seen": "a call changes its attribute 'inner.seen'",
    "mem": "a call changes its attribute 'inner.mem'",
    "mean": "a call changes its attribute 'inner.mean'",
    "torch": "it draws from torch's generator on the CPU",
    "random": "it draws from Python's random module",
    "numpy": "it draws from NumPy's global generator",
    "in place": None,
}


@pytest.mark.parametrize(("change", "reason"), REASONS.items())
def test_state_that_a_graph_cannot_repeat_is_detected(change: str, reason: str | None) -> None:
    network = nn.ModuleDict({"inner": Stateful(change)})
    runner, recorder = replaying(network)
    for _ in range(EAGER_CALLS + 2):
        runner(network["inner"].forward, torch.ones(2))
    assert list(runner.refusals.values()) == ([reason] if reason else [])
    assert recorder.recorded == (reason is None)


def test_attributes_that_do_not_change_are_no_difference() -> None:
    network = Stateful("nothing")
    before = HostState(network)
    network(torch.ones(2))
    network.mem = torch.zeros(2)
    after = HostState(network)
    assert before.difference(before) is None
    assert before.difference(after) == "a call changes its attribute 'mem'"


# --- training -------------------------------------------------------------------------------------


class Silent:
    """A listener that keeps the rows of epochs."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, Any]] = []

    def pulse(self, pulse: Any) -> None: ...

    def epoch_done(self, row: dict[str, Any]) -> None:
        self.epochs.append(row)


@pytest.fixture(scope="module")
def data() -> Data:
    """180 training and 60 validation images."""
    source = find("fashion_mini", None)
    assert source is not None
    train_split, val = hold_out(load(source, "train", 240), 0.25)
    return Data(train_split, val, load(source, "test", 100))


def network(encoder: str = "rate") -> Network:
    plugins = ENCODERS.resolve(encoder), BACKBONES.resolve("csnn[width=4]")
    return build_network(*plugins, task_of(get_info("fashion_mini"), 2), 0)


def recipe(name: str, **changes: Any) -> Recipe:
    """Return a recipe with small batches, so that both batch shapes of an epoch are captured."""
    usual: dict[str, Any] = {"epochs": 8, "batch_size": 50}
    return replace(load_recipe(name), **(usual | changes))


def ending(net: nn.Module, rows: list[dict[str, Any]]) -> dict[str, Any]:
    times = {"wall_s", "images_per_s"}
    kept = [{name: row[name] for name in row.keys() - times} for row in rows]
    return {"weights": net.state_dict(), "rows": kept}


def assert_same_bits(one: dict[str, Any], other: dict[str, Any]) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch, no_type_checker: None) -> list[FakeRecorder]:
    """The fake recorders of all trainings, which replay on the CPU."""
    made: list[FakeRecorder] = []

    def runner(self: loop._Run, graphs: bool, generators: Any) -> Any:
        if not graphs:
            return graphs_module.EAGER
        made.append(FakeRecorder())
        return Replaying(made[-1], self.network, "a network")

    monkeypatch.setattr(loop._Run, "_runner", runner)
    return made


@pytest.mark.parametrize("mean_every", [pytest.param(1, marks=pytest.mark.thorough), 3])
def test_a_replayed_training_with_tet_and_a_mean_of_its_weights_ends_with_the_same_bits(
    data: Data, recorders: list[FakeRecorder], mean_every: int
) -> None:
    case = Case("rate", epochs=8, batch=50, micro_batch=20, mean_every=mean_every)
    endings = []
    for wanted in (False, True):
        net, heard, by = network(), Silent(), graph_checks.recipe_of(case)
        train(net, data, by, 0, "fp32", heard, micro_batch=20, graphs=wanted)
        endings.append(ending(net, heard.epochs))
    assert_same_bits(*endings)
    (recorder,) = recorders
    assert recorder.recorded >= 2 + (mean_every > 1) and recorder.replayed >= 15


@pytest.mark.parametrize(
    "recipe_name, micro_batch",
    [
        ("quick", 20),
        ("gac", None),
        pytest.param("quick", None, marks=pytest.mark.thorough),
        pytest.param("gac", 20, marks=pytest.mark.thorough),
    ],
)
def test_replayed_trainings_end_with_the_same_bits(
    data: Data, recorders: list[FakeRecorder], recipe_name: str, micro_batch: int | None
) -> None:
    endings = []
    for wanted in (False, True):
        net, heard = network(), Silent()
        train(
            net,
            data,
            recipe(recipe_name),
            0,
            "fp32",
            heard,
            micro_batch=micro_batch,
            graphs=wanted,
            tests_each_epoch=True,
        )
        endings.append(ending(net, heard.epochs))
    assert_same_bits(*endings)
    (recorder,) = recorders
    mixed = recipe_name == "gac"  # about half of the batches
    assert recorder.recorded >= 3 and recorder.replayed >= (8 if mixed else 15)
    assert recorder.released == 1


def test_a_replayed_training_can_be_interrupted(
    data: Data, recorders: list[FakeRecorder], tmp_path: Path
) -> None:
    def trained(folder: str, wanted: bool, stops: list[int]) -> dict[str, Any]:
        heard = Silent()
        for left in [*stops, 10**6]:
            net, batches = network(), iter(range(left))
            kept = Checkpoints(tmp_path / folder, "cell")
            try:
                result = train(
                    net,
                    data,
                    recipe("quick"),
                    0,
                    "fp32",
                    heard,
                    checkpoints=kept,
                    should_stop=lambda: next(batches, None) is None,  # noqa: B023
                    graphs=wanted,
                )
            except Interrupted:
                continue
        return ending(net, result.epoch_rows)

    whole = trained("whole", False, [])
    assert_same_bits(trained("parts", True, [13, 12, 1]), whole)
    assert all(recorder.released == 1 for recorder in recorders)


def check_finite_codes(make_runner: Callable[..., Replaying], device: torch.device) -> None:
    """Evaluate twice from one graph; the second time, codes are not finite.

    The encoder does not check its codes itself, because a graph cannot wait for the result.
    """
    net: Any = network("direct[spiking=false]").to(device)
    draws = torch.Generator(device)
    runner = make_runner(net, draws)
    evaluator = Evaluator(net, draws, "fp32", runner)
    images = torch.zeros(200 * (EAGER_CALLS + 2), 1, 28, 28, dtype=torch.uint8)
    split = Split(images, torch.zeros(len(images), dtype=torch.long)).to(device)
    evaluator(split)
    assert runner.captured == 1
    with torch.no_grad():
        net.encoder.stem[1].bias.fill_(math.nan)
    with pytest.raises(ValueError, match="must emit finite numbers, got NaN or infinity"):
        evaluator(split)
    runner.release()


def test_a_code_that_is_not_finite_is_found_in_replays_too(no_type_checker: None) -> None:
    check_finite_codes(lambda net, draws: Replaying(FakeRecorder(), net, "x"), torch.device("cpu"))


# --- optimizers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gac", "quick"])
def test_the_state_of_another_implementation_is_loaded(name: str) -> None:
    """The state may come from a CUDA checkpoint of an older version or from another default."""
    net, images = network("direct"), torch.rand(4, 1, 28, 28)
    mine = make_optimizer(net, recipe(name))
    net(images, stream(0, "x")).sum().backward()
    set_rate(mine, 0.25)
    mine.step()
    state = optimizer_state(mine, 0.25)
    kind: Any = type(mine)
    other = kind(net.parameters(), lr=torch.tensor(1.0), foreach=False)
    rate = other.param_groups[0]["lr"]
    load_optimizer_state(other, state)
    (group,) = other.param_groups
    assert group["lr"] is rate and group["foreach"] is False
    assert group["weight_decay"] == mine.param_groups[0]["weight_decay"]
    set_rate(other, 0.25)
    assert float(rate) == 0.25
    again = optimizer_state(other, 0.25)
    assert_same_bits(dict(again["state"]), dict(state["state"]))
    load_optimizer_state(mine, again)
    assert mine.param_groups[0]["lr"] == 0.25 and mine.param_groups[0]["foreach"] is None


# --- on a GPU -------------------------------------------------------------------------------------

CUDA = torch.device("cuda")


def on_cuda(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that needs a GPU."""
    skip = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    usual = pytest.mark.usefixtures("no_type_checker")
    marked: Callable[..., None] = pytest.mark.cuda(skip(usual(test)))
    return marked


@on_cuda
@pytest.mark.parametrize("case", graph_checks.CASES[:19], ids=str)
def test_trainings_from_graphs_end_with_the_same_bits(case: Case) -> None:
    found = graph_checks.compare(case, CUDA)
    assert found["is_equal"], found["difference"]
    assert found["graphs"] >= 2 and not found["refusals"]
    assert found["capture_s"] < 2 * found["graphs"]


@on_cuda
@pytest.mark.parametrize("mean_every", [None, 2])
def test_a_training_interrupted_with_graphs_ends_with_the_same_bits(mean_every: int | None) -> None:
    found = graph_checks.compare_interrupted(CUDA, mean_every=mean_every)
    assert found["is_equal"], found["difference"]


@on_cuda
@pytest.mark.parametrize("kind", graph_checks.TROUBLES)
def test_networks_that_no_graph_repeats_stay_eager(kind: str) -> None:
    found = graph_checks.compare_trouble(kind, CUDA)
    assert found["is_equal"], found["difference"]
    assert found["is_as_expected"], found["refusals"]
    reasons = {"waits": "waits for the GPU", "counts": "'calls'", "breaks": "cannot be captured"}
    assert all(reasons[kind] in reason for reason in found["refusals"])


@on_cuda
def test_a_code_that_is_not_finite_is_found_in_replays_on_a_gpu() -> None:
    check_finite_codes(lambda net, draws: cuda_graphs.replaying(net, [draws]), CUDA)
