"""Streamed photographs: the same bits for any number of decoders and after any interruption."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Generator, Tensor
from torchvision.transforms import functional as TF

from codingbench.backbone import build_network
from codingbench.cells.data import find_sources
from codingbench.cells.footprint import footprint, memory_mb
from codingbench.cells.grid import Grid
from codingbench.cells.network import network_of, task_of
from codingbench.cells.reevaluation import differences
from codingbench.cells.run import RunConfig
from codingbench.datasets import DatasetInfo, fetch, get_info, load, load_or_stream, streaming
from codingbench.datasets.crops import draw_crops
from codingbench.datasets.images import Split
from codingbench.datasets.loading import stream
from codingbench.datasets.streaming import StreamedSplit, default_decoders
from codingbench.errors import DatasetError
from codingbench.executors.base import run_grid
from codingbench.executors.local import InProcess
from codingbench.executors.processes import Processes
from codingbench.recipes.recipe import Recipe, ResizedCrop, load_recipe
from codingbench.registry import BACKBONES, ENCODERS
from codingbench.runtime.shared_memory import SharedMemory
from codingbench.store.folder import Store
from codingbench.training.checkpoint import Checkpoints
from codingbench.training.loop import Interrupted, train
from codingbench.training.splits import Data, hold_out
from tests.grids import Recorder, numbers
from tests.photos import recipe_with_crops, write_photos

ROOT = Path(__file__).parents[1]
INCEPTION = ResizedCrop(scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3))

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on one core


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write three classes of 8 + 4 photographs."""
    return write_photos(tmp_path_factory.mktemp("photos") / "toys", train=8, val=4)


def streamed(root: Path, decoders: int = 0, split: str = "train") -> StreamedSplit:
    return stream(fetch(f"folder:{root}[size=16]", None), split, None, decoders)


def pixels(split: StreamedSplit | Split, *asked: Any) -> tuple[Tensor, Tensor]:
    images, labels = zip(*split.batches(5, *asked), strict=True)
    return torch.cat(images), torch.cat(labels)


def shuffled(count: int) -> Tensor:
    return torch.randperm(count, generator=Generator().manual_seed(1))


def crops_of(count: int) -> Any:
    return draw_crops(INCEPTION, count, Generator().manual_seed(2))


# --- the split --------------------------------------------------------------------------------


def test_without_crops_the_images_are_those_held_in_memory(toys: Path) -> None:
    held = load(fetch(f"folder:{toys}[size=16]", None), "train")
    split, order = streamed(toys), shuffled(24)
    assert split.shape == held.shape == (3, 16, 16)
    for asked in ((), (order,), (order[7:12],)):
        for ours, theirs in zip(pixels(split, *asked), pixels(held, *asked), strict=True):
            assert torch.equal(ours, theirs)
    some = order[:10]
    for ours, theirs in zip(pixels(split.subset(some)), pixels(held.subset(some)), strict=True):
        assert torch.equal(ours, theirs)


def test_crops_are_cut_from_the_files_and_not_from_the_small_images(toys: Path) -> None:
    crops = crops_of(24)
    images, labels = pixels(streamed(toys), torch.arange(24), crops)
    for place, (ours, label) in enumerate(zip(images, labels, strict=True)):
        suffix = ("JPEG", "png")[place // 3 % 2]
        path = toys / "train" / "abc"[int(label)] / f"train_{place // 3}.{suffix}"
        with Image.open(path) as image:
            box = crops.part(place).box(image.height, image.width)
            theirs = TF.resized_crop(image.convert("RGB"), *box, [16, 16])
        assert np.array_equal(ours.numpy(), np.asarray(theirs).transpose(2, 0, 1))


@pytest.mark.parametrize("decoders", [1, 2])
def test_any_number_of_decoders_gives_the_same_images(toys: Path, decoders: int) -> None:
    order, crops = shuffled(24), crops_of(24)
    for asked in ((), (order, crops)):
        alone, together = (pixels(streamed(toys, n), *asked) for n in (0, decoders))
        assert all(torch.equal(*pair) for pair in zip(alone, together, strict=True))


def test_an_order_that_is_begun_in_the_middle_gives_the_rest_of_the_images(toys: Path) -> None:
    order, crops = shuffled(24), crops_of(24)
    whole, _ = pixels(streamed(toys), order, crops)
    rest, _ = pixels(streamed(toys), order[10:], crops.part(10))
    assert torch.equal(rest, whole[10:])


@pytest.mark.parametrize("decoders", [0, 1])
def test_decoding_draws_no_random_number(toys: Path, decoders: int) -> None:
    before = torch.get_rng_state()
    pixels(streamed(toys, decoders), shuffled(24), crops_of(24))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("decoders", [0, 2])
def test_a_broken_file_is_one_line_that_names_it(tmp_path: Path, decoders: int) -> None:
    root = write_photos(tmp_path / "toys")
    path = root / "train" / "b" / "train_2.JPEG"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(DatasetError) as caught:
        pixels(streamed(root, decoders))
    assert str(caught.value).startswith(f"{path} is broken: ")
    assert "\n" not in str(caught.value)


def test_where_shared_memory_is_small_the_same_images_come_without_decoders(
    toys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "_has_told", False)
    monkeypatch.setattr(streaming, "shared_memory", lambda: SharedMemory(10_000, 5 * 5 * 768 - 1))
    alone = pixels(streamed(toys))
    said = r"--decoders 0, because /dev/shm is too small: .* 5 batches of 5 images need 0.0 MB"
    with pytest.warns(UserWarning, match=said) as caught:
        together = [pixels(streamed(toys, decoders=2)) for _ in range(2)]
    assert len([w for w in caught if "/dev/shm" in str(w.message)]) == 1
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(alone, together[1], strict=True))
    room = SharedMemory(20_000, 5 * 5 * 768)
    monkeypatch.setattr(streaming, "shared_memory", lambda: room)
    assert streamed(toys, decoders=2)._decoders_with_room(24, 5) == 2


class Homeless(streaming._Shared):
    """Finds no room for any batch."""

    def __getitem__(self, request: Any) -> Any:
        return streaming._NoRoom("No space left on device")


class Dying(streaming._Shared):
    """Ends its process, as the kernel does where memory is short."""

    def __getitem__(self, request: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)


class Unsendable(streaming._Shared):
    """Makes batches on which the thread that sends them fails."""

    def __getitem__(self, request: Any) -> Any:
        return lambda: None


def test_a_batch_that_finds_shared_memory_full_is_decoded_without_it(
    toys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = pixels(streamed(toys), shuffled(24), crops_of(24))
    monkeypatch.setattr(streaming, "_has_told", False)
    monkeypatch.setattr(streaming, "_Shared", Homeless)
    monkeypatch.syspath_prepend(ROOT)  # a decoder imports this module for its class
    with pytest.warns(UserWarning, match="/dev/shm is too small: No space left on device"):
        together = pixels(streamed(toys, 1), shuffled(24), crops_of(24))
    assert all(torch.equal(*pair) for pair in zip(alone, together, strict=True))


@pytest.mark.thorough
@pytest.mark.parametrize("fault", [Dying, Unsendable])
def test_a_decoder_that_sends_nothing_more_is_noticed_within_seconds(
    toys: Path, monkeypatch: pytest.MonkeyPatch, fault: type
) -> None:
    monkeypatch.setattr(streaming, "_Shared", fault)
    monkeypatch.syspath_prepend(ROOT)
    began = time.monotonic()
    with pytest.raises(RuntimeError, match=r"a decoder of photographs died.*--decoders 0") as told:
        pixels(streamed(toys, 1))
    assert "\n" not in str(told.value) and time.monotonic() - began < 60


def test_images_are_held_where_they_are_few_and_nothing_is_cut_from_files(
    toys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = fetch(f"folder:{toys}[size=16]", None)
    assert isinstance(load_or_stream(source, "train", 24, False, 0), Split)
    assert isinstance(load_or_stream(source, "train", 24, True, 0), StreamedSplit)
    monkeypatch.setattr(catalogue_module(), "MOST_HELD_BYTES", 23 * 3 * 16 * 16)
    assert isinstance(load_or_stream(source, "train", 24, False, 0), StreamedSplit)
    assert isinstance(load_or_stream(source, "train", 23, False, 0), Split)
    embedded = fetch("fashion_mini", None)
    assert isinstance(load_or_stream(embedded, "train", 24, True, 0), Split)


def catalogue_module() -> Any:
    return sys.modules[DatasetInfo.__module__]


def test_memory_is_asked_for_a_few_batches_of_streamed_images_and_not_for_all() -> None:
    grid = Grid(("direct",), ("csnn[width=4]",), ("imagenet[size=32]",), batch_size=8)
    (job,) = grid.expand()
    network = network_of(job)
    needed = memory_mb(job, network, footprint(network, job))
    (few,) = replace(grid, train_samples=10_000, test_samples=1000).expand()
    held = memory_mb(few, network, footprint(network, few))
    # a decoder and four batches instead of the training images; test images are held in memory
    images = 4 * 8 + 50_000 - (2 * 10_000 + 1000)
    assert needed - held == pytest.approx(300 + images * 3 * 32 * 32 / 2**20)


def test_on_a_gpu_a_cell_has_as_many_decoders_as_threads() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert [default_decoders(cpu, n) for n in (1, 16)] == [1, 1]
    assert [default_decoders(cuda, n) for n in (1, 4, 16)] == [1, 4, 8]


# --- training ---------------------------------------------------------------------------------


def grid_of(root: Path, recipe: Path, **changes: Any) -> Grid:
    grid = Grid(
        encoders=("rate",),
        backbones=("csnn[width=2]",),
        datasets=(f"folder:{root}[size=16]",),
        num_steps=(2,),
        recipes=(str(recipe),),
        epochs=2,
        batch_size=6,
    )
    return replace(grid, **changes)


def run(grid: Grid, folder: Path, decoders: int | None, executor: Any = None) -> Store:
    fingerprints = {k: s.fingerprint() for k, s in find_sources(grid.expand(), None).items()}
    order = RunConfig(grid, folder, "cpu", fingerprints, decoders=decoders)
    outcome = run_grid(order, executor or InProcess(), Recorder())
    assert (outcome.done, outcome.failed) == (len(grid.expand()), 0)
    return Store(folder)


@pytest.fixture
def everything_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue_module(), "MOST_HELD_BYTES", 0)


def test_cells_have_the_same_rows_with_none_and_with_two_decoders(
    toys: Path, tmp_path: Path, everything_streamed: None
) -> None:
    grid = grid_of(toys, recipe_with_crops(tmp_path / "crops.toml"))
    alone = run(grid, tmp_path / "alone", 0)
    together = run(grid, tmp_path / "together", 2)
    for name, table in numbers(tmp_path / "alone").items():
        assert table.equals(numbers(tmp_path / "together")[name]), name
    assert alone.finished() == together.finished()
    (cell,) = alone.read("cells").to_dict("records")
    assert (cell["dataset"], cell["num_classes"]) == ("folder:toys[size=16]", 3)
    predictions = alone.read("predictions")
    assert (
        predictions["label"].tolist() == [0, 1, 2] * 4
        and str(predictions["label"].dtype) == "int16"
    )
    assert not any(str(toys) in str(table.values) for table in numbers(tmp_path / "alone").values())


def test_streamed_and_held_images_train_the_same_network(
    toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = replace(grid_of(toys, tmp_path), recipes=("quick",))
    run(grid, tmp_path / "held", 0)
    monkeypatch.setattr(catalogue_module(), "MOST_HELD_BYTES", 0)
    run(grid, tmp_path / "streamed", 0)
    for name, table in numbers(tmp_path / "held").items():
        assert table.equals(numbers(tmp_path / "streamed")[name]), name


def test_a_cell_is_measured_again_wherever_its_photographs_are(
    toys: Path, tmp_path: Path, everything_streamed: None
) -> None:
    recipe = replace(load_recipe("quick"), name="quick")
    store = run(replace(grid_of(toys, tmp_path), recipes=(recipe.name,)), tmp_path / "store", 0)
    (key,) = store.finished()
    for data_dir in (toys, toys.parent):
        assert differences(store, key, data_dir) == []
    with pytest.raises(DatasetError, match="there is no folder"):
        differences(store, key, tmp_path)


class Patience:
    """Stop a training after a number of batches."""

    def __init__(self, batches: int) -> None:
        self.left = batches

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def sittings(data: Data, recipe: Recipe, folder: Path, stops: list[int]) -> tuple[Any, Any]:
    """Return rows and weights of a training that is interrupted repeatedly."""
    info = get_info("cifar10")
    task = replace(task_of(info, 2), num_classes=3, height=16, width=16)
    for batches in (*stops, 10_000):
        plugins = ENCODERS.resolve("rate"), BACKBONES.resolve("csnn[width=2]")
        network = build_network(*plugins, task, seed=0)
        kept = Checkpoints(folder, "cell", least_s=0.0)
        try:
            asked: Any = {"checkpoints": kept, "should_stop": Patience(batches)}
            result = train(network, data, recipe, 0, "fp32", _Deaf(), **asked)
        except Interrupted:
            continue
    timed = {"images_per_s", "wall_s"}
    rows = [{k: v for k, v in row.items() if k not in timed} for row in result.epoch_rows]
    return rows, network.state_dict()


class _Deaf:
    def pulse(self, pulse: object) -> None: ...
    def epoch_done(self, row: dict[str, Any]) -> None: ...


@pytest.fixture(params=["held", 0, 1])
def data(request: pytest.FixtureRequest, toys: Path) -> Iterator[Data]:
    split = streamed(toys, 0 if request.param == "held" else request.param)
    kept, val = hold_out(split, 0.2)
    test = streamed(toys, 0, "test")
    if request.param == "held":
        yield Data(kept.held(), val.held(), test.held())
    else:
        yield Data(kept, val, test)


def test_an_interrupted_training_goes_on_with_the_same_crops(
    data: Data, toys: Path, tmp_path: Path
) -> None:
    changes = {"epochs = 4": "epochs = 2", "batch_size = 50": "batch_size = 5"}
    recipe = load_recipe(str(recipe_with_crops(tmp_path / "crops.toml", **changes)))
    rows, weights = sittings(data, recipe, tmp_path / "whole", [])
    # 4 training batches and one validation batch per epoch, so two of the stops are mid-epoch
    again, same = sittings(data, recipe, tmp_path / "parts", [2, 3, 2])
    assert again == rows
    assert all(torch.equal(weights[name], same[name]) for name in weights)


@pytest.mark.slow
def test_cells_side_by_side_have_decoders_of_their_own(toys: Path, tmp_path: Path) -> None:
    grid = grid_of(toys, recipe_with_crops(tmp_path / "crops.toml"), seeds=(0, 1))
    run(grid, tmp_path / "alone", 0)
    run(grid, tmp_path / "together", 1, Processes(2))
    for name, table in numbers(tmp_path / "alone").items():
        assert table.equals(numbers(tmp_path / "together")[name]), name
