"""Cite the results of a leaderboard: codingbench itself, and the sources of what was run."""

import ast
import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

import codingbench
from codingbench.energy import Pricing
from codingbench.plugins.specs import plain_name
from codingbench.recipes import recipe_names
from codingbench.registry import BACKBONES, ENCODERS, NEURONS, Registry


def bibtex(cells: pd.DataFrame) -> str:
    """Return a BibTeX entry for codingbench.

    It names all versions that made the cells, that of the oldest cell first, and the year of the
    newest cell. If the cells do not hold their version, the entry has that of this codingbench. If
    they do not hold their time, it has no year.

    Args:
        cells: rows of the table ``cells``.
    """
    made = cells.sort_values("finished_at")
    versions = made["codingbench_version"].dropna().unique()
    # a store may come from a stranger, and LaTeX would execute what is in it
    plain = [text for text in versions if re.fullmatch(r"[0-9A-Za-z.+!-]+", text)]
    last = made["finished_at"].max()
    fields = {
        "author": "{The codingbench developers}",
        "title": "{codingbench}: a benchmark of input codings of spiking neural networks",
        "version": ", ".join(plain or [codingbench.__version__]),
        **({} if pd.isna(last) else {"year": str(last.year)}),
    }
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
    return "\n".join(["@software{codingbench,", *lines, "}"])


def sources(
    encoders: Iterable[str],
    backbones: Iterable[str] = (),
    recipes: Iterable[str] = (),
    pricings: Iterable[Pricing] = (),
    neurons: Iterable[str] = (),
) -> dict[str, str]:
    """Return the source of each item by its kind and name, such as ``encoder gac``.

    Items that do not ship with codingbench or name no source are left out. Nothing is imported.

    Args:
        encoders, backbones: labels; their parameters are ignored.
        recipes: names.
        pricings: the conventions and technologies of the energies.
        neurons: labels, as those of encoders.
    """
    from codingbench.recipes.recipe import load_recipe  # imports pydantic, which takes a while

    shipped, priced = recipe_names(), list(pricings)
    return {
        **_of_plugins(ENCODERS, encoders),
        **_of_plugins(BACKBONES, backbones),
        **_of_plugins(NEURONS, neurons),
        **{f"recipe {n}": load_recipe(n).source for n in dict.fromkeys(recipes) if n in shipped},
        **{f"energy {p.convention.name}": p.convention.source for p in priced},
        **{
            f"prices {p.technology.name}": p.technology.source
            for p in priced
            if not p.convention.own_prices
        },
    }


def _of_plugins(registry: Registry, labels: Iterable[str]) -> dict[str, str]:
    files = registry.shipped()
    names = [name for name in dict.fromkeys(map(plain_name, labels)) if name in files]
    found = {f"{registry.kind} {name}": _source_of(files[name]) for name in names}
    return {what: text for what, text in found.items() if text}


def _source_of(file: Path) -> str:
    """Return the paragraph of the module's docstring that begins with ``Source:``, or nothing."""
    docstring = ast.get_docstring(ast.parse(file.read_bytes())) or ""
    for paragraph in docstring.split("\n\n"):
        heading, _, text = paragraph.partition(":")
        if heading in ("Source", "Sources"):
            return " ".join(text.split())
    return ""
