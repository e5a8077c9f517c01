"""Chance and balanced accuracy where the classes of the test images are unequal."""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from codingbench.analysis.chance import chance_of
from codingbench.analysis.comparison import compare
from codingbench.analysis.leaderboard import rows
from codingbench.analysis.ranks import Reader
from codingbench.store.correctness import Predictions
from codingbench.store.learning import is_unequal, majority_share
from codingbench.views.comparison import view as comparison_view
from codingbench.views.html import to_html
from codingbench.views.leaderboard import ranking
from codingbench.views.markdown import to_markdown
from codingbench.views.table import render
from codingbench.views.writers import to_csv, to_json, to_svg
from tests.test_leaderboard import cell, frame

LABELS = [0] * 10 + [1] * 90


def made(
    labels: Sequence[int] = LABELS, num_classes: int = 2, **answers: Sequence[int]
) -> tuple[pd.DataFrame, Mapping[str, Predictions]]:
    """Three equal seeds of each coding, which gives these answers to the test images."""
    truth = np.array(labels, np.int16)
    cells, known = [], {}
    for name, given in answers.items():
        right = truth == np.array(given)
        for seed in range(3):
            sizes: dict[str, Any] = {"images": len(truth), "test_samples": len(truth)}
            cells.append(cell(name, seed, right.mean(), num_classes=num_classes, **sizes))
            known[f"{name}-{seed}"] = Predictions(truth, right)
    return frame(*cells), known


def leaderboard(*args: Any, **answers: Any) -> pd.DataFrame:
    cells, known = made(*args, **answers)
    return rows(cells, answers=lambda few: {key: known[key] for key in few["key"]})


def text_of(table: pd.DataFrame, width: int = 110) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(render(ranking(table)))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_answering_the_majority_is_marked_as_not_above_chance() -> None:
    table = leaderboard(gac=[1] * 100)
    assert table[["accuracy", "chance", "balanced_accuracy"]].values.tolist() == [[0.9, 0.9, 0.5]]
    assert table["above_chance"].tolist() == [False]
    text = text_of(table)
    assert "chance 90 %" in text and "90.00 ± 0.00‡" in text and "50.00" in text


def test_what_looks_at_the_images_is_above_the_majority() -> None:
    table = leaderboard(gac=LABELS, direct=[0] * 5 + [1] * 95)
    assert table["encoder"].tolist() == ["gac", "direct"]
    assert table["balanced_accuracy"].tolist() == [1.0, 0.75]
    # 0.95 is within 3 standard deviations, 0.09, of 0.9; 1.0 is not
    assert table["above_chance"].tolist() == [True, False]


def test_three_unequal_classes_by_hand() -> None:
    labels = [0] * 6 + [1] * 3 + [2]
    table = leaderboard(labels, num_classes=3, gac=[0] * 6 + [1, 1, 0] + [0])
    assert table["chance"].tolist() == [0.6]
    assert table["balanced_accuracy"].tolist() == pytest.approx([(1 + 2 / 3 + 0) / 3])


def test_every_format_has_the_column_where_classes_are_unequal() -> None:
    table = leaderboard(gac=[1] * 100)
    view = ranking(table)
    assert "balanced %" in to_markdown(view) and "balanced" in to_html(view)
    assert "balanced" in to_svg(view) and "balanced" in text_of(table)
    assert json.loads(to_json(table))[0]["balanced_accuracy"] == 0.5
    assert "balanced_accuracy" in to_csv(table).splitlines()[0].split(",")


@pytest.mark.parametrize("labels", [[0, 1] * 50, [0, 1] * 50 + [0]])
def test_equal_classes_have_neither_another_chance_nor_a_column(labels: list[int]) -> None:
    table = leaderboard(labels, gac=[1] * len(labels))
    assert table["chance"].tolist() == [0.5] and table["balanced_accuracy"].isna().all()
    assert "balanced" not in text_of(table) and "balanced" not in to_markdown(ranking(table))


def test_a_class_without_test_images_counts_as_unequal() -> None:
    assert is_unequal(np.array([0] * 50 + [1] * 50), 3)
    assert majority_share(np.array([0] * 50 + [1] * 50), 3) == 0.5


def test_without_labels_chance_is_one_of_the_classes() -> None:
    cells, _ = made(gac=[1] * 100)
    readers: list[Reader | None] = [None, lambda few: {}]
    for answers in readers:
        found = chance_of(cells, answers)
        assert found["chance"].tolist() == [0.5] * 3 and found["balanced_accuracy"].isna().all()


def test_the_labels_of_one_cell_serve_all_with_the_same_test_images() -> None:
    cells, known = made(gac=[1] * 100, direct=LABELS)
    last = {"direct-2": known["direct-2"]}
    found = chance_of(cells.iloc[::-1], lambda few: {k: last[k] for k in few["key"] if k in last})
    assert found["chance"].tolist() == [0.9] * 6
    assert found["balanced_accuracy"].notna().sum() == 1


def test_comparisons_show_chance_and_balanced_accuracy_too() -> None:
    cells, known = made(gac=LABELS, direct=[1] * 100)
    table = compare(cells, ["gac", "direct"], answers=lambda few: {k: known[k] for k in few["key"]})
    assert table[["chance", "balanced_accuracy_a", "balanced_accuracy_b"]].values.tolist() == [
        [0.9, 1.0, 0.5]
    ]
    assert "coding balanced" in to_markdown(comparison_view(table))
    cells, known = made([0, 1] * 50, gac=[0] * 100, direct=[1] * 100)
    table = compare(cells, ["gac", "direct"], answers=lambda few: {k: known[k] for k in few["key"]})
    assert "balanced" not in to_markdown(comparison_view(table))
