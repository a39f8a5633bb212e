"""Networks for pictures in ONNX files: loading, feeding, and what the sizes are.

Used by detectors and classifiers. ONNX Runtime and NumPy are imported when something is loaded.
"""

import importlib.util
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec
from msgspec import Struct

from openpool.core.decoding import UNREADABLE
from openpool.worker.runtimes.base import ModelMissing
from openpool.worker.runtimes.options import by_name, choice, text, whole

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from onnxruntime import InferenceSession

    from openpool.worker.runtimes.images import Picture

    Numbers = NDArray[np.float32]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_SPREAD = (0.229, 0.224, 0.225)
SIDE_MAX = 4096
FILE = text("file", "the ONNX file")
LABELS = text("labels", "a text file with the name of each class, a line each")
NORMALISE = choice("normalise", "how the network wants its numbers", "imagenet", "none")
SIZE = whole(
    "size", "width and height of its input, where the file leaves it open", 1, SIDE_MAX, 640
)
THREADS = whole("threads", "threads that it computes with (1)", 1, 1024, 1)
DEVICE = choice("device", "what it computes on", "cpu", "cuda")
OPTIONS = by_name(FILE, LABELS, NORMALISE, SIZE, THREADS, DEVICE)
"""What every runtime with a network of its owner's has."""
CUDA = "CUDAExecutionProvider"
NO_CUDA = (
    "option `device: cuda` needs the other build of ONNX Runtime: pip uninstall onnxruntime, then "
    "pip install onnxruntime-gpu"
)

Told = TypeVar("Told")


class Network:
    """A loaded network that takes one picture of a fixed size."""

    def __init__(self, session: "InferenceSession", size: int) -> None:
        picture, *others = session.get_inputs()
        self._session = session
        self._name, self._half = picture.name, picture.type == "tensor(float16)"
        self._size_names = [given.name for given in others]
        self.outputs = [output.name for output in session.get_outputs()]
        height, width = (side if isinstance(side, int) else size for side in picture.shape[2:4])
        self.size = (width, height)
        """Width and height."""

    def run(self, numbers: "Numbers", sizes: "NDArray[np.int64]") -> "dict[str, Numbers]":
        """The outputs by name; `sizes` goes to the inputs beside the picture, if there are any."""
        import numpy as np

        feed = {self._name: numbers.astype(np.float16) if self._half else numbers}
        feed |= dict.fromkeys(self._size_names, sizes)
        return dict(zip(self.outputs, self._session.run(None, feed), strict=True))


def missing(what: str) -> str:
    """What has to be installed, in one sentence; empty if nothing."""
    found = importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("PIL")
    return "" if found else f"{what} needs: pip install 'openpool[ai]'"


def load(options: Mapping[str, str], what: str) -> Network:
    """The network in the file that the options name. Raises ModelMissing."""
    file = Path(FILE.of(options)).expanduser()
    if not FILE.of(options):
        raise ModelMissing(
            f"name the file of {what} as option `file`, or fetch one: `openpool worker models list`"
        )
    if not file.is_file():
        raise ModelMissing(f"{file} does not exist: put {what} there, or correct option `file`")
    network = Network(open_file(file, options), SIZE.of(options))
    if not all(0 < side <= SIDE_MAX for side in network.size):
        raise ModelMissing(f"{file} takes pictures of {network.size}: not a network for pictures")
    return network


def open_file(
    file: Path, options: Mapping[str, str], inputs: Collection[str] = ()
) -> "InferenceSession":
    """The network of a file, which takes these inputs and no others. Raises ModelMissing."""
    try:
        found = session(str(file), options)
    except ImportError:
        raise ModelMissing(missing("ONNX")) from None
    except ModelMissing:
        raise
    except Exception as error:  # onnxruntime has no common class of its errors
        raise ModelMissing(f"{file} cannot be loaded: {str(error).splitlines()[0][:200]}") from None
    names = sorted(given.name for given in found.get_inputs())
    if inputs and names != sorted(inputs):
        raise ModelMissing(f"{file} takes {names}, not {sorted(inputs)}: it is of another kind")
    return found


def session(model: str | bytes, options: Mapping[str, str]) -> "InferenceSession":
    """The network of a file, or of its bytes, ready to run: by `threads` and `device`.

    Raises ModelMissing if this ONNX Runtime cannot compute on the device.
    """
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = THREADS.of(options)
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    # a thread that spins while it waits takes a core from the worker's video
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = ["CPUExecutionProvider"]
    if DEVICE.of(options) == "cuda":
        if CUDA not in onnxruntime.get_available_providers():
            raise ModelMissing(NO_CUDA)
        providers.insert(0, CUDA)
    found = onnxruntime.InferenceSession(model, settings, providers=providers)
    if found.get_providers()[0] != providers[0]:
        raise ModelMissing(
            "option `device: cuda`: ONNX Runtime found no NVIDIA card that it can use"
        )
    return found


class _Size(Struct, frozen=True):
    height: int = 0


class _Prepared(Struct, frozen=True):
    """What `preprocessor_config.json` says of the pictures that a network takes."""

    do_normalize: bool = False
    size: _Size = _Size()


class _Described(Struct, frozen=True):
    """What `config.json` says of the classes that a network knows."""

    id2label: dict[int, str] = {}


def fetched(folder: Path) -> tuple[dict[str, str], dict[int, str]]:
    """The options that stand for a model as it was fetched from the hub, and its labels by number;
    none if it is not in the folder. Raises ModelMissing."""
    file = folder / "onnx" / "model.onnx"
    if not file.is_file():
        return {}, {}
    prepared = _read(folder / "preprocessor_config.json", _Prepared)
    names = _read(folder / "config.json", _Described).id2label
    options = {"file": str(file), "normalise": "imagenet" if prepared.do_normalize else "none"}
    if prepared.size.height:
        options["size"] = str(prepared.size.height)
    return options, names


def _read(file: Path, kind: type[Told]) -> Told:
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except (OSError, *UNREADABLE) as error:
        raise ModelMissing(f"{file} cannot be read: {error}") from None


def read_labels(file: str) -> list[str]:
    """The names in the file, a line each; none without a file. Raises ModelMissing."""
    try:
        return Path(file).expanduser().read_text().splitlines() if file else []
    except (OSError, UnicodeDecodeError):
        raise ModelMissing(f"the labels in {file} cannot be read") from None


def resize(picture: "Picture", size: tuple[int, int]) -> "Picture":
    """The picture at this width and height, whatever its shape was."""
    import numpy as np
    from PIL import Image

    if (picture.shape[1], picture.shape[0]) == size:
        return picture
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))


def normaliser(name: str) -> "Callable[[Picture], Numbers]":
    """From RGB bytes to what the network takes: channels first. Raises ModelMissing."""
    import numpy as np

    known = {"none": ((0.0,) * 3, (1.0,) * 3), "imagenet": (IMAGENET_MEAN, IMAGENET_SPREAD)}
    if name not in known:
        raise ModelMissing(f"option `normalise` is one of {', '.join(known)}, not {name!r}")
    mean, spread = (np.array(value, np.float32).reshape(3, 1, 1) for value in known[name])
    factor = 1 / (255 * spread)

    def normalise(picture: "Picture") -> "Numbers":
        channels = np.ascontiguousarray(picture.transpose(2, 0, 1), np.float32)
        return ((channels * factor) - mean / spread)[None]

    return normalise
