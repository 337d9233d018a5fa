#include "apps/poseidon/run_output.h"

#include <cerrno>
#include <cstring>

#include "base/text.h"

namespace poseidon::app {
namespace {

constexpr std::size_t kTailBytes = 32 * 1024;
constexpr std::size_t kTailLines = 20;
constexpr std::string_view kTraceback = "Traceback (most recent call last):";

void print(std::FILE* screen, std::string_view bytes) {
  std::fwrite(bytes.data(), 1, bytes.size(), screen);
  std::fflush(screen);
}

}  // namespace

RunOutput::RunOutput(Screen screen, std::vector<std::string> labels, std::vector<std::filesystem::path> logs) : screen_(screen) {
  for (std::size_t i = 0; i < labels.size(); ++i) {
    logs_.push_back({std::move(labels[i]), logs[i], {std::fopen(logs[i].c_str(), "we"), &std::fclose}, false, {}, {}, {}});
  }
}

Status RunOutput::take(const launch::NodeOutput& output) {
  Log& log = logs_[static_cast<std::size_t>(output.number)];
  if (output.is_error) {
    log.tail += output.bytes;
    if (log.tail.size() > kTailBytes) log.tail.erase(0, log.tail.size() - kTailBytes);
  }
  std::FILE* const screen = output.is_error ? stderr : stdout;
  if (screen_ == Screen::kFirst && output.number == 0) print(screen, output.bytes);
  if (screen_ == Screen::kAll) show_lines(log.label, output.is_error ? log.error_line : log.line, output.bytes, screen);
  if (log.is_broken) return {};
  const bool is_written = log.file != nullptr && std::fwrite(output.bytes.data(), 1, output.bytes.size(), log.file.get()) == output.bytes.size() &&
                          std::fflush(log.file.get()) == 0;
  if (is_written) return {};
  log.is_broken = true;
  return Error{ErrorCode::kSystem, base::concat("cannot write the log ", log.path.string(), ": ", std::strerror(errno), "; is the disk full?")};
}

void RunOutput::show_lines(const std::string& label, std::string& line, const std::string& bytes, std::FILE* screen) const {
  line += bytes;
  std::string whole;
  std::size_t begin = 0;
  for (std::size_t end = line.find('\n'); end != std::string::npos; end = line.find('\n', begin)) {
    whole += base::concat(label, "│ ", std::string_view(line).substr(begin, end + 1 - begin));
    begin = end + 1;
  }
  line.erase(0, begin);
  if (!whole.empty()) print(screen, whole);
}

void RunOutput::finish() {
  if (screen_ != Screen::kAll) return;
  for (Log& log : logs_) {
    if (!log.line.empty()) show_lines(log.label, log.line, "\n", stdout);
    if (!log.error_line.empty()) show_lines(log.label, log.error_line, "\n", stderr);
  }
}

std::string RunOutput::last_words(int process) const {
  std::string_view tail = logs_[static_cast<std::size_t>(process)].tail;
  while (!tail.empty() && tail.back() == '\n') tail.remove_suffix(1);
  if (const std::size_t traceback = tail.rfind(kTraceback); traceback != tail.npos) return std::string(tail.substr(traceback));
  std::size_t begin = tail.size();
  for (std::size_t lines = 0; lines < kTailLines && begin != tail.npos && begin > 0; ++lines) begin = tail.rfind('\n', begin - 1);
  return std::string(tail.substr(begin == tail.npos || begin == 0 ? 0 : begin + 1));
}

}  // namespace poseidon::app
