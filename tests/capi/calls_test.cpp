// Calls of the C ABI that need no job.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "worker_fixture.h"

namespace capi_test {
namespace {

using ::testing::HasSubstr;

TEST(CApi, WithoutAJobThereIsNothingToJoin) {
  poseidon_place found = POSEIDON_INIT(poseidon_place);
  found.in_job = 7;
  EXPECT_EQ(poseidon_find_job(&found), POSEIDON_OK);
  EXPECT_EQ(found.in_job, 0);
  Layer layer;
  EXPECT_EQ(layer.join(), POSEIDON_NOT_FOUND);
  EXPECT_THAT(poseidon_last_error(), HasSubstr("POSEIDON_RANK is not set"));
  EXPECT_EQ(layer.cluster, nullptr);
  EXPECT_EQ(poseidon_rank(nullptr), -1);
  EXPECT_EQ(poseidon_plan(nullptr), nullptr);
  poseidon_close(nullptr);
}

TEST(CApi, RefusesALocalJobThatCannotBe) {
  poseidon_local_options options = POSEIDON_INIT(poseidon_local_options);
  EXPECT_EQ(poseidon_run_local(&options, nullptr), POSEIDON_INVALID);
  EXPECT_THAT(poseidon_last_error(), HasSubstr("0 workers are not possible"));
  options.workers = 1;
  options.schemes = "blok";
  EXPECT_EQ(poseidon_run_local(&options, nullptr), POSEIDON_INVALID);
  EXPECT_THAT(poseidon_last_error(), HasSubstr("did you mean block?"));
  options.schemes = nullptr;
  options.link_bytes_per_second = -1;
  EXPECT_EQ(poseidon_run_local(&options, nullptr), POSEIDON_INVALID);
  options.link_bytes_per_second = 0;
  options.lanes = 17;
  EXPECT_EQ(poseidon_run_local(&options, nullptr), POSEIDON_INVALID);
  EXPECT_THAT(poseidon_last_error(), HasSubstr("17 lanes are not possible"));
  options.lanes = 0;
  options.wire = 7;
  EXPECT_EQ(poseidon_run_local(&options, nullptr), POSEIDON_INVALID);
  EXPECT_THAT(poseidon_last_error(), HasSubstr("POSEIDON_BFLOAT16"));
  options.wire = POSEIDON_FLOAT64;
  EXPECT_EQ(poseidon_run_local(&options, nullptr), POSEIDON_INVALID);
  options.wire = 0;
  options.run_folder = "/nowhere/at/all";
  EXPECT_EQ(poseidon_run_local(&options, nullptr), POSEIDON_NOT_FOUND);
}

// A program of tomorrow with a library of today, and the other way round.
TEST(CApi, StructsOfOtherVersionsAreReadAsFarAsTheyAreKnown) {
  struct Grown {
    poseidon_place known;
    int64_t unknown;
  } grown = {};
  grown.known.size = sizeof grown;
  EXPECT_EQ(poseidon_find_job(&grown.known), POSEIDON_OK);
  EXPECT_EQ(grown.known.size, sizeof grown) << "the program's size stays";
  EXPECT_EQ(grown.known.workers, 1);
  grown.unknown = 1;
  EXPECT_EQ(poseidon_find_job(&grown.known), POSEIDON_INVALID);
  EXPECT_THAT(poseidon_last_error(), HasSubstr("asks for what this version of the library does not have"));
  grown.known.size = sizeof grown.known - 1;
  EXPECT_EQ(poseidon_find_job(&grown.known), POSEIDON_INVALID);
}

// A program of the first version, whose options end before what has been appended since: what lies behind them is not read.
TEST(CApi, OptionsOfTheFirstVersionAreStillRead) {
  poseidon_local_options options = POSEIDON_INIT(poseidon_local_options);
  options.size = offsetof(poseidon_local_options, per_host);
  options.workers = 1;
  options.run_folder = "/nowhere/at/all";
  options.lanes = 17;
  EXPECT_EQ(poseidon_run_local(&options, nullptr), POSEIDON_NOT_FOUND);
  options.size -= 1;
  EXPECT_EQ(poseidon_run_local(&options, nullptr), POSEIDON_INVALID);
  EXPECT_THAT(poseidon_last_error(), HasSubstr("poseidon_local_options"));
}

TEST(CApi, NamesItsNumbers) {
  EXPECT_EQ(poseidon_abi_version(), static_cast<uint32_t>(POSEIDON_ABI_VERSION));
  EXPECT_STREQ(poseidon_code_name(POSEIDON_OK), "ok");
  EXPECT_STREQ(poseidon_code_name(POSEIDON_INVALID), "invalid");
  EXPECT_STREQ(poseidon_code_name(POSEIDON_PEER_LOST), "peer_lost");
  EXPECT_STREQ(poseidon_code_name(POSEIDON_SYSTEM), "system");
  EXPECT_STREQ(poseidon_code_name(10), "unknown");
  EXPECT_STREQ(poseidon_code_name(-1), "unknown");
  EXPECT_STREQ(poseidon_scheme_name(POSEIDON_PS), "ps");
  EXPECT_STREQ(poseidon_scheme_name(POSEIDON_SFB), "sfb");
  EXPECT_STREQ(poseidon_scheme_name(POSEIDON_ADAM), "adam");
  EXPECT_STREQ(poseidon_scheme_name(POSEIDON_BLOCK), "block");
  EXPECT_STREQ(poseidon_scheme_name(4), "unknown");
}

}  // namespace
}  // namespace capi_test
