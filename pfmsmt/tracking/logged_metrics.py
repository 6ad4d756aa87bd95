"""Names, units and meanings of the metrics that runs log.

The reference page of metrics is made from them. A part in angle brackets stands for any value: `<scenario>`, `<task>`,
`<kind>` (expert, embedding, tower, gate).
"""

import re
from typing import NamedTuple


class LoggedMetric(NamedTuple):
    """One metric, or a family of them."""

    name: str
    unit: str
    meaning: str

    def matches(self, name: str) -> bool:
        """Say whether a logged name is one of this family."""
        pattern = re.sub(r"<\w+>", r"[\\w.\\- :]+", re.escape(self.name))
        return re.fullmatch(pattern, name) is not None


EACH_ROUND = (
    LoggedMetric("val/mean_auc", "AUC", "Validation AUC: mean over scenarios and tasks that have one."),
    LoggedMetric("val/<scenario>/<task>_auc", "AUC", "Validation AUC of the personalised model."),
    LoggedMetric("val/<scenario>/<task>_logloss", "nats", "Validation log-loss of the personalised model."),
    LoggedMetric("train/<client>/loss", "nats", "Mean training loss of the client in the first phase."),
    LoggedMetric("train/<client>/loss_<phase>", "nats", "The same in a later phase of another name."),
    LoggedMetric("server/seconds", "s", "Duration of all phases."),
    LoggedMetric("server/step_seconds", "s", "Part of it that the server computed."),
    LoggedMetric("server/validation_seconds", "s", "Duration of validation."),
    LoggedMetric("server/failures", "clients", "Clients that did not answer, or whose answer was rejected."),
    LoggedMetric("server/bytes_up", "bytes", "Sent to the server by all clients, validation included."),
    LoggedMetric("server/bytes_down", "bytes", "Sent to all clients."),
    LoggedMetric("server/<client>/bytes_up", "bytes", "Sent to the server by one client."),
    LoggedMetric("server/<client>/bytes_down", "bytes", "Sent to one client."),
)
"""At step = round, for every method."""

OF_COORDINATION = (
    LoggedMetric("server/<kind>_solver_fallbacks", "groups", "Groups whose coordination was not solved: the mean."),
    LoggedMetric("server/<kind>_conflicts", "share", "Pairs of clients whose directions oppose each other."),
    LoggedMetric("server/<kind>_cosine", "cosine", "Mean cosine of the directions of two clients."),
    LoggedMetric("server/<kind>_drift", "ratio", "Mean distance of clients from the global part, by its length."),
    LoggedMetric("server/<client>/<kind>_coefficient", "weight", "The client's weight in the common update."),
    LoggedMetric("server/<client>/<kind>_own_weight", "weight", "The client's weight in its own row of A."),
    LoggedMetric("server/<client>/<kind>_drift", "ratio", "Distance from the global part, by its length."),
    LoggedMetric("server/<client>/listens_to/<other>_<kind>", "weight", "A's entry; with 8 clients or fewer."),
    LoggedMetric("server/<client>/cosine/<other>_<kind>", "cosine", "Cosine of two directions; 8 clients or fewer."),
)
"""At step = round, for pf_msmtrec; means over the groups of a kind."""

OF_FEDHCA2 = (
    LoggedMetric("server/encoder_solver_fallbacks", "groups", "1 where the dual was not solved: the mean."),
    LoggedMetric("server/<client>/alpha", "weight", "The client's learned share of the conflict-averse update."),
    LoggedMetric("server/<client>/beta", "weight", "Learned share of the other towers, mean over its towers' layers."),
)
"""At step = round, for fedhca2, and for pf_msmtrec with that aggregation: there as means over groups."""

OF_NOISE = (
    LoggedMetric("privacy/epsilon", "nats", "Largest epsilon of all clients so far, at `privacy.delta`."),
    LoggedMetric("privacy/<client>/epsilon", "nats", "The client's epsilon so far."),
    LoggedMetric("privacy/<client>/releases", "uploads", "The client's noised uploads so far."),
)
"""At step = round, where `privacy.noise` is above 0."""

AT_THE_END = (
    LoggedMetric("test/mean_auc", "AUC", "Test AUC: mean over scenarios and tasks that have one."),
    LoggedMetric("test/mean_<task>_auc", "AUC", "Test AUC of a task: mean over scenarios."),
    LoggedMetric("test/<scenario>/<task>_auc", "AUC", "Test AUC."),
    LoggedMetric("test/<scenario>/<task>_gauc", "AUC", "AUC within each group of rows, weighted by its rows."),
    LoggedMetric("test/<scenario>/<task>_logloss", "nats", "Test log-loss."),
    LoggedMetric("test/<scenario>/<task>_ece", "probability", "Expected calibration error over `evaluate.bins` bins."),
)
"""Once, by the stage `evaluate`, on the run and on its logged models."""

OF_SEARCHES = (
    LoggedMetric("val/objective", "AUC", "A trial's run, each round: what the search maximises."),
    LoggedMetric("duration_seconds", "s", "A trial's run: from its beginning to its end."),
    LoggedMetric("training_seconds", "s", "A trial's run: the part that trained and validated."),
    LoggedMetric("resident_megabytes", "MB", "A trial's run: memory of its worker; a study's: of the leading process."),
    LoggedMetric("objective", "AUC", "A study's run: of the best trial."),
    LoggedMetric("objective_of_the_start", "AUC", "A study's run: of the first trial, params.yaml itself."),
    LoggedMetric("best_trial", "number", "A study's run: which trial is the best."),
    LoggedMetric("session_seconds", "s", "A study's run: duration of its last session."),
    LoggedMetric("trials/<state>", "trials", "A study's run: how many trials ended so."),
)
"""In the experiment `pfmsmt-tuning`; a trial's run also has the `val/...` of its rounds."""
