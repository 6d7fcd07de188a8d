"""Stand-in."""
import numpy as np


def loss_and_error(logits, labels):
    logits=logits.astype(np.float64)
    top = logits.max(axis=1)
    log_sum = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    loss = float(np.mean(log_sum - logits[np.arange(len(labels)), labels]))
    return loss, float(np.mean(logits.argmax(axis=1) != labels) * 100)
