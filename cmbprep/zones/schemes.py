"""Zone schemes: where a microbleed may lie, what the places are called, what they mean together.

Two rating scales are defined here as values of one class, :class:`Scheme`:

- :data:`MARS`, the Microbleed Anatomical Rating Scale (Gregoire SM et al., The Microbleed
  Anatomical Rating Scale (MARS): reliability of a tool to map brain microbleeds, Neurology 2009;
  73:1759-1766): 13 regions;
- :data:`BOMBS`, the Brain Observer MicroBleed Scale (Cordonnier C et al., Improving interrater
  agreement about brain microbleeds: development of the Brain Observer MicroBleed Scale (BOMBS),
  Stroke 2009;40:94-99): 7 regions.

Neither scale fixes borders in millimetres: ours are parameters of the scheme and are written
into every output. The two scales differ on white matter: MARS has a deep and periventricular
class and counts the corpus callosum as deep, while BOMBS has one class of subcortical white
matter, which is lobar, so that all white matter outside the capsules goes there.

The labels of an atlas are the indices of the regions, the same in its image and in its table.
The ventricles have a label of their own that is in no zone, so that a lesion there is seen.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import resources

from cmbprep.errors import UsageError
from cmbprep.lesions import HEMISPHERES, ZONES

#: Added to the index of a left region to give the right one.
RIGHT_OFFSET = 100
#: Label of the ventricles in every scheme's atlas.
VENTRICLE_INDEX = 200
#: Names of the infratentorial regions in every scheme.
CEREBELLUM, BRAINSTEM = "cerebellum", "brainstem"


@dataclass(frozen=True, kw_only=True)
class Region:
    """One label of a zone atlas.

    Attributes
    ----------
    index
        Value in the label image, 1 to 255.
    name
        Name of the region, without the side.
    abbreviation
        Short name, with the side; unique within a scheme.
    zone
        ``lobar``, ``deep``, ``infratentorial``; ``None`` for a place that is no tissue.
    hemisphere
        ``left`` or ``right``; ``None`` for a place that is no tissue.
    colour
        ``#rrggbb``.

    Raises
    ------
    ValueError
        If a value is outside what is listed here.
    """

    index: int
    name: str
    abbreviation: str
    zone: str | None
    hemisphere: str | None
    colour: str

    def __post_init__(self) -> None:
        if not 1 <= self.index <= 255:
            raise ValueError(f"region index {self.index} does not fit an 8-bit label image")
        if not self.name or not self.abbreviation:
            raise ValueError(f"region {self.index} has no name")
        if self.zone is not None and self.zone not in ZONES:
            raise ValueError(f"region {self.name}: zone {self.zone!r} is none of {ZONES}")
        if self.hemisphere is not None and self.hemisphere not in HEMISPHERES[:2]:
            raise ValueError(f"region {self.name}: {self.hemisphere!r} is neither left nor right")
        if (self.zone is None) != (self.hemisphere is None):
            raise ValueError(f"region {self.name}: tissue has a zone and a side, the rest neither")
        if not re.fullmatch(r"#[0-9a-f]{6}", self.colour):
            raise ValueError(f"region {self.name}: {self.colour!r} is not a colour (#rrggbb)")

    @property
    def title(self) -> str:
        """Name with the side, unique within a scheme."""
        return self.name if self.hemisphere is None else f"{self.hemisphere} {self.name}"


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """A rating scale's regions and zones, with the parameters that the scale leaves open.

    Attributes
    ----------
    name
        Label of the ``atlas`` entity, such as ``MARS``.
    version
        Version of our reading of the scale and of the atlas made after it.
    regions
        Left and right regions and the ventricles, in the order of their index.
    border
        What ``border_mm`` is, as a parameter's name.
    border_mm
        The border in millimetres; a scheme's own is what its packaged atlas was made with.
    tolerance_mm
        Error of registration that is reckoned with: a lesion whose centre is nearer than this
        to another zone is flagged.
    reference
        Where the scale was published.

    Raises
    ------
    ValueError
        If indices or names repeat, a region lacks its other side, or a parameter is not positive.
    """

    name: str
    version: str
    regions: tuple[Region, ...]
    border: str
    border_mm: float
    tolerance_mm: float
    reference: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9]+", self.name):
            raise ValueError(f"scheme name {self.name!r} cannot be the value of a BIDS entity")
        if not self.border_mm > 0 or not self.tolerance_mm > 0:
            raise ValueError(f"scheme {self.name}: border and tolerance must be positive")
        for what in ("index", "title", "abbreviation"):
            values = [getattr(region, what) for region in self.regions]
            if len(set(values)) != len(values):
                raise ValueError(f"scheme {self.name}: two regions have the same {what}")
        indices = [region.index for region in self.regions]
        if indices != sorted(indices):
            raise ValueError(f"scheme {self.name}: regions are not in the order of their index")
        if self._side("left") != self._side("right"):
            raise ValueError(f"scheme {self.name}: left and right do not have the same regions")
        if {region.zone for region in self.regions} != {*ZONES, None}:
            raise ValueError(f"scheme {self.name}: a zone or the ventricles have no region")

    def _side(self, side: str) -> list[tuple[str, str | None]]:
        return [(r.name, r.zone) for r in self.regions if r.hemisphere == side]

    @cached_property
    def by_index(self) -> dict[int, Region]:
        """Regions by their value in the label image."""
        return {region.index: region for region in self.regions}

    @property
    def region_names(self) -> tuple[str, ...]:
        """Names of the regions that are tissue, each once, in the scale's order."""
        return tuple(name for name, _ in self._side("left"))

    def zone_of(self, region_name: str) -> str | None:
        """Return the zone of a region by its name without the side.

        Raises
        ------
        KeyError
            If the scheme has no such region.
        """
        return self._zones[region_name]

    @cached_property
    def _zones(self) -> dict[str, str | None]:
        return {region.name: region.zone for region in self.regions}


def _regions(name: str) -> tuple[Region, ...]:
    """Read the regions of a scheme from the table of its atlas."""
    table = resources.files("cmbprep.data.atlas").joinpath(f"atlas-{name}_dseg.tsv")
    rows = csv.DictReader(io.StringIO(table.read_text(encoding="utf-8")), delimiter="\t")
    return tuple(
        Region(
            index=int(row["index"]),
            name=row["region"],
            abbreviation=row["abbreviation"],
            zone=None if row["zone"] == "n/a" else row["zone"],
            hemisphere=None if row["hemisphere"] == "n/a" else row["hemisphere"],
            colour=row["color"],
        )
        for row in rows
    )


# Colours: one family of hues a zone (blue, orange to red, green to violet), so that a zone is
# distinguished with any common colour blindness, and within a family steps of lightness.
MARS = Scheme(
    name="MARS",
    version="1",
    regions=_regions("MARS"),
    # White matter this near to a lateral ventricle is deep and periventricular. The scale
    # names the class and gives no distance; 10 mm from the ventricle is what published
    # code for automatic rating uses for periventricular white matter.
    border="periventricular_border_mm",
    border_mm=10.0,
    tolerance_mm=2.0,
    reference="Gregoire et al. 2009, doi:10.1212/WNL.0b013e3181c34a7d",
)

BOMBS = Scheme(
    name="BOMBS",
    version="1",
    regions=_regions("BOMBS"),
    # White matter this near to cortex belongs to the grey-white junction; both sides of this
    # border are lobar. At 3 mm, hardly any white matter of the gyri would remain.
    border="junction_border_mm",
    border_mm=1.5,
    tolerance_mm=2.0,
    reference="Cordonnier et al. 2009, doi:10.1161/STROKEAHA.108.526996",
)

#: Name on the command line -> scheme.
SCHEMES = {"mars": MARS, "bombs": BOMBS}


def get_scheme(name: str, border_mm: float | None = None) -> Scheme:
    """Return a scheme by its name, in upper or lower case.

    Parameters
    ----------
    name
        ``mars`` or ``bombs``.
    border_mm
        Border in the place of the scheme's own.

    Raises
    ------
    UsageError
        If there is no such scheme.
    """
    scheme = SCHEMES.get(name.lower())
    if scheme is None:
        hint = f"choose one of {', '.join(SCHEMES)}"
        raise UsageError(f"there is no zone scheme {name!r}", hint=hint)
    return scheme if border_mm is None else replace(scheme, border_mm=float(border_mm))


def format_regions(scheme: Scheme) -> str:
    """Return the table of an atlas's labels (BIDS ``atlas-<name>_dseg.tsv``)."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter="\t", lineterminator="\n")
    writer.writerow(["index", "name", "abbreviation", "color", "region", "zone", "hemisphere"])
    for r in scheme.regions:
        place = r.zone or "n/a", r.hemisphere or "n/a"
        writer.writerow([r.index, r.title, r.abbreviation, r.colour, r.name, *place])
    return out.getvalue()
