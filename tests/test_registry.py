"""Plug-ins are found by name, file or module, and get a value for each parameter."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from codingbench.encoder import FeatureEncoder
from codingbench.errors import SpecError
from codingbench.plugins.syntax import syntax_digest
from codingbench.registry import BACKBONES, ENCODERS, Registry

MINE = """
from typing import Literal
from codingbench.encoder import FeatureEncoder, Setting

class Mine(FeatureEncoder):
    emits = "real"
    def __init__(
        self, setting: Setting, *, width: int = 2, scale: float = 1, name: str = "a",
        level: Literal[1, 2] = 1,
    ) -> None:
        super().__init__(setting)
    def encode(self, features):
        return features.expand(self.num_steps, *features.shape)
"""


def plugin_file(tmp_path: Path, text: str, name: str = "mine.py") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def refusal(text: str) -> str:
    with pytest.raises(SpecError) as caught:
        ENCODERS.resolve(text)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("direct", "direct"),
        ("direct[spiking=true]", "direct"),
        ("direct[spiking=False]", "direct[spiking=false]"),
        ("rate[gain=1]", "rate"),
        ("rate[gain=5e-1]", "rate[gain=0.5]"),
        ("latency[threshold=0.010]", "latency"),
        ("latency[threshold=0.2,scale=log]", "latency[scale=log,threshold=0.2]"),
    ],
)
def test_the_label_is_canonical(text: str, label: str) -> None:
    assert ENCODERS.resolve(text).label == label


def test_a_parameter_set_to_its_default_is_the_same_plugin() -> None:
    assert ENCODERS.resolve("latency[scale=linear]") == ENCODERS.resolve("latency")


def test_all_parameters_are_settled() -> None:
    plugin = ENCODERS.resolve("delta[threshold=0.1]")
    assert plugin.params == (("background", 0.0), ("threshold", 0.1))
    assert plugin.cls.__name__ == "DeltaEncoder"


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("direkt", "unknown encoder 'direkt'; did you mean 'direct'?"),
        ("latency[treshold=0.1]", "unknown parameter of encoder latency 'treshold'; did you mean "
         "'threshold'?"),
        ("latency[scale=lin]", "unknown value for latency[scale] 'lin'; did you mean 'linear'?"),
    ],
)  # fmt: skip
def test_what_is_unknown_is_named_with_the_nearest(text: str, nearest: str) -> None:
    assert refusal(text).startswith(nearest)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rate[gain=abc]", "rate[gain] expects a finite number, got 'abc'"),
        ("rate[gain=nan]", "rate[gain] expects a finite number, got 'nan'"),
        ("rate[gain=-inf]", "rate[gain] expects a finite number, got '-inf'"),
        ("gac[reduction=2.5]", "gac[reduction] expects a whole number, got '2.5'"),
        ("direct[spiking=1]", "direct[spiking] expects true or false, got '1'"),
        ("rate[gain=1|2]", "rate[gain] expects one value here, got '1|2'"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(text: str, expected: str) -> None:
    assert refusal(text) == expected


def test_a_name_without_shipped_neighbours_lists_what_there_is() -> None:
    assert refusal("zzz").endswith("(known: " + ", ".join(ENCODERS.names()) + ")")
    assert {"direct", "gac", "latency", "rate"} <= set(ENCODERS.names())
    assert {"csnn", "ms_resnet18"} <= set(BACKBONES.names())


def test_listing_names_imports_no_plugin_and_no_torch() -> None:
    code = (
        "import sys; from codingbench.registry import ENCODERS; names = ENCODERS.names(); "
        "print(names, 'codingbench.encoders.gac' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{ENCODERS.names()} False False"


def test_a_name_taken_by_another_class_is_an_error() -> None:
    registry = Registry("encoder", "codingbench.encoders", "codingbench.encoder:Encoder")

    class Other(FeatureEncoder): ...

    class Another(FeatureEncoder): ...

    registry.register("other")(Other)
    assert registry.register("other")(Other) is Other
    with pytest.raises(ValueError, match="encoder 'other' is already registered by"):
        registry.register("other")(Another)
    assert registry.get("other") is Other


@pytest.mark.parametrize("kind", ["encoder", "backbone"])
def test_registering_without_a_name_is_refused(kind: str, tmp_path: Path) -> None:
    text = MINE.replace("class", f"@register_{kind}\nclass")
    path = plugin_file(
        tmp_path, f"from codingbench.registry import register_{kind}\n{text}", f"{kind}.py"
    )
    expected = f'TypeError: write @register_{kind}("name"): expected a name, got Mine'
    assert refusal(f"{path}:Mine") == f"{path} cannot be imported: {expected}"


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("class Retina: ...\nclass _Helper: ...", "; did you mean ./retina.py:Retina?"),
        (
            "class One: ...\nclass Two: ...",
            "; did you mean ./retina.py:One or ./retina.py:Two?",
        ),
        (
            "class Layer: ...\n@register_encoder('x')\nclass Retina: ...",
            "; did you mean ./retina.py:Retina?",
        ),
        ("class :", ""),
        ("level = 1", ""),
    ],
)
def test_a_file_without_its_class_hints_at_the_classes_in_it(
    code: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin_file(tmp_path, code, "retina.py")
    monkeypatch.chdir(tmp_path)
    assert refusal("retina.py") == (
        f"retina.py does not say which class: expected retina.py:Class{hint}"
    )
    assert refusal("retina").startswith("unknown encoder 'retina'" + hint)


def test_a_file_cannot_take_the_name_of_a_shipped_plugin(tmp_path: Path) -> None:
    decorated = MINE.replace("class", '@register_encoder("rate")\nclass')
    path = plugin_file(tmp_path, f"from codingbench.registry import register_encoder\n{decorated}")
    code = (
        "from codingbench.errors import SpecError; from codingbench.registry import ENCODERS\n"
        f"try: ENCODERS.resolve({f'{path}:Mine'!r})\n"
        "except SpecError as error: print(error)\n"
        "print(ENCODERS.resolve('rate').cls.__module__)"
    )  # in a new process, which has not yet imported the shipped plug-in
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    error, module = done.stdout.splitlines()
    assert error.endswith("encoder 'rate' is already registered by codingbench.encoders.rate")
    assert module == "codingbench.encoders.rate"


def test_a_class_in_a_file_is_a_plugin(tmp_path: Path) -> None:
    path = plugin_file(tmp_path, MINE)
    plugin = ENCODERS.resolve(f"{path}:Mine[width=5,level=2]")
    assert plugin.label == "Mine[level=2,width=5]"
    assert plugin.params == (("level", 2), ("name", "a"), ("scale", 1), ("width", 5))
    assert issubclass(plugin.cls, FeatureEncoder)
    assert ENCODERS.resolve(f"{path}:Mine").cls is plugin.cls


def test_a_default_written_out_gives_the_same_parameters_even_of_another_type(
    tmp_path: Path,
) -> None:
    path = plugin_file(tmp_path, MINE)
    default, written = (ENCODERS.resolve(f"{path}:Mine{p}") for p in ("", "[scale=1.0]"))
    assert repr(default.params) == repr(written.params)  # 1 and 1.0 are equal, their JSON is not


def test_a_registered_class_in_a_file_carries_its_registered_name(tmp_path: Path) -> None:
    text = "from codingbench.registry import register_encoder\n" + MINE.replace(
        "class", '@register_encoder("of_my_own")\nclass'
    )
    path = plugin_file(tmp_path, text)
    assert ENCODERS.resolve(f"{path}:Mine").label == "of_my_own"
    assert "of_my_own" in ENCODERS.names()


def test_postponed_annotations_are_understood(tmp_path: Path) -> None:
    path = plugin_file(tmp_path, "from __future__ import annotations\n" + MINE)
    assert dict(ENCODERS.resolve(f"{path}:Mine[width=7]").params)["width"] == 7
    assert "expects a whole number" in refusal(f"{path}:Mine[width=x]")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("class Mine(:\n", "SyntaxError"),
        ("raise RuntimeError('two\\nlines')\n", "RuntimeError: two lines"),
        ("import nowhere_to_be_found\n", "ModuleNotFoundError"),
    ],
)
def test_a_file_that_cannot_be_imported_is_one_line(tmp_path: Path, text: str, reason: str) -> None:
    path = plugin_file(tmp_path, text)
    for _ in range(2):  # a failed import leaves no half-made module behind
        message = refusal(f"{path}:Mine")
        assert message.startswith(f"{path} cannot be imported: ")
        assert reason in message


def test_an_unknown_class_names_the_nearest_of_the_file(tmp_path: Path) -> None:
    message = refusal(f"{plugin_file(tmp_path, MINE)}:Nine")
    assert message.endswith("'Nine'; did you mean 'Mine'? (known: Mine)")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create the importable package ``my_package`` and return its folder."""
    folder = tmp_path / "my_package"
    folder.mkdir()
    from_mine = "from my_package.codes import Mine\n"
    modules = {
        "__init__": f"{from_mine}from codingbench.encoder import Encoder\n",
        "codes": MINE,
        "needy": "import nowhere_to_be_found\n",
        "leaving": "import sys\nsys.exit(3)\n",
        "lazy": "def __getattr__(name):\n    raise RuntimeError(f'no {name} today')\n",
    }
    for name, text in modules.items():
        plugin_file(folder, text, f"{name}.py")
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_package"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(Path.cwd()))])
    return folder


def test_a_class_in_an_importable_module_is_a_plugin(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(package.parent)
    plugin = ENCODERS.resolve("my_package.codes:Mine[width=5]")
    assert plugin.label == "Mine[width=5]"
    assert plugin.code == syntax_digest(MINE.encode()).hex()[:12]
    # the hash is that of the defining file, whichever module the class is imported from
    assert ENCODERS.resolve("my_package:Mine[width=5]") == plugin
    assert ENCODERS.resolve("codingbench.encoders.rate:RateEncoder[gain=2]").label == (
        "rate[gain=2.0]"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("my_package:Nine", "unknown class in my_package: 'Nine'; did you mean 'Mine'? (known: Mi"),
        ("my_package.codes:Encoder", "unknown class in my_package.codes: 'Encoder' (known: Mine)"),
        ("my_package.needy:X", "my_package.needy cannot be imported: ModuleNotFoundError: No modu"),
        ("my_package.leaving:X", "my_package.leaving cannot be imported: SystemExit: 3"),
        ("my_package.lazy:X", "my_package.lazy cannot be imported: RuntimeError: no X today"),
        ("my_package.gone:X", "no module 'my_package.gone' on Python's search path, which does"),
        ("my_package.codes.deep:X", "no module 'my_package.codes.deep' on Python's search path"),
        ("my_package..codes:Mine", "cannot read my_package..codes:Mine: expected a name, file.py"),
        (":Mine", "cannot read :Mine: expected a name, file.py:Class or package.module:Class"),
        ("my_package:", "unknown class in my_package: ''"),
        ("json:JSONDecoder", "JSONDecoder is not a subclass of codingbench.encoder.Encoder"),
    ],
)
def test_what_is_wrong_with_a_module_is_one_line(
    package: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.syspath_prepend(package.parent)
    assert refusal(text).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "my_package.codes:Mine",
            "no module 'my_package.codes' on Python's search path, which does not include the "
            "current folder; did you mean ./my_package/codes.py:Mine?",
        ),
        (
            "./my_package/codes:Mine",
            "cannot read ./my_package/codes:Mine: expected a name, file.py:Class or "
            "package.module:Class; did you mean ./my_package/codes.py:Mine?",
        ),
        (
            "my_package/codes.py",
            "my_package/codes.py does not say which class: expected my_package/codes.py:Class; "
            "did you mean ./my_package/codes.py:Mine?",
        ),
        ("my_package/codes", "unknown encoder 'my_package/codes'; did you mean ./my_package/"),
    ],
)
def test_a_module_of_the_current_folder_is_put_right_as_a_file(
    package: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.chdir(package.parent)
    assert refusal(text).startswith(message)
    assert ENCODERS.resolve("./my_package/codes.py:Mine").label == "Mine"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "no file" in refusal(f"{tmp_path / 'absent.py'}:Mine")


def test_a_class_that_is_not_an_encoder_is_refused(tmp_path: Path) -> None:
    path = plugin_file(tmp_path, "class Plain: ...\n")
    assert refusal(f"{path}:Plain").startswith("Plain is not a subclass of codingbench.encoder.")


def test_an_encoder_is_not_accepted_as_a_backbone(tmp_path: Path) -> None:
    path = plugin_file(tmp_path, MINE)
    with pytest.raises(SpecError, match=r"Mine is not a subclass of .*\.Backbone"):
        BACKBONES.resolve(f"{path}:Mine")


@pytest.mark.parametrize("parameter", ["width: int", "width: object = object()"])
def test_a_parameter_without_a_default_that_can_be_written_is_refused(
    tmp_path: Path, parameter: str
) -> None:
    path = plugin_file(tmp_path, MINE.replace("width: int = 2", parameter))
    assert "parameter 'width' of Mine needs a default" in refusal(f"{path}:Mine")


def test_changed_code_has_another_hash_and_runs(tmp_path: Path) -> None:
    path = plugin_file(tmp_path, MINE)
    first, again = (ENCODERS.resolve(f"{path}:Mine") for _ in range(2))
    path.write_text(MINE.replace("width: int = 2", "width: int = 3"))
    changed = ENCODERS.resolve(f"{path}:Mine")
    assert first.code == again.code != changed.code
    assert dict(changed.params)["width"] == 3


def test_the_hash_covers_the_plugin_that_a_plugin_derives_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    derived = "from {0} import Mine\nclass Other(Mine):\n    pass\n"
    codes = []
    for module, text in (("base_one", MINE), ("base_two", MINE + "CHANGED = 1\n")):
        plugin_file(tmp_path, text, f"{module}.py")
        monkeypatch.syspath_prepend(tmp_path)
        path = plugin_file(tmp_path, derived.format(module), "derived.py")
        codes.append(ENCODERS.resolve(f"{path}:Other").code)
        files = text.encode(), path.read_bytes()
        digests = [syntax_digest(content) for content in reversed(files)]
        assert codes[-1] == hashlib.sha256(b"".join(digests)).hexdigest()[:12]
    assert codes[0] != codes[1]


def test_a_shipped_file_that_registers_nothing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "house_of_codes"
    package.mkdir()
    plugin_file(package, "", "__init__.py")
    plugin_file(package, "", "silent.py")
    plugin_file(package, "1 / 0\n", "broken.py")
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry("encoder", "house_of_codes", "codingbench.encoder:Encoder")
    assert registry.names() == ["broken", "silent"]
    with pytest.raises(
        SpecError, match=r"house_of_codes\.silent does not register the encoder 'silent'"
    ):
        registry.resolve("silent")
    with pytest.raises(SpecError, match=r"house_of_codes\.broken cannot be .* ZeroDivisionError"):
        registry.resolve("broken")
