import csv
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest
from rich.console import Console

from codingbench.analysis.leaderboard import COLUMNS, best_rows, rows
from codingbench.energy import Pricing
from codingbench.errors import SpecError
from codingbench.runtime.formatting import three_digits
from codingbench.views.finished import failed_line
from codingbench.views.leaderboard import ranking
from codingbench.views.markdown import to_markdown
from codingbench.views.table import render
from codingbench.views.writers import to_csv, to_json, to_svg


def cell(encoder: str, seed: int, accuracy: float, **values: Any) -> dict[str, Any]:
    defaults = {
        "key": f"{encoder}-{seed}",
        "dataset": "digits",
        "encoder": encoder,
        "backbone": "vgg5",
        "neuron": "default",
        "num_steps": 4,
        "recipe": "quick",
        "epochs": 20,
        "batch_size": 64,
        "micro_batch": 64,
        "train_samples": 1437,
        "test_samples": 360,
        "precision": "fp32",
        "seed": seed,
        "accuracy": accuracy,
        "selected_accuracy": accuracy,
        "evaluated_weights": "last",
        "num_classes": 10,
        "images": 360,
        "parameters": 1_234_567,
        "code_channels": 1,
        "firing_rate": 0.125,
        "effective_binary": 360_000_000,  # a million per image
        "effective_signed": 0,
        "effective_level": 0,
        "gate_muls": 0,
        "effective_real": 36_000_000,
        "paper_first_macs": 0,
        "paper_acs": 720_000_000.0,
        "finished_at": pd.Timestamp("2026-01-01", tz="UTC"),
        "encoder_code": "e1",
        "backbone_code": "b1",
        "neuron_code": None,
        "recipe_hash": "r1",
        "dataset_fingerprint": "d1",
    }
    return defaults | values


def frame(*cells: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(list(cells))


APART = (0.90, 0.91, 0.92, 0.50, 0.51, 0.52)
"""Accuracies of three seeds of two rows that differ significantly."""

THREE_SEEDS = [cell("gac", seed, accuracy) for seed, accuracy in enumerate((0.80, 0.83, 0.86))]


def printed(table: pd.DataFrame, width: int = 80, failed: Sequence[str] = ()) -> str:
    console = Console(file=io.StringIO(), width=width)
    view = ranking(table)
    legend = [*view.legend, *failed_line(failed)]
    console.print(render(replace(view, legend=legend)))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_of_many_rows_a_table_shows_the_first_and_says_how_many_more() -> None:
    table = rows(frame(*(cell(f"rate[gain={n}]", 0, n / 1000) for n in range(1, 503))))
    text = printed(table, width=100)
    assert "rate[gain=502]" in text and "rate[gain=3]" in text  # the 500 best
    assert "rate[gain=2]" not in text
    assert "2 more rows: --format csv or json has all" in text
    assert len(to_csv(table).splitlines()) == 1 + 502


def test_seeds_are_averaged_with_their_sample_deviation() -> None:
    (row,) = rows(frame(*THREE_SEEDS)).to_dict("records")
    assert row["seeds"] == 3
    assert row["accuracy"] == pytest.approx(0.83)
    assert row["accuracy_std"] == pytest.approx(0.03)  # sqrt((0.03^2 + 0 + 0.03^2) / 2)
    assert row["chance"] == 0.1 and row["above_chance"]
    assert row["keys"] == ["gac-0", "gac-1", "gac-2"]


def test_energy_is_priced_by_the_requested_convention() -> None:
    # per image 0.9 pJ x 1e6 + 4.6 pJ x 1e5 = 1.36 uJ; the paper's 0.9 pJ x 2e6 = 1.8 uJ
    assert rows(frame(*THREE_SEEDS), Pricing.of("exact"))["energy_uj"].tolist() == pytest.approx(
        [1.36]
    )
    assert rows(frame(*THREE_SEEDS), Pricing.of("paper"))["energy_uj"].tolist() == pytest.approx(
        [1.8]
    )


def test_a_technology_brings_its_prices_and_its_name() -> None:
    # int8, per image: 0.03 pJ x 1e6 + 0.23 pJ x 1e5 = 0.053 uJ
    table = rows(frame(*THREE_SEEDS), Pricing.of(technology="int8"))
    assert table["energy_uj"].tolist() == pytest.approx([0.053])
    assert table[["energy_convention", "technology"]].values.tolist() == [["exact", "45nm-int8"]]
    assert rows(frame(*THREE_SEEDS))["technology"].tolist() == ["45nm-fp32"]


def test_a_convention_and_a_technology_from_a_file_are_shown_by_their_names(
    tmp_path: Path,
) -> None:
    (tmp_path / "own.py").write_text(
        "from codingbench.energy import Convention, Technology\n"
        "def price(counts, chip):\n    return chip.mac_pj * counts['effective_real']\n"
        "real = Convention('real-only', 'MACs alone', 'made up', price)\n"
        "toy = Technology('toy-chip', 10.0, 1.0, 8, 'made up')\n"
    )
    names = (f"{tmp_path / 'own.py'}:real", f"{tmp_path / 'own.py'}:toy")
    table = rows(frame(*THREE_SEEDS), Pricing.of(*names))
    assert table["energy_uj"].tolist() == [1.0]  # 10 pJ x 1e5
    assert table[["energy_convention", "technology"]].values.tolist() == [["real-only", "toy-chip"]]
    console = Console(file=io.StringIO(), width=100)
    console.print(render(ranking(table, Pricing.of(*names))))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "(real-only)" in text and "own.py" not in text
    line = "energy (real-only): MACs alone; toy-chip, 10.0 pJ per MAC, 1.0 pJ per AC\n"
    assert text.endswith(line)


@pytest.mark.parametrize(("energy", "is_priced"), [("memory", True), ("exact", False)])
def test_the_price_of_a_byte_is_shown_where_memory_is_priced(energy: str, is_priced: bool) -> None:
    *_, line = ranking(rows(frame(*THREE_SEEDS)), Pricing.of(energy, "fp16")).legend
    assert "45nm-fp16, 1.5 pJ per MAC, 0.4 pJ per AC" in line
    assert line.endswith(", 24.96 pJ per byte") is is_priced


def test_one_seed_has_no_spread_and_says_so() -> None:
    table = rows(frame(cell("rate", 0, 0.5)))
    assert math.isnan(table["accuracy_std"].iloc[0])
    assert "† One seed only, so the spread between seeds is unknown." in printed(table)
    assert "50.0" in printed(table) and " 1† " in printed(table)
    assert "One seed only" not in printed(rows(frame(*THREE_SEEDS)))


def test_one_seed_has_no_interval_and_no_rank_by_accuracy_and_says_what_to_do() -> None:
    table = rows(frame(cell("rate", 0, 0.5), cell("gac", 0, 0.9), cell("gac", 1, 0.8)))
    assert table["encoder"].tolist() == ["gac", "rate"]
    assert json.loads(to_json(table[["rank", "accuracy_low"]]))[1] == dict.fromkeys(
        ["rank", "accuracy_low"]
    )
    text = printed(table)
    assert re.search(r"^   — rate +4 +1† +50.0 +— ", text, re.MULTILINE)
    assert "Rows with a single seed have no rank. To add seeds:\n" in text
    assert "have no rank" not in printed(rows(frame(*THREE_SEEDS)))
    assert rows(frame(cell("rate", 0, 0.5)), sort="energy")["rank"].tolist() == [1]


def test_the_interval_and_the_accuracy_that_validation_selects_stand_beside_the_mean() -> None:
    chosen = [row | {"selected_accuracy": row["accuracy"] - 0.02} for row in THREE_SEEDS]
    table = rows(frame(*chosen))
    # t of 2 degrees of freedom is 4.302653; 4.302653 x 0.03 / sqrt 3 = 0.074524
    assert table["accuracy_low"].tolist() == pytest.approx([0.83 - 0.074524], abs=1e-6)
    assert table["accuracy_high"].tolist() == pytest.approx([0.83 + 0.074524], abs=1e-6)
    assert table["selected_accuracy"].tolist() == pytest.approx([0.81])
    assert "83.00 ± 3.00 75.5-90.5  12.50     1.36    81.00" in printed(table)


@pytest.mark.parametrize(
    ("images", "text"), [(100, " 51 "), (360, " 51.2 "), (1000, " 51.2 "), (10000, "51.23")]
)
def test_one_run_shows_no_more_decimals_than_its_test_images_resolve(
    images: int, text: str
) -> None:
    assert text in printed(rows(frame(cell("rate", 0, 0.51234, images=images))))


def test_the_best_accuracy_comes_first_and_equals_go_by_name() -> None:
    cells = [cell(name, 0, a) for name, a in (("d", 0.7), ("b", 0.8), ("c", 0.9), ("a", 0.8))]
    assert rows(frame(*cells))["encoder"].tolist() == ["c", "a", "b", "d"]


def test_by_a_cost_equal_values_share_a_rank_and_nothing_is_tested() -> None:
    rates = (("d", 0.3), ("b", 0.2), ("c", 0.1), ("a", 0.2))
    table = rows(frame(*(cell(e, 0, 0.5, firing_rate=r) for e, r in rates)), sort="firing-rate")
    assert table["encoder"].tolist() == ["c", "a", "b", "d"]
    assert table["rank"].tolist() == [1, 2, 2, 4]
    assert set(table["rank_basis"]) == {"value"} and "significantly" not in printed(table)


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("accuracy", ["x8", "x4", "y4"]),
        ("energy", ["y4", "x4", "x8"]),
        ("firing-rate", ["x8", "y4", "x4"]),
        ("parameters", ["x4", "x8", "y4"]),
        ("T", ["x4", "y4", "x8"]),
        ("encoder", ["x4", "x8", "y4"]),
    ],
)
def test_sorting_puts_high_accuracy_or_low_cost_first(sort: str, expected: list[str]) -> None:
    table = rows(
        frame(
            cell("y", 0, 0.7, firing_rate=0.2, effective_real=1, parameters=9),
            cell("x", 0, 0.9, firing_rate=0.1, effective_real=3, parameters=5, num_steps=8),
            cell("x", 1, 0.8, firing_rate=0.3, effective_real=2, parameters=5),
        ),
        sort=sort,
    )
    assert [f"{row.encoder}{row.num_steps}" for row in table.itertuples()] == expected


@pytest.mark.parametrize(
    "difference",
    [
        {"dataset": "cifar10"},
        {"train_samples": 100},
        {"test_samples": 100},
        {"recipe": "standard"},
        {"epochs": 300},
        {"batch_size": 128},
        {"precision": "bf16"},
        {"backbone": "resnet18"},
    ],
)
def test_rows_of_different_conditions_are_never_ranked_against_each_other(
    difference: dict[str, Any],
) -> None:
    table = rows(frame(cell("gac", 0, 0.9), cell("rate", 0, 0.8, **difference)), sort="energy")
    assert table["rank"].tolist() == [1, 1]
    both = [
        cell(*run, accuracy, **(difference if run[0] == "rate" else {}))
        for run, accuracy in zip(product(("gac", "rate"), range(3)), APART, strict=True)
    ]
    assert rows(frame(*both))["rank"].tolist() == [1, 1]
    assert printed(table).count("rank ") == 2


def test_only_the_newest_of_two_cells_with_the_same_coordinates_counts() -> None:
    day = [pd.Timestamp(f"2026-01-0{day}", tz="UTC") for day in (1, 2, 3)]
    cells = [
        cell("gac", 0, 0.5, key="middle", finished_at=day[1]),
        cell("gac", 0, 0.9, key="newest", finished_at=day[2]),
        cell("gac", 0, 0.1, key="oldest", finished_at=day[0]),
    ]
    table = rows(frame(*cells))
    assert table[["accuracy", "seeds", "superseded"]].values.tolist() == [[0.9, 1, 2]]
    assert table["keys"].tolist() == [["newest"]]
    assert "Left out: 2 older cells of the same coordinates, with older code." in printed(table)


def test_rows_that_evaluated_a_mean_of_the_weights_are_named() -> None:
    said = "evaluated the exponential mean of the weights over training steps."
    means = [row | {"evaluated_weights": "mean"} for row in THREE_SEEDS]
    table = rows(frame(*means))
    assert table["evaluated_weights"].tolist() == ["mean"]
    assert f"All rows {said}" in printed(table)
    other = cell("rate", 0, 0.5)
    assert f"1 of 2 rows {said}" in printed(rows(frame(*means, other)))
    plain = rows(frame(*THREE_SEEDS))
    assert plain["evaluated_weights"].tolist() == ["last"] and said not in printed(plain)


def test_seeds_of_different_code_are_marked() -> None:
    mixed = [THREE_SEEDS[0], THREE_SEEDS[1], THREE_SEEDS[2] | {"encoder_code": "e2"}]
    assert "§ The seeds were not all run with the same code" in printed(rows(frame(*mixed)))
    assert "§" not in printed(rows(frame(*THREE_SEEDS)))


# 10 % of 360 images: one standard deviation is sqrt(0.1 x 0.9 / 360) = 1.5811 %, three 4.7434 %.
@pytest.mark.parametrize(("accuracy", "above"), [(0.1474, False), (0.1475, True), (0.0, False)])
def test_an_accuracy_within_three_deviations_of_chance_is_marked(
    accuracy: float, above: bool
) -> None:
    table = rows(frame(cell("rate", 0, accuracy)))
    assert table["above_chance"].tolist() == [above]
    assert ("‡ Not above chance" in printed(table)) is not above


def test_the_leaderboard_can_be_restricted_to_one_data_set() -> None:
    cells = frame(cell("gac", 0, 0.9), cell("gac", 0, 0.8, dataset="cifar10"))
    assert rows(cells, dataset="cifar10")["accuracy"].tolist() == [0.8]
    with pytest.raises(SpecError, match=r"'cifar'; did you mean 'cifar10'\? .*cifar10, digits"):
        rows(cells, dataset="cifar")


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"convention": "exakt"}, "unknown energy convention 'exakt'; did you mean 'exact'"),
        ({"technology": "int9"}, "unknown technology 'int9'; did you mean 'int8'"),
    ],
)
def test_an_unknown_pricing_names_the_nearest(choice: dict[str, str], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Pricing.of(**choice)


def test_an_unknown_sort_names_the_nearest() -> None:
    with pytest.raises(SpecError, match="unknown sort 'energie'; did you mean 'energy'"):
        rows(frame(*THREE_SEEDS), sort="energie")


def test_no_cells_make_no_rows() -> None:
    table = rows(frame(*THREE_SEEDS).iloc[:0])
    assert table.empty and table.columns.tolist() == list(COLUMNS)


LONG = "latency[scale=log,threshold=0.05]"
WIDE = [cell(LONG, seed, 0.8 + 0.01 * seed, parameters=134_567_890) for seed in range(2)]


@pytest.mark.parametrize(
    ("width", "folded"),
    [
        (80, ["latency", "[scale=log,", "threshold=", "0.05]"]),
        (86, ["latency", "[scale=log,", "threshold=0.05]"]),
    ],
)
def test_a_narrow_table_folds_names_at_their_joints_and_cuts_nothing(
    width: int, folded: list[str]
) -> None:
    table = rows(frame(*WIDE))
    text = printed(table, width=width)
    assert max(map(len, text.splitlines())) <= width and "…" not in text
    assert "80.50 ± 0.71" in text and "134,567,890" in text
    row = text.split("─\n")[1].split("Run with code")[0]
    assert [line[5:].split()[0] for line in row.splitlines() if line[5:6].strip()] == folded
    assert LONG in printed(table, width=140)


def coloured(table: pd.DataFrame) -> str:
    console = Console(
        file=io.StringIO(),
        width=80,
        force_terminal=True,
        color_system="standard",
        no_color=False,
    )
    console.print(render(ranking(table)))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_pipe_gets_no_colour_codes_and_a_terminal_does() -> None:
    runs = zip(product(("gac", "rate"), range(3)), APART, strict=True)
    table = rows(frame(*(cell(*run, accuracy) for run, accuracy in runs)))
    assert "\x1b" not in printed(table)
    assert re.search(r"\x1b\[1;32m *91\.00 ± 1\.00", coloured(table))
    assert not re.search(r"\x1b\[1;32m *51\.00", coloured(table))


def test_neither_one_run_nor_the_better_of_two_without_a_significant_difference_is_emphasised() -> (
    None
):
    lucky = cell("lucky", 0, 0.99, firing_rate=0.01)
    text = coloured(rows(frame(lucky, *THREE_SEEDS, cell("rate", 0, 0.84), cell("rate", 1, 0.81))))
    assert "99.0" in text and "\x1b[1;32m" not in text


def test_only_the_highest_mean_is_emphasised_and_only_if_it_is_ahead_of_the_second() -> None:
    """The rows of a and b do not differ, and both are far ahead of c."""
    three = {"a": (0.90, 0.91, 0.92), "b": (0.90, 0.92, 0.91), "c": (0.50, 0.51, 0.52)}
    cells = {
        name: [cell(name, seed, accuracy) for seed, accuracy in enumerate(accuracies)]
        for name, accuracies in three.items()
    }
    assert best_rows(rows(frame(*cells["a"], *cells["b"], *cells["c"])), "accuracy") == set()
    assert best_rows(rows(frame(*cells["c"], *cells["b"])), "accuracy") == {0}
    assert best_rows(rows(frame(*cells["a"])), "accuracy") == set()


def test_the_hint_for_more_seeds_repeats_what_the_rows_were_run_with(tmp_path: Path) -> None:
    own = {"epochs": 1, "recipe": "modern", "precision": "bf16", "train_samples": 500}
    names = ("gac", "latency[scale=log]")
    cells = [cell(name, 0, 0.5, num_steps=T, **own) for name in names for T in (2, 4)]
    cells += [cell("rate", 0, 0.4, **own)]
    view = ranking(rows(frame(*cells)), folder=tmp_path / "my results")
    hint, first, second, *_ = view.notes(view.frame)
    rest = (
        "--seeds 3 --recipe modern --epochs 1 --batch-size 64 --micro-batch 64 --train-samples 500 "
        f"--test-samples 360 --precision bf16 --results '{tmp_path / 'my results'}'"
    )
    assert hint == "Rows with a single seed have no rank. To add seeds:"
    run = "codingbench run --encoders"
    assert first.strip() == (
        f"{run} 'gac,latency[scale=log]' --backbones vgg5 --dataset digits --T 2,4 {rest}"
    )
    assert second.strip() == f"{run} rate --backbones vgg5 --dataset digits --T 4 {rest}"


def test_the_hint_names_the_default_folder_and_more_than_eight_rows_by_nothing() -> None:
    table = rows(frame(*(cell(f"rate[gain={number}]", 0, 0.5) for number in range(1, 10))))
    hint, command, *_ = ranking(table).notes(table)
    assert hint == "Rows with a single seed have no rank. To add seeds to the first 8 of them:"
    assert "--results" not in command and command.count("rate[gain=") == 8


def test_a_table_of_single_seeds_has_neither_ranks_nor_intervals_nor_spreads() -> None:
    text = printed(rows(frame(cell("rate", 0, 0.5, epochs=1), cell("gac", 0, 0.4, epochs=1))))
    assert not re.search("rank +|95 % CI +|same +encoder|± —", text.split("Rows with")[0])
    assert ", 1 epoch, " in text


def test_a_seed_that_collapsed_is_named_with_what_it_means_for_the_interval() -> None:
    cells = [cell("gac", 0, 0.1, images=10_000), *THREE_SEEDS[1:], cell("rate", 0, 0.1)]
    table = rows(frame(*cells))
    assert table.set_index("encoder")["collapsed_seeds"].to_dict() == {"gac": [0], "rate": []}
    text = " ".join(printed(table, 140).split())
    assert "Collapsed to chance while other seeds learned: gac at T=4 (seed 0). Confidence" in text
    assert "rare collapses of single seeds break their coverage." in text
    assert "Collapsed" not in printed(rows(frame(*THREE_SEEDS)))


def test_the_title_says_what_was_compared_and_the_heading_how_energy_was_priced() -> None:
    text = printed(rows(frame(*THREE_SEEDS)), width=120)
    assert "digits, recipe quick, 20 epochs, 1,437 training images, backbone vgg5" in text
    assert "batch size 64, fp32, 360 test images, chance 10 %" in text
    assert "modelled" in text and "µJ/image" in text and " exact " in text
    assert "energy (exact): operations as executed" in text
    assert "83.00 ± 3.00 75.5-90.5  12.50     1.36    83.00  1,234,567" in text


@pytest.mark.parametrize(
    ("failed", "line"),
    [
        (["codingbench show k1"], "1 failed cell: codingbench show k1\n"),
        (["a", "b", "c", "d", "e"], "5 failed cells: a, b, c and 2 more\n"),
    ],
)
def test_failed_cells_are_named_below(failed: list[str], line: str) -> None:
    assert printed(rows(frame(*THREE_SEEDS)), failed=failed).endswith(line)


def test_json_has_the_documented_keys_at_full_precision() -> None:
    accuracy = 0.1234567890123456
    first, second = json.loads(to_json(rows(frame(cell("a", 0, accuracy), cell("b", 0, 0.1)))))
    assert list(first) == list(COLUMNS)
    assert first["accuracy"] == accuracy and first["accuracy_std"] is None
    assert first["above_chance"] is False and first["rank"] is None
    assert second["rank_basis"] == "seeds" and second["comparisons"] == 0
    assert first["keys"] == ["a-0"] and isinstance(first["parameters"], int)


def test_csv_is_read_back_without_loss() -> None:
    table = rows(frame(*THREE_SEEDS, cell(LONG, 0, 0.5)))
    first, second = csv.DictReader(io.StringIO(to_csv(table)))
    assert list(first) == list(COLUMNS)
    assert float(first["accuracy"]) == table["accuracy"][0]
    assert float(first["energy_uj"]) == pytest.approx(1.36)
    assert first["keys"] == "gac-0 gac-1 gac-2"
    assert second["encoder"] == LONG and second["accuracy_std"] == ""


def test_markdown_is_one_table_row_per_line() -> None:
    lines = to_markdown(ranking(rows(frame(*THREE_SEEDS)))).splitlines()
    head = lines.index("### digits, recipe quick, 20 epochs, 1,437 training images, backbone vgg5")
    assert lines[head + 4].startswith("| rank | encoder | T | n | accuracy % | 95 % CI |")
    assert lines[head + 6] == (
        "| 1 | gac | 4 | 3 | 83.00 ± 3.00 | 75.5-90.5 | 12.50 | 1.36 | 83.00 | 1,234,567 |"
    )


def test_svg_is_well_formed_and_holds_the_numbers() -> None:
    picture = ElementTree.fromstring(to_svg(ranking(rows(frame(*THREE_SEEDS)))))
    text = "".join(picture.itertext()).replace("\xa0", " ")
    assert picture.tag.endswith("svg") and "83.00 ± 3.00" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.01234, "0.0123"), (1.235, "1.24"), (56.78, "56.8"), (12345.6, "12,346")],
)
def test_energies_are_written_with_three_digits(value: float, text: str) -> None:
    assert three_digits(value) == text


def test_an_energy_that_an_older_cell_cannot_have_is_a_dash_with_one_note() -> None:
    counts = {"lemaire_acs": 10**8, "lemaire_macs": 0, "lemaire_memory_pj": 0.0}
    known = [cell("direct", seed, 0.9, **counts) for seed in (0, 1)]
    older = [cell("gac", seed, 0.8, **dict.fromkeys(counts)) for seed in (0, 1)]
    table = rows(frame(*known, *older), Pricing.of("lemaire"))
    assert table["energy_uj"].isna().tolist() == [False, True]
    assert table["technology"].tolist() == ["lemaire", "lemaire"]
    text = " ".join(printed(table, width=100).split())
    note = (
        "Energy unknown (—) for 1 row: counted by an earlier version, without what the convention"
    )
    assert text.count(note + " lemaire needs.") == 1
