"""The cross-entropy against float64, relatively."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from infojax.measures.classification import cross_entropy


def test_cross_entropy_is_exact_however_small():
    """Against float64: value and every component of the gradient, relatively, down to losses of 1e-20."""
    rng = np.random.default_rng(0)
    logits = (rng.normal(size=(60, 12)) * np.geomspace(0.1, 60, 60)[:, None]).astype(np.float32)
    labels = np.where(np.arange(60) % 2, logits.argmax(1), rng.integers(0, 12, 60))
    margins = logits.astype(np.float64) - logits[np.arange(60), labels, None].astype(np.float64)
    others = np.where(np.arange(12) == labels[:, None], 0.0, np.exp(margins))
    expected, total = np.log1p(others.sum(1)), 1 + others.sum(1, keepdims=True)
    assert expected.min() < 1e-15 and expected.max() > 50
    np.testing.assert_allclose(cross_entropy(jnp.asarray(logits), jnp.asarray(labels)), expected, rtol=2e-6)
    slope = others / total
    slope[np.arange(60), labels] = -slope.sum(1)
    found = jax.grad(lambda z: jnp.sum(cross_entropy(z, jnp.asarray(labels))))(jnp.asarray(logits))
    np.testing.assert_allclose(found, slope, rtol=2e-5, atol=1e-35)
    naive = optax.softmax_cross_entropy_with_integer_labels(jnp.asarray(logits), jnp.asarray(labels))
    assert np.any((np.asarray(naive) == 0) & (expected > 0))  # what this is for
