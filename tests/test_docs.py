"""What the documentation promises: examples in docstrings and in the help run as they stand."""

import doctest
import importlib
import inspect
import pkgutil
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from codingbench.backbone import build_network
from codingbench.cells.network import task_of
from codingbench.cells.settings import make_grid, read_config
from codingbench.cli.main import app
from codingbench.conformance.examination import check_plugin
from codingbench.datasets import get_info
from codingbench.energy import energy_uj
from codingbench.registry import BACKBONES, ENCODERS

ROOT = Path(__file__).parents[1]


def modules() -> list[str]:
    """Import names of every module, those of the top-level folders too."""
    names = ("codingbench", "codingbench.encoders", "codingbench.backbones")
    inside = [
        module.name
        for name in names
        for module in pkgutil.walk_packages(importlib.import_module(name).__path__, f"{name}.")
    ]
    # set: a wheel has the plug-ins below codingbench, where they are met twice
    return sorted({*names, *inside})


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command below ``group`` with the words that call it."""
    for name, command in group.commands.items():
        yield (*path, name), command
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("name", modules())
def test_every_example_in_a_docstring_runs_and_gives_what_it_says(name: str) -> None:
    module = importlib.import_module(name)
    ran = doctest.testmod(module)
    # a docstring that a decorator hides would not be found
    assert ran.attempted == inspect.getsource(module).count(">>> ")
    assert ran.failed == 0


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_one_example_that_parses(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]
    first, *_ = command.help.splitlines()
    examples = re.findall(r"^Example: codingbench (.+)$", command.help, re.MULTILINE)
    assert len(first) > 20 and len(examples) == 1
    words = shlex.split(examples[0])
    assert tuple(words[: len(path)]) == path
    # parses and converts every option and argument, and raises for those that do not exist
    command.make_context(" ".join(path), words[len(path) :]).close()


def fenced(file: str, language: str = "") -> list[str]:
    """The contents of the file's fenced blocks of a language."""
    text = (ROOT / file).read_text()
    blocks = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    return [body for name, body in blocks if name == language]


def test_every_command_line_of_the_readme_parses() -> None:
    lines = [line for block in fenced("README.md") for line in block.splitlines()]
    calls = [shlex.split(line, comments=True)[1:] for line in lines if line[:12] == "codingbench "]
    assert len(calls) >= 8
    for words in calls:
        path = max((p for p in COMMANDS if tuple(words[: len(p)]) == p), key=len)
        COMMANDS[path].make_context(" ".join(path), words[len(path) :]).close()


def test_the_readmes_coding_keeps_the_contract(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ENCODERS, "_classes", dict(ENCODERS._classes))  # its name ends with it
    _, example = fenced("README.md", "python")
    (tmp_path / "retina.py").write_text(example)
    plugin = ENCODERS.resolve(f"{tmp_path / 'retina.py'}:Retina[contrast=0.5]")
    network: Any = build_network(
        plugin, BACKBONES.resolve("csnn"), task_of(get_info("fashion_mini"), 3), seed=0
    )
    images = torch.full((1, 1, 28, 28), 0.5)
    images[0, 0, 14, 14] = 0.9
    spk = network.encoder.spikes(images, torch.Generator())[:, 0, 0]
    # c is 0.4 x 24 / 25 at the bright pixel and -0.4 / 25 around it; levels .5, .25, .125
    assert spk[:, 14, 14].tolist() == [0, 1, 1] and spk[:, 14, 13].tolist() == [0, 0, 0]
    assert spk.abs().sum() == 2
    assert network(images, torch.Generator()).shape == (3, 1, 10)
    assert not check_plugin(f"{tmp_path / 'retina.py'}:Retina").of("failed")


def test_the_readmes_check_of_a_wrong_declaration_is_what_check_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ENCODERS, "_classes", dict(ENCODERS._classes))
    monkeypatch.chdir(tmp_path)
    _, example = fenced("README.md", "python")
    Path("retina.py").write_text(example.replace('emits = "signed"', 'emits = "binary"'))
    run = CliRunner(env={"COLUMNS": "120"}).invoke(app, ["check", "./retina.py:Retina"])
    assert run.exit_code == 1
    block = next(b for b in fenced("README.md") if "declares 'binary'" in b)
    assert not set(block.splitlines()) - {line.rstrip() for line in run.stdout.splitlines()}


def test_the_readmes_look_at_its_coding_is_what_inspect_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ENCODERS, "_classes", dict(ENCODERS._classes))
    monkeypatch.chdir(tmp_path)
    _, example = fenced("README.md", "python")
    Path("retina.py").write_text(example)
    command = ["inspect", "./retina.py:Retina,direct,latency[scale=log]"]
    printed = CliRunner(env={"COLUMNS": "80"}).invoke(app, command).output
    block = next(b for b in fenced("README.md") if "similarity" not in b and "larity" in b)
    assert not set(block.splitlines()) - {line.rstrip() for line in printed.splitlines()}


def test_the_readmes_convention_and_chip_price_counts(tmp_path: Path) -> None:
    example, _ = fenced("README.md", "python")
    file = tmp_path / "mine.py"
    file.write_text(example)
    counts = {"effective_binary": 3e6, "neuron_updates": 1e6, "images": 2}
    # 0.5 pJ x 4e6 of two images
    assert energy_uj(counts, f"{file}:adds", f"{file}:chip") == pytest.approx(1.0)


@pytest.mark.parametrize(
    "command",
    [
        "leaderboard --energy all --format markdown",
        "leaderboard --bill",
        "leaderboard --vs-ann",
        "show 50ef409e",
        "compare retina direct rate",
    ],
)
def test_the_readmes_tables_are_what_the_commands_print(command: str) -> None:
    """Every line of the block in README that begins as some line of the output does."""
    folder = "retina" if "retina" in command else "fashion_mini"
    store = ["--results", str(ROOT / "results/reference" / folder)]
    run = CliRunner(env={"COLUMNS": "100"}).invoke(app, [*command.split(), *store])
    assert run.exit_code == 0, run.output
    printed = {line.rstrip() for line in run.output.splitlines()}
    readme = (ROOT / "README.md").read_text()
    if "markdown" in command:
        shown = [line for line in readme.splitlines() if line.startswith("|") and "#" in line]
    else:
        marks = {
            "--bill": "repeated per mJ",
            "--vs-ann": "QANN",
            "50ef409e": "multiply numbers",
            "retina": "direct is better than retina",
        }
        mark = marks[command.split()[1]]
        block = next(b for b in fenced("README.md") if mark in b)
        shown = [line for line in block.splitlines() if line]
    assert len(shown) >= 4
    assert not set(shown) - printed


def test_the_readmes_settings_file_is_one(tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text(
        next(block for block in fenced("README.md", "toml")).replace("\n  ", "\n")
    )
    grid = make_grid(read_config(tmp_path / "grid.toml"))
    assert (grid.num_steps, grid.seeds, grid.train_samples) == ((2, 4, 6), (0, 1, 2), 10_000)


def test_no_file_names_a_folder_of_a_developers_machine() -> None:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and its folder")
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    machine_path = re.compile(rb"(?<![\w.-])/(root|work|home)/")
    paths = [ROOT / name for name in names.split("\0") if name]
    assert ROOT / "pyproject.toml" in paths
    assert [p for p in paths if p.is_file() and machine_path.search(p.read_bytes())] == []
