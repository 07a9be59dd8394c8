"""A clean CSV file spoiled in every way we know: an equal set of our own to the Pollock benchmark
(Vitagliano et al., "Pollock: A Data Loading Benchmark", VLDB 2023).

Pollock takes one clean file and pollutes it, one way at a time, on the levels of the file (its end, encoding, line
ends, lines that are no part of the table), the header, the rows, the fields, and the dialect. `cases()` does the
same with the small table below. Every case says what must become of it: exactly these rows, or a refusal with this
error code. There is no third outcome. Fields hold what programs stumble over: a date, a time, a number with a
fraction, a comma and a quote in a text, a letter beyond ASCII, a field without a value.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

HEADER = ["id", "day", "name", "price", "note"]
ROWS = [
    ["1", "2024-01-31", "Ada", "1.5", "first"],
    ["2", "2024-02-29", "Bob, the second", "2.25", None],
    ["3", "2024-03-01", 'Cy "C"', "10.0", "last, but one"],
    ["4", "2024-12-31", "Dörte", "0.5", "end"],
]
"""All values as texts, None where there is none: as a load with every column VARCHAR must give them."""

UNREADABLE, EMPTY = "source_unreadable", "source_empty"


@dataclass(frozen=True)
class Case:
    """One polluted file."""

    name: str
    data: bytes
    rows: list[list[str | None]] | None
    """The rows that must come out, all values as texts; None: it must be refused."""
    columns: list[str] = field(default_factory=lambda: HEADER)
    code: str | None = None
    """The code of the error that must be raised; None: the rows must come out."""
    options: dict[str, Any] = field(default_factory=dict)
    file: str = "a.csv"


def text(
    rows: list[list[str | None]] = ROWS,
    header: list[str] | None = HEADER,
    *,
    delim: str = ",",
    quote: str = '"',
    escape: str = '"',
    end: str = "\n",
    null: str = "",
    all_quoted: bool = False,
) -> str:
    """The table as CSV in a dialect."""

    def shown(value: str | None) -> str:
        if value is None:
            return null
        if all_quoted or any(mark and mark in value for mark in (delim, quote, "\n", "\r")):
            return quote + value.replace(quote, escape + quote) + quote
        return value

    lines = [*([header] if header else []), *rows]
    return "".join(delim.join(map(shown, line)) + end for line in lines)


def changed(row: int, column: int, value: str | None) -> list[list[str | None]]:
    """The rows with one value replaced."""
    rows = [list(one) for one in ROWS]
    rows[row][column] = value
    return rows


def cases() -> Iterator[Case]:
    """All polluted files."""
    yield from _file_level()
    yield from _header_level()
    yield from _row_level()
    yield from _field_level()
    yield from _dialect_level()


def _file_level() -> Iterator[Case]:
    clean = text()
    lines = clean.splitlines(keepends=True)

    def good(name: str, data: bytes | str, rows: Any = ROWS, **more: Any) -> Case:
        return Case(name, data.encode() if isinstance(data, str) else data, rows, **more)

    def bad(name: str, data: bytes | str, code: str = UNREADABLE, **more: Any) -> Case:
        return Case(name, data.encode() if isinstance(data, str) else data, None, code=code, **more)

    yield good("clean", clean)
    yield good("no newline at the end", clean.rstrip("\n"))
    yield good("two newlines at the end", clean + "\n")
    yield good("many newlines at the end", clean + "\n" * 20)
    yield bad("spaces in the last line", clean + "   \n")
    yield bad("empty lines before", "\n\n" + clean)
    yield good("empty lines before, told", "\n\n" + clean, options={"skip": 2})
    yield good("empty line after the header", lines[0] + "\n" + "".join(lines[1:]))
    yield good("empty line between rows", "".join(lines[:3]) + "\n" + "".join(lines[3:]))
    yield good("empty lines everywhere", "\n".join(lines))
    yield good("carriage return and line feed", text(end="\r\n"))
    yield good("carriage returns", text(end="\r"))
    yield bad("line ends mixed", "".join(line if n % 2 else line.replace("\n", "\r\n") for n, line in enumerate(lines)))
    yield good("byte order mark", b"\xef\xbb\xbf" + clean.encode())
    yield bad("two byte order marks", b"\xef\xbb\xbf\xef\xbb\xbf" + clean.encode())
    yield good("utf-16, little end first", b"\xff\xfe" + clean.encode("utf-16-le"))
    yield good("utf-16 without a mark, told", clean.encode("utf-16-le"), options={"encoding": "utf-16"})
    yield bad("utf-16 without a mark", clean.encode("utf-16-le"))
    yield bad("utf-16, big end first", b"\xfe\xff" + clean.encode("utf-16-be"))
    yield bad("utf-32", clean.encode("utf-32"))
    yield bad("latin-1", clean.encode("latin-1"))
    yield good("latin-1, told", clean.encode("latin-1"), options={"encoding": "latin-1"})
    yield bad("windows-1252 quotes", clean.replace("first", "\x93first\x94").encode("latin-1"))
    yield bad("a NUL in a field", clean.replace("first", "fi\0rst"))
    yield bad("an invalid byte", clean.encode().replace(b"first", b"fi\xffrst"))
    yield bad("cut inside a letter", clean.encode()[: clean.encode().index("ö".encode()) + 1])
    yield bad("nothing", b"", EMPTY)
    yield bad("only a byte order mark", b"\xef\xbb\xbf", EMPTY)
    yield bad("only newlines", b"\n\n\n", EMPTY)
    yield bad("only the header", lines[0], EMPTY)
    yield bad("only the header, no newline", lines[0].rstrip("\n"), EMPTY)
    yield bad("a title line before", "Sales of the year\n" + clean)
    yield bad("three lines before", "Sales\nof the year\n2024\n" + clean)
    yield good("three lines before, told", "Sales\nof the year\n2024\n" + clean, options={"skip": 3})
    yield bad("a comment before", "# made by a machine\n" + clean)
    yield good("a comment before, told", "# made by a machine\n" + clean, options={"comment": "#"})
    yield good(
        "a comment between, told", "".join(lines[:3]) + "# half\n" + "".join(lines[3:]), options={"comment": "#"}
    )
    yield bad("a footnote", clean + "4 rows\n")
    yield bad("a footnote after an empty line", clean + "\n* all in euros\n")
    yield bad("a line of totals that is too short", clean + "total,,,14.25\n")
    yield bad("a second table, wider", clean + "a,b,c,d,e,f,g\n1,2,3,4,5,6,7\n")
    yield bad("a second table, narrower", clean + "\na,b\n1,2\n")
    yield bad("a separator line", lines[0] + "-----\n" + "".join(lines[1:]))
    yield bad("the hint of a spreadsheet", "sep=,\n" + clean)
    yield good("compressed", gzip.compress(clean.encode()), file="a.csv.gz")
    yield bad("compressed and cut", gzip.compress(clean.encode())[:-12], file="a.csv.gz")
    yield bad("compressed, but called csv", gzip.compress(clean.encode()))
    yield bad("an archive, but called csv", b"PK\x03\x04" + bytes(200))


def _header_level() -> Iterator[Case]:
    body = text(header=None)

    def header(line: str) -> bytes:
        return (line + "\n" + body).encode()

    yield Case("no header, told", body.encode(), ROWS, HEADER, options={"header": False, "names": HEADER})
    yield Case("two header lines", header("id,day,name,price,note\nno,date,text,euros,text"),
               [["no", "date", "text", "euros", "text"], *ROWS])  # fmt: skip
    yield Case("a name twice", header("id,day,name,name,note"), None, code=UNREADABLE)
    yield Case("a name twice in two cases", header("id,day,name,Name,note"), None, code=UNREADABLE)
    yield Case("all names the same", header("x,x,x,x,x"), None, code=UNREADABLE)
    yield Case("a name is empty", header("id,day,,price,note"), ROWS, ["id", "day", "column2", "price", "note"])
    yield Case("the last name is empty", header("id,day,name,price,"), ROWS, [*HEADER[:4], "column4"])
    yield Case("a name too few", header("id,day,name,price"), None, code=UNREADABLE)
    yield Case("a name too many", header("id,day,name,price,note,more"), None, code=UNREADABLE)
    yield Case("names in quotes", header('"id","day","name","price","note"'), ROWS)
    yield Case("a delimiter in a name", header('id,day,"name, first",price,note'), ROWS,
               ["id", "day", "name, first", "price", "note"])  # fmt: skip
    yield Case("a quote in a name", header('id,day,"the ""name""",price,note'), ROWS,
               ["id", "day", 'the "name"', "price", "note"])  # fmt: skip
    yield Case("a newline in a name", header('id,day,"name\nfirst",price,note'), ROWS,
               ["id", "day", "name\nfirst", "price", "note"])  # fmt: skip
    yield Case("letters beyond ASCII in a name", header("id,day,größe,price,note"), ROWS,
               ["id", "day", "größe", "price", "note"])  # fmt: skip
    long = "n" * 5000
    yield Case(
        "a name of 5,000 letters", header(f"id,day,{long},price,note"), ROWS, ["id", "day", long, "price", "note"]
    )
    yield Case("names in upper case", header("ID,DAY,NAME,PRICE,NOTE"), ROWS, [name.upper() for name in HEADER])
    yield Case(
        "a name is a keyword", header("id,day,select,price,note"), ROWS, ["id", "day", "select", "price", "note"]
    )
    yield Case("the header again in the middle", (text() + text()).encode(), [*ROWS, HEADER, *ROWS])
    yield Case("the header in another delimiter", header("id;day;name;price;note"), None, code=UNREADABLE)
    yield Case("an open quote in the header", header('id,day,"name,price,note'), None, code=UNREADABLE)


def _row_level() -> Iterator[Case]:
    lines = text().splitlines(keepends=True)

    def line(number: int, new: str) -> bytes:
        return "".join([*lines[:number], new, *lines[number + 1 :]]).encode()

    for number in (1, 2, 4):
        yield Case(f"a field too few in row {number}", line(number, "9,2024-01-01,x,1.0\n"), None, code=UNREADABLE)
        yield Case(f"a field too many in row {number}", line(number, "9,2024-01-01,x,1.0,y,z\n"), None, code=UNREADABLE)
        yield Case(f"one field only in row {number}", line(number, "9\n"), None, code=UNREADABLE)
        yield Case(f"semicolons in row {number}", line(number, "9;2024-01-01;x;1.0;y\n"), None, code=UNREADABLE)
    every = [one.rstrip("\n") + ",\n" for one in lines[1:]]
    yield Case("a delimiter at the end of every row", (lines[0] + "".join(every)).encode(), ROWS)
    more = [one.rstrip("\n") + ",x\n" for one in lines[1:]]
    yield Case("a field too many in every row", (lines[0] + "".join(more)).encode(), None, code=UNREADABLE)
    yield Case("a delimiter at the end of every line", "".join(one.rstrip("\n") + ",\n" for one in lines).encode(),
               [[*row, None] for row in ROWS], [*HEADER, "column5"])  # fmt: skip
    yield Case("a row of delimiters only", line(2, ",,,,\n"), [ROWS[0], [None] * 5, *ROWS[2:]])
    yield Case("a row twice", "".join([*lines, lines[1]]).encode(), [*ROWS, ROWS[0]])
    yield Case("one row", "".join(lines[:2]).encode(), ROWS[:1])
    yield Case("cut in the last row", "".join(lines).encode()[:-12], None, code=UNREADABLE)
    wide = [str(number) for number in range(600)]
    yield Case("600 columns", text([wide], [f"c{n}" for n in wide]).encode(), [wide], [f"c{n}" for n in wide])
    yield Case("30,000 rows", text(ROWS * 7500).encode(), ROWS * 7500)
    late = (text(ROWS * 7500) + "9,2024-01-01,x\n").encode()
    yield Case("a short row after 30,000", late, None, code=UNREADABLE)
    open_quote = (text(ROWS * 7500) + '9,2024-01-01,"x,1.0,y\n' + text(ROWS, None)).encode()
    yield Case("an open quote after 30,000", open_quote, None, code=UNREADABLE)
    yield Case("one column", text([["a"], ["b"]], ["only"]).encode(), [["a"], ["b"]], ["only"])
    yield Case("one column with delimiters in quotes", text([["a,b"], ["c,d"]], ["only"]).encode(),
               [["a,b"], ["c,d"]], ["only"])  # fmt: skip


def _field_level() -> Iterator[Case]:
    def value(name: str, new: str | None, written: str | None = None) -> Case:
        rows = changed(0, 4, new)
        data = text(rows) if written is None else text(changed(0, 4, "@@")).replace("@@", written)
        return Case(name, data.encode(), rows)

    yield value("a newline in quotes", "two\nlines")
    yield value("a carriage return and line feed in quotes", "two\r\nlines")
    yield value("an empty line in quotes", "two\n\nlines")
    yield value("a whole row in quotes", "x\n9,2024-01-01,y,1.0,z\nw")
    yield value("a quote in quotes", 'say "hi"')
    yield value("only quotes", '""')
    yield value("a quote at the end", 'inch"', '"inch"""')
    yield value("delimiters in quotes", ",,,")
    yield value("other delimiters", "a;b|c\td")
    yield value("spaces around", "  x  ")
    yield value("an empty text in quotes", None, '""')
    yield value("the word NULL", "NULL")
    yield value("NA", "NA")
    yield value("a backslash", "C:\\temp\\new")
    yield value("a backslash at the end", "C:\\")
    yield value("apostrophes", "it's 'fine'")
    yield value("one apostrophe", "it's")
    yield value("a hash", "#1")
    yield value("100,000 letters", "x" * 100_000)
    yield value("letters of other scripts", "日本語 العربية 🎉")
    yield value("a zero-width space", "a\u200bb")
    yield value("a control character", "a\x01b")
    yield value("a line separator of Unicode", "a\u2028b")
    yield value("a formula", "=1+1")
    yield value("an HTML tag", '<a href="x">y</a>')
    yield value("JSON", '{"a": [1, 2]}')
    yield value("a quote inside a plain field", '5" wide', '5" wide')
    yield value("two quotes inside a plain field", 'a "b" c', 'a "b" c')
    yield Case("a letter after the closing quote", text(changed(0, 4, "@@")).replace("@@", '"a"b').encode(), None,
               code=UNREADABLE)  # fmt: skip
    yield Case("a quote inside quotes, not doubled", text(changed(0, 4, "@@")).replace("@@", '"a "b" c"').encode(), None,
               code=UNREADABLE)  # fmt: skip
    yield Case("an open quote at the end", (text() + '9,2024-01-01,x,1.0,"y').encode(), None, code=UNREADABLE)
    for nulls in ("NULL", "NA", "-", "\\N"):
        data = text(null=nulls).encode()
        yield Case(f"no value is written {nulls}, told", data, ROWS, options={"nullstr": nulls})
        yield Case(f"no value is written {nulls}", data, changed(1, 4, nulls))


def _dialect_level() -> Iterator[Case]:
    for name, delim in {"semicolon": ";", "tab": "\t", "bar": "|"}.items():
        yield Case(f"delimiter {name}", text(delim=delim).encode(), ROWS)
        yield Case(f"delimiter {name}, all quoted", text(delim=delim, all_quoted=True, end="\r\n").encode(), ROWS)
    for name, delim in {"caret": "^", "tilde": "~", "space": " ", "two bars": "||", "unit separator": "\x1f"}.items():
        yield Case(f"delimiter {name}, told", text(delim=delim).encode(), ROWS, options={"delim": delim})
    yield Case("all quoted", text(all_quoted=True).encode(), ROWS)
    yield Case("apostrophes for quotes, told", text(quote="'", escape="'").encode(), ROWS,
               options={"quote": "'", "escape": "'"})  # fmt: skip
    yield Case("backslash for escape, told", text(escape="\\").encode(), ROWS, options={"escape": "\\"})
    yield Case("backslash for escape", text(escape="\\").encode(), None, code=UNREADABLE)
    plain = [[value and value.replace(",", "").replace('"', "") for value in row] for row in ROWS]
    yield Case("no quotes at all", text(plain).encode(), plain)
    yield Case("no quotes, told", text(plain).encode(), plain, options={"quote": "", "escape": ""})
    spaced = text(plain).replace(",", ", ")
    inner = [[value and f" {value}" for value in row] for row in plain]
    expected = [[row[0].strip(), row[1].strip(), row[2], row[3].strip(), row[4] or " "] for row in inner]
    yield Case("a space after every delimiter", spaced.encode(), expected, [name.strip() for name in HEADER])
    yield Case("fields padded to a width", b"id   day\n1    x\n2    y\n", [["1    x"], ["2    y"]], ["id   day"])
