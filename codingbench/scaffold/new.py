"""A new plug-in as one file that works at once: a template with its names changed.

The templates are plug-ins themselves, linted, typed and tested as they stand.
"""

import ast
import importlib.util
import keyword
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from codingbench.errors import SpecError, unknown
from codingbench.registry import BACKBONES, ENCODERS, Registry

_FOLDER: Final = Path(__file__).parent / "templates"
_SNAKE: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
LONGEST: Final = 40
"""Letters of a name, which is a cell of the leaderboard."""


@dataclass(frozen=True)
class Template:
    """A plug-in in the package to start from; ``name`` and ``class_name`` are what is replaced."""

    file: str
    registry: Registry
    name: str
    class_name: str

    def text(self) -> str:
        """Its code."""
        return (_FOLDER / self.file).read_text(encoding="utf-8")


ENCODER_TEMPLATES: Final = {
    "pixel": Template("pixel_encoder.py", ENCODERS, "my_coding", "MyCoding"),
    "feature": Template("feature_encoder.py", ENCODERS, "my_coding", "MyCoding"),
}
BACKBONE_TEMPLATE: Final = Template("backbone.py", BACKBONES, "my_backbone", "MyBackbone")


@dataclass(frozen=True)
class Written:
    """A new file and the class in it."""

    template: Template
    path: Path
    class_name: str

    def __str__(self) -> str:
        """Where it is, and the commands that come next."""
        kind, path = self.template.registry.kind, self.path.as_posix()
        place = path if self.path.is_absolute() else f"./{path}"
        spec = shlex.quote(f"{place}:{self.class_name}")
        steps = "\n".join(f"  codingbench {step.format(spec)}" for step in _STEPS[kind])
        return f"{place} holds the {kind} {self.class_name}. It works as it is; next:\n{steps}\n"


_STEPS: Final = {
    "encoder": ("check {}", "inspect {}", "run --encoders {},direct"),
    "backbone": ("check {}", "run --backbones {},csnn"),
}


def new_encoder(name: str, kind: str, folder: Path) -> Written:
    """Write ``name.py`` into the folder: a coding of pixels or of features.

    Raises:
        SpecError: the kind or the folder does not exist, or the name cannot be one, or is taken.
    """
    if kind not in ENCODER_TEMPLATES:
        raise SpecError(unknown("kind of encoder", kind, ENCODER_TEMPLATES))
    return _write(ENCODER_TEMPLATES[kind], name, folder)


def new_backbone(name: str, folder: Path) -> Written:
    """Write ``name.py`` into the folder: a backbone.

    Raises:
        SpecError: the folder does not exist, or the name cannot be one, or is taken.
    """
    return _write(BACKBONE_TEMPLATE, name, folder)


def _write(template: Template, name: str, folder: Path) -> Written:
    class_name = "".join(part.capitalize() for part in name.split("_"))
    _check_name(name, class_name)
    path = folder / f"{name}.py"
    if not folder.is_dir():
        raise SpecError(f"no folder {str(folder)!r} to write {name}.py into")
    if os.path.lexists(path):
        raise SpecError(f"{path} exists already and is left as it is")
    _check_free(template, name, class_name)
    with path.open("x", encoding="utf-8") as file:
        file.write(_renamed(template, {template.name: name, template.class_name: class_name}))
    return Written(template, path, class_name)


def _renamed(template: Template, names: dict[str, str]) -> str:
    return re.sub(rf"\b({'|'.join(names)})\b", lambda found: names[found[0]], template.text())


def _check_name(name: str, class_name: str) -> None:
    if not _SNAKE.fullmatch(name):
        raise SpecError(f"{name!r} is no name for a plug-in: expected snake case like my_coding")
    if len(name) > LONGEST:
        raise SpecError(f"{name!r} is too long: expected at most {LONGEST} letters")
    for word in (name, class_name):
        if keyword.iskeyword(word):
            raise SpecError(f"{name!r} is no name for a plug-in: {word} is a word of Python's own")


def _check_free(template: Template, name: str, class_name: str) -> None:
    """Nothing else may go by the name of the plug-in, of its module or of its class."""
    registry = template.registry
    if name in registry.names():
        raise SpecError(f"{registry.kind} {name!r} exists already: choose another name")
    if importlib.util.find_spec(name):
        raise SpecError(f"{name}.py would hide the module {name!r}: choose another name")
    used = {node.id for node in ast.walk(ast.parse(template.text())) if isinstance(node, ast.Name)}
    if class_name in used:
        raise SpecError(f"class {class_name} would hide what the file uses: choose another name")
