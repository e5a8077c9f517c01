"""Refresh the command outputs shown in the documentation.

    python tests/benchmarks/refresh_docs.py [FILE.md ...]

Runs the commands of every ``console`` block and replaces the output below each by what the command
prints now. Without arguments it does so for every Markdown file of the project. A block looks like
this; everything after the first word is invisible on GitHub:

    ```console columns=100 paragraphs=2 lines=1-6 only=gac|direct
    $ codingbench leaderboard --results results/reference/field
    ...
    ```

- ``columns``: width of the terminal, 80 by default.
- ``paragraphs``, ``lines``: parts of the output to show, counted from 1: ``1,3-5``. Paragraphs are
  separated by blank lines; lines are counted within the paragraphs chosen.
- ``only``: regular expression that the lines shown must match.

A line with three dots stands for output that is left out, except before the first line shown. The
commands of one file run in order in one empty folder that links to ``results/``. A ``codingbench``
command without a pipe runs in this process, any other one in the shell. A block with the option
``file=NAME``, such as ``python file=retina.py``, is written to that file of the folder first.
``tests/test_docs.py`` holds every document to what this script would write.
"""

import os
import re
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Final, NamedTuple

from typer.testing import CliRunner

from codingbench.cli.main import app
from codingbench.registry import BACKBONES, ENCODERS

ROOT: Final = Path(__file__).parents[2]
GAP: Final = "…"
SHIPPED: Final = "codingbench."
FENCED: Final = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

_SKIPPED: Final = ("build", "dist", "shared")


class Block(NamedTuple):
    """A fenced block of a Markdown file."""

    language: str
    options: dict[str, str]
    body: str


def documents() -> list[Path]:
    """Return every Markdown file of the project."""
    paths = ROOT.rglob("*.md")
    return sorted(path for path in paths if not any(map(_is_skipped, path.relative_to(ROOT).parts)))


def _is_skipped(name: str) -> bool:
    return name.startswith(".") or name.endswith(".egg-info") or name in _SKIPPED


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a document."""
    return [_block(match) for match in FENCED.finditer(text)]


def _block(match: re.Match[str]) -> Block:
    language, words, body = match.groups()
    return Block(language, dict(word.split("=", 1) for word in shlex.split(words)), body)


def refreshed(text: str) -> str:
    """Return the document with the output of its commands as they print it now."""
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        Path("results").symlink_to(ROOT / "results")
        return FENCED.sub(_refreshed_block, text)


def _refreshed_block(match: re.Match[str]) -> str:
    block = _block(match)
    if "file" in block.options:
        Path(block.options["file"]).write_text(block.body)
    if block.language != "console":
        return match[0]
    head, _, _ = match[0].partition("\n")
    commands = [line for line in block.body.splitlines() if line.startswith("$ ")]
    parts = [[line, *shown(output(line[2:], block), block.options)] for line in commands]
    return "\n".join([head, *(line for part in parts for line in part), "```"])


def output(command: str, block: Block) -> str:
    """Return what the command prints to both streams.

    Raises:
        RuntimeError: the command printed nothing and failed.
    """
    env = {"COLUMNS": block.options.get("columns", "80")}
    program, *arguments = shlex.split(command)
    if program == "codingbench" and "|" not in arguments:
        with _fresh_plugins():
            run = CliRunner(env=env).invoke(app, arguments)
        printed, failed = run.output, run.exit_code
    else:
        path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
        done = subprocess.run(
            command,
            shell=True,
            text=True,
            env={**os.environ, **env, "PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        printed, failed = done.stdout, done.returncode
    if failed and not printed:
        raise RuntimeError(f"{command} failed with exit status {failed} and printed nothing")
    return printed


@contextmanager
def _fresh_plugins() -> Iterator[None]:
    """Run as a new process would: without the plug-in files that an earlier command loaded."""
    registered = [(registry, dict(registry._classes)) for registry in (ENCODERS, BACKBONES)]
    modules = {name: module for name, module in sys.modules.items() if _is_plugin_file(name)}
    _forget_plugin_files()
    try:
        yield
    finally:
        _forget_plugin_files()
        sys.modules.update(modules)
        for registry, classes in registered:
            registry._classes = classes | registry._classes


def _forget_plugin_files() -> None:
    for name in list(filter(_is_plugin_file, sys.modules)):
        del sys.modules[name]
    for registry in (ENCODERS, BACKBONES):
        shipped = {n: c for n, c in registry._classes.items() if c.__module__.startswith(SHIPPED)}
        registry._classes = shipped


def _is_plugin_file(module: str) -> bool:
    return module.startswith("codingbench_plugin_")


def shown(printed: str, options: Mapping[str, str]) -> list[str]:
    """Return the lines of the output that the block's options choose, with a mark for each gap."""
    lines = [line.rstrip() for line in printed.strip("\n").splitlines()]
    kept = list(range(len(lines)))
    if "paragraphs" in options:
        paragraphs, chosen = _paragraphs(lines), numbers(options["paragraphs"])
        kept = [at for at in kept if paragraphs[at] in chosen]
    if "lines" in options:
        chosen = numbers(options["lines"])
        kept = [at for place, at in enumerate(kept, 1) if place in chosen]
    if "only" in options:
        kept = [at for at in kept if re.search(options["only"], lines[at])]
    return list(_with_gaps(lines, [at for at in kept if lines[at]]))


def _paragraphs(lines: Sequence[str]) -> list[int]:
    """Return the number of the paragraph of each line."""
    begins = [bool(line) and not before for before, line in pairwise(["", *lines])]
    return list(accumulate(begins))


def _with_gaps(lines: Sequence[str], kept: Sequence[int]) -> Iterator[str]:
    before = -1
    for at in [*kept, len(lines)]:
        between = lines[before + 1 : at]
        if any(between) and before >= 0:
            yield GAP
        elif between and before >= 0 and at < len(lines):
            yield ""
        if at < len(lines):
            yield lines[at]
        before = at


def numbers(ranges: str) -> set[int]:
    """Return the numbers of ``1,3-5``."""
    ends = (part.split("-") for part in ranges.split(",") if part)
    return {number for end in ends for number in range(int(end[0]), int(end[-1]) + 1)}


def main() -> None:
    """Refresh the files given, or all."""
    for path in [Path(name).resolve() for name in sys.argv[1:]] or documents():
        before = path.read_text()
        if (after := refreshed(before)) != before:
            path.write_text(after)
            print(f"{path.relative_to(ROOT)}: refreshed")


if __name__ == "__main__":
    main()
