"""The hash of a plug-in's syntax: words and layout do not count, all else does."""

import hashlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from codingbench.plugins import earlier, syntax
from codingbench.plugins.syntax import digest, syntax_digest

ROOT = Path(__file__).parents[1]
CODE = b"""
import torch

LEVEL = 0.5


class Mine:
    emits = "binary"

    def spikes(self, images, *, gain: float = 1.0):
        return f"{images!r:>{10}} of" if gain else {"a": None, **{}}
"""


def changed(old: str, new: str) -> bytes:
    assert old.encode() in CODE
    return CODE.replace(old.encode(), new.encode())


WORDS = {
    "comment": ("LEVEL = 0.5", "LEVEL = 0.5  # volts"),
    "docstring of the file": ("import torch", '"""A coding."""\nimport torch'),
    "docstring of a class": ("class Mine:", 'class Mine:\n    """A coding."""\n'),
    "docstring of an attribute": ("LEVEL = 0.5", 'LEVEL = 0.5\n"""Volts."""'),
    "quotes": ('"binary"', "'binary'"),
    "line breaks": ("(self, images,", "(\n        self,\n        images,"),
    "brackets": ("LEVEL = 0.5", "LEVEL = (0.5)"),
    "a split text": ('"binary"', '"bin" "ary"'),
    "line ends": ("\n", "\r\n"),
    "a pass": ("LEVEL = 0.5", "LEVEL = 0.5\npass"),
}
MEANING = {
    "a number": ("0.5", "0.25"),
    "the type of a number": ("1.0", "1"),
    "a name": ("LEVEL", "LEVELS"),
    "a text": ('"binary"', '"signed"'),
    "bytes for a text": ('"binary"', 'b"binary"'),
    "an annotation": ("gain: float", "gain: int"),
    "the kind of a parameter": (" *,", ""),
    "an f-string": (" of", " or"),
    "a conversion": ("!r", "!s"),
    "the order": ("import torch\n\nLEVEL = 0.5", "LEVEL = 0.5\nimport torch"),
    "a decorator": ("class Mine", "@torch.no_grad\nclass Mine"),
    "an entry": ('{"a": None, **{}}', '{"a": None}'),
    "an empty list": ('{"a": None, **{}}', "[]"),
    "the place of a statement": ("\n    emits", "\nemits"),
}


@pytest.mark.parametrize(("old", "new"), WORDS.values(), ids=WORDS)
def test_words_and_layout_do_not_change_the_hash(old: str, new: str) -> None:
    assert syntax_digest(changed(old, new)) == syntax_digest(CODE)


@pytest.mark.parametrize(("old", "new"), MEANING.values(), ids=MEANING)
def test_everything_else_changes_the_hash(old: str, new: str) -> None:
    text = changed(old, new)
    if "emits" in new:  # no longer a method of the class
        text = CODE.split(b"\n    def")[0]
    assert syntax_digest(text) != syntax_digest(CODE)


def test_the_hash_is_the_same_in_every_version_of_python() -> None:
    assert syntax_digest(CODE).hex() == PINNED  # 3.11, 3.12 and 3.13 all give it


PINNED = "d48b993c6bf01d8ed5e3c694501b75144487228f87d7e6325ef15fc382ea9e20"


def test_a_broken_or_deep_file_has_a_hash(tmp_path: Path) -> None:
    assert syntax_digest(b"def \xff") == hashlib.sha256(b"def \xff").digest()
    deep = b"x = " + b" + ".join([b"1"] * 600)
    assert syntax_digest(deep) == syntax_digest(deep + b"  # comment")
    library = tmp_path / "compiled.so"
    library.write_bytes(b"x = 1  # bytes of a library")
    assert digest(library) == hashlib.sha256(library.read_bytes()).digest()


def test_a_shipped_file_keeps_the_hash_of_its_bytes_when_its_words_change(tmp_path: Path) -> None:
    table = tomllib.loads(syntax.TABLE.read_text())
    file = tmp_path / "gac.py"
    file.write_bytes((ROOT / "encoders/gac.py").read_bytes() + b"# a comment\n")
    assert digest(file).hex() == table["encoders/gac.py"]["bytes"]
    assert digest(file).hex().startswith("9f5147ffdad2")  # in stores of earlier versions
    file.write_bytes(file.read_bytes() + b"CHANGED = 1\n")
    assert digest(file) == syntax_digest(file.read_bytes())
    assert digest(file).hex() not in {entry["bytes"] for entry in table.values()}


def test_the_table_is_what_its_command_writes(tmp_path: Path) -> None:
    file = tmp_path / "encoders" / "new.py"
    file.parent.mkdir()
    file.write_text("x = 1  # one\n")
    command = [sys.executable, "-m", "codingbench.plugins.earlier", str(file)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (entry,) = tomllib.loads(text).values()
    assert text == "\n".join(earlier.lines([file])) + "\n"
    assert entry["bytes"] == hashlib.sha256(b"x = 1  # one\n").hexdigest()
    assert entry["syntax"] == syntax_digest(b"x=1").hex()
