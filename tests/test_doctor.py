"""The doctor names each problem and its fix, and shows the same on all sound machines."""

import os
import sys
from importlib import metadata
from pathlib import Path

import pytest

from lepton_lib import doctor


def check(name):
    return next(one for one in doctor.examine() if one.name == name)


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
    """With details, versions, paths and sizes are shown."""
    text = doctor.examine().to_text(details=True)
    assert sys.executable in text
    assert "GiB" in text


def test_old_python(monkeypatch):
    """A Python that is too old is named."""
    monkeypatch.setattr(doctor.sys, "version_info", (3, 9, 1, "final", 0))
    result = check("Python")
    assert not result.ok
    assert result.detail.startswith("3.9.1 at ")
    assert "Python 3.11 or newer" in result.remedy


def test_packages(monkeypatch):
    """A package that is missing or of a wrong version is named with what is needed."""
    requirements = ["numpy>=99", "no-such-package>=1", "torch", 'other>=1; extra == "test"']
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: requirements)
    result = check("packages")
    assert not result.ok
    numpy = metadata.version("numpy")
    assert (
        result.detail == f"numpy {numpy} is installed, >=99 is needed; no-such-package is missing"
    )
    assert "make setup" in result.remedy


def test_course_not_installed(monkeypatch):
    """A course that was only copied is named."""
    monkeypatch.setattr(doctor, "DISTRIBUTION", "no-such-course")
    result = check("packages")
    assert (result.ok, result.detail) == (False, "the course itself isn't installed")


@pytest.mark.parametrize(("extra", "ok"), [("class", False), ("test", True)])
def test_packages_of_an_extra(monkeypatch, extra, ok):
    """What the course's commands and notebooks import is needed; what its tests import isn't."""
    requirement = f'no-such-package>=1; extra == "{extra}"'
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: ["torch", requirement])
    result = check("packages")
    detail = "1 as required" if ok else "no-such-package is missing"
    assert (result.ok, result.detail) == (ok, detail)


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
    result = check("Jupyter kernel")
    assert not result.ok
    assert said in result.detail
    assert "ipykernel install" in result.remedy


def test_kernel_of_the_same_python(kernel):
    """A kernelspec that names no folder runs the Python that Jupyter runs in."""
    kernel('{"argv": ["python", "-m", "ipykernel_launcher"]}')
    assert check("Jupyter kernel").ok


def test_no_write_access():
    """A folder that can't be written to is named."""
    report = doctor.examine(Path("/proc"))
    assert not report.ok
    text = report.to_text()
    assert "PROBLEM  write access      /proc: " in text
    assert "-> Change its permissions" in text
    assert text.endswith("1 problem to fix.")
    assert "/proc: " in report._repr_html_()


def test_no_port(monkeypatch):
    """A machine without a loopback interface is named."""

    def fail():
        raise OSError("no address")

    monkeypatch.setattr(doctor, "free_port", fail)
    result = check("loopback port")
    assert (result.ok, result.detail) == (False, "no address")


def test_little_memory(monkeypatch):
    """Too little memory is named, with how much is there."""
    real = os.sysconf
    monkeypatch.setattr(
        doctor.os, "sysconf", lambda name: 100_000 if name == "SC_PHYS_PAGES" else real(name)
    )
    result = check("memory")
    assert not result.ok
    assert result.detail == "0.4 GiB"


def test_broken_torch(monkeypatch):
    """A torch that can't be imported is a problem, and no crash."""
    monkeypatch.setitem(sys.modules, "torch", None)
    result = check("GPU (optional)")
    assert not result.ok
    assert "torch can't be imported" in result.detail
