"""Comparisons between backbones, recipes and numbers of steps."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import codingbench as cb
from codingbench.cli.main import app
from codingbench.errors import CodingbenchError, SpecError
from codingbench.store.folder import Store
from tests.report_stores import store_of

BASE = {"csnn": 0.70, "ms_resnet9": 0.80}
NOISE = {"csnn": (0.0, 0.004, -0.004), "ms_resnet9": (0.0, -0.002, 0.006)}


def cells(**values: Any) -> list[dict[str, Any]]:
    backbone = values.setdefault("backbone", "csnn")
    values = {"encoder": "gac", "num_steps": 4, "images": 1000, **values}
    gain = values.pop("gain", 0.0)
    return [
        {**values, "seed": seed, "accuracy": BASE[backbone] + gain + NOISE[backbone][seed]}
        for seed in range(3)
    ]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    quick, modern = {"recipe": "quick", "epochs": 4}, {"recipe": "modern", "epochs": 100}
    return store_of(
        tmp_path,
        *cells(**quick),
        *cells(**quick, backbone="ms_resnet9"),
        *cells(**quick, num_steps=6, gain=0.03),
        *cells(**quick, encoder="rate"),
        *cells(**modern, gain=0.1),
    )


def read(store: Store, *arguments: object) -> list[dict[str, Any]]:
    command = ["compare", *map(str, arguments), "--results", str(store.folder), "--format", "json"]
    run = CliRunner().invoke(app, command)
    if isinstance(run.exception, CodingbenchError):
        raise run.exception
    assert run.exit_code == 0, run.output
    found: list[dict[str, Any]] = json.loads(run.stdout)
    return found


def test_one_coding_is_compared_with_itself_at_another_number_of_steps(store: Store) -> None:
    (row,) = read(store, "--T", 4, "--against-T", 6)
    assert (row["between"], row["a"], row["b"]) == ("T", "T=4", "T=6")
    assert row["encoder_a"] == row["encoder_b"] == "gac" and row["num_steps"] is None
    assert row["accuracy_delta"] == pytest.approx(-0.03) and row["seeds"] == 3
    assert row["verdict"].startswith("T=6 is better than T=4 with gac by 3.00 points")


def test_backbones_are_compared_for_each_coding_that_has_both(store: Store) -> None:
    (row,) = read(store, "--between", "backbones", "--recipe", "quick")
    assert (row["a"], row["b"], row["num_steps"]) == ("csnn", "ms_resnet9", 4)
    # differences by seed: -0.100, -0.094, -0.110
    assert row["accuracy_delta"] == pytest.approx(-0.304 / 3)
    assert row["d_z"] == pytest.approx(-12.5, abs=0.1) and row["comparisons"] == 1
    assert "ms_resnet9 is better than csnn with gac at T=4" in row["verdict"]


def test_recipes_may_differ_in_the_epochs_that_they_set(store: Store) -> None:
    (row,) = read(store, "gac", "--between", "recipes", "--recipe", "quick,modern", "--T", 4)
    assert (row["a"], row["b"], row["epochs"]) == ("quick", "modern", None)
    assert row["accuracy_delta"] == pytest.approx(-0.1)
    shown = CliRunner(env={"COLUMNS": "80"}).invoke(
        app, ["compare", "--between", "recipes", "--results", str(store.folder)]
    )
    assert "The recipes also differ in epochs or batch size" in " ".join(shown.stdout.split())


def test_recipes_of_equal_epochs_are_compared_there_alone(tmp_path: Path) -> None:
    store = store_of(
        tmp_path,
        *cells(recipe="quick", epochs=4),
        *cells(recipe="quick", epochs=9),
        *cells(recipe="modern", epochs=9, gain=0.05),
    )
    (row,) = read(store, "--between", "recipes")
    assert row["epochs"] == 9 and row["accuracy_delta"] == pytest.approx(0.05)


def test_a_recipe_with_several_settings_is_refused_if_none_fits(tmp_path: Path) -> None:
    store = store_of(
        tmp_path,
        *cells(recipe="quick", epochs=4),
        *cells(recipe="quick", epochs=9),
        *cells(recipe="modern", epochs=100),
    )
    with pytest.raises(SpecError, match=r"quick has cells of several settings \(epochs=4, 9\)"):
        read(store, "--between", "recipes")
    (row,) = read(store, "--between", "recipes", "--where", "recipe != 'quick' or epochs == 4")
    assert row["a"] == "modern"


def test_all_pairs_of_the_table_are_the_family_of_holms_correction(store: Store) -> None:
    everything = read(store, "gac", "rate") + read(store, "--between", "T", "--T", "4,6")
    assert [row["comparisons"] for row in everything] == [1, 1]
    assert all(row["p_holm"] == row["p"] for row in everything)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--against-T", 6], "--against-T 6 expects the other side in --T, such as --T 4"),
        (["--T", 4, "--against-T", 4], "different T in --T and --against-T, got T=4 in both"),
        (["--T", 4, "--against-T", 8], r"no cell of T=8 \(there are T=4, 6\)"),
        (["--between", "backbone"], "'backbone'; did you mean 'backbones'"),
        (["--between", "recipes", "--T", 6], "two recipes, all are of quick"),
        (["--between", "backbones", "--T", 4, "--against-T", 6], "backbones does not"),
        (["rate", "--between", "T"], "at least two numbers of steps, all are of T=4"),
    ],
)
def test_what_differs_in_more_than_one_coordinate_is_refused_in_one_line(
    store: Store, arguments: list[object], message: str
) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        read(store, *arguments)
    assert "\n" not in str(caught.value)


def test_a_second_difference_is_named(tmp_path: Path) -> None:
    store = store_of(tmp_path, *cells(), *cells(backbone="ms_resnet9", epochs=9))
    with pytest.raises(SpecError, match=r"they also differ in epochs \(1; 9\)"):
        read(store, "--between", "backbones")


def test_python_compares_them_with_the_same_words(store: Store) -> None:
    results = cb.load(store.folder)
    assert results.compare(T=4, against_T=6)["accuracy_delta"].tolist() == [pytest.approx(-0.03)]
    assert len(results.compare("gac", between="backbones", recipe="quick")) == 1
