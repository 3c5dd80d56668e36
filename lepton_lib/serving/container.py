"""A folder from which a container image is built, and a manifest for Kubernetes. Knows files; builds and runs nothing.

The image holds what answering needs: no torch, no pandas, no notebook.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from lepton_lib.cases import load_case
from lepton_lib.errors import wrap_os_errors
from lepton_lib.serving import signing
from lepton_lib.serving.releases import folder_of
from lepton_lib.serving.scoring import FILES, read_service
from lepton_lib.utils import to_json, write_atomic

NEEDS = (  # the distributions that the serving part of the library imports
    "cryptography",
    "fastapi",
    "fastapi-offline",
    "httptools",
    "jinja2",
    "msgspec",
    "numpy",
    "onnxruntime",
    "prometheus-client",
    "pydantic",
    "starlette",
    "uvicorn",
    "uvloop",
)
USER = 10001
_PORT = 8000


def write_container(
    run_dir: str | Path, folder: Path, *, trust: Sequence[str] | None = None
) -> list[str]:
    """Write a folder to build an image from: Containerfile, requirements, library, case, release, manifests.

    Args:
        run_dir: The run folder whose current release goes into the image.
        folder: Where to; must not exist.
        trust: Public keys whose signature counts, here and in the image; without it, the user's own
            alone.

    Returns:
        The files, by their paths in the folder.

    Raises:
        RunError: The release can't be verified, or the folder is there already or can't be written.
    """
    source = folder_of(run_dir)
    manifest, _ = read_service(source, trust=trust)
    case = load_case(manifest["case"], verify=False)
    with wrap_os_errors(folder, expected="a new folder of yours", remedy="Name another one."):
        folder.mkdir(parents=True)
        service = folder / "run" / "service"
        service.mkdir(parents=True)
        for name in (*FILES, signing.SIGNATURE, "manifest.json"):
            shutil.copyfile(source / name, service / name)
        (folder / "datasets" / case.name).mkdir(parents=True)
        shutil.copyfile(case.folder / "case.toml", folder / "datasets" / case.name / "case.toml")
        library = Path(__file__).parents[1]
        for name in (
            "__init__.py",
            "errors.py",
            "utils.py",
            "artefacts.py",
            "decisions.py",
            "explanation.py",
            "cases",
            "serving",
        ):
            if (library / name).is_dir():
                shutil.copytree(
                    library / name,
                    folder / "lepton_lib" / name,
                    ignore=shutil.ignore_patterns("__pycache__"),
                )
            else:
                (folder / "lepton_lib").mkdir(exist_ok=True)
                shutil.copyfile(library / name, folder / "lepton_lib" / name)
        pins = "".join(f"{name}=={metadata.version(name)}\n" for name in NEEDS)
        write_atomic(folder / "requirements.txt", pins)
        write_atomic(folder / "Containerfile", _containerfile(trust or [signing.public_key()]))
        write_atomic(
            folder / "kubernetes.yaml",
            _kubernetes(case.name.replace("_", "-"), manifest["version"]),
        )
        specification = to_json(_deployment(case.name.replace("_", "-"), manifest["version"]))
        write_atomic(folder / "leptonai.json", specification)
        write_atomic(
            folder / "README.md", _readme(case.name.replace("_", "-"), manifest["version"])
        )
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _containerfile(keys: Sequence[str]) -> str:
    python = ".".join(map(str, sys.version_info[:2]))
    check = f"import urllib.request as u; u.urlopen('http://127.0.0.1:{_PORT}/healthz', timeout=2)"
    start = [
        "python",
        "-m",
        "lepton_lib.serving",
        "/app/run",
        "--host",
        "0.0.0.0",
        "--port",
        str(_PORT),
    ]
    start += [*(word for key in keys for word in ("--trust", key)), "--require-key"]
    return f"""# Built from this folder: podman build -t IMAGE .
FROM python:{python}-slim
RUN useradd --uid {USER} --no-create-home --shell /usr/sbin/nologin lepton
WORKDIR /app
COPY requirements.txt .
RUN pip install --no-cache-dir --no-compile -r requirements.txt
COPY lepton_lib lepton_lib
COPY datasets datasets
COPY --chown={USER} run run
ENV PYTHONPATH=/app LEPTON_DATASETS=/app/datasets PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=1
USER {USER}
EXPOSE {_PORT}
# The root file system may be read-only; the log and the keys lie in this volume, which starts as the image's copy.
VOLUME /app/run/service
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD ["python", "-c", {json.dumps(check)}]
CMD {json.dumps(start)}
"""


def _kubernetes(name: str, version: str) -> str:
    return f"""# First: kubectl create secret generic {name}-keys --from-file=keys.json
apiVersion: apps/v1
kind: StatefulSet  # each replica keeps a prediction log of its own, on a disk of its own
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  serviceName: {name}
  replicas: 2
  podManagementPolicy: Parallel
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}, version: "{version}"}}}}
    spec:
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 15
      securityContext:
        {{runAsNonRoot: true, runAsUser: {USER}, fsGroup: {USER}, seccompProfile: {{type: RuntimeDefault}}}}
      initContainers:
        - name: release
          image: {name}:{version}
          command: ["sh", "-c", "cp /app/run/service/* /service/ && cp /keys/keys.json /service/keys.json"]
          securityContext: &locked
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {{drop: [ALL]}}
          resources: &small
            requests: {{cpu: 100m, memory: 64Mi}}
            limits: {{cpu: "1", memory: 128Mi}}
          volumeMounts:
            - {{name: service, mountPath: /service}}
            - {{name: keys, mountPath: /keys, readOnly: true}}
      containers:
        - name: service
          image: {name}:{version}
          ports: [{{name: http, containerPort: {_PORT}}}]
          securityContext: *locked
          resources:
            requests: {{cpu: 500m, memory: 192Mi}}
            limits: {{cpu: "1", memory: 384Mi}}
          startupProbe: {{httpGet: {{path: /healthz, port: http}}, periodSeconds: 1, failureThreshold: 30}}
          livenessProbe: {{httpGet: {{path: /healthz, port: http}}, periodSeconds: 10, timeoutSeconds: 3}}
          readinessProbe: {{httpGet: {{path: /readyz, port: http}}, periodSeconds: 5, timeoutSeconds: 3}}
          volumeMounts:
            - {{name: service, mountPath: /app/run/service}}
            - {{name: tmp, mountPath: /tmp}}
      volumes:
        - {{name: keys, secret: {{secretName: {name}-keys}}}}
        - {{name: tmp, emptyDir: {{sizeLimit: 16Mi}}}}
  volumeClaimTemplates:
    - metadata: {{name: service}}
      spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 5Gi}}}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{app: {name}}}
  ports: [{{name: http, port: 80, targetPort: http}}]
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {{name: {name}}}
spec:
  scaleTargetRef: {{apiVersion: apps/v1, kind: StatefulSet, name: {name}}}
  minReplicas: 2
  maxReplicas: 16
  metrics: [{{type: Resource, resource: {{name: cpu, target: {{type: Utilization, averageUtilization: 60}}}}}}]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{name: {name}}}
spec: {{maxUnavailable: 1, selector: {{matchLabels: {{app: {name}}}}}}}
"""


def _deployment(name: str, version: str) -> dict[str, Any]:
    """An endpoint as leptonai 0.47 describes one (its ``LeptonDeployment``), each replica with a log of its own."""
    return {
        "metadata": {"name": name},
        "spec": {
            "container": {
                "image": f"{name}:{version}",
                "ports": [{"container_port": _PORT, "protocol": "TCP"}],
            },
            "resource_requirement": {
                "resource_shape": "cpu.small",
                "min_replicas": 2,
                "max_replicas": 16,
            },
            "health": {"liveness": {"initial_delay_seconds": 20}},
        },
    }


def _readme(name: str, version: str) -> str:
    return f"""# {name}, model {version}

    podman build -t {name}:{version} .
    podman run --read-only --cap-drop all -p 127.0.0.1:{_PORT}:{_PORT} -v {name}:/app/run/service {name}:{version}

Nobody may ask without a key: `lepton keys add RUN NAME` writes `RUN/service/keys.json`, which goes into the volume (or
into the secret that `kubernetes.yaml` names). The signature is checked at start against the key in the Containerfile.

Once the image is in a registry of yours, `lep endpoint create --file leptonai.json` makes an endpoint of it.

## Past one machine

No part of the service knows of another: replicas stand behind whatever balances load already (a Kubernetes Service, a
cloud's balancer), each with its own log; `lepton log` reads one, and Parquet exports are put together by their reader.

How many replicas for `R` requests a second? Measure `c`, the CPU seconds of one request on your machine
(`python -m tests.benchmarks serving`), and fill a core to 60 % at most, for waits grow like `1 / (1 - use)`:

    cores = R * c / 0.6

For R = 10,000 and c = 0.2 ms: 10,000 * 0.0002 / 0.6 = 3.3, so 4 cores; one more so that a machine may fail: 5 replicas
of one core each. Network: 10,000 * 2 kB = 20 MB/s. Disk: a kept prediction is about 0.5 kB, so 5 MB/s in all and 430 GB
a day: that, not the model, is what needs a plan. `--keep-days` bounds it.
"""
