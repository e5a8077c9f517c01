"""An exponential mean of a network's weights, which is evaluated in place of the weights."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from codingbench.recipes.recipe import WeightAverage


class WeightMean:
    """The mean of the weights of one network, updated while it trains.

        mean = decay * mean + (1 - decay) * weights

    The first update copies the weights, as torch's ``AveragedModel`` does, and the decay has no
    warm-up. Until then the network is evaluated with its own weights. *Weights* are the parameters
    and floating-point buffers of the network's state, such as running statistics; integer buffers
    are those of the network.

    Args:
        network: the network; it keeps its own weights except inside :meth:`applied`.
        settings: the recipe's section ``weight_average``; None: no update is ever due.
    """

    def __init__(self, network: nn.Module, settings: WeightAverage | None) -> None:
        self._network, self._settings = network, settings
        self._mean: dict[str, Tensor] = {}
        self._own: dict[str, Tensor] = {}  # the network's weights, while it has the mean

    def is_due(self, steps: int) -> bool:
        """Return True if the mean is updated after ``steps`` steps of the whole training."""
        return self._settings is not None and steps % self._settings.every_steps == 0

    def update(self) -> None:
        """Update the mean, without waiting for the device.

        All calls but the first can be part of a CUDA graph.
        """
        weights = self._weights()
        if self._mean and self._settings:
            update = get_ema_multi_avg_fn(self._settings.decay)
            update([*self._mean.values()], [weights[name] for name in self._mean], None)
        else:
            self._mean = {name: value.clone() for name, value in weights.items()}

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the network the mean, and afterwards its own weights again."""
        if not self._mean:
            yield
            return
        self._own = {name: value.clone() for name, value in self._weights().items()}
        self.apply()
        try:
            yield
        finally:
            self._network.load_state_dict(self._own, strict=False)
            self._own = {}

    def apply(self) -> None:
        """Give the network the mean for good; called once it is trained."""
        self._network.load_state_dict(self._mean, strict=False)

    def own_state(self) -> dict[str, Tensor]:
        """Return the state of the network with its own weights, also inside :meth:`applied`."""
        state = self._network.state_dict()
        state.update(self._own)
        return state

    def state(self) -> dict[str, Tensor]:
        """Return the mean, for a checkpoint; empty before the first update."""
        return self._mean

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue from the mean that :meth:`state` returned, on the device of the network."""
        device = next(self._network.parameters()).device
        self._mean = {name: value.to(device) for name, value in state.items()}

    def _weights(self) -> dict[str, Tensor]:
        """Return the network's present weights by name; they share its memory."""
        state = self._network.state_dict()
        return {name: value for name, value in state.items() if _is_averaged(value)}


def _is_averaged(value: object) -> bool:
    return isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())
