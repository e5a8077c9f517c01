import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from codingbench.cli.leaderboard import leaderboard
from codingbench.energy import CONVENTIONS
from codingbench.errors import CodingbenchError, SpecError, StoreError
from codingbench.store.folder import Store

app = typer.Typer()
app.command()(leaderboard)
app.callback()(lambda: None)  # or typer would take the one command for the whole program


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
    assert "1 failed cell: codingbench show ffff0000ffff0000 --results" in run.stdout.replace(
        "\n", " "
    )
    assert run.stderr == "" and "\x1b" not in run.stdout


def test_the_energy_of_the_convention_reaches_the_table(results: Path) -> None:
    # paper: (4.6 pJ x 0.5e6 + 0.9 pJ x 12e6) / 10 images = 1.31 uJ
    options = ("leaderboard", "--results", results, "--energy", "paper")
    assert read_json(*options)[0]["energy_uj"] == pytest.approx(1.31)
    for form in ("table", "markdown", "svg"):
        assert "1.31" in invoke(*options, "--format", form).stdout


def test_the_technology_and_a_convention_from_a_file_reach_the_table(
    results: Path, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(
        "from codingbench.energy import Convention\n"
        "price = lambda counts, chip: chip.mac_pj * counts['effective_real']\n"
        "mine = Convention('macs-only', 'MACs alone', 'made up', price)\n"
    )
    options = ("leaderboard", "--results", results, "--technology", "int8")
    # exact on int8: (0.03 pJ x 3e6 + 0.23 pJ x 1.5e6) / 10 images
    assert read_json(*options)[0]["energy_uj"] == pytest.approx(0.0435)
    (row,) = read_json(*options, "--energy", f"{tmp_path / 'own.py'}:mine")
    assert row["energy_uj"] == pytest.approx(0.0345)
    assert (row["energy_convention"], row["technology"]) == ("macs-only", "45nm-int8")


def test_each_view_reads_the_tables_it_needs(results: Path) -> None:
    options = ("leaderboard", "--results", results)
    (bill,) = read_json(*options, "--bill")
    # (0.9 pJ x 3e6 + 4.6 pJ x 1e6) / 10 images, all of it in backbone.conv1
    assert bill["backbone_uj"] == pytest.approx(0.73) and bill["stem_uj"] == 0
    (ann,) = read_json(*options, "--vs-ann", "--technology", "fp16")
    # 1.5 pJ x 50e6 dense operations / 2 steps / 10 images
    assert ann["ann_uj"] == pytest.approx(3.75) and ann["ann_bits"] == 2
    (ranks,) = read_json(*options, "--energy", "all")
    assert ranks["energy_exact_uj"] == pytest.approx(0.96) and ranks["energy_rank_paper"] == 1


@pytest.mark.parametrize("form", ["table", "json", "csv", "markdown", "svg"])
@pytest.mark.parametrize(
    ("view", "column"),
    [
        (["--bill", "--energy", "paper"], "backbone"),
        (["--vs-ann"], "bits"),
        (["--energy", "all"], "neurobench"),
    ],
    ids=["bill", "vs-ann", "all"],
)
def test_every_view_comes_in_every_format(
    results: Path, view: list[str], column: str, form: str
) -> None:
    options = ("leaderboard", "--results", results, "--dataset", "digits", "--sort", "energy")
    text = invoke(*options, *view, "--format", form).stdout
    assert "gac" in text and column in text


@pytest.mark.parametrize("option", ["--bill", "--vs-ann"])
def test_a_view_without_its_table_says_which_is_missing(results: Path, option: str) -> None:
    shutil.rmtree(results / "layers")
    with pytest.raises(StoreError, match=f"{option} needs the table 'layers': .* 0 of the 2 cells"):
        invoke("leaderboard", "--results", results, option)


def test_the_failed_cells_of_other_data_sets_are_not_mentioned(results: Path, row_of: Any) -> None:
    Store(results).record_failure("e" * 16, row_of("failures", key="e" * 16, dataset="cifar10"))
    text = invoke("leaderboard", "--results", results, "--dataset", "digits").stdout
    assert "1 failed cell:" in text and "eeee" not in text


def test_a_store_without_finished_cells_says_what_to_do(tmp_path: Path, row_of: Any) -> None:
    with pytest.raises(StoreError, match=r"no results folder '.*none'; codingbench run --results "):
        invoke("leaderboard", "--results", tmp_path / "none")
    Store(tmp_path).record_failure("f" * 16, row_of("failures", key="f" * 16))
    with pytest.raises(StoreError, match=r"\(1 failed cell: codingbench show ffff"):
        invoke("leaderboard", "--results", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["leaderboard", "--format", "tabel"], "unknown format 'tabel'; did you mean 'table'"),
        (["leaderboard", "--sort", "t"], r"unknown sort 't'.*\(known: T, accuracy"),
        (["leaderboard", "--dataset", "digit"], "'digit'; did you mean 'digits'"),
        (["leaderboard", "--energy", "al"], "unknown energy convention 'al'"),
        (["leaderboard", "--energy", "no.py:mine"], "no file 'no.py' for energy convention"),
        (["leaderboard", "--technology", "fp61"], "unknown technology 'fp61'; did you mean 'fp16'"),
        (["leaderboard", "--bill", "--vs-ann"], "--bill and --vs-ann are different tables"),
        (["leaderboard", "--bill", "--energy", "all"], "--bill and --energy all are different"),
        (["leaderboard", "--vs-ann", "--energy", "all"], "--vs-ann and --energy all are different"),
    ],
)
def test_wrong_requests_are_one_line_with_the_nearest_name(
    results: Path, arguments: list[str], message: str
) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        invoke(*arguments, "--results", results)
    assert "\n" not in str(caught.value)


def test_help_holds_an_example_and_every_convention() -> None:
    text = invoke("leaderboard", "--help").stdout
    assert "Example: codingbench leaderboard " in text
    assert all(name in text for name in CONVENTIONS)


def test_the_command_modules_load_without_pandas_and_torch() -> None:
    code = "import sys, codingbench.cli.leaderboard\n"
    code += "assert not {'torch', 'pandas', 'pyarrow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


VIEWS = [[], ["--bill"], ["--vs-ann"], ["--energy", "all"]]


def test_leaderboards_are_printed_without_importing_torch(results: Path) -> None:
    code = f"""if True:
        import sys
        from typer.testing import CliRunner
        from codingbench.cli.main import app
        for view in {[*VIEWS, ["--format", "markdown"]]}:
            run = CliRunner().invoke(app, ["leaderboard", "--results", {str(results)!r}, *view])
            assert run.exit_code == 0 and "gac" in run.stdout, (view, run.output)
            assert "pandas" in sys.modules
            assert not {{"torch", "torchvision", "snntorch"}} & {{*sys.modules}}, view"""
    subprocess.run([sys.executable, "-c", code], check=True)
