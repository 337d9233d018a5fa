// Whole jobs whose workers combine per host, in virtual time: whatever the grouping, the parameters are right; and for one grouping
// the same in every bit, whatever the order in which frames and tasks come.
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <random>

#include "support/swarm.h"

namespace poseidon::test {
namespace {

constexpr int kWorkerCounts[] = {2, 3, 4, 5, 8};

// Each worker on a random one of a few hosts.
plan::HostGroups random_groups(int workers, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const std::uint64_t hosts = 1 + random() % 3;
  std::map<std::uint64_t, std::size_t> number;
  plan::HostGroups groups;
  for (int rank = 0; rank < workers; ++rank) {
    const std::uint64_t host = random() % hosts;
    if (!number.contains(host)) {
      number[host] = groups.size();
      groups.emplace_back();
    }
    groups[number[host]].push_back(Rank{rank});
  }
  // Everybody alone is no grouping.
  if (groups.size() == static_cast<std::size_t>(workers)) {
    groups[0].push_back(groups.back()[0]);
    groups.pop_back();
  }
  return groups;
}

SimJob quiet_job(std::uint64_t problem) {
  SimJob job;
  TrainingScript& script = job.script;
  script.problem = problem;
  script.model = random_model(problem, 600'000);
  const int workers = kWorkerCounts[problem % std::size(kWorkerCounts)];
  const plan::HostGroups hosts = random_groups(workers, problem * 17);
  script.plan = random_plan(script.model, static_cast<int>(hosts.size()), problem * 31);
  script.plan.workers = workers;
  script.plan.hosts = hosts;
  script.absent_probability = problem % 3 == 0 ? 0.4 : 0;
  script.short_batch_probability = problem % 4 == 0 ? 0.5 : 0;
  script.allocate = problem % 2 == 0;
  return job;
}

TEST(HostSwarm, AQuietRunGivesWhatOneLoopWithoutAnEngineGives) {
  for (const std::uint64_t problem : seeds(80)) {
    SCOPED_TRACE("problem " + std::to_string(problem));
    const SimJob job = quiet_job(problem);
    // Float32 sums of at most 8 x 6 products of numbers below 2, over three iterations.
    expect_what_one_loop_gives(job, run(job), 2e-5);
    if (HasFatalFailure()) return;
  }
}

// `define` makes another problem of each, `change` whatever must not matter.
void expect_the_bits_of_the_quiet_run(std::uint64_t runs, const std::function<void(SimJob& job, std::uint64_t problem)>& define,
                                      const std::function<void(SimJob& job, std::uint64_t seed)>& change) {
  const auto defined = [&](std::uint64_t problem) {
    SimJob job = quiet_job(problem);
    define(job, problem);
    return job;
  };
  expect_the_same_bits(runs, 30, defined, [&](SimJob& job, std::uint64_t seed) {
    job.script.allocate = seed % 2 == 0;
    change(job, seed);
  });
}

TEST(HostSwarm, ShuffledArrivalNeverChangesABit) {
  expect_the_bits_of_the_quiet_run(1200, [](SimJob&, std::uint64_t) {}, [](SimJob&, std::uint64_t) {});
}

// On several lanes, with any shares on the hosts.
void deal_and_serve_anyhow(SimJob& job, std::uint64_t seed) {
  deal_to_several_lanes(job, seed);
  std::mt19937_64 random(seed);
  give_any_shares(job, job.script.plan.hosts.size(), random);
}

TEST(HostSwarm, LanesAndWhoServesNeverChangeABit) {
  expect_the_bits_of_the_quiet_run(600, [](SimJob&, std::uint64_t) {}, deal_and_serve_anyhow);
}

TEST(HostSwarm, LanesAndWhoServesNeverChangeABitOfANarrowWire) {
  const auto narrow = [](SimJob& job, std::uint64_t problem) {
    job.script.plan.wire = problem % 2 == 0 ? DType::kBFloat16 : DType::kFloat16;
  };
  expect_the_bits_of_the_quiet_run(600, narrow, deal_and_serve_anyhow);
}

// A host's sum is narrowed on its way to others, and only there.
TEST(HostSwarm, OnOneHostNothingIsNarrowed) {
  SimJob job = quiet_job(2);
  job.script.plan = uniform_plan(job.script.model, 1, Scheme::kPs);
  job.script.plan.workers = 4;
  job.script.plan.hosts = {{Rank{0}, Rank{1}, Rank{2}, Rank{3}}};
  const SimResult full = run(job);
  job.script.plan.wire = DType::kBFloat16;
  const SimResult narrow = run(job);
  ASSERT_TRUE(narrow.finished) << narrow.trouble;
  EXPECT_EQ(narrow.parameters, full.parameters);
}

TEST(HostSwarm, OneSeedIsOneRun) {
  for (const std::uint64_t seed : seeds(10)) {
    expect_one_run(unruly(quiet_job(seed), seed), seed);
  }
}

// One push per host: what leaves a host does not depend on how many workers it has.
TEST(HostSwarm, AHostSendsAsMuchAsOneWorker) {
  SimJob job;
  job.script.model = random_model(5, 600'000);
  job.script.plan = uniform_plan(job.script.model, 2, Scheme::kPs);
  const SimResult two_workers = run(job);
  ASSERT_TRUE(two_workers.finished) << two_workers.trouble;
  job.script.plan.workers = 6;
  job.script.plan.hosts = {{Rank{0}, Rank{1}, Rank{2}}, {Rank{3}, Rank{4}, Rank{5}}};
  const SimResult six_workers = run(job);
  ASSERT_TRUE(six_workers.finished) << six_workers.trouble;
  for (std::size_t t = 0; t < job.script.model.tensors.size(); ++t) {
    EXPECT_EQ(six_workers.tensor_bytes[0][t].sent, two_workers.tensor_bytes[0][t].sent);
    EXPECT_EQ(six_workers.tensor_bytes[3][t].sent, two_workers.tensor_bytes[1][t].sent);
    for (const std::size_t follower : {1u, 2u, 4u, 5u}) EXPECT_EQ(six_workers.tensor_bytes[follower][t].sent, 0u);
  }
}

TEST(HostSwarm, WithinOneHostNoGradientTravels) {
  SimJob job = quiet_job(2);
  job.script.plan = uniform_plan(job.script.model, 1, Scheme::kSfb);
  job.script.plan.workers = 4;
  job.script.plan.hosts = {{Rank{0}, Rank{1}, Rank{2}, Rank{3}}};
  const SimResult result = run(job);
  ASSERT_TRUE(result.finished) << result.trouble;
  for (const std::uint64_t sent : result.link_bytes_sent) EXPECT_LT(sent, 20'000u) << "messages only; the model has 600 kB";
}

}  // namespace
}  // namespace poseidon::test
