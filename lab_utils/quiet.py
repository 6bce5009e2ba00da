"""Keep the libraries' progress bars and known, harmless warnings off the page."""

import contextlib
import functools
import inspect
import logging
import warnings

LOGGERS = {  # who says it -> a part of it
    "bitsandbytes.backends.cpu.ops": "gemm_4bit_forward",  # a kernel that only the hub has
    "diffusers.models.modeling_utils": "should be kept in float32: []",  # so none should
    "transformers.utils.import_utils": "requires torchvision",  # the version for PIL does
}
SECOND_ADAPTER = "Already found a `peft_config` attribute"  # meant for those who do not know


class _Harmless(logging.Filter):
    """Drop the warnings in LOGGERS."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not any(known in record.getMessage() for known in LOGGERS.values())


@contextlib.contextmanager
def compiling_later():
    """Inside: `torch.compile` of a function waits for the function's first call.

    bitsandbytes has four functions compiled when it is imported, for which torch imports its whole compiler: a fifth of
    the processor time that importing peft takes.
    """
    import torch

    compiling = torch.compile
    torch.compile = functools.partial(_compile_later, compiling)
    try:
        yield
    finally:
        torch.compile = compiling


def _compile_later(compiling, function=None, **options):
    """`torch.compile` (`compiling`) of a function, called when the function first is; of anything else, at once."""
    if function is None:
        return functools.partial(_compile_later, compiling, **options)
    if not inspect.isfunction(function):
        return compiling(function, **options)
    compiled = functools.cache(lambda: compiling(function, **options))
    return functools.wraps(function)(lambda *inputs, **named: compiled()(*inputs, **named))


@contextlib.contextmanager
def quiet():
    """Inside: no bars from transformers, no note on the hub's CPU kernel, renamed attributes or a second adapter.

    What is imported inside is compiled later: see `compiling_later`.
    """
    loggers, harmless = [logging.getLogger(name) for name in LOGGERS], _Harmless()
    for logger in loggers:
        logger.addFilter(harmless)
    from transformers.utils import logging as transformers_logging

    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        with compiling_later(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
            warnings.filterwarnings("ignore", message=SECOND_ADAPTER)
            yield
    finally:
        for logger in loggers:
            logger.removeFilter(harmless)
        if bars:
            transformers_logging.enable_progress_bar()
