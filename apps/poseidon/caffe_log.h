// A training told in the lines of Caffe's own log, which people's scripts read: glog's prefix, and the texts of Caffe 1.0's solver.cpp and
// sgd_solver.cpp.
//
//   I1121 10:15:00.123456  4711 solver.cpp:218] Iteration 100 (52.1 iter/s, 1.92s/100 iters), loss = 0.301
//
// The numbers of source lines are Caffe 1.0's. A worker's numbers do not appear: losses and outputs are means over the workers.
#pragma once

#include <chrono>
#include <cstdio>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "apps/poseidon/train_notes.h"

namespace poseidon::app {

class CaffeLog {
 public:
  // `write` takes each line, with its end.
  explicit CaffeLog(std::function<void(const std::string& line)> write) : write_(std::move(write)) {}

  void on_start(const StartNote& note);
  // An iteration for which the solver's `display` asks: the smoothed loss, and the outputs.
  void on_display(std::uint64_t iteration, double loss, double rate, const std::vector<ScoreNote>& outputs);
  void on_test(const TestNote& note, bool tells_loss);
  void on_snapshot(const SnapshotNote& note);
  // `loss`: of the last iteration, where there was one.
  void on_end(std::uint64_t iteration, std::optional<double> loss);

 private:
  void line(std::string_view source, const std::string& text);
  void outputs(std::string_view source, std::string_view phase, const std::vector<ScoreNote>& scores);

  std::function<void(const std::string& line)> write_;
  std::optional<std::uint64_t> last_iteration_;
  std::chrono::steady_clock::time_point last_time_ = std::chrono::steady_clock::now();
};

}  // namespace poseidon::app
