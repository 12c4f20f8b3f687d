"""The monitor in real trainers, on random networks of a few hundred weights; skipped where these are not installed."""

import json

import numpy as np
import pytest

import infojax as ij

torch = pytest.importorskip("torch", reason="torch is not installed: the monitor in trainers is not tested")
# The warnings of these packages are theirs, and that the monitor takes its share of steps of a millisecond is true.
pytestmark = pytest.mark.filterwarnings("ignore")


def rows_of(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == "eval"]


def effective_rank(z):
    s = np.linalg.svd(np.asarray(z, np.float64), compute_uv=False)
    p = s / s.sum()
    return np.exp(-np.sum(p * np.log(p)))


def recorder(module):
    """A list to which the inputs of a module in training are added, batch by batch."""
    seen = []
    module.register_forward_pre_hook(lambda m, given: seen.append(given[0].detach().numpy().copy()))
    return seen


def test_hugging_face_trainer(tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: its Trainer is not run")
    pytest.importorskip("accelerate", reason="accelerate is not installed: transformers' Trainer is not run")
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, num_labels=3
    )
    model = transformers.BertForSequenceClassification(config)
    rng = np.random.default_rng(0)
    data = [
        {"input_ids": rng.integers(1, 20, 5), "attention_mask": np.ones(5, int), "labels": k % 3} for k in range(48)
    ]
    seen = recorder(model.classifier)
    monitor = ij.Monitor(str(tmp_path / "run"), every=3, capacity=8, measures=["effective_rank", "nc4"])
    settings = transformers.TrainingArguments(
        str(tmp_path / "out"), max_steps=6, per_device_train_batch_size=8, gradient_accumulation_steps=2,
        report_to=[], save_strategy="no", use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    callback = monitor.trainer_callback(head="classifier", layers="bert.encoder.layer.*")
    transformers.Trainer(model, settings, train_dataset=data, callbacks=[callback]).train()
    rows = rows_of(tmp_path / "run")
    assert [(row["step"], row.get("layer", "")) for row in rows][::2] == [(1, ""), (3, ""), (6, "")]
    assert rows[1]["layer"] == "bert.encoder.layer.0" and rows[0].keys() >= {"effective_rank", "nc4"}
    assert len(seen) == 12 and rows[-2]["effective_rank"] == pytest.approx(effective_rank(seen[-1]), rel=1e-4)
    assert len(model.classifier._forward_pre_hooks) == 1  # only the recorder


def test_lightning_trainer(tmp_path):
    lightning = pytest.importorskip("lightning", reason="lightning is not installed: its Trainer is not run")

    class Network(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.body, self.fc = torch.nn.Linear(6, 5), torch.nn.Linear(5, 3)

        def training_step(self, batch, index):
            return torch.nn.functional.cross_entropy(self.fc(torch.relu(self.body(batch[0]))), batch[1])

        def validation_step(self, batch, index):
            self.training_step(batch, index)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    data = torch.utils.data.TensorDataset(torch.randn(32, 6), torch.arange(32) % 3)
    network, loader = Network(), torch.utils.data.DataLoader(data, 8)
    seen = recorder(network.fc)
    monitor = ij.Monitor(str(tmp_path / "run"), every=2, capacity=8, measures=["effective_rank", "nc4"])
    trainer = lightning.Trainer(
        max_epochs=2, callbacks=[monitor.lightning_callback(head="fc")], logger=False, accelerator="cpu",
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        accumulate_grad_batches=2, limit_val_batches=1, default_root_dir=str(tmp_path),
    )  # fmt: skip
    trainer.fit(network, loader, loader)
    rows = rows_of(tmp_path / "run")
    assert [row["step"] for row in rows] == [1, 2, 4] and all(row["n"] == 8 for row in rows)
    last = seen[-2]  # the very last batch is one of validation, which does not count
    assert rows[-1]["effective_rank"] == pytest.approx(effective_rank(last), rel=1e-4)
    assert "nc4" in rows[0] and len(network.fc._forward_pre_hooks) == 1  # only the recorder
