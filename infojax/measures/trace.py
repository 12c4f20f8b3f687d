"""H(A) = -tr A log A of a density matrix that is only multiplied by vectors: a value, bounds and an error bar.

1. Block Krylov finds the largest eigenvalues. Those with a small residual ||A q - l q|| are treated exactly.
2. On the orthogonal complement B = P A P, z^T f(B) z of random unit vectors has mean tr f(B) / dim. Lanczos gives an
   upper and a lower bound of each (`quadrature`), until they are close enough.
3. tr B and tr B^2 are known, which removes most of the variance; more vectors are drawn until the rest is small enough.

Vectors that have not converged must not be removed: the compression of A to two complementary subspaces has a larger
entropy than A, by about sum_q r_q^2 / l_q log(l_q / l) for residuals r_q, which the lower bound allows for.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from infojax.measures.arrays import total
from infojax.measures.interval import Estimate
from infojax.measures.operators import ROWS, WHOLE, Operator, _einsum
from infojax.measures.quadrature import Rules, entropy_terms, rules, trace_of

BLOCK, BLOCKS = 64, 4  # of the Krylov space: with fewer blocks eigenvalues of trained features do not converge
CONVERGED = 3e-3  # ||A q - l q|| <= 3e-3 l: the entropy is off by 1e-5 l log(l / l_min)
OPERATOR = "operator"
STEPS, MOST_STEPS = 8, 96  # of Lanczos, between two checks of the bounds
COLUMNS = 32  # Q is padded to multiples, so that few shapes are compiled


class Stage(NamedTuple):
    """A function of (axis, *arrays) that is compiled for one device or, with the samples split, for several.

    Attributes:
      function: takes axis (None or a name), the arrays, and the `static` values.
      arguments, result: placement of each array: ROWS (one entry per sample, split), WHOLE (replicated), OPERATOR
        (field by field), or a tuple of these.
      static: further arguments, known when compiling.
      makes: type of an OPERATOR result.
      checked: whether JAX's check for missing reductions passes (its own eigh for TPU does not).
    """

    function: Callable
    arguments: tuple
    result: object
    static: tuple = ()
    makes: type | None = None
    checked: bool = True

    def on(self, axis: str | None) -> Callable[..., Any]:
        """The function of only the arrays."""
        return lambda *arrays: self.function(axis, *arrays, *self.static)


# Compiles a stage for one device, or for the devices over which the samples are split.
Compiled: TypeAlias = Callable[[Stage], Callable[..., Any]]


@cache
def on_one_device(stage: Stage) -> Callable[..., Any]:
    """The compiled stage."""
    return jax.jit(stage.on(None))


def _probes(axis, operator, key, columns):
    """Standard normal vectors that depend only on the sample indices, not on the split; zero at padding."""
    ids = operator.ids
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.maximum(ids, 0))
    g = jax.vmap(lambda k: jax.random.normal(k, columns.shape, columns.dtype))(keys)
    return jnp.where(ids[:, None] >= 0, g, 0)


def _facts(axis, operator):
    """Number of live entries, whether they are finite, and tr A^2 (nan if unknown)."""
    finite = jnp.all(jnp.isfinite(operator.apply(jnp.ones((len(operator.ids), 1), operator.dtype), axis)))
    infinite = total((~finite).astype(jnp.int32), axis)
    return total(jnp.sum(operator.ids >= 0), axis), infinite == 0, operator.squared_norm(axis)


def _orthonormal(x, axis):
    """Orthonormal columns of the span of x; zero columns if it has fewer dimensions."""
    for _ in range(2):
        k = total(_einsum("np,nq->pq", x, x), axis)
        scale = jnp.sqrt(jnp.diagonal(k))
        scale = jnp.where(scale > 0, 1 / jnp.where(scale > 0, scale, 1), 0)
        w, v = jnp.linalg.eigh(scale[:, None] * k * scale[None, :])
        keep = w > 10 * jnp.finfo(w.dtype).eps * w[-1] * len(w)
        inverse = jnp.where(keep, 1 / jnp.sqrt(jnp.where(keep, w, 1)), 0)
        x = _einsum("np,pq->nq", x, scale[:, None] * v * inverse[None, :])
    return x


def _project_out(basis, x, axis):
    return x - _einsum("nk,kp->np", basis, total(_einsum("nk,np->kp", basis, x), axis))


def _begin(axis, operator, x):
    return _orthonormal(operator.apply(x, axis), axis)


def _extend(axis, operator, basis):
    """The next block A x, orthogonalised against all previous ones, and A x itself; x is the last block."""
    image = operator.apply(basis[:, -BLOCK:], axis)
    x = image
    for _ in range(2):
        x = _project_out(basis, x, axis)
    return _orthonormal(x, axis), image


def _image(axis, operator, x):
    return operator.apply(x, axis)


def _compressed(axis, basis, images):
    return total(_einsum("nk,np->kp", basis, images), axis)


def _residuals(axis, basis, images, vectors, values):
    r = _einsum("nk,kp->np", images, vectors) - _einsum("nk,kp->np", basis, vectors * values[None, :])
    return jnp.sqrt(total(jnp.sum(r * r, axis=0), axis))


def _combined(axis, basis, vectors):
    return _einsum("nk,kp->np", basis, vectors)


class Lanczos(NamedTuple):
    """b three-term recurrences at once: the last two vectors (rows) and their coupling (replicated)."""

    vector: jax.Array
    before: jax.Array
    beta: jax.Array


def _normalised(x, axis):
    norm = jnp.sqrt(total(jnp.sum(x * x, axis=0), axis))
    return norm, jnp.where(norm > 0, x / jnp.where(norm > 0, norm, 1)[None, :], 0)


def _launch(axis, q, x):
    _, x = _normalised(_project_out(q, _project_out(q, x, axis), axis), axis)
    return Lanczos(x, jnp.zeros_like(x), jnp.zeros(x.shape[1], x.dtype))


def _advance(axis, operator, q, state):
    """STEPS steps of Lanczos on P A P; alpha, beta (STEPS, b)."""

    def step(state, _):
        x, before, beta = state
        y = _project_out(q, operator.apply(x, axis), axis) - beta[None, :] * before
        alpha = total(jnp.sum(x * y, axis=0), axis)
        beta, y = _normalised(y - alpha[None, :] * x, axis)
        return Lanczos(y, x, beta), (alpha, beta)

    return jax.lax.scan(step, state, length=STEPS)


LANCZOS: tuple = Lanczos(ROWS, ROWS, WHOLE)  # type: ignore[arg-type]  # placements in place of arrays
PROBES = Stage(_probes, (OPERATOR, WHOLE, WHOLE), ROWS)
FACTS = Stage(_facts, (OPERATOR,), (WHOLE, WHOLE, WHOLE))
BEGIN = Stage(_begin, (OPERATOR, ROWS), ROWS)
EXTEND = Stage(_extend, (OPERATOR, ROWS), (ROWS, ROWS))
IMAGE = Stage(_image, (OPERATOR, ROWS), ROWS)
COMPRESSED = Stage(_compressed, (ROWS, ROWS), WHOLE)
RESIDUALS = Stage(_residuals, (ROWS, ROWS, WHOLE, WHOLE), WHOLE)
COMBINED = Stage(_combined, (ROWS, WHOLE), ROWS)
LAUNCH = Stage(_launch, (ROWS, ROWS), LANCZOS)
ADVANCE = Stage(_advance, (OPERATOR, ROWS, LANCZOS), (LANCZOS, (WHOLE, WHOLE)))


def estimate_entropy_of(
    operator: Operator,
    *,
    tolerance: float,
    confidence: float,
    seed: int,
    vectors: int,
    compiled: Compiled = on_one_device,
) -> Estimate:
    """`Estimate` of -tr A log A of a density matrix A.

    Args:
      operator: of `infojax.measures.operators`, trace one.
      tolerance: half the requested width of [lower, upper], nats.
      confidence: that the true value lies in it; the bounds hold in exact arithmetic.
      seed: of the random vectors.
      vectors: maximum number of random vectors; they are drawn in groups of a quarter of it, at least 16.
      compiled: Stage -> function: for one device, or for the devices over which the operator is split.
    """
    size, finite, squared = (np.asarray(x).astype(np.float64) for x in compiled(FACTS)(operator))
    dtype = operator.dtype
    if not finite:
        return Estimate(np.nan, np.nan, np.nan, np.nan, met=False)
    if size < 2:
        return Estimate(0.0, 0.0, 0.0)
    keys = (jax.random.fold_in(jax.random.key(seed), i) for i in range(10**9))

    def draw(columns):
        return compiled(PROBES)(operator, next(keys), jnp.zeros(columns, dtype))

    values, residuals, q, spent = _largest(operator, draw, int(size), compiled)
    rest, eps = size - len(values), float(jnp.finfo(dtype).eps)
    exact, rounding = np.sum(entropy_terms(values)), 16 * eps * np.log(size)
    leak = float(np.sum(residuals**2 / values) * -np.log(eps)) if len(values) else 0.0
    # ||A||^2 = sum l^2 + ||P A P||^2 + twice the off-diagonal blocks, which are the residuals. The differences are off
    # by the rounding of their terms, which the slopes of the regression multiply.
    traces = np.array([1 - np.sum(values), squared - np.sum(values**2) - 2 * np.sum(residuals**2)])
    traces, errors = traces[np.isfinite(traces)], 4 * eps * np.array([1, squared])

    def result(middle, below, above, error, **cost):
        lower, upper = max(float(exact + below - leak - rounding), 0.0), float(exact + above + rounding)
        met = bool(upper - lower <= 2 * tolerance)
        return Estimate(float(exact + middle), lower, upper, error, met, deflated=len(values), **cost)

    if rest < 1 or traces[0] <= 8 * eps:
        # The remainder may be as large as its rounding error, spread over all other dimensions.
        return result(0.0, 0.0, entropy_terms(np.array(16 * eps)) + 16 * eps * np.log(size), 0.0, products=spent)
    group, found, steps = max(vectors // 4, 16), [], 0
    while True:
        one, steps = _bracketed(operator, q, draw(group), rest, steps, tolerance, compiled)
        found.append(one)
        every = Rules(*map(np.concatenate, zip(*found, strict=True)))
        sums = [trace_of(every, rest, traces[:k], errors[:k]) for k in range(1, len(traces) + 1)]
        s = min(sums, key=lambda s: s.margin(confidence))
        margin, drawn = s.margin(confidence), group * len(found)
        best = result(
            (s.lower + s.upper) / 2, s.lower - margin, s.upper + margin, s.standard_error,
            products=spent + steps * drawn, steps=steps, vectors=drawn,
        )  # fmt: skip
        hopeless = s.upper - s.lower + leak > 2 * tolerance
        if best.met or hopeless or drawn >= vectors:
            return best


def _bracketed(operator, q, x, size, steps, tolerance, compiled):
    """`Rules` of the vectors x after `steps` steps of Lanczos, or, if 0, once the bounds are close; and the steps."""
    state, alpha, beta = compiled(LAUNCH)(q, x), [], []
    while True:
        state, (a, b) = compiled(ADVANCE)(operator, q, state)
        alpha, beta = [*alpha, np.asarray(a, np.float64)], [*beta, np.asarray(b, np.float64)]
        found, done = rules(np.concatenate(alpha), np.concatenate(beta)), STEPS * len(alpha)
        close = not steps and size * np.mean(found.gauss - found.radau) <= tolerance
        if close or done >= (steps or MOST_STEPS):
            return found, done


def _largest(operator, draw, size, compiled):
    """Converged largest eigenvalues, descending, their residuals, eigenvectors (columns), and columns multiplied."""
    if size < 2 * BLOCK * BLOCKS:
        none = compiled(COMBINED)(draw(BLOCK), jnp.zeros((BLOCK, COLUMNS), operator.dtype))
        return np.zeros(0), np.zeros(0), none, 0
    basis, images = compiled(BEGIN)(operator, draw(BLOCK)), []
    for _ in range(BLOCKS - 1):
        block, image = compiled(EXTEND)(operator, basis)
        basis, images = jnp.concatenate([basis, block], axis=1), [*images, image]
    images = jnp.concatenate([*images, compiled(IMAGE)(operator, basis[:, -BLOCK:])], axis=1)
    t = np.asarray(compiled(COMPRESSED)(basis, images), np.float64)
    values, vectors = np.linalg.eigh((t + t.T) / 2)
    values, vectors = values[::-1], np.ascontiguousarray(vectors[:, ::-1])
    residuals = compiled(RESIDUALS)(basis, images, *(jnp.asarray(x, basis.dtype) for x in (vectors, values)))
    residuals = np.asarray(residuals, np.float64)
    # Columns dropped for lack of dimensions come back as eigenvalues that are zero up to rounding.
    keep = (residuals <= CONVERGED * values) & (values > 1e-5 * values[0])
    chosen = vectors[:, keep]
    chosen = np.pad(chosen, ((0, 0), (0, -chosen.shape[1] % COLUMNS if chosen.shape[1] else COLUMNS)))
    q = compiled(COMBINED)(basis, jnp.asarray(chosen, basis.dtype))
    return values[keep], residuals[keep], q, BLOCK * (BLOCKS + 1)
