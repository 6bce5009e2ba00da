"""The museum's exhibits with several seeds: the recorder runs what the page runs, and the page's sentences hold."""

import ast
import json
import math
import statistics
from statistics import fmean, stdev

import pytest
import torch
from data_scripts import load
from page_prose import code_cell, prose

from lab_utils.errors import LabError
from lab_utils.finetune.answer_loss import build_supervised
from lab_utils.finetune.batches import collate
from lab_utils.finetune.supervision import Encoded
from lab_utils.lora import digits
from lab_utils.recorded import museum_runs
from lab_utils.recorded.museum import as_line
from lab_utils.sweep.differences import compare

PAGE = "A_failure_museum.ipynb"
recorder = load("record_museum_seeds")


def page_function(name: str, **given):
    """A function of the page, with the names that it finds there."""
    tree = ast.parse(code_cell(PAGE, f"def {name}(").replace("%matplotlib inline", ""))
    (found,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    names = {"torch": torch, "math": math, "digits": digits, "fast": True} | given
    exec(compile(ast.Module([found], []), PAGE, "exec"), names)
    return names[name]


# The recorder: seed 0 is the page's run, and it goes on where it stopped.


@pytest.mark.parametrize("how", [{"clip": 0.1}, {"warmup": 3}])
def test_the_recorder_trains_as_the_page_does(tiny_llama, how):
    from types import SimpleNamespace

    given = [collate([Encoded([5, 6, 7, 8, 9, 2], 3), Encoded([10, 11, 12, 2], 2)], 2)]
    page = page_function("train", finetune=SimpleNamespace(build_supervised=build_supervised))
    found = page(tiny_llama(), given, 1e-3, steps=4, **how)
    assert found == recorder.train(tiny_llama(), given, 1e-3, steps=4, **how) and found[0][0] != found[0][-1]


def test_the_recorder_reads_digits_as_the_page_does():
    from lab_utils import lora

    losses, _ = page_function("read_mirrored", lora=lora)(torch.bfloat16, divided_by=2**14)
    found = recorder.run_underflows(0, torch.bfloat16, 2**14, 5e-3, steps=20)
    assert (found["first"], found["lowest"], found["last"]) == (losses[0], min(losses), losses[-1])
    other = recorder.run_underflows(1, torch.bfloat16, 2**14, 5e-3, steps=1)
    assert other["first"] != found["first"]
    wanted = page_function("gradient_of", lora=lora)(digits.adapted(rank=4, alpha=8), torch.float32, 1)
    alike = torch.cosine_similarity(recorder.gradient(0, torch.float16, 2**14), wanted, dim=0)
    assert float(alike) == pytest.approx(museum_runs(6)["float16, loss / 16,384, rate 0.005"][0]["cosine"], abs=1e-3)


def test_the_recorder_teaches_the_experts_as_the_page_does():
    import transformers

    from lab_utils.quiet import quiet

    sizes = {"num_local_experts": 4, "head_dim": 8, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
    built = page_function("tiny_moe", transformers=transformers, quiet=quiet)(**sizes)
    known, other = (torch.randperm(48, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    last = page_function("teach")(built, known, 1e-2, 3)
    model, table = recorder.mixture(0, steps=3)
    assert torch.equal(table, other) and math.isfinite(last)
    for one, same in zip(model.parameters(), built.parameters(), strict=True):
        assert torch.equal(one, same)
    recorder.mixture.cache_clear()


def test_a_stopped_recording_goes_on_seed_by_seed_and_is_whole():
    everything = recorder.missing([])
    assert [seed for *_, seed in everything] == sorted(seed for *_, seed in everything)
    first = dict(zip(("exhibit", "arm", "seed"), everything[0], strict=True))
    assert recorder.missing([first]) == everything[1:]
    assert {exhibit for exhibit, *_ in recorder.missing([], ["6"])} == {6}
    recorded = [(exhibit, arm, len(runs)) for exhibit in (2, 6, 8, 12) for arm, runs in museum_runs(exhibit).items()]
    assert sorted(recorded) == sorted((exhibit, arm, seeds) for (exhibit, arm), (*_, seeds) in recorder.RUNS.items())


def test_a_line_keeps_four_digits():
    assert json.loads(as_line({"arm": "a", "seed": 3, "x": 12.34567, "y": 1.23456e-7, "z": [0.123456]})) == {
        "arm": "a", "seed": 3, "x": 12.3457, "y": 1.235e-7, "z": [0.1235],
    }  # fmt: skip


@pytest.mark.parametrize("text", [
    "", '{"exhibit": 6}', '{"exhibit": 6, "arm": "a", "seed": 1}',
    '{"exhibit": 6, "arm": "a", "seed": 0}\n{"exhibit": 6, "arm": "a", "seed": 0}',
    '{"exhibit": 6, "arm": "a", "seed": 0, "losses": [NaN]}', '{"exhibit": 6, "arm": "a", "seed": 0, "last": "x"}',
])  # fmt: skip
def test_damaged_seeds_say_how_to_restore_them(tmp_path, text):
    (tmp_path / "seeds.jsonl").write_text(text)
    with pytest.raises(LabError, match=r"git checkout -- data/museum.*record_museum_seeds\.py"):
        museum_runs(6, tmp_path / "seeds.jsonl")
    with pytest.raises(LabError, match="no run of exhibit 3"):
        museum_runs(3)


# What the page says of the recorded runs is so.


def last(exhibit: int, arm: str) -> list[float]:
    """The last loss of each seed; of exhibit 6 and 12 recorded by itself."""
    return [run["last"] if "last" in run else run["losses"][-1] for run in museum_runs(exhibit)[arm]]


def ratios(by: str, rate: str = "0.005") -> list[float]:
    """float16's last loss in units of bfloat16's, of each seed, with one divisor and rate."""
    narrow, wide = (last(6, f"{dtype}, loss / {by}, rate {rate}") for dtype in ("float16", "bfloat16"))
    return [one / other for one, other in zip(narrow, wide, strict=True)]


def cosines(by: str) -> list[float]:
    return [run["cosine"] for run in museum_runs(6)[f"float16, loss / {by}, rate 0.005"]]


def explosions(arm: str) -> list[tuple]:
    """(step of the alarm, step above the start, highest and last loss) of each seed, by the page's own functions."""
    usual_norm, alarm, jump = (page_function(name, statistics=statistics) for name in ("usual_norm", "alarm", "jump"))
    runs = museum_runs(8)
    usual = [usual_norm(run["norms"]) for run in runs["5e-3"]]
    return [(alarm(run["norms"], own), jump(run["losses"]), max(run["losses"]), run["losses"][-1])
            for run, own in zip(runs[arm], usual, strict=True)]  # fmt: skip


def experts(way: str) -> list[float]:
    """The last losses at a way's best rate."""
    return min((last(12, arm) for arm in museum_runs(12) if arm.startswith(f"{way}, rate")), key=sum)


def without_experts(way: str) -> list[float]:
    """How much higher a way ends than the adapter with experts, seed by seed."""
    return [one - other for one, other in zip(experts(way), experts("and target_parameters"), strict=True)]


def t_low(values: list[float]) -> float:
    """The lower end of Student's 95 % interval of a mean of five."""
    assert len(values) == 5
    return fmean(values) - 2.776 * stdev(values) / math.sqrt(5)


def more_on_all_tokens():
    return compare(*([run["held_out"] for run in museum_runs(2)[kind]] for kind in ("answers", "all tokens")))


def curves(kind: str) -> float:
    return fmean(fmean(run["losses"][-8:]) for run in museum_runs(2)[kind])


def lengths() -> list[list[float]]:
    """How long each step of the page's run at 5e-2 is, unclipped and clipped."""
    return [museum_runs(8)[arm][0]["lengths"] for arm in ("5e-2", "5e-2, clipped at 1")]


CLAIMS = {
    "its loss falls from 4.4 to 1.5 and stays high, and yet the answers are nearly learned (0.02 nats per token). And "
    "the prompts' part of the gradient is 6.6 times the answers'": lambda: [
        (round(run["losses"][0], 1), round(fmean(run["losses"][-8:]), 1), round(run["answer"], 2),
         round(run["prompt_pull"] / run["answer_pull"], 1)) for run in museum_runs(2)[recorder.WHOLE]
    ] == [(4.4, 1.5, 0.02, 6.6)],
    "The two curves differ by more than a nat; the held-out answers, which are what matters, by a few tenths":
        lambda: curves("all tokens") - curves("answers") > 1 and 0.1 < more_on_all_tokens().mean < 0.5,
    "At this rate and after these 40 steps the run on all tokens has learned the answers a little less well, clearly "
    "so over seeds and messages": lambda: more_on_all_tokens().clear and more_on_all_tokens().low > 0,
    "At 16,384 the cosine is 0.77 or less, and float16 ends at more than twice bfloat16's loss with all five seeds, at "
    "each of the three rates": lambda: max(cosines("16,384")) < 0.775 and len(cosines("16,384")) == 5
        and all(min(ratios("16,384", rate)) > 2 for rate in ("0.001", "0.005", "0.02")),
    "at 5e-3 the loss comes back up from its lowest value with four seeds": lambda: sum(
        run["last"] > 1.01 * run["lowest"] for run in museum_runs(6)["float16, loss / 16,384, rate 0.005"]) == 4,
    "At 65,536 the whole gradient is zero, and nothing moves": lambda: set(cosines("65,536")) == {0.0} and all(
        run["first"] == run["last"] for run in museum_runs(6)["float16, loss / 65,536, rate 0.005"]),
    "at 4,096 the cosine is 0.98 or more, and float16 still ends above bfloat16 with every seed, by 14 to 175 %":
        lambda: min(cosines("4,096")) > 0.98
        and [round(100 * (pick(ratios("4,096")) - 1)) for pick in (min, max)] == [14, 175],
    "Under a GradScaler the divided loss ends within 2 % of bfloat16's, with all five recorded seeds": lambda: all(
        abs(one / other - 1) < 0.02 for one, other in zip(
            *(last(6, f"{arm[0]}, loss / 16,384, {arm[1]}")
              for arm in (("float16", "GradScaler"), ("bfloat16", "rate 0.005"))), strict=True)),
    "With all three seeds 5e-3 gives no alarm, never rises above its start, and ends lowest":
        lambda: [one[:2] for one in explosions("5e-3")] == [(None, None)] * 3 and all(
            max(last(8, "5e-3")) < min(last(8, arm)) for arm in recorder.EXPLODES if arm != "5e-3"),
    "At 5e-2, clipped or not, the alarm comes at step 2, and the loss is above its start one or two steps later":
        lambda: all(one[0] == 2 and one[1] - 2 in (1, 2)
                    for arm in ("5e-2", "5e-2, clipped at 1") for one in explosions(arm)),
    "At 2e-2 alarm and jump come together": lambda: all(one[0] == one[1] for one in explosions("2e-2")),
    "At 5e-2 the jump comes later with each seed; its peak is lower with two seeds (49 and 38 instead of 119 and 84), "
    "and the same with the third (76)": lambda: all(
        put_off[1] > plain[1] for put_off, plain in zip(explosions("5e-2, warm-up"), explosions("5e-2"), strict=True)
    ) and [[round(one[2]) for one in explosions(arm)] for arm in ("5e-2, warm-up", "5e-2")]
        == [[49, 38, 76], [119, 84, 76]],
    "At 2e-2 one seed looks fixed; with the other two the loss falls to 5 and 6, and in the second half of the run it "
    "comes back up, to 19 and 17": lambda: [(round(min(run["losses"])), round(run["losses"][-1]))
                                            for run in museum_runs(8)["2e-2, warm-up"]] == [(5, 6), (5, 19), (6, 17)],
    "of the three runs at 5e-2 the clipped one has the highest peak and the lowest end, with each seed": lambda: all(
        clipped[3] < min(other[3] for other in others) and clipped[2] > max(other[2] for other in others)
        for clipped, *others in zip(*map(explosions, ("5e-2, clipped at 1", "5e-2", "5e-2, warm-up")), strict=True)),
    "both arms' steps shrink to about a tenth of the first, and the two lengths stay within a quarter of each other":
        lambda: all(0.08 < one[-1] / one[0] < 0.13 for one in lengths()) and all(
            0.75 < clipped / plain < 1.25 for plain, clipped in zip(*lengths(), strict=True)),
    "Without experts the adapter ends higher with every recorded seed. At rank 8": lambda: all(
        min(without_experts(way)) > 0 for way in ("all-linear", "all-linear, rank 32")),
    "(one ends no better than a guess) that the interval of the difference includes zero: not clear":
        lambda: t_low(without_experts("all-linear")) < 0
        and sum(one > math.log(48) for one in experts("all-linear")) == 1,
    "At rank 32, which trains more numbers than the last run does, the difference is clear":
        lambda: t_low(without_experts("all-linear, rank 32")) > 0,
    "for rank 32 that is the lowest of the three": lambda: experts("all-linear, rank 32")
        == last(12, "all-linear, rank 32, rate 0.003"),
}  # fmt: skip


@pytest.mark.parametrize("sentence", CLAIMS, ids=range(len(CLAIMS)))
def test_the_page_says_what_was_recorded(sentence):
    assert sentence in prose(PAGE) and CLAIMS[sentence]()
