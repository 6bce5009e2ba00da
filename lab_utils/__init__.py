"""LoRA Lab: the tested library behind the notebooks. Each subject has a door, from which pages import.

    door         pages                             the question it answers                      for example
    lowrank      01, 03, 04, 06, 10, 11, 13        What can a matrix of low rank hold?          best_rank_r
    counts       02, 07, 08, 12, A                 How many parameters train, on which model?   lora_parameters
    lora         03, 04, 11, A                     What exactly is trained?                     LoRALinear, inject
    quantize     05, 12                            What is lost when 16 bits become 8?          quantize_absmax
    nf4          06, 07                            Why these sixteen numbers?                   nf4_code, quantize_4bit
    memory       07, 08, 11–13, A                  Will it fit?                                 estimate
    models       00, 01, 05–10, 14–16, A           Which base models are there, what runs here? load_base
    tasks        08, 10, 14, 16, A                 What is it trained to do, on which data?     load_task, own
    finetune     00, 07, 08, 12, 14–16, A          How do I train it?                           Recipe, finetune
    evaluate     05, 08, 10, 14–16, A              How good are its answers?                    score
    scores       01, 05, 08–10, 14–16, A          How sure is a score?                         wilson
    report_card  14                                Was it worth it?                             report_card
    sweep        01, 03, 04, 09, 11, 12, 14, 16, A Which rank, alpha, layers, data type?        load_sweep
    retention    15, 16                            What did the model pay for its new skill?    read_all, at_strength
    facts        15                                Is a fact better learned or looked up?       Retriever
    preferences  16                                How do I teach what I can judge, not write?  dpo_loss, reward
    merging      10, A                             What do I ship?                              merge
    serving      00, 10, 15, A                     How do many adapters share one base?         AdapterBank
    variants     11                                What came after LoRA?                        VARIANTS
    beyond_text  12                                Does it work on pictures?                    painter.paint
    machines     13                                What changes on many machines?               sharding
    recorded     01, 04, 05, 07–12, 14, A          What did earlier runs measure?               weight_update
    checks       01–16                             Is my solution right?                        check, hint
    plots        01–16, A                          What does that look like?                    lines
    widgets      00–16, A                          What happens when I move it?                 rank_explorer

So `best_rank_r` is imported by `from lab_utils.lowrank import best_rank_r`, and `painter.paint` by
`from lab_utils.beyond_text.painter import paint`.

`import lab_utils` loads nothing heavy: torch and transformers are imported where they are used. In a notebook, and only
there, it also makes a NameError say which cell to run (`notebook.name_errors`), because the first cell of every page
imports from here, and it lets cells begin with `%%needs` (`notebook.extras`).
"""

import sys

__version__ = "0.1.0"

if "IPython" in sys.modules:
    from .notebook import extras, name_errors

    name_errors.install()
    if _shell := getattr(sys.modules["IPython"], "get_ipython", lambda: None)():  # not there yet while IPython loads
        extras.load_ipython_extension(_shell)
