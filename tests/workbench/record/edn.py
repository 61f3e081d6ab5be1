"""Extensible data notation, the format of Jepsen's histories and results.

    >>> loads('{:type :ok, :value [0 nil]}')
    {Keyword('type'): Keyword('ok'), Keyword('value'): [0, None]}
    >>> dumps({Keyword("valid?"): True, Keyword("keys"): [1, "a"]})
    '{:valid? true, :keys [1 "a"]}'

| EDN                                   | Python                              |
|---------------------------------------|-------------------------------------|
| `nil`, `true`, `"text"`, `\\c`         | `None`, `True`, `str`, `str`        |
| `1`, `1N`, `1.5`, `1.5M`, `1/2`       | `int`, `float`, `Decimal`, `Fraction` |
| `:name`, `name`                       | `Keyword`, `Symbol`                 |
| `[1 2]`, `(1 2)`                      | `list`                              |
| `{:a 1}`, `#{1 2}`                    | `dict`, `frozenset`                 |
| `#tag form`, `#_ form`, `; text`      | the form alone, nothing, nothing    |

A list inside a set, or as the key of a map, becomes a tuple, which can be hashed. As in any Python
set, 1 and true are the same member. The notation is specified at https://github.com/edn-format/edn.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any, ClassVar, Final

MAX_DEPTH: Final = 200
"""Deepest nesting of collections. The writer is recursive, and Python's stack is finite."""
MAX_LENGTH: Final = 4302
"""Longest number, in characters: Python reads integers of 4300 digits; a sign and an N may join."""
MAX_EXPONENT: Final = 1000
"""Largest exponent. Written out, 1e999999999 would fill the memory."""
LEAST: Final = -(2**63)
"""Smallest integer of 64 bits. An integer outside of LEAST to MOST ends in N."""
MOST: Final = 2**63 - 1


class EDNError(ValueError):
    """A text is not EDN. `line` is the line of the mistake, from 1. `cut_off` means that the text
    is valid so far, but ends inside a form."""

    def __init__(self, line: int, problem: str, cut_off: bool = False) -> None:
        super().__init__(f"line {line}: {problem}")
        self.line = line
        self.problem = problem
        self.cut_off = cut_off


class _Name:
    """A name that equals no string. Each name has a single object, which makes comparing and
    hashing fast."""

    __slots__ = ("name",)
    _known: ClassVar[dict[tuple[type, str], Any]] = {}
    name: str

    def __new__(cls, name: str) -> Any:
        known = cls._known.get((cls, name))
        if known is None:
            known = super().__new__(cls)
            known.name = name
            cls._known[cls, name] = known
        return known

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return type(self), (self.name,)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"  # for debuggers; reports use str()


class Keyword(_Name):
    """A name such as `:read`; `Keyword("read")` has no colon."""

    __slots__ = ()

    def __str__(self) -> str:
        return f":{self.name}"


class Symbol(_Name):
    """A name such as `read`, written as it is."""

    __slots__ = ()

    def __str__(self) -> str:
        return self.name


# Reading

_TOKEN: Final = re.compile(
    r"""
    [\s,]*
    (?: (?P<atom>    [^\s,()\[\]{}";\\\#][^\s,()\[\]{}";\\]* )
      | (?P<open>    \#?\{ | \[ | \( )
      | (?P<close>   [\])}] )
      | (?P<string>  "[^"\\]*(?:\\.[^"\\]*)*" )
      | (?P<char>    \\(?:[A-Za-z][A-Za-z0-9]*|.) )
      | (?P<discard> \#_ )
      | (?P<special> \#\#[A-Za-z-]+ )
      | \#[^\s,()\[\]{}";\\]*                       # a tag, which is skipped
      | ;[^\n]*
      | \Z )
    """,
    re.VERBOSE | re.DOTALL,
)
_INTEGER: Final = re.compile(r"([-+]?(?:0|[1-9][0-9]*))N?")
_FLOAT: Final = re.compile(r"([-+]?[0-9]+(?:\.[0-9]*)?(?:[eE]([-+]?[0-9]+))?)(M?)")
_RATIO: Final = re.compile(r"[-+]?[0-9]+/0*[1-9][0-9]*")
_HEX: Final = re.compile(r"[-+]?0[xX][0-9a-fA-F]+")
_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)

_WORDS: Final = {"nil": None, "true": True, "false": False}
_SPECIALS: Final = {"##Inf": math.inf, "##-Inf": -math.inf, "##NaN": math.nan}
_ESCAPES: Final = {
    "n": "\n", "t": "\t", "r": "\r", "f": "\f", "b": "\b", '"': '"', "\\": "\\"
}  # fmt: skip
_CHARS: Final = {
    "newline": "\n", "tab": "\t", "return": "\r", "space": " ", "formfeed": "\f", "backspace": "\b"
}  # fmt: skip
_CLOSERS: Final = {"{": "}", "#{": "}", "[": "]", "(": ")"}
_DISCARD: Final = object()
"""Stands for a `#_` until its form is read."""


def loads(text: str) -> Any:
    """Reads the single form in `text`. Raises EDNError if there is none, or more than one."""
    forms = list(numbered(text))
    if not forms:
        raise EDNError(1, "the text has no form", cut_off=True)
    if len(forms) > 1:
        raise EDNError(forms[1][0], "the text has a second form")
    return forms[0][1]


def load_all(text: str) -> Iterator[Any]:
    """Yields every form in `text`. Raises EDNError when it reaches a faulty form."""
    return (form for _, form in numbered(text))


def numbered(text: str) -> Iterator[tuple[int, Any]]:
    """Yields every form in `text` with the line, from 1, on which it begins."""
    # Open collections: the opener, its position, and the forms before it in the outer one.
    outer: list[tuple[str, int, list[Any]]] = []
    forms: list[Any] = []  # forms of the innermost open collection
    position = counted = 0
    line = 1

    def fault(where: int, problem: str, cut_off: bool = False) -> EDNError:
        return EDNError(line + text.count("\n", counted, where), problem, cut_off)

    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            begin = len(text) - len(text[position:].lstrip(", \t\r\n"))
            raise fault(begin, "the text ends inside a string", cut_off=True)
        position = token.end()
        kind = token.lastgroup
        if kind is None:
            continue
        begin, word = token.start(kind), token[kind]
        try:
            if kind == "atom":
                form = _atom(word)
            elif kind == "open":
                if len(outer) == MAX_DEPTH:
                    raise ValueError(f"collections are nested deeper than {MAX_DEPTH}")
                outer.append((word, begin, forms))
                forms = []
                continue
            elif kind == "close":
                if not outer or _CLOSERS[outer[-1][0]] != word:
                    raise ValueError(f"{word} does not close an open collection")
                form = _collection(outer[-1][0], forms)
                _, begin, forms = outer.pop()
            elif kind == "discard":
                forms.append(_DISCARD)
                continue
            else:
                form = _READERS[kind](word)
        except ValueError as error:
            cut = kind != "close" and bool(outer) and position == len(text)
            raise fault(begin, str(error), cut_off=cut) from None
        if forms and forms[-1] is _DISCARD:
            forms.pop()
        elif outer:
            forms.append(form)
        else:
            line += text.count("\n", counted, begin)
            counted = begin
            yield line, form
    if outer:
        opener, begin, _ = outer[-1]
        raise fault(begin, f"the text ends before the {_CLOSERS[opener]} of this {opener}", True)


@lru_cache(maxsize=10_000)  # keywords and small numbers are frequent
def _atom(word: str) -> Any:
    if word[0] == ":":
        if len(word) == 1:
            raise ValueError("a keyword needs a name")
        return Keyword(word[1:])
    if word in _WORDS:
        return _WORDS[word]
    if word.lstrip("+-")[:1].isdigit():
        return _number(word)
    return Symbol(word)


def _number(word: str) -> int | float | Decimal | Fraction:
    if len(word) > MAX_LENGTH:
        raise ValueError(f"the number {word[:20]}... has more than {MAX_LENGTH} characters")
    if match := _INTEGER.fullmatch(word):
        return int(match[1])
    if match := _FLOAT.fullmatch(word):
        if abs(int(match[2] or 0)) > MAX_EXPONENT or (not match[3] and math.isinf(float(match[1]))):
            raise ValueError(f"the number {word[:40]} is out of range")
        return Decimal(match[1]) if match[3] else float(match[1])
    if _RATIO.fullmatch(word):
        return Fraction(word)
    if _HEX.fullmatch(word):
        return int(word, 16)
    raise ValueError(f"{word[:40]} is not a number")


def _string(word: str) -> str:
    return _ESCAPE.sub(_unescape, word[1:-1]) if "\\" in word else word[1:-1]


def _unescape(escape: re.Match[str]) -> str:
    if escape[1]:
        return chr(int(escape[1], 16))
    if escape[2] not in _ESCAPES:
        raise ValueError(f"a string cannot have the escape {escape[0]}")
    return _ESCAPES[escape[2]]


def _char(word: str) -> str:
    name = word[1:]
    if len(name) == 1:
        return name
    if name in _CHARS:
        return _CHARS[name]
    if re.fullmatch("u[0-9a-fA-F]{4}", name):
        return chr(int(name[1:], 16))
    raise ValueError(f"{word[:40]} is not a character")


def _special(word: str) -> float:
    if word not in _SPECIALS:
        raise ValueError(f"{word[:40]} is not a number; use ##Inf, ##-Inf or ##NaN")
    return _SPECIALS[word]


_READERS: Final[dict[str, Callable[[str], Any]]] = {
    "string": _string,
    "char": _char,
    "special": _special,
}


def _collection(opener: str, forms: list[Any]) -> Any:
    if forms and forms[-1] is _DISCARD:
        raise ValueError("#_ has nothing to discard")
    if opener == "#{":
        return frozenset(map(_hashable, forms))
    if opener != "{":
        return forms
    if len(forms) % 2:
        raise ValueError(f"the last key of this map, {dumps(forms[-1])[:40]}, has no value")
    return {_hashable(key): value for key, value in zip(forms[::2], forms[1::2], strict=True)}


def _hashable(form: Any) -> Any:
    if isinstance(form, list):
        return tuple(map(_hashable, form))
    if isinstance(form, dict):
        return _Frozen({key: _hashable(value) for key, value in form.items()})
    return form


class _Frozen(dict[Any, Any]):
    """A map that can be hashed, to be a key or in a set. The order of its keys does not matter."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))


# Writing

_UNSAFE: Final = re.compile(r'["\\\x00-\x1f\x7f\ud800-\udfff]')
_COLLECTIONS: Final = (dict, list, tuple, set, frozenset)
_SAFE: Final = {character: f"\\{letter}" for letter, character in _ESCAPES.items()}


def dumps(value: Any, sort_keys: bool = False) -> str:
    """Writes `value` on one line, as Clojure's `pr-str` does. The members of sets are sorted by
    their text, so equal sets look equal. `sort_keys` does the same for maps. Raises TypeError for
    a type without EDN."""
    if value is None:
        return "nil"
    if isinstance(value, int):  # the most frequent types come first
        if value is True or value is False:
            return "true" if value else "false"
        return str(value) if LEAST <= value <= MOST else f"{value}N"
    if isinstance(value, (list, tuple)):
        # Reads of broadcast and g-set are long lists of integers.
        if set(map(type, value)) == {int} and min(value) >= LEAST and max(value) <= MOST:
            return f"[{' '.join(map(str, value))}]"
        return f"[{' '.join([dumps(item, sort_keys) for item in value])}]"
    if isinstance(value, str):
        return f'"{_UNSAFE.sub(_escape, value)}"'
    if isinstance(value, (Keyword, Symbol, Fraction)):
        return str(value)
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, Decimal):
        return f"{value}M"
    if isinstance(value, (set, frozenset)):
        return f"#{{{' '.join(sorted(dumps(item, sort_keys) for item in value))}}}"
    if isinstance(value, dict):
        entries = [f"{dumps(k, sort_keys)} {dumps(v, sort_keys)}" for k, v in value.items()]
        return f"{{{', '.join(sorted(entries) if sort_keys else entries)}}}"
    raise TypeError(f"EDN has no form for a {type(value).__name__}")


def _escape(unsafe: re.Match[str]) -> str:
    return _SAFE.get(unsafe[0]) or f"\\u{ord(unsafe[0]):04x}"


def _float(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return "##NaN" if math.isnan(value) else "##Inf" if value > 0 else "##-Inf"


def pretty(value: Any, width: int = 80) -> str:
    """Writes `value` within `width` columns where possible, as Clojure's `pprint` does: a
    collection that does not fit on one line gets a line for each entry."""
    return _lay_out(value, 0, width, 0)


def _lay_out(value: Any, indent: int, width: int, behind: int) -> str:
    """Writes `value` from column `indent` on. Leaves `behind` columns free on its last line."""
    line = dumps(value)
    if indent + len(line) + behind <= width or not isinstance(value, _COLLECTIONS) or not value:
        return line
    opener = "#{" if isinstance(value, (set, frozenset)) else line[0]
    inner = indent + len(opener)
    newline = "\n" + " " * inner
    parts: list[str] = []
    if isinstance(value, dict):
        for number, (key, item) in enumerate(value.items(), 1):
            room = 1 if number < len(value) else behind + 1  # for a comma or closers
            text = dumps(key)
            beside = f"{text} {dumps(item)}"
            if inner + len(beside) + room > width and isinstance(item, _COLLECTIONS):
                beside = text + newline + _lay_out(item, inner, width, room)
            parts.append(beside)
        return f"{opener}{f',{newline}'.join(parts)}}}"
    items = sorted(value, key=dumps) if opener == "#{" else list(value)
    for number, item in enumerate(items, 1):
        parts.append(_lay_out(item, inner, width, 0 if number < len(items) else behind + 1))
    return f"{opener}{newline.join(parts)}{line[-1]}"
