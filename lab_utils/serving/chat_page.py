"""A web page to chat with the base and its adapters, alone or side by side: `python -m lab_utils.serving.chat_page`.

The page is Gradio's ChatInterface (`pip install -c constraints.txt -e '.[serve]'`). It asks the network for nothing,
reports nothing to anybody, and answers on this machine only, unless `--host` says otherwise.
"""

import argparse
import html
import socket
import sys
from collections.abc import Iterable, Sequence

from ..errors import LabError, command_line
from ..notebook.extras import require
from ..tasks.registry import find_task
from .answers import BASE, Answers, adapter_folders, answers_of, example_messages, load_bank, reply

ALL = "all, side by side"
PORT = 7860
STYLE = """
.lab-replies { display: grid; grid-template-columns: repeat(auto-fit, minmax(220px, 1fr)); gap: 12px; }
.lab-reply { border-top: 4px solid var(--border-color-accent); padding-top: 4px; }
.lab-answer { font: 18px/1.45 ui-monospace, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
"""
# Gradio shuts the message box while an answer is made, which takes the focus away, and gives the box no name.
SCRIPT = """
() => {
  const tend = () => {
    const box = document.querySelector("textarea");
    if (!box) return;
    box.setAttribute("aria-label", "message");
    if (!box.disabled && document.activeElement === document.body) box.focus();
  };
  new MutationObserver(tend).observe(document.body, { subtree: true, childList: true, attributeFilter: ["disabled"] });
  tend();
}
"""


def build(answers: Answers, adapters: Iterable[str], examples: Sequence[str] = (), note: str = ""):
    """The page, not yet served.

    Parameters
    ----------
    answers : function, (messages, adapters) -> texts, as `answers_of` makes it; None is the base
    adapters : names of adapters, in the order of their columns
    examples : messages to offer
    note : str, what a reader should know; above the page

    Returns
    -------
    gradio.Blocks

    Raises
    ------
    LabError
        Gradio is not installed, or an adapter bears a name that the page needs.
    """
    gradio = _gradio()
    names = list(adapters)
    choices = {ALL: [None, *names], f"{BASE}, no adapter": [None], **{name: [name] for name in names}}
    if len(choices) != len(names) + 2:
        raise LabError(f"The adapters {', '.join(names)} need other names, none of them {ALL!r}.")

    def answer(message: str, _history: list, choice: str) -> str:
        return answer_html(answers, message, choices[choice])

    with gradio.Blocks(title="LoRA Lab: chat", analytics_enabled=False) as page:
        gradio.Markdown(f"# One base, several adapters\nEach message is answered as if it were the first. {note}")
        chosen = gradio.Dropdown(list(choices), value=ALL, label="Who answers", filterable=False)
        gradio.ChatInterface(
            answer,
            additional_inputs=[chosen],
            examples=[[example] for example in examples] or None,
            chatbot=gradio.Chatbot(
                show_label=False, height="55vh", layout="panel", latex_delimiters=[], buttons=[], autoscroll=True
            ),
            textbox=gradio.Textbox(placeholder="Type a message", label="message", submit_btn="Send", autofocus=True),
            cache_examples=False,
            analytics_enabled=False,
            api_visibility="private",
        )
    return page


def answer_html(answers: Answers, message: str, adapters: Sequence[str | None]) -> str:
    """One message answered by `adapters`, as HTML: a column each and the time; or what went wrong, as text."""
    if not message.strip():
        return "Type a message first."
    turn = reply(answers, message.strip(), adapters)
    if turn["error"]:
        return _verbatim(turn["error"])
    columns = "".join(
        f'<div class="lab-reply"><b>{_verbatim(name or BASE)}</b>'
        f'<div class="lab-answer">{_verbatim(text) or "<i>(an empty answer)</i>"}</div></div>'
        for name, text in zip(adapters, turn["replies"], strict=True)
    )
    return f'<div class="lab-replies">{columns}</div><small>{turn["seconds"]:.1f} s</small>'


def _verbatim(text: str) -> str:
    """Text as HTML in one line, for Markdown takes up again after an empty one."""
    return "<br>".join(html.escape(line) for line in text.splitlines())


def serve(page, port: int = PORT, host: str = "127.0.0.1") -> str:
    """Start serving a page of `build` in the background; returns its address. `page.close()` ends it.

    Raises
    ------
    LabError
        The port is taken, or there is no such port or host.
    """
    check_port(port, host)
    _, address, _ = page.launch(
        server_name=host, server_port=port, share=False, inbrowser=False, prevent_thread_lock=True, quiet=True,
        ssr_mode=False, run_history=False, footer_links=[], css=STYLE, js=SCRIPT,
        theme=_gradio().themes.Default(primary_hue="blue", text_size="lg"),
    )  # fmt: skip
    return address


def check_port(port: int, host: str) -> None:
    """Raise a LabError unless a server can be started there."""
    if not 1 <= port <= 65535:
        raise LabError(f"port={port} is out of range: 1 to 65535.")
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        raise LabError(
            f"Nothing can be served on {host}, port {port} ({error.strerror}). If something else runs there, end it or "
            f"take another port, as --port {port + 1 if port < 65535 else PORT}."
        ) from error


def _gradio():
    """The package, or a LabError that says how to get it."""
    require("serve", "The chat page needs Gradio: ")
    import gradio

    return gradio


@command_line
def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code: 0 the page was served, 2 it could not be."""
    parser = argparse.ArgumentParser(prog="python -m lab_utils.serving.chat_page", description=__doc__.splitlines()[0])
    parser.add_argument("--adapter", action="append", default=[], metavar="NAME=FOLDER",
                        help="an adapter to load; again for another (default: the recorded bookings and style)")
    parser.add_argument("--task", help="the task of adapters whose folder does not say it in record.json")
    parser.add_argument("--model", help="the base model (default: the one that the adapters were trained on)")
    parser.add_argument("--port", type=int, default=PORT, help="default: %(default)s")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in (default: %(default)s)")
    options = parser.parse_args(arguments)
    _gradio()
    check_port(options.port, options.host)
    named = [options.task] if options.task else []
    bank = load_bank(adapter_folders(options.adapter), options.model, *named)
    task = next(iter(bank.tasks.values()))
    name = task if isinstance(task, str) else "the first adapter's task"
    note = f"The base gets the system message of {name}, “{find_task(task).system}”, each adapter that of its task."
    page = build(answers_of(bank, task), bank.names, example_messages(bank.tasks.values()), note)
    print(f"The chat page is at {serve(page, options.port, options.host)} (Ctrl-C ends it).", flush=True)
    page.block_thread()
    return 0


if __name__ == "__main__":
    sys.exit(main())
