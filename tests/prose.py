"""Find numbers in a notebook's Markdown that no run can hold to the truth.

A reading binds each number to the run (`lepton_lib.runs.readings`): every other number in it is
refused. Other Markdown holds for every case: small whole numbers pass, a decimal, a percentage or
a number above ten that may state a result doesn't. Code, formulas, links, names, references and
the level of an interval pass everywhere.
"""

import re

from lepton_lib.runs.readings import COMMENT

PASSES = re.compile(
    r"""(?:
      (?P<fence>```.*?```)
    | (?P<span>`[^`\n]+`|\$\$.*?\$\$|\$[^$\n]+\$)           # code, formulas
    | (?P<tag></?[a-z][^>]*>) | &\#\d+;                     # HTML, except its alt and title
    | (?<=\])\([^)\n]*\) | \b[a-z]+://\S+                   # where a link leads
    | ^[ >]*\d+[.)][ ] | ^\#+[ ](?:0\d|\d+(?:\.\d+)*[.:])[ ]  # the number of an entry, of a heading
    | (?<![\d.,])(?:0\d(?:\.q?\d+)?|[ir]?\d+\.q\d|[ir]\d\.\d+)(?![\d%]|[ ]%)  # notebook, exercise
    | \b(?i:status[ ]\d{3}|RFC[ ]\d+|\d+-bit|\d+th(?=[ ]percentile)|middle[ ]\d+[ ]?%)
    | (?<![\w.])[A-Za-z]+-?\d+[A-Za-z]*\b(?![.,]?\d)        # a name: SHA-256, float32, L2
    | \([^()\d=]*,[ ](?:1[6-9]|20)\d\d[a-z]?\)              # a source: (Efron, 1979)
    | \b\d+(?:\.\d+)?[ ]?%(?=[ ](?:(?!of\b)\w+[ ])?(?:band|confidence|interval|level|quantile)s?\b)
    | ^\*About[ ]\d+[ ]minutes?\.\*$                        # a section's measure, held by a test
    | ^\*\*Time:?\*\*:?[ ](?:about[ ])?\d+(?:-\d+)?[ ]minutes
    )""",
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
REFERENCES = re.compile(
    r"^(?:#+ |\*\*)(?:References?|Sources?|Further reading):?(?:\*\*)?:?\s*?$.*?(?=^#|\Z)",
    re.M | re.S,
)
# Shares in words, and fractions of one character.
IN_WORDS = re.compile(
    r"[¼-¾⅐-⅞]|\b(?:ten|eleven|twelve|[a-z]+teen|[a-z]+ty)(?:[- ][a-z]+)? (?:per ?cent\b|%)", re.I
)
# In code and formulas: a decimal or a percentage behind a relation, or behind nothing but words.
STATED = re.compile(
    r"(?:[=≈±:]|\\approx|\\pm|\\simeq|^[A-Za-z ]*[A-Za-z]) ?([-+−]?\d*\.\d+(?: ?\\?%)?|\d+ ?\\?%)"
)
BOUND = re.compile(rf"(?:[-−]?\d[\d,]*(?:\.\d+)?\s?%?[*_]*)?{COMMENT.pattern}", re.DOTALL)


def numbers(text, *, reading=False):
    """Return the numbers in a text that may state a result and aren't bound to one."""
    text = BOUND.sub("", text) if reading else COMMENT.sub("", text)
    bare = PASSES.sub(_rest, REFERENCES.sub("", text))
    found = re.findall(r"[-+−]?\d(?:[\d.,]*\d)?(?: ?%)?", bare)
    return [n for n in found if reading or not re.fullmatch(r"[-−]?\d|10", n)] + IN_WORDS.findall(
        bare
    )


def _rest(found):
    """Return the part of a match that still has to be searched for numbers."""
    if found["tag"]:
        return " ".join(["", *re.findall(r"""\b(?:alt|title)=["']([^"']*)""", found["tag"]), ""])
    if found["fence"]:
        # x = 0.5 is code there
        return " ".join(["", *STATED.findall(found["fence"].replace("=", ";")), ""])
    inner = (found["span"] or "").strip("`$ ")
    if re.fullmatch(r"[-+−=≈]?\s*\d*\.?\d+\s*\\?%?", inner):
        return f" {inner} "
    called = re.search(r"\w\(|^\w+=", inner)  # how a function is called, what a parameter is set to
    return " ".join(["", *([] if called else STATED.findall(inner)), ""])
