"""What a decision sets going: retraining, comparison, a trial in the shadow, promotion, rollback.

Each stage leaves its files whole, and is noted in the journal when it is done. A stage that was
killed before that is repeated.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lepton_lib.artefacts import STEPS, Run
from lepton_lib.cases import Case, load_case
from lepton_lib.cases.columns import TimestampColumn
from lepton_lib.cases.sections import TARGET
from lepton_lib.data import encode, read_table
from lepton_lib.intervals import paired_difference
from lepton_lib.metrics import log_loss, mean_absolute_error
from lepton_lib.monitoring import MIN_ROWS, Interval, choose_model
from lepton_lib.operations.records import Act
from lepton_lib.operations.watched import WatchedRun, block_of, logged_answers, sample
from lepton_lib.runs import find_notebook, run_loop
from lepton_lib.serving import read_log, releases
from lepton_lib.utils import CASE_VARIABLE, sha256_of, to_toml


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
    labelled = read_log(journal.log, watched.case, journal.labelled())
    champion = watched.current_version
    rows, filled = enlarge_case(watched.case, labelled, watched.retraining(act.window))
    content = {"champion": champion, "rows": rows, "served": len(labelled), "filled": filled}
    return journal.advance(act, "gathered", **content)


def enlarge_case(case: Case, labelled: pd.DataFrame, folder: Path) -> tuple[int, list[str]]:
    """Write the case's own rows, and then labelled ones of the log, as a case of the same name.

    Returns how many rows are the case's own, and the columns that had to be filled.
    """
    raw = read_table(case)
    served, filled = _as_cells(case, labelled, raw)
    headers = {column.name: column.header for column in case.columns} | {TARGET: case.target.column}
    table = pd.concat([raw, served]).rename(columns=headers)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # it holds what people asked
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as aside:
        place = Path(aside) / case.name
        place.mkdir()
        table.to_csv(place / "table.csv", index=False, sep=case.data.delimiter)
        (place / "table.csv").chmod(0o600)
        text = _case_toml(case, sha256_of(place / "table.csv"))
        (place / "case.toml").write_text(text, encoding="utf-8")
        shutil.rmtree(folder / case.name, ignore_errors=True)  # left by a stage that was killed
        place.rename(folder / case.name)
    return len(raw), filled


def _as_cells(case: Case, log: pd.DataFrame, raw: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Labelled rows of the log as cells of the case's table, and the columns that were filled."""
    served, filled = pd.DataFrame(index=log.index), []
    for column in case.columns:
        name, splits = column.name, column.name == case.split.column
        if column.role == "input":
            served[name] = column.to_text(log[name])
        elif splits and case.split.method == "given":
            served[name] = "train"
        elif splits and case.split.method == "time" and isinstance(column, TimestampColumn):
            served[name] = column.to_text(log["log.time"])
        elif column.nullable:
            served[name] = ""
        else:  # no request has it and no model sees it; but a row without it would be dropped
            served[name] = raw[name].mode().iloc[0]
            filled.append(name)
    classes = [entry.values[0] for entry in case.target.classes]
    labels = log[TARGET]
    served[TARGET] = (
        [classes[int(y)] for y in labels] if classes else case.target.write_numbers(labels)
    )
    return served.astype(object).where(served.notna(), "").astype(str), filled


def _case_toml(case: Case, digest: str) -> str:
    """The case.toml for another table, without [records], which don't hold the served rows."""
    keys = tomllib.loads(case.path("case.toml").read_text(encoding="utf-8-sig"))
    keys.pop("records", None)
    keys["data"] |= {"file": "table.csv", "sha256": digest, "encoding": "utf-8"}
    keys["data"] |= {"header_line": 1, "skip_rows": 0}
    keys["data"]["duplicates"] = "keep" if case.data.duplicates == "keep" else "drop"
    return "".join(f"{key} = {to_toml(value)}\n" for key, value in keys.items())


def _train(watched: WatchedRun, act: Act) -> Act:
    """Run notebooks 01 to 04 on the enlarged case, with the champion's own parameters."""
    folder, steps = watched.retraining(act.window), STEPS[1:5]
    manifest = watched.home_of(act.content.champion).manifest["steps"]
    parameters: dict[str, Any] = {}
    for step in steps:
        parameters |= manifest[step]["parameters"]
    parameters["case"] = watched.case.name
    notebooks = [find_notebook(step) for step in steps]
    before = os.environ.get(CASE_VARIABLE, "")  # where the case is found, also by notebooks
    os.environ[CASE_VARIABLE] = str((folder / watched.case.name).absolute())
    try:
        run_loop(run_dir=folder / "run", parameters=parameters, notebooks=notebooks)
    finally:
        os.environ[CASE_VARIABLE] = before
    return watched.journal.advance(act, "trained")


def _compare(watched: WatchedRun, act: Act) -> Act:
    """Judge the gate and both models on unseen rows; the champion stays if either speaks for it."""
    challenger = Run(watched.retraining(act.window) / "run")
    version = watched.scorer(challenger).version
    gate = challenger.read_json("evaluation/gate.json")
    differences = _differences(watched, act, None)
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
    folder = watched.retraining(act.window)
    live = read_log(journal.log, case, sample([*windows]))
    live = live[live["log.model_version"] == champion]
    old, challenger = logged_answers(case, live), watched.scorer(Run(folder / "run"))
    new = challenger.probabilities(encode(live.fillna({TARGET: 0}), case)[0])
    table = pd.DataFrame({"label": live[TARGET]})
    for name, answers in (("champion", old), ("challenger", new)):
        table[[f"{name}_{k}" for k in range(answers.shape[1])]] = answers
    table.to_parquet(folder / "shadow.parquet")
    differences = _differences(watched, act, live[live[TARGET].notna()])
    deciding = "served rows" if "served rows" in differences else "test rows"
    decision = choose_model(differences, deciding=deciding)
    stage = "promoting" if decision.action == "promote" else "kept"
    content = {"differences": differences, "shadowed": len(live), "reasons": decision.reasons}
    return journal.advance(act, stage, **content, apart=float(np.abs(old - new).mean()))


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


def _differences(watched: WatchedRun, act: Act, live: pd.DataFrame | None) -> dict[str, Interval]:
    """Champion's mean loss minus challenger's, by set of rows that neither has learnt from.

    The sets are the challenger's test rows, the case's own and the served ones apart, and with the
    latter ``live`` ones. A set of fewer than `MIN_ROWS` rows is left out.
    """
    case, folder = watched.case, watched.retraining(act.window)
    runs = watched.home_of(act.content.champion), Run(folder / "run")
    models = [watched.scorer(run) for run in runs]
    last = read_table(load_case(folder / case.name)).index[act.content.rows - 1]
    test = pd.read_parquet(runs[1].path("data/test.parquet"))
    served, own = test[test.index > last], test[test.index <= last]
    # A request that repeats a row which was learnt from, or compared already, proves nothing.
    seen = {
        row.tobytes()
        for run in runs
        for part in ("train", "validation")
        for row in encode(pd.read_parquet(run.path(f"data/{part}.parquet")), case)[0]
    }
    differences: dict[str, Interval] = {}
    for name, rows in (("served rows", pd.concat([served, live])), ("test rows", own)):
        inputs, labels = encode(rows, case)
        fresh = np.zeros(len(inputs), dtype=bool)
        for position, row in enumerate(inputs):
            fresh[position] = row.tobytes() not in seen
            seen.add(row.tobytes())
        if (n := int(fresh.sum())) >= MIN_ROWS:
            metric = log_loss if case.classes else mean_absolute_error
            answers = [model.probabilities(inputs[fresh]) for model in models]
            draw = {"seed": 0, "n": 500, "block": min(block_of(runs[0]), n)}
            differences[name] = paired_difference(metric, labels[fresh], *answers, **draw)
    return differences
