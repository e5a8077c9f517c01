import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import codingbench as cb
from codingbench.analysis.conditions import matching
from codingbench.analysis.selection import EVERYTHING, select
from codingbench.cli.main import app
from codingbench.errors import CodingbenchError, SpecError
from codingbench.store.folder import Store
from tests.conftest import row
from tests.report_stores import store_of

CELLS = [
    {"encoder": "gac", "num_steps": 4, "seed": 0, "epochs": 4, "accuracy": 0.5, "host": "a"},
    {"encoder": "gac", "num_steps": 6, "seed": 1, "epochs": 9, "accuracy": 0.7, "host": None},
    {"encoder": "rate", "num_steps": 4, "seed": 1, "epochs": 4, "accuracy": 0.9, "host": "b"},
]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return store_of(tmp_path / "results", *CELLS)


def chosen(store: Store, **options: Any) -> list[int]:
    keys = select(options).of(store.read("cells"))["key"]
    return [int(key, 16) for key in keys]


@pytest.mark.parametrize(
    ("options", "cells"),
    [
        ({}, [0, 1, 2]),
        ({"encoders": "gac"}, [0, 1]),
        ({"encoders": "gac,rate", "T": "4"}, [0, 2]),
        ({"seeds": "1,"}, [1, 2]),
        ({"seeds": 2}, [0, 1, 2]),
        ({"where": "epochs >= 5"}, [1]),
        ({"where": "accuracy > 0.6 and not T == 6"}, [2]),
        ({"where": "0.5 <= accuracy < 0.9"}, [0, 1]),
        ({"where": "encoder in ['rate', 'direct'] or seed == 0"}, [0, 2]),
        ({"where": "'at' in encoder"}, [2]),
        ({"where": "started_at < '2026-01-03'"}, [0, 1, 2]),
        ({"where": ["T == 4", "seed == 1"]}, [2]),
        ({"where": "host != 'a'"}, [2]),
        ({"where": "host not in ['a']"}, [2]),
        ({"where": "deterministic == True and seed > -1"}, [0, 1, 2]),
        ({"where": "seed < T"}, [0, 1, 2]),
    ],
)
def test_cells_are_selected_by_all_options_together_and_unknown_values_by_none(
    store: Store, options: dict[str, Any], cells: list[int]
) -> None:
    assert chosen(store, **options) == cells


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"T": "3"}, r"no cell of T=3 \(there are T=4, 6\)"),
        ({"encoders": "gca"}, "unknown coding in these results 'gca'; did you mean 'gac'"),
        ({"recipe": "modern"}, r"unknown recipe in these results 'modern' \(known: text\)"),
        ({"seeds": "5,"}, r"no cell of seed=5 \(there are seed=0, 1\)"),
        ({"T": "6", "encoders": "rate"}, "--encoders rate alone selects 1, --T 6 alone selects 1"),
        (
            {"where": "epochs > 9"},
            r'--where "epochs > 9" alone selects 0 \(there are epochs=4, 9',
        ),
        ({"where": "epoch > 1"}, "no column 'epoch'; did you mean 'epochs'"),
        ({"where": "encoder == gac"}, "no column 'gac'.*text is written in quotes: 'gac'"),
        ({"where": "encoder = 'gac'"}, "equality is written =="),
        ({"where": "encoder == 4"}, "cannot compare a column of text with 4"),
        ({"where": "encoder < 'x'"}, "a column of text has == and != only"),
        ({"where": "seed == 2 ** 9"}, r"cannot compare a column of number with 2 \*\* 9"),
        ({"where": "seed == 10000000000000000000"}, "cannot compare a column of number"),
        ({"where": "finished_at > 'soon'"}, "expected a time such as"),
        ({"where": "seed"}, "cannot use seed as a condition"),
        ({"where": "(" * 500}, "cannot read the condition"),
        ({"where": "x" * 2000}, "at most 1,000 characters"),
    ],
)
def test_what_selects_nothing_says_in_one_line_what_there_is(
    store: Store, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        chosen(store, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "code",
    [
        "__import__('os').system('true') == 0",
        "seed.__class__ == 1",
        "(lambda: seed)() == 1",
        "[s for s in encoder] == 1",
        "@seed == 1",
        "(seed := 1) == 1",
        "f'{seed}' == encoder",
        "seed[0] == 1",
    ],
)
def test_a_condition_executes_nothing(store: Store, code: str) -> None:
    with pytest.raises(SpecError):
        matching(store.read("cells"), code)


def test_the_options_of_a_selection_select_the_same_again(store: Store) -> None:
    selection = select({"encoders": "gac", "T": "4", "seeds": "0,", "where": "epochs >= 4"})
    assert selection.options() == ' --encoders gac --T 4 --seeds 0, --where "epochs >= 4"'
    assert select({}) == EVERYTHING and not EVERYTHING.options()


def run(*arguments: object) -> str:
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, [*map(str, arguments)])
    if isinstance(result.exception, CodingbenchError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return " ".join(result.stdout.split())


def test_a_leaderboard_says_that_its_ranks_are_about_the_selected_rows(store: Store) -> None:
    shown = run("leaderboard", "--results", store.folder, "--T", "4", "--encoders", "gac")
    assert "selected by --encoders gac --T 4: ranks, letters and corrected p-values" in shown
    assert " gac 4 1† " in shown and " rate 4 " not in shown
    assert "selected by" not in run("leaderboard", "--results", store.folder)


def test_failed_cells_are_selected_by_what_is_known_of_them(store: Store) -> None:
    store.record_failure("f" * 16, row("failures", key="f" * 16, encoder="gac", num_steps=4))
    failures = store.read("failures")
    assert len(select({"T": 4}).of_failures(failures)) == 1
    assert len(select({"T": 6}).of_failures(failures)) == 0
    assert len(select({"where": "seed == 1"}).of_failures(failures)) == 1
    assert len(select({"where": "accuracy > 0"}).of_failures(failures)) == 0


def test_the_report_is_about_the_selected_cells(store: Store, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    run("report", "--results", store.folder, "--output", page, "--encoders", "rate")
    text = page.read_text()
    assert "1 finished cell" in text and "selected by --encoders rate" in text


def test_python_selects_with_the_arguments_of_run(store: Store) -> None:
    results = cb.load(store.folder)
    assert results.leaderboard(encoders="gac", T=4)["encoder"].tolist() == ["gac"]
    assert len(results.leaderboard(where="epochs >= 4", seeds=[1])) == 2
    assert len(cb.leaderboard(store.folder, encoders=["gac", "rate"], recipe="text")) == 3


def test_selecting_imports_no_torch() -> None:
    code = "import sys, codingbench.analysis.selection as s; s.select({'T': 4, 'encoders': 'gac'})"
    subprocess.run([sys.executable, "-c", f"{code}\nassert 'torch' not in sys.modules"], check=True)
