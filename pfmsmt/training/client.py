"""The client's side of a round: it answers the server's requests.

Between rounds it has its private state, and its best model so far.
"""

from pathlib import Path
from typing import Any, Literal, NamedTuple

from pfmsmt.core import arrays
from pfmsmt.core.errors import TrainingError
from pfmsmt.core.types import NamedArrays, Stream
from pfmsmt.methods import ClientState, Method, Upload
from pfmsmt.models.large_table import SUFFIX
from pfmsmt.training.local import TABLE_VERSION, Learner
from pfmsmt.training.scores import Score, Validation, score
from pfmsmt.training.tree import read_tree, write_tree
from pfmsmt.training.validate import positives, validate


class Request(NamedTuple):
    """A request of the server to one client."""

    kind: Literal["train", "validate"]
    round: int
    phase: int
    arrays: NamedArrays


class Best(NamedTuple):
    """The round with the best validation score, and its model."""

    round: int
    score: Score
    validation: Validation
    parameters: NamedArrays


class Average(NamedTuple):
    """Parameters averaged over some rounds."""

    rounds: int
    parameters: NamedArrays


class Client:
    """One scenario: its data, its private state and its best model."""

    def __init__(self, name: str, method: Method, learner: Learner, seed: int, chosen: Best | None = None) -> None:
        """Start with the private state of an untrained model.

        `chosen` is the best round of a training before this one, which is then kept in place of this one's best.
        """
        self.name, self._method, self._learner, self._seed = name, method, learner, seed
        self._chosen = chosen
        self._states = {(0, 0): method.init_client(learner.binding.read())}
        """(round, phase) -> the private state after it"""
        self.best: Best | None = None
        self._positives = positives(learner.data.validation, learner.model.spec.tasks)
        self._averages: dict[int, Average] = {}

    @property
    def initial_parameters(self) -> NamedArrays:
        """Parameters of the untrained model.

        All but the private tables are the same at every client.
        """
        return self._learner.binding.read()

    @property
    def learner(self) -> Learner:
        """Model, data and budget."""
        return self._learner

    @property
    def refits(self) -> bool:
        """Whether an earlier training chose the round that is kept."""
        return self._chosen is not None

    def answer(self, request: Request) -> Upload | Validation:
        """Carry out a request.

        Repeating it gives the same answer and leaves the same state.
        """
        if request.kind == "train":
            return self._train(request)
        return self._validate(request)

    def _train(self, request: Request) -> Upload:
        now = (request.round, request.phase)
        # Not simply the latest: a repeated request starts from where the first one did.
        before = max(key for key in self._states if key < now)
        stream = Stream(self._seed, self.name, request.round, request.phase)
        update = self._method.phases[request.phase].client_update
        upload, state = update(request.arrays, self._states[before], self._learner, stream)
        # Three kinds of states stay: after the last complete round, as a round that fails must not take it along; after
        # the phase before in this round, from which a repeated request starts; and the new one. Later ones are dropped:
        # a repeated phase makes them anew. So are earlier ones, as a round may have many phases.
        this_round = sorted(key for key in self._states if key[0] == now[0] and key < now)[-1:]
        # A client that was loaded within a round has none of the first kind.
        complete = sorted(key for key in self._states if key[0] < now[0])[-1:]
        self._states = {**{key: self._states[key] for key in (*complete, *this_round)}, now: state}
        if self._learner.large is not None:
            self._learner.large.forget(min(_version(old) for old in self._states.values()))
        return upload

    def _validate(self, request: Request) -> Validation:
        learner = self._learner
        parameters = self._average(request)
        learner.binding.write(parameters)
        # A large table is in no array: it is brought to the version that the latest state names.
        learner.rewind(self._states[max(self._states)].optimizer)
        if self._chosen is not None:
            # No prediction is made that would show it.
            if (bad := arrays.first_not_finite(parameters)) is not None:
                raise TrainingError(f"round {request.round}, client {self.name}: {bad!r} is not finite")
            # Up to the chosen round, as that one itself may fail to reach this client.
            if request.round <= self._chosen.round:
                self._keep(self._chosen._replace(parameters=parameters))
            return {}
        try:
            validation = validate(learner.model, learner.data.validation, learner.device)
        except TrainingError as error:
            raise TrainingError(f"round {request.round}, client {self.name}: {error}") from error
        found = score(validation, self._positives)
        # Strictly better: of equal rounds the first stays, whatever is repeated.
        if self.best is None or found > self.best.score:
            self._keep(Best(request.round, found, validation, parameters))
        return validation

    def _keep(self, best: Best) -> None:
        self.best = best
        if self._learner.large is not None:
            self._learner.large.mark_best()

    def best_parameters(self) -> NamedArrays:
        """Return every tensor of the best model; a large table is copied.

        Raises:
            TrainingError: no model was ever validated.
        """
        if self.best is None:
            raise TrainingError(f"client {self.name} never validated a model, so there is no best one")
        large = self._learner.large
        if large is None:
            return self.best.parameters
        return {**self.best.parameters, self._learner.binding.name(large.table): large.best()}

    def write_best(self) -> None:
        """Write the best model into the learner.

        With a large table, no training can follow.

        Raises:
            TrainingError: no model was ever validated.
        """
        if self.best is None:
            raise TrainingError(f"client {self.name} never validated a model, so there is no best one")
        self._learner.binding.write(self.best.parameters)
        if self._learner.large is not None:
            self._learner.large.restore_best()

    def _average(self, request: Request) -> NamedArrays:
        """Return the personalised parameters, averaged over rounds.

        The last ones count most (Polyak and Juditsky 1992). The n-th ones enter with weight (1 - beta) / (1 - beta^n),
        so that nothing before the first round counts.
        """
        now = self._method.personalise(request.arrays, self._states[max(self._states)])
        share = self._learner.budget.averaging
        past = {number: average for number, average in self._averages.items() if number < request.round}
        if not past or share == 0:
            count, average = 1, now
        else:
            before = past[max(past)]
            count = before.rounds + 1
            fresh = (1 - share) / (1 - share**count)
            # Along the difference, so that what did not change stays as it is, to the bit.
            average = arrays.combine([before.parameters, arrays.subtract(now, before.parameters)], [1.0, fresh])
        # The one before stays, so that a repeated request gives the same answer.
        last = {max(past): past[max(past)]} if past else {}
        self._averages = {**last, request.round: Average(count, average)}
        return average

    def save(self, folder: Path, round: int) -> None:
        """Write the private state after `round` and the best model to `<folder>/<name>.safetensors`.

        Of a large table the rows that were trained go into a file beside it.
        """
        round_, phase = max(key for key in self._states if key[0] <= round)
        state = self._states[round_, phase]
        tree = {"state": state._asdict(), "best": self.best.parameters if self.best else {}}
        notes: dict[str, Any] = {"round": round_, "phase": phase}
        notes["best"] = self.best and self.best._replace(parameters={})._asdict()
        validated = [number for number in self._averages if number <= round]
        if validated:
            average = self._averages[max(validated)]
            tree["average"] = average.parameters
            notes["average"] = {"round": max(validated), "count": average.rounds}
        write_tree(folder / f"{self.name}.safetensors", tree, notes)
        if self._learner.large is not None:
            self._learner.large.save(folder / f"{self.name}{SUFFIX}", _version(state))

    def load(self, folder: Path) -> None:
        """Load the state that `save` wrote.

        Raises:
            CheckpointError: missing or damaged.
        """
        tree, notes = read_tree(folder / f"{self.name}.safetensors")
        state = tree.get("state", {})
        self._states = {
            (notes["round"], notes["phase"]): ClientState(state.get("private", {}), state.get("optimizer", {}))
        }
        average = notes.get("average")
        self._averages = {}
        if average is not None:
            self._averages[average["round"]] = Average(average["count"], tree["average"])
        best = notes["best"]
        if best is not None:
            self.best = Best(best["round"], Score(*best["score"]), best["validation"], tree.get("best", {}))
        if self._learner.large is not None:
            self._learner.large.load(folder / f"{self.name}{SUFFIX}")


def _version(state: ClientState) -> int:
    """Return the version of the large table that a state stands for."""
    return int(state.optimizer.get(TABLE_VERSION, 0))
