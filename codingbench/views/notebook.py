"""Progress inside a notebook."""

import sys
from importlib.util import find_spec

from rich.console import Console


def progress_console() -> Console:
    """Return the console that shows progress: live in terminals and in notebooks with ipywidgets.

    Rich draws live displays of notebooks with ipywidgets, and warns again and again without them.
    A notebook that lacks them gets plain lines, on stdout because notebooks colour stderr red.
    """
    console = Console(stderr=True, highlight=False)
    if not console.is_jupyter or find_spec("ipywidgets"):
        return console
    return Console(file=sys.stdout, force_jupyter=False, force_terminal=False, highlight=False)
