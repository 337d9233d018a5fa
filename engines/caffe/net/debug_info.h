// What Caffe prints with debug_info: the mean absolute value of each blob on its way forward and backward, and of each
// array and its gradient where it is updated. Goes into the log of the worker, whose own batch it is of.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "engines/caffe/net/net.h"

namespace poseidon::caffe {

// Of the tops that a step has made, and of the arrays that it has used.
void tell_forward(const Step& step, const std::vector<at::Tensor>& tops);
// Of the gradient of each bottom, when the backward pass has it. A blob that several layers read has one gradient, the
// sum, which each of them tells; in Caffe each tells its share.
void tell_backward(const Step& step, const std::vector<at::Tensor>& bottoms);
// Of an array before its update, and of the gradient that updates it, decay not included; an undefined one counts as
// zero.
void tell_update(const NetArray& array, const at::Tensor& gradient_sum, double divisor);

}  // namespace poseidon::caffe
