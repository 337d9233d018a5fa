#include "apps/poseidon/run_output.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/text.h"

namespace poseidon::app {
namespace {

constexpr std::size_t kTailBytes = 32 * 1024;
constexpr std::size_t kTailLines = 20;
constexpr std::size_t kLineBytesMax = 64 * 1024;
constexpr std::string_view kTraceback = "Traceback (most recent call last):";

void print(std::FILE* screen, std::string_view bytes) {
  std::fwrite(bytes.data(), 1, bytes.size(), screen);
  std::fflush(screen);
}

// What of `line` and `bytes` behind it are whole lines; the rest becomes `line`. Longer ones are parted.
std::string whole_lines(std::string& line, const std::string& bytes) {
  line += bytes;
  std::size_t end = line.find_last_of("\n\r");
  if (end == std::string::npos) {
    if (line.size() < kLineBytesMax) return {};
    end = line.size() - 1;
  }
  std::string lines = line.substr(0, end + 1);
  line.erase(0, end + 1);
  return lines;
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
  const std::string lines = whole_lines(output.is_error ? log.error_line : log.line, output.bytes);
  if (screen_ == Screen::kAll) show(log, lines, screen);
  return keep(log, lines);
}

Status RunOutput::keep(Log& log, const std::string& lines) const {
  if (log.is_broken || lines.empty()) return {};
  const bool is_written =
      log.file != nullptr && std::fwrite(lines.data(), 1, lines.size(), log.file.get()) == lines.size() && std::fflush(log.file.get()) == 0;
  if (is_written) return {};
  log.is_broken = true;
  return Error{ErrorCode::kSystem, base::concat("cannot write the log ", log.path.string(), ": ", std::strerror(errno), "; is the disk full?")};
}

void RunOutput::show(const Log& log, std::string_view lines, std::FILE* screen) const {
  std::string labelled;
  while (!lines.empty()) {
    const std::size_t end = lines.find_first_of("\n\r");
    // A line that is drawn over the one before stands below it here.
    labelled += base::concat(log.label, "│ ", lines.substr(0, end), "\n");
    lines.remove_prefix(std::min(end, lines.size() - 1) + 1);
  }
  if (!labelled.empty()) print(screen, labelled);
}

void RunOutput::finish() {
  for (Log& log : logs_) {
    for (std::string* const line : {&log.line, &log.error_line}) {
      if (line->empty()) continue;
      if (screen_ == Screen::kAll) show(log, *line, line == &log.line ? stdout : stderr);
      static_cast<void>(keep(log, *line));  // a log that cannot be written has been told of
      line->clear();
    }
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
