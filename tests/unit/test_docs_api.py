"""The page about the customers' API says what the code does."""

import re
from pathlib import Path

from openpool.web.direct import ROUTES
from openpool.web.direct_errors import CODES, MEANINGS, NoSuchModel

PAGE = (Path(__file__).parents[2] / "docs/how-to/use-the-api.md").read_text()


def test_every_route_stands_on_the_page() -> None:
    """The page names the routes that there are, and no others."""
    named = set(re.findall(r"/v1/[a-z/]*[a-z]", PAGE)) - {"/v1/models"}
    assert named == {*ROUTES}


def test_every_code_on_the_page_is_used() -> None:
    """Each code of the table is one that the API answers with, at that status."""
    rows = re.findall(r"^\| (\d{3}) \| (.*?) \|", PAGE, re.MULTILINE)
    told = {(int(status), code) for status, codes in rows for code in re.findall(r"`(.*?)`", codes)}
    known = {(meaning.status, meaning.code) for meaning in MEANINGS.values()}
    unnamed = NoSuchModel("", ())
    assert told <= known | {*CODES.items(), (unnamed.status, unnamed.code)}
