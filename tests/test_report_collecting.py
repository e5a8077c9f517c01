"""Collecting a report's data: separate comparisons, limited details, missing tables."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from bench_store import make_store

from codingbench.analysis.selection import Selection, select
from codingbench.energy import COMPARED, Pricing
from codingbench.errors import SpecError, StoreError
from codingbench.report.collecting import (
    LEAST_DETAILED,
    MOST_DETAILED,
    MOST_DETAILED_IN_ALL,
    collect,
)
from codingbench.report.comparison import ReportData
from codingbench.report.figures.catalogue import FIGURES
from codingbench.report.page import page
from codingbench.store.folder import Store
from tests.report_stores import REFERENCE, every_figure, store_of

OWN = (
    "from codingbench.energy import Convention\n"
    "price = lambda counts, chip: chip.mac_pj * counts['effective_real']\n"
    "mine = Convention('macs-only', 'MACs alone', 'made up', price)\n"
)


def drawn(report: ReportData) -> set[str]:
    return {figure.spec.name for figure in every_figure(report)}


def test_a_user_defined_convention_must_not_have_the_name_of_a_shipped_one(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN.replace("macs-only", "exact"))
    with pytest.raises(SpecError, match="'exact' is the name of a shipped energy"):
        collect(Store(REFERENCE / "fashion_mini"), Pricing.of(f"{tmp_path / 'own.py'}:mine"))


# --- incomplete stores ----------------------------------------------------------------------------


@pytest.mark.parametrize("gone", ["steps", "layers", "epochs", "predictions"])
def test_without_a_table_the_figures_of_the_other_tables_are_drawn(
    tmp_path: Path, gone: str
) -> None:
    shutil.copytree(REFERENCE / "fashion_mini", tmp_path / "results")
    shutil.rmtree(tmp_path / "results" / gone)
    report = collect(Store(tmp_path / "results"))
    assert drawn(report) == {spec.name for spec in FIGURES if spec.table != gone}
    expected = 0 if gone == "predictions" else sum(spec.table == gone for spec in FIGURES)
    said = f"These results lack the table {gone} of the rows shown."
    variants = f'{{"missing":"{said}","variants":{{}}}}'
    assert page(report, "title", "").count(variants) == expected


def test_the_table_cells_alone_gives_a_leaderboard_and_accuracy_over_energy(
    tmp_path: Path,
) -> None:
    shutil.copytree(REFERENCE / "fashion_mini" / "cells", tmp_path / "cells")
    report = collect(Store(tmp_path))
    assert drawn(report) == {"pareto"}
    assert [len(comparison.rows) for comparison in report.comparisons] == [4]


def test_one_seed_has_means_and_no_intervals(tmp_path: Path) -> None:
    (comparison,) = collect(store_of(tmp_path, {"encoder": "gac"})).comparisons
    for energies in comparison.energies.values():
        assert energies[["low", "high"]].isna().all(axis=None)
    assert comparison.energies["exact"]["energy_uj"].tolist() == pytest.approx([0.96])
    assert comparison.curves["accuracy"].tolist() == [0.75, 0.875]
    assert comparison.curves[["low", "high"]].isna().all(axis=None)


# --- comparisons ----------------------------------------------------------------------------------


def test_each_condition_has_its_own_comparison_and_each_row_is_in_one_of_them(
    tmp_path: Path,
) -> None:
    conditions: list[dict[str, Any]] = [
        {"dataset": "cifar10", "accuracy": 0.3},
        {"dataset": "cifar10", "recipe": "long", "accuracy": 0.4},
        {"dataset": "digits", "accuracy": 0.5},
    ]
    cells = [
        condition | {"encoder": encoder, "seed": seed}
        for condition in conditions
        for encoder in ("direct", "gac")
        for seed in (0, 1)
    ]
    report = collect(store_of(tmp_path, *cells))
    assert len({comparison.heading for comparison in report.comparisons}) == 3
    held = [row for comparison in report.comparisons for row in comparison.rows.index]
    assert sorted(held) == list(range(6))
    for comparison in report.comparisons:
        own = set(comparison.rows.index)
        frames = (comparison.cells, comparison.curves, comparison.epochs, comparison.rates)
        assert all(set(frame["row"]) == own for frame in frames)
        assert all(set(frame.index) == own for frame in comparison.energies.values())
        assert all(set(frame.index) == own for frame in comparison.bills.values())
        assert len(comparison.cells) == 4
        # every condition has its own accuracy, so cells of another one would show
        (accuracy,) = comparison.cells["accuracy"].unique()
        assert comparison.rows["accuracy"].tolist() == pytest.approx([accuracy] * 2)


def test_only_the_requested_data_set_is_collected(tmp_path: Path, row_of: Any) -> None:
    store = store_of(tmp_path, {"dataset": "digits"}, {"dataset": "mnist"}, {"dataset": "mnist"})
    for dataset in ("digits", "mnist"):
        key = f"{dataset:f<16}".encode().hex()[:16]
        store.record_failure(key, row_of("failures", key=key, dataset=dataset))
    report = collect(store, selection=Selection(datasets=("digits",)))
    (comparison,) = report.comparisons
    assert comparison.cells["dataset"].tolist() == ["digits"]
    assert report.failures["dataset"].tolist() == ["digits"]


def test_older_cells_of_the_same_coordinates_are_left_out(tmp_path: Path) -> None:
    old, new = ({"encoder_code": code, "accuracy": a} for code, a in (("1", 0.1), ("2", 0.9)))
    (comparison,) = collect(store_of(tmp_path, old, new)).comparisons
    assert comparison.cells["accuracy"].tolist() == [0.9]
    assert comparison.curves["accuracy"].tolist() == [0.9, 0.9]


# --- limited details ------------------------------------------------------------------------------


def test_many_comparisons_share_the_detailed_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MOST_DETAILED_IN_ALL == 300
    monkeypatch.setattr("codingbench.report.collecting.MOST_DETAILED_IN_ALL", 30)
    make_store(tmp_path / "results", 200)
    report = collect(Store(tmp_path / "results"))
    numbers = [len(comparison.detailed) for comparison in report.comparisons]
    # 200 cells of 5 seeds are 40 rows of 4 T in 10 comparisons; 30 details are 10 times 3
    assert LEAST_DETAILED == 3 and numbers == [3] * 10
    assert [len(comparison.rows) for comparison in report.comparisons] == [4] * 10
    whole = report.comparisons[0]
    assert set(whole.curves["row"]) == set(whole.detailed) == set(whole.rates["row"])


def test_only_the_first_of_too_many_comparisons_have_details(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_store(tmp_path / "results", 100)
    monkeypatch.setattr("codingbench.report.collecting.MOST_DETAILED_IN_ALL", 4)
    report = collect(Store(tmp_path / "results"))
    assert [len(comparison.detailed) for comparison in report.comparisons] == [3, 1, 0, 0, 0]
    bare = report.comparisons[-1]
    assert bare.curves.empty and bare.rates.empty and bare.epochs.empty
    assert [spec.name for spec in FIGURES if spec.rows(bare)] == ["pareto"]


def test_direct_has_details_even_if_it_is_the_least_accurate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MOST_DETAILED == 30
    monkeypatch.setattr("codingbench.report.collecting.MOST_DETAILED", 3)
    monkeypatch.setattr("codingbench.report.collecting.LEAST_DETAILED", 1)
    cells = [{"encoder": f"c{at}", "accuracy": 0.9 - at / 10} for at in range(4)]
    report = collect(store_of(tmp_path, *cells, {"encoder": "direct", "accuracy": 0.1}))
    (comparison,) = report.comparisons
    encoders = comparison.rows["encoder"]
    assert encoders[comparison.detailed].tolist() == ["c0", "c1", "direct"]
    assert len(encoders) == 5 and len(comparison.energies["exact"]) == 5
    for frame in (comparison.curves, comparison.epochs, comparison.rates):
        assert sorted(set(frame["row"])) == comparison.detailed
    # the others are compared with direct
    assert comparison.bills["exact"]["accuracy_delta"].tolist()[:2] == pytest.approx([0.8, 0.7])
    said = "Curves, firing rates and bills show 3 of the 5 rows: "
    assert said in page(report, "title", "")


def test_a_comparison_without_details_says_so_and_not_that_tables_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("MOST_DETAILED", "LEAST_DETAILED", "MOST_DETAILED_IN_ALL"):
        monkeypatch.setattr(f"codingbench.report.collecting.{limit}", 1)
    text = page(collect(store_of(tmp_path, {"recipe": "a"}, {"recipe": "b"})), "title", "")
    _, bare = text.split('id="comparison-1">')
    assert "These results lack" not in bare
    said = "Curves, firing rates and bills are left out here: a report of this many comparisons "
    assert bare.count(said) == 1 + len(FIGURES)


# --- conventions ----------------------------------------------------------------------------------


def test_a_user_defined_convention_is_added_and_shown_first(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    asked = f"{tmp_path / 'own.py'}:mine"
    report = collect(store_of(tmp_path / "results", {"encoder": "gac"}), Pricing.of(asked))
    assert list(report.pricings) == [*COMPARED, "macs-only"]
    assert report.convention == "macs-only"
    (comparison,) = report.comparisons
    # 4.6 pJ x 1.5e6 / 10 images; step 1 does a million of them
    assert comparison.energies["macs-only"]["energy_uj"].tolist() == pytest.approx([0.69])
    assert comparison.curves["macs-only"].tolist() == pytest.approx([0.46, 0.69])
    assert comparison.bills["macs-only"]["backbone_uj"].tolist() == pytest.approx([0.46])
    text = page(report, "title", "")
    assert '<option value="macs-only" selected>' in text and text.count(" selected>") == 1


def test_a_technology_prices_every_convention(tmp_path: Path) -> None:
    report = collect(store_of(tmp_path, {"encoder": "gac"}), Pricing.of(technology="int8"))
    (comparison,) = report.comparisons
    # (0.03 pJ x 3e6 + 0.23 pJ x 1.5e6) / 10; (0.23 pJ x 0.5e6 + 0.03 pJ x 12e6) / 10
    for convention, uj in (("exact", 0.0435), ("paper", 0.0475)):
        assert comparison.energies[convention]["energy_uj"].tolist() == pytest.approx([uj])
        assert comparison.curves[convention].tolist()[-1] == pytest.approx(uj)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"convention": "exakt"}, "unknown energy convention 'exakt'; did you mean 'exact'"),
        ({"convention": "no.py:mine"}, "no file 'no.py' for energy convention"),
        ({"technology": "fp61"}, "unknown technology 'fp61'; did you mean 'fp16'"),
        ({"dataset": "digit"}, "'digit'; did you mean 'digits'"),
    ],
)
def test_an_unknown_name_is_refused_in_one_line(
    results: Path, request_: dict[str, str], message: str
) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        named = dict(request_)
        selection = select({"dataset": named.pop("dataset", None)})
        collect(Store(results), Pricing.of(**named), selection)
    assert "\n" not in str(caught.value)


def test_a_store_without_finished_cells_is_refused(tmp_path: Path, row_of: Any) -> None:
    with pytest.raises(StoreError, match=r"no results folder '.*none'; codingbench run"):
        collect(Store(tmp_path / "none"))
    Store(tmp_path).record_failure("f" * 16, row_of("failures", key="f" * 16))
    with pytest.raises(StoreError, match=r"\(1 failed cell: codingbench show ffff"):
        collect(Store(tmp_path))
