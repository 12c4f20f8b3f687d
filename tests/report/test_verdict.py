"""The sentences on top of a page begin with the study's own answer."""

from infojax.report.runs.rows import history_of
from infojax.report.runs.verdict import verdict

CONFIG = {"name": "x", "num_classes": 10, "steps": 9}


def rows_of(run, numbers, **fields):
    return {"kind": "eval", "step": 9, "time": 0.0, "run": run, "split": "test", "n": 50} | fields | numbers


def test_pruning_says_what_half_of_the_weights_matter():
    """Means over two runs, at the sparsity nearest to a half: 0.4, not 0.9."""
    found = {0.0: (1.0, 0.9), 0.4: (0.95, 0.85), 0.9: (0.1, 0.1)}
    rows = [
        rows_of(run, {"accuracy": accuracy[run], "entropy_features": 2 - share}, sparsity=share)
        for run in (0, 1)
        for share, accuracy in found.items()
    ]
    rows += [rows_of(run, {"accuracy": 0.5}) for run in (0, 1)]
    assert verdict(history_of(rows, CONFIG | {"task": "pruning"})) == [
        "Without its 40% smallest weights (test): accuracy 0.950 to 0.900, H(features) 2.00 to 1.60.",
        "Accuracy 50% on test.",
    ]


def test_connectivity_says_how_high_the_barriers_are():
    rows = [rows_of(run, {"accuracy": 0.9, "barrier_error": height}, lr=lr) for run, lr, height in
            ((0, 0.03, 40.0), (1, 0.03, 42.0), (2, 0.003, 0.25))]  # fmt: skip
    config = CONFIG | {"task": "connectivity", "sweep": {"name": "lr", "values": [0.03, 0.003]}}
    first, second = verdict(history_of(rows, config))
    assert first == "Barrier of error on the way (test): 0.2, 41.0 points at lr = 0.003, 0.03."
    assert second.startswith("From lr = 0.003 to 0.03: accuracy (test)")


def test_grokking_says_first_when_it_generalised():
    rows = [
        rows_of(0, {"accuracy": accuracy, "nc1": 0.9}, step=step, split=split)
        for split, steps in {"train": {1: 0.1, 5: 1.0, 9: 1.0}, "test": {1: 0.1, 5: 0.2, 9: 1.0}}.items()
        for step, accuracy in steps.items()
    ]
    first, second = verdict(history_of(rows, CONFIG | {"task": "grokking"}))
    assert first.endswith("99% on train at step 5 (memorised), on test at 9 (generalised).")
    assert second == "Not collapsed on train: NC1 per direction 0.10, none below 0.1."
    other = verdict(history_of(rows, CONFIG | {"task": "supervised"}))
    assert other[-1].startswith("Accuracy 100% on train") and "ollapsed on train" in other[0]


def test_few_labels_say_first_how_accurate_they_became():
    """Then what the method selects; a mean over runs."""
    rows = [rows_of(run, {"accuracy": accuracy, "nc1": 18.0}) for run, accuracy in ((0, 0.7), (1, 0.74))]
    selected = {"mask_ratio": 0.3, "pseudo_accuracy_selected": 0.95, "pseudo_accuracy": 0.5}
    rows += [rows_of(run, selected, split="unlabelled_selected") for run in (0, 1)]
    assert verdict(history_of(rows, CONFIG | {"task": "semisup"})) == [
        "Accuracy 72% on test.",
        "Pseudo-labels of unlabelled samples: 30% selected, 95% of those right, 50% of all right.",
        "Not collapsed on test: NC1 per direction 2.0, none below 0.1.",
    ]


def test_self_supervised_learning_says_first_what_became_of_two_views():
    rows = [
        rows_of(
            0, {"view_joint_entropy": joint, "limit_view_information": 5.5, "effective_rank_from_gram": rank}, step=at
        )
        for at, joint, rank in ((0, 3.0, 8.0), (9, 4.0, 6.0))
    ]
    told = "joint entropy of two views 3.00 to 4.00, effective rank of the embedding 8.00 to 6.00"
    text = f"From the first to the last evaluation (test): {told} (entropies of at most 5.50 nats)."
    assert verdict(history_of(rows, CONFIG | {"task": "selfsup"})) == [text]
    assert verdict(history_of(rows, CONFIG | {"task": "supervised"})) == []
