"""Changes that somebody may make to the files of a release, for `benchmarks.fuzz`: each takes bytes and a generator and gives other bytes."""

import io
import json
import random
import re
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Mutation = Callable[[bytes, random.Random], bytes]

TEXTS = ("", " ", "\x1b[2K\x1b[1Averified", "\n\n## Audited\n\n", "![x](https://example.org/x.png)", "<script>1</script>", "| a | b |",
         "\u202eevil", "\u200b", "../../etc/passwd", "/etc/passwd", "C:\\x", "a" * 100_000, "=1+1", "{{ 7 * 7 }}",
         "\ufeff", "e\u0301", "NaN", "null", "\x00")
NUMBERS = (0, -1, 1, 2, 1e308, -1e308, 5e-324, 10**19, 10**400, 2**31, 2**63, 2**64, 0.5, 0.999999, 1.0000001, True, False)
LARGE = 2_000_000  # characters or digits of what is made to fill memory


# --- any bytes

def flip_bit(data: bytes, rng: random.Random) -> bytes:
    """One bit is the other."""
    place = rng.randrange(max(1, len(data)))
    return data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1:] if data else b"\1"


def overwrite(data: bytes, rng: random.Random) -> bytes:
    """A few bytes become random ones."""
    place, number = rng.randrange(len(data) + 1), rng.randint(1, 16)
    return data[:place] + rng.randbytes(number) + data[place + number:]


def cut_out(data: bytes, rng: random.Random) -> bytes:
    """A piece is missing."""
    first, last = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:first] + data[last:]


def cut_off(data: bytes, rng: random.Random) -> bytes:
    """The end is missing."""
    return data[:rng.randrange(len(data) + 1)]


def insert(data: bytes, rng: random.Random) -> bytes:
    """Random bytes are put in."""
    place = rng.randrange(len(data) + 1)
    return data[:place] + rng.randbytes(rng.choice((1, 4, 64, 4096))) + data[place:]


def repeat(data: bytes, rng: random.Random) -> bytes:
    """A piece stands twice."""
    first, last = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:last] + data[first:last] + data[last:]


def empty(data: bytes, rng: random.Random) -> bytes:  # every mutation has one form
    """Nothing is left."""
    return b""


# --- text

def change_number(data: bytes, rng: random.Random) -> bytes:
    """A number in a text becomes another."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?", data))
    if not found:
        return flip_bit(data, rng)
    match = rng.choice(found)
    value = rng.choice((str(rng.choice(NUMBERS)), str(int(float(match[0][:15])) + rng.choice((-1, 1))), "9" * rng.choice((21, 400, LARGE))))
    return data[:match.start()] + value.encode() + data[match.end():]


def change_word(data: bytes, rng: random.Random) -> bytes:
    """A word in a text becomes something that a reader may stumble over."""
    found = list(re.finditer(rb"\w+", data))
    if not found:
        return insert(data, rng)
    match = rng.choice(found)
    return data[:match.start()] + rng.choice(TEXTS).encode() + data[match.end():]


def change_line(data: bytes, rng: random.Random) -> bytes:
    """A line is left out, stands twice, or changes places with another."""
    lines = data.split(b"\n")
    first, second = rng.randrange(len(lines)), rng.randrange(len(lines))
    kind = rng.randrange(3)
    if kind == 0:
        del lines[first]
    elif kind == 1:
        lines.insert(second, lines[first])
    else:
        lines[first], lines[second] = lines[second], lines[first]
    return b"\n".join(lines)


# --- JSON

def places_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside a value."""
    found = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += places_of(inner, (*path, key))
    return found


def hostile_value(value: Any, rng: random.Random) -> Any:
    """Something else in the place of a value: near to it, of another type, or made to do harm."""
    if isinstance(value, bool):
        return rng.choice((not value, 1, "true", None))
    if isinstance(value, (int, float)):
        return rng.choice((*NUMBERS, value + 1, value - 1, value * 1.000001, value * 2, str(value), None, [value]))
    if isinstance(value, str):
        changed = [value + " ", value.upper(), value[::-1], value[:-1], f"{value}{rng.choice(TEXTS)}", *TEXTS]
        return rng.choice((*changed, 1, None, [value], {"a": value}))
    if isinstance(value, list):
        return rng.choice(([], value * 2, value[::-1], value[1:], {}, None, "x", value * 300))
    if isinstance(value, dict):
        return rng.choice(({}, [], None, dict(list(value.items())[1:]), value | {rng.choice(TEXTS[:8]): 1}, value | {"unknown": value}))
    return rng.choice((0, "", [], {}, 1.5))


def change_json(data: bytes, rng: random.Random) -> bytes:
    """One value of a JSON text becomes another, or goes; the text is written as this project writes it."""
    value = json.loads(data)
    place = rng.choice(places_of(value)[1:] or [()])
    if not place:
        return insert(data, rng)
    inner = value
    for key in place[:-1]:
        inner = inner[key]
    if rng.random() < 0.15:
        del inner[place[-1]]
    else:
        inner[place[-1]] = hostile_value(inner[place[-1]], rng)
    return (json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False) + "\n").encode(errors="surrogatepass")


def change_json_text(data: bytes, rng: random.Random) -> bytes:
    """What a JSON parser lets pass or chokes on: a key twice, NaN, depth, long numbers, half a surrogate pair."""
    nested = rng.choice((33, 1000, 100_000))
    inserts = (b'"a": 1, "a": 2, ', b'"x": NaN, ', b'"x": ' + b"[" * nested + b"]" * nested + b", ", b'"x": ' + b"9" * LARGE + b", ",
               b'"x": "\\ud800", ', b'"x": 1e999, ', b"/* */ ", b'"x": "' + b"a" * LARGE + b'", ')
    braces = [match.end() for match in re.finditer(rb"\{", data)] or [0]
    place = rng.choice(braces)
    return data[:place] + rng.choice(inserts) + data[place:]


def change_json_line(data: bytes, rng: random.Random) -> bytes:
    """One line of JSON lines is changed as JSON is."""
    lines = data.split(b"\n")
    number = rng.randrange(max(1, len(lines) - 1))
    value = json.loads(lines[number] or b"{}")
    place = rng.choice(places_of(value)[1:] or [("x",)])
    value[place[0]] = hostile_value(value.get(place[0]), rng)
    lines[number] = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(errors="surrogatepass")
    return b"\n".join(lines)


# --- YAML

def change_yaml_text(data: bytes, rng: random.Random) -> bytes:
    """What a YAML parser lets pass or chokes on: aliases, tags, merge keys, depth, keys that stand twice."""
    bomb = b"a0: &a0 [x, x]\n" + b"".join(b"a%d: &a%d [%s]\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 12))
    lines = (bomb, b"x: !!python/object/apply:os.system [ls]\n", b"<<: {name: other}\n", b"x: " + b"[" * 1000 + b"]" * 1000 + b"\n",
             b"name: other\n", b"? [a, b]\n: c\n", b"--- \n", b"x: 0x" + b"f" * LARGE + b"\n", b"x: 1:59:59:59\n", b"x: 2026-13-45\n",
             b"\xef\xbb\xbf", b"\t- x\n")
    rows = data.split(b"\n")
    rows.insert(rng.randrange(len(rows)), rng.choice(lines).rstrip(b"\n"))
    return b"\n".join(rows)


# --- parquet

def change_rows(data: bytes, rng: random.Random) -> bytes:
    """A table's rows: one goes, stands twice, changes places, or one of its cells is another."""
    table = pq.read_table(io.BytesIO(data))
    rows = table.to_pylist()
    if not rows:
        return flip_bit(data, rng)
    first, second = rng.randrange(len(rows)), rng.randrange(len(rows))
    kind = rng.randrange(6)
    if kind == 0:
        del rows[first]
    elif kind == 1:
        rows.insert(second, dict(rows[first]))
    elif kind == 2:
        rows[first], rows[second] = rows[second], rows[first]
    else:
        column = rng.choice(table.column_names)
        rows[first][column] = rng.choice((rows[second][column], None, hostile_value(rows[first][column], rng)))
    return write_parquet(pa.Table.from_pylist(rows, schema=table.schema))


def change_columns(data: bytes, rng: random.Random) -> bytes:
    """A column goes, has another name or type, or stands twice."""
    table = pq.read_table(io.BytesIO(data))
    number = rng.randrange(table.num_columns)
    kind = rng.randrange(4)
    if kind == 0:
        table = table.remove_column(number)
    elif kind == 1:
        names = list(table.column_names)
        names[number] += rng.choice(("x", " ", "\u200b", "_"))
        table = table.rename_columns(names)
    elif kind == 2:
        types = (pa.string(), pa.float64(), pa.int8(), pa.large_string(), pa.binary(), pa.bool_())
        table = table.set_column(number, table.column_names[number], table.column(number).cast(rng.choice(types)))
    else:
        table = table.append_column(rng.choice((table.column_names[number], "other")), table.column(number))
    return write_parquet(table)


def unfold(data: bytes, rng: random.Random) -> bytes:
    """A table that is small on disk and large in memory: one long value in every row, written once as a dictionary's."""
    table = pq.read_table(io.BytesIO(data))
    texts = [number for number, field in enumerate(table.schema) if pa.types.is_string(field.type)]
    if not texts:
        return flip_bit(data, rng)
    number, size = rng.choice(texts), rng.choice((100_000, 3_000_000))
    column = pa.DictionaryArray.from_arrays(pa.array([0] * table.num_rows, pa.int32()), pa.array(["a" * size]))
    return write_parquet(table.set_column(number, table.schema.field(number).name, column))


def write_parquet(table: pa.Table) -> bytes:
    """A table as the bytes of a parquet file, without Arrow's own schema, so that a dictionary is read as text."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", store_schema=False)
    return buffer.getvalue()


# --- safetensors and PNG

def change_header(data: bytes, rng: random.Random) -> bytes:
    """The header of a safetensors file: its length, or one of its values."""
    length = struct.unpack("<Q", data[:8])[0]
    if rng.random() < 0.3:
        return struct.pack("<Q", rng.choice((0, 1, length - 1, length + 1, 2**31, 2**63, len(data)))) + data[8:]
    change = rng.choice((change_json_text, change_number, change_word, change_header_value))
    header = change(data[8:8 + length], rng)
    return struct.pack("<Q", len(header)) + header + data[8 + length:]


def change_header_value(header: bytes, rng: random.Random) -> bytes:
    """One value of a safetensors header becomes another."""
    value = json.loads(header)
    place = rng.choice([place for place in places_of(value) if len(place) > 1])
    inner = value
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = hostile_value(inner[place[-1]], rng)
    return json.dumps(value, separators=(",", ":")).encode(errors="surrogatepass")


def change_weights(data: bytes, rng: random.Random) -> bytes:
    """A few numbers of the tensors: NaN, infinity, zero, or others."""
    length = struct.unpack("<Q", data[:8])[0]
    begin = 8 + length
    place = begin + 4 * rng.randrange(max(1, (len(data) - begin) // 4))
    value = rng.choice((struct.pack("<f", float("nan")), struct.pack("<f", float("inf")), bytes(4), rng.randbytes(4), struct.pack("<f", 0.1)))
    return data[:place] + value + data[place + 4:]


def change_png(data: bytes, rng: random.Random) -> bytes:
    """A PNG with another size in its header, a further chunk, bytes behind its end, or other pixels."""
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    kind = rng.randrange(4)
    if kind == 0:
        width, height = rng.choice(((60_000, 60_000), (1, 2**31 - 1), (0, 0), (16, 100_000)))
        return data[:8] + chunk(b"IHDR", struct.pack(">II", width, height) + data[24:29]) + data[33:]
    if kind == 1:
        further = chunk(b"tEXt", b"Comment\0hf_" + b"a" * 34)
        return data[:33] + rng.choice((further, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(20_000_000))))) + data[33:]
    if kind == 2:
        return data + rng.randbytes(64)
    from PIL import Image

    image = Image.open(io.BytesIO(data)).convert("RGB")
    image.putpixel((rng.randrange(image.width), rng.randrange(image.height)), tuple(rng.randbytes(3)))
    buffer = io.BytesIO()
    image.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


BYTES: tuple[Mutation, ...] = (flip_bit, overwrite, cut_out, cut_off, insert, repeat, empty)
TEXT: tuple[Mutation, ...] = (change_number, change_word, change_line)
OF_KIND: Mapping[str, tuple[Mutation, ...]] = {
    "json": (change_json, change_json, change_json, change_json_text, *TEXT),
    "jsonl": (change_json_line, change_json_line, change_json_text, *TEXT), "yaml": (change_yaml_text, *TEXT), "md": TEXT,
    "parquet": (change_rows, change_rows, change_rows, change_columns, unfold),
    "safetensors": (change_header, change_header, change_weights), "png": (change_png,)}


def mutate(path: str, data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """Change a file's bytes in a way that fits what it holds, or any bytes one time in five.

    Returns:
        The name of the change, and bytes that are others than before.
    """
    of_kind = OF_KIND.get(path.rsplit(".", 1)[-1], TEXT)
    while True:
        mutation = rng.choice(BYTES if rng.random() < 0.2 else of_kind)
        try:
            changed = mutation(data, rng)
        except (ValueError, TypeError, KeyError, OverflowError, pa.ArrowException, RecursionError):  # cannot be written: try another
            continue
        if changed != data:
            return mutation.__name__, changed
