"""Commands on terminals and pipes whose encoding lacks characters of the tables."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from codingbench.cli.main import main
from codingbench.runtime.encoding import replace_unknown_characters
from codingbench.store.folder import Store
from codingbench.views.writers import FORMATS
from tests.conftest import commit


class Standard(io.TextIOWrapper):
    """A standard stream of an encoding, whose bytes can be read."""

    def __init__(self, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, errors="strict", write_through=True)

    def text(self) -> str:
        self.flush()
        content = self.buffer.getvalue()  # type: ignore[attr-defined]
        return str(content.decode(self.encoding))


@pytest.fixture
def store(results: Path) -> Path:
    """Two codings of two seeds, one of a name that no old encoding has."""
    for seed in (0, 1):
        commit(Store(results), f"bbbb{seed}111bbbb1111", seed=seed, encoder="Кодер")
    return results


def run(
    encoding: str, *words: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[int | str | None, str, str]:
    """Run the command; return its exit status, stdout and stderr."""
    out, err = Standard(encoding), Standard(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr(sys, "argv", ["codingbench", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, out.text(), err.text()


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "cp437"])
def test_tables_and_their_marks_can_be_printed_in_every_encoding(
    encoding: str, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in (
        *(("leaderboard", "--format", form) for form in FORMATS),
        ("compare", "gac[heads=2]", "Кодер"),
        ("compare", "gac[heads=2]", "Кодер", "--format", "csv"),
        ("show", "aaaa1111"),
        ("list", "encoders"),
    ):
        folder = () if words[0] == "list" else ("--results", str(store))
        status, out, err = run(encoding, *words, *folder, monkeypatch=monkeypatch)
        assert (status or 0, err) == (0, "") and out, (words, err)


def test_replaced_characters_keep_the_width_of_the_table(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("leaderboard", "--results", str(store))
    plain = run("cp437", *words, monkeypatch=monkeypatch)[1].splitlines()
    whole = run("utf-8", *words, monkeypatch=monkeypatch)[1].splitlines()
    assert [len(line) for line in plain] == [len(line) for line in whole]
    assert any("?????" in line for line in plain) and any("Кодер" in line for line in whole)


def test_an_error_keeps_its_status_and_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    status, out, err = run("cp1252", "show", "Кодер", "--results", "Кодер", monkeypatch=monkeypatch)
    assert (status, out) == (2, "") and err.startswith("error: ") and "?????" in err


def test_file_names_that_are_no_text_can_be_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Standard("utf-8")
    monkeypatch.setattr(sys, "stdout", out)
    replace_unknown_characters()
    print(os.fsdecode(b"\xff.png"), "±")
    assert out.text() == "?.png ±\n"


def test_streams_that_cannot_be_changed_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", None)
    replace_unknown_characters()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252:strict"])
def test_a_command_that_is_piped_ends_well(encoding: str, store: Path) -> None:
    command = [sys.executable, "-m", "codingbench", "leaderboard", "--results", str(store)]
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run(command, env=environment, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"accuracy" in done.stdout
