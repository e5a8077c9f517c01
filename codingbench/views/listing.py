"""``codingbench list``: what a grid can name, and the energy conventions of its results."""

import inspect
from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Final

from rich.console import RenderableType

from codingbench.conventions import CONVENTIONS
from codingbench.datasets import dataset_names, get_info
from codingbench.datasets.catalogue import GROUP
from codingbench.errors import SpecError
from codingbench.plugins.entry_points import published
from codingbench.plugins.specs import format_spec
from codingbench.recipes import recipe_names
from codingbench.recipes.recipe import load_recipe
from codingbench.registry import BACKBONES, ENCODERS, NEURONS, Registry, parameters
from codingbench.views.fitting import Fitted
from codingbench.views.table import Column, rich_table
from codingbench.views.writers import DOCUMENT_FORMATS, check_format, written_document

Line = tuple[str, ...]


def render(kind: str) -> Fitted:
    """Render a table of ``encoders``, ``backbones``, ``neurons``, ``datasets``, ``recipes`` or
    ``energies``.
    """
    headings, lines = _KINDS[kind]
    columns = [
        Column(heading, itemgetter(place), is_number=False, is_prose=place > 0)
        for place, heading in enumerate(headings)
    ]
    return rich_table(lines(), columns)


def present(kind: str, form: str = "table") -> str | RenderableType:
    """Return a list as JSON text, one object per line of its table, or as the table.

    Raises:
        SpecError: no such format exists.
    """
    check_format(form, DOCUMENT_FORMATS)
    headings, lines = _KINDS[kind]
    names = [heading.replace(" ", "_") for heading in headings]
    content = [dict(zip(names, line, strict=True)) for line in lines()] if form == "json" else []
    return written_document(content, lambda: render(kind), form)


def _plugins(registry: Registry) -> Iterator[Line]:
    """Yield each name with its default parameters, and the first sentence of its file."""
    owners = _owners(registry.package)
    for name in registry.names():
        try:
            cls = registry.get(name)
            defaults = {param: p.default for param, p in parameters(cls).items()}
        except SpecError as error:  # code of another package; the others are still listed
            yield name, str(error)
            continue
        module = inspect.getmodule(cls)
        text = inspect.getdoc(module) or inspect.getdoc(cls) or ""
        about = text.split("\n\n")[0].replace("\n", " ")
        yield format_spec(name, defaults), about + owners.get(name, "")


def _datasets() -> Iterator[Line]:
    owners = _owners(GROUP)
    for name in dataset_names():
        try:
            info = get_info(name)
        except SpecError as error:
            yield name, "", "", str(error)
            continue
        shape = f"{info.channels}x{info.height}x{info.width}"
        images = f"{info.train_size:,} + {info.test_size:,}, {shape}"
        about = f"{info.title}: {info.about}"
        yield name, str(info.num_classes), images, about + owners.get(name, "")


def _owners(group: str) -> dict[str, str]:
    """Return the distribution of each published name, as a text to append."""
    return {found.name: f" (from {found.distribution})" for found in published(group)}


def _recipes() -> Iterator[Line]:
    for name in recipe_names():
        recipe = load_recipe(name)
        yield name, str(recipe.epochs), recipe.title


def _energies() -> Iterator[Line]:
    for name, convention in CONVENTIONS.items():
        prices = convention.own_prices or "those of --technology"
        yield name, convention.summary, prices


_KINDS: Final[dict[str, tuple[Line, Callable[[], Iterator[Line]]]]] = {
    "encoders": (("encoder", "what it does"), lambda: _plugins(ENCODERS)),
    "backbones": (("backbone", "what it is"), lambda: _plugins(BACKBONES)),
    "neurons": (("neuron", "what it is"), lambda: _plugins(NEURONS)),
    "datasets": (("data set", "classes", "images", "what it is"), _datasets),
    "recipes": (("recipe", "epochs", "what it is"), _recipes),
    "energies": (("convention", "what it sums", "prices"), _energies),
}
