"""Which samples make up step k: a pure function of (key, k), so there is no iterator to save.

Every epoch is a new permutation of the samples. It is never stored or sorted: a cipher maps a position in the epoch to
a sample in O(1), so a step computes only its own positions, inside jit, on any number of hosts, after any step.
"""

import jax
import jax.numpy as jnp

ROUNDS = 12


def order(key: jax.Array, step: int | jax.Array, batch_size: int, num_samples: int) -> jax.Array:
    """The samples of one step when epochs follow each other without a gap: positions step * B, ..., step * B + B - 1.

    Position p is place p mod N in epoch p // N. A batch may end one epoch and begin the next; over the N positions of
    an epoch every sample comes exactly once.

    Args:
      key: of the run's data order; the same on every host.
      step: integer, traced or not, below 2^32.
      batch_size: B of the whole step, over all hosts (static).
      num_samples: 0 < N < 2^31 (static).
    Returns:
      (B,) int32 in [0, N). A host that feeds rows a to b of the batch reads order(...)[a:b].
    Raises:
      ValueError: B or N outside their ranges.
    """
    _check(batch_size, num_samples)
    epoch, place = _epoch_and_place(step, batch_size, num_samples)
    return jax.vmap(lambda e, p: _permuted(jax.random.fold_in(key, e), p, num_samples))(epoch, place)


def order_with_replacement(key: jax.Array, step: int | jax.Array, batch_size: int, num_samples: int) -> jax.Array:
    """(B,) int32 samples drawn uniformly and independently, as TorchSSL's loaders do; arguments as of `order`."""
    _check(batch_size, num_samples)
    return jax.random.randint(jax.random.fold_in(key, step), (batch_size,), 0, num_samples, jnp.int32)


def _check(batch_size, num_samples):
    if batch_size < 1 or not 0 < num_samples < 2**31:
        raise ValueError(f"a step of {batch_size} samples out of {num_samples}: both must be at least 1")


def _epoch_and_place(step, batch_size, num_samples):
    """divmod(step * B + arange(B), N) where the product may exceed 32 bits: long multiplication, bit by bit of B."""
    n = jnp.uint32(num_samples)
    step_epochs, step_place = jnp.divmod(jnp.asarray(step, jnp.uint32), n)
    epoch = place = jnp.uint32(0)
    for bit in bin(batch_size)[2:]:
        epoch, place = 2 * epoch + (2 * place) // n, (2 * place) % n
        if bit == "1":
            place = place + step_place
            epoch, place = epoch + step_epochs + place // n, place % n
    place = place + jnp.arange(batch_size, dtype=jnp.uint32)
    return epoch + place // n, place % n


def _permuted(key, place, n):
    """A keyed permutation of range(n): a Feistel cipher of a rows x a columns >= n, walked until it lands inside."""
    side = next(a for a in range(int(n**0.5), n + 1) if a * a >= n)
    *words, coin = jax.random.bits(key, (ROUNDS + 1, 2), jnp.uint32)

    def cipher(i):
        row, column = jnp.divmod(i, jnp.uint32(side))
        for word in words:
            row = (row + _mixed(column, word) % side) % side
            row, column = column, row
        return row * side + column

    # Every round is an even permutation; a coin flip swaps the first two places, so that odd ones are as frequent.
    place = jnp.where((place < 2) & (n > 1), place ^ (coin[0] & 1), place)
    # The walk follows a cycle of the cipher from inside and so comes back inside; fewer than two steps on average.
    return jax.lax.while_loop(lambda i: i >= n, cipher, cipher(place)).astype(jnp.int32)


def _mixed(x, word):
    """32 bits that depend on every bit of x and of two secret words (the finalizer of MurmurHash3 after each)."""
    for secret in word:
        x = x ^ secret
        x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
        x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
        x = x ^ (x >> 16)
    return x
