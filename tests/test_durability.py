"""What the service has answered is stored: through kill -9, full disks and years; or erased."""

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pandas as pd
import psutil
import pytest

from lepton_lib import serving
from lepton_lib.cli import main
from lepton_lib.errors import DataError, RunError
from lepton_lib.serving import log_maintenance, middleware
from tests.service import GOOD, JSON, ask, call, kept, serving_log

KILLS = 6


async def many(app, *requests):
    """The replies to requests that come in at once."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        return await asyncio.gather(
            *(client.post("/v1/predict", json={"records": list(r)}) for r in requests)
        )


def test_requests_of_one_tick_share_a_commit(app):
    """Requests that come in together share a transaction, each with ids of its own."""
    statements = []
    app.log._connection.set_trace_callback(statements.append)
    replies = asyncio.run(many(app, *[[GOOD]] * 20, [GOOD] * 3))
    app.log._connection.set_trace_callback(None)
    assert {reply.status_code for reply in replies} == {200}
    assert statements.count("COMMIT") <= 3
    ids = [entry["id"] for reply in replies for entry in reply.json()["predictions"]]
    assert len(set(ids)) == 23
    assert set(kept(app).index) == set(ids)


def test_requests_that_shared_a_failed_commit_all_fail(app):
    """When a transaction can't be written, none of its requests is answered, and later ones are."""
    other = sqlite3.connect(app.log.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    replies = asyncio.run(many(app, *[[GOOD]] * 10))
    other.close()
    assert {reply.status_code for reply in replies} == {503}
    assert kept(app).empty
    assert ask(app, GOOD).status_code == 200


def test_single_records_of_one_tick_share_a_run_of_the_model(app, monkeypatch):
    """Requests that arrive together share a run of the model; none changes another's answer."""
    asked = [{**GOOD, "age": 18.0 + 3 * place} for place in range(20)]
    single = [ask(app, record).json()["predictions"][0]["probabilities"] for record in asked]
    runs, run_model = [], app.scorer.answer
    monkeypatch.setattr(
        app.scorer, "answer", lambda inputs: runs.append(len(inputs)) or run_model(inputs)
    )
    replies = asyncio.run(many(app, *[[record] for record in asked]))
    assert sum(runs) == 20
    assert len(runs) <= 3
    for reply, shares in zip(replies, single, strict=True):
        assert reply.json()["predictions"][0]["probabilities"] == pytest.approx(shares, abs=1e-6)


def test_a_record_at_fault_fails_alone(app):
    """A wrong moment, found only where a tick's records are encoded, fails its own request."""
    wrong = {**GOOD, "when": "yesterday"}
    replies = asyncio.run(many(app, [GOOD], [wrong], [GOOD], [wrong], [GOOD]))
    assert [reply.status_code for reply in replies] == [200, 422, 200, 422, 200]
    assert replies[1].json()["field"] == "when"
    assert len(kept(app)) == 3


def test_a_model_that_fails_at_one_record_answers_the_others(app, monkeypatch):
    """Where the model gives no number, that request gets a 500 and the others their answers."""
    run_model = app.scorer._session.run

    def failing(names, feeds):
        outputs = run_model(names, feeds)
        outputs[0][feeds["records"][:, 0] == 66] = np.nan
        return outputs

    monkeypatch.setattr(app.scorer, "_session", SimpleNamespace(run=failing))
    replies = asyncio.run(many(app, [GOOD], [{**GOOD, "age": 66}], [GOOD]))
    assert [reply.status_code for reply in replies] == [200, 500, 200]


def test_the_log_is_carried_into_its_file_beside_the_service(app):
    """A checkpoint carries what was committed from the WAL into the file, once."""
    ask(app, GOOD)
    app.log.checkpoint()
    (app.log.path.parent / "without-wal").write_bytes(app.log.path.read_bytes())
    connection = sqlite3.connect(app.log.path.parent / "without-wal")
    assert connection.execute("SELECT count(*) FROM predictions").fetchone() == (1,)
    connection.close()
    app.log.path.rename(app.log.path.with_name("elsewhere"))
    app.log.checkpoint()  # nothing is to be carried, so that nothing can fail


def test_a_service_whose_disk_is_full_lives_and_is_not_ready(app, monkeypatch):
    """With a full disk the service isn't ready; once there is room, it is, without a restart."""
    disk = shutil.disk_usage(app.log.path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk._replace(free=4096))
    assert call(app, "GET", "/healthz").status_code == 200
    assert call(app, "GET", "/readyz").status_code == 503
    with pytest.raises(RunError, match="No space left on device"):
        app.log.check()
    monkeypatch.undo()
    assert call(app, "GET", "/readyz").status_code == 200


def test_a_checkpoint_that_the_disk_refuses_is_logged_and_the_service_goes_on(
    run, monkeypatch, caplog
):
    """A file that is gone is named in the service's own log; the watcher lives."""
    monkeypatch.setattr(middleware, "WATCH_SECONDS", 0.01)
    service = serving.create_app(run)

    async def live():
        async with service.watching():
            service.log._checkpointed = False
            service.log.path.rename(service.log.path.with_name("elsewhere"))
            await asyncio.sleep(0.2)
            service.log.path.with_name("elsewhere").rename(service.log.path)
            service.log._checkpointed = False
            await asyncio.sleep(0.2)

    with caplog.at_level("ERROR", "lepton.serving"):
        asyncio.run(live())
    assert [json.loads(line)["event"] for line in caplog.messages] == ["checkpoint failed"]


def load(url, acknowledged, stop):
    """Ask without a pause and note each prediction that was acknowledged."""
    while not stop.is_set():
        try:
            with httpx.Client(base_url=url, trust_env=False) as client:
                while not stop.is_set():
                    reply = client.post(
                        "/v1/predict", json={"records": [GOOD] * (1 + len(acknowledged) % 2)}
                    )
                    acknowledged += [
                        entry["id"] for entry in reply.raise_for_status().json()["predictions"]
                    ]
        except httpx.TransportError:
            time.sleep(0.01)


def pids(service):
    """The workers that are alive."""
    return {
        child.pid
        for child in psutil.Process(service._process.pid).children()
        if child.status() != "zombie" and "spawn_main" in " ".join(child.cmdline())
    }


def test_kill_9_loses_nothing_that_was_acknowledged(run):
    """Workers are killed under load: each is started anew, nothing acknowledged is missing."""
    acknowledged, stop, random = [], threading.Event(), np.random.default_rng(0)
    with serving.start(run, workers=2) as service:
        clients = [
            threading.Thread(target=load, args=(service.url, acknowledged, stop), daemon=True)
            for _ in range(3)
        ]
        for client in clients:
            client.start()
        killed = set()
        for _ in range(KILLS):
            before, deadline = len(acknowledged), time.monotonic() + 20
            while (
                len(acknowledged) < before + 20 or len(pids(service)) < 2
            ) and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(random.uniform(0, 0.05))
            victim = int(random.choice(sorted(pids(service))))
            os.kill(victim, signal.SIGKILL)
            killed.add(victim)
        stop.set()
        for client in clients:
            client.join()
        assert len(killed) == KILLS
    log = serving_log(run)
    assert len(acknowledged) > 20 * KILLS
    assert set(acknowledged) <= set(log.index)
    connection = sqlite3.connect(run / "service" / "predictions.sqlite")
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_workers_count_together_and_end_together(run):
    """/metrics adds up what all workers have answered, and none is left when the service ends."""
    with serving.start(run, workers=2) as service:
        for _ in range(20):  # a connection each, so that both workers have some
            httpx.post(
                f"{service.url}/v1/predict", json={"records": [GOOD]}, trust_env=False
            ).raise_for_status()
        text = httpx.get(f"{service.url}/metrics", trust_env=False).text
        started = pids(service)
    assert 'lepton_requests_total{route="/v1/predict",status="200"} 20.0' in text
    assert len(started) == 2
    for pid in started:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert service._process.returncode == 0


def test_several_workers_that_cannot_start_say_why(run):
    """A service folder that can't be used is named once, before any worker is started."""
    (run / "service" / "model.onnx").write_bytes(b"")
    with pytest.raises(RunError, match=r"model\.onnx"):
        serving.start(run, workers=2)


def test_workers_that_cannot_start_end_the_service(run):
    """What only the workers find out ends the command with their error, not a retry for ever."""
    (run / "service" / "predictions.sqlite").write_text("no database, but long enough " * 50)
    with pytest.raises(RunError, match=r"(?s)not a database.*a worker that can't start"):
        serving.start(run, workers=2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_workers_in_good_order(run, number):
    """At SIGTERM and SIGINT the supervisor ends its workers and itself, without an error."""
    with serving.start(run, workers=2) as service:
        while len(started := pids(service)) < 2:
            time.sleep(0.01)
        service._process.send_signal(number)
        assert service._process.wait(10) == 0
    assert not any(map(psutil.pid_exists, started))


def test_workers_end_when_their_supervisor_is_killed(run):
    """No worker holds the port once its parent is gone."""
    with serving.start(run, workers=2) as service:
        while len(started := pids(service)) < 2:
            time.sleep(0.01)
        service._process.kill()
        gone, alive = psutil.wait_procs([psutil.Process(pid) for pid in started], timeout=10)
    assert (len(gone), alive) == (2, [])


def test_a_dead_workers_gauges_are_forgotten(run):
    """After a kill /metrics doesn't name the model that a dead worker had."""
    with serving.start(run, workers=2) as service:
        while len(started := pids(service)) < 2:
            time.sleep(0.01)
        victim = min(started)
        folder = Path(psutil.Process(victim).environ()["PROMETHEUS_MULTIPROC_DIR"])
        while not (gauges := [*folder.glob(f"gauge_live*_{victim}.db")]):
            time.sleep(0.01)
        os.kill(victim, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while gauges[0].exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not gauges[0].exists()
        assert f'{{"event": "worker died", "pid": {victim}}}' in service.lines


# The log in later years


@pytest.fixture
def filled(app):
    """A log with a single prediction and a batch of three, all labelled; with the replies."""
    single, batch = (
        ask(app, GOOD, **{"x-request-id": "one"}).json(),
        ask(app, *people(3), **{"x-request-id": "three"}).json(),
    )
    ids = [entry["id"] for entry in single["predictions"] + batch["predictions"]]
    serving.attach_labels(app.log.path, dict.fromkeys(ids, "yes"), app.scorer.case)
    return app, ids


def people(count):
    return [GOOD | {"age": 61.03125 + i, "income": 70707.0 + i} for i in range(count)]


def test_a_batch_is_kept_prediction_by_prediction(filled):
    """Each record of a batch has its own id and label in the log, and reads back as it was sent."""
    app, ids = filled
    frame = kept(app)
    assert list(frame.index) == ids
    assert list(frame["age"]) == [GOOD["age"], 61.03125, 62.03125, 63.03125]
    assert list(frame["target"]) == [1.0] * 4
    assert list(frame["log.request_id"]) == ["one", "three", "three", "three"]


def test_a_prediction_is_found_by_its_id_or_its_requests(filled, run):
    """`find` returns what was sent and answered, with reasons; an unknown id is an error."""
    app, ids = filled
    path = app.log.path
    assert [row.id for row in log_maintenance.find(path, ids[0])] == [ids[0]]
    assert [row.id for row in log_maintenance.find(path, "three")] == ids[1:]
    (row,) = log_maintenance.find(path, ids[2])
    assert row.inputs == people(3)[1]
    description = json.loads(log_maintenance.describe(run, ids[2]))[0]
    reasons = description["answer"]["reasons"]
    assert description["model_version"] == app.scorer.version
    assert reasons["base"] + sum(reasons["contributions"].values()) == pytest.approx(
        reasons["value"], abs=1e-6
    )
    for unknown in ("nobody", "", ids[2] + "0", ids[1][:16] + "-9"):
        with pytest.raises(RunError, match="got no prediction or request"):
            log_maintenance.find(path, unknown)


def bytes_of(path):
    return b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))


@pytest.mark.parametrize("by", ["prediction", "request"])
def test_what_is_erased_is_gone_from_the_disk(filled, by):
    """After an erasure neither id nor inputs are in the log's files; the rest stays."""
    app, ids = filled
    assert b"62.03125" in bytes_of(app.log.path)
    gone = [ids[2]] if by == "prediction" else ids[1:]
    assert log_maintenance.erase(app.log.path, ids[2] if by == "prediction" else "three") == len(
        gone
    )
    content = bytes_of(app.log.path)
    assert b"62.03125" not in content
    assert b"70708" not in content
    assert ids[2].encode() not in content
    frame = kept(app)
    assert sorted(frame.index) == sorted(set(ids) - set(gone))
    assert (frame["target"] == 1.0).all()
    assert ask(app, GOOD).status_code == 200
    if by == "prediction":
        assert log_maintenance.erase(app.log.path, ids[1]) == 1
        assert ids[3] in kept(app).index


def test_a_request_named_like_a_token_stands_in_no_erasures_way(filled):
    """A request may be named as another prediction's id begins: each is erased on its own."""
    app, ids = filled
    (other,) = ask(app, GOOD, **{"x-request-id": ids[0][:16]}).json()["predictions"]
    assert log_maintenance.erase(app.log.path, ids[0]) == 1
    assert sorted(kept(app).index) == sorted([*ids[1:], other["id"]])


def test_an_erasure_that_a_reader_holds_up_says_so(filled, monkeypatch):
    """While another program reads the old rows, the erasure isn't reported as done."""
    app, ids = filled
    monkeypatch.setattr(log_maintenance, "LOCK_SECONDS", 0.1)
    reader = sqlite3.connect(app.log.path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM predictions").fetchall()
    with pytest.raises(RunError, match=r"another program that reads|locked"):
        log_maintenance.erase(app.log.path, ids[0])
    reader.close()


def test_what_is_too_old_goes(filled):
    """Retention removes requests before the day, with their labels, and leaves the others."""
    app, ids = filled
    later = datetime.now(UTC) + timedelta(days=10)
    assert log_maintenance.keep_days(app.log.path, 11, now=later) == 0
    ask(app, GOOD)
    app.log._connection.execute(
        "UPDATE predictions SET time = '2001-01-01T00:00:00' WHERE request_id = 'one'"
    )
    assert log_maintenance.keep_days(app.log.path, 1) == 1
    assert ids[0] not in kept(app).index
    assert log_maintenance.keep_days(app.log.path, 9, now=later) == 2
    assert kept(app).empty
    assert app.log._connection.execute("SELECT count(*) FROM labels").fetchone() == (0,)


def test_the_log_is_exported_as_parquet(filled, tmp_path):
    """The exported table is what `read_log` gives; an unwritable place is an error."""
    app, _ = filled
    assert log_maintenance.export(app.log.path, app.scorer.case, tmp_path / "log.parquet") == 4
    pd.testing.assert_frame_equal(
        pd.read_parquet(tmp_path / "log.parquet"), kept(app), check_column_type=False
    )
    with pytest.raises(RunError, match=r"nowhere|log\.parquet"):
        log_maintenance.export(app.log.path, app.scorer.case, tmp_path / "nowhere" / "log.parquet")


def test_the_log_is_for_its_owners_eyes(filled):
    """Only the log's owner can read what people asked and were answered, whatever the umask."""
    app, _ = filled
    files = list(app.log.path.parent.glob("predictions.sqlite*"))
    assert len(files) > 1
    assert {path.stat().st_mode & 0o077 for path in files} == {0}


def test_the_command_looks_after_the_log(filled, run, monkeypatch, capsys, tmp_path):
    """`lepton log` finds, exports, erases and thins out, and tells what it did."""
    _, ids = filled

    def lepton(*words, code=0):
        monkeypatch.setattr(sys, "argv", ["lepton", "log", str(run), *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == code
        return capsys.readouterr().out

    assert lepton(code=2) == ""

    assert json.loads(lepton("--find", ids[0]))[0]["id"] == ids[0]
    assert (
        lepton("--parquet", tmp_path / "t.parquet")
        == f"4 predictions in {tmp_path / 't.parquet'}.\n"
    )
    assert lepton("--erase", "three") == "3 predictions erased.\n"
    assert lepton("--keep-days", 0) == "1 requests removed.\n"


def test_labels_of_batches_are_checked_too(filled):
    """A label for a record that a batch doesn't have is refused."""
    app, ids = filled
    token = ids[1].rpartition("-")[0]
    with pytest.raises(DataError, match=f"{token}-3"):
        serving.attach_labels(app.log.path, {f"{token}-3": "yes"}, app.scorer.case)


def test_the_log_keeps_the_checked_row_and_not_the_body(app):
    """Blanks and repeated keys of a body aren't stored, whether it has one record or several."""
    for count in (1, 3):
        body = json.dumps({"records": [GOOD] * count}).replace("{", "{" + " " * 100_000)
        reply = call(app, "POST", "/v1/predict", content=body, headers=JSON)
        assert reply.status_code == 200
    explained = call(app, "POST", "/v1/predict?explain=true", content=body, headers=JSON)
    assert explained.status_code == 200
    assert b" " * 100 not in bytes_of(app.log.path)
    assert list(kept(app)["age"]) == [GOOD["age"]] * 7


def test_a_locked_log_holds_up_nobody_else(app):
    """While another program locks the log, health is answered at once; then all is stored."""
    other = sqlite3.connect(app.log.path, isolation_level=None)
    app.log._timeout = 5.0

    async def during():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://desk") as client:
            other.execute("BEGIN IMMEDIATE")
            body = {"records": [GOOD]}
            waiting = [asyncio.create_task(client.post("/v1/predict", json=body)) for _ in range(5)]
            await asyncio.sleep(0.05)
            begun = time.monotonic()
            assert (await client.get("/healthz")).status_code == 200
            waited = time.monotonic() - begun
            other.execute("ROLLBACK")
            return waited, [(await task).status_code for task in waiting]

    waited, statuses = asyncio.run(during())
    other.close()
    assert waited < 0.2
    assert statuses == [200] * 5
    assert len(kept(app)) == 5


def test_rows_that_cannot_be_read_are_left_out_and_told(filled, run, lepton, caplog, tmp_path):
    """A damaged row ends neither reading nor exporting; how many there are is said."""
    app, ids = filled
    for _ in range(6):
        ask(app, GOOD)
    damages = [
        "inputs = 'no json'",
        "answer = '[]'",
        "inputs = CAST(X'ff' AS TEXT)",
        "time = 'never'",
        "answer = X'00'",
        "inputs = '" + "[" * 200_000 + "'",
    ]
    for row, damage in enumerate(damages, start=2):
        app.log._connection.execute(f"UPDATE predictions SET {damage} WHERE rowid = {row}")
    with caplog.at_level("ERROR", "lepton.serving"):
        assert list(kept(app).index) == ids
    assert json.loads(caplog.messages[-1])["count"] == 6
    app.log._connection.execute("UPDATE batches SET answers = X'00'")
    assert list(kept(app).index) == ids[:1]
    assert lepton("log", run, "--parquet", tmp_path / "t.parquet")[0] == 0
    assert lepton("log", run, "--find", ids[0])[0] == 0
    assert lepton("log", run, "--find", ids[1])[0] == 2


def test_a_damaged_log_is_named_at_start(run):
    """A service doesn't start on a log with a broken page."""
    service = serving.create_app(run)
    for _ in range(300):
        ask(service, GOOD)
    service.log.checkpoint()
    service.log.close()
    path = run / "service" / "predictions.sqlite"
    content = bytearray(path.read_bytes())
    content[4096 * 6 : 4096 * 7] = b"\xff" * 4096
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"predictions\.sqlite.*(damaged|malformed)"):
        serving.create_app(run)


def test_a_request_named_like_a_prediction_is_not_erased_with_it(filled):
    """A client that takes another's prediction id for its request's gets neither row."""
    app, ids = filled
    (other,) = ask(app, GOOD, **{"x-request-id": ids[0]}).json()["predictions"]
    assert [row.id for row in log_maintenance.find(app.log.path, ids[0])] == [ids[0]]
    assert log_maintenance.erase(app.log.path, ids[0]) == 1
    assert other["id"] in kept(app).index


def test_erasures_under_load_leave_nothing(run):
    """While two workers write, each erasure succeeds and no byte of it is left in the files."""
    acknowledged, stop = [], threading.Event()
    path, erased = run / "service" / "predictions.sqlite", []
    with serving.start(run, workers=2) as service:
        clients = [
            threading.Thread(target=load, args=(service.url, acknowledged, stop), daemon=True)
            for _ in range(3)
        ]
        for client in clients:
            client.start()
        for turn in range(16):
            while len(acknowledged) < 20 * (turn + 1):
                time.sleep(0.01)
            erased.append(acknowledged[-1 - turn])
            assert log_maintenance.erase(path, erased[-1]) == 1
            assert erased[-1].encode() not in bytes_of(path)
        stop.set()
        for client in clients:
            client.join()
    content = bytes_of(path)
    assert not [id_ for id_ in erased if id_.encode() in content]


def test_removing_what_is_old_stops_no_service(run):
    """Thousands of requests are removed in small steps, and the file shrinks."""
    path = run / "service" / "predictions.sqlite"
    with serving.start(run) as service, httpx.Client(base_url=service.url, trust_env=False) as one:
        log = serving.PredictionLog(path, timeout=5.0)
        with log.transaction() as connection:
            rows = (
                (f"{n:016x}-0", "r", "2001-01-01T00:00:00", "v", "{}", "x" * 2000)
                for n in range(4_000)
            )
            connection.executemany("INSERT INTO predictions VALUES (?, ?, ?, ?, ?, ?)", rows)
        log.checkpoint()
        log.close()
        counts = []
        work = threading.Thread(target=lambda: counts.append(log_maintenance.keep_days(path, 1)))
        work.start()
        while work.is_alive():
            assert one.post("/v1/predict", json={"records": [GOOD]}).status_code == 200
        work.join()
    assert counts == [4_000]
    assert path.stat().st_size < 2_000_000
