"""The tables of undisturbed runs, made once for all tests here."""

import os

import pytest

from .grids import LONG, SHORT, Tables, undisturbed

if os.name != "posix":
    collect_ignore_glob = ["test_*.py"]  # signals, forks and mounts


@pytest.fixture(scope="session")
def short(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """The tables of the grid ``SHORT``."""
    return undisturbed(SHORT, tmp_path_factory.mktemp("short"))


@pytest.fixture(scope="session")
def long(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """The tables of the grid ``LONG``."""
    return undisturbed(LONG, tmp_path_factory.mktemp("long"))
