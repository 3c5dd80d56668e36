"""Which digits in a notebook's prose may state a result, which belongs into an output that is run and compared.

Written where the run can't reach it, a number grows false unseen. To state one, let a cell end with
``Markdown(f"... {auc:.3f} ...")``. Digits that pass:

- in code, formulas, HTML tags and where links lead; but not a span that is a number and nothing else,
- numbers of headings, of entries in a list, of notebooks and exercises (03, 03.2), after *step*, *status*, ...,
- names (SHA-256, float32, 32-bit), ordinals, powers of ten (1e-10), years in brackets or as *in 1997,*,
- 0 and 1 as the ends of a scale, the percentage of an interval, band, level or quantile,
- the minutes after ``**Time:**`` and in a section's ``*About 5 minutes.*``, which a test holds to the measure,
- and all under a heading *References*, *Sources* or *Further reading*.
"""

import re

PASSES = re.compile(
    r"""(?:
      ```.*?```                                             # a block of code
    | (?P<span>`[^`\n]+`|\$\$.*?\$\$|\$[^$\n]+\$)           # code, formulas
    | <!--.*?--> | </?[a-z][^>]*> | &\#\d+;                 # HTML's own
    | (?<=\])\([^)\n]*\) | \b[a-z]+://\S+                   # where a link leads
    | ^[ >]*\d+[.)][ ]                                      # the number of an entry in a list
    | ^\#+[ ]\d+(?:\.\d+)*[.:]?[ ]                          # the number of a heading
    | (?<![\d.,])0\d(?:\.q?\d+)?(?![\d%]|[ ]%)              # a notebook, 03, an exercise, 03.2, or a question
    | \b(?i:chapter|class|equation|exercise|figure|label|notebook|part|RFC|section|status|step|table)(?:e?s)?[ ]
      \d+(?:\.\d+)*(?:,[ ]\d+\b(?!\.\d))*(?:[ ](?:and|or|to)[ ]\d+)?\b
    | \b0,[ ]1(?:,[ ]\d+)*\b                                # codes, counted from nought
    | \b\d+(?:st|nd|rd|th|-bit)\b | \b1e-\d+\b
    | (?<![\w.])[A-Za-z]+-?\d+[A-Za-z]*\b(?![.,]?\d)        # a name: SHA-256, float32, L2
    | \([^()\d]*\b(?:1[6-9]|20)\d\d[a-z]?\) | \bin[ ](?:1[6-9]|20)\d\d(?=[,.;:)])   # a year
    | (?<![\w.,])[01](?![\w%]|[.,]\d|[ ]%|[ ](?!(?:and|or|to|is|means|for|when|where|if)\b)\w)   # the bounds of a scale
    | \b(?:above|below|between|near|than|towards?)[ ][01](?![\w%]|[.,]\d|[ ]%)
    | \bmiddle[ ]\d+(?:\.\d+)?[ ]?%                         # a definition
    | \b\d+(?:\.\d+)?[ ]?%(?=[ ](?:\w+[ ])?(?:band|confidence|interval|level|quantile)s?\b)
    | ^\*About[ ]\d+[ ]minutes?\.\*$                        # a section's measure
    | ^\*\*Time:?\*\*:?[ ](?:about[ ])?\d+(?:-\d+)?[ ]minutes
    )""",
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
REFERENCES = re.compile(r"^(?:#+ |\*\*)(?:References?|Sources?|Further reading)\b.*?(?=^#|\Z)", re.M | re.S)


def numbers(text):
    """The numbers in a text that may state a result."""
    bare = PASSES.sub(lambda found: _only_number(found["span"] or ""), REFERENCES.sub("", text))
    return re.findall(r"[-+−]?\d(?:[\d.,]*\d)?(?: ?%)?", bare)


def _only_number(span):
    inner = span.strip("`$ ")
    hides = re.fullmatch(r"[-+−=≈]?\s*\d*\.?\d+\s*\\?%?", inner) and inner not in {"0", "1", "-1"}
    return f" {inner} " if hides else " "
