"""What Lambda Server and rapid must agree on: names, limits, errors and the two wire codecs.

A module lives here only if both programs import it.
"""

from __future__ import annotations

#: Of both programs; setup.cfg and scripts/build-images read it from here.
__version__ = "0.1.0"
