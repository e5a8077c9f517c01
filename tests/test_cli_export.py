"""``codingbench export``: the exported file works, and the model card is true."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nir
import pytest
import torch
import typer
from typer.main import get_command
from typer.testing import CliRunner

from codingbench.cells.grid import Grid
from codingbench.cells.settings import make_grid
from codingbench.cells.weights import kept_weights, restore
from codingbench.cli.export import export
from codingbench.cli.main import app as cli
from codingbench.cli.options import given
from codingbench.datasets import fetch
from codingbench.errors import CodingbenchError, SpecError
from codingbench.executors.local import InProcess
from codingbench.export import agreement, nir_file
from codingbench.export.graph import graph_of
from codingbench.export.model import Model
from codingbench.store.folder import Store
from tests.grids import run

GRID = Grid(
    encoders=("gac", "rate", "direct"),
    num_steps=(2,),
    backbones=("csnn[width=4]",),
    seeds=(3,),
    epochs=1,
    train_samples=200,
    test_samples=60,
)

app = typer.Typer()
app.command()(export)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    run(InProcess(), GRID, folder)
    return folder


def key_of(results: Path, encoder: str) -> str:
    cells = Store(results).read("cells").set_index("encoder")
    return str(cells["key"][encoder])


def invoke(results: Path, *arguments: object) -> str:
    words = [*map(str, arguments), "--results", str(results)]
    done = CliRunner().invoke(app, words)
    if isinstance(done.exception, CodingbenchError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def card_of(path: Path) -> str:
    return path.with_name(f"{path.name}.MODEL_CARD.md").read_text()


def snippet_of(path: Path) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", card_of(path), re.DOTALL)
    return str(code)


def refused(results: Path, *arguments: object) -> str:
    with pytest.raises(CodingbenchError) as caught:
        invoke(results, *arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_cards_snippet_gives_the_accuracy_of_the_cell_in_a_new_process(
    trained: Path, tmp_path: Path
) -> None:
    path, key = tmp_path / "gac.pt", key_of(trained, "gac")
    assert "The file was read back: its 6" in invoke(trained, key[:8], "--output", path)
    state = torch.load(path, weights_only=True)
    network = restore(Store(trained), key, None).network()
    assert state.keys() == network.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in network.state_dict().items())
    done = subprocess.run(
        [sys.executable, "-c", snippet_of(path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    row = Store(trained).read("cells", [key]).iloc[0]
    classes, accuracy = done.stdout.splitlines()
    assert classes.startswith("tensor([") and float(accuracy) == row["accuracy"]


@pytest.mark.parametrize("encoder", ["direct", "rate"])
def test_a_nir_file_describes_itself_and_runs_as_its_card_says(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: str
) -> None:
    monkeypatch.chdir(tmp_path)
    key = key_of(trained, encoder)
    out = invoke(trained, key, "--format", "nir")
    path = tmp_path / f"{key}.nir"  # the default name, in the working folder
    assert "on 16 test images in double precision. All " in out
    assert "16 of 16 predictions are the same" in out
    about = nir.read(path).metadata
    assert about["key"] == key.encode() or about["key"] == key
    assert {"dt", "discretisation", "input", "output", "mean", "std", "encoder"} <= set(about)
    exec(compile(snippet_of(path), "card", "exec"), {})
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, f"{path.name}.MODEL_CARD.md"]


def test_a_card_reports_the_cell_as_it_is_in_the_store(trained: Path, tmp_path: Path) -> None:
    path, key = tmp_path / "rate.pt", key_of(trained, "rate")
    invoke(trained, key, "--output", path)
    card, row = card_of(path), Store(trained).read("cells", [key]).iloc[0]
    for said in (
        f"| cell | {key} |",
        "| encoder | rate (gain = 1.0) |",
        "fashion_mini (licence: MIT)",
        f"{row['accuracy']:.2%} of 60 test images",
        f"| firing rate | {row['firing_rate']:.2%}",
        "| energy, convention `exact` | ",
        "| energy, convention `paper` | ",
        f"| parameters | {row['parameters']:,}",
        "AdamW with a linear warm-up",
        f"| torch | {torch.__version__} |",
        f"| commit | {row['git_commit'] or 'not known'}",
        "rate is a random coding: predictions depend on the generator.",
    ):
        assert said in card
    energy = 0.9 * row["effective_binary"] + 4.6 * (row["effective_level"] + row["effective_real"])
    shown = re.search(r"`exact` \| ([\d.]+) µJ per image", card)
    assert shown and float(shown[1]) == pytest.approx(energy / 60 * 1e-6, rel=0.005)
    for place in (trained, tmp_path, Path.cwd(), Path(sys.prefix), Path.home()):
        assert str(place) not in card


def test_the_command_on_the_card_gives_the_same_cell(trained: Path, tmp_path: Path) -> None:
    path, key = tmp_path / "direct.pt", key_of(trained, "direct")
    invoke(trained, key, "--output", path)
    (line,) = [line for line in card_of(path).splitlines() if line.startswith("codingbench run")]
    group: Any = get_command(cli)
    context = group.commands["run"].make_context("run", shlex.split(line)[2:])
    (job,) = make_grid(given(context)).expand()
    assert job.key(fetch("fashion_mini", None).fingerprint()) == key
    row = Store(trained).read("cells", [key]).iloc[0]
    assert (context.params["threads"], context.params["device"]) == (row["threads"], "cpu")


def test_selected_weights_are_those_of_the_best_epoch(trained: Path, tmp_path: Path) -> None:
    results, key = tmp_path / "results", key_of(trained, "direct")
    shutil.copytree(trained, results)
    kept = kept_weights(Store(results), key)
    state = kept.load()
    assert state is not None and state["weights"]["selected"] is None  # one epoch: the same
    name = "backbone.head.linear.bias"
    last = state["weights"]["last"]
    state["weights"]["selected"] = last | {name: last[name] + 1}
    kept.save(state)
    for option, shift in (([], 0), (["--selected"], 1)):
        path = tmp_path / f"{shift}.pt"
        invoke(results, key, "--output", path, *option)
        assert torch.equal(torch.load(path, weights_only=True)[name], last[name] + shift)
    assert "weights of epoch 1 of 1, the best in validation" in card_of(path)


def test_the_card_says_if_the_weights_are_a_mean() -> None:
    row, job = {"epochs": 3, "selected_epoch": 2, "evaluated_weights": "mean"}, Grid().expand()[0]
    last, selected = (Model(row, job, is_selected, "x.pt") for is_selected in (False, True))
    mean = "the exponential mean over training steps"
    assert last.weights == f"after the last of 3 epochs, {mean}"
    assert selected.weights == f"of epoch 2 of 3, the best in validation, {mean}"


def test_a_graph_that_lost_an_edge_is_not_written(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_a_shortcut(*args: object) -> nir.NIRGraph:
        graph = graph_of(*args)  # type: ignore[arg-type]
        lost = ("backbone.blocks.1.shortcut.0", "backbone.blocks.2.neurons.0")
        graph.edges.remove(lost)
        return nir.NIRGraph(graph.nodes, graph.edges, graph.metadata)

    monkeypatch.setattr(nir_file, "graph_of", without_a_shortcut)
    arguments = key_of(trained, "direct"), "--format", "nir", "--output", tmp_path / "x.nir"
    message = refused(trained, *arguments)
    assert "(direct on csnn[width=4]) cannot be exported to NIR: the exported graph" in message
    assert "in backbone.blocks.2.neurons.0, the first layer that differs" in message
    assert list(tmp_path.iterdir()) == []


def test_logits_beyond_the_tolerance_are_refused(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agreement, "TOLERANCE", -1.0)
    arguments = key_of(trained, "direct"), "--format", "nir", "--output", tmp_path / "x.nir"
    assert "the exported graph and the network have different logits" in refused(
        trained, *arguments
    )


def test_networks_that_nir_cannot_express_are_refused_in_one_line(
    trained: Path, tmp_path: Path
) -> None:
    arguments = key_of(trained, "gac"), "--format", "nir", "--output", tmp_path / "x.nir"
    message = refused(trained, *arguments)
    assert "(gac on csnn[width=4]) cannot be exported to NIR: encoder.mul_2: NIR has no" in message
    assert list(tmp_path.iterdir()) == []


def test_existing_files_are_kept_without_force(trained: Path, tmp_path: Path) -> None:
    path, key = tmp_path / "x.pt", key_of(trained, "rate")
    card = path.with_name("x.pt.MODEL_CARD.md")
    for there in (path, card):
        there.write_text("mine")
        assert f"'{there}' exists already; use --force" in refused(trained, key, "--output", path)
        assert there.read_text() == "mine" and list(tmp_path.iterdir()) == [there]
        there.unlink()
    path.write_text("mine")
    invoke(trained, key, "--output", path, "--force")
    assert torch.load(path, weights_only=True) and card.exists()


def test_wrong_requests_are_one_line(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = key_of(trained, "rate")
    assert "no cell 'ffff0000'" in refused(trained, "ffff0000")
    assert "did you mean 'nir'" in refused(trained, key, "--format", "nirr")
    assert "there is no folder" in refused(trained, key, "--output", tmp_path / "no" / "x.pt")
    assert "is a folder" in refused(trained, key, "--output", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(SpecError, match=r"pip install 'codingbench\[nir\]'"):
            invoke(trained, key, "--format", "nir")
    results = tmp_path / "results"
    shutil.copytree(trained, results)
    kept_weights(Store(results), key).clear()
    message = refused(results, key, "--output", tmp_path / "x.pt")
    assert f"the weights of {key} were not kept" in message
    assert not (tmp_path / "x.pt").exists()


def test_a_cell_is_also_named_by_its_coding_and_options(trained: Path, tmp_path: Path) -> None:
    by_key, by_coding = tmp_path / "key.pt", tmp_path / "coding.pt"
    invoke(trained, key_of(trained, "rate"), "--output", by_key)
    invoke(trained, "rate", "--T", 2, "--seed", 3, "--output", by_coding)
    assert by_coding.read_bytes() == by_key.read_bytes()
    assert refused(trained, "rate", "--seed", 4) == "no cell of seed=4 (there are seed=3)"


def test_help_needs_neither_torch_nor_nir() -> None:
    code = "import sys; from codingbench.cli.main import app\ntry:\n app(['export', '--help'])\n"
    code += "except SystemExit:\n assert not {'torch', 'nir', 'pandas'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "codingbench export gac --T 4 --seed 0" in " ".join(done.stdout.split())
