import datetime
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codingbench.errors import StoreError
from codingbench.schema import TABLES
from codingbench.store import RESULT_TABLES, Store

KEY = "0123abcd0123abcd"
_VALUES: dict[pa.DataType, Any] = {
    pa.string(): "text",
    pa.int16(): 1,
    pa.int32(): 2,
    pa.int64(): 3,
    pa.float32(): 0.5,
    pa.float64(): 0.25,
    pa.bool_(): True,
    pa.timestamp("us", tz="UTC"): datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC),
}


def row(table: str, key: str = KEY, **values: Any) -> dict[str, Any]:
    return {field.name: _VALUES[field.type] for field in TABLES[table]} | {"key": key} | values


def tables(key: str = KEY, accuracy: float = 0.75) -> dict[str, Any]:
    return {
        "cells": [row("cells", key, accuracy=accuracy)],
        "steps": [row("steps", key, step=t, accuracy=accuracy) for t in (1, 2)],
        "layers": [row("layers", key)],
        "epochs": [],
        "predictions": [row("predictions", key, image=i) for i in range(4)],
    }


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_what_was_committed_is_read_back(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.commit(KEY, tables())
    assert store.finished() == {KEY}
    assert store.read("steps")["step"].tolist() == [1, 2]
    cell = store.read("cells").iloc[0]
    assert cell["accuracy"] == 0.75
    assert cell["finished_at"] == pd.Timestamp("2026-01-02", tz="UTC")
    assert len(store.read("epochs")) == 0
    assert files(tmp_path) == {f"{t}/{KEY}.parquet" for t in (*RESULT_TABLES, "cells")}


def test_pandas_reads_a_table_by_its_folder(tmp_path: Path) -> None:
    Store(tmp_path).commit("aaaa", tables("aaaa"))
    Store(tmp_path).commit("bbbb", tables("bbbb"))
    (tmp_path / "steps" / ".cccc-0.tmp").write_bytes(b"half a part of a run in progress")
    frame = pd.read_parquet(tmp_path / "steps")
    assert frame["key"].tolist() == ["aaaa", "aaaa", "bbbb", "bbbb"]
    assert frame.columns.tolist() == TABLES["steps"].names


def test_arrow_tables_are_stored_in_the_order_and_types_of_the_schema(tmp_path: Path) -> None:
    columns = {"margin": [0.5], "prediction": [1], "label": [1], "image": [7], "key": [KEY]}
    Store(tmp_path).commit(KEY, tables() | {"predictions": pa.table(columns)})
    part = pq.read_table(tmp_path / "predictions" / f"{KEY}.parquet")
    assert part.schema == TABLES["predictions"]
    assert part.column("image").to_pylist() == [7]


def test_a_second_commit_replaces_the_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.commit(KEY, tables(accuracy=0.25))
    store.commit(KEY, tables(accuracy=0.5))
    assert store.read("cells")["accuracy"].tolist() == [0.5]
    assert store.read("steps")["accuracy"].tolist() == [0.5, 0.5]


def test_only_the_keys_asked_for_are_read(tmp_path: Path) -> None:
    for key in ("bbbb", "aaaa", "cccc"):
        Store(tmp_path).commit(key, tables(key))
    frame = Store(tmp_path).read("cells", ["cccc", "aaaa", "never-run"])
    assert frame["key"].tolist() == ["aaaa", "cccc"]


@pytest.mark.parametrize("table", TABLES)
def test_an_absent_store_reads_as_empty_tables_and_is_not_created(
    tmp_path: Path, table: str
) -> None:
    store = Store(tmp_path / "none")
    frame = store.failures() if table == "failures" else store.read(table)
    assert frame.empty and frame.columns.tolist() == TABLES[table].names
    assert store.finished() == set() and not (tmp_path / "none").exists()


@pytest.mark.parametrize("renames", range(5))
def test_a_crash_before_the_last_rename_leaves_no_finished_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    store = Store(tmp_path)
    done: list[Path] = []
    store.commit("other", tables("other"))
    store.commit(KEY, tables(accuracy=0.25))
    real_replace = os.replace

    def crash_at(source: Path, target: Path) -> None:
        if len(done) == renames:
            raise KeyboardInterrupt
        done.append(target)
        real_replace(source, target)

    monkeypatch.setattr(os, "replace", crash_at)
    with pytest.raises(KeyboardInterrupt):
        store.commit(KEY, tables(accuracy=0.5))
    assert [target.parent.name for target in done] == list(RESULT_TABLES)[:renames]
    assert store.finished() == {"other"}
    assert set(store.read("steps")["key"]) == {"other"}


def test_the_parts_of_an_unfinished_cell_are_not_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.commit("aaaa", tables("aaaa"))
    store.commit("bbbb", tables("bbbb"))
    (tmp_path / "cells" / "bbbb.parquet").unlink()
    assert set(store.read("predictions")["key"]) == {"aaaa"}


def test_a_failure_is_kept_until_the_cell_is_finished(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.record_failure("bad", row("failures", "bad", reason="out of memory"))
    store.record_failure(KEY, row("failures"))
    assert store.failed() == {"bad", KEY} and store.finished() == set()
    store.commit(KEY, tables())
    assert store.failures()[["key", "reason"]].values.tolist() == [["bad", "out of memory"]]
    assert files(tmp_path / "failures") == {"bad.parquet"}


def test_the_failure_of_a_later_attempt_does_not_hide_a_finished_cell(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.commit(KEY, tables())
    store.record_failure(KEY, row("failures"))
    assert store.finished() == {KEY} and store.failures().empty


def test_missing_and_unknown_columns_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    wrong = row("steps") | {"colour": "red"}
    del wrong["spikes"]
    with pytest.raises(ValueError, match=r"steps: missing \['spikes'\], unknown \['colour'\]"):
        Store(tmp_path).commit(KEY, tables() | {"steps": [wrong]})
    assert files(tmp_path) == set()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": [row("steps", "other")]}, "steps: expected rows of '0123abcd0123abcd'"),
        ({"cells": []}, "cells must have 1 row, got 0"),
        ({"failures": []}, "a commit needs the tables"),
    ],
)
def test_rows_that_do_not_make_a_cell_are_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Store(tmp_path).commit(KEY, tables() | change)


@pytest.mark.parametrize("kept", [0, 3, -20])
def test_a_damaged_part_is_named_in_one_line(tmp_path: Path, kept: int) -> None:
    Store(tmp_path).commit(KEY, tables())
    part = tmp_path / "steps" / f"{KEY}.parquet"
    part.write_bytes(part.read_bytes()[:kept])
    with pytest.raises(StoreError, match=f"{KEY}.parquet' is damaged and cannot be read") as caught:
        Store(tmp_path).read("steps")
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_never_changes_a_value_unnoticed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.commit(KEY, tables())
    part = tmp_path / "predictions" / f"{KEY}.parquet"
    whole, intact = part.read_bytes(), store.read("predictions")
    footer_bytes = int.from_bytes(whole[-8:-4], "little")
    noticed = 0
    for position in range(4, len(whole) - 8 - footer_bytes):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        part.write_bytes(bytes(damaged))
        try:
            pd.testing.assert_frame_equal(store.read("predictions"), intact)
        except StoreError:
            noticed += 1
    assert noticed > 100


def test_a_missing_part_of_a_finished_cell_is_named(tmp_path: Path) -> None:
    Store(tmp_path).commit(KEY, tables())
    (tmp_path / "layers" / f"{KEY}.parquet").unlink()
    with pytest.raises(StoreError, match=f"layers.*{KEY}.parquet' is missing"):
        Store(tmp_path).read("layers")


def test_a_part_with_other_columns_names_them(tmp_path: Path) -> None:
    Store(tmp_path).commit(KEY, tables())
    pd.DataFrame({"key": [KEY], "step": [0.5]}).to_parquet(tmp_path / f"epochs/{KEY}.parquet")
    with pytest.raises(StoreError, match=r"has other columns than expected: backbone, .*step"):
        Store(tmp_path).read("epochs")


def test_a_writable_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    Store(tmp_path / "new" / "results").check_writable()
    assert (tmp_path / "new" / "results").is_dir() and files(tmp_path) == set()


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    for attempt in (Store(tmp_path / name).check_writable, lambda: commit(tmp_path / name)):
        with pytest.raises(StoreError, match=r"cannot write .* is a file, expected a folder$"):
            attempt()


def commit(folder: Path) -> None:
    Store(folder).commit(KEY, tables())


FULL_DISK = """
import pickle, resource, signal, sys
from pathlib import Path
from codingbench.errors import StoreError
from codingbench.store import Store

folder, tables = Path(sys.argv[1]), pickle.load(sys.stdin.buffer)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, resource.RLIM_INFINITY))
try:
    Store(folder).commit(tables["cells"][0]["key"], tables)
except StoreError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
def test_a_full_disk_is_one_line_and_leaves_the_older_commit_whole(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.commit(KEY, tables(accuracy=0.25))
    before = files(tmp_path)
    large = tables() | {"layers": [row("layers", layer=os.urandom(9).hex()) for _ in range(2000)]}
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        input=pickle.dumps(large),
        capture_output=True,
        check=True,
    )
    (line,) = run.stdout.decode().splitlines()
    assert line.startswith("cannot write the results folder") and line.endswith("File too large")
    assert run.stderr == b""
    assert files(tmp_path) == before
    assert store.read("steps")["accuracy"].tolist() == [0.25, 0.25]


def test_reading_a_store_does_not_import_torch() -> None:
    code = "import sys, codingbench.store, codingbench.energy, codingbench.leaderboard_formats\n"
    code += "import codingbench.inspection\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
