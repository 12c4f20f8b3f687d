"""The cross-modal alignment loss against loops in float64, closed forms, and finite differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from infojax.objectives.crossmodal import cross_modal_alignment, group_entropies

RNG = np.random.default_rng(0)
N, DIM, CLASSES = 7, 5, 4
LABELS = np.array([2, 0, 2, 3, 2, 0, 3])  # class 1 is absent
IMAGES = RNG.normal(size=(N, DIM)) * RNG.uniform(0.5, 2, size=(N, 1))
CLASS_TEXTS = RNG.normal(size=(CLASSES, DIM))
OWN_TEXTS = RNG.normal(size=(N, DIM))  # texts that depend on the image
FORMS = [("paper", "once"), ("paper", "per_image"), ("released", "once"), ("released", "per_image")]


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def entropy(vectors):
    w = np.linalg.eigvalsh(unit(vectors) @ unit(vectors).T / len(vectors))
    w = w[w > 1e-12]
    return -np.sum(w * np.log(w))


def oracle(images, texts, labels, form, count):
    found = []
    for c in np.unique(labels):
        text = texts[labels == c] if count == "per_image" else texts[labels == c][:1]
        group = np.concatenate([images[labels == c], text])
        found.append(entropy(group) / (np.log(len(group)) if form == "released" else 1))
    return sum(found) if form == "paper" else np.mean(found)


def differences(f, x, h=1e-5):
    """Central finite differences of f in every entry of x, in float64."""
    found = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[place] = h
        found[place] = (f(x + step) - f(x - step)) / (2 * h)
    return found


@functools.cache
def program(form, count):
    loss = functools.partial(cross_modal_alignment, form=form, count=count, num_classes=CLASSES)
    return jax.jit(jax.value_and_grad(lambda i, t, labels, weights: loss(i, t, labels, weights=weights), (0, 1)))


def of(form, count, images, texts, labels=LABELS, weights=None):
    weights = np.ones(N) if weights is None else weights
    arguments = (jnp.asarray(x, jnp.float32) for x in (images, texts))
    return program(form, count)(*arguments, jnp.asarray(labels), jnp.asarray(weights, jnp.float32))


@pytest.mark.parametrize(("form", "count"), FORMS)
@pytest.mark.parametrize("texts", [CLASS_TEXTS[LABELS], OWN_TEXTS])
def test_value_and_gradient(form, count, texts):
    value, (of_images, of_texts) = of(form, count, IMAGES, texts)
    assert value == pytest.approx(oracle(IMAGES, texts, LABELS, form, count), abs=2e-6)
    expected = differences(lambda x: oracle(x, texts, LABELS, form, count), IMAGES)
    np.testing.assert_allclose(of_images, expected, atol=2e-5)
    expected = differences(lambda x: oracle(IMAGES, x, LABELS, form, count), texts)
    np.testing.assert_allclose(of_texts, expected, atol=2e-5)


def test_the_gradient_in_a_text_of_a_class_is_the_sum_over_its_images():
    def loss(class_texts):
        return cross_modal_alignment(jnp.asarray(IMAGES, jnp.float32), class_texts[LABELS], jnp.asarray(LABELS))

    found = jax.jit(jax.grad(loss))(jnp.asarray(CLASS_TEXTS, jnp.float32))
    expected = differences(lambda t: oracle(IMAGES, t[LABELS], LABELS, "paper", "once"), CLASS_TEXTS)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert not np.any(found[1])  # absent


def test_one_image_in_a_class_is_the_binary_entropy_of_its_cosine():
    labels = np.array([0, 1, 2, 3, 3, 3, 3])
    weights = np.array([1, 1, 1, 1, 0, 0, 0])  # four classes with one image each
    value, (_, of_texts) = of("released", "once", IMAGES, OWN_TEXTS, labels, weights)
    cosines = np.sum(unit(IMAGES) * unit(OWN_TEXTS), axis=1)[:4]
    p = (1 + cosines) / 2
    assert value == pytest.approx(np.mean(-(p * np.log2(p) + (1 - p) * np.log2(1 - p))), abs=2e-6)
    # dH/ds = -artanh(s) / ln 2 of each of the four, along the direction that turns the text to its image
    u, v = unit(IMAGES)[:4], unit(OWN_TEXTS)[:4]
    slope = -np.arctanh(cosines) / np.log(2) / 4
    tangent = slope[:, None] * (u - cosines[:, None] * v) / np.linalg.norm(OWN_TEXTS[:4], axis=1, keepdims=True)
    np.testing.assert_allclose(of_texts[:4], tangent, atol=2e-5)
    assert not np.any(of_texts[4:])


@pytest.mark.parametrize(("form", "count"), FORMS)
def test_a_mask_is_the_subset(form, count):
    weights = np.array([1, 0, 1, 1, 0, 1, 1])
    value, (of_images, _) = of(form, count, np.where(weights[:, None], IMAGES, 1e3), OWN_TEXTS, weights=weights)
    kept = weights > 0
    assert value == pytest.approx(oracle(IMAGES[kept], OWN_TEXTS[kept], LABELS[kept], form, count), abs=2e-6)
    assert not np.any(of_images[~kept])


@pytest.mark.parametrize(("form", "count"), FORMS)
def test_degenerate_features_have_finite_gradients(form, count):
    same = np.ones((N, DIM))
    cases = {
        "identical": (same, same, None, 0.0),
        "opposite": (same, -same, None, 0.0),  # of rank one
        "nothing selected": (IMAGES, OWN_TEXTS, np.zeros(N), 0.0),
        "zero features": (0 * same, 0 * same, None, 0.0),
    }
    for name, (images, texts, weights, expected) in cases.items():
        value, gradients = of(form, count, images, texts, weights=weights)
        assert value == pytest.approx(expected, abs=1e-6), name
        assert all(np.all(np.isfinite(g)) for g in gradients), name


def test_orthonormal_features_have_the_largest_value():
    basis = np.eye(N + 1, dtype=np.float32)
    labels = jnp.zeros(N, int)
    found = cross_modal_alignment(basis[:N], jnp.tile(basis[N:], (N, 1)), labels, form="released", num_classes=1)
    assert found == pytest.approx(1, abs=1e-6)


def test_groups_are_those_of_the_classes_in_order_of_appearance():
    found = group_entropies(jnp.asarray(IMAGES), jnp.asarray(OWN_TEXTS), jnp.asarray(LABELS), num_classes=CLASSES)
    np.testing.assert_array_equal(found.size, [4, 3, 3, 0])
    np.testing.assert_array_equal(found.label[:3], [2, 0, 3])


@pytest.mark.parametrize(("name", "value"), [("form", "mean"), ("count", "twice")])
def test_unknown_words(name, value):
    with pytest.raises(ValueError, match=f"{name} must be one of .*; got '{value}'"):
        cross_modal_alignment(jnp.ones((2, 2)), jnp.ones((2, 2)), jnp.zeros(2, int), **{name: value})
