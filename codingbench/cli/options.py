"""Options that several commands share, in the panels of their help."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from codingbench.energy import TECHNOLOGIES
from codingbench.runtime.paths import user_path

if TYPE_CHECKING:
    from codingbench.plugins.loading import OwnCode

WHAT: Final = "What to run"
TRAINING: Final = "Training"
WHERE: Final = "Where and how"
DATA: Final = "Data"
OUTPUT: Final = "Output"

_DATA_FOLDER: Final = (
    "Folder of data sets, searched before the platform's cache folder."
    " [default: CODINGBENCH_DATA_DIR]"
)


def option(*flags: str, panel: str, help: str, default: str | None = None, **settings: Any) -> Any:
    """Declare an option of a panel; ``default`` is what its help shows as the default."""
    text = help if default is None else f"{help} [default: {default}]"
    return typer.Option(*flags, help=text, rich_help_panel=panel, show_default=False, **settings)


def whole(flag: str, *, panel: str, least: int = 1, **settings: Any) -> Any:
    """Declare an option that takes a whole number of at least ``least``, like ``--epochs``."""
    parse = _parser("count_setting", flag, least)
    return option(flag, panel=panel, metavar="INT", parser=parse, **settings)


def number(flag: str, *, panel: str, least: float = 0, **settings: Any) -> Any:
    """Declare an option that takes a number of at least ``least``, like ``--timeout``."""
    parse = _parser("number_setting", flag, least)
    return option(flag, panel=panel, metavar="FLOAT", parser=parse, **settings)


def _parser(function: str, flag: str, *bounds: float) -> Callable[[str], Any]:
    """Return a parser that refuses a wrong value in one line, as in a configuration file."""
    name = flag.removeprefix("--").replace("-", "_")

    def parse(text: str) -> Any:
        from codingbench.cells import settings

        return getattr(settings, function)({name: text}, name, *bounds)

    return parse


Backbones = Annotated[
    str | None,
    option(panel=WHAT, metavar="NAMES", default="csnn", help="Networks behind the coding."),
]
BatchSize = Annotated[
    int | None,
    whole(
        "--batch-size", panel=TRAINING, default="the recipe's", help="Images of an optimizer step."
    ),
]
DataDir = Annotated[
    str | None,
    option(
        panel=DATA,
        metavar="PATH",
        help=_DATA_FOLDER,
    ),
]
DataFolder = Annotated[
    Path | None, typer.Option(help=_DATA_FOLDER, parser=user_path, metavar="PATH")
]
Dataset = Annotated[
    str | None,
    option(
        panel=WHAT,
        metavar="NAMES",
        default="fashion_mini",
        help="Data sets, as codingbench data lists them, or files of your own.",
    ),
]
Device = Annotated[
    str | None,
    option(
        panel=WHERE,
        metavar="NAME",
        default="auto",
        help="auto, cpu, cuda, cuda:1 or mps; auto takes a GPU if there is one.",
    ),
]
Devices = Annotated[
    int | None,
    whole(
        "--devices",
        panel=WHERE,
        default="1",
        help="Number of devices that train each cell, starting at --device.",
    ),
]
DryRun = Annotated[
    bool,
    option(
        "--dry-run",
        panel=WHERE,
        help="Print the cells that are left and an estimate of their time; run nothing.",
    ),
]
Epochs = Annotated[
    int | None,
    whole(
        "--epochs",
        panel=TRAINING,
        default="the recipe's",
        help="Passes over the training images.",
    ),
]
Force = Annotated[bool, option("--force", panel=WHERE, help="Run finished cells again.")]
NumSteps = Annotated[
    str | None, option("--T", panel=WHAT, metavar="INTS", default="4", help="Time steps.")
]
Plugin = Annotated[
    list[str] | None,
    typer.Option(
        help="Your own coding or backbone for the cells of its name: file.py:Class.",
        metavar="PLACE",
    ),
]
Precision = Annotated[
    str | None,
    option(
        panel=TRAINING,
        metavar="NAME",
        default="fp32",
        help="fp32, or bf16: matrix products in bfloat16.",
    ),
]
Recipe = Annotated[
    str | None,
    option(
        panel=TRAINING,
        metavar="NAMES",
        default="quick",
        help="Training recipes: names, or paths of TOML files.",
    ),
]
Results = Annotated[
    str | None, option(panel=OUTPUT, metavar="PATH", default="results", help="Results folder.")
]
ResultsFolder = Annotated[
    Path, typer.Option(help="Results folder.", parser=user_path, metavar="PATH")
]
Seeds = Annotated[
    str | None,
    option(
        panel=WHAT,
        metavar="INTS",
        default="1",
        help="Number of seeds, starting at 0; or a list of seeds: 3,5,8.",
    ),
]
Technology = Annotated[
    str,
    typer.Option(help=f"Cost of an operation: {', '.join(TECHNOLOGIES)} or file.py:variable."),
]
TestSamples = Annotated[
    int | None,
    whole(
        "--test-samples",
        panel=DATA,
        default="all",
        help="Number of test images, balanced over the classes.",
    ),
]
TrustCode = Annotated[
    bool,
    typer.Option(
        "--trust-code", help="Run the plug-ins that came with these results; read them first."
    ),
]
TrainSamples = Annotated[
    int | None,
    whole(
        "--train-samples",
        panel=DATA,
        default="all",
        help="Number of training images, balanced over the classes.",
    ),
]
TimeLimit = Annotated[
    float | None,
    option(
        "--time-limit",
        panel=WHERE,
        metavar="TIME",
        default="no limit",
        parser=_parser("duration_setting", "--time-limit"),
        help="Begin no epoch that would end later, such as 90s, 12m or 1h30m after the start.",
    ),
]
Workers = Annotated[
    int | None,
    whole(
        "--workers",
        panel=WHERE,
        default="what is fastest",
        help="Number of cells that run at the same time.",
    ),
]
Threads = Annotated[
    int | None,
    whole("--threads", panel=WHERE, default="cores / cells", help="CPU threads of each cell."),
]


def given(context: typer.Context) -> dict[str, object]:
    """Return the settings that the command line gives, by name; see ``cells.settings``."""
    from codingbench.cells.settings import GRID_FIELDS, OTHER_SETTINGS

    values = {name: context.params.get(name) for name in (*GRID_FIELDS, *OTHER_SETTINGS)}
    return {name: value for name, value in values.items() if value is not None}


def own_code(plugins: list[str] | None, is_trusted: bool) -> "OwnCode":
    """Return what ``--plugin`` and ``--trust-code`` say."""
    from codingbench.plugins.loading import OwnCode

    return OwnCode(tuple(plugins or ()), is_trusted)
