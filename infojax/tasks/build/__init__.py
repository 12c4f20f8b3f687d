"""What studies are built from: data, networks, optimisers, evaluators and checks of a config's values."""

from infojax.tasks.build.checks import check_batch, check_choice, check_numbers, check_shares, total_steps
from infojax.tasks.build.classification import classification, classification_defaults, supervised_settings, torchssl
from infojax.tasks.build.data import (
    arrays_of,
    facts_of,
    labelled_part,
    loaded,
    normalisation,
    note_fewer,
    placed,
    reading,
    subset,
    with_unlabelled,
)
from infojax.tasks.build.evaluators import classifier
from infojax.tasks.build.networks import all_options, network, read_weights, with_weights
from infojax.tasks.build.optimizers import OPTIMIZERS, SCHEDULES, optimizer, optimizer_settings
from infojax.tasks.build.prepared import Prepared, assembled, list_runs, mesh_of, on_mesh, prepare
from infojax.tasks.build.study import Run, Study, Tools

__all__ = [
    "OPTIMIZERS", "Prepared", "Run", "SCHEDULES", "Study", "Tools", "all_options", "arrays_of", "assembled",
    "check_batch", "check_choice", "check_numbers", "check_shares", "classification", "classification_defaults",
    "classifier", "facts_of", "labelled_part", "list_runs", "loaded", "mesh_of", "network", "normalisation",
    "note_fewer", "on_mesh", "optimizer", "optimizer_settings", "placed", "prepare", "read_weights", "reading",
    "subset", "supervised_settings", "torchssl", "total_steps", "with_unlabelled", "with_weights",
]  # fmt: skip
