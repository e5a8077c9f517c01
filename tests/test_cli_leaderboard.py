import datetime
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import typer
from typer.testing import CliRunner, Result

from codingbench.cli.leaderboard import leaderboard
from codingbench.cli.show import show
from codingbench.energy import CONVENTIONS
from codingbench.errors import CodingbenchError, SpecError, StoreError
from codingbench.schema import TABLES
from codingbench.store import Store

app = typer.Typer()
app.command()(leaderboard)
app.command()(show)

DAY = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
_VALUES: dict[pa.DataType, Any] = {
    pa.string(): "text",
    pa.bool_(): True,
    pa.timestamp("us", tz="UTC"): DAY,
}
COST = {"effective_binary": 2_000_000, "effective_real": 1_000_000, "paper_acs": 8_000_000.0}
NO_COUNTS = {name: 0 for name in TABLES["steps"].names if name[:4] in ("effe", "dens", "pape")}


def row(table: str, **values: Any) -> dict[str, Any]:
    return {field.name: _VALUES.get(field.type, 1) for field in TABLES[table]} | values


def commit(store: Store, key: str, **values: Any) -> None:
    """A cell of two steps and 10 test images; step 1 costs COST, step 2 half of it."""
    common = {"key": key, "dataset": "digits", "encoder": "gac[heads=2]", "num_steps": 2} | values
    steps = [
        NO_COUNTS
        | COST
        | {"paper_first_macs": 500_000, "accuracy": 0.75, "firing_rate": 0.25, "is_prefix": True}
        | {"code_nonzero": 3, "code_values": 12},
        NO_COUNTS
        | {name: count / 2 for name, count in COST.items()}
        | {"accuracy": 0.875, "firing_rate": 0.125, "is_prefix": False}
        | {"code_nonzero": 6, "code_values": 12},
    ]
    conv = {"layer": "backbone.conv1", "position": 2, "kind": "synapse"}
    lif = {"layer": "backbone.lif1", "position": 3, "kind": "neuron", "input_class": None}
    none = {"spikes": None, "neurons": None, "firing_rate": None}
    layers = [  # neither in the order of execution nor of the steps
        lif | NO_COUNTS | {"step": 1, "spikes": 30, "neurons": 4, "executions": 10},
        lif | NO_COUNTS | {"step": 2, "spikes": 10, "neurons": 4, "executions": 10},
        conv | none | NO_COUNTS | {"step": 2, "input_class": "binary", "executions": 5}
        | {"input_values": 300, "input_rate": 0.1, "effective_binary": 1_000_000},
        conv | none | NO_COUNTS | COST | {"step": 1, "input_class": "real", "executions": 10}
        | {"input_values": 100, "input_rate": 0.5, "dense_real": 50_000_000},
    ]  # fmt: skip
    total = {name: 1.5 * count for name, count in COST.items()}
    cell = NO_COUNTS | total | {"accuracy": 0.875, "num_classes": 10, "images": 10}
    store.commit(
        key,
        {
            "cells": [row("cells", **{**cell, "paper_first_macs": 500_000, **common})],
            "steps": [
                row("steps", **{**step, "images": 10, "step": t, **common})
                for t, step in enumerate(steps, 1)
            ],
            "layers": [row("layers", **{**layer, "images": 10, **common}) for layer in layers],
            "epochs": [row("epochs", **common, epoch=e, train_loss=2.5 / e) for e in (1, 2)],
            "predictions": [],
        },
    )


@pytest.fixture
def results(tmp_path: Path) -> Path:
    store = Store(tmp_path)
    commit(store, "aaaa1111", seed=0)
    commit(store, "aaaa2222", seed=1)
    failure = {"key": "ffff0000", "dataset": "digits", "reason": "out of [memory]"}
    store.record_failure("ffff0000", row("failures", **failure, traceback="in line 3\n  x[0]"))
    return tmp_path


def invoke(*arguments: object) -> Result:
    run = CliRunner(env={"COLUMNS": "80"}).invoke(app, [str(argument) for argument in arguments])
    if isinstance(run.exception, CodingbenchError):
        raise run.exception
    assert run.exit_code == 0, run.output
    return run


def read_json(*arguments: object) -> Any:
    return json.loads(invoke(*arguments, "--format", "json").stdout)


def test_the_table_goes_to_stdout_with_brackets_and_failures(results: Path) -> None:
    run = invoke("leaderboard", "--results", results)
    assert "gac[heads=2]" in run.stdout and "87.50 ± 0.00" in run.stdout
    assert "1 failed cell: codingbench show ffff0000 --results" in run.stdout.replace("\n", " ")
    assert run.stderr == "" and "\x1b" not in run.stdout


def test_the_energy_of_the_convention_reaches_the_table(results: Path) -> None:
    # paper: (4.6 pJ x 0.5e6 + 0.9 pJ x 12e6) / 10 images = 1.31 uJ
    options = ("leaderboard", "--results", results, "--energy", "paper")
    assert read_json(*options)[0]["energy_uj"] == pytest.approx(1.31)
    for form in ("table", "markdown", "svg"):
        assert "1.31" in invoke(*options, "--format", form).stdout


def test_the_failed_cells_of_other_data_sets_are_not_mentioned(results: Path) -> None:
    Store(results).record_failure("eeee", row("failures", key="eeee", dataset="cifar10"))
    text = invoke("leaderboard", "--results", results, "--dataset", "digits").stdout
    assert "1 failed cell:" in text and "eeee" not in text


def test_a_store_without_finished_cells_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no finished cell in '.*none'; codingbench run"):
        invoke("leaderboard", "--results", tmp_path / "none")
    Store(tmp_path).record_failure("ffff", row("failures", key="ffff"))
    with pytest.raises(StoreError, match=r"\(1 failed cell: codingbench show ffff"):
        invoke("leaderboard", "--results", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["leaderboard", "--format", "tabel"], "unknown format 'tabel'; did you mean 'table'"),
        (["leaderboard", "--sort", "t"], r"unknown sort 't'.*\(known: T, accuracy"),
        (["leaderboard", "--dataset", "digit"], "'digit'; did you mean 'digits'"),
        (["show", "aaaa1111", "--format", "jsn"], "unknown format 'jsn'; did you mean 'json'"),
        (["show", "aaaa1111", "--energy", "exact,papr"], "'papr'; did you mean 'paper'"),
        (["show", "aaaa"], "'aaaa' is the beginning of several cells: aaaa1111, aaaa2222"),
        (["show", "aaa"], "first 4 or more characters, got 'aaa'"),
        (["show", "aaaa1112"], r"no cell 'aaaa1112' in '.*'; nearest of 3: aaaa1111, "),
    ],
)
def test_wrong_requests_are_one_line_with_the_nearest_name(
    results: Path, arguments: list[str], message: str
) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        invoke(*arguments, "--results", results)
    assert "\n" not in str(caught.value)


def test_show_prices_each_step_with_all_steps_before_it(results: Path) -> None:
    cell = read_json("show", "aaaa1", "--results", results)
    # exact: (0.9 x 2e6 + 4.6 x 1e6) pJ / 10 = 0.64 uJ, then half of it more
    # paper: (4.6 x 0.5e6 + 0.9 x 8e6) pJ / 10 = 0.95 uJ, then 0.9 x 4e6 pJ / 10 = 0.36 uJ more
    first, second = cell["steps"]
    assert first["energy_exact_uj"] == pytest.approx(0.64)
    assert second["energy_exact_uj"] == pytest.approx(0.96)
    assert first["energy_paper_uj"] == pytest.approx(0.95)
    assert second["energy_paper_uj"] == pytest.approx(1.31)
    assert [first["code_rate"], second["code_rate"]] == [0.25, 0.5]
    assert cell["cell"]["key"] == "aaaa1111"
    assert cell["cell"]["finished_at"] == "2026-01-02T00:00:00+00:00"


def test_show_sums_a_layer_over_its_steps_per_image(results: Path) -> None:
    conv, lif = read_json("show", "aaaa1111", "--results", results)["layers"]
    assert conv == {
        "layer": "backbone.conv1",
        "kind": "synapse",
        "input_class": "real",  # dearer than the binary of step 2
        "input_rate": pytest.approx(0.2),  # (0.5 x 100 + 0.1 x 300) / 400
        "firing_rate": None,
        "effective_per_image": 400_000,  # (2e6 + 1e6 + 1e6) / 10
        "dense_per_image": 5_000_000,
        "executions_per_image": 1.5,
    }
    assert lif["firing_rate"] == 0.5  # 40 spikes of 4 neurons x 2 steps x 10 images
    assert lif["input_class"] is None and lif["executions_per_image"] == 2


def test_show_prints_every_section_without_cutting(results: Path) -> None:
    text = invoke("show", "aaaa2222", "--results", results).stdout
    for part in ("gac[heads=2]", "torch_version", "(paper)", "backbone.conv1", "400 k", "1.2500"):
        assert part in text
    assert "…" not in text and max(map(len, text.splitlines())) <= 80


def test_show_gives_the_reason_of_a_failed_cell(results: Path) -> None:
    text = invoke("show", "ffff", "--results", results).stdout
    assert "out of [memory]" in text and "  x[0]" in text
    assert read_json("show", "ffff", "--results", results)["failure"]["key"] == "ffff0000"


@pytest.mark.parametrize("command", ["leaderboard", "show"])
def test_help_holds_an_example_and_every_convention(command: str) -> None:
    text = invoke(command, "--help").stdout
    assert f"Example: codingbench {command} " in text
    assert all(name in text for name in CONVENTIONS)


def test_the_command_modules_load_without_pandas_and_torch() -> None:
    code = "import sys, codingbench.cli.leaderboard, codingbench.cli.show\n"
    code += "assert not {'torch', 'pandas', 'pyarrow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_leaderboard_is_printed_without_importing_torch(results: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "codingbench", "leaderboard"]
    run = subprocess.run(
        [*command, "--results", str(results)], capture_output=True, text=True, check=True
    )
    imported = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines()}
    assert "gac" in run.stdout and "pandas" in imported
    assert not {"torch", "torchvision", "snntorch"} & imported
