"""Conventions that reproduce public codes, against the numbers that those codes print for seeded features.

Run once with torch 2.13 in float64: OFSkean/information_flow a6ad508 with repitl fd0da54, waltonfuture/Diff-eRank and
/Matrix-Entropy, arnab39/reptrix e5adeca, and felixsh/nc-toolbox with NumPy in place of dask.
"""

import jax
import numpy as np
import pytest

import infojax as ij


def features():
    """Tokens of three prompts, a second network's, two views, views for LiDAR, targets, features and head."""
    rng = np.random.default_rng(5)
    prompts = [rng.normal(size=(n, 6)) * [3, 1, 1, 0.5, 0.2, 0.1] + 1 for n in (9, 4, 12)]
    views = (rng.normal(size=(7, 1, 5)) + 0.4 * rng.normal(size=(7, 2, 5))) * 0.3
    objects = rng.normal(size=(30, 1, 8)) * np.geomspace(1, 0.1, 8) + 0.5 * rng.normal(size=(30, 4, 8))
    untrained = [rng.normal(size=(len(p), 6)) for p in prompts]
    targets = rng.normal(size=(40, 3)) @ np.array([[1, 0.5, 0], [0, 0.8, 0.2], [0, 0, 0.6]])
    z = targets @ rng.normal(size=(3, 7)) + 0.2 * rng.normal(size=(40, 7)) + 0.5
    return prompts, views, objects, untrained, targets, z, rng.normal(size=(3, 7))


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def test_entropies_of_prompts():
    prompts, _, _, untrained, *_ = features()
    z, groups = np.concatenate(prompts), np.repeat([0, 1, 2], [9, 4, 12])

    def values(**given):
        return ij.prompt_entropy(z, groups=groups, **given).values

    first = "information_flow_2024"
    printed = {
        1: [1.2473163464147865, 1.3428865714424254, 0.9924738890872453],
        2: [0.27973476184152274, 1.304968499781031, -0.6722035880817883],
        0.5: [1.4060438747199904, 1.3639887928669319, 1.2744711552968875],
    }
    for alpha, expected in printed.items():
        np.testing.assert_allclose(values(alpha=alpha, convention=first), expected, rtol=1e-6)
    np.testing.assert_allclose(
        values(convention="information_flow", normalization="max"),
        [0.6961405076051691, 0.9686878985481849, 0.5539102240742356], rtol=1e-6,
    )  # fmt: skip
    for alpha, expected in ((1, 0.7221637936534199), (2, 7.553789973792882)):
        found = ij.dataset_entropy(z, groups=groups, alpha=alpha, convention=first)
        assert float(found) == pytest.approx(expected, rel=1e-6)
    ranks = [3.2393626903146564, 2.5499605354473207, 2.5453564424992794]
    np.testing.assert_allclose(np.exp(values(convention="diff_erank")), ranks, rtol=1e-6)
    scores = [0.655990176205054, 0.5224350136453854, 0.5214264036176307]
    np.testing.assert_allclose(values(convention="matrix_entropy"), scores, rtol=1e-6)
    found = ij.diff_erank(np.concatenate(untrained), z, groups=groups)
    assert float(found) == pytest.approx(1.1324319996612942, rel=1e-6)


def test_curvature_infonce_and_lidar():
    prompts, views, objects, *_ = features()
    found = [float(ij.curvature(p, convention="information_flow_2024")) for p in prompts]
    np.testing.assert_allclose(found, [1.76953259392717, 1.9785460115089943, 1.8670093889376758], rtol=1e-6)
    loss = ij.infonce_bound(views[:, 0], views[:, 1], convention="information_flow_2024")
    assert float(loss) == pytest.approx(1.1815445769597004, rel=1e-6)
    # The code adds up its scatter matrices in float32.
    assert float(ij.lidar(objects, convention="normalized")) == pytest.approx(0.7582154986374924, rel=1e-5)
    reptrix = 2.5014815765335037  # of squared eigenvalues: no convention of ours
    assert float(ij.lidar(objects)) > 1.5 * reptrix


def test_regression_collapse_of_nc_toolbox():
    *_, targets, z, head = features()
    given = {"convention": "nc_toolbox"}
    assert float(ij.nrc1(z, 3, **given)) == pytest.approx(0.07602414200134447, rel=1e-6)
    assert float(ij.nrc2(z, head)) == pytest.approx(0.38582104324985705, rel=1e-6)
    # Its NRC3 takes a vector for a diagonal matrix: no convention of ours.
    assert abs(float(ij.nrc3(head, targets, gamma=0.25)) - 3.353347765736043) > 0.5
