#include "cluster/compute_probe.h"

#include <algorithm>
#include <chrono>
#include <memory>

#include "base/aligned.h"
#include "base/checksum.h"
#include "base/philox.h"

namespace poseidon::cluster {
namespace {

// The shape of a middling fully connected layer: large enough for every blocking and threading path of a library's product.
constexpr std::size_t kRows = 64;
constexpr std::size_t kOutputs = 192;
constexpr std::size_t kInputs = 256;
constexpr int kRepeats = 3;  // the first warms up
constexpr std::size_t kSumElements = 1 << 14;
constexpr std::size_t kAddends = 4;

struct Probe {
  base::AlignedBytes u = base::make_aligned(kRows * kOutputs * sizeof(float));
  base::AlignedBytes v = base::make_aligned(kRows * kInputs * sizeof(float));
  base::AlignedBytes out = base::make_aligned(kOutputs * kInputs * sizeof(float));
  base::AlignedBytes bias = base::make_aligned(kOutputs * sizeof(float));
  base::AlignedBytes addend = base::make_aligned(kSumElements * sizeof(float));
  base::AlignedBytes sum = base::make_aligned(kSumElements * sizeof(float));
  int repeats_left = kRepeats;
  double seconds = 1e9;
  std::function<void(const Result<ComputeSpeed>&)> done;
};

void fill(base::AlignedBytes& bytes, std::size_t elements, std::uint64_t seed) {
  const base::RandomStream stream(seed, "arithmetic probe");
  float* const numbers = reinterpret_cast<float*>(bytes.get());
  // All sizes are multiples of four.
  for (std::size_t i = 0; i < elements; i += 4) {
    const base::PhiloxCounter words = stream.words(0, i / 4, 0);
    for (std::size_t j = 0; j < 4; ++j) numbers[i + j] = static_cast<float>(base::uniform01(words[j]) - 0.5);
  }
}

double seconds_since(runtime::Runtime& runtime, runtime::Time start) {
  return std::max(std::chrono::duration<double>(runtime.now() - start).count(), 1e-9);
}

void finish(runtime::Runtime& runtime, runtime::Compute& compute, const std::shared_ptr<Probe>& probe) {
  runtime::SumJob job;
  job.addends.assign(kAddends, probe->addend.get());
  job.out = probe->sum.get();
  job.elements = kSumElements;
  const runtime::Time start = runtime.now();
  compute.sum(job, [&runtime, probe, start](const std::optional<Error>& error) {
    if (error) return probe->done(*error);
    const double took = seconds_since(runtime, start);
    base::Sha256 digest;
    digest.update(std::span(probe->out.get(), kOutputs * kInputs * sizeof(float)));
    digest.update(std::span(probe->bias.get(), kOutputs * sizeof(float)));
    digest.update(std::span(probe->sum.get(), kSumElements * sizeof(float)));
    probe->done(ComputeSpeed{.flops_per_second = 2.0 * kRows * kOutputs * kInputs / probe->seconds,
                             .sum_bytes_per_second = static_cast<double>(kAddends * kSumElements * sizeof(float)) / took,
                             .digest = base::to_hex(digest.finish())});
  });
}

void multiply(runtime::Runtime& runtime, runtime::Compute& compute, const std::shared_ptr<Probe>& probe) {
  runtime::ProductJob job;
  job.rows = kRows;
  job.m = kOutputs;
  job.n = kInputs;
  job.u = probe->u.get();
  job.v = probe->v.get();
  job.out = probe->out.get();
  job.out_stride = kInputs;
  job.bias = probe->bias.get();
  job.bias_end = kOutputs;
  const runtime::Time start = runtime.now();
  compute.product(job, [&runtime, &compute, probe, start](const std::optional<Error>& error) {
    if (error) return probe->done(*error);
    probe->seconds = std::min(probe->seconds, seconds_since(runtime, start));
    if (--probe->repeats_left > 0) {
      multiply(runtime, compute, probe);
    } else {
      finish(runtime, compute, probe);
    }
  });
}

}  // namespace

void probe_compute(runtime::Runtime& runtime, runtime::Compute& compute,
                   std::function<void(const Result<ComputeSpeed>& speed)> done) {
  auto probe = std::make_shared<Probe>();
  probe->done = std::move(done);
  fill(probe->u, kRows * kOutputs, 1);
  fill(probe->v, kRows * kInputs, 2);
  fill(probe->addend, kSumElements, 3);
  multiply(runtime, compute, probe);
}

}  // namespace poseidon::cluster
