// What the processes of a job print: into a log for each, and some of it on the screen.
//
// A process's two streams come separately, in pieces that end anywhere; in its log, and where lines carry a name, they are put together by whole
// lines. A carriage return ends a line as well: it is how progress bars draw.
#pragma once

#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "launch/agent_messages.h"

namespace poseidon::app {

class RunOutput {
 public:
  enum class Screen {
    kFirst,     // what rank 0 prints, as it prints it
    kAll,       // all lines of all processes, with "host:rank│ " in front
    kNothing,
  };
  // `labels` by process: "b:2", "b:server 0". `logs` likewise: the files, made new.
  RunOutput(Screen screen, std::vector<std::string> labels, std::vector<std::filesystem::path> logs);

  // kSystem where a log cannot be written; said once for each log.
  Status take(const launch::NodeOutput& output);
  // Lines that have no end yet.
  void finish();
  // The last of what a process has written to its standard error, from the last traceback on where there is one.
  std::string last_words(int process) const;

 private:
  struct Log {
    std::string label;
    std::filesystem::path path;
    std::unique_ptr<std::FILE, int (*)(std::FILE*)> file;
    bool is_broken = false;
    std::string line;        // begun
    std::string error_line;
    std::string tail;        // of standard error
  };
  Status keep(Log& log, const std::string& lines) const;
  void show(const Log& log, std::string_view lines, std::FILE* screen) const;

  Screen screen_;
  std::vector<Log> logs_;
};

}  // namespace poseidon::app
