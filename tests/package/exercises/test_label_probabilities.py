"""The grader of label probabilities accepts right answers and tells typical wrong ones apart."""

import pytest
import torch

from hybridft_utils import check_mine

NAME = "10.label_probabilities"


def log_mean(z, own):
    return z.log_softmax(1)[:, own].exp().mean(1).log()


def mean_logit(z, own):
    return z[:, own].mean(1)


def first(z, own):
    return z[:, own[0]]


def log_sum(z, own):
    return z.log_softmax(1)[:, own].logsumexp(1)


def answer(score=log_mean, sign=1, axis=1, last=torch.softmax, prior=None):
    def label_probabilities(logits, words, neutral):
        s, n = (torch.stack([score(z, own) for own in words], 1) for z in (logits, neutral))
        subtracted = n.log_softmax(1).mean(0) if prior is None else prior(n)
        return last(s - sign * subtracted, axis)

    return label_probabilities


# With the prior subtracted, the number of words per label cancels: a sum is as right as a mean.
@pytest.mark.parametrize("score", [log_mean, log_sum])
def test_right(score) -> None:
    grade = check_mine(NAME, answer(score))
    assert grade, grade


@pytest.mark.parametrize(
    ("mine", "said"),
    [
        (answer(sign=0), "not subtracted"),
        (answer(sign=-1), "the prior is added"),
        (answer(mean_logit), "over the words' logits"),
        (answer(first), "only the first word"),
        (answer(last=lambda s, axis: s), "a softmax over the labels is missing"),
        (answer(last=torch.log_softmax), "these are logarithms"),
        (answer(axis=0), "the softmax goes over the batch"),
        (answer(prior=lambda n: n.softmax(1).mean(0).log()), "take the mean of the logarithms"),
    ],
)
def test_each_mistake_has_its_sentence(mine, said: str) -> None:
    assert said in repr(check_mine(NAME, mine))
