"""`configs/finetune.py`: a masked auto-encoder becomes a classifier, in one command."""

from pathlib import Path

import numpy as np

from infojax.main import main
from infojax.models.vit import sincos_positions
from infojax.tasks.build.saved import saved
from infojax.train.runlog import read_rows

CONFIGS = Path(__file__).parents[2] / "configs"
SHORT = ["--config.evaluate.points=0", "--config.devices=1", "--config.log.every=1", "--config.report.draw=False"]
SHORT += ["--config.optimizer.warmup_steps=1", "--config.objective.batch_size=32"]


def test_three_steps_from_a_masked_auto_encoder(tmp_path, capsys):
    small = ["--config.model.options.size=(8,2,1)", "--config.model.options.decoder=(8,1,1)", "--config.steps=1"]
    small += [f"--config={CONFIGS}/selfsup.py:tiny,method=mae", "--config.optimizer.warmup_steps=0"]
    assert main([*small, *SHORT[:4], f"--workdir={tmp_path}/mae"]) == 0
    before = saved(f"{tmp_path}/mae").model.params["net"]
    capsys.readouterr()
    tune = [f"--config={CONFIGS}/finetune.py:tiny,weights={tmp_path}/mae", "--config.steps=3", *SHORT]
    assert main([*tune, f"--workdir={tmp_path}/tuned"]) == 0
    said = capsys.readouterr().out
    assert "initial values stay in: head, norm" in said and "positions begin as fixed sines" in said
    assert "left out of the checkpoint: decoder_block1" in said and "finetune:tiny  vit_tiny" in said
    found = saved(f"{tmp_path}/tuned")
    assert found.settings["data"]["name"] == "digits" and found.settings["model"]["options"]["patch"] == 2
    after = found.model.params
    # Three steps of Adam move no weight by much more than 2 rates: those of a layer, which are 0.65 apart.
    moved = {name: np.abs(after[name]["qkv"]["kernel"] - before[name]["qkv"]["kernel"]).max() for name in
             ("block1", "block2")}  # fmt: skip
    assert 0 < moved["block2"] < 3e-4 * 2.5 * 0.65 and 0.4 < moved["block1"] / moved["block2"] < 0.8
    table = np.asarray(after["position"])[0, 1:]
    assert 0 < np.abs(table - sincos_positions(4, 4, 8)).max() < 1e-3
    rows = [row for row in read_rows(tmp_path / "tuned") if row["kind"] == "train"]
    assert len(rows) == 3 and all(2 < row["cross_entropy"] < 3 for row in rows)  # log 10 at first


def test_a_run_that_is_none(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    flags = [f"--config={CONFIGS}/finetune.py:tiny,weights={tmp_path}/empty", f"--workdir={tmp_path}/run"]
    assert main(flags) == 2
    assert f"weights: {tmp_path}/empty has no config.json; give the folder of a run" in capsys.readouterr().err
