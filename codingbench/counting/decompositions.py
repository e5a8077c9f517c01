"""Fused operations as the plain ones that they stand for, which the counter can count.

Nothing uses the results: a network gets those of the fused operation.
"""

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional as F

_aten = torch.ops.aten
_LSTM = 2  # of the modes of torch's recurrent operations
_MODES = ("rnn_relu", "rnn_tanh", "lstm", "gru")

Given = dict[str, Any]
"""The arguments of an operation, by name."""


def plain_version(func: Any, args: tuple[Any, ...], kwargs: Given) -> Callable[[], Any] | None:
    """Return a function that runs a fused operation as plain ones; None if there is none."""
    name = func._overloadpacket.__name__
    version = _attention if name.startswith("_scaled_dot_product_") else _VERSIONS.get(name)
    if version is None:
        return None
    given = _named(func, args, kwargs)
    return None if given.get("batch_sizes") else lambda: version(given)


def _named(func: Any, args: tuple[Any, ...], kwargs: Given) -> Given:
    known = func._schema.arguments
    given = {a.name: a.default_value for a in known if a.has_default_value()}
    return given | dict(zip((a.name for a in known), args, strict=False)) | kwargs


def _attention(given: Given) -> None:
    """Run both products of an attention, unscaled, so that spikes stay spikes."""
    _aten._scaled_dot_product_attention_math(
        *(given[name] for name in ("query", "key", "value")),
        given.get("attn_mask", given.get("attn_bias")),
        0.0,
        given.get("is_causal", False),
        scale=1.0,
    )


def _mkldnn_rnn_layer(given: Given) -> None:
    weights = [given[f"weight{i}"] for i in range(4 if given["has_biases"] else 2)]
    x = given["input"].flip(0) if given["reverse"] else given["input"]
    state = [given[name].view(1, *given[name].shape[-2:]) for name in ("hx_", "cx_")]
    sizes = given["has_biases"], 1, 0.0, False, False, False  # one layer in one direction
    was_enabled = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)  # its context manager warns of other settings
    try:
        torch._VF.lstm(x, state, weights, *sizes)
    finally:
        torch._C._set_mkldnn_enabled(was_enabled)


def _cudnn_rnn(given: Given) -> None:
    mode, directions = given["mode"], 1 + given["bidirectional"]
    per_layer = len(given["weight"]) // (given["num_layers"] * directions)
    has_biases = per_layer >= 4
    options = given["num_layers"], 0.0, False, given["bidirectional"], given["batch_first"]
    run = getattr(torch._VF, _MODES[mode])
    state = (given["hx"], given["cx"]) if mode == _LSTM else given["hx"]
    with torch.backends.cudnn.flags(enabled=False):
        run(given["input"], state, list(given["weight"]), has_biases, *options)


def _lstm_cell(given: Given) -> None:
    gates = _biased(given, "input") + _biased(given, "hidden")
    into, forget, cell, out = gates.chunk(4, 1)
    kept = forget.sigmoid() * given["cx"] + into.sigmoid() * cell.tanh()
    out.sigmoid() * kept.tanh()


def _gru_cell(given: Given) -> None:
    x_reset, x_update, x_new = _biased(given, "input").chunk(3, 1)
    h_reset, h_update, h_new = _biased(given, "hidden").chunk(3, 1)
    reset, update = (x_reset + h_reset).sigmoid(), (x_update + h_update).sigmoid()
    new = (x_new + reset * h_new).tanh()
    (given["hx"] - new) * update + new


def _biased(given: Given, name: str) -> Tensor:
    gates: Tensor = given[f"{name}_gates"]
    bias = given[f"{name}_bias"]
    return gates if bias is None else gates + bias


def _multi_head_attention(given: Given) -> Tensor:
    """Run an attention with its projections, [batch, token, feature]."""
    given_weights = given["qkv_weight"].chunk(3)
    biases = given["qkv_bias"].chunk(3)
    heads = given["num_head"]
    if given["query"] is given["key"] is given["value"]:
        projected = F.linear(given["query"], given["qkv_weight"], given["qkv_bias"]).chunk(3, -1)
    else:
        projected = tuple(
            F.linear(given[name], weight, bias)
            for name, weight, bias in zip(
                ("query", "key", "value"), given_weights, biases, strict=True
            )
        )
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in projected)
    mixed = _aten._scaled_dot_product_attention_math(q, k, v, None, 0.0, False, scale=1.0)[0]
    return F.linear(mixed.transpose(1, 2).flatten(2), given["proj_weight"], given["proj_bias"])


def _transformer_layer(given: Given) -> None:
    """Run a layer of a transformer's encoder, [batch, token, feature]."""
    x: Tensor = given["src"]
    is_first, bend = given["norm_first"], F.gelu if given["use_gelu"] else F.relu

    def norm(y: Tensor, place: int) -> Tensor:
        scale, shift = given[f"norm_weight_{place}"], given[f"norm_bias_{place}"]
        return F.layer_norm(y, (given["embed_dim"],), scale, shift)

    def attend(y: Tensor) -> Tensor:
        itself = dict.fromkeys(("query", "key", "value"), y)
        return _multi_head_attention(given | itself | {"num_head": given["num_heads"]})

    def feed(y: Tensor) -> Tensor:
        hidden = bend(F.linear(y, given["ffn_weight_1"], given["ffn_bias_1"]))
        return F.linear(hidden, given["ffn_weight_2"], given["ffn_bias_2"])

    for place, part in enumerate((attend, feed), start=1):
        x = x + part(norm(x, place)) if is_first else norm(x + part(x), place)


def _trilinear(given: Given) -> None:
    """Run x1 W x2 of ``nn.Bilinear``: first x1 W, then the product with x2."""
    first, weight, second = (given[name] for name in ("i1", "i2", "i3"))
    inner = F.linear(first, weight.transpose(1, 2).flatten(0, 1))
    _aten.bmm(inner.unflatten(1, (len(weight), -1)), second.unsqueeze(2))


_VERSIONS: Final[dict[str, Callable[[Given], Any]]] = {
    "mkldnn_rnn_layer": _mkldnn_rnn_layer,
    "_cudnn_rnn": _cudnn_rnn,
    "_thnn_fused_lstm_cell": _lstm_cell,
    "_thnn_fused_gru_cell": _gru_cell,
    "_native_multi_head_attention": _multi_head_attention,
    "_transformer_encoder_layer_fwd": _transformer_layer,
    "_trilinear": _trilinear,
}
