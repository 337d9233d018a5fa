"""Sufficient factors: the gradient of a fully connected layer over a batch is a product of two thin matrices, dW = Uᵀ V, with the errors at the
layer's output as rows of U and its inputs as rows of V (Xie et al., UAI 2016). Where the plan says so these travel, and dW is never formed here.

Every use of torch.nn.functional.linear, which nn.Linear and others call, goes through here. The first backward pass in which a weight has a
gradient is watched: where the whole of it was one such product the weight is a candidate, and the engine is told how many rows its factors have. What makes a gradient more
than that later (another use of the weight, a penalty on it, more rows than there is room for) is noticed in the pass in which it happens.
"""
import torch

from ._wrapping import wraps


class Factors:
    def __init__(self, gradients):
        self._gradients = gradients
        self._is_on = True
        self._products = {}  # watched, by place: the products of this pass
        self._rows = {}      # by place: rows of a candidate's factors
        self._chosen = set() # places whose gradients travel as factors
        self.has_news = False  # of candidates, since the plan was made
        self._taken = {}     # by place: pairs (U, V) of this pass
        functional = torch.nn.functional
        self._linear = functional.linear
        gradients.factors = self

        @wraps(functional.linear)
        def linear(input, weight, bias=None):
            if torch.compiler.is_compiling():
                return self._linear(input, weight, bias)
            place = self._place_of(input, weight)
            if place is None:
                return self._linear(input, weight, bias)
            return _Linear.apply(input, weight, bias, self, place)

        functional.linear = linear

    def switch_off(self):
        """All gradients are dense from now on. Before the first backward pass."""
        self._is_on = False

    # ---- The plan ----

    def rows(self, place):
        """For the engine: rows of the factors of this tensor's layer; 0: it is synchronised densely."""
        return self._rows.get(place, 0)

    def agree(self, everybodys):
        """Candidates of all workers are candidates; parts of a batch are unequal by one, so they have room for the most rows."""
        everybodys = [{int(place): rows for place, rows in candidates.items()} for candidates in everybodys]
        self._rows = {place: max(rows[place] for rows in everybodys) for place in self._rows if all(place in rows for rows in everybodys)}
        self.has_news = False

    def drop(self, places):
        for place in places:
            self._rows.pop(place, None)

    def follow(self, job, count):
        """The plan has been made: which of so many tensors travel as factors."""
        self._chosen = {place for place in range(count) if self._rows.get(place) and job.scheme(place) != "ps"}

    @property
    def candidates(self):
        """By place: rows."""
        return self._rows

    def is_chosen(self, place):
        return place in self._chosen

    # ---- Forward and backward ----

    def _place_of(self, input, weight):
        """The weight's place, where its factors are wanted and can be had."""
        if not self._is_on or not self._gradients.is_on or not torch.is_grad_enabled():
            return None
        place = self._gradients.place(weight)
        if place is None or not (place in self._chosen or self._gradients.is_watching(place)):
            return None
        self._gradients.settle(weight)
        can_be = (weight.requires_grad and isinstance(input, torch.Tensor) and input.dtype == weight.dtype and weight.dim() == 2
                  and not torch.is_autocast_enabled(input.device.type) and not torch._C._are_functorch_transforms_active())
        return place if can_be else None

    def wants(self, place, weight):
        """In a backward pass: whether the pair may be taken instead of the product. (Ours is one hook of each kind; others want to see a gradient.)"""
        is_hooked = any(hooks is not None and len(hooks) > 1 for hooks in (weight._backward_hooks, weight._post_accumulate_grad_hooks))
        return place in self._chosen and self._gradients.is_plain_pass() and not is_hooked

    def offer(self, weight, outputs, inputs):
        """From a function of the script's own, in its backward: True where the pair has been taken, and no gradient is wanted."""
        place = self._gradients.place(weight)
        if place is None or not self._is_on or not self._gradients.is_on:
            return False
        if self.wants(place, weight):
            self.take(place, outputs, inputs)
            return True
        if self._gradients.is_watching(place) and self._gradients.is_plain_pass():
            self._products.setdefault(place, []).append((outputs.shape[0], None))
        return False

    def take(self, place, outputs, inputs):
        self._gradients.expect_factors(place)
        self._taken.setdefault(place, []).append((outputs, inputs))

    def watch(self, place, outputs, inputs, product):
        if self._gradients.is_watching(place) and self._gradients.is_plain_pass():
            self._products.setdefault(place, []).append((outputs.shape[0], product.detach()))

    def pairs(self, place):
        """Those of this pass; they are forgotten here."""
        return self._taken.pop(place, [])

    def check(self, place, gradient):
        """In a pass in which it is watched: this is the whole gradient of that tensor."""
        products = self._products.pop(place, [])
        # Alike on all workers, whatever the numbers are: all of them have the plan made again.
        self.has_news |= bool(products)
        if len(products) != 1:
            return
        rows, product = products[0]
        if product is None or (gradient.shape == product.shape and torch.equal(gradient, product)):
            self._rows[place] = rows

    def end_watching(self):
        self._products.clear()


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(context, input, weight, bias, factors, place):
        context.save_for_backward(input, weight)
        context.factors, context.place = factors, place
        return factors._linear(input, weight, bias)

    @staticmethod
    def backward(context, gradient):
        input, weight = context.saved_tensors
        factors, place = context.factors, context.place
        for_input, for_weight, for_bias = context.needs_input_grad[:3]
        outputs = gradient.reshape(-1, gradient.shape[-1])
        d_weight = None
        if for_weight:
            inputs = input.reshape(-1, input.shape[-1])
            if factors.wants(place, weight):
                # First of all: what travels can be on its way while the rest is computed.
                factors.take(place, outputs, inputs)
            else:
                d_weight = outputs.t() @ inputs
                factors.watch(place, outputs, inputs, d_weight)
        d_input = gradient @ weight if for_input else None
        d_bias = outputs.sum(0) if for_bias else None
        return d_input, d_weight, d_bias, None, None
