"""The data set and the loader: every row once, labels beside their inputs, no second copy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from lepton_lib.data import DataLoader, Dataset
from lepton_lib.data.loading import CHUNK_ROWS
from lepton_lib.errors import DataError


def numbered(n, d=3):
    """A data set whose row ``i`` holds ``i`` everywhere, its label too."""
    labels = torch.arange(n)
    return Dataset(labels[:, None].expand(n, d).float(), labels)


def epoch(loader):
    """The labels of one pass, joined."""
    return torch.cat([labels for _, labels in loader])


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(
    ("n", "batch_size"), [(1, 64), (64, 64), (65, 64), (10, 3), (3 * CHUNK_ROWS + 5, 100)]
)
def test_every_row_comes_once(n, batch_size, shuffle):
    """An epoch holds every row once, in as many batches as the loader's length says."""
    loader = DataLoader(numbered(n), batch_size=batch_size, shuffle=shuffle)
    batches = list(loader)
    assert len(batches) == len(loader)
    assert {len(labels) for _, labels in batches[:-1]} <= {batch_size}
    assert torch.equal(epoch(batches).sort().values, torch.arange(n))


@pytest.mark.parametrize("n", [100, 2 * CHUNK_ROWS + 7])
def test_labels_stay_with_their_inputs(n):
    """In every shuffled batch each label stands beside the inputs that it came with."""
    for inputs, labels in DataLoader(numbered(n), batch_size=17, shuffle=True):
        assert torch.equal(inputs, labels[:, None].expand(-1, 3).float())


def test_orders_differ_and_repeat():
    """Two epochs come in different orders, and a generator with the same seed repeats both."""
    first, second = (
        DataLoader(numbered(500), shuffle=True, generator=torch.Generator().manual_seed(5))
        for _ in range(2)
    )
    one, two = epoch(first), epoch(first)
    assert not torch.equal(one, two)
    assert torch.equal(one, epoch(second))
    assert torch.equal(two, epoch(second))


def test_own_generator_spares_the_global_one():
    """A loader with a generator of its own draws nothing from torch's global one."""
    before = torch.get_rng_state()
    epoch(DataLoader(numbered(50), shuffle=True, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(before, torch.get_rng_state())


def test_shuffling_reaches_across_chunks():
    """The order is drawn over all rows: the first chunk holds rows from everywhere."""
    n = 4 * CHUNK_ROWS
    loader = DataLoader(
        numbered(n, 1), batch_size=64, shuffle=True, generator=torch.Generator().manual_seed(0)
    )
    first = epoch(loader)[:CHUNK_ROWS]
    assert abs(first.double().mean().item() / n - 0.5) < 0.02


def test_unshuffled_batches_are_views():
    """Unshuffled batches share the data set's memory: nothing is copied."""
    dataset = numbered(100)
    start, size = dataset.inputs.data_ptr(), dataset.inputs.untyped_storage().nbytes()
    for inputs, _ in DataLoader(dataset, batch_size=7):
        assert start <= inputs.data_ptr() < start + size


def test_shuffled_batches_hold_no_second_copy():
    """A shuffled batch keeps no more than one chunk of rows alive, however large the data set."""
    dataset = numbered(4 * CHUNK_ROWS)
    for inputs, _ in DataLoader(dataset, batch_size=64, shuffle=True):
        assert inputs.untyped_storage().nbytes() <= CHUNK_ROWS * 3 * 4


def test_float32_memory_is_shared():
    """A float32 array isn't copied on its way into a data set."""
    array = np.zeros((5, 2), dtype=np.float32)
    dataset = Dataset(array, np.zeros(5, dtype=np.int64))
    array[0, 0] = 7
    assert dataset.inputs[0, 0] == 7


def test_read_only_memory_is_taken_without_a_warning():
    """Read-only arrays of pandas become tensors; writing to those leaves the frame as it is."""
    array = np.zeros((5, 2), dtype=np.float32)
    array.flags.writeable = False
    dataset = Dataset(array, pd.Series(np.arange(5)))
    dataset.inputs[0, 0] = 7
    assert array[0, 0] == 0


@pytest.mark.parametrize(
    ("labels", "dtype"),
    [
        (np.array([0, 1], dtype=np.int8), torch.int64),
        (np.array([True, False]), torch.int64),
        (pd.Series([0.5, 1.0]), torch.float32),
        (torch.tensor([1, 2], dtype=torch.int32), torch.int64),
    ],
)
def test_labels_become_classes_or_numbers(labels, dtype):
    """Whole labels become int64 classes and others float32, from arrays, series and tensors."""
    dataset = Dataset(pd.DataFrame({"a": [1, 2], "b": [0.5, 1.5]}), labels)
    assert (dataset.inputs.dtype, dataset.labels.dtype) == (torch.float32, dtype)
    assert len(dataset) == 2


def test_indexing_and_moving():
    """A data set gives a row or a slice of both tensors, and moves both to a device."""
    dataset = numbered(6)
    inputs, labels = dataset.to("cpu")[2:4]
    assert inputs.tolist() == [[2.0] * 3, [3.0] * 3]
    assert labels.tolist() == [2, 3]


@pytest.mark.parametrize(
    ("inputs", "labels", "got"),
    [
        (np.zeros((3, 2)), np.zeros(2), r"inputs \(3, 2\) and labels \(2,\)"),
        (np.zeros((0, 2)), np.zeros(0), r"labels \(0,\)"),
        (np.zeros((3, 2)), np.zeros((3, 1)), r"labels \(3, 1\)"),
        (pd.DataFrame({"home": ["rent", "owner"]}), [0, 1], "inputs: got values of type"),
        (np.zeros((2, 1)), np.array(["good", "bad"]), "labels: got values of type"),
    ],
)
def test_what_makes_no_data_set_is_refused(inputs, labels, got):
    """Lengths that differ, no rows, a matrix of labels and words are refused, each by name."""
    with pytest.raises(DataError, match=got):
        Dataset(inputs, labels)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_has_rows(batch_size):
    """A batch of no rows is refused."""
    with pytest.raises(DataError, match="batch_size"):
        DataLoader(numbered(3), batch_size=batch_size)
