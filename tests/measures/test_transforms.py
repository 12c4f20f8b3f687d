"""Every public function of entropy, joint and divergence under every transformation: one table, one program per row.

jit and vmap give what eager calls give; the forward derivative is that of finite differences, the reverse one its
transpose; a 0/1 mask is the subset, in value and gradient; float32 stays float32, and no product is rounded to less.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import central_difference, with_spectrum

import infojax as ij
from infojax.measures import coding, divergence, entropy, head_interplay, joint

# Labels of no class are among the inputs; test_arguments.py has their warning.
pytestmark = pytest.mark.filterwarnings("ignore:.* labels are .* or more:UserWarning")

LABELS = np.array([0, 1, 2, 0, 1, 3, 0, 1], np.int32)
MASK = np.array([1, 1, 0, 1, 0, 1, 1, 0.0])
KEPT = np.flatnonzero(MASK)


def of_features(z, w):
    orders = {f"matrix_entropy {a}": ij.matrix_entropy(z, alpha=a, weights=w) for a in (0.5, 1, 2)}
    forms = {f"coding_rate {form}": ij.coding_rate(z, 0.7, form=form, weights=w) for form in ("code", "paper", "mcr2")}
    return orders | forms | {"matrix_entropy centred": ij.matrix_entropy(z, center=True, weights=w)}


def of_whole_features(z, w):
    return {f.__name__: f(z) for f in (ij.gram, ij.effective_rank, ij.rankme, ij.stable_rank, ij.singular_values)}


def of_gram(k, w):
    orders = {f"matrix_entropy_from_gram {a}": ij.matrix_entropy_from_gram(k, alpha=a, weights=w) for a in (0.5, 1, 2)}
    return orders | {"effective_rank_from_gram": ij.effective_rank_from_gram(k, weights=w)}


def of_pair(z1, z2, w):
    measures = (ij.joint_entropy, ij.mutual_information, ij.mir, ij.hdr)
    plain = {f.__name__: f(z1, z2, weights=w) for f in measures}
    return plain | {"mutual_information centred": ij.mutual_information(z1, z2, center=True, weights=w)}


def of_grams(k1, k2, w):
    twins = (ij.joint_entropy_from_gram, ij.mutual_information_from_gram, ij.mir_from_gram, ij.hdr_from_gram)
    return {f.__name__: f(k1, k2, weights=w) for f in twins}


def of_head(z, head, w):
    labels = LABELS if len(z) == len(LABELS) else LABELS[KEPT]
    rows = ij.head_rows(head, jnp.array([0, 3, -1, 4, 1, 1]))
    return {"interplay": ij.interplay(z, labels, head, weights=w), "head_rows": rows}


def of_stats(head, w):
    z = np.random.default_rng(0).standard_normal((8, 5))
    z = jnp.asarray(z, jnp.promote_types(head.dtype, jnp.float32))
    stats = ij.class_stats(ij.unit_rows(z)[0], LABELS, 4, scatter="class")
    return {"interplay_from_stats": ij.interplay_from_stats(stats, head)}


def of_matrices(k1, k2, w):
    measures = (ij.matrix_jsd, ij.spectrum_jsd, ij.eigenspace_jsd, ij.matrix_cross_entropy)
    return {f.__name__: f(k1, k2) for f in measures}


def example(seed):
    """Arguments of each row of the table: generic, since degenerate ones are tested elsewhere."""
    rng = np.random.default_rng(seed)
    z, other, head = rng.standard_normal((8, 5)), rng.standard_normal((8, 3)), rng.standard_normal((4, 5))
    k1, k2 = with_spectrum([0.3, 0.5, 1.1, 1.7, 2], seed), with_spectrum([0.2, 0.6, 0.9, 1.5, 3], seed + 1)
    gram1, gram2 = (x @ x.T for x in rng.standard_normal((2, 8, 9)))
    return {
        of_features: (z,),
        of_whole_features: (z,),
        of_gram: (gram1,),
        of_pair: (z, other),
        of_grams: (gram1, gram2),
        of_head: (z, head),
        of_stats: (head,),
        of_matrices: (k1, k2),
    }


ROWS = list(example(0))
row = pytest.mark.parametrize("f", ROWS, ids=lambda f: f.__name__)


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def flat(f, *args):
    """All floating results of a row of the table as one vector."""
    leaves = jax.tree.leaves(f(*args))
    return jnp.concatenate([jnp.ravel(x) for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)])


def names(f, *args):
    """What each entry of that vector is."""
    paths = jax.tree_util.tree_leaves_with_path(jax.eval_shape(f, *args))
    floating = [(path, x) for path, x in paths if jnp.issubdtype(x.dtype, jnp.floating)]
    return [jax.tree_util.keystr(path) for path, x in floating for _ in range(x.size)]


def program(f):
    """(arguments, tangents, cotangent, weights) -> value, forward derivative, reverse derivative."""

    def run(args, tangents, cotangent, w):
        g = lambda *args: flat(f, *args, w)  # noqa: E731
        value, forward = jax.jvp(g, args, tangents)
        return value, forward, jax.vjp(g, *args)[1](cotangent)

    return run


def directions(args, seed):
    """Random tangents, symmetric for symmetric arguments."""
    rng = np.random.default_rng(seed)
    tangents = tuple(0.3 * rng.standard_normal(x.shape) for x in args)
    return tuple(
        (t + t.T) / 2 if x.shape[0] == x.shape[1] and np.allclose(x, x.T) else t
        for x, t in zip(args, tangents, strict=True)
    )


@row
def test_transformations(f):
    runs = []
    for seed, w in enumerate((np.ones(8), MASK)):
        args = example(seed)[f]
        runs.append((args, directions(args, seed + 7), w))
    labels = names(f, *runs[0][0], runs[0][2])
    cotangent = np.random.default_rng(9).standard_normal(len(labels))
    runs = [(args, tangents, cotangent, w) for args, tangents, w in runs]
    stacked = jax.tree.map(lambda *x: np.stack(x), *runs)
    values, forwards, reverses = jax.jit(jax.vmap(program(f)))(*stacked)
    for i, (args, tangents, _, w) in enumerate(runs):
        # jit and vmap against eager
        eager = flat(f, *args, w)
        np.testing.assert_allclose(values[i], eager, rtol=0, atol=1e-12, err_msg=str(labels))
        # forward against differences of eager calls

        def along(t, args=args, tangents=tangents, w=w):
            moved = (x + t * dx for x, dx in zip(args, tangents, strict=True))
            return np.asarray(flat(f, *moved, w))

        expected = central_difference(along, 0.0, 1.0, 1e-3)
        stopped = np.array(["eigenspace_jsd" in label for label in labels])
        np.testing.assert_allclose(forwards[i], np.where(stopped, 0, expected), rtol=0, atol=1e-7, err_msg=str(labels))
        # reverse against forward
        transposed = sum(np.sum(r[i] * t) for r, t in zip(reverses, tangents, strict=True))
        assert float(cotangent @ forwards[i]) == pytest.approx(float(transposed), abs=1e-11)
    if f in (of_whole_features, of_stats, of_matrices):
        return
    # The second run is masked: rows and columns that do not count have gradient zero, the others that of the subset.
    args, tangents, _, _ = runs[1]
    square = f in (of_gram, of_grams)

    def subset(x):
        x = np.asarray(x)
        return x if len(x) != len(MASK) else x[np.ix_(KEPT, KEPT)] if square else x[KEPT]

    kept = [subset(x) for x in args]
    value, _, reverse = jax.jit(program(f))(tuple(kept), tuple(map(subset, tangents)), cotangent, np.ones(len(KEPT)))
    np.testing.assert_allclose(values[1], value, rtol=0, atol=1e-12, err_msg=str(labels))
    for whole, part in zip(reverses, reverse, strict=True):
        np.testing.assert_allclose(subset(whole[1]), part, rtol=0, atol=1e-12)
        if len(whole[1]) == len(MASK):
            assert not np.any(whole[1][MASK == 0])
            assert not square or not np.any(whole[1][:, MASK == 0])


@row
def test_products_ask_for_full_precision(f):
    args = tuple(x.astype(np.float32) for x in example(0)[f])
    w = np.ones(8, np.float32)
    with jax.enable_x64(False):
        cotangent = np.ones(len(names(f, *args, w)), np.float32)
        text = jax.jit(program(f)).lower(args, args, cotangent, w).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert products and all("HIGHEST" in line for line in products)


@row
@pytest.mark.parametrize(
    ("given", "expected"), [("float32", "float32"), ("bfloat16", "float32"), ("float64", "float64")]
)
def test_types_are_kept(f, given, expected):
    args = [jax.ShapeDtypeStruct(x.shape, given) for x in example(0)[f]]
    results = jax.tree.leaves(jax.eval_shape(f, *args, jax.ShapeDtypeStruct((8,), given)))
    assert {x.dtype.name for x in results if jnp.issubdtype(x.dtype, jnp.floating)} == {expected}


def test_no_public_function_is_missing():
    public = {
        name
        for module in (entropy, coding, joint, head_interplay, divergence)
        for name, value in inspect.getmembers(module, inspect.isfunction)
        if value.__module__ == module.__name__ and name in ij.__all__
    }
    assert len(public) > 20
    covered = set()
    for f, args in example(0).items():
        covered |= {key.split()[0] for key in jax.eval_shape(f, *args, np.ones(8))}
    assert public == covered
