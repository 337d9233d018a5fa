#include "engines/caffe/proto/solver_state_file.h"

#include <gtest/gtest.h>

#include "tests/caffe/proto/bytes.h"

namespace poseidon::caffe::proto {
namespace {

using testing_bytes::bytes_of;
using testing_bytes::error_of;

SolverState parse(std::string_view bytes) {
  return parse_solver_state(bytes, "x.solverstate");
}

SolverState example() {
  SolverState state;
  state.iteration = 300;
  state.model_file = "lenet_iter_300.caffemodel";
  state.current_step = 2;
  state.history = {Blob{{1, 2}, std::vector<float>{0.5F, -0.25F}}, Blob{{1}, std::vector<double>{1.0 / 3}}};
  state.resume =
      ResumeState{std::string(64, 'a'), {{"data", 19'200}, {"more", std::uint64_t{1} << 40}}, -7, "float32", "SGD", 4,
                  "sum", {{"lstm", {Blob{{1, 2}, std::vector<float>{0.5F, 2}}, Blob{{1, 1}, std::vector<float>{3}}}}}};
  return state;
}

TEST(SolverStateFile, HasCaffesBytes) {
  // SolverState {1: 300, 2: "m", 4: 0, 3: BlobProto {5: [1.0f], 7: BlobShape {1: [1]}}}; protobuf writes by field
  // number.
  SolverState state;
  state.iteration = 300;
  state.model_file = "m";
  state.history = {Blob{{1}, std::vector<float>{1.0F}}};
  EXPECT_EQ(*solver_state_bytes(state), bytes_of("08 AC 02  12 01 6D  1A 0B 2A 04 00 00 80 3F 3A 03 0A 01 01  20 00"));
}

TEST(SolverStateFile, KeepsEverything) {
  const SolverState wrote = example();
  const SolverState read = parse(*solver_state_bytes(wrote));
  EXPECT_EQ(read.iteration, 300);
  EXPECT_EQ(read.model_file, wrote.model_file);
  EXPECT_EQ(read.current_step, 2);
  ASSERT_EQ(read.history.size(), 2u);
  EXPECT_EQ(read.history[0].values, wrote.history[0].values);
  EXPECT_EQ(read.history[1].values, wrote.history[1].values);
  ASSERT_TRUE(read.resume.has_value());
  EXPECT_EQ(read.resume->model_sha256, std::string(64, 'a'));
  ASSERT_EQ(read.resume->data_positions.size(), 2u);
  EXPECT_EQ(read.resume->data_positions[1].layer, "more");
  EXPECT_EQ(read.resume->data_positions[1].next_record, std::uint64_t{1} << 40);
  EXPECT_EQ(read.resume->random_seed, -7);
  EXPECT_EQ(read.resume->dtype, "float32");
  EXPECT_EQ(read.resume->solver_type, "SGD");
  EXPECT_EQ(read.resume->workers, 4u);
  EXPECT_EQ(read.resume->update, "sum");
  ASSERT_EQ(read.resume->carried.size(), 1u);
  EXPECT_EQ(read.resume->carried[0].layer, "lstm");
  ASSERT_EQ(read.resume->carried[0].blobs.size(), 2u);
  EXPECT_EQ(read.resume->carried[0].blobs[0].shape, (std::vector<std::int64_t>{1, 2}));
  EXPECT_EQ(read.resume->carried[0].blobs[1].values, wrote.resume->carried[0].blobs[1].values);
}

TEST(SolverStateFile, OfAnEarlierVersionIsOfAveragedGradients) {
  SolverState wrote = example();
  wrote.resume->update = "average";
  wrote.resume->carried.clear();
  std::string bytes = *solver_state_bytes(wrote);
  // Field 998, a text: tag 998 << 3 | 2 = 7986 = B2 3E.
  const std::string field = bytes_of("B2 3E 07") + "average";
  ASSERT_NE(bytes.find(field), std::string::npos);
  bytes.erase(bytes.find(field), field.size());
  EXPECT_EQ(parse(bytes).resume->update, "average");
}

TEST(SolverStateFile, OfCaffesOwnHasNothingToResumeBy) {
  const SolverState read = parse(bytes_of("08 AC 02  12 01 6D"));
  EXPECT_EQ(read.iteration, 300);
  EXPECT_FALSE(read.resume.has_value());
}

TEST(SolverStateFile, OfALaterFormatIsRefused) {
  // Field 1000, a number: tag 1000 << 3 = 8000 = C0 3E.
  EXPECT_EQ(error_of([] { static_cast<void>(parse(bytes_of("08 01  C0 3E 02"))); }),
            "x.solverstate: is a snapshot of format 2; this program reads format 1, so resume with the version of "
            "Poseidon that wrote it");
  EXPECT_NE(error_of([] { static_cast<void>(parse(bytes_of("08 01  C0 3E 01  F0 3E 01"))); }).find("no checksum"),
            std::string::npos);
}

TEST(SolverStateFile, RecognisesOtherFiles) {
  EXPECT_NE(error_of([] { static_cast<void>(parse("")); }).find("is empty"), std::string::npos);
  // A model: 1 is a text there.
  EXPECT_NE(error_of([] { static_cast<void>(parse(bytes_of("0A 01 6E"))); }).find("something else"), std::string::npos);
  EXPECT_NE(error_of([] { static_cast<void>(parse(bytes_of("12 01 6D"))); }).find("holds no iteration"),
            std::string::npos);
  EXPECT_NE(
      error_of([] { static_cast<void>(parse(bytes_of("08 FF FF FF FF FF FF FF FF FF 01"))); }).find("iteration -1"),
      std::string::npos);
}

TEST(SolverStateFile, RefusesTruncation) {
  // The format has no end mark, so a file cut between two fields is a file with fewer fields. What was cut before
  // Poseidon's own fields, which stand last, looks like a snapshot of Caffe's with fewer arrays of history, which a
  // solver notices.
  const std::string bytes = *solver_state_bytes(example());
  const std::size_t own_fields = bytes.find(bytes_of("C0 3E 01"));
  ASSERT_NE(own_fields, std::string::npos);
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    try {
      const SolverState read = parse(std::string_view(bytes).substr(0, length));
      EXPECT_LE(length, own_fields);
      EXPECT_FALSE(read.resume.has_value());
    } catch (const ConfigError&) {
    }
  }
}

}  // namespace
}  // namespace poseidon::caffe::proto
