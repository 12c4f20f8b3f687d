"""Geometric compression of every layer: tr(S_W S_B^+) in two passes over one partition of a sample."""

import fnmatch
from functools import partial

import jax
import jax.numpy as jnp

from infojax.measures.moments import ClassStats
from infojax.measures.variability import between_inverse, nc1_from_energy, within_energy


def chosen_layers(names, patterns):
    """The layers that any of the patterns names (shell wildcards), in the order of `names`.

    Raises:
      KeyError: the first pattern that names none.
    """
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            raise KeyError(pattern)
    return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


def layerwise_nc1(net, transform, num_classes, batch_size, patterns=("*",), convention="thesis"):
    """(params, model_state, x, labels) -> {layer: tr(S_W S_B^+) (0-d)}, of all layers in one forward pass a batch.

    Memory O(C D) a layer and one batch of features. Both passes cut the sample alike and in its order, the last batch
    may be short: networks with batch statistics in evaluation (f+, f-) say of a sample what its batch makes them say,
    and a padded batch would be another one.

    Args:
      net: a `Net`; transform: of stored samples, as "plain" of `transforms`.
      patterns: of layer names; the classifier's input is "embedding".
      convention: a key of `NC1_CONVENTIONS`.
    References:
      Cheong 2025, Algorithm 1 with its factors of C / N put right, for any class counts.
    """

    def features(params, model_state, x):
        output, _ = net.apply(params, model_state, transform(None, x), train=False)
        found = output.features | {"embedding": output.embedding}
        flat = {name: z.reshape(len(z), -1).astype(jnp.float32) for name, z in found.items()}
        return {name: flat[name] for name in chosen_layers(flat, patterns)}

    @partial(jax.jit, donate_argnums=0)
    def first(stats, params, model_state, x, labels):
        found = features(params, model_state, x)
        return {name: stats[name].update(z, labels) for name, z in found.items()}

    @partial(jax.jit, donate_argnums=0)
    def second(energies, inverses, stats, params, model_state, x, labels):
        found = features(params, model_state, x)
        return {
            name: energies[name] + within_energy(inverses[name], stats[name], z, labels) for name, z in found.items()
        }

    def run(params, model_state, x, labels):
        parts = [slice(start, start + batch_size) for start in range(0, len(x), batch_size)]
        names = []  # by depth: what passes through jit comes back sorted

        def named(*arguments):
            found = features(*arguments)
            names[:] = found
            return found

        shapes = jax.eval_shape(named, params, model_state, x[parts[0]])
        stats = {name: ClassStats.init(num_classes, z.shape[1]) for name, z in shapes.items()}
        for part in parts:
            stats = first(stats, params, model_state, x[part], labels[part])
        inverses = {name: between_inverse(found, convention=convention) for name, found in stats.items()}
        energies = {name: jnp.zeros(num_classes) for name in stats}
        for part in parts:
            energies = second(energies, inverses, stats, params, model_state, x[part], labels[part])
        return {name: nc1_from_energy(energies[name], stats[name], convention=convention)[0] for name in names}

    return run
