"""Where models lie on this machine."""

from collections.abc import Mapping
from pathlib import Path

from openpool.worker.runtimes.base import ModelMissing
from openpool.worker.runtimes.options import text

FETCHING = ".fetching"
"""The file in a model's folder by which one sees that not all of it was fetched yet."""
PATH = text("path", "folder of the model, if it is not in the cache")


def model_folder(options: Mapping[str, str], cache: Path, model: str, contains: str) -> Path:
    """The folder of a model, known by a file that it contains. Raises ModelMissing."""
    folder = Path(options["path"]).expanduser() if "path" in options else cache / model
    if (folder / FETCHING).exists():
        raise ModelMissing(
            f"Only a part of the model in {folder} was fetched: `openpool worker models pull` it "
            "again, which goes on from there."
        )
    if (folder / contains).is_file():
        return folder
    if "path" in options:
        raise ModelMissing(f"The folder {folder} has no {contains}.")
    raise ModelMissing(missing_words(model, folder))


def missing_words(model: str, place: Path) -> str:
    """The sentence about a model that is not there."""
    return (
        f"The model {model} is not on this machine (looked in {place}); "
        "fetch it with `openpool worker models pull`, or set the option `path`."
    )
