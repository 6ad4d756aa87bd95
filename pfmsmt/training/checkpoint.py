"""The last complete state of a run, from which a killed training goes on."""

import shutil
from pathlib import Path
from typing import Protocol

from pfmsmt.core.console import say
from pfmsmt.core.files import new_folder, recover
from pfmsmt.methods import ServerState
from pfmsmt.training.history import History
from pfmsmt.training.rounds import RoundResult
from pfmsmt.training.tree import read_tree, write_tree


class Kept(Protocol):
    """Whoever keeps state beside the server's."""

    def save(self, folder: Path, round: int) -> None:
        """Write the state after `round` into a folder."""
        ...

    def load(self, folder: Path) -> None:
        """Take it up again."""
        ...


class Checkpoint:
    """The last complete state of a run, outside of DVC's outputs so that a kill does not lose it."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        """`fingerprint` names what the run computes: a checkpoint of another one is not taken up."""
        self._folder, self._fingerprint = folder, fingerprint

    def save(self, result: RoundResult, clients: Kept, history: History, run_id: str) -> None:
        """Write server, clients and history as one folder, whole or not at all."""
        seen, rest = history.save()
        notes = {"fingerprint": self._fingerprint, "round": result.round, "history": rest, "run_id": run_id}
        with new_folder(self._folder) as temporary:
            clients.save(temporary, result.round)
            write_tree(temporary / "server.safetensors", {"server": result.server, "history": seen}, notes)

    def load(self, clients: Kept, history: History) -> tuple[ServerState, int, str] | None:
        """Restore clients and history; return server state, round and run id, or None to start anew.

        Raises:
            CheckpointError: a file is missing or damaged; the message names the folder to remove.
        """
        recover(self._folder)
        if not self._folder.exists():
            return None
        tree, notes = read_tree(self._folder / "server.safetensors")
        if notes["fingerprint"] != self._fingerprint:
            say(f"{self._folder} is of another configuration or data: starting anew")
            return None
        clients.load(self._folder)
        history.load(tree["history"], notes["history"])
        return tree["server"], notes["round"], notes["run_id"]

    def remove(self) -> None:
        """Forget it: the run is complete."""
        shutil.rmtree(self._folder, ignore_errors=True)
