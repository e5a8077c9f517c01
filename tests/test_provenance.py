"""The provenance that rows record."""

import subprocess
from pathlib import Path

from codingbench.runtime.provenance import is_dirty


def test_a_checkout_is_dirty_by_changed_code_and_not_by_results(tmp_path: Path) -> None:
    def git(*command: str) -> None:
        who = "-c", "user.name=A", "-c", "user.email=a@example.org"
        subprocess.run(["git", "-C", str(tmp_path), *who, *command], check=True)

    code, results = tmp_path / "code.py", tmp_path / "results" / "reference"
    git("init", "--quiet")
    code.write_text("x = 1\n")
    git("add", ".")
    git("commit", "--quiet", "-m", "first")
    results.mkdir(parents=True)
    (results / "cell.parquet").write_text("a result")
    assert not is_dirty(tmp_path)
    (tmp_path / "plugin.py").write_text("x = 2\n")
    assert is_dirty(tmp_path)
    (tmp_path / "plugin.py").unlink()
    code.write_text("x = 3\n")
    assert is_dirty(tmp_path)
