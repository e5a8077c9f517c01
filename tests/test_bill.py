import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

import codingbench as cb
from codingbench.analysis.bill import BILL_COLUMNS, part_of, with_bill
from codingbench.analysis.break_even import ann_counts
from codingbench.analysis.leaderboard import COLUMNS, rows
from codingbench.energy import COMPARED, CONVENTIONS, Pricing
from codingbench.schema import COUNTS
from codingbench.views.energies import encoder_bill, sentences
from codingbench.views.markdown import to_markdown
from codingbench.views.table import render
from codingbench.views.writers import to_csv, to_json, to_svg

REFERENCE = Path(__file__).parents[1] / "results" / "reference" / "field"
IMAGES = 100
NONE = dict.fromkeys(COUNTS, 0)
Row = dict[str, Any]


def layer(name: str, step: int, **per_image: float) -> Row:
    counts = {count: value * IMAGES for count, value in per_image.items()}
    name, _, kind = name.partition("#")
    row = {"layer": name, "step": step, "kind": kind or "synapse", "images": IMAGES}
    return row | NONE | counts


def at_every_step(name: str, num_steps: int, **per_image: float) -> list[Row]:
    return [layer(name, step, **per_image) for step in range(1, num_steps + 1)]


# At T = 4 on 45nm-fp32 by exact: stem 4.6 uJ once; gac's gate 9.2 uJ once and 0.9 uJ per step;
# backbone 1.8 uJ per step.
STEM = [layer("encoder.stem.0", 1, effective_real=1e6, paper_first_macs=1.5e6)]
BACKBONE = at_every_step("backbone.blocks.0.convs.0", 4, effective_binary=2e6, paper_acs=2.5e6)
GATE = [
    layer("encoder.spatial.1", 1, effective_real=1.5e6, dense_real=3e6),
    layer("encoder#gate", 1, gate_muls=5e5),
    *at_every_step("encoder", 4, effective_binary=1e6),
]
DIRECT = [*STEM, *BACKBONE]
GAC = [*STEM, *GATE, *BACKBONE]


def run(encoder: str, seed: int, accuracy: float, layers: list[Row], **values: Any) -> list[Row]:
    """Return the layers of a cell, each with the values of the cell."""
    coordinates = {
        "dataset": "digits",
        "backbone": "csnn",
        "neuron": "default",
        "num_steps": 4,
        "recipe": "quick",
        "epochs": 4,
        "batch_size": 50,
        "micro_batch": 50,
        "train_samples": 1437,
        "test_samples": IMAGES,
        "precision": "fp32",
        "encoder": encoder,
        "seed": seed,
    } | values
    key = "-".join(map(str, coordinates.values()))
    accuracies = {"accuracy": accuracy, "selected_accuracy": accuracy}
    return [coordinates | row | {"key": key, **accuracies} for row in layers]


def tables(*runs: list[Row]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the tables cells and layers; the counts of a cell are the sums over its layers."""
    layers = pd.DataFrame([row for rows in runs for row in rows])
    grouped = layers.groupby("key")
    cells = grouped.first()
    cells[[*COUNTS]] = grouped[[*COUNTS]].sum()
    codes = ("encoder_code", "backbone_code", "neuron_code", "recipe_hash", "dataset_fingerprint")
    return cells.reset_index().assign(
        **dict.fromkeys(codes, "1"),
        finished_at=pd.Timestamp("2026-01-01", tz="UTC"),
        num_classes=10,
        evaluated_weights="last",
        parameters=1000,
        code_channels=1,
        firing_rate=0.1,
    ), layers


def billed(*runs: list[Row], energy: str = "exact", technology: str = "fp32") -> pd.DataFrame:
    cells, layers = tables(*runs)
    pricing = Pricing.of(energy, technology)
    table = rows(cells, pricing)
    return with_bill(table, cells, layers, pricing)


def by_encoder(table: pd.DataFrame) -> dict[str, Any]:
    return {str(row.encoder): row for row in table.itertuples()}


def said(*runs: list[Row]) -> list[str]:
    return list(sentences(billed(*runs)))


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("encoder.stem.0", "stem"),
        ("encoder.stem", "stem"),
        ("encoder.stemless", "coding"),
        ("encoder.spatial.1", "coding"),
        ("encoder", "coding"),
        ("backbone", "backbone"),
        ("encoder:fft", "coding"),  # computed by the module itself
        ("encoder.filter:fft", "coding"),
        ("encoder.stem:mul", "stem"),
        ("backbone.head:matmul", "backbone"),
        ("encoder_like.x", "backbone"),
    ],
)
def test_a_layer_is_the_stems_the_codings_or_the_backbones(name: str, part: str) -> None:
    assert part_of(name) == part


def test_energy_is_split_between_stem_coding_and_backbone() -> None:
    row = by_encoder(billed(run("gac", 0, 0.9, GAC)))["gac"]
    assert row.stem_uj == pytest.approx(4.6)
    assert row.coding_uj == pytest.approx(9.2 + 4 * 0.9)
    assert row.backbone_uj == pytest.approx(4 * 1.8)
    assert row.energy_uj == pytest.approx(24.6)
    assert row.encoder_share == pytest.approx(17.4 / 24.6)
    # 90 % for 0.0246 mJ
    assert row.points_per_mj == pytest.approx(3658.536585)


@pytest.mark.parametrize("technology", ["45nm-fp32", "45nm-int8"])
@pytest.mark.parametrize("energy", CONVENTIONS)
def test_the_parts_sum_to_the_leaderboards_energy_by_any_convention(
    energy: str, technology: str
) -> None:
    many = [layer("encoder.stem.0", 1, **dict.fromkeys(COUNTS, 3e5))]
    many += at_every_step("encoder#pool", 4, **dict.fromkeys(COUNTS, 7e5))
    many += at_every_step("backbone.head", 4, **dict.fromkeys(COUNTS, 2e5))
    runs = [run("gac", seed, 0.9, [*GAC, *many]) for seed in (0, 1)]
    table = billed(*runs, energy=energy, technology=technology)
    parts = table[["stem_uj", "coding_uj", "backbone_uj"]]
    assert (parts > 0).all(axis=None)
    assert parts.sum(axis=1).tolist() == pytest.approx(table["energy_uj"].tolist(), rel=1e-12)
    assert table["technology"].tolist() == [technology if energy in COMPARED else energy]


def test_parts_are_means_over_seeds() -> None:
    double = [row | {name: 2 * row[name] for name in COUNTS} for row in GAC]
    row = by_encoder(billed(run("gac", 0, 0.9, GAC), run("gac", 1, 0.9, double)))["gac"]
    assert row.stem_uj == pytest.approx(6.9) and row.energy_uj == pytest.approx(36.9)


def test_repeated_means_that_what_runs_once_runs_at_every_step() -> None:
    rate = [*at_every_step("encoder.stem.0", 4, effective_binary=1e6), *BACKBONE]
    table = by_encoder(billed(run("gac", 0, 0.9, GAC), run("rate", 0, 0.8, rate)))
    # stem 4.6 and gate 9.2 four times, the gate's 0.9 per step as it was
    assert table["gac"].encoder_repeated_uj == pytest.approx(4 * (4.6 + 9.2) + 4 * 0.9)
    assert table["rate"].encoder_repeated_uj == pytest.approx(4 * 0.9) == table["rate"].stem_uj


def test_at_one_step_nothing_is_repeated() -> None:
    once = [row for row in GAC if row["step"] == 1]
    (row,) = billed(run("gac", 0, 0.9, once, num_steps=1)).itertuples()
    assert row.encoder_repeated_uj == pytest.approx(4.6 + 9.2 + 0.9)


def test_the_papers_formula_counts_the_first_layer_once_even_repeated() -> None:
    (row,) = billed(run("direct", 0, 0.9, DIRECT), energy="paper").itertuples()
    assert row.stem_uj == pytest.approx(6.9) and row.encoder_repeated_uj == pytest.approx(6.9)


def test_a_coding_without_an_encoder_layer_costs_nothing_there() -> None:
    (row,) = billed(run("bare", 0, 0.9, BACKBONE)).itertuples()
    assert (row.stem_uj, row.coding_uj, row.encoder_repeated_uj) == (0, 0, 0)
    assert row.encoder_share == 0


def test_differences_are_paired_over_the_seeds_that_both_have() -> None:
    table = by_encoder(
        billed(
            *(run("direct", seed, a, DIRECT) for seed, a in enumerate((0.80, 0.70, 0.10))),
            *(run("gac", seed, a, GAC) for seed, a in ((3, 0.20), (1, 0.76), (0, 0.82))),
        )
    )
    gac, direct = table["gac"], table["direct"]
    assert gac.shared_seeds == 2
    assert gac.accuracy_delta == pytest.approx(0.04)  # 0.02 and 0.06
    assert gac.accuracy_delta_std == pytest.approx(0.028284271)  # 0.04 / sqrt(2)
    assert gac.energy_delta_uj == pytest.approx(9.2 + 3.6)
    assert pd.isna(direct.accuracy_delta) and pd.isna(direct.shared_seeds)
    assert pd.isna(direct.energy_delta_uj)


@pytest.mark.parametrize(
    "elsewhere", [{"num_steps": 8}, {"backbone": "resnet18"}, {"epochs": 300}, {"dataset": "mnist"}]
)
def test_only_direct_of_the_same_group_and_steps_is_compared_with(elsewhere: Row) -> None:
    table = billed(run("gac", 0, 0.9, GAC), run("direct", 0, 0.8, DIRECT, **elsewhere))
    gac = by_encoder(table)["gac"]
    assert pd.isna(gac.accuracy_delta) and pd.isna(gac.shared_seeds)
    lines = list(sentences(table[table["encoder"] == "gac"]))
    assert lines == ["Nothing to compare with at T=4: there are no results of direct."]


def test_direct_with_parameters_is_a_coding_like_any_other() -> None:
    (line,) = said(
        run("direct", 0, 0.8, DIRECT), run("direct[spiking=false]", 0, 0.9, [*DIRECT, *GATE])
    )
    assert line.startswith("direct[spiking=false] at T=4: +10 points for 12.8 µJ more")


# Accuracies of gac at seeds 0 and 1; direct has 0.80 at both, and costs 12.8 uJ less.
@pytest.mark.parametrize(
    ("accuracies", "line"),
    [
        ([0.83, 0.85], "gac at T=4: +4.00 ± 1.41 points for 12.8 µJ more per image than "
         "direct (2 seeds)"),
        ([0.79, 0.83], "gac at T=4: +1.00 ± 2.83 points for 12.8 µJ more per image than direct "
         "(2 seeds)"),
        ([0.77, 0.75], "gac at T=4: -4.00 ± 1.41 points for 12.8 µJ more per image than direct "
         "(2 seeds)"),
        ([0.80, 0.80], "gac at T=4: +0.00 ± 0.00 points for 12.8 µJ more per image than direct "
         "(2 seeds)"),
        ([0.79, 0.81], "gac at T=4: +0.00 ± 1.41 points for 12.8 µJ more per image than direct "
         "(2 seeds)"),
        ([0.83], "gac at T=4: +3 points for 12.8 µJ more per image than direct "
         "(1 seed, spread unknown)"),
    ],
)  # fmt: skip
def test_what_a_coding_gains_stands_beside_its_price(accuracies: list[float], line: str) -> None:
    direct = [run("direct", seed, 0.80, DIRECT) for seed in range(2)]
    assert said(*direct, *(run("gac", s, a, GAC) for s, a in enumerate(accuracies))) == [line]


def test_a_cheaper_coding_is_said_to_cost_less_and_an_equal_one_the_same() -> None:
    cheap = [*STEM, *at_every_step("backbone.blocks.0.convs.0", 4, effective_binary=1e6)]
    first, second = said(
        run("direct", 0, 0.8, DIRECT), run("rate", 0, 0.6, cheap), run("twin", 0, 0.7, DIRECT)
    )
    assert first == (
        "twin at T=4: -10 points for the same energy per image as direct (1 seed, spread unknown)"
    )
    assert second == (
        "rate at T=4: -20 points for 3.60 µJ less per image than direct (1 seed, spread unknown)"
    )


def test_without_a_shared_seed_nothing_is_compared() -> None:
    table = billed(run("direct", 0, 0.8, DIRECT), run("gac", 1, 0.9, GAC))
    assert by_encoder(table)["gac"].shared_seeds == 0
    assert pd.isna(by_encoder(table)["gac"].energy_delta_uj)
    assert list(sentences(table)) == [
        "gac at T=4 has no seed in common with direct, so they cannot be compared."
    ]


def test_every_format_has_the_bill() -> None:
    table = billed(run("direct", 0, 0.80, DIRECT), run("gac", 0, 0.83, GAC))
    view = encoder_bill(table)
    gac, direct = json.loads(to_json(table))
    assert list(gac) == [*COLUMNS, *BILL_COLUMNS]
    assert gac["shared_seeds"] == 1 and isinstance(gac["shared_seeds"], int)
    assert gac["accuracy_delta_std"] is None
    assert direct["shared_seeds"] is None and direct["accuracy_delta"] is None
    assert to_csv(table).splitlines()[0] == ",".join([*COLUMNS, *BILL_COLUMNS])
    row = "| gac | 4 | 1† | 83 | 4.60 | 12.8 | 7.20 | 24.6 | 70.7 | 58.8 | 3,374 |"
    sentence = (
        "gac at T=4: +3 points for 12.8 µJ more per image than direct (1 seed, spread unknown)"
    )
    markdown = to_markdown(view)
    assert row in markdown and f"- {sentence}\n" in markdown
    assert "µJ per image by the energy convention exact; n: number of seeds" in markdown
    assert sentence.replace(" ", "&#160;") in to_svg(view)


@pytest.mark.parametrize("width", [80, 100])
def test_the_bill_fits_a_terminal_without_cutting_a_name(width: int) -> None:
    label = "latency[scale=log,top=0.05]"
    runs = [run(label, seed, 0.80 + 0.01 * seed, GAC) for seed in range(2)]
    console = Console(file=io.StringIO(), width=width)
    console.print(render(encoder_bill(billed(*runs))))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width and "…" not in text
    first, *others = text.split("─\n")[1].splitlines()
    folded = [first.split()[0], *(line.strip() for line in others if line[-9:] == " " * 9)]
    assert "".join(folded) == label


def test_the_transforms_of_a_coding_are_billed_to_it_and_no_ann_pays_for_them() -> None:
    cell = cb.load(REFERENCE).layers.query("encoder == 'lowpass' and seed == 0")
    transforms = cell[cell["layer"] == "encoder:fft"]
    assert transforms["effective_real"].sum() == 192_000 * 10_000
    billed = cb.load(REFERENCE).leaderboard(bill=True).set_index("encoder").loc["lowpass"]
    assert billed["coding_uj"] == pytest.approx(192_000 * 4.6e-6, rel=1e-6)
    counts = ann_counts(cell)["effective_real"]
    assert counts.tolist() == ann_counts(cell.drop(transforms.index))["effective_real"].tolist()
