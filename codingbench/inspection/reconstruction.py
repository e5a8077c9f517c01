"""How much of an image a linear read-out finds in its code, after every step.

The read-out is what a first convolution could learn: a pixel y[p] is predicted from the code of
steps 1..t in the window around p, the same weights w_t at every position,

    y[p] - mean(y[p])  =  w_t . (z[p] - mean(z[p])),   z[p] = code[1..t, all channels, p + window]

by ridge regression. The means, over the images to fit on, are of each position: what all images
have in common is not credited to the code, and a code that is the same for all images has R^2 = 0.
Zeros surround the code. The penalty is chosen for each t by generalised cross-validation (Golub,
Heath & Wahba, Technometrics 21, 1979) on the images to fit on, and R^2 is that of other images:
1 - (squared error) / (squared distance from the mean image), over all positions and channels.

A code of fewer positions than pixels (a stem with stride) predicts at each the block of pixels that
it stands for. The window is 3x3, or 1x1 where that would be more than ``MOST_FEATURES`` numbers;
it follows from T and the wider of image and stem, so that all codings of a comparison have one.
"""

from dataclasses import dataclass, replace
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from codingbench.inspection.activity import Shape

MOST_FEATURES: Final = 1536
"""Numbers that a pixel is predicted from; the time is their third power."""

MOST_ROWS: Final = 30_000
"""Pixels fitted and pixels scored, about: positions are sampled, the same in all images."""

_FEWEST_POSITIONS: Final = 16
_PENALTIES: Final = 10.0 ** torch.arange(-9, 3, dtype=torch.float64)
"""In units of the mean variance of a feature."""
_ROUNDING: Final = 1e-10
"""Of a sum before the means are taken off: less than that of it afterwards is no variance."""


@dataclass(frozen=True)
class Reconstruction:
    """How well images can be told from their code."""

    window: int | None
    """Side of the window in code positions; None if nothing was fitted, because the code is too
    large or its positions do not divide the image."""
    r2: list[float | None]
    """After steps 1..t, for every t, on images that nothing was fitted to: 1 is perfect, 0 is the
    mean image. None if nothing was fitted, or the images do not differ."""


def window_of(num_steps: int, channels: int) -> int | None:
    """Side of the window for codes of so many channels; None: too many features in any.

    >>> window_of(4, 16), window_of(4, 64), window_of(40, 64)
    (3, 1, None)
    """
    fits = (side for side in (3, 1) if num_steps * channels * side**2 <= MOST_FEATURES)
    return next(fits, None)


def block_of(shape: Shape, image_shape: tuple[int, int, int]) -> int | None:
    """Side of the block of pixels behind a position; None if positions do not divide the image.

    >>> block_of((4, 64, 112, 112), (3, 224, 224)), block_of((4, 64, 14, 14), (3, 33, 33))
    (2, None)
    """
    _, _, rows, columns = shape
    block = image_shape[1] // rows
    return block if image_shape[1:] == (rows * block, columns * block) else None


class Decoder:
    """Gathers over batches what the regression needs of images to fit on and of those to score.

    Args:
        shape: of one image's code.
        colours: channels of an image.
        window: its side, odd.
        block: side of the block of pixels behind each position.
        images: to fit on.
        generator: draws the positions.
    """

    def __init__(
        self,
        shape: Shape,
        colours: int,
        window: int,
        block: int,
        images: int,
        generator: torch.Generator,
    ) -> None:
        num_steps, channels, rows, columns = shape
        self._block = block
        self._radius = window // 2
        self._per_step = channels * window**2
        number = min(rows * columns, max(_FEWEST_POSITIONS, MOST_ROWS // images))
        chosen = torch.randperm(rows * columns, generator=generator)[:number]
        self._rows, self._columns = chosen // columns, chosen % columns
        sizes = number, num_steps * self._per_step, colours * block**2
        self._fit, self._score = Moments(*sizes), Moments(*sizes)

    def add(
        self,
        code: Float[Tensor, "time batch channel row column"],
        images: Float[Tensor, "batch colour height width"],
        is_fitted: bool,
    ) -> None:
        """A batch of images with their code."""
        pixels = F.pixel_unshuffle(images, self._block)[:, :, self._rows, self._columns]
        moments = self._fit if is_fitted else self._score
        moments.add(self._windows(code), pixels.permute(2, 0, 1))

    def _windows(
        self, code: Float[Tensor, "time batch channel row column"]
    ) -> Float[Tensor, "position batch feature"]:
        """What each pixel is predicted from, step after step."""
        radius = self._radius
        padded = F.pad(code, (radius,) * 4)
        around = range(2 * radius + 1)
        windows = [
            padded[..., self._rows + dy, self._columns + dx] for dy in around for dx in around
        ]
        stacked = torch.stack(windows)  # (window, time, batch, channel, position)
        return stacked.permute(4, 2, 1, 3, 0).flatten(2)

    def curve(self) -> list[float | None]:
        """R^2 after steps 1..t, for every t."""
        fit, score = (moments.about(self._fit) for moments in (self._fit, self._score))
        features = range(self._per_step, len(fit.gram) + 1, self._per_step)
        return [score.r2(fit.first(number).weights()) for number in features]


@dataclass(frozen=True)
class Centred:
    """Sums over images and positions of products of distances from the mean."""

    gram: Float[Tensor, "feature feature"]
    cross: Float[Tensor, "feature pixel"]
    power: float  # of the pixels
    freedom: int  # pixels less the means taken off
    least: float  # penalty, without which features that never change would be fitted

    def first(self, features: int) -> "Centred":
        """The same of the first so many features."""
        return replace(self, gram=self.gram[:features, :features], cross=self.cross[:features])

    def weights(self) -> Float[Tensor, "feature pixel"]:
        """Of the ridge regression with the penalty that cross-validation finds best."""
        variances, axes = torch.linalg.eigh(self.gram)
        variances = variances.clamp(min=0)
        penalties = (variances.mean() * _PENALTIES + self.least).unsqueeze(1)
        along = axes.T @ self.cross
        kept = variances + penalties  # (penalty, feature)
        explained = along.square().sum(1) * (variances + 2 * penalties) / kept.square()
        left = (self.freedom - (variances / kept).sum(1)).clamp(min=1e-9)
        error = (self.power - explained.sum(1)) / left.square()
        weights: Tensor = axes @ (along / kept[int(error.argmin())].unsqueeze(1))
        return weights

    def r2(self, weights: Float[Tensor, "feature pixel"]) -> float | None:
        """The share of the pixels' power that these weights explain; None if there is none."""
        if not self.power:
            return None
        features = len(weights)
        explained = 2 * self.cross[:features] - self.gram[:features, :features] @ weights
        return float((weights * explained).sum()) / self.power


class Moments:
    """Sums of windows, pixels and their products over images, each position's means apart."""

    def __init__(self, positions: int, features: int, pixels: int) -> None:
        self.images = 0
        self._gram = torch.zeros(features, features, dtype=torch.float64)
        self._cross = torch.zeros(features, pixels, dtype=torch.float64)
        self._power = 0.0
        self._windows = torch.zeros(positions, features, dtype=torch.float64)
        self._pixels = torch.zeros(positions, pixels, dtype=torch.float64)

    def add(
        self,
        windows: Float[Tensor, "position batch feature"],
        pixels: Float[Tensor, "position batch pixel"],
    ) -> None:
        """The windows and pixels of a batch."""
        z, y = windows.double(), pixels.double()
        self.images += z.shape[1]
        self._windows += z.sum(1)
        self._pixels += y.sum(1)
        z, y = z.flatten(0, 1), y.flatten(0, 1)
        self._gram += z.T @ z
        self._cross += z.T @ y
        self._power += float(y.square().sum())

    def about(self, other: "Moments") -> Centred:
        """The moments about the means of ``other``."""
        z_mean, y_mean = other._windows / other.images, other._pixels / other.images
        z_sum, y_sum = self._windows, self._pixels
        # sum (z - a)(y - b)' = sum z y' - a (sum y)' - (sum z - n a) b'
        z_rest, y_rest = z_sum - self.images * z_mean, y_sum - self.images * y_mean
        power = self._power - float((y_mean * y_sum + y_rest * y_mean).sum())
        return Centred(
            gram=self._gram - z_mean.T @ z_sum - z_rest.T @ z_mean,
            cross=self._cross - z_mean.T @ y_sum - z_rest.T @ y_mean,
            power=power if power > _ROUNDING * self._power else 0.0,
            least=_ROUNDING * float(self._gram.diagonal().mean()) or 1.0,
            freedom=(self.images - 1) * len(y_sum),
        )
