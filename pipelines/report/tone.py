"""Colours by their lightness: what an arm's colour becomes on a dark page.

L* is CIE 1976 lightness under D65, 0 (black) to 100 (white); a* and b* stay, so hue and the distances between arms do.
Arms have an L* of 21 to 61, a contrast of at least 3 with white; lifted, at least 3 with the dark page.
"""

import numpy as np

LIFT, DARKEST = 22.0, 44.0  # L* that a dark page adds, and the least that it shows
XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]])
WHITE = XYZ.sum(axis=1)
KNEE = 6 / 29


def lifted(color: str) -> str:
    """An sRGB hex colour as the dark page shows it, clipped to what a screen can show."""
    lightness, a, b = _lab(color)
    return _hex(np.array([max(lightness + LIFT, DARKEST), a, b]))


def _lab(color: str) -> np.ndarray:
    channels = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    ratio = XYZ @ linear / WHITE
    f = np.where(ratio > KNEE**3, np.cbrt(ratio), ratio / (3 * KNEE**2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def _hex(lab: np.ndarray) -> str:
    middle = (lab[0] + 16) / 116
    f = np.array([middle + lab[1] / 500, middle, middle - lab[2] / 200])
    xyz = WHITE * np.where(f > KNEE, f**3, 3 * KNEE**2 * (f - 4 / 29))
    linear = np.clip(np.linalg.solve(XYZ, xyz), 0, 1)
    channels = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return "#" + "".join(f"{round(float(channel) * 255):02x}" for channel in channels)
