"""Linear reconstruction of images from their code, after each step.

The read-out corresponds to a first convolution. A pixel y[p] is predicted from the code of steps
1..t in the window around p, with the same weights w_t at every position,

    y[p] - mean(y[p])  =  w_t . (z[p] - mean(z[p])),   z[p] = code[1..t, all channels, p + window]

by ridge regression. The means are taken for each position over the fitted images. A code that is
the same for all images therefore has R^2 = 0. The code is padded with zeros. The penalty is chosen
for each t by generalised cross-validation (Golub, Heath & Wahba, Technometrics 21, 1979) on the
fitted images. R^2 is that of the other images: 1 - (squared error) / (squared distance from the
mean image), over all positions and channels.

If the code has fewer positions than the image has pixels (a stem with stride), each position
predicts the block of pixels that it covers. The window is 3x3, or 1x1 if 3x3 would give more than
``MAX_FEATURES`` features. It depends on T and on the largest number of channels of image, stem
and codes, so that all codings of a comparison have the same window.
"""

from dataclasses import dataclass, replace
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from codingbench.inspection.activity import Shape

MAX_FEATURES: Final = 1536
"""Largest number of features per pixel; the time grows with its third power."""

MAX_ROWS: Final = 30_000
"""Approximate number of fitted and of scored pixels.

Positions are sampled, the same in all images."""

_MIN_POSITIONS: Final = 16
_PENALTIES: Final = 10.0 ** torch.arange(-9, 3, dtype=torch.float64)
"""Candidate penalties in units of the mean variance of a feature."""
_ROUNDING: Final = 1e-10
"""Relative size below which a variance, a difference of large sums, counts as 0."""


@dataclass(frozen=True)
class Reconstruction:
    """The quality of the reconstruction of images from their code."""

    window: int | None
    """Side of the window in code positions.

    None if nothing was fitted, because the code is too large or its positions do not divide the
    image.
    """
    r2: list[float | None]
    """R^2 after steps 1..t, for every t, on images that were not fitted.

    1 is perfect, 0 is as good as the mean image. None if nothing was fitted, or the images do not
    differ.
    """


def window_of(num_steps: int, channels: int) -> int | None:
    """Return the side of the window; None if even 1x1 gives too many features.

    >>> window_of(4, 16), window_of(4, 64), window_of(40, 64)
    (3, 1, None)
    """
    fits = (side for side in (3, 1) if num_steps * channels * side**2 <= MAX_FEATURES)
    return next(fits, None)


def block_of(shape: Shape, image_shape: tuple[int, int, int]) -> int | None:
    """Return the side of the block of pixels per position; None if they do not divide the image.

    >>> block_of((4, 64, 112, 112), (3, 224, 224)), block_of((4, 64, 14, 14), (3, 33, 33))
    (2, None)
    """
    _, _, rows, columns = shape
    block = image_shape[1] // rows
    return block if image_shape[1:] == (rows * block, columns * block) else None


class Decoder:
    """Sums the moments for the regression over batches of fitted and of scored images.

    Args:
        shape: shape of one image's code.
        colours: number of channels of an image.
        window: side of the window, odd.
        block: side of the block of pixels that each position covers.
        images: number of images to fit on.
        generator: random numbers for the choice of positions.
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
        number = min(rows * columns, max(_MIN_POSITIONS, MAX_ROWS // images))
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
        """Add a batch of images with their code."""
        pixels = F.pixel_unshuffle(images, self._block)[:, :, self._rows, self._columns]
        moments = self._fit if is_fitted else self._score
        moments.add(self._windows(code), pixels.permute(2, 0, 1))

    def _windows(
        self, code: Float[Tensor, "time batch channel row column"]
    ) -> Float[Tensor, "position batch feature"]:
        """Return the features of each position, ordered by step."""
        radius = self._radius
        padded = F.pad(code, (radius,) * 4)
        around = range(2 * radius + 1)
        windows = [
            padded[..., self._rows + dy, self._columns + dx] for dy in around for dx in around
        ]
        stacked = torch.stack(windows)  # (window, time, batch, channel, position)
        return stacked.permute(4, 2, 1, 3, 0).flatten(2)

    def curve(self) -> list[float | None]:
        """Return R^2 after steps 1..t, for every t."""
        fit, score = (moments.about(self._fit) for moments in (self._fit, self._score))
        features = range(self._per_step, len(fit.gram) + 1, self._per_step)
        return [score.r2(fit.first(number).weights()) for number in features]


@dataclass(frozen=True)
class Centred:
    """Centred second moments: sums of products of distances from the mean."""

    gram: Float[Tensor, "feature feature"]
    cross: Float[Tensor, "feature pixel"]
    power: float  # sum of squares of the pixels
    freedom: int  # number of pixels minus the number of means
    min_penalty: float  # keeps features that never change from being fitted

    def first(self, features: int) -> "Centred":
        """Return the moments of the first ``features`` features."""
        return replace(self, gram=self.gram[:features, :features], cross=self.cross[:features])

    def weights(self) -> Float[Tensor, "feature pixel"]:
        """Return the weights of the ridge regression with the best penalty by cross-validation."""
        variances, axes = torch.linalg.eigh(self.gram)
        variances = variances.clamp(min=0)
        penalties = (variances.mean() * _PENALTIES + self.min_penalty).unsqueeze(1)
        along = axes.T @ self.cross
        kept = variances + penalties  # (penalty, feature)
        explained = along.square().sum(1) * (variances + 2 * penalties) / kept.square()
        left = (self.freedom - (variances / kept).sum(1)).clamp(min=1e-9)
        error = (self.power - explained.sum(1)) / left.square()
        weights: Tensor = axes @ (along / kept[int(error.argmin())].unsqueeze(1))
        return weights

    def r2(self, weights: Float[Tensor, "feature pixel"]) -> float | None:
        """Return the share of the pixels' variance that the weights explain; None if it is 0."""
        if not self.power:
            return None
        features = len(weights)
        explained = 2 * self.cross[:features] - self.gram[:features, :features] @ weights
        return float((weights * explained).sum()) / self.power


class Moments:
    """Sums of features, pixels and their products over images, with separate means per position."""

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
        """Add the features and pixels of a batch."""
        z, y = windows.double(), pixels.double()
        self.images += z.shape[1]
        self._windows += z.sum(1)
        self._pixels += y.sum(1)
        z, y = z.flatten(0, 1), y.flatten(0, 1)
        self._gram += z.T @ z
        self._cross += z.T @ y
        self._power += float(y.square().sum())

    def about(self, other: "Moments") -> Centred:
        """Return the moments about the means of ``other``."""
        z_mean, y_mean = other._windows / other.images, other._pixels / other.images
        z_sum, y_sum = self._windows, self._pixels
        # sum (z - a)(y - b)' = sum z y' - a (sum y)' - (sum z - n a) b'
        z_rest, y_rest = z_sum - self.images * z_mean, y_sum - self.images * y_mean
        power = self._power - float((y_mean * y_sum + y_rest * y_mean).sum())
        return Centred(
            gram=self._gram - z_mean.T @ z_sum - z_rest.T @ z_mean,
            cross=self._cross - z_mean.T @ y_sum - z_rest.T @ y_mean,
            power=power if power > _ROUNDING * self._power else 0.0,
            min_penalty=_ROUNDING * float(self._gram.diagonal().mean()) or 1.0,
            freedom=(self.images - 1) * len(y_sum),
        )
