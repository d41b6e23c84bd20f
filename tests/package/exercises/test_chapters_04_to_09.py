"""The graders of functions in chapters 04 to 09 accept right answers and tell typical wrong ones apart."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

from hybridft_utils import check_mine


def sklearn_f1(average):
    return lambda predicted, truth: float(f1_score(truth, predicted, average=average, zero_division=0))


def of_means(predicted, truth):
    p, r = (
        score(truth, predicted, average="macro", zero_division=0) for score in (precision_score, recall_score)
    )
    return 2 * p * r / (p + r)


def only_true_classes(predicted, truth):
    classes = sorted(set(truth))
    return f1_score(truth, predicted, labels=classes, average="macro", zero_division=0)


def divides_by_zero(predicted, truth):
    scores = []
    for c in {*predicted, *truth}:
        hits = sum(p == t == c for p, t in zip(predicted, truth, strict=True))
        precision, recall = hits / predicted.count(c), hits / truth.count(c)
        scores.append(2 * precision * recall / (precision + recall))
    return sum(scores) / len(scores)


def train_once(model, optimizer, batches, training=True, clear=True, size=len, early=False, joint=False):
    model.train(training)
    total = seen = 0
    for x, y in batches:
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        if early:
            optimizer.zero_grad()
        if not joint:
            optimizer.step()
        if clear and not joint:
            optimizer.zero_grad()
        total, seen = total + size(y) * loss.item(), seen + size(y)
    if joint:
        optimizer.step()
    return total / seen


def last_loss(model, optimizer, batches):
    train_once(model, optimizer, batches[:-1])
    return train_once(model, optimizer, batches[-1:])


def detached(model, optimizer, batches):
    train_once(model, optimizer, batches)
    return torch.tensor(1.0)


def returns_nothing(model, optimizer, batches):
    train_once(model, optimizer, batches)


def prepend(P, embedded, mask, seen=1, behind=False, mask_behind=False):
    batch = len(embedded)
    parts = [P.expand(batch, -1, -1), embedded]
    masks = [mask.new_full((batch, len(P)), seen), mask]
    return torch.cat(parts[::-1] if behind else parts, 1), torch.cat(masks[::-1] if mask_behind else masks, 1)


def prefixed(q, k, v, prefix_k, prefix_v, mask, scale=0.5, seen=True, extend=True, axis=-1):
    batch, length = len(q), len(prefix_k)
    keys = torch.cat([prefix_k.expand(batch, -1, -1), k], 1)
    values = torch.cat([prefix_v.expand(batch, -1, -1), v], 1)
    if extend:
        mask = torch.cat([mask.new_full((batch, mask.shape[1], length), seen), mask], 2)
    return (q @ keys.mT * scale).masked_fill(~mask, -torch.inf).softmax(axis) @ values


def two_softmaxes(q, k, v, prefix_k, prefix_v, mask):
    text = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return text + (q @ prefix_k.T / 2).softmax(-1) @ prefix_v


def square_mask(q, k, v, prefix_k, prefix_v, mask):
    keys, values = (torch.cat([p.expand(2, -1, -1), t], 1) for p, t in ((prefix_k, k), (prefix_v, v)))
    return F.scaled_dot_product_attention(q, keys, values, is_causal=True)


def behind(q, k, v, prefix_k, prefix_v, mask):
    keys, values = (torch.cat([t, p.expand(2, -1, -1)], 1) for p, t in ((prefix_k, k), (prefix_v, v)))
    return F.scaled_dot_product_attention(q, keys, values, attn_mask=F.pad(mask, (3, 0), value=True))


def no_mask(q, k, v, prefix_k, prefix_v, mask):
    return prefixed(q, k, v, prefix_k, prefix_v, mask | True)


def hybrid(h, W_q, W_k, W_v, lora_q, lora_v, scale, prefix_k, prefix_v, mask=None, prefix=True):
    q, v = (h @ (W + scale * B @ A).T for W, (A, B) in ((W_q, lora_q), (W_v, lora_v)))
    k = h @ W_k.T
    mask = torch.ones(2, h.shape[1], h.shape[1], dtype=torch.bool).tril() if mask is None else mask
    if not prefix:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return prefixed(q, k, v, prefix_k, prefix_v, mask)


def scale_one(h, q, k, v, lora_q, lora_v, scale, *prefix):
    return hybrid(h, q, k, v, lora_q, lora_v, 1, *prefix)


def only_query(h, q, k, v, lora_q, lora_v, scale, *prefix):
    return hybrid(h, q, k, v, lora_q, (lora_v[0], 0 * lora_v[1]), scale, *prefix)


def on_the_key(h, q, k, v, lora_q, lora_v, scale, *prefix):
    return hybrid(
        h, q, k + scale * lora_v[1] @ lora_v[0], v, lora_q, (lora_v[0], 0 * lora_v[1]), scale, *prefix
    )


RIGHT = [
    ("04.macro_f1", sklearn_f1("macro")),
    ("04.train_epoch", train_once),
    ("05.soft_prompt", prepend),
    ("07.prefix_attention", prefixed),
    ("09.hybrid_layer", hybrid),
]
WRONG = [
    ("04.macro_f1", lambda p, t: float(accuracy_score(t, p)), "this is the accuracy"),
    ("04.macro_f1", sklearn_f1("weighted"), "weighted by how often they are true"),
    ("04.macro_f1", lambda p, t: f1_score(t, p, average=None)[-1], "the last class alone"),
    ("04.macro_f1", of_means, "the F1 of the mean precision and the mean recall"),
    ("04.macro_f1", only_true_classes, "a class that is never true, but predicted, counts too"),
    ("04.macro_f1", divides_by_zero, "it raises ZeroDivisionError"),
    ("04.macro_f1", lambda p, t: f1_score(t, p, average=None, zero_division=0).sum(), "sum over the classes"),
    ("04.macro_f1", lambda p, t: float("nan"), "it returns nan"),
    ("04.train_epoch", lambda m, o, b: train_once(m, o, b, clear=False), "earlier batches are still there"),
    ("04.train_epoch", lambda m, o, b: train_once(m, o, b, training=False), "stayed in evaluation mode"),
    ("04.train_epoch", lambda m, o, b: train_once(m, o, b, early=True), "nothing was trained"),
    ("04.train_epoch", lambda m, o, b: train_once(m, o, b, joint=True), "one step for all batches"),
    ("04.train_epoch", lambda m, o, b: train_once(m, o, b[:1]), "only the first batch"),
    ("04.train_epoch", lambda m, o, b: train_once(m, o, b[:-1]), "the last batch is missing"),
    ("04.train_epoch", lambda m, o, b: train_once(m, o, b, size=lambda y: 1), "weigh each batch's loss"),
    ("04.train_epoch", last_loss, "this is the loss of the last batch"),
    ("04.train_epoch", detached, "returns Tensor, not a number"),
    ("04.train_epoch", returns_nothing, "returns None, not a number"),
    ("05.soft_prompt", lambda P, e, m: (prepend(P, e, m)[0], m), "the mask is not extended"),
    ("05.soft_prompt", lambda P, e, m: prepend(P, e, m, seen=0), "the mask is 0 on the prompt"),
    ("05.soft_prompt", lambda P, e, m: prepend(P, e, m, mask_behind=True), "extended on the right"),
    ("05.soft_prompt", lambda P, e, m: prepend(P, e, m, behind=True), "after the text, not in front of it"),
    ("05.soft_prompt", lambda P, e, m: prepend(P.detach(), e, m), "no gradient reaches P"),
    ("05.soft_prompt", lambda P, e, m: prepend(P, e, m.float()), "torch.float32, not torch.int64"),
    ("05.soft_prompt", lambda P, e, m: (prepend(P, e, m)[0], torch.ones(2, 8).long()), "1 on padding"),
    ("05.soft_prompt", lambda P, e, m: prepend(P, e, m)[0], "not the pair (embedded, mask)"),
    ("05.soft_prompt", lambda P, e, m: (torch.cat([P[None], e], 1), m), "it raises RuntimeError"),
    ("07.prefix_attention", lambda *given: prefixed(*given, scale=1), "by the square root of d"),
    ("07.prefix_attention", lambda *given: prefixed(*given, seen=False), "the prefix has no effect"),
    ("07.prefix_attention", lambda *given: prefixed(*given, extend=False), "it raises RuntimeError"),
    ("07.prefix_attention", two_softmaxes, "one softmax goes over both"),
    ("07.prefix_attention", square_mask, "the mask was shifted, not extended"),
    ("07.prefix_attention", behind, "extended on the other side"),
    ("07.prefix_attention", no_mask, "the mask of the text is missing"),
    (
        "07.prefix_attention",
        lambda q, k, v, pk, pv, m: prefixed(q, k, v, pk, pk, m),
        "where its values belong",
    ),
    (
        "07.prefix_attention",
        lambda q, k, v, pk, pv, m: prefixed(q, k, v, pk[:0], pv[:0], m),
        "the prefix has no effect",
    ),
    ("09.hybrid_layer", scale_one, "LoRA's scale is missing"),
    ("09.hybrid_layer", only_query, "the value has no LoRA"),
    ("09.hybrid_layer", on_the_key, "LoRA sits on the key, not on the value"),
    ("09.hybrid_layer", lambda *given: hybrid(*given, prefix=False), "the prefix has no effect"),
    (
        "09.hybrid_layer",
        lambda *given: hybrid(*given, mask=torch.ones(2, 5, 5, dtype=torch.bool)),
        "the causal mask is missing",
    ),
]


@pytest.mark.parametrize(("name", "mine"), RIGHT)
def test_right(name: str, mine: object) -> None:
    grade = check_mine(name, mine)
    assert grade, grade


@pytest.mark.parametrize(("name", "mine", "said"), WRONG)
def test_wrong(name: str, mine: object, said: str) -> None:
    grade = check_mine(name, mine)
    assert not grade and said in repr(grade), grade
