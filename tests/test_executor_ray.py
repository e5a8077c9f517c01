"""Cells on a real Ray of two CPUs: the same numbers as in one process, even if workers die."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import ray

from codingbench.cells.grid import Grid
from codingbench.cells.run import RunConfig
from codingbench.errors import CodingbenchError
from codingbench.executors.base import Outcome, run_grid
from codingbench.executors.local import InProcess
from codingbench.executors.ray import OnRay
from codingbench.runtime.interrupts import StopRequest
from codingbench.store.folder import Store
from codingbench.training.loop import Interrupted
from tests.grids import FAULTY, GRID, Recorder, assert_same, config_of, numbers, run
from tests.test_cli_run import TINY, start

pytestmark = pytest.mark.thorough

PLUGINS = """
import json, os, signal, time
from pathlib import Path
import ray
from codingbench.encoders.direct import DirectEncoder

HERE = Path(__file__).parent

class Shipped(DirectEncoder):
    def encode(self, features):
        if len(features) > 1:  # a batch, not the single image of the footprint
            self.at_batch()
        return super().encode(features)

def wait_for(is_there):
    until = time.monotonic() + 120
    while not is_there():
        assert time.monotonic() < until
        time.sleep(0.05)

class Waits(Shipped):
    def at_batch(self):  # the first worker writes its id and waits
        name = HERE / type(self).__name__
        try:
            name.with_suffix(".pid").open("x").write(str(os.getpid()))
        except FileExistsError:
            return
        wait_for(name.with_suffix(".go").exists)

class Killed(Waits):
    pass

class Ended(Waits):
    pass

class DiesAlways(Shipped):
    def at_batch(self):
        with HERE.joinpath("deaths").open("a") as file:
            file.write("x")
        os.kill(os.getpid(), signal.SIGKILL)

class Slow(Shipped):
    def at_batch(self):
        time.sleep(0.2)

class Half(Shipped):
    def at_batch(self):  # continues once both cells have started
        given = ray.get_runtime_context().get_assigned_resources()
        HERE.joinpath(f"{type(self).__name__}.given").write_text(json.dumps(given))
        wait_for(lambda: len(list(HERE.glob("*.given"))) == 2)

class OtherHalf(Half):
    pass
"""


def grid_of(**settings: Any) -> Grid:
    return Grid(**{**vars(GRID), **settings})


def test_an_address_where_nobody_listens_is_one_line_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:port"):
        with pytest.raises(CodingbenchError) as refusal:
            run(OnRay(address, 0, 0), GRID, tmp_path)
        assert str(refusal.value).startswith(f"cannot reach Ray at {address}: ")
        assert "\n" not in str(refusal.value)


def test_without_ray_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(CodingbenchError, match=r"^the executor 'ray' needs Ray: pip install"):
        run(OnRay(None, 0, 0), GRID, tmp_path)


def test_a_ray_started_for_a_grid_leaves_the_meaning_of_sigterm_and_ends_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replacements start and end Ray; like the real one, they change what SIGTERM does."""
    calls: list[str] = []
    before = signal.getsignal(signal.SIGTERM)

    def init(**options: Any) -> None:
        calls.append("init")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def nodes() -> list[Any]:
        assert signal.getsignal(signal.SIGTERM) is before
        return []

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "nodes", nodes)
    monkeypatch.setattr(ray, "shutdown", lambda: calls.append("shutdown"))
    with pytest.raises(CodingbenchError, match="there are no machines"):
        run(OnRay(None, 0, 0), GRID, tmp_path)
    assert calls == ["init", "shutdown"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a Ray cluster with two CPUs that claims to have a GPU."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    path = tmp_path / "plugins.py"
    path.write_text(PLUGINS)
    return path


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    """The tables that one process writes for the grid."""
    folder: Path = tmp_path_factory.mktemp("serial")
    run(InProcess(), GRID, folder)
    return numbers(folder)


def test_cells_on_ray_are_those_of_one_process_to_the_last_bit(
    cluster: str, tmp_path: Path, serial: dict[str, pd.DataFrame]
) -> None:
    outcome, recorder = run(OnRay(None, 0, 0), GRID, tmp_path)
    assert outcome == Outcome(done=3, skipped=0, failed=0)
    assert sorted(recorder.started) == sorted(recorder.done) == ["direct", "gac", "rate"]
    assert recorder.pulses >= 3  # events of the workers arrive
    assert_same(tmp_path, serial)


def test_a_broken_data_set_ends_the_grid_in_one_line(cluster: str, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    missing = grid_of(datasets=("cifar10",), encoders=("rate",), data_dir=nowhere)
    config = RunConfig(missing, tmp_path / "results", "cpu", {"cifar10": "fingerprint"})
    with pytest.raises(CodingbenchError, match=r"nowhere|cifar10") as refusal:
        run_grid(config, OnRay(None, 0, 0), Recorder())
    assert "\n" not in str(refusal.value)


def test_a_stop_lets_the_running_cells_write_a_checkpoint(
    cluster: str, plugins: Path, tmp_path: Path
) -> None:
    config = config_of(grid_of(encoders=(f"{plugins}:Slow",), epochs=500), tmp_path / "results")
    (key,) = config.jobs()
    stop, recorder = StopRequest(), Recorder()
    recorder.after_pulse = lambda: setattr(stop, "signal", 15)
    with pytest.raises(Interrupted):
        run_grid(config, OnRay(None, 0, 3), recorder, stop)
    store = Store(config.results)
    assert store.finished() == set() and store.failures().empty
    assert any((config.results / "checkpoints" / key).iterdir())
    with store.claim(key) as is_free:
        assert is_free  # the worker has released the cell


def test_the_grid_ends_well_though_nothing_is_heard_of_it(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lost:
        def put(self, *message: Any) -> None:
            os._exit(1)

        def take(self) -> None:
            os._exit(1)

    monkeypatch.setattr("codingbench.executors.ray.Mailbox", Lost)
    outcome, recorder = run(OnRay(None, 0, 0), grid_of(encoders=("rate",)), tmp_path)
    assert outcome == Outcome(done=1, skipped=0, failed=0)
    assert (recorder.started, recorder.done, recorder.pulses) == (["rate"], ["rate"], 0)


def test_cells_whose_worker_is_killed_or_ended_are_tried_again_to_the_same_numbers(
    cluster: str, plugins: Path, tmp_path: Path
) -> None:
    names = ("Killed", "Ended", "DiesAlways")
    encoders = (*(f"{plugins}:{name}" for name in names), "direct")
    recorder = Recorder()
    blows = [
        threading.Thread(target=signal_worker, args=(plugins.with_name(name), number, recorder))
        for name, number in (("Killed", signal.SIGKILL), ("Ended", signal.SIGTERM))
    ]
    for blow in blows:
        blow.start()
    config = config_of(grid_of(encoders=encoders), tmp_path / "ray")
    outcome = run_grid(config, OnRay(None, 0, retries=1), recorder)
    for blow in blows:
        blow.join()

    assert outcome == Outcome(done=3, skipped=0, failed=1)
    assert sorted(recorder.done) == ["Ended", "Killed", "direct"]
    assert [recorder.started.count(name) for name in ("Killed", "Ended", "direct")] == [2, 2, 1]
    assert plugins.with_name("deaths").read_text() == "xx"  # two tries
    assert recorder.failed["DiesAlways"].startswith("WorkerCrashedError: ")
    failures = Store(tmp_path / "ray").failures().set_index("encoder")["reason"]
    assert failures.to_dict() == recorder.failed

    sound = tuple(name for name in encoders if "DiesAlways" not in name)
    run(InProcess(), grid_of(encoders=sound), tmp_path / "local")
    assert_same(tmp_path / "ray", numbers(tmp_path / "local"))


def signal_worker(name: Path, number: int, recorder: Recorder) -> None:
    """Send the signal to the process that wrote its id, and let it continue if it is alive."""
    note, until = name.with_suffix(".pid"), time.monotonic() + 120
    while not (name.name in recorder.started and note.exists() and note.read_text()):
        assert time.monotonic() < until
        time.sleep(0.05)
    os.kill(int(note.read_text()), number)
    name.with_suffix(".go").touch()


@pytest.mark.slow
def test_two_cells_of_half_a_gpu_run_side_by_side_from_the_folder_of_the_command(
    cluster: str, plugins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(plugins.parent)  # other than where the workers were started
    grid = grid_of(encoders=("plugins.py:Half", "plugins.py:OtherHalf"))
    outcome, recorder = run(OnRay(None, 0.5, 0), grid, tmp_path / "results")
    assert outcome == Outcome(done=2, skipped=0, failed=0), recorder.failed
    given = [json.loads(path.read_text()) for path in tmp_path.glob("*.given")]
    assert given == [{"CPU": 1.0, "GPU": 0.5}] * 2


@pytest.mark.parametrize(
    ("executor", "changes", "needs"),
    [
        (OnRay(None, 0, 0), {"threads": 3}, "3 CPUs and 0 GPUs"),
        (OnRay(None, 1.5, 0), {}, "1 CPUs and 1.5 GPUs"),
        (OnRay(None, 0, 0), {"threads": 3, "device": "cuda"}, "3 CPUs and 1 GPUs"),
    ],
    ids=["threads", "gpus", "a whole GPU unless less is asked for"],
)
def test_cells_that_fit_on_no_machine_are_refused_instead_of_waiting_for_ever(
    cluster: str, tmp_path: Path, executor: OnRay, changes: dict[str, Any], needs: str
) -> None:
    config = replace(config_of(GRID, tmp_path), **changes)
    with pytest.raises(CodingbenchError, match=rf"needs {needs}, .* \(they have: 2 and 1\)$"):
        run_grid(config, executor, Recorder())


@pytest.mark.slow
def test_the_command_tries_again_on_a_cluster_and_prints_nothing_but_the_leaderboard(
    cluster: str, tmp_path: Path
) -> None:
    path = tmp_path / "faulty.py"
    path.write_text(FAULTY)
    where = ("--executor", "ray", "--ray-address", cluster, "--results", tmp_path / "results")
    done = start("run", *TINY, "--encoders", f"{path}:DiesOnce", "--retries", "1", *where)
    assert done.status == 0, done.stderr
    assert "DiesOnce" in done.stdout and "raylet" not in done.stdout
    assert "epoch 1: loss" in done.stderr and "Traceback" not in done.stderr
    assert path.with_name("DiesOnce").read_text() == "xx"
