"""Lepton's own client and types against the service and its container's specification.

leptonai's pins don't go with the kit's, so it lives in an environment of its own; making that needs
the registry.
"""

import json
import os
import subprocess

import pytest

from lepton_lib import serving
from lepton_lib.serving.container import write_container
from tests.benchmarks.environments import environment
from tests.service import GOOD

pytestmark = pytest.mark.skipif(
    os.environ.get("LEPTON_LEPTONAI") != "required",
    reason="set LEPTON_LEPTONAI=required: installs leptonai in build/",
)


def printed(program, *words):
    """What a program prints as JSON in leptonai's environment."""
    python, why = environment("leptonai")
    assert python, why
    done = subprocess.run(
        [str(python), "-c", program, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_leptons_client_asks_the_service(run):
    """A client that knows only the address builds its methods from /openapi.json."""
    program = """
import json, sys
from leptonai.client import Client
client = Client(sys.argv[1], http2=False)
print(json.dumps(client.v1.predict(records=[json.loads(sys.argv[2])])))
"""
    with serving.start(run) as service:
        answer = printed(program, service.url, json.dumps(GOOD))
    [prediction] = answer["predictions"]
    [expected] = serving.Scorer(run / "service").score([GOOD])
    assert {key: prediction[key] for key in expected} == expected


def test_leptons_types_take_the_specification(run, tmp_path):
    """`LeptonDeployment` reads leptonai.json and leaves nothing of it aside."""
    program = """
import json, sys
from leptonai.api.v2.types.deployment import LeptonDeployment
given = json.load(open(sys.argv[1]))
read = LeptonDeployment.model_validate(given)
print(json.dumps([given, json.loads(read.model_dump_json(exclude_none=True, by_alias=True))]))
"""
    write_container(run, tmp_path / "image")
    given, read = printed(program, str(tmp_path / "image" / "leptonai.json"))
    assert read == given
