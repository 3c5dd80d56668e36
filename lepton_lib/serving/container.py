"""A folder from which a container image is built, and a manifest for Kubernetes.

Knows files; builds and runs nothing. The image holds what answering needs: no torch, no pandas, no
notebook.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from lepton_lib.cases import load_case
from lepton_lib.errors import wrap_os_errors
from lepton_lib.serving import signing
from lepton_lib.serving.problems import ANSWER_SECONDS
from lepton_lib.serving.releases import folder_of
from lepton_lib.serving.scoring import read_service
from lepton_lib.utils import render, write_atomic

# The distributions and modules that answering needs.
NEEDS = (
    "cryptography fastapi fastapi-offline httptools jinja2 msgspec numpy onnxruntime "
    "prometheus-client pydantic starlette uvicorn uvloop"
)
LIBRARY = "__init__.py artefacts.py cases decisions.py errors.py explanation.py serving utils.py"
TEMPLATES = {  # file in the folder: its template
    "Containerfile": "Containerfile",
    "README.md": "image_readme.md",
    "kubernetes.yaml": "kubernetes.yaml",
    "leptonai.json": "leptonai.json",
}
USER, PORT = 10001, 8000
PRE_STOP = 5  # seconds for a balancer to notice that a replica ends


def write_container(
    run_dir: str | Path, folder: Path, *, trust: Sequence[str] | None = None
) -> list[str]:
    """Write a folder to build an image from: Containerfile, requirements, library, case, release.

    And a README, a manifest for Kubernetes and a ``LeptonDeployment`` of leptonai 0.47.

    Args:
        run_dir: The run folder whose current release goes into the image.
        folder: Where to; must not exist.
        trust: Public keys whose signature counts, here and in the image; without it, the user's own
            alone.

    Returns:
        The files, by their paths in the folder.

    Raises:
        RunError: The release can't be verified, or the folder exists already or can't be written.
    """
    manifest, contents = read_service(folder_of(run_dir), trust=trust)
    case = load_case(manifest["case"], verify=False)
    values = {
        "name": case.name.replace("_", "-"),
        "version": manifest["version"],
        "keys": trust or [signing.public_key()],
        "python": ".".join(map(str, sys.version_info[:2])),
        "user": USER,
        "port": PORT,
        "pre_stop": PRE_STOP,
        "grace": PRE_STOP + ANSWER_SECONDS + 5,
    }
    with wrap_os_errors(folder, expected="a new folder of yours", remedy="Name another one."):
        folder.mkdir(parents=True)
        (folder / "run" / "service").mkdir(parents=True)
        for name, content in contents.items():
            (folder / "run" / "service" / name).write_bytes(content)
        _copy(case.folder / "case.toml", folder / "datasets" / case.name / "case.toml")
        for name in LIBRARY.split():
            _copy(Path(__file__).parents[1] / name, folder / "lepton_lib" / name)
        pins = "".join(f"{name}=={metadata.version(name)}\n" for name in NEEDS.split())
        write_atomic(folder / "requirements.txt", pins)
        for name, template in TEMPLATES.items():
            write_atomic(folder / name, render(f"serving/templates/{template}", **values))
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copyfile(source, target)
