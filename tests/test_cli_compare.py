import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from codingbench.cli.compare import compare
from codingbench.errors import CodingbenchError, SpecError, StoreError

REFERENCE = Path(__file__).parents[1] / "results/reference/fashion_mini"
app = typer.Typer()
app.command()(compare)
app.callback()(lambda: None)


def invoke(*arguments: object, results: Path = REFERENCE) -> Result:
    command = ["compare", *map(str, arguments), "--results", str(results)]
    run = CliRunner(env={"COLUMNS": "80"}).invoke(app, command)
    if isinstance(run.exception, CodingbenchError):
        raise run.exception
    assert run.exit_code == 0, run.output
    return run


def read_json(*arguments: object, results: Path = REFERENCE) -> Any:
    return json.loads(invoke(*arguments, "--format", "json", results=results).stdout)


def test_real_runs_are_compared_pair_by_pair_over_seeds_and_test_images() -> None:
    rows = read_json("direct", "latency", "gac")
    pairs = [(row["encoder_a"], row["encoder_b"]) for row in rows]
    assert pairs == [("direct", "latency"), ("direct", "gac"), ("latency", "gac")]
    first = rows[0]
    # right alone, per seed, as counted in the table predictions
    assert (first["only_a"], first["only_b"]) == ([62, 57, 68], [33, 30, 30])
    assert first["accuracy_delta"] == pytest.approx((29 + 27 + 38) / 3000)
    assert first["basis"] == "seeds and test images" and first["seeds"] == 3
    assert first["p"] < 0.05 and first["p_holm"] == pytest.approx(3 * first["p"])


def test_the_table_goes_to_stdout_with_a_verdict() -> None:
    run = invoke("gac,direct", "--T", "4", "--dataset", "fashion_mini", "--energy", "paper")
    said = " ".join(run.stdout.split())
    assert (
        "The difference between gac and direct at T=4 is not significant: +0.07 points for gac"
        in said
    )
    assert "-0.252" in said  # uJ: 2.41 - 2.66 in the convention paper
    assert run.stderr == "" and "\x1b" not in run.stdout


def test_a_store_without_predictions_is_compared_over_seeds_only(tmp_path: Path) -> None:
    shutil.copytree(REFERENCE / "cells", tmp_path / "cells")
    (row,) = read_json("direct", "latency", results=tmp_path)
    assert row["basis"] == "seeds" and row["only_a"] == [] and row["bootstrap_low"] is None
    assert row["p"] is not None
    assert "3 seeds only, because predictions are missing" in row["verdict"]


@pytest.mark.parametrize("form", ["table", "json", "csv", "markdown"])
def test_every_format_names_both_codings(form: str) -> None:
    text = invoke("rate", "latency", "--format", form).stdout
    assert "rate" in text and "latency" in text
    if form == "csv":
        (row,) = csv.DictReader(io.StringIO(text))
        assert row["keys_a"].count(" ") == 2 and float(row["p"]) > 0.05


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gac", "dirct"], "unknown coding in these results 'dirct'; did you mean 'direct'"),
        (["gac"], "expected at least two codings to compare, got 'gac'"),
        (["gac", "gac"], "expected different codings, got 'gac' twice"),
        (["gac", "direct", "--T", "3"], r"no cell of T=3 \(there are T=4\)"),
        (["gac", "direct", "--T", "four"], "T expects a whole number, got 'four'"),
        (["gac", "direct", "--dataset", "fashion"], "'fashion'; did you mean 'fashion_mini'"),
        (["gac", "direct", "--format", "svg"], "unknown format 'svg'"),
        (["gac", "direct", "--energy", "exakt"], "'exakt'; did you mean 'exact'"),
        (["gac", "direct", "--technology", "fp61"], "did you mean 'fp16'"),
    ],
)
def test_wrong_requests_are_one_line_with_the_nearest_name(
    arguments: list[str], message: str
) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        invoke(*arguments)
    assert "\n" not in str(caught.value)


def test_an_empty_store_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no finished cell in '.*'; codingbench run --results "):
        invoke("gac", "direct", results=tmp_path)


def test_codings_of_the_results_are_compared_without_importing_torch() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "codingbench", "compare", "gac", "direct"]
    run = subprocess.run(
        [*command, "--results", str(REFERENCE)], capture_output=True, text=True, check=True
    )
    imported = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines()}
    assert "is not significant" in " ".join(run.stdout.split()) and "scipy.special" in imported
    assert not {"torch", "torchvision", "snntorch", "matplotlib"} & imported


def test_the_command_module_loads_without_pandas_and_scipy() -> None:
    code = "import sys, codingbench.cli.compare\n"
    code += "assert not {'torch', 'pandas', 'scipy', 'pyarrow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
