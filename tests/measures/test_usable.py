"""Digits of a sample's index within its class, and V-information, against plain Python."""

import math
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infojax.measures.usable import num_digits, relabel, v_information


def relabel_by_hand(labels, num_classes, width):
    """The definition, one sample at a time, most significant digit first."""
    seen, rows = Counter(), []
    for label in labels:
        if not 0 <= label < num_classes:
            rows.append([-1] * width)
            continue
        index, row = seen[label], []
        seen[label] += 1
        for _ in range(width):
            row.insert(0, index % num_classes)
            index //= num_classes
        rows.append(row)
    return np.array(rows, int).reshape(len(labels), width)


def test_published_example():
    # from the README of the thesis's code
    digits = relabel([0, 0, 0, 1, 1, 3, 4, 4, 4, 4, 4, 4], 5)
    assert digits.dtype == jnp.int32
    assert digits[:, 0].tolist() == [0] * 11 + [1]
    assert digits[:, 1].tolist() == [0, 1, 2, 0, 1, 0, 0, 1, 2, 3, 4, 0]


def test_exact_powers_need_no_extra_digit():
    assert relabel(np.zeros(125, int), 5).shape == (125, 3)
    assert relabel(np.zeros(126, int), 5).shape == (126, 4)
    assert relabel(np.repeat(np.arange(10), 1000), 10).shape == (10_000, 3)  # the thesis's CIFAR-10
    assert relabel(np.zeros(5, int), 5).shape == (5, 1)
    assert relabel(np.zeros(1, int), 5).shape == (1, 1)


@given(st.integers(2, 300), st.integers(0, 60))
def test_number_of_digits_is_exact(num_classes, power):
    count = num_classes**power
    assert num_digits(count, num_classes) == max(power, 1)
    assert num_digits(count + 1, num_classes) == power + 1
    assert num_digits(0, num_classes) == 1


@given(
    st.integers(2, 6).flatmap(
        lambda c: st.tuples(st.just(c), st.lists(st.integers(-2, c + 1), min_size=40, max_size=40))
    )
)
def test_relabel_is_its_definition(case):
    num_classes, labels = case
    largest = max(Counter(y for y in labels if 0 <= y < num_classes).values(), default=0)
    width = 1
    while num_classes**width < largest:
        width += 1
    expected = relabel_by_hand(labels, num_classes, width)
    labels = np.array(labels)
    np.testing.assert_array_equal(relabel(labels, num_classes), expected)
    reversed_digits = relabel(labels, num_classes, order="least_significant_first")
    np.testing.assert_array_equal(reversed_digits, expected[:, ::-1])
    wider = relabel(labels, num_classes, num_digits=width + 2)
    np.testing.assert_array_equal(wider, relabel_by_hand(labels, num_classes, width + 2))


@given(st.integers(2, 5), st.lists(st.integers(0, 4), min_size=30, max_size=30))
def test_digits_tell_the_samples_of_a_class_apart(num_classes, labels):
    labels = np.array(labels) % num_classes
    digits = np.asarray(relabel(labels, num_classes))
    for c in range(num_classes):
        rows = digits[labels == c]
        index = rows @ num_classes ** np.arange(digits.shape[1])[::-1]
        np.testing.assert_array_equal(index, np.arange(len(rows)))  # in the order of the data set


def test_relabel_under_jit_and_vmap():
    labels = np.random.default_rng(0).integers(-1, 4, (3, 50))
    expected = np.stack([relabel_by_hand(row, 4, 3) for row in labels])

    def three(y):
        return relabel(y, 4, num_digits=3)

    np.testing.assert_array_equal(jax.jit(three)(labels[0]), expected[0])
    np.testing.assert_array_equal(jax.vmap(three)(labels), expected)
    np.testing.assert_array_equal(jax.jit(jax.vmap(three))(labels), expected)
    for traced in (jax.jit(lambda y: relabel(y[0], 4)), jax.vmap(lambda y: relabel(y, 4))):
        with pytest.raises(ValueError, match="num_digits must be given"):
            traced(labels)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32"])
def test_relabel_takes_every_integer_type(dtype):
    labels = np.array([1, 0, 1, 1, 100, 1, 100], dtype)
    # more classes than the smaller types can hold
    np.testing.assert_array_equal(relabel(labels, 300), relabel_by_hand(labels.tolist(), 300, 1))
    outside = np.array([0, np.iinfo(dtype).max, 0], dtype)
    assert relabel(outside, 2).tolist() == [[0], [-1], [1]]


def test_relabel_of_nothing():
    assert relabel(np.zeros(0, int), 3).shape == (0, 1)
    assert relabel(np.array([7, -1]), 3).tolist() == [[-1], [-1]]
    assert jax.jit(lambda y: relabel(y, 3, num_digits=2))(jnp.zeros(0, int)).shape == (0, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: relabel([0, 0], 1), "num_classes must be at least 2; got 1"),
        (lambda: relabel([0.0, 1.0], 2), "float32"),
        (lambda: relabel([[0, 1]], 2), r"shape \(1, 2\)"),
        (lambda: relabel([0, 0, 0], 2, num_digits=1), "num_digits is 1, .* at least 2"),
        (lambda: relabel([0, 1], 2, num_digits=0), "num_digits is 0"),
        (lambda: jax.jit(lambda y: relabel(y, 2, num_digits=0))(jnp.arange(2)), "num_digits is 0"),
        (lambda: relabel([0, 1], 2, order="lsd"), "order is 'lsd'"),
        (lambda: num_digits(3, 1), "num_classes must be at least 2; got 1"),
        (lambda: num_digits(-1, 3), "max_count is -1"),
        (lambda: v_information(0.5, 1), "num_classes must be at least 2; got 1"),
        (lambda: v_information(0.5, 4, base=1), "base must be a finite number above 1; got 1"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@given(st.floats(0, 50, width=32), st.integers(2, 1000), st.sampled_from([2, math.e, 10, 1.5]))
def test_v_information_is_its_definition(cross_entropy, num_classes, base):
    expected = math.log(num_classes, base) - cross_entropy / math.log(base)
    value = v_information(cross_entropy, num_classes, base=base)
    assert value.shape == () and value.dtype == jnp.float32
    np.testing.assert_allclose(value, expected, rtol=1e-6, atol=2e-5)
    assert value <= math.log(num_classes, base) + 1e-5


def test_v_information_at_its_landmarks():
    assert v_information(0.0, 8) == 3  # a perfect decoder: log2 C bits
    assert v_information(math.log(8), 8) == pytest.approx(0, abs=1e-6)  # one that guesses
    assert v_information(math.log(16), 8) == pytest.approx(-1, abs=1e-6)  # not clipped
    # the thesis's ten classes, in bits
    assert v_information(0.02, 10) == pytest.approx(3.3219281 - 0.02 / 0.6931472, abs=1e-6)


def test_v_information_under_transformations():
    losses = jnp.array([0.0, 0.5, 3.0])
    expected = 2 - losses / math.log(2)
    np.testing.assert_allclose(jax.jit(v_information, static_argnums=1)(losses, 4), expected, 1e-6)
    np.testing.assert_allclose(jax.vmap(lambda x: v_information(x, 4))(losses), expected, 1e-6)
    slope = jax.grad(lambda x: v_information(x, 4))(0.3)
    assert slope == pytest.approx(-1 / math.log(2))
    assert v_information(losses.astype(jnp.bfloat16), 4).dtype == jnp.float32
    assert v_information(1, 4) == pytest.approx(2 - 1 / math.log(2))
