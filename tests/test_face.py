"""What the service shows: description, pages, handlers as a class, a folder for an image."""

import json
import re
import shutil
import subprocess
import sys
from importlib import metadata

import httpx
import pytest
import yaml
from typer.testing import CliRunner

from lepton_lib import cli
from lepton_lib.cases import encode_records, load_case
from lepton_lib.cases.records import example_record
from lepton_lib.errors import ParameterError, RunError
from lepton_lib.serving import api_keys, container, log_maintenance, problems, signing
from lepton_lib.serving.handlers import Service, handler
from lepton_lib.utils import render
from tests.service import GOOD, call, refresh


def test_the_form_offers_not_knowing_only_where_a_gap_is_allowed():
    """A category starts with *not known* where it may be missing, else it asks for a choice."""
    case = load_case("credit")
    page = render(
        "serving/templates/form.html",
        case=case,
        version="1",
        example=example_record(case),
        key=False,
    )
    for name, first in (("home", "not known"), ("records", "choose")):
        assert re.search(f'id="f-{name}"[^>]*><option value="">{first}</option>', page)


def test_the_example_is_a_typical_record():
    """Of raw rows the example has the median of each number and the most frequent category."""
    case = load_case("credit")
    records = [
        {**example_record(case), "age": age, "home": home, "income": income}
        for age, home, income in ((20, "rent", None), (31, "rent", 90), (90, "owner", None))
    ]
    example = example_record(case, encode_records(case, records))
    assert (example["age"], example["home"], example["income"]) == (31, "rent", 90)
    assert encode_records(case, [example]).shape == (1, len(case.fields))


@pytest.mark.no_cover
def test_whatever_the_description_allows_is_answered_as_it_says(app):
    """Requests made from the description, good and bad, get answers that conform to it; no 500."""
    import schemathesis  # here: at the top every worker would spend seconds on it
    from hypothesis import HealthCheck, Phase, given, settings

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
        asked.append((case.path, case.call_and_validate().status_code))

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
    """/docs and all that it loads come from the service itself, with no script in the page."""
    page = call(app, "GET", "/docs")
    assert page.status_code == 200
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert loaded
    for path in loaded:
        assert path.startswith("/")
        assert call(app, "GET", path).status_code == 200
    assert not re.search(r"<script>|<style>|style=", page.text)
    assert call(app, "GET", "/static/swagger-ui.css").headers["content-type"].startswith("text/css")


# A service as a class


class Risk(Service):
    """Tells a risk."""

    version = "7"

    def init(self):
        """Count the starts."""
        self.starts = getattr(self, "starts", 0) + 1

    @handler
    def predict(self, income: float, job: str = "none") -> dict[str, float]:
        """The risk of one applicant."""
        if job == "secret":
            raise KeyError(job)
        return {"risk": income * self.starts + len(job)}

    @handler("/about", method="GET")
    async def about(self, detail: int = 0) -> str:
        """What this is."""
        return "risk" * (detail + 1)

    def helper(self):
        """No handler."""


@pytest.fixture
def stored(tmp_path):
    """That service with a folder for keys and log, in which `init` has run."""
    service = Risk()
    service.init()
    app = service.app(tmp_path / "risk")
    yield app
    app.log.close()


@pytest.fixture
def risk():
    """Asks that service in this process, once it has started."""
    service = Risk()
    service.init()
    app = service.app()
    return lambda method, path, **options: call(app, method, path, **options)


def test_a_class_is_a_service(risk):
    """Marked methods answer under their names, others don't; the description names them."""
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
    ("body", "field"),
    [
        ({"income": True}, "income"),
        ({"income": "0.1"}, "income"),
        ({"income": 1.0, "incme": 2}, "incme"),
        ({}, "income"),
        ([], ""),
    ],
)
def test_a_handlers_arguments_are_checked(risk, body, field):
    """A wrong type, an unknown or a missing argument is refused as a problem with its field."""
    reply = risk("POST", "/predict", json=body)
    assert (reply.status_code, reply.headers["content-type"]) == (422, "application/problem+json")
    assert (reply.json()["field"], reply.json()["status"]) == (field, 422)


def test_a_class_is_guarded_as_a_table_is(risk, caplog):
    """Ids, security headers, problems, the body limit and the log line without inputs are there."""
    with caplog.at_level("INFO", "lepton.serving"):
        reply = risk("POST", "/predict", json={"income": 2.5}, headers={"x-request-id": "r-1"})
        failed = risk("POST", "/predict", json={"income": 2.5, "job": "secret"})
    assert reply.headers["x-request-id"] == "r-1"
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    assert (failed.status_code, "secret" in failed.text + caplog.text) == (500, False)
    lines = [json.loads(message) for message in caplog.messages]
    assert {"request_id": "r-1", "route": "/predict", "status": 200}.items() <= lines[0].items()
    assert risk("POST", "/predict", content=b" " * (2 << 20)).status_code == 413
    assert risk("DELETE", "/predict").json()["status"] == 405
    for path, status in (("/healthz", "ok"), ("/readyz", "ready")):
        assert risk("GET", path).json() == {"status": status}
    text = risk("GET", "/metrics").text
    assert 'lepton_requests_total{route="/predict",status="200"} 1.0' in text
    assert 'lepton_predictions_total{decision="predict"} 1.0' in text


def test_what_a_class_answers_is_stored(stored, tmp_path):
    """Arguments and result of each call are in the log under the request's id and the version."""
    headers = {"x-request-id": "r-2"}
    assert call(stored, "POST", "/predict", json={"income": 2.0}, headers=headers).is_success
    assert call(stored, "GET", "/about", params={"detail": 0}).is_success
    assert call(stored, "POST", "/predict", json={"income": True}).status_code == 422
    (row,) = log_maintenance.find(stored.log.path, "r-2")
    assert (row.inputs, row.model_version) == ({"income": 2.0, "job": "none"}, "7")
    assert row.answer == {"handler": "predict", "result": {"risk": 6.0}}
    done = CliRunner().invoke(cli.app, ["log", str(tmp_path / "risk"), "--find", "r-2"])
    assert json.loads(done.stdout)[0]["inputs"] == {"income": 2.0, "job": "none"}
    assert log_maintenance.keep_days(stored.log.path, 0) == 2


class Desk(Service):
    """Answers a question about a person, and shows a page."""

    @handler("/v1/assist", keep=["topic"])
    def assist(self, topic: str, name: str) -> str:
        """An answer."""
        return f"{topic}, {name}"


def test_a_class_keeps_what_it_names_and_shows_pages_to_anyone(tmp_path):
    """Arguments that ``keep`` leaves out aren't stored; pages and /docs need no key, calls do."""
    (tmp_path / "desk.html").write_text("<h1>Ask</h1>")
    service = Desk()
    service.pages = {"/": tmp_path / "desk.html"}
    (tmp_path / "desk" / "service").mkdir(parents=True)
    key = api_keys.add_key(api_keys.keys_file(tmp_path / "desk"), "one")
    app = service.app(tmp_path / "desk")
    asked = {"json": {"topic": "rate", "name": "Ana"}, "headers": {"x-request-id": "r-3"}}
    assert call(app, "POST", "/v1/assist", **asked).status_code == 401
    asked["headers"]["x-api-key"] = key
    assert call(app, "POST", "/v1/assist", **asked).json() == "rate, Ana"
    (row,) = log_maintenance.find(app.log.path, "r-3")
    assert row.inputs == {"topic": "rate"}
    page = call(app, "GET", "/")
    assert (page.text, page.headers["content-type"][:9]) == ("<h1>Ask</h1>", "text/html")
    docs = call(app, "GET", "/docs").text
    for script in re.findall(r"src=\"([^\"]+)\"", docs):
        assert call(app, "GET", script).status_code == 200
    app.log.close()


def test_what_a_class_cannot_store_is_not_given(stored):
    """With a log that can't be written to a call gets 503, and the service isn't ready."""
    stored.log.path.rename(stored.log.path.with_suffix(".away"))
    for method, path in (("POST", "/predict"), ("GET", "/readyz")):
        reply = call(stored, method, path, json={"income": 2.0} if method == "POST" else None)
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")


def test_a_class_demands_the_keys_of_its_folder(stored, tmp_path):
    """With a key in the folder handlers and metrics need it, at its rate; health doesn't."""
    key = api_keys.add_key(api_keys.keys_file(tmp_path / "risk"), "one", rate=2)
    refresh(stored)
    for path, status in (("/about", 401), ("/metrics", 401), ("/nope", 401), ("/healthz", 200)):
        assert call(stored, "GET", path).status_code == status
    headers = {"x-api-key": key}
    replies = [call(stored, "GET", "/about", headers=headers).status_code for _ in range(4)]
    assert (replies[0], replies[-1]) == (200, 429)


def test_a_class_that_is_no_service_says_why(tmp_path):
    """Without handlers, a type or a known method it is refused; other addresses need keys."""

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
    for folder in (None, tmp_path):
        with pytest.raises(RunError, match=r"refusing to bind to 0\.0\.0\.0 without API keys"):
            Risk().launch(host="0.0.0.0", folder=folder)


def test_a_class_is_launched(tmp_path):
    """`launch` runs `init`, and serves over a socket until it is ended."""
    program = (
        "from lepton_lib.serving.handlers import Service, handler\n"
        "class Echo(Service):\n"
        "    def init(self):\n        self.mark = '!'\n"
        "    @handler\n"
        "    def say(self, word: str) -> str:\n        return word + self.mark\n"
        "Echo().launch(port=0, folder='echo')\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    try:
        url = json.loads(process.stderr.readline())["url"]
        transport = httpx.HTTPTransport(retries=5)
        with httpx.Client(transport=transport, base_url=url, trust_env=False) as client:
            assert (
                client.post("/say", json={"word": "hello"}, headers={"x-request-id": "r-3"}).json()
                == "hello!"
            )
    finally:
        process.terminate()
        process.communicate()
    assert len(log_maintenance.find(tmp_path / "echo/service/predictions.sqlite", "r-3")) == 1


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
    """From the folder alone, as if only requirements.txt were installed, the service answers."""
    image = shutil.copytree(image, tmp_path / "image")
    pins = (image / "requirements.txt").read_text().split()
    allowed = needed(pin.partition("==")[0] for pin in pins) | {"lepton-course"}
    program = """
import asyncio, json, sys
from importlib import metadata
allowed, owners = set(json.loads(sys.argv[4])), metadata.packages_distributions()
class Installed:  # as if nothing else were there
    def find_spec(self, name, path=None, target=None):
        owned = owners.get(name.partition(".")[0], [])
        given = {owner.lower().replace("_", "-") for owner in owned}
        if given and not given & allowed:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Installed())
import httpx
from lepton_lib.serving import create_app
import lepton_lib
app = create_app(sys.argv[1], trust=[sys.argv[2]], workers=2)
async def ask():
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        record = json.loads(sys.argv[3])
        replies = [await client.post("/v1/predict?explain=true", json={"records": [record]})]
        for path in ("/", "/docs", "/metrics", "/readyz", "/v1/models"):
            replies.append(await client.get(path))
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
    assert codes == [200] * 6
    assert place.startswith(str(image))
    assert not {"torch", "pandas", "scikit-learn", "jupyterlab", "matplotlib"} & allowed


def test_the_containerfile_is_small_and_locked(image):
    """A slim base, a user without rights, a health check, keys demanded, one key trusted."""
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
    """Probes, limits, autoscaling and a locked container are there, and the names fit together."""
    stateful, service, pods, scaler, budget = yaml.safe_load_all(
        (image / "kubernetes.yaml").read_text()
    )
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
    assert (pods["metadata"]["name"], pods["spec"]["clusterIP"]) == (
        stateful["spec"]["serviceName"],
        "None",
    )
    (_, pause) = main["lifecycle"]["preStop"]["exec"]["command"]
    assert pod["terminationGracePeriodSeconds"] > int(pause) + problems.ANSWER_SECONDS
    assert {"name": "keys", "mountPath": "/keys", "readOnly": True} in main["volumeMounts"]
    lepton = json.loads((image / "leptonai.json").read_text())
    assert lepton["spec"]["mounts"][0]["mount_path"] == "/keys"
    assert "ln -s /keys/keys.json run/service/keys.json" in (image / "Containerfile").read_text()
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
