"""This package as a wheel, for environments that MLflow builds: pfmsmt is on no package index.

The wheel lies among a model's files as a whole and is named in its requirements. Unpacked code (`code_paths`) would
be imported by whoever loads the model, and in one process the first model's code would serve all others.
"""

import base64
import hashlib
import zipfile
from pathlib import Path

import pfmsmt

FOLDER = "code"
"""Within a model's files; MLflow installs requirements from the model's folder."""
_TIME = (1980, 1, 1, 0, 0, 0)


def build_wheel(folder: Path) -> Path:
    """Write the wheel of the code that runs now; the same code gives the same bytes.

    Built from the package itself, not from its source tree, which an installed package has not.
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
