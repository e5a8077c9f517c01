"""A finished cell, measured again from its kept weights."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from codingbench.cells.data import find_sources
from codingbench.cells.grid import Grid
from codingbench.cells.reevaluation import differences
from codingbench.cells.run import RunConfig
from codingbench.cells.weights import kept_weights, restore
from codingbench.errors import CodingbenchError, SpecError
from codingbench.executors.base import run_grid
from codingbench.executors.local import InProcess
from codingbench.recipes import FOLDER
from codingbench.registry import BACKBONES, ENCODERS
from codingbench.schema import TABLES
from codingbench.store.folder import Store
from tests.grids import Recorder

GRID = Grid(
    encoders=("rate",),
    num_steps=(3,),
    backbones=("csnn[width=4]",),
    epochs=3,
    train_samples=120,
    test_samples=60,
)


def run(grid: Grid, folder: Path) -> Store:
    fingerprints = {k: s.fingerprint() for k, s in find_sources(grid.expand(), None).items()}
    run_grid(RunConfig(grid, folder, "cpu", fingerprints), InProcess(), Recorder())
    return Store(folder)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return run(GRID, tmp_path)


def key_of(store: Store) -> str:
    (key,) = store.finished()
    return key


def test_all_numbers_come_out_equal_from_the_weights(store: Store) -> None:
    assert differences(store, key_of(store), None) == []


def test_a_cell_in_bfloat16_is_measured_again_in_its_order_of_memory(tmp_path: Path) -> None:
    store = run(replace(GRID, precision="bf16"), tmp_path)
    assert differences(store, key_of(store), None) == []
    network = restore(store, key_of(store), None).network_on(torch.device("cpu"))
    weights = [layer.weight for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert weights and all(w.stride(1) == 1 for w in weights)  # the channels are last


def test_a_cell_with_a_mean_of_its_weights_keeps_and_measures_the_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sections = "[loss]\nname = 'tet'\n[weight_average]\ndecay = 0.9\nevery_steps = 1\n"
    text = (FOLDER / "quick.toml").read_text().replace("flip = false", "flip = 'alternate'")
    (tmp_path / "averaged.toml").write_text(text + sections)
    monkeypatch.setattr("codingbench.recipes.chain.FOLDER", tmp_path)
    store = run(replace(GRID, recipes=("averaged",)), tmp_path / "results")
    row = store.read("cells").iloc[0]
    assert row["evaluated_weights"] == "mean"
    epochs = store.read("epochs").sort_values("epoch")
    assert row["val_accuracy"] == epochs["val_accuracy"].iloc[-1]
    assert differences(store, key_of(store), None) == []


def test_a_finished_cell_leaves_its_weights_and_no_checkpoint(store: Store) -> None:
    assert kept_weights(store, key_of(store)).load() is not None
    assert not list((store.folder / "checkpoints").glob("*/*"))


def test_a_changed_row_is_named_with_what_it_was_and_what_it_is(store: Store) -> None:
    key = key_of(store)
    tables = {name: store.read_table(name) for name in TABLES if name != "failures"}
    accuracy = tables["cells"]["accuracy"][0].as_py()
    rows = {name: table.to_pylist() for name, table in tables.items()}
    rows["cells"][0]["accuracy"] = 0.99
    rows["layers"][0]["dense_real"] += 7
    store.commit(key, rows)  # a valid part with other numbers, which a checksum cannot detect
    found = differences(store, key, None)
    assert found[0] == f"{key}: accuracy was 0.99, is {accuracy}"
    assert len(found) == 2 and "dense_real was" in found[1]


def test_counts_that_an_older_cell_lacks_are_not_compared(store: Store) -> None:
    tables = {name: store.read_table(name) for name in TABLES if name != "failures"}
    rows = {name: table.to_pylist() for name, table in tables.items()}
    for row in rows["layers"]:
        row["lemaire_acs"] = None
    store.commit(key_of(store), rows)
    assert differences(store, key_of(store), None) == []


def test_changed_weights_do_not_pass(store: Store) -> None:
    key = key_of(store)
    kept = kept_weights(store, key)
    state = kept.load()
    assert state is not None
    last = state["weights"]["last"]
    for name in ("weight", "bias"):
        last[f"backbone.head.linear.{name}"].neg_()
    kept.save(state)
    assert any("predictions differ" in line for line in differences(store, key, None))


@pytest.mark.parametrize("label", ["codec.py:Mine", "package.module:Mine", "rate[gain=1|2]"])
def test_no_label_of_a_strangers_store_chooses_the_code_that_runs(store: Store, label: str) -> None:
    key = key_of(store)
    rows = {name: store.read_table(name).to_pylist() for name in TABLES if name != "failures"}
    rows["cells"][0]["encoder"] = label
    store.commit(key, rows)
    with pytest.raises(SpecError, match="is not the label of a single encoder"):
        differences(store, key, None)


def test_weights_that_were_not_kept_and_code_that_changed_are_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = key_of(store)
    with pytest.raises(SpecError, match="no finished cell '0123456789abcdef'"):
        differences(store, "0123456789abcdef", None)
    with monkeypatch.context() as patch:
        for registry in (ENCODERS, BACKBONES):
            patch.setattr(registry, "_codes", {})  # as in a process that imports the changed files
        patch.setattr("codingbench.registry.code_hash", lambda cls: "another")
        with pytest.raises(SpecError, match=f"{key} cannot be measured again: its plug-ins"):
            differences(store, key, None)
    kept_weights(store, key).clear()
    with pytest.raises(CodingbenchError, match=f"the weights of {key} were not kept"):
        differences(store, key, None)
