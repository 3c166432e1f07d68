"""A real server of a review in a process of its own, and requests to it."""

from __future__ import annotations

import http.client
import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np


@dataclass
class Running:
    """A server, its port and token."""

    process: subprocess.Popen
    port: int
    token: str

    def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        token: str | None = "",
    ) -> tuple[int, bytes, dict[str, str]]:
        """Send a request; the right token is sent unless another, or None, is given."""
        sent = dict(headers or {})
        if token is not None:
            sent.setdefault("X-Review-Token", token or self.token)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body=body, headers=sent)
            answer = connection.getresponse()
            return answer.status, answer.read(), {k.lower(): v for k, v in answer.getheaders()}
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        status, body, _ = self.ask(path)
        assert status == 200, body
        return json.loads(body)

    def act(self, scan: str, **content: Any) -> tuple[int, dict[str, Any]]:
        body = json.dumps(content).encode()
        status, answer, _ = self.ask(f"/api/scans/{scan}/acts", method="POST", body=body)
        return status, json.loads(answer)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=20)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


def start(root: Path, *options: str, reader: str = "Anna B.") -> Running:
    command = [sys.executable, "-m", "cmbprep.lab.cli", "review", str(root), "--no-browser"]
    process = subprocess.Popen(
        [*command, "--reader", reader, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    for line in process.stdout:
        if line.startswith("Open "):
            parts = urlsplit(line.split()[1])
            assert parts.hostname == "127.0.0.1" and parts.port
            running = Running(process, parts.port, parse_qs(parts.query)["token"][0])
            running.get("/api/session")
            return running
    raise AssertionError(process.stderr.read())


@contextmanager
def serving(root: Path, *options: str, reader: str = "Anna B.") -> Iterator[Running]:
    running = start(root, *options, reader=reader)
    try:
        yield running
    finally:
        running.stop()


def unpack(body: bytes) -> tuple[dict[str, Any], np.ndarray]:
    """Read an image as the page does."""
    (length,) = struct.unpack("<I", body[:4])
    header = json.loads(body[4 : 4 + length])
    sent = np.frombuffer(body[4 + length :], "<u2").reshape(header["shape"], order="F")
    voxels = np.empty_like(sent)
    voxels[:, :, header.get("slices", range(sent.shape[2]))] = sent
    return header, voxels
