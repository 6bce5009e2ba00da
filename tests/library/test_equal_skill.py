"""Arms at a common loss on the skill: by hand, against `rises` and `apart`, and what never gets there."""

import pytest
from skill_runs import arms, learned

from lab_utils import retention
from lab_utils.errors import LabError


def test_what_was_paid_is_read_on_the_line_between_two_checkpoints():
    """From 3.0 to 1.0 at 0.1 per nat: at 2.0 one nat is learned, and three texts paid 0.1, 0.11 and 0.12."""
    runs = [learned("one", seed, (3.0, 1.0), 0.1) for seed in (0, 0)]
    runs[1] = learned("one", 1, (3.0, 1.0), 0.1 / 1.05)  # as much as the other
    found = retention.paid_at({"one": runs, "two": runs}, 2.0, "prose", "two")["one"]
    assert found.rise.mean == pytest.approx(0.11) and found.less.mean == 0 and found.above == 0
    assert not found.less.clear


@pytest.mark.parametrize("loss", [0.9, 0.5, 0.146, 0.06])
def test_it_is_what_rises_and_apart_say_of_the_recorded_runs(loss):
    recorded = {name: runs for name, runs in retention.load_forgetting().items() if len(runs) > 1}

    def there(run):
        return retention.at_skill(run, loss)

    for kind in retention.KINDS[1:]:
        for name, found in retention.paid_at(recorded, loss, kind, "LoRA r=8").items():
            assert found.above == sum(there(run) is None for run in recorded[name])
            if found.above:
                assert found.rise is None and found.less is None
                continue
            rise = retention.rises(recorded[name], there)[kind]
            less = retention.apart(recorded["LoRA r=8"], recorded[name], there)[kind]
            for one, other in ((found.rise, rise), (found.less, less)):
                assert [one.mean, one.low, one.high] == pytest.approx([other.mean, other.low, other.high], abs=1e-12)
                assert (one.runs, one.texts, one.clear) == (other.runs, other.texts, other.clear)


def test_an_arm_with_a_seed_that_ends_above_is_not_there_and_nothing_is_compared_with_it():
    some = arms()
    found = retention.paid_at(some, 0.5, "questions", "cheap")
    assert (found["slow"].above, found["slow"].rise, found["slow"].less) == (1, None, None)
    assert found["dear"].less.clear and found["dear"].less.mean > 0
    found = retention.paid_at(some, 0.5, "questions", "slow")
    assert found["dear"].rise and not any(one.less for one in found.values())
    assert retention.paid_at(some, 0.7, "questions", "dear")["slow"].less.runs == 2  # the seeds of both
    with pytest.raises(LabError, match="Unknown against 'none'"):
        retention.paid_at(some, 0.5, "questions", "none")
    with pytest.raises(LabError, match="no seed in common"):
        retention.paid_at({"one": some["cheap"][:1], "two": some["cheap"][1:]}, 0.5, "questions", "one")


def test_the_stops_are_round_or_an_arms_last_and_all_arms_come_to_theirs():
    some = arms()
    assert [retention.lowest_common(runs) for runs in some.values()] == [0.2, 0.14, 0.6]
    found = retention.stops(some)
    assert found[0] == 1.0 and found[-1] == 0.14 and found == sorted(set(found), reverse=True)
    assert {0.5, 0.45, 0.2, 0.14} <= set(found)
    assert all(round(one, 3) == one for one in found)  # as a slider writes them
    recorded = retention.load_forgetting()
    for runs in recorded.values():
        last = retention.lowest_common(runs)
        assert None not in [retention.at_skill(run, last) for run in runs]
        assert None in [retention.at_skill(run, last - 0.001) for run in runs]
