"""The doctor names each problem and its mend, and is silent on what differs between sound machines."""

import os
import sys
from importlib import metadata
from pathlib import Path

import pytest

from lepton_lib import doctor


def finding(name):
    return next(found for found in doctor.examine() if found.name == name)


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """Puts a kernelspec named python3, with this command, before all others."""

    def put(content):
        folder = tmp_path / "jupyter" / "kernels" / "python3"
        folder.mkdir(parents=True)
        (folder / "kernel.json").write_text(content)
        monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))

    return put


def test_sound_machine():
    """Where nothing is wrong, the report says so in the same words everywhere."""
    report = doctor.examine()
    assert report.ok, report.to_text()
    assert report.to_text().splitlines() == [
        "ok       Python",
        "ok       packages",
        "ok       Jupyter kernel",
        "ok       write access",
        "ok       loopback port",
        "ok       memory",
        "ok       GPU (optional)",
        "Ready.",
    ]
    assert repr(report) == report.to_text()
    for text in (report.to_text(), report._repr_html_()):
        assert str(Path.cwd()) not in text
        assert "3.1" not in text


def test_details():
    """With details, versions, places and sizes are told."""
    text = doctor.examine().to_text(details=True)
    assert sys.executable in text
    assert "GiB" in text


def test_old_python(monkeypatch):
    """A Python that is too old is named."""
    monkeypatch.setattr(doctor.sys, "version_info", (3, 9, 1, "final", 0))
    found = finding("Python")
    assert not found.ok
    assert found.detail.startswith("3.9.1 at ")
    assert "Python 3.11 or newer" in found.remedy


def test_packages(monkeypatch):
    """A package that is missing or of a wrong version is named with what is needed."""
    wanted = ["numpy>=99", "no-such-package>=1", "torch", 'other>=1; extra == "test"']
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: wanted)
    found = finding("packages")
    assert not found.ok
    numpy = metadata.version("numpy")
    assert found.detail == f"numpy {numpy} is installed, >=99 is needed; no-such-package is missing"
    assert "make setup" in found.remedy


def test_course_not_installed(monkeypatch):
    """A course that was only copied is named."""
    monkeypatch.setattr(doctor, "DISTRIBUTION", "no-such-course")
    assert finding("packages").detail == "the course itself isn't installed"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            '{"argv": ["/elsewhere/bin/python", "-m", "ipykernel_launcher"]}',
            "python3 runs /elsewhere/bin/python",
        ),
        ('{"argv": []}', "no kernel named python3"),
        ("{", "no kernel named python3"),
    ],
)
def test_kernel_of_another_python(kernel, content, said):
    """A kernel that runs another Python than the course's, or none, is named."""
    kernel(content)
    found = finding("Jupyter kernel")
    assert not found.ok
    assert said in found.detail
    assert "ipykernel install" in found.remedy


def test_kernel_of_the_same_python(kernel):
    """A kernelspec that names no folder runs the Python that Jupyter runs in."""
    kernel('{"argv": ["python", "-m", "ipykernel_launcher"]}')
    assert finding("Jupyter kernel").ok


def test_no_write_access():
    """A folder that can't be written to is named."""
    report = doctor.examine(Path("/proc"))
    assert not report.ok
    text = report.to_text()
    assert "PROBLEM  write access      /proc: " in text
    assert "-> Change its permissions" in text
    assert text.endswith("1 problem to mend.")
    assert "/proc: " in report._repr_html_()


def test_no_port(monkeypatch):
    """A machine without a loopback interface is named."""

    def fail():
        raise OSError("no address")

    monkeypatch.setattr(doctor, "free_port", fail)
    found = finding("loopback port")
    assert (found.ok, found.detail) == (False, "no address")


def test_little_memory(monkeypatch):
    """Too little memory is named, with how much is there."""
    real = os.sysconf
    monkeypatch.setattr(
        doctor.os, "sysconf", lambda name: 100_000 if name == "SC_PHYS_PAGES" else real(name)
    )
    found = finding("memory")
    assert not found.ok
    assert found.detail == "0.4 GiB"


def test_broken_torch(monkeypatch):
    """A torch that can't be imported is a problem, and no crash."""
    monkeypatch.setitem(sys.modules, "torch", None)
    found = finding("GPU (optional)")
    assert not found.ok
    assert "torch can't be imported" in found.detail
