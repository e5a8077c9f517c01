"""Reading and writing ``name[param=value,...]``, the notation of the grid's axes."""

import pytest

from codingbench.errors import SpecError
from codingbench.plugins.specs import Spec, Value, alternatives, format_spec, parse_spec, split_list


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("gac", ["gac"]),
        ("gac,direct", ["gac", "direct"]),
        (" gac , direct ", ["gac", "direct"]),
        (
            "gac,latency[scale=log,threshold=0.1],rate",
            ["gac", "latency[scale=log,threshold=0.1]", "rate"],
        ),
        ("a/my code.py:Mine[n=1,m=2]", ["a/my code.py:Mine[n=1,m=2]"]),
    ],
)
def test_a_comma_separates_entries_only_outside_brackets(text: str, entries: list[str]) -> None:
    assert split_list(text) == entries


@pytest.mark.parametrize("text", ["gac[", "gac]", "gac[[a=1]]", "gac[a=1", "a]b[", "gac,rate]"])
def test_brackets_that_do_not_match_are_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"brackets do not match in .*name\[param=value"):
        split_list(text)


@pytest.mark.parametrize("text", ["", ",", "gac,", ",gac", "gac,,rate", "  "])
def test_an_empty_entry_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="empty entry"):
        split_list(text)


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("gac", Spec("gac")),
        (" gac ", Spec("gac")),
        ("gac [reduction=2]", Spec("gac", (("reduction", "2"),))),
        ("latency[ scale = log ]", Spec("latency", (("scale", "log"),))),
        ("a[b=1,c=2]", Spec("a", (("b", "1"), ("c", "2")))),
        ("a[b=x=y]", Spec("a", (("b", "x=y"),))),
    ],
)
def test_a_spec_is_a_name_and_its_parameters_as_text(text: str, spec: Spec) -> None:
    assert parse_spec(text) == spec


@pytest.mark.parametrize(
    "text", ["[a=1]", " [a=1]", "gac[]", "gac[ ]", "gac[a]", "gac[a=]", "gac[=1]", "gac[a=1]b"]
)
def test_a_spec_that_cannot_be_read_is_refused_with_the_grammar(text: str) -> None:
    with pytest.raises(SpecError, match=r"cannot read .*expected .*param=value"):
        parse_spec(text)


def test_a_parameter_set_twice_is_refused() -> None:
    with pytest.raises(SpecError, match="sets 'scale' twice"):
        parse_spec("latency[scale=log,scale=linear]")


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("gac", ["gac"]),
        (" a|b.py:Mine ", ["a|b.py:Mine"]),  # outside brackets, | is an ordinary character
        ("rate[gain=1]", ["rate[gain=1]"]),
        ("rate[gain=2|0.5|1]", ["rate[gain=2]", "rate[gain=0.5]", "rate[gain=1]"]),
        ("direct[spiking = true | false ]", ["direct[spiking=true]", "direct[spiking=false]"]),
        (
            "x[b=1|2,c=k,a=y|z]",
            ["x[a=y,b=1,c=k]", "x[a=z,b=1,c=k]", "x[a=y,b=2,c=k]", "x[a=z,b=2,c=k]"],
        ),
    ],
)
def test_several_values_are_entries_in_the_order_written(text: str, entries: list[str]) -> None:
    assert alternatives(text) == entries


@pytest.mark.parametrize(
    ("value", "shown"), [("1|", "'1|'"), ("|1", "'|1'"), ("1||2", "'1||2'"), ("|", "'|'")]
)
def test_an_empty_value_among_several_is_refused(value: str, shown: str) -> None:
    with pytest.raises(SpecError) as raised:
        alternatives(f"rate[gain={value}]")
    assert str(raised.value) == f"rate[gain] has an empty value in {shown}: expected a|b|..."


def test_a_product_of_more_entries_than_anybody_wants_is_refused_unseen() -> None:
    ten = "|".join("0123456789")
    assert len(alternatives(f"x[a={ten},b={ten},c={ten}]")) == 1000
    with pytest.raises(SpecError) as raised:
        alternatives(f"x[{','.join(f'{name}={ten}' for name in 'abcdefghijkl')}]")
    expected = "x[...] expands to 1,000,000,000,000 entries, expected at most 1,000"
    assert str(raised.value) == expected


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({}, "x"),
        ({"on": True}, "x[on=true]"),
        ({"b": 0.5, "a": 3, "c": "log"}, "x[a=3,b=0.5,c=log]"),
    ],
)
def test_the_canonical_text_sorts_parameters_and_can_be_read_back(
    params: dict[str, Value], text: str
) -> None:
    assert format_spec("x", params) == text
    assert len(parse_spec(text).params) == len(params)
