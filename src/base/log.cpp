#include "base/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <string>

namespace poseidon::base::log {
namespace {

spdlog::level::level_enum spdlog_level(Level level) {
  switch (level) {
    case Level::kDebug:
      return spdlog::level::debug;
    case Level::kInfo:
      return spdlog::level::info;
    case Level::kWarning:
      return spdlog::level::warn;
    case Level::kError:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

std::shared_ptr<spdlog::logger> make_logger(Level least, const std::string& pattern) {
  auto logger = std::make_shared<spdlog::logger>("poseidon", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_level(spdlog_level(least));
  logger->set_pattern(pattern);
  logger->flush_on(spdlog::level::info);
  return logger;
}

// The one logger of the process: written by configure() before threads start, read by everyone after.
std::shared_ptr<spdlog::logger>& process_logger() {
  static std::shared_ptr<spdlog::logger> logger = make_logger(Level::kWarning, "%l: %v");
  return logger;
}

}  // namespace

void configure(std::string_view who, Level least) {
  std::string escaped;
  for (const char c : who) escaped += c == '%' ? std::string("%%") : std::string(1, c);
  process_logger() = make_logger(least, "%Y-%m-%d %H:%M:%S.%e " + escaped + " %l: %v");
}

void write(Level level, std::string_view text) { process_logger()->log(spdlog_level(level), "{}", text); }

}  // namespace poseidon::base::log
