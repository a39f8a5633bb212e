"""The pages about runtimes, followed as they are written."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from runtimes import host_of, request, whole

from openpool.cli.worker import _offers
from openpool.config.runtimes import RuntimeEntry, RuntimesFile
from openpool.core.calls import App
from openpool.worker.runtimes import catalogue
from openpool.worker.runtimes.http import OPTIONS

DOCS = Path(__file__).parents[2] / "docs"


def blocks(kind: str) -> list[str]:
    """The pieces of code of one kind on the page."""
    page = (DOCS / "how-to" / "add-a-runtime.md").read_text()
    return re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL)


@pytest.fixture
def followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the page says to make."""
    (tmp_path / "guess_language.py").write_text(blocks("python")[0])
    (tmp_path / "runtimes.yaml").write_text(blocks("yaml")[0])
    (tmp_path / "words.json").write_text(blocks("json")[0])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", ".")
    return tmp_path


async def test_the_runtime_of_the_page_serves_calls(followed: Path) -> None:
    """The class and the file of the page work in a worker without a change."""
    offers = _offers(followed / "runtimes.yaml", False)
    assert offers is not None
    app = App("language-detection", "small-words")
    async with host_of(*offers.runtimes, cache=followed).running() as host:
        answer = await host.answer(request("/v1/language", b'{"text": "the end is near"}', app=app))
        assert json.loads(await whole(answer)) == {"language": "english", "words": 2}
        refused = await host.answer(request("/v1/language", b"garbage", app=app))
        assert (refused.status, b"JSON object" in await whole(refused)) == (400, True)


def test_the_page_can_be_tried_without_a_pool(followed: Path) -> None:
    """The script at the end of the page prints an answer."""
    done = subprocess.run(
        [sys.executable, "-c", blocks("python")[1]], capture_output=True, check=True, text=True
    )
    assert json.loads(done.stdout.strip()[2:-1]) == {"language": "german", "words": 5}


def test_every_example_file_is_right(tmp_path: Path) -> None:
    """What the pages show as a file is accepted as one."""
    page = (DOCS / "reference" / "runtimes.md").read_text()
    shown = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) + blocks("yaml")[1:]
    for number, text in enumerate(shown):
        file = tmp_path / f"{number}.yaml"
        file.write_text(text)
        assert _offers(file, False)
    assert len(shown) == 3


def test_every_setting_is_on_the_page() -> None:
    """No setting and no option of a runtime is undocumented."""
    page = (DOCS / "reference" / "runtimes.md").read_text()
    page += (DOCS / "reference" / "ai-routes.md").read_text()
    names = {*RuntimesFile.__struct_fields__[1:], *RuntimeEntry.__struct_fields__, *OPTIONS}
    for runtime in catalogue.CATALOGUE:
        names |= {runtime, *(catalogue.runtime_class(runtime).known_options or {})}
    assert [name for name in sorted(names) if f"`{name}`" not in page] == []
