"""No energy that is known to be too low is ranked, best, on a front, or part of a ratio."""

import json
from typing import Any

import pandas as pd
import pytest

from codingbench.analysis.bill import uncounted_parts, with_bill
from codingbench.analysis.break_even import with_ann
from codingbench.analysis.comparison import compare
from codingbench.analysis.energies import with_energies
from codingbench.analysis.energy_ranks import with_every_convention
from codingbench.analysis.leaderboard import best_rows, rows
from codingbench.analysis.published import with_published
from codingbench.energy import Pricing
from codingbench.literature.reproduction import signs
from codingbench.report.figures.pareto import front
from codingbench.views.comparison import verdict
from codingbench.views.comparison import view as comparison_view
from codingbench.views.energies import against_ann, encoder_bill, every_convention
from codingbench.views.leaderboard import ranking
from codingbench.views.markdown import to_markdown
from codingbench.views.published import beside
from codingbench.views.writers import to_csv, to_json
from tests.test_bill import BACKBONE, DIRECT, GAC, layer, run, tables

BOTH = (Pricing.of("exact"), Pricing.of("memory"))
CHEAP = [layer("encoder.stem.0", 1, effective_real=1e5), *BACKBONE]
NOTE = (
    "- ≥ Energies are lower bounds, without rank or ratio, where work was not counted: "
    "lstm at T=4 (encoder.lstm, encoder:sort)."
)


def frames(uncounted: str | None = "encoder.lstm, encoder:sort") -> tuple[Any, Any]:
    """Return cells and layers of three codings with two seeds; ``lstm`` looks the cheapest."""
    runs = [
        run(encoder, seed, accuracy + seed / 100, layers, firing_rate=0.1, images=100)
        for encoder, accuracy, layers in (("direct", 0.7, DIRECT), ("gac", 0.8, GAC))
        for seed in (0, 1)
    ]
    runs += [run("lstm", seed, 0.75 + seed / 50, CHEAP, firing_rate=0.1) for seed in (0, 1)]
    cells, layers = tables(*runs)
    names = {"direct": "", "gac": "", "lstm": uncounted}
    return cells.assign(uncounted=cells["encoder"].map(names)), layers.assign(
        spikes=0, neurons=0, dense_binary=4 * layers["effective_binary"]
    )


@pytest.mark.parametrize("uncounted", ["", None])
def test_counted_cells_have_no_mark(uncounted: str | None) -> None:
    table = rows(frames(uncounted)[0], sort="energy")
    assert table["encoder"].tolist() == ["lstm", "direct", "gac"]
    assert table["rank"].tolist() == [1, 2, 3] and not table["energy_is_lower_bound"].any()
    assert "≥" not in to_markdown(ranking(table))


def test_a_lower_bound_has_no_rank_by_energy_and_comes_last() -> None:
    table = rows(frames()[0], sort="energy")
    assert table["encoder"].tolist() == ["direct", "gac", "lstm"]
    assert table["rank"].astype(object).where(table["rank"].notna(), None).tolist() == [1, 2, None]
    text = to_markdown(ranking(table))
    assert "| ≥ 7.66 |" in text and NOTE in text and "single seed" not in text


def test_none_is_the_cheapest_while_a_lower_bound_is_below_it() -> None:
    cells, _ = frames()
    table = rows(cells)
    assert table.loc[table["encoder"] == "lstm", "rank"].notna().all()  # by accuracy it has one
    assert best_rows(table, "energy_uj") == set()
    dear = cells.assign(
        effective_real=cells["effective_real"] * (1 + 99 * (cells.encoder == "lstm"))
    )
    table = rows(dear)
    assert [table["encoder"][row] for row in best_rows(table, "energy_uj")] == ["direct"]


def test_both_energies_of_a_row_are_lower_bounds_in_every_format() -> None:
    cells, _ = frames()
    table = with_energies(rows(cells), cells, BOTH)
    assert to_markdown(ranking(table, *BOTH)).count("≥ ") == 3  # two energies and the note
    (row,) = (row for row in json.loads(to_json(table)) if row["encoder"] == "lstm")
    assert row["uncounted"] == ["encoder.lstm", "encoder:sort"] and row["energy_is_lower_bound"]
    assert "encoder.lstm encoder:sort,True" in to_csv(table)


def test_no_convention_ranks_a_lower_bound() -> None:
    cells, _ = frames()
    text = to_markdown(every_convention(with_every_convention(rows(cells), cells)))
    assert NOTE in text and "| ≥ 7.66 |" in text and "| 11.8 #1 |" in text
    (line,) = (line for line in text.splitlines() if line.startswith("| lstm"))
    assert "#" not in line


def test_the_bill_marks_the_part_and_gives_neither_ratio_nor_difference() -> None:
    cells, layers = frames()
    table = with_bill(rows(cells), cells, layers)
    found = table.set_index("encoder")[["encoder_share", "points_per_mj", "energy_delta_uj"]]
    assert found.loc["lstm"].isna().all() and found.loc["gac"].notna().all()
    text = to_markdown(encoder_bill(table))
    assert "| 0.460 | ≥ 0 | 7.20 | ≥ 7.66 | — | ≥ 1.84 | — |" in text
    assert "at an energy whose difference from direct is unknown (2 seeds)" in text and NOTE in text


def test_no_difference_from_an_uncounted_direct_is_known() -> None:
    cells, layers = frames()
    swapped = cells.assign(
        uncounted=cells["encoder"].eq("direct").map({True: "encoder.x", False: ""})
    )
    table = with_bill(rows(swapped), swapped, layers)
    assert table["energy_delta_uj"].isna().all()


def test_no_ratio_to_an_ann_is_made_of_a_lower_bound() -> None:
    cells, layers = frames()
    table = with_ann(rows(cells), cells, layers).set_index("encoder")
    names = [f"{ann}_{what}" for ann in ("ann", "qann") for what in ("ratio", "break_even_rate")]
    assert table.loc["lstm", names].isna().all() and table["ann_ratio"].gt(0)["gac"]
    text = to_markdown(against_ann(table.reset_index()))
    assert NOTE in text and "| ≥ 7.66 |" in text


def test_published_results_stand_beside_lower_bounds() -> None:
    text = to_markdown(beside(with_published(rows(frames()[0]))))
    assert "| ≥ 7.66 |" in text and NOTE in text


def test_compare_says_nothing_about_the_energy_of_a_lower_bound() -> None:
    cells, _ = frames()
    table = compare(cells, ["lstm", "direct"])
    row: Any = next(table.itertuples())
    assert table["energy_delta_uj"].isna().all()
    assert row.uncounted_a == ["encoder.lstm", "encoder:sort"]
    assert "µJ" not in verdict(row)
    text = to_markdown(comparison_view(compare(cells, ["lstm", "direct", "gac"])))
    assert "Not counted for lstm at T=4: encoder.lstm, encoder:sort. Its energy is higher" in text
    assert text.count("Not counted for") == 1


def test_reproduce_warns_of_work_that_was_not_counted() -> None:
    cells, _ = frames()
    found = [sign for sign in signs(cells) if "not counted" in sign]
    assert found[0] == (
        "lstm on digits at T=4, seed 0: not counted, so its energy is too low: "
        "encoder.lstm, encoder:sort"
    )
    assert len(found) == 2


def test_work_of_unknown_place_may_belong_to_every_part() -> None:
    assert uncounted_parts(["encoder.stem.0:sort"]) == {"stem"}
    assert uncounted_parts(["network:sort"]) == {"stem", "coding", "backbone"}


def test_a_front_of_no_points_is_empty() -> None:
    assert front(pd.DataFrame({"energy_uj": [], "accuracy": []}, dtype=float)).empty
