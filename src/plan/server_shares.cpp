#include "plan/server_shares.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "base/check.h"

namespace poseidon::plan {
namespace {

constexpr std::uint32_t kMillion = 1'000'000;
constexpr double kKindOfLink = 2;

double sum(std::span<const double> numbers) { return std::accumulate(numbers.begin(), numbers.end(), 0.0); }

// The level at which the links' room holds exactly all bytes, for three workers or more.
double water_level(const LinkRates& links) {
  std::vector<double> fastest_first = links.workers;
  std::sort(fastest_first.begin(), fastest_first.end(), std::greater<>());
  const double n = static_cast<double>(links.workers.size());
  const double servers = sum(links.servers) / n;
  double above = 0;  // the rates of those above water
  for (std::size_t m = 0; m < fastest_first.size(); ++m) {
    const double room = above / (n - 2) + servers;
    const double level = (1 + static_cast<double>(m) / (n - 2)) / room;
    if (room > 0 && level * fastest_first[m] <= 1) return level;
    above += fastest_first[m];
  }
  return (1 + n / (n - 2)) / (above / (n - 2) + servers);
}

// Shares that are to sum to 1, as they do but for rounding.
void normalise(std::vector<double>& shares) {
  const double all = sum(shares);
  for (double& share : shares) share /= all;
}

}  // namespace

double busiest_link_seconds(const LinkRates& links, std::span<const double> shares) {
  const std::size_t workers = links.workers.size();
  const double n = static_cast<double>(workers);
  double most = 0;
  for (std::size_t i = 0; i < workers; ++i) most = std::max(most, (1 - shares[i] + (n - 1) * shares[i]) / links.workers[i]);
  for (std::size_t j = 0; j < links.servers.size(); ++j) most = std::max(most, n * shares[workers + j] / links.servers[j]);
  return workers == 1 ? (1 - shares[0]) / links.workers[0] : most;
}

ServerShares server_shares(const LinkRates& links, bool colocated) {
  const std::size_t workers = links.workers.size();
  POSEIDON_CHECK(workers > 0 && (colocated || !links.servers.empty()), workers, " workers and no servers");
  const double n = static_cast<double>(workers);
  ServerShares result;
  std::vector<double>& shares = result.of_node;
  shares.resize(workers + links.servers.size(), 0);
  const auto serve_at = [&](double level) {
    for (std::size_t j = 0; j < links.servers.size(); ++j) shares[workers + j] = level * links.servers[j] / n;
  };
  if (!colocated) {
    serve_at(1);
  } else if (workers == 1) {
    shares[0] = 1;
  } else if (workers == 2) {
    // Dedicated servers are as busy as the faster worker is in any case, and the workers halve what is left.
    serve_at(1 / *std::max_element(links.workers.begin(), links.workers.end()));
    const double left = std::max(0.0, 1 - sum(shares));
    shares[0] = shares[1] = left / 2;
  } else {
    const double level = water_level(links);
    for (std::size_t i = 0; i < workers; ++i) shares[i] = std::max(0.0, (level * links.workers[i] - 1) / (n - 2));
    serve_at(level);
  }
  normalise(shares);
  result.colocated = sum(std::span(shares).first(workers));
  result.seconds_per_byte = busiest_link_seconds(links, shares);
  return result;
}

ServerShares server_shares(int workers, int servers, bool colocated) {
  const LinkRates links{std::vector<double>(static_cast<std::size_t>(workers), 1), std::vector<double>(static_cast<std::size_t>(servers), 1)};
  return server_shares(links, colocated);
}

// The largest remainders are rounded up (Hamilton's method), the first of equal ones first.
std::vector<std::uint32_t> parts_per_million(std::span<const double> shares) {
  std::vector<std::uint32_t> parts;
  std::vector<std::pair<double, std::size_t>> remainders;
  std::uint32_t left = kMillion;
  for (std::size_t node = 0; node < shares.size(); ++node) {
    const double exact = shares[node] * kMillion;
    parts.push_back(std::min(left, static_cast<std::uint32_t>(exact)));
    left -= parts.back();
    remainders.emplace_back(static_cast<double>(parts.back()) - exact, node);
  }
  std::sort(remainders.begin(), remainders.end());
  for (std::size_t i = 0; left > 0; i = (i + 1) % remainders.size(), --left) ++parts[remainders[i].second];
  return parts;
}

std::vector<double> steadied(std::span<const double> rates) {
  std::vector<std::size_t> fastest_first(rates.size());
  std::iota(fastest_first.begin(), fastest_first.end(), std::size_t{0});
  std::sort(fastest_first.begin(), fastest_first.end(), [&](std::size_t a, std::size_t b) { return rates[a] > rates[b]; });
  std::vector<double> steady(rates.size());
  for (std::size_t begin = 0, end = 0; begin < rates.size(); begin = end) {
    while (end < rates.size() && rates[fastest_first[end]] * kKindOfLink >= rates[fastest_first[begin]]) ++end;
    for (std::size_t i = begin; i < end; ++i) steady[fastest_first[i]] = rates[fastest_first[end - 1]];
  }
  return steady;
}

}  // namespace poseidon::plan
