"""Cells of data sets of one name and different files are never ranked, paired or compared."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import codingbench as cb
from codingbench.analysis.bill import with_bill
from codingbench.analysis.comparison import compare
from codingbench.analysis.energy_ranks import RANK_COLUMNS, with_every_convention
from codingbench.analysis.leaderboard import rows
from codingbench.analysis.published import with_published
from codingbench.errors import SpecError
from codingbench.report.collecting import collect
from codingbench.store.folder import Store
from codingbench.views.leaderboard import present, ranking
from codingbench.views.markdown import to_markdown
from codingbench.views.published import beside
from codingbench.views.robustness import in_order
from codingbench.views.robustness import view as robustness_view
from tests.report_stores import store_of
from tests.test_leaderboard import cell, frame

PETS = {"dataset": "folder:pets[size=16]", "num_classes": 2, "codingbench_version": "0.7.0"}
V1, V2 = "1111111111111111", "2222222222222222"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three seeds of ``direct`` on the first pictures and of ``gac`` on the second ones."""
    return store_of(
        tmp_path,
        *({"encoder": "direct", "seed": s, "dataset_fingerprint": V1} | PETS for s in range(3)),
        *({"encoder": "gac", "seed": s, "dataset_fingerprint": V2} | PETS for s in range(3)),
    )


def test_each_fingerprint_has_its_own_table_in_every_format(store: Store) -> None:
    table = cb.load(store.folder).leaderboard()
    assert table["dataset_fingerprint"].tolist() == [V1, V2]
    assert table["rank"].tolist() == [1, 1] and table["comparisons"].tolist() == [0, 0]
    text = str(present(store, form="markdown"))
    assert text.count("### folder:pets[size=16] (files ") == 2 and "paired over" not in text
    data = json.loads(str(present(store, form="json")))
    assert [row["dataset_fingerprint"] for row in data] == [V1, V2]
    assert not any(row["mixed_code"] for row in data)


def test_the_bill_takes_nothing_from_direct_coding_on_other_files(store: Store) -> None:
    cells, layers = store.read("cells"), store.read("layers")
    bill = with_bill(rows(cells), cells, layers)
    assert bill["accuracy_delta"].isna().all() and bill["shared_seeds"].isna().all()


def test_energies_are_ranked_within_the_same_files_only(store: Store) -> None:
    cells = store.read("cells")
    ranks = with_every_convention(rows(cells), cells)[list(RANK_COLUMNS.values())]
    assert (ranks == 1).all(axis=None)


def test_codings_on_different_files_are_not_compared(store: Store) -> None:
    with pytest.raises(SpecError) as caught:
        compare(store.read("cells"), ["direct", "gac"])
    assert str(caught.value) == (
        "the files of folder:pets[size=16] differ, so nothing can be compared "
        f"(hash of direct: {V1}; gac: {V2})"
    )


def test_only_cells_of_the_same_files_are_compared() -> None:
    cells = [
        cell(name, seed, acc + seed / 100, key=f"{name}{seed}{files}", dataset_fingerprint=files)
        for name, acc in (("gac", 0.8), ("direct", 0.6))
        for files in (V1, V2)
        for seed in range(3)
        if (name, files) != ("gac", V2)
    ]  # fmt: skip
    found = compare(frame(*cells), ["gac", "direct"])
    assert found["dataset_fingerprint"].tolist() == [V1]
    assert found["keys_b"].tolist() == [[f"direct{seed}{V1}" for seed in range(3)]]
    assert not found["mixed_code"].any()


def test_newer_files_do_not_replace_cells_of_older_ones() -> None:
    new = pd.Timestamp("2026-02-01", tz="UTC")
    cells = frame(
        cell("gac", 0, 0.8, key="old"),
        cell("gac", 0, 0.4, key="new", dataset_fingerprint="d2", finished_at=new),
    )
    table = rows(cells)
    assert table["keys"].tolist() == [["old"], ["new"]]
    assert table["superseded"].tolist() == [0, 0]
    text = to_markdown(ranking(table))
    assert "digits (files d1)" in text and "digits (files d2)" in text
    assert "older" not in text and "same code" not in text


def test_the_same_files_need_no_name() -> None:
    assert "(files" not in to_markdown(ranking(rows(frame(cell("gac", 0, 0.8)))))


def test_the_report_has_a_comparison_for_each_fingerprint(store: Store) -> None:
    found = collect(store).comparisons
    assert [len(comparison.rows) for comparison in found] == [1, 1]
    assert len({comparison.heading for comparison in found}) == 2


def test_published_numbers_stand_beside_one_set_of_files_at_a_time() -> None:
    same: dict[str, Any] = {"dataset": "cifar100", "num_classes": 100}
    cells = frame(
        cell("gac", 0, 0.8, key="a", dataset_fingerprint=V1, **same),
        cell("gac", 0, 0.4, key="b", dataset_fingerprint=V2, **same),
    )
    view = beside(with_published(rows(cells)))
    groups = list(view.groups(view.frame))
    assert [heading for heading, _, _ in groups] == [
        f"cifar100 (files {files}): measured here, and reported elsewhere" for files in (V1, V2)
    ]
    assert [sum(map(len, group["keys"])) for _, _, group in groups] == [1, 1]


def test_robustness_of_different_files_is_in_different_tables(
    row_of: Callable[..., dict[str, Any]],
) -> None:
    measured = {"attack": "clean", "strength": 0.0, "weaker_than": None, "accuracy": 0.5}
    table = pd.DataFrame([row_of("robustness", key=key, **measured) for key in "ab"])
    view = robustness_view(in_order(table), {"a": V1, "b": V2})
    headings = [heading for heading, _, _ in view.groups(view.frame)]
    assert len(headings) == 2 and V1 in headings[0] and V2 in headings[1]
