"""Prompt learning on frozen towers: CoOp and CoCoOp, with the cross-modal alignment loss of weight lambda."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from infojax.measures.spectra import unit_rows
from infojax.objectives.contract import Aux, Batches, Constants, Context, Head, Metrics, Model, Net, State, View
from infojax.objectives.crossmodal.cma import cross_modal_alignment
from infojax.objectives.crossmodal.prompts import Prompts, prompt_features
from infojax.objectives.nets import Nets
from infojax.objectives.objective import Objective, objective


class Matched(NamedTuple):
    """Images with class texts: logits (n, C), embedding (n, E) unit image features, texts (C, E) or (n, C, E).

    `features` is empty: there are no layers between the two.
    """

    logits: jax.Array
    embedding: jax.Array
    texts: jax.Array
    features: dict[str, jax.Array] = {}


@objective
class PromptLearning(Objective):
    """(1 - weight) CE(exp(s) cos(f(x), g([P, y])), y) + weight CMA; only the prompt P is trained.

    exp(s) is CLIP's factor of the cosines, 100 in OpenAI's weights. The paper's softmax is written without it, but its
    released code has it, as CoOp's.

    Nets: "prompt" (`prompt_net`), trained; "text" and, where images are not given as features, "image", frozen.
    Constants: "prompts", a `Prompts`; "logit_scale", s. Source "train"; with `per_class`, "classes", whose samples are
    the shots of a class, (C, K, ...).

    Attributes:
      weight: lambda of Song et al. 2024.
      alignment: "off", or the form of CMA: "paper" or "released".
      count: how often a class's text is in its group: "once" or "per_image".
      conditional: whether the prompt depends on the image (CoCoOp).
      chunk: prompts that go through the text tower together; 0: all.
      lr_scale: factor of the learning rate.
      transform: of the training images; those given as features are "plain".
      cached: whether samples are features of the image tower already: exact where the view of an image is fixed.
      batch_size: samples per step.
      per_class: images per class of a class-balanced batch of batch_size / per_class classes; 0: random batches.
    References:
      Zhou et al. 2022 (CoOp, CoCoOp); Song et al. 2024 (CMA).
    """

    weight: float = 0.0
    alignment: str = "off"
    count: str = "once"
    conditional: bool = False
    chunk: int = 0
    lr_scale: float = 1.0
    transform: str = "plain"
    cached: bool = True
    batch_size: int = 32
    per_class: int = 0

    @property
    def views(self) -> tuple[View, ...]:
        if self.per_class:
            return (View("classes", (self.transform,), max(1, self.batch_size // self.per_class)),)
        return (View("train", (self.transform,), self.batch_size),)

    def draws(self, key: jax.Array, batch: Batches, ctx: Context) -> Any:
        """Of a class-balanced batch, which shots of each class: (classes, per_class)."""
        if not self.per_class:
            return ()
        count, shots = batch["classes"].views[self.transform].shape[:2]
        return jnp.argsort(jax.random.uniform(key, (count, shots)), axis=1)[:, : self.per_class]

    def samples(self, batch: Batches, draws: Any) -> tuple[jax.Array, jax.Array]:
        """(images or features, labels) of a step."""
        found = batch["classes" if self.per_class else "train"]
        x, labels = found.views[self.transform], found.labels
        if not self.per_class:
            return x, labels
        chosen = jnp.take_along_axis(x, draws.reshape(*draws.shape, *(1,) * (x.ndim - 2)), axis=1)
        return chosen.reshape(-1, *x.shape[2:]), jnp.repeat(labels, draws.shape[1])

    def loss(
        self,
        nets: Nets,
        state: State,
        constants: Constants,
        batch: Batches,
        draws: Any,
        ctx: Context,
    ) -> tuple[jax.Array, Aux]:
        x, labels = self.samples(batch, draws)
        features = unit_rows(x if self.cached else nets("image", x))[0]
        table, prompts = constants["frozen"]["text"][0]["token_embedding"], constants["prompts"]
        context = nets("prompt", features) if self.conditional else nets("prompt")

        def tower(x, end):  # each device takes a share of the prompts
            return ctx.gather(nets("text", *ctx.split((x, end))))

        found = match(
            tower, features, context, table, prompts, constants["logit_scale"],
            conditional=self.conditional, chunk=self.chunk,
        )  # fmt: skip
        value = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(found.logits, labels))
        metrics = {"cross_entropy": value, "accuracy": jnp.mean(jnp.argmax(found.logits, -1) == labels)}
        if self.alignment != "off":
            own = own_texts(found.texts, labels)
            cma = cross_modal_alignment(
                *ctx.gather((features, own, labels)),
                form=self.alignment, num_classes=len(prompts.end), count=self.count, map_matrices=ctx.map_matrices,
            )  # fmt: skip
            metrics["cma"] = cma
            value = (1 - self.weight) * value + self.weight * cma
        return value, Aux(metrics=metrics)

    def network(self, ctx: Context) -> Net:
        return prompted(ctx.nets["prompt"], ctx.nets["text"], self.conditional, self.chunk)

    def evaluated(self, state: State, constants: Constants, ctx: Context) -> dict[str, Model]:
        params = state.params["prompt"], constants["frozen"]["text"], constants["prompts"], constants["logit_scale"]
        return {"raw": Model(params, {}, self.network(ctx))}


def match(
    tower: Callable[[jax.Array, jax.Array], jax.Array],
    features: jax.Array,
    context: jax.Array,
    table: jax.Array,
    prompts: Prompts,
    logit_scale: jax.Array,
    *,
    conditional: bool = False,
    chunk: int = 0,
) -> Matched:
    """`Matched` images, whose features (n, E) have length one, and prompts.

    Args:
      tower, table, chunk: as of `prompt_features`.
      context: learnt tokens, (M, W) or (C, M, W); where they are conditional, (n, M, W), for each image its own. Those
        go through the tower image by image, in the backward pass again.
    """
    scale = jnp.exp(logit_scale)

    def texts_of(context):
        return unit_rows(prompt_features(tower, context, table, prompts, chunk))[0]

    if not conditional:
        texts = texts_of(context)
        return Matched(scale * cosines(features, texts), features, texts)
    texts = jax.lax.map(jax.checkpoint(texts_of), context)
    return Matched(scale * cosines(features, texts), features, texts)


def cosines(images: jax.Array, texts: jax.Array) -> jax.Array:
    """(n, C) products of unit features: images (n, E) with texts (C, E) or (n, C, E), in float32 on every device.

    The temperature multiplies errors by up to 100: at the default precision of a TPU (bfloat16) or GPU (TF32) a logit
    would be off by 0.1 to 1.
    """
    pairs = "ne,ce->nc" if texts.ndim == 2 else "ne,nce->nc"
    return jnp.einsum(pairs, images, texts, precision=jax.lax.Precision.HIGHEST)


def own_texts(texts: jax.Array, labels: jax.Array) -> jax.Array:
    """(n, E) feature of each image's own class, of texts (C, E) or (n, C, E)."""
    return texts[labels] if texts.ndim == 2 else jnp.take_along_axis(texts, labels[:, None, None], axis=1)[:, 0]


@functools.cache
def prompted(prompt: Net, text: Net, conditional: bool = False, chunk: int = 0) -> Net:
    """Prompt and text tower as one network, from image features (n, E) to `Matched`.

    Its parameters are (those of the prompt, (parameters, state) of the text tower, `Prompts`, logit_scale): with the
    `Prompts` of other classes it tells those apart. It has a head, exp(s) times the texts, unless texts depend on the
    image.
    """

    def of(params, features):
        own, (frozen, statistics), prompts, logit_scale = params
        context = prompt.apply(own, {}, *((features,) if conditional else ()), train=False)[0]

        def tower(x, end):
            return text.apply(frozen, statistics, x, end, train=False)[0]

        table = frozen["token_embedding"]
        return match(tower, features, context, table, prompts, logit_scale, conditional=conditional, chunk=chunk)

    def apply(params, model_state, x, train=False, rngs=None, start=None, stop=None):
        return of(params, unit_rows(x)[0]), model_state

    @jax.jit
    def head(params):
        width = params[1][0]["text_projection"].shape[1]
        found = of(params, jnp.zeros((1, width)))
        rows = jnp.exp(params[3]) * found.texts
        return Head(rows, jnp.zeros(len(rows)))

    return Net(prompt.init, apply, None if conditional else head)


@objective
class ZeroShot(Objective):
    """Zero-shot CLIP: a step changes nothing, so all runs have the same rows.

    Net "prompt" is `fixed_texts`; constants: "logit_scale".
    """

    lr_scale: float = 1.0

    def optimise(
        self, state: State, constants: Constants, batch: Batches, draws: Any, key: jax.Array, ctx: Context
    ) -> tuple[State, Metrics]:
        return state, {}

    def network(self, ctx: Context) -> Net:
        return FIXED

    def evaluated(self, state: State, constants: Constants, ctx: Context) -> dict[str, Model]:
        return {"raw": Model((state.params["prompt"]["texts"], constants["logit_scale"]), {}, FIXED)}


def fixed_texts(texts: jax.Array) -> Net:
    """Text features (C, E), as of one template or the mean of several, in place of a prompt."""
    return Net(lambda key: ({"texts": jnp.array(texts)}, {}), lambda params, state, **_: (params["texts"], state))


def _matched(params, model_state, x, train=False, rngs=None, start=None, stop=None):
    texts, logit_scale = params
    features = unit_rows(x)[0]
    return Matched(jnp.exp(logit_scale) * cosines(features, texts), features, texts), model_state


def _fixed_head(params):
    return Head(jnp.exp(params[1]) * params[0], jnp.zeros(len(params[0])))


FIXED = Net(lambda key: ({}, {}), _matched, _fixed_head)  # image features to `Matched`, of given unit texts
