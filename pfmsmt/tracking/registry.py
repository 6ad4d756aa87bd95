"""The model registry: one registered model per scenario, its champion by alias."""

import contextlib
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pfmsmt.tracking.faults import readable

if TYPE_CHECKING:
    from pfmsmt.tracking.store import Store

ALIAS = "champion"


def register_champion(tracking: "Store", scenario: str, model_id: str, tags: Mapping[str, Any]) -> str:
    """See `Tracking.register_champion`."""
    import mlflow

    client = tracking.client
    name = f"pfmsmt-{scenario}"
    texts = {key: str(value) for key, value in tags.items()}
    with readable(tracking.uri, f"registering model {model_id} as {name}"):
        client.get_logged_model(model_id)
        # Stores keep the source, not always the model's id.
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
        client.set_registered_model_alias(name, ALIAS, version.version)
    return str(version.version)
