// The C ABI as a program outside sees it: whole jobs of real processes on loopback.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "scenarios.h"

namespace capi_test {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

int run_worker(const std::string& name) {
  const std::map<std::string, std::function<Wrong()>> scenarios = {
      {"sums", sums},
      {"factors", [] { return factors(false); }},
      {"own product", [] { return factors(true); }},
      {"slow factors", slow_factors},
      {"mistakes", mistakes},
      {"factor mistakes", factor_mistakes},
      {"gathering", gathering},
      {"giving up", giving_up},
      {"closing in a product", closing_in_a_product},
      {"refused in a worker", refused_in_a_worker},
      {"renewal", renewal},
      {"renewal mistakes", renewal_mistakes},
      {"renewed unlike", renewed_unlike},
      {"tensors for themselves", tensors_for_themselves},
      {"letters", letters},
      {"letters of other sizes", letters_of_other_sizes},
      {"spans", spans},
      {"forsaking", forsaking},
  };
  const Wrong wrong = scenarios.at(name)();
  if (wrong.empty()) return 0;
  poseidon_report_failure(POSEIDON_ABORTED, (name + ", rank " + std::to_string(place().rank) + ": " + wrong).c_str());
  return 1;
}

struct Outcome {
  int code = POSEIDON_OK;
  std::string message;
  std::string run_folder;
  std::vector<std::string> notes;  // by rank
  std::string table;
};

// `plan`: instead of `schemes`. `change`: what else is told.
Outcome run(const char* scenario, int workers, const char* schemes = "ps", const char* plan = nullptr,
            const std::function<void(poseidon_local_options&)>& change = {}) {
  Outcome outcome;
  outcome.notes.resize(static_cast<size_t>(workers));
  const char* const command[] = {"/proc/self/exe", scenario, nullptr};
  poseidon_local_options options = POSEIDON_INIT(poseidon_local_options);
  options.workers = workers;
  options.command = command;
  options.schemes = plan == nullptr ? schemes : nullptr;
  options.plan = plan;
  options.user = &outcome;
  options.on_note = [](void* user, int32_t rank, const char* text) {
    static_cast<Outcome*>(user)->notes[static_cast<size_t>(rank)] = text;
  };
  options.on_plan = [](void* user, const char*, const char* table) { static_cast<Outcome*>(user)->table = table; };
  if (change) change(options);
  poseidon_local_end end = POSEIDON_INIT(poseidon_local_end);
  outcome.code = poseidon_run_local(&options, &end);
  if (outcome.code != POSEIDON_OK) outcome.message = poseidon_last_error();
  outcome.run_folder = end.run_folder;
  return outcome;
}

#define EXPECT_JOB(call)                                                      \
  do {                                                                        \
    const Outcome outcome = (call);                                           \
    EXPECT_EQ(outcome.code, POSEIDON_OK) << #call << ": " << outcome.message; \
  } while (false)

TEST(CApi, GivesSumsOfDenseGradientsToAllWorkers) { EXPECT_JOB(run("sums", 3)); }

TEST(CApi, GivesSumsOfFactorsUnderEveryScheme) {
  for (const char* scheme : {"sfb", "adam", "block"}) {
    for (const char* scenario : {"factors", "own product"}) EXPECT_JOB(run(scenario, 2, scheme));
  }
  EXPECT_JOB(run("factors", 3, "sfb"));
}

// All on one host, and two hosts of which one has two workers: with memory of poseidon_allocate and without.
TEST(CApi, WorkersOfOneHostCombineInSharedMemory) {
  for (const std::string hosts : {"[[0, 1, 2]]", "[[0, 2], [1]]"}) {
    for (const auto& [scenario, scheme] : {std::pair("sums", "ps"), std::pair("factors", "sfb")}) {
      const std::string plan = R"({"poseidon_plan": 1, "workers": 3, "hosts": )" + hosts +
                               R"(, "layers": [{"name": "ip", "scheme": ")" + scheme + R"("}]})";
      const Outcome outcome = run(scenario, 3, nullptr, plan.c_str());
      EXPECT_EQ(outcome.code, POSEIDON_OK) << scenario << " on " << hosts << ": " << outcome.message;
    }
  }
}

TEST(CApi, WaitsUntilFactorsMayBeUsedAgain) { EXPECT_JOB(run("slow factors", 2, "sfb")); }

TEST(CApi, RefusesMistakesAndGoesOn) {
  EXPECT_JOB(run("mistakes", 2));
  EXPECT_JOB(run("factor mistakes", 2, "sfb"));
  EXPECT_JOB(run("refused in a worker", 1));
}

TEST(CApi, GathersBytesAndPassesNotesOn) {
  const Outcome outcome = run("gathering", 3);
  EXPECT_EQ(outcome.code, POSEIDON_OK) << outcome.message;
  EXPECT_THAT(outcome.notes, ElementsAre("note of 0", "note of 1", "note of 2"));
  EXPECT_THAT(outcome.table, HasSubstr("ps (asked for)"));
  EXPECT_EQ(outcome.run_folder, "");
}

TEST(CApi, AWorkerThatGivesUpEndsTheJobWithItsReason) {
  const Outcome outcome = run("giving up", 2);
  EXPECT_EQ(outcome.code, POSEIDON_SYSTEM);
  EXPECT_THAT(outcome.message, HasSubstr("there is no more paper"));
  EXPECT_THAT(outcome.run_folder, HasSubstr("/poseidon-run-")) << "the logs stay after a failure";
  std::filesystem::remove_all(outcome.run_folder);
}

TEST(CApi, ClosingWaitsForTheProductThatIsBeingMade) {
  const Outcome outcome = run("closing in a product", 2, "sfb");
  EXPECT_EQ(outcome.code, POSEIDON_PEER_LOST) << outcome.message;
  EXPECT_TRUE(std::filesystem::exists(outcome.run_folder + "/well-0")) << outcome.message;
  EXPECT_TRUE(std::filesystem::exists(outcome.run_folder + "/well-1")) << outcome.message;
  std::filesystem::remove_all(outcome.run_folder);
}

TEST(CApi, TrainsAnotherModelFromAnIterationOn) {
  EXPECT_JOB(run("renewal", 2, "sfb"));
  EXPECT_JOB(run("renewal", 2, "sfb", nullptr, [](poseidon_local_options& options) { options.lanes = 2; }));
  EXPECT_JOB(run("renewal", 2, "sfb", nullptr, [](poseidon_local_options& options) { options.per_host = "on"; }));
}

TEST(CApi, RefusesARenewalThatCannotBe) {
  EXPECT_JOB(run("renewal mistakes", 2));
  const Outcome outcome = run("renewed unlike", 2);
  EXPECT_EQ(outcome.code, POSEIDON_INVALID);
  EXPECT_THAT(outcome.message, HasSubstr("the workers renew with different values: rank 0"));
  std::filesystem::remove_all(outcome.run_folder);
}

// With memory for staging as usual, with hardly any, on two lanes of those, and in the memory of a host.
TEST(CApi, EachTensorCountsItsOwnIterations) {
  EXPECT_JOB(run("tensors for themselves", 3));
  const auto crowded = [](poseidon_local_options& options) { options.staging_bytes_max = 1; };
  EXPECT_JOB(run("tensors for themselves", 3, "ps", nullptr, crowded));
  EXPECT_JOB(run("tensors for themselves", 2, "ps", nullptr, [&](poseidon_local_options& options) {
    crowded(options);
    options.lanes = 2;
  }));
  EXPECT_JOB(run("tensors for themselves", 3, "ps", nullptr, [](poseidon_local_options& options) { options.per_host = "on"; }));
}

TEST(CApi, CarriesLettersBetweenWorkers) {
  EXPECT_JOB(run("letters", 3));
  const Outcome outcome = run("letters of other sizes", 2);
  EXPECT_EQ(outcome.code, POSEIDON_INVALID);
  EXPECT_THAT(outcome.message, HasSubstr("rank 0 sends 32 bytes where rank 1 waits for 40"));
  std::filesystem::remove_all(outcome.run_folder);
}

TEST(CApi, TellsTheLauncherItsPartOfTheTimelineWhereThatIsWanted) {
  const Outcome without = run("spans", 2);
  EXPECT_EQ(without.code, POSEIDON_OK) << without.message;
  EXPECT_THAT(without.notes, ElementsAre("", ""));
  ::setenv("POSEIDON_TIMELINE", "1", 1);
  const Outcome with = run("spans", 2);
  ::unsetenv("POSEIDON_TIMELINE");
  EXPECT_EQ(with.code, POSEIDON_OK) << with.message;
  EXPECT_THAT(with.notes, Each(AllOf(StartsWith(R"({"timeline":")"), HasSubstr("thinking"), HasSubstr("queued ip.weight"),
                                     HasSubstr("synced ip.weight"), HasSubstr("poseidon lane 0"))));
}

TEST(CApi, AForkedProcessLetsGoOfTheLinks) { EXPECT_JOB(run("forsaking", 2)); }

}  // namespace
}  // namespace capi_test

int main(int argc, char** argv) {
  if (capi_test::place().in_job == 1 && argc == 2) return capi_test::run_worker(argv[1]);
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
