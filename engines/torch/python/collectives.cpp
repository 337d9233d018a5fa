#include "engines/torch/python/collectives.h"

#include <ATen/Functions.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/ivalue.h>
#include <torch/csrc/utils/pybind.h>

#include <algorithm>
#include <numeric>
#include <optional>

namespace poseidon::python {
namespace {

using RedOpType = c10d::ReduceOp::RedOpType;
using Tensors = Collectives::Tensors;

// Up to this size everybody sends everything to everybody: one round instead of two.
constexpr std::size_t kSmallBytes = 16 * 1024;
// Messages between two workers that no operation of the group numbers.
constexpr std::uint64_t kBetweenTwo = std::uint64_t{1} << 63;

std::vector<c10::Device> devices_of(const Tensors& tensors) {
  std::vector<c10::Device> devices;
  for (const at::Tensor& tensor : tensors) {
    const bool is_new = std::find(devices.begin(), devices.end(), tensor.device()) == devices.end();
    if (!tensor.device().is_cpu() && is_new) devices.push_back(tensor.device());
  }
  return devices;
}

at::Tensor on_host(const at::Tensor& tensor) {
  TORCH_CHECK(tensor.layout() == at::kStrided, "poseidon's process groups move dense tensors only: call to_dense() before");
  return tensor.to(at::kCPU).contiguous();
}

// The same bytes, whatever they mean: what travels.
at::Tensor flat(const at::Tensor& contiguous) { return contiguous.view({-1}); }

// A tensor as an operation works on it: in the host's memory, without gaps, in one dimension.
class Worked {
 public:
  explicit Worked(const at::Tensor& tensor) : tensor_(tensor), host_(on_host(tensor)) {}
  at::Tensor memory() const { return flat(host_); }
  // Afterwards the tensor itself has what was worked out.
  void finish() const {
    if (host_.data_ptr() != tensor_.data_ptr()) tensor_.copy_(host_);
  }

 private:
  at::Tensor tensor_;
  at::Tensor host_;
};

std::vector<Worked> worked(const Tensors& tensors) { return {tensors.begin(), tensors.end()}; }

Tensors memory_of(const std::vector<Worked>& all) {
  Tensors memory;
  for (const Worked& one : all) memory.push_back(one.memory());
  return memory;
}

void finish(const std::vector<Worked>& all) {
  for (const Worked& one : all) one.finish();
}

// In the order of ranks.
void combine_into(at::Tensor target, const Tensors& parts, RedOpType operation) {
  const at::ScalarType type = target.scalar_type();
  const bool is_half = type == at::kHalf || type == at::kBFloat16;
  at::Tensor sum = is_half ? parts.front().to(at::kFloat) : parts.front().clone();
  for (auto part = parts.begin() + 1; part != parts.end(); ++part) {
    const at::Tensor next = part->to(sum.scalar_type());
    switch (operation) {
      case RedOpType::SUM:
      case RedOpType::AVG:
        sum.add_(next);
        break;
      case RedOpType::PRODUCT:
        sum.mul_(next);
        break;
      case RedOpType::MIN:
        sum = at::minimum(sum, next);
        break;
      case RedOpType::MAX:
        sum = at::maximum(sum, next);
        break;
      case RedOpType::BAND:
        sum.bitwise_and_(next);
        break;
      case RedOpType::BOR:
        sum.bitwise_or_(next);
        break;
      case RedOpType::BXOR:
        sum.bitwise_xor_(next);
        break;
      default:
        TORCH_CHECK(false, "poseidon's process groups reduce by SUM, AVG, PRODUCT, MIN, MAX, BAND, BOR and BXOR");
    }
  }
  if (operation == RedOpType::AVG) {
    TORCH_CHECK(sum.is_floating_point() || sum.is_complex(), "AVG is for floating-point tensors");
    sum.div_(static_cast<double>(parts.size()));
  }
  target.copy_(sum);
}

const at::Tensor& the_one(const Tensors& tensors) {
  TORCH_CHECK(tensors.size() == 1, "poseidon's process groups take one tensor at a time here, there are ", tensors.size());
  return tensors.front();
}

}  // namespace

class OperationWork final : public c10d::Work {
 public:
  OperationWork(int rank, c10d::OpType type, Tensors outputs)
      : Work(rank, type), outputs_(std::move(outputs)),
        future_(c10::make_intrusive<c10::ivalue::Future>(c10::ListType::create(c10::TensorType::get()), devices_of(outputs_))) {}

  void end(const std::exception_ptr& failed) {
    if (failed) {
      future_->setError(failed);
    } else {
      future_->markCompleted(at::IValue(outputs_));
    }
    finish(failed);
  }
  void act(const std::function<void()>& what) {
    // What is written here is written like memory: no graph of operations is recorded.
    const at::AutoDispatchBelowADInplaceOrView guard;
    std::exception_ptr failed;
    try {
      what();
    } catch (...) {
      failed = std::current_exception();
    }
    end(failed);
  }
  // By the operation itself, where it does not know before.
  void set_outputs(Tensors outputs) { outputs_ = std::move(outputs); }
  std::vector<at::Tensor> result() override { return outputs_; }
  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override { return future_; }

 private:
  Tensors outputs_;
  c10::intrusive_ptr<c10::ivalue::Future> future_;
};

Collectives::Collectives(std::shared_ptr<Job> job, std::uint32_t channel, std::vector<int> ranks, int rank)
    : Backend(rank, static_cast<int>(ranks.size())), job_(std::move(job)), channel_(channel), ranks_(std::move(ranks)), thread_([this] { run(); }) {}

Collectives::~Collectives() {
  // What an operation's end sets off may be Python's.
  std::optional<pybind11::gil_scoped_release> free;
  if (PyGILState_Check()) free.emplace();
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Collectives::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return closing_ || !waiting_.empty(); });
    if (waiting_.empty()) return;
    {
      const Operation next = std::move(waiting_.front());
      waiting_.pop_front();
      lock.unlock();
      next.work->act(next.act);
      // Its tensors go here, which may need Python's lock: whoever has that may be waiting for ours.
    }
    lock.lock();
  }
}

Collectives::WorkPtr Collectives::queue(c10d::OpType type, Tensors outputs, std::size_t numbers, Act act) {
  return queue(c10::make_intrusive<OperationWork>(rank_, type, std::move(outputs)), numbers, std::move(act));
}

Collectives::WorkPtr Collectives::queue(c10::intrusive_ptr<OperationWork> work, std::size_t numbers, Act act) {
  {
    const std::lock_guard lock(mutex_);
    const Number number = next_;
    next_ += numbers;
    waiting_.push_back({work, [act = std::move(act), number] { act(number); }});
  }
  changed_.notify_all();
  return work;
}

Collectives::WorkPtr Collectives::beside(c10d::OpType type, Tensors outputs, std::function<void()> act) {
  auto work = c10::make_intrusive<OperationWork>(rank_, type, std::move(outputs));
  std::thread([work, act = std::move(act)] { work->act(act); }).detach();
  return work;
}

void Collectives::exchange(Number number, const Tensors& out, const Tensors& in) const {
  std::vector<Letter> sends, receives;
  for (std::size_t r = 0; r < ranks_.size(); ++r) {
    if (static_cast<int>(r) == rank_) continue;
    if (r < out.size() && out[r].defined()) sends.push_back({ranks_[r], out[r]});
    if (r < in.size() && in[r].defined()) receives.push_back({ranks_[r], in[r]});
  }
  job_->exchange(channel_, number, sends, receives);
}

Tensors Collectives::slices_of(const at::Tensor& flat) const {
  Tensors slices;
  const std::int64_t count = flat.numel(), workers = static_cast<std::int64_t>(ranks_.size());
  for (std::int64_t r = 0; r < workers; ++r) slices.push_back(flat.slice(0, count * r / workers, count * (r + 1) / workers));
  return slices;
}

void Collectives::spread(Number number, const Tensors& slices) const {
  exchange(number, Tensors(ranks_.size(), slices[static_cast<std::size_t>(rank_)]), slices);
}

// This worker's slice as all have it.
Tensors Collectives::received_slices(Number number, const Tensors& slices) const {
  const at::Tensor& own = slices[static_cast<std::size_t>(rank_)];
  Tensors parts;
  for (std::size_t r = 0; r < ranks_.size(); ++r) parts.push_back(static_cast<int>(r) == rank_ ? own : at::empty_like(own));
  exchange(number, slices, parts);
  return parts;
}

void Collectives::reduce_everywhere(Number number, at::Tensor flat, RedOpType operation) const {
  if (flat.nbytes() <= kSmallBytes) {
    const Tensors all(ranks_.size(), flat);
    const Tensors parts = received_slices(number, all);
    combine_into(flat, parts, operation);
    return;
  }
  const Tensors slices = slices_of(flat);
  combine_into(slices[static_cast<std::size_t>(rank_)], received_slices(number, slices), operation);
  spread(number + 1, slices);
}

void Collectives::broadcast_flat(Number number, at::Tensor flat, int root) const {
  const std::size_t workers = ranks_.size();
  if (flat.nbytes() <= kSmallBytes) {
    Tensors from_root(workers);
    from_root[static_cast<std::size_t>(root)] = flat;
    exchange(number, rank_ == root ? Tensors(workers, flat) : Tensors(), rank_ == root ? Tensors() : from_root);
    return;
  }
  // The root sends each worker a slice, and these send theirs to the others: the root's link carries everything once.
  const Tensors slices = slices_of(flat);
  const at::Tensor& own = slices[static_cast<std::size_t>(rank_)];
  if (rank_ == root) {
    exchange(number, slices, {});
    exchange(number + 1, Tensors(workers, own), {});
    return;
  }
  Tensors first(workers);
  first[static_cast<std::size_t>(root)] = own;
  exchange(number, {}, first);
  Tensors to_others(workers, own);
  to_others[static_cast<std::size_t>(root)].reset();
  exchange(number + 1, to_others, slices);
}

Collectives::WorkPtr Collectives::broadcast(Tensors& tensors, const c10d::BroadcastOptions& options) {
  return queue(c10d::OpType::BROADCAST, tensors, 2 * tensors.size(), [this, all = worked(tensors), root = static_cast<int>(options.rootRank)](Number number) {
    for (std::size_t i = 0; i < all.size(); ++i) broadcast_flat(number + 2 * i, all[i].memory(), root);
    finish(all);
  });
}

Collectives::WorkPtr Collectives::allreduce(Tensors& tensors, const c10d::AllreduceOptions& options) {
  return queue(c10d::OpType::ALLREDUCE, tensors, 2 * tensors.size(),
               [this, all = worked(tensors), operation = static_cast<RedOpType>(options.reduceOp)](Number number) {
                 for (std::size_t i = 0; i < all.size(); ++i) reduce_everywhere(number + 2 * i, all[i].memory(), operation);
                 finish(all);
               });
}

Collectives::WorkPtr Collectives::allreduce_coalesced(Tensors& tensors, const c10d::AllreduceCoalescedOptions& options) {
  return allreduce(tensors, options);
}

Collectives::WorkPtr Collectives::reduce(Tensors& tensors, const c10d::ReduceOptions& options) {
  const at::Tensor& tensor = the_one(tensors);
  const auto act = [this, one = Worked(tensor), operation = static_cast<RedOpType>(options.reduceOp), root = static_cast<int>(options.rootRank)](Number number) {
    const at::Tensor flat = rank_ == root ? one.memory() : one.memory().clone();  // only the root's changes
    const Tensors slices = slices_of(flat);
    const at::Tensor& own = slices[static_cast<std::size_t>(rank_)];
    combine_into(own, received_slices(number, slices), operation);
    Tensors to_root(ranks_.size());
    to_root[static_cast<std::size_t>(root)] = own;
    exchange(number + 1, rank_ == root ? Tensors() : to_root, rank_ == root ? slices : Tensors());
    if (rank_ == root) one.finish();
  };
  return queue(c10d::OpType::REDUCE, tensors, 2, act);
}

Collectives::WorkPtr Collectives::gather_everywhere(Tensors outputs, Tensors targets, at::Tensor input) {
  TORCH_CHECK(targets.size() == ranks_.size(), "there are ", targets.size(), " outputs for ", ranks_.size(), " workers");
  return queue(c10d::OpType::ALLGATHER, std::move(outputs), 1, [this, all = worked(targets), own = flat(on_host(input))](Number number) {
    const Tensors into = memory_of(all);
    exchange(number, Tensors(ranks_.size(), own), into);
    into[static_cast<std::size_t>(rank_)].copy_(own);
    finish(all);
  });
}

Collectives::WorkPtr Collectives::allgather(std::vector<Tensors>& outputs, Tensors& inputs, const c10d::AllgatherOptions&) {
  TORCH_CHECK(outputs.size() == 1, "poseidon's process groups gather one tensor at a time");
  return gather_everywhere(outputs.front(), outputs.front(), the_one(inputs));
}

Collectives::WorkPtr Collectives::_allgather_base(at::Tensor& output, at::Tensor& input, const c10d::AllgatherOptions&) {
  TORCH_CHECK(output.is_contiguous() && output.numel() == input.numel() * static_cast<std::int64_t>(ranks_.size()),
              "the output of an all-gather is contiguous and has ", ranks_.size(), " times the input's elements");
  return gather_everywhere({output}, slices_of(flat(output)), input);
}

Collectives::WorkPtr Collectives::allgather_into_tensor_coalesced(Tensors& outputs, Tensors& inputs, const c10d::AllgatherOptions& options) {
  TORCH_CHECK(outputs.size() == inputs.size() && !outputs.empty(), "there are ", outputs.size(), " outputs for ", inputs.size(), " inputs");
  WorkPtr last;
  for (std::size_t i = 0; i < outputs.size(); ++i) last = _allgather_base(outputs[i], inputs[i], options);
  return last;  // they end in this order
}

Collectives::WorkPtr Collectives::gather_rows(at::Tensor indices, at::Tensor rows, at::Tensor like) {
  const auto work = c10::make_intrusive<OperationWork>(rank_, c10d::OpType::ALLGATHER, Tensors());
  const bool has_some = indices.defined();
  // Where it waits in the queue an operation does not own its work, which owns it.
  const auto act = [this, raw = work.get(), has_some, own_indices = has_some ? on_host(indices) : at::empty({0}, at::kLong),
                    own_rows = on_host(has_some ? rows : like)](Number number) {
    const std::size_t own = static_cast<std::size_t>(rank_);
    Tensors counts, all_indices, all_rows;
    for (std::size_t r = 0; r < ranks_.size(); ++r) counts.push_back(at::full({1}, -1, at::kLong));
    counts[own].fill_(has_some ? own_indices.size(0) : -1);
    exchange(number, Tensors(ranks_.size(), counts[own]), counts);
    std::vector<std::int64_t> shape = own_rows.sizes().vec();
    bool anybody = false;
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
      const std::int64_t count = counts[r].item<std::int64_t>();
      anybody |= count >= 0;
      shape[0] = std::max<std::int64_t>(count, 0);
      all_indices.push_back(r == own ? own_indices : at::empty({shape[0]}, at::kLong));
      all_rows.push_back(r == own ? own_rows : at::empty(shape, own_rows.options()));
    }
    if (!anybody) return;
    exchange(number + 1, Tensors(ranks_.size(), own_indices), all_indices);
    exchange(number + 2, Tensors(ranks_.size(), own_rows), all_rows);
    raw->set_outputs({at::cat(all_indices), at::cat(all_rows)});
  };
  return queue(work, 3, act);
}

Collectives::WorkPtr Collectives::gather(std::vector<Tensors>& outputs, Tensors& inputs, const c10d::GatherOptions& options) {
  const int root = static_cast<int>(options.rootRank);
  const at::Tensor& input = the_one(inputs);
  if (rank_ == root) {
    TORCH_CHECK(outputs.size() == 1 && outputs.front().size() == ranks_.size(), "the root of a gather has one output for each worker");
  }
  const Tensors targets = rank_ == root ? outputs.front() : Tensors();
  return queue(c10d::OpType::GATHER, targets, 1, [this, root, all = worked(targets), own = flat(on_host(input))](Number number) {
    const Tensors into = memory_of(all);
    Tensors to_root(ranks_.size());
    to_root[static_cast<std::size_t>(root)] = own;
    exchange(number, to_root, into);
    if (rank_ == root) into[static_cast<std::size_t>(rank_)].copy_(own);
    finish(all);
  });
}

Collectives::WorkPtr Collectives::scatter(Tensors& outputs, std::vector<Tensors>& inputs, const c10d::ScatterOptions& options) {
  const int root = static_cast<int>(options.rootRank);
  const at::Tensor& output = the_one(outputs);
  Tensors parts;
  if (rank_ == root) {
    TORCH_CHECK(inputs.size() == 1 && inputs.front().size() == ranks_.size(), "the root of a scatter has one input for each worker");
    for (const at::Tensor& input : inputs.front()) parts.push_back(flat(on_host(input)));
  }
  return queue(c10d::OpType::SCATTER, outputs, 1, [this, root, one = Worked(output), parts](Number number) {
    Tensors from_root(ranks_.size());
    from_root[static_cast<std::size_t>(root)] = one.memory();
    exchange(number, parts, rank_ == root ? Tensors() : from_root);
    if (rank_ == root) one.memory().copy_(parts[static_cast<std::size_t>(rank_)]);
    one.finish();
  });
}

Collectives::WorkPtr Collectives::reduce_and_scatter(at::Tensor output, Tensors inputs, RedOpType operation) {
  TORCH_CHECK(inputs.size() == ranks_.size(), "there are ", inputs.size(), " inputs for ", ranks_.size(), " workers");
  Tensors parts;
  for (const at::Tensor& input : inputs) parts.push_back(flat(on_host(input)));
  return queue(c10d::OpType::REDUCE_SCATTER, {output}, 1, [this, one = Worked(output), parts, operation](Number number) {
    combine_into(one.memory(), received_slices(number, parts), operation);
    one.finish();
  });
}

Collectives::WorkPtr Collectives::reduce_scatter(Tensors& outputs, std::vector<Tensors>& inputs, const c10d::ReduceScatterOptions& options) {
  TORCH_CHECK(inputs.size() == 1, "poseidon's process groups scatter one tensor at a time");
  return reduce_and_scatter(the_one(outputs), inputs.front(), static_cast<RedOpType>(options.reduceOp));
}

Collectives::WorkPtr Collectives::_reduce_scatter_base(at::Tensor& output, at::Tensor& input, const c10d::ReduceScatterOptions& options) {
  TORCH_CHECK(input.numel() == output.numel() * static_cast<std::int64_t>(ranks_.size()), "the input of a reduce-scatter has ", ranks_.size(),
              " times the output's elements");
  return reduce_and_scatter(output, slices_of(flat(input.contiguous())), static_cast<RedOpType>(options.reduceOp));
}

Collectives::WorkPtr Collectives::reduce_scatter_tensor_coalesced(Tensors& outputs, Tensors& inputs, const c10d::ReduceScatterOptions& options) {
  TORCH_CHECK(outputs.size() == inputs.size() && !outputs.empty(), "there are ", outputs.size(), " outputs for ", inputs.size(), " inputs");
  WorkPtr last;
  for (std::size_t i = 0; i < outputs.size(); ++i) last = _reduce_scatter_base(outputs[i], inputs[i], options);
  return last;
}

Collectives::WorkPtr Collectives::alltoall(Tensors& outputs, Tensors& inputs, const c10d::AllToAllOptions&) {
  TORCH_CHECK(outputs.size() == ranks_.size() && inputs.size() == ranks_.size(), "an all-to-all has one input and one output for each worker");
  Tensors parts;
  for (const at::Tensor& input : inputs) parts.push_back(flat(on_host(input)));
  return queue(c10d::OpType::ALLTOALL, outputs, 1, [this, all = worked(outputs), parts](Number number) {
    const Tensors into = memory_of(all);
    exchange(number, parts, into);
    into[static_cast<std::size_t>(rank_)].copy_(parts[static_cast<std::size_t>(rank_)]);
    finish(all);
  });
}

Collectives::WorkPtr Collectives::alltoall_base(at::Tensor& output, at::Tensor& input, std::vector<std::int64_t>& output_sizes,
                                                std::vector<std::int64_t>& input_sizes, const c10d::AllToAllOptions& options) {
  const auto cut = [&](const at::Tensor& tensor, std::vector<std::int64_t> sizes) {
    if (sizes.empty()) sizes.assign(ranks_.size(), tensor.size(0) / static_cast<std::int64_t>(ranks_.size()));
    TORCH_CHECK(sizes.size() == ranks_.size() && std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0}) == tensor.size(0),
                "the sizes of an all-to-all add up to the tensor's first dimension, ", tensor.size(0));
    Tensors parts;
    std::int64_t at = 0;
    for (const std::int64_t size : sizes) {
      parts.push_back(tensor.slice(0, at, at + size));
      at += size;
    }
    return parts;
  };
  TORCH_CHECK(output.is_contiguous(), "the output of an all-to-all is contiguous");
  Tensors outputs = cut(output, output_sizes), inputs = cut(input, input_sizes);
  return alltoall(outputs, inputs, options);
}

Collectives::WorkPtr Collectives::send(Tensors& tensors, int to, int tag) {
  std::uint64_t count = 0;
  {
    const std::lock_guard lock(mutex_);
    count = sent_[{to, tag}]++;
  }
  const Number number = kBetweenTwo | static_cast<std::uint64_t>(tag) << 32 | count;
  const Letter letter{ranks_.at(static_cast<std::size_t>(to)), flat(on_host(the_one(tensors)))};
  return beside(c10d::OpType::SEND, tensors, [job = job_, channel = channel_, number, letter] { job->exchange(channel, number, {letter}, {}); });
}

Collectives::WorkPtr Collectives::recv(Tensors& tensors, int from, int tag) {
  std::uint64_t count = 0;
  {
    const std::lock_guard lock(mutex_);
    count = received_[{from, tag}]++;
  }
  const Number number = kBetweenTwo | static_cast<std::uint64_t>(tag) << 32 | count;
  return beside(c10d::OpType::RECV, tensors, [job = job_, channel = channel_, number, rank = ranks_.at(static_cast<std::size_t>(from)), one = Worked(the_one(tensors))] {
    job->exchange(channel, number, {}, {{rank, one.memory()}});
    one.finish();
  });
}

Collectives::WorkPtr Collectives::barrier(const c10d::BarrierOptions&) {
  return queue(c10d::OpType::BARRIER, {}, 1, [this](Number number) {
    const Tensors nothing(ranks_.size(), at::empty({0}, at::kByte));
    exchange(number, nothing, nothing);
  });
}

}  // namespace poseidon::python
