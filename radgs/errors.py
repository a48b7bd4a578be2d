"""Errors by cause. Each message names the file, what is wrong and what to do; the CLI prints that one line."""


class RadgsError(Exception):
    """Something the user can mend: bad input, a missing file, an impossible setting."""


class ImageError(RadgsError):
    """A CT, label map or X-ray cannot be used as it is."""


class GeometryError(RadgsError):
    """Cameras or transforms are impossible or do not see what they should."""


class AnatomyError(RadgsError):
    """Vertebrae are missing, cut off, or labelled in a way that cannot be right."""


class ConfigError(RadgsError):
    """A setting or a sheet is wrong."""
