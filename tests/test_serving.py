"""The service: what it packages, verifies, answers, refuses and keeps."""

import asyncio
import contextlib
import json
import logging
import re
import sqlite3
import subprocess
import sys
import time
from html.parser import HTMLParser

import httpx
import numpy as np
import pandas as pd
import pytest

from lepton_lib import serving
from lepton_lib.cases import encode_records, load_case
from lepton_lib.data import to_records
from lepton_lib.errors import DataError, RunError
from lepton_lib.models import load_model
from lepton_lib.serving import packaging
from lepton_lib.serving.codec import expand
from lepton_lib.serving.middleware import BODY_LIMIT
from lepton_lib.serving.routes import ROUTES
from lepton_lib.serving.scoring import FILES, version_of
from tests.conftest import write_case
from tests.service import (
    COLUMNS,
    GATE,
    GOOD,
    JSON,
    METRICS,
    ask,
    call,
    kept,
    some_inputs,
    write_release,
)


def test_answers_are_those_of_the_model_in_torch(app, run):
    """Probabilities over HTTP equal torch's to 1e-6, missing values and every category included."""
    case = app.scorer.case
    model = load_model(
        weights=run / "service/model.safetensors", config=run / "service/config.json"
    )
    records = [
        {
            "age": 18 + i,
            "income": None if i % 3 == 0 else i * 1e3,
            "colour": COLUMNS[2]["categories"][i % 2],
        }
        for i in range(60)
    ]
    predictions = ask(app, *records).json()["predictions"]
    answers = np.array([[p["probabilities"][name] for name in case.classes] for p in predictions])
    assert np.abs(answers - model.predict(encode_records(case, records))).max() <= 1e-6
    assert np.ptp(answers[:, 1]) > 0.1


def test_the_decision_costs_least_and_the_band_follows_its_limits(app):
    """The decision has the least expected cost; a limit opens the band above it."""
    rows = np.array([[0.76, 0.24], [0.74, 0.26], [0.7, 0.3], [0.5, 0.5]])
    app.scorer.probabilities = lambda _: rows
    answers = [(a["class"], a["action"], a["band"]) for a in app.scorer.score([GOOD])]
    assert answers == [
        ("no", "grant", "low"),
        ("yes", "refuse", "low"),
        ("yes", "refuse", "medium"),
        ("yes", "refuse", "high"),
    ]


def test_one_record_and_many_get_the_same_answers(app):
    """A record's answer doesn't depend on its company, and answers keep the records' order."""
    records = [GOOD | {"age": age} for age in (20, 50, 80)]
    many = [p["probabilities"] for p in ask(app, *records).json()["predictions"]]
    single = [ask(app, record).json()["predictions"][0]["probabilities"] for record in records]
    for one, other in zip(many, single, strict=True):
        assert one == pytest.approx(other, abs=1e-6)
    assert len({row["yes"] for row in many}) == 3


@pytest.mark.parametrize("kind", ["regression", "multiclass"])
def test_a_number_or_several_classes_are_answered(tmp_path, kind):
    """A regression answers with a number and its unit; without costs the likeliest class wins."""
    classes = [] if kind == "regression" else [{"name": n, "values": [n]} for n in ("a", "b", "c")]
    metric = "mean_absolute_error" if kind == "regression" else "accuracy"
    charter = {
        "criteria": {
            metric: {"at_most" if kind == "regression" else "at_least": 0.5, "why": "none"}
        }
    }
    target = {"classes": classes, "unit": "cars"}
    folder = write_case(tmp_path / "other", task=kind, target=target, charter=charter)
    case = load_case(folder)
    model = write_release(tmp_path / "run", case, margin=2.5)
    scorer = serving.Scorer(tmp_path / "run" / "service", case=case)
    inputs = some_inputs(case)
    assert serving.check_parity(model, scorer, inputs) <= 1e-6
    answer = scorer.score([{"x": 50, "colour": "red"}])[0]
    if kind == "regression":
        assert set(answer) == {"prediction", "unit", "interval"}
        assert answer["interval"] == (answer["prediction"] - 2.5, answer["prediction"] + 2.5)
        stored = expand(scorer.codec.form, b"[]", scorer.answer(inputs).tobytes())
        assert stored[1] == scorer.codec.answers.plain(scorer.answer(inputs))
        assert answer["unit"] == "cars"
    else:
        assert answer["class"] == max(answer["probabilities"], key=answer["probabilities"].get)


def body(**changes):
    """A request's body, a value of it replaced by a piece of JSON as it stands."""
    text = json.dumps({"records": [GOOD | dict.fromkeys(changes, "@@")]})
    for value in changes.values():
        text = text.replace('"@@"', value, 1)
    return text


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (body(age="true"), "age"),
        (body(age='"0.1"'), "age"),
        (body(age="NaN"), "age"),
        (body(income="Infinity"), "income"),
        (body(income="-Infinity"), "income"),
        (body(income="1e999"), "income"),
        (body(income="1e39"), "income"),
        (body(income="9" * 400), "income"),
        (body(income="9" * 5000), "income"),
        (body(age="17.9"), "age"),
        (body(age="null"), "age"),
        (body(age="[42]"), "age"),
        (body(colour='"green"'), "colour"),
        (body(colour='"\\ud800"'), "colour"),
        (body(colour="0"), "colour"),
        (body(when='"yesterday"'), "when"),
        (body(when="1519891200"), "when"),
        (body(shoe="43"), "shoe"),
        (json.dumps({"records": [{k: v for k, v in GOOD.items() if k != "colour"}]}), "colour"),
        ('{"records": []}', "records"),
    ],
)
def test_a_wrong_value_is_refused_with_its_field(app, content, field):
    """A refused value gets 422 as problem+json with field, got and expected, and isn't stored."""
    reply = call(app, "POST", "/v1/predict", content=content, headers=JSON)
    problem = reply.json()
    assert (reply.status_code, reply.headers["content-type"]) == (422, "application/problem+json")
    assert problem["field"] == field
    assert {"title", "detail", "got", "expected", "request_id"} <= set(problem)
    assert kept(app).empty


def test_the_record_at_fault_is_named(app):
    """Among many records the problem says which one, counted from 0, and no other is kept."""
    assert ask(app, GOOD, GOOD, GOOD | {"age": 3}).json()["record"] == 2
    assert kept(app).empty


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b'{"records": [', 400),
        (b'\xef\xbb\xbf{"records": []}', 400),
        (json.dumps({"records": [GOOD]}).encode("utf-16"), 400),
        (b'{"records": [{"colour": "\xff"}]}', 400),
        (b'{"records": [{"age": ' + b"[" * 100_000 + b"]" * 100_000 + b"}]}", 400),
        (b"[]", 422),
        (b"null", 422),
        (b'{"records": {}}', 422),
        (b'{"records": [1]}', 422),
        (b'{"rows": []}', 422),
        (b'{"records": [{}], "more": 1}', 422),
        (b'{"records": [' + b"{}," * 5000 + b"{}]}", 422),
    ],
)
def test_a_body_of_another_form_is_refused(app, content, status):
    """What isn't JSON gets 400, JSON of another form 422, and both say what was expected."""
    reply = call(app, "POST", "/v1/predict", content=content, headers=JSON)
    assert reply.status_code == status
    assert reply.json()["expected"]


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", JSON, 405),
        ("PUT", JSON, 405),
        ("OPTIONS", JSON, 405),
        ("POST", {"content-type": "text/plain"}, 415),
        ("POST", {"content-type": "application/json; charset=latin-1"}, 415),
        ("POST", {}, 415),
        ("POST", JSON | {"content-encoding": "gzip"}, 415),
    ],
)
def test_another_method_or_type_is_refused(app, method, headers, status):
    """Only a POST of plain JSON is read; 405 names the method that is allowed."""
    reply = call(
        app, method, "/v1/predict", content=json.dumps({"records": [GOOD]}), headers=headers
    )
    assert reply.status_code == status
    assert reply.headers.get("allow") == ("POST" if status == 405 else None)


def test_a_body_that_says_it_is_too_long_is_not_read(app):
    """413 is sent before anything of a body that announces more than the limit is taken in."""
    events = []

    async def receive():
        events.append("read")
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        events.append(message.get("status", "body"))

    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(BODY_LIMIT + 1).encode()),
    ]
    asyncio.run(
        app(
            {"type": "http", "method": "POST", "path": "/v1/predict", "headers": headers},
            receive,
            send,
        )
    )
    assert events[:2] == [413, "body"]


def test_a_body_that_grows_too_long_is_refused_while_it_is_read(app):
    """A body without a length is refused over the limit, its rest read and forgotten."""
    taken = []

    async def long():
        for _ in range(40):
            taken.append(1)
            yield b" " * (1 << 16)

    assert call(app, "POST", "/v1/predict", content=long(), headers=JSON).status_code == 413
    assert len(taken) == 40


def test_a_client_that_goes_away_gets_nothing(app):
    """A request whose client disconnects while it is read is neither answered nor kept."""
    sent = []

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    headers = [(b"content-type", b"application/json")]
    asyncio.run(
        app(
            {"type": "http", "method": "POST", "path": "/v1/predict", "headers": headers},
            receive,
            send,
        )
    )
    assert sent == []
    assert kept(app).empty


def test_the_request_id_comes_back(app):
    """A well-formed request id is echoed in header, body and log; otherwise one is made."""
    reply = ask(app, GOOD, **{"x-request-id": "desk-7"})
    assert (reply.headers["x-request-id"], reply.json()["request_id"]) == ("desk-7", "desk-7")
    assert list(kept(app)["log.request_id"]) == ["desk-7"]
    assert ask(app, {}, **{"x-request-id": "desk-8"}).json()["request_id"] == "desk-8"
    assert re.fullmatch(
        "[0-9a-f]{16}", ask(app, GOOD, **{"x-request-id": "a b"}).headers["x-request-id"]
    )
    assert len({call(app, "GET", "/healthz").headers["x-request-id"] for _ in range(3)}) == 3


def test_an_answer_is_kept_before_it_is_given(app):
    """When the first byte of an answer is sent, the prediction already lies in the file."""
    seen = []
    content = json.dumps({"records": [GOOD]}).encode()

    async def receive():
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(message):
        seen.append((message["type"], len(kept(app))))

    headers = [(b"content-type", b"application/json")]
    asyncio.run(
        app(
            {"type": "http", "method": "POST", "path": "/v1/predict", "headers": headers},
            receive,
            send,
        )
    )
    assert seen[0] == ("http.response.start", 1)


@contextlib.contextmanager
def locked(log):
    other = sqlite3.connect(log.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.close()


@contextlib.contextmanager
def read_only(log):
    log._connection.execute("PRAGMA query_only = 1")
    yield
    log._connection.execute("PRAGMA query_only = 0")


@contextlib.contextmanager
def full(log):
    # SQLite takes the present size for the least
    log._connection.execute("PRAGMA max_page_count = 1")
    yield
    log._connection.execute("PRAGMA max_page_count = 1000000")


@contextlib.contextmanager
def removed(log):
    log.path.rename(log.path.with_suffix(".away"))
    yield
    log.path.with_suffix(".away").rename(log.path)


@pytest.mark.parametrize("trouble", [locked, read_only, full, removed])
def test_what_cannot_be_kept_is_not_answered(app, trouble):
    """With a log that is locked, read-only, full or gone: 503; afterwards the service goes on."""
    many = [GOOD] * 2000  # more than the free pages hold
    with trouble(app.log):
        reply = ask(app, *many)
        assert reply.status_code == 503
        assert reply.headers["retry-after"] == "1"
        assert "predictions" not in reply.json()
        assert call(app, "GET", "/healthz").status_code == 200
        if trouble in (locked, removed):  # the others trouble the service's connection alone
            assert call(app, "GET", "/readyz").status_code == 503
    assert kept(app).empty
    assert ask(app, GOOD).status_code == 200
    assert call(app, "GET", "/readyz").status_code == 200


def test_other_addresses_are_problems_too(app):
    """An unknown address is 404, another method 405, both as problem+json."""
    for method, path, status in [
        ("GET", "/nope", 404),
        ("GET", "/redoc", 404),
        ("POST", "/healthz", 405),
        ("GET", "/healthz/", 404),
    ]:
        reply = call(app, method, path)
        assert (reply.status_code, reply.headers["content-type"]) == (
            status,
            "application/problem+json",
        )
        assert reply.json()["request_id"] == reply.headers["x-request-id"]


def test_every_answer_carries_the_security_headers(app):
    """Every answer forbids sniffing, framing, caching and foreign content."""
    for path in [*ROUTES, "/nope"]:
        headers = call(app, "GET", path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]


def test_metrics_count_requests_and_predictions(app):
    """/metrics counts routes by status, and decisions; unknown routes share a label."""
    ask(app, GOOD, GOOD)
    ask(app, {})
    call(app, "GET", "/secret-7")
    text = call(app, "GET", "/metrics").text
    assert 'lepton_requests_total{route="/v1/predict",status="200"} 1.0' in text
    assert 'lepton_requests_total{route="/v1/predict",status="422"} 1.0' in text
    assert 'lepton_requests_total{route="other",status="404"} 1.0' in text
    assert "secret-7" not in text
    assert sum(float(n) for n in re.findall(r"lepton_predictions_total\{.*\} (\S+)", text)) == 2
    assert f'lepton_model{{case="desk",version="{app.scorer.version}"}} 1.0' in text


def test_the_model_describes_itself(app):
    """/v1/models names case, version, task and measured quality."""
    entry = call(app, "GET", "/v1/models").json()["models"][0]
    assert (entry["case"], entry["version"], entry["metrics"]) == (
        "desk",
        app.scorer.version,
        METRICS,
    )


def test_openapi_states_ranges_units_and_categories(app):
    """The description of a record holds what case.toml says of its fields."""
    operation = call(app, "GET", "/openapi.json").json()["paths"]["/v1/predict"]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    record = content["schema"]["properties"]["records"]["items"]
    age, income, colour = (record["properties"][name] for name in ("age", "income", "colour"))
    assert (age["type"], age["minimum"], age["maximum"], age["x-unit"]) == (
        "number",
        18,
        99,
        "years",
    )
    assert income["type"] == ["number", "null"]
    assert colour["enum"] == COLUMNS[2]["categories"]
    assert record["required"] == ["age", "colour"]
    assert record["additionalProperties"] is False
    assert call(app, "POST", "/v1/predict", json=content["example"]).status_code == 200


class Page(HTMLParser):
    """What stands in a page: its elements, and which controls have labels."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.labels, self.controls = [], set(), {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        """Note an element."""
        self.elements.append((tag, dict(attrs)))
        if tag == "label":
            self.labels.add(dict(attrs)["for"])
        if tag in ("input", "select"):
            self.controls[dict(attrs)["id"]] = dict(attrs)


def test_the_form_has_a_labelled_control_for_every_input(app):
    """The form holds each input of the case with its label, range and hint."""
    page = Page(call(app, "GET", "/").text)
    assert page.labels == set(page.controls) == {f"f-{column['name']}" for column in COLUMNS}
    ids = {attributes.get("id") for _, attributes in page.elements}
    assert all(control["aria-describedby"] in ids for control in page.controls.values())
    assert (page.controls["f-age"]["min"], page.controls["f-age"]["max"]) == ("18", "99")
    assert {name for name, control in page.controls.items() if "required" in control} == {
        "f-age",
        "f-colour",
    }


def test_the_form_shows_hostile_text_as_text(app):
    """Texts of case.toml can't become elements; nothing runs inline or comes from elsewhere."""
    text = call(app, "GET", "/").text
    page = Page(text)
    scripts = [attributes for tag, attributes in page.elements if tag == "script"]
    assert scripts == [{"src": "/static/form.js", "defer": None}]
    assert not [
        name for _, attributes in page.elements for name in attributes if name.startswith("on")
    ]
    assert not [tag for tag, attributes in page.elements if tag == "style" or "style" in attributes]
    assert "://" not in text
    assert "innerHTML" not in call(app, "GET", "/static/form.js").text
    assert call(app, "GET", "/static/form.js").headers["content-type"].startswith("text/javascript")
    assert call(app, "GET", "/static/form.css").headers["content-type"].startswith("text/css")


def test_the_services_own_log_holds_no_inputs(app, caplog):
    """Each request leaves a line with id, route and status, and nothing of its body."""
    with caplog.at_level(logging.DEBUG):
        ask(app, GOOD)
        ask(app, GOOD | {"age": 42.126e3})
        ask(app, GOOD | {"shoe_size": 1})
        call(app, "GET", "/who?age=42.125")
        with locked(app.log):
            ask(app, GOOD)
    lines = [
        json.loads(record.message) for record in caplog.records if record.name == "lepton.serving"
    ]
    assert [line["status"] for line in lines if line["event"] == "request"] == [
        200,
        422,
        422,
        404,
        503,
    ]
    assert not re.search(
        r"42\.12|42126|shoe_size|who|'red'|coin", "\n".join(json.dumps(line) for line in lines)
    )


def test_a_failure_inside_tells_the_client_nothing(app, caplog, monkeypatch):
    """An exception becomes a bare 500 with the request id; the log has its type and place."""

    def fail(_):
        raise ValueError("the applicant earns 12345")

    monkeypatch.setattr(app.scorer, "answer", fail)
    with caplog.at_level(logging.INFO):
        reply = ask(app, GOOD)
    assert reply.status_code == 500
    assert reply.headers["content-type"] == "application/problem+json"
    assert "12345" not in reply.text + caplog.text
    assert "ValueError" in caplog.text
    assert "test_serving.py" in caplog.text


def test_an_answer_that_is_no_number_is_not_given(app):
    """A model that gives NaN leads to 500, not to a prediction."""

    class Broken:
        def run(self, *_):
            return [np.array([[np.nan, np.nan]], dtype=np.float32)]

    app.scorer._session = Broken()
    assert ask(app, GOOD).status_code == 500
    assert kept(app).empty


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_or_a_missing_file_is_refused_by_name(run, name):
    """The service doesn't start with a file that was changed or taken away, and says which."""
    path = run / "service" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match=f"{re.escape(name)}: got sha256"):
        serving.create_app(run)
    path.unlink()
    with pytest.raises(RunError, match=f"{re.escape(name)}: got no file"):
        serving.create_app(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m | {"version": "000000000000"}, "doesn't follow"),
        (
            lambda m: m | {"files": {k: v for k, v in m["files"].items() if k != "card.md"}},
            "doesn't follow",
        ),
        (lambda m: m | {"files": {**m["files"], "../x": "0"}}, "doesn't follow"),
        (lambda m: {k: v for k, v in m.items() if k != "contract"}, "no service's manifest"),
        (lambda _: [], "no service's manifest"),
    ],
)
def test_an_edited_manifest_is_refused(run, change, message):
    """A manifest whose version, files or keys were changed is not believed."""
    path = run / "service" / "manifest.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(RunError, match=message):
        serving.Scorer(run / "service")


def test_no_manifest_names_the_notebook_that_makes_it(run):
    """A run folder without a service says which notebook to run."""
    (run / "service" / "manifest.json").unlink()
    with pytest.raises(RunError, match="04_deployment"):
        serving.create_app(run)


def test_a_case_that_has_changed_since_is_refused(run):
    """Other categories would change what codes mean and are refused; a better wording is not."""
    file = run.parent / "desk" / "case.toml"
    text = file.read_text()
    file.write_text(text.replace("what comes in", "what comes in each month"))
    assert serving.Scorer(run / "service").case.column("income").meaning.endswith("each month")
    file.write_text(text.replace('["red", ', '["grey", "red", '))
    with pytest.raises(RunError, match=r"desk/case\.toml"):
        serving.Scorer(run / "service")


def test_the_version_follows_from_the_content(release, tmp_path):
    """The same model gets the same version; another file or rule of the case, another."""
    write_release(tmp_path, load_case(release / "desk"))
    manifest, again = (
        json.loads((folder / "service/manifest.json").read_text())
        for folder in (release / "run", tmp_path)
    )
    assert again.pop("packaged") > manifest.pop("packaged")
    assert again == manifest
    files, contract = manifest["files"], manifest["contract"]
    assert version_of(files, contract) == manifest["version"]
    assert version_of(files | {"model.onnx": "0" * 64}, contract) != manifest["version"]
    assert version_of(files, "0" * 64) != manifest["version"]


def test_a_graph_that_is_not_the_model_fails_the_comparison(run, monkeypatch):
    """Parity holds for the packaged model and raises for one whose weights differ."""
    model = load_model(
        weights=run / "service/model.safetensors", config=run / "service/config.json"
    )
    scorer = serving.Scorer(run / "service")
    inputs = some_inputs(scorer.case)
    apart = serving.check_parity(model, scorer, inputs)
    assert apart <= 1e-6
    monkeypatch.setattr(packaging, "TOLERANCE", apart)
    assert serving.check_parity(model, scorer, inputs) == apart, (
        "as much as the tolerance is tolerated"
    )
    monkeypatch.undo()
    model.temperature.mul_(1.01)
    with pytest.raises(RunError, match=r"model\.onnx: got answers that differ"):
        serving.check_parity(model, scorer, inputs)


def test_the_card_says_what_the_model_is_for(run):
    """The card holds question, quality, gate, inputs and what is stored; its tables stay whole."""
    card = (run / "service" / "card.md").read_text()
    for part in (
        "0.800, 95 % interval 0.700 to 0.900",
        "**Not passed.**",
        "a number from 18 to 99 (years)",
        "a \\| b",
        "predictions.sqlite",
        "none needed",
    ):
        assert part in card


def test_the_card_of_a_draft_says_that_nothing_was_judged(run):
    """A gate whose criteria nobody has agreed to is neither passed nor failed on the card."""
    case, metrics = serving.Scorer(run / "service").case, METRICS
    gate = {"passed": None, "criteria": [{**GATE["criteria"][0], "passed": None}]}
    card = serving.model_card(case, {"kind": "mlp"}, metrics, gate, {"models": []})
    assert "**Not judged**" in card
    assert "| not judged |" in card
    assert "assed." not in card


def test_the_scorer_needs_neither_torch_nor_pandas(run):
    """A fresh process answers without importing torch, pandas or the web framework."""
    code = (
        "import sys; from lepton_lib.serving import Scorer; s = Scorer(sys.argv[1]);"
        "a = s.score([{'age': 40, 'colour': 'red'}]); assert a[0]['class'] in ('no', 'yes');"
        "heavy = ('torch', 'pandas', 'sklearn', 'matplotlib', 'fastapi');"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(run / "service")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_a_service_beside_the_notebook_answers_and_survives_nothing(run):
    """A started service answers over a socket, stores its answers, and refuses 32 MB."""
    with serving.start(run) as service:
        with httpx.Client(base_url=service.url, trust_env=False) as client:
            prediction = client.post("/v1/predict", json={"records": [GOOD]}).json()["predictions"][
                0
            ]
            for content in (b" " * (32 << 20), (b" " * (1 << 20) for _ in range(32))):
                refusal = client.post("/v1/predict", content=content, headers=JSON)
                assert (refusal.status_code, refusal.json()["status"]) == (413, 413)
        service._process.kill()
        service._process.wait()
    assert not service.running
    log = serving.read_log(run / "service" / "predictions.sqlite", load_case(run.parent / "desk"))
    assert list(log.index) == [prediction["id"]]


def ends(url, seconds=10.0):
    """Whether nothing answers at ``url`` any more, within ``seconds``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            httpx.get(f"{url}/healthz", trust_env=False)
        except httpx.TransportError:
            return True
        time.sleep(0.05)
    return False


def test_a_service_ends_when_the_block_raises(run):
    """An exception inside the with block ends the process, in good order, and goes on."""

    def use():
        with serving.start(run) as service:
            started.append(service)
            raise KeyError("anything")

    started = []
    with pytest.raises(KeyError, match="anything"):
        use()
    assert started[0]._process.returncode == 0
    assert ends(started[0].url)


def test_a_service_ends_when_its_parent_is_killed(run):
    """A notebook's kernel that dies without a word takes its service with it."""
    code = (
        "import os, sys; from lepton_lib.serving import start; s = start(sys.argv[1]);"
        "print(s.url, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(run)], stdout=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == -9
    assert ends(done.stdout.strip())


def test_a_service_that_cannot_start_says_why(run):
    """A start that fails raises with the last lines of the process, which name the file."""
    (run / "service" / "model.onnx").write_bytes(b"")
    with pytest.raises(RunError, match=r"model\.onnx"):
        serving.start(run)


def test_a_taken_port_is_named(run):
    """Serving on a port in use is an error that says which address and what to do."""
    with serving.start(run) as service:
        port = int(service.url.rpartition(":")[2])
        with pytest.raises(RunError, match=f"port {port}: got"):
            serving.serve(run, port=port)
    with pytest.raises(RunError, match="port 70000"):
        serving.serve(run, port=70000)


@pytest.fixture
def log(tmp_path):
    """A log of this test's own."""
    made = serving.PredictionLog(tmp_path / "log.sqlite")
    yield made
    made.close()


ANSWER = {
    "class": "yes",
    "action": "refuse",
    "band": "high",
    "probabilities": {"no": 0.25, "yes": 0.75},
}


def test_a_log_is_read_back_as_a_clean_table(log, release):
    """Inputs come back typed, so that they encode as they were sent, with the answers."""
    case = load_case(release / "desk")
    records = [GOOD, {"age": 20, "colour": COLUMNS[2]["categories"][1], "when": None, "income": 5}]
    ids = log.append("r1", "v1", records, [ANSWER, ANSWER])
    frame = serving.read_log(log.path, case)
    assert list(frame.index) == ids
    assert np.array_equal(
        encode_records(case, to_records(frame, case)), encode_records(case, records), equal_nan=True
    )
    assert list(frame["answer.p_yes"]) == [0.75, 0.75]
    assert set(frame["log.model_version"]) == {"v1"}
    assert frame["log.time"].dt.tz is not None
    assert frame["target"].isna().all()


def test_labels_come_later(log, release):
    """A label is attached by prediction id; a later one replaces it."""
    case = load_case(release / "desk")
    first, second = log.append("r1", "v1", [GOOD, GOOD], [ANSWER, ANSWER])
    serving.attach_labels(log.path, {first: "no", second: "no"}, case)
    serving.attach_labels(log.path, {second: "yes"}, case)
    assert list(serving.read_log(log.path, case)["target"]) == [0.0, 1.0]


@pytest.mark.parametrize(
    ("labels", "message"), [({"nobody": "yes"}, "nobody"), ({"?": "perhaps"}, "perhaps")]
)
def test_labels_that_fit_nothing_are_refused_whole(log, release, labels, message):
    """With an unknown prediction or class among them, no label is noted."""
    case = load_case(release / "desk")
    (known,) = log.append("r1", "v1", [GOOD], [ANSWER])
    with pytest.raises(DataError, match=message):
        serving.attach_labels(log.path, {known: "yes"} | labels, case)
    assert serving.read_log(log.path, case)["target"].isna().all()


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        (
            {
                "columns": [
                    column | {"name": column["name"].replace("colour", "hue")} for column in COLUMNS
                ]
            },
            "['colour']",
        ),
        (
            {
                "target": {
                    "classes": [{"name": name, "values": [name]} for name in ("no", "perhaps")]
                }
            },
            "['no', 'yes']",
        ),
    ],
    ids=["column", "class"],
)
def test_a_log_of_other_names_is_refused(log, tmp_path, changes, names):
    """A class or column that was renamed in case.toml is named, not read as missing."""
    log.append("r1", "v1", [GOOD], [ANSWER])
    renamed = load_case(write_case(tmp_path / "renamed", **{"columns": COLUMNS} | changes))
    with pytest.raises(RunError, match=rf"log.sqlite: got the names {re.escape(names)}"):
        serving.read_log(log.path, renamed)


def test_an_empty_log_is_read_and_a_foreign_file_refused(log, release, tmp_path):
    """An empty log is an empty table with all columns; a file that is no log is an error."""
    case = load_case(release / "desk")
    empty = serving.read_log(log.path, case)
    assert isinstance(empty, pd.DataFrame)
    assert list(empty.columns[:5]) == ["age", "income", "colour", "when", "target"]
    (tmp_path / "foreign.sqlite").write_text("not a database, but long enough to look at " * 50)
    for name in ("foreign.sqlite", "none.sqlite"):
        with pytest.raises(RunError, match=name):
            serving.read_log(tmp_path / name, case)
    with pytest.raises(RunError, match="foreign"):
        serving.PredictionLog(tmp_path / "foreign.sqlite")


def test_a_prediction_is_kept_whole_or_not_at_all(log, release):
    """When one record of a request can't be written, none of them is."""
    with pytest.raises(TypeError):
        log.append("r1", "v1", [GOOD, {"age": object()}], [ANSWER, ANSWER])
    assert serving.read_log(log.path, load_case(release / "desk")).empty
