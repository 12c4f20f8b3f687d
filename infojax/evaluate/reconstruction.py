"""A masked auto-encoder's predictions of hidden patches, as pictures."""

import base64
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from infojax.evaluate.forward import Sample
from infojax.objectives import Model, Net
from infojax.objectives.selfsup import patchify, unpatchify


def reconstructions(
    net: Net, transform: Callable[..., jax.Array], sample: Sample, patch: int, ddof: int | None, moments: Any
) -> Callable[[Mapping[str, Model]], Iterator[tuple[str, Any]]]:
    """An evaluator's `run`: a sample's pictures, the predictions of all their patches, and which were hidden.

    "pictures" is `packed` uint8 (n, H, W, 2 channels + 1): the picture, the prediction, and 1 where it was hidden.
    Masks are drawn once. A network that predicts patches of mean 0 and variance 1 is shown with the mean
    and the deviation of the picture's own patch, which the network was never told.

    Args:
      net: (images, noise) -> `MAEOutput`; its variables are those under "net" of the model.
      transform: of stored samples, such as "plain".
      ddof: of the variance by which targets are normalised; None where they are pixels.
      moments: (mean, std) of it, per channel, on the scale 0 to 255.
    """
    mean, std = (np.asarray(moment, np.float32).reshape(1, 1, 1, -1) for moment in moments)

    @jax.jit
    def shown(params, model_state, x):
        images = transform(None, x)
        rows = images.shape[1] // patch
        target = patchify(images.astype(jnp.float32), patch)
        noise = jax.random.uniform(jax.random.key(0), target.shape[:2], jnp.float32)
        output = net.apply(params, model_state, images, noise, train=False)[0]
        prediction = output.prediction
        if ddof is not None:
            deviation = jnp.sqrt(jnp.var(target, axis=-1, ddof=ddof, keepdims=True) + 1e-6)
            prediction = prediction * deviation + jnp.mean(target, axis=-1, keepdims=True)
        hidden = jnp.broadcast_to(output.mask[..., None], (*target.shape[:2], patch**2))
        pixels = [unpatchify(part, patch, rows) * std + mean for part in (target, prediction)]
        parts = [jnp.clip(jnp.round(part), 0, 255) for part in pixels]
        return jnp.concatenate([*parts, unpatchify(hidden, patch, rows)], axis=-1).astype(jnp.uint8)

    def run(models):
        model = models["raw"]
        yield "split", sample.split
        yield "picture_samples", len(sample.x)  # "n" is for the split
        pictures = np.asarray(shown(model.params["net"], model.model_state["net"], sample.x))
        yield "pictures", packed(pictures)
        yield "pictures_shape", list(pictures.shape)

    return run


def packed(pixels: np.ndarray) -> str:
    """The bytes of uint8 numbers as text, base64."""
    return base64.b64encode(np.ascontiguousarray(pixels, np.uint8).tobytes()).decode()
