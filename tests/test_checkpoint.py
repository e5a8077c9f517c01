"""Checkpoints on disk: complete, limited in number, and refused when damaged."""

import hashlib
import io
import os
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from codingbench.errors import StoreError
from codingbench.training import checkpoint
from codingbench.training.checkpoint import Checkpoints, present_conditions


def checkpoints(folder: Path, **settings: Any) -> Checkpoints:
    return Checkpoints(folder / "checkpoints", "abc", **settings)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints" / "abc").iterdir())


def seal(payload: bytes) -> bytes:
    """Return the trailer that makes the payload a valid checkpoint."""
    return checkpoint._TRAILER + hashlib.sha256(payload).hexdigest().encode()


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    state = {
        "weights": {"a": torch.tensor([1.5, -0.0, float("nan")]), "b": torch.arange(3)},
        "rows": [{"epoch": 1, "loss": 0.1, "name": "x", "none": None}],
        "draws": torch.Generator().manual_seed(5).get_state(),
    }
    checkpoints(tmp_path).save(state)
    loaded = checkpoints(tmp_path).load()
    assert loaded is not None and loaded.keys() == {*state, "key"}
    assert loaded["key"] == "abc" and loaded["rows"] == state["rows"]
    torch.testing.assert_close(loaded["weights"], state["weights"], rtol=0, atol=0, equal_nan=True)
    draw = torch.rand(3, generator=torch.Generator().manual_seed(5))
    generator = torch.Generator()
    generator.set_state(loaded["draws"])
    assert torch.equal(torch.rand(3, generator=generator), draw)


def test_there_is_no_checkpoint_before_the_first_save_or_after_clear(tmp_path: Path) -> None:
    mine = checkpoints(tmp_path)
    assert mine.load() is None and not (tmp_path / "checkpoints").exists()
    mine.clear()
    mine.save({"epoch": 1})
    Checkpoints(tmp_path / "checkpoints", "other").save({"epoch": 9})
    mine.clear()
    assert mine.load() is None
    other = Checkpoints(tmp_path / "checkpoints", "other").load()
    assert other == {"epoch": 9, "key": "other"}


def test_the_newest_two_are_kept_and_the_newest_is_loaded(tmp_path: Path) -> None:
    for epoch in range(1, 13):
        checkpoints(tmp_path).save({"epoch": epoch})
    assert files(tmp_path) == ["000011.ckpt", "000012.ckpt"]
    assert checkpoints(tmp_path).load() == {"epoch": 12, "key": "abc"}


def test_an_unfinished_file_is_not_read_and_removed_by_the_next_save(tmp_path: Path) -> None:
    checkpoints(tmp_path).save({"epoch": 1})
    (tmp_path / "checkpoints" / "abc" / ".000002-0a1b.tmp").write_bytes(b"half of a che")
    assert checkpoints(tmp_path).load() == {"epoch": 1, "key": "abc"}
    checkpoints(tmp_path).save({"epoch": 2})
    assert files(tmp_path) == ["000001.ckpt", "000002.ckpt"]


def damage(folder: Path, at: float, name: str = "000002.ckpt") -> None:
    """Flip one bit at the relative position ``at`` in [0, 1] of the file."""
    path = folder / "checkpoints" / "abc" / name
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("at", [0.0, 0.01, 0.3, 0.5, 0.8, 0.95, 1.0])
def test_one_flipped_bit_is_found_and_the_checkpoint_before_is_used(
    tmp_path: Path, at: float
) -> None:
    for epoch in (1, 2):
        checkpoints(tmp_path).save({"epoch": epoch, "weights": torch.ones(200)})
    damage(tmp_path, at)
    with pytest.warns(RuntimeWarning, match=r"000002\.ckpt.*'000002\.ckpt\.damaged'") as heard:
        loaded = checkpoints(tmp_path).load()
    assert loaded is not None and loaded["epoch"] == 1
    assert files(tmp_path) == ["000001.ckpt", "000002.ckpt.damaged"]
    assert len(heard) == 1 and "\n" not in str(heard[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert checkpoints(tmp_path).load() is not None  # warned once


@pytest.mark.parametrize("length", [0, 1, 50, 500, -1])
def test_a_truncated_checkpoint_is_found(tmp_path: Path, length: int) -> None:
    for epoch in (1, 2):
        checkpoints(tmp_path).save({"epoch": epoch})
    path = tmp_path / "checkpoints" / "abc" / "000002.ckpt"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.warns(RuntimeWarning, match="does not end like a checkpoint|SHA-256"):
        assert checkpoints(tmp_path).load() == {"epoch": 1, "key": "abc"}


def test_if_every_checkpoint_is_damaged_none_is_loaded(tmp_path: Path) -> None:
    for epoch in (1, 2):
        checkpoints(tmp_path).save({"epoch": epoch})
    for name in ("000001.ckpt", "000002.ckpt"):
        damage(tmp_path, 0.5, name)
    with pytest.warns(RuntimeWarning) as heard:
        assert checkpoints(tmp_path).load() is None
    assert len(heard) == 2
    checkpoints(tmp_path).save({"epoch": 3})
    assert checkpoints(tmp_path).load() == {"epoch": 3, "key": "abc"}


def test_the_checkpoint_of_another_cell_is_not_used(tmp_path: Path) -> None:
    Checkpoints(tmp_path / "checkpoints", "other").save({"epoch": 1})
    (tmp_path / "checkpoints" / "other").rename(tmp_path / "checkpoints" / "abc")
    with pytest.warns(RuntimeWarning, match="belongs to cell 'other', expected 'abc'"):
        assert checkpoints(tmp_path).load() is None


class Bomb:
    def __reduce__(self) -> Any:
        return os.mkdir, ("executed",)


def test_nothing_in_a_checkpoint_is_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "checkpoints" / "abc"
    folder.mkdir(parents=True)
    buffer = io.BytesIO()
    torch.save({"key": "abc", "bomb": Bomb()}, buffer)
    payload = buffer.getvalue()
    (folder / "000001.ckpt").write_bytes(payload + seal(payload))
    with pytest.warns(RuntimeWarning, match="cannot be read by torch: UnpicklingError"):
        assert checkpoints(tmp_path).load() is None
    assert not (tmp_path / "executed").exists()


def test_a_file_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "abc"
    folder.mkdir(parents=True)
    with (folder / "000001.ckpt").open("wb") as file:
        file.truncate(16 * 2**30 + 2**29)  # a sparse file, which takes no space
    with pytest.raises(StoreError, match=r"000001\.ckpt' has 16\.5 GiB, expected at most 16$"):
        checkpoints(tmp_path).load()


def test_a_failed_write_is_one_line_and_keeps_the_older_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints(tmp_path).save({"epoch": 1})

    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(
        StoreError, match=r"cannot write checkpoints or weights in .*abc': No space left"
    ):
        checkpoints(tmp_path).save({"epoch": 2})
    monkeypatch.undo()
    assert files(tmp_path) == ["000001.ckpt"]
    assert checkpoints(tmp_path).load() == {"epoch": 1, "key": "abc"}


def test_a_folder_that_is_a_file_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("not a folder")
    with pytest.raises(StoreError, match=r"cannot write checkpoints or weights in .*abc'"):
        checkpoints(tmp_path).save({"epoch": 1})


def test_periodic_checkpoints_take_at_most_a_fiftieth_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    mine = checkpoints(tmp_path, least_s=5.0)
    assert not mine.is_due()
    now[0] = 105.0
    assert mine.is_due()

    def takes(seconds: float) -> None:
        def slow(path: Path, data: memoryview) -> None:
            now[0] += seconds

        monkeypatch.setattr(checkpoint, "write_durably", slow)
        mine.save({})

    takes(0.01)  # 50 times this is less than 5 s
    now[0] += 4.9
    assert not mine.is_due()
    now[0] += 0.2
    assert mine.is_due()
    takes(2.0)
    now[0] += 99.0
    assert not mine.is_due()
    now[0] += 1.5
    assert mine.is_due()


def test_the_conditions_can_be_stored(tmp_path: Path) -> None:
    conditions = present_conditions(torch.device("cpu"))
    assert conditions.keys() == {"codingbench", "torch", "device", "threads", "deterministic"}
    assert conditions["device"] == "cpu" and conditions["threads"] == torch.get_num_threads()
    checkpoints(tmp_path).save({"conditions": conditions})
    loaded = checkpoints(tmp_path).load()
    assert loaded is not None and loaded["conditions"] == conditions
