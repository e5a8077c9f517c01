"""``codingbench list``: the names that a grid can use."""

import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner, Result

from codingbench.cli.listing import list_plugins
from codingbench.datasets import catalogue
from codingbench.energy import CONVENTIONS
from codingbench.recipes import recipe_names
from codingbench.registry import BACKBONES, ENCODERS

app = typer.Typer()
app.command()(list_plugins)


def listed(kind: str) -> Result:
    return CliRunner().invoke(app, [kind], env={"COLUMNS": "100", "TERMINAL_WIDTH": "100"})


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("encoders", list(ENCODERS.shipped())),
        ("backbones", list(BACKBONES.shipped())),
        ("datasets", list(catalogue())),
        ("recipes", recipe_names()),
        ("energies", list(CONVENTIONS)),
    ],
)
def test_every_name_is_listed_in_its_own_line(kind: str, names: list[str]) -> None:
    result = listed(kind)
    assert result.exit_code == 0, result.output
    starts = [line.split()[0].split("[")[0] for line in result.output.splitlines() if line.strip()]
    for name in names:
        assert starts.count(name) == 1


def test_encoders_show_their_parameters_at_their_defaults() -> None:
    shown = " ".join(listed("encoders").output.split())
    assert "direct[spiking=true]" in shown
    assert "delta[background=0.0,threshold=0.2]" in shown
    assert "the brighter a pixel, the more often it spikes" in shown


def test_data_sets_show_classes_images_and_size() -> None:
    line = next(row for row in listed("datasets").output.splitlines() if "cifar100" in row)
    assert "100" in line and "50,000 + 10,000, 3x32x32" in line


def test_an_unknown_kind_is_refused_with_the_known_kinds() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "codingbench", "list", "encodrs"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: unknown kind of list 'encodrs'; did you mean 'encoders'?")
    assert all(
        kind in done.stderr for kind in ("encoders", "backbones", "datasets", "recipes", "energies")
    )


def test_a_result_can_be_piped_without_colours() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "codingbench", "list", "recipes"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert "gac" in done.stdout
