"""``codingbench run`` without options, by the installed command, as a new user starts it.

It takes two to three minutes. The thorough tests have a short form: a third of the images for half
the epochs.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

pytestmark = pytest.mark.thorough

COMMAND = Path(sys.executable).with_name("codingbench")
ENCODERS = {"direct", "rate", "latency", "gac"}


SHORT = ("--epochs", "2", "--train-samples", "2000")


@pytest.fixture(scope="module", params=[SHORT, pytest.param((), marks=pytest.mark.slow)])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working folder after the run, with its output beside the results."""
    folder: Path = tmp_path_factory.mktemp("home")
    environment = os.environ | {"COLUMNS": "100", "PYTHONWARNINGS": "error::UserWarning"}
    done = subprocess.run(
        [COMMAND, "run", *request.param],
        cwd=folder,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    (folder / "stdout").write_text(done.stdout)
    (folder / "stderr").write_text(done.stderr)
    return folder


def table(folder: Path, name: str) -> Any:
    return pd.read_parquet(folder / "results" / name)


def test_all_four_codings_learn(folder: Path) -> None:
    cells = table(folder, "cells").set_index("encoder")
    assert set(cells.index) == ENCODERS
    # chance is 10 %, with three sigma of 2.8 % on 1,000 images; four epochs give far more
    assert (cells["accuracy"] > (0.7 if (cells["epochs"] == 4).all() else 0.5)).all()
    assert cells["accuracy"].max() < 0.9  # linear models on the whole data set reach 84 %
    assert cells["firing_rate"].between(0.02, 0.5).all()


def test_the_run_ends_with_the_leaderboard_on_stdout_and_progress_on_stderr(folder: Path) -> None:
    stdout, stderr = (folder / "stdout").read_text(), (folder / "stderr").read_text()
    # one seed has no rank, so a row begins with its coding
    first = [line.split()[0] for line in stdout.splitlines() if line.split()]
    ranked = [word for word in first if word in ENCODERS]
    best = table(folder, "cells").sort_values(["accuracy", "encoder"], ascending=[False, True])
    assert ranked == best["encoder"].tolist()
    assert "µJ/image" in stdout and "(exact)" in stdout
    assert "epoch 2" in stderr and "images/s" in stderr and "Warning" not in stderr


def test_steps_hold_t_rows_a_cell_that_are_no_copies_of_each_other(folder: Path) -> None:
    steps = table(folder, "steps")
    assert steps.groupby("encoder")["step"].apply(list).to_dict() == {
        name: [1, 2, 3, 4] for name in ENCODERS
    }
    for column in ("accuracy", "firing_rate", "energy_exact_uj", "energy_paper_uj"):
        assert (steps[column] > 0).all()
        assert steps.groupby("encoder")[column].nunique().min() > 1
    final = steps[steps["step"] == 4].set_index("encoder")["accuracy"]
    first = steps[steps["step"] == 1].set_index("encoder")["accuracy"]
    assert (final > first).all()


def test_the_leaderboard_command_prints_the_same_ranking(folder: Path) -> None:
    done = subprocess.run(
        [COMMAND, "leaderboard", "--format", "json"], cwd=folder, capture_output=True, text=True
    )
    rows = json.loads(done.stdout)
    assert {row["encoder"] for row in rows} == ENCODERS
    accuracies = [row["accuracy"] for row in rows]
    assert accuracies == sorted(accuracies, reverse=True)
