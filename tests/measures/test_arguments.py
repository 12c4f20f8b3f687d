"""Every public function takes the arrays that people have, and refuses the others in words that name the argument."""

import contextlib
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import half

import infojax as ij
from infojax import parallel
from infojax.data import normalise, weak

N, D, C = 12, 4, 3
RNG = np.random.default_rng(0)
Y = (np.arange(N) % C).astype(np.int32)
Z = (RNG.normal(size=(C, D))[Y] + 0.3 * RNG.normal(size=(N, D))).astype(np.float32)
W = RNG.normal(size=(C, D)).astype(np.float32)
K = np.cov(RNG.normal(size=(N, 5))).astype(np.float32)
STATS = ij.class_stats(Z, Y, C, scatter="class")
WITHIN = ij.class_stats(Z, Y, C, scatter="within")
UNIT = ij.class_stats(ij.unit_rows(Z)[0], Y, C, scatter="class")
SUMS = ij.second_pass(STATS, Z, Y, W, inverse=ij.between_inverse(STATS))

VOCABULARY = ij.update_vocabulary(ij.vocabulary_stats(C, D), Z, Y)
SPECTRUM = np.array([3.0, 2.0, 1.0], np.float32)
MOMENTS = ij.cka_moments(Z, Z[:, :2])

# Function -> its arguments; names in capitals are replaced by wrong ones, one by one.
CALLS = {
    "between_inverse": {"stats": STATS},
    "cdnv": {"z": Z, "labels": Y, "weights": np.ones(N)},
    "cdnv_from_stats": {"stats": STATS},
    "class_stats": {"z": Z, "labels": Y, "weights": np.ones(N)},
    "coding_rate": {"z": Z, "weights": np.ones(N)},
    "collapse_from_passes": {"stats": STATS, "sums": SUMS, "head": W},
    "davies_bouldin": {"z": Z, "labels": Y, "weights": np.ones(N)},
    "davies_bouldin_from_sums": {"stats": STATS, "distance": SUMS.distance},
    "effective_rank": {"a": Z, "weights": np.ones(N)},
    "effective_rank_from_gram": {"k": K, "weights": np.ones(N)},
    "eigenspace_jsd": {"k1": K, "k2": K},
    "equi_separation": {"values": np.array([3.0, 2.0, 1.5])},
    "estimate_interplay": {"z": Z, "labels": Y, "head": W, "weights": np.ones(N)},
    "estimate_interplay_from_stats": {"stats": UNIT, "head": W},
    "estimate_joint_entropy": {"z1": Z, "z2": Z[:, :2], "weights": np.ones(N)},
    "estimate_matrix_entropy": {"z": Z, "weights": np.ones(N)},
    "estimate_matrix_entropy_from_gram": {"k": K},
    "etf": {"num_classes": C},
    "gram": {"z": Z},
    "head_rows": {"head": W, "labels": Y},
    "interplay": {"z": Z, "labels": Y, "head": W, "weights": np.ones(N)},
    "interplay_from_stats": {"stats": UNIT, "head": W},
    "matrix_cross_entropy": {"p": K, "q": K},
    "matrix_entropy": {"z": Z, "weights": np.ones(N)},
    "matrix_entropy_from_gram": {"k": K, "weights": np.ones(N)},
    "matrix_jsd": {"k1": K, "k2": K},
    "nc1": {"z": Z, "labels": Y, "weights": np.ones(N)},
    "nc1_from_energy": {"energy": SUMS.energy, "stats": STATS},
    "nc1_from_stats": {"stats": STATS},
    "nc1_one_pass": {"count": np.bincount(Y), "sums": np.ones((C, D)), "second_moment": Z.T @ Z},
    "nc2": {"z": Z, "labels": Y, "weights": np.ones(N)},
    "nc2_from_means": {"means": W},
    "nc2_from_stats": {"stats": STATS},
    "nc3": {"z": Z, "labels": Y, "head": W, "weights": np.ones(N)},
    "nc3_from_stats": {"stats": STATS, "head": W},
    "lidar": {"z": np.stack([Z, Z**2], axis=1)},
    "nc4": {"z": Z, "labels": Y, "head": W, "bias": np.ones(C), "weights": np.ones(N)},
    "nc_limits": {"num_classes": C},
    "neural_collapse": {"z": Z, "labels": Y, "head": W, "bias": np.ones(C), "weights": np.ones(N)},
    "random_head_entropy": {"num_classes": C, "dim": D},
    "rankme": {"z": Z, "weights": np.ones(N)},
    "relabel": {"labels": Y, "num_classes": C},
    "second_pass": {"stats": STATS, "z": Z, "labels": Y},
    "spectrum_jsd": {"k1": K, "k2": K},
    "squared_error": {"z": Z, "labels": Y, "head": W, "bias": np.ones(C), "weights": np.ones(N)},
    "squared_error_from_stats": {"stats": WITHIN, "head": W},
    "stable_rank": {"a": Z, "weights": np.ones(N)},
    "unit_rows": {"z": Z},
    "v_information": {"cross_entropy": np.float32(0.3), "num_classes": C},
    "within_energy": {"inverse": ij.between_inverse(STATS), "stats": STATS, "z": Z, "labels": Y},
    **{name: {"z1": Z, "z2": Z[:, :2], "weights": np.ones(N)} for name in ("hdr", "joint_entropy", "mir")},
    "mutual_information": {"z1": Z, "z2": Z[:, :2], "weights": np.ones(N)},
    **{f"{name}_from_gram": {"k1": K, "k2": K} for name in ("hdr", "joint_entropy", "mir", "mutual_information")},
}
PAIR = {"z1": Z, "z2": Z + 1, "weights": np.ones(N)}
ROWS = {"z": Z, "weights": np.ones(N)}
PADDED = {"z": Z[None], "weights": np.ones((1, N))}
RANKS = ("approximate_rank", "covariance_rank", "numerical_rank", "participation_ratio", "srank")
CALLS |= dict.fromkeys((*RANKS, "alpha_req", "curvature", "dormant_ratio", "feature_norms", "feature_std"), ROWS)
CALLS |= dict.fromkeys(("singular_values", "spectral_ranks", "uniformity"), ROWS)
CALLS |= {
    f"{name}_from_spectrum": {"s": SPECTRUM}
    for name in (*RANKS, "alpha_req", "effective_rank", "rankme", "spectral_ranks", "stable_rank")
}
CALLS |= dict.fromkeys(("alignment", "cka_moments", "dime", "infonce_bound", "linear_cka"), PAIR)
CALLS |= dict.fromkeys(("dataset_entropy", "padded_groups", "prompt_entropy"), PADDED)
CALLS |= {
    "add_cka_moments": {"first": MOMENTS, "second": MOMENTS},
    "diff_erank": {"untrained": Z, "trained": Z, "weights": np.ones(N)},
    "linear_cka_from_moments": {"moments": MOMENTS},
    "linear_cka_map": {"layers": [Z, Z], "weights": np.ones(N)},
    "nc5": {"z": Z, "labels": Y, "ood": Z, "weights": np.ones(N)},
    "nci": {"z": Z, "train_mean": Z[0], "head": W, "bias": np.ones(C)},
    "neco": {"z": Z, "train": Z, "dim": 2, "weights": np.ones(N)},
    "nrc1": {"z": Z, "num_targets": 2, "weights": np.ones(N)},
    "nrc2": {"z": Z, "head": W, "weights": np.ones(N)},
    "nrc3": {"head": W, "targets": Z[:, :C], "weights": np.ones(N)},
    "rhubarbwu_metrics": {"found": ij.vocabulary_collapse(VOCABULARY)},
    "update_vocabulary": {"stats": VOCABULARY, "z": Z, "labels": Y},
    "vocabulary_collapse": {"stats": VOCABULARY, "head": W},
    "vocabulary_disagreement": {"stats": VOCABULARY, "z": Z, "labels": Y, "head": W, "bias": np.ones(C)},
    "vocabulary_stats": {"num_classes": C, "dim": D},
}
# What a message may call an argument.
ALIASES = {"z": "features", "a": "matrix", "k": "gram", "num_classes": "num_classes|dim", "energy": "stats"}
ALIASES |= {"head": "bias", "s": "singular_values", "untrained": "features", "trained": "features"}
COUNTS = ("num_classes", "dim", "num_targets")
TUPLES = ("stats", "sums", "moments", "first", "second", "found")
WORDS_OF_LIBRARIES = ("jax", "JAX value", "Tracer", "hash", "broadcast", "dtype mismatch", "attribute", "interpret")


def wrong(name, value):
    """(what, a wrong value) for an argument."""
    if name in TUPLES:
        return [("an array", Z), ("none", None), ("a string", "stats"), ("a dict", {})]
    if name in COUNTS:
        return [("an array", W), ("zero", 0), ("a string", "ten"), ("a fraction", 2.5), ("a boolean", True)]
    value = np.asarray(value)
    found = [("a string", "features"), ("a dict", {"a": 1}), ("strings", np.full(value.shape, "x"))]
    found += [("none", None), ("a set", {1}), ("dates", np.full(value.shape, np.datetime64("2020-01-01")))]
    found += [("unequal rows", [[1, 2], [1]])]
    found += [("objects", np.full(value.shape, None, object)), ("complex", value.astype(complex))]
    if value.ndim:
        found += [("another rank", np.ones((*value.shape, 1, 1), value.dtype))]
        masked = np.ma.masked_array(value, np.arange(value.size).reshape(value.shape) == 0)
        found += [("masked", masked), ("masked in a list", [masked[0], *value[1:]])]
    if name == "head":
        found += [
            ("a row more", np.ones((C + 1, D))),
            ("a column more", np.ones((C, D + 1))),
            ("empty", np.ones((0, D))),
        ]
    if name in ("labels", "weights", "bias"):
        found += [("another length", value[:-1])]
    if name in ("labels",):
        found += [("fractions", value + 0.5)]
    if name == "weights":
        found += [("negative", -value), ("nan", value * np.nan), ("infinite", value * np.inf)]
    return found


def test_every_public_function_is_in_the_table():
    public = {name for name in ij.__all__ if inspect.isfunction(getattr(ij, name))}
    assert public - {"analyze"} == set(CALLS)


@pytest.mark.parametrize("function", CALLS)
def test_misfits_are_refused_with_the_name_of_the_argument(function):
    call, given = getattr(ij, function), CALLS[function]
    call(**given)
    problems = []
    for name, value in given.items():
        for what, bad in wrong(name, value):
            optional = inspect.signature(call).parameters[name].default is None
            if (function, name, what) in TAKEN or (what == "none" and optional):
                continue
            try:
                call(**given | {name: bad})
            except (ValueError, TypeError) as error:
                text = str(error).splitlines()[0] if str(error) else ""
                named = any(word in text for word in (name, *ALIASES.get(name, "").split("|")) if word)
                named &= "NoneType" not in text
                if not named or any(word in str(error) for word in WORDS_OF_LIBRARIES) or "\n" in str(error):
                    problems.append(f"{name} = {what}: {type(error).__name__} {str(error)[:120]!r}")
            except Exception as error:
                problems.append(f"{name} = {what}: {type(error).__name__} {str(error)[:120]!r}")
            else:
                problems.append(f"{name} = {what}: accepted")
    assert not problems, "\n".join(problems)


def test_nan_in_an_argument_is_not_hidden():
    """A nan in any array makes every result that depends on it nan, or is refused; it never becomes a number."""
    hidden = []
    for function, given in CALLS.items():
        for name, value in given.items():
            if isinstance(value, tuple | list) or name == "weights" or not np.ndim(value) or value.dtype.kind != "f":
                continue
            bad = np.array(value)
            bad[(1,) * bad.ndim if bad.shape[0] > 1 else 0] = np.nan
            try:
                leaves = jax.tree.leaves(getattr(ij, function)(**given | {name: bad}))
                found = [x for x in leaves if not isinstance(x, str)]
            except ValueError as error:
                assert "nan" in str(error) and "floor" not in str(error), (function, name, error)
                continue
            if all(np.isfinite(np.asarray(leaf, float)).all() for leaf in found):
                hidden.append((function, name))
    assert not hidden


# (function, argument, what) that is meant to work
TAKEN = {
    ("v_information", "cross_entropy", "another rank"),
    ("head_rows", "labels", "another length"),
    ("relabel", "labels", "another length"),
    # Rows of a second set of features may have a width of their own, and classes no samples.
    ("head_rows", "head", "a column more"),
    *((name, "head", "a row more") for name in ("head_rows", "interplay", "estimate_interplay", "nc3")),
    ("head_rows", "head", "empty"),
    ("nrc2", "head", "a row more"),
    ("nrc3", "head", "a column more"),
}


# Arrays that people have

FORMS = {
    "big-endian": lambda z: z.astype(">f4"),
    "longdouble": lambda z: z.astype(np.longdouble),
    "objects": lambda z: z.astype(object),
    "nested lists": lambda z: z.tolist(),
    "float64": lambda z: z.astype(np.float64),
    "masked, nothing of it": lambda z: np.ma.masked_array(z),
    "transposed": lambda z: np.asfortranarray(z),
    "jax": jnp.asarray,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_an_array_is_accepted(form):
    """Values are those of the plain array, of features, labels, weights and head alike."""
    y = {"big-endian": Y.astype(">i2"), "objects": Y.astype(object), "nested lists": Y.tolist()}.get(form, Y)
    z, w, weights = FORMS[form](Z), FORMS[form](W), FORMS[form](np.ones(N, np.float32))
    for name in ("matrix_entropy", "effective_rank", "nc1", "nc3", "interplay", "unit_rows", "class_stats"):
        given = {"z": z, "a": z, "labels": y, "head": w, "weights": weights}
        plain = {"z": Z, "a": Z, "labels": Y, "head": W, "weights": np.ones(N, np.float32)}
        names = inspect.signature(getattr(ij, name)).parameters
        found, expected = (
            jax.tree.leaves(getattr(ij, name)(**{key: args[key] for key in args.keys() & names.keys()}))
            for args in (given, plain)
        )
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def test_half_precision_integers_and_torch():
    z16 = Z.astype(half())
    assert ij.unit_rows(z16)[0].dtype == jnp.float32
    np.testing.assert_allclose(ij.unit_rows([[3, 4]])[0], [[0.6, 0.8]], rtol=1e-6)
    for z in (z16, jnp.asarray(z16, jnp.bfloat16)):
        assert float(ij.matrix_entropy(z)) == pytest.approx(
            float(ij.matrix_entropy(np.asarray(z, np.float32))), rel=1e-6
        )
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match="features must be an array of numbers; got a Tensor that is not dense"):
        ij.matrix_entropy(torch.tensor(Z).to_sparse())
    for dtype in (torch.float32, torch.bfloat16):
        z = torch.tensor(Z, dtype=dtype, requires_grad=True)
        expected = float(ij.matrix_entropy(z.detach().float().numpy()))
        assert float(ij.matrix_entropy(z)) == pytest.approx(expected, rel=1e-6)


def test_masked_arrays_are_refused_by_name():
    with pytest.raises(ValueError, match="features is a masked array with 1 masked value: leave those rows out"):
        ij.nc1(np.ma.masked_equal(Z, Z[3, 2]), Y)


def test_strings_and_fractions_as_labels():
    with pytest.raises(ValueError, match=r"labels are strings; pass numpy.unique\(labels, return_inverse=True\)\[1\]"):
        ij.nc1(Z, np.array(["cat", "dog", "emu"])[Y])
    with pytest.raises(ValueError, match="labels are strings"):
        ij.nc1(Z, np.array(["cat", "dog", "emu"], object)[Y])
    with pytest.raises(ValueError, match=r"labels must have shape \(12,\).*pass labels\[:, 0\]"):
        ij.nc1(Z, Y[:, None])
    with pytest.raises(ValueError, match=r"labels must have shape \(12,\).*argmax"):
        ij.nc1(Z, np.eye(C)[Y])
    with pytest.raises(ValueError, match=r"num_classes must be a whole number; got an array of shape \(3, 4\)"):
        ij.nc1(Z, Y, W)
    with pytest.raises(ValueError, match="num_classes is 9, but the head has 3 rows"):
        ij.neural_collapse(Z, Y, W, num_classes=9)


def test_other_values_are_refused():
    with pytest.raises(ValueError, match="weights must be non-negative and finite; row 3 has -0.5"):
        ij.matrix_entropy(Z, weights=np.where(np.arange(N) == 3, -0.5, 1))
    for mu in (0.0, -1.0, np.nan, "one"):
        with pytest.raises(ValueError, match="mu must be a positive number"):
            ij.coding_rate(Z, mu)
    with pytest.raises(ValueError, match="alpha is traced, but must be a static number"):
        jax.jit(lambda alpha: ij.matrix_entropy(Z, alpha=alpha))(1.5)
    with pytest.raises(TypeError, match="unknown keyword 'tol'; expected tolerance, confidence"):
        ij.estimate_interplay(Z, Y, W, tol=1e-3)
    with pytest.raises(TypeError, match="unknown keyword 'alpha'.*only alpha = 1 is estimated"):
        ij.estimate_matrix_entropy(Z, alpha=2)
    with pytest.raises(TypeError):
        ij.NC1_CONVENTIONS["mine"] = ij.NC1_CONVENTIONS["thesis"]


# Keyword and wrong values -> what takes it.
OPTIONS = {
    "alpha": (["x", None, np.nan, -1, [1], W, {}], [ij.matrix_entropy, ij.joint_entropy, ij.mir, ij.hdr]),
    "center": (["yes", None, W, [True]], [ij.matrix_entropy, ij.mir, ij.interplay, ij.estimate_interplay]),
    "convention": (["mine", None, [], {}, W, 1], [ij.nc1, ij.nc3, ij.neural_collapse, ij.nc1_from_stats]),
    "form": (["mine", None, [], W], [ij.coding_rate]),
    "scatter": (["mine", [], {}], [ij.class_stats]),
    "route": (["mine", [], {}], [ij.interplay]),
    "order": (["mine", None, []], [ij.relabel]),
    "eps": (["x", None, -1, np.nan, np.inf, np.ones(N)], [ij.rankme]),
    "mu": (["x", None, 0, np.inf, W], [ij.coding_rate]),
    "base": (["x", None, 1, np.nan, W], [ij.v_information]),
    "floor": (["x", None, np.ones(D)], [ij.unit_rows]),
    "tolerance": (["x", None, 0, np.nan], [ij.estimate_matrix_entropy]),
    "confidence": (["x", None, 2], [ij.estimate_matrix_entropy]),
    "seed": (["x", 1.5, None], [ij.estimate_matrix_entropy]),
    "vectors": (["x", 0], [ij.estimate_interplay]),
    "exact_side": ([None, -1], [ij.estimate_joint_entropy]),
    "counts": (["x", [1, None, 2], np.ma.masked_equal([1, 2, 3], 2), [1, 2], [-1, 1, 1]], [ij.nc_limits]),
    "mean_energy": (["x", None, np.nan, 2, W], [ij.nc_limits]),
    "depth": (["x", [1, 2], np.ma.masked_equal([1, 2, 3], 2)], [ij.equi_separation]),
    "present": ([[1, 0], "x", [None, 1, 1]], [ij.nc2_from_means]),
    "num_digits": (["x", 1.5, 0], [ij.relabel]),
}
JITTED = [ij.between_inverse, ij.nc1_from_energy, ij.collapse_from_passes]  # options that JAX would have to hash


@pytest.mark.parametrize("option", OPTIONS)
def test_bad_options_are_named(option):
    values, functions = OPTIONS[option]
    for call in functions + (JITTED if option == "convention" else []):
        for value in values:
            with pytest.raises(ValueError, match=option) as caught:
                call(**CALLS[call.__name__] | {option: value})
            assert "\n" not in str(caught.value)
            assert not any(word in str(caught.value) for word in WORDS_OF_LIBRARIES)


def test_class_stats_name_bad_arguments():
    for wrong_size in ("a", 2.5, None, True, -1):
        with pytest.raises(ValueError, match="num_classes must be"):
            ij.ClassStats.init(wrong_size, D)
    with pytest.raises(ValueError, match="dtype must be a float type"):
        ij.ClassStats.init(C, D, dtype=int)
    with pytest.raises(TypeError, match=r"other must be ClassStats; got an array of shape \(12, 4\)"):
        STATS.merge(Z)
    with pytest.raises(ValueError, match="features must be an array of numbers; got None"):
        STATS.update(None, Y)
    with pytest.raises(ValueError, match="num_classes is traced.*static_argnames='num_classes'"):
        jax.jit(lambda c: ij.nc1(Z, Y, c))(3)


HEADS = [ij.nc3, ij.nc4, ij.squared_error, ij.neural_collapse, ij.interplay, ij.estimate_interplay]


@pytest.mark.parametrize("measure", HEADS)
def test_heads_as_other_code_stores_them(measure):
    with pytest.raises(ValueError, match=r"if its last column is the bias, pass head\[:, :-1\]"):
        measure(Z, Y, np.c_[W, np.ones(C)])
    with pytest.raises(ValueError, match=r"got shape \(4, 3\): pass head.T"):
        measure(Z, Y, W.T)
    with pytest.raises(ValueError, match=r"one logit pass the head \[-w/2, w/2\]"):
        measure(Z, Y % 2, W[:1])
    jax.tree.map(np.asarray, measure(Z, np.zeros(N, int), W[:1]))  # one class has one row
    if measure in (ij.nc4, ij.squared_error, ij.neural_collapse):
        with pytest.raises(ValueError, match=r"bias must have shape \(3,\)"):
            measure(Z, Y, W, np.ones((C, 1)))


def test_a_bias_without_a_head_is_refused():
    for call in (
        lambda: ij.neural_collapse(Z, Y, bias=np.ones(C)),
        lambda: ij.second_pass(STATS, Z, Y, bias=np.ones(C)),
    ):
        with pytest.raises(ValueError, match="bias was given without a head"):
            call()


@pytest.mark.parametrize(
    "measure",
    [
        lambda y: ij.class_stats(Z, y, C),
        lambda y: ij.nc1(Z, y, C),
        lambda y: ij.davies_bouldin(Z, y, C),
        lambda y: ij.nc3(Z, y, W),
        lambda y: ij.nc4(Z, y, W),
        lambda y: ij.neural_collapse(Z, y, W),
        lambda y: ij.squared_error(Z, y, W),
        lambda y: ij.interplay(Z, y, W),
        lambda y: ij.estimate_interplay(Z, y, W),
        lambda y: ij.second_pass(STATS, Z, y, W),
        lambda y: ij.head_rows(W, y),
        lambda y: ij.update_vocabulary(VOCABULARY, Z, y),
        lambda y: ij.vocabulary_disagreement(VOCABULARY, Z, y, W),
    ],
)
def test_labels_above_the_classes_are_left_out_with_a_warning(measure):
    with pytest.warns(UserWarning, match=f"2 of {N} labels are 3 or more, where there are 3 classes .0 to 2.: these"):
        left_out = measure(np.where(np.arange(N) < 2, [C, C + 5] * (N // 2), Y))
    marked = measure(np.where(np.arange(N) < 2, -1, Y))  # a negative label is meant, so that nothing is said
    jax.tree.map(np.testing.assert_array_equal, left_out, marked)
    with pytest.warns(UserWarning, match=f"1 of {N} labels"):
        ij.update_vocabulary(VOCABULARY, Z, np.where(np.arange(N) < 2, C, Y), where=np.arange(N) > 0)


def test_labels_beyond_32_bits_do_not_become_small_ones():
    """2^32 lies outside [0, C); its lower 32 bits, 0, do not."""
    for dtype, label in ((np.int64, 2**32), (np.int64, -(2**32)), (np.uint64, 2**32 + 1), (np.uint32, 2**31)):
        y = Y.astype(dtype)
        y[:3] = np.array(label, dtype)
        with pytest.warns(UserWarning, match=f"3 of {N} labels") if label > 0 else contextlib.nullcontext():
            found = float(ij.nc1(Z, y, C))
        assert found == pytest.approx(float(ij.nc1(Z[3:], Y[3:], C)), rel=1e-5)
    with pytest.raises(ValueError, match="labels go up to 4294967297; expected 0, ..., C - 1"):
        ij.nc1(Z, y.astype(np.int64) + 2**32 - 2**31 + 1)


def test_integers_beyond_32_bits_keep_their_upper_bits():
    """Without x64 JAX would cut them off and turn 2^32 + 1 into 1."""
    z = np.array([[2**32 + 1, 2**33], [3, 4]])
    expected = z / np.linalg.norm(z.astype(np.float64), axis=1, keepdims=True)
    for dtype in (np.int64, np.uint64):
        np.testing.assert_allclose(ij.unit_rows(z.astype(dtype))[0], expected, rtol=1e-6)
    np.testing.assert_allclose(ij.unit_rows(z.tolist())[0], expected, rtol=1e-6)
    digits = ij.relabel(np.array([2**32, 0, 0, 1]), 2)  # 2^32 is no class, and not the class 0
    assert digits.tolist() == [[-1], [0], [1], [0]]


def test_what_float32_cannot_hold_is_refused_and_float64_measures_it():
    z = Z.astype(np.float64)
    right = float(ij.matrix_entropy(z))
    for scale, shown in ((1e-60, "e-60"), (1e60, "e\\+60")):
        for call in (lambda x: ij.matrix_entropy(x), lambda x: ij.nc1(x, Y), lambda x: ij.nc3(Z, Y, x[:C])):
            with pytest.raises(
                ValueError, match=f"(features|head): the largest entry is .*{shown}, and float32 holds 1e-31"
            ):
                call(z * scale)
        with jax.enable_x64(True):
            assert float(ij.matrix_entropy(z * scale)) == pytest.approx(right, rel=1e-5)
    tiny_beside_others = np.where(np.arange(N)[:, None] == 3, z * 1e-60, z)
    np.testing.assert_array_equal(ij.class_stats(tiny_beside_others, Y).count, np.bincount(Y))
    with pytest.raises(
        ValueError, match="features: the largest entry is 1.e[+]4000, and float64 holds .* power of two$"
    ):
        ij.matrix_entropy(np.full((3, 2), np.longdouble("1e4000")))
    assert np.isnan(ij.matrix_entropy(np.full((3, 2), np.inf)))  # which is no number that was too large


def test_matrices_that_are_no_gram_matrices():
    calls = [ij.matrix_entropy_from_gram, ij.effective_rank_from_gram, ij.estimate_matrix_entropy_from_gram]
    calls += [
        lambda k, f=f: f(k, k) for f in (ij.mir_from_gram, ij.matrix_jsd, ij.spectrum_jsd, ij.matrix_cross_entropy)
    ]
    for call in calls:
        call(K + 1e-4 * np.triu(K))  # as rounding leaves it
        with pytest.raises(ValueError, match=r"(gram|k1|p) must be symmetric; its entries \(.*\) and \(.*\) are"):
            call(np.triu(K))
        with pytest.raises(
            ValueError, match="(gram|k1|p) must be positive semi-definite; the least entry of its diagonal"
        ):
            call(-K)
    with pytest.raises(ValueError, match="must be positive semi-definite.*its eigenvalues go from -0.5 to 1.5"):
        ij.matrix_entropy_from_gram(np.array([[1.0, 2.0], [2.0, 1.0]]))


def test_more_classes_than_memory_holds():
    for call in (
        lambda c: ij.class_stats(Z, Y, c),
        lambda c: ij.nc1(Z, Y, c),
        lambda c: ij.ClassStats.init(c, D),
        lambda c: ij.nc_limits(c),
        lambda c: ij.etf(c),
    ):
        with pytest.raises(ValueError, match="would take .* GiB of memory; this machine has"):
            call(10**12)
    with pytest.raises(ValueError, match="scatter|moments of that many classes"):
        ij.class_stats(np.ones((2, 10**5)), [0, 1], 10**4, scatter="class")


def test_a_negative_cross_entropy_is_refused():
    with pytest.raises(ValueError, match="cross_entropy must not be negative; its least entry is -1"):
        ij.v_information(-1.0, 10)
    assert float(ij.v_information(-1e-7, 8)) == pytest.approx(3, abs=1e-5)  # what rounding makes of zero


def test_numbers_beyond_reason_are_refused():
    for call, message in (
        (lambda: ij.relabel(Y, 2**31), "num_classes must be at most 2147483647"),
        (lambda: ij.relabel(Y, C, num_digits=10**9), "num_digits must be at most 64"),
        (lambda: ij.random_head_entropy(10**400, 2), "num_classes must be at most"),
        (lambda: ij.estimate_matrix_entropy(Z, vectors=10**9), "vectors must be at most 1000000"),
        (lambda: ij.estimate_matrix_entropy(Z, seed=2**70), "seed must be at most"),
        (lambda: ij.coding_rate(Z, 1e60), "mu must be a positive number, from 1e-30 to 1e30"),
        (lambda: ij.rankme(Z, 1e60), "eps must be a number of at least 0 and below 1"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert float(ij.matrix_entropy(Z, alpha=1e300)) == float(ij.matrix_entropy(Z, alpha=np.inf))  # and not nan
    assert float(ij.coding_rate(Z[:, :0])) == 0


def test_estimates_are_not_traced():
    for call in (
        lambda z: ij.estimate_matrix_entropy(z).value,
        lambda z: ij.estimate_joint_entropy(z, z).value,
        lambda z: ij.estimate_interplay(z, Y, W).mir.value,
        lambda z: ij.estimate_matrix_entropy_from_gram(z @ z.T).value,
    ):
        with pytest.raises(ValueError, match="estimates need concrete arrays.*outside jit, grad, vmap"):
            jax.jit(call)(Z)


def test_statistics_and_sums_that_cannot_be():
    for fields in (([1, 1], [[1, 2], [3, 4]], [0, 0]), (None, None, None), (np.ones(3), np.ones((2, 4)), np.ones(2))):
        with pytest.raises(ValueError, match=r"stats must hold arrays count \(C,\), mean \(C, D\)"):
            ij.cdnv_from_stats(ij.ClassStats(*fields))
    with pytest.raises(ValueError, match="energy must not be negative; its least entry is -1"):
        ij.nc1_from_energy([-1, 2, 3], STATS)
    with pytest.raises(ValueError, match="count must not be negative; its least entry is -4"):
        ij.nc1_one_pass([-4, 4, 4], np.ones((C, D)), np.eye(D))


def test_tables_of_pandas():
    pd = pytest.importorskip("pandas")
    expected = float(ij.nc1(Z, Y))
    table = pd.DataFrame(Z.astype(np.float64))
    for z in (table, table.astype("Float64")):
        for y in (pd.Series(Y, index=np.arange(N)[::-1]), pd.Series(Y, dtype="Int64"), pd.Categorical(Y)):
            assert float(ij.nc1(z, y)) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="features has 1 missing value"):
        ij.nc1(table.astype("Float64").mask(table == table.iloc[3, 2]), Y)
    with pytest.raises(ValueError, match=r"leave rows without a label \(nan\) out, or give them -1"):
        ij.nc1(Z, pd.Series(Y, dtype="Int64").where(Y > 0))
    with pytest.raises(ValueError, match="weights must be non-negative and finite; row 0 has nan"):
        ij.nc1(Z, Y, weights=pd.Series(np.ones(N), dtype="Float64").where(np.arange(N) > 0))
    with pytest.raises(ValueError, match=r"entries of type float, str: pass .select_dtypes"):
        ij.nc1(table.assign(name="a"), Y)
    with pytest.raises(ValueError, match="labels are strings"):
        ij.nc1(Z, pd.Series(["cat", "dog", "emu"])[Y].astype("category"))


@pytest.mark.parametrize("measure", [ij.effective_rank, ij.rankme, ij.stable_rank])
def test_a_mask_of_rows_is_the_subset(measure):
    mask = (np.arange(N) % 4 != 1).astype(np.float32)  # nine rows, more than columns
    z = np.where(mask[:, None] > 0, Z, np.nan)
    assert float(measure(z, weights=mask)) == pytest.approx(float(measure(Z[mask > 0])), rel=1e-5)
    repeated = np.repeat(Z, 1 + (np.arange(N) == 2), axis=0)
    assert float(measure(Z, weights=1.0 + (np.arange(N) == 2))) == pytest.approx(float(measure(repeated)), rel=1e-5)


# Orders 0 and infinity


def test_entropies_of_order_zero_and_infinity():
    with jax.enable_x64(True):
        z = np.asarray(Z, np.float64)
        u = z / np.linalg.norm(z, axis=1, keepdims=True)
        p = np.linalg.eigvalsh(u.T @ u / N)
        for f, argument in ((ij.matrix_entropy, z), (ij.matrix_entropy_from_gram, u @ u.T)):
            assert float(f(argument, alpha=0)) == pytest.approx(np.log(D), rel=1e-12)
            assert float(f(argument, alpha=np.inf)) == pytest.approx(-np.log(p.max()), rel=1e-9)
            assert float(f(argument, alpha=200.0)) == pytest.approx(-np.log(p.max()), rel=1e-2)
        flat = np.c_[z[:, :2], np.zeros((N, 2))]
        assert float(ij.matrix_entropy(flat, alpha=0)) == pytest.approx(np.log(2), rel=1e-12)
        assert float(ij.matrix_entropy(np.zeros((3, 2)), alpha=0)) == 0
        assert np.isnan(ij.matrix_entropy(np.full((3, 2), np.nan), alpha=0))
        assert float(ij.joint_entropy(z, z[:, :2], alpha=0)) <= np.log(N)
        direction = np.random.default_rng(1).normal(size=z.shape)
        top = lambda t: float(ij.matrix_entropy(z + t * direction, alpha=np.inf))  # noqa: E731
        gradient = jax.grad(lambda z: ij.matrix_entropy(z, alpha=np.inf))(jnp.asarray(z))
        assert float(jnp.sum(gradient * direction)) == pytest.approx((top(1e-5) - top(-1e-5)) / 2e-5, rel=1e-6)
        assert not np.any(jax.grad(lambda z: ij.matrix_entropy(z, alpha=0))(jnp.asarray(z)))


class Broken:
    def __array__(self, *_, **__):
        raise RuntimeError("boom")


def holds_itself():
    found = []
    found.append(found)
    return found


def deleted():
    found = jnp.ones((4, 3))
    found.delete()
    return found


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ij.matrix_entropy(Broken()), "got a Broken, which NumPy does not take: boom"),
        (lambda: ij.matrix_entropy(holds_itself()), "a list that holds itself"),
        (lambda: ij.matrix_entropy(deleted()), "deleted"),
        (lambda: ij.matrix_entropy(jax.random.split(jax.random.key(0))), "random keys"),
        (lambda: ij.class_stats(Z, Y).reduce("data"), "no mapped axis 'data'"),
        (lambda: ij.unit_rows(Z, floor=-1), "floor must not be negative or nan"),
        (lambda: jax.jit(lambda s: ij.nc_limits(10, mean_energy=s).mir)(0.1), "mean_energy is traced"),
        (lambda: parallel.matrix_entropy(Z, mesh="all"), "mesh must be a Mesh"),
        (lambda: weak(jax.random.key(0), np.zeros((4, 8), np.uint8)), r"images must be \(N, H, W, channels\) uint8"),
        (lambda: normalise(np.zeros((2, 4, 4, 3)), [0] * 2, [1] * 2), "one entry, or 3, one per channel; got 2 and 2"),
    ],
)
def test_unusual_arguments_are_refused_with_our_messages(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_types_of_four_and_eight_bits():
    expected = float(ij.nc1(Z, Y, C))
    for dtype in (jnp.int4, jnp.uint4):
        assert float(ij.nc1(Z, jnp.asarray(Y, dtype), C)) == expected
    coarse = jnp.asarray(Z, jnp.float8_e4m3fn)
    assert float(ij.matrix_entropy(coarse)) == float(ij.matrix_entropy(np.asarray(coarse, np.float32)))


def test_rows_that_float32_cannot_tell_from_zeros_give_a_warning():
    with pytest.warns(RuntimeWarning, match="features: there are rows with all entries below 1e-31"):
        assert float(ij.matrix_entropy(np.float32(Z * 1e-34))) == 0
    ij.matrix_entropy(np.float32(Z * 1e-29))  # warnings are errors here
