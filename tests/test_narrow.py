"""Tables in terminals that are too narrow for them: no number is cut, and names stay whole."""

import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from codingbench.cli.main import app
from codingbench.doctor import Diagnosis
from codingbench.literature.reproduction import Point, load_protocol
from codingbench.views import doctor, reproduction
from codingbench.views.table import Column, rich_table

REFERENCE = Path(__file__).parents[1] / "results" / "reference"
WIDTHS = (40, 60, 80)


def printed(shown: Any, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(shown)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def at(width: int, *arguments: str) -> str:
    run = CliRunner(env={"COLUMNS": str(width)}).invoke(app, [*arguments])
    assert run.exit_code == 0, run.output
    return run.stdout


def numbers(text: str) -> set[str]:
    """Return every number with a decimal point or a separator of thousands."""
    return set(re.findall(r"\d[\d,]*[.,]\d+(?=\s|$)", text))


def tables(text: str) -> str:
    """Return the text without the notes at its end, which wrap between words."""
    return text.split("\nenergy (")[0]


TABLES = [
    ("leaderboard",),
    ("leaderboard", "--bill"),
    ("leaderboard", "--vs-ann"),
    ("leaderboard", "--published"),
    ("leaderboard", "--energy", "all"),
    ("compare", "gac,direct,rate"),
]


@pytest.mark.parametrize("table", TABLES, ids=" ".join)
@pytest.mark.parametrize("store", ["field", "retina"])
def test_every_number_of_a_wide_terminal_is_on_a_narrow_one(
    table: tuple[str, ...], store: str
) -> None:
    if store == "retina" and table[0] == "compare":
        table = ("compare", "rate,direct")
    command = (*table, "--results", str(REFERENCE / store))
    wide = at(250, *command)
    for width in WIDTHS:
        narrow = at(width, *command)
        assert numbers(tables(wide)) <= numbers(tables(narrow))
        assert max(map(len, narrow.splitlines())) <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_names_fold_only_where_their_parts_join(width: int) -> None:
    text = at(width, "leaderboard", "--results", str(REFERENCE / "field"))
    words = {word for line in text.splitlines() for word in line.split()}
    assert {"lowpass", "signed_rate", "13.89", "121,780"} <= words
    assert not words & {"e", "l", "learned_tim", "vector_spat", "exponentia"}


def test_further_tables_repeat_what_names_a_row() -> None:
    columns = [
        Column("place", lambda row: "1"),
        Column("coding", lambda row: row, is_number=False, is_key=True),
        *(Column(f"figure {n}", lambda row: "123,456,789") for n in range(3)),
    ]
    text = printed(rich_table(["gac[heads=2]"], columns), 40)
    assert len(re.findall(r"\bgac\b", text)) == 2 and text.count("123,456,789") == 3
    assert text.count("place") == 1 and text.count("coding") == 2


def test_a_table_that_names_no_row_repeats_its_first_column() -> None:
    columns = [Column(f"figure {n}", f"{n}23,456".format) for n in range(6)]
    text = printed(rich_table([0], columns), 30)
    assert text.count("023,456") > 1 and max(map(len, text.splitlines())) <= 30
    assert all(text.count(f"{n}23,456") == 1 for n in range(1, 6))


def test_a_terminal_narrower_than_a_name_folds_it_and_keeps_the_number() -> None:
    columns = [
        Column("coding", lambda row: "averyveryverylongname", is_number=False),
        Column("µJ", lambda row: "123,456.789"),
    ]
    lines = printed(rich_table([0], columns), 20).splitlines()
    assert "123,456.789" in lines[2] and max(map(len, lines)) <= 20


def test_what_doctor_finds_is_read_in_full_at_forty_columns() -> None:
    found = Diagnosis("memory of /dev/shm", "67,108,864 bytes free", "warn", "use --decoders 0")
    text = printed(doctor.render([found]), 40)
    words = text.split()
    assert {"67,108,864", "/dev/shm", "--decoders", "warn"} <= set(words)
    assert max(map(len, text.splitlines())) <= 40


def test_the_points_of_a_reproduction_keep_their_digits_at_forty_columns() -> None:
    protocol = load_protocol("gac")
    point = Point("cifar100", 4, "csnn", "accuracy, %", 79.83, 78.123, 0.25, 3, -1.707, None)
    text = printed(reproduction.render(protocol, [point], []), 40)
    assert "79.83" in text and "78.12 ± 0.25" in text and "-1.71" in text
