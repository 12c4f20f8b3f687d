"""Prompts with learnt tokens: their positions, their initial values, and the features of many prompts at once.

A prompt is [start] [v_1 ... v_M] [name] [.] [end]; the tokens v are learnt, all else is frozen. CoOp also puts them
behind the name, or half of them on each side.

References:
  Zhou et al. 2022, "Learning to Prompt for Vision-Language Models" (CoOp) and "Conditional Prompt Learning for
  Vision-Language Models" (CoCoOp); https://github.com/KaiyangZhou/CoOp, trainers/coop.py, cocoop.py.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from infojax.measures.scalars import one_of
from infojax.objectives.contract import Net

POSITIONS = ("end", "middle", "front")


class Prompts(NamedTuple):
    """The prompts of C classes, as token ids.

    Attributes:
      tokens: (C, L) ids, zero at the places of learnt tokens and after the end.
      slot: (C, L) which learnt token stands at a place, -1 for a frozen one.
      end: (C,) place of the end-of-text token.
    """

    tokens: Any
    slot: Any
    end: Any


def lay_out(
    names: Sequence[Sequence[int]],
    after: Sequence[Sequence[int]],
    count: int,
    *,
    start: int,
    end: int,
    position: str = "end",
    context: int = 77,
) -> Prompts:
    """`Prompts` of classes, cut to the longest: exact, since no token sees a later one.

    Args:
      names: ids of each class's name; after: ids of what follows it, as those of ".".
      count: M, learnt tokens; start, end: ids of the tokens that begin and end a text.
      position: of the learnt tokens: "end" (before the name, which ends the prompt), "middle" (M // 2 before it, the
        others behind), "front" (behind it).
      context: largest number of tokens.
    Raises:
      ValueError: unknown position, or a prompt longer than the context, with its class and length.
    """
    one_of(position, "position", POSITIONS)
    before = {"end": count, "middle": count // 2, "front": 0}[position]
    rows = []
    for name, rest in zip(names, after, strict=True):
        learnt = [(0, slot) for slot in range(count)]
        frozen = [(token, -1) for token in name]
        rows.append([(start, -1), *learnt[:before], *frozen, *learnt[before:], *((t, -1) for t in rest), (end, -1)])
    longest = max(range(len(rows)), key=lambda c: len(rows[c]))
    length = len(rows[longest])
    if length > context:
        raise ValueError(
            f"the prompt of class {longest} has {length} tokens with start and end, {count} of them learnt; at most "
            f"{context} fit"
        )
    tokens, slot = np.zeros((len(rows), length), np.int32), np.full((len(rows), length), -1, np.int32)
    for c, row in enumerate(rows):
        tokens[c, : len(row)], slot[c, : len(row)] = zip(*row, strict=True)
    return Prompts(jnp.asarray(tokens), jnp.asarray(slot), jnp.asarray([len(row) - 1 for row in rows], jnp.int32))


def assemble(context: jax.Array, table: jax.Array, prompts: Prompts) -> jax.Array:
    """Embeddings (C, L, W) of prompts: learnt tokens in their slots, rows of the table (V, W) elsewhere.

    Args:
      context: (M, W), shared by all classes, or (C, M, W).
    """
    frozen = jnp.take(table, prompts.tokens, axis=0).astype(context.dtype)
    slot = jnp.maximum(prompts.slot, 0)
    learnt = context[slot] if context.ndim == 2 else jnp.take_along_axis(context, slot[..., None], axis=1)
    return jnp.where(prompts.slot[..., None] >= 0, learnt, frozen)


def prompt_features(
    tower: Callable[[jax.Array, jax.Array], jax.Array],
    context: jax.Array,
    table: jax.Array,
    prompts: Prompts,
    chunk: int = 0,
) -> jax.Array:
    """(C, E) text features, `chunk` prompts at a time where it is positive.

    The backward pass then computes each chunk again, so that what the tower keeps is that of one chunk: 1,000 prompts
    need the memory of `chunk`.

    Args:
      tower: (embeddings (n, L, W), end (n,)) -> (n, E).
    """
    count = len(prompts.end)
    if not 0 < chunk < count:
        return tower(assemble(context, table, prompts), prompts.end)
    pieces = -(-count // chunk)
    place = jnp.minimum(jnp.arange(pieces * chunk), count - 1).reshape(pieces, chunk)  # the last is repeated

    @jax.checkpoint
    def piece(place, context, table):
        part = Prompts(*(leaf[place] for leaf in prompts))
        own = context if context.ndim == 2 else context[place]
        return tower(assemble(own, table, part), part.end)

    found = jax.lax.map(lambda place: piece(place, context, table), place)
    return found.reshape(pieces * chunk, -1)[:count]


def prompt_net(shape: tuple[int, ...], *, initial: Any = None, deviation: float = 0.02, condition: int = 0) -> Net:
    """The learnt tokens as a `Net`: called without inputs it gives them; CoCoOp's with features (n, E) gives (n, M, W).

    CoCoOp's meta-network adds W2 relu(W1 x + b1) + b2 of the normalised image feature x to every token; its E / 16
    hidden units and initial values are PyTorch's for linear layers, uniform in +-1 / sqrt(inputs).

    Args:
      shape: (M, W), or (C, M, W) for tokens of each class's own.
      initial: (M, W) embeddings of words to begin with; None draws N(0, deviation^2).
      condition: E, width of the image features that the tokens depend on; 0: they do not.
    """
    width, hidden = shape[-1], max(1, condition // 16)

    def init(key):
        keys = jax.random.split(key, 5)
        drawn = deviation * jax.random.normal(keys[0], shape)
        # A copy: a step may donate it, and the table of tokens stays.
        context = drawn if initial is None else jnp.array(jnp.broadcast_to(initial, shape), jnp.float32)
        if not condition:
            return {"context": context}, {}

        def uniform(key, shape, inputs):
            return jax.random.uniform(key, shape, jnp.float32, -(inputs**-0.5), inputs**-0.5)

        meta = {
            "w1": uniform(keys[1], (condition, hidden), condition), "b1": uniform(keys[2], (hidden,), condition),
            "w2": uniform(keys[3], (hidden, width), hidden), "b2": uniform(keys[4], (width,), hidden),
        }  # fmt: skip
        return {"context": context, "meta": meta}, {}

    def apply(params, model_state, *features, train=False, rngs=None, start=None, stop=None):
        context = params["context"]
        if condition and features:
            meta = params["meta"]
            shift = jax.nn.relu(features[0] @ meta["w1"] + meta["b1"][None]) @ meta["w2"] + meta["b2"][None]
            context = context[None] + shift[:, None]
        return context, model_state

    return Net(init, apply)
