"""The Python that runs the tests, with the package under test and its C, in the guest."""

from __future__ import annotations

import sys

from lab.guest.inside import ok, value

from ixroute._dataplane import ffi, lib

ok("extension_loads", bool(ffi and lib))
value("python", sys.version.split()[0])
