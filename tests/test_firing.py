"""Firing rates have one base for every coding: the neurons of the backbone."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from codingbench.schema import TABLES
from codingbench.store import firing
from codingbench.store.compaction import compact
from codingbench.store.folder import Store
from codingbench.store.plausible import read

REFERENCE = Path(__file__).parents[1] / "results" / "reference"
STORES = ["fashion_mini", "field", "codings", "cifar100", "retina"]


def row(layer: str, step: int, spikes: int, neurons: int, kind: str = "neuron") -> dict[str, Any]:
    return {"layer": layer, "step": step, "spikes": spikes, "neurons": neurons, "kind": kind}


def test_neurons_of_the_encoder_change_neither_spikes_nor_neurons_of_the_rate() -> None:
    backbone = [row("backbone.lif", 1, 3, 10), row("backbone.lif", 2, 4, 10)]
    encoder = [row("encoder.neuron", 1, 90, 100), row("encoder.stem.lif", 1, 1, 5)]
    code = [row("encoder.code", 1, 50, 60, kind="code")]
    assert firing.sums(backbone) == {
        "spikes": 7, "neurons": 10, "encoder_spikes": 0, "encoder_neurons": 0
    }  # fmt: skip
    assert firing.sums(backbone + encoder + code) == {
        "spikes": 7, "neurons": 10, "encoder_spikes": 91, "encoder_neurons": 105
    }  # fmt: skip


@pytest.mark.parametrize("name", STORES)
def test_rates_of_older_parts_are_those_of_the_neurons_of_the_backbone(name: str) -> None:
    store = Store(REFERENCE / name)
    cells, steps = read(store, "cells").set_index("key"), read(store, "steps")
    layers = store.read("layers")
    neurons = layers[(layers["kind"] == "neuron") & layers["layer"].str.startswith("backbone.")]
    for key, rows in neurons.groupby("key"):
        number = rows.groupby("layer")["neurons"].first().sum()
        cell, own = cells.loc[key], steps[steps["key"] == key].set_index("step")
        assert (cell["spikes"], cell["neurons"]) == (rows["spikes"].sum(), number)
        chances = number * cell["images"] * cell["num_steps"]
        assert cell["firing_rate"] == rows["spikes"].sum() / chances
        by_step = rows.groupby("step")["spikes"].sum()
        assert own["spikes"].equals(by_step) and (own["neurons"] == number).all()
        assert np.array_equal(own["firing_rate"], by_step / (number * cell["images"]))
    assert set(neurons["key"]) == set(cells.index)


def test_rates_of_older_parts_without_layers_are_unknown(tmp_path: Path) -> None:
    shutil.copytree(REFERENCE / "fashion_mini", tmp_path / "r")
    shutil.rmtree(tmp_path / "r" / "layers")
    for table in ("cells", "steps"):
        rows = read(Store(tmp_path / "r"), table)
        assert rows[["firing_rate", *firing.SUMS]].isna().all(axis=None)
        assert rows["accuracy"].notna().all()


def test_compacted_older_parts_still_have_the_base_of_today(tmp_path: Path) -> None:
    shutil.copytree(REFERENCE / "fashion_mini", tmp_path / "r")
    store = Store(tmp_path / "r")
    before = {table: read(store, table) for table in ("cells", "steps")}
    compact(store)
    for table, rows in before.items():
        pd.testing.assert_frame_equal(read(store, table), rows)


def test_a_part_of_many_older_cells_is_read_in_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(REFERENCE / "fashion_mini")
    whole = read(store, "steps")
    monkeypatch.setattr(firing, "MOST_CELLS", 5)
    pd.testing.assert_frame_equal(read(store, "steps"), whole)
    assert whole.columns.tolist() == TABLES["steps"].names
