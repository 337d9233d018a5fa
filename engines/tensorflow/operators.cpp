// The operators that graphs and eager programs contain, and their kernels for the host's memory. (Of a device's memory TensorFlow makes the
// copies to and fro itself.)
//
// They are stateful, so that nothing folds, merges or moves them; python/poseidon/tensorflow tells tf.function that they need no order.
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>

#include "engines/tensorflow/flights.h"
#include "engines/tensorflow/link.h"
#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace poseidon::tensorflow {
namespace {

namespace tf = ::tensorflow;

REGISTER_OP("PoseidonSum")
    .Input("gradient: T")
    .Input("present: bool")
    .Output("sum: T")
    .Attr("T: {float, double}")
    .Attr("tensor: int >= 0")
    .SetIsStateful()
    .SetShapeFn(tf::shape_inference::UnchangedShape)
    .Doc("The sum over all workers; `present` false: this one adds nothing, and of its gradient only the shape counts.");

REGISTER_OP("PoseidonStart")
    .Input("gradient: T")
    .Input("present: bool")
    .Output("ticket: int64")
    .Attr("T: {float, double}")
    .Attr("tensor: int >= 0")
    .SetIsStateful()
    .SetShapeFn(tf::shape_inference::ScalarShape)
    .Doc("Starts the sum over all workers and returns at once; PoseidonWait gives it for the ticket.");

REGISTER_OP("PoseidonWait")
    .Input("ticket: int64")
    .Output("sum: T")
    .Attr("T: {float, double}")
    .SetIsStateful()
    .SetShapeFn(tf::shape_inference::UnknownShape)
    .Doc("The sum that PoseidonStart gave the ticket for, once.");

REGISTER_OP("PoseidonPart")
    .Output("samples: int64")
    .SetIsStateful()
    .SetShapeFn([](tf::shape_inference::InferenceContext* context) {
      context->set_output(0, context->Vector(2));
      return absl::OkStatus();
    })
    .Doc("Of the batch that was taken last: this worker's samples, and all workers'. Noughts where the batch was not cut.");

// With noughts where there is no gradient: where nobody has one, this is what stays.
void fill(const tf::Tensor* gradient, tf::Tensor& memory) {
  if (gradient == nullptr) {
    std::memset(memory.data(), 0, memory.TotalBytes());
  } else if (!memory.SharesBufferWith(*gradient)) {
    std::memcpy(memory.data(), gradient->data(), memory.TotalBytes());
  }
}

void finish(tf::OpKernelContext* context, const std::string& failure, const tf::AsyncOpKernel::DoneCallback& done) {
  if (!failure.empty()) context->SetStatus(absl::AbortedError(failure));
  done();
}

std::uint32_t tensor_of(tf::OpKernelConstruction* construction) {
  std::int64_t tensor = 0;
  const absl::Status status = construction->GetAttr("tensor", &tensor);
  if (!status.ok()) construction->SetStatus(status);
  return static_cast<std::uint32_t>(tensor);
}

class SumKernel final : public tf::AsyncOpKernel {
 public:
  explicit SumKernel(tf::OpKernelConstruction* construction) : AsyncOpKernel(construction), tensor_(tensor_of(construction)) {}

  void ComputeAsync(tf::OpKernelContext* context, DoneCallback done) override {
    const tf::Tensor& gradient = context->input(0);
    const bool present = context->input(1).scalar<bool>()();
    tf::Tensor* sum = nullptr;
    OP_REQUIRES_OK_ASYNC(context, context->forward_input_or_allocate_output({0}, 0, gradient.shape(), &sum), done);
    if (sum->TotalBytes() == 0) return done();
    fill(present ? &gradient : nullptr, *sum);
    Link::instance().sum(tensor_, sum->data(), present,
                         [context, done = std::move(done)](const std::string& failure) { finish(context, failure, done); });
  }

 private:
  const std::uint32_t tensor_;
};

class StartKernel final : public tf::OpKernel {
 public:
  explicit StartKernel(tf::OpKernelConstruction* construction) : OpKernel(construction), tensor_(tensor_of(construction)) {}

  void Compute(tf::OpKernelContext* context) override {
    const tf::Tensor& gradient = context->input(0);
    tf::Tensor* ticket = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, {}, &ticket));
    // Others look at the gradient too (that of a sum is handed on as it is), and the sum needs a place of its own.
    tf::Tensor own;
    OP_REQUIRES_OK(context, context->allocate_temp(gradient.dtype(), gradient.shape(), &own));
    const bool present = context->input(1).scalar<bool>()();
    fill(present ? &gradient : nullptr, own);
    ticket->scalar<std::int64_t>()() = Flights::instance().start(tensor_, std::move(own), present);
  }

 private:
  const std::uint32_t tensor_;
};

class WaitKernel final : public tf::AsyncOpKernel {
 public:
  explicit WaitKernel(tf::OpKernelConstruction* construction) : AsyncOpKernel(construction) {}

  void ComputeAsync(tf::OpKernelContext* context, DoneCallback done) override {
    Flights::instance().land(context->input(0).scalar<std::int64_t>()(),
                             [context, done = std::move(done)](const tf::Tensor& sum, const std::string& failure) {
                               if (failure.empty()) context->set_output(0, sum);
                               finish(context, failure, done);
                             });
  }
};

class PartKernel final : public tf::OpKernel {
 public:
  explicit PartKernel(tf::OpKernelConstruction* construction) : OpKernel(construction) {}

  void Compute(tf::OpKernelContext* context) override {
    tf::Tensor* samples = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, {2}, &samples));
    const Part part = Link::instance().part();
    samples->vec<std::int64_t>()(0) = part.own;
    samples->vec<std::int64_t>()(1) = part.all;
  }
};

REGISTER_KERNEL_BUILDER(Name("PoseidonPart").Device(tf::DEVICE_CPU), PartKernel);
REGISTER_KERNEL_BUILDER(Name("PoseidonSum").Device(tf::DEVICE_CPU), SumKernel);
REGISTER_KERNEL_BUILDER(Name("PoseidonStart").Device(tf::DEVICE_CPU), StartKernel);
REGISTER_KERNEL_BUILDER(Name("PoseidonWait").Device(tf::DEVICE_CPU), WaitKernel);

}  // namespace
}  // namespace poseidon::tensorflow

// What Python calls, by ctypes (python/poseidon/tensorflow/_operators.py).
extern "C" {

__attribute__((visibility("default"))) void poseidon_tensorflow_use(poseidon_cluster* cluster, std::size_t tensors, std::uint64_t first) {
  poseidon::tensorflow::Link::instance().use(cluster, tensors, first);
}

__attribute__((visibility("default"))) void poseidon_tensorflow_take(std::int64_t own, std::int64_t all) {
  poseidon::tensorflow::Link::instance().take({own, all});
}

__attribute__((visibility("default"))) std::uint64_t poseidon_tensorflow_next_iteration(void) {
  return poseidon::tensorflow::Link::instance().next_iteration();
}

}
