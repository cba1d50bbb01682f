r"""Checks a JSON schema's `pattern`, and writes it in the syntax that every Ollama can read.

llama.cpp turns a pattern into a grammar without checking it: `^*$`, `^(?$` or `^a{-1}$` crash
Ollama's runner, or `ollama serve` itself up to 0.29, for everyone. This parser therefore accepts
only what is known to be safe, and refuses the rest:

    pattern     = "^" sequence "$"
    alternation = sequence *("|" sequence)            ; only in a group, and at the top
    sequence    = 1*(atom [quantifier])
    atom        = "." / class / escape / character / "(" alternation ")"
    class       = "[" ["^"] 1*(member ["-" member]) "]"
    quantifier  = "*" / "+" / "?" / "{" n [","] "}" / "{" n "," n "}"      ; n <= 2000
    member      = character / escape / "\x" 2HEXDIG
    escape      = "\" ("d" / "w" / "s" / "D" / "W" / "S" / "t" / "r" / "n" / punctuation)

A quantified atom must not match the empty text: its rule would recurse without end. Escapes that
llama.cpp cannot read are written as the class of characters they stand for.
"""

import re

MAX_PATTERN = 512
"""Characters."""
MAX_GROUPS = 16
"""Levels of nested groups."""
MAX_REPETITIONS = 2000
"""llama.cpp's own limit for one repetition (MAX_REPETITION_THRESHOLD in llama-grammar.cpp)."""

_QUANTIFIER = re.compile(r"[*+?]|\{(\d{1,4})(?:(,)(\d{1,4})?)?\}")
_CODE = re.compile(r"x[0-9A-Fa-f]{2}")
_SETS = {"d": "0-9", "w": "A-Za-z0-9_", "s": r" \t\n\r"}
_CONTROLS = "trn"
_SPECIAL = "^$.[]()|{}*+?"
_RANGE = 2  # characters of a range, without its hyphen


class PatternRefused(ValueError):
    """The pattern is invalid, or not known to be safe; the text says why."""


class Pattern:
    """A checked pattern, as `text` for Ollama; `weight` is the size of its grammar."""

    def __init__(self, source: str) -> None:
        """Check `source`.

        Raises:
            PatternRefused: it may harm Ollama.
        """
        if len(source) > MAX_PATTERN:
            raise PatternRefused(f"is longer than {MAX_PATTERN} characters")
        if not (source.startswith("^") and source.endswith("$") and len(source) > 1):
            raise PatternRefused(
                "must start with ^ and end with $: Ollama matches whole texts only"
            )
        self._source = source[1:-1]
        self._at = 0
        self._groups = 0
        self.weight = 0
        text, _ = self._alternation()
        if self._at < len(self._source):
            raise PatternRefused("has a ) without its (")
        self.text = f"^{text}$"

    def _peek(self) -> str:
        return self._source[self._at : self._at + 1]

    def _take(self) -> str:
        character = self._peek()
        self._at += 1
        return character

    def _alternation(self) -> tuple[str, bool]:
        """Return the alternation at the current position, and whether it matches the empty text."""
        text, nullable = self._sequence()
        while self._peek() == "|":
            self._take()
            following, also = self._sequence()
            text, nullable = f"{text}|{following}", nullable or also
        return text, nullable

    def _sequence(self) -> tuple[str, bool]:
        text, all_nullable = "", True
        while self._peek() not in {"", "|", ")"}:
            item, nullable = self._item()
            text += item
            all_nullable &= nullable
        if not text:
            raise PatternRefused("has an empty part. Write what it may contain, or use ?")
        return text, all_nullable

    def _item(self) -> tuple[str, bool]:
        """Return an atom with its quantifier, and whether it matches the empty text."""
        start = self._at
        atom, nullable = self._atom()
        quantifier = _QUANTIFIER.match(self._source, self._at)
        if not quantifier:
            if self._peek() == "{":
                raise PatternRefused("has a { that starts no repetition such as {1,9}")
            return atom, nullable
        self._at = quantifier.end()
        if nullable:
            raise PatternRefused("repeats a part that may be empty")
        if self._peek() in {"*", "+", "?", "{"}:
            raise PatternRefused("has two repetitions in a row. Put the first in a group")
        if len(atom) > 1 and self._source[start] == "\\" and atom[0] == "\\":
            atom = f"[\\x{ord(atom[1]):02X}]"  # llama.cpp would repeat the text before it, too
        return atom + quantifier[0], self._repeats_from_zero(quantifier, atom)

    def _repeats_from_zero(self, quantifier: re.Match[str], atom: str) -> bool:
        if not quantifier[1]:
            return quantifier[0] != "+"
        least = int(quantifier[1])
        most = int(quantifier[3] or 0) if quantifier[2] else least
        if max(least, most) > MAX_REPETITIONS:
            raise PatternRefused(f"repeats a part more than {MAX_REPETITIONS} times")
        if (quantifier[3] or not quantifier[2]) and (most < least or not most):
            raise PatternRefused(f"has the repetition {quantifier[0]}, which is not possible")
        # A class is copied for each repetition; a group becomes one rule, which is named.
        self.weight += max(least, most) * (len(atom) if atom[0] == "[" else 1)
        return least == 0

    def _atom(self) -> tuple[str, bool]:
        character = self._take()
        if character == "(":
            return self._group()
        if character == "[":
            return self._class(), False
        if character == "\\":
            return self._escape(), False
        if character != "." and character in _SPECIAL:
            raise PatternRefused(f"has a {character} where it has no meaning. Write \\{character}")
        if character < " ":
            raise PatternRefused("has a control character. Write an escape such as \\n")
        return character, False

    def _group(self) -> tuple[str, bool]:
        self._groups += 1
        if self._groups > MAX_GROUPS:
            raise PatternRefused(f"has groups nested deeper than {MAX_GROUPS} levels")
        if self._peek() == "?":
            raise PatternRefused("has a (?...), which Ollama cannot read. Use plain groups")
        text, nullable = self._alternation()
        if self._take() != ")":
            raise PatternRefused("has a ( without its )")
        self._groups -= 1
        return f"({text})", nullable

    def _escape(self) -> str:
        character = self._take()
        if character.lower() in _SETS:
            return f"[{'^' if character.isupper() else ''}{_SETS[character.lower()]}]"
        if character in _CONTROLS and character:
            return f"[\\{character}]"
        if not character or character.isalnum() or character <= " " or character > "~":
            raise PatternRefused(f"has the escape \\{character}, which Ollama cannot read")
        return f"\\{character}" if character in f'{_SPECIAL}\\"' else character

    def _class(self) -> str:
        text = "^" if self._peek() == "^" and self._take() else ""
        empty = True
        while self._peek() not in {"", "]"}:
            first = self._member()
            text, empty = text + first, False
            if self._peek() == "-" and self._source[self._at + 1 : self._at + 2] not in {"", "]"}:
                self._take()
                last = self._member()
                if max(len(first), len(last)) > _RANGE or _letter(first) > _letter(last):
                    raise PatternRefused(f"has the range {first}-{last}, which is not possible")
                text += f"-{last}"
        if self._take() != "]":
            raise PatternRefused("has a [ without its ]")
        if empty:
            raise PatternRefused("has an empty [ ]")
        return f"[{text}]"

    def _member(self) -> str:
        character = self._take()
        if character != "\\":
            if character < " ":
                raise PatternRefused("has a control character. Write an escape such as \\n")
            return character if character != "[" else "\\["
        if code := _CODE.match(self._source, self._at):
            self._at = code.end()
            return f"\\{code[0]}"
        character = self._take()
        if character in _SETS:
            return _SETS[character]
        if character in "-^" and character:
            return f"\\x{ord(character):02X}"
        if character in f'{_CONTROLS}\\"[]' and character:
            return f"\\{character}"
        if not character or character.isalnum() or character <= " " or character > "~":
            raise PatternRefused(f"has the escape \\{character}, which Ollama cannot read")
        return character


def _letter(member: str) -> int:
    """Return the code of a class's member, which may be escaped."""
    return {"\\t": 9, "\\n": 10, "\\r": 13}.get(member, ord(member[-1]))
