"""The trained classifier: windows → probabilities → prediction, with calibration and unknowns."""
