"""Uploads: results and error reports, their headers, and everything that can be wrong with them."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openpool.wire.results import (
    ERROR_TYPE,
    BadUpload,
    RenditionData,
    ResultParser,
    build_result,
    error_text,
    parse_result,
    read_headers,
    upload_headers,
)

BOUNDARY = "94a1e3ff2a1f8f5cc4b1"
MULTIPART = f"multipart/mixed; boundary={BOUNDARY}"

renditions = st.builds(
    RenditionData,
    data=st.binary(max_size=200),
    pixels=st.integers(0, 2**63 - 1),
    container=st.sampled_from(["mpegts", "mp4"]),
    perceptual_hash=st.binary(max_size=30),
)


def headers(**changes: str | None) -> dict[str, str]:
    good = upload_headers(secret="token", task_id=5, content_type=MULTIPART, pixels=9)
    fields = {name.lower(): value for name, value in good.items()}
    changed = fields | {name.replace("_", "-"): value for name, value in changes.items()}
    return {name: value for name, value in changed.items() if value is not None}


def body(*parts: str, end: str = f"--{BOUNDARY}--\r\n") -> bytes:
    return ("".join(f"--{BOUNDARY}\r\n{part}\r\n" for part in parts) + end).encode()


@given(st.lists(renditions, max_size=10), st.integers(1, 300))
def test_a_result_is_read_as_it_was_built(given: list[RenditionData], step: int) -> None:
    """However the body is cut into pieces, the same renditions come out, hashes included."""
    built = build_result(given, BOUNDARY)
    whole = b"".join(built.chunks)
    assert len(whole) == built.length
    parser = ResultParser(read_headers(headers(content_type=built.content_type)).boundary)
    for start in range(0, len(whole), step):
        parser.feed(whole[start : start + step])
    assert parser.finish() == given


@given(st.lists(renditions, max_size=3), st.data())
def test_a_damaged_result_is_a_bad_upload(given: list[RenditionData], data: st.DataObject) -> None:
    """A body that was cut off or changed is refused or read, but raises nothing else."""
    whole = bytearray(b"".join(build_result(given, BOUNDARY).chunks))
    place = data.draw(st.integers(0, len(whole) - 4))
    with pytest.raises(BadUpload):
        parse_result(bytes(whole[:place]), BOUNDARY.encode())
    whole[place] = data.draw(st.integers(0, 255))
    with suppress(BadUpload):
        parse_result(bytes(whole), BOUNDARY.encode())


def test_renditions_are_not_copied() -> None:
    """The chunks of a body are the very bytes objects that were given."""
    given = [RenditionData(data=bytes(1000), pixels=1)]
    assert any(chunk is given[0].data for chunk in build_result(given, BOUNDARY).chunks)


def test_good_headers_are_read() -> None:
    """Secret, task, source pixels and boundary come out of the header fields."""
    read = read_headers(headers())
    assert (read.secret, read.task_id, read.source_pixels) == ("token", 5, 9)
    assert read.boundary == BOUNDARY.encode()
    assert not read.is_error


def test_an_error_report_needs_no_pixels() -> None:
    """Its media type alone says that the body is a text."""
    assert read_headers(headers(content_type=ERROR_TYPE, pixels="nonsense")).is_error


@pytest.mark.parametrize(
    ("changes", "status", "sentence"),
    [
        ({"authorization": None}, 401, "Unauthorized"),
        ({"authorization": "Basic x"}, 401, "Unauthorized"),
        ({"credentials": None}, 401, "Unauthorized"),
        ({"credentials": ""}, 401, "Unauthorized"),
        ({"content_type": None}, 415, "multipart/mixed"),
        ({"content_type": "video/mp2t"}, 415, "multipart/mixed"),
        ({"content_type": "multipart/mixed"}, 415, "boundary"),
        ({"content_type": "multipart/mixed; boundary=" + "b" * 71}, 415, "boundary"),
        ({"content_type": 'multipart/mixed; boundary="a\r\nb"'}, 415, "boundary"),
        ({"taskid": None}, 400, "Invalid Task ID"),
        ({"taskid": "1x"}, 400, "Invalid Task ID"),
        ({"taskid": "-1"}, 400, "Invalid Task ID"),
        ({"taskid": "1_0"}, 400, "Invalid Task ID"),
        ({"taskid": str(2**63)}, 400, "Invalid Task ID"),
        ({"pixels": "abc"}, 400, "Invalid Pixels"),
        ({"pixels": "-5"}, 400, "Invalid Pixels"),
    ],
)
def test_bad_headers_get_the_right_status(
    changes: dict[str, str | None], status: int, sentence: str
) -> None:
    """Each fault has its status and one sentence that names it."""
    with pytest.raises(BadUpload, match=sentence) as caught:
        read_headers(headers(**changes))
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("broken", "status", "sentence"),
    [
        (b"", 400, "closing boundary"),
        (b"\0" * 1000, 400, "multipart body is broken"),
        (body("Pixels: 1\r\n\r\nabc", end=""), 400, "closing boundary"),
        (body("Pixels: x\r\n\r\nabc"), 400, "Invalid Pixels"),
        (body("Pixels: -1\r\n\r\nabc"), 400, "Invalid Pixels"),
        (body("Content-Type: application/octet-stream\r\n\r\nabc"), 400, "perceptual hash"),
        (body(*["Pixels: 1\r\n\r\nabc"] * 11), 413, "more than 10 renditions"),
        (body(*["Content-Type: text/plain\r\n\r\nabc"] * 21), 413, "more than 20 parts"),
        (body("X: " + "x" * 10_000 + "\r\n\r\nabc"), 400, "multipart body is broken"),
    ],
)
def test_bad_bodies_get_one_sentence(broken: bytes, status: int, sentence: str) -> None:
    """Every broken body is refused with a status, and says why."""
    with pytest.raises(BadUpload, match=sentence) as caught:
        parse_result(broken, BOUNDARY.encode())
    assert caught.value.status == status


def test_a_part_of_another_kind_is_ignored() -> None:
    """A part that is neither rendition nor hash is skipped, as orchestrators do."""
    read = parse_result(
        body("Content-Type: text/plain\r\n\r\nhello", "Pixels: 7\r\n\r\nabc"), BOUNDARY.encode()
    )
    assert read == [RenditionData(data=b"abc", pixels=7)]


def test_oversized_parts_and_bodies_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part over its limit, and a body over its limit, are refused while they arrive."""
    monkeypatch.setattr("openpool.wire.results.PART_BYTES_MAX", 1000)
    large = b"".join(build_result([RenditionData(data=bytes(1001), pixels=1)], BOUNDARY).chunks)
    with pytest.raises(BadUpload, match="larger than 1000") as caught:
        parse_result(large, BOUNDARY.encode())
    assert caught.value.status == 413
    monkeypatch.setattr("openpool.wire.results.BODY_BYTES_MAX", 500)
    with pytest.raises(BadUpload, match="larger than 500"):
        parse_result(large, BOUNDARY.encode())


def test_an_error_text_is_one_short_line() -> None:
    """What a worker reports is bounded and cannot draw on a terminal."""
    assert error_text(b"No keyframes\r\n in \x1b[2Jinput\xff") == "No keyframes in [2Jinput\ufffd"
    assert len(error_text(b"x" * 100_000)) == 4096
