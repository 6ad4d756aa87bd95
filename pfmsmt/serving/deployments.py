"""The models in service: each scenario's champion and challenger.

Their aliases in the registry are followed.
"""

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from pfmsmt.core.errors import PfmsmtError, ServingError
from pfmsmt.serving.scorer import Scorer, load_scorer
from pfmsmt.tracking import registry
from pfmsmt.tracking.promotion import schema_faults
from pfmsmt.tracking.registry import CHALLENGER, CHAMPION

if TYPE_CHECKING:
    from pfmsmt.tracking.store import Store


class Deployment(NamedTuple):
    """One alias of one scenario, and the version that serves it."""

    scorer: Scorer | None
    """None: no version could be loaded yet."""
    wanted: str
    """The version that the alias points at."""
    fault: str | None
    """Why the wanted version does not serve."""
    unfit: str | None = None
    """Why a challenger that was loaded gets none of the champion's requests."""


class Offer(NamedTuple):
    """The part of a registry that is served.

    One registry may hold models of several projects and data sets.
    """

    scenarios: tuple[str, ...] | None = None
    """None: all that are registered."""
    dataset: str | None = None
    """Versions that say another data set are not served; None: whatever they say."""


EVERYTHING = Offer()
Key = tuple[str, str]
"""scenario, alias"""


class Fleet:
    """Deployments by scenario and alias.

    One thread refreshes, others read: the table is replaced as a whole.
    """

    def __init__(
        self,
        tracking: "Store",
        *,
        calibrated: bool,
        with_challengers: bool,
        report: Callable[[str], None],
        offer: Offer = EVERYTHING,
    ) -> None:
        """Start empty; `refresh` loads. `report` gets a line about every change, once."""
        self._tracking, self._calibrated, self._report, self._offer = tracking, calibrated, report, offer
        self._aliases = (CHAMPION, CHALLENGER) if with_challengers else (CHAMPION,)
        self._deployments: Mapping[Key, Deployment] = {}
        self._refreshing = threading.Lock()
        self.registry_fault: str | None = None
        """Why the registry could not be read the last time."""
        self.swaps = 0
        """Versions that were put into service, the first ones included."""

    @property
    def scenarios(self) -> tuple[str, ...]:
        """All that have, or had, a champion."""
        return tuple(scenario for scenario, alias in self._deployments if alias == CHAMPION)

    def deployments(self) -> Mapping[Key, Deployment]:
        """Return the whole table as it is now."""
        return self._deployments

    def scorer(self, scenario: str, alias: str = CHAMPION) -> Scorer | None:
        """Return the scorer that serves an alias now.

        None: nothing does, or it cannot take the scenario's requests.
        """
        deployment = self._deployments.get((scenario, alias))
        return deployment.scorer if deployment and not deployment.unfit else None

    def refresh(self) -> None:
        """Look at the aliases and load new versions.

        A version that cannot be loaded leaves the old one in service.
        """
        with self._refreshing:
            try:
                aliases = registry.aliases(self._tracking)
                self._note_registry(None)
            except PfmsmtError as error:
                self._note_registry(str(error))
                return
            table: dict[Key, Deployment] = {}
            names = {*aliases, *self.scenarios}
            for scenario in sorted(names if self._offer.scenarios is None else names & {*self._offer.scenarios}):
                for alias in self._aliases:
                    now = self._deployments.get((scenario, alias))
                    wanted = aliases.get(scenario, {}).get(alias)
                    deployment = self._deploy(scenario, alias, wanted, now)
                    if deployment is not None:
                        table[scenario, alias] = deployment
                self._match(scenario, table)
            self._deployments = table

    def _deploy(self, scenario: str, alias: str, wanted: str | None, now: Deployment | None) -> Deployment | None:
        if wanted is None:
            if now is None or alias == CHALLENGER:
                return None
            return self._fault(scenario, alias, now, now.wanted, f"no version has the alias {alias} any more")
        if now and now.scorer and now.scorer.version == wanted:
            return Deployment(now.scorer, wanted, None)
        try:
            self._check_dataset(scenario, wanted)
            scorer = load_scorer(self._tracking, scenario, wanted, self._calibrated)
        except PfmsmtError as error:
            return self._fault(scenario, alias, now, wanted, str(error))
        # A model is data from outside: whatever else loading it raises must not stop the others.
        except Exception as error:
            return self._fault(scenario, alias, now, wanted, f"loading failed with {type(error).__name__}")
        self.swaps += 1
        before = f", in place of version {now.scorer.version}" if now and now.scorer else ""
        self._report(f"{scenario}: version {wanted} serves as {alias}{before}")
        return Deployment(scorer, wanted, None)

    def _check_dataset(self, scenario: str, version: str) -> None:
        """Refuse a version of another data set.

        Raises:
            ServingError: its tag names another one.
        """
        if self._offer.dataset is None:
            return
        found = registry.find_version(self._tracking, scenario, version).tags.get("dataset")
        if found not in (None, self._offer.dataset):
            raise ServingError(
                f"it is a model of the data set {found}, and the data here are {self._offer.dataset}; "
                f"`pfmsmt serve --scenario {scenario}` serves it all the same"
            )

    def _match(self, scenario: str, table: dict[Key, Deployment]) -> None:
        """Withhold requests from challengers that do not match the champion.

        Such a challenger would refuse them, or answer without one of the champion's tasks.
        """
        champion, challenger = table.get((scenario, CHAMPION)), table.get((scenario, CHALLENGER))
        if not (champion and champion.scorer and challenger and challenger.scorer):
            return
        unfit = "; ".join(schema_faults(champion.scorer.schema, challenger.scorer.schema)) or None
        before = self._deployments.get((scenario, CHALLENGER))
        if unfit and (before is None or (before.wanted, before.unfit) != (challenger.wanted, unfit)):
            self._report(f"{scenario}: challenger version {challenger.wanted} gets no requests: {unfit}")
        table[scenario, CHALLENGER] = challenger._replace(unfit=unfit)

    def _fault(self, scenario: str, alias: str, now: Deployment | None, wanted: str, reason: str) -> Deployment:
        if now is None or (now.wanted, now.fault) != (wanted, reason):
            self._report(f"{scenario}: {alias} version {wanted} is not served: {reason}")
        return Deployment(now.scorer if now else None, wanted, reason)

    def _note_registry(self, fault: str | None) -> None:
        if (fault is None) != (self.registry_fault is None):
            self._report("the registry is read again" if fault is None else f"the registry cannot be read: {fault}")
        self.registry_fault = fault
