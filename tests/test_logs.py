"""``codingbench run --log``: scalars for TensorBoard and as CSV."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import codingbench as cb
from codingbench.errors import SpecError, StoreError
from codingbench.executors.config import LOG_NAMES, log_names
from codingbench.executors.logs import KINDS as LOGS
from codingbench.executors.logs import CsvLog, Log, TensorBoardLog
from codingbench.store.folder import Store

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of tensorboard itself

Make = Callable[[Path, str], Log]


def epoch(number: int, loss: float) -> dict[str, Any]:
    return {
        "epoch": number, "train_loss": loss, "val_loss": 2 * loss, "train_accuracy": 0.5,
        "val_accuracy": 0.25, "test_accuracy": None, "learning_rate": 0.1, "images_per_s": 99.0,
    }  # fmt: skip


def tensorboard(folder: Path, name: str) -> EventAccumulator:
    events = EventAccumulator(str(folder / "tensorboard" / name))
    events.Reload()
    return events


def losses(folder: Path, kind: str, name: str = "cell") -> list[tuple[int, float]]:
    """Return number and training loss of each epoch, as another tool reads them."""
    if kind == "csv":
        rows = pd.read_csv(folder / "csv" / f"{name}.csv")
        return list(zip(rows["epoch"].tolist(), rows["train_loss"].tolist(), strict=True))
    events = tensorboard(folder, name)
    return sorted((event.step, round(event.value, 6)) for event in events.Scalars("loss/train"))


KINDS = pytest.mark.parametrize(
    ("kind", "make"), [("csv", CsvLog), ("tensorboard", TensorBoardLog)]
)


def written(tmp_path: Path, make: Make, *rows: dict[str, Any]) -> Log:
    log = make(tmp_path, "cell")
    for row in rows:
        log.epoch(row)
    return log


@KINDS
def test_a_resumed_cell_has_each_epoch_once(tmp_path: Path, kind: str, make: Make) -> None:
    written(tmp_path, make, epoch(1, 3.0), epoch(2, 2.5), epoch(3, 2.0)).close()
    written(tmp_path, make, epoch(3, 1.75), epoch(4, 1.5)).close()
    assert losses(tmp_path, kind) == [(1, 3.0), (2, 2.5), (3, 1.75), (4, 1.5)]


@KINDS
def test_a_cell_that_runs_again_replaces_its_log(tmp_path: Path, kind: str, make: Make) -> None:
    written(tmp_path, make, epoch(1, 3.0), epoch(2, 2.0)).close()
    written(tmp_path, make, epoch(1, 2.75)).close()
    assert losses(tmp_path, kind) == [(1, 2.75)]


@KINDS
def test_epochs_that_did_not_arrive_are_added_at_the_end(
    tmp_path: Path, kind: str, make: Make
) -> None:
    log = written(tmp_path, make, epoch(2, 2.0))
    log.finish([epoch(1, 3.0), epoch(2, 2.0), epoch(3, 1.0)], {"backbone.head": 0.125})
    log.close()
    assert losses(tmp_path, kind) == [(1, 3.0), (2, 2.0), (3, 1.0)]
    if kind == "csv":
        text = (tmp_path / "csv" / "cell.layers.csv").read_text()
        assert text == "layer,firing_rate\nbackbone.head,0.125\n"
    else:
        (rate,) = tensorboard(tmp_path, "cell").Scalars("firing rate/backbone.head")
        assert (rate.step, rate.value) == (3, 0.125)


@KINDS
def test_a_log_without_any_event_is_complete(tmp_path: Path, kind: str, make: Make) -> None:
    log = make(tmp_path, "cell")
    log.finish([epoch(1, 3.0), epoch(2, 2.0)], {})
    log.close()
    assert losses(tmp_path, kind) == [(1, 3.0), (2, 2.0)]


def test_a_value_that_was_not_measured_is_left_out(tmp_path: Path) -> None:
    written(tmp_path, TensorBoardLog, epoch(1, 3.0)).close()
    assert "accuracy/test" not in tensorboard(tmp_path, "cell").Tags()["scalars"]
    written(tmp_path, CsvLog, epoch(1, 3.0))
    assert pd.read_csv(tmp_path / "csv" / "cell.csv")["test_accuracy"].isna().all()


def test_both_logs_of_cells_in_workers_have_what_the_store_has(tmp_path: Path) -> None:
    small: dict[str, Any] = {
        "encoders": ["rate[gain=0.5]", "direct"], "T": 2, "epochs": 2, "train_samples": 60,
        "test_samples": 20, "workers": 2, "quiet": True, "test_each_epoch": True,
    }  # fmt: skip
    for force in (False, True):
        cb.run(**small, results=tmp_path, log=["csv", "tensorboard"], force=force)
    store, folder = Store(tmp_path), tmp_path / "logs"
    cells = store.read("cells")
    assert len(cells) == 2
    for cell in cells.to_dict(orient="records"):
        name = f"fashion_mini_{cell['encoder']}_csnn_T2_quick_seed0_{cell['key'][:8]}"
        own = store.read("epochs", [cell["key"]])
        logged = pd.read_csv(folder / "csv" / f"{name}.csv")
        columns = [*logged.columns]
        assert columns[:3] == ["epoch", "train_loss", "val_loss"]
        pd.testing.assert_frame_equal(logged, own[columns].reset_index(drop=True))
        stored: list[float] = own["train_loss"].tolist()
        expected = [(number, round(loss, 4)) for number, loss in enumerate(stored, 1)]
        found = [(step, round(value, 4)) for step, value in losses(folder, "tensorboard", name)]
        assert found == expected
        rates = pd.read_csv(folder / "csv" / f"{name}.layers.csv").set_index("layer")
        steps = store.read("layers", [cell["key"]])
        of_head = steps[steps["layer"] == "backbone.head.neuron"]
        of_head = of_head[of_head["kind"] == "neuron"]
        assert rates.loc["backbone.head.neuron", "firing_rate"] == pytest.approx(
            of_head["firing_rate"].mean()
        )


def test_wrong_requests_are_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SpecError, match="unknown log 'tensorbord'; did you mean 'tensorboard'"):
        cb.run(encoders="rate", log="csv,tensorbord", results=tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SpecError, match="needs the package tensorboard: pip install"):
        log_names("tensorboard")
    assert log_names("csv,csv") == ("csv",) and log_names(None) == ()
    assert not list(tmp_path.iterdir())
    assert tuple(LOGS) == LOG_NAMES


def test_a_log_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "csv").write_text("")
    with pytest.raises(StoreError, match=r"cannot write the log '.*cell\.csv': "):
        CsvLog(tmp_path, "cell").epoch(epoch(1, 3.0))
