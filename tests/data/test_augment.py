"""Augmentation against Pillow, the oracle: operation by operation, and whole views through the same draws."""

import jax
import numpy as np
import pytest
from PIL import Image

from infojax.bench.collectives import collectives
from infojax.bench.data import pillow_cutout, pillow_operation
from infojax.data import augment, normalise, open_dataset, strong, weak
from infojax.data.augment import _reflected
from infojax.data.randaugment import GREY, NAMES, OPERATIONS, apply_operations, cutout, paint_squares, randaugment

KEY = jax.random.key(0)
apply_jitted = jax.jit(apply_operations)


@pytest.fixture(scope="module")
def images():
    """Patterns, noise, flat ones, and ones of few grey levels, where histograms have gaps."""
    rng = np.random.default_rng(0)
    smooth = open_dataset("synthetic", num_train=140, noise=0.1).split("train").x
    noise = rng.integers(0, 256, (60, 32, 32, 3))
    flat = np.full((10, 32, 32, 3), 7)
    few = rng.integers(0, 256, (30, 1, 1, 3)) // 2 + 16 * rng.integers(0, 5, (30, 32, 32, 3))
    two = np.where(rng.random((10, 32, 32, 3)) < 0.01, 200, 40)
    return np.concatenate([smooth, noise, flat, few, two]).astype(np.uint8)


def pillow(image, name, v):
    """The magnitude is what the float32 was."""
    return pillow_operation(Image.fromarray(image.squeeze() if image.shape[-1] == 1 else image), name, float(v))


def as_array(image, like):
    return np.asarray(image).reshape(like.shape)


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("name", NAMES)
def test_operation_equals_pillow(images, name, channels):
    images = images[..., :channels]
    low, high = OPERATIONS[name]
    v = np.random.default_rng(1).uniform(low, high, len(images)).astype(np.float32)
    v[:2] = low, np.nextafter(np.float32(high), np.float32(low))
    found = np.asarray(apply_jitted(images, np.full((1, len(images)), NAMES.index(name)), v[None]))
    expected = np.stack([as_array(pillow(image, name, value), image) for image, value in zip(images, v, strict=True)])
    # Pillow's sine and cosine are float64: a fixed-point coefficient may differ by one unit, a pixel at an edge moves.
    allowed = 2e-5 * images.size if name == "Rotate" else 0
    assert np.sum(found != expected) <= allowed


def test_operations_follow_each_other(images):
    """Three layers, every image its own operations, against Pillow applied in the same order."""
    rng = np.random.default_rng(2)
    exact = [i for i, name in enumerate(NAMES) if name != "Rotate"]
    operations = rng.choice(exact, (3, len(images)))
    low, high = np.array([OPERATIONS[name] for name in NAMES]).T
    v = rng.uniform(low[operations], high[operations]).astype(np.float32)
    found = np.asarray(apply_jitted(images, operations, v))
    for i, image in enumerate(images):
        expected = image
        for k in range(3):
            expected = np.asarray(pillow(expected, NAMES[operations[k, i]], v[k, i]))
        np.testing.assert_array_equal(found[i], expected)


@pytest.mark.parametrize(("height", "width"), [(28, 28), (96, 64)])
def test_other_sizes(height, width):
    images = np.random.default_rng(3).integers(0, 256, (14, height, width, 3), dtype=np.uint8)
    v = np.array([0.7, 0.5, 0.3, 0.9, 0.1, 0.2, 5.5, 0.0, 0.6, 0.23, -0.17, 99.5, 0.27, -0.3], np.float32)
    found = np.asarray(apply_jitted(images, np.arange(14)[None], v[None]))
    for image, name, value, result in zip(images, NAMES, v, found, strict=True):
        np.testing.assert_array_equal(result, as_array(pillow(image, name, value), image), err_msg=name)


@pytest.mark.parametrize("channels", [3, 1])
def test_cutout_equals_pillow(images, channels):
    images, rng = images[..., :channels], np.random.default_rng(4)
    x, y, side = rng.uniform(0, [[32], [32], [16]], (3, len(images))).astype(np.float32)
    side[0], x[1], y[1], side[1] = 0, 31.5, 0.2, 15.9
    found = np.asarray(paint_squares(images, x, y, side))
    for image, cx, cy, s, result in zip(images, x, y, side, found, strict=True):
        picture = Image.fromarray(image.squeeze() if channels == 1 else image)
        picture = pillow_cutout(picture, cx, cy, s) if s > 0 else picture
        np.testing.assert_array_equal(result, as_array(picture, image))


def test_cutout_draws_the_published_sizes(images):
    blank = np.zeros((4000, 32, 32, 3), np.uint8)
    painted = (np.asarray(cutout(KEY, blank))[..., 0] == GREY[0]).sum((1, 2))
    # E of (floor(s) + 1)^2, s ~ U(0, 16), is 93.5; squares over the right and lower border are cut off
    assert 60 < painted.mean() < 93.5 and painted.max() <= 17**2 and painted.min() >= 1


def test_randaugment_draws_uniformly(images):
    """One operation per layer on a picture that each changes differently: every operation is drawn 1/14 of the time."""
    image = images[3:4]
    many = np.repeat(image, 2800, 0)
    changed = np.any(np.asarray(randaugment(KEY, many, 1)) != many, axis=(1, 2, 3))
    silent = np.mean(~changed)  # Identity, and magnitudes too small to matter
    assert 1 / 14 - 0.015 < silent < 1 / 14 + 0.06


def test_weak_is_one_of_the_flipped_crops(images):
    """Every result is among the 2 x 9 x 9 that np.pad's reflection gives; all of them occur."""
    image = images[150]
    candidates = {
        np.ascontiguousarray(np.pad(side, ((4, 4), (4, 4), (0, 0)), "reflect")[r : r + 32, c : c + 32]).tobytes()
        for side in (image, image[:, ::-1])
        for r in range(9)
        for c in range(9)
    }
    views = np.asarray(weak(KEY, np.repeat(image[None], 3000, 0)))
    assert {view.tobytes() for view in views} == candidates and len(candidates) == 162
    still = np.asarray(weak(KEY, np.repeat(image[None], 300, 0), pad=0, flip=False))
    np.testing.assert_array_equal(still, np.repeat(image[None], 300, 0))


@pytest.mark.parametrize("pad", [0, 1, 3, 7])
def test_reflection_is_numpys(pad):
    i = np.arange(-pad, 8 + pad)
    np.testing.assert_array_equal(_reflected(i, 8), np.pad(np.arange(8), pad, "reflect"))


def test_strong_is_weak_after_cutout_after_randaugment(images):
    k1, k2, k3 = jax.random.split(KEY, 3)
    expected = weak(k3, cutout(k2, randaugment(k1, images)))
    found = jax.jit(strong)(KEY, images)
    assert found.dtype == np.uint8 and found.shape == images.shape
    np.testing.assert_array_equal(found, expected)
    assert np.mean(np.any(np.asarray(found) != images, axis=(1, 2, 3))) > 0.9


def test_views_depend_on_the_key_only(images):
    view = jax.jit(augment.strong)
    np.testing.assert_array_equal(view(KEY, images), view(KEY, images))
    assert not np.array_equal(view(KEY, images), view(jax.random.key(1), images))


def test_double_precision_changes_nothing(images):
    expected = [np.asarray(jax.jit(view)(KEY, images)) for view in (weak, strong)]
    with jax.enable_x64(True):
        found = [np.asarray(jax.jit(view)(KEY, images)) for view in (weak, strong)]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("pad", [-1, 8, 20])
def test_a_pad_beyond_the_image(pad):
    with pytest.raises(ValueError, match=r"pad must be in \[0, 8\)"):
        weak(KEY, np.zeros((2, 8, 9, 1), np.uint8), pad=pad)


@pytest.mark.parametrize("x", [np.zeros((2, 8, 8, 4), np.uint8), np.zeros((2, 8, 8, 3)), np.zeros((8, 8, 3), np.uint8)])
def test_strong_views_of_what_is_no_picture(x):
    with pytest.raises(ValueError, match="must be .N, H, W, 1 or 3. uint8"):
        randaugment(KEY, x)


def test_cutout_centres_are_the_references():
    """np.random.uniform(32) draws from [1, 32]: pixel 0 is covered less often than with centres from [0, 32]."""
    painted = np.asarray(cutout(KEY, np.zeros((20_000, 32, 32, 1), np.uint8)))[..., 0] > 0
    rng = np.random.default_rng(0)
    side, x, y = (
        rng.uniform(0, 16, 20_000),
        np.random.RandomState(0).uniform(32, size=20_000),
        rng.uniform(1, 32, 20_000),
    )
    first, top = np.floor(np.maximum(x - side / 2, 0)), np.floor(np.maximum(y - side / 2, 0))
    last, bottom = (np.floor(np.minimum(a + side, 32)) for a in (first, top))
    columns = (np.arange(32) >= first[:, None]) & (np.arange(32) <= last[:, None])
    rows = (np.arange(32) >= top[:, None]) & (np.arange(32) <= bottom[:, None])
    np.testing.assert_allclose(painted.mean((0, 1)), (columns * rows.sum(1, keepdims=True)).mean(0) / 32, atol=0.006)


def test_views_are_the_same_on_a_mesh_where_no_picture_moves(images):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    batch = images[:240]
    placed = jax.device_put(batch, sharding)
    compiled = jax.jit(strong, out_shardings=sharding).lower(KEY, placed).compile()
    np.testing.assert_array_equal(compiled(KEY, placed), jax.jit(strong)(KEY, batch))
    assert all(moved.bytes < batch[0].nbytes for moved in collectives(compiled))


def test_normalise():
    x = np.array([[0, 128, 255]], np.uint8)
    found = normalise(x, (125.3, 123.0, 113.9), (63.0, 62.1, 66.7))
    np.testing.assert_allclose(found, (x - [[125.3, 123.0, 113.9]]) / [[63.0, 62.1, 66.7]], rtol=1e-6)
    assert found.dtype == np.float32
