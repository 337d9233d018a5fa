// The log of a training as two tables, of training and of testing: Caffe's parse_log.py.
//
// Two kinds of log are understood: Caffe's own, which glog wrote, and what `poseidon train` prints.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace poseidon::caffe {

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

struct LogRow {
  std::uint64_t iteration = 0;
  // Since training began. From the times in a log of Caffe's. Poseidon's has none: there it is the samples so far by
  // the samples per second that each line tells, without the time of tests, and unknown if the summary at the end is
  // missing.
  double seconds = kUnknown;
  double rate = kUnknown;                               // the learning rate
  std::vector<std::pair<std::string, double>> outputs;  // "loss", "accuracy"; of the n-th further test net "netN_loss"
};

struct TrainingLog {
  std::vector<LogRow> train;
  std::vector<LogRow> test;
};

// Throws ConfigError when there is not one line of training or testing in it. A row has the learning rate of its
// iteration, or else of the nearest one before that tells it, or else of the first one that does. Caffe's script gives
// a row of training the rate of the row before.
TrainingLog parse_log(std::string_view text, const std::string& file_name);

// The table with a head: NumIters, Seconds, LearningRate, and the outputs in the order of their first appearance. What
// is unknown is written as "nan", and an output that a row does not have as nothing.
std::string log_table(const std::vector<LogRow>& rows, char delimiter);

}  // namespace poseidon::caffe
