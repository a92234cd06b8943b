"""The Python that runs the tests, with the package under test and its C, in the guest."""

from __future__ import annotations

import sys

from ixroute._dataplane import ffi, lib
from lab.guest.inside import ok, value

ok("extension_loads", bool(ffi and lib))
value("python", sys.version.split()[0])
