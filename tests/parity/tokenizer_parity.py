#!/usr/bin/env python3
"""Compares our tokenizer with Hugging Face `tokenizers`: vocabularies learned, ids, speed on one thread.

usage: tokenizer_parity.py BUILD [--bytes N] [--vocab N] [--corpus FILE]
BUILD is the build directory. The corpus is ten megabytes of text and code in many scripts from this machine (corpus.py)
unless a UTF-8 file is given.

Trains both on the corpus, compares vocabulary and merges, then encodes the same texts with both: the corpus, random
strings, every character in several surroundings, other patterns, added tokens. Prints one line a comparison; exits 1 if
any text without characters newer than Unicode 14 has other ids, or if ours is slower.
"""

import argparse
import json
import os
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

import corpus
from harness import print_table

SPECIAL = [
    "<｜begin▁of▁sentence｜>",
    "<｜end▁of▁sentence｜>",
    "<｜▁pad▁｜>",
    "<｜fim▁hole｜>",
    "<｜fim▁begin｜>",
    "<｜fim▁end｜>",
]
NUMBERS = r"\p{N}{1,3}"
IDEOGRAPHS = "[一-龥぀-ゟ゠-ヿ]+"
REST = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"""| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
)
CL100K = (
    r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"""
    r"""|\s*[\r\n]+|\s+(?!\S)|\s+"""
)

def frames(texts):
    encoded = [t.encode() for t in texts]
    return b"".join(struct.pack("<I", len(b)) + b for b in encoded)


def ours(tool, path, texts, special=False):
    run = subprocess.run(
        [tool, "encode", path, "special" if special else "plain"],
        input=frames(texts),
        stdout=subprocess.PIPE,
        check=True,
    )
    result, offset = [], 0
    for _ in texts:
        (count,) = struct.unpack_from("<I", run.stdout, offset)
        result.append(list(struct.unpack_from(f"<{count}i", run.stdout, offset + 4)))
        offset += 4 + 4 * count
    return result


def theirs(path, texts, special=False):
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = not special
    return [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]


def recent(text):
    """Whether the text has a character that Python's tables (Unicode 14) do not know."""
    return corpus.known(text) != text


def compare(name, tool, path, texts, special=False):
    a, b = ours(tool, path, texts, special), theirs(path, texts, special)
    differ = [i for i in range(len(texts)) if a[i] != b[i]]
    known = [i for i in differ if recent(texts[i])]
    tokens = sum(map(len, a))
    print(f"{name}: {len(texts)} texts, {tokens} ids, {len(differ)} differ,", end=" ")
    print(f"of those {len(known)} by characters newer than Unicode 14")
    for i in [i for i in differ if i not in set(known)][:5]:
        print("   ", [hex(ord(c)) for c in texts[i][:24]], a[i][:12], b[i][:12])
    return len(differ) - len(known)


def scalars():
    return [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def random_strings(rng, count):
    """Any code points of Unicode 14, in runs of one block, among spaces, and alone."""
    pool = [c for c in scalars() if corpus.known(c) == c]
    texts = [corpus.known(corpus.mixed(rng, rng.randrange(1, 40))) for _ in range(count)]
    for _ in range(count):
        parts = []
        for _ in range(rng.randrange(1, 20)):
            at = rng.randrange(len(pool))
            run = pool[at : at + rng.randrange(1, 5)]
            if rng.random() < 0.3:
                run = rng.choices(pool, k=rng.randrange(1, 4))
            parts.append("".join(run) + (rng.choice(corpus.SPACES) if rng.random() < 0.3 else ""))
        texts.append("".join(parts))
    return texts


def train_theirs(texts, vocab_size):
    tokenizer = Tokenizer(models.BPE())
    split = [pre_tokenizers.Split(Regex(p), "isolated") for p in (NUMBERS, IDEOGRAPHS, REST)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        split + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def compare_training(name, tool, texts, vocab_size, directory):
    start = time.time()
    run = subprocess.run([tool, "train", str(vocab_size), "2"], input=frames(texts), stdout=subprocess.PIPE, check=True)
    middle = time.time()
    other = train_theirs(texts, vocab_size)
    end = time.time()
    path = directory / f"{name}.json"
    path.write_bytes(run.stdout)
    other_path = directory / f"{name}_theirs.json"
    other.save(str(other_path))
    a, b = json.loads(run.stdout)["model"], json.loads(other_path.read_text())["model"]
    merges_a = [m.split(" ") for m in a["merges"]]
    same = a["vocab"] == b["vocab"] and merges_a == b["merges"]
    print(f"train {name}: {vocab_size} tokens, same vocabulary and merges: {same};", end=" ")
    print(f"ours {middle - start:.1f} s, theirs {end - middle:.1f} s")
    if not same:
        first = next(
            (i for i, (x, y) in enumerate(zip(merges_a, b["merges"])) if x != y), min(len(merges_a), len(b["merges"]))
        )
        print("    first difference at merge", first, merges_a[first : first + 3], b["merges"][first : first + 3])
    # Their file must mean the same to us.
    return path, other_path, 0 if same else 1


def variant(path, directory, name, pre_tokenizer, ignore_merges=False, added=()):
    """A copy of the tokenizer with another pre-tokenizer or more added tokens, written by Hugging Face."""
    spec = json.loads(path.read_text())
    spec["pre_tokenizer"] = pre_tokenizer or spec["pre_tokenizer"]
    spec["model"]["ignore_merges"] = ignore_merges
    draft = directory / "draft.json"
    draft.write_text(json.dumps(spec))
    tokenizer = Tokenizer.from_file(str(draft))
    tokenizer.add_tokens([AddedToken(c, normalized=n, special=s) for c, n, s in added])
    result = directory / f"{name}.json"
    tokenizer.save(str(result))
    return result


def every_character(tool, path):
    bad = 0
    for name, form in [
        ("alone", "{}"),
        ("twice", "{0}{0}"),
        ("after a letter", "a{}b"),
        ("after a space", "x {} y"),
        ("before line break", "  {}\n\n"),
        ("before spaces", "1{}  2"),
        ("after punctuation", "!{}a"),
    ]:
        bad += compare(f"every character {name}", tool, path, [form.format(c) for c in scalars()])
    return bad


def other_patterns(tool, path, directory, texts):
    gpt2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    split = {"type": "Split", "pattern": {"Regex": CL100K}, "behavior": "Isolated", "invert": False}
    plain = dict(gpt2, use_regex=False)
    gpt4 = {"type": "Sequence", "pretokenizers": [split, plain]}
    bad = compare("GPT-2 pattern", tool, variant(path, directory, "gpt2", gpt2), texts)
    bad += compare("GPT-4 pattern", tool, variant(path, directory, "gpt4", gpt4), texts)
    bad += compare("no pattern", tool, variant(path, directory, "whole", plain), texts[:2000])
    return bad + compare("ignore_merges", tool, variant(path, directory, "ignore", None, True), texts)


def added_tokens(tool, path, directory, rng):
    added = [
        ("<a>", False, False),
        ("<a><b>", True, False),
        ("<b>", True, False),
        ("<a><", False, True),
        ("e", True, False),
        ("<b>e", False, False),
        ("é<", True, True),
        ("<c>", False, True),
    ]
    path = variant(path, directory, "added", None, False, added)
    atoms = [c for c, _, _ in added] + SPECIAL[:4] + ["<", ">", "a", " ", "\n", "b>", "é", "The"]
    texts = ["".join(rng.choice(atoms) for _ in range(rng.randrange(1, 30))) for _ in range(20000)]
    return compare("added tokens, special ones read", tool, path, texts, special=True)


def short(documents):
    return [d[i : i + 100] for d in documents[::4] for i in range(0, len(d), 100)]


def compare_speed(name, build, path, texts, directory, rounds=5):
    """Both encode all texts on one thread, in turn; rows of a table, and whether ours is at least as fast."""
    (directory / "texts").write_bytes(frames(texts))
    program = build / "tests" / "parity" / "encode_speed"
    process = subprocess.Popen([program, path, directory / "texts"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.encode_special_tokens = True
    size, seconds = sum(len(t.encode()) for t in texts) / 1e6, ([], [])
    for _ in range(rounds):
        process.stdin.write(b"\n")
        process.stdin.flush()
        taken, count = process.stdout.readline().split()
        start = time.perf_counter()
        encoded = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        seconds[1].append(time.perf_counter() - start)
        seconds[0].append(float(taken))
        assert int(count) == sum(len(e.ids) for e in encoded), name
    process.stdin.close()
    process.wait()
    ours, theirs = (size / min(s) for s in seconds)
    return [name, f"{size:.1f}", f"{ours:.1f}", f"{theirs:.1f}", f"{ours / theirs:.2f}"], ours >= theirs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--bytes", type=int, default=10_000_000)
    parser.add_argument("--vocab", type=int, default=16384)
    parser.add_argument("--corpus", type=pathlib.Path)
    options = parser.parse_args()
    tool = options.build / "tests" / "data" / "tokenizer_parity_tool"
    directory = pathlib.Path(tempfile.mkdtemp())
    rng = random.Random(7)
    print("tokenizers", tokenizers.__version__)
    if options.corpus:
        text = options.corpus.read_text(encoding="utf-8")
        documents = [text[i : i + corpus.DOCUMENT] for i in range(0, len(text), corpus.DOCUMENT)]
    else:
        documents, made_of = corpus.build(options.bytes)
        print("corpus:", made_of)
    fuzz = random_strings(rng, 20000)
    part = documents[::4]
    ours, theirs, bad = compare_training("corpus", tool, part, options.vocab, directory)
    small, _, differ = compare_training("random", tool, fuzz + part[:20], 3000, directory)
    bad += differ
    bad += compare("corpus", tool, ours, documents)
    bad += compare("corpus, their file", tool, theirs, documents[:200])
    bad += compare("corpus, small vocabulary", tool, small, documents)
    bad += compare("random strings", tool, ours, fuzz)
    bad += compare("random strings, small vocabulary", tool, small, fuzz)
    bad += every_character(tool, ours)
    bad += other_patterns(tool, small, directory, fuzz[:20000] + documents[:200])
    bad += added_tokens(tool, small, directory, rng)
    rows, fast = [], True
    for name, texts in [("corpus", documents), ("texts of 100 characters", short(documents))]:
        row, at_least_equal = compare_speed(name, options.build, ours, texts, directory)
        rows.append(row)
        fast &= at_least_equal
    print_table(["one thread", "MB", "ours MB/s", "theirs MB/s", "ours is faster by"], rows)
    print(f"tokenizer: {bad} different; {'ok' if bad == 0 and fast else 'FAILED'}")
    sys.exit(1 if bad or not fast else 0)


if __name__ == "__main__":
    main()
