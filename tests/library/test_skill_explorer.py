"""The skill explorer: the browser computes what Python computes, and what is not there is refused."""

import pytest
from shown import node, shown
from skill_runs import arms, learned, skill_explorer

from lab_utils import retention
from lab_utils.errors import LabError
from lab_utils.widgets.skill_explorer import SkillExplorer
from lab_utils.widgets.strength_explorer import OTHERS


def test_the_sentence_says_what_was_paid_and_who_is_not_there():
    explorer = SkillExplorer(arms(), loss=0.5, arm="dear", against="cheap")
    found = explorer.found()
    told = f"dear has paid {found['dear'].rise.mean:+.3f} ({found['dear'].rise.low:+.3f} to"
    assert explorer.summary().startswith("Loss 0.500, 4 texts of questions") and told in explorer.summary()
    assert f"Difference {found['dear'].less.mean:+.3f} (" in explorer.summary() and "): clear." in explorer.summary()
    assert "1 of 3 arms are not there with all seeds" in explorer.summary()
    explorer.arm = "slow"
    assert "slow is not there with 1 of its 2 seeds" in explorer.summary() and "Difference" not in explorer.summary()


@pytest.mark.skipif(node() is None, reason="no node and no Playwright")
@pytest.mark.parametrize("made", [skill_explorer, lambda: SkillExplorer({
    name: runs for name, runs in retention.load_forgetting().items() if name in ("LoRA r=1", "full", "KL")
})], ids=["made up", "recorded"])  # fmt: skip
def test_the_browser_says_the_same_at_every_setting(made):
    explorer = made()
    names = [one["name"] for one in explorer.arms]
    pairs = [(one, other) for one in names for other in (names[0], names[-1])]
    moves = [{"loss": loss, "measured_on": OTHERS[place % 3], "arm": arm, "against": against}
             for place, loss in enumerate(explorer.losses) for arm, against in pairs[place % 2 :: 2]]  # fmt: skip
    for move, seen in zip(moves, shown(explorer, moves), strict=True):
        for name, value in move.items():
            setattr(explorer, name, value)
        assert seen["sentence"] == explorer.summary()


def test_the_picture_has_both_paths_and_a_row_per_arm():
    explorer = SkillExplorer(arms(), loss=0.5, arm="dear", against="cheap")
    paths, rows = explorer.figure().axes
    assert [text.get_text() for text in paths.get_legend().get_texts()] == ["dear", "cheap"]
    assert [text.get_text() for text in rows.get_yticklabels()] == ["cheap", "dear", "slow"]
    assert [text.get_text() for text in rows.texts] == ["not there with all seeds"]


def test_what_is_not_there_is_refused():
    for name, value, message in (("loss", 0.33, "not a stop"), ("arm", "other", "arm"), ("measured_on", "skill", "me")):
        with pytest.raises(LabError, match=message):
            setattr(skill_explorer(), name, value)
    one = {"one": [learned("one", 0, (3.0, 1.0), 0.1)]}
    for some in (one, arms() | one, {}):
        with pytest.raises(LabError, match="two arms of two seeds"):
            SkillExplorer(some)
