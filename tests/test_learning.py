"""Cells that learn nothing: dead on purpose, at chance, with a loss that rises."""

import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.stats
import torch
from rich.console import Console
from typer.testing import CliRunner

from codingbench.analysis.leaderboard import COLUMNS, rows
from codingbench.analysis.learning import (
    AT_CHANCE,
    LEVEL,
    NOT_FALLEN,
    SIGN_COLUMNS,
    is_at_chance,
    signs_of,
    with_signs,
)
from codingbench.cells.data import DataCache
from codingbench.cells.grid import Grid, Job
from codingbench.cells.run import RunConfig, run_job
from codingbench.cli.main import app
from codingbench.executors.base import run_grid
from codingbench.executors.local import InProcess
from codingbench.schema import TABLES
from codingbench.store import learning
from codingbench.store.folder import Store
from codingbench.store.learning import FACTS, facts, read_cells
from codingbench.views.leaderboard import present
from codingbench.views.progress import GridProgress
from tests.conftest import commit
from tests.grids import Recorder, config_of

REFERENCE = Path(__file__).parents[1] / "results" / "reference"
SMALL: dict[str, Any] = {
    "encoders": ("direct",),
    "backbones": ("csnn[width=4]",),
    "num_steps": (2,),
    "epochs": 2,
    "train_samples": 200,
    "test_samples": 100,
}
DEAD = """
from codingbench.backbones.csnn import CSNN
from codingbench.neurons import MultiStepLeaky

class Dead(CSNN):
    def make_neuron(self):
        return MultiStepLeaky(beta=0.5, threshold=1e9)
"""
LAYERS = ["encoder.neuron", "encoder.code"]
LAYERS += [f"backbone.blocks.{block}.neurons.0" for block in range(3)] + ["backbone.head.neuron"]


# --- the facts ------------------------------------------------------------------------------------


def layer(name: str, position: int, step: int, spikes: int, kind: str = "neuron") -> dict[str, Any]:
    place = {"key": "a", "layer": name, "position": position, "step": step}
    return place | {"kind": kind, "spikes": spikes}


def epoch(number: int, train_loss: float, val_loss: float = 1.0) -> dict[str, Any]:
    return {"key": "a", "epoch": number, "train_loss": train_loss, "val_loss": val_loss}


def of_rows(**given: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the facts of a cell of 10 classes with the given rows of its other tables."""
    columns = {
        "layers": ["key", "layer", "position", "step", "kind", "spikes"],
        "epochs": ["key", "epoch", "train_loss", "val_loss"],
        "predictions": ["key", "label"],
    }
    tables = {name: pd.DataFrame(given.get(name, []), columns=columns[name]) for name in columns}
    found = facts(pd.DataFrame([{"key": "a", "num_classes": 10}]), **tables)
    return {name: found.loc["a", name] for name in FACTS}


def test_layers_without_a_spike_at_any_step_are_named_in_the_order_of_execution() -> None:
    layers = [
        layer("late", 5, 1, 0),
        layer("late", 5, 2, 0),
        layer("only at step 2", 3, 1, 0),
        layer("only at step 2", 3, 2, 1),
        layer("conv", 1, 1, 0, kind="synapse"),
        layer("code", 2, 1, 0, kind="code"),
    ]
    assert of_rows(layers=layers)["silent_layers"] == "code,late"
    assert of_rows(layers=[layer("lif", 1, 1, 7)])["silent_layers"] == ""


def test_the_largest_class_is_counted_among_the_test_images() -> None:
    labels = [{"key": "a", "label": label} for label in (3, 3, 3, 1, 2)]
    assert of_rows(predictions=labels)["largest_class_share"] == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("epochs", "drop"),
    [
        ([epoch(2, 1.5), epoch(1, 2.0), epoch(3, 1.75)], 0.25),
        ([epoch(1, 2.0), epoch(2, 2.5)], -0.5),
        ([epoch(1, 9.0, 9.0), epoch(2, 4.0, 5.0)], math.log(10) - 4.0),  # fell, but not enough
        ([epoch(1, 9.0, 9.0), epoch(2, 4.0, 2.0)], math.log(10) - 2.0),  # a loss of another scale
        ([epoch(1, 2.0)], math.log(10) - 1.0),  # the validation loss is the smaller one
        ([epoch(1, 2.0, 9.0)], math.log(10) - 2.0),
        ([epoch(1, 3.0, 9.0)], math.log(10) - 3.0),
        ([epoch(1, 3.0, math.nan)], math.log(10) - 3.0),
    ],
)
def test_a_loss_falls_from_the_first_epoch_or_from_that_of_equal_logits(
    epochs: list[dict[str, Any]], drop: float
) -> None:
    assert of_rows(epochs=epochs)["loss_drop"] == pytest.approx(drop)


def test_facts_of_missing_tables_are_unknown() -> None:
    assert pd.isna([*of_rows().values()]).all()


# --- the test against chance ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "share"), [(30, 0.1), (100, 0.01), (1000, 0.3), (10_000, 0.01), (50, 1.0)]
)
def test_an_accuracy_is_at_chance_by_the_exact_binomial_test(images: int, share: float) -> None:
    hits = np.unique(np.linspace(0, images, 60).astype(int))
    near = np.arange(max(0, int(images * share) - 5), min(images, int(images * share) + 60))
    hits = np.union1d(hits, near)
    reference = [
        scipy.stats.binomtest(int(k), images, share, alternative="greater").pvalue > LEVEL
        for k in hits
    ]
    size = len(hits)
    found = is_at_chance(hits / images, np.full(size, share), np.full(size, float(images)))
    assert found.tolist() == reference


def test_the_level_is_that_of_three_standard_deviations() -> None:
    assert pytest.approx(scipy.stats.norm.sf(3), rel=1e-3) == LEVEL


def test_what_is_not_known_is_no_sign() -> None:
    cell: dict[str, Any] = {"seed": 0, "accuracy": math.nan, "num_classes": 10, "images": 100}
    assert signs_of(pd.DataFrame([cell])) == []
    assert signs_of(pd.DataFrame([{"seed": 0}])) == []
    at_chance = cell | {"accuracy": 0.12}
    assert signs_of(pd.DataFrame([at_chance])) == [AT_CHANCE]
    # nine of ten images are of one class, so that 85 % is no more than guessing
    skewed = cell | {"accuracy": 0.85, "largest_class_share": 0.9}
    assert signs_of(pd.DataFrame([skewed])) == [AT_CHANCE]
    assert signs_of(pd.DataFrame([cell | {"accuracy": 0.85}])) == []


def test_a_cell_without_any_gain_in_loss_is_marked_and_a_small_gain_is_not() -> None:
    cells = pd.DataFrame(
        [{"seed": seed, "loss_drop": drop} for seed, drop in enumerate((0.0, 1e-6, -3.0))]
    )
    assert signs_of(cells) == [f"seeds 0, 2: {NOT_FALLEN}"]


# --- real cells that fail to learn ----------------------------------------------------------------


def run(folder: Path, **changes: Any) -> list[str]:
    """Run a small grid with its progress on no terminal; return the lines of the progress."""
    grid, out = Grid(**(SMALL | changes)), io.StringIO()
    with GridProgress(Console(file=out, width=400), len(grid.expand())) as progress:
        outcome = run_grid(config_of(grid, folder), InProcess(), progress)
    assert outcome.failed == 0
    return out.getvalue().splitlines()


def warnings_in(lines: list[str]) -> list[str]:
    return [line.split("fashion_mini: ")[1] for line in lines if line.startswith("[1/1] warning")]


@pytest.fixture(scope="module")
def dead(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A store with a cell whose neurons never spike, and the lines of its progress."""
    folder: Path = tmp_path_factory.mktemp("dead")
    (folder / "dead.py").write_text(DEAD)
    backbone = f"{folder / 'dead.py'}:Dead"
    return folder / "store", run(folder / "store", backbones=(f"{backbone}[width=4]",))


def test_a_dead_network_is_told_during_the_run_and_in_its_row(dead: tuple[Path, list[str]]) -> None:
    folder, lines = dead
    silent, at_chance, *_ = warnings_in(lines)
    assert silent == f"never spiked on the test images: {', '.join(LAYERS[:3])} and 3 more"
    assert at_chance == AT_CHANCE
    (cell,) = Store(folder).read("cells").to_dict("records")
    assert cell["silent_layers"] == ",".join(LAYERS)
    assert cell["largest_class_share"] == pytest.approx(0.1)


@pytest.mark.parametrize("form", ["table", "markdown", "csv", "json", "svg"])
def test_a_dead_network_is_marked_in_every_format(dead: tuple[Path, list[str]], form: str) -> None:
    options = ["leaderboard", "--results", str(dead[0]), "--format", form]
    text = CliRunner(env={"COLUMNS": "200"}).invoke(app, options).stdout.replace("&#160;", " ")
    if form == "json":
        (row,) = json.loads(text)
        assert row["silent_layers"] == LAYERS and row["at_chance"] == 1
        assert row["above_chance"] is False
    elif form == "csv":
        (line,) = pd.read_csv(io.StringIO(text)).to_dict("records")
        assert line["silent_layers"] == " ".join(LAYERS) and line["at_chance"] == 1
    else:
        assert "‡∅" in text and "∅ Layers that never spiked on the test images" in text
        assert "backbone.blocks.0.neurons.0" in text


@pytest.mark.parametrize("view", ["--bill", "--vs-ann", "--published", "--energy=all"])
def test_a_dead_network_is_marked_in_every_table(dead: tuple[Path, list[str]], view: str) -> None:
    options = ["leaderboard", "--results", str(dead[0]), view]
    text = CliRunner(env={"COLUMNS": "200"}).invoke(app, options).stdout
    assert "‡∅" in text and "∅ Layers that never spiked on the test images" in text
    assert "‡ Not above chance: within 3 standard deviations of 10 % on 100 test images" in text


def test_a_dead_network_is_marked_in_the_report(dead: tuple[Path, list[str]]) -> None:
    pytest.importorskip("plotly")
    page = dead[0].parent / "page.html"
    options = ["report", "--results", str(dead[0]), "--output", str(page)]
    done = CliRunner().invoke(app, options)
    assert done.exit_code == 0, done.output
    text = page.read_text()
    assert "‡∅" in text and "∅ Layers that never spiked on the test images" in text


def test_show_warns_of_a_dead_network_above_its_numbers(dead: tuple[Path, list[str]]) -> None:
    (key,) = Store(dead[0]).finished()
    options = ["show", key, "--results", str(dead[0])]
    text = CliRunner(env={"COLUMNS": "200"}).invoke(app, options).stdout
    assert text.index("warning: never spiked on the test images") < text.index("accuracy")
    told = json.loads(CliRunner().invoke(app, [*options, "--format", "json"]).stdout)
    assert told["signs"][1] == AT_CHANCE


def test_labels_drawn_at_random_leave_the_accuracy_at_chance(tmp_path: Path) -> None:
    grid = Grid(**SMALL)
    config = config_of(grid, tmp_path)
    ((key, job),) = config.jobs().items()
    tables = trained_on_shuffled_labels(job, key, config)
    row = pd.DataFrame(tables["cells"])
    assert signs_of(row) == [AT_CHANCE]
    Store(tmp_path).commit(key, tables)
    (ranked,) = rows(read_cells(Store(tmp_path))).to_dict("records")
    assert ranked["at_chance"] == 1 and ranked["silent_layers"] == []


def trained_on_shuffled_labels(job: Job, key: str, config: RunConfig) -> dict[str, Any]:
    data = DataCache([job], None, torch.device("cpu"), 0, 1).load(job)
    order = torch.randperm(len(data.train.labels), generator=torch.Generator().manual_seed(0))
    split: Any = data.train
    shuffled = replace(data, train=replace(split, labels=split.labels[order]))
    return run_job(job, key, shuffled, config, Recorder())[0]


def test_a_huge_learning_rate_is_told_by_the_loss(tmp_path: Path) -> None:
    quick = Path(learning.__file__).parents[1] / "recipes" / "quick.toml"
    recipe = tmp_path / "huge.toml"
    recipe.write_text(quick.read_text().replace("lr = 5e-3", "lr = 50.0"))
    lines = run(tmp_path / "store", recipes=(str(recipe),), epochs=3)
    assert NOT_FALLEN in warnings_in(lines)
    text = present(Store(tmp_path / "store"), form="markdown")
    assert isinstance(text, str) and "↗ |" in text
    assert "↗ The loss never fell" in text and "direct at T=2 (1 of 1 seed)" in text


def test_a_network_that_learns_has_no_mark(tmp_path: Path) -> None:
    lines = run(tmp_path, train_samples=1000, epochs=2)
    assert not [line for line in lines if "warning" in line]
    text = str(present(Store(tmp_path), form="markdown"))
    assert not set("‡∅↗") & set(text)


# --- stores ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", ["cifar100", "fashion_mini", "retina", "field"])
def test_cells_of_older_versions_are_judged_by_their_other_tables(store: str) -> None:
    cells = read_cells(Store(REFERENCE / store))
    assert cells[list(FACTS)].notna().all(axis=None)
    signs = with_signs(cells)
    assert not signs["at_chance"].any() and not signs["loss_not_fallen"].any()
    # half spikes never exceed the threshold of the first neurons of csnn
    half = signs["encoder"] == "gac_control[arm=half]"
    assert (signs["silent_layers"].astype(bool) == half).all()
    assert half.sum() == (3 if store == "field" else 0)


def test_a_store_without_its_other_tables_has_no_signs_from_them(tmp_path: Path) -> None:
    store = Store(tmp_path)
    commit(store, "aaaa1111aaaa1111")
    part = tmp_path / "cells" / "aaaa1111aaaa1111.parquet"
    table = pq.read_table(part, partitioning=None)
    schema = TABLES["cells"]
    for name in FACTS:
        nulls = pa.nulls(1, schema.field(name).type)
        table = table.set_column(schema.get_field_index(name), schema.field(name), nulls)
    pq.write_table(table, part)
    for name in ("layers", "epochs", "predictions"):
        for path in (tmp_path / name).iterdir():
            path.unlink()
        (tmp_path / name).rmdir()
    assert read_cells(store)[list(FACTS)].isna().all(axis=None)


def test_too_many_older_cells_are_left_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "MOST_OLDER", 11)
    cells = read_cells(Store(REFERENCE / "fashion_mini"))  # 12 cells
    assert cells[list(FACTS)].isna().all(axis=None)


def test_too_many_predictions_leave_the_class_shares_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(learning, "MOST_PREDICTIONS", 11_999)
    cells = read_cells(Store(REFERENCE / "fashion_mini"))
    assert cells["largest_class_share"].isna().all() and (cells["silent_layers"] == "").all()


# --- rows of several seeds ------------------------------------------------------------------------


def seeds(results: Path, *facts_of: dict[str, Any]) -> Store:
    store = Store(results)
    for seed, values in enumerate(facts_of):
        commit(store, f"{seed:016x}", seed=seed, **values)
    return store


def test_a_row_names_the_layers_and_counts_the_seeds(tmp_path: Path) -> None:
    store = seeds(
        tmp_path,
        {"silent_layers": "b,a", "loss_drop": 0.0},
        {"silent_layers": "a"},
        {"accuracy": 0.2},
    )
    (row,) = rows(read_cells(store)).to_dict("records")
    assert {name: row[name] for name in SIGN_COLUMNS} == {
        "silent_layers": ["b", "a"],
        "at_chance": 1,
        "loss_not_fallen": 1,
        "collapsed_seeds": [2],
    }
    assert set(SIGN_COLUMNS) <= set(COLUMNS)
    text = str(present(store, form="markdown"))
    assert "‡∅↗ |" in text
    assert (
        "‡ The accuracy of single cells is not above the share of the largest class (one-sided "
        "binomial test, level 0.135 %): gac[heads=2] at T=2 (1 of 3 seeds)." in text
    )
    assert "(1 of 3 seeds).\n" in text and "gac[heads=2] at T=2 (b, a)." in text


def test_compare_warns_of_codings_that_learned_nothing(tmp_path: Path) -> None:
    store = seeds(tmp_path, {}, {"silent_layers": "lif"})
    for seed in (0, 1):
        commit(store, f"{seed + 8:016x}", encoder="direct", seed=seed)
    options = ["compare", "gac[heads=2]", "direct", "--results", str(tmp_path)]
    text = CliRunner(env={"COLUMNS": "200"}).invoke(app, options).stdout
    assert re.search(r" 2¶?‡ ", text)
    assert "‡ gac[heads=2] at T=2: seed 1: never spiked on the test images: lif." in text
    (pair,) = json.loads(CliRunner().invoke(app, [*options, "--format", "json"]).stdout)
    assert pair["signs_a"] == ["seed 1: never spiked on the test images: lif"]
    assert pair["signs_b"] == []
