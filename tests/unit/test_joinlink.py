"""Join links: what a pool publishes is what a worker reads, and nothing else is read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openpool.core.errors import OpenPoolError, SetupError
from openpool.core.joinlink import JoinLink, build_join_link, parse_join_link

PIN = "ab" * 32


def test_a_link_has_the_published_form() -> None:
    """The text is the one in the documentation."""
    link = JoinLink(
        host="pool.example.org",
        port=8936,
        pin=PIN,
        web="https://pool.example.org",
        invite="inv_0123456789",
    )
    assert build_join_link(link) == (
        f"openpool://pool.example.org:8936?pin={PIN}&web=https://pool.example.org"
        "&invite=inv_0123456789"
    )


@given(
    host=st.sampled_from(["pool.example.org", "10.0.0.5", "::1", "a", "x-1.y_2"]),
    port=st.integers(1, 65535),
    pin=st.sampled_from(["", PIN]),
    web=st.sampled_from(["", "http://127.0.0.1:8080", "https://p.org/some/path", "http://[::1]:1"]),
    invite=st.from_regex(r"|[A-Za-z0-9_-]{8,100}", fullmatch=True),
)
def test_building_and_parsing_are_inverse(
    host: str, port: int, pin: str, web: str, invite: str
) -> None:
    """Whatever a pool builds, a worker reads back unchanged."""
    link = JoinLink(host=host, port=port, pin=pin, web=web, invite=invite)
    assert parse_join_link(build_join_link(link)) == link


def test_spaces_around_and_capitals_in_the_pin_do_not_matter() -> None:
    """A link survives being pasted, and a fingerprint in the form that tools print."""
    pasted = f"  openpool://h?pin={':'.join(['AB'] * 32)}\n"
    assert parse_join_link(pasted) == JoinLink(host="h", port=8936, pin=PIN)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("https://pool.example.org", "begins with openpool://"),
        ("openpool://", "names no host"),
        ("openpool://h:0", "port"),
        ("openpool://h:99999", "port"),
        ("openpool://h:12x", "port"),
        ("openpool://h:1/path", "has the form"),
        ("openpool://user@h:1", "has the form"),
        ("openpool://h:1#x", "has the form"),
        ("openpool://[::1:5", "has the form"),
        ("openpool://h:1?pin", "has the form"),
        (f"openpool://h:1?pin={PIN[:-1]}", "64 hexadecimal digits"),
        (f"openpool://h:1?pin={PIN}&pin={PIN}", "`pin` twice"),
        ("openpool://h:1?pim=x", "unknown part `pim`"),
        ("openpool://h:1?web=ftp://x", "`web` in the join link"),
        ("openpool://h:1?web=http://a:b@x", "`web` in the join link"),
        ("openpool://h:1?web=http://x:y", "`web` in the join link"),
        ("openpool://h:1?invite=a%20b", "invite in the join link"),
        ("openpool://h\x00:1", "no join link"),
        ("openpool://" + "h" * 3000, "no join link"),
    ],
)
def test_a_bad_link_is_one_sentence(text: str, sentence: str) -> None:
    """A link that is cut off, mistyped or something else says what is wrong with it."""
    with pytest.raises(SetupError) as caught:
        parse_join_link(text)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=200))
def test_any_text_is_a_link_or_one_of_our_errors(text: str) -> None:
    """Nothing that people paste makes the parser fail in another way."""
    for candidate in (
        text,
        f"openpool://{text}",
        f"openpool://h?{text}",
        f"openpool://h?web={text}",
    ):
        try:
            link = parse_join_link(candidate)
        except OpenPoolError:
            continue
        assert parse_join_link(build_join_link(link)) == link
