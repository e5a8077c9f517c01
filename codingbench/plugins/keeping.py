"""Keep the sources of a run's own plug-ins with its results, and on this machine."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from codingbench.errors import CodingbenchError, one_line
from codingbench.plugins import kept, trust
from codingbench.plugins.code import ships, source_of
from codingbench.plugins.specs import plain_name
from codingbench.registry import Plugin


def own(plugins: Iterable[Plugin]) -> list[Plugin]:
    """Return the plug-ins that do not ship with codingbench, each code once."""
    return list({found.code: found for found in plugins if not ships(found.cls)}.values())


def keep_sources(plugins: Iterable[Plugin], results: Path) -> Iterator[str]:
    """Write the source of every plug-in that does not ship into ``results``.

    It is copied into the user's data folder, too, so that cells trained on this machine are loaded
    without a question. Yields a line for each plug-in whose source cannot be kept.
    """
    for plugin in own(plugins):
        try:
            source = kept.gathered(plugin.cls)
            kept.write(source, results / kept.FOLDER / plugin.code)
            kept.read(results / kept.FOLDER / plugin.code)
        except (OSError, CodingbenchError) as error:
            yield f"the source of {plugin.label} is not kept with the results: {one_line(error)}"
            continue
        with suppress(OSError):  # without the copy, --trust-code is asked for
            trust.trust(source)
            if not _is_kept_copy(plugin, source):
                trust.remember(plugin.cls, plain_name(plugin.label), plugin.code)


def _is_kept_copy(plugin: Plugin, source: kept.Source) -> bool:
    """Return whether the plug-in was run from a kept source, which nobody edits."""
    above = len(Path(source.file).parts) - 1
    return kept.is_code(Path(source_of(plugin.cls)).parents[above].name)
