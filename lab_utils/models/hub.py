"""Can the Hugging Face hub, or another host, be reached from here?"""

import os

A_FILE = "HuggingFaceTB/SmolLM2-360M-Instruct/resolve/main/config.json"  # of the smallest model that a page may ask for


def hub_reachable(timeout_seconds: float = 2.0) -> bool:
    """Does the Hugging Face hub answer, asked the way its own client does?

    That is the hub in `HF_ENDPOINT`, through the proxies of the environment; False if `HF_HUB_OFFLINE` is set.
    """
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
        return False
    try:
        from huggingface_hub import constants
        from huggingface_hub.utils import get_session

        return _is_answer(get_session().head(f"{constants.ENDPOINT}/{A_FILE}", timeout=timeout_seconds).status_code)
    except Exception:  # of the client's HTTP library, which has changed before; or a malformed proxy address
        return False


def answers(host: str, timeout_seconds: float = 2.0) -> bool:
    """Does a host answer over HTTPS, asked through the proxies of the environment?"""
    try:
        import requests

        return _is_answer(requests.head(f"https://{host}", timeout=timeout_seconds).status_code)
    except Exception:  # requests raises a dozen types, and ValueError for a malformed proxy address
        return False


def _is_answer(status: int) -> bool:
    """Is an HTTP status the host's own, rather than that of a proxy or gateway that cannot reach it?"""
    return status < 500 and status not in (403, 407)
