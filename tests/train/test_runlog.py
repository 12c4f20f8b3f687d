"""The run folder: rows are never lost, doubled or torn, and another run is refused."""

import json
import shutil
import time

import jax.numpy as jnp
import numpy as np
import pytest

from infojax.train.runlog import RunFolder, RunFolderError, read_rows

CONFIG = {"seed": 0, "model": {"name": "mlp", "widths": (8, 8)}, "log": {"every": 10}}


def test_rows_come_back(tmp_path):
    run = RunFolder(tmp_path / "new" / "run", CONFIG)
    run.row("train", 0, loss=jnp.float32(1.5), split="train", n=np.int64(7), curve=jnp.arange(2.0))
    run.row("train", np.int32(1), loss=float("nan"), ratios={"mir": np.inf})
    rows = read_rows(tmp_path / "new" / "run")
    assert [row["step"] for row in rows] == [0, 1] and rows[0]["kind"] == "train"
    assert rows[0]["loss"] == 1.5 and rows[0]["n"] == 7 and rows[0]["curve"] == [0, 1]
    assert rows[1]["loss"] is None and rows[1]["ratios"] == {"mir": None}
    run.close()
    assert read_rows(tmp_path / "nothing") == []


def test_a_run_that_continues_has_every_row_once(tmp_path):
    run = RunFolder(tmp_path, CONFIG)
    for step in range(6):
        run.row("train", step, loss=step)
    run.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"kind": "train", "step": 6, "lo')  # killed in the middle of a line
    assert [row["step"] for row in read_rows(tmp_path)] == list(range(6))
    again = RunFolder(tmp_path, CONFIG)
    again.continue_from(3)
    for step in range(4, 8):
        again.row("train", step, loss=10 * step)
    again.close()
    rows = read_rows(tmp_path)
    assert [row["step"] for row in rows] == list(range(8)) and rows[4]["loss"] == 40 and rows[3]["loss"] == 3


def test_config_and_environment(tmp_path):
    RunFolder(tmp_path, CONFIG)
    assert json.loads((tmp_path / "config.json").read_text())["model"]["widths"] == [8, 8]
    env = json.loads((tmp_path / "env.json").read_text())
    assert env["platform"] == "cpu" and env["devices"] == 8 and env["versions"]["jax"]
    RunFolder(tmp_path, CONFIG)  # the same run again


def begun(folder):
    run = RunFolder(folder, CONFIG)
    run.row("train", 1, loss=1.0)
    run.close()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seed": 1}, "seed was 0, is 1"),
        ({"model": {"name": "mlp", "widths": (8, 9)}}, r"model\.widths was \[8, 8\], is \[8, 9\]"),
        ({"extra": 2}, "extra was 'absent', is 2"),
        ({"steps": 5}, "steps was .*, is 5"),  # schedules know how many there are
        ({"evaluate": {"convention": "papyan"}}, "evaluate.convention was 'absent', is 'papyan'"),
    ],
)
def test_another_run_is_refused(tmp_path, change, says):
    begun(tmp_path)
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(RunFolderError, match=says) as error:
        RunFolder(tmp_path, CONFIG | change)
    assert "\n" not in str(error.value) and (tmp_path / "config.json").read_text() == before


def test_a_message_names_the_first_keys_of_many(tmp_path):
    begun(tmp_path)
    with pytest.raises(RunFolderError, match="k0 was 'absent', is 0; .*; k7 was .*, is 7; and 3 more keys; choose"):
        RunFolder(tmp_path, CONFIG | {f"k{i}": i for i in range(8)} | {"k8": 1, "k9": 1, "l": 1})


def test_a_folder_without_output_is_free(tmp_path):
    RunFolder(tmp_path, CONFIG)
    RunFolder(tmp_path, CONFIG | {"seed": 5})
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 5


def test_damaged_settings_and_a_file_in_the_way(tmp_path):
    begun(tmp_path)
    (tmp_path / "config.json").write_text('{"seed"')
    with pytest.raises(RunFolderError, match="config.json is damaged"):
        RunFolder(tmp_path, CONFIG)
    with pytest.raises(RunFolderError, match="is a file"):
        RunFolder(tmp_path / "config.json", CONFIG)


def test_what_does_not_matter_may_differ(tmp_path):
    begun(tmp_path)
    RunFolder(tmp_path, CONFIG | {"log": {"every": 1}, "devices": 5})
    assert json.loads((tmp_path / "config.json").read_text())["log"] == {"every": 1}


@pytest.mark.parametrize("name", ["metrics.jsonl", "config.json", ".lock", "report.html", "checkpoints", "figures"])
def test_other_files_where_a_run_writes(tmp_path, name):
    kind = "folder" if "." not in name else "regular file"
    (tmp_path / name).touch() if kind == "folder" else (tmp_path / name).mkdir()
    with pytest.raises(RunFolderError, match=f"{name} is not a {kind}, where the run writes one"):
        RunFolder(tmp_path, CONFIG)


def test_a_folder_that_was_removed_does_not_come_back(tmp_path):
    run = RunFolder(tmp_path / "run", CONFIG)
    run.row("train", 0, loss=1.0)
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(FileNotFoundError, match="was removed while the run wrote to it"):
        run.status(state="running")
    assert not (tmp_path / "run").exists()
    run.close()


def test_status_is_replaced_atomically(tmp_path):
    run = RunFolder(tmp_path, CONFIG)
    for step in (1, 2):
        run.status(step=step, state="training")
    assert json.loads((tmp_path / "status.json").read_text())["step"] == 2
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "config.json", "env.json", "status.json"}


def events(folder):
    """{tag: [(step, value), ...]} as TensorBoard shows them: a session hides what older ones have from its step on."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    found = {}
    for path in sorted((folder / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:  # length (8 bytes), its checksum (4), the event, its checksum (4)
            size = int.from_bytes(data[:8], "little")
            event, data = Event.FromString(data[12 : 12 + size]), data[16 + size :]
            if event.session_log.status == SessionLog.START:
                found = {tag: [at for at in shown if at[0] < event.step] for tag, shown in found.items()}
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def test_tensorboard_shows_the_rows_and_no_others(tmp_path):
    pytest.importorskip("tensorboardX")
    for restored, values in ((-1, {0: 1.5, 1: 2.5, 2: 3.5}), (1, {2: 4.5})):
        run = RunFolder(tmp_path, CONFIG)
        run.continue_from(restored)
        for step, value in values.items():
            run.row("train", step, loss=value, run=0, seed=7)
            run.row("eval", step, split="test", mir=jnp.float32(value), n=10, hdr=float("nan"))
        run.close()
        time.sleep(1.01)  # event files are named by the second
    expected = [(0, 1.5), (1, 2.5), (2, 4.5)]
    assert events(tmp_path) == {"run0/train/loss": expected, "eval/test/mir": expected}
    assert [row["step"] for row in read_rows(tmp_path)] == [0, 0, 1, 1, 2, 2]


def test_what_a_checkpoint_records_of_the_folder(tmp_path):
    """Lost or changed rows, another config, a missing config: each gives one line, and the run does not continue."""
    with RunFolder(tmp_path, CONFIG) as run:
        run.continue_from(-1)
        for step in range(6):
            run.row("train", step, loss=1.0 / (1 + step))
        facts = run.facts()
    rows = (tmp_path / "metrics.jsonl").read_bytes()
    assert facts["rows"][0] == len(rows)

    def continued(config=CONFIG, facts=facts):
        with RunFolder(tmp_path, config) as run:
            run.continue_from(5, facts)
            run.row("train", 6, loss=0.1)
            return run.facts()

    for damaged, says in (
        (rows[: len(rows) // 2], f"{len(rows) - len(rows) // 2} bytes are lost since checkpoint 5"),
        (b"", "bytes are lost since checkpoint 5"),
        (rows.replace(b"0.5", b"0.4"), "earlier rows were changed since checkpoint 5"),
    ):
        (tmp_path / "metrics.jsonl").write_bytes(damaged)
        with pytest.raises(RunFolderError, match=says):
            continued()
    (tmp_path / "metrics.jsonl").write_bytes(rows + b'{"kind": "train", "step": 9, "time')  # torn by a kill
    grown = continued()
    assert grown["rows"][0] == len((tmp_path / "metrics.jsonl").read_bytes()) > facts["rows"][0]
    continued(facts={})  # a checkpoint of before
    with pytest.raises(RunFolderError, match="checkpoint 5 was written with another config than config.json now holds"):
        continued(facts=facts | {"config": 1})
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    (tmp_path / "config.json").unlink()
    with pytest.raises(RunFolderError, match="config.json is missing, but there are checkpoints"):
        continued()
    for content in ("[]", "", "[" * 10_000, "{"):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(RunFolderError, match="config.json is damaged"):
            continued()
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"seed": 9}))
    with pytest.raises(RunFolderError, match="seed was 9, is"):  # checkpoints alone are a run, too
        continued()


def test_a_key_below_one_that_may_differ(tmp_path):
    with RunFolder(tmp_path, CONFIG | {"data": {"dir": "a", "name": "digits"}}) as run:
        run.row("train", 1, loss=1.0)
    RunFolder(tmp_path, CONFIG | {"data": {"dir": "b", "name": "digits"}}).close()
    with pytest.raises(RunFolderError, match="data.name was 'digits', is 'other'"):
        RunFolder(tmp_path, CONFIG | {"data": {"dir": "b", "name": "other"}})


@pytest.mark.parametrize("replaced", [False, True])
def test_rows_that_would_go_nowhere_are_refused(tmp_path, replaced):
    """An open file outlives its name: without checking the folder, rows would be lost in silence."""
    run = RunFolder(tmp_path / "run", {})
    run.row("train", 1, loss=1.0)
    run.flush()
    run.metrics.unlink()
    if replaced:
        run.metrics.write_text("")
    with pytest.raises(FileNotFoundError, match="removed or replaced"):
        run.flush()
    run.close()


def test_closing_does_not_hide_what_ended_the_run(tmp_path, monkeypatch):
    def full(number):
        raise OSError("fsync")

    run = RunFolder(tmp_path, {})
    with pytest.raises(ZeroDivisionError), run:
        run.row("train", 1, loss=1.0)
        monkeypatch.setattr("os.fsync", full)
        raise ZeroDivisionError
    with pytest.raises(OSError, match="fsync"), run:
        run.row("train", 2, loss=1.0)


def test_what_comes_after_a_checkpoint_is_dropped_and_counted(tmp_path):
    """Whatever it is: rows of earlier steps, duplicates, lines that are not rows. The timing row stays."""
    with RunFolder(tmp_path, CONFIG) as run:
        run.continue_from(-1)
        run.row("train", 5, loss=0.5)
        facts = run.facts()
        run.row("timing", 5, steps_seconds=1.0)
    rows = (tmp_path / "metrics.jsonl").read_text()
    late = rows.splitlines(keepends=True)[0] + '{"kind": "train", "step": -5}\n' + "[" * 100_000 + "\n\0\n"
    (tmp_path / "metrics.jsonl").write_text(rows + late)
    with RunFolder(tmp_path, CONFIG) as run:
        assert run.continue_from(5, facts) == 4
    assert (tmp_path / "metrics.jsonl").read_text() == rows


def test_a_folder_that_is_not_a_run_or_an_incomplete_one(tmp_path):
    """Existing files are not replaced: the config of another program, rows without config, rows without checkpoints."""
    (tmp_path / "config.json").write_text('{"architectures": ["BertModel"]}')
    with pytest.raises(RunFolderError, match="config.json was not written by a run, as env.json is missing"):
        RunFolder(tmp_path, CONFIG)
    assert (tmp_path / "config.json").read_text() == '{"architectures": ["BertModel"]}'
    with RunFolder(tmp_path / "run", CONFIG) as run:
        run.row("train", 5, loss=0.5)
        run.row("timing", 5, steps_seconds=1.0)
    rows = (tmp_path / "run" / "metrics.jsonl").read_text()
    with RunFolder(tmp_path / "run", CONFIG) as run:
        with pytest.raises(RunFolderError, match="rows of a run whose checkpoints were removed; remove metrics.jsonl"):
            run.continue_from(-1)
    (tmp_path / "run" / "config.json").unlink()
    with pytest.raises(RunFolderError, match="config.json is missing, but there are rows"):
        RunFolder(tmp_path / "run", CONFIG)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == rows


@pytest.mark.parametrize("content", [None, "", "torn"])
def test_rows_that_are_gone_under_a_checkpoint_without_checksums(tmp_path, content):
    with RunFolder(tmp_path, CONFIG) as run:
        if content is not None:
            run.metrics.write_text(content)
        with pytest.raises(RunFolderError, match="metrics.jsonl is missing or empty; restore it"):
            run.continue_from(5)
