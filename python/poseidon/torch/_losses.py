"""The average over workers is the gradient of the global batch, also where their parts are of unequal size.

A loss that is a mean over samples counts for as much as its samples: its gradient is scaled by N * mine / all, its value is unchanged. A
sum over samples is scaled by N. Only the gradient of the loss is scaled, not the whole gradient: what a script adds to it (a regulariser)
does not depend on the batch.
"""
import functools

import torch

from . import _data
from ._worker import size

_LOSSES = ("cross_entropy", "nll_loss", "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "binary_cross_entropy",
           "binary_cross_entropy_with_logits", "kl_div", "poisson_nll_loss", "gaussian_nll_loss", "hinge_embedding_loss",
           "soft_margin_loss", "multilabel_soft_margin_loss", "multi_margin_loss", "margin_ranking_loss", "cosine_embedding_loss",
           "triplet_margin_loss", "ctc_loss")


class _ScaledBackward(torch.autograd.Function):
    @staticmethod
    def forward(context, loss, scale):
        context.scale = scale
        return loss.view_as(loss)

    @staticmethod
    def backward(context, gradient):
        return gradient * context.scale, None


def scale_loss(loss, scale):
    """The same value, whose gradient is so many times as large."""
    return _ScaledBackward.apply(loss, scale) if scale != 1 and loss.requires_grad else loss


def attach():
    functional = torch.nn.functional
    for name in _LOSSES:
        setattr(functional, name, _scaled(getattr(functional, name)))


def _scaled(function):
    @functools.wraps(function)
    def loss(*arguments, **options):
        value = function(*arguments, **options)
        reduction = options.get("reduction", "mean")
        if not isinstance(value, torch.Tensor) or value.dim() != 0 or _data.present is None:
            return value
        mine, everybodys = _data.present
        if reduction == "sum":
            return scale_loss(value, size())
        return scale_loss(value, size() * mine / everybodys)

    return loss
