"""Plant faults in lepton_lib one at a time and list which the tests and notebooks notice.

`make mutants` runs it. Each verdict goes to RESULTS.md at once, so that ``--new`` can continue a
run that was stopped. A mutant that behaves like the library is listed in equivalent.toml with the
reason; one that survives and isn't listed makes the exit code 1.
"""

from __future__ import annotations

import argparse
import functools
import os
import random
import re
import subprocess
import tempfile
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from lepton_lib.utils import SAME_BITS, write_atomic
from tests.conftest import LONG
from tests.mutants.plant import Mutant, choose
from tests.mutants.trial import ASIDE, LIMIT, UNCLEAR, Map, Round, Verdict, copy_repository, try_all
from tests.offline import ROOT

HERE = Path(__file__).parent
LIBRARY, RESULTS, EQUIVALENT = ROOT / "lepton_lib", HERE / "RESULTS.md", HERE / "equivalent.toml"
COUNT = 200  # mutants in the table
# run real notebooks first: no sample is drawn from these
SLOW = ("tests/test_operations.py", "tests/test_handout.py")
ROW = re.compile(r"\| `` (?P<mutant>.+) `` \| (?P<round>[a-z]*): ?(?P<test>.*) \|")


def main() -> int:
    """Try all mutants, or some."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", default="", help="modules, as in metrics,data; all by default")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time")
    parser.add_argument(
        "--sample",
        type=int,
        help="so many of the table's, drawn by the commit, by the tests named there",
    )
    parser.add_argument(
        "--new",
        type=int,
        help="so many that the table doesn't have, by the tests that name their modules",
    )
    parser.add_argument("--draw", help="what the sample is drawn by, instead of the commit")
    parser.add_argument("--list", action="store_true", help="only say which there are")
    options = parser.parse_args()
    os.environ.update(SAME_BITS)
    found = [mutant for mutant in choose(LIBRARY, COUNT) if is_in(mutant, options.only)]
    reasons = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8"))
    if options.list:
        print(*found, sep="\n")
        return 0
    known = read_results()
    with tempfile.TemporaryDirectory(prefix="lepton-mutants-") as place:
        rounds: Callable[[Mutant], Iterator[Round]] = functools.partial(known_rounds, known)
        if options.sample:
            # A commit fails when it loses a test, not when a test was never written: `make
            # mutants` finds those.
            found = [m for m in found if str(m) in known and known[str(m)].round == "tests"]
            found = [m for m in found if not known[str(m)].test.startswith(SLOW)]
            found = random.Random(options.draw or commit()).sample(
                found, min(options.sample, len(found))
            )
        elif options.new:
            found = [m for m in found if str(m) not in known]
            found = random.Random(options.draw or commit()).sample(
                found, min(options.new, len(found))
            )
        else:
            rounds = Map.draw(copy_repository(Path(place, "map")), options.jobs).rounds
        here = {str(mutant) for mutant in choose(LIBRARY, COUNT)}
        verdicts: dict[str, Verdict] = {}
        began = time.monotonic()
        for mutant, verdict in try_all(found, rounds, jobs=options.jobs, place=Path(place)):
            name = str(mutant)
            verdicts[name] = verdict
            print(f"{len(verdicts):4}/{len(found)}  {shown(verdict):60.60}  {name}", flush=True)
            if not options.sample and verdict.round != UNCLEAR:
                tried = read_results() | {name: verdict}
                write_results({name: tried[name] for name in tried if name in here}, reasons)
    unclear = [name for name, verdict in verdicts.items() if verdict.round == UNCLEAR]
    missed = [
        name for name, verdict in verdicts.items() if not verdict.test and name not in reasons
    ]
    caught = sum(bool(verdict.test) for verdict in verdicts.values()) - len(unclear)
    print(
        f"{caught} of {len(verdicts)} caught in {time.monotonic() - began:.0f} s,"
        f" {len(missed)} missed"
    )
    for name in missed:
        print(f"missed: {name}")
    for name in unclear:
        print(f"unclear, its tests also took too long without the fault: {name}")
    return 1 if missed or unclear else 0


def shown(verdict: Verdict) -> str:
    """A verdict in a few words."""
    said = {"": "SURVIVED", LIMIT: f"no end of {verdict.test}", UNCLEAR: "UNCLEAR"}
    return said.get(verdict.round, verdict.test)


def is_in(mutant: Mutant, only: str) -> bool:
    """Whether a mutant's module is among those named, itself or by its folder."""
    path = Path(mutant.module).with_suffix("")
    return not only or any(name in {path.parts[0], path.as_posix()} for name in only.split(","))


def commit() -> str:
    """The commit that is checked out; the day where there's no git."""
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or time.strftime("%Y-%m-%d")


def known_rounds(known: dict[str, Verdict], mutant: Mutant) -> Iterator[Round]:
    """Yield the test that once caught a mutant, then the test files that name its module."""
    if (verdict := known.get(str(mutant))) is not None and "::" in verdict.test:
        yield "tests", {verdict.test: 10.0}
    package, _, part = mutant.module.removesuffix(".py").partition("/")
    by_package = re.compile(rf"lepton_lib\.{package}\b|lepton_lib import [^\n]*\b{package}\b")
    by_part = re.compile(rf"lepton_lib\.{package}(\.{part}\b| import [^\n]*\b{part}\b)")
    texts = {
        path.name: path.read_text(encoding="utf-8")
        for path in sorted((ROOT / "tests").glob("test_*.py"))
    }
    seconds = {
        name: 90.0 if name[5:-3] in LONG else 30.0 for name in texts if f"tests/{name}" not in ASIDE
    }
    # asked by a fixture
    commands = {name for name in seconds if package == "cli" and "lepton(" in texts[name]}
    near = (
        {name for name in seconds if by_part.search(texts[name])} | commands if part else commands
    )
    far = {name for name in seconds if by_package.search(texts[name])} - near
    for names in filter(None, (near, far)):
        yield "tests", {f"tests/{name}": seconds[name] for name in names}


def read_results() -> dict[str, Verdict]:
    """The verdicts in the table."""
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ""
    rows = map(ROW.fullmatch, text.splitlines())
    return {
        row["mutant"].replace("\\|", "|"): Verdict(row["round"], row["test"])
        for row in rows
        if row is not None
    }


def write_results(verdicts: dict[str, Verdict], reasons: dict[str, str]) -> None:
    """Write the table: a summary of each module and a row for each mutant."""
    of: dict[str, Counter[str]] = defaultdict(Counter)
    for name, verdict in verdicts.items():
        module = name.partition(":")[0].split(".")[0]
        of[module][verdict.round or ("equivalent" if name in reasons else "missed")] += 1
    total = sum(of.values(), Counter())
    n = total.total()
    caught = total["tests"] + total["notebooks"] + total[LIMIT]
    lines = [
        "# Faults planted in lepton_lib",
        "",
        f"`make mutants` plants {len(choose(LIBRARY, COUNT))} faults, one at a time, and looks",
        f"which the tests notice, and which of the rest the notebooks. Of the {n} tried so far,",
        f"{caught} are noticed ({100 * caught / n:.1f} %).",
        f"{total['equivalent']} can't be, for the reasons below;",
        f"{total['missed']} should be, and aren't.",
        "*Time limit*: the tests came to no end within ten times what they take, and did without",
        "the fault.",
        "",
        "| module | faults | by tests | by notebooks | time limit | equivalent | missed |",
        "| --- | --: | --: | --: | --: | --: | --: |",
    ]
    for module, row in [*sorted(of.items()), ("**all**", total)]:
        counts = [row[key] for key in ("tests", "notebooks", LIMIT, "equivalent", "missed")]
        lines.append(f"| {module} | {row.total()} | {' | '.join(map(str, counts))} |")
    lines += ["", "## Survivors", ""]
    survivors = sorted(name for name, verdict in verdicts.items() if not verdict.test)
    lines += [f"- `` {name} ``: {reasons.get(name, '**missed**')}" for name in survivors] or [
        "None."
    ]
    lines += [
        "",
        "## Each fault, and the first that noticed it",
        "",
        "| fault | noticed by |",
        "| --- | --- |",
    ]
    for name, verdict in sorted(verdicts.items()):
        lines.append(
            f"| `` {name.replace('|', chr(92) + '|')} `` | {verdict.round}: {verdict.test} |"
        )
    write_atomic(RESULTS, "\n".join(lines) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
