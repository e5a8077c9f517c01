"""Cells as submitit's jobs: run by its local executor, or sent to replacements of SLURM's tools."""

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import submitit

from codingbench.cells.grid import Grid, Job
from codingbench.cells.run import RunConfig
from codingbench.errors import CodingbenchError
from codingbench.executors import remote
from codingbench.executors.base import Outcome, run_grid
from codingbench.executors.events import EventRouter
from codingbench.executors.local import InProcess
from codingbench.executors.remote import Refusal, run_cell
from codingbench.executors.slurm import OnSlurm
from codingbench.runtime.interrupts import StopRequest
from codingbench.store.folder import Store
from codingbench.training.loop import Interrupted
from tests.grids import FAULTY, GRID, Recorder, assert_same, config_of, numbers, run
from tests.test_cli_run import assert_refused, call

pytestmark = pytest.mark.thorough


def grid_of(**settings: Any) -> Grid:
    return Grid(**{**vars(GRID), **settings})


def test_jobs_of_submitit_make_the_cells_of_one_process_and_a_dead_one_fails_its_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submitit.Job, "_results_timeout_s", 1)  # it waits for dead jobs
    path = tmp_path / "faulty.py"
    path.write_text(FAULTY)
    grid = grid_of(encoders=("rate", "gac", f"{path}:DiesAlways"))
    outcome, recorder = run(OnSlurm(2, None, {}, cluster="local"), grid, tmp_path / "slurm")
    assert outcome == Outcome(done=2, skipped=0, failed=1)
    assert recorder.started == ["rate", "gac", "DiesAlways"]
    assert sorted(recorder.done) == ["gac", "rate"]
    reasons = Store(tmp_path / "slurm").failures().set_index("encoder")["reason"].to_dict()
    assert reasons == recorder.failed
    assert recorder.failed["DiesAlways"].startswith("its job ended (FINISHED) without a result")
    run(InProcess(), grid_of(encoders=("rate", "gac")), tmp_path / "local")
    assert_same(tmp_path / "slurm", numbers(tmp_path / "local"))


@pytest.mark.slow
def test_a_broken_data_set_ends_the_grid_in_one_line(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    missing = grid_of(datasets=("cifar10",), encoders=("rate",), data_dir=nowhere)
    config = RunConfig(missing, tmp_path / "results", "cpu", {"cifar10": "fingerprint"})
    with pytest.raises(CodingbenchError, match=r"nowhere|cifar10") as refusal:
        run_grid(config, OnSlurm(1, None, {}, cluster="local"), Recorder())
    assert "\n" not in str(refusal.value)


# --- what SLURM is requested ----------------------------------------------------------------------


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Replace SLURM's tools; the value is the last text that each tool got, by its name."""
    tools = {
        "srun": "exit 0",
        "sacct": "exit 0",
        "sbatch": f'cp "$1" {tmp_path}/sbatch.said; echo "Submitted batch job 12"',
        "scancel": f'echo "$@" >> {tmp_path}/scancel.said',
    }
    (tmp_path / "bin").mkdir()
    for name, script in tools.items():
        tool = tmp_path / "bin" / name
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return lambda name: (tmp_path / f"{name}.said").read_text()


def submit(executor: OnSlurm, folder: Path, **changes: Any) -> None:
    """And stop."""
    stop = StopRequest()
    stop.signal = 15
    with pytest.raises(Interrupted):
        run_grid(replace(config_of(GRID, folder), **changes), executor, Recorder(), stop)


def flags(script: str) -> dict[str, str]:
    return dict(re.findall(r"^#SBATCH --([a-z-]+)=?(.*)$", script, re.MULTILINE))


def test_slurm_is_asked_for_one_array_with_the_parameters_given_and_a_stop_cancels_it(
    said: Callable[[str], str], tmp_path: Path
) -> None:
    options = {
        "slurm_partition": "gpu",
        "slurm_mem": "16GB",
        "slurm_array_parallelism": "1",  # overrides the number of workers
        "slurm_account": "0012",
        "slurm_exclusive": "true",
        "slurm_setup": "module load python",
        "slurm_srun_args": "--mpi none",
        "cpus_per_task": "8",  # overrides the threads of the configuration
    }
    submit(OnSlurm(2, 3600, options), tmp_path / "results", threads=3)
    asked = flags(said("sbatch"))
    assert (
        asked
        | {
            "job-name": "codingbench",
            "array": "0-2%1",
            "cpus-per-task": "8",
            "time": "62",  # an hour, and the time from the warning signal to the end
            "signal": "USR2@90",
            "partition": "gpu",
            "mem": "16GB",
            "account": "0012",
            "exclusive": "",
        }
        == asked
    )
    assert "gpus-per-node" not in asked
    assert "\nmodule load python\n" in said("sbatch")
    assert " --mpi none " in said("sbatch")
    assert said("scancel").split() == ["12_0", "12_1", "12_2"]


def test_a_cell_on_a_gpu_asks_for_one_and_a_day(said: Callable[[str], str], tmp_path: Path) -> None:
    submit(OnSlurm(1, None, {}), tmp_path / "results", device="cuda:1", threads=2)
    asked = flags(said("sbatch"))
    wanted = {"gpus-per-node": "1", "cpus-per-task": "2", "time": "1442", "array": "0-2%1"}
    assert asked | wanted == asked


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"slurm_partitoin": "gpu"}, "slurm_partitoin"),
        ({"cpus_per_task": "many"}, "cpus_per_task"),
        ({"partitoin": "gpu"}, "partitoin"),
    ],
)
def test_what_submitit_does_not_take_is_one_line(
    said: Callable[[str], str], tmp_path: Path, options: dict[str, str], part: str
) -> None:
    with pytest.raises(CodingbenchError, match=r"^cannot submit to slurm: ") as refusal:
        submit(OnSlurm(1, None, options), tmp_path / "results")
    assert part in str(refusal.value) and "\n" not in str(refusal.value)


def test_what_sbatch_refuses_is_one_line(said: Callable[[str], str], tmp_path: Path) -> None:
    (tmp_path / "bin" / "sbatch").write_text("#!/bin/sh\necho invalid partition >&2; exit 1\n")
    with pytest.raises(CodingbenchError, match=r"^cannot submit to slurm: .*invalid partition"):
        submit(OnSlurm(1, None, {}), tmp_path / "results")


def test_the_command_is_refused_where_there_is_no_slurm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = call("run", "--executor", "slurm", "--results", tmp_path / "results")
    assert_refused(done, "cannot submit to slurm", "slurm cluster")


def test_without_submitit_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(CodingbenchError, match=r"^the executor 'slurm' needs submitit: pip"):
        run(OnSlurm(1, None, {}), GRID, tmp_path)


# --- a cell on another machine --------------------------------------------------------------------


def test_a_machine_with_other_code_refuses_the_cell(tmp_path: Path) -> None:
    answer = run_cell(config_of(GRID, tmp_path), "0123456789abcdef")
    assert isinstance(answer, Refusal) and "0123456789abcdef" in answer.message


def test_a_gpu_elsewhere_is_the_one_that_the_job_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices: list[str] = []

    def refuse(config: RunConfig, jobs: dict[str, Job]) -> None:
        devices.append(config.device)
        raise CodingbenchError("enough")

    monkeypatch.setattr(remote, "Worker", refuse)
    for device in ("cuda:1", "cuda", "cpu"):
        config = replace(config_of(GRID, tmp_path), device=device)
        assert run_cell(config, "key") == Refusal("enough")
    assert devices == ["cuda", "cuda", "cpu"]


def test_a_cell_begins_before_anything_is_heard_of_it_and_nothing_is_after_its_end(
    tmp_path: Path,
) -> None:
    recorder, jobs = Recorder(), config_of(GRID, tmp_path).jobs()
    first, second, third = jobs
    router = EventRouter(recorder, jobs)
    router.receive(first, "pulse", None)
    router.receive(first, "began")  # a second try
    router.end(first)
    for name, content in (("began", ()), ("pulse", (None,))):
        router.receive(first, name, *content)
    router.end(second)
    names = [jobs[key].cell.encoder for key in (first, first, second)]
    assert recorder.started == names and recorder.pulses == 1
    assert [router.has_begun(key) for key in (first, second, third)] == [True, True, False]
