"""Decompositions of one compiled program never run at the same time: on CPU, jaxlib's would wait for each other."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import infojax as ij

RNG = np.random.default_rng(0)
Z, OTHER, HEAD = (jnp.asarray(RNG.standard_normal(shape), jnp.float32) for shape in ((60, 12), (60, 7), (5, 12)))
LABELS = jnp.asarray(np.arange(60) % 5)
K1, K2 = (x @ x.T for x in (Z[:9], Z[9:18]))


def gradient_of_mi(z, head):
    return jax.grad(lambda *args: ij.interplay(args[0], LABELS, args[1]).mutual_information, (0, 1))(z, head)


PROGRAMS = {
    "interplay, Gram": (lambda z, w: ij.interplay(z, LABELS, w, route="gram"), (Z, HEAD)),
    "interplay, classes": (lambda z, w: ij.interplay(z, LABELS, w, route="classes"), (Z, HEAD)),
    "interplay from stats": (
        lambda z, w: ij.interplay_from_stats(ij.class_stats(ij.unit_rows(z)[0], LABELS, 5, scatter="class"), w),
        (Z, HEAD),
    ),
    "gradient of MI": (gradient_of_mi, (Z, HEAD)),
    "mutual_information": (ij.mutual_information, (Z, OTHER)),
    "hdr": (ij.hdr, (Z, OTHER)),
    "hdr_from_gram": (ij.hdr_from_gram, (K1, K2)),
    "renyi": (lambda k: ij.matrix_entropy_from_gram(k, alpha=3.0), (K1,)),
    "matrix_jsd": (ij.matrix_jsd, (K1, K2)),
    "spectrum_jsd": (ij.spectrum_jsd, (K1, K2)),
    "eigenspace_jsd": (ij.eigenspace_jsd, (K1, K2)),
    "matrix_cross_entropy": (ij.matrix_cross_entropy, (K1, K2)),
    "neural_collapse": (lambda z, w: ij.neural_collapse(z, LABELS, w, jnp.zeros(5)), (Z, HEAD)),
    "neural_collapse, C > D": (lambda z, w: ij.neural_collapse(z, LABELS, w, jnp.zeros(5)), (Z[:, :3], HEAD[:, :3])),
    "gradient of NC1": (jax.grad(lambda z: ij.nc1(z, LABELS, 5)), (Z,)),
    "squared_error": (lambda z, w: ij.squared_error(z, LABELS, w), (Z, HEAD)),
}


def unordered(hlo):
    """Pairs of LAPACK calls of a computation of which neither needs the other's result."""
    found = []
    for computation in re.split(r"\n\n", hlo):
        operands, calls = {}, []
        for line in computation.splitlines():
            match = re.match(r"\s*(?:ROOT )?%?([\w.-]+) = .*?[\])}] ([\w-]+)\((.*)", line)
            if match is None:
                continue
            name, operation, rest = match.groups()
            operands[name] = set(re.findall(r"%([\w.-]+)", rest.split("calls=")[0]))
            if operation == "custom-call" and "lapack" in rest:
                calls.append(name)
        before = {}
        for name, needed in operands.items():  # operands come before their use
            before[name] = needed | {far for near in needed for far in before.get(near, ())}
        found += [(a, b) for i, a in enumerate(calls) for b in calls[i + 1 :] if a not in before[b]]
    return found


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="LAPACK is what CPUs use")
@pytest.mark.parametrize("name", PROGRAMS)
def test_one_at_a_time(name):
    f, arguments = PROGRAMS[name]
    hlo = jax.jit(f).lower(*arguments).compile().as_text()
    assert "lapack" in hlo
    assert unordered(hlo) == []


def test_the_test_sees_two_at_once():
    hlo = jax.jit(lambda a, b: (jnp.linalg.eigvalsh(a), jnp.linalg.eigvalsh(b))).lower(K1, K2).compile().as_text()
    assert len(unordered(hlo)) == 1


def test_infinite_input_stays_visible():
    """The dependence between decompositions must not hide an infinite input of either."""
    bad = K2.at[0, 0].set(jnp.inf)
    assert not np.isfinite(jax.jit(ij.matrix_jsd)(K1, bad)) and not np.isfinite(jax.jit(ij.matrix_jsd)(bad, K1))
