"""The model registry: one registered model per scenario.

Its champion and challenger are aliases. Versions are refused when a pickle is among their files: whoever can write the
registry must not run code where it is read.
"""

import contextlib
import io
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pfmsmt.core.errors import TrackingError
from pfmsmt.tracking.model_card import NOTE
from pfmsmt.tracking.store import readable

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

    from pfmsmt.tracking.store import Store

CHAMPION = "champion"
CHALLENGER = "challenger"
PREFIX = "pfmsmt-"

_SUFFIXES = frozenset({".pkl", ".pickle", ".pck", ".joblib", ".dill", ".cloudpickle", ".pt", ".pth", ".pt2", ".ckpt"})
_PROTOCOLS = tuple(bytes((0x80, version)) for version in range(2, 6))
"""The first bytes of pickles of protocol 2 to 5."""


class Version(NamedTuple):
    """One registered version of a scenario's model."""

    scenario: str
    version: str
    aliases: tuple[str, ...]
    tags: Mapping[str, str]
    source: str
    """Address of the logged model: `models:/<id>`."""
    created: int
    """Milliseconds since 1970."""

    def metric(self, name: str) -> float | None:
        """Return a metric among the tags.

        None where it is absent, was undefined or is no number.
        """
        try:
            value = float(self.tags[name])
        except (KeyError, ValueError):
            return None
        return value if math.isfinite(value) else None


def register_version(store: "Store", scenario: str, model_id: str, tags: Mapping[str, Any]) -> str:
    """Make a logged model a version of `pfmsmt-<scenario>`; return its number.

    A model that is registered already gets no second version, but these tags.

    Raises:
        TrackingError: no such logged model, or the store refuses.
    """
    import mlflow

    client, name = store.client, PREFIX + scenario
    texts = {key: str(value) for key, value in tags.items()}
    with readable(store.uri, f"registering model {model_id} as {name}"):
        card = client.get_logged_model(model_id).tags.get(NOTE)
        # Stores save the source, not always the model's id.
        source = f"models:/{model_id}"
        known = {found.source: found for found in client.search_model_versions(f"name = '{name}'")}
        version = known.get(source)
        if version is None:
            # It reports on stderr; what goes wrong is raised.
            with contextlib.redirect_stderr(io.StringIO()):
                version = mlflow.register_model(source, name, tags=texts)
        else:
            for key, value in texts.items():
                client.set_model_version_tag(name, version.version, key, value)
        if card:
            client.update_model_version(name, version.version, description=card)
    return str(version.version)


def aliases(store: "Store") -> dict[str, dict[str, str]]:
    """Return scenario -> alias -> version, of all scenarios that are registered."""
    found: dict[str, dict[str, str]] = {}
    with readable(store.uri, "reading the registry"):
        page: str | None = None
        while page != "":
            models = store.client.search_registered_models(f"name LIKE '{PREFIX}%'", page_token=page)
            for model in models:
                scenario = model.name.removeprefix(PREFIX)
                found[scenario] = {alias: str(version) for alias, version in model.aliases.items()}
            page = models.token or ""
    return dict(sorted(found.items()))


def versions(store: "Store", scenario: str) -> list[Version]:
    """Return all versions of a scenario's model, the newest first.

    Raises:
        TrackingError: the scenario has no registered model, or the store cannot be read.
    """
    model = _model(store, scenario)
    with readable(store.uri, f"reading the versions of {model.name}"):
        found = store.client.search_model_versions(f"name = '{model.name}'")
    own: dict[str, list[str]] = {}
    for alias, number in model.aliases.items():
        own.setdefault(str(number), []).append(alias)
    listed = [_version(scenario, entry, tuple(sorted(own.get(str(entry.version), ())))) for entry in found]
    return sorted(listed, key=lambda entry: -int(entry.version))


def find_version(store: "Store", scenario: str, which: str) -> Version:
    """Return the version with this number or alias.

    Raises:
        TrackingError: there is none; the message says which there are.
    """
    known = versions(store, scenario)
    for entry in known:
        if which == entry.version or which in entry.aliases:
            return entry
    there = ", ".join(" ".join((entry.version, *(f"({alias})" for alias in entry.aliases))) for entry in known)
    raise TrackingError(f"{PREFIX}{scenario} has no version or alias {which!r}; it has {there or 'no version'}")


def set_alias(store: "Store", scenario: str, alias: str, version: str) -> None:
    """Move an alias of a scenario's model to a version."""
    with readable(store.uri, f"giving the alias {alias} to {PREFIX}{scenario} version {version}"):
        store.client.set_registered_model_alias(PREFIX + scenario, alias, version)


def drop_alias(store: "Store", scenario: str, alias: str) -> None:
    """Take an alias of a scenario's model away."""
    with readable(store.uri, f"dropping the alias {alias} of {PREFIX}{scenario}"):
        store.client.delete_registered_model_alias(PREFIX + scenario, alias)


def model_tags(store: "Store", scenario: str) -> dict[str, str]:
    """Return the tags of a scenario's registered model."""
    return dict(_model(store, scenario).tags)


def set_model_tag(store: "Store", scenario: str, key: str, value: str) -> None:
    """Tag a scenario's registered model."""
    with readable(store.uri, f"tagging {PREFIX}{scenario}"):
        store.client.set_registered_model_tag(PREFIX + scenario, key, value)


def set_version_tag(store: "Store", scenario: str, version: str, key: str, value: str) -> None:
    """Tag a version of a scenario's model."""
    with readable(store.uri, f"tagging {PREFIX}{scenario} version {version}"):
        store.client.set_model_version_tag(PREFIX + scenario, version, key, value)


def describe_model(store: "Store", scenario: str, text: str) -> None:
    """Set the description of a scenario's registered model, in Markdown."""
    with readable(store.uri, f"describing {PREFIX}{scenario}"):
        store.client.update_registered_model(PREFIX + scenario, text)


def download_version(store: "Store", scenario: str, version: str, folder: Path) -> Path:
    """Copy a version's files into `folder`; run none of its code.

    Return the folder that `models.saved.load_model` reads.

    Raises:
        TrackingError: an artifact is a pickle (it is named), there is no saved model in it, or it cannot be copied.
    """
    import mlflow

    name = f"{PREFIX}{scenario} version {version}"
    with readable(store.uri, f"fetching {name}"):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        uri = f"models:/{PREFIX}{scenario}/{version}"
        mlflow.artifacts.download_artifacts(uri, dst_path=str(folder), tracking_uri=store.uri)
    refuse_pickles(folder, name)
    found = sorted(folder.glob("artifacts/*/model.json"))
    if len(found) != 1:
        raise TrackingError(f"{name} holds {len(found)} saved models where one is expected; register it with pfmsmt")
    return found[0].parent


def _model(store: "Store", scenario: str) -> "RegisteredModel":
    from mlflow.exceptions import MlflowException

    try:
        return store.client.get_registered_model(PREFIX + scenario)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise TrackingError(f"MLflow store {store.uri}: reading {PREFIX}{scenario} failed: {error}") from error
    there = ", ".join(aliases(store)) or "none; run `dvc repro register`"
    raise TrackingError(f"no scenario {scenario!r} is registered in {store.uri}; there are {there}")


def _version(scenario: str, entry: "ModelVersion", own: tuple[str, ...]) -> Version:
    return Version(
        scenario, str(entry.version), own, dict(entry.tags), str(entry.source), int(entry.creation_timestamp)
    )


def version_params(store: "Store", version: Version) -> dict[str, str]:
    """Return the parameters that a version was trained with."""
    with readable(store.uri, f"reading the parameters of {version.source}"):
        return dict(store.client.get_logged_model(version.source.removeprefix("models:/")).params)


def refuse_pickles(folder: Path, name: str) -> None:
    """Look at all files of a model.

    Raises:
        TrackingError: one is a pickle, by its name or by how it begins; it is named.
    """
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        with path.open("rb") as file:
            begin = file.read(2)
        # The first two bytes of a safetensors file are the low ones of a length; they may be anything.
        pickled = begin in _PROTOCOLS and path.suffix != ".safetensors"
        if path.suffix.lower() in _SUFFIXES or pickled:
            raise TrackingError(
                f"{name} holds the pickle {path.relative_to(folder)}, and loading one runs code of whoever wrote it; "
                "register a model that pfmsmt has logged"
            )
