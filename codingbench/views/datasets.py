"""``codingbench data``: every data set, and the place where it was found."""

from pathlib import Path
from typing import Final

from codingbench.datasets import DatasetInfo, dataset_names, find, get_info, places
from codingbench.datasets.files import own_names
from codingbench.errors import DatasetError, SpecError
from codingbench.views.fitting import Fitted
from codingbench.views.table import Column, rich_table

_COLUMNS: Final = [
    Column("data set, fingerprint", lambda row: row[0], is_number=False, is_prose=True),
    Column("images", lambda row: row[1], is_number=False, is_prose=True),
    Column("what it is, where it was found", lambda row: row[2], is_number=False, is_prose=True),
]


def render(data_dir: Path | None) -> Fitted:
    """Render one row per data set, including the user's own in ``data_dir``.

    ``data_dir`` is searched before the cache folder.
    """
    names = [*dataset_names(), *own_names(data_dir)]
    return rich_table((_row(name, data_dir) for name in names), _COLUMNS, has_lines=True)


def _row(name: str, data_dir: Path | None) -> tuple[str, str, str]:
    try:
        info = get_info(name, data_dir)
    except (SpecError, DatasetError) as error:  # the published code or the folder is broken
        return f"{name}\n-", "-", str(error)
    fingerprint, whereabouts = _whereabouts(info, data_dir)
    return (
        f"{info.name}\n{fingerprint}",
        f"{info.num_classes} classes, {info.channels}x{info.height}x{info.width}"
        f"\n{info.train_size} train + {info.test_size} test",
        f"{info.title}: {info.about} (licence: {info.licence})\n{whereabouts}",
    )


def _whereabouts(info: DatasetInfo, data_dir: Path | None) -> tuple[str, str]:
    """Return the fingerprint, and the place of the files or what is wrong with them."""
    try:
        source = find(info.name, data_dir)
        if source:
            remark = source.remark()
            place = f"{source.form} in {source.folder}"
            return source.fingerprint(), f"{place}; {remark}" if remark else place
        return "-", f"not found in {', '.join(map(str, places(info.name, data_dir)))}"
    except DatasetError as error:
        return "-", str(error)
