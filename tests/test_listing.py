"""The course's first listing, with its defects fixed, as notebook 02 shows it."""

from __future__ import annotations

import pytest
import torch

from lepton_lib import data as library
from lepton_lib.cases import load_case
from lepton_lib.errors import MetricError


@pytest.fixture(scope="module")
def loans():
    """Frames and labels of `credit_tiers`, train and test; medians of train fill the gaps."""
    tiers = load_case("credit_tiers")
    frame, _ = library.clean(library.read_table(tiers), tiers)
    parts = library.split(frame, tiers, seed=0)
    numbers = [column.name for column in tiers.inputs if column.kind == "number"]
    gaps = parts["train"][numbers].median()
    return [
        (parts[part][numbers].fillna(gaps), parts[part]["target"]) for part in ("train", "test")
    ]


def test_the_listing_reads_and_runs(loans):
    """With the course's imports the listing trains on three tiers and beats guessing."""
    from lepton_lib.data import DataLoader, Dataset
    from lepton_lib.metrics import AUC
    from lepton_lib.models import LinearModel
    from lepton_lib.optimizers import AdamW
    from lepton_lib.trainer import Trainer
    from lepton_lib.utils import normalize

    (train_frame, train_labels), (test_frame, test_labels) = loans
    X = normalize(train_frame)
    train_data = Dataset(X, train_labels)
    test_data = Dataset(normalize(test_frame, reference=train_frame), test_labels)
    criterion = torch.nn.CrossEntropyLoss()

    torch.manual_seed(0)
    model = LinearModel(input_size=X.shape[1], output_size=3)
    optimizer = AdamW(model.parameters(), lr=1e-3)
    train_loader = DataLoader(train_data, batch_size=64, shuffle=True)
    for _ in range(3):
        for batch in train_loader:
            inputs, labels = batch
            optimizer.zero_grad()
            outputs = model(inputs)
            loss = criterion(outputs, labels)
            loss.backward()
            optimizer.step()
    auc = AUC()
    for inputs, labels in DataLoader(test_data, batch_size=64):
        auc.add(model(inputs), labels)
    assert auc.average() > 0.65

    torch.manual_seed(0)
    twin = LinearModel(input_size=X.shape[1], output_size=3)
    trainer = Trainer(
        twin, AdamW(twin.parameters(), lr=1e-3), epochs=3, device="cpu", progress=False
    )
    trainer.fit(DataLoader(train_data, batch_size=64, shuffle=True))
    assert torch.equal(model.linear.weight, twin.linear.weight)


def test_a_frame_is_no_tensor(loans):
    """Handing the network a data frame fails with torch's own words."""
    from lepton_lib.models import LinearModel

    frame = loans[0][0]
    with pytest.raises(TypeError, match="must be Tensor, not DataFrame"):
        LinearModel(input_size=frame.shape[1], output_size=3)(frame)


def test_a_sum_of_graphs_cannot_go_back_twice(loans):
    """The loss that was summed with its graph fails at the second batch."""
    from lepton_lib.data import DataLoader, Dataset
    from lepton_lib.models import LinearModel

    frame, labels = loans[0]
    model = LinearModel(input_size=frame.shape[1], output_size=3)
    losses = [
        torch.nn.functional.cross_entropy(model(inputs), batch_labels)
        for (inputs, batch_labels), _ in zip(
            DataLoader(Dataset(frame, labels)), range(2), strict=False
        )
    ]
    losses[0].backward()
    total = losses[0] + losses[1]
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        total.backward()


def test_a_mean_of_batch_areas_is_another_number(loans):
    """Rows sorted by tier: each batch has one class and no area, all rows together have one."""
    from lepton_lib.metrics import AUC, area_under_curve

    labels = torch.tensor((loans[1][1].sort_values() == 2).to_numpy().astype(int))
    scores = torch.linspace(0, 1, len(labels))
    with pytest.raises(MetricError, match="0 positive"):
        area_under_curve(labels[:64], scores[:64])
    auc = AUC()
    for batch, batch_labels in zip(scores.split(64), labels.split(64), strict=True):
        auc.add(batch, batch_labels)
    assert auc.average() == 1
