"""The graders of LoRA layers and adapters accept right answers and tell typical wrong ones apart."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hybridft_utils import check_mine


class LoRA(nn.Module):
    """Right as it is; its subclasses are wrong in one thing each."""

    freeze, random_a, random_b = True, True, False

    def __init__(self, base, rank, alpha):
        super().__init__()
        self.base, self.rank, self.alpha = base.requires_grad_(not self.freeze), rank, alpha
        self.A = nn.Parameter(torch.randn(rank, base.in_features) * self.random_a)
        self.B = nn.Parameter(torch.randn(base.out_features, rank) * self.random_b)

    def factor(self):
        return self.alpha / self.rank

    def forward(self, x):
        return self.base(x) + self.factor() * (x @ self.A.T @ self.B.T)


class RandomB(LoRA):
    random_b = True


class BothZero(LoRA):
    random_a = False


class NotFrozen(LoRA):
    freeze = False


class NoScale(LoRA):
    def factor(self):
        return 1


class AlphaAlone(LoRA):
    def factor(self):
        return self.alpha


class RootOfRank(LoRA):
    def factor(self):
        return self.alpha / self.rank**0.5


class Transposed(LoRA):
    def __init__(self, base, rank, alpha):
        super().__init__(base, rank, alpha)
        self.A, self.B = nn.Parameter(self.A.data.T), nn.Parameter(self.B.data.T)

    def forward(self, x):
        return self.base(x) + self.factor() * (x @ self.A @ self.B)


class NoBias(LoRA):
    def forward(self, x):
        return x @ (self.base.weight + self.factor() * self.B @ self.A).T


class NoBase(LoRA):
    def forward(self, x):
        return self.factor() * (x @ self.A.T @ self.B.T)


class PlainTensors(LoRA):
    def __init__(self, base, rank, alpha):
        super().__init__(base, rank, alpha)
        a = self.A.data
        del self.A
        self.A = a


class Detached(LoRA):
    def forward(self, x):
        return self.base(x) + self.factor() * (x @ self.A.detach().T @ self.B.T)


class WrongOrder(LoRA):
    def forward(self, x):
        return self.base(x) + self.factor() * (self.B @ self.A @ x)


class Writes(LoRA):
    def forward(self, x):
        with torch.no_grad():
            self.base.weight += self.factor() * self.B @ self.A
        return self.base(x)


class Adapter(nn.Module):
    """Right as it is; its subclasses are wrong in one thing each."""

    def __init__(self, width, bottleneck):
        super().__init__()
        self.down, self.up = nn.Linear(width, bottleneck), nn.Linear(bottleneck, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, y):
        return y + self.up(F.relu(self.down(y)))


class RandomUp(Adapter):
    def __init__(self, width, bottleneck):
        super().__init__(width, bottleneck)
        self.up.reset_parameters()


class UpBias(Adapter):
    def __init__(self, width, bottleneck):
        super().__init__(width, bottleneck)
        nn.init.normal_(self.up.bias)


class ZeroDown(Adapter):
    def __init__(self, width, bottleneck):
        super().__init__(width, bottleneck)
        nn.init.zeros_(self.down.weight)


class NoResidual(Adapter):
    def forward(self, y):
        return self.up(F.relu(self.down(y)))


class Linear(Adapter):
    def forward(self, y):
        return y + self.up(self.down(y))


class Gelu(Adapter):
    def forward(self, y):
        return y + self.up(F.gelu(self.down(y)))


class LateRelu(Adapter):
    def forward(self, y):
        return y + F.relu(self.up(self.down(y)))


class Swapped(Adapter):
    def __init__(self, width, bottleneck):
        super().__init__(width, bottleneck)
        self.down, self.up = nn.Linear(bottleneck, width), nn.Linear(width, bottleneck)


class InPlace(Adapter):
    def forward(self, y):
        y += self.up(F.relu(self.down(y)))
        return y


RIGHT = [
    ("06.lora_layer", LoRA),
    ("08.adapter", Adapter),
]
WRONG = [
    ("06.lora_layer", RandomB, "B = 0 the layer must equal the base, but for x of shape (2, 3, 8)"),
    ("06.lora_layer", RandomB, "B does not start at zero"),
    ("06.lora_layer", BothZero, "A and B both start at zero"),
    ("06.lora_layer", NotFrozen, "more than A and B is trained: freeze base.bias, base.weight"),
    ("06.lora_layer", NoScale, "the scale alpha / rank is missing"),
    ("06.lora_layer", AlphaAlone, "by alpha, not by alpha / rank"),
    ("06.lora_layer", RootOfRank, "by alpha / sqrt(rank)"),
    ("06.lora_layer", Transposed, "A has shape (8, 2): it is transposed: it must be (rank, in_features)"),
    ("06.lora_layer", NoBias, "the base's bias is missing"),
    ("06.lora_layer", NoBase, "the base's output is missing"),
    ("06.lora_layer", PlainTensors, "A must be an nn.Parameter, not Tensor"),
    ("06.lora_layer", Detached, "no gradient reaches A"),
    ("06.lora_layer", WrongOrder, "for x of shape (2, 3, 8) it raises RuntimeError"),
    ("06.lora_layer", Writes, "it changes the base's weights"),
    ("08.adapter", RandomUp, "up does not start at zero"),
    ("08.adapter", UpBias, "up does not start at zero, in its weight and its bias"),
    ("08.adapter", ZeroDown, "down and up both start at zero"),
    ("08.adapter", NoResidual, "the residual path is missing"),
    ("08.adapter", Linear, "the non-linear function is missing"),
    ("08.adapter", Gelu, "not the ReLU but the GELU"),
    ("08.adapter", LateRelu, "the ReLU stands after up"),
    ("08.adapter", Swapped, "down goes from 3 to 8 features; it must go from 8 to 3"),
    ("08.adapter", InPlace, "it changes its input y"),
]


@pytest.mark.parametrize(("name", "mine"), RIGHT)
def test_right(name: str, mine: object) -> None:
    grade = check_mine(name, mine)
    assert grade, grade


@pytest.mark.parametrize(("name", "mine", "said"), WRONG)
def test_wrong(name: str, mine: object, said: str) -> None:
    grade = check_mine(name, mine)
    assert not grade and said in repr(grade), grade
