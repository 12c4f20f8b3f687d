"""Closed forms of the measures at exact neural collapse and at initialisation.

Every Gram matrix of a simplex has the form (1 - b) I + b J (J all ones): b = -1/(C-1) for the simplex ETF, a common
mean direction raises b, and the Hadamard product of two such matrices is one with the product of their b. With class
frequencies p, the spectrum over samples is that of the C x C matrix

    sqrt(p p^T) o ((1 - b) I + b J) = (1 - b) diag(p) + b sqrt(p) sqrt(p)^T,

so one function gives every entropy. These functions run on the host: arguments are Python or NumPy values, the
arithmetic is float64, and the results are Python floats. Nothing is traced.

Three statements in the literature hold only under a condition that is easy to miss:

* H(K) = 0 does not make all features equal (Theorem 1 of [1]); it makes them collinear: v, -v and 2v have H = 0. They
  are equal up to scale if features are never negative, up to sign and scale otherwise.
* H(G(f)) = log(C-1) at collapse (Theorem 2 of [1]) needs a global mean of zero, which features behind a ReLU never
  have. With mean energy s, C = 10: s = .01 gives 2.2313, s = 1/C gives log C = 2.3026, s = .5 gives 1.7918. So an
  entropy that rises past log(C-1) is no contradiction, and one near zero at initialisation means that s is near 1.
* The MIR of Theorem 3 of [1] (.9524 for C = 10) is the value at centred collapse, not an upper bound. An orthogonal
  frame has MIR = 1, and so has a collapsed network with mean energy 1/C.

[1] Song, Tan, Zou, Chen, Ma, Huang, Exploring Information-Theoretic Metrics Associated with Neural Collapse in
    Supervised Training.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from infojax.measures import arrays, scalars


class Limits(NamedTuple):
    """Values at exact neural collapse, in nats (`mir` and `hdr` dimensionless); see `nc_limits`."""

    entropy_features: float
    entropy_head: float
    joint_entropy: float
    mutual_information: float
    mir: float
    hdr: float


def nc_limits(
    num_classes: int,
    *,
    counts: Sequence[float] | np.ndarray | None = None,
    mean_energy: float = 0.0,
    dim: int | None = None,
) -> Limits:
    r"""Entropies, MIR and HDR of features against their head rows at exact neural collapse.

    Features of class c are ``sqrt(t) u + sqrt(1 - t) e_c`` (up to scale), where the e_c are the C
    unit vertices of a simplex ETF and u is a unit vector orthogonal to them; head rows are the e_c.
    With p_c = n_c / N,

        K_etf = C/(C-1) I - J/(C-1),        K_f = t J + (1 - t) K_etf,
        H(V) = H(sqrt(p p^T) o K_etf),      H(f) = H(sqrt(p p^T) o K_f),
        H(f, V) = H(sqrt(p p^T) o K_f o K_etf),
        MI = H(f) + H(V) - H(f, V),
        MIR = MI / min(H(f), H(V)),         HDR = |H(f) - H(V)| / max(H(f), H(V)).

    The mean energy of such features is s = ||sum_c p_c h_c||^2 = t + (1 - t) q, with
    q = p^T K_etf p = (C sum_c p_c^2 - 1) / (C - 1), which is 0 for equal counts and positive
    otherwise; hence t = (s - q) / (1 - q). Equal counts in all classes give

        H(V) = log(C-1),    H(f) = hb(s) + (1-s) log(C-1),
        H(f, V) = hb(r) + (1-r) log(C-1),    r = (1-s)/(C-1),
        s = 0:  MIR = 1/(C-1) + (C-2) log(C-2) / ((C-1) log(C-1)),    HDR = 0,

    with hb the binary entropy. The MIR at s = 0 is not an upper bound: s = 1/C gives
    MIR = 1.

    Args:
      num_classes: C >= 1, the classes of the head, whose geometry is that of C classes even if some have no samples.
      counts: (C,) samples, or total weight, of each class; only ratios matter, and 0 is a class without samples. None
        means equal counts.
      mean_energy: s in [q, 1], the squared norm of the (count-weighted) mean of the L2-normalised features. The
        default 0.0 stands for the centred simplex, t = 0, whatever the counts. A value outside the interval by less
        than 1e-6 is treated as rounding.
      dim: D, columns of features and head; None means large enough. A simplex needs D >= C - 1, and with a common
        mean, s > q, D >= C.

    Returns:
      Limits of Python floats, entropies in nats. A ratio of zero by zero is NaN: MIR where one
      entropy is 0 (C = 2, s = 1, a single class), HDR where both are (C = 2 with s = 0, a single
      class). All are NaN where D < C - 1: there is no simplex.

    Raises:
      ValueError: C < 1, counts that are not C finite non-negative numbers with a positive sum, or a
        mean energy that no collapsed features with these counts and dimensions can have.

    References:
      Song et al., Exploring Information-Theoretic Metrics Associated with Neural Collapse in
      Supervised Training, Theorems 2 to 4 (equal counts, s = 0).

    >>> round(nc_limits(10).mir, 6)
    0.952351
    >>> limits = nc_limits(10, mean_energy=0.1)
    >>> round(limits.entropy_features, 4), round(limits.mir, 4)
    (2.3026, 1.0)
    """
    classes = _classes(num_classes)
    p = _frequencies(classes, counts)
    b_head = _etf_correlation(classes)
    t = _mean_share(classes, p, mean_energy)
    if dim is not None and scalars.whole_number(dim, "dim", 1) < classes - 1:
        return Limits(*[math.nan] * len(Limits._fields))
    if dim == classes - 1 and t > 1e-6:
        raise ValueError(
            f"mean_energy is {mean_energy:.6g}, but in {dim} dimensions a simplex of {classes} classes leaves no room "
            "for a common mean"
        )
    b_features = t + (1 - t) * b_head
    entropy_features = _entropy(_spectrum(p, b_features))
    entropy_head = _entropy(_spectrum(p, b_head))
    joint_entropy = _entropy(_spectrum(p, b_features * b_head))
    mutual_information = entropy_features + entropy_head - joint_entropy
    low, high = sorted((entropy_features, entropy_head))
    return Limits(
        entropy_features,
        entropy_head,
        joint_entropy,
        mutual_information,
        mir=mutual_information / low if low > 0 else math.nan,
        hdr=(high - low) / high if high > 0 else math.nan,
    )


def mutual_information_etf(num_classes: int, *, alpha: float = 1.0) -> float:
    r"""Matrix mutual information of order alpha of a simplex ETF with itself.

        I_alpha = 2 H_alpha(K) - H_alpha(K o K),   K = C/(C-1) I - J/(C-1).

    The spectrum of K is flat, so H_alpha(K) = log(C-1) for every order. K o K has the eigenvalue
    1/(C-1) once and (C-2)/(C-1)^2 for the rest. alpha = 1 is the mutual information of `nc_limits`,
    and

        I_2 = 2 log C - log((C + C/(C-1))^2 / (C + C/(C-1)^3)).

    I_2 is not a mutual information: on other matrices it can be negative.

    Args:
      num_classes: C >= 1.
      alpha: order of the Renyi entropy, from 0 to infinity; 1 is the von Neumann entropy.

    Returns:
      Python float, nats; 0 for C = 1 and C = 2.

    Raises:
      ValueError: C < 1, or alpha negative or not a number.

    References:
      alpha = 1: Song et al., Theorem 3. alpha = 2: Tan et al., Information Flow in Self-Supervised
      Learning, Proposition 4.1.

    >>> round(mutual_information_etf(10, alpha=2), 6)
    2.093235
    """
    classes = _classes(num_classes)
    alpha = float(scalars.number(alpha, "alpha", "a number from 0 to infinity", lambda x: x >= 0))
    p = _frequencies(classes, None)
    b = _etf_correlation(classes)
    return 2 * _entropy(_spectrum(p, b), alpha) - _entropy(_spectrum(p, b * b), alpha)


def etf(num_classes: int, dim: int | None = None) -> np.ndarray:
    r"""Simplex equiangular tight frame: C unit rows with all cosines -1/(C-1) and zero sum.

        E E^T = C/(C-1) I - J/(C-1)

    Rows are the vertices of the regular simplex in the first C-1 coordinates (Helmert's basis); the
    other coordinates are zero. C = 1 gives the first unit vector.

    Args:
      num_classes: C >= 1.
      dim: D >= max(C-1, 1), the length of a row. None takes the smallest.

    Returns:
      (C, D) float64 NumPy array.

    Raises:
      ValueError: C < 1, or D < C-1, where no such frame exists.

    References:
      Papyan, Han, Donoho, Prevalence of neural collapse during the terminal phase of deep learning
      training, definition 1 (rows here, columns there).

    >>> import numpy as np
    >>> np.round(etf(3) @ etf(3).T, 3)
    array([[ 1. , -0.5, -0.5],
           [-0.5,  1. , -0.5],
           [-0.5, -0.5,  1. ]])
    """
    classes = _classes(num_classes)
    smallest = max(classes - 1, 1)
    dim = smallest if dim is None else scalars.whole_number(dim, "dim", 1)
    if dim < smallest:
        raise ValueError(f"dim is {dim}, but a simplex ETF of {classes} classes needs dim >= {smallest}")
    scalars.check_size(f"{classes:,} rows of {dim:,} columns", classes, dim, itemsize=8)
    rows = np.zeros((classes, dim))
    if classes == 1:
        rows[0, 0] = 1.0
        return rows
    k = np.arange(1, classes)  # basis vector k: k equal entries, then one that makes their sum zero
    helmert = np.triu(np.ones((classes, classes - 1))) - np.eye(classes, classes - 1, -1) * k
    rows[:, : classes - 1] = helmert * np.sqrt(classes / (classes - 1) / (k * (k + 1.0)))
    return rows


def random_head_entropy(num_classes: int, dim: int) -> float:
    r"""Expected matrix entropy H(G(W)) of an untrained head: C independent Gaussian rows.

    G(W) is the C x C Gram of unit rows; with c = C/D,

        E H ~ log C - x(c) - m(c)/C,
        c <= 1:  x = c/2,            m = e(c) - 2c + c^2/3,
        c >= 1:  x = log c + 1/(2c), m = e(c) - (1+c)/2 log c - 2 + 1/(3c),
        e(c) = (1/2) sum_{+,-} (1 +- sqrt c)^2 log|1 +- sqrt c|.

    x is the Marchenko-Pastur integral of l log l; log C - C/(2D) is the well-known leading term (Page). m is the next
    one: the mean of this linear statistic of a real Wishart matrix (Bai and Silverstein), minus the contribution of the
    row norms, which are exactly one for unit rows:
    c int int l l' (log l - log l')/(l - l') dF dF' = c - c^2/3 (c <= 1) or 1 - 1/(3c) (c >= 1).

    Error, measured against simulation (standard error 1e-5 to 1e-4): at most 1e-4 nats if max(C, D) >= 50, -2.4e-3 at
    C = D = 10 and -5.3e-2 at C = D = 2. The leading term alone is off by -3.7e-3 at C = 10, D = 128 and by -2.6e-3 at
    C = D = 100. A single head deviates from the mean by 7e-3 at C = 10, D = 128.

    Args:
      num_classes: C >= 1 rows.
      dim: D >= 1, the length of a row.

    Returns:
      Python float, nats; 0 where C or D is 1, since all rows are then collinear.

    Raises:
      ValueError: C < 1 or D < 1.

    References:
      Page, Average entropy of a subsystem, 1993; Bai and Silverstein, CLT for linear spectral
      statistics of large-dimensional sample covariance matrices, 2004, eq. (5.13) with g = l log l.

    >>> round(random_head_entropy(100, 512), 3)
    4.508
    """
    classes, dim = _classes(num_classes), _classes(dim, "dim")
    if min(classes, dim) == 1:
        return 0.0
    c = classes / dim
    edges = 0.5 * sum(x * x * math.log(x) for x in (1 + math.sqrt(c), abs(1 - math.sqrt(c))) if x > 0)
    if c <= 1:
        bulk, correction = c / 2, edges - 2 * c + c * c / 3
    else:
        bulk = math.log(c) + 1 / (2 * c)
        correction = edges - (1 + c) / 2 * math.log(c) - 2 + 1 / (3 * c)
    return math.log(classes) - bulk - correction / classes


def _classes(value: int, name: str = "num_classes") -> int:
    return scalars.whole_number(value, name, 1, 2**53)  # so that a float can hold their reciprocals


def _frequencies(num_classes: int, counts: Sequence[float] | np.ndarray | None) -> np.ndarray:
    """(C,) frequencies; a class without samples has 0 and only adds zeros to the spectra."""
    scalars.check_size(f"num_classes is {num_classes:,}: spectra of that many classes", 4, num_classes, itemsize=8)
    counts = np.ones(num_classes) if counts is None else np.asarray(arrays.as_array(counts, "counts"), np.float64)
    if counts.shape != (num_classes,):
        raise ValueError(f"counts has shape {counts.shape}, but must have one count per class: ({num_classes},)")
    if not (np.isfinite(counts).all() and (counts >= 0).all() and counts.sum() > 0):
        raise ValueError(
            "counts must be finite and non-negative with a positive sum, but is "
            + np.array2string(counts, threshold=10)
        )
    return counts / counts.sum()


def _etf_correlation(num_classes: int) -> float:
    # A simplex of one class is one point: its 1 x 1 matrix has no off-diagonal entry b.
    return -1 / (num_classes - 1) if num_classes > 1 else 0.0


def _mean_share(num_classes: int, p: np.ndarray, mean_energy: float) -> float:
    """t, the share of a feature's energy that lies along the common direction u."""
    try:
        s = float(scalars.number(mean_energy, "mean_energy", "a number from 0 to 1"))
    except TypeError as error:
        raise ValueError("mean_energy is traced: limits are computed on the host, outside of jit") from error
    if s == 0:
        return 0.0
    q = 1.0 if num_classes == 1 else (num_classes * float(p @ p) - 1) / (num_classes - 1)
    if not q - 1e-6 <= s <= 1 + 1e-6:
        raise ValueError(
            f"mean_energy is {s:.6g}, but collapsed features with these counts have one in "
            f"[{q:.6g}, 1] (0 stands for the centred simplex)"
        )
    return min(max((s - q) / (1 - q), 0.0), 1.0) if q < 1 else 0.0


def _spectrum(p: np.ndarray, b: float) -> np.ndarray:
    """Eigenvalues of sqrt(p p^T) o ((1 - b) I + b J), which sum to 1."""
    # On k classes of equal size, weights that sum to zero are an eigenvector of value (1 - b) p. What is left is one
    # dimension per distinct size: equal counts need no decomposition, however many classes.
    p, k = np.unique(p, return_counts=True)
    root = np.sqrt(k * p)
    rest = np.linalg.eigvalsh((1 - b) * np.diag(p) + b * np.outer(root, root))
    return np.concatenate([rest, np.repeat((1 - b) * p, k - 1)])


def _entropy(eigenvalues: np.ndarray, alpha: float = 1.0) -> float:
    # Rounding leaves about 1e-16 where an eigenvalue is zero. Without those the spectrum of rank one is exactly [1.0]
    # and its entropy exactly 0, so that a ratio of 0 by 0 is detected.
    p = eigenvalues[eigenvalues > len(eigenvalues) * np.finfo(np.float64).eps]
    p = p / p.sum()
    if alpha == 1:
        return max(0.0, float(-(p * np.log(p)).sum()))
    if alpha == math.inf:
        return max(0.0, -math.log(float(p.max())))
    return max(0.0, math.log(float((p**alpha).sum())) / (1 - alpha))
