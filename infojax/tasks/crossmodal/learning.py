"""What is learnt of a config: the prompt of every class, its networks and its optimiser."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from infojax.data import weak
from infojax.data.views import Recipe, view
from infojax.models import clip
from infojax.objectives import Context, Facts, Objective, Optimizer, with_settings
from infojax.objectives.crossmodal import PromptLearning, Prompts, ZeroShot, fixed_texts, lay_out, prompt_net
from infojax.tasks.build import optimizer
from infojax.tasks.config import ConfigError
from infojax.tasks.towers import Towers, models_of
from infojax.train.networks import as_net


class Laid(NamedTuple):
    """Prompts before there are weights.

    Attributes:
      words: ids of the words to begin with, or none; tokens: number of those that are learnt.
      base, novel: `Prompts`; novel is None without such classes.
      notes: one line each.
    """

    words: list[int]
    tokens: int
    base: Prompts
    novel: Prompts | None
    notes: tuple[str, ...]


def laid_out(config: ConfigDict, tokenize: Any, base: Sequence[str], novel: Sequence[str]) -> Laid:
    """The prompts of a config, with the tokenizer of its towers.

    Raises:
      ConfigError: the longest does not fit into the context.
    """
    context, notes = tokenize.context, []
    words = tokenize.encode(config.prompt.words) if config.prompt.words else []
    count = len(words) or config.prompt.tokens
    if count != config.prompt.tokens:
        notes.append(f"config.prompt.tokens is {count}: that many are in {config.prompt.words!r}")

    def of(names):
        ids = [tokenize.encode(f"{name}.") for name in names]
        lengths = [len(tokenize.encode(name)) for name in names]
        try:
            return lay_out(
                [row[:n] for row, n in zip(ids, lengths, strict=True)],
                [row[n:] for row, n in zip(ids, lengths, strict=True)],
                count, start=tokenize.start, end=tokenize.end, position=config.prompt.position, context=context,
            )  # fmt: skip
        except ValueError as error:
            raise ConfigError(f"prompt.tokens is {count}, and {error}; take fewer, or shorter names") from None

    prompts = of(base)
    notes.append(
        f"prompts: {count} learnt tokens, {prompts.tokens.shape[1]} tokens with the longest name, of a context of "
        f"{context}"
    )
    return Laid(words, count, prompts, of(novel) if novel else None, tuple(notes))


def prompt_learning(
    config: ConfigDict, towers: Towers, laid: Laid, facts: Facts, per_epoch: int, batch_size: int
) -> tuple[PromptLearning, Context, dict[str, Any]]:
    """(objective, context, constants) of CoOp or CoCoOp."""
    sizes, models, conditional = towers.sizes, models_of(towers.sizes), config.method.startswith("cocoop")
    table = towers.of("text")[0]["token_embedding"]
    initial = clip.embed(table, jnp.asarray(laid.words)) if laid.words else None
    own = (len(laid.base.end),) if config.prompt.class_specific else ()
    shape = (*own, laid.tokens, sizes.text_width)
    derived = {"conditional": conditional, "cached": config.objective.transform == "plain", "batch_size": batch_size}
    method = with_settings(PromptLearning(), dict(config.objective) | derived)
    nets = {
        "prompt": prompt_net(shape, initial=initial, condition=sizes.features if conditional else 0),
        "text": as_net(models.text_tower(sizes, towers.dtype, config.prompt.remat)),
    }
    frozen = {"text": towers.of("text")}
    if not method.cached:
        nets["image"], frozen["image"] = as_net(models.image_tower(sizes, towers.dtype)), towers.of("image")
    epochs = max(1, round(facts.total_steps / per_epoch))
    tx = optimizer(ConfigDict(config.optimizer.to_dict() | {"epochs": epochs}), facts.total_steps)
    ctx = Context(nets, {"main": Optimizer(tx)}, facts, frozen=tuple(frozen))
    return method, ctx, {"frozen": frozen, "prompts": laid.base, "logit_scale": towers.logit_scale}


def zero_shot(
    config: ConfigDict, towers: Towers, texts: Any, facts: Facts
) -> tuple[Objective, Context, dict[str, Any]]:
    """(objective, context, constants) of CLIP as it is, with text features (C, E)."""
    ctx = Context({"prompt": fixed_texts(texts)}, {"main": Optimizer(optax.identity())}, facts)
    return with_settings(ZeroShot(), config.objective), ctx, {"logit_scale": towers.logit_scale}


def views(towers: Towers, flip: bool) -> dict[str, Callable]:
    """Transforms of stored training pictures; "plain" is that of features, "crop" is CoOp's random resized crop."""
    recipe = Recipe(flip=0.5 if flip else 0.0)
    return {
        "plain": lambda key, x: x,
        "weak": lambda key, x: towers.view(weak(key, x, pad=max(1, x.shape[1] // 8), flip=flip)),
        "crop": lambda key, x: towers.view(view(key, x, recipe, towers.sizes.image_size)),
    }
