import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codingbench.analysis.leaderboard import rows
from codingbench.energy import energy_uj
from codingbench.errors import StoreError
from codingbench.schema import PROVENANCE, SCHEMA, TABLES
from codingbench.store.compaction import compact
from codingbench.store.folder import RESULT_TABLES, Store
from codingbench.store.migration import ADDED as LATER

REFERENCE = Path(__file__).parents[1] / "results" / "reference" / "fashion_mini"
SCHEMA_2 = REFERENCE.parent / "cifar100"
KEY = "0123abcd0123abcd"
ADDED = ["neuron_backend", "threads", "deterministic", "cuda_version", "cudnn_version", "host"]


@pytest.fixture
def part(tmp_path: Path, row_of: Callable[..., dict[str, Any]]) -> Path:
    """Return the part ``steps`` of the only cell of a store."""
    names = (*RESULT_TABLES, "cells")
    Store(tmp_path).commit(KEY, {name: [row_of(name, key=KEY)] for name in names})
    return tmp_path / "steps" / f"{KEY}.parquet"


def rewrite(part: Path, change: Callable[[pa.Table], pa.Table], **metadata: str) -> None:
    table = pq.read_table(part, partitioning=None)
    kept = table.schema.metadata | {f"codingbench.{k}".encode(): v for k, v in metadata.items()}
    pq.write_table(change(table).replace_schema_metadata(kept), part)


def test_the_reference_run_of_schema_2_reads_as_if_it_were_of_today() -> None:
    assert pq.read_schema(next((SCHEMA_2 / "cells").iterdir())).metadata is None
    cells = Store(SCHEMA_2).read("cells")
    assert cells.columns.tolist() == TABLES["cells"].names
    assert len(cells) == 6 and (cells["micro_batch"] == 50).all()
    assert (cells["batch_size"] == 50).all() and (cells["neuron_backend"] == "eager").all()
    assert cells[[*ADDED[1:], "config_hash"]].isna().all(axis=None)
    assert (Store(SCHEMA_2).read("steps")["micro_batch"] == 50).all()
    assert "micro_batch" not in Store(SCHEMA_2).read("predictions").columns
    assert (cells["devices"] == 1).all() and (cells["evaluated_weights"] == "last").all()


@pytest.mark.parametrize("name", ["fashion_mini", "cifar100", "field", "narrow", "gac-claim"])
def test_the_energy_of_all_steps_is_that_of_the_cell_in_files_of_every_age(name: str) -> None:
    """Gates had no price in older files; those of ``field`` were compacted again since then."""
    store = Store(REFERENCE.parent / name)
    last = store.read("steps").groupby("key")["energy_exact_uj"].max()
    cells = store.read("cells").set_index("key")
    pd.testing.assert_series_equal(
        last, energy_uj(cells)[last.index], check_names=False, rtol=1e-12
    )


@pytest.mark.parametrize("name", ["fashion_mini", "cifar100"])
def test_the_stored_energy_of_older_steps_includes_gates_when_read(name: str) -> None:
    store = Store(REFERENCE.parent / name)
    last = store.read("steps").groupby("key")["energy_exact_uj"].max()
    cells = store.read("cells").set_index("key")
    files = (store.folder / "steps").rglob("*.parquet")
    before = pd.concat(pq.read_table(file, partitioning=None).to_pandas() for file in files)
    added = last - before.groupby("key")["energy_exact_uj"].max()
    gates = 4.6e-6 * cells["gate_muls"] / cells["images"]
    assert added.tolist() == pytest.approx(gates[added.index].tolist(), abs=1e-9)
    assert (gates > 0).any() and (gates == 0).any()


def test_counts_that_older_cells_lack_are_unknown_and_not_0() -> None:
    for name in ("cells", "steps", "layers"):
        rows = Store(REFERENCE).read(name)
        assert rows[["lemaire_acs", "lemaire_macs", "lemaire_memory_pj"]].isna().all(axis=None)


def test_compaction_writes_old_parts_with_the_columns_of_today(tmp_path: Path) -> None:
    shutil.copytree(REFERENCE, tmp_path / "results")
    store = Store(tmp_path / "results")
    before = rows(store.read("cells")).drop(columns=["energy_convention", "technology"])
    compact(store)
    (part,) = store.compacts("cells")
    schema = pq.read_schema(part)
    assert schema.metadata[b"codingbench.schema"] == b"%d" % SCHEMA
    assert schema.names == TABLES["cells"].names
    after = rows(store.read("cells")).drop(columns=["energy_convention", "technology"])
    assert after.astype(str).equals(before.astype(str))


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("7", "has schema 7, but this codingbench reads schemas up to 6: update codingbench"),
        ("99999999999999999999", "has schema 999999999, .* update codingbench"),
        ("1", "has the schema version .*, expected a number"),
        ("three", "has the schema version .*, expected a number"),
        ("-3", "has the schema version .*, expected a number"),
        ("", "has the schema version .*, expected a number"),
    ],
)
def test_other_schemas_are_refused_in_one_line(part: Path, version: str, message: str) -> None:
    rewrite(part, lambda table: table, schema=version)
    with pytest.raises(StoreError, match=message) as caught:
        Store(part.parents[1]).read("steps")
    assert "\n" not in str(caught.value)


def test_the_parts_of_codingbench_0_1_0_are_to_be_run_anew(part: Path) -> None:
    # its columns: without the counts that 0.2.0 added
    old = ["zero_weight_acs", "zero_weight_macs", "syops_acs", "syops_macs", "bias_adds"]
    old += ["norm_macs", "pool_ops", "residual_adds", "gate_muls", "neuron_updates"]
    table = pq.read_table(part, partitioning=None)
    later = set(table.column_names) & LATER
    table = table.drop_columns([*old, *later])
    pq.write_table(table.replace_schema_metadata(None), part)
    with pytest.raises(StoreError, match=r"written by codingbench 0\.1\.0.* run its cells again"):
        Store(part.parents[1]).read("steps")


@pytest.mark.parametrize(
    ("change", "columns"),
    [
        (lambda table: table.append_column("colour", pa.array(["red"])), "colour"),
        (lambda table: table.append_column("spikes", table["spikes"]), "spikes"),
        (lambda table: table.drop_columns(["micro_batch", "key"]), "key, micro_batch"),
        (lambda table: table.set_column(0, "key", pa.array([7])), "key"),
    ],
)
def test_columns_that_no_schema_has_are_named(
    part: Path, change: Callable[[pa.Table], pa.Table], columns: str
) -> None:
    rewrite(part, change)
    with pytest.raises(StoreError, match=f"other columns than expected: {columns}$"):
        Store(part.parents[1]).read("steps")


def test_provenance_names_columns_that_there_are() -> None:
    assert {*TABLES["cells"].names} >= PROVENANCE
    assert not PROVENANCE & {"key", "seed", "accuracy", "effective_binary", "encoder_code"}
