"""How far a reader is, and the certificate for one who has done all: a drawing with a code that follows from it.

The code proves that nothing was changed since. It doesn't prove who did the exercises, and can't.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import re
from collections.abc import Mapping
from html import escape, unescape
from pathlib import Path
from string import Template

from lepton_lib.errors import ExerciseError
from lepton_lib.exercises import ProgressCard
from lepton_lib.exercises.definitions import definition_files, read_definitions
from lepton_lib.exercises.progress import (
    CORRECT,
    WORK_FILE,
    Standing,
    read_events,
    standings,
    work_folder,
)

LENGTH = 60  # characters of a name, at most
_CODE = re.compile(r"LEPTON-(\d{8})-(\d{1,4})-(\d{1,4})-([A-Z2-7]{16})")


def cards(folder: Path | None = None) -> list[ProgressCard]:
    """The progress cards of all notebooks.

    Args:
        folder: A work folder; by default the one around the working directory, else ``work`` in it.

    Raises:
        ExerciseError: There is no such work folder.
    """
    found = work_folder(folder) or (None if folder else work_folder(Path("work")))
    if found is None:
        raise ExerciseError(
            str(folder or Path.cwd()),
            f"no work folder (it would hold {WORK_FILE})",
            "the folder that `make learn` or `lepton work` has made",
            "Go there, or name it.",
        )
    known = standings(read_events(found))
    return [
        ProgressCard(
            number,
            {
                key: (d.title, known.get(key, Standing()))
                for key, d in read_definitions(path).items()
            },
        )
        for number, path in definition_files().items()
    ]


def make_certificate(
    name: str, folder: Path | None = None, *, day: datetime.date | None = None
) -> str:
    """The certificate as SVG.

    Args:
        name: Whose it is; at most `LENGTH` characters.
        folder: As for `cards`.
        day: Its date; today by default.

    Raises:
        ExerciseError: Not all exercises are done, or the name can't be set.
    """
    name = " ".join(name.split())
    if not 1 <= len(name) <= LENGTH or not name.isprintable():
        expected = f"1 to {LENGTH} characters that can be printed"
        raise ExerciseError("the name", f"{len(name)} characters", expected, "Shorten or mend it.")
    lines: Mapping[str, tuple[str, Standing]] = {
        key: line for card in cards(folder) for key, line in card.lines.items()
    }
    open_ = [key for key, (_, standing) in lines.items() if standing.status != CORRECT]
    if open_ or not lines:
        raise ExerciseError(
            "the certificate",
            f"{len(open_)} of {len(lines)} not done yet: {', '.join(open_[:8])}{' ...' if len(open_) > 8 else ''}",
            "every exercise and question correct",
            "`lepton progress` shows where you are.",
        )
    seen = sum(standing.seen for _, standing in lines.values())
    return _draw(name, f"{day or datetime.date.today():%Y%m%d}", len(lines), seen)


def verify(text: str, name: str = "") -> str:
    """What a genuine certificate says, in a sentence.

    Args:
        text: The certificate as SVG; or its code, then with the name.
        name: The name on it.

    Raises:
        ExerciseError: It isn't what was issued.
    """
    code = _CODE.search(text)
    if found := re.search(r'<text id="name"[^>]*>([^<]*)</text>', text):
        name = unescape(found[1])
    name = " ".join(name.split())
    if code is not None:
        day, n_done, n_seen, _ = code.groups()
        whole = text.strip() == code[0] or text == _draw(name, day, int(n_done), int(n_seen))
        if whole and code[0] == _code(name, day, int(n_done), int(n_seen)):
            return f"Genuine: {name}, {_date(day)}, {_done(int(n_done), int(n_seen))}. {_PROVES}"
    raise ExerciseError(
        "the certificate",
        "something that was not issued so" if code else "no code",
        "a certificate as it was issued, or its code and the name on it",
        "Ask for the file as `lepton certificate` wrote it.",
    )


_PROVES = "The code proves that nothing was changed; it doesn't prove who did the exercises."


def _code(name: str, day: str, n_done: int, n_seen: int) -> str:
    digest = hashlib.sha256(
        f"lepton certificate\n{name}\n{day}\n{n_done}\n{n_seen}".encode()
    ).digest()
    return f"LEPTON-{day}-{n_done}-{n_seen}-{base64.b32encode(digest[:10]).decode()}"


def _date(day: str) -> str:
    try:
        date = datetime.datetime.strptime(day, "%Y%m%d").date()
    except ValueError:
        return day
    return f"{date.day} {date:%B %Y}"


def _done(n_done: int, n_seen: int) -> str:
    return f"{n_done} exercises and questions, {n_seen} of them after a look at the solution"


def _draw(name: str, day: str, n_done: int, n_seen: int) -> str:
    size = 58 if len(name) <= 24 else 58 * 24 // len(name) + 6
    return _SVG.substitute(
        name=escape(name),
        size=size,
        date=_date(day),
        done=_done(n_done, n_seen),
        code=_code(name, day, n_done, n_seen),
        proves=_PROVES,
    )


# A4 across. The loop in the corner: six steps, and the way back to the second.
_SVG = Template("""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1123 794" width="297mm" height="210mm"
  role="img" aria-labelledby="title" font-family="Georgia, 'Times New Roman', serif" text-anchor="middle">
<title id="title">Certificate: $name, From research to application</title>
<rect width="1123" height="794" fill="#fdfcf8"/>
<rect x="34" y="34" width="1055" height="726" fill="none" stroke="#14395b" stroke-width="3"/>
<rect x="44" y="44" width="1035" height="706" fill="none" stroke="#c9a227" stroke-width="1"/>
<g fill="none" stroke="#14395b" stroke-width="2.5" stroke-linecap="round">
<path d="M441 128 H682 M682 128 A28 28 0 0 1 682 184 H489 A28 28 0 0 1 481 138"/>
<path d="M473 147 L481 137 L491 146"/></g>
<g fill="#14395b"><circle cx="441" cy="128" r="8" fill="#c9a227"/><circle cx="481" cy="128" r="8"/>
<circle cx="561" cy="128" r="8"/><circle cx="641" cy="128" r="8"/><circle cx="641" cy="184" r="8"/>
<circle cx="561" cy="184" r="8"/></g>
<text x="561" y="262" font-size="22" letter-spacing="7" fill="#5a6472">CERTIFICATE OF COMPLETION</text>
<text id="name" x="561" y="360" font-size="$size" fill="#14395b">$name</text>
<path d="M311 392 H811" stroke="#c9a227" stroke-width="1.5"/>
<text x="561" y="442" font-size="22" fill="#333b46">has worked through the whole loop of the course</text>
<text x="561" y="490" font-size="34" font-style="italic" fill="#14395b">From research to application</text>
<text x="561" y="536" font-size="19" fill="#333b46"
  >environment, data, training, evaluation, deployment, monitoring</text>
<text x="561" y="572" font-size="17" fill="#5a6472">$done</text>
<text x="561" y="636" font-size="21" fill="#333b46">$date</text>
<text x="561" y="690" font-size="17" letter-spacing="1.5" font-family="ui-monospace, Menlo, Consolas, monospace"
  fill="#14395b">$code</text>
<text x="561" y="720" font-size="13" fill="#5a6472">$proves</text>
</svg>
""")
