"""What modalities, directions and regimes are called in figures and sentences."""

WAYS = ("audio_to_image", "image_to_audio")
WAY_NAMES = {"audio_to_image": "sound → picture", "image_to_audio": "picture → sound"}
THINGS = {"audio": "sounds", "image": "pictures"}
REGIME_NAMES = {"zero-shot": "zero-shot", "all": "all data"}
