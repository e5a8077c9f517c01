"""Counting a test without waiting for the device gives the rows of counting batch by batch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from codingbench.backbone import Network
from codingbench.cells import measure as measure_module
from codingbench.cells.counted import Counted
from codingbench.cells.grid import Grid, Job
from codingbench.cells.measure import Measured, measure
from codingbench.cells.network import network_of
from codingbench.cells.weights import Weights
from codingbench.counting.counter import OperationCounter
from codingbench.counting.ledger import Ledger, UnfollowableError
from codingbench.datasets.images import Split
from codingbench.neurons import MultiStepLeaky
from codingbench.training import evaluation, host_state
from codingbench.training.graphs import EAGER, Eager, Replaying
from codingbench.training.splits import Data
from tests.neurons_by_hand import Lif
from tests.test_graphs import FakeRecorder, on_cuda

BATCH, IMAGES = 10, 76
WAITS = {"aten::is_nonzero", "aten::item", "aten::_local_scalar_dense"}


class Ignored:
    def measuring(self, done: int, total: int) -> None: ...


class Waits(TorchDispatchMode):
    """Counts the operations that would make a GPU wait."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.count += func._schema.name in WAITS
        return func(*args, **(kwargs or {}))


class Watching(Eager):
    """Calls functions directly, and notes how often each call waits."""

    def __init__(self, seen: Waits) -> None:
        self.seen = seen
        self.waits: list[int] = []

    def __call__(self, function: Any, *inputs: Tensor) -> tuple[Tensor, ...]:
        before = self.seen.count
        outputs: tuple[Tensor, ...] = function(*inputs)
        self.waits.append(self.seen.count - before)
        return outputs


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "EVALUATION_BATCH", BATCH)
    # beartype, which checks signatures in tests, draws from Python's random module
    monkeypatch.setattr(host_state, "_python_draws", lambda: None)


def split_of(images: Tensor) -> Split:
    return Split(images, torch.arange(len(images)) % 10)


def random_images() -> Tensor:
    draws = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (IMAGES, 1, 28, 28), generator=draws, dtype=torch.uint8)


def job_of(encoder: str, backbone: str = "csnn[width=4]", num_steps: int = 3) -> Job:
    (job,) = Grid(
        encoders=(encoder,),
        backbones=(backbone,),
        num_steps=(num_steps,),
        train_samples=20,
        test_samples=IMAGES,
    ).expand()
    return job


def measured(
    job: Job,
    images: Tensor,
    runner: Callable[[Network], Eager] | None,
    change: Callable[[Network], object] = lambda network: None,
) -> Measured:
    """Measure an untrained network, then the same with other weights as the selected epoch's."""
    network, other = network_of(job), network_of(job, seed=1)
    for each in (network, other):
        change(each)
    split = split_of(images)
    with pytest.MonkeyPatch.context() as patch:
        if runner is not None:
            patch.setattr(measure_module, "_runner", lambda network, *rest: runner(network))
        return measure(
            network,
            Weights({}, other.state_dict()),
            Data(split, split, split),
            job,
            Ignored(),
        )


def replaying(network: Network) -> Replaying:
    return Replaying(FakeRecorder(), network, "a network", 2)


def assert_same(one: Measured, other: Measured) -> None:
    assert one.counter.layer_rows() == other.counter.layer_rows()
    assert one.counter.uncounted() == other.counter.uncounted()
    for a, b in ((one.last, other.last), (one.selected, other.selected)):
        assert (a.accuracy, a.loss) == (b.accuracy, b.loss)
        assert torch.equal(a.predictions, b.predictions) and torch.equal(a.margins, b.margins)


@pytest.mark.parametrize("num_steps", [1, 3])
@pytest.mark.parametrize("encoder", ["burst", "delta", "direct", "direct[spiking=false]", "gac"])
def test_replayed_batches_give_the_same_rows(encoder: str, num_steps: int) -> None:
    job = job_of(encoder, num_steps=num_steps)
    assert_same(
        measured(job, random_images(), replaying), measured(job, random_images(), lambda _: EAGER)
    )


@pytest.mark.parametrize("encoder", ["latency", "phase", "rate", "signed_rate"])
def test_replayed_batches_of_pixel_codes_give_the_same_rows(encoder: str) -> None:
    job = job_of(encoder, num_steps=2)
    assert_same(
        measured(job, random_images(), replaying), measured(job, random_images(), lambda _: EAGER)
    )


@pytest.mark.thorough
@pytest.mark.parametrize("encoder", ["learned_time", "rate"])
@pytest.mark.parametrize("backbone", ["vgg9", "sew_resnet18", "ms_resnet18"])
def test_replayed_batches_of_large_networks_give_the_same_rows(encoder: str, backbone: str) -> None:
    job, images = job_of(encoder, backbone, num_steps=2), random_images()[:36]
    assert_same(measured(job, images, replaying), measured(job, images, lambda _: EAGER))


def by_hand(network: nn.Module) -> None:
    """Replace all neurons by hand-written ones."""
    for module in [*network.modules()]:
        for name, part in [*module.named_children()]:
            if isinstance(part, MultiStepLeaky):
                setattr(module, name, Lif(float(part.threshold)))


@pytest.mark.parametrize("encoder", ["direct", "rate"])
def test_replayed_batches_of_neurons_written_by_hand_give_the_same_rows(encoder: str) -> None:
    job, images = job_of(encoder), random_images()
    usual = measured(job, images, lambda _: EAGER)
    again = measured(job, images, replaying, by_hand)
    assert_same(again, measured(job, images, lambda _: EAGER, by_hand))
    assert_same(again, usual)


def counted(
    job: Job, images: Tensor, runner: Eager, change: Callable[[Any], object] = lambda network: None
) -> tuple[Counted, OperationCounter]:
    """Count an untrained network on the images."""
    network, draws = network_of(job), evaluation.stream(0, "test")
    change(network)
    with OperationCounter(network, job.cell.num_steps) as counter:
        called = Counted(counter, runner, draws)
        evaluation.Evaluator(network, draws, "fp32", called)(split_of(images))
        called.finish()
    return called, counter


@pytest.mark.parametrize("encoder", ["direct", "gac", "rate"])
def test_only_the_first_batch_of_a_shape_waits(encoder: str) -> None:
    # entered before the counter, it sees what the counter itself runs
    with Waits() as seen:
        watching = Watching(seen)
        called, counter = counted(job_of(encoder), random_images(), watching)
    assert watching.waits == [0] * 6  # of 7 whole batches; the eighth has 6 images
    assert seen.count > 100
    assert (called.recounted, counter.images) == (0, IMAGES)


def keep_pixels(network: Any) -> None:
    """Let the encoder not standardise the images, so that black stays 0."""
    network.encoder.mean.zero_()
    network.encoder.std.fill_(1)


@pytest.mark.parametrize("encoder", ["direct[spiking=false]", "gac"])
def test_batches_of_another_kind_are_noticed_and_counted_again(encoder: str) -> None:
    """Black images are spikes that never occur; others are numbers."""
    images, job = random_images(), job_of(encoder)
    images[:BATCH] = images[3 * BATCH : 4 * BATCH] = 0
    called, counter = counted(job, images, replaying(network_of(job)), keep_pixels)
    assert called.recounted == 5  # of 7 whole batches, 2 are black, and the first of them is direct
    with OperationCounter(network := network_of(job), 3) as expected:
        keep_pixels(network)
        evaluation.evaluate(network, split_of(images), evaluation.stream(0, "test"))
    assert counter.layer_rows() == expected.layer_rows()
    stem = [row for row in counter.layer_rows() if row["layer"] == "encoder.stem.0"]
    assert all(
        row["dense_binary"] and row["dense_real"] for row in stem if row["kind"] == "synapse"
    )


def test_a_batch_that_is_counted_again_draws_the_same_numbers() -> None:
    """Black images make no spikes under rate coding, so later ones are of another kind."""
    images, job = random_images(), job_of("rate")
    images[:BATCH] = 0
    assert_same(measured(job, images, replaying), measured(job, images, lambda _: EAGER))
    images[:BATCH] = 255
    assert_same(measured(job, images, replaying), measured(job, images, lambda _: EAGER))


def test_weights_that_are_zero_are_counted_on_the_host() -> None:
    job = job_of("rate")

    def drop(network: nn.Module) -> None:
        with torch.no_grad():
            for layer in network.modules():
                if isinstance(layer, nn.Conv2d):
                    layer.weight[0] = 0

    with_graphs = measured(job, random_images(), replaying, drop)
    assert_same(with_graphs, measured(job, random_images(), lambda _: EAGER, drop))
    assert sum(row["zero_weight_acs"] for row in with_graphs.counter.layer_rows()) > 0


class Branching(nn.Module):
    """Runs one of two layers, as a number says that is set from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.batch = 0

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.two(x) if self.batch % 2 else self.one(x)
        return out


def test_batches_that_run_other_layers_are_counted_one_by_one() -> None:
    def rows(follows: bool) -> list[dict[str, Any]]:
        torch.manual_seed(0)
        network, images = Branching(), torch.rand(5, 3, 4)
        with torch.no_grad(), OperationCounter(network, 1) as counter:
            call = Counted(counter, Eager(), torch.Generator()) if follows else Eager()
            function = lambda x: (network(x),)  # noqa: E731
            for network.batch, batch in enumerate(images):
                call(function, batch)
            if isinstance(call, Counted):
                call.finish()
        return counter.layer_rows()

    assert rows(True) == rows(False)
    assert {row["layer"]: row["executions"] for row in rows(True)} == {"one": 9, "two": 6}


# --- the ledger -----------------------------------------------------------------------------------


def yes() -> Tensor:
    return torch.tensor(True)


def no() -> Tensor:
    return torch.tensor(False)


def test_a_ledger_that_follows_takes_the_answers_and_checks_them() -> None:
    first = Ledger()
    assert [first.decide(yes), first.decide(no), first.decide(yes, no)] == [True, False, False]
    right, wrong = Ledger(first.answers), Ledger(first.answers)
    assert [right.decide(yes), right.decide(no), right.decide(no, yes)] == [True, False, False]
    assert [wrong.decide(yes), wrong.decide(yes), wrong.decide(no)] == [True, False, False]
    number = right.number(torch.tensor(3))
    assert right.set(right.content().tolist()) and number.value == 3.0
    assert not wrong.set(wrong.content().tolist())


def test_a_ledger_refuses_another_number_of_questions_or_numbers() -> None:
    few, many = Ledger([True, True]), Ledger([True])
    few.decide(yes)
    with pytest.raises(UnfollowableError, match="fewer questions"):
        few.content()
    many.decide(yes)
    with pytest.raises(UnfollowableError, match="more questions"):
        many.decide(yes)
    with pytest.raises(UnfollowableError, match="more or fewer numbers"):
        many.set([1.0, 2.0, 1.0])
    with pytest.raises(UnfollowableError, match="host"):
        Ledger([]).leave_device()


# --- on a GPU -------------------------------------------------------------------------------------


@on_cuda
@pytest.mark.parametrize("encoder", ["direct", "direct[spiking=false]", "gac", "rate"])
def test_graphs_on_a_gpu_give_the_same_rows(encoder: str) -> None:
    job, split = job_of(encoder), split_of(random_images()).to(torch.device("cuda"))

    def run(graphs: bool) -> Measured:
        network = network_of(job).cuda()
        weights = Weights({}, network_of(job, seed=1).state_dict())
        data = Data(split, split, split)
        return measure(network, weights, data, job, Ignored(), graphs=graphs)

    assert_same(run(True), run(False))
