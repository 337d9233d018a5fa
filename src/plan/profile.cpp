#include "plan/profile.h"

#include <algorithm>

#include "base/check.h"

namespace poseidon::plan {
namespace {

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// Backward over forward: the gradients of the input and of the weights are a product each.
constexpr double kBackwardOverForward = 2;

}  // namespace

Gaps gaps_of(const Observation& observation) {
  std::vector<std::size_t> order;
  for (std::size_t l = 0; l < observation.handed_in.size(); ++l) {
    if (observation.handed_in[l]) order.push_back(l);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return *observation.handed_in[a] < *observation.handed_in[b]; });
  Gaps gaps{std::vector<double>(observation.handed_in.size(), 0), std::nullopt};
  double before = observation.waited_seconds;
  for (const std::size_t layer : order) {
    if (!gaps.first) gaps.first = layer;
    gaps.before[layer] = std::max(0.0, *observation.handed_in[layer] - before);
    before = *observation.handed_in[layer];
  }
  return gaps;
}

std::vector<ComputeTimes> compute_times(const Gaps& gaps) {
  std::vector<ComputeTimes> times(gaps.before.size());
  double others = 0;  // backward of all but the layer handed in first
  for (std::size_t l = 0; l < times.size(); ++l) {
    if (gaps.first == l) continue;
    times[l].backward = gaps.before[l];
    others += gaps.before[l];
  }
  if (!gaps.first) return times;
  // gap = F + b with F = (others + b) / 2.
  const double gap = gaps.before[*gaps.first];
  const double own = std::clamp((gap - others / kBackwardOverForward) / (1 + 1 / kBackwardOverForward), 0.0, gap);
  times[*gaps.first].backward = own;
  const double backward = others + own;
  for (ComputeTimes& layer : times) layer.forward = backward > 0 ? (gap - own) * layer.backward / backward : 0;
  return times;
}

Profile profile_of(std::uint64_t last_iteration, const std::vector<Observation>& window) {
  POSEIDON_CHECK(!window.empty(), "a window of no iterations");
  const auto median_of = [&](const auto& value) {
    std::vector<double> values;
    for (const Observation& observation : window) values.push_back(value(observation));
    return median(std::move(values));
  };
  std::vector<Gaps> gaps;
  for (const Observation& observation : window) gaps.push_back(gaps_of(observation));
  Gaps typical{{}, gaps.back().first};
  for (std::size_t l = 0; l < window.front().handed_in.size(); ++l) {
    std::vector<double> values;
    for (const Gaps& one : gaps) values.push_back(one.before[l]);
    typical.before.push_back(median(std::move(values)));
  }
  return {last_iteration, median_of([](const Observation& o) { return o.seconds; }),
          median_of([](const Observation& o) { return o.waited_seconds; }), compute_times(typical)};
}

}  // namespace poseidon::plan
