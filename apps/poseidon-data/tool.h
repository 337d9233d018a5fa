// What all commands on data have in common: flags in Caffe's spelling too, progress, Ctrl-C, and errors as a sentence and an
// exit code.
#pragma once

#include <CLI/CLI.hpp>
#include <chrono>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engines/caffe/data/backend.h"
#include "engines/caffe/tools/progress.h"

namespace poseidon::data {

struct Tool {
  std::string name;                            // "poseidon convert-images": begins its messages
  std::span<const std::string_view> switches;  // its flags without a value
};

// Parses the arguments, runs `work`, and returns the exit code of the process. `work` may throw.
int run_tool(const Tool& tool, CLI::App& app, const std::vector<std::string>& arguments, const std::function<void()>& work);

// What the commands that make data bases share.
void add_backend(CLI::App& app, caffe::Backend& backend);
// And those that read them, where it is seen from the files what a data base is, unless it is given.
void add_backend(CLI::App& app, std::optional<caffe::Backend>& backend);
void add_overwrite(CLI::App& app, bool& overwrite);

// A line on standard error now and then while it takes long. From the first object on Ctrl-C does not end the process but
// lets the next call end the work: run_tool() then returns kInterrupted.
class ProgressLine {
 public:
  explicit ProgressLine(std::string things);  // "images"
  void show(caffe::Progress progress);
  caffe::ProgressFn function() {
    return [this](caffe::Progress progress) { show(progress); };
  }
  // "3.2 s": since the object was made.
  std::string time() const;

 private:
  using Clock = std::chrono::steady_clock;
  double seconds() const { return std::chrono::duration<double>(Clock::now() - begin_).count(); }

  std::string things_;
  Clock::time_point begin_ = Clock::now();
  Clock::time_point shown_ = begin_;
};

}  // namespace poseidon::data
