"""`analyze`: the numbers equal the measures, whatever goes in; what goes wrong is reported in one line."""

import json
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rich.console
from sklearn.metrics import davies_bouldin_score, silhouette_score

import infojax as ij
from infojax.analysis import measured, subsampling, sums


def samples(n=120, classes=4, dim=8, spread=0.5, seed=0):
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(classes, dim)) + 0.3
    labels = rng.permutation(np.arange(n) % classes)
    head = means - means.mean(0) + 0.2 * rng.normal(size=means.shape)
    return means[labels] + spread * rng.normal(size=(n, dim)), labels, head, rng.normal(size=classes)


@pytest.fixture(scope="module")
def data():
    return samples()


@pytest.fixture(scope="module")
def report(data):
    return ij.analyze(*data)


def test_every_measure_is_the_public_function(data, report):
    z, y, head, bias = data
    with jax.enable_x64(True):
        flow, centered = (ij.interplay(z, y, head, center=c) for c in (False, True))
        nc = ij.neural_collapse(z, y, head, bias)
        expected = {
            "entropy_features": ij.matrix_entropy(z),
            "entropy_features_centered": ij.matrix_entropy(z, center=True),
            **{f"matrix_entropy_alpha_{a:g}": ij.matrix_entropy(z, alpha=a) for a in (0.5, 2.0, 5.0)},
            "effective_rank": ij.effective_rank(z),
            "effective_rank_from_gram": ij.effective_rank_from_gram(ij.gram(z)),
            "rankme": ij.rankme(z),
            "stable_rank": ij.stable_rank(z),
            "srank": ij.srank(z),
            "approximate_rank": ij.approximate_rank(z),
            "covariance_rank": ij.covariance_rank(z),
            "participation_ratio": ij.participation_ratio(z),
            "coding_rate": ij.coding_rate(z),
            "mean_energy": flow.mean_energy,
            "entropy_head": flow.entropy_head,
            "entropy_head_weights": ij.matrix_entropy(head),
            **{k: getattr(flow, k) for k in ("joint_entropy", "mutual_information", "mir", "hdr")},
            **{f"{k}_centered": getattr(centered, k) for k in ("joint_entropy", "mutual_information", "mir", "hdr")},
            **{k: v for k, v in nc._asdict().items() if k != "per_class"},
            **{f"nc1_{c}": ij.nc1(z, y, convention=c) for c in ij.NC1_CONVENTIONS if c != "thesis"},
            "silhouette": silhouette_score(z, y),
        }
        expected = {key: float(value) for key, value in expected.items()}
    assert report.measures.keys() == expected.keys() == report.conventions.keys()
    for key, value in expected.items():
        assert report.measures[key] == pytest.approx(value, rel=1e-9, abs=1e-12), key
    assert report.measures["davies_bouldin"] == pytest.approx(davies_bouldin_score(z, y), rel=1e-12)


@pytest.mark.parametrize("exact", [None, 40], ids=["rows at once", "streamed"])
def test_ranks_of_the_covariance(exact):
    z = np.random.default_rng(0).normal(size=(150, 30)) * np.arange(1, 31.0) ** -0.8 + 0.5
    found = ij.analyze(z, exact=exact).measures
    with jax.enable_x64(True):
        fit = ij.alpha_req(z)
        expected = {
            "covariance_rank": ij.covariance_rank(z), "participation_ratio": ij.participation_ratio(z),
            "alpha_req_alpha": fit.alpha, "alpha_req_r2": fit.r2,
        }  # fmt: skip
    for key, value in expected.items():
        assert found[key] == pytest.approx(float(value), rel=1e-9), key
    low = ij.analyze(np.outer(np.arange(20.0), np.ones(20)))
    assert np.isnan(low.measures["alpha_req_alpha"]) and "not zero" in low.reasons["alpha_req_alpha"]
    assert low.measures["covariance_rank"] == pytest.approx(1) == low.measures["participation_ratio"]
    assert "alpha_req_alpha" not in ij.analyze(z[:12]).measures  # 11 eigenvalues


def test_per_class_values(data, report):
    z, y, head, bias = data
    with jax.enable_x64(True):
        per_class = ij.neural_collapse(z, y, head, bias).per_class
        for key, value in per_class._asdict().items():
            np.testing.assert_allclose(report.per_class[key], value, rtol=1e-9, atol=1e-12)
        entropies = [float(ij.matrix_entropy(z[y == c])) for c in range(4)]
    np.testing.assert_allclose(report.per_class["entropy"], entropies, rtol=1e-9)


@pytest.mark.parametrize("chunk", [7, 50, 1000])
def test_streaming_equals_direct(data, report, monkeypatch, chunk):
    """Forced to stream, with blocks that do not divide N, the numbers are those of the direct route."""
    monkeypatch.setattr(sums, "DIRECT_ROWS", 100)
    streamed = ij.analyze(*data, chunk=chunk)
    assert "silhouette" in " ".join(streamed.warnings)
    for key, value in report.measures.items():
        if key != "silhouette":
            assert streamed.measures[key] == pytest.approx(value, rel=1e-8, abs=1e-10), key
    np.testing.assert_allclose(streamed.per_class["entropy"], report.per_class["entropy"], rtol=1e-8)
    np.testing.assert_allclose(streamed.spectrum, report.spectrum, atol=1e-12)


def test_what_does_not_fit_is_measured_on_a_sample_and_says_so(monkeypatch):
    z, y, head, bias = samples(n=400, classes=6, dim=40)
    monkeypatch.setattr(sums, "DIRECT_ROWS", 64)
    monkeypatch.setattr(measured, "JOINT_SIDE", 200)  # the compressed side is 6 x 40
    monkeypatch.setattr(sums, "SCATTER_BUDGET", 200)
    monkeypatch.setattr(measured, "ESTIMATED", 64 * 40)
    found = ij.analyze(z, y, head, bias)
    index = sums.sample_of(400, 64, 0)
    with jax.enable_x64(True):
        expected = float(ij.interplay(z[index], y[index], head).mir)
        exact = float(ij.matrix_entropy(z))
    assert found.measures["mir"] == pytest.approx(expected, rel=1e-4)  # in float32
    assert found.measures["entropy_features"] == pytest.approx(exact, rel=1e-9)
    assert found.conventions["mir"].endswith("on 64 of 400 rows drawn at random")
    assert any(w.startswith("interplay: measured on 64 of 400 rows") for w in found.warnings)


@pytest.mark.parametrize("budget", [200, 2**22])
def test_what_is_estimated_says_so_with_its_bounds(monkeypatch, budget):
    """From the rows, or from the moments of the classes."""
    z, y, head, bias = samples(n=900, classes=20, dim=30)
    with jax.enable_x64(True):
        expected = float(ij.interplay(z, y, head).mir)
    monkeypatch.setattr(sums, "DIRECT_ROWS", 64)
    monkeypatch.setattr(measured, "JOINT_SIDE", 200)
    monkeypatch.setattr(sums, "SCATTER_BUDGET", budget)
    for name in ("estimate_interplay", "estimate_interplay_from_stats"):
        monkeypatch.setattr(measured, name, partial(getattr(measured, name), exact_side=64))
    found = ij.analyze(z, y, head, bias, ci=20)
    low, high = map(float, re.search(r"estimated, in \[(.*), (.*)\] at 95%", found.conventions["mir"]).groups())
    assert low <= found.measures["mir"] <= high < low + 0.02
    assert low - 1e-3 <= expected <= high + 1e-3
    assert "estimated" not in found.conventions["nc1"] and "mir" not in found.intervals and "nc1" in found.intervals
    assert not any(w.startswith("interplay: measured on") for w in found.warnings)


def test_a_sample_limits_the_rank_as_the_rows_themselves_do(monkeypatch):
    monkeypatch.setattr(sums, "DIRECT_ROWS", 64)
    found = ij.analyze(np.random.default_rng(0).normal(size=(400, 80)), ci=20)
    assert any(w.startswith("N <= D (64 samples, 80 columns): the spectrum is rank-limited") for w in found.warnings)
    assert "ci: no intervals for measures of the spectrum: measured on a subset of rows, or estimated" in found.warnings
    assert "entropy_features" not in found.intervals and "mean_energy" in found.intervals


@pytest.mark.parametrize("kind", ["jax", "list", "float32", "memmap", "bfloat16", "images"])
def test_what_goes_in(data, report, kind, tmp_path):
    z, y, _, _ = data
    if kind == "memmap":
        np.save(tmp_path / "z.npy", z)
    inputs = {
        "jax": lambda: jnp.asarray(z, jnp.float32),
        "list": lambda: z.tolist(),
        "float32": lambda: z.astype(np.float32),
        "memmap": lambda: np.load(tmp_path / "z.npy", mmap_mode="r"),
        "bfloat16": lambda: jnp.asarray(z, jnp.bfloat16),
        "images": lambda: z.reshape(len(z), 2, 2, 2),
    }
    tolerance = {"jax": 1e-5, "float32": 1e-5, "bfloat16": 2e-2}.get(kind, 1e-12)
    found = ij.analyze(inputs[kind](), y.tolist())
    for key in ("entropy_features", "nc1", "cdnv", "silhouette"):
        assert found.measures[key] == pytest.approx(report.measures[key], rel=tolerance), key


def test_torch_tensors(data, report):
    torch = pytest.importorskip("torch")
    z, y, head, bias = (torch.tensor(x) for x in data)
    found = ij.analyze(z.requires_grad_(), y, torch.nn.Parameter(head), bias)
    assert found.measures == pytest.approx(report.measures, rel=1e-12)
    half = ij.analyze(z.bfloat16(), y)
    assert half.measures["entropy_features"] == pytest.approx(report.measures["entropy_features"], rel=2e-2)


def test_layers(data):
    z, y, head, bias = data
    wide = np.concatenate([z, z**2], axis=1)
    reports = ij.analyze({"early": wide, "late": z}, y, head, bias)
    assert list(reports) == ["early", "late"]
    assert "mir" in reports["late"].measures and "mir" not in reports["early"].measures
    assert reports.to_frame().loc["late", "nc1"] == reports["late"].measures["nc1"]
    assert "early" in str(reports) and "late" in reports.to_html()


def test_limits_are_reached_at_collapse():
    y = np.repeat(np.arange(4), [60, 30, 20, 10])  # shapes as elsewhere: each one compiles
    etf = ij.etf(4, 8)
    found = ij.analyze(etf[y], y, etf)
    for key, limit in found.limits.items():
        if np.isfinite(found.measures[key]) and key != "silhouette":
            assert found.measures[key] == pytest.approx(limit, abs=1e-7), key
    assert any(w.startswith("class imbalance: 10 to 60") for w in found.warnings)


def test_limits_follow_the_mean_energy():
    y = np.arange(120) % 4
    shifted = np.concatenate([ij.etf(4, 7), np.full((4, 1), 0.5)], axis=1)
    found = ij.analyze(shifted[y], y, shifted)
    assert found.measures["mean_energy"] == pytest.approx(0.2, abs=1e-12)  # 0.25 / 1.25
    for key in ("entropy_features", "entropy_features_centered", "effective_rank_from_gram"):
        assert found.measures[key] == pytest.approx(found.limits[key], abs=1e-7), key


def test_rows_that_are_left_out(data):
    """Negative labels and ignore_index are the subset, in every measure, and in a stream of blocks; and are counted."""
    z, y, head, bias = data
    hidden = np.arange(len(y)) % 7 == 3
    plain = ij.analyze(z[~hidden], y[~hidden], head, bias)
    for mark, options in ((-1, {}), (-100, {}), (255, dict(ignore_index=255))):
        marked = np.where(hidden, mark, y)
        for chunk in (4096, 5):
            found = ij.analyze(z, marked, head, bias, chunk=chunk, **options)
            assert found.measures == pytest.approx(plain.measures, rel=1e-9, nan_ok=True)
            assert found.warnings[0] == f"{hidden.sum()} of {len(y)} rows are left out: their label is {mark}"
    lonely = ij.analyze(z, np.where(hidden, 255, y)).warnings
    assert any("the label 255 is far from" in line and "ignore_index=255" in line for line in lonely)


def test_strings_are_numbered_in_sorted_order(data):
    z, y, head, bias = data
    names = np.array(["ant", "bee", "cat", "dog"])
    plain = ij.analyze(z, y, head, bias)
    for labels in (names[y], names[y].astype(object), names[y].tolist(), names[y].astype("S")):
        found = ij.analyze(z, labels, head, bias)
        assert found.measures == pytest.approx(plain.measures, nan_ok=True)
        assert found.class_names == tuple(names) and found.to_dict()["class_names"] == names.tolist()
        assert found.warnings[0] == (
            "labels are strings, numbered in sorted order: ant 0, bee 1, cat 2, dog 3; the rows of the head must be in "
            "the same order"
        )


def test_names_that_mark_rows_to_leave_out(data):
    z, y, *_ = data
    hidden = np.arange(len(y)) % 7 == 3
    plain = ij.analyze(z[~hidden], y[~hidden])
    names = np.where(hidden, "?", np.array(["ant", "bee", "cat", "dog"])[y])
    for mark in ("?", ["?", "none"]):
        found = ij.analyze(z, names, ignore_index=mark)
        assert found.measures == pytest.approx(plain.measures, rel=1e-9, nan_ok=True)
        assert found.class_names == ("ant", "bee", "cat", "dog")
        assert f"{hidden.sum()} of {len(y)} rows are left out: their label is ?" in found.warnings
    assert "no row has the label 'none' (ignore_index)" in found.warnings
    assert "no row has the label 77 (ignore_index)" in ij.analyze(z, y, ignore_index=77).warnings


def test_bytes_that_are_no_text_are_refused(data):
    labels = np.array([b"cat", b"\xff\xfe"])[np.arange(len(data[0])) % 2]
    with pytest.raises(ij.InputError, match="labels holds bytes that are not UTF-8 text"):
        ij.analyze(data[0], labels)


def test_strings_of_whole_numbers_are_these():
    """As names, 10 and 11 would come before 2, and a head's rows would be those of other classes."""
    rng = np.random.default_rng(0)
    y = np.arange(240) % 12
    head = rng.normal(size=(12, 8))
    z = head[y] + 0.3 * rng.normal(size=(240, 8))
    plain = ij.analyze(z, y, head)
    found = ij.analyze(z, y.astype(str), head)
    assert found.measures == plain.measures and not found.class_names
    assert found.warnings[0] == "labels are strings of whole numbers, read as integers"
    marked = ij.analyze(z, np.where(y == 3, -1, y).astype(str), head)
    assert "20 of 240 rows are left out: their label is -1" in marked.warnings


def test_tables_of_pandas(data):
    pd = pytest.importorskip("pandas")
    z, y, head, bias = data
    plain = ij.analyze(z, y, head, bias)
    names = pd.Series(["ant", "bee", "cat", "dog"])[y].reset_index(drop=True)
    for labels in (pd.Series(y, dtype="Int64"), names, names.astype("category"), names.astype("string")):
        found = ij.analyze(pd.DataFrame(z), labels, pd.DataFrame(head), pd.Series(bias))
        assert found.measures == pytest.approx(plain.measures, rel=1e-9, nan_ok=True)
    for labels in (pd.Series(y, dtype="Int64").where(y > 0), names.astype("category").where(y > 0)):
        with pytest.raises(ij.InputError, match="labels"):
            ij.analyze(z, labels)


def test_names_that_look_alike_are_told():
    y = np.array(["a", "a ", "caf\u00e9", "cafe\u0301", "b"])[np.arange(60) % 5]
    told = ij.analyze(np.random.default_rng(0).normal(size=(60, 3)), y).warnings
    [line] = [text for text in told if "look alike" in text]
    assert "'a' and 'a '" in line and "'cafe\\u0301' and 'caf\\xe9'" in line and "'b'" not in line


def test_axes_that_are_flattened_are_told(data):
    z = data[0].reshape(120, 2, 2, 2)
    told = "each sample is an array of 2 x 2 x 2, flattened to 8 columns"
    assert told in ij.analyze(z).warnings
    assert told in ij.analyze({"conv": z})["conv"].warnings
    for pooled in (data[0], data[0][:, :, None, None]):
        assert not any("flattened" in text for text in ij.analyze(pooled).warnings)


def test_unsigned_labels_that_stand_for_negative_ones(data):
    z, y, _, _ = data
    unsigned = np.where(np.arange(120) < 5, -1, y).astype(np.uint64)
    with pytest.raises(ij.InputError, match=r"labels go up to 18446744073709551615.*pass labels.astype\(numpy.int64\)"):
        ij.analyze(z, unsigned)
    assert ij.analyze(z, unsigned.astype(np.int64)).measures == ij.analyze(z[5:], y[5:]).measures


def test_features_beyond_float64():
    with pytest.raises(ij.InputError, match="features: the largest entry is 1.e[+]4000, and float64 holds"):
        ij.analyze(np.full((5, 2), np.longdouble("1e4000")))


def test_what_analyze_cannot_take(data):
    z, y, _, _ = data
    for call, message in (
        (lambda: jax.jit(lambda z: ij.analyze(z).measures["rankme"])(z), "features is a traced value"),
        (lambda: ij.analyze({"a": z}, y, np.array(1.0)), r"head has shape \(\); expected \(C, D\)"),
        (lambda: ij.analyze({1: z, "1": z}), "features has two layers of the same name"),
        (lambda: ij.analyze(z, y, distributed="no"), "distributed must be True or False; got 'no'"),
        (lambda: ij.analyze(z, np.full(120, 1e300)), r"row 0 has 1e\+300"),
        (lambda: ij.analyze(np.zeros((3, 2), "m8[s]")), "entries of type timedelta64"),
    ):
        with pytest.raises(ij.InputError, match=message):
            call()


def test_names_that_cannot_be_seen_are_in_quotes(data):
    [line] = [
        text for text in ij.analyze(data[0], np.array(["", "a\nb", "c"])[data[1] % 3]).warnings if "sorted" in text
    ]
    assert "'' 0, 'a\\nb' 1, c 2" in line


def test_rows_and_means_that_are_equal_are_told():
    told = ij.analyze(np.ones((20, 3)), np.arange(20) % 2).warnings
    assert any("all rows are equal" in text for text in told)
    assert any("class means coincide, for instance those of 0 and 1" in text for text in told)
    z = np.random.default_rng(0).normal(size=(20, 3))
    told = ij.analyze(np.r_[z, z], np.arange(40) // 20).warnings  # the same rows in both classes
    assert any("class means coincide" in text for text in told) and not any("all rows" in text for text in told)
    assert not any("coincide" in text for text in ij.analyze(np.r_[z, z + 1], np.arange(40) // 20).warnings)


def test_a_head_of_uneven_rows_is_doubted(data):
    z, y, head, _ = data
    uneven = head * np.array([1.0, 1, 1, 60])[:, None]
    assert any("the head of a cosine classifier" in line for line in ij.analyze(z, y, uneven).warnings)
    assert not any("cosine" in line for line in ij.analyze(z, y, head).warnings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(features=np.ones(5)), "features has shape (5,); expected (N, D), one row per sample"),
        (
            dict(features=np.zeros((0, 3)), labels=None),
            "features has shape (0, 3): no samples or no columns",
        ),
        (dict(features=[[1, 2], [3]]), "features must be an array of numbers; got a list of rows of unequal lengths"),
        (dict(features=np.ones((120, 8)) * 1j), "features has dtype complex128; expected real numbers"),
        (
            dict(features=np.full((120, 8), "a")),
            "features must be an array of numbers; got an array of shape (120, 8) with entries of type <U1",
        ),
        (dict(features=None), "features must be an array of numbers; got None"),
        (dict(features="f.npz"), "features must be an array of numbers; got 'f.npz'"),
        (dict(features=[np.ma.masked_less(r, 3) for r in np.ones((120, 8))]), "masked array with 960 masked values"),
        (dict(labels=np.ma.masked_equal(np.arange(120) % 4, 2)), "labels is a masked array with 30 masked values"),
        (dict(labels=["a", None] * 60), "labels: 60 of 120 rows have none (None, nan or NA)"),
        (dict(labels=np.array(["a", np.nan] * 60, object)), "labels: 60 of 120 rows have none"),
        (
            dict(labels=["a", "b", "c"] * 40),
            "labels are 3 names, the head has 4 rows, and their order is unknown",
        ),
        (dict(labels=np.arange(120) % 5 * 60), "expected 0, ..., 3"),
        (
            dict(labels=np.where(np.arange(120) % 9, np.arange(120) % 4, 255)),
            "0, ..., 3; if 255 marks rows to leave out",
        ),
        (dict(ignore_index="x"), "ignore_index is 'x'; expected a label, and the labels are whole numbers"),
        (dict(ignore_index=1.5), "ignore_index is 1.5; expected a label"),
        (
            dict(labels=["a", "b", "c", "d"] * 30, ignore_index=255),
            "ignore_index is 255; expected a label, and the labels",
        ),
        (dict(labels=None, head=None, bias=None, ignore_index=2), "ignore_index is 2, but there are no labels"),
        (dict(ci="many"), "ci must be a whole number; got 'many'"),
        (dict(chunk=2.5), "chunk must be a whole number; got 2.5"),
        (dict(seed=-1), "seed must be at least 0; got -1"),
        (dict(progress=3), "progress is 3; expected a function of (rows done, rows in all, phase)"),
        (dict(labels=np.zeros(3, int)), "labels has shape (3,); expected (120,), one per row of the features"),
        (dict(labels=np.zeros((120, 4))), "pass labels.argmax(1) if one-hot"),
        (dict(labels=np.full(120, 0.5)), "labels must be whole numbers 0, ..., C - 1; row 0 has 0.5"),
        (dict(labels=np.full(120, -1)), "labels: all 120 rows are left out, their label is -1"),
        (dict(labels=np.full(120, 9)), "labels go up to 9, head has 4 classes (rows); expected 0, ..., 3"),
        (dict(labels=1 + np.arange(120) % 4), "expected 0, ..., 3: pass labels - 1 if they count from 1"),
        (dict(labels=np.arange(120) % 3 * 2**31), "labels go up to 4294967296, head has 4 classes"),
        (
            dict(labels=np.arange(120) % 3 * 2**31, head=None, bias=None),
            "labels go up to 4294967296 but only 3 values occur; expected 0, ..., C - 1: pass numpy.unique(",
        ),
        (dict(features=dict(a=np.ones((120, 8)), b=np.ones((9, 8)))), "b: labels has shape (120,); expected (9,)"),
        (dict(labels=None), "head was given without labels"),
        (dict(head=np.ones((8, 4))), "head has shape (8, 4); expected (C, D) with D = 8, the features' columns: pass"),
        (dict(head=np.ones((4, 7))), "head has shape (4, 7); expected (C, D) with D = 8, the features' columns"),
        (dict(head=np.full((4, 8), np.inf)), "head holds nan or inf"),
        (dict(bias=np.full(4, np.nan)), "bias holds nan or inf; expected finite numbers"),
        (
            dict(labels=np.full(120, np.nan)),
            "labels holds nan or inf; expected integers 0, ..., C - 1, with -1 for rows",
        ),
        (dict(labels=["a"] * 119 + [3]), "labels are strings, but 3 is among them"),
        (dict(features=np.ma.masked_less(np.arange(960.0).reshape(120, 8), 3)), "masked array with 3 masked values"),
        (dict(head=np.ones((4, 9))), "if its last column is the bias, pass head[:, :-1] and bias=head[:, -1]"),
        (
            dict(labels=np.arange(120) % 2, head=np.ones((1, 8)), bias=None),
            "for two classes with one logit pass the head [-w/2, w/2] and the bias [-b/2, b/2]",
        ),
        (dict(bias=np.ones(3)), "bias has shape (3,); expected (4,), one per class"),
        (dict(head=None), "bias was given without a head"),
        (dict(ci=5), "ci is 5; expected at least 20 subsamples"),
        (dict(chunk=0), "chunk is 0; expected at least 1 row"),
        (dict(features={}), "features is an empty dict"),
    ],
    ids=lambda x: "" if isinstance(x, str) else "-".join(x),
)
def test_bad_input_is_one_line(data, change, message):
    arguments = dict(zip(("features", "labels", "head", "bias"), data, strict=True)) | change
    with pytest.raises(ij.InputError) as error:
        ij.analyze(**arguments)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_non_finite_row_is_named(data):
    z = data[0].copy()
    z[77, 3] = np.nan
    with pytest.raises(ij.InputError, match=r"^act: row 77 holds nan or inf; expected finite numbers: drop such rows$"):
        ij.analyze(z, chunk=10, name="act")
    z[77, 3], z[12, 0] = 0, -np.inf
    with pytest.raises(ij.InputError, match="row 12 holds"):
        ij.analyze(z, chunk=10)


def test_warnings_of_a_statistician(data):
    z, y, _, _ = samples(n=6, classes=3, dim=20)
    text = " | ".join(ij.analyze(np.abs(z) + 5, np.array([0, 0, 2, 2, 2, 4])).warnings)
    for part in ("N <= D (6 samples, 20 columns)", "large common mean", "2 of 5 classes have no samples (1, 3)",
                 "1 classes have one sample", "class imbalance: 1 to 3"):  # fmt: skip
        assert part in text, part
    z, *rest = data
    zero = ij.analyze(np.where(np.arange(120)[:, None] < 3, 0, z), *rest)
    assert "3 rows are zero" in zero.warnings[0]


def test_every_nan_has_a_reason():
    line, two = np.repeat([[1.0, 2, 0], [-1, -2, 0]], 3, 0), [0, 0, 0, 1, 1, 1]
    cases = {  # the shapes are few because each one compiles
        "one sample": dict(features=np.ones((1, 3)), labels=[0]),
        "all zero": dict(features=np.zeros((6, 3)), labels=two, head=np.eye(2, 3)),
        "all equal": dict(features=np.ones((6, 3)), labels=two, head=np.eye(2, 3)),
        "opposite": dict(features=line, labels=two, head=line[2:4]),
        "zero head": dict(features=np.eye(6, 3), labels=two, head=np.zeros((2, 3))),
        "one sample a class": dict(features=np.eye(3), labels=[0, 1, 2]),
    }
    found = {name: ij.analyze(**case) for name, case in cases.items()}
    for name, report in found.items():
        bad = {key for key, value in report.measures.items() if not np.isfinite(value)}
        assert bad and bad == set(report.reasons) and all(report.reasons.values()), name
    opposite = found["opposite"]
    assert np.isnan(opposite.measures["mir"]) and opposite.reasons["mir"].startswith("0/0")
    assert opposite.measures["nc1"] == 0


def test_intervals_cover(data):
    """Of 200 data sets, about 95% of the intervals hold the expectation at n (3 standard errors: 90.4% or more)."""
    rng, dim, n = np.random.default_rng(0), 4, 80

    def draw():
        return rng.normal(size=(n, dim)) * [1, 0.7, 0.5, 0.3] + [0.3, 0, 0, 0]

    def entropy(z):
        u = z / np.linalg.norm(z, axis=1, keepdims=True)
        return measured.spectrum_entropy(np.linalg.eigvalsh(u.T @ u / len(u)))

    truth = np.mean([entropy(draw()) for _ in range(4000)])
    labels, hits = np.zeros(n, int), 0
    for _ in range(200):
        z = draw()
        halves = [entropy(z[index]) for index in subsampling.halves(labels, 100, rng)]
        found = subsampling.interval(entropy(z), np.array(halves), n, n // 2)
        hits += found.low <= truth <= found.high
    assert 181 <= hits <= 199, hits


def test_intervals_in_a_report(data):
    found = ij.analyze(*data, ci=20)
    plain = ij.analyze(*data)
    assert found.measures == plain.measures
    mir = found.intervals["mir"]
    assert mir.low < found.measures["mir"] < mir.high and mir.m == 60
    assert (
        mir.bias == pytest.approx(mir.at_m - found.measures["mir"]) and mir.bias > 0
    )  # on these features MIR falls with n
    assert "nc2_equinorm_head" not in found.intervals  # does not vary
    assert "entropy_head_weights" not in found.intervals
    index = next(subsampling.halves(data[1], 1, np.random.default_rng([0, 1])))
    assert np.bincount(data[1][index]).tolist() == [15] * 4 and len(set(index)) == 60


def test_intervals_are_refused_where_they_mislead():
    z, y, _, _ = samples(n=24, classes=4, dim=20)
    limited = ij.analyze(z, y, ci=20)
    assert "entropy_features" not in limited.intervals and "nc1" in limited.intervals
    assert "rank-limited" in limited.warnings[-1]
    refused = ij.analyze(z, np.r_[np.zeros(21, int), [1, 1, 1]], ci=20)
    assert refused.intervals == {} and "fewer than 4 samples" in refused.warnings[-1]


def test_forms_of_a_report(report):
    text = json.loads(json.dumps(report.to_dict()))
    assert text["measures"]["nc1"] == report.measures["nc1"] and text["num_classes"] == 4
    frame = report.to_frame()
    assert frame.loc["mir", "value"] == report.measures["mir"] and frame.loc["mir", "limit"] == report.limits["mir"]
    assert "mir" in repr(report) and "<table" in report._repr_html_() and "<svg" in report.to_html()
    assert report.plot().axes


def test_rich_prints_reports_as_wide_as_the_console(report):
    console = rich.console.Console(width=110, color_system=None)
    for shown in (report, ij.LayerReports({"last": report})):
        with console.capture() as capture:
            console.print(shown)
        lines = [line.rstrip() for line in capture.get().rstrip().splitlines()]
        assert lines == shown.table(110).splitlines()


def test_progress_reaches_the_end(data):
    seen = []
    told = lambda done, total, phase: seen.append((done, total, phase))  # noqa: E731
    ij.analyze(data[0], chunk=50, progress=told)
    assert seen == [(120, 120, "directions")]  # all rows are held at once
    ij.analyze(data[0], np.arange(120) % 3, chunk=50, progress=told)
    assert [done for done, _, phase in seen if phase == "class means"] == [50, 100, 120]
    assert seen[-1] == (120, 120, "around the means")


def test_more_rows_are_exact_if_asked_for(data, monkeypatch):
    monkeypatch.setattr(sums, "DIRECT_ROWS", 64)
    sampled, exact = (ij.analyze(data[0], data[1], exact=n) for n in (None, 120))
    assert any("on 64 of 120 rows" in line and "--exact 120" in line for line in sampled.warnings)
    monkeypatch.undo()
    assert not any("drawn at random" in line for line in exact.warnings)
    assert exact.measures == ij.analyze(data[0], data[1]).measures
