"""A chat template for tokenizers without one: turns set apart by blank lines, an answer closed by the end of text."""

PLAIN = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n\\n' }}{% endfor %}"
)


def give_template(tokenizer) -> str:
    """Give a tokenizer without a chat template the plain one.

    Parameters
    ----------
    tokenizer : of transformers; changed in place. One that has a template, or no end of text to close an answer with,
        is left as it is.

    Returns
    -------
    str, what was done, in a sentence; "" if nothing

    A model that was never trained on conversations knows no control tokens for them; its end of text it knows.
    """
    if getattr(tokenizer, "chat_template", None) or not getattr(tokenizer, "eos_token", None):
        return ""
    begins = tokenizer.bos_token_id is not None and tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]
    tokenizer.chat_template = ("{{ bos_token }}" if begins else "") + PLAIN
    return (
        "This model has no chat template, as one that was not trained on conversations: turns are set apart by blank "
        f"lines, and an answer ends with {tokenizer.eos_token}"
    )
