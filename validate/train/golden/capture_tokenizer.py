#!/usr/bin/env python3
"""Writes a small byte-level BPE and what Hugging Face's tokenizers make of some texts with it.

    pip install tokenizers==0.23.3
    python3 capture_tokenizer.py /usr/share/common-licenses/GPL-3 > tokenizer.golden.json

The BPE is learnt from the file; its variants have the pre-tokenizers of well-known models. test_tokenizer.c writes each as a
tokenizer.json and must get the same ids.
"""
import json
import sys

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def split(pattern, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}


def sequence(*parts):
    return {"type": "Sequence", "pretokenizers": list(parts)}


GPT2 = dict(BYTES, use_regex=True)
VARIANTS = [
    ("gpt2", {"pre_tokenizer": GPT2}, False),
    ("llama3", {"pre_tokenizer": sequence(split({"Regex": LLAMA3}), BYTES)}, True),
    ("smollm", {"pre_tokenizer": sequence({"type": "Digits", "individual_digits": True}, GPT2)}, False),
    ("digits together", {"pre_tokenizer": sequence({"type": "Digits", "individual_digits": False}, GPT2)}, False),
    ("no pattern", {"pre_tokenizer": BYTES}, False),
    ("matches alone", {"pre_tokenizer": sequence(split({"Regex": r"\p{L}+|\p{N}"}, "Removed", True), BYTES)}, False),
    ("a literal", {"pre_tokenizer": sequence(split({"String": "(a."}), BYTES)}, False),
]
TEXTS = [
    "", "a", "The GNU General Public License is a free, copyleft license for software and other kinds of works.",
    "I'm, you're, he's, we'll, they'd; I'M YOU'RE HE'S WE'LL THEY'D", "don't  can't   won't\tshan't\n\nmustn't \n needn't",
    "0 1 12 123 1234 12345 3.14159 1e-5 2026-11-27", "   leading, trailing   ", "\n\n\n", " \t \r\n \r\n\r\n x\r\ny", "x" * 300, "ab" * 150, " " * 70 + "z",
    "naïve café, Straße, Ωmega, Привет мир, 你好，世界, こんにちは, 한국어", "e\u0301 and \u00e9 (combined or not)", "🙂👩‍👩‍👧 flags 🇩🇪",
    "no\u00a0break\u2003em\u3000ideographic\u2028line\u0085next", "١٢٣ ४५६ Ⅷ ½ ²", "if (a.b == (a.c)) { return a->x[0] + 0x1F; } // comment",
    "<|begin|>text<|end|> and <|endless|>, <|begin|><|begin|>", "<|end", "https://www.gnu.org/licenses/?q=%20&r=~", "\u0001\u007f\ufeff\ufffd",
]


def main():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
                                  special_tokens=["<|begin|>", "<|end|>", "<|endless|>"])
    tokenizer.train([sys.argv[1]], trainer)
    base = json.loads(tokenizer.to_str())
    base["post_processor"] = base["decoder"] = None
    out = {"tokenizer": base, "variants": []}
    for name, change, ignore in VARIANTS:
        one = json.loads(json.dumps(base))
        one.update(change)
        one["model"]["ignore_merges"] = ignore
        made = Tokenizer.from_str(json.dumps(one))
        cases = [{"text": t, "ids": made.encode(t, add_special_tokens=False).ids} for t in TEXTS]
        out["variants"].append({"name": name, "change": change, "ignore_merges": ignore, "cases": cases})
    text = json.dumps(out, ensure_ascii=True, separators=(",", ":"))
    print(text.replace('{"name"', '\n{"name"').replace('{"text"', '\n{"text"').replace('"merges"', '\n"merges"').replace('"vocab"', '\n"vocab"'))


main()
