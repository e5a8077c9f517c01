"""``codingbench.run``: train and measure a grid of cells from Python."""

import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codingbench.api.arguments import checked, described
from codingbench.api.entries import KEPT, Entries, grid_texts
from codingbench.api.results import Results
from codingbench.cells.grid import Grid
from codingbench.cells.settings import (
    GRID_FIELDS,
    OTHER_SETTINGS,
    RunSettings,
    count_setting,
    number_setting,
    parse_settings,
)
from codingbench.errors import SpecError
from codingbench.plugins.session import SESSION
from codingbench.registry import BACKBONES, ENCODERS, NEURONS
from codingbench.runtime.formatting import counted
from codingbench.runtime.openmp import prepare_torch
from codingbench.runtime.paths import user_path
from codingbench.store.folder import DEFAULT_FOLDER

if TYPE_CHECKING:
    from codingbench.executors.base import Outcome
    from codingbench.executors.config import ExecutorConfig
    from codingbench.executors.session import PreparedRun, RunOptions


@checked
def run(
    grid: Grid | None = None,
    *,
    encoders: Entries | None = None,
    backbones: Entries | None = None,
    neurons: Entries | None = None,
    dataset: str | Sequence[str] | None = None,
    T: int | str | Sequence[int] | None = None,
    seeds: int | str | Sequence[int] | None = None,
    recipe: str | Sequence[str] | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    micro_batch: int | None = None,
    train_samples: int | None = None,
    test_samples: int | None = None,
    precision: str | None = None,
    data_dir: str | Path | None = None,
    results: str | Path = DEFAULT_FOLDER,
    device: str | None = None,
    devices: int | None = None,
    workers: int | None = None,
    threads: int | None = None,
    decoders: int | None = None,
    compile: bool | None = None,
    graphs: bool = True,
    test_each_epoch: bool = False,
    deterministic: bool | None = None,
    host: bool = True,
    weights: bool = True,
    force: bool = False,
    executor: str = "local",
    time_limit: float | str | None = None,
    timeout: float | None = None,
    retries: int | None = None,
    ray_address: str | None = None,
    gpus: float = 0.0,
    slurm: Mapping[str, str] | None = None,
    log: str | Sequence[str] | None = None,
    quiet: bool = False,
) -> Results:
    """Train and measure every cell of a grid that is not finished, and return the grid's results.

    The arguments are the options of ``codingbench run`` and have its defaults: without any, the
    codings direct, rate, latency and gac are trained on the data set inside the package. The
    options ``--config`` and ``--dry-run`` have no argument here.

    Encoders and backbones are names with parameters, such as ``"latency[scale=log]"``, or classes.
    A class may come from any module, from a notebook or from a script. The source of a class of a
    notebook or script is kept in the folder ``plugins`` of the results, so that worker processes
    and SLURM jobs run the same code. The key of a cell holds the hash of that source: the same
    source gives the same cell in another session, and changed source gives a new cell. Register a
    class with ``@codingbench.register_encoder("my_coding")`` to give it a name for the tables and
    to set its parameters: ``"my_coding[gain=2]"``.

    A cell that fails does not stop the others: see :attr:`Results.failures`.

    Args:
        grid: all that is run, instead of the arguments from ``encoders`` to ``data_dir``.
        encoders: one coding or several: names, ``file.py:Class`` or classes.
        backbones: one network or several, given like encoders.
        neurons: one model of neurons or several, given likewise; "default": the network's own.
        dataset: one data set or several.
        T: numbers of time steps, each at least 1.
        seeds: how many seeds, counted from 0, or a sequence of seeds.
        recipe: training recipes, by name or as ``file.toml``.
        epochs: passes over the training images; by default those of the recipe.
        batch_size: images of one optimizer step; by default that of the recipe.
        micro_batch: images of one forward pass; gradients of a batch are summed.
        train_samples: number of training images, at least 2; by default all.
        test_samples: number of test images; by default all.
        precision: ``"fp32"`` or ``"bf16"``.
        data_dir: folder of the data sets; the platform's cache folder is searched, too.
        results: folder of the results, made if it does not exist.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
        devices: number of devices that train each cell.
        workers: number of cells that run at the same time.
        threads: CPU threads of each cell.
        decoders: processes of each cell that decode photographs.
        compile: compile the neurons; by default where a run is long.
        graphs: replay training steps from CUDA graphs on a GPU; the results are the same.
        test_each_epoch: measure the test accuracy after every epoch, too; it selects nothing.
        deterministic: use deterministic algorithms only; by default on a CPU.
        host: keep a hash of the machine's name in the results.
        weights: keep the weights of finished cells.
        force: run finished cells again.
        executor: ``"local"``, ``"ray"`` or ``"slurm"``.
        time_limit: seconds, or text such as ``"12m"``: no epoch is begun that would end later.
            Cells that are left have checkpoints, and the same call continues.
        timeout: seconds that a cell may take; then it has failed.
        retries: further tries of a cell whose process died.
        ray_address: address of a Ray cluster.
        gpus: GPUs of each cell on Ray.
        slurm: parameters of the SLURM jobs, such as ``{"slurm_partition": "gpu"}``.
        log: logs of every epoch in the folder ``logs`` of the results: ``"csv"``,
            ``"tensorboard"`` or both.
        quiet: show no progress.

    Returns:
        The results of the grid's cells, those that were finished before included.

    Raises:
        SpecError: the request is wrong; nothing was trained.
        DatasetError: a data set is missing and cannot be downloaded, or is broken.
        StoreError: the results folder cannot be written.
        KeyboardInterrupt: Ctrl-C; finished cells are kept, and the same call continues.

    Example::

        import codingbench as cb
        runs = cb.run(encoders=["direct", "rate"], T=[2, 4], seeds=3)
        runs.leaderboard()[["encoder", "num_steps", "accuracy"]]
    """
    given = {name: value for name, value in locals().items() if name in _SETTINGS}
    prepare_torch()
    from codingbench.executors.config import ExecutorConfig, log_names
    from codingbench.executors.session import RunOptions

    options = RunOptions(
        neurons={None: "auto", True: "compiled", False: "eager"}[compile],
        is_deterministic=deterministic,
        names_host=host,
        keeps_weights=weights,
        force=force,
        graphs=graphs,
        tests_each_epoch=test_each_epoch,
        logs=log_names(log),
    )
    given_limits = {"timeout": timeout, "retries": retries, "gpus": gpus}
    limits = {name: value for name, value in given_limits.items() if value is not None}
    executor_config = ExecutorConfig(
        name=executor,
        timeout_s=number_setting(limits, "timeout", least=1),
        retries=count_setting(limits, "retries", least=0),
        ray_address=ray_address,
        gpus=number_setting(limits, "gpus") or 0.0,
        slurm=slurm or {},
    )
    return _carry_out(_settings(grid, given), options, executor_config, quiet)


_AXES = (("encoders", ENCODERS), ("backbones", BACKBONES), ("neurons", NEURONS))
_SETTINGS = (*GRID_FIELDS, *OTHER_SETTINGS)


def _settings(grid: Grid | None, given: Mapping[str, Any]) -> RunSettings:
    """Parse the arguments; the axes come from ``grid`` if there is one."""
    if grid is not None:
        if not isinstance(grid, Grid):
            got = described(grid)
            raise SpecError(f"grid expects a Grid, got {got}; name codings with encoders=")
        also = [name for name in GRID_FIELDS if given[name] is not None]
        if also:
            raise SpecError(f"expected a grid or {also[0]}, got both")
        fields = {name: getattr(grid, field) for name, field in GRID_FIELDS.items()}
        given = {**given, **fields}
    settings = {name: _plain(value) for name, value in given.items() if value is not None}
    kept = user_path(settings["results"]).resolve() / KEPT
    for name, registry in _AXES:
        if name in settings:
            settings[name] = grid_texts(registry, settings[name], kept)
    return parse_settings(settings)


def _plain(value: Any) -> Any:
    """Return the value as text, number or list, as a configuration file would hold it."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # of numpy
        return value.tolist()
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _carry_out(
    settings: RunSettings, options: "RunOptions", executor: "ExecutorConfig", quiet: bool
) -> Results:
    from codingbench.executors.session import plan
    from codingbench.runtime.interrupts import stop_on_signals
    from codingbench.training.loop import Interrupted

    planned = plan(settings, options, executor)
    for line in [] if quiet else planned.warnings():
        print(line, file=sys.stderr)
    prepared = planned.prepare()
    with stop_on_signals() as stop, _without_session_module():
        try:
            with _listener(prepared, quiet) as listener:
                outcome = prepared.carry_out(listener, stop).outcome
        except (Interrupted, KeyboardInterrupt):
            if stop.signal == signal.SIGTERM:
                sys.exit(128 + signal.SIGTERM)
            raise KeyboardInterrupt(_interrupted(prepared)) from None
    if not quiet:
        _tell(outcome)
    return Results(prepared.store, prepared.jobs)


def _tell(outcome: "Outcome") -> None:
    """Say what the progress does not show, or what must not be missed in it."""
    if outcome.skipped:
        cells = counted(outcome.skipped, "cell")
        print(f"{cells} finished before; force=True runs such cells again", file=sys.stderr)
    if outcome.failed:
        print(f"{counted(outcome.failed, 'cell')} failed: see .failures", file=sys.stderr)
    if outcome.left:
        cells = counted(outcome.left, "cell")
        print(f"time limit: {cells} left; the same call continues", file=sys.stderr)


def _interrupted(prepared: "PreparedRun") -> str:
    finished = len(prepared.store.finished() & prepared.jobs.keys())
    return (
        f"{finished} of {len(prepared.jobs)} cells are kept in {prepared.store.folder}; "
        "the same call continues"
    )


def _listener(prepared: "PreparedRun", quiet: bool) -> Any:
    """Return a context manager whose value listens to the grid."""
    if quiet:
        return nullcontext(_Silent())
    from codingbench.views.notebook import progress_console
    from codingbench.views.progress import GridProgress

    return GridProgress(progress_console(), len(prepared.jobs))


class _Silent:
    """Listens to a grid and its cells, and shows nothing."""

    def cell_started(self, job: Any) -> "_Silent":
        return self

    def _ignore(self, *event: Any) -> None: ...

    cell_skipped = cell_done = cell_failed = cell_paused = pulse = epoch_done = measuring = _ignore


@contextmanager
def _without_session_module() -> Iterator[None]:
    """Keep worker processes from running the user's script again.

    A spawned process imports ``__main__`` of its parent, if that has a file or a name. Workers need
    nothing of it, because its classes are kept as files of their own, and a script without an
    ``if __name__ == "__main__"`` would start the run once more in every worker.
    """
    session: dict[str, Any] = vars(sys.modules[SESSION])
    names = ("__file__", "__spec__")
    hidden = {name: session[name] for name in names if name in session}
    session.pop("__file__", None)
    session["__spec__"] = None
    try:
        yield
    finally:
        session.update(hidden)
