"""Music classifiers that take whatever modality is at hand: a sound, a picture, a video.

An implementation of "Exploring modality-agnostic representations for music classification"
(Wu, Fuentes, Bello; SMC 2021, arXiv:2106.01149).
"""

__version__ = "0.1.0"
