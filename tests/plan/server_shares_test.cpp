// Shares of servers, against the published formula and against a search over a grid that knows nothing of the closed form.
#include "plan/server_shares.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

namespace poseidon::plan {
namespace {

using ::testing::DoubleNear;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Pointwise;

// What every node's link carries for one byte of a tensor, counted push by push and sum by sum: the more of sent and received.
std::vector<double> carried(std::size_t workers, const std::vector<double>& shares) {
  std::vector<double> sent(shares.size(), 0);
  std::vector<double> received(shares.size(), 0);
  for (std::size_t server = 0; server < shares.size(); ++server) {
    for (std::size_t worker = 0; worker < workers; ++worker) {
      if (worker == server) continue;
      sent[worker] += shares[server];  // a push
      received[server] += shares[server];
      sent[server] += shares[server];  // the sum
      received[worker] += shares[server];
    }
  }
  std::vector<double> most;
  for (std::size_t node = 0; node < shares.size(); ++node) most.push_back(std::max(sent[node], received[node]));
  return most;
}

double slowest(const LinkRates& links, const std::vector<double>& shares) {
  const std::vector<double> bytes = carried(links.workers.size(), shares);
  double seconds = 0;
  for (std::size_t node = 0; node < bytes.size(); ++node) {
    const std::size_t workers = links.workers.size();
    seconds = std::max(seconds, bytes[node] / (node < workers ? links.workers[node] : links.servers[node - workers]));
  }
  return seconds;
}

// The least time over all shares that are multiples of 1 / steps.
double least_on_grid(const LinkRates& links, int steps) {
  std::vector<double> shares(links.workers.size() + links.servers.size(), 0);
  double least = 1e300;
  const auto deal = [&](const auto& self, std::size_t node, int left) -> void {
    if (node + 1 == shares.size()) {
      shares[node] = static_cast<double>(left) / steps;
      least = std::min(least, slowest(links, shares));
      return;
    }
    for (int own = 0; own <= left; ++own) {
      shares[node] = static_cast<double>(own) / steps;
      self(self, node + 1, left - own);
    }
  };
  deal(deal, 0, steps);
  return least;
}

double total(const std::vector<double>& shares) { return std::accumulate(shares.begin(), shares.end(), 0.0); }

TEST(ServerShares, NeverLoseToAnySharesOfAGrid) {
  std::mt19937_64 random(1);
  std::lognormal_distribution<double> rate(0, 1);
  for (std::size_t workers = 1; workers <= 4; ++workers) {
    for (std::size_t servers = 0; servers <= 3 && workers + servers <= 6; ++servers) {
      const int steps = workers + servers <= 4 ? 40 : 16;
      for (int round = 0; round < 20; ++round) {
        LinkRates links;
        for (std::size_t i = 0; i < workers; ++i) links.workers.push_back(rate(random));
        for (std::size_t j = 0; j < servers; ++j) links.servers.push_back(rate(random));
        const ServerShares best = server_shares(links);
        ASSERT_EQ(best.of_node.size(), workers + servers);
        EXPECT_NEAR(total(best.of_node), 1, 1e-12);
        EXPECT_THAT(best.of_node, Each(::testing::Ge(0.0)));
        EXPECT_NEAR(best.seconds_per_byte, slowest(links, best.of_node), 1e-9 * best.seconds_per_byte);
        const double searched = least_on_grid(links, steps);
        EXPECT_LE(best.seconds_per_byte, searched * (1 + 1e-9)) << workers << " workers, " << servers << " servers, round " << round;
        // The grid comes close: rounding each share by a step moves no link by more than the workers' number of steps.
        const double slowest_rate = std::min(*std::min_element(links.workers.begin(), links.workers.end()),
                                             servers == 0 ? 1e300 : *std::min_element(links.servers.begin(), links.servers.end()));
        EXPECT_GE(best.seconds_per_byte,
                  searched - static_cast<double>(workers * (workers + servers)) / steps / slowest_rate);
      }
    }
  }
}

TEST(ServerShares, OfDedicatedServersAloneNeverLoseToAnySharesOfAGrid) {
  std::mt19937_64 random(2);
  std::lognormal_distribution<double> rate(0, 1);
  for (int round = 0; round < 50; ++round) {
    const std::size_t workers = 1 + random() % 5;
    LinkRates links{std::vector<double>(workers), {rate(random), rate(random), rate(random)}};
    for (double& r : links.workers) r = rate(random);
    const ServerShares best = server_shares(links, false);
    EXPECT_EQ(best.colocated, 0);
    for (int a = 0; a <= 20 && workers > 1; ++a) {
      for (int b = 0; a + b <= 20; ++b) {
        std::vector<double> shares(workers, 0);
        for (const int part : {a, b, 20 - a - b}) shares.push_back(part / 20.0);
        EXPECT_LE(best.seconds_per_byte, slowest(links, shares) * (1 + 1e-9));
      }
    }
  }
}

TEST(ServerShares, OfEqualLinksAreThePublishedOptimum) {
  for (int n = 2; n <= 64; ++n) {
    for (int k = 0; k <= n; ++k) {
      const double all = n * n + k * (n - 2);
      const double x = (n - k) / all;
      const double y = 2 * (n - 1) / all;
      const ServerShares best = server_shares(n, k);
      for (int node = 0; node < n + k; ++node) {
        ASSERT_NEAR(best.of_node[static_cast<std::size_t>(node)], node < n ? x : y, 1e-12) << n << " workers, " << k << " servers";
      }
      EXPECT_NEAR(best.seconds_per_byte, k == 0 ? 2 * (n - 1.0) / n : n * y, 1e-12);
      EXPECT_NEAR(best.colocated, n * x, 1e-12);
    }
  }
}

TEST(ServerShares, OfMoreServersThanWorkersAreAllDedicated) {
  // Each worker sends each byte once and gets each sum once, whoever serves: no more can be gained.
  for (int n = 3; n <= 8; ++n) {
    const ServerShares best = server_shares(n, 2 * n);
    for (int node = 0; node < 3 * n; ++node) {
      EXPECT_NEAR(best.of_node[static_cast<std::size_t>(node)], node < n ? 0 : 0.5 / n, 1e-12);
    }
    EXPECT_NEAR(best.seconds_per_byte, 1, 1e-12);
  }
}

TEST(ServerShares, OfWorkersAloneFollowTheirRates) {
  // Level t = 2 · 3 / (4 + 4 + 2 + 2) = 1/2: x = (t w - 1) / 2, so the slow ones own nothing; by hand.
  EXPECT_THAT(server_shares({{4, 4, 2, 2}, {}}).of_node, Pointwise(DoubleNear(1e-12), {0.5, 0.5, 0.0, 0.0}));
  EXPECT_NEAR(server_shares({{4, 4, 2, 2}, {}}).seconds_per_byte, 0.5, 1e-12);
}

TEST(ServerShares, AVerySlowWorkerOwnsNothingAndTheOthersStayBalanced) {
  // Worker 2 needs 100 s for its own byte, whatever is done; the rest is not left to the first that has room.
  const ServerShares best = server_shares({{1, 1, 0.01, 1}, {1, 1}});
  EXPECT_EQ(best.of_node[2], 0);
  EXPECT_NEAR(best.seconds_per_byte, 100, 1e-9);
  EXPECT_NEAR(best.of_node[0], best.of_node[3], 1e-12);
  EXPECT_NEAR(1 + 2 * best.of_node[0], 4 * best.of_node[4], 1e-12) << "worker 0 is as busy as a dedicated server";
}

TEST(ServerShares, AVerySlowServerOwnsNextToNothing) {
  const ServerShares best = server_shares({{1, 1, 1, 1}, {1e-6}});
  EXPECT_LT(best.of_node[4], 1e-6);
  EXPECT_NEAR(best.seconds_per_byte, 1.5, 1e-5) << "as without it";
}

TEST(ServerShares, OfTwoWorkersAreHalvesAndDedicatedServersTakeAsMuchAsTheirLinksDo) {
  EXPECT_THAT(server_shares({{3, 1}, {}}).of_node, ElementsAre(0.5, 0.5));
  EXPECT_THAT(server_shares({{4, 1}, {4}}).of_node, Pointwise(DoubleNear(1e-12), {0.25, 0.25, 0.5}));
  EXPECT_THAT(server_shares({{1, 1}, {5, 15}}).of_node, Pointwise(DoubleNear(1e-12), {0.0, 0.0, 0.25, 0.75}));
}

TEST(ServerShares, OfOneWorkerStayWithIt) {
  EXPECT_THAT(server_shares(1, 2).of_node, ElementsAre(1, 0, 0));
  EXPECT_EQ(server_shares(1, 2).seconds_per_byte, 0);
  EXPECT_EQ(server_shares(1, 0).seconds_per_byte, 0);
}

TEST(PartsPerMillion, SumToAMillionAndAreWithinOneOfTheShares) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 200; ++round) {
    std::vector<double> shares(1 + random() % 100);
    for (double& share : shares) share = static_cast<double>(random() % 1000);
    shares[0] += 1;
    const double all = total(shares);
    for (double& share : shares) share /= all;
    const std::vector<std::uint32_t> parts = parts_per_million(shares);
    EXPECT_EQ(std::accumulate(parts.begin(), parts.end(), 0u), 1'000'000u);
    for (std::size_t i = 0; i < parts.size(); ++i) EXPECT_NEAR(parts[i], shares[i] * 1e6, 1.0);
  }
  const std::vector<double> thirds(3, 1.0 / 3);
  EXPECT_THAT(parts_per_million(thirds), ElementsAre(333'334, 333'333, 333'333));
}

TEST(Steadied, RatesOfOneKindAreEqualAndOtherKindsStay) {
  const std::vector<double> rates = {1.1, 10, 0.95, 8, 2.5, 1.0};
  EXPECT_THAT(steadied(rates), ElementsAre(0.95, 8, 0.95, 8, 2.5, 0.95));
  EXPECT_TRUE(steadied({}).empty());
}

}  // namespace
}  // namespace poseidon::plan
