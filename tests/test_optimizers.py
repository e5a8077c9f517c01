"""Optimizers and schedules of recipes, held to torch's own and to closed forms."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from codingbench.backbone import Network, build_network
from codingbench.cells.network import task_of
from codingbench.datasets import get_info
from codingbench.recipes.recipe import Optimizer, Recipe, Rest, Schedule, load_recipe
from codingbench.registry import BACKBONES, ENCODERS
from codingbench.training.muon import Muon, hidden_filters, orthogonal
from codingbench.training.schedule import (
    Joint,
    is_capturable,
    load_optimizer_state,
    make_optimizer,
    optimizer_state,
    rate_factor,
    rate_of_state,
    set_rate,
)

REST = Rest("sgd", lr=0.5, weight_decay=0.0, momentum=0.9)
MUON = Optimizer("muon", lr=0.1, weight_decay=0.0, momentum=0.9, nesterov=True, rest=REST)
SGD = Optimizer("sgd", lr=0.1, weight_decay=0.01, momentum=0.9)


def recipe(optimizer: Optimizer, **changes: Any) -> Recipe:
    return replace(load_recipe("quick"), optimizer=optimizer, **changes)


def matrix(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed))


class Small(nn.Module):
    """A convolution, a normalisation and a linear layer, with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.linear = nn.Linear(4, 3)
        self.gain = nn.Parameter(torch.ones(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear((self.norm(self.conv(x)) * self.gain).relu().mean((2, 3)))
        return y


def small() -> Small:
    torch.manual_seed(0)
    return Small()


def steps(net: nn.Module, optimizer: Any, rates: list[float], setting: Callable[..., None]) -> None:
    """Take steps on the same images with given learning rates."""
    for number, rate in enumerate(rates):
        setting(optimizer, rate)
        optimizer.zero_grad()
        net(matrix(8, 2, 8, 8, seed=number)).square().mean().backward()
        optimizer.step()


def set_torch_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def assert_same(one: nn.Module, other: nn.Module) -> None:
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)


# --- SGD and AdamW --------------------------------------------------------------------------------

RATES = [0.1, 0.05, 0.2]


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_torchs_bit_for_bit(nesterov: bool) -> None:
    ours, theirs = small(), small()
    mine = make_optimizer(ours, recipe(replace(SGD, nesterov=nesterov)))
    reference = torch.optim.SGD(
        theirs.parameters(), lr=1.0, momentum=0.9, weight_decay=0.01, nesterov=nesterov
    )
    steps(ours, mine, RATES, set_rate)
    steps(theirs, reference, RATES, set_torch_rate)
    assert_same(ours, theirs)


def test_adamw_is_torchs_bit_for_bit() -> None:
    ours, theirs = small(), small()
    mine = make_optimizer(ours, recipe(Optimizer("adamw", 0.1, 0.01, momentum=0.8)))
    reference = torch.optim.AdamW(theirs.parameters(), lr=1, betas=(0.8, 0.999), weight_decay=0.01)
    steps(ours, mine, RATES, set_rate)
    steps(theirs, reference, RATES, set_torch_rate)
    assert_same(ours, theirs)


def test_usual_settings_make_one_group_of_all_parameters_in_their_order() -> None:
    net = small()
    (group,) = make_optimizer(net, load_recipe("gac")).param_groups
    assert all(a is b for a, b in zip(group["params"], net.parameters(), strict=True))
    assert (group["lr"], group["factor"], group["weight_decay"]) == (0.1, 1.0, 5e-5)


def test_biases_and_normalisation_weights_have_rates_and_decays_of_their_own() -> None:
    settings = replace(SGD, bias_lr_factor=64, norm_lr_factor=0.5, decays_norm_and_bias=False)
    net = small()
    optimizer = make_optimizer(net, recipe(settings))
    set_rate(optimizer, 0.01)
    names = {parameter: name for name, parameter in net.named_parameters()}
    found = {
        names[parameter]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert found == {
        "gain": (0.01, 0.01),
        "conv.weight": (0.01, 0.01),
        "linear.weight": (0.01, 0.01),
        "conv.bias": (0.64, 0.0),
        "norm.bias": (0.64, 0.0),
        "linear.bias": (0.64, 0.0),
        "norm.weight": (0.005, 0.0),
    }


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_normalisation_weights_with_a_factor_of_0_stay_as_they_are(name: Any) -> None:
    net = small()
    frozen = net.norm.weight.detach().clone()
    changing = net.norm.bias.detach().clone()
    settings = replace(SGD, name=name, norm_lr_factor=0.0)
    steps(net, make_optimizer(net, recipe(settings)), RATES, set_rate)
    assert torch.equal(net.norm.weight, frozen) and not torch.equal(net.norm.bias, changing)


# --- Muon -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(16, 72), (72, 16), (24, 24), (4, 9)])
def test_the_iteration_is_its_polynomial_of_the_singular_values(shape: tuple[int, int]) -> None:
    """The odd polynomial acts on the singular values alone, here in double precision."""
    given = matrix(3, *shape)
    u, s, v = torch.linalg.svd(given.double(), full_matrices=False)
    s = s / s.square().sum(-1, keepdim=True).sqrt()
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    expected = u @ torch.diag_embed(s) @ v
    torch.testing.assert_close(orthogonal(given).double(), expected, rtol=1e-4, atol=1e-4)


def test_it_is_near_the_orthogonal_factor() -> None:
    given = matrix(5, 16, 72)
    u, _, v = torch.linalg.svd(given, full_matrices=False)
    found, nearest = orthogonal(given), u @ v
    singular = torch.linalg.svdvals(found)
    assert float(singular.min()) > 0.65 and float(singular.max()) < 1.25
    cosine = torch.nn.functional.cosine_similarity(found.flatten(1), nearest.flatten(1))
    assert float(cosine.min()) > 0.97


def test_zeros_stay_zeros() -> None:
    assert torch.equal(orthogonal(torch.zeros(2, 3, 5)), torch.zeros(2, 3, 5))


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has Muon since 2.9")
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("shape", [(12, 30), (30, 12)])
def test_muon_is_torchs_on_a_matrix_up_to_its_bfloat16(
    nesterov: bool, shape: tuple[int, int]
) -> None:
    ours, theirs = nn.Parameter(matrix(*shape)), nn.Parameter(matrix(*shape))
    settings: dict[str, Any] = {"momentum": 0.9, "nesterov": nesterov, "weight_decay": 0.1}
    mine = Muon([ours], 0.1, **settings)
    reference = torch.optim.Muon([theirs], lr=0.1, **settings)
    for number in range(4):
        for parameter in (ours, theirs):
            parameter.grad = matrix(*shape, seed=number + 1)
        mine.step()
        reference.step()
    moved = (theirs - matrix(*shape)).norm()
    assert float((ours - theirs).detach().norm() / moved.detach()) < 0.01


def test_a_step_on_filters_by_hand() -> None:
    """With orthonormal rows the direction is a multiple p of the gradient itself."""
    rows = torch.linalg.qr(matrix(18, 4))[0].T.reshape(4, 2, 3, 3)
    filters = nn.Parameter(torch.ones(4, 2, 3, 3))
    filters.grad = 7 * rows
    Muon([filters], 0.1, momentum=0.0, nesterov=False, weight_decay=0.5).step()
    p = 0.5  # each of the four singular values, of the Frobenius norm 1
    for _ in range(5):
        p = 3.4445 * p - 4.7750 * p**3 + 2.0315 * p**5
    torch.testing.assert_close(filters.detach(), 0.95 - 0.1 * p * rows)


def test_tall_filters_take_longer_steps() -> None:
    filters = nn.Parameter(torch.zeros(32, 2, 2, 2))
    filters.grad = matrix(32, 2, 2, 2)
    Muon([filters], 0.1, momentum=0.0, nesterov=False, weight_decay=0.0).step()
    expected = -0.1 * 2 * orthogonal(matrix(32, 2, 2, 2).reshape(1, 32, 8))  # sqrt(32 / 8)
    torch.testing.assert_close(filters.detach().reshape(1, 32, 8), expected)


def test_filters_of_one_shape_are_updated_as_if_alone() -> None:
    together = [nn.Parameter(matrix(4, 3, 3, 3, seed=n)) for n in range(3)]
    alone = [nn.Parameter(matrix(4, 3, 3, 3, seed=n)) for n in range(3)]
    settings: dict[str, Any] = {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}
    optimizers = [Muon(together, 0.1, **settings), *(Muon([p], 0.1, **settings) for p in alone)]
    for number, parameter in enumerate([*together, *alone]):
        parameter.grad = matrix(4, 3, 3, 3, seed=10 + number % 3)
    together[1].grad = alone[1].grad = None  # such a filter stays as it is
    for optimizer in optimizers:
        optimizer.step()
    torch.testing.assert_close(together, alone)
    assert torch.equal(together[1], matrix(4, 3, 3, 3, seed=1))


def test_normalised_filters_have_the_root_of_their_number_as_norm_before_each_step() -> None:
    filters = nn.Parameter(matrix(4, 3, 3, 3))
    filters.grad = matrix(4, 3, 3, 3, seed=1)
    settings: dict[str, Any] = {"momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
    Muon([filters], 0.1, **settings, normalises=True).step()
    start = 2 * matrix(4, 3, 3, 3) / matrix(4, 3, 3, 3).norm()
    expected = start - 0.1 * orthogonal(matrix(1, 4, 27, seed=1)).reshape(4, 3, 3, 3)
    torch.testing.assert_close(filters.detach(), expected)


def network(encoder: str = "direct", backbone: str = "csnn[width=4]") -> Network:
    plugins = ENCODERS.resolve(encoder), BACKBONES.resolve(backbone)
    return build_network(*plugins, task_of(get_info("fashion_mini"), 2), 0)


@pytest.mark.parametrize("encoder", ["direct", "gac", "rate"])
def test_muon_gets_the_backbones_filters_and_no_encoders(encoder: str) -> None:
    net = network(encoder)
    names = {parameter: name for name, parameter in net.named_parameters()}
    found = {names[filters] for filters in hidden_filters(net)}
    expected = {
        f"backbone.{name}"
        for name, parameter in network("direct").backbone.named_parameters()
        if parameter.dim() == 4
    }
    assert found == expected and len(found) == 6


def test_the_rest_has_its_own_optimizer_and_rate() -> None:
    net = small()
    optimizer = make_optimizer(net, recipe(replace(MUON, bias_lr_factor=2.0)))
    assert isinstance(optimizer, Joint)
    muon, rest = optimizer.parts
    assert isinstance(muon, Muon) and isinstance(rest, torch.optim.SGD)
    assert muon.param_groups[0]["params"] == [net.conv.weight]
    set_rate(optimizer, 0.05)  # half of the full rate
    assert [group["lr"] for group in muon.param_groups] == [0.05]
    by_rate = {group["lr"]: len(group["params"]) for group in rest.param_groups}
    assert by_rate == {0.25: 3, 0.5: 3}  # gain and two weights, and three biases


def test_the_rest_is_trained_as_without_muon() -> None:
    ours, theirs = small(), small()
    ours.conv.weight.requires_grad_(False)
    mine = make_optimizer(ours, recipe(MUON))
    others = [p for p in theirs.parameters() if p is not theirs.conv.weight]
    reference = torch.optim.SGD(others, lr=1.0, momentum=0.9)
    steps(ours, mine, [0.1, 0.02], set_rate)
    steps(theirs, reference, [0.5, 0.1], set_torch_rate)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_a_network_without_filters_is_trained_by_the_rest_alone() -> None:
    optimizer = make_optimizer(nn.Linear(2, 3), recipe(MUON))
    assert isinstance(optimizer, torch.optim.SGD)
    set_rate(optimizer, 0.1)
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_a_network_of_filters_is_trained_by_muon_alone() -> None:
    optimizer = make_optimizer(nn.Conv2d(2, 3, 3, bias=False), recipe(MUON))
    assert isinstance(optimizer, Muon)


def test_a_saved_state_resumes_with_the_same_bits() -> None:
    whole, first, second = small(), small(), small()
    settings = recipe(replace(MUON, bias_lr_factor=2.0, weight_decay=0.1))
    steps(whole, make_optimizer(whole, settings), RATES, set_rate)
    halfway = make_optimizer(first, settings)
    steps(first, halfway, RATES[:2], set_rate)
    state = optimizer_state(halfway, RATES[1])
    assert rate_of_state(state) == RATES[1]
    second.load_state_dict(first.state_dict())
    resumed = make_optimizer(second, settings)
    load_optimizer_state(resumed, state)
    set_rate(resumed, RATES[2])
    resumed.zero_grad()
    second(matrix(8, 2, 8, 8, seed=2)).square().mean().backward()
    resumed.step()
    assert_same(second, whole)


def test_a_state_from_before_groups_had_factors_is_loaded() -> None:
    net = small()
    before = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    steps(net, before, [0.3], set_torch_rate)
    optimizer = make_optimizer(net, load_recipe("gac"))
    load_optimizer_state(optimizer, before.state_dict())
    assert rate_of_state(before.state_dict()) == 0.3
    (group,) = optimizer.param_groups
    assert group["factor"] == 1.0
    saved = optimizer_state(optimizer, 0.3)["state"]
    torch.testing.assert_close(saved, before.state_dict()["state"], rtol=0, atol=0)


@pytest.mark.parametrize("normalises", [False, True])
def test_a_step_of_muon_reads_no_tensor(normalises: bool) -> None:
    """Tensors on the device ``meta`` have no values, so a read would raise an error."""
    with torch.device("meta"):
        filters = [nn.Parameter(torch.empty(4, 2, 3, 3)) for _ in range(2)]
        rate = torch.empty(())
    optimizer = Muon(
        filters, rate, momentum=0.9, nesterov=True, weight_decay=0.1, normalises=normalises
    )
    for parameter in filters:
        parameter.grad = torch.empty_like(parameter)
    assert is_capturable(optimizer)
    for value in (0.1, 0.2):
        set_rate(optimizer, value)
        optimizer.step()
    assert optimizer.param_groups[0]["lr"] is rate


def test_a_rate_in_a_tensor_gives_the_steps_of_a_number() -> None:
    one, other = nn.Parameter(matrix(4, 2, 3, 3)), nn.Parameter(matrix(4, 2, 3, 3))
    settings: dict[str, Any] = {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}
    optimizers = [Muon([one], 0.1, **settings), Muon([other], torch.tensor(0.1), **settings)]
    for optimizer in optimizers:
        for number in range(3):
            one.grad = other.grad = matrix(4, 2, 3, 3, seed=number + 1)
            set_rate(optimizer, 0.1 / (number + 1))
            optimizer.step()
    torch.testing.assert_close(one, other)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_muon_is_that_of_the_cpu_up_to_bfloat16_and_can_be_captured() -> None:
    settings = recipe(replace(MUON, weight_decay=0.1, norm_lr_factor=0.0))
    there, here = small().cuda(), small()
    steps(here, make_optimizer(here, settings), RATES, set_rate)
    optimizer = make_optimizer(there, settings)
    assert is_capturable(optimizer)
    for number, rate in enumerate(RATES):
        set_rate(optimizer, rate)
        optimizer.zero_grad()
        there(matrix(8, 2, 8, 8, seed=number).cuda()).square().mean().backward()
        optimizer.step()
    first, last, on_gpu = (net.conv.weight.detach().cpu() for net in (small(), here, there))
    assert (on_gpu - last).norm() / (last - first).norm() < 0.05


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "muon"}, "the section rest is missing: with name 'muon' it trains all but"),
        ({"rest": REST}, "the section rest needs name 'muon', got name 'sgd'"),
        ({"momentum": 0.0, "nesterov": True}, "nesterov needs a momentum above 0 and an optimizer "
         "other than adamw, got name 'sgd' and momentum 0"),
        ({"name": "adamw", "nesterov": True}, "got name 'adamw' and momentum 0.9"),
        ({"name": "muon", "rest": REST, "nesterov": True, "momentum": 0.0}, "got name 'muon' and "
         "momentum 0"),
        ({"normalises_filters": True}, "normalises_filters needs name 'muon', got name 'sgd'"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_together_are_refused(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SGD, **settings)


def test_the_rest_has_the_same_rules() -> None:
    with pytest.raises(ValueError, match="nesterov needs a momentum above 0"):
        Rest("adamw", 0.1, 0.0, momentum=0.9, nesterov=True)


# --- schedules ------------------------------------------------------------------------------------

EPOCHS, BATCHES = 5, 4


def reference_rates(shape: str, warmup: int, final: float) -> list[float]:
    """Return the rates of torch's schedulers at every step, for a full rate of 1."""
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    total, warm = EPOCHS * BATCHES, warmup * BATCHES
    schedulers = torch.optim.lr_scheduler
    scheduler: Any
    if shape == "one_cycle":  # its last rate belongs to the step after the training
        scheduler = schedulers.OneCycleLR(
            optimizer,
            max_lr=1.0,
            total_steps=total + 1,
            pct_start=(warm + 1) / (total + 1),
            cycle_momentum=False,
            final_div_factor=1 / (25 * final),
        )
    else:
        fall: Any = schedulers.CosineAnnealingLR(optimizer, total - warm, eta_min=final)
        if shape == "linear":
            fall = schedulers.LinearLR(optimizer, 1.0, final, total_iters=total - warm)
        rise = schedulers.LinearLR(optimizer, 1 / (warm + 1), 1.0, total_iters=max(warm, 1))
        scheduler = schedulers.SequentialLR(optimizer, [rise, fall], [warm]) if warm else fall
        if not warm:
            optimizer.param_groups[0]["lr"] = 1.0
    rates = []
    for _ in range(total):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("shape", "warmup"),  # torch's one-cycle schedule has a warm-up
    [("cosine", 0), ("cosine", 2), ("linear", 0), ("linear", 2), ("one_cycle", 2)],
)
@pytest.mark.parametrize("final", [1e-4, 0.25])
def test_schedules_are_torchs_at_every_step(shape: Any, warmup: int, final: float) -> None:
    mine = replace(
        load_recipe("quick"), epochs=EPOCHS, schedule=Schedule("step", warmup, shape, final)
    )
    rates = [rate_factor(mine, e, b, BATCHES) for e in range(EPOCHS) for b in range(BATCHES)]
    assert rates == pytest.approx(reference_rates(shape, warmup, final), abs=1e-9)


@pytest.mark.parametrize("shape", ["cosine", "linear", "one_cycle"])
def test_a_schedule_per_epoch_keeps_its_rate_within_an_epoch(shape: Any) -> None:
    mine = replace(load_recipe("quick"), epochs=8, schedule=Schedule("epoch", 2, shape, 0.1))
    for epoch in range(8):
        assert len({rate_factor(mine, epoch, batch, 10) for batch in range(10)}) == 1
    assert rate_factor(mine, 2, 0, 10) == 1


def test_a_linear_schedule_by_hand() -> None:
    mine = replace(load_recipe("quick"), epochs=4, schedule=Schedule("epoch", 0, "linear", 0.2))
    assert [rate_factor(mine, epoch, 0, 9) for epoch in range(4)] == pytest.approx(
        [1.0, 0.8, 0.6, 0.4]
    )


def test_a_one_cycle_schedule_by_hand() -> None:
    mine = replace(load_recipe("quick"), epochs=4, schedule=Schedule("epoch", 2, "one_cycle", 0.0))
    rates = [rate_factor(mine, epoch, 0, 9) for epoch in range(4)]
    assert rates == pytest.approx([0.04, 0.52, 1.0, 0.5])


@pytest.mark.parametrize("shape", ["cosine", "linear", "one_cycle"])
def test_a_warm_up_as_long_as_the_training_only_rises(shape: Any) -> None:
    mine = replace(load_recipe("quick"), epochs=2, schedule=Schedule("step", 2, shape))
    rates = [rate_factor(mine, epoch, batch, 5) for epoch in range(2) for batch in range(5)]
    assert rates == sorted(rates) and rates[-1] < 1 and math.isfinite(rates[-1])
