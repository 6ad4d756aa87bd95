import numpy as np
import pytest

from pfmsmt.core.errors import CheckpointError
from pfmsmt.training.tree import read_tree, write_tree

TREE = {
    "clients": {"NL": {"expert/0/layers.0.weight": np.arange(6, dtype=np.float32).reshape(2, 3)}, "ES": {}},
    "steps": {"count": np.asarray(7, np.int64)},
    "empty": {},
    "tiny": np.array([1e-45, -0.0, np.inf], np.float32),
    "view": np.arange(12.0).reshape(3, 4).T,
}


def same(first, second):
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    return first.dtype == second.dtype and first.shape == second.shape and first.tobytes() == second.tobytes()


def test_a_tree_comes_back_bit_for_bit_with_its_empty_parts_and_scalars(tmp_path):
    write_tree(tmp_path / "a.safetensors", TREE, {"round": 3, "best": None, "auc": 0.1 + 0.2})
    tree, notes = read_tree(tmp_path / "a.safetensors")
    assert same(TREE, tree)
    assert notes == {"round": 3, "best": None, "auc": 0.1 + 0.2}


def test_an_empty_tree(tmp_path):
    write_tree(tmp_path / "a.safetensors", {}, {})
    assert read_tree(tmp_path / "a.safetensors") == ({}, {})


def test_the_file_is_the_same_each_time_and_nothing_else_is_left(tmp_path):
    for name in ("a", "b"):
        write_tree(tmp_path / name, dict(reversed(TREE.items())) if name == "b" else TREE, {})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def damage_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_head(path):
    path.write_bytes(b"\xff" * 20 + path.read_bytes()[20:])


def damage_notes(path):
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(1)}, path)


def empty(path):
    path.write_bytes(b"")


def remove(path):
    path.unlink()


@pytest.mark.parametrize("damage", [damage_half, damage_head, damage_notes, empty, remove])
def test_a_damaged_file_says_what_to_do(tmp_path, damage):
    path = tmp_path / "a.safetensors"
    write_tree(path, TREE, {})
    damage(path)
    with pytest.raises(CheckpointError) as error:
        read_tree(path)
    assert str(error.value).startswith(f"{path} cannot be read (")
    assert f"remove {tmp_path} to start anew" in str(error.value)


def test_what_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tree(path, TREE, {"round": 1})
    with pytest.raises(TypeError):
        write_tree(path, TREE, {"round": object()})
    assert read_tree(path)[1] == {"round": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
