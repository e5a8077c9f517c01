"""The files of a plug-in: its own, and those of its package or folder that it imports."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from codingbench.plugins.code import code_hash
from codingbench.plugins.family import family
from codingbench.registry import ENCODERS

CODE = """
from codingbench.encoder import Setting, PixelEncoder
{imports}
class Mine(PixelEncoder):
    emits = "binary"
    def spikes(self, images, generator):
        return (images > LEVEL).float().expand(self.num_steps, *images.shape)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on Python's search path, with the packages ``pkg`` and ``pkg.sub`` and a module."""
    for path, text in {
        "pkg/__init__.py": "",
        "pkg/helper.py": "LEVEL = 0.5",
        "pkg/deep.py": "from pkg import helper",
        "pkg/sub/__init__.py": "LEVEL = 0.5",
        "pkg/sub/levels.py": "LEVEL = 0.5",
        "beside.py": "LEVEL = 0.5",
        "other/__init__.py": "",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


FORMS = [
    ("pkg/code.py", "from .helper import LEVEL", ["pkg/helper.py"]),
    ("pkg/code.py", "from . import helper", ["pkg/helper.py"]),
    ("pkg/code.py", "from . import helper as h, sub", ["pkg/helper.py", "pkg/sub/__init__.py"]),
    ("pkg/code.py", "import pkg.helper", ["pkg/__init__.py", "pkg/helper.py"]),
    ("pkg/code.py", "import pkg.helper as h", ["pkg/__init__.py", "pkg/helper.py"]),
    ("pkg/code.py", "from pkg import helper", ["pkg/helper.py"]),
    ("pkg/code.py", "from pkg.helper import *", ["pkg/helper.py"]),
    ("pkg/code.py", "from . import VERSION", ["pkg/__init__.py"]),
    ("pkg/code.py", "from .sub import LEVEL", ["pkg/sub/__init__.py"]),
    ("pkg/code.py", "from .sub import levels", ["pkg/sub/levels.py"]),
    ("pkg/code.py", "from .sub.levels import LEVEL", ["pkg/sub/levels.py"]),
    ("pkg/code.py", "from . import deep", ["pkg/deep.py", "pkg/helper.py"]),
    ("pkg/code.py", "def f():\n    from . import helper", ["pkg/helper.py"]),
    ("pkg/code.py", "import importlib\nimportlib.import_module('pkg.helper')", ["pkg/helper.py"]),
    ("pkg/code.py", "import_module('.helper', __package__)", ["pkg/helper.py"]),
    ("pkg/code.py", "h = __import__('pkg.helper')", ["pkg/helper.py"]),
    ("pkg/sub/code.py", "from ..helper import LEVEL", ["pkg/helper.py"]),
    ("pkg/sub/code.py", "from .. import helper", ["pkg/helper.py"]),
    ("mine.py", "import beside", ["beside.py"]),
    ("mine.py", "from beside import LEVEL", ["beside.py"]),
    ("mine.py", "import pkg.sub.levels",
     ["pkg/__init__.py", "pkg/sub/__init__.py", "pkg/sub/levels.py"]),
    ("pkg/code.py", "import os, torch\nfrom codingbench import encoder\nimport other", []),
    ("pkg/code.py", "import_module(name)\nimport_module('/etc/passwd')", []),
]  # fmt: skip


@pytest.mark.parametrize(("name", "imports", "files"), FORMS)
def test_every_form_of_import_is_followed(
    name: str, imports: str, files: list[str], folder: Path
) -> None:
    path = folder / name
    path.write_text(imports)
    assert family(path) == [path, *(folder / file for file in files)]


def mine(module: str) -> type:
    importlib.invalidate_caches()
    found: type = importlib.import_module(module).Mine
    return found


@pytest.mark.parametrize(
    ("imports", "changed"),
    [
        ("from . import helper\nLEVEL = helper.LEVEL", "pkg/helper.py"),
        ("from importlib import import_module\nLEVEL = import_module('pkg.sub.levels').LEVEL",
         "pkg/sub/levels.py"),
        ("from pkg.sub import LEVEL", "pkg/sub/__init__.py"),
    ],
)  # fmt: skip
def test_a_changed_helper_changes_the_code_of_the_plugin(
    imports: str, changed: str, folder: Path
) -> None:
    (folder / "pkg/code.py").write_text(CODE.format(imports=imports))
    before = code_hash(mine("pkg.code"))
    (folder / changed).write_text("LEVEL = 0.25")
    assert code_hash(mine("pkg.code")) != before
    (folder / "beside.py").write_text("LEVEL = 0.25")  # not imported
    assert code_hash(mine("pkg.code")) != before


def test_a_helper_beside_a_plugin_file_is_covered_too(folder: Path) -> None:
    (folder / "mine.py").write_text(CODE.format(imports="from beside import LEVEL"))
    text = f"{folder / 'mine.py'}:Mine"
    before = ENCODERS.resolve(text).code
    (folder / "beside.py").write_text("LEVEL = 0.125")
    with pytest.raises(Exception, match="or a file it imports has changed since Mine was imported"):
        ENCODERS.resolve(text)
    assert code_hash(ENCODERS._named(text)[0]) != before


def test_a_broken_or_circular_helper_ends_the_search(folder: Path) -> None:
    (folder / "pkg/code.py").write_text("from . import helper, broken")
    (folder / "pkg/helper.py").write_text("from . import code")
    (folder / "pkg/broken.py").write_bytes(b"def \xff")
    assert [path.stem for path in family(folder / "pkg/code.py")] == ["code", "helper", "broken"]


def test_what_the_modules_of_a_session_import_is_found_where_it_was_loaded(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    importlib.import_module("beside")
    kept = tmp_path_factory.mktemp("plugins") / "Mine-0.py"
    kept.write_text("import os\nimport torch\nimport beside\nfrom codingbench import encoder")
    assert family(kept) == [kept]
    assert family(kept, of_session=True) == [kept, folder / "beside.py"]
