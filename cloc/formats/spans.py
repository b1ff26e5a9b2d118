"""Pieces of a caption as phrases."""

from __future__ import annotations


def phrase_of(caption: str, pieces: object, lead: int = 0) -> tuple[str | None, list[int] | None]:
    """(phrase, its [start, end) in the caption) of the pieces that a box belongs to.

    Pieces with nothing but blanks between them are one. Where they are apart they are joined by a blank and there is no
    one span: None.

    Args:
        caption: without outer blanks.
        pieces: a list of [start, end) in the caption as it was before.
        lead: how many blanks were taken from its beginning.

    Returns:
        (None, None) where a piece is none, or lies outside the caption.
    """
    if not isinstance(pieces, list) or not pieces:
        return None, None
    spans: list[list[int]] = []
    for piece in pieces:
        whole = isinstance(piece, list) and len(piece) == 2 and all(isinstance(place, int) for place in piece)
        if not whole or not lead <= piece[0] < piece[1] <= len(caption) + lead:
            return None, None
        spans.append([piece[0] - lead, piece[1] - lead])
    joined: list[list[int]] = []
    for start, end in sorted(spans):
        if joined and not caption[joined[-1][1] : start].strip():
            joined[-1][1] = max(end, joined[-1][1])
        else:
            joined.append([start, end])
    phrase = " ".join(caption[start:end] for start, end in joined)
    return phrase, joined[0] if len(joined) == 1 else None
