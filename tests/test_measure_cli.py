"""`python -m infojax.measure`: tables, JSON, figures, and one line for every bad input."""

import io
import json
import math
import os
import re
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from infojax import measure, outputs
from infojax.features import sources
from infojax.measure import main, results

# Nearly all tests measure arrays of these sizes with labels, head and bias: one compilation for all.
NUM_ROWS, DIM, CLASSES = 60, 6, 3


@pytest.fixture(autouse=True, scope="module")
def quick_compilation():
    """These tests compare runs with runs; compilation is nearly all of their time."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Every test runs in an empty folder, as a user would."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def data():
    random = np.random.default_rng(0)
    labels = np.arange(NUM_ROWS) % CLASSES
    head = random.normal(size=(CLASSES, DIM))
    return {
        "z": head[labels] + random.normal(size=(NUM_ROWS, DIM)),
        "y": labels,
        "W": head,
        "b": np.zeros(CLASSES),
    }


@pytest.fixture
def steps(data):
    """A folder whose order by name differs from its order by step."""
    Path("run").mkdir()
    for step in (5, 100, 20):
        np.savez(f"run/step_{step}.npz", **(data | {"z": data["z"] + 1 / step}))
    return [5, 20, 100]


def run_json(capsys, *argv) -> dict:
    assert main([*argv, "--json", "-"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def refused(capsys, *argv) -> str:
    """The one line on stderr; nothing on stdout, code 2, and no file that was not there before."""
    before = sorted(Path.cwd().rglob("*"))
    assert main(list(argv)) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("infojax.measure: ") and err.count("\n") == 1
    assert sorted(Path.cwd().rglob("*")) == before
    return err.removeprefix("infojax.measure: ").rstrip("\n")


# Numbers


def test_the_numbers_are_those_of_analyze(capsys, data):
    np.savez("f.npz", **data)
    from infojax.analysis import analyze

    report = analyze(data["z"], data["y"], data["W"], data["b"])
    found = run_json(capsys, "f.npz")
    assert list(found) == ["f.npz"] and list(found["f.npz"]) == ["features"]
    entry = found["f.npz"]["features"]
    assert list(entry) == ["measures", "conventions", "warnings"]
    expected = {k: v if math.isfinite(v) else None for k, v in report.measures.items()}
    assert entry["measures"] == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert {"mir", "nc1", "nc3"} <= set(entry["measures"])
    assert entry["conventions"] == report.conventions


@pytest.mark.parametrize("names", [("FEATS", "Targets", "Weight", "BIAS"), ("h", "LABELS", "w", "B")])
def test_names_are_found_in_any_case(capsys, data, names):
    np.savez("usual.npz", **data)
    np.savez("f.npz", **dict(zip(names, data.values(), strict=True)))
    found = run_json(capsys, "f.npz", "usual.npz")
    assert found["f.npz"] == found["usual.npz"]


def test_names_need_to_be_whole(capsys, data):
    np.savez("f.npz", **data, zz=data["z"], my_labels=data["y"])
    assert list(run_json(capsys, "f.npz")) == ["f.npz"]


def test_every_kind_of_file_gives_the_same_numbers(capsys, data):
    import h5py

    np.savez("f.npz", **data)
    np.savez_compressed("g.npz", **data)
    save_file(data, "f.safetensors")
    with h5py.File("f.h5", "w") as file:
        file.update(data)
    found = run_json(capsys, "f.npz", "g.npz", "f.safetensors", "f.h5")
    assert len(found) == 4 and all(entry == found["f.npz"] for entry in found.values())


def test_flags_choose_arrays_of_the_file_and_of_other_files(capsys, data):
    np.savez("usual.npz", **data)
    expected = run_json(capsys, "usual.npz")["usual.npz"]
    np.savez("own.npz", a=data["z"], c=data["y"], d=data["W"], e=data["b"])
    flags = ["--features", "a", "--labels", "c", "--head", "d", "--bias", "e"]
    assert run_json(capsys, "own.npz", *flags)["own.npz"] == expected
    np.save("z.npy", data["z"])
    np.save("y.npy", data["y"].astype(float)[:, None])  # whole floats, as a column
    save_file({"fc.weight": data["W"], "fc.bias": data["b"], "conv": np.ones(3)}, "m.safetensors")
    flags = ["--labels", "y.npy", "--head", "m.safetensors:fc.weight", "--bias"]
    found = run_json(capsys, "z.npy", *flags, "m.safetensors:fc.bias")["z.npy"]
    assert found == expected
    assert run_json(capsys, "z.npy", *flags, "usual.npz")["z.npy"] == expected  # found by name there


def test_a_file_given_twice_is_measured_once_and_says_so(capsys, data):
    np.savez("f.npz", **data)
    assert main(["f.npz", "f.npz", "--json", "-"]) == 0
    out, err = capsys.readouterr()
    assert list(json.loads(out)) == ["f.npz"] and "f.npz is given 2 times, and measured once" in err


def test_unsigned_labels_beyond_int64(capsys, data):
    np.savez("f.npz", z=data["z"], y=np.where(data["y"] == 0, -1, data["y"]).astype(np.uint64))
    assert "labels go up to 18446744073709551615" in refused(capsys, "f.npz")


def test_what_is_no_array_is_told_and_no_layer(capsys, data):
    import zipfile

    np.savez("f.npz", z=data["z"])
    with zipfile.ZipFile("f.npz", "a") as archive:
        archive.writestr("README", "columns are units")
    for flags, layer in (([], "features"), (["--layers", "*"], "z")):
        entry = run_json(capsys, "f.npz", *flags)["f.npz"][layer]
        assert any("not used: README (is no array" in text for text in entry["warnings"])


def test_none_leaves_a_recognised_array_out(capsys, data):
    np.savez("f.npz", **data)
    found = run_json(capsys, "f.npz", "--labels", "none", "--head", "none", "--bias", "none")
    assert "nc1" not in found["f.npz"]["features"]["measures"]


def test_what_is_used_and_what_is_not_is_said(capsys, data):
    z, y, w = data["z"], data["y"], data["W"]
    np.savez("f.npz", z=z, other_y=y, other_w=w, other_b=np.zeros(CLASSES), maps=np.zeros((NUM_ROWS, 2, 2)))
    assert main(["f.npz", "--json", "-"]) == 0
    out, err = capsys.readouterr()
    assert err == f"infojax.measure: f.npz: read z ({NUM_ROWS}, {DIM}) float64 as features\n"
    [warning] = (w for w in json.loads(out)["f.npz"]["features"]["warnings"] if "not used" in w)
    assert warning == (
        "arrays that were not used: other_y (60,) int64 (--labels other_y), other_w (3, 6) float64 (--head other_w), "
        "other_b (3,) float64 (--bias other_b), maps (60, 2, 2) float64 (--features maps)"
    )
    flags = ["--labels", "other_y", "--head", "other_w", "--bias", "other_b"]
    assert main(["f.npz", *flags]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "not used: maps (60, 2, 2) float64 (--features maps)" in out
    assert out.endswith(
        "f.npz: read z (60, 6) float64 as features, other_y (60,) int64 as labels, other_w (3, 6) float64 as head, "
        "other_b (3,) float64 as bias"
    )
    np.savez("g.npz", **data)  # an array that a flag declines is not spoken of, and neither are those of other files
    assert main(["g.npz", "--labels", "none", "--head", "none", "--bias", "none"]) == 0
    assert "not used" not in capsys.readouterr().out
    assert main(["g.npz", "--labels", "f.npz:other_y", "--head", "none", "--bias", "none"]) == 0
    out = capsys.readouterr().out
    assert "f.npz: other_y (60,) int64 as labels" in out and "not used: y (60,)" in out


def test_files_of_a_folder_that_are_left_out_are_said(capsys, data, steps):
    np.savez("run/epoch_3.npz", **data)
    np.savez("run/step_200.npz", z=data["z"], y=data["y"])
    assert main(["run"]) == 0
    line = " ".join(capsys.readouterr().out.rpartition("\n\n")[2].split())
    assert line.startswith("run: read z (60, 6) float64 as features, y (60,) int64 as labels, W (3, 6)")
    assert "(3 files from run/step_5.npz on); z" in line and "(1 files from run/step_200.npz on)" in line
    assert line.endswith("; not read: epoch_3.npz")


def test_convolution_maps_are_flattened_when_asked_for_and_it_is_told(capsys, data):
    np.savez("f.npz", **data)
    np.savez("g.npz", **(data | {"z": data["z"].reshape(NUM_ROWS, 3, 2, 1)}))
    asked = refused(capsys, "g.npz")
    assert "g.npz: z has shape (60, 3, 2, 1); pass --axes " in asked and "'n d d d' (60 rows x 6 columns)" in asked
    flat = run_json(capsys, "f.npz")["f.npz"]["features"]
    maps = run_json(capsys, "g.npz", "--axes", "n d d d")["g.npz"]["features"]
    assert maps["measures"] == flat["measures"]
    assert maps["warnings"] == ["each sample is an array of 3 x 2 x 1, flattened to 6 columns", *flat["warnings"]]


def test_layers_are_a_report_each(capsys, data):
    layers = {"layer1": data.pop("z"), "other": np.ones((NUM_ROWS, DIM))}
    layers |= {"layer2": layers["layer1"] ** 3}
    np.savez("f.npz", **layers, **data)
    found = run_json(capsys, "f.npz", "--layers", "layer*")["f.npz"]
    assert list(found) == ["layer1", "layer2"]
    alone = run_json(capsys, "f.npz", "--features", "layer2")["f.npz"]["features"]
    assert found["layer2"]["measures"] == pytest.approx(alone["measures"], nan_ok=True)
    every = run_json(capsys, "f.npz", "--layers", "*")["f.npz"]
    assert list(every) == ["layer1", "other", "layer2"]  # labels, head and bias are no layers
    assert main(["f.npz", "--layers", "layer?"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["layer", "layer1", "layer2"]


def test_json_is_strict_and_says_why_a_value_is_null(capsys, data):
    np.savez("f.npz", **(data | {"W": np.zeros((CLASSES, DIM))}))  # a zero head has no direction
    assert main(["f.npz", "--json", "-"]) == 0
    text = capsys.readouterr().out
    assert "NaN" not in text and "Infinity" not in text
    entry = json.loads(text)["f.npz"]["features"]
    nulls = [name for name, value in entry["measures"].items() if value is None]
    assert "nc3" in nulls and "nc1" not in nulls
    for name in nulls:
        assert any(w.startswith(f"{name} is nan: 0/0") for w in entry["warnings"])


def test_flags_reach_analyze(data, monkeypatch):
    np.savez("f.npz", **data)
    passed = {}
    real = measure.analyze

    def spy(features, **options):
        passed.update(options)
        assert not features.in_memory  # the rows of a file, not an array
        return real(features, **options | {"ci": None, "chunk": 8192})

    monkeypatch.setattr(measure, "analyze", spy)
    assert main(["f.npz", "--ci", "33", "--chunk", "7", "--seed", "5"]) == 0
    assert (passed["ci"], passed["chunk"], passed["seed"]) == (33, 7, 5)
    monkeypatch.setattr(sources, "BLOCK_BYTES", 20 * DIM * 8)  # as if rows were very wide
    assert main(["f.npz"]) == 0
    assert (passed["ci"], passed["chunk"], passed["seed"]) == (None, 20, 0)


# Folders of steps


def test_a_folder_is_measured_by_step_number(capsys, steps):
    Path("run/labels.npy").write_bytes(b"not a step")
    found = run_json(capsys, "run")
    assert list(found) == [f"run/step_{step}.npz" for step in steps]
    assert main(["run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:5]] == ["run", "step", "5", "20", "100"]


def test_a_folder_draws_curves_over_steps(capsys, steps):
    argv = ["run", "--labels", "none", "--head", "none", "--bias", "none"]  # fewer panels to draw
    assert main([*argv, "--figures", "figures", "--html", "run.html", "--quiet"]) == 0
    rows = Path("figures/trajectory.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "5", "20", "100"]
    assert "<svg" in Path("run.html").read_text()
    assert not list(Path.cwd().glob(".*")) and not list(Path.cwd().glob("tmp*"))


def test_a_page_goes_file_by_file(data, steps, monkeypatch):
    from infojax.report import page

    monkeypatch.setattr(page, "svg_text", lambda figure, prefix: f'<svg id="{prefix}"></svg>')
    np.savez("f.npz", **data)
    assert main(["f.npz", "run", "--html", "page.html"]) == 0
    text = Path("page.html").read_text()
    headings = re.findall(r"<h(\d)>([^:<]*)", text)
    reports = [("2", "f.npz"), ("2", "run/step_100.npz")]
    assert headings == [("1", "f.npz, run"), ("2", "Files"), ("2", "Trajectory"), *reports]
    assert "depth" not in text and "<summary>run: 3 steps" in text
    assert main(["run", "--layers", "z", "--html", "page.html"]) == 0
    text = Path("page.html").read_text()
    assert re.findall(r"<h(\d)>([^:<]*)", text) == [("1", "run"), ("2", "Trajectory"), ("2", "z")]


def test_bad_folders(capsys, data, steps):
    Path("empty").mkdir()
    assert "empty: a folder without feature files; infojax reads .npy" in refused(capsys, "empty")
    np.savez("run/step_5.0.npz", **data)
    assert "run/step_5.0.npz: no step number in the name" in refused(capsys, "run")
    Path("run/step_5.0.npz").rename("run/step_005.npz")
    assert "run: step_005.npz and step_5.npz are the same step" in refused(capsys, "run")
    Path("run/step_005.npz").unlink()
    np.savez("run/step_7.npz", other=data["z"], y=data["y"])
    assert "run/step_7.npz: which array holds the features?" in refused(capsys, "run")
    error = refused(capsys, "run", "--layers", "[zo]*")
    assert "run/step_7.npz: holds the layers other, but run/step_5.npz holds z" in error


# What comes out


def test_table_fits_a_log(capsys, data):
    np.savez("f.npz", **data)
    assert main(["f.npz"]) == 0
    out, err = capsys.readouterr()
    assert "f.npz" in out and f"n = {NUM_ROWS}" in out and "nc1" in out
    assert max(map(len, out.splitlines())) <= 100
    assert "\x1b" not in out and err == ""  # stderr is no terminal here: no progress bar


def test_several_files_are_measured_once_each(capsys, data):
    np.savez("f.npz", **data)
    np.save("g.npy", data["z"])
    found = run_json(capsys, "f.npz", "g.npy", "f.npz", "--labels", "none", "--head", "none",
                     "--bias", "none")  # fmt: skip
    assert list(found) == ["f.npz", "g.npy"]
    assert found["f.npz"] == found["g.npy"]
    assert main(["g.npy", "g.npy"]) == 0
    assert capsys.readouterr().out.count("g.npy: n = 60") == 1


def test_two_files_stand_side_by_side_with_their_difference(capsys, data):
    np.savez("f.npz", **data)
    np.savez("g.npz", **data | {"z": data["W"][data["y"]] + 1e-3 * data["z"]})
    assert main(["f.npz", "g.npz"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"A = f.npz: n = {NUM_ROWS}, d = {DIM}, C = {CLASSES}"
    assert "B = g.npz" in "".join(lines) and any(
        line.split() == ["measure", "A", "B", "B", "-", "A", "limit"] for line in lines
    )
    (one, other) = (run_json(capsys, name)[name]["features"]["measures"]["nc1"] for name in ("f.npz", "g.npz"))
    row = next(line.split() for line in lines if line.split()[:1] == ["nc1"])
    assert [float(cell) for cell in row[1:4]] == pytest.approx([one, other, other - one], rel=1e-2)


def test_outputs_are_written_and_replaced_whole(capsys, data):
    np.savez("f.npz", z=data["z"])  # without labels: fewer panels to draw
    Path("out.json").write_text("old")
    argv = ["f.npz", "--json", "out.json", "--html", "out.html", "--figures", "figures"]
    assert main(argv) == 0
    assert "effective_rank" in capsys.readouterr().out
    assert json.loads(Path("out.json").read_text()) == run_json(capsys, "f.npz")
    assert Path("out.html").read_text().lower().startswith("<!doctype html")
    assert any(path.suffix == ".csv" for path in Path("figures").iterdir())
    assert {p.name for p in Path.cwd().iterdir()} == {"f.npz", "out.json", "out.html", "figures"}


def test_a_failure_while_writing_leaves_the_old_files(capsys, data, monkeypatch):
    np.savez("f.npz", **data)
    Path("out.json").write_text("old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(results, "draw_figures", fail)
    assert main(["f.npz", "--json", "out.json", "--figures", "figures"]) == 2
    err = capsys.readouterr().err
    assert "No space left on device" in err and err.count("\n") == 1
    assert Path("out.json").read_text() == "old"
    assert {p.name for p in Path.cwd().iterdir()} == {"f.npz", "out.json"}


def test_outputs_are_checked_before_the_long_work(capsys, data, monkeypatch):
    np.savez("f.npz", **data)
    monkeypatch.setattr(measure, "analyze", lambda *_, **__: pytest.fail("worked first"))
    assert "--json a/b.json: no folder" in refused(capsys, "f.npz", "--json", "a/b.json")
    assert "--html .: is a folder, expected a file" in refused(capsys, "f.npz", "--html", ".")
    assert "--figures f.npz: is a file" in refused(capsys, "f.npz", "--figures", "f.npz")
    error = refused(capsys, "f.npz", "--html", "f.npz")
    assert "--html f.npz: is also an input, and would be overwritten" in error
    np.save("y.npy", data["y"])
    for labels in ("y.npy", "y.npy:features"):
        error = refused(capsys, "f.npz", "--labels", labels, "--json", "y.npy")
        assert "--json y.npy: is also an input" in error
    assert "both name o" in refused(capsys, "f.npz", "--json", "o", "--html", "o")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "--json o.json: no permission" in refused(capsys, "f.npz", "--json", "o.json")


def test_one_file_for_two_outputs(capsys, data):
    np.savez("f.npz", **data)
    Path("old").write_text("")
    os.symlink("old", "link")
    for first, second in (("o", "./o"), ("old", "link"), (str(Path.cwd() / "o"), "o")):
        assert f"--json and --html both name {second}" in refused(capsys, "f.npz", "--json", first, "--html", second)
    assert "--html and --figures both name d" in refused(capsys, "f.npz", "--html", "d", "--figures", "d")
    os.symlink("f.npz", "input")
    assert "is also an input" in refused(capsys, "f.npz", "--html", "input")


def test_outputs_go_through_links_and_fifos(capsys, data):
    np.savez("f.npz", z=data["z"])
    Path("real.json").write_text("old")
    os.chmod("real.json", 0o640)
    os.symlink("real.json", "link.json")
    os.mkfifo("page")
    read = []
    reader = threading.Thread(target=lambda: read.append(Path("page").read_text()), daemon=True)
    reader.start()
    assert main(["f.npz", "--json", "link.json", "--html", "page"]) == 0
    reader.join(20)
    assert read[0].lower().startswith("<!doctype html") and Path("page").is_fifo()
    assert Path("link.json").is_symlink() and Path("real.json").stat().st_mode & 0o777 == 0o640
    capsys.readouterr()
    assert json.loads(Path("real.json").read_text()) == run_json(capsys, "f.npz")


def test_an_output_that_is_stdout(data, tmp_path):
    np.savez("f.npz", **data)
    with open("log", "w") as log:
        saved = os.dup(1)
        os.dup2(log.fileno(), 1)
        try:
            problem = outputs.is_stdout("./log"), outputs.is_stdout("f.npz")
        finally:
            os.dup2(saved, 1)
            os.close(saved)
    assert problem == (True, False)


def test_a_reader_that_has_seen_enough_is_no_error(data, monkeypatch):
    np.savez("f.npz", **data)
    for argv in (["f.npz"], ["f.npz", "--json", "-"], ["f.npz", "--json", "o.json"]):
        reading, writing = os.pipe()
        os.close(reading)
        errors = io.StringIO()
        with open(writing, "w") as pipe:
            monkeypatch.setattr(sys, "stdout", pipe)
            monkeypatch.setattr(sys, "stderr", errors)
            assert main(argv) == 0
            print(flush=True)  # as at the end of the process: what is left goes nowhere
        assert "Broken pipe" not in errors.getvalue() and errors.getvalue().count("\n") == (argv[-1] == "-")
    assert json.loads(Path("o.json").read_text())


def test_a_stdout_that_is_closed_or_full(capsys, data, monkeypatch):
    np.savez("f.npz", **data)

    class Full(io.StringIO):
        def flush(self):
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Full())
        assert main(["f.npz"]) == 2
    assert capsys.readouterr().err == "infojax.measure: stdout: No space left on device\n"
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        assert main(["f.npz"]) == 2
        assert main(["f.npz", "--json", "o.json"]) == 0
    assert "stdout is closed, and none of --json, --html and --figures is given" in capsys.readouterr().err
    assert json.loads(Path("o.json").read_text())


def test_values_that_overflow_warn_in_the_report_alone(capsys, data):
    np.savez("f.npz", **(data | {"z": data["z"] * 1e200, "W": data["W"] * 1e200}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main(["f.npz"]) == 0
    assert capsys.readouterr().err == ""


def test_the_table_is_as_wide_as_the_terminal(capsys, data, monkeypatch):
    np.savez("f.npz", z=data["z"])
    for columns, widest in (("40", 40), ("60", 60), ("200", 100)):
        monkeypatch.setenv("COLUMNS", columns)
        assert main(["f.npz"]) == 0
        assert max(map(len, capsys.readouterr().out.splitlines())) == widest


def test_progress_reaches_a_terminal_only(data, monkeypatch):
    np.savez("f.npz", **data)
    for quiet, terminal, shown in [(False, True, True), (True, True, False), (False, False, False)]:
        screen = io.StringIO()
        screen.isatty = lambda terminal=terminal: terminal
        monkeypatch.setattr(sys, "stderr", screen)
        assert main(["f.npz", *(["--quiet"] if quiet else [])]) == 0
        assert bool(screen.getvalue()) == shown


def test_a_log_without_unicode(data, monkeypatch):
    np.savez("f.npz", **data)
    log = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(log, "ascii", write_through=True))
    assert main(["f.npz"]) == 0
    assert b"nc1" in log.getvalue() and b"-----" in log.getvalue()


# Bad input: one line, code 2


def test_two_candidates(capsys):
    np.savez("features.npz", h=np.ones((100, 64), "f4"), z=np.ones((100, 32), "f4"))
    assert refused(capsys, "features.npz") == (
        "features.npz: which array holds the features? h (100, 64) float32, z (100, 32) float32; "
        "pass --features h or --features z, or --layers 'GLOB' for several"
    )


def test_no_candidate(capsys):
    np.savez("f.npz", **{"arr 0": np.ones((4, 3)), "arr_1": np.arange(4)})
    assert refused(capsys, "f.npz") == (
        "f.npz: which array holds the features? arr 0 (4, 3) float64, arr_1 (4,) int64; pass --features 'arr 0'"
    )


def test_a_checkpoint_is_named_as_one(capsys):
    np.savez("net.npz", **{"0.weight": np.ones((8, 4), "f4"), "2.weight": np.ones((3, 8), "f4")})
    assert refused(capsys, "net.npz").endswith("for several; if these are the weights of a network, pass --weights")


def test_two_candidates_for_the_labels(capsys, data):
    np.savez("f.npz", z=data["z"], y=data["y"], labels=data["y"])
    assert refused(capsys, "f.npz") == (
        "f.npz: which array holds the labels? y (60,) int64, labels (60,) int64; pass --labels y or --labels labels"
    )
    np.savez("other.npz", y=data["y"], labels=data["y"])
    error = refused(capsys, "f.npz", "--labels", "other.npz")
    assert "pass --labels other.npz:y or --labels other.npz:labels" in error


def test_likely_names_string_labels_and_rows_left_out(capsys, data):
    """What a file of Hugging Face or torch calls them; the same numbers as by the names of the help text."""
    expected = run_json(capsys, *save(data))["f.npz"]["features"]["measures"]
    names = {"z": "feature", "y": "label", "W": "fc.weight", "b": "fc.bias"}
    named = {names.get(key, key): value for key, value in data.items()}
    assert run_json(capsys, *save(named))["f.npz"]["features"]["measures"] == expected
    wrapped = {f"module.{key}" if key.startswith("fc.") else key: value for key, value in named.items()}
    assert run_json(capsys, *save(wrapped))["f.npz"]["features"]["measures"] == expected
    strings = np.array(["ant", "bee", "cat"])[data["y"]]
    found = run_json(capsys, *save(named | {"label": strings}))["f.npz"]["features"]
    assert found["measures"] == expected and "numbered in sorted order: ant 0, bee 1, cat 2" in found["warnings"][0]
    other = np.where(np.arange(60) < 5, 99, data["y"])
    left_out = run_json(capsys, *save(named | {"label": other}), "--ignore-index", "99")["f.npz"]["features"]
    kept = {"z": data["z"][5:], "y": data["y"][5:], "W": data["W"], "b": data["b"]}
    subset = run_json(capsys, *save(kept))["f.npz"]["features"]["measures"]
    assert left_out["measures"] == pytest.approx(subset)
    ants = run_json(capsys, *save({"z": data["z"], "y": strings}), "--ignore-index", "ant")["f.npz"]["features"]
    kept = {"z": data["z"][strings != "ant"], "y": data["y"][strings != "ant"] - 1}
    subset = run_json(capsys, *save(kept))["f.npz"]["features"]["measures"]
    assert ants["measures"] == pytest.approx(subset)
    # One of a network's many weights, which does not fit, is no head; several are none either.
    for weights in ({"fc.weight": np.ones((3, 5))}, {"fc.weight": data["W"], "head.weight": data["W"]}):
        found = run_json(capsys, *save({"z": data["z"], "y": data["y"]} | weights))["f.npz"]["features"]
        assert "mir" not in found["measures"] and "not used: fc.weight" in found["warnings"][-1]
    h5py = pytest.importorskip("h5py")
    with h5py.File("f.h5", "w") as file:
        file["z"], file["labels"] = data["z"], strings.astype(object)
    assert "ant 0, bee 1, cat 2" in run_json(capsys, "f.h5")["f.h5"]["features"]["warnings"][0]


def save(arrays):
    """The arrays as f.npz, and its name as arguments."""
    np.savez("f.npz", **arrays)
    return ["f.npz"]


def test_a_head_without_labels_and_a_bias_without_head(capsys, data):
    np.savez("f.npz", z=data["z"], W=data["W"], b=data["b"])
    assert refused(capsys, "f.npz") == (
        "f.npz: W: a head needs the labels of the rows; pass --labels KEY or FILE, or --head none"
    )
    assert refused(capsys, "f.npz", "--head", "none") == (
        "f.npz: b: a bias needs a head; pass --head KEY or FILE, or --bias none"
    )


def test_wrong_keys_name_the_near_ones(capsys, data):
    np.savez("f.npz", embedding_a=data["z"], tags=data["y"])
    error = refused(capsys, "f.npz", "--features", "embeding_a")
    assert "f.npz: --features embeding_a: no such array; did you mean embedding_a?" in error
    error = refused(capsys, "f.npz", "--labels", "tgas")
    assert "--labels tgas: neither an array of this file nor a file; did you mean tags?" in error
    error = refused(capsys, "f.npz", "--layers", "embeding*")
    assert "--layers 'embeding*' matches no array; did you mean embedding_a?" in error
    assert "it holds embedding_a (60, 6) float64, tags (60,) int64" in error
    np.save("targets.npy", data["y"])
    error = refused(capsys, "f.npz", "--features", "embedding_a", "--labels", "target.npy")
    assert error == "target.npy: no such file; did you mean targets.npy?"
    error = refused(capsys, "f.npz", "--features", "embedding_a", "--labels", "f.npz:tags_")
    assert "f.npz: no array 'tags_'; did you mean tags?" in error
    np.savez("two.npz", a=data["y"], c=data["y"])
    error = refused(capsys, "f.npz", "--features", "embedding_a", "--labels", "two.npz")
    assert "no array named labels or y or targets" in error and "pass --labels two.npz:a" in error


@pytest.mark.parametrize(
    ("role", "array", "problem"),
    [
        ("y", np.eye(3)[[0, 1] * 30], "if its rows are one-hot, save labels.argmax(axis=1)"),
        ("y", np.arange(60) / 2, "labels must be whole numbers, row 1 has 0.5"),
        ("y", np.full(60, np.nan), "labels must be whole numbers, row 0 has nan"),
        ("y", np.arange(60) - 1, "labels"),
        ("y", np.zeros(59, int), "labels"),
        ("W", np.ones(6), "f.npz: W has shape (6,), the head must be (C, D)"),
        ("W", np.ones((3, 4)), "head"),
        ("W", np.full((3, 6), np.nan), "head"),
        ("b", np.ones((3, 1)), "f.npz: b has shape (3, 1), the bias must be (C,)"),
        ("b", np.ones(4), "bias"),
        ("z", np.ones(60), "f.npz: z has shape (60,), features must be (N, D) or (N, ...)"),
        ("z", np.full((60, 6), np.inf), "f.npz: "),
        ("z", np.array([[1, None]] * 60), "holds pickled Python objects, which are never loaded"),
        ("z", np.ones((0, 6)), "f.npz: z is empty: shape (0, 6)"),
        ("z", np.ones((60, 6), complex), "f.npz: z is complex"),
    ],
)
def test_bad_arrays(capsys, data, role, array, problem):
    np.savez("f.npz", **(data | {role: array}))
    error = refused(capsys, "f.npz", "--json", "out.json", "--html", "out.html")
    assert error.startswith("f.npz: ") and problem in error


def test_bad_files(capsys, data):
    np.savez("f.npz", **data)
    whole = Path("f.npz").read_bytes()
    Path("g.npz").write_bytes(whole[:500])
    assert "g.npz: cannot be read: File is not a zip file" in refused(capsys, "f.npz", "g.npz")
    Path("f.txt").write_bytes(whole)
    assert "f.txt: unknown kind of file '.txt'" in refused(capsys, "f.txt")
    assert refused(capsys, "g.npy") == "g.npy: no such file; did you mean g.npz?"


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        ([], "the following arguments are required: FILE"),
        (["digits", "--nonsense"], "unrecognized arguments: --nonsense"),
        (["digits", "--chunk", "0"], "argument --chunk: '0': expected a whole number from 1 on"),
        (["digits", "--ci", "many"], "argument --ci: 'many': expected a whole number from 20 on"),
        (["digits", "--ci", "19"], "argument --ci: '19': expected a whole number from 20 on"),
        (["digits", "--features", "features", "--layers", "*"], "exclude each other"),
        (["digits", "--json"], "argument --json: expected one argument"),
        (["digits", "--json", "a", "--json", "b"], "argument --json: given twice"),
        (["digits", "--labels", "none", "--labels=none"], "argument --labels: given twice"),
        (["digits", "--seed", "-1"], "argument --seed: '-1': expected a whole number from 0 to 4294967295"),
        (["digits", "--html", "-"], "--html -: only --json goes to stdout"),
    ],
)
def test_bad_command_lines(capsys, argv, problem):
    assert problem in refused(capsys, *argv)


def test_help_shows_examples(capsys):
    with pytest.raises(SystemExit) as end:
        main(["-h"])
    assert end.value.code == 0
    assert "python -m infojax.measure digits" in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--json", "--html", "--figures", "--features", "--layers", "--labels", "FILE"])
def test_empty_names(capsys, data, flag):
    np.savez("f.npz", **data)
    for text, problem in (("", "is empty; expected a name"), ("a\0b", "holds a NUL character")):
        argv = [text] if flag == "FILE" else ["f.npz", flag, text]
        assert f"argument {flag}: " in (said := refused(capsys, *argv)) and problem in said


def test_labels_of_another_length_are_not_read(capsys, data, monkeypatch):
    np.savez("f.npz", z=data["z"], y=np.zeros(61, int))
    monkeypatch.setattr(sources.StoredArray, "load", lambda self: pytest.fail("read"))
    assert refused(capsys, "f.npz") == (
        "f.npz: y has shape (61,), the labels must be (60,), one per row of f.npz: z (60, 6) float64; pass another "
        "array with --labels, or --labels none"
    )


def test_a_step_number_beyond_what_numbers_hold(capsys, data, steps):
    np.savez("run/step_12345678901234567890123.npz", **data)
    assert "the step number has 23 digits; expected at most 2^53" in refused(capsys, "run")


def test_names_that_a_terminal_would_obey(capsys, data):
    key = "z\x1b[31m\r\x07"
    np.savez("f.npz", **{key: data["z"]})
    assert refused(capsys, "f.npz").isprintable()
    os.rename("f.npz", "a\x1b[2J\nb.npz")
    for argv in (["--features", key], ["--layers", "*"], ["--features", key, "--json", "-"]):
        assert main(["a\x1b[2J\nb.npz", *argv]) == 0
        out, err = capsys.readouterr()
        assert all(line.isprintable() for line in [*out.split("\n"), *err.split("\n")])


@pytest.mark.parametrize("error", [MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 80000000000 bytes")])
def test_memory_that_is_not_there(capsys, data, monkeypatch, error):
    np.savez("f.npz", **data)
    used = "z (60, 6) float64 as features, y (60,) int64 as labels, W (3, 6) float64 as head, b (3,) float64 as bias"
    monkeypatch.setattr(measure, "analyze", lambda *_, **__: (_ for _ in ()).throw(error))
    fix = "lower --chunk, or measure fewer columns or classes"
    assert refused(capsys, "f.npz", "--json", "o") == f"f.npz: out of memory measuring {used}; {fix}"
    monkeypatch.setattr(sources, "free_memory", lambda: 5000.0)  # before anything is computed
    assert f"f.npz: {used}: measuring it needs 1.07e-05 GiB of memory, 4.66e-06 are free; save fewer" in refused(
        capsys, "f.npz"
    )
    np.savez("f.npz", **(data | {"W": np.ones((20, DIM)), "b": np.zeros(20)}))
    assert "are free; measure some of the classes" in refused(capsys, "f.npz")


def test_control_c_is_one_line(capsys, data, monkeypatch):
    np.savez("f.npz", **data)
    before = sorted(Path.cwd().iterdir())

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    for module, name in ((measure, "analyze"), (results, "draw_figures")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, interrupted)
            assert main(["f.npz", "--json", "o.json", "--figures", "figures"]) == 130
        assert capsys.readouterr().err == "infojax.measure: interrupted\n"
        assert sorted(Path.cwd().iterdir()) == before


# The real command


def command(*argv):
    repository = Path(measure.__file__).parents[2]
    argv = [sys.executable, "-m", "infojax.measure", *argv]
    env = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    return subprocess.run(argv, capture_output=True, text=True, cwd=repository, env=env)


def test_the_command_measures_the_bundled_digits():
    done = command("digits")
    assert done.returncode == 0, done.stderr
    assert "n = 1,797, d = 64, C = 10" in done.stdout and "nc1" in done.stdout


def test_the_command_ends_bad_input_with_code_2(folder):
    done = command(str(folder / "none.npz"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"infojax.measure: {folder}/none.npz: no such file\n"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a file system that lets nobody make a folder")
def test_a_folder_that_nobody_can_make_is_refused_before_anything_is_measured(capsys):
    assert main(["digits", "--figures", "/proc/x"]) == 2
    said = capsys.readouterr()
    assert not said.out and "--figures /proc/x: no folder can be made there" in said.err and said.err.count("\n") == 1
