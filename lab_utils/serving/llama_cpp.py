"""llama.cpp's OpenAI-compatible server, started on this machine, and asked with an adapter chosen by the request."""

import json
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

from ..errors import LabError, choose, whole
from ..files import user_path
from ..notebook.extras import require
from ..tasks.registry import find_task

EXTRA, PROCESS = "llamacpp", Path(__file__).with_name("llama_process.py")
ENDED = "has ended: start a new LlamaServer"


@dataclass(frozen=True)
class Completion:
    """What the server said to one request.

    Attributes
    ----------
    text : str
    tokens : int, generated
    tokens_per_second : float, while generating; reading the prompt is not counted
    """

    text: str
    tokens: int
    tokens_per_second: float


class LlamaServer:
    """llama.cpp serving one GGUF file and any number of GGUF adapters on 127.0.0.1, in a separate process.

    It is a context manager; `close` ends the process, and so does the end of this one.

    Parameters
    ----------
    model : path of a GGUF file, as `merging.export_gguf` writes it
    adapters : dict name -> path of a GGUF adapter, as `merging.export_gguf_adapter` writes it
    chat_template : str, Jinja, in place of the file's own
    threads : int >= 1, default torch's
    context : int, tokens of prompt and answer together
    start_seconds : float, how long to wait for it to start

    Attributes
    ----------
    address : str, "http://127.0.0.1:port"
    names : list of str, the adapters; a request calls them by their place in this list

    Raises
    ------
    LabError
        The extra llamacpp is not installed, a file is missing, or the server does not start: its last words are given.
    """

    def __init__(
        self, model: str | Path, adapters: Mapping[str, str | Path] | None = None, *, chat_template: str = "",
        threads: int | None = None, context: int = 1024, start_seconds: float = 120,
    ):  # fmt: skip
        require(EXTRA, "llama.cpp cannot be started: ")
        files = {name: user_path(path) for name, path in (adapters or {}).items()}
        for path in (user_path(model), *files.values()):
            if not path.is_file():
                raise LabError(f"There is no file {path}. merging.export_gguf and export_gguf_adapter write them.")
        self.names = list(files)
        options = {
            "model": str(user_path(model).resolve()), "adapters": [str(path.resolve()) for path in files.values()],
            "chat_template": chat_template, "threads": whole("threads", threads or _threads()),
            "context": whole("context", context),
        }  # fmt: skip
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        command = [sys.executable, "-P", str(PROCESS), json.dumps(options)]  # -P: the folder's names shadow nothing
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        self._end = weakref.finalize(self, _end, self._process, self._log)
        timer = Timer(start_seconds, self._process.kill)
        timer.start()
        self.address = self._process.stdout.readline().strip()
        timer.cancel()
        if not self.address:
            words = self._last_words()
            self.close()
            raise LabError(f"llama.cpp did not start with {model}. Its last words: {words}")

    def __enter__(self) -> "LlamaServer":
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def close(self) -> None:
        """End the process; closing twice does no harm."""
        self._end()

    def choice(self, adapter: str | None) -> list[dict]:
        """What a request's field `lora` must be for one adapter, or for the base alone (None).

        Returns
        -------
        list of {"id": int, "scale": float}, one per adapter
        """
        if adapter is not None:
            choose("adapter", adapter, self.names)
        return [{"id": number, "scale": float(name == adapter)} for number, name in enumerate(self.names)]

    def body(self, message: str, adapter: str | None, task: str) -> dict:
        """The JSON of a request: a task's system message, the reader's message, one adapter, greedy decoding.

        Parameters
        ----------
        message : str
        adapter : str, of `names`, or None for the base alone
        task : str, a name in `TASKS`, or a Task: whose system message is sent
        """
        found = find_task(task)
        return {
            "messages": [{"role": "system", "content": found.system}, {"role": "user", "content": message}],
            "temperature": 0, "max_tokens": found.max_new_tokens, "lora": self.choice(adapter),
        }  # fmt: skip

    def ask(self, message: str, adapter: str | None, task: str) -> Completion:
        """Send one request, as `body` makes it, and wait for the answer."""
        found = self.post("/v1/chat/completions", self.body(message, adapter, task))
        timings = found["timings"]
        return Completion(
            found["choices"][0]["message"]["content"], timings["predicted_n"], timings["predicted_per_second"]
        )

    def prompt(self, message: str, task: str) -> str:
        """The text that the server's chat template makes of a message: what the model is really given."""
        return self.post("/apply-template", self.body(message, None, task))["prompt"]

    def memory_bytes(self) -> int:
        """Resident memory of the server's process now, with the part of the model file that is mapped into it.

        Raises
        ------
        LabError
            The server has ended.
        """
        import psutil

        try:
            return psutil.Process(self._process.pid).memory_info().rss
        except psutil.NoSuchProcess as error:
            raise LabError(f"llama.cpp at {self.address} {ENDED}.") from error

    def post(self, path: str, body: dict, seconds: float = 300) -> dict:
        """Send JSON, get JSON.

        Raises
        ------
        LabError
            The server has ended, refuses the request, or does not answer in time.
        """
        request = urllib.request.Request(
            f"{self.address}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=seconds) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise LabError(f"llama.cpp refuses the request: {error.read().decode(errors='replace')[:300]}") from error
        except (OSError, ValueError) as error:
            gone = self._process.poll() is not None
            way_out = f"it {ENDED}" if gone else "try again, or a shorter message"
            raise LabError(f"llama.cpp at {self.address} does not answer ({error}); {way_out}.") from error

    def _last_words(self, lines: int = 4) -> str:
        """The end of llama.cpp's log."""
        self._process.wait()
        self._log.seek(0)
        words = [line.strip() for line in self._log.read().splitlines() if line.strip()]
        return " / ".join(words[-lines:]) or "none"


def _end(process: subprocess.Popen, log) -> None:
    """Let the process end by itself, which the end of its input asks for; kill it if it does not."""
    process.stdin.close()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
    log.close()


def _threads() -> int:
    import torch

    return torch.get_num_threads()
