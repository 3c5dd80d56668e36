"""Releases: signed, installed, promoted, swapped while requests come in, rolled back."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time

import httpx
import numpy as np
import onnx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from lepton_lib import cli, serving
from lepton_lib.cases import load_case
from lepton_lib.cli import main
from lepton_lib.errors import RunError
from lepton_lib.serving import releases, signing
from lepton_lib.serving.scoring import FILES, Scorer, version_of
from tests.conftest import write_case
from tests.service import GOOD, ask, call, kept, refresh, write_release


@pytest.fixture(scope="module")
def second(release, tmp_path_factory):
    """Another model of the same case, packaged."""
    folder = tmp_path_factory.mktemp("second")
    write_release(folder, load_case(release / "desk"), seed=1)
    return folder / "service"


def test_releases_are_installed_promoted_and_rolled_back(run, second):
    """Installing changes nothing, promoting does; rolling back goes to the version before."""
    first = releases.current_version(run)
    assert releases.history(run) == []
    version = releases.install(run, second)
    assert releases.install(run, second) == version != first
    assert releases.current_version(run) == first
    releases.promote(run, version)
    releases.promote(run, version)
    assert releases.current_version(run) == version
    assert releases.roll_back(run) == first == releases.current_version(run)
    with pytest.raises(RunError, match="got no version before"):
        releases.roll_back(run)
    releases.promote(run, version)
    assert [entry["action"] for entry in releases.history(run)] == [
        "packaged",
        "promoted",
        "rolled back",
        "promoted",
    ]
    assert Scorer(releases.folder_of(run)).version == version


def test_what_cannot_be_verified_is_neither_installed_nor_promoted(run, second, tmp_path):
    """A changed, foreign or missing release is refused, and what answers stays."""
    first = releases.current_version(run)
    version = releases.install(run, second)
    flip(run / "service" / "releases" / version / "model.onnx")
    with pytest.raises(RunError, match=r"model\.onnx"):
        releases.promote(run, version)
    with pytest.raises(RunError, match=r"model\.onnx"):
        releases.install(tmp_path, run / "service" / "releases" / version)
    with pytest.raises(RunError, match="no release 'nope'"):
        releases.promote(run, "nope")
    other = write_case(tmp_path / "other")
    write_release(tmp_path / "foreign", load_case(other))
    with pytest.raises(RunError, match="a model of the case 'other'"):
        releases.install(run, tmp_path / "foreign" / "service")
    assert releases.current_version(run) == first
    assert releases.history(run) == []


def test_the_service_takes_a_promoted_release_over(app, run, second):
    """After a promotion answers carry the new version; the log tells both apart."""
    before = ask(app, GOOD).json()
    releases.promote(run, releases.install(run, second))
    refresh(app)
    after = ask(app, GOOD).json()
    assert after["model_version"] == releases.current_version(run) != before["model_version"]
    expected = Scorer(second).score([GOOD])[0]["probabilities"]
    assert after["predictions"][0]["probabilities"] == pytest.approx(expected, abs=1e-6)
    assert list(kept(app)["log.model_version"]) == [before["model_version"], after["model_version"]]
    assert call(app, "GET", "/v1/models").json()["models"][0]["version"] == after["model_version"]
    metrics = call(app, "GET", "/metrics").text
    assert f'version="{after["model_version"]}"}} 1.0' in metrics
    assert f'version="{before["model_version"]}"}} 0.0' in metrics


def test_a_release_that_was_changed_is_refused_and_the_old_one_goes_on(app, run, second):
    """A damaged release is named in /v1/models and /metrics; requests are answered as before."""
    before = app.scorer.version
    version = releases.install(run, second)
    releases.promote(run, version)
    flip(run / "service" / "releases" / version / "card.md")
    refresh(app)
    assert ask(app, GOOD).json()["model_version"] == before
    refused = call(app, "GET", "/v1/models").json()["refused"]
    assert refused["version"] == version
    assert "card.md: got sha256" in refused["why"]
    assert str(run) not in refused["why"]
    assert "lepton_releases_refused_total 1.0" in call(app, "GET", "/metrics").text
    (run / "service" / "current.json").write_text("nonsense")
    refresh(app)
    assert ask(app, GOOD).status_code == 200
    releases.pointer(run).unlink()
    refresh(app)
    assert call(app, "GET", "/v1/models").json()["refused"] is None


def test_swaps_under_load_lose_no_request(run, second):
    """While releases change, no request goes unanswered; both workers follow within a second."""
    releases.install(run, second)
    versions = [releases.current_version(run), Scorer(second).version]
    replies, stop = [], threading.Event()

    def client():
        with httpx.Client(base_url=service.url, trust_env=False) as session:
            while not stop.is_set():
                reply = session.post("/v1/predict", json={"records": [GOOD]})
                replies.append((time.monotonic(), reply.status_code, reply.json()))

    with serving.start(run, workers=2) as service:
        clients = [threading.Thread(target=client) for _ in range(4)]
        for thread in clients:
            thread.start()
        due = []
        for version in (versions[1], versions[0], versions[1]):
            time.sleep(1.2)
            releases.promote(run, version) if version == versions[1] else releases.roll_back(run)
            due.append((time.monotonic() + 1.0, version))
        time.sleep(1.5)
        stop.set()
        for thread in clients:
            thread.join()
    assert {status for _, status, _ in replies} == {200}
    assert len(replies) > 100
    for (begin, version), (end, _) in zip(due, [*due[1:], (np.inf, "")], strict=True):
        versions = {
            reply["model_version"] for moment, _, reply in replies if begin < moment < end - 1.0
        }
        assert versions == {version}
    log = serving.read_log(run / "service" / "predictions.sqlite", load_case(run.parent / "desk"))
    given = {reply["predictions"][0]["id"]: reply["model_version"] for _, _, reply in replies}
    assert log["log.model_version"].to_dict() == given


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


# Signatures


def test_every_part_of_a_release_is_signed_for(run):
    """A changed or missing signature, or one of another manifest, is refused by its name."""
    path = run / "service" / signing.SIGNATURE
    good = json.loads(path.read_text())
    for content, message in [
        (good | {"signature": "00" * 64}, "a signature of something else"),
        (good | {"signature": "00"}, "a signature of something else"),
        (good | {"key": "zz"}, "a file that is no signature"),
        ({}, "a file that is no signature"),
    ]:
        path.write_text(json.dumps(content))
        with pytest.raises(RunError, match=f"manifest.sig: got {message}"):
            Scorer(run / "service")
    path.unlink()
    with pytest.raises(RunError, match=r"manifest\.sig: got no signature"):
        Scorer(run / "service")


def test_who_hashes_anew_cannot_sign(run):
    """A file that was exchanged with its hash and version is refused: it has no signature."""
    service = run / "service"
    (service / "card.md").write_text("a better card")
    manifest = json.loads((service / "manifest.json").read_text())
    manifest["files"]["card.md"] = serving.packaging.sha256_of(service / "card.md")
    manifest["version"] = version_of(manifest["files"], manifest["contract"])
    (service / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunError, match="a signature of something else"):
        Scorer(service)


def test_a_strangers_key_is_refused_until_it_is_trusted(run, monkeypatch, tmp_path):
    """What a stranger has signed is refused with the key's name, and accepted once trusted."""
    own = signing.public_key()
    monkeypatch.setenv("LEPTON_CONFIG", str(tmp_path / "stranger"))
    with pytest.raises(RunError, match=r"signing\.key: got no signing key"):
        Scorer(run / "service")
    stranger = signing.public_key()
    with pytest.raises(
        RunError, match=f"got a signature of the key {own[:12]}…, expected one of {stranger[:12]}…"
    ):
        Scorer(run / "service")
    assert Scorer(run / "service", trust=[stranger, own]).version
    with pytest.raises(RunError, match="the key"):
        serving.create_app(run)
    serving.create_app(run, trust=[own]).log.close()


def test_the_private_key_is_nobody_elses(monkeypatch, tmp_path):
    """The key pair is made once, even by several at a time, and only its owner may read it."""
    monkeypatch.setenv("LEPTON_CONFIG", str(tmp_path / "config"))
    program = "from lepton_lib.serving import signing; print(signing.public_key())"
    started = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    keys = {process.communicate()[0].strip() for process in started}
    assert keys == {signing.public_key()}
    path = tmp_path / "config" / "signing.key"
    assert [entry.name for entry in path.parent.iterdir()] == ["signing.key"]
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with pytest.raises(RunError, match="others may read it"):
        signing.sign(b"")
    path.chmod(0o600)
    path.write_text("nonsense")
    with pytest.raises(RunError, match="no signing key"):
        signing.sign(b"")


def test_a_signature_is_of_this_purpose(run):
    """A signature over the bare manifest, made for another purpose, doesn't count."""
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw().hex()
    manifest = (run / "service" / "manifest.json").read_bytes()
    (run / "service" / signing.SIGNATURE).write_text(
        json.dumps({"key": public, "signature": key.sign(manifest).hex()})
    )
    with pytest.raises(RunError, match="a signature of something else"):
        Scorer(run / "service", trust=[public])


def test_the_way_back_outlives_the_notebook(run, second):
    """The packaged release can be rolled back to, although notebook 04 writes over it."""
    first, version = releases.current_version(run), releases.install(run, second)
    releases.promote(run, version)
    # as notebook 04 writes over its own folder
    shutil.copytree(second, run / "service", dirs_exist_ok=True)
    assert releases.roll_back(run) == first
    assert Scorer(releases.folder_of(run)).version == first


def test_a_damaged_packaged_release_can_be_replaced(run, second):
    """A packaged release that can't be verified is no obstacle to a good one."""
    version = releases.install(run, second)
    flip(run / "service" / FILES[0])
    releases.promote(run, version)
    assert Scorer(releases.folder_of(run)).version == version


def test_a_fresh_run_folder_serves_what_is_installed(run, second):
    """A run folder that holds nothing but an installed release can promote, watch and label it."""
    fresh = run.parent / "fresh"
    version = releases.install(fresh, second)
    releases.promote(fresh, version)
    assert releases.current_version(fresh) == version
    service = serving.create_app(fresh)
    (known,) = ask(service, GOOD).json()["predictions"]
    service.log.close()
    (run.parent / "labels.csv").write_text(f"id,label\n{known['id']},yes\n")
    runner = CliRunner()
    done = runner.invoke(cli.app, ["label", str(fresh), str(run.parent / "labels.csv")])
    assert (done.exit_code, "1 labels attached" in done.stdout) == (0, True), done.output
    assert "waiting for more" in runner.invoke(cli.app, ["monitor", str(fresh)]).stdout


def test_the_commands_promote_and_roll_back(run, second, monkeypatch, capsys):
    """`lepton install`, `promote` and `roll-back` say what answers; a mistake is one line."""

    def lepton(*words):
        monkeypatch.setattr(sys, "argv", ["lepton", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr()

    first, version = releases.current_version(run), Scorer(second).version
    assert lepton("install", run, second)[1].out == f"Installed {version}.\n"
    assert lepton("promote", run, version)[1].out == f"{version} answers.\n"
    assert releases.current_version(run) == version
    assert lepton("roll-back", run)[1].out == f"{first} answers.\n"
    code, printed = lepton("promote", run, "nope")
    assert (code, printed.err.count("\n")) == (2, 1)
    assert lepton("keys", "signing")[1].out.strip() == signing.public_key()


def test_a_release_holds_its_files_and_nothing_else(run, second):
    """What is installed is what the manifest vouches for, and nothing beside it."""
    copy = run.parent / "copy"
    shutil.copytree(second, copy)
    (copy / "predictions.sqlite").write_text("other data")
    place = run / "service" / "releases" / releases.install(run, copy)
    assert {path.name for path in place.iterdir()} == {*FILES, "manifest.json", signing.SIGNATURE}


def resign(folder, changes=(), **manifest):
    """Change files of a service folder, and entries of its manifest, and sign as its owner."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text()) | manifest
    for name, content in dict(changes).items():
        (folder / name).write_bytes(content)
        manifest["files"][name] = serving.packaging.sha256_of(folder / name)
    manifest["version"] = version_of(manifest["files"], manifest["contract"])
    path.write_text(json.dumps(manifest))
    (folder / signing.SIGNATURE).write_text(signing.sign(path.read_bytes()))
    return manifest["version"]


BROKEN = {  # the graph's last node, behind the right answers
    "another output": ("Identity", ["old"], "something", {}),
    "another width": ("Concat", ["old", "old"], "probabilities", {"axis": 1}),
    "other answers": ("Sub", ["one", "old"], "probabilities", {}),
}


@pytest.mark.parametrize("kind", ["garbage", *BROKEN])
def test_a_signed_release_that_cannot_answer_is_neither_installed_nor_promoted(run, second, kind):
    """A graph that its owner signed and that gives no right answers is refused everywhere."""
    first, copy, content = releases.current_version(run), run.parent / "broken", b"no graph"
    shutil.copytree(second, copy)
    if kind in BROKEN:
        operation, inputs, output, options = BROKEN[kind]
        model = onnx.load(copy / "model.onnx")
        for node in model.graph.node:
            node.output[:] = ["old" if name == "probabilities" else name for name in node.output]
        one = onnx.numpy_helper.from_array(np.ones(1, np.float32), "one")
        model.graph.initializer.append(one)
        model.graph.node.append(onnx.helper.make_node(operation, inputs, [output], **options))
        model.graph.output[0].name = output
        model.graph.output[0].type.tensor_type.ClearField("shape")
        content = model.SerializeToString()
    version = resign(copy, {"model.onnx": content})
    with pytest.raises(RunError, match=r"model\.onnx|not this model's"):
        releases.install(run, copy)
    shutil.copytree(copy, run / "service" / "releases" / version)
    with pytest.raises(RunError, match=r"model\.onnx|not this model's"):
        releases.promote(run, version)
    assert releases.current_version(run) == first


def test_a_start_falls_back_to_the_last_good_release(run, second, caplog):
    """A current release that is damaged is named at start; the one before it answers."""
    first = releases.current_version(run)
    version = releases.install(run, second)
    releases.promote(run, version)
    flip(run / "service" / "releases" / version / "model.onnx")
    with caplog.at_level("ERROR", "lepton.serving"):
        service = serving.create_app(run)
    assert ask(service, GOOD).json()["model_version"] == first
    assert call(service, "GET", "/v1/models").json()["refused"]["version"] == version
    assert '"event": "release refused"' in caplog.text
    service.log.close()
    flip(run / "service" / "releases" / first / "model.onnx")
    with pytest.raises(RunError, match=rf"{version}/model\.onnx"):
        serving.create_app(run)


def test_a_model_that_stops_answering_is_not_ready(app, monkeypatch):
    """/readyz scores the stored rows: what no longer answers isn't ready, and lives."""
    monkeypatch.setattr(app.scorer, "_session", None)
    assert call(app, "GET", "/readyz").status_code == 503
    assert call(app, "GET", "/healthz").status_code == 200


HOSTILE_FILES = {
    "manifest.json": [b"[" * 200_000, b'{"a":' * 200_000, b" " * (2 << 20), b"\xff", b"[]", b"7"],
    "manifest.sig": [b"[" * 4000, b"[" * 200_000, b"[]", b"null", b'{"key": 1, "signature": 2}'],
    "config.json": [b'{"categories": [1000000000]}', b"[" * 200_000, b"\xff", b" " * (2 << 20)],
    "background.npy": [b"", b"no array", b"\x93NUMPY\x01\x00v\x00" + b"{" * 118],
    "card.md": [b"x" * (2 << 20)],
}


@pytest.mark.parametrize("name", HOSTILE_FILES)
def test_whatever_lies_in_the_folder_is_refused_by_name(run, name):
    """Deep, long and senseless files are refused by their names, also when they are signed."""
    service = run / "service"
    for content in HOSTILE_FILES[name]:
        (service / name).write_bytes(content)
        if "manifest" not in name:
            resign(service, {name: content})
        for attempt in (Scorer, lambda folder: releases.install(run, folder)):
            with pytest.raises(RunError, match=name):
                attempt(service)
    (service / name).unlink()
    os.mkfifo(service / name)
    with pytest.raises(RunError, match=name):
        Scorer(service)


def test_an_older_release_is_installed_only_when_that_is_said(run, second, lepton):
    """A signed release from before another that is installed needs --allow-older."""
    older = run.parent / "older"
    shutil.copytree(second, older)
    resign(older, {"card.md": b"an older card"}, packaged=7)
    code, _, err = lepton("install", run, older)
    assert (code, "older than one that is installed" in err) == (2, True)
    code, out, _ = lepton("install", run, older, "--allow-older")
    assert (code, out.startswith("Installed ")) == (0, True)
    version = out.split()[1].strip(".")
    releases.promote(run, version)
    newer = releases.install(run, second)
    releases.promote(run, newer)
    assert releases.roll_back(run) == version
    assert releases.install(run, older) == version


def test_promoters_at_once_lose_no_entry(run, second, monkeypatch):
    """Of changes by several at the same time each is in the history."""
    versions = [releases.current_version(run), releases.install(run, second)]
    releases.promote(run, versions[1])
    changes, write = [], releases._point
    monkeypatch.setattr(releases, "Scorer", lambda *_, **__: None)
    monkeypatch.setattr(releases, "_point", lambda *a: (changes.append(a[1]), write(*a)))

    def work(order):
        for version in order * 5:
            releases.promote(run, version)

    threads = [threading.Thread(target=work, args=(order,)) for order in (versions, versions[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [entry["version"] for entry in releases.history(run)[2:]] == changes
    assert len(changes) > 5
