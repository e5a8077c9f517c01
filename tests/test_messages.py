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
    (folder / "alone.toml").write_text("epochs = 3\n")
    (folder / "base.toml").write_text('extends = "none.toml"\n')
    (folder / "latin.toml").write_bytes(b"title = '\xe9'\n")
    (folder / "number.toml").write_text("epochs = [1]\n")
    (folder / "type.toml").write_text("encoders = 3\n")
    (folder / "empty.py").write_text("level = 1\n")
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
        ("verify --results nope", "no results folder 'nope'; codingbench run --results nope adds"),
        ("verify --results empty", "no finished cell in 'empty'; codingbench run --results empty"),
        (
            "verify --results file",
            "expected a results folder, got the file 'file'; codingbench run",
        ),
        ("compact --results file", "expected a results folder, got the file 'file'"),
        ("status --results nope", "no results folder 'nope'; codingbench run --results nope adds"),
        ("merge nope --into out", "there is no results folder 'nope', expected cells to merge"),
        ("merge empty --into out", "no finished cell in 'empty', expected cells to merge"),
        ("merge file --into out", "expected a results folder, got the file 'file', expected cells"),
        ("show zzz --results nope", "no cell 'zzz': there is no results folder 'nope'"),
        ("export zzz --results file", "no cell 'zzz': expected a results folder, got the file"),
        ("robustness all --results nope", "no results folder 'nope'; codingbench run --results"),
        ("report --results nope --output no/x.html", "'no/x.html': its folder does not exist"),
        ("new encoder mine --folder file", "expected a folder, got the file 'file'"),
        ("new encoder mine --folder nope", "there is no folder 'nope'"),
        ("run --dry-run --encoders ./empty.py:A", "there is no class 'A' in ./empty.py, which de"),
        ("data fetch mnist --data-dir file", "expected a folder of data sets, got the file 'file'"),
        ("run --dataset cifar10 --data-dir file", "expected a folder of data sets, got the file"),
        ("run --config number.toml", "in number.toml: epochs expects a whole number, got [1]"),
        ("run --config type.toml", "in type.toml: encoders expects text or a list, got 3"),
        ("run --config empty", "cannot read the configuration 'empty': Is a directory"),
        ("run --recipe alone.toml", "recipe alone.toml: title is missing; source is missing"),
        ("run --recipe alone.toml", 'a file with extends = "quick", for example, holds only'),
        ("run --recipe base.toml", "extends in base.toml: there is no recipe file 'none.toml'"),
        ("run --recipe latin.toml", "cannot read the recipe 'latin.toml': it is not text in UTF-8"),
        ("run --recipe ./empty", "the name of a recipe file ends in .toml"),
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
