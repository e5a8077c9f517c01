import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from codingbench.cli.show import show
from codingbench.energy import CONVENTIONS, TECHNOLOGIES
from codingbench.errors import CodingbenchError, SpecError
from codingbench.schema import ELEMENT_COUNTS
from codingbench.store.folder import Store
from tests.conftest import commit

app = typer.Typer()
app.command()(show)


def invoke(*arguments: object) -> Result:
    run = CliRunner(env={"COLUMNS": "80"}).invoke(app, [str(argument) for argument in arguments])
    if isinstance(run.exception, CodingbenchError):
        raise run.exception
    assert run.exit_code == 0, run.output
    return run


def read_json(*arguments: object) -> Any:
    return json.loads(invoke(*arguments, "--format", "json").stdout)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["aaaa1111aaaa1111", "--format", "jsn"], "unknown format 'jsn'; did you mean 'json'"),
        (["aaaa1111aaaa1111", "--energy", "exact,papr"], "'papr'; did you mean 'paper'"),
        (["aaaa1111aaaa1111", "--energy", "no.py:mine"], "no file 'no.py' for energy convention"),
        (
            ["aaaa1111aaaa1111", "--technology", "45nm-int9"],
            "technology .*; did you mean '45nm-int8'",
        ),
        (
            ["ffff0000ffff0000", "--technology", "45nm-int9"],
            "technology .*; did you mean '45nm-int8'",
        ),
        (["aaaa"], "'aaaa' is the beginning of several cells: aaaa1111aaaa1111, aaaa2222aaaa2222"),
        (["aaa"], "first 4 or more characters, such as 'aaaa1111', got 'aaa'"),
        (
            ["aaaa1111aaaa1112"],
            r"no cell 'aaaa1111aaaa1112' in '.*'; nearest of 3: aaaa1111aaaa1111, ",
        ),
    ],
)
def test_wrong_requests_are_one_line_with_the_nearest_name(
    results: Path, arguments: list[str], message: str
) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        invoke(*arguments, "--results", results)
    assert "\n" not in str(caught.value)


def test_each_step_is_priced_with_all_steps_before_it(results: Path) -> None:
    cell = read_json("aaaa1", "--results", results)
    # exact: (0.9 x 2e6 + 4.6 x 1e6) pJ / 10 = 0.64 uJ, then half of it more
    # paper: (4.6 x 0.5e6 + 0.9 x 8e6) pJ / 10 = 0.95 uJ, then 0.9 x 4e6 pJ / 10 = 0.36 uJ more
    first, second = cell["steps"]
    assert first["energy_exact_uj"] == pytest.approx(0.64)
    assert second["energy_exact_uj"] == pytest.approx(0.96)
    assert first["energy_paper_uj"] == pytest.approx(0.95)
    assert second["energy_paper_uj"] == pytest.approx(1.31)
    assert [first["code_rate"], second["code_rate"]] == [0.25, 0.5]
    assert cell["cell"]["key"] == "aaaa1111aaaa1111"
    assert cell["cell"]["finished_at"] == "2026-01-02T00:00:00+00:00"


def test_steps_are_priced_at_the_requested_technology_and_say_so(results: Path) -> None:
    options = ("aaaa1111aaaa1111", "--results", results, "--technology", "int8")
    # (0.03 x 2e6 + 0.23 x 1e6) pJ / 10
    assert read_json(*options)["steps"][0]["energy_exact_uj"] == pytest.approx(0.029)
    assert "at 45nm-int8: 0.23 pJ per MAC, 0.03 pJ per AC\n" in invoke(*options).stdout


def test_a_layer_is_summed_over_its_steps_per_image(results: Path) -> None:
    conv, lif, norm = read_json("aaaa1111aaaa1111", "--results", results)["layers"]
    nothing = {f"{name}_per_image": 0 for name in ELEMENT_COUNTS}
    assert conv == nothing | {
        "layer": "backbone.conv1",
        "kind": "synapse",
        "input_class": "real",  # costs more than the binary input of step 2
        "input_rate": pytest.approx(0.2),  # (0.5 x 100 + 0.1 x 300) / 400
        "firing_rate": None,
        "effective_per_image": 400_000,  # (2e6 + 1e6 + 1e6) / 10
        "dense_per_image": 5_000_000,
        "executions_per_image": 1.5,
    }
    assert lif["firing_rate"] == 0.5  # 40 spikes of 4 neurons x 2 steps x 10 images
    assert lif["input_class"] is None and lif["executions_per_image"] == 2
    assert lif["neuron_updates_per_image"] == 4
    assert norm["kind"] == "norm" and norm["norm_macs_per_image"] == 200
    assert norm["firing_rate"] is None and norm["input_rate"] is None


def test_every_section_is_printed_without_cutting(results: Path) -> None:
    text = invoke("aaaa2222aaaa2222", "--results", results).stdout
    for part in ("gac[heads=2]", "torch_version", "paper", "backbone.conv1", "400 k", "1.2500"):
        assert part in text
    for title in ("cell", "time steps", "layers", "spike purity", "other operations", "epochs"):
        assert any(line.startswith(title) for line in text.splitlines())
    assert "…" not in text and max(map(len, text.splitlines())) <= 80


def test_80_columns_hold_every_convention_and_one_from_a_file(results: Path) -> None:
    (results / "own.py").write_text(
        "from codingbench.energy import Convention\n"
        "mine = Convention('macs', '', '', lambda n, chip: chip.mac_pj * n['effective_real'])\n"
    )
    energy = f"all,{results / 'own.py'}:mine"
    options = ("aaaa1111aaaa1111", "--results", results, "--energy", energy)
    lines = invoke(*options).stdout.splitlines()
    steps = lines[lines.index("") : lines.index("", lines.index("") + 1)]
    words = " ".join(steps).split()
    heads = ["exact", "dense-", "mac", "paper", "neurobench", "syops-", "memory", "macs"]
    assert all(head in words for head in heads)
    assert max(map(len, lines)) <= 80
    first, _ = read_json(*options)["steps"]
    assert first["energy_macs_uj"] == pytest.approx(0.46)  # 4.6 pJ x 1e6 / 10
    assert first["energy_dense_mac_uj"] == pytest.approx(0.18)  # no dense_real in the table steps


def test_the_layers_that_multiply_numbers_are_named_with_what_they_read(results: Path) -> None:
    purity = read_json("aaaa1111aaaa1111", "--results", results)["purity"]
    assert purity["shares"] == {"binary": 0.75, "signed": 0, "level": 0, "real": 0.25}
    (layer,) = purity["layers"]
    assert layer["layer"] == "backbone.conv1" and layer["operations_per_image"] == 100_000
    assert layer["nonzero_share"] == 0.5 and not purity["spike_driven"]
    text = invoke("aaaa1111aaaa1111", "--results", results).stdout
    assert "75.00 % binary; not spike-driven." in text
    assert "partly zero (analog)" in text


def test_the_reason_of_a_failed_cell_is_given(results: Path) -> None:
    text = invoke("ffff", "--results", results).stdout
    assert "out of [memory]" in text and "  x[0]" in text
    assert read_json("ffff", "--results", results)["failure"]["key"] == "ffff0000ffff0000"


def test_help_holds_an_example_and_every_convention_and_technology() -> None:
    text = invoke("--help").stdout
    assert "Example: codingbench show " in text
    assert all(name in text for name in (*CONVENTIONS, *TECHNOLOGIES))


def test_the_command_module_loads_without_pandas_and_torch() -> None:
    code = "import sys, codingbench.cli.show\n"
    code += "assert not {'torch', 'pandas', 'pyarrow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_cell_is_printed_without_importing_torch(results: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "codingbench", "show", "aaaa1111aaaa1111"]
    run = subprocess.run(
        [*command, "--results", str(results), "--energy", "all"],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines()}
    assert "spike purity" in run.stdout and "pandas" in imported
    assert not {"torch", "torchvision", "snntorch"} & imported


def test_test_accuracies_of_epochs_are_shown_where_there_are_some(tmp_path: Path) -> None:
    key = "aaaa1111aaaa1111"
    for name, accuracy in (("tested", 0.8125), ("plain", None)):
        commit(Store(tmp_path / name), key, test_accuracy=accuracy)
    tested, plain = (
        invoke(key, "--results", tmp_path / name).stdout for name in ("tested", "plain")
    )
    assert "81.25" in tested and "test accuracy: it selects nothing and is never ranked" in tested
    assert "81.25" not in plain and "test accuracy" not in plain
    told = read_json(key, "--results", tmp_path / "tested")
    assert [epoch["test_accuracy"] for epoch in told["epochs"]] == [0.8125, 0.8125]
