"""Statistics over all pairs of classes of a vocabulary, summed tile by tile: CDNV, NC2, GNC2, NC3 and UNC3.

Distances come from products of centred means, |a|^2 + |b|^2 - 2 <a, b>; for near classes, which lose digits so, they
are recomputed from differences. Means and variances are divided by powers of two first. Sums run over at most a
tile in float32 and over tiles in float64. Distances to a simplex ETF need no pairs: with A = W M^T and
S = (I - J / C) / sqrt(C - 1), ||A / ||A|| - S||^2 = 2 - 2 <A, S> / ||A||, where <A, S> is a trace and a product of
sums, and ||W M^T||^2 = <W^T W, M^T M>, of D x D matrices in float64.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from infojax.measures import arrays, conversion, scalars
from infojax.measures.arrays import ArrayLike
from infojax.measures.tile_sums import Rows, Sums
from infojax.measures.vocabulary import NEAR, TILE, VocabularyStats, checked_head, checked_stats


class VocabularyCollapse(NamedTuple):
    """Collapse of a vocabulary, as floats and ints. Centred class means: m_c = mu_c - mu_C, u_c = m_c / ||m_c||.

    num_classes, left_out: classes that count, and classes with too few samples. coincident: pairs of equal means.
    cdnv: mean over pairs of (v_c + v_c') / (2 ||mu_c - mu_c'||^(2 k)), v_c the mean squared distance to mu_c.
    equinorm: std / mean of ||m_c||, std with C - 1. log_norm_mean, log_norm_std: of log ||m_c||, std with C - 1.
    equiangularity: mean |cos + 1 / (C - 1)|. interference_mean, interference_std: of <m_c, m_c'> over pairs.
    etf_distance: NC2, || M M^T / ||.||_F - (I - J / C) / sqrt(C - 1) ||_F.
    gnc2_mean, gnc2_std: of log 1 / ||u_c - u_c'|| over pairs. distance_mean, distance_std: of ||u_c - u_c'||.
    nc3: || W / ||W||_F - M / ||M||_F ||_F^2. nc3_etf: as etf_distance, of W M^T. None without a head, as the rest:
    unc3_mean, unc3_std: UNC3, of <w_c, m_c>; unc3_cos_mean, unc3_cos_std: of their cosines. Stds over
    classes divide by C - 1, those over pairs by the number of pairs.
    """

    num_classes: int
    left_out: int
    coincident: int
    cdnv: float
    equinorm: float
    log_norm_mean: float
    log_norm_std: float
    equiangularity: float
    interference_mean: float
    interference_std: float
    etf_distance: float
    gnc2_mean: float
    gnc2_std: float
    distance_mean: float
    distance_std: float
    nc3: float | None = None
    nc3_etf: float | None = None
    unc3_mean: float | None = None
    unc3_std: float | None = None
    unc3_cos_mean: float | None = None
    unc3_cos_std: float | None = None


def vocabulary_collapse(
    stats: VocabularyStats,
    head: ArrayLike | None = None,
    *,
    min_count: int = 2,
    distance_exponent: float = 1.0,
    tile: int = TILE,
    progress: Callable[[int, int], None] | None = None,
) -> VocabularyCollapse:
    """Neural collapse of all pairs of classes, in memory for a few tiles and two (D, D) matrices of float64.

    Args:
      stats: `VocabularyStats` of all tokens; its arrays may be memory-mapped.
      head: (C, D) classifier weights, the output embedding of a language model, or None.
      min_count: classes with fewer samples are left out, and counted in `left_out`.
      distance_exponent: k of the CDNV: 1 for Galanti et al.'s, 2 for the numbers of "Linguistic Collapse".
      tile: classes on a side of a tile.
      progress: called after each tile with (done, of).
    Returns:
      `VocabularyCollapse`; nan with fewer than two classes, inf where means with spread around them coincide.
    References:
      Wu and Papyan, "Linguistic Collapse: neural collapse in (large) language models", NeurIPS 2024.
    """
    stats = checked_stats(stats)
    if any(isinstance(x, jax.core.Tracer) for x in stats):
        raise ValueError("stats are traced: vocabularies are summed tile by tile outside jit, grad and vmap")
    counts, (classes, dim) = np.asarray(stats.counts), np.shape(stats.mean)
    for field in ("counts", "squares"):
        arrays.check_not_negative(np.asarray(getattr(stats, field)), f"stats.{field}")
    if head is not None:
        head = checked_head(head, classes, dim)
    kept = np.flatnonzero(counts >= scalars.whole_number(min_count, "min_count", 1))
    exponent = float(scalars.number(distance_exponent, "distance_exponent", "a positive number", lambda x: 0 < x <= 8))
    tile = scalars.whole_number(tile, "tile", 1)
    means = Rows(stats.mean, kept, tile)
    means.normalise()
    weights = None if head is None else Rows(head, kept, tile)
    variances = np.asarray(stats.squares, np.float64)[kept] / np.maximum(counts[kept], 1)
    norms, of_classes = _of_classes(means, weights)
    pairs = _of_pairs(means, variances, norms, exponent, progress or (lambda done, steps: None))
    return VocabularyCollapse(len(kept), classes - len(kept), **pairs, **of_classes)


class _Pass:
    """Norms, sum and D x D Gram matrix of rows, in one pass and float64."""

    def __init__(self, dim: int) -> None:
        self.norms, self.total, self.gram = np.zeros(0), np.zeros(dim), np.zeros((dim, dim))

    def add(self, rows: np.ndarray) -> None:
        self.norms = np.append(self.norms, np.linalg.norm(rows, axis=1))
        self.total += rows.sum(axis=0)
        self.gram += rows.T @ rows


def _of_classes(means, weights):
    """(norms of the means, what needs no pairs of classes), in O(C D^2)."""
    m, w, dots = _Pass(np.shape(means.source)[1]), _Pass(np.shape(means.source)[1]), np.zeros(0)
    for i, rows in enumerate(means):
        rows = rows.astype(np.float64)
        m.add(rows)
        if weights is not None:
            own = weights[i].astype(np.float64)
            w.add(own)
            dots = np.append(dots, np.einsum("cd,cd->c", own, rows))
    norms = m.norms
    with np.errstate(divide="ignore"):
        logs = np.log(norms) + np.log(means.scale)
    report = {
        "equinorm": _std(norms) / _mean(norms) if _mean(norms) > 0 else float("nan"),
        "log_norm_mean": _mean(logs), "log_norm_std": _std(logs), "etf_distance": _etf_distance(m, m, norms**2),
    }  # fmt: skip
    if weights is not None:
        lengths = w.norms * norms
        cosines = np.divide(dots, lengths, out=np.zeros_like(dots), where=~(lengths <= 0))
        report |= {
            "nc3": _duality(means, weights, norms, w.norms), "nc3_etf": _etf_distance(w, m, dots),
            "unc3_mean": means.scale * _mean(dots), "unc3_std": means.scale * _std(dots),
            "unc3_cos_mean": _mean(cosines), "unc3_cos_std": _std(cosines),
        }  # fmt: skip
    return norms, report if len(norms) > 1 else dict.fromkeys(report, float("nan"))


def _etf_distance(w, m, dots):
    """|| A / ||A||_F - (I - J / C) / sqrt(C - 1) ||_F of A = W M^T, whose diagonal is `dots`."""
    classes, norm = len(dots), float(np.sqrt(max(np.vdot(w.gram, m.gram), 0)))
    if not norm > 0 or classes < 2:
        return float("nan")
    cosine = (dots.sum() - w.total @ m.total / classes) / (norm * np.sqrt(classes - 1))
    return float(np.sqrt(max(2 - 2 * cosine, 0)))


def _mean(x):
    return float(np.mean(x)) if len(x) else float("nan")


def _std(x):
    return float(np.std(x, ddof=1)) if len(x) > 1 and np.isfinite(x).all() else float("nan")


def _duality(means, weights, norms, heads):
    """Papyan's NC3 from differences of the two, each over its Frobenius norm."""
    m, w = np.linalg.norm(norms), np.linalg.norm(heads)
    if not (m > 0 and w > 0):
        return float("nan")
    return float(sum(np.sum((weights[i] / w - rows / m) ** 2, dtype=np.float64) for i, rows in enumerate(means)))


def _of_pairs(means, variances, norms, exponent, progress):
    """Mean values over the pairs of classes."""
    classes, coincident, done = len(means.kept), 0, 0
    kinds = {name: Sums() for name in ("cdnv", "angle", "interference", "log", "distance")}
    largest = variances.max(initial=0)
    spread = float(np.exp2(np.floor(np.log2(largest)))) if 0 < largest < np.inf else 1.0
    variances, norms = (variances / spread).astype(np.float32), norms.astype(np.float32)
    for i, a in enumerate(means):
        for j in range(i, len(means)):
            b = a if i == j else means[j]
            rows, columns = (slice(k * means.tile, k * means.tile + len(x)) for k, x in ((i, a), (j, b)))
            products = arrays.matmul(a, b.T)
            square = _square_distances(a, b, products, norms[rows], norms[columns])
            given = norms[rows], norms[columns], variances[rows], variances[columns]
            pilots = np.array([kinds[name].pilot for name in kinds], np.float32)
            found = _tile_sums(products, square, *given, pilots, classes, exponent, i == j)
            first, second, equal = (np.asarray(x, np.float64) for x in found)
            number = len(a) * (len(a) - 1) // 2 if i == j else len(a) * len(b)
            coincident += int(equal.sum())
            for k, sums in enumerate(kinds.values()):
                sums.add(first[k].sum(), second[k].sum(), number)
            if i == j == 0:
                for sums in kinds.values():
                    sums.about_mean()
            done += 1
            progress(done, len(means) * (len(means) + 1) // 2)
    # Of quantities in units of the scales: spread / scale^(2 k) may be larger than any float.
    with np.errstate(over="ignore"):
        unit, cdnv = means.scale**2, kinds["cdnv"].mean()
        cdnv = float(cdnv * np.exp(np.log(spread) - 2 * exponent * np.log(means.scale)))
    values = {
        "cdnv": cdnv, "equiangularity": kinds["angle"].mean(),
        "interference_mean": unit * kinds["interference"].mean(),
        "interference_std": unit * kinds["interference"].std(),
        "gnc2_mean": kinds["log"].mean(), "gnc2_std": kinds["log"].std(),
        "distance_mean": kinds["distance"].mean(), "distance_std": kinds["distance"].std(),
    }  # fmt: skip
    return {"coincident": coincident} | {k: float(v) for k, v in values.items()}


def _square_distances(a, b, products, norms_a, norms_b):
    """||a_i - b_j||^2 in float32; those of near pairs from differences."""
    square, near = _from_products(products, norms_a, norms_b)
    near_a, near_b = np.nonzero(near)
    if len(near_a):
        square = np.array(square)
    for start in range(0, len(near_a), 4096):
        i, j = near_a[start : start + 4096], near_b[start : start + 4096]
        square[i, j] = np.sum((a[i] - b[j]) ** 2, axis=1)
    return square


@jax.jit
def _from_products(products, norms_a, norms_b):
    """|a|^2 + |b|^2 - 2 <a, b>, and a mask of where it is so small that digits are lost."""
    both = (norms_a**2)[:, None] + (norms_b**2)[None, :]
    square = both - 2 * products
    return jnp.maximum(square, 0), square < NEAR * both


@partial(jax.jit, static_argnums=(7, 8, 9))
def _tile_sums(products, square, norms_a, norms_b, spread_a, spread_b, pilots, classes, exponent, diagonal):
    """Sums over the columns of a tile of (x - pilot) and its square, for each quantity; and equal pairs of each row."""
    i, j = jnp.arange(len(norms_a))[:, None], jnp.arange(len(norms_b))[None, :]
    pair = (i < j) if diagonal else jnp.ones(products.shape, bool)
    both = spread_a[:, None] + spread_b[None, :]
    equal = square <= 0
    safe = jnp.where(equal, 1, square)
    ratio = 0.5 * jnp.exp(jnp.log(both) - exponent * jnp.log(safe))  # of which no part leaves the range of floats
    cdnv = jnp.where(equal, jnp.where(both > 0, jnp.inf, jnp.nan), ratio)
    norms = norms_a[:, None] * norms_b[None, :]
    flat = norms <= 0  # and not nan
    cosine = jnp.where(flat, 0, products / jnp.where(flat, 1, norms))
    # ||u - v||^2 = 2 - 2 cos = (||a - b||^2 - (|a| - |b|)^2) / (|a| |b|), which keeps its digits between near means.
    gap = (norms_a[:, None] - norms_b[None, :]) ** 2
    near = ~flat & (square < NEAR * ((norms_a**2)[:, None] + (norms_b**2)[None, :]))
    apart = jnp.maximum(jnp.where(near, (square - gap) / jnp.where(flat, 1, norms), 2 - 2 * cosine), 0)
    quantities = (
        cdnv, jnp.abs(cosine + 1 / max(classes - 1, 1)), products, -0.5 * jnp.log(apart), jnp.sqrt(apart)
    )  # fmt: skip
    moved = [jnp.where(pair, x - pilots[k], 0) for k, x in enumerate(quantities)]
    first, second = (jnp.stack([jnp.sum(f(x), axis=1) for x in moved]) for f in (lambda x: x, jnp.square))
    return first, second, jnp.sum(pair & equal, axis=1)


def rhubarbwu_metrics(found: VocabularyCollapse) -> dict[str, float]:
    """The numbers that rhubarbwu's neural-collapse package prints, under the names of its README.

    Variances where `VocabularyCollapse` has standard deviations; the other values are the same. Its nc1_cdnv takes
    distance_exponent = 1, "Linguistic Collapse" 2; it keeps classes of one sample (min_count = 1).
    """
    if not isinstance(found, VocabularyCollapse):
        raise TypeError(
            f"found must be a VocabularyCollapse, as vocabulary_collapse makes it; got {conversion.described(found)}"
        )
    values = {
        "nc1_cdnv": found.cdnv,
        "nc2_etf_err": found.etf_distance,
        "nc2g_dist": found.distance_std**2,
        "nc2g_log": found.gnc2_std**2,
    }
    if found.nc3_etf is not None and found.unc3_std is not None:
        values |= {"nc3_dual_err": found.nc3_etf, "nc3u_uni_dual": found.unc3_std**2}
    return values
