"""The chat page less its browser: what is asked, what is written into the page, and each way the command line fails."""

import json
import socket
import sys

import pytest

from lab_utils.errors import LabError
from lab_utils.serving import chat_page
from lab_utils.serving.adapter_records import recorded_adapter
from lab_utils.tasks import registry as tasks


class Bank:
    """A stub of AdapterBank that writes down what it is asked."""

    def __init__(self, names):
        self.tasks, self.asked = names, []
        self.names = list(names)

    def answer(self, prompts, adapters, tasks, **most):
        self.asked.append((prompts, adapters, tasks, *most.items()))
        return [f"{name}: {prompt}" for prompt, name in zip(prompts, adapters, strict=True)]


def test_answers_are_side_by_side_word_for_word():
    texts = {None: "a\n\n**b** | <img src=x>", "style": ""}
    found = chat_page.answer_html(lambda messages, adapters: [texts[name] for name in adapters], " m ", [None, "style"])
    assert found.count('class="lab-reply"') == 2 and "\n" not in found
    assert found.index("<b>base</b>") < found.index("a<br><br>**b** | &lt;img src=x&gt;") < found.index("<b>style</b>")
    assert "(an empty answer)" in found and found.endswith(" s</small>")


def test_what_went_wrong_is_told_as_text():
    def fails(messages, adapters):
        raise LabError("Take <another>.")

    assert chat_page.answer_html(fails, "m", [None]) == "Take &lt;another&gt;."
    assert chat_page.answer_html(fails, " \n", [None]) == "Type a message first."


def test_the_base_gets_a_system_message_of_its_own():
    bank = Bank({"talk": "style", "form": "bookings"})
    assert chat_page.answers_of(bank)(["m"] * 3, [None, "form", "talk"]) == ["None: m", "form: m", "talk: m"]
    chat_page.answers_of(bank, "bookings")(["m"], [None])
    assert bank.asked == [
        (["m"] * 3, [None, "form", "talk"], ["style", "bookings", "style"]), (["m"], [None], ["bookings"]),
    ]  # fmt: skip


def test_answers_may_be_cut_short():
    bank = Bank({"talk": "style"})
    chat_page.answers_of(bank, room=5)(["m"], ["talk"])
    assert bank.asked == [(["m"], ["talk"], ["style"], ("max_new_tokens", 5))]


def test_examples_are_the_first_of_each_tasks_test_data():
    rows = {
        name: [json.loads(line) for line in (tasks.DATA / name / "test.jsonl").read_text("utf-8").splitlines()[:2]]
        for name in ("bookings", "style")
    }
    expected = [row["plain"] for row in rows["style"]] + [row["message"] for row in rows["bookings"]]
    assert chat_page.example_messages(["style", "bookings", "style", "dolly"]) == expected


def test_the_recorded_adapters_are_the_default():
    assert chat_page.adapter_folders([]) == {name: recorded_adapter(name) for name in ("bookings", "style")}


def test_folders_are_named_on_the_command_line(tmp_path):
    (tmp_path / "a=b").mkdir()
    found = chat_page.adapter_folders([f"mine={tmp_path}", f"other={tmp_path / 'a=b'}"])
    assert found == {"mine": tmp_path, "other": tmp_path / "a=b"} and list(found) == ["mine", "other"]


@pytest.mark.parametrize(
    "texts, message",
    [
        (["mine"], "write name=folder"),
        (["=folder"], "write name=folder"),
        (["mine="], "write name=folder"),
        (["mine=/no/such/folder"], "there is no folder /no/such/folder"),
        (["mine=.", "mine=."], "given twice"),
    ],
)
def test_a_folder_that_cannot_be_is_refused(texts, message):
    with pytest.raises(LabError, match=message):
        chat_page.adapter_folders(texts)


def test_a_port_that_is_taken_is_named_with_another():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LabError, match=f"port {port} .*--port {port + 1 if port < 65535 else 7860}"):
            chat_page.check_port(port, "127.0.0.1")
    chat_page.check_port(port, "127.0.0.1")  # and free again, it will do


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_that_is_none_is_refused(port):
    with pytest.raises(LabError, match="1 to 65535"):
        chat_page.check_port(port, "127.0.0.1")


def test_a_host_that_is_not_this_machine_is_refused():
    with pytest.raises(LabError, match=r"Nothing can be served on 192\.0\.2\.1"):  # an address kept for examples
        chat_page.check_port(7860, "192.0.2.1")


def test_without_gradio_the_command_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert chat_page.main([]) == 2
    assert capsys.readouterr().err.startswith("The chat page needs Gradio: ")
    with pytest.raises(LabError, match=r"pip install .*\[serve\]"):
        chat_page.build(lambda messages, adapters: messages, [])


def test_mistakes_are_told_before_a_model_is_loaded(monkeypatch, capsys):
    monkeypatch.setattr(chat_page, "_gradio", lambda: None)
    monkeypatch.setattr(chat_page, "load_bank", lambda *_: pytest.fail("a model was loaded"))
    assert chat_page.main(["--adapter", "mine=/no/such/folder"]) == 2
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert chat_page.main(["--port", str(taken.getsockname()[1])]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("--adapter mine=") and second.startswith("Nothing can be served on")


def test_the_command_serves_what_it_was_told_to(monkeypatch, capsys, tmp_path):
    class Page:
        def block_thread(self):
            print("blocked")

    made, page = [], Page()
    monkeypatch.setattr(chat_page, "_gradio", lambda: None)
    monkeypatch.setattr(chat_page, "check_port", lambda *_: None)
    monkeypatch.setattr(chat_page, "load_bank", lambda *given: made.append(given) or Bank({"mine": "style"}))
    monkeypatch.setattr(chat_page, "build", lambda *given: made.append(given[1:]) or page)
    monkeypatch.setattr(chat_page, "serve", lambda *given: made.append(given) or "http://here/")
    arguments = ["--adapter", f"mine={tmp_path}", "--model", "smollm2-360m", "--port", "8000", "--host", "0.0.0.0"]
    assert chat_page.main(arguments) == 0
    (loaded, built, served) = made
    assert loaded == ({"mine": tmp_path}, "smollm2-360m") and served == (page, 8000, "0.0.0.0")
    assert built[0] == ["mine"] and len(built[1]) == 2 and "“Say it like a pirate.”" in built[2]
    assert capsys.readouterr().out == "The chat page is at http://here/ (Ctrl-C ends it).\nblocked\n"


def test_a_home_folder_is_expanded(tmp_path, monkeypatch):
    """A shell leaves the ~ of mine=~/adapter as it is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert chat_page.adapter_folders(["mine=~"]) == {"mine": tmp_path}


def test_an_adapter_without_a_task_is_refused_before_a_model_is_loaded(monkeypatch, tmp_path):
    from lab_utils.models import registry as models

    monkeypatch.setattr(models, "load_base", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(LabError, match=r"does not say which task mine was trained on.*--task bookings"):
        chat_page.load_bank({"mine": tmp_path})
    with pytest.raises(LabError, match="Unknown task 'poems'"):
        chat_page.load_bank({"mine": tmp_path}, task="poems")
    (tmp_path / "record.json").write_text('{"recipe": {"task": "no such"}}')
    with pytest.raises(LabError, match="Unknown task 'no such'"):
        chat_page.load_bank({"mine": tmp_path}, task="style")
    (tmp_path / "record.json").write_text("{")  # a task that is named needs no record
    with pytest.raises(LabError, match=r"record\.json, line 1.*Name the task yourself"):
        chat_page.load_bank({"mine": tmp_path})
    with pytest.raises(LabError, match="Unknown task 'poems'"):
        chat_page.load_bank({"mine": tmp_path}, task="poems")


def test_the_command_passes_the_task_on(monkeypatch, tmp_path):
    made = []

    def load_bank(*given):
        made.append(given)
        raise LabError("enough")

    monkeypatch.setattr(chat_page, "_gradio", lambda: None)
    monkeypatch.setattr(chat_page, "check_port", lambda *_: None)
    monkeypatch.setattr(chat_page, "load_bank", load_bank)
    assert chat_page.main(["--adapter", f"mine={tmp_path}", "--task", "style"]) == 2
    assert made == [({"mine": tmp_path}, None, "style")]


def test_the_base_of_adapters_without_a_task_is_not_given_one():
    bank = Bank({"silent": None, "form": "bookings"})
    chat_page.answers_of(bank)(["m"] * 2, [None, "silent"])
    assert bank.asked[0][2] == ["bookings", None]  # the bank itself refuses a row without a task
