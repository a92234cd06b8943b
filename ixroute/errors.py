"""What goes wrong for a reason that the user can mend."""


class UserError(Exception):
    """Its text is one line that says what is wrong and what to do. The command prints it and exits with 1."""


class UsageError(UserError):
    """Flags that do not go together: exit code 2."""
