"""Views of self-supervised learning against Pillow, the standard library's colours, and closed forms."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from infojax.data import open_dataset
from infojax.data.views import (
    RECIPES,
    Recipe,
    apply_views,
    crop,
    draw_views,
    gaussian_blur,
    jitter,
    luminance,
    solarise,
    turned,
    view,
    view_transforms,
)  # fmt: skip

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def images():
    """Patterns and noise, 24 pictures of 32 x 32."""
    smooth = open_dataset("synthetic", num_train=16, noise=0.1).split("train").x[:16]
    return np.concatenate([smooth, RNG.integers(0, 256, (8, 32, 32, 3))]).astype(np.uint8)


@pytest.mark.parametrize(
    ("size", "interpolation"), [((32, 32), "bicubic"), ((32, 32), "bilinear"), ((9, 48), "bilinear")]
)
def test_crops_are_pillows(images, size, interpolation):
    """Crop first, then resize: within the two roundings of Pillow's passes.

    Bicubic overshoots are clipped between the passes, whose order newer versions of Pillow choose for oblong results.
    """
    n = len(images)
    height, width = RNG.integers(2, 33, (2, n))
    top, left = RNG.integers(0, 33 - height), RNG.integers(0, 33 - width)
    box = [jnp.asarray(x, jnp.float32) for x in (top, left, height, width)]
    found = np.asarray(jax.jit(crop, static_argnums=(5, 6))(images, *box, size, interpolation))
    how = getattr(Image.Resampling, interpolation.upper())
    for i, x in enumerate(images):
        cut = Image.fromarray(x).crop((left[i], top[i], left[i] + width[i], top[i] + height[i]))
        expected = np.asarray(cut.resize(size[::-1], how), float)
        assert np.abs(found[i] - expected).max() <= 1.3
        assert np.abs(found[i] - expected).mean() <= 0.5


def test_the_whole_picture_stays_as_it_is(images):
    n = len(images)
    zero, whole = jnp.zeros(n), jnp.full(n, 32.0)
    np.testing.assert_allclose(crop(images, zero, zero, whole, whole, (32, 32)), images, atol=1e-3)


@pytest.mark.parametrize(("place", "low", "high"), [(0, 0.2, 1.8), (1, 0.2, 1.8), (2, 0.0, 1.8), (3, -0.5, 0.5)])
def test_each_part_of_the_jitter(images, place, low, high):
    """Alone, the other factors neutral; Pillow rounds, and its contrast takes a rounded mean."""
    n = len(images)
    own = RNG.uniform(low, high, n)
    factors = np.tile([1.0, 1.0, 1.0, 0.0], (n, 1))
    factors[:, place] = own
    order = jnp.asarray(np.stack([RNG.permutation(4) for _ in range(n)]), jnp.int32)
    found = np.asarray(jax.jit(jitter)(images.astype(np.float32), jnp.asarray(factors, jnp.float32), order))
    if place == 3:
        for x, y, shift in zip(images.reshape(n, -1, 3)[:, ::97], found.reshape(n, -1, 3)[:, ::97], own, strict=True):
            for pixel, result in zip(x / 255, y / 255, strict=True):
                hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
                np.testing.assert_allclose(result, colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value), atol=2e-5)
        return
    enhance = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[place]
    for x, y, factor in zip(images, found, own, strict=True):
        expected = np.asarray(enhance(Image.fromarray(x)).enhance(factor), float)
        assert np.abs(y - expected).max() <= 1.9  # floor of the blend, and the rounded grey times 1 - factor


def test_the_order_of_the_jitter_is_each_samples(images):
    """Two orders of brightness and contrast give two pictures, each the one of its order by hand."""
    x = images[:2].astype(np.float32)
    x[1] = x[0]
    factors = jnp.tile(jnp.array([[1.6, 0.5, 1.0, 0.0]]), (2, 1))
    found = np.asarray(jitter(jnp.asarray(x), factors, jnp.array([[0, 1, 2, 3], [3, 1, 2, 0]])))

    def contrast(x):
        mean = (x @ np.array([0.299, 0.587, 0.114])).mean()
        return np.clip(mean + 0.5 * (x - mean), 0, 255)

    np.testing.assert_allclose(found[0], contrast(np.clip(1.6 * x[0], 0, 255)), atol=1e-2)
    np.testing.assert_allclose(found[1], np.clip(1.6 * contrast(x[0]), 0, 255), atol=1e-2)
    assert np.abs(found[0] - found[1]).max() > 10


def test_grey_and_solarise_are_pillows(images):
    grey = np.asarray(luminance(images.astype(np.float32)))[..., 0]
    inverted = np.asarray(solarise(images.astype(np.float32)))
    for x, g, s in zip(images, grey, inverted, strict=True):
        assert np.abs(g - np.asarray(Image.fromarray(x).convert("L"), float)).max() <= 0.51
        np.testing.assert_array_equal(s, np.asarray(ImageOps.solarize(Image.fromarray(x), 128)))


def test_blur_is_a_gaussian(images):
    x, sigma, radius = images[:4].astype(np.float64), np.array([0.1, 0.7, 1.5, 2.0]), 3
    found = np.asarray(
        jax.jit(gaussian_blur, static_argnums=2)(x.astype(np.float32), jnp.asarray(sigma, jnp.float32), 3)
    )
    for i, s in enumerate(sigma):
        w = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * s**2))
        w /= w.sum()
        wide = np.pad(x[i], ((3, 3), (3, 3), (0, 0)), "reflect")
        expected = sum(w[a] * w[b] * wide[a : a + 32, b : b + 32] for a in range(7) for b in range(7))
        np.testing.assert_allclose(found[i], expected, atol=1e-3)
    np.testing.assert_allclose(found[0], x[0], atol=1e-3)  # a deviation of 0.1 is no blur


def test_a_hue_of_grey_and_of_one_turn(images):
    x = images.astype(np.float32)
    np.testing.assert_allclose(turned(x, jnp.ones((len(x), 1, 1, 1))), x, atol=1e-3)
    grey = np.repeat(x[..., :1], 3, -1)
    np.testing.assert_array_equal(turned(grey, jnp.full((len(x), 1, 1, 1), 0.3)), grey)


def test_drawn_boxes_have_the_ranges_and_the_law_of_torchvision():
    recipe = Recipe((0.08, 1.0))
    draws = jax.jit(draw_views, static_argnums=(1, 2, 3, 4))(KEY, 20_000, 32, 32, recipe)
    top, left, h, w = (np.asarray(x) for x in draws[:4])
    assert (top >= 0).all() and (left >= 0).all() and (top + h <= 32).all() and (left + w <= 32).all()
    assert all((x == np.round(x)).all() for x in (top, left, h, w))
    assert 0.07 < (h * w / 1024).min() and (w / h).min() > 0.6 and (w / h).max() < 1.7
    # torchvision's rule, sample by sample
    rng, areas, places = np.random.default_rng(3), [], []
    while len(areas) < 20_000:
        area, ratio = 1024 * rng.uniform(0.08, 1), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        a, b = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if 0 < a <= 32 and 0 < b <= 32:  # the tenth failure in a row is rarer than 1e-4
            areas.append(a * b / 1024)
            places.append(rng.integers(0, 33 - b))
    assert np.mean(h * w / 1024) == pytest.approx(np.mean(areas), abs=0.01)
    np.testing.assert_allclose(
        np.quantile(h * w / 1024, [0.1, 0.5, 0.9]), np.quantile(areas, [0.1, 0.5, 0.9]), atol=0.02
    )
    assert np.mean(top) == pytest.approx(np.mean(places), abs=0.2)


def test_a_crop_that_never_fits_is_the_central_one():
    draws = draw_views(KEY, 3, 8, 32, Recipe((0.9, 1.0)))
    assert np.asarray(draws.height).tolist() == [8.0] * 3 and np.asarray(draws.width).tolist() == [11.0] * 3
    assert np.asarray(draws.left).tolist() == [10.0] * 3 and np.asarray(draws.top).tolist() == [0.0] * 3


def test_probabilities_orders_and_factors_are_drawn_independently():
    draws = draw_views(KEY, 20_000, 32, 32, RECIPES["byol"][1]._replace(grey=0.3))
    shares = [np.mean(x) for x in (draws.flip, draws.jitter, draws.grey, draws.blur, draws.solarise)]
    np.testing.assert_allclose(shares, [0.5, 0.8, 0.3, 0.1, 0.2], atol=0.015)
    _, counts = np.unique(np.asarray(draws.order) @ 10 ** np.arange(4), return_counts=True)
    assert len(counts) == 24 and counts.min() > 20_000 / 24 * 0.8
    low, high = np.min(draws.factors, 0), np.max(draws.factors, 0)
    np.testing.assert_allclose(low, [0.6, 0.6, 0.8, -0.1], atol=2e-3)
    np.testing.assert_allclose(high, [1.4, 1.4, 1.2, 0.1], atol=2e-3)


@pytest.mark.parametrize("name", RECIPES)
def test_a_view_of_a_sample_depends_on_its_own_draws_only(images, name):
    """The whole chain, and each sample by itself with its draws."""
    recipe, few = RECIPES[name][1], images[:4]
    draws = draw_views(jax.random.key(3), 4, 32, 32, recipe)
    every = jax.jit(apply_views, static_argnums=(2, 3))
    found = np.asarray(every(few, draws, recipe, None))
    assert found.shape == (4, 32, 32, 3) and found.min() >= 0 and found.max() <= 255.001
    again = np.asarray(every(few[::-1], jax.tree.map(lambda x: x[::-1], draws), recipe, None))[::-1]
    np.testing.assert_allclose(found, again, atol=1e-3)
    assert np.abs(found - few).mean() > 5


def test_recipes_and_transforms(images):
    """Two views differ; the recipe's own parts only; one channel; the size of the result; no flip of digits."""
    mean, std = (100.0, 110.0, 120.0), (50.0, 60.0, 70.0)
    views = view_transforms(mean, std, RECIPES["byol_small"])
    assert set(views) == {"plain", "view1", "view2"}
    np.testing.assert_allclose(
        views["plain"](None, images), (images - np.array(mean)) / np.array(std), rtol=1e-4, atol=1e-5
    )
    one, two = (np.asarray(jax.jit(views[name])(KEY, images)) for name in ("view1", "view2"))
    assert one.dtype == np.float32 and np.abs(one - two).mean() > 0.01
    small = jax.jit(lambda k, x: view(k, x, RECIPES["simclr_small"][0], 12))(KEY, images[..., :1])
    assert small.shape == (24, 12, 12, 1)
    ramp = np.tile(np.arange(32, dtype=np.uint8)[None, None, :, None], (64, 32, 1, 1))
    crops = view_transforms((0.0,), (1.0,), (Recipe(), Recipe()), flip=False)
    assert (np.diff(np.asarray(crops["view1"](KEY, ramp)).mean((1, 3)), axis=1) > -1e-3).all()
    flipped = np.asarray(view_transforms((0.0,), (1.0,), (Recipe(), Recipe()))["view1"](KEY, ramp))
    assert 10 < (flipped[:, 0, 0, 0] > flipped[:, 0, -1, 0]).sum() < 54


@pytest.mark.parametrize(("shape", "recipe", "says"), [
    ((2, 8, 8, 4), Recipe(), "1 or 3 channels"), ((2, 8, 8, 3), Recipe(interpolation="box"), "interpolation must be"),
])  # fmt: skip
def test_what_is_refused(shape, recipe, says):
    with pytest.raises(ValueError, match=says):
        view(KEY, np.zeros(shape, np.uint8), recipe)
