"""Files are written completely or not at all."""

import os
from pathlib import Path

import pytest

from codingbench.store.durable import discard, sync_folder, write_durably, write_through


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "part.bin"
    write_durably(path, b"first")
    write_durably(path, memoryview(b"second"))
    assert path.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [path]


def test_bytes_reach_the_disk_before_the_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    fsync, replace = os.fsync, os.replace

    def heard_fsync(descriptor: int) -> None:
        calls.append("fsync")
        fsync(descriptor)

    def heard_replace(source: Path, target: Path) -> None:
        assert source.name.startswith(".") and source.parent == target.parent
        calls.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", heard_fsync)
    monkeypatch.setattr(os, "replace", heard_replace)
    write_durably(tmp_path / "part.bin", b"data")
    assert calls == ["fsync", "replace", "fsync"]


def test_a_refused_write_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "part.bin"
    write_durably(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_durably(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_takes_only_a_part_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stingy:
        def __init__(self, path: Path) -> None:
            self.file = path.open("wb", buffering=0)

        def write(self, data: memoryview) -> int:
            return self.file.write(data[:3]) or 0

        def fileno(self) -> int:
            return self.file.fileno()

        def __enter__(self) -> "Stingy":
            return self

        def __exit__(self, *exception: object) -> None:
            self.file.close()

    path = tmp_path / "part.bin"
    stingy = Stingy(path)
    monkeypatch.setattr(Path, "open", lambda *_, **__: stingy)
    write_through(path, b"0123456789")
    monkeypatch.undo()
    assert path.read_bytes() == b"0123456789"


def test_what_is_not_there_is_discarded_silently_and_a_missing_folder_is_not_synced(
    tmp_path: Path,
) -> None:
    discard(tmp_path / "absent")
    discard(tmp_path / "absent" / "deeper")
    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path / "absent")
