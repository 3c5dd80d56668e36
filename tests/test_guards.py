"""Keys, rates and limits, and clients that never end their requests."""

import asyncio
import contextlib
import json
import resource
import socket
import sys
import threading
import time

import httpx
import psutil
import pytest
import uvicorn

from lepton_lib import serving
from lepton_lib.cli import main
from lepton_lib.errors import ParameterError, RunError
from lepton_lib.serving import api_keys, protocol, server
from lepton_lib.serving.scoring import Scorer
from tests.service import GOOD, JSON, ask, call, kept, refresh


def test_without_keys_nobody_is_asked_and_with_them_everybody(app):
    """The first key switches the demand on in a running service; health and pages stay open."""
    assert ask(app, GOOD).status_code == 200
    key = api_keys.add_key(app.keys.path, "desk")
    refresh(app)
    for headers in (
        {},
        {"x-api-key": key[:-1]},
        {"authorization": f"Basic {key}"},
        {"authorization": "Bearer"},
    ):
        reply = ask(app, GOOD, **headers)
        assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")
        assert reply.headers["content-type"] == "application/problem+json"
    assert ask(app, GOOD, authorization=f"Bearer {key}").status_code == 200
    assert ask(app, GOOD, **{"x-api-key": key}).status_code == 200
    for path, status in [
        ("/healthz", 200),
        ("/readyz", 200),
        ("/", 200),
        ("/v1/models", 401),
        ("/metrics", 401),
    ]:
        assert call(app, "GET", path).status_code == status
    assert len(kept(app)) == 3


def test_a_revoked_key_is_refused_and_so_is_everybody_when_the_file_goes(app):
    """Revoking works at once; without the file no key is valid; a broken file changes nothing."""
    first, second = (api_keys.add_key(app.keys.path, name) for name in ("one", "two"))
    refresh(app)
    api_keys.revoke_key(app.keys.path, "one")
    refresh(app)
    assert [ask(app, GOOD, **{"x-api-key": key}).status_code for key in (first, second)] == [
        401,
        200,
    ]
    content = app.keys.path.read_text()
    app.keys.path.write_text("nonsense")
    refresh(app)
    assert ask(app, GOOD, **{"x-api-key": second}).status_code == 200
    app.keys.path.unlink()
    refresh(app)
    assert ask(app, GOOD, **{"x-api-key": second}).status_code == 401
    app.keys.path.write_text(content)
    refresh(app)
    assert ask(app, GOOD, **{"x-api-key": second}).status_code == 200


def test_only_hashes_are_kept(tmp_path):
    """Only its owner can read the file, which holds no key; wrong names and rates are refused."""
    path = tmp_path / "keys.json"
    key = api_keys.add_key(path, "desk", rate=5)
    assert key.removeprefix("lepton_") not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert api_keys.list_keys(path) == {"desk": 5.0}
    for name, rate in [("desk", 1), ("", 1), ("other", 0), ("other", float("nan"))]:
        with pytest.raises(ParameterError):
            api_keys.add_key(path, name, rate=rate)
    with pytest.raises(ParameterError, match="nobody"):
        api_keys.revoke_key(path, "nobody")
    path.write_text("[]")
    with pytest.raises(RunError, match="holds no keys"):
        api_keys.Keys(path)


def test_keys_that_are_changed_at_once_are_all_changed(tmp_path):
    """Of keys that are added and revoked at the same time none is lost, and none comes back."""
    path = tmp_path / "keys.json"
    for number in range(8):
        api_keys.add_key(path, f"old {number}")
    threads = [
        threading.Thread(target=api_keys.add_key, args=(path, f"new {number}"))
        for number in range(8)
    ]
    threads += [
        threading.Thread(target=api_keys.revoke_key, args=(path, f"old {number}"))
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(api_keys.list_keys(path)) == [f"new {number}" for number in range(8)]


def test_the_form_asks_for_a_key_as_soon_as_one_is_demanded(app):
    """The page of a running service has its field for a key after the first key was made."""
    assert 'id="key"' not in call(app, "GET", "/").text
    api_keys.add_key(app.keys.path, "desk")
    refresh(app)
    assert 'id="key"' in call(app, "GET", "/").text


def test_each_key_has_its_own_rate(app):
    """A key that asks too often gets 429 and the seconds to wait; others aren't touched by it."""
    slow, fast = (
        api_keys.add_key(app.keys.path, name, rate=rate)
        for name, rate in [("slow", 2), ("fast", 1000)]
    )
    refresh(app)
    replies = [ask(app, GOOD, **{"x-api-key": slow}) for _ in range(4)]
    assert [reply.status_code for reply in replies][:2] == [200, 200]
    assert replies[-1].status_code == 429
    assert replies[-1].headers["retry-after"] == "1"
    assert ask(app, GOOD, **{"x-api-key": fast}).status_code == 200
    time.sleep(0.6)
    assert ask(app, GOOD, **{"x-api-key": slow}).status_code == 200


def test_a_bucket_fills_at_its_rate(monkeypatch):
    """As many requests pass as the rate allows, at once and over time."""
    clock = [0.0]
    monkeypatch.setattr(api_keys.time, "monotonic", lambda: clock[0])
    bucket = api_keys.Bucket(10)
    assert [bucket.take() for _ in range(10)] == [0.0] * 10
    assert bucket.take() == pytest.approx(0.1)
    passed = 0
    for _ in range(1000):
        clock[0] += 0.01
        passed += bucket.take() == 0
    assert passed == pytest.approx(100, abs=1)


def test_too_many_at_once_are_sent_away(app, monkeypatch):
    """Beyond the limit of requests in flight the answer is 503; health answers nevertheless."""
    monkeypatch.setattr("lepton_lib.serving.middleware.IN_FLIGHT", 0)
    reply = ask(app, GOOD)
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
    assert kept(app).empty
    assert [call(app, "GET", path).status_code for path in ("/healthz", "/readyz")] == [200, 200]


async def unfinished(app, count, **headers):
    """Begin requests whose bodies never end; then the statuses of a health check and of others."""
    head = [(b"content-type", b"application/json")]
    head += [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/v1/predict", "headers": head}
    tasks = [
        asyncio.create_task(app({**scope}, asyncio.Event().wait, lambda _: asyncio.sleep(0)))
        for _ in range(count)
    ]
    await asyncio.sleep(0.05)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://desk") as client:
        statuses = [(await client.get(path)).status_code for path in ("/healthz", "/readyz")]
        body = {"records": [GOOD]}
        statuses.append((await client.post("/v1/predict", json=body)).status_code)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return statuses


def test_a_body_that_never_ends_holds_no_place(app, monkeypatch):
    """Requests that aren't there whole don't count; health answers outside every limit."""
    monkeypatch.setattr("lepton_lib.serving.middleware.IN_FLIGHT", 2)
    assert asyncio.run(unfinished(app, 20)) == [200, 200, 200]
    monkeypatch.setattr("lepton_lib.serving.middleware.IN_FLIGHT", 0)
    assert asyncio.run(unfinished(app, 20)) == [200, 200, 503]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_other_addresses_need_keys(run, host):
    """Where others can reach it, a service without keys doesn't start, unless that is said."""
    with pytest.raises(RunError, match="without API keys"):
        serving.serve(run, host=host, port=0)


def test_the_commands_for_keys(run, monkeypatch, capsys):
    """`lepton keys` adds, lists and revokes; the key is shown once."""

    def lepton(*words):
        monkeypatch.setattr(sys, "argv", ["lepton", "keys", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr().out

    code, key = lepton("add", run, "desk", "--rate", 7)
    assert (code, key.startswith("lepton_"), len(key.strip())) == (0, True, 71)
    assert "desk" in lepton("list", run)[1]
    assert "7 requests/s" in lepton("list", run)[1]
    assert lepton("revoke", run, "desk")[0] == 0
    assert lepton("list", run)[1] == ""
    assert lepton("revoke", run, "desk")[0] == 2


# Over a socket


@contextlib.contextmanager
def served(run):
    """A service in a thread of this process: its address, and its server."""
    listener = server.listen("127.0.0.1", 0)
    servers = []

    class Noted(uvicorn.Server):
        def __init__(self, config):
            super().__init__(config)
            servers.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uvicorn, "Server", Noted)
        options = {"target": server.run, "args": (lambda: serving.create_app(run), listener)}
        thread = threading.Thread(**options)
        thread.start()
        address = listener.getsockname()
        for _ in range(200):
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"http://127.0.0.1:{address[1]}/readyz", trust_env=False)
                break
            time.sleep(0.05)
        yield address, servers[0]
        servers[0].should_exit = True
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def quick(run, monkeypatch):
    """A service in a thread of this process, with short time limits."""
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 1.0)
    monkeypatch.setattr(protocol, "BODY_SECONDS", 1.0)
    monkeypatch.setattr(protocol, "ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(protocol, "CONNECTIONS", 230)
    with served(run) as (address, _):
        yield address


def test_what_is_in_flight_at_the_end_is_answered(run, monkeypatch):
    """A service that is stopped finishes what it has begun, however long an answer may take."""
    explain = Scorer.explain

    def slow(*values):
        time.sleep(4)
        return explain(*values)

    monkeypatch.setattr(Scorer, "explain", slow)
    with served(run) as (address, ending):
        end = threading.Timer(0.5, setattr, (ending, "should_exit", True))
        end.start()
        url = f"http://127.0.0.1:{address[1]}/v1/predict?explain=true"
        reply = httpx.post(url, json={"records": [GOOD]}, trust_env=False, timeout=20)
        assert reply.status_code == 200


def post(content=b"", length=None):
    body = content or json.dumps({"records": [GOOD]}).encode()
    head = "POST /v1/predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    head += f"content-length: {length or len(body)}\r\n\r\n"
    return head.encode() + body


CHUNKED = b"POST /v1/predict HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
HALF_OPEN = {
    "nothing at all": (b"", b"408"),
    "half a head": (b"POST /v1/predict HTTP/1.1\r\nhost: localhost\r\nx-", b"408"),
    "half a body": (post(b'{"records": [', length=500), b"408"),
    "no http": (b"\x16\x03\x01 hello\r\n\r\n", b"400"),
    "an endless head": (b"GET /healthz HTTP/1.1\r\nx: " + b"a" * (70 << 10), b"431"),
    "a head in two pieces": (
        b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * (100 << 10) + b"\r\n\r\n",
        b"431",
    ),
    "a trailer": (CHUNKED + b"3\r\nabc\r\n0\r\nx: 1\r\n\r\n", b"400"),
    "an endless trailer": (CHUNKED + b"3\r\nabc\r\n0\r\n" + b"a" * (300 << 10), b"431"),
    "an endless extension": (CHUNKED + b"3;x=" + b"a" * (300 << 10), b"431"),
    "a name that was rebound": (b"GET / HTTP/1.1\r\nhost: evil.example:80\r\n\r\n", b"421"),
    "a name and another": (b"GET / HTTP/1.1\r\nhost: localhost\r\nhost: a\r\n\r\n", b"421"),
    "no name": (b"GET / HTTP/1.0\r\n\r\n", b"421"),
    "half a second request": (post() + b"POST /v1/pre", b"408"),
}


@pytest.mark.parametrize("kind", HALF_OPEN)
def test_a_client_that_never_ends_its_request_is_sent_away(quick, kind):
    """A request that isn't finished in time gets a problem, and its connection is closed."""
    sent, status = HALF_OPEN[kind]
    with socket.create_connection(quick, timeout=8) as client:
        begun, got = time.monotonic(), b""
        with contextlib.suppress(ConnectionError):  # it doesn't read to the end
            client.sendall(sent)
        with contextlib.suppress(ConnectionError):
            while chunk := client.recv(65536):
                got += chunk
    assert b"HTTP/1.1 " + status in got
    assert b"application/problem+json" in got
    assert b"default-src 'none'" in got
    assert time.monotonic() - begun < 6


def test_200_slow_clients_keep_nobody_waiting(quick):
    """While 200 clients dribble their requests, others are answered, the slow sent away."""
    slow = [socket.create_connection(quick, timeout=8) for _ in range(200)]
    end = threading.Event()

    def dribble():
        for place in range(10_000):
            for number, client in enumerate(slow):
                with contextlib.suppress(OSError):
                    client.send(post()[place : place + 1] if number % 2 else b"")
            if end.wait(0.05):
                return

    thread = threading.Thread(target=dribble, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{quick[1]}"
    waits = []
    with httpx.Client(base_url=url, trust_env=False) as client:
        for _ in range(60):
            begun = time.monotonic()
            assert client.post("/v1/predict", json={"records": [GOOD]}).status_code == 200
            waits.append(time.monotonic() - begun)
            time.sleep(0.02)
    time.sleep(1)
    end.set()
    thread.join()
    left = 0
    for client in slow:
        got = b""
        with contextlib.suppress(ConnectionError):
            while chunk := client.recv(65536):
                got += chunk
        left += b" 200 " in got
        client.close()
    assert left == 0
    assert sorted(waits)[len(waits) // 2] < 0.25


def test_connections_beyond_the_limit_get_503(quick):
    """Beyond the limit of connections a client gets 503 at once; when others go, it gets in."""
    crowd = [socket.create_connection(quick, timeout=8) for _ in range(235)]
    reply = b""
    with contextlib.suppress(ConnectionError):
        reply = crowd[-1].recv(65536)
    for client in crowd:
        client.close()
    assert b"HTTP/1.1 503" in reply
    assert b"retry-after: 1" in reply
    time.sleep(0.3)
    assert httpx.get(f"http://127.0.0.1:{quick[1]}/healthz", trust_env=False).status_code == 200


def test_health_is_answered_beyond_the_limit_of_connections(quick, monkeypatch):
    """An address that holds all of its connections can ask for health, and for nothing else."""
    monkeypatch.setattr(protocol, "PER_ADDRESS", 20)
    crowd = [socket.create_connection(quick, timeout=8) for _ in range(20)]
    time.sleep(0.2)
    for path, status in [("/healthz", 200), ("/readyz", 200), ("/", 503)]:
        url = f"http://127.0.0.1:{quick[1]}{path}"
        assert httpx.get(url, trust_env=False).status_code == status
    for client in crowd:
        client.close()


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1:80", "127.1.2.3", "[::1]:80", "[::1]"])
def test_loopback_names_are_accepted(quick, host):
    """Each name of this machine may stand in Host."""
    url = f"http://127.0.0.1:{quick[1]}/healthz"
    assert httpx.get(url, headers={"host": host}, trust_env=False).status_code == 200


@pytest.mark.no_cover
def test_memory_stays_flat_under_malformed_and_good_requests(run):
    """Thousands of good, wrong and too long requests leave the service's memory where it was."""
    wrong = [
        b"",
        b'{"records": [',
        b"[]",
        json.dumps({"records": [GOOD | {"age": True}]}).encode(),
        json.dumps({"records": [GOOD | {"age": "0.1"}]}).encode(),
        b'{"records": [{"age": NaN}]}',
        b'{"records": [{"age": Infinity}]}',
        json.dumps({"records": [GOOD | {"shoe": 1}]}).encode(),
        json.dumps({"records": [GOOD | {"colour": "no"}]}).encode(),
        b'{"records": []}',
    ]
    with (
        serving.start(run) as service,
        httpx.Client(base_url=service.url, trust_env=False) as client,
    ):
        process = psutil.Process(service._process.pid)

        def one_round():
            for content in wrong * 5:
                assert (
                    400
                    <= client.post("/v1/predict", content=content, headers=JSON).status_code
                    < 500
                )
            for size in (1, 1, 1, 50):
                client.post("/v1/predict", json={"records": [GOOD] * size}).raise_for_status()
            assert (
                client.post("/v1/predict", content=b" " * (8 << 20), headers=JSON).status_code
                == 413
            )
            client.post("/v1/predict?explain=true", json={"records": [GOOD]}).raise_for_status()

        for _ in range(6):
            one_round()
        before = process.memory_info().rss
        for _ in range(30):
            one_round()
        grown = process.memory_info().rss - before
    assert grown < 12 << 20, f"{grown / 2**20:.1f} MiB more after 1650 requests"


def test_enough_files_may_be_open():
    """The limits on connections fit what a process may open here."""
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] > protocol.CONNECTIONS


async def asked_for_reasons(app, count):
    """Requests for reasons that come at once: their tasks, and the client."""
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://desk")
    body, path = {"records": [GOOD]}, "/v1/predict?explain=true"
    return client, [asyncio.create_task(client.post(path, json=body)) for _ in range(count)]


def test_one_explanation_is_computed_at_a_time_and_few_wait(app, monkeypatch):
    """Beyond those that wait, requests for reasons are sent away; others are answered meanwhile."""
    go, busy, most, explain = threading.Event(), [0], [0], app.scorer.explain

    def slow(records, cancelled):
        busy[0] += 1
        most[0] = max(most[0], busy[0])
        go.wait(5)
        busy[0] -= 1
        return explain(records, cancelled)

    monkeypatch.setattr(app.scorer, "explain", slow)

    async def crowd():
        client, tasks = await asked_for_reasons(app, 30)
        await asyncio.sleep(0.1)
        reply = await client.post("/v1/predict", json={"records": [GOOD]})
        go.set()
        return reply.status_code, [reply.status_code for reply in await asyncio.gather(*tasks)]

    single, statuses = asyncio.run(crowd())
    assert single == 200
    assert (statuses.count(200), statuses.count(503)) == (16, 14)
    assert most == [1]


def test_reasons_that_nobody_waits_for_are_given_up(run, monkeypatch):
    """When its client goes, an explanation ends, and those behind it never begin."""
    service, began, ended = serving.create_app(run), [], []
    explain, run_model = service.scorer.explain, service.scorer.probabilities

    def noted(records, cancelled):
        began.append(cancelled)
        try:
            return explain(records * 1000, cancelled)
        finally:
            ended.append(cancelled)

    monkeypatch.setattr(service.scorer, "explain", noted)
    monkeypatch.setattr(
        service.scorer, "probabilities", lambda rows: (time.sleep(0.002), run_model(rows))[1]
    )

    async def leave():
        gone = asyncio.Event()

        async def receive():
            if first:
                return first.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        first = [{"type": "http.request", "body": json.dumps({"records": [GOOD]}).encode()}]
        head = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/v1/predict", "headers": head}
        scope["query_string"] = b"explain=true"
        task = asyncio.create_task(service(scope, receive, lambda _: asyncio.sleep(0)))
        client, behind = await asked_for_reasons(service, 1)
        await asyncio.sleep(0.2)
        behind[0].cancel()
        gone.set()
        await task
        await asyncio.sleep(0.2)
        await client.aclose()

    asyncio.run(leave())
    service.log.close()
    assert len(began) == len(ended) == 1


def test_a_large_batch_is_answered_beside_the_loop(app, monkeypatch):
    """While a large batch is read and scored, health is answered."""
    read, go = app.scorer.codec.read, threading.Event()
    monkeypatch.setattr(
        app.scorer.codec, "read", lambda body: (len(body) < 70_000 or go.wait(5), read(body))[1]
    )

    async def crowd():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://desk") as client:
            body = {"records": [GOOD] * 2000}
            task = asyncio.create_task(client.post("/v1/predict", json=body))
            await asyncio.sleep(0.05)
            single = await client.post("/v1/predict", json={"records": [GOOD]})
            go.set()
            return single.status_code, len((await task).json()["predictions"])

    assert asyncio.run(crowd()) == (200, 2000)


def test_a_key_is_revoked_while_a_release_is_loaded(run, monkeypatch):
    """A release or a disk that takes long keeps no revoked key alive."""
    monkeypatch.setattr("lepton_lib.serving.middleware.WATCH_SECONDS", 0.02)
    service = serving.create_app(run)
    key = api_keys.add_key(service.keys.path, "desk")

    async def live():
        never = asyncio.Event()
        monkeypatch.setattr(service.predictor, "refresh", never.wait)
        async with service.watching(service.predictor.refresh):
            await asyncio.sleep(0.1)
            transport = httpx.ASGITransport(service)
            async with httpx.AsyncClient(transport=transport, base_url="http://desk") as client:
                body, headers = {"records": [GOOD]}, {"x-api-key": key}
                before = await client.post("/v1/predict", json=body, headers=headers)
                api_keys.revoke_key(service.keys.path, "desk")
                await asyncio.sleep(0.2)
                after = await client.post("/v1/predict", json=body, headers=headers)
        return before.status_code, after.status_code

    assert asyncio.run(live()) == (200, 401)
