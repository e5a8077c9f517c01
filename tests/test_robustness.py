"""Robustness of finished cells: from kept weights to rows and printed tables."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import typer
from torch import Tensor
from typer.testing import CliRunner, Result

from codingbench.cells.grid import Grid
from codingbench.cells.weights import kept_weights, restore
from codingbench.cli.robustness import robustness
from codingbench.errors import CodingbenchError, SpecError, StoreError
from codingbench.executors.local import InProcess
from codingbench.robustness import target as target_module
from codingbench.robustness.attacks import ATTACKS, AttackedCell
from codingbench.robustness.conditions import Condition, Plan
from codingbench.robustness.masking import weaker_than
from codingbench.robustness.measure import Measurement
from codingbench.robustness.target import Target
from codingbench.schema import TABLES
from codingbench.store.folder import Store
from codingbench.views.robustness import present
from tests.grids import run

pytestmark = pytest.mark.usefixtures("one_thread")

GRID = Grid(
    encoders=("direct", "direct[spiking=false]", "rate"),
    num_steps=(2,),
    backbones=("csnn[width=4]",),
    epochs=3,
    batch_size=10,
    train_samples=200,
    test_samples=60,
)
QUICK = Plan(eps=(8.0, 32.0), samples=60, steps=2, draws=2)
FEW = ("--samples", 10, "--steps", 1, "--eot", 1, "--eps", "8")

app = typer.Typer()
app.command()(robustness)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    run(InProcess(), GRID, folder)
    return folder


@pytest.fixture
def store(trained: Path, tmp_path: Path) -> Store:
    shutil.copytree(trained, tmp_path / "results")
    return Store(tmp_path / "results")


def key_of(store: Store, encoder: str) -> str:
    cells = store.read("cells").set_index("encoder")["key"]
    return str(cells[encoder])


def rows(store: Store, encoder: str) -> Any:  # pandas' types know nothing of the columns
    found = store.read("robustness", [key_of(store, encoder)])
    return found.sort_values(["attack", "strength"], ignore_index=True)


def invoke(store: Store, *arguments: object) -> Result:
    words = [*map(str, arguments), "--results", str(store.folder)]
    done = CliRunner(env={"COLUMNS": "100"}).invoke(app, words)
    if isinstance(done.exception, CodingbenchError):
        raise done.exception
    return done


def test_every_condition_has_a_row_and_clean_is_the_accuracy_of_the_cell(store: Store) -> None:
    for encoder in ("direct", "rate"):
        Measurement(store, QUICK).measure(key_of(store, encoder))
        found = rows(store, encoder)
        expected = {(c.attack, c.strength) for c in QUICK.conditions()}
        if encoder == "direct":
            expected = {one for one in expected if one[0] != "transfer"}
        assert set(found[["attack", "strength"]].itertuples(index=False, name=None)) == expected
        cell = store.read("cells", [key_of(store, encoder)]).iloc[0]
        clean = found[found["attack"] == "clean"].iloc[0]
        assert clean["accuracy"] == cell["accuracy"] and clean["images"] == 60
        assert (
            clean["accuracy"] > 0.25
        )  # above chance, which is 0.1, so that there is accuracy to lose
        assert found.loc[found["attack"] == "fgsm", "accuracy"].max() < clean["accuracy"]
        assert found["accuracy"].between(0, 1).all() and (found["seed"] == cell["seed"]).all()
        assert (clean[["dataset", "backbone"]] == cell[["dataset", "backbone"]]).all()
    attacked = found.set_index("attack")
    assert attacked.loc["pgd", "gradient"].eq("straight-through").all()
    assert attacked.loc["pgd", "draws"].eq(2).all() and attacked.loc["pgd", "steps"].eq(2).all()
    assert attacked.loc["fgsm", "step_size"].tolist() == [8 / 255, 32 / 255]
    assert attacked.loc["transfer", "gradient"].eq("own").all()
    assert attacked.loc["transfer", "source"].eq(key_of(store, "direct")).all()
    assert attacked.loc["gaussian", ["gradient", "draws", "steps"]].isna().all(axis=None)


def test_the_same_seed_gives_the_same_rows_whatever_was_measured_before(
    store: Store, trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained, tmp_path / "again")
    again, plan = Store(tmp_path / "again"), Plan(eps=(8.0,), samples=30, steps=2, draws=2)
    measurement = Measurement(store, plan)
    for encoder in ("direct", "rate"):
        measurement.measure(key_of(store, encoder))
    Measurement(again, plan).measure(key_of(again, "rate"))
    first, second = (rows(s, "rate").drop(columns="measured_at") for s in (store, again))
    pd.testing.assert_frame_equal(first, second)


def target(store: Store, encoder: str, plan: Plan) -> Target:
    return Target(restore(store, key_of(store, encoder), None), plan, torch.device("cpu"), None)


def adversarial(attack: str, found: Target, strength: float) -> Tensor:
    make = ATTACKS[attack].images
    assert make is not None
    return make(found, strength)


def test_another_seed_gives_other_perturbations_of_the_same_size(store: Store) -> None:
    images = []
    for seed in (0, 1):
        plan = Plan(samples=20, steps=2, draws=1, seed=seed)
        found = target(store, "direct", plan)
        images.append(adversarial("pgd", found, 0.1))
        assert (images[-1] - found.images).abs().max().item() <= 0.1 + 1e-6
        assert images[-1].min() >= 0 and images[-1].max() <= 1
        assert not torch.equal(found.uniform("a"), found.uniform("b"))
    assert not torch.equal(*images)


def test_an_attack_raises_the_loss_more_than_random_signs_do(store: Store) -> None:
    found = target(store, "direct", Plan(samples=60, steps=5))

    def loss(images: Tensor) -> float:
        with torch.no_grad():
            logits = found.network(images, torch.Generator()).mean(0)
        return torch.nn.functional.cross_entropy(logits, found.labels).item()

    random = loss(adversarial("signs", found, 0.1)) - loss(found.images)
    for attack in ("fgsm", "pgd"):
        gained = loss(adversarial(attack, found, 0.1)) - loss(found.images)
        assert gained > 3 * abs(random), attack


def test_codes_of_currents_are_not_jittered(store: Store) -> None:
    plan = Plan(("drop", "jitter"), samples=10)
    Measurement(store, plan).measure(key_of(store, "direct[spiking=false]"))
    found = rows(store, "direct[spiking=false]")
    assert set(found["attack"]) == {"clean", "drop"}


def test_earlier_rows_of_the_same_images_stay_and_others_go(store: Store) -> None:
    def attacks(*names: str, **settings: Any) -> set[str]:
        some: dict[str, Any] = {"eps": (8.0,), "samples": 10, "steps": 1}
        plan = Plan(names, **some | settings)
        Measurement(store, plan).measure(key_of(store, "direct"))
        found = rows(store, "direct")
        assert not found.duplicated(["attack", "strength"]).any()
        return set(found["attack"])

    assert attacks("drop") == {"clean", "drop"}
    assert attacks("pgd") == {"clean", "drop", "signs", "pgd"}
    assert attacks("gaussian", samples=20) == {"clean", "gaussian"}
    assert attacks("jitter", samples=20, seed=1) == {"clean", "jitter"}


# --- the table of attacks ---------------------------------------------------------------------


def test_a_target_has_all_that_attacks_use(store: Store) -> None:
    assert isinstance(target(store, "direct", QUICK), AttackedCell)


def test_records_of_attacks_are_consistent() -> None:
    for name, attack in ATTACKS.items():
        assert attack.name == name and attack.strengths
        assert not (attack.images and attack.code)
        for control in (attack.baseline, *attack.rivals):
            assert control is None or ATTACKS[control].unit == attack.unit
            assert control is None or ATTACKS[control].as_control
        assert attack.is_white_box == (attack.baseline is not None)
    assert [name for name in ATTACKS if ATTACKS[name].is_iterated] == ["pgd", "transfer"]


def test_a_baseline_is_measured_with_its_attack() -> None:
    attacks = {condition.attack for condition in Plan(("fgsm",)).conditions()}
    assert attacks == {"clean", "signs", "fgsm"}
    assert {condition.attack for condition in Plan(("transfer",)).conditions()} == {
        "clean",
        "transfer",
    }


def test_help_lists_the_attacks_without_importing_torch() -> None:
    code = (
        "import sys; from codingbench.cli.main import app\ntry:\n app(['robustness', '--help'])\n"
    )
    code += "except SystemExit:\n assert not {'torch', 'pandas'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in ATTACKS if name != "clean")


# --- gradient masking -----------------------------------------------------------------------------

PGD, FGSM, SIGNS, TRANSFER = (Condition(name, 0.1) for name in ("pgd", "fgsm", "signs", "transfer"))


def right(images: int, of: int = 40) -> Tensor:
    return torch.arange(of) < images


@pytest.mark.parametrize(
    ("pgd", "signs", "transfer", "masked_by"),
    [
        (10, 30, 20, []),
        (30, 30, 30, ["signs"]),  # as strong as random signs
        (26, 30, 30, ["signs"]),  # four images of 40: p = 0.125
        (24, 30, 24, []),  # six: p = 0.03
        (20, 38, 10, ["transfer"]),
        (30, 30, 10, ["signs", "transfer"]),
        (20, 38, 17, []),  # three images
    ],
)
def test_a_white_box_attack_must_beat_random_signs_and_not_be_weaker_than_transfer(
    pgd: int, signs: int, transfer: int, masked_by: list[str]
) -> None:
    found = {PGD: right(pgd), SIGNS: right(signs), TRANSFER: right(transfer)}
    assert weaker_than(PGD, found) == masked_by
    assert weaker_than(SIGNS, found) == weaker_than(TRANSFER, found) == []
    assert weaker_than(FGSM, {FGSM: found[PGD]} | found) == masked_by
    assert weaker_than(PGD, {PGD: right(pgd), Condition("signs", 0.2): right(pgd)}) == []


def test_an_attack_of_many_steps_must_not_be_weaker_than_one_step() -> None:
    found = {PGD: right(20), FGSM: right(10), SIGNS: right(38)}
    assert weaker_than(PGD, found) == ["fgsm"] and weaker_than(FGSM, found) == []


def test_without_bpda_a_pixel_code_looks_robust_and_the_output_warns(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = key_of(store, "rate")
    monkeypatch.setattr(target_module, "has_gradient", lambda *arguments: True)
    Measurement(store, Plan(("fgsm", "pgd"), (32.0,), 60, steps=2, draws=1)).measure(key)
    found = rows(store, "rate").set_index("attack")
    assert (
        found.loc["fgsm", "accuracy"] == found.loc["clean", "accuracy"]
    )  # the images did not change
    for attack in ("fgsm", "pgd"):
        assert "signs" in found.loc[attack, "weaker_than"]
    text = present(store, [key], "markdown")
    assert isinstance(text, str)
    assert (
        "! rate at T=2, seed 0: fgsm at 32/255 is not shown to be stronger than random signs of "
        "the same size: the gradient is masked or the images are too few" in text
    )
    assert f"{100 * found.loc['fgsm', 'accuracy']:.1f}! |" in text


# --- the command ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["direct"],
            "got 'direct'; codingbench list cells --results ",
        ),
        (["0123abcd0123abcd"], "no cell '0123abcd0123abcd'"),
        (["al"], "first 4 or more characters, such as "),
        (["all", "--attacks", "pdg"], "unknown attack 'pdg'; did you mean 'pgd'"),
        (["all", "--attacks", ""], "empty entry in the list ''"),
        (["all", "--eps", "-8"], "eps must be above 0 and at most 255, got -8"),
        (["all", "--eps", "8,256"], "eps must be above 0 and at most 255, got 256"),
        (["all", "--eps", "nan"], "eps must be above 0 and at most 255, got nan"),
        (["all", "--eps", "8/255"], "eps must be numbers in 1/255, for example 2,4,8, got '8/255'"),
        (["all", "--samples", "0"], "samples must be at least 1, got 0"),
        (["all", "--steps", "0"], "steps must be at least 1, got 0"),
        (["all", "--eot", "0"], "eot must be at least 1, got 0"),
        (["all", "--seed", "-1"], "seed must be at least 0, got -1"),
        (["all", "--device", "gpu"], "unknown device 'gpu'"),
        (["all", "--format", "svg"], "unknown format 'svg'"),
    ],
)
def test_wrong_requests_are_one_line_and_nothing_is_written(
    store: Store, arguments: list[str], message: str
) -> None:
    with pytest.raises(SpecError) as caught:
        invoke(store, *arguments)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not (store.folder / "robustness").exists()


def test_an_empty_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        SpecError, match=r"there is no results folder .*; codingbench run .* adds some"
    ):
        invoke(Store(tmp_path / "none"), "all")


def test_a_cell_without_weights_is_refused_and_the_others_are_measured(store: Store) -> None:
    lost = key_of(store, "rate")
    kept_weights(store, lost).clear()
    with pytest.raises(CodingbenchError, match=f"the weights of {lost} were not kept"):
        invoke(store, lost[:6])
    done = invoke(store, "all", *FEW, "--attacks", "drop,fgsm", "--format", "json")
    assert done.exit_code == 1
    assert done.stderr.startswith(f"left out: the weights of {lost} were not kept")
    found = json.loads(done.stdout)
    assert {row["encoder"] for row in found} == {"direct", "direct[spiking=false]"}
    assert list(found[0]) == TABLES["robustness"].names


def test_a_cell_that_is_being_run_is_left_alone(store: Store) -> None:
    key = key_of(store, "direct")
    with store.claim(key), pytest.raises(StoreError, match=f"cell {key} is being run"):
        Measurement(store, Plan(("drop",), samples=10)).measure(key)


def test_the_table_has_a_line_per_cell_and_a_column_per_condition(store: Store) -> None:
    done = invoke(store, "all", *FEW)
    assert done.exit_code == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].startswith("fashion_mini, recipe quick, 3 epochs, 200 training images")
    assert lines[1] == "10 test images, perturbations of seed 0"
    assert max(map(len, lines)) <= 100
    for name in ATTACKS:
        assert f"{name}: {ATTACKS[name].summary}" in " ".join(done.stdout.split())
    (headings,) = (
        line
        for line in lines
        if "transfer" in line and "pgd" in line and "signs" in line and ":" not in line
    )
    assert headings.split() == ["signs", "fgsm", "pgd", "transfer"]
    # T and seed; [spiking=false] may be folded
    names = [line.split()[0].partition("[")[0] for line in lines if line.split()[1:3] == ["2", "0"]]
    assert names == ["direct", "direct", "rate"] * 3  # images, codes, and within one eps
    assert "(EOT)" not in done.stdout and "(BPDA): rate" in done.stdout
    csv = invoke(store, key_of(store, "rate")[:8], *FEW, "--format", "csv").stdout
    assert csv.splitlines()[0] == ",".join(TABLES["robustness"].names)
    assert len(csv.splitlines()) == 1 + 1 + 3 + 1 + 3 + 3 + 1 + 1 + 1


def test_the_cells_to_measure_are_named_or_selected_by_options(store: Store) -> None:
    few = (*FEW, "--attacks", "gaussian")
    done = invoke(store, "--encoders", "rate", "--T", 2, *few)
    assert done.exit_code == 0, done.output
    assert set(store.read("robustness")["key"]) == {key_of(store, "rate")}
    done = invoke(store, "--where", "encoder != 'rate'", *few)
    assert done.exit_code == 0, done.output
    assert set(store.read("robustness")["key"]) == store.finished()
    for neither_or_both in ((), ("all", "--T", 2)):
        with pytest.raises(SpecError, match="either keys of cells or options that select cells"):
            invoke(store, *neither_or_both, *few)
    with pytest.raises(SpecError, match="gac"):
        invoke(store, "--encoders", "gac", *few)
