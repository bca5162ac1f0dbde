"""Chat templates in the manner of model families, each with a tokenizer that has its control tokens.

They are written for these tests, with what templates of the families do to texts: trim them, take thoughts
out of them, test them, put dates and system messages of their own before them, and write tool turns.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import tiny
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CHATML = ("<|im_start|>", "<|im_end|>")


@dataclass(frozen=True)
class Family:
    """A template and its control tokens.

    Args:
        template: Jinja.
        control: The control tokens; the last is the end of a text.
        plain: Added tokens that are no control tokens, such as those around thoughts.
        in_parts: Whether contents are given in parts, as to templates of vision-language models.
        pieces: Whether the tokenizer is of SentencePiece's kind, where a space is part of the next word.
        eats_space: Whether control tokens take the white space after them.
        with_tools: Whether it writes turns of tools.
    """

    template: str
    control: tuple[str, ...] = CHATML
    plain: tuple[str, ...] = ()
    in_parts: bool = False
    pieces: bool = False
    eats_space: bool = False
    with_tools: bool = True
    extra: dict[str, str] = field(default_factory=dict)


FAMILIES = {
    "chatml": Family(
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + "
        "'<|im_end|>' + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "qwen2": Family(
        "{%- if messages[0].role == 'system' %}\n    {{- '<|im_start|>system\n' + messages[0].content + "
        "'<|im_end|>\n' }}\n{%- else %}\n    {{- '<|im_start|>system\nYou help.<|im_end|>\n' }}\n"
        "{%- endif %}\n"
        "{%- for message in messages %}\n"
        "    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) "
        "or (message.role == 'assistant' and not message.tool_calls) %}\n"
        "        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}\n"
        "    {%- elif message.role == 'tool' %}\n"
        "        {%- if loop.index0 == 0 or messages[loop.index0 - 1].role != 'tool' %}\n"
        "            {{- '<|im_start|>user' }}\n        {%- endif %}\n"
        "        {{- '\n<tool_response>\n' }}{{- message.content }}{{- '\n</tool_response>' }}\n"
        "        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}\n"
        "            {{- '<|im_end|>\n' }}\n        {%- endif %}\n    {%- endif %}\n{%- endfor %}\n"
        "{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\n' }}\n{%- endif %}\n"
    ),
    "qwen3": Family(
        "{%- set ns = namespace(last_query=messages|length - 1) %}\n"
        "{%- for message in messages %}\n    {%- if message.role == 'user' %}"
        "{%- set ns.last_query = loop.index0 %}{%- endif %}\n{%- endfor %}\n"
        "{%- for message in messages %}\n"
        "    {%- if message.content is string %}{%- set content = message.content %}\n"
        "    {%- else %}{%- set content = '' %}{%- endif %}\n"
        "    {%- if message.role != 'assistant' %}\n"
        "        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>\n' }}\n"
        "    {%- else %}\n"
        "        {%- set thought = '' %}\n"
        "        {%- if message.reasoning_content is defined %}\n"
        "            {%- set thought = message.reasoning_content %}\n"
        "        {%- elif '</think>' in content %}\n"
        "            {%- set thought = content.split('</think>')[0].rstrip('\n').split('<think>')[-1]"
        ".lstrip('\n') %}\n"
        "            {%- set content = content.split('</think>')[-1].lstrip('\n') %}\n"
        "        {%- endif %}\n"
        "        {%- if loop.index0 > ns.last_query and (loop.last or thought) %}\n"
        "            {{- '<|im_start|>assistant\n<think>\n' + thought.strip('\n') + '\n</think>\n\n' + "
        "content.lstrip('\n') }}\n"
        "        {%- else %}\n            {{- '<|im_start|>assistant\n' + content }}\n        {%- endif %}\n"
        "        {{- '<|im_end|>\n' }}\n    {%- endif %}\n{%- endfor %}\n"
        "{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\n' }}\n"
        "    {%- if enable_thinking is defined and enable_thinking is false %}"
        "{{- '<think>\n\n</think>\n\n' }}{%- endif %}\n{%- endif %}",
        plain=("<think>", "</think>"),
    ),
    "qwq": Family(
        "{%- for message in messages %}"
        "{%- set content = message.content %}"
        "{%- if message.role == 'assistant' and not loop.last %}"
        "{%- set content = message.content.split('</think>')[-1].lstrip('\n') %}{%- endif %}"
        "{{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n<think>\n' }}{%- endif %}",
        plain=("<think>", "</think>"),
    ),
    "llama3.2": Family(
        "{{- bos_token }}\n"
        "{%- if not date_string is defined %}\n    {%- if strftime_now is defined %}\n"
        "        {%- set date_string = strftime_now('%d %b %Y') %}\n    {%- else %}\n"
        "        {%- set date_string = '26 Jul 2024' %}\n    {%- endif %}\n{%- endif %}\n"
        "{%- if messages[0]['role'] == 'system' %}\n"
        "    {%- set system_message = messages[0]['content']|trim %}\n"
        "    {%- set messages = messages[1:] %}\n{%- else %}\n    {%- set system_message = '' %}\n"
        "{%- endif %}\n"
        "{{- '<|start_header_id|>system<|end_header_id|>\n\n' }}\n"
        "{{- 'Cutting Knowledge Date: December 2023\n' }}\n{{- 'Today Date: ' + date_string + '\n\n' }}\n"
        "{{- system_message }}\n{{- '<|eot_id|>' }}\n"
        "{%- for message in messages %}\n"
        "    {%- set role = 'ipython' if message.role == 'tool' else message.role %}\n"
        "    {{- '<|start_header_id|>' + role + '<|end_header_id|>\n\n' + message['content'] | trim + "
        "'<|eot_id|>' }}\n{%- endfor %}\n"
        "{%- if add_generation_prompt %}\n"
        "    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}\n{%- endif %}\n",
        control=("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        extra={"bos_token": "<|begin_of_text|>"},
    ),
    "llama2": Family(
        "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
        "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
        "{% set system_message = false %}{% endif %}"
        "{% for message in loop_messages %}"
        "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Roles must alternate user/assistant') }}{% endif %}"
        "{% if loop.index0 == 0 and system_message != false %}"
        "{% set content = '<<SYS>>\n' + system_message + '\n<</SYS>>\n\n' + message['content'] %}"
        "{% else %}{% set content = message['content'] %}{% endif %}"
        "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
        "{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}"
        "{% endfor %}",
        control=("<s>", "</s>"),
        pieces=True,
        with_tools=False,
        extra={"bos_token": "<s>"},
    ),
    "mistral-small3": Family(
        "{%- set today = strftime_now('%Y-%m-%d') %}\n"
        "{%- set default_system = 'You are a model. The current date is ' + today + '.' %}\n"
        "{{- bos_token }}\n"
        "{%- if messages[0]['role'] == 'system' %}\n    {%- set system = messages[0]['content'] %}\n"
        "    {%- set rest = messages[1:] %}\n{%- else %}\n    {%- set system = default_system %}\n"
        "    {%- set rest = messages %}\n{%- endif %}\n"
        "{{- '[SYSTEM_PROMPT]' + system + '[/SYSTEM_PROMPT]' }}\n"
        "{%- for message in rest %}\n    {%- if message['role'] == 'user' %}\n"
        "        {{- '[INST]' + message['content'] + '[/INST]' }}\n"
        "    {%- elif message['role'] == 'assistant' %}\n        {{- message['content'] + eos_token }}\n"
        "    {%- else %}\n        {{- raise_exception('Only user and assistant roles are supported!') }}\n"
        "    {%- endif %}\n{%- endfor %}",
        control=("<s>", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[INST]", "[/INST]", "</s>"),
        with_tools=False,
        extra={"bos_token": "<s>"},
    ),
    "phi3": Family(
        "{% for message in messages %}{% if message['role'] == 'system' %}"
        "{{ '<|system|>\n' + message['content'] + '<|end|>\n' }}"
        "{% elif message['role'] == 'user' %}{{ '<|user|>\n' + message['content'] + '<|end|>\n' }}"
        "{% elif message['role'] == 'assistant' %}{{ '<|assistant|>\n' + message['content'] + '<|end|>\n' }}"
        "{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
        control=("<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"),
        pieces=True,
        eats_space=True,
    ),
    "phi4-mini": Family(
        "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}",
        control=("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>", "<|endoftext|>"),
    ),
    "gemma": Family(
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for message in messages %}"
        "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Conversation roles must alternate user/assistant/...') }}{% endif %}"
        "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}"
        "{% set role = message['role'] %}{% endif %}"
        "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
        control=("<bos>", "<start_of_turn>", "<end_of_turn>", "<eos>"),
        pieces=True,
        with_tools=False,
        extra={"bos_token": "<bos>"},
    ),
    "deepseek-r1": Family(
        "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
        "{% set ns = namespace(system_prompt='') %}"
        "{%- for message in messages %}{%- if message['role'] == 'system' %}"
        "{% set ns.system_prompt = ns.system_prompt + message['content'] %}{%- endif %}{%- endfor %}"
        "{{ bos_token }}{{ ns.system_prompt }}"
        "{%- for message in messages %}"
        "{%- if message['role'] == 'user' %}{{ '<｜User｜>' + message['content'] }}{%- endif %}"
        "{%- if message['role'] == 'assistant' and message['content'] is not none %}"
        "{% set content = message['content'] %}{% if '</think>' in content %}"
        "{% set content = content.split('</think>')[-1] %}{% endif %}"
        "{{ '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}{%- endif %}"
        "{%- if message['role'] == 'tool' %}{{ '<｜tool▁output▁begin｜>' + message['content'] + "
        "'<｜tool▁output▁end｜>' }}{%- endif %}{%- endfor %}"
        "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}",
        control=(
            "<｜begin▁of▁sentence｜>",
            "<｜tool▁output▁begin｜>",
            "<｜tool▁output▁end｜>",
            "<｜end▁of▁sentence｜>",
        ),
        plain=("<think>", "</think>", "<｜User｜>", "<｜Assistant｜>"),  # as they are published
        extra={"bos_token": "<｜begin▁of▁sentence｜>"},
    ),
    "glm4": Family(
        "[gMASK]<sop>\n{%- for m in messages %}\n{%- if m.role == 'user' %}<|user|>\n{{ m.content }}\n"
        "{%- elif m.role == 'assistant' %}<|assistant|>\n"
        "{%- if '</think>' in m.content %}"
        "{%- set thought = m.content.split('</think>')[0].split('<think>')[-1] %}"
        "{%- set content = m.content.split('</think>')[-1] %}"
        "{%- else %}{%- set thought = '' %}{%- set content = m.content %}{%- endif %}\n"
        "{%- if loop.last %}\n{{ '\n<think>' + thought.strip() + '</think>' }}\n"
        "{%- else %}\n{{ '\n<think></think>' }}\n{%- endif %}\n"
        "{%- if content.strip() %}\n{{ '\n' + content.strip() }}\n{%- endif %}\n"
        "{%- elif m.role == 'tool' %}<|observation|>\n{{ m.content }}\n"
        "{%- elif m.role == 'system' %}<|system|>\n{{ m.content }}\n{%- endif %}\n{%- endfor %}\n"
        "{%- if add_generation_prompt %}\n<|assistant|>{%- endif %}",
        control=(
            "[gMASK]",
            "<sop>",
            "<|system|>",
            "<|user|>",
            "<|assistant|>",
            "<|observation|>",
            "<|endoftext|>",
        ),
        plain=("<think>", "</think>"),
    ),
    "granite": Family(
        "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content'] %}"
        "{%- set loop_messages = messages[1:] %}{%- else %}"
        "{%- set system_message = \"Today's Date: \" + strftime_now('%B %d, %Y') + '. You are Granite.' %}"
        "{%- set loop_messages = messages %}{%- endif %}"
        "{{- '<|start_of_role|>system<|end_of_role|>' + system_message + '<|end_of_text|>\n' }}"
        "{%- for message in loop_messages %}"
        "{{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' + message['content'] + "
        "'<|end_of_text|>\n' }}"
        "{%- if loop.last and add_generation_prompt %}"
        "{{- '<|start_of_role|>assistant<|end_of_role|>' }}{%- endif %}{%- endfor %}",
        control=("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"),
    ),
    "smollm3": Family(
        "{%- set today = strftime_now('%d %B %Y') -%}\n"
        "{%- if messages[0].role == 'system' -%}\n"
        "  {%- set custom = messages[0].content.replace('/no_think', '').replace('/think', '').rstrip() -%}\n"
        "{%- else -%}{%- set custom = 'You are helpful.' -%}{%- endif -%}\n"
        "{{- '<|im_start|>system\n## Metadata\n\nToday Date: ' + today + '\n\n' + custom + "
        "'<|im_end|>\n' -}}\n"
        "{%- for message in messages -%}\n"
        "  {%- if message.role == 'user' -%}\n"
        "    {{ '<|im_start|>user\n' + message.content + '<|im_end|>\n' }}\n"
        "  {%- elif message.role == 'assistant' -%}\n    {% generation %}\n"
        "    {{ '<|im_start|>assistant\n' + message.content.lstrip('\n') + '<|im_end|>\n' }}\n"
        "    {% endgeneration %}\n"
        "  {%- elif message.role == 'tool' -%}\n"
        "    {{ '<|im_start|>user\n' + message.content + '<|im_end|>\n' }}\n"
        "  {%- endif -%}\n{%- endfor -%}\n"
        "{%- if add_generation_prompt -%}\n  {{ '<|im_start|>assistant\n' }}\n{%- endif -%}",
        plain=("<think>", "</think>"),
    ),
    "zephyr": Family(
        "{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
        "{{ '<|user|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n"
        "{{ '<|system|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n"
        "{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
        "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}",
        control=("</s>",),
        pieces=True,
    ),
    "vicuna": Family(
        "{%- if messages[0]['role'] == 'system' -%}{%- set system = messages[0]['content'] -%}"
        "{%- set rest = messages[1:] -%}{%- else -%}{%- set system = 'A chat with an assistant.' -%}"
        "{%- set rest = messages -%}{%- endif -%}"
        "{{ system }}{% for message in rest %}"
        "{% if message['role'] == 'user' %} USER: {{ message['content'].strip() }}"
        "{% elif message['role'] == 'assistant' %} ASSISTANT: {{ message['content'].strip() }}{{ eos_token }}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %} ASSISTANT:{% endif %}",
        control=("</s>",),
        pieces=True,
        with_tools=False,
    ),
    "text-form": Family(
        "{% for message in messages %}{{ message['content'] }}{% endfor %}{{ eos_token }}",
        control=("</s>",),
    ),
    "internvl": Family(
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
        "{% for content in message['content'] %}{% if content['type'] == 'image' %}{{ '<IMG>\n' }}"
        "{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}"
        "{{ '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        control=("<IMG>", *CHATML),
        in_parts=True,
    ),
    "llava": Family(
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
        "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<IMG>\n' }}"
        "{% endfor %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
        "{{ content['text'] | trim }}{% endfor %}{{ '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        control=("<IMG>", *CHATML),
        in_parts=True,
    ),
}


@cache
def tokenizer_of(name: str) -> Any:
    """Return the tokenizer of a family, with its template."""
    family = FAMILIES[name]
    base = _pieces() if family.pieces else tiny.tokenizer().backend_tokenizer
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=base,
        eos_token=family.control[-1],
        pad_token="<|pad|>",
        chat_template=family.template,
        **family.extra,
    )
    tokens = [AddedToken(each, rstrip=family.eats_space, normalized=False) for each in family.control]
    wrapped.add_special_tokens({"additional_special_tokens": tokens})
    wrapped.add_tokens([AddedToken(each, special=False, normalized=False) for each in family.plain])
    return wrapped


def _pieces() -> Tokenizer:
    """Return a tokenizer of SentencePiece's kind: spaces are parts of words, and one stands before a text."""
    bpe = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    bpe.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first")])
    alphabet = [*map(chr, range(32, 127)), "\n", "▁"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=alphabet,
        special_tokens=["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    bpe.train_from_iterator([" ".join(tiny.WORDS), *(f" {word}\n\n" for word in tiny.WORDS)], trainer)
    written = json.loads(bpe.to_str())
    written["added_tokens"] = written["added_tokens"][:1]  # bytes are tokens of text
    return Tokenizer.from_str(json.dumps(written))
