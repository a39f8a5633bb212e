"""Registering as an AI worker, and the jobs that are notified: bytes to values and back.

The AI counterpart of `wire.messages`: batch pipelines, one capability number each, models by name.
Live video (capability 35) is never written: an orchestrator would die of it. No I/O. See
docs/protocol.md.
"""

import msgspec
from msgspec import Struct

from openpool.core.decoding import UNREADABLE
from openpool.core.errors import BadMessage
from openpool.wire import livepeer_pb2 as pb
from openpool.wire.messages import (
    CAPACITY_MAX,
    NAME_CHARS_MAX,
    SECRET_CHARS_MAX,
    URL_CHARS_MAX,
    BadTask,
)
from openpool.wire.reading import check, parsed

REGISTER_AI_PATH = "/net.AIWorker/RegisterAIWorker"
NEWEST_VERSION = "999.0.0"
"""An orchestrator takes only workers that are no older than itself."""
MODELS_MAX = 256
PIPELINES = {
    27: "text-to-image",
    28: "image-to-image",
    29: "image-to-video",
    30: "upscale",
    31: "audio-to-text",
    32: "segment-anything-2",
    33: "llm",
    34: "image-to-text",
    36: "text-to-speech",
}
"""Capability numbers; 35, live video, is missing on purpose."""
NUMBERS = {name: number for number, name in PIPELINES.items()}


class AiModel(Struct, frozen=True, kw_only=True):
    """A model of a pipeline, and how many jobs of it run at once."""

    pipeline: str
    model: str
    capacity: int
    warm: bool = True


class RegisterAi(Struct, frozen=True, kw_only=True):
    """An AI worker offers itself."""

    secret: str
    models: tuple[AiModel, ...]
    version: str = NEWEST_VERSION


class AiJob(Struct, frozen=True, kw_only=True):
    """A job for an AI worker."""

    task_id: int
    pipeline: str
    request: dict[str, object]
    """As the pipeline defines it; a file in it is null, and is at `input_url`."""
    input_url: str = ""


class _JobData(Struct):
    input_url: str = ""
    request: dict[str, object] = {}


def encode_register_ai(request: RegisterAi) -> bytes:
    """Bytes of a RegisterAIWorkerRequest. ValueError for a pipeline that has no number."""
    message = pb.RegisterAIWorkerRequest(secret=request.secret)
    capabilities = message.capabilities
    capabilities.version = request.version
    for offered in request.models:
        number = NUMBERS.get(offered.pipeline)
        if number is None:
            raise ValueError(f"an orchestrator knows no pipeline {offered.pipeline}")
        capabilities.capacities[number] += offered.capacity
        model = capabilities.constraints.PerCapability[number].models[offered.model]
        model.warm, model.capacity = offered.warm, offered.capacity
        message.hardware.add(pipeline=offered.pipeline, model_id=offered.model)
    return message.SerializeToString(deterministic=True)


def decode_register_ai(data: bytes) -> RegisterAi:
    """Read a RegisterAIWorkerRequest; BadMessage if it is none or breaks a limit.

    Pipelines that are no batch pipelines are left out, whatever was said about them.
    """
    message = parsed(pb.RegisterAIWorkerRequest, data)
    check(len(message.secret) <= SECRET_CHARS_MAX, "the secret is too long")
    models = []
    for number, constraints in message.capabilities.constraints.PerCapability.items():
        for name, model in constraints.models.items():
            check(0 < len(name) <= NAME_CHARS_MAX, "the name of a model is empty or too long")
            check(name.isprintable(), "the name of a model contains control characters")
            check(model.capacity <= CAPACITY_MAX, f"the capacity is over {CAPACITY_MAX}")
            if (pipeline := PIPELINES.get(number)) and model.capacity:
                offered = AiModel(
                    pipeline=pipeline, model=name, capacity=model.capacity, warm=model.warm
                )
                models.append(offered)
    check(len(models) <= MODELS_MAX, f"there are more than {MODELS_MAX} models")
    version = message.capabilities.version
    check(len(version) <= NAME_CHARS_MAX and version.isprintable(), "the version is too long")
    return RegisterAi(secret=message.secret, models=tuple(models), version=version)


def encode_ai_job(job: AiJob) -> bytes:
    """Bytes of a NotifyAIJob."""
    data = msgspec.json.encode(_JobData(job.input_url, job.request))
    message = pb.NotifyAIJob(taskId=job.task_id)
    message.AIJobData.pipeline = job.pipeline
    message.AIJobData.requestData = data
    return message.SerializeToString()


def decode_ai_job(data: bytes) -> AiJob:
    """Read a NotifyAIJob; `BadTask` if it has an id by which it should be refused."""
    message = parsed(pb.NotifyAIJob, data)
    check(message.taskId >= 0, "the task id is negative")
    try:
        return _read_job(message)
    except BadMessage as error:
        raise BadTask(message.taskId, str(error)) from None


def _read_job(message: pb.NotifyAIJob) -> AiJob:
    pipeline = message.AIJobData.pipeline
    check(pipeline in NUMBERS, "the pipeline is not known")
    try:
        told = msgspec.json.decode(message.AIJobData.requestData, type=_JobData)
    except UNREADABLE:
        raise BadMessage(
            "cannot accept the message: the job is not the JSON it should be"
        ) from None
    check(len(told.input_url) <= URL_CHARS_MAX, "the URL is too long")
    fine = not told.input_url or told.input_url.startswith(("https://", "http://"))
    check(fine, "the URL is not http or https")
    return AiJob(
        task_id=message.taskId,
        pipeline=pipeline,
        request=told.request,
        input_url=told.input_url,
    )
