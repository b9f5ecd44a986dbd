"""Cross-modal search: a folder's audio, images and videos in the joint space, nearest first.

from anymodal.classifier.model import ModalityAgnosticClassifier
from anymodal.search import Index, update

classifier = ModalityAgnosticClassifier.load("artifacts/classifier")
update("recordings", "index", classifier)
index = Index.open("index")
for hit in index.find(classifier, "photo.jpg", k=5, modality="audio"):
    print(hit.rank, hit.cosine, hit.path)
"""

from anymodal.search.index import Hit, Index
from anymodal.search.query import query_vector
from anymodal.search.updating import Report, update

__all__ = ["Hit", "Index", "Report", "query_vector", "update"]
