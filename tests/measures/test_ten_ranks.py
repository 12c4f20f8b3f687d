"""One array, ten effective ranks: the numbers that the page docs/ranks.md prints, from loops and from infojax."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

import infojax as ij

PAGE = Path(__file__).parents[2] / "docs" / "ranks.md"
Z = np.random.default_rng(0).normal(size=(200, 32)) * np.arange(1, 33.0) ** -0.8 + 0.5  # as on the page


def exp_entropy(p):
    return np.exp(-np.sum([x * np.log(x) for x in p if x > 0]))


def reached(parts):
    return next(k for k in range(1, len(parts) + 1) if sum(parts[:k]) >= 0.99 * sum(parts))


def unit(z):
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def values():
    """Name on the page -> (by numpy, from its formula; by infojax)."""
    centred = Z - Z.mean(0)
    s, sc = (np.linalg.svd(z, compute_uv=False) for z in (Z, centred))
    su, suc = (np.linalg.svd(unit(z), compute_uv=False) for z in (Z, centred))
    p, l = s / s.sum(), sc**2 / np.sum(sc**2)  # noqa: E741
    return {
        "effective rank": (exp_entropy(p), ij.effective_rank(Z)),
        "RankMe": (exp_entropy(p + 1e-7), ij.rankme(Z)),
        "RankMe, eps = 1e-5": (exp_entropy(p + 1e-5), ij.rankme(Z, 1e-5)),
        "effective rank of the Gram matrix": (exp_entropy(su**2 / 200), ij.effective_rank_from_gram(ij.gram(Z))),
        "Diff-eRank's effective rank": (exp_entropy(suc**2 / 200), np.exp(ij.prompt_entropy(Z[None]).mean)),
        "covariance rank": (exp_entropy(l), ij.covariance_rank(Z)),
        "participation ratio": (1 / np.sum(l**2), ij.participation_ratio(Z)),
        "stable rank": (np.sum(s**2) / s[0] ** 2, ij.stable_rank(Z)),
        "numerical rank": (np.linalg.matrix_rank(Z), ij.numerical_rank(Z)),
        "srank": (reached(s), ij.srank(Z)),
        "approximate rank": (reached(s**2), ij.approximate_rank(Z)),
    }


@pytest.fixture(scope="module")
def found():
    with jax.enable_x64(True):
        return {name: (float(a), float(b)) for name, (a, b) in values().items()}


def test_infojax_and_the_formulas_agree(found):
    for name, (formula, ours) in found.items():
        assert ours == pytest.approx(formula, rel=1e-9), name
    assert len({round(value, 2) for value, _ in found.values()}) >= 9  # ten names, hardly two numbers alike


@pytest.mark.skipif(not PAGE.exists(), reason="the page is not part of this copy")
def test_the_page_prints_them(found):
    rows = re.findall(r"^\| *([^|]+?) *\| *([\d.]+) *\|", PAGE.read_text(), re.MULTILINE)
    printed = {name: value for name, value in rows if name in found}
    assert set(printed) == set(found)
    for name, value in printed.items():
        digits = len(value.partition(".")[2])
        assert round(found[name][0], digits) == float(value), name
