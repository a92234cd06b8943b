"""The commands, one module each: `add` makes the parser, `run` does the work and returns the exit code.

A module imports at its top only what is cheap; what the daemon needs, the command that needs it imports.
"""
