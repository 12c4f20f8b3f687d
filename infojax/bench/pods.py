"""Programs compiled ahead of time for TPU pods, on a machine without one: what they compute, move and hold.

Needs libtpu (extra `tpu`). Shapes stand in for arrays; nothing runs.
"""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from infojax.measures import trace
from infojax.measures.estimate import COMPRESSED, _pack
from infojax.measures.operators import ROWS, WHOLE, HeadRows
from infojax.objectives import Seeds
from infojax.parallel.estimates import on_devices
from infojax.tasks.build import Run, assembled, classification, on_mesh, torchssl
from infojax.tasks.config import choices


def topology_mesh(name: str) -> Mesh:
    """The mesh of a pod such as "v5e:2x4" (8 chips), "v5e:16x16" (256), "v5p:4x4x4" (64)."""
    from jax.experimental import topologies

    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # there is no TPU machine to ask
    chips = topologies.get_topology_desc(platform="tpu", topology_name=name).devices
    return Mesh(np.array(chips).reshape(-1), ("data",), axis_types=(AxisType.Auto,))


def abstract(mesh: Mesh, shape: tuple[int, ...], dtype: Any, spec: Any) -> jax.ShapeDtypeStruct:
    """The shape of an array that lies on the mesh so."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))


STAGES = ("pack", "compress", "facts", "extend", "launch", "advance")


def estimator_stages(
    mesh: Mesh, n: int, num_classes: int, dim: int, columns: int = 32, basis: int = 128, names: Sequence[str] = STAGES
) -> Iterator[tuple[str, Any]]:
    """Yields (name, compiled) of the stages of `estimate_interplay` for n samples over the mesh."""
    compiled = on_devices(mesh)
    rows = abstract(mesh, (n, dim), jnp.float32, P("data"))
    ids, head = (abstract(mesh, (n,), jnp.int32, P("data")), abstract(mesh, (num_classes, dim), jnp.float32, P()))
    pack = trace.Stage(_pack, (ROWS, ROWS, WHOLE, ROWS), trace.OPERATOR, (), HeadRows)
    packed = jax.eval_shape(compiled(pack), rows, ids, head, ids)
    placed = {
        name: abstract(mesh, leaf.shape, leaf.dtype, P("data") if HeadRows.placement[name] == ROWS else P())
        for name, leaf in vars(packed).items()
    }
    operator = HeadRows(**placed)
    entries = packed.rows.shape[0] * packed.rows.shape[1]

    def vectors(k):
        return abstract(mesh, (entries, k), jnp.float32, P("data"))

    state = trace.Lanczos(vectors(columns), vectors(columns), abstract(mesh, (columns,), jnp.float32, P()))
    stages = {
        "pack": (pack, rows, ids, head, ids),
        "compress": (COMPRESSED, rows, ids, head),
        "facts": (trace.FACTS, operator),
        "extend": (trace.EXTEND, operator, vectors(basis)),
        "launch": (trace.LAUNCH, vectors(basis), vectors(columns)),
        "advance": (trace.ADVANCE, operator, vectors(basis), state),
    }
    for name in names:
        stage, *arguments = stages[name]
        yield name, compiled(stage).lower(*arguments).compile()


def training_step(mesh: Mesh, batch: int = 64, model: str = "wide_resnet", **options: Any) -> tuple[Any, int]:
    """(compiled step of classification with the MI term over the mesh, number of parameters); digits stand in."""
    chosen = choices("tiny", data="digits", model=model, seeds=1)
    config = torchssl("pod", chosen, lr=0.03, weight_decay=5e-4, batch_size=batch, schedule="cosine", epochs=1.0)
    config.objective.update(term="mi", strength=0.1)
    config.model.options.update(options)
    study = on_mesh(classification(config), mesh)
    step, objective, state, seeds = assembled(study, [Run({"seed": 0}, Seeds())])

    def placed(tree):
        return jax.tree.map(lambda x: abstract(mesh, jnp.shape(x), jnp.result_type(x), P()), tree)

    constants = {"data": study.data, **study.constants}
    lowered = jax.jit(step).lower(objective, placed(state), placed(constants), placed(seeds))
    return lowered.compile(), sum(x.size for x in jax.tree.leaves(state.params))
