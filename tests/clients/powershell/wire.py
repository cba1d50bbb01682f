"""Sends what PowerShell's Invoke-RestMethod sends, byte for byte, and reads answers as it does."""

import asyncio
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httptools
import httpx

CONTINUE_S = 0.35
"""How long .NET Framework waits for "100 Continue" before it sends the body anyway."""
_BEST_FIT = str.maketrans("\u201c\u201d\u2018\u2019", "\"\"''")


@dataclass(frozen=True)
class Call:
    """What a script asks for."""

    path: str
    body: str | bytes | None = None
    content_type: str = "application/json; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "POST"


@dataclass(frozen=True)
class Generation:
    """How the bytes of different versions differ."""

    version: str
    user_agent: str
    charset: str
    """The encoding of a body if the call does not declare one."""
    is_framework: bool
    """Whether it uses .NET Framework's HttpWebRequest rather than .NET's HttpClient."""

    def to_json(self, value: Any) -> str:
        """Return `value` as `ConvertTo-Json` writes it."""
        if not self.is_framework:
            return json.dumps(value, ensure_ascii=False, indent=2).replace("\n", "\r\n")
        text = json.dumps(value, ensure_ascii=False, indent=4, separators=(",", ":  "))
        escaped = re.sub("[<>&']", lambda match: f"\\u{ord(match[0]):04x}", text)
        return escaped.replace("\n", "\r\n")

    def encode(self, call: Call) -> bytes:
        """Return the bytes of the body; Latin-1 has no Hangul, and "best fits" for quotes."""
        if not isinstance(call.body, str):
            return call.body or b""
        declared = re.search(r"charset=(\S+)", call.content_type)
        charset = declared[1] if declared else self.charset
        charset = {"utf-16": "utf-16-le", "ks_c_5601-1987": "cp949"}.get(charset, charset)
        text = call.body.translate(_BEST_FIT) if charset == "iso-8859-1" else call.body
        return text.encode(charset, errors="replace")

    def head(self, call: Call, host: str, *, is_first: bool) -> bytes:
        """Return the bytes before the body; `is_first` on a new connection."""
        content = {}
        if call.body is not None:
            content = {
                "Content-Type": call.content_type,
                "Content-Length": str(len(self.encode(call))),
            }
        if self.is_framework:
            headers = {**call.headers, "User-Agent": self.user_agent}
            headers |= {**content, "Host": host}
            headers |= {"Expect": "100-continue"} if content else {}
            headers |= {"Connection": "Keep-Alive"} if is_first else {}
        else:
            headers = {"Host": host, **call.headers, "User-Agent": self.user_agent}
            headers |= {"Accept-Encoding": "gzip, deflate, br", **content}
        lines = [f"{call.method} {call.path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode("ascii")


WINDOWS_POWERSHELL = Generation(
    "5.1",
    "Mozilla/5.0 (Windows NT; Windows NT 10.0; ko-KR) WindowsPowerShell/5.1.19041.4522",
    "iso-8859-1",
    is_framework=True,
)
POWERSHELL_7_2 = Generation(
    "7.2",
    "Mozilla/5.0 (Windows NT 10.0; Microsoft Windows 10.0.19045; ko-KR) PowerShell/7.2.24",
    "iso-8859-1",
    is_framework=False,
)
POWERSHELL_7_4 = Generation(
    "7.4",
    "Mozilla/5.0 (Windows NT 10.0; Microsoft Windows 10.0.19045; ko-KR) PowerShell/7.4.6",
    "utf-8",
    is_framework=False,
)
GENERATIONS = [WINDOWS_POWERSHELL, POWERSHELL_7_2, POWERSHELL_7_4]


class Answer:
    """An answer, as far as it has arrived."""

    def __init__(self) -> None:
        self.status = 0
        self.headers = httpx.Headers()
        self.body = b""
        self.is_complete = False
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("ascii")] = value.decode("ascii")

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self.is_complete = True

    @property
    def closes(self) -> bool:
        return "close" in self.headers.get_list("connection")

    @property
    def text(self) -> str:
        """Return the body as Windows PowerShell reads it: as ISO-8859-1 unless declared."""
        declared = re.search("charset=(.+)", self.headers["content-type"])
        return self.body.decode(declared[1] if declared else "iso-8859-1")

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Connection:
    """Calls a server on one connection, and reconnects if the server has closed it."""

    def __init__(self, generation: Generation, url: str) -> None:
        self.generation = generation
        self.opened = 0
        """How many connections it has accepted."""
        self.continued = False
        """Whether the server has asked for the last call's body."""
        self.was_reset = False
        """Whether the server has ever reset a connection: Windows then drops what
        has not been read by then.
        """
        self._url = httpx.URL(url)
        self._writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._close()

    async def call(self, call: Call, *, continue_s: float | None = None) -> Answer:
        """Send `call` and return its answer.

        The body of Windows PowerShell follows once it is asked for, or after `continue_s`
        whatever has come by then; it is not sent at all if the answer has come instead.
        """
        async with asyncio.timeout(20):
            is_first = self._writer is None
            if is_first:
                await self._open()
            return await self._exchange(call, continue_s, is_first=is_first)

    async def _exchange(self, call: Call, continue_s: float | None, *, is_first: bool) -> Answer:
        assert self._writer
        host = self._url.netloc.decode()
        head = self.generation.head(call, host, is_first=is_first)
        body = self.generation.encode(call)
        self.continued = False
        if not self.generation.is_framework or not body:
            self._writer.write(head + body)
            answer = await self._read()
        elif continue_s is None:
            self._writer.write(head)
            answer = await self._read()
            if answer.status == httpx.codes.CONTINUE:
                self.continued = True
                self._writer.write(body)
                answer = await self._read()
        else:
            self._writer.write(head)
            await asyncio.sleep(continue_s)
            self._writer.write(body)
            answer = await self._read()
            if answer.status == httpx.codes.CONTINUE:
                self.continued = True
                answer = await self._read()
            if answer.closes:
                await self._wait_for_the_end()
        if answer.closes:
            await self._close()
        return answer

    async def _read(self) -> Answer:
        """Read an answer byte by byte, leaving what follows it for the next."""
        answer = Answer()
        while not answer.is_complete:
            answer.feed(await self._reader.readexactly(1))
        return answer

    async def _wait_for_the_end(self) -> None:
        try:
            assert await self._reader.read() == b"", "nothing comes behind the last answer"
        except ConnectionResetError:
            self.was_reset = True

    async def _open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(self._url.host, self._url.port)
        self.opened += 1

    async def _close(self) -> None:
        if self._writer:
            self._writer.close()
            with suppress(ConnectionResetError):
                await self._writer.wait_closed()
            self._writer = None
