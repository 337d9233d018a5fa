#include "apps/poseidon/job_files.h"

#include <unistd.h>

#include <array>
#include <ctime>

#include "base/text.h"

namespace poseidon::app {

Result<std::filesystem::path> make_run_folder(const std::optional<std::string>& wanted, const std::string& stem) {
  std::filesystem::path folder;
  if (wanted) {
    folder = *wanted;
  } else {
    std::array<char, 32> stamp{};
    const std::time_t now = std::time(nullptr);
    std::tm local{};
    ::localtime_r(&now, &local);
    std::strftime(stamp.data(), stamp.size(), "%Y%m%d-%H%M%S", &local);
    folder = std::filesystem::path("poseidon-runs") / base::concat(stamp.data(), "-", stem, "-", ::getpid());
  }
  std::error_code failed;
  std::filesystem::create_directories(folder, failed);
  if (failed) return Error{ErrorCode::kSystem, base::concat("cannot make the run folder ", folder.string(), ": ", failed.message())};
  return std::filesystem::absolute(folder);
}

Status check_writable(const std::optional<std::string>& file, const char* flag) {
  if (!file) return {};
  const bool is_folder = std::filesystem::is_directory(*file);
  const std::filesystem::path parent = std::filesystem::absolute(*file).parent_path();
  if (::access(parent.c_str(), W_OK) == 0 && !is_folder) return {};
  return Error{ErrorCode::kSystem,
               base::concat(flag, " ", *file, ": ", is_folder ? "it is a folder" : "its folder does not exist or cannot be written")};
}

Result<std::vector<std::string>> own_command(const std::string& subcommand, const std::vector<std::string>& arguments) {
  std::error_code failed;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", failed);
  if (failed) return Error{ErrorCode::kSystem, "cannot find this program in /proc/self/exe: " + failed.message()};
  std::vector<std::string> command = {self.string(), subcommand};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return command;
}

std::filesystem::path timeline_part(const std::filesystem::path& folder, int rank) { return folder / base::concat("timeline-", rank, ".part"); }

std::vector<std::filesystem::path> python_folders() {
  std::error_code failed;
  const std::filesystem::path bin = std::filesystem::read_symlink("/proc/self/exe", failed).parent_path();
  const std::filesystem::path built = bin.parent_path() / "python";
  if (std::filesystem::exists(built / "poseidon", failed)) return {built / "poseidon/_hook", built};
  // Installed: the package lies where Python finds it, among others that must not come before Python's own.
  return {(bin / POSEIDON_PYTHON_FROM_BIN / "poseidon/_hook").lexically_normal()};
}

}  // namespace poseidon::app
