"""The last complete state of a run, to resume from."""

import shutil
from collections.abc import Callable
from pathlib import Path

from pfmsmt.core.console import say
from pfmsmt.core.files import new_folder, recover
from pfmsmt.methods import ServerState
from pfmsmt.training.history import History
from pfmsmt.training.refit import Refit
from pfmsmt.training.rounds import RoundResult
from pfmsmt.training.tree import read_tree, write_tree


class Checkpoint:
    """A run's checkpoint.

    Its folder is outside of DVC's outputs, so that a kill does not lose it.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        """Name the checkpoint's folder.

        `fingerprint` names the computation: a checkpoint of another one is not loaded.
        """
        self._folder, self._fingerprint = folder, fingerprint

    def save(
        self,
        result: RoundResult,
        save_clients: Callable[[Path, int], None],
        history: History,
        run_id: str,
        refit: Refit | None = None,
    ) -> None:
        """Write server, clients and history, whole or not at all.

        Args:
            result: the last complete round.
            save_clients: writes the clients' state after a round into a folder.
            history: of all rounds so far.
            run_id: the run's id in MLflow.
            refit: of a second training, what the first one found.
        """
        seen, rest = history.save()
        notes = {"fingerprint": self._fingerprint, "round": result.round, "history": rest, "run_id": run_id}
        if refit is not None:
            notes["refit"] = refit.save()
        with new_folder(self._folder) as temporary:
            save_clients(temporary, result.round)
            write_tree(temporary / "server.safetensors", {"server": result.server, "history": seen}, notes)

    def refit(self) -> Refit | None:
        """Return the first training's findings; None within that training.

        Raises:
            CheckpointError: see `load`.
        """
        recover(self._folder)
        if not self._folder.exists():
            return None
        _, notes = read_tree(self._folder / "server.safetensors")
        return Refit.load(notes["refit"]) if notes["fingerprint"] == self._fingerprint and "refit" in notes else None

    def load(self, load_clients: Callable[[Path], None], history: History) -> tuple[ServerState, int, str] | None:
        """Restore clients and history; return server state, round and run id.

        None: there is nothing to go on from, and the run starts anew.

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
        load_clients(self._folder)
        history.load(tree["history"], notes["history"])
        return tree["server"], notes["round"], notes["run_id"]

    def remove(self) -> None:
        """Forget it: the run is complete."""
        shutil.rmtree(self._folder, ignore_errors=True)
