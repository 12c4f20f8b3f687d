"""The sentences on top of a page begin with the study's own answer, and say no more than the rows do."""

import pytest

from infojax.report.runs.progress import finished
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
    first, second = verdict(history_of(rows, config))  # no seed has both, so no gain
    assert first == (
        "Linearly connected (barrier of error at most 2 points), on test: 0.2 points at lr = 0.003. "
        "Not linearly connected (barrier of error at most 2 points), on test: 41.0 points at lr = 0.03."
    )
    assert second.startswith("From lr = 0.003 to 0.03: accuracy (test)")


def test_grokking_says_first_when_it_generalised():
    rows = [
        rows_of(0, {"accuracy": accuracy, "nc1": 0.9}, step=step, split=split)
        for split, steps in {"train": {1: 0.1, 5: 1.0, 9: 1.0}, "test": {1: 0.1, 5: 0.2, 9: 1.0}}.items()
        for step, accuracy in steps.items()
    ]
    first, second, third = verdict(history_of(rows, CONFIG | {"task": "grokking"}))
    assert first == "Grokked: memorised (99% on train) at step 5, generalised (99% on test) at 9."
    assert second == "Not collapsed on train: NC1 per direction 0.100, none below 0.1."
    assert third == "Accuracy 100% on train, 100% on test."
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
    told = "oint entropy of two views rose from 3.00 to 4.00, effective rank of the embedding fell from 8.00 to 6.00"
    text = f"{told}, from the first to the last evaluation on test (information: at most 5.50 nats)."
    config = CONFIG | {"task": "selfsup"}
    assert verdict(history_of(rows, config | {"method": "simclr"})) == [f"J{text}"]
    proven = "Tan et al. 2024, who prove that this loss maximises both: "
    assert verdict(history_of(rows, config | {"method": "barlow"})) == [f"As in {proven}j{text}"]
    rows[1]["view_joint_entropy"] = 2.0
    [fell] = verdict(history_of(rows, config | {"method": "barlow"}))
    assert fell.startswith(f"Unlike {proven}joint entropy of two views fell from 3.00 to 2.00")
    assert verdict(history_of(rows, config | {"method": "mmae"}))[0].endswith("shows beside a run of method=mae.")
    assert verdict(history_of(rows, CONFIG | {"task": "supervised"})) == []


# Runs that have not ended


SWEPT = {"sweep": {"name": "temperature", "values": [1.0, 10.0]}}


def swept(ends, accuracies=((0.5, 0.6), (0.7, 0.9)), **fields):
    """Two seeds at each of two temperatures, evaluated at steps 0, 5 and 9 up to the step in `ends` for its value."""
    return [
        rows_of(2 * i + seed, {"accuracy": accuracies[i][seed] * (step or 1) / (step or 9)}, step=step, seed=seed,
                temperature=value, **fields)
        for i, (value, end) in enumerate(ends.items())
        for seed in (0, 1)
        for step in (0, 5, 9)
        if step <= end
    ]  # fmt: skip


@pytest.mark.parametrize("task", ["supervised", "grokking", "selfsup", "crossmodal", "semisup", "compression"])
def test_before_training_there_is_no_finding(task):
    numbers = {"accuracy": 0.9, "nc1": 0.01, "mir": 0.5, "view_joint_entropy": 3.0, "barrier_error": 0.0}
    rows = [rows_of(0, numbers | {"equi_separation": -0.99}, step=0)]
    text = "No finding yet: only step 0 of 9 was evaluated, before training."
    assert verdict(history_of(rows, CONFIG | {"task": task})) == [text]
    logged = {"kind": "train", "step": 4, "time": 0.0, "run": 0, "loss": 1.0}
    assert verdict(history_of([*rows, logged], CONFIG | {"task": task})) == [text]
    assert verdict(history_of(swept({1.0: 0, 10.0: 0}), CONFIG | SWEPT | {"task": task})) == [text]
    [done] = verdict(history_of([rows_of(0, {"accuracy": 0.9}, step=0)], CONFIG | {"task": "crossmodal", "steps": 0}))
    assert done == "Accuracy 90% on test."  # zero-shot, which has no steps
    alone = [rows_of(0, {"accuracy": 0.9}, step=0)]  # a monitor's: it may be of a trained network
    assert verdict(history_of(alone, {})) == ["Accuracy 90% on test."]
    assert verdict(history_of([*alone, logged], {})) == [text.replace(" of 9", "")]
    assert verdict(history_of([logged], CONFIG)) == ["No finding yet: nothing was evaluated by step 4 of 9."]


def test_probes_that_need_no_steps_have_an_answer_before_training():
    rows = [rows_of(0, {"accuracy": 0.1, "accuracy_logistic": 0.95}, step=0)]
    assert verdict(history_of(rows, CONFIG | {"task": "probe"})) == [
        "No finding yet: only step 0 of 9 was evaluated, before training.",
        "Accuracy on test of probes that need no steps: logistic regression 95%.",
    ]


def test_a_run_that_has_not_ended_begins_with_its_step():
    rows = [rows_of(0, {"accuracy": 0.9, "nc1": 0.9}, step=step) for step in (0, 5)]
    first, second = verdict(history_of(rows, CONFIG | {"steps": 250}))
    assert first == "At step 5 of 250 (unfinished): Not collapsed on test: NC1 per direction 0.100, none below 0.1."
    assert second == "Accuracy 90% on test."
    resting = [{"kind": "train", "step": 5, "time": 0.0, "run": 0, "loss": 0.1, "resting": 1.0}]
    ended = history_of(rows + resting, CONFIG | {"steps": 250})
    assert finished(ended) and verdict(ended)[0].startswith("Not collapsed on test")
    assert verdict(history_of(rows, CONFIG | {"steps": 5}))[0].startswith("Not collapsed on test")


def test_a_sweep_compares_its_values_at_one_step():
    """The second value was evaluated at step 5 only, the first at 9, where its accuracy is another."""
    rows = swept({1.0: 9, 10.0: 5})
    for row in rows:
        row["accuracy"] = 0.1 * row["step"] + 0.01 * row["seed"] - 0.3 * (row["temperature"] == 10.0)
    first, *_, last = verdict(history_of(rows, CONFIG | SWEPT))
    assert first.startswith("At step 5 of 9, the last that all runs reached: The accuracy on test falls from ")
    assert last == "From temperature = 1.0 to 10.0: accuracy (test) from 0.505 to 0.205."
    begun = verdict(history_of(swept({1.0: 9, 10.0: 0}), CONFIG | SWEPT))
    assert begun == ["No finding yet: some of the runs were evaluated only at step 0, before training."]


def test_runs_that_became_nan_are_named_and_not_compared():
    rows = [row | ({"frozen": True} if row["run"] == 3 and row["step"] else {}) for row in swept({1.0: 9, 10.0: 9})]
    first, second, third = verdict(history_of(rows, CONFIG | SWEPT))
    assert "(one seed, so no interval)" in first
    assert second == "NaN or Inf, and not counted: run 3 (seed 1, temperature = 10.0) from step 5."
    assert third.endswith("accuracy (test) from 0.550 to 0.700.")
    rows = [row | ({"frozen": True} if row["run"] > 1 and row["step"] else {}) for row in rows]
    first, second = verdict(history_of(rows, CONFIG | SWEPT))  # one value is left
    assert first == "Only temperature = 1.0 stayed finite: Accuracy 55% on test." and second.count("from step 5") == 2
    alone = [rows_of(0, {"accuracy": 0.9, "nc1": 0.01}, step=step) for step in (0, 5)]
    lost = {"kind": "train", "step": 7, "time": 0.0, "run": 0, "loss": None}
    first, second, _ = verdict(history_of([*alone, lost], CONFIG))
    assert first.startswith("Stopped, since it became NaN or Inf; at step 5 of 9, the last finite evaluation: Coll")
    assert second == "NaN or Inf: run 0 (seed 0) from step 7."
    found = verdict(history_of([*alone[:1], rows_of(0, {"accuracy": 0.1}, step=5, not_finite="embedding")], CONFIG))
    assert found[0] == "No finding: only step 0 of 9 was evaluated, before training."


# One answer to each study's question


def ends_of(first, last, run=0, **fields):
    return [rows_of(run, numbers, step=step, **fields) for step, numbers in ((0, first), (9, last))]


def test_mir_and_hdr_do_as_the_paper_says_or_not():
    limit = {"limit_mir": 0.95, "limit_hdr": 2e-16}
    near = ends_of({"mir": 0.3, "hdr": 0.5} | limit, {"mir": 0.9, "hdr": 0.1, "accuracy": 0.9} | limit)
    config = CONFIG | {"task": "supervised"}
    assert verdict(history_of(near, config))[0] == (
        "As in Song et al. 2024 (Fig. 3a), where MIR rises towards its limit and HDR falls: MIR rose from 0.300 to "
        "0.900 (limit 0.950), HDR fell from 0.500 to 0.100 (limit 0), test."
    )
    away = ends_of({"mir": 0.9, "hdr": 0.1} | limit, {"mir": 0.3, "hdr": 0.5, "accuracy": 0.9} | limit)
    assert verdict(history_of(away, config))[0].startswith("Unlike Song et al. 2024 (Fig. 3a)")
    other = [row | {"run": 1} for row in away]
    mixed = verdict(history_of(near + other, config))[0]
    assert mixed.startswith("Unlike") and "MIR stayed at 0.600" in mixed
    past = ends_of({"mir": 0.94, "hdr": 0.5} | limit, {"mir": 0.99, "hdr": 0.1, "accuracy": 0.9} | limit)
    assert verdict(history_of(past, config))[0].startswith("Partly as in")  # it rose, but away from the limit
    above = ends_of({"mir": 0.99, "hdr": 0.5} | limit, {"mir": 0.96, "hdr": 0.1, "accuracy": 0.9} | limit)
    assert verdict(history_of(above, config))[0].startswith("Partly as in")  # it came nearer, but fell


def test_nothing_is_said_to_be_collapsed_or_connected_at_chance():
    """Of 10 classes and 50 samples, up to 0.1 + 3 sqrt(0.09 / 50) = 0.227."""
    numbers = {"nc1": 0.01, "mir": 0.3, "hdr": 0.5, "barrier_error": 0.1}
    chance, better = (
        verdict(history_of(ends_of(numbers, numbers | {"accuracy": accuracy}), CONFIG | {"task": "connectivity"}))
        for accuracy in (0.22, 0.24)
    )
    assert chance[0] == "Near chance, so not judged, on test: accuracy 22%."
    assert chance[1] == "Not judged for collapse: near chance, with 22% accuracy on test."
    assert better[0].startswith("Linearly connected") and better[1].startswith("Collapsed on test")
    rows = ends_of({"mir": 0.3, "hdr": 0.5}, {"accuracy": 0.1, "mir": 0.9, "hdr": 0.1})
    assert verdict(history_of(rows, CONFIG | {"task": "supervised"}))[0] == (
        "Near chance: accuracy 10% on test of 10 classes."
    )


def test_the_side_of_the_threshold_can_be_seen():
    [text] = verdict(history_of([rows_of(0, {"nc1": 18.0, "nc3": 0.0996, "nc4": 0.1004})], CONFIG))
    assert text == "Partly collapsed on test: NC3 0.0996 below 0.1; NC1 per direction 2.0, NC4 0.100 not."


@pytest.mark.parametrize(("classes", "bound"), [(10, 0.19), (100, 0.02), (2, 0.55)])
def test_what_is_hardly_above_chance_is_not_judged(classes, bound):
    """Of a million samples, whose standard error is nothing: a tenth of what is left to 1, or twice 1/C."""
    for accuracy, judged in ((bound - 1e-4, False), (bound + 1e-4, True)):
        rows = [rows_of(0, {"barrier_error": 0.1, "accuracy": accuracy}, n=10**6)]
        found = verdict(history_of(rows, CONFIG | {"num_classes": classes}))[0]
        assert found.startswith("Linearly connected" if judged else "Near chance, so not judged")


def test_grokking_that_did_not_happen():
    def of(train, test, mir=(0.1, 0.5, 0.2), run=0):
        return [
            rows_of(run, {"accuracy": accuracy, "mir": mir[i], "hdr": 1 - mir[i]}, step=step, split=split)
            for split, found in (("train", train), ("test", test))
            for i, (step, accuracy) in enumerate(zip((0, 5, 9), found, strict=True))
        ]

    def told(rows):
        return verdict(history_of(rows, CONFIG | {"task": "grokking"}))[0]

    assert told(of((0, 1, 1), (0, 0.1, 0.25))) == (
        "No grokking by step 9: memorised (99% on train) at step 5; accuracy 100% on train, 25% on test."
    )
    assert "step 9: not memorised; accuracy 50% on train" in told(of((0, 0.2, 0.5), (0, 0, 0)))
    assert "what generalised did so no later than it memorised" in told(of((0, 1, 1), (0, 1, 1)))
    assert told(of((0, 1, 1), (0, 0, 1))).endswith(
        "generalised (99% on test) at 9; as in Song et al. 2024 (Fig. 3b: first MIR rises and HDR falls, then the "
        "reverse), at step 0 and these: MIR 0.10, 0.50, 0.20; HDR 0.90, 0.50, 0.80."
    )
    assert "; unlike Song" in told(of((0, 1, 1), (0, 0, 1), (0.1, 0.5, 0.6)))
    both = told(of((0, 1, 1), (0, 0, 1)) + of((0, 1, 1), (0, 0, 0.5), run=1))
    assert both.startswith("Grokked in 1 of 2 runs: memorised")


@pytest.mark.parametrize(
    ("ends", "text"),
    [
        ({"train": -0.99, "test": -0.96}, "holds: r = -0.990 on train, r = -0.960 on test (at most -0.95)."),
        ({"train": -0.99, "test": -0.94}, "holds on train only: r = -0.990 on train, r = -0.940 on test"),
        ({"train": -0.5}, "does not hold: r = -0.500 on train"),
    ],
)
def test_whether_the_law_of_equi_separation_holds(ends, text):
    rows = [rows_of(0, {"equi_separation": r, "accuracy": 0.9}, split=split) for split, r in ends.items()]
    assert text in verdict(history_of(rows, CONFIG | {"task": "compression"}))[0]


def test_what_a_sweep_gains_is_told_with_its_interval_over_seeds():
    """Differences of 0.2 and 0.3: 25 ± 63.5 points by Student's t with one degree of freedom."""
    first = verdict(history_of(swept({1.0: 9, 10.0: 9}), CONFIG | SWEPT))[0]
    none = "No difference in accuracy that the seeds can tell from temperature = 1.0 to 10.0"
    assert first == f"{none}: +25.0 ± 63.5 points (95%, 2 seeds)."
    first = verdict(history_of(swept({1.0: 9, 10.0: 9}, ((0.5, 0.6), (0.4, 0.501))), CONFIG | SWEPT))[0]
    assert first == "The accuracy on test falls from temperature = 1.0 to 10.0: -9.9 ± 0.6 points (95%, 2 seeds)."
    alone = [row for row in swept({1.0: 9, 10.0: 9}) if row["seed"] == 0]
    assert "+20.0 points from temperature = 1.0 to 10.0 (one seed" in verdict(history_of(alone, CONFIG | SWEPT))[0]
    rows = swept({1.0: 9, 10.0: 9}, ((0.1, 0.1), (0.1, 0.1)))
    assert verdict(history_of(rows, CONFIG | SWEPT))[0].startswith("All are near chance. No difference")


@pytest.mark.parametrize(("hot", "said"), [(1.0, "As in"), (3.0, "Unlike in")])
def test_temperatures_are_held_against_the_paper(hot, said):
    rows = swept({1.0: 9, 10.0: 9})
    for row in rows:
        row["entropy_features"] = 2.0 if row["temperature"] == 1.0 else hot
    first = verdict(history_of(rows, CONFIG | SWEPT | {"task": "temperature"}))[0]
    assert first.startswith(f"{said} Song et al. 2024 (Fig. 2b), where the entropy of the features falls with the temp")
    assert f"from 2.00 to {hot:.2f} on test. No difference" in first


def test_prompts_are_told_beside_zero_shot_clip():
    rows = [rows_of(0, {"accuracy_zero_shot": 0.7}, step=0), rows_of(0, {"accuracy": 0.85})]
    [text] = verdict(history_of(rows, CONFIG | {"task": "crossmodal"}))
    assert text == "Accuracy 85% on test (+15.0 points from zero-shot CLIP)."
