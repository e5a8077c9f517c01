"""A published protocol, and its published numbers compared with measured ones point by point."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pandas as pd

from codingbench.analysis.learning import signs_of
from codingbench.analysis.lower_bounds import uncounted_of
from codingbench.cells.grid import Job
from codingbench.errors import SpecError, unknown
from codingbench.literature.published import Published, published
from codingbench.recipes.recipe import Recipe, load_recipe
from codingbench.registry import DEFAULT_NEURON
from codingbench.runtime.formatting import first_few
from codingbench.runtime.toml_files import read_toml

FOLDER: Final = Path(__file__).with_name("protocols")


@dataclass(frozen=True)
class Protocol:
    """A paper's experiments, as far as a grid can express them.

    Args:
        name: name of the protocol on the command line.
        title: heading of the comparison.
        source: the paper.
        claims: source of the published results.
        baseline: source of the results that the gain is usually quoted over.
        codings: the paper's coding, then the codings that its gain is measured over.
        train_samples: training images of the full protocol.
        test_samples: test images of the full protocol.
        departures: differences from the paper that even a full run has.
        settings: of ``codingbench run``, by name.
    """

    name: str
    title: str
    source: str
    claims: str
    baseline: str
    codings: tuple[str, ...]
    train_samples: int
    test_samples: int
    departures: tuple[str, ...]
    settings: dict[str, Any]


@dataclass(frozen=True)
class Point:
    """One published number beside the measured one; accuracies and gains are in percent.

    Args:
        dataset: coordinate of the number, as are ``num_steps`` and ``backbone``.
        what: the quantity, with its unit.
        reported: the published number, if there is one.
        measured: mean over seeds, if there are any.
        measured_std: sample standard deviation; None for fewer than two seeds.
        seeds: number of seeds.
        gap: measured - reported.
        source: of the published number.
        chosen_on_test: test images chose the epoch, so ``measured`` is too high by an unknown
            amount. It stands only beside a number that was chosen in the same way.
    """

    dataset: str
    num_steps: int
    backbone: str
    what: str
    reported: float | None
    measured: float | None
    measured_std: float | None
    seeds: int
    gap: float | None
    source: str | None
    chosen_on_test: bool = False


def protocol_names() -> list[str]:
    """Return the names of all protocols."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_protocol(name: str) -> Protocol:
    """Load a protocol by its name.

    Raises:
        SpecError: there is no such protocol.
    """
    if name not in protocol_names():
        raise SpecError(unknown("protocol", name, protocol_names()))
    _, values = read_toml(FOLDER / f"{name}.toml", "protocol")
    lists = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    return Protocol(name, **(values | lists))


def points(
    protocol: Protocol,
    jobs: Sequence[Job],
    cells: pd.DataFrame,
    epochs: pd.DataFrame | None = None,
) -> list[Point]:
    """Return the published numbers for the data sets and T of the jobs, beside the measured ones.

    Args:
        protocol: names the published results.
        jobs: the jobs of the run.
        cells: rows of table ``cells`` of the finished ones among them.
        epochs: their rows of table ``epochs``; None: test accuracies of epochs are unknown.
    """
    cells = cells.assign(best_test_accuracy=_best_tests(cells, epochs))
    columns = ["dataset", "num_steps", "backbone"]
    places = dict.fromkeys(tuple(getattr(job.cell, name) for name in columns) for job in jobs)
    return [
        point
        for place in places
        for point in _points_at(protocol, place, cells[(cells[columns] == list(place)).all(axis=1)])
    ]


def untested(cells: pd.DataFrame, epochs: pd.DataFrame) -> list[str]:
    """Return the keys of cells whose best test epoch is unknown.

    Args:
        cells, epochs: as :func:`points` takes them.
    """
    return cells["key"][_best_tests(cells, epochs).isna()].tolist()


def _best_tests(cells: pd.DataFrame, epochs: pd.DataFrame | None) -> "pd.Series[float]":
    """Return the best test accuracy of all epochs of each cell; NaN unless all are known."""
    if epochs is None:
        return pd.Series(float("nan"), cells.index)
    by_key = epochs.groupby("key")["test_accuracy"]
    is_complete = by_key.count() == by_key.size()
    best = by_key.max().where(is_complete).reindex(cells["key"])
    return best.astype(float).set_axis(cells.index)


def signs(cells: pd.DataFrame) -> list[str]:
    """Return a line for each sign that a cell learned nothing or that work was not counted.

    Each line begins with the coordinates of the cell.
    """
    return [
        f"{row.encoder} on {row.dataset} at T={row.num_steps}, seed {row.seed}: {sign}"
        for place, row in enumerate(cells.itertuples())
        for sign in _signs(cells.iloc[[place]])
    ]


def _signs(cell: pd.DataFrame) -> list[str]:
    (uncounted,) = uncounted_of(cell)
    missing = f"not counted, so its energy is too low: {first_few(uncounted)}"
    return signs_of(cell) + ([missing] if uncounted else [])


def departures(protocol: Protocol, jobs: Sequence[Job]) -> list[str]:
    """Return how the jobs differ from the protocol, one line each."""
    full = _full(protocol)
    found = {name: {getattr(job.cell, name) for job in jobs} for name in full}
    found["recipe"] = {_recipe_name(job.recipe, protocol) for job in jobs}
    other = {name: sorted(values - {*full[name]}) for name, values in found.items()}
    changed = [
        f"{_SHOWN.get(name, name.replace('_', ' '))}: {_listed(values)} instead of "
        f"{_listed(full[name])}"
        for name, values in other.items()
        if values
    ]
    return changed + list(protocol.departures)


_SHOWN: Final = {"num_steps": "T"}


def _full(protocol: Protocol) -> dict[str, list[Any]]:
    """Return the values that the coordinates of the complete protocol's cells have."""
    settings, recipe = protocol.settings, load_recipe(protocol.settings["recipe"])
    values = {
        "dataset": settings["dataset"],
        "num_steps": settings["T"],
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "train_samples": protocol.train_samples,
        "test_samples": protocol.test_samples,
        "recipe": recipe.name,
        "backbone": settings["backbones"],
        "neuron": DEFAULT_NEURON,
        "precision": "fp32",
    }
    return {name: value if isinstance(value, list) else [value] for name, value in values.items()}


def _recipe_name(recipe: Recipe, protocol: Protocol) -> str:
    """Return the recipe's name, and say so if another recipe has the name of the protocol's."""
    own = load_recipe(protocol.settings["recipe"])
    is_namesake = recipe.name == own.name and recipe.hash != own.hash
    return f"{recipe.name} with other settings" if is_namesake else recipe.name


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))


def _points_at(
    protocol: Protocol, place: tuple[str, int, str], cells: pd.DataFrame
) -> Iterator[Point]:
    dataset, num_steps, _ = place
    coding, *others = protocol.codings
    claims = {name: _published(protocol, name, dataset, num_steps) for name in protocol.codings}
    reported = {name: None if c is None else 100 * c.accuracy for name, c in claims.items()}
    source = {name: None if c is None else _cited(c) for name, c in claims.items()}
    by_name = {name: cells[cells["encoder"] == name].set_index("seed") for name in protocol.codings}
    runs = {name: 100 * rows["accuracy"] for name, rows in by_name.items()}
    for name in protocol.codings:
        yield _point(place, f"accuracy of {name}, %", reported[name], runs[name], source[name])
    selected = 100 * by_name[coding]["selected_accuracy"]
    what = f"{coding}, epoch by validation, %"
    yield _point(place, what, reported[coding], selected, source[coding])
    best = (100 * by_name[coding]["best_test_accuracy"]).dropna()
    at_best = _point(place, f"{coding}, best test epoch, %", reported[coding], best, source[coding])
    yield replace(at_best, chosen_on_test=True)
    for other in others:
        gain, both = None, None
        if (ours := reported[coding]) is not None and (theirs := reported[other]) is not None:
            gain, both = ours - theirs, f"{source[coding]} - {source[other]}"
        paired = (runs[coding] - runs[other]).dropna()  # over the seeds that both codings have
        yield _point(place, f"gain over {other}, points", gain, paired, both)
    claim = claims[coding]
    if claim is not None and claim.parameters is not None:
        counts = by_name[coding]["parameters"] / 1e6
        yield _point(
            place, f"parameters of {coding}, M", claim.parameters / 1e6, counts, source[coding]
        )


def _published(protocol: Protocol, encoder: str, dataset: str, num_steps: int) -> Published | None:
    """Return the published result; the protocol's own paper comes before the baseline's."""
    for source in (protocol.claims, protocol.baseline):
        for result in published():
            if (result.source, result.encoder, result.dataset) == (source, encoder, dataset) and (
                result.is_of(num_steps)
            ):
                return result
    return None


def _cited(result: Published) -> str:
    return f"{result.source} ({result.note})" if result.note else result.source


def _point(
    place: tuple[str, int, str],
    what: str,
    reported: float | None,
    values: "pd.Series[float]",
    source: str | None,
) -> Point:
    measured = float(values.mean()) if len(values) else None
    return Point(
        *place,
        what,
        reported,
        measured,
        float(values.std()) if len(values) > 1 else None,
        len(values),
        None if measured is None or reported is None else measured - reported,
        source,
    )
