"""Classes of a notebook or script as plug-ins: what is kept of them, and what is refused."""

import hashlib
import linecache
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import codingbench as cb
from codingbench.api.entries import grid_texts
from codingbench.errors import SpecError, StoreError
from codingbench.plugins.code import module_of
from codingbench.plugins.kept import folders
from codingbench.plugins.source import keep
from codingbench.plugins.syntax import syntax_digest
from codingbench.registry import ENCODERS, Plugin
from codingbench.store.folder import Store

IMPORTS = """
import math
import torch
import torch.nn.functional as F
import xml.etree.ElementTree
import numpy as np
from torch import Tensor, float32, nn
from typing import Literal
from jaxtyping import Float
import codingbench as cb
from codingbench import FeatureEncoder, Setting, register_encoder
"""

CODING = """
@cb.register_encoder("of_the_session")
class MyCoding(FeatureEncoder):
    emits = "real"

    def __init__(self, setting: Setting, *, gain: float = 1.0) -> None:
        super().__init__(setting)
        self.gain = gain

    def encode(self, features: Tensor) -> Tensor:
        return self.gain * features.expand(self.num_steps, *features.shape)
"""

Cell = Callable[[str], dict[str, Any]]


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cell]:
    """Run a cell as a notebook does: in ``__main__``, its source known by ``linecache`` alone."""
    session = ModuleType("__main__")
    session.In = [""]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "__main__", session)
    names: list[str] = []

    def run(text: str) -> dict[str, Any]:
        names.append(f"<cell {len(names)} of {id(session)}>")
        linecache.cache[names[-1]] = len(text), None, text.splitlines(keepends=True), names[-1]
        session.In.append(text)
        exec(compile(text, names[-1], "exec"), vars(session))
        return vars(session)

    run(IMPORTS)
    yield run
    for name in names:
        linecache.cache.pop(name, None)
    ENCODERS._classes.pop("of_the_session", None)


def resolved(entry: Any, folder: Path) -> Plugin:
    (text,) = grid_texts(ENCODERS, [entry], folder)
    return ENCODERS.resolve(text)


def refusal(cls: type, folder: Path) -> str:
    with pytest.raises(SpecError) as caught:
        keep(cls, folder)
    assert "\n" not in str(caught.value)
    assert not folder.exists() or not [*folder.iterdir()]
    return str(caught.value)


# --- what is kept ---------------------------------------------------------------------------------


def test_a_class_is_kept_under_the_hash_of_its_source(cell: Cell, tmp_path: Path) -> None:
    cls = cell(CODING)["MyCoding"]
    path = keep(cls, tmp_path / "plugins")
    assert path.name == f"MyCoding-{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}.py"
    assert keep(cls, tmp_path / "plugins") == path
    plugin = resolved(cls, tmp_path)
    code = syntax_digest(path.read_bytes()).hex()[:12]
    assert (plugin.label, plugin.code) == ("of_the_session", code)
    assert resolved("of_the_session[gain=2]", tmp_path).label == "of_the_session[gain=2.0]"


def test_the_file_holds_what_the_class_refers_to_and_nothing_else(
    cell: Cell, tmp_path: Path
) -> None:
    cell('WIDTH = 3\nTABLE = {"a": (1,), "b": [None, True, ...]}\nLEVELS = {"y", "x"}\nUNUSED = 1')
    cell("STEP = np.float64(0.5)\nLIMIT = -math.inf\nText = Literal['a', 'b']\nItself = Tensor")
    cell("def helper(x):\n    return other(x) + xml.etree.ElementTree.Element('a').get('b', 0)")
    cell("def other(x):\n    unused = [WIDTH for WIDTH in range(2)]\n    return F.relu(x) * STEP")
    cell("weights = torch.ones(3)\ndef unrelated():\n    return weights")
    cell("class Base(FeatureEncoder):\n    emits = 'real'\n    level = WIDTH\n")
    cls = cell(
        "alias = helper\n\n"
        "class MyCoding(Base):\n"
        "    def __init__(self, setting: Setting, *, text: Text = 'a') -> None:\n"
        "        super().__init__(setting)\n"
        "    def encode(self, features: Float[Itself, 'b s h w']):\n"
        "        weights = float32, TABLE, LIMIT, LEVELS\n"
        "        return alias(features).expand(self.num_steps, *features.shape)\n"
    )["MyCoding"]
    text = keep(cls, tmp_path).read_text()
    for line in (
        "import torch.nn.functional as F",
        "import xml.etree.ElementTree",
        "from torch import float32",
        "from torch import Tensor as Itself",
        'TABLE = {"a": (1,), "b": [None, True, ...]}'.replace('"', "'"),
        "LEVELS = set(['x', 'y'])",
        "STEP = 0.5",
        'LIMIT = float("-inf")',
        "Text = Literal['a', 'b']",
        "WIDTH = 3",
        "alias = helper",
    ):
        assert f"\n{line}\n" in text, line
    order = ["def other", "def helper", "alias = helper", "class Base", "class MyCoding"]
    places = [text.index(f"\n{start}") for start in order]
    assert (
        max(places[:3]) < places[4] and places[0] < places[1] < places[2] and places[3] < places[4]
    )
    assert "UNUSED" not in text and "unrelated" not in text and "torch.ones" not in text


def test_a_class_without_methods_is_found_in_the_cells(cell: Cell, tmp_path: Path) -> None:
    cell("from codingbench.encoders.direct import DirectEncoder")
    cell("class Mine(DirectEncoder):\n    level = 1\n")
    cls = cell("class Mine(DirectEncoder):\n    level = 2\n")["Mine"]
    assert "level = 2" in keep(cls, tmp_path).read_text()
    assert resolved(cls, tmp_path).cls.level == 2  # type: ignore[attr-defined]


def test_postponed_annotations_are_kept(cell: Cell, tmp_path: Path) -> None:
    cls = cell(f"from __future__ import annotations\n{CODING}")["MyCoding"]
    assert "from __future__ import annotations" in keep(cls, tmp_path).read_text()
    assert dict(resolved(cls, tmp_path).params) == {"gain": 1.0}


def test_a_decorated_function_is_kept_with_its_decorator(cell: Cell, tmp_path: Path) -> None:
    cell("import functools")
    cell("@functools.cache\ndef scale(x: int) -> int:\n    return 2 * x")
    cls = cell(CODING.replace("self.gain * ", "scale(1) * "))["MyCoding"]
    assert "@functools.cache\ndef scale" in keep(cls, tmp_path).read_text()


# --- versions -------------------------------------------------------------------------------------


def test_a_cell_may_be_run_again_and_the_latest_version_is_the_one_that_counts(
    cell: Cell, tmp_path: Path
) -> None:
    first = resolved(cell(CODING)["MyCoding"], tmp_path)
    assert resolved(cell(CODING)["MyCoding"], tmp_path).code == first.code
    cell(CODING.replace("gain: float = 1.0", "gain: float = 3.0"))
    changed = resolved("of_the_session", tmp_path)
    assert changed.code != first.code and dict(changed.params) == {"gain": 3.0}
    assert changed.label == first.label == "of_the_session"
    cell(CODING)
    assert resolved("of_the_session", tmp_path) == first


def test_a_changed_helper_or_constant_changes_the_hash(cell: Cell, tmp_path: Path) -> None:
    cell("GAIN = 1.0\ndef scaled(x):\n    return GAIN * x")
    cls = cell(CODING.replace("self.gain * ", "scaled(1) * "))["MyCoding"]
    codes = [resolved(cls, tmp_path).code]
    for change in ("GAIN = 2.0", "def scaled(x):\n    return GAIN * x * 1"):
        cell(change)
        codes.append(resolved(cls, tmp_path).code)
    assert len({*codes}) == 3


def test_a_name_of_an_earlier_version_is_refused(cell: Cell, tmp_path: Path) -> None:
    cell(CODING)
    cell(CODING.replace('@cb.register_encoder("of_the_session")\n', ""))
    with pytest.raises(SpecError, match="'of_the_session' is registered for an earlier version"):
        resolved("of_the_session", tmp_path)


def test_a_base_class_of_an_earlier_version_is_refused(cell: Cell, tmp_path: Path) -> None:
    cell(CODING)
    cls = cell("class Derived(MyCoding):\n    pass\n")["Derived"]
    cell(CODING)
    message = "Derived derives from an earlier version of MyCoding: run the code that defines"
    assert refusal(cls, tmp_path / "new").startswith(message)


def test_what_was_patched_after_its_definition_is_refused(cell: Cell, tmp_path: Path) -> None:
    cls = cell(CODING)["MyCoding"]
    cell("MyCoding.encode = lambda self, features: features")
    with pytest.raises(SpecError, match="<lambda> is not defined where MyCoding is"):
        keep(cls, tmp_path)
    cls = cell(CODING)["MyCoding"]
    cell("MyCoding.emits = 'binary'")
    with pytest.raises(SpecError, match=r"MyCoding\.emits is not what its source says"):
        keep(cls, tmp_path)


def test_a_script_that_was_edited_since_it_began_is_refused(cell: Cell, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    session = cell("")
    session["__file__"] = str(script)
    for text, is_same in ((CODING, True), (CODING.replace("self.gain *", "1 +"), False)):
        exec(compile(CODING, script, "exec"), session)
        script.write_text(text)
        linecache.checkcache(str(script))
        if is_same:
            keep(session["MyCoding"], tmp_path)
        else:
            with pytest.raises(SpecError, match=r"script\.py has changed since it was started"):
                keep(session["MyCoding"], tmp_path)


def test_another_class_cannot_take_a_registered_name(cell: Cell, tmp_path: Path) -> None:
    resolved(cell(CODING)["MyCoding"], tmp_path)
    with pytest.raises(ValueError, match="already registered by the class MyCoding of this ses"):
        cell(CODING.replace("class MyCoding", "class Another"))
    with pytest.raises(ValueError, match=r"already registered by .*rate"):
        cell(CODING.replace("of_the_session", "rate"))


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "used", "message"),
    [
        ("weights = torch.ones(3)", "weights", "it refers to 'weights', an object of type Tensor;"),
        ("scale = lambda x: 2 * x", "scale", "it refers to 'scale', a lambda; expected a function"),
        ("pair = (1, torch.ones(1))", "pair", "it refers to 'pair', an object of type tuple;"),
        (
            "def make():\n    def inner(x):\n        return x\n    return inner\ninner = make()",
            "inner",
            "it refers to 'inner', a function defined inside another function; expected a function",
        ),
        (
            "def helper():\n    return weights\nweights = nn.Linear(1, 1)",
            "helper()",
            "it refers to 'weights', an object of type Linear;",
        ),
    ],
)
def test_what_cannot_be_written_down_is_named(
    cell: Cell, tmp_path: Path, before: str, used: str, message: str
) -> None:
    cell(before)
    cls = cell(CODING.replace("self.gain * ", f"{used} * "))["MyCoding"]
    assert refusal(cls, tmp_path).startswith(f"MyCoding cannot be kept as a plug-in: {message}")


def test_a_class_of_a_function_is_refused(cell: Cell, tmp_path: Path) -> None:
    inside = "".join(f"    {line}\n" for line in CODING.replace("@cb", "# @cb").splitlines())
    cls = cell(f"def make():\n{inside}    return MyCoding\nmade = make()")["made"]
    assert refusal(cls, tmp_path).endswith("expected a class that no function defines")


def test_a_class_without_source_is_refused(cell: Cell, tmp_path: Path) -> None:
    session = cell("")
    session["In"].clear()
    exec(CODING, session)
    message = refusal(session["MyCoding"], tmp_path)
    assert message.endswith(
        "the source of 'MyCoding' is not available; "
        "expected a class of a notebook, a script or a module"
    )


def test_a_folder_that_cannot_be_made_or_named_is_refused(cell: Cell, tmp_path: Path) -> None:
    cls = cell(CODING)["MyCoding"]
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write the folder"):
        resolved(cls, tmp_path / "file" / "plugins")
    with pytest.raises(SpecError, match="expected a folder without any of"):
        resolved(cls, tmp_path / "a,b")


def test_a_class_of_a_changed_module_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "module_of_mine.py"
    text = IMPORTS + CODING.replace('@cb.register_encoder("of_the_session")\n', "")
    module.write_text(text)
    import module_of_mine  # type: ignore[import-not-found]

    monkeypatch.delitem(sys.modules, "module_of_mine")
    sys.modules["module_of_mine"] = module_of_mine
    assert resolved(module_of_mine.MyCoding, tmp_path).label == "MyCoding"
    module.write_text(text + "CHANGED = 1\n")
    with pytest.raises(SpecError, match="has changed since MyCoding was imported: restart Python"):
        resolved(module_of_mine.MyCoding, tmp_path)


def test_a_class_of_a_file_is_named_by_its_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(IMPORTS + CODING.replace('@cb.register_encoder("of_the_session")\n', ""))
    cls = module_of(path).MyCoding
    assert grid_texts(ENCODERS, cls, tmp_path) == [f"{path}:MyCoding"]
    assert grid_texts(ENCODERS, "direct,rate[gain=1|2]", tmp_path) == ["direct", "rate[gain=1|2]"]


# --- whole runs -----------------------------------------------------------------------------------

SCRIPT = f"""{IMPORTS}
import sys

GAIN = 1.0
{CODING.replace("self.gain * ", "GAIN * self.gain * ")}
def run(workers):
    runs = cb.run(
        encoders=[MyCoding, "of_the_session[gain=2]"], backbones="csnn[width=4]", T=1, epochs=1,
        train_samples=40, test_samples=20, results=sys.argv[1], workers=workers,
    )
    assert (len(runs), runs.failed) == (2, 0)
    print(*sorted(runs.keys))

run(2)
"""


def run_script(script: str, folder: Path) -> tuple[list[list[str]], str]:
    """Return the keys of the cells of each run of a script, and what it showed."""
    path = folder.parent / "script.py"
    path.write_text(script)
    done = subprocess.run([sys.executable, path, folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()], done.stderr


@pytest.mark.thorough
def test_a_script_runs_its_classes_in_several_processes_and_continues(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    (keys,), shown = run_script(SCRIPT, folder)  # it has no guard against being run again
    assert shown.count(" done ") == 2
    (again, changed), shown = run_script(f"{SCRIPT}GAIN = 1.5\nrun(1)\n", folder)
    assert again == keys and shown.startswith("2 cells finished before")
    assert not {*changed} & {*keys} and shown.count(" done ") == 2
    assert len(cb.load(folder)) == 4
    names = set(Store(folder).read("cells")["encoder"])
    assert names == {"of_the_session", "of_the_session[gain=2.0]"}
    assert len([*(folder / "plugins").glob("*.py")]) == 2
    assert len(folders(folder)) == 2  # with all that each needs, under the hash of its code
