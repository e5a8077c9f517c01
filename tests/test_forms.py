"""One bill for one network, however its code is written; per step; and what cannot be counted."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codingbench.counting.counter import OperationCounter
from codingbench.energy import CONVENTIONS, energy_uj
from codingbench.neurons import MultiStepLeaky, over_time
from codingbench.schema import COUNTS

T, B, N, D, K = 4, 3, 4, 6, 5
Row = dict[str, Any]


class Coded(nn.Module):
    """Neurons over the steps, and a function of their spikes [T, B, N, D]."""

    def __init__(self, function: Callable[[Any, Tensor], Any], **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.neuron = MultiStepLeaky()
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, images: Tensor) -> Tensor:
        steps = torch.arange(1, T + 1).reshape(T, 1, 1, 1)
        out: Tensor = self.function(self, self.neuron(images * steps))
        return out


IMAGES = torch.rand(B, N, D, generator=torch.Generator().manual_seed(0)) * 0.7


def counter_of(network: nn.Module, images: Tensor = IMAGES, steps: int = T) -> OperationCounter:
    with torch.no_grad(), OperationCounter(network.eval(), steps) as counter:
        network(images)
    return counter


def bill(network: nn.Module) -> dict[int, Row]:
    """Return all counts and energies by step."""
    counter = counter_of(network)
    assert not counter.uncounted()
    found: dict[int, Row] = {step: dict.fromkeys(COUNTS, 0) for step in range(1, T + 1)}
    for row in counter.layer_rows():
        for name in COUNTS:
            found[row["step"]][name] += row[name]
    for counts in found.values():
        counts["images"] = B
        counts |= {name: energy_uj(counts, name) for name in CONVENTIONS}
    return found


def _linear(seed: int = 1) -> nn.Linear:
    torch.manual_seed(seed)
    layer = nn.Linear(D, K, bias=False)
    with torch.no_grad():
        layer.weight[0, 0] = 0
    return layer


FORMS: dict[str, Callable[[Any, Tensor], Any]] = {
    "folded module": lambda net, spk: over_time(net.linear, spk),
    "module over all axes": lambda net, spk: net.linear(spk),
    "module at each step": lambda net, spk: torch.stack([net.linear(x) for x in spk]),
    "module at each step, tokens folded": lambda net, spk: [
        net.linear(x.flatten(0, 1)) for x in spk
    ],
    "functional": lambda net, spk: F.linear(spk.flatten(0, 2), net.linear.weight),
    "functional at each step": lambda net, spk: [
        F.linear(spk[t].reshape(-1, D), net.linear.weight) for t in range(T)
    ],
    "matmul": lambda net, spk: spk @ net.linear.weight.T,
    "weights first": lambda net, spk: net.linear.weight @ spk.flatten(0, 2).T,
    "einsum": lambda net, spk: torch.einsum("tbnd,kd->tbnk", spk, net.linear.weight),
    "einsum at each step": lambda net, spk: [
        torch.einsum("bnd,kd->bnk", x, net.linear.weight) for x in spk
    ],
    "tensordot": lambda net, spk: torch.tensordot(spk, net.linear.weight, ([3], [1])),
    "inner": lambda net, spk: torch.inner(spk, net.linear.weight),
    "product and sum": lambda net, spk: (spk.unsqueeze(-2) * net.linear.weight).sum(-1),
    "product and sum at each step": lambda net, spk: [
        (x.unsqueeze(-2) * net.linear.weight).sum(-1) for x in spk.unbind()
    ],
    "product and sum, weights first": lambda net, spk: (
        net.linear.weight.T * spk.unsqueeze(-1)
    ).sum(3),
    "convolution": lambda net, spk: F.conv1d(
        spk.flatten(0, 1).transpose(1, 2), net.linear.weight.unsqueeze(-1)
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_network_has_one_bill_however_it_is_written(form: str) -> None:
    expected = bill(Coded(FORMS["folded module"], linear=_linear()))
    found = bill(Coded(FORMS[form], linear=_linear()))
    assert expected[2]["effective_binary"] > 0 and expected[4]["zero_weight_acs"] > 0
    for step in expected:
        assert found[step] == pytest.approx(
            expected[step] | _addressing(found[step], form), rel=1e-12
        )


def _addressing(found: dict[str, float], form: str) -> dict[str, float]:
    """Return what ``lemaire`` says of a convolution: each spike pays two MACs for its address."""
    names = ("lemaire_macs", "lemaire") if form == "convolution" else ()
    return {name: found[name] for name in names}


# --- steps ----------------------------------------------------------------------------------------


def synapses(counter: OperationCounter, layer: str) -> dict[int, int]:
    return {
        row["step"]: row["effective_binary"]
        for row in counter.layer_rows()
        if row["layer"] == layer and row["kind"] == "synapse"
    }


def test_as_many_tokens_as_steps_are_not_taken_for_steps() -> None:
    network = Coded(FORMS["module at each step, tokens folded"], linear=_linear())
    with torch.no_grad():
        steps = torch.arange(1, T + 1).reshape(T, 1, 1, 1)
        spikes = network.neuron(IMAGES * steps).sum((1, 2, 3))
    expected = {t + 1: int(spikes[t]) * K for t in range(T)}
    assert len(set(expected.values())) > 2
    assert synapses(counter_of(network), "linear") == expected


def test_constants_at_every_step_count_at_their_step() -> None:
    inputs = [torch.zeros(B * N, D) for _ in range(T)]
    for t, x in enumerate(inputs):
        x[:, :t] = 1
    network = Coded(lambda net, spk: [net.linear(x) for x in inputs], linear=_linear())
    expected = {t + 1: B * N * t * K for t in range(T)}
    assert synapses(counter_of(network), "linear") == expected


def test_a_module_shared_by_two_callers_is_split_for_each() -> None:
    class Caller(nn.Module):
        def __init__(self, shared: nn.Module) -> None:
            super().__init__()
            self.shared = shared

        def forward(self, spk: Tensor) -> Tensor:
            return torch.stack([self.shared(x) for x in spk])

    shared = nn.Linear(D, D, bias=False)
    one = Coded(lambda net, spk: net.a(spk), a=Caller(shared))
    two = Coded(lambda net, spk: (net.a(spk), net.b(spk)), a=Caller(shared), b=Caller(shared))
    once, twice = (synapses(counter_of(net), "a.shared") for net in (one, two))
    assert twice == {step: 2 * count for step, count in once.items()} and len(once) == T


def test_what_uses_a_single_step_counts_at_this_step() -> None:
    network = Coded(lambda net, spk: net.linear(spk[-1]), linear=_linear())
    assert list(synapses(counter_of(network), "linear")) == [T]


# --- recurrent layers and attention ---------------------------------------------------------------


def totals(counter: OperationCounter) -> dict[str, int]:
    rows = [row for row in counter.layer_rows() if row["kind"] != "neuron"]
    return {name: sum(row[name] for row in rows) for name in COUNTS}


def test_an_lstm_over_the_steps_costs_its_matrix_products() -> None:
    """4 x 16 x 16 products with the input and as many with the state, at each of two steps."""
    spk = torch.zeros(2, 3, 16)
    spk[0, :, :2] = 1
    spk[1, :, :5] = 1
    lstm = nn.LSTM(16, 16)
    network = Coded(lambda net, _: net.lstm(spk), lstm=lstm)
    rows = [r for r in counter_of(network, torch.zeros(3, N, D), 2).layer_rows()
            if r["layer"] == "lstm" and r["kind"] == "synapse"]  # fmt: skip
    assert [r["effective_binary"] for r in rows] == [3 * 2 * 64, 3 * 5 * 64]
    assert [r["effective_real"] for r in rows] == [0, 3 * 16 * 64]  # the first state is zero
    assert [r["bias_adds"] for r in rows] == [3 * 2 * 64] * 2
    assert sum(r[c] for r in rows for c in ("dense_binary", "dense_real")) == 2 * 3 * 2 * 1024


@pytest.mark.parametrize("kind, gates", [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
@pytest.mark.parametrize("batch_first", [False, True])
def test_recurrent_layers_in_every_shape_are_counted(
    kind: Any, gates: int, batch_first: bool
) -> None:
    layer = kind(D, 8, num_layers=2, bidirectional=True, batch_first=batch_first)
    x = torch.rand(T, B * N, D)
    given = x.transpose(0, 1) if batch_first else x
    counter = counter_of(Coded(lambda net, _: net.layer(given), layer=layer))
    found = totals(counter)
    dense = sum(found[name] for name in COUNTS if name.startswith("dense_"))
    each = 2 * gates * 8 * (D + 8) + 2 * gates * 8 * (16 + 8)
    assert dense == T * B * N * each and not counter.uncounted()


@pytest.mark.parametrize("cell, gates", [(nn.LSTMCell, 4), (nn.GRUCell, 3), (nn.RNNCell, 1)])
def test_recurrent_cells_are_split_by_step(cell: Any, gates: int) -> None:
    def looped(net: Any, spk: Tensor) -> Any:
        state = None
        for x in spk:
            state = net.cell(x.flatten(0, 1), state)
        return state

    rows = counter_of(Coded(looped, cell=cell(D, 8))).layer_rows()
    dense: dict[int, int] = {}
    for row in rows:
        if row["kind"] == "synapse":
            count = sum(row[name] for name in COUNTS if name.startswith("dense_"))
            dense[row["step"]] = dense.get(row["step"], 0) + count
    assert dense == dict.fromkeys(range(1, T + 1), B * N * gates * 8 * (D + 8))


def test_fused_attention_costs_what_its_parts_cost() -> None:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(D, 2, batch_first=True)

    def fused(net: Any, spk: Tensor) -> Any:
        x = spk.flatten(0, 1)
        return net.layer(x, x, x, need_weights=False)

    counters = []
    for is_fast in (True, False):
        torch.backends.mha.set_fastpath_enabled(is_fast)
        try:
            counters.append(counter_of(Coded(fused, layer=layer)))
        finally:
            torch.backends.mha.set_fastpath_enabled(True)
    one, other = map(totals, counters)
    assert not counters[0].uncounted() and one["effective_binary"] == other["effective_binary"]
    dense = [sum(each[n] for n in COUNTS if n.startswith("dense_")) for each in (one, other)]
    assert dense[0] == dense[1] == T * B * (N * 4 * D * D + 2 * N * N * D)


# --- work outside layers --------------------------------------------------------------------------


def test_fourier_transforms_cost_5_n_log2_n() -> None:
    """A real transform of 32 x 32 values is 12,800 multiply-accumulates; then T inverse ones."""
    images = torch.rand(2, 3, 32, 32)

    class Filter(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            low = torch.fft.rfft2(images).expand(T, -1, -1, -1, -1)
            filtered: Tensor = torch.fft.irfft2(low, s=(32, 32))
            return filtered

    rows = counter_of(Filter(), images).layer_rows()
    assert [(r["step"], r["effective_real"], r["layer"]) for r in rows] == [
        (1, 2 * 2 * 3 * 12_800, "network:fft"),
        *((t, 2 * 3 * 12_800, "network:fft") for t in range(2, T + 1)),
    ]
    assert not any(r["paper_first_macs"] for r in rows)


def _other(function: Callable[[Tensor, Tensor], Any]) -> OperationCounter:
    bank = nn.ParameterDict({"w": nn.Parameter(torch.rand(D))})
    return counter_of(Coded(lambda net, spk: function(spk[0, 0, 0], net.bank["w"]), bank=bank))


@pytest.mark.parametrize("function", [torch.dot, torch.vdot, torch.inner])
def test_dot_products_are_counted(function: Any) -> None:
    counter = _other(lambda x, w: function(torch.ones_like(x), w))
    assert totals(counter)["effective_binary"] == D and not counter.uncounted()


UNKNOWN: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "cdist": lambda x, w: torch.cdist(x[None], w[None]),
    "cumprod": lambda x, w: (x + 0.5).cumprod(0),
    "prod": lambda x, w: (x + 0.5).prod(),
    "hypot with a weight": lambda x, w: torch.hypot(x, w),
    "power of a weight": lambda x, w: torch.pow(x, w),
    "sampling": lambda x, w: F.grid_sample(
        x.reshape(1, 1, 2, 3), torch.zeros(1, 2, 2, 2), align_corners=False
    ),
    "interpolation": lambda x, w: F.interpolate(x[None, None], scale_factor=2, mode="linear"),
    "solving": lambda x, w: torch.linalg.solve(torch.eye(D) * (1 + x), w),
    "a bag of embeddings": lambda x, w: F.embedding_bag(torch.ones(1, 2).long(), w[:, None]),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_work_that_is_not_understood_is_named(name: str) -> None:
    (named, *_) = _other(UNKNOWN[name]).uncounted()
    assert named.startswith("network:")


def test_embeddings_and_biases_multiply_nothing_and_are_not_named() -> None:
    table = nn.Embedding(5, D)
    counter = counter_of(Coded(lambda net, spk: spk + net.table(torch.arange(N)), table=table))
    assert not counter.uncounted() and not totals(counter)["dense_real"]


# --- classes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [8, 9, 10, 20, 56, 112])
@pytest.mark.parametrize("pool", ["mean", "avg_pool2d", "adaptive", "sum / n"])
def test_means_over_any_number_of_positions_are_levels(side: int, pool: str) -> None:
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "mean": lambda x: x.mean((2, 3)),
        "avg_pool2d": lambda x: F.avg_pool2d(x, side).flatten(1),
        "adaptive": lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1),
        "sum / n": lambda x: x.sum((2, 3)) / side**2,
    }
    draws = torch.Generator().manual_seed(0)
    spk = (torch.rand(50, 8, side, side, generator=draws) < 0.3).float()
    network = Coded(lambda net, _: net.linear(ways[pool](spk)), linear=nn.Linear(8, 3))
    (row,) = [
        r for r in counter_of(network, torch.zeros(50, N, D), 1).layer_rows()
        if r["layer"] == "linear" and r["kind"] == "synapse"
    ]  # fmt: skip
    assert row["input_class"] == "level"


def test_means_of_currents_stay_real() -> None:
    cur = torch.rand(50, 8, 20, 20, generator=torch.Generator().manual_seed(0))
    network = Coded(lambda net, _: net.linear(cur.mean((2, 3))), linear=nn.Linear(8, 3))
    for row in counter_of(network, torch.zeros(50, N, D), 1).layer_rows():
        assert row["layer"] != "linear" or row["input_class"] in ("real", None)
