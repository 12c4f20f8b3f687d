"""Virtual adversarial training: the output is smoothed in the direction in which it changes most."""

from functools import partial

import jax
import jax.numpy as jnp

from infojax.objectives.contract import Aux
from infojax.objectives.nets import Nets
from infojax.objectives.objective import objective
from infojax.objectives.semisup.common import SemiSupervised, apart, hard, ramp


@objective
class VAT(SemiSupervised):
    """CE(labelled) + weight ramp(k) KL(sg p(x) || p(x + r)) + entropy_weight H(p(x)).

    r = radius d / |d|, d = H u: the Hessian H of the divergence at r = 0 applied to a random direction u, one step of
    the power iteration. The product H u is exact here; the published codes take a finite difference of 1e-6, which is
    lost in the rounding of float32.

    Attributes:
      radius: norm of the perturbation r, in units of the normalised samples.
    References:
      Miyato et al. 2018; TorchSSL models/vat.
    """

    ratio: int = 1
    weight: float = 0.3
    entropy_weight: float = 0.06
    ramp_fraction: float = 0.4
    radius: float = 6.0

    unlabelled = {"weak": "weak"}

    def draws(self, key, batch, ctx):
        """Standard normal directions, one per unlabelled sample, of the shape of the images."""
        return jax.random.normal(key, batch["unlabelled"].views["weak"].shape)

    def loss(self, nets, state, constants, batch, draws, ctx):
        labelled, x = batch["labelled"], batch["unlabelled"].views["weak"]
        supervised = hard(nets("net", labelled.views["weak"]).logits, labelled.labels)
        log_p = jax.nn.log_softmax(apart(nets, x).logits)
        divergence = partial(kl, jax.lax.stop_gradient(log_p), nets, x)
        _, d = jax.jvp(jax.grad(divergence), (jnp.zeros_like(x),), (draws,))
        r = self.radius * jax.lax.stop_gradient(unit(d))
        smoothness, entropy = divergence(r), -jnp.mean(jnp.sum(jnp.exp(log_p) * log_p, -1))
        value = supervised + self.weight * ramp(state, ctx, self.ramp_fraction) * smoothness
        metrics = {"supervised_loss": supervised, "unsupervised_loss": smoothness, "entropy": entropy}
        return value + self.entropy_weight * entropy, Aux(metrics=metrics)


def kl(log_p: jax.Array, nets: Nets, x: jax.Array, r: jax.Array) -> jax.Array:
    """The mean over samples of KL(p || softmax z(x + r)), 0-d, for log p (n, C), x and r (n, H, W, channels)."""
    return jnp.mean(jnp.sum(jnp.exp(log_p) * (log_p - jax.nn.log_softmax(apart(nets, x + r).logits)), -1))


def unit(d: jax.Array) -> jax.Array:
    """Each sample of d (n, ...) divided by its norm; a sample of zeros stays zero.

    The largest entry is scaled to 1 first, so that no square underflows.
    """
    axes = tuple(range(1, d.ndim))
    largest = jnp.max(jnp.abs(d), axes, keepdims=True)
    d = d / jnp.where(largest > 0, largest, 1)
    return d / jnp.sqrt(jnp.maximum(jnp.sum(d**2, axes, keepdims=True), 1e-12))
