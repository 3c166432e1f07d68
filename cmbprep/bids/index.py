"""The images of a dataset by participant and kind, as pybids finds them.

The only user of pybids. Files are found by entities, with a configuration of our own
(``data/bids_layout.json``): it knows the folder ``swi/``, which is in no BIDS schema, and
looks at names from the participant's folder on, so that the path to the dataset may hold
anything. Only the folders ``anat/`` and ``swi/`` of the participants asked for are indexed.
Links are followed, and files keep the names that they have in the dataset.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cmbprep.bids.model import ENTITY_ORDER, IMAGE_EXTENSIONS, SEQUENCES, BidsName, parse_name
from cmbprep.bids.selection import has_plain_description, layout_config
from cmbprep.bids.survey import is_utf8

#: What is looked for when no filter says otherwise: kind of image -> pybids query.
QUERIES: Mapping[str, Mapping[str, Any]] = {
    "t2starw": {"suffix": ["T2starw", "GRE"], "datatype": ["anat", "swi"]},
    "megre": {"suffix": "MEGRE", "datatype": ["anat", "swi"]},
    "swi": {"suffix": ["swi", "SWI"], "datatype": ["anat", "swi"]},
    "t1w": {"suffix": "T1w", "datatype": "anat"},
}

DATATYPES = frozenset({"anat", "swi"})

#: Up to so many participants are indexed one by one.
FEW_PARTICIPANTS = 10


@dataclass(frozen=True)
class Image:
    """An image file of the dataset, by its name and place alone."""

    path: Path
    name: BidsName
    subject: str
    session: str | None
    datatype: str
    is_anatomy: bool = False
    """Whether it was found as a T1w image."""

    @classmethod
    def at(cls, path: Path) -> Image:
        """Read what the path of an image says."""
        folder = path.parent.parent
        session = folder.name.removeprefix("ses-") if folder.name.startswith("ses-") else None
        subject_folder = folder.parent if session is not None else folder
        return cls(
            path=path,
            name=parse_name(path),
            subject=subject_folder.name.removeprefix("sub-"),
            session=session,
            datatype=path.parent.name,
        )

    @property
    def stem_entities(self) -> dict[str, str]:
        """Entities that tell scans apart."""
        known = self.name.entities
        return {key: known[key] for key in ENTITY_ORDER if key in known}

    @property
    def echo(self) -> int | None:
        """Number of the echo, if the name has one."""
        value = self.name.entities.get("echo", "")
        return int(value) if value.isdigit() else None


def session_distance(
    order: Sequence[str], session: str | None, wanted: str | None
) -> tuple[int, int]:
    """Rank a session by its distance in the order of labels; the earlier of two goes first."""
    distance = order.index(session or "") - order.index(wanted or "")
    return abs(distance), int(distance > 0)


def anatomy_rank(image: Image) -> tuple[int, ...]:
    """Rank a T1w image by its name: without ``ce``, without ``rec`` and ``acq``, lowest run."""
    entities = image.name.entities
    run = entities.get("run", "0")
    return (
        int("ce" in entities),
        ("rec" in entities) + ("acq" in entities) + len(image.name.oddities),
        int(run) if run.isdigit() else 0,
    )


class ImageIndex:
    """The images of participants, as pybids finds them under a filter.

    Parameters
    ----------
    root
        Folder of the dataset.
    filters
        Entities that images must have, by kind.

    Attributes
    ----------
    images
        Participant -> T1w images, possible scans, and files that a person might take for one.
    failures
        Participant -> the error that its folder has raised.
    passed, total
        Kind of image -> number of images that pass its filter, and of all.
    """

    def __init__(self, root: Path, filters: Mapping[str, Mapping[str, Any]]) -> None:
        self._root, self._filters = root, filters
        self.images: dict[str, list[Image]] = defaultdict(list)
        self.failures: dict[str, Exception] = {}
        self.passed: Counter[str] = Counter()
        self.total: Counter[str] = Counter()

    def add(self, subjects: Sequence[str]) -> None:
        """Index participants; one that cannot be indexed is noted, and the others go on."""
        chunks = [subjects]
        # pybids does not cope with every dataset_description.json in its top folder.
        if len(subjects) <= FEW_PARTICIPANTS or not has_plain_description(self._root):
            chunks = [[subject] for subject in subjects]
        for chunk in chunks:
            try:
                self._add_layout(_layout(self._root, chunk))
            except Exception as error:  # noqa: BLE001 - whatever is wrong, the others go on
                if len(chunk) == 1:
                    self.failures[chunk[0]] = error
                    continue
                # Halves, until the one that is at fault stands alone.
                self.add(chunk[: len(chunk) // 2])
                self.add(chunk[len(chunk) // 2 :])

    def _add_layout(self, layout: Any) -> None:
        def get(kind: str, wanted: Mapping[str, Any]) -> set[str]:
            return set(layout.get(return_type="filename", **_query(kind, wanted)))

        found = {kind: get(kind, self._filters.get(kind, {})) for kind in QUERIES}
        unfiltered = {kind: get(kind, {}) for kind in self._filters}
        images = [Image.at(Path(name)) for name in sorted(layout.get(return_type="filename"))]
        # Nothing fails from here on, so that no image is counted twice.
        for kind, every in unfiltered.items():
            self.passed[kind] += len(found[kind])
            self.total[kind] += len(every)
        scans = found["t2starw"] | found["megre"] | found["swi"]
        for image in images:
            name = str(image.path)
            if name in scans or image.name.suffix not in {*SEQUENCES, "T1w"}:
                self.images[image.subject].append(image)
            elif name in found["t1w"]:
                self.images[image.subject].append(replace(image, is_anatomy=True))


class _OutOfSight:
    """What pybids must not look at, in the guise of the regular expression that it takes.

    A real one would need an alternative for each participant, and be slow for thousands.

    Parameters
    ----------
    subjects
        Participants to look at.
    above
        Name of the participant's folder where that is the top of the index, with a
        leading /; empty where the dataset's folder is.
    """

    def __init__(self, subjects: Collection[str], above: str = "") -> None:
        self._folders = {f"sub-{subject}" for subject in subjects}
        self._above = above

    def search(self, path: str) -> bool:
        """Return whether a path (from the top of the index, with a leading /) is ignored."""
        folder, *below = f"{self._above}{path}".strip("/").split("/")
        if folder not in self._folders or not is_utf8(path):
            return True
        if below and below[0].startswith("ses-"):
            below = below[1:]
        if not below:
            return False
        datatype, *rest = below
        if datatype not in DATATYPES:
            return True
        # Hidden files are what macOS and file managers leave behind.
        return bool(rest) and not (
            len(rest) == 1 and rest[0].endswith(IMAGE_EXTENSIONS) and not rest[0].startswith(".")
        )


def _layout(root: Path, subjects: Sequence[str]) -> Any:
    """Index the images of participants with pybids.

    pybids looks at every entry of its top folder, which takes long where there are tens of
    thousands, on network disks above all. For one participant its own folder is the top, and
    it takes the same time in any dataset.
    """
    from bids.layout import BIDSLayout, BIDSLayoutIndexer

    above = f"/sub-{subjects[0]}" if len(subjects) == 1 else ""
    return BIDSLayout(
        f"{root}{above}",
        validate=False,
        config=dict(layout_config()),
        indexer=BIDSLayoutIndexer(
            validate=False,
            index_metadata=False,
            ignore=[_OutOfSight(subjects, above)],
            # Not a name that a dataset has: such a file would change the configuration.
            config_filename=".cmbprep-brings-its-own-layout",
        ),
    )


def _query(kind: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the pybids query for a kind of image under a filter.

    As in fMRIPrep's filter files, null means that the entity must be absent and ``*`` that
    it must be present.
    """
    from bids.layout import Query

    def term(value: Any) -> Any:
        return {None: Query.NONE, "*": Query.ANY}.get(value, value)

    query = dict(QUERIES[kind])
    for entity, value in wanted.items():
        query[entity] = [term(item) for item in value] if isinstance(value, list) else term(value)
    if "extension" in query:
        given = query["extension"] if isinstance(query["extension"], list) else [query["extension"]]
        query["extension"] = [
            f".{item.lstrip('.')}" if isinstance(item, str) else item for item in given
        ]
    return query
