from collections.abc import Mapping
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from codingbench.analysis import ranks as ties
from codingbench.analysis.leaderboard import rows
from codingbench.analysis.statistics import gram_of, holm, over_seeds, over_seeds_and_images
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


def letters(table: pd.DataFrame) -> dict[str, str]:
    return dict(zip(table["encoder"], table["letters"], strict=True))


def notes(table: pd.DataFrame) -> str:
    """Return all that the leaderboard prints, without its line breaks."""
    return " ".join(printed(table, 140).split())


def test_rows_significantly_worse_than_the_best_have_rank_2_and_letters_show_all_pairs() -> None:
    cells, answers = made({"a": 0.90, "b": 0.89, "c": 0.60, "d": 0.30})
    table = ranked(cells, answers)
    assert ranks(table) == {"a": 1, "b": 1, "c": 2, "d": 2}
    assert letters(table) == {"a": "a", "b": "a", "c": "b", "d": "c"}
    assert set(table["comparisons"]) == {6}
    text = notes(table)
    assert (
        "rank: 2 if the best row is significantly better, else 1; Holm's correction for 3 "
        "comparisons (5 % level, paired over seeds and test images)." in text
    )
    assert (
        "same: rows without a common letter differ significantly (Holm's correction for 6 pairs)."
        in text
    )


def test_a_row_worse_than_the_best_and_than_direct_has_rank_3() -> None:
    cells, answers = made({"a": 0.95, "direct": 0.7, "c": 0.69, "d": 0.30})
    table = ranked(cells, answers)
    assert ranks(table) == {"a": 1, "direct": 2, "c": 2, "d": 3}
    assert "plus 1 if direct at the same T is; Holm's correction for the comparisons with each" in (
        notes(table)
    )


def test_where_direct_is_the_best_row_it_counts_once() -> None:
    cells, answers = made({"direct": 0.9, "b": 0.5})
    assert ranks(ranked(cells, answers)) == {"direct": 1, "b": 2}


def test_where_no_difference_is_significant_the_note_says_so_and_what_could_be_seen() -> None:
    cells, answers = made({"a": 0.90, "b": 0.89, "c": 0.90})
    table = ranked(cells, answers)
    assert set(table["rank"]) == {1} and set(table["letters"]) == {"a"}
    (difference,) = set(table["detectable_difference"])
    text = notes(table)
    assert (
        "No two codings differ significantly in accuracy, so all 3 share rank 1 (Holm's correction "
        "for 3 pairs; 5 % level, paired over seeds and test images)." in text
    )
    assert (
        f"Power: with 3 seeds, differences from the best row below {100 * difference:.1f} points "
        "are missed in more than 20 % of cases." in text
    )


def test_without_variation_over_seeds_no_power_is_told() -> None:
    cells, answers = made({"a": 1.0, "b": 1.0}, seeds=2)
    text = notes(ranked(cells, answers))
    assert "differences from the best row do not vary over 2 seeds." in text


def test_where_only_the_comparisons_with_the_best_would_differ_all_share_rank_1() -> None:
    """The best row is chosen by its accuracy: without a difference among all pairs, no rank 2."""
    best, low = np.full(3, 0.56), np.array([0.504, 0.5, 0.496])
    p = over_seeds((best - low)[None], np.ones((1, 3), bool), IMAGES).p_values()[0]
    assert 0.05 / 66 < p < 0.05 / 11
    others = [np.roll([0.6, 0.5, 0.4], number) for number in range(10)]
    cells = frame(
        *(
            cell(f"c{number}", seed, accuracy, images=IMAGES, test_samples=IMAGES)
            for number, accuracies in enumerate([best, low, *others])
            for seed, accuracy in enumerate(accuracies)
        )
    )
    table = rows(cells)
    assert table["comparisons"].iloc[0] == 66 and set(table["letters"]) == {"a"}
    assert set(table["rank"]) == {1}


def test_letters_equal_those_of_every_pair_tested_by_itself_on_its_images() -> None:
    chances = {f"c{number}": 0.5 + 0.05 * number for number in range(8)}
    cells, answers = made(chances, seeds=4, generator=1)
    gone = cells["key"].isin(["c0-0", "c3-2", "c5-1"])  # so pairs share two to four seeds
    cells = cells[~gone]
    pairs = list(combinations(chances, 2))
    means, p = {}, []
    for pair in pairs:
        seeds = [s for s in range(4) if all(f"{n}-{s}" in set(cells["key"]) for n in pair)]
        right = [np.stack([answers[f"{n}-{s}"].right for s in seeds]).astype(int) for n in pair]
        shared = np.ones((1, len(seeds)), bool)
        found = over_seeds_and_images(*gram_of(right[0] - right[1]), shared, IMAGES)
        means[pair] = found.mean[0]
        p.append(found.p_values()[0])
    differ = [pair for pair, q in zip(pairs, holm(np.array(p)), strict=True) if q <= 0.05]
    assert 3 < len(differ) < len(pairs)
    table = ranked(cells, answers)
    shown = letters(table)
    assert [pair for pair in pairs if not {*shown[pair[0]]} & {*shown[pair[1]]}] == differ
    best = table["encoder"].iloc[0]
    with_best = [place for place, pair in enumerate(pairs) if best in pair]
    worse = holm(np.array(p)[with_best]) <= 0.05
    expected = {
        next(name for name in pairs[place] if name != best): 1 + int(is_worse)
        for place, is_worse in zip(with_best, worse, strict=True)
    }
    assert ranks(table) == expected | {best: 1} and 2 in expected.values()


# --- errors of the first kind, simulated ----------------------------------------------------------

RUNS = 1000
MOST = 0.05 + 3 * (0.05 * 0.95 / RUNS) ** 0.5  # 7.1 %: three binomial standard deviations above


def simulated(means: Any, seeds: int, spread: float, draws: np.random.Generator) -> Any:
    """Return the rank of each coding, given true means in units of the typical deviation.

    The logarithm of a coding's standard deviation over seeds has the standard deviation ``spread``.
    """
    deviations = np.exp(draws.normal(0, spread, (len(means), 1)))
    accuracies = np.asarray(means)[:, None] + deviations * draws.normal(0, 1, (len(means), seeds))
    order = np.argsort(-accuracies.mean(1))
    accuracies = accuracies[order] / 1000
    a, b = np.triu_indices(len(means), 1)
    found = over_seeds(accuracies[a] - accuracies[b], np.ones((len(a), seeds), bool), 10**6)
    direct = np.full(len(means), np.flatnonzero(order == 0)[0])  # the first coding is direct
    ranks = np.empty(len(means), int)
    ranks[order] = ties._Tests(len(means), a, b, found).ranks(direct)
    return ranks


@pytest.mark.thorough
@pytest.mark.parametrize("spread", [0.0, 0.5])
@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
@pytest.mark.parametrize("codings", [2, 5, 20])
def test_if_all_codings_are_equal_any_rank_above_1_has_a_probability_of_at_most_5_percent(
    codings: int, seeds: int, spread: float
) -> None:
    draws = np.random.default_rng(10)
    err = [simulated(np.zeros(codings), seeds, spread, draws).max() > 1 for _ in range(RUNS)]
    print(f"{codings} equal codings, {seeds} seeds, spread {spread}: {np.mean(err):.1%} err")
    assert np.mean(err) < MOST


@pytest.mark.thorough
def test_if_all_codings_are_equal_on_shared_images_the_same_holds() -> None:
    """Return codings that differ by seed, image and chance, but not on average."""
    draws, images, shape = np.random.default_rng(11), 250, (6, 3)
    a, b = np.triu_indices(6, 1)
    err = []
    for _ in range(RUNS):
        ease = draws.normal(1, 1, images) + draws.normal(0, 0.4, (6, 1, images))
        right = ease + draws.normal(0, 0.3, (*shape, 1)) > draws.normal(0, 0.5, (*shape, images))
        right = right[np.argsort(-right.mean((1, 2)))].reshape(18, images)
        place = np.arange(18).reshape(shape)
        found = ties._over_images(right, place[a], place[b], np.ones((15, 3), bool))
        err.append(ties._Tests(6, a, b, found).ranks(np.full(6, -1)).max() > 1)
    print(f"6 equal codings on {images} images: {np.mean(err):.1%} err")
    assert np.mean(err) < MOST


@pytest.mark.thorough
@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
@pytest.mark.parametrize("best", [1, 2, 10, 19])
def test_a_coding_that_is_truly_the_best_has_another_rank_in_at_most_5_percent(
    best: int, seeds: int
) -> None:
    """Return 20 codings, of which the last ``best`` are equally good and the others far worse."""
    draws, means = np.random.default_rng(12), np.repeat([-100.0, 0.0], [20 - best, best])
    above = np.array([simulated(means, seeds, 0.0, draws)[-best:] > 1 for _ in range(RUNS)])
    each, some = above.mean(0).max(), above.any(1).mean()
    print(f"{best} best of 20, {seeds} seeds: one of them {each:.1%}, any of them {some:.1%}")
    assert above[:, -1].mean() < MOST


# --- what takes part ------------------------------------------------------------------------------


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
    assert "rank:" not in printed(table) and table["letters"].isna().all()


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
    assert ranks(table) == {"a": 1, "b": 2, "x": 1, "y": 2, "z": 2}
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
        "paired over seeds; test images are not paired, because predictions are missing or there "
        "are more than 1,000 cells or 3,000,000 predictions)." in notes(table)
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
