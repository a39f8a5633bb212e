"""Stories of known dangers: facts with their times, and what the core makes of them.

If one fails after a change that was meant, run `pytest tests/scenarios --rewrite` and read the
difference; commit it only if every line of it is understood.
"""

from pathlib import Path

import pytest
from scenarios.frame import Frame
from scenarios.play import Play
from scenarios.play_calls import CallPlay

HERE = Path(__file__).parent
FILES = sorted(HERE.glob("**/*.txt"))


def told(text: str, play: Frame) -> str:
    """The scenario with the story as the core tells it now."""
    lines: list[str] = []
    inside = False
    for line in text.splitlines():
        if line == "----":
            lines.append(line)
            lines += play.story or ["        nothing"]
            play.story.clear()
            inside = True
        elif inside and line:
            continue
        else:
            inside = False
            lines.append(line)
            if line and not line.startswith("#"):
                play.line(line)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_story_is_as_written(file: Path, request: pytest.FixtureRequest) -> None:
    """The core does what the scenario says, line by line."""
    written = file.read_text()
    now = told(written, CallPlay() if file.parent.name == "calls" else Play())
    if request.config.getoption("--rewrite", default=False):
        file.write_text(now)
        return
    assert now == written


def test_every_scenario_opens_with_its_sentence() -> None:
    """A scenario says in its first line what danger it is about."""
    assert FILES
    assert [file.name for file in FILES if not file.read_text().startswith("# ")] == []
