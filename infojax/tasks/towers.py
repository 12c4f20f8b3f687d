"""Towers for a run: published weights from a file, or small ones of CLIP that are trained on the data set at hand."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from safetensors.numpy import save

from infojax.data import Source, normalise
from infojax.models import bridge, clip
from infojax.outputs import write
from infojax.processes import share, together
from infojax.tasks.build.saved import TOWERS
from infojax.tasks.config import ConfigError

# Captions for training small towers: one of these is drawn at each step.
CAPTIONS = (
    "a photo of a {}.", "a picture of a {}.", "a blurry photo of a {}.", "a drawing of a {}.", "a close-up of a {}.",
    "a small {}.", "this is a {}.", "{}",
)  # fmt: skip


class Towers(NamedTuple):
    """Both towers with their weights.

    Attributes:
      sizes: `clip.Architecture` or `bridge.Architecture`; variables: of `clip.CLIP` or `bridge.Bridge`.
      dtype: of the computation.
      notes: where they come from, one line each.
    """

    sizes: Any
    variables: Any
    dtype: Any
    notes: Sequence[str]

    @property
    def logit_scale(self) -> jax.Array:
        """log of the inverse temperature, 0-d."""
        return self.variables["params"]["logit_scale"]

    def of(self, tower: str) -> tuple[Any, Any]:
        """(parameters, state) of "image" or "text"."""
        state = {kind: own[tower] for kind, own in self.variables.items() if tower in own}
        return state.pop("params"), state

    def view(self, images: jax.Array) -> jax.Array:
        """Stored square pictures (n, S, S, 1 or 3) as the image tower takes them.

        Those of another size are resized (bicubic, to within a grey level of Pillow's); grey ones have three equal
        channels.
        """
        side, channels = self.sizes.image_size, images.shape[-1]
        if images.shape[1] != side:
            shape = (len(images), side, side, channels)
            resized = jax.image.resize(images.astype(jnp.float32), shape, "cubic", antialias=True)
            images = jnp.clip(jnp.rint(resized), 0, 255)
        if channels == 1:
            images = jnp.broadcast_to(images, (*images.shape[:-1], 3))
        models = models_of(self.sizes)
        return normalise(images, jnp.asarray(models.MEAN), jnp.asarray(models.STD))

    def encoder(self) -> Callable[[Any], jax.Array]:
        """Stored pictures (n, S, S, channels) -> unit features (n, E) of a batch."""
        module, (params, state) = models_of(self.sizes).image_tower(self.sizes, self.dtype), self.of("image")

        @jax.jit
        def encode(params, state, images):
            found: Any = module.apply({"params": params, **state}, self.view(images))
            return clip.unit(found)

        return lambda images: encode(params, state, images)

    def images(self, source: Source, chosen: np.ndarray, batch_size: int = 64) -> np.ndarray:
        """(n, E) unit features of some samples of a source, read batch by batch.

        A batch of fewer is filled up with the last sample; few samples have a smaller one, a power of two.
        """
        encode, found = self.encoder(), []
        batch_size = min(batch_size, 1 << max(0, len(chosen) - 1).bit_length())
        for start in range(0, len(chosen), batch_size):
            rows = chosen[np.minimum(np.arange(start, start + batch_size), len(chosen) - 1)]
            order, back = np.unique(rows, return_inverse=True)
            found.append(np.asarray(encode(jnp.asarray(source.read(order)[0][back]))))
        return np.concatenate(found)[: len(chosen)]

    def texts(self, names: Sequence[str], templates: Sequence[str], batch_size: int = 100) -> jax.Array:
        """(C, E) unit features of the classes: the mean over templates of unit features, normalised again."""
        models = models_of(self.sizes)
        module, tokenize = models.text_tower(self.sizes, self.dtype), models.tokenizer(self.sizes)
        params = self.of("text")[0]

        @jax.jit
        def encode(params, ids):
            found: Any = module.apply({"params": params}, ids)
            return clip.unit(found)

        ids = tokenize([template.format(name) for template in templates for name in names], length=0)
        parts = [encode(params, jnp.asarray(ids[i : i + batch_size])) for i in range(0, len(ids), batch_size)]
        found: Any = jnp.concatenate(parts).reshape(len(templates), len(names), -1)
        return clip.unit(jnp.mean(found, axis=0))


def models_of(sizes: Any) -> Any:
    """The package of an architecture, `clip` or `bridge`: image_tower, text_tower, tokenizer, MEAN, STD."""
    return bridge if isinstance(sizes, bridge.Architecture) else clip


def published(file: str, activation: str, dtype: Any) -> Towers:
    """The towers of a safetensors file, CLIP's or those of a bridge, which its names tell.

    Raises:
      ConfigError: it is not there, or holds neither.
    """
    try:
        state = clip.read(file)
    except clip.WeightsError as error:
        raise ConfigError(f"weights: {error}") from None
    sizes: Any
    try:
        if bridge.is_bridge(state):
            sizes, variables = bridge.convert(state)
            kind = f"EfficientNet-Lite0 and a BERT of {sizes.text_layers} layers, joined by a regression"
        else:
            sizes, variables = clip.convert(state, activation=activation)
            kind = "ViT" if isinstance(sizes.image_layers, int) else "ResNet"
    except clip.WeightsError as error:
        raise ConfigError(f"weights: {file}: {error}") from None
    note = f"weights: {file}: {kind}, images of {sizes.image_size}, {sizes.features} joint features"
    return Towers(sizes, variables, dtype, (note,))


def small_sizes(settings: Any, shape: Sequence[int]) -> clip.Architecture:
    """The sizes of small towers.

    Args:
      settings: the config's section "towers"; shape: of a picture, (S, S, channels).
    Raises:
      ConfigError: pictures are not square, the patch does not tile them, or heads do not share the width evenly.
    """
    if settings.width % settings.head_width:
        raise ConfigError(f"towers.width is {settings.width}, no multiple of towers.head_width, {settings.head_width}")
    height, width = shape[:2]
    if height != width or height % settings.patch:
        raise ConfigError(
            f"towers.patch is {settings.patch}, which must divide the square pictures of {height}x{width}"
        )
    return clip.Architecture(
        settings.width, height, settings.layers, settings.width, settings.patch, settings.width, settings.layers,
        settings.context, head_width=settings.head_width,
    )  # fmt: skip


def small(
    settings: Any, sizes: clip.Architecture, source: Source, chosen: np.ndarray, names: Sequence[str], workdir: Any,
    dtype: Any,
) -> Towers:  # fmt: skip
    """Small towers, trained on samples of a source to match pictures with captions that name their class.

    Process 0 trains them and keeps them in the run folder, where all processes read them, and the run finds them when
    it continues. Without a folder (a dry run) they stay untrained.

    Args:
      settings: the config's section "towers"; chosen: the samples; names: of the classes.
    Raises:
      ConfigError: the folder holds towers of another kind.
    """
    if workdir is None:
        variables = _begun(settings, sizes, _captions(sizes, names))
        return Towers(sizes, variables, dtype, ("dry run: the small towers are not trained",))
    file, note = Path(workdir) / TOWERS, f"small towers: read from {TOWERS} in the run folder"
    with together():
        if jax.process_index() == 0 and not file.is_file():
            variables, accuracy = matched_pairs(settings, sizes, *source.read(np.sort(chosen)), _captions(sizes, names))
            write(file, save(clip.to_openai(variables)))
            note = (
                f"small towers: trained for {settings.steps:,} steps on {len(chosen):,} samples, none of them a shot, "
                f"with captions of all {len(names)} classes; {accuracy:.1%} of the last batches right; kept in {TOWERS}"
            )
    try:
        _, variables = clip.load(file, sizes=sizes)
    except clip.WeightsError as error:
        raise ConfigError(f"workdir: {error}; remove it, or choose another workdir") from None
    return Towers(sizes, variables, dtype, (share(note)[0],))


def _captions(sizes, names):
    """(captions, classes, tokens) ids of CAPTIONS."""
    ids = clip.Tokenizer(sizes.context)([c.format(name) for c in CAPTIONS for name in names], length=0)
    return jnp.asarray(ids.reshape(len(CAPTIONS), len(names), -1))


def _begun(settings, sizes, ids):
    """Variables before the first step."""
    like = jnp.zeros((1, sizes.image_size, sizes.image_size, 3))
    return jax.jit(clip.CLIP(sizes).init)(jax.random.key(settings.seed), like, ids[0])


def matched_pairs(
    settings: Any, sizes: clip.Architecture, images: Any, labels: Any, ids: jax.Array
) -> tuple[Any, float]:
    """(variables, accuracy over the last tenth of the steps) after training both towers and the temperature.

    Each step draws samples and a caption, and minimises the cross-entropy of the class whose caption belongs to a
    picture; AdamW with half a cosine, the temperature bounded by 100 as in CLIP.
    """
    module, key = clip.CLIP(sizes), jax.random.key(settings.seed)
    towers = Towers(sizes, _begun(settings, sizes, ids), jnp.float32, ())
    images, labels = jnp.asarray(images), jnp.asarray(labels)
    schedule = optax.warmup_cosine_decay_schedule(0.0, settings.lr, settings.steps // 10, settings.steps)
    tx = optax.adamw(schedule, weight_decay=0.01)

    def loss(params, x, ids, labels):
        logits = module.apply({"params": params}, towers.view(x), ids)
        value = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
        return value, jnp.mean(jnp.argmax(logits, axis=1) == labels)

    @jax.jit
    def step(params, state, k):
        drawn = jax.random.split(jax.random.fold_in(key, k))
        chosen = jax.random.randint(drawn[0], (settings.batch_size,), 0, len(labels))
        caption = jax.random.randint(drawn[1], (), 0, len(ids))
        found, gradients = jax.value_and_grad(loss, has_aux=True)(params, images[chosen], ids[caption], labels[chosen])
        changes, state = tx.update(gradients, state, params)
        params = optax.apply_updates(params, changes)
        params["logit_scale"] = jnp.minimum(params["logit_scale"], jnp.log(100.0))
        return params, state, found[1]

    params = towers.variables["params"]
    state, right = tx.init(params), []
    for k in range(settings.steps):
        params, state, accuracy = step(params, state, k)
        right.append(accuracy)
    last = right[-max(1, settings.steps // 10) :]
    return dict(towers.variables, params=params), float(jnp.mean(jnp.stack(last))) if right else float("nan")


def note_size(sizes: Any, shape: Sequence[int]) -> Sequence[str]:
    """What a line says of pictures that have another size than the image tower takes.

    Raises:
      ConfigError: they are not square.
    """
    height, width = shape[:2]
    if height != width:
        raise ConfigError(
            f"pictures are {height} x {width}, but the image tower takes square ones of {sizes.image_size}; give "
            f"--config.data.options.size={sizes.image_size} where the set has that option (folder, tfds)"
        )
    same = height == sizes.image_size
    return () if same else (f"pictures of {height} x {width} are resized to {sizes.image_size} for the image tower",)
