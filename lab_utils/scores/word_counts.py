"""What costs a second: labels from the words of a message alone, by its nearest neighbour or by a linear classifier."""

from collections.abc import Callable, Mapping, Sequence

from ..errors import LabError
from ..tasks import OwnTask

READ = 50_000  # rows of training that are counted
Answerer = Callable[[Sequence[Mapping]], list[str]]


def nearest(own: OwnTask) -> Answerer:
    """A function of rows: to each the answer of the training row whose words are most like it (retrieval).

    Single words and pairs count, the rarer the more (TF-IDF); alike is the cosine of the angle between two rows.

    Parameters
    ----------
    own : OwnTask of prompts and answers

    Returns
    -------
    function, rows of {"prompt"} -> list of str

    Raises
    ------
    LabError
        The task is one of conversations.
    """
    from sklearn.neighbors import KNeighborsClassifier

    return _fitted(own, KNeighborsClassifier(1, metric="cosine"))


def word_classifier(own: OwnTask) -> Answerer:
    """A function of rows: to each the label that a logistic regression on its weighted words (TF-IDF) gives it.

    Parameters
    ----------
    own : OwnTask whose answers are labels

    Returns
    -------
    function, rows of {"prompt"} -> list of str

    Raises
    ------
    LabError
        The answers are not labels, or training has one label only.
    """
    from sklearn.linear_model import LogisticRegression

    check_labels(own)
    return _fitted(own, LogisticRegression(C=10, max_iter=1000))


def one_thread():
    """A context: inside, numpy and scipy multiply matrices on one thread.

    Fitting a linear classifier to some thousand rows is thousands of small products, after each of which threads wait
    for each other: with two of them, on two busy cores, the probe of page 14 took fifty times the processor time.

    Returns
    -------
    context manager; afterwards both have as many threads as before. torch's threads are left as they are.

    Examples
    --------
    >>> from threadpoolctl import threadpool_info
    >>> with one_thread():
    ...     {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
    {1}
    """
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1, user_api="blas")


def check_labels(own: OwnTask) -> None:
    """Raise a LabError unless a classifier can be trained on a task: its answers are labels, two of them at least."""
    if own.metric != "labels":
        raise LabError(f"The answers of {own.name!r} are not labels: a classifier has nothing to choose from.")
    if not can_classify(own):
        raise LabError(f"All training rows of {own.name!r} have one label: give rows of two labels or more.")


def can_classify(own: OwnTask) -> bool:
    """Are a task's answers labels, two of them at least in training?"""
    return own.metric == "labels" and len(set(own["train"][:READ]["answer"])) > 1


def _fitted(own: OwnTask, classifier) -> Answerer:
    """A classifier of TF-IDF vectors, trained on the task's training rows."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline

    if own.kind != "answers":
        raise LabError(f"{own.name!r} is of conversations: give a task of prompts and answers.")
    rows = own["train"][:READ]
    words = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b", ngram_range=(1, 2))
    try:
        with one_thread():
            model = make_pipeline(words, classifier).fit(rows["prompt"], rows["answer"])
    except ValueError as error:
        raise LabError(f"The training prompts of {own.name!r} have no words to count ({error}).") from error
    return lambda rows: [str(answer) for answer in model.predict([row["prompt"] for row in rows])] if len(rows) else []
