"""Messages in go-livepeer's encoding, described field by field, written without protobuf's help.

`python -m tests.wire.recorded` writes `tests/wire/golden/*.bin`; the tests read those files, so
that a change of our code or of a library cannot change both sides at once. Numbers are the field
numbers of docs/protocol.md; a list is a nested message, a tuple a packed list.
"""

from pathlib import Path
from typing import Union

GOLDEN = Path(__file__).parent / "golden"
Value = Union[int, str, bytes, "Fields", tuple[int, ...]]
Fields = list[tuple[int, Value]]

TOKEN = bytes(range(200, 232))

STOCK_CAPABILITIES: Fields = [
    (1, (94_487_339_007,)),
    *[(3, [(1, bit), (2, 1)]) for bit in range(37) if 94_487_339_007 >> bit & 1],
    (4, "0.9.1"),
]
JOB_CAPABILITIES: Fields = [
    (1, (67_112_963,)),
    *[(3, [(1, bit), (2, 1)]) for bit in (0, 1, 12, 26)],
    (5, []),
]
CLIP: Fields = [(37, [(1, 500), (2, 1500)]), (38, 1)]
P240: Fields = [(16, "P240p30fps16x9"), (17, 426), (18, 240), (19, 600_000), (20, 30)]
P720_MP4: Fields = [
    (16, "720p"),
    (17, 1280),
    (18, 720),
    (19, 3_000_000),
    (20, 30_000),
    (21, 1),
    (22, 1001),
    (23, 3),
    (24, 2000),
    (28, 23),
]
INTRA_HEVC: Fields = [(16, "intra"), (17, 640), (18, 360), (24, -1), (25, 1)]


def job(seq: int, *rest: tuple[int, Value]) -> Fields:
    return [
        (1, b"demo-stream"),
        (2, seq),
        (3, bytes(32)),
        (4, b"invalid"),
        (6, 2000),
        (7, JOB_CAPABILITIES),
        (8, [(1, TOKEN), (2, "1a2b3c4d"), (3, 1_790_000_000)]),
        *rest,
    ]


def notice(seq: int, task_id: int | None, *rest: tuple[int, Value]) -> Fields:
    fields: Fields = [
        (1, f"https://203.0.113.7:8935/stream/1a2b3c4d/{seq}.tempfile"),
        (3, job(seq, *rest)),
    ]
    if task_id is not None:
        fields.append((16, task_id))
    return [*fields, (17, b"invalid"), (18, "0x" + "5e" * 20)]


MESSAGES: dict[str, Fields] = {
    "register-software": [(1, "o-secret"), (2, 10), (3, STOCK_CAPABILITIES)],
    "register-bare": [(1, "o-secret"), (2, 1)],
    # The first task of an orchestrator has id 0, which is not on the wire.
    "notify-first": notice(17, None, (33, P240)),
    "notify-mp4-clip-hash": notice(
        18, 4711, (10, 1), (35, P240), (35, P720_MP4), (35, INTRA_HEVC), *CLIP
    ),
    "notify-mp4-plain": notice(19, 2**41 + 5, (34, P240), (34, [*P240, (21, 1)])),
    # A field that does not exist yet must not disturb.
    "notify-future": [*notice(20, 9, (33, P240), (77, "later")), (99, 12345)],
    "teardown": [(3, [(8, [(2, "1a2b3c4d")])])],
    "cancel": [(1001, 0)],
}

RESULT = (
    b"--94a1e3ff2a1f8f5cc4b1\r\n"
    b"Content-Length: 6\r\nContent-Type: video/mp2t\r\nPixels: 6134400\r\n\r\nfirst\n\r\n"
    b"--94a1e3ff2a1f8f5cc4b1\r\n"
    b"Content-Length: 7\r\nContent-Type: application/octet-stream\r\n\r\n\0\0\0\1abc\r\n"
    b"--94a1e3ff2a1f8f5cc4b1\r\n"
    b"Content-Length: 6\r\nContent-Type: video/mp4\r\nPixels: 55296000\r\n\r\nsecond\r\n"
    b"--94a1e3ff2a1f8f5cc4b1--\r\n"
)
"""The body of an upload with two renditions, the first one with its perceptual hash."""


def encode(fields: Fields) -> bytes:
    return b"".join(_field(number, value) for number, value in fields)


def _field(number: int, value: Value) -> bytes:
    match value:
        case int():
            return _varint(number << 3) + _varint(value)
        case str():
            return _chunk(number, value.encode())
        case bytes():
            return _chunk(number, value)
        case tuple():
            return _chunk(number, b"".join(_varint(each) for each in value))
        case list():
            return _chunk(number, encode(value))


def _chunk(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name, fields in MESSAGES.items():
        (GOLDEN / f"{name}.bin").write_bytes(encode(fields))
    (GOLDEN / "result.bin").write_bytes(RESULT)
