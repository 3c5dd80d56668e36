"""What a decision sets going: retraining, comparison, a trial in the shadow, promotion, rollback.

Each stage leaves its files whole, and is noted in the journal when it is done. A stage that was
killed before that is repeated.
"""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lepton_lib.artefacts import STEPS, Run
from lepton_lib.cases import Case, load_case
from lepton_lib.cases.columns import TARGET, TimestampColumn
from lepton_lib.data import encode, read_table
from lepton_lib.evaluation import paired_difference
from lepton_lib.metrics import log_loss, mean_absolute_error
from lepton_lib.monitoring import MIN_ROWS, Interval, choose_model
from lepton_lib.operations.records import Act
from lepton_lib.operations.watched import WatchedRun, block_of, logged_answers
from lepton_lib.runs import find_notebook, run_loop
from lepton_lib.serving import releases
from lepton_lib.utils import sha256_of, to_toml


def advance(watched: WatchedRun, notify: Callable[[str], None]) -> None:
    """Take every act as many stages on as it can go now.

    Raises:
        RunError: The service's releases can't be changed.
        NotebookError: A notebook failed in retraining.
    """
    for act in watched.journal.acts():
        reached: Act | None = act
        while reached and not reached.over:
            stage = _roll_back if act.action == "roll back" else _AFTER[reached.stage]
            if reached := stage(watched, reached):
                notify(f"window {act.window}: {act.action}: {reached.stage}")


def _roll_back(watched: WatchedRun, act: Act) -> Act:
    journal = watched.journal
    if not act.content.from_version:
        act = journal.advance(act, act.stage, from_version=watched.current_version)
    # else this stage was killed: it may have rolled back already
    if watched.current_version == act.content.from_version:
        releases.roll_back(watched.run.folder, trust=watched.trust)
    return journal.advance(act, "rolled back", to=watched.current_version)


def _gather(watched: WatchedRun, act: Act) -> Act:
    journal = watched.journal
    labelled = watched.read_log(journal.labelled(watched.log))
    champion = watched.current_version
    rows, filled = enlarge_case(watched.case, labelled, watched.retraining(act.window))
    content = {"champion": champion, "rows": rows, "served": len(labelled), "filled": filled}
    return journal.advance(act, "gathered", **content)


def enlarge_case(case: Case, labelled: pd.DataFrame, folder: Path) -> tuple[int, list[str]]:
    """Write the case's own rows and labelled served ones as a case, ``folder/<case's name>``.

    Args:
        case: The case.
        labelled: Served rows, as `lepton_lib.serving.read_log` gives them, each with its label.
        folder: Made if need be.

    Returns:
        How many rows are the case's own, and the columns that had to be filled.
    """
    raw = read_table(case)
    served, filled = _as_cells(case, labelled, raw)
    table = pd.concat([raw, served])
    headers = {column.name: column.header for column in case.columns} | {TARGET: case.target.column}
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as aside:
        place = Path(aside) / case.name
        place.mkdir()
        table.rename(columns=headers).to_csv(
            place / "table.csv",
            index=False,
            sep=case.data.delimiter,
            quoting=csv.QUOTE_MINIMAL,
            encoding="utf-8",
        )
        text = _case_toml(case, sha256_of(place / "table.csv"))
        (place / "case.toml").write_text(text, encoding="utf-8")
        shutil.rmtree(folder / case.name, ignore_errors=True)  # left by a stage that was killed
        place.rename(folder / case.name)
    return len(raw), filled


def _as_cells(
    case: Case, labelled: pd.DataFrame, raw: pd.DataFrame
) -> tuple[pd.DataFrame, list[str]]:
    """Served rows as cells of the case's table, and the columns that were filled."""
    served, filled = pd.DataFrame(index=labelled.index), []
    for column in case.columns:
        name, splits = column.name, column.name == case.split.column
        if column.role == "input":
            served[name] = column.to_text(labelled[name])
        elif splits and case.split.method == "given":
            served[name] = "train"
        elif splits and case.split.method == "time" and isinstance(column, TimestampColumn):
            served[name] = column.to_text(labelled["log.time"])
        elif column.nullable:
            served[name] = ""
        else:  # no request has it and no model sees it; but a row without it would be dropped
            served[name] = raw[name].mode().iloc[0]
            filled.append(name)
    classes = [entry.values[0] for entry in case.target.classes]
    served[TARGET] = [classes[int(y)] if classes else repr(y) for y in labelled[TARGET]]
    return served.astype(object).where(served.notna(), "").astype(str), filled


def _case_toml(case: Case, digest: str) -> str:
    """The case.toml for another table, without [records], which don't hold the served rows."""
    keys = tomllib.loads(case.path("case.toml").read_text(encoding="utf-8-sig"))
    keys.pop("records", None)
    keys["data"] |= {"file": "table.csv", "sha256": digest, "encoding": "utf-8"}
    keys["data"] |= {"skip_rows": 0, "duplicates": "drop"}
    return "".join(f"{key} = {to_toml(value)}\n" for key, value in keys.items())


def _train(watched: WatchedRun, act: Act) -> Act:
    """Run notebooks 01 to 04 on the enlarged case, with the champion's own parameters."""
    folder, steps = watched.retraining(act.window), STEPS[1:5]
    manifest = watched.home_of(act.content.champion).manifest["steps"]
    parameters: dict[str, Any] = {}
    for step in steps:
        parameters |= manifest[step]["parameters"]
    parameters["case"] = watched.case.name
    with _case_path(folder):
        notebooks = [find_notebook(step) for step in steps]
        run_loop(run_dir=folder / "run", parameters=parameters, notebooks=notebooks)
    return watched.journal.advance(act, "trained")


@contextlib.contextmanager
def _case_path(place: Path) -> Iterator[None]:
    """Let cases in that folder be found first, also by notebooks."""
    before = os.environ.get("LEPTON_DATASETS")
    os.environ["LEPTON_DATASETS"] = os.pathsep.join(filter(None, (str(place.absolute()), before)))
    try:
        yield
    finally:
        del os.environ["LEPTON_DATASETS"]
        if before is not None:
            os.environ["LEPTON_DATASETS"] = before


def _compare(watched: WatchedRun, act: Act) -> Act:
    """The gate, then both models on rows that neither has learnt from; the champion stays if either fails."""
    challenger = Run(watched.retraining(act.window) / "run")
    version = watched.scorer(challenger).version
    gate = challenger.read_json("evaluation/gate.json")
    differences = _differences(watched, act)
    failed = [entry["name"] for entry in gate["criteria"] if not entry["passed"]]
    worse = [name for name, (_, _, high) in differences.items() if high < 0]
    reasons = [f"the gate is closed: {', '.join(failed)}"] if failed else []
    reasons += [f"certainly worse on {', '.join(worse)}"] if worse else []
    reasons += ["the same model again"] if version == act.content.champion else []
    content = {"challenger": version, "gate": gate["passed"], "differences": differences}
    stage = "kept" if reasons else "shadow"
    return watched.journal.advance(act, stage, **content, reasons=reasons)


def _shadow(watched: WatchedRun, act: Act) -> Act | None:
    """Let the challenger answer what the champion was asked since, then decide.

    It answers the requests that the log holds, after the champion: no client waits for two models,
    and a challenger that fails can't spoil an answer. How fast it would answer under the service's
    load isn't measured here; the gate measures its latency alone.
    """
    case, journal, champion = watched.case, watched.journal, act.content.champion
    windows = journal.judged(after=act.window)
    if len(set(windows.values())) < case.policy.shadow_windows:
        return None
    if watched.current_version != champion:
        reason = "another model is at work by now: the comparison is void"
        return journal.advance(act, "kept", reasons=[reason])
    folder, live = watched.retraining(act.window), watched.read_log(windows)
    live = live[live["log.model_version"] == champion]
    old = logged_answers(case, live)
    challenger = watched.scorer(Run(folder / "run"))
    new = challenger.probabilities(encode(live.fillna({TARGET: 0}), case)[0])
    answers = {f"champion_{k}": old[:, k] for k in range(old.shape[1])}
    answers |= {f"challenger_{k}": new[:, k] for k in range(new.shape[1])}
    table = pd.DataFrame({"label": live[TARGET], **answers}, index=live.index)
    table.to_parquet(folder / "shadow.parquet")
    differences = _differences(watched, act, live[live[TARGET].notna()])
    deciding = "served rows" if "served rows" in differences else "test rows"
    decision = choose_model(differences, deciding=deciding)
    return journal.advance(
        act,
        "promoting" if decision.action == "promote" else "kept",
        differences=differences,
        shadowed=len(live),
        apart=float(np.abs(old - new).mean()),
        reasons=list(decision.reasons),
    )


def _promote(watched: WatchedRun, act: Act) -> Act:
    folder, trust = watched.run.folder, watched.trust
    service = watched.retraining(act.window) / "run" / "service"
    releases.promote(folder, releases.install(folder, service, trust=trust), trust=trust)
    return watched.journal.advance(act, "promoted")


_AFTER: dict[str, Callable[[WatchedRun, Act], Act | None]] = {
    "decided": _gather,
    "gathered": _train,
    "trained": _compare,
    "shadow": _shadow,
    "promoting": _promote,
}


def _differences(
    watched: WatchedRun, act: Act, live: pd.DataFrame | None = None
) -> dict[str, Interval]:
    """Champion's mean loss minus challenger's on served and on test rows that neither has learnt from.

    A set of fewer than `MIN_ROWS` rows is left out.
    """
    case = watched.case
    old = watched.home_of(act.content.champion)
    new = Run(watched.retraining(act.window) / "run")
    models = [watched.scorer(run) for run in (old, new)]
    served, tested = _test_rows(watched, act, old, new)
    # A request that repeats a row which was learnt from, or compared already, proves nothing.
    seen = {
        row.tobytes()
        for run in (old, new)
        for part in ("train", "validation")
        for row in encode(pd.read_parquet(run.path(f"data/{part}.parquet")), case)[0]
    }
    differences: dict[str, Interval] = {}
    for name, rows in (("served rows", pd.concat([served, live])), ("test rows", tested)):
        inputs, labels = encode(rows, case)
        fresh = np.zeros(len(inputs), dtype=bool)
        for position, row in enumerate(inputs):
            fresh[position] = row.tobytes() not in seen
            seen.add(row.tobytes())
        if (n := int(fresh.sum())) >= MIN_ROWS:
            differences[name] = paired_difference(
                log_loss if case.classes else mean_absolute_error,
                labels[fresh],
                *(model.probabilities(inputs[fresh]) for model in models),
                seed=0,
                n=500,
                block=min(block_of(old), n),
            )
    return differences


def _test_rows(
    watched: WatchedRun, act: Act, old: Run, new: Run
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The challenger's test rows: served ones, and those that the champion's test rows hold, too."""
    case, n = watched.case, act.content.rows
    test, before = (pd.read_parquet(run.path("data/test.parquet")) for run in (new, old))
    # A row's line differs between the two tables; its place among the case's own rows doesn't.
    lines = read_table(load_case(watched.retraining(act.window) / case.name)).index
    retrained = old.folder != watched.run.folder
    own = read_table(load_case(old.folder.parent / case.name if retrained else case.folder)).index
    tested = lines[:n][own[:n].isin(before.index)]
    return test[test.index > lines[n - 1]], test[test.index.isin(tested)]
