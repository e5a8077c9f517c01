"""A grid run in this process: the rows of its tables, and the record of a failure."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from codingbench.cells.data import DataCache, find_sources
from codingbench.cells.grid import Grid, Job
from codingbench.cells.network import check_plugins
from codingbench.cells.run import RunConfig
from codingbench.counting import synapses
from codingbench.encoder import FeatureEncoder
from codingbench.energy import energy_uj
from codingbench.errors import SpecError
from codingbench.executors.base import Outcome, run_grid
from codingbench.executors.local import InProcess
from codingbench.registry import ENCODERS
from codingbench.runtime.interrupts import StopRequest
from codingbench.schema import COUNTS, TABLES
from codingbench.store.folder import Store
from codingbench.training.checkpoint import CHECKPOINTS, Checkpoints
from codingbench.training.loop import Interrupted
from tests.grids import GRID, Recorder, config_of

BOUNDS: dict[str, Any] = {
    "backbones": ("csnn[width=4]",),
    "epochs": 2,
    "train_samples": 120,
    "test_samples": 60,
}


class Silent:
    """A listener that keeps only the outcomes of cells."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.failed: list[str] = []

    def cell_started(self, job: Job) -> "Silent":
        return self

    def cell_skipped(self, job: Job) -> None: ...
    def cell_paused(self, job: Job, reason: str) -> None: ...
    def pulse(self, pulse: Any) -> None: ...
    def epoch_done(self, row: dict[str, Any]) -> None: ...
    def measuring(self, done: int, total: int) -> None: ...

    def cell_done(self, job: Job, row: dict[str, Any]) -> None:
        self.done.append(job.cell.encoder)

    def cell_failed(self, job: Job, key: str, reason: str) -> None:
        self.failed.append(reason)


def run(grid: Grid, folder: Path, force: bool = False) -> tuple[Outcome, Silent]:
    jobs, listener = grid.expand(), Silent()
    check_plugins(jobs)
    fingerprints = {name: s.fingerprint() for name, s in find_sources(jobs, None).items()}
    config = RunConfig(grid, folder, "cpu", fingerprints, force=force)
    return run_grid(config, InProcess(), listener), listener


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("store")
    grid = Grid(encoders=("gac", "rate", "direct"), num_steps=(2, 3), **BOUNDS)
    outcome, _ = run(grid, folder)
    assert outcome == Outcome(done=6, skipped=0, failed=0)
    return folder


def table(folder: Path, name: str) -> Any:
    """Read a table as users do; Any, because pandas' types do not know the columns."""
    return pd.read_parquet(folder / name)


def test_every_table_has_its_rows_for_every_cell(folder: Path) -> None:
    cells = table(folder, "cells").set_index("key")
    assert len(cells) == 6
    for name, expected in (("steps", cells["num_steps"]), ("epochs", 2), ("predictions", 60)):
        counts = table(folder, name).groupby("key").size()
        assert (counts == expected).all() and set(counts.index) == set(cells.index)
    for name in ("cells", "steps", "layers", "epochs", "predictions"):
        assert list(table(folder, name).columns) == TABLES[name].names


def test_steps_are_the_sums_of_their_layers_and_cells_those_of_their_steps(folder: Path) -> None:
    cells, steps = table(folder, "cells").set_index("key"), table(folder, "steps")
    layers = table(folder, "layers")
    names = list(COUNTS)
    by_step = layers.groupby(["key", "step"])[names].sum()
    pd.testing.assert_frame_equal(steps.set_index(["key", "step"])[names].sort_index(), by_step)
    summed = [*names, "spikes", "encoder_spikes"]
    totals = steps.groupby("key")[summed].sum().sort_index()
    pd.testing.assert_frame_equal(cells[summed].sort_index(), totals)
    neurons = layers[layers["kind"] == "neuron"]
    all_spikes = neurons.groupby(["key", "step"])["spikes"].sum()
    own, encoders = (steps.set_index(["key", "step"])[name].sort_index() for name in summed[-2:])
    assert (own + encoders).equals(all_spikes)
    in_backbone = neurons["layer"].str.startswith("backbone.")
    assert own.equals(neurons[in_backbone].groupby(["key", "step"])["spikes"].sum())


def test_energy_of_the_last_step_is_that_of_the_cell(folder: Path) -> None:
    cells = table(folder, "cells").set_index("key").sort_index()
    steps = table(folder, "steps")
    last = steps[~steps["is_prefix"]].set_index("key").sort_index()
    assert (last["step"] == last["num_steps"]).all()
    for convention in ("exact", "paper"):
        stored = last[f"energy_{convention}_uj"]
        assert (stored > 0).all()
        pd.testing.assert_series_equal(
            stored, energy_uj(cells, convention), check_names=False, rtol=1e-12
        )
    rising = steps.sort_values(["key", "step"]).groupby("key")["energy_exact_uj"]
    assert rising.is_monotonic_increasing.all()


def test_accuracies_agree_with_the_predictions(folder: Path) -> None:
    cells = table(folder, "cells").set_index("key")["accuracy"].sort_index()
    predictions = table(folder, "predictions")
    hits = (predictions["label"] == predictions["prediction"]).groupby(predictions["key"]).mean()
    pd.testing.assert_series_equal(cells, hits.sort_index(), check_names=False)
    assert (predictions["margin"] >= 0).all()


def test_gac_costs_its_gate_and_all_else_is_the_same_network(folder: Path) -> None:
    cells = table(folder, "cells").set_index(["encoder", "num_steps"])
    gac, direct, rate = (cells.loc[(name, 3)] for name in ("gac", "direct", "rate"))
    assert gac["parameters"] - direct["parameters"] == 2 * 4 * 4 * 16 + 2 * 3 == 518
    assert gac["encoder_parameters"] == 518 and direct["encoder_parameters"] == 0
    assert direct["parameters"] == rate["parameters"]
    # the gate: two 4x4 convolutions of 4 channels on 28x28, and T x 1 + 1 x T for mean and max
    layers = table(folder, "layers")
    gate = layers[layers["layer"].str.contains("spatial|temporal") & (layers["key"] == gac["key"])]
    dense = sum(gate[name].sum() for name in COUNTS if name.startswith("dense")) / 60
    assert dense == 2 * 4 * 4 * 16 * 28 * 28 + 2 * (3 + 3)
    assert set(gate["step"]) == {1}


def test_the_stem_multiplies_once_for_direct_and_adds_at_every_step_for_rate(folder: Path) -> None:
    layers = table(folder, "layers").query("layer == 'encoder.stem.0' and num_steps == 3")
    by_encoder = layers.groupby("encoder")
    assert by_encoder["step"].apply(list).to_dict() == {
        "gac": [1],
        "direct": [1],
        "rate": [1, 2, 3],
    }
    assert by_encoder["input_class"].unique().map(list).to_dict() == {
        "gac": ["real"],
        "direct": ["real"],
        "rate": ["binary"],
    }


def test_a_second_run_skips_what_is_finished_and_force_gives_the_same_numbers(folder: Path) -> None:
    grid = Grid(encoders=("rate",), num_steps=(2,), **BOUNDS)
    assert run(grid, folder)[0] == Outcome(done=0, skipped=1, failed=0)
    before = table(folder, "steps")
    assert run(grid, folder, force=True)[0] == Outcome(done=1, skipped=0, failed=0)
    pd.testing.assert_frame_equal(table(folder, "steps"), before)


def test_provenance_is_complete(folder: Path) -> None:
    cells = table(folder, "cells")
    required = cells.drop(
        columns=["git_commit", "git_dirty", "cuda_version", "cudnn_version", "neuron_code"]
    )
    assert not required.isna().any().any()
    assert (cells["torch_version"] == torch.__version__).all()
    assert (cells["finished_at"] > cells["started_at"]).all()
    assert (cells["val_samples"] == 12).all() and (cells["uncounted"] == "").all()


class Raises(FeatureEncoder):
    emits = "real"

    def encode(self, features: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("the coding\nis broken")


class WrongShape(FeatureEncoder):
    emits = "real"

    def encode(self, features: torch.Tensor) -> torch.Tensor:
        return features


class NotANumber(FeatureEncoder):
    emits = "real"

    def encode(self, features: torch.Tensor) -> torch.Tensor:
        return features.expand(self.num_steps, *features.shape) / 0


@pytest.mark.parametrize(
    "cls, reason",
    [
        (Raises, "RuntimeError: the coding is broken"),
        (
            WrongShape,
            "ValueError: WrongShape must emit shape (2, 50, 4, 28, 28), got (50, 4, 28, 28)",
        ),
        (NotANumber, "ValueError: NotANumber must emit finite numbers, got NaN or infinity"),
    ],
)
def test_a_failing_cell_is_recorded_with_its_reason_and_the_others_are_kept(
    cls: type, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENCODERS._classes, "faulty", cls)
    grid = Grid(encoders=("faulty", "direct"), num_steps=(2,), **BOUNDS)
    outcome, listener = run(grid, tmp_path)
    assert outcome == Outcome(done=1, skipped=0, failed=1)
    assert listener.done == ["direct"] and listener.failed[0].startswith(reason)
    failures = table(tmp_path, "failures")
    assert failures["encoder"].tolist() == ["faulty"]
    assert failures["reason"][0].startswith(reason) and "\n" not in failures["reason"][0]
    for name in ("cells", "steps", "layers", "epochs"):
        assert set(table(tmp_path, name)["encoder"]) == {"direct"}


def test_an_error_while_counting_fails_the_cell_and_leaves_no_zero(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any) -> None:
        raise ArithmeticError("cannot count this convolution")

    monkeypatch.setattr(synapses, "convolution", broken)
    outcome, listener = run(Grid(encoders=("direct",), num_steps=(2,), **BOUNDS), tmp_path)
    assert outcome == Outcome(done=0, skipped=0, failed=1)
    assert listener.failed == ["ArithmeticError: cannot count this convolution"]
    assert Store(tmp_path).read("cells").empty and not (tmp_path / "layers").exists()


class Tabled(FeatureEncoder):
    """A layer that looks up weights by distance, an operation that the counter does not know."""

    emits = "real"

    def __init__(self, setting: Any) -> None:
        super().__init__(setting)
        self.table = torch.nn.Parameter(torch.rand(3, setting.stem_channels))

    def encode(self, features: torch.Tensor) -> torch.Tensor:
        nearest = torch.cdist(features.mean((2, 3)), self.table).amin(1)
        return (features * nearest[:, None, None, None]).expand(self.num_steps, *features.shape)


def test_a_layer_that_the_counter_does_not_know_is_named_in_the_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENCODERS._classes, "tabled", Tabled)
    outcome, _ = run(Grid(encoders=("tabled", "direct"), num_steps=(2,), **BOUNDS), tmp_path)
    assert outcome.done == 2
    named = table(tmp_path, "cells").set_index("encoder")["uncounted"]
    assert named["tabled"].startswith("encoder:") and "dist" in named["tabled"]
    assert named["direct"] == ""


def test_a_refused_parameter_stops_the_grid_before_anything_is_trained(tmp_path: Path) -> None:
    grid = Grid(encoders=("direct", "rate[gain=-1]"), num_steps=(2,), **BOUNDS)
    with pytest.raises(SpecError, match=r"rate\[gain=-1.0\] on csnn.* gain must be positive"):
        run(grid, tmp_path)
    assert not list(tmp_path.iterdir())


def test_successive_cells_with_the_same_images_share_them() -> None:
    def jobs(train_samples: int) -> list[Job]:
        grid = Grid(("direct", "gac"), train_samples=train_samples, test_samples=20)
        return grid.expand()

    few, many = jobs(40), jobs(80)
    cache = DataCache([*few, *many], None, torch.device("cpu"), decoders=0, threads=1)
    first, second, third = (cache.load(job) for job in (few[0], few[1], many[0]))
    assert first is second
    assert (len(first.train.labels), len(first.val.labels)) == (36, 4)
    assert (len(third.train.labels), len(third.val.labels)) == (72, 8)


def test_both_times_of_a_cell_that_goes_on_count_all_its_sessions(tmp_path: Path) -> None:
    stop, recorder = StopRequest(), Recorder()
    recorder.after_pulse = lambda: setattr(stop, "signal", 15)
    config = config_of(replace(GRID, encoders=("direct",)), tmp_path)
    with pytest.raises(Interrupted):
        run_grid(config, InProcess(), recorder, stop)
    (key,) = config.jobs()
    kept = Checkpoints(tmp_path / CHECKPOINTS, key)
    state = kept.load()
    assert state is not None
    kept.save(state | {"wall_s": state["wall_s"] + 1000})
    run_grid(config, InProcess(), Recorder())
    row = Store(tmp_path).read("cells").iloc[0]
    assert 2000 > row["wall_s"] > row["train_wall_s"] > 1000
