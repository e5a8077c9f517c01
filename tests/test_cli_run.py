"""``codingbench run``: the command as users start it, on real images."""

import contextlib
import io
import math
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from codingbench.cli.main import main
from codingbench.store.folder import Store

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "datasets"
TINY = ("--T", "2", "--epochs", "1", "--train-samples", "40", "--test-samples", "20")

BROKEN = """
import torch
from codingbench.backbones.csnn import CSNN
from codingbench.encoder import FeatureEncoder, PixelEncoder

class Raises(FeatureEncoder):
    emits = "real"
    def encode(self, features):
        raise RuntimeError("first line\\nsecond line")

class WrongShape(PixelEncoder):
    emits = "real"
    def spikes(self, images, generator):
        return images

class NotANumber(FeatureEncoder):
    emits = "real"
    def encode(self, features):
        return (features * torch.nan).expand(self.num_steps, *features.shape)

class NoLogits(CSNN):
    def forward(self, cur):
        return super().forward(cur) * torch.nan

class NeedsMore(FeatureEncoder):
    emits = "real"
    def __init__(self, setting, second):
        super().__init__(setting)
"""


@dataclass(frozen=True)
class Done:
    """The exit status and output of a command."""

    status: int
    stdout: str
    stderr: str


def start(*arguments: str | Path, **variables: str) -> Done:
    """Run the command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "codingbench", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | variables,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def call(*arguments: str | Path) -> Done:
    """Call the command's entry point in this process, which has imported torch already."""
    out, err = io.StringIO(), io.StringIO()
    status: object = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["codingbench", *map(str, arguments)])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
            except SystemExit as leaving:
                status = leaving.code
    assert isinstance(status, int)
    return Done(status, out.getvalue(), err.getvalue())


def assert_refused(done: Done, *parts: str) -> None:
    """Check for status 2, an empty stdout, and one line on stderr that contains ``parts``."""
    assert done.status == 2, done
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    for part in parts:
        assert part in line


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--encoders", "direkt"), ("'direkt'", "did you mean 'direct'?")),
        (("--encoders", "latency[scale=lgo]"), ("'lgo'", "did you mean 'log'?")),
        (("--encoders", "latency[scal=log]"), ("'scal'", "did you mean 'scale'?")),
        (("--encoders", "latency[threshold=2]"), ("threshold", "[0, 1)", "2.0")),
        (("--encoders", "gac["), ("brackets do not match",)),
        (("--encoders", "nowhere.py:Mine"), ("no file 'nowhere.py'",)),
        (("--encoders", ""), ("encoders is empty",)),
        (("--encoders", "gac,,rate"), ("empty entry",)),
        (("--backbones", "cnn"), ("'cnn'", "did you mean 'csnn'?")),
        (("--backbones", ""), ("backbones is empty",)),
        (("--dataset", "cifar1000"), ("'cifar1000'", "did you mean 'cifar100'?")),
        (("--dataset", ""), ("dataset is empty",)),
        (("--recipe", "quik"), ("'quik'", "did you mean 'quick'?")),
        (("--device", "cdua"), ("'cdua'", "did you mean 'cuda'?")),
        (("--device", "cpu:x"), ("unknown device 'cpu:x'",)),
        (("--devices", "0"), ("devices must be at least 1, got 0",)),
        (("--devices", "two"), ("devices expects a whole number, got 'two'",)),
        (("--devices", "9999"), ("9999 devices were requested",)),
        (("--devices", "2", "--executor", "ray"), ("a cell on Ray has one device",)),
        (("--precision", "fp16"), ("fp32 or bf16", "'fp16'")),
        (("--T", "0"), ("T must be a whole number of at least 1", "got 0")),
        (("--T", "-1"), ("T must be a whole number of at least 1", "got -1")),
        (("--T", "a"), ("T expects a whole number", "'a'")),
        (("--T", ""), ("T is empty",)),
        (("--T", "2,,4"), ("empty entry",)),
        (("--seeds", "x"), ("seeds expects a whole number", "'x'")),
        (("--epochs", "0"), ("epochs must be at least 1",)),
        (("--epochs", ""), ("epochs expects a whole number",)),
        (("--workers", "0", "--dry-run"), ("workers must be at least 1, got 0",)),
        (("--threads", "1.5"), ("threads expects a whole number, got '1.5'",)),
        (("--timeout", "0"), ("timeout must be a number of at least 1, got '0'",)),
        (("--gpus", "inf"), ("gpus must be a number of at least 0, got 'inf'",)),
        (("--retries", "-1"), ("retries must be at least 0, got -1",)),
        (("--executor", "slrum", "--dry-run"), ("'slrum'", "did you mean 'slurm'?")),
        (("--train-samples", "6001"), ("fashion_mini has 6000 train images",)),
        (("--config", "absent.toml"), ("absent.toml", "No such file")),
        (("--data-dir", ""), ("data_dir expects text",)),
        (("--results", ""), ("results expects text",)),
    ],
)
def test_a_wrong_request_is_one_line_and_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str], parts: Sequence[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(call("run", *arguments), *parts)
    assert list(tmp_path.iterdir()) == []


def test_the_installed_command_refuses_without_a_traceback(tmp_path: Path) -> None:
    done = start("run", "--encoders", "direct,gca", "--results", tmp_path / "results")
    assert_refused(done, "unknown encoder 'gca'; did you mean 'gac'?")


def test_debug_shows_where_an_error_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    from codingbench.errors import SpecError

    with pytest.raises(SpecError):
        call("--debug", "run", "--encoders", "gca")


def test_a_broken_configuration_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "grid.toml"
    for text, part in (
        ("T = [", "is not valid TOML"),
        ('encoder = "gac"', "did you mean 'encoders'?"),
        ("epochs = [1]", "epochs expects a whole number, got [1]"),
        ("results = 3", "results expects text, got 3"),
        ("device = 3", "device expects text, got 3"),
    ):
        path.write_text(text + "\n")
        assert_refused(call("run", "--config", path), part)


def test_an_unwritable_results_folder_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = call("run", *TINY, "--encoders", "direct", "--results", tmp_path / "file" / "results")
    assert_refused(done, "cannot write the results folder", "expected a folder")


# --- a run, and the same again -------------------------------------------------------------------


@dataclass(frozen=True)
class Runs:
    """A run by configuration file, then by the same flags, then forced."""

    results: Path
    by_config: Done
    by_flags: Done
    forced: Done
    first: pd.DataFrame  # table cells after the first run
    second: pd.DataFrame
    third: pd.DataFrame


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("runs")
    results, config = folder / "results", folder / "grid.toml"
    config.write_text(
        'encoders = ["direct[spiking=false]", "rate[gain=0.5]"]\nT = 2\nseeds = [3]\nepochs = 7\n'
        f'train_samples = 40\ntest_samples = 20\nresults = "{results.as_posix()}"\n'
    )
    flags = [*TINY, "--encoders", "direct[spiking=false],rate[gain=0.5]", "--seeds", "3,"]
    flags += ["--results", str(results)]

    def run(*arguments: str) -> tuple[Done, pd.DataFrame]:
        return call("run", *arguments), Store(results).read("cells")

    by_config, first = run("--config", str(config), "--epochs", "1")
    by_flags, second = run(*flags)
    forced, third = run(*flags, "--force")
    return Runs(results, by_config, by_flags, forced, first, second, third)


def test_a_run_ends_with_the_leaderboard_of_its_cells(runs: Runs) -> None:
    assert runs.by_config.status == 0, runs.by_config.stderr
    assert "direct" in runs.by_config.stdout
    assert "[spiking=false]" in runs.by_config.stdout  # folded at 80 columns
    assert "rate[gain=0.5]" in runs.by_config.stdout
    assert set(runs.first["encoder"]) == {"direct[spiking=false]", "rate[gain=0.5]"}


def test_progress_goes_to_stderr_and_names_codings_whole(runs: Runs) -> None:
    assert "[1/2] direct[spiking=false] · csnn · T=2 · seed 3 · fashion_mini" in (
        runs.by_config.stderr.splitlines()
    )
    assert "[2/2] done   rate[gain=0.5]" in runs.by_config.stderr
    assert "[2/2]" not in runs.by_config.stdout


def test_flags_win_over_the_file(runs: Runs) -> None:
    assert set(runs.first["epochs"]) == {1}
    assert len(Store(runs.results).read("epochs")) == 2


def test_flags_ask_for_the_same_cells_as_the_file_and_finished_cells_are_skipped(
    runs: Runs,
) -> None:
    assert runs.by_flags.status == 0
    assert runs.by_flags.stderr == "2 finished before and not run again; --force runs them\n"
    assert runs.by_flags.stdout == runs.by_config.stdout
    assert runs.second.equals(runs.first)


def test_a_dry_run_says_how_many_cells_are_finished_and_plans_the_rest(runs: Runs) -> None:
    flags = [*TINY, "--encoders", "direct[spiking=false],rate[gain=0.5],latency", "--seeds", "3,"]
    done = call("run", "--dry-run", *flags, "--results", str(runs.results))
    assert done.status == 0, done.stderr
    assert "1 cell, about " in done.stdout and "on cpu; 2 more finished before" in done.stdout
    assert "latency" in done.stdout and "rate[gain=0.5]" not in done.stdout
    done = call("run", "--dry-run", *TINY, "--encoders", "rate[gain=0.5]", "--seeds", "3,",
                "--results", str(runs.results))  # fmt: skip
    assert done.stdout.splitlines() == [
        "0 cells, about 0 s on cpu; 1 more finished before",
        f"results in {runs.results}",
    ]


def test_force_runs_finished_cells_again_with_the_same_numbers(runs: Runs) -> None:
    assert runs.forced.status == 0
    assert list(runs.third["key"]) == list(runs.first["key"])
    assert (runs.third["started_at"] > runs.first["finished_at"].max()).all()
    for column in ("accuracy", "val_accuracy", "spikes", "effective_binary", "firing_rate"):
        assert list(runs.third[column]) == list(runs.first[column])


# --- cells that fail ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Failed:
    """A grid with one working coding among broken ones."""

    done: Done
    store: Store


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Failed:
    folder = tmp_path_factory.mktemp("failed")
    path = folder / "broken.py"
    path.write_text(BROKEN)
    names = ("Raises", "WrongShape", "NotANumber", "NeedsMore")
    encoders = ",".join([*(f"{path}:{name}" for name in names), "direct"])
    done = start("run", *TINY, "--encoders", encoders, "--results", folder / "results")
    return Failed(done, Store(folder / "results"))


def test_failing_cells_give_status_1_and_no_traceback(failed: Failed) -> None:
    assert failed.done.status == 1
    assert "Traceback" not in failed.done.stderr
    assert (
        "[1/5] failed Raises · csnn · T=2 · seed 0 · fashion_mini: RuntimeError: first line "
        in (failed.done.stderr)
    )


@pytest.mark.parametrize(
    ("encoder", "reason"),
    [
        ("Raises", "RuntimeError: first line second line"),
        (
            "WrongShape",
            "ValueError: WrongShape must emit shape (2, 36, 1, 28, 28), got (36, 1, 28, 28)",
        ),
        ("NotANumber", "ValueError: NotANumber must emit finite numbers, got NaN or infinity"),
        ("NeedsMore", "TypeError: NeedsMore.__init__() missing 1 required positional argument: "
         "'second'"),
    ],
)  # fmt: skip
def test_a_failed_cell_is_recorded_with_its_reason(
    failed: Failed, encoder: str, reason: str
) -> None:
    failures = failed.store.failures().set_index("encoder")
    assert failures.loc[encoder, "reason"] == reason
    assert str(failures.loc[encoder, "traceback"]).startswith("Traceback")


def test_the_sound_cell_is_kept_and_no_row_looks_finished(failed: Failed) -> None:
    for table in ("cells", "steps", "layers", "epochs"):
        assert set(failed.store.read(table)["encoder"]) == {"direct"}
    parts = {path.parent.name for path in failed.store.folder.glob("*/*.parquet")}
    assert len(list(failed.store.folder.glob("failures/*.parquet"))) == 4
    for table in parts - {"failures"}:
        assert len(list(failed.store.folder.glob(f"{table}/*.parquet"))) == 1
    assert "direct" in failed.done.stdout
    assert "Raises" not in failed.done.stdout


def test_a_loss_that_is_not_finite_fails_the_cell_and_the_others_go_on(tmp_path: Path) -> None:
    path, results = tmp_path / "broken.py", tmp_path / "results"
    path.write_text(BROKEN)
    backbones = f"{path}:NoLogits,csnn"
    done = call(
        "run", *TINY, "--encoders", "direct", "--backbones", backbones, "--results", results
    )
    assert done.status == 1
    (failure,) = Store(results).failures().itertuples()
    assert failure.backbone == "NoLogits"
    assert str(failure.reason).startswith("TrainingError: loss is nan in epoch 1")
    assert list(Store(results).read("cells")["backbone"]) == ["csnn"]


# --- dry run --------------------------------------------------------------------------------------


def test_compiled_neurons_give_the_same_cell_up_to_rounding(tmp_path: Path) -> None:
    bounds = ["--epochs", "1", "--train-samples", "100", "--test-samples", "50", "--T", "2"]
    accuracy = []
    for name, flags in (("eager", []), ("compiled", ["--compile"])):
        done = call("run", "--encoders", "direct", *bounds, *flags, "--results", tmp_path / name)
        assert done.status == 0, done.stderr
        accuracy.append(pd.read_parquet(tmp_path / name / "steps")["accuracy"])
    assert (accuracy[0] - accuracy[1]).abs().max() <= 0.04  # two of fifty images


def test_a_dry_run_needs_no_data_and_leaves_nothing(tmp_path: Path) -> None:
    results, cache, data = tmp_path / "results", tmp_path / "cache", tmp_path / "data"
    cache.mkdir()
    data.mkdir()
    done = start(
        "run", "--dry-run", "--encoders", "gac,direct", "--dataset", "cifar100", "--T", "2,4",
        "--data-dir", data, "--results", results, XDG_CACHE_HOME=str(cache), COLUMNS="120",
    )  # fmt: skip
    assert done.status == 0
    rows = [line.split() for line in done.stdout.splitlines()]
    cells = [(row[0], row[1]) for row in rows if row and row[0] in ("gac", "direct")]
    assert cells == [("gac", "4"), ("direct", "4"), ("gac", "2"), ("direct", "2")]
    assert "4 cells, about " in done.stdout
    assert not results.exists() and not list(data.iterdir()) and not list(cache.iterdir())


def test_a_long_dry_run_names_each_kind_of_cell_while_it_is_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("codingbench.cli.output._SILENT_S", 0.0)
    done = call("run", "--dry-run", "--encoders", "rate,direct", "--T", "2", "--seeds", "2")
    assert done.stderr.splitlines() == [
        "timing training steps, 1 of 2: rate on csnn at T=2, fashion_mini",
        "timing training steps, 2 of 2: direct on csnn at T=2, fashion_mini",
    ]


@pytest.mark.parametrize("also", [("--dry-run",), ()])
def test_a_warm_up_that_never_ends_is_said_once(tmp_path: Path, also: tuple[str, ...]) -> None:
    flags = (*TINY, "--encoders", "direct,rate", "--recipe", "modern", "--results", str(tmp_path))
    done = call("run", *flags, *also)
    line = "recipe modern: warmup_epochs is 20 and epochs is 1, so the warm-up never ends and the "
    assert done.status == 0 and done.stderr.count(line) == 1
    assert "warm-up" not in call("run", *flags, "--recipe", "quick", "--dry-run").stderr


def test_a_dry_run_of_a_broken_plugin_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text(BROKEN)
    done = call("run", "--dry-run", "--encoders", f"{path}:Raises")
    assert_refused(done, "Raises · csnn · T=4 · seed 0: RuntimeError: first line second line")


# --- Ctrl-C ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_keeps_the_finished_cells_and_says_so_in_one_line(tmp_path: Path) -> None:
    results = tmp_path / "results"
    command = [sys.executable, "-m", "codingbench", "run", *TINY, "--encoders", "direct"]
    command += [
        "--T",
        "1,64",
        "--train-samples",
        "2000",
        "--workers",
        "1",
        "--results",
        str(results),
    ]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A parent that ignores SIGINT, like a shell's background job, would pass that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stderr is not None
    before = []
    for line in process.stderr:
        before.append(line)
        if line.startswith("[2/2]"):
            break
    process.send_signal(signal.SIGINT)
    stdout, after = process.communicate(timeout=60)
    assert process.returncode == 130, (before, after)
    assert after == (
        f"interrupted: 1 of 2 cells are kept in {results}; the same command continues\n"
    )
    assert stdout == ""
    store = Store(results)
    assert list(store.read("cells")["num_steps"]) == [1]
    assert store.failures().empty


# --- the main line on real images -----------------------------------------------------------------


@pytest.fixture(scope="module")
def cifar100(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (SHARED / "cifar100").is_dir():
        pytest.skip("no CIFAR-100 beside the checkout")
    results = tmp_path_factory.mktemp("cifar100") / "results"
    done = call(
        "run", "--encoders", "gac,direct", "--dataset", "cifar100", "--T", "2,4,6", "--epochs", "1",
        "--data-dir", SHARED, "--train-samples", "200", "--test-samples", "100",
        "--results", results,
    )  # fmt: skip
    assert done.status == 0, done.stderr
    return results


def test_the_cifar100_line_gives_six_cells(cifar100: Path) -> None:
    cells = pd.read_parquet(cifar100 / "cells")
    assert sorted(zip(cells["encoder"], cells["num_steps"], strict=True)) == [
        (encoder, num_steps) for encoder in ("direct", "gac") for num_steps in (2, 4, 6)
    ]
    assert set(cells["num_classes"]) == {100}
    assert set(cells["images"]) == {100}


def test_every_cell_has_a_row_per_time_step_with_accuracy_rate_and_energy(cifar100: Path) -> None:
    steps = pd.read_parquet(cifar100 / "steps")
    assert len(steps) == 2 * (2 + 4 + 6)
    for _, rows in steps.groupby(["encoder", "num_steps"]):
        num_steps = int(rows["num_steps"].iloc[0])
        assert list(rows["step"]) == list(range(1, num_steps + 1))
        assert list(rows["is_prefix"]) == [True] * (num_steps - 1) + [False]
        for energy in ("energy_exact_uj", "energy_paper_uj"):
            assert rows[energy].is_monotonic_increasing and (rows[energy] > 0).all()
    assert steps["accuracy"].between(0, 1).all()
    assert steps["firing_rate"].between(0, 1).all() and (steps["firing_rate"] > 0).any()
    assert all(map(math.isfinite, steps[["accuracy", "firing_rate"]].to_numpy().flatten()))


def test_the_last_step_is_the_accuracy_of_the_cell(cifar100: Path) -> None:
    steps, cells = (pd.read_parquet(cifar100 / table) for table in ("steps", "cells"))
    last = steps[~steps["is_prefix"]].set_index("key")["accuracy"]
    assert last.sort_index().equals(cells.set_index("key")["accuracy"].sort_index())
