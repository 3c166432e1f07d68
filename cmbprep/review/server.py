"""The web server of a review: routes, answers, and its start and end."""

from __future__ import annotations

import json
import logging
import re
import secrets
import socket
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

import uvicorn
from nibabel.filebasedimages import ImageFileError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from cmbprep.errors import CmbprepError
from cmbprep.ratings.automatic import ReplacedResultError
from cmbprep.ratings.replay import OpenLesionsError, RefusedActError
from cmbprep.ratings.store import ChangedElsewhereError, OpenElsewhereError
from cmbprep.reports.packing import Packed, viewer_files
from cmbprep.review.access import Guard, TooLargeError
from cmbprep.review.session import ReviewSession

logger = logging.getLogger("cmbprep")

#: Kind of a page file by its ending; no other file is given out.
MEDIA_TYPES = {"css": "text/css", "js": "text/javascript"}
#: Stands in the page for the token.
TOKEN_MARK = "@TOKEN@"  # noqa: S105
#: A script of the page, as its index names it.
SCRIPT_TAG = re.compile(r'<script src="page/([\w.-]+)\?token=@TOKEN@"></script>')
#: Name of the one file that holds all scripts: twenty requests take longer than all else.
ALL_SCRIPTS = "all.js"


class _Binary(Response):
    """An image: its header and its slices, the needed one first, without a copy of the voxels."""

    def __init__(self, image: Packed, first: int) -> None:
        super().__init__(b"", media_type="application/octet-stream")
        self._head, self._slices = image.sliced(first)
        self.headers["content-length"] = str(len(self._head) + image.size)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        await send({"type": "http.response.body", "body": self._head, "more_body": True})
        for voxels in self._slices:
            await send({"type": "http.response.body", "body": voxels, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def page_files() -> dict[str, str]:
    """Read the files of the page, those of the viewer among them: name -> text."""
    folder = resources.files("cmbprep.review").joinpath("page")
    endings = (".html", *(f".{ending}" for ending in MEDIA_TYPES))
    own = {
        item.name: item.read_text("utf-8")
        for item in folder.iterdir()
        if item.name.endswith(endings)
    }
    return own | viewer_files()


def _joined(index: str, files: Mapping[str, str]) -> tuple[str, str]:
    """Return the index with one script in place of all, and the text of that script."""
    names = SCRIPT_TAG.findall(index)
    text = "\n".join(files[name] for name in names)
    for name in names[1:]:
        index = index.replace(f'<script src="page/{name}?token={TOKEN_MARK}"></script>\n', "")
    return (index.replace(f"page/{names[0]}?", f"page/{ALL_SCRIPTS}?") if names else index), text


def make_app(session: ReviewSession, *, port: int, token: str) -> ASGIApp:
    """Return the application of a session, guarded.

    Parameters
    ----------
    session
        What requests act on.
    port, token
        As in :class:`~cmbprep.review.access.Guard`.
    """
    pages = _Pages(token)
    api = _Api(session)
    routes = [
        Route("/", pages.index),
        Route("/page/{name}", pages.file),
        Route("/api/session", api.session),
        Route("/api/scans", api.scans),
        Route("/api/next", api.next),
        Route("/api/scans/{scan}", api.scan),
        Route("/api/scans/{scan}/outlines", api.outlines),
        Route("/api/scans/{scan}/images/{image}", api.image),
        Route("/api/scans/{scan}/acts", api.act, methods=["POST"]),
    ]
    app = Starlette(routes=routes, exception_handlers={TooLargeError: _too_large})
    return Guard(app, port=port, token=token)


def _too_large(_request: Request, _error: Exception) -> Response:
    # What is left of the body is not read.
    headers = {"connection": "close"}
    return Response("too large", 413, headers=headers, media_type="text/plain")


class _Pages:
    """The page and its files, read once: no request reaches a file."""

    def __init__(self, token: str) -> None:
        self._files = page_files()
        index = self._files.pop("index.html", "<!DOCTYPE html><title>Review</title>")
        index, self._files[ALL_SCRIPTS] = _joined(index, self._files)
        self._index = index.replace(TOKEN_MARK, quote(token, safe=""))

    def index(self, _request: Request) -> Response:
        return Response(self._index, media_type="text/html")

    def file(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._files:
            return Response("there is no such file", 404, media_type="text/plain")
        kind = MEDIA_TYPES.get(name.rpartition(".")[2], "text/plain")
        return Response(self._files[name], media_type=kind)


class _Api:
    """Requests of the page, answered by a session."""

    def __init__(self, session: ReviewSession) -> None:
        self._session = session

    def session(self, _request: Request) -> Response:
        return JSONResponse(self._session.describe())

    def scans(self, _request: Request) -> Response:
        return _answered(lambda: JSONResponse(self._session.rows()))

    def next(self, request: Request) -> Response:
        after = request.query_params.get("after")
        return _answered(lambda: JSONResponse({"id": self._session.next_unread(after)}))

    def scan(self, request: Request) -> Response:
        name = request.path_params["scan"]
        return _answered(lambda: JSONResponse(self._session.scan(name)))

    def outlines(self, request: Request) -> Response:
        name = request.path_params["scan"]
        return _answered(lambda: JSONResponse(self._session.outlines(name)))

    def image(self, request: Request) -> Response:
        name, image = request.path_params["scan"], request.path_params["image"]
        first = request.query_params.get("first", "0")
        if not first.isdecimal() or len(first) > 6:
            return _error(422, "the first slice is a number")
        return _answered(lambda: _Binary(self._session.image(name, image), int(first)))

    async def act(self, request: Request) -> Response:
        body = await request.body()
        name = request.path_params["scan"]
        return await run_in_threadpool(_answered, lambda: self._act(name, body))

    def _act(self, name: str, body: bytes) -> Response:
        content = json.loads(body.decode("utf-8"))
        if not isinstance(content, dict):
            raise ValueError("an act is a JSON object")
        return JSONResponse(self._session.act(name, content))


def _answered(make: Callable[[], Response]) -> Response:
    """Return an answer, or what is wrong with the request."""
    try:
        return make()
    except KeyError:
        return _error(404, "there is no such scan or image")
    except OpenLesionsError as error:
        return _error(422, str(error), open=error.keys)
    except (
        OpenElsewhereError,
        ChangedElsewhereError,
        ReplacedResultError,
        RefusedActError,
    ) as error:
        return _error(409, str(error))
    except (ValueError, RecursionError) as error:
        return _error(422, str(error))
    except CmbprepError as error:
        return _error(422, str(error))
    except (EOFError, zlib.error, ImageFileError) as error:
        logger.warning("a request failed: %s", error)
        return _error(500, "an image of this scan is damaged or incomplete: nothing was changed")
    except OSError as error:
        logger.warning("a request failed: %s", error)
        where = f" ({Path(str(error.filename)).name})" if error.filename else ""
        return _error(500, f"{error.strerror or error}{where}: nothing was changed")


def _error(status: int, text: str, **more: Any) -> Response:
    return JSONResponse({"error": text, **more}, status_code=status)


@dataclass(frozen=True, eq=False)
class Server:
    """A server on 127.0.0.1 with a token of its own.

    Attributes
    ----------
    socket
        Bound to 127.0.0.1.
    token
        The secret of this session.
    """

    socket: socket.socket
    token: str

    @classmethod
    def bind(cls, port: int = 0) -> Server:
        """Take a port of 127.0.0.1; 0 for any free one.

        Raises
        ------
        OSError
            If the port is taken.
        """
        # asyncio sends answers at once only where the protocol is named; else each waits 40 ms.
        own = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            own.bind(("127.0.0.1", port))
            # The browser may ask before the server runs: it then waits.
            own.listen()
        except OSError:
            own.close()
            raise
        return cls(own, secrets.token_urlsafe(32))

    @property
    def port(self) -> int:
        """Port of the server."""
        return int(self.socket.getsockname()[1])

    @property
    def address(self) -> str:
        """What the browser opens."""
        return f"http://127.0.0.1:{self.port}/?token={self.token}"

    def run(self, session: ReviewSession) -> None:
        """Serve until the process is told to end."""
        config = uvicorn.Config(
            make_app(session, port=self.port, token=self.token),
            log_level="warning",
            access_log=False,
            server_header=False,
            date_header=False,
            ws="none",
            timeout_graceful_shutdown=2,
            limit_concurrency=64,
        )
        uvicorn.Server(config).run(sockets=[self.socket])
