"""Outputs are complete or unchanged; links, FIFOs and permissions stay what they are. Nothing here touches /dev."""

import os
import stat
import threading
from pathlib import Path

import pytest

from infojax import outputs


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listed():
    return {path.name for path in Path.cwd().iterdir()}


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_a_new_file_has_the_permissions_of_the_umask_and_an_old_one_keeps_its_own():
    old = os.umask(0o027)
    try:
        outputs.write("new", "text")
    finally:
        os.umask(old)
    Path("old").write_text("before")
    os.chmod("old", 0o604)
    outputs.write("old", b"\xff\x00")
    assert (mode("new"), mode("old")) == (0o640, 0o604)
    assert Path("new").read_text() == "text" and Path("old").read_bytes() == b"\xff\x00"
    assert listed() == {"new", "old"}


@pytest.mark.parametrize("target", ["target", "inner/target"])
@pytest.mark.parametrize("exists", [True, False])
def test_of_a_link_the_target_is_replaced(target, exists):
    Path("inner").mkdir()
    if exists:
        Path(target).write_text("before")
    os.symlink(target, "first")
    os.symlink("first", "link")
    outputs.write("link", "after")
    assert Path("link").is_symlink() and os.readlink("link") == "first" and Path("first").is_symlink()
    assert Path(target).read_text() == "after" and not Path(target).is_symlink()


@pytest.mark.parametrize("through_a_link", [False, True])
def test_a_fifo_is_written_through(through_a_link):
    os.mkfifo("fifo")
    os.symlink("fifo", "link")
    read = []
    reader = threading.Thread(target=lambda: read.append(Path("fifo").read_bytes()), daemon=True)
    reader.start()
    text = "numbers " * 20000  # more than a pipe holds
    outputs.write("link" if through_a_link else "fifo", text)
    reader.join(20)
    assert read == [text.encode()]
    assert stat.S_ISFIFO(os.lstat("fifo").st_mode) and Path("link").is_symlink() and listed() == {"fifo", "link"}


def test_nothing_is_written_where_the_block_fails():
    Path("one").write_text("before")
    with pytest.raises(OSError, match="No space") as caught, outputs.at_once() as add:
        add("one", "after")
        add("made/deep/two", "after")
        raise OSError(28, "No space left on device")
    assert caught.value.errno == 28
    assert Path("one").read_text() == "before" and listed() == {"one"}


def test_the_error_of_the_system_names_the_file_that_was_asked_for(monkeypatch):
    def full(temporary, data, target):
        temporary.write_bytes(data[:2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(outputs, "_create", full)
    with pytest.raises(OSError) as caught:
        outputs.write("page.html", "text")
    assert caught.value.filename == "page.html" and listed() == set()


def test_a_name_as_long_as_names_can_be():
    name = "n" * 250 + ".json"
    outputs.write(name, "text")
    assert listed() == {name} and outputs.refusal(name) == ""
    assert outputs.refusal("n" * 256) == "File name too long"


def test_text_that_utf_8_cannot_hold_is_escaped():
    outputs.write("page", f"a name {os.fsdecode(bytes([255]))}")
    assert Path("page").read_text() == "a name \\udcff"


def test_what_cannot_be_written_is_refused_before():
    Path("file").write_text("")
    Path("folder").mkdir()
    os.symlink("loop", "loop")
    os.symlink("nowhere/x", "dangling")
    os.mkfifo("fifo")
    assert outputs.refusal("folder") == "is a folder, expected a file"
    assert outputs.refusal("new/") == "names a folder, expected a file"
    assert outputs.refusal("file", folder=True) == "is a file, expected a folder"
    assert outputs.refusal("fifo", folder=True) == "is a file, expected a folder"
    assert outputs.refusal("none/x") == f"no folder {Path.cwd()}/none; make it first"
    assert outputs.refusal("file/x").startswith("no folder")
    assert outputs.refusal("dangling") == f"no folder {Path.cwd()}/nowhere; make it first"
    assert outputs.refusal("loop") == "Too many levels of symbolic links"
    assert [outputs.refusal(name) for name in ("file", "new", "fifo")] == [""] * 3
    assert [outputs.refusal(name, folder=True) for name in ("folder", "new")] == [""] * 2


def test_one_file_under_two_names():
    Path("file").write_text("")
    os.symlink("file", "link")
    os.link("file", "hard")
    for other in ("./file", "link", "hard", str(Path.cwd() / "file")):
        assert outputs.same_file("file", other)
    assert outputs.same_file("new", "./new") and not outputs.same_file("new", "file")
