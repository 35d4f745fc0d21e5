"""The encoder of images: scaled pixels, convolutions."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from ppo_agent.common.observation_kinds import largest_pixel

from . import initializers

# (filters, kernel size, stride) of each convolution.
ConvLayers = Sequence[tuple[int, int, int]]

# Mnih et al. (2015), "Human-level control through deep reinforcement learning".
NATURE = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
# For images that are too small for it: grid worlds of 5 x 5 to 35 x 35.
SMALL = ((16, 3, 1), (32, 3, 2))
MEDIUM = (*SMALL, (64, 3, 2))

_NATURE_SIZE, _MEDIUM_SIZE, _SMALL_SIZE = 36, 16, 5


def default_conv_layers(height: int, width: int) -> ConvLayers:
    """The convolutions for images of a size in pixels; none for tiny ones, whose pixels are the features."""
    size = min(height, width)
    if size >= _NATURE_SIZE:
        return NATURE
    if size >= _MEDIUM_SIZE:
        return MEDIUM
    return SMALL if size >= _SMALL_SIZE else ()


def is_channels_first(shape: Sequence[int]) -> bool:
    """Whether an image's first dimension is the smallest, as in a stack of frames [4, 84, 84]."""
    return shape[0] < min(shape[1:])


class ImageEncoder(tf.keras.layers.Layer):
    """Scales pixels to [0, 1] and applies convolutions with ReLU, their kernels orthogonal with gain sqrt(2).

    Args:
        spec: uint8 [height, width, channels], or [channels, height, width] if the first dimension is the smallest; or a
            stack of such frames, [frames, ...], whose channels are joined.
        conv_layers: (filters, kernel size, stride) of each convolution; `None` chooses by the size: those of the
            Nature DQN from 36 pixels up, 3 x 3 kernels below, none below 5; empty for none.
        seeds: where the kernels' seeds come from.
        name: of the layer.

    Raises:
        ValueError: if the image is empty or too small for the convolutions, or these are not as described.
    """

    def __init__(
        self, spec: tf.TypeSpec, conv_layers: ConvLayers | None, seeds: initializers.SeedSource, name: str
    ) -> None:
        super().__init__(name=name)
        shape = spec.shape.as_list()[-3:]
        self.channels_first = is_channels_first(shape)
        height, width = shape[1:] if self.channels_first else shape[:2]
        self.image_shape = (height, width, spec.shape.num_elements() // max(1, height * width))
        layers = default_conv_layers(height, width) if conv_layers is None else conv_layers
        _check_sizes(spec, height, width, layers)
        self.conv_layers = [
            initializers.conv(filters, kernel_size, stride, initializers.HIDDEN_GAIN, seeds(), f"conv_{i}")
            for i, (filters, kernel_size, stride) in enumerate(layers)
        ]
        self.scale = 1.0 / largest_pixel(spec)
        self.flatten = tf.keras.layers.Flatten()

    def call(self, pixels: tf.Tensor) -> tf.Tensor:
        """Returns features [N, F] of pixels uint8 [N, ...]."""
        x = tf.cast(self._to_channels_last(pixels), tf.float32) * self.scale
        for layer in self.conv_layers:
            x = layer(x)
        return self.flatten(x)

    def _to_channels_last(self, pixels: tf.Tensor) -> tf.Tensor:
        """Returns [N, height, width, frames and channels]."""
        rank = pixels.shape.rank
        height = rank - (2 if self.channels_first else 3)
        order = [0, height, height + 1, *(axis for axis in range(1, rank) if axis not in (height, height + 1))]
        if order == list(range(rank)):
            return pixels
        return tf.reshape(tf.transpose(pixels, order), [-1, *self.image_shape])


def _check_sizes(spec: tf.TypeSpec, height: int, width: int, layers: ConvLayers) -> None:
    """Raises ValueError unless every convolution fits into what is left of the image."""
    name = spec.name or "a leaf"
    if 0 in spec.shape.as_list():
        raise ValueError(f"observation_spec: the image {name} of shape {spec.shape} is empty, expected pixels.")
    for i, layer in enumerate(layers):
        if len(layer) != 3 or min(layer) < 1:
            raise ValueError(f"conv_layers: found {layer!r}, expected positive (filters, kernel size, stride).")
        _, kernel_size, stride = layer
        if min(height, width) < kernel_size:
            raise ValueError(
                f"conv_layers: the kernel of layer {i} has {kernel_size} x {kernel_size} pixels, but {height} x "
                f"{width} are left of the image {name} of shape {spec.shape}."
            )
        height, width = ((size - kernel_size) // stride + 1 for size in (height, width))
