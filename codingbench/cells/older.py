"""Finished cells of a run's coordinates that other code of the same plug-ins has made."""

from collections.abc import Iterator, Sequence

from codingbench.cells.grid import Job
from codingbench.plugins.code import ships
from codingbench.plugins.specs import plain_name
from codingbench.registry import Plugin
from codingbench.runtime.formatting import counted
from codingbench.store.folder import Store


def cells_of_other_code(jobs: Sequence[Job], store: Store) -> Iterator[str]:
    """Yield a line for each plug-in of the user whose cells in the store have other code.

    These are cells from before a change of its files, or of versions before 0.8.0, which hashed the
    bytes of the files and not their syntax.
    """
    cells = store.read("cells")
    same = cells[cells["config_hash"].isin([job.config_hash() for job in jobs])]
    for kind, plugins in (
        ("encoder", [job.encoder for job in jobs]),
        ("backbone", [job.backbone for job in jobs]),
        ("neuron", [job.neuron for job in jobs if job.neuron]),
    ):
        for plugin in _own(plugins):
            of_name = same[same[kind] == plugin.label]
            others = of_name[of_name[f"{kind}_code"] != plugin.code]
            if len(others):
                hashes = ", ".join(sorted(set(others[f"{kind}_code"].astype(str))))
                yield (
                    f"{plain_name(plugin.label)}: other code (hash {hashes}) made "
                    f"{counted(len(others), 'cell')} of this grid; now it is {plugin.code}, "
                    "and the leaderboard leaves the older cells out"
                )


def _own(plugins: Sequence[Plugin]) -> list[Plugin]:
    return list({found.label: found for found in plugins if not ships(found.cls)}.values())
