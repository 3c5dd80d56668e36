"""What the service shows of itself: description, pages for programs, handlers as a class, a folder for an image."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
from importlib import metadata

import httpx
import pytest
import yaml

from lepton_lib.cases import load_case
from lepton_lib.errors import ParameterError, RunError
from lepton_lib.serving import container, signing
from lepton_lib.serving.handlers import Service, handler
from lepton_lib.serving.http import JSON
from lepton_lib.serving.page import _field
from tests.service import GOOD, call


def test_the_form_offers_not_knowing_only_where_a_gap_is_allowed():
    """A category that may be missing starts with *not known*; one that may not asks for a choice."""
    case = load_case("credit")
    for name, first in (("home", "not known"), ("records", "choose")):
        assert f'<option value="">{first}</option>' in _field(case.column(name), "rent")


@pytest.mark.no_cover
def test_whatever_the_description_allows_is_answered_as_it_says(app):
    """Requests made from the description, good and bad, get answers that conform to it, and never a 500."""
    import schemathesis  # here, for all workers would take seconds to import it
    from hypothesis import HealthCheck, Phase, given, settings
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    good_and_bad = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
    phases = [Phase.explicit, Phase.generate]
    many = settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        phases=phases,
        database=None,
    )
    asked = []

    def one(case):
        # What a row of floats or an Arrow stream must be, no JSON schema can say: most bytes are
        # refused there.
        unsaid = [] if case.media_type in (None, JSON) else [positive_data_acceptance]
        asked.append((case.path, case.call_and_validate(excluded_checks=unsaid).status_code))

    for operation in schemathesis.openapi.from_asgi("/openapi.json", app).get_all_operations():
        made = operation.ok()
        for mode in good_and_bad if made.path == "/v1/predict" else good_and_bad[:1]:
            many(given(case=made.as_strategy(generation_mode=mode))(one))()
    assert {200, 422} <= {status for path, status in asked if path == "/v1/predict"}
    assert {path for path, _ in asked} >= {
        "/v1/predict",
        "/v1/models",
        "/healthz",
        "/readyz",
        "/metrics",
    }
    assert len(asked) > 100


def test_the_description_is_drawn_without_the_network(app):
    """/docs and everything that it loads come from the service itself, with no script inside the page."""
    page = call(app, "GET", "/docs")
    assert page.status_code == 200
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert loaded
    for path in loaded:
        assert path.startswith(("/", "data:,"))
        if path.startswith("/"):
            assert call(app, "GET", path).status_code == 200
    assert not re.search(r"<script>|<style>|style=", page.text)
    assert call(app, "GET", "/static/swagger-ui.css").headers["content-type"].startswith("text/css")


# A service as a class


class Risk(Service):
    """Tells a risk."""

    def init(self):
        """Count the starts."""
        self.starts = getattr(self, "starts", 0) + 1

    @handler
    def predict(self, income: float, job: str = "none") -> dict[str, float]:
        """The risk of one applicant."""
        return {"risk": income * self.starts + len(job)}

    @handler("/about", method="GET")
    def about(self, detail: int = 0) -> str:
        """What this is."""
        return "risk" * (detail + 1)

    def helper(self):
        """No handler."""


@pytest.fixture
def risk():
    """Asks that service in this process, once it has started."""
    app = Risk().app()

    async def start():
        async with app.router.lifespan_context(app):
            pass

    asyncio.run(start())
    return lambda method, path, **options: call(app, method, path, **options)


def test_a_class_is_a_service(risk):
    """Methods marked as handlers answer under their names, after init; others don't; the description names them."""
    assert risk("POST", "/predict", json={"income": 2.0}).json() == {"risk": 6.0}
    assert risk("POST", "/predict", json={"income": 2.0, "job": ""}).json() == {"risk": 2.0}
    assert risk("GET", "/about", params={"detail": 1}).json() == "riskrisk"
    assert risk("POST", "/helper").status_code == 404
    schema = risk("GET", "/openapi.json").json()
    assert {
        path: next(iter(entry.values()))["operationId"] for path, entry in schema["paths"].items()
    } == {"/predict": "predict", "/about": "about"}
    fields = schema["components"]["schemas"]["Risk_predict"]
    assert fields["required"] == ["income"]
    assert fields["properties"]["income"]["type"] == "number"


@pytest.mark.parametrize(
    "body", [{"income": True}, {"income": "0.1"}, {"income": 1.0, "incme": 2}, {}, []]
)
def test_a_handlers_arguments_are_checked(risk, body):
    """A wrong type, an unknown or a missing argument is refused with 422."""
    assert risk("POST", "/predict", json=body).status_code == 422


def test_a_class_that_is_no_service_says_why():
    """Without handlers, without a type or with another method the class is refused; so is an address of others."""

    class Empty(Service):
        pass

    class Untyped(Service):
        @handler
        def predict(self, income):
            return income

    with pytest.raises(ParameterError, match="no handlers"):
        Empty().app()
    with pytest.raises(ParameterError, match=r"Untyped\.predict, argument 'income'"):
        Untyped().app()
    with pytest.raises(ParameterError, match="POST or GET"):
        handler(method="PUT")
    with pytest.raises(ParameterError, match="host"):
        Risk().launch(host="0.0.0.0")


def test_a_class_is_launched(tmp_path):
    """`launch` serves over a socket until it is ended."""
    program = (
        "from lepton_lib.serving.handlers import Service, handler\n"
        "class Echo(Service):\n    @handler\n    def say(self, word: str) -> str:\n        return word\n"
        "Echo().launch(port=0)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    try:
        port = re.search(r"Echo listens on port (\d+)", process.stderr.readline())[1]
        transport = httpx.HTTPTransport(retries=5)
        with httpx.Client(
            transport=transport, base_url=f"http://127.0.0.1:{port}", trust_env=False
        ) as client:
            assert client.post("/say", json={"word": "hello"}).json() == "hello"
    finally:
        process.terminate()
        process.communicate()


# A folder for an image


@pytest.fixture(scope="module")
def image(release, tmp_path_factory):
    """The folder that an image is built from."""
    folder = tmp_path_factory.mktemp("image") / "image"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEPTON_DATASETS", str(release))
        container.write_container(release / "run", folder)
        with pytest.raises(RunError, match="File exists"):
            container.write_container(release / "run", folder)
    return folder


def needed(names):
    """These distributions and all that they need."""
    closure, left = set(), list(names)
    while left:
        name = re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", left.pop())[0]).lower()
        if name not in closure:
            try:
                left += [need for need in metadata.requires(name) or () if "extra ==" not in need]
                closure.add(name)
            except metadata.PackageNotFoundError:  # for another system or version
                continue
    return closure


def test_the_image_answers_with_what_it_installs(image, tmp_path):
    """From the folder alone, and as if only requirements.txt were installed, the service answers in all forms."""
    image = shutil.copytree(image, tmp_path / "image")
    pins = (image / "requirements.txt").read_text().split()
    allowed = needed(pin.partition("==")[0] for pin in pins) | {"lepton-course"}
    program = """
import asyncio, json, sys
from importlib import metadata
allowed, owners = set(json.loads(sys.argv[4])), metadata.packages_distributions()
class Installed:  # as if nothing else were there
    def find_spec(self, name, path=None, target=None):
        given = {owner.lower().replace("_", "-") for owner in owners.get(name.partition(".")[0], [])}
        if given and not given & allowed:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Installed())
import httpx
from lepton_lib.serving import create_app
import lepton_lib
app = create_app(sys.argv[1], trust=[sys.argv[2]], workers=2)
async def ask():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://desk") as client:
        record = json.loads(sys.argv[3])
        replies = [await client.post("/v1/predict?explain=true", json={"records": [record]})]
        import pyarrow as pa, io
        sink, table = io.BytesIO(), pa.Table.from_pylist([{"age": 40.0, "colour": "red"}])
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        head = {"content-type": "application/vnd.apache.arrow.stream"}
        replies.append(await client.post("/v1/predict", content=sink.getvalue(), headers=head))
        replies += [await client.get(path) for path in ("/", "/docs", "/metrics", "/readyz", "/v1/models")]
        return [reply.status_code for reply in replies]
codes = asyncio.run(ask())
print(json.dumps([codes, lepton_lib.__file__]))
"""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            program,
            str(image / "run"),
            signing.public_key(),
            json.dumps(GOOD),
            json.dumps(sorted(allowed | needed(["httpx"]))),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=image,
        env={
            "PYTHONPATH": str(image),
            "LEPTON_DATASETS": str(image / "datasets"),
            "HOME": "/nonexistent",
            "PATH": "",
        },
    )
    assert done.returncode == 0, done.stderr
    codes, place = json.loads(done.stdout)
    assert codes == [200] * 7
    assert place.startswith(str(image))
    assert not {"torch", "pandas", "scikit-learn", "jupyterlab", "matplotlib"} & allowed


def test_the_containerfile_is_small_and_locked(image):
    """A slim base, a user without rights, a health check, keys demanded, the packager's key trusted, no private one."""
    text = (image / "Containerfile").read_text()
    lines = dict(
        line.split(" ", 1) for line in text.splitlines() if line[:1].isupper() and " " in line
    )
    assert lines["FROM"].endswith("-slim")
    assert int(lines["USER"]) > 1000
    assert text.index("USER") < text.index("CMD [")
    command = json.loads(lines["CMD"])
    assert command[-3:] == ["--trust", signing.public_key(), "--require-key"]
    assert "/healthz" in lines["HEALTHCHECK"]
    for source in re.findall(r"^COPY (?:--\S+ )?(\S+) ", text, re.M):
        assert (image / source).exists()
    names = {path.name for path in image.rglob("*")}
    assert not {"signing.key", "keys.json", "predictions.sqlite", "table.csv"} & names


def test_the_kubernetes_manifest_states_what_must_be_stated(image):
    """Probes, limits, autoscaling and a locked container are in the manifest, and its names fit together."""
    stateful, service, scaler, budget = yaml.safe_load_all((image / "kubernetes.yaml").read_text())
    pod = stateful["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    (main,) = pod["containers"]
    for part in (main, *pod["initContainers"]):
        locked = part["securityContext"]
        assert (locked["readOnlyRootFilesystem"], locked["allowPrivilegeEscalation"]) == (
            True,
            False,
        )
        assert locked["capabilities"] == {"drop": ["ALL"]}
        assert (
            {"cpu", "memory"}
            == set(part["resources"]["limits"])
            == set(part["resources"]["requests"])
        )
    assert main["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert (
        main["livenessProbe"]["httpGet"]["path"]
        == main["startupProbe"]["httpGet"]["path"]
        == "/healthz"
    )
    volumes = {entry["name"] for entry in pod["volumes"]}
    volumes |= {entry["metadata"]["name"] for entry in stateful["spec"]["volumeClaimTemplates"]}
    assert {
        mount["name"] for part in (main, *pod["initContainers"]) for mount in part["volumeMounts"]
    } <= volumes
    labels = stateful["spec"]["template"]["metadata"]["labels"]
    for selector in (service["spec"]["selector"], budget["spec"]["selector"]["matchLabels"]):
        assert selector.items() <= labels.items()
    assert scaler["spec"]["scaleTargetRef"]["name"] == stateful["metadata"]["name"]
    assert scaler["spec"]["maxReplicas"] > scaler["spec"]["minReplicas"] >= 2
