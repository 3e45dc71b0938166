"""Errors that say what was wrong, where, and what to do about it. Every layer may raise them."""


class OrbitwiseError(Exception):
    """Base class. The command line prints the message on one line and exits with code 2."""


class InputError(OrbitwiseError, ValueError):
    """An input (file, SMILES, configuration, tensor) cannot be used as it is."""


class NoClosedFormError(OrbitwiseError, ValueError):
    """Asked for an exact result where none exists; the message names what to use instead."""


class EnergyError(OrbitwiseError, ValueError):
    """An energy is not finite, or a molecule cannot be parametrised."""


class MissingExtraError(OrbitwiseError, ImportError):
    """An optional package is missing; the message names the extra to install."""
