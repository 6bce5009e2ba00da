"""models.hub: is there a way to the hub, asked of servers and proxies on this machine."""

import http.server
import os
import socket
import subprocess
import sys
import threading

import pytest

from lab_utils.folders import ROOT
from lab_utils.models.hub import A_FILE, hub_reachable


@pytest.mark.parametrize("value", ["1", "true", "YES", "on"])
def test_offline_means_that_nobody_is_asked(monkeypatch, value):
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    monkeypatch.setattr(socket, "create_connection", lambda *_: pytest.fail("asked the network"))
    assert hub_reachable() is False


class Asked(http.server.BaseHTTPRequestHandler):
    """A hub, or a proxy, on this machine: notes what it is asked for and answers with the server's status."""

    def do_HEAD(self):
        self.server.asked.append(self.path)
        self.send_response(self.server.status)
        self.end_headers()

    do_CONNECT = do_HEAD

    def log_message(self, *_):
        pass


@pytest.fixture
def loopback():
    """A function that starts such a server and returns it."""
    servers = []

    def start(status: int = 200):
        server = http.server.HTTPServer(("127.0.0.1", 0), Asked)
        server.asked, server.status, server.address = [], status, f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def ask(question: str, **environment: str) -> str:
    """What a fresh process answers, with these settings of the network and no others.

    Fresh, for the hub's client reads them once; the file alone, for the door beside it loads torch.
    """
    function, _, asked = question.removesuffix(")").partition("(")
    names = ("HF_HUB_OFFLINE", "HF_ENDPOINT", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
    kept = {name: value for name, value in os.environ.items() if name.upper() not in names}
    code = f"from runpy import run_path; print(run_path('lab_utils/models/hub.py')[{function!r}]({asked}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env={**kept, **environment}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


@pytest.mark.parametrize(("status", "found"), [(200, True), (401, True), (404, True), (502, False)])
def test_the_hub_is_the_one_in_hf_endpoint(loopback, status, found):
    hub = loopback(status)
    assert ask("hub_reachable(20)", HF_ENDPOINT=hub.address) == str(found)
    assert len(hub.asked) == 1 and hub.asked[0].endswith("config.json")
    assert ask("hub_reachable(20)", HF_ENDPOINT=hub.address, HF_HUB_OFFLINE="1") == "False"
    assert len(hub.asked) == 1


def test_a_proxy_that_leads_out_is_used_and_no_proxy_is_honoured(loopback):
    """The hub's name exists for the proxy alone."""
    proxy = loopback()
    away = {"HF_ENDPOINT": "http://hub.invalid", "HTTP_PROXY": proxy.address}
    assert ask("hub_reachable(20)", **away) == "True"
    assert proxy.asked == [f"http://hub.invalid/{A_FILE}"]
    assert ask("hub_reachable(20)", **away, NO_PROXY="hub.invalid") == "False"
    assert len(proxy.asked) == 1


def test_a_proxy_that_lets_nothing_through_is_no_hub(loopback):
    proxy = loopback(407)
    assert ask("hub_reachable(20)", HF_ENDPOINT="http://hub.invalid", HTTP_PROXY=proxy.address) == "False"
    assert ask("hub_reachable(20)", HTTPS_PROXY=proxy.address) == "False"
    assert proxy.asked[-1] == "huggingface.co:443"
    assert ask("answers('kaggle.invalid', 20)", HTTPS_PROXY=proxy.address) == "False"
    assert proxy.asked[-1] == "kaggle.invalid:443"


@pytest.mark.parametrize(
    "environment",
    [{"HF_ENDPOINT": "nonsense"}, {"HF_ENDPOINT": "http://127.0.0.1:1"}, {"HTTPS_PROXY": "foo://bar"}],
)
def test_nonsense_in_the_networks_settings_is_no_hub(environment):
    assert ask("hub_reachable(1)", **environment) == "False"
