"""The ground: standardisation, seeds, whole writes and readable JSON."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lepton_lib import utils
from lepton_lib.utils import (
    first_line,
    free_port,
    normalize,
    sha256_of,
    to_json,
    write_atomic,
)


@pytest.fixture
def table():
    return np.random.default_rng(0).normal(3, 2, size=(50, 4))


def test_normalize_agrees_between_types(table):
    """Arrays, tensors and data frames are standardised alike, and stay what they are."""
    expected = (table - table.mean(0)) / table.std(0)
    frame = normalize(pd.DataFrame(table, columns=list("abcd")))
    assert isinstance(frame, pd.DataFrame)
    assert list(frame) == list("abcd")
    np.testing.assert_allclose(frame, expected, atol=1e-12)
    np.testing.assert_allclose(normalize(table), expected, atol=1e-12)
    np.testing.assert_allclose(normalize(torch.tensor(table)).numpy(), expected, atol=1e-12)


def test_normalize_by_reference_rows(table):
    """With reference rows only their statistics are used, whatever the other rows hold."""
    train, other = table[:30], table[30:]
    expected = (other - train.mean(0)) / train.std(0)
    np.testing.assert_allclose(normalize(other, reference=train), expected, atol=1e-12)
    spoiled = other.copy()
    spoiled[0] = 1e6
    np.testing.assert_array_equal(
        normalize(spoiled, reference=train)[1:], normalize(other, reference=train)[1:]
    )


@pytest.mark.parametrize("value", [0.0, 0.1, 1e9 + 0.1, 7.0])
@pytest.mark.parametrize("kind", [np.asarray, torch.tensor, pd.DataFrame])
def test_constant_columns_become_zero(kind, value):
    """A constant column becomes zero, also where rounding leaves a tiny deviation."""
    rows = [[value, float(i)] for i in range(11)]
    result = np.asarray(normalize(kind(rows)))
    assert (result[:, 0] == 0).all()
    assert result[:, 1].std() == pytest.approx(1)


def test_normalize_skips_gaps_of_a_frame():
    """A gap in a data frame stays a gap, and the statistics are those of the other rows."""
    result = normalize(pd.DataFrame({"a": [1.0, np.nan, 3.0]}))
    assert result["a"].tolist() == pytest.approx([-1, np.nan, 1], nan_ok=True)


def test_write_atomic_writes_text_and_bytes(tmp_path):
    """Text and bytes arrive whole, readable by others, with nothing left beside them."""
    file = tmp_path / "a.txt"
    write_atomic(file, "grün")
    assert file.read_text(encoding="utf-8") == "grün"
    write_atomic(file, b"\x00\x01")
    assert file.read_bytes() == b"\x00\x01"
    assert file.stat().st_mode & 0o777 == 0o644
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("at", ["fsync", "replace"])
def test_an_interrupted_write_keeps_the_old_file(tmp_path, monkeypatch, at, error):
    """A write that is cut off leaves the old file as it was, and no half-written one."""
    file = tmp_path / "a.txt"
    write_atomic(file, "old")

    def fail(*_):
        raise error

    monkeypatch.setattr(utils.os, at, fail)
    with pytest.raises(type(error)):
        write_atomic(file, "new")
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_json_has_no_nan():
    """NaN and infinities become null, NumPy and torch values plain, with a final newline."""
    value = {
        "a": np.float32(0.5),
        "b": [np.nan, float("inf"), torch.tensor(2)],
        3: (np.int64(1), True, None, "ü"),
        "c": np.array([[1.0, np.nan]]),
        "d": Path("x") / "y",
    }
    text = to_json(value)
    assert text.endswith("}\n")
    assert "ü" in text
    plain = {
        "a": 0.5,
        "b": [None, None, 2],
        "3": [1, True, None, "ü"],
        "c": [[1.0, None]],
        "d": "x/y",
    }
    assert json.loads(text) == plain


def test_hash_of_a_file(tmp_path):
    """A file's hash is that of its bytes."""
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_free_port_can_be_bound():
    """The port that is named free can be listened on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))


def test_first_line_of_an_error():
    """An exception is summed up by its kind and first line, even without a message."""
    assert first_line(ValueError("one\ntwo")) == "ValueError: one"
    assert first_line(KeyError()) == "KeyError: "
