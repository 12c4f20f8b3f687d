"""Layerwise compression on 10,000 random pictures: NC1 of every layer of f+, and decoders of one layer of f-."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from infojax.evaluate import Decoding, layer_shapes, layerwise_nc1, usable
from infojax.evaluate.forward import Sample
from infojax.models import build
from infojax.objectives import Model
from infojax.train import optim
from infojax.train.networks import as_net

CLASSES, BATCH = 10, 400


def pictures(shape: tuple[int, ...], n: int) -> Sample:
    """Class patterns with noise, uint8."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % CLASSES
    x = 0.5 * rng.random((CLASSES, *shape))[labels] + 0.5 * rng.random((n, *shape))
    return Sample("train", jnp.asarray((255 * x).astype(np.uint8)), jnp.asarray(labels, jnp.int32))


def plain(key: Any, x: Any) -> jax.Array:
    """Pixels from 0 to 1."""
    return x.astype(jnp.float32) / 255


def seconds(call: Callable[[], Any]) -> float:
    """Seconds of the second call: the first one compiles."""
    jax.block_until_ready(call())
    begun = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - begun


def geometric(quick: bool) -> Iterator[dict[str, Any]]:
    """Two passes over the sample, three layers."""
    n, shape = (2000 if quick else 10_000), (32, 32, 3)
    net = as_net(build("f_plus", CLASSES), jax.ShapeDtypeStruct((2, *shape), jnp.float32))
    sample, (params, statistics) = pictures(shape, n), net.init(jax.random.key(0))
    model = Model(params, statistics, net)
    measure = layerwise_nc1(plain, CLASSES, BATCH, ("layer*",))
    took = seconds(lambda: measure(model, sample.x, sample.labels))
    yield {"what": f"tr(S_W S_B^+) of the three layers of f+, {n:,} pictures of 32 x 32 x 3", "seconds": took}


def minimality(quick: bool) -> Iterator[dict[str, Any]]:
    """Decoders of the digits on both splits, including encoding and the final evaluation."""
    n, epochs, shape = (2000 if quick else 10_000), (1 if quick else 2), (28, 28, 1)
    module = build("f_minus", CLASSES)
    net = as_net(module, jax.ShapeDtypeStruct((2, *shape), jnp.float32))
    sample = pictures(shape, n)
    shapes = layer_shapes(net, plain, sample.x)
    params, statistics = net.init(jax.random.key(0))
    models = {"raw": Model(params, statistics, net)}

    def net_of(layer):
        return as_net(module, jax.ShapeDtypeStruct((2, *shapes[layer]), jnp.float32), start=layer)

    on_cpu = jax.default_backend() == "cpu"
    decoding = Decoding(
        net_of, optim.adamw(2e-3, decayed=None), plain, CLASSES, batch_size=BATCH, epochs=epochs, rest_loss=0.0,
        how="dispatch" if on_cpu else "vmap", fused=not on_cpu,
    )  # fmt: skip
    for layer in ("layer1", "layer2", "layer3"):
        run = usable("minimality", net, [sample, sample._replace(split="test")], shapes, (layer,), decoding, [0])
        took = seconds(lambda run=run: [row["minimality"] for row in run([models])])
        yield {
            "what": f"minimality of {layer} of f-, {n:,} pictures of 28 x 28, 3 digits, {epochs} epochs",
            "seconds": took / 2,  # of one split
        }


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Rows of both benchmarks."""
    return [row for part in (geometric, minimality) for row in part(quick)]
