"""``codingbench run --help``, as a user reads it."""

import re

import pytest
from typer.testing import CliRunner

from codingbench.cells.grid import Grid
from codingbench.cli.main import app

PANELS = ("What to run", "Training", "Where and how", "Data", "Output")


def help_of(command: str, columns: int) -> str:
    runner = CliRunner(env={"COLUMNS": str(columns), "NO_COLOR": "1"})
    result = runner.invoke(app, [command, "--help"])
    assert result.exit_code == 0
    return result.stdout


def test_brackets_of_an_example_are_not_taken_for_markup() -> None:
    text = help_of("run", 100)
    assert 'Example: codingbench run --encoders "gac,latency[scale=log]"' in text
    assert "name[param=a|b]" in text


def test_options_stand_in_panels_in_the_order_of_a_users_questions() -> None:
    lines = help_of("run", 80).splitlines()
    headings = [re.sub(r"[╭─╮ ]+", " ", line).strip() for line in lines if line.startswith("╭")]
    assert headings == ["Options", *PANELS]
    assert max(map(len, lines)) <= 80


def test_the_shown_defaults_are_those_of_the_grid() -> None:
    words = " ".join(re.sub(r"[│\n]", " ", help_of("run", 120)).split())
    defaults = {
        "--encoders": ",".join(Grid().encoders),
        "--backbones": ",".join(Grid().backbones),
        "--dataset": ",".join(Grid().datasets),
        "--T": str(Grid().num_steps[0]),
        "--seeds": str(len(Grid().seeds)),
        "--recipe": ",".join(Grid().recipes),
        "--precision": Grid().precision,
    }
    for flag, default in defaults.items():
        (shown,) = re.findall(rf"{flag} [A-Z]+ .*?\[default: (.*?)\]", words)
        assert shown == default


@pytest.mark.parametrize("flag", ["--epochs", "--batch-size", "--workers", "--train-samples"])
def test_options_that_take_a_number_say_so(flag: str) -> None:
    assert re.search(rf"{flag} +INT ", help_of("run", 80))
