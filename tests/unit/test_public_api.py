"""The public surface changes on purpose only."""

from support.public_api import STORED, lines


def test_the_public_surface_is_the_stored_one():
    """Assert every public name, parameter and default; after a change that was meant, write the list anew."""
    stored, now = set(STORED.read_text(encoding="utf-8").splitlines()), set(lines())
    advice = "python tests/support/public_api.py writes the list anew; CHANGELOG.md says what changed"
    assert not stored - now, f"gone or changed; {advice}"
    assert not now - stored, f"new; {advice}"
