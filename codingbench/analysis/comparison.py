"""Compare codings, numbers of steps, backbones, neurons or recipes pair by pair, with tests.

A pair is compared wherever both sides have cells that differ in one coordinate alone: codings, for
instance, within the same group (data set, files, images, recipe, epochs, batch size, precision,
backbone, neuron) and T. Runs are paired by seed, because runs of one seed have the same order of
the data, and of one backbone also the same initial weights. Predictions are paired by test image.
The tests are in :mod:`codingbench.analysis.statistics`. Corrections are for all pairs of the table.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import Any, Final

import numpy as np
import pandas as pd
from jaxtyping import Int

from codingbench.analysis.chance import chance_of
from codingbench.analysis.leaderboard import CODE, GROUP, latest_of
from codingbench.analysis.learning import collapsed, guessing_seeds, signs_of, with_signs
from codingbench.analysis.lower_bounds import is_lower_bound, uncounted_of, union
from codingbench.analysis.ranks import SEEDS, SEEDS_AND_IMAGES, Reader
from codingbench.analysis.selection import label_of
from codingbench.analysis.sides import (
    BETWEEN,
    RECIPE_SETTINGS,
    Between,
    ambiguous,
    nothing_shared,
)
from codingbench.analysis.staleness import is_stale
from codingbench.analysis.statistics import (
    bootstrap_interval,
    d_z,
    gram_of,
    holm,
    images_floor,
    mcnemar,
    over_seeds,
    over_seeds_and_images,
    seeds_needed,
)
from codingbench.energy import DEFAULT_PRICING, Pricing
from codingbench.errors import SpecError
from codingbench.registry import ENCODERS
from codingbench.store.correctness import Predictions, side_by_side

POINT: Final = 0.01
"""The half-width of the interval that ``seeds_needed`` refers to: one percentage point."""

COLUMNS: Final[dict[str, str]] = dict.fromkeys(
    GROUP, "as in the table cells; both values where they are compared, null where they differ"
) | {
    "between": "what the sides a and b are: encoders, T, backbones, neurons or recipes",
    "a": "name of the first side; differences are a - b",
    "b": "the side it is compared with",
    "num_steps": "T, of both sides; null if it is what they differ in",
    "encoder_a": "canonical name of the coding of a",
    "encoder_b": "of b; the same unless codings are compared",
    "seeds": "number of seeds that both have; the following columns use only these",
    "images": "test images",
    "chance": "share of the most frequent class among the test labels; 1 / number of classes where "
    "classes are equal or labels are unknown",
    "accuracy_a": "mean test accuracy over the seeds after the last epoch, in [0, 1]",
    "accuracy_b": "the same of b",
    "balanced_accuracy_a": "mean over classes of the share of their test images classified "
    "correctly; mean over seeds; null where classes are equal or predictions are unknown",
    "balanced_accuracy_b": "the same of b",
    "accuracy_delta": "accuracy_a - accuracy_b; null without a shared seed",
    "basis": f"what p and the interval generalise to: {SEEDS_AND_IMAGES}; {SEEDS} where "
    "predictions are missing; null for one seed",
    "delta_low": "lower end of the difference's 95 % interval, at least -1; null for one seed",
    "delta_high": "its upper end, at most 1",
    "p": "two-sided p-value of the difference; null for one seed",
    "p_holm": "p corrected for all comparisons, Holm's method",
    "comparisons": "number of all comparisons",
    "d_z": "mean / sample standard deviation of the differences per seed; null if they are equal",
    "bootstrap_low": "lower end of the interval by resampling seeds and images; null for one seed",
    "bootstrap_high": "its upper end",
    "seeds_needed": "number of seeds at which the interval would be one point to either side; "
    "null for one seed, or where no number suffices",
    "images_floor": "half-width of the interval with infinitely many seeds; null for one seed",
    "only_a": "images that only a classifies correctly, per seed; empty without predictions",
    "only_b": "images that only b classifies correctly, per seed",
    "odds_ratio": "sum of only_a / sum of only_b; null if the latter is 0",
    "mcnemar_p": "exact p of McNemar's test of the two networks, per seed",
    "selected_delta": "as accuracy_delta, after the epochs of the best validation accuracy",
    "energy_delta_uj": "microjoules per image of a - b, mean over the seeds; null where work was "
    "not counted",
    "energy_convention": "name of the convention",
    "technology": "name of the technology",
    "mixed_code": "the cells were not all run by the same plug-in code and recipe",
    "stale": "a plug-in or recipe has changed since one of the cells was run",
    "code_channels_a": "channels of the code of a for each channel of the image; where the two "
    "differ, so do the stems",
    "code_channels_b": "the same of b",
    "signs_a": "signs that cells of a learned nothing, one sentence each; mostly empty",
    "signs_b": "the same of b",
    "collapsed_a": "seeds of a at chance while others are above it; mostly empty",
    "collapsed_b": "the same of b",
    "uncounted_a": "modules of a's cells whose work could not be counted; mostly empty",
    "uncounted_b": "the same of b",
    "keys_a": "keys of the cells, by seed",
    "keys_b": "keys of the cells of b, by seed",
}
"""The columns of :func:`compare`, in order: the keys of the JSON and CSV output."""

_WHOLE: Final = (
    *(*RECIPE_SETTINGS, "num_steps", "seeds", "images", "comparisons", "seeds_needed"),
    *("code_channels_a", "code_channels_b"),
)
_REAL: Final = (
    *("accuracy_a", "accuracy_b", "balanced_accuracy_a", "balanced_accuracy_b"),
    *("accuracy_delta", "delta_low", "delta_high", "p", "p_holm"),
    *("d_z", "bootstrap_low", "bootstrap_high", "images_floor", "odds_ratio"),
    *("selected_delta", "energy_delta_uj"),
)


def labels(names: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return the canonical labels of ``names``.

    The label of a finished cell is returned as it is. Other names import their plug-in.

    Args:
        names: as ``codingbench run --encoders`` takes them.
        known: the labels of the finished cells.

    Raises:
        SpecError: there are fewer than two names, two names of one coding, or a coding without a
            finished cell.
    """
    found = [label_of(ENCODERS, name, known, "coding") for name in names]
    if len(found) < 2:
        raise SpecError(f"expected at least two codings to compare, got {', '.join(names)!r}")
    for label in found:
        if found.count(label) > 1:
            raise SpecError(f"expected different codings, got {label!r} twice")
    return found


def compare(
    cells: pd.DataFrame,
    sides: Sequence[Any],
    pricing: Pricing = DEFAULT_PRICING,
    answers: Reader | None = None,
    *,
    between: str = "encoders",
    against: Sequence[Any] = (),
) -> pd.DataFrame:
    """Return one row per pair of sides wherever both have cells that differ in nothing else.

    Recipes may also differ in epochs and batch size, if no cells of them agree in these.

    Args:
        cells: the table ``cells``, or a part of it.
        sides: canonical labels or numbers of steps, each once; the first of a pair is a.
        pricing: turns counts into energies.
        answers: reads the predictions of cells; None to compare over seeds only.
        between: one of ``BETWEEN``.
        against: compare each of ``sides`` with each of these, instead of with each other.

    Returns:
        A data frame with the columns ``COLUMNS``.

    Raises:
        SpecError: no two sides have cells that differ in nothing else.
    """
    axis = BETWEEN[between]
    priced_by = (pricing.convention.name, pricing.priced_by)
    is_known = np.isfinite(cells["accuracy"])  # it may be missing in a store of unknown origin
    latest = latest_of(cells[is_known & cells[axis.column].isin([*sides, *against])])
    known_uj = pricing.energy_uj(latest).where(~is_lower_bound(latest))
    latest = latest.assign(
        energy_uj=known_uj, uncounted=uncounted_of(latest), stale=is_stale(latest)
    )
    latest = latest.join(chance_of(latest, answers))
    pairs = [*product(sides, against)] if against else [*combinations(sides, 2)]
    rows = [
        row | dict(zip(("energy_convention", "technology"), priced_by, strict=True))
        for row in _rows(latest, axis, pairs, answers)
    ]
    if not rows:
        raise SpecError(nothing_shared(latest, axis, [*sides, *against]))
    table = pd.DataFrame(rows, columns=list(COLUMNS)).assign(between=between)
    tested = table["p"].notna()
    table.loc[tested, "p_holm"] = holm(table.loc[tested, "p"].to_numpy(float))
    table["comparisons"] = int(tested.sum())
    return table.astype(dict.fromkeys(_REAL, float) | dict.fromkeys(_WHOLE, "Int64"))


_Pairs = Sequence[tuple[Any, Any]]


def _rows(
    cells: pd.DataFrame, axis: Between, pairs: _Pairs, answers: Reader | None
) -> list[dict[str, Any]]:
    """Return the rows of pairs that differ in the axis alone, or else in a recipe's settings."""
    same = [name for name in (*GROUP, "num_steps", "encoder") if name != axis.column]
    rows = list(_rows_within(cells, same, axis, pairs, answers))
    if rows or axis.column != "recipe":
        return rows
    settings = cells.groupby([*same, "recipe"], dropna=False).ngroup()
    same = [name for name in same if name not in RECIPE_SETTINGS]
    for _, group in cells.groupby([*same, "recipe"], dropna=False):
        if settings[group.index].nunique() > 1:
            raise SpecError(ambiguous(group))
    return list(_rows_within(cells, same, axis, pairs, answers))


def _rows_within(
    cells: pd.DataFrame, same: Sequence[str], axis: Between, pairs: _Pairs, answers: Reader | None
) -> Iterator[dict[str, Any]]:
    for _, group in cells.groupby([*same], dropna=False):
        runs = {side: part.set_index("seed") for side, part in group.groupby(axis.column)}
        there = [pair for pair in pairs if runs.keys() >= {*pair}]
        known = answers(group) if answers and there else {}
        for a, b in there:
            seeds = runs[a].index.intersection(runs[b].index).sort_values()
            both = {name: group[name].iloc[0] for name in same if name != "encoder"}
            yield _pair(runs[a].loc[seeds], runs[b].loc[seeds], known, axis) | {
                **both,
                **_named(group, axis, a, b),
                "chance": group["chance"].iloc[0],
                "images": group["images"].min(),
            }


def _named(group: pd.DataFrame, axis: Between, a: Any, b: Any) -> dict[str, Any]:
    """Return the columns that name the two sides."""
    sides = dict(zip("ab", map(axis.label, (a, b)), strict=True))
    if axis.column == "encoder":
        return {**sides, "encoder_a": a, "encoder_b": b}
    encoder = group["encoder"].iloc[0]
    joined = {} if axis.column == "num_steps" else {axis.column: f"{a} and {b}"}
    return {**sides, **joined, "encoder_a": encoder, "encoder_b": encoder}


def _pair(
    a: pd.DataFrame, b: pd.DataFrame, known: Mapping[str, Predictions], axis: Between
) -> dict[str, Any]:
    """Compare two sides, given their cells of the same seeds."""
    keys_a, keys_b = a["key"].tolist(), b["key"].tolist()
    right = side_by_side(known, keys_a + keys_b) if keys_a else None
    d = None if right is None else right[: len(a)].astype(int) - right[len(a) :]
    delta = a["accuracy"] - b["accuracy"]
    return {
        "seeds": len(a),
        "accuracy_a": a["accuracy"].mean(),
        "accuracy_b": b["accuracy"].mean(),
        "balanced_accuracy_a": a["balanced_accuracy"].mean(),
        "balanced_accuracy_b": b["balanced_accuracy"].mean(),
        "accuracy_delta": delta.mean(),
        "d_z": d_z(delta.tolist()),
        "selected_delta": (a["selected_accuracy"] - b["selected_accuracy"]).mean(),
        "energy_delta_uj": (a["energy_uj"] - b["energy_uj"]).mean(skipna=False),
        "mixed_code": _is_mixed(a, b, axis),
        "stale": bool(a["stale"].any() or b["stale"].any()),
        "code_channels_a": a["code_channels"].max(),
        "code_channels_b": b["code_channels"].max(),
        "signs_a": signs_of(a.reset_index()),
        "signs_b": signs_of(b.reset_index()),
        "collapsed_a": _collapsed(a),
        "collapsed_b": _collapsed(b),
        "uncounted_a": union(a["uncounted"]),
        "uncounted_b": union(b["uncounted"]),
        "keys_a": keys_a,
        "keys_b": keys_b,
        **(_tested(delta.to_numpy(), a["images"].min(), d) if len(a) > 1 else {}),
        **_networks(d),
    }


def _tested(delta: Any, images: int, d: Int[np.ndarray, "seed image"] | None) -> dict[str, Any]:
    """Test the difference of the codings, given at least two seeds."""
    shared = np.ones((1, len(delta)), bool)
    resampled = (None, None) if d is None else bootstrap_interval(d)
    if d is None:
        found = over_seeds(delta[None], shared, images)
    else:
        found = over_seeds_and_images(*gram_of(d), shared, images)
    (mean,), (half,), (of_images,) = found.mean, found.half_width(), found.of_images
    of_one_seed = found.of_seeds[0] * len(delta)
    return {
        "basis": SEEDS if d is None else SEEDS_AND_IMAGES,
        "delta_low": max(mean - half, -1.0),
        "delta_high": min(mean + half, 1.0),
        "p": found.p_values()[0],
        "bootstrap_low": resampled[0],
        "bootstrap_high": resampled[1],
        "seeds_needed": seeds_needed(of_one_seed, of_images, images, POINT),
        "images_floor": min(images_floor(of_images, images), 1.0),
    }


def _networks(d: Int[np.ndarray, "seed image"] | None) -> dict[str, Any]:
    """Test the two networks of each seed with McNemar's test."""
    if d is None:
        return {"only_a": [], "only_b": [], "mcnemar_p": []}
    only_a, only_b = ((d == sign).sum(1).tolist() for sign in (1, -1))
    return {
        "only_a": only_a,
        "only_b": only_b,
        "odds_ratio": sum(only_a) / sum(only_b) if sum(only_b) else None,
        "mcnemar_p": [mcnemar(*counts) for counts in zip(only_a, only_b, strict=True)],
    }


def _collapsed(runs: pd.DataFrame) -> list[int]:
    return collapsed(guessing_seeds(with_signs(runs.reset_index())))


def _is_mixed(a: pd.DataFrame, b: pd.DataFrame, axis: Between) -> bool:
    common = [name for name in CODE if name != axis.code]
    own = [side[axis.code].nunique() for side in (a, b) if axis.code]
    return any(count > 1 for count in [*own, *pd.concat([a, b])[common].nunique()])
