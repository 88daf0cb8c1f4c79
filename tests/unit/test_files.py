"""Files: what other users may read."""

from __future__ import annotations

from pathlib import Path

from kedge.files import find_open, tighten


def test_a_directory_that_is_open_to_others_is_closed_and_said(tmp_path: Path) -> None:
    """Once: what is closed already is not said again."""
    place = tmp_path / "state"
    place.mkdir()
    place.chmod(0o755)
    assert tighten(place)
    assert place.stat().st_mode & 0o777 == 0o700
    assert not tighten(place)


def test_what_is_open_to_others_is_found_and_no_link_is_followed(tmp_path: Path) -> None:
    """Files, directories, and the top itself."""
    place = tmp_path / "state"
    (place / "records").mkdir(parents=True)
    (place / "records" / "labels.db").write_text("")
    (place / "ledger.db").write_text("")
    (place / "link").symlink_to("/etc")
    place.chmod(0o700)
    (place / "records").chmod(0o700)
    (place / "ledger.db").chmod(0o600)
    (place / "records" / "labels.db").chmod(0o640)
    assert find_open(place) == [place / "records" / "labels.db"]
    place.chmod(0o711)
    assert place in find_open(place)
