"""The version, where files below the package's root may read it."""

__version__ = "0.1.0"
