"""The figures of a report: their numbers equal the tables, and names in them stay text."""

import html
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codingbench.analysis.leaderboard import rows
from codingbench.energy import COMPARED, Pricing
from codingbench.report import collecting
from codingbench.report.collecting import collect
from codingbench.report.comparison import Comparison, ReportData
from codingbench.report.figures import bill, curves, pareto, rates
from codingbench.report.figures.base import Figure
from codingbench.store.folder import Store
from codingbench.store.plausible import read
from tests.report_stores import REFERENCE, REFERENCES, every_figure, reference, store_of

FIELD = Store(REFERENCE / "field")
SHORT = 6e-5  # relative: figures have five significant digits

Trace = dict[str, Any]
Point = tuple[float, float]


def by_coding(figure: Figure) -> dict[str, Trace]:
    return {trace["legendgroup"]: trace for trace in figure["data"] if "legendgroup" in trace}


def only(report: ReportData) -> Comparison:
    (comparison,) = report.comparisons
    return comparison


def pareto_of(report: ReportData, convention: str = "exact") -> Figure:
    return pareto.draw(only(report), report.codings, convention)


# --- the Pareto front -----------------------------------------------------------------------------


def front_of(points: list[Point]) -> list[Point]:
    frame = pd.DataFrame(points, columns=["energy_uj", "accuracy"], dtype=float)
    return list(pareto.front(frame).itertuples(index=False, name=None))


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([(1, 0.5)], [(1, 0.5)]),
        ([(0, 0)], [(0, 0)]),
        ([(2, 0.9), (1, 0.5), (3, 0.8)], [(1, 0.5), (2, 0.9)]),
        ([(1, 0.5), (1, 0.7), (1, 0.6)], [(1, 0.7)]),  # equal energy: the most accurate
        ([(3, 0.5), (1, 0.5), (2, 0.5)], [(1, 0.5)]),  # equal accuracy: the cheapest
        ([(1, 0.5), (1, 0.5)], [(1, 0.5)]),  # equal points: one
        ([(3, 0.9), (1, 0.5), (2, 0.7)], [(1, 0.5), (2, 0.7), (3, 0.9)]),
    ],
)
def test_the_front_is_the_rows_that_none_beats(points: list[Point], front: list[Point]) -> None:
    assert front_of(points) == front


def is_beaten(point: Point, points: list[Point]) -> bool:
    return any(
        e <= point[0] and a >= point[1] and (e < point[0] or a > point[1]) for e, a in points
    )


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30))
def test_the_front_is_that_of_its_definition(points: list[tuple[int, int]]) -> None:
    unbeaten = {point for point in points if not is_beaten(point, list(points))}
    assert front_of(list(points)) == sorted(unbeaten)


# --- accuracy over energy -------------------------------------------------------------------------


def priced(encoder: str, seed: int, accuracy: float, uj: float, **more: Any) -> dict[str, Any]:
    """Return a cell of ``uj`` per image in the convention exact: accumulates of 0.9 pJ."""
    counts = {"effective_binary": round(10 * uj / 0.9e-6), "effective_real": 0}
    return {"encoder": encoder, "seed": seed, "accuracy": accuracy} | counts | more


def test_points_are_means_with_t_intervals_of_both(tmp_path: Path) -> None:
    report = collect(
        store_of(
            tmp_path,
            *(priced("three", seed, a, uj) for seed, a, uj in
              ((0, 0.80, 1.62), (1, 0.83, 1.80), (2, 0.86, 1.98))),
            *(priced("two", seed, a, uj) for seed, a, uj in ((0, 0.5, 0.9), (1, 0.6, 2.7))),
        )
    )  # fmt: skip
    traces = by_coding(pareto_of(report))
    three, two = traces["three"], traces["two"]
    assert (three["x"], three["y"]) == ([1.8], [83.0])
    assert (two["x"], two["y"]) == ([1.8], [55.0])
    # t(2) = 4.302653: x 0.18 uJ / sqrt(3), x 3 points / sqrt(3)
    for bars, half in ((three["error_x"], 0.447145), (three["error_y"], 7.452413)):
        assert bars["visible"] and not bars["symmetric"]
        assert bars["array"] == bars["arrayminus"] == pytest.approx([half], rel=SHORT)
    # t(1) = 12.7062: clipped to the possible values, 0 to 100 % and energies above 0
    assert (two["error_y"]["arrayminus"], two["error_y"]["array"]) == ((55.0,), (45.0,))
    assert two["error_x"]["arrayminus"] == (1.8,)
    # 12.7062 x 1.272792 / sqrt(2)
    assert two["error_x"]["array"] == pytest.approx([11.435584], rel=SHORT)
    assert three["marker"]["symbol"] == [report.codings["three"].symbol]
    assert three["hovertext"] == ["three, T=2, n=3<br>83.00 % (75.5-90.5)<br>1.80 µJ (1.35-2.25)"]


def test_one_run_is_hollow_and_has_no_bars(tmp_path: Path) -> None:
    several = [priced("many", seed, 0.5 + seed / 100, 1) for seed in range(2)]
    report = collect(store_of(tmp_path, priced("one", 0, 0.9, 1.5), *several))
    traces = by_coding(pareto_of(report))
    assert traces["one"]["marker"]["symbol"] == [report.codings["one"].symbol + "-open"]
    assert not traces["one"]["error_x"]["visible"] and not traces["one"]["error_y"]["visible"]
    assert traces["one"]["hovertext"] == ["one, T=2, n=1<br>90.00 % (—)<br>1.50 µJ"]
    assert traces["many"]["marker"]["symbol"] == [report.codings["many"].symbol]
    assert traces["many"]["error_y"]["visible"]


def test_a_coding_with_one_seed_at_one_t_is_hollow_only_there(tmp_path: Path) -> None:
    cells = [
        priced("gac", 0, 0.5, 1, num_steps=4),
        *(priced("gac", seed, 0.6, 2, num_steps=2) for seed in range(2)),
    ]
    report = collect(store_of(tmp_path, *cells))
    trace, symbol = by_coding(pareto_of(report))["gac"], report.codings["gac"].symbol
    assert trace["text"] == ["T=2", "T=4"] and trace["x"] == [2.0, 1.0]  # joined by rising T
    assert trace["marker"]["symbol"] == [symbol, f"{symbol}-open"]
    assert trace["error_y"]["array"] == (0.0, None)


@pytest.mark.parametrize(("least", "kind"), [(0.0, "linear"), (0.1, "log")])
def test_energies_are_on_a_logarithmic_axis_unless_one_is_zero(
    tmp_path: Path, least: float, kind: str
) -> None:
    report = collect(store_of(tmp_path, priced("a", 0, 0.5, least), priced("b", 0, 0.6, 3)))
    assert pareto_of(report)["layout"]["xaxis"]["type"] == kind


def test_of_many_rows_the_most_accurate_and_the_front_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # accuracy falls as energy rises, except for the least accurate, which is the cheapest
    cells = [priced(f"c{at}", 0, 0.9 - at / 10, 2 + at) for at in range(5)]
    report = collect(store_of(tmp_path, *cells, priced("cheap", 0, 0.1, 1)))
    everything = pareto_of(report)
    assert list(pareto.notes(only(report), "exact")) == []
    monkeypatch.setattr(pareto, "MOST_POINTS", 2)
    thinned = pareto_of(report)
    assert set(by_coding(everything)) == {"c0", "c1", "c2", "c3", "c4", "cheap"}
    assert set(by_coding(thinned)) == {"c0", "c1", "cheap"}
    for figure in (everything, thinned):
        assert (figure["data"][0]["x"], figure["data"][0]["y"]) == ([1.0, 2.0], [10.0, 90.0])
    (note,) = pareto.notes(only(report), "exact")
    assert "shows the 2 most accurate of 6 rows and those on the front" in note


@pytest.mark.parametrize("convention", COMPARED)
def test_points_are_the_leaderboards_rows(convention: str) -> None:
    table = rows(FIELD.read("cells"), Pricing.of(convention)).set_index("encoder")
    traces = by_coding(pareto_of(reference("field"), convention))
    assert set(traces) == set(table.index)
    for encoder, trace in traces.items():
        assert trace["x"] == pytest.approx([table["energy_uj"][encoder]], rel=SHORT)
        assert trace["y"] == pytest.approx([100 * table["accuracy"][encoder]], rel=SHORT)


# --- curves ---------------------------------------------------------------------------------------


def assert_curves(figure: Figure, values: "pd.Series[float]", count: int) -> None:
    """Check the curves against ``values``, indexed by encoder and position along x."""
    traces = by_coding(figure)
    assert len(traces) == count == values.index.get_level_values(0).nunique()
    for encoder, trace in traces.items():
        expected = values.xs(encoder)
        assert trace["x"] == expected.index.tolist()
        assert trace["y"] == pytest.approx(expected.tolist(), rel=SHORT)


@pytest.mark.parametrize("convention", ["exact", "paper"])
def test_energies_up_to_a_step_are_the_stored_ones(convention: str) -> None:
    means = FIELD.read("steps").groupby(["encoder", "step"])[f"energy_{convention}_uj"].mean()
    report = reference("field")
    assert_curves(curves.energy(only(report), report.codings, convention), means, 29)


@pytest.mark.parametrize("convention", COMPARED)
@pytest.mark.parametrize("name", REFERENCES)
def test_the_energy_after_the_last_step_is_the_leaderboards(name: str, convention: str) -> None:
    report = reference(name)
    table = rows(Store(REFERENCE / name).read("cells"), Pricing.of(convention))
    energies = {(row.encoder, row.num_steps): row.energy_uj for row in table.itertuples()}
    drawn = curves.energy(only(report), report.codings, convention)["data"]
    last = {(trace["legendgroup"], trace["x"][-1]): trace["y"][-1] for trace in drawn}
    assert len(last) == len(drawn) == len(table)
    assert last == pytest.approx(energies, rel=SHORT)


def test_curves_over_steps_are_means_over_seeds() -> None:
    steps = read(FIELD, "steps")
    means = steps.groupby(["encoder", "step"])[["accuracy", "firing_rate"]].mean()
    report = reference("field")
    arguments = only(report), report.codings, ""
    assert_curves(curves.accuracy(*arguments), 100 * means["accuracy"], 29)
    assert_curves(curves.firing_rate(*arguments), 100 * means["firing_rate"], 29)


def test_curves_over_epochs_are_means_over_seeds() -> None:
    means = FIELD.read("epochs").groupby(["encoder", "epoch"])[["val_accuracy", "train_loss"]]
    report = reference("field")
    arguments = only(report), report.codings, ""
    of_encoders = means.mean()
    assert_curves(curves.validation_accuracy(*arguments), 100 * of_encoders["val_accuracy"], 29)
    assert_curves(curves.training_loss(*arguments), of_encoders["train_loss"], 29)


def test_the_last_step_is_drawn_large_and_has_its_interval(tmp_path: Path) -> None:
    cells = [{"encoder": "gac", "seed": seed, "accuracy": 0.5 + seed / 100} for seed in range(2)]
    report = collect(store_of(tmp_path, *cells))
    trace = by_coding(curves.accuracy(only(report), report.codings, ""))["gac"]
    assert trace["marker"]["size"] == [5, 10]
    # 12.7062 x 0.00707107 / sqrt(2) is 6.35 points
    assert trace["hovertext"][1] == "gac, T=2<br>step 2: 50.50 % (44.1-56.9)"


def epochs(row: int, last: int) -> pd.DataFrame:
    numbers = range(1, last + 1)
    return pd.DataFrame({"row": row, "epoch": numbers, "train_loss": 1.0, "val_accuracy": 0.5})


@pytest.mark.parametrize("last", [1, 2, 99, 100, 101, 199, 200, 250, 1000, 100_000])
def test_learning_curves_are_thinned_and_keep_their_ends(last: int) -> None:
    kept = collecting._epochs(epochs(0, last))["epoch"].tolist()
    assert kept[0] == 1 and kept[-1] == last
    assert min(last, 50) <= len(kept) <= 100
    assert len({after - before for before, after in pairwise(kept[:-1])}) <= 1


def test_a_short_training_beside_a_long_one_is_not_thinned() -> None:
    kept = collecting._epochs(pd.concat([epochs(0, 4), epochs(1, 1000)]))
    assert kept.loc[kept["row"] == 0, "epoch"].tolist() == [1, 2, 3, 4]


def test_a_diverged_training_has_a_gap_where_its_loss_is_not_finite(tmp_path: Path) -> None:
    report = collect(store_of(tmp_path, {"encoder": "gac"}))
    lost = only(report).epochs.assign(train_loss=[2.5, float("inf")])
    figure = curves.training_loss(replace(only(report), epochs=lost), report.codings, "")
    assert figure["data"][0]["y"] == [2.5, None]


# --- firing rates ---------------------------------------------------------------------------------


def rate_rows(row: int, layer: str, position: int, *values: float) -> list[dict[str, Any]]:
    at = {"row": row, "layer": layer, "position": position}
    return [at | {"step": step, "firing_rate": rate} for step, rate in enumerate(values, 1)]


def test_the_map_has_gaps_and_its_layers_in_execution_order(tmp_path: Path) -> None:
    cells = [{"encoder": "short", "accuracy": 0.9}, {"encoder": "long", "num_steps": 3}]
    report = collect(store_of(tmp_path, *cells))
    measured = [  # the first row has no neuron before the code
        *rate_rows(0, "encoder.code", 0, 0.5, 0.75),
        *rate_rows(0, "backbone.lif2", 2, 0.3, 0.4),
        *rate_rows(0, "backbone.lif10", 1, 0.1, 0.2),
        *rate_rows(1, "encoder.neuron", 1, 0.01, 0.02, 0.03),
        *rate_rows(1, "encoder.code", 2, 1.0, 1.0, 1.0),
        *rate_rows(1, "backbone.lif10", 3, 0.4, 0.4, float("nan")),
        *rate_rows(1, "backbone.lif2", 4, 0.45, 0.1, 0.0),
    ]
    comparison = replace(only(report), rates=pd.DataFrame(measured))
    figure = rates.draw(comparison, report.codings, "")
    (trace,) = figure["data"]
    assert trace["y"] == ["short, T=2", "long, T=3"]
    # encoder.neuron | encoder.code | lif10 | lif2
    assert trace["z"] == [
        [None, None, None, None, 50, 75, None, None, 10, 20, None, None, 30, 40, None],
        [1, 2, 3, None, 100, 100, 100, None, 40, 40, None, None, 45, 10, 0],
    ]
    assert figure["layout"]["xaxis"]["ticktext"] == [
        "encoder.neuron",
        "encoder.code",
        "lif10",
        "lif2",
    ]
    assert figure["layout"]["xaxis"]["tickvals"] == [1, 5, 9, 13]
    assert (trace["zmin"], trace["zmax"]) == (0, 45)  # not 100, the rate of a code
    assert trace["meta"][3:6] == ["", "encoder.code t=1", "encoder.code t=2"]
    assert trace["hovertext"][0][3] == trace["hovertext"][0][0] == ""
    assert trace["hovertext"][0][4] == "short, T=2<br>encoder.code, t=1: 50.0 %"
    assert trace["customdata"] == [0, 1]


def test_the_maps_rates_are_means_over_seeds() -> None:
    layers = FIELD.read("layers")
    layers = layers[layers["kind"].isin(["neuron", "code"])]
    means = layers.groupby(["encoder", "layer", "step"])["firing_rate"].mean().reset_index()
    report = reference("field")
    (trace,) = rates.draw(only(report), report.codings, "")["data"]
    encoders = only(report).rows["encoder"]
    found = {
        (encoders[row], *place.split(" t=")): value
        for row, line in zip(trace["customdata"], trace["z"], strict=True)
        for place, value in zip(trace["meta"], line, strict=True)
        if value is not None
    }
    expected = {
        (mean["encoder"], mean["layer"], str(mean["step"])): 100 * mean["firing_rate"]
        for mean in means.to_dict("records")
    }
    assert found == pytest.approx(expected, rel=6e-4)  # four significant digits


@pytest.mark.parametrize("name", REFERENCES)
def test_the_layers_of_every_coding_are_in_order(name: str) -> None:
    report = reference(name)
    (trace,) = rates.draw(only(report), report.codings, "")["data"]
    place = {layer: at for at, layer in enumerate(text.split(" t=")[0] for text in trace["meta"])}
    for _, measured in only(report).rates.groupby("row"):
        layers = measured.sort_values("position")["layer"].drop_duplicates()
        assert layers.map(place).is_monotonic_increasing, layers.tolist()


# --- the bill -------------------------------------------------------------------------------------


@pytest.mark.parametrize("convention", COMPARED)
@pytest.mark.parametrize("name", REFERENCES)
def test_the_bars_of_a_row_sum_to_its_energy(name: str, convention: str) -> None:
    report = reference(name)
    table = rows(Store(REFERENCE / name).read("cells"), Pricing.of(convention))
    traces = bill.draw(only(report), report.codings, convention)["data"]
    assert [trace["name"] for trace in traces] == ["stem", "coding", "backbone"]
    assert len({tuple(trace["customdata"]) for trace in traces}) == 1
    encoders = only(report).rows["encoder"]
    sums = {
        (encoders[row], label): sum(parts)
        for row, label, *parts in zip(
            traces[0]["customdata"],
            traces[0]["y"],
            *(trace["x"] for trace in traces),
            strict=True,
        )
    }
    assert sums == pytest.approx(
        {
            (row.encoder, f"{row.encoder}, T={row.num_steps}"): row.energy_uj
            for row in table.itertuples()
        },
        rel=SHORT,
    )


def test_the_bill_compares_every_other_coding_with_direct() -> None:
    said = list(bill.notes(only(reference("field")), "exact"))
    assert len(said) == 28  # all but direct
    assert any(line.startswith("gac at T=4: ") and "(3 seeds)" in line for line in said)


# --- all figures ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REFERENCES)
def test_plotly_and_json_accept_every_figure(name: str) -> None:
    drawn = list(every_figure(reference(name)))
    assert len(drawn) == 5 + 3 * len(COMPARED)
    for _, spec, _, figure in drawn:
        assert json.loads(json.dumps(figure, allow_nan=False))["data"], spec.name
        assert len(go.Figure(figure).data) == len(figure["data"])


def texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text in a figure with its key."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from texts(part, name)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from texts(part, key)
    elif isinstance(value, str):
        yield key, value


def keys(value: Any) -> Iterator[str]:
    parts = value.values() if isinstance(value, dict) else value
    if isinstance(value, dict):
        yield from value
    if isinstance(value, dict | list | tuple):
        for part in parts:
            yield from keys(part)


@pytest.mark.parametrize("name", ["<b>x</b>", "%{x}", "a&lt;b", '"><img src=x onerror=alert(1)>'])
def test_names_are_text_in_every_figure(tmp_path: Path, name: str) -> None:
    (tmp_path / "own.py").write_text(
        "from codingbench.energy import Convention\n"
        "price = lambda counts, chip: chip.mac_pj * counts['effective_real']\n"
        f"own = Convention({name!r}, 'made up', 'made up', price)\n"
    )
    store = store_of(tmp_path / "results", {"encoder": name}, {"encoder": "direct"})
    report = collect(store, Pricing.of(f"{tmp_path / 'own.py'}:own"))
    comparison = only(report)
    of_layers = comparison.rates.assign(layer=f"backbone.{name}")
    hostile = replace(report, comparisons=[replace(comparison, rates=of_layers)])
    drawn = list(every_figure(hostile))
    assert len(drawn) == 5 + 3 * (len(COMPARED) + 1)
    for _, spec, convention, figure in drawn:
        shown = [
            (key, text.replace("<br>", "\n"))
            for key, text in texts(figure)
            if key not in ("legendgroup", "meta")  # which are not displayed as HTML
        ]
        assert not [text for _, text in shown if "<" in text or ">" in text], spec.name
        assert any(html.unescape(text).startswith(name) for _, text in shown)
        # Plotly substitutes %{x} only in templates
        assert not {"hovertemplate", "texttemplate"} & set(keys(figure))
        if convention == name:
            title = figure["layout"]["xaxis" if spec.name != "anytime-energy" else "yaxis"]
            assert html.unescape(title["title"]["text"]).endswith(f"({name})")
