#include "engines/caffe/layers/global_batch_norm.h"

#include <ATen/ops/allclose.h>
#include <ATen/ops/batch_norm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <condition_variable>
#include <mutex>
#include <thread>

namespace poseidon::caffe {
namespace {

// Where the threads of a test meet.
class Meeting {
 public:
  explicit Meeting(int workers) : given_(static_cast<std::size_t>(workers)) {}
  std::vector<at::Tensor> gather(int rank, const at::Tensor& own) {
    std::unique_lock lock(mutex_);
    given_[static_cast<std::size_t>(rank)] = own.clone();
    const int round = round_;
    if (++come_ == static_cast<int>(given_.size())) {
      all_ = given_;
      come_ = 0;
      ++round_;
      changed_.notify_all();
    } else {
      changed_.wait(lock, [&] { return round_ > round; });
    }
    return all_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<at::Tensor> given_;
  std::vector<at::Tensor> all_;
  int come_ = 0;
  int round_ = 0;
};

class MeetingExchange final : public aten::GradientExchange {
 public:
  MeetingExchange(Meeting& meeting, int rank, int workers) : meeting_(meeting), rank_(rank), workers_(workers) {}
  int rank() const override { return rank_; }
  int workers() const override { return workers_; }
  void begin(Iteration) override {}
  void accumulate(bool) override {}
  void settle(LayerId) override {}
  void settle_all() override {}
  at::Tensor linear(LayerId, const at::Tensor& x, const at::Tensor&, const at::Tensor&) override { return x; }
  std::vector<at::Tensor> gather(const at::Tensor& own) override { return meeting_.gather(rank_, own); }

 private:
  Meeting& meeting_;
  int rank_;
  int workers_;
};

struct Result {
  GlobalBatchNorm norm;
  at::Tensor gradient;
};

// `parts` on a worker each; their loss is the sum of y · w.
std::vector<Result> on_workers(const std::vector<at::Tensor>& parts, const std::vector<at::Tensor>& weights) {
  const int workers = static_cast<int>(parts.size());
  Meeting meeting(workers);
  std::vector<Result> results(parts.size());
  std::vector<std::thread> threads;
  for (int rank = 0; rank < workers; ++rank) {
    threads.emplace_back([&, rank] {
      const auto number = static_cast<std::size_t>(rank);
      MeetingExchange exchange(meeting, rank, workers);
      const at::Tensor x = parts[number].detach().clone().requires_grad_();
      results[number].norm = normalized_over_workers(x, 1e-3, exchange);
      results[number].gradient = torch::autograd::grad({(results[number].norm.y * weights[number]).sum()}, {x})[0];
    });
  }
  for (std::thread& thread : threads) thread.join();
  return results;
}

TEST(GlobalBatchNorm, WorkersWithUnequalPartsComputeWhatOneDoesWithAll) {
  for (const std::vector<std::int64_t>& rest : {std::vector<std::int64_t>{3}, {3, 4, 2}}) {
    std::vector<at::Tensor> parts;
    std::vector<at::Tensor> weights;
    for (const std::int64_t records : {4, 1, 2}) {
      std::vector<std::int64_t> shape = {records};
      shape.insert(shape.end(), rest.begin(), rest.end());
      parts.push_back(at::randn(shape, at::kDouble) * 3 + 100);
      weights.push_back(at::randn(shape, at::kDouble));
    }
    const at::Tensor whole = at::cat(parts).requires_grad_();
    const at::Tensor mean = at::zeros({3}, at::kDouble);
    const at::Tensor variance = at::zeros({3}, at::kDouble);
    const at::Tensor y = at::batch_norm(whole, {}, {}, mean, variance, /*training=*/true, /*momentum=*/1, 1e-3, /*cudnn_enabled=*/false);
    const at::Tensor gradient = torch::autograd::grad({(y * at::cat(weights)).sum()}, {whole})[0];
    const std::vector<Result> results = on_workers(parts, weights);
    std::vector<at::Tensor> ys;
    std::vector<at::Tensor> gradients;
    for (const Result& result : results) {
      ys.push_back(result.norm.y.detach());
      gradients.push_back(result.gradient);
      EXPECT_TRUE(at::allclose(result.norm.mean, mean, 1e-12, 0));
      EXPECT_TRUE(at::allclose(result.norm.variance, variance, 1e-10, 0));
    }
    EXPECT_TRUE(at::allclose(at::cat(ys), y, 1e-10, 1e-12));
    EXPECT_TRUE(at::allclose(at::cat(gradients), gradient, 1e-9, 1e-12));
  }
}

TEST(GlobalBatchNorm, FloatsFarFromZeroKeepTheirVariance) {
  const at::Tensor x = at::randn({64, 2}, at::kDouble) + 10'000;
  const at::Tensor narrow = x.to(at::kFloat);
  const Result result = on_workers({narrow.slice(0, 0, 32), narrow.slice(0, 32)}, {narrow.slice(0, 0, 32), narrow.slice(0, 32)})[0];
  EXPECT_TRUE(at::allclose(result.norm.variance.to(at::kDouble), narrow.to(at::kDouble).var(0), 1e-5, 0));
}

}  // namespace
}  // namespace poseidon::caffe
