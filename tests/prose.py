"""Find numbers in a notebook's prose that may state a result.

A result belongs in an output, which is run and compared: in prose nothing notices when it becomes
wrong. To state one, let a cell end with ``Markdown(f"... {auc:.3f} ...")``. Digits that pass:

- in code, formulas, HTML tags and where links lead; but not a span that is a number and nothing
  else, nor a decimal or a percentage in it that follows a relation or only words, as in `AUC
  0.85`,
- numbers of headings, of entries in a list, of notebooks and exercises (03, 03.2), after *step*,
  *status*, ...,
- names (SHA-256, float32, 32-bit), the 99th percentile, the year of a source in brackets,
- 0 and 1 as the ends of a scale, the percentage of an interval, band, level or quantile,
- the minutes after ``**Time:**`` and in a section's ``*About 5 minutes.*``, which a test holds to
  the measure,
- and all under a heading *References*, *Sources* or *Further reading*.

In words, shares are refused, *three quarters* or *twelve per cent*, but as a bound (*within*,
*above*, *below*); *twice* and *two of three* pass because reasoning uses them, too.
"""

import re

PASSES = re.compile(
    r"""(?:
      (?P<fence>```.*?```)                                  # a block of code
    | (?P<span>`[^`\n]+`|\$\$.*?\$\$|\$[^$\n]+\$)           # code, formulas
    | <!--.*?--> | (?P<tag></?[a-z][^>]*>) | &\#\d+;        # HTML, except its alt and title
    | (?<=\])\([^)\n]*\) | \b[a-z]+://\S+                   # where a link leads
    | ^[ >]*\d+[.)][ ]                                      # the number of an entry in a list
    | ^\#+[ ](?:0\d|\d+(?:\.\d+)*[.:])[ ]                   # the number of a heading
    | (?<![\d.,])0\d(?:\.q?\d+)?(?![\d%]|[ ]%)              # a notebook, exercise or question
    | \b(?i:chapter|equation|exercise|notebook|section)s?[ ]\d\d?(?:\.\d+)*\b(?![.,]?\d|[ ]?%)
    | \b(?i:class|figure|label|part|step|table)(?:e?s)?[ ]
      \d\d?(?:,[ ]\d\d?)*(?:[ ](?:and|or|to)[ ]\d\d?)?\b(?![.,]?\d|[ ]?%)
    | \b(?i:status)[ ]\d{3}\b | \bRFC[ ]\d{3,4}\b
    | \b0,[ ]1(?:,[ ]\d)*\b                                # codes, counted from zero
    | \b\d+th(?=[ ]percentile\b) | \b\d+-bit\b
    | (?<![\w.])[A-Za-z]+-?\d+[A-Za-z]*\b(?![.,]?\d)        # a name: SHA-256, float32, L2
    | \([^()\d=]*,[ ](?:1[6-9]|20)\d\d[a-z]?\)              # a source: (Efron, 1979)
    # a scale's bounds
    | (?<![:=][ ])(?<!\bis[ ])(?<!\bare[ ])(?<!\bwas[ ])(?<!\bwere[ ])
      (?<![\w.,])[01](?![\w%]|[.,]\d|[ ]%|[ ](?!(?:and|or|to|is|means|for|when|where|if)\b)\w)
    | \b(?:above|below|between|near|than|towards?)[ ][01](?![\w%]|[.,]\d|[ ]%)
    | \bmiddle[ ]\d+(?:\.\d+)?[ ]?%                         # a definition
    | \b\d+(?:\.\d+)?[ ]?%(?=[ ](?:(?!of\b)\w+[ ])?(?:band|confidence|interval|level|quantile)s?\b)
    | ^\*About[ ]\d+[ ]minutes?\.\*$                        # a section's measure
    | ^\*\*Time:?\*\*:?[ ](?:about[ ])?\d+(?:-\d+)?[ ]minutes
    )""",
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
REFERENCES = re.compile(
    r"^(?:#+ |\*\*)(?:References?|Sources?|Further reading):?(?:\*\*)?:?\s*?$.*?(?=^#|\Z)",
    re.M | re.S,
)
WORD = "(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|twenty|thirty"
WORD += "|forty|fifty|sixty|seventy|eighty|ninety|hundred)"
# A share or a ratio in words, and fractions of one character.
IN_WORDS = re.compile(
    rf"[¼-¾⅐-⅞]|(?<!\bwithin )\b{WORD}(?:[- ]{WORD})?(?: and a half)? (?:per ?cent\b|%)"
    rf"|(?<!\babove )(?<!\bbelow )\b{WORD} (?:quarter|third|fifth|tenth)s\b",
    re.I,
)
# In code and formulas: a decimal or a percentage behind a relation, or behind nothing but words.
STATED = re.compile(
    r"(?:[=≈±:]|\\approx|\\pm|\\simeq|^[A-Za-z ]*[A-Za-z]) ?([-+−]?\d*\.\d+(?: ?\\?%)?|\d+ ?\\?%)"
)


def numbers(text):
    """Return the numbers in a text that may state a result."""
    bare = PASSES.sub(_rest, REFERENCES.sub("", text))
    return re.findall(r"[-+−]?\d(?:[\d.,]*\d)?(?: ?%)?", bare) + IN_WORDS.findall(bare)


def _rest(found):
    """Return the part of a match that still has to be searched for numbers."""
    if found["tag"]:
        return " ".join(["", *re.findall(r"""\b(?:alt|title)=["']([^"']*)""", found["tag"]), ""])
    if found["fence"]:
        # x = 0.5 is code there
        return " ".join(["", *STATED.findall(found["fence"].replace("=", ";")), ""])
    inner = (found["span"] or "").strip("`$ ")
    if re.fullmatch(r"[-+−=≈]?\s*\d*\.?\d+\s*\\?%?", inner) and inner not in {"0", "1", "-1"}:
        return f" {inner} "
    called = re.search(r"\w\(|^\w+=", inner)  # how a function is called, what a parameter is set to
    return " ".join(["", *([] if called else STATED.findall(inner)), ""])
