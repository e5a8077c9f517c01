"""The commands that a leaderboard prints give its rows again when the command line reads them."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from codingbench.analysis.commands import commands, remarks
from codingbench.analysis.leaderboard import rows
from codingbench.cells.grid import Grid
from codingbench.cells.settings import make_grid
from codingbench.cli.main import app
from codingbench.cli.options import given as given_options
from codingbench.schema import COORDINATES
from codingbench.store.folder import Store
from codingbench.views.asked import Asked
from codingbench.views.leaderboard import present

REFERENCE = Path(__file__).parents[1] / "results" / "reference"
GROUP: Any = typer.main.get_command(app)
RUN = GROUP.commands["run"]

CELL: dict[str, Any] = {
    "dataset": "fashion_mini",
    "encoder": "gac",
    "backbone": "csnn",
    "neuron": "default",
    "num_steps": 4,
    "recipe": "quick",
    "epochs": 2,
    "batch_size": 50,
    "micro_batch": 25,
    "train_samples": 600,
    "test_samples": 100,
    "precision": "fp32",
    "seed": 0,
    "device": "cpu",
    "devices": 1,
    "threads": 2,
    "neuron_backend": "eager",
    "deterministic": True,
    "codingbench_version": "0.5.0",
    "git_commit": "0123456789abcdef",
    "git_dirty": False,
    "torch_version": "2.9.0",
    "encoder_code": "e1",
    "backbone_code": "b1",
    "neuron_code": None,
    "recipe_hash": "r1",
    "dataset_fingerprint": "d1",
}
HOSTILE = ("```", "`````sh", "$(touch x)", "a'b\"c", "-x", "# y; exit 1", "é 中 \u2028", "a|b\\")


def cells(*changes: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame([CELL | change for change in changes])


def commands_of(frame: pd.DataFrame) -> list[str]:
    return commands(frame.to_dict("records"))


def read(command: str) -> tuple[Grid, dict[str, Any]]:
    """Return the grid that the command line makes of a command, and all its options."""
    program, name, *words = shlex.split(command)
    assert (program, name) == ("codingbench", "run")
    with RUN.make_context(name, words) as context:
        return make_grid(given_options(context)), context.params


@pytest.mark.parametrize("store", ["field", "fashion_mini", "cifar100"])
def test_the_commands_of_a_store_are_its_cells_again(store: str) -> None:
    stored = Store(REFERENCE / store).read("cells")
    same = 0
    for keys in rows(stored)["keys"]:
        row = stored.set_index("key", drop=False).loc[keys]
        (command,) = commands(row.to_dict("records"))
        grid, options = read(command)
        for job, cell in zip(grid.expand(), row.to_dict("records"), strict=True):
            assert vars(job.cell) == {name: cell[name] for name in COORDINATES if name != "key"}
            assert options["device"] == cell["device"] and options["compile"] is False
            known = None if pd.isna(cell["threads"]) else int(cell["threads"])
            assert options["threads"] == known
            codes = cell["encoder_code"], cell["backbone_code"], cell["recipe_hash"]
            if codes == (job.encoder.code, job.backbone.code, job.recipe.hash):
                assert job.key(cell["dataset_fingerprint"]) == cell["key"]
                same += 1
    assert same >= 6


def test_a_command_says_all_that_decides_the_bits() -> None:
    on_gpus = {"device": "cuda:1", "devices": 2, "threads": None, "neuron_backend": "compiled"}
    label = "latency[scale=log,threshold=0.1]"
    changes = [{"encoder": label, "seed": seed} | on_gpus for seed in (3, 0)]
    assert commands_of(cells(*changes)) == [
        "codingbench run --encoders 'latency[scale=log,threshold=0.1]' --backbones csnn "
        "--dataset fashion_mini --T 4 --seeds 0,3 --recipe quick --epochs 2 --batch-size 50 "
        "--micro-batch 25 --train-samples 600 --test-samples 100 --precision fp32 "
        "--device cuda:1 --devices 2 --compile --deterministic"
    ]


def test_one_seed_is_written_as_a_list_of_one() -> None:
    (command,) = commands_of(cells({"seed": 7}))
    assert "--seeds 7, " in command
    assert read(command)[0].seeds == (7,)


@pytest.mark.parametrize(
    ("device", "deterministic", "said"),
    [
        ("cpu", True, None),
        ("cpu", False, False),
        ("cuda", True, True),
        ("cuda", False, None),
        ("cpu", None, None),
    ],
)
def test_deterministic_is_said_where_it_is_not_the_default_of_the_device(
    device: str, deterministic: bool | None, said: bool | None
) -> None:
    (command,) = commands_of(cells({"device": device, "deterministic": deterministic}))
    assert read(command)[1]["deterministic"] is said


def test_cells_of_other_circumstances_have_a_command_of_their_own() -> None:
    changes = [{"seed": 0}, {"seed": 1, "threads": 1}, {"seed": 2}]
    found = [read(command) for command in commands_of(cells(*changes))]
    assert [(grid.seeds, options["threads"]) for grid, options in found] == [
        ((0, 2), 2),
        ((1,), 1),
    ]


def test_what_an_old_store_does_not_know_is_left_out() -> None:
    unknown = dict.fromkeys(("device", "devices", "threads", "neuron_backend", "deterministic"))
    (command,) = commands_of(cells(unknown))
    assert command.endswith("--precision fp32")


@given(st.lists(st.text(st.characters(exclude_categories=["C"]), min_size=1), min_size=3))
@settings(max_examples=50, deadline=None)
def test_any_name_of_a_strangers_store_reaches_the_options_unchanged(names: list[str]) -> None:
    encoder, backbone, recipe = names[:3]
    (command,) = commands_of(cells({"encoder": encoder, "backbone": backbone, "recipe": recipe}))
    words = shlex.split(command)[2:]
    with RUN.make_context("run", words) as context:
        said = context.params
    assert (said["encoders"], said["backbones"], said["recipe"]) == (encoder, backbone, recipe)


@pytest.fixture
def hostile(tmp_path: Path, row_of: Any) -> Store:
    """Return a store with one cell for each hostile name."""
    store = Store(tmp_path / "store")
    for number, name in enumerate(HOSTILE):
        key = f"{number:016x}"
        values = CELL | {"key": key, "encoder": name, "recipe": name, "codingbench_version": name}
        cell = row_of("cells", **values, images=100, num_classes=10)
        store.commit(
            key, {"cells": [cell], "steps": [], "layers": [], "epochs": [], "predictions": []}
        )
    return store


def test_no_name_ends_a_block_of_the_markdown_or_runs_in_a_shell(
    hostile: Store, tmp_path: Path
) -> None:
    text = present(hostile, form="markdown")
    assert isinstance(text, str)
    tokens = MarkdownIt().parse(text)
    blocks = [token.content for token in tokens if token.type == "fence" and token.info == "sh"]
    assert len(blocks) == len(HOSTILE)  # a recipe is a group
    assert {token.info for token in tokens if token.type == "fence"} == {"sh", "bibtex"}
    shell = "codingbench() { printf '%s\\n' \"$3\"; }\n" + "".join(blocks)
    done = subprocess.run(
        ["sh", "-c", shell], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert sorted(done.stdout.split("\n")[:-1]) == sorted(HOSTILE)
    assert not (tmp_path / "x").exists() and done.stderr == ""


def test_remarks_name_what_does_not_ship_and_the_versions_that_ran() -> None:
    own = {"encoder": "retina[contrast=0.5]", "recipe": "mine", "dataset": "folder:photos"}
    changes: list[dict[str, Any]] = [
        {},
        own,
        own | {"git_dirty": True, "threads": None, "backbone": "deep"},
    ]
    assert remarks(cells(*changes)) == [
        "not part of codingbench: encoder retina (hash e1); replace the name by its file, "
        "./FILE.py:Class, unless an installed package publishes it",
        "not part of codingbench: backbone deep (hash b1); replace the name by its file, "
        "./FILE.py:Class, unless an installed package publishes it",
        "not part of codingbench: recipe mine (hash r1); replace the name by its file, ./NAME.toml",
        "not part of codingbench: dataset folder:photos (hash d1); give its folder by --data-dir, "
        "unless an installed package publishes it",
        "the number of threads of some cells was not recorded: their last bits may differ",
        "run with codingbench 0.5.0, commit 0123456789ab with changes, torch 2.9.0; "
        "codingbench 0.5.0, commit 0123456789ab, torch 2.9.0",
    ]


def test_unknown_facts_give_no_remarks() -> None:
    unknown = dict.fromkeys(("codingbench_version", "git_commit", "torch_version", "git_dirty"))
    assert remarks(cells(unknown)) == []
    assert remarks(cells({"encoder": "x", "encoder_code": None}))[0].startswith(
        "not part of codingbench: encoder x; "
    )


VIEWS: dict[str, dict[str, Any]] = {
    "ranking": {},
    "all": {"energy": "all"},
    "bill": {"bill": True},
    "vs_ann": {"vs_ann": True},
    "published": {"published": True},
}


@pytest.mark.parametrize("view", VIEWS)
def test_every_measured_row_of_every_view_has_its_command_in_markdown_only(view: str) -> None:
    store = Store(REFERENCE / "fashion_mini")
    text = present(store, Asked(**VIEWS[view]), form="markdown")
    assert isinstance(text, str)
    above, below = text.split("#### Reproduce\n\n```sh\n")
    block, rest = below.split("\n```\n", 1)
    comments, lines = block.split("\n")[::2], block.split("\n")[1::2]
    assert sorted(comments) == [f"# {name}, T=4" for name in ("direct", "gac", "latency", "rate")]
    for comment, line in zip(comments, lines, strict=True):
        (encoder,) = read(line)[0].encoders
        assert comment == f"# {encoder}, T=4"
    shown = re.findall(
        r"^\| (?:\d \| [a-z]+ \| )?(direct|gac|latency|rate) \|", above, re.MULTILINE
    )
    assert [comment[2:].split(",")[0] for comment in comments] == shown
    assert "- run with codingbench 0.2.0, commit a675f6019268, torch " in rest
    assert "### Cite\n\n```bibtex\n@software{codingbench,\n" in rest
    for form in ("json", "csv", "svg"):
        assert "codingbench run --encoders" not in str(
            present(store, Asked(**VIEWS[view]), form=form)
        )
