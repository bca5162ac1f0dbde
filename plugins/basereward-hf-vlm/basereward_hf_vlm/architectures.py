"""Known architectures: those whose responses may share a prompt, and chat templates of those without one."""

from __future__ import annotations

SHARING = frozenset(
    {"idefics3", "internvl", "llava", "llava_next", "llava_onevision", "smolvlm"},
)
"""Model types that hand positions and attention arguments to their decoder unchanged, with causal attention.
Each is tested; any other gets a row for each response, which is always right.
"""

TEMPLATES = {
    # An image and the prompt are the prefix, which sees itself whole; the response is the suffix (arXiv
    # 2407.07726, section 3.2). It knows no roles.
    "paligemma": (
        "{% for message in messages[:-1] %}{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}<image>{% endif %}{% endfor %}{% endfor %}{{ bos_token }}"
        "{% for message in messages[:-1] %}{% for part in message['content'] %}"
        "{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{{ '\n' }}{% endfor %}"
        "{{ messages[-1]['content'][0]['text'] }}{{ eos_token }}"
    )
}
"""Chat templates of model types whose published models have none."""
