"""Is there a way to the Hugging Face hub, and to other hosts?"""

import os

A_FILE = "HuggingFaceTB/SmolLM2-360M-Instruct/resolve/main/config.json"  # of the smallest model that a page may ask for


def hub_reachable(timeout_seconds: float = 2.0) -> bool:
    """Does the Hugging Face hub answer, asked as its own client asks?

    That is the hub in `HF_ENDPOINT`, through the proxies of the environment, and never where `HF_HUB_OFFLINE` is set.
    """
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
        return False
    try:
        from huggingface_hub import constants
        from huggingface_hub.utils import get_session

        return _is_answer(get_session().head(f"{constants.ENDPOINT}/{A_FILE}", timeout=timeout_seconds).status_code)
    except Exception:  # of the client's library, which has been another before; a proxy's address that is none
        return False


def answers(host: str, timeout_seconds: float = 2.0) -> bool:
    """Does a host answer over HTTPS, asked through the proxies of the environment?"""
    try:
        import requests

        return _is_answer(requests.head(f"https://{host}", timeout=timeout_seconds).status_code)
    except Exception:  # requests raises a dozen types, and ValueErrors for what the environment says of proxies
        return False


def _is_answer(status: int) -> bool:
    """Is an HTTP status the host's own, and not that of a proxy or gateway that cannot reach it?"""
    return status < 500 and status not in (403, 407)
