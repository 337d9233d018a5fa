"""The average over workers is the gradient of the global batch, also where their parts are of unequal size.

A loss that is a mean over samples counts for as much as its samples: its gradient is scaled by N * mine / all, its value is unchanged. Where
samples do not count alike (class weights, targets that are ignored) mine and all are sums of weights, which the workers tell each other. A
sum over samples is scaled by N. Only the gradient of the loss is scaled, not the whole gradient: what a script adds to it (a regulariser)
does not depend on the batch.
"""
import inspect
import os
import sys

import torch

from .._worker import rank, size
from . import _data
from ._wrapping import wraps

_LOSSES = ("cross_entropy", "nll_loss", "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "binary_cross_entropy",
           "binary_cross_entropy_with_logits", "kl_div", "poisson_nll_loss", "gaussian_nll_loss", "hinge_embedding_loss",
           "soft_margin_loss", "multilabel_margin_loss", "multilabel_soft_margin_loss", "multi_margin_loss", "margin_ranking_loss",
           "cosine_embedding_loss", "triplet_margin_loss", "triplet_margin_with_distance_loss", "ctc_loss")
# Of these a target may be a class that is ignored, and classes may have weights.
_OF_CLASSES = ("cross_entropy", "nll_loss")
_IGNORED = -100  # PyTorch's own default

# Losses that the script reduces itself: None, "seen" by reduction='none', or "explained", by the script to us or by us to its user.
_hand_written = None


class _ScaledBackward(torch.autograd.Function):
    @staticmethod
    def forward(context, loss, scale):
        context.scale = scale
        return loss.view_as(loss)

    @staticmethod
    def backward(context, gradient):
        return gradient * context.scale, None


def scaled(loss, scale):
    """The same value, whose gradient is so many times as large."""
    return _ScaledBackward.apply(loss, scale) if scale != 1 and loss.requires_grad else loss


def of_hand_written(loss, reduction):
    """Of a loss that the script has reduced itself, as it says: "mean" or "sum"."""
    global _hand_written
    _hand_written = "explained"
    return mean_of_part(loss) if reduction == "mean" else sum_of_part(loss)


def _explain():
    """Before a backward pass: if the script has not said how it reduces a loss, Poseidon says what it takes it for."""
    global _hand_written
    if _hand_written != "seen":
        return
    _hand_written = "explained"
    if rank() == 0:
        print("poseidon: this script reduces a loss by itself (reduction='none'), and Poseidon takes the result for a mean over equal parts. Where parts "
              "are unequal, or it is a sum, say so: `poseidon run --loss mean` (or sum), or poseidon.torch.scale_loss(loss, reduction=...)",
              file=sys.stderr, flush=True)


def mean_of_part(loss, rows=None):
    """A mean over this worker's part of the batch, with the gradient of the mean over all of it."""
    present = _data.present_for(rows)
    return loss if present is None else scaled(loss, size() * present[0] / present[1])


def sum_of_part(loss):
    """Likewise a sum. (Nobody's part counts twice: an empty part's only sample is another's.)"""
    present = _data.present_for()
    return loss if present is None else scaled(loss, size() if present[0] > 0 else 0)


def attach(gradients):
    reduction = os.environ.get("POSEIDON_LOSS")
    if reduction is not None:
        # The script's own reductions: what is given to backward() is one over this worker's part.
        gradients.scale_of_root = lambda: _scale_of_root(reduction)
        return
    gradients.on_pass.append(_explain)
    functional = torch.nn.functional
    for name in _LOSSES:
        setattr(functional, name, _wrapped(getattr(functional, name), gradients, of_classes=name in _OF_CLASSES))


def _scale_of_root(reduction):
    present = _data.present_for()
    if present is None:
        return 1
    return size() * present[0] / present[1] if reduction == "mean" else size() if present[0] > 0 else 0


def _wrapped(function, gradients, of_classes):
    signature = inspect.signature(function)

    @wraps(function)
    def loss(*arguments, **options):
        global _hand_written
        if torch.compiler.is_compiling():
            torch._dynamo.graph_break()  # how much a part counts is another number in every step
        value = function(*arguments, **options)
        if not isinstance(value, torch.Tensor) or not value.requires_grad or not gradients.is_on:
            return value
        if _hand_written is None and options.get("reduction") == "none":
            _hand_written = "seen"
        if value.dim() != 0:
            return value
        if torch._C._are_functorch_transforms_active():
            return value  # whoever asks for such a gradient gets it, and nobody averages it
        given = signature.bind(*arguments, **options).arguments
        if given.get("reduction", "mean") == "sum" or given.get("size_average") is False:
            return sum_of_part(value)
        first = next(iter(given.values()))
        rows = first.shape[0] if isinstance(first, torch.Tensor) and first.dim() > 0 else None
        if of_classes:
            weight = _own_weight(given, _data.present_for(rows))
            if weight is not None:
                present = _data.present_for(rows)
                own = weight if present is None or present[0] > 0 else 0.0
                return scaled(value, _share(own, gradients))
        return mean_of_part(value, rows)

    return loss


def _own_weight(given, present):
    """The sum of the weights of this worker's targets, where they may not count alike; None where each counts as much as any other."""
    target, weight, ignored = given["target"], given.get("weight"), given.get("ignore_index", _IGNORED)
    if present is None or target.is_floating_point():
        return None  # probabilities: their mean is over samples
    may_ignore = ignored != _IGNORED or target.numel() != max(present[0], 1) or "POSEIDON_COUNT_TARGETS" in os.environ
    counted = target[target != ignored]
    if weight is None and not may_ignore:
        if counted.numel() != target.numel():
            raise RuntimeError(f"a target is {ignored}, which this loss ignores. Poseidon did not expect that where each sample has one target, "
                               "since the workers would have to tell each other how many they ignore: say so with `poseidon run --count-targets`")
        return None
    return float(counted.numel()) if weight is None else float(weight.detach()[counted].sum())


def _share(own, gradients):
    """N * own / the sum over all workers. All of them come here at the same place of their scripts."""
    gradients.before_forward()
    everybodys = sum(gradients.gather("tells the weight of its targets", own))
    return size() * own / everybodys if everybodys else 0.0
