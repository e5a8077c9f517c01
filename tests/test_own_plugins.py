"""A user's own coding after training: kept with the results, and run only if it may be."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import codingbench as cb
from codingbench.analysis.commands import commands
from codingbench.analysis.staleness import is_stale
from codingbench.cells.weights import restore
from codingbench.cli.main import app
from codingbench.errors import SpecError, StoreError
from codingbench.plugins import kept, trust
from codingbench.plugins.loading import OwnCode
from codingbench.registry import BACKBONES, ENCODERS, loading_copies
from codingbench.store.folder import Store

HELPER = "LEVEL = 0.5\n"
CODING = """
from pathlib import Path

from levels import LEVEL
from codingbench.encoder import FeatureEncoder
from codingbench.registry import register_encoder

Path({mark!r}).touch()

@register_encoder("halved")
class Halved(FeatureEncoder):
    emits = "real"

    def __init__(self, setting, *, gain: float = 1.0):
        super().__init__(setting)
        self.gain = gain

    def encode(self, features):
        return LEVEL * self.gain * features.expand(self.num_steps, *features.shape)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the coding ``halved``, and results of it and of direct coding."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "levels.py").write_text(HELPER)
    (folder / "halved.py").write_text(CODING.format(mark=str(folder / "was_run")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(folder / "data"))
        patch.syspath_prepend(folder)
        cb.run(
            encoders=[f"{folder / 'halved.py'}:Halved[gain=2]", "direct"],
            backbones="csnn[width=4]", T=2, epochs=1, train_samples=40, test_samples=20,
            results=folder / "results", quiet=True, compile=False,
        )  # fmt: skip
        yield folder
    ENCODERS._classes.pop("halved", None)


@pytest.fixture
def results(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the results on the machine that made them, in a process that never saw the file."""
    shutil.copytree(made / "results", tmp_path / "results")
    shutil.copytree(made / "data", tmp_path / "data")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    classes = {name: cls for name, cls in ENCODERS._classes.items() if name != "halved"}
    monkeypatch.setattr(ENCODERS, "_classes", classes)
    (made / "was_run").unlink(missing_ok=True)
    return tmp_path / "results"


@pytest.fixture
def foreign(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same results on a machine where the coding was never run."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "elsewhere"))
    return results


def key_of(results: Path, encoder: str = "halved[gain=2.0]") -> str:
    cells = Store(results).read("cells").set_index("encoder")
    return str(cells.loc[encoder, "key"])


def source_folder(results: Path) -> Path:
    (folder,) = kept.folders(results)
    return folder


def call(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [*map(str, words)])
    return done.exit_code, f"{done.output}{done.exception or ''}"


# --- on the machine that made the results -------------------------------------------------------


def test_a_run_keeps_the_files_of_its_own_plugins(results: Path) -> None:
    source = kept.read(source_folder(results))
    assert (source.class_name, source.place) == ("Halved", "halved.py")
    assert source.files["levels.py"] == HELPER.encode() and len(source.files) == 2


def test_export_robustness_verify_and_the_library_load_the_cell(
    results: Path, tmp_path: Path
) -> None:
    key = key_of(results)
    code, text = call("export", key, "--results", results, "--output", tmp_path / "x.pt")
    assert code == 0, text
    code, text = call("robustness", key, "--results", results, "--attacks", "gaussian",
                      "--samples", 10)  # fmt: skip
    assert code == 0, text
    code, text = call("verify", "--results", results, "--evaluate", "all")
    assert code == 0 and text.count("all numbers equal") == 2, text
    network = cb.load(results).network(key)
    assert type(network.encoder).__name__ == "Halved" and not network.training


def test_a_shipped_backbone_is_imported_beside_kept_code(monkeypatch: pytest.MonkeyPatch) -> None:
    known = BACKBONES.get("csnn")
    monkeypatch.delitem(BACKBONES._classes, "csnn")  # as in a process that has not used it
    monkeypatch.delitem(sys.modules, known.__module__)
    with loading_copies():
        assert BACKBONES.resolve("csnn").cls is BACKBONES.registered("csnn")


def test_the_printed_command_names_the_kept_source_and_gives_the_same_cell(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = Store(results).read("cells")
    row = cells[cells["encoder"] != "direct"].to_dict("records")[0]
    (command,) = commands([row], [results])
    folder = source_folder(results)
    assert command.startswith(f"PYTHONPATH={folder} codingbench run --encoders '{folder}/halved.py")
    monkeypatch.syspath_prepend(folder)
    plugin = ENCODERS.resolve(f"{folder}/halved.py:Halved[gain=2.0]")
    assert (plugin.label, plugin.code) == ("halved[gain=2.0]", row["encoder_code"])


def test_a_changed_file_makes_the_row_stale_and_may_be_given(results: Path, made: Path) -> None:
    key, cells = key_of(results), Store(results).read("cells").sort_values("encoder")
    assert not is_stale(cells).any()
    file = made / "halved.py"
    before = file.read_text()
    try:
        file.write_text(before + "# a comment\n")
        assert not is_stale(cells).any()
        file.write_text(before.replace("LEVEL * self", "0.25 * self"))
        assert is_stale(cells).tolist() == [False, True]
        loaded = restore(Store(results), key, None, OwnCode((f"{file}:Halved",)))
        (line,) = loaded.changed
        assert "has the hash" in line and "codingbench run trains a cell with the new code" in line
        assert restore(Store(results), key, None).changed == ()  # the code that trained it
        code, text = call("robustness", key, "--results", results, "--plugin", f"{file}:Halved")
        assert code != 0 and "has the hash" in text
    finally:
        file.write_text(before)


def test_cells_of_other_code_are_told_when_the_grid_runs(
    results: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from codingbench.cells.grid import Grid
    from codingbench.cells.older import cells_of_other_code

    grid = Grid(encoders=(f"{made / 'halved.py'}:Halved[gain=2]",), backbones=("csnn[width=4]",),
                num_steps=(2,), epochs=1, train_samples=40, test_samples=20)  # fmt: skip
    assert [*cells_of_other_code(grid.expand(), Store(results))] == []
    edited = tmp_path / "halved.py"
    edited.write_text((made / "halved.py").read_text() + "CHANGED = 1\n")
    changed = Grid(**(vars(grid) | {"encoders": (f"{edited}:Halved[gain=2]",)}))
    ENCODERS._classes.pop("halved", None)
    (line,) = cells_of_other_code(changed.expand(), Store(results))
    assert line.startswith("halved: other code (hash ") and "made 1 cell of this grid" in line


# --- results of somebody else -------------------------------------------------------------------


def test_foreign_code_is_not_run_by_commands_that_read(
    foreign: Path, made: Path, tmp_path: Path
) -> None:
    for command in (
        ["leaderboard", "--results", foreign],
        ["leaderboard", "--results", foreign, "--format", "markdown"],
        ["show", key_of(foreign), "--results", foreign],
        ["compare", "halved[gain=2.0]", "direct", "--results", foreign],
        ["verify", "--results", foreign],
        ["merge", foreign, "--into", tmp_path / "merged"],
        ["compact", "--results", foreign],
        ["report", "--results", foreign, "--output", tmp_path / "report.html"],
    ):
        code, text = call(*command)
        assert code == 0, text
    assert not (made / "was_run").exists()
    assert kept.read(source_folder(tmp_path / "merged")) == kept.read(source_folder(foreign))


def test_foreign_code_is_run_only_if_the_user_says_so(
    foreign: Path, made: Path, tmp_path: Path
) -> None:
    code, text = call("verify", "--results", foreign, "--evaluate", "all")
    assert code == 1 and text.count("all numbers equal") == 1  # direct: it did not stop
    assert "code that came with the results and was never run here: read" in text
    assert "then say --trust-code" in text and not (made / "was_run").exists()
    with pytest.raises(SpecError, match="--trust-code"):
        cb.load(foreign).network(key_of(foreign))
    assert not (made / "was_run").exists()
    assert call("verify", "--results", foreign, "--evaluate", "all", "--trust-code")[0] == 0
    assert (made / "was_run").exists()
    assert call("verify", "--results", foreign, "--evaluate", "all")[0] == 0  # it was said once


def test_what_is_put_beside_or_into_a_trusted_source_is_not_run(results: Path, made: Path) -> None:
    folder = source_folder(results)
    (folder / "torch.py").write_text("raise SystemExit('foreign')")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "levels.cpython-311.pyc").write_bytes(b"foreign")
    assert restore(Store(results), key_of(results), None).changed == ()  # its own copy was run
    (folder / "levels.py").write_text("raise SystemExit('foreign')")
    with pytest.raises(SpecError, match="was altered"):
        restore(Store(results), key_of(results), None)
    code, text = call("verify", "--results", results)
    assert code == 1 and "was altered" in text


@pytest.mark.parametrize("change", [
    {"files": {"../outside.py": "0" * 64}}, {"files": {"/etc/passwd": "0" * 64}},
    {"files": {".hidden": "0" * 64}}, {"files": {}}, {"files": 3}, {"class": "a b"},
    {"place": "../../x.py"}, {"place": "os.path"}, {"class": None},
])  # fmt: skip
def test_a_hostile_manifest_is_refused(foreign: Path, change: dict[str, object]) -> None:
    manifest = source_folder(foreign) / kept.MANIFEST
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | change))
    with pytest.raises(StoreError):
        kept.read(source_folder(foreign))
    with pytest.raises(SpecError):
        restore(Store(foreign), key_of(foreign), None, OwnCode(is_trusted=True))


def test_a_link_in_a_source_is_not_followed(foreign: Path) -> None:
    file = source_folder(foreign) / "levels.py"
    outside = foreign / "outside.py"
    shutil.move(file, outside)
    file.symlink_to(outside)
    with pytest.raises(StoreError, match="is missing, or is not a file"):
        kept.read(source_folder(foreign))


def test_without_the_source_the_message_says_what_to_do(foreign: Path) -> None:
    shutil.rmtree(source_folder(foreign))
    with pytest.raises(SpecError, match=r"give its file with --plugin ./FILE.py:Class"):
        restore(Store(foreign), key_of(foreign), None)


def test_no_source_is_kept_of_what_ships(results: Path) -> None:
    assert len(kept.folders(results)) == 1
    assert [*trust.places_of("direct")] == []
