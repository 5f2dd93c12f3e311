"""Character encodings of text files: detection, and streams that convert to UTF-8."""

import codecs
from contextlib import suppress
from typing import Any

_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
#: A file is UTF-8 with errors if at most this share of its lines with other bytes than ASCII is not UTF-8.
_FEW_ERRORS = 0.2
#: Encodings of East Asia, which are compared by how plausible the text is that they give.
_EAST_ASIAN = ("gb18030", "big5", "shift_jis", "euc_jp", "euc_kr")


def detect_encoding(head: bytes) -> str | None:
    """The encoding of a text's first bytes: by its byte order mark or zero bytes, UTF-8, or the likeliest other; None if binary.

    >>> detect_encoding("Köln".encode()), detect_encoding("1,Köln".encode("latin-1")), detect_encoding("ab".encode("utf-16"))
    ('utf-8', 'cp1252', 'utf-16-le')
    """
    for mark, name in _BOMS:
        if head.startswith(mark):
            return name
    if b"\0" in head[:4096]:
        return _by_zero_bytes(head[:4096])
    end = max(head.rfind(b"\n") + 1, 0) or len(head)
    try:
        head[:end].decode("utf-8")
    except UnicodeDecodeError:
        return _other_encoding(head[:end])
    return "utf-8"


def _by_zero_bytes(head: bytes) -> str | None:
    """UTF-16 or UTF-32 without a byte order mark; UTF-8 if zero bytes are rare; None for bytes that are no text."""
    zeros = [head[i::4].count(0) / max(1, len(head[i::4])) for i in range(4)]
    low = 0.1
    if zeros[0] < low and min(zeros[1:]) > 0.7:
        return "utf-32-le"
    if zeros[3] < low and min(zeros[:3]) > 0.7:
        return "utf-32-be"
    if max(zeros[0], zeros[2]) < low and min(zeros[1], zeros[3]) > 0.4:
        return "utf-16-le"
    if max(zeros[1], zeros[3]) < low and min(zeros[0], zeros[2]) > 0.4:
        return "utf-16-be"
    return "utf-8" if sum(zeros) / 4 < 0.01 else None


def _other_encoding(head: bytes) -> str:
    lines = [line for line in head.split(b"\n") if not line.isascii()]
    if sum(not is_utf8(line) for line in lines) <= _FEW_ERRORS * len(lines):
        return "utf-8"
    sample = b"\n".join(lines)[: 1 << 15]
    sample = sample[: sample.rfind(b"\n") + 1] or sample
    # In European text most letters are ASCII; in East Asian text bytes above it come in pairs.
    if sum(byte >= 0x80 for byte in sample) > 0.3 * len(sample):
        from charset_normalizer import from_bytes

        best = from_bytes(sample, cp_isolation=[*_EAST_ASIAN, "cp1251", "koi8_r", "cp1252"], language_threshold=0.05).best()
        if best is not None:
            return str(best.encoding)
    return "cp1252"


def is_utf8(text: bytes) -> bool:
    """Whether bytes are valid UTF-8."""
    if text.isascii():
        return True
    with suppress(UnicodeDecodeError):
        text.decode()
        return True
    return False


def as_cp1252(line: bytes) -> bytes:
    """A line in cp1252 as UTF-8; bytes that cp1252 lacks are read as Latin-1."""
    try:
        return line.decode("cp1252").encode()
    except UnicodeDecodeError:
        return line.decode("latin-1").encode()


class Utf8Stream:
    """A stream of text in some encoding, as UTF-8 without a byte order mark and with line feeds in place of lone CR, if asked.

    UTF-8 is passed on as it is, errors included; in another encoding, what cannot be decoded becomes U+FFFD.
    """

    def __init__(self, stream: Any, encoding: str, cr_ends: bool) -> None:
        self._stream, self._cr_ends, self._begun = stream, cr_ends, False
        self._decoder = None if encoding == "utf-8" else codecs.getincrementaldecoder(encoding)(errors="replace")

    def read(self, size: int) -> bytes:
        """At least one byte and about `size` bytes; none at the end."""
        while True:
            piece: bytes = self._stream.read(size)
            ended = not piece
            if self._decoder is not None:
                piece = self._decoder.decode(piece, final=ended).encode("utf-8", "replace")
            if piece and not self._begun:
                self._begun, piece = True, piece.removeprefix(codecs.BOM_UTF8)
            if piece or ended:
                return piece.replace(b"\r", b"\n") if self._cr_ends else piece
