"""Questions that are not answered by yes or no: what kind of thing is in this picture?"""

import torch
from PIL import Image

from creativelib.generator import Generator

KIND = "What kind of {subject} is in this photo?"
LONGEST = 12  # new tokens of an answer


def ask(checker, image: Image.Image, question: str) -> str:
    """The answer of the checker's model in its own words, greedy; "" where it says nothing.

    Args:
        checker: a ``YesNoChecker``, or anything that has an ``ask(image, question)`` of its own.
        question: a whole sentence, put in the model's own form of chat.
    """
    own = getattr(checker, "ask", None)
    if own is not None:
        return clean(own(image, question))
    model, processor = checker.model, checker.processor
    tokenizer = getattr(processor, "tokenizer", processor)
    if getattr(processor, "chat_template", None):
        content = [{"type": "image"}, {"type": "text", "text": question}]
        prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    else:
        prompt = f"{getattr(processor, 'image_token', '<image>')}\n{question}"
    mode = {"generation_mode": "text"} if "janus" in model.config.model_type else {}
    inputs = processor(images=[image.convert("RGB")], text=[prompt], return_tensors="pt", **mode).to(model.device)
    inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
    with torch.no_grad():
        tokens = model.generate(**inputs, max_new_tokens=LONGEST, do_sample=False, pad_token_id=tokenizer.pad_token_id, **mode)
    return clean(tokenizer.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))


def clean(answer: str) -> str:
    """An answer as a class: lower case, on one line, without a leading article or a full stop at the end."""
    words = " ".join(answer.lower().split()).rstrip(".")
    for article in ("a ", "an ", "the "):
        words = words.removeprefix(article)
    return words


def readable(generator: Generator, template: str, answer: str) -> str:
    """As much of an answer as the text encoder can read in ``template``: ``{token}`` stands for it, ``{a}`` for an article."""
    while answer:
        try:
            generator.tokenize(template.replace("{a}", "the").format(token=answer))
            break
        except ValueError:
            answer = answer[:-1].rstrip()
    return answer
