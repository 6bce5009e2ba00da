"""Where each explorer is, and what of it is watched: for its browser tests and its benchmark."""

from dataclasses import dataclass
from pathlib import Path

CELL = 1  # of a notebook that `lay_out` made: the one that shows the explorer


@dataclass(frozen=True)
class ExplorerPage:
    """An explorer on its page.

    Attributes
    ----------
    notebook : name of the file that `lay_out` makes of its notebook; no two are the same
    variable : the explorer's name in it
    label : of the slider that is moved
    trait : what that slider sets
    watch : selector of the part that must change
    limit_ms : key press to changed pixels, 95th percentile
    number : pattern of a number that the browser's sentence and Python's `summary()` both state
    falls : bool, the trait's value falls as the slider goes to the right
    """

    notebook: str
    variable: str
    label: str
    trait: str
    watch: str
    limit_ms: float
    number: str
    falls: bool = False


PAGES = {
    "rank": ExplorerPage(
        "01_rank_one.ipynb", "explorer", "rank", "rank", ".lab-picture:nth-of-type(2) canvas", 30,
        r"relative error ([\d.]+)",
    ),
    "parameters": ExplorerPage(
        "02_counting_parameters.ipynb", "explorer", "rank", "rank", ".lab-parts", 30, r"([\d,]+) of [\d,]+ numbers"
    ),
    "lora": ExplorerPage(
        "03_lora_from_scratch.ipynb", "explorer", "training step", "step",
        ".lab-product .lab-picture:last-child canvas", 30, r"update is ([\d.]+)",
    ),
    "trainer": ExplorerPage(
        "04_rank_and_alpha.ipynb", "trainer", "rank", "rank", "polyline.blue", 50, r"loss ([\d.]+) after"
    ),
    "quantizer": ExplorerPage(
        "05_quantization.ipynb", "explorer", "bits", "bits", ".lab-plot:nth-of-type(2) svg", 30,
        r"relative error ([\d.]+)",
    ),
    "sentences": ExplorerPage(
        "05_whole_model.ipynb", "reader", "bits", "bits", ".lab-plot svg", 30, r"loss ([\d.]+) nats"
    ),
    "codes": ExplorerPage(
        "06_nf4.ipynb", "explorer", "block", "blocksize", ".lab-levels svg", 30, r"relative error ([\d.]+)"
    ),
    "budget": ExplorerPage(
        "07_memory_budget.ipynb", "explorer", "tokens", "sequence_length", ".lab-memory", 30, r"([\d.]+) GiB of"
    ),
    "sweep": ExplorerPage(
        "09_choosing_hyperparameters.ipynb", "explorer", "B", "second", ".lab-plot:nth-of-type(2) svg", 30,
        r"both sets ([-+][\d.]+)",
    ),
    "merge": ExplorerPage(
        "10_merge_and_serve.ipynb", "explorer", "ΔW, % of W", "percent", ".lab-plot svg", 30,
        r"([\d.]+) ?% of the update arrives",
    ),
    "variants": ExplorerPage(
        "11_lora_variants.ipynb", "explorer", "learning rate", "rate", ".lab-plot:nth-of-type(2) svg", 30,
        r"loss from ([\d.]+)",
    ),
    "pictures": ExplorerPage(
        "12_beyond_text.ipynb", "explorer", "rank", "rank", ".lab-sample canvas:last-child", 30,
        r"from the base's by ([\d.]+)",
    ),
    "cluster": ExplorerPage(
        "13_many_machines.ipynb", "explorer", "processes", "processes", ".lab-plot svg", 30, r"sends ([\d.]+)"
    ),
    "conversations": ExplorerPage(
        "14_your_own_data.ipynb", "explorer", "chat", "chat", ".lab-chat-tokens", 60, r"Chat \d+: (\d+) tokens"
    ),
    "strength": ExplorerPage(
        "15_what_it_forgot.ipynb", "explorer", "strength", "strength", ".lab-plot:nth-of-type(2) svg", 30,
        r"the skill costs ([\d.]+)",
    ),
    "skill": ExplorerPage(
        "15_equal_skill.ipynb", "at_equal_skill", "common loss on the skill", "loss", ".lab-plot svg", 30,
        r"has paid ([-+][\d.]+)", falls=True,
    ),
    "pairs": ExplorerPage(
        "16_pairs.ipynb", "both_answers", "step", "step", ".lab-plot svg", 30, r"margin is (-?[\d.]+)",
    ),
    "rewards": ExplorerPage(
        "16_preferences_and_rewards.ipynb", "explorer", "step", "step", ".lab-answers tbody", 60,
        r"right answer from ([\d.]+)",
    ),
}  # fmt: skip


def lay_out(folder: Path) -> None:
    """Make `folder`, with a notebook for each page: its explorer, and of the page's cells those that it needs."""
    import nbformat

    from lab_utils.classroom import presented

    folder.mkdir()
    for name, page in PAGES.items():
        nbformat.write(presented.page_notebook(*presented.select([name])), folder / page.notebook)
