"""Where models lie on this machine."""

from collections.abc import Mapping
from pathlib import Path

from openpool.worker.runtimes.base import ModelMissing
from openpool.worker.runtimes.options import text

PATH = text("path", "folder of the model, if it is not in the cache")


def model_folder(options: Mapping[str, str], cache: Path, model: str, contains: str) -> Path:
    """The folder of a model, known by a file that it contains. Raises ModelMissing."""
    if "path" in options:
        folder = Path(options["path"]).expanduser()
        if (folder / contains).is_file():
            return folder
        raise ModelMissing(f"The folder {folder} has no {contains}.")
    folder = cache / model
    if (folder / contains).is_file():
        return folder
    raise ModelMissing(missing_words(model, folder))


def missing_words(model: str, place: Path) -> str:
    """The sentence about a model that is not there."""
    return (
        f"The model {model} is not on this machine (looked in {place}); "
        "fetch it with `openpool worker models pull`, or set the option `path`."
    )
