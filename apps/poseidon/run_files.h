// The names of files in a run's folder.
#pragma once

#include <string>

namespace poseidon::app {

// "rank-02.log", "server-00.log": process `number` of a job of so many workers.
std::string log_name(int number, int workers);

}  // namespace poseidon::app
