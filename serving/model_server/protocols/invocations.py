"""POST /invocations: SageMaker's container contract. Any content type in, the one that Accept names out."""

from __future__ import annotations

from functools import partial

from model_server.batching import Batcher
from model_server.chunks import EVENT_STREAM, ServerSentEvent, each
from model_server.codecs import Negotiated, negotiate, parse_media, row_texts, write_json
from model_server.encodings import decoded, is_encoded
from model_server.engines import Engine, RawEngine, StreamingEngine, Tensors, part
from model_server.jobs import Render, RequestJob
from model_server.large_bodies import LARGE_BODY, LargeBodies
from model_server.request import Request
from model_server.served import Handler, ServedModel
from model_server.turns import Begun, StreamedJob, begin
from model_server.validation import InputReader

MAX_CACHED = 256


def handlers(model: ServedModel) -> dict[str, Handler]:
    """What POST /invocations is answered by."""
    if isinstance(model.engine, RawEngine):
        return {"invoke": RawInvocations(model.engine, model.batcher, model.max_body)}
    engine, batcher = model.engine, model.batcher
    whole = Invocations(engine, model.reader, batcher, model.large_bodies, model.max_body)
    if isinstance(engine, StreamingEngine):
        return {"invoke": StreamedInvocations(engine, whole, model)}
    return {"invoke": whole}


class Invocations:
    """The handler of one model."""

    def __init__(
        self,
        engine: Engine,
        reader: InputReader,
        batcher: Batcher,
        large_bodies: LargeBodies,
        max_body: int,
    ) -> None:
        self._engine, self._reader, self._batcher = engine, reader, batcher
        self._large_bodies, self._max_body = large_bodies, max_body
        self._renderers: dict[tuple[bytes, bytes], tuple[Negotiated, Render]] = {}
        self._batch: Tensors = {}  # the outputs that were written last, and what each row became
        self._texts: list[bytes] | None = None

    def __call__(self, request: Request) -> None:
        known = request.known
        if known is not None and known.negotiated is not None:
            negotiated, render, encoded = known.negotiated
        else:
            headers = request.headers
            key = (headers.get(b"content-type", b""), headers.get(b"accept", b""))
            negotiated, render = self._renderers.get(key) or self._negotiate(key)
            encoded = is_encoded(request)
            if known is not None and request.attributes is None:
                known.negotiated = negotiated, render, encoded
        if encoded or negotiated.unpacks or len(request.body) >= LARGE_BODY:
            read = partial(self._read, request, negotiated, render, encoded=encoded)
            self._large_bodies.submit(request, read)
            return
        job = self._read(request, negotiated, render)
        self._batcher.submit(job, lone=len(request.connection.server.connections) == 1)

    def _read(
        self, request: Request, negotiated: Negotiated, render: Render, *, encoded: bool = False
    ) -> RequestJob:
        body = decoded(request.body, self._max_body) if encoded else request.body
        inputs, parameters = negotiated.decode(self._reader, body, negotiated.media)
        return RequestJob(request, inputs, len(next(iter(inputs.values()))), parameters, render)

    def _negotiate(self, key: tuple[bytes, bytes]) -> tuple[Negotiated, Render]:
        """Once for each pair of headers: most clients always send the same."""
        negotiated = negotiate(key[0].decode("latin-1"), key[1].decode("latin-1"))
        encode, present, answer = negotiated.encode, self._engine.present, negotiated.answer

        def render(outputs: Tensors, start: int, end: int) -> tuple[bytes, bytes, bytes]:
            mine = part(outputs, start, end)
            return answer, encode(present(mine), mine), b""

        def render_json(outputs: Tensors, start: int, end: int) -> tuple[bytes, bytes, bytes]:
            """A batch is written once, by the first of its requests; each takes its rows' text."""
            if outputs is not self._batch:
                if end == len(next(iter(outputs.values()))) and not start:
                    return answer, encode(present(outputs), outputs), b""
                self._batch, self._texts = outputs, row_texts(present(outputs))
            texts = self._texts
            if texts is None:
                return render(outputs, start, end)
            text = texts[start] if end - start == 1 else b",".join(texts[start:end])
            return answer, b'{"predictions":[%b]}' % text, b""

        chosen = render_json if encode is write_json else render
        if len(self._renderers) >= MAX_CACHED:
            self._renderers.clear()
        self._renderers[key] = negotiated, chosen
        return negotiated, chosen


class StreamedInvocations:
    """The handler of an engine that can give its outputs in parts, an event each where Accept asks for it."""

    def __init__(self, engine: StreamingEngine, whole: Invocations, model: ServedModel) -> None:
        self._engine, self._whole, self._model = engine, whole, model
        self._present = model.engine.present

    def __call__(self, request: Request) -> None:
        accepted = request.header(b"accept").split(",")
        if not any(parse_media(media).type == EVENT_STREAM for media in accepted):
            self._whole(request)
            return
        negotiated = negotiate(request.header(b"content-type"), "")
        read = partial(self._read, request, negotiated)
        if is_encoded(request) or negotiated.unpacks or len(request.body) >= LARGE_BODY:
            self._model.large_bodies.submit(request, read)
        else:
            self._model.batcher.submit(read())

    def _read(self, request: Request, negotiated: Negotiated) -> RequestJob:
        model = self._model
        body = decoded(request.body, model.max_body) if is_encoded(request) else request.body
        inputs, parameters = negotiated.decode(model.reader, body, negotiated.media)

        def call() -> tuple[Begun, str]:
            return begin(each(self._event, self._engine.stream(inputs, parameters))), EVENT_STREAM

        rows = len(next(iter(inputs.values())))
        return StreamedJob(model.batcher, request, inputs, rows, parameters, _write_body, call)

    def _event(self, part: Tensors) -> ServerSentEvent:
        return ServerSentEvent(write_json(self._present(part), part).decode())


class RawInvocations:
    """The handler of an engine that reads and writes bodies itself."""

    def __init__(self, engine: RawEngine, batcher: Batcher, max_body: int) -> None:
        self._engine, self._batcher, self._max_body = engine, batcher, max_body

    def __call__(self, request: Request) -> None:
        encoded = is_encoded(request)
        content_type = request.header(b"content-type") or "application/json"
        accept = request.header(b"accept") or "*/*"
        body = bytes(request.body)

        def call() -> tuple[bytes | Begun, str]:
            content = decoded(body, self._max_body) if encoded else body
            answer, media = self._engine.invoke(content, content_type, accept)
            if any(character in "\r\n" or character > "\xff" for character in media):
                raise ValueError(f"the model's output_fn named {media!r} as its content type")
            return answer if isinstance(answer, bytes) else begin(answer), media

        self._batcher.submit(StreamedJob(self._batcher, request, {}, 1, {}, _write_body, call))


def _write_body(result: tuple[bytes, str], *_: int) -> tuple[bytes, bytes, bytes]:
    body, media = result
    return media.encode("latin-1"), body, b""
