import datetime
import os
import pickle
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codingbench.errors import StoreError
from codingbench.schema import TABLES
from codingbench.store import parts
from codingbench.store.compaction import compact
from codingbench.store.folder import RESULT_TABLES, Store
from codingbench.store.verification import verify

KEY = "0123abcd0123abcd"
A, B, C, OTHER = "aaaa" * 4, "bbbb" * 4, "cccc" * 4, "eeee" * 4
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
    every = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    return {str(path) for path in every if path.parts[0] != ".locks"}


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
    Store(tmp_path).commit(A, tables(A))
    Store(tmp_path).commit(B, tables(B))
    (tmp_path / "steps" / ".cccc-0.tmp").write_bytes(b"half a part of a run in progress")
    frame = pd.read_parquet(tmp_path / "steps")
    assert frame["key"].tolist() == [A, A, B, B]
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
    for key in (B, A, C):
        Store(tmp_path).commit(key, tables(key))
    frame = Store(tmp_path).read("cells", [C, A, "never-run"])
    assert frame["key"].tolist() == [A, C]


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
    store.commit(OTHER, tables(OTHER))
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
    assert store.finished() == {OTHER}
    assert set(store.read("steps")["key"]) == {OTHER}


def test_the_parts_of_an_unfinished_cell_are_not_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.commit(A, tables(A))
    store.commit(B, tables(B))
    (tmp_path / "cells" / f"{B}.parquet").unlink()
    assert set(store.read("predictions")["key"]) == {A}


def test_a_failure_is_kept_until_the_cell_is_finished(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.record_failure(C, row("failures", C, reason="out of memory"))
    store.record_failure(KEY, row("failures"))
    assert store.failed() == {C, KEY} and store.finished() == set()
    store.commit(KEY, tables())
    assert store.failures()[["key", "reason"]].values.tolist() == [[C, "out of memory"]]
    assert files(tmp_path / "failures") == {f"{C}.parquet"}


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
        ({"steps": [row("steps", OTHER)]}, "steps: expected rows of '0123abcd0123abcd'"),
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
from codingbench.store.folder import Store

folder, tables = Path(sys.argv[1]), pickle.load(sys.stdin.buffer)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, resource.RLIM_INFINITY))
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
    code = "import sys, codingbench.store.folder, codingbench.views.writers\n"
    code += "import codingbench.views.cell\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


HOSTILE_KEYS = [
    "../../../../etc/x",
    "0123abcd/123abcd",
    "0123abcd\0123abcd",
    "0123abcd0123abc\n",
    "0123ABCD0123ABCD",
    "\u0661" * 16,  # digits, though not ASCII ones
    "0" * 10_000,
    "",
]


@pytest.mark.parametrize("key", HOSTILE_KEYS)
def test_what_is_no_key_names_no_file(tmp_path: Path, key: str) -> None:
    store = Store(tmp_path / "a" / "results")
    attempts: list[Callable[[], Any]] = [
        lambda: store.commit(key, tables(key)),
        lambda: store.record_failure(key, row("failures", key)),
        lambda: store.claim(key).__enter__(),
    ]
    for attempt in attempts:
        with pytest.raises(
            ValueError, match="key must be 16 hexadecimal digits in lower case, got"
        ):
            attempt()
    assert not store.is_finished(key) and store.read("cells", [key]).empty
    assert list(tmp_path.iterdir()) == []


def test_files_of_other_names_are_no_cells(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.commit(A, tables(A))
    for name in ("notes.txt", "x.parquet", f"{B}.parquet.bak", f"{B.upper()}.parquet"):
        (tmp_path / "cells" / name).write_bytes(b"not a part")
    assert store.finished() == {A} and len(store.read("cells")) == 1


def test_a_part_with_rows_of_another_cell_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.commit(A, tables(A))
    store.commit(B, tables(B))
    shutil.copy(tmp_path / f"steps/{A}.parquet", tmp_path / f"steps/{B}.parquet")
    with pytest.raises(StoreError, match=f"{B}.parquet' has rows of other cells"):
        store.read("steps")


def test_a_part_is_refused_by_its_size_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store(tmp_path).commit(KEY, tables())
    part = tmp_path / f"steps/{KEY}.parquet"
    os.truncate(part, parts.MOST_BYTES + 1)  # a sparse file: nothing is written
    with pytest.raises(StoreError, match="has 268,435,457 bytes, expected at most 268,435,456"):
        Store(tmp_path).read("steps")
    Store(tmp_path).commit(KEY, tables())
    monkeypatch.setattr(parts, "MOST_ROWS", 1)
    with pytest.raises(StoreError, match="has 2 rows, expected at most 1"):
        Store(tmp_path).read("steps")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_in_the_place_of_a_part_is_not_waited_for(tmp_path: Path) -> None:
    Store(tmp_path).commit(KEY, tables())
    (tmp_path / f"steps/{KEY}.parquet").unlink()
    os.mkfifo(tmp_path / f"steps/{KEY}.parquet")
    with pytest.raises(StoreError, match="is not a file"):
        Store(tmp_path).read("steps")


class Bomb:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("executed"),)


def test_a_pickle_in_a_part_is_not_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Store(tmp_path).commit(KEY, tables())
    bomb = {
        "ARROW:extension:name": "arrow.py_extension_type",
        "ARROW:extension:metadata": pickle.dumps(Bomb()),
    }
    fields = [field.with_metadata(bomb) for field in TABLES["steps"]]
    table = pa.Table.from_pylist([row("steps")], schema=pa.schema(fields))
    pq.write_table(table, tmp_path / f"steps/{KEY}.parquet")
    with pytest.raises(StoreError, match="has other columns than expected"):
        Store(tmp_path).read("steps")
    assert not (tmp_path / "executed").exists()


def test_one_of_all_gets_a_claim(tmp_path: Path) -> None:
    store, other = Store(tmp_path), Store(tmp_path)
    with store.claim(A) as mine, other.claim(A) as theirs, other.claim(B) as another:
        assert (mine, theirs, another) == (True, False, True)
    with other.claim(A) as theirs:
        assert theirs
    assert [path.name for path in (tmp_path / ".locks").iterdir()] == []


HOLDER = """
import sys, time
from pathlib import Path
from codingbench.store.folder import Store

with Store(Path(sys.argv[1])).claim(sys.argv[2]) as mine, Store(Path(sys.argv[1])).alone():
    print(mine, flush=True)
    time.sleep(600)
"""


def test_a_killed_process_gives_up_its_locks(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path), KEY]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"True\n"
        with Store(tmp_path).claim(KEY) as mine:
            assert not mine
        holder.kill()
    with Store(tmp_path).claim(KEY) as mine:
        assert mine
    Store(tmp_path).commit(KEY, tables())
    assert Store(tmp_path).finished() == {KEY}


def test_a_writer_that_waits_too_long_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codingbench.store.folder.LOCK_WAIT_S", 0.05)
    store = Store(tmp_path)
    with (
        store.alone(),
        pytest.raises(StoreError, match=r"another process has held the lock for more than"),
    ):
        Store(tmp_path).commit(KEY, tables())
    assert files(tmp_path) == set()


# Every process goes through all cells, as `codingbench run` of the same grid does.
RUNNER = """
import pickle, sys
from pathlib import Path
from codingbench.store.compaction import compact
from codingbench.store.folder import Store

folder, keys, cell, compacts = pickle.load(sys.stdin.buffer)
store = Store(folder)
for number, key in enumerate(keys):
    with store.claim(key) as mine:
        if mine and not store.is_finished(key):
            print(key)
            store.commit(key, {t: [row | {"key": key} for row in cell[t]] for t in cell})
    if compacts and number % 40 == 0:
        compact(store)
        assert store.read("steps")["key"].nunique() <= len(store.finished())
"""


@pytest.mark.parametrize("cells", [80, pytest.param(1600, marks=pytest.mark.slow)])
def test_eight_processes_run_each_cell_once_and_lose_none(tmp_path: Path, cells: int) -> None:
    keys = [f"{number:016x}" for number in range(cells)]
    orders = [keys[start:] + keys[:start] for start in range(0, cells, cells // 8)]
    cell = {name: rows[:1] or [row(name)] for name, rows in tables().items()}
    processes = []
    for number, order in enumerate(orders):
        process = subprocess.Popen(
            [sys.executable, "-c", RUNNER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=False,
        )
        assert process.stdin is not None
        process.stdin.write(pickle.dumps((tmp_path, order, cell, number == 0)))
        process.stdin.close()
        processes.append(process)
    run = []
    for process in processes:
        assert process.stdout is not None
        run += process.stdout.read().decode().split()
        process.stdout.close()
        assert process.wait() == 0
    assert sorted(run) == keys
    assert Store(tmp_path).finished() == set(keys)
    for table in (*RESULT_TABLES, "cells"):
        assert Store(tmp_path).read(table)["key"].tolist() == keys
    assert verify(Store(tmp_path)).bad == []


KILLED = """
import itertools, pickle, sys
from pathlib import Path
from codingbench.store.compaction import compact
from codingbench.store.folder import Store

folder, start, cell, marked = pickle.load(sys.stdin.buffer)
store = Store(folder)
for number in itertools.count(start):
    for key in (f"{number:016x}", f"{number % 3:016x}"):  # a new cell, and one run again
        rows = {t: [row | {"key": key} for row in cell[t]] for t in cell}
        for table, column in marked.items():
            rows[table] = [row | {column: float(number)} for row in rows[table]]
        store.commit(key, rows)
    print(number, flush=True)
    if number % 2:
        compact(store)
"""
MARKED = {
    "cells": "accuracy",
    "steps": "accuracy",
    "layers": "firing_rate",
    "epochs": "train_loss",
    "predictions": "margin",
}


@pytest.mark.parametrize("kills", [3, pytest.param(8, marks=pytest.mark.thorough)])
def test_killed_at_any_instant_the_store_has_every_finished_cell_and_no_half_one(
    tmp_path: Path, kills: int
) -> None:
    cell = {name: rows[:1] or [row(name)] for name, rows in tables().items()}
    draws, done = random.Random(0), [16]
    for _ in range(kills):
        with subprocess.Popen(
            [sys.executable, "-c", KILLED], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(pickle.dumps((tmp_path, done[-1] + 1, cell, MARKED)))
            process.stdin.close()
            process.stdout.readline()
            time.sleep(draws.uniform(0, 0.2))
            process.kill()
            done += [done[-1] + 1, *map(int, process.stdout.read().split())]
        store = Store(tmp_path)
        assert {f"{number:016x}" for number in done[1:]} <= store.finished()
        marks = [
            store.read(t).set_index("key")[column].astype(float) for t, column in MARKED.items()
        ]
        assert all(mark.to_dict() == marks[0].to_dict() for mark in marks)
        assert verify(store).bad == []
    compact(store)
    for table in MARKED:
        held = pd.read_parquet(tmp_path / table)["key"]
        # The last kill may leave single parts of the cell being committed; `verify` notes them.
        cut_short = store.singles(table) - store.finished()
        assert held.is_unique and set(held) == store.finished() | cut_short
        assert len(cut_short) <= 1
