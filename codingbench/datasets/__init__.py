"""Image data sets: list, locate, download and load them.

Only loading imports torch; listing, locating and fingerprinting do not.
"""

from codingbench.datasets.catalogue import (
    DEFAULT_DATASET,
    SPLITS,
    PublishedDataset,
    catalogue,
    dataset_names,
    get_info,
)
from codingbench.datasets.description import DatasetInfo
from codingbench.datasets.files import Source, cache_folder, find, locate, places
from codingbench.datasets.loading import fetch, import_files, load, load_or_stream

__all__ = [
    "DEFAULT_DATASET",
    "SPLITS",
    "DatasetInfo",
    "PublishedDataset",
    "Source",
    "cache_folder",
    "catalogue",
    "dataset_names",
    "fetch",
    "find",
    "get_info",
    "import_files",
    "load",
    "load_or_stream",
    "locate",
    "places",
]
