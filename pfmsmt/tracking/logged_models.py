"""A scenario's model as a LoggedModel: code, safetensors and JSON, no pickle.

Beside the model lies this package as a wheel, for environments that MLflow builds: pfmsmt is on no package index. The
wheel is one file that the model's requirements name. Unpacked code (`code_paths`) would be imported by whoever loads
the model, and in one process the first model's code would serve all others.
"""

import base64
import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pfmsmt
from pfmsmt.core.errors import SchemaError
from pfmsmt.data.schema import ScenarioSchema
from pfmsmt.tracking.model_card import NOTE
from pfmsmt.tracking.origin import installed
from pfmsmt.tracking.store import readable

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import Run
    from mlflow.models import ModelSignature

    from pfmsmt.tracking.store import Store

_CODE = Path(__file__).parents[1] / "serving" / "pyfunc_model.py"
"""MLflow copies it into the model, and runs it to load one."""
_NEEDED = ("mlflow", "torch", "numpy", "pandas", "pyarrow", "pydantic", "pyyaml", "safetensors", "scipy")
_FOLDER = "code"
"""Within a model's files; MLflow installs requirements from the model's folder."""
_UNSCORED = "Not scored on test rows; the stage `evaluate` does that, and writes the model card here."
_TIME = (1980, 1, 1, 0, 0, 0)


def log_model(
    store: "Store",
    run_id: str,
    name: str,
    folder: Path,
    example: "pd.DataFrame",
    params: Mapping[str, Any],
) -> str:
    """Log the model in `folder`, from a run; return its id.

    The pieces of `mlflow.pyfunc.log_model` one by one, because that function also links every metric that the run
    has at one step, of all scenarios, to this model.

    Args:
        folder: as `models.saved.save_model` writes it; its schema becomes the signature.
        example: a few rows that hold the raw feature columns; further columns are left out.
        params: added to the run's params, which the model gets too (the models page filters by them).

    Raises:
        SchemaError: the folder holds no model, or the example lacks one of its columns.
        TrackingError: the store does not take it.
    """
    schema = read_model_schema(folder)
    example = typed(example, schema)
    import mlflow
    from mlflow.entities import LoggedModelStatus
    from mlflow.models import Model

    client = store.client
    with readable(store.uri, f"logging model {name}"):
        known = client.get_run(run_id).data.params
        known |= {key: str(value) for key, value in params.items()}
        model = client.create_logged_model(
            store.experiment_id, name, source_run_id=run_id, params=known, model_type="pfmsmt", tags={NOTE: _UNSCORED}
        )
        try:
            with TemporaryDirectory() as temporary:
                saved, wheel = Path(temporary, "model"), build_wheel(Path(temporary))
                mlflow.pyfunc.save_model(
                    saved,
                    python_model=str(_CODE),
                    artifacts={"model": str(folder)},
                    signature=signature(schema),
                    input_example=example,
                    code_paths=[str(wheel)],
                    pip_requirements=[*requirements(), f"{_FOLDER}/{wheel.name}"],
                    metadata={"pfmsmt": installed("pfmsmt") or "unknown"},
                    mlflow_model=Model(model.artifact_location, run_id, model_id=model.model_id),
                )
                client.log_model_artifacts(model.model_id, str(saved))
        except BaseException:
            client.finalize_logged_model(model.model_id, LoggedModelStatus.FAILED)
            raise
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    return str(model.model_id)


def discard_models(store: "Store", run: "Run") -> None:
    """Delete the models of a run that did not finish."""
    found = store.client.search_logged_models(
        [run.info.experiment_id], filter_string=f"source_run_id = '{run.info.run_id}'"
    )
    for model in found:
        store.client.delete_logged_model(model.model_id)


def signature(schema: ScenarioSchema) -> "ModelSignature":
    """Return MLflow's signature of a scenario's model.

    Categories are long or string, numbers double; each task has a double probability. Columns with a fill may be left
    out of a request. The inference parameter `calibrated` is true unless a request says otherwise.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    kinds = {field.name: "string" if field.text else "long" for field in schema.categorical}
    kinds |= dict.fromkeys((field.name for field in schema.numerical), "double")
    inputs = [ColSpec(kind, name, required=name not in schema.fill) for name, kind in kinds.items()]
    outputs = [ColSpec("double", task.name) for task in schema.tasks]
    return ModelSignature(
        Schema([*inputs]), Schema([*outputs]), ParamSchema([ParamSpec("calibrated", "boolean", True)])
    )


def typed(frame: "pd.DataFrame", schema: ScenarioSchema) -> "pd.DataFrame":
    """Return the schema's columns with the signature's types, B rows.

    Raises:
        SchemaError: a column is missing.
    """
    missing = [name for name in schema.columns if name not in frame]
    if missing:
        raise SchemaError(f"the example lacks the columns {', '.join(missing)} of scenario {schema.scenario}")
    kinds = {field.name: "str" if field.text else "int64" for field in schema.categorical}
    kinds |= {field.name: "float64" for field in schema.numerical}
    return frame[list(schema.columns)].astype(kinds)


def read_model_schema(folder: Path) -> ScenarioSchema:
    """Return the schema of a saved model.

    Raises:
        SchemaError: the folder holds none.
    """
    try:
        description = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        return ScenarioSchema.model_validate(description["schema"])
    except (OSError, ValueError, KeyError) as error:
        raise SchemaError(f"{folder} holds no saved model: {error}") from error


def requirements() -> list[str]:
    """Pin the packages that a loaded model imports.

    Asking MLflow to find out would take seconds for each model.
    """
    return [f"{package}=={installed(package)}" for package in _NEEDED if installed(package)]


def build_wheel(folder: Path) -> Path:
    """Write the wheel of the running code.

    The same code gives the same bytes. Built from the package itself, not from its source tree, which an installed
    package has not.
    """
    name, version = "pfmsmt", pfmsmt.__version__
    package = Path(pfmsmt.__file__).parent
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}/{path.relative_to(package).as_posix()}": path.read_bytes()
        for path in sorted(package.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: pfmsmt\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = [f"{path},sha256={_digest(content)},{len(content)}" for path, content in files.items()]
    files[f"{info}/RECORD"] = ("\n".join([*record, f"{info}/RECORD,,"]) + "\n").encode()
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in files.items():
            archive.writestr(zipfile.ZipInfo(path, _TIME), content, zipfile.ZIP_DEFLATED)
    return wheel


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
