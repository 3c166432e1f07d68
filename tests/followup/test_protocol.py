"""What differs between two protocols, and what each could have shown."""

import pytest

from cmbprep.followup.protocol import Acquisition, blooming, describe_changes, hidden_by
from tests.followup.madeup import acquisition


def test_equal_protocols_have_no_changes():
    assert describe_changes(acquisition(), acquisition(echo_time=0.0203)) == ()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"field_strength": 1.5}, "field strength 3 to 1.5 T"),
        ({"echo_time": 0.04}, "echo time 20 to 40 ms"),
        ({"spacing_mm": (1.0, 1.0, 5.0)}, "slice distance 2 to 5 mm"),
        ({"spacing_mm": (0.5, 0.5, 2.0)}, "voxel size within slices 1 to 0.5 mm"),
        ({"sequence": "swi"}, "sequence T2starw to swi"),
        ({"scanner": "Maker Two"}, "scanner Maker One to Maker Two"),
        ({"echo_time": None}, "echo time not known"),
        ({"scanner": None}, "scanner not known"),
    ],
)
def test_each_change_is_named(change, text):
    assert describe_changes(acquisition(), acquisition(**change)) == (text,)


def test_twice_the_echo_time_gives_2_3_times_the_volume():
    factor = blooming(acquisition(echo_time=0.02), acquisition(echo_time=0.04))
    assert factor**3 == pytest.approx(2.3, abs=0.02)
    assert blooming(acquisition(echo_time=0.04), acquisition(echo_time=0.02)) == pytest.approx(
        1 / factor
    )


def test_thin_slices_show_what_they_have_shown():
    for contrast in (0.2, 0.5, None):
        assert hidden_by(4.0, contrast, acquisition(), acquisition(scanner="Maker Two")) is None


def test_thick_slices_may_hide_what_they_have_shown():
    thick = acquisition(spacing_mm=(1.0, 1.0, 6.0))
    # In the middle of a slice here, and half in each of two there.
    assert hidden_by(4.0, 0.39, thick, thick) is not None
    assert hidden_by(4.0, 0.41, thick, thick) is None


def test_a_more_sensitive_protocol_would_have_shown_what_another_one_shows():
    coarse = acquisition(spacing_mm=(1.0, 1.0, 5.0), field_strength=1.5)
    assert hidden_by(3.0, 0.4, coarse, acquisition()) is None
    assert hidden_by(3.0, 0.4, acquisition(), coarse) is not None


def test_a_longer_echo_hides_nothing():
    coarse = {"spacing_mm": (2.0, 2.0, 2.0)}
    longer = acquisition(echo_time=0.04, **coarse)
    assert hidden_by(3.5, 0.5, acquisition(**coarse), longer) is None
    assert hidden_by(3.5, 0.5, longer, acquisition(**coarse)) is not None


def test_thicker_slices_hide_small_lesions_first():
    thick = acquisition(spacing_mm=(1.0, 1.0, 6.0))
    hidden = [hidden_by(size, 0.7, acquisition(), thick) is not None for size in (2, 3, 4, 6)]
    assert hidden == sorted(hidden, reverse=True)
    assert hidden[0] and not hidden[-1]


def test_what_a_sidecar_says_wrongly_is_not_known():
    found = Acquisition.of(
        {"MagneticFieldStrength": "3T", "EchoTime": -1, "Manufacturer": "Maker"},
        sequence=None,
        echo_times=[None],
        spacing_mm=(1, 1, 2),
    )
    assert (found.field_strength, found.echo_time, found.scanner) == (None, None, "Maker")


def test_the_longest_echo_counts():
    found = Acquisition.of({}, sequence="MEGRE", echo_times=[0.01, 0.02], spacing_mm=(1, 1, 2))
    assert found.echo_time == 0.02
