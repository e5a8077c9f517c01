import io
import json
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from codingbench.analysis.break_even import (
    ANN_COLUMNS,
    activation_bits,
    ann_counts,
    quantised,
    with_ann,
)
from codingbench.analysis.leaderboard import COLUMNS, GROUP, rows
from codingbench.energy import COMPARED, TECHNOLOGIES, Pricing, Technology, energy_uj
from codingbench.schema import COUNTS
from codingbench.views.energies import against_ann
from codingbench.views.markdown import to_markdown
from codingbench.views.table import render
from codingbench.views.writers import to_csv, to_json, to_svg

IMAGES = 100
Row = dict[str, Any]


def layer(name: str, step: int, kind: str = "synapse", **per_image: float) -> Row:
    counts = {count: value * IMAGES for count, value in per_image.items()}
    where = {"layer": name, "step": step, "kind": kind, "images": IMAGES, "neurons": 0, "spikes": 0}
    return where | dict.fromkeys(COUNTS, 0) | counts


# Dense operations of one step: stem 1e6, block 2e6, shortcut 3e6. At T = 4 the stem and the gate
# run once. By exact on 45nm-fp32: 4.6 + 0.92 uJ, then per step 0.45 of spikes and 0.92 uJ of MACs.
STEM = layer("encoder.stem.0", 1, effective_real=1e6, dense_real=1e6, norm_macs=10)
GATE = layer("encoder.spatial.1", 1, effective_real=2e5, dense_real=9e6, pool_ops=99, bias_adds=99)


def network(num_steps: int = 4, spikes: float = 5e5) -> list[Row]:
    per_step = [
        row
        for step in range(1, num_steps + 1)
        for row in (
            layer("backbone.convs.0", step, effective_binary=spikes, dense_binary=2e6, norm_macs=4),
            layer("backbone.shortcut.0", step, effective_real=2e5, dense_real=3e6, bias_adds=7),
            layer("backbone.convs.0", step, "residual", residual_adds=30),
            layer("backbone", step, "pool", pool_ops=200),
            layer("backbone.lif", step, "neuron", neuron_updates=50),
        )
    ]
    code = layer("encoder.code", 1, "code") | {"neurons": 100, "spikes": 25 * IMAGES}
    return [STEM, GATE, *per_step, code, code | {"step": 2, "spikes": 5 * IMAGES}]


def tables(layers: list[Row], seeds: int = 1, **cell: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compare one coding with the ANNs; each seed has the same layers."""
    by_seed = pd.DataFrame([row | {"key": f"k{s}"} for s in range(seeds) for row in layers])
    counts = by_seed.groupby("key")[[*COUNTS]].sum().reset_index()
    codes = ["encoder_code", "backbone_code", "neuron_code", "recipe_hash", "dataset_fingerprint"]
    facts: dict[str, Any] = dict.fromkeys([*GROUP, *codes], 1) | {
        "encoder": "gac",
        "seed": range(seeds),
        "num_steps": 4,
        "accuracy": 0.9,
        "selected_accuracy": 0.9,
        "evaluated_weights": "last",
        "num_classes": 10,
        "images": IMAGES,
        "parameters": 1000,
        "code_channels": 1,
        "firing_rate": 0.1,
        "finished_at": pd.Timestamp("2026-01-01", tz="UTC"),
    }
    return counts.assign(**facts | cell), by_seed


def compared(
    layers: list[Row], energy: str = "exact", technology: str = "fp32", **cell: Any
) -> pd.DataFrame:
    cells, by_layer = tables(layers, **cell)
    pricing = Pricing.of(energy, technology)
    return with_ann(rows(cells, pricing), cells, by_layer, pricing)


def only_row(*args: Any, **options: Any) -> Any:
    (row,) = compared(*args, **options).itertuples()
    return row


def test_the_ann_is_one_dense_step_of_stem_and_backbone_without_the_coding() -> None:
    (counts,) = ann_counts(tables(network())[1]).to_dict("records")
    assert {name: count for name, count in counts.items() if count} == {
        "effective_real": 6_000_000,
        "dense_real": 6_000_000,
        "paper_first_macs": 6_000_000,
        "bias_adds": 7,
        "norm_macs": 14,
        "pool_ops": 200,
        "residual_adds": 30,
        "syops_macs": 6_000_000 + 7 + 2 * 14 + 200,
    }


def test_the_ann_does_not_depend_on_the_number_of_steps() -> None:
    assert ann_counts(tables(network(1))[1]).equals(ann_counts(tables(network(8))[1]))


def test_a_layers_step_is_its_mean_over_the_steps_it_ran_at_and_only_synapses_multiply() -> None:
    late = [layer("backbone.late", step, dense_level=4e6, pool_ops=step) for step in (2, 4)]
    code = layer("backbone.lif", 1, "neuron", dense_real=5e6)
    (counts,) = ann_counts(tables([STEM, *late, code])[1]).to_dict("records")
    assert counts["dense_real"] == 5_000_000 and counts["pool_ops"] == 3


@pytest.mark.parametrize(
    ("energy", "technology", "ann_uj"),
    [
        ("exact", "fp32", 27.6),  # 4.6 pJ x 6e6
        ("paper", "fp32", 27.6),
        ("exact", "int8", 1.38),
        ("syops-like", "fp32", 27.601081),  # and 4.6 pJ x 235
        # 4.6 x (6e6 + 14) + 0.9 x (14 + 200 + 30) + 99.84 x (6e6 + 7) pJ
        ("memory", "fp32", 626.640982880),
    ],
)
def test_the_ann_is_priced_by_the_rows_convention_and_technology(
    energy: str, technology: str, ann_uj: float
) -> None:
    row = only_row(network(), energy, technology)
    assert row.ann_uj == pytest.approx(ann_uj, rel=1e-9)
    assert row.ann_ratio == pytest.approx(row.energy_uj / ann_uj, rel=1e-9)


@pytest.mark.parametrize(
    ("num_steps", "bits"), [(1, 1), (2, 2), (3, 2), (4, 3), (7, 3), (8, 4), (255, 8), (256, 8)]
)
def test_activations_have_as_many_values_as_a_rate_code_up_to_the_technologys_bits(
    num_steps: int, bits: int
) -> None:
    assert activation_bits(TECHNOLOGIES["45nm-int8"], num_steps) == bits


def test_a_multiplication_costs_in_proportion_to_the_activations_bits() -> None:
    chip = Technology("toy", mac_pj=9.0, ac_pj=1.0, bits=16, source="made up for this test")
    own = quantised(chip, 4)
    assert own.mac_pj == pytest.approx(2.5)  # 8 pJ x 3 / 16 + 1 pJ
    assert (own.ac_pj, own.bits, own.byte_pj) == (1.0, 16, chip.byte_pj)
    assert quantised(chip, 2**20) == chip


def test_the_quantised_ann_has_bits_that_follow_from_t() -> None:
    row = only_row(network())
    # (3.7 pJ x 3 / 32 + 0.9 pJ) x 6e6
    assert row.ann_bits == 3 and row.qann_uj == pytest.approx(7.48125)
    assert only_row(network(8), num_steps=8).ann_bits == 4


def test_the_break_even_rate_is_where_the_price_of_spikes_makes_up_the_difference() -> None:
    # fixed 4.6 + 0.92 + 4 x 0.92 = 9.2 uJ; spikes 4 x 0.45 = 1.8 uJ at a rate of 0.1
    row = only_row(network())
    assert row.energy_uj == pytest.approx(11.0) and row.fixed_uj == pytest.approx(9.2)
    assert row.ann_break_even_rate == pytest.approx((27.6 - 9.2) / 18)  # 1.02: at any rate
    assert pd.isna(row.qann_break_even_rate)  # 7.48 uJ < 9.2 uJ
    costly = only_row(network(spikes=2e6))
    assert costly.ann_break_even_rate == pytest.approx((27.6 - 9.2) / 72)


@pytest.mark.parametrize("energy", COMPARED)
def test_at_the_break_even_rate_both_cost_the_same_by_any_convention(energy: str) -> None:
    driven = {"zero_weight_acs": 2e6, "paper_acs": 4e6, "syops_acs": 5e6}
    driven |= {"effective_binary": 9e6, "effective_signed": 3e6}
    layers = [row for row in network() if row is not GATE and "shortcut" not in row["layer"]]
    for row in layers:
        if row["effective_binary"]:
            row |= driven
    row = only_row(layers, energy)
    scale = row.ann_break_even_rate / 0.1
    faster = [old | {name: old[name] * scale for name in driven} for old in layers]
    total = {name: sum(row[name] for row in faster) for name in COUNTS} | {"images": IMAGES}
    assert energy_uj(total, energy) == pytest.approx(row.ann_uj, rel=1e-9)


def test_a_network_that_never_spiked_has_no_break_even_rate() -> None:
    row = only_row(network(spikes=0), firing_rate=0.0)
    assert row.ann_uj > row.fixed_uj and pd.isna(row.ann_break_even_rate)
    assert "| 9.20 | 27.6 | 0.33 | — | 3 | 7.48 | 1.23 | never |" in to_markdown(
        against_ann(compared(network(spikes=0), firing_rate=0.0))
    )


def test_energies_are_means_over_seeds() -> None:
    table = compared(network(), seeds=2, firing_rate=[0.05, 0.15])
    assert table["seeds"].tolist() == [2]
    assert table["ann_break_even_rate"].tolist() == pytest.approx([18.4 / 18])


def test_every_format_has_both_anns() -> None:
    table = compared(network(spikes=2e6))
    view = against_ann(table)
    (row,) = json.loads(to_json(table))
    assert list(row) == [*COLUMNS, *ANN_COLUMNS]
    assert row["input_density"] == pytest.approx(0.15)  # 25 + 5 of 2 x 100 values
    assert row["ann_bits"] == 3 and row["qann_break_even_rate"] is None
    assert to_csv(table).splitlines()[0] == ",".join([*COLUMNS, *ANN_COLUMNS])
    markdown = to_markdown(view)
    assert "| gac | 4 | 1† | 90 | 10.00 | 15.0 | 16.4 | 27.6 | 0.59 | 25.6 | 3 | 7.48 | 2.19 |" in (
        markdown
    )
    assert "- QANN: the same with activations of ceil(log2(T+1)) bits" in markdown
    assert (
        "our assumption: the energy of a multiplication is proportional to these bits (of 32)"
        in (markdown)
    )
    assert "25.6" in to_svg(view)


@pytest.mark.parametrize(("spikes", "text"), [(5e5, "any"), (2e6, "25.6")])
def test_a_rate_above_one_is_shown_as_any(spikes: float, text: str) -> None:
    row = to_markdown(against_ann(compared(network(spikes=spikes)))).split("| gac ")[1]
    assert row.split(" | ")[8] == text


@pytest.mark.parametrize("width", [80, 100])
def test_both_anns_fit_a_terminal_without_cutting_a_name(width: int) -> None:
    label = "latency[scale=log,top=0.05]"
    console = Console(file=io.StringIO(), width=width)
    console.print(render(against_ann(compared(network(), encoder=label, seeds=2))))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width and "…" not in text
    first, *others = text.split("─\n")[1].splitlines()
    lines = [line for line in others if line[-9:] == " " * 9]
    folded = [line.split()[0] for line in (first, *lines) if line[0] != " "]
    assert "".join(folded) == label
