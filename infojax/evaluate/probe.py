"""Linear probes of frozen features: the exact one, and the features themselves.

Logistic regression has a unique solution and needs no learning rate: over weights W (C, D) and biases b

  mean_i CE(W x_i + b, y_i) + |W|_F^2 / (2 c n),   x standardised by the training samples

found by L-BFGS in float32 until the largest entry of the gradient is below a tolerance: scikit-learn's
`LogisticRegression(C=c)` on the same features. The probe of MAE, LARS after batch normalisation without affine
parameters, is `infojax.models.LinearProbe`, trained like any other network.

References:
  He et al. 2022, appendix A; Radford et al. 2021, section 3.2, L-BFGS.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from infojax.data import DataError
from infojax.data.source import Source
from infojax.objectives import Average, Head, Model, Supervised, objective


@objective
class LinearLoss(Supervised):
    """Cross-entropy of the unaugmented samples, without an average of the parameters."""

    transform: str = "plain"

    @property
    def averages(self) -> Mapping[str, Average]:  # type: ignore[override]  # a plain attribute of the base
        return {}


class Standard(NamedTuple):
    """(x - mean) / scale of features, (D,) each; the scale of a constant feature is 1.

    Attributes:
      mean: of the training samples; scale: their standard deviation (dividing by N).
    """

    mean: np.ndarray
    scale: np.ndarray

    def __call__(self, x: Any) -> Any:
        return (x - self.mean) / self.scale


def standard(x: np.ndarray) -> Standard:
    """`Standard` of (N, D) features, computed in float64."""
    mean, scale = x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)
    scale = np.where(scale > 1e-7 * np.maximum(np.abs(mean), 1e-30), scale, 1.0)
    return Standard(mean.astype(np.float32), scale.astype(np.float32))


class Logistic(NamedTuple):
    """A fitted multinomial logistic regression.

    Attributes:
      head: `Head` for standardised features.
      loss: final value of the objective; gradient: the largest entry of its gradient there.
      steps: of L-BFGS; converged: whether `gradient` is below the tolerance.
    """

    head: Head
    loss: float
    gradient: float
    steps: int
    converged: bool


def logistic_regression(
    x: Any,
    labels: Any,
    num_classes: int,
    c: float = 1.0,
    *,
    tolerance: float = 1e-4,
    steps: int = 1000,
    block: int = 65_536,
) -> Logistic:
    """Multinomial logistic regression by L-BFGS.

    Args:
      x: (N, D) standardised features; labels: (N,) in [0, num_classes).
      c: scikit-learn's C, the inverse strength of the penalty; biases are not penalised.
      tolerance: for the largest entry of the gradient of the mean; scikit-learn's `tol`, with the same default.
      steps: maximum number.
      block: rows whose logits are in memory at once.
    Raises:
      ValueError: c is not positive, or the numbers of rows and labels differ.
    """
    if not c > 0:
        raise ValueError(f"c must be positive, got {c}")
    if x.ndim != 2 or len(x) != len(labels):
        raise ValueError(f"x must be (N, D) with N labels; got {x.shape} and {len(labels)} labels")
    n, block = len(x), min(block, len(x))
    pad = -n % block
    x = jnp.pad(jnp.asarray(x, jnp.float32), ((0, pad), (0, 0))).reshape(-1, block, x.shape[1])
    labels = jnp.pad(jnp.asarray(labels, jnp.int32), (0, pad), constant_values=-1).reshape(-1, block)
    head, loss, gradient, count = _fit(x, labels, num_classes, n, 1 / (c * n), tolerance, steps)
    return Logistic(head, float(loss), float(gradient), int(count), bool(gradient <= tolerance))


@partial(jax.jit, static_argnames=("num_classes", "n", "steps"))
def _fit(x, labels, num_classes, n, penalty, tolerance, steps):
    @jax.checkpoint
    def of_block(head, x, labels):
        logits = jnp.matmul(x, head.weights.T, precision="highest") + head.bias[None]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))
        return jnp.sum(jnp.where(labels < 0, 0, losses))

    def loss(head):
        def add(total, part):
            return total + of_block(head, *part), None

        total, _ = jax.lax.scan(add, jnp.zeros(()), (x, labels))
        return total / n + 0.5 * penalty * jnp.sum(jnp.square(head.weights))

    tx = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def largest(gradient):
        return jnp.maximum(jnp.max(jnp.abs(gradient.weights)), jnp.max(jnp.abs(gradient.bias)))

    def going(carry):
        _, _, gradient, count = carry
        return (count < steps) & (largest(gradient) > tolerance)

    def step(carry):
        head, state, _, count = carry
        value, gradient = value_and_grad(head, state=state)
        updates, state = tx.update(gradient, state, head, value=value, grad=gradient, value_fn=loss)
        head = optax.apply_updates(head, updates)
        return head, state, optax.tree.get(state, "grad"), count + 1

    start = Head(jnp.zeros((num_classes, x.shape[2])), jnp.zeros(num_classes))
    carry = (start, tx.init(start), jax.grad(loss)(start), jnp.zeros((), jnp.int32))
    head, _, gradient, count = jax.lax.while_loop(going, step, carry)
    return head, loss(head), largest(gradient), count


def accuracy(head: Head, x: Any, labels: Any, block: int = 65_536) -> float:
    """Share of samples whose largest logit is that of their label."""
    rows = (slice(start, start + block) for start in range(0, len(x), block))
    right = sum(int(jnp.sum(_classes(head, jnp.asarray(x[at])) == jnp.asarray(labels[at]))) for at in rows)
    return right / len(x)


@jax.jit
def _classes(head, x):
    return jnp.argmax(jnp.matmul(x, head.weights.T, precision="highest") + head.bias[None], axis=1)


def frozen_features(
    model: Model, transform: Callable[..., jax.Array], source: Source, layer: str = "embedding", batch_size: int = 512
) -> tuple[np.ndarray, np.ndarray]:
    """((N, D) float32 features, (N,) labels) of a split at fixed weights, read and computed batch by batch, once.

    Args:
      transform: of stored samples, such as "plain" of `transforms`.
      layer: "embedding", or a key of `Output.features`, averaged over all axes but the first and the last.
    Raises:
      DataError: a feature is not finite.
    """

    @jax.jit
    def features(model, x):
        x = transform(None, x)
        found = model(x).embedding if layer == "embedding" else model(x, stop=layer)
        return jnp.mean(found.astype(jnp.float32), axis=tuple(range(1, found.ndim - 1)))

    rows, labels = [], []
    size = min(batch_size, len(source))
    for start in range(0, len(source), size):
        x, y = source.read(np.arange(start, min(start + size, len(source))))
        short = 0 if model.net.of_batch else size - len(x)
        x = np.pad(x, ((0, short),) + ((0, 0),) * (x.ndim - 1))
        rows.append(np.asarray(features(model, x))[: len(y)])
        labels.append(y)
    found = np.concatenate(rows)
    wrong = ~np.isfinite(found).all(1)
    if wrong.any():
        raise DataError(f"the features of {wrong.sum():,} of {len(found):,} samples are NaN or Inf; there is no probe")
    return found, np.concatenate(labels)
