"""MLflow's server, whose pages open for training runs and without advertisements.

A browser that comes for the first time sees the pages for language models, an assistant over a quarter of the window,
and a dialogue in front of the registry. MLflow remembers in the browser what was switched or closed; no address and no
setting decides it. So its one HTML page gets a script that sets what this browser has not set yet.

`mlflow ui --app-name pfmsmt` finds `mlflow_ui` by the entry point in pyproject.toml.
"""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from importlib.metadata import entry_points
from typing import Any

_NAME, _GROUP = "pfmsmt", "mlflow.app"
_DEFAULTS = {
    "mlflow.workflowType_v1": "machine_learning",
    "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": True,
    "_mlflow_model_registry_promo_modal_dismissed_v1": True,
}
"""Keys of MLflow 3.17 in the browser's storage; another version ignores those that it does not know."""
_VALUES = json.dumps({key: json.dumps(value) for key, value in _DEFAULTS.items()})
_SCRIPT = (
    f"<script>for(const[k,v]of Object.entries({_VALUES}))"
    "try{localStorage.getItem(k)??localStorage.setItem(k,v)}catch{}</script>"
).encode()
_CONDITIONS = (b"if-none-match", b"if-modified-since", b"range")
"""Headers of a request, by which the answer would be a part of the file or none."""
_OF_THE_FILE = (b"content-length", b"etag", b"last-modified")

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]


class UiApp:
    """An ASGI application: MLflow's own, with a script in its HTML page."""

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Answer one request."""
        # Not at the top: the process that starts the server imports this module too.
        from mlflow.server.fastapi_app import app as mlflow_app

        if (scope.get("method"), scope.get("path")) != ("GET", "/"):
            await mlflow_app(scope, receive, send)
            return
        begin: _Message = {}
        parts: list[bytes] = []

        async def send_page(message: _Message) -> None:
            if message["type"] == "http.response.start":
                begin.update(message)
                return
            parts.append(message.get("body", b""))
            if message.get("more_body"):
                return
            body = b"".join(parts).replace(b"<head>", b"<head>" + _SCRIPT, 1)
            headers = [(name, value) for name, value in begin["headers"] if name.lower() not in _OF_THE_FILE]
            await send({**begin, "headers": [*headers, (b"content-length", str(len(body)).encode())]})
            await send({"type": "http.response.body", "body": body})

        asked = [(name, value) for name, value in scope["headers"] if name.lower() not in _CONDITIONS]
        await mlflow_app({**scope, "headers": asked}, receive, send_page)


mlflow_ui = UiApp()
"""An object: MLflow takes a function for a factory."""


def app_options() -> list[str]:
    """Return the words by which `mlflow ui` serves `mlflow_ui`.

    None are returned where the installed pfmsmt lacks the entry point; MLflow's own pages work too.
    """
    return ["--app-name", _NAME] if entry_points(group=_GROUP, name=_NAME) else []
