import io
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console

from codingbench.energy import pricings
from codingbench.errors import SpecError
from codingbench.schema import COUNTS, ELEMENT_COUNTS, TABLES
from codingbench.store.folder import Store
from codingbench.views.cell import describe, render

KEY = "aaaa1111aaaa1111"
_VALUES: dict[pa.DataType, Any] = {pa.string(): "text", pa.bool_(): True}


def row(table: str, **values: Any) -> dict[str, Any]:
    """Return a row of a table with 2 images, counts of 0 and null times."""
    fields = {field.name: _VALUES.get(field.type, 1) for field in TABLES[table]}
    fixed = dict.fromkeys(COUNTS, 0) | {"images": 2, "started_at": None, "finished_at": None}
    return fields | {name: fixed[name] for name in fixed if name in fields} | values


def layer(name: str, position: int, kind: str, **values: Any) -> dict[str, Any]:
    is_synapse = kind == "synapse"
    return {
        "layer": name,
        "position": position,
        "kind": kind,
        "step": 1,
        "spikes": 0,
        "neurons": 0,
        "input_class": "binary" if is_synapse else None,
        "input_values": 8 * is_synapse,
        "input_nonzero": 8 * is_synapse,
        "input_rate": 1.0 * is_synapse,
    } | values


SPIKES = layer("backbone.conv", 1, "synapse", effective_binary=60)
ONE_MODULE = [
    layer("encoder", 2, "pool", pool_ops=4),
    layer("encoder", 3, "gate", gate_muls=6),
    layer("encoder", 3, "gate", gate_muls=8, step=2),
]


def stored(folder: Path, *layers: dict[str, Any], **cell: Any) -> Store:
    store = Store(folder)
    tables = {
        "cells": [row("cells", **{"key": KEY, "uncounted": "", **cell})],
        "steps": [row("steps", key=KEY, effective_binary=60)],
        "layers": [row("layers", key=KEY, **values) for values in layers],
        "epochs": [row("epochs", key=KEY)],
        "predictions": [],
    }
    store.commit(KEY, tables)
    return store


def printed(description: dict[str, Any]) -> str:
    console = Console(file=io.StringIO(), width=80)
    console.print(render(description))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def section(description: dict[str, Any], title: str) -> str:
    """Return the text below a title, up to the next empty line, with single spaces."""
    (body,) = (part for part in printed(description).split("\n\n") if part.startswith(title))
    return " ".join(body.split("\n", 1)[1].split())


def test_a_module_that_does_several_kinds_of_work_has_a_row_for_each(tmp_path: Path) -> None:
    layers = describe(stored(tmp_path, *ONE_MODULE), KEY)["layers"]
    assert [(entry["layer"], entry["kind"]) for entry in layers] == [
        ("encoder", "pool"),
        ("encoder", "gate"),
    ]
    assert [entry["pool_ops_per_image"] for entry in layers] == [2, 0]
    assert [entry["gate_muls_per_image"] for entry in layers] == [0, 7]  # (6 + 8) / 2 images


def test_the_table_of_layers_leaves_other_operations_to_their_section(tmp_path: Path) -> None:
    lines = section(describe(stored(tmp_path, SPIKES, *ONE_MODULE), KEY), "layers")
    assert "backbone.conv synapse binary 100.00" in lines and "encoder" not in lines


def test_other_operations_are_summed_over_all_layers(tmp_path: Path) -> None:
    rows = [
        SPIKES | {"bias_adds": 30},
        layer("backbone.bias", 2, "bias", bias_adds=10),
        layer("backbone.lif", 3, "neuron", neuron_updates=20, neurons=5),
    ]
    description = describe(stored(tmp_path, *rows, *ONE_MODULE), KEY)
    operations = description["other_operations"]
    assert list(operations) == list(ELEMENT_COUNTS)
    assert operations["bias_adds"] == {
        "per_image": 20,  # (30 + 10) / 2 images
        "num_layers": 2,
        "largest_layer": "backbone.conv",
        "largest_share": 0.75,
    }
    assert operations["residual_adds"]["per_image"] == 0
    assert operations["residual_adds"]["largest_layer"] is None
    text = section(description, "other operations")
    assert "bias additions 20.0 2 layers, 75 % in backbone.conv" in text
    assert "residual additions 0 —" in text
    assert "neuron updates 10.0 backbone.lif" in text


def test_uncounted_layers_are_named_above_the_layers(tmp_path: Path) -> None:
    store = stored(tmp_path, SPIKES, uncounted="backbone.fft,encoder:sort")
    assert section(describe(store, KEY), "layers").startswith(
        "not counted: backbone.fft, encoder:sort (layers that the operation counter does not know)"
        "; the energies are too low by their cost"
    )


@pytest.mark.parametrize("uncounted", ["", None])
def test_no_warning_appears_if_every_layer_was_counted(
    tmp_path: Path, uncounted: str | None
) -> None:
    assert "not counted" not in printed(
        describe(stored(tmp_path, SPIKES, uncounted=uncounted), KEY)
    )


IMAGE = layer("encoder.stem.0", 0, "synapse", input_class="real", effective_real=20)
SIGNED = layer("backbone.conv", 1, "synapse", effective_binary=60, effective_signed=20)


@pytest.mark.parametrize(
    ("layers", "text"),
    [
        ([SPIKES], "100.00 % binary; spike-driven. No layer needs multiplications: every"),
        ([IMAGE, SPIKES], "75.00 % binary; spike-driven after the first layer. Layers that"),
        ([IMAGE, SIGNED], "60.00 % binary, 20.00 % signed; spike-driven after the first layer."),
        ([SPIKES | {"effective_level": 20}], "75.00 % binary; not spike-driven. Layers that"),
        ([SPIKES | {"effective_binary": 0}], "No synaptic operation took effect."),
    ],
)
def test_spike_purity_is_stated_in_one_line(
    tmp_path: Path, layers: list[dict[str, Any]], text: str
) -> None:
    assert text in section(describe(stored(tmp_path, *layers), KEY), "spike purity")


def test_a_store_without_its_layers_says_so(tmp_path: Path) -> None:
    store = stored(tmp_path, SPIKES)
    shutil.rmtree(tmp_path / "layers")
    description = describe(store, KEY)
    assert description["purity"] is None and description["other_operations"] is None
    for title in ("spike purity", "other operations"):
        text = "unknown: the table 'layers' of this store has no rows of this cell"
        assert section(description, title).startswith(text)


def test_all_stands_for_every_convention_and_each_is_given_once(tmp_path: Path) -> None:
    description = describe(stored(tmp_path, SPIKES), KEY, pricings(["paper", "all", "exact"]))
    assert list(description["energy"]["conventions"].values()) == [
        "paper",
        "exact",
        "dense-mac",
        "neurobench",
        "syops-like",
        "memory",
    ]
    (step,) = description["steps"]
    assert step["energy_neurobench_uj"] == pytest.approx(27e-6)  # 0.9 pJ x 60 / 2 images


def test_two_conventions_of_one_name_are_refused(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        "from codingbench.energy import Convention\n"
        "mine = Convention('exact', '', '', lambda counts, chip: counts['effective_real'])\n"
    )
    store = stored(tmp_path / "results", SPIKES)
    assert describe(store, KEY, pricings([f"{own}:mine"]))["energy"]["conventions"] == {
        "energy_exact_uj": "exact"
    }
    with pytest.raises(SpecError, match="two energy conventions are named 'exact'"):
        pricings(["exact", f"{own}:mine"])


def test_a_byte_is_priced_only_where_memory_is(tmp_path: Path) -> None:
    store = stored(tmp_path, SPIKES)
    assert "pJ per byte" not in printed(describe(store, KEY))
    assert "24.96 pJ per byte" in printed(describe(store, KEY, pricings(["memory"])))
