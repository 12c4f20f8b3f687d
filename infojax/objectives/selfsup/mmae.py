"""M-MAE: MAE whose class tokens have a large total coding rate."""

import jax
import jax.numpy as jnp

from infojax.measures.coding import coding_rate_of_moment
from infojax.measures.spectra import smaller_gram
from infojax.objectives.contract import Context, Metrics
from infojax.objectives.objective import objective
from infojax.objectives.selfsup.common import unit
from infojax.objectives.selfsup.mae import scaled_gradient
from infojax.objectives.selfsup.umae import UMAE

FORMS = ("code", "paper", "mcr2")


def total_coding_rate(
    z: jax.Array, mu: float | jax.Array = 1.0, *, form: str = "code", center: bool = False
) -> jax.Array:
    """Total coding rate of the unit rows U of z (B, D), in nats: `infojax.coding_rate`, with centring.

    "code":  log det(I + (mu / D) G), G = U^T U, in [log(1 + mu B / D), r log(1 + mu B / (D r))], r = min(B, D);
    "paper": log det(mu' I + G), which is "code" with mu = D / mu', plus D log mu';
    "mcr2":  (1/2) log det(I + mu D / B G).

    "code" is what the released code computes (its comment says mu / B). To second order in (mu / D) G, -"code" is a
    constant plus (mu B / D)^2 / 2 `uniformity`. The series needs the largest eigenvalue of G below D / mu, where a
    collapsed batch has one of B.

    Args:
      center: subtract the mean of the unit rows first: G = U^T J U. The released script's `--centering False` was read
        as True in the one month in which it ran at all; whether the paper's runs were centred is not known. Centred, a
        collapsed batch has rate 0, and the first order is (mu B / D) (1 - |mean u|^2), no constant.
    Raises:
      ValueError: unknown form, mu that is not positive.
    References:
      Tan et al. 2024, "Information Flow in Self-Supervised Learning"; yifanzhang-pro/M-MAE.
    """
    u = unit(z)
    u = u - jnp.mean(u, axis=0, keepdims=True) if center else u
    return coding_rate_of_moment(smaller_gram(u), jnp.asarray(len(u), u.dtype), u.shape[1], mu, form)


@objective
class MMAE(UMAE):
    """MAE - lambda `total_coding_rate` of the class tokens.

    The rate depends on mu B / D for spread features: the runs on ImageNet have 1.33 (base, mu = 1, B = 1024) and 3
    (large, mu = 3).

    Attributes:
      strength: lambda; gradient_scale: as of `UMAE`.
      mu, form, center: of `total_coding_rate`.
    """

    mu: float = 1.0
    form: str = "code"
    center: bool = False

    def regulariser(self, token: jax.Array, ctx: Context) -> tuple[jax.Array, Metrics]:
        rate = total_coding_rate(ctx.gather(token), self.mu, form=self.form, center=self.center)
        return scaled_gradient(-self.strength * rate, self.gradient_scale), {"coding_rate": rate}
