"""How to cite what a leaderboard shows: codingbench itself, and the sources of what was run."""

import ast
import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

import codingbench
from codingbench.energy import get_convention, get_technology
from codingbench.plugins.specs import plain_name
from codingbench.recipes import recipe_names
from codingbench.registry import BACKBONES, ENCODERS, Registry


def bibtex(cells: pd.DataFrame) -> str:
    """A BibTeX entry for codingbench as it made the cells: all versions that did, the oldest cell's
    first, and the year of the newest cell.

    Where the cells do not tell their version it is that of this codingbench; the year is then left
    out if they do not tell that either.

    Args:
        cells: of the table ``cells``.
    """
    made = cells.sort_values("finished_at")
    versions = made["codingbench_version"].dropna().unique()
    # from a stranger's store anything may come, which LaTeX would obey
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
    conventions: Iterable[str] = (),
    technologies: Iterable[str] = (),
) -> dict[str, str]:
    """What each is, ``encoder gac``, ``recipe quick`` or ``energy exact`` -> where it is from.

    Those that do not ship with codingbench, or tell no source, are left out. Nothing is imported.

    Args:
        encoders, backbones: labels, their parameters ignored.
        recipes: names.
        conventions, technologies: as :mod:`codingbench.energy` takes them.

    Raises:
        SpecError: no such convention or technology.
    """
    from codingbench.recipes.recipe import load_recipe  # imports pydantic, which takes a while

    there = recipe_names()
    return {
        **_of_plugins(ENCODERS, encoders),
        **_of_plugins(BACKBONES, backbones),
        **{f"recipe {n}": load_recipe(n).source for n in dict.fromkeys(recipes) if n in there},
        **{f"energy {c.name}": c.source for c in map(get_convention, conventions)},
        **{f"prices {t.name}": t.source for t in map(get_technology, technologies)},
    }


def _of_plugins(registry: Registry, labels: Iterable[str]) -> dict[str, str]:
    files = registry.shipped()
    names = [name for name in dict.fromkeys(map(plain_name, labels)) if name in files]
    found = {f"{registry.kind} {name}": _source_of(files[name]) for name in names}
    return {what: text for what, text in found.items() if text}


def _source_of(file: Path) -> str:
    """The paragraph of the module's docstring that begins ``Source:``; empty if there is none."""
    docstring = ast.get_docstring(ast.parse(file.read_bytes())) or ""
    for paragraph in docstring.split("\n\n"):
        heading, _, text = paragraph.partition(":")
        if heading in ("Source", "Sources"):
            return " ".join(text.split())
    return ""
