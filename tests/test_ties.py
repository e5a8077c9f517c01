from collections.abc import Mapping
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from codingbench.analysis import ranks as ties
from codingbench.analysis.leaderboard import rows
from codingbench.analysis.statistics import gram_of, holm, over_seeds_and_images
from codingbench.store.correctness import Predictions, read_predictions, side_by_side
from codingbench.store.folder import Store
from tests.conftest import commit
from tests.test_leaderboard import cell, frame, printed

IMAGES = 400
Chances = Mapping[str, float]
Made = tuple[pd.DataFrame, dict[str, Predictions]]


def made(chances: Chances, seeds: int = 3, generator: int = 0, **values: Any) -> Made:
    """Return cells whose images are each right with some probability, and their predictions."""
    draws, cells, answers = np.random.default_rng(generator), [], {}
    for (name, chance), seed in product(chances.items(), range(seeds)):
        right = draws.random(IMAGES) < chance
        row = cell(name, seed, right.mean(), images=IMAGES, test_samples=IMAGES, **values)
        cells.append(row)
        answers[row["key"]] = Predictions(np.arange(IMAGES, dtype=np.int16) % 10, right)
    return frame(*cells), answers


def ranked(cells: pd.DataFrame, answers: Mapping[str, Predictions]) -> pd.DataFrame:
    return rows(cells, answers=lambda few: answers)


def ranks(table: pd.DataFrame) -> dict[str, int]:
    return dict(zip(table["encoder"], table["rank"], strict=True))


def test_rows_not_significantly_worse_than_the_best_share_rank_1_and_others_follow() -> None:
    cells, answers = made({"a": 0.90, "b": 0.89, "c": 0.60, "d": 0.30})
    table = ranked(cells, answers)
    assert ranks(table) == {"a": 1, "b": 1, "c": 3, "d": 4}
    assert set(table["comparisons"]) == {6}
    assert (
        "Rows share a rank unless their accuracies differ significantly (5 % level, paired over "
        "seeds and test images, Holm's correction for 6 pairs)." in " ".join(printed(table).split())
    )


def test_where_no_difference_is_significant_the_note_says_so() -> None:
    cells, answers = made({"a": 0.90, "b": 0.89, "c": 0.90})
    table = ranked(cells, answers)
    assert set(table["rank"]) == {1}
    assert (
        "No two codings differ significantly in accuracy, so all 3 share rank 1 (5 % level, paired "
        "over seeds and test images, Holm's correction for 3 pairs)."
        in " ".join(printed(table).split())
    )


def test_ranks_equal_those_of_every_pair_tested_by_itself_on_its_images() -> None:
    chances = {f"c{number}": 0.5 + 0.05 * number for number in range(8)}
    cells, answers = made(chances, seeds=4, generator=1)
    gone = cells["key"].isin(["c0-0", "c3-2", "c5-1"])  # so pairs share two to four seeds
    cells = cells[~gone]
    pairs = list(combinations(chances, 2))
    signs, p = [], []
    for pair in pairs:
        seeds = [s for s in range(4) if all(f"{n}-{s}" in set(cells["key"]) for n in pair)]
        right = [np.stack([answers[f"{n}-{s}"].right for s in seeds]).astype(int) for n in pair]
        shared = np.ones((1, len(seeds)), bool)
        found = over_seeds_and_images(*gram_of(right[0] - right[1]), shared, IMAGES)
        signs.append(found.mean[0])
        p.append(found.p_values()[0])
    worse = [
        pair[0] if sign < 0 else pair[1]
        for pair, sign, q in zip(pairs, signs, holm(np.array(p)), strict=True)
        if q <= 0.05
    ]
    assert 3 < len(worse) < len(pairs)
    expected = {name: 1 + worse.count(name) for name in chances}
    assert ranks(ranked(cells, answers)) == expected


def test_a_row_of_one_seed_takes_no_part() -> None:
    cells, answers = made({"a": 0.9, "b": 0.5})
    lucky = frame(cell("lucky", 0, 0.99, images=IMAGES, test_samples=IMAGES))
    table = ranked(pd.concat([cells, lucky], ignore_index=True), answers)
    assert table["encoder"].tolist() == ["lucky", "a", "b"]
    assert table["rank"].isna().tolist() == [True, False, False]
    assert table["rank"].tolist()[1:] == [1, 2] and set(table["comparisons"]) == {1}


def test_rows_without_two_shared_seeds_cannot_be_tested() -> None:
    cells, answers = made({"a": 0.9, "b": 0.3}, seeds=4)
    few = cells[cells["key"].isin(["a-0", "a-1", "a-2", "b-2", "b-3"])]
    table = ranked(few, answers)
    assert ranks(table) == {"a": 1, "b": 1} and set(table["comparisons"]) == {0}
    assert "share a rank" not in printed(table)


def test_rows_of_one_coding_at_several_t_are_paired_too() -> None:
    short, answers = made({"a": 0.5}, num_steps=2)
    long, more = made({"a": 0.8}, generator=1, num_steps=6)
    long["key"] = [f"{key}-6" for key in long["key"]]
    answers |= {f"{key}-6": found for key, found in more.items()}
    table = ranked(pd.concat([short, long], ignore_index=True), answers)
    assert table[["num_steps", "rank"]].values.tolist() == [[6, 1], [2, 2]]


def test_each_group_has_its_own_ranks_and_its_own_correction() -> None:
    ours, answers = made({"a": 0.9, "b": 0.5})
    theirs, more = made({"x": 0.9, "y": 0.5, "z": 0.1}, generator=1, backbone="other")
    table = ranked(pd.concat([theirs, ours], ignore_index=True), answers | more)
    assert ranks(table) == {"a": 1, "b": 2, "x": 1, "y": 2, "z": 3}
    assert table.groupby("backbone")["comparisons"].unique().map(list).to_dict() == {
        "other": [3],
        "vgg5": [1],
    }


def without_answers(answers: dict[str, Predictions]) -> dict[str, Predictions]:
    return {}


def of_other_images(answers: dict[str, Predictions]) -> dict[str, Predictions]:
    first = answers["a-0"]
    return answers | {"a-0": Predictions(first.labels + 1, first.right)}


@pytest.mark.parametrize("lost", [without_answers, of_other_images])
def test_where_predictions_are_no_help_ranks_rest_on_seeds_only(lost: Any) -> None:
    cells, answers = made({"a": 0.9, "b": 0.5})
    table = ranked(cells, lost(answers))
    assert ranks(table) == {"a": 1, "b": 2} and set(table["rank_basis"]) == {"seeds"}
    assert (
        "paired over seeds, Holm's correction for 1 pair; test images are not paired, because "
        "predictions are missing or there are more than 1,000 cells or 3,000,000 predictions)."
        in " ".join(printed(table, 140).split())
    )


@pytest.mark.parametrize(
    ("bound", "value", "basis"),
    [
        ("MOST_CELLS", 6, "seeds and test images"),
        ("MOST_CELLS", 5, "seeds"),
        ("MOST_PREDICTIONS", 6 * IMAGES, "seeds and test images"),
        ("MOST_PREDICTIONS", 6 * IMAGES - 1, "seeds"),
        ("MOST_ROWS", 1, "value"),
    ],
)
def test_beyond_its_bounds_no_prediction_is_read_or_no_pair_is_tested(
    bound: str, value: int, basis: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ties, bound, value)
    cells, answers = made({"a": 0.90, "b": 0.89})
    requested: list[int] = []

    def read(few: pd.DataFrame) -> Mapping[str, Predictions]:
        requested.append(len(few))
        return answers

    table = rows(cells, answers=read)
    assert set(table["rank_basis"]) == {basis}
    # one cell tells the labels that all share
    assert requested == ([1] if basis == "seeds" else [1, 6])
    assert ranks(table) == ({"a": 1, "b": 2} if basis == "value" else {"a": 1, "b": 1})


def test_answers_are_not_read_for_single_runs_or_for_another_order() -> None:
    def refuse(few: pd.DataFrame) -> Mapping[str, Predictions]:
        assert len(few) == 1, "one cell tells the labels that all share"
        return {}

    single, _ = made({"a": 0.9, "b": 0.5}, seeds=1)
    several, _ = made({"a": 0.9, "b": 0.5})
    assert rows(single, answers=refuse)["rank"].isna().all()
    assert rows(several, sort="energy", answers=refuse)["rank"].tolist() == [1, 1]


def predicted(store: Store, key: str, predictions: list[Any], accuracy: float, row_of: Any) -> Any:
    """Return the predictions read from a store; images in reverse order, labels 0 to 3."""
    commit(store, key)
    tables = {name: store.read_table(name) for name in ("cells", "steps", "layers", "epochs")}
    answered = [
        row_of("predictions", key=key, image=image, label=image % 4, prediction=prediction)
        for image, prediction in reversed(list(enumerate(predictions)))
    ]
    store.commit(key, tables | {"predictions": answered})
    cells = pd.DataFrame([{"key": key, "images": 4, "accuracy": accuracy}])
    return read_predictions(store, cells).get(key)


def test_answers_are_in_the_order_of_the_images(tmp_path: Path, row_of: Any) -> None:
    answers = predicted(Store(tmp_path), "a" * 16, [0, 1, 0, 0], 0.5, row_of)
    assert answers.labels.tolist() == [0, 1, 2, 3]
    assert answers.right.tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    ("predictions", "accuracy"),
    [([0, 1, 0, 0], 0.75), ([0, 1, 2], 1.0), ([0, 1, None, 0], 0.5), ([], 0.0)],
    ids=["of another accuracy", "too few", "with a hole", "none"],
)
def test_answers_that_are_not_those_behind_the_accuracy_are_left_out(
    predictions: list[Any], accuracy: float, tmp_path: Path, row_of: Any
) -> None:
    assert predicted(Store(tmp_path), "a" * 16, predictions, accuracy, row_of) is None


def test_side_by_side_are_only_answers_to_the_same_images() -> None:
    right = np.array([True, False])
    same = {key: Predictions(np.array([1, 2], np.int16), right) for key in "ab"}
    both = side_by_side(same, ["a", "b"])
    assert both is not None and both.tolist() == [[True, False], [True, False]]
    assert side_by_side(same, ["a", "c"]) is None
    other = same | {"c": Predictions(np.array([2, 1], np.int16), right)}
    assert side_by_side(other, ["a", "c"]) is None
