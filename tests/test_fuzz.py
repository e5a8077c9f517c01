"""Random input: every command either succeeds or ends with a one-line error.

The everyday suite runs a few dozen cases of each kind; ``pytest -m slow tests/test_fuzz.py`` runs
over two thousand. No case trains: ``run`` is stopped where training would begin.
"""

import contextlib
import io
import random
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

import codingbench
from codingbench.cli.main import main
from codingbench.datasets import load, locate
from codingbench.errors import DatasetError, SpecError
from codingbench.executors import base
from codingbench.plugins.specs import format_spec, parse_spec, split_list
from codingbench.schema import COORDINATES, TABLES
from codingbench.store.folder import Store
from codingbench.training.checkpoint import Checkpoints

KEYS = ("00000000aaaa1111", "00000000aaaa2222", "ffffffffffff0000")

Rows = Callable[..., dict[str, Any]]


def cases(most: int) -> settings:
    """Return settings: a number of examples, the same in every run, and no slow shrinking."""
    return settings(
        max_examples=most,
        phases=[Phase.explicit, Phase.generate],
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@dataclass(frozen=True)
class Done:
    """Exit status and output of a command."""

    status: int
    stdout: str
    stderr: str


def call(*arguments: str) -> Done:
    """Run a command in this process; raise any exception except a regular exit."""
    out, err = io.StringIO(), io.StringIO()
    status: object = 0
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # huge numbers overflow
        patch.setattr(sys, "argv", ["codingbench", *arguments])
        patch.setattr(base, "run_grid", lambda *_: base.Outcome(0, 0, 0))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
            except SystemExit as leaving:
                status = leaving.code
    assert isinstance(status, int)
    return Done(status, out.getvalue(), err.getvalue())


def assert_ended_well(done: Done) -> None:
    """Check the exit status: 0, 1, or 2 with a one-line error or the usage."""
    assert done.status in (0, 1, 2), done
    assert "Traceback" not in done.stderr + done.stdout
    if done.status == 2 and not done.stderr.startswith("Usage: "):
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: ") and len(line) > len("error: ")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in a folder, and check that nothing appears outside it."""
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.chdir(inside)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(inside))
    yield inside
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]


# --- what is typed --------------------------------------------------------------------------------

NASTY = (
    "", " ", "../evil", "/dev/null", ".", "..", "[", "]", "a[b", "direct[", "direct[]", ",", "=",
    "-1", "0", "1e400", "nan", "9" * 25, "9" * 5000, "x" * 300, "x" * 10_000, "é€\U0001f600", "\n",
    "a\nb", "\x1b[31mred", "\udcff", "%s{}", "$HOME", "~", "None", "true", "x.py:Y", "x.toml", "१",
)  # fmt: skip
"""Values that have caused errors in commands of all kinds."""

# a command line cannot hold a NUL
words = st.sampled_from(NASTY) | st.text(
    st.characters(exclude_characters="\0", exclude_categories=[]), max_size=12
)
names = st.sampled_from(["direct", "rate", "latency", "gac", "csnn", "quick", "fashion_mini"])
numbers = st.sampled_from(["1", "2", "4", "0", "-3", "2.5", "", "x", "2,3", "2,,3", str(10**30)])
specs = st.builds(
    lambda name, pairs: f"{name}[{','.join('='.join(pair) for pair in pairs)}]",
    names | words,
    st.lists(
        st.tuples(
            st.sampled_from(["spiking", "scale", "threshold", "heads", "reduction"]) | words,
            st.sampled_from(["true", "log", "0.5", "nan", "-1", "1e400"]) | words,
        ),
        max_size=3,
    ),
)
values = words | names | numbers | specs
RUN = {
    "--encoders": specs | names | words,
    "--backbones": names | specs | words,
    "--dataset": names | words,
    "--T": numbers | words,
    "--seeds": numbers | words,
    "--recipe": names | words,
    "--epochs": numbers | words,
    "--batch-size": numbers | words,
    "--micro-batch": numbers | words,
    "--train-samples": numbers | words,
    "--test-samples": numbers | words,
    "--precision": words,
    "--data-dir": words,
    "--results": words,
    "--device": st.sampled_from(["cpu", "cpu:0", "cuda:99", "auto:7"]) | words,
    "--workers": numbers | words,
    "--threads": numbers | words,
    "--config": words,
    "--executor": st.sampled_from(["local", "slurm"]) | words,
    "--timeout": numbers | words,
    "--retries": numbers | words,
    "--slurm": words,
}
READING = {
    "leaderboard": {
        "--results": words,
        "--dataset": words,
        "--sort": st.sampled_from(["accuracy", "energy", "T"]) | words,
        "--energy": st.sampled_from(["paper", "all"]) | words,
        "--technology": st.sampled_from(["45nm-int8"]) | words,
        "--format": st.sampled_from(["json", "csv", "markdown", "svg"]) | words,
    },
    "show": {"--results": words, "--energy": words, "--technology": words, "--format": words},
    "verify": {"--results": words},
    "compact": {"--results": words},
    "merge": {"--into": words},
    "list": {},
    "data": {"--data-dir": words},
    "doctor": {"--results": words, "--data-dir": words},
}


def flags(table: dict[str, Any], most: int) -> st.SearchStrategy[list[str]]:
    """Draw a few of the options, each with a value."""
    if not table:
        return st.just([])
    one = st.sampled_from(sorted(table)).flatmap(
        lambda flag: st.tuples(st.just(flag), table[flag]).map(list)
    )
    return st.lists(one, max_size=most).map(lambda pairs: [word for pair in pairs for word in pair])


run_lines = st.builds(
    lambda chosen, dry: ["run", *chosen, *dry], flags(RUN, 4), st.sampled_from([["--dry-run"], []])
)
reading_lines = st.sampled_from(sorted(READING)).flatmap(
    lambda command: st.builds(
        lambda more, chosen: [command, *more, *chosen],
        st.lists(words | st.sampled_from(["encoders", *KEYS]), max_size=2),
        flags(READING[command], 3),
    )
)


def check_command_line(arguments: list[str]) -> None:
    assert_ended_well(call(*arguments))


# --- files that are typed -------------------------------------------------------------------------

SETTINGS = (
    "encoders", "backbones", "dataset", "T", "recipe", "seeds", "epochs", "batch_size", "results",
    "train_samples", "test_samples", "precision", "data_dir", "device", "devices", "workers",
    "threads",
)  # fmt: skip
RECIPE = (
    "title", "source", "epochs", "batch_size", "val_fraction", "label_smoothing", "optimizer",
    "schedule", "augment", "name", "hash", "lr", "per",
    "extends",
)  # fmt: skip
toml_scalars = st.one_of(
    st.booleans().map(lambda flag: str(flag).lower()),
    st.integers().map(str),
    st.sampled_from([str(10**30), "0x" + "f" * 4500, "9" * 4301, "nan", "-inf", "1e400", "0.1"]),
    st.sampled_from(["2026-01-02", "07:32:00", "1979-05-27T07:32:00Z"]),
    st.text(max_size=8).map(lambda text: '"' + "".join(f"\\U{ord(c):08x}" for c in text) + '"'),
    st.sampled_from(['"a\\u0000b"', '"' + "x" * 10_000 + '"', '"direct"', '"4"', '"../x.toml"']),
)
toml_values = st.recursive(
    toml_scalars,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda entries: f"[{', '.join(entries)}]")
        | st.dictionaries(st.sampled_from(["a", "lr", "name"]), inner, max_size=2).map(
            lambda table: "{" + ", ".join(f"{k} = {v}" for k, v in table.items()) + "}"
        )
    ),
    max_leaves=6,
)


def toml_files(known: tuple[str, ...]) -> st.SearchStrategy[bytes]:
    """Draw settings of all types, or text that is not TOML."""
    lines = st.dictionaries(st.sampled_from(known), toml_values, max_size=4)
    written = lines.map(lambda table: "\n".join(f"{k} = {v}" for k, v in table.items()).encode())
    broken = st.binary(max_size=40) | st.sampled_from([b"a = " + b"[" * 5000, b"a" * 2**21])
    return written | written | written | broken


def check_config(content: bytes) -> None:
    Path("fuzz.toml").write_bytes(content)
    assert_ended_well(call("run", "--config", "fuzz.toml", "--T", "1", "--encoders", "rate"))
    # without the settings that make the request valid
    assert_ended_well(call("run", "--config", "fuzz.toml", "--backbones", "none"))


def check_recipe(content: bytes, instead: bytes) -> None:
    shipped = Path(codingbench.__file__).parent / "recipes" / "quick.toml"
    for text in (content, shipped.read_bytes().replace(b"= 0.1", b"= " + instead)):
        Path("fuzz.toml").write_bytes(text)
        assert_ended_well(call("run", "--recipe", "fuzz.toml", "--encoders", "rate"))


def check_spec(text: str) -> None:
    """Check that a text is rejected in one line, or survives being formatted and read again."""
    try:
        entries = [parse_spec(entry) for entry in split_list(text)]
    except SpecError as error:
        assert len(str(error)) > 0
    else:
        again = ",".join(format_spec(spec.name, dict(spec.params)) for spec in entries)
        read = [parse_spec(entry) for entry in split_list(again)]
        assert [(s.name, sorted(s.params)) for s in read] == [
            (s.name, sorted(s.params)) for s in entries
        ]
    assert_ended_well(call("run", "--encoders", text))


# --- files of results -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, make_rows: Rows) -> Path:
    """Make a store with a cell in single parts, one in compact parts, and a failed one."""
    from codingbench.store.compaction import compact

    folder = tmp_path_factory.mktemp("whole")
    store = Store(folder)
    for key in KEYS[:2]:
        commit(store, key, make_rows)
        if key == KEYS[0]:
            compact(store)
    store.record_failure(KEYS[2], make_rows("failures", key=KEYS[2], reason="no memory"))
    return folder


@pytest.fixture(scope="module")
def make_rows() -> Rows:
    """Return a function (table, **values) that makes a row with all columns."""
    import datetime

    import pyarrow as pa

    day = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    by_type: dict[Any, Any] = {
        pa.string(): "text",
        pa.bool_(): True,
        pa.timestamp("us", tz="UTC"): day,
    }

    def row(table: str, **given: Any) -> dict[str, Any]:
        return {field.name: by_type.get(field.type, 1) for field in TABLES[table]} | given

    return row


def commit(store: Store, key: str, make_rows: Rows, **given: Any) -> None:
    """Return a cell with one row per table, with the values ``given`` where they are columns."""
    tables = {}
    for table in ("cells", "steps", "layers", "epochs", "predictions"):
        here = {name: value for name, value in given.items() if name in TABLES[table].names}
        tables[table] = [make_rows(table, **here, key=key)]
    store.commit(key, tables)


READINGS = (
    ["leaderboard"],
    ["leaderboard", "--format", "json", "--energy", "all"],
    ["leaderboard", "--bill", "--format", "csv"],
    ["leaderboard", "--vs-ann", "--format", "markdown"],
    ["leaderboard", "--format", "svg"],
    ["report"],
    ["leaderboard", "--published", "--format", "json"],
    ["compare", "rate", "direct", "--format", "csv"],
    ["show", KEYS[0], "--format", "json"],
    *(["show", key] for key in KEYS),
)


def read_some(folder: Path, seed: int) -> Iterator[Done]:
    """Run three commands that read results from ``folder``."""
    for command in random.Random(seed).sample(READINGS, 3):
        yield call(*command, "--results", str(folder))


def mutated(content: bytes, how: str, seed: int) -> bytes:
    """Damage data: flip, cut, repeat, insert or replace bytes."""
    draws = random.Random(seed)
    at = draws.randrange(len(content))
    if how == "flip":
        changed = bytearray(content)
        for _ in range(draws.choice([1, 1, 4, 64])):
            changed[draws.randrange(len(content))] ^= 1 << draws.randrange(8)
        return bytes(changed)
    if how == "footer":  # it holds sizes, types and numbers of rows
        changed, length = bytearray(content), int.from_bytes(content[-8:-4], "little")
        for _ in range(draws.choice([1, 2, 8])):
            changed[-8 - draws.randrange(1, length)] = draws.randrange(256)
        return bytes(changed)
    return {
        "cut": content[:at],
        "behead": content[at:],
        "insert": content[:at] + draws.randbytes(draws.choice([1, 8, 1000])) + content[at:],
        "double": content + content,
        "empty": b"",
        "random": b"PAR1" + draws.randbytes(500) + b"PAR1",
    }[how]


HOWS = st.sampled_from(
    ["footer"] * 3 + ["flip"] * 2 + ["cut", "behead", "insert", "double", "empty", "random"]
)


def check_damage(whole: Path, how: str, which: int, seed: int, others: bool) -> None:
    """Damage one file: each command reports it or is right, and no other cell is lost."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as temporary:
        folder = Path(temporary) / "results"
        shutil.copytree(whole, folder)
        parts = sorted(folder.rglob("*.parquet"))
        part = parts[which % len(parts)]
        sound = part.read_bytes()
        content = parts[seed % len(parts)].read_bytes() if others else mutated(sound, how, seed)
        part.write_bytes(content)
        for done in read_some(folder, seed):
            assert_ended_well(done)
        if content != sound:
            report = call("verify", "--results", str(folder))
            same = same_rows(part, content, sound)
            assert report.status == 1 or same, f"{how} {part} {seed}: not found"
        target = Path(temporary) / "merged"
        assert_ended_well(call("merge", str(folder), "--into", str(target)))
        assert_ended_well(call("compact", "--results", str(folder)))
        part.unlink(missing_ok=True)
        kept = set(KEYS[:2]) - lost(part)
        now, before = (Store(where).read_table("cells", kept) for where in (folder, whole))
        assert now.equals(before) and now.num_rows == len(kept)


def lost(part: Path) -> set[str]:
    """Return the cells that are lost with a damaged file of ``cells``."""
    if "cells" not in part.parts:
        return set()
    return {KEYS[0]} if "compact" in part.parts else {KEYS[1]}


def same_rows(part: Path, content: bytes, sound: bytes) -> bool:
    """Return whether a changed file still has the same content."""
    import pyarrow.parquet as pq

    try:
        tables = [pq.read_table(io.BytesIO(raw)) for raw in (content, sound)]
        return bool(tables[0].equals(tables[1]))
    except Exception:  # pyarrow also raises exceptions of other types
        return False


NUMBERS = (0, 1, -1, 2**62, -(2**63), 2**31)
FLOATS = (0.0, -1.0, 1e308, -1e308, float("nan"), float("inf"), 5e-324)
TEXTS = ("", "a" * 10_000, "\x1b[2J", "a\nb", "../../evil", "[red]", "[/]", "é\u202e", "<svg>", "|")


def absurd() -> st.SearchStrategy[dict[str, Any]]:
    """Draw values of the right type, or null, for a few columns."""
    columns = {field.name: field.type for table in TABLES.values() for field in table}
    kinds = {"string": TEXTS, "int64": NUMBERS, "double": FLOATS}
    pools = {name: kinds[str(kind)] for name, kind in columns.items() if str(kind) in kinds}
    pools.pop("key")
    likely = [name for name in pools if name in COORDINATES or "accuracy" in name]
    likely += ["images", "num_classes", "neurons", "layer", "kind", "step", "input_class"]
    one = (st.sampled_from(likely) | st.sampled_from(sorted(pools))).flatmap(
        lambda name: st.tuples(st.just(name), st.sampled_from([None, *pools[name]]))
    )
    return st.lists(one, min_size=1, max_size=5).map(dict)


def check_absurd(make_rows: Rows, given: dict[str, Any], seed: int) -> None:
    """Check rows of the right types that another program might have written."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as temporary:
        store = Store(Path(temporary) / "results")
        commit(store, KEYS[0], make_rows, **given)
        commit(store, KEYS[1], make_rows)
        for done in read_some(store.folder, seed):
            assert_ended_well(done)
            assert "\x1b[2J" not in done.stdout
        assert store.finished() == set(KEYS[:2])


def check_checkpoint(how: str, seed: int) -> None:
    """Check that a damaged checkpoint is set aside and the previous one used."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as temporary:
        mine = Checkpoints(Path(temporary), KEYS[0])
        for epoch in (1, 2):
            mine.save({"epoch": epoch, "rows": [{"a": 1.5}]})
        path = mine.folder / "000002.ckpt"
        sound = path.read_bytes()
        path.write_bytes(mutated(sound, how, seed))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = mine.load()
        assert state is not None
        assert state["epoch"] == (2 if path.exists() else 1)
        assert not path.exists() or path.read_bytes() == sound


def check_shard(how: str, seed: int) -> None:
    """Check that a damaged image file is named in an error, or gives all its images."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as temporary:
        folder = Path(temporary) / "fashion_mnist"
        shutil.copytree(Path(codingbench.__file__).parent / "datasets" / "fashion_mini", folder)
        shard = folder / "test.parquet"
        shard.write_bytes(mutated(shard.read_bytes(), how, seed))
        try:
            split = load(locate("fashion_mnist", Path(temporary)), "test")
        except DatasetError as error:
            assert str(folder) in str(error) and "\n" not in str(error)
        else:
            assert split.images.shape == (len(split.labels), 1, 28, 28)


# --- the everyday form, and the full one ----------------------------------------------------------

seeds = st.integers(0, 2**32)
indices = st.integers(0, 20)


@cases(20)
@given(run_lines | reading_lines)
@example(["run", "--recipe", "x" * 300 + ".toml"])
@example(["run", "--encoders", "x" * 300 + ".py:Mine"])
@example(["leaderboard", "--energy", "x" * 300 + ".py:mine"])
@example(["run", "--encoders", "gac[reduction=" + "9" * 400 + "]"])
@example(["run", "--epochs", str(10**30), "--dry-run", "--T", "1", "--encoders", "rate"])
@example(["verify", "--results", "x" * 300])
@example(["data", "--data-dir", "x" * 300])
@example(["show", "../../etc/passwd"])
def test_any_command_line_ends_well(arguments: list[str]) -> None:
    check_command_line(arguments)


@pytest.mark.slow
@cases(700)
@given(run_lines | reading_lines)
def test_many_command_lines_end_well(arguments: list[str]) -> None:
    check_command_line(arguments)


@cases(25)
@given(toml_files(SETTINGS))
@example(b'data_dir = "a\\u0000b"')
@example(b"epochs = 0x" + b"f" * 4500)
@example(b"epochs = " + b"9" * 4301)
@example(b"a = " + b"[" * 5000)
def test_any_configuration_ends_well(content: bytes) -> None:
    check_config(content)


@pytest.mark.slow
@cases(400)
@given(toml_files(SETTINGS))
def test_many_configurations_end_well(content: bytes) -> None:
    check_config(content)


@cases(15)
@given(toml_files(RECIPE), toml_scalars.map(str.encode))
@example(b"", str(10**400).encode())
def test_any_recipe_ends_well(content: bytes, instead: bytes) -> None:
    check_recipe(content, instead)


@pytest.mark.slow
@cases(250)
@given(toml_files(RECIPE), toml_scalars.map(str.encode))
def test_many_recipes_end_well(content: bytes, instead: bytes) -> None:
    check_recipe(content, instead)


@cases(30)
@given(specs | st.text("direct[]=, \n", max_size=20))
def test_any_list_of_plugins_is_read_or_refused(text: str) -> None:
    check_spec(text)


@pytest.mark.slow
@cases(300)
@given(specs | st.text("direct[]=, \n", max_size=20))
def test_many_lists_of_plugins_are_read_or_refused(text: str) -> None:
    check_spec(text)


@pytest.mark.thorough
@cases(20)
@given(HOWS, indices, seeds, st.sampled_from([False, False, True]))
def test_any_damage_to_a_part_is_found(
    whole: Path, how: str, which: int, seed: int, others: bool
) -> None:
    check_damage(whole, how, which, seed, others)


@pytest.mark.slow
@cases(350)
@given(HOWS, indices, seeds, st.sampled_from([False, False, True]))
def test_much_damage_to_parts_is_found(
    whole: Path, how: str, which: int, seed: int, others: bool
) -> None:
    check_damage(whole, how, which, seed, others)


@cases(8)
@given(absurd(), seeds)
def test_absurd_rows_are_shown_or_refused(
    make_rows: Rows, given: dict[str, Any], seed: int
) -> None:
    check_absurd(make_rows, given, seed)


@pytest.mark.slow
@cases(250)
@given(absurd(), seeds)
def test_many_absurd_rows_are_shown_or_refused(
    make_rows: Rows, given: dict[str, Any], seed: int
) -> None:
    check_absurd(make_rows, given, seed)


@cases(15)
@given(HOWS, seeds)
def test_any_damage_to_images_is_refused_or_harmless(how: str, seed: int) -> None:
    check_shard(how, seed)


@pytest.mark.slow
@cases(250)
@given(HOWS, seeds)
def test_much_damage_to_images_is_refused_or_harmless(how: str, seed: int) -> None:
    check_shard(how, seed)


@cases(20)
@given(HOWS.filter(lambda how: how != "footer"), seeds)
def test_any_damage_to_a_checkpoint_is_found(how: str, seed: int) -> None:
    check_checkpoint(how, seed)


@pytest.mark.slow
@cases(150)
@given(HOWS.filter(lambda how: how != "footer"), seeds)
def test_much_damage_to_checkpoints_is_found(how: str, seed: int) -> None:
    check_checkpoint(how, seed)
