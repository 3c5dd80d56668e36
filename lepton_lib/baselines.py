"""Models so simple that a model must beat them to be worth its cost. Knows cases and arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lepton_lib.cases import Case
from lepton_lib.cases.columns import InputColumn


def baseline_answers(
    case: Case, train: tuple[np.ndarray, np.ndarray], inputs: np.ndarray
) -> dict[str, np.ndarray]:
    """Answers of models so simple that a model must beat them to be worth its cost, by name.

    They are the training rows' class shares, and a linear model of the columns that the charter
    names as ``baseline``; for regression the training median, and medians by those columns (by the
    parts of a time where none are named), one more column at a time.

    Args:
        case: The case.
        train: Raw inputs ``(n, d)`` and labels ``(n,)``, from `lepton_lib.data.encode`.
        inputs: Those of the rows that are judged ``(m, d)``.

    Returns:
        ``(m, n_classes)`` or ``(m, 1)`` each.
    """
    chosen = [c for c in case.inputs if c.name in case.charter.baseline]
    if case.classes:
        shares = np.bincount(train[1], minlength=len(case.classes)) / len(train[1])
        answers = {"class shares": np.tile(shares, (len(inputs), 1))}
        if chosen:
            name = f"linear model of {', '.join(column.name for column in chosen)}"
            answers[name] = _linear_answers(case, _places(case, chosen), train, inputs)
        return answers
    chosen = chosen or [column for column in case.inputs if column.kind == "timestamp"]
    places = _places(case, chosen)
    learnt, asked = (_grouped(case, places, train[0], rows) for rows in (train[0], inputs))
    answers = {"training median": _median_answers(learnt[:, :0], train[1], asked[:, :0])}
    for end in range(1, len(places) + 1):
        by = ", ".join(case.fields[place].name.rpartition(".")[2] for place in places[:end])
        answers[f"medians by {by}"] = _median_answers(learnt[:, :end], train[1], asked[:, :end])
    return answers


def _places(case: Case, columns: Sequence[InputColumn]) -> list[int]:
    """Where the columns' fields stand in the raw inputs."""
    names = {field.name for column in columns for field in column.fields}
    return [place for place, field in enumerate(case.fields) if field.name in names]


def _linear_answers(
    case: Case, places: list[int], train: tuple[np.ndarray, np.ndarray], inputs: np.ndarray
) -> np.ndarray:
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = [place for place in places if case.fields[place].kind == "number"]
    words = [place for place in places if place not in numbers]
    encoder = make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numbers),
        (OneHotEncoder(handle_unknown="ignore"), words),
    )
    model = make_pipeline(encoder, LogisticRegression(max_iter=1000)).fit(*train)
    return np.asarray(model.predict_proba(inputs))


def _grouped(case: Case, places: list[int], reference: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The fields at ``places`` as groups ``(n, len(places))``: a number by fifths."""
    groups = rows[:, places].astype(np.float64)
    for column, place in enumerate(places):
        if case.fields[place].kind == "number":
            edges = np.nanquantile(reference[:, place], [0.2, 0.4, 0.6, 0.8])
            groups[:, column] = edges.searchsorted(rows[:, place])
    return groups


def _median_answers(learnt: np.ndarray, targets: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Medians ``(m, 1)`` of the targets of the same groups, or of all where there are none."""
    overall, columns = float(np.median(targets)), list(range(learnt.shape[1]))
    if not columns:
        return np.full((len(asked), 1), overall)
    table = pd.DataFrame(learnt).assign(median=targets.astype(np.float64))
    medians = table.groupby(columns)["median"].median().reset_index()
    found = pd.DataFrame(asked).merge(medians, how="left", on=columns)["median"]
    return found.fillna(overall).to_numpy()[:, None]
