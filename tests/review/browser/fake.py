"""A made-up scan with lesions at known places, and a small server with the interface of the review.

The page is developed and tested against it. Voxels, lesions and answers are made here; nothing of
the product is used except the files of the page.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

PACKAGE = Path(__file__).resolve().parents[3] / "cmbprep"
PAGE = PACKAGE / "review" / "page"
#: Files of the page, those of the viewer among them.
FILES = {path.name: path for path in (*PAGE.iterdir(), *(PACKAGE / "reports/viewer").iterdir())}
TOKEN = "a-token-of-the-test"
REGIONS = [
    {"name": "frontal", "zone": "lobar"},
    {"name": "parietal", "zone": "lobar"},
    {"name": "basal ganglia", "zone": "deep"},
    {"name": "thalamus", "zone": "deep"},
    {"name": "cerebellum", "zone": "infratentorial"},
]
SURENESS = ["definite", "possible", "undecided", "later", "rejected", None]


def binary(data: np.ndarray, **header: Any) -> bytes:
    """Return an image as the server sends it: length, header, voxels with x fastest."""
    content = json.dumps({"shape": data.shape, "dtype": "uint16", **header}).encode()
    voxels = np.asarray(data, dtype="<u2").tobytes(order="F")
    return len(content).to_bytes(4, "little") + content + voxels


@dataclass
class FakeScan:
    """A head of one brightness with dark lesions and a bright block at its right, front and top.

    The block makes mirrored and turned images visible.
    """

    id: str = "scan1"
    name: str = "sub-01_T2starw"
    shape: tuple[int, int, int] = (64, 80, 24)
    spacing: tuple[float, float, float] = (0.8, 0.8, 3.0)
    centres: tuple[tuple[int, int, int], ...] = ((20, 30, 8), (40, 34, 14), (30, 60, 17))
    candidates: tuple[tuple[int, int, int], ...] = ((36, 24, 10), (25, 45, 12))
    acts: list[dict[str, Any]] = field(default_factory=list)
    locked: str | None = None
    others: list[dict[str, Any]] | None = None
    outside_brain: bool = False
    left_open: str | None = None
    packed: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.affine = np.diag([*self.spacing, 1.0])
        self.affine[:3, 3] = -np.multiply(self.spacing, self.shape) / 2
        self.voxels = self._draw()

    def _draw(self) -> np.ndarray:
        middle = np.divide(np.subtract(self.shape, 1), 2)
        axes = [
            (np.arange(size, dtype=np.float32) - centre) / (0.46 * size)
            for size, centre in zip(self.shape, middle, strict=True)
        ]
        x, y, z = np.ix_(*axes)
        head = (x**2 + y**2 + z**2) < 1
        noise = np.random.default_rng(0).integers(-30, 30, self.shape)
        image = np.where(head, 1000 + noise, 20).astype(np.uint16)
        for centre in self.centres:
            for voxel in self.ball(centre):
                image[voxel] = 200
        for centre in self.candidates:
            image[centre] = 500
        block = tuple(
            slice(int(a * size), int(b * size))
            for (a, b), size in zip(
                [(0.62, 0.72), (0.62, 0.72), (0.62, 0.72)], self.shape, strict=True
            )
        )
        image[block] = 1800
        return image

    def ball(self, centre: tuple[int, int, int], radius: float = 2.0) -> list[tuple[int, int, int]]:
        """Voxels within some mm of a voxel."""
        reach = [int(radius / size) for size in self.spacing]
        offsets = np.array(np.meshgrid(*[np.arange(-n, n + 1) for n in reach])).reshape(3, -1).T
        near = offsets[np.linalg.norm(offsets * self.spacing, axis=1) <= radius]
        voxels = near + np.asarray(centre)
        inside = np.all((voxels >= 0) & (voxels < self.shape), axis=1)
        return [tuple(int(value) for value in voxel) for voxel in voxels[inside]]

    def runs(self, centre: tuple[int, int, int]) -> list[list[int]]:
        """The same voxels as runs of flat indices."""
        return [
            [int(np.ravel_multi_index(voxel, self.shape, order="F")), 1]
            for voxel in self.ball(centre)
        ]

    def to_voxel(self, ras: list[float]) -> list[int]:
        inverse = np.linalg.inv(self.affine)
        return [round(v) for v in (inverse @ [*ras, 1.0])[:3]]

    def to_world(self, ijk: tuple[int, int, int]) -> list[float]:
        return [round(float(v), 4) for v in (self.affine @ [*ijk, 1.0])[:3]]

    def items(self, blinded: bool = False) -> list[dict[str, Any]]:
        places = [("listed", f"L{n}", ijk) for n, ijk in enumerate(self.centres, 1)]
        places += [("candidate", f"C{n}", ijk) for n, ijk in enumerate(self.candidates, 1)]
        return [
            {
                "key": key,
                "kind": kind,
                "centre_ijk": list(ijk),
                "centre_ras": self.to_world(ijk),
                "diameter_mm": 4.0,
                "volume_mm3": 33.5,
                "probability": None if blinded else 0.9 if kind == "listed" else 0.2,
                "rating": None if blinded else "definite" if kind == "listed" else None,
                "zone": "lobar",
                "region": "frontal",
                "hemisphere": "left" if ijk[0] < self.shape[0] / 2 else "right",
                "susceptibility": "paramagnetic",
                "contrast": 0.8,
            }
            for kind, key, ijk in places
        ]

    def description(self, blinded: bool = False) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "shape": self.shape,
            "affine": self.affine.tolist(),
            "spacing": self.spacing,
            "images": [
                {"id": "mag", "title": "Magnitude", "kind": "magnitude"},
                {"id": "phase", "title": "Local field <b>", "kind": "localfield"},
            ],
            "items": self.items(blinded),
            "scheme": {"name": "MARS", "regions": REGIONS},
            "state": self.state(),
            "acts": len(self.acts),
            "last_act": self.acts[-1]["id"] if self.acts else None,
            "locked": self.locked,
            "left_open": self.left_open,
            "stale": False,
            "others": self.others,
        }

    def image(self, name: str) -> bytes:
        """Return an image in the binary form; each is packed once."""
        if name not in self.packed:
            data = self.voxels if name == "mag" else 2000 - self.voxels
            self.packed[name] = binary(
                data,
                spacing=self.spacing,
                affine=self.affine.tolist(),
                window=[0, 1900],
                scale=1.0,
                offset=0.0,
                unit="",
            )
        return self.packed[name]

    def outlines(self) -> dict[str, list[list[int]]]:
        """Voxels of the listed lesions: key -> runs."""
        return {f"L{n}": self.runs(centre) for n, centre in enumerate(self.centres, 1)}

    def row(self, blinded: bool = False) -> dict[str, Any]:
        state = self.state()
        status = "done" if state["finished"] else "partly" if self.acts else "unread"
        counts = {"n_definite": len(self.centres), "n_possible": 0}
        return {
            "id": self.id,
            "participant": self.name.split("_")[0],
            "session": None,
            "name": self.name,
            "status": status,
            **(dict.fromkeys(counts) if blinded else counts),
            "n_candidates": None if blinded else len(self.candidates),
            "n_reviewed": sum(
                item["verdict"] not in ("undecided", None) for item in state["items"].values()
            ),
            "flags": ["low contrast <i>x</i>"],
            "protocol": {"sequence": "GRE", "field_T": 3.0, "te_s": 0.02, "slice_mm": 3.0},
            "stale": False,
            "disagreement": None,
        }

    def act(self, act: dict[str, Any]) -> dict[str, Any]:
        """Append an act, with the numbers of the lesions that it makes."""
        known = [one for one in self.acts if one["id"] == act.get("id")]
        if known:
            return known[0]
        made = sum(
            len(one["centres"]) if one["type"] == "split" else one["type"] in ("add", "merge")
            for one in self.acts
        )
        act = {"id": str(uuid.uuid4()), **act}
        if act["type"] in ("add", "merge"):
            act["lesion"] = f"N{made + 1}"
        if act["type"] == "split":
            act["lesions"] = [f"N{made + 1 + n}" for n in range(len(act["centres"]))]
        self.acts.append(act)
        return act

    def standing(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        done: list[dict[str, Any]] = []
        undone: list[dict[str, Any]] = []
        for act in self.acts:
            if act["type"] == "undo":
                undone.append(done.pop())
            elif act["type"] == "redo":
                done.append(undone.pop())
            else:
                done.append(act)
                undone.clear()
        return done, undone

    def state(self) -> dict[str, Any]:
        done, undone = self.standing()
        items: dict[str, dict[str, Any]] = {}
        listed = {item["key"]: item for item in self.items()}
        state: dict[str, Any] = {
            "items": items,
            "finished": bool(done) and done[-1]["type"] == "finish",
            "undo_depth": len(done),
            "redo_depth": len(undone),
            "scan": {"siderosis": None, "quality": None, "findings": [], "note": ""},
            "comment": "",
        }

        def touch(key: str, **fields: Any) -> dict[str, Any]:
            empty = {
                "verdict": None if key[0] == "C" else "undecided",
                **dict.fromkeys(("reason", "region", "zone", "centre_ijk", "deleted_by")),
                "comment": "",
            }
            return items.setdefault(key, {**empty, **fields})

        def place(ras: list[float]) -> dict[str, Any]:
            ijk = self.to_voxel(ras)
            runs = self.runs((ijk[0], ijk[1], ijk[2]))
            return {
                "centre_ras": ras,
                "centre_ijk": ijk,
                "diameter_mm": 4.0,
                "segmented": True,
                "runs": runs,
            }

        for key in listed:
            if key[0] == "L":
                touch(key)
        for act in done:
            self._apply(act, state, touch, place, listed)
        state["order"] = list(items)
        return state

    @staticmethod
    def _apply(act: dict[str, Any], state: Any, touch: Any, place: Any, listed: Any) -> None:
        kind, key = act["type"], act.get("lesion")
        if kind == "verdict":
            touch(key).update(verdict=act["verdict"], reason=act.get("reason"))
        elif kind == "add":
            touch(key, verdict=act["verdict"], **place(act["centre_ras"]))
        elif kind == "move":
            touch(key).update(place(act["centre_ras"]))
        elif kind == "merge":
            parts = [touch(one) for one in act["lesions"]]
            centres = [
                part.get("centre_ras") or listed[one]["centre_ras"]
                for part, one in zip(parts, act["lesions"], strict=True)
            ]
            verdict = min((part["verdict"] for part in parts), key=SURENESS.index)
            touch(key, verdict=verdict, **place(np.mean(centres, axis=0).tolist()))
            for part in parts:
                part["deleted_by"] = key
        elif kind == "split":
            whole = touch(key)
            for one, centre in zip(act["lesions"], act["centres"], strict=True):
                touch(one, verdict=whole["verdict"], **place(centre))
            whole["deleted_by"] = act["lesions"][0]
        elif kind == "zone":
            zone = next(one["zone"] for one in REGIONS if one["name"] == act["region"])
            touch(key).update(region=act["region"], zone=zone)
        elif kind == "comment":
            touch(key)["comment"] = act["text"]
        elif kind == "scan":
            names = ("siderosis", "quality", "findings", "note")
            state["scan"].update({name: act[name] for name in names})


def open_keys(state: dict[str, Any]) -> list[str]:
    return [
        key
        for key, item in state["items"].items()
        if not item["deleted_by"] and item["verdict"] in ("undecided", "later")
    ]


@dataclass
class Fake:
    """A running server."""

    address: str
    scans: dict[str, FakeScan]
    session: dict[str, Any]
    failing: bool = False
    token: str = TOKEN
    delay_s: float = 0.0

    @property
    def url(self) -> str:
        return f"{self.address}/?token={self.token}"


def session(**changes: Any) -> dict[str, Any]:
    common = {"reader": "Anna B.", "round": 1, "blinded": False, "dataset": "made-up"}
    return {**common, "version": "0.0", "keys": None, **changes}


class _Handler(BaseHTTPRequestHandler):
    @property
    def fake(self) -> Fake:
        assert isinstance(self.server, _Server)
        return self.server.fake

    def log_message(self, *args: object) -> None:
        pass

    def send(self, content: bytes, kind: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'"
        self.send_header(
            "Content-Security-Policy",
            f"{policy}; img-src 'self' data:; base-uri 'none'; form-action 'none'",
        )
        self.end_headers()
        self.wfile.write(content)

    def json(self, content: Any, status: int = 200) -> None:
        self.send(json.dumps(content).encode(), "application/json", status)

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path == "/" or parts.path.startswith("/page/"):
            if parse_qs(parts.query).get("token") != [self.fake.token]:
                self.json({"error": "refused"}, 403)
            elif parts.path == "/":
                text = (PAGE / "index.html").read_text("utf-8").replace("@TOKEN@", self.fake.token)
                self.send(text.encode(), "text/html; charset=utf-8")
            else:
                name = parts.path.removeprefix("/page/")
                kind = "text/css" if name.endswith(".css") else "text/javascript"
                self.send(FILES[name].read_bytes(), kind)
        elif self.headers.get("X-Review-Token") != self.fake.token:
            self.json({"error": "refused"}, 403)
        else:
            self.api([unquote(part) for part in parts.path.split("/")[2:]])

    def api(self, parts: list[str]) -> None:
        blinded = self.fake.session["blinded"]
        match parts:
            case ["session"]:
                self.json(self.fake.session)
            case ["scans"]:
                self.json([scan.row(blinded) for scan in self.fake.scans.values()])
            case ["scans", name]:
                self.json(self.fake.scans[name].description(blinded))
            case ["scans", name, "outlines"]:
                self.json(self.fake.scans[name].outlines())
            case ["scans", name, "images", image]:
                self.send(self.fake.scans[name].image(image), "application/octet-stream")
            case _:
                self.json({"error": "unknown"}, 404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.fake.failing:
            self.close_connection = True
            self.connection.close()
            return
        if self.headers.get("X-Review-Token") != self.fake.token:
            self.json({"error": "refused"}, 403)
            return
        scan = self.fake.scans[unquote(self.path.split("/")[3])]
        act, state = json.loads(body), scan.state()
        if scan.locked:
            self.json({"error": scan.locked}, 409)
        elif act["type"] == "finish" and open_keys(state):
            left = open_keys(state)
            text = f"Not every listed lesion is decided: {', '.join(left)}"
            self.json({"error": text, "open": left}, 422)
        else:
            if act["type"] == "add":
                time.sleep(self.fake.delay_s)
            saved = scan.act(act)
            answer = {"state": scan.state(), "act": saved}
            if act["type"] in ("add", "move"):
                answer["outside_brain"] = scan.outside_brain
            self.json(answer)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    fake: Fake

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that closes a connection is no error."""


@contextmanager
def serve(*scans: FakeScan, **changes: Any) -> Iterator[Fake]:
    """Run a server with some scans."""
    fake = Fake("", {scan.id: scan for scan in scans}, session(**changes))
    server = _Server(("127.0.0.1", 0), _Handler)
    server.fake = fake
    fake.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def static_page(scan: FakeScan, **changes: Any) -> str:
    """Return the page as one file, with its data inside."""
    text = (PAGE / "index.html").read_text("utf-8")
    data = {
        "session": session(**changes),
        "scan": scan.description(),
        "outlines": scan.outlines(),
        "row": scan.row(),
        "storage_key": f"made-up|{scan.name}|reviewed1annab",
        "export_name": f"{scan.name}_desc-reviewed1annab_acts.json",
        "based_on": {"fingerprint": "f", "digest": "d"},
    }

    def block(name: str, content: bytes) -> str:
        packed = base64.b64encode(gzip.compress(content, 1)).decode()
        return f'<script type="text/plain" id="{name}">{packed}</script>'

    blocks = [block(f"image-{name}", scan.image(name)) for name in ("mag", "phase")]
    policy = (
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'\">"
    )
    packed = json.dumps(data).replace("<", "\\u003c")
    opening = '<script type="application/json" id="review-data">'
    text = text.replace('<meta charset="utf-8">', f'<meta charset="utf-8">\n{policy}')
    text = text.replace(f"{opening}</script>", "\n".join([f"{opening}{packed}</script>", *blocks]))

    def inline(match: re.Match[str]) -> str:
        name = match["css"] or match["js"]
        content = FILES[name].read_text("utf-8")
        tag = "style" if match["css"] else "script"
        return f"<{tag}>\n{content}</{tag}>"

    return re.sub(
        r'<link rel="stylesheet" href="page/(?P<css>\w+\.css)\?token=@TOKEN@">'
        r'|<script src="page/(?P<js>\w+\.js)\?token=@TOKEN@"></script>',
        inline,
        text,
    )
