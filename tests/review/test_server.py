"""The server: what the page gets, what is stored, and who is refused."""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
from pathlib import Path
from urllib.parse import quote

import nibabel as nib
import numpy as np
import pytest

from cmbprep.ratings.store import Reader, log_path, read_log
from cmbprep.review.server import SCRIPT_TAG, page_files
from tests.ratings.madeup import MISSED, SPOTS, automatic, make_dataset, ras, scan_image
from tests.review.serving import Running, serving, unpack

SCAN = "sub-01_T2starw"
MARKUP = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("server") / "out", (SCAN, "sub-02_ses-a_T2starw"))


@pytest.fixture(scope="module")
def server(dataset):
    with serving(dataset) as running:
        yield running


def test_session_and_work_list(server: Running):
    session = server.get("/api/session")
    assert session["reader"] == "Anna B." and session["round"] == 1 and not session["blinded"]
    first, second = server.get("/api/scans")
    assert first["id"] == SCAN and first["participant"] == "sub-01" and first["session"] is None
    assert second["session"] == "ses-a" and second["status"] == "unread"
    assert (second["n_definite"], second["n_possible"], second["n_candidates"]) == (2, 1, 2)
    assert second["protocol"] == {
        "sequence": "T2starw",
        "field_T": 3.0,
        "te_s": 0.02,
        "slice_mm": 2.0,
    }
    assert server.get(f"/api/next?after={SCAN}") == {"id": "sub-02_ses-a_T2starw"}


def test_a_scan_with_its_images_in_ras_order(server: Running):
    scan = server.get(f"/api/scans/{SCAN}")
    assert scan["shape"] == [40, 24, 48] and scan["spacing"] == [1.0, 2.0, 1.0]
    kinds = [item["kind"] for item in scan["items"]]
    assert kinds == ["listed"] * 3 + ["candidate"] * 2
    status, body, _ = server.ask(f"/api/scans/{SCAN}/images/preproc")
    header, voxels = unpack(body)
    assert status == 200 and header["shape"] == scan["shape"]
    values = voxels * header["scale"] + header["offset"]
    outlines = server.get(f"/api/scans/{SCAN}/outlines")
    assert set(outlines) == {"L1", "L2", "L3"}
    stored = scan_image()
    for item in scan["items"]:
        i, j, k = np.rint(item["centre_ijk"]).astype(int)
        own = SPOTS[item["key"]]
        # Right, front and up grow with the indices, and the value is that of the scan.
        assert values[i, j, k] == pytest.approx(stored[own], abs=0.01)
        assert np.allclose(np.array(scan["affine"]) @ [i, j, k, 1], [*ras(own), 1])
        flat = np.ravel_multi_index((i, j, k), scan["shape"], order="F")
        within = [key for key, runs in outlines.items() if any(a <= flat < a + n for a, n in runs)]
        assert within == ([item["key"]] if item["kind"] == "listed" else [])
    assert (np.diag(np.array(scan["affine"])[:3, :3]) > 0).all()


def test_the_slices_that_are_shown_first_are_sent_first(server: Running):
    path = f"/api/scans/{SCAN}/images/preproc"
    header, voxels = unpack(server.ask(path)[1])
    assert header["slices"] == list(range(48))
    body = server.ask(f"{path}?first=30")[1]
    turned, same = unpack(body)
    assert turned["slices"][:5] == [30, 29, 31, 28, 32] and sorted(turned["slices"]) == [*range(48)]
    assert np.array_equal(voxels, same)
    # Voxels of two bytes begin at a multiple of two.
    assert int.from_bytes(body[:4], "little") % 4 == 0
    for wrong in ("-1", "x", "1e3", "9" * 5000, "²"):
        assert server.ask(f"{path}?first={quote(wrong)}")[0] == 422


def test_the_page_is_one_script_in_the_order_of_its_files(server: Running):
    text = server.ask(f"/?token={server.token}", token=None)[1].decode()
    (address,) = re.findall(r'<script src="([^"]+)"', text)
    body = server.ask(f"/{address}", token=None)[1].decode()
    files = page_files()
    names = SCRIPT_TAG.findall(files["index.html"])
    assert len(names) > 10 and body == "\n".join(files[name] for name in names)


def test_no_answer_waits_for_the_network(server: Running):
    """A server that holds back the second packet of an answer takes 40 ms for each."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    seconds = []
    for _ in range(20):
        begin = time.perf_counter()
        connection.request("GET", "/api/session", headers={"X-Review-Token": server.token})
        connection.getresponse().read()
        seconds.append(time.perf_counter() - begin)
    connection.close()
    # The first answers of a connection come at once in any case.
    assert min(seconds[10:]) < 0.03, seconds


@pytest.mark.parametrize("content", [None, b"", b"x" * 99])
def test_damaged_images_are_named(tmp_path: Path, content):
    """An image that is damaged while the scan is read; the reader's acts stay possible."""
    root = make_dataset(tmp_path / "out", (SCAN, "sub-02_T2starw"))
    with serving(root) as server:
        for path in root.rglob("sub-02_*.nii.gz"):
            whole = path.read_bytes()
            path.write_bytes(whole[: len(whole) // 2] if content is None else content)
        for part in ("images/preproc", "outlines"):
            status, body, _ = server.ask(f"/api/scans/sub-02_T2starw/{part}")
            assert status in (422, 500), body
            assert json.loads(body)["error"]
        assert server.act(SCAN, type="verdict", lesion="L1", verdict="definite")[0] == 200


def test_acts_are_stored_before_the_answer(server: Running, dataset: Path):
    scan = "sub-02_ses-a_T2starw"
    status, answer = server.act(scan, type="verdict", lesion="L1", verdict="definite", id="one")
    assert status == 200 and answer["state"]["items"]["L1"]["verdict"] == "definite"
    # A repeated request after a lost answer acts once.
    assert server.act(scan, type="verdict", lesion="L1", verdict="definite", id="one")[0] == 200
    status, answer = server.act(scan, type="add", centre_ras=list(ras(MISSED)))
    assert status == 200 and answer["act"]["lesion"] == "N1"
    added = answer["state"]["items"]["N1"]
    shape = server.get(f"/api/scans/{scan}")["shape"]
    flat = np.zeros(np.prod(shape), bool)
    for start, length in added["runs"]:
        flat[start : start + length] = True
    voxels = np.argwhere(flat.reshape(shape, order="F"))
    assert np.allclose(voxels.mean(axis=0), added["centre_ijk"], atol=1)
    status, answer = server.act(scan, type="comment", lesion="N1", text=MARKUP)
    assert answer["state"]["items"]["N1"]["comment"] == MARKUP
    status, answer = server.act(scan, type="finish")
    assert status == 422 and answer["open"] == ["L2", "L3"]
    for lesion in ("L2", "L3"):
        server.act(scan, type="verdict", lesion=lesion, verdict="rejected", reason="vein")
    status, answer = server.act(scan, type="finish")
    assert status == 200 and answer["state"]["finished"]
    assert server.get("/api/scans")[1]["status"] == "done"
    path = log_path(automatic(dataset, scan).folder, "sub-02_ses-a", Reader(name="Anna B."))
    kinds = [act.payload.type for act in read_log(path)]
    assert kinds == ["verdict", "add", "comment", "verdict", "verdict", "finish"]
    status, answer = server.act(scan, type="undo")
    assert status == 200 and not answer["state"]["finished"]


def test_the_server_numbers_lesions_and_tells_which_are_outside_the_brain(dataset: Path):
    with serving(dataset, reader="Dora") as server:
        status, answer = server.act(SCAN, type="add", centre_ras=ras(MISSED), lesion="N999999")
        assert status == 200 and answer["act"]["lesion"] == "N1"
        assert answer["outside_brain"] is False
        status, answer = server.act(SCAN, type="add", centre_ras=ras((1, 1, 1)))
        assert status == 200 and answer["act"]["lesion"] == "N2"
        assert answer["outside_brain"] is True and "N2" in answer["state"]["items"]
        assert server.act(SCAN, type="add", centre_ras=ras((-1, 1, 1)))[0] == 409


def test_a_double_is_refused_with_its_reason(dataset: Path):
    with serving(dataset, reader="Emil") as server:
        for key in ("L2", "L3"):
            assert server.act(SCAN, type="verdict", lesion=key, verdict="definite")[0] == 200
        place = ras(SPOTS["L3"])
        status, answer = server.act(SCAN, type="move", lesion="L2", centre_ras=place)
        assert (status, answer["error"]) == (409, "the lesion L3 is at this place already")


def test_half_a_character_does_not_spoil_a_review(dataset: Path):
    with serving(dataset, reader="Finn") as server:
        for content in (
            {"type": "comment", "lesion": "L1", "text": "seen\ud800"},
            {"type": "comment", "text": "\udfff"},
            {"type": "scan", "note": "\ud800", "findings": ["\ud800"]},
        ):
            assert server.act(SCAN, **content)[0] == 200
        assert server.act(SCAN, type="finish", id="\ud800")[0] == 422
        state = server.get(f"/api/scans/{SCAN}")["state"]
        assert state["items"]["L1"]["comment"] == "seen\ufffd"
        assert state["scan"]["note"] == "\ufffd"


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (409, {"type": "verdict", "lesion": "L77", "verdict": "definite"}),
        (409, {"type": "redo"}),
        (409, {"type": "add", "centre_ras": [900, 0, 0]}),
        (409, {"type": "zone", "lesion": "L1", "region": MARKUP}),
        (422, {"type": "verdict", "lesion": "../../x", "verdict": "definite"}),
        (422, {"type": "verdict", "lesion": "L1", "verdict": MARKUP}),
        (422, {"type": MARKUP}),
    ],
)
def test_acts_that_do_not_fit_change_nothing(server: Running, status: int, content: dict):
    before = server.get(f"/api/scans/{SCAN}")["acts"]
    found, answer = server.act(SCAN, **content)
    assert found == status and answer["error"]
    assert server.get(f"/api/scans/{SCAN}")["acts"] == before


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"1", b"\xff", b"[" * 100_000])
def test_bodies_that_are_no_act_are_refused(server: Running, body: bytes):
    assert server.ask(f"/api/scans/{SCAN}/acts", method="POST", body=body)[0] == 422


PATHS = ("/", "/page/main.js", "/api/session", "/api/scans", f"/api/scans/{SCAN}/labels", "/x")


@pytest.mark.parametrize("path", PATHS)
def test_only_the_page_is_answered(server: Running, path: str):
    own = f"127.0.0.1:{server.port}"
    refused: list[dict] = [
        {"token": None},
        {"token": "wrong"},
        {"token": server.token[:-1]},
        {"headers": {"Host": "evil.example"}},
        {"headers": {"Host": f"evil.example:{server.port}"}},
        {"headers": {"Host": "127.0.0.1"}},
        {"headers": {"Origin": "http://evil.example"}},
        {"headers": {"Origin": "null"}},
        {"headers": {"Origin": f"https://{own}"}},
    ]
    for request in refused:
        status, body, _ = server.ask(path, **request)
        assert (status, body) == (403, b"refused"), request
    status, _, headers = server.ask(path, headers={"Origin": f"http://{own}"})
    assert status != 403
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in headers


def test_the_token_in_the_address_opens_the_page_only(server: Running):
    assert server.ask(f"/?token={server.token}", token=None)[0] == 200
    assert server.ask(f"/page/none.js?token={server.token}", token=None)[0] == 404
    assert server.ask(f"/api/session?token={server.token}", token=None)[0] == 403
    assert server.ask(f"/?token={server.token}&token=x", token=None)[0] == 403


@pytest.mark.parametrize(
    "path",
    [
        "/page/../access.py",
        "/page/..%2faccess.py",
        "/page/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/page//etc/passwd",
        "/api/scans/..%2f..%2fetc",
        "/api/scans/../../etc/passwd",
        f"/api/scans/{SCAN}/images/..%2f..%2fpreproc",
        f"/api/scans/{SCAN}/images/%00",
        "/api/scans/sub-01",
        "/dataset_description.json",
    ],
)
def test_no_request_reaches_a_file(server: Running, path: str):
    status, body, _ = server.ask(path)
    assert status == 404 and b"root:" not in body
    assert server.ask(path.replace("scans/", "scans/x"), method="POST")[0] in (404, 405)


def test_a_large_body_is_refused_without_being_read(server: Running):
    path = f"/api/scans/{SCAN}/acts"
    status, _, _ = server.ask(path, method="POST", body=b"{}", headers={"Content-Length": "-1"})
    assert status in (400, 413)
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        head += f"X-Review-Token: {server.token}\r\nContent-Length: {100 * 2**20}\r\n\r\n"
        client.sendall(head.encode())
        assert b" 413 " in client.recv(100)


def test_a_large_body_in_chunks_is_refused(server: Running):
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        head = f"POST /api/scans/{SCAN}/acts HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        head += f"X-Review-Token: {server.token}\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.sendall(head.encode())
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        answer = b""
        try:
            for _ in range(1600):
                client.sendall(chunk)
        except OSError:
            pass
        client.settimeout(10)
        try:
            answer = client.recv(100)
        except OSError:
            answer = b" 413 "  # the server has closed the connection
        assert b" 413 " in answer
    assert server.get("/api/session")["reader"] == "Anna B."


def test_the_server_listens_on_this_machine_only(server: Running):
    hexadecimal = f"{server.port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = [parts[1] for parts in lines if parts[3] == "0A" and parts[1].endswith(hexadecimal)]
    assert listening == [f"0100007F:{hexadecimal}"]


def test_two_readers_and_the_same_reader_twice(dataset: Path, server: Running):
    assert server.act(SCAN, type="verdict", lesion="L1", verdict="definite")[0] == 200
    with serving(dataset, reader="Ben") as other:
        assert other.act(SCAN, type="verdict", lesion="L1", verdict="rejected")[0] == 200
        assert other.get(f"/api/scans/{SCAN}")["state"]["items"]["L1"]["verdict"] == "rejected"
    with serving(dataset, reader="Anna B.") as twice:
        scan = twice.get(f"/api/scans/{SCAN}")
        assert f"process {server.process.pid} on" in scan["locked"]
        assert scan["state"]["items"]["L1"]["verdict"] == "definite"
        status, answer = twice.act(SCAN, type="verdict", lesion="L1", verdict="rejected")
        assert status == 409 and "open elsewhere" in answer["error"]
    assert server.get(f"/api/scans/{SCAN}")["state"]["items"]["L1"]["verdict"] == "definite"


def test_blinded_sessions_hide_what_the_detector_rated(dataset: Path):
    with serving(dataset, "--blinded", reader="Cleo") as server:
        row = server.get("/api/scans")[0]
        assert row["n_definite"] is row["n_possible"] is row["n_candidates"] is None
        scan = server.get(f"/api/scans/{SCAN}")
        hidden = ("probability", "rating", "susceptibility")
        assert all(item[name] is None for item in scan["items"] for name in hidden)
        # Not even by the order, which is by place and not by probability.
        listed = [item for item in scan["items"] if item["kind"] == "listed"]
        heights = [item["centre_ras"][2] for item in listed]
        assert heights == sorted(heights)
        assert scan["state"]["order"] == [item["key"] for item in listed]


def test_a_session_that_settles_disagreements(tmp_path: Path):
    root = make_dataset(tmp_path / "out", (SCAN, "sub-02_T2starw"))
    for reader, last in (("Anna", "definite"), ("Ben", "rejected")):
        with serving(root, reader=reader) as server:
            for scan in (SCAN, "sub-02_T2starw"):
                for lesion in ("L1", "L2"):
                    server.act(scan, type="verdict", lesion=lesion, verdict="definite")
                verdict = last if scan == SCAN else "definite"
                server.act(scan, type="verdict", lesion="L3", verdict=verdict)
                assert server.act(scan, type="finish")[0] == 200
    with serving(root, "--disagreements", reader="Cleo") as server:
        (row,) = server.get("/api/scans")
        assert row["id"] == SCAN and row["disagreement"] is True
        others = server.get(f"/api/scans/{SCAN}")["others"]
        assert [(item["reader"], item["verdicts"]["L3"]) for item in others] == [
            ("Anna", "definite"),
            ("Ben", "rejected"),
        ]


def test_the_files_of_a_review_follow_when_the_server_ends(tmp_path: Path):
    root = make_dataset(tmp_path / "out")
    with serving(root) as server:
        server.act(SCAN, type="verdict", lesion="L1", verdict="definite")
    image = root / "sub-01/anat/sub-01_label-CMB_desc-reviewed1annab_mask.nii.gz"
    assert nib.load(image).get_fdata().sum() > 0
