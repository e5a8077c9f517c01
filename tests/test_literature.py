"""Published numbers, and a protocol compared with them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from codingbench.analysis.leaderboard import rows
from codingbench.analysis.learning import AT_CHANCE
from codingbench.analysis.published import PUBLISHED_COLUMNS, with_published
from codingbench.cells.grid import Grid
from codingbench.cells.network import network_of
from codingbench.cells.settings import parse_settings
from codingbench.cli.main import app
from codingbench.datasets import get_info
from codingbench.errors import SpecError
from codingbench.literature.published import published
from codingbench.literature.reproduction import (
    Point,
    Protocol,
    departures,
    load_protocol,
    points,
    untested,
)
from codingbench.recipes.recipe import load_recipe
from codingbench.registry import ENCODERS
from codingbench.schema import PROVENANCE
from codingbench.store.folder import Store
from codingbench.store.learning import read_cells
from codingbench.training.splits import held_out_count
from codingbench.views.published import beside
from tests.conftest import row

ROOT = Path(__file__).parents[1]
GAC = load_protocol("gac")
MAX_RESNET = load_protocol("max-resnet")
SEEDS = Grid(
    encoders=("gac", "direct", "direct[spiking=false]"),
    backbones=("ms_resnet18",),
    datasets=("cifar100",),
    num_steps=(6,),
    recipes=("gac",),
    seeds=(0, 1),
)


def cell(encoder: str, seed: int, accuracy: float, **values: Any) -> dict[str, Any]:
    at = {"dataset": "cifar100", "num_steps": 6, "backbone": "ms_resnet18"}
    own = {"encoder": encoder, "seed": seed, "accuracy": accuracy, "parameters": 12_679_368}
    return at | own | {"key": f"{encoder}-{seed}", "selected_accuracy": accuracy - 0.01} | values


def measured(dataset: str, accuracy: float) -> dict[str, Any]:
    own = {"key": f"{dataset}-key", "dataset": dataset, "encoder": "gac", "accuracy": accuracy}
    return row("cells", **own, num_steps=4, recipe="quick", epochs=4, train_samples=500)


def by_name(found: list[Point]) -> dict[str, Point]:
    return {point.what: point for point in found}


def test_published_numbers_are_those_of_their_sources() -> None:
    reported = {
        (p.source, p.dataset, p.network, p.num_steps): (p.accuracy, p.parameters, p.energy_uj)
        for p in published()
    }
    in_readme = reported["GAC README", "cifar100", "MS-ResNet-18 [3,3,2]", 6]
    assert in_readme == (0.8045, 12_630_000, None)
    on_imagenet = reported["GAC README (ImageNet)", "imagenet", "MS-ResNet-34", 6]
    assert on_imagenet == (0.7042, 21_930_000, 3380)
    assert reported["Max-ResNet Tab. 5", "cifar10", "Max-ResNet-18 [3,3,2]", 4][0] == 0.9717
    assert reported["CLIF", "cifar100", "ResNet-18", 6][0] == 0.7836
    gaps = [
        100 * (reported["STEP direct", *place][0] - reported[f"STEP {code}", *place][0])
        for code in ("rate", "ttfs", "phase")
        for network in ("Spikformer", "Spikformer + SEMM", "SDT")
        for place in [("cifar10", network, 4)]
    ]
    assert min(gaps) > 9 and max(gaps) == pytest.approx(95.12 - 82.10)
    unknown_steps = reported["LM-HT Tab. S1", "cifar10", "MS-ResNet-18 [3,3,2]", None]
    assert unknown_steps[0] == pytest.approx(0.9492)


def test_every_published_number_has_its_place_and_its_recipe() -> None:
    assert len({(p.source, p.dataset, p.network, p.num_steps) for p in published()}) == len(
        published()
    )
    for result in published():
        assert result.where and result.recipe and 0.5 < result.accuracy < 1
        assert result.encoder is None or result.encoder == ENCODERS.resolve(result.encoder).label
        assert (result.energy_uj is None) == (result.energy_convention is None)


def test_each_point_is_the_mean_over_seeds_less_what_was_reported() -> None:
    cells = pd.DataFrame([cell("gac", 0, 0.78), cell("gac", 1, 0.80), cell("direct", 1, 0.77)])
    found = by_name(points(GAC, SEEDS.expand(), cells))
    gac = found["accuracy of gac, %"]
    assert [gac.reported, gac.measured, gac.seeds] == pytest.approx([80.45, 79, 2])
    assert gac.measured_std == pytest.approx(2**0.5)  # standard deviation of 78 and 80
    assert gac.gap == pytest.approx(-1.45)
    assert found["gac, epoch by validation, %"].measured == pytest.approx(78)
    baseline = found["accuracy of direct[spiking=false], %"]
    assert baseline.reported == pytest.approx(76.41)
    assert baseline.source == "LM-HT Tab. S1 (sources disagree on T: 6 or 4)"


def test_the_best_test_epoch_is_marked_and_needs_every_epoch() -> None:
    cells = pd.DataFrame(
        [cell("gac", seed, 0.7, key=key) for seed, key in enumerate(("whole", "partly", "none"))]
    )
    accuracies: dict[str, list[float | None]] = {
        "whole": [0.5, 0.8, 0.7],
        "partly": [None, 0.9],
        "none": [None],
    }
    epochs = pd.DataFrame(
        [
            {"key": key, "epoch": number, "test_accuracy": accuracy}
            for key, found in accuracies.items()
            for number, accuracy in enumerate(found, 1)
        ]
    )
    found = by_name(points(GAC, SEEDS.expand(), cells, epochs))
    best = found["gac, best test epoch, %"]
    assert best.measured == pytest.approx(80) and best.seeds == 1
    assert best.gap == pytest.approx(80 - 80.45)
    assert [name for name, point in found.items() if point.chosen_on_test] == [best.what]
    assert untested(cells, epochs) == ["partly", "none"]
    unknown = by_name(points(GAC, SEEDS.expand(), cells))["gac, best test epoch, %"]
    assert (unknown.measured, unknown.gap, unknown.reported) == (None, None, 80.45)


def test_a_gain_is_paired_over_the_seeds_that_both_have() -> None:
    currents = "direct[spiking=false]"
    cells = pd.DataFrame([cell("gac", 0, 0.60), cell("gac", 1, 0.80), cell(currents, 1, 0.77)])
    gain = by_name(points(GAC, SEEDS.expand(), cells))[f"gain over {currents}, points"]
    assert [gain.measured, gain.seeds] == pytest.approx([3, 1])
    assert gain.reported == pytest.approx(80.45 - 76.41)  # from two recipes
    assert gain.gap == pytest.approx(3 - 4.04)


@pytest.mark.parametrize(("num_steps", "reported"), [(2, None), (4, 76.41), (6, 76.41), (8, None)])
def test_a_baseline_stands_only_beside_the_steps_that_its_sources_name(
    num_steps: int, reported: float | None
) -> None:
    jobs = replace(SEEDS, num_steps=(num_steps,)).expand()
    found = by_name(points(GAC, jobs, pd.DataFrame([cell("gac", 0, 0.8)])))
    baseline = found["accuracy of direct[spiking=false], %"].reported
    assert baseline == (None if reported is None else pytest.approx(reported))
    gain = found["gain over direct[spiking=false], points"].reported
    assert (gain is None) == (num_steps not in (4, 6))


def test_what_was_not_run_or_not_published_is_left_open() -> None:
    found = by_name(points(GAC, SEEDS.expand(), pd.DataFrame([cell("gac", 0, 0.8)])))
    unrun = found["accuracy of direct, %"]
    assert (unrun.measured, unrun.seeds, unrun.gap) == (None, 0, None)
    for what in ("accuracy of direct, %", "gain over direct, points"):  # neurons come first there
        assert (found[what].reported, found[what].source) == (None, None)


def test_parameters_are_compared_in_millions() -> None:
    parameters = by_name(points(GAC, SEEDS.expand(), pd.DataFrame([cell("gac", 0, 0.8)])))[
        "parameters of gac, M"
    ]
    # the README gives one number for 10 and 100 classes; 12.68 belongs to 100
    assert parameters.gap == pytest.approx(12.679368 - 12.63)


def test_the_full_protocol_departs_only_by_what_the_code_cannot_do() -> None:
    assert departures(GAC, SEEDS.expand()) == list(GAC.departures)


@pytest.mark.parametrize("dataset, reported", [("cifar10", 97.17), ("cifar100", 83.06)])
def test_max_resnet_is_compared_with_its_published_accuracy_and_parameters(
    dataset: str, reported: float
) -> None:
    jobs = parse_settings(MAX_RESNET.settings).grid.expand()
    assert [job.cell.dataset for job in jobs] == ["cifar10", "cifar100"]
    assert departures(MAX_RESNET, jobs) == list(MAX_RESNET.departures)
    (job,) = (job for job in jobs if job.cell.dataset == dataset)
    assert sum(p.numel() for p in network_of(job).parameters()) // 10_000 in (1250, 1254)
    at = {"dataset": dataset, "num_steps": 4, "backbone": "max_resnet18"}
    row = cell("direct[spiking=false]", 0, 0.80) | at
    found = by_name(points(MAX_RESNET, [job], pd.DataFrame([row])))
    accuracy = found["accuracy of direct[spiking=false], %"]
    assert [accuracy.reported, accuracy.measured] == pytest.approx([reported, 80])
    assert found["parameters of direct[spiking=false], M"].reported == pytest.approx(12.5)
    assert not any("gain" in what for what in found)


def test_every_bound_is_named_as_a_departure() -> None:
    bounded = Grid(
        datasets=("cifar100",), recipes=("gac",), epochs=2, train_samples=500, test_samples=100
    )
    lines = departures(GAC, bounded.expand())
    assert lines[:4] == [
        "epochs: 2 instead of 250",
        "train samples: 500 instead of 50000",
        "test samples: 100 instead of 10000",
        "backbone: csnn instead of ms_resnet18",
    ]


def test_other_steps_and_data_than_published_are_departures() -> None:
    other = Grid(datasets=("mnist", "cifar10"), num_steps=(1, 2, 3), backbones=("ms_resnet18",))
    assert departures(GAC, replace(other, recipes=("gac",)).expand())[:3] == [
        "dataset: mnist instead of cifar10, cifar100",
        "T: 1, 3 instead of 2, 4, 6",
        "train samples: 60000 instead of 50000",
    ]
    part = replace(SEEDS, num_steps=(2, 4)).expand()  # of what is published
    assert departures(GAC, part) == list(GAC.departures)


def test_another_recipe_of_the_same_name_is_a_departure(tmp_path: Path) -> None:
    (tmp_path / "gac.toml").write_text('extends = "gac"\n[optimizer]\nlr = 0.2\n')
    jobs = replace(SEEDS, recipes=(str(tmp_path / "gac.toml"),)).expand()
    assert departures(GAC, jobs)[0] == "recipe: gac with other settings instead of gac"


@pytest.mark.parametrize(
    ("protocol", "facts"),
    [
        (
            GAC,
            "8 GPUs|8 images|CutMix|best test|held out|766 steps|seed 1000|0.5 and 0.25|"
            "over the batch|T = 6|two spatial|once per image|12.63 M|how many runs|MS-ResNet paper",
        ),
        (
            MAX_RESNET,
            "best test|held out|how many runs|batches of 128|until epoch 250|10 more|warm-up|"
            "biases and normalisation|mixed precision|RandAugment|mean of the training images|"
            "shuffled copy|afterwards|dropped|equal to the threshold|0.2470|50425|transformers",
        ),
    ],
    ids=["gac", "max-resnet"],
)
def test_every_known_difference_from_the_authors_code_is_a_departure(
    protocol: Protocol, facts: str
) -> None:
    listed = "\n".join(protocol.departures)
    assert [fact for fact in facts.split("|") if fact not in listed] == []


def test_the_numbers_in_the_departures_are_those_of_the_protocol() -> None:
    recipe = load_recipe("gac")
    kept = GAC.train_samples - held_out_count(GAC.train_samples, recipe.val_fraction)
    steps = [-(-images // recipe.batch_size) for images in (kept, GAC.train_samples)]
    assert f"an epoch has {steps[0]} steps, there {steps[1]}" in "\n".join(GAC.departures)
    assert f"sees all {recipe.batch_size} images" in "\n".join(GAC.departures)
    stds = ", ".join(f"{std:.4f}" for std in get_info("cifar10").std[:2])
    assert f"deviations {stds} and" in "\n".join(MAX_RESNET.departures)


def test_an_unknown_protocol_names_those_there_are() -> None:
    with pytest.raises(SpecError, match=r"unknown protocol 'gca'; did you mean 'gac'\?"):
        load_protocol("gca")


def test_a_bounded_protocol_runs_and_prints_each_point(tmp_path: Path) -> None:
    small = "--dataset fashion_mini --T 2 --epochs 1 --train-samples 60 --test-samples 30"
    bounds = f"{small} --backbones csnn[width=4] --workers 1 --results {tmp_path}".split()
    run = CliRunner().invoke(app, ["reproduce", "gac", *bounds, "--format", "json"])
    assert run.exit_code == 0, run.output
    told = json.loads(run.stdout)
    measured = {point["what"]: point["measured"] for point in told["points"]}
    assert 0 <= measured["accuracy of gac, %"] <= 100
    gain = measured["accuracy of gac, %"] - measured["accuracy of direct, %"]
    assert measured["gain over direct, points"] == pytest.approx(gain)
    assert "epochs: 1 instead of 250" in told["departures"]
    table = CliRunner(env={"COLUMNS": "100"}).invoke(app, ["reproduce", "gac", *bounds])
    assert "Not as in the paper:" in table.stdout  # at once, because the cells are finished
    # one epoch: the best one is the last one, which is measured with the same draws
    assert measured["gac, best test epoch, %"] == measured["accuracy of gac, %"]
    assert "gac, best test epoch, %*" in table.stdout and "* chosen by test" in table.stdout
    assert "warning: gac on fashion_mini at T=2, seed 0: " in table.stdout
    assert f"gac on fashion_mini at T=2, seed 0: {AT_CHANCE}" in told["signs"]


def test_cells_of_a_run_without_tests_are_named_with_what_to_do(tmp_path: Path) -> None:
    small = "--dataset fashion_mini --T 2 --epochs 1 --train-samples 60 --test-samples 30"
    # one cell alone would have all cores and three fewer each: other sums, and other spikes
    where = f"--workers 1 --threads 1 --results {tmp_path}"
    bounds = f"{small} --backbones csnn[width=4] {where}".split()
    plain = CliRunner().invoke(app, ["run", "--encoders", "gac", "--recipe", "gac", *bounds])
    assert plain.exit_code == 0, plain.output
    again = CliRunner().invoke(app, ["reproduce", "gac", *bounds])
    assert (
        "best test epoch unknown: 1 of 3 cells were run without --test-each-epoch; --force runs "
        "them again" in again.stderr
    )
    before = read_cells(Store(tmp_path))
    forced = CliRunner().invoke(app, ["reproduce", "gac", "--force", *bounds])
    assert forced.exit_code == 0 and "best test epoch unknown" not in forced.stderr
    after = read_cells(Store(tmp_path))
    same = [name for name in before if name not in PROVENANCE]
    pd.testing.assert_frame_equal(before[same], after[same])


def test_no_rank_and_no_comparison_reads_test_accuracies_of_epochs() -> None:
    readers = [
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "codingbench").rglob("*.py"))
        if "test_accuracy" in path.read_text(encoding="utf-8")
    ]
    assert readers == [
        "codingbench/analysis/cell.py",  # codingbench show
        "codingbench/executors/logs.py",  # run --log
        "codingbench/literature/reproduction.py",
        "codingbench/schema.py",
        "codingbench/store/migration.py",
        "codingbench/training/loop.py",
        "codingbench/views/cell.py",
    ]


def test_reported_rows_stand_beside_measured_ones_of_the_same_data_set_and_have_no_rank() -> None:
    table = rows(pd.DataFrame([measured("cifar100", 0.25), measured("digits", 0.9)]))
    both = with_published(table)
    assert list(both.columns) == list(PUBLISHED_COLUMNS)
    assert both.groupby("dataset").size()["digits"] == 1  # there are no published numbers
    on_cifar = both[both["dataset"] == "cifar100"]
    assert on_cifar["accuracy"].is_monotonic_decreasing
    ours, theirs = (on_cifar[on_cifar["origin"] == origin] for origin in ("measured", "reported"))
    assert ours["keys"].tolist() == [["cifar100-key"]] and ours["source"].isna().all()
    assert ours["recipe"].tolist() == ["quick, 4 epochs, 500 images"]
    assert 0.8045 in theirs["accuracy"].tolist() and theirs["seeds"].isna().all()


def test_the_published_view_names_every_source_with_its_recipe() -> None:
    store = Path(__file__).parents[1] / "results" / "reference" / "cifar100"
    options = ["leaderboard", "--published", "--results", str(store)]
    text = CliRunner(env={"COLUMNS": "200"}).invoke(app, options).stdout
    assert "80.45" in text and "26.66" in text
    for result in published():
        if result.dataset == "cifar100":
            assert f"{result.source}: {result.where}; recipe: {result.recipe}" in text
    for form in ("json", "csv", "markdown", "svg"):
        told = CliRunner().invoke(app, [*options, "--format", form])
        assert told.exit_code == 0 and "GAC README" in told.stdout.replace("&#160;", " ")


def test_an_energy_that_is_reported_carries_its_convention() -> None:
    both = with_published(rows(pd.DataFrame([measured("imagenet", 0.5)])))
    texts = {
        (row.source, row.num_steps, row.network): beside(both).columns[4].text(row)
        for row in both[both["origin"] == "reported"].itertuples()
    }
    assert texts["GAC README (ImageNet)", 4, "MS-ResNet-18"] == "1,490 (paper)"
