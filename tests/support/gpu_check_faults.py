"""Plant one fault after the other in what the check of a GPU looks at, and print what its sections then say.

    python tests/support/gpu_check_faults.py FOLDER     # a line of JSON: {fault: [section, status, text]}

On a pretended A100, which computes in both 16-bit dtypes; in a separate process, as every pretended card.
"""

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

from lab_utils.gpu_check.sections import SECTIONS, Setting
from lab_utils.gpu_check.worker import answer, prepare

CARD = "A100"


def another_code():
    """bitsandbytes on the card takes another code for one weight."""
    import bitsandbytes.functional as bnb

    quantize = bnb.quantize_4bit

    def wrong(weight, **options):
        packed, state = quantize(weight, **options)
        if weight.is_cuda:
            packed.view(-1)[0] ^= 16
        return packed, state

    return mock.patch.object(bnb, "quantize_4bit", wrong)


def larger_gradient():
    """The lab's loss is a third larger than the mean over the answers' tokens."""
    from lab_utils.finetune import trainer

    build = trainer.build_supervised

    def wrong(model):
        loss = build(model)
        forward = loss.forward
        loss.forward = lambda *arguments, **named: forward(*arguments, **named) * 4 / 3
        return loss

    return mock.patch.object(trainer, "build_supervised", wrong)


def half_the_estimate():
    """Page 07's estimate leaves half of it out."""
    from lab_utils.gpu_check import memory

    estimate = memory.estimate

    def wrong(*arguments, **named):
        said = estimate(*arguments, **named)
        return mock.Mock(total_bytes=said.total_bytes // 2, optimizer_bytes=said.optimizer_bytes)

    return mock.patch.object(memory, "estimate", wrong)


def unpaged():
    """The paged optimizer keeps its moments on the card."""
    import bitsandbytes.optim as optim

    return mock.patch.object(optim, "PagedAdamW8bit", optim.AdamW8bit)


def merge_takes_anything():
    """`merge` no longer refuses to merge into 4 bits."""
    from lab_utils.gpu_check import merges

    merge = merges.merge

    def wrong(model, probe, into, **named):
        return model if into == "4-bit" else merge(model, probe, into, **named)

    return mock.patch.object(merges, "merge", wrong)


def cell_that_fails():
    """A page has a cell that raises, and one after it that does not."""
    from lab_utils.gpu_check import pages

    cells = [{"cell_type": "code", "source": source} for source in ("x = 1", "%matplotlib inline\nx / 0", "x + 1")]
    return mock.patch.object(pages, "read_notebook", lambda _: mock.Mock(cells=cells))


FAULTS = {another_code: "codes", larger_gradient: "step", half_the_estimate: "memory", unpaged: "paged",
          merge_takes_anything: "merges", cell_that_fails: "page-01"}  # fmt: skip


def main(folder: Path) -> None:
    prepare(CARD)
    by_name, found = {section.name: section for section in SECTIONS}, {}
    for fault, name in FAULTS.items():
        (folder / name).mkdir()
        with ExitStack() as context:
            context.enter_context(fault())
            said = answer(by_name[name], Setting(CARD, folder / name))
        found[fault.__name__] = (name, said["status"], said["text"])
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
