"""Compiled loops that divide text into rows and cells, whatever its delimiter, quotes and escapes.

Normalised text holds the same cells with `CELL_END` between them and `ROW_END` after each row: bytes that do not occur in UTF-8,
so that cells may hold line feeds and any delimiter. Quotes and escapes are resolved in it.
"""

from ctrlab.kernels.compile import compiled

CELL_END, ROW_END = 0xFF, 0xFE
#: A quoted cell with line feeds may have at most this many lines and bytes.
MAX_CELL_LINES, MAX_CELL_BYTES = 200, 1 << 16
#: What `scan_row` does with a quote that does not close on its line: stop, read it as text, or go on in the next line.
STOP, AS_TEXT, GO_ON = 0, 1, 2
#: Instead of the end of a row: a quote does not close on the line; a cell does not end within its limits.
OPEN, UNFINISHED = -1, -2
#: Places of `counts` in `normalise`. STRAY: rows with a quote that does not close. JOINED: line feeds inside quoted cells.
ROWS, LINES, BLANK, COMMENT, FEW, MANY, STRAY, JOINED = range(8)
_LF, _CR, _SPACE, _TAB = 10, 13, 32, 9
#: Ways to read a row in `normalise`: as one line, looking ahead for the end of a quoted cell, with it, or with a stray quote.
_ONE_LINE, _LOOK, _JOIN, _STRAY = range(4)


@compiled()
def _delimits(text, place, stop, delimiter, blanks):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Whether a delimiter begins at `place`."""
    if place >= stop:
        return False
    if blanks:
        return text[place] == _SPACE or text[place] == _TAB
    if text[place] != delimiter[0] or place + len(delimiter) > stop:
        return False
    for i in range(1, len(delimiter)):  # noqa: SIM110 - compiled
        if text[place + i] != delimiter[i]:
            return False
    return True


@compiled()
def _ends_row(text, place, stop, final):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Whether a row ends at `place`: at a line feed, at CR LF, or at the end of the text."""
    if place >= stop:
        return final
    return text[place] == _LF or (text[place] == _CR and place + 1 < stop and text[place + 1] == _LF)


@compiled()
def scan_row(text, start, stop, mode, final, delimiter, blanks, quote, escape, out, at, write):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Divide one row into cells.

    Args:
        text: uint8. stop: end of the line, or for GO_ON of what may be read. mode: STOP, AS_TEXT or GO_ON.
        final: whether a row may end at `stop`.
        delimiter: uint8 (k,). blanks: any run of blanks delimits instead. quote, escape: bytes, or -1 for none.
        out, at, write: if `write`, the normalised row is written to `out` from `at`.

    Returns:
        end of the row (or OPEN, UNFINISHED), number of cells, `at` after it, number of odd quotes, of quoted cells.
    """
    place, cells, odd, quoted = start, 0, 0, 0
    while blanks and _delimits(text, place, stop, delimiter, blanks):
        place += 1
    spaced = blanks or delimiter[0] == _SPACE
    while True:
        begin, closed = place, False
        first = place
        while quote >= 0 and not spaced and first < stop and text[first] == _SPACE:
            first += 1
        if quote >= 0 and first < stop and text[first] == quote:
            mark, inner_odd, lines, p = at, 0, 0, first + 1
            while p < stop:
                byte = text[p]
                if byte == escape and p + 1 < stop and (text[p + 1] == quote or text[p + 1] == escape):
                    byte = text[p + 1]
                    p += 1
                elif byte == quote:
                    if p + 1 < stop and text[p + 1] == quote:
                        p += 1
                    else:
                        after = p + 1
                        while not spaced and after < stop and text[after] == _SPACE:
                            after += 1
                        if _ends_row(text, after, stop, final) or _delimits(text, after, stop, delimiter, blanks):
                            closed, place = True, after
                            break
                        inner_odd += 1
                elif byte == _LF:
                    lines += 1
                    if lines > MAX_CELL_LINES:
                        break
                if write:
                    out[at] = byte
                    at += 1
                p += 1
            if closed:
                odd += inner_odd
                quoted += 1
            elif mode == STOP:
                return OPEN, cells, at, odd, quoted
            elif mode == GO_ON:
                return UNFINISHED, cells, at, odd, quoted
            else:
                at = mark
                odd += 1
        if not closed:
            while place < stop and not _delimits(text, place, stop, delimiter, blanks):
                byte = text[place]
                if mode == GO_ON and byte == _LF:
                    break
                escaping = quote < 0 and escape >= 0 and byte == escape and place + 1 < stop
                if escaping and (text[place + 1] == escape or _delimits(text, place + 1, stop, delimiter, blanks)):
                    place += 1
                    byte = text[place]
                if write:
                    out[at] = byte
                    at += 1
                place += 1
            end = place
            if mode == GO_ON and place < stop and text[place] == _LF and place > begin and text[place - 1] == _CR:
                end -= 1
                at -= 1 if write else 0
            if quote >= 0 and end > begin and text[end - 1] == quote:
                odd += 1
        cells += 1
        over = _ends_row(text, place, stop, final) if mode == GO_ON or place >= stop else False
        if not over and place >= stop:
            return UNFINISHED, cells, at, odd, quoted
        if not over and blanks:
            while _delimits(text, place, stop, delimiter, blanks):
                place += 1
            over = _ends_row(text, place, stop, final) if mode == GO_ON or place >= stop else False
        elif not over:
            place += len(delimiter)
        if over:
            if write:
                out[at] = ROW_END
                at += 1
            while place < stop and text[place] != _LF:  # CR before LF
                place += 1
            return min(place + 1, stop), cells, at, odd, quoted
        if write:
            out[at] = CELL_END
            at += 1


@compiled()
def _line_end(text, place):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Place of the line feed that ends a line, and the end of its text; the end of the text if there is none."""
    end = place
    while end < len(text) and text[end] != _LF:
        end += 1
    return end, end - 1 if end > place and text[end - 1] == _CR else end


@compiled()
def _swallows(text, start, stop, columns, delimiter, blanks, quote, escape, out):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Whether the lines that a quoted cell would span are rows of their own: the last one is, or all others are."""
    place, inner, last, regular = start, 0, False, True
    while place < stop:
        end, text_end = _line_end(text, place)
        if inner > 0:
            regular = regular and last
        found, cells, _, odd, _ = scan_row(text, place, text_end, STOP, True, delimiter, blanks, quote, escape, out, 0, False)
        last = found >= 0 and cells == columns and odd == 0
        inner += 1
        place = end + 1
    return last or (inner > 1 and regular)


@compiled()
def _is_blank(text, place, stop, delimiter, blanks):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Whether a line holds blanks only, and no delimiter."""
    for i in range(place, stop):
        if text[i] != _SPACE and text[i] != _TAB:
            return False
        if not blanks and text[i] == delimiter[0]:
            return False
    return True


@compiled()
def _is_tall(text, place):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Whether more lines follow than a cell may have."""
    lines = 0
    for i in range(place, len(text)):
        lines += 1 if text[i] == _LF else 0
    return lines > MAX_CELL_LINES + 1


@compiled()
def normalise(text, final, columns, delimiter, blanks, quote, escape, comment, out, write, counts, firsts):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Normalise rows of `columns` cells; rows with more or fewer cells are counted and left out.

    Args:
        text: uint8, from the beginning of a row. final: whether it ends at the end of a row; else its last row may be unfinished.
        comment: uint8, begins lines that are no rows; may be empty. Others as in `scan_row`.
        counts: int64 (8,), added to. firsts: int64 (8,), line in which each kind was first met, counted from 1; and for FEW and
            MANY, in the places of ROWS and LINES, the number of its cells.

    Returns:
        bytes of the text that were used, and bytes written.
    """
    place, at = 0, 0
    while place < len(text):
        end, stop = _line_end(text, place)
        if end == len(text) and not final:
            break
        line = counts[LINES] + 1
        if _is_blank(text, place, stop, delimiter, blanks):
            counts[BLANK] += 1
            counts[LINES] += 1
            place = min(end + 1, len(text))
            continue
        is_comment = len(comment) > 0 and place + len(comment) <= stop
        for i in range(len(comment)):
            is_comment = is_comment and text[place + i] == comment[i]
        if is_comment:
            counts[COMMENT] += 1
            counts[LINES] += 1
            place = min(end + 1, len(text))
            continue
        # One call of `scan_row` in a loop over the ways to read the row: each call is compiled again where it stands.
        limit = min(len(text), place + MAX_CELL_BYTES)
        at_end = final and limit == len(text)
        way, next_line, joined, starved = _ONE_LINE, min(end + 1, len(text)), 0, False
        cells, written = 0, at
        while True:
            ahead = way in (_LOOK, _JOIN)
            mode = GO_ON if ahead else AS_TEXT if way == _STRAY else STOP
            until = limit if ahead else stop
            found, cells, written, _, _ = scan_row(
                text, place, until, mode, at_end or not ahead, delimiter, blanks, quote, escape, out, at, write and way != _LOOK
            )
            if way == _ONE_LINE and found == OPEN:
                way = _LOOK
            elif way == _LOOK:
                if found == UNFINISHED and limit == len(text) and not final and not _is_tall(text, place):
                    starved = True  # more text is needed
                    break
                joins = found >= 0 and cells == columns
                joins = joins and not _swallows(text, end + 1, found, columns, delimiter, blanks, quote, escape, out)
                way = _JOIN if joins else _STRAY
            else:
                break
        if starved:
            break
        if way == _JOIN:
            next_line = found
            for i in range(place, found - 1):
                joined += 1 if text[i] == _LF else 0
        stray = way == _STRAY
        counts[LINES] += 1 + joined
        place = next_line
        if cells == columns:
            counts[ROWS] += 1
            counts[JOINED] += joined
            at = written
            if stray:
                if counts[STRAY] == 0:
                    firsts[STRAY] = line
                counts[STRAY] += 1
        else:
            kind = FEW if cells < columns else MANY
            if counts[kind] == 0:
                firsts[kind] = line
                firsts[kind - FEW] = cells
            counts[kind] += 1
    return place, at


@compiled()
def count_cells(text, delimiter, blanks, quote, escape, cells, odd, quoted):  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    """Count the cells of each line, a quote that does not close on its line being text; returns the number of lines.

    Args:
        cells, odd, quoted: int64 (lines,), filled: number of cells (0 for a blank line), of odd quotes, of quoted cells.
    """
    place, line = 0, 0
    none = text[:0].copy()
    while place < len(text) and line < len(cells):
        end, stop = _line_end(text, place)
        if not _is_blank(text, place, stop, delimiter, blanks):
            _, cells[line], _, odd[line], quoted[line] = scan_row(
                text, place, stop, AS_TEXT, True, delimiter, blanks, quote, escape, none, 0, False
            )
        line += 1
        place = end + 1
    return line
