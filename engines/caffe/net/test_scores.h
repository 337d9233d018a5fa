// What a net yields over the batches of a test: each element of each output, averaged.
//
// A test may be shared out: every batch is scored by itself, and the mean is taken over all of them in their order, so
// the result does not depend on who scored which.
#pragma once

#include <string>
#include <vector>

#include "engines/caffe/net/net.h"

namespace poseidon::caffe {

// What one batch yielded.
struct BatchScores {
  std::uint64_t batch = 0;     // 0 to count - 1
  std::vector<double> values;  // of all elements of all outputs in their order, then the weighted loss
};

struct TestBatches {
  std::uint64_t first = 0;  // first, first + stride, ... below count
  std::uint64_t stride = 1;
  std::uint64_t count = 0;         // batches of the whole test
  std::uint64_t first_record = 0;  // where the whole test begins: batch t is records [t b, (t + 1) b) behind it
  Iteration iteration = 0;         // of the training, for the listener's spans
};
std::vector<BatchScores> score_batches(Net& net, const TestBatches& batches);

struct TestScore {
  std::string name;  // of the output; several of its elements follow each other
  double value = 0;
  double loss_weight = 0;
};
struct TestScores {
  std::vector<TestScore> scores;
  double loss = 0;
};
// Of the net's last forward pass.
std::vector<TestScore> last_scores(const Net& net);
// Over the scores of all `count` batches, in any order. Throws std::logic_error where some are missing.
TestScores averaged(const Net& net, std::vector<BatchScores> scores, std::uint64_t count);

}  // namespace poseidon::caffe
