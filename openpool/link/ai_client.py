"""An AI worker towards its server: registers, is notified of jobs, uploads their results.

The AI counterpart of `link.client`, on the same port and under the same certificate.
"""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from openpool.link.client import Answer, TranscoderClient
from openpool.link.registration import OnBadTask, Registration, open_stream
from openpool.wire.ai_messages import (
    REGISTER_AI_PATH,
    AiJob,
    AiModel,
    RegisterAi,
    decode_ai_job,
    encode_register_ai,
)
from openpool.wire.ai_results import (
    AI_ERROR_TYPE,
    AI_RESULT_PATH,
    EVENTS_TYPE,
    AiResult,
    ai_headers,
    build_ai_result,
)
from openpool.wire.results import ERROR_BYTES_MAX


class AiWorkerClient(TranscoderClient):
    """Everything that one AI worker does towards one server. Use as `async with`."""

    @asynccontextmanager
    async def register_models(
        self, models: tuple[AiModel, ...], *, on_bad_task: OnBadTask | None = None
    ) -> AsyncIterator[Registration[AiJob]]:
        """Register on a connection of its own, for as long as the block runs.

        Errors as of `register`. An end with OK at once means: the server wants a newer version.
        """
        request = encode_register_ai(RegisterAi(secret=self._secret, models=models))
        async with self._dialled() as connection:
            registration = open_stream(
                connection,
                REGISTER_AI_PATH,
                request,
                decode_ai_job,
                authority=self._authority,
                headers={"user-agent": "openpool"},
                on_bad_task=on_bad_task,
            )
            try:
                yield registration
            finally:
                registration.close()

    async def post_ai_result(
        self, job: AiJob, result: AiResult, *, incarnation: str = "", timeout_s: float = 60.0
    ) -> Answer:
        """Upload what a job came to; `incarnation` as in `post_result`."""
        body = build_ai_result(result, secrets.token_hex(10))
        headers = self._ai_headers(job.task_id, job.pipeline, body.content_type)
        headers["Content-Length"] = str(body.length)
        return await self._post(headers, body.chunks, incarnation, timeout_s, AI_RESULT_PATH)

    async def post_ai_events(
        self,
        job: AiJob,
        events: AsyncIterator[bytes],
        *,
        incarnation: str = "",
        timeout_s: float = 540.0,
    ) -> Answer:
        """Upload an answer while it comes; if `events` raises, the upload breaks off with that."""
        headers = self._ai_headers(job.task_id, job.pipeline, EVENTS_TYPE)
        return await self._post(headers, events, incarnation, timeout_s, AI_RESULT_PATH)

    async def post_ai_error(
        self,
        task_id: int,
        pipeline: str,
        text: str,
        *,
        incarnation: str = "",
        timeout_s: float = 5.0,
    ) -> Answer:
        """Answer a job with an error."""
        body = text.encode()[:ERROR_BYTES_MAX]
        headers = self._ai_headers(task_id, pipeline, AI_ERROR_TYPE)
        headers["Content-Length"] = str(len(body))
        return await self._post(headers, [body], incarnation, timeout_s, AI_RESULT_PATH)

    def _ai_headers(self, task_id: int, pipeline: str, content_type: str) -> dict[str, str]:
        return ai_headers(
            secret=self._secret, task_id=task_id, pipeline=pipeline, content_type=content_type
        )
