"""Cells of plug-ins and recipes that have changed since."""

import hashlib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from codingbench.leaderboard.staleness import is_stale
from codingbench.recipes import load_recipe
from codingbench.registry import BACKBONES, ENCODERS

ROOT = Path(__file__).parents[1]


def cell(**changes: Any) -> dict[str, Any]:
    return {
        "encoder": "gac[kernel_size=3]",
        "encoder_code": ENCODERS.resolve("gac").code,
        "backbone": "csnn",
        "backbone_code": BACKBONES.resolve("csnn").code,
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


def test_the_code_of_a_plugin_is_the_hash_of_its_file() -> None:
    file = (ROOT / "encoders" / "gac.py").read_bytes()
    assert cell()["encoder_code"] == hashlib.sha256(file).hexdigest()[:12]
