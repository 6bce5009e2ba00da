"""A conversation as the model's chat template writes it: its text, its tokens, and the token that ends a turn.

What a person wrote is text, never a command; only the template writes control tokens (see `control_tokens`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from ..errors import LabError
from ..printing import say
from ..tasks.data_lines import check_text
from .control_tokens import ControlTokens

# Words that no template writes itself.
PROBE = [
    {"role": role, "content": word}
    for role, word in (("system", "Aardvark"), ("user", "Bittern"), ("assistant", "Capybara"))
]


@dataclass(frozen=True)
class Chat:
    """What is known of a tokenizer's chat template.

    Attributes
    ----------
    template : bool, is there one
    takes_system : bool, does it write a system message
    end : int, the token that ends a turn
    control : ControlTokens
    """

    template: bool
    takes_system: bool
    end: int
    control: ControlTokens


def render(tokenizer, messages: Sequence[dict]) -> str:
    """A conversation as text, up to where the next answer begins.

    Parameters
    ----------
    tokenizer : of transformers; without a chat template, turns are set apart by blank lines
    messages : rows of {"role": "system", "user" or "assistant", "content": str}; only the first may be "system"
        Where the template has no room for a system message, its text opens the first user turn.

    Raises
    ------
    LabError
        A content is not a text that can be encoded, or the template refuses the conversation.
    """
    _check(messages)
    chat = chat_of(tokenizer)
    return _write(tokenizer, chat.template, chat.takes_system, messages)


def prompt_tokens(tokenizer, messages: Sequence[dict], tools: Sequence[dict] | None = None) -> list[int]:
    """The tokens of `render`: the template's control tokens, and everything in the messages as ordinary text.

    Raises
    ------
    LabError
        As `render`; or a message spells a control token, and this tokenizer cannot read that as text.
    """
    _check(messages)
    chat = chat_of(tokenizer)

    def write(contents: Sequence[str]) -> str:
        said = [{**message, "content": content} for message, content in zip(messages, contents, strict=True)]
        return _write(tokenizer, chat.template, chat.takes_system, said, tools=tools)

    return chat.control.prompt_ids(tokenizer, [message["content"] for message in messages], write)


def answer_tokens(tokenizer, text: str) -> list[int]:
    """The tokens of an answer, all of it ordinary text; the end of turn is not among them.

    Raises
    ------
    LabError
        `text` is not a text that can be encoded, or spells a control token that cannot be read as text.
    """
    check_text("the answer", text)
    return chat_of(tokenizer).control.text_ids(tokenizer, text)


def end_of_turn(tokenizer) -> int:
    """The token that the chat template puts after an answer; the end of text where it puts none.

    Raises
    ------
    LabError
        The tokenizer has neither.
    """
    return chat_of(tokenizer).end


def stop_tokens(tokenizer) -> list[int]:
    """The tokens at which an answer is over: the end of turn, and the end of text where that is another one."""
    end, of_text = end_of_turn(tokenizer), tokenizer.eos_token_id
    return [end] if of_text in (None, end) else [end, of_text]


def padding_token(tokenizer) -> int:
    """The token to pad with: the tokenizer's, else the end of turn. The attention mask hides it either way."""
    return end_of_turn(tokenizer) if tokenizer.pad_token_id is None else tokenizer.pad_token_id


def pad_left(tokenizer, rows: Sequence[Sequence[int]]) -> dict:
    """Prompts of unlike length as one batch: all end at the right edge, where decoding begins.

    Returns
    -------
    dict of int64 Tensors, shape (rows, longest): input_ids, attention_mask
    """
    import torch

    longest = max(len(row) for row in rows)
    input_ids = torch.full((len(rows), longest), padding_token(tokenizer))
    attention_mask = torch.zeros_like(input_ids)
    for number, row in enumerate(rows):
        input_ids[number, longest - len(row) :] = torch.tensor(row, dtype=torch.int64)
        attention_mask[number, longest - len(row) :] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def decode_answer(tokenizer, tokens: Sequence[int]) -> str:
    """What a model wrote before the first end of turn or of text, without control tokens."""
    stops = stop_tokens(tokenizer)
    length = next((place for place, token in enumerate(tokens) if token in stops), len(tokens))
    return tokenizer.decode(tokens[:length], skip_special_tokens=True)


_CHATS: WeakKeyDictionary = WeakKeyDictionary()  # tokenizer -> (what its Chat was made from, Chat)


def chat_of(tokenizer) -> Chat:
    """The tokenizer's Chat: made once, and again when its template, its end of text or its vocabulary changes.

    Raises
    ------
    LabError
        Nothing ends a turn: the template puts no token after an answer, and the tokenizer has no end of text.
    """
    size = len(tokenizer) if hasattr(tokenizer, "__len__") else 0
    made_from = (str(getattr(tokenizer, "chat_template", None)), tokenizer.eos_token_id, size)
    known = _CHATS.get(tokenizer)
    if known is None or known[0] != made_from:
        known = (made_from, _make_chat(tokenizer))
        _CHATS[tokenizer] = known
    return known[1]


def _make_chat(tokenizer) -> Chat:
    """Try the template on a conversation of three words, and see what it writes around them."""
    template = bool(getattr(tokenizer, "chat_template", None))
    takes_system = _takes_system(tokenizer) if template else True
    whole = _attempt(tokenizer, template, takes_system, PROBE, asking=False) or ""
    frame = whole + (_attempt(tokenizer, template, takes_system, PROBE[:2]) or "")
    control = ControlTokens(tokenizer, frame)
    answer = PROBE[-1]["content"]
    end = control.first_added(whole.rpartition(answer)[2]) if template and answer in whole else None
    if end is None:
        end = tokenizer.eos_token_id
        which = "No token follows an answer in the chat template" if template else "This tokenizer has no chat template"
        if end is None:
            raise LabError(
                f"{which}, and the tokenizer has no end of text (eos_token): nothing would end a turn. "
                "Set the tokenizer's eos_token or chat_template, and save it in the model's folder."
            )
        say(f"{which}: a turn ends with the end of text, {getattr(tokenizer, 'eos_token', end)}.")
    return Chat(template, takes_system, end, control)


def _takes_system(tokenizer) -> bool:
    """Does the template write a system message? Gemma's first ones raise an error, others leave it out."""
    text = _attempt(tokenizer, True, True, PROBE[:2])
    return text is not None and PROBE[0]["content"] in text


def write(tokenizer, messages: Sequence[dict], tools: Sequence[dict] | None = None, *, asking: bool = True) -> str:
    """`render`, of messages that were checked; with descriptions of tools, and perhaps without the next answer's start.

    Parameters
    ----------
    tokenizer, messages : as in `render`; a message may have what else the template knows, such as "tool_calls"
    tools : list of dict, JSON descriptions of functions as transformers takes them
    asking : bool, go on to where the next answer begins

    Raises
    ------
    LabError
        The template refuses the conversation.
    """
    chat = chat_of(tokenizer)
    return _write(tokenizer, chat.template, chat.takes_system, messages, asking, tools)


def _attempt(tokenizer, template: bool, takes_system: bool, messages: Sequence[dict], asking: bool = True):
    """The text of a conversation, or None if the template refuses it."""
    try:
        return _write(tokenizer, template, takes_system, messages, asking)
    except LabError:
        return None


def _write(
    tokenizer, template: bool, takes_system: bool, messages: Sequence[dict], asking: bool = True,
    tools: Sequence[dict] | None = None,
) -> str:  # fmt: skip
    """The text of a conversation; `asking`: up to where the next answer begins."""
    if not takes_system:
        messages = _system_into_user(messages)
    if not template:
        return _plain(tokenizer, messages)
    options = {"tools": list(tools)} if tools else {}
    try:
        return tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=asking, **options)
    except Exception as error:  # a template is a program: apart from jinja2's errors it raises what it likes
        roles = ", ".join(message["role"] for message in messages)
        raise LabError(
            f"This tokenizer's chat template refuses a conversation of the turns {roles}: "
            f"{type(error).__name__}: {str(error)[:200]}. Set another chat_template, and save "
            "the tokenizer in the model's folder."
        ) from error


def _system_into_user(messages: Sequence[dict]) -> list[dict]:
    """The same conversation without a system message: its text opens the first user turn."""
    if not messages or messages[0]["role"] != "system":
        return list(messages)
    system, *rest = messages
    for number, message in enumerate(rest):
        if message["role"] == "user":
            rest[number] = {**message, "content": f"{system['content']}\n\n{message['content']}"}
            break
    return rest


def _plain(tokenizer, messages: Sequence[dict]) -> str:
    """A conversation without a template: turns set apart by blank lines, an answer closed by the end of text."""
    start = getattr(tokenizer, "bos_token", None) or ""
    if not start or tokenizer("")["input_ids"][:1] != [tokenizer.bos_token_id]:
        start = ""
    end = getattr(tokenizer, "eos_token", None) or ""
    turns = (message["content"] + (end if message["role"] == "assistant" else "") for message in messages)
    return start + "".join(f"{turn}\n\n" for turn in turns)


def _check(messages: Sequence[dict]) -> None:
    """Raise a LabError for a message whose content is not a text that can be encoded."""
    for message in messages:
        check_text(f"The {message['role']} message", message["content"])
