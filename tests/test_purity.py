from typing import Any

import pandas as pd
import pytest

from codingbench.analysis.purity import CURRENTS, GATED, LEVELS, ON_IMAGE, PARTLY_ZERO, audit

IMAGES = 10
NOTHING = {f"effective_{name}": 0 for name in ("binary", "signed", "level", "real")}


def row(layer: str, position: int, kind: str = "synapse", **values: Any) -> dict[str, Any]:
    sizes = {"step": 1, "images": IMAGES, "input_values": 1000, "input_nonzero": 1000, "spikes": 0}
    return {"layer": layer, "position": position, "kind": kind} | sizes | NOTHING | values


def frame(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(list(rows))


STEM = row("encoder.stem.0", 0, effective_real=400)


def what_is_read(*rows: dict[str, Any]) -> dict[str, str]:
    return {layer.layer: layer.input for layer in audit(frame(*rows)).layers}


def test_operations_are_summed_by_class_over_layers_and_steps_and_given_per_image() -> None:
    purity = audit(
        frame(
            STEM,
            row("backbone.a", 1, effective_binary=300),
            row("backbone.a", 1, step=2, effective_binary=200, effective_level=50),
            row("backbone.b", 2, effective_signed=50),
        )
    )
    assert purity.operations_per_image == {"binary": 50, "signed": 5, "level": 5, "real": 40}
    assert purity.shares == {"binary": 0.5, "signed": 0.05, "level": 0.05, "real": 0.4}


def test_only_synapses_are_audited() -> None:
    other = [
        row("backbone", position, kind, effective_real=700)
        for position, kind in enumerate(("norm", "pool", "residual", "gate", "bias", "neuron"), 1)
    ]
    purity = audit(frame(row("backbone.a", 0, effective_binary=100), *other))
    assert purity.shares["binary"] == 1 and purity.layers == ()


def test_a_layer_that_reads_numbers_at_some_steps_is_named_with_only_those_operations() -> None:
    (layer,) = audit(
        frame(
            row("backbone.a", 0, effective_binary=300, input_nonzero=10),
            row("backbone.a", 0, step=2, effective_level=60, input_nonzero=200),
            row("backbone.a", 0, step=3, effective_real=40, input_nonzero=995),
        )
    ).layers
    assert layer.input_classes == ("level", "real")
    assert layer.operations_per_image == 10  # (60 + 40) / 10
    assert layer.share == 0.25  # 100 / 400
    assert layer.nonzero_share == 0.995 and layer.input == CURRENTS  # of step 3 only


def test_the_layer_with_the_most_operations_on_numbers_comes_first() -> None:
    purity = audit(
        frame(
            row("backbone.a", 0, effective_real=10, effective_binary=900),
            row("backbone.b", 1, effective_level=30),
            row("backbone.c", 2, effective_real=20),
        )
    )
    assert [layer.layer for layer in purity.layers] == ["backbone.b", "backbone.c", "backbone.a"]


def test_the_first_layer_of_the_stem_reads_the_image_and_leaves_the_network_spike_driven() -> None:
    purity = audit(frame(STEM, row("backbone.a", 1, effective_binary=300)))
    assert [layer.input for layer in purity.layers] == [ON_IMAGE]
    assert purity.spike_driven


def test_a_network_without_numbers_is_spike_driven() -> None:
    assert audit(frame(row("backbone.a", 0, effective_signed=1))).spike_driven


@pytest.mark.parametrize("value_class", ["level", "real"])
def test_one_more_layer_on_numbers_ends_spike_drive(value_class: str) -> None:
    after = row("backbone.a", 1) | {f"effective_{value_class}": 1}
    assert not audit(frame(STEM, after)).spike_driven


def test_only_the_first_layer_of_the_stem_reads_the_image() -> None:
    read = what_is_read(STEM, row("encoder.stem.3", 1, effective_real=1))
    assert read == {"encoder.stem.0": ON_IMAGE, "encoder.stem.3": CURRENTS}
    # neither does a first layer elsewhere
    assert what_is_read(row("encoder.stemmer", 0, effective_real=1)) == {
        "encoder.stemmer": CURRENTS
    }


def test_a_stem_that_runs_after_the_code_reads_the_code_and_not_the_image() -> None:
    code = row("encoder.code", 0, "code", spikes=400)
    stem = row("encoder.stem.0", 1, effective_real=9, input_nonzero=400)
    assert what_is_read(code, stem) == {"encoder.stem.0": PARTLY_ZERO}
    assert not audit(frame(code, stem)).spike_driven


NEURON = row("encoder.neuron", 1, "neuron", spikes=989)
SILENT = row("encoder.other", 2, "neuron", spikes=0)
GATE = row("encoder", 4, "gate")


@pytest.mark.parametrize(("nonzero", "read"), [(1000, CURRENTS), (990, CURRENTS), (989, GATED)])
def test_currents_are_real_numbers_of_which_at_least_99_percent_are_not_0(
    nonzero: int, read: str
) -> None:
    shortcut = row("backbone.shortcut", 5, effective_real=1, input_nonzero=nonzero)
    assert what_is_read(STEM, NEURON, GATE, shortcut)["backbone.shortcut"] == read


@pytest.mark.parametrize(
    ("nonzero", "read"),
    [
        ((100, 100), GATED),
        ((100, 98), GATED),  # 99 % of the 200 spikes
        ((100, 97), PARTLY_ZERO),
        ((100, 101), PARTLY_ZERO),  # a gate makes no spikes
    ],
)
def test_gated_spikes_are_nearly_as_many_as_a_neuron_before_emitted_over_all_steps(
    nonzero: tuple[int, int], read: str
) -> None:
    neuron = [row("encoder.neuron", 1, "neuron", step=t, spikes=100) for t in (1, 2)]
    shortcut = [
        row("backbone.shortcut", 5, step=t, effective_real=1, input_nonzero=count)
        for t, count in enumerate(nonzero, 1)
    ]
    assert what_is_read(STEM, *neuron, SILENT, GATE, *shortcut)["backbone.shortcut"] == read


def test_what_no_gate_and_no_spike_came_before_is_not_gated_spikes() -> None:
    relu = row("encoder.spatial.4", 3, effective_real=1, input_nonzero=400)
    assert what_is_read(STEM, NEURON | {"spikes": 400}, relu, GATE)["encoder.spatial.4"] == (
        PARTLY_ZERO
    )
    later = row("backbone.neuron", 6, "neuron", spikes=400)
    after_gate = relu | {"position": 5}
    assert what_is_read(STEM, GATE, after_gate, later)["encoder.spatial.4"] == PARTLY_ZERO


def test_levels_are_sums_or_means_of_spikes() -> None:
    head = row("backbone.head", 1, effective_level=5, input_nonzero=1000)
    assert what_is_read(STEM, head)["backbone.head"] == LEVELS


def test_a_cell_without_any_operation_has_no_shares() -> None:
    purity = audit(frame(row("backbone.a", 0)))
    assert purity.shares == dict.fromkeys(("binary", "signed", "level", "real"))
    assert purity.operations_per_image["binary"] == 0 and purity.layers == ()
