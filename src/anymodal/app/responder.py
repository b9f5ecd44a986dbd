"""From a file to what the page shows of it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gradio.components.plot import PlotData

from anymodal.app.answer import answer_html
from anymodal.app.joint_map import JointMap
from anymodal.app.media_folder import MediaFolder
from anymodal.app.neighbours import nearest_cards, neighbours_html
from anymodal.app.rendering import render
from anymodal.classifier.joint import item_vector
from anymodal.core.errors import AnymodalError
from anymodal.media.segmentation import SegmentedItem

if TYPE_CHECKING:
    from anymodal.classifier.model import ModalityAgnosticClassifier

Decode = Callable[[bytes, str], SegmentedItem]
"""Segments a file, given its bytes and its name, at the classifier's sample rate."""
Outputs = tuple[str, str, str, PlotData | None]
"""HTML of the answer, of its neighbours and of the map's text, and the map."""
NEIGHBOURS = 4
"""Training clips of each modality that are shown."""
_log = logging.getLogger(__name__)


class Responder:
    """Classifies files, one at a time; thread-safe."""

    def __init__(
        self, classifier: ModalityAgnosticClassifier, media: MediaFolder | None, decode: Decode
    ) -> None:
        self.classifier = classifier
        self._media = media
        self._decode = decode
        self._lock = threading.Lock()
        reference = classifier.reference
        # two points make a plane's axes
        self._reference = reference if reference is not None and len(reference.table) > 1 else None
        self.map = JointMap(self._reference) if self._reference is not None else None

    def waiting(self) -> Outputs:
        """The page without an item."""
        return self._without_item(render("waiting", classes=self.classifier.classes))

    def file(self, path: str | None) -> Outputs:
        """The page for an uploaded file."""
        return self._respond(path, Path(path or "").name)

    def recording(self, path: str | None) -> Outputs:
        """The page for a recording, whose file name means nothing to the user."""
        return self._respond(path, "your recording")

    def _without_item(self, answer: str) -> Outputs:
        if self.map is None:
            return answer, "", "", None
        return answer, "", self.map.html(), self.map.plot()

    def _respond(self, path: str | None, name: str) -> Outputs:
        if path is None:
            return self.waiting()
        try:
            return self._answer(path, name)
        except AnymodalError as error:
            message = str(error)
            if not message.startswith(name):
                message = f"{name}: {message}"
        except Exception:
            _log.exception("cannot classify a file")
            message = "The server failed, not your file; its log has the error."
        return self._without_item(render("error", message=message))

    def _answer(self, path: str, name: str) -> Outputs:
        classifier = self.classifier
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise AnymodalError("the server has deleted the file; send it again") from error
        item = self._decode(content, name)
        with self._lock:
            (answer,), (vectors,) = classifier.predict_and_embed([item])
        facts = classifier.calibrator.facts
        first = answer_html(answer, item, name, classifier.sample_rate, facts)
        if self._reference is None or self.map is None:
            return first, neighbours_html(answer, {}, False), "", None
        vector = item_vector(vectors, answer.modality)
        cards = nearest_cards(self._reference, vector, NEIGHBOURS, self._media)
        neighbours = [card.neighbour for modality in cards for card in cards[modality]]
        return (
            first,
            neighbours_html(answer, cards, self._media is not None),
            self.map.html(neighbours),
            self.map.plot(vectors, neighbours),
        )
