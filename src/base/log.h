// Leveled log lines of one process, on standard error.
//
// Nothing in src/ prints otherwise. The sink is set once by the program; before that, warnings and errors go to standard
// error as they are. All functions may be called from any thread.
#pragma once

#include <string>
#include <string_view>

namespace poseidon::base::log {

enum class Level { kDebug, kInfo, kWarning, kError };

// `who` stands in front of each line ("rank 2"); call it once, before other threads log.
void configure(std::string_view who, Level least);

void write(Level level, std::string_view text);
inline void debug(std::string_view text) { write(Level::kDebug, text); }
inline void info(std::string_view text) { write(Level::kInfo, text); }
inline void warning(std::string_view text) { write(Level::kWarning, text); }
inline void error(std::string_view text) { write(Level::kError, text); }

}  // namespace poseidon::base::log
