"""Conditions on the columns of ``cells``, such as ``epochs >= 4 and device != 'cpu'``.

A condition has the grammar of a Python expression, of which only comparisons, ``in``, ``and``,
``or``, ``not`` and brackets are allowed. It is parsed and looked at, never executed.
"""

import ast
import operator
import warnings
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any, Final

import pandas as pd
import pyarrow as pa

from codingbench.errors import SpecError, nearest
from codingbench.schema import TABLES

MOST_CHARACTERS: Final = 1000
"""Longer conditions are refused before they are parsed."""

ALIASES: Final = {"T": "num_steps"}
"""Names of columns that a condition may use as well."""

_LARGEST: Final = 2**62  # whole numbers of the tables are below this
_EXPECTED: Final = "expected comparisons such as \"epochs >= 4 and encoder == 'direct'\""
_ORDERED: Final = ("number", "time")
_COMPARE: Final[Mapping[type[ast.cmpop], Callable[[Any, Any], Any]]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def matching(cells: pd.DataFrame, condition: str) -> "pd.Series[bool]":
    """Return for each cell whether a condition holds; comparisons with unknown values do not.

    Args:
        cells: the table ``cells``.
        condition: the text of the condition.

    Raises:
        SpecError: the condition cannot be read, names a column that does not exist, or compares a
            column with a value of another kind.
    """
    return _holds(_parsed(condition), cells)


def columns_of(condition: str) -> set[str]:
    """Return the columns that a condition names.

    Raises:
        SpecError: the condition cannot be read.
    """
    names = (node.id for node in ast.walk(_parsed(condition)) if isinstance(node, ast.Name))
    return {ALIASES.get(name, name) for name in names}


def _parsed(condition: str) -> ast.expr:
    if len(condition) > MOST_CHARACTERS:
        raise SpecError(
            f"a condition has at most {MOST_CHARACTERS:,} characters, got {len(condition):,}"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python warns of "is" with a number
            return ast.parse(condition.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        hint = "; equality is written ==" if "=" in condition else ""
        raise SpecError(f"cannot read the condition {condition!r}: {_EXPECTED}{hint}") from None


def _holds(node: ast.expr, cells: pd.DataFrame) -> "pd.Series[bool]":
    if isinstance(node, ast.BoolOp):
        join = operator.and_ if isinstance(node.op, ast.And) else operator.or_
        return reduce(join, (_holds(part, cells) for part in node.values))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return ~_holds(node.operand, cells)
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        pairs = zip(sides, node.ops, sides[1:], strict=False)
        return reduce(operator.and_, (_compared(*pair, cells) for pair in pairs))
    raise SpecError(f"cannot use {_text(node)} as a condition: {_EXPECTED}")


def _compared(
    left: ast.expr, how: ast.cmpop, right: ast.expr, cells: pd.DataFrame
) -> "pd.Series[bool]":
    where = f"{_text(left)} ... {_text(right)}"
    kinds = {_kind(side) for side in (left, right) if isinstance(side, ast.Name)}
    if len(kinds) != 1:
        raise SpecError(f"cannot compare {where}: expected a column beside a value of its kind")
    (kind,) = kinds
    if isinstance(how, ast.In | ast.NotIn):
        found, known = _contained(left, right, kind, cells)
        return known & (found if isinstance(how, ast.In) else ~found)
    compare = _COMPARE.get(type(how))
    if compare is None or not (isinstance(how, ast.Eq | ast.NotEq) or kind in _ORDERED):
        raise SpecError(f"cannot compare {where}: a column of {kind} has == and != only")
    a, b = (_values(side, kind, cells) for side in (left, right))
    known = pd.Series(True, cells.index)
    for side in (a, b):
        known &= side.notna() if isinstance(side, pd.Series) else True
    found = pd.Series(False, cells.index)
    if known.any():
        found[known] = compare(*(s[known] if isinstance(s, pd.Series) else s for s in (a, b)))
    return found.astype(bool)


def _contained(
    left: ast.expr, right: ast.expr, kind: str, cells: pd.DataFrame
) -> "tuple[pd.Series[bool], pd.Series[bool]]":
    """Return where a column is in a list, or holds a text, and where the column is known."""
    if isinstance(left, ast.Name) and isinstance(right, ast.List | ast.Tuple | ast.Set):
        column = _column(left, cells)
        return column.isin([_value(item, kind) for item in right.elts]), column.notna()
    if isinstance(right, ast.Name) and kind == "text":
        column = _column(right, cells)
        text = str(_value(left, kind))
        return column.fillna("").astype(str).str.contains(text, regex=False), column.notna()
    raise SpecError(
        f"cannot read {_text(left)} in {_text(right)}: expected a column in [a, b], or 'text' in a "
        "column of text"
    )


def _values(node: ast.expr, kind: str, cells: pd.DataFrame) -> Any:
    return _column(node, cells) if isinstance(node, ast.Name) else _value(node, kind)


def _column(node: ast.Name, cells: pd.DataFrame) -> "pd.Series[Any]":
    return cells[ALIASES.get(node.id, node.id)]


def _kind(node: ast.Name) -> str:
    """Return the kind of a column's values."""
    name = ALIASES.get(node.id, node.id)
    schema = TABLES["cells"]
    if name not in schema.names:
        hint = nearest(name, schema.names)
        raise SpecError(
            f"cells have no column {node.id!r}{hint}; text is written in quotes: {node.id!r}"
        )
    of = schema.field(name).type
    if pa.types.is_string(of):
        return "text"
    if pa.types.is_boolean(of):
        return "True or False"
    return "time" if pa.types.is_timestamp(of) else "number"


def _value(node: ast.expr, kind: str) -> Any:
    """Return a written value, which must be of the kind of its column."""
    is_negative = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
    inner = node.operand if is_negative and isinstance(node, ast.UnaryOp) else node
    value = inner.value if isinstance(inner, ast.Constant) else None
    is_bool = isinstance(value, bool)
    if kind == "number" and isinstance(value, int | float) and not is_bool:
        if abs(value) < _LARGEST:
            return -value if is_negative else value
    elif kind == "True or False" and is_bool and not is_negative:
        return value
    elif kind in ("text", "time") and isinstance(value, str) and not is_negative:
        return value if kind == "text" else _moment(value)
    raise SpecError(f"cannot compare a column of {kind} with {_text(node)}")


def _moment(text: str) -> pd.Timestamp:
    try:
        moment = pd.Timestamp(text)
        if pd.isna(moment):
            raise ValueError
        return moment.tz_convert("UTC") if moment.tzinfo else moment.tz_localize("UTC")
    except (ValueError, OverflowError):
        raise SpecError(f"expected a time such as '2026-11-26 18:00', got {text!r}") from None


def _text(node: ast.expr) -> str:
    text = ast.unparse(node)
    return text if len(text) <= 60 else f"{text[:60]}..."
