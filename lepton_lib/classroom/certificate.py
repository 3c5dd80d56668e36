"""A reader's progress, and the certificate for those of the loop: a drawing with a code.

The code is a checksum: it finds slips and changes, and anyone who has the course can compute it.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import html
import re
from pathlib import Path
from typing import NamedTuple

from lepton_lib.errors import ExerciseError
from lepton_lib.exercises import ProgressCard
from lepton_lib.exercises.definitions import definition_files, definitions_of
from lepton_lib.exercises.progress import CORRECT, WORK_FILE, read_events, work_folder
from lepton_lib.utils import render

MAX_LENGTH = 60  # characters of a name
_CODE = re.compile(r"LEPTON-(\d{8})-(\d{1,4})-(\d{1,4})-([A-Z2-7]{16})")
_NAME = re.compile(r'<text id="name"[^>]*>([^<]*)</text>')
_SHOWS = "The code finds changes. It is no signature: anyone with the course can compute one."


def progress_cards(folder: Path | None = None) -> list[ProgressCard]:
    """The progress cards of all notebooks in a work folder; by default the one here, else ``work``.

    Raises:
        ExerciseError: There is no such work folder.
    """
    found = work_folder(folder) or (None if folder else work_folder(Path("work")))
    if found is None:
        got = f"no work folder (it would hold {WORK_FILE})"
        expected = "the folder that `make learn` or `lepton work` has made"
        raise ExerciseError(str(folder or Path.cwd()), got, expected, "Go there, or name it.")
    events = read_events(found)
    return [ProgressCard.of(number, events) for number in definition_files()]


def loop_numbers() -> list[str]:
    """The numbers of the loop's notebooks that have exercises."""
    return [number for number in definition_files() if number.isdigit()]


class Certificate(NamedTuple):
    """What a certificate says."""

    name: str  # whose it is
    day: str  # YYYYMMDD
    n_done: int  # exercises and questions
    n_seen: int  # of them after a look at the solution

    @property
    def code(self) -> str:
        """The verification code, which follows from all the rest."""
        text = f"lepton certificate\n{self.name}\n{self.day}\n{self.n_done}\n{self.n_seen}"
        digest = base64.b32encode(hashlib.sha256(text.encode()).digest()[:10]).decode()
        return f"LEPTON-{self.day}-{self.n_done}-{self.n_seen}-{digest}"

    @property
    def date(self) -> str:
        """The date as ``1 March 2026``."""
        date = datetime.datetime.strptime(self.day, "%Y%m%d")
        return f"{date.day} {date:%B %Y}"

    @property
    def is_possible(self) -> bool:
        """Whether there was such a day, and the course has so many exercises."""
        try:
            day = datetime.datetime.strptime(self.day, "%Y%m%d").date()
        except ValueError:
            return False
        n_exercises = sum(len(definitions_of(number)) for number in loop_numbers())
        return day <= datetime.date.today() and self.n_seen <= self.n_done == n_exercises

    @property
    def done(self) -> str:
        """What was done, in words."""
        seen = f"{self.n_seen} of them after a look at the solution"
        return f"{self.n_done} exercises and questions, {seen}"

    def to_svg(self) -> str:
        """The drawing."""
        n = len(self.name)
        size = 58 if n <= 24 else 58 * 24 // n + 6  # a long name stays in the frame
        template = "classroom/templates/certificate.svg"
        return render(template, certificate=self, size=size, shows=_SHOWS)


def make_certificate(
    name: str, folder: Path | None = None, *, day: datetime.date | None = None
) -> str:
    """The certificate as SVG, of today by default; ``folder`` as for `progress_cards`.

    Raises:
        ExerciseError: Not all exercises are done, or the name can't be printed.
    """
    name = " ".join(name.split())
    if not 1 <= len(name) <= MAX_LENGTH or not name.isprintable():
        expected = f"1 to {MAX_LENGTH} characters that can be printed"
        remedy = "Shorten or correct it."
        raise ExerciseError("the name", f"{len(name)} characters", expected, remedy)
    loop = [card for card in progress_cards(folder) if card.number in loop_numbers()]
    lines = {key: line for card in loop for key, line in card.lines.items()}
    missing = [key for key, (_, standing) in lines.items() if standing.status != CORRECT]
    if missing or not lines:
        keys = ", ".join(missing[:8]) + (" ..." if len(missing) > 8 else "")
        got = f"{len(missing)} of {len(lines)} not done yet: {keys}"
        remedy = "`lepton progress` shows where you are."
        raise ExerciseError("the certificate", got, "all of the loop correct", remedy)
    n_seen = sum(standing.seen for _, standing in lines.values())
    day = day or datetime.date.today()
    return Certificate(name, f"{day:%Y%m%d}", len(lines), n_seen).to_svg()


def verify_certificate(text: str, name: str = "") -> str:
    """What a certificate whose code fits says: of its SVG, or of its code and the name on it.

    Raises:
        ExerciseError: It isn't what `make_certificate` gives, or can't be.
    """
    code = _CODE.search(text)
    if match := _NAME.search(text):
        name = html.unescape(match[1])
    if code is not None:
        day, n_done, n_seen, _ = code.groups()
        issued = Certificate(" ".join(name.split()), day, int(n_done), int(n_seen))
        fits = code[0] == issued.code and issued.is_possible
        if fits and text.strip() in (code[0], issued.to_svg().strip()):
            return f"The code fits: {issued.name}, {issued.date}, {issued.done}. {_SHOWS}"
    got = "one that this course doesn't make" if code else "no code"
    expected = "a certificate as `lepton certificate` wrote it, or its code and the name on it"
    remedy = "Ask for the file as it was written."
    raise ExerciseError("the certificate", got, expected, remedy)
