"""The taught models and the usual ones on the same splits of the credit data, paired."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from lepton_lib import metrics
from lepton_lib.cases import Case, load_case
from lepton_lib.data import clean, encode, read_table
from lepton_lib.trainer import fit_model
from tests.benchmarks.timing import Row

SPLITS = 20
Predict = Callable[[pd.DataFrame, np.ndarray, pd.DataFrame, int], np.ndarray]


def rows() -> list[Row]:
    """Mean AUC and log loss with standard errors, paired with the taught ensemble."""
    case = load_case("credit")
    frame, _ = clean(read_table(case), case)
    labels = frame["target"].to_numpy()
    table = _with_features(frame, case)
    scores: dict[str, list[tuple[float, float]]] = {}
    splitter = StratifiedShuffleSplit(SPLITS, test_size=0.25, random_state=0)
    for seed, (train, test) in enumerate(splitter.split(table, labels)):
        for name, probability in _ours(case, frame.iloc[train], frame.iloc[test], seed).items():
            scores.setdefault(name, []).append(_judge(labels[test], probability))
        for name, predict in _peers().items():
            positive = predict(table.iloc[train], labels[train], table.iloc[test], seed)
            probability = np.column_stack([1 - positive, positive])
            scores.setdefault(name, []).append(_judge(labels[test], probability))
    best = np.array(scores["ensemble of 8 MLPs (taught)"])
    result: list[Row] = []
    for name, pairs in scores.items():
        values = np.array(pairs)  # (splits, 2)
        mean, error = values.mean(0), values.std(0, ddof=1) / np.sqrt(SPLITS)
        gap = best - values
        lead, lead_error = gap.mean(0), gap.std(0, ddof=1) / np.sqrt(SPLITS)
        text = f"AUC {mean[0]:.4f} ± {error[0]:.4f}, log loss {mean[1]:.4f} ± {error[1]:.4f}"
        if name != "ensemble of 8 MLPs (taught)":
            text += f"; ensemble ahead by {lead[0]:+.4f} ± {lead_error[0]:.4f} AUC"
            text += f" and {-lead[1]:+.4f} ± {lead_error[1]:.4f} log loss"
        result.append((f"credit, {SPLITS} stratified 75/25 splits: {name}", text, "ensemble ahead"))
    return result


def _judge(labels: np.ndarray, probability: np.ndarray) -> tuple[float, float]:
    return metrics.area_under_curve(labels, probability[:, 1]), metrics.log_loss(
        labels, probability
    )


def _with_features(frame: pd.DataFrame, case: Case) -> pd.DataFrame:
    """The inputs and the case's features, so that every model sees the same."""
    table = frame[[column.name for column in case.inputs]].copy()
    for feature in case.features:
        table[feature.name] = feature.formula({name: frame[name] for name in feature.formula.names})
    return table.replace([np.inf, -np.inf], np.nan)


def _ours(case: Case, train: pd.DataFrame, test: pd.DataFrame, seed: int) -> dict[str, np.ndarray]:
    """The taught models, their number of epochs fixed, and the default recipe."""
    encoded, (inputs, _) = encode(train, case), encode(test, case)
    default, _ = fit_model(case, encoded, None, seed=seed, progress=False)
    options: dict[str, Any] = {"seed": seed, "progress": False, "epochs": 15}
    return {
        "default of the kit: MLPs and trees, blended": default.predict(inputs),
        "ensemble of 8 MLPs (taught)": fit_model(case, encoded, None, kind="ensemble", **options)[
            0
        ].predict(inputs),
        "one MLP (taught)": fit_model(case, encoded, None, kind="mlp", **options)[0].predict(
            inputs
        ),
        "linear, piecewise encoding (taught)": fit_model(
            case, encoded, None, kind="linear", lr=1e-2, **options
        )[0].predict(inputs),
    }


def _peers() -> dict[str, Predict]:
    peers: dict[str, Predict] = {
        "logistic regression (scikit-learn)": _logistic,
        "HistGradientBoosting, default": _boosting,
    }
    for name, module, predict in (
        ("CatBoost, default", "catboost", _catboost),
        ("XGBoost, default", "xgboost", _xgboost),
        ("LightGBM, default", "lightgbm", _lightgbm),
    ):
        if importlib.util.find_spec(module):
            peers[name] = predict
    return peers


def _logistic(train: pd.DataFrame, labels: np.ndarray, test: pd.DataFrame, _: int) -> np.ndarray:
    numbers = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
    columns = make_column_transformer(
        (numbers, make_column_selector(dtype_include="number")),
        (OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_include="category")),
    )
    return (
        make_pipeline(columns, LogisticRegression(max_iter=2000))
        .fit(train, labels)
        .predict_proba(test)[:, 1]
    )


def _boosting(train: pd.DataFrame, labels: np.ndarray, test: pd.DataFrame, seed: int) -> np.ndarray:
    model = HistGradientBoostingClassifier(categorical_features="from_dtype", random_state=seed)
    return model.fit(train, labels).predict_proba(test)[:, 1]


def _catboost(train: pd.DataFrame, labels: np.ndarray, test: pd.DataFrame, seed: int) -> np.ndarray:
    from catboost import CatBoostClassifier

    names = list(train.select_dtypes("category"))

    def as_text(table: pd.DataFrame) -> pd.DataFrame:  # CatBoost takes no missing category
        return table.assign(
            **{name: table[name].astype(object).fillna("missing").astype(str) for name in names}
        )

    model = CatBoostClassifier(
        verbose=0, cat_features=names, random_seed=seed, thread_count=2, allow_writing_files=False
    )
    return model.fit(as_text(train), labels).predict_proba(as_text(test))[:, 1]


def _xgboost(train: pd.DataFrame, labels: np.ndarray, test: pd.DataFrame, seed: int) -> np.ndarray:
    from xgboost import XGBClassifier

    model = XGBClassifier(enable_categorical=True, random_state=seed, n_jobs=2)
    return model.fit(train, labels).predict_proba(test)[:, 1]


def _lightgbm(train: pd.DataFrame, labels: np.ndarray, test: pd.DataFrame, seed: int) -> np.ndarray:
    from lightgbm import LGBMClassifier

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LGBMClassifier(random_state=seed, verbose=-1, n_jobs=2)
        return np.asarray(model.fit(train, labels).predict_proba(test))[:, 1]
