"""``codingbench.inspect`` and ``codingbench.check``: codings before any training."""

import inspect as inspection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from codingbench.api.arguments import checked
from codingbench.api.entries import Entry, grid_texts, temporary_folder
from codingbench.energy import DEFAULT_TECHNOLOGY, Pricing
from codingbench.errors import SpecError
from codingbench.registry import BACKBONES, ENCODERS
from codingbench.runtime.openmp import prepare_torch
from codingbench.runtime.paths import user_path

if TYPE_CHECKING:
    from codingbench.conformance.examination import CheckReport


@checked
def inspect(
    *encoders: Entry,
    dataset: str = "fashion_mini",
    T: int = 4,
    samples: int | None = None,
    backbone: Entry = "csnn",
    seed: int = 0,
    data_dir: str | Path | None = None,
    energy: str = "exact",
    technology: str = DEFAULT_TECHNOLOGY,
    plot: str | Path | None = None,
) -> pd.DataFrame:
    """Look at codings before any training: what they emit, what it says of the image, its cost.

    Args:
        encoders: one coding or more: names, ``file.py:Class`` or classes.
        dataset: name of the data set.
        T: number of time steps.
        samples: number of training images, one half to fit on and one to score; at least 4. By
            default 400, or all if there are fewer.
        backbone: the backbone whose stem and neurons the codings get.
        seed: seed of the initial weights and of random codes.
        data_dir: folder of the data sets; the platform's cache folder is searched, too.
        energy: a convention of :mod:`codingbench.energy` or ``file.py:variable``.
        technology: costs of the operations, by name or as ``file.py:variable``.
        plot: draw a picture into this file, ``.png``, ``.pdf`` or ``.svg``.

    Returns:
        One row per coding, with the values of ``codingbench inspect --format json``. A value inside
        another one has both names: ``activity.rate``. The data set, T and the number of images are
        in ``attrs["conditions"]``.

    Raises:
        SpecError: a name or number is not valid, or a coding refuses it or fails.
        DatasetError: the data set is missing and cannot be downloaded.

    Example::

        import codingbench as cb
        cb.inspect("latency", "latency[scale=log]", T=8)["remarks"]
    """
    prepare_torch()
    from codingbench.inspection.session import inspect_codings

    if not encoders:
        raise SpecError("expected at least one coding")
    with temporary_folder() as folder:
        found = inspect_codings(
            [text for entry in encoders for text in grid_texts(ENCODERS, entry, folder)],
            dataset,
            num_steps=T,
            samples=samples,
            backbone=grid_texts(BACKBONES, [backbone], folder)[0],
            seed=seed,
            data_dir=None if data_dir is None else user_path(data_dir),
            pricing=Pricing.of(energy, technology),
            plot=None if plot is None else user_path(plot),
        ).described()
    frame = pd.DataFrame([_flat(coding) for coding in found["codings"]])
    frame.attrs["conditions"] = found["conditions"]
    return frame


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """Return ``{"a.b": 1}`` for ``{"a": {"b": 1}}``, one level deep."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        inside = value if isinstance(value, dict) else {}
        flat |= {f"{name}.{key}": entry for key, entry in inside.items()} or {name: value}
    return flat


@dataclass(frozen=True, repr=False)
class PluginCheck:
    """The result of checking a coding or backbone. It is true if no check failed."""

    report: "CheckReport"

    def __bool__(self) -> bool:
        return not self.report.of("failed")

    @property
    def frame(self) -> pd.DataFrame:
        """One row per check: ``check``, ``outcome``, ``expected``, ``found`` and ``matters``."""
        return pd.DataFrame(
            {
                "check": finding.check.name,
                "outcome": finding.outcome,
                "expected": finding.check.expected,
                "found": finding.found,
                "matters": finding.check.matters,
            }
            for finding in self.report.findings
        )

    def __repr__(self) -> str:
        from codingbench.views.conformance import collapsed, summary

        lines = [summary(self.report)]
        for finding in collapsed(self.report):
            lines.append(f"{finding.outcome}  {finding.check.name}: {finding.found}")
            if finding.outcome in ("failed", "undecided"):
                lines.append(f"        expected: {finding.check.expected}")
                lines.append(f"        matters:  {finding.check.matters}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from codingbench.views.html import preformatted

        return preformatted(repr(self))


@checked
def check(plugin: Entry) -> PluginCheck:
    """Check a coding or backbone against its contract.

    A check that fails raises nothing: the result is then false, and says what was expected and
    what was found.

    Args:
        plugin: ``name[param=value]``, ``file.py:Class`` or a class, of a notebook for example.

    Raises:
        SpecError: it is neither a coding nor a backbone, cannot be imported, or refuses its
            parameters.

    Example::

        import codingbench as cb
        assert cb.check("direct")
    """
    prepare_torch()
    from codingbench.conformance.examination import check_plugin

    with temporary_folder() as folder:
        return PluginCheck(check_plugin(_text_of(plugin, folder)))


def _text_of(plugin: Entry, folder: Path) -> str:
    """Return a plug-in of either kind as text."""
    from codingbench.backbone import Backbone
    from codingbench.encoder import Encoder

    if inspection.isclass(plugin):
        is_backbone = issubclass(plugin, Backbone)
        if not issubclass(plugin, Encoder | Backbone):
            raise SpecError(f"expected a coding or a backbone, got the class {plugin.__name__}")
    else:
        name = str(plugin).partition("[")[0].strip()
        is_backbone = BACKBONES.registered(name) is not None
    (text,) = grid_texts(BACKBONES if is_backbone else ENCODERS, [plugin], folder)
    return text
