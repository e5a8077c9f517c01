"""Imports between the parts of codingbench go one way; the table below is read against the code."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = (
    "codingbench",
    "encoders",
    "backbones",
)  # the last two are codingbench.encoders and so on
CONTRACT = {"encoder", "backbone", "registry", "neurons", "surrogates"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    start = () if parts[0] == "codingbench" else ("codingbench",)
    return ".".join((*start, *parts)).removesuffix(".__init__")


FILES = {module_name(path): path for name in FOLDERS for path in (ROOT / name).rglob("*.py")}
PARTS = {name.split(".")[1] for name in FILES if "." in name} | {""}  # "": codingbench/__init__.py
ENGINE = {f"codingbench.{part}" for part in PARTS - CONTRACT - {"encoders", "backbones", ""}}

NEVER: list[tuple[set[str], set[str]]] = [
    ({"encoders", "backbones"}, ENGINE),  # a plug-in only needs the contract
    ({"datasets"}, {"codingbench.training"}),
    ({"training"}, {"codingbench.cells"}),
    (PARTS - {"executors", "cli", "", "api"}, {"codingbench.executors"}),
    ({"analysis"}, {"torch", "codingbench.views"}),
    (PARTS - {"views", "cli"}, {"rich"}),
    (PARTS - {"cli", "__main__"}, {"codingbench.cli"}),
]
"""Each row: files of these parts never import these packages, not even inside a function."""


def imports(path: Path) -> set[str]:
    """Return the absolute imports of a file; ``from a import b`` gives a.b if that is a module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else node.module for name in inner}
    return found


@pytest.mark.parametrize(
    ("parts", "packages"), NEVER, ids=lambda names: "+".join(sorted(names)[:3])
)
def test_imports_go_one_way(parts: set[str], packages: set[str]) -> None:
    forbidden = [
        f"{path.relative_to(ROOT)} imports {target}"
        for name, path in sorted(FILES.items())
        if [*name.split("."), ""][1] in parts
        for target in sorted(imports(path))
        if any(f"{target}.".startswith(f"{package}.") for package in packages)
    ]
    assert not forbidden, "; ".join(forbidden)


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = {name: imports(path) & FILES.keys() - {name} for name, path in FILES.items()}
    del graph["codingbench"]  # its public names are imported on first use
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(
            " imports ".join(str(FILES[name].relative_to(ROOT)) for name in error.args[1][::-1])
        )
