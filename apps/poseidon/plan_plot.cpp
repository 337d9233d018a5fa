#include "apps/poseidon/plan_plot.h"

#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/text.h"

extern char** environ;

namespace poseidon::app {
namespace {

// As apps/poseidon-data/chart.h reads it.
std::string chart_json(const std::vector<PlanRow>& rows, const replay::Workload& workload) {
  std::string title =
      base::concat(workload.description.name, ", batches of ", workload.batch, ", ", workload.samples_per_second, " samples/s on one node");
  if (const int servers = rows.front().serving.servers; servers > 0) title += base::concat(", ", servers, " dedicated servers");
  nlohmann::ordered_json chart = {
      {"title", title},
      {"x", "nodes"},
      {"y", "speed-up"},
      {"ideal", "ideal"},
      {"lines", nlohmann::ordered_json::array()}};
  for (const PlanRow& row : rows) {
    auto& lines = chart["lines"];
    if (lines.empty() || lines.back()["label"] != row.bandwidth) lines.push_back({{"label", row.bandwidth}, {"points", nlohmann::ordered_json::array()}});
    lines.back()["points"].push_back({row.nodes, row.speedup()});
  }
  return chart.dump();
}

// A file in memory that holds the text, to be read from its beginning; -1 with errno where that cannot be.
int file_of(const std::string& text) {
  const int file = ::memfd_create("chart", MFD_CLOEXEC);
  if (file < 0) return -1;
  if (::write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size()) && ::lseek(file, 0, SEEK_SET) == 0) return file;
  ::close(file);
  return -1;
}

}  // namespace

std::vector<int> doubling_nodes(int most) {
  std::vector<int> nodes;
  for (int n = 1; n < most; n *= 2) nodes.push_back(n);
  nodes.push_back(most);
  return nodes;
}

Status plot_rows(const std::vector<PlanRow>& rows, const replay::Workload& workload, const std::string& path) {
  std::error_code ignored;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", ignored).parent_path() / "poseidon-images";
  const auto cannot = [&](int code) {
    return Error{ErrorCode::kSystem, base::concat("--plot: cannot run ", program.string(), ", which draws and belongs beside this program: ",
                                                  std::strerror(code))};
  };
  const int input = file_of(chart_json(rows, workload));
  if (input < 0) return cannot(errno);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
  std::vector<std::string> words = {program.string(), "plot", path};
  std::vector<char*> raw;
  for (std::string& word : words) raw.push_back(word.data());
  raw.push_back(nullptr);
  pid_t child = 0;
  const int code = ::posix_spawn(&child, program.c_str(), &actions, nullptr, raw.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ::close(input);
  if (code != 0) return cannot(code);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) return cannot(errno);
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  return Error{ErrorCode::kInvalid, base::concat("--plot: ", path, " was not written")};
}

}  // namespace poseidon::app
