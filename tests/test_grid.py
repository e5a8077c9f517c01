"""The grid's expansion, and the key of a cell."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from codingbench.cells.grid import Cell, Grid, Job
from codingbench.errors import SpecError
from tests.photos import encoded, photo, write_photos


def only_job(**asked: Any) -> Job:
    (job,) = Grid(**({"encoders": ("direct",)} | asked)).expand()
    return job


def coordinates(job: Job) -> tuple[str, str, int, str, int]:
    cell = job.cell
    return cell.dataset, cell.recipe, cell.num_steps, cell.encoder, cell.seed


def test_the_default_grid_is_the_four_codings_on_the_data_set_inside() -> None:
    cells = [job.cell for job in Grid().expand()]
    assert [cell.encoder for cell in cells] == ["direct", "rate", "latency", "gac"]
    assert cells[0] == Cell(
        dataset="fashion_mini", encoder="direct", backbone="csnn", num_steps=4, recipe="quick",
        epochs=4, batch_size=50, micro_batch=50, train_samples=6000, test_samples=1000,
        precision="fp32", seed=0,
    )  # fmt: skip


def test_the_data_set_varies_slowest_and_the_seed_fastest() -> None:
    grid = Grid(
        encoders=("gac", "direct"),
        datasets=("cifar100", "cifar10"),
        num_steps=(2, 4),
        recipes=("gac", "quick"),
        seeds=(0, 1),
    )
    expected = [
        (dataset, recipe, num_steps, encoder, seed)
        for dataset in ("cifar100", "cifar10")
        for recipe in ("gac", "quick")
        for num_steps in (2, 4)
        for encoder in ("gac", "direct")
        for seed in (0, 1)
    ]
    assert len(expected) == 32
    assert [coordinates(job) for job in grid.expand()] == expected


def test_what_is_asked_for_twice_runs_once() -> None:
    grid = Grid(
        encoders=("direct", "direct[spiking=true]", "direct"),
        num_steps=(2, 2),
        seeds=(1, 1),
        datasets=("fashion_mini", "fashion_mini"),
    )
    assert [coordinates(job)[2:] for job in grid.expand()] == [(2, "direct", 1)]


def test_several_values_make_a_cell_each_in_the_order_written() -> None:
    grid = Grid(
        encoders=("latency[scale=log|linear,threshold=0.5|0.1]", "direct"),
        backbones=("csnn[width=4|8]",),
    )
    labels = [f"latency[{scale}threshold={t}]" for scale in ("scale=log,", "") for t in (0.5, 0.1)]
    assert [(job.cell.backbone, job.cell.encoder) for job in grid.expand()] == [
        (f"csnn[width={width}]", label) for width in (4, 8) for label in (*labels, "direct")
    ]
    assert grid.encoders[0] == "latency[scale=log|linear,threshold=0.5|0.1]"  # as it was written


def test_equal_values_are_one_cell() -> None:
    grid = Grid(encoders=("rate[gain=1|1.0|2|2.00]", "rate"))
    assert [job.cell.encoder for job in grid.expand()] == ["rate", "rate[gain=2.0]"]
    same = Grid(encoders=("rate[gain=2]",)).expand()[0]
    assert grid.expand()[1].key("x") == same.key("x")


def test_bounds_replace_those_of_the_recipe_and_the_data_set() -> None:
    job = only_job(epochs=7, batch_size=8, train_samples=90, test_samples=30)
    cell = job.cell
    assert (cell.epochs, cell.batch_size, cell.train_samples, cell.test_samples) == (7, 8, 90, 30)
    assert (job.recipe.epochs, job.recipe.batch_size) == (7, 8)


def test_the_key_is_the_hash_of_all_that_decides_and_stays() -> None:
    job = only_job()
    fixed = replace(
        job,
        encoder=replace(job.encoder, params=(("a", 1),), code="c0de"),
        backbone=replace(job.backbone, params=(("on", False),), code="d1ff"),
        recipe=replace(job.recipe, hash="abc"),
    )
    # Stored results are found by this key; it may change only when PROTOCOL does.
    assert fixed.key("fingerprint") == "44a8e85529e098bc"
    written = (
        '{"backbone": [[["on", false]], "d1ff"], "cell": {"backbone": "csnn", "batch_size": 50, '
        '"dataset": "fashion_mini", "encoder": "direct", "epochs": 4, "num_steps": 4, '
        '"precision": "fp32", "recipe": "quick", "seed": 0, "test_samples": 1000, '
        '"train_samples": 6000}, "dataset": "fingerprint", "encoder": [[["a", 1]], "c0de"], '
        '"protocol": 2, "recipe": "abc"}'
    )
    assert hashlib.sha256(written.encode()).hexdigest()[:16] == "44a8e85529e098bc"


@pytest.mark.parametrize(
    "asked",
    [
        {"seeds": (1,)},
        {"num_steps": (5,)},
        {"encoders": ("direct[spiking=false]",)},
        {"encoders": ("rate",)},
        {"backbones": ("ms_resnet18",)},
        {"datasets": ("fashion_mnist",), "train_samples": 6000, "test_samples": 1000},
        {"recipes": ("gac",), "epochs": 4, "batch_size": 50},
        {"epochs": 5},
        {"batch_size": 51},
        {"train_samples": 5999},
        {"test_samples": 999},
        {"precision": "bf16"},
    ],
)
def test_the_key_differs_with_every_coordinate(asked: dict[str, object]) -> None:
    assert only_job(**asked).key("x") != only_job().key("x")


def test_the_key_differs_with_code_parameters_recipe_and_data() -> None:
    job = only_job()
    others = [
        replace(job, encoder=replace(job.encoder, code="0")),
        replace(job, backbone=replace(job.backbone, code="0")),
        replace(job, encoder=replace(job.encoder, params=(("spiking", False),))),
        replace(job, backbone=replace(job.backbone, params=(("width", 1),))),
        replace(job, recipe=replace(job.recipe, hash="0")),
    ]
    keys = {job.key("x"), job.key("y"), *(other.key("x") for other in others)}
    assert len(keys) == 7


@pytest.mark.parametrize(
    ("asked", "is_new"),
    [
        ({"datasets": ("mnist",)}, True),
        ({"datasets": ("mnist",), "train_samples": 54_211}, True),
        ({"datasets": ("mnist",), "train_samples": 54_210}, False),
        ({"datasets": ("fashion_mnist",)}, False),
        ({"datasets": ("imagenet",), "backbones": ("ms_resnet18",)}, True),
    ],
)
def test_cells_validated_on_other_images_than_before_have_new_keys(
    asked: dict[str, Any], is_new: bool
) -> None:
    job = only_job(**asked)
    before = replace(job, info=replace(job.info, balanced_train=None))
    assert (job.key("x") != before.key("x")) is is_new


def test_folders_of_unequal_classes_are_known_by_their_counts(tmp_path: Path) -> None:
    write_photos(tmp_path / "pets", classes="ab", train=4)
    name = f"folder:{tmp_path / 'pets'}[size=16]"
    assert only_job(datasets=(name,)).info.balanced_train == 8
    (tmp_path / "pets/train/a").joinpath("more.png").write_bytes(encoded(photo(9)))
    assert only_job(datasets=(name,)).info.balanced_train == 8
    assert only_job(datasets=(name,)).info.train_size == 9


def test_the_key_depends_on_nothing_else() -> None:
    same = only_job(encoders=("direct[spiking=true]",), data_dir=Path("elsewhere"), epochs=4)
    assert same.key("x") == only_job().key("x")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"num_steps": (0,)}, "T must be a whole number of at least 1, got 0"),
        ({"num_steps": (2, -1)}, "T must be a whole number of at least 1, got -1"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": -3}, "batch-size must be at least 1, got -3"),
        ({"train_samples": 1}, "train-samples must be at least 2, got 1"),
        ({"test_samples": 0}, "test-samples must be at least 1, got 0"),
        (
            {"train_samples": 6001},
            "fashion_mini has 6000 train images, but 6001 were requested",
        ),
        (
            {"test_samples": 1001},
            "fashion_mini has 1000 test images, but 1001 were requested",
        ),
        ({"precision": "fp16"}, "precision must be fp32 or bf16, got 'fp16'"),
        ({"seeds": (-1,)}, "seeds must be from 0 to 4294967295, got -1"),
        ({"seeds": (2**32,)}, "seeds must be from 0 to 4294967295, got 4294967296"),
        ({"encoders": ()}, "encoders is empty: expected at least one"),
        ({"seeds": ()}, "seeds is empty: expected at least one"),
        (
            {"encoders": ("rate[gain=1|]",)},
            "rate[gain] has an empty value in '1|': expected a|b|...",
        ),
        ({"encoders": ("rate[gain=1|x]",)}, "rate[gain] expects a finite number, got 'x'"),
    ],
)
def test_what_cannot_be_run_is_refused(asked: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        only_job(**asked)
    assert str(caught.value) == message


def test_two_plugins_or_recipes_of_one_name_are_refused_not_merged(tmp_path: Path) -> None:
    code = "from codingbench.encoders.direct import DirectEncoder\nclass Mine(DirectEncoder): ..."
    files = [tmp_path / "a.py", tmp_path / "b.py"]
    for path in files:
        path.write_text(code)
    with pytest.raises(SpecError, match="two different encoders are named 'Mine'"):
        Grid(encoders=tuple(f"{path}:Mine" for path in files)).expand()
    shipped = Path(__file__).parents[1] / "codingbench" / "recipes" / "quick.toml"
    recipe = tmp_path / "quick.toml"
    recipe.write_text(shipped.read_text().replace("epochs = 4", "epochs = 5"))
    with pytest.raises(SpecError, match="two different recipes are named 'quick'"):
        Grid(recipes=("quick", str(recipe))).expand()
