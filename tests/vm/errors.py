"""What can go wrong in the two-machine lab."""


class LabError(Exception):
    """Something in the lab is wrong."""


class LabUnavailableError(LabError):
    """This machine lacks what the lab needs."""
