"""Layers of a network in several processes: the numbers of one."""

import numpy as np
from multihost.processes import ROOT, run

from infojax.main import main
from infojax.train.runlog import read_rows

COMMAND = [
    f"--config={ROOT}/configs/compression.py:tiny,model=mlp", "--config.model.options.widths=12",
    "--config.model.options.widths=8", "--config.model.options.norm=True", "--config.epochs=1",
    "--config.usable.layers=layer1", "--config.usable.sufficiency_every=0", "--config.usable.minimality_epochs=1",
    "--config.report.draw=False",
]  # fmt: skip
NAMES = ("nc1", "equi_separation", "minimality")


def measured(folder):
    rows = [row for row in read_rows(folder) if row.get("evaluator") in ("layers", "usable")]
    places = [(row["step"], row["split"], row.get("layer")) for row in rows]
    return places, [row[name] for row in rows for name in NAMES if name in row]


def test_two_processes_measure_as_one(tmp_path):
    both = ["-m", "infojax.main", *COMMAND, f"--workdir={tmp_path / 'two'}"]
    (first, _, errors), (second, _, _) = run(both, both)
    assert (first, second) == (0, 0), errors
    assert main([*COMMAND, "--config.devices=4", f"--workdir={tmp_path / 'one'}"]) == 0
    (places, found), (expected_places, expected) = (measured(tmp_path / name) for name in ("two", "one"))
    assert places == expected_places and len(found) == 16
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-3)  # bits of decoders that five steps trained
