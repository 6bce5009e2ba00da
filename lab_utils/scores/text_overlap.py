"""How much two texts have in common: token F1, and ROUGE-L by the package of its authors' employer."""

import re
import string
from collections import Counter

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)
WORD = re.compile(r"\w+")


def normalized(text: str) -> list[str]:
    """A text's words in small letters, without punctuation and articles, as SQuAD compares them."""
    return ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split()


def token_f1(output: str, answer: str) -> float:
    """The harmonic mean of precision and recall of an output's words, counted with their number.

    Returns
    -------
    float in [0, 1]; where one text has no word left, 1 if both have none and 0 otherwise

    Source: Rajpurkar et al. 2016 (SQuAD), section 6.1. https://arxiv.org/abs/1606.05250
    """
    said, wanted = normalized(output), normalized(answer)
    if not said or not wanted:
        return float(said == wanted)
    common = sum((Counter(said) & Counter(wanted)).values())
    return 2 * common / (len(said) + len(wanted))


class Words:
    """rouge-score's interface to a tokenizer. Its own one knows a to z and digits only; this one all letters."""

    def tokenize(self, text: str) -> list[str]:
        """A text's words in small letters."""
        return WORD.findall(text.lower())


_SCORERS: dict[str, object] = {}


def rouge_l(output: str, answer: str) -> float:
    """F1 of the longest common subsequence of words.

    Returns
    -------
    float in [0, 1]

    Source: Lin 2004 (ROUGE), section 3. https://aclanthology.org/W04-1013
    """
    from rouge_score.rouge_scorer import RougeScorer

    if "rougeL" not in _SCORERS:
        _SCORERS["rougeL"] = RougeScorer(["rougeL"], tokenizer=Words())
    return float(_SCORERS["rougeL"].score(answer, output)["rougeL"].fmeasure)
