"""Requests that change something, names and texts that are not what they should be."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cmbprep.cli.main import main
from tests.ratings.madeup import MISSED, make_dataset, ras
from tests.review.serving import Running, serving

SCAN = "sub-01_T2starw"
MARKUP = "<img src=x onerror=alert(1)>"
ACT = json.dumps({"type": "verdict", "lesion": "L1", "verdict": "definite"}).encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(make_dataset(tmp_path_factory.mktemp("security") / "out")) as running:
        yield running


def raw(server: Running, head: str, body: bytes = b"") -> bytes:
    """Send a request as it is written, and return the first line of the answer."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        return client.recv(1000).partition(b"\r\n")[0]


def test_no_act_of_another_site_or_program_is_stored(server: Running) -> None:
    path = f"/api/scans/{SCAN}/acts"
    wrong: list[dict] = [
        {"token": None},
        {"token": "wrong"},
        {"token": None, "headers": {"Cookie": f"token={server.token}"}},
        {"headers": {"Host": f"evil.example:{server.port}"}},
        {"headers": {"Origin": "http://evil.example"}},
        {"headers": {"Origin": "null"}},
    ]
    for request in wrong:
        status, body, _ = server.ask(path, method="POST", body=ACT, **request)
        assert (status, body) == (403, b"refused"), request
    # The token in the address is for what tags load, not for acts.
    address = f"{path}?token={server.token}"
    assert server.ask(address, method="POST", body=ACT, token=None)[0] == 403
    assert server.get(f"/api/scans/{SCAN}")["acts"] == 0


@pytest.mark.parametrize(
    "head",
    [
        "GET /api/session HTTP/1.0\nX-Review-Token: {token}",
        "GET /api/session HTTP/1.1\nHost: {own}\nHost: evil.example\nX-Review-Token: {token}",
        "GET /api/session HTTP/1.1\nHost: {own}\nX-Review-Token: {token}\nX-Review-Token: x",
        "GET http://evil.example/api/session HTTP/1.1\nHost: evil.example\nX-Review-Token: {token}",
        "OPTIONS /api/session HTTP/1.1\nHost: {own}\nOrigin: http://evil.example",
    ],
    ids=["no host", "two hosts", "two tokens", "absolute address", "preflight"],
)
def test_unusual_requests_are_refused(server: Running, head: str) -> None:
    own = f"127.0.0.1:{server.port}"
    answer = raw(server, head.format(own=own, token=server.token))
    assert answer.split()[1] in (b"400", b"403")


def test_a_sent_body_of_100_mb_is_refused_and_not_kept(server: Running) -> None:
    before = resident_mb(server)
    head = f"POST /api/scans/{SCAN}/acts HTTP/1.1\nHost: 127.0.0.1:{server.port}\n"
    head += f"X-Review-Token: {server.token}\nContent-Length: {100 * 10**6}"
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        try:
            for _ in range(100):
                client.sendall(b" " * 10**6)
        except OSError:
            pass  # The server has closed the connection.
        else:
            pytest.fail("the whole body was taken")
    assert server.get("/api/session")["reader"] == "Anna B."
    assert resident_mb(server) - before < 20


def resident_mb(server: Running) -> float:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def test_markup_in_names_and_texts_is_text_in_reports(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "out")
    with serving(root, reader=f"Anna {MARKUP}") as server:
        assert server.get("/api/session")["reader"] == f"Anna {MARKUP}"
        for lesion in ("L1", "L2", "L3"):
            server.act(SCAN, type="verdict", lesion=lesion, verdict="definite")
        assert server.act(SCAN, type="add", centre_ras=list(ras(MISSED)))[0] == 200
        assert server.act(SCAN, type="comment", lesion="N1", text=MARKUP)[0] == 200
        notes = {"siderosis": None, "quality": None, "findings": [], "note": MARKUP}
        assert server.act(SCAN, type="scan", **notes)[0] == 200
        assert server.act(SCAN, type="finish")[0] == 200
    arguments = [str(tmp_path / "raw"), str(root)]
    assert main([*arguments, "participant", "--reports-only"]) == 0
    assert main([*arguments, "group"]) == 0
    for name in ("sub-01.html", "group.html"):
        text = (root / name).read_text("utf-8")
        assert "<img src=x" not in text
        assert "Anna &lt;img src=x" in text


def test_names_lead_to_no_file_outside_the_folder(tmp_path: Path) -> None:
    root = make_dataset(tmp_path / "out")
    before = {path for path in tmp_path.rglob("*") if root not in path.parents}
    with serving(root, reader="../../../Anna/..") as server:
        assert server.act(SCAN, type="verdict", lesion="L1", verdict="definite")[0] == 200
    assert {path for path in tmp_path.rglob("*") if root not in path.parents} == before
    assert (root / "sub-01/anat/sub-01_desc-reviewed1anna_acts.jsonl").is_file()
