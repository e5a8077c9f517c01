"""What ``codingbench data`` shows: every data set there is, and where it was found."""

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from codingbench.datasets import DatasetInfo, dataset_names, find, get_info, places
from codingbench.datasets.files import photo_names
from codingbench.errors import DatasetError, SpecError


def render(data_dir: Path | None) -> Table:
    """One row per data set; ``data_dir`` is looked at before the cache folder, and folders of
    photographs in it have rows of their own."""
    headings = ("data set, fingerprint", "images", "what it is, where it was found")
    table = Table(*headings, box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.show_lines = True
    table.columns[0].no_wrap = table.columns[1].no_wrap = True
    table.columns[2].overflow = "fold"
    for name in [*dataset_names(), *photo_names(data_dir)]:
        table.add_row(*_row(name, data_dir))
    return table


def _row(name: str, data_dir: Path | None) -> tuple[str, str, str]:
    try:
        info = get_info(name, data_dir)
    except (SpecError, DatasetError) as error:  # of the code that publishes it, or its folder
        return f"{name}\n-", "-", escape(str(error))
    fingerprint, whereabouts = _whereabouts(info, data_dir)
    return (
        f"{info.name}\n{fingerprint}",
        f"{info.num_classes} classes, {info.channels}x{info.height}x{info.width}"
        f"\n{info.train_size} train + {info.test_size} test",
        f"{info.title}: {info.about} (licence: {info.licence})\n{escape(whereabouts)}",
    )


def _whereabouts(info: DatasetInfo, data_dir: Path | None) -> tuple[str, str]:
    """The fingerprint, and the place of the files or what is wrong with them."""
    try:
        source = find(info.name, data_dir)
        if source:
            return source.fingerprint(), f"{source.form} in {source.folder}"
        return "-", f"not found in {', '.join(map(str, places(info.name, data_dir)))}"
    except DatasetError as error:
        return "-", str(error)
