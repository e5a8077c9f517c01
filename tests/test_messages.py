"""Messages about wrong paths and names: each says what was wrong and what to do."""

import sys
from pathlib import Path

import pytest

from codingbench.cli.main import main
from codingbench.runtime.paths import as_typed, user_path


def said(
    arguments: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> str:
    """Return the error line of a command that runs in ``folder``, which must be empty."""
    monkeypatch.chdir(folder)
    (folder / "empty").mkdir()
    (folder / "file").write_text("hi")
    (folder / "bad.toml").write_text("x = [")
    monkeypatch.setattr(sys, "argv", ["codingbench", *arguments.split()])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("inspect direct --plot x.jpeg", "must end in .png, .pdf, .svg, got 'x.jpeg'"),
        ("leaderboard --results nope", "no results folder 'nope'; codingbench run --results nope"),
        ("leaderboard --results file", "expected a results folder, got the file 'file'"),
        ("leaderboard --results ./empty", "no finished cell in './empty'; codingbench run --resul"),
        ("compare gac direct --results nope", "there is no results folder 'nope'"),
        ("run --config nope.toml", "cannot read the configuration 'nope.toml'"),
        ("run --config bad.toml", "configuration 'bad.toml' is not valid TOML"),
        ("run --recipe bad.toml", "recipe 'bad.toml' is not valid TOML"),
        ("run --recipe nope.toml", "there is no recipe file 'nope.toml'"),
        ("run --results file", "cannot write the results folder 'file'"),
        ("run --dataset folder:nope", "folder:nope: there is no folder nope, expected class"),
        ("run --dataset folder:empty", "empty has no folder train, expected train/<class>/"),
        ("run --device cuda:99", "--device cpu"),
    ],
)
def test_an_error_repeats_what_the_user_typed(
    arguments: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = said(arguments, tmp_path, monkeypatch, capsys)
    assert message in error and str(tmp_path) not in error and error.count("\n") == 1


def test_only_whole_paths_are_written_as_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = user_path("d")
    assert as_typed(f"{place}/train and {place}.") == "d/train and d."
    assert as_typed(f"{place}ata {place}.bak /x{place}") == f"{place}ata {place}.bak /x{place}"
