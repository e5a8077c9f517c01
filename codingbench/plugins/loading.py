"""Find the code of a finished cell's plug-ins, and import kept sources that the user trusts.

The label of a cell names its plug-in. The class may ship with codingbench, be published by an
installed package, be registered in this process, be given by ``--plugin``, or be kept with the
results. Kept sources are imported only if this user has run them before, or says ``--trust-code``.
"""

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from codingbench.errors import SpecError, StoreError
from codingbench.plugins import kept, trust
from codingbench.plugins.specs import format_spec, parse_spec
from codingbench.registry import Registry, loading_copies


@dataclass(frozen=True)
class OwnCode:
    """The user's decisions about plug-ins that do not ship with codingbench.

    Args:
        plugins: plug-ins to be used for the cells of the same name, as ``file.py:Class``.
        is_trusted: sources that are kept with the results may be run.
    """

    plugins: tuple[str, ...] = ()
    is_trusted: bool = False


NOTHING_SAID: Final = OwnCode()
"""The user gives no plug-in and trusts none that was not run on this machine."""


@contextmanager
def plugin_text(
    registry: Registry, row: Mapping[str, Any], results: Path, own: OwnCode
) -> Iterator[str]:
    """Give the text by which the registry finds the plug-in of a cell, inside the context.

    Args:
        registry: of encoders or of backbones.
        row: the cell's row of table ``cells``.
        results: folder of the store.
        own: what the user says about plug-ins.

    Raises:
        SpecError: the plug-in is not known, and its source is not kept, damaged or not trusted.
    """
    label, code = str(row[registry.kind]), row[f"{registry.kind}_code"]
    spec = parse_spec(label)
    given = [text for text in own.plugins if registry.name_at(text) == spec.name]
    if given:
        yield format_spec(given[-1], dict(spec.params))
    elif spec.name in registry.shipped() or _is_at_hand(registry, label, code):
        yield label
    else:
        source = _trusted(registry, row, results, own)
        root = trust.copy_of(source)
        place = str(root / source.place) if source.place in source.files else source.place
        with _importable(root, source):
            yield format_spec(f"{place}:{source.class_name}", dict(spec.params))


def _is_at_hand(registry: Registry, label: str, code: object) -> bool:
    """Return whether the registry knows the plug-in of that label with the same code."""
    try:
        return registry.resolve(label).code == code
    except SpecError:
        return False


def _trusted(
    registry: Registry, row: Mapping[str, Any], results: Path, own: OwnCode
) -> kept.Source:
    """Return the kept source of a cell's plug-in, of which this user has a copy to import."""
    what = f"{row['key']}: the {registry.kind} {parse_spec(str(row[registry.kind])).name!r}"
    folder = kept.folder_of(results, row[f"{registry.kind}_code"])
    if folder is None:
        raise SpecError(
            f"{what} is not part of codingbench, and its source was not kept with the results: "
            "give its file with --plugin ./FILE.py:Class"
        )
    try:
        source = kept.read(folder)
        if own.is_trusted:
            trust.trust(source)
    except StoreError as error:
        raise SpecError(f"{what} cannot be loaded: {error}") from error
    except OSError as error:
        raise SpecError(
            f"{what} cannot be copied to {str(trust.data_folder())!r}: {error.strerror}"
        ) from error
    if not trust.is_trusted(source):
        place = folder / source.file if len(source.files) == 1 else folder
        raise SpecError(
            f"{what} is code that came with the results and was never run here: read "
            f"{str(place)!r}, then say --trust-code, "
            "or give your own file with --plugin ./FILE.py:Class"
        )
    return source


@contextmanager
def _importable(root: Path, source: kept.Source) -> Iterator[None]:
    """Let the modules of a source be imported from its folder, and no others of their names."""
    tops = {PurePosixPath(name).parts[0].removesuffix(".py") for name in source.files}
    tops -= sys.stdlib_module_names
    others = [name for name in sys.modules if name.partition(".")[0] in tops]
    hidden = {name: sys.modules.pop(name) for name in others}
    sys.path.insert(0, str(root))
    importlib.invalidate_caches()
    try:
        with loading_copies():
            yield
    finally:
        sys.path.remove(str(root))
        sys.modules.update(hidden)
        if str(root) not in sys.path:
            sys.path.append(str(root))  # for imports inside functions
