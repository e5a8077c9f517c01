"""Write a new plug-in that works at once: a template with its names replaced.

The templates are working plug-ins themselves; they are linted, type-checked and tested.
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
"""Largest number of characters in a name, so that it fits into the leaderboard."""


@dataclass(frozen=True)
class Template:
    """A plug-in to start from; its ``name`` and ``class_name`` are replaced in the new file."""

    file: str
    registry: Registry
    name: str
    class_name: str

    def text(self) -> str:
        """Return the source code of the template."""
        return (_FOLDER / self.file).read_text(encoding="utf-8")


ENCODER_TEMPLATES: Final = {
    "pixel": Template("pixel_encoder.py", ENCODERS, "my_coding", "MyCoding"),
    "feature": Template("feature_encoder.py", ENCODERS, "my_coding", "MyCoding"),
}
BACKBONE_TEMPLATE: Final = Template("backbone.py", BACKBONES, "my_backbone", "MyBackbone")


@dataclass(frozen=True)
class Written:
    """A plug-in that was written: its file and its class."""

    template: Template
    path: Path
    class_name: str

    def __str__(self) -> str:
        """Return where the file is, and the commands to run next."""
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
    """Write an encoder to ``name.py`` in the folder.

    Args:
        name: name of the coding in snake case.
        kind: what it codes, ``pixel`` or ``feature``.
        folder: an existing folder.

    Raises:
        SpecError: the kind or the folder does not exist, the name is not valid, or it is taken.
    """
    if kind not in ENCODER_TEMPLATES:
        raise SpecError(unknown("kind of encoder", kind, ENCODER_TEMPLATES))
    return _write(ENCODER_TEMPLATES[kind], name, folder)


def new_backbone(name: str, folder: Path) -> Written:
    """Write a backbone to ``name.py`` in the folder.

    Raises:
        SpecError: the folder does not exist, the name is not valid, or it is taken.
    """
    return _write(BACKBONE_TEMPLATE, name, folder)


def _write(template: Template, name: str, folder: Path) -> Written:
    class_name = "".join(part.capitalize() for part in name.split("_"))
    _check_name(name, class_name)
    path = folder / f"{name}.py"
    if not folder.is_dir():
        what = "expected a folder, got the file" if folder.exists() else "there is no folder"
        raise SpecError(f"cannot write {name}.py: {what} {str(folder)!r}")
    if os.path.lexists(path):
        raise SpecError(f"{path} already exists and is not overwritten")
    _check_free(template, name, class_name)
    with path.open("x", encoding="utf-8") as file:
        file.write(_renamed(template, {template.name: name, template.class_name: class_name}))
    return Written(template, path, class_name)


def _renamed(template: Template, names: dict[str, str]) -> str:
    return re.sub(rf"\b({'|'.join(names)})\b", lambda found: names[found[0]], template.text())


def _check_name(name: str, class_name: str) -> None:
    if not _SNAKE.fullmatch(name):
        raise SpecError(f"a plug-in's name must be in snake case like my_coding, got {name!r}")
    if len(name) > LONGEST:
        raise SpecError(f"a plug-in's name has at most {LONGEST} characters, got {len(name)}")
    for word in (name, class_name):
        if keyword.iskeyword(word):
            raise SpecError(f"{name!r} cannot name a plug-in: {word} is a keyword of Python")


def _check_free(template: Template, name: str, class_name: str) -> None:
    """Check that the names of the plug-in, its module and its class are not used otherwise."""
    registry = template.registry
    if name in registry.names():
        raise SpecError(f"{registry.kind} {name!r} already exists: choose another name")
    if importlib.util.find_spec(name):
        raise SpecError(f"{name}.py would hide the module {name!r}: choose another name")
    used = {node.id for node in ast.walk(ast.parse(template.text())) if isinstance(node, ast.Name)}
    if class_name in used:
        raise SpecError(f"class {class_name} would hide what the file uses: choose another name")
