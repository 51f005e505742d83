"""Damaged copies of real files: bytes, and structures of the format that stay well-formed."""

import io
import json
import random
import struct
import zipfile
from collections.abc import Callable

Mutation = Callable[[bytes, random.Random], bytes]

NASTY = (
    *(None, True, False, 0, -1, 1, 2, 10**9, 3 * 10**9, 2**31, 2**63, 2**64, -(2**63), 10**400, 0.0, -0.0, 1e-320),
    *(1e308, float("nan"), float("inf"), -float("inf"), "", "x", "..", "../x", "/", "\0", "\ud800", "é" * 300, "1"),
    *([], {}, [[]], [1, 2, 3], {"x": 1}, [None], "nan", "1e9", [0.9, 1.0], ["ann"]),
)


def flip_bits(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 8, 64))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def overwrite(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content) + 1)
    piece = rng.choice((b"\0", b"\xff", b"9", b"[", b"{", b"\n", b"- &a [*a, *a]\n")) * rng.choice((1, 4, 16, 500))
    return content[:start] + piece + content[start + rng.choice((0, len(piece))) :]


def shuffle_pieces(content: bytes, rng: random.Random) -> bytes:
    a, b, c = sorted(rng.randrange(len(content) + 1) for _ in range(3))
    return content[:a] + rng.choice((content[b:c] + content[a:b], content[a:c] * 2, b"")) + content[c:]


BYTES: tuple[Mutation, ...] = (flip_bits, cut, overwrite, shuffle_pieces)


def change_value(value: object, rng: random.Random) -> object:
    """The same plain value with one of its parts replaced by a nasty one, removed, or given another name."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        rest = {name: part for name, part in value.items() if name != key}
        kind = rng.random()
        if kind < 0.1:
            return rest
        if kind < 0.2:
            return {**rest, f"{key}x": value[key]}
        return {**value, key: change_value(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.7:
        i = rng.randrange(len(value))
        return rng.choice(([*value[:i], change_value(value[i], rng), *value[i + 1 :]], value[:i], value * 3))
    return rng.choice(NASTY)


def change_json(content: bytes, rng: random.Random) -> bytes:
    return json.dumps(change_value(json.loads(content), rng)).encode(errors="replace")


def nest_json(content: bytes, rng: random.Random) -> bytes:
    opening, closing = rng.choice(((b"[", b"]"), (b'{"a":', b"}")))
    depth = rng.choice((100, 2_000, 100_000))
    return opening * depth + rng.choice((b"1", content)) + closing * depth


def change_line(content: bytes, rng: random.Random) -> bytes:
    """One line of JSON lines, or of YAML, with another value."""
    lines = content.decode().splitlines()
    i = rng.randrange(len(lines))
    key, colon, _ = lines[i].partition(": ")
    lines[i] = f"{key}{colon}{json.dumps(rng.choice(NASTY))}" if colon else json.dumps(rng.choice(NASTY))
    return "\n".join(lines).encode(errors="replace")


def bomb_yaml(content: bytes, rng: random.Random) -> bytes:
    levels = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, rng.choice((4, 30))))
    return (
        rng.choice((f"a0: &a0 [x]\n{levels}", "a: &a [*a]\n", "a: &a {b: *a}\n", "? {a: b}\n: c\n")).encode() + content
    )


def change_zip(content: bytes, rng: random.Random) -> bytes:
    """A zip with one of its members damaged, and its checksum right again."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    i = rng.randrange(len(members))
    name, body = members[i]
    changes = (*BYTES, change_npy_header)
    members[i] = rng.choice(((name, rng.choice(changes)(body, rng)), (f"x{name}", body), ("../x.npy", body)))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))) as new:
        for member in members:
            new.writestr(*member)
    return packed.getvalue()


def change_npy_header(content: bytes, rng: random.Random) -> bytes:
    """Another shape or type in the header of an .npy."""
    if not content.startswith(b"\x93NUMPY"):
        return flip_bits(content, rng)
    (length,) = struct.unpack("<H", content[8:10])
    header = content[10 : 10 + length].decode("latin-1").rstrip()
    shape = rng.choice(("(100000000000, 8, 8)", "()", "(0,)", "(-1, 3)", "(2, 2)", "(99999999,)", "(1,) * 9"))
    descr = rng.choice(("'|O'", "'<f8'", "'<f2'", "'|u1'", "'<U999999999'", "[('a', '<f8')]", "'<c16'", "'|b1'"))
    before = header.partition("'shape': ")[0]
    if rng.random() < 0.5:
        header = f"{before}'shape': {shape}, }}"
    else:
        header = header.replace("'<f8'", descr).replace("'|u1'", descr)
    encoded = header.encode() + b"\n"
    return content[:8] + struct.pack("<H", len(encoded)) + encoded + content[10 + length :]


def change_safetensors_header(content: bytes, rng: random.Random) -> bytes:
    (length,) = struct.unpack("<Q", content[:8])
    header = change_json(content[8 : 8 + length], rng)
    claimed = rng.choice((len(header), len(header), len(header) + 1, 2**40, 0))
    return struct.pack("<Q", claimed) + header + content[8 + length :]


JSON: tuple[Mutation, ...] = (*BYTES, change_json, change_json, change_json, nest_json)
YAML: tuple[Mutation, ...] = (*BYTES, change_line, change_line, change_line, bomb_yaml)
LINES: tuple[Mutation, ...] = (*BYTES, change_line, change_line)
ZIP: tuple[Mutation, ...] = (*BYTES, change_zip, change_zip)
SAFETENSORS: tuple[Mutation, ...] = (*BYTES, change_safetensors_header, change_safetensors_header)
