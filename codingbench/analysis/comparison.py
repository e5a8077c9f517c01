"""Compare codings pair by pair: the differences, their confidence intervals and tests.

A pair is compared wherever both codings have cells of the same group (data set, files, images,
recipe, epochs, batch size, precision, backbone) and T. Runs are paired by seed, because runs of
one seed have the same initial weights and order of the data, and predictions are paired by test
image. The tests are in :mod:`codingbench.analysis.statistics`.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, Final

import numpy as np
import pandas as pd
from jaxtyping import Int

from codingbench.analysis.chance import chance_of
from codingbench.analysis.leaderboard import CODE, GROUP, latest_of
from codingbench.analysis.learning import collapsed, guessing_seeds, signs_of, with_signs
from codingbench.analysis.ranks import SEEDS, SEEDS_AND_IMAGES, Reader
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
from codingbench.errors import SpecError, unknown
from codingbench.plugins.specs import format_spec, parse_spec, split_list
from codingbench.registry import ENCODERS
from codingbench.store.correctness import Predictions, side_by_side

POINT: Final = 0.01
"""The half-width of the interval that ``seeds_needed`` refers to: one percentage point."""

COLUMNS: Final[dict[str, str]] = dict.fromkeys(GROUP, "as in the table cells") | {
    "num_steps": "T, of both codings",
    "encoder_a": "canonical name; differences are a - b",
    "encoder_b": "the coding it is compared with",
    "seeds": "number of seeds that both have; the following columns use only these",
    "images": "test images",
    "chance": "share of the most frequent class among the test labels; 1 / number of classes where "
    "classes are equal or labels are unknown",
    "accuracy_a": "mean test accuracy over the seeds after the last epoch, in [0, 1]",
    "accuracy_b": "the same of the other coding",
    "balanced_accuracy_a": "mean over classes of the share of their test images classified "
    "correctly; mean over seeds; null where classes are equal or predictions are unknown",
    "balanced_accuracy_b": "the same of the other coding",
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
    "energy_delta_uj": "microjoules per image of a - b, mean over the seeds",
    "energy_convention": "name of the convention",
    "technology": "name of the technology",
    "mixed_code": "the cells were not all run by the same plug-in code and recipe",
    "stale": "a plug-in or recipe of this package has changed since one of the cells was run",
    "code_channels_a": "channels of the code of a for each channel of the image; where the two "
    "differ, so do the stems",
    "code_channels_b": "the same of the other coding",
    "signs_a": "signs that cells of encoder_a learned nothing, one sentence each; mostly empty",
    "signs_b": "the same of the other coding",
    "collapsed_a": "seeds of encoder_a at chance while others are above it; mostly empty",
    "collapsed_b": "the same of the other coding",
    "keys_a": "keys of the cells, by seed",
    "keys_b": "keys of the other coding's cells, by seed",
}
"""The columns of :func:`compare`, in order: the keys of the JSON and CSV output."""

_WHOLE: Final = (
    *("seeds", "images", "comparisons", "seeds_needed"),
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
    found = [_label(name, known) for name in names]
    if len(found) < 2:
        raise SpecError(f"expected at least two codings to compare, got {', '.join(names)!r}")
    for label in found:
        if found.count(label) > 1:
            raise SpecError(f"expected different codings, got {label!r} twice")
    return found


def compare(
    cells: pd.DataFrame,
    encoders: Sequence[str],
    pricing: Pricing = DEFAULT_PRICING,
    answers: Reader | None = None,
) -> pd.DataFrame:
    """Return one row per pair of codings, group and T where both have cells.

    Args:
        cells: the table ``cells``, or a part of it.
        encoders: canonical labels, each once; the first of a pair is a.
        pricing: turns counts into energies.
        answers: reads the predictions of cells; None to compare over seeds only.

    Returns:
        A data frame with the columns ``COLUMNS``.

    Raises:
        SpecError: no two codings have cells of the same group and T.
    """
    priced_by = (pricing.convention.name, pricing.technology.name)
    is_known = np.isfinite(cells["accuracy"])  # it may be missing in a store of unknown origin
    latest = latest_of(cells[is_known & cells["encoder"].isin(encoders)])
    latest = latest.assign(energy_uj=pricing.energy_uj(latest), stale=is_stale(latest))
    latest = latest.join(chance_of(latest, answers))
    pairs = [
        row | dict(zip(("energy_convention", "technology"), priced_by, strict=True))
        for _, group in latest.groupby([*GROUP, "num_steps"], dropna=False)
        for row in _pairs(group, encoders, answers)
    ]
    if not pairs:
        raise SpecError(_nothing_shared(latest, encoders))
    table = pd.DataFrame(pairs, columns=list(COLUMNS))
    tested = table["p"].notna()
    table.loc[tested, "p_holm"] = holm(table.loc[tested, "p"].to_numpy(float))
    table["comparisons"] = int(tested.sum())
    return table.astype(dict.fromkeys(_REAL, float) | dict.fromkeys(_WHOLE, "Int64"))


def at_steps(cells: pd.DataFrame, num_steps: str | None) -> pd.DataFrame:
    """Return the cells of the T in a comma-separated list, or all cells when it is None.

    Raises:
        SpecError: the list holds something other than whole numbers, or a T without cells.
    """
    if num_steps is None:
        return cells
    try:
        wanted = [int(text) for text in split_list(num_steps)]
    except ValueError:
        raise SpecError(f"T must be whole numbers, got {num_steps!r}") from None
    present = sorted(cells["num_steps"].unique())
    for steps in wanted:
        if steps not in present:
            raise SpecError(f"no cell of T={steps} (there are T={', '.join(map(str, present))})")
    return cells[cells["num_steps"].isin(wanted)]


def _label(name: str, known: Sequence[str]) -> str:
    spec = parse_spec(name)
    plain = format_spec(spec.name, dict(spec.params))
    if plain in known:
        return plain
    is_plugin = ":" in spec.name or spec.name in ENCODERS.names()
    label = ENCODERS.resolve(name).label if is_plugin else plain
    if label not in known:
        raise SpecError(unknown("coding in these results", label, known))
    return label


def _nothing_shared(cells: pd.DataFrame, encoders: Sequence[str]) -> str:
    """Return why no two codings can be compared; different files of one name are named."""
    but_files = [*(name for name in GROUP if name != "dataset_fingerprint"), "num_steps"]
    for _, group in cells.groupby(but_files, dropna=False):
        if group["encoder"].nunique() > 1:
            files = group.groupby("encoder")["dataset_fingerprint"].unique()
            hashes = "; ".join(f"{label}: {', '.join(map(str, of))}" for label, of in files.items())
            dataset = group["dataset"].iloc[0]
            return f"the files of {dataset} differ, so nothing can be compared (hash of {hashes})"
    names = ", ".join(encoders)
    return f"no two of {names} have cells of the same T, data set, recipe and backbone"


def _pairs(
    group: pd.DataFrame, encoders: Sequence[str], answers: Reader | None
) -> Iterator[dict[str, Any]]:
    """Yield the pairs among the cells of one group and T."""
    runs = {label: part.set_index("seed") for label, part in group.groupby("encoder")}
    present = [label for label in encoders if label in runs]
    known = answers(group) if answers and len(present) > 1 else {}
    for a, b in combinations(present, 2):
        seeds = runs[a].index.intersection(runs[b].index).sort_values()
        yield _pair(runs[a].loc[seeds], runs[b].loc[seeds], known) | {
            **{name: group[name].iloc[0] for name in [*GROUP, "num_steps"]},
            "encoder_a": a,
            "encoder_b": b,
            "chance": group["chance"].iloc[0],
            "images": group["images"].min(),
        }


def _pair(a: pd.DataFrame, b: pd.DataFrame, known: Mapping[str, Predictions]) -> dict[str, Any]:
    """Compare two codings, given their cells of the same seeds."""
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
        "energy_delta_uj": (a["energy_uj"] - b["energy_uj"]).mean(),
        "mixed_code": _is_mixed(a, b),
        "stale": bool(a["stale"].any() or b["stale"].any()),
        "code_channels_a": a["code_channels"].max(),
        "code_channels_b": b["code_channels"].max(),
        "signs_a": signs_of(a.reset_index()),
        "signs_b": signs_of(b.reset_index()),
        "collapsed_a": _collapsed(a),
        "collapsed_b": _collapsed(b),
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


def _is_mixed(a: pd.DataFrame, b: pd.DataFrame) -> bool:
    own, *common = CODE  # each coding has its own encoder code
    counts = [a[own].nunique(), b[own].nunique(), *pd.concat([a, b])[common].nunique()]
    return any(count > 1 for count in counts)
