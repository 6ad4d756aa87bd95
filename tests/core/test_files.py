"""Whole or absent: what is on disk after success, after an error, and in between."""

import json
import math
import os
import subprocess
import sys

import pytest

from pfmsmt.core.files import new_file, new_folder, recover, write_json, write_text


class Stop(Exception):
    """An error of the caller's own."""


def stop_half_way(place, file):
    with place as temporary:
        file(temporary).write_text("half")
        raise Stop


def test_a_new_file_appears_only_when_it_is_whole(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with new_file(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        assert temporary.parent == path.parent  # renaming is atomic within one file system only
    assert path.read_text() == "half"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(Stop):
        stop_half_way(new_file(path), lambda temporary: temporary)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_file_that_was_never_written_is_an_error(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(FileNotFoundError), new_file(tmp_path / "a.txt"):
        pass
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_new_folder_replaces_the_old_one_as_a_whole(tmp_path):
    folder = tmp_path / "deep" / "model"
    for name in ("first", "second"):
        with new_folder(folder) as temporary:
            assert list(temporary.iterdir()) == []
            (temporary / name).write_text(name)
            (temporary / "sub").mkdir()
        assert sorted(p.name for p in folder.iterdir()) == [name, "sub"]
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def test_an_error_leaves_the_old_folder_and_nothing_else(tmp_path):
    folder = tmp_path / "model"
    for old in (False, True):
        if old:
            with new_folder(folder) as temporary:
                (temporary / "a").write_text("old")
        with pytest.raises(Stop):
            stop_half_way(new_folder(folder), lambda temporary: temporary / "a")
        assert folder.exists() is old
    assert (folder / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_leftovers_of_a_killed_run_are_no_part_of_the_next(tmp_path):
    folder = tmp_path / "model"
    with new_folder(folder) as temporary:
        name = temporary.name
    (tmp_path / name).mkdir()
    (tmp_path / name / "leftover").write_text("x")
    with new_folder(folder) as temporary:
        assert temporary.name == name
        assert list(temporary.iterdir()) == []


def test_json_is_sorted_readable_and_refuses_nan(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"b": [1, 0.1], "a": "é"})
    assert json.loads(path.read_text()) == {"a": "é", "b": [1, 0.1]}
    assert path.read_text().splitlines()[1].strip().startswith('"a"')
    assert path.read_text().endswith("}\n")
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match="not JSON compliant"):
            write_json(path, {"a": value})
    assert json.loads(path.read_text())["b"] == [1, 0.1]
    write_text(path, "größer")
    assert path.read_bytes() == "größer".encode()


def dead_process() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_a_killed_process_left_is_cleared_up(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "new").touch()
    dead = dead_process()
    for left in (f".model.{dead}.tmp", f".model.{dead}.old"):
        (tmp_path / left).mkdir()
    (tmp_path / f".model.{os.getpid()}.tmp").mkdir()
    (tmp_path / ".model.txt").touch()
    recover(folder)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f".model.{os.getpid()}.tmp", ".model.txt", "model"]
    assert (folder / "new").exists()


def test_a_folder_that_a_killed_process_had_moved_aside_comes_back(tmp_path):
    aside = tmp_path / f".model.{dead_process()}.old"
    aside.mkdir()
    (aside / "kept").touch()
    recover(tmp_path / "model")
    assert [p.name for p in (tmp_path / "model").iterdir()] == ["kept"]
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
