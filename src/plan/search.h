// The cheapest combination of options: one for each place, where what an option costs depends on all the others.
//
// Pure functions.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

namespace poseidon::plan {

// One option for each place, from 0.
using Choice = std::vector<std::size_t>;

// `options[i]` (at least 1) is how many options place i has. All combinations where few places have a choice; else a local search
// of moves of one place, or of two neighbours at once, which may end a little above the least. Between equals the lowest numbers
// stand.
Choice search(const std::vector<std::size_t>& options, const std::function<double(const Choice&)>& cost);

}  // namespace poseidon::plan
