"""`cptlib export`."""

import shutil
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from cptlib.commands.options import load


def export(
    adapter: Annotated[Path, Parameter(help="A folder that train wrote.")],
    *,
    to: Annotated[Path, Parameter(help="Where the whole model goes.")],
    dtype: Annotated[Literal["bfloat16", "float16", "float32"], Parameter(help="Of its weights.")] = "bfloat16",
    gguf: Annotated[Literal["q8_0", "f16", "bf16", "f32"] | None, Parameter(help="Also write TO.gguf.")] = None,
    upload: Annotated[str | None, Parameter(help="Also send TO to the hub as USER/NAME, private.")] = None,
) -> dict:
    """Make a whole model of an adapter.

    Merged 16-bit weights that plain transformers (vLLM, …) loads, and, if asked, one GGUF file for llama.cpp and Ollama.
    Nothing is installed or sent unless you ask for it here.

      cptlib export outputs/laptop-1a2b3c4d/adapter --to my_model
      cptlib export ADAPTER --to my_model --gguf q8_0         also my_model.gguf (needs llama.cpp's converter)
      cptlib export ADAPTER --to my_model --upload me/name    also to the hub, private; the token is in HF_TOKEN
      transformers serve my_model                             then: an OpenAI-compatible server
    """
    model, tokenizer, recipe = load(str(adapter))
    from cptlib.export import HELD_OUT, save_gguf, save_merged
    from cptlib.export import upload as send

    made = {"model": str(save_merged(model, tokenizer, recipe, to, dtype))}
    for name in ("README.md", HELD_OUT):
        if (adapter / name).exists():
            shutil.copy(adapter / name, to / name)
    if gguf:
        made["gguf"] = str(save_gguf(to, f"{to.resolve()}.gguf", gguf))
    if upload:
        made["address"] = send(to, upload)
    print(*(f"{kind}: {place}" for kind, place in made.items()), sep="\n")
    return made
