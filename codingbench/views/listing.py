"""What the axes of the grid can name: what ``codingbench list`` prints."""

import inspect
from collections.abc import Callable, Iterator
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from codingbench.datasets import dataset_names, get_info
from codingbench.datasets.catalogue import GROUP
from codingbench.errors import SpecError
from codingbench.plugins.entry_points import published
from codingbench.plugins.specs import format_spec
from codingbench.recipes import recipe_names
from codingbench.recipes.recipe import load_recipe
from codingbench.registry import BACKBONES, ENCODERS, Registry, parameters

Line = tuple[str, ...]


def render(kind: str) -> Table:
    """A table of ``encoders``, ``backbones``, ``datasets`` or ``recipes``."""
    heading, lines = _KINDS[kind]
    table = Table(*heading, box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in table.columns[:-1]:
        column.overflow = "fold"
    for line in lines():
        table.add_row(*map(Text, line))
    return table


def _plugins(registry: Registry) -> Iterator[Line]:
    """Each name with its parameters at their defaults, and its file's first sentence."""
    owners = _owners(registry.package)
    for name in registry.names():
        try:
            cls = registry.get(name)
            defaults = {param: p.default for param, p in parameters(cls).items()}
        except SpecError as error:  # of code that is not ours; the others can be named
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
    """What to say of the origin of what is published."""
    return {found.name: f" (of {found.distribution})" for found in published(group)}


def _recipes() -> Iterator[Line]:
    for name in recipe_names():
        recipe = load_recipe(name)
        yield name, str(recipe.epochs), recipe.title


_KINDS: Final[dict[str, tuple[Line, Callable[[], Iterator[Line]]]]] = {
    "encoders": (("encoder", "what it does"), lambda: _plugins(ENCODERS)),
    "backbones": (("backbone", "what it is"), lambda: _plugins(BACKBONES)),
    "datasets": (("data set", "classes", "images", "what it is"), _datasets),
    "recipes": (("recipe", "epochs", "what it is"), _recipes),
}
