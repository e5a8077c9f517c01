"""Cells are stale if their plug-in or recipe has changed since they were run."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from codingbench.analysis.staleness import is_stale, plugin_hashes
from codingbench.plugins.family import family
from codingbench.recipes.recipe import load_recipe
from codingbench.registry import BACKBONES, ENCODERS, Registry

ROOT = Path(__file__).parents[1]


def cell(**changes: Any) -> dict[str, Any]:
    return {
        "encoder": "gac[kernel_size=3]",
        "encoder_code": ENCODERS.resolve("gac").code,
        "backbone": "csnn",
        "backbone_code": BACKBONES.resolve("csnn").code,
        "neuron": "default",
        "neuron_code": None,
        "recipe": "quick",
        "recipe_hash": load_recipe("quick").hash,
        **changes,
    }


def test_what_the_code_here_would_run_is_not_stale() -> None:
    assert is_stale(pd.DataFrame([cell()])).tolist() == [False]


@pytest.mark.parametrize("column", ["encoder_code", "backbone_code", "recipe_hash"])
def test_other_code_of_the_same_name_is_stale(column: str) -> None:
    assert is_stale(pd.DataFrame([cell(), cell(**{column: "0" * 12})])).tolist() == [False, True]


def test_files_of_the_users_own_are_not_looked_for() -> None:
    own = cell(encoder="MyCoding[p=1]", encoder_code="0" * 12)
    own |= {"recipe": "my_recipe", "recipe_hash": "0" * 12}
    assert is_stale(pd.DataFrame([own])).tolist() == [False]


def test_the_code_of_a_shipped_plugin_is_the_one_in_stores_of_earlier_versions() -> None:
    assert cell()["encoder_code"] == "9f5147ffdad2"  # the file's SHA-256 before its words changed


@pytest.mark.parametrize("registry", [ENCODERS, BACKBONES], ids=lambda registry: registry.kind)
def test_without_importing_plugins_their_codes_are_those_of_their_classes(
    registry: Registry,
) -> None:
    hashes = plugin_hashes(registry)
    assert len(hashes) >= 5 and hashes == {name: registry.resolve(name).code for name in hashes}


def test_a_plugins_family_is_what_it_imports_from_beside_it(tmp_path: Path) -> None:
    for name, text in {
        "a": "from .b import B\nfrom codingbench.encoder import Setting\nimport os",
        "b": "from ._c import C\nfrom .a import A\nfrom ._gone import D",
        "_c": "",
        "apart": "",
    }.items():
        (tmp_path / f"{name}.py").write_text(text)
    assert [file.stem for file in family(tmp_path / "a.py")] == ["a", "b", "_c"]
