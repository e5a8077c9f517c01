"""Help texts as they are written: ``latency[scale=log]`` is no markup."""

import copy
from typing import Any

from typer.core import TyperArgument, TyperCommand, TyperOption


class VerbatimCommand(TyperCommand):
    """A command whose help keeps its brackets, which typer hands to Rich as markup."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help into the formatter."""
        from rich.markup import escape

        shown = copy.copy(self)
        shown.help = escape(self.help or "")
        shown.params = [copy.copy(param) for param in self.params]
        for param in shown.params:
            if isinstance(param, TyperOption | TyperArgument) and param.help:
                param.help = escape(param.help)
        # ctx and formatter are click's, which typer brings with it or not, by version
        super(VerbatimCommand, shown).format_help(ctx, formatter)
