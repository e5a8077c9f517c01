"""The kind of all commands."""

from collections import Counter
from typing import Any

from typer.core import TyperCommand

from codingbench.errors import SpecError


class Command(TyperCommand):
    """A command that refuses an option given twice; otherwise the last value would win."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words behind the command.

        Raises:
            SpecError: an option that takes one value is given twice.
        """
        if not ctx.resilient_parsing:
            _, _, given = self.make_parser(ctx).parse_args(args=[*args])
            for option, times in Counter(given).items():
                is_single = option.param_type_name == "option" and not option.multiple
                if times > 1 and is_single:
                    raise SpecError(f"{option.opts[0]} is given {times} times, expected once")
        return super().parse_args(ctx, args)
