"""Pictures of the examples, as data URLs: shapes of 56 x 56 pixels, in a few dozen bytes.

Depends on nothing. Invariant: each is a PNG that every model that reads images accepts.
"""

from __future__ import annotations

RED_CIRCLE = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAADgAAAA4AQMAAACSSKldAAAABlBMVEX////cFBTlJRwCAAAAc0lEQVR42qXQsQ2DUBCD"
    "4e8dSFAyApuE0RiNUd4IlBSIS5MoSFBEwo2l3+fCx3Mlgk4Fr9wJJkEhKUKDRWgxik839BiEAb0woj3lX58QF14klOv9"
    "vz4jb/iC44ZX7MKKTdiwnvId9bTbLAkWB+iy/v72VG8E5BoM4yxAbAAAAABJRU5ErkJggg=="
)
BLUE_SQUARE = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAADgAAAA4AQMAAACSSKldAAAABlBMVEX///8UPNyyez/SAAAAGklEQVR42mNgoDaw////"
    "/x8GJihvlEalqQ0APYAEf9z1FWQAAAAASUVORK5CYII="
)
