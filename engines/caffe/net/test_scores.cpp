#include "engines/caffe/net/test_scores.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "base/text.h"
#include "engines/caffe/proto/config_error.h"

namespace poseidon::caffe {
namespace {

void append(const at::Tensor& value, std::vector<double>& to) {
  const at::Tensor flat = value.to(at::kDouble).contiguous();
  const double* const data = flat.const_data_ptr<double>();
  to.insert(to.end(), data, data + flat.numel());
}

// A mean of each element asks for the same elements in every batch, and behind Filter their number differs.
void check_elements(const Net& net, const Output& output) {
  const std::int64_t elements = elements_of(output.shape);
  if (output.value.numel() == elements) return;
  throw ConfigError(base::concat("net \"", net.name(), "\" cannot be tested: its output \"", output.name, "\" has ",
                                 output.value.numel(), " elements in one batch and may have ", elements,
                                 " in another, so they have no means; add a layer that reduces it to one number, or a "
                                 "Silence layer that reads it"));
}

// `values`: of all elements of all outputs in their order, and perhaps more behind them.
std::vector<TestScore> named(const Net& net, const std::vector<double>& values) {
  std::vector<TestScore> scores;
  for (const Output& output : net.outputs()) {
    const std::int64_t elements = output.value.defined() ? output.value.numel() : elements_of(output.shape);
    for (std::int64_t element = 0; element < elements; ++element) {
      scores.push_back({.name = output.name, .value = values.at(scores.size()), .loss_weight = output.loss_weight});
    }
  }
  return scores;
}

}  // namespace

std::vector<BatchScores> score_batches(Net& net, const TestBatches& batches) {
  const std::uint64_t records = net.records_per_batch();
  std::vector<BatchScores> all;
  for (std::uint64_t batch = batches.first; batch < batches.count; batch += batches.stride) {
    const at::Tensor loss = net.forward({.iteration = batches.iteration,
                                         .first_record = batches.first_record + batch * records,
                                         .record_stride = batches.stride * records});
    BatchScores scores{.batch = batch, .values = {}};
    for (const Output& output : net.outputs()) {
      check_elements(net, output);
      append(output.value, scores.values);
    }
    scores.values.push_back(loss.defined() ? loss.item<double>() : 0);
    all.push_back(std::move(scores));
  }
  return all;
}

std::vector<TestScore> last_scores(const Net& net) {
  std::vector<double> values;
  for (const Output& output : net.outputs()) append(output.value, values);
  return named(net, values);
}

TestScores averaged(const Net& net, std::vector<BatchScores> scores, std::uint64_t count) {
  std::sort(scores.begin(), scores.end(), [](const auto& a, const auto& b) { return a.batch < b.batch; });
  std::vector<double> means;
  for (std::uint64_t batch = 0; batch < count; ++batch) {
    if (batch >= scores.size() || scores[batch].batch != batch || scores.size() > count) {
      throw std::logic_error(
          base::concat("a test of ", count, " batches has ", scores.size(), " scores, and not those of batch ", batch));
    }
    means.resize(scores[0].values.size());
    for (std::size_t i = 0; i < means.size(); ++i) means[i] += scores[batch].values.at(i);
  }
  for (double& mean : means) mean /= static_cast<double>(count);
  const double loss = means.at(means.size() - 1);
  return {.scores = named(net, means), .loss = loss};
}

}  // namespace poseidon::caffe
