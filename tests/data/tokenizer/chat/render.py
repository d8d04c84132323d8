"""render.py - writes NAME.out for each NAME.jinja here: what Jinja makes of the conversations below.

NAME.out holds the conversations' texts, each followed by a line "=====". A template that refuses a conversation
gets a line "refused" for it. BOS is "<s>" and EOS "</s>"; a BOS at the very beginning is left out, for the
tokenizer puts it. Needs the Python package jinja2; set up as the Transformers library does it.
"""
import glob
import os

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = os.path.dirname(os.path.abspath(__file__))
# tests/test_chat.c has the same list.
CONVERSATIONS = [
    [("user", "Hi")],
    [("system", "Be brief."), ("user", "Hi")],
    [("user", "Hi"), ("assistant", "Hello."), ("user", "Why?")],
    [("system", " Be brief.\n"), ("user", "  Hi \n"), ("assistant", "\nHello. "), ("user", "Why?\u3000"), ("assistant", "So"),
     ("user", "ok")],
    [("user", "Hi"), ("assistant", "<think>\nhm\n</think>\n\nHello."), ("user", "Why?")],
]


def refuse(message):
    raise jinja2.exceptions.TemplateError(message)


def main():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    env.globals["raise_exception"] = refuse
    for path in sorted(glob.glob(os.path.join(HERE, "*.jinja"))):
        template = env.from_string(open(path, encoding="utf-8").read())
        with open(path[:-6] + ".out", "w", encoding="utf-8", newline="") as out:
            for conversation in CONVERSATIONS:
                messages = [{"role": role, "content": content} for role, content in conversation]
                try:
                    text = template.render(messages=messages, add_generation_prompt=True, bos_token="<s>", eos_token="</s>")
                    text = text[3:] if text.startswith("<s>") else text
                except jinja2.exceptions.TemplateError:
                    text = "refused"
                out.write(text + "\n=====\n")


main()
