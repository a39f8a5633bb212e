"""The page about Live Runner says what the code does."""

import re
from pathlib import Path

from openpool.app_calls import price_list, rate
from openpool.config import load
from openpool.core.calls import App

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/how-to/sell-through-live-runner.md").read_text()


def test_the_settings_of_the_page_sell_what_it_says(tmp_path: Path) -> None:
    """The file is accepted as it stands, and each of its models has a price to be sold at."""
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    file = tmp_path / "openpool.yaml"
    file.write_text(text)
    (tmp_path / "orch-secret.txt").write_text("secret\n")
    (tmp_path / "orch-secret.txt").chmod(0o600)
    config = load(file, environment={}).config
    assert config.ai.live_runner.enabled
    prices, now = price_list(config), rate(config)
    for pipeline, session in (
        ("llm", False),
        ("text-to-speech", False),
        ("live-video-analysis", True),
    ):
        assert prices.runner_price(App(pipeline, "any"), session=session, rate=now)
    hourly = prices.runner_price(App("live-video-analysis", "any"), session=True, rate=now)
    assert hourly is not None
    assert (hourly.usd, hourly.unit) == ("0.36", "hour")


def test_every_error_of_the_page_is_one_of_the_pools() -> None:
    """Nobody looks up a sentence that is never said."""
    said = "".join(file.read_text() for file in (ROOT / "openpool/pool").glob("live_runner*.py"))
    said += (ROOT / "openpool/demo/runner_registry.py").read_text()
    said = re.sub(r'"\s*\n\s*f?"', "", said)
    rows = re.findall(r"^\| (?!the pool says)(?!---)(.*?) \|", PAGE, re.MULTILINE)
    fragments = [part.strip(" .:") for row in rows for part in row.split("…")]
    assert len(rows) == 5
    assert [part for part in fragments if part not in said] == []
