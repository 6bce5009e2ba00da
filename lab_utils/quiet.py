"""Keep the libraries' progress bars and known, harmless warnings off the page."""

import contextlib
import logging
import warnings


class _Harmless(logging.Filter):
    """Drop the one bitsandbytes warning about a kernel that only the hub has."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "gemm_4bit_forward" not in record.getMessage()


@contextlib.contextmanager
def quiet():
    """Inside: no bars from transformers, no note on the hub's CPU kernel, none on renamed attributes."""
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    harmless = _Harmless()
    logger.addFilter(harmless)
    from transformers.utils import logging as transformers_logging

    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
            yield
    finally:
        logger.removeFilter(harmless)
        if bars:
            transformers_logging.enable_progress_bar()
