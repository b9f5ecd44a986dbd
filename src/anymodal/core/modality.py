"""The two modalities, the length of a window, and when one is silent or blank."""

from __future__ import annotations

from typing import Literal

Modality = Literal["audio", "image"]
MODALITIES: tuple[Modality, ...] = ("audio", "image")
OTHER: dict[Modality, Modality] = {"audio": "image", "image": "audio"}

WINDOW_SECONDS = 1.0
"""Length of the audio that one embedding describes (paper, section 3.1)."""
SILENT_DBFS = -60.0
"""Audio whose root mean square is lower, in dB of full scale, counts as silent."""
BLANK_CONTRAST = 2.0
"""Images whose brightness (0 to 255) has a smaller standard deviation count as blank."""
