"""The strength explorer: its sentences are Python's in the browser, and it reads out measured points only."""

import pytest
from shown import node, shown
from strength_curves import STRENGTHS, curve, strength_explorer

from lab_utils.errors import LabError
from lab_utils.widgets.strength_explorer import OTHERS, StrengthExplorer


def test_the_sentence_is_what_was_measured():
    explorer = strength_explorer()
    said = explorer.summary()
    assert "Strength 1.00: the skill costs 1.250 nats per token (base 3.150), and 75 % of 4 messages" in said
    assert "prose is +0.200 nats above the base's (95 % interval +0.200 to +0.200, 1 seed, 3 texts)" in said
    explorer.measured_on, explorer.strength = "questions", 0.5
    assert "questions is -0.006 nats" in explorer.summary()
    assert StrengthExplorer([curve(), curve(1)]).summary().count("2 seeds") == 1


@pytest.mark.skipif(node() is None, reason="no node and no Playwright")
def test_the_browser_says_the_same_at_every_setting():
    explorer = strength_explorer()
    moves = [{"strength": strength, "measured_on": kind} for kind in OTHERS for strength in STRENGTHS]
    for move, seen in zip(moves, shown(explorer, moves), strict=True):
        for name, value in move.items():
            setattr(explorer, name, value)
        assert seen["sentence"] == explorer.summary()


def test_what_was_not_measured_is_refused():
    explorer = strength_explorer()
    for name, value, message in (("strength", 0.3, "not measured"), ("measured_on", "skill", "measured_on")):
        with pytest.raises(LabError, match=message):
            setattr(explorer, name, value)
    with pytest.raises(LabError, match="Curves of strength"):
        StrengthExplorer([])
