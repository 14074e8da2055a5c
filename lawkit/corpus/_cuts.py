"""Where long text is cut: at a paragraph, else a line, else a space, never inside a character."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

__all__ = ["CUT", "LONGEST", "cuts", "parts"]

#: A longer text is cut into documents of at most CUT bytes (about one context of 4,096 tokens).
LONGEST = 1 << 20
CUT = 16 << 10


def cut_at(data: bytes, start: int, length: int) -> int:
    """Find the end of a piece that starts at `start` and has at most `length` bytes.

    Examples
    --------
    >>> cut_at(b"one two. Three four", 0, 12)
    9
    """
    stop = start + length
    if stop >= len(data):
        return len(data)
    for mark in (b"\n\n", b"\n", b" "):
        # Not in the first half: many tiny pieces would be worse than a cut at a lesser mark.
        at = data.rfind(mark, start + length // 2, stop)
        if at >= 0:
            return at + len(mark)
    for back in range(4):
        if data[stop - back] & 0xC0 != 0x80:
            return stop - back
    return stop  # not UTF-8; whoever decodes it says so


def cuts(data: bytes, length: int) -> Iterator[bytes]:
    """Cut data into pieces of at most `length` bytes; joined, they give the data back.

    Examples
    --------
    >>> list(cuts(b"one two. Three four", 12))
    [b'one two. ', b'Three four']
    """
    start = 0
    while start < len(data):
        stop = cut_at(data, start, length)
        yield data[start:stop]
        start = stop


def parts(blocks: Iterable[bytes], separator: bytes | None, longest: int) -> Iterator[tuple[int, bytes]]:
    """Split a stream at a separator, and cut what is longer than `longest`, in bounded memory.

    Parameters
    ----------
    blocks : iterable of bytes
        The stream, in blocks of any size.
    separator : bytes, optional
        What stands between documents; it belongs to none. None: there is one document.
    longest : int
        A document of more bytes is cut into pieces of at most `CUT`.

    Yields
    ------
    (int, bytes)
        Where the document starts in the stream, and the document; the same whatever the blocks.
    """
    margin = len(separator) if separator else 0
    offset, rest, cutting = 0, b"", False
    for block in blocks:
        rest += block
        complete = rest.split(separator) if separator else [rest]
        rest = complete.pop()
        for part in complete:
            yield from _finished(offset, part, longest, cutting)
            offset += len(part) + margin
            cutting = False
        cutting = cutting or len(rest) > longest + margin
        start = 0
        # The margin keeps a separator that has only half arrived out of the pieces.
        while cutting and len(rest) - start > CUT + margin:
            stop = cut_at(rest, start, CUT)
            yield offset + start, rest[start:stop]
            start = stop
        offset, rest = offset + start, rest[start:]
    yield from _finished(offset, rest, longest, cutting)


def _finished(offset: int, part: bytes, longest: int, cutting: bool) -> Iterator[tuple[int, bytes]]:
    if not part:
        return
    for piece in cuts(part, CUT) if cutting or len(part) > longest else (part,):
        yield offset, piece
        offset += len(piece)
