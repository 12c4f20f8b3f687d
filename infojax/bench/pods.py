"""Programs compiled ahead of time for TPU pods, on a machine without TPUs: their work, traffic and memory.

Needs libtpu (extra `tpu`). Shapes stand in for arrays; nothing is executed.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from infojax import parallel
from infojax.bench.collectives import bytes_moved, collectives
from infojax.commands import UsageError
from infojax.measures import trace
from infojax.measures.head_stages import COMPRESSED, PACKED
from infojax.measures.operators import ROWS, HeadRows
from infojax.models import build
from infojax.objectives import Model, Seeds, init_state, with_settings
from infojax.parallel.estimates import on_devices
from infojax.tasks import crossmodal, load, selfsup, semisup
from infojax.tasks.build import Study, classification, on_mesh, torchssl
from infojax.tasks.config import choices
from infojax.train.draw import Fed
from infojax.train.networks import as_net
from infojax.train.step import make_step


def topology_mesh(name: str) -> Mesh:
    """The mesh of a pod such as "v5e:2x4" (8 chips), "v5e:16x16" (256), "v5p:4x4x4" (64)."""
    from jax.experimental import topologies

    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # there is no TPU metadata server
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # several processes may compile; none has a TPU to itself
    chips = topologies.get_topology_desc(platform="tpu", topology_name=name).devices
    return Mesh(np.array(chips).reshape(-1), ("data",), axis_types=(AxisType.Auto,))


def abstract(mesh: Mesh, shape: tuple[int, ...], dtype: Any, spec: Any) -> jax.ShapeDtypeStruct:
    """The shape of an array with this sharding on the mesh."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))


STAGES = ("pack", "compress", "facts", "extend", "launch", "advance")


def estimator_stages(
    mesh: Mesh, n: int, num_classes: int, dim: int, columns: int = 32, basis: int = 128, names: Sequence[str] = STAGES
) -> Iterator[tuple[str, Any]]:
    """Yields (name, compiled) of the stages of `estimate_interplay` for n samples over the mesh."""
    compiled = on_devices(mesh)
    rows = abstract(mesh, (n, dim), jnp.float32, P("data"))
    ids, head = (abstract(mesh, (n,), jnp.int32, P("data")), abstract(mesh, (num_classes, dim), jnp.float32, P()))
    packed = jax.eval_shape(compiled(PACKED), rows, ids, head, ids)
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
        "pack": (PACKED, rows, ids, head, ids),
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
    """(compiled step of classification with the MI term over the mesh, number of parameters), on the digits."""
    chosen = choices("tiny", data="digits", model=model, seeds=1)
    config = torchssl("pod", chosen, lr=0.03, weight_decay=5e-4, batch_size=batch, schedule="cosine", epochs=1.0)
    config.objective.update(term="mi", strength=0.1)
    config.model.options.update(options)
    return compiled_step(classification(config), mesh)


def compiled_step(study: Study, mesh: Mesh, batch: int | None = None) -> tuple[Any, int]:
    """(compiled step of a study over the mesh, number of trained parameters); nothing is executed.

    Args:
      batch: overrides the objective's batch size; it may exceed the few samples that stand in for the data set.
    """
    study = on_mesh(study, mesh)
    objective = with_settings(study.objective, {"batch_size": batch}) if batch else study.objective
    state = jax.eval_shape(lambda seeds: init_state(objective, seeds, study.ctx), Seeds())

    def placed(tree):
        return jax.tree.map(lambda x: abstract(mesh, jnp.shape(x), jnp.result_type(x), P()), tree)

    fed = None
    if study.streams:
        rows = {}
        for view in objective.views:
            if view.source in study.streams:
                shape, numbers = (view.size, *study.streams[view.source].shape), (view.size,)
                one = {"x": (shape, jnp.uint8), "labels": (numbers, jnp.int32), "index": (numbers, jnp.int32)}
                rows[view.key] = {key: abstract(mesh, *what, P("data")) for key, what in one.items()}
        fed = Fed(abstract(mesh, (), jnp.int32, P()), rows)
    constants = placed({"data": study.data, **study.constants})
    step = jax.jit(make_step(study.ctx, study.transforms), donate_argnums=1)
    compiled = step.lower(objective, placed(state), constants, placed(Seeds()), fed).compile()
    return compiled, sum(x.size for x in jax.tree.leaves(state.params))


# What is compiled for pods


def supervised() -> Study:
    """WRN-28-2 on 32 x 32, bfloat16."""
    chosen = choices("small", data="synthetic", model="wrn_28_2", seeds=1)
    config = torchssl("pod", chosen, lr=0.03, weight_decay=5e-4, batch_size=8, schedule="cosine", epochs=1.0)
    return _study(config, 32)


def fixmatch() -> Study:
    """64 labelled and 448 unlabelled pictures in two views per 64 of the batch, WRN-28-2."""
    config = semisup.defaults(
        "pod", choices("small", data="synthetic", model="wrn_28_2", method=("fixmatch",), seeds=1)
    )
    config.steps, config.data.labels = 1000, 0
    return _study(config, 32)


def selfsupervised(method: str, model: str, size: int) -> Study:
    """A self-supervised method on pictures that the host reads, as for ImageNet."""
    config = selfsup.defaults("pod", choices("small", data="synthetic", model=model, method=(method,), seeds=1))
    config.steps, config.data.stream = 1000, "always"
    if method == "mae":
        config.optimizer = selfsup.optimizer_settings(
            "adamw", lr=1.5e-4, weight_decay=0.05, b2=0.95, schedule="cosine", warmup_steps=10
        )
    return _study(config, size)


def coop(classes: int) -> Study:
    """Prompts of `classes` classes through CLIP's text tower (12 layers, 512 wide), on cached image features.

    All prompts at once: of a loop over chunks XLA would count the body once.
    """
    config = crossmodal.defaults("pod", choices("small", data="synthetic", method=("coop_cma",), shots=1, seeds=1))
    config.data.options = dict(num_classes=classes, size=32, channels=3, num_train=2 * classes, num_test=classes)
    config.towers.update(width=512, layers=12, head_width=64, patch=32)
    config.objective.transform = "plain"
    config.model.dtype = "bfloat16"
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as names:
        names.write("".join(f"thing {i}\n" for i in range(classes)))
        names.flush()
        config.data.names = names.name
        return crossmodal.study(config)


def _study(config, size):
    """The study of a config on a few synthetic pictures, computed in bfloat16."""
    config.data.options = dict(size=size, channels=3, num_train=64, num_test=16)
    config.objective.batch_size, config.model.dtype = 8, "bfloat16"
    return load(config.task).study(config)


def forward_step(mesh: Mesh, batch: int = 512) -> Any:
    """The compiled forward pass of an evaluator: ResNet-50 on a batch, with its outputs gathered."""
    net = as_net(build("resnet50", 1000, dtype="bfloat16"), jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32))
    params, model_state = jax.eval_shape(net.init, jax.random.key(0))

    def run(params, model_state, x):
        x = jax.lax.with_sharding_constraint(x.astype(jnp.float32) / 255, NamedSharding(mesh, P("data")))
        found = Model(params, model_state, net)(x)
        return jax.lax.with_sharding_constraint((found.logits, found.embedding), NamedSharding(mesh, P()))

    def placed(tree):
        return jax.tree.map(lambda x: abstract(mesh, x.shape, x.dtype, P()), tree)

    x = abstract(mesh, (batch, 224, 224, 3), jnp.uint8, P())
    return jax.jit(run).lower(placed(params), placed(model_state), x).compile()


def measured(mesh: Mesh, n: int = 50_000) -> Iterator[tuple[str, Any]]:
    """What evaluators compute from n samples, 1,000 classes and 2,048 features over the mesh."""
    n -= n % mesh.size
    rows, ids = abstract(mesh, (n, 2048), jnp.float32, P("data")), abstract(mesh, (n,), jnp.int32, P("data"))
    stats = jax.jit(lambda z, y: parallel.class_stats(z, y, 1000, mesh=mesh))
    yield "class_stats", stats.lower(rows, ids).compile()
    yield from estimator_stages(mesh, n, 1000, 2048, 8, 64, ("extend", "advance"))


PROGRAMS: dict[
    str, tuple[Callable[[], Study], Callable[[int], int]]
] = {  # name -> study, and its batch for a number of chips
    "supervised, WRN-28-2": (supervised, lambda chips: 64 * chips),
    "FixMatch, WRN-28-2": (fixmatch, lambda chips: 8 * chips),
    "SimCLR, ResNet-50": (partial(selfsupervised, "simclr", "resnet50", 224), lambda chips: 16 * chips),
    "MAE, ViT-B/16": (partial(selfsupervised, "mae", "mae_base", 224), lambda chips: 16 * chips),
    "MAE, ViT-B/16, 4096 at once": (partial(selfsupervised, "mae", "mae_base", 224), lambda chips: 4096),
    "CoOp, 1,000 classes": (partial(coop, 1000), lambda chips: max(32, chips)),
}
NAMES = (*PROGRAMS, "forward pass, ResNet-50", "evaluators, 50k samples")
V5E = {"flops": 197e12, "memory": 819e9, "links": 200e9, "network": 6.4e12 / 8 / 256}  # of one chip, per second
SLICE = 256  # chips connected by links; several slices communicate over the data centre network
PODS = ("v5e:2x4", "v5e:16x16")


def seconds_on_paper(flops: float, traffic: float, reduced: float, gathered: float, chips: int) -> float:
    """Least seconds of a step on v5e: the longer of arithmetic and memory, plus communication, without overlap.

    A ring moves 2 S (P - 1) / P bytes over a chip's links to reduce S bytes, and S (P - 1) / P to gather them. Between
    slices each chip exchanges its 1 / 256 of the reduced bytes over its share of the network.
    """
    inside, slices = min(chips, SLICE), -(-chips // SLICE)
    moves = (2 * reduced + gathered) * (inside - 1) / inside / V5E["links"]
    between = 2 * reduced / SLICE * (slices - 1) / slices / V5E["network"]
    return max(flops / V5E["flops"], traffic / V5E["memory"]) + moves + between


def row(name: str, topology: str, program: Any, chips: int, **more: Any) -> dict[str, Any]:
    """Work, traffic and memory of a compiled program, per chip."""
    found, memory, moved = program.cost_analysis(), program.memory_analysis(), bytes_moved(program)
    reduced = sum(size for kind, size in moved.items() if kind in ("all-reduce", "reduce-scatter"))
    gathered = sum(moved.values()) - reduced
    largest = max((c.bytes for c in collectives(program) if c.kind == "all-gather"), default=0)
    on = partial(seconds_on_paper, found["flops"], found["bytes accessed"], reduced, gathered)
    held = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
    return {
        "program": name, "pod": topology, **more, "gflop": found["flops"] / 1e9, "gb": found["bytes accessed"] / 1e9,
        "reduced_mb": reduced / 1e6, "gathered_mb": gathered / 1e6, "largest_gather_mb": largest / 1e6,
        "memory_gb": (held - memory.alias_size_in_bytes) / 1e9, "ms_on_paper": 1e3 * on(chips),
        **{f"efficiency_{p}": on(1) / on(p) for p in (8, 64, 256, 4096)},
    }  # fmt: skip


def compiled_rows(name: str, topology: str) -> Iterator[dict[str, Any]]:
    """The rows of one of `NAMES`."""
    mesh = topology_mesh(topology)
    if name in PROGRAMS:
        study, batch = PROGRAMS[name]
        size = batch(mesh.size)
        program, parameters = compiled_step(study(), mesh, size)
        yield row(name, topology, program, mesh.size, batch=size, parameters=parameters)
    elif name == "forward pass, ResNet-50":
        yield row(name, topology, forward_step(mesh), mesh.size, batch=512)
    else:
        for stage, program in measured(mesh):
            yield row(f"{stage}, 50k samples", topology, program, mesh.size)


def run(quick: bool = False, only: str = "") -> Iterator[dict[str, Any]]:
    """Rows of programs and pods; the efficiency is relative to as many chips with the same batch on each.

    Args:
      only: compiles the programs of which "name on pod" contains this text, in any case.
    Raises:
      UsageError: no program does.
    """
    known = [(name, topology) for topology in PODS for name in NAMES]
    chosen = [pair for pair in known if only.lower() in " on ".join(pair).lower()]
    if not chosen:
        raise UsageError(f"--only {only}: expected a part of {'; '.join(NAMES)}, or of one on {' or '.join(PODS)}")
    for name, topology in chosen[:1] if quick else chosen:
        yield from compiled_rows(name, topology)
