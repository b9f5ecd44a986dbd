"""The web page of a classifier: `anymodal app`."""
