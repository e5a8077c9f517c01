"""Settings from options and from a TOML file are parsed into a grid."""

from pathlib import Path
from typing import Any

import pytest

from codingbench.cells.grid import Grid
from codingbench.cells.settings import (
    RunSettings,
    make_grid,
    parse_settings,
    read_config,
    text_setting,
)
from codingbench.errors import CodingbenchError, SpecError


def config(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "grid.toml"
    path.write_text(text, encoding="utf-8")
    return path


FLAGS = {
    "encoders": "gac,latency[scale=log,threshold=0.1]",
    "backbones": "csnn",
    "dataset": "cifar100",
    "T": "2,4,6",
    "seeds": "3",
    "recipe": "gac,quick",
    "epochs": "5",
    "batch_size": "32",
    "train_samples": "200",
    "test_samples": "100",
    "precision": "bf16",
    "data_dir": "somewhere",
}
GRID = Grid(
    encoders=("gac", "latency[scale=log,threshold=0.1]"),
    backbones=("csnn",),
    datasets=("cifar100",),
    num_steps=(2, 4, 6),
    recipes=("gac", "quick"),
    seeds=(0, 1, 2),
    epochs=5,
    batch_size=32,
    train_samples=200,
    test_samples=100,
    precision="bf16",
    data_dir=Path.cwd() / "somewhere",
)
AS_TEXT = "".join(f'{name} = "{value}"\n' for name, value in FLAGS.items())
AS_VALUES = """
encoders = ["gac", "latency[scale=log,threshold=0.1]"]
backbones = ["csnn"]
dataset = ["cifar100"]
T = [2, 4, 6]
seeds = [0, 1, 2]
recipe = ["gac", "quick"]
epochs = 5
batch_size = 32
train_samples = 200
test_samples = 100
precision = "bf16"
data_dir = "somewhere"
"""


def test_flags_make_the_grid() -> None:
    assert make_grid(FLAGS) == GRID


@pytest.mark.parametrize("text", [AS_TEXT, AS_VALUES])
def test_a_file_with_texts_or_values_is_the_same_as_flags(tmp_path: Path, text: str) -> None:
    assert make_grid(read_config(config(tmp_path, text))) == GRID


def test_nothing_asked_for_is_the_default_grid() -> None:
    assert make_grid(read_config(None)) == Grid()


def test_settings_that_are_not_of_the_grid_are_kept_beside_it(tmp_path: Path) -> None:
    settings = read_config(config(tmp_path, 'results = "elsewhere"\n'))
    assert make_grid(settings) == Grid()
    assert text_setting(settings, "results", "results") == "elsewhere"
    assert text_setting(settings, "device", "auto") == "auto"


@pytest.mark.parametrize("value", [3, "", " ", ["a"], True])
def test_a_setting_that_must_be_text_is_refused_otherwise(value: Any) -> None:
    for name in ("results", "device"):
        with pytest.raises(SpecError, match=f"{name} expects text, got"):
            text_setting({name: value}, name, "default")
    for name in ("data_dir", "precision"):
        with pytest.raises(SpecError, match=f"{name} expects text, got"):
            make_grid({name: value})


def test_an_unknown_setting_names_the_nearest(tmp_path: Path) -> None:
    path = config(tmp_path, 'encoder = "gac"\n')
    with pytest.raises(SpecError, match=r"'encoder'; did you mean 'encoders'\?"):
        read_config(path)
    with pytest.raises(SpecError, match=r"'train-samples'; did you mean 'train_samples'\?"):
        read_config(config(tmp_path, "train-samples = 3\n"))


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    broken = config(tmp_path, "T = [2,\n")
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b'encoders = "\xe9"\n')
    for path, reason in (
        (tmp_path / "absent.toml", "No such file"),
        (tmp_path, "directory"),
        (broken, "is not valid TOML"),
        (latin, "it is not text in UTF-8"),
    ):
        with pytest.raises(CodingbenchError, match=reason) as caught:
            read_config(path)
        assert "\n" not in str(caught.value)


def test_a_file_in_utf8_is_read_as_such(tmp_path: Path) -> None:
    assert read_config(config(tmp_path, 'data_dir = "Üb/ung"\n')) == {"data_dir": "Üb/ung"}


@pytest.mark.parametrize(
    ("value", "seeds"),
    [
        ("3", (0, 1, 2)),
        (3, (0, 1, 2)),
        ("1", (0,)),
        ("7,", (7,)),
        ("3,5,8", (3, 5, 8)),
        ([3, 5], (3, 5)),
        ([7], (7,)),
    ],
)
def test_one_number_is_how_many_seeds_and_a_list_is_the_seeds(
    value: Any, seeds: tuple[int, ...]
) -> None:
    assert make_grid({"seeds": value}).seeds == seeds


@pytest.mark.parametrize("value", ["0", "-1", 0, "20240101"])
def test_no_seeds_or_a_seed_mistaken_for_a_count_is_refused(value: Any) -> None:
    with pytest.raises(SpecError, match="the number of seeds must be from 1 to 1000"):
        make_grid({"seeds": value})


@pytest.mark.parametrize("name", ["encoders", "backbones", "dataset", "T", "recipe"])
@pytest.mark.parametrize("value", ["", " ", [], ",", "2,,4", "2,"])
def test_an_empty_list_or_entry_is_refused(name: str, value: Any) -> None:
    with pytest.raises(SpecError, match="empty"):
        make_grid({name: value})


@pytest.mark.parametrize("value", [{"name": "gac"}, 1.5])
def test_a_list_of_the_wrong_type_is_refused(value: Any) -> None:
    with pytest.raises(SpecError, match="encoders expects text or a list, got"):
        make_grid({"encoders": value})
    with pytest.raises(SpecError, match="T expects whole numbers, got"):
        make_grid({"T": value})


@pytest.mark.parametrize("name", ["T", "seeds", "epochs", "batch_size", "train_samples"])
@pytest.mark.parametrize("value", ["a", "2.5", "1e3", True])
def test_what_is_no_whole_number_is_refused(name: str, value: Any) -> None:
    with pytest.raises(SpecError, match=f"{name} expects a whole number, got"):
        make_grid({name: value})


@pytest.mark.parametrize("value", [2.0, [3], {"a": 1}, ""])
def test_a_bound_is_one_whole_number(value: Any) -> None:
    with pytest.raises(SpecError, match="epochs expects a whole number, got"):
        make_grid({"epochs": value})


def test_settings_are_parsed_together_with_the_resources_of_the_run() -> None:
    given = {"T": "2", "device": "cpu", "devices": 2, "workers": "3", "decoders": 0, "seeds": None}
    assert parse_settings(given) == RunSettings(
        grid=Grid(num_steps=(2,)),
        device="cpu",
        devices=2,
        workers=3,
        decoders=0,
    )
    assert parse_settings({}) == RunSettings()
    with pytest.raises(SpecError, match="decoders must be at least 0, got -1"):
        parse_settings({"decoders": -1})
