"""quiet: silent inside, everything as before outside."""

import logging
import warnings

import pytest
import torch

from lab_utils.quiet import quiet


def test_bars_and_the_known_warning_are_off_inside_and_back_after_an_error():
    from transformers.utils import logging as transformers_logging

    transformers_logging.enable_progress_bar()
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    filters = list(logger.filters)

    def passes(text):
        return bool(logger.filter(logging.makeLogRecord({"msg": text})))

    with pytest.raises(ZeroDivisionError), quiet():
        assert not transformers_logging.is_progress_bar_enabled()
        assert not passes("Failed to load CPU gemm_4bit_forward from kernels-community")
        assert passes("another trouble")
        _ = 1 / 0
    assert transformers_logging.is_progress_bar_enabled()
    assert logger.filters == filters and passes("Failed to load CPU gemm_4bit_forward from kernels-community")


def test_bars_that_were_off_stay_off():
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    try:
        with quiet():
            pass
        assert not transformers_logging.is_progress_bar_enabled()
    finally:
        transformers_logging.enable_progress_bar()


def test_other_warnings_still_come_through():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with quiet():
            warnings.warn("heard", UserWarning, stacklevel=1)
    assert [str(one.message) for one in caught] == ["heard"]


def test_inside_a_function_is_compiled_at_its_first_call_and_once(monkeypatch):
    """As bitsandbytes asks for it while it is imported: with and without settings; a model at once."""
    asked = []

    def compiling(model, **options):
        asked.append((getattr(model, "__name__", type(model).__name__), options))
        return lambda *inputs, **named: ("compiled", model(*inputs, **named))

    monkeypatch.setattr(torch, "compile", compiling)
    with pytest.raises(ZeroDivisionError), quiet():

        @torch.compile(dynamic=False)
        def halved(number, *, times=1):
            return number / 2**times

        @torch.compile
        def doubled(number):
            """Twice as much."""
            return 2 * number

        torch.compile(torch.nn.Identity(), mode="default")
        _ = 1 / 0
    assert torch.compile is compiling and asked == [("Identity", {"mode": "default"})]
    assert (doubled.__name__, doubled.__doc__) == ("doubled", "Twice as much.")
    assert halved(8, times=3) == halved(2) == ("compiled", 1.0) and doubled(2) == ("compiled", 4)
    assert asked[1:] == [("halved", {"dynamic": False}), ("doubled", {})]
