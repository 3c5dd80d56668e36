"""The answers of the research lessons."""

import numpy as np
import scipy.special
import torch

from tests.answers import derives


@derives("r1.1")
def _(task):
    values = task.names["values"].numpy()
    equal_scores = np.full(len(values), 1.7)  # equal keys, whatever the query
    return (scipy.special.softmax(equal_scores) @ values).tolist()


@derives("r1.2")
def _(lengths, T):
    return torch.tensor([[[0.0] * n + [-float("inf")] * (T - n)] for n in lengths])


@derives("r1.3")
def _(Q, K, V, allowed):
    return torch.nn.functional.scaled_dot_product_attention(Q, K, V, attn_mask=allowed)


@derives("r1.4")
def _(_):
    def pairs(words):
        return len([(a, b) for a in range(words) for b in range(words)])

    return pairs(40) // pairs(10), 40 // 10, 1
