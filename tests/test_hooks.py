"""The pre-commit hooks and CI run the same checks with the same versions of the tools."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_hooks_run_the_lint_format_and_type_checks_of_ci() -> None:
    ci = (ROOT / ".ci" / "run").read_text().splitlines()
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    checks = [line for line in ci if re.match(r"\.venv/bin/(ruff|mypy)", line)]
    assert len(checks) == 3
    assert re.findall(r"^ +entry: (.+)$", hooks, re.MULTILINE) == checks


def test_every_tool_of_a_hook_is_pinned_to_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {
        name.split("==")[0] for name in project["optional-dependencies"]["dev"] if "==" in name
    }
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    assert set(re.findall(r"entry: \.venv/bin/(\w+)", hooks)) == pinned == {"ruff", "mypy"}
