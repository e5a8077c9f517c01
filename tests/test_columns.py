"""``--columns``, ``--top``, ``--keys``, several energies, and LaTeX."""

import csv
import io
import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from codingbench.analysis.leaderboard import COLUMNS, GROUP, rows
from codingbench.api.results import load
from codingbench.cli.main import app
from codingbench.errors import SpecError
from codingbench.store.folder import Store
from codingbench.views.asked import Asked
from codingbench.views.columns import CHOICES
from codingbench.views.latex import escaped, to_latex
from codingbench.views.leaderboard import present, ranking
from tests.test_leaderboard import cell, frame

REFERENCE = Path(__file__).parents[1] / "results" / "reference"
STORE = Store(REFERENCE / "fashion_mini")


@cache  # the store does not change, and many tests look at the same table
def shown(form: str = "markdown", **asked: Any) -> str:
    return str(present(STORE, Asked(**asked), form=form))


def headings(text: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith("| "))
    return line.strip("| ").split(" | ")


def test_two_modelled_energies_are_shown_by_default_and_in_json() -> None:
    assert headings(shown())[8:10] == ["modelled µJ/image exact", "modelled µJ/image memory"]
    first = json.loads(shown("json"))[0]
    assert list(first) == [*COLUMNS, "energy_exact_uj", "energy_memory_uj"]
    assert first["energy_uj"] == first["energy_exact_uj"] < first["energy_memory_uj"]
    assert "- modelled: counted operations times the prices of a chip" in shown()


def test_one_convention_is_shown_as_before_and_several_in_their_order() -> None:
    assert headings(shown(energy="paper"))[8:10] == ["modelled µJ/image paper", "selected %"]
    assert list(json.loads(shown("json", energy="paper"))[0]) == list(COLUMNS)
    several = headings(shown(energy="memory,exact,paper"))[8:11]
    assert several == [f"modelled µJ/image {name}" for name in ("memory", "exact", "paper")]
    assert json.loads(shown("json", energy="memory,exact"))[0]["energy_convention"] == "memory"


def test_the_api_has_the_columns_of_the_command() -> None:
    frame_ = load(STORE.folder).leaderboard()
    assert {*frame_.columns} == {*json.loads(shown("json"))[0]}
    assert (frame_["energy_uj"] == frame_["energy_exact_uj"]).all()
    assert "energy_memory_uj" not in load(STORE.folder).leaderboard(energy="memory")
    with pytest.raises(
        SpecError, match="this table shows one energy convention, got 'exact,paper'"
    ):
        load(STORE.folder).leaderboard(energy="exact,paper", bill=True)


def test_columns_are_shown_in_their_order_after_those_that_name_a_row() -> None:
    text = shown(columns="energy:paper,accuracy,energy:memory")
    assert headings(text) == [
        *("encoder", "T", "n", "modelled µJ/image paper", "accuracy %", "modelled µJ/image memory")
    ]
    assert headings(shown(columns="accuracy,n,encoder,T")) == ["accuracy %", "n", "encoder", "T"]
    assert headings(shown(columns="energy"))[3:] == headings(shown())[8:10]


def test_json_and_csv_have_the_fields_of_the_columns() -> None:
    asked = {"columns": "selected,energy:paper,energy:exact"}
    (first, *_), (header, *_) = (
        json.loads(shown("json", **asked)),
        csv.reader(io.StringIO(shown("csv", **asked))),
    )
    assert [*first] == header == [
        *(*GROUP, "encoder", "num_steps", "seeds", "selected_accuracy"),
        *("energy_uj", "energy_convention", "technology", "energy_is_lower_bound", "uncounted"),
        "energy_exact_uj",
    ]  # fmt: skip
    assert first["energy_convention"] == "paper"
    assert first["energy_uj"] == json.loads(shown("json", energy="paper"))[0]["energy_uj"]


@pytest.mark.parametrize("name", CHOICES)
def test_every_column_can_be_shown_alone(name: str) -> None:
    assert "| gac " in shown(columns=name) and json.loads(shown("json", columns=name))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"columns": "acuracy"}, "unknown column 'acuracy'; did you mean 'accuracy'?"),
        ({"columns": "n,n"}, "expected different columns, got 'n' twice"),
        ({"columns": "energy:pper"}, "unknown energy convention 'pper'; did you mean 'paper'?"),
        ({"columns": "n", "bill": True}, "--bill and --columns are different tables"),
        ({"keys": True, "vs_ann": True}, "--vs-ann and --keys are different tables"),
        ({"bill": True, "published": True}, "--bill and --published are different tables"),
        ({"bill": True, "energy": "exact,paper"}, "--bill shows one energy convention, got"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_a_line(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        shown(**asked)


@pytest.mark.parametrize("option", [{}, {"bill": True}, {"energy": "all"}, {"vs_ann": True}])
def test_top_shows_the_first_rows_of_each_group_in_every_format(option: dict[str, Any]) -> None:
    text = shown(top=2, **option)
    assert "| gac " in text and "| rate " not in text and "- 2 more rows without --top." in text
    assert text.count("# ") - shown(**option).count("# ") == -2  # their commands are left out, too
    assert len(json.loads(shown("json", top=2, **option))) == 2
    assert "more row" not in shown(top=4, **option)


def test_ranks_and_their_notes_rest_on_all_rows_whatever_is_shown() -> None:
    text = shown(top=1)
    assert "so all 4 share rank 1 (Holm's correction for 6 pairs" in text


def test_keys_name_the_cells_of_each_row() -> None:
    assert "50ef409e128184b0 8bed6a43b2150466 1b85d115ebdf1263 |" in shown(keys=True)
    assert headings(shown(keys=True, columns="keys,accuracy"))[3:] == ["keys", "accuracy %"]


def test_the_command_takes_all_of_it() -> None:
    options = ["--columns", "accuracy,energy:memory", "--top", "1", "--keys", "--format", "csv"]
    result = CliRunner().invoke(app, ["leaderboard", "--results", str(STORE.folder), *options])
    assert result.exit_code == 0 and len(result.output.splitlines()) == 2


# --- LaTeX ----------------------------------------------------------------------------------------


def two_codings(ahead: float) -> str:
    """Return the LaTeX of two codings with five seeds, the first one ahead by so much."""
    cells = [
        cell(name, seed, accuracy + 0.001 * (seed % 3))
        for name, accuracy in (("a_b[c=1]", 0.5 + ahead), ("direct", 0.5))
        for seed in range(5)
    ]
    return to_latex(ranking(rows(frame(*cells))))


def test_the_top_mean_is_bold_only_if_it_is_significantly_ahead() -> None:
    clear, equal = two_codings(0.3), two_codings(0.0)
    assert r"\textbf{\boldmath 80.08 $\pm$ 0.08}\textsuperscript{a} &" in clear
    assert r"50.08 $\pm$ 0.08\textsuperscript{b} &" in clear and clear.count("textbf") == 1
    assert "textbf" not in equal and equal.count(r"\textsuperscript{a}") == 2


def test_a_table_has_the_lines_of_booktabs_and_one_cell_for_each_column() -> None:
    text = shown("latex")
    body = text.split(r"\begin{tabular}{")[1].split(r"\end{tabular}")[0]
    layout, table = body.split("}", 1)
    lines = [line for line in table.splitlines() if line.endswith(r"\\")]
    assert layout == "rlrrrrrrrrr" and {line.count(" & ") for line in lines} == {len(layout) - 1}
    rules = [line for line in table.splitlines() if line.endswith("rule")]
    assert rules == [r"\toprule", r"\midrule", r"\bottomrule"]
    assert text.count(r"\begin{") == text.count(r"\end{") and "hline" not in text


def test_texts_are_escaped() -> None:
    assert r"a\_b{[}c=1{]} &" in two_codings(0.1)
    assert escaped(r"a\b{c}~^$#&%_") == (
        r"a\textbackslash{}b\{c\}\textasciitilde{}\textasciicircum{}\$\#\&\%\_"
    )
    assert escaped("≥ 3 µJ\n† 日") == r"$\geq$ 3 \textmu{}J \dag{} ?"


@pytest.mark.parametrize("asked", [{}, {"bill": True}, {"vs_ann": True}, {"energy": "all"}])
def test_every_table_is_ascii_or_latin_with_balanced_braces(asked: dict[str, Any]) -> None:
    text = shown("latex", **asked)
    assert max(text) <= "\u017f"
    plain = re.sub(r"\\[{}]", "", text)
    assert plain.count("{") == plain.count("}")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_it_compiles(tmp_path: Path) -> None:
    document = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n%s\\end{document}"
    (tmp_path / "table.tex").write_text(document % shown("latex"), encoding="utf-8")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "table.tex"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0
