#include "apps/poseidon/caffe_log.h"

#include <unistd.h>

#include <array>
#include <ctime>

#include "base/text.h"

namespace poseidon::app {
namespace {

// As a C++ stream prints it, six significant digits, which is how Caffe does.
std::string number(double value) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.6g", value);
  return text.data();
}

// "I1121 10:15:00.123456  4711 "
std::string prefix() {
  const auto now = std::chrono::system_clock::now();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(now.time_since_epoch()).count() % 1'000'000;
  std::tm local{};
  ::localtime_r(&seconds, &local);
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "I%02d%02d %02d:%02d:%02d.%06d %5d ", local.tm_mon + 1, local.tm_mday, local.tm_hour, local.tm_min,
                local.tm_sec, static_cast<int>(micros), ::getpid());
  return text.data();
}

}  // namespace

void CaffeLog::line(std::string_view source, const std::string& text) { write_(base::concat(prefix(), source, "] ", text, "\n")); }

void CaffeLog::outputs(std::string_view source, std::string_view phase, const std::vector<ScoreNote>& scores) {
  for (std::size_t i = 0; i < scores.size(); ++i) {
    const ScoreNote& score = scores[i];
    std::string text = base::concat("    ", phase, " net output #", i, ": ", score.name, " = ", number(score.value));
    if (score.loss_weight != 0) text += base::concat(" (* ", number(score.loss_weight), " = ", number(score.loss_weight * score.value), " loss)");
    line(source, text);
  }
}

void CaffeLog::on_start(const StartNote& note) {
  line("solver.cpp:279", "Solving " + note.net);
  line("solver.cpp:280", "Learning Rate Policy: " + note.rate_policy);
  last_time_ = std::chrono::steady_clock::now();
}

void CaffeLog::on_display(std::uint64_t iteration, double loss, double rate, const std::vector<ScoreNote>& scores) {
  const auto now = std::chrono::steady_clock::now();
  const double seconds = std::chrono::duration<double>(now - last_time_).count();
  const std::uint64_t done = last_iteration_ ? iteration - *last_iteration_ : 0;
  line("solver.cpp:218", base::concat("Iteration ", iteration, " (", number(done == 0 ? 0 : static_cast<double>(done) / seconds), " iter/s, ",
                                      number(seconds), "s/", done, " iters), loss = ", number(loss)));
  outputs("solver.cpp:237", "Train", scores);
  line("sgd_solver.cpp:105", base::concat("Iteration ", iteration, ", lr = ", number(rate)));
  last_iteration_ = iteration;
  last_time_ = now;
}

void CaffeLog::on_test(const TestNote& note, bool tells_loss) {
  line("solver.cpp:330", base::concat("Iteration ", note.iteration, ", Testing net (#", note.net, ")"));
  if (tells_loss) line("solver.cpp:391", "Test loss: " + number(note.loss));
  outputs("solver.cpp:397", "Test", note.scores);
}

void CaffeLog::on_snapshot(const SnapshotNote& note) {
  line("solver.cpp:447", "Snapshotting to binary proto file " + note.model);
  line("sgd_solver.cpp:273", "Snapshotting solver state to binary proto file " + note.state);
}

void CaffeLog::on_end(std::uint64_t iteration, std::optional<double> loss) {
  if (loss) line("solver.cpp:310", base::concat("Iteration ", iteration, ", loss = ", number(*loss)));
  line("solver.cpp:315", "Optimization Done.");
}

}  // namespace poseidon::app
