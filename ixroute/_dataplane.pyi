"""The extension module that cffi makes of door.h: what a name means is in the C headers."""

from typing import Any

ffi: Any
lib: Any
