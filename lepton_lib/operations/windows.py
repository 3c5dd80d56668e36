"""Monitoring of a run folder: judge new rows and labels, record the decision, take acts further."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path

import msgspec
import pandas as pd

from lepton_lib import monitoring
from lepton_lib.artefacts import Run, exclusive_lock
from lepton_lib.cases import Case, load_case
from lepton_lib.cases.sections import TARGET
from lepton_lib.data import encode
from lepton_lib.errors import DataError
from lepton_lib.monitoring import Interval, Moments, Reference, Signals, State
from lepton_lib.operations.journal import Journal
from lepton_lib.operations.records import Drift, GapToPrevious, Group, Window, WindowSignals
from lepton_lib.operations.report import distributions, write_report
from lepton_lib.operations.retraining import advance
from lepton_lib.operations.watched import WatchedRun, block_of, logged_answers, sample
from lepton_lib.serving import read_log, signing
from lepton_lib.serving.releases import current_version, folder_of
from lepton_lib.utils import to_json


def monitor(
    run_dir: str | Path,
    *,
    act: bool = False,
    trust: Sequence[str] = (),
    now: float | None = None,
    notify: Callable[[str], None] = lambda _: None,
) -> str:
    """Judge what has come since the last window, write the report, and ``act`` on the decision.

    Called again after it was killed, at whichever moment, it goes on from there: a window's rows
    are recorded with its decision, and each stage of an act can be repeated.

    Args:
        run_dir: A run folder that was served from.
        act: Retrain, promote and roll back, instead of only saying so.
        trust: Public keys whose signature under a release counts, besides the user's own.
        now: POSIX seconds; the clock's if not given.
        notify: Called with a sentence after every stage.

    Returns:
        What to do next, in a sentence.

    Raises:
        RunError: There is no service or log, or another monitor is at work.
        NotebookError: A notebook failed in retraining; the next call repeats it.
    """
    run, now = Run(run_dir), time.time() if now is None else now
    keys = [*trust, signing.public_key()] if trust else None
    current_version(run_dir)  # says what is missing, before a folder is made
    manifest = (folder_of(run_dir) / "manifest.json").read_text(encoding="utf-8")
    case, folder = load_case(json.loads(manifest)["case"]), run.folder / "monitoring"
    with exclusive_lock(folder), contextlib.closing(Journal(run.folder)) as journal:
        watched = WatchedRun(run, case, journal, keys)
        if act:
            advance(watched, notify)
        waiting = journal.unjudged()
        if len(waiting) >= case.policy.min_rows:
            rows = read_log(journal.log, case, sample(waiting))
            if rows.empty:
                journal.skip(waiting)
                notify(f"{len(waiting)} rows that can't be read: in no window")
            else:
                new = _judge_window(watched, rows, waiting, now)
                labels, action = new.labels, new.decision.action
                notify(f"window {new.window}: {new.rows} rows, {labels} labels: {action}")
            waiting = []
        else:
            notify(f"{len(waiting)} of {case.policy.min_rows} new rows: waiting for more")
        if act:
            advance(watched, notify)
        return write_report(run, case, journal, waiting=len(waiting))


def _judge_window(
    watched: WatchedRun, rows: pd.DataFrame, waiting: Sequence[str], now: float
) -> Window:
    """Judge rows of the waiting ones and the labels that have come, and record the window."""
    case, journal, policy = watched.case, watched.journal, watched.case.policy
    version = watched.current_version
    home = watched.home_of(version)
    block = block_of(home)
    reference = _reference(watched, home, version)
    margin = home.read_json("service/config.json").get("margin")
    inputs, answers = rows[[column.name for column in case.inputs]], logged_answers(case, rows)
    own = (rows["log.model_version"] == version).to_numpy()
    current = (None, answers[own]) if own.any() else None
    report = monitoring.drift_report(
        reference, inputs, case, predictions=current, level=policy.level, min_rows=policy.min_rows
    )
    problems = monitoring.count_problems(inputs, case)
    new = journal.labelled(version)  # too few are left for the next window
    new = new if len(new) >= policy.min_labels else []
    labelled = read_log(journal.log, case, sample(new))
    known = logged_answers(case, labelled)
    before = next(journal.windows(), None)
    gap = _gap_to_previous(watched, version, labelled, block)
    changes: dict[str, Interval] = {}
    if len(labelled):
        losses = monitoring.row_losses(case, labelled[TARGET].to_numpy(), known)
        usual = Moments(*reference.about["loss"])
        changes["loss_change"] = monitoring.change_in_mean(usual, losses, block=block)
    if gap:
        changes["versus_previous"] = _evidence(journal.windows(), version, gap)
    signals = Signals.from_reports(report, problems, max_broken=policy.max_broken, **changes)
    summaries = Reference.from_frame(inputs, case, answers, complete=False)
    state = before.state if before else State()
    state, decision = monitoring.judge(state, signals, policy, now)
    window = Window(
        window=before.window + 1 if before else 1,
        time=datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds"),
        first=str(rows["log.time"].iloc[0]),
        last=str(rows["log.time"].iloc[-1]),
        rows=len(rows),
        of_rows=len(waiting),
        labels=len(labelled),
        model_version=version,
        decision=decision,
        state=state,
        signals=msgspec.convert(signals, WindowSignals, from_attributes=True),
        gap_to_previous=gap,
        drift=msgspec.convert(report, Drift, from_attributes=True),
        problems=problems.to_dict("records"),
        performance=monitoring.performance(
            case, labelled[TARGET], known, seed=0, block=block, margin=margin
        ),
        estimate=monitoring.estimate_performance(case, answers, seed=0),
        groups=_groups(case, rows, labelled),
        distributions=distributions(reference, summaries),
    )
    idle = all(act.over for act in journal.acts())
    acts = decision.action == "roll back" or (decision.action == "retrain" and idle)
    journal.record(window, waiting, new, act=acts)
    return window


def _gap_to_previous(
    watched: WatchedRun, version: str, labelled: pd.DataFrame, block: int
) -> GapToPrevious | None:
    """By how much the version's losses lie above its predecessor's on the same labelled rows."""
    before = watched.predecessor(version)
    if len(labelled) < 2 or not before:
        return None
    case, labels = watched.case, labelled[TARGET].to_numpy()
    old = watched.scorer(watched.home_of(before)).probabilities(encode(labelled, case)[0])
    losses = monitoring.row_losses(case, labels, logged_answers(case, labelled))
    gaps = losses - monitoring.row_losses(case, labels, old)
    return GapToPrevious(before, monitoring.moments(gaps, block=block))


def _evidence(windows: Iterator[Window], version: str, gap: GapToPrevious) -> Interval:
    """The gap of all windows since the version was promoted, this one included."""
    recent = takewhile(lambda window: window.model_version == version, windows)
    gaps = [gap, *(window.gap_to_previous for window in recent)]
    same = [entry.moments for entry in gaps if entry and entry.version == gap.version]
    return monitoring.confidence_sequence(same[::-1])


def _groups(case: Case, rows: pd.DataFrame, labelled: pd.DataFrame) -> list[Group]:
    """Rates among the new rows, gaps among the newly labelled."""
    if not case.sensitive:
        return []
    key, gaps = ["column", "group"], ["labelled", "gap", "gap_low", "gap_high", "judged"]
    answers, known = logged_answers(case, rows), logged_answers(case, labelled)
    table = monitoring.group_performance(rows, case, answers, seed=0).drop(columns=gaps)
    if len(labelled):
        judged = monitoring.group_performance(labelled, case, known, labelled[TARGET], seed=0)
        table = table.merge(judged[key + gaps], on=key, how="left")
    return msgspec.json.decode(to_json(table.to_dict("records")), type=list[Group])


def _reference(watched: WatchedRun, home: Run, version: str) -> Reference:
    """The summaries of what that model learnt from, stored when they are first made."""
    case, path = watched.case, watched.run.folder / "monitoring" / f"reference-{version}.parquet"
    with contextlib.suppress(DataError):
        return Reference.load(path)
    train = pd.read_parquet(home.path("data/train.parquet"))
    inputs, labels = encode(pd.read_parquet(home.path("data/validation.parquet")), case)
    answers = watched.scorer(home).probabilities(inputs)
    losses = monitoring.row_losses(case, labels, answers)
    loss = monitoring.moments(losses, block=block_of(home))
    Reference.from_frame(train, case, answers, version=version, loss=list(loss)).save(path)
    return Reference.load(path)
