"""Counts the parts of a JSON text as it arrives, before they become objects."""

from core.contract.errors import BadRequest

MAX_PARTS = 2**17
"""Strings, and the punctuation between them that begins or separates values: reading more would
make other clients wait too long."""
MAX_BYTES_PER_PART = 32
"""On average, without the text of strings: more would be mostly whitespace."""

_PUNCTUATION = b",:[{"


class PartsCounter:
    """Counts what stands between a text's strings, and the strings.

    It need not recognize invalid JSON: the decoder stops where that begins.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = self._between = 0
        self._in_string = False
        self._rest = b""

    def feed(self, piece: bytes) -> None:
        """Count the next `piece` of the text, which may end anywhere.

        Raises:
            BadRequest: the text has too many parts.
        """
        piece = self._rest + piece
        self._rest = b""
        if b"\\" in piece:
            if (len(piece) - len(piece.rstrip(b"\\"))) % 2:
                piece, self._rest = piece[:-1], piece[-1:]
            piece = piece.replace(b"\\\\", b"").replace(b'\\"', b"")
        parts = piece.split(b'"')
        between = b"".join(parts[self._in_string :: 2])
        strings = (len(parts) - self._in_string) // 2
        self._in_string ^= len(parts) % 2 == 0
        punctuation = len(between) - len(between.translate(None, _PUNCTUATION))
        self._count += punctuation + strings
        self._between += len(between)
        if self._count > self._limit or self._between > self._limit * MAX_BYTES_PER_PART:
            raise BadRequest(f"The body has over {self._limit} values, or is mostly whitespace")
