"""What NumPy computes of concrete CPU arrays: against float64 loops and SVDs, with one core and with several."""

import jax
import numpy as np
import pytest

import infojax as ij
from infojax.measures import arrays, by_class, cores, host, roots

# Labels of no class are among the inputs; test_arguments.py has their warning.
pytestmark = pytest.mark.filterwarnings("ignore:.* labels are .* or more:UserWarning")


@pytest.fixture(params=[1, 3], ids=["one core", "three cores"], autouse=True)
def workers(request, monkeypatch):
    monkeypatch.setattr(cores, "count", lambda: request.param)
    return request.param


def samples(n=700, num_classes=5, dim=12, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(-1, num_classes + 1, n)  # of which the first and the last are no classes
    z = (rng.normal(size=(num_classes, dim))[y % num_classes] * 3).astype(np.float32)
    return z + rng.normal(size=(n, dim)).astype(np.float32), y, rng.integers(0, 3, n).astype(np.float32)


def moments_in_float64(z, labels, weights, num_classes):
    """Count, mean and squares of each class, by the definition."""
    found = []
    for c in range(num_classes):
        at = (labels == c) & (weights > 0)
        w, rows = weights[at].astype(np.float64), z[at].astype(np.float64)
        mean = w @ rows / max(w.sum(), 1e-300)
        found.append((w.sum(), mean, np.sum(w * np.sum((rows - mean) ** 2, axis=1))))
    return (np.array(x) for x in zip(*found, strict=True))


@pytest.mark.parametrize("num_classes", [1, 5, 400], ids=["one class", "few", "two samples a class"])
@pytest.mark.parametrize("block", [2**21, 256 * 12 * 4], ids=["one block", "blocks"])
def test_moments_are_those_of_the_definition(num_classes, block, monkeypatch):
    monkeypatch.setattr(by_class, "BLOCK_BYTES", block)
    z, y, w = samples(num_classes=num_classes)
    stats = ij.class_stats(z, y, num_classes, weights=w)
    for got, expected in zip(
        (stats.count, stats.mean, stats.squares), moments_in_float64(z, y, w, num_classes), strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=3e-6, atol=1e-5)
        assert isinstance(got, jax.Array) and got.dtype == np.float32


def test_what_is_not_finite_stays_in_its_class():
    z, y, _ = samples()
    z[np.flatnonzero(y == 2)[0], 3] = np.inf
    z[np.flatnonzero(y == 4)[0], 1] = np.nan
    z[y < 0] = np.nan  # of no class
    stats = ij.class_stats(z, y, 5)
    assert (
        np.isfinite(np.asarray(stats.mean)[[0, 1, 3]]).all() and np.isfinite(np.asarray(stats.squares)[[0, 1, 3]]).all()
    )
    assert np.isinf(stats.mean[2, 3]) and np.isnan(stats.mean[4, 1])
    assert np.isfinite(np.delete(np.asarray(stats.mean), [2, 4], axis=0)).all()


def test_the_sum_of_many_rows_may_be_beyond_float32():
    z = np.full((300, 2), 3e37, np.float32)
    np.testing.assert_allclose(ij.class_stats(z, np.zeros(300, int), 1).mean, [[3e37, 3e37]], rtol=1e-6)


@pytest.mark.parametrize("shape", [(3, 8), (40, 8), (8, 8)], ids=["fewer classes", "more classes", "as many"])
def test_nc1_is_the_trace_with_a_pseudo_inverse(shape):
    num_classes, dim = shape
    z, y, _ = samples(900, num_classes, dim)
    known = (y >= 0) & (y < num_classes)
    x, c = z[known].astype(np.float64), y[known]
    mean = np.array([x[c == k].mean(0) for k in range(num_classes)])
    share = np.bincount(c) / len(c)
    within = (x - mean[c]).T @ (x - mean[c]) / len(c)
    between = (mean - share @ mean).T @ (share[:, None] * (mean - share @ mean))
    expected = np.trace(within @ np.linalg.pinv(between, rcond=1e-10))
    np.testing.assert_allclose(ij.nc1(z, y, num_classes), expected, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(lambda z: ij.nc1(z, y, num_classes))(z), expected, rtol=1e-5)


def test_the_root_of_an_inverse_is_triangular_where_the_rank_is_full():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(20, 6))
    full, cut = roots.host_inverse(a, np.array(1e-8)), a * [1, 1, 1, 1, 1, 0]
    assert not np.tril(full, -1).any() and len(by_class.root_of(full, width=4).pieces) == 2
    np.testing.assert_allclose(full @ full.T, np.linalg.inv(a.T @ a), rtol=1e-9)
    root = roots.host_inverse(cut, np.array(1e-8))
    np.testing.assert_allclose(root @ root.T, np.linalg.pinv(cut.T @ cut, rcond=1e-12), atol=1e-12)
    rows = rng.normal(size=(5, 6))
    np.testing.assert_allclose(by_class.root_of(full, width=4).energies(rows), np.sum((rows @ full) ** 2, axis=1))


def test_a_small_singular_value_that_the_diagonal_hides_is_cut_off():
    a = np.eye(12) - np.triu(np.ones((12, 12)), 1)  # of condition 2^11, with a diagonal of ones
    root = roots.host_inverse(a, np.array(1e-2))
    np.testing.assert_allclose(root @ root.T, np.linalg.pinv(a.T @ a, rcond=1e-4), atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(30, 80), (80, 30)], ids=["wide", "tall"])
@pytest.mark.parametrize("spread", [1.0, 1e-3, 0.0], ids=["even", "decaying", "without a column"])
def test_singular_values_are_those_of_an_svd(dtype, shape, spread):
    a = np.random.default_rng(1).normal(size=shape) * np.geomspace(1, spread or 1, shape[1])
    a[:, 0] *= spread > 0
    a = a.astype(dtype)
    expected = np.linalg.svd(a.astype(np.float64), compute_uv=False)
    error = 1e-6 if dtype == np.float32 else 1e-10
    np.testing.assert_allclose(host.singular_values(a), expected, rtol=error, atol=error * expected[0] * 1e-3)


def test_singular_values_too_small_for_a_gram_matrix_come_from_an_svd(monkeypatch):
    a = np.random.default_rng(1).normal(size=(20, 50)) * np.geomspace(1, 1e-11, 20)[:, None]
    np.testing.assert_allclose(host.singular_values(a), np.linalg.svd(a, compute_uv=False), rtol=1e-6)
    monkeypatch.setattr(np.linalg, "svd", None)
    host.singular_values(a.astype(np.float32))  # there they are noise
    with pytest.raises(TypeError):
        host.singular_values(a)


@pytest.mark.parametrize("mean", [0.0, 3.0, 1e5], ids=["centred", "mean", "a mean that hides the rest"])
@pytest.mark.parametrize("shape", [(25, 60), (60, 25)], ids=str)
def test_one_product_serves_four_spectra(mean, shape):
    z = np.random.default_rng(2).normal(size=shape) + mean
    first, second, singular, covariance = host.spectra_of(z)
    for got, rows in ((first, z), (second, z - z.mean(0))):
        u = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        np.testing.assert_allclose(got, np.linalg.eigvalsh(u @ u.T / len(u))[-len(got) :], atol=1e-10)
    np.testing.assert_allclose(singular, np.linalg.svd(z, compute_uv=False), rtol=1e-7)
    expected = np.linalg.svd(z - z.mean(0), compute_uv=False) ** 2
    np.testing.assert_allclose(covariance, expected, rtol=1e-7, atol=1e-10)
    assert np.sum(covariance > 0) == min(shape[0] - 1, shape[1])


def test_small_eigenvalues_keep_their_digits_in_float32():
    """A thousandth of the spectrum was cut off as noise where the matrix itself was of float32."""
    rng = np.random.default_rng(3)
    z = (rng.normal(size=(300, 600)) * np.arange(1, 601) ** -1.0 + 0.2).astype(np.float32)
    u = z.astype(np.float64) / np.linalg.norm(z.astype(np.float64), axis=1, keepdims=True)
    w = np.linalg.eigvalsh(u @ u.T / len(u))
    np.testing.assert_allclose(ij.matrix_entropy(z), -np.sum(w[w > 0] * np.log(w[w > 0])), rtol=1e-5)


def test_a_limit_of_threads_ends_with_the_last_who_asked(monkeypatch):
    told = []

    class Library:
        def limit(self, limits, user_api):
            told.append(limits)
            return self

        def restore_original_limits(self):
            told.append("restored")

    library = Library()
    monkeypatch.setattr(cores, "_blas", lambda: library)
    with cores.one_thread():
        with cores.one_thread():
            pass
        assert told == [1]
    assert told == [1, "restored"]
    assert cores.shared(lambda x: x * x, range(7)) == [x * x for x in range(7)]
    assert told == [1, "restored"] * 2


def test_arrays_stay_on_the_host_where_jax_computes_there():
    z = np.ones((4, 3), np.float32)
    assert arrays.as_host_rows(z) is z
    assert arrays.as_host_rows(z.astype(np.float64)).dtype == np.float32
    assert isinstance(arrays.as_host_rows(jax.numpy.asarray(z)), np.ndarray)
    jax.jit(lambda x: arrays.as_host_rows(x).at[0].set(1))(z)  # a traced array is one of JAX
