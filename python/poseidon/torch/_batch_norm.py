"""BatchNorm over the global batch, where `--sync-batch-norm` asks for it: all workers normalise with the mean and the variance of all rows.

The workers tell each other each layer's moments in the forward pass, and the two sums that its gradient needs in the backward pass. What
comes out is what one process computes: the moments are combined by Chan, Golub and LeVeque's formula for parts of unequal size.
"""
import torch

from . import _data
from ._wrapping import wraps


def attach(gradients):
    functional = torch.nn.functional
    batch_norm = functional.batch_norm

    @wraps(batch_norm)
    def synced(input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
        if not training or not gradients.is_on or not torch.is_grad_enabled() or _data.present_for(input.shape[0]) is None:
            return batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
        gradients.before_forward()
        counts = _data.present_for(input.shape[0])[0] > 0
        return _BatchNorm.apply(input, weight, bias, running_mean, running_var, momentum, eps, gradients, counts)

    functional.batch_norm = synced


def _tell(gradients, *vectors):
    """The vectors of all workers, one below the other, in double precision."""
    everybodys = gradients.gather("normalises a batch", [vector.double().tolist() for vector in vectors])
    return [torch.tensor([vectors[index] for vectors in everybodys], dtype=torch.float64) for index in range(len(vectors))]


def _along_channels(vector, like):
    return vector.to(like).reshape(1, -1, *[1] * (like.dim() - 2))


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(context, input, weight, bias, running_mean, running_var, momentum, eps, gradients, counts):
        rows = [0, *range(2, input.dim())]
        count = float(input.numel() // input.shape[1]) if counts else 0.0
        mean = input.mean(rows)
        deviations = ((input - _along_channels(mean, input)) ** 2).sum(rows)
        parts, means, squares = _tell(gradients, torch.tensor([count]), mean, deviations)
        squares = squares * (parts > 0)
        total = parts.sum()
        mean = (parts * means).sum(0) / total
        squares = (squares + parts * (means - mean) ** 2).sum(0)
        inverse = (squares / total + eps).rsqrt()
        with torch.no_grad():
            if running_mean is not None:
                running_mean.mul_(1 - momentum).add_(mean.to(running_mean), alpha=momentum)
            if running_var is not None:
                running_var.mul_(1 - momentum).add_((squares / (total - 1)).to(running_var), alpha=momentum)
        normal = (input - _along_channels(mean, input)) * _along_channels(inverse, input)
        context.save_for_backward(normal, weight, inverse)
        context.gradients, context.total, context.counts, context.has_bias = gradients, float(total), counts, bias is not None
        output = normal if weight is None else normal * _along_channels(weight, input)
        return output if bias is None else output + _along_channels(bias, input)

    @staticmethod
    def backward(context, gradient):
        normal, weight, inverse = context.saved_tensors
        rows = [0, *range(2, gradient.dim())]
        sum_, product = gradient.sum(rows), (gradient * normal).sum(rows)
        # An empty part's only row is another worker's, whose loss counts for nothing: its gradient is 0.
        sums, products = _tell(context.gradients, sum_, product)
        scale = inverse.to(gradient) if weight is None else inverse.to(gradient) * weight
        mean, slope = sums.sum(0) / context.total, products.sum(0) / context.total
        d_input = (gradient - _along_channels(mean, gradient) - normal * _along_channels(slope, gradient)) * _along_channels(scale, gradient)
        return (d_input, product if weight is not None else None, sum_ if context.has_bias else None, *[None] * 6)
